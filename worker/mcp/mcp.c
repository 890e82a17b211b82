#include "mcp.h"

#include "servers.h"

#include "../handlers/call_log.h"
#include "../handlers/run_spec.h"
#include "../wiped.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <string.h>

struct mcp_tool_call {
    struct call call;
    struct mcp_server *server; /* NULL: none (any more) */
    struct mcp_request request;
    bool asked;
    struct cox_buf tool, arguments;
    char traceparent[RUN_TRACEPARENT_MAX];
    struct call_log log;
    bool is_item;        /* of a map: there may be millions, and nothing is kept of their logs */
    uint64_t n_heard;    /* of the server, when it was asked */
    struct event *timer; /* over: told from the loop */
    struct outcome outcome;
};

static struct mcp_tool_call *call_of(struct call *call)
{
    return COX_CONTAINER_OF(call, struct mcp_tool_call, call);
}

/* ---------------------------------------------------------------- the end */

static void on_call_timer(evutil_socket_t fd, short what, void *arg)
{
    struct mcp_tool_call *c = arg;

    (void)fd;
    (void)what;
    call_log_end(&c->log);
    if (c->outcome.output.len == 0 && !c->is_item)
        call_log_keep(&c->log, &c->outcome);
    c->call.on_done(&c->call, &c->outcome);
}

static void let_go(struct mcp_tool_call *c)
{
    struct mcp_server *server = c->server;

    c->server = NULL;
    c->asked = false;
    if (server)
        mcp_server_release(server);
}

static void over(struct mcp_tool_call *c)
{
    let_go(c);
    event_active(c->timer, EV_TIMEOUT, 0);
}

static void on_answer(struct mcp_request *r, struct outcome *outcome)
{
    struct mcp_tool_call *c = r->user;

    c->outcome = *outcome;
    outcome_init(outcome);
    c->asked = false;
    over(c);
}

static void on_say(struct mcp_request *r, struct cox_slice text)
{
    struct mcp_tool_call *c = r->user;

    call_log_take(&c->log, text);
}

/* A server that has said nothing since it was asked may have fallen silent for good: the next call gets
 * another one, unless somebody still waits for this one. */
static void cancel(struct mcp_tool_call *c)
{
    struct mcp_client *client = mcp_server_client(c->server);
    bool was_ready = mcp_client_is_ready(client);
    bool silent = mcp_client_n_heard(client) == c->n_heard;

    mcp_client_cancel(client, &c->request);
    if (was_ready && silent && mcp_server_n_calls(c->server) == 1 && !COX_PLANTED("mcp-keeps-the-silent"))
        mcp_server_doom(c->server);
    let_go(c);
}

static void kill_call(struct call *call)
{
    struct mcp_tool_call *c = call_of(call);

    if (!c->asked)
        return;
    cancel(c);
    c->outcome.code = COX_CODE_UNAVAILABLE;
    outcome_say(&c->outcome, cox_slice_str("mcp: stopped"));
    event_active(c->timer, EV_TIMEOUT, 0);
}

static void destroy_call(struct call *call)
{
    struct mcp_tool_call *c = call_of(call);

    if (c->asked)
        cancel(c);
    event_free(c->timer);
    wiped_fini(&c->tool);
    wiped_fini(&c->arguments);
    call_log_fini(&c->log);
    outcome_fini(&c->outcome);
    cox_free(c);
}

/* ---------------------------------------------------------------- the beginning */

static bool refuse(struct mcp_tool_call *c, const char *what, const char *expected)
{
    c->outcome.code = COX_CODE_INPUT_INVALID;
    cox_buf_printf(&c->outcome.message, "%s: expected %s", what, expected);
    return false;
}

/* What is asked, copied: the spec does not outlive the start. */
static bool read_question(struct mcp_tool_call *c, struct cox_slice spec)
{
    struct cox_slice value, arguments = cox_slice_str("{}");

    if (cox_json_member(spec, "list", &value) && cox_slice_is(value, "true")) {
        c->request.what = MCP_LIST_TOOLS;
        return true;
    }
    if (!cox_json_member(spec, "tool", &value) || cox_json_kind(value) != COX_JSON_STRING || value.len <= 2)
        return refuse(c, "mcp.tool", "the name of one of the server's tools");
    if (cox_json_member(spec, "arguments", &arguments) && cox_json_kind(arguments) == COX_JSON_NULL)
        arguments = cox_slice_str("{}");
    if (cox_json_kind(arguments) != COX_JSON_OBJECT)
        return refuse(c, "mcp.arguments", "an object");
    c->request.what = MCP_CALL_TOOL;
    wiped_append(&c->tool, value);
    wiped_append(&c->arguments, arguments);
    c->request.tool = cox_buf_slice(&c->tool);
    c->request.arguments = cox_buf_slice(&c->arguments);
    return true;
}

static bool begin(struct mcp_tool_call *c, struct mcp *m, const struct call_args *args)
{
    struct cox_json_place place;
    struct cox_slice server;

    if (cox_json_check(args->spec, &place) != COX_OK || !cox_json_member(args->spec, "mcp", &server) ||
        cox_json_kind(server) != COX_JSON_OBJECT)
        return refuse(c, "mcp", "an object, the server");
    if (!read_question(c, args->spec))
        return false;
    run_spec_traceparent(args, c->traceparent);
    c->request.traceparent = cox_slice_str(c->traceparent);
    c->request.now_ms = cox_clock_mono_ns() / 1000000;
    c->request.on_done = on_answer;
    c->request.on_log = on_say;
    c->request.user = c;
    c->server = mcp_server_hold(m, args, server, &c->outcome);
    if (!c->server)
        return false;
    c->asked = true;
    c->n_heard = mcp_client_n_heard(mcp_server_client(c->server));
    mcp_client_ask(mcp_server_client(c->server), &c->request);
    return true;
}

struct call *mcp_call(struct mcp *m, const struct call_args *args,
                      void (*on_done)(struct call *call, struct outcome *outcome),
                      void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data),
                      void *user)
{
    static const struct call_ops ops = { .kill = kill_call, .destroy = destroy_call };
    struct mcp_tool_call *c = COX_NEW(struct mcp_tool_call);

    c->call =
        (struct call){ .ops = &ops, .host = mcp_host(m), .on_done = on_done, .on_log = on_log, .user = user };
    c->timer = evtimer_new(mcp_host(m)->base, on_call_timer, c);
    c->is_item = args->index != NULL;
    outcome_init(&c->outcome);
    call_log_begin(&c->log, &c->call, args->redactor);
    if (!begin(c, m, args))
        event_active(c->timer, EV_TIMEOUT, 0);
    return &c->call;
}
