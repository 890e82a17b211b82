#include "slots.h"

#include "secrets.h"
#include "work.h"

#include "gateway/gateway.h"
#include "handlers/http.h"
#include "handlers/pool.h"
#include "mcp/mcp.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/ring.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_TOTAL_LEN_MAX ((size_t)256 << 20) /* of live logs, all slots together */
#define DIR_PREFIX "boot-"
#define SIGNALS_MAX 8 /* the second one says all there is to say */

enum request_kind { REQUEST_START, REQUEST_KILL, REQUEST_LOG, REQUEST_RELEASE, REQUEST_STOP };

struct request {
    enum request_kind kind;
    uint32_t slot;
    bool wanted;
    struct cox_agent_assign assign; /* its slices point into `bytes` */
    struct cox_buf bytes;
};

/* What runs in a slot, or has just been refused. */
struct slot {
    struct slots *slots;
    struct work *work;
    struct cox_ref ref;
    uint32_t number;
    bool log_cut; /* its reader waits for room */
};

struct slots {
    struct slots_config config;
    struct cox_ring *requests; /* owner -> thread */
    struct cox_ring *replies;  /* thread -> owner */
    int wake_fd;               /* there are requests, or room for log */
    atomic_int n_logs;
    pthread_t thread;
    char *dir;
    int dir_fd; /* locked while this worker lives */
    bool made_work_dir;

    /* the thread's own */
    struct event_base *base;
    struct event *wake_event;
    struct event *signal_event;
    int signal_fd;
    struct work_host host;
    struct models *models; /* NULL: none */
    struct slot *slots;
    bool log_starved;
    int n_signals;
    atomic_bool hung_up; /* SIGHUP: any number of them say the same */
};

/* ---------------------------------------------------------------- replies */

static void push_reply(struct slots *s, struct slots_reply *reply)
{
    bool was_empty;

    COX_ASSERT(cox_ring_push(s->replies, reply, &was_empty));
    if (was_empty)
        s->config.on_reply(s->config.user);
}

static void push_log(struct slot *slot, enum livelog_stream stream, struct cox_slice data, bool dropped)
{
    struct slots_reply *reply = COX_NEW(struct slots_reply);

    atomic_fetch_add(&slot->slots->n_logs, 1);
    reply->kind = SLOTS_LOG;
    reply->slot = slot->number;
    reply->ref = slot->ref;
    reply->stream = stream;
    reply->dropped = dropped;
    cox_buf_append_slice(&reply->bytes, data);
    push_reply(slot->slots, reply);
}

static void on_ended(struct work *work, const struct cox_agent_result *result, void *user)
{
    struct slot *slot = user;
    struct slots_reply *reply = COX_NEW(struct slots_reply);

    reply->kind = SLOTS_ENDED;
    reply->slot = slot->number;
    reply->ref = slot->ref;
    cox_agent_copy_result(&reply->bytes, &reply->result, result);
    if (slot->log_cut) /* the reader will not get the rest: it must know */
        push_log(slot, LIVELOG_STDOUT, cox_slice(NULL, 0), true);
    work_destroy(work);
    slot->work = NULL;
    push_reply(slot->slots, reply);
}

static bool on_log(struct work *work, enum livelog_stream stream, struct cox_slice data, bool dropped,
                   void *user)
{
    struct slot *slot = user;
    struct slots *s = slot->slots;

    (void)work;
    slot->log_cut = atomic_load(&s->n_logs) >= SLOTS_LOGS_MAX;
    s->log_starved |= slot->log_cut;
    if (!slot->log_cut)
        push_log(slot, stream, data, dropped);
    return !slot->log_cut;
}

static const struct work_ops work_ops = { .on_ended = on_ended, .on_log = on_log };

/* ---------------------------------------------------------------- the thread */

static void serve(struct slots *s, struct request *q)
{
    struct slot *slot = &s->slots[q->slot];

    switch (q->kind) {
    case REQUEST_START:
        slot->ref = q->assign.ref;
        slot->log_cut = false;
        slot->work = work_start(&s->host, &q->assign, slot);
        break;
    case REQUEST_KILL:
        if (slot->work)
            work_kill(slot->work);
        break;
    case REQUEST_LOG:
        slot->log_cut = false;
        if (slot->work)
            work_log(slot->work, q->wanted);
        break;
    case REQUEST_RELEASE:
        mcp_forget(s->host.mcp, cox_buf_slice(&q->bytes)); /* some work in what goes next */
        workspaces_forget(s->host.workspaces, cox_buf_slice(&q->bytes));
        break;
    case REQUEST_STOP:
        event_base_loopbreak(s->base);
        break;
    }
    cox_buf_fini(&q->bytes);
    cox_free(q);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct slots *s = arg;
    struct request *q;
    uint64_t n;

    (void)what;
    (void)!read(fd, &n, sizeof(n));
    while ((q = cox_ring_pop(s->requests)) != NULL)
        serve(s, q);
    if (s->host.courier)
        courier_reap(s->host.courier);
    if (s->host.secrets)
        secrets_reap(s->host.secrets);
    if (!s->log_starved)
        return;
    s->log_starved = false;
    for (uint32_t i = 0; i < s->config.n_slots; i++)
        if (s->slots[i].work)
            work_log_more(s->slots[i].work);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct slots *s = arg;
    struct signalfd_siginfo info;
    struct slots_reply *reply;

    (void)what;
    if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (info.ssi_signo == SIGHUP) {
        atomic_store(&s->hung_up, true);
        s->config.on_reply(s->config.user);
        return;
    }
    if (s->n_signals++ >= SIGNALS_MAX)
        return;
    reply = COX_NEW(struct slots_reply);
    reply->kind = SLOTS_SHUTDOWN;
    push_reply(s, reply);
}

static void *slots_main(void *arg)
{
    struct slots *s = arg;

    event_base_loop(s->base, EVLOOP_NO_EXIT_ON_EMPTY);
    for (uint32_t i = 0; i < s->config.n_slots; i++)
        work_destroy(s->slots[i].work);
    pool_destroy(s->host.pool);
    http_destroy(s->host.http);
    gateway_destroy(s->host.gateway);
    models_destroy(s->models);
    mcp_destroy(s->host.mcp);
    workspaces_destroy(s->host.workspaces);
    event_free(s->wake_event);
    event_free(s->signal_event);
    event_base_free(s->base);
    return NULL;
}

/* ---------------------------------------------------------------- directories */

/* Whether it worked shows in the caller's next step. True when the last directory of the path is new. */
static bool make_path(const char *path)
{
    char *copy = cox_strdup(path);

    for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        (void)!mkdir(copy, 0700);
        *p = '/';
    }
    bool made = mkdir(copy, 0700) == 0;
    cox_free(copy);
    return made;
}

/* A worker holds a lock on its directory: one that nobody holds belongs to nobody. */
static void remove_stale(struct slots *s)
{
    DIR *d = opendir(s->config.work_dir);
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL) {
        char *path;
        int fd;

        if (strncmp(e->d_name, DIR_PREFIX, strlen(DIR_PREFIX)) != 0)
            continue;
        path = cox_asprintf("%s/%s", s->config.work_dir, e->d_name);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            janitor_remove(s->host.janitor, path);
        if (fd >= 0)
            close(fd);
        cox_free(path);
    }
    if (d)
        closedir(d);
}

/* Made under another name, so that nobody takes it for stale before it is locked. */
static enum cox_err make_dir(struct slots *s)
{
    char *unlocked = cox_asprintf("%s/new-%s", s->config.work_dir, s->config.boot_id);
    enum cox_err err = COX_ERR_IO;
    struct stat st;

    if (make_path(s->config.work_dir))
        s->made_work_dir = true;
    if (lstat(s->config.work_dir, &st) != 0)
        goto out;
    if (!S_ISDIR(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0)) {
        errno = EPERM; /* somebody else could look into it, or change it under us */
        goto out;
    }
    if (mkdir(unlocked, 0700) != 0)
        goto out;
    s->dir_fd = open(unlocked, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0 || flock(s->dir_fd, LOCK_EX | LOCK_NB) != 0 || rename(unlocked, s->dir) != 0)
        goto out;
    err = COX_OK;
out:
    cox_free(unlocked);
    return err;
}

/* A worker that cannot make directories would take every step there is, and fail it. */
static bool remake_dir(struct work_host *host)
{
    struct slots *s = COX_CONTAINER_OF(host, struct slots, host);
    int fd = s->dir_fd;

    s->dir_fd = -1;
    bool made = make_dir(s) == COX_OK;
    int why = errno;

    cox_log(COX_LOG_WARN, made ? "the work directory was gone; made it again" : "the work directory is gone",
            "path", s->dir, NULL);
    if (!made && s->dir_fd >= 0)
        close(s->dir_fd);
    if (made)
        close(fd);
    else
        s->dir_fd = fd;
    errno = why;
    return made;
}

/* ---------------------------------------------------------------- the owner's side */

static size_t ring_cap(size_t n)
{
    size_t cap = 64;

    while (cap < n)
        cap *= 2;
    return cap;
}

static void wake(struct slots *s)
{
    uint64_t one = 1;

    (void)!write(s->wake_fd, &one, sizeof(one));
}

static void wake_when_ready(void *user)
{
    wake(user);
}

static void start_thread(struct slots *s)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    s->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->base = event_base_new();
    COX_ASSERT(s->signal_fd >= 0 && s->wake_fd >= 0 && s->base);
    s->wake_event = event_new(s->base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s);
    s->signal_event = event_new(s->base, s->signal_fd, EV_READ | EV_PERSIST, on_signal, s);
    event_add(s->wake_event, NULL);
    event_add(s->signal_event, NULL);
    s->host.handlers.base = s->base;
    s->host.handlers.sandbox = s->config.sandbox;
    s->host.dir = s->dir;
    s->host.remake_dir = remake_dir;
    s->host.ops = &work_ops;
    s->host.log_len_max = LOG_TOTAL_LEN_MAX / s->config.n_slots;
    if (s->host.log_len_max > COX_LOG_LEN_MAX)
        s->host.log_len_max = COX_LOG_LEN_MAX;
    if (s->host.log_len_max < 2 * LIVELOG_PIECE_LEN_MAX)
        s->host.log_len_max = 2 * LIVELOG_PIECE_LEN_MAX;
    s->host.http = http_create(&s->host.handlers, &s->config.reach);
    s->host.mcp = mcp_create(&(struct mcp_config){ .host = &s->host.handlers,
                                                   .reach = &s->config.reach,
                                                   .janitor = s->host.janitor,
                                                   .dir = s->dir,
                                                   .n_max = s->config.n_slots + MCP_SPARE });
    s->host.pool = pool_create(&s->host.handlers, s->config.n_slots + POOL_SPARE, s->dir);
    s->host.catalogue = s->config.catalogue;
    if (s->config.secrets)
        s->host.secrets = secrets_create(
            &(struct secrets_config){ .dir = s->config.secrets_dir, .on_ready = wake_when_ready, .user = s });
    if (s->host.secrets)
        secrets_configure(s->host.secrets, s->config.secrets);
    if (s->config.self)
        s->host.jq = program_built_in("jq", s->config.self, SLOTS_JQ_ARGUMENT);
    if (s->config.with_blobs)
        s->host.courier = courier_create(&(struct courier_config){
            .dir = s->dir,
            .cache_len_max = s->config.cache_len_max ? s->config.cache_len_max : SLOTS_CACHE_LEN_MAX,
            .token_file = s->config.token_file,
            .tls = s->config.tls,
            .sandbox = s->config.sandbox,
            .on_ready = wake_when_ready,
            .user = s });
    s->host.workspaces = workspaces_create(&(struct workspaces_config){
        .base = s->base,
        .janitor = s->host.janitor,
        .courier = s->config.with_snapshots ? s->host.courier : NULL,
        .dir = s->dir,
        .ttl_ms = s->config.workspace_ttl_ms ? s->config.workspace_ttl_ms : WORKSPACES_TTL_MS,
        .len_max = s->config.workspace_len_max ? s->config.workspace_len_max : WORKSPACES_LEN_MAX });
    if (s->host.courier)
        s->models = models_create(&(struct models_config){
            .base = s->base, .token_file = s->config.token_file, .tls = s->config.tls });
    if (s->host.courier)
        s->host.gateway = gateway_create(s->base, s->host.courier, s->models, s->dir);
    COX_ASSERT(pthread_create(&s->thread, NULL, slots_main, s) == 0);
}

enum cox_err slots_create(const struct slots_config *config, struct slots **ret)
{
    struct slots *s = COX_NEW(struct slots);
    size_t n = config->n_slots;

    s->config = *config;
    s->dir = cox_asprintf("%s/" DIR_PREFIX "%s", config->work_dir, config->boot_id);
    s->dir_fd = -1;
    if (make_dir(s) != COX_OK) {
        if (s->dir_fd >= 0)
            close(s->dir_fd);
        cox_free(s->dir);
        cox_free(s);
        return COX_ERR_IO;
    }
    s->host.janitor = janitor_create();
    remove_stale(s);
    /* Requests: at most a START, its KILL, and the KILL of the attempt before it, a slot; what is left is for
     * LOG. Replies: an ENDED and the end of a cut log a slot, pieces of log, signals. */
    s->requests = cox_ring_create(ring_cap(4 * n + 64));
    s->replies = cox_ring_create(ring_cap(2 * n + SLOTS_LOGS_MAX + SIGNALS_MAX));
    s->slots = cox_calloc(n, sizeof(*s->slots));
    for (uint32_t i = 0; i < n; i++)
        s->slots[i] = (struct slot){ .slots = s, .number = i };
    start_thread(s);
    *ret = s;
    return COX_OK;
}

static void push_request(struct slots *s, struct request *q)
{
    bool was_empty;

    COX_ASSERT(cox_ring_push(s->requests, q, &was_empty));
    if (was_empty)
        wake(s);
}

static struct request *new_request(enum request_kind kind, uint32_t slot)
{
    struct request *q = COX_NEW(struct request);

    q->kind = kind;
    q->slot = slot;
    return q;
}

void slots_start(struct slots *s, uint32_t slot, const struct cox_agent_assign *assign)
{
    struct request *q = new_request(REQUEST_START, slot);

    cox_agent_copy_assign(&q->bytes, &q->assign, assign);
    push_request(s, q);
}

/* As with logs: what is not said now is found out later, here by a workspace's age. */
static bool is_crowded(const struct slots *s)
{
    return cox_ring_len(s->requests) + 3 * (size_t)s->config.n_slots + 1 >= cox_ring_cap(s->requests);
}

void slots_release(struct slots *s, struct cox_slice task_id)
{
    struct request *q;

    if (is_crowded(s))
        return;
    q = new_request(REQUEST_RELEASE, 0);
    cox_buf_append_slice(&q->bytes, task_id);
    push_request(s, q);
}

void slots_workspaces(const struct slots *s, struct workspaces_use *ret)
{
    workspaces_use(s->host.workspaces, ret);
}

void slots_aim(struct slots *s, const char *address, const char *session, const char *models_url)
{
    if (s->host.courier)
        courier_aim(s->host.courier, address, session);
    if (s->models)
        models_aim(s->models, address, session, models_url);
}

void slots_secrets(struct slots *s, struct secret_table *table)
{
    secrets_configure(s->host.secrets, table);
}

void slots_kill(struct slots *s, uint32_t slot)
{
    push_request(s, new_request(REQUEST_KILL, slot));
}

void slots_log(struct slots *s, uint32_t slot, bool wanted)
{
    struct request *q;

    if (is_crowded(s))
        return;
    q = new_request(REQUEST_LOG, slot);
    q->wanted = wanted;
    push_request(s, q);
}

struct slots_reply *slots_take(struct slots *s)
{
    return cox_ring_pop(s->replies);
}

void slots_reply_free(struct slots *s, struct slots_reply *reply)
{
    if (reply->kind == SLOTS_LOG && atomic_fetch_sub(&s->n_logs, 1) == SLOTS_LOGS_MAX)
        wake(s);
    cox_buf_fini(&reply->bytes);
    cox_free(reply);
}

void slots_destroy(struct slots *s)
{
    struct slots_reply *reply;
    struct request *q;

    if (!s)
        return;
    push_request(s, new_request(REQUEST_STOP, 0));
    pthread_join(s->thread, NULL);
    while ((reply = cox_ring_pop(s->replies)) != NULL)
        slots_reply_free(s, reply);
    while ((q = cox_ring_pop(s->requests)) != NULL) {
        cox_buf_fini(&q->bytes);
        cox_free(q);
    }
    courier_destroy(s->host.courier);
    secrets_destroy(s->host.secrets);
    program_unref(s->host.jq);
    janitor_destroy(s->host.janitor);
    janitor_remove_now(s->dir);
    if (s->made_work_dir)
        (void)!rmdir(s->config.work_dir); /* unless somebody else uses it as well */
    close(s->dir_fd);
    close(s->wake_fd);
    close(s->signal_fd);
    cox_ring_destroy(s->requests);
    cox_ring_destroy(s->replies);
    cox_free(s->slots);
    cox_free(s->dir);
    cox_free(s);
}

bool slots_hung_up(struct slots *s)
{
    return atomic_exchange(&s->hung_up, false);
}
