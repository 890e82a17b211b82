/* A whole worker, agent, stream, slots and processes, against an orchestrator of a few lines. */
#include "rpc_fixture.h"
#include "session.h"

#include <coxswain/v1/worker_service.pb-c.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define WORKERS (&coxswain__v1__worker_service__descriptor)

/* ---------------------------------------------------------------- the orchestrator */

struct orchestrator {
    struct cox_rpc_server *server;
    struct cox_rpc_call *call; /* the worker's stream */
    bool answers;
    int n_hellos;
    size_t n_holds; /* of the last Hello */
    uint64_t granted, returned, started;
    bool draining;
    int n_results;
    int status; /* of the last result */
    int exit_code;
    char code[32];
    struct cox_buf output, log;
    bool log_ended;
};

static struct orchestrator o;

static void send_down(Coxswain__V1__AttachResponse *m)
{
    assert_int_equal(cox_rpc_send(o.call, &m->base), COX_OK);
}

static void take_result(Coxswain__V1__Result *r)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Answer answer = COXSWAIN__V1__ANSWER__INIT;
    Coxswain__V1__Answer *answers[] = { &answer };

    o.n_results++;
    o.status = (int)r->status;
    o.exit_code = r->exit_code ? r->exit_code->value : -1;
    snprintf(o.code, sizeof(o.code), "%s", r->error ? r->error->code : "");
    cox_buf_clear(&o.output);
    cox_buf_append(&o.output, r->output_json.data, r->output_json.len);
    if (!o.answers)
        return;
    answer.ref = r->ref;
    answer.kind = COXSWAIN__V1__ANSWER_KIND__ANSWER_KIND_ACCEPTED;
    m.answers = answers;
    m.n_answers = 1;
    send_down(&m);
}

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__AttachRequest *m = (const Coxswain__V1__AttachRequest *)message;

    (void)user;
    if (m->hello) {
        Coxswain__V1__AttachResponse down = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
        Coxswain__V1__Welcome welcome = COXSWAIN__V1__WELCOME__INIT;

        o.call = call;
        o.n_hellos++;
        o.n_holds = m->hello->n_holds;
        o.granted = 0;
        assert_string_equal(m->hello->worker_id, "w1");
        assert_string_equal(m->hello->handlers[0], "run");
        assert_string_equal(m->hello->labels[0]->key, "zone");
        welcome.shard_uid = 77;
        down.welcome = &welcome;
        send_down(&down);
    }
    assert_ptr_equal(call, o.call); /* Hello was in the first message */
    o.started += m->n_started;
    for (size_t i = 0; i < m->n_results; i++)
        take_result(m->results[i]);
    o.returned += m->n_returned;
    if (m->credit)
        o.granted = m->credit->granted;
    for (size_t i = 0; i < m->n_logs; i++) {
        cox_buf_append(&o.log, m->logs[i]->data.data, m->logs[i]->data.len);
        o.log_ended |= m->logs[i]->end;
    }
    o.draining |= m->draining;
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)user;
    (void)status;
    if (o.call == call)
        o.call = NULL;
}

static void on_half_close(struct cox_rpc_call *call, void *user)
{
    (void)user;
    cox_rpc_finish(call);
}

static const struct cox_rpc_method methods[] = {
    { "Attach", { .on_message = on_message, .on_half_close = on_half_close, .on_closed = on_closed } },
};
static const struct cox_rpc_service service = { .descriptor = WORKERS, .methods = methods, .n_methods = 1 };

static void listen_at(struct cox_rpc_loop *loop, int port)
{
    char address[32];

    snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    assert_int_equal(cox_rpc_server_create(loop,
                                           &(struct cox_rpc_server_config){
                                               .address = address, .services = &service, .n_services = 1 },
                                           &o.server),
                     COX_OK);
}

static void assign(uint64_t number, const char *spec, uint64_t timeout_ms)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Assign as = COXSWAIN__V1__ASSIGN__INIT;
    Coxswain__V1__AttemptRef ref = COXSWAIN__V1__ATTEMPT_REF__INIT;
    Coxswain__V1__Token token = COXSWAIN__V1__TOKEN__INIT;
    Coxswain__V1__Assign *assigns[] = { &as };

    token.epoch = 1;
    token.counter = number;
    ref.task = number;
    ref.token = &token;
    as.ref = &ref;
    as.task_id = (char *)(uintptr_t) "t0-000001";
    as.step_name = (char *)(uintptr_t) "s";
    as.attempt = 1;
    as.handler = (char *)(uintptr_t) "run";
    as.timeout_ms = timeout_ms;
    as.spec_json.data = (uint8_t *)(uintptr_t)spec;
    as.spec_json.len = strlen(spec);
    m.assigns = assigns;
    m.n_assigns = 1;
    send_down(&m);
}

/* Cancels, or asks for the log of, attempt `number`. */
static void ask(uint64_t number, bool cancel)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__AttemptRef ref = COXSWAIN__V1__ATTEMPT_REF__INIT;
    Coxswain__V1__Token token = COXSWAIN__V1__TOKEN__INIT;
    Coxswain__V1__LogWanted log = COXSWAIN__V1__LOG_WANTED__INIT;
    Coxswain__V1__AttemptRef *cancels[] = { &ref };
    Coxswain__V1__LogWanted *logs[] = { &log };

    token.epoch = 1;
    token.counter = number;
    ref.task = number;
    ref.token = &token;
    log.ref = &ref;
    log.wanted = true;
    m.cancels = cancels;
    m.n_cancels = cancel;
    m.logs_wanted = logs;
    m.n_logs_wanted = !cancel;
    send_down(&m);
}

/* ---------------------------------------------------------------- the worker */

struct worker {
    struct cox_rpc_loop *loop;
    struct slots *slots;
    struct session *session;
    char dir[64];
    char address[32];
    const char *addresses[1];
    int n_attached;
    bool left;
};

static void wake(void *loop)
{
    cox_rpc_loop_wake(loop);
}

static void on_attached(void *user)
{
    (*(int *)user)++;
}

static void begin(struct worker *w)
{
    static const struct session_label labels[] = { { "zone", "a" } };
    static const char *const handlers[] = { "run" };

    memset(w, 0, sizeof(*w));
    memset(&o, 0, sizeof(o));
    o.answers = true;
    cox_rpc_init();
    w->loop = cox_rpc_loop_create();
    listen_at(w->loop, 0);
    snprintf(w->dir, sizeof(w->dir), "/tmp/cox-test-session-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->address, sizeof(w->address), "127.0.0.1:%d", cox_rpc_server_port(o.server));
    w->addresses[0] = w->address;
    assert_int_equal(
        slots_create(
            &(struct slots_config){
                .n_slots = 2, .work_dir = w->dir, .boot_id = "b1", .on_reply = wake, .user = w->loop },
            &w->slots),
        COX_OK);
    w->session = session_create(w->loop, w->slots,
                                &(struct session_config){ .agent = { .slots = 2,
                                                                     .n_addresses = 1,
                                                                     .drain_timeout_ms = 10000,
                                                                     .orphan_timeout_ms = 60000,
                                                                     .seed = 1 },
                                                          .addresses = w->addresses,
                                                          .worker_id = "w1",
                                                          .boot_id = "b1",
                                                          .version = "test",
                                                          .labels = labels,
                                                          .n_labels = 1,
                                                          .handlers = handlers,
                                                          .n_handlers = 1,
                                                          .on_attached = on_attached,
                                                          .user = &w->n_attached });
}

static void end(struct worker *w)
{
    session_destroy(w->session);
    slots_destroy(w->slots);
    cox_rpc_server_destroy(o.server);
    cox_rpc_loop_destroy(w->loop);
    cox_rpc_fini();
    cox_buf_fini(&o.output);
    cox_buf_fini(&o.log);
    assert_int_equal(rmdir(w->dir), 0); /* nothing was left in it */
}

#define TURN_UNTIL(w, cond)                                                                                  \
    do {                                                                                                     \
        int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;                                              \
        while (!(cond)) {                                                                                    \
            (w)->left |= !session_turn((w)->session, cox_clock_mono_ns() + 50000000);                        \
            assert_true(cox_clock_mono_ns() < give_up_ns);                                                   \
        }                                                                                                    \
    } while (0)

/* ---------------------------------------------------------------- stories */

static void test_steps_run_and_report(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assert_int_equal(w.n_attached, 1);
    assign(1, "{\"argv\":[\"echo\",\"hi\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    assert_string_equal(cox_buf_cstr(&o.output), "{\"exit_code\":0,\"stdout\":\"hi\\n\",\"stderr\":\"\"}");
    TURN_UNTIL(&w, o.granted >= 3);
    assign(2, "{\"argv\":[\"sh\",\"-c\",\"exit 7\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 2);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_FAILED);
    assert_string_equal(o.code, "EXIT_NONZERO");
    assert_int_equal(o.exit_code, 7);
    end(&w);
}

static void test_limits_and_cancels_kill(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"sleep\",\"1000\"]}", 50);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_TIMED_OUT);
    assert_string_equal(o.code, "TIMEOUT");
    assign(2, "{\"argv\":[\"sleep\",\"1000\"]}", 0);
    TURN_UNTIL(&w, o.started == 2);
    ask(2, true);
    TURN_UNTIL(&w, o.n_results == 2);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_CANCELLED);
    assert_int_equal(o.exit_code, 128 + SIGTERM);
    end(&w);
}

static void test_a_restarted_orchestrator_gets_its_steps_back(void **state)
{
    struct worker w;
    int port;

    (void)state;
    begin(&w);
    o.answers = false;
    port = cox_rpc_server_port(o.server);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"echo\",\"once\"]}", 0);
    assign(2, "{\"argv\":[\"sh\",\"-c\",\"until [ -e go ]; do sleep 0.05; done; echo twice\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 1 && o.started >= 1);
    cox_rpc_server_destroy(o.server);
    assert_null(o.call);
    o.answers = true;
    listen_at(w.loop, port);
    TURN_UNTIL(&w, o.n_hellos == 2);
    assert_int_equal(o.n_holds, 2); /* one ended and unanswered, one running */
    TURN_UNTIL(&w, o.n_results == 2);
    assert_string_equal(cox_buf_cstr(&o.output), "{\"exit_code\":0,\"stdout\":\"once\\n\",\"stderr\":\"\"}");
    ask(2, true);
    TURN_UNTIL(&w, o.n_results == 3);
    end(&w);
}

static void test_logs_are_sent_when_wanted(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"sh\",\"-c\",\"seq 1 100000; until [ -e go ]; do sleep 0.05; done\"]}", 0);
    TURN_UNTIL(&w, o.started == 1);
    assert_int_equal(o.log.len, 0);
    ask(1, false);
    TURN_UNTIL(&w, o.log.len == 588895);
    assert_false(o.log_ended);
    ask(1, true);
    TURN_UNTIL(&w, o.n_results == 1 && o.log_ended);
    o.log_ended = false;
    ask(9, false);
    TURN_UNTIL(&w, o.log_ended); /* there is none */
    end(&w);
}

static void test_nonsense_ends_the_stream_not_the_worker(void **state)
{
    struct worker w;
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Assign as = COXSWAIN__V1__ASSIGN__INIT;
    Coxswain__V1__Assign *assigns[] = { &as };

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    m.assigns = assigns;
    m.n_assigns = 1;
    send_down(&m);
    TURN_UNTIL(&w, o.n_hellos == 2 && o.granted == 2);
    m.n_assigns = 0;
    m.reconnect = true;
    send_down(&m);
    TURN_UNTIL(&w, o.n_hellos == 3 && o.granted == 2);
    assign(1, "not json", 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "INPUT_INVALID");
    end(&w);
}

static void test_sigterm_drains(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"sleep\",\"0.2\"]}", 0);
    TURN_UNTIL(&w, o.started == 1);
    kill(getpid(), SIGTERM);
    TURN_UNTIL(&w, o.draining);
    assert_false(w.left);
    TURN_UNTIL(&w, w.left);
    assert_int_equal(o.n_results, 1);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    end(&w);
}

static int block_signals(void **state)
{
    sigset_t all;

    (void)state;
    sigfillset(&all);
    return sigprocmask(SIG_BLOCK, &all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_run_and_report),
        cmocka_unit_test(test_limits_and_cancels_kill),
        cmocka_unit_test(test_a_restarted_orchestrator_gets_its_steps_back),
        cmocka_unit_test(test_logs_are_sent_when_wanted),
        cmocka_unit_test(test_nonsense_ends_the_stream_not_the_worker),
        cmocka_unit_test(test_sigterm_drains),
    };
    return cmocka_run_group_tests(tests, block_signals, NULL);
}
