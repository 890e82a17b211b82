/* Gates, told as timelines: who may start beside whom, and how often. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define LIMIT(n) "\"concurrency\":{\"key\":\"db\",\"limit\":" #n "}"
#define RATE(n) "\"rate\":{\"key\":\"api\",\"per_minute\":" #n "}"

static void rule_14_steps_of_a_key_share_its_permits(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," LIMIT(2) "},\"b\":{" RUN "," LIMIT(2) "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "assign b#1 to w1");
    submit(t, DOC("\"c\":{" RUN "," LIMIT(2) "},\"d\":{" RUN "}"));
    expect(t, "reply ok t0-000002", "assign 2/d#1 to w1"); /* what has no key does not wait */
    assert_string_equal(reason_of(t, 2, "c"), "concurrency");
    struct cox_step_why why = why_of(t, 2, "c");
    assert_true(cox_slice_is(why.gate, "db"));
    assert_int_equal(why.gate_limit, 2);
    assert_int_equal(why.gate_used, 2);
    assert_int_equal(queued(t, COX_REASON_CONCURRENCY), 1);
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign 2/c#1 to w1");
    assert_int_equal(queued(t, COX_REASON_CONCURRENCY), 0);
    trace_end(t);
}

static void keys_are_evaluated(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "},"
                  "\"b\":{" RUN ",\"concurrency\":{\"key\":\"${{ steps.a.output.x }}\",\"limit\":1}},"
                  "\"c\":{" RUN ",\"concurrency\":{\"key\":\"one\",\"limit\":1},\"needs\":[\"a\"]},"
                  "\"d\":{" RUN ",\"concurrency\":{\"key\":\"two\",\"limit\":1},\"needs\":[\"a\"]}"));
    ignore(t);
    succeed(t, "w1", "a", "{\"x\":\"one\"}");
    expect(t, "a SUCCEEDED", "answer accepted to w1", "assign b#1 to w1", "assign d#1 to w1");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign c#1 to w1");
    trace_end(t);
}

static void a_key_too_long_fails_the_step(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    char output[302];
    snprintf(output, sizeof output, "\"%0299d\"", 7);
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "},"
                  "\"b\":{" RUN ",\"concurrency\":{\"key\":\"${{ steps.a.output }}\",\"limit\":1}}"));
    ignore(t);
    succeed(t, "w1", "a", output);
    expect(t, "a SUCCEEDED", "b refused INPUT_INVALID: concurrency.key: 301 bytes, at most 256",
           "task FAILED INPUT_INVALID: concurrency.key: 301 bytes, at most 256", "answer accepted to w1");
    trace_end(t);
}

static void a_large_key_fails_the_step(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "},"
                  "\"b\":{" RUN ",\"rate\":{\"key\":\"${{ steps.a.output }}\",\"per_minute\":1}}"));
    ignore(t);
    succeed_large(t, "w1", "a", 100000);
    expect(
        t, "a SUCCEEDED",
        "b refused INPUT_INVALID: rate.key: its expression reads more than 65536 bytes; name a smaller value",
        "task FAILED INPUT_INVALID: rate.key: its expression reads more than 65536 bytes; name a smaller "
        "value",
        "answer accepted to w1");
    trace_end(t);
}

static void priority_goes_first_then_arrival(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," LIMIT(1) "},\"b\":{" RUN "," LIMIT(1) "},\"c\":{" RUN "," LIMIT(
                  1) "},"
                     "\"d\":{" RUN "," LIMIT(1) ",\"priority\":10}"));
    ignore(t); /* a came first */
    assert_int_equal(why_of(t, 1, "c").n_ahead, 2);
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1", "assign d#1 to w1");
    succeed(t, "w1", "d", "1");
    expect(t, "d SUCCEEDED", "answer accepted to w1", "assign b#1 to w1");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign c#1 to w1");
    trace_end(t);
}

static void the_newest_limit_counts(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," LIMIT(1) "},\"b\":{" RUN "," LIMIT(1) "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    submit(t, DOC("\"c\":{" RUN "," LIMIT(3) "}"));
    expect(t, "reply ok t0-000002", "assign b#1 to w1", "assign 2/c#1 to w1");
    submit(t, DOC("\"d\":{" RUN "," LIMIT(1) "}"));
    expect(t, "reply ok t0-000003");
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1"); /* two still run */
    trace_end(t);
}

static void a_step_that_backs_off_holds_no_permit(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," LIMIT(1) ",\"retry\":{\"max_attempts\":2,\"initial_backoff\":\"10s\","
                                             "\"on\":[\"EXIT_NONZERO\"]}},\"b\":{" RUN "," LIMIT(1) "}"));
    ignore(t);
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a retries after EXIT_NONZERO", "answer accepted to w1", "assign b#1 to w1");
    assert_string_equal(reason_of(t, 1, "a"), "backoff");
    trace_end(t);
}

static void a_step_given_back_keeps_its_permit(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 1 });
    submit(t, DOC("\"a\":{" RUN "," LIMIT(1) "},\"b\":{" RUN "," LIMIT(1) "}"));
    ignore(t);
    returned(t, "w1", "a");
    ignore(t);
    assert_string_equal(reason_of(t, 1, "b"), "concurrency");
    assert_string_equal(reason_of(t, 1, "a"), "no capacity");
    trace_end(t);
}

static void a_pause_takes_the_permit_of_a_step_whose_input_is_being_computed(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"big\":{" RUN "},"
                  "\"a\":{\"run\":{\"argv\":[\"${{ size(steps.big.output) }}\"]}," LIMIT(
                      1) "},"
                         "\"b\":{" RUN "," LIMIT(1) ",\"needs\":[\"big\"]}"));
    ignore(t);
    succeed_large(t, "w1", "big", 9000);
    expect(t, "big SUCCEEDED", "answer accepted to w1", "evaluate for a");
    set_paused(t, 1, true);
    set_paused(t, 1, false);
    expect(t, "task pauses", "reply ok t0-000001", "task goes on", "reply ok t0-000001", "evaluate for a");
    evaluate(t); /* of before the pause: its permit is not that one's */
    expect_nothing(t);
    set_paused(t, 1, true);
    evaluate(t);
    set_paused(t, 1, false);
    ignore(t);
    evaluate(t);
    expect(t, "assign a#1 to w1");
    assert_string_equal(reason_of(t, 1, "b"), "concurrency");
    trace_end(t);
}

static void who_is_cancelled_leaves_its_place(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," LIMIT(1) "}"));
    submit(t, DOC("\"b\":{" RUN "," LIMIT(1) "}"));
    submit(t, DOC("\"c\":{" RUN "," LIMIT(1) "}"));
    ignore(t);
    cancel(t, 2, "");
    ignore(t);
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1", "assign 3/c#1 to w1");
    trace_end(t);
}

static void permits_survive_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"z\":{" RUN "," LIMIT(1) "}"));
    succeed(t, "w1", "z", "1");
    archived(t, 1);
    submit(t, DOC("\"b\":{" RUN "},\"c\":{" RUN "," LIMIT(1) ",\"needs\":[\"b\"]}"));
    submit(t, DOC("\"a\":{" RUN "," LIMIT(1) "}"));
    succeed_in(t, 2, "w1", "b", "1"); /* c is of the older task, but waits for a */
    ignore(t);
    crash(t);
    assert_string_equal(reason_of(t, 2, "c"), "concurrency");
    attach(t, "w2", 8);
    expect_nothing(t);
    trace_end(t);
}

static void between_two_calls_a_program_holds_no_permit_after_a_crash_either(void **state)
{
    (void)state;
    const struct worker_spec w1 = { .id = "w1", .slots = 8, .handlers = "p@1,run", .holds = "b" };
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 8, .handlers = "p@1,run" });
    submit(t, DOC("\"p\":{\"uses\":\"p@1\"," LIMIT(1) "},\"b\":{" RUN "," LIMIT(1) "}"));
    expect(t, "reply ok t0-000001", "assign p#1 to w1");
    continues(t, "w1", 1, "p", "{\"steps\":{\"x\":{" RUN "}}}");
    expect(t, "p asks for steps", "compile steps with {}", "answer accepted to w1", "assign b#1 to w1");
    compile(t);
    ignore(t);
    crash(t);
    attach_as(t, &w1);
    ignore(t);
    succeed_in(t, 2, "w1", "x", "5");
    ignore(t);
    assert_int_equal(status_of(t, 1, "p"), COX_STEP_READY);
    assert_string_equal(reason_of(t, 1, "p"), "concurrency");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign p#2 to w1");
    trace_end(t);
}

static void rule_14_a_rate_lets_one_through_at_a_time(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," RATE(60) "},\"b\":{" RUN "," RATE(60) "},\"c\":{" RUN "," RATE(60) "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    assert_string_equal(reason_of(t, 1, "b"), "rate");
    assert_int_equal(queued(t, COX_REASON_RATE), 2);
    after_ms(t, 999);
    expect_nothing(t);
    after_ms(t, 1);
    expect(t, "assign b#1 to w1");
    after_ms(t, 999);
    expect_nothing(t);
    after_ms(t, 1);
    expect(t, "assign c#1 to w1");
    trace_end(t);
}

static void a_rate_is_remembered_while_nobody_waits_and_saves_nothing_up(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," RATE(60) "}"));
    after_ms(t, 400);
    submit(t, DOC("\"b\":{" RUN "," RATE(60) "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "reply ok t0-000002");
    after_ms(t, 600);
    expect(t, "assign 2/b#1 to w1");
    beat(t, "w1");
    after_ms(t, 5000);
    submit(t, DOC("\"c\":{" RUN "," RATE(60) "},\"d\":{" RUN "," RATE(60) "}"));
    expect(t, "reply ok t0-000003", "assign 3/c#1 to w1");
    trace_end(t);
}

static void rule_14_concurrency_then_rate(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," LIMIT(1) "," RATE(60) "},\"b\":{" RUN "," LIMIT(1) "," RATE(60) "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    assert_string_equal(reason_of(t, 1, "b"), "concurrency");
    after_ms(t, 300);
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1");
    assert_string_equal(reason_of(t, 1, "b"), "rate");
    after_ms(t, 700);
    expect(t, "assign b#1 to w1");
    trace_end(t);
}

static void a_map_is_one_step_to_a_gate(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN "," LIMIT(1) ",\"map\":{\"over\":[1,2]}},\"b\":{" RUN "," LIMIT(1) "}"));
    ignore(t);
    assert_string_equal(reason_of(t, 1, "b"), "concurrency");
    items(t, "w1", "a[0]", "1");
    ignore(t);
    assert_string_equal(reason_of(t, 1, "b"), "concurrency");
    items(t, "w1", "a[1]", "1");
    assert_int_equal(status_of(t, 1, "b"), COX_STEP_RUNNING);
    ignore(t);
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_14_steps_of_a_key_share_its_permits),
        cmocka_unit_test(keys_are_evaluated),
        cmocka_unit_test(a_key_too_long_fails_the_step),
        cmocka_unit_test(a_large_key_fails_the_step),
        cmocka_unit_test(priority_goes_first_then_arrival),
        cmocka_unit_test(the_newest_limit_counts),
        cmocka_unit_test(a_step_that_backs_off_holds_no_permit),
        cmocka_unit_test(a_step_given_back_keeps_its_permit),
        cmocka_unit_test(a_pause_takes_the_permit_of_a_step_whose_input_is_being_computed),
        cmocka_unit_test(who_is_cancelled_leaves_its_place),
        cmocka_unit_test(permits_survive_a_crash),
        cmocka_unit_test(between_two_calls_a_program_holds_no_permit_after_a_crash_either),
        cmocka_unit_test(rule_14_a_rate_lets_one_through_at_a_time),
        cmocka_unit_test(a_rate_is_remembered_while_nobody_waits_and_saves_nothing_up),
        cmocka_unit_test(rule_14_concurrency_then_rate),
        cmocka_unit_test(a_map_is_one_step_to_a_gate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
