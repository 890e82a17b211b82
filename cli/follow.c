#include "tree.h"

#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/wire.h"

#include <string.h>

#define EVENTS_MAX 256
#define TICK_MS 100
#define STEPS_TIMEOUT_MS 10000

/* A watch: a stream that is opened again where it broke off. */
struct watch {
    struct cli *cli;
    const char *id;
    bool events;
    uint64_t seq; /* of the last event */
    Coxswain__V1__Task *task;
    struct cli_progress progress;
    struct cli_outage outage;
    bool closed;
    struct cox_rpc_error *error; /* of the stream, once it is closed */
};

static void print_event(const Coxswain__V1__WatchTaskResponse *event)
{
    struct cox_buf json = { 0 };

    cox_wire_put_json(&json, &event->base);
    cox_put_u8(&json, '\n');
    fwrite(json.data, 1, json.len, stdout);
    fflush(stdout);
    cox_buf_fini(&json);
}

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__WatchTaskResponse *event = (const Coxswain__V1__WatchTaskResponse *)message;
    struct watch *w = user;

    (void)call;
    w->outage = (struct cli_outage){ 0 };
    if (event->seq > w->seq || event->reset)
        w->seq = event->seq;
    if (w->events)
        print_event(event);
    if (event->step)
        cli_progress_step(&w->progress, event->step);
    if (event->task) {
        if (w->task)
            protobuf_c_message_free_unpacked(&w->task->base, NULL);
        w->task = (Coxswain__V1__Task *)cli_copy(&event->task->base);
        cli_progress_task(&w->progress, w->task);
    }
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct watch *w = user;

    (void)call;
    w->closed = true;
    w->error = cox_rpc_error_copy(status);
}

static bool ended(const struct watch *w)
{
    return w->task && cli_task_ended(w->task);
}

/* One stream, until it ends, the task has ended, time is up or Ctrl-C. */
static enum cli_exit watch_once(struct watch *w, int64_t deadline_ns)
{
    static const struct cox_rpc_handlers handlers = { .on_message = on_message, .on_closed = on_closed };
    Coxswain__V1__WatchTaskRequest request = COXSWAIN__V1__WATCH_TASK_REQUEST__INIT;
    struct cox_rpc_call_config config = { .service = &coxswain__v1__task_service__descriptor,
                                          .method = "WatchTask",
                                          .handlers = &handlers,
                                          .user = w };
    struct cox_rpc_call *call = cox_rpc_call_start(w->cli->channel, &config);
    enum cli_exit code = CLI_OK;

    request.id = (char *)(uintptr_t)w->id;
    request.after_seq = w->seq;
    w->closed = false;
    if (cox_rpc_send(call, &request.base) == COX_OK)
        cox_rpc_half_close(call);
    while (!w->closed && !ended(w) && !code) {
        int64_t tick = w->cli->bar ? cox_clock_mono_ns() + TICK_MS * 1000000LL : COX_RPC_FOREVER;
        cox_rpc_loop_run_once(w->cli->loop, tick < deadline_ns ? tick : deadline_ns, EVENTS_MAX);
        cli_progress_draw(&w->progress);
        if (cli_interrupted())
            code = CLI_INTERRUPTED;
        else if (cox_clock_mono_ns() >= deadline_ns)
            code = CLI_TIMED_OUT;
    }
    if (!w->closed)
        cox_rpc_cancel(call, NULL);
    while (!w->closed)
        cox_rpc_loop_run_once(w->cli->loop, COX_RPC_FOREVER, EVENTS_MAX);
    return ended(w) ? CLI_OK : code;
}

/* What a server that stops or restarts looks like from here: the task goes on without it. */
static bool is_outage(const struct cox_rpc_error *error)
{
    switch (error->status) {
    case COX_RPC_OK:
    case COX_RPC_CANCELLED:
    case COX_RPC_UNKNOWN:
    case COX_RPC_ABORTED:
    case COX_RPC_UNAVAILABLE:
        return true;
    default:
        return error->retry_delay_ms > 0;
    }
}

static enum cli_exit watch(struct watch *w, int64_t deadline_ns)
{
    for (;;) {
        enum cli_exit code = watch_once(w, deadline_ns);
        if (!code && !ended(w)) {
            cli_progress_clear(&w->progress);
            code =
                is_outage(w->error) ? cli_outage_pause(w->cli, &w->outage, w->error) : cli_exit_of(w->error);
            if (code && code != CLI_INTERRUPTED)
                cli_print_error(w->cli, w->error);
        }
        cox_rpc_error_free(w->error);
        w->error = NULL;
        if (code || ended(w))
            return code;
    }
}

static enum cli_exit follow(struct watch *w, int64_t deadline_ns, Coxswain__V1__Task **ret_task)
{
    enum cli_exit code = watch(w, deadline_ns);

    if (w->progress.tree && code == CLI_OK) { /* the last picture stays */
        w->progress.drawn_ns = 0;
        cli_progress_draw(&w->progress);
        w->progress.tree_lines = 0;
    }
    cli_progress_clear(&w->progress);
    if (code == CLI_INTERRUPTED || code == CLI_TIMED_OUT)
        cli_note(w->cli,
                 "%s; the task goes on. Follow it: cox task watch %s   Where it is: cox explain %s   "
                 "End it: cox task cancel %s",
                 code == CLI_TIMED_OUT ? "time is up" : "interrupted", w->id, w->id, w->id);
    *ret_task = w->task;
    return code;
}

enum cli_exit cli_follow(struct cli *cli, const char *id, int64_t deadline_ns, bool events,
                         Coxswain__V1__Task **ret_task)
{
    struct watch w = { .cli = cli, .id = id, .events = events };

    cli_connect(cli);
    cli_progress_init(&w.progress, cli, id);
    return follow(&w, deadline_ns, ret_task);
}

/* What the tree begins with: events tell of changes only. */
static void read_steps(struct watch *w)
{
    Coxswain__V1__DescribeTaskRequest request = COXSWAIN__V1__DESCRIBE_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_rpc_error *error = NULL;

    request.id = (char *)(uintptr_t)w->id;
    if (cli_try(w->cli, &coxswain__v1__task_service__descriptor, "DescribeTask", &request.base, true,
                STEPS_TIMEOUT_MS, &response, &error) == CLI_OK) {
        const Coxswain__V1__DescribeTaskResponse *d = (const Coxswain__V1__DescribeTaskResponse *)response;
        for (size_t i = 0; i < d->n_steps; i++)
            cli_tree_update(w->progress.tree, d->steps[i]);
        protobuf_c_message_free_unpacked(response, NULL);
    }
    cox_rpc_error_free(error); /* following will say it */
}

enum cli_exit cli_follow_tree(struct cli *cli, const char *id, int64_t deadline_ns,
                              Coxswain__V1__Task **ret_task)
{
    struct watch w = { .cli = cli, .id = id };

    cli_connect(cli);
    cli_progress_init(&w.progress, cli, id);
    if (cli->bar) {
        w.progress.tree = cli_tree_create();
        read_steps(&w);
    }
    enum cli_exit code = follow(&w, deadline_ns, ret_task);

    cli_tree_destroy(w.progress.tree);
    return code;
}
