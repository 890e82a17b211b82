/* clone with CLONE_VFORK and a small stack, as posix_spawn does, because a copy of the worker's page tables
 * costs more than all the rest, and because fork would run gRPC's fork handlers. The child borrows the
 * parent's memory while the calling thread waits: it makes system calls only, and reports what failed by
 * writing it there. */
#include "spawn.h"

#include "cox/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#define STACK_LEN (32 << 10)

static void default_signals(void)
{
    /* Caught signals become default by execve; ignored ones would stay ignored. */
    static const int ignored[] = { SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCHLD };
    const struct sigaction action = { .sa_handler = SIG_DFL };
    sigset_t none;

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        sigaction(ignored[i], &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Returns the errno that tells most: EACCES of a file that is there over ENOENT of those that are not. */
static int exec_first(const struct spawn_args *args)
{
    int found = ENOENT;

    for (char *const *path = args->paths; *path; path++) {
        execve(*path, args->argv, args->envp);
        if (errno == EACCES)
            found = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return errno;
    }
    return found;
}

/* By way of high numbers, for each may stand where another goes. */
static int keep(const struct spawn_args *args)
{
    int high[SPAWN_KEEP_MAX];

    for (size_t i = 0; i < args->n_keep; i++)
        if ((high[i] = fcntl(args->keep[i], F_DUPFD, 16)) < 0)
            return -1;
    for (size_t i = 0; i < args->n_keep; i++)
        if (dup2(high[i], 3 + (int)i) < 0)
            return -1;
    return 0;
}

static int become(const struct spawn_args *args, pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return errno;
    if (getppid() != parent)
        return ECHILD; /* it died before the line above */
    if (setsid() < 0 || chdir(args->dir) != 0)
        return errno;
    if (dup2(args->in, 0) < 0 || dup2(args->out, 1) < 0 || dup2(args->err, 2) < 0)
        return errno;
    if (keep(args) != 0)
        return errno;
    close_range(3 + (unsigned)args->n_keep, ~0U,
                CLOSE_RANGE_CLOEXEC); /* ours are so already: this is for what we inherited */
    default_signals();
    return exec_first(args);
}

struct child {
    const struct spawn_args *args;
    pid_t parent;
    int failed; /* errno */
};

static int child_main(void *arg)
{
    struct child *child = arg;

    child->failed = become(child->args, child->parent);
    _exit(127);
}

/* What the child's frames had forbidden when it became another program, AddressSanitizer would forbid for
 * ever. */
#ifdef __SANITIZE_ADDRESS__
#define ALLOW_AGAIN(at, len) __asan_unpoison_memory_region(at, len)
#else
#define ALLOW_AGAIN(at, len) ((void)0)
#endif

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer marks a child as one that synchronises no more, in memory that would be the calling
 * thread's: from then on all that this thread shares would be reported. So there the child has its own. */
#define CLONE_FLAGS (CLONE_VFORK | SIGCHLD)
#define REPORT_FLAGS MAP_SHARED
#else
#define CLONE_FLAGS (CLONE_VM | CLONE_VFORK | SIGCHLD)
#define REPORT_FLAGS 0
#endif

/* Where the child writes what failed. NULL: no memory for it. */
static struct child *report_begin(struct child *mine)
{
    if (!REPORT_FLAGS)
        return mine;
    void *at = mmap(NULL, sizeof(*mine), PROT_READ | PROT_WRITE, REPORT_FLAGS | MAP_ANONYMOUS, -1, 0);

    return at == MAP_FAILED ? NULL : memcpy(at, mine, sizeof(*mine));
}

static int report_end(struct child *child)
{
    int failed = child->failed;

    if (REPORT_FLAGS)
        munmap(child, sizeof(*child));
    return failed;
}

int spawn_process(const struct spawn_args *args, pid_t *ret_pid)
{
    alignas(64) char stack[STACK_LEN];
    struct child mine = { .args = args, .parent = getpid() };
    struct child *child = report_begin(&mine);
    pid_t pid = child ? clone(child_main, stack + sizeof(stack), CLONE_FLAGS, child) : -1;
    int err = errno;
    int failed = child ? report_end(child) : 0;

    ALLOW_AGAIN(stack, sizeof(stack));
    if (pid < 0)
        return err;
    if (failed)
        waitpid(pid, NULL, 0);
    else
        *ret_pid = pid;
    return failed;
}

bool spawn_pipe(int fds[2], int ours)
{
    if (pipe2(fds, O_CLOEXEC) != 0) {
        fds[0] = fds[1] = -1;
        return false;
    }
    return fcntl(fds[ours], F_SETFL, O_NONBLOCK) == 0;
}

int spawn_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* ---------------------------------------------------------------- environment */

static const char *const names[] = { "PATH", "HOME",   "USER", "LOGNAME", "SHELL",
                                     "LANG", "LC_ALL", "TZ",   "TMPDIR",  "COX_HTTP" };
#define N_NAMES (sizeof(names) / sizeof(names[0]))
static char *entries[N_NAMES + 1];
static size_t n_entries;
static pthread_once_t read_once = PTHREAD_ONCE_INIT;

static void read_environment(void)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        const char *value = getenv(names[i]);

        if (value || i == 0)
            entries[n_entries++] = cox_asprintf("%s=%s", names[i], value ? value : SPAWN_PATH_DEFAULT);
    }
}

char **spawn_environment(char *more)
{
    char **envp;

    pthread_once(&read_once, read_environment);
    envp = cox_calloc(n_entries + 2, sizeof(*envp));
    for (size_t i = 0; i < n_entries; i++)
        envp[i] = entries[i];
    envp[n_entries] = more;
    return envp;
}
