/* The router as a worker of the engine: steps of inference/ over a call of our own Attach. */
#include "internal.h"

#include "cox/base/alloc.h"

struct attach {
    struct cox_edge *edge;
    struct steps *steps;
    struct call *call; /* NULL: no stream */
};

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
}

static const struct call_events events = { on_message, on_read, on_closed };

static void port_open(void *user)
{
    struct attach *a = user;

    a->call = call_start_inside(a->edge, "/coxswain.v1.WorkerService/Attach", &events, a);
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

struct attach *attach_create(struct cox_edge *e, struct router *router, struct attempts *attempts)
{
    static const struct steps_port port = { port_open, port_send, port_close };
    struct attach *a = COX_NEW(struct attach);

    a->edge = e;
    a->steps = steps_create(&(struct steps_config){ .base = e->base,
                                                    .router = router,
                                                    .version = e->config.version,
                                                    .port = &port,
                                                    .port_user = a,
                                                    .attempts = attempts });
    return a;
}

void attach_shutdown(struct attach *a)
{
    steps_shutdown(a->steps);
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
    cox_free(a);
}
