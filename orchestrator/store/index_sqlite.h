/* index.db: the roots, for lists. Derived: made again from state.db's `ended` and what the engine says of
 * live tasks after recovery, when it is missing, damaged, or behind the state.
 *
 *   task(id INTEGER PRIMARY KEY, created_ms, crc, d)   d: an encoded cox_index_row
 *   posting(key, status, id)                           PRIMARY KEY, WITHOUT ROWID: a sorted list of ids for
 *                                                      each label (hashed) and status; key 0: every task
 *   covered(one, seq, complete)                        what the state covered at the last sync
 *
 * A list walks the lists of its labels together from the newest id down, each list a seek away from the next
 * id that can be in all of them; statuses are merged. So a page costs what it shows, not what there is.
 *
 * A turn's changes are committed before the state's: after a crash of the process the index has what the
 * state has. After a power cut it may lack what the engine will say again, and nothing more: it is synced
 * first.
 *
 * Thread: the state's, or the owner before the threads start.
 */
#ifndef COX_STORE_INDEX_SQLITE_H
#define COX_STORE_INDEX_SQLITE_H

#include "db.h"

#include "cox/base/map.h"

#include "cox/store.h"

enum store_index_statement {
    INDEX_BEGIN,
    INDEX_COMMIT,
    INDEX_GET,
    INDEX_PUT,
    INDEX_REMOVE,
    INDEX_POST,
    INDEX_UNPOST,
    INDEX_SEEK,
    INDEX_FROM,
    INDEX_COVER,
    INDEX_STATEMENT_NR
};

struct store_index {
    struct store_db db;
    sqlite3_stmt *st[INDEX_STATEMENT_NR];
    const char *vfs;
    struct cox_map64 held; /* id -> struct held: rows of live tasks, not in the file yet */
    size_t n_stale;        /* of them, those of which the file has an older row */
    uint64_t max_id;       /* of all rows ever in the file: ids rise, so a greater one is not in it */
    bool begun;
    bool complete;       /* else it is being made again, and answers no list */
    uint64_t rebuild_at; /* up to this id, exclusive, from `ended` */
};

/* Throws away what is damaged, another's, or covers less than `covered_seq`. */
COX_MUST_CHECK enum cox_err store_index_open(struct store_index *index, const char *dir,
                                             const struct store_tuning *tuning,
                                             struct store_identity *identity, uint64_t covered_seq,
                                             struct cox_buf *error);
void store_index_close(struct store_index *index, bool clean);
/* Damage found while it is used: it goes, and the next start makes it again. */
void store_index_discard(struct store_index *index);

/* Keeps the row of a live task in memory until somebody looks at live tasks, very many are kept, or the task
 * has ended: most end before that, and cost one write. A crash may take them, for the engine says all of them
 * again. */
COX_MUST_CHECK enum cox_err store_index_hold(struct store_index *index, uint64_t id, struct cox_slice bytes,
                                             struct cox_buf *error);
/* Writes kept rows: all; or those whose older row would be seen; or the oldest few. */
enum store_flush { STORE_FLUSH_ALL, STORE_FLUSH_STALE, STORE_FLUSH_FEW };
COX_MUST_CHECK enum cox_err store_index_flush(struct store_index *index, enum store_flush which,
                                              struct cox_buf *error);

/* Changes gather in a transaction that these two begin. */
/* `row` is what `bytes` say. */
COX_MUST_CHECK enum cox_err store_index_put(struct store_index *index, const struct cox_index_row *row,
                                            struct cox_slice bytes, struct cox_buf *error);
COX_MUST_CHECK enum cox_err store_index_remove(struct store_index *index, uint64_t id, struct cox_buf *error);
COX_MUST_CHECK enum cox_err store_index_commit(struct store_index *index, struct cox_buf *error);
/* Outside a transaction: everything committed survives power loss. */
COX_MUST_CHECK enum cox_err store_index_sync(struct store_index *index, uint64_t seq, struct cox_buf *error);

/* *ret_status: 0 when it is not there. */
COX_MUST_CHECK enum cox_err store_index_status(struct store_index *index, uint64_t id, uint8_t *ret_status,
                                               struct cox_buf *error);

/* Replaces req->bytes by the page; COX_ERR_UNAVAILABLE and COX_ERR_INVALID are answers. index_list.c */
COX_MUST_CHECK enum cox_err store_index_list(struct store_index *index, struct cox_store_request *req,
                                             enum cox_err *ret_answer, struct cox_buf *error);

/* Keys of the lists; collisions are found on the row. */
uint64_t store_index_key(struct cox_slice name, struct cox_slice value);
#define STORE_INDEX_KEY_ALL 0u /* other keys are odd */

#endif
