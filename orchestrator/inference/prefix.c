#include "prefix.h"

#include "placement.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <string.h>
#include <xxhash.h>

/* A part that is in the blocks already: its bytes up to `len` came before. */
struct prefix_part {
    uint64_t len;
    uint64_t digest; /* of its bytes */
    uint64_t end;    /* bytes of all parts up to and with it */
};

void prefix_fini(struct prefix *x)
{
    cox_free(x->blocks);
    cox_free(x->parts);
    cox_buf_fini(&x->tail);
    *x = (struct prefix){ 0 };
}

static void push_block(struct prefix *x, uint64_t salt, const uint8_t *bytes)
{
    uint64_t before = x->n_blocks > 0 ? x->blocks[x->n_blocks - 1] : salt;

    if (x->n_blocks == PLACEMENT_BLOCKS_MAX)
        return;
    if (x->n_blocks == x->cap_blocks) {
        x->cap_blocks = x->cap_blocks ? x->cap_blocks * 2 : 64;
        x->blocks = cox_realloc(x->blocks, x->cap_blocks, sizeof *x->blocks);
    }
    x->blocks[x->n_blocks++] = XXH3_64bits_withSeed(bytes, PLACEMENT_BLOCK_LEN, before);
}

/* Bytes behind those that are in already: whole blocks straight from the part, the rest into the tail. */
static void push_bytes(struct prefix *x, uint64_t salt, struct cox_slice s)
{
    if (x->tail.len > 0) {
        size_t take = PLACEMENT_BLOCK_LEN - x->tail.len < s.len ? PLACEMENT_BLOCK_LEN - x->tail.len : s.len;
        cox_buf_append(&x->tail, s.data, take);
        s = cox_slice(s.data + take, s.len - take);
        if (x->tail.len < PLACEMENT_BLOCK_LEN)
            return;
        push_block(x, salt, x->tail.data);
        cox_buf_clear(&x->tail);
    }
    for (; s.len >= PLACEMENT_BLOCK_LEN && x->n_blocks < PLACEMENT_BLOCKS_MAX;
         s = cox_slice(s.data + PLACEMENT_BLOCK_LEN, s.len - PLACEMENT_BLOCK_LEN))
        push_block(x, salt, s.data);
    if (s.len > 0 && x->n_blocks < PLACEMENT_BLOCKS_MAX)
        cox_buf_append(&x->tail, s.data, s.len);
}

static uint64_t digest_of(struct cox_slice part, uint64_t salt)
{
    return XXH3_64bits_withSeed(part.data, part.len, salt);
}

/* How many parts, from the first on, are as they were. Takes the digest of the part that differs along. */
static uint32_t same_parts(const struct prefix *x, uint64_t salt, const struct cox_slice *parts,
                           uint32_t n_parts, uint64_t *ret_digest)
{
    uint32_t n = 0;

    *ret_digest = n_parts > 0 ? digest_of(parts[0], salt) : 0;
    while (n < x->n_parts && n < n_parts) {
        if (x->parts[n].len != parts[n].len)
            break;
        if (x->parts[n].digest != *ret_digest && !COX_PLANTED("prefix-by-length"))
            break;
        n++;
        if (n < n_parts)
            *ret_digest = digest_of(parts[n], salt);
    }
    return n;
}

/* Back to where the first `n` parts end: their last bytes, less than a block, are the tail again. */
static void rewind_to(struct prefix *x, const struct cox_slice *parts, uint32_t n)
{
    uint64_t end = n > 0 ? x->parts[n - 1].end : 0;
    uint64_t whole = end / PLACEMENT_BLOCK_LEN;
    uint8_t bytes[PLACEMENT_BLOCK_LEN];
    size_t want = (size_t)(end % PLACEMENT_BLOCK_LEN), have = 0;

    x->n_parts = n;
    x->n_blocks = whole < PLACEMENT_BLOCKS_MAX ? (uint32_t)whole : PLACEMENT_BLOCKS_MAX;
    cox_buf_clear(&x->tail);
    if (whole >= PLACEMENT_BLOCKS_MAX)
        return;
    for (; have < want; n--) {
        struct cox_slice part = parts[n - 1];
        size_t take = part.len < want - have ? part.len : want - have;
        have += take;
        memcpy(bytes + want - have, part.data + part.len - take, take);
    }
    cox_buf_append(&x->tail, bytes, want);
}

void prefix_update(struct prefix *x, uint64_t salt, const struct cox_slice *parts, uint32_t n_parts)
{
    uint64_t digest;
    uint32_t n = same_parts(x, salt, parts, n_parts, &digest);

    if (n < x->n_parts || n == 0)
        rewind_to(x, parts, n);
    if (n_parts > x->cap_parts) {
        x->cap_parts = n_parts > 2 * x->cap_parts ? n_parts : 2 * x->cap_parts;
        x->parts = cox_realloc(x->parts, x->cap_parts, sizeof *x->parts);
    }
    for (; n < n_parts; n++) {
        uint64_t before = n > 0 ? x->parts[n - 1].end : 0;
        push_bytes(x, salt, parts[n]);
        x->hashed_len += parts[n].len;
        x->parts[n] = (struct prefix_part){ parts[n].len, digest, before + parts[n].len };
        x->n_parts = n + 1;
        if (n + 1 < n_parts)
            digest = digest_of(parts[n + 1], salt);
    }
}
