/* What belongs to tasks that recovery leaves alone: their entities and records, until somebody lifts the
 * quarantine or deletes the task. */
#include "state_sqlite.h"

#include "row.h"

#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <inttypes.h>

#define KEPT "(" STORE_QUARANTINE_KEPT "," STORE_QUARANTINE_UNREAD ")"

/* Runs a statement that is seldom needed, with an id; and a text behind it, if there is one. */
static enum cox_err run_once(struct store_state *state, const char *text, uint64_t id, const char *why,
                             int *ret_changes, struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    enum cox_err err = store_db_prepare(&state->db, text, &st, error);

    if (err != COX_OK)
        return err;
    store_bind_u64(st, 1, id);
    if (why) {
        (void)sqlite3_bind_text(st, 2, why, -1, SQLITE_TRANSIENT);
        (void)sqlite3_bind_int64(st, 3, cox_clock_wall_ms());
    }
    err = store_db_run(&state->db, st, "changing a quarantine", error);
    if (ret_changes)
        *ret_changes = sqlite3_changes(state->db.sql);
    (void)sqlite3_finalize(st);
    return err;
}

enum cox_err store_state_count_quarantine(struct store_state *state, struct cox_buf *error)
{
    return store_db_query_u64(&state->db, "SELECT count(*) FROM quarantine", &state->n_quarantine, error);
}

/* A second time, it was not enough to leave it alone: it is not even to be looked into. */
static const char add[] =
    "INSERT INTO quarantine(id, state, seq, since_ms, why) VALUES(?1, " STORE_QUARANTINE_KEPT ", 0, ?3, ?2)"
    " ON CONFLICT DO UPDATE SET since_ms = ?3, why = ?2, state = CASE state"
    " WHEN " STORE_QUARANTINE_LIFTED " THEN " STORE_QUARANTINE_KEPT " WHEN " STORE_QUARANTINE_KEPT
    " THEN " STORE_QUARANTINE_UNREAD " ELSE state END";

enum cox_err store_state_quarantine(struct store_state *state, uint64_t root, const char *why,
                                    struct cox_buf *error)
{
    enum cox_err err = run_once(state, add, root, why, NULL, error);

    return err == COX_OK ? store_state_count_quarantine(state, error) : err;
}

static enum cox_err lift(struct store_state *state, uint64_t root, enum cox_err *ret_answer,
                         struct cox_buf *error)
{
    int changes = 0;
    enum cox_err err = run_once(
        state, "UPDATE quarantine SET state = " STORE_QUARANTINE_LIFTED " WHERE id = ?1 AND state IN " KEPT,
        root, NULL, &changes, error);

    *ret_answer = changes > 0 ? COX_OK : COX_ERR_NOT_FOUND;
    if (err == COX_OK && changes > 0)
        err = run_once(state,
                       "REPLACE INTO entity(kind, id, sub, applied_seq, crc, d)"
                       " SELECT kind, id, sub, seq, crc, d FROM aside WHERE root = ?1 AND kind != 0",
                       root, NULL, NULL, error);
    if (err == COX_OK && changes > 0)
        err = run_once(state, "DELETE FROM aside WHERE root = ?1 AND kind != 0", root, NULL, NULL, error);
    return err;
}

enum cox_err store_state_lift(struct store_state *state, uint64_t root, enum cox_err *ret_answer,
                              struct cox_buf *error)
{
    enum cox_err err = store_state_begin(state, error);

    if (err == COX_OK)
        err = lift(state, root, ret_answer, error);
    if (err == COX_OK)
        err = store_state_commit(state, error);
    return err == COX_OK ? store_state_sync(state, 0, error) : err;
}

enum cox_err store_state_set_aside(struct store_state *state, const struct cox_store_request *req,
                                   struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[req->key.kind ? STATE_MOVE_ASIDE : STATE_PUT_ASIDE];
    struct cox_slice bytes = cox_buf_slice(&req->bytes);

    store_bind_u64(st, 1, req->owner);
    if (req->key.kind == 0) {
        store_bind_u64(st, 2, req->seq);
        (void)sqlite3_bind_int64(st, 3, store_crc(bytes));
        store_bind_bytes(st, 4, bytes);
        return store_db_run(&state->db, st, "keeping a record", error);
    }
    (void)sqlite3_bind_int(st, 2, req->key.kind);
    store_bind_u64(st, 3, req->key.id);
    (void)sqlite3_bind_int64(st, 4, req->key.sub);
    enum cox_err err = store_db_run(&state->db, st, "keeping an entity", error);

    st = state->st[STATE_FORGET];
    (void)sqlite3_bind_int(st, 1, req->key.kind);
    store_bind_u64(st, 2, req->key.id);
    (void)sqlite3_bind_int64(st, 3, req->key.sub);
    return err == COX_OK ? store_db_run(&state->db, st, "forgetting an entity", error) : err;
}

enum cox_err store_state_note_deleted_quarantine(struct store_state *state, uint64_t id, uint64_t log_seq,
                                                 struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[STATE_DELETE_QUARANTINE];

    if (state->n_quarantine == 0)
        return COX_OK;
    store_bind_u64(st, 1, id);
    store_bind_u64(st, 2, log_seq);
    return store_db_run(&state->db, st, "deleting a task", error);
}

/* What was lifted is in the entities that the checkpoint has saved; what was deleted, the log cannot bring
 * back any more. */
enum cox_err store_state_forget_quarantine(struct store_state *state, struct cox_buf *error)
{
    enum cox_err err;

    if (state->n_quarantine == 0 || COX_PLANTED("lifted-never-forgotten"))
        return COX_OK;
    err = run_once(state,
                   "DELETE FROM aside WHERE root IN"
                   " (SELECT id FROM quarantine WHERE state = " STORE_QUARANTINE_LIFTED " AND ?1 >= 0)",
                   0, NULL, NULL, error);
    if (err == COX_OK)
        err = run_once(state,
                       "DELETE FROM quarantine WHERE state = " STORE_QUARANTINE_LIFTED
                       " OR (state = " STORE_QUARANTINE_DELETED " AND seq <= ?1"
                       " AND NOT EXISTS(SELECT 1 FROM aside WHERE root = quarantine.id))",
                       state->dropped_seq, NULL, NULL, error);
    return err == COX_OK ? store_state_count_quarantine(state, error) : err;
}

/* ---- recovery ---- */

static enum cox_err tell_quarantine(struct store_state *state, const struct cox_store_recovery *r,
                                    struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    int rc = SQLITE_DONE;
    enum cox_err err =
        store_db_prepare(&state->db,
                         "SELECT id, state = " STORE_QUARANTINE_UNREAD ", state = " STORE_QUARANTINE_DELETED
                         ", EXISTS(SELECT 1 FROM archive WHERE archive.id = quarantine.id), why"
                         " FROM quarantine WHERE state != " STORE_QUARANTINE_LIFTED " ORDER BY id",
                         &st, error);

    while (err == COX_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        const struct cox_store_quarantined q = {
            .root = store_column_u64(st, 0),
            .unread = sqlite3_column_int(st, 1) != 0,
            .deleted = sqlite3_column_int(st, 2) != 0,
            .archived = sqlite3_column_int(st, 3) != 0,
            .why = store_column_bytes(st, 4),
        };
        if (r->quarantined)
            r->quarantined(r->user, &q);
    }
    if (err == COX_OK && rc != SQLITE_DONE)
        err = store_db_failed(&state->db, "reading the quarantine", error);
    (void)sqlite3_finalize(st);
    return err;
}

enum cox_err store_state_tell_quarantine(struct store_state *state, const struct cox_store_recovery *r,
                                         struct cox_buf *error)
{
    return state->n_quarantine > 0 ? tell_quarantine(state, r, error) : COX_OK;
}

static enum cox_err scan_record(struct store_state *state, sqlite3_stmt *st,
                                const struct cox_store_recovery *r, struct cox_buf *error)
{
    uint64_t seq = store_column_u64(st, 0);
    struct cox_slice bytes = store_column_bytes(st, 2);
    bool whole = (uint32_t)sqlite3_column_int64(st, 1) == store_crc(bytes);
    enum cox_err err = whole ? r->batch(r->user, seq, 1, bytes) : COX_ERR_CORRUPT;

    if (err != COX_OK)
        cox_buf_printf(error, "%s: record %" PRIu64 " that was kept aside: %s", state->db.path, seq,
                       whole ? "it was not accepted" : "its checksum does not match");
    return err;
}

enum cox_err store_state_scan_aside(struct store_state *state, uint64_t dropped_seq,
                                    const struct cox_store_recovery *r, struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    int rc = SQLITE_DONE;
    enum cox_err err = COX_OK;

    if (state->n_quarantine == 0)
        return COX_OK;
    err = store_db_prepare(&state->db,
                           "SELECT aside.id, crc, d FROM aside JOIN quarantine ON aside.root = quarantine.id"
                           " WHERE kind = 0 AND state = " STORE_QUARANTINE_LIFTED " AND aside.id <= ?1"
                           " ORDER BY aside.id",
                           &st, error);
    if (err == COX_OK)
        store_bind_u64(st, 1, dropped_seq);
    while (err == COX_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
        err = scan_record(state, st, r, error);
    if (err == COX_OK && rc != SQLITE_DONE)
        err = store_db_failed(&state->db, "reading what was kept aside", error);
    (void)sqlite3_finalize(st);
    return err;
}
