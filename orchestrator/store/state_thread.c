/* The state thread: requests in the order given, many in one transaction. A transaction ends when nothing
 * waits, or when it is large or old enough; its events go out after its commit. Under load it stays open a
 * while for what comes: each transaction writes whole pages, however few rows are new in them. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#define TURN_ITEMS_MAX 4096u
#define TURN_BYTES_MAX (16u << 20)
#define FILL_NS 5000000      /* a transaction stays open for more, if nobody waits for its end */
#define FILL_ITEMS_MIN 64u   /* of the one before: else it is not worth it */
#define TURN_NS_MAX 10000000 /* a read that comes during a transaction is answered at its end */

struct work {
    struct cox_store *s;
    struct cox_buf error;
    struct store_item *held[TURN_ITEMS_MAX]; /* owed to the owner after the commit */
    size_t n_held;
    struct store_item *truncate; /* ends its transaction */
    bool sync;                   /* what it answers must survive a power cut: no log has it */
    struct store_item *backup;   /* under way, until the log thread has it */
    struct store_copy copy;
    bool state_copied;
    bool backing_up;                                /* until the log's copy is over as well */
    struct store_item *parked[STORE_TRUNCATES_MAX]; /* truncations that wait for that */
    size_t n_parked;
    size_t n_last;      /* requests in the last transaction */
    bool waited_for;    /* somebody waits for the end of this one */
    uint64_t after_seq; /* the log must have this before the transaction commits */
};

static void give(struct cox_store *s, struct store_item *item)
{
    bool pushed = cox_ring_push(s->state_done, item, NULL);

    COX_ASSERT(pushed);
}

static enum cox_err take(struct work *w, struct store_item *item)
{
    struct cox_store *s = w->s;
    enum cox_store_op op = item->req.op;
    enum cox_err err = COX_OK;

    atomic_fetch_sub_explicit(&s->request_bytes, store_item_weight(item), memory_order_relaxed);
    w->waited_for |= !store_op_patient(op);
    if (item->req.seq > w->after_seq)
        w->after_seq = item->req.seq;
    if (op == COX_STORE_TRUNCATE) {
        w->truncate = item;
        return COX_OK;
    }
    if (op == COX_STORE_SWEEP && w->backing_up) { /* the copy names what it would take */
        item->req.id = 0;
        w->held[w->n_held++] = item;
        return COX_OK;
    }
    if (op == COX_STORE_BACKUP && !w->backing_up && !w->backup) {
        w->backup = item;
        return COX_OK;
    }
    err = store_state_work(s, item, &w->error);
    if ((op == COX_STORE_DELETE && item->answer == COX_OK) ||
        (op == COX_STORE_SWEEP && s->state.disowned && s->state.sweep.phase == SWEEP_BLOBS))
        w->sync = !COX_PLANTED("delete-unsynced");
    if (store_op_reads(op))
        atomic_fetch_add_explicit(&s->read_bytes, item->req.bytes.len, memory_order_relaxed);
    if (err == COX_OK && op == COX_STORE_LIST && w->after_seq <= atomic_load(&s->durable_seq)) {
        /* The log has all that it shows: no commit here would make it surer. */
        give(s, item);
        store_wake_owner(s);
    } else if (store_op_answers(op))
        w->held[w->n_held++] = item;
    else if (item->req.bytes.len > STORE_SPENT_LEN_MAX || !cox_ring_push(s->spent, item, NULL))
        store_item_destroy(item);
    return err;
}

/* The next request, or NULL when the transaction should end. */
static struct store_item *next_item(struct work *w, int64_t fill_until_ns)
{
    struct store_thread *t = &w->s->state_thread;
    struct store_item *item = cox_ring_pop(w->s->requests);

    while (!item && !w->waited_for && w->n_last >= FILL_ITEMS_MIN && cox_clock_mono_ns() < fill_until_ns) {
        store_parker_prepare(&t->parker, STORE_DOZING);
        item = cox_ring_pop(w->s->requests);
        if (item || atomic_load(&t->closing) || store_is_dead(w->s))
            return item;
        store_parker_doze(&t->parker, fill_until_ns);
        item = cox_ring_pop(w->s->requests);
    }
    return item;
}

/* Applies what waits, `item` being the first. */
static enum cox_err gather(struct work *w, struct store_item *item)
{
    int64_t begun_ns = cox_clock_mono_ns();
    enum cox_err err = store_state_begin(&w->s->state, &w->error);
    size_t bytes = 0, n = 0;

    w->waited_for = false;
    while (item) {
        n++;
        bytes += store_item_weight(item);
        if (err == COX_OK)
            err = take(w, item);
        else
            store_item_destroy(item);
        if (err != COX_OK || w->truncate || n == TURN_ITEMS_MAX || bytes > TURN_BYTES_MAX ||
            cox_clock_mono_ns() > begun_ns + TURN_NS_MAX)
            break;
        item = next_item(w, begun_ns + FILL_NS);
    }
    w->n_last = n;
    return err;
}

/* Were the state ahead of the log after a crash, it would hold what never happened. False when the store died
 * meanwhile. */
static bool wait_for_log(struct work *w)
{
    struct store_parker *p = &w->s->state_thread.parker;

    while (atomic_load(&w->s->durable_seq) < w->after_seq && !COX_PLANTED("state-ahead-of-log")) {
        atomic_store(&w->s->awaited_seq, w->after_seq);
        store_parker_prepare(p, STORE_SLEEPING);
        if (store_is_dead(w->s))
            return false;
        if (atomic_load(&w->s->durable_seq) < w->after_seq)
            store_parker_wait(p);
    }
    atomic_store(&w->s->awaited_seq, 0);
    return !store_is_dead(w->s);
}

static void answer(struct work *w)
{
    struct cox_store *s = w->s;

    for (size_t i = 0; i < w->n_held; i++)
        give(s, w->held[i]);
    if (w->n_held > 0)
        store_wake_owner(s);
    w->n_held = 0;
    w->after_seq = 0;
}

/* The index first: it must not fall behind the state. */
static enum cox_err sync_all(struct work *w, uint64_t seq)
{
    struct cox_store *s = w->s;
    uint64_t covers = seq > s->state.covered_seq ? seq : s->state.covered_seq;
    enum cox_err err = store_index_sync(&s->index, covers, &w->error);

    w->sync = false;
    s->state.dropped_seq = atomic_load(&s->dropped_seq);
    return err == COX_OK ? store_state_sync(&s->state, seq, &w->error) : err;
}

static bool commit(struct work *w)
{
    struct cox_store *s = w->s;

    return store_index_commit(&s->index, &w->error) == COX_OK &&
           store_state_commit(&s->state, &w->error) == COX_OK &&
           (!w->sync || sync_all(w, s->state.covered_seq) == COX_OK) && !store_is_dead(s);
}

static void give_log_thread(struct cox_store *s, struct store_item *item)
{
    bool pushed = cox_ring_push(s->truncates, item, NULL);

    COX_ASSERT(pushed);
    store_parker_wake(&s->log_thread.parker);
}

/* Only when the state is safe on disk does the log thread hear of the truncation. */
static enum cox_err pass_truncate_on(struct work *w)
{
    struct cox_store *s = w->s;
    enum cox_err err = COX_PLANTED("truncate-before-sync") ? COX_OK : sync_all(w, w->truncate->req.seq);

    if (err != COX_OK)
        return err;
    give_log_thread(s, w->truncate);
    w->truncate = NULL;
    return COX_OK;
}

/* ---- backup ---- */

/* The copy of the state must not lose the records that it does not cover. */
static enum cox_err truncate(struct work *w)
{
    if (!w->backing_up)
        return pass_truncate_on(w);
    w->parked[w->n_parked++] = w->truncate;
    w->truncate = NULL;
    return COX_OK;
}

static void backup_failed(struct work *w, enum cox_err err)
{
    store_copy_abandon(&w->copy);
    store_backup_end(&w->s->blobs);
    w->backup->answer = err;
    atomic_fetch_add_explicit(&w->s->read_bytes, w->backup->req.bytes.len, memory_order_relaxed);
    w->held[w->n_held++] = w->backup;
    w->backup = NULL;
    w->backing_up = false;
    answer(w);
}

/* A slice of the state's part: the database, then the blobs. */
static void backup_slice(struct work *w)
{
    struct cox_store *s = w->s;
    bool done = false;
    enum cox_err err = COX_OK;

    if (!w->backing_up) {
        w->backing_up = true;
        atomic_store(&s->backup_logged, false);
        cox_buf_clear(&w->backup->req.bytes);
        cox_buf_printf(&w->backup->req.bytes, "%s/backup", s->config.data_dir);
        err = store_backup_begin(&s->blobs, cox_buf_cstr(&w->backup->req.bytes));
        w->state_copied = false;
    }
    if (err == COX_OK && !store_backup_has_room(s))
        err = COX_ERR_FULL;
    if (err == COX_OK && !w->state_copied)
        err = store_copy_step(&w->copy, &s->state.db, cox_buf_cstr(&w->backup->req.bytes), &w->state_copied);
    else if (err == COX_OK)
        err = store_backup_link(&s->blobs, &done);
    if (err != COX_OK) {
        backup_failed(w, err);
    } else if (done) {
        give_log_thread(s, w->backup);
        w->backup = NULL;
    }
}

/* False when a truncation that waited for a backup failed. */
static bool backup_turn(struct work *w, bool *worked)
{
    if (w->backup && atomic_load(&w->s->state_thread.closing)) {
        backup_failed(w, COX_ERR_CANCELLED);
    } else if (w->backup) {
        *worked = true;
        backup_slice(w);
    }
    if (w->backing_up && !w->backup && atomic_load(&w->s->backup_logged))
        w->backing_up = false;
    if (w->backing_up)
        return true;
    for (size_t i = 0; i < w->n_parked; i++) {
        w->truncate = w->parked[i];
        if (pass_truncate_on(w) != COX_OK) {
            for (size_t j = i + 1; j < w->n_parked; j++)
                store_item_destroy(w->parked[j]);
            w->n_parked = 0;
            return false;
        }
    }
    w->n_parked = 0;
    return true;
}

/* False when it failed, with the reason in w->error unless the other thread died first. */
static bool transact(struct work *w, struct store_item *first)
{
    if (gather(w, first) != COX_OK || !wait_for_log(w) || !commit(w))
        return false;
    answer(w);
    return !w->truncate || truncate(w) == COX_OK;
}

/* A piece of it a turn, so that requests go on; not while closing. */
static bool make_index(struct work *w, bool *worked)
{
    struct cox_store *s = w->s;

    if (s->index.complete || atomic_load(&s->state_thread.closing))
        return true;
    *worked = true;
    return store_state_rebuild(s, &w->error) == COX_OK;
}

static bool turn(void *work, bool *ret_worked)
{
    struct work *w = work;
    struct store_item *item = cox_ring_pop(w->s->requests);

    *ret_worked = item;
    if (store_is_dead(w->s)) {
        store_item_destroy(item);
        return false;
    }
    if ((item && !transact(w, item)) || !make_index(w, ret_worked) || !backup_turn(w, ret_worked)) {
        store_die(w->s, cox_buf_cstr(&w->error));
        return false;
    }
    return true;
}

void *store_state_main(void *arg)
{
    struct cox_store *s = arg;
    struct work *w = COX_NEW(struct work);

    w->s = s;
    store_thread_loop(&s->state_thread, turn, w);
    if (!store_is_dead(s) && (store_index_flush(&s->index, STORE_FLUSH_ALL, &w->error) != COX_OK ||
                              store_index_commit(&s->index, &w->error) != COX_OK))
        store_die(s, cox_buf_cstr(&w->error));
    for (size_t i = 0; i < w->n_held; i++)
        store_item_destroy(w->held[i]);
    for (size_t i = 0; i < w->n_parked; i++)
        store_item_destroy(w->parked[i]);
    store_copy_abandon(&w->copy);
    store_item_destroy(w->backup);
    store_item_destroy(w->truncate);
    cox_buf_fini(&w->error);
    cox_free(w);
    return NULL;
}
