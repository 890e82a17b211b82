/* The life of a run:
 *
 *   run_start          pipes, process; or the reason why not, which ends it at once
 *   pipes              read as they fill, written as they drain
 *   the process exits  it stays unreaped, so that its number, which names the group, stays ours
 *   both pipes end     or RUN_PIPE_GRACE_MS pass: the group is killed, the process reaped, the result told
 */
#include "run.h"

#include "run_output.h"
#include "run_spec.h"
#include "spawn.h"

#include "../gateway/gateway.h"
#include "../wiped.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_READS_MAX 64
#define RUN_JSON_LEN_MAX (64u << 20) /* of an output that is JSON */

struct pipe_end {
    int fd; /* -1: closed */
    struct event *event;
};

/* A stream of output: its end, and all of it once that is not the whole. */
struct output {
    struct redact_stream redact;
    struct tail tail;
    int file; /* -1: the tail has everything */
    uint64_t len;
};

struct run {
    struct call call;
    const char *spool_dir;
    bool output_is_json;

    pid_t pid;                /* 0: there is none (any more) */
    struct sandboxed *inside; /* NULL: there is no sandbox */
    char *program, *path_env; /* named when they could not be started in it */
    int pidfd;
    struct event *exit_event;
    struct event *timer; /* the kill's grace, then the pipes' grace */
    bool killing;
    bool exited;

    struct pipe_end in, out, err;
    struct cox_buf stdin_bytes;
    size_t stdin_at;
    struct output stdout_kept, stderr_kept;

    bool ended;
    enum cox_code refused; /* it never started, or was stopped for what it did */
    struct outcome outcome;
};

static void run_kill(struct call *call);

static struct run *run_of(struct call *call)
{
    return COX_CONTAINER_OF(call, struct run, call);
}

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

static void kill_now(struct run *run)
{
    if (run->inside)
        sandbox_kill(run->pid);
    else
        kill(-run->pid, SIGKILL);
}

/* The process has ended; nothing of its group outlives it. Returns wait(2)'s status. */
static int reap(struct run *run)
{
    struct rusage usage = { 0 };
    int status = 0;

    kill_now(run);
    wait4(run->pid, &status, 0, &usage);
    run->pid = 0;
    outcome_used(&run->outcome, &usage);
    return status;
}

/* Output that is JSON and too long for the tail is read back whole to be checked; it is the output itself. */
static enum cox_code judge_json_file(struct run *run)
{
    struct output *o = &run->stdout_kept;
    struct outcome *ret = &run->outcome;
    void *bytes;
    enum cox_err err;

    if (o->len > RUN_JSON_LEN_MAX) {
        cox_buf_printf(&ret->message, "stdout has more than the %u bytes that a JSON output may have",
                       RUN_JSON_LEN_MAX);
        return COX_CODE_OUTPUT_TOO_LARGE;
    }
    bytes = mmap(NULL, o->len, PROT_READ, MAP_PRIVATE, o->file, 0);
    if (bytes == MAP_FAILED) {
        cox_buf_printf(&ret->message, "cannot read the output back: %s", strerror(errno));
        return COX_CODE_UNAVAILABLE;
    }
    err = run_output_check(cox_slice(bytes, o->len), &ret->message);
    munmap(bytes, o->len);
    if (err != COX_OK)
        return COX_CODE_OUTPUT_INVALID;
    ret->files[OUTCOME_OUTPUT] = o->file;
    o->file = -1;
    return COX_CODE_NONE;
}

/* The code of a process that ran. */
static enum cox_code judge(struct run *run, int status)
{
    struct cox_slice out = tail_slice(&run->stdout_kept.tail);
    struct cox_slice err = tail_slice(&run->stderr_kept.tail);
    struct outcome *ret = &run->outcome;
    enum cox_code code = run->refused;

    if (code == COX_CODE_NONE && status != 0) {
        run_failure_message(&ret->message, status, err);
        code = COX_CODE_EXIT_NONZERO;
    } else if (code == COX_CODE_NONE && run->output_is_json) {
        if (run->stdout_kept.file >= 0)
            code = judge_json_file(run);
        else if (run_output_json(&ret->output, out, &ret->message) != COX_OK)
            code = COX_CODE_OUTPUT_INVALID;
        if (code == COX_CODE_NONE)
            return code;
    }
    if (out.len > COX_STDIO_TAIL_LEN_MAX)
        out = cox_slice(out.data + (out.len - COX_STDIO_TAIL_LEN_MAX), COX_STDIO_TAIL_LEN_MAX);
    run_output_text(&ret->output, run_exit_code(status), out, err);
    ret->files[OUTCOME_STDOUT] = run->stdout_kept.file;
    ret->files[OUTCOME_STDERR] = run->stderr_kept.file;
    run->stdout_kept.file = run->stderr_kept.file = -1;
    return code;
}

/* As a shell would have it. The path is redacted before the message cuts it: half a secret is one that nobody
 * recognises. */
static void refuse_program(struct run *run, const char *program, const char *path_env, int err)
{
    struct cox_buf path = { 0 };

    cox_buf_append_str(&path, path_env);
    if (run->stdout_kept.redact.of)
        redact_text(run->stdout_kept.redact.of, &path);
    run_exec_message(&run->outcome.message, program, cox_buf_cstr(&path), err);
    wiped_fini(&path);
    run->outcome.has_exit_code = true;
    run->outcome.exit_code = err == ENOENT || err == ENOTDIR ? 127 : 126;
    run->refused = COX_CODE_EXIT_NONZERO;
}

/* What became of the step itself: the process that was reaped only stood for it. False: it never began, and
 * nothing of it is left to be judged. */
static bool judge_sandbox(struct run *run, int *status)
{
    struct sandbox_end end;

    if (!run->inside)
        return true;
    sandbox_end(run->inside, &end);
    run->inside = NULL;
    *status = end.has_status ? end.status : SIGKILL;
    if (run->refused != COX_CODE_NONE)
        return end.is_up;
    if (end.failed[0]) {
        cox_buf_printf(&run->outcome.message, "cannot make the sandbox: %s", end.failed);
        run->refused = COX_CODE_UNAVAILABLE;
    } else if (end.exec_errno) {
        refuse_program(run, run->program, run->path_env, end.exec_errno);
    } else if (end.limit[0]) {
        cox_buf_printf(&run->outcome.message, "stopped: the step %s", end.limit);
        run->refused = COX_CODE_RESOURCE_EXHAUSTED;
    }
    return end.is_up && !end.exec_errno;
}

static void end_output(struct run *run);

static void end(struct run *run)
{
    int status;

    end_output(run);
    if (run->pid) {
        status = reap(run);
        if (!judge_sandbox(run, &status)) {
            run->outcome.code = run->refused;
            goto told;
        }
        run->outcome.has_exit_code = true;
        run->outcome.exit_code = run_exit_code(status);
        run->outcome.code = judge(run, status);
    } else {
        run->outcome.code = run->refused;
    }
told:
    drop_events(run);
    run->ended = true;
    run->call.on_done(&run->call, &run->outcome);
}

/* ---------------------------------------------------------------- output */

static void kill_for(struct run *run, enum cox_code code, const char *why)
{
    if (run->refused != COX_CODE_NONE)
        return;
    run->refused = code;
    cox_buf_append_str(&run->outcome.message, why);
    run_kill(&run->call);
}

/* Memory keeps the end; a file gets all of it from the moment on when the end is not everything any more. */
static void keep_output(struct run *run, struct output *o, struct cox_slice data)
{
    o->len += data.len;
    if (run->refused != COX_CODE_NONE)
        return;
    if (o->file < 0 && o->len > o->tail.len_max) {
        o->file = outcome_file(run->spool_dir);
        if (o->file < 0 || !outcome_write(o->file, tail_slice(&o->tail)))
            kill_for(run, COX_CODE_UNAVAILABLE, "cannot keep the output: the worker's disk is not writable");
    }
    if (o->len > COX_BLOB_LEN_MAX)
        kill_for(run, COX_CODE_OUTPUT_TOO_LARGE, "more than 1 GiB of output");
    else if (o->file >= 0 && !outcome_write(o->file, data))
        kill_for(run, COX_CODE_UNAVAILABLE, "cannot keep the output: the worker's disk is full");
    tail_append(&o->tail, data);
}

/* Nothing but what is redacted is kept, or told. */
static void take_output(struct run *run, bool is_out, struct cox_slice data)
{
    struct output *o = is_out ? &run->stdout_kept : &run->stderr_kept;
    struct cox_buf clean = { 0 };

    if (o->redact.of) {
        redact_feed(&o->redact, data, &clean);
        data = cox_buf_slice(&clean);
    }
    if (data.len > 0) {
        keep_output(run, o, data);
        run->call.on_log(&run->call, is_out ? LIVELOG_STDOUT : LIVELOG_STDERR, data);
    }
    cox_buf_fini(&clean);
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
        wiped_fini(&run->stdin_bytes);
    }
}

/* What was kept back of both streams, since it may have been the beginning of a secret. */
static void end_output(struct run *run)
{
    struct output *outputs[] = { &run->stdout_kept, &run->stderr_kept };
    struct cox_buf rest = { 0 };

    for (size_t i = 0; i < 2; i++) {
        cox_buf_clear(&rest);
        redact_end(&outputs[i]->redact, &rest);
        if (rest.len == 0)
            continue;
        keep_output(run, outputs[i], cox_buf_slice(&rest));
        run->call.on_log(&run->call, i == 0 ? LIVELOG_STDOUT : LIVELOG_STDERR, cox_buf_slice(&rest));
    }
    cox_buf_fini(&rest);
}

/* Reads once; false when there was nothing (more) to read. */
static bool read_some(struct run *run, struct pipe_end *end)
{
    bool is_out = end == &run->out;
    ssize_t n;

    if (end->fd < 0)
        return false;
    n = read(end->fd, run->call.host->read_buf, sizeof(run->call.host->read_buf));
    if (n < 0)
        return errno == EINTR;
    if (n == 0) {
        close_end(end);
        return false;
    }
    take_output(run, is_out, cox_slice(run->call.host->read_buf, (size_t)n));
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
        kill_now(run);
    if (run->pid && !run->exited)
        return;
    /* What is still in the pipes was written before the group died, unless a writer fled from it. */
    for (int i = 0; i < LAST_READS_MAX && (read_some(run, &run->out) || read_some(run, &run->err)); i++)
        ;
    end(run);
}

static void run_kill(struct call *call)
{
    struct run *run = run_of(call);

    if (run->killing || run->ended || run->exited || !run->pid)
        return;
    run->killing = true;
    kill(-run->pid, SIGTERM);
    start_timer(run, RUN_KILL_GRACE_MS);
}

/* ---------------------------------------------------------------- start */

static void refuse(struct run *run, enum cox_code code)
{
    run->refused = code;
    event_active(run->timer, EV_TIMEOUT, 0);
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
    end->event = event_new(run->call.host->base, fd, (short)(what | EV_PERSIST), fn, run);
    event_add(end->event, NULL);
}

static int spawn(struct run *run, const struct run_spec *spec, const struct call_args *call,
                 const struct spawn_args *args)
{
    bool listens = call->gateway && spec->level == SANDBOX_STRICT;
    int channel = -1, err;
    const struct sandbox_step step = { .work = call->dir,
                                       .input = spec->stdin_path,
                                       .read = call->blobs,
                                       .bundle = call->bundle_dir,
                                       .resources = &call->assign->resources,
                                       .port = listens ? GATEWAY_PORT : 0,
                                       .ret_channel = &channel };

    if (spec->level == SANDBOX_NONE)
        return spawn_process(args, &run->pid);
    run->program = cox_strdup(spec->argv[0]);
    run->path_env = cox_strdup(spec->path_env);
    err = sandbox_spawn(run->call.host->sandbox, spec->level, &step, args, &run->pid, &run->inside);
    if (channel >= 0)
        gateway_listen(call->gateway, channel);
    return err;
}

/* Returns an errno. fds: stdin's read and write end, stdout's, stderr's. */
static int start_process(struct run *run, const struct run_spec *spec, const struct call_args *call,
                         int fds[6])
{
    struct spawn_args args = {
        .paths = spec->paths, .argv = spec->argv, .envp = spec->envp, .dir = call->dir
    };
    int err;

    if (spec->stdin_path && spec->level != SANDBOX_NONE)
        fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    else if (spec->stdin_path && (fds[0] = open(spec->stdin_path, O_RDONLY | O_CLOEXEC)) < 0)
        return errno;
    if (spec->stdin_path)
        ;
    else if (spec->has_stdin ? !spawn_pipe(fds, 1) : (fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
        return errno;
    if (!spawn_pipe(fds + 2, 0) || !spawn_pipe(fds + 4, 0))
        return errno;
    args.in = fds[0];
    args.out = fds[3];
    args.err = fds[5];
    err = spawn(run, spec, call, &args);
    if (err)
        return err;
    run->pidfd = spawn_pidfd(run->pid);
    if (run->pidfd >= 0)
        return 0;
    err = errno;
    kill_now(run);
    waitpid(run->pid, NULL, 0);
    run->pid = 0;
    return err;
}

static void watch(struct run *run, const struct run_spec *spec, int fds[6])
{
    run->exit_event = event_new(run->call.host->base, run->pidfd, EV_READ | EV_PERSIST, on_exit_event, run);
    event_add(run->exit_event, NULL);
    watch_end(run, &run->out, fds[2], EV_READ, on_readable);
    watch_end(run, &run->err, fds[4], EV_READ, on_readable);
    if (spec->has_stdin) {
        cox_buf_append_slice(&run->stdin_bytes, spec->stdin_bytes);
        watch_end(run, &run->in, fds[1], EV_WRITE, on_writable);
    }
    fds[1] = fds[2] = fds[4] = -1;
}

static void begin(struct run *run, struct cox_arena *arena, const struct call_args *args)
{
    struct cox_buf *message = &run->outcome.message;
    struct run_spec spec;
    const struct sandbox *sandbox = run->call.host->sandbox;
    const char *why;
    int fds[6] = { -1, -1, -1, -1, -1, -1 };
    int err;

    if (run_spec_read(arena, sandbox, args, &spec, &why) != COX_OK) {
        cox_buf_append_str(message, why);
        refuse(run, COX_CODE_INPUT_INVALID);
        return;
    }
    why = sandbox_why_not(sandbox, spec.level);
    if (why) {
        cox_buf_printf(message, "this worker cannot give the sandbox \"%s\": %s",
                       sandbox_level_text(spec.level), why);
        refuse(run, COX_CODE_UNAVAILABLE);
        return;
    }
    run->output_is_json = spec.output_is_json;
    run->stdout_kept.tail.len_max = spec.output_is_json ? COX_LOGGED_PAYLOAD_LEN_MAX : COX_STDIO_TAIL_LEN_MAX;
    err = start_process(run, &spec, args, fds);
    if (err == 0) {
        watch(run, &spec, fds);
    } else if (spec.level != SANDBOX_NONE || err == EMFILE || err == ENFILE || err == ENOMEM ||
               err == EAGAIN) {
        cox_buf_printf(message, "cannot start a process: %s", strerror(err));
        refuse(run, COX_CODE_UNAVAILABLE);
    } else {
        refuse_program(run, spec.argv[0], spec.path_env, err);
        refuse(run, COX_CODE_EXIT_NONZERO);
    }
    close_all(fds, 6);
}

static void run_destroy(struct call *call)
{
    struct run *run = run_of(call);

    if (run->pid)
        reap(run);
    if (run->inside)
        sandbox_end(run->inside, NULL);
    cox_free(run->program);
    cox_free(run->path_env);
    drop_events(run);
    close_all((int[]){ run->stdout_kept.file, run->stderr_kept.file }, 2);
    tail_fini(&run->stdout_kept.tail);
    tail_fini(&run->stderr_kept.tail);
    wiped_fini(&run->stdin_bytes);
    redact_fini(&run->stdout_kept.redact);
    redact_fini(&run->stderr_kept.redact);
    outcome_fini(&run->outcome);
    cox_free(run);
}

struct call *run_start(struct handler_host *host, const struct call_args *args,
                       void (*on_done)(struct call *call, struct outcome *outcome),
                       void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data),
                       void *user)
{
    static const struct call_ops ops = { .kill = run_kill, .destroy = run_destroy };
    struct run *run = COX_NEW(struct run);
    struct cox_arena arena = { 0 };

    run->call =
        (struct call){ .ops = &ops, .host = host, .on_done = on_done, .on_log = on_log, .user = user };
    run->spool_dir = args->spool_dir;
    run->stdout_kept.redact.of = run->stderr_kept.redact.of = args->redactor;
    outcome_init(&run->outcome);
    run->pidfd = -1;
    run->in.fd = run->out.fd = run->err.fd = -1;
    run->stdout_kept.file = run->stderr_kept.file = -1;
    run->stderr_kept.tail.len_max = COX_STDIO_TAIL_LEN_MAX;
    run->timer = evtimer_new(host->base, on_timer, run);
    begin(run, &arena, args);
    cox_arena_wipe(&arena);
    return &run->call;
}
