/* What people say to a task, told as timelines: pause and resume, cancelling one step, retry, fork. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define CHAIN DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]},\"c\":{" RUN ",\"needs\":[\"b\"]}")

static void a_paused_task_finishes_what_runs_and_starts_nothing(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, CHAIN);
    ignore(t);
    pause_task(t, 1, true);
    expect(t, "task pauses", "reply ok t0-000001");
    assert_int_equal(view_of(t, 1).status, COX_TASK_PAUSED);
    pause_task(t, 1, true);
    expect(t, "reply ok t0-000001");
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1");
    assert_string_equal(reason_of(t, 1, "b"), "paused");
    crash(t);
    attach(t, "w1", 9);
    expect_nothing(t);
    pause_task(t, 1, false);
    expect(t, "task goes on", "reply ok t0-000001", "assign b#1 to w1");
    succeed(t, "w1", "b", "1");
    succeed(t, "w1", "c", "1");
    ignore(t);
    pause_task(t, 1, true);
    expect(t, "reply invalid argument: the task has ended");
    trace_end(t);
}

static void a_pause_holds_back_what_waits_for_a_worker_or_for_its_backoff(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN ",\"retry\":{\"initial_backoff\":\"1s\"}},\"b\":{" RUN "}"));
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    ignore(t);
    pause_task(t, 1, true);
    ignore(t);
    succeed(t, "w1", "b", "1");
    after_ms(t, 5000);
    ignore(t);
    assert_int_equal(n_attempts_of(t, 1, "a"), 1);
    pause_task(t, 1, false);
    beat(t, "w1");
    after_ms(t, 1000);
    ignore(t);
    assert_int_equal(n_attempts_of(t, 1, "a"), 2);
    succeed(t, "w1", "a", "1");
    ignore(t);
    trace_end(t);
}

static void one_step_is_cancelled_and_its_dependants_are_skipped(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]},\"c\":{\"wait\":{\"signal\":\"x\"}}"));
    ignore(t);
    cancel_step(t, 1, "a");
    expect(t, "a is to stop", "stop a on w1", "reply ok t0-000001");
    crash(t); /* it is durable */
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .holds = "a" });
    expect(t, "stop a on w1");
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO); /* as a process that is killed may report */
    expect(t, "a CANCELLED", "b SKIPPED", "answer accepted to w1");
    cancel_step(t, 1, "c");
    expect(t, "c is to stop", "c CANCELLED", "task SUCCEEDED {}", "reply ok t0-000001");
    trace_end(t);
}

static void a_retry_runs_what_did_not_succeed(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, CHAIN);
    retry_task(t, 1);
    ignore(t);
    succeed(t, "w1", "a", "1");
    fails(t, "w1", "b", COX_CODE_EXIT_NONZERO);
    ignore(t);
    archived(t, 1);
    assert_false(is_live(t, 1));
    retry_task(t, 1);
    expect(t, "task 1 runs again", "reply ok t0-000001", "assign b#2 to w1");
    assert_int_equal(status_of(t, 1, "a"), COX_STEP_SUCCEEDED);
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .holds = "b" });
    ignore(t);
    succeed(t, "w1", "b", "1");
    succeed(t, "w1", "c", "1");
    ignore(t);
    archived(t, 1);
    retry_task(t, 1);
    expect(t, "reply invalid argument: the task has succeeded: there is nothing to run again");
    trace_end(t);
}

static void a_fork_keeps_what_does_not_depend_on_its_step(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]},\"x\":{" RUN "}"));
    succeed(t, "w1", "a", "1");
    succeed(t, "w1", "x", "2");
    succeed(t, "w1", "b", "3");
    ignore(t);
    archived(t, 1);
    fork_task(t, 1, "nothing");
    expect(t, "reply invalid argument: at: the task has no such step");
    fork_task(t, 1, "b");
    expect(t, "task 2 is forked", "reply ok t0-000002", "assign 2/b#2 to w1");
    assert_int_equal(status_of(t, 2, "x"), COX_STEP_SUCCEEDED);
    crash(t);
    attach(t, "w1", 9);
    ignore(t);
    succeed_in(t, 2, "w1", "b", "3");
    ignore(t);
    assert_int_equal(view_of(t, 2).status, COX_TASK_SUCCEEDED);
    trace_end(t);
}

static void a_fork_owns_all_that_the_values_it_keeps_refer_to(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    struct cox_hash whole = upload(t, 0xcd);
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]}"));
    struct cox_input in = { .kind = COX_IN_RESULT };
    in.u.result.session = 1;
    in.u.result.ref = (struct cox_ref){ 1, 0, token_of(t, 1, "a") };
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.blobs = &whole;
    in.u.result.n_blobs = 1;
    trace_step(t, &in);
    assert_true(owns(t, 1, whole));
    fork_task(t, 1, "b");
    assert_true(owns(t, 2, whole));
    ignore(t);
    /* A power cut has taken what the state was told: a fork that sleeps, or has ended, says it once more. */
    state_forgets_owners(t);
    crash(t);
    assert_true(owns(t, 2, whole));
    attach(t, "w1", 9);
    cancel(t, 2, "no more");
    ignore(t);
    cancelled_in(t, 2, "w1", "b");
    ignore(t);
    state_forgets_owners(t);
    crash(t);
    assert_int_equal(view_of(t, 2).status, COX_TASK_CANCELLED);
    assert_true(owns(t, 2, whole));
    ignore(t);
    trace_end(t);
}

static void a_fork_at_an_alternative_is_one_at_its_race(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"r\":{\"race\":[{" RUN "},{" RUN "}]}"));
    succeed(t, "w1", "r.0", "1");
    cancelled(t, "w1", "r.1");
    ignore(t);
    fork_task(t, 1, "r.1");
    expect(t, "task 2 is forked", "2/r waits", "reply ok t0-000002", "assign 2/r.0#2 to w1",
           "assign 2/r.1#2 to w1");
    trace_end(t);
}

static void a_task_that_is_to_run_again_needs_room_too(void **state)
{
    (void)state;
    struct trace *t = trace_begin_with(1);
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN "}"));
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    archived(t, 1);
    submit(t, DOC("\"a\":{" RUN "}"));
    ignore(t);
    retry_task(t, 1);
    expect(t, "reply limit reached: too many live steps");
    cancel(t, 2, "");
    cancelled_in(t, 2, "w1", "a");
    archived(t, 2);
    ignore(t);
    retry_task(t, 1);
    expect(t, "task 1 runs again", "reply ok t0-000001", "assign a#2 to w1");
    trace_end(t);
}

static void a_running_task_is_forked_without_being_disturbed(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, CHAIN);
    succeed(t, "w1", "a", "1");
    ignore(t);
    fork_task(t, 1, "");
    expect(t, "task 2 is forked", "reply ok t0-000002", "assign 2/b#2 to w1");
    succeed(t, "w1", "b", "1");
    succeed(t, "w1", "c", "1");
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    cancel(t, 2, "");
    ignore(t);
    trace_end(t);
}

static void a_race_that_waited_for_the_task_to_go_on_begins_once(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN "},\"r\":{\"needs\":[\"a\"],\"race\":[{" RUN "},{" RUN "}]}"));
    pause_task(t, 1, true);
    succeed(t, "w1", "a", "1");
    ignore(t);
    pause_task(t, 1, false);
    expect(t, "task goes on", "r waits", "reply ok t0-000001", "assign r.0#1 to w1", "assign r.1#1 to w1");
    cancel(t, 1, "");
    ignore(t);
    trace_end(t);
}

static void a_retry_runs_what_was_made_of_a_failure_again(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t,
           DOC("\"a\":{" RUN ",\"allow_failure\":true},\"b\":{" RUN ",\"needs\":[\"a\"]},\"c\":{" RUN "}"));
    fails(t, "w1", "a", COX_CODE_DENIED);
    succeed(t, "w1", "b", "1");
    fails(t, "w1", "c", COX_CODE_DENIED);
    archived(t, 1);
    ignore(t);
    retry_task(t, 1);
    expect(t, "task 1 runs again", "reply ok t0-000001", "assign a#2 to w1", "assign c#2 to w1");
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1", "assign b#2 to w1");
    crash(t);
    ignore(t);
    trace_end(t);
}

static void a_retry_begins_a_race_with_all_its_alternatives(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"r\":{\"race\":[{" RUN "},{" RUN "}]}"));
    ignore(t);
    cancel(t, 1, "");
    ignore(t);
    succeed(t, "w1", "r.1", "7"); /* it was faster than the word; the race was not won by it */
    cancelled(t, "w1", "r.0");
    archived(t, 1);
    ignore(t);
    retry_task(t, 1);
    expect(t, "task 1 runs again", "r waits", "reply ok t0-000001", "assign r.0#2 to w1",
           "assign r.1#2 to w1");
    cancel(t, 1, "");
    ignore(t);
    trace_end(t);
}

static void a_fork_leaves_out_losers_that_are_just_being_stopped(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"r\":{\"race\":[{" RUN "},{" RUN "}]},\"b\":{" RUN ",\"needs\":[\"r\"]}"));
    succeed(t, "w1", "r.0", "1");
    ignore(t);
    fork_task(t, 1, "b");
    expect(t, "task 2 is forked", "reply ok t0-000002", "assign 2/b#2 to w1");
    assert_int_equal(status_of(t, 2, "r.1"), COX_STEP_CANCELLED);
    cancel(t, 1, "");
    cancel(t, 2, "");
    ignore(t);
    trace_end(t);
}

static void alternatives_that_were_cancelled_before_their_race_take_no_part(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN "},\"r\":{\"needs\":[\"a\"],\"allow_failure\":true,\"race\":[{" RUN "},{" RUN
                  "}]}"));
    cancel_step(t, 1, "r.1");
    ignore(t);
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "r waits", "answer accepted to w1", "assign r.0#1 to w1");
    succeed(t, "w1", "r.0", "2");
    expect(t, "r.0 SUCCEEDED", "r SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    submit(t, DOC("\"a\":{" RUN "},\"r\":{\"needs\":[\"a\"],\"race\":[{" RUN "},{" RUN "}]}"));
    cancel_step(t, 2, "r.0");
    cancel_step(t, 2, "r.1");
    succeed_in(t, 2, "w1", "a", "1");
    ignore(t);
    assert_int_equal(status_of(t, 2, "r"), COX_STEP_FAILED);
    trace_end(t);
}

static void a_step_that_came_back_unstarted_is_cancelled_alike_after_a_checkpoint(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN "}"));
    pause_task(t, 1, true);
    returned(t, "w1", "a");
    ignore(t);
    checkpoint(t);
    cancel_step(t, 1, "a");
    crash(t);
    ignore(t);
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_paused_task_finishes_what_runs_and_starts_nothing),
        cmocka_unit_test(a_pause_holds_back_what_waits_for_a_worker_or_for_its_backoff),
        cmocka_unit_test(one_step_is_cancelled_and_its_dependants_are_skipped),
        cmocka_unit_test(a_retry_runs_what_did_not_succeed),
        cmocka_unit_test(a_fork_keeps_what_does_not_depend_on_its_step),
        cmocka_unit_test(a_fork_owns_all_that_the_values_it_keeps_refer_to),
        cmocka_unit_test(a_fork_at_an_alternative_is_one_at_its_race),
        cmocka_unit_test(a_task_that_is_to_run_again_needs_room_too),
        cmocka_unit_test(a_running_task_is_forked_without_being_disturbed),
        cmocka_unit_test(a_race_that_waited_for_the_task_to_go_on_begins_once),
        cmocka_unit_test(a_retry_runs_what_was_made_of_a_failure_again),
        cmocka_unit_test(a_retry_begins_a_race_with_all_its_alternatives),
        cmocka_unit_test(a_fork_leaves_out_losers_that_are_just_being_stopped),
        cmocka_unit_test(alternatives_that_were_cancelled_before_their_race_take_no_part),
        cmocka_unit_test(a_step_that_came_back_unstarted_is_cancelled_alike_after_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
