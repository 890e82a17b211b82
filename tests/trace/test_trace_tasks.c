/* Tasks, told as timelines: cancel, deadline, keys, linking, values, checkpoints, the archive. */
#include "trace.h"

#include "cox/base/alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define DOC_WITH(more, steps) "{\"api_version\":\"v1\",\"name\":\"t\"," more ",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define ONE DOC("\"a\":{" RUN "}")
#define CHAIN DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]}")

static void cancel_stops_what_runs_and_nothing_else_starts(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, CHAIN);
    ignore(t);
    cancel(t, 1, "changed my mind");
    expect(t, "task stops: changed my mind", "stop a on w1", "reply ok t0-000001");
    assert_string_equal(reason_of(t, 1, "a"), "cancelling");
    assert_int_equal(status_of(t, 1, "b"), COX_STEP_CANCELLED);
    cancelled(t, "w1", "a");
    expect(t, "a CANCELLED", "task CANCELLED CANCELLED: changed my mind", "answer accepted to w1");
    cancel(t, 1, "again");
    expect(t, "reply ok t0-000001"); /* it is over: that is what was asked for */
    cancel(t, 9, "");
    expect(t, "reply not found");
    trace_end(t);
}

static void a_cancel_that_is_not_confirmed_ends_by_time(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    cancel(t, 1, "");
    ignore(t);
    for (int i = 0; i < 11; i++, beat(t, "w1"))
        after_ms(t, 2500);
    expect_nothing(t);
    after_ms(t, 5000);
    expect(t, "a CANCELLED", "task CANCELLED CANCELLED: cancelled by request");
    trace_end(t);
}

static void a_cancel_outlives_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, CHAIN);
    cancel(t, 1, "stop");
    ignore(t);
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    expect(t, "stop a on w1");
    cancelled(t, "w1", "a");
    expect(t, "a CANCELLED", "task CANCELLED CANCELLED: stop", "answer accepted to w1");
    trace_end(t);
}

static void a_deadline_fails_the_task(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC_WITH("\"budget\":{\"timeout\":\"30s\"}", "\"a\":{" RUN "}"));
    ignore(t);
    after_ms(t, 20000);
    crash(t);
    after_ms(t, 9900);
    expect_nothing(t);
    after_ms(t, 200);
    expect(t, "task stops: the task's budget.timeout has passed",
           "task FAILED TIMEOUT: the task's budget.timeout has passed");
    trace_end(t);
}

static void rule_11_a_key_names_one_task(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit_keyed(t, "k1", ONE);
    submit_keyed(t, "k1", ONE);
    submit_keyed(t, "k1", CHAIN);
    submit_keyed(t, "k2", ONE);
    expect(t, "reply ok t0-000001", "reply ok t0-000001 (known)",
           "reply already exists: the idempotency key was used for another document, input or label",
           "reply ok t0-000002");
    crash(t);
    submit_keyed(t, "k1", ONE);
    expect(t, "reply ok t0-000001 (known)");
    after_ms(t, 24 * 3600 * 1000 - 1);
    submit_keyed(t, "k1", ONE);
    expect(t, "reply ok t0-000001 (known)");
    after_ms(t, 1);
    submit_keyed(t, "k1", ONE);
    expect(t, "reply ok t0-000003");
    trace_end(t);
}

static void rule_11_a_key_outlives_its_archived_task(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit_keyed(t, "k1", ONE);
    succeed(t, "w1", "a", "1");
    archived(t, 1);
    checkpoint(t);
    crash(t);
    ignore(t);
    submit_keyed(t, "k1", ONE);
    expect(t, "reply ok t0-000001 (known)");
    submit(t, ONE);
    expect(t, "reply ok t0-000002"); /* its number is not given again either */
    trace_end(t);
}

static char *wide_document(uint32_t n_steps)
{
    struct cox_buf b = { 0 };
    cox_buf_append_str(&b, "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{");
    for (uint32_t i = 0; i < n_steps; i++)
        cox_buf_printf(&b, "%s\"s%u\":{" RUN "}", i > 0 ? "," : "", i);
    cox_buf_append_str(&b, "}}");
    char *text = cox_strdup(cox_buf_cstr(&b));
    cox_buf_fini(&b);
    return text;
}

static void a_large_task_becomes_visible_in_pieces(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    char *doc = wide_document(2600);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 3000 });
    submit(t, doc);
    cox_free(doc);
    ignore(t);
    assert_int_equal(status_of(t, 1, "s999"), COX_STEP_RUNNING);
    assert_int_equal(status_of(t, 1, "s1000"), COX_STEP_BLOCKED); /* a thousand a turn */
    beat(t, "w1");
    assert_int_equal(status_of(t, 1, "s1999"), COX_STEP_RUNNING);
    assert_int_equal(status_of(t, 1, "s2000"), COX_STEP_BLOCKED);
    after_ms(t, 0);
    assert_int_equal(status_of(t, 1, "s2599"), COX_STEP_RUNNING);
    ignore(t);
    trace_end(t);
}

static void a_task_may_be_cancelled_before_it_is_all_visible(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    char *doc = wide_document(2600);
    submit(t, doc);
    cox_free(doc);
    cancel(t, 1, "no");
    expect(t, "reply ok t0-000001", "task stops: no", "task CANCELLED CANCELLED: no", "reply ok t0-000001");
    trace_end(t);
}

static void large_values_are_evaluated_elsewhere(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 9 });
    submit(t, DOC_WITH("\"outputs\":{\"n\":\"${{ size(steps.a.output) }}\"}",
                       "\"a\":{" RUN "},"
                       "\"b\":{\"run\":{\"argv\":[\"cat\"],\"stdin\":\"${{ steps.a.output }}\"}},"
                       "\"c\":{" RUN ",\"if\":\"${{ size(steps.a.output) > 9 }}\"}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    succeed_large(t, "w1", "a", 5000);
    expect(t, "a SUCCEEDED", "evaluate for c", "answer accepted to w1", "evaluate for b");
    assert_string_equal(reason_of(t, 1, "b"), "evaluating");
    evaluate(t);
    expect(t, "assign c#1 to w1");
    evaluate(t);
    expect(t, "assign b#1 to w1");
    succeed(t, "w1", "b", "1");
    succeed(t, "w1", "c", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "c SUCCEEDED", "evaluate for outputs",
           "answer accepted to w1");
    evaluate(t);
    expect(t, "task SUCCEEDED {\"n\":5000}");
    trace_end(t);
}

static void large_inputs_are_computed_a_few_at_a_time(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    struct cox_buf doc = { 0 };
    cox_buf_append_str(&doc, "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"a\":{" RUN "}");
    for (int i = 0; i < 100; i++)
        cox_buf_printf(&doc, ",\"s%d\":{\"run\":{\"argv\":[\"cat\"],\"stdin\":\"${{ steps.a.output }}\"}}",
                       i);
    cox_buf_append_str(&doc, "}}");
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 1 });
    submit(t, cox_buf_cstr(&doc));
    succeed_large(t, "w1", "a", 5000);
    assert_int_equal(open_evaluations(t), COX_SPECS_EVALUATING_MAX);
    assert_string_equal(reason_of(t, 1, "s99"), "evaluating");
    evaluate(t);
    assert_int_equal(open_evaluations(t), COX_SPECS_EVALUATING_MAX); /* one came back, one followed */
    cancel(t, 1, "enough");
    while (open_evaluations(t) > 0)
        evaluate(t);
    ignore(t);
    cox_buf_fini(&doc);
    trace_end(t);
}

static void an_evaluation_under_way_is_asked_again_after_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 9 });
    submit(t,
           DOC("\"a\":{" RUN "},\"b\":{\"run\":{\"argv\":[\"cat\"],\"stdin\":\"${{ steps.a.output }}\"}}"));
    succeed_large(t, "w1", "a", 5000);
    evaluate(t);
    ignore(t);
    crash(t);
    expect_nothing(t); /* b is with w1: its spec left already */
    attach(t, "w1", 1);
    expect(t, "b taken back from its worker", "evaluate for b");
    evaluate(t);
    expect(t, "assign b#2 to w1");
    trace_end(t);
}

static void a_task_cancelled_during_an_evaluation_waits_for_it_before_it_is_forgotten(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 9 });
    submit(t,
           DOC("\"a\":{" RUN "},\"b\":{\"run\":{\"argv\":[\"cat\"],\"stdin\":\"${{ steps.a.output }}\"}}"));
    succeed_large(t, "w1", "a", 5000);
    ignore(t);
    cancel(t, 1, "no");
    expect(t, "task stops: no", "task CANCELLED CANCELLED: no", "reply ok t0-000001");
    archived(t, 1);
    evaluate(t); /* its image was still needed until here */
    expect_nothing(t);
    trace_end(t);
}

static void state_survives_a_crash_at_any_point_of_a_story(void **state)
{
    (void)state;
    for (int at = 0; at < 6; at++) {
        struct trace *t = trace_begin();
        attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 9 });
        submit(t, CHAIN);
        for (int now = 0; now < 6; now++) {
            if (now == 1)
                succeed(t, "w1", "a", "1");
            if (now == 3)
                checkpoint(t);
            if (now == at) {
                crash(t);
                attach_as(t, &(struct worker_spec){
                                 .id = "w1", .slots = 1, .credit = 9, .holds = now == 0 ? "a" : "b" });
            }
        }
        ignore(t);
        succeed(t, "w1", "b", "2");
        expect(t, "b SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
        trace_end(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancel_stops_what_runs_and_nothing_else_starts),
        cmocka_unit_test(a_cancel_that_is_not_confirmed_ends_by_time),
        cmocka_unit_test(a_cancel_outlives_a_crash),
        cmocka_unit_test(a_deadline_fails_the_task),
        cmocka_unit_test(rule_11_a_key_names_one_task),
        cmocka_unit_test(rule_11_a_key_outlives_its_archived_task),
        cmocka_unit_test(a_large_task_becomes_visible_in_pieces),
        cmocka_unit_test(a_task_may_be_cancelled_before_it_is_all_visible),
        cmocka_unit_test(large_values_are_evaluated_elsewhere),
        cmocka_unit_test(large_inputs_are_computed_a_few_at_a_time),
        cmocka_unit_test(an_evaluation_under_way_is_asked_again_after_a_crash),
        cmocka_unit_test(a_task_cancelled_during_an_evaluation_waits_for_it_before_it_is_forgotten),
        cmocka_unit_test(state_survives_a_crash_at_any_point_of_a_story),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
