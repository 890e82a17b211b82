/* The index and deletion against power cuts: after recovery, in which the engine says again what it still
 * has, a list names every task that ended and none that was deleted. */
#include "fault_vfs.h"

#include "orchestrator/store/internal.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TASKS_MAX 2000
#define VFS "index-faults"

static uint64_t runs = 60;

/* Task N is made and ended by record N. */
struct world {
    struct cox_rng rng;
    struct fault_vfs *vfs;
    char dir[64];
    struct cox_store *store;
    bool mute; /* the control: the engine says nothing after recovery */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool woken, dead;
    uint64_t n, acked;
    uint64_t safe;                                      /* the log was cut up to here */
    enum { THERE, ASKED, DELETED } fate[TASKS_MAX + 1]; /* ASKED: to be deleted, not answered */
    uint64_t missing, risen, refused;
};

static void signal_owner(struct world *w, bool dead)
{
    pthread_mutex_lock(&w->mutex);
    w->woken = true;
    w->dead = w->dead || dead;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mutex);
}

static void on_wake(void *user)
{
    signal_owner(user, false);
}

static void on_fatal(void *user, const char *what)
{
    (void)what;
    signal_owner(user, true);
}

static bool wait_for_wake(struct world *w)
{
    pthread_mutex_lock(&w->mutex);
    while (!w->woken && !w->dead)
        pthread_cond_wait(&w->cond, &w->mutex);
    w->woken = false;
    bool alive = !w->dead;

    pthread_mutex_unlock(&w->mutex);
    return alive;
}

static void take(struct world *w, struct cox_store_event *e)
{
    if (e->op == COX_STORE_TRUNCATE && e->err == COX_OK)
        w->safe = e->ticket;
    if (e->op == COX_STORE_DELETE)
        w->fate[e->id] = DELETED;
}

/* The next event of this kind; false when the store died. */
static bool await(struct world *w, enum cox_store_op op, struct cox_store_event *ret)
{
    for (;;) {
        while (cox_store_poll(w->store, ret)) {
            take(w, ret);
            if (ret->op == op)
                return true;
            cox_buf_fini(&ret->bytes);
        }
        if (!wait_for_wake(w))
            return false;
    }
}

static void request(struct world *w, struct cox_store_request req)
{
    if (!cox_store_request(w->store, &req))
        cox_buf_fini(&req.bytes);
}

static void end_task(struct world *w, uint64_t id)
{
    struct cox_label label = { cox_slice_str("team"), cox_slice_str(id % 2 ? "red" : "blue") };
    struct cox_index_row row = { .id = id, .status = COX_TASK_PENDING, .created_wall_ms = (int64_t)id };
    struct cox_store_request req = { .op = COX_STORE_INDEX, .id = id, .seq = id };

    row.labels = &label;
    row.n_labels = 1;
    if (id % 3 == 0) {
        cox_index_row_encode(&req.bytes, &row);
        request(w, req);
        req.bytes = (struct cox_buf){ 0 };
    }
    row.status = COX_TASK_FAILED;
    cox_index_row_encode(&req.bytes, &row);
    request(w, req);
    request(w, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .id = id, .seq = id });
}

static enum cox_err on_entity(void *user, struct cox_entity_key key, uint64_t seq, struct cox_slice bytes)
{
    (void)user, (void)key, (void)seq, (void)bytes;
    return COX_OK;
}

static enum cox_err on_batch(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records)
{
    (void)user, (void)first_seq, (void)n, (void)records;
    return COX_OK;
}

static bool start(struct world *w)
{
    const struct cox_store_config config = {
        .uri = "sqlite", .data_dir = w->dir, .wake = on_wake, .on_fatal = on_fatal, .user = w
    };
    const struct cox_store_recovery r = { .entity = on_entity, .batch = on_batch, .user = w };
    const struct store_tuning tuning = { .vfs = VFS, .checkpoint_pages = 30 };
    struct cox_buf error = { 0 };
    uint64_t last_seq = 0;

    w->dead = false;
    bool good = store_open_tuned(&config, &tuning, &w->store, &error) == COX_OK &&
                cox_store_recover(w->store, &r, &last_seq, &error) == COX_OK;

    if (!good && !fault_vfs_struck(w->vfs))
        w->refused++;
    cox_buf_fini(&error);
    if (!good || cox_store_start(w->store) != COX_OK)
        return false;
    assert_true(last_seq >= w->acked);
    for (uint64_t id = last_seq + 1; id <= TASKS_MAX; id++)
        w->fate[id] = THERE;
    w->n = w->acked = last_seq;
    for (uint64_t id = w->safe + 1; id <= w->n && !w->mute; id++)
        end_task(w, id);
    return true;
}

static void stop(struct world *w)
{
    cox_store_close(w->store);
    w->store = NULL;
}

/* Lists all of it; false when the store died. */
static bool compare(struct world *w)
{
    struct cox_index_query q = { .limit = 1000 };
    bool listed[TASKS_MAX + 1] = { false };
    bool more = true;

    while (more) {
        struct cox_store_request req = { .op = COX_STORE_LIST };
        struct cox_label labels[COX_LABELS_MAX];
        struct cox_index_page page = { 0 };
        struct cox_index_row row;
        struct cox_store_event e;

        cox_index_query_encode(&req.bytes, &q);
        request(w, req);
        if (!await(w, COX_STORE_LIST, &e))
            return false;
        if (e.err == COX_OK) {
            assert_int_equal(cox_index_page_open(cox_buf_slice(&e.bytes), &page), COX_OK);
            while (cox_index_page_next(&page, &row, labels))
                listed[row.id] = true;
            more = page.more;
            q.before_id = page.before_id;
        } else {
            assert_int_equal(e.err, COX_ERR_UNAVAILABLE); /* it is being made again */
        }
        cox_buf_fini(&e.bytes);
    }
    for (uint64_t id = 1; id <= w->n; id++) {
        w->missing += w->fate[id] == THERE && !listed[id];
        w->risen += w->fate[id] == DELETED && listed[id];
    }
    return true;
}

static void drive(struct world *w)
{
    for (int i = 0; i < 60 && !w->dead && w->n < TASKS_MAX; i++) {
        uint64_t what = cox_rng_below(&w->rng, 10);
        struct cox_store_event e;

        if (what < 7) {
            struct cox_buf b = { 0 };
            cox_put_u64(&b, w->n);
            if (cox_store_append(w->store, w->n + 1, 1, &b))
                end_task(w, ++w->n);
            cox_buf_fini(&b);
        } else if (what < 9 && w->n > 0) {
            uint64_t id = 1 + cox_rng_below(&w->rng, w->n);
            if (w->fate[id] != THERE)
                continue;
            w->fate[id] = ASKED;
            request(w, (struct cox_store_request){ .op = COX_STORE_DELETE, .id = id, .seq = w->n });
            if (!await(w, COX_STORE_DELETE, &e))
                return;
        } else if (w->n > w->safe) {
            request(w, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .ticket = w->n, .seq = w->n });
            if (!await(w, COX_STORE_TRUNCATE, &e))
                return;
        }
        w->acked = cox_store_durable_seq(w->store);
    }
}

static struct world *live(uint64_t seed, bool mute)
{
    struct world *w = COX_NEW(struct world);

    cox_rng_init(&w->rng, seed);
    w->vfs = fault_vfs_create(VFS, seed);
    w->mute = mute;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->cond, NULL);
    (void)snprintf(w->dir, sizeof(w->dir), "/tmp/cox-index-faults-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    for (int life = 0; life < 4; life++) {
        fault_vfs_plan(w->vfs,
                       (struct fault_plan){ .kind = FAULT_POWER_CUT, .at = 1 + cox_rng_below(&w->rng, 300) });
        if (start(w) && compare(w))
            drive(w);
        stop(w);
        fault_vfs_power_cycle(w->vfs);
        fault_vfs_plan(w->vfs, (struct fault_plan){ 0 });
    }
    assert_true(start(w));
    assert_true(compare(w));
    stop(w);
    fault_vfs_destroy(w->vfs);
    char *lock = cox_asprintf("%s/lock", w->dir);
    (void)unlink(lock);
    cox_free(lock);
    (void)rmdir(w->dir);
    pthread_cond_destroy(&w->cond);
    pthread_mutex_destroy(&w->mutex);
    return w;
}

static void test_lists_are_right_after_power_cuts(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= runs; seed++) {
        struct world *w = live(seed, false);

        if (w->missing || w->risen || w->refused)
            fail_msg("seed %" PRIu64 ": %" PRIu64 " missing, %" PRIu64 " risen, %" PRIu64 " refused", seed,
                     w->missing, w->risen, w->refused);
        cox_free(w);
    }
}

/* The control: the cuts do take rows, which only the engine's word brings back. */
static void test_without_the_engines_word_rows_are_missing(void **state)
{
    uint64_t missing = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 500 && missing == 0; seed++) {
        struct world *w = live(seed, true);

        missing = w->missing;
        cox_free(w);
    }
    assert_true(missing > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_are_right_after_power_cuts),
        cmocka_unit_test(test_without_the_engines_word_rows_are_missing),
    };

    if (argc > 1)
        runs = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests_name("index faults", tests, NULL, NULL);
}
