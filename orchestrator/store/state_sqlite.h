/* state.db: checkpointed entities, payloads, and the archive of finished tasks.
 *
 *   entity(kind, id, sub, applied_seq, crc, d)   PRIMARY KEY(kind, id, sub), WITHOUT ROWID
 *   payload(hash, crc, created_ms, d)            rows in order of arrival, an index finds the hash
 *   ref(owner, hash)                             whose payloads and blobs are whose; owner 0: kept for ever
 *   archive(id INTEGER PRIMARY KEY, crc, d, root)
 *                                                ids rise, so new tasks are appended to the tree; root: of a
 *                                                frame, else 0
 *   ended(id, ended_ms, d)                       index rows of ended roots: what index.db is made from again;
 *                                                no d: archived by format 1
 *   deleted(id, seq, more)                       deleted roots that the log (up to seq) may bring back; more:
 *                                                not all that belongs to it is gone yet
 *   covered(one, seq, syncs)                     the log may be dropped up to seq
 *   quarantine(id, state, seq, since_ms, why)    roots that recovery leaves alone; DELETED: until the log is
 *                                                cut behind seq
 *   aside(root, kind, id, sub, seq, crc, d)      what belongs to them: entities, with their applied_seq, and
 *                                                records of the log: kind 0, id and seq are the record's
 *
 * Commits are not synced one by one (synchronous=NORMAL): a power cut may undo the newest, and the log still
 * has what they held. store_state_sync makes everything before it survive, before the log is dropped.
 *
 * Thread: the state's, or the owner before the threads start.
 */
#ifndef COX_STORE_STATE_SQLITE_H
#define COX_STORE_STATE_SQLITE_H

#include "db.h"

#include "cox/store.h"

enum store_state_statement {
    STATE_BEGIN,
    STATE_COMMIT,
    STATE_SAVE,
    STATE_FORGET,
    STATE_ARCHIVE,
    STATE_PUT_PAYLOAD,
    STATE_OWN,
    STATE_OWN_ALL,
    STATE_READ_ARCHIVE,
    STATE_READ_PAYLOAD,
    STATE_READ_ENTITY,
    STATE_PUT_ENDED,
    STATE_NEXT_ENDED,
    STATE_FIND_DELETED,
    STATE_FORGET_DELETED,
    STATE_FIND_ROOT,
    STATE_NOTE_DELETED,
    STATE_DELETE_TASK,
    STATE_DELETE_FRAMES,
    STATE_DELETE_REFS,
    STATE_DELETE_ENDED,
    STATE_HALF_DELETED,
    STATE_ENDED_AFTER,
    STATE_NEXT_PAYLOAD,
    STATE_DELETE_PAYLOAD,
    STATE_FIND_REF,
    STATE_COVER,
    STATE_PUT_ASIDE,
    STATE_MOVE_ASIDE,
    STATE_DELETE_ASIDE,
    STATE_DELETE_QUARANTINE,
    STATE_STATEMENT_NR
};

/* Where the sweep stands; it begins anew with the process. */
struct store_sweep {
    enum { SWEEP_DELETED, SWEEP_OLD, SWEEP_PAYLOADS, SWEEP_BLOBS } phase;
    uint64_t old_id;  /* of the last root looked at */
    uint64_t payload; /* rowid */
};

struct store_state {
    struct store_db db;
    sqlite3_stmt *st[STATE_STATEMENT_NR];
    uint64_t covered_seq;
    uint64_t n_deleted;
    uint64_t n_quarantine; /* rows, whatever their state */
    uint64_t dropped_seq;  /* of the log, as the last sync was told */
    struct store_sweep sweep;
    /* Owners went since the last sync: a crash would bring them back, and they want their blobs. */
    bool disowned;
};

/* dir NULL: in memory. Errors: as store_db_open. */
COX_MUST_CHECK enum cox_err store_state_open(struct store_state *state, const char *dir,
                                             const struct store_tuning *tuning,
                                             struct store_identity *identity, struct cox_buf *error);
void store_state_close(struct store_state *state, bool clean);

COX_MUST_CHECK enum cox_err store_state_begin(struct store_state *state, struct cox_buf *error);
COX_MUST_CHECK enum cox_err store_state_commit(struct store_state *state, struct cox_buf *error);

/* Does one request other than TRUNCATE, inside a transaction. A read replaces req->bytes by what it found and
 * says COX_ERR_NOT_FOUND or COX_ERR_CORRUPT in *ret_answer; everything else answers COX_OK.
 * Errors: COX_ERR_IO and the like, when the database failed. */
COX_MUST_CHECK enum cox_err store_state_apply(struct store_state *state, struct cox_store_request *req,
                                              enum cox_err *ret_answer, struct cox_buf *error);

/* Whether a root was deleted, and the log may still name it. */
COX_MUST_CHECK enum cox_err store_state_is_deleted(struct store_state *state, uint64_t id, bool *ret,
                                                   struct cox_buf *error);

/* ---- state_sweep.c: inside a transaction ---- */

/* Deletes an archived root: what could be much of it goes piece by piece with later sweeps. `log_seq`: the
 * log's last record now. COX_ERR_NOT_FOUND is an answer. */
COX_MUST_CHECK enum cox_err store_state_delete(struct store_state *state, uint64_t id, uint64_t log_seq,
                                               enum cox_err *ret_answer, struct cox_buf *error);

/* What of a sweep is the state's, until `until_ns`. *ret_done: the rest is the blobs'. */
struct store_sweeping {
    int64_t old_before_ms;     /* roots archived before this go; INT64_MIN: none */
    int64_t unowned_before_ms; /* payloads */
    int64_t until_ns;
    uint64_t log_seq;
    void *user;
    enum cox_err (*live)(void *user, uint64_t id, bool *ret); /* it runs again */
    enum cox_err (*gone)(void *user, uint64_t id);
};
COX_MUST_CHECK enum cox_err store_state_sweep(struct store_state *state, const struct store_sweeping *w,
                                              uint64_t *ret_n_swept, bool *ret_done, struct cox_buf *error);
/* By a task, or by whoever keeps it for ever; `for_ever`: only by the latter. */
COX_MUST_CHECK enum cox_err store_state_is_owned(struct store_state *state, const struct cox_hash *hash,
                                                 bool for_ever, bool *ret, struct cox_buf *error);

/* The index row of an ended root; and the next one below `id`, newest first, COX_ERR_NOT_FOUND when there is
 * none. */
COX_MUST_CHECK enum cox_err store_state_put_ended(struct store_state *state, uint64_t id,
                                                  struct cox_slice row, struct cox_buf *error);
COX_MUST_CHECK enum cox_err store_state_next_ended(struct store_state *state, uint64_t id, uint64_t *ret_id,
                                                   struct cox_buf *ret_row, struct cox_buf *error);

/* ---- state_aside.c ---- */

/* Values of quarantine.state, as texts for statements. */
#define STORE_QUARANTINE_KEPT "1"
#define STORE_QUARANTINE_UNREAD "2" /* reading it for people crashed as well */
#define STORE_QUARANTINE_LIFTED "3" /* the next recoveries take it up, until a checkpoint has saved it */
#define STORE_QUARANTINE_DELETED "4"

COX_MUST_CHECK enum cox_err store_state_count_quarantine(struct store_state *state, struct cox_buf *error);
/* Before the threads start. */
COX_MUST_CHECK enum cox_err store_state_quarantine(struct store_state *state, uint64_t root, const char *why,
                                                   struct cox_buf *error);
COX_MUST_CHECK enum cox_err store_state_lift(struct store_state *state, uint64_t root,
                                             enum cox_err *ret_answer, struct cox_buf *error);
COX_MUST_CHECK enum cox_err store_state_tell_quarantine(struct store_state *state,
                                                        const struct cox_store_recovery *r,
                                                        struct cox_buf *error);
/* Records of what was lifted that the log, dropped up to `dropped_seq`, no longer has. */
COX_MUST_CHECK enum cox_err store_state_scan_aside(struct store_state *state, uint64_t dropped_seq,
                                                   const struct cox_store_recovery *r, struct cox_buf *error);
/* Inside a transaction. */
COX_MUST_CHECK enum cox_err store_state_set_aside(struct store_state *state,
                                                  const struct cox_store_request *req, struct cox_buf *error);
COX_MUST_CHECK enum cox_err store_state_note_deleted_quarantine(struct store_state *state, uint64_t id,
                                                                uint64_t log_seq, struct cox_buf *error);
/* When the log may be cut: what is no longer needed goes. */
COX_MUST_CHECK enum cox_err store_state_forget_quarantine(struct store_state *state, struct cox_buf *error);

/* Outside a transaction: when this returns COX_OK, everything committed survives power loss, and the database
 * says that the log may be dropped up to `seq`. */
COX_MUST_CHECK enum cox_err store_state_sync(struct store_state *state, uint64_t seq, struct cox_buf *error);

/* Hands every entity to r->entity; *ret_applied_seq is the highest applied_seq among them. */
COX_MUST_CHECK enum cox_err store_state_scan(struct store_state *state, const struct cox_store_recovery *r,
                                             uint64_t *ret_applied_seq, struct cox_buf *error);

#endif
