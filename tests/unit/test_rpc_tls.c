/* gRPC over TLS: who calls, with which certificate, and who does not get that far. */
#include "rpc_fixture.h"
#include "tls_fixture.h"

#include <coxswain/v1/task_service.pb-c.h>

static struct {
    int n_opened, n_closed;
    char who[64], who_at_end[64];
    struct cox_rpc_call *held;
    bool hold;
} service;

static void name(char *ret, size_t len, struct cox_rpc_call *call)
{
    const struct cox_tls_certificate *c = cox_rpc_call_certificate(call);

    snprintf(ret, len, "%s/%s/%s", c ? c->name : "nobody", c && c->n_organizations ? c->organizations[0] : "",
             c && c->unit ? c->unit : "");
}

static void on_get(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    Coxswain__V1__GetTaskResponse response = COXSWAIN__V1__GET_TASK_RESPONSE__INIT;

    (void)message, (void)user;
    service.n_opened++;
    if (service.hold) {
        service.hold = false;
        service.held = call; /* whose certificate nobody asks for yet */
        return;
    }
    name(service.who, sizeof(service.who), call);
    cox_rpc_reply(call, &response.base);
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)status, (void)user;
    service.n_closed++;
    if (call == service.held) {
        name(service.who_at_end, sizeof(service.who_at_end), call);
        service.held = NULL; /* another call may get its address */
    }
}

static const struct cox_rpc_method methods[] = { { "GetTask",
                                                   { .on_message = on_get, .on_closed = on_closed } } };
static const struct cox_rpc_service services[] = {
    { &coxswain__v1__task_service__descriptor, methods, ARRAY_LEN(methods), NULL },
};

static struct fixture f;
static struct cox_tls *tls;

static int setup(void **state)
{
    struct cox_tls_files files;
    struct cox_buf error = { 0 };

    (void)state;
    memset(&service, 0, sizeof(service));
    tls_fixture_init();
    files = tls_files("server", "ca");
    assert_int_equal(cox_tls_create(&files, &tls, &error), COX_OK);
    fixture_init(&f, (struct cox_rpc_server_config){ .services = services, .n_services = 1, .tls = tls });
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_fini(&f);
    cox_tls_destroy(tls);
    tls_fixture_fini();
    return 0;
}

static struct cox_rpc_channel *dial(const char *host, const char *file, const char *ca)
{
    struct cox_tls_files files = tls_files(file, ca);
    char target[64];

    snprintf(target, sizeof(target), "%s:%d", host, cox_rpc_server_port(f.server));
    return cox_rpc_channel_create(f.loop, &(struct cox_rpc_channel_config){ .target = target,
                                                                            .own_connection = true,
                                                                            .tls = ca ? &files : NULL });
}

/* Asks once; the status, and what the client was told. */
static enum cox_err ask(struct cox_rpc_channel *channel, char *ret_why, size_t len)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_rpc_error *error = NULL;
    enum cox_err err = cox_rpc_unary_blocking(channel, &coxswain__v1__task_service__descriptor, "GetTask",
                                              &request.base, 20000, &response, &error);

    snprintf(ret_why, len, "%s", error && error->message ? error->message : "");
    cox_rpc_error_free(error);
    if (response)
        protobuf_c_message_free_unpacked(response, NULL);
    return err;
}

static void test_who_calls(void **state)
{
    static const struct {
        const char *host, *file, *ca, *who; /* who: NULL: it is not let in */
    } cases[] = {
        { "127.0.0.1", "alice", "ca", "alice/cox:submitter/blue" },
        { "127.0.0.1", "bob", "ca", "bob/cox:worker/" },
        { "127.0.0.1", NULL, "ca", NULL },
        { "127.0.0.1", "mallory", "ca", NULL },
        { "127.0.0.1", "server", "ca", NULL },
        { "127.0.0.1", "alice", "other", NULL },
        { "127.0.0.1", NULL, NULL, NULL },
        { "127.0.0.1", "alice", "missing", NULL },
    };
    char why[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_rpc_channel *channel = dial(cases[i].host, cases[i].file, cases[i].ca);
        int before = service.n_opened;
        enum cox_err err = ask(channel, why, sizeof(why));

        if ((err == COX_OK) != (cases[i].who != NULL))
            fail_msg("case %zu: %d %s", i, (int)err, why);
        assert_int_equal(service.n_opened - before, cases[i].who ? 1 : 0);
        if (cases[i].who)
            assert_string_equal(service.who, cases[i].who);
        cox_rpc_channel_destroy(channel);
    }
}

/* A client that has asked and left: others come and get its descriptors, and its call is still its own. */
static void test_who_has_left_is_still_itself(void **state)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    struct cox_rpc_channel *alice = dial("127.0.0.1", "alice", "ca");
    static const struct cox_rpc_handlers none;
    char why[512];

    (void)state;
    service.hold = true;
    struct cox_rpc_call *call = cox_rpc_call_start(
        alice, &(struct cox_rpc_call_config){ .service = &coxswain__v1__task_service__descriptor,
                                              .method = "GetTask",
                                              .handlers = &none,
                                              .wait_for_ready = true });
    assert_int_equal(cox_rpc_send(call, &request.base), COX_OK);
    cox_rpc_half_close(call);
    RUN_UNTIL(&f, service.held);
    cox_rpc_channel_destroy(alice);
    for (int i = 0; i < 20; i++) {
        struct cox_rpc_channel *bob = dial("127.0.0.1", "bob", "ca");
        assert_int_equal(ask(bob, why, sizeof(why)), COX_OK);
        assert_string_equal(service.who, "bob/cox:worker/");
        cox_rpc_channel_destroy(bob);
    }
    RUN_UNTIL(&f, service.who_at_end[0]);
    assert_string_equal(service.who_at_end, "alice/cox:submitter/blue");
}

static void test_reloading_drops_nobody(void **state)
{
    struct cox_tls_files files = tls_files("server", "other");
    struct cox_rpc_channel *alice = dial("127.0.0.1", "alice", "ca"), *late;
    struct cox_buf error = { 0 };
    char why[512];

    (void)state;
    assert_int_equal(ask(alice, why, sizeof(why)), COX_OK);
    assert_int_equal(cox_tls_reload(tls, &files, &error), COX_OK);
    assert_int_equal(ask(alice, why, sizeof(why)), COX_OK);
    assert_int_equal(cox_tls_stats(tls).n_done, 1); /* on the same connection */
    late = dial("127.0.0.1", "alice", "ca");
    assert_int_not_equal(ask(late, why, sizeof(why)), COX_OK);
    cox_rpc_channel_destroy(late);
    cox_rpc_channel_destroy(alice);
}

/* The right CA, and a certificate for somebody else. */
static void test_another_name(void **state)
{
    static const char *const hosts[] = { "elsewhere.example", "127.0.0.2" };
    struct cox_tls_files files, mine = tls_files("alice", "ca");
    struct cox_buf said = { 0 };
    char address[64], why[512];

    (void)state;
    tls_make(
        "ca", "elsewhere",
        (struct cox_tls_request){
            .role = COX_TLS_ROLE_SERVER, .name = "127.0.0.1", .hosts = hosts, .n_hosts = ARRAY_LEN(hosts) });
    files = tls_files("elsewhere", "ca");
    assert_int_equal(cox_tls_reload(tls, &files, &said), COX_OK);
    struct cox_rpc_channel *channel = dial("127.0.0.1", "alice", "ca");

    assert_int_not_equal(ask(channel, why, sizeof(why)), COX_OK);
    assert_int_equal(service.n_opened, 0);
    cox_rpc_channel_destroy(channel);
    snprintf(address, sizeof(address), "127.0.0.1:%d", cox_rpc_server_port(f.server));
    assert_true(cox_tls_diagnose(address, &mine, 5000, &said));
    assert_non_null(strstr(cox_buf_cstr(&said), "is not for 127.0.0.1 but for elsewhere.example, 127.0.0.2"));
    cox_buf_fini(&said);
}

static void test_what_a_client_is_told(void **state)
{
    struct {
        const char *host;
        struct cox_tls_files files;
        const char *says;
    } cases[] = {
        { "127.0.0.1", tls_files(NULL, "ca"), "wants a certificate" },
        { "127.0.0.1", tls_files("mallory", "ca"), "does not know the CA" },
        { "127.0.0.1", tls_files("server", "ca"), "must be one for a client" },
        { "127.0.0.1", tls_files("alice", "other"), "not signed by the CA" },
        { "127.0.0.1", { 0 }, "speaks TLS" },
        { "127.0.0.1", tls_files("alice", "ca"), NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_buf said = { 0 };
        char address[64];

        snprintf(address, sizeof(address), "%s:%d", cases[i].host, cox_rpc_server_port(f.server));
        bool found = cox_tls_diagnose(address, cases[i].files.ca ? &cases[i].files : NULL, 5000, &said);
        if (found != (cases[i].says != NULL) || (found && !strstr(cox_buf_cstr(&said), cases[i].says)))
            fail_msg("case %zu: %s", i, cox_buf_cstr(&said));
        cox_buf_fini(&said);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_who_calls),    T(test_who_has_left_is_still_itself), T(test_reloading_drops_nobody),
        T(test_another_name), T(test_what_a_client_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
