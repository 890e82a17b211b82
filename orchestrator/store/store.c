/* The owner's side of the store: opening, recovery, handing over, polling, closing. */
#include "internal.h"

#include "cox/base/alloc.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

void store_item_destroy(struct store_item *item)
{
    if (!item)
        return;
    cox_buf_fini(&item->req.bytes);
    cox_free(item);
}

void store_batch_destroy(struct store_batch *b)
{
    if (!b)
        return;
    cox_buf_fini(&b->records);
    cox_free(b);
}

void store_die(struct cox_store *s, const char *what)
{
    if (atomic_exchange(&s->dead, true))
        return;
    store_parker_wake(&s->log_thread.parker);
    store_parker_wake(&s->state_thread.parker);
    if (s->config.on_fatal)
        s->config.on_fatal(s->config.user, what);
}

static struct cox_store *create(const struct cox_store_config *config)
{
    struct cox_store *s = COX_NEW(struct cox_store);

    s->config = *config;
    s->config.uri = cox_strdup(config->uri);
    s->config.data_dir = config->data_dir ? cox_strdup(config->data_dir) : NULL;
    s->identity.shard = config->shard;
    s->dir.lock_fd = -1;
    s->batches = cox_ring_create(STORE_BATCHES_MAX);
    s->requests = cox_ring_create(STORE_REQUESTS_MAX);
    s->truncates = cox_ring_create(STORE_TRUNCATES_MAX);
    s->log_done = cox_ring_create(STORE_TRUNCATES_MAX);
    s->state_done = cox_ring_create(STORE_EVENTS_MAX);
    s->spent = cox_ring_create(STORE_SPENT_MAX);
    store_thread_init(&s->log_thread);
    store_thread_init(&s->state_thread);
    return s;
}

static enum cox_err open_databases(struct cox_store *s, const char *dir, const struct store_tuning *tuning,
                                   struct cox_buf *error)
{
    enum cox_err err = store_log_open(&s->log, dir, tuning, &s->identity, error);

    if (err == COX_OK)
        err = store_state_open(&s->state, dir, tuning, &s->identity, error);
    if (err == COX_OK)
        err = store_index_open(&s->index, dir, tuning, &s->identity, s->state.covered_seq, error);
    if (err == COX_OK && dir)
        err = store_data_dir_sync(dir, error);
    if (err == COX_OK && s->state.covered_seq < s->log.dropped_seq) {
        cox_buf_printf(error,
                       "%s: covers the log up to %" PRIu64 ", but %s was truncated up to %" PRIu64
                       "; restore both files from the same backup",
                       s->state.db.path, s->state.covered_seq, s->log.db.path, s->log.dropped_seq);
        err = COX_ERR_CORRUPT;
    }
    return err;
}

enum cox_err store_open_tuned(const struct cox_store_config *config, const struct store_tuning *tuning,
                              struct cox_store **ret, struct cox_buf *error)
{
    bool in_memory = strcmp(config->uri, "memory") == 0;
    enum cox_err err = COX_OK;

    if (!in_memory && strcmp(config->uri, "sqlite") != 0) {
        cox_buf_printf(error, "store \"%s\": not known; use \"sqlite\" or \"memory\"", config->uri);
        return COX_ERR_INVALID;
    }
    if (!in_memory && !config->data_dir) {
        cox_buf_append_str(error, "store \"sqlite\": needs a data directory");
        return COX_ERR_INVALID;
    }
    struct cox_store *s = create(config);

    atomic_store(&s->retention_ms, config->retention_ms);
    s->unowned_ms = tuning->unowned_ms ? tuning->unowned_ms : STORE_UNOWNED_MS;
    if (!in_memory)
        err = store_data_dir_open(&s->dir, config->data_dir, error);
    if (err == COX_OK)
        err = open_databases(s, in_memory ? NULL : config->data_dir, tuning, error);
    if (err == COX_OK)
        err = store_blobs_open(&s->blobs, in_memory ? NULL : config->data_dir, config->min_free, error);
    if (err == COX_OK)
        *ret = s;
    else
        cox_store_close(s);
    return err;
}

enum cox_err cox_store_open(const struct cox_store_config *config, struct cox_store **ret,
                            struct cox_buf *error)
{
    return store_open_tuned(config, &(struct store_tuning){ 0 }, ret, error);
}

uint64_t cox_store_uid(const struct cox_store *s)
{
    return s->identity.uid;
}

enum cox_err cox_store_quarantine(struct cox_store *s, uint64_t root, const char *why, struct cox_buf *error)
{
    COX_ASSERT(!s->recovered);
    return store_state_quarantine(&s->state, root, why, error);
}

enum cox_err cox_store_lift(const char *dir, uint64_t root, struct cox_buf *error)
{
    const struct cox_store_config config = { .uri = "sqlite", .data_dir = dir };
    struct cox_store *s = NULL;
    enum cox_err answer = COX_OK;
    enum cox_err err = cox_store_open(&config, &s, error);

    if (err != COX_OK)
        return err;
    err = store_state_lift(&s->state, root, &answer, error);
    cox_store_close(s);
    return err != COX_OK ? err : answer;
}

enum cox_err cox_store_recover(struct cox_store *s, const struct cox_store_recovery *r,
                               uint64_t *ret_last_seq, struct cox_buf *error)
{
    uint64_t applied_seq = 0;
    uint64_t last_seq = 0;
    enum cox_err err = store_state_tell_quarantine(&s->state, r, error);

    if (err == COX_OK)
        err = store_state_scan(&s->state, r, &applied_seq, error);
    if (err == COX_OK)
        err = store_state_scan_aside(&s->state, s->log.dropped_seq, r, error);
    if (err == COX_OK)
        err = store_log_scan(&s->log, r, &last_seq, error);
    if (err != COX_OK)
        return err;
    if (applied_seq > last_seq) {
        cox_buf_printf(error,
                       "%s: an entity has applied record %" PRIu64 ", but %s ends at %" PRIu64
                       "; restore both files from the same backup",
                       s->state.db.path, applied_seq, s->log.db.path, last_seq);
        return COX_ERR_CORRUPT;
    }
    s->recovered = true;
    s->dropped_seq = s->log.dropped_seq;
    s->appended_seq = last_seq;
    atomic_store(&s->durable_seq, last_seq);
    *ret_last_seq = last_seq;
    return COX_OK;
}

enum cox_err cox_store_start(struct cox_store *s)
{
    struct cox_buf error = { 0 };
    enum cox_err err = store_state_rebuild(s, &error); /* of new data: done at once */

    cox_buf_fini(&error);
    if (err != COX_OK)
        return err;
    COX_ASSERT(s->recovered && !s->log_thread.started);
    if (!store_thread_start(&s->log_thread, "cox-log", store_log_main, s) ||
        !store_thread_start(&s->state_thread, "cox-state", store_state_main, s))
        return COX_ERR_IO;
    return COX_OK;
}

/* ---- the log ---- */

static bool bytes_fit(_Atomic size_t *queued, size_t len, size_t max)
{
    size_t waiting = atomic_load_explicit(queued, memory_order_relaxed);

    return waiting == 0 ||
           waiting + len <= max; /* a finished task may be longer than the bound: alone it goes */
}

bool cox_store_append(struct cox_store *s, uint64_t first_seq, uint32_t n, struct cox_buf *records)
{
    COX_ASSERT(s->recovered && n > 0 && first_seq == s->appended_seq + 1);
    COX_ASSERT(records->len <= STORE_BLOB_LEN_MAX);
    if (store_is_dead(s) || cox_ring_len(s->batches) == STORE_BATCHES_MAX ||
        !bytes_fit(&s->batch_bytes, records->len, STORE_BATCH_BYTES_MAX))
        return false;
    struct store_batch *b = COX_NEW(struct store_batch);

    *b = (struct store_batch){ .first_seq = first_seq, .n = n, .records = *records };
    *records = (struct cox_buf){ 0 };
    s->appended_seq = first_seq + n - 1;
    atomic_fetch_add_explicit(&s->batch_bytes, b->records.len, memory_order_relaxed);
    bool pushed = cox_ring_push(s->batches, b, NULL);

    COX_ASSERT(pushed);
    store_parker_wake(&s->log_thread.parker);
    return true;
}

uint64_t cox_store_durable_seq(const struct cox_store *s)
{
    return atomic_load_explicit(&s->durable_seq, memory_order_acquire);
}

size_t cox_store_append_room(const struct cox_store *s)
{
    if (store_is_dead(s) ||
        atomic_load_explicit(&s->batch_bytes, memory_order_relaxed) >= STORE_BATCH_BYTES_MAX)
        return 0;
    return STORE_BATCHES_MAX - cox_ring_len(s->batches);
}

/* ---- the state ---- */

/* What a request adds to the owner's counts of what it is owed. */
static void owe(struct cox_store *s, enum cox_store_op op, size_t by)
{
    if (store_op_reads(op))
        s->reads_owed += by;
    if (op == COX_STORE_TRUNCATE || op == COX_STORE_BACKUP)
        s->truncates_owed += by;
    if (store_op_answers(op))
        s->events_owed += by;
}

static bool has_room(struct cox_store *s, enum cox_store_op op, size_t len)
{
    if (store_is_dead(s) || cox_ring_len(s->requests) == STORE_REQUESTS_MAX ||
        !bytes_fit(&s->request_bytes, len, STORE_REQUEST_BYTES_MAX))
        return false;
    if ((op == COX_STORE_TRUNCATE || op == COX_STORE_BACKUP) && s->truncates_owed == STORE_TRUNCATES_MAX)
        return false;
    if (op == COX_STORE_TRUNCATE)
        return true;
    if (store_op_answers(op) && s->events_owed == STORE_EVENTS_MAX)
        return false;
    return !store_op_reads(op) ||
           (s->reads_owed < STORE_READS_MAX && bytes_fit(&s->read_bytes, 0, STORE_READ_BYTES_MAX));
}

/* Faster than they come. */
static void reclaim(struct cox_store *s)
{
    store_item_destroy(cox_ring_pop(s->spent));
    store_item_destroy(cox_ring_pop(s->spent));
}

bool cox_store_request(struct cox_store *s, struct cox_store_request *req)
{
    struct store_item probe = { .req = *req };

    COX_ASSERT(s->recovered && req->seq <= s->appended_seq);
    COX_ASSERT(req->bytes.len <= STORE_BLOB_LEN_MAX);
    COX_ASSERT(req->op != COX_STORE_BACKUP || !s->blobs.transient);
    if (!has_room(s, req->op, store_item_weight(&probe)))
        return false;
    reclaim(s);
    struct store_item *item = cox_alloc(sizeof(*item));

    *item = probe;
    req->bytes = (struct cox_buf){ 0 };
    owe(s, req->op, 1);
    atomic_fetch_add_explicit(&s->request_bytes, store_item_weight(item), memory_order_relaxed);
    bool pushed = cox_ring_push(s->requests, item, NULL);

    COX_ASSERT(pushed);
    if (store_op_patient(req->op))
        store_parker_nudge(&s->state_thread.parker);
    else
        store_parker_wake(&s->state_thread.parker);
    return true;
}

bool cox_store_poll(struct cox_store *s, struct cox_store_event *ret)
{
    struct store_item *item = cox_ring_pop(s->state_done);

    if (!item)
        item = cox_ring_pop(s->log_done);
    if (!item)
        return false;
    struct cox_store_request *req = &item->req;

    *ret = (struct cox_store_event){
        .op = req->op,
        .ticket = req->ticket,
        .id = req->id,
        .err = item->answer,
    };
    if (store_op_reads(req->op)) {
        ret->bytes = req->bytes;
        req->bytes = (struct cox_buf){ 0 };
        atomic_fetch_sub_explicit(&s->read_bytes, ret->bytes.len, memory_order_relaxed);
    }
    owe(s, req->op, (size_t)-1);
    store_item_destroy(item);
    return true;
}

/* ---- the rest ---- */

static uint64_t file_bytes(const struct store_db *db)
{
    static const char *const endings[] = { "", "-wal" };
    uint64_t bytes = 0;

    for (size_t i = 0; i < 2 && !db->in_memory; i++) {
        char *path = cox_asprintf("%s%s", db->path, endings[i]);
        struct stat st;

        if (stat(path, &st) == 0)
            bytes += (uint64_t)st.st_size;
        cox_free(path);
    }
    return bytes;
}

void cox_store_stats(const struct cox_store *s, struct cox_store_stats *ret)
{
    *ret = (struct cox_store_stats){
        .commits = atomic_load_explicit(&s->commits, memory_order_relaxed),
        .records = atomic_load_explicit(&s->records, memory_order_relaxed),
        .log_bytes = atomic_load_explicit(&s->log_bytes, memory_order_relaxed),
        .commit_ns_total = atomic_load_explicit(&s->commit_ns_total, memory_order_relaxed),
        .log_file_bytes = file_bytes(&s->log.db),
        .state_file_bytes = file_bytes(&s->state.db),
        .index_file_bytes = file_bytes(&s->index.db),
        .n_archived = atomic_load_explicit(&s->n_archived, memory_order_relaxed),
        .n_swept = atomic_load_explicit(&s->n_swept, memory_order_relaxed),
        .blob_bytes = atomic_load_explicit(&s->blobs.bytes, memory_order_relaxed),
    };
}

static void drain(struct cox_ring *r)
{
    struct store_item *item;

    while ((item = cox_ring_pop(r)))
        store_item_destroy(item);
    cox_ring_destroy(r);
}

void cox_store_close(struct cox_store *s)
{
    struct store_batch *batch;

    if (!s)
        return;
    /* The state thread first: it waits for the log, and hands truncations to it. */
    store_thread_join(&s->state_thread);
    store_thread_join(&s->log_thread);
    store_thread_fini(&s->state_thread);
    store_thread_fini(&s->log_thread);
    if (s->index.db.sql)
        store_index_close(&s->index, !store_is_dead(s));
    if (s->state.db.sql)
        store_state_close(&s->state, !store_is_dead(s));
    if (s->log.db.sql)
        store_log_close(&s->log, !store_is_dead(s));
    store_blobs_close(&s->blobs);
    store_data_dir_close(&s->dir);
    while ((batch = cox_ring_pop(s->batches)))
        store_batch_destroy(batch);
    cox_ring_destroy(s->batches);
    drain(s->requests);
    drain(s->truncates);
    drain(s->log_done);
    drain(s->state_done);
    drain(s->spent);
    cox_free((char *)s->config.uri);
    cox_free((char *)s->config.data_dir);
    cox_free(s);
}

void cox_store_keep(struct cox_store *s, int64_t retention_ms, uint64_t min_free)
{
    atomic_store(&s->retention_ms, retention_ms);
    atomic_store(&s->blobs.min_free, min_free);
}
