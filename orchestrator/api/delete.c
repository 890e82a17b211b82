/* DeleteTask: ended tasks only. The store forgets; what only the deleted task owned goes with a later sweep.
 */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

struct deletion {
    struct cox_op op;
    struct cox_hold hold;
    struct cox_fetch archive;
    struct cox_ask ask;
    cox_task_id task;
    struct cox_list in_deleting;
};

static void deletion_free(struct deletion *d)
{
    cox_list_remove(&d->in_deleting);
    cox_op_fini(&d->op);
    cox_free(d);
}

static void no_task(struct deletion *d)
{
    char text[COX_TASK_ID_TEXT_MAX];

    cox_task_id_format(d->task, text);
    cox_op_failf(&d->op, COX_RPC_NOT_FOUND, "NO_TASK", "no task %s", text);
}

static void on_deleted(struct cox_ask *ask, enum cox_err err, uint64_t id, struct cox_buf *bytes)
{
    struct deletion *d = COX_CONTAINER_OF(ask, struct deletion, ask);
    Coxswain__V1__DeleteTaskResponse answer = COXSWAIN__V1__DELETE_TASK_RESPONSE__INIT;
    char text[COX_TASK_ID_TEXT_MAX];

    (void)id, (void)bytes;
    cox_task_id_format(d->task, text);
    if (!err)
        cox_op_reply(&d->op, &answer.base);
    else if (err == COX_ERR_NOT_FOUND)
        no_task(d);
    else
        cox_op_failf(&d->op, COX_RPC_INTERNAL, "NOT_DELETED", "task %s cannot be deleted: %s", text,
                     cox_err_text(err));
    deletion_free(d);
}

/* True: it lives, and the call has failed. */
static bool refuse_live(struct deletion *d)
{
    const struct cox_task *t = cox_api_find(&d->op, d->task);
    struct cox_task_view v = { .status = COX_TASK_WAITING };
    char text[COX_TASK_ID_TEXT_MAX];

    if (t)
        cox_task_view(t, &v);
    if ((!t && !cox_api_has(&d->op, d->task)) || cox_task_status_final(v.status))
        return false;
    cox_task_id_format(d->task, text);
    cox_op_failf(&d->op, COX_RPC_FAILED_PRECONDITION, "NOT_ENDED",
                 "task %s has not ended: it is %s; end it first: cox task cancel %s", text,
                 cox_task_status_text(v.status), text);
    return true;
}

bool cox_api_deleting(const struct cox_api *a, cox_task_id task)
{
    COX_LIST_FOR_EACH (it, &a->deleting)
        if (COX_CONTAINER_OF(it, struct deletion, in_deleting)->task == task)
            return true;
    return false;
}

/* A retry or a fork may have its bytes by now: what it makes of them would be taken for what was deleted, and
 * go with its result; or refer to values that nobody owns. */
static bool refuse_reviving(struct deletion *d)
{
    char text[COX_TASK_ID_TEXT_MAX];

    if (!cox_api_reviving(d->op.api, d->task))
        return false;
    cox_task_id_format(d->task, text);
    cox_op_failf(&d->op, COX_RPC_ABORTED, "IN_USE", "task %s is being retried or forked; try again", text);
    return true;
}

/* Whose it is stands in the archive. What becomes of it meanwhile is seen by a second look. */
static void on_archive(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct deletion *d = COX_CONTAINER_OF(f, struct deletion, archive);
    struct cox_task *t = NULL;

    if (!err && (err = cox_api_thaw(&d->op, bytes, &t)) == COX_OK)
        cox_task_free(t);
    if (err == COX_ERR_NOT_FOUND && !COX_PLANTED("anybody-deletes"))
        no_task(d);
    else if (!refuse_live(d) && !refuse_reviving(d)) {
        cox_list_push_back(&d->op.api->deleting, &d->in_deleting);
        d->ask = (struct cox_ask){ .req = { .op = COX_STORE_DELETE, .id = d->task }, .fn = on_deleted };
        cox_driver_ask(d->op.api->driver, &d->ask);
        return;
    }
    deletion_free(d);
}

/* One that has ended just now is on its way to the archive by now, and the store keeps the order. */
static void on_durable(struct cox_hold *h)
{
    struct deletion *d = COX_CONTAINER_OF(h, struct deletion, hold);

    if (refuse_live(d)) {
        deletion_free(d);
        return;
    }
    d->archive = (struct cox_fetch){ .task = d->task, .fn = on_archive };
    cox_driver_fetch(d->op.api->driver, &d->archive);
}

static void on_gone(struct cox_op *op)
{
    (void)op;
}

void cox_api_delete_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__DeleteTaskRequest *m = (const Coxswain__V1__DeleteTaskRequest *)message;
    cox_task_id task = cox_api_task_id(call, m->id);
    struct cox_api *a = user;

    if (!task)
        return;
    struct deletion *d = COX_NEW(struct deletion);

    cox_op_init(&d->op, a, call);
    d->op.on_gone = on_gone;
    d->task = task;
    cox_list_init(&d->in_deleting);
    if (refuse_live(d))
        deletion_free(d);
    else
        cox_driver_hold(a->driver, &d->hold, on_durable);
}
