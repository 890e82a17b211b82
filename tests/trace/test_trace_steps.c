/* Steps, told as timelines: dependencies, conditions, retry, fallback, failure. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define DOC_WITH(more, steps) "{\"api_version\":\"v1\",\"name\":\"t\"," more ",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"

static void a_step_runs_after_the_step_it_needs(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 2);
    expect_nothing(t);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1", "assign b#1 to w1");
    succeed(t, "w1", "b", "2");
    expect(t, "b SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void a_diamond_joins_once(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]},\"c\":{" RUN ",\"needs\":[\"a\"]},"
                  "\"d\":{" RUN ",\"needs\":[\"b\",\"c\"]}"));
    succeed(t, "w1", "a", "1");
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "a SUCCEEDED", "answer accepted to w1",
           "assign b#1 to w1", "assign c#1 to w1");
    succeed(t, "w1", "c", "1");
    expect(t, "c SUCCEEDED", "answer accepted to w1");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign d#1 to w1");
    trace_end(t);
}

static void rule_2_outputs_travel_by_reference_and_expression(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 9 });
    submit(t, DOC_WITH("\"outputs\":{\"sum\":\"${{ steps.b.output.n + 1 }}\"}",
                       "\"a\":{" RUN "},\"b\":{\"run\":{\"argv\":[\"echo\",\"${{ steps.a.output }}\"]}}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    succeed(t, "w1", "a", "\"hello\"");
    expect(t, "a SUCCEEDED", "answer accepted to w1", "assign b#1 to w1");
    succeed(t, "w1", "b", "{\"n\":41}");
    expect(t, "b SUCCEEDED", "task SUCCEEDED {\"sum\":42}", "answer accepted to w1");
    trace_end(t);
}

#define RETRY "\"retry\":{\"max_attempts\":3,\"initial_backoff\":\"10s\",\"max_backoff\":\"60s\"}"

static void rule_3_a_failed_attempt_is_tried_again_after_a_backoff(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN "," RETRY "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a retries after EXIT_NONZERO", "answer accepted to w1");
    assert_string_equal(reason_of(t, 1, "a"), "backoff");
    after_ms(t, 4900); /* half of the backoff is the floor */
    beat(t, "w1");
    expect_nothing(t);
    after_ms(t, 5200); /* the whole is the ceiling */
    expect(t, "assign a#2 to w1");
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    beat(t, "w1");
    ignore(t);
    for (int s = 0; s < 20; s += 5, beat(t, "w1"))
        after_ms(t, 5000);
    expect(t, "assign a#3 to w1"); /* the second backoff is at most twice the first */
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: it broke", "answer accepted to w1");
    trace_end(t);
}

static void rule_3_a_code_that_is_not_listed_is_not_retried(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN ",\"retry\":{\"max_attempts\":3,\"on\":[\"TIMEOUT\"]}}"));
    ignore(t);
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: it broke", "answer accepted to w1");
    trace_end(t);
}

static void rule_4_after_the_retries_the_fallback_succeeds_as_the_step(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 9 });
    submit(t, DOC_WITH("\"outputs\":{\"a\":\"${{ steps.a.output }}\"}",
                       "\"a\":{" RUN ",\"fallback\":{\"run\":{\"argv\":[\"echo\",\"${{ error.code }}\"]}}}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a falls back after EXIT_NONZERO", "answer accepted to w1", "assign a#2 to w1 (fallback)");
    succeed(t, "w1", "a", "\"plan b\"");
    expect(t, "a SUCCEEDED", "task SUCCEEDED {\"a\":\"plan b\"}", "answer accepted to w1");
    trace_end(t);
}

static void rule_3_a_failed_fallback_fails_the_step(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN ",\"fallback\":{" RUN "}}"));
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    ignore(t);
    fails(t, "w1", "a", COX_CODE_TIMEOUT);
    expect(t, "a FAILED after TIMEOUT", "task FAILED TIMEOUT: it broke", "answer accepted to w1");
    trace_end(t);
}

static void rule_3_a_failure_skips_what_depends_on_it_and_other_branches_finish(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]},\"c\":{" RUN ",\"needs\":[\"b\"]},"
                  "\"x\":{" RUN "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "assign x#1 to w1");
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a FAILED after EXIT_NONZERO", "b SKIPPED", "c SKIPPED", "answer accepted to w1");
    succeed(t, "w1", "x", "1");
    expect(t, "x SUCCEEDED", "task FAILED EXIT_NONZERO: it broke", "answer accepted to w1");
    trace_end(t);
}

static void rule_3_allow_failure_lets_dependants_run(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN ",\"allow_failure\":true},\"b\":{" RUN ",\"needs\":[\"a\"]}"));
    ignore(t);
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a FAILED after EXIT_NONZERO", "answer accepted to w1", "assign b#1 to w1");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void rule_3_fail_fast_cancels_the_rest(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC_WITH("\"fail_fast\":true",
                       "\"a\":{" RUN "},\"b\":{" RUN "},\"c\":{" RUN ",\"needs\":[\"b\"]}"));
    ignore(t);
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a FAILED after EXIT_NONZERO", "task stops: it broke", "stop b on w1", "answer accepted to w1");
    assert_int_equal(status_of(t, 1, "c"), COX_STEP_CANCELLED);
    cancelled(t, "w1", "b");
    expect(t, "b CANCELLED", "task FAILED EXIT_NONZERO: it broke", "answer accepted to w1");
    trace_end(t);
}

static void what_waits_to_be_tried_again_stops_with_its_task(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN "," RETRY "},\"b\":{" RUN "}"));
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    ignore(t);
    cancel(t, 1, "enough");
    expect(t, "task stops: enough", "stop b on w1", "reply ok t0-000001");
    beat(t, "w1");
    after_ms(t, 5000);
    beat(t, "w1");
    after_ms(t, 5001); /* past the backoff, and b's worker has not confirmed */
    expect_nothing(t);
    cancelled(t, "w1", "b");
    expect(t, "b CANCELLED", "task CANCELLED CANCELLED: enough", "answer accepted to w1");
    trace_end(t);
}

static void a_task_fails_with_its_first_error(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "}"));
    ignore(t);
    fails(t, "w1", "b", COX_CODE_EXIT_NONZERO);
    expect(t, "b FAILED after EXIT_NONZERO", "answer accepted to w1");
    fails(t, "w1", "a", COX_CODE_INPUT_INVALID);
    expect(t, "a FAILED after INPUT_INVALID", "task FAILED EXIT_NONZERO: it broke", "answer accepted to w1");
    trace_end(t);
}

static void rule_6_a_condition_decides_on_outputs(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN "},"
                  "\"yes\":{" RUN ",\"if\":\"${{ steps.a.output == 'go' }}\"},"
                  "\"no\":{" RUN ",\"if\":\"${{ steps.a.output != 'go' }}\"},"
                  "\"after_no\":{" RUN ",\"needs\":[\"no\"]}"));
    ignore(t);
    succeed(t, "w1", "a", "\"go\"");
    expect(t, "a SUCCEEDED", "no SKIPPED", "after_no SKIPPED", "answer accepted to w1", "assign yes#1 to w1");
    succeed(t, "w1", "yes", "1");
    expect(t, "yes SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void rule_6_always_runs_after_a_failure_and_a_skip(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]},"
                  "\"tidy\":{" RUN ",\"needs\":[\"b\"],\"if\":\"${{ always() }}\"},"
                  "\"alert\":{" RUN ",\"needs\":[\"a\"],\"if\":\"${{ failure() }}\"}"));
    ignore(t);
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a FAILED after EXIT_NONZERO", "b SKIPPED", "answer accepted to w1", "assign alert#1 to w1",
           "assign tidy#1 to w1");
    trace_end(t);
}

static void rule_2_a_type_error_fails_the_step_and_names_the_expression(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 9 });
    submit(t, DOC("\"a\":{" RUN "},\"b\":{\"run\":{\"argv\":[\"echo\",\"${{ steps.a.output + 1 }}\"]}}"));
    ignore(t);
    succeed(t, "w1", "a", "\"text\"");
    assert_int_equal(status_of(t, 1, "b"), COX_STEP_FAILED);
    ignore(t); /* the wording is tests/unit/test_task_expr.c's business */
    trace_end(t);
}

static void rule_14_priority_goes_first_and_equal_priority_in_order(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC("\"low\":{" RUN ",\"priority\":-5},\"first\":{" RUN "},\"second\":{" RUN "},"
                  "\"high\":{" RUN ",\"priority\":50}"));
    ignore(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 4 });
    expect(t, "assign high#1 to w1", "assign first#1 to w1", "assign second#1 to w1", "assign low#1 to w1");
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_runs_after_the_step_it_needs),
        cmocka_unit_test(a_diamond_joins_once),
        cmocka_unit_test(rule_2_outputs_travel_by_reference_and_expression),
        cmocka_unit_test(rule_3_a_failed_attempt_is_tried_again_after_a_backoff),
        cmocka_unit_test(rule_3_a_code_that_is_not_listed_is_not_retried),
        cmocka_unit_test(rule_4_after_the_retries_the_fallback_succeeds_as_the_step),
        cmocka_unit_test(rule_3_a_failed_fallback_fails_the_step),
        cmocka_unit_test(rule_3_a_failure_skips_what_depends_on_it_and_other_branches_finish),
        cmocka_unit_test(rule_3_allow_failure_lets_dependants_run),
        cmocka_unit_test(rule_3_fail_fast_cancels_the_rest),
        cmocka_unit_test(what_waits_to_be_tried_again_stops_with_its_task),
        cmocka_unit_test(a_task_fails_with_its_first_error),
        cmocka_unit_test(rule_6_a_condition_decides_on_outputs),
        cmocka_unit_test(rule_6_always_runs_after_a_failure_and_a_skip),
        cmocka_unit_test(rule_2_a_type_error_fails_the_step_and_names_the_expression),
        cmocka_unit_test(rule_14_priority_goes_first_and_equal_priority_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
