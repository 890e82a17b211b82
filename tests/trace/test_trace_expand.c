/* Steps that wait and expand, told as timelines: races, sub-tasks, waits, approvals, programs called again.
 */
#include "trace.h"
#include "trace_kept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define DOC_OUT(steps, out)                                                                                  \
    "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "},\"outputs\":{" out "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define RACE "\"r\":{\"race\":[{" RUN "},{" RUN "}]}"
#define CHILD                                                                                                \
    "{\"api_version\":\"v1\",\"kind\":\"template\",\"name\":\"child\",\"inputs\":{\"x\":{\"type\":"          \
    "\"integer\"}},"                                                                                         \
    "\"steps\":{\"a\":{" RUN "}},\"outputs\":{\"y\":\"${{ inputs.x + 1 }}\"}}"

/* ---- race ---- */

static void the_first_success_wins_a_race_and_the_others_are_stopped(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC_OUT(RACE, "\"o\":\"${{ steps.r.output }}\""));
    expect(t, "r waits", "reply ok t0-000001", "assign r.0#1 to w1", "assign r.1#1 to w1");
    succeed(t, "w1", "r.1", "7");
    expect(t, "r.1 SUCCEEDED", "r SUCCEEDED", "r.0 is to stop", "stop r.0 on w1", "answer accepted to w1");
    assert_int_equal(status_of(t, 1, "r"), COX_STEP_SUCCEEDED);
    cancelled(t, "w1", "r.0");
    expect(t, "r.0 CANCELLED", "task SUCCEEDED {\"o\":7}", "answer accepted to w1");
    trace_end(t);
}

static void a_race_has_one_winner_though_another_succeeds_before_it_is_stopped(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC_OUT(RACE, "\"o\":\"${{ steps.r.output }}\""));
    succeed(t, "w1", "r.1", "7");
    ignore(t);
    succeed(t, "w1", "r.0", "8");
    expect(t, "r.0 CANCELLED", "task SUCCEEDED {\"o\":7}", "answer accepted to w1");
    assert_int_equal(status_of(t, 1, "r.0"), COX_STEP_CANCELLED);
    trace_end(t);
}

static void a_race_that_all_lose_fails_with_the_first_error(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC(RACE));
    ignore(t);
    fails(t, "w1", "r.1", COX_CODE_TIMEOUT);
    expect(t, "r.1 FAILED after TIMEOUT", "answer accepted to w1");
    fails(t, "w1", "r.0", COX_CODE_EXIT_NONZERO);
    expect(t, "r.0 FAILED after EXIT_NONZERO", "r FAILED after EXIT_NONZERO",
           "task FAILED EXIT_NONZERO: none of its 2 alternatives succeeded; the first: it broke",
           "answer accepted to w1");
    trace_end(t);
}

static void a_race_tried_again_begins_with_all_its_alternatives(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"r\":{\"race\":[{" RUN "},{" RUN
                  "}],\"retry\":{\"max_attempts\":2,\"initial_backoff\":\"1s\"}}"));
    fails(t, "w1", "r.0", COX_CODE_EXIT_NONZERO);
    ignore(t);
    fails(t, "w1", "r.1", COX_CODE_EXIT_NONZERO);
    expect(t, "r.1 FAILED after EXIT_NONZERO", "r retries after EXIT_NONZERO", "r.0 begins anew",
           "r.1 begins anew", "answer accepted to w1");
    crash(t);
    ignore(t);
    attach(t, "w1", 9);
    after_ms(t, 1000);
    expect(t, "r waits", "assign r.0#2 to w1", "assign r.1#2 to w1");
    succeed(t, "w1", "r.0", "1");
    ignore(t);
    cancelled(t, "w1", "r.1");
    ignore(t);
    trace_end(t);
}

static void an_input_that_is_computed_for_a_race_that_is_over_means_nothing(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t,
           DOC("\"a\":{" RUN "},\"r\":{\"race\":[{\"run\":{\"argv\":[\"${{ size(steps.a.output) }}\"]}},{" RUN
               "}],\"timeout\":\"3s\",\"retry\":{\"max_attempts\":2,\"initial_backoff\":\"2s\",\"on\":["
               "\"TIMEOUT\"]}}"));
    ignore(t);
    succeed_large(t, "w1", "a", 9000);
    expect(t, "a SUCCEEDED", "r waits", "answer accepted to w1", "assign r.1#1 to w1", "evaluate for r.0");
    after_ms(t, 3000);
    cancelled(t, "w1", "r.1");
    expect(t, "r.0 is to stop", "r.1 is to stop", "stop r.1 on w1", "r.1 CANCELLED",
           "r retries after TIMEOUT", "r.0 begins anew", "r.1 begins anew", "answer accepted to w1");
    evaluate(t); /* of before */
    expect_nothing(t);
    after_ms(t, 2000);
    expect(t, "r waits", "assign r.1#2 to w1", "evaluate for r.0");
    evaluate(t);
    expect(t, "assign r.0#1 to w1");
    trace_end(t);
}

static void losers_are_stopped_again_after_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC(RACE));
    succeed(t, "w1", "r.0", "1");
    ignore(t);
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .holds = "r.1" });
    expect(t, "stop r.1 on w1");
    cancelled(t, "w1", "r.1");
    expect(t, "r.1 CANCELLED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void alternatives_of_a_fallback_that_is_not_needed_are_skipped(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN ",\"fallback\":{\"race\":[{" RUN "},{" RUN "}]}}"));
    ignore(t);
    succeed(t, "w1", "a", "1");
    ignore(t);
    assert_false(is_live(t, 1) && view_of(t, 1).status != COX_TASK_SUCCEEDED);
    trace_end(t);
}

/* ---- wait (rule 3: a step that waits is retried, replaced and failed as any other) ---- */

static void a_wait_ends_when_its_time_has_come_also_over_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC("\"a\":{\"wait\":{\"for\":\"800ms\"}}"));
    expect(t, "a waits", "reply ok t0-000001");
    assert_int_equal(view_of(t, 1).status, COX_TASK_WAITING);
    assert_string_equal(reason_of(t, 1, "a"), "timer");
    after_ms(t, 500);
    crash(t);
    expect_nothing(t);
    after_ms(t, 299);
    expect_nothing(t);
    after_ms(t, 1);
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}");
    trace_end(t);
}

static void a_wait_until_the_past_is_over_at_once_and_no_time_fails(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, "{\"api_version\":\"v1\",\"name\":\"t\",\"inputs\":{\"at\":{\"type\":\"string\",\"default\":"
              "\"noon\"}},"
              "\"steps\":{\"a\":{\"wait\":{\"until\":\"1970-01-01T00:00:01Z\"}},"
              "\"b\":{\"wait\":{\"until\":\"${{ inputs.at }}\"}}}}");
    ignore(t);
    after_ms(t, 1);
    ignore(t);
    assert_int_equal(view_of(t, 1).code, COX_CODE_INPUT_INVALID);
    trace_end(t);
}

static void a_signal_ends_the_wait_for_it_and_one_that_came_before_is_kept(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC_OUT("\"b\":{" RUN "},\"go\":{\"needs\":[\"b\"],\"wait\":{\"signal\":\"go\"}},"
                      "\"on\":{\"wait\":{\"signal\":\"on\"}}",
                      "\"g\":\"${{ steps.go.output }}\",\"o\":\"${{ steps.on.output }}\""));
    ignore(t);
    signal_task(t, 1, "go", "1"); /* nobody waits for it yet */
    expect(t, "signal go", "reply ok t0-000001");
    signal_task(t, 1, "on", "2");
    expect(t, "signal on", "on SUCCEEDED", "reply ok t0-000001");
    checkpoint(t);
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .holds = "b" });
    ignore(t);
    succeed(t, "w1", "b", "0");
    expect(t, "b SUCCEEDED", "go waits: go", "go SUCCEEDED", "task SUCCEEDED {\"g\":1,\"o\":2}",
           "answer accepted to w1");
    trace_end(t);
}

static void signals_are_taken_in_order_each_once(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC_OUT(
                  "\"a\":{\"wait\":{\"signal\":\"s\"}},\"b\":{\"needs\":[\"a\"],\"wait\":{\"signal\":\"s\"}}",
                  "\"a\":\"${{ steps.a.output }}\",\"b\":\"${{ steps.b.output }}\""));
    ignore(t);
    signal_task(t, 1, "s", "1");
    expect(t, "signal s", "a SUCCEEDED", "b waits: s", "reply ok t0-000001");
    signal_task(t, 1, "other", "9");
    expect(t, "signal other", "reply ok t0-000001");
    signal_task(t, 1, "s", "2");
    expect(t, "signal s", "b SUCCEEDED", "task SUCCEEDED {\"a\":1,\"b\":2}", "reply ok t0-000001");
    signal_task(t, 1, "s", "3");
    expect(t, "reply invalid argument: the task has ended");
    trace_end(t);
}

/* Signals come from outside, as many as anybody likes: a task keeps so many and no more, and forgets none. */
static void a_task_keeps_a_thousand_signals_that_nobody_has_waited_for(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC_OUT("\"b\":{" RUN "},\"go\":{\"needs\":[\"b\"],\"wait\":{\"signal\":\"go\"}},"
                      "\"on\":{\"needs\":[\"go\"],\"wait\":{\"signal\":\"never\"}}",
                      "\"o\":\"${{ steps.go.output }}\""));
    for (uint32_t i = 0; i < COX_SIGNALS_MAX; i++)
        signal_task(t, 1, i == COX_SIGNALS_MAX - 1 ? "go" : "other", "7");
    ignore(t);
    signal_task(t, 1, "other", "8");
    expect(t, "reply limit reached: too many signals that no step has waited for");
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "b" });
    ignore(t);
    signal_task(t, 1, "other", "8");
    expect(t, "reply limit reached: too many signals that no step has waited for");
    succeed(t, "w1", "b", "1"); /* the last that was let in is taken, and leaves room for one */
    ignore(t);
    assert_int_equal(status_of(t, 1, "go"), COX_STEP_SUCCEEDED);
    signal_task(t, 1, "other", "8");
    expect(t, "signal other", "reply ok t0-000001");
    signal_task(t, 1, "other", "8");
    expect(t, "reply limit reached: too many signals that no step has waited for");
    trace_end(t);
}

/* ---- approval ---- */

static void an_approval_is_answered_once(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t,
           DOC_OUT("\"a\":{\"approval\":{\"prompt\":\"Sure?\"}}", "\"c\":\"${{ steps.a.output.comment }}\""));
    expect(t, "a waits: Sure?", "reply ok t0-000001");
    answer_approval(t, 1, "b", true, "");
    expect(t, "reply not found: the task has no such step now");
    answer_approval(t, 1, "a", true, "yes");
    expect(t, "a SUCCEEDED", "task SUCCEEDED {\"c\":\"yes\"}", "reply ok t0-000001");
    trace_end(t);
}

static void a_rejection_fails_the_step_as_denied_and_its_fallback_may_follow(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{\"approval\":{\"prompt\":\"Sure?\"},\"fallback\":{" RUN "}}"));
    ignore(t);
    answer_approval(t, 1, "a", false, "no");
    expect(t, "a falls back after DENIED", "reply ok t0-000001", "assign a#2 to w1 (fallback)");
    succeed(t, "w1", "a", "1");
    ignore(t);
    trace_end(t);
}

static void an_approval_is_for_whom_it_names(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    static const struct {
        const char *who, *roles;
    } others[] = {
        { "bob", " reader" },    { "bob", "" },
        { "bob", " approver2" }, { "bob", " not-approver" },
        { "ALICE", " admin" },   { "approver", "" },
        { "alice2", "" },        { "role:approver", " reader admin" },
        { "bob", " alice" },
    };
    submit(t,
           DOC_OUT("\"a\":{\"approval\":{\"prompt\":\"?\",\"approvers\":[\"role:approver\",\"user:alice\"]}},"
                   "\"b\":{\"approval\":{\"prompt\":\"?\",\"approvers\":[\"role:approver\",\"user:alice\"]}},"
                   "\"c\":{\"approval\":{\"prompt\":\"?\",\"approvers\":[\"user:nobody\"]}},"
                   "\"d\":{\"approval\":{\"prompt\":\"?\"}}",
                   "\"by\":\"${{ steps.a.output.by }}\""));
    ignore(t);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        answer_approval_as(t, others[i].who, others[i].roles, 1, "a", i % 2 == 0, "");
        expect(t, "reply not allowed: the approval is for [\"role:approver\",\"user:alice\"]");
    }
    answer_approval_as(t, "bob", " reader approver", 1, "a", true, "");
    expect(t, "a SUCCEEDED", "reply ok t0-000001");
    answer_approval_as(t, "alice", "", 1, "b", true, "");
    expect(t, "b SUCCEEDED", "reply ok t0-000001");
    answer_approval(t, 1, "c", true, ""); /* where nobody is asked who they are */
    expect(t, "c SUCCEEDED", "reply ok t0-000001");
    answer_approval_as(t, "bob", "", 1, "d", true, "");
    expect(t, "d SUCCEEDED", "task SUCCEEDED {\"by\":\"bob\"}", "reply ok t0-000001");
    trace_end(t);
}

static void an_approval_expires_as_it_was_told_to(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC("\"a\":{\"approval\":{\"prompt\":\"?\",\"expires\":\"500ms\"},\"allow_failure\":true},"
                  "\"b\":{\"approval\":{\"prompt\":\"?\",\"expires\":\"500ms\",\"on_expire\":\"approve\"}},"
                  "\"c\":{\"approval\":{\"prompt\":\"?\",\"expires\":\"500ms\",\"on_expire\":\"reject\"},"
                  "\"allow_failure\":true}"));
    ignore(t);
    after_ms(t, 500);
    expect(t, "a FAILED after EXPIRED", "b SUCCEEDED", "c FAILED after DENIED", "task SUCCEEDED {}");
    trace_end(t);
}

/* ---- sub-tasks ---- */

static void a_sub_task_runs_in_a_frame_and_its_outputs_are_the_step_s(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, CHILD);
    attach(t, "w1", 9);
    submit(t, DOC_OUT("\"s\":{\"task\":{\"ref\":\"child@1\",\"inputs\":{\"x\":4}}}",
                      "\"y\":\"${{ steps.s.output.y }}\""));
    ignore(t);
    assert_string_equal(reason_of(t, 1, "s"), "expanding");
    compile(t);
    expect(t, "frame 2 under s", "assign 2/a#1 to w1");
    assert_string_equal(reason_of(t, 1, "s"), "children");
    crash(t);
    attach(t, "w1", 9); /* it does not have it any more */
    expect(t, "2/a taken back from its worker", "assign 2/a#2 to w1");
    succeed_in(t, 2, "w1", "a", "1");
    expect(t, "2/a SUCCEEDED", "task SUCCEEDED {\"y\":5}", "s SUCCEEDED", "task SUCCEEDED {\"y\":5}",
           "answer accepted to w1");
    assert_int_equal(view_of(t, 1).cpu_us, RESULT_CPU_US);
    trace_end(t);
}

static void what_begins_a_sub_task_survives_a_crash_at_each_point(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, CHILD);
    submit(t, DOC("\"s\":{\"task\":{\"ref\":\"child@1\",\"inputs\":{\"x\":4}}}"));
    crash(t); /* before the image was compiled */
    ignore(t);
    evaluate(t);
    ignore(t);
    compile(t);
    expect(t, "frame 2 under s");
    cancel(t, 1, "enough");
    expect(t, "task stops: enough", "task stops: what it is part of was stopped",
           "task CANCELLED CANCELLED: what it is part of was stopped", "s CANCELLED",
           "task CANCELLED CANCELLED: enough", "reply ok t0-000001");
    trace_end(t);
}

static void a_failed_sub_task_names_its_step_and_is_tried_again_in_a_new_frame(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, CHILD);
    attach(t, "w1", 9);
    submit(t, DOC("\"s\":{\"task\":{\"ref\":\"child@1\",\"inputs\":{\"x\":4}},"
                  "\"retry\":{\"max_attempts\":2,\"initial_backoff\":\"1s\"}}"));
    compile(t);
    ignore(t);
    fails_in(t, 2, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "2/a FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: it broke",
           "s retries after EXIT_NONZERO", "answer accepted to w1");
    archived(t, 2);
    after_ms(t, 1000);
    ignore(t);
    compile(t);
    expect(t, "frame 3 under s", "assign 3/a#1 to w1");
    fails_in(t, 3, "w1", "a", COX_CODE_EXIT_NONZERO);
    expect(t, "3/a FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: it broke",
           "s FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: step a: it broke",
           "answer accepted to w1");
    trace_end(t);
}

static void inputs_that_do_not_fit_the_template_fail_the_step(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, CHILD);
    submit(t, DOC("\"s\":{\"task\":{\"ref\":\"child@1\",\"inputs\":{\"x\":\"four\"}}}"));
    ignore(t);
    compile(t);
    ignore(t);
    assert_int_equal(view_of(t, 1).code, COX_CODE_INPUT_INVALID);
    trace_end(t);
}

/* ---- programs that ask for steps ---- */

#define USES DOC_OUT("\"p\":{\"uses\":\"p@1\"}", "\"o\":\"${{ steps.p.output }}\"")
#define ASKED "{\"steps\":{\"x\":{" RUN "}},\"state\":{\"n\":1}}"

static void a_program_holds_no_slot_while_what_it_asked_for_runs(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    submit(t, USES);
    ignore(t);
    continues(t, "w1", 1, "p", ASKED);
    expect(t, "p asks for steps", "compile steps with {}", "answer accepted to w1");
    compile(t);
    expect(t, "frame 2 under p", "assign 2/x#1 to w1");
    assert_int_equal(status_of(t, 1, "p"), COX_STEP_WAITING);
    succeed_in(t, 2, "w1", "x", "5");
    expect(t, "2/x SUCCEEDED",
           "task SUCCEEDED {\"x\":{\"status\":\"SUCCEEDED\",\"output\":5,\"error\":null}}",
           "p is called again with {\"x\":{\"status\":\"SUCCEEDED\",\"output\":5,\"error\":null}}",
           "answer accepted to w1", "assign p#2 to w1");
    succeed(t, "w1", "p", "6");
    expect(t, "p SUCCEEDED", "task SUCCEEDED {\"o\":6}", "answer accepted to w1");
    assert_int_equal(view_of(t, 1).cpu_us, 3 * RESULT_CPU_US); /* two calls, and what it asked for */
    trace_end(t);
}

#define AB8 "abababababababab"
#define BUNDLE "\"bundle\":\"sha256:" AB8 AB8 AB8 AB8 "\","

static void what_a_program_asks_for_has_its_bundle(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    upload(t, 0xab);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    submit(t, "{\"api_version\":\"v1\",\"name\":\"t\"," BUNDLE "\"steps\":{\"p\":{\"uses\":\"p@1\"}}}");
    expect(t, "reply ok t0-000001", "assign p#1 to w1 with a bundle");
    continues(t, "w1", 1, "p", ASKED);
    ignore(t);
    compile(t);
    expect(t, "frame 2 under p", "assign 2/x#1 to w1 with a bundle");
    trace_end(t);
}

static void a_bundle_is_kept_for_whoever_runs_it_some_day(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    struct cox_hash bundle = upload(t, 0xab);
    submit(t, "{\"api_version\":\"v1\",\"name\":\"t\"," BUNDLE "\"steps\":{\"a\":{" RUN "}}}");
    assert_true(owns(t, 1, bundle));
    assert_false(owns(t, 0, bundle));
    keep_template(t, "{\"api_version\":\"v1\",\"kind\":\"template\",\"name\":\"c\"," BUNDLE
                     "\"steps\":{\"a\":{" RUN "}}}");
    assert_true(owns(t, 0, bundle));
    submit(t, DOC("\"s\":{\"task\":{\"ref\":\"c@1\"}}"));
    assert_false(owns(t, 2, bundle));
    compile(t);
    assert_true(owns(t, 2, bundle));
    ignore(t);
    trace_end(t);
}

/* Nothing else says so: tasks that it makes come later, or never. */
static void a_bundle_is_kept_for_the_tenant_of_the_template(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    (void)upload(t, 0xab);
    keep_template_of(t, "alpha",
                     "{\"api_version\":\"v1\",\"kind\":\"template\",\"name\":\"c\"," BUNDLE
                     "\"steps\":{\"a\":{" RUN "}}}");
    assert_true(all_owned_in(t, "alpha"));
    state_forgets_owners(t);
    crash(t);
    assert_true(all_owned_in(t, "alpha"));
    ignore(t);
    trace_end(t);
}

/* Its record is replayed when the task is gone, and whose it was with it: to whom, must stand in the record.
 */
static void values_of_a_task_that_has_left_stay_its_tenants(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit_of(t, "alpha", DOC("\"a\":{" RUN "}"));
    checkpoint(t);
    succeed_large(t, "w1", "a", 8000);
    archived(t, 1);
    checkpoint_some(t);
    assert_true(all_owned_in(t, "alpha"));
    state_forgets_owners(t);
    crash(t);
    assert_true(all_owned_in(t, "alpha"));
    ignore(t);
    trace_end(t);
}

static void a_step_that_fails_is_told_to_the_program(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    submit(t, USES);
    continues(t, "w1", 1, "p", ASKED);
    compile(t);
    ignore(t);
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    ignore(t);
    fails_in(t, 2, "w1", "x", COX_CODE_TIMEOUT);
#define TOLD                                                                                                 \
    "{\"x\":{\"status\":\"FAILED\",\"output\":null,\"error\":{\"code\":\"TIMEOUT\",\"message\":\"it "        \
    "broke\"}}}"
    expect(t, "2/x FAILED after TIMEOUT", "task SUCCEEDED " TOLD, "p is called again with " TOLD,
           "answer accepted to w1", "assign p#2 to w1");
    fails(t, "w1", "p", COX_CODE_EXIT_NONZERO); /* the call, not the steps before it */
    expect(t, "p FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: it broke", "answer accepted to w1");
    trace_end(t);
}

static void steps_that_are_wrong_fail_the_program_as_its_output(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    submit(t, USES);
    ignore(t);
    continues(t, "w1", 1, "p", "{\"steps\":{\"x\":{}}}");
    ignore(t);
    compile(t);
    ignore(t);
    assert_int_equal(view_of(t, 1).code, COX_CODE_OUTPUT_INVALID);
    trace_end(t);
}

static void what_was_asked_for_survives_a_crash_before_it_was_compiled(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    submit(t, USES);
    continues(t, "w1", 1, "p", ASKED);
    ignore(t);
    checkpoint(t);
    crash(t);
    expect(t, "compile steps with {}");
    compile(t);
    expect(t, "frame 2 under p");
    cancel_step(t, 1, "p");
    ignore(t);
    assert_int_equal(status_of(t, 1, "p"), COX_STEP_CANCELLED);
    trace_end(t);
}

static void a_fallback_is_not_given_what_the_program_asked_for(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    submit(t, DOC("\"p\":{\"uses\":\"p@1\",\"fallback\":{" RUN "}}"));
    continues(t, "w1", 1, "p", ASKED);
    compile(t);
    succeed_in(t, 2, "w1", "x", "5");
    ignore(t);
    fails(t, "w1", "p", COX_CODE_DENIED);
    expect(t, "p falls back after DENIED", "answer accepted to w1", "assign p#3 to w1 (fallback)");
    assert_string_equal(last_continuation(t), "");
    succeed(t, "w1", "p", "1");
    ignore(t);
    trace_end(t);
}

static void a_program_that_asks_again_at_length_gets_its_last_words(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    submit(t, USES);
    for (int i = 1; i <= 2; i++) {
        char asked[COX_INLINE_PAYLOAD_LEN_MAX + 200];
        snprintf(asked, sizeof asked, "{\"steps\":{\"x\":{" RUN "}},\"state\":{\"n\":%d,\"pad\":\"%0*d\"}}",
                 i, (int)COX_INLINE_PAYLOAD_LEN_MAX, 0);
        continues(t, "w1", 1, "p", asked);
        fetch(t);
        compile(t);
        succeed_in(t, (uint32_t)i + 1, "w1", "x", "5");
        ignore(t);
        assert_non_null(strstr(last_continuation(t), i == 1 ? "\"n\":1" : "\"n\":2"));
    }
    succeed(t, "w1", "p", "1");
    ignore(t);
    trace_end(t);
}

static void a_program_may_ask_often_but_not_for_ever(void **state)
{
    (void)state;
    if (getenv("COX_TEST_LONG") == NULL)
        skip(); /* some seconds: whoever names a step here walks all frames */
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .handlers = "p@1,run" });
    submit(t, USES);
    check_every(t, 1000);
    for (uint32_t i = 0; i < COX_CONTINUATIONS_MAX; i++) {
        continues(t, "w1", 1, "p", ASKED);
        compile(t);
        succeed_in(t, i + 2, "w1", "x", "5");
        credit(t, "w1", 9 + 2 * (i + 1));
        ignore(t);
    }
    assert_int_equal(status_of(t, 1, "p"), COX_STEP_RUNNING);
    continues(t, "w1", 1, "p", ASKED);
    expect(t, "p FAILED after RESOURCE_EXHAUSTED",
           "task FAILED RESOURCE_EXHAUSTED: it asked to be called again too often", "answer accepted to w1");
    trace_end(t);
}

static void a_task_goes_once_its_frames_have_gone_in_whatever_order(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, CHILD);
    attach(t, "w1", 9);
    submit(t, DOC("\"s\":{\"task\":{\"ref\":\"child@1\",\"inputs\":{\"x\":4}}}"));
    compile(t);
    succeed_in(t, 2, "w1", "a", "1");
    ignore(t);
    archived(t, 1);
    assert_true(is_live(t, 1));
    archived(t, 2);
    assert_false(is_live(t, 1));
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_success_wins_a_race_and_the_others_are_stopped),
        cmocka_unit_test(a_race_has_one_winner_though_another_succeeds_before_it_is_stopped),
        cmocka_unit_test(a_race_that_all_lose_fails_with_the_first_error),
        cmocka_unit_test(a_race_tried_again_begins_with_all_its_alternatives),
        cmocka_unit_test(an_input_that_is_computed_for_a_race_that_is_over_means_nothing),
        cmocka_unit_test(losers_are_stopped_again_after_a_crash),
        cmocka_unit_test(alternatives_of_a_fallback_that_is_not_needed_are_skipped),
        cmocka_unit_test(a_wait_ends_when_its_time_has_come_also_over_a_crash),
        cmocka_unit_test(a_wait_until_the_past_is_over_at_once_and_no_time_fails),
        cmocka_unit_test(a_signal_ends_the_wait_for_it_and_one_that_came_before_is_kept),
        cmocka_unit_test(signals_are_taken_in_order_each_once),
        cmocka_unit_test(a_task_keeps_a_thousand_signals_that_nobody_has_waited_for),
        cmocka_unit_test(a_program_may_ask_often_but_not_for_ever),
        cmocka_unit_test(an_approval_is_answered_once),
        cmocka_unit_test(an_approval_is_for_whom_it_names),
        cmocka_unit_test(a_rejection_fails_the_step_as_denied_and_its_fallback_may_follow),
        cmocka_unit_test(an_approval_expires_as_it_was_told_to),
        cmocka_unit_test(a_sub_task_runs_in_a_frame_and_its_outputs_are_the_step_s),
        cmocka_unit_test(what_begins_a_sub_task_survives_a_crash_at_each_point),
        cmocka_unit_test(a_failed_sub_task_names_its_step_and_is_tried_again_in_a_new_frame),
        cmocka_unit_test(inputs_that_do_not_fit_the_template_fail_the_step),
        cmocka_unit_test(a_program_holds_no_slot_while_what_it_asked_for_runs),
        cmocka_unit_test(what_a_program_asks_for_has_its_bundle),
        cmocka_unit_test(a_bundle_is_kept_for_whoever_runs_it_some_day),
        cmocka_unit_test(a_bundle_is_kept_for_the_tenant_of_the_template),
        cmocka_unit_test(values_of_a_task_that_has_left_stay_its_tenants),
        cmocka_unit_test(a_step_that_fails_is_told_to_the_program),
        cmocka_unit_test(steps_that_are_wrong_fail_the_program_as_its_output),
        cmocka_unit_test(what_was_asked_for_survives_a_crash_before_it_was_compiled),
        cmocka_unit_test(a_fallback_is_not_given_what_the_program_asked_for),
        cmocka_unit_test(a_program_that_asks_again_at_length_gets_its_last_words),
        cmocka_unit_test(a_task_goes_once_its_frames_have_gone_in_whatever_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
