#include "check.h"

#include "cox/base/map.h"
#include "cox/base/rng.h"

#include <stdio.h>
#include <string.h>

#define KEYS 500
#define SEEDS 30
#define TURNS 4000

static char values[64];

/* A key's spelling: lengths from 0 to past one hash word. */
static struct cox_slice key_text(uint64_t k, char text[32])
{
    if (k == 0)
        return cox_slice(NULL, 0);
    snprintf(text, 32, "key-%0*u", (int)(k % 20), (unsigned)k);
    return cox_slice_str(text);
}

static void *call64(struct cox_map64 *m, uint64_t what, uint64_t k, void *value)
{
    uint64_t key = k << 40; /* low bits all alike: the mixing must spread them */

    return what == 0   ? cox_map64_remove(m, key)
           : what == 1 ? cox_map64_get(m, key)
                       : cox_map64_set(m, key, value);
}

static void *callb(struct cox_mapb *m, uint64_t what, uint64_t k, void *value)
{
    char text[32];
    struct cox_slice key = key_text(k, text);

    return what == 0   ? cox_mapb_remove(m, key)
           : what == 1 ? cox_mapb_get(m, key)
                       : cox_mapb_set(m, key, value);
}

static void check_pairs64(const struct cox_map64 *m, void *const *model, size_t len, uint64_t seed)
{
    uint64_t key;
    void *value;
    size_t n = 0;

    for (size_t it = 0; cox_map64_next(m, &it, &key, &value); n++)
        check_seeded(value == model[key >> 40], seed);
    check_seeded(n == len && m->len == len, seed);
}

static void check_pairsb(const struct cox_mapb *m, void *const *model, size_t len, uint64_t seed)
{
    struct cox_slice key;
    void *value;
    size_t n = 0;

    for (size_t it = 0; cox_mapb_next(m, &it, &key, &value); n++) {
        unsigned k = 0;
        if (key.len > 0)
            check_seeded(sscanf((const char *)key.data, "key-%u", &k) == 1, seed);
        check_seeded(value == model[k], seed);
    }
    check_seeded(n == len && m->len == len, seed);
}

/* Both maps get the same random calls as an array, and must answer as it does. */
static void agree_with_an_array(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        void *model[KEYS] = { 0 };
        size_t len = 0;
        struct cox_map64 m64 = { 0 };
        struct cox_mapb mb = { 0 };
        struct cox_rng rng;

        cox_rng_init(&rng, seed);
        for (int turn = 0; turn < TURNS; turn++) {
            uint64_t k = cox_rng_below(&rng, KEYS);
            uint64_t what = cox_rng_below(&rng, 3);
            void *value = &values[cox_rng_below(&rng, sizeof(values))];
            void *old = model[k];
            if (what != 1) {
                model[k] = what == 0 ? NULL : value;
                len = len + (model[k] != NULL) - (old != NULL);
            }
            check_seeded(call64(&m64, what, k, value) == old, seed);
            check_seeded(callb(&mb, what, k, value) == old, seed);
        }
        check_pairs64(&m64, model, len, seed);
        check_pairsb(&mb, model, len, seed);
        cox_map64_fini(&m64);
        cox_mapb_fini(&mb);
        assert_null(cox_map64_get(&m64, 1));
        assert_null(cox_mapb_get(&mb, cox_slice_str("a")));
    }
}

/* A walk that takes out what it meets is how a map of a million is emptied. */
static void a_walk_may_remove_what_it_visits(void **state)
{
    (void)state;
    struct cox_map64 m64 = { 0 };
    struct cox_mapb mb = { 0 };
    char names[1000][8];
    uint64_t number;
    struct cox_slice name;
    void *value;
    size_t n = 0;

    for (uint64_t k = 0; k < 1000; k++) {
        assert_null(cox_map64_set(&m64, k, &values[k % sizeof(values)]));
        snprintf(names[k], sizeof(names[k]), "%u", (unsigned)k);
        assert_null(cox_mapb_set(&mb, cox_slice_str(names[k]), &values[k % sizeof(values)]));
    }
    for (size_t it = 0; cox_map64_next(&m64, &it, &number, &value); n++)
        assert_ptr_equal(cox_map64_remove(&m64, number), value);
    for (size_t it = 0; cox_mapb_next(&mb, &it, &name, &value); n++)
        assert_ptr_equal(cox_mapb_remove(&mb, name), value);
    assert_int_equal(n, 2000);
    assert_int_equal(m64.len + mb.len, 0);
    cox_map64_fini(&m64);
    cox_mapb_fini(&mb);
}

/* Keys that come and go fill a table with tombs; it must not grow for them. */
static void churn_does_not_grow(void **state)
{
    (void)state;
    struct cox_map64 m64 = { 0 };
    struct cox_mapb mb = { 0 };

    for (uint64_t k = 1; k <= 100000; k++) {
        assert_null(call64(&m64, 2, k, values));
        assert_null(callb(&mb, 2, k, values));
        assert_ptr_equal(call64(&m64, 0, k, NULL), values);
        assert_ptr_equal(callb(&mb, 0, k, NULL), values);
    }
    assert_in_range(m64.cap, 1, 64);
    assert_in_range(mb.cap, 1, 64);
    cox_map64_fini(&m64);
    cox_mapb_fini(&mb);
}

/* The hash may be written down one day: it must not drift. */
static void hash_is_stable_and_sees_every_byte(void **state)
{
    (void)state;
    uint8_t bytes[40];

    assert_true(cox_hash64("", 0) == 0x9ca066f1a4ab2eeaULL);
    assert_true(cox_hash64("coxswain", 8) == 0xc17ea9dba87273e4ULL);
    assert_true(cox_hash64("coxswain steers", 15) == 0xce38efcd0176eddaULL);
    memset(bytes, 'x', sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        uint64_t before = cox_hash64(bytes, sizeof(bytes));
        bytes[i] ^= 1;
        assert_true(cox_hash64(bytes, sizeof(bytes)) != before);
        assert_true(cox_hash64(bytes, i) != cox_hash64(bytes, i + 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agree_with_an_array),
        cmocka_unit_test(a_walk_may_remove_what_it_visits),
        cmocka_unit_test(churn_does_not_grow),
        cmocka_unit_test(hash_is_stable_and_sees_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
