/* Tasks that wait for a signal: what one costs while it waits, and how soon its next step has run once it
 * comes. */
#include "bench.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "coxswain/v1/stats_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define CALL_LIMIT_MS 60000
#define ASLEEP_LIMIT_MS 120000
#define LOOK_MS 100
#define SETTLE_MS 3000
#define SIGNALS 1000u
#define WAIT_S 30
#define STRIDE 7919u /* a prime: the tasks that are signalled lie far apart */

#define TASK_SERVICE (&coxswain__v1__task_service__descriptor)

/* NULL after a complaint. */
static ProtobufCMessage *call(struct client *c, const ProtobufCServiceDescriptor *service, const char *method,
                              const ProtobufCMessage *request)
{
    ProtobufCMessage *response = NULL;
    struct cox_rpc_error *error = NULL;

    if (cox_rpc_unary_blocking(c->channel, service, method, request, CALL_LIMIT_MS, &response, &error) !=
        COX_OK)
        complain("%s: %s", method, error && error->message ? error->message : "failed");
    cox_rpc_error_free(error);
    return response;
}

static void done(ProtobufCMessage *m)
{
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
}

/* ---- submission ---- */

static bool submit_some(struct client *c, const struct load *load, size_t from, size_t n, char **ids)
{
    Coxswain__V1__SubmitTaskRequest one = COXSWAIN__V1__SUBMIT_TASK_REQUEST__INIT;
    Coxswain__V1__SubmitTasksRequest many = COXSWAIN__V1__SUBMIT_TASKS_REQUEST__INIT;
    bool ok = true;

    one.document = (ProtobufCBinaryData){ load->document.len, (uint8_t *)(uintptr_t)load->document.data };
    many.n_tasks = n;
    many.tasks = cox_calloc(n, sizeof(*many.tasks));
    for (size_t i = 0; i < n; i++)
        many.tasks[i] = &one;
    ProtobufCMessage *m = call(c, TASK_SERVICE, "SubmitTasks", &many.base);
    const Coxswain__V1__SubmitTasksResponse *r = (const Coxswain__V1__SubmitTasksResponse *)m;

    ok = r && r->n_results == n;
    for (size_t i = 0; ok && i < n; i++) {
        ok = r->results[i]->code == 0;
        if (ok)
            ids[from + i] = cox_strdup(r->results[i]->id);
        else
            complain("SubmitTasks: %s", r->results[i]->message);
    }
    done(m);
    cox_free(many.tasks);
    return ok;
}

/* ---- rest ---- */

static bool asleep(struct client *c, double *ret_n)
{
    Coxswain__V1__GetStatsRequest request = COXSWAIN__V1__GET_STATS_REQUEST__INIT;

    request.prefix = (char *)(uintptr_t) "cox_tasks_asleep";
    ProtobufCMessage *m = call(c, &coxswain__v1__stats_service__descriptor, "GetStats", &request.base);
    const Coxswain__V1__GetStatsResponse *r = (const Coxswain__V1__GetStatsResponse *)m;

    *ret_n = r && r->n_samples > 0 ? r->samples[0]->value : 0;
    done(m);
    return r != NULL;
}

static bool await_asleep(struct client *c, size_t n)
{
    int64_t deadline_ns = cox_clock_mono_ns() + ASLEEP_LIMIT_MS * INT64_C(1000000);
    double n_asleep = 0;

    while (asleep(c, &n_asleep) && n_asleep < (double)n && cox_clock_mono_ns() < deadline_ns)
        cox_rpc_loop_run_once(c->loop, cox_clock_mono_ns() + LOOK_MS * INT64_C(1000000), 1);
    if (n_asleep < (double)n)
        complain("%.0f of %zu tasks sleep", n_asleep, n);
    return n_asleep >= (double)n;
}

/* What the burst of submissions used goes back to the system within seconds: the lowest until none was lower
 * for a while. */
static uint64_t settled_rss_len(struct client *c, pid_t pid)
{
    uint64_t lowest_len = process_rss_len(pid);
    int64_t until_ns = cox_clock_mono_ns() + SETTLE_MS * INT64_C(1000000);

    while (cox_clock_mono_ns() < until_ns) {
        cox_rpc_loop_run_once(c->loop, cox_clock_mono_ns() + LOOK_MS * INT64_C(1000000), 1);
        uint64_t len = process_rss_len(pid);
        if (len < lowest_len) {
            lowest_len = len;
            until_ns = cox_clock_mono_ns() + SETTLE_MS * INT64_C(1000000);
        }
    }
    return lowest_len;
}

/* ---- signals ---- */

static bool signal_one(struct client *c, char *id, int64_t *ret_ns)
{
    Coxswain__V1__SignalTaskRequest say = COXSWAIN__V1__SIGNAL_TASK_REQUEST__INIT;
    Coxswain__V1__GetTaskRequest get = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    Google__Protobuf__Duration wait = GOOGLE__PROTOBUF__DURATION__INIT;
    int64_t since_ns = cox_clock_mono_ns();

    say.id = get.id = id;
    say.name = (char *)(uintptr_t) "go";
    wait.seconds = WAIT_S;
    get.wait = &wait;
    ProtobufCMessage *said = call(c, TASK_SERVICE, "SignalTask", &say.base);
    ProtobufCMessage *got = said ? call(c, TASK_SERVICE, "GetTask", &get.base) : NULL;
    const Coxswain__V1__GetTaskResponse *r = (const Coxswain__V1__GetTaskResponse *)got;
    bool ok = r && r->task && r->task->status == COXSWAIN__V1__TASK_STATUS__TASK_STATUS_SUCCEEDED;

    *ret_ns = cox_clock_mono_ns() - since_ns;
    if (got && !ok)
        complain("task %s did not succeed", id);
    done(said);
    done(got);
    return ok;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

enum cox_err waiting_run(struct client *c, const struct cluster *cluster, const struct load *load,
                         struct outcome *ret)
{
    char **ids = cox_calloc(load->n_tasks, sizeof(*ids));
    size_t n_signals = load->n_tasks < SIGNALS ? load->n_tasks : SIGNALS;
    int64_t since_ns = cox_clock_mono_ns();
    uint64_t rss_len = process_rss_len(cluster->coxd.pid), rss_now_len;
    bool ok = true;

    for (size_t at = 0; ok && at < load->n_tasks; at += load->batch_len) {
        size_t left = load->n_tasks - at;
        ok = submit_some(c, load, at, left < load->batch_len ? left : load->batch_len, ids);
    }
    ok = ok && await_asleep(c, load->n_tasks);
    ret->elapsed_ns = cox_clock_mono_ns() - since_ns;
    rss_now_len = settled_rss_len(c, cluster->coxd.pid);
    ret->resident_len = rss_now_len > rss_len ? rss_now_len - rss_len : 0;
    ret->latencies_ns = cox_calloc(n_signals, sizeof(*ret->latencies_ns));
    for (size_t i = 0; ok && i < n_signals; i++)
        ok = signal_one(c, ids[i * STRIDE % load->n_tasks], &ret->latencies_ns[ret->n_latencies++]);
    qsort(ret->latencies_ns, ret->n_latencies, sizeof(*ret->latencies_ns), by_value);
    for (size_t i = 0; i < load->n_tasks; i++)
        cox_free(ids[i]);
    cox_free(ids);
    return ok ? COX_OK : COX_ERR_INTERNAL;
}
