#include "session.h"

#include "token.h"

#include "cox/attach.h"
#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/units.h"
#include "cox/tls.h"

#include <stdatomic.h>
#include <string.h>

#define EVENTS_MAX 256             /* a turn: then results and credit leave */
#define ROOM_LEN ((size_t)4 << 20) /* results a message, at most, and bytes waiting in the outbox */
#define FAREWELL_MS 1000           /* for the last messages to leave */
#define DIAGNOSE_MS 500
#define DIAGNOSE_EVERY_NS (60 * INT64_C(1000000000))
#define LOGS_CAP (4 * SLOTS_LOGS_MAX) /* more than the slots have under way, but for ends of cut logs */

struct session {
    struct cox_rpc_loop *loop;
    struct slots *slots;
    struct session_config config;
    struct cox_agent *agent;
    struct cox_agent_actions actions;
    struct cox_arena arena; /* of the message that is being made */
    struct cox_rpc_channel *channel;
    struct cox_rpc_call *call; /* NULL: no stream */
    const char *address;
    struct slots_reply *logs[LOGS_CAP]; /* to be sent */
    size_t n_logs;
    struct workspaces_use said; /* of workspaces, on this stream */
    uint64_t announced;         /* the catalogue's generation in the last Hello */
    bool attached;              /* ever */
    bool welcomed;              /* on this stream */
    bool dialled;               /* in the last turn: Hello waits for the next */
    bool stirred;               /* something has come since the last turn */
    bool renewing;              /* leaves the stream to say Hello anew */
    bool shutdown;
    bool left;
};

static void act(struct session *s);

static void feed(struct session *s, struct cox_agent_input *in)
{
    in->now_mono_ns = cox_clock_mono_ns();
    s->stirred = true;
    cox_agent_step(s->agent, in, &s->actions);
    if (in->kind != COX_AGENT_TURN)
        act(s);
}

/* ---------------------------------------------------------------- from the orchestrator */

static void feed_kind(struct session *s, enum cox_agent_input_kind kind)
{
    feed(s, &(struct cox_agent_input){ .kind = kind });
}

static void feed_from(void *user, struct cox_agent_input *in)
{
    feed(user, in);
}

static void on_welcome(struct session *s)
{
    cox_log(COX_LOG_INFO, "attached", "orchestrator", s->address, "worker", s->config.worker_id, NULL);
    if (!s->attached && s->config.on_attached)
        s->config.on_attached(s->config.user);
    s->attached = true;
    s->welcomed = true;
}

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct session *s = user;
    const Coxswain__V1__AttachResponse *m = (const Coxswain__V1__AttachResponse *)message;

    if (!cox_attach_named(m)) {
        cox_rpc_cancel(call, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                                      .message = "an attempt without ref and token" });
        return;
    }
    if (m->welcome)
        slots_aim(s->slots, s->address, m->welcome->session_key, m->welcome->models_url);
    cox_attach_read(m, feed_from, s);
    if (m->welcome)
        on_welcome(s);
    for (size_t i = 0; i < m->n_released; i++)
        slots_release(s->slots, cox_slice_str(m->released[i]));
}

static void forget_logs(struct session *s)
{
    for (size_t i = 0; i < s->n_logs; i++)
        slots_reply_free(s->slots, s->logs[i]);
    s->n_logs = 0;
}

/* Whether it is worth the time to look for what is wrong with TLS: the loop stands still meanwhile, of all
 * sessions in this process. */
static bool may_diagnose(const struct session *s, const struct cox_rpc_error *status)
{
    static atomic_llong last_ns;
    int64_t now_ns = cox_clock_mono_ns();

    if (status->status != COX_RPC_UNAVAILABLE || s->welcomed ||
        (status->message && strstr(status->message, "refused")))
        return false;
    if (atomic_load(&last_ns) && now_ns - atomic_load(&last_ns) < DIAGNOSE_EVERY_NS)
        return false;
    atomic_store(&last_ns, now_ns);
    return true;
}

static void say_closed(struct session *s, const struct cox_rpc_error *status)
{
    struct cox_buf why = { 0 };

    if (may_diagnose(s, status))
        (void)cox_tls_diagnose(s->address, s->config.tls, DIAGNOSE_MS, &why);
    cox_log(COX_LOG_WARN, s->welcomed ? "detached" : "cannot attach", "orchestrator", s->address, "status",
            cox_rpc_status_text(status->status), "message", status->message ? status->message : "",
            why.len > 0 ? "why" : NULL, cox_buf_cstr(&why), NULL);
    cox_buf_fini(&why);
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct session *s = user;

    (void)call;
    if (!s->left && !s->renewing)
        say_closed(s, status);
    s->call = NULL;
    s->renewing = false;
    s->welcomed = false;
    forget_logs(s);
    feed(s, &(struct cox_agent_input){ .kind = COX_AGENT_STREAM_CLOSED,
                                       .u.closed.superseded = status->status == COX_RPC_ABORTED });
}

static const struct cox_rpc_handlers handlers = { .on_message = on_message, .on_closed = on_closed };

/* ---------------------------------------------------------------- the agent's wishes */

static void dial(struct session *s, uint32_t address)
{
    cox_rpc_channel_destroy(s->channel);
    s->address = s->config.addresses[address];
    slots_aim(s->slots, s->address, "", "");
    char *authorization = token_authorization(s->config.token_file);
    const struct cox_rpc_metadata metadata = { "authorization", authorization };

    s->channel = cox_rpc_channel_create(
        s->loop, &(struct cox_rpc_channel_config){ .target = s->address,
                                                   .own_connection = true,
                                                   .tls = s->config.tls,
                                                   .metadata = &metadata,
                                                   .n_metadata = authorization != NULL });
    cox_free(authorization);
    s->call = cox_rpc_call_start(
        s->channel, &(struct cox_rpc_call_config){ .service = &coxswain__v1__worker_service__descriptor,
                                                   .method = "Attach",
                                                   .handlers = &handlers,
                                                   .user = s });
    cox_agent_step(
        s->agent,
        &(struct cox_agent_input){ .now_mono_ns = cox_clock_mono_ns(), .kind = COX_AGENT_STREAM_OPEN },
        &s->actions);
    s->dialled = true;
}

/* Does what cannot wait for the turn's end. Actions that send exist only at that end. */
static void act(struct session *s)
{
    for (size_t i = 0; i < s->actions.len; i++) {
        const struct cox_agent_action *action = &s->actions.items[i];

        if (action->kind == COX_AGENT_START)
            slots_start(s->slots, action->slot, action->u.assign);
        else if (action->kind == COX_AGENT_KILL)
            slots_kill(s->slots, action->slot);
        else if (action->kind == COX_AGENT_LOG)
            slots_log(s->slots, action->slot, action->wanted);
    }
    s->actions.len = 0;
}

static bool says_hello(const struct session *s)
{
    for (size_t i = 0; i < s->actions.len; i++)
        if (s->actions.items[i].kind == COX_AGENT_SEND_HELLO)
            return true;
    return false;
}

static struct cox_attach_who who(struct session *s, const struct catalogue_view *programs)
{
    const struct session_config *c = &s->config;
    size_t n = programs ? programs->n : 0;
    struct cox_attach_program *offered = cox_arena_alloc(&s->arena, (n + 1) * sizeof(*offered));

    for (size_t i = 0; i < n; i++) {
        const struct program *p = programs->items[i];

        offered[i] = (struct cox_attach_program){ p->handler,
                                                  p->name,
                                                  p->version,
                                                  p->description,
                                                  cox_buf_slice(&p->input_schema),
                                                  cox_buf_slice(&p->output_schema),
                                                  p->idempotent };
    }
    return (struct cox_attach_who){ .worker_id = c->worker_id,
                                    .boot_id = c->boot_id,
                                    .version = c->version,
                                    .slots = c->agent.slots,
                                    .resources = c->agent.resources,
                                    .labels = c->labels,
                                    .n_labels = c->n_labels,
                                    .handlers = c->handlers,
                                    .n_handlers = c->n_handlers,
                                    .programs = offered,
                                    .n_programs = n };
}

static Coxswain__V1__AttachRequest *make_message(struct session *s, const struct catalogue_view *programs)
{
    const struct cox_attach_who said = who(s, programs);
    struct cox_attach_log *logs = cox_arena_alloc(&s->arena, (s->n_logs + 1) * sizeof(*logs));

    for (size_t i = 0; i < s->n_logs; i++)
        logs[i] = (struct cox_attach_log){ s->logs[i]->ref, (Coxswain__V1__LogStream)s->logs[i]->stream,
                                           cox_buf_slice(&s->logs[i]->bytes), s->logs[i]->dropped };
    return cox_attach_pack(
        &s->arena, &said,
        &(struct cox_attach_turn){
            .acts = s->actions.items, .n_acts = s->actions.len, .logs = logs, .n_logs = s->n_logs });
}

/* With the next message that goes anyway: a beat, at the latest. */
static void say_workspaces(struct session *s, Coxswain__V1__AttachRequest *m)
{
    struct workspaces_use now;

    slots_workspaces(s->slots, &now);
    if (now.n == s->said.n && now.n_unsaved == s->said.n_unsaved && now.len == s->said.len)
        return;
    s->said = now;
    m->workspaces = cox_arena_alloc(&s->arena, sizeof(*m->workspaces));
    coxswain__v1__workspace_use__init(m->workspaces);
    m->workspaces->count = now.n;
    m->workspaces->bytes = now.len;
    m->workspaces->unsaved = now.n_unsaved;
}

static void send_all(struct session *s)
{
    struct catalogue_view *programs =
        s->config.catalogue && says_hello(s) ? catalogue_view(s->config.catalogue) : NULL;
    Coxswain__V1__AttachRequest *m = make_message(s, programs);

    if (m && says_hello(s))
        s->said = (struct workspaces_use){ 0 };
    if (m)
        say_workspaces(s, m);
    /* What the agent says goes out or the stream is lost: a peer that does not read loses it. */
    if (m && s->call && cox_rpc_send(s->call, &m->base) == COX_ERR_FULL)
        cox_rpc_cancel(s->call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                         .message = "the orchestrator does not read" });
    if (programs)
        s->announced = programs->generation;
    catalogue_view_free(programs);
    cox_arena_reset(&s->arena);
    forget_logs(s);
}

/* Hello is the only place to say what is offered: a catalogue that has changed needs a new one. */
static void mind_catalogue(struct session *s)
{
    if (!s->welcomed || s->renewing || !s->config.catalogue ||
        catalogue_generation(s->config.catalogue) == s->announced)
        return;
    cox_log(COX_LOG_INFO, "programs have changed: attaching anew to say so", NULL);
    s->renewing = true;
    feed_kind(s, COX_AGENT_RECONNECT);
}

/* The rest of a turn's actions. Each may change the agent, so they are copied first: there are at most two.
 */
static void steer(struct session *s)
{
    struct cox_agent_action wishes[2];
    size_t n = 0;

    for (size_t i = 0; i < s->actions.len && n < 2; i++)
        if (s->actions.items[i].kind >= COX_AGENT_DIAL)
            wishes[n++] = s->actions.items[i];
    act(s);
    for (size_t i = 0; i < n; i++) {
        if (wishes[i].kind == COX_AGENT_DIAL) {
            dial(s, wishes[i].address);
        } else if (wishes[i].kind == COX_AGENT_HANG_UP) {
            if (!s->renewing)
                cox_log(COX_LOG_WARN, "leaving the stream", "why", wishes[i].u.why, NULL);
            cox_rpc_cancel(s->call, NULL);
        } else {
            cox_log(COX_LOG_INFO, "exiting", "why", wishes[i].u.why, NULL);
            s->left = true;
        }
    }
}

/* ---------------------------------------------------------------- from the slots */

static void keep_log(struct session *s, struct slots_reply *reply)
{
    if (!s->welcomed || s->n_logs == LOGS_CAP)
        slots_reply_free(s->slots, reply);
    else
        s->logs[s->n_logs++] = reply;
}

static void take_replies(struct session *s)
{
    struct slots_reply *reply;

    while ((reply = slots_take(s->slots)) != NULL) {
        if (reply->kind == SLOTS_LOG) {
            keep_log(s, reply);
            continue;
        }
        if (reply->kind == SLOTS_ENDED)
            feed(s, &(struct cox_agent_input){ .kind = COX_AGENT_SLOT_ENDED,
                                               .u.ended = { reply->slot, reply->result } });
        else
            s->shutdown = true;
        slots_reply_free(s->slots, reply);
    }
    if (s->shutdown)
        feed_kind(s, COX_AGENT_SHUTDOWN);
    s->shutdown = false;
}

/* ---------------------------------------------------------------- turns */

static bool wants_log_end(const struct session *s)
{
    for (size_t i = 0; i < s->actions.len; i++)
        if (s->actions.items[i].kind == COX_AGENT_SEND_LOG_END)
            return true;
    return false;
}

static void end_turn(struct session *s)
{
    size_t waiting = s->call ? cox_rpc_outbox_len(s->call) : 0;
    struct slots_reply *held[LOGS_CAP];
    size_t n_held = 0;

    feed(s, &(struct cox_agent_input){ .kind = COX_AGENT_TURN,
                                       .u.turn.room_len = waiting < ROOM_LEN ? ROOM_LEN - waiting : 0 });
    if (s->call && waiting >= ROOM_LEN && !wants_log_end(s)) { /* logs wait for room, the slots for logs */
        for (; n_held < s->n_logs; n_held++)
            held[n_held] = s->logs[n_held];
        s->n_logs = 0;
    }
    send_all(s);
    for (; s->n_logs < n_held; s->n_logs++)
        s->logs[s->n_logs] = held[s->n_logs];
    steer(s);
}

int64_t session_wake_ns(const struct session *s)
{
    return s->dialled || s->stirred ? 0 : cox_agent_wake_ns(s->agent);
}

bool session_after(struct session *s)
{
    s->dialled = false;
    take_replies(s);
    mind_catalogue(s);
    end_turn(s);
    s->stirred = false;
    return !s->left;
}

enum session_state session_state(const struct session *s)
{
    if (!s->call)
        return SESSION_APART;
    return s->welcomed ? SESSION_ATTACHED : SESSION_DIALLING;
}

bool session_turn(struct session *s, int64_t until_mono_ns)
{
    int64_t wake_ns = session_wake_ns(s);

    cox_rpc_loop_run_once(s->loop, wake_ns < until_mono_ns ? wake_ns : until_mono_ns, EVENTS_MAX);
    return session_after(s);
}

void session_shutdown(struct session *s)
{
    s->shutdown = true;
}

/* ---------------------------------------------------------------- life */

struct session *session_create(struct cox_rpc_loop *loop, struct slots *slots,
                               const struct session_config *config)
{
    struct session *s = COX_NEW(struct session);

    s->loop = loop;
    s->slots = slots;
    s->config = *config;
    s->agent = cox_agent_create(&config->agent);
    return s;
}

void session_destroy(struct session *s)
{
    int64_t deadline_ns = cox_clock_mono_ns() + FAREWELL_MS * INT64_C(1000000);

    if (!s)
        return;
    if (s->call)
        cox_rpc_half_close(s->call);
    while (s->call && cox_clock_mono_ns() < deadline_ns)
        cox_rpc_loop_run_once(s->loop, deadline_ns, EVENTS_MAX);
    s->left = true;
    cox_rpc_channel_destroy(s->channel);
    while (s->call)
        cox_rpc_loop_run_once(s->loop, COX_RPC_FOREVER, EVENTS_MAX);
    forget_logs(s);
    cox_agent_destroy(s->agent);
    cox_agent_actions_fini(&s->actions);
    cox_arena_fini(&s->arena);
    cox_free(s);
}
