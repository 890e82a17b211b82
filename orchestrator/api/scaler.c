/* KEDA's external scaler: as many workers as the steps that wait for one or run ask for. */
#include "internal.h"

#include "cox/base/alloc.h"

#include "externalscaler/externalscaler.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define METRIC "cox_steps"
#define STEPS_PER_WORKER 16
#define LOOK_NS 1000000000LL

static const char *metadata(const Externalscaler__ScaledObjectRef *ref, const char *key)
{
    for (size_t i = 0; ref && i < ref->n_scalermetadata; i++)
        if (strcmp(ref->scalermetadata[i]->key, key) == 0)
            return ref->scalermetadata[i]->value;
    return "";
}

static bool is_for(const char *wanted, struct cox_slice found)
{
    return *wanted == '\0' || cox_slice_is(found, wanted);
}

/* Steps that more workers would help, and those that are with one. Who waits for a gate, or for one worker,
 * is not helped by more of them. */
static uint64_t n_steps(const struct cox_api *a, const char *handler, const char *tenant)
{
    struct cox_queue_view v;
    uint64_t n = 0;

    for (size_t it = 0; cox_engine_next_queue(cox_driver_engine(a->driver), &it, &v);) {
        bool counts = v.reason == COX_REASON_NONE || v.reason == COX_REASON_NO_WORKER ||
                      v.reason == COX_REASON_NO_CAPACITY || v.reason == COX_REASON_VERSION;
        bool on_worker = !cox_slice_is(v.class, "model"); /* the router makes those */
        if (counts && on_worker && is_for(handler, v.class) && is_for(tenant, v.tenant))
            n += v.n;
    }
    return n;
}

/* Who is bound to tenants counts for the one of the call; another one has no steps that they could see. */
static const char *tenant_of(const struct cox_rpc_call *call, const Externalscaler__ScaledObjectRef *ref)
{
    const struct cox_caller *caller = cox_access_caller(call);
    const char *asked = metadata(ref, "tenant");

    if (caller->whole)
        return asked;
    return *asked == '\0' || strcmp(asked, caller->tenant) == 0 ? caller->tenant : " ";
}

static uint64_t n_steps_of(const struct cox_api *a, const struct cox_rpc_call *call,
                           const Externalscaler__ScaledObjectRef *ref)
{
    return n_steps(a, metadata(ref, "handler"), tenant_of(call, ref));
}

void cox_api_is_active(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    Externalscaler__IsActiveResponse answer = EXTERNALSCALER__IS_ACTIVE_RESPONSE__INIT;

    answer.result = n_steps_of(user, call, (const Externalscaler__ScaledObjectRef *)message) > 0;
    cox_rpc_reply(call, &answer.base);
}

void cox_api_get_metric_spec(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const char *text = metadata((const Externalscaler__ScaledObjectRef *)message, "stepsPerWorker");
    Externalscaler__GetMetricSpecResponse answer = EXTERNALSCALER__GET_METRIC_SPEC_RESPONSE__INIT;
    Externalscaler__MetricSpec spec = EXTERNALSCALER__METRIC_SPEC__INIT;
    Externalscaler__MetricSpec *specs[] = { &spec };
    char *end = NULL;
    double target = *text ? strtod(text, &end) : STEPS_PER_WORKER;

    (void)user;
    if (!(target > 0 && target <= 1e9) || (end && *end)) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_METADATA",
                      "scalerMetadata.stepsPerWorker: expected a number above 0, found \"%.64s\"", text);
        return;
    }
    spec.metricname = (char *)(uintptr_t)METRIC;
    spec.targetsize = target < 1 ? 1 : (int64_t)target;
    spec.targetsizefloat = target;
    answer.metricspecs = specs;
    answer.n_metricspecs = 1;
    cox_rpc_reply(call, &answer.base);
}

void cox_api_get_scaler_metrics(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Externalscaler__GetMetricsRequest *m = (const Externalscaler__GetMetricsRequest *)message;
    Externalscaler__GetMetricsResponse answer = EXTERNALSCALER__GET_METRICS_RESPONSE__INIT;
    Externalscaler__MetricValue value = EXTERNALSCALER__METRIC_VALUE__INIT;
    Externalscaler__MetricValue *values[] = { &value };
    uint64_t n = n_steps_of(user, call, m->scaledobjectref);

    if (*m->metricname && strcmp(m->metricname, METRIC) != 0) {
        cox_call_fail(call, COX_RPC_NOT_FOUND, "NO_METRIC", "metricName: no \"%.64s\"; expected %s",
                      m->metricname, METRIC);
        return;
    }
    value.metricname = (char *)(uintptr_t)METRIC;
    value.metricvalue = (int64_t)n;
    value.metricvaluefloat = (double)n;
    answer.metricvalues = values;
    answer.n_metricvalues = 1;
    cox_rpc_reply(call, &answer.base);
}

/* ---- told when it changes ---- */

struct activity_watch {
    struct cox_op op;
    char *handler, *tenant;
    bool told, active;
};

static void activity_look(struct cox_op *op)
{
    struct activity_watch *w = COX_CONTAINER_OF(op, struct activity_watch, op);
    Externalscaler__IsActiveResponse m = EXTERNALSCALER__IS_ACTIVE_RESPONSE__INIT;
    bool active = n_steps(op->api, w->handler, w->tenant) > 0;

    cox_op_wait(op, cox_driver_now(op->api->driver).mono_ns + LOOK_NS);
    if (w->told && w->active == active)
        return;
    m.result = active;
    if (cox_rpc_send(op->call, &m.base) != COX_OK)
        return; /* asked again at the next look */
    w->told = true;
    w->active = active;
}

static void activity_gone(struct cox_op *op)
{
    struct activity_watch *w = COX_CONTAINER_OF(op, struct activity_watch, op);

    cox_op_fini(op);
    cox_free(w->handler);
    cox_free(w->tenant);
    cox_free(w);
}

void cox_api_stream_is_active(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Externalscaler__ScaledObjectRef *ref = (const Externalscaler__ScaledObjectRef *)message;
    struct activity_watch *w = COX_NEW(struct activity_watch);

    cox_op_init(&w->op, user, call);
    w->op.on_gone = activity_gone;
    w->op.on_time = activity_look;
    w->op.endless = true;
    w->handler = cox_strdup(metadata(ref, "handler"));
    w->tenant = cox_strdup(tenant_of(call, ref));
    activity_look(&w->op);
}
