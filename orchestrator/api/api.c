/* The table of services, and the api's own turn. */
#include "internal.h"

#include "cox/base/alloc.h"

#include "coxswain/v1/admin_service.pb-c.h"
#include "coxswain/v1/blob_service.pb-c.h"
#include "coxswain/v1/model_service.pb-c.h"
#include "coxswain/v1/schedule_service.pb-c.h"
#include "coxswain/v1/stats_service.pb-c.h"
#include "coxswain/v1/template_service.pb-c.h"
#include "externalscaler/externalscaler.pb-c.h"

#define METHOD(text, fn)                                                                                     \
    {                                                                                                        \
        text,                                                                                                \
        {                                                                                                    \
            .on_message = fn, .on_closed = cox_api_on_closed, .on_drained = cox_api_on_drained               \
        }                                                                                                    \
    }

static const struct cox_rpc_method task_methods[] = {
    METHOD("SubmitTask", cox_api_submit_task),
    METHOD("SubmitTasks", cox_api_submit_tasks),
    METHOD("GetTask", cox_api_get_task),
    METHOD("BatchGetTasks", cox_api_batch_get_tasks),
    METHOD("DescribeTask", cox_api_describe_task),
    METHOD("WatchTask", cox_api_watch_task),
    METHOD("GetOutput", cox_api_get_output),
    METHOD("GetLogs", cox_api_get_logs),
    METHOD("CancelTask", cox_api_cancel_task),
    METHOD("PauseTask", cox_api_pause_task),
    METHOD("ResumeTask", cox_api_resume_task),
    METHOD("SignalTask", cox_api_signal_task),
    METHOD("ApproveStep", cox_api_approve_step),
    METHOD("MessageTask", cox_api_message_task),
    METHOD("RetryTask", cox_api_retry_task),
    METHOD("ForkTask", cox_api_fork_task),
    METHOD("Explain", cox_api_explain),
    METHOD("ListTasks", cox_api_list_tasks),
    METHOD("DeleteTask", cox_api_delete_task),
    METHOD("CreateTaskToken", cox_api_create_task_token),
};

static const struct cox_rpc_method fleet_methods[] = {
    METHOD("ListWorkers", cox_api_list_workers),
    METHOD("DescribeWorker", cox_api_describe_worker),
    METHOD("CordonWorker", cox_api_cordon_worker),
    METHOD("DrainWorker", cox_api_drain_worker),
};

static const struct cox_rpc_method stats_methods[] = {
    METHOD("GetStats", cox_api_get_stats),
    METHOD("GetHistory", cox_api_get_history),
    METHOD("WatchStats", cox_api_watch_stats),
    METHOD("GetMetrics", cox_api_get_metrics),
};

static const struct cox_rpc_method scaler_methods[] = {
    METHOD("IsActive", cox_api_is_active),
    METHOD("StreamIsActive", cox_api_stream_is_active),
    METHOD("GetMetricSpec", cox_api_get_metric_spec),
    METHOD("GetMetrics", cox_api_get_scaler_metrics),
};

static const struct cox_rpc_method model_methods[] = {
    METHOD("ListModels", cox_api_list_models),
    METHOD("DescribeModel", cox_api_describe_model),
    METHOD("GetUsage", cox_api_get_usage),
};

static const struct cox_rpc_method admin_methods[] = { METHOD("Backup", cox_api_backup) };

static const struct cox_rpc_method blob_methods[] = {
    METHOD("GetBlob", cox_api_get_blob),
    { "PutBlob",
      { .on_message = cox_api_put_blob,
        .on_half_close = cox_api_put_blob_ended,
        .on_closed = cox_api_on_closed } },
};

static const struct cox_rpc_method template_methods[] = {
    METHOD("ApplyTemplate", cox_api_apply_template),
    METHOD("GetTemplate", cox_api_get_template),
    METHOD("ListTemplates", cox_api_list_templates),
    METHOD("DeleteTemplate", cox_api_delete_template),
};

static const struct cox_rpc_method schedule_methods[] = {
    METHOD("ApplySchedule", cox_api_apply_schedule),
    METHOD("GetSchedule", cox_api_get_schedule),
    METHOD("ListSchedules", cox_api_list_schedules),
    METHOD("DeleteSchedule", cox_api_delete_schedule),
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct cox_api *cox_api_create(void)
{
    struct cox_api *a = COX_NEW(struct cox_api);

    a->services[a->n_services++] = (struct cox_rpc_service){ &coxswain__v1__task_service__descriptor,
                                                             task_methods, COUNT(task_methods), a };
    a->services[a->n_services++] = (struct cox_rpc_service){ &coxswain__v1__fleet_service__descriptor,
                                                             fleet_methods, COUNT(fleet_methods), a };
    a->services[a->n_services++] = (struct cox_rpc_service){ &coxswain__v1__template_service__descriptor,
                                                             template_methods, COUNT(template_methods), a };
    a->services[a->n_services++] = (struct cox_rpc_service){ &coxswain__v1__schedule_service__descriptor,
                                                             schedule_methods, COUNT(schedule_methods), a };
    a->services[a->n_services++] = (struct cox_rpc_service){ &coxswain__v1__stats_service__descriptor,
                                                             stats_methods, COUNT(stats_methods), a };
    a->services[a->n_services++] = (struct cox_rpc_service){ &externalscaler__external_scaler__descriptor,
                                                             scaler_methods, COUNT(scaler_methods), a };
    a->services[a->n_services++] = (struct cox_rpc_service){ &coxswain__v1__blob_service__descriptor,
                                                             blob_methods, COUNT(blob_methods), a };
    a->services[a->n_services++] = (struct cox_rpc_service){ &coxswain__v1__admin_service__descriptor,
                                                             admin_methods, COUNT(admin_methods), a };
    a->services[a->n_services++] = (struct cox_rpc_service){ &coxswain__v1__model_service__descriptor,
                                                             model_methods, COUNT(model_methods), a };
    cox_list_init(&a->dirty);
    cox_list_init(&a->ops);
    cox_list_init(&a->reviving);
    cox_list_init(&a->deleting);
    return a;
}

void cox_api_destroy(struct cox_api *a)
{
    if (!a)
        return;
    cox_stats_stop(a);
    cox_watched_fini(a);
    cox_heap_fini(&a->waits);
    cox_free(a);
}

void cox_api_start(struct cox_api *a, struct cox_driver *d, struct cox_fleet *f, struct cox_access *access)
{
    a->access = access;
    a->driver = d;
    a->fleet = f;
    cox_stats_start(a);
}

const struct cox_rpc_service *cox_api_services(struct cox_api *a, size_t *ret_n)
{
    *ret_n = a->n_services;
    return a->services;
}

void cox_api_act(struct cox_api *a, const struct cox_action *action)
{
    (void)a;
    if (action->kind != COX_ACT_REPLY)
        return;
    struct cox_requested *q = (struct cox_requested *)(uintptr_t)action->u.reply.request;

    q->on_reply(q, &action->u.reply);
}

void cox_api_turn(struct cox_api *a)
{
    int64_t now_ns = cox_driver_now(a->driver).mono_ns;

    a->n_told = 0;
    while (cox_api_wake_ns(a) <= now_ns) {
        struct cox_op *op = COX_CONTAINER_OF(cox_heap_min(&a->waits), struct cox_op, wait);
        cox_op_unwait(op);
        op->on_time(op);
    }
    while (!cox_list_empty(&a->dirty)) {
        struct cox_watcher *w = COX_CONTAINER_OF(a->dirty.next, struct cox_watcher, dirty);
        cox_list_remove(&w->dirty);
        w->on_turn(w);
    }
}

int64_t cox_api_wake_ns(const struct cox_api *a)
{
    const struct cox_heap_node *first = cox_heap_min(&a->waits);

    return first ? (int64_t)first->key : INT64_MAX;
}

/* What is short-lived ends by itself; only what waits is told. */
void cox_api_drain(struct cox_api *a)
{
    struct cox_list ops;

    a->draining = true;
    cox_list_init(&ops);
    COX_LIST_FOR_EACH (it, &a->ops) {
        struct cox_op *op = COX_CONTAINER_OF(it, struct cox_op, node);
        if (!op->endless && !cox_heap_has(&op->wait))
            continue;
        cox_list_remove(it);
        cox_list_push_back(&ops, it);
    }
    while (!cox_list_empty(&ops)) {
        struct cox_op *op = COX_CONTAINER_OF(ops.next, struct cox_op, node);
        cox_op_fail(op, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                 .reason = "DRAINING",
                                                 .message = "the orchestrator is stopping",
                                                 .retry_delay_ms = 500 });
        op->on_gone(op);
    }
}
