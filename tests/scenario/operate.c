/* What operators ask of coxd over gRPC, as lines for scripts.
 *
 * usage: operate ADDRESS VERB [ARGUMENT]...
 *   explain ID [STEP]           the summary, details as "- ...", commands as "$ ..."
 *   cordon|uncordon|drain ID    nothing
 *   workers                     "ID STATE ASSIGNED"
 *   metrics                     Prometheus' text
 *   stats PREFIX                "NAME{k=v,...} VALUE"
 *   history METRIC              "POINTS LAST" of each series
 *   watch-stats PREFIX N        the first sample of N messages, as stats does
 *   scale HANDLER               KEDA's questions: "active METRIC TARGET VALUE"
 * Exits 1 and prints "STATUS REASON: MESSAGE" when a call fails.
 */
#include "cox/rpc.h"

#include "coxswain/v1/fleet_service.pb-c.h"
#include "coxswain/v1/stats_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"
#include "externalscaler/externalscaler.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct cox_rpc_loop *loop;
static struct cox_rpc_channel *channel;
static int exit_code = 0;

static ProtobufCMessage *ask(const ProtobufCServiceDescriptor *service, const char *method,
                             const ProtobufCMessage *request)
{
    ProtobufCMessage *response = NULL;
    struct cox_rpc_error *error = NULL;

    if (cox_rpc_unary_blocking(channel, service, method, request, 10000, &response, &error) == COX_OK)
        return response;
    printf("%s %s: %s\n", cox_rpc_status_text(error->status), error->reason ? error->reason : "-",
           error->message ? error->message : "");
    cox_rpc_error_free(error);
    exit_code = 1;
    return NULL;
}

static void answered(ProtobufCMessage *m)
{
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
}

static void explain(const char *id, const char *step)
{
    Coxswain__V1__ExplainRequest m = COXSWAIN__V1__EXPLAIN_REQUEST__INIT;

    m.id = (char *)(uintptr_t)id;
    m.step = (char *)(uintptr_t)step;
    Coxswain__V1__ExplainResponse *r =
        (Coxswain__V1__ExplainResponse *)ask(&coxswain__v1__task_service__descriptor, "Explain", &m.base);
    if (!r)
        return;
    printf("%s\n", r->summary);
    for (size_t i = 0; i < r->n_details; i++)
        printf("- %s\n", r->details[i]);
    for (size_t i = 0; i < r->n_next_commands; i++)
        printf("$ %s\n", r->next_commands[i]);
    answered(&r->base);
}

static void cordon(const char *id, bool uncordon)
{
    Coxswain__V1__CordonWorkerRequest m = COXSWAIN__V1__CORDON_WORKER_REQUEST__INIT;

    m.id = (char *)(uintptr_t)id;
    m.uncordon = uncordon;
    answered(ask(&coxswain__v1__fleet_service__descriptor, "CordonWorker", &m.base));
}

static void drain(const char *id)
{
    Coxswain__V1__DrainWorkerRequest m = COXSWAIN__V1__DRAIN_WORKER_REQUEST__INIT;

    m.id = (char *)(uintptr_t)id;
    answered(ask(&coxswain__v1__fleet_service__descriptor, "DrainWorker", &m.base));
}

static void workers(void)
{
    Coxswain__V1__ListWorkersRequest m = COXSWAIN__V1__LIST_WORKERS_REQUEST__INIT;
    Coxswain__V1__ListWorkersResponse *r = (Coxswain__V1__ListWorkersResponse *)ask(
        &coxswain__v1__fleet_service__descriptor, "ListWorkers", &m.base);

    for (size_t i = 0; r && i < r->n_workers; i++) {
        const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(
            &coxswain__v1__worker_state__descriptor, (int)r->workers[i]->state);
        printf("%s %s %u\n", r->workers[i]->id, v ? v->name : "?", r->workers[i]->assigned);
    }
    answered(r ? &r->base : NULL);
}

static void metrics(void)
{
    Coxswain__V1__GetMetricsRequest m = COXSWAIN__V1__GET_METRICS_REQUEST__INIT;
    Coxswain__V1__GetMetricsResponse *r = (Coxswain__V1__GetMetricsResponse *)ask(
        &coxswain__v1__stats_service__descriptor, "GetMetrics", &m.base);

    if (r)
        fputs(r->text, stdout);
    answered(r ? &r->base : NULL);
}

static void print_sample(const Coxswain__V1__Sample *s)
{
    printf("%s{", s->name);
    for (size_t i = 0; i < s->n_labels; i++)
        printf("%s%s=%s", i ? "," : "", s->labels[i]->key, s->labels[i]->value);
    printf("} %g\n", s->value);
}

static void stats(const char *prefix)
{
    Coxswain__V1__GetStatsRequest m = COXSWAIN__V1__GET_STATS_REQUEST__INIT;

    m.prefix = (char *)(uintptr_t)prefix;
    Coxswain__V1__GetStatsResponse *r =
        (Coxswain__V1__GetStatsResponse *)ask(&coxswain__v1__stats_service__descriptor, "GetStats", &m.base);
    for (size_t i = 0; r && i < r->n_samples; i++)
        print_sample(r->samples[i]);
    answered(r ? &r->base : NULL);
}

static void history(const char *metric)
{
    Coxswain__V1__GetHistoryRequest m = COXSWAIN__V1__GET_HISTORY_REQUEST__INIT;

    m.metric = (char *)(uintptr_t)metric;
    Coxswain__V1__GetHistoryResponse *r = (Coxswain__V1__GetHistoryResponse *)ask(
        &coxswain__v1__stats_service__descriptor, "GetHistory", &m.base);
    for (size_t i = 0; r && i < r->n_series; i++)
        printf("%zu %g\n", r->series[i]->n_values,
               r->series[i]->n_values ? r->series[i]->values[r->series[i]->n_values - 1] : 0);
    answered(r ? &r->base : NULL);
}

static int watch_left;

static void on_stats(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__WatchStatsResponse *m = (const Coxswain__V1__WatchStatsResponse *)message;

    (void)user;
    if (m->n_samples > 0)
        print_sample(m->samples[0]);
    if (--watch_left <= 0)
        cox_rpc_cancel(call, NULL);
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)call;
    *(bool *)user = true;
    if (watch_left > 0) {
        printf("%s: %s\n", cox_rpc_status_text(status->status), status->message ? status->message : "");
        exit_code = 1;
    }
}

static void watch_stats(const char *prefix, int n)
{
    static const struct cox_rpc_handlers handlers = { .on_message = on_stats, .on_closed = on_closed };
    Coxswain__V1__WatchStatsRequest m = COXSWAIN__V1__WATCH_STATS_REQUEST__INIT;
    Google__Protobuf__Duration every = GOOGLE__PROTOBUF__DURATION__INIT;
    bool closed = false;

    every.nanos = 200000000;
    m.prefix = (char *)(uintptr_t)prefix;
    m.every = &every;
    watch_left = n;
    struct cox_rpc_call *call = cox_rpc_call_start(
        channel, &(struct cox_rpc_call_config){ .service = &coxswain__v1__stats_service__descriptor,
                                                .method = "WatchStats",
                                                .handlers = &handlers,
                                                .user = &closed,
                                                .timeout_ms = 20000 });
    cox_rpc_send(call, &m.base);
    cox_rpc_half_close(call);
    while (!closed)
        cox_rpc_loop_run_once(loop, COX_RPC_FOREVER, 256);
}

static void scale(const char *handler)
{
    const ProtobufCServiceDescriptor *service = &externalscaler__external_scaler__descriptor;
    Externalscaler__ScaledObjectRef ref = EXTERNALSCALER__SCALED_OBJECT_REF__INIT;
    Externalscaler__ScaledObjectRef__ScalerMetadataEntry entry =
        EXTERNALSCALER__SCALED_OBJECT_REF__SCALER_METADATA_ENTRY__INIT;
    Externalscaler__ScaledObjectRef__ScalerMetadataEntry *entries[] = { &entry };
    Externalscaler__GetMetricsRequest m = EXTERNALSCALER__GET_METRICS_REQUEST__INIT;

    entry.key = (char *)(uintptr_t) "handler";
    entry.value = (char *)(uintptr_t)handler;
    ref.scalermetadata = entries;
    ref.n_scalermetadata = 1;
    m.scaledobjectref = &ref;
    Externalscaler__IsActiveResponse *active =
        (Externalscaler__IsActiveResponse *)ask(service, "IsActive", &ref.base);
    Externalscaler__GetMetricSpecResponse *spec =
        (Externalscaler__GetMetricSpecResponse *)ask(service, "GetMetricSpec", &ref.base);
    Externalscaler__GetMetricsResponse *values =
        (Externalscaler__GetMetricsResponse *)ask(service, "GetMetrics", &m.base);
    if (active && spec && values && spec->n_metricspecs == 1 && values->n_metricvalues == 1)
        printf("%s %s %g %g\n", active->result ? "active" : "idle", spec->metricspecs[0]->metricname,
               spec->metricspecs[0]->targetsizefloat, values->metricvalues[0]->metricvaluefloat);
    answered(active ? &active->base : NULL);
    answered(spec ? &spec->base : NULL);
    answered(values ? &values->base : NULL);
}

static int run(int n, char **args)
{
    const char *verb = args[0], *one = n > 1 ? args[1] : "", *two = n > 2 ? args[2] : "";

    if (strcmp(verb, "explain") == 0)
        explain(one, two);
    else if (strcmp(verb, "cordon") == 0 || strcmp(verb, "uncordon") == 0)
        cordon(one, *verb == 'u');
    else if (strcmp(verb, "drain") == 0)
        drain(one);
    else if (strcmp(verb, "workers") == 0)
        workers();
    else if (strcmp(verb, "metrics") == 0)
        metrics();
    else if (strcmp(verb, "stats") == 0)
        stats(one);
    else if (strcmp(verb, "history") == 0)
        history(one);
    else if (strcmp(verb, "watch-stats") == 0)
        watch_stats(one, (int)strtol(two, NULL, 10));
    else if (strcmp(verb, "scale") == 0)
        scale(one);
    else
        return 2;
    return exit_code;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: operate ADDRESS VERB [ARGUMENT]...\n");
        return 2;
    }
    cox_rpc_init();
    loop = cox_rpc_loop_create();
    channel = cox_rpc_channel_create(loop, &(struct cox_rpc_channel_config){ .target = argv[1] });
    int code = run(argc - 2, argv + 2);

    cox_rpc_channel_destroy(channel);
    cox_rpc_loop_destroy(loop);
    cox_rpc_fini();
    return code;
}
