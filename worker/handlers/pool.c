/* A process of the pool:
 *
 *   busy      serves a call: the line goes in, its answer comes out, stderr is the call's log
 *   idle      waits in `idle`, oldest first
 *   leaving   asked to stop, or killed; gone once it has ended
 *
 * Its number names its group and stays ours until it is reaped, after the group was killed. */
#include "pool.h"

#include "../gateway/gateway.h"
#include "../wiped.h"
#include "answer.h"
#include "call_log.h"
#include "run_output.h"
#include "run_spec.h"
#include "spawn.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/schema.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct pool {
    struct handler_host *host;
    const char *dir; /* processes start here: a call's own directory may go before they do */
    uint32_t n_max;
    struct cox_list idle;   /* oldest first */
    struct cox_list others; /* busy ones and leaving ones, which nobody looks for */
    uint32_t n, n_idle;     /* processes: all but leaving ones; idle ones */
    uint64_t n_calls;
};

struct channel {
    int fd; /* -1: closed */
    struct event *event;
};

struct process {
    struct cox_list link;
    struct pool *pool;
    struct program *program;
    struct program_call *call; /* NULL: idle or leaving */
    pid_t pid;
    int pidfd;
    struct sandboxed *inside; /* which is one call's; NULL: no sandbox */
    bool sandboxed;
    struct event *exit_event;
    struct event *timer; /* idle: when it is stopped; leaving: when it is killed */
    struct channel in, out, err;
    struct cox_buf line; /* of its output, until the line feed */
    uint32_t n_calls;
    bool once;    /* serves one call, then ends by itself */
    bool leaving; /* no call any more */
    bool idle;
    bool exited;
    bool unread; /* it closed its input, and had read nothing of the call */
};

struct program_call {
    struct call call;
    struct pool *pool;
    struct program *program;
    struct process *process; /* NULL: none (any more) */
    uint64_t id;
    struct cox_buf line; /* to the program */
    size_t line_at;
    struct cox_arena arena; /* environment of a process for this call alone */
    char **envp;
    const char *dir, *bundle_dir;
    const char *const *blobs;
    const struct cox_resources *resources;
    const struct redactor *redactor;
    bool with_secrets;
    struct gateway_attempt *gateway; /* NULL: none */
    struct call_log log;
    struct event *timer; /* refused: the answer; killed, silent, or answered by one of one call: the end */
    bool killing;
    bool silent;  /* killed because no answer could come */
    bool is_item; /* of a map */
    bool answered;
    uint64_t cpu_before_us;
    struct outcome outcome;
};

static struct program_call *call_of(struct call *call)
{
    return COX_CONTAINER_OF(call, struct program_call, call);
}

static void start_timer(struct event *timer, int ms)
{
    const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    event_add(timer, &tv);
}

static void close_channel(struct channel *c)
{
    if (c->event)
        event_free(c->event);
    if (c->fd >= 0)
        close(c->fd);
    *c = (struct channel){ .fd = -1 };
}

/* ---------------------------------------------------------------- a process's end */

/* What it has used so far, its threads included; 0 when it cannot be known. */
static uint64_t cpu_used_us(pid_t pid)
{
    struct timespec ts;
    clockid_t clock;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) != 0)
        return 0;
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void kill_now(const struct process *p)
{
    if (p->sandboxed)
        sandbox_kill(p->pid);
    else
        kill(-p->pid, SIGKILL);
}

/* Kills what is left of it; returns wait(2)'s status. */
static int destroy_process(struct process *p, struct outcome *ret)
{
    struct rusage usage = { 0 };
    int status = 0;

    kill_now(p);
    wait4(p->pid, &status, 0, &usage);
    if (ret)
        outcome_used(ret, &usage);
    cox_list_remove(&p->link);
    p->pool->n -= !p->leaving;
    p->pool->n_idle -= p->idle;
    close_channel(&p->in);
    close_channel(&p->out);
    close_channel(&p->err);
    event_free(p->exit_event);
    event_free(p->timer);
    close(p->pidfd);
    if (p->inside)
        sandbox_end(p->inside, NULL);
    cox_buf_fini(&p->line);
    program_unref(p->program);
    cox_free(p);
    return status;
}

/* An idle one is told to stop: its input ends, and SIGTERM comes. */
static void dismiss(struct process *p)
{
    p->pool->n_idle -= p->idle;
    p->pool->n--;
    p->idle = false;
    p->leaving = true;
    close_channel(&p->in);
    kill(-p->pid, SIGTERM);
    cox_list_remove(&p->link);
    cox_list_push_back(&p->pool->others, &p->link);
    start_timer(p->timer, POOL_KILL_GRACE_MS);
}

static void make_idle(struct process *p)
{
    struct pool *pool = p->pool;

    p->call = NULL;
    p->idle = true;
    pool->n_idle++;
    cox_list_remove(&p->link);
    cox_list_push_back(&pool->idle, &p->link);
    start_timer(p->timer, POOL_IDLE_MS);
    if (p->n_calls >= POOL_CALLS_MAX || p->line.len > 0 || pool->n > pool->n_max)
        dismiss(p);
}

/* ---------------------------------------------------------------- a call's end */

static void tell(struct program_call *c)
{
    event_del(c->timer);
    c->call.on_done(&c->call, &c->outcome);
}

/* Not of an item: there may be millions. */
static void keep_log(struct program_call *c)
{
    if (!c->is_item)
        call_log_keep(&c->log, &c->outcome);
}

/* Its process stays if it may be asked again: not without the pipes for that, nor while a part of the line
 * is in one and the rest is not, which the next one would be taken for. */
static void end_call(struct program_call *c, bool reusable)
{
    struct process *p = c->process;
    bool is_own = p->once || p->sandboxed; /* it served this call only */
    uint64_t cpu_us = is_own ? 0 : cpu_used_us(p->pid);

    reusable = reusable && c->line_at == c->line.len && p->in.fd >= 0 && p->out.fd >= 0 &&
               (!c->with_secrets || COX_PLANTED("secrets-stay-warm")); /* another call could make it tell */
    call_log_end(&c->log);
    c->process = NULL;
    if (cpu_us > c->cpu_before_us)
        c->outcome.cpu_us = cpu_us - c->cpu_before_us;
    keep_log(c);
    if (reusable && !c->killing && !is_own)
        make_idle(p);
    else
        destroy_process(p, is_own ? &c->outcome : NULL);
    tell(c);
}

static void on_answer(struct process *p, struct cox_slice line)
{
    struct program_call *c = p->call;
    bool reusable = answer_read(line, c->id, cox_buf_slice(&c->program->output_schema), &c->outcome);

    c->answered = true;
    if (p->exited || (!p->sandboxed && (!p->once || !reusable))) {
        end_call(c, reusable && !p->exited);
        return;
    }
    if (p->sandboxed)
        kill_now(p); /* it may take a moment until nothing is left inside */
    close_channel(&p->in);
    start_timer(c->timer, POOL_KILL_GRACE_MS);
}

static void serve(struct program_call *c);

/* Programs that never heard of --serve say so, as programs do, by ending with 2 or 64. */
static bool refuses_to_serve(const struct process *p, const struct program_call *c, int status)
{
    return WIFEXITED(status) && (WEXITSTATUS(status) == 2 || WEXITSTATUS(status) == 64) && !p->once &&
           p->n_calls == 1 && !c->program->serves && !c->killing && p->line.len == 0;
}

/* Is every byte that the call has sent to it still in the pipe? */
static bool is_unread(const struct process *p)
{
    int n = 0;

    if (p->in.fd < 0)
        return p->unread;
    return ioctl(p->in.fd, FIONREAD, &n) == 0 && (size_t)n == p->call->line_at;
}

/* One that was warm may end between two calls, and be given the second before that is seen: it knows nothing
 * of it. */
static bool ended_before(const struct process *p, const struct program_call *c)
{
    return p->n_calls > 1 && !c->killing && p->line.len == 0 && is_unread(p);
}

/* wait(2)'s status of the program: of a sandbox the process only stands for it. What the sandbox itself has
 * to say is the call's outcome. */
static int ended_with(struct process *p, struct outcome *ret)
{
    siginfo_t info = { 0 };
    struct sandbox_end end;

    waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED | WNOWAIT);
    if (!p->sandboxed)
        return info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status & 0x7f;
    sandbox_end(p->inside, &end);
    p->inside = NULL;
    if (end.failed[0])
        cox_buf_printf(&ret->message, "cannot make the sandbox: %s", end.failed);
    else if (end.exec_errno)
        cox_buf_printf(&ret->message, "cannot start the program in its sandbox: %s",
                       strerror(end.exec_errno));
    else if (end.limit[0])
        cox_buf_printf(&ret->message, "stopped: the program %s", end.limit);
    if (ret->message.len > 0)
        ret->code = end.limit[0] ? COX_CODE_RESOURCE_EXHAUSTED : COX_CODE_UNAVAILABLE;
    return end.has_status ? end.status : SIGKILL;
}

/* The process has ended and did not answer. */
static void on_crash(struct process *p)
{
    struct program_call *c = p->call;
    int status = ended_with(p, &c->outcome);
    bool refuses, again;

    if (c->outcome.code != COX_CODE_NONE) {
        c->process = NULL;
        keep_log(c);
        destroy_process(p, &c->outcome);
        tell(c);
        return;
    }
    refuses = refuses_to_serve(p, c, status);
    again = refuses || ended_before(p, c);
    c->process = NULL;
    if (!again && status == 0) {
        c->outcome.code = COX_CODE_OUTPUT_INVALID;
        outcome_say(&c->outcome, cox_slice_str("the program ended without an answer"));
    } else if (!again) {
        c->outcome.code = COX_CODE_EXIT_NONZERO;
        if (c->silent)
            cox_buf_append_str(&c->outcome.message, "the program closed its standard output, then was ");
        run_failure_message(&c->outcome.message, status, tail_slice(&c->log.tail));
        c->outcome.has_exit_code = true;
        c->outcome.exit_code = run_exit_code(status);
    }
    if (!again)
        keep_log(c);
    destroy_process(p, again ? NULL : &c->outcome);
    c->outcome.cpu_us -= c->cpu_before_us < c->outcome.cpu_us ? c->cpu_before_us : 0;
    if (refuses)
        atomic_store(&c->program->once, true);
    if (again) {
        event_del(c->timer); /* it was set when the process that has gone fell silent */
        serve(c);
    } else {
        tell(c);
    }
}

/* ---------------------------------------------------------------- pipes */

/* False when there is nothing (more) to read. */
static bool read_log(struct process *p)
{
    struct handler_host *host = p->pool->host;
    ssize_t n = p->err.fd < 0 ? 0 : read(p->err.fd, host->read_buf, sizeof(host->read_buf));

    if (n < 0)
        return errno == EINTR;
    if (n == 0) {
        close_channel(&p->err);
        return false;
    }
    if (p->call)
        call_log_take(&p->call->log, cox_slice(host->read_buf, (size_t)n));
    return true;
}

static void read_logs(struct process *p)
{
    for (int i = 0; i < 64 && read_log(p); i++)
        ;
}

/* Takes the answer when its line is whole; true when that was it, and `p` may be gone. No line ends before
 * `from`. */
static bool take_line(struct process *p, size_t from, bool at_end)
{
    uint8_t *end = p->line.len > from ? memchr(p->line.data + from, '\n', p->line.len - from) : NULL;
    size_t len = end ? (size_t)(end - p->line.data) : p->line.len;
    struct cox_buf line;

    if (!p->call || p->call->answered || (!end && !(at_end && len > 0)))
        return false;
    read_logs(p); /* what it said before it answered belongs to this call */
    line = p->line;
    p->line = (struct cox_buf){ 0 };
    if (end && len + 1 < line.len)
        cox_buf_append(&p->line, line.data + len + 1, line.len - len - 1);
    line.len = len;
    redact_json(p->call->redactor, &line); /* before anything is read from it, or said about it */
    on_answer(p, cox_buf_slice(&line));
    cox_buf_fini(&line);
    return true;
}

/* It will not say anything more. Most often it is ending; when it is not, nothing else would end its call. */
static void on_silence(struct process *p)
{
    close_channel(&p->out);
    if (p->call && !p->call->answered && !p->call->killing)
        start_timer(p->call->timer, POOL_KILL_GRACE_MS);
}

static void on_out(evutil_socket_t fd, short what, void *arg)
{
    struct process *p = arg;
    struct handler_host *host = p->pool->host;
    ssize_t n = read(fd, host->read_buf, sizeof(host->read_buf));

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        on_silence(p);
    if (p->idle) /* it speaks without being asked, or never will again */
        dismiss(p);
    if (!p->call || n <= 0)
        return;
    cox_buf_append(&p->line, host->read_buf, (size_t)n);
    if (take_line(p, p->line.len - (size_t)n, false) || p->line.len <= POOL_LINE_LEN_MAX)
        return;
    p->call->outcome.code = COX_CODE_OUTPUT_TOO_LARGE;
    outcome_say(&p->call->outcome, cox_slice_str("the program's answer is longer than 64 MiB"));
    end_call(p->call, false);
}

static void on_err(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    read_log(arg);
}

static void on_in(evutil_socket_t fd, short what, void *arg)
{
    struct process *p = arg;
    struct program_call *c = p->call;
    ssize_t n;

    (void)what;
    if (!c || c->line_at == c->line.len) {
        event_del(p->in.event);
        return;
    }
    n = write(fd, c->line.data + c->line_at, c->line.len - c->line_at);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    c->line_at += n > 0 ? (size_t)n : 0;
    if (n < 0) { /* it does not read: its end will tell */
        p->unread = is_unread(p);
        close_channel(&p->in);
    } else if (c->line_at == c->line.len) {
        event_del(p->in.event);
        if (p->once)
            close_channel(&p->in);
    }
}

static void on_exit_event(evutil_socket_t fd, short what, void *arg)
{
    struct process *p = arg;
    struct program_call *c = p->call;
    struct handler_host *host = p->pool->host;
    ssize_t n;

    (void)fd;
    (void)what;
    event_del(p->exit_event);
    kill(-p->pid, SIGKILL); /* so that the pipes end */
    if (!c) {
        destroy_process(p, NULL);
        return;
    }
    while (p->out.fd >= 0 && p->line.len <= POOL_LINE_LEN_MAX &&
           (n = read(p->out.fd, host->read_buf, sizeof(host->read_buf))) > 0)
        cox_buf_append(&p->line, host->read_buf, (size_t)n);
    read_logs(p);
    call_log_end(&c->log);
    p->exited = true;
    if (take_line(p, 0, true))
        return;
    if (c->answered)
        end_call(c, false);
    else
        on_crash(p);
}

static void on_process_timer(evutil_socket_t fd, short what, void *arg)
{
    struct process *p = arg;

    (void)fd;
    (void)what;
    if (p->idle)
        dismiss(p);
    else
        kill_now(p);
}

/* ---------------------------------------------------------------- starting */

static void watch(struct process *p, struct channel *c, int fd, short what, event_callback_fn fn)
{
    c->fd = fd;
    c->event = event_new(p->pool->host->base, fd, (short)(what | EV_PERSIST), fn, p);
    if (what != EV_WRITE)
        event_add(c->event, NULL);
}

/* A program's own folder may hold what it is made of; of a program that is ours nothing but itself is shown.
 */
static char *program_folder(const struct program *program, const char *path)
{
    size_t len = program->arg ? strlen(path) : (size_t)(strrchr(path, '/') - path);

    return cox_strndup(path, len > 0 ? len : 1);
}

/* One sandbox a call: one that is shared would have to show each call's directory to the others. */
static int spawn_sandboxed(struct program_call *c, enum sandbox_level level, struct spawn_args *args,
                           pid_t *ret_pid, struct sandboxed **ret_inside)
{
    char *path = realpath(c->program->path, NULL); /* also of /proc/self/exe, which is another inside */
    char *folder = path ? program_folder(c->program, path) : NULL;
    char *const paths[] = { path, NULL };
    int err = errno, channel = -1;

    args->paths = paths;
    args->dir = c->dir;
    args->envp = c->envp;
    if (path)
        err = sandbox_spawn(
            c->pool->host->sandbox, level,
            &(struct sandbox_step){ .work = c->dir,
                                    .read = c->blobs,
                                    .program = folder,
                                    .bundle = c->bundle_dir,
                                    .resources = c->resources,
                                    .port = c->gateway && level == SANDBOX_STRICT ? GATEWAY_PORT : 0,
                                    .ret_channel = &channel },
            args, ret_pid, ret_inside);
    if (channel >= 0)
        gateway_listen(c->gateway, channel);
    free(path);
    cox_free(folder);
    return err;
}

/* Returns an errno. fds: stdin's read and write end, stdout's, stderr's. *ret_inside is NULL without a
 * sandbox.
 */
static int spawn(struct program_call *c, bool once, int fds[6], pid_t *ret_pid, int *ret_pidfd,
                 struct sandboxed **ret_inside)
{
    enum sandbox_level level = sandbox_level_for(c->pool->host->sandbox, SANDBOX_NONE);
    char *argv[4] = { c->program->path };
    char *const paths[] = { c->program->path, NULL };
    char **envp = once ? c->envp : spawn_environment(NULL);
    struct spawn_args args = { .paths = paths, .argv = argv, .envp = envp };
    size_t n = 1;
    int err;

    if (c->program->arg)
        argv[n++] = c->program->arg;
    if (!once)
        argv[n++] = (char *)(uintptr_t) "--serve";
    if (!spawn_pipe(fds, 1) || !spawn_pipe(fds + 2, 0) || !spawn_pipe(fds + 4, 0))
        return errno;
    args.dir = once ? c->dir : c->pool->dir;
    args.in = fds[0];
    args.out = fds[3];
    args.err = fds[5];
    err = level == SANDBOX_NONE ? spawn_process(&args, ret_pid)
                                : spawn_sandboxed(c, level, &args, ret_pid, ret_inside);
    if (!once)
        cox_free(envp);
    if (err)
        return err;
    *ret_pidfd = spawn_pidfd(*ret_pid);
    if (*ret_pidfd >= 0)
        return 0;
    err = errno;
    kill(-*ret_pid, SIGKILL);
    waitpid(*ret_pid, NULL, 0);
    if (*ret_inside)
        sandbox_end(*ret_inside, NULL);
    return err;
}

/* Returns an errno. */
static int start_process(struct program_call *c, struct process **ret)
{
    bool once = atomic_load(&c->program->once);
    int fds[6] = { -1, -1, -1, -1, -1, -1 };
    struct process *p;
    pid_t pid = 0;
    struct sandboxed *inside = NULL;
    int pidfd = -1;
    int err = spawn(c, once, fds, &pid, &pidfd, &inside);

    if (err == 0) {
        p = COX_NEW(struct process);
        *p = (struct process){ .pool = c->pool, .pid = pid, .pidfd = pidfd, .inside = inside, .once = once };
        p->sandboxed = inside != NULL;
        p->program = program_ref(c->program);
        p->exit_event = event_new(c->pool->host->base, pidfd, EV_READ | EV_PERSIST, on_exit_event, p);
        p->timer = evtimer_new(c->pool->host->base, on_process_timer, p);
        event_add(p->exit_event, NULL);
        watch(p, &p->in, fds[1], EV_WRITE, on_in);
        watch(p, &p->out, fds[2], EV_READ, on_out);
        watch(p, &p->err, fds[4], EV_READ, on_err);
        cox_list_init(&p->link);
        cox_list_push_back(&c->pool->others, &p->link);
        c->pool->n++;
        fds[1] = fds[2] = fds[4] = -1;
        *ret = p;
    }
    for (size_t i = 0; i < 6; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return err;
}

static struct process *take_idle(struct pool *pool, const struct program *program)
{
    COX_LIST_FOR_EACH (it, &pool->idle) {
        struct process *p = COX_CONTAINER_OF(it, struct process, link);

        if (p->program != program)
            continue;
        if (!program_is_current(program)) {
            dismiss(p);
            continue;
        }
        event_del(p->timer);
        p->idle = false;
        pool->n_idle--;
        cox_list_remove(&p->link);
        cox_list_push_back(&pool->others, &p->link);
        return p;
    }
    return NULL;
}

static void refuse(struct program_call *c, enum cox_code code)
{
    c->outcome.code = code;
    event_active(c->timer, EV_TIMEOUT, 0);
}

/* Gives the call to a process. */
static void serve(struct program_call *c)
{
    struct pool *pool = c->pool;
    struct process *p =
        c->with_secrets ? NULL : take_idle(pool, c->program); /* nor do others listen beside it */
    int err = 0;

    if (!p && pool->n >= pool->n_max && !cox_list_empty(&pool->idle))
        dismiss(COX_CONTAINER_OF(pool->idle.next, struct process, link));
    if (!p)
        err = start_process(c, &p);
    if (err) {
        cox_buf_printf(&c->outcome.message, "cannot start the program: %s", strerror(err));
        refuse(c, COX_CODE_UNAVAILABLE);
        return;
    }
    p->call = c;
    p->n_calls++;
    call_log_begin(&c->log, &c->call, c->redactor);
    c->process = p;
    c->line_at = 0;
    c->cpu_before_us = p->n_calls > 1 ? cpu_used_us(p->pid) : 0;
    event_add(p->in.event, NULL);
}

/* ---------------------------------------------------------------- calls */

static void on_call_timer(evutil_socket_t fd, short what, void *arg)
{
    struct program_call *c = arg;

    (void)fd;
    (void)what;
    if (!c->process)
        tell(c);
    else if (c->answered)
        end_call(c, false);
    else {
        c->silent = !c->killing;
        kill_now(c->process); /* its exit ends the call */
    }
}

static void kill_call(struct call *call)
{
    struct program_call *c = call_of(call);

    if (c->killing || !c->process)
        return;
    c->killing = true;
    kill(-c->process->pid, SIGTERM);
    start_timer(c->timer, POOL_KILL_GRACE_MS);
}

static void destroy_call(struct call *call)
{
    struct program_call *c = call_of(call);

    if (c->process)
        destroy_process(c->process, NULL);
    event_free(c->timer);
    program_unref(c->program);
    wiped_fini(&c->line);
    call_log_fini(&c->log);
    cox_arena_fini(&c->arena);
    outcome_fini(&c->outcome);
    cox_free(c);
}

static bool is_input(struct program_call *c, struct cox_slice input)
{
    struct cox_slice schema = cox_buf_slice(&c->program->input_schema);
    struct cox_json_place place;
    struct cox_buf why = { 0 };
    bool ok = true;

    if (cox_json_check(input, &place) != COX_OK) {
        cox_buf_printf(&c->outcome.message, "input: column %u: expected %s", place.column, place.expected);
        return false;
    }
    if (schema.len > 0 && cox_schema_match(schema, input, &why) != COX_OK) {
        cox_buf_append_str(&c->outcome.message, "input: ");
        outcome_say(&c->outcome, cox_buf_slice(&why));
        ok = false;
    }
    cox_buf_fini(&why);
    return ok;
}

struct call *pool_call(struct pool *pool, struct program *program, const struct call_args *args,
                       struct cox_slice input, void (*on_done)(struct call *call, struct outcome *outcome),
                       void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data),
                       void *user)
{
    static const struct call_ops ops = { .kill = kill_call, .destroy = destroy_call };
    enum sandbox_level level = sandbox_level_for(pool->host->sandbox, SANDBOX_NONE);
    struct program_call *c = COX_NEW(struct program_call);

    c->call =
        (struct call){ .ops = &ops, .host = pool->host, .on_done = on_done, .on_log = on_log, .user = user };
    c->pool = pool;
    c->program = program_ref(program);
    c->id = ++pool->n_calls;
    c->is_item = args->index != NULL;
    c->dir = args->dir;
    c->bundle_dir = args->bundle_dir;
    c->blobs = args->blobs;
    c->resources = &args->assign->resources;
    c->redactor = args->redactor;
    c->with_secrets = args->with_secrets;
    c->gateway = args->gateway;
    c->timer = evtimer_new(pool->host->base, on_call_timer, c);
    outcome_init(&c->outcome);
    if (input.len == 0)
        input = cox_slice_str("null");
    if (!is_input(c, input)) {
        refuse(c, COX_CODE_INPUT_INVALID);
        return &c->call;
    }
    run_spec_environment(&c->arena, args, level, 0, &c->envp);
    wiped_reserve(&c->line, c->with_secrets ? 2 * input.len + ANSWER_ASK_LEN_MAX : 0);
    answer_ask(&c->line, c->id, input, args, level == SANDBOX_STRICT);
    serve(c);
    return &c->call;
}

/* ---------------------------------------------------------------- life */

struct pool *pool_create(struct handler_host *host, uint32_t n_max, const char *dir)
{
    struct pool *pool = COX_NEW(struct pool);

    pool->host = host;
    pool->n_max = n_max;
    pool->dir = dir;
    cox_list_init(&pool->idle);
    cox_list_init(&pool->others);
    return pool;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    COX_LIST_FOR_EACH (it, &pool->idle)
        destroy_process(COX_CONTAINER_OF(it, struct process, link), NULL);
    COX_LIST_FOR_EACH (it, &pool->others)
        destroy_process(COX_CONTAINER_OF(it, struct process, link), NULL);
    cox_free(pool);
}

uint32_t pool_n_idle(const struct pool *pool)
{
    return pool->n_idle;
}
