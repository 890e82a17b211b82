/* Reads everything, for a check offline. */
#include "internal.h"
#include "row.h"
#include "space.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <dirent.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct check {
    struct cox_store *s;
    struct cox_store_check *c;
    struct cox_hash wanted;
    uint64_t wanted_by;
};

static void say(struct check *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct check *k, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    k->c->problem(k->c->user, text);
}

static void hex(const uint8_t *hash, char text[65])
{
    for (size_t i = 0; i < 32; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", hash[i]);
}

/* Calls `row` for each row. */
static enum cox_err each(struct check *k, const char *sql, void (*row)(struct check *k, sqlite3_stmt *st),
                         struct cox_buf *error)
{
    struct store_db *db = &k->s->state.db;
    sqlite3_stmt *st = NULL;
    int rc = SQLITE_DONE;
    enum cox_err err = store_db_prepare(db, sql, &st, error);

    while (err == COX_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
        row(k, st);
    if (err == COX_OK && rc != SQLITE_DONE)
        err = store_db_failed(db, "reading all of it", error);
    (void)sqlite3_finalize(st);
    return err;
}

static void check_task(struct check *k, sqlite3_stmt *st)
{
    uint64_t id = store_column_u64(st, 0);
    struct cox_slice bytes = store_column_bytes(st, 2);

    k->c->n_archived++;
    if ((uint32_t)sqlite3_column_int64(st, 1) != store_crc(bytes))
        say(k, "archived task %" PRIu64 ": its checksum does not match", id);
    else if (!k->c->task(k->c->user, id, bytes))
        say(k, "archived task %" PRIu64 ": it cannot be read", id);
}

/* Of quarantined tasks: recovery reads it when they are lifted, and not before. */
static void check_aside(struct check *k, sqlite3_stmt *st)
{
    int kind = sqlite3_column_int(st, 1);
    uint64_t root = store_column_u64(st, 0), id = store_column_u64(st, 2);

    if ((uint32_t)sqlite3_column_int64(st, 3) == store_crc(store_column_bytes(st, 4)))
        return;
    if (kind == 0)
        say(k, "record %" PRIu64 " that is kept aside for task %" PRIu64 ": its checksum does not match", id,
            root);
    else
        say(k,
            "entity (%d, %" PRIu64 ") that is kept aside for task %" PRIu64 ": its checksum does not match",
            kind, id, root);
}

/* A row is named by a key of its bytes' hash and of its owner's space. Checksums do not see bytes that are
 * sound and another row's. */
static bool is_named_right(struct check *k, struct cox_slice name, struct cox_slice bytes, sqlite3_stmt *st)
{
    struct cox_hash hash, key;
    struct cox_space space;

    COX_ASSERT(EVP_Digest(bytes.data, bytes.len, hash.b, NULL, EVP_sha256(), NULL) == 1);
    if (memcmp(hash.b, name.data, sizeof(hash.b)) == 0 || COX_PLANTED("verify-by-checksum"))
        return true;
    if (sqlite3_column_type(st, 3) == SQLITE_NULL || !k->c->space ||
        !k->c->space(k->c->user, store_column_u64(st, 3), &space))
        return true;
    key = store_space_key(&space, &hash);
    return memcmp(key.b, name.data, sizeof(key.b)) == 0;
}

static void check_payload(struct check *k, sqlite3_stmt *st)
{
    struct cox_slice name = store_column_bytes(st, 0), bytes = store_column_bytes(st, 2);
    char text[65];

    k->c->n_payloads++;
    if (name.len != sizeof(struct cox_hash)) {
        say(k, "a payload's name is no hash");
        return;
    }
    hex(name.data, text);
    if ((uint32_t)sqlite3_column_int64(st, 1) != store_crc(bytes) || !is_named_right(k, name, bytes, st))
        say(k, "payload sha256:%s: its bytes are others", text);
}

/* Calls `fn` for each blob, until it says that it has seen enough. */
static bool each_blob(struct check *k,
                      bool (*fn)(struct check *k, const char *path, const struct store_blob_name *name))
{
    bool over = false;

    for (unsigned i = 0; i < STORE_BLOB_DIRS && !over; i++) {
        const char sub_dir[3] = { "0123456789abcdef"[i >> 4], "0123456789abcdef"[i & 15], '\0' };
        struct dirent *entry;

        char *dir = cox_asprintf("%s/%s", k->s->blobs.dir, sub_dir);
        DIR *d = opendir(dir);

        while (d && !over && (entry = readdir(d))) {
            struct store_blob_name name;

            if (!store_blob_parse(sub_dir, entry->d_name, &name))
                continue;
            char *path = cox_asprintf("%s/%s", dir, entry->d_name);

            over = fn(k, path, &name);
            cox_free(path);
        }
        if (d)
            (void)closedir(d);
        cox_free(dir);
    }
    return over;
}

/* Owners name a blob by its key; what is kept for ever is named by its hash, whosever it is. */
static bool is_wanted(struct check *k, const char *path, const struct store_blob_name *name)
{
    (void)path;
    return memcmp(name->key.b, k->wanted.b, sizeof(k->wanted.b)) == 0 ||
           (k->wanted_by == 0 && memcmp(name->hash.b, k->wanted.b, sizeof(k->wanted.b)) == 0);
}

/* What is owned, and is no payload, must be a blob. */
static void check_ref(struct check *k, sqlite3_stmt *st)
{
    struct cox_slice bytes = store_column_bytes(st, 0);
    uint64_t size;
    char text[65];

    k->c->n_owned++;
    if (bytes.len != sizeof(k->wanted.b)) {
        say(k, "an owner's value is no hash");
        return;
    }
    memcpy(k->wanted.b, bytes.data, sizeof(k->wanted.b));
    k->wanted_by = store_column_u64(st, 1);
    hex(k->wanted.b, text);
    if (!cox_blob_known(k->s, NULL, &k->wanted, &size) && !each_blob(k, is_wanted))
        say(k, "value sha256:%s of task %" PRIu64 " is not there", text, k->wanted_by);
}

/* Piece by piece: a blob may be as long as memory. */
static bool check_blob(struct check *k, const char *path, const struct store_blob_name *name)
{
    const struct cox_hash *hash = &name->hash;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    struct cox_hash found;
    struct cox_buf piece = { 0 };
    uint64_t at = 0;
    enum cox_err err;
    char text[65];

    k->c->n_blobs++;
    COX_ASSERT(digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1);
    do {
        cox_buf_clear(&piece);
        err = store_blob_read_file(path, at, 1 << 20, &piece);
        COX_ASSERT(EVP_DigestUpdate(digest, piece.data, piece.len) == 1);
        at += piece.len;
    } while (err == COX_OK && piece.len > 0);
    COX_ASSERT(EVP_DigestFinal_ex(digest, found.b, NULL) == 1);
    EVP_MD_CTX_free(digest);
    cox_buf_fini(&piece);
    if (err == COX_OK && memcmp(found.b, hash->b, sizeof(found.b)) == 0)
        return false;
    hex(hash->b, text);
    say(k, "blob sha256:%s: %s", text, err == COX_OK ? "its bytes are others" : cox_err_text(err));
    return false;
}

static void check_structure(struct check *k, sqlite3_stmt *st)
{
    const char *word = (const char *)sqlite3_column_text(st, 0);

    if (word && strcmp(word, "ok") != 0)
        say(k, "%s: %s", k->s->state.db.path, word);
}

enum cox_err cox_store_check(struct cox_store *s, struct cox_store_check *c, struct cox_buf *error)
{
    struct check k = { .s = s, .c = c };

    COX_ASSERT(s->recovered && !s->state_thread.started);
    c->n_archived = c->n_payloads = c->n_blobs = c->n_owned = 0;
    enum cox_err err = each(&k, "PRAGMA integrity_check", check_structure, error);

    if (err == COX_OK)
        err = each(&k, "SELECT id, crc, d FROM archive", check_task, error);
    if (err == COX_OK)
        err = each(&k, "SELECT root, kind, id, crc, d FROM aside", check_aside, error);
    if (err == COX_OK)
        err = each(&k,
                   "SELECT hash, crc, d, (SELECT owner FROM ref WHERE ref.hash = payload.hash LIMIT 1)"
                   " FROM payload",
                   check_payload, error);
    if (err == COX_OK)
        err = each(&k,
                   "SELECT ref.hash, ref.owner FROM ref"
                   " WHERE NOT EXISTS(SELECT 1 FROM payload WHERE payload.hash = ref.hash)",
                   check_ref, error);
    if (err == COX_OK)
        (void)each_blob(&k, check_blob);
    return err;
}
