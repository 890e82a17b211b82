#include "harness.h"

#include "orchestrator/store/internal.h"

#include "cox/base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define VFS_NAME "faulty"

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ b) * 0x9e3779b97f4a7c15u;

    return x ^ (x >> 29);
}

static void damage(struct harness *h, const char *what, uint64_t at)
{
    h->verdict.damage++;
    if (h->verbose)
        fprintf(stderr, "seed %" PRIu64 ": %s (%" PRIu64 ")\n", h->seed, what, at);
}

/* ---- the store's callbacks ---- */

static void signal_owner(struct harness *h, unsigned fatals)
{
    pthread_mutex_lock(&h->mutex);
    h->woken = true;
    h->fatals += fatals;
    pthread_cond_signal(&h->cond);
    pthread_mutex_unlock(&h->mutex);
}

static void on_wake(void *user)
{
    signal_owner(user, 0);
}

static void on_fatal(void *user, const char *what)
{
    COX_ASSERT(strstr(what, ".db: "));
    signal_owner(user, 1);
}

/* False when the store died. */
static bool wait_for_wake(struct harness *h)
{
    pthread_mutex_lock(&h->mutex);
    while (!h->woken && h->fatals == 0)
        pthread_cond_wait(&h->cond, &h->mutex);
    h->woken = false;
    bool alive = h->fatals == 0;

    pthread_mutex_unlock(&h->mutex);
    return alive;
}

static bool is_alive(struct harness *h)
{
    pthread_mutex_lock(&h->mutex);
    bool alive = h->fatals == 0;

    pthread_mutex_unlock(&h->mutex);
    return alive;
}

/* ---- records and tasks as bytes ---- */

/* A record's length follows from its nonce: some are longer than a page. */
static size_t filler_len(uint64_t nonce)
{
    return nonce % 16 == 0 ? nonce % 40000 : nonce % 300;
}

static void put_record(struct cox_buf *b, uint64_t seq, const struct record *r)
{
    cox_put_u64(b, seq);
    cox_put_u64(b, r->nonce);
    cox_put_u32(b, r->entity);
    memset(cox_buf_extend(b, filler_len(r->nonce)), (int)(r->nonce & 0xff), filler_len(r->nonce));
}

static void put_task(struct cox_buf *b, uint64_t id, uint64_t seq)
{
    size_t len = (size_t)(id * 977 % 30000);

    cox_put_u64(b, id);
    cox_put_u64(b, seq);
    memset(cox_buf_extend(b, len), (int)(id & 0xff), len);
}

/* ---- recovery ---- */

static enum cox_err on_entity(void *user, struct cox_entity_key key, uint64_t applied_seq,
                              struct cox_slice bytes)
{
    struct harness *h = user;
    struct cox_reader r = cox_reader(bytes);

    if (key.kind != 1 || key.id >= ENTITIES || key.sub != 2)
        return COX_ERR_INVALID;
    h->found[key.id] = cox_get_u64(&r);
    h->found_applied[key.id] = applied_seq;
    return r.bad ? COX_ERR_INVALID : COX_OK;
}

static enum cox_err on_batch(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records)
{
    struct harness *h = user;
    struct cox_reader in = cox_reader(records);

    for (uint64_t seq = first_seq; seq < first_seq + n; seq++) {
        struct record r;
        uint64_t stored_seq = cox_get_u64(&in);

        r.nonce = cox_get_u64(&in);
        r.entity = cox_get_u32(&in);
        (void)cox_get_raw(&in, filler_len(r.nonce));
        if (in.bad || stored_seq != seq || seq > h->appended_seq || r.nonce != h->records[seq].nonce ||
            r.entity != h->records[seq].entity) {
            damage(h, "a record is not the one appended", seq);
            return COX_ERR_INVALID;
        }
        if (seq > h->found_applied[r.entity])
            h->found[r.entity] = mix(h->found[r.entity], r.nonce);
    }
    if (cox_reader_left(&in) != 0)
        return COX_ERR_INVALID;
    h->found_seq = first_seq + n - 1;
    return COX_OK;
}

/* The store may know more than it acknowledged, and nothing else. */
static void check_recovered(struct harness *h, uint64_t last_seq)
{
    uint64_t values[ENTITIES] = { 0 };

    if (last_seq < h->acked_seq)
        h->verdict.lost_records += h->acked_seq - last_seq;
    if (last_seq > h->appended_seq)
        damage(h, "more records than were appended", last_seq);
    for (uint64_t seq = 1; seq <= last_seq && seq <= h->appended_seq; seq++)
        values[h->records[seq].entity] = mix(values[h->records[seq].entity], h->records[seq].nonce);
    for (uint64_t i = 0; i < ENTITIES; i++)
        if (values[i] != h->found[i])
            damage(h, "an entity is not what its records make it", i);
    memcpy(h->values, values, sizeof(values));
    h->appended_seq = last_seq;
    h->acked_seq = last_seq;
}

static bool poll_one(struct harness *h, struct cox_store_event *ret)
{
    while (!cox_store_poll(h->store, ret))
        if (!wait_for_wake(h))
            return false;
    return true;
}

/* Those that a truncation covered must be there; the others may be undone, but whole if there. */
static bool check_tasks(struct harness *h)
{
    struct cox_buf expected = { 0 };
    bool alive = true;
    uint64_t kept = 0;

    for (uint64_t id = 1; id <= h->n_tasks && alive; id++) {
        struct cox_store_request req = { .op = COX_STORE_READ_ARCHIVE, .id = id };
        struct cox_store_event e;
        const struct task *t = &h->tasks[id];

        alive = cox_store_request(h->store, &req) && poll_one(h, &e);
        if (!alive)
            break;
        cox_buf_clear(&expected);
        put_task(&expected, id, t->seq);
        if (e.err == COX_ERR_NOT_FOUND)
            *(t->safe ? &h->verdict.lost_tasks : &h->verdict.undone_tasks) += 1;
        else if (e.err != COX_OK || !cox_slice_eq(cox_buf_slice(&e.bytes), cox_buf_slice(&expected)))
            damage(h, "a task is not the one archived", id);
        else if (t->seq > h->appended_seq)
            damage(h, "a task was archived ahead of the log", id);
        else
            kept = id;
        cox_buf_fini(&e.bytes);
    }
    if (alive)
        h->n_tasks = kept; /* the engine would archive the undone ones again; here their ids are reused */
    cox_buf_fini(&expected);
    return alive;
}

bool harness_start(struct harness *h)
{
    const struct cox_store_config config = {
        .uri = "sqlite", .data_dir = h->dir, .wake = on_wake, .on_fatal = on_fatal, .user = h
    };
    const struct store_tuning tuning = { .vfs = VFS_NAME,
                                         .log_synchronous = h->log_synchronous,
                                         .checkpoint_pages = 40 };
    const struct cox_store_recovery recovery = { .entity = on_entity, .batch = on_batch, .user = h };
    struct cox_buf error = { 0 };
    uint64_t last_seq = 0;

    h->fatals = 0;
    memset(h->found, 0, sizeof(h->found));
    memset(h->found_applied, 0, sizeof(h->found_applied));
    enum cox_err err = store_open_tuned(&config, &tuning, &h->store, &error);

    if (err == COX_OK)
        err = cox_store_recover(h->store, &recovery, &last_seq, &error);
    if (err != COX_OK && !fault_vfs_struck(h->disk) && !h->forgives)
        damage(h, cox_buf_cstr(&error), 0);
    cox_buf_fini(&error);
    if (err != COX_OK)
        return false;
    check_recovered(h, last_seq);
    return cox_store_start(h->store) == COX_OK && check_tasks(h);
}

/* ---- driving ---- */

static void append(struct harness *h)
{
    struct cox_buf b = { 0 };
    uint64_t first_seq = h->appended_seq + 1;
    uint32_t n = 1 + (uint32_t)cox_rng_below(&h->rng, 8);

    for (uint32_t i = 0; i < n; i++) {
        struct record *r = &h->records[first_seq + i];

        *r = (struct record){ .nonce = cox_rng_u64(&h->rng),
                              .entity = (uint32_t)cox_rng_below(&h->rng, ENTITIES) };
        put_record(&b, first_seq + i, r);
    }
    if (cox_store_append(h->store, first_seq, n, &b)) {
        for (uint32_t i = 0; i < n; i++) {
            struct record *r = &h->records[first_seq + i];

            h->values[r->entity] = mix(h->values[r->entity], r->nonce);
        }
        h->appended_seq += n;
    }
    cox_buf_fini(&b);
}

static void save(struct harness *h, uint64_t entity)
{
    struct cox_store_request req = { .op = COX_STORE_SAVE,
                                     .key = { .kind = 1, .id = entity, .sub = 2 },
                                     .seq = h->appended_seq };

    cox_put_u64(&req.bytes, h->values[entity]);
    if (!cox_store_request(h->store, &req))
        cox_buf_fini(&req.bytes);
}

static void archive(struct harness *h)
{
    struct cox_store_request req = { .op = COX_STORE_ARCHIVE, .id = h->n_tasks + 1, .seq = h->appended_seq };

    put_task(&req.bytes, req.id, req.seq);
    if (cox_store_request(h->store, &req))
        h->tasks[++h->n_tasks] = (struct task){ .seq = h->appended_seq };
    else
        cox_buf_fini(&req.bytes);
}

/* Everything is saved first, so that the log may go. */
static void truncate_log(struct harness *h)
{
    struct cox_store_request req = { .op = COX_STORE_TRUNCATE,
                                     .ticket = h->n_truncates,
                                     .seq = h->appended_seq };

    for (uint64_t i = 0; i < ENTITIES; i++)
        save(h, i);
    h->truncate_tasks[req.ticket % 64] = h->n_tasks;
    if (cox_store_request(h->store, &req))
        h->n_truncates++;
}

enum cox_err harness_await_answer(struct harness *h, enum cox_store_op op)
{
    struct cox_store_event e;

    do {
        COX_ASSERT(poll_one(h, &e));
        cox_buf_fini(&e.bytes);
    } while (e.op != op);
    return e.err;
}

static void take_events(struct harness *h)
{
    struct cox_store_event e;

    while (cox_store_poll(h->store, &e)) {
        for (uint64_t id = 1; e.op == COX_STORE_TRUNCATE && id <= h->truncate_tasks[e.ticket % 64]; id++)
            h->tasks[id].safe = true;
        cox_buf_fini(&e.bytes);
    }
}

void harness_await_durable(struct harness *h, uint64_t seq)
{
    while (cox_store_durable_seq(h->store) < seq && wait_for_wake(h))
        ;
}

void harness_drive(struct harness *h, unsigned steps)
{
    for (unsigned i = 0; i < steps && is_alive(h); i++) {
        uint64_t dice = cox_rng_below(&h->rng, 100);

        if (h->appended_seq + 8 > RECORDS_MAX || h->n_tasks + 1 > TASKS_MAX)
            return;
        if (dice < 50)
            append(h);
        else if (dice < 60)
            save(h, cox_rng_below(&h->rng, ENTITIES));
        else if (dice < 75)
            archive(h);
        else if (dice < 80)
            truncate_log(h);
        else
            harness_await_durable(h, h->appended_seq);
        take_events(h);
    }
}

/* A fault that struck must be fatal; it may take a moment until the store says so. */
static bool dies_of_fault(struct harness *h)
{
    struct timespec until;
    int rc = 0;

    if (!fault_vfs_struck(h->disk) || h->shrugs)
        return false;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&h->mutex);
    while (h->fatals == 0 && rc == 0)
        rc = pthread_cond_timedwait(&h->cond, &h->mutex, &until);
    pthread_mutex_unlock(&h->mutex);
    if (rc != 0)
        damage(h, "a fault went unnoticed", 0);
    return rc == 0;
}

/* The acknowledged must not rise once the store has said that it is dead, and it says so once. */
void harness_stop(struct harness *h)
{
    if (!h->store)
        return;
    bool alive = is_alive(h) && !dies_of_fault(h);
    uint64_t acked = cox_store_durable_seq(h->store);

    take_events(h);
    if (!alive) {
        struct cox_buf b = { 0 };

        cox_put_u64(&b, 0);
        if (cox_store_append(h->store, h->appended_seq + 1, 1, &b))
            damage(h, "a dead store took records", h->appended_seq);
        cox_buf_fini(&b);
        if (h->fatals != 1)
            damage(h, "a dead store said so more than once", h->fatals);
    }
    cox_store_close(h->store);
    h->store = NULL;
    /* Where it does not even open, SQLite itself may sync once more as it rolls back: nobody builds on that.
     */
    if (fault_vfs_retried_syncs(h->disk) > 0)
        damage(h, "a failed sync was tried again", 0);
    if (alive && is_alive(h))
        acked = h->appended_seq; /* an orderly close commits what was handed over */
    if (acked > h->acked_seq)
        h->acked_seq = acked;
}

struct harness *harness_create(uint64_t seed, const char *log_synchronous)
{
    struct harness *h = COX_NEW(struct harness);

    h->seed = seed;
    h->log_synchronous = log_synchronous;
    cox_rng_init(&h->rng, seed);
    h->disk = fault_vfs_create(VFS_NAME, seed);
    snprintf(h->dir, sizeof(h->dir), "/tmp/cox-test-fault-XXXXXX");
    COX_ASSERT(mkdtemp(h->dir));
    pthread_mutex_init(&h->mutex, NULL);
    pthread_cond_init(&h->cond, NULL);
    return h;
}

void harness_destroy(struct harness *h)
{
    char *lock = cox_asprintf("%s/lock", h->dir);

    harness_stop(h);
    fault_vfs_destroy(h->disk);
    (void)unlink(lock);
    (void)rmdir(h->dir);
    cox_free(lock);
    pthread_mutex_destroy(&h->mutex);
    pthread_cond_destroy(&h->cond);
    cox_free(h);
}
