/* Model steps between an engine and a router, both played here: what the engine is told, what the router is
 * asked, whatever becomes of the call. */
#include "model_steps_fixture.h"

#include <unistd.h>

/* ---------------------------------------------------------------- stories */

static void test_an_answer_is_the_output(void **state)
{
    (void)state;
    begin();
    assign_as(1, SPEC, 0, "acme");
    UNTIL(r.n_calls == 1);
    assert_string_equal(
        cox_buf_cstr(&r.calls[0].body),
        "{\"stream\":true,\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    assert_string_equal(cox_buf_cstr(&r.calls[0].tenant), "acme");
    assert_string_equal(cox_buf_cstr(&r.calls[0].program), "t0-1");
    assert_int_equal(r.calls[0].who.band, PLACEMENT_BAND_HIGH);
    assert_int_equal(r.calls[0].who.critical_path_ms, 1234);
    assert_true(r.calls[0].who.deadline_ns <= cox_clock_mono_ns() + 60000000000);
    head(0, 200, true);
    say(0, "Hel");
    say(0, "lo\\n");
    stop(0);
    UNTIL(e.n_results == 1);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    assert_string_equal(cox_buf_cstr(&e.output),
                        "{\"content\":\"Hello\\n\",\"finish_reason\":\"stop\",\"model\":\"m\",\"usage\":{"
                        "\"input_tokens\":100,\"output_tokens\":7,\"cached_tokens\":64}}");
    assert_int_equal(e.usage.model_calls, 1);
    assert_int_equal(e.usage.input_tokens, 100);
    assert_int_equal(e.usage.output_tokens, 7);
    assert_int_equal(e.usage.cached_input_tokens, 64);
    assert_int_equal(e.usage.wasted_tokens, 5);
    assert_int_equal(e.cost.micros, 42);
    end();
}

static void test_the_request_is_streamed_whatever_it_says(void **state)
{
    (void)state;
    begin();
    assign(1, "{\"request\":{\"stream\": false ,\"model\":\"m\"},\"cache_ms\":5000}");
    UNTIL(r.n_calls == 1);
    assert_string_equal(cox_buf_cstr(&r.calls[0].body), "{\"stream\": true ,\"model\":\"m\"}");
    assert_int_equal(r.calls[0].who.cache_ms, 5000);
    end();
}

static void test_tool_calls_are_put_together(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    head(0, 200, true);
    data(0, "data: "
            "{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{"
            "\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}"
            "]}}]}\n\n");
    data(
        0,
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{"
        "\"name\":\"g\",\"arguments\":\"{}\"}}]}}]}\n\ndata: "
        "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":"
        "[{\"index\":0,\"function\":{\"arguments\":\"{\\\"x\\\":\"}}]}}]}\n\n");
    data(0, "data: "
            "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":"
            "\"1}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n");
    finish(0, ROUTER_ANSWERED, NULL);
    UNTIL(e.n_results == 1);
    assert_string_equal(
        cox_buf_cstr(&e.output),
        "{\"content\":null,\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"arguments\":\"{\\\"x\\\":1}\"}},{\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\","
        "\"arguments\":\"{}\"}}],\"finish_reason\":\"tool_calls\",\"model\":\"m\",\"usage\":{\"input_"
        "tokens\":100,"
        "\"output_tokens\":7,\"cached_tokens\":64}}");
    end();
}

/* Of servers that give none, or one twice, and call_0 to another. */
static void test_each_call_has_an_id_of_its_own(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    head(0, 200, false);
    data(0, "{\"choices\":[{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\"}},{\"id\":\"x\","
            "\"function\":{\"name\":\"g\"}},{\"id\":\"call_0\",\"function\":{\"name\":\"h\"}},{\"id\":\"x\","
            "\"function\":{\"name\":\"i\"}}]},\"finish_reason\":\"tool_calls\"}]}");
    finish(0, ROUTER_ANSWERED, NULL);
    UNTIL(e.n_results == 1);
    assert_non_null(strstr(cox_buf_cstr(&e.output), "{\"id\":\"call_1\",\"type\":\"function\",\"function\":{"
                                                    "\"name\":\"f\""));
    assert_non_null(strstr(cox_buf_cstr(&e.output), "{\"id\":\"x\",\"type\":\"function\",\"function\":{"
                                                    "\"name\":\"g\""));
    assert_non_null(strstr(cox_buf_cstr(&e.output), "{\"id\":\"call_0\",\"type\":\"function\",\"function\":{"
                                                    "\"name\":\"h\""));
    assert_non_null(strstr(cox_buf_cstr(&e.output), "{\"id\":\"call_3\",\"type\":\"function\",\"function\":{"
                                                    "\"name\":\"i\""));
    end();
}

static void test_items_of_maps_are_answered_as_such(void **state)
{
    (void)state;
    begin();
    as_item = true;
    assign(1, SPEC);
    assign(2, SPEC);
    assign_as(3, SPEC, 1, "");
    as_item = false;
    UNTIL(r.n_calls == 3);
    head(0, 200, true);
    say(0, "x");
    stop(0);
    UNTIL(e.n_results == 1);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    assert_int_equal(e.item_status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    assert_non_null(strstr(cox_buf_cstr(&e.output), "\"content\":\"x\""));
    assert_int_equal(e.usage.output_tokens, 7);
    finish(1, ROUTER_FAILED, &(struct router_error){ .code = COX_CODE_UNAVAILABLE, .message = "none" });
    UNTIL(e.n_results == 2);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED); /* of the batch */
    assert_int_equal(e.item_status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_FAILED);
    assert_string_equal(cox_buf_cstr(&e.code), "UNAVAILABLE");
    UNTIL(r.calls[2].cancelled); /* its time limit */
    finish(2, ROUTER_CANCELLED, NULL);
    UNTIL(e.n_results == 3);
    assert_int_equal(e.n_items, 0); /* it shares the attempt's end */
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_TIMED_OUT);
    end();
}

/* Answers out of a cache, and of servers that do not stream. */
static void test_a_whole_answer_does_as_well(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    head(0, 200, false);
    data(0, "{\"model\":\"x\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"all ");
    data(0, "of it\"},\"finish_reason\":\"stop\"}]}");
    finish(0, ROUTER_ANSWERED, NULL);
    UNTIL(e.n_results == 1);
    assert_non_null(strstr(cox_buf_cstr(&e.output), "{\"content\":\"all of it\",\"finish_reason\":\"stop\""));
    end();
}

static void answer_with(uint64_t counter, const char *text)
{
    size_t i = r.n_calls;
    unsigned n = e.n_results;

    assign(counter,
           "{\"request\":{\"model\":\"m\"},\"output_schema\":{\"type\":\"object\",\"required\":[\"n\"]}}");
    UNTIL(r.n_calls == i + 1);
    head(i, 200, true);
    say(i, text);
    data(i, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n");
    finish(i, ROUTER_ANSWERED, NULL);
    UNTIL(e.n_results == n + 1);
}

static void test_an_answer_that_does_not_fit_its_schema_is_none(void **state)
{
    (void)state;
    begin();
    answer_with(1, " {\\\"n\\\": 1.50}\\n");
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    assert_string_equal(cox_buf_cstr(&e.output), "{\"n\":1.50}");
    answer_with(2, "{\\\"m\\\": 1}");
    expect_failure(COX_CODE_OUTPUT_INVALID, "does not fit output_schema");
    assert_int_equal(e.usage.output_tokens, 7); /* it was paid for all the same */
    answer_with(3, "{\\\"n\\\": [1, 2");
    expect_failure(COX_CODE_OUTPUT_INVALID, "cut off at max_tokens");
    end();
}

static void refuse(uint64_t counter, int status, const char *body)
{
    size_t i = r.n_calls;
    unsigned n = e.n_results;

    assign(counter, SPEC);
    UNTIL(r.n_calls == i + 1);
    head(i, status, false);
    data(i, body);
    finish(i, ROUTER_ANSWERED, NULL);
    UNTIL(e.n_results == n + 1);
}

static void test_refusals_become_codes(void **state)
{
    const struct router_error error = { .code = COX_CODE_RESOURCE_EXHAUSTED, .message = "the queue is full" };

    (void)state;
    begin();
    refuse(1, 400, "{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}");
    expect_failure(COX_CODE_CONTEXT_LENGTH, "400: too long");
    refuse(2, 400, "{\"error\":{\"message\":\"no such field\"}}");
    expect_failure(COX_CODE_MODEL_ERROR, "400: no such field");
    refuse(3, 401, "{\"detail\":\"who are you?\"}");
    expect_failure(COX_CODE_DENIED, "401: who are you?");
    refuse(4, 503, "<html>");
    expect_failure(COX_CODE_UNAVAILABLE, "503: <html>");
    assign(5, SPEC);
    UNTIL(r.n_calls == 5);
    finish(4, ROUTER_REFUSED, &error);
    UNTIL(e.n_results == 5);
    expect_failure(COX_CODE_RESOURCE_EXHAUSTED, "the queue is full");
    assign(6, "[{\"K\":\"s\"},{\"request\":{}},[]]");
    UNTIL(e.n_results == 6);
    expect_failure(COX_CODE_DENIED, "secrets");
    assign(7, "{}");
    UNTIL(e.n_results == 7);
    expect_failure(COX_CODE_INPUT_INVALID, "no request");
    end();
}

static void test_a_stream_that_goes_wrong_is_no_answer(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    head(0, 200, true);
    say(0, "half");
    data(0, "data: {\"error\":{\"message\":\"out of memory\"}}\n\n");
    UNTIL(r.calls[0].cancelled);
    say(0, "more"); /* was under way */
    finish(0, ROUTER_CANCELLED, NULL);
    UNTIL(e.n_results == 1);
    expect_failure(COX_CODE_MODEL_ERROR, "out of memory");
    assert_int_equal(e.usage.wasted_tokens, 5);
    assign(2, SPEC);
    UNTIL(r.n_calls == 2);
    head(1, 200, true);
    data(1, "data: nonsense\n\n");
    UNTIL(r.calls[1].cancelled);
    finish(1, ROUTER_CANCELLED, NULL);
    UNTIL(e.n_results == 2);
    expect_failure(COX_CODE_MODEL_ERROR, "no JSON object");
    end();
}

static void test_an_endless_answer_is_cut_off(void **state)
{
    struct cox_buf event = { 0 };

    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    head(0, 200, true);
    cox_buf_append_str(&event, "data: {\"choices\":[{\"delta\":{\"content\":\"");
    memset(cox_buf_extend(&event, 1 << 20), 'x', 1 << 20);
    cox_buf_append_str(&event, "\"}}]}\n\n");
    for (int i = 0; i <= 16; i++)
        r.calls[0].sink->on_data(r.calls[0].user, cox_buf_slice(&event));
    UNTIL(r.calls[0].cancelled);
    finish(0, ROUTER_CANCELLED, NULL);
    UNTIL(e.n_results == 1);
    expect_failure(COX_CODE_OUTPUT_TOO_LARGE, "longer than 16 MiB");
    cox_buf_fini(&event);
    end();
}

static void test_a_cancel_reaches_the_router_at_once(void **state)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__AttemptRef *all[1];

    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    all[0] = ref(1);
    m.cancels = all;
    m.n_cancels = 1;
    tell(&m);
    assert_true(r.calls[0].cancelled);
    finish(0, ROUTER_CANCELLED, NULL);
    UNTIL(e.n_results == 1);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_CANCELLED);
    assert_int_equal(e.usage.wasted_tokens, 5); /* what it spent is told */
    end();
}

static void test_a_time_limit_stops_the_call(void **state)
{
    (void)state;
    begin();
    assign_as(1, SPEC, 1, "");
    UNTIL(r.n_calls == 1 && r.calls[0].cancelled);
    assert_true(r.calls[0].who.deadline_ns <= cox_clock_mono_ns());
    finish(0, ROUTER_CANCELLED, NULL);
    UNTIL(e.n_results == 1);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_TIMED_OUT);
    assert_int_equal(e.usage.input_tokens, 100);
    end();
}

static void test_text_comes_to_who_watches(void **state)
{
    struct cox_buf large = { 0 };

    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    head(0, 200, true);
    say(0, "one ");
    want_log(1, true); /* late: the text so far */
    UNTIL(cox_slice_is(cox_buf_slice(&e.log), "one "));
    say(0, "two ");
    UNTIL(cox_slice_is(cox_buf_slice(&e.log), "one two "));
    want_log(1, false);
    say(0, "three ");
    want_log(1, true); /* anew, from the beginning */
    UNTIL(cox_slice_is(cox_buf_slice(&e.log), "one two three "));
    cox_buf_append_str(&large, "data: {\"choices\":[{\"delta\":{\"content\":\"");
    for (int i = 0; i < 100000; i++)
        cox_buf_append_str(&large, "\xc3\xa4"); /* two bytes each: no piece ends within one */
    cox_buf_append_str(&large, "\"}}]}\n\n");
    r.calls[0].sink->on_data(r.calls[0].user, cox_buf_slice(&large));
    stop(0);
    UNTIL(e.n_results == 1 && e.n_log_ends == 1);
    assert_int_equal(e.log.len, 14 + 200000); /* the last words, too */
    assert_true(cox_utf8_ok(cox_buf_slice(&e.log)));
    cox_buf_fini(&large);
    end();
}

static void test_results_are_kept_until_answered(void **state)
{
    (void)state;
    begin();
    e.answers = false;
    assign(1, SPEC);
    assign(2, SPEC);
    UNTIL(r.n_calls == 2);
    head(0, 200, true);
    say(0, "x");
    stop(0);
    UNTIL(e.n_results == 1);
    steps_on_closed(e.steps, false);
    e.answers = true;
    UNTIL(e.n_hellos == 2);
    assert_int_equal(e.n_holds, 2); /* one ended, one under way: it goes on */
    welcome();
    UNTIL(e.n_results == 2);
    assert_false(r.calls[1].cancelled);
    end();
}

static void test_words_about_programs_are_passed_on(void **state)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Expect x = COXSWAIN__V1__EXPECT__INIT, *all[] = { &x };
    char id[] = "t0-1", other[] = "t0-2";
    char *ids[] = { id, other };

    (void)state;
    begin();
    assign_as(1, SPEC, 0, "acme");
    x.task_id = id;
    x.in_ms = 300;
    m.expects = all;
    m.n_expects = 1;
    tell(&m);
    assert_string_equal(cox_buf_cstr(&r.expected), " acme/t0-1:300");
    m.n_expects = 0;
    m.released = ids;
    m.n_released = 2; /* of the other nothing was ever heard */
    tell(&m);
    assert_string_equal(cox_buf_cstr(&r.ended), " acme/t0-1");
    end();
}

static void test_spends_and_fences_are_passed_on(void **state)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__AttemptRef *all[1];

    (void)state;
    begin();
    spend = (struct attempts_spend){ .ref = { 7, 3, { 1, 3 } }, .n_calls = 2, .output_tokens = 11 };
    has_spend = true;
    steps_on_spend(e.steps);
    UNTIL(e.n_spends == 1);
    assert_int_equal(e.spent.model_calls, 2);
    assert_int_equal(e.spent.output_tokens, 11);
    all[0] = ref(3);
    m.fenced = all;
    m.n_fenced = 1;
    tell(&m);
    assert_int_equal(fenced.token.counter, 3);
    end();
}

static void test_a_shutdown_lets_the_last_answers_out(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    assign(2, SPEC);
    UNTIL(r.n_calls == 2);
    steps_shutdown(e.steps);
    UNTIL(e.n_drains == 1);
    head(0, 200, true);
    say(0, "x");
    stop(0);
    UNTIL(e.n_results == 1);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    UNTIL(r.calls[1].cancelled);
    finish(1, ROUTER_CANCELLED, NULL);
    UNTIL(e.n_results == 2);
    expect_failure(COX_CODE_PREEMPTED, "leave");
    UNTIL(e.n_closed == 1);
    end();
}

static void test_a_shutdown_tells_what_processes_spend(void **state)
{
    (void)state;
    begin();
    processes_call = true;
    steps_shutdown(e.steps);
    UNTIL(e.n_drains == 1);
    spend = (struct attempts_spend){ .ref = { 7, 3, { 1, 3 } }, .n_calls = 1, .n_ended = 1 };
    has_spend = true;
    steps_on_spend(e.steps);
    UNTIL(e.n_spends == 1);
    assert_int_equal(e.n_closed, 0);
    processes_call = false;
    steps_on_spend(e.steps);
    UNTIL(e.n_closed == 1);
    end();
}

/* The router tells the end of a call that was cancelled by it some time later. */
static void test_calls_outlive_the_end(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    assign(2, SPEC);
    UNTIL(r.n_calls == 2);
    head(0, 200, true);
    say(0, "x");
    steps_destroy(e.steps);
    e.steps = NULL;
    assert_true(r.calls[0].cancelled);
    assert_true(r.calls[1].cancelled);
    say(0, "y");
    finish(0, ROUTER_CANCELLED, NULL);
    finish(1, ROUTER_CANCELLED, NULL);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_is_the_output),
        cmocka_unit_test(test_the_request_is_streamed_whatever_it_says),
        cmocka_unit_test(test_tool_calls_are_put_together),
        cmocka_unit_test(test_each_call_has_an_id_of_its_own),
        cmocka_unit_test(test_items_of_maps_are_answered_as_such),
        cmocka_unit_test(test_a_whole_answer_does_as_well),
        cmocka_unit_test(test_an_answer_that_does_not_fit_its_schema_is_none),
        cmocka_unit_test(test_refusals_become_codes),
        cmocka_unit_test(test_a_stream_that_goes_wrong_is_no_answer),
        cmocka_unit_test(test_an_endless_answer_is_cut_off),
        cmocka_unit_test(test_a_cancel_reaches_the_router_at_once),
        cmocka_unit_test(test_a_time_limit_stops_the_call),
        cmocka_unit_test(test_text_comes_to_who_watches),
        cmocka_unit_test(test_results_are_kept_until_answered),
        cmocka_unit_test(test_words_about_programs_are_passed_on),
        cmocka_unit_test(test_spends_and_fences_are_passed_on),
        cmocka_unit_test(test_a_shutdown_lets_the_last_answers_out),
        cmocka_unit_test(test_a_shutdown_tells_what_processes_spend),
        cmocka_unit_test(test_calls_outlive_the_end),
    };

    alarm(60); /* what is waited for and never comes fails the test, too */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
