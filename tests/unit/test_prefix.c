/* Prefix hashes, turn by turn, against hashes of the whole prompt made anew. */
#include "check.h"
#include "placement.h"
#include "prefix.h"

#include "cox/base/rng.h"

#include <string.h>

#define SEEDS 200
#define PARTS 24
#define TURNS 30

struct prompt {
    struct cox_buf text[PARTS];
    struct cox_slice parts[PARTS];
    uint32_t n;
};

static uint64_t slice_all(struct prompt *p)
{
    uint64_t len = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        p->parts[i] = cox_buf_slice(&p->text[i]);
        len += p->parts[i].len;
    }
    return len;
}

static void fill(struct cox_buf *b, struct cox_rng *rng, size_t len)
{
    cox_buf_clear(b);
    for (size_t i = 0; i < len; i++)
        cox_put_u8(b, (uint8_t)cox_rng_u64(rng));
}

static void check_anew(const struct prefix *x, struct prompt *p, uint64_t salt, uint64_t seed)
{
    struct prefix anew = { 0 };
    uint64_t len = slice_all(p);

    prefix_update(&anew, salt, p->parts, p->n);
    check_seeded(anew.n_blocks == len / PLACEMENT_BLOCK_LEN, seed);
    check_seeded(x->n_blocks == anew.n_blocks, seed);
    check_seeded(anew.n_blocks == 0 || memcmp(x->blocks, anew.blocks, 8 * (size_t)anew.n_blocks) == 0, seed);
    prefix_fini(&anew);
}

static void equals_hashing_anew(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct prompt p = { 0 };
        struct prefix x = { 0 };
        struct cox_rng rng;

        cox_rng_init(&rng, seed);
        for (int turn = 0; turn < TURNS; turn++) {
            uint64_t what = cox_rng_below(&rng, 6);
            uint64_t salt = cox_rng_below(&rng, 10) == 0;
            if (p.n < PARTS && (what < 3 || p.n == 0)) {
                fill(&p.text[p.n++], &rng, cox_rng_below(&rng, 900));
            } else if (what == 3) { /* forgets its last messages */
                p.n = (uint32_t)cox_rng_below(&rng, p.n + 1u);
            } else if (what == 4) { /* one byte of one message, its length kept */
                struct cox_buf *b = &p.text[cox_rng_below(&rng, p.n)];
                if (b->len > 0)
                    b->data[cox_rng_below(&rng, b->len)] ^= 1;
            } else if (p.n > 0) {
                fill(&p.text[cox_rng_below(&rng, p.n)], &rng, cox_rng_below(&rng, 900));
            }
            slice_all(&p);
            prefix_update(&x, salt, p.parts, p.n);
            check_anew(&x, &p, salt, seed);
        }
        prefix_fini(&x);
        for (uint32_t i = 0; i < PARTS; i++)
            cox_buf_fini(&p.text[i]);
    }
}

static void a_turn_hashes_what_it_adds(void **state)
{
    (void)state;
    struct cox_rng rng;
    struct prompt p = { 0 };
    struct prefix x = { 0 };

    cox_rng_init(&rng, 7);
    for (uint64_t len = 0; p.n < PARTS;) {
        fill(&p.text[p.n], &rng, 10000);
        len += p.text[p.n++].len;
        slice_all(&p);
        prefix_update(&x, 0, p.parts, p.n);
        assert_int_equal(x.hashed_len, len);
    }
    prefix_fini(&x);
    for (uint32_t i = 0; i < PARTS; i++)
        cox_buf_fini(&p.text[i]);
}

static void equal_means_an_equal_prefix(void **state)
{
    (void)state;
    uint8_t bytes[3 * PLACEMENT_BLOCK_LEN] = { 0 };
    struct cox_slice whole = cox_slice(bytes, sizeof bytes);
    struct cox_slice cut[2] = { cox_slice(bytes, 100), cox_slice(bytes + 100, sizeof bytes - 100) };
    struct prefix a = { 0 }, b = { 0 }, c = { 0 };

    prefix_update(&a, 1, &whole, 1);
    prefix_update(&b, 1, cut, 2); /* where messages end makes no difference */
    assert_int_equal(a.n_blocks, 3);
    assert_memory_equal(a.blocks, b.blocks, 3 * sizeof *a.blocks);
    /* The same bytes in another place have another hash, and so have another tenant's. */
    assert_int_not_equal(a.blocks[0], a.blocks[1]);
    prefix_update(&c, 2, &whole, 1);
    assert_int_not_equal(a.blocks[0], c.blocks[0]);
    bytes[0] = 1;
    prefix_update(&c, 1, &whole, 1);
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(a.blocks[i], c.blocks[i]);
    prefix_fini(&a);
    prefix_fini(&b);
    prefix_fini(&c);
}

static void what_is_beyond_the_limit_is_not_looked_at(void **state)
{
    (void)state;
    struct cox_buf text = { 0 };
    struct prefix x = { 0 };
    size_t len = (size_t)PLACEMENT_BLOCKS_MAX * PLACEMENT_BLOCK_LEN + 10000;

    memset(cox_buf_extend(&text, len), 'x', len);
    struct cox_slice parts[2] = { cox_buf_slice(&text), cox_buf_slice(&text) };
    prefix_update(&x, 0, parts, 1);
    assert_int_equal(x.n_blocks, PLACEMENT_BLOCKS_MAX);
    prefix_update(&x, 0, parts, 2);
    assert_int_equal(x.n_blocks, PLACEMENT_BLOCKS_MAX);
    assert_true(x.tail.len < PLACEMENT_BLOCK_LEN);
    prefix_update(&x, 0, parts, 0);
    assert_int_equal(x.n_blocks, 0);
    prefix_fini(&x);
    cox_buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_hashing_anew),
        cmocka_unit_test(a_turn_hashes_what_it_adds),
        cmocka_unit_test(equal_means_an_equal_prefix),
        cmocka_unit_test(what_is_beyond_the_limit_is_not_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
