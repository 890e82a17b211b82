/* What is under way for a call, and its end, whichever side brings it. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <stdarg.h>
#include <stdio.h>

void cox_op_init(struct cox_op *op, struct cox_api *a, struct cox_rpc_call *call)
{
    const struct cox_caller *caller = cox_access_caller(call);

    op->api = a;
    op->call = call;
    snprintf(op->tenant, sizeof(op->tenant), "%s", caller->tenant);
    op->whole = caller->whole;
    cox_heap_node_init(&op->wait);
    cox_list_init(&op->node);
    cox_list_push_back(&a->ops, &op->node);
    cox_rpc_call_set_user(call, op);
}

void cox_op_wait(struct cox_op *op, int64_t until_mono_ns)
{
    cox_heap_set(&op->api->waits, &op->wait, (uint64_t)until_mono_ns);
}

void cox_op_unwait(struct cox_op *op)
{
    cox_heap_remove(&op->api->waits, &op->wait);
}

/* The call goes on without us: its on_closed finds no op. */
static struct cox_rpc_call *part(struct cox_op *op)
{
    struct cox_rpc_call *call = op->call;

    cox_op_unwait(op);
    cox_list_remove(&op->node);
    if (call)
        cox_rpc_call_set_user(call, NULL);
    op->call = NULL;
    return call;
}

void cox_op_fini(struct cox_op *op)
{
    part(op);
}

void cox_op_reply(struct cox_op *op, const ProtobufCMessage *message)
{
    struct cox_rpc_call *call = part(op);

    if (call)
        cox_rpc_reply(call, message);
}

void cox_op_finish(struct cox_op *op)
{
    struct cox_rpc_call *call = part(op);

    if (call)
        cox_rpc_finish(call);
}

void cox_op_fail(struct cox_op *op, const struct cox_rpc_error *error)
{
    struct cox_rpc_call *call = part(op);

    if (call)
        cox_rpc_fail(call, error);
}

size_t cox_api_vtext(char *text, size_t cap, const char *fmt, va_list args)
{
    size_t len = (size_t)vsnprintf(text, cap, fmt, args);

    if (len < cap)
        return len;
    for (len = cap - 1; len > 0 && ((uint8_t)text[len - 1] & 0xc0) == 0x80; len--)
        ;
    len -= len > 0 && (uint8_t)text[len - 1] >= 0xc0;
    text[len] = '\0';
    return len;
}

void cox_op_failf(struct cox_op *op, enum cox_rpc_status status, const char *reason, const char *fmt, ...)
{
    char text[COX_ERROR_MESSAGE_LEN_MAX];
    va_list args;

    va_start(args, fmt);
    (void)cox_api_vtext(text, sizeof(text), fmt, args);
    va_end(args);
    cox_op_fail(op, &(struct cox_rpc_error){ .status = status, .reason = reason, .message = text });
}

void cox_api_on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct cox_op *op = cox_rpc_call_user(call);

    (void)status, (void)user;
    if (!op)
        return;
    part(op);
    op->on_gone(op);
}

void cox_api_on_drained(struct cox_rpc_call *call, void *user)
{
    struct cox_op *op = cox_rpc_call_user(call);

    (void)user;
    if (op && op->on_room)
        op->on_room(op);
}

void cox_call_fail(struct cox_rpc_call *call, enum cox_rpc_status status, const char *reason, const char *fmt,
                   ...)
{
    char text[COX_ERROR_MESSAGE_LEN_MAX];
    va_list args;

    va_start(args, fmt);
    (void)cox_api_vtext(text, sizeof(text), fmt, args);
    va_end(args);
    cox_rpc_fail(call, &(struct cox_rpc_error){ .status = status, .reason = reason, .message = text });
}

static bool is_theirs(const struct cox_op *op, struct cox_slice tenant)
{
    return cox_slice_is(tenant, op->tenant) || (COX_PLANTED("any-tenants-task") && tenant.len > 0);
}

const struct cox_task *cox_api_find(const struct cox_op *op, cox_task_id task)
{
    const struct cox_task *t = cox_engine_find(cox_driver_engine(op->api->driver), task);

    return t && is_theirs(op, cox_task_tenant(t)) ? t : NULL;
}

bool cox_api_has(const struct cox_op *op, cox_task_id task)
{
    return is_theirs(op, cox_engine_tenant(cox_driver_engine(op->api->driver), task));
}

bool cox_api_wake(const struct cox_op *op, cox_task_id task, struct cox_requested *q)
{
    struct cox_input in = { .kind = COX_IN_WANT, .u.of = { (uintptr_t)q, task } };

    if (!cox_engine_asleep(cox_driver_engine(op->api->driver), task) || !cox_api_has(op, task))
        return false;
    cox_driver_step(op->api->driver, &in);
    return true;
}

enum cox_err cox_api_thaw(const struct cox_op *op, const struct cox_buf *bytes, struct cox_task **ret)
{
    enum cox_err err = cox_task_thaw(cox_buf_slice(bytes), ret);

    if (!err && !is_theirs(op, cox_task_tenant(*ret))) {
        cox_task_free(*ret);
        err = COX_ERR_NOT_FOUND;
    }
    return err;
}

cox_task_id cox_api_task_id(struct cox_rpc_call *call, const char *text)
{
    cox_task_id id;

    const cox_task_id only = cox_access_caller(call)->task;

    if (cox_task_id_parse(cox_slice_str(text), &id) == COX_OK &&
        (only == 0 || only == id || COX_PLANTED("task-token-any-task")))
        return id;
    if (*text == '\0')
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "NO_ID", "id: empty; expected one such as t0-00000k");
    else
        cox_call_fail(call, COX_RPC_NOT_FOUND, "NO_TASK", "no task %s", text);
    return 0;
}
