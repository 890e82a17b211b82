/* One read of one task: from the engine, held until that is durable, or from the archive; then the stored
 * values that the answer shows. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/engine/agent.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The caller has left; answers that are on their way still come to us, so the memory stays until then. */
static void on_gone(struct cox_op *op)
{
    (void)op;
}

struct cox_reading *cox_reading_create(struct cox_api *a, struct cox_rpc_call *call, const char *id)
{
    cox_task_id task = cox_api_task_id(call, id);

    if (!task)
        return NULL;
    struct cox_reading *r = COX_NEW(struct cox_reading);

    cox_op_init(&r->op, a, call);
    r->op.on_gone = on_gone;
    r->shown.arena = &r->arena;
    r->shown.durable_seq = cox_driver_durable_seq(a->driver);
    r->task = task;
    return r;
}

static void reading_free(struct cox_reading *r)
{
    cox_op_fini(&r->op);
    cox_arena_fini(&r->arena);
    cox_free(r);
}

void cox_reading_fail(struct cox_reading *r, enum cox_rpc_status status, const char *reason, const char *fmt,
                      ...)
{
    struct cox_rpc_error *error = cox_arena_alloc(&r->arena, sizeof(*error));
    char *text = cox_arena_alloc(&r->arena, COX_ERROR_MESSAGE_LEN_MAX);
    va_list args;

    va_start(args, fmt);
    (void)cox_api_vtext(text, COX_ERROR_MESSAGE_LEN_MAX, fmt, args);
    va_end(args);
    *error = (struct cox_rpc_error){ .status = status, .reason = reason, .message = text };
    r->error = error;
}

static void answer(struct cox_reading *r)
{
    if (r->error)
        cox_op_fail(&r->op, r->error);
    else
        cox_op_reply(&r->op, r->message);
    reading_free(r);
}

/* ---- stored values ---- */

static void on_value(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct cox_wanted *w = COX_CONTAINER_OF(f, struct cox_wanted, fetch);
    struct cox_reading *r = w->reading;

    if (err)
        cox_reading_fail(r, COX_RPC_DATA_LOSS, "VALUE_UNREADABLE", "a stored value cannot be read: %s",
                         cox_err_text(err));
    else if (w->ret_text)
        *w->ret_text = cox_arena_dup(&r->arena, bytes->data, bytes->len);
    else
        *w->ret_bytes =
            (ProtobufCBinaryData){ bytes->len, cox_arena_dup(&r->arena, bytes->data, bytes->len) };
    if (--r->n_missing == 0)
        r->then(r);
}

void cox_reading_fetch(struct cox_reading *r, void (*then)(struct cox_reading *r))
{
    r->then = then;
    for (struct cox_wanted *w = r->shown.wanted; w; w = w->next)
        r->n_missing++;
    if (r->n_missing == 0) {
        then(r);
        return;
    }
    for (struct cox_wanted *w = r->shown.wanted; w; w = w->next) {
        w->reading = r;
        w->fetch.space = cox_space_of(cox_slice_str(r->op.tenant));
        w->fetch.fn = on_value;
        cox_driver_fetch(r->op.api->driver, &w->fetch);
    }
}

/* ---- the task ---- */

static void on_durable(struct cox_hold *h)
{
    struct cox_reading *r = COX_CONTAINER_OF(h, struct cox_reading, hold);

    if (r->error || !r->op.call)
        answer(r);
    else
        cox_reading_fetch(r, answer);
}

bool cox_reading_ended(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t)
{
    struct cox_slice rest;

    r->ended = cox_engine_find_ended(e, t, r->step_name, &rest);
    if (!r->ended)
        return false;
    if (r->shown_name.len == 0)
        r->shown_name = r->step_name;
    r->step_name = rest;
    return true;
}

static void on_archive(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes);

/* Built with what is there; what remains is within a frame that the archive has. */
static void go_on(struct cox_reading *r)
{
    cox_task_id ended = r->ended;

    if (!ended || r->error || !r->op.call) {
        cox_driver_hold(r->op.api->driver, &r->hold, on_durable);
        return;
    }
    r->archive = (struct cox_fetch){ .task = ended, .fn = on_archive };
    cox_driver_fetch(r->op.api->driver, &r->archive);
}

static void on_archive(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct cox_reading *r = COX_CONTAINER_OF(f, struct cox_reading, archive);
    char id[COX_TASK_ID_TEXT_MAX];
    struct cox_task *task;

    r->ended = 0;
    cox_task_id_format(f->task, id);
    if (!err && (err = cox_api_thaw(&r->op, bytes, &task)) == COX_OK) {
        r->build(r, NULL, task);
        cox_task_free(task);
    }
    if (err == COX_ERR_NOT_FOUND)
        cox_reading_fail(r, COX_RPC_NOT_FOUND, "NO_TASK", "no task %s", id);
    else if (err)
        cox_reading_fail(r, COX_RPC_DATA_LOSS, "TASK_UNREADABLE", "task %s cannot be read: %s", id,
                         cox_err_text(err));
    go_on(r);
}

static void on_awake(struct cox_requested *q, const struct cox_act_reply *reply)
{
    (void)reply;
    cox_reading_start(COX_CONTAINER_OF(q, struct cox_reading, awake));
}

void cox_reading_start(struct cox_reading *r)
{
    struct cox_driver *d = r->op.api->driver;

    r->awake.on_reply = on_awake;
    if (cox_api_wake(&r->op, r->task, &r->awake))
        return;
    const struct cox_task *task = cox_api_find(&r->op, r->task);

    if (task) {
        r->build(r, cox_driver_engine(d), task);
        go_on(r);
    } else {
        r->archive.task = r->task;
        r->archive.fn = on_archive;
        cox_driver_fetch(d, &r->archive);
    }
}
