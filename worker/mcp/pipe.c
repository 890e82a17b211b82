#include "pipe.h"

#include "../handlers/run_output.h"
#include "../wiped.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STDERR_TAIL_LEN 4096u
#define LAST_READS_MAX 64
#define SAID_LEN_MAX 200u          /* of a line that is no message */
#define SAID_READ_LEN (128u << 10) /* so that no secret is cut before it is recognised */

struct channel {
    int fd; /* -1: closed */
    struct event *event;
};

struct mcp_pipe {
    struct cox_list link; /* of `leaving` */
    struct handler_host *host;
    struct mcp_client *client; /* NULL: it is leaving */
    void (*on_gone)(void *user);
    void *user;
    pid_t pid;
    int pidfd;
    struct sandboxed *inside; /* NULL: no sandbox */
    bool leaving, terminated;
    struct event *exit_event, *timer;
    struct channel in, out, err;
    struct cox_buf unsent;
    size_t unsent_at;
    struct cox_buf line;
    struct redactor *redactor;
    struct redact_stream redact;
    struct tail tail; /* of standard error */
};

static void close_channel(struct channel *c)
{
    if (c->event)
        event_free(c->event);
    if (c->fd >= 0)
        close(c->fd);
    *c = (struct channel){ .fd = -1 };
}

/* ---------------------------------------------------------------- ends */

static void kill_now(struct mcp_pipe *s)
{
    if (s->inside)
        sandbox_kill(s->pid);
    else
        kill(-s->pid, SIGKILL);
}

void mcp_pipe_destroy(struct mcp_pipe *s)
{
    if (!s)
        return;
    if (s->pid) {
        kill_now(s);
        waitpid(s->pid, NULL, 0);
    }
    cox_list_remove(&s->link);
    close_channel(&s->in);
    close_channel(&s->out);
    close_channel(&s->err);
    if (s->exit_event)
        event_free(s->exit_event);
    if (s->timer)
        event_free(s->timer);
    if (s->pidfd >= 0)
        close(s->pidfd);
    if (s->inside)
        sandbox_end(s->inside, NULL);
    wiped_fini(&s->unsent);
    cox_buf_fini(&s->line);
    redact_fini(&s->redact);
    redactor_unref(s->redactor);
    tail_fini(&s->tail);
    cox_free(s);
}

void mcp_pipe_kill_all(struct cox_list *leaving)
{
    while (!cox_list_empty(leaving))
        mcp_pipe_destroy(COX_CONTAINER_OF(leaving->next, struct mcp_pipe, link));
}

/* wait(2)'s status; what the sandbox itself has to say goes to `message`. */
static int ended_with(struct mcp_pipe *s, struct cox_buf *message)
{
    siginfo_t info = { 0 };
    struct sandbox_end end;

    waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | WNOWAIT);
    if (!s->inside)
        return info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status & 0x7f;
    kill_now(s);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
    sandbox_end(s->inside, &end);
    s->inside = NULL;
    if (end.failed[0])
        cox_buf_printf(message, "cannot make the sandbox: %s", end.failed);
    else if (end.exec_errno)
        cox_buf_printf(message, "cannot start it in its sandbox: %s", strerror(end.exec_errno));
    else if (end.limit[0])
        cox_buf_printf(message, "stopped: it %s", end.limit);
    return end.has_status ? end.status : SIGKILL;
}

/* The client hears of it, then the owner, who stops it. */
static void gone(struct mcp_pipe *s, enum cox_code code, const char *why)
{
    struct mcp_client *client = s->client;

    if (!client)
        return;
    s->client = NULL;
    mcp_client_gone(client, code, cox_slice_str(why));
    s->on_gone(s->user);
}

/* ---------------------------------------------------------------- what it says */

static void say(struct mcp_pipe *s, struct cox_slice data)
{
    if (data.len == 0)
        return;
    tail_append(&s->tail, data);
    if (s->client)
        mcp_client_say(s->client, data);
}

/* False when there is nothing (more) to read. */
static bool read_log(struct mcp_pipe *s)
{
    ssize_t n = s->err.fd < 0 ? 0 : read(s->err.fd, s->host->read_buf, sizeof(s->host->read_buf));
    struct cox_buf clean = { 0 };

    if (n < 0)
        return errno == EINTR;
    if (n > 0 && s->redactor)
        redact_feed(&s->redact, cox_slice(s->host->read_buf, (size_t)n), &clean);
    else if (n > 0)
        cox_buf_append(&clean, s->host->read_buf, (size_t)n);
    if (n == 0 && s->redactor)
        redact_end(&s->redact, &clean);
    if (n == 0)
        close_channel(&s->err);
    say(s, cox_buf_slice(&clean));
    cox_buf_fini(&clean);
    return n > 0;
}

/* Programs greet people on standard output who are not there. */
static void say_line(struct mcp_pipe *s, struct cox_slice line)
{
    struct cox_buf text = { 0 };

    cox_buf_append_str(&text, "mcp: not a message: ");
    cox_buf_append_slice(&text, cox_slice(line.data, line.len < SAID_READ_LEN ? line.len : SAID_READ_LEN));
    if (s->redactor)
        redact_text(s->redactor, &text);
    if (text.len > SAID_LEN_MAX)
        text.len = SAID_LEN_MAX;
    cox_buf_append_str(&text, "\n");
    if (s->client)
        mcp_client_say(s->client, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

/* Takes the lines that are whole. No line ends before `from`. */
static void take_lines(struct mcp_pipe *s, size_t from)
{
    size_t at = 0;
    const uint8_t *end;

    while (s->client && from < s->line.len &&
           (end = memchr(s->line.data + from, '\n', s->line.len - from)) != NULL) {
        struct cox_slice line =
            cox_json_trim(cox_slice(s->line.data + at, (size_t)(end - s->line.data) - at));

        at = from = (size_t)(end - s->line.data) + 1;
        if (line.len > 0 && !mcp_client_take(s->client, line, 0))
            say_line(s, line);
    }
    if (at > 0) {
        memmove(s->line.data, s->line.data + at, s->line.len - at);
        s->line.len -= at;
        if (s->line.cap > (1u << 20) && s->line.len == 0)
            cox_buf_fini(&s->line);
    }
    if (s->line.len > MCP_MESSAGE_LEN_MAX)
        gone(s, COX_CODE_OUTPUT_TOO_LARGE, "mcp: a message of the server is longer than 64 MiB");
}

/* False when there is nothing (more) to read. */
static bool read_out(struct mcp_pipe *s)
{
    ssize_t n = s->out.fd < 0 ? 0 : read(s->out.fd, s->host->read_buf, sizeof(s->host->read_buf));
    size_t from = s->line.len;

    if (n < 0)
        return errno == EINTR;
    if (n == 0) {
        close_channel(&s->out);
        return false;
    }
    cox_buf_append(&s->line, s->host->read_buf, (size_t)n);
    take_lines(s, from);
    return s->client != NULL;
}

static void on_out(evutil_socket_t fd, short what, void *arg)
{
    struct mcp_pipe *s = arg;
    ssize_t n;

    (void)what;
    if (!s->client) { /* it is leaving, and may still have things to say that nobody hears */
        n = read(fd, s->host->read_buf, sizeof(s->host->read_buf));
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            close_channel(&s->out);
        return;
    }
    read_out(s);
    if (s->out.fd < 0 &&
        s->client) /* most often it is ending; when it is not, it will not answer either way */
        event_add(s->timer, &(struct timeval){ .tv_sec = MCP_PIPE_KILL_GRACE_MS / 1000 });
}

static void on_err(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    read_log(arg);
}

static void on_in(evutil_socket_t fd, short what, void *arg)
{
    struct mcp_pipe *s = arg;
    ssize_t n = write(fd, s->unsent.data + s->unsent_at, s->unsent.len - s->unsent_at);

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) { /* its end will tell */
        close_channel(&s->in);
        wiped_fini(&s->unsent);
        return;
    }
    s->unsent_at += (size_t)n;
    if (s->unsent_at < s->unsent.len)
        return;
    event_del(s->in.event);
    wiped_fini(&s->unsent);
    s->unsent_at = 0;
}

void mcp_pipe_send(struct mcp_pipe *s, struct cox_slice text)
{
    if (s->in.fd < 0 || !s->client)
        return;
    wiped_reserve(&s->unsent, text.len + 1);
    cox_buf_append_slice(&s->unsent, text);
    cox_buf_append_str(&s->unsent, "\n");
    event_add(s->in.event, NULL);
    if (s->unsent.len - s->unsent_at > MCP_PIPE_UNREAD_LEN_MAX + text.len)
        event_active(s->timer, EV_TIMEOUT, 0); /* told from the loop */
}

/* ---------------------------------------------------------------- its end */

static void on_exit_event(evutil_socket_t fd, short what, void *arg)
{
    struct mcp_pipe *s = arg;
    struct cox_buf message = { 0 };
    int status;

    (void)fd;
    (void)what;
    event_del(s->exit_event);
    kill(-s->pid, SIGKILL); /* so that the pipes end */
    if (s->leaving) {
        mcp_pipe_destroy(s);
        return;
    }
    if (!s->client)
        return; /* its owner knows, and is about to stop it */
    for (int i = 0; i < LAST_READS_MAX && read_log(s); i++)
        ;
    for (int i = 0; i < LAST_READS_MAX && read_out(s); i++)
        ;
    if (!s->client)
        return; /* what it said last was too much */
    cox_buf_append_str(&message, "mcp: the server has ended: ");
    status = ended_with(s, &message);
    if (status == 0)
        cox_buf_append_str(&message, "exited with code 0");
    else
        run_failure_message(&message, status, tail_slice(&s->tail));
    gone(s, COX_CODE_UNAVAILABLE, cox_buf_cstr(&message));
    cox_buf_fini(&message);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct mcp_pipe *s = arg;

    (void)fd;
    (void)what;
    if (s->client) {
        gone(s, COX_CODE_UNAVAILABLE,
             s->out.fd < 0 ? "mcp: the server has closed its standard output"
                           : "mcp: the server does not read what it is asked");
        return;
    }
    if (s->terminated) {
        kill_now(s);
        return;
    }
    s->terminated = true;
    kill(-s->pid, SIGTERM);
    event_add(s->timer, &(struct timeval){ .tv_sec = MCP_PIPE_KILL_GRACE_MS / 1000 });
}

void mcp_pipe_stop(struct mcp_pipe *s, struct cox_list *leaving)
{
    s->client = NULL;
    s->leaving = true;
    cox_list_push_back(leaving, &s->link);
    if (!s->pid) { /* it has been reaped */
        mcp_pipe_destroy(s);
        return;
    }
    close_channel(&s->in);
    if (!event_pending(s->exit_event, EV_READ, NULL)) /* it has ended, and what is left of it is nothing */
        mcp_pipe_destroy(s);
    else
        event_add(s->timer, &(struct timeval){ .tv_sec = MCP_PIPE_CLOSE_GRACE_MS / 1000 });
}

/* ---------------------------------------------------------------- its start */

static void watch(struct mcp_pipe *s, struct channel *c, int fd, short what, event_callback_fn fn)
{
    c->fd = fd;
    c->event = event_new(s->host->base, fd, (short)(what | EV_PERSIST), fn, s);
    if (what != EV_WRITE)
        event_add(c->event, NULL);
}

static int spawn(struct mcp_pipe *s, const struct mcp_pipe_config *config, const struct run_spec *spec,
                 const int fds[6])
{
    const struct spawn_args args = { .paths = spec->paths,
                                     .argv = spec->argv,
                                     .envp = spec->envp,
                                     .dir = config->dir,
                                     .in = fds[0],
                                     .out = fds[3],
                                     .err = fds[5] };
    const struct sandbox_step step = { .work = config->dir,
                                       .bundle = config->bundle_dir,
                                       .resources = config->resources };
    int err = spec->level == SANDBOX_NONE
                  ? spawn_process(&args, &s->pid)
                  : sandbox_spawn(config->host->sandbox, spec->level, &step, &args, &s->pid, &s->inside);

    if (err)
        return err;
    s->pidfd = spawn_pidfd(s->pid);
    return s->pidfd >= 0 ? 0 : errno;
}

struct mcp_pipe *mcp_pipe_start(const struct mcp_pipe_config *config, const struct run_spec *spec,
                                struct cox_buf *message)
{
    struct mcp_pipe *s = COX_NEW(struct mcp_pipe);
    int fds[6] = { -1, -1, -1, -1, -1, -1 };
    int err;

    s->host = config->host;
    s->client = config->client;
    s->on_gone = config->on_gone;
    s->user = config->user;
    s->pidfd = s->in.fd = s->out.fd = s->err.fd = -1;
    s->redactor = redactor_ref((struct redactor *)(uintptr_t)config->redactor);
    s->redact.of = s->redactor;
    s->tail.len_max = STDERR_TAIL_LEN;
    cox_list_init(&s->link);
    err = spawn_pipe(fds, 1) && spawn_pipe(fds + 2, 0) && spawn_pipe(fds + 4, 0) ? spawn(s, config, spec, fds)
                                                                                 : errno;
    if (err == 0) {
        s->exit_event = event_new(s->host->base, s->pidfd, EV_READ | EV_PERSIST, on_exit_event, s);
        s->timer = evtimer_new(s->host->base, on_timer, s);
        event_add(s->exit_event, NULL);
        watch(s, &s->in, fds[1], EV_WRITE, on_in);
        watch(s, &s->out, fds[2], EV_READ, on_out);
        watch(s, &s->err, fds[4], EV_READ, on_err);
        fds[1] = fds[2] = fds[4] = -1;
    } else if (spec->level != SANDBOX_NONE || err == EMFILE || err == ENFILE || err == ENOMEM ||
               err == EAGAIN) {
        cox_buf_printf(message, "mcp: cannot start the server: %s", strerror(err));
    } else {
        cox_buf_append_str(message, "mcp: ");
        run_exec_message(message, spec->argv[0], spec->path_env, err);
    }
    for (size_t i = 0; i < 6; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (err == 0)
        return s;
    mcp_pipe_destroy(s);
    return NULL;
}
