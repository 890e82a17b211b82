/* One SQLite database of the store: opening it the way the store needs, running statements, naming errors.
 *
 * A database has one connection, and a connection one thread at a time (recovery runs on the owner, before
 * the threads start). It is held EXCLUSIVE: no second process can open it, and no wal-index file is needed.
 */
#ifndef COX_STORE_DB_H
#define COX_STORE_DB_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#include <sqlite3.h>

struct store_db {
    sqlite3 *sql;
    char *path; /* as errors name it */
    bool in_memory;
    int checkpoint_pages;
};

/* What a data directory is, stored in both databases so that files of different stores are told apart. */
struct store_identity {
    uint32_t shard;
    uint64_t uid;
};

/* What tests change; all zero otherwise. */
struct store_tuning {
    const char *vfs;             /* a registered VFS; NULL: SQLite's default */
    const char *log_synchronous; /* NULL: "FULL" */
    int checkpoint_pages;        /* 0: each database its own */
    int64_t unowned_ms;          /* 0: STORE_UNOWNED_MS */
};

struct store_db_spec {
    const char *dir;         /* NULL: in memory */
    const char *name;        /* "log.db" */
    const char *synchronous; /* "FULL", "NORMAL" */
    int application_id;      /* in the file's header: what kind of file of ours this is */
    int checkpoint_pages;    /* the write-ahead log is copied back when it is this long */
    int cache_kib;
    /* What makes each format (the file's user_version) out of the one before it, from an empty file: entry i
     * makes format i + 1. A new file runs all of it, an older one the rest, in one transaction. */
    const char *const *schema;
    int format; /* the newest: entries of `schema` */
};

/* Opens the file and makes what is missing. The identity is written into a new file and must match an old
 * one. A uid of 0 stands for "whatever it is": it becomes the old file's, or a random one. `error` says what
 * is wrong. Errors: COX_ERR_IO, COX_ERR_CORRUPT, COX_ERR_UNAVAILABLE, COX_ERR_INVALID. On error the database
 * is closed. */
COX_MUST_CHECK enum cox_err store_db_open(struct store_db *db, const struct store_db_spec *spec,
                                          const struct store_tuning *tuning, struct store_identity *identity,
                                          struct cox_buf *error);

/* Closes; every statement must be finalised. `clean` folds the write-ahead log into the file first; after a
 * failed write it must be false, so that nothing more is written. */
void store_db_close(struct store_db *db, bool clean);

/* Removes a database that nobody has open. */
void store_db_remove(const char *path, const char *vfs_name);

/* Prepares a statement that is kept. `text` is ours: a syntax error is a broken invariant, I/O errors are
 * not. */
COX_MUST_CHECK enum cox_err store_db_prepare(struct store_db *db, const char *text, sqlite3_stmt **ret,
                                             struct cox_buf *error);

/* Runs statements without results. `doing` is for the error text: "saving an entity". */
COX_MUST_CHECK enum cox_err store_db_exec(struct store_db *db, const char *text, const char *doing,
                                          struct cox_buf *error);

/* Steps a statement that gives no rows and resets it. */
COX_MUST_CHECK enum cox_err store_db_run(struct store_db *db, sqlite3_stmt *st, const char *doing,
                                         struct cox_buf *error);

/* One integer out of the database; the statement is used once. */
COX_MUST_CHECK enum cox_err store_db_query_u64(struct store_db *db, const char *text, uint64_t *ret,
                                               struct cox_buf *error);
/* Whether a kept statement finds a row; resets it. */
COX_MUST_CHECK enum cox_err store_db_find(struct store_db *db, sqlite3_stmt *st, const char *doing, bool *ret,
                                          struct cox_buf *error);

/* Outside a transaction: runs a statement, which must change a byte, as a commit that is synced. The
 * write-ahead log is one file, so that covers all commits before it; those no longer in it were synced when
 * they were copied back. In memory it only runs the statement. */
COX_MUST_CHECK enum cox_err store_db_sync(struct store_db *db, sqlite3_stmt *st, const char *doing,
                                          struct cox_buf *error);

/* Writes "<path>: <doing>: <SQLite's words> (SQLite code N, errno M: ...)" and gives the matching code. */
enum cox_err store_db_failed(struct store_db *db, const char *doing, struct cox_buf *error);

/* A bound or read u64 is stored as the int64 of the same bits: SQLite has no unsigned integers. */
static inline void store_bind_u64(sqlite3_stmt *st, int at, uint64_t v)
{
    (void)sqlite3_bind_int64(st, at, (sqlite3_int64)v);
}
static inline uint64_t store_column_u64(sqlite3_stmt *st, int at)
{
    return (uint64_t)sqlite3_column_int64(st, at);
}
void store_bind_bytes(sqlite3_stmt *st, int at,
                      struct cox_slice s);                     /* borrowed until the statement is reset */
struct cox_slice store_column_bytes(sqlite3_stmt *st, int at); /* borrowed until the next step */

#endif
