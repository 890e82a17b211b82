#include "courier.h"

#include "transfer.h"
#include "unpack.h"

#include "handlers/handler.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/units.h"
#include "cox/limits.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_THREADS 4u
#define PROGRAMS_MAX 256u
#define ADDRESS_LEN_MAX 255u
#define SESSION_LEN_MAX 127u
#define AWAY_MS 600000 /* so long an orchestrator may be: as long as steps run on without one */
#define AWAY_PAUSE_MS 200

struct aim {
    char address[ADDRESS_LEN_MAX + 1], session[SESSION_LEN_MAX + 1];
};

struct courier {
    struct courier_config config;
    struct cache *cache;
    pthread_t threads[N_THREADS];
    uint32_t n_threads;    /* started when they are needed */
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t changed;
    struct cox_list waiting, done;
    struct cox_list at_work;
    struct aim aim;
    uint64_t n_files;
    struct cox_mapb programs; /* of bundles, by "HEX/path": described once, and then one identity */
    bool closing;
};

/* ---------------------------------------------------------------- jobs */

struct courier_job *courier_job(struct courier *c, enum courier_kind kind)
{
    struct courier_job *job = COX_NEW(struct courier_job);

    job->courier = c;
    job->kind = kind;
    job->fd = -1;
    cox_list_init(&job->link);
    return job;
}

void courier_job_free(struct courier_job *job)
{
    if (job->fd >= 0)
        close(job->fd);
    if (job->entry)
        cache_release(job->courier->cache, job->entry);
    program_unref(job->program);
    snapshot_free(job->snapshot);
    cox_free(job->dir);
    redactor_unref(job->redactor);
    cox_buf_fini(&job->message);
    cox_free(job->path);
    cox_free(job);
}

static void fail(struct courier_job *job, enum cox_code code, const char *message)
{
    job->code = code;
    if (message)
        cox_buf_append_str(&job->message, message);
}

/* ---------------------------------------------------------------- what a thread does */

static char *new_path(struct courier *c)
{
    char *path;

    pthread_mutex_lock(&c->mutex);
    path = cox_asprintf("%s/.fetched-%llu", c->config.dir, (unsigned long long)++c->n_files);
    pthread_mutex_unlock(&c->mutex);
    return path;
}

/* What an attempt has done must not be lost to a restart of the orchestrator: the transfer is begun again.
 * True when it is to be. */
static bool waits(struct courier_job *job, struct transfer *t, int64_t since_ns)
{
    struct courier *c = job->courier;
    struct aim aim;

    if (job->code != COX_CODE_UNAVAILABLE || !transfer_was_away(t) || atomic_load(&job->cancelled) ||
        cox_clock_mono_ns() - since_ns > AWAY_MS * INT64_C(1000000))
        return false;
    cox_buf_clear(&job->message);
    transfer_pause(t, AWAY_PAUSE_MS, &job->cancelled);
    pthread_mutex_lock(&c->mutex);
    aim = c->aim;
    pthread_mutex_unlock(&c->mutex);
    transfer_aim(t, aim.address, aim.session);
    return true;
}

static void get(struct courier_job *job, struct transfer *t, const char *path)
{
    const struct transfer_for whose = { job->tenant, job->attempt };
    int64_t since_ns = cox_clock_mono_ns();

    do {
        unlink(path);
        job->code = transfer_get(t, &whose, job->hex, path, &job->cancelled, &job->message);
    } while (waits(job, t, since_ns));
}

static bool copy_redacted(struct courier_job *job, int to)
{
    struct redact_stream s = { .of = job->redactor };
    struct cox_buf clean = { 0 }, whole = { 0 };
    uint8_t piece[16384];
    ssize_t n = 0;
    bool ok = true;

    for (off_t at = 0; ok && (n = pread(job->fd, piece, sizeof(piece), at)) > 0; at += n) {
        cox_buf_clear(&clean);
        redact_feed(&s, cox_slice(piece, (size_t)n), job->is_json ? &whole : &clean);
        ok = outcome_write(to, cox_buf_slice(&clean)) && !atomic_load(&job->cancelled);
    }
    cox_buf_clear(&clean);
    redact_end(&s, job->is_json ? &whole : &clean);
    redact_json(job->redactor, &whole);
    ok = ok && n == 0 && outcome_write(to, cox_buf_slice(&whole)) && outcome_write(to, cox_buf_slice(&clean));
    cox_buf_fini(&clean);
    cox_buf_fini(&whole);
    redact_fini(&s);
    return ok;
}

/* In its place comes a copy without the secrets. A file that is too large to be stored is left to be refused.
 */
static bool redact_file(struct courier_job *job)
{
    struct stat st;
    int fd;

    if (!job->redactor || (fstat(job->fd, &st) == 0 && (uint64_t)st.st_size > COX_BLOB_LEN_MAX))
        return true;
    fd = outcome_file(job->courier->config.dir);
    if (fd >= 0 && copy_redacted(job, fd)) {
        close(job->fd);
        job->fd = fd;
        return true;
    }
    if (fd >= 0)
        close(fd);
    fail(job, COX_CODE_UNAVAILABLE, "the worker's disk is not writable, or full");
    return false;
}

static void put(struct courier_job *job, struct transfer *t)
{
    const struct transfer_for whose = { job->tenant, job->attempt };
    int64_t since_ns = cox_clock_mono_ns();

    if (!redact_file(job))
        return;

    do
        job->code = transfer_put(t, &whose, job->fd, &job->hash, &job->len, &job->cancelled, &job->message);
    while (waits(job, t, since_ns));
}

static bool fill_blob(struct courier_job *job, const char *fetched, uint64_t *ret_len)
{
    struct stat st;

    if (stat(fetched, &st) != 0 || chmod(fetched, 0444) != 0 ||
        rename(fetched, cache_path(job->entry)) != 0) {
        fail(job, COX_CODE_UNAVAILABLE, "cannot keep a blob on the worker's disk");
        return false;
    }
    *ret_len = (uint64_t)st.st_size;
    return true;
}

static bool fill_bundle(struct courier_job *job, const char *fetched, uint64_t *ret_len)
{
    enum cox_err err = unpack_tar(fetched, cache_path(job->entry), ret_len, &job->message);

    if (err != COX_OK)
        fail(job, err == COX_ERR_IO ? COX_CODE_UNAVAILABLE : COX_CODE_INPUT_INVALID, NULL);
    return err == COX_OK;
}

static void fetch(struct courier_job *job, struct transfer *t)
{
    struct courier *c = job->courier;
    bool is_bundle = job->kind == COURIER_FETCH_BUNDLE;
    struct cache_entry *entry;
    uint64_t len = 0;
    bool fill, ok;
    char *fetched;

    entry = cache_hold(c->cache, is_bundle ? CACHE_BUNDLE : CACHE_BLOB, job->tenant, job->hex,
                       &job->cancelled, &fill);
    job->entry = entry;
    if (!entry || !fill)
        return;
    fetched = new_path(c);
    get(job, t, fetched);
    ok = job->code == COX_CODE_NONE &&
         (is_bundle ? fill_bundle(job, fetched, &len) : fill_blob(job, fetched, &len));
    unlink(fetched);
    cox_free(fetched);
    if (cache_filled(c->cache, entry, ok, len))
        return;
    job->entry = NULL;
    if (ok)
        fail(job, COX_CODE_RESOURCE_EXHAUSTED, "the worker's cache of blobs is full of what runs");
}

static void forget_programs(struct courier *c)
{
    struct cox_slice key;
    size_t it = 0;
    void *p;

    while (cox_mapb_next(&c->programs, &it, &key, &p))
        program_unref(p);
    cox_mapb_fini(&c->programs);
}

/* The program as it was described for an earlier job; NULL when it was not, or its file is another one. */
static struct program *known_program(struct courier *c, const char *key)
{
    struct program *p;

    pthread_mutex_lock(&c->mutex);
    p = cox_mapb_get(&c->programs, cox_slice_str(key));
    p = p && program_is_current(p) ? program_ref(p) : NULL;
    pthread_mutex_unlock(&c->mutex);
    return p;
}

static void remember_program(struct courier *c, const char *key, struct program *p)
{
    pthread_mutex_lock(&c->mutex);
    if (c->programs.len >= PROGRAMS_MAX)
        forget_programs(c);
    program_unref(cox_mapb_set(&c->programs, cox_slice_str(key), program_ref(p)));
    pthread_mutex_unlock(&c->mutex);
}

/* The path is checked to lead to a file within the bundle, by links of the bundle if it has such; what the
 * program then does is its own affair. */
static bool is_in_bundle(const char *path, const char *root)
{
    char *real = realpath(path, NULL), *real_root = realpath(root, NULL);
    size_t len = real_root ? strlen(real_root) : 0;
    struct stat st;
    bool ok = real && real_root && strncmp(real, real_root, len) == 0 && real[len] == '/' &&
              stat(real, &st) == 0 && S_ISREG(st.st_mode);

    free(real);
    free(real_root);
    return ok;
}

static void describe(struct courier_job *job)
{
    const char *root = cache_path(job->entry);
    char *path = cox_asprintf("%s/%s", root, job->path);
    char *key = cox_asprintf("%s/%s/%s", job->tenant, job->hex, job->path);
    struct cox_buf why = { 0 };
    enum cox_err err;

    job->program = known_program(job->courier, key);
    if (!job->program && !is_in_bundle(path, root)) {
        cox_buf_printf(&job->message, "uses: %.200s: no such file in the bundle", job->path);
        fail(job, COX_CODE_INPUT_INVALID, NULL);
    } else if (!job->program &&
               (err = program_describe(path, NULL, NULL, root, root, job->courier->config.sandbox,
                                       &job->program, &why)) != COX_OK) {
        cox_buf_printf(&job->message, "uses: %.200s: %.500s", job->path, cox_buf_cstr(&why));
        fail(job, err == COX_ERR_IO ? COX_CODE_UNAVAILABLE : COX_CODE_INPUT_INVALID, NULL);
    } else {
        remember_program(job->courier, key, job->program);
    }
    cox_buf_fini(&why);
    cox_free(path);
    cox_free(key);
}

/* ---------------------------------------------------------------- folders */

struct carrying {
    struct courier_job *job;
    struct transfer *transfer;
};

static enum cox_code put_pack(void *user, int fd, struct cox_hash *ret_hash, uint64_t *ret_len,
                              struct cox_buf *why)
{
    const struct carrying *c = user;
    const struct transfer_for whose = { c->job->tenant, c->job->attempt };
    int64_t since_ns = cox_clock_mono_ns();

    do
        c->job->code = transfer_put(c->transfer, &whose, fd, ret_hash, ret_len, &c->job->cancelled, why);
    while (waits(c->job, c->transfer, since_ns));
    return c->job->code;
}

static enum cox_code get_pack(void *user, const struct cox_hash *hash, int *ret_fd, struct cox_buf *why)
{
    const struct carrying *c = user;
    char *path = new_path(c->job->courier);

    (void)why; /* that is the job's message */
    blob_hex(hash, c->job->hex);
    get(c->job, c->transfer, path);
    if (c->job->code == COX_CODE_NONE && (*ret_fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        fail(c->job, COX_CODE_UNAVAILABLE, "cannot keep a blob on the worker's disk");
    unlink(path);
    cox_free(path);
    return c->job->code;
}

static int scratch(void *user)
{
    const struct carrying *c = user;

    return outcome_file(c->job->courier->config.dir);
}

static void do_folder(struct courier_job *job, struct transfer *t)
{
    struct carrying c = { job, t };
    const struct snapshot_store store = {
        .put = put_pack, .get = get_pack, .scratch = scratch, .cancelled = &job->cancelled, .user = &c
    };
    struct snapshot *made = NULL;

    if (job->kind == COURIER_TAKE)
        job->code = snapshot_take(job->dir, job->snapshot, job->calm_until, &store, &made, &job->message);
    else
        job->code = snapshot_restore(job->dir, &job->name, &store, &made, &job->message);
    if (job->code == COX_CODE_NONE)
        job->snapshot = made;
}

static void do_job(struct courier_job *job, struct transfer *t)
{
    if (job->kind == COURIER_TAKE || job->kind == COURIER_RESTORE) {
        do_folder(job, t);
        return;
    }
    if (job->kind == COURIER_STORE) {
        put(job, t);
        return;
    }
    fetch(job, t);
    if (job->code == COX_CODE_NONE && job->path && job->entry)
        describe(job);
}

static struct courier_job *next_job(struct courier *c, struct aim *ret_aim)
{
    struct courier_job *job = NULL;

    pthread_mutex_lock(&c->mutex);
    while (cox_list_empty(&c->waiting) && !c->closing)
        pthread_cond_wait(&c->changed, &c->mutex);
    if (!cox_list_empty(&c->waiting)) {
        job = COX_CONTAINER_OF(c->waiting.next, struct courier_job, link);
        cox_list_remove(&job->link);
        cox_list_push_back(&c->at_work, &job->link);
        *ret_aim = c->aim;
    }
    pthread_mutex_unlock(&c->mutex);
    return job;
}

static void *courier_main(void *arg)
{
    struct courier *c = arg;
    struct transfer *t = transfer_create(c->config.token_file, c->config.tls);
    struct courier_job *job;
    struct aim aim;

    while ((job = next_job(c, &aim)) != NULL) {
        transfer_aim(t, aim.address, aim.session);
        if (!atomic_load(&job->cancelled))
            do_job(job, t);
        if (atomic_load(&job->cancelled) && job->code == COX_CODE_NONE)
            fail(job, COX_CODE_CANCELLED, NULL);
        pthread_mutex_lock(&c->mutex);
        cox_list_remove(&job->link);
        cox_list_push_back(&c->done, &job->link);
        pthread_mutex_unlock(&c->mutex);
        c->config.on_ready(c->config.user);
    }
    transfer_destroy(t);
    return NULL;
}

/* ---------------------------------------------------------------- the owner's side */

void courier_submit(struct courier_job *job)
{
    struct courier *c = job->courier;

    pthread_mutex_lock(&c->mutex);
    cox_list_push_back(&c->waiting, &job->link);
    if (c->n_threads < N_THREADS)
        COX_ASSERT(pthread_create(&c->threads[c->n_threads++], NULL, courier_main, c) == 0);
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->mutex);
}

void courier_reap(struct courier *c)
{
    for (;;) {
        struct courier_job *job = NULL;

        pthread_mutex_lock(&c->mutex);
        if (!cox_list_empty(&c->done)) {
            job = COX_CONTAINER_OF(c->done.next, struct courier_job, link);
            cox_list_remove(&job->link);
        }
        pthread_mutex_unlock(&c->mutex);
        if (!job)
            return;
        job->on_done(job, job->user);
    }
}

void courier_aim(struct courier *c, const char *address, const char *session)
{
    pthread_mutex_lock(&c->mutex);
    strncpy(c->aim.address, address, ADDRESS_LEN_MAX);
    snprintf(c->aim.session, sizeof(c->aim.session), "%s", session);
    pthread_mutex_unlock(&c->mutex);
}

struct cache *courier_cache(struct courier *c)
{
    return c->cache;
}

struct courier *courier_create(const struct courier_config *config)
{
    struct courier *c = COX_NEW(struct courier);

    c->config = *config;
    c->cache = cache_create(config->dir, config->cache_len_max);
    cox_list_init(&c->waiting);
    cox_list_init(&c->at_work);
    cox_list_init(&c->done);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->changed, NULL);
    return c;
}

void courier_destroy(struct courier *c)
{
    struct cox_list *lists[2];

    if (!c)
        return;
    lists[0] = &c->waiting;
    lists[1] = &c->at_work;
    pthread_mutex_lock(&c->mutex);
    c->closing = true;
    for (size_t i = 0; i < 2; i++)
        COX_LIST_FOR_EACH (it, lists[i])
            atomic_store(&COX_CONTAINER_OF(it, struct courier_job, link)->cancelled, true);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    for (size_t i = 0; i < c->n_threads; i++)
        pthread_join(c->threads[i], NULL);
    courier_reap(c);
    forget_programs(c);
    cache_destroy(c->cache);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->mutex);
    cox_free(c);
}
