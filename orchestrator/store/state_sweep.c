/* What takes data away: deletion, retention, payloads that nobody owns. In pieces, so that nothing waits long
 * behind it. */
#include "state_sqlite.h"

#include "cox/base/units.h"

#define FRAMES_AT_ONCE 256
#define REFS_AT_ONCE 1024
#define ASIDE_AT_ONCE 256

static enum cox_err run_for(struct store_state *state, enum store_state_statement which, uint64_t id,
                            int limit, bool *ret_all, struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[which];

    store_bind_u64(st, 1, id);
    if (limit > 0)
        (void)sqlite3_bind_int(st, 2, limit);
    enum cox_err err = store_db_run(&state->db, st, "deleting a task", error);

    if (ret_all && sqlite3_changes(state->db.sql) == limit)
        *ret_all = false;
    return err;
}

static enum cox_err delete_piece(struct store_state *state, uint64_t id, uint64_t log_seq,
                                 struct cox_buf *error)
{
    bool all = true;
    sqlite3_stmt *st = state->st[STATE_NOTE_DELETED];
    enum cox_err err = run_for(state, STATE_DELETE_FRAMES, id, FRAMES_AT_ONCE, &all, error);

    if (err == COX_OK)
        err = run_for(state, STATE_DELETE_REFS, id, REFS_AT_ONCE, &all, error);
    if (err == COX_OK && state->n_quarantine > 0)
        err = run_for(state, STATE_DELETE_ASIDE, id, ASIDE_AT_ONCE, &all, error);
    if (err != COX_OK)
        return err;
    state->disowned = true;
    store_bind_u64(st, 1, id);
    store_bind_u64(st, 2, log_seq);
    (void)sqlite3_bind_int(st, 3, !all);
    return store_db_run(&state->db, st, "noting what is deleted", error);
}

enum cox_err store_state_delete(struct store_state *state, uint64_t id, uint64_t log_seq,
                                enum cox_err *ret_answer, struct cox_buf *error)
{
    bool there;

    store_bind_u64(state->st[STATE_FIND_ROOT], 1, id);
    enum cox_err err =
        store_db_find(&state->db, state->st[STATE_FIND_ROOT], "looking for a task", &there, error);

    *ret_answer = there ? COX_OK : COX_ERR_NOT_FOUND;
    if (err != COX_OK || !there)
        return err;
    err = run_for(state, STATE_DELETE_TASK, id, 0, NULL, error);
    if (err == COX_OK)
        err = run_for(state, STATE_DELETE_ENDED, id, 0, NULL, error);
    if (err == COX_OK)
        err = store_state_note_deleted_quarantine(state, id, log_seq, error);
    if (err == COX_OK)
        err = delete_piece(state, id, log_seq, error);
    if (err == COX_OK)
        state->n_deleted++;
    return err;
}

/* Steps a query for one (u64, u64); 0 when there is none. */
static enum cox_err next(struct store_state *state, sqlite3_stmt *st, uint64_t *ret_a, uint64_t *ret_b,
                         struct cox_buf *error)
{
    enum cox_err err = COX_OK;
    int rc = sqlite3_step(st);

    *ret_a = rc == SQLITE_ROW ? store_column_u64(st, 0) : 0;
    if (ret_b)
        *ret_b = rc == SQLITE_ROW ? store_column_u64(st, 1) : 0;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = store_db_failed(&state->db, "sweeping", error);
    (void)sqlite3_reset(st);
    return err;
}

/* Each of these does one piece; *ret_done when its phase has nothing more to do. */

static enum cox_err sweep_deleted(struct store_state *state, bool *ret_done, struct cox_buf *error)
{
    uint64_t id, seq;
    enum cox_err err = next(state, state->st[STATE_HALF_DELETED], &id, &seq, error);

    *ret_done = id == 0;
    return err == COX_OK && id != 0 ? delete_piece(state, id, seq, error) : err;
}

/* The next ended root by id, so nearly by age. No later one is old once one was created too late for it, for
 * created_wall_ms rises with the id. */
static enum cox_err next_ended(struct store_state *state, int64_t old_before_ms, uint64_t *ret_id,
                               bool *ret_old, struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[STATE_ENDED_AFTER];
    struct cox_label labels[COX_LABELS_MAX];
    struct cox_index_row row;
    enum cox_err err = COX_OK;

    *ret_id = 0;
    store_bind_u64(st, 1, state->sweep.old_id);
    int rc = sqlite3_step(st);

    if (rc == SQLITE_ROW) {
        struct cox_slice d = store_column_bytes(st, 2);
        bool late = cox_index_row_decode(d, &row, labels) == COX_OK && row.created_wall_ms >= old_before_ms;

        *ret_id = late ? 0 : store_column_u64(st, 0);
        *ret_old = sqlite3_column_int64(st, 1) < old_before_ms;
    } else if (rc != SQLITE_DONE) {
        err = store_db_failed(&state->db, "sweeping", error);
    }
    (void)sqlite3_reset(st);
    return err;
}

static enum cox_err sweep_old(struct store_state *state, const struct store_sweeping *w, uint64_t *n_swept,
                              bool *ret_done, struct cox_buf *error)
{
    uint64_t id;
    enum cox_err answer;
    bool old = false, live = false;
    enum cox_err err = next_ended(state, w->old_before_ms, &id, &old, error);

    *ret_done = id == 0;
    if (err != COX_OK || id == 0)
        return err;
    state->sweep.old_id = id;
    if (old)
        err = w->live(w->user, id, &live);
    if (err != COX_OK || !old || live)
        return err;
    err = store_state_delete(state, id, w->log_seq, &answer, error);
    if (err == COX_OK)
        err = w->gone(w->user, id);
    ++*n_swept;
    return err;
}

static enum cox_err sweep_payload(struct store_state *state, const struct store_sweeping *w,
                                  uint64_t *n_swept, bool *ret_done, struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[STATE_NEXT_PAYLOAD];
    uint64_t at;

    store_bind_u64(st, 1, state->sweep.payload);
    enum cox_err err = next(state, st, &at, NULL, error);

    *ret_done = at == 0;
    state->sweep.payload = at;
    if (err != COX_OK || at == 0)
        return err;
    st = state->st[STATE_DELETE_PAYLOAD];
    store_bind_u64(st, 1, at);
    (void)sqlite3_bind_int64(st, 2, w->unowned_before_ms);
    err = store_db_run(&state->db, st, "sweeping a payload", error);
    *n_swept += (uint64_t)sqlite3_changes(state->db.sql);
    return err;
}

enum cox_err store_state_sweep(struct store_state *state, const struct store_sweeping *w,
                               uint64_t *ret_n_swept, bool *ret_done, struct cox_buf *error)
{
    enum cox_err err = COX_OK;

    *ret_n_swept = 0;
    while (err == COX_OK && state->sweep.phase != SWEEP_BLOBS && cox_clock_mono_ns() < w->until_ns) {
        bool done = true;

        if (state->sweep.phase == SWEEP_DELETED)
            err = sweep_deleted(state, &done, error);
        else if (state->sweep.phase == SWEEP_PAYLOADS)
            err = sweep_payload(state, w, ret_n_swept, &done, error);
        else if (w->old_before_ms != INT64_MIN)
            err = sweep_old(state, w, ret_n_swept, &done, error);
        if (done)
            state->sweep.phase++;
    }
    *ret_done = state->sweep.phase == SWEEP_BLOBS;
    return err;
}

enum cox_err store_state_is_owned(struct store_state *state, const struct cox_hash *hash, bool for_ever,
                                  bool *ret, struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[STATE_FIND_REF];

    store_bind_bytes(st, 1, cox_slice(hash->b, sizeof(hash->b)));
    (void)sqlite3_bind_int(st, 2, !for_ever);
    return store_db_find(&state->db, st, "looking for an owner", ret, error);
}

/* ---- what the index is made from again ---- */

enum cox_err store_state_put_ended(struct store_state *state, uint64_t id, struct cox_slice row,
                                   struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[STATE_PUT_ENDED];

    store_bind_u64(st, 1, id);
    (void)sqlite3_bind_int64(st, 2, cox_clock_wall_ms());
    store_bind_bytes(st, 3, row);
    return store_db_run(&state->db, st, "noting a task's end", error);
}

enum cox_err store_state_next_ended(struct store_state *state, uint64_t id, uint64_t *ret_id,
                                    struct cox_buf *ret_row, struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[STATE_NEXT_ENDED];
    enum cox_err err = COX_OK;

    store_bind_u64(st, 1, id);
    int rc = sqlite3_step(st);

    cox_buf_clear(ret_row);
    if (rc == SQLITE_ROW) {
        *ret_id = store_column_u64(st, 0);
        cox_buf_append_slice(ret_row, store_column_bytes(st, 1));
    } else {
        err =
            rc == SQLITE_DONE ? COX_ERR_NOT_FOUND : store_db_failed(&state->db, "reading ended tasks", error);
    }
    (void)sqlite3_reset(st);
    return err;
}
