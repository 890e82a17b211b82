#include "index_sqlite.h"

#include "row.h"

#include "cox/base/alloc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define APPLICATION_ID 0x436f7869 /* "Coxi" */
#define CHECKPOINT_PAGES 4000
#define CACHE_KIB 32768
#define HELD_MAX 131072 /* about 32 MiB */
#define FLUSH_FEW 4096u /* a tenth of a second, perhaps */

/* A live task's row: most end before it need be written. */
struct held {
    bool fresh; /* the file has no row of it */
    size_t len;
    uint8_t row[];
};

static const char *const schema[] = {
    "CREATE TABLE task(id INTEGER PRIMARY KEY, created_ms INTEGER NOT NULL, crc INTEGER NOT NULL,"
    " d BLOB NOT NULL);"
    "CREATE TABLE posting(key INTEGER NOT NULL, status INTEGER NOT NULL, id INTEGER NOT NULL,"
    " PRIMARY KEY(key, status, id)) WITHOUT ROWID;"
    "CREATE TABLE covered(one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL,"
    " complete INTEGER NOT NULL, syncs INTEGER NOT NULL);"
    "INSERT INTO covered VALUES(1, 0, 0, 0);",
};

static const char *const statements[INDEX_STATEMENT_NR] = {
    [INDEX_BEGIN] = "BEGIN",
    [INDEX_COMMIT] = "COMMIT",
    [INDEX_GET] = "SELECT crc, d FROM task WHERE id = ?1",
    [INDEX_PUT] = "REPLACE INTO task(id, created_ms, crc, d) VALUES(?1, ?2, ?3, ?4)",
    [INDEX_REMOVE] = "DELETE FROM task WHERE id = ?1",
    [INDEX_POST] = "INSERT INTO posting(key, status, id) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
    [INDEX_UNPOST] = "DELETE FROM posting WHERE key = ?1 AND status = ?2 AND id = ?3",
    [INDEX_SEEK] = "SELECT id FROM posting WHERE key = ?1 AND status = ?2 AND id <= ?3"
                   " ORDER BY id DESC LIMIT 1",
    [INDEX_FROM] = "SELECT id, created_ms FROM task WHERE id >= ?1 ORDER BY id LIMIT 1",
    [INDEX_COVER] = "UPDATE covered SET seq = ?1, complete = ?2, syncs = syncs + 1",
};

uint64_t store_index_key(struct cox_slice name, struct cox_slice value)
{
    uint64_t halves[2] = { cox_hash64(name.data, name.len), cox_hash64(value.data, value.len) };

    return cox_hash64(halves, sizeof(halves)) | 1;
}

/* ---- opening ---- */

static enum cox_err load_max_id(struct store_index *index, struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    enum cox_err err = store_db_prepare(&index->db, "SELECT coalesce(max(id), 0) FROM task", &st, error);

    if (err != COX_OK)
        return err;
    if (sqlite3_step(st) == SQLITE_ROW)
        index->max_id = store_column_u64(st, 0);
    else
        err = store_db_failed(&index->db, "reading the newest row", error);
    (void)sqlite3_finalize(st);
    return err;
}

static enum cox_err load_covered(struct store_index *index, uint64_t *ret_seq, struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    enum cox_err err = store_db_prepare(&index->db, "SELECT seq, complete FROM covered", &st, error);

    if (err != COX_OK)
        return err;
    if (sqlite3_step(st) == SQLITE_ROW) {
        *ret_seq = store_column_u64(st, 0);
        index->complete = sqlite3_column_int(st, 1) != 0;
    } else {
        err = store_db_failed(&index->db, "reading what the index covers", error);
    }
    (void)sqlite3_finalize(st);
    return err;
}

static enum cox_err try_open(struct store_index *index, const char *dir, const struct store_tuning *tuning,
                             struct store_identity *identity, uint64_t covered_seq, struct cox_buf *error)
{
    const struct store_db_spec spec = {
        .dir = dir,
        .name = "index.db",
        .synchronous = "NORMAL",
        .application_id = APPLICATION_ID,
        .checkpoint_pages = CHECKPOINT_PAGES,
        .cache_kib = CACHE_KIB,
        .schema = schema,
        .format = sizeof(schema) / sizeof(schema[0]),
    };
    uint64_t seq = 0;

    *index = (struct store_index){ .vfs = tuning->vfs, .rebuild_at = INT64_MAX };
    enum cox_err err = store_db_open(&index->db, &spec, tuning, identity, error);

    if (err != COX_OK)
        return err;
    for (size_t i = 0; i < INDEX_STATEMENT_NR && err == COX_OK; i++)
        err = store_db_prepare(&index->db, statements[i], &index->st[i], error);
    if (err == COX_OK)
        err = load_covered(index, &seq, error);
    if (err == COX_OK)
        err = load_max_id(index, error);
    /* One that was left half made is begun again: where it stood is not worth keeping. */
    if (err == COX_OK && (seq < covered_seq || (!index->complete && seq > 0)))
        err = COX_ERR_CORRUPT;
    if (err != COX_OK)
        store_index_close(index, false);
    return err;
}

enum cox_err store_index_open(struct store_index *index, const char *dir, const struct store_tuning *tuning,
                              struct store_identity *identity, uint64_t covered_seq, struct cox_buf *error)
{
    size_t len = error->len;
    enum cox_err err = try_open(index, dir, tuning, identity, dir ? covered_seq : 0, error);

    if (!dir || (err != COX_ERR_CORRUPT && err != COX_ERR_INVALID))
        return err;
    char *path = cox_asprintf("%s/index.db", dir);

    error->len = len;
    store_db_remove(path, tuning->vfs);
    cox_free(path);
    return try_open(index, dir, tuning, identity, 0, error);
}

void store_index_close(struct store_index *index, bool clean)
{
    size_t it = 0;
    uint64_t id;
    void *row;

    while (cox_map64_next(&index->held, &it, &id, &row))
        cox_free(row);
    cox_map64_fini(&index->held);
    for (size_t i = 0; i < INDEX_STATEMENT_NR; i++)
        (void)sqlite3_finalize(index->st[i]);
    store_db_close(&index->db, clean);
    *index = (struct store_index){ 0 };
}

void store_index_discard(struct store_index *index)
{
    if (!index->db.in_memory)
        store_db_remove(index->db.path, index->vfs);
}

/* ---- changes ---- */

static enum cox_err begin(struct store_index *index, struct cox_buf *error)
{
    if (index->begun)
        return COX_OK;
    index->begun = true;
    return store_db_run(&index->db, index->st[INDEX_BEGIN], "beginning a transaction", error);
}

/* COX_ERR_NOT_FOUND when it is not there. The row borrows from the statement, to be reset. */
static enum cox_err get(struct store_index *index, uint64_t id, struct cox_index_row *ret,
                        struct cox_label *labels, struct cox_buf *error)
{
    sqlite3_stmt *st = index->st[INDEX_GET];

    store_bind_u64(st, 1, id);
    int rc = sqlite3_step(st);

    if (rc == SQLITE_DONE)
        return COX_ERR_NOT_FOUND;
    if (rc != SQLITE_ROW)
        return store_db_failed(&index->db, "reading a row", error);
    struct cox_slice bytes = store_column_bytes(st, 1);

    if ((uint32_t)sqlite3_column_int64(st, 0) == store_crc(bytes) &&
        cox_index_row_decode(bytes, ret, labels) == COX_OK && ret->id == id)
        return COX_OK;
    cox_buf_printf(error, "%s: the row of task %" PRIu64 " is damaged", index->db.path, id);
    return COX_ERR_CORRUPT;
}

static enum cox_err post(struct store_index *index, enum store_index_statement which, uint64_t key,
                         const struct cox_index_row *row, struct cox_buf *error)
{
    sqlite3_stmt *st = index->st[which];

    store_bind_u64(st, 1, key);
    (void)sqlite3_bind_int(st, 2, row->status);
    store_bind_u64(st, 3, row->id);
    return store_db_run(&index->db, st, "changing a list", error);
}

static enum cox_err post_all(struct store_index *index, enum store_index_statement which,
                             const struct cox_index_row *row, struct cox_buf *error)
{
    enum cox_err err = post(index, which, STORE_INDEX_KEY_ALL, row, error);

    if (err == COX_OK && row->tenant.len > 0)
        err = post(index, which, store_index_key(cox_slice(NULL, 0), row->tenant), row, error);
    for (size_t i = 0; i < row->n_labels && err == COX_OK; i++)
        err = post(index, which, store_index_key(row->labels[i].name, row->labels[i].value), row, error);
    return err;
}

/* Takes the lists' entries of what is there away. */
static enum cox_err unpost(struct store_index *index, uint64_t id, struct cox_buf *error)
{
    struct cox_label labels[COX_LABELS_MAX];
    struct cox_index_row row;
    enum cox_err err = get(index, id, &row, labels, error);

    if (err == COX_OK)
        err = post_all(index, INDEX_UNPOST, &row, error);
    (void)sqlite3_reset(index->st[INDEX_GET]);
    return err == COX_ERR_NOT_FOUND ? COX_OK : err;
}

/* True when the file surely has no row of it. */
static bool drop_held(struct store_index *index, uint64_t id)
{
    struct held *h = cox_map64_remove(&index->held, id);

    if (!h)
        return false;
    bool fresh = h->fresh;

    index->n_stale -= !fresh;
    cox_free(h);
    return fresh;
}

static enum cox_err put(struct store_index *index, const struct cox_index_row *row, struct cox_slice bytes,
                        bool fresh, struct cox_buf *error)
{
    enum cox_err err = begin(index, error);

    if (err == COX_OK && !fresh)
        err = unpost(index, row->id, error);
    if (err == COX_OK)
        err = post_all(index, INDEX_POST, row, error);
    if (err != COX_OK)
        return err;
    sqlite3_stmt *st = index->st[INDEX_PUT];

    if (row->id > index->max_id)
        index->max_id = row->id;
    store_bind_u64(st, 1, row->id);
    (void)sqlite3_bind_int64(st, 2, row->created_wall_ms);
    (void)sqlite3_bind_int64(st, 3, store_crc(bytes));
    store_bind_bytes(st, 4, bytes);
    return store_db_run(&index->db, st, "indexing a task", error);
}

enum cox_err store_index_put(struct store_index *index, const struct cox_index_row *row,
                             struct cox_slice bytes, struct cox_buf *error)
{
    return put(index, row, bytes, drop_held(index, row->id), error);
}

enum cox_err store_index_hold(struct store_index *index, uint64_t id, struct cox_slice bytes,
                              struct cox_buf *error)
{
    struct held *h = cox_alloc(sizeof(*h) + bytes.len);

    h->fresh = drop_held(index, id) || id > index->max_id;
    index->n_stale += !h->fresh;
    h->len = bytes.len;
    memcpy(h->row, bytes.data, bytes.len);
    (void)cox_map64_set(&index->held, id, h);
    return index->held.len < HELD_MAX ? COX_OK : store_index_flush(index, STORE_FLUSH_FEW, error);
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static enum cox_err write_held(struct store_index *index, uint64_t id, struct cox_buf *error)
{
    struct held *h = cox_map64_remove(&index->held, id);
    struct cox_slice bytes = cox_slice(h->row, h->len);
    struct cox_label labels[COX_LABELS_MAX];
    struct cox_index_row row;

    COX_ASSERT(cox_index_row_decode(bytes, &row, labels) == COX_OK);
    enum cox_err err = put(index, &row, bytes, h->fresh, error);

    index->n_stale -= !h->fresh;
    cox_free(h);
    return err;
}

/* In the order of the ids, so that equal changes make equal files. */
enum cox_err store_index_flush(struct store_index *index, enum store_flush which, struct cox_buf *error)
{
    size_t n = 0, it = 0;
    enum cox_err err = COX_OK;
    uint64_t id;
    void *row;

    if (index->held.len == 0 || (which == STORE_FLUSH_STALE && index->n_stale == 0))
        return COX_OK;
    uint64_t *ids = cox_alloc(index->held.len * sizeof(*ids));

    while (cox_map64_next(&index->held, &it, &id, &row))
        if (which != STORE_FLUSH_STALE || !((struct held *)row)->fresh)
            ids[n++] = id;
    qsort(ids, n, sizeof(*ids), by_id);
    if (which == STORE_FLUSH_FEW && n > FLUSH_FEW)
        n = FLUSH_FEW;
    for (size_t i = 0; i < n && err == COX_OK; i++)
        err = write_held(index, ids[i], error);
    cox_free(ids);
    return err;
}

enum cox_err store_index_remove(struct store_index *index, uint64_t id, struct cox_buf *error)
{
    enum cox_err err = begin(index, error);

    drop_held(index, id);
    if (err == COX_OK)
        err = unpost(index, id, error);
    if (err != COX_OK)
        return err;
    store_bind_u64(index->st[INDEX_REMOVE], 1, id);
    return store_db_run(&index->db, index->st[INDEX_REMOVE], "forgetting a task", error);
}

enum cox_err store_index_commit(struct store_index *index, struct cox_buf *error)
{
    if (!index->begun)
        return COX_OK;
    index->begun = false;
    return store_db_run(&index->db, index->st[INDEX_COMMIT], "committing the index", error);
}

enum cox_err store_index_sync(struct store_index *index, uint64_t seq, struct cox_buf *error)
{
    store_bind_u64(index->st[INDEX_COVER], 1, seq);
    (void)sqlite3_bind_int(index->st[INDEX_COVER], 2, index->complete ? 1 : 0);
    return store_db_sync(&index->db, index->st[INDEX_COVER], "syncing the index", error);
}

enum cox_err store_index_status(struct store_index *index, uint64_t id, uint8_t *ret_status,
                                struct cox_buf *error)
{
    struct cox_label labels[COX_LABELS_MAX];
    struct cox_index_row row = { 0 };

    *ret_status = COX_TASK_PENDING;
    if (cox_map64_get(&index->held, id))
        return COX_OK;
    enum cox_err err = get(index, id, &row, labels, error);

    *ret_status = err == COX_OK ? row.status : 0;
    (void)sqlite3_reset(index->st[INDEX_GET]);
    return err == COX_ERR_NOT_FOUND ? COX_OK : err;
}
