#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_MAX_LEN 8192

static void become(const char *const *argv, int log_fd)
{
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (log_fd >= 0) {
        setpgid(0, 0); /* Ctrl-C is for us alone: we end them in order */
        dup2(log_fd, STDOUT_FILENO);
        dup2(log_fd, STDERR_FILENO);
    }
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

void child_start(struct child *c, const char *name, const char *color, const char *const *argv, bool logged)
{
    int fds[2] = { -1, -1 };

    *c = (struct child){ .name = name, .color = color, .log_fd = -1, .status = 127 << 8 };
    if (logged && pipe2(fds, O_CLOEXEC) != 0)
        return;
    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0)
        become(argv, fds[1]);
    if (fds[1] >= 0)
        close(fds[1]);
    if (fds[0] >= 0)
        fcntl(fds[0], F_SETFL, O_NONBLOCK);
    c->log_fd = fds[0];
    c->pid = c->pid > 0 ? c->pid : 0;
}

static void show_line(struct child *c, bool color)
{
    fprintf(stderr, "%s%-6s |%s %.*s\n", color ? c->color : "", c->name, color ? "\033[0m" : "",
            (int)c->line.len, (const char *)c->line.data);
    cox_buf_clear(&c->line);
}

void child_show_log(struct child *c, bool color)
{
    char bytes[4096];
    ssize_t n;

    while (c->log_fd >= 0 && (n = read(c->log_fd, bytes, sizeof(bytes))) != 0) {
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] == '\n' || c->line.len == LINE_MAX_LEN)
                show_line(c, color);
            if (bytes[i] != '\n')
                cox_put_u8(&c->line, (uint8_t)bytes[i]);
        }
    }
    if (c->log_fd >= 0) { /* its end */
        if (c->line.len > 0)
            show_line(c, color);
        close(c->log_fd);
        c->log_fd = -1;
    }
}

void child_reap(struct child *c)
{
    if (c->pid > 0 && waitpid(c->pid, &c->status, WNOHANG) == c->pid)
        c->pid = 0;
}

bool child_runs(const struct child *c)
{
    return c->pid > 0;
}

void child_signal(const struct child *c, int number)
{
    if (c->pid > 0)
        kill(c->pid, number);
}

int child_exit_code(const struct child *c)
{
    return WIFSIGNALED(c->status) ? 128 + WTERMSIG(c->status) : WEXITSTATUS(c->status);
}

void child_end(struct child *c)
{
    if (c->log_fd >= 0)
        close(c->log_fd);
    cox_buf_fini(&c->line);
    c->log_fd = -1;
}
