/* The log thread: whatever waits becomes one row and one commit. While a commit runs the next batches gather,
 * so a slow disk makes rows larger, not the queue longer; nothing is ever delayed to fill a row. */
#include "internal.h"

#include "row.h"

#include "cox/base/plant.h"
#include "cox/base/units.h"

/* A row takes further batches until it is this long; a buffer grown far beyond it is given back. */
#define ROW_LEN_ENOUGH (8u << 20)

struct work {
    struct cox_store *s;
    struct cox_buf row; /* reused */
    struct cox_buf error;
    struct store_item *truncate; /* the one being done; or a backup */
    struct store_copy copy;
};

static void publish(struct cox_store *s, uint64_t last_seq, uint32_t n, size_t len, int64_t took_ns)
{
    atomic_fetch_add_explicit(&s->commits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->records, n, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->log_bytes, len, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->commit_ns_total, (uint64_t)took_ns, memory_order_relaxed);
    atomic_store(&s->durable_seq, last_seq);
    store_wake_owner(s);
    uint64_t awaited = atomic_load(&s->awaited_seq);
    if (awaited != 0 && awaited <= last_seq)
        store_parker_wake(&s->state_thread.parker);
}

/* Commits the batches that wait, `batch` being the first. False when that failed. */
static bool commit(struct work *w, struct store_batch *batch)
{
    struct cox_store *s = w->s;
    uint64_t first_seq = batch->first_seq;
    uint32_t n = 0;
    int64_t begun_ns = cox_clock_mono_ns();

    store_row_begin(&w->row);
    while (batch) {
        COX_ASSERT(batch->first_seq == first_seq + n && batch->n <= UINT32_MAX - n);
        n += batch->n;
        cox_buf_append_slice(&w->row, cox_buf_slice(&batch->records));
        atomic_fetch_sub_explicit(&s->batch_bytes, batch->records.len, memory_order_relaxed);
        store_batch_destroy(batch);
        batch = w->row.len < ROW_LEN_ENOUGH ? cox_ring_pop(s->batches) : NULL;
    }
    store_row_end(&w->row, first_seq, n);

    uint64_t last_seq = first_seq + n - 1;
    enum cox_err err = store_log_append(&s->log, last_seq, cox_buf_slice(&w->row), &w->error);

    if (err != COX_OK && COX_PLANTED("retried-commit"))
        err = store_log_append(&s->log, last_seq, cox_buf_slice(&w->row), &w->error);
    if (err != COX_OK || store_is_dead(s))
        return false;
    publish(s, last_seq, n, w->row.len, cox_clock_mono_ns() - begun_ns);
    cox_buf_clear(&w->row);
    if (w->row.cap > 2 * ROW_LEN_ENOUGH)
        cox_buf_fini(&w->row);
    return true;
}

static void done(struct work *w)
{
    bool pushed = cox_ring_push(w->s->log_done, w->truncate, NULL);

    COX_ASSERT(pushed);
    w->truncate = NULL;
    store_wake_owner(w->s);
}

/* A slice of the log's copy. Whatever becomes of it, the log itself is as it was. */
static void copy(struct work *w)
{
    struct cox_store *s = w->s;
    struct store_item *item = w->truncate;
    bool whole = false;

    if (atomic_load(&s->log_thread.closing)) {
        store_copy_abandon(&w->copy);
        item->answer = COX_ERR_CANCELLED;
    } else if (!store_backup_has_room(s)) {
        store_copy_abandon(&w->copy);
        item->answer = COX_ERR_FULL;
    } else {
        item->answer = store_copy_step(&w->copy, &s->log.db, cox_buf_cstr(&item->req.bytes), &whole);
    }
    if (item->answer == COX_OK && !whole)
        return;
    pthread_mutex_lock(&s->blobs.mutex);
    if (item->answer == COX_OK)
        item->answer = s->blobs.backup_err;
    pthread_mutex_unlock(&s->blobs.mutex);
    item->req.id = atomic_load(&s->durable_seq);
    store_backup_end(&s->blobs);
    atomic_fetch_add_explicit(&s->read_bytes, item->req.bytes.len, memory_order_relaxed);
    done(w);
    atomic_store(&s->backup_logged, true);
    store_parker_wake(&s->state_thread.parker);
}

/* One bounded step of the truncation at hand. False when it failed. */
static bool drop(struct work *w)
{
    struct cox_store *s = w->s;
    bool more = false;

    if (w->truncate->req.op == COX_STORE_BACKUP) {
        copy(w);
        return true;
    }
    if (store_log_drop(&s->log, w->truncate->req.seq + COX_PLANTED("dropped-one-more"), &more, &w->error) !=
            COX_OK ||
        store_is_dead(s))
        return false;
    if (!more) {
        /* A row goes as a whole: one that reaches beyond what was asked for is still there. */
        atomic_store(&s->dropped_seq,
                     COX_PLANTED("dropped-as-asked") ? w->truncate->req.seq : s->log.dropped_seq);
        done(w);
    }
    return true;
}

/* One commit and one step of a truncation, so that neither keeps the other waiting. */
static bool turn(void *work, bool *ret_worked)
{
    struct work *w = work;
    struct store_batch *batch = cox_ring_pop(w->s->batches);

    if (!w->truncate)
        w->truncate = cox_ring_pop(w->s->truncates);
    *ret_worked = batch || w->truncate;
    if (store_is_dead(w->s)) {
        store_batch_destroy(batch);
        return false;
    }
    if ((batch && !commit(w, batch)) || (w->truncate && !drop(w))) {
        store_die(w->s, cox_buf_cstr(&w->error));
        return false;
    }
    return true;
}

void *store_log_main(void *arg)
{
    struct work w = { .s = arg };

    store_thread_loop(&w.s->log_thread, turn, &w);
    store_copy_abandon(&w.copy);
    store_item_destroy(w.truncate);
    cox_buf_fini(&w.row);
    cox_buf_fini(&w.error);
    return NULL;
}
