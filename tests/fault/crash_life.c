#include "crash_life.h"

#include "orchestrator/store/internal.h"

#include "cox/base/alloc.h"

#include <inttypes.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ENTITIES 4
#define CHECKPOINT_PAGES 1000 /* of one that only looks */
#define UNOWNED_MS 1          /* so that sweeps find something */

/* ---- bytes ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ b) * 0x9e3779b97f4a7c15u;

    return x ^ (x >> 29);
}

static bool ends_task(uint64_t seq)
{
    return seq % 2 == 1;
}

/* Some records are longer than a page. */
static void put_record(struct cox_buf *b, uint64_t seq, uint64_t nonce)
{
    size_t len = nonce % 32 == 0 ? nonce % 20000 : nonce % 200;

    cox_put_u64(b, seq);
    cox_put_u64(b, nonce);
    cox_put_u32(b, (uint32_t)len);
    memset(cox_buf_extend(b, len), (int)(nonce & 0xff), len);
}

static void put_filled(struct cox_buf *b, uint64_t what, size_t len)
{
    cox_put_u64(b, what);
    memset(cox_buf_extend(b, len), (int)(what & 0xff), len);
}

static void put_task(struct cox_buf *b, uint64_t id)
{
    put_filled(b, id, id % 20 == 3 ? 9000 : id * 7 % 300);
}

/* Two tasks share one. */
static struct cox_hash payload_of(uint64_t id, struct cox_buf *b)
{
    struct cox_hash h;

    put_filled(b, id / 4, 100 + id / 4 * 991 % 6000);
    SHA256(b->data, b->len, h.b);
    return h;
}

static void put_row(struct cox_buf *b, uint64_t id, enum cox_task_status status)
{
    struct cox_label label = { cox_slice_str("team"), cox_slice_str(id % 4 == 1 ? "red" : "blue") };
    struct cox_index_row row = { .id = id, .status = (uint8_t)status, .created_wall_ms = (int64_t)id };

    row.labels = &label;
    row.n_labels = 1;
    cox_index_row_encode(b, &row);
}

/* The four things that are said of a task that ended; 0 to 3. */
static struct cox_store_request say(uint64_t id, int which)
{
    struct cox_store_request req = { .id = id, .seq = id };

    switch (which) {
    case 0:
        req.op = COX_STORE_PUT_PAYLOAD;
        req.hash = payload_of(id, &req.bytes);
        req.owner = id;
        req.id = 0;
        break;
    case 1:
        req.op = COX_STORE_INDEX;
        put_row(&req.bytes, id, COX_TASK_PENDING);
        break;
    case 2:
        req.op = COX_STORE_INDEX;
        put_row(&req.bytes, id, COX_TASK_FAILED);
        break;
    default:
        req.op = COX_STORE_ARCHIVE;
        put_task(&req.bytes, id);
        break;
    }
    return req;
}

/* ---- recovery ---- */

struct recovery {
    const struct crash_model *m;
    uint64_t found[ENTITIES], applied[ENTITIES];
    bool wrong;
};

static enum cox_err on_entity(void *user, struct cox_entity_key key, uint64_t applied_seq,
                              struct cox_slice bytes)
{
    struct recovery *r = user;
    struct cox_reader in = cox_reader(bytes);

    if (key.kind != 1 || key.id >= ENTITIES || key.sub != 2)
        return COX_ERR_INVALID;
    r->found[key.id] = cox_get_u64(&in);
    r->applied[key.id] = applied_seq;
    return COX_OK;
}

static enum cox_err on_batch(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records)
{
    struct recovery *r = user;
    struct cox_reader in = cox_reader(records);

    for (uint64_t seq = first_seq; seq < first_seq + n; seq++) {
        uint64_t said = cox_get_u64(&in), nonce = cox_get_u64(&in);

        (void)cox_get_raw(&in, cox_get_u32(&in));
        if (in.bad || said != seq || seq > r->m->n || nonce != r->m->nonces[seq]) {
            r->wrong = true;
            return COX_OK;
        }
        if (seq > r->applied[nonce % ENTITIES])
            r->found[nonce % ENTITIES] = mix(r->found[nonce % ENTITIES], nonce);
    }
    r->wrong |= cox_reader_left(&in) != 0;
    return COX_OK;
}

static void values_at(const struct crash_model *m, uint64_t seq, uint64_t values[ENTITIES])
{
    memset(values, 0, ENTITIES * sizeof(values[0]));
    for (uint64_t i = 1; i <= seq; i++)
        values[m->nonces[i] % ENTITIES] = mix(values[m->nonces[i] % ENTITIES], m->nonces[i]);
}

static void note(uint64_t *count, struct crash_verdict *v, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void note(uint64_t *count, struct crash_verdict *v, const char *fmt, ...)
{
    va_list args;

    ++*count;
    if (v->what[0])
        return;
    va_start(args, fmt);
    (void)vsnprintf(v->what, sizeof(v->what), fmt, args);
    va_end(args);
}

static void check_records(const struct recovery *r, uint64_t acked_seq, uint64_t last_seq,
                          struct crash_verdict *v)
{
    uint64_t values[ENTITIES];

    if (last_seq < acked_seq)
        note(&v->lost, v, "%" PRIu64 " records were acknowledged, %" PRIu64 " are there", acked_seq,
             last_seq);
    if (r->wrong || last_seq > r->m->n) {
        note(&v->damaged, v, "the log has what was never appended");
        return;
    }
    values_at(r->m, last_seq, values);
    for (size_t i = 0; i < ENTITIES; i++)
        if (values[i] != r->found[i])
            note(&v->damaged, v, "entity %zu is not what records 1 to %" PRIu64 " make of it", i, last_seq);
}

/* ---- what is there ---- */

static bool do_one(struct cox_store *s, struct cox_store_request *req, enum cox_err *ret_answer,
                   struct crash_verdict *v)
{
    struct cox_buf error = { 0 };
    struct store_item item = { .req = *req };
    enum cox_err err = store_state_work(s, &item, &error);

    if (err != COX_OK)
        note(&v->damaged, v, "%s", cox_buf_cstr(&error));
    *req = item.req;
    *ret_answer = item.answer;
    cox_buf_fini(&error);
    return err == COX_OK;
}

/* What a read must give: exactly `expected`, or nothing. */
static bool reads(struct cox_store *s, struct cox_store_request req, const struct cox_buf *expected,
                  bool *ret_there, struct crash_verdict *v)
{
    enum cox_err answer;
    bool good = do_one(s, &req, &answer, v);

    *ret_there = good && answer != COX_ERR_NOT_FOUND;
    if (*ret_there &&
        (answer != COX_OK || !cox_slice_eq(cox_buf_slice(&req.bytes), cox_buf_slice(expected)))) {
        note(&v->damaged, v, "what task %" PRIu64 " left is not what it was", req.id);
        good = false;
    }
    cox_buf_fini(&req.bytes);
    return good;
}

static void check_task(const struct crash_model *m, struct cox_store *s, uint64_t id, bool deep,
                       struct crash_verdict *v)
{
    struct cox_store_request archive = { .op = COX_STORE_READ_ARCHIVE, .id = id };
    struct cox_store_request payload = { .op = COX_STORE_READ_PAYLOAD, .id = id };
    struct cox_buf task = { 0 }, value = { 0 };
    bool there;

    put_task(&task, id);
    payload.hash = payload_of(id, &value);
    if (reads(s, archive, &task, &there, v)) {
        if (!there && m->fates[id] == CRASH_THERE)
            note(&v->lost, v, "task %" PRIu64 " is gone", id);
        if (there && deep && m->fates[id] == CRASH_DELETED)
            note(&v->damaged, v, "task %" PRIu64 " was deleted, and is there again", id);
    }
    if (deep && m->fates[id] == CRASH_THERE && reads(s, payload, &value, &there, v) && !there)
        note(&v->lost, v, "the value of task %" PRIu64 " is gone", id);
    cox_buf_fini(&task);
    cox_buf_fini(&value);
}

static bool list_all(struct cox_store *s, bool listed[CRASH_RECORDS_MAX + 1], struct crash_verdict *v)
{
    struct cox_index_query q = { .limit = 500 };
    bool more = true;

    while (more) {
        struct cox_store_request req = { .op = COX_STORE_LIST };
        struct cox_label labels[COX_LABELS_MAX];
        struct cox_index_page page = { 0 };
        struct cox_index_row row;
        enum cox_err answer;

        cox_index_query_encode(&req.bytes, &q);
        bool good = do_one(s, &req, &answer, v);

        if (good && (answer != COX_OK || cox_index_page_open(cox_buf_slice(&req.bytes), &page) != COX_OK)) {
            note(&v->damaged, v, "the index cannot be read");
            good = false;
        }
        while (good && cox_index_page_next(&page, &row, labels))
            listed[row.id <= CRASH_RECORDS_MAX ? row.id : 0] = true;
        more = good && page.more;
        q.before_id = page.before_id;
        cox_buf_fini(&req.bytes);
        if (!good)
            return false;
    }
    return true;
}

/* As the engine does after recovery. */
static bool say_again(struct cox_store *s, uint64_t last_seq, struct crash_verdict *v)
{
    struct cox_buf error = { 0 };
    bool good = store_state_begin(&s->state, &error) == COX_OK;

    for (uint64_t id = s->log.dropped_seq + 1; id <= last_seq && good; id++) {
        for (int i = 0; i < 4 && good && ends_task(id); i++) {
            struct cox_store_request req = say(id, i);
            enum cox_err answer;

            good = do_one(s, &req, &answer, v);
            cox_buf_fini(&req.bytes);
        }
    }
    good = good && store_index_commit(&s->index, &error) == COX_OK &&
           store_state_commit(&s->state, &error) == COX_OK;
    while (good && !s->index.complete)
        good = store_state_rebuild(s, &error) == COX_OK;
    if (error.len > 0)
        note(&v->damaged, v, "%s", cox_buf_cstr(&error));
    cox_buf_fini(&error);
    return good;
}

static void check_contents(const struct crash_model *m, struct cox_store *s, uint64_t last_seq, bool deep,
                           struct crash_verdict *v)
{
    bool listed[CRASH_RECORDS_MAX + 1] = { false };
    uint64_t upto = deep ? last_seq : s->log.dropped_seq;

    if (deep && (!say_again(s, last_seq, v) || !list_all(s, listed, v)))
        return;
    for (uint64_t id = 1; id <= upto && id <= m->n; id++) {
        if (!ends_task(id))
            continue;
        check_task(m, s, id, deep, v);
        if (deep && m->fates[id] == CRASH_THERE && !listed[id])
            note(&v->lost, v, "task %" PRIu64 " is in no list", id);
        if (deep && m->fates[id] == CRASH_DELETED && listed[id])
            note(&v->damaged, v, "task %" PRIu64 " was deleted, and is listed again", id);
    }
}

static const struct cox_store_recovery *recovery_of(struct recovery *r, const struct crash_model *m,
                                                    struct cox_store_recovery *ret)
{
    *r = (struct recovery){ .m = m };
    *ret = (struct cox_store_recovery){ .entity = on_entity, .batch = on_batch, .user = r };
    return ret;
}

void crash_check(const struct crash_model *m, uint64_t acked_seq, const char *vfs, const char *dir, bool deep,
                 struct crash_verdict *v)
{
    const struct cox_store_config config = { .uri = "sqlite", .data_dir = dir };
    const struct store_tuning tuning = { .vfs = vfs, .checkpoint_pages = CHECKPOINT_PAGES };
    struct cox_store_recovery callbacks;
    struct recovery r;
    struct cox_buf error = { 0 };
    struct cox_store *s = NULL;
    uint64_t last_seq = 0;
    enum cox_err err = store_open_tuned(&config, &tuning, &s, &error);

    if (err == COX_OK)
        err = cox_store_recover(s, recovery_of(&r, m, &callbacks), &last_seq, &error);
    if (err == COX_OK) {
        check_records(&r, acked_seq, last_seq, v);
        if (v->lost + v->damaged == 0)
            check_contents(m, s, last_seq, deep, v);
        atomic_store(&s->dead, true); /* no last checkpoint: nobody will look at this disk again */
    } else {
        note(&v->damaged, v, "%s", cox_buf_cstr(&error));
    }
    cox_store_close(s);
    cox_buf_fini(&error);
}

void crash_check_log(const struct crash_model *m, uint64_t acked_seq, const char *vfs, const char *dir,
                     struct crash_verdict *v)
{
    const struct store_tuning tuning = { .vfs = vfs, .checkpoint_pages = CHECKPOINT_PAGES };
    struct store_identity identity = { 0 };
    struct cox_store_recovery callbacks;
    struct recovery r;
    struct store_log log;
    struct cox_buf error = { 0 };
    uint64_t last_seq = 0;
    enum cox_err err = store_log_open(&log, dir, &tuning, &identity, &error);

    if (err == COX_OK) {
        err = store_log_scan(&log, recovery_of(&r, m, &callbacks), &last_seq, &error);
        store_log_close(&log, false);
    }
    if (err != COX_OK)
        note(&v->damaged, v, "%s", cox_buf_cstr(&error));
    else if (last_seq < acked_seq)
        note(&v->lost, v, "%" PRIu64 " records were acknowledged, the log has %" PRIu64, acked_seq, last_seq);
    else if (r.wrong || last_seq > m->n)
        note(&v->damaged, v, "the log has what was never appended");
    cox_buf_fini(&error);
}

/* ---- a life ---- */

struct life {
    const struct crash_life *how;
    struct crash_model *m;
    struct crash_tape *tape;
    struct cox_rng *rng;
    struct cox_store *store;
    uint64_t barriers;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool woken;
};

static void on_wake(void *user)
{
    struct life *l = user;

    pthread_mutex_lock(&l->mutex);
    l->woken = true;
    pthread_cond_signal(&l->cond);
    pthread_mutex_unlock(&l->mutex);
}

static void on_fatal(void *user, const char *what)
{
    (void)user;
    fprintf(stderr, "the store died on a disk without faults: %s\n", what);
    COX_ASSERT(!"it may not");
}

static void wait_for_wake(struct life *l)
{
    pthread_mutex_lock(&l->mutex);
    while (!l->woken)
        pthread_cond_wait(&l->cond, &l->mutex);
    l->woken = false;
    pthread_mutex_unlock(&l->mutex);
}

/* What came; true when an answer to this kind of request was among it. */
static bool take_events(struct life *l, enum cox_store_op op)
{
    struct cox_store_event e;
    bool met = false;

    while (cox_store_poll(l->store, &e)) {
        cox_buf_fini(&e.bytes);
        if (e.op == COX_STORE_DELETE && e.err == COX_OK) {
            l->m->fates[e.id] = CRASH_DELETED;
            crash_tape_note(l->tape, e.id, CRASH_DELETED);
        }
        met |= e.op == op;
    }
    return met;
}

static void await(struct life *l, enum cox_store_op op)
{
    while (!take_events(l, op))
        wait_for_wake(l);
}

static void request(struct life *l, struct cox_store_request req)
{
    COX_ASSERT(cox_store_request(l->store, &req));
}

static void end_task(struct life *l, uint64_t id)
{
    for (int i = 0; i < 4 && ends_task(id); i++)
        request(l, say(id, i));
}

static void append(struct life *l, uint32_t n)
{
    uint64_t first_seq = l->m->n + 1;
    struct cox_buf b = { 0 };

    if (first_seq + n > CRASH_RECORDS_MAX)
        return;
    for (uint64_t seq = first_seq; seq < first_seq + n; seq++) {
        l->m->nonces[seq] = cox_rng_u64(l->rng);
        l->m->fates[seq] = CRASH_THERE;
        put_record(&b, seq, l->m->nonces[seq]);
    }
    l->m->n += n;
    COX_ASSERT(cox_store_append(l->store, first_seq, n, &b));
    for (uint64_t seq = first_seq; seq < first_seq + n; seq++)
        end_task(l, seq);
}

static void save(struct life *l, uint64_t entity)
{
    struct cox_store_request req = { .op = COX_STORE_SAVE,
                                     .key = { .kind = 1, .id = entity, .sub = 2 },
                                     .seq = l->m->n };
    uint64_t values[ENTITIES];

    values_at(l->m, l->m->n, values);
    cox_put_u64(&req.bytes, values[entity]);
    request(l, req);
}

/* Everything is saved first, so that the log may go. */
static void truncate_log(struct life *l)
{
    for (uint64_t i = 0; i < ENTITIES; i++)
        save(l, i);
    request(l, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .seq = l->m->n });
    if (l->how->in_step)
        await(l, COX_STORE_TRUNCATE);
    else
        append(l, 1); /* which must not go with those before it */
}

static void delete_one(struct life *l)
{
    uint64_t id = l->m->n == 0 ? 0 : 1 + cox_rng_below(l->rng, l->m->n);

    if (!ends_task(id) || l->m->fates[id] != CRASH_THERE)
        return;
    l->m->fates[id] = CRASH_ASKED;
    crash_tape_note(l->tape, id, CRASH_ASKED);
    request(l, (struct cox_store_request){ .op = COX_STORE_DELETE, .id = id, .seq = l->m->n });
    if (l->how->in_step)
        await(l, COX_STORE_DELETE);
}

static void settle(struct life *l)
{
    request(l, (struct cox_store_request){ .op = COX_STORE_READ_ENTITY, .key = { .kind = 9 } });
    await(l, COX_STORE_READ_ENTITY);
    while (cox_store_durable_seq(l->store) < l->m->n)
        wait_for_wake(l);
}

/* What is asked for while no sync returns. */
static void while_held(struct life *l)
{
    append(l, 1); /* the log thread is busy with it */
    fault_vfs_hold_syncs(l->how->held, true);
    for (uint64_t n = 2 + cox_rng_below(l->rng, 4); n > 0; n--) {
        uint64_t dice = cox_rng_below(l->rng, 100);

        if (dice < 50)
            append(l, 1);
        else if (dice < 80)
            delete_one(l);
        else
            truncate_log(l);
    }
    fault_vfs_hold_syncs(l->how->held, false);
}

static void step(struct life *l)
{
    uint64_t dice = cox_rng_below(l->rng, 100);

    if (!l->how->in_step && cox_rng_below(l->rng, 3) == 0) {
        while_held(l);
    } else if (dice < 50) {
        append(l, 1 + (uint32_t)cox_rng_below(l->rng, 4));
    } else if (dice < 65) {
        save(l, cox_rng_below(l->rng, ENTITIES));
    } else if (dice < 73) {
        truncate_log(l);
    } else if (dice < 83) {
        delete_one(l);
    } else if (dice < 90) {
        request(l, (struct cox_store_request){ .op = COX_STORE_SWEEP });
    } else {
        settle(l);
    }
    if (l->how->in_step)
        settle(l);
    (void)take_events(l, COX_STORE_LIST);
}

static void open_store(struct life *l)
{
    const struct cox_store_config config = {
        .uri = "sqlite", .data_dir = l->how->dir, .wake = on_wake, .on_fatal = on_fatal, .user = l
    };
    const struct store_tuning tuning = { .vfs = l->how->vfs,
                                         .log_synchronous = l->how->log_synchronous,
                                         .checkpoint_pages = l->how->checkpoint_pages,
                                         .unowned_ms = UNOWNED_MS };
    struct cox_store_recovery callbacks;
    struct recovery r;
    struct cox_buf error = { 0 };
    uint64_t last_seq = 0;

    COX_ASSERT(store_open_tuned(&config, &tuning, &l->store, &error) == COX_OK);
    COX_ASSERT(cox_store_recover(l->store, recovery_of(&r, l->m, &callbacks), &last_seq, &error) == COX_OK);
    cox_buf_fini(&error);
    for (uint64_t id = last_seq + 1; id <= CRASH_RECORDS_MAX; id++) { /* numbers that will be given anew */
        if (l->m->fates[id] != CRASH_THERE)
            crash_tape_note(l->tape, id, CRASH_THERE);
        l->m->fates[id] = CRASH_THERE;
    }
    l->m->n = last_seq;
    /* What was recovered stays: the engine goes on from it. */
    crash_tape_set_store(l->tape, l->store, last_seq);
    COX_ASSERT(cox_store_start(l->store) == COX_OK);
    for (uint64_t id = l->store->dropped_seq + 1; id <= last_seq; id++)
        end_task(l, id);
}

void crash_live(const struct crash_life *how, struct crash_model *m, struct crash_tape *tape,
                struct cox_rng *rng)
{
    struct life l = { .how = how, .m = m, .tape = tape, .rng = rng };

    pthread_mutex_init(&l.mutex, NULL);
    pthread_cond_init(&l.cond, NULL);
    open_store(&l);
    for (unsigned i = 0; i < how->steps; i++)
        step(&l);
    settle(&l);
    crash_tape_set_store(tape, NULL, m->n);
    cox_store_close(l.store);
    pthread_mutex_destroy(&l.mutex);
    pthread_cond_destroy(&l.cond);
}
