/* The load: a bounded number of batches between submission and result, everything else by callbacks. */
#include "bench.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "coxswain/v1/fleet_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVENTS_MAX 256
#define CALL_LIMIT_MS 300000
#define WAIT_S 240
#define ATTACH_LIMIT_MS 20000
#define ATTACH_PAUSE_MS 10

#define TASK_SERVICE (&coxswain__v1__task_service__descriptor)

void client_init(struct client *c, const char *address, const struct cox_tls_files *tls)
{
    c->loop = cox_rpc_loop_create();
    c->channel = cox_rpc_channel_create(
        c->loop, &(struct cox_rpc_channel_config){ .target = address, .own_connection = true, .tls = tls });
}

void client_fini(struct client *c)
{
    cox_rpc_channel_destroy(c->channel);
    cox_rpc_loop_destroy(c->loop);
}

/* ---- workers ---- */

static size_t count_attached(const Coxswain__V1__ListWorkersResponse *r, const char *prefix)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n_workers; i++) {
        n += r->workers[i]->state == COXSWAIN__V1__WORKER_STATE__WORKER_STATE_ATTACHED &&
             strncmp(r->workers[i]->id, prefix, strlen(prefix)) == 0;
    }
    return n;
}

enum cox_err client_await_workers(struct client *c, const char *prefix, size_t n)
{
    Coxswain__V1__ListWorkersRequest request = COXSWAIN__V1__LIST_WORKERS_REQUEST__INIT;
    int64_t now_ns = cox_clock_mono_ns(), deadline_ns = now_ns + ATTACH_LIMIT_MS * INT64_C(1000000);
    size_t n_attached = 0;

    while (n_attached < n && now_ns < deadline_ns) {
        ProtobufCMessage *response;
        enum cox_err err = cox_rpc_unary_blocking(c->channel, &coxswain__v1__fleet_service__descriptor,
                                                  "ListWorkers", &request.base, 0, &response, NULL);
        if (!err) {
            n_attached = count_attached((Coxswain__V1__ListWorkersResponse *)response, prefix);
            protobuf_c_message_free_unpacked(response, NULL);
        }
        now_ns = cox_clock_mono_ns();
        if (n_attached < n)
            cox_rpc_loop_run_once(c->loop, now_ns + ATTACH_PAUSE_MS * 1000000, EVENTS_MAX);
    }
    if (n_attached < n)
        complain("%zu of %zu workers attached", n_attached, n);
    return n_attached < n ? COX_ERR_UNAVAILABLE : COX_OK;
}

/* ---- batches ---- */

struct run {
    struct client *client;
    const struct load *load;
    size_t n_batches, n_started, n_done;
    size_t n_open; /* batches that are not freed */
    int64_t *latencies_ns;
    bool failed;
};

/* Tasks that are submitted and awaited together. */
struct batch {
    struct run *run;
    size_t n;
    int64_t since_ns;
    char **ids;
};

static void start_batches(struct run *r);

static void batch_free(struct batch *b)
{
    b->run->n_open--;
    for (size_t i = 0; i < b->n; i++)
        cox_free(b->ids[i]);
    cox_free(b->ids);
    cox_free(b);
}

static void batch_done(struct batch *b)
{
    struct run *r = b->run;

    r->latencies_ns[r->n_done++] = cox_clock_mono_ns() - b->since_ns;
    batch_free(b);
    start_batches(r);
}

static void batch_fail(struct batch *b, const char *what, const char *detail)
{
    if (!b->run->failed)
        complain("%s: %s", what, detail && *detail ? detail : "no reason given");
    b->run->failed = true;
    batch_free(b);
}

/* ---- results ---- */

static const char *not_as_expected(const struct load *load, const Coxswain__V1__Task *t)
{
    if (t->status != COXSWAIN__V1__TASK_STATUS__TASK_STATUS_SUCCEEDED)
        return t->error ? t->error->message : "it did not succeed";
    if (!t->steps || t->steps->total != load->steps_a_task || t->steps->n_by_status != 1 ||
        strcmp(t->steps->by_status[0]->key, "SUCCEEDED") != 0 ||
        t->steps->by_status[0]->value != load->steps_a_task)
        return "not every step succeeded";
    if (strcmp(t->outputs_json, load->outputs) != 0)
        return "other outputs than expected";
    return NULL;
}

static bool task_ended(const Coxswain__V1__Task *t)
{
    return t && t->status >= COXSWAIN__V1__TASK_STATUS__TASK_STATUS_SUCCEEDED;
}

static void await_batch(struct batch *b);

static void check_batch(struct batch *b, Coxswain__V1__Task **tasks, size_t n_tasks)
{
    const char *wrong = n_tasks == b->n ? NULL : "as many tasks as were asked for did not come";

    for (size_t i = 0; i < n_tasks && !wrong; i++) {
        if (!task_ended(tasks[i])) {
            await_batch(b);
            return;
        }
        wrong =
            strcmp(tasks[i]->id, b->ids[i]) == 0 ? not_as_expected(b->run->load, tasks[i]) : "another task";
    }
    if (wrong)
        batch_fail(b, "a task failed", wrong);
    else
        batch_done(b);
}

static void on_tasks(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    const Coxswain__V1__BatchGetTasksResponse *r = (const Coxswain__V1__BatchGetTasksResponse *)response;

    if (r)
        check_batch(user, r->tasks, r->n_tasks);
    else
        batch_fail(user, "BatchGetTasks", status->message);
}

static void on_task(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    const Coxswain__V1__GetTaskResponse *r = (const Coxswain__V1__GetTaskResponse *)response;
    Coxswain__V1__Task *task = r ? r->task : NULL;

    if (r)
        check_batch(user, &task, 1);
    else
        batch_fail(user, "GetTask", status->message);
}

static void await_batch(struct batch *b)
{
    Google__Protobuf__Duration wait = GOOGLE__PROTOBUF__DURATION__INIT;
    struct cox_rpc_channel *channel = b->run->client->channel;

    if (b->run->failed) {
        batch_free(b);
        return;
    }
    wait.seconds = WAIT_S;
    if (b->run->load->batch_len == 1) {
        Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
        request.id = b->ids[0];
        request.wait = &wait;
        cox_rpc_unary(channel, TASK_SERVICE, "GetTask", &request.base, CALL_LIMIT_MS, on_task, b);
    } else {
        Coxswain__V1__BatchGetTasksRequest request = COXSWAIN__V1__BATCH_GET_TASKS_REQUEST__INIT;
        request.ids = b->ids;
        request.n_ids = b->n;
        request.wait = &wait;
        cox_rpc_unary(channel, TASK_SERVICE, "BatchGetTasks", &request.base, CALL_LIMIT_MS, on_tasks, b);
    }
}

/* ---- submission ---- */

static void on_submitted_one(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    const Coxswain__V1__SubmitTaskResponse *r = (const Coxswain__V1__SubmitTaskResponse *)response;
    struct batch *b = user;

    if (!r) {
        batch_fail(b, "SubmitTask", status->message);
        return;
    }
    b->ids[0] = cox_strdup(r->id);
    await_batch(b);
}

static void on_submitted(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    const Coxswain__V1__SubmitTasksResponse *r = (const Coxswain__V1__SubmitTasksResponse *)response;
    struct batch *b = user;

    if (!r || r->n_results != b->n) {
        batch_fail(b, "SubmitTasks", r ? "not one answer a task" : status->message);
        return;
    }
    for (size_t i = 0; i < b->n; i++) {
        if (r->results[i]->code != 0) {
            batch_fail(b, "SubmitTasks", r->results[i]->message);
            return;
        }
        b->ids[i] = cox_strdup(r->results[i]->id);
    }
    await_batch(b);
}

static void submit_batch(struct batch *b)
{
    const struct load *load = b->run->load;
    struct cox_rpc_channel *channel = b->run->client->channel;
    Coxswain__V1__SubmitTaskRequest one = COXSWAIN__V1__SUBMIT_TASK_REQUEST__INIT;

    one.document = (ProtobufCBinaryData){ load->document.len, (uint8_t *)(uintptr_t)load->document.data };
    if (load->batch_len == 1) {
        cox_rpc_unary(channel, TASK_SERVICE, "SubmitTask", &one.base, CALL_LIMIT_MS, on_submitted_one, b);
        return;
    }
    Coxswain__V1__SubmitTasksRequest many = COXSWAIN__V1__SUBMIT_TASKS_REQUEST__INIT;

    many.n_tasks = b->n;
    many.tasks = cox_calloc(b->n, sizeof(*many.tasks));
    for (size_t i = 0; i < b->n; i++)
        many.tasks[i] = &one;
    cox_rpc_unary(channel, TASK_SERVICE, "SubmitTasks", &many.base, CALL_LIMIT_MS, on_submitted, b);
    cox_free(many.tasks);
}

static void start_batches(struct run *r)
{
    const struct load *load = r->load;

    while (!r->failed && r->n_started < r->n_batches && r->n_started - r->n_done < load->n_flights) {
        struct batch *b = COX_NEW(struct batch);
        size_t n_before = r->n_started++ * load->batch_len;
        r->n_open++;
        b->run = r;
        b->n = load->n_tasks - n_before < load->batch_len ? load->n_tasks - n_before : load->batch_len;
        b->ids = cox_calloc(b->n, sizeof(*b->ids));
        b->since_ns = cox_clock_mono_ns();
        submit_batch(b);
    }
}

/* ---- a run ---- */

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

enum cox_err client_run(struct client *c, const struct load *load, struct outcome *ret)
{
    size_t n_batches = (load->n_tasks + load->batch_len - 1) / load->batch_len;
    struct run r = { .client = c, .load = load, .n_batches = n_batches };
    int64_t since_ns = cox_clock_mono_ns();

    r.latencies_ns = cox_calloc(n_batches, sizeof(*r.latencies_ns));
    start_batches(&r);
    while (!r.failed && r.n_done < n_batches)
        cox_rpc_loop_run_once(c->loop, COX_RPC_FOREVER, EVENTS_MAX);
    if (r.failed) { /* what is still under way is given up */
        cox_rpc_channel_destroy(c->channel);
        c->channel = NULL;
    }
    while (r.n_open > 0)
        cox_rpc_loop_run_once(c->loop, COX_RPC_FOREVER, EVENTS_MAX);
    ret->elapsed_ns = cox_clock_mono_ns() - since_ns;
    qsort(r.latencies_ns, r.n_done, sizeof(*r.latencies_ns), by_value);
    ret->latencies_ns = r.latencies_ns;
    ret->n_latencies = r.n_done;
    return r.failed ? COX_ERR_INTERNAL : COX_OK;
}

void outcome_fini(struct outcome *o)
{
    cox_free(o->latencies_ns);
    *o = (struct outcome){ 0 };
}
