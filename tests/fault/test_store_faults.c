/* The store against power cuts and disk errors: what was acknowledged is there afterwards, whole and in
 * order.
 *
 *   test-store-faults [RUNS [FIRST_SEED]]     the defaults are a slice of some seconds
 *
 * The operations at which faults strike, and all data, follow from the seed; which thread comes first does
 * not. A failing seed is printed; repeat it some times.
 */
#include "harness.h"

#include "orchestrator/store/internal.h"

#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CONTROL_RUNS_MAX 500

static uint64_t runs = 100;
static uint64_t first_seed = 1;

/* Three lives on one disk, each ended by a fault at a random operation; then one that only looks. */
static void live(struct harness *h, enum fault_kind kind)
{
    for (int life = 0; life < 3; life++) {
        /* Early faults fall into opening, late ones into checkpoints and truncations. */
        uint64_t at = 1 + cox_rng_below(&h->rng, cox_rng_chance(&h->rng, 300000) ? 40 : 600);

        fault_vfs_plan(h->disk, (struct fault_plan){ .kind = kind, .at = at });
        if (harness_start(h))
            harness_drive(h, 120);
        harness_stop(h);
        /* Without a power cut the next process sees what the kernel still holds. */
        if (kind == FAULT_POWER_CUT || cox_rng_chance(&h->rng, 500000))
            fault_vfs_power_cycle(h->disk);
        else
            fault_vfs_process_ended(h->disk);
    }
    (void)harness_start(h);
    harness_stop(h);
    fault_vfs_power_cycle(h->disk); /* after an orderly end nothing is lost either */
    (void)harness_start(h);
    harness_stop(h);
}

static void add(struct verdict *sum, const struct verdict *v)
{
    sum->lost_records += v->lost_records;
    sum->lost_tasks += v->lost_tasks;
    sum->undone_tasks += v->undone_tasks;
    sum->damage += v->damage;
}

static struct verdict run_one(enum fault_kind kind, const char *log_synchronous, uint64_t seed, bool verbose)
{
    struct harness *h = harness_create(seed, log_synchronous);

    h->verbose = verbose;
    live(h, kind);
    struct verdict v = h->verdict;

    if (verbose && v.lost_records + v.lost_tasks > 0)
        fprintf(stderr, "seed %" PRIu64 ": lost %" PRIu64 " records, %" PRIu64 " tasks\n", seed,
                v.lost_records, v.lost_tasks);
    harness_destroy(h);
    return v;
}

static struct verdict run(enum fault_kind kind, uint64_t n)
{
    struct verdict sum = { 0 };

    /* The first that fails is enough: a fault that goes unnoticed takes 10 s to be sure of. */
    for (uint64_t seed = first_seed; seed < first_seed + n && sum.damage == 0; seed++) {
        struct verdict v = run_one(kind, NULL, seed, true);

        add(&sum, &v);
    }
    return sum;
}

static void assert_sound(struct verdict v)
{
    assert_int_equal(v.lost_records, 0);
    assert_int_equal(v.lost_tasks, 0);
    assert_int_equal(v.damage, 0);
}

static void test_power_cuts_lose_nothing_acknowledged(void **state)
{
    (void)state;
    struct verdict v = run(FAULT_POWER_CUT, runs);

    assert_sound(v);
    /* The disk does lose what the store does not promise: else this test would prove nothing of the state. */
    assert_true(v.undone_tasks > 0);
}

/* Controls: the same lives over a log that is not synced must lose records before long, or the disk is not
 * one to fear. */
static void test_without_syncs_acknowledged_records_are_lost(void **state)
{
    static const char *const modes[] = { "OFF", "NORMAL" };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        uint64_t seed = first_seed;

        while (run_one(FAULT_POWER_CUT, modes[i], seed, false).lost_records == 0)
            assert_true(++seed < first_seed + CONTROL_RUNS_MAX);
    }
}

static void test_a_full_disk_loses_nothing_acknowledged(void **state)
{
    (void)state;
    assert_sound(run(FAULT_NO_SPACE, runs / 4 + 1));
}

static void test_short_writes_lose_nothing_acknowledged(void **state)
{
    (void)state;
    assert_sound(run(FAULT_SHORT_WRITE, runs / 4 + 1));
}

static void test_failed_syncs_lose_nothing_acknowledged(void **state)
{
    (void)state;
    assert_sound(run(FAULT_SYNC, runs / 2 + 1));
}

static void append_one(struct harness *h, uint64_t seq)
{
    struct cox_buf b = { 0 };

    cox_put_u64(&b, seq);
    assert_true(cox_store_append(h->store, seq, 1, &b));
}

static void test_batches_gather_while_the_disk_is_slow(void **state)
{
    (void)state;
    struct harness *h = harness_create(first_seed, NULL);
    struct cox_store_stats stats;

    assert_true(harness_start(h));
    fault_vfs_hold_syncs(h->disk, true);
    for (uint64_t seq = 1; seq <= 20; seq++) {
        append_one(h, seq);
        if (seq == 1)
            fault_vfs_await_sync(h->disk); /* the first commit is on its way, alone */
    }
    assert_int_equal(cox_store_durable_seq(h->store), 0);
    fault_vfs_hold_syncs(h->disk, false);
    harness_await_durable(h, 20);
    cox_store_stats(h->store, &stats);
    assert_int_equal(stats.records, 20);
    assert_int_equal(stats.commits, 2);
    harness_destroy(h);
}

static void truncate_log(struct harness *h, uint64_t seq)
{
    struct cox_store_request req = { .op = COX_STORE_TRUNCATE, .seq = seq };

    assert_true(cox_store_request(h->store, &req));
    assert_int_equal(harness_await_answer(h, COX_STORE_TRUNCATE), COX_OK);
}

/* Records 2 and 3 gather into one row, which a cut behind 2 leaves whole. So recovery still meets what record
 * 2 says of the deleted task, and the state has to know until the row is gone. */
static void test_who_was_deleted_is_known_while_the_log_has_half_a_row(void **state)
{
    (void)state;
    struct harness *h = harness_create(first_seed, NULL);
    struct cox_store_request archive = { .op = COX_STORE_ARCHIVE, .id = 1 };
    struct cox_store_request delete = { .op = COX_STORE_DELETE, .id = 1, .seq = 2 };

    assert_true(harness_start(h));
    fault_vfs_hold_syncs(h->disk, true);
    append_one(h, 1);
    fault_vfs_await_sync(h->disk);
    append_one(h, 2);
    assert_true(cox_store_request(h->store, &archive));
    assert_true(cox_store_request(h->store, &delete));
    while (atomic_load(&h->store->awaited_seq) != 2)
        (void)sched_yield(); /* no event tells that it was taken */
    append_one(h, 3);
    fault_vfs_hold_syncs(h->disk, false);
    assert_int_equal(harness_await_answer(h, COX_STORE_DELETE), COX_OK);
    harness_await_durable(h, 3);
    truncate_log(h, 2);
    truncate_log(h, 3); /* first the state is synced, then the row goes */
    assert_int_equal(h->store->state.n_deleted, 1);
    append_one(h, 4);
    truncate_log(h, 4);
    assert_int_equal(h->store->state.n_deleted, 0);
    harness_destroy(h);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cuts_lose_nothing_acknowledged),
        cmocka_unit_test(test_without_syncs_acknowledged_records_are_lost),
        cmocka_unit_test(test_a_full_disk_loses_nothing_acknowledged),
        cmocka_unit_test(test_short_writes_lose_nothing_acknowledged),
        cmocka_unit_test(test_failed_syncs_lose_nothing_acknowledged),
        cmocka_unit_test(test_batches_gather_while_the_disk_is_slow),
        cmocka_unit_test(test_who_was_deleted_is_known_while_the_log_has_half_a_row),
    };

    if (argc > 1)
        runs = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests_name("store faults", tests, NULL, NULL);
}
