/* Workers, told as timelines: credit, placement, loss, adoption, results. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define ONE DOC("\"a\":{" RUN "}")
#define THREE DOC("\"a\":{" RUN "},\"b\":{" RUN "},\"c\":{" RUN "}")

/* Time passes while the named workers beat. */
static void alive_ms(struct trace *t, int64_t ms, const char *w1, const char *w2)
{
    for (int64_t gone = 0; gone < ms; gone += 2500) {
        after_ms(t, 2500);
        if (w1 != NULL)
            beat(t, w1);
        if (w2 != NULL)
            beat(t, w2);
    }
}

static void no_more_is_assigned_than_credit_allows(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, THREE);
    attach(t, "w1", 2);
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "assign b#1 to w1");
    assert_string_equal(reason_of(t, 1, "c"), "no capacity");
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1"); /* the worker has not granted more */
    credit(t, "w1", 3);
    expect(t, "assign c#1 to w1");
    trace_end(t);
}

static void work_is_spread_over_workers(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 4);
    attach(t, "w2", 4);
    submit(t, THREE);
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "assign b#1 to w2", "assign c#1 to w1");
    trace_end(t);
}

static void credit_that_falls_ends_the_stream(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 2);
    credit(t, "w1", 1);
    expect(t, "close w1: credit.granted fell; it is cumulative on a stream");
    trace_end(t);
}

static void rule_14_handlers_labels_and_resources_must_fit(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "plain", .slots = 4 });
    submit(t, DOC("\"a\":{\"uses\":\"lint@1\"},"
                  "\"b\":{" RUN ",\"requires\":\"arch == arm64, spot != true\"},"
                  "\"c\":{" RUN ",\"resources\":{\"cpu\":2,\"memory\":\"1Gi\"}}"));
    expect(t, "reply ok t0-000001");
    assert_string_equal(reason_of(t, 1, "a"), "no worker");
    attach_as(t, &(struct worker_spec){ .id = "spot", .slots = 4, .labels = "arch=arm64,spot=true" });
    expect_nothing(t);
    attach_as(t, &(struct worker_spec){ .id = "arm", .slots = 4, .labels = "arch=arm64" });
    expect(t, "assign b#1 to arm");
    attach_as(t, &(struct worker_spec){ .id = "lint", .slots = 4, .handlers = "lint@1" });
    expect(t, "assign a#1 to lint");
    attach_as(t, &(struct worker_spec){ .id = "big",
                                        .slots = 4,
                                        .resources = { .cpu_milli = 2500, .memory_bytes = 2LL << 30 } });
    expect(t, "assign c#1 to big");
    trace_end(t);
}

static void rule_14_resources_are_taken_and_given_back(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 8, .resources = { .cpu_milli = 2000 } });
    submit(t, DOC("\"a\":{" RUN ",\"resources\":{\"cpu\":1}},\"b\":{" RUN ",\"resources\":{\"cpu\":1}},"
                  "\"c\":{" RUN ",\"resources\":{\"cpu\":1}}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "assign b#1 to w1");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign c#1 to w1");
    trace_end(t);
}

static void a_silent_worker_is_lost_and_its_steps_go_to_others(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    attach(t, "w2", 1);
    started(t, "w1", "a");
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    alive_ms(t, 7500, NULL, "w2");
    expect_nothing(t); /* 8 s is the limit */
    alive_ms(t, 2500, NULL, "w2");
    expect(t, "a goes to another worker after WORKER_LOST", "close w1: silent for longer than lost_ms",
           "assign a#2 to w2");
    trace_end(t);
}

static void a_broken_stream_is_not_a_death(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    attach(t, "w2", 1);
    submit(t, ONE);
    ignore(t);
    detach(t, "w1");
    assert_string_equal(reason_of(t, 1, "a"), "worker away");
    alive_ms(t, 5000, NULL, "w2");
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    expect_nothing(t);
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

/* Rule 7: who was stopped with us, or has lost us meanwhile, gets as long as the gap was, at most 8 s. */
static void after_a_gap_workers_have_time_to_be_heard(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    attach(t, "w2", 1);
    started(t, "w1", "a");
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    stopped_ms(t, 12000);
    alive_ms(t, 7500, NULL, "w2");
    expect_nothing(t);
    detach(t, "w1"); /* it was away as well, and finds us now */
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    alive_ms(t, 10000, "w1", "w2");
    expect_nothing(t);
    stopped_ms(t, 6000);
    alive_ms(t, 7500, NULL, "w2"); /* as long as it was silent before, and 6 s more */
    expect(t, "a goes to another worker after WORKER_LOST", "close w1: silent for longer than lost_ms",
           "assign a#2 to w2");
    trace_end(t);
}

static void a_gap_is_not_part_of_a_workers_time(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN ",\"timeout\":\"1s\"}"));
    started(t, "w1", "a");
    ignore(t);
    stopped_ms(t, 15000); /* the step's own second, and the ten that its worker has to say so */
    detach(t, "w1");
    alive_ms(t, 2500, NULL, NULL);
    expect_nothing(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void a_gap_is_not_part_of_the_adoption_window(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    ignore(t);
    crash(t);
    attach(t, "w2", 1);
    stopped_ms(t, 70000);
    alive_ms(t, 57500, NULL, "w2");
    expect_nothing(t);
    alive_ms(t, 5000, NULL, "w2");
    expect(t, "a goes to another worker after WORKER_LOST", "assign a#2 to w2");
    trace_end(t);
}

/* A host on which we never run for long: the living are heard each time, and what is dead has to be seen. */
static void stuttering_s(struct trace *t, int s, const char *w1, const char *w2)
{
    for (int i = 0; i < s; i++) {
        stopped_ms(t, 1000);
        if (w1 != NULL)
            beat(t, w1);
        beat(t, w2);
    }
}

static void gaps_without_end_do_not_keep_the_dead_alive(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    attach(t, "w2", 1);
    started(t, "w1", "a");
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    stuttering_s(t, 7, NULL, "w2");
    expect_nothing(t);
    stuttering_s(t, 5, NULL, "w2");
    expect(t, "a goes to another worker after WORKER_LOST", "close w1: silent for longer than lost_ms",
           "assign a#2 to w2");
    trace_end(t);
}

static void gaps_without_end_do_not_hide_what_is_never_started(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "liar", 1);
    submit(t, ONE);
    attach(t, "w2", 1);
    ignore(t);
    stuttering_s(t, 29, "liar", "w2");
    expect_nothing(t);
    stuttering_s(t, 5, "liar", "w2");
    expect(t, "a goes to another worker after WORKER_LOST", "stop a on liar", "assign a#2 to w2");
    trace_end(t);
}

static void gaps_without_end_do_not_keep_the_adoption_window_open(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    ignore(t);
    crash(t);
    attach(t, "w2", 1);
    stuttering_s(t, 55, NULL, "w2");
    expect_nothing(t);
    stuttering_s(t, 20, NULL, "w2");
    expect(t, "a goes to another worker after WORKER_LOST", "assign a#2 to w2");
    trace_end(t);
}

static void a_worker_that_reboots_has_lost_its_attempts(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    ignore(t);
    detach(t, "w1");
    attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "boot2", .slots = 1 });
    expect(t, "a goes to another worker after WORKER_LOST", "assign a#2 to w1");
    trace_end(t);
}

static void rule_3_a_step_that_kills_its_workers_fails_at_the_loss_limit(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN ",\"retry\":{\"max_attempts\":2}}"));
    for (int boot = 2; boot <= 10; boot++) {
        char name[16];
        snprintf(name, sizeof name, "boot%d", boot);
        attach_as(t, &(struct worker_spec){ .id = "w1", .boot = name, .slots = 1 });
    }
    ignore(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "last", .slots = 1 });
    expect(t, "a FAILED after WORKER_LOST", "task FAILED WORKER_LOST: the worker was lost",
           "close w1: a newer stream of this worker was opened");
    trace_end(t);
}

static void the_newest_stream_wins(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    attach(t, "w1", 1);
    expect(t, "close w1: a newer stream of this worker was opened");
    submit(t, ONE);
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    trace_end(t);
}

static void after_a_crash_a_running_step_is_adopted_not_run_again(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    attach(t, "w2", 1);
    submit(t, ONE);
    started(t, "w1", "a");
    ignore(t);
    crash(t);
    attach(t, "w2", 1);
    expect_nothing(t); /* idle, but the step is not its to take */
    alive_ms(t, 30000, NULL, "w2");
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    alive_ms(t, 60000, "w1", "w2");
    expect_nothing(t);
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void after_a_crash_what_the_hello_does_not_list_runs_again_uncharged(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    ignore(t);
    crash(t);
    attach(t, "w1", 1);
    expect(t, "a taken back from its worker", "assign a#2 to w1");
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "a FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: it broke", "answer accepted to w1");
    trace_end(t);
}

static void after_a_crash_a_worker_that_stays_away_is_lost_with_the_adoption_window(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    ignore(t);
    crash(t);
    attach(t, "w2", 1);
    alive_ms(t, 57500, NULL, "w2");
    expect_nothing(t);
    alive_ms(t, 5000, NULL, "w2");
    expect(t, "a goes to another worker after WORKER_LOST", "assign a#2 to w2");
    trace_end(t);
}

static void a_result_is_accepted_once_and_every_report_is_answered(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]}"));
    struct cox_token given = token_of(t, 1, "a");
    ignore(t);
    report_token(t, "w1", 1, 0, given);
    expect(t, "a SUCCEEDED", "answer accepted to w1");
    report_token(t, "w1", 1, 0, given);
    expect(t, "answer duplicate to w1");
    report_token(t, "w1", 1, 0, (struct cox_token){ given.epoch, given.counter + 7 });
    expect(t, "answer stale to w1");
    report_token(t, "w1", 1, 0, (struct cox_token){ given.epoch + 1, given.counter });
    expect(t, "answer stale to w1");
    report_token(t, "w1", 1, 1, (struct cox_token){ 0, 0 });
    expect(t, "answer stale to w1");
    report_token(t, "w1", 1, 99, given);
    expect(t, "answer unknown to w1");
    report_token(t, "w1", 77, 0, given);
    expect(t, "answer unknown to w1");
    trace_end(t);
}

/* A token may be guessed, or seen: the right to report is the worker's that was given the attempt. */
static void nobody_reports_for_another_worker(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    attach_as(t, &(struct worker_spec){ .id = "w2", .slots = 1, .handlers = "lint@1" });
    submit(t, DOC("\"a\":{" RUN "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    succeed(t, "w2", "a", "\"forged\"");
    expect(t, "answer stale to w2");
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w2", .slots = 1, .handlers = "lint@1" });
    succeed(t, "w2", "a", "\"forged\"");
    expect(t, "answer stale to w2");
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" }); /* its newest stream */
    ignore(t);
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void a_result_of_before_the_crash_is_accepted_after_it(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, ONE);
    struct cox_token given = token_of(t, 1, "a");
    ignore(t);
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    report_token(t, "w1", 1, 0, given);
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void a_prefetched_step_given_back_goes_on_without_a_trace(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 2 });
    submit(t, DOC("\"a\":{" RUN "},\"b\":{" RUN "}"));
    attach(t, "w2", 1);
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "assign b#1 to w1");
    struct cox_token old = token_of(t, 1, "b");
    returned(t, "w1", "b");
    expect(t, "b taken back from its worker", "assign b#1 to w2");
    report_token(t, "w1", 1, 1, old);
    expect(t, "answer stale to w1");
    trace_end(t);
}

static void a_draining_worker_gets_nothing_new(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 4);
    drain(t, "w1");
    submit(t, ONE);
    expect(t, "reply ok t0-000001");
    attach(t, "w2", 1);
    expect(t, "assign a#1 to w2");
    trace_end(t);
}

static void an_assignment_that_is_never_started_is_taken_away(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "liar", 1);
    submit(t, ONE);
    attach(t, "w2", 1);
    ignore(t);
    alive_ms(t, 27500, "liar", "w2");
    expect_nothing(t);
    alive_ms(t, 5000, "liar", "w2");
    expect(t, "a goes to another worker after WORKER_LOST", "stop a on liar", "assign a#2 to w2");
    trace_end(t);
}

static void a_worker_that_misses_its_timeout_is_overruled(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN ",\"timeout\":\"20s\"}"));
    started(t, "w1", "a");
    ignore(t);
    alive_ms(t, 27500, "w1", NULL);
    expect_nothing(t); /* its own limit is 20 s; it is given 10 s more */
    alive_ms(t, 5000, "w1", NULL);
    expect(t, "a FAILED after TIMEOUT",
           "task FAILED TIMEOUT: still running after its timeout; its worker did not stop it",
           "stop a on w1");
    trace_end(t);
}

static void when_much_of_a_fleet_falls_silent_losses_are_suspended(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    char names[12][8];
    for (int i = 0; i < 12; i++) {
        snprintf(names[i], sizeof names[i], "w%d", i);
        attach(t, names[i], 1);
    }
    submit(t, ONE);
    expect(t, "reply ok t0-000001", "assign a#1 to w0");
    started(t, "w0", "a");
    for (int s = 0; s < 4; s++) { /* w0 .. w3 say nothing: a third of the fleet */
        after_ms(t, 2500);
        for (int i = 4; i < 12; i++)
            beat(t, names[i]);
    }
    expect(t, "alarm: more than 20 % of the fleet fell silent together: no worker is declared lost for one "
              "adoption window");
    for (int s = 0; s < 30; s++) {
        after_ms(t, 2500);
        for (int i = 4; i < 12; i++)
            beat(t, names[i]);
    }
    assert_int_equal(status_of(t, 1, "a"), COX_STEP_RUNNING);
    ignore(t);
    struct cox_token second = token_of(t, 1, "a");
    assert_true(second.counter == 2); /* after the window the loss was declared, and it runs elsewhere */
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_is_assigned_than_credit_allows),
        cmocka_unit_test(work_is_spread_over_workers),
        cmocka_unit_test(credit_that_falls_ends_the_stream),
        cmocka_unit_test(rule_14_handlers_labels_and_resources_must_fit),
        cmocka_unit_test(rule_14_resources_are_taken_and_given_back),
        cmocka_unit_test(a_silent_worker_is_lost_and_its_steps_go_to_others),
        cmocka_unit_test(a_broken_stream_is_not_a_death),
        cmocka_unit_test(after_a_gap_workers_have_time_to_be_heard),
        cmocka_unit_test(a_gap_is_not_part_of_a_workers_time),
        cmocka_unit_test(a_gap_is_not_part_of_the_adoption_window),
        cmocka_unit_test(gaps_without_end_do_not_keep_the_dead_alive),
        cmocka_unit_test(gaps_without_end_do_not_hide_what_is_never_started),
        cmocka_unit_test(gaps_without_end_do_not_keep_the_adoption_window_open),
        cmocka_unit_test(a_worker_that_reboots_has_lost_its_attempts),
        cmocka_unit_test(rule_3_a_step_that_kills_its_workers_fails_at_the_loss_limit),
        cmocka_unit_test(the_newest_stream_wins),
        cmocka_unit_test(after_a_crash_a_running_step_is_adopted_not_run_again),
        cmocka_unit_test(after_a_crash_what_the_hello_does_not_list_runs_again_uncharged),
        cmocka_unit_test(after_a_crash_a_worker_that_stays_away_is_lost_with_the_adoption_window),
        cmocka_unit_test(a_result_is_accepted_once_and_every_report_is_answered),
        cmocka_unit_test(nobody_reports_for_another_worker),
        cmocka_unit_test(a_result_of_before_the_crash_is_accepted_after_it),
        cmocka_unit_test(a_prefetched_step_given_back_goes_on_without_a_trace),
        cmocka_unit_test(a_draining_worker_gets_nothing_new),
        cmocka_unit_test(an_assignment_that_is_never_started_is_taken_away),
        cmocka_unit_test(a_worker_that_misses_its_timeout_is_overruled),
        cmocka_unit_test(when_much_of_a_fleet_falls_silent_losses_are_suspended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
