/* The store when its k-th operation on a disk fails, or its k-th allocation in SQLite: for every k of a life,
 * of each kind, in each database, once or from then on. It ends or goes on, but what it acknowledged is there
 * afterwards, and it never syncs again what it could not sync.
 *
 *   test-each-fault [ONE_IN [SEED]]     one k of so many; the default takes some seconds, COX_TEST_LONG=1 all
 */
#include "harness.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <inttypes.h>
#include <malloc.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STEPS 60
#define OPERATIONS_MAX 4000
#define ALLOCATIONS_MAX 40000

/* A sanitizer looks for other things, and takes ten times as long. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHARE_OF_LONG 40
#else
#define SHARE_OF_LONG 1
#endif

static uint64_t one_in = 60;
static uint64_t seed = 1;

/* ---- SQLite's allocations ---- */

static struct {
    sqlite3_mem_methods real;
    atomic_bool on, lasting, struck;
    _Atomic uint64_t n, at;
} memory;

static bool memory_fails(void)
{
    if (!atomic_load(&memory.on))
        return false;
    uint64_t n = atomic_fetch_add(&memory.n, 1) + 1;
    bool fails = n == memory.at || (n > memory.at && memory.lasting);

    if (fails)
        atomic_store(&memory.struck, true);
    return fails;
}

static void *memory_alloc(int len)
{
    return memory_fails() ? NULL : memory.real.xMalloc(len);
}

static void *memory_realloc(void *p, int len)
{
    return memory_fails() ? NULL : memory.real.xRealloc(p, len);
}

static void memory_take_over(void)
{
    sqlite3_mem_methods ours;

    COX_ASSERT(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory.real) == SQLITE_OK);
    ours = memory.real;
    ours.xMalloc = memory_alloc;
    ours.xRealloc = memory_realloc;
    COX_ASSERT(sqlite3_config(SQLITE_CONFIG_MALLOC, &ours) == SQLITE_OK);
}

static void memory_plan(uint64_t at, bool lasting)
{
    memory.at = at;
    memory.lasting = lasting;
    memory.n = 0;
    memory.struck = false;
    memory.on = at > 0;
}

/* ---- one life with one fault ---- */

struct fault {
    struct fault_plan disk;
    uint64_t memory_at; /* 0: the disk's */
};

static void says(const struct fault *f, const struct verdict *v)
{
    fprintf(stderr,
            "seed %" PRIu64 ": kind %d of %s at %" PRIu64 "%s, allocation %" PRIu64 ": lost %" PRIu64
            "+%" PRIu64 ", damage %" PRIu64 "\n",
            seed, (int)f->disk.kind, f->disk.file ? f->disk.file : "all", f->disk.at,
            f->disk.lasting ? " and ever after" : "", f->memory_at, v->lost_records, v->lost_tasks,
            v->damage);
}

/* Whether the fault happened. A life in good order first, so that there is something to lose; then the fault,
 * from the opening on; then a look, half of the times after a power cut. */
static bool live(const struct fault *f, bool power_goes)
{
    struct harness *h = harness_create(seed, NULL);

    h->verbose = true;
    h->shrugs = true;
    if (harness_start(h))
        harness_drive(h, STEPS);
    harness_stop(h);
    fault_vfs_process_ended(h->disk);
    fault_vfs_plan(h->disk, f->disk);
    memory_plan(f->memory_at, f->disk.lasting);
    h->forgives = f->memory_at > 0;
    if (harness_start(h))
        harness_drive(h, STEPS);
    harness_stop(h);
    bool struck = f->memory_at > 0 ? memory.struck : fault_vfs_struck(h->disk);

    memory_plan(0, false);
    h->forgives = false;
    if (power_goes)
        fault_vfs_power_cycle(h->disk);
    else
        fault_vfs_process_ended(h->disk);
    (void)harness_start(h);
    harness_stop(h);
    struct verdict v = h->verdict;

    harness_destroy(h);
    if (v.lost_records + v.lost_tasks + v.damage > 0) {
        says(f, &v);
        fail_msg("a fault cost what had been acknowledged");
    }
    return struck;
}

/* For k = 1, 2, ... until a life is over before the fault comes. */
static uint64_t sweep(struct fault f, uint64_t k_max, uint64_t stride)
{
    uint64_t *k = f.disk.kind == FAULT_NONE ? &f.memory_at : &f.disk.at;
    uint64_t n = 0;

    for (*k = 1 + seed % stride; *k < k_max && live(&f, n % 2 == 1); *k += stride)
        n++;
    return n;
}

static void test_each_operation_may_fail(void **state)
{
    static const char *const files[] = { "/log.db", "/state.db", "/index.db" };
    uint64_t n = 0;

    (void)state;
    for (enum fault_kind kind = FAULT_NO_SPACE; kind < FAULT_KIND_NR; kind++)
        for (size_t file = 0; file < 3; file++)
            for (int lasting = 0; lasting < 2; lasting++) {
                struct fault f = { .disk = { .kind = kind, .file = files[file], .lasting = lasting } };
                /* There are few openings, truncations and removals, and each matters. */
                bool rare = kind == FAULT_OPEN || kind == FAULT_REMOVE;

                n += sweep(f, OPERATIONS_MAX, rare ? 1 : one_in);
            }
    print_message("%" PRIu64 " lives with one fault of the disk\n", n);
    assert_true(n > 100);
}

static void test_each_allocation_may_fail(void **state)
{
    uint64_t n = 0;

    (void)state;
    for (int lasting = 0; lasting < 2; lasting++)
        n += sweep((struct fault){ .disk = { .lasting = lasting } }, ALLOCATIONS_MAX, one_in * 2);
    print_message("%" PRIu64 " lives with one allocation that failed\n", n);
    assert_true(n > 10);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_operation_may_fail),
        cmocka_unit_test(test_each_allocation_may_fail),
    };

    memory_take_over();
    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 512 << 20);
    if (getenv("COX_TEST_LONG"))
        one_in = SHARE_OF_LONG;
    if (argc > 1)
        one_in = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests_name("each fault", tests, NULL, NULL);
}
