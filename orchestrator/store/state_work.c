/* What the state thread does for each request: the state, the index beside it, and the blobs. */
#include "internal.h"

#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <stdatomic.h>
#include <string.h>

#define SWEEP_NS 5000000   /* of one slice */
#define REBUILD_NS 5000000 /* likewise */

struct sweeping {
    struct cox_store *s;
    struct cox_slice in_use;
    struct cox_buf *error;
};

/* Its bytes have been read, and its row as a live task comes behind this. */
static bool is_in_use(const struct sweeping *w, uint64_t id)
{
    struct cox_reader in = cox_reader(w->in_use);
    bool found = false;

    while (!found && cox_reader_left(&in) >= sizeof(id))
        found = cox_get_u64(&in) == id;
    return found && !COX_PLANTED("sweeps-what-is-in-use");
}

static enum cox_err is_live(void *user, uint64_t id, bool *ret)
{
    struct sweeping *w = user;
    uint8_t status;
    enum cox_err err = store_index_status(&w->s->index, id, &status, w->error);

    *ret = status == COX_TASK_PENDING || is_in_use(w, id);
    return err;
}

static enum cox_err on_gone(void *user, uint64_t id)
{
    struct sweeping *w = user;

    return store_index_remove(&w->s->index, id, w->error);
}

/* Bundles of templates and schedules are kept for ever, by their hash, whosever they are. A task keeps what
 * is in its own space alone: else how long a tenant's blob stays would tell what another has. */
static enum cox_err is_owned(void *user, const struct store_blob_name *name, bool *ret)
{
    struct sweeping *w = user;
    enum cox_err err = store_state_is_owned(&w->s->state, &name->key, false, ret, w->error);

    if (err == COX_OK && !*ret)
        err = store_state_is_owned(&w->s->state, &name->hash, !COX_PLANTED("kept-by-anybody"), ret, w->error);
    return err;
}

static enum cox_err sweep(struct cox_store *s, struct cox_store_request *req, struct cox_buf *error)
{
    int64_t now_ms = cox_clock_wall_ms();
    int64_t until_ns = cox_clock_mono_ns() + SWEEP_NS, retention_ms = atomic_load(&s->retention_ms);
    struct sweeping user = { s, cox_buf_slice(&req->bytes), error };
    const struct store_sweeping w = {
        .old_before_ms = retention_ms > 0 ? now_ms - retention_ms : INT64_MIN,
        .unowned_before_ms = now_ms - s->unowned_ms,
        .until_ns = until_ns,
        .log_seq = atomic_load(&s->durable_seq),
        .user = &user,
        .live = is_live,
        .gone = on_gone,
    };
    uint64_t n_swept = 0, n_removed = 0;
    bool done = false;
    enum cox_err err = COX_OK;

    /* Who is live is in the index. */
    if (s->index.complete)
        err = store_state_sweep(&s->state, &w, &n_swept, &done, error);
    if (err == COX_OK && done && s->state.disowned) {
        done = false; /* once that is synced */
    } else if (err == COX_OK && done) {
        err = store_blobs_sweep(&s->blobs, w.unowned_before_ms, until_ns, is_owned, &user, &done, &n_removed);
        if (err == COX_OK && done)
            s->state.sweep = (struct store_sweep){ 0 };
    }
    atomic_fetch_add_explicit(&s->n_swept, n_swept + n_removed, memory_order_relaxed);
    req->id = !done;
    return err;
}

/* Recovery says all of them again: the row of a live task never changes, so the file may have it. */
static enum cox_err index_live(struct cox_store *s, const struct cox_index_row *row, struct cox_slice bytes,
                               struct cox_buf *error)
{
    uint8_t status = 0;
    enum cox_err err = COX_OK;

    if (row->id <= s->index.max_id)
        err = store_index_status(&s->index, row->id, &status, error);
    if (err != COX_OK || status == COX_TASK_PENDING)
        return err;
    return store_index_hold(&s->index, row->id, bytes, error);
}

static enum cox_err index_task(struct cox_store *s, struct cox_store_request *req, struct cox_buf *error)
{
    struct cox_label labels[COX_LABELS_MAX];
    struct cox_index_row row;
    bool deleted;

    COX_ASSERT(cox_index_row_decode(cox_buf_slice(&req->bytes), &row, labels) == COX_OK && row.id == req->id);
    enum cox_err err = store_state_is_deleted(&s->state, req->id, &deleted, error);

    if (err != COX_OK || deleted)
        return err;
    if (!cox_task_status_final(row.status))
        return index_live(s, &row, cox_buf_slice(&req->bytes), error);
    err = store_index_put(&s->index, &row, cox_buf_slice(&req->bytes), error);
    if (err == COX_OK)
        err = store_state_put_ended(&s->state, req->id, cox_buf_slice(&req->bytes), error);
    return err;
}

/* The log has the task's records up to what is durable, or to what the request waits for. */
static enum cox_err delete_task(struct cox_store *s, struct store_item *item, struct cox_buf *error)
{
    uint64_t durable_seq = atomic_load(&s->durable_seq);
    uint64_t log_seq = item->req.seq > durable_seq ? item->req.seq : durable_seq;
    enum cox_err err = store_state_delete(&s->state, item->req.id, log_seq, &item->answer, error);

    if (err == COX_OK && item->answer == COX_OK)
        err = store_index_remove(&s->index, item->req.id, error);
    return err;
}

static enum cox_err dispatch(struct cox_store *s, struct store_item *item, struct cox_buf *error)
{
    struct cox_store_request *req = &item->req;
    enum cox_err err;

    item->answer = COX_OK;
    switch (req->op) {
    case COX_STORE_INDEX:
        return index_task(s, req, error);
    case COX_STORE_LIST:
        return store_index_list(&s->index, req, &item->answer, error);
    case COX_STORE_DELETE:
        return delete_task(s, item, error);
    case COX_STORE_BACKUP: /* there is one already */
        item->answer = COX_ERR_UNAVAILABLE;
        return COX_OK;
    case COX_STORE_SWEEP:
        return sweep(s, req, error);
    case COX_STORE_ARCHIVE:
        atomic_fetch_add_explicit(&s->n_archived, 1, memory_order_relaxed);
        return store_state_apply(&s->state, req, &item->answer, error);
    case COX_STORE_READ_PAYLOAD:
        err = store_state_apply(&s->state, req, &item->answer, error);
        if (err == COX_OK && item->answer == COX_ERR_NOT_FOUND)
            item->answer =
                store_blobs_load(&s->blobs, &req->space, &req->hash, COX_MAP_ITEMS_LEN_MAX, &req->bytes);
        return err;
    default:
        return store_state_apply(&s->state, req, &item->answer, error);
    }
}

/* Damage of the index ends the process, as damage of the state does; but this is mended by the next start. */
static enum cox_err mend(struct cox_store *s, enum cox_err err, struct cox_buf *error)
{
    if (err == COX_ERR_CORRUPT && s->index.db.path &&
        strncmp(cox_buf_cstr(error), s->index.db.path, strlen(s->index.db.path)) == 0)
        store_index_discard(&s->index);
    return err;
}

enum cox_err store_state_work(struct cox_store *s, struct store_item *item, struct cox_buf *error)
{
    return mend(s, dispatch(s, item, error), error);
}

/* Newest first, so that most of what is asked for is there early; what the index has by now is newer. */
static enum cox_err rebuild(struct cox_store *s, struct cox_buf *error)
{
    int64_t until_ns = cox_clock_mono_ns() + REBUILD_NS;
    struct store_index *index = &s->index;
    struct cox_buf bytes = { 0 };
    enum cox_err err = COX_OK;

    while (err == COX_OK && !index->complete && cox_clock_mono_ns() < until_ns) {
        struct cox_label labels[COX_LABELS_MAX];
        struct cox_index_row row;
        uint64_t id = 0;
        uint8_t status = 0;

        err = store_state_next_ended(&s->state, index->rebuild_at, &id, &bytes, error);
        index->complete = err == COX_ERR_NOT_FOUND;
        if (err == COX_OK)
            err = store_index_status(index, id, &status, error);
        if (err == COX_OK && status == 0 &&
            cox_index_row_decode(cox_buf_slice(&bytes), &row, labels) == COX_OK && row.id == id)
            err = store_index_put(index, &row, cox_buf_slice(&bytes), error);
        index->rebuild_at = id;
        err = err == COX_ERR_NOT_FOUND ? COX_OK : err;
    }
    if (err == COX_OK)
        err = store_index_commit(index, error);
    cox_buf_fini(&bytes);
    return err;
}

enum cox_err store_state_rebuild(struct cox_store *s, struct cox_buf *error)
{
    return s->index.complete ? COX_OK : mend(s, rebuild(s, error), error);
}
