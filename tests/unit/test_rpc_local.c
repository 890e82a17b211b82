/* Calls without a wire: the same handlers, the same rules. */
#include "rpc_fixture.h"

#include <coxswain/v1/blob_service.pb-c.h>
#include <coxswain/v1/task_service.pb-c.h>

#define WATCH "/coxswain.v1.TaskService/WatchTask"
#define GET "/coxswain.v1.TaskService/GetTask"
#define PUT "/coxswain.v1.BlobService/PutBlob"

/* What the service saw. */
static struct {
    struct cox_rpc_call *call;
    int n_opened, n_messages, n_half_closed, n_drained, n_closed;
    uint64_t last_seq;
    size_t put_len;
    enum cox_rpc_status status;
    char peer[32];
    char key[32];
    char id[32];
    char who[96];
    int64_t deadline_ns;
    bool answer; /* a GetTask at once */
} service;

/* What the caller saw. */
struct caller {
    int n_messages, n_closed;
    size_t messages_len, read_len;
    uint64_t last_seq;
    enum cox_rpc_status status;
    int64_t retry_delay_ms;
    char message[96];
    char reason[32];
    bool in_order;
    bool shared; /* by several calls */
};

static void note_certificate(struct cox_rpc_call *call)
{
    const struct cox_tls_certificate *c = cox_rpc_call_certificate(call);
    int len = snprintf(service.who, sizeof(service.who), "%s/%s", c ? c->name : "nobody",
                       c && c->unit ? c->unit : "");

    for (size_t i = 0; c && i < c->n_organizations; i++)
        len += snprintf(service.who + len, sizeof(service.who) - (size_t)len, "/%s", c->organizations[i]);
}

static void on_open(struct cox_rpc_call *call, void *user)
{
    (void)user;
    note_certificate(call);
    service.call = call;
    service.n_opened++;
    service.deadline_ns = cox_rpc_call_deadline_ns(call);
    snprintf(service.peer, sizeof(service.peer), "%s", cox_rpc_call_peer(call));
    struct cox_slice key = cox_rpc_call_metadata(call, "x-key");
    snprintf(service.key, sizeof(service.key), "%.*s", (int)key.len, (const char *)key.data);
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)call, (void)user;
    service.call = NULL;
    service.n_closed++;
    service.status = status->status;
}

static void on_drained(struct cox_rpc_call *call, void *user)
{
    (void)call, (void)user;
    service.n_drained++;
}

static void on_get(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    Coxswain__V1__GetTaskResponse response = COXSWAIN__V1__GET_TASK_RESPONSE__INIT;

    (void)user;
    service.n_messages++;
    snprintf(service.id, sizeof(service.id), "%s",
             ((const Coxswain__V1__GetTaskRequest *)(const void *)message)->id);
    if (service.answer)
        cox_rpc_reply(call, &response.base);
}

static void on_watch(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    (void)call, (void)message, (void)user;
    service.n_messages++;
}

static void on_put(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    (void)call, (void)user;
    service.n_messages++;
    service.put_len += ((const Coxswain__V1__PutBlobRequest *)(const void *)message)->data.len;
}

static void on_put_end(struct cox_rpc_call *call, void *user)
{
    Coxswain__V1__PutBlobResponse response = COXSWAIN__V1__PUT_BLOB_RESPONSE__INIT;

    (void)user;
    service.n_half_closed++;
    cox_rpc_reply(call, &response.base);
}

static const struct cox_rpc_method task_methods[] = {
    { "GetTask", { .on_open = on_open, .on_message = on_get, .on_closed = on_closed } },
    { "WatchTask",
      { .on_open = on_open, .on_message = on_watch, .on_drained = on_drained, .on_closed = on_closed } },
};
static const struct cox_rpc_method blob_methods[] = {
    { "PutBlob",
      { .on_open = on_open, .on_message = on_put, .on_half_close = on_put_end, .on_closed = on_closed } },
};
static const struct cox_rpc_service services[] = {
    { &coxswain__v1__task_service__descriptor, task_methods, ARRAY_LEN(task_methods), NULL },
    { &coxswain__v1__blob_service__descriptor, blob_methods, ARRAY_LEN(blob_methods), NULL },
};

static void told(void *user, struct cox_slice packed)
{
    struct caller *c = user;
    Coxswain__V1__WatchTaskResponse *m =
        coxswain__v1__watch_task_response__unpack(NULL, packed.len, packed.data);

    assert_non_null(m);
    assert_true(c->n_closed == 0 || c->shared);
    c->in_order = c->n_messages == 0 || m->seq == c->last_seq + 1;
    c->last_seq = m->seq;
    c->n_messages++;
    c->messages_len += packed.len;
    coxswain__v1__watch_task_response__free_unpacked(m, NULL);
}

static struct cox_rpc_call *endless; /* a caller that always has more to say */

static void was_read(void *user, size_t len)
{
    ((struct caller *)user)->read_len += len;
    if (endless)
        cox_rpc_local_send(endless, cox_slice(NULL, 0));
}

static void ended(void *user, const struct cox_rpc_error *status)
{
    struct caller *c = user;

    c->n_closed++;
    c->status = status->status;
    c->retry_delay_ms = status->retry_delay_ms;
    snprintf(c->message, sizeof(c->message), "%s", status->message ? status->message : "");
    snprintf(c->reason, sizeof(c->reason), "%s", status->reason ? status->reason : "");
}

static const struct cox_rpc_local_callbacks callbacks = { told, was_read, ended };

static struct fixture f;
static struct caller caller;

static int setup(void **state)
{
    (void)state;
    memset(&service, 0, sizeof(service));
    memset(&caller, 0, sizeof(caller));
    fixture_init(&f, (struct cox_rpc_server_config){ .services = services, .n_services = 2 });
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_fini(&f);
    return 0;
}

static struct cox_rpc_call *start(const char *path, int64_t deadline_ns)
{
    static const struct cox_rpc_metadata metadata[] = { { "x-key", "value" } };

    return cox_rpc_local_start(f.server, &(struct cox_rpc_local_config){ .path = path,
                                                                         .metadata = metadata,
                                                                         .n_metadata = 1,
                                                                         .peer = "http:me",
                                                                         .deadline_ns = deadline_ns,
                                                                         .outbox_len_max = 1000,
                                                                         .callbacks = &callbacks,
                                                                         .user = &caller });
}

static void send_get(struct cox_rpc_call *call, const char *id)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    uint8_t packed[64];

    request.id = (char *)(uintptr_t)id;
    cox_rpc_local_send(call, cox_slice(packed, coxswain__v1__get_task_request__pack(&request, packed)));
}

static enum cox_err send_seq(uint64_t seq, size_t reason_len)
{
    Coxswain__V1__WatchTaskResponse m = COXSWAIN__V1__WATCH_TASK_RESPONSE__INIT;
    Coxswain__V1__Step step = COXSWAIN__V1__STEP__INIT;
    char reason[2048];

    memset(reason, 'x', sizeof(reason));
    reason[reason_len] = '\0';
    step.reason = reason;
    m.seq = seq;
    m.step = &step;
    return cox_rpc_send(service.call, &m.base);
}

/* All that is due, without waiting. */
static void settle(void)
{
    while (cox_rpc_loop_run_once(f.loop, 0, 256) > 0)
        ;
}

static void test_one_request_one_answer(void **state)
{
    (void)state;
    service.answer = true;
    struct cox_rpc_call *call = start(GET, COX_RPC_FOREVER);

    send_get(call, "t0-000001");
    cox_rpc_local_half_close(call);
    assert_int_equal(service.n_opened, 0); /* nothing happens before the loop runs */
    assert_int_equal(cox_rpc_server_calls(f.server), 1);
    RUN_UNTIL(&f, caller.n_closed);
    assert_int_equal(caller.n_messages, 1);
    assert_int_equal(caller.status, COX_RPC_OK);
    assert_int_equal(service.n_closed, 1);
    assert_int_equal(service.status, COX_RPC_OK);
    assert_string_equal(service.id, "t0-000001");
    assert_string_equal(service.peer, "http:me");
    assert_string_equal(service.key, "value");
    assert_int_equal(service.deadline_ns, COX_RPC_FOREVER);
    assert_int_equal(cox_rpc_server_calls(f.server), 0);
}

static void test_who_calls(void **state)
{
    char name[] = "bob", unit[] = "blue", first[] = "cox:submitter", second[] = "Example";
    const char *organizations[] = { first, second };
    struct cox_tls_certificate certificate = { name, organizations, 2, unit };
    struct cox_rpc_local_config config = { .path = GET,
                                           .deadline_ns = COX_RPC_FOREVER,
                                           .certificate = &certificate,
                                           .callbacks = &callbacks,
                                           .user = &caller };

    (void)state;
    service.answer = true;
    send_get(cox_rpc_local_start(f.server, &config), "t0-000001");
    name[0] = unit[0] = first[0] = second[0] = '?'; /* copied */
    organizations[0] = NULL;
    RUN_UNTIL(&f, caller.n_closed);
    assert_string_equal(service.who, "bob/blue/cox:submitter/Example");

    caller = (struct caller){ 0 };
    send_get(start(GET, COX_RPC_FOREVER), "t0-000002");
    RUN_UNTIL(&f, caller.n_closed);
    assert_string_equal(service.who, "nobody/");
}

static void test_what_is_not_there(void **state)
{
    static const struct {
        const char *path, *reason;
    } cases[] = {
        { "/coxswain.v1.TaskService/Nothing", "UNKNOWN_METHOD" },
        { "/coxswain.v1.TaskService/CancelTask", "NOT_SERVED" },
        { "", "UNKNOWN_METHOD" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        caller = (struct caller){ 0 };
        send_get(start(cases[i].path, COX_RPC_FOREVER), "x");
        settle();
        assert_int_equal(caller.n_closed, 1);
        assert_int_equal(caller.status, COX_RPC_UNIMPLEMENTED);
        assert_string_equal(caller.reason, cases[i].reason);
    }
    assert_int_equal(service.n_opened, 0);
}

static void test_malformed_and_missing_requests(void **state)
{
    (void)state;
    struct cox_rpc_call *call = start(GET, COX_RPC_FOREVER);

    cox_rpc_local_send(call, cox_slice("\x0a\xff", 2));
    settle();
    assert_int_equal(caller.status, COX_RPC_INVALID_ARGUMENT);
    assert_string_equal(caller.reason, "MALFORMED_MESSAGE");
    assert_int_equal(service.n_messages, 0);

    caller = (struct caller){ 0 };
    cox_rpc_local_half_close(start(GET, COX_RPC_FOREVER));
    settle();
    assert_int_equal(caller.status, COX_RPC_INVALID_ARGUMENT);
    assert_string_equal(caller.message, "the call carried no request");
    assert_int_equal(service.n_closed, 2);
}

static void test_an_upload(void **state)
{
    Coxswain__V1__PutBlobRequest request = COXSWAIN__V1__PUT_BLOB_REQUEST__INIT;
    uint8_t data[100] = { 0 }, packed[128];
    struct cox_rpc_call *call = start(PUT, COX_RPC_FOREVER);

    (void)state;
    request.data = (ProtobufCBinaryData){ sizeof(data), data };
    size_t len = coxswain__v1__put_blob_request__pack(&request, packed);

    settle();
    cox_rpc_pause_reads(service.call);
    for (int i = 0; i < 10; i++)
        cox_rpc_local_send(call, cox_slice(packed, len));
    cox_rpc_local_half_close(call);
    settle();
    assert_int_equal(service.n_messages, 0); /* held by the service, and the caller knows */
    assert_int_equal(caller.read_len, 0);
    cox_rpc_resume_reads(service.call);
    settle();
    assert_int_equal(service.put_len, 1000);
    assert_int_equal(caller.read_len, 10 * len);
    assert_int_equal(service.n_half_closed, 1);
    assert_int_equal(caller.status, COX_RPC_OK);
    assert_int_equal(caller.n_messages, 1);
}

static void test_a_slow_reader_is_bounded(void **state)
{
    struct cox_rpc_call *call = start(WATCH, COX_RPC_FOREVER);
    uint64_t n = 0;

    (void)state;
    send_get(call, "t0-000001");
    settle();
    while (send_seq(n, 80) == COX_OK)
        n++;
    assert_in_range(n, 5, 20);
    assert_int_equal(cox_rpc_outbox_len(service.call), caller.messages_len);
    assert_in_range(caller.messages_len, 500, 1000);
    cox_rpc_local_taken(call, 100);
    settle();
    assert_int_equal(service.n_drained, 0);
    assert_int_equal(send_seq(n++, 80), COX_OK);
    cox_rpc_local_taken(call, caller.messages_len - 100);
    settle();
    assert_int_equal(service.n_drained, 1);
    assert_int_equal(send_seq(n++, 2000), COX_OK); /* an empty outbox takes any message */
    assert_int_equal(send_seq(n, 80), COX_ERR_FULL);
    assert_true(caller.in_order);
    assert_int_equal(caller.n_messages, n);
    cox_rpc_finish(service.call);
    assert_int_equal(send_seq(n, 80), COX_ERR_CANCELLED);
    settle();
    assert_int_equal(caller.n_closed, 1);
    assert_int_equal(caller.status, COX_RPC_OK);
}

static void test_either_side_ends_it(void **state)
{
    struct cox_rpc_call *call = start(WATCH, COX_RPC_FOREVER);

    (void)state;
    send_get(call, "t0-000001");
    settle();
    cox_rpc_local_cancel(call);
    assert_int_equal(caller.n_closed, 0); /* not from inside the call */
    settle();
    assert_int_equal(caller.status, COX_RPC_CANCELLED);
    assert_int_equal(service.status, COX_RPC_CANCELLED);

    caller = (struct caller){ 0 };
    send_get(start(WATCH, COX_RPC_FOREVER), "t0-000001");
    settle();
    cox_rpc_cancel(service.call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                          .message = "too slow",
                                                          .retry_delay_ms = 7 });
    settle();
    assert_int_equal(caller.status, COX_RPC_RESOURCE_EXHAUSTED);
    assert_string_equal(caller.message, "too slow");
    assert_int_equal(caller.retry_delay_ms, 7);
    assert_int_equal(service.n_closed, 2);

    caller = (struct caller){ 0 };
    cox_rpc_local_cancel(start(WATCH, COX_RPC_FOREVER)); /* before it has opened */
    settle();
    assert_int_equal(caller.status, COX_RPC_CANCELLED);
    assert_int_equal(service.n_opened, 2);
    assert_int_equal(service.n_closed, 2);
}

static void test_time_is_up(void **state)
{
    (void)state;
    int64_t until_ns = cox_clock_mono_ns() + 20000000;

    send_get(start(GET, until_ns), "t0-000001");
    settle();
    assert_int_equal(service.n_messages, 1);
    assert_int_equal(service.deadline_ns, until_ns);
    assert_int_equal(cox_rpc_loop_run_once(f.loop, COX_RPC_FOREVER, 256), 1); /* the loop wakes by itself */
    assert_true(cox_clock_mono_ns() >= until_ns);
    assert_int_equal(caller.status, COX_RPC_DEADLINE_EXCEEDED);
    assert_int_equal(service.status, COX_RPC_CANCELLED);
}

static void test_a_paused_server_takes_nothing(void **state)
{
    (void)state;
    service.answer = true;
    caller.shared = true;
    struct cox_rpc_call *before = start(GET, COX_RPC_FOREVER);

    settle();
    cox_rpc_server_pause_reads(f.server);
    send_get(before, "t0-000001");
    send_get(start(GET, COX_RPC_FOREVER), "t0-000002");
    settle();
    assert_int_equal(service.n_opened, 1);
    assert_int_equal(service.n_messages, 0);
    cox_rpc_server_resume_reads(f.server);
    settle();
    assert_int_equal(service.n_messages, 2);
    assert_int_equal(caller.n_closed, 2);
}

static void test_draining_and_the_end(void **state)
{
    (void)state;
    send_get(start(WATCH, COX_RPC_FOREVER), "t0-000001");
    settle();
    cox_rpc_server_drain(f.server);
    assert_int_equal(send_seq(1, 10), COX_OK); /* live calls go on */
    send_get(start(GET, COX_RPC_FOREVER), "t0-000001");
    settle();
    assert_int_equal(caller.n_closed, 1);
    assert_int_equal(caller.status, COX_RPC_UNAVAILABLE);
    assert_string_equal(caller.reason, "DRAINING");
    assert_true(caller.retry_delay_ms > 0);
    assert_int_equal(service.n_closed, 0);
    cox_rpc_server_destroy(f.server);
    f.server = NULL;
    assert_int_equal(caller.n_closed, 2);
    assert_int_equal(service.n_closed, 1);
    assert_int_equal(service.status, COX_RPC_CANCELLED);
}

static void ask_by_wire(void)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    enum cox_err err = cox_rpc_unary_blocking(f.channel, &coxswain__v1__task_service__descriptor, "GetTask",
                                              &request.base, 20000, &response, NULL);

    assert_int_equal(err, COX_OK);
    protobuf_c_message_free_unpacked(response, NULL);
}

static void test_neither_kind_starves(void **state)
{
    (void)state;
    service.answer = true;
    endless = start(PUT, COX_RPC_FOREVER);
    for (int i = 0; i < 1000; i++)
        cox_rpc_local_send(endless, cox_slice(NULL, 0));
    ask_by_wire();
    cox_rpc_local_cancel(endless);
    settle();
    endless = NULL;
    assert_int_equal(caller.n_closed, 1);
    assert_true(service.n_messages > 1); /* neither waited for the other */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_one_request_one_answer),
        T(test_who_calls),
        T(test_what_is_not_there),
        T(test_malformed_and_missing_requests),
        T(test_an_upload),
        T(test_a_slow_reader_is_bounded),
        T(test_either_side_ends_it),
        T(test_time_is_up),
        T(test_a_paused_server_takes_nothing),
        T(test_draining_and_the_end),
        T(test_neither_kind_starves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
