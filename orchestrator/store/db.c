#include "db.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#define REWRITE_CHUNK                                                                                        \
    (1 << 16) /* SQLite on Unix writes at most 2^17 - 1 bytes at once, silently less than asked */

void store_bind_bytes(sqlite3_stmt *st, int at, struct cox_slice s)
{
    /* A NULL pointer would bind NULL, not the empty blob. */
    (void)sqlite3_bind_blob64(st, at, s.len > 0 ? (const void *)s.data : "", s.len, SQLITE_STATIC);
}

struct cox_slice store_column_bytes(sqlite3_stmt *st, int at)
{
    const void *data = sqlite3_column_blob(st, at);

    return cox_slice(data, (size_t)sqlite3_column_bytes(st, at));
}

enum cox_err store_db_failed(struct store_db *db, const char *doing, struct cox_buf *error)
{
    int code = db->sql ? sqlite3_extended_errcode(db->sql) : SQLITE_NOMEM;
    int sys = db->sql ? sqlite3_system_errno(db->sql) : 0;

    cox_buf_printf(error, "%s: %s: %s (SQLite code %d", db->path, doing,
                   db->sql ? sqlite3_errmsg(db->sql) : "out of memory", code);
    if (sys != 0)
        cox_buf_printf(error, ", errno %d: %s", sys, strerrordesc_np(sys) ? strerrordesc_np(sys) : "?");
    cox_buf_append_str(error, ")");
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return COX_ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return COX_ERR_UNAVAILABLE;
    default:
        return COX_ERR_IO;
    }
}

enum cox_err store_db_prepare(struct store_db *db, const char *text, sqlite3_stmt **ret,
                              struct cox_buf *error)
{
    enum cox_err err = COX_OK;

    if (sqlite3_prepare_v3(db->sql, text, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL) != SQLITE_OK)
        err = store_db_failed(db, text, error);
    if (err != COX_OK && sqlite3_errcode(db->sql) == SQLITE_ERROR)
        err = COX_ERR_CORRUPT; /* the text is ours, so a table is not there */
    return err;
}

enum cox_err store_db_exec(struct store_db *db, const char *text, const char *doing, struct cox_buf *error)
{
    if (sqlite3_exec(db->sql, text, NULL, NULL, NULL) != SQLITE_OK)
        return store_db_failed(db, doing, error);
    return COX_OK;
}

enum cox_err store_db_run(struct store_db *db, sqlite3_stmt *st, const char *doing, struct cox_buf *error)
{
    enum cox_err err = COX_OK;

    if (sqlite3_step(st) != SQLITE_DONE)
        err = store_db_failed(db, doing, error);
    (void)sqlite3_reset(st);
    return err;
}

enum cox_err store_db_sync(struct store_db *db, sqlite3_stmt *st, const char *doing, struct cox_buf *error)
{
    enum cox_err err = COX_OK;

    if (!db->in_memory)
        err = store_db_exec(db, "PRAGMA synchronous = FULL", doing, error);
    if (err == COX_OK)
        err = store_db_run(db, st, doing, error);
    if (err == COX_OK && !db->in_memory)
        err = store_db_exec(db, "PRAGMA synchronous = NORMAL", doing, error);
    return err;
}

enum cox_err store_db_query_u64(struct store_db *db, const char *text, uint64_t *ret, struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    enum cox_err err = store_db_prepare(db, text, &st, error);

    if (err != COX_OK)
        return err;
    if (sqlite3_step(st) == SQLITE_ROW)
        *ret = store_column_u64(st, 0);
    else
        err = store_db_failed(db, text, error);
    (void)sqlite3_finalize(st);
    return err;
}

enum cox_err store_db_find(struct store_db *db, sqlite3_stmt *st, const char *doing, bool *ret,
                           struct cox_buf *error)
{
    enum cox_err err = COX_OK;
    int rc = sqlite3_step(st);

    *ret = rc == SQLITE_ROW;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = store_db_failed(db, doing, error);
    (void)sqlite3_reset(st);
    return err;
}

/* ---- the write-ahead log left by an earlier process ---- */

static int rewrite_file(sqlite3_file *file)
{
    uint8_t *chunk = cox_alloc(REWRITE_CHUNK);
    sqlite3_int64 size = 0;
    int rc = file->pMethods->xFileSize(file, &size);

    for (sqlite3_int64 at = 0; rc == SQLITE_OK && at < size; at += REWRITE_CHUNK) {
        int len = size - at < REWRITE_CHUNK ? (int)(size - at) : REWRITE_CHUNK;

        rc = file->pMethods->xRead(file, chunk, len, at);
        if (rc == SQLITE_OK)
            rc = file->pMethods->xWrite(file, chunk, len, at);
    }
    if (rc == SQLITE_OK && size > 0)
        rc = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
    cox_free(chunk);
    return rc;
}

/* When a sync fails, Linux keeps the pages in memory, calls them clean, and never writes them. The process
 * that met the failure ends, but the next one would read those pages, take them for durable and build on
 * them, and a power cut would then undo what it acknowledged. So they are written and synced once more,
 * before SQLite looks at them. The main file needs no such care: what a failed checkpoint wrote there is
 * still in the write-ahead log, and will be written again. */
static enum cox_err rewrite_wal(struct store_db *db, const char *vfs_name, struct cox_buf *error)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(vfs_name);
    int exists = 0;

    if (db->in_memory || COX_PLANTED("trusted-old-wal"))
        return COX_OK;
    COX_ASSERT(vfs);
    char *wal = cox_asprintf("%s-wal", db->path);
    sqlite3_filename names = sqlite3_create_filename(db->path, "", wal, 0, NULL);
    sqlite3_file *file = cox_calloc(1, (size_t)vfs->szOsFile);
    int rc = vfs->xAccess(vfs, wal, SQLITE_ACCESS_EXISTS, &exists);

    if (rc == SQLITE_OK && exists) {
        rc =
            vfs->xOpen(vfs, sqlite3_filename_wal(names), file, SQLITE_OPEN_READWRITE | SQLITE_OPEN_WAL, NULL);
        if (rc == SQLITE_OK)
            rc = rewrite_file(file);
        if (file->pMethods)
            (void)file->pMethods->xClose(file);
    }
    if (rc != SQLITE_OK)
        cox_buf_printf(error, "%s: writing it once more: %s (SQLite code %d)", wal, sqlite3_errstr(rc), rc);
    sqlite3_free_filename(names);
    cox_free(file);
    cox_free(wal);
    return rc == SQLITE_OK ? COX_OK : COX_ERR_IO;
}

/* ---- opening ---- */

/* The order matters: the page size before the file has pages, the lock before the journal mode (so that no
 * wal-index file is ever made). secure_delete is off because Debian turns it on, and it would write every
 * page of a truncated log once more. */
static enum cox_err set_pragmas(struct store_db *db, const struct store_db_spec *spec, struct cox_buf *error)
{
    char *text = cox_asprintf("PRAGMA page_size = 16384;"
                              "PRAGMA locking_mode = EXCLUSIVE;"
                              "PRAGMA journal_mode = %s;"
                              "PRAGMA synchronous = %s;"
                              "PRAGMA secure_delete = OFF;"
                              "PRAGMA temp_store = MEMORY;"
                              "PRAGMA cache_size = -%d;",
                              db->in_memory ? "OFF" : "WAL", db->in_memory ? "OFF" : spec->synchronous,
                              spec->cache_kib);
    enum cox_err err = store_db_exec(db, text, "opening", error);

    cox_free(text);
    return err;
}

static uint64_t random_uid(void)
{
    uint64_t uid = 0;

    while (uid == 0)
        if (getrandom(&uid, sizeof(uid), 0) != (ssize_t)sizeof(uid))
            uid = 0;
    return uid;
}

/* From this format to the newest, and the end of the transaction. */
static void put_schema(struct cox_buf *text, const struct store_db_spec *spec, int format)
{
    for (int i = format; i < spec->format; i++)
        cox_buf_append_str(text, spec->schema[i]);
    cox_buf_printf(text, "PRAGMA user_version = %d;COMMIT;", spec->format);
}

static enum cox_err create_schema(struct store_db *db, const struct store_db_spec *spec,
                                  struct store_identity *identity, struct cox_buf *error)
{
    if (identity->uid == 0)
        identity->uid = random_uid();
    struct cox_buf text = { 0 };

    cox_buf_printf(&text,
                   "BEGIN IMMEDIATE;"
                   "CREATE TABLE identity(one INTEGER PRIMARY KEY CHECK (one = 1),"
                   " shard INTEGER NOT NULL, uid INTEGER NOT NULL);"
                   "INSERT INTO identity VALUES(1, %" PRIu32 ", %" PRId64 ");"
                   "PRAGMA application_id = %d;",
                   identity->shard, (int64_t)identity->uid, spec->application_id);
    put_schema(&text, spec, 0);
    enum cox_err err = store_db_exec(db, cox_buf_cstr(&text), "making the tables", error);

    cox_buf_fini(&text);
    return err;
}

static enum cox_err upgrade_schema(struct store_db *db, const struct store_db_spec *spec, int format,
                                   struct cox_buf *error)
{
    struct cox_buf text = { 0 };

    cox_buf_append_str(&text, "BEGIN IMMEDIATE;");
    put_schema(&text, spec, format);
    enum cox_err err = store_db_exec(db, cox_buf_cstr(&text), "bringing the tables up to date", error);

    cox_buf_fini(&text);
    return err;
}

static enum cox_err check_format(struct store_db *db, const struct store_db_spec *spec,
                                 uint64_t application_id, uint64_t *ret_format, struct cox_buf *error)
{
    uint64_t format = 0;
    enum cox_err err = store_db_query_u64(db, "PRAGMA user_version", &format, error);

    if (err != COX_OK)
        return err;
    if (application_id != (uint64_t)spec->application_id) {
        cox_buf_printf(error, "%s: this is not a %s of Coxswain; give coxd a directory of its own", db->path,
                       spec->name);
        return COX_ERR_INVALID;
    }
    if (format < 1 || format > (uint64_t)spec->format) {
        cox_buf_printf(error,
                       "%s: a newer coxd made it (format %" PRIu64 ", this one knows %d); start that one",
                       db->path, format, spec->format);
        return COX_ERR_INVALID;
    }
    *ret_format = format;
    return COX_OK;
}

static enum cox_err check_identity(struct store_db *db, struct store_identity *identity,
                                   struct cox_buf *error)
{
    uint64_t shard = 0;
    uint64_t uid = 0;
    enum cox_err err = store_db_query_u64(db, "SELECT shard FROM identity", &shard, error);

    if (err == COX_OK)
        err = store_db_query_u64(db, "SELECT uid FROM identity", &uid, error);
    if (err != COX_OK)
        return err;
    if (shard != identity->shard) {
        cox_buf_printf(error, "%s: belongs to shard %" PRIu64 ", not to shard %" PRIu32, db->path, shard,
                       identity->shard);
        return COX_ERR_INVALID;
    }
    if (identity->uid != 0 && identity->uid != uid) {
        cox_buf_printf(error,
                       "%s: does not belong to the log.db beside it; restore both files from the same backup",
                       db->path);
        return COX_ERR_INVALID;
    }
    identity->uid = uid;
    return COX_OK;
}

/* Instead of SQLite's own hook, which keeps the errors of a checkpoint to itself. */
static int after_commit(void *user, sqlite3 *sql, const char *schema, int pages)
{
    struct store_db *db = user;

    if (pages < db->checkpoint_pages)
        return SQLITE_OK;
    return sqlite3_wal_checkpoint_v2(sql, schema, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

/* A file is new when it has no tables: the transaction that makes them also sets the header. */
static enum cox_err open_contents(struct store_db *db, const struct store_db_spec *spec,
                                  struct store_identity *identity, struct cox_buf *error)
{
    uint64_t application_id = 0;
    uint64_t format = 0;
    uint64_t tables = 0;
    enum cox_err err = store_db_query_u64(db, "PRAGMA application_id", &application_id, error);

    if (err == COX_OK)
        err = store_db_query_u64(db, "SELECT count(*) FROM sqlite_schema", &tables, error);
    if (err != COX_OK)
        return err;
    if (application_id != 0 || tables != 0) {
        err = check_format(db, spec, application_id, &format, error);
        if (err == COX_OK)
            err = check_identity(db, identity, error);
        if (err == COX_OK && format < (uint64_t)spec->format)
            err = upgrade_schema(db, spec, (int)format, error);
        return err;
    }
    return create_schema(db, spec, identity, error);
}

/* SQLite's own count of its memory takes a lock at each allocation, and nobody reads it. Too late, and so
 * without effect, in a program that used SQLite before. */
static pthread_once_t configured = PTHREAD_ONCE_INIT;

static void configure(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

enum cox_err store_db_open(struct store_db *db, const struct store_db_spec *spec,
                           const struct store_tuning *tuning, struct store_identity *identity,
                           struct cox_buf *error)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    enum cox_err err = COX_OK;

    (void)pthread_once(&configured, configure);
    *db = (struct store_db){ .in_memory = !spec->dir,
                             .checkpoint_pages = tuning->checkpoint_pages ? tuning->checkpoint_pages
                                                                          : spec->checkpoint_pages };
    db->path = spec->dir ? cox_asprintf("%s/%s", spec->dir, spec->name) : cox_strdup(spec->name);
    err = rewrite_wal(db, tuning->vfs, error);
    if (err != COX_OK)
        goto fail;
    if (sqlite3_open_v2(db->in_memory ? ":memory:" : db->path, &db->sql, flags, tuning->vfs) != SQLITE_OK) {
        err = store_db_failed(db, "opening", error);
        goto fail;
    }
    err = set_pragmas(db, spec, error);
    if (err == COX_OK)
        err = open_contents(db, spec, identity, error);
    if (err != COX_OK)
        goto fail;
    (void)sqlite3_wal_hook(db->sql, after_commit, db);
    return COX_OK;
fail:
    store_db_close(db, false);
    return err;
}

void store_db_close(struct store_db *db, bool clean)
{
    if (db->sql) {
        if (!clean)
            (void)sqlite3_db_config(db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        int rc = sqlite3_close(db->sql);

        COX_ASSERT(rc == SQLITE_OK); /* a statement was not finalised */
    }
    cox_free(db->path);
    *db = (struct store_db){ 0 };
}

void store_db_remove(const char *path, const char *vfs_name)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(vfs_name);
    char *wal = cox_asprintf("%s-wal", path);

    /* The file first: without it a write-ahead log means nothing. */
    (void)vfs->xDelete(vfs, path, 1);
    (void)vfs->xDelete(vfs, wal, 1);
    cox_free(wal);
}
