/* `cox dev`: an orchestrator, a worker and a model for the project in a folder, as long as it runs itself. */
#include "beside.h"
#include "child.h"
#include "verbs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTEXT "dev"
#define KILL_AFTER_MS 15000
#define NOWHERE "http://127.0.0.1:9/v1"

const struct cli_option cli_dev_options[] = {
    { "grpc", 0, "HOST:PORT", "where the orchestrator listens (default: a free port of 127.0.0.1)" },
    { "http", 0, "HOST:PORT", "where its HTTP interface listens (default: a free port of 127.0.0.1)" },
    { "slots", 0, "N", "steps at once (default: the number of cores)" },
    { "model", 0, "NAME=URL", "a model server, up to /v1 (default: a simulated one, as \"default\")" },
    { "record", 0, "FILE", "write model calls there with their answers, a JSON object a line" },
    { "replay", 0, "FILE", "answer model calls from such a file: what is not in it fails" },
    { "once", 0, "COMMAND", "run this with sh once all is up, then end with its exit code" },
    { "no-context", 0, NULL, "leave the configuration file alone" },
    { 0 },
};
const char cli_dev_help[] =
    "Starts coxd, with its data in DIR/.cox, and cox-worker, which offers the "
    "programs in DIR/tools and sees when they\n"
    "change. Shows the logs of both. Other terminals' `cox` find it by the context "
    "\"dev\", which is the current one "
    "until\nit ends. Ctrl-C ends all; the data stays for the next time. Without --model "
    "the model \"default\" is a simulated\none, cox-modelsim: it "
    "answers with pseudo-words. The dashboard will join here.\n\n"
    "With --replay no model is asked: a call gets the answer that was recorded for the same request. One "
    "that "
    "was not\nrecorded fails, and names the message that differs from the nearest that was.\n\n"
    "Examples:\n"
    "  cox init hello && cox dev hello\n"
    "  cox dev hello --once 'cox task run hello/task.yaml'\n"
    "  cox dev hello --record calls.jsonl --once 'cox task run hello/task.yaml'\n"
    "  cox dev hello --replay calls.jsonl --once 'cox task run hello/task.yaml'\n"
    "  cox dev hello --model default=http://127.0.0.1:8000/v1\n";

struct dev {
    struct cli *cli;
    char *dir;  /* the project's, absolute */
    char *data; /* DIR/.cox */
    struct child model, coxd, worker, once;
    int signal_fd, inotify_fd;
    char *grpc, *http, *previous; /* context */
    char *simulated;              /* the URL of the simulated model; NULL: there is none */
    bool asked;                   /* to end */
};

/* ---- what the programs tell ------------------------------------------------------------------------------
 */

static char *member_of(struct cox_slice json, const char *name)
{
    struct cox_slice raw;
    struct cox_buf text = { 0 };
    char *copy = NULL;

    if (cox_json_check(json, NULL) == COX_OK && cox_json_member(json, name, &raw) &&
        cox_json_kind(raw) == COX_JSON_STRING && raw.len > 2) {
        cox_json_unquote(&text, raw);
        copy = cox_strdup(cox_buf_cstr(&text));
    }
    cox_buf_fini(&text);
    return copy;
}

/* The text of DIR/.cox/NAME; false while it is not there. */
static bool read_ready(const struct dev *d, const char *name, struct cox_buf *ret)
{
    char *path = cox_asprintf("%s/%s", d->data, name);
    FILE *f = fopen(path, "re");

    cox_free(path);
    if (!f)
        return false;
    cox_buf_reserve(ret, 4096);
    ret->len = fread(ret->data, 1, 4096, f);
    fclose(f);
    return ret->len > 0;
}

static void forget_ready(const struct dev *d, const char *name)
{
    char *path = cox_asprintf("%s/%s", d->data, name);

    unlink(path);
    cox_free(path);
}

/* ---- events ----------------------------------------------------------------------------------------------
 */

static void on_signal(struct dev *d)
{
    struct signalfd_siginfo info;

    while (read(d->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        if (d->asked) { /* the second time: at once */
            child_signal(&d->once, SIGKILL);
            child_signal(&d->worker, SIGKILL);
            child_signal(&d->coxd, SIGKILL);
            child_signal(&d->model, SIGKILL);
        }
        d->asked = true;
    }
    child_reap(&d->model);
    child_reap(&d->coxd);
    child_reap(&d->worker);
    child_reap(&d->once);
}

/* Waits for something to happen, and shows what was logged. False when nothing did for so long. */
static bool turn(struct dev *d, int timeout_ms)
{
    struct pollfd fds[] = { { .fd = d->signal_fd, .events = POLLIN },
                            { .fd = d->inotify_fd, .events = POLLIN },
                            { .fd = d->coxd.log_fd, .events = POLLIN },
                            { .fd = d->worker.log_fd, .events = POLLIN },
                            { .fd = d->model.log_fd, .events = POLLIN } };
    char events[4096];
    int n = poll(fds, sizeof(fds) / sizeof(*fds), timeout_ms);

    if (n == 0)
        return false;
    if (fds[2].revents)
        child_show_log(&d->coxd, d->cli->color);
    if (fds[3].revents)
        child_show_log(&d->worker, d->cli->color);
    if (fds[4].revents)
        child_show_log(&d->model, d->cli->color);
    if (fds[1].revents)
        (void)!read(d->inotify_fd, events, sizeof(events)); /* that a file came is all there is to know */
    if (fds[0].revents)
        on_signal(d);
    return true;
}

/* One that was started and has ended by itself. */
static bool is_gone(const struct child *c)
{
    return c->name && !child_runs(c);
}

static enum cli_exit check_up(struct dev *d)
{
    const struct child *gone = is_gone(&d->coxd)     ? &d->coxd
                               : is_gone(&d->worker) ? &d->worker
                               : is_gone(&d->model)  ? &d->model
                                                     : NULL;

    if (d->asked)
        return CLI_INTERRUPTED;
    if (!gone)
        return CLI_OK;
    cli_error("%s has ended, with exit code %d; its last lines above say why", gone->name,
              child_exit_code(gone));
    return CLI_UNAVAILABLE;
}

static enum cli_exit await_ready(struct dev *d, const char *name, struct cox_buf *ret)
{
    enum cli_exit code = CLI_OK;

    while (!code && !read_ready(d, name, ret)) {
        turn(d, -1);
        code = check_up(d);
    }
    return code;
}

/* ---- up --------------------------------------------------------------------------------------------------
 */

static const char *option(const struct dev *d, const char *name, const char *fallback)
{
    const char *value = cli_get(d->cli, name);

    return value ? value : fallback;
}

/* The first of "endpoints" in what cox-modelsim says when it is ready. */
static char *first_endpoint(struct cox_slice json)
{
    struct cox_buf text = { 0 };
    struct cox_slice list;
    char *url = NULL;

    if (cox_json_check(json, NULL) == COX_OK && cox_json_member(json, "endpoints", &list)) {
        struct cox_json_walk w = cox_json_walk(list);

        if (cox_json_next(&w) && cox_json_kind(w.value) == COX_JSON_STRING) {
            cox_json_unquote(&text, w.value);
            url = cox_strdup(cox_buf_cstr(&text));
        }
    }
    cox_buf_fini(&text);
    return url;
}

/* When it is there, and no other model was named. */
static enum cli_exit start_model(struct dev *d)
{
    char *path = cli_beside("cox-modelsim"), *ready = cox_asprintf("%s/model.ready", d->data);
    const char *argv[] = { path, "--listen", "127.0.0.1:0", "--ready-file", ready, NULL };
    struct cox_buf text = { 0 };
    enum cli_exit code = CLI_OK;

    if (!cli_has(d->cli, "model") && !cli_has(d->cli, "replay") && strchr(path, '/')) {
        forget_ready(d, "model.ready");
        child_start(&d->model, "model", "\033[33m", argv, true);
        code = await_ready(d, "model.ready", &text);
        d->simulated = code ? NULL : first_endpoint(cox_buf_slice(&text));
    }
    cox_buf_fini(&text);
    cox_free(path);
    cox_free(ready);
    return code;
}

/* The models of a recording, where nobody is: they are not asked. False: it cannot be read. */
static bool recorded_models(const char *path, struct cox_buf *ret)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;

    if (!f)
        return false;
    cox_buf_append_str(ret, "default=" NOWHERE);
    for (ssize_t len; (len = getline(&line, &cap, f)) > 0;) {
        char *name = member_of(cox_slice(line, (size_t)len), "model");
        char *entry = name ? cox_asprintf("%s=" NOWHERE, name) : NULL;

        if (entry && !strstr(cox_buf_cstr(ret), entry))
            cox_buf_printf(ret, ",%s", entry);
        cox_free(entry);
        cox_free(name);
    }
    free(line);
    fclose(f);
    return true;
}

/* What coxd is told of models: their names and places, and a recording. */
static enum cli_exit put_models(const struct dev *d, const char **argv, size_t *n, struct cox_buf *models)
{
    const char *replay = cli_get(d->cli, "replay"), *record = cli_get(d->cli, "record");

    if (replay && record) {
        cli_error("--record and --replay: expected one of the two");
        return CLI_USAGE;
    }
    if (cli_has(d->cli, "model"))
        cox_buf_append_str(models, cli_get(d->cli, "model"));
    else if (d->simulated)
        cox_buf_printf(models, "default=%s", d->simulated);
    else if (replay && !recorded_models(replay, models)) {
        cli_error("%s: %s", replay, strerror(errno));
        return CLI_USAGE;
    }
    if (models->len > 0) {
        argv[(*n)++] = "--model";
        argv[(*n)++] = cox_buf_cstr(models);
    }
    if (replay || record) {
        argv[(*n)++] = replay ? "--model-replay" : "--model-record";
        argv[(*n)++] = replay ? replay : record;
    }
    return CLI_OK;
}

static enum cli_exit start_coxd(struct dev *d)
{
    char *path = cli_beside("coxd"), *ready = cox_asprintf("%s/coxd.ready", d->data);
    char *data = cox_asprintf("%s/data", d->data);
    const char *argv[16] = { path,
                             "--data-dir",
                             data,
                             "--grpc",
                             option(d, "grpc", "127.0.0.1:0"),
                             "--http",
                             option(d, "http", "127.0.0.1:0"),
                             "--ready-file",
                             ready };
    struct cox_buf models = { 0 };
    size_t n = 9;
    enum cli_exit code = put_models(d, argv, &n, &models);
    struct cox_buf text = { 0 };

    forget_ready(d, "coxd.ready");
    if (!code) {
        child_start(&d->coxd, "coxd", "\033[35m", argv, true);
        code = await_ready(d, "coxd.ready", &text);
    }
    if (!code) {
        d->grpc = member_of(cox_buf_slice(&text), "grpc");
        d->http = member_of(cox_buf_slice(&text), "http");
        if (!d->grpc) {
            cli_error("%s: expected {\"grpc\": ...}", ready);
            code = CLI_UNAVAILABLE;
        }
    }
    cox_buf_fini(&text);
    cox_free(path);
    cox_free(ready);
    cox_free(data);
    cox_buf_fini(&models);
    return code;
}

static enum cli_exit start_worker(struct dev *d)
{
    char *path = cli_beside("cox-worker"), *ready = cox_asprintf("%s/worker.ready", d->data);
    char *work = cox_asprintf("%s/work", d->data), *tools = cox_asprintf("%s/tools", d->dir);
    const char *argv[16] = { path, "--orchestrator", d->grpc, "--worker-id", "dev", "--work-dir", work,
                             "--ready-file", ready,
                             /* what is being written calls what runs beside it */
                             "--http-allow", "127.0.0.0/8,::1" };
    struct cox_buf text = { 0 };
    size_t n = 11;

    if (access(tools, X_OK) == 0) {
        argv[n++] = "--handler-dir";
        argv[n++] = tools;
    }
    if (cli_has(d->cli, "slots")) {
        argv[n++] = "--slots";
        argv[n++] = cli_get(d->cli, "slots");
    }
    forget_ready(d, "worker.ready");
    child_start(&d->worker, "worker", "\033[36m", argv, true);
    enum cli_exit code = await_ready(d, "worker.ready", &text);

    cox_buf_fini(&text);
    cox_free(path);
    cox_free(ready);
    cox_free(work);
    cox_free(tools);
    return code;
}

static void tell(const struct dev *d)
{
    const char *arg = d->cli->n_args > 0 ? d->cli->args[0] : ".";

    cli_note(d->cli, "\n  orchestrator  %s   (data in %s/.cox)", d->grpc, arg);
    if (d->http)
        cli_note(d->cli, "  HTTP          http://%s", d->http);
    cli_note(d->cli, "  worker        dev, with the programs of %s/tools", arg);
    if (cli_has(d->cli, "replay"))
        cli_note(d->cli, "  model         none: calls are answered from %s", cli_get(d->cli, "replay"));
    else if (d->simulated)
        cli_note(d->cli, "  model         default, SIMULATED at %s: it answers with pseudo-words",
                 d->simulated);
    else if (cli_has(d->cli, "model"))
        cli_note(d->cli, "  model         %s", cli_get(d->cli, "model"));
    else
        cli_note(d->cli, "  model         none: cox-modelsim is not beside cox; --model NAME=URL names one");
    if (cli_has(d->cli, "once"))
        return;
    cli_note(d->cli, "\n  In another terminal:\n    %scox task run %s/task.yaml\n\n  Ctrl-C ends all.\n",
             cli_has(d->cli, "no-context") ? "COX_ADDRESS=" : "", arg);
}

static void enter_context(struct dev *d)
{
    if (cli_has(d->cli, "no-context") || !d->cli->config_path)
        return;
    d->previous = cli_current_context(cox_config_file(d->cli->config));
    (void)cli_put_context(d->cli, CONTEXT, d->grpc, NULL, NULL, NULL, true);
}

/* As it was before us, unless somebody has changed it since. */
static void leave_context(struct dev *d)
{
    struct cox_slice contexts, context;
    struct cox_buf error = { 0 };
    char *address = NULL, *current = NULL;

    if (!d->grpc || cli_has(d->cli, "no-context") || !d->cli->config_path)
        return;
    if (cox_config_load(d->cli->config, d->cli->config_path, &error) == COX_OK) {
        const struct cox_yaml *file = cox_config_file(d->cli->config);
        current = cli_current_context(file);
        if (cox_json_member(cox_buf_slice(&file->json), "contexts", &contexts) &&
            cox_json_member(contexts, CONTEXT, &context))
            address = member_of(context, "address");
        if (address && strcmp(address, d->grpc) == 0) {
            (void)cli_put_context(d->cli, CONTEXT, NULL, NULL, NULL, NULL, false);
            if (d->previous && strcmp(d->previous, CONTEXT) != 0 && current && strcmp(current, CONTEXT) == 0)
                (void)cli_put_context(d->cli, d->previous, NULL, NULL, NULL, NULL, true);
        }
    }
    cox_buf_fini(&error);
    cox_free(address);
    cox_free(current);
}

static enum cli_exit run_once(struct dev *d)
{
    char *self = cli_beside("cox"), *slash = strrchr(self, '/');
    const char *path = getenv("PATH"), *argv[] = { "/bin/sh", "-c", cli_get(d->cli, "once"), NULL };
    char *new_path =
        slash ? cox_asprintf("%.*s:%s", (int)(slash - self), self, path ? path : "/usr/bin:/bin") : NULL;
    enum cli_exit code = CLI_OK;

    setenv("COX_ADDRESS", d->grpc, 1);
    if (new_path)
        setenv("PATH", new_path, 1);
    child_start(&d->once, "the command", "", argv, false);
    while (!code && child_runs(&d->once)) {
        turn(d, -1);
        code = check_up(d);
    }
    cox_free(self);
    cox_free(new_path);
    return code ? code : (enum cli_exit)child_exit_code(&d->once);
}

/* ---- down ------------------------------------------------------------------------------------------------
 */

static void stop(struct dev *d, struct child *c)
{
    child_signal(c, SIGTERM);
    while (child_runs(c)) {
        if (!turn(d, KILL_AFTER_MS))
            child_signal(c, SIGKILL);
    }
    child_show_log(c, d->cli->color);
    child_end(c);
}

static enum cli_exit prepare(struct dev *d)
{
    const char *arg = d->cli->n_args > 0 ? d->cli->args[0] : ".";
    sigset_t set;

    d->dir = realpath(arg, NULL);
    if (!d->dir) {
        cli_error("%s: %s", arg, strerror(errno));
        return CLI_USAGE;
    }
    d->data = cox_asprintf("%s/.cox", d->dir);
    if (mkdir(d->data, 0700) != 0 && errno != EEXIST) {
        cli_error("%s: %s", d->data, strerror(errno));
        return CLI_USAGE;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    d->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    COX_ASSERT(d->signal_fd >= 0 && d->inotify_fd >= 0);
    if (inotify_add_watch(d->inotify_fd, d->data, IN_MOVED_TO | IN_CLOSE_WRITE) < 0) {
        cli_error("%s: %s", d->data, strerror(errno));
        return CLI_USAGE;
    }
    unsetenv("COX_CONFIG"); /* ours, not theirs */
    return CLI_OK;
}

enum cli_exit cli_dev(struct cli *cli)
{
    struct dev d = {
        .cli = cli, .model = CHILD_NONE, .coxd = CHILD_NONE, .worker = CHILD_NONE, .once = CHILD_NONE
    };
    enum cli_exit code = prepare(&d);

    if (!code)
        code = start_model(&d);
    if (!code)
        code = start_coxd(&d);
    if (!code)
        code = start_worker(&d);
    if (!code) {
        enter_context(&d);
        tell(&d);
        if (cli_has(cli, "once"))
            code = run_once(&d);
        while (!code && !cli_has(cli, "once")) {
            turn(&d, -1);
            code = check_up(&d);
        }
        leave_context(&d);
    }
    d.asked = true;
    stop(&d, &d.once);
    stop(&d, &d.worker);
    stop(&d, &d.coxd);
    stop(&d, &d.model);
    if (d.signal_fd > 0)
        close(d.signal_fd);
    if (d.inotify_fd > 0)
        close(d.inotify_fd);
    free(d.dir);
    cox_free(d.data);
    cox_free(d.grpc);
    cox_free(d.http);
    cox_free(d.previous);
    cox_free(d.simulated);
    return code;
}
