/* Shared workspaces, told as timelines: where their files are, and where steps go on with them. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define IN(step) "\"affinity\":{\"workspace\":\"" step "\"},\"needs\":[\"" step "\"]"
#define CHAIN DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "},\"c\":{" RUN "," IN("b") "}")

static void alive_ms(struct trace *t, int64_t ms, const char *w)
{
    for (int64_t gone = 0; gone < ms; gone += 2500) {
        after_ms(t, 2500);
        beat(t, w);
    }
}

/* `a` has ended on w1, saved as x; b is assigned there. */
static struct trace *begin_chain(uint32_t slots)
{
    struct trace *t = trace_begin();
    attach(t, "w1", slots);
    submit(t, CHAIN);
    saved(t, 1, "x");
    succeed(t, "w1", "a", "1");
    ignore(t);
    return t;
}

static void what_was_saved_goes_on_elsewhere(void **state)
{
    (void)state;
    struct trace *t = begin_chain(4);
    attach(t, "w2", 4);
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    expect(t, "b goes to another worker after WORKER_LOST", "assign b#2 to w2 in a home 2 from x");
    saved(t, 1, "xy");
    succeed(t, "w2", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w2", "assign c#1 to w2 in a home 2 from y");
    assert_true(owns(t, 1, upload(t, 'x')) && owns(t, 1, upload(t, 'y')));
    saved(t, 2, "xyz");
    succeed(t, "w2", "c", "1");
    expect(t, "c SUCCEEDED", "task SUCCEEDED {}", "release t0-000001 on w2", "answer accepted to w2");
    trace_end(t);
}

static void who_waits_for_a_lost_worker_goes_elsewhere(void **state)
{
    (void)state;
    struct trace *t = begin_chain(1); /* no credit for b: it waits */
    attach(t, "w2", 4);
    expect_nothing(t);
    assert_string_equal(reason_of(t, 1, "b"), "affinity");
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    expect(t, "assign b#1 to w2 in a home 2 from x");
    trace_end(t);
}

static void a_worker_that_begins_anew_has_no_files(void **state)
{
    (void)state;
    struct trace *t = begin_chain(1);
    detach(t, "w1");
    attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "boot2", .slots = 1 });
    expect(t, "assign b#1 to w1 in a home 2 from x");
    trace_end(t);
}

static void and_what_it_had_not_saved_is_lost(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, CHAIN);
    unsaved(t, "there are more than 4 GiB in files");
    succeed(t, "w1", "a", "1");
    ignore(t);
    detach(t, "w1");
    attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "boot2", .slots = 1 });
    expect(
        t,
        "b refused WORKER_LOST: its workspace was lost with its worker w1; it had not been saved: there are "
        "more than 4 GiB in files",
        "c SKIPPED",
        "task FAILED WORKER_LOST: its workspace was lost with its worker w1; it had not been saved: there "
        "are "
        "more than 4 GiB in files",
        "release t0-000001 on w1");
    trace_end(t);
}

static void a_later_save_makes_up_for_an_earlier_one(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 4);
    submit(t, CHAIN);
    unsaved(t, "the worker's disk is full");
    succeed(t, "w1", "a", "1");
    saved(t, 1, "x");
    succeed(t, "w1", "b", "1");
    ignore(t);
    attach(t, "w2", 4);
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    expect(t, "c goes to another worker after WORKER_LOST", "assign c#2 to w2 in a home 2 from x");
    trace_end(t);
}

static void a_workspace_leaves_a_drained_worker(void **state)
{
    (void)state;
    struct trace *t = begin_chain(1);
    attach(t, "w2", 4);
    drain(t, "w1");
    expect(t, "assign b#1 to w2 in a home 2 from x");
    trace_end(t);
}

static void but_not_while_somebody_works_in_it(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 2);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "},\"c\":{" RUN "," IN("a") "}"));
    saved(t, 1, "x");
    succeed(t, "w1", "a", "1");
    attach(t, "w2", 4);
    ignore(t); /* b is on w1, and c has no credit there */
    policy(t, "w1", COX_POLICY_CORDON);
    expect(t, "reply ok -");
    saved(t, 2, "xy");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign c#1 to w2 in a home 2 from y");
    trace_end(t);
}

static void what_is_not_saved_stays_with_a_drained_worker(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, CHAIN);
    succeed(t, "w1", "a", "1"); /* an older worker: it says nothing */
    ignore(t);
    attach(t, "w2", 4);
    policy(t, "w1", COX_POLICY_CORDON);
    expect(t, "reply ok -");
    policy(t, "w1", COX_POLICY_UNCORDON);
    credit(t, "w1", 2);
    expect(t, "reply ok -", "assign b#1 to w1 in a");
    trace_end(t);
}

static void a_snapshot_that_was_overtaken_is_not_the_state(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 4);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "},\"c\":{" RUN "," IN(
                  "a") "},\"d\":{" RUN ",\"affinity\":{\"workspace\":\"a\"},\"needs\":[\"b\",\"c\"]}"));
    saved(t, 1, "x");
    succeed(t, "w1", "a", "1");
    saved(t, 3, "xyz");
    succeed(t, "w1", "c", "1");
    saved(t, 2, "xy"); /* it took longer to check */
    succeed(t, "w1", "b", "1");
    ignore(t);
    attach(t, "w2", 4);
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    expect(t, "d goes to another worker after WORKER_LOST", "assign d#2 to w2 in a home 2 from z");
    trace_end(t);
}

static void an_unchanged_tree_is_no_record(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    size_t before, changed_len;
    attach(t, "w1", 4);
    submit(t, CHAIN);
    saved(t, 1, "x");
    succeed(t, "w1", "a", "1");
    before = log_len(t);
    saved(t, 2, "xy");
    succeed(t, "w1", "b", "1");
    changed_len = log_len(t) - before;
    saved(t, 3, "xy");
    before = log_len(t);
    succeed(t, "w1", "c", "1");
    assert_true(log_len(t) - before < changed_len);
    ignore(t);
    trace_end(t);
}

static void the_state_survives_a_crash_and_a_checkpoint(void **state)
{
    (void)state;
    struct trace *t = begin_chain(1);
    checkpoint(t);
    crash(t);
    attach(t, "w2", 4);
    expect_nothing(t); /* w1 may come back */
    away_ms(t, 1000);
    alive_ms(t, 80000, "w2");
    expect(t, "assign b#1 to w2 in a home 2 from x");
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w2", .slots = 4, .holds = "b" });
    saved(t, 1, "xy");
    succeed(t, "w2", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w2", "assign c#1 to w2 in a home 2 from y");
    trace_end(t);
}

/* Its owner never ran: the first to begin makes the home, and the others follow. */
static void a_workspace_whose_owner_ran_nowhere(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    attach(t, "w2", 1);
    submit(t, DOC("\"a\":{" RUN ",\"if\":\"${{ false }}\"},\"b\":{" RUN
                  "," IN("a") ",\"if\":\"${{ always() }}\"},"
                              "\"c\":{" RUN "," IN("a") ",\"if\":\"${{ always() }}\"}"));
    expect(t, "a SKIPPED", "reply ok t0-000001", "assign b#1 to w1 in a");
    assert_string_equal(reason_of(t, 1, "c"), "affinity");
    saved(t, 1, "x");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1");
    credit(t, "w1", 2);
    expect(t, "assign c#1 to w1 in a from x");
    trace_end(t);
}

static void a_map_goes_on_in_what_was_saved(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    attach(t, "w2", 8);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") ",\"map\":{\"over\":[1,2,3]}}"));
    saved(t, 1, "x");
    succeed(t, "w1", "a", "1");
    saved(t, 2, "xy");
    items(t, "w1", "b[0]", "1");
    ignore(t);
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    ignore(t);
    saved(t, 1, "xya");
    items(t, "w2", "b[1]", "1");
    saved(t, 2, "xyb");
    items(t, "w2", "b[2]", "1");
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    ignore(t);
    trace_end(t);
}

static void a_task_that_runs_again_has_its_files_back(void **state)
{
    (void)state;
    struct trace *t = begin_chain(4);
    unsaved(t, "cancelled");
    fails(t, "w1", "b", COX_CODE_INPUT_INVALID);
    ignore(t);
    archived(t, 1);
    retry_task(t, 1);
    expect(t, "task 1 runs again", "reply ok t0-000001", "assign b#2 to w1 in a home 3 from x");
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_saved_goes_on_elsewhere),
        cmocka_unit_test(who_waits_for_a_lost_worker_goes_elsewhere),
        cmocka_unit_test(a_worker_that_begins_anew_has_no_files),
        cmocka_unit_test(and_what_it_had_not_saved_is_lost),
        cmocka_unit_test(a_later_save_makes_up_for_an_earlier_one),
        cmocka_unit_test(a_workspace_leaves_a_drained_worker),
        cmocka_unit_test(but_not_while_somebody_works_in_it),
        cmocka_unit_test(what_is_not_saved_stays_with_a_drained_worker),
        cmocka_unit_test(a_snapshot_that_was_overtaken_is_not_the_state),
        cmocka_unit_test(an_unchanged_tree_is_no_record),
        cmocka_unit_test(the_state_survives_a_crash_and_a_checkpoint),
        cmocka_unit_test(a_workspace_whose_owner_ran_nowhere),
        cmocka_unit_test(a_map_goes_on_in_what_was_saved),
        cmocka_unit_test(a_task_that_runs_again_has_its_files_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
