/* Calls of one request and one answer: what arrives, and every way in which it can go wrong. */
#include "rpc_fixture.h"

#include <coxswain/v1/task_service.pb-c.h>

#define TASKS (&coxswain__v1__task_service__descriptor)

static struct {
    struct cox_rpc_call *held; /* a call that "later" has not answered yet */
    int n_closed;
    enum cox_rpc_status closed_status;
    int n_messages;
    int64_t left_ms;
    char authorization[32];
    char peer[64];
} seen;

/* ---- the server: the id says what to do ---- */

static void reply(struct cox_rpc_call *call, const char *name)
{
    Coxswain__V1__Task task = COXSWAIN__V1__TASK__INIT;
    Coxswain__V1__GetTaskResponse response = COXSWAIN__V1__GET_TASK_RESPONSE__INIT;

    task.name = (char *)name;
    response.task = &task;
    cox_rpc_reply(call, &response.base);
}

static void reply_large(struct cox_rpc_call *call, size_t len)
{
    char *name = cox_alloc(len + 1);

    memset(name, 'x', len);
    name[len] = '\0';
    reply(call, name);
    cox_free(name);
}

static void fail_with_details(struct cox_rpc_call *call)
{
    struct cox_rpc_violation violations[] = {
        { "steps.build.run", "line 12: expected a list of strings" },
        { "steps.test.needs", "line 20: no step \"biuld\"; expected a step's name" },
    };

    cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                                .message = "2 errors in the document",
                                                .reason = "BAD_DOCUMENT",
                                                .retry_delay_ms = 1250,
                                                .violations = violations,
                                                .n_violations = 2 });
}

static void fail_at_length(struct cox_rpc_call *call)
{
    static char text[5000];
    struct cox_rpc_violation violations[COX_VIOLATIONS_MAX];

    /* 3-byte characters, so that a cut in the middle of one would show */
    for (size_t i = 0; i + 3 < sizeof(text); i += 3)
        memcpy(&text[i], "\xe2\x82\xac", 3);
    for (size_t i = 0; i < COX_VIOLATIONS_MAX; i++)
        violations[i] = (struct cox_rpc_violation){ text, text };
    cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                                .message = text,
                                                .violations = violations,
                                                .n_violations = COX_VIOLATIONS_MAX });
}

static void on_get(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const char *id = ((const Coxswain__V1__GetTaskRequest *)(const void *)message)->id;
    struct cox_slice authorization = cox_rpc_call_metadata(call, "authorization");

    assert_ptr_equal(user, &seen);
    seen.n_messages++;
    snprintf(seen.peer, sizeof(seen.peer), "%s", cox_rpc_call_peer(call));
    snprintf(seen.authorization, sizeof(seen.authorization), "%.*s", (int)authorization.len,
             (const char *)authorization.data);
    if (strcmp(id, "later") == 0)
        seen.held = call;
    else if (strcmp(id, "details") == 0)
        fail_with_details(call);
    else if (strcmp(id, "length") == 0)
        fail_at_length(call);
    else if (strcmp(id, "large") == 0)
        reply_large(call, 9u << 20);
    else if (strcmp(id, "too large") == 0)
        reply_large(call, COX_MESSAGE_LEN_MAX);
    else
        reply(call, id);
    if (cox_rpc_call_deadline_ns(call) != COX_RPC_FOREVER)
        seen.left_ms = (cox_rpc_call_deadline_ns(call) - cox_clock_mono_ns()) / 1000000;
}

static void on_get_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)user;
    if (seen.held == call)
        seen.held = NULL;
    seen.n_closed++;
    seen.closed_status = status->status;
}

static const struct cox_rpc_method methods[] = {
    { "GetTask", { .on_message = on_get, .on_closed = on_get_closed } },
};
static const struct cox_rpc_service services[] = {
    { &coxswain__v1__task_service__descriptor, methods, 1, &seen },
};

/* ---- the client ---- */

static int setup(void **state)
{
    static struct fixture f;

    memset(&seen, 0, sizeof(seen));
    fixture_init(&f, (struct cox_rpc_server_config){ .services = services, .n_services = 1, .calls_max = 8 });
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    return 0;
}

static enum cox_err get(struct fixture *f, const char *id, int64_t timeout_ms, char **ret_name,
                        struct cox_rpc_error **ret_error)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;

    request.id = (char *)id;
    enum cox_err err =
        cox_rpc_unary_blocking(f->channel, TASKS, "GetTask", &request.base, timeout_ms, &response, ret_error);
    if (err == COX_OK) {
        *ret_name = cox_strdup(((Coxswain__V1__GetTaskResponse *)(void *)response)->task->name);
        protobuf_c_message_free_unpacked(response, NULL);
    }
    return err;
}

static struct cox_rpc_error *get_error(struct fixture *f, const char *id, enum cox_rpc_status expected)
{
    struct cox_rpc_error *error = NULL;
    char *name = NULL;

    assert_int_not_equal(get(f, id, 5000, &name, &error), COX_OK);
    assert_non_null(error);
    assert_string_equal(cox_rpc_status_text(error->status), cox_rpc_status_text(expected));
    return error;
}

static void test_answer(void **state)
{
    struct fixture *f = *state;
    char *name = NULL;

    assert_int_equal(get(f, "t0-00000k", 0, &name, NULL), COX_OK);
    assert_string_equal(name, "t0-00000k");
    cox_free(name);
    RUN_UNTIL(f, seen.n_closed == 1);
    assert_int_equal(seen.closed_status, COX_RPC_OK);
    assert_int_equal(strncmp(seen.peer, "ipv4:127.0.0.1:", 15), 0);
    assert_string_equal(seen.authorization, "");
    assert_int_equal(cox_rpc_server_calls(f->server), 0);
    assert_int_equal(cox_rpc_channel_state(f->channel, false), COX_RPC_CHANNEL_READY);
}

static void test_large_answer_arrives_and_a_larger_is_refused(void **state)
{
    struct fixture *f = *state;
    char *name = NULL;

    assert_int_equal(get(f, "large", 0, &name, NULL), COX_OK);
    assert_int_equal(strlen(name), 9u << 20);
    cox_free(name);
    cox_rpc_error_free(get_error(f, "too large", COX_RPC_RESOURCE_EXHAUSTED));
}

static void note_status(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    assert_int_equal(response == NULL, status->status != COX_RPC_OK);
    *(int *)user = (int)status->status;
}

static struct cox_rpc_call *get_async(struct fixture *f, const char *id, int64_t timeout_ms, int *status)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;

    request.id = (char *)id;
    *status = -1;
    return cox_rpc_unary(f->channel, TASKS, "GetTask", &request.base, timeout_ms, note_status, status);
}

static void test_answer_long_after_the_callback(void **state)
{
    struct fixture *f = *state;
    int status;

    get_async(f, "later", 0, &status);
    RUN_UNTIL(f, seen.held);
    assert_int_equal(status, -1);
    assert_int_equal(cox_rpc_server_calls(f->server), 1);
    reply(seen.held, "at last");
    reply(seen.held, "a second answer is ignored");
    RUN_UNTIL(f, status != -1 && seen.n_closed == 1);
    assert_int_equal(status, COX_RPC_OK);
    assert_int_equal(seen.closed_status, COX_RPC_OK);
}

static void test_server_sees_that_the_client_cancelled(void **state)
{
    struct fixture *f = *state;
    int status;
    struct cox_rpc_call *call = get_async(f, "later", 0, &status);

    RUN_UNTIL(f, seen.held);
    cox_rpc_cancel(call, NULL);
    RUN_UNTIL(f, status != -1 && seen.n_closed == 1);
    assert_int_equal(status, COX_RPC_CANCELLED);
    assert_int_equal(seen.closed_status, COX_RPC_CANCELLED);
}

static void test_deadline_ends_both_sides(void **state)
{
    struct fixture *f = *state;
    int status;

    get_async(f, "later", 200, &status);
    RUN_UNTIL(f, status != -1 && seen.n_closed == 1);
    assert_int_equal(status, COX_RPC_DEADLINE_EXCEEDED);
    assert_int_equal(seen.closed_status, COX_RPC_CANCELLED);
    assert_in_range(seen.left_ms, 0, 200);
}

static void test_error_details_survive_the_wire(void **state)
{
    struct cox_rpc_error *error = get_error(*state, "details", COX_RPC_INVALID_ARGUMENT);

    assert_string_equal(error->message, "2 errors in the document");
    assert_string_equal(error->reason, "BAD_DOCUMENT");
    assert_int_equal(error->retry_delay_ms, 1250);
    assert_int_equal(error->n_violations, 2);
    assert_string_equal(error->violations[0].field, "steps.build.run");
    assert_string_equal(error->violations[1].description,
                        "line 20: no step \"biuld\"; expected a step's name");
    cox_rpc_error_free(error);
}

static void test_error_of_any_length_fits_into_a_header(void **state)
{
    struct cox_rpc_error *error = get_error(*state, "length", COX_RPC_INVALID_ARGUMENT);

    assert_in_range(strlen(error->message), COX_ERROR_MESSAGE_LEN_MAX - 2, COX_ERROR_MESSAGE_LEN_MAX);
    assert_true(cox_utf8_ok(cox_slice_str(error->message)));
    assert_in_range(error->n_violations, 1, COX_VIOLATIONS_MAX);
    assert_true(cox_utf8_ok(cox_slice_str(error->violations[0].description)));
    cox_rpc_error_free(error);
}

static void test_methods_that_are_not_served(void **state)
{
    struct fixture *f = *state;
    Coxswain__V1__ForkTaskRequest fork = COXSWAIN__V1__FORK_TASK_REQUEST__INIT;
    ProtobufCServiceDescriptor foreign = coxswain__v1__task_service__descriptor;
    ProtobufCMessage *response;
    struct cox_rpc_error *error = NULL;

    assert_int_equal(
        cox_rpc_unary_blocking(f->channel, TASKS, "ForkTask", &fork.base, 5000, &response, &error),
        COX_ERR_UNIMPLEMENTED);
    assert_string_equal(error->reason, "NOT_SERVED");
    assert_non_null(strstr(error->message, "/coxswain.v1.TaskService/ForkTask"));
    cox_rpc_error_free(error);

    foreign.name = "elsewhere.Service";
    assert_int_equal(
        cox_rpc_unary_blocking(f->channel, &foreign, "ForkTask", &fork.base, 5000, &response, &error),
        COX_ERR_UNIMPLEMENTED);
    assert_string_equal(error->reason, "UNKNOWN_METHOD");
    cox_rpc_error_free(error);
}

/* Sends one field of raw bytes where the server expects a GetTaskRequest. */
static struct cox_rpc_error *get_raw(struct fixture *f, ProtobufCWireType wire_type, const char *bytes,
                                     size_t len)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    ProtobufCMessageUnknownField field = { 1, wire_type, len, (uint8_t *)bytes };
    ProtobufCMessage *response;
    struct cox_rpc_error *error = NULL;

    request.base.n_unknown_fields = 1;
    request.base.unknown_fields = &field;
    assert_int_not_equal(
        cox_rpc_unary_blocking(f->channel, TASKS, "GetTask", &request.base, 5000, &response, &error), COX_OK);
    return error;
}

static void test_malformed_message_is_refused_and_harmless(void **state)
{
    static const struct {
        ProtobufCWireType type;
        const char *bytes;
        size_t len;
    } bad[] = {
        { PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, "\x7fshort", 6 },
        { PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10 },
        { PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, "\x02\xff\xfe", 3 }, /* not UTF-8 */
        { PROTOBUF_C_WIRE_TYPE_VARINT, "\x05", 1 },                  /* not a string */
        { PROTOBUF_C_WIRE_TYPE_VARINT, "\x80", 1 },                  /* no end */
    };
    char *name = NULL;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct cox_rpc_error *error = get_raw(*state, bad[i].type, bad[i].bytes, bad[i].len);
        assert_int_equal(error->status, COX_RPC_INVALID_ARGUMENT);
        assert_non_null(strstr(error->message, "coxswain.v1.GetTaskRequest"));
        cox_rpc_error_free(error);
    }
    assert_int_equal(seen.n_messages, 0);
    assert_int_equal(get(*state, "still here", 0, &name, NULL), COX_OK);
    cox_free(name);
}

static void test_oversized_request(void **state)
{
    struct fixture *f = *state;
    struct cox_rpc_server_config config = { .services = services, .n_services = 1, .message_len_max = 4096 };
    struct cox_rpc_server *small;
    char id[5000];

    memset(id, 'x', sizeof(id) - 1);
    id[sizeof(id) - 1] = '\0';
    config.address = "127.0.0.1:0";
    assert_int_equal(cox_rpc_server_create(f->loop, &config, &small), COX_OK);
    struct fixture to_small = { f->loop, small, NULL };

    to_small.channel = fixture_connect(&to_small);
    cox_rpc_error_free(get_error(&to_small, id, COX_RPC_RESOURCE_EXHAUSTED));
    assert_int_equal(seen.n_messages, 0);
    cox_rpc_channel_destroy(to_small.channel);
    cox_rpc_server_destroy(small);
}

static void test_calls_beyond_the_bound_are_told_when_to_come_back(void **state)
{
    struct fixture *f = *state;
    struct cox_rpc_call *calls[8];
    int status[8];

    for (int i = 0; i < 8; i++)
        calls[i] = get_async(f, "later", 0, &status[i]);
    RUN_UNTIL(f, seen.n_messages == 8);
    struct cox_rpc_error *error = get_error(f, "one more", COX_RPC_RESOURCE_EXHAUSTED);

    assert_true(error->retry_delay_ms > 0);
    cox_rpc_error_free(error);
    assert_int_equal(seen.n_messages, 8);
    for (int i = 0; i < 8; i++) {
        cox_rpc_cancel(calls[i], NULL);
        RUN_UNTIL(f, status[i] == COX_RPC_CANCELLED);
    }
}

static void test_nobody_there(void **state)
{
    struct fixture *f = *state;
    struct fixture gone = { .loop = f->loop };

    gone.channel =
        cox_rpc_channel_create(f->loop, &(struct cox_rpc_channel_config){ .target = "127.0.0.1:1" });
    cox_rpc_error_free(get_error(&gone, "x", COX_RPC_UNAVAILABLE));
    cox_rpc_channel_destroy(gone.channel);
}

static void test_metadata(void **state)
{
    struct fixture *f = *state;
    struct cox_rpc_channel *plain = f->channel;
    const char *values[] = { "Bearer good", "Bearer bad\n" };
    char target[64], *name = NULL;

    snprintf(target, sizeof(target), "127.0.0.1:%d", cox_rpc_server_port(f->server));
    for (int i = 0; i < 2; i++) {
        struct cox_rpc_metadata metadata = { "authorization", values[i] };
        f->channel = cox_rpc_channel_create(
            f->loop,
            &(struct cox_rpc_channel_config){ .target = target, .metadata = &metadata, .n_metadata = 1 });
        if (i == 0)
            assert_int_equal(get(f, "x", 5000, &name, NULL), COX_OK);
        else
            cox_rpc_error_free(get_error(f, "x", COX_RPC_INVALID_ARGUMENT));
        cox_rpc_channel_destroy(f->channel);
    }
    f->channel = plain;
    assert_string_equal(seen.authorization, "Bearer good");
    assert_int_equal(seen.n_messages, 1);
    cox_free(name);
}

static void test_a_peer_of_either_family_has_its_name(void **state)
{
    struct fixture *f = *state;
    struct cox_rpc_server *ours = f->server;
    struct cox_rpc_channel *channel = f->channel;
    struct cox_rpc_server_config config = { .address = "[::]:0", .services = services, .n_services = 1 };
    char *name = NULL;

    if (cox_rpc_server_create(f->loop, &config, &f->server) != COX_OK) { /* a host without IPv6 */
        f->server = ours;
        skip();
    }
    f->channel = fixture_connect(f);
    assert_int_equal(get(f, "x", 0, &name, NULL), COX_OK);
    assert_int_equal(strncmp(seen.peer, "ipv4:127.0.0.1:", 15), 0);
    cox_free(name);
    cox_rpc_channel_destroy(f->channel);
    cox_rpc_server_destroy(f->server);
    f->server = ours;
    f->channel = channel;
}

static void test_a_taken_port_and_a_wrong_table_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct cox_rpc_method wrong[] = { { "NoSuchMethod", { .on_message = on_get } } };
    const struct cox_rpc_service table = { &coxswain__v1__task_service__descriptor, wrong, 1, NULL };
    struct cox_rpc_server *server = NULL;
    char address[64];

    snprintf(address, sizeof(address), "127.0.0.1:%d", cox_rpc_server_port(f->server));
    assert_int_equal(
        cox_rpc_server_create(f->loop, &(struct cox_rpc_server_config){ .address = address }, &server),
        COX_ERR_UNAVAILABLE);
    assert_int_equal(
        cox_rpc_server_create(
            f->loop,
            &(struct cox_rpc_server_config){ .address = "127.0.0.1:0", .services = &table, .n_services = 1 },
            &server),
        COX_ERR_INVALID);
    assert_null(server);
}

static void test_statuses_and_errors_map_both_ways(void **state)
{
    (void)state;
    for (int err = 0; err < COX_ERR_NR; err++)
        if (err != COX_ERR_IO && err != COX_ERR_AGAIN)
            assert_int_equal(cox_rpc_status_to_err(cox_rpc_status_from_err((enum cox_err)err)), err);
    assert_string_equal(cox_rpc_status_text((enum cox_rpc_status)99), "UNKNOWN");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_answer),
        TEST(test_large_answer_arrives_and_a_larger_is_refused),
        TEST(test_answer_long_after_the_callback),
        TEST(test_server_sees_that_the_client_cancelled),
        TEST(test_deadline_ends_both_sides),
        TEST(test_error_details_survive_the_wire),
        TEST(test_error_of_any_length_fits_into_a_header),
        TEST(test_methods_that_are_not_served),
        TEST(test_malformed_message_is_refused_and_harmless),
        TEST(test_oversized_request),
        TEST(test_calls_beyond_the_bound_are_told_when_to_come_back),
        TEST(test_nobody_there),
        TEST(test_metadata),
        TEST(test_a_peer_of_either_family_has_its_name),
        TEST(test_a_taken_port_and_a_wrong_table_are_refused),
        cmocka_unit_test(test_statuses_and_errors_map_both_ways),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
