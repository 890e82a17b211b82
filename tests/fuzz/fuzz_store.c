/* A store that is durable at once. What it was given is kept over restarts of its coxd, blobs too. */
#include "fuzz_coxd.h"

#include "../../orchestrator/sha256.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/limits.h"
#include "cox/store.h"

#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 4096

struct cox_store {
    struct cox_buf log; /* every record ever, framed */
    struct batch {
        uint64_t first_seq;
        uint32_t n;
        size_t from, to;
    } * batches;
    size_t n_batches;
    uint64_t last_seq, truncated_seq;
    struct cox_mapb entities; /* key -> struct saved */
    struct cox_map64 archive; /* id -> struct cox_buf */
    struct cox_mapb values;   /* hash -> struct cox_buf: payloads and blobs */
    struct row {
        uint64_t id;
        struct cox_buf bytes;
    } * rows; /* by id */
    size_t n_rows;
    struct cox_store_event events[EVENTS_MAX];
    size_t n_events, n_polled;
};
struct saved {
    struct cox_entity_key key;
    uint64_t seq;
    struct cox_buf bytes;
};
struct cox_blob_writer {
    struct cox_store *store;
    struct cox_buf bytes;
};

static struct cox_store *used;

struct cox_store *fuzz_store_create(void)
{
    return COX_NEW(struct cox_store);
}

static void buf_free(struct cox_buf *b)
{
    if (b)
        cox_buf_fini(b);
    cox_free(b);
}

static void values_free(struct cox_mapb *m, bool saved)
{
    struct cox_slice key;
    size_t it = 0;
    void *v;

    while (cox_mapb_next(m, &it, &key, &v)) {
        if (saved)
            cox_buf_fini(&((struct saved *)v)->bytes);
        else
            cox_buf_fini(v);
        cox_free(v);
    }
    cox_mapb_fini(m);
}

void fuzz_store_free(struct cox_store *s)
{
    size_t it = 0;
    uint64_t id;
    void *b;

    values_free(&s->entities, true);
    values_free(&s->values, false);
    while (cox_map64_next(&s->archive, &it, &id, &b))
        buf_free(b);
    cox_map64_fini(&s->archive);
    for (size_t i = 0; i < s->n_rows; i++)
        cox_buf_fini(&s->rows[i].bytes);
    cox_free(s->rows);
    cox_free(s->batches);
    cox_buf_fini(&s->log);
    cox_free(s);
}

void fuzz_store_use(struct cox_store *s)
{
    used = s;
}

struct cox_slice fuzz_store_log(const struct cox_store *s, uint64_t *ret_n)
{
    *ret_n = s->last_seq;
    return cox_buf_slice(&s->log);
}

bool fuzz_store_idle(const struct cox_store *s)
{
    return s->n_polled == s->n_events;
}

/* ---- life ---- */

enum cox_err cox_store_open(const struct cox_store_config *config, struct cox_store **ret,
                            struct cox_buf *error)
{
    (void)config, (void)error;
    *ret = used;
    return COX_OK;
}

uint64_t cox_store_uid(const struct cox_store *s)
{
    (void)s;
    return 7;
}

static int by_key(const void *a, const void *b)
{
    const struct cox_entity_key *x = &(*(struct saved *const *)a)->key,
                                *y = &(*(struct saved *const *)b)->key;

    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->sub < y->sub ? -1 : x->sub > y->sub;
}

enum cox_err cox_store_quarantine(struct cox_store *s, uint64_t root, const char *why, struct cox_buf *error)
{
    (void)s, (void)root, (void)why, (void)error;
    return COX_ERR_INTERNAL;
}

/* As the real one: by key, then the log after what was cut. */
enum cox_err cox_store_recover(struct cox_store *s, const struct cox_store_recovery *r,
                               uint64_t *ret_last_seq, struct cox_buf *error)
{
    struct saved **sorted = cox_calloc(s->entities.len + 1, sizeof(*sorted));
    enum cox_err err = COX_OK;
    struct cox_slice key;
    size_t it = 0, n = 0;
    void *v;

    (void)error;
    while (cox_mapb_next(&s->entities, &it, &key, &v))
        sorted[n++] = v;
    qsort(sorted, n, sizeof(*sorted), by_key);
    for (size_t i = 0; i < n && !err; i++)
        err = r->entity(r->user, sorted[i]->key, sorted[i]->seq, cox_buf_slice(&sorted[i]->bytes));
    for (size_t i = 0; i < s->n_batches && !err; i++) {
        const struct batch *b = &s->batches[i];
        if (b->first_seq + b->n - 1 > s->truncated_seq)
            err = r->batch(r->user, b->first_seq, b->n, cox_slice(s->log.data + b->from, b->to - b->from));
    }
    cox_free(sorted);
    *ret_last_seq = s->last_seq;
    return err;
}

enum cox_err cox_store_start(struct cox_store *s)
{
    (void)s;
    return COX_OK;
}

void cox_store_close(struct cox_store *s)
{
    for (; s && s->n_polled < s->n_events; s->n_polled++)
        cox_buf_fini(&s->events[s->n_polled].bytes);
}

/* ---- the log ---- */

bool cox_store_append(struct cox_store *s, uint64_t first_seq, uint32_t n, struct cox_buf *records)
{
    COX_ASSERT(n > 0 && first_seq == s->last_seq + 1);
    s->batches = cox_realloc(s->batches, s->n_batches + 1, sizeof(*s->batches));
    s->batches[s->n_batches++] = (struct batch){ first_seq, n, s->log.len, s->log.len + records->len };
    cox_buf_append_slice(&s->log, cox_buf_slice(records));
    cox_buf_clear(records);
    s->last_seq += n;
    return true;
}

uint64_t cox_store_durable_seq(const struct cox_store *s)
{
    return s->last_seq;
}

size_t cox_store_append_room(const struct cox_store *s)
{
    (void)s;
    return 64;
}

/* ---- the state ---- */

static void event(struct cox_store *s, const struct cox_store_request *req, enum cox_err err,
                  const struct cox_buf *bytes)
{
    if (fuzz_store_idle(s))
        s->n_events = s->n_polled = 0;
    COX_ASSERT(s->n_events < EVENTS_MAX);
    struct cox_store_event *ev = &s->events[s->n_events++];

    *ev = (struct cox_store_event){ .op = req->op, .ticket = req->ticket, .id = req->id, .err = err };
    if (bytes)
        cox_buf_append_slice(&ev->bytes, cox_buf_slice(bytes));
}

bool cox_store_poll(struct cox_store *s, struct cox_store_event *ret)
{
    if (fuzz_store_idle(s))
        return false;
    *ret = s->events[s->n_polled++];
    return true;
}

static struct cox_slice key_bytes(const struct cox_entity_key *key, uint8_t ret[13])
{
    ret[0] = key->kind;
    memcpy(ret + 1, &key->id, 8);
    memcpy(ret + 9, &key->sub, 4);
    return cox_slice(ret, 13);
}

static struct cox_buf *buf_moved(struct cox_buf *from)
{
    struct cox_buf *b = COX_NEW(struct cox_buf);

    *b = *from;
    *from = (struct cox_buf){ 0 };
    return b;
}

static void entity_set(struct cox_store *s, struct cox_store_request *req)
{
    struct saved *v = NULL, *old;
    uint8_t text[13];
    struct cox_slice key = key_bytes(&req->key, text);

    if (req->op == COX_STORE_SAVE) {
        v = COX_NEW(struct saved);
        *v = (struct saved){ req->key, req->seq, req->bytes };
        req->bytes = (struct cox_buf){ 0 };
    }
    old = v ? cox_mapb_set(&s->entities, key, v) : cox_mapb_remove(&s->entities, key);
    if (old)
        cox_buf_fini(&old->bytes);
    cox_free(old);
}

static void value_put(struct cox_store *s, const struct cox_hash *hash, struct cox_buf *bytes)
{
    struct cox_slice key = cox_slice(hash->b, sizeof(hash->b));

    if (bytes->len > 0 && !cox_mapb_get(&s->values, key))
        cox_mapb_set(&s->values, key, buf_moved(bytes));
}

static struct row *row_find(struct cox_store *s, uint64_t id)
{
    for (size_t i = 0; i < s->n_rows; i++) {
        if (s->rows[i].id == id)
            return &s->rows[i];
    }
    return NULL;
}

static void row_put(struct cox_store *s, struct cox_store_request *req)
{
    struct row *r = row_find(s, req->id);

    if (!r) {
        s->rows = cox_realloc(s->rows, s->n_rows + 1, sizeof(*s->rows));
        r = &s->rows[s->n_rows++];
        *r = (struct row){ .id = req->id };
    }
    cox_buf_clear(&r->bytes);
    cox_buf_append_slice(&r->bytes, cox_buf_slice(&req->bytes));
}

/* Newest first; what else a query asks for is the index's own tests' business. */
static void list(struct cox_store *s, const struct cox_store_request *req)
{
    struct cox_label labels[COX_LABELS_MAX];
    struct cox_buf rows = { 0 }, page = { 0 };
    struct cox_index_query q;
    uint64_t last = 0;
    uint32_t n = 0;
    bool more = false;

    COX_ASSERT(cox_index_query_decode(cox_buf_slice(&req->bytes), &q, labels) == COX_OK);
    for (size_t i = s->n_rows; i-- > 0 && !more;) {
        if (q.before_id && s->rows[i].id >= q.before_id)
            continue;
        more = n == q.limit;
        if (more)
            break;
        cox_put_bytes(&rows, cox_buf_slice(&s->rows[i].bytes));
        last = s->rows[i].id;
        n++;
    }
    cox_put_u32(&page, n);
    cox_put_u8(&page, more);
    cox_put_u64(&page, req->seq);
    cox_put_u64(&page, last);
    cox_buf_append_slice(&page, cox_buf_slice(&rows));
    event(s, req, COX_OK, &page);
    cox_buf_fini(&rows);
    cox_buf_fini(&page);
}

static void read_back(struct cox_store *s, const struct cox_store_request *req)
{
    const struct cox_buf *found = NULL;
    const struct saved *saved;
    uint8_t text[13];

    if (req->op == COX_STORE_READ_ARCHIVE) {
        found = cox_map64_get(&s->archive, req->id);
    } else if (req->op == COX_STORE_READ_PAYLOAD) {
        found = cox_mapb_get(&s->values, cox_slice(req->hash.b, sizeof(req->hash.b)));
    } else {
        saved = cox_mapb_get(&s->entities, key_bytes(&req->key, text));
        found = saved ? &saved->bytes : NULL;
    }
    event(s, req, found ? COX_OK : COX_ERR_NOT_FOUND, found);
}

static void forget_task(struct cox_store *s, const struct cox_store_request *req)
{
    struct cox_buf *old = cox_map64_remove(&s->archive, req->id);
    struct row *r = row_find(s, req->id);

    event(s, req, old ? COX_OK : COX_ERR_NOT_FOUND, NULL);
    buf_free(old);
    if (!r)
        return;
    cox_buf_fini(&r->bytes);
    memmove(r, r + 1, (size_t)(s->rows + s->n_rows - r - 1) * sizeof(*r));
    s->n_rows--;
}

bool cox_store_request(struct cox_store *s, struct cox_store_request *req)
{
    COX_ASSERT(req->seq <= s->last_seq);
    switch (req->op) {
    case COX_STORE_SAVE:
    case COX_STORE_FORGET:
        entity_set(s, req);
        break;
    case COX_STORE_ARCHIVE:
        buf_free(cox_map64_set(&s->archive, req->id, buf_moved(&req->bytes)));
        event(s, req, COX_OK, NULL);
        break;
    case COX_STORE_PUT_PAYLOAD:
        value_put(s, &req->hash, &req->bytes);
        break;
    case COX_STORE_TRUNCATE:
        s->truncated_seq = req->seq;
        event(s, req, COX_OK, NULL);
        break;
    case COX_STORE_READ_ARCHIVE:
    case COX_STORE_READ_PAYLOAD:
    case COX_STORE_READ_ENTITY:
        read_back(s, req);
        break;
    case COX_STORE_DELETE:
        forget_task(s, req);
        break;
    case COX_STORE_INDEX:
        row_put(s, req);
        break;
    case COX_STORE_LIST:
        list(s, req);
        break;
    case COX_STORE_SWEEP:
        event(s, req, COX_OK, NULL);
        break;
    case COX_STORE_ASIDE: /* nothing is quarantined here */
        break;
    case COX_STORE_BACKUP:
        event(s, req, COX_ERR_UNAVAILABLE, NULL);
        break;
    }
    cox_buf_fini(&req->bytes);
    return true;
}

void cox_store_stats(const struct cox_store *s, struct cox_store_stats *ret)
{
    *ret = (struct cox_store_stats){ .records = s->last_seq, .log_bytes = s->log.len };
}

uint64_t cox_store_free_bytes(const struct cox_store *s)
{
    (void)s;
    return UINT64_MAX;
}

void cox_store_keep(struct cox_store *s, int64_t retention_ms, uint64_t min_free)
{
    (void)s, (void)retention_ms, (void)min_free;
}

void cox_store_backup_remove(struct cox_store *s)
{
    (void)s;
}

/* ---- blobs ---- */

enum cox_err cox_blob_create(struct cox_store *s, struct cox_blob_writer **ret)
{
    *ret = COX_NEW(struct cox_blob_writer);
    (*ret)->store = s;
    return COX_OK;
}

enum cox_err cox_blob_create_for_task(struct cox_store *s, struct cox_blob_writer **ret)
{
    return cox_blob_create(s, ret);
}

enum cox_err cox_blob_write(struct cox_blob_writer *w, struct cox_slice bytes)
{
    cox_buf_append_slice(&w->bytes, bytes);
    return COX_OK;
}

/* All are of the one tenant. */
enum cox_err cox_blob_done(struct cox_blob_writer *w, const struct cox_space *space,
                           const struct cox_hash *expected, struct cox_hash *ret_hash, uint64_t *ret_size)
{
    (void)space;
    struct cox_hash hash = cox_sha256(cox_buf_slice(&w->bytes));
    bool same = !expected || memcmp(expected, &hash, sizeof(hash)) == 0;

    *ret_size = w->bytes.len;
    if (ret_hash)
        *ret_hash = hash;
    if (same)
        value_put(w->store, &hash, &w->bytes);
    cox_blob_abandon(w);
    return same ? COX_OK : COX_ERR_INVALID;
}

void cox_blob_abandon(struct cox_blob_writer *w)
{
    if (w)
        cox_buf_fini(&w->bytes);
    cox_free(w);
}

bool cox_blob_known(struct cox_store *s, const struct cox_space *space, const struct cox_hash *hash,
                    uint64_t *ret_size)
{
    (void)space;
    const struct cox_buf *b = cox_mapb_get(&s->values, cox_slice(hash->b, sizeof(hash->b)));

    *ret_size = b ? b->len : 0;
    return b != NULL;
}

enum cox_err cox_blob_read(struct cox_store *s, const struct cox_space *space, const struct cox_hash *hash,
                           uint64_t offset, size_t len, struct cox_buf *out)
{
    (void)space;
    const struct cox_buf *b = cox_mapb_get(&s->values, cox_slice(hash->b, sizeof(hash->b)));

    if (!b)
        return COX_ERR_NOT_FOUND;
    if (offset < b->len)
        cox_buf_append(out, b->data + offset, b->len - offset < len ? b->len - (size_t)offset : len);
    return COX_OK;
}
