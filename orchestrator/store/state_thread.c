/* The state thread: requests in the order given, many in one transaction. A transaction ends when nothing
 * waits, or when it is large or old enough; its events go out after its commit. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#define TURN_ITEMS_MAX 4096u
#define TURN_BYTES_MAX (16u << 20)
#define TURN_NS_MAX 10000000 /* a read that comes during a transaction is answered at its end */

struct work {
    struct cox_store *s;
    struct cox_buf error;
    struct store_item *held[TURN_ITEMS_MAX]; /* owed to the owner after the commit */
    size_t n_held;
    struct store_item *truncate; /* ends its transaction */
    bool sync;                   /* what it answers must survive a power cut: no log has it */
    uint64_t after_seq;          /* the log must have this before the transaction commits */
};

static enum cox_err take(struct work *w, struct store_item *item)
{
    struct cox_store *s = w->s;
    enum cox_store_op op = item->req.op;
    enum cox_err err = COX_OK;

    atomic_fetch_sub_explicit(&s->request_bytes, store_item_weight(item), memory_order_relaxed);
    if (item->req.seq > w->after_seq)
        w->after_seq = item->req.seq;
    if (op == COX_STORE_TRUNCATE) {
        w->truncate = item;
        return COX_OK;
    }
    err = store_state_work(s, item, &w->error);
    if (op == COX_STORE_DELETE && item->answer == COX_OK)
        w->sync = true;
    if (store_op_reads(op))
        atomic_fetch_add_explicit(&s->read_bytes, item->req.bytes.len, memory_order_relaxed);
    if (store_op_answers(op))
        w->held[w->n_held++] = item;
    else
        store_item_destroy(item);
    return err;
}

/* Applies what waits, `item` being the first. */
static enum cox_err gather(struct work *w, struct store_item *item)
{
    int64_t until_ns = cox_clock_mono_ns() + TURN_NS_MAX;
    enum cox_err err = store_state_begin(&w->s->state, &w->error);
    size_t bytes = 0;

    for (size_t n = 1; item; n++) {
        bytes += store_item_weight(item);
        if (err == COX_OK)
            err = take(w, item);
        else
            store_item_destroy(item);
        if (err != COX_OK || w->truncate || n == TURN_ITEMS_MAX || bytes > TURN_BYTES_MAX ||
            cox_clock_mono_ns() > until_ns)
            break;
        item = cox_ring_pop(w->s->requests);
    }
    return err;
}

/* Were the state ahead of the log after a crash, it would hold what never happened. False when the store died
 * meanwhile. */
static bool wait_for_log(struct work *w)
{
    struct store_parker *p = &w->s->state_thread.parker;

    while (atomic_load(&w->s->durable_seq) < w->after_seq) {
        atomic_store(&w->s->awaited_seq, w->after_seq);
        store_parker_prepare(p);
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

    for (size_t i = 0; i < w->n_held; i++) {
        bool pushed = cox_ring_push(s->state_done, w->held[i], NULL);

        COX_ASSERT(pushed);
    }
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
    return err == COX_OK ? store_state_sync(&s->state, seq, &w->error) : err;
}

static bool commit(struct work *w)
{
    struct cox_store *s = w->s;

    return store_index_commit(&s->index, &w->error) == COX_OK &&
           store_state_commit(&s->state, &w->error) == COX_OK &&
           (!w->sync || sync_all(w, s->state.covered_seq) == COX_OK) && !store_is_dead(s);
}

/* Only when the state is safe on disk does the log thread hear of the truncation. */
static enum cox_err pass_truncate_on(struct work *w)
{
    struct cox_store *s = w->s;
    enum cox_err err = sync_all(w, w->truncate->req.seq);

    if (err != COX_OK)
        return err;
    bool pushed = cox_ring_push(s->truncates, w->truncate, NULL);

    COX_ASSERT(pushed);
    w->truncate = NULL;
    store_parker_wake(&s->log_thread.parker);
    return COX_OK;
}

/* False when it failed, with the reason in w->error unless the other thread died first. */
static bool transact(struct work *w, struct store_item *first)
{
    if (gather(w, first) != COX_OK || !wait_for_log(w) || !commit(w))
        return false;
    answer(w);
    return !w->truncate || pass_truncate_on(w) == COX_OK;
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
    if ((item && !transact(w, item)) || !make_index(w, ret_worked)) {
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
    if (!store_is_dead(s) && (store_index_flush(&s->index, &w->error) != COX_OK ||
                              store_index_commit(&s->index, &w->error) != COX_OK))
        store_die(s, cox_buf_cstr(&w->error));
    for (size_t i = 0; i < w->n_held; i++)
        store_item_destroy(w->held[i]);
    store_item_destroy(w->truncate);
    cox_buf_fini(&w->error);
    cox_free(w);
    return NULL;
}
