#include "log_sqlite.h"

#include "row.h"

#include "cox/base/plant.h"

#include <inttypes.h>

#define APPLICATION_ID 0x436f786c /* "Coxl" */

/* Checkpoints run inside a commit: this many pages (16 MiB) keep the longest pause to some tens of
 * milliseconds, and are enough to write most pages back once for many commits. */
#define CHECKPOINT_PAGES 1000
#define CACHE_KIB 8192

/* One drop frees at most this much, so that an append waits a few milliseconds at the most. */
#define DROP_ROWS_MAX 64
#define DROP_BYTES_MAX (4 << 20)

static const char *const schema[] = {
    "CREATE TABLE log(last_seq INTEGER PRIMARY KEY, d BLOB NOT NULL);"
    "CREATE TABLE dropped(one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);"
    "INSERT INTO dropped VALUES(1, 0);",
};

static enum cox_err prepare(struct store_log *log, struct cox_buf *error)
{
    struct {
        sqlite3_stmt **st;
        const char *text;
    } const statements[] = {
        { &log->insert, "INSERT INTO log(last_seq, d) VALUES(?1, ?2)" },
        { &log->begin, "BEGIN" },
        { &log->commit, "COMMIT" },
        { &log->find, "SELECT last_seq, length(d) FROM log WHERE last_seq <= ?1 ORDER BY last_seq LIMIT ?2" },
        { &log->drop, "DELETE FROM log WHERE last_seq <= ?1" },
        { &log->set_dropped, "UPDATE dropped SET seq = ?1" },
    };

    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        enum cox_err err = store_db_prepare(&log->db, statements[i].text, statements[i].st, error);

        if (err != COX_OK)
            return err;
    }
    return COX_OK;
}

static enum cox_err load_dropped(struct store_log *log, struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    enum cox_err err = store_db_prepare(&log->db, "SELECT seq FROM dropped", &st, error);

    if (err != COX_OK)
        return err;
    if (sqlite3_step(st) == SQLITE_ROW)
        log->dropped_seq = store_column_u64(st, 0);
    else
        err = store_db_failed(&log->db, "reading where the log begins", error);
    (void)sqlite3_finalize(st);
    return err;
}

enum cox_err store_log_open(struct store_log *log, const char *dir, const struct store_tuning *tuning,
                            struct store_identity *identity, struct cox_buf *error)
{
    const struct store_db_spec spec = {
        .dir = dir,
        .name = "log.db",
        .synchronous = tuning->log_synchronous        ? tuning->log_synchronous
                       : COX_PLANTED("skipped-fsync") ? "OFF"
                                                      : "FULL",
        .application_id = APPLICATION_ID,
        .checkpoint_pages = CHECKPOINT_PAGES,
        .cache_kib = CACHE_KIB,
        .schema = schema,
        .format = sizeof(schema) / sizeof(schema[0]),
    };

    *log = (struct store_log){ 0 };
    enum cox_err err = store_db_open(&log->db, &spec, tuning, identity, error);

    if (err != COX_OK)
        return err;
    err = prepare(log, error);
    if (err == COX_OK)
        err = load_dropped(log, error);
    if (err != COX_OK)
        store_log_close(log, false);
    return err;
}

void store_log_close(struct store_log *log, bool clean)
{
    sqlite3_stmt *statements[] = { log->insert, log->begin, log->commit,
                                   log->find,   log->drop,  log->set_dropped };

    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
        (void)sqlite3_finalize(statements[i]);
    store_db_close(&log->db, clean);
    *log = (struct store_log){ 0 };
}

enum cox_err store_log_append(struct store_log *log, uint64_t last_seq, struct cox_slice row,
                              struct cox_buf *error)
{
    store_bind_u64(log->insert, 1, last_seq);
    store_bind_bytes(log->insert, 2, row);
    return store_db_run(&log->db, log->insert, "committing records", error);
}

/* The last of the oldest rows that one drop takes: at least one if there is any, 0 if there is none. */
static enum cox_err find_drop(struct store_log *log, uint64_t seq, uint64_t *ret_upto, bool *ret_more,
                              struct cox_buf *error)
{
    enum cox_err err = COX_OK;
    int64_t bytes = 0;
    int rows = 0;
    int rc;

    *ret_upto = 0;
    *ret_more = false;
    store_bind_u64(log->find, 1, seq);
    (void)sqlite3_bind_int(log->find, 2, DROP_ROWS_MAX + 1);
    while ((rc = sqlite3_step(log->find)) == SQLITE_ROW) {
        if (rows == DROP_ROWS_MAX || (rows > 0 && bytes > DROP_BYTES_MAX)) {
            *ret_more = true;
            break;
        }
        *ret_upto = store_column_u64(log->find, 0);
        bytes += sqlite3_column_int64(log->find, 1);
        rows++;
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = store_db_failed(&log->db, "finding rows to drop", error);
    (void)sqlite3_reset(log->find);
    return err;
}

enum cox_err store_log_drop(struct store_log *log, uint64_t seq, bool *ret_more, struct cox_buf *error)
{
    uint64_t upto = 0;
    enum cox_err err = find_drop(log, seq, &upto, ret_more, error);

    if (err != COX_OK || upto == 0)
        return err;
    err = store_db_run(&log->db, log->begin, "dropping old rows", error);
    if (err == COX_OK) {
        store_bind_u64(log->drop, 1, upto);
        err = store_db_run(&log->db, log->drop, "dropping old rows", error);
    }
    if (err == COX_OK) {
        store_bind_u64(log->set_dropped, 1, upto);
        err = store_db_run(&log->db, log->set_dropped, "dropping old rows", error);
    }
    if (err == COX_OK)
        err = store_db_run(&log->db, log->commit, "dropping old rows", error);
    if (err == COX_OK)
        log->dropped_seq = upto;
    return err;
}

static enum cox_err bad_row(const struct store_log *log, uint64_t row, enum cox_err err, const char *why,
                            struct cox_buf *error)
{
    cox_buf_printf(error, "%s: row %" PRIu64 " of table log: %s", log->db.path, row, why);
    return err;
}

static enum cox_err scan_row(struct store_log *log, sqlite3_stmt *st, uint64_t *last_seq,
                             const struct cox_store_recovery *r, struct cox_buf *error)
{
    struct store_row row;
    const char *why = "";
    uint64_t key = store_column_u64(st, 0);
    enum cox_err err = store_row_parse(store_column_bytes(st, 1), &row, &why);

    if (err != COX_OK)
        return bad_row(log, key, err, why, error);
    if (row.first_seq + row.n - 1 != key)
        return bad_row(log, key, COX_ERR_CORRUPT, "its sequence numbers are not those of its key", error);
    if (row.first_seq != *last_seq + 1) {
        cox_buf_printf(error,
                       "%s: row %" PRIu64 " of table log: begins at %" PRIu64 ", after %" PRIu64
                       ": rows are missing",
                       log->db.path, key, row.first_seq, *last_seq);
        return COX_ERR_CORRUPT;
    }
    err = r->batch(r->user, row.first_seq, row.n, row.records);
    if (err != COX_OK)
        return bad_row(log, key, err, "its records were not accepted", error);
    *last_seq = key;
    return COX_OK;
}

enum cox_err store_log_scan(struct store_log *log, const struct cox_store_recovery *r, uint64_t *ret_last_seq,
                            struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    uint64_t last_seq = log->dropped_seq;
    int rc = SQLITE_DONE;
    enum cox_err err =
        store_db_prepare(&log->db, "SELECT last_seq, d FROM log ORDER BY last_seq", &st, error);

    while (err == COX_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
        err = scan_row(log, st, &last_seq, r, error);
    if (err == COX_OK && rc != SQLITE_DONE)
        err = store_db_failed(&log->db, "reading the log", error);
    (void)sqlite3_finalize(st);
    if (err == COX_OK)
        *ret_last_seq = last_seq;
    return err;
}
