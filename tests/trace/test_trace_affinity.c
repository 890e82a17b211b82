/* Affinity and workers' policy, told as timelines: where a step must or should run. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define IN(step) "\"affinity\":{\"workspace\":\"" step "\"},\"needs\":[\"" step "\"]"
#define WITH(step) "\"affinity\":{\"step\":\"" step "\"},\"needs\":[\"" step "\"]"
#define CHAIN DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "},\"c\":{" RUN "," IN("b") "}")

static void alive_ms(struct trace *t, int64_t ms, const char *w)
{
    for (int64_t gone = 0; gone < ms; gone += 2500) {
        after_ms(t, 2500);
        beat(t, w);
    }
}

static void rule_9_a_workspace_stays_on_its_worker(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 4);
    attach(t, "w2", 4);
    submit(t, CHAIN);
    expect(t, "reply ok t0-000001", "assign a#1 to w1 in a"); /* its files are kept: others work in them */
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1", "assign b#1 to w1 in a");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign c#1 to w1 in a");
    succeed(t, "w1", "c", "1");
    expect(t, "c SUCCEEDED", "task SUCCEEDED {}", "release t0-000001 on w1", "answer accepted to w1");
    trace_end(t);
}

static void who_must_wait_for_a_worker_blocks_nobody(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    assert_string_equal(reason_of(t, 1, "b"), "affinity");
    assert_true(cox_slice_is(why_of(t, 1, "b").worker, "w1"));
    attach(t, "w2", 1);
    expect_nothing(t);
    submit(t, DOC("\"d\":{" RUN "}"));
    expect(t, "reply ok t0-000002", "assign 2/d#1 to w2");
    credit(t, "w1", 2);
    expect(t, "assign b#1 to w1 in a");
    trace_end(t);
}

static void rule_9_a_workspace_is_lost_with_its_worker(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    attach(t, "w2", 4);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    detach(t, "w1");
    alive_ms(t, 7500, "w2");
    assert_string_equal(reason_of(t, 1, "b"), "affinity"); /* it may come back */
    alive_ms(t, 2500, "w2");
    expect(t, "b refused WORKER_LOST: its workspace was lost with its worker w1",
           "task FAILED WORKER_LOST: its workspace was lost with its worker w1");
    attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "boot2", .slots = 1 });
    expect(t, "release t0-000001 on w1"); /* told when it is back */
    trace_end(t);
}

static void who_runs_in_a_lost_workspace_fails_too(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 4);
    attach(t, "w2", 4);
    submit(t, CHAIN);
    succeed(t, "w1", "a", "1");
    ignore(t);
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    expect(t, "b goes to another worker after WORKER_LOST",
           "b refused WORKER_LOST: its workspace was lost with its worker w1", "c SKIPPED",
           "task FAILED WORKER_LOST: its workspace was lost with its worker w1");
    trace_end(t);
}

static void the_first_step_of_a_workspace_begins_anew_elsewhere(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 4);
    submit(t, CHAIN);
    ignore(t);
    attach(t, "w2", 4);
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    expect(t, "a goes to another worker after WORKER_LOST", "assign a#2 to w2 in a home 2");
    succeed(t, "w2", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w2", "assign b#1 to w2 in a home 2");
    cancel(t, 1, "");
    cancelled(t, "w2", "b");
    expect(t, "task stops: cancelled by request", "stop b on w2", "reply ok t0-000001", "b CANCELLED",
           "task CANCELLED CANCELLED: cancelled by request", "release t0-000001 on w2",
           "answer accepted to w2");
    trace_end(t);
}

static void rule_14_step_affinity_lets_others_help_when_a_worker_is_lost(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    attach(t, "w2", 4);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," WITH("a") "}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    assert_string_equal(reason_of(t, 1, "b"), "affinity");
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    expect(t, "assign b#1 to w2");
    trace_end(t);
}

static void a_worker_that_comes_back_in_time_goes_on(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    detach(t, "w1");
    after_ms(t, 5000);
    attach(t, "w1", 1);
    expect(t, "assign b#1 to w1 in a");
    trace_end(t);
}

static void affinity_survives_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    crash(t);
    attach(t, "w2", 4);
    expect_nothing(t);
    attach(t, "w1", 1);
    expect(t, "assign b#1 to w1 in a");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "task SUCCEEDED {}", "release t0-000001 on w1", "answer accepted to w1");
    trace_end(t);
}

static void after_a_crash_a_worker_that_stays_away_is_lost(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") "}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    crash(t);
    after_ms(t, 59000);
    expect_nothing(t);
    after_ms(t, 2000);
    expect(t, "b refused WORKER_LOST: its workspace was lost with its worker w1",
           "task FAILED WORKER_LOST: its workspace was lost with its worker w1");
    trace_end(t);
}

static void rule_9_a_map_works_in_a_workspace(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    attach(t, "w2", 8);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "," IN("a") ",\"map\":{\"over\":[1,2,3]}}"));
    succeed(t, "w1", "a", "1");
    ignore(t);
    items(t, "w1", "b[0]", "1");
    items(t, "w1", "b[1]", "1");
    ignore(t);
    detach(t, "w1");
    alive_ms(t, 10000, "w2");
    assert_int_equal(view_of(t, 1).status, COX_TASK_FAILED);
    assert_int_equal(view_of(t, 1).code, COX_CODE_WORKER_LOST);
    ignore(t);
    trace_end(t);
}

static void rule_14_spread_steps_keep_apart_while_they_can(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 8);
    submit(t, DOC("\"a\":{" RUN ",\"affinity\":{\"spread\":\"db\"}}"));
    ignore(t);
    attach(t, "w2", 8);
    submit(t, DOC("\"x\":{" RUN "}"));
    submit(t, DOC("\"b\":{" RUN ",\"affinity\":{\"spread\":\"db\"}},\"c\":{" RUN
                  ",\"affinity\":{\"spread\":\"db\"}}"));
    expect(t, "reply ok t0-000002", "assign 2/x#1 to w1", "reply ok t0-000003", "assign 3/b#1 to w2",
           "assign 3/c#1 to w1"); /* w1 has one of them already, but now so has w2 */
    trace_end(t);
}

/* ---- what operators say ---- */

static void a_cordoned_worker_gets_nothing_new(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 2);
    submit(t, DOC("\"a\":{" RUN "}"));
    policy(t, "w1", COX_POLICY_CORDON);
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "reply ok -");
    assert_int_equal(stats_of(t).n_workers_cordoned, 1);
    submit(t, DOC("\"b\":{" RUN "}"));
    expect(t, "reply ok t0-000002");
    assert_string_equal(reason_of(t, 2, "b"), "no capacity");
    assert_int_equal(why_of(t, 2, "b").n_cordoned, 1);
    succeed(t, "w1", "a", "1"); /* what it has goes on */
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    crash(t); /* a cordon is kept */
    attach(t, "w1", 2);
    expect_nothing(t);
    policy(t, "w1", COX_POLICY_UNCORDON);
    expect(t, "reply ok -", "assign 2/b#1 to w1");
    assert_int_equal(stats_of(t).n_workers_cordoned, 0);
    trace_end(t);
}

static void draining_asks_the_worker_to_leave(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 2);
    policy(t, "w1", COX_POLICY_DRAIN);
    expect(t, "drain w1", "reply ok -");
    drain(t, "w1");
    assert_int_equal(stats_of(t).n_workers_draining, 1);
    detach(t, "w1");
    assert_int_equal(stats_of(t).n_workers_disconnected, 1);
    after_ms(t, 10000);
    assert_int_equal(stats_of(t).n_workers_disconnected, 0); /* it does not come back */
    policy(t, "nobody", COX_POLICY_CORDON);
    expect(t, "reply not found");
    trace_end(t);
}

static void slots_are_counted_by_zone(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .labels = "zone=a" });
    attach_as(t, &(struct worker_spec){ .id = "w2", .slots = 3, .labels = "zone=b" });
    attach(t, "w3", 4);
    assert_int_equal(zone(t, "a").n_slots, 2);
    assert_int_equal(zone(t, "").n_slots, 4);
    submit(t, DOC("\"a\":{" RUN ",\"requires\":\"zone == b\"}"));
    assert_int_equal(zone(t, "b").n_busy, 1);
    assert_int_equal(zone(t, "a").n_busy, 0);
    succeed(t, "w2", "a", "1");
    assert_int_equal(zone(t, "b").n_busy, 0);
    detach(t, "w2");
    assert_int_equal(zone(t, "b").n_slots, 0);
    attach_as(t, &(struct worker_spec){ .id = "w2", .slots = 3, .labels = "zone=a" }); /* it moved */
    assert_int_equal(zone(t, "a").n_slots, 5);
    for (int i = 0; i < 200; i++) {
        char label[16];
        snprintf(label, sizeof(label), "zone=n%d", i);
        attach_as(t, &(struct worker_spec){ .id = "w4", .slots = 1, .labels = label });
        assert_int_equal(zone(t, label + 5).n_slots, i < 198 ? 1 : 0); /* a, b and 198 of them are 200 */
        assert_int_equal(zone(t, "other").n_slots, i < 198 ? 0 : 1);
        detach(t, "w4");
    }
    ignore(t);
    trace_end(t);
}

static void numbers_follow_the_work(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    after_ms(t, 1);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 2 });
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "},\"c\":{" RUN "}"));
    assert_int_equal(queued(t, COX_REASON_NO_CAPACITY), 1);
    assert_int_equal(queued(t, COX_REASON_NONE), 2); /* run */
    struct cox_engine_stats s = stats_of(t);
    assert_int_equal(s.n_slots, 1);
    assert_int_equal(s.n_slots_busy, 1); /* the other waits in the worker */
    assert_int_equal(s.n_tasks_by_status[COX_TASK_RUNNING], 1);
    after_ms(t, 2);
    succeed(t, "w1", "a", "1");
    credit(t, "w1", 3);
    s = stats_of(t);
    assert_int_equal(s.steps_finished_by_kind[COX_KIND_RUN][COX_STEP_SUCCEEDED], 1);
    assert_int_equal(s.ready_to_start.n[0], 2);
    assert_int_equal(s.ready_to_start.n[3], 1); /* 2 ms */
    assert_int_equal(s.ready_to_start.sum_us, 2000);
    cancel(t, 1, "");
    cancelled(t, "w1", "b");
    cancelled(t, "w1", "c");
    s = stats_of(t);
    assert_int_equal(s.steps_finished_by_kind[COX_KIND_RUN][COX_STEP_CANCELLED], 2);
    assert_int_equal(s.n_slots_busy, 0);
    assert_int_equal(s.tasks_finished[COX_TASK_CANCELLED], 1);
    assert_int_equal(s.task_duration.n[3], 1);
    assert_int_equal(queued(t, COX_REASON_NONE), 0);
    ignore(t);
    archived(t, 1);
    assert_int_equal(stats_of(t).n_tasks_by_status[COX_TASK_RUNNING], 0);
    submit(t, DOC("\"w\":{\"wait\":{\"signal\":\"go\"}}"));
    assert_int_equal(stats_of(t).n_tasks_by_status[COX_TASK_WAITING], 1);
    after_ms(t, 5000); /* it sleeps */
    assert_int_equal(stats_of(t).n_tasks_asleep, 1);
    assert_int_equal(stats_of(t).n_tasks_by_status[COX_TASK_WAITING], 1);
    ignore(t);
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_9_a_workspace_stays_on_its_worker),
        cmocka_unit_test(who_must_wait_for_a_worker_blocks_nobody),
        cmocka_unit_test(rule_9_a_workspace_is_lost_with_its_worker),
        cmocka_unit_test(who_runs_in_a_lost_workspace_fails_too),
        cmocka_unit_test(the_first_step_of_a_workspace_begins_anew_elsewhere),
        cmocka_unit_test(rule_14_step_affinity_lets_others_help_when_a_worker_is_lost),
        cmocka_unit_test(a_worker_that_comes_back_in_time_goes_on),
        cmocka_unit_test(affinity_survives_a_crash),
        cmocka_unit_test(after_a_crash_a_worker_that_stays_away_is_lost),
        cmocka_unit_test(rule_9_a_map_works_in_a_workspace),
        cmocka_unit_test(rule_14_spread_steps_keep_apart_while_they_can),
        cmocka_unit_test(a_cordoned_worker_gets_nothing_new),
        cmocka_unit_test(draining_asks_the_worker_to_leave),
        cmocka_unit_test(slots_are_counted_by_zone),
        cmocka_unit_test(numbers_follow_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
