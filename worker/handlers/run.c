/* The life of a run:
 *
 *   run_start          directory, pipes, process; or the reason why not, which ends it at once
 *   pipes              read as they fill, written as they drain
 *   the process exits  it stays unreaped, so that its number, which names the group, stays ours
 *   both pipes end     or RUN_PIPE_GRACE_MS pass: the group is killed, the process reaped, the result told
 */
#include "run.h"

#include "run_output.h"
#include "run_spec.h"
#include "spawn.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_READS_MAX 64

struct pipe_end {
    int fd; /* -1: closed */
    struct event *event;
};

struct run {
    struct run_host *host;
    void *user;
    char *dir;
    int64_t started_ns;
    bool output_is_json;

    pid_t pid; /* 0: there is none (any more) */
    int pidfd;
    struct event *exit_event;
    struct event *timer; /* the kill's grace, then the pipes' grace */
    bool killing;
    bool exited;

    struct pipe_end in, out, err;
    struct cox_buf stdin_bytes;
    size_t stdin_at;
    struct tail out_tail, err_tail;
    struct livelog log;
    bool log_wanted;

    bool ended;
    enum cox_code refused; /* it never started */
    bool has_exit_code;
    int exit_code;
    struct cox_buf message;
};

/* ---------------------------------------------------------------- ending */

static void close_end(struct pipe_end *end)
{
    if (end->event)
        event_free(end->event);
    if (end->fd >= 0)
        close(end->fd);
    *end = (struct pipe_end){ .fd = -1 };
}

static void drop_events(struct run *run)
{
    close_end(&run->in);
    close_end(&run->out);
    close_end(&run->err);
    if (run->exit_event)
        event_free(run->exit_event);
    if (run->timer)
        event_free(run->timer);
    run->exit_event = run->timer = NULL;
    if (run->pidfd >= 0)
        close(run->pidfd);
    run->pidfd = -1;
}

static uint64_t micros(struct timeval tv)
{
    return (uint64_t)tv.tv_sec * 1000000 + (uint64_t)tv.tv_usec;
}

/* The process has ended; nothing of its group outlives it. Returns wait(2)'s status. */
static int reap(struct run *run, struct cox_agent_result *result)
{
    struct rusage usage = { 0 };
    int status = 0;

    kill(-run->pid, SIGKILL);
    wait4(run->pid, &status, 0, &usage);
    run->pid = 0;
    result->cpu_us = micros(usage.ru_utime) + micros(usage.ru_stime);
    result->max_rss_bytes = (uint64_t)usage.ru_maxrss * 1024;
    return status;
}

/* The result's code of a process that ran. */
static enum cox_code judge(struct run *run, int status, struct cox_buf *output)
{
    struct cox_slice out = tail_slice(&run->out_tail);
    struct cox_slice err = tail_slice(&run->err_tail);
    enum cox_code code = COX_CODE_NONE;

    if (status != 0) {
        run_failure_message(&run->message, status, err);
        code = COX_CODE_EXIT_NONZERO;
    } else if (run->output_is_json && run->out_tail.cut) {
        cox_buf_printf(&run->message, "stdout has more than the %u bytes that a JSON output may have",
                       COX_LOGGED_PAYLOAD_LEN_MAX);
        code = COX_CODE_OUTPUT_TOO_LARGE;
    } else if (run->output_is_json) {
        if (run_output_json(output, out, &run->message) == COX_OK)
            return COX_CODE_NONE;
        code = COX_CODE_OUTPUT_INVALID;
    }
    if (out.len > COX_STDIO_TAIL_LEN_MAX)
        out = cox_slice(out.data + (out.len - COX_STDIO_TAIL_LEN_MAX), COX_STDIO_TAIL_LEN_MAX);
    run_output_text(output, run_exit_code(status), out, err);
    return code;
}

static void end(struct run *run)
{
    struct cox_agent_result result = { .code = run->refused };
    struct cox_buf output = { 0 };
    int status;

    if (run->pid) {
        status = reap(run, &result);
        run->has_exit_code = true;
        run->exit_code = run_exit_code(status);
        result.run_us = (uint64_t)(cox_clock_mono_ns() - run->started_ns) / 1000;
        result.code = judge(run, status, &output);
    }
    drop_events(run);
    run->ended = true;
    result.status = result.code == COX_CODE_NONE ? COX_ATTEMPT_SUCCEEDED : COX_ATTEMPT_FAILED;
    result.has_exit_code = run->has_exit_code;
    result.exit_code = run->exit_code;
    result.message = cox_buf_slice(&run->message);
    result.output = cox_buf_slice(&output);
    run_log_more(run);
    run->host->ops->on_ended(run, &result, run->user);
    cox_buf_fini(&output);
}

/* ---------------------------------------------------------------- pipes */

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct run *run = arg;
    ssize_t n = write(fd, run->stdin_bytes.data + run->stdin_at, run->stdin_bytes.len - run->stdin_at);

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        run->stdin_at += (size_t)n;
    if (n < 0 ||
        run->stdin_at == run->stdin_bytes.len) { /* a process need not read its input: EPIPE is fine */
        close_end(&run->in);
        cox_buf_fini(&run->stdin_bytes);
    }
}

/* Reads once; false when there was nothing (more) to read. */
static bool read_some(struct run *run, struct pipe_end *end)
{
    bool is_out = end == &run->out;
    ssize_t n;

    if (end->fd < 0)
        return false;
    n = read(end->fd, run->host->read_buf, sizeof(run->host->read_buf));
    if (n < 0)
        return errno == EINTR;
    if (n == 0) {
        close_end(end);
        return false;
    }
    tail_append(is_out ? &run->out_tail : &run->err_tail, cox_slice(run->host->read_buf, (size_t)n));
    livelog_append(&run->log, is_out ? LIVELOG_STDOUT : LIVELOG_STDERR,
                   cox_slice(run->host->read_buf, (size_t)n));
    return true;
}

static void end_if_done(struct run *run)
{
    if (run->exited && run->out.fd < 0 && run->err.fd < 0)
        end(run);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct run *run = arg;

    (void)what;
    read_some(run, fd == run->out.fd ? &run->out : &run->err);
    run_log_more(run);
    end_if_done(run);
}

/* ---------------------------------------------------------------- exit and kill */

static void start_timer(struct run *run, int ms)
{
    const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    event_add(run->timer, &tv);
}

static void on_exit_event(evutil_socket_t fd, short what, void *arg)
{
    struct run *run = arg;

    (void)fd;
    (void)what;
    event_del(run->exit_event);
    run->exited = true;
    close_end(&run->in);
    start_timer(run, RUN_PIPE_GRACE_MS);
    end_if_done(run);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct run *run = arg;

    (void)fd;
    (void)what;
    if (run->pid)
        kill(-run->pid, SIGKILL);
    if (run->pid && !run->exited)
        return;
    /* What is still in the pipes was written before the group died, unless a writer fled from it. */
    for (int i = 0; i < LAST_READS_MAX && (read_some(run, &run->out) || read_some(run, &run->err)); i++)
        ;
    end(run);
}

void run_kill(struct run *run)
{
    if (run->killing || run->ended || run->exited || !run->pid)
        return;
    run->killing = true;
    kill(-run->pid, SIGTERM);
    start_timer(run, RUN_KILL_GRACE_MS);
}

/* ---------------------------------------------------------------- log */

void run_log_more(struct run *run)
{
    enum livelog_stream stream;
    struct cox_slice data;
    bool dropped;

    while (run->log_wanted && livelog_peek(&run->log, &stream, &data, &dropped) &&
           run->host->ops->on_log(run, stream, data, dropped, run->user))
        livelog_advance(&run->log);
}

void run_log(struct run *run, bool wanted)
{
    run->log_wanted = wanted;
    if (!wanted)
        return;
    livelog_rewind(&run->log);
    run_log_more(run);
}

/* ---------------------------------------------------------------- start */

static void refuse(struct run *run, enum cox_code code)
{
    run->refused = code;
    event_active(run->timer, EV_TIMEOUT, 0);
}

/* Close-on-exec both; the one that is ours does not block. Numbers above 2: the child's are 0, 1, 2. */
static bool open_pipe(int fds[2], int ours)
{
    if (pipe2(fds, O_CLOEXEC) != 0) {
        fds[0] = fds[1] = -1;
        return false;
    }
    return fcntl(fds[ours], F_SETFL, O_NONBLOCK) == 0;
}

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static void watch_end(struct run *run, struct pipe_end *end, int fd, short what, event_callback_fn fn)
{
    end->fd = fd;
    end->event = event_new(run->host->base, fd, (short)(what | EV_PERSIST), fn, run);
    event_add(end->event, NULL);
}

/* Returns an errno. fds: stdin's read and write end, stdout's, stderr's. */
static int start_process(struct run *run, const struct run_spec *spec, int fds[6])
{
    struct spawn_args args = {
        .paths = spec->paths, .argv = spec->argv, .envp = spec->envp, .dir = run->dir
    };
    int err;

    if (spec->has_stdin ? !open_pipe(fds, 1) : (fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
        return errno;
    if (!open_pipe(fds + 2, 0) || !open_pipe(fds + 4, 0))
        return errno;
    args.in = fds[0];
    args.out = fds[3];
    args.err = fds[5];
    err = spawn_process(&args, &run->pid);
    if (err)
        return err;
    run->pidfd = (int)syscall(SYS_pidfd_open, run->pid, 0);
    if (run->pidfd >= 0)
        return 0;
    err = errno;
    kill(-run->pid, SIGKILL);
    waitpid(run->pid, NULL, 0);
    run->pid = 0;
    return err;
}

static void watch(struct run *run, const struct run_spec *spec, int fds[6])
{
    run->exit_event = event_new(run->host->base, run->pidfd, EV_READ | EV_PERSIST, on_exit_event, run);
    event_add(run->exit_event, NULL);
    watch_end(run, &run->out, fds[2], EV_READ, on_readable);
    watch_end(run, &run->err, fds[4], EV_READ, on_readable);
    if (spec->has_stdin) {
        cox_buf_append_slice(&run->stdin_bytes, spec->stdin_bytes);
        watch_end(run, &run->in, fds[1], EV_WRITE, on_writable);
    }
    fds[1] = fds[2] = fds[4] = -1;
}

static bool make_own_dir(struct run *run)
{
    struct run_host *host = run->host;

    if (mkdir(run->dir, 0700) == 0)
        return true;
    return errno == ENOENT && host->remake_dir && host->remake_dir(host) && mkdir(run->dir, 0700) == 0;
}

static void begin(struct run *run, struct cox_arena *arena, const struct cox_agent_assign *assign)
{
    struct run_spec spec;
    const char *why;
    int fds[6] = { -1, -1, -1, -1, -1, -1 };
    int err;

    if (run_spec_read(arena, assign, run->dir, &spec, &why) != COX_OK) {
        cox_buf_append_str(&run->message, why);
        refuse(run, COX_CODE_INPUT_INVALID);
        return;
    }
    if (!make_own_dir(run)) {
        cox_buf_printf(&run->message, "cannot make a working directory: %s", strerror(errno));
        refuse(run, COX_CODE_UNAVAILABLE);
        return;
    }
    run->output_is_json = spec.output_is_json;
    run->out_tail.len_max = spec.output_is_json ? COX_LOGGED_PAYLOAD_LEN_MAX : COX_STDIO_TAIL_LEN_MAX;
    run->started_ns = cox_clock_mono_ns();
    err = start_process(run, &spec, fds);
    if (err == 0) {
        watch(run, &spec, fds);
    } else if (err == EMFILE || err == ENFILE || err == ENOMEM || err == EAGAIN) {
        cox_buf_printf(&run->message, "cannot start a process: %s", strerror(err));
        refuse(run, COX_CODE_UNAVAILABLE);
    } else { /* as a shell would have it */
        run_exec_message(&run->message, spec.argv[0], spec.path_env, err);
        run->has_exit_code = true;
        run->exit_code = err == ENOENT || err == ENOTDIR ? 127 : 126;
        refuse(run, COX_CODE_EXIT_NONZERO);
    }
    close_all(fds, 6);
}

struct run *run_start(struct run_host *host, const struct cox_agent_assign *assign, void *user)
{
    struct run *run = COX_NEW(struct run);
    struct cox_arena arena = { 0 };

    run->host = host;
    run->user = user;
    run->dir = cox_asprintf("%s/a%llu", host->dir, (unsigned long long)++host->n_runs);
    run->pidfd = -1;
    run->in.fd = run->out.fd = run->err.fd = -1;
    run->err_tail.len_max = COX_STDIO_TAIL_LEN_MAX;
    livelog_init(&run->log, host->log_len_max);
    run->timer = evtimer_new(host->base, on_timer, run);
    begin(run, &arena, assign);
    cox_arena_fini(&arena);
    return run;
}

void run_destroy(struct run *run)
{
    struct cox_agent_result ignored;

    if (!run)
        return;
    if (run->pid)
        reap(run, &ignored);
    drop_events(run);
    janitor_remove(run->host->janitor, run->dir);
    tail_fini(&run->out_tail);
    tail_fini(&run->err_tail);
    livelog_fini(&run->log);
    cox_buf_fini(&run->stdin_bytes);
    cox_buf_fini(&run->message);
    cox_free(run->dir);
    cox_free(run);
}
