/* Health and reflection, as standard tools ask for them. */
#include "rpc_fixture.h"

#include <coxswain/v1/task_service.pb-c.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>

#define HEALTH (&grpc__health__v1__health__descriptor)
#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

static const struct cox_rpc_service services[] = {
    { &coxswain__v1__task_service__descriptor, NULL, 0, NULL },
};

static int setup(void **state)
{
    static struct fixture f;

    fixture_init(&f, (struct cox_rpc_server_config){ .services = services, .n_services = 1 });
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    return 0;
}

/* ---- health ---- */

static int check(struct fixture *f, const char *service)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;

    request.service = (char *)service;
    enum cox_err err =
        cox_rpc_unary_blocking(f->channel, HEALTH, "Check", &request.base, 5000, &response, NULL);
    if (err != COX_OK)
        return -(int)err;
    int status = (int)((Grpc__Health__V1__HealthCheckResponse *)(void *)response)->status;

    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

static void test_health_check(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(check(f, ""), NOT_SERVING);
    cox_rpc_server_set_serving(f->server, true);
    assert_int_equal(check(f, ""), SERVING);
    assert_int_equal(check(f, "coxswain.v1.TaskService"), SERVING);
    assert_int_equal(check(f, "coxswain.v1.NoService"), -(int)COX_ERR_NOT_FOUND);
}

struct watch {
    struct cox_rpc_call *call;
    int n_updates;
    int status;
    bool closed;
};

static void on_update(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct watch *w = user;

    (void)call;
    w->n_updates++;
    w->status = (int)((const Grpc__Health__V1__HealthCheckResponse *)(const void *)message)->status;
}

static void on_watch_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)call, (void)status;
    ((struct watch *)user)->closed = true;
}

static const struct cox_rpc_handlers watch_handlers = { .on_message = on_update,
                                                        .on_closed = on_watch_closed };

static void watch(struct fixture *f, const char *service, struct watch *w)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;

    *w = (struct watch){ 0 };
    request.service = (char *)service;
    w->call = cox_rpc_call_start(
        f->channel, &(struct cox_rpc_call_config){
                        .service = HEALTH, .method = "Watch", .handlers = &watch_handlers, .user = w });
    assert_int_equal(cox_rpc_send(w->call, &request.base), COX_OK);
    cox_rpc_half_close(w->call);
}

static void test_health_watch_is_told_of_changes(void **state)
{
    struct fixture *f = *state;
    struct watch whole, one, unknown;

    watch(f, "", &whole);
    watch(f, "coxswain.v1.TaskService", &one);
    watch(f, "coxswain.v1.NoService", &unknown);
    RUN_UNTIL(f, whole.n_updates == 1 && one.n_updates == 1 && unknown.n_updates == 1);
    assert_int_equal(whole.status, NOT_SERVING);
    assert_int_equal(unknown.status, SERVICE_UNKNOWN);

    cox_rpc_server_set_serving(f->server, true);
    cox_rpc_server_set_serving(f->server, true); /* no news */
    RUN_UNTIL(f, whole.n_updates == 2 && one.n_updates == 2);
    assert_int_equal(whole.status, SERVING);
    assert_int_equal(one.status, SERVING);

    cox_rpc_cancel(one.call, NULL);
    RUN_UNTIL(f, one.closed && cox_rpc_server_calls(f->server) == 2);
    cox_rpc_server_set_serving(f->server, false);
    RUN_UNTIL(f, whole.n_updates == 3);
    assert_int_equal(whole.status, NOT_SERVING);
    assert_int_equal(unknown.n_updates, 1);

    cox_rpc_cancel(whole.call, NULL);
    cox_rpc_cancel(unknown.call, NULL);
    RUN_UNTIL(f, whole.closed && unknown.closed);
}

/* Two changes while the first is not yet told: the watcher ends at the newest, whatever it saw between. */
static void test_health_watch_ends_at_the_newest_state(void **state)
{
    struct fixture *f = *state;
    struct watch w;

    watch(f, "", &w);
    RUN_UNTIL(f, w.n_updates == 1);
    for (int i = 0; i < 9; i++)
        cox_rpc_server_set_serving(f->server, i % 2 == 0);
    RUN_UNTIL(f, w.status == SERVING);
    cox_rpc_cancel(w.call, NULL);
    RUN_UNTIL(f, w.closed);
}

/* ---- reflection ---- */

struct asker {
    struct cox_rpc_call *call;
    Grpc__Reflection__V1__ServerReflectionResponse *answer; /* a copy, the newest */
    bool closed;
    enum cox_rpc_status status;
};

static void on_answer(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct asker *a = user;
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = cox_alloc(len);

    (void)call;
    protobuf_c_message_pack(message, bytes);
    a->answer = grpc__reflection__v1__server_reflection_response__unpack(NULL, len, bytes);
    cox_free(bytes);
}

static void on_asker_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct asker *a = user;

    (void)call;
    a->closed = true;
    a->status = status->status;
}

static const struct cox_rpc_handlers asker_handlers = { .on_message = on_answer,
                                                        .on_closed = on_asker_closed };

static void asker_open(struct fixture *f, struct asker *a, const ProtobufCServiceDescriptor *service)
{
    *a = (struct asker){ 0 };
    a->call = cox_rpc_call_start(f->channel, &(struct cox_rpc_call_config){ .service = service,
                                                                            .method = "ServerReflectionInfo",
                                                                            .handlers = &asker_handlers,
                                                                            .user = a });
}

static void asker_close(struct fixture *f, struct asker *a)
{
    cox_rpc_half_close(a->call);
    RUN_UNTIL(f, a->closed);
    assert_int_equal(a->status, COX_RPC_OK);
    grpc__reflection__v1__server_reflection_response__free_unpacked(a->answer, NULL);
}

static void ask(struct fixture *f, struct asker *a, Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    grpc__reflection__v1__server_reflection_response__free_unpacked(a->answer, NULL);
    a->answer = NULL;
    assert_int_equal(cox_rpc_send(a->call, &request->base), COX_OK);
    RUN_UNTIL(f, a->answer);
}

static bool lists(const struct asker *a, const char *name)
{
    const Grpc__Reflection__V1__ListServiceResponse *list = a->answer->list_services_response;

    for (size_t i = 0; i < list->n_service; i++)
        if (strcmp(list->service[i]->name, name) == 0)
            return true;
    return false;
}

static void list_services(struct fixture *f, const ProtobufCServiceDescriptor *service)
{
    Grpc__Reflection__V1__ServerReflectionRequest request =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    struct asker a;

    asker_open(f, &a, service);
    request.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
    request.list_services = (char *)"";
    ask(f, &a, &request);
    assert_true(lists(&a, "coxswain.v1.TaskService"));
    assert_true(lists(&a, "grpc.health.v1.Health"));
    assert_true(lists(&a, "grpc.reflection.v1.ServerReflection"));
    assert_true(lists(&a, "grpc.reflection.v1alpha.ServerReflection"));
    assert_false(lists(&a, "coxswain.v1.BlobService"));
    asker_close(f, &a);
}

static void test_reflection_lists_what_is_served(void **state)
{
    ProtobufCServiceDescriptor v1alpha = grpc__reflection__v1__server_reflection__descriptor;

    v1alpha.name = "grpc.reflection.v1alpha.ServerReflection";
    list_services(*state, &grpc__reflection__v1__server_reflection__descriptor);
    list_services(*state, &v1alpha);
}

/* The file that declares `symbol`, or NULL after an answer of NOT_FOUND. */
static void find_symbol(struct fixture *f, struct asker *a, const char *symbol, const char *expected_file)
{
    Grpc__Reflection__V1__ServerReflectionRequest request =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;

    request.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL;
    request.file_containing_symbol = (char *)symbol;
    ask(f, a, &request);
    assert_string_equal(a->answer->original_request->file_containing_symbol, symbol);
    if (!expected_file) {
        assert_int_equal(a->answer->message_response_case,
                         GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE);
        assert_int_equal(a->answer->error_response->error_code, COX_RPC_NOT_FOUND);
        return;
    }
    assert_int_equal(
        a->answer->message_response_case,
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE);
    ProtobufCBinaryData bytes = a->answer->file_descriptor_response->file_descriptor_proto[0];
    Google__Protobuf__FileDescriptorProto *file =
        google__protobuf__file_descriptor_proto__unpack(NULL, bytes.len, bytes.data);

    assert_non_null(file);
    assert_string_equal(file->name, expected_file);
    google__protobuf__file_descriptor_proto__free_unpacked(file, NULL);
}

static void test_reflection_finds_symbols(void **state)
{
    struct fixture *f = *state;
    struct asker a;

    asker_open(f, &a, &grpc__reflection__v1__server_reflection__descriptor);
    find_symbol(f, &a, "coxswain.v1.TaskService", "coxswain/v1/task_service.proto");
    find_symbol(f, &a, "coxswain.v1.TaskService.SubmitTask", "coxswain/v1/task_service.proto");
    find_symbol(f, &a, "coxswain.v1.SubmitTasksResponse.Result", "coxswain/v1/task_service.proto");
    find_symbol(f, &a, "coxswain.v1.Hello.worker_id", "coxswain/v1/worker_service.proto");
    find_symbol(f, &a, "coxswain.v1.ANSWER_KIND_STALE", "coxswain/v1/worker_service.proto");
    find_symbol(f, &a, "google.protobuf.Timestamp", "google/protobuf/timestamp.proto");
    find_symbol(f, &a, "coxswain.v1.NoSuchThing", NULL);
    find_symbol(f, &a, "", NULL);
    asker_close(f, &a);
}

static void test_reflection_finds_files_and_refuses_the_rest(void **state)
{
    struct fixture *f = *state;
    Grpc__Reflection__V1__ServerReflectionRequest request =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    struct asker a;

    asker_open(f, &a, &grpc__reflection__v1__server_reflection__descriptor);
    request.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
    request.file_by_filename = (char *)"coxswain/v1/types.proto";
    ask(f, &a, &request);
    assert_int_equal(a.answer->file_descriptor_response->n_file_descriptor_proto, 1);

    request.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE;
    request.all_extension_numbers_of_type = (char *)"coxswain.v1.Task";
    ask(f, &a, &request);
    assert_int_equal(a.answer->error_response->error_code, COX_RPC_NOT_FOUND);

    request.message_request_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET;
    ask(f, &a, &request);
    assert_int_equal(a.answer->error_response->error_code, COX_RPC_INVALID_ARGUMENT);
    asker_close(f, &a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_health_check),
        TEST(test_health_watch_is_told_of_changes),
        TEST(test_health_watch_ends_at_the_newest_state),
        TEST(test_reflection_lists_what_is_served),
        TEST(test_reflection_finds_symbols),
        TEST(test_reflection_finds_files_and_refuses_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
