#include "cgroups.h"

#include "cgroup_place.h"

#include "cox/base/alloc.h"
#include "cox/base/list.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "cox-attempts-" /* PID-NUMBER follow */
#define DYING_MS 2000
/* Of process 1 and of what the kernel keeps for a sandbox: its mounts, page tables and stacks. */
#define OWN_MEMORY_LEN (UINT64_C(4) << 20)
/* The kernel's weight for whoever asks for nothing stands for one core. */
#define WEIGHT_A_CORE 100
#define WEIGHT_MAX 10000

static const char *const controllers[CGROUP_LIMIT_NR] = { "memory", "pids", "cpu" };

struct cgroups {
    struct cgroups_config config;
    char *base, *dir; /* dir NULL: there are none */
    int lock_fd;
    bool has_moved; /* this process, into dir/self */
    bool has_enabled[CGROUP_LIMIT_NR];
    char why[CGROUP_LIMIT_NR][CGROUP_WHY_MAX]; /* empty: attempts are held to it */
    char why_none[CGROUP_WHY_MAX];
    pthread_mutex_t mutex;
    struct cox_list dying; /* ended, but not empty yet */
    unsigned n_begun;
};

struct cgroup {
    struct cox_list link;
    struct cgroups *of;
    char *path;
    int fd;
    bool holds[CGROUP_LIMIT_NR];
};

/* ---------------------------------------------------------------- files */

/* Returns an errno. */
static int write_at(const char *dir, const char *file, const char *text)
{
    char *path = cox_asprintf("%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    int err = fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ? errno : 0;

    if (fd >= 0)
        close(fd);
    cox_free(path);
    return err;
}

static int write_number(const char *dir, const char *file, uint64_t n)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
    return write_at(dir, file, text);
}

/* Up to `size` - 1 bytes of it; empty where it cannot be read. */
static void read_at(const char *dir, const char *file, char *to, size_t size)
{
    char *path = cox_asprintf("%s/%s", dir, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n = 0;

    while (fd >= 0 && len + 1 < size && (n = read(fd, to + len, size - 1 - len)) > 0)
        len += (size_t)n;
    to[len] = 0;
    if (fd >= 0)
        close(fd);
    cox_free(path);
}

static bool may_write(const char *dir, const char *file)
{
    char *path = cox_asprintf("%s/%s", dir, file);
    bool may = faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;

    cox_free(path);
    return may;
}

static int make(const struct cgroups *c, const char *path)
{
    return c->config.make ? c->config.make(path) : mkdir(path, 0755);
}

static int remove_group(const struct cgroups *c, const char *path)
{
    if (COX_PLANTED("sandbox-group-stays"))
        return 0;
    return c->config.remove ? c->config.remove(path) : rmdir(path);
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void await_empty(const char *path, int limit_ms)
{
    char *events = cox_asprintf("%s/cgroup.events", path), rows[256];
    struct pollfd changed = { .events = POLLPRI, .fd = open(events, O_RDONLY | O_CLOEXEC) };
    int64_t deadline_ms = now_ms() + limit_ms, left_ms;
    ssize_t len;

    while (changed.fd >= 0 && (left_ms = deadline_ms - now_ms()) > 0) {
        len = pread(changed.fd, rows, sizeof(rows) - 1, 0); /* what is told next is what changes after it */
        rows[len > 0 ? len : 0] = 0;
        if (cgroup_count(rows, "populated") == 0 || poll(&changed, 1, (int)left_ms) <= 0)
            break;
    }
    if (changed.fd >= 0)
        close(changed.fd);
    cox_free(events);
}

/* True: it is gone. What is in it is killed, and awaited for so long. */
static bool remove_dying(const struct cgroups *c, const char *path, int limit_ms)
{
    if (remove_group(c, path) == 0 || errno == ENOENT)
        return true;
    if (errno != EBUSY)
        return false;
    (void)write_at(path, "cgroup.kill", "1");
    if (limit_ms > 0)
        await_empty(path, limit_ms);
    return remove_group(c, path) == 0 || errno == ENOENT;
}

/* ---------------------------------------------------------------- what dead workers have left */

/* A group of groups: those in it first. */
static void sweep_one(const struct cgroups *c, const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;

    (void)write_at(path, "cgroup.kill", "1");
    while (d && (e = readdir(d)) != NULL) {
        char *inner = cox_asprintf("%s/%s", path, e->d_name);
        struct stat st;

        if (e->d_name[0] != '.' && lstat(inner, &st) == 0 && S_ISDIR(st.st_mode))
            (void)remove_dying(c, inner, DYING_MS);
        cox_free(inner);
    }
    if (d)
        closedir(d);
    if (!remove_dying(c, path, DYING_MS))
        cox_log(COX_LOG_WARN, "a control group of a dead worker cannot be removed", "path", path, "error",
                strerror(errno), NULL);
}

/* The whole of it: whatever else is there is somebody else's, and would be killed. */
static bool is_name(const char *name)
{
    int len = 0;

    return sscanf(name, PREFIX "%*[0-9]-%*[0-9]%n", &len) == 0 && len > 0 && !name[len];
}

/* A worker holds a lock on its group: one that nobody holds belongs to nobody. */
static void sweep(const struct cgroups *c)
{
    DIR *d = opendir(c->base);
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL) {
        char *path;
        int fd;

        if (!is_name(e->d_name))
            continue;
        path = cox_asprintf("%s/%s", c->base, e->d_name);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            sweep_one(c, path);
        if (fd >= 0)
            close(fd);
        cox_free(path);
    }
    if (d)
        closedir(d);
}

/* ---------------------------------------------------------------- beginning */

static bool refuse(struct cgroups *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(struct cgroups *c, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(c->why_none, sizeof(c->why_none), format, args);
    va_end(args);
    return false;
}

/* systemd marks what it has delegated, and takes controllers away again from what it has not. */
static bool is_kept_by_systemd(const char *dir)
{
    char *path = cox_strdup(dir), mark;
    bool is_delegated = access("/run/systemd/system", F_OK) != 0;

    for (char *slash; !is_delegated && (slash = strrchr(path, '/')) != NULL && slash != path; *slash = 0)
        is_delegated = (getxattr(path, "user.delegate", &mark, 1) == 1 && mark == '1') ||
                       (getxattr(path, "trusted.delegate", &mark, 1) == 1 && mark == '1');
    cox_free(path);
    return !is_delegated;
}

static bool find_base(struct cgroups *c)
{
    static char groups[8 << 10], mounts[256 << 10];
    struct cgroup_place place;

    if (c->config.dir) {
        c->base = cox_strdup(c->config.dir);
        return true;
    }
    read_at("/proc/self", "cgroup", groups, sizeof(groups));
    read_at("/proc/self", "mountinfo", mounts, sizeof(mounts));
    if (!cgroup_place(groups, mounts, &place))
        return refuse(c, "%s", place.why);
    c->base = cox_strdup(place.dir);
    return !is_kept_by_systemd(c->base) ||
           refuse(c, "systemd has not delegated %.80s (Delegate=yes)", c->base);
}

/* Processes of others are nobody's to move. The root of all, alone, may have processes beside groups with
 * limits. */
static bool is_alone(const struct cgroups *c, bool *ret_is_root)
{
    char *type = cox_asprintf("%s/cgroup.type", c->base), pids[64], own[24];

    *ret_is_root = access(type, F_OK) != 0;
    cox_free(type);
    read_at(c->base, "cgroup.procs", pids, sizeof(pids));
    snprintf(own, sizeof(own), "%d\n", (int)getpid());
    return *ret_is_root || strcmp(pids, own) == 0;
}

/* Locked before anybody can take it for left over: who sweeps in between has it removed, and another is made.
 */
static bool make_dir(struct cgroups *c)
{
    struct stat locked, there;

    for (unsigned n = 0; n < 16; n++) {
        char *path = cox_asprintf("%s/" PREFIX "%d-%u", c->base, (int)getpid(), n);
        int fd = make(c, path) == 0 ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &locked) == 0 &&
            stat(path, &there) == 0 && locked.st_ino == there.st_ino) {
            c->dir = path;
            c->lock_fd = fd;
            return true;
        }
        if (fd >= 0)
            close(fd);
        cox_free(path);
        if (fd < 0 && errno != EEXIST && errno != ENOENT)
            break;
    }
    return refuse(c, "cannot make a group in %.80s: %s", c->base, strerror(errno));
}

static int move_self(struct cgroups *c)
{
    char *self = cox_asprintf("%s/self", c->dir);
    int err = make(c, self) == 0 ? write_at(self, "cgroup.procs", "0") : errno;

    c->has_moved = err == 0;
    cox_free(self);
    return err;
}

static void enable(struct cgroups *c, enum cgroup_limit limit, const char *there)
{
    char text[16], enabled[256];
    int err;

    if (!cgroup_list_has(there, controllers[limit])) {
        snprintf(c->why[limit], CGROUP_WHY_MAX, "no controller %s in %.80s", controllers[limit], c->base);
        return;
    }
    snprintf(text, sizeof(text), "+%s", controllers[limit]);
    read_at(c->base, "cgroup.subtree_control", enabled, sizeof(enabled));
    if (cgroup_list_has(enabled, controllers[limit])) {
        err = write_at(c->dir, "cgroup.subtree_control", text);
    } else {
        err = write_at(c->base, "cgroup.subtree_control", text);
        c->has_enabled[limit] = err == 0;
        err = err ? err : write_at(c->dir, "cgroup.subtree_control", text);
    }
    if (err)
        snprintf(c->why[limit], CGROUP_WHY_MAX, "cannot have the controller %s: %s", controllers[limit],
                 strerror(err));
}

static bool begin(struct cgroups *c)
{
    char there[256];
    bool is_root, any = false;
    int err;

    if (!find_base(c))
        return false;
    read_at(c->base, "cgroup.controllers", there, sizeof(there));
    for (int i = 0; i < CGROUP_LIMIT_NR; i++)
        any |= cgroup_list_has(there, controllers[i]);
    if (!any)
        return refuse(c, "%.80s has none of the controllers memory, pids and cpu", c->base);
    if (!may_write(c->base, "cgroup.procs") || !may_write(c->base, "cgroup.subtree_control"))
        return refuse(c, "%.80s is not delegated to the worker's user", c->base);
    sweep(c);
    if (!is_alone(c, &is_root))
        return refuse(c, "%.80s has other processes than this worker", c->base);
    if (!make_dir(c))
        return false;
    if (!is_root && (err = move_self(c)) != 0)
        return refuse(c, "cannot move the worker to %.80s/self: %s", c->dir, strerror(err));
    any = false;
    for (int i = 0; i < CGROUP_LIMIT_NR; i++) {
        enable(c, (enum cgroup_limit)i, there);
        any |= !c->why[i][0];
    }
    return any || refuse(c, "%s", c->why[CGROUP_MEMORY]);
}

struct cgroups *cgroups_create(const struct cgroups_config *config)
{
    struct cgroups *c = COX_NEW(struct cgroups);

    c->config = *config;
    c->lock_fd = -1;
    pthread_mutex_init(&c->mutex, NULL);
    cox_list_init(&c->dying);
    if (!begin(c))
        cgroups_give_up(c, c->why_none);
    return c;
}

const char *cgroups_why_not(const struct cgroups *c, enum cgroup_limit limit)
{
    return c->dir && !c->why[limit][0] ? NULL : c->dir ? c->why[limit] : c->why_none;
}

const char *cgroups_dir(const struct cgroups *c, const char **ret_why)
{
    *ret_why = c->why_none;
    return c->dir;
}

/* ---------------------------------------------------------------- an attempt */

/* Returns an errno. */
static int hold(struct cgroup *g, enum cgroup_limit limit, const struct cgroup_amounts *amounts)
{
    int64_t weight = amounts->cpu_milli > 0 ? amounts->cpu_milli * WEIGHT_A_CORE / 1000 : WEIGHT_A_CORE;
    int err;

    switch (limit) {
    case CGROUP_MEMORY:
        (void)write_at(g->path, "memory.swap.max", "0"); /* not where there is no swap */
        err = write_number(g->path, "memory.max", amounts->memory_len_max + OWN_MEMORY_LEN);
        return err ? err : write_at(g->path, "memory.oom.group", "1");
    case CGROUP_PROCESSES:
        if (COX_PLANTED("sandbox-group-processes"))
            return 0;
        return write_number(g->path, "pids.max", amounts->processes_max);
    case CGROUP_CPU:
        weight = weight < 1 ? 1 : weight > WEIGHT_MAX ? WEIGHT_MAX : weight;
        return write_number(g->path, "cpu.weight", (uint64_t)weight);
    case CGROUP_LIMIT_NR:
        break;
    }
    return EINVAL;
}

static void drop(struct cgroup *g)
{
    cgroup_release(g);
    cox_free(g->path);
    cox_free(g);
}

static void tell(const char *what, const char *path, int err)
{
    cox_log(COX_LOG_WARN, what, "path", path, "error", strerror(err), NULL);
}

struct cgroup *cgroup_begin(struct cgroups *c, const struct cgroup_amounts *amounts)
{
    struct cgroup *g;
    unsigned n;

    if (!c || !c->dir)
        return NULL;
    pthread_mutex_lock(&c->mutex);
    n = ++c->n_begun;
    pthread_mutex_unlock(&c->mutex);
    g = COX_NEW(struct cgroup);
    g->of = c;
    g->path = cox_asprintf("%s/%u", c->dir, n);
    g->fd = make(c, g->path) == 0 ? open(g->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (g->fd < 0) {
        tell("cannot make a control group; the step is watched instead", g->path, errno);
        drop(g);
        return NULL;
    }
    for (int i = 0; i < CGROUP_LIMIT_NR; i++) {
        int err = c->why[i][0] ? ENOENT : hold(g, (enum cgroup_limit)i, amounts);

        g->holds[i] = err == 0;
        if (err && !c->why[i][0])
            tell("a control group does not take its limit; the step is watched instead", g->path, err);
    }
    return g;
}

int cgroup_fd(const struct cgroup *g)
{
    return g->fd;
}

void cgroup_release(struct cgroup *g)
{
    if (g->fd >= 0)
        close(g->fd);
    g->fd = -1;
}

bool cgroup_holds(const struct cgroup *g, enum cgroup_limit limit)
{
    return g && g->holds[limit];
}

/* Those that were not empty yet when they ended: with each end, as many as fit between two steps. */
static void retry_dying(struct cgroups *c, int limit_ms)
{
    struct cox_list *next;

    pthread_mutex_lock(&c->mutex);
    for (struct cox_list *at = c->dying.next; at != &c->dying; at = next) {
        struct cgroup *g = COX_CONTAINER_OF(at, struct cgroup, link);

        next = at->next;
        if (!remove_dying(c, g->path, limit_ms))
            continue;
        cox_list_remove(&g->link);
        drop(g);
    }
    pthread_mutex_unlock(&c->mutex);
}

bool cgroup_end(struct cgroup *g)
{
    struct cgroups *c;
    char events[512];
    bool broke;

    if (!g)
        return false;
    c = g->of;
    read_at(g->path, "memory.events", events, sizeof(events));
    /* "oom" counts what wanted more than this group may have; a host, or a worker, short of memory kills as
     * well. */
    broke =
        g->holds[CGROUP_MEMORY] && cgroup_count(events, "oom") > 0 && cgroup_count(events, "oom_kill") > 0;
    retry_dying(c, 0);
    if (remove_dying(c, g->path, 0)) {
        drop(g);
        return broke;
    }
    cgroup_release(g);
    pthread_mutex_lock(&c->mutex);
    cox_list_push_back(&c->dying, &g->link);
    pthread_mutex_unlock(&c->mutex);
    return broke;
}

/* ---------------------------------------------------------------- ending */

/* Controllers first: while they are enabled, no process may be where this one came from. The root of all is
 * shared with other workers, whose limits they are too. */
static void move_back(struct cgroups *c)
{
    char *self = cox_asprintf("%s/self", c->dir), text[16];
    int err;

    for (int i = 0; i < CGROUP_LIMIT_NR; i++) {
        snprintf(text, sizeof(text), "-%s", controllers[i]);
        (void)write_at(c->dir, "cgroup.subtree_control", text);
        if (c->has_enabled[i])
            (void)write_at(c->base, "cgroup.subtree_control", text);
    }
    err = write_at(c->base, "cgroup.procs", "0");
    if (err)
        tell("cannot leave the worker's control group", self, err);
    else
        (void)remove_group(c, self);
    cox_free(self);
}

void cgroups_give_up(struct cgroups *c, const char *why)
{
    if (why != c->why_none)
        refuse(c, "%s", why);
    if (c->has_moved)
        move_back(c);
    if (c->dir) {
        retry_dying(c, DYING_MS);
        (void)remove_group(c, c->dir);
        close(c->lock_fd);
    }
    cox_free(c->dir);
    c->dir = NULL;
    c->has_moved = false;
}

void cgroups_destroy(struct cgroups *c)
{
    if (!c)
        return;
    cgroups_give_up(c, "");
    while (!cox_list_empty(&c->dying)) {
        struct cgroup *g = COX_CONTAINER_OF(c->dying.next, struct cgroup, link);

        cox_list_remove(&g->link);
        drop(g);
    }
    cox_free(c->base);
    pthread_mutex_destroy(&c->mutex);
    cox_free(c);
}
