/* A store over real files, and what wakes the test that waits for it. */
#ifndef COX_TESTS_UNIT_STORE_FIXTURE_H
#define COX_TESTS_UNIT_STORE_FIXTURE_H

#include "check.h"

#include "orchestrator/store/internal.h"

#include "cox/base/alloc.h"
#include "cox/store.h"

#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One store, its directory, and what wakes the test that waits for it. */
struct fixture {
    char dir[64];
    char *data_dir;
    const char *uri;
    struct cox_store *store;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool woken;
    struct cox_buf error;
    struct cox_buf log;      /* recovered records */
    struct cox_buf entities; /* recovered, as text */
    uint64_t last_seq;
    int64_t retention_ms;
    uint64_t min_free;
    int64_t unowned_ms;
};

static inline void on_wake(void *user)
{
    struct fixture *f = user;

    pthread_mutex_lock(&f->mutex);
    f->woken = true;
    pthread_cond_signal(&f->cond);
    pthread_mutex_unlock(&f->mutex);
}

static inline void wait_for_wake(struct fixture *f)
{
    pthread_mutex_lock(&f->mutex);
    while (!f->woken)
        pthread_cond_wait(&f->cond, &f->mutex);
    f->woken = false;
    pthread_mutex_unlock(&f->mutex);
}

static inline void on_fatal(void *user, const char *what)
{
    (void)user;
    fprintf(stderr, "fatal: %s\n", what);
    abort();
}

static inline int setup(void **state)
{
    struct fixture *f = COX_NEW(struct fixture);

    snprintf(f->dir, sizeof(f->dir), "/tmp/cox-test-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->data_dir = cox_asprintf("%s/data", f->dir);
    f->uri = "sqlite";
    pthread_mutex_init(&f->mutex, NULL);
    pthread_cond_init(&f->cond, NULL);
    *state = f;
    return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    cox_store_close(f->store);
    assert_int_equal(nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    cox_free(f->data_dir);
    cox_buf_fini(&f->error);
    cox_buf_fini(&f->log);
    cox_buf_fini(&f->entities);
    pthread_cond_destroy(&f->cond);
    pthread_mutex_destroy(&f->mutex);
    cox_free(f);
    return 0;
}

static inline enum cox_err on_entity(void *user, struct cox_entity_key key, uint64_t applied_seq,
                                     struct cox_slice bytes)
{
    struct fixture *f = user;

    assert_int_equal(f->log.len, 0); /* entities come first */
    cox_buf_printf(&f->entities, "%u/%" PRIu64 "/%" PRIu32 "@%" PRIu64 "=%.*s ", key.kind, key.id, key.sub,
                   applied_seq, (int)bytes.len, (const char *)bytes.data);
    return COX_OK;
}

static inline enum cox_err on_batch(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records)
{
    struct fixture *f = user;

    assert_true(f->last_seq == 0 || first_seq == f->last_seq + 1);
    f->last_seq = first_seq + n - 1;
    cox_buf_append_slice(&f->log, records);
    return COX_OK;
}

static inline enum cox_err try_open(struct fixture *f, uint32_t shard)
{
    const struct cox_store_config config = {
        .uri = f->uri,
        .data_dir = f->data_dir,
        .shard = shard,
        .wake = on_wake,
        .on_fatal = on_fatal,
        .user = f,
        .retention_ms = f->retention_ms,
        .min_free = f->min_free,
    };
    const struct store_tuning tuning = { .unowned_ms = f->unowned_ms };

    cox_buf_clear(&f->error);
    return store_open_tuned(&config, &tuning, &f->store, &f->error);
}

static inline enum cox_err try_recover(struct fixture *f, uint64_t *ret_last_seq)
{
    const struct cox_store_recovery r = { .entity = on_entity, .batch = on_batch, .user = f };

    cox_buf_clear(&f->log);
    cox_buf_clear(&f->entities);
    cox_buf_clear(&f->error);
    f->last_seq = 0;
    return cox_store_recover(f->store, &r, ret_last_seq, &f->error);
}

/* Opens, recovers and starts; gives the last sequence number. */
static inline uint64_t start(struct fixture *f)
{
    uint64_t last_seq = 0;

    if (try_open(f, 0) != COX_OK || try_recover(f, &last_seq) != COX_OK)
        fail_msg("%s", cox_buf_cstr(&f->error));
    assert_int_equal(cox_store_start(f->store), COX_OK);
    return last_seq;
}

static inline void stop(struct fixture *f)
{
    cox_store_close(f->store);
    f->store = NULL;
}

static inline void assert_text(struct cox_buf *b, const char *text)
{
    assert_string_equal(cox_buf_cstr(b), text);
}

static inline void assert_says(struct fixture *f, const char *part)
{
    if (!strstr(cox_buf_cstr(&f->error), part))
        fail_msg("\"%s\" does not say \"%s\"", cox_buf_cstr(&f->error), part);
}

static inline void append(struct fixture *f, uint64_t first_seq, uint32_t n, const char *records)
{
    struct cox_buf b = { 0 };

    cox_buf_append_str(&b, records);
    assert_true(cox_store_append(f->store, first_seq, n, &b));
    assert_null(b.data);
}

static inline void wait_durable(struct fixture *f, uint64_t seq)
{
    while (cox_store_durable_seq(f->store) < seq)
        wait_for_wake(f);
}

static inline void request(struct fixture *f, struct cox_store_request req, const char *bytes)
{
    if (bytes)
        cox_buf_append_str(&req.bytes, bytes);
    assert_true(cox_store_request(f->store, &req));
    assert_null(req.bytes.data);
}

static inline struct cox_store_event next_event(struct fixture *f)
{
    struct cox_store_event e;

    while (!cox_store_poll(f->store, &e))
        wait_for_wake(f);
    return e;
}

static inline void expect_event(struct fixture *f, enum cox_store_op op, uint64_t ticket, enum cox_err err,
                                const char *bytes)
{
    struct cox_store_event e = next_event(f);

    assert_int_equal(e.op, op);
    assert_int_equal(e.ticket, ticket);
    assert_int_equal(e.err, err);
    assert_text(&e.bytes, bytes);
    cox_buf_fini(&e.bytes);
}

/* Damages or inspects a closed database from outside. */
static inline void sql(struct fixture *f, const char *name, const char *text)
{
    char *path = cox_asprintf("%s/%s", f->data_dir, name);
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", text, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    cox_free(path);
}

#endif
