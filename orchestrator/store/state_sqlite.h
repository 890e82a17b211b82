/* state.db: checkpointed entities, payloads, and the archive of finished tasks.
 *
 *   entity(kind, id, sub, applied_seq, crc, d)   PRIMARY KEY(kind, id, sub), WITHOUT ROWID
 *   payload(hash, crc, created_ms, d)            rows in order of arrival, an index finds the hash
 *   ref(owner, hash)                             whose payloads and blobs are whose; owner 0: kept for ever
 *   archive(id INTEGER PRIMARY KEY, crc, d, root, archived_ms)
 *                                                ids rise, so new tasks are appended to the tree; root: of a
 *                                                frame, else 0
 *   covered(one, seq, syncs)                     the log may be dropped up to seq
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
    STATE_READ_ARCHIVE,
    STATE_READ_PAYLOAD,
    STATE_READ_ENTITY,
    STATE_COVER,
    STATE_STATEMENT_NR
};

struct store_state {
    struct store_db db;
    sqlite3_stmt *st[STATE_STATEMENT_NR];
    uint64_t covered_seq;
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

/* Outside a transaction: when this returns COX_OK, everything committed survives power loss, and the database
 * says that the log may be dropped up to `seq`. */
COX_MUST_CHECK enum cox_err store_state_sync(struct store_state *state, uint64_t seq, struct cox_buf *error);

/* Hands every entity to r->entity; *ret_applied_seq is the highest applied_seq among them. */
COX_MUST_CHECK enum cox_err store_state_scan(struct store_state *state, const struct cox_store_recovery *r,
                                             uint64_t *ret_applied_seq, struct cox_buf *error);

#endif
