/* The cache of blobs and bundles: what is held stays, the least recently used goes, one fills for all. */
#include "check.h"

#include "cox/base/alloc.h"

#include "cache.h"
#include "janitor.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static atomic_bool never;

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/cox-test-cache-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    janitor_remove_now(dir);
    return 0;
}

static const char *hex(char c)
{
    static char text[BLOB_HEX_LEN + 1];

    memset(text, c, BLOB_HEX_LEN);
    return text;
}

static void make(const struct cache_entry *e, enum cache_kind kind)
{
    FILE *f;

    if (kind == CACHE_BUNDLE) {
        assert_int_equal(mkdir(cache_path(e), 0755), 0);
        return;
    }
    f = fopen(cache_path(e), "we");
    assert_non_null(f);
    fclose(f);
}

/* Fills it unless it is there; true when it was not. Not held any more afterwards. */
static bool use(struct cache *c, enum cache_kind kind, char name, uint64_t len)
{
    bool fill;
    struct cache_entry *e = cache_hold(c, kind, "", hex(name), &never, &fill);

    assert_non_null(e);
    if (fill) {
        make(e, kind);
        assert_true(cache_filled(c, e, true, len));
    }
    assert_int_equal(access(cache_path(e), F_OK), 0);
    cache_release(c, e);
    return fill;
}

static void test_the_least_recently_used_goes(void **state)
{
    struct cache *c = cache_create(dir, 100);

    (void)state;
    assert_true(use(c, CACHE_BLOB, 'a', 40));
    assert_true(use(c, CACHE_BUNDLE, 'a', 40)); /* another thing of the same name */
    assert_false(use(c, CACHE_BLOB, 'a', 40));
    assert_true(use(c, CACHE_BLOB, 'b', 40)); /* the bundle goes */
    assert_false(use(c, CACHE_BLOB, 'a', 40));
    assert_true(use(c, CACHE_BUNDLE, 'a', 40)); /* b goes */
    assert_false(use(c, CACHE_BLOB, 'a', 40));
    assert_true(use(c, CACHE_BLOB, 'b', 40));
    cache_destroy(c);
}

static void test_what_is_held_stays(void **state)
{
    struct cache *c = cache_create(dir, 100);
    struct cache_entry *a, *b;
    char path[200];
    bool fill;

    (void)state;
    a = cache_hold(c, CACHE_BLOB, "", hex('a'), &never, &fill);
    assert_true(fill);
    make(a, CACHE_BLOB);
    assert_true(cache_filled(c, a, true, 60));
    b = cache_hold(c, CACHE_BLOB, "", hex('b'), &never, &fill);
    make(b, CACHE_BLOB);
    snprintf(path, sizeof(path), "%s", cache_path(b));
    assert_false(cache_filled(c, b, true, 60)); /* no room beside a */
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(access(cache_path(a), F_OK), 0);
    cache_release(c, a);
    assert_true(use(c, CACHE_BLOB, 'b', 60));
    assert_true(use(c, CACHE_BLOB, 'a', 60));
    cache_destroy(c);
}

struct waiter {
    struct cache *cache;
    atomic_bool cancelled;
    struct cache_entry *entry;
    bool fill;
};

static void *wait_main(void *arg)
{
    struct waiter *w = arg;

    w->entry = cache_hold(w->cache, CACHE_BLOB, "", hex('a'), &w->cancelled, &w->fill);
    return NULL;
}

static void test_one_fills_for_all(void **state)
{
    struct waiter patient = { .cache = cache_create(dir, 100) };
    struct waiter gone = { .cache = patient.cache };
    struct waiter heir = { .cache = patient.cache };
    struct cache_entry *a;
    pthread_t threads[2];
    bool fill;

    (void)state;
    (void)hex('a');
    a = cache_hold(patient.cache, CACHE_BLOB, "", hex('a'), &never, &fill);
    assert_int_equal(pthread_create(&threads[0], NULL, wait_main, &patient), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, wait_main, &gone), 0);
    atomic_store(&gone.cancelled, true);
    pthread_join(threads[1], NULL);
    assert_null(gone.entry);
    make(a, CACHE_BLOB);
    assert_true(cache_filled(patient.cache, a, true, 10));
    pthread_join(threads[0], NULL);
    assert_ptr_equal(patient.entry, a);
    assert_false(patient.fill);
    cache_release(patient.cache, a);
    cache_release(patient.cache, a);
    /* who fills may fail: then the next one does it */
    assert_true(use(patient.cache, CACHE_BLOB, 'b', 100)); /* a goes */
    a = cache_hold(patient.cache, CACHE_BLOB, "", hex('a'), &never, &fill);
    assert_true(fill);
    assert_int_equal(pthread_create(&threads[0], NULL, wait_main, &heir), 0);
    assert_false(cache_filled(patient.cache, a, false, 0));
    pthread_join(threads[0], NULL);
    assert_true(heir.fill);
    assert_false(cache_filled(patient.cache, heir.entry, false, 0));
    cache_destroy(patient.cache);
}

static void test_what_somebody_took_is_filled_anew(void **state)
{
    struct cache *c = cache_create(dir, 100);
    struct cache_entry *first, *second;
    bool fill;

    (void)state;
    assert_true(use(c, CACHE_BLOB, 'a', 60));
    first = cache_hold(c, CACHE_BLOB, "", hex('a'), &never, &fill);
    assert_false(fill);
    assert_int_equal(unlink(cache_path(first)), 0);
    char *blobs = cache_dir(c, CACHE_BLOB, "");

    assert_int_equal(rmdir(blobs), 0);
    cox_free(blobs);
    second = cache_hold(c, CACHE_BLOB, "", hex('a'), &never, &fill);
    assert_true(fill);
    assert_false(cache_filled(c, second, false, 0)); /* the first still holds it */
    assert_true(use(c, CACHE_BLOB, 'a', 60));
    cache_release(c, first);
    assert_true(use(c, CACHE_BLOB, 'b', 40)); /* it is counted once */
    assert_false(use(c, CACHE_BLOB, 'a', 60));
    cache_destroy(c);
}

#define cache_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cache_test(test_the_least_recently_used_goes),
        cache_test(test_what_is_held_stays),
        cache_test(test_one_fills_for_all),
        cache_test(test_what_somebody_took_is_filled_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
