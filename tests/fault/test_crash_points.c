/* A store on a disk whose power may go at any moment: lives are recorded once, then every moment of them is
 * tried, each with what of the unsynced changes may have arrived. What was acknowledged by that moment must
 * be there, whole and in order.
 *
 *   test-crash-points [POINTS [FIRST_SEED]]     the default is a slice of some seconds
 *
 * Lives with an odd seed are wholly determined by it. In those with an even seed the store's two threads run
 * as they like, so that their changes mix; the tape of what they did is tried all the same, but another run
 * of the seed may give another tape. A failure prints seed, life, moment and variant.
 */
#include "crash_life.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <inttypes.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define LIVES 3
#define STEPS 14
#define VARIANTS_MAX 14 /* of one moment */
#define DEEP_ONE_IN 4

/* A sanitizer looks for other things, and takes ten times as long. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHARE_OF_LONG 20
#else
#define SHARE_OF_LONG 1
#endif

static uint64_t points_wanted = 2500; /* of the whole store; there are some times as many of the log alone */
static size_t variants_max = 5;
static uint64_t first_seed = 1;
static char dir[64];

struct history {
    uint64_t seed;
    struct cox_rng rng;
    struct fault_vfs *lived, *image;
    struct fault_disk walker; /* the disk at a moment of the tape */
    struct crash_tape tape;
    struct crash_model model, before; /* before: what was known when the life began */
    struct crash_life how;
    uint64_t points, log_points;
    double log_s; /* of CPU time */
    bool quiet;   /* a control: to find nothing would be the failure */
    struct crash_verdict sum;
};

static void report(const struct history *h, int life, size_t at, const struct crash_variant *v,
                   const struct crash_verdict *found)
{
    fprintf(stderr, "seed %" PRIu64 ", life %d, before operation %zu of %zu, %s (file %zu, change %zu): %s\n",
            h->seed, life, at, h->tape.n, crash_variant_name(v), v->file, v->op, found->what);
}

static void try_point(struct history *h, int life, size_t at, uint64_t acked_seq,
                      const struct crash_variant *variant)
{
    struct crash_verdict v = { 0 };

    crash_cut(&h->walker, fault_vfs_disk(h->image), variant);
    crash_check(&h->model, acked_seq, "crash-image", dir, variant->seed % DEEP_ONE_IN == 0, &v);
    h->points++;
    h->sum.lost += v.lost;
    h->sum.damaged += v.damaged;
    if (v.lost + v.damaged > 0 && !h->quiet)
        report(h, life, at, variant, &v);
}

/* All that a cut may leave of the log, after a change of it. */
static void try_log(struct history *h, int life, size_t at, uint64_t acked_seq)
{
    clock_t begun = clock();
    size_t n;
    struct crash_variant *variants = crash_variants_of(&h->walker, "/log.db", &h->rng, &n);

    for (size_t i = 0; i < n; i++) {
        struct crash_verdict v = { 0 };

        crash_cut(&h->walker, fault_vfs_disk(h->image), &variants[i]);
        crash_check_log(&h->model, acked_seq, "crash-image", dir, &v);
        h->sum.lost += v.lost;
        h->sum.damaged += v.damaged;
        if (v.lost + v.damaged > 0 && !h->quiet)
            report(h, life, at, &variants[i], &v);
    }
    h->log_points += n;
    h->log_s += (double)(clock() - begun) / CLOCKS_PER_SEC;
    cox_free(variants);
}

/* The fates as they were at the moment that is tried. */
static void take_note(struct history *h, const struct crash_entry *e)
{
    h->model.fates[e->at] = (uint8_t)e->note;
}

struct cut {
    size_t at;
    struct crash_variant variant;
};

/* Every moment of the tape; one of them, drawn, is where the next life begins. */
static struct cut walk(struct history *h, int life)
{
    struct cut next = { 0 };
    uint64_t n_seen = 0;

    memcpy(h->model.fates, h->before.fates, sizeof(h->model.fates));
    for (size_t i = 0; i <= h->tape.n; i++) {
        const struct crash_entry *e = i < h->tape.n ? &h->tape.entries[i] : NULL;
        uint64_t acked_seq = e ? e->acked_seq : h->tape.base_seq;
        struct crash_variant v[VARIANTS_MAX];
        size_t n = crash_variants(&h->walker, &h->rng, v, variants_max);

        for (size_t j = 0; j < n; j++) {
            try_point(h, life, i, acked_seq, &v[j]);
            if (cox_rng_below(&h->rng, ++n_seen) == 0)
                next = (struct cut){ i, v[j] };
        }
        if (i > 0 && !h->tape.entries[i - 1].is_note &&
            strstr(h->tape.names[h->tape.entries[i - 1].file], "/log.db"))
            try_log(h, life, i, acked_seq);
        if (!e)
            break;
        if (e->is_note)
            take_note(h, e);
        crash_tape_play(&h->tape, i, &h->walker);
    }
    return next;
}

/* The disk and what is known of it, at the cut. */
static uint64_t go_to(struct history *h, const struct fault_disk *base, const struct cut *cut)
{
    struct fault_disk now = { 0 };
    static const struct crash_variant whole = { .kind = CRASH_EVERYTHING };

    crash_cut(base, &now, &whole);
    memcpy(h->model.fates, h->before.fates, sizeof(h->model.fates));
    for (size_t i = 0; i < cut->at; i++) {
        if (h->tape.entries[i].is_note)
            take_note(h, &h->tape.entries[i]);
        crash_tape_play(&h->tape, i, &now);
    }
    crash_cut(&now, fault_vfs_disk(h->lived), &cut->variant);
    fault_disk_fini(&now);
    return cut->at < h->tape.n ? h->tape.entries[cut->at].acked_seq : h->tape.base_seq;
}

static void live(struct history *h, uint64_t points) /* about that many; never a life by halves */
{
    static const struct crash_variant whole = { .kind = CRASH_EVERYTHING };
    static const int checkpoint_pages[] = { 12, 40, 100 };
    struct fault_disk base = { 0 };
    uint64_t acked_seq = 0;

    for (int life = 0; life < LIVES && h->points < points; life++) {
        crash_cut(fault_vfs_disk(h->lived), &base, &whole);
        crash_cut(&base, &h->walker, &whole);
        h->before = h->model;
        h->how.checkpoint_pages = checkpoint_pages[cox_rng_below(&h->rng, 3)];
        crash_tape_record(&h->tape, h->lived, acked_seq);
        crash_live(&h->how, &h->model, &h->tape, &h->rng);
        fault_vfs_watch(h->lived, NULL, NULL);
        struct cut cut = walk(h, life);

        acked_seq = go_to(h, &base, &cut);
    }
    fault_disk_fini(&base);
}

struct figures {
    uint64_t points, log_points;
    double log_s;
};

static struct crash_verdict run_one(uint64_t seed, const char *log_synchronous, uint64_t points,
                                    struct figures *f)
{
    struct history *h = COX_NEW(struct history);

    h->seed = seed;
    cox_rng_init(&h->rng, seed);
    h->lived = fault_vfs_create("crash-lived", seed);
    h->image = fault_vfs_create("crash-image", seed);
    fault_vfs_disk(h->image)->careless = true;
    crash_tape_init(&h->tape);
    h->quiet = log_synchronous;
    if (seed % 2 == 0)
        fault_vfs_slow(h->lived, "/log.db");
    h->how = (struct crash_life){ .vfs = "crash-lived",
                                  .dir = dir,
                                  .log_synchronous = log_synchronous,
                                  .in_step = seed % 2 == 1,
                                  .held = h->lived,
                                  .steps = STEPS };
    live(h, points);
    struct crash_verdict v = h->sum;

    f->points += h->points;
    f->log_points += h->log_points;
    f->log_s += h->log_s;
    crash_tape_fini(&h->tape);
    fault_disk_fini(&h->walker);
    fault_vfs_destroy(h->lived);
    fault_vfs_destroy(h->image);
    cox_free(h);
    return v;
}

static void test_at_every_moment_what_was_acknowledged_is_safe(void **state)
{
    struct figures f = { 0 };
    uint64_t seed = first_seed;
    clock_t begun = clock();

    (void)state;
    for (; f.points < points_wanted; seed++) {
        struct crash_verdict v = run_one(seed, NULL, points_wanted / 2, &f);

        assert_int_equal(v.lost, 0);
        assert_int_equal(v.damaged, 0);
    }
    double whole_s = (double)(clock() - begun) / CLOCKS_PER_SEC - f.log_s;

    print_message("seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " crash points of the store, %.0f a second of"
                  " CPU time; %" PRIu64 " of the log, %.0f a second\n",
                  first_seed, seed - 1, f.points, (double)f.points / (whole_s + 1e-6), f.log_points,
                  (double)f.log_points / (f.log_s + 1e-6));
}

/* Controls: a log that is not synced must lose what it acknowledged, or the disk is not one to fear. */
static void must_fail(const char *log_synchronous)
{
    struct figures f = { 0 };

    for (uint64_t seed = first_seed; f.points < 20000; seed++) {
        struct crash_verdict v = run_one(seed, log_synchronous, 500, &f);

        if (v.lost > 0) {
            print_message("synchronous=%s: %" PRIu64 " of %" PRIu64 " points lost, %" PRIu64 " damaged\n",
                          log_synchronous, v.lost, f.points + f.log_points, v.damaged);
            return;
        }
    }
    fail_msg("a log with synchronous=%s lost nothing in %" PRIu64 " points", log_synchronous, f.points);
}

static void test_without_syncs_records_are_lost(void **state)
{
    (void)state;
    must_fail("NORMAL");
    must_fail("OFF");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_every_moment_what_was_acknowledged_is_safe),
        cmocka_unit_test(test_without_syncs_records_are_lost),
    };

    if (getenv("COX_TEST_LONG")) {
        points_wanted = 100000 / SHARE_OF_LONG;
        variants_max = VARIANTS_MAX;
    }
    if (argc > 1)
        points_wanted = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    /* Each opening makes rings of a megabyte: from memory that is kept, not from the kernel's zeroed pages.
     */
    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 512 << 20);
    /* The lock and the directory are real, and synced at each opening: in memory, where there is such a
     * place. */
    (void)snprintf(dir, sizeof(dir), "%s/cox-crash-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    COX_ASSERT(mkdtemp(dir));
    int failed = cmocka_run_group_tests_name("crash points", tests, NULL, NULL);
    char *lock = cox_asprintf("%s/lock", dir);

    (void)unlink(lock);
    (void)rmdir(dir);
    cox_free(lock);
    return failed;
}
