#include "state_sqlite.h"

#include "row.h"
#include "space.h"

#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>

#define APPLICATION_ID 0x436f7873 /* "Coxs" */
#define CHECKPOINT_PAGES 4000
#define CACHE_KIB 16384

static const char *const schema[] = {
    "CREATE TABLE entity(kind INTEGER NOT NULL, id INTEGER NOT NULL, sub INTEGER NOT NULL,"
    " applied_seq INTEGER NOT NULL, crc INTEGER NOT NULL, d BLOB NOT NULL,"
    " PRIMARY KEY(kind, id, sub)) WITHOUT ROWID;"
    "CREATE TABLE payload(hash BLOB NOT NULL UNIQUE, crc INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL, d BLOB NOT NULL);"
    "CREATE TABLE archive(id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, d BLOB NOT NULL);"
    "CREATE TABLE covered(one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL,"
    " syncs INTEGER NOT NULL);"
    "INSERT INTO covered VALUES(1, 0, 0);",

    /* Whose the payloads of format 1 are is not known, so they stay; its tasks are as old as this day.
     * `ended` is what the index is made from again, and what grows old; `deleted` is what the log may bring
     * back, until it is cut. */
    "ALTER TABLE archive ADD COLUMN root INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX archive_root ON archive(root) WHERE root != 0;"
    "CREATE TABLE ref(owner INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY(owner, hash)) WITHOUT ROWID;"
    "CREATE INDEX ref_hash ON ref(hash);"
    "INSERT INTO ref SELECT 0, hash FROM payload;"
    "CREATE TABLE ended(id INTEGER PRIMARY KEY, ended_ms INTEGER NOT NULL, d BLOB);"
    "INSERT INTO ended SELECT id, CAST(strftime('%s', 'now') AS INTEGER) * 1000, NULL FROM archive;"
    "CREATE TABLE deleted(id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, more INTEGER NOT NULL);"
    "CREATE INDEX deleted_more ON deleted(more) WHERE more != 0;",

    "CREATE TABLE quarantine(id INTEGER PRIMARY KEY, state INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " since_ms INTEGER NOT NULL, why TEXT NOT NULL);"
    "CREATE TABLE aside(root INTEGER NOT NULL, kind INTEGER NOT NULL, id INTEGER NOT NULL,"
    " sub INTEGER NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT NULL, d BLOB NOT NULL,"
    " PRIMARY KEY(root, kind, id, sub)) WITHOUT ROWID;",
};

static const char *const statements[STATE_STATEMENT_NR] = {
    [STATE_BEGIN] = "BEGIN",
    [STATE_COMMIT] = "COMMIT",
    [STATE_SAVE] = "INSERT INTO entity(kind, id, sub, applied_seq, crc, d) VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
                   " ON CONFLICT DO UPDATE SET applied_seq = ?4, crc = ?5, d = ?6",
    [STATE_FORGET] = "DELETE FROM entity WHERE kind = ?1 AND id = ?2 AND sub = ?3",
    [STATE_ARCHIVE] = "REPLACE INTO archive(id, crc, d, root) VALUES(?1, ?2, ?3, ?4)",
    [STATE_PUT_PAYLOAD] = "INSERT INTO payload(hash, crc, created_ms, d) VALUES(?1, ?2, ?3, ?4)"
                          " ON CONFLICT DO NOTHING",
    [STATE_OWN] = "INSERT INTO ref(owner, hash) VALUES(?1, ?2) ON CONFLICT DO NOTHING",
    [STATE_OWN_ALL] = "INSERT INTO ref(owner, hash) SELECT ?1, hash FROM ref WHERE owner = ?2"
                      " ON CONFLICT DO NOTHING",
    [STATE_READ_ARCHIVE] = "SELECT crc, d FROM archive WHERE id = ?1",
    [STATE_READ_PAYLOAD] = "SELECT crc, d FROM payload WHERE hash = ?1",
    [STATE_READ_ENTITY] = "SELECT crc, d FROM entity WHERE kind = ?1 AND id = ?2 AND sub = ?3",
    [STATE_PUT_ENDED] = "REPLACE INTO ended(id, ended_ms, d) VALUES(?1, ?2, ?3)",
    [STATE_NEXT_ENDED] = "SELECT id, d FROM ended WHERE id < ?1 AND d IS NOT NULL ORDER BY id DESC LIMIT 1",
    [STATE_FIND_DELETED] = "SELECT 1 FROM deleted WHERE id = ?1",
    [STATE_FORGET_DELETED] = "DELETE FROM deleted WHERE seq <= ?1 AND more = 0",
    [STATE_FIND_ROOT] = "SELECT 1 FROM archive WHERE id = ?1 AND root = 0",
    [STATE_NOTE_DELETED] = "REPLACE INTO deleted(id, seq, more) VALUES(?1, ?2, ?3)",
    [STATE_DELETE_TASK] = "DELETE FROM archive WHERE id = ?1",
    [STATE_DELETE_FRAMES] = "DELETE FROM archive WHERE id IN"
                            " (SELECT id FROM archive WHERE root = ?1 AND root != 0 LIMIT ?2)",
    [STATE_DELETE_REFS] = "DELETE FROM ref WHERE owner = ?1 AND hash IN"
                          " (SELECT hash FROM ref WHERE owner = ?1 LIMIT ?2)",
    [STATE_DELETE_ENDED] = "DELETE FROM ended WHERE id = ?1",
    [STATE_HALF_DELETED] = "SELECT id, seq FROM deleted WHERE more != 0 LIMIT 1",
    [STATE_ENDED_AFTER] = "SELECT id, ended_ms, d FROM ended WHERE id > ?1 ORDER BY id LIMIT 1",
    [STATE_NEXT_PAYLOAD] = "SELECT rowid FROM payload WHERE rowid > ?1 ORDER BY rowid LIMIT 1",
    [STATE_DELETE_PAYLOAD] = "DELETE FROM payload WHERE rowid = ?1 AND created_ms < ?2"
                             " AND NOT EXISTS(SELECT 1 FROM ref WHERE ref.hash = payload.hash)",
    [STATE_FIND_REF] = "SELECT 1 FROM ref WHERE hash = ?1 AND (?2 OR owner = 0) LIMIT 1",
    [STATE_PUT_ASIDE] = "INSERT INTO aside(root, kind, id, sub, seq, crc, d) VALUES(?1, 0, ?2, 0, ?2, ?3, ?4)"
                        " ON CONFLICT DO NOTHING",
    [STATE_MOVE_ASIDE] = "REPLACE INTO aside(root, kind, id, sub, seq, crc, d)"
                         " SELECT ?1, kind, id, sub, applied_seq, crc, d FROM entity"
                         " WHERE kind = ?2 AND id = ?3 AND sub = ?4",
    [STATE_DELETE_ASIDE] =
        "DELETE FROM aside WHERE root = ?1 AND (kind, id, sub) IN"
        " (SELECT kind, id, sub FROM aside WHERE root = ?1 AND EXISTS(SELECT 1 FROM quarantine"
        " WHERE quarantine.id = ?1 AND state = " STORE_QUARANTINE_DELETED ") LIMIT ?2)",
    [STATE_DELETE_QUARANTINE] = "UPDATE quarantine SET state = " STORE_QUARANTINE_DELETED ", seq = ?2"
                                " WHERE id = ?1 AND state != " STORE_QUARANTINE_LIFTED,
    [STATE_COVER] = "UPDATE covered SET seq = ?1, syncs = syncs + 1",
};

static enum cox_err load_covered(struct store_state *state, struct cox_buf *error)
{
    return store_db_query_u64(&state->db, "SELECT seq FROM covered", &state->covered_seq, error);
}

enum cox_err store_state_open(struct store_state *state, const char *dir, const struct store_tuning *tuning,
                              struct store_identity *identity, struct cox_buf *error)
{
    const struct store_db_spec spec = {
        .dir = dir,
        .name = "state.db",
        .synchronous = "NORMAL",
        .application_id = APPLICATION_ID,
        .checkpoint_pages = CHECKPOINT_PAGES,
        .cache_kib = CACHE_KIB,
        .schema = schema,
        .format = sizeof(schema) / sizeof(schema[0]),
    };

    *state = (struct store_state){ 0 };
    enum cox_err err = store_db_open(&state->db, &spec, tuning, identity, error);

    if (err != COX_OK)
        return err;
    for (size_t i = 0; i < STATE_STATEMENT_NR && err == COX_OK; i++)
        err = store_db_prepare(&state->db,
                               i == STATE_DELETE_PAYLOAD && COX_PLANTED("swept-live-payload")
                                   ? "DELETE FROM payload WHERE rowid = ?1 AND created_ms < ?2"
                                   : statements[i],
                               &state->st[i], error);
    if (err == COX_OK)
        err = load_covered(state, error);
    if (err == COX_OK)
        err = store_db_query_u64(&state->db, "SELECT count(*) FROM deleted", &state->n_deleted, error);
    if (err == COX_OK)
        err = store_state_count_quarantine(state, error);
    if (err != COX_OK)
        store_state_close(state, false);
    return err;
}

void store_state_close(struct store_state *state, bool clean)
{
    for (size_t i = 0; i < STATE_STATEMENT_NR; i++)
        (void)sqlite3_finalize(state->st[i]);
    store_db_close(&state->db, clean);
    *state = (struct store_state){ 0 };
}

enum cox_err store_state_begin(struct store_state *state, struct cox_buf *error)
{
    return store_db_run(&state->db, state->st[STATE_BEGIN], "beginning a transaction", error);
}

enum cox_err store_state_commit(struct store_state *state, struct cox_buf *error)
{
    return store_db_run(&state->db, state->st[STATE_COMMIT], "committing", error);
}

static void bind_hash(sqlite3_stmt *st, int at, const struct cox_hash *hash)
{
    store_bind_bytes(st, at, cox_slice(hash->b, sizeof(hash->b)));
}

static void bind_key(sqlite3_stmt *st, struct cox_entity_key key)
{
    (void)sqlite3_bind_int(st, 1, key.kind);
    store_bind_u64(st, 2, key.id);
    (void)sqlite3_bind_int64(st, 3, key.sub);
}

static void bind_blob(sqlite3_stmt *st, int at_crc, int at, struct cox_slice s)
{
    (void)sqlite3_bind_int64(st, at_crc, store_crc(s));
    store_bind_bytes(st, at, s);
}

/* Runs a read whose row is (crc, d). */
static enum cox_err read_blob(struct store_state *state, sqlite3_stmt *st, struct cox_buf *ret,
                              enum cox_err *ret_answer, struct cox_buf *error)
{
    enum cox_err err = COX_OK;
    int rc = sqlite3_step(st);

    cox_buf_clear(ret);
    if (rc == SQLITE_ROW) {
        struct cox_slice s = store_column_bytes(st, 1);

        *ret_answer = (uint32_t)sqlite3_column_int64(st, 0) == store_crc(s) ? COX_OK : COX_ERR_CORRUPT;
        if (*ret_answer == COX_OK)
            cox_buf_append_slice(ret, s);
    } else if (rc == SQLITE_DONE) {
        *ret_answer = COX_ERR_NOT_FOUND;
    } else {
        err = store_db_failed(&state->db, "reading", error);
    }
    (void)sqlite3_reset(st);
    return err;
}

/* Who knows a hash and a tenant's name can work out the key of its row. Asked for as a hash of the default
 * space, whose keys are hashes, it finds the row; but its bytes are not what such a name promises. */
static bool is_of_another_space(const struct cox_store_request *req)
{
    struct cox_hash found;

    if (!store_space_is_default(&req->space) || COX_PLANTED("keys-are-hashes"))
        return false;
    COX_ASSERT(EVP_Digest(req->bytes.data, req->bytes.len, found.b, NULL, EVP_sha256(), NULL) == 1);
    return memcmp(found.b, req->hash.b, sizeof(found.b)) != 0;
}

static enum cox_err read_payload(struct store_state *state, struct cox_store_request *req,
                                 enum cox_err *ret_answer, struct cox_buf *error)
{
    const struct cox_hash key = store_space_key(&req->space, &req->hash);
    sqlite3_stmt *st = state->st[STATE_READ_PAYLOAD];

    bind_hash(st, 1, &key);
    enum cox_err err = read_blob(state, st, &req->bytes, ret_answer, error);

    if (err == COX_OK && *ret_answer == COX_OK && is_of_another_space(req)) {
        cox_buf_clear(&req->bytes);
        *ret_answer = COX_ERR_NOT_FOUND;
    }
    return err;
}

static enum cox_err put_payload(struct store_state *state, const struct cox_store_request *req,
                                struct cox_buf *error)
{
    const struct cox_hash key = store_space_key(&req->space, &req->hash);
    sqlite3_stmt *st = state->st[req->id != 0 ? STATE_OWN_ALL : STATE_OWN];

    store_bind_u64(st, 1, req->owner);
    if (req->id != 0)
        store_bind_u64(st, 2, req->id);
    else
        bind_hash(st, 2, &key);
    enum cox_err err = store_db_run(&state->db, st, "noting a payload's owner", error);

    if (err != COX_OK || req->bytes.len == 0)
        return err;
    st = state->st[STATE_PUT_PAYLOAD];
    bind_hash(st, 1, &key);
    bind_blob(st, 2, 4, cox_buf_slice(&req->bytes));
    (void)sqlite3_bind_int64(st, 3, cox_clock_wall_ms());
    return store_db_run(&state->db, st, "storing a payload", error);
}

enum cox_err store_state_is_deleted(struct store_state *state, uint64_t id, bool *ret, struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[STATE_FIND_DELETED];

    *ret = false;
    if (state->n_deleted == 0 || id == 0)
        return COX_OK;
    store_bind_u64(st, 1, id);
    return store_db_find(&state->db, st, "looking for what was deleted", ret, error);
}

/* What the log brings back of a deleted task goes nowhere. */
static enum cox_err belongs_to_deleted(struct store_state *state, const struct cox_store_request *req,
                                       bool *ret, struct cox_buf *error)
{
    enum cox_err err = COX_OK;

    *ret = false;
    if (req->op == COX_STORE_ARCHIVE)
        err = store_state_is_deleted(state, req->id, ret, error);
    if (err == COX_OK && !*ret && (req->op == COX_STORE_ARCHIVE || req->op == COX_STORE_PUT_PAYLOAD))
        err = store_state_is_deleted(state, req->owner, ret, error);
    return err;
}

enum cox_err store_state_apply(struct store_state *state, struct cox_store_request *req,
                               enum cox_err *ret_answer, struct cox_buf *error)
{
    struct cox_slice bytes = cox_buf_slice(&req->bytes);
    sqlite3_stmt *st;

    bool deleted;
    enum cox_err err = belongs_to_deleted(state, req, &deleted, error);

    *ret_answer = COX_OK;
    if (err != COX_OK || deleted)
        return err;
    switch (req->op) {
    case COX_STORE_SAVE:
        st = state->st[STATE_SAVE];
        bind_key(st, req->key);
        store_bind_u64(st, 4, req->seq);
        bind_blob(st, 5, 6, bytes);
        return store_db_run(&state->db, st, "saving an entity", error);
    case COX_STORE_FORGET:
        st = state->st[STATE_FORGET];
        bind_key(st, req->key);
        return store_db_run(&state->db, st, "forgetting an entity", error);
    case COX_STORE_ARCHIVE:
        st = state->st[STATE_ARCHIVE];
        store_bind_u64(st, 1, req->id);
        bind_blob(st, 2, 3, bytes);
        store_bind_u64(st, 4, req->owner);
        return store_db_run(&state->db, st, "archiving a task", error);
    case COX_STORE_PUT_PAYLOAD:
        return put_payload(state, req, error);
    case COX_STORE_ASIDE:
        return store_state_set_aside(state, req, error);
    case COX_STORE_READ_ARCHIVE:
        st = state->st[STATE_READ_ARCHIVE];
        store_bind_u64(st, 1, req->id);
        return read_blob(state, st, &req->bytes, ret_answer, error);
    case COX_STORE_READ_PAYLOAD:
        return read_payload(state, req, ret_answer, error);
    case COX_STORE_READ_ENTITY:
        st = state->st[STATE_READ_ENTITY];
        bind_key(st, req->key);
        return read_blob(state, st, &req->bytes, ret_answer, error);
    default:
        break;
    }
    COX_ASSERT(!"a request that is not the state's");
    return COX_ERR_INTERNAL;
}

/* What the log has, recovery would archive again. */
static enum cox_err forget_deleted(struct store_state *state, struct cox_buf *error)
{
    sqlite3_stmt *st = state->st[STATE_FORGET_DELETED];

    if (state->n_deleted == 0)
        return COX_OK;
    store_bind_u64(st, 1, COX_PLANTED("deleted-forgotten") ? UINT64_MAX >> 1 : state->dropped_seq);
    enum cox_err err = store_db_run(&state->db, st, "forgetting what was deleted", error);

    if (err == COX_OK)
        state->n_deleted -= (uint64_t)sqlite3_changes64(state->db.sql);
    return err;
}

/* The counter in the row makes it a commit: SQLite writes nothing, and so syncs nothing, when a row is set to
 * what it is. */
enum cox_err store_state_sync(struct store_state *state, uint64_t seq, struct cox_buf *error)
{
    enum cox_err err = COX_OK;

    if (seq > state->covered_seq)
        err = forget_deleted(state, error);
    else
        seq = state->covered_seq;
    if (err == COX_OK && seq > state->covered_seq)
        err = store_state_forget_quarantine(state, error);
    if (err != COX_OK)
        return err;
    store_bind_u64(state->st[STATE_COVER], 1, seq);
    err = store_db_sync(&state->db, state->st[STATE_COVER], "syncing the state", error);
    if (err != COX_OK)
        return err;
    state->covered_seq = seq;
    state->disowned = false;
    return COX_OK;
}

static enum cox_err scan_entity(struct store_state *state, sqlite3_stmt *st, uint64_t *applied_seq,
                                const struct cox_store_recovery *r, struct cox_buf *error)
{
    struct cox_entity_key key = {
        .kind = (uint8_t)sqlite3_column_int(st, 0),
        .id = store_column_u64(st, 1),
        .sub = (uint32_t)sqlite3_column_int64(st, 2),
    };
    uint64_t seq = store_column_u64(st, 3);
    struct cox_slice bytes = store_column_bytes(st, 5);
    const char *why = "its checksum does not match";
    enum cox_err err = COX_ERR_CORRUPT;

    if ((uint32_t)sqlite3_column_int64(st, 4) == store_crc(bytes)) {
        why = "it was not accepted";
        err = r->entity(r->user, key, seq, bytes);
    }
    if (err != COX_OK)
        cox_buf_printf(error, "%s: entity (%u, %" PRIu64 ", %" PRIu32 "): %s", state->db.path, key.kind,
                       key.id, key.sub, why);
    else if (seq > *applied_seq)
        *applied_seq = seq;
    return err;
}

enum cox_err store_state_scan(struct store_state *state, const struct cox_store_recovery *r,
                              uint64_t *ret_applied_seq, struct cox_buf *error)
{
    sqlite3_stmt *st = NULL;
    int rc = SQLITE_DONE;
    enum cox_err err = store_db_prepare(
        &state->db, "SELECT kind, id, sub, applied_seq, crc, d FROM entity ORDER BY kind, id, sub", &st,
        error);

    *ret_applied_seq = 0;
    while (err == COX_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
        err = scan_entity(state, st, ret_applied_seq, r, error);
    if (err == COX_OK && rc != SQLITE_DONE)
        err = store_db_failed(&state->db, "reading the entities", error);
    (void)sqlite3_finalize(st);
    return err;
}
