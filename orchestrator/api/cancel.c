/* CancelTask. A task that has left the engine has ended: the archive says how. */
#include "internal.h"

#include "cox/base/alloc.h"

struct cancel {
    struct cox_requested requested;
    struct cox_reading *reading; /* the call, and the way to the archive */
};

static void build_status(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t)
{
    Coxswain__V1__CancelTaskResponse *m = cox_arena_alloc(&r->arena, sizeof(*m));
    struct cox_task_view v;

    (void)e;
    cox_task_view(t, &v);
    coxswain__v1__cancel_task_response__init(m);
    m->status = (Coxswain__V1__TaskStatus)v.status;
    r->message = &m->base;
}

/* Whether it was cancelled now or has ended long ago: read where it is. */
static void on_reply(struct cox_requested *q, const struct cox_act_reply *reply)
{
    struct cancel *c = COX_CONTAINER_OF(q, struct cancel, requested);

    (void)reply;
    cox_reading_start(c->reading);
    cox_free(c);
}

void cox_api_cancel_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__CancelTaskRequest *m = (const Coxswain__V1__CancelTaskRequest *)message;
    struct cox_input in = { .kind = COX_IN_CANCEL };
    struct cox_api *a = user;

    in.u.cancel.reason = cox_slice_str(m->reason);
    if (in.u.cancel.reason.len > COX_ERROR_MESSAGE_LEN_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "REASON_TOO_LONG", "reason: %zu bytes, at most %u",
                      in.u.cancel.reason.len, COX_ERROR_MESSAGE_LEN_MAX);
        return;
    }
    struct cox_reading *r = cox_reading_create(a, call, m->id);

    if (!r)
        return;
    r->build = build_status;
    if (!cox_api_has(&r->op, r->task)) {
        cox_reading_start(r);
        return;
    }
    struct cancel *c = COX_NEW(struct cancel);

    c->reading = r;
    c->requested.on_reply = on_reply;
    in.u.cancel.request = (uintptr_t)&c->requested;
    in.u.cancel.task = r->task;
    cox_driver_step(a->driver, &in);
}
