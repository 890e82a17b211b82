/* Exact versions of programs, told as timelines. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define LINT "\"uses\":\"lint@1\""

static void worker(struct trace *t, const char *id, const char *handlers)
{
    attach_as(t, &(struct worker_spec){ .id = id, .slots = 1, .handlers = handlers });
}

static void rule_12_a_task_is_pinned_to_the_newest_when_submitted(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    worker(t, "old", "lint@1=1.9.3");
    worker(t, "new", "lint@1=1.10.0");
    submit(t, DOC("\"a\":{" LINT "},\"b\":{" LINT "}"));
    expect(t, "reply ok t0-000001",
           "assign a#1 to new version 1.10.0"); /* b waits: old has another version */
    assert_string_equal(reason_of(t, 1, "b"), "no capacity");
    succeed(t, "new", "a", "1");
    credit(t, "new", 2);
    expect(t, "a SUCCEEDED", "answer accepted to new", "assign b#1 to new version 1.10.0");
    trace_end(t);
}

static void rule_12_the_first_assignment_pins_when_nobody_offered_it(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC("\"a\":{" LINT "},\"b\":{" LINT "}"));
    expect(t, "reply ok t0-000001");
    assert_string_equal(reason_of(t, 1, "a"), "no worker");
    worker(t, "w1", "lint@1=1.4.2");
    expect(t, "assign a#1 to w1 version 1.4.2");
    worker(t, "w2", "lint@1=1.5.0");
    expect_nothing(t); /* b is of the same task */
    worker(t, "w3", "lint@1=1.4.2");
    expect(t, "assign b#1 to w3 version 1.4.2");
    trace_end(t);
}

static void rule_12_a_pinned_step_waits_for_its_version(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    worker(t, "w1", "lint@1=1.4.2");
    submit(t, DOC("\"a\":{" LINT "},\"b\":{" LINT ",\"needs\":[\"a\"]}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    detach(t, "w1");
    worker(t, "w2", "lint@1=1.5.0");
    expect_nothing(t);
    assert_string_equal(reason_of(t, 1, "b"), "version");
    struct cox_step_why why = why_of(t, 1, "b");
    assert_true(cox_slice_is(why.version, "1.4.2"));
    assert_int_equal(why.n_offer, 1);
    assert_int_equal(why.n_version, 0);
    assert_int_equal(queued(t, COX_REASON_VERSION), 1);
    submit(t, DOC("\"c\":{" LINT "}")); /* a new task takes what there is */
    expect(t, "reply ok t0-000002", "assign 2/c#1 to w2 version 1.5.0");
    worker(t, "w3", "lint@1=1.4.2");
    expect(t, "assign b#1 to w3 version 1.4.2");
    trace_end(t);
}

static void who_reports_no_version_matches_any(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    worker(t, "w1", "lint@1=1.4.2");
    submit(t, DOC("\"a\":{" LINT "},\"b\":{" LINT "}"));
    ignore(t);
    worker(t, "plain", "lint@1");
    expect(t, "assign b#1 to plain version 1.4.2");
    trace_end(t);
}

static void a_version_that_does_not_fit_otherwise_is_not_chosen(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(
        t, &(struct worker_spec){ .id = "gpu", .slots = 1, .handlers = "lint@1=1.4.2", .labels = "gpu=yes" });
    worker(t, "new", "lint@1=1.5.0");
    submit(t, DOC("\"a\":{" LINT ",\"requires\":\"gpu == yes\"}"));
    expect(t, "reply ok t0-000001", "assign a#1 to gpu version 1.4.2");
    trace_end(t);
}

static void pins_survive_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    worker(t, "w1", "lint@1=1.4.2");
    submit(t, DOC("\"a\":{" LINT "},\"b\":{" LINT ",\"needs\":[\"a\"]}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    checkpoint(t);
    crash(t);
    worker(t, "w2", "lint@1=1.5.0");
    expect_nothing(t);
    worker(t, "w1", "lint@1=1.4.2");
    expect(t, "assign b#1 to w1 version 1.4.2");
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_12_a_task_is_pinned_to_the_newest_when_submitted),
        cmocka_unit_test(rule_12_the_first_assignment_pins_when_nobody_offered_it),
        cmocka_unit_test(rule_12_a_pinned_step_waits_for_its_version),
        cmocka_unit_test(who_reports_no_version_matches_any),
        cmocka_unit_test(a_version_that_does_not_fit_otherwise_is_not_chosen),
        cmocka_unit_test(pins_survive_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
