/* The router as a worker of the engine: steps of inference/ over a call of our own Attach, and over calls of
 * other services as a worker makes them. */
#include "internal.h"

#include "cox/base/alloc.h"

struct attach {
    struct cox_edge *edge;
    struct steps *steps;
    struct call *call; /* NULL: no stream */
    bool leaving;
    struct cox_list calls; /* struct steps_call */
};

struct steps_call {
    struct cox_list node;
    struct call *call;
    const struct steps_call_events *events;
    void *user;
};

/* ---- the stream ---- */

static void on_message(void *user, struct cox_slice packed)
{
    struct attach *a = user;

    call_taken(a->call, packed.len);
    steps_on_message(a->steps, packed);
}

static void on_read(void *user, size_t len)
{
    struct attach *a = user;

    steps_on_read(a->steps, len);
}

static void on_closed(void *user, const struct cox_rpc_error *status)
{
    struct attach *a = user;

    a->call = NULL;
    steps_on_closed(a->steps, status->status == COX_RPC_ABORTED);
    edge_mind_calls(a->edge);
}

static const struct call_events events = { on_message, on_read, on_closed };

static void port_open(void *user)
{
    struct attach *a = user;

    a->call = call_start_inside(a->edge, "/coxswain.v1.WorkerService/Attach", cox_slice(NULL, 0), &events, a);
}

static void port_send(void *user, struct cox_slice packed)
{
    struct attach *a = user;

    call_send(a->call, packed);
}

static void port_close(void *user)
{
    struct attach *a = user;

    call_half_close(a->call);
}

/* ---- calls of other services ---- */

static void steps_call_free(struct steps_call *c)
{
    cox_list_remove(&c->node);
    cox_free(c);
}

/* It may be dropped by who is told. */
static void on_call_message(void *user, struct cox_slice packed)
{
    struct steps_call *c = user;

    call_taken(c->call, packed.len);
    c->events->on_message(c->user, packed);
}

static void on_call_read(void *user, size_t len)
{
    struct steps_call *c = user;

    if (c->events->on_read)
        c->events->on_read(c->user, len);
}

static enum cox_code code_of(enum cox_rpc_status status)
{
    switch (status) {
    case COX_RPC_OK:
        return COX_CODE_NONE;
    case COX_RPC_NOT_FOUND:
    case COX_RPC_INVALID_ARGUMENT:
    case COX_RPC_DATA_LOSS:
        return COX_CODE_INPUT_INVALID;
    case COX_RPC_PERMISSION_DENIED:
        return COX_CODE_DENIED;
    default:
        return COX_CODE_UNAVAILABLE;
    }
}

static void on_call_closed(void *user, const struct cox_rpc_error *status)
{
    struct steps_call *c = user;
    const struct steps_call_events *told = c->events;
    void *who = c->user;

    steps_call_free(c);
    told->on_closed(who, code_of(status->status), status->message ? status->message : "");
}

static struct steps_call *port_call(void *user, const char *path, struct cox_slice tenant,
                                    const struct steps_call_events *told, void *who)
{
    static const struct call_events call_events = { on_call_message, on_call_read, on_call_closed };
    struct attach *a = user;
    struct steps_call *c = COX_NEW(struct steps_call);

    c->events = told;
    c->user = who;
    cox_list_push_back(&a->calls, &c->node);
    c->call = call_start_inside(a->edge, path, tenant, &call_events, c);
    return c;
}

static void port_call_send(struct steps_call *c, struct cox_slice packed)
{
    call_send(c->call, packed);
}

static void port_call_half_close(struct steps_call *c)
{
    call_half_close(c->call);
}

static void port_call_drop(struct steps_call *c)
{
    call_drop(c->call);
    steps_call_free(c);
}

/* ---- life ---- */

struct attach *attach_create(struct cox_edge *e, struct router *router, struct attempts *attempts)
{
    static const struct steps_port port = { .open = port_open,
                                            .send = port_send,
                                            .close = port_close,
                                            .call = port_call,
                                            .call_send = port_call_send,
                                            .call_half_close = port_call_half_close,
                                            .call_drop = port_call_drop };
    struct attach *a = COX_NEW(struct attach);

    a->edge = e;
    cox_list_init(&a->calls);
    a->steps = steps_create(&(struct steps_config){ .base = e->base,
                                                    .router = router,
                                                    .version = e->config.version,
                                                    .port = &port,
                                                    .port_user = a,
                                                    .attempts = attempts,
                                                    .drain_ms = e->config.drain_ms });
    return a;
}

void attach_shutdown(struct attach *a)
{
    a->leaving = true;
    steps_shutdown(a->steps);
}

bool attach_is_over(const struct attach *a)
{
    return a->leaving && !a->call;
}

void attach_on_spend(struct attach *a)
{
    steps_on_spend(a->steps);
}

void attach_destroy(struct attach *a)
{
    if (!a)
        return;
    steps_destroy(a->steps);
    COX_LIST_FOR_EACH (it, &a->calls)
        steps_call_free(COX_CONTAINER_OF(it, struct steps_call, node));
    cox_free(a);
}
