/* Both ends of a call. The edge's thread makes it and frees nothing that the engine's may still look at: its
 * last word is BYE, sent when CLOSED has come, and the engine's thread frees the call when it has heard that.
 */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <string.h>

#define TURN_MAX 1024 /* items a turn: the engine has other work too */

struct call {
    struct cox_edge *edge;
    char *path;
    char *peer;
    struct cox_tls_certificate *certificate;
    struct cox_rpc_metadata *metadata;
    size_t n_metadata;
    call_ask *ask;
    struct cox_buf question, answer;
    bool changes; /* its answer waits until it is durable */
    bool inside;  /* of coxd itself */

    struct cox_list node; /* edge's thread, with all below */
    const struct call_events *events;
    void *user;
    bool dropped;

    struct cox_rpc_call *rpc; /* engine's thread */
    bool closed;
    bool refused; /* its answer was too much: it is told so, in its place */
};

enum item_kind {
    ITEM_START,
    ITEM_SEND,
    ITEM_HALF_CLOSE,
    ITEM_TAKEN,
    ITEM_CANCEL,
    ITEM_BYE, /* to the engine */
    ITEM_MESSAGE,
    ITEM_READ,
    ITEM_CLOSED,
    ITEM_POST /* to the edge; of no call */
};

struct item {
    struct cox_list node; /* first: see lane.h */
    enum item_kind kind;
    struct call *call;
    struct cox_rpc_error *error;
    void (*fn)(struct cox_edge *e, void *arg);
    void *arg;
    size_t len;
    uint8_t data[];
};

static struct item *item_create(struct call *c, enum item_kind kind, struct cox_slice data)
{
    struct item *item = cox_alloc(sizeof(*item) + data.len);

    *item = (struct item){ .kind = kind, .call = c, .len = data.len };
    if (data.len > 0)
        memcpy(item->data, data.data, data.len);
    return item;
}

static void item_destroy(struct item *item)
{
    if (item->kind == ITEM_MESSAGE)
        atomic_fetch_sub(&item->call->edge->held_len, item->len);
    cox_rpc_error_free(item->error);
    cox_free(item);
}

static struct item *item_of(struct cox_list *node)
{
    return node ? COX_CONTAINER_OF(node, struct item, node) : NULL;
}

static void call_destroy(struct call *c)
{
    for (size_t i = 0; i < c->n_metadata; i++) {
        cox_free((char *)(uintptr_t)c->metadata[i].key);
        cox_free((char *)(uintptr_t)c->metadata[i].value);
    }
    cox_free(c->metadata);
    cox_free(c->path);
    cox_free(c->peer);
    cox_free(c->certificate);
    cox_buf_fini(&c->question);
    cox_buf_fini(&c->answer);
    cox_free(c);
}

const struct cox_rpc_error call_too_much = { .status = COX_RPC_RESOURCE_EXHAUSTED,
                                             .message = "too many large requests and answers at once",
                                             .reason = "TOO_MUCH_HELD",
                                             .retry_delay_ms = 1000 };

/* ---- the edge's thread ---- */

static void tell(struct call *c, enum item_kind kind, struct cox_slice data)
{
    lane_push(&c->edge->to_engine, &item_create(c, kind, data)->node);
}

static struct call *call_create(struct cox_edge *e, const struct call_events *events, void *user)
{
    struct call *c = COX_NEW(struct call);

    c->edge = e;
    c->events = events;
    c->user = user;
    cox_list_push_back(&e->calls, &c->node);
    return c;
}

struct call *call_start(struct cox_edge *e, const char *path, const struct cox_rpc_metadata *metadata,
                        size_t n_metadata, const char *peer, struct cox_tls_certificate *certificate,
                        const struct call_events *events, void *user)
{
    struct call *c = call_create(e, events, user);

    c->path = cox_strdup(path);
    c->peer = cox_strdup(peer);
    c->certificate = certificate;
    c->metadata = cox_calloc(n_metadata + 1, sizeof(*c->metadata));
    for (; c->n_metadata < n_metadata; c->n_metadata++)
        c->metadata[c->n_metadata] = (struct cox_rpc_metadata){ cox_strdup(metadata[c->n_metadata].key),
                                                                cox_strdup(metadata[c->n_metadata].value) };
    tell(c, ITEM_START, cox_slice(NULL, 0));
    return c;
}

struct call *call_start_inside(struct cox_edge *e, const char *path, struct cox_slice tenant,
                               const struct call_events *events, void *user)
{
    struct call *c = call_create(e, events, user);

    c->path = cox_strdup(path);
    if (tenant.len > 0) {
        c->metadata = cox_calloc(1, sizeof(*c->metadata));
        c->metadata[c->n_metadata++] =
            (struct cox_rpc_metadata){ cox_strdup("cox-tenant"),
                                       cox_strndup((const char *)tenant.data, tenant.len) };
    }
    c->peer = cox_strdup(COX_RPC_PEER_INSIDE);
    c->inside = true;
    tell(c, ITEM_START, cox_slice(NULL, 0));
    return c;
}

static struct call *start_ask(struct cox_edge *e, call_ask *ask, bool changes, struct cox_slice question,
                              const struct call_events *events, void *user)
{
    struct call *c = call_create(e, events, user);

    c->ask = ask;
    c->changes = changes;
    cox_buf_append_slice(&c->question, question);
    tell(c, ITEM_START, cox_slice(NULL, 0));
    return c;
}

struct call *call_start_ask(struct cox_edge *e, call_ask *ask, struct cox_slice question,
                            const struct call_events *events, void *user)
{
    return start_ask(e, ask, false, question, events, user);
}

struct call *call_start_change(struct cox_edge *e, call_ask *ask, struct cox_slice question,
                               const struct call_events *events, void *user)
{
    return start_ask(e, ask, true, question, events, user);
}

void call_send(struct call *c, struct cox_slice packed)
{
    tell(c, ITEM_SEND, packed);
}

void call_half_close(struct call *c)
{
    tell(c, ITEM_HALF_CLOSE, cox_slice(NULL, 0));
}

void call_taken(struct call *c, size_t len)
{
    struct item *item = item_create(c, ITEM_TAKEN, cox_slice(NULL, 0));

    item->len = len;
    lane_push(&c->edge->to_engine, &item->node);
}

void call_drop(struct call *c)
{
    c->dropped = true;
    tell(c, ITEM_CANCEL, cox_slice(NULL, 0));
}

static void take_answer(struct item *item)
{
    struct call *c = item->call;

    if (item->kind == ITEM_CLOSED) {
        cox_list_remove(&c->node);
        if (!c->dropped)
            c->events->on_closed(c->user, item->error);
        tell(c, ITEM_BYE, cox_slice(NULL, 0));
    } else if (!c->dropped && item->kind == ITEM_MESSAGE) {
        c->events->on_message(c->user, cox_slice(item->data, item->len));
    } else if (!c->dropped && c->events->on_read) {
        c->events->on_read(c->user, item->len);
    }
    item_destroy(item);
}

void call_edge_turn(struct cox_edge *e)
{
    struct item *item;

    lane_flush(&e->to_engine);
    while ((item = item_of(lane_pop(&e->to_edge)))) {
        if (item->kind != ITEM_POST) {
            take_answer(item);
            continue;
        }
        item->fn(e, item->arg);
        item_destroy(item);
    }
}

/* ---- the engine's thread ---- */

static void report(struct call *c, enum item_kind kind, struct cox_slice data)
{
    lane_push(&c->edge->to_edge, &item_create(c, kind, data)->node);
}

static void report_closed(struct call *c, const struct cox_rpc_error *status)
{
    struct item *item = item_create(c, ITEM_CLOSED, cox_slice(NULL, 0));

    c->closed = true;
    c->rpc = NULL;
    item->error = cox_rpc_error_copy(status);
    lane_push(&c->edge->to_edge, &item->node);
}

static void report_message(struct call *c, struct cox_slice packed)
{
    atomic_fetch_add(&c->edge->held_len, packed.len);
    report(c, ITEM_MESSAGE, packed);
}

/* A stream's reader bounds what is under way to it. Whole answers are bounded together: readers of large ones
 * may be many, and slow. */
static void on_message(void *user, struct cox_slice packed)
{
    struct call *c = user;

    if (packed.len <= COX_HTTP_OUTBOX_LEN_MAX || c->inside || COX_PLANTED("answers-unbounded") ||
        atomic_load(&c->edge->held_len) + packed.len <= COX_HTTP_HELD_LEN_MAX) {
        report_message(c, packed);
        return;
    }
    c->refused = true;
    cox_rpc_local_cancel(c->rpc);
}

static void on_read(void *user, size_t len)
{
    struct call *c = user;
    struct item *item = item_create(c, ITEM_READ, cox_slice(NULL, 0));

    item->len = len;
    lane_push(&c->edge->to_edge, &item->node);
}

static void on_closed(void *user, const struct cox_rpc_error *status)
{
    struct call *c = user;

    report_closed(c, c->refused ? &call_too_much : status);
}

static void say_changed(void *arg)
{
    struct call *c = arg;

    report_message(c, cox_buf_slice(&c->answer));
    report_closed(c, &(struct cox_rpc_error){ .status = COX_RPC_OK });
}

static void run_ask(struct call *c)
{
    const struct cox_edge_config *config = &c->edge->config;
    bool ok = true;

    c->ask(c->edge, cox_buf_slice(&c->question), &c->answer, &ok);
    if (ok && c->changes && config->when_durable && !COX_PLANTED("call-before-its-promise")) {
        config->when_durable(config->user, say_changed, c);
        return;
    }
    if (ok)
        report_message(c, cox_buf_slice(&c->answer));
    report_closed(c, &(struct cox_rpc_error){ .status = ok ? COX_RPC_OK : COX_RPC_UNAVAILABLE,
                                              .message = ok ? NULL : cox_buf_cstr(&c->answer),
                                              .reason = ok ? NULL : "NOT_READY" });
}

static void start(struct call *c)
{
    static const struct cox_rpc_local_callbacks callbacks = { on_message, on_read, on_closed };

    if (c->ask) {
        run_ask(c);
        return;
    }
    if (!c->edge->rpc) {
        report_closed(c, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                  .message = "the orchestrator is not serving",
                                                  .reason = "NOT_SERVING",
                                                  .retry_delay_ms = 1000 });
        return;
    }
    c->rpc = cox_rpc_local_start(
        c->edge->rpc, &(struct cox_rpc_local_config){ .path = c->path,
                                                      .metadata = c->metadata,
                                                      .n_metadata = c->n_metadata,
                                                      .peer = c->peer,
                                                      .certificate = c->certificate,
                                                      .deadline_ns = COX_RPC_FOREVER,
                                                      .outbox_len_max = c->inside ? COX_OUTBOX_LEN_MAX
                                                                                  : COX_HTTP_OUTBOX_LEN_MAX,
                                                      .callbacks = &callbacks,
                                                      .user = c });
}

static void obey(struct item *item)
{
    struct call *c = item->call;

    if (item->kind == ITEM_START)
        start(c);
    else if (item->kind == ITEM_BYE)
        call_destroy(c);
    else if (!c->rpc)
        ; /* it has ended, and the edge will hear of it */
    else if (item->kind == ITEM_SEND)
        cox_rpc_local_send(c->rpc, cox_slice(item->data, item->len));
    else if (item->kind == ITEM_HALF_CLOSE)
        cox_rpc_local_half_close(c->rpc);
    else if (item->kind == ITEM_TAKEN)
        cox_rpc_local_taken(c->rpc, item->len);
    else if (item->kind == ITEM_CANCEL)
        cox_rpc_local_cancel(c->rpc);
    item_destroy(item);
}

void call_engine_turn(struct cox_edge *e)
{
    struct item *item;

    lane_flush(&e->to_edge);
    for (int n = 0; n < TURN_MAX; n++) {
        item = item_of(lane_pop(&e->to_engine));
        if (!item)
            return;
        obey(item);
    }
    edge_wake_engine(e); /* there may be more, and nobody else would say so */
}

void call_post(struct cox_edge *e, void (*fn)(struct cox_edge *e, void *arg), void *arg)
{
    struct item *item = item_create(NULL, ITEM_POST, cox_slice(NULL, 0));

    item->fn = fn;
    item->arg = arg;
    lane_push(&e->to_edge, &item->node);
}

/* ---- the end ---- */

static void drop_lane(struct cox_edge *e, struct lane *l)
{
    struct item *item;

    do {
        lane_flush(l);
        while ((item = item_of(lane_pop(l)))) {
            if (item->kind == ITEM_BYE)
                call_destroy(item->call);
            else if (item->kind == ITEM_POST)
                item->fn(e, item->arg); /* frees what it was given */
            item_destroy(item);
        }
    } while (!cox_list_empty(&l->backlog));
}

/* A call is in the list until CLOSED has been taken, and under way as BYE after that. */
void call_fini(struct cox_edge *e)
{
    drop_lane(e, &e->to_edge);
    drop_lane(e, &e->to_engine);
    COX_LIST_FOR_EACH (it, &e->calls) {
        cox_list_remove(it);
        call_destroy(COX_CONTAINER_OF(it, struct call, node));
    }
}
