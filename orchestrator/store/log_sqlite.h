/* log.db: the records, one blob row a group commit (row.h), and nothing else.
 *
 *   log(last_seq INTEGER PRIMARY KEY, d BLOB)     rows are contiguous and only ever dropped from the front
 *   dropped(one, seq)                             the last record dropped; the first row follows it
 *
 * Thread: the log's, or the owner before the threads start.
 */
#ifndef COX_STORE_LOG_SQLITE_H
#define COX_STORE_LOG_SQLITE_H

#include "db.h"

#include "cox/store.h"

struct store_log {
    struct store_db db;
    sqlite3_stmt *insert;
    sqlite3_stmt *begin;
    sqlite3_stmt *commit;
    sqlite3_stmt *find; /* the oldest rows, their sizes */
    sqlite3_stmt *drop;
    sqlite3_stmt *set_dropped;
    uint64_t dropped_seq;
};

/* dir NULL: in memory. Errors: as store_db_open. */
COX_MUST_CHECK enum cox_err store_log_open(struct store_log *log, const char *dir,
                                           const struct store_tuning *tuning, struct store_identity *identity,
                                           struct cox_buf *error);
void store_log_close(struct store_log *log, bool clean);

/* Makes one row durable: when this returns COX_OK, it survives power loss. */
COX_MUST_CHECK enum cox_err store_log_append(struct store_log *log, uint64_t last_seq, struct cox_slice row,
                                             struct cox_buf *error);

/* Drops some of the rows that end at `seq` or before, in one bounded transaction; *ret_more when others are
 * left. */
COX_MUST_CHECK enum cox_err store_log_drop(struct store_log *log, uint64_t seq, bool *ret_more,
                                           struct cox_buf *error);

/* Reads every row, checks it and that it continues the one before, and hands it to r->batch. */
COX_MUST_CHECK enum cox_err store_log_scan(struct store_log *log, const struct cox_store_recovery *r,
                                           uint64_t *ret_last_seq, struct cox_buf *error);

#endif
