/* A whole worker, agent, stream, slots and processes: attempts, limits, restarts, logs. */
#include "session_fixture.h"

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
