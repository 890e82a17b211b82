#include "sandbox.h"

#include "filter.h"
#include "report.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBE_MS 10000
#define WHY_LEN_MAX 200 /* a label holds no more */
/* How far the limit of the user namespace stands behind that of the control group, which is to be met first.
 */
#define PROCESSES_BEHIND 64
#define SCOPES 6 /* the version of Landlock that can scope abstract sockets */

struct sandbox {
    enum sandbox_level least;
    char *helper;
    const char *const *read;
    size_t n_read;
    int filters[SANDBOX_LEVEL_NR];
    char why[SANDBOX_LEVEL_NR][WHY_LEN_MAX];
    int landlock;
    char labels[SANDBOX_LABELS][COX_LABEL_LEN_MAX + 1];
    uint64_t memory_len;     /* of the host */
    struct cgroups *cgroups; /* NULL: none */
};

struct sandboxed {
    int report;
    struct cgroup *group; /* NULL: none */
    uint64_t memory_len_max;
};

static const char *const levels[] = { "none", "net", "strict" };

const char *sandbox_level_text(enum sandbox_level level)
{
    return levels[level];
}

bool sandbox_level_parse(struct cox_slice text, enum sandbox_level *ret)
{
    for (int i = 0; i < SANDBOX_LEVEL_NR; i++)
        if (cox_slice_is(text, levels[i])) {
            *ret = (enum sandbox_level)i;
            return true;
        }
    return false;
}

const char *sandbox_why_not(const struct sandbox *s, enum sandbox_level level)
{
    if (level == SANDBOX_NONE)
        return NULL;
    if (!s)
        return "this worker has no sandbox";
    return s->why[level][0] ? s->why[level] : NULL;
}

enum sandbox_level sandbox_level_for(const struct sandbox *s, enum sandbox_level asked)
{
    if (!s || COX_PLANTED("sandbox-weakened"))
        return s ? s->least : asked;
    return asked > s->least ? asked : s->least;
}

static const char *const label_keys[SANDBOX_LABELS] = { SANDBOX_LABEL "strict", SANDBOX_LABEL "net",
                                                        SANDBOX_LABEL "least",  SANDBOX_LABEL "landlock",
                                                        SANDBOX_LABEL "memory", SANDBOX_LABEL "processes",
                                                        SANDBOX_LABEL "cpu",    SANDBOX_LABEL "cgroups" };

void sandbox_labels(const struct sandbox *s, const char *ret_keys[SANDBOX_LABELS],
                    const char *ret_values[SANDBOX_LABELS])
{
    for (int i = 0; i < SANDBOX_LABELS; i++) {
        ret_keys[i] = label_keys[i];
        ret_values[i] = s->labels[i];
    }
}

static void say_level(struct sandbox *s, enum sandbox_level level, char *to, size_t size)
{
    if (s->why[level][0])
        snprintf(to, size, "no: %s", s->why[level]);
    else if (level == SANDBOX_NET && s->least == SANDBOX_STRICT)
        snprintf(to, size, "no: this worker runs every step at strict");
    else
        snprintf(to, size, "yes");
}

/* Which mechanism holds steps to a limit, and why not the better one. */
static void say_limit(const struct sandbox *s, enum cgroup_limit limit, char *to, size_t size)
{
    static const char *const without[CGROUP_LIMIT_NR] = { "watched", "counted by user namespace",
                                                          "not shared out" };
    const char *why = s->cgroups ? cgroups_why_not(s->cgroups, limit) : "control groups are not asked for";

    if (why)
        snprintf(to, size, "%s: %s", without[limit], why);
    else
        snprintf(to, size, "control group%s", limit == CGROUP_CPU ? ", by weight" : "");
}

static void make_labels(struct sandbox *s)
{
    const char *why = "not asked for";
    const char *dir = s->cgroups ? cgroups_dir(s->cgroups, &why) : NULL;
    const size_t size = sizeof(s->labels[0]);

    say_level(s, SANDBOX_STRICT, s->labels[0], size);
    say_level(s, SANDBOX_NET, s->labels[1], size);
    snprintf(s->labels[2], size, "%s", levels[s->least]);
    if (s->landlock)
        snprintf(s->labels[3], size, "version %d", s->landlock);
    else
        snprintf(s->labels[3], size, "no: the kernel has none, or it is not among its security modules");
    for (int i = 0; i < CGROUP_LIMIT_NR; i++)
        say_limit(s, (enum cgroup_limit)i, s->labels[SANDBOX_LABEL_MEMORY + i], size);
    if (dir)
        snprintf(s->labels[SANDBOX_LABEL_GROUPS], size, "version 2, in %.200s", dir);
    else
        snprintf(s->labels[SANDBOX_LABEL_GROUPS], size, "no: %s", why);
}

/* ---------------------------------------------------------------- arguments of cox-sandbox */

struct arguments {
    char **items;
    size_t n, cap, n_own;
};

static void put_text(struct arguments *a, char *text)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 64;
        a->items = cox_realloc(a->items, a->cap, sizeof(*a->items));
    }
    a->items[a->n++] = text;
}

static void put(struct arguments *a, const char *key, const char *value)
{
    if (value)
        put_text(a, cox_asprintf("%s=%s", key, value));
}

static void put_number(struct arguments *a, const char *key, uint64_t value)
{
    put_text(a, cox_asprintf("%s=%llu", key, (unsigned long long)value));
}

/* Half of what is there, so that no step can take the host's last byte. */
static uint64_t disk_len_max(const struct sandbox_step *step)
{
    struct statvfs st;

    if (step->resources && step->resources->disk_bytes > 0)
        return (uint64_t)step->resources->disk_bytes;
    return step->work && statvfs(step->work, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize / 2 : 1u << 20;
}

static uint64_t memory_len_max(const struct sandbox *s, const struct sandbox_step *step)
{
    return step->resources && step->resources->memory_bytes > 0 ? (uint64_t)step->resources->memory_bytes
                                                                : s->memory_len / 2;
}

static void put_limits(const struct sandbox *s, const struct sandbox_step *step, const struct cgroup *group,
                       struct arguments *a)
{
    uint64_t memory = memory_len_max(s, step);
    uint64_t disk = disk_len_max(step);
    uint64_t behind = cgroup_holds(group, CGROUP_PROCESSES) ? PROCESSES_BEHIND : 0;

    put_number(a, "memory", COX_PLANTED("sandbox-memory") ? s->memory_len : memory);
    put_number(a, "tmp", disk < memory / 2 ? disk : memory / 2);
    put_number(a, "disk", disk);
    put_number(a, "processes", SANDBOX_PROCESSES_MAX + behind);
    put_number(a, "files", SANDBOX_FILES_MAX);
    if (group)
        put(a, "group", cgroup_holds(group, CGROUP_MEMORY) ? "memory" : "");
}

static void put_all(const struct sandbox *s, enum sandbox_level level, const struct sandbox_step *step,
                    const struct spawn_args *args, const struct cgroup *group, struct arguments *a)
{
    put_text(a, cox_strdup("cox-sandbox"));
    put(a, "level", levels[COX_PLANTED("sandbox-network") ? SANDBOX_NET : level]);
    put_number(a, "uid", SANDBOX_UID);
    put_number(a, "gid", SANDBOX_UID);
    put(a, "dir", args->dir);
    put(a, "work", step->work);
    put(a, "input", step->input);
    put(a, "read", step->program);
    put(a, "read", step->bundle);
    for (size_t i = 0; i < s->n_read; i++)
        put(a, "read", s->read[i]);
    for (size_t i = 0; step->read && step->read[i]; i++)
        put(a, "read", step->read[i]);
    put_limits(s, step, group, a);
    if (step->port) {
        put_number(a, "port", step->port);
        put_number(a, "channel", (group ? GROUP_FD : ENVIRON_FD) + 1); /* it is kept last */
    }
    for (size_t i = 0; args->paths[i]; i++)
        put(a, "path", args->paths[i]);
    put_text(a, cox_strdup("--"));
    a->n_own = a->n;
    for (size_t i = 0; args->argv[i]; i++)
        put_text(a, args->argv[i]);
    put_text(a, NULL);
}

static void drop(struct arguments *a)
{
    for (size_t i = 0; i < a->n_own; i++)
        cox_free(a->items[i]);
    cox_free(a->items);
}

/* ---------------------------------------------------------------- a step */

/* A file without a name; -1 with errno. */
static int environment_file(char *const *envp)
{
    int fd = memfd_create("cox-environment", MFD_CLOEXEC);
    struct cox_buf b = { 0 };
    size_t len = 0;
    bool ok;

    for (char *const *entry = envp; *entry; entry++)
        len += strlen(*entry) + 1;
    cox_buf_reserve(&b, len + 1); /* so that it does not move: there may be secrets in it */
    for (; *envp; envp++)
        cox_buf_append(&b, *envp, strlen(*envp) + 1);
    ok = fd >= 0 && (len == 0 || write(fd, b.data, len) == (ssize_t)len);
    explicit_bzero(b.data, len);
    cox_buf_fini(&b);
    if (ok || fd < 0)
        return fd;
    close(fd);
    return -1;
}

/* What a worker that is root has made only for itself: the step's directory, and its pipes, which programs
 * open again by names such as /dev/stderr. The directory was made in one that only the worker can write to.
 */
static int give_to_step(const struct sandbox_step *step, const struct spawn_args *args)
{
    const int fds[] = { args->in, args->out, args->err };
    struct stat st;

    if (geteuid() != 0)
        return 0;
    if (step->work && chown(step->work, SANDBOX_UID, SANDBOX_UID) != 0)
        return errno;
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fstat(fds[i], &st) == 0 && S_ISFIFO(st.st_mode) && fchown(fds[i], SANDBOX_UID, SANDBOX_UID) != 0)
            return errno;
    return 0;
}

/* The program that starts the sandbox is outside, and obeys no variable of the step's. */
static char *const *bare_environment(void)
{
    static char *entries[2];
#ifdef COX_PLANT
    const char *plant = getenv("COX_PLANT");

    if (plant && !entries[0])
        entries[0] = cox_asprintf("COX_PLANT=%s", plant);
#endif
    return entries;
}

/* Returns an errno. */
static int spawn_in(struct sandbox *s, enum sandbox_level level, const struct sandbox_step *step,
                    const struct spawn_args *args, int report, int channel, const struct cgroup *group,
                    pid_t *ret_pid)
{
    struct arguments a = { 0 };
    char *const paths[] = { s->helper, NULL };
    struct spawn_args own = *args;
    int environment = environment_file(args->envp);
    int err;

    if (environment < 0)
        return errno;
    put_all(s, level, step, args, group, &a);
    own.paths = paths;
    own.argv = a.items;
    own.envp = COX_PLANTED("sandbox-preload") ? args->envp : bare_environment();
    own.dir = "/";
    own.keep[0] = report;
    own.keep[1] = s->filters[level];
    own.keep[2] = environment;
    own.n_keep = 3;
    if (group)
        own.keep[own.n_keep++] = cgroup_fd(group);
    if (channel >= 0)
        own.keep[own.n_keep++] = channel;
    err = spawn_process(&own, ret_pid);
    drop(&a);
    close(environment);
    return err;
}

static void close_both(const int fds[2])
{
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

int sandbox_spawn(struct sandbox *s, enum sandbox_level level, const struct sandbox_step *step,
                  const struct spawn_args *args, pid_t *ret_pid, struct sandboxed **ret)
{
    const struct cgroup_amounts amounts = { .memory_len_max = memory_len_max(s, step),
                                            .processes_max = SANDBOX_PROCESSES_MAX,
                                            .cpu_milli = step->resources ? step->resources->cpu_milli : 0 };
    struct sandboxed *in;
    int fds[2], channel[2] = { -1, -1 }, err;

    err = give_to_step(step, args);
    if (err)
        return err;
    if (step->port && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel) != 0)
        return errno;
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        err = errno;
        close_both(channel);
        return err;
    }
    in = COX_NEW(struct sandboxed);
    *in = (struct sandboxed){ .report = fds[0], .memory_len_max = amounts.memory_len_max };
    in->group = cgroup_begin(s->cgroups, &amounts);
    err = spawn_in(s, level, step, args, fds[1], channel[1], in->group, ret_pid);
    close(fds[1]);
    if (!err && step->port) {
        *step->ret_channel = channel[0];
        channel[0] = -1;
    }
    close_both(channel);
    if (in->group)
        cgroup_release(in->group);
    if (err)
        sandbox_end(in, NULL);
    else
        *ret = in;
    return err;
}

void sandbox_kill(pid_t pid)
{
    kill(pid, SIGINT);
}

static void take_report(const struct report *r, struct sandbox_end *ret)
{
    switch ((enum report_kind)r->kind) {
    case REPORT_SETUP:
        snprintf(ret->failed, sizeof(ret->failed), "%.239s: %s", r->text, strerror(r->value));
        break;
    case REPORT_EXEC:
        ret->exec_errno = r->value;
        break;
    case REPORT_LIMIT:
        snprintf(ret->limit, sizeof(ret->limit), "%.239s", r->text);
        break;
    case REPORT_STATUS:
        ret->has_status = true;
        ret->status = r->value;
        break;
    }
}

/* That it was killed is all that the step's own end can say of it, if it is told at all. */
static void judge_memory(const struct sandboxed *in, struct sandbox_end *ret)
{
    if (ret->limit[0] || (ret->has_status && !(WIFSIGNALED(ret->status) && WTERMSIG(ret->status) == SIGKILL)))
        return;
    ret->has_status = false;
    snprintf(ret->limit, sizeof(ret->limit),
             "used all of its memory and wanted more than the %llu MiB it may have",
             (unsigned long long)(in->memory_len_max >> 20));
}

void sandbox_end(struct sandboxed *in, struct sandbox_end *ret)
{
    struct sandbox_end unread;
    struct report r;

    ret = ret ? ret : &unread;
    memset(ret, 0, sizeof(*ret));
    while (read(in->report, &r, sizeof(r)) == (ssize_t)sizeof(r)) {
        r.text[sizeof(r.text) - 1] = 0;
        take_report(&r, ret);
    }
    close(in->report);
    ret->is_up = !ret->failed[0];
    if (cgroup_end(in->group))
        judge_memory(in, ret);
    cox_free(in);
}

static bool is_named(const char *entry, const char *name)
{
    size_t len = strlen(name);

    return strncmp(entry, name, len) == 0 && entry[len] == '=';
}

void sandbox_environment(char **envp, enum sandbox_level level)
{
    static char *const inside[][2] = { { (char *)(uintptr_t) "HOME", (char *)(uintptr_t) "HOME=/tmp" },
                                       { (char *)(uintptr_t) "TMPDIR", (char *)(uintptr_t) "TMPDIR=/tmp" },
                                       { (char *)(uintptr_t) "USER", (char *)(uintptr_t) "USER=step" },
                                       { (char *)(uintptr_t) "LOGNAME", (char *)(uintptr_t) "LOGNAME=step" },
                                       { (char *)(uintptr_t) "SHELL", (char *)(uintptr_t) "SHELL=/bin/sh" } };
    size_t n = 0;

    for (char **from = envp; *from; from++) {
        bool is_kept = true;

        for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++)
            if (is_named(*from, inside[i][0]) && !COX_PLANTED("sandbox-environment"))
                *from = inside[i][1];
        if (is_named(*from, "COX_HTTP") && level == SANDBOX_STRICT)
            is_kept = false; /* nobody could be reached there */
        if (is_kept)
            envp[n++] = *from;
    }
    envp[n] = NULL;
}

/* ---------------------------------------------------------------- what the host can do */

/* Starts `true` in a sandbox, as any step is started. */
static bool probe(struct sandbox *s, enum sandbox_level level, struct sandbox_end *ret, int *ret_err)
{
    char *const paths[] = { (char *)(uintptr_t) "/bin/true", (char *)(uintptr_t) "/usr/bin/true", NULL };
    char *const argv[] = { (char *)(uintptr_t) "true", NULL };
    char *const envp[] = { NULL };
    struct sandbox_step step = { .resources = NULL };
    struct spawn_args args = { .paths = paths, .argv = argv, .envp = envp, .dir = "/" };
    struct pollfd ended = { .events = POLLIN };
    struct sandboxed *in;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    pid_t pid;

    args.in = args.out = args.err = null_fd;
    *ret_err = null_fd < 0 ? errno : sandbox_spawn(s, level, &step, &args, &pid, &in);
    if (null_fd >= 0)
        close(null_fd);
    if (*ret_err)
        return false;
    ended.fd = spawn_pidfd(pid);
    if (ended.fd < 0 || poll(&ended, 1, PROBE_MS) != 1)
        kill(-pid, SIGKILL);
    if (ended.fd >= 0)
        close(ended.fd);
    waitpid(pid, NULL, 0);
    sandbox_end(in, ret);
    return ret->is_up && ret->exec_errno == 0 && ret->has_status && ret->status == 0;
}

/* What is promised without control groups is promised all the same: where only they are in the way, there are
 * none. */
static bool probe_without_groups(struct sandbox *s, enum sandbox_level level, struct sandbox_end *ret,
                                 int *ret_err)
{
    struct cgroups *groups = s->cgroups;
    char why[WHY_LEN_MAX];
    bool ok;

    if (!groups || *ret_err)
        return false;
    snprintf(why, sizeof(why), "a step cannot begin in one: %.120s",
             ret->failed[0] ? ret->failed : ret->limit);
    s->cgroups = NULL;
    ok = probe(s, level, ret, ret_err);
    s->cgroups = groups;
    if (ok)
        cgroups_give_up(groups, why);
    return ok;
}

/* A step can run cox-sandbox once more, as /proc/self/exe, and so has a hold of the host's own file; Landlock
 * denies it, else whose it is. */
static bool is_steps_own(const struct sandbox *s)
{
    struct stat st;

    return !s->landlock && !COX_PLANTED("sandbox-is-the-steps") && geteuid() != 0 &&
           stat(s->helper, &st) == 0 && st.st_uid == geteuid();
}

/* Wherever links lead; a directory that is not there yet lies where it says. */
static bool lies_in(const char *path, const char *dir)
{
    char *real = realpath(path, NULL), *real_dir = realpath(dir, NULL);
    const char *at = real ? real : path;
    size_t len = strlen(real_dir ? real_dir : dir);
    bool lies =
        strncmp(at, real_dir ? real_dir : dir, len) == 0 && (at[len] == '/' || at[len] == 0 || len == 1);

    free(real);
    free(real_dir);
    return lies;
}

/* What shows all steps the work of each; NULL: nothing does. */
static const char *shown_to_all(const struct sandbox_config *config)
{
    static const char *const system[] = { "/usr", "/opt" };

    for (size_t i = 0; i < sizeof(system) / sizeof(system[0]); i++)
        if (lies_in(config->work_dir, system[i]))
            return system[i];
    for (size_t i = 0; i < config->n_read; i++)
        if (lies_in(config->work_dir, config->read[i]) && !COX_PLANTED("sandbox-shows-all"))
            return config->read[i];
    return NULL;
}

static void try_level(struct sandbox *s, enum sandbox_level level, const struct sandbox_config *config)
{
    struct sandbox_end end = { 0 };
    const char *shown;
    char *why = s->why[level];
    int err = 0;

    shown = shown_to_all(config);
    if (shown) {
        snprintf(why, WHY_LEN_MAX, "the work directory lies in what every step may read: %.100s", shown);
        return;
    }
    if (is_steps_own(s)) {
        snprintf(why, WHY_LEN_MAX,
                 "cox-sandbox must be another user's file where the kernel has no Landlock");
        return;
    }
    s->filters[level] = filter_file(level == SANDBOX_STRICT || s->landlock >= SCOPES);
    if (s->filters[level] < 0) {
        snprintf(why, WHY_LEN_MAX, "cannot make a system call filter: %s", strerror(errno));
        return;
    }
    if (probe(s, level, &end, &err) || probe_without_groups(s, level, &end, &err))
        return;
    if (err)
        snprintf(why, WHY_LEN_MAX, "cannot start %.120s: %s", s->helper, strerror(err));
    else if (end.failed[0])
        snprintf(why, WHY_LEN_MAX, "cannot %.150s%s", end.failed,
                 strstr(end.failed, "namespace") ? " (user.max_user_namespaces?)" : "");
    else
        snprintf(why, WHY_LEN_MAX, "a sandboxed process did not end as it should");
}

static char *find_helper(void)
{
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

    self[len > 0 ? len : 0] = 0;
    char *slash = strrchr(self, '/');

    return cox_asprintf("%.*s/cox-sandbox", slash ? (int)(slash - self) : 0, self);
}

struct sandbox *sandbox_create(const struct sandbox_config *config)
{
    struct sandbox *s = COX_NEW(struct sandbox);
    long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    s->least = config->least;
    s->helper = config->helper ? cox_strdup(config->helper) : find_helper();
    s->read = config->read;
    s->n_read = config->n_read;
    s->landlock = landlock > 0 ? (int)landlock : 0;
    s->memory_len = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    s->filters[SANDBOX_NONE] = s->filters[SANDBOX_NET] = s->filters[SANDBOX_STRICT] = -1;
    s->cgroups = config->cgroups ? cgroups_create(config->cgroups) : NULL;
    try_level(s, SANDBOX_NET, config);
    try_level(s, SANDBOX_STRICT, config);
    make_labels(s);
    return s;
}

void sandbox_destroy(struct sandbox *s)
{
    if (!s)
        return;
    for (int i = 0; i < SANDBOX_LEVEL_NR; i++)
        if (s->filters[i] >= 0)
            close(s->filters[i]);
    cgroups_destroy(s->cgroups);
    cox_free(s->helper);
    cox_free(s);
}
