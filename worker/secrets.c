#include "secrets.h"

#include "wiped.h"

#include "handlers/spawn.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_THREADS 4u
#define SLICE_MS 100
#define TENANT_DEFAULT "default"

struct secrets {
    struct secrets_config config;
    pthread_t threads[N_THREADS];
    uint32_t n_threads;    /* started when they are needed */
    pthread_mutex_t mutex; /* of what follows, and of the references' values */
    pthread_cond_t changed;
    struct secret_table *table; /* NULL: none */
    struct cox_list waiting, done;
    atomic_bool closing;
};

/* ---------------------------------------------------------------- reading values */

/* What went wrong, for the worker's log; who asks is told less. */
struct trouble {
    const char *what;
    int err; /* errno; 0: none */
};

static bool trouble(struct trouble *t, const char *what, int err)
{
    *t = (struct trouble){ what, err };
    return false;
}

/* In slices, so that a command that hangs does not hold up the worker's end. */
static bool await(struct secrets *s, int fd, int64_t deadline_ns)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int64_t left_ms;

    while (!atomic_load(&s->closing) && (left_ms = (deadline_ns - cox_clock_mono_ns()) / 1000000) > 0) {
        if (poll(&p, 1, left_ms < SLICE_MS ? (int)left_ms : SLICE_MS) == 1)
            return true;
    }
    return false;
}

/* Reads until the end or one byte too many, until the deadline. */
static bool read_bounded(struct secrets *s, int fd, int64_t deadline_ns, struct cox_buf *ret,
                         struct trouble *t)
{
    wiped_reserve(ret, SECRET_LEN_MAX + 3);
    while (ret->len <= SECRET_LEN_MAX + 2) {
        ssize_t n;

        if (!await(s, fd, deadline_ns))
            return trouble(t, "took too long", 0);
        n = read(fd, ret->data + ret->len, SECRET_LEN_MAX + 3 - ret->len);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return trouble(t, "cannot be read", errno);
        if (n == 0)
            return true;
        ret->len += n > 0 ? (size_t)n : 0;
    }
    return trouble(t, "is larger than 64 KiB", 0);
}

static bool read_file(struct secrets *s, int fd, struct cox_buf *ret, struct trouble *t)
{
    struct stat st;
    bool ok;

    if (fd < 0)
        return trouble(t, "cannot be opened", errno);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        ok = trouble(t, "is no regular file", 0);
    else if (st.st_mode & S_IWOTH)
        ok = trouble(t, "may be written by everybody", 0);
    else
        ok = read_bounded(s, fd, INT64_MAX, ret, t);
    close(fd);
    return ok;
}

/* Links lead on within the directory, as they do in what clusters mount, and not out of it. */
static int open_in(const char *dir, const char *name)
{
    struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_BENEATH };
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd, why;

    if (dir_fd < 0)
        return -1;
    fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
    why = errno;
    close(dir_fd);
    errno = why;
    return fd;
}

static pid_t start_command(const struct secret_reference *ref, int out, struct trouble *t)
{
    char *entry = cox_asprintf("COX_SECRET=%s", ref->name);
    char **envp = spawn_environment(entry);
    char *const paths[] = { ref->argv[0], NULL };
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    pid_t pid = 0;
    int err = null_fd < 0 ? errno
                          : spawn_process(&(struct spawn_args){ .paths = paths,
                                                                .argv = ref->argv,
                                                                .envp = envp,
                                                                .dir = "/",
                                                                .in = null_fd,
                                                                .out = out,
                                                                .err = null_fd },
                                          &pid);

    if (null_fd >= 0)
        close(null_fd);
    cox_free(envp);
    cox_free(entry);
    if (err)
        trouble(t, "its command cannot be started", err);
    return err ? 0 : pid;
}

/* The command has closed its output; it may still take until the deadline to end. */
static bool await_exit(struct secrets *s, pid_t pid, int64_t deadline_ns, bool ok, struct trouble *t)
{
    int pidfd = spawn_pidfd(pid);
    siginfo_t info;
    int status = 0;

    if (ok && (pidfd < 0 || !await(s, pidfd, deadline_ns)))
        ok = trouble(t, "took too long", 0);
    if (pidfd >= 0)
        close(pidfd);
    kill(-pid, SIGKILL);
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    waitpid(pid, &status, 0);
    if (ok && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        ok = trouble(t, "its command failed", 0);
    return ok;
}

static bool run_command(struct secrets *s, const struct secret_reference *ref, struct cox_buf *ret,
                        struct trouble *t)
{
    int64_t deadline_ns = cox_clock_mono_ns() + ref->limit_ms * INT64_C(1000000);
    int fds[2];
    pid_t pid;
    bool ok;

    if (pipe2(fds, O_CLOEXEC) != 0)
        return trouble(t, "its command cannot be started", errno);
    pid = start_command(ref, fds[1], t);
    close(fds[1]);
    ok = pid != 0 && read_bounded(s, fds[0], deadline_ns, ret, t);
    if (pid != 0)
        ok = await_exit(s, pid, deadline_ns, ok, t);
    close(fds[0]);
    return ok;
}

/* ---------------------------------------------------------------- one name */

static bool kept_value(struct secrets *s, const struct secret_reference *ref, struct cox_buf *ret)
{
    bool kept;

    pthread_mutex_lock(&s->mutex);
    kept = ref->has_value && (ref->source == SECRET_ENV || cox_clock_mono_ns() < ref->fresh_until_ns);
    if (kept)
        wiped_append(ret, cox_buf_slice(&ref->value));
    pthread_mutex_unlock(&s->mutex);
    return kept;
}

static void keep_value(struct secrets *s, struct secret_reference *ref, const struct cox_buf *value)
{
    pthread_mutex_lock(&s->mutex);
    wiped_fini(&ref->value);
    wiped_append(&ref->value, cox_buf_slice(value));
    ref->has_value = true;
    ref->fresh_until_ns = cox_clock_mono_ns() + ref->ttl_ms * INT64_C(1000000);
    pthread_mutex_unlock(&s->mutex);
}

static void drop_line_end(struct cox_buf *value)
{
    if (value->len > 0 && value->data[value->len - 1] == '\n')
        value->len--;
    if (value->len > 0 && value->data[value->len - 1] == '\r')
        value->len--;
}

static bool read_reference(struct secrets *s, struct secret_reference *ref, struct cox_buf *ret,
                           struct trouble *t)
{
    if (ref->source == SECRET_FILE) {
        if (!read_file(s, open(ref->at, O_RDONLY | O_CLOEXEC | O_NONBLOCK), ret, t))
            return false;
        drop_line_end(ret);
        return true;
    }
    if (kept_value(s, ref, ret))
        return true;
    if (ref->source == SECRET_ENV)
        return trouble(t, "its variable was not set", 0);
    if (!run_command(s, ref, ret, t))
        return false;
    drop_line_end(ret);
    if (ref->ttl_ms > 0)
        keep_value(s, ref, ret);
    return true;
}

static bool is_usable(const struct cox_buf *value, struct trouble *t)
{
    if (value->len > SECRET_LEN_MAX)
        return trouble(t, "is larger than 64 KiB", 0);
    if (value->len < REDACT_LEN_MIN)
        return trouble(t, "is shorter than 4 bytes, and could not be kept out of output", 0);
    if (memchr(value->data, 0, value->len) || !cox_utf8_ok(cox_buf_slice(value)))
        return trouble(t, "is no text: it has a NUL or is not UTF-8", 0);
    return true;
}

static bool may_use(const struct secret_reference *ref, const char *tenant)
{
    if (!ref->tenants || COX_PLANTED("secret-for-any-tenant"))
        return true;
    for (char *const *t = ref->tenants; *t; t++) {
        if (strcmp(*t, tenant) == 0)
            return true;
    }
    return false;
}

static void put_failure(struct secret_job *job, const char *name, const char *why)
{
    job->code = COX_CODE_UNAVAILABLE;
    cox_buf_printf(&job->message, why, name);
}

static struct secret_reference *reference_of(const struct secret_job *job, const char *name)
{
    return job->table ? secret_table_find(job->table, cox_slice_str(name)) : NULL;
}

static int open_named(const struct secrets *s, const char *name)
{
    errno = ENOENT;
    return s->config.dir && secret_name_ok(cox_slice_str(name)) ? open_in(s->config.dir, name) : -1;
}

/* What the tenant is not to have is missing, too. */
static bool is_missing(const struct secrets *s, const struct secret_job *job, const char *name)
{
    const struct secret_reference *ref = reference_of(job, name);

    if (ref)
        return !may_use(ref, job->tenant);
    int fd = open_named(s, name);
    bool missing = fd < 0 && errno == ENOENT;

    if (fd >= 0)
        close(fd);
    return missing;
}

/* All of them at once: who waits for a worker that has them wants to know what it must have. */
static void look_for_missing(struct secrets *s, struct secret_job *job)
{
    for (size_t i = 0; i < job->n; i++) {
        if (is_missing(s, job, job->names[i]))
            put_failure(job, job->names[i],
                        job->message.len == 0 ? "this worker has no secret \"%s\"" : ", nor \"%s\"");
    }
}

static void look_up(struct secrets *s, struct secret_job *job, size_t i)
{
    const char *name = job->names[i];
    struct secret_reference *found = reference_of(job, name);
    struct trouble t = { 0 };
    bool ok;

    if (found) {
        ok = read_reference(s, found, &job->values[i], &t);
    } else {
        int fd = open_named(s, name);

        ok = read_file(s, fd, &job->values[i], &t);
        drop_line_end(&job->values[i]);
    }
    if (ok && is_usable(&job->values[i], &t))
        return;
    cox_log(COX_LOG_WARN, "a secret cannot be used", "secret", name, "why", t.what, "error",
            t.err ? strerror(t.err) : "", NULL);
    put_failure(job, name, "this worker cannot use the secret \"%s\"; its log says why");
}

/* ---------------------------------------------------------------- threads */

static struct secret_job *next_job(struct secrets *s)
{
    struct secret_job *job = NULL;

    pthread_mutex_lock(&s->mutex);
    while (cox_list_empty(&s->waiting) && !s->closing)
        pthread_cond_wait(&s->changed, &s->mutex);
    if (!cox_list_empty(&s->waiting) && !s->closing) {
        job = COX_CONTAINER_OF(s->waiting.next, struct secret_job, link);
        cox_list_remove(&job->link);
        job->table = s->table ? secret_table_ref(s->table) : NULL;
    }
    pthread_mutex_unlock(&s->mutex);
    return job;
}

static void make_redactor(struct secret_job *job)
{
    struct cox_slice *values = cox_calloc(job->n + 1, sizeof(*values));

    for (size_t i = 0; i < job->n; i++)
        values[i] = cox_buf_slice(&job->values[i]);
    values[job->n] = cox_buf_slice(&job->also);
    job->redactor = redactor_create(values, job->n + (job->also.len > 0));
    cox_free(values);
}

static void *secrets_main(void *arg)
{
    struct secrets *s = arg;
    struct secret_job *job;

    while ((job = next_job(s)) != NULL) {
        look_for_missing(s, job);
        for (size_t i = 0; i < job->n && job->code == COX_CODE_NONE; i++)
            look_up(s, job, i);
        if (job->code == COX_CODE_NONE)
            make_redactor(job);
        pthread_mutex_lock(&s->mutex);
        cox_list_push_back(&s->done, &job->link);
        pthread_mutex_unlock(&s->mutex);
        s->config.on_ready(s->config.user);
    }
    return NULL;
}

/* ---------------------------------------------------------------- the owner's side */

struct secret_job *secret_job(struct cox_slice tenant, size_t n)
{
    struct secret_job *job = COX_NEW(struct secret_job);

    job->tenant =
        tenant.len > 0 ? cox_strndup((const char *)tenant.data, tenant.len) : cox_strdup(TENANT_DEFAULT);
    job->n = n;
    job->names = cox_calloc(n + 1, sizeof(*job->names));
    job->values = cox_calloc(n + 1, sizeof(*job->values));
    cox_list_init(&job->link);
    return job;
}

void secret_job_free(struct secret_job *job)
{
    for (size_t i = 0; i < job->n; i++) {
        cox_free(job->names[i]);
        wiped_fini(&job->values[i]);
    }
    redactor_unref(job->redactor);
    wiped_fini(&job->also);
    secret_table_unref(job->table);
    cox_free(job->names);
    cox_free(job->values);
    cox_free(job->tenant);
    cox_buf_fini(&job->message);
    cox_free(job);
}

void secrets_submit(struct secrets *s, struct secret_job *job)
{
    pthread_mutex_lock(&s->mutex);
    cox_list_push_back(&s->waiting, &job->link);
    if (s->n_threads < N_THREADS)
        COX_ASSERT(pthread_create(&s->threads[s->n_threads++], NULL, secrets_main, s) == 0);
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

void secrets_reap(struct secrets *s)
{
    for (;;) {
        struct secret_job *job = NULL;

        pthread_mutex_lock(&s->mutex);
        if (!cox_list_empty(&s->done)) {
            job = COX_CONTAINER_OF(s->done.next, struct secret_job, link);
            cox_list_remove(&job->link);
        }
        pthread_mutex_unlock(&s->mutex);
        if (!job)
            return;
        job->on_done(job, job->user);
    }
}

/* The variable stays, empty: its value is in this process alone from now on. */
static void take_variable(struct secret_reference *ref, const struct secret_table *before)
{
    const struct secret_reference *known = NULL;
    char *value = getenv(ref->at);

    for (size_t i = 0; before && i < before->n && !known; i++) {
        if (before->items[i].source == SECRET_ENV && before->items[i].has_value &&
            strcmp(before->items[i].at, ref->at) == 0)
            known = &before->items[i];
    }
    ref->has_value = known || value;
    if (known)
        wiped_append(&ref->value, cox_buf_slice(&known->value));
    else if (value)
        wiped_append(&ref->value, cox_slice_str(value));
}

static void clear_variable(const struct secret_reference *ref)
{
    char *value = getenv(ref->at);

    if (value)
        explicit_bzero(value, strlen(value));
}

void secrets_configure(struct secrets *s, struct secret_table *table)
{
    struct secret_table *before;

    pthread_mutex_lock(&s->mutex);
    before = s->table;
    for (size_t i = 0; i < table->n; i++) {
        if (table->items[i].source == SECRET_ENV)
            take_variable(&table->items[i], before);
    }
    for (size_t i = 0; i < table->n; i++) {
        if (table->items[i].source == SECRET_ENV)
            clear_variable(&table->items[i]);
    }
    s->table = table;
    pthread_mutex_unlock(&s->mutex);
    secret_table_unref(before);
}

struct secrets *secrets_create(const struct secrets_config *config)
{
    struct secrets *s = COX_NEW(struct secrets);

    s->config = *config;
    cox_list_init(&s->waiting);
    cox_list_init(&s->done);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->changed, NULL);
    return s;
}

void secrets_destroy(struct secrets *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->mutex);
    atomic_store(&s->closing, true);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    for (size_t i = 0; i < s->n_threads; i++)
        pthread_join(s->threads[i], NULL);
    while (!cox_list_empty(&s->waiting)) {
        struct secret_job *job = COX_CONTAINER_OF(s->waiting.next, struct secret_job, link);

        cox_list_remove(&job->link);
        job->code = COX_CODE_UNAVAILABLE;
        job->on_done(job, job->user);
    }
    secrets_reap(s);
    secret_table_unref(s->table);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
    cox_free(s);
}
