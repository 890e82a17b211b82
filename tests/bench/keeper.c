/* Two verbs for scenarios, which kill what these talk to.
 *
 *   submit  keeps a number of tasks under way, each submitted with a key of its own and again with that key
 *           until it is acknowledged, then awaited; keeps a list of what was acknowledged
 *   await   reads ids, waits until those tasks have ended, prints each as a line of JSON
 */
#include "bench.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/limits.h"
#include "cox/wire.h"
#include "coxswain/v1/task_service.pb-c.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 256
#define TICK_MS 20 /* between tries, and until a signal is seen */
#define CALL_LIMIT_MS 60000
#define WAIT_S 30
#define FLIGHTS_MAX 1024u
#define AWAIT_BATCH 200u
#define AWAIT_LIMIT_MS 180000

#define TASK_SERVICE (&coxswain__v1__task_service__descriptor)

static volatile sig_atomic_t stop_wanted;

static void on_signal(int number)
{
    (void)number;
    stop_wanted = 1;
}

/* ---- options ---- */

struct keeper_options {
    const char *address;
    const char *document; /* file */
    const char *key_prefix;
    const char *list; /* file, appended to: "KEY ID" */
    uint64_t n_tasks; /* 0: until SIGTERM */
    size_t n_flights;
};

static bool read_options(struct keeper_options *o, int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--addr") == 0)
            o->address = value;
        else if (strcmp(name, "--document") == 0)
            o->document = value;
        else if (strcmp(name, "--key-prefix") == 0)
            o->key_prefix = value;
        else if (strcmp(name, "--list") == 0)
            o->list = value;
        else if (strcmp(name, "--tasks") == 0)
            o->n_tasks = strtoull(value, NULL, 10);
        else if (strcmp(name, "--in-flight") == 0)
            o->n_flights = strtoul(value, NULL, 10);
        else
            return false;
    }
    return argc % 2 == 1 && o->address && o->n_flights > 0 && o->n_flights <= FLIGHTS_MAX;
}

/* ---- submit ---- */

enum flight_state { FLIGHT_IDLE, FLIGHT_SUBMIT, FLIGHT_AWAIT };

struct keeper;

struct flight {
    struct keeper *keeper;
    enum flight_state state;
    bool calling;
    int64_t not_before_ns;
    char key[128];
    char id[64];
};

struct keeper {
    const struct keeper_options *options;
    struct client client;
    struct cox_buf document;
    FILE *list;
    uint64_t n_started, n_ended, n_retries;
    bool failed;
    struct flight flights[FLIGHTS_MAX];
};

static void give_up(struct keeper *k, const struct flight *f, const char *why)
{
    complain("%s %s: %s", f->key, f->id, why);
    k->failed = true;
}

/* What a server that is killed looks like from here. */
static bool is_outage(const struct cox_rpc_error *e)
{
    return e->status == COX_RPC_UNAVAILABLE || e->status == COX_RPC_UNKNOWN ||
           e->status == COX_RPC_CANCELLED || e->status == COX_RPC_DEADLINE_EXCEEDED || e->retry_delay_ms > 0;
}

static void call_failed(struct flight *f, const struct cox_rpc_error *error)
{
    f->not_before_ns = cox_clock_mono_ns() + TICK_MS * INT64_C(1000000);
    f->keeper->n_retries++;
    if (!is_outage(error))
        give_up(f->keeper, f, error->message ? error->message : cox_rpc_status_text(error->status));
}

static void on_submitted(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    struct flight *f = user;

    f->calling = false;
    if (!response) {
        call_failed(f, status);
        return;
    }
    snprintf(f->id, sizeof(f->id), "%s", ((const Coxswain__V1__SubmitTaskResponse *)response)->id);
    f->state = FLIGHT_AWAIT;
    if (fprintf(f->keeper->list, "%s %s\n", f->key, f->id) < 0 || fflush(f->keeper->list) != 0)
        give_up(f->keeper, f, strerror(errno));
}

static void on_task(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    const Coxswain__V1__GetTaskResponse *r = (const Coxswain__V1__GetTaskResponse *)response;
    struct flight *f = user;

    f->calling = false;
    if (!r) {
        call_failed(f, status);
    } else if (r->task && r->task->status >= COXSWAIN__V1__TASK_STATUS__TASK_STATUS_SUCCEEDED) {
        f->state = FLIGHT_IDLE;
        f->keeper->n_ended++;
    }
}

static void submit(struct flight *f)
{
    const struct keeper *k = f->keeper;
    Coxswain__V1__SubmitTaskRequest request = COXSWAIN__V1__SUBMIT_TASK_REQUEST__INIT;

    request.document = (ProtobufCBinaryData){ k->document.len, k->document.data };
    request.key = f->key;
    cox_rpc_unary(k->client.channel, TASK_SERVICE, "SubmitTask", &request.base, CALL_LIMIT_MS, on_submitted,
                  f);
}

static void await(struct flight *f)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    Google__Protobuf__Duration wait = GOOGLE__PROTOBUF__DURATION__INIT;

    wait.seconds = WAIT_S;
    request.id = f->id;
    request.wait = &wait;
    cox_rpc_unary(f->keeper->client.channel, TASK_SERVICE, "GetTask", &request.base, CALL_LIMIT_MS, on_task,
                  f);
}

static bool may_start(const struct keeper *k)
{
    return !stop_wanted && !k->failed && (k->options->n_tasks == 0 || k->n_started < k->options->n_tasks);
}

static void fly(struct flight *f, int64_t now_ns)
{
    struct keeper *k = f->keeper;

    if (f->state == FLIGHT_IDLE && may_start(k)) {
        snprintf(f->key, sizeof(f->key), "%s%" PRIu64, k->options->key_prefix, ++k->n_started);
        f->id[0] = '\0';
        f->state = FLIGHT_SUBMIT;
    }
    if (f->calling || f->state == FLIGHT_IDLE || now_ns < f->not_before_ns || k->failed)
        return;
    f->calling = true;
    if (f->state == FLIGHT_SUBMIT)
        submit(f);
    else
        await(f);
}

/* One turn; false when nothing is under way and nothing more shall be. */
static bool keep(struct keeper *k)
{
    int64_t now_ns = cox_clock_mono_ns();
    bool busy = false;

    for (size_t i = 0; i < k->options->n_flights; i++) {
        fly(&k->flights[i], now_ns);
        busy = busy || k->flights[i].calling || (k->flights[i].state != FLIGHT_IDLE && !k->failed);
    }
    if (busy)
        cox_rpc_loop_run_once(k->client.loop, now_ns + TICK_MS * INT64_C(1000000), EVENTS_MAX);
    if (k->failed && k->client.channel) {
        cox_rpc_channel_destroy(k->client.channel); /* what is under way is given up */
        k->client.channel = NULL;
    }
    return busy;
}

static bool read_file(const char *path, struct cox_buf *ret)
{
    FILE *in = path ? fopen(path, "rb") : NULL;
    size_t n = 1;

    while (in && n > 0 && ret->len <= COX_DOCUMENT_LEN_MAX) {
        cox_buf_reserve(ret, 65536);
        n = fread(ret->data + ret->len, 1, 65536, in);
        ret->len += n;
    }
    if (in)
        fclose(in);
    return in != NULL;
}

int submit_main(int argc, char **argv)
{
    struct keeper_options o = { .key_prefix = "key-", .n_flights = 8 };
    struct keeper *k = COX_NEW(struct keeper);
    struct sigaction action = { .sa_handler = on_signal };

    k->options = &o;
    if (!read_options(&o, argc, argv) || !o.list || !(k->list = fopen(o.list, "a")) ||
        !read_file(o.document, &k->document)) {
        complain(
            "usage: cox-bench submit --addr ADDR --document FILE --list FILE [--key-prefix P] [--tasks N] "
            "[--in-flight N]");
        return 2;
    }
    sigaction(SIGTERM, &action, NULL);
    for (size_t i = 0; i < o.n_flights; i++)
        k->flights[i].keeper = k;
    cox_rpc_init();
    client_init(&k->client, o.address, NULL);
    while (keep(k)) {
    }
    client_fini(&k->client);
    cox_rpc_fini();
    bool failed = k->failed;

    complain("%" PRIu64 " tasks submitted, %" PRIu64 " ended, %" PRIu64 " calls repeated", k->n_started,
             k->n_ended, k->n_retries);
    fclose(k->list);
    cox_buf_fini(&k->document);
    cox_free(k);
    return failed ? 1 : 0;
}

/* ---- await ---- */

struct ids {
    char *items[AWAIT_BATCH];
    size_t n;
};

static bool print_tasks(const Coxswain__V1__BatchGetTasksResponse *r)
{
    struct cox_buf line = { 0 };
    bool all_ended = true;

    for (size_t i = 0; i < r->n_tasks; i++) {
        all_ended = all_ended && r->tasks[i]->status >= COXSWAIN__V1__TASK_STATUS__TASK_STATUS_SUCCEEDED;
        cox_wire_put_json(&line, &r->tasks[i]->base);
        cox_put_u8(&line, '\n');
    }
    fwrite(line.data, 1, line.len, stdout);
    cox_buf_fini(&line);
    return all_ended;
}

#define RECONNECT_NS INT64_C(20000000000)

static bool await_ids(struct client *c, struct ids *ids)
{
    Coxswain__V1__BatchGetTasksRequest request = COXSWAIN__V1__BATCH_GET_TASKS_REQUEST__INIT;
    Google__Protobuf__Duration wait = GOOGLE__PROTOBUF__DURATION__INIT;
    struct cox_rpc_error *error = NULL;
    ProtobufCMessage *response;
    bool well = true;

    wait.seconds = AWAIT_LIMIT_MS / 1000;
    request.ids = ids->items;
    request.n_ids = ids->n;
    request.wait = &wait;
    if (ids->n == 0)
        return true;
    /* A read may be asked again: a first connection can fail for reasons of the host's, with the server
     * there. */
    for (int64_t until_ns = cox_clock_mono_ns() + RECONNECT_NS;;) {
        if (cox_rpc_unary_blocking(c->channel, TASK_SERVICE, "BatchGetTasks", &request.base,
                                   AWAIT_LIMIT_MS + 10000, &response, &error) == COX_OK)
            break;
        bool again = is_outage(error) && cox_clock_mono_ns() < until_ns;
        complain("BatchGetTasks: %s%s", error->message, again ? "; again" : "");
        cox_rpc_error_free(error);
        if (!again)
            return false;
        cox_rpc_loop_run_once(c->loop, cox_clock_mono_ns() + TICK_MS * INT64_C(1000000), 256);
    }
    well = print_tasks((Coxswain__V1__BatchGetTasksResponse *)response);
    protobuf_c_message_free_unpacked(response, NULL);
    for (size_t i = 0; i < ids->n; i++)
        cox_free(ids->items[i]);
    ids->n = 0;
    return well;
}

int await_main(int argc, char **argv)
{
    struct keeper_options o = { .n_flights = 1 };
    struct client client;
    struct ids ids = { .n = 0 };
    bool well = true;
    char id[64];

    if (!read_options(&o, argc, argv)) {
        complain("usage: cox-bench await --addr ADDR <IDS");
        return 2;
    }
    cox_rpc_init();
    client_init(&client, o.address, NULL);
    while (well && scanf("%63s", id) == 1) {
        ids.items[ids.n++] = cox_strdup(id);
        if (ids.n == AWAIT_BATCH)
            well = await_ids(&client, &ids);
    }
    well = well && await_ids(&client, &ids);
    client_fini(&client);
    cox_rpc_fini();
    return well && fflush(stdout) == 0 ? 0 : 1;
}
