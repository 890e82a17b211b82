#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum cox_err process_start(struct process *p, char *const argv[])
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0) {
        complain("fork: %s", strerror(errno));
        return COX_ERR_IO;
    }
    if (pid == 0) {
        /* Only what is safe beside the library's threads: no locks, no memory. */
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
            _exit(127);
        execv(argv[0], argv);
        _exit(127);
    }
    *p = (struct process){ .pid = pid };
    return COX_OK;
}

bool process_alive(struct process *p)
{
    siginfo_t info = { 0 };

    return p->pid > 0 && waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

void process_ask(struct process *p)
{
    if (p->pid > 0 && !p->asked)
        kill(p->pid, SIGTERM);
    p->asked = true;
}

bool process_stop(struct process *p)
{
    int status = 0;

    if (p->pid == 0)
        return true;
    process_ask(p);
    while (waitpid(p->pid, &status, 0) < 0) {
        if (errno != EINTR)
            return false;
    }
    p->pid = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int64_t process_cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec t;

    if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The number after "NAME:" in a file of /proc. */
static uint64_t read_proc(pid_t pid, const char *file, const char *name)
{
    char path[64], line[256];
    size_t len = strlen(name);
    uint64_t value = 0;

    snprintf(path, sizeof(path), "/proc/%ld/%s", (long)pid, file);
    FILE *in = fopen(path, "r");

    while (in && fgets(line, sizeof(line), in)) {
        if (strncmp(line, name, len) == 0 && line[len] == ':')
            value = strtoull(line + len + 1, NULL, 10);
    }
    if (in)
        fclose(in);
    return value;
}

uint64_t process_written_len(pid_t pid)
{
    return read_proc(pid, "io", "write_bytes");
}

uint64_t process_peak_len(pid_t pid)
{
    return read_proc(pid, "status", "VmHWM") * 1024;
}

uint64_t process_rss_len(pid_t pid)
{
    return read_proc(pid, "status", "VmRSS") * 1024;
}

void process_peak_reset(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%ld/clear_refs", (long)pid);
    FILE *out = fopen(path, "w");

    if (!out)
        return;
    fputs("5", out); /* proc(5): the peak becomes what is resident now */
    fclose(out);
}
