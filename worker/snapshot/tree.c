#include "tree.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/plant.h"

#include <string.h>

#define PIECE_EVERY 128u /* entries, about */

struct cox_slice entry_path(const struct snapshot *s, const struct entry *e)
{
    return cox_slice(s->names.data + e->path_at, e->path_len);
}

struct entry *tree_add(struct snapshot *s, struct cox_slice path)
{
    struct entry *e;

    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->entries = cox_realloc(s->entries, s->cap, sizeof(*s->entries));
    }
    e = &s->entries[s->n++];
    *e = (struct entry){ .path_at = (uint32_t)s->names.len, .path_len = (uint32_t)path.len };
    cox_buf_append_slice(&s->names, path);
    return e;
}

void tree_add_chunk(struct snapshot *s, const struct cox_hash *hash)
{
    if (s->n_chunks == s->cap_chunks) {
        s->cap_chunks = s->cap_chunks ? s->cap_chunks * 2 : 64;
        s->chunks = cox_realloc(s->chunks, s->cap_chunks, sizeof(*s->chunks));
    }
    s->chunks[s->n_chunks++] = *hash;
}

int path_cmp(struct cox_slice a, struct cox_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;

    for (size_t i = 0; i < n; i++) {
        int x = a.data[i] == '/' ? 0 : a.data[i], y = b.data[i] == '/' ? 0 : b.data[i];

        if (x != y)
            return x - y;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

/* ---------------------------------------------------------------- the list */

void entry_encode(struct cox_buf *b, const struct snapshot *s, const struct entry *e, bool kept)
{
    cox_put_u8(b, e->kind);
    cox_put_u16(b, e->mode);
    if (kept) {
        cox_put_u8(b, e->flags & ENTRY_KEPT_FLAGS);
        cox_put_i64(b, e->kind == ENTRY_FILE ? e->changed_ns : 0);
    }
    cox_put_bytes(b, entry_path(s, e));
    if (e->kind == ENTRY_LINK)
        cox_put_bytes(b, cox_slice(s->names.data + e->at, e->n));
    if (e->kind != ENTRY_FILE)
        return;
    cox_put_u64(b, e->size);
    cox_put_u32(b, e->n);
    cox_buf_append(b, s->chunks + e->at, e->n * sizeof(*s->chunks));
}

/* Components that are names, so that what is made of it is within the folder. */
static bool is_path(struct cox_slice path)
{
    size_t from = 0;

    if (path.len == 0 || path.len > SNAPSHOT_PATH_LEN_MAX || memchr(path.data, 0, path.len))
        return false;
    for (size_t i = 0; i <= path.len; i++) {
        struct cox_slice part = cox_slice(path.data + from, i - from);

        if (i < path.len && path.data[i] != '/')
            continue;
        if (part.len == 0 || cox_slice_is(part, ".") ||
            (cox_slice_is(part, "..") && !COX_PLANTED("restore-goes-up")))
            return false;
        from = i + 1;
    }
    return true;
}

static bool decode_file(struct cox_reader *r, struct snapshot *s, struct entry *e)
{
    struct cox_slice chunks;

    e->size = cox_get_u64(r);
    e->n = cox_get_u32(r);
    if (r->bad || e->size > SNAPSHOT_LEN_MAX ||
        e->n != (e->size + SNAPSHOT_CHUNK_LEN - 1) / SNAPSHOT_CHUNK_LEN)
        return false;
    chunks = cox_get_raw(r, e->n * sizeof(struct cox_hash));
    e->at = (uint32_t)s->n_chunks;
    for (uint32_t i = 0; i < e->n && !r->bad; i++) {
        struct cox_hash hash;

        memcpy(hash.b, chunks.data + i * sizeof(hash), sizeof(hash));
        tree_add_chunk(s, &hash);
    }
    return !r->bad;
}

bool entry_decode(struct cox_reader *r, struct snapshot *s)
{
    uint8_t kind = cox_get_u8(r);
    uint16_t mode = cox_get_u16(r);
    uint8_t flags = cox_get_u8(r);
    int64_t changed_ns = cox_get_i64(r);
    struct cox_slice path = cox_get_bytes(r), target;
    struct entry *e;

    if (r->bad || kind < ENTRY_FOLDER || kind > ENTRY_LINK || mode > 0777 || flags & ~ENTRY_KEPT_FLAGS ||
        !is_path(path) || s->n == SNAPSHOT_FILES_MAX ||
        (s->n > 0 && path_cmp(entry_path(s, &s->entries[s->n - 1]), path) >= 0))
        return false;
    e = tree_add(s, path);
    e->kind = kind;
    e->mode = mode;
    e->flags = flags;
    e->changed_ns = changed_ns;
    if (kind == ENTRY_FILE)
        return decode_file(r, s, e);
    if (kind == ENTRY_FOLDER)
        return true;
    target = cox_get_bytes(r);
    e->at = (uint32_t)s->names.len;
    e->n = (uint32_t)target.len;
    cox_buf_append_slice(&s->names, target);
    return !r->bad && target.len > 0 && target.len <= SNAPSHOT_PATH_LEN_MAX + 96 &&
           !memchr(target.data, 0, target.len);
}

bool entry_ends_piece(const struct snapshot *s, const struct entry *e, size_t piece_len)
{
    struct cox_slice path = entry_path(s, e);

    return cox_hash64(path.data, path.len) % PIECE_EVERY == 0 || piece_len >= PIECE_LEN_MAX;
}

/* ---------------------------------------------------------------- names */

void hash_of(EVP_MD_CTX *digest, struct cox_slice bytes, struct cox_hash *ret)
{
    unsigned len = sizeof(ret->b);

    COX_ASSERT(EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
               EVP_DigestUpdate(digest, bytes.data, bytes.len) == 1 &&
               EVP_DigestFinal_ex(digest, ret->b, &len) == 1 && len == sizeof(ret->b));
}

void tree_name(struct snapshot *s)
{
    static const char domain[] = "coxswain tree 1";
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    struct cox_buf one = { 0 };
    unsigned len = sizeof(s->name.tree.b);

    COX_ASSERT(digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1);
    EVP_DigestUpdate(digest, domain, sizeof(domain));
    s->name.size = 0;
    s->name.n_files = (uint32_t)s->n;
    for (const struct entry *e = s->entries; e < s->entries + s->n; e++) {
        cox_buf_clear(&one);
        entry_encode(&one, s, e, false);
        EVP_DigestUpdate(digest, one.data, one.len);
        s->name.size += e->kind == ENTRY_FILE ? e->size : 0;
    }
    COX_ASSERT(EVP_DigestFinal_ex(digest, s->name.tree.b, &len) == 1);
    EVP_MD_CTX_free(digest);
    cox_buf_fini(&one);
}

void put_path(struct cox_buf *out, struct cox_slice path)
{
    for (size_t i = 0; i < path.len && i < 200; i++)
        if (path.data[i] >= 0x20 && path.data[i] < 0x7f && path.data[i] != '\\')
            cox_put_u8(out, path.data[i]);
        else
            cox_buf_printf(out, "\\x%02x", path.data[i]);
    if (path.len > 200)
        cox_buf_append_str(out, "...");
}

void snapshot_name(const struct snapshot *s, struct snapshot_name *ret)
{
    *ret = s->name;
}

const struct cox_hash *snapshot_blobs(const struct snapshot *s, size_t *ret_n)
{
    *ret_n = s->n_packs;
    return s->blobs;
}

void snapshot_note(const struct snapshot *s, struct cox_buf *out)
{
    if (s->n_left_out > 0)
        cox_buf_printf(out, "left out: %u neither files, folders nor links (%.*s)", s->n_left_out,
                       (int)s->first_left_out.len, (const char *)s->first_left_out.data);
    if (s->n_moving > 0)
        cox_buf_printf(out, "%schanged while read: %u (%.*s)", s->n_left_out > 0 ? "; " : "", s->n_moving,
                       (int)s->first_moving.len, (const char *)s->first_moving.data);
}

void snapshot_free(struct snapshot *s)
{
    if (!s)
        return;
    cox_buf_fini(&s->names);
    cox_buf_fini(&s->first_left_out);
    cox_buf_fini(&s->first_moving);
    cox_mapb_fini(&s->known);
    cox_free(s->entries);
    cox_free(s->chunks);
    cox_free(s);
}
