/* cox-sandbox: started by a worker, and by nobody else. See enter.h. */
#include "enter.h"

#include "cox/base/plant.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_REFUSED 125

void tell(enum report_kind kind, int value, const char *format, ...)
{
    struct report r = { .kind = (uint32_t)kind, .value = value };
    va_list args;

    va_start(args, format);
    vsnprintf(r.text, sizeof(r.text), format, args);
    va_end(args);
    (void)!write(REPORT_FD, &r, sizeof(r));
}

void die(const char *what)
{
    tell(REPORT_SETUP, errno, "%s", what);
    _exit(EXIT_REFUSED);
}

/* A change of user clears it, so it is said again after each. */
static void die_with_parent(void)
{
    struct pollfd worker = { .fd = REPORT_FD };

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        die("ask for the end with the worker");
    if (poll(&worker, 1, 0) == 1) /* its end of the pipe is closed: it went before that was asked */
        _exit(EXIT_REFUSED);
}

/* ---------------------------------------------------------------- users */

static void write_map(pid_t pid, const char *file, const char *text)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        die("map users (/proc/PID/uid_map)");
    close(fd);
}

/* monitor: init asks for its map when it is in its namespace of users. */
static void map_users(pid_t init, int channel, const struct plan *plan)
{
    bool is_root = geteuid() == 0;
    char text[64], c;

    if (read(channel, &c, 1) != 1)
        return; /* it has ended, and said why */
    write_map(init, "setgroups", "deny");
    snprintf(text, sizeof(text), "%u %u 1", STEP_UID, is_root ? plan->uid : geteuid());
    write_map(init, "uid_map", text);
    snprintf(text, sizeof(text), "%u %u 1", STEP_GID, is_root ? plan->gid : getegid());
    write_map(init, "gid_map", text);
    if (write(channel, "", 1) != 1)
        die("tell that users are mapped");
}

/* init */
static void become_step_user(int channel)
{
    char c;

    if (write(channel, "", 1) != 1 || read(channel, &c, 1) != 1)
        _exit(EXIT_REFUSED); /* the monitor has said why */
    /* It is in its control group by now, whose path on the host is nobody's business; nothing depends on it.
     */
    (void)!unshare(CLONE_NEWCGROUP);
    if (setresgid(STEP_GID, STEP_GID, STEP_GID) != 0 || setresuid(STEP_UID, STEP_UID, STEP_UID) != 0)
        die("become the step's user");
    die_with_parent();
}

/* init, of a worker that is root. Whoever makes a namespace of users answers for what is counted in it
 * (watches of files, queued signals): root would, and a step could use up what root has of them. */
static void enter_users(const struct plan *plan)
{
    if (setgroups(0, NULL) != 0 || prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) != 0 ||
        setresgid(plan->gid, plan->gid, plan->gid) != 0 || setresuid(plan->uid, plan->uid, plan->uid) != 0)
        die("become nobody");
    if (unshare(CLONE_NEWUSER) != 0)
        die("enter a namespace of users");
    die_with_parent();
}

/* ---------------------------------------------------------------- step */

/* Opened in here, where the file cannot be written: a descriptor from outside could be opened again for that.
 */
static void take_input(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || dup2(fd, 0) < 0)
        die("open the standard input");
}

/* EACCES of a file that is there tells more than ENOENT of those that are not. */
static int exec_first(const struct plan *plan)
{
    int found = ENOENT;

    for (char *const *path = plan->paths; *path; path++) {
        execve(*path, plan->argv, plan->envp);
        if (errno == EACCES)
            found = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return errno;
    }
    return found;
}

static noreturn void step_main(const struct plan *plan)
{
    sigset_t none;

    sigemptyset(&none);
    if (setsid() < 0 || sigprocmask(SIG_SETMASK, &none, NULL) != 0)
        die("begin a session");
    if (chdir(plan->dir) != 0)
        die("enter the working directory");
    if (plan->input)
        take_input(plan->input);
    if (!COX_PLANTED("sandbox-descriptors") && close_range(REPORT_FD, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
        die("close descriptors");
    limit_resources(plan);
    limit_files(plan);
    limit_calls();
    tell(REPORT_EXEC, exec_first(plan), "%s", plan->argv[0]);
    _exit(127);
}

/* ---------------------------------------------------------------- init */

/* Reaps whatever has ended; true when that was the step itself. */
static bool reap(pid_t step)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != step)
            continue;
        tell(REPORT_STATUS, status, "%s", "");
        return true;
    }
    return false;
}

/* Until the step ends, breaks a limit, or has no worker any more. */
static void tend(struct watch *watch, pid_t step, int signals)
{
    struct pollfd fds[2] = { { .fd = signals, .events = POLLIN }, { .fd = REPORT_FD } };
    int64_t left_ms;

    watch_begin(watch);
    for (;;) {
        struct signalfd_siginfo info;
        const char *broken = watch_look(watch, &left_ms);
        int n = broken ? 0 : poll(fds, 2, (int)left_ms);

        if (broken)
            tell(REPORT_LIMIT, 0, "%s", broken);
        if (broken || (n > 0 && fds[1].revents))
            return;
        if (n <= 0 || read(signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
            continue;
        if (info.ssi_signo == SIGTERM &&
            info.ssi_pid == 0) /* from outside: the step cannot ask for its end */
            kill(-step, SIGTERM);
        if (reap(step))
            return;
    }
}

static int watch_signals(void)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        die("watch signals");
    return fd;
}

static noreturn void init_main(const struct plan *plan, bool is_root, int channel)
{
    struct watch watch;
    int signals;
    pid_t step;

    die_with_parent();
    if (!is_root)
        become_step_user(channel);
    if (sethostname("sandbox", 7) != 0)
        die("name the host");
    if (!plan->network)
        loopback_up();
    if (plan->port)
        hand_listener(plan);
    view_enter(plan);
    if (is_root) {
        enter_users(plan);
        become_step_user(channel);
    }
    close(channel);
    drop_rights();
    if (prctl(PR_SET_DUMPABLE, 0) != 0) /* nobody inside looks at it */
        die("hide process 1");
    signals = watch_signals();
    watch_open(&watch, plan);
    step = fork();
    if (step == 0)
        step_main(plan);
    if (step < 0)
        die("start a process");
    close_range(0, 2, 0);
    tend(&watch, step, signals);
    _exit(0); /* the kernel kills what is left */
}

/* ---------------------------------------------------------------- monitor */

/* Ends when init has, and so everything inside: SIGINT is how the worker asks for that at once. */
static noreturn void await(pid_t init)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGINT);
    for (;;) {
        int status;

        if (waitpid(init, &status, WNOHANG) == init)
            _exit(0);
        if (sigwaitinfo(&set, NULL) == SIGINT)
            kill(init, SIGKILL);
    }
}

/* Not the quick way: a kernel or a container may not know clone3. */
static void put_into_group(pid_t init)
{
    int fd = openat(GROUP_FD, "cgroup.procs", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || dprintf(fd, "%d", (int)init) < 0)
        die("enter the control group");
    close(fd);
}

/* In the group, or, where it is not, *ret_is_outside: it waits for its map of users before a step can begin.
 */
static pid_t start_init(const struct plan *plan, unsigned long flags, bool *ret_is_outside)
{
    struct clone_args into = { .flags = flags | CLONE_INTO_CGROUP,
                               .exit_signal = SIGCHLD,
                               .cgroup = GROUP_FD };
    pid_t init = plan->has_group ? (pid_t)syscall(SYS_clone3, &into, sizeof(into)) : -1;

    if (init >= 0)
        return init;
    *ret_is_outside = plan->has_group;
    return (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
}

static noreturn void monitor_main(const struct plan *plan)
{
    bool is_root = geteuid() == 0;
    unsigned long flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
    bool is_outside = false;
    int channel[2];
    pid_t init;

    flags |= is_root ? 0 : CLONE_NEWUSER;
    flags |= plan->network ? 0 : CLONE_NEWNET;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0)
        die("make a channel");
    init = start_init(plan, flags, &is_outside);
    if (init < 0)
        die("make namespaces");
    if (init == 0) {
        close(channel[0]);
        if (plan->has_group)
            close(GROUP_FD);
        init_main(plan, is_root, channel[1]);
    }
    close(channel[1]);
    close_range(0, 2, 0);
    if (plan->port)
        close(plan->channel);
    if (is_outside && !COX_PLANTED("sandbox-group-late"))
        put_into_group(init);
    map_users(init, channel[0], plan);
    if (is_outside && COX_PLANTED("sandbox-group-late"))
        put_into_group(init);
    await(init);
}

static void read_environment(struct plan *plan)
{
    struct stat st;
    char *bytes = fstat(ENVIRON_FD, &st) == 0 ? malloc((size_t)st.st_size + 1) : NULL;
    size_t len = 0;
    ssize_t n;

    if (!bytes)
        die("read the environment");
    while ((n = pread(ENVIRON_FD, bytes + len, (size_t)st.st_size - len, (off_t)len)) > 0)
        len += (size_t)n;
    bytes[len] = 0;
    if (len != (size_t)st.st_size || !plan_read_environment(plan, bytes, len))
        die("read the environment");
    close(ENVIRON_FD);
}

/* When the host is short of memory, what runs here goes first. */
static void offer_to_die_first(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)!write(fd, "500", 3);
    close(fd);
}

int main(int argc, char **argv)
{
    struct plan plan;
    const char *wrong;
    sigset_t all;

    if (fcntl(REPORT_FD, F_GETFD) < 0 || fcntl(FILTER_FD, F_GETFD) < 0 || fcntl(ENVIRON_FD, F_GETFD) < 0) {
        fprintf(stderr, "cox-sandbox is started by cox-worker; it is of no use by itself\n");
        return EXIT_REFUSED;
    }
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    die_with_parent();
    if (!plan_read(&plan, argc, argv, &wrong)) {
        tell(REPORT_SETUP, EINVAL, "%s", wrong);
        return EXIT_REFUSED;
    }
    read_environment(&plan);
    offer_to_die_first();
    monitor_main(&plan);
}
