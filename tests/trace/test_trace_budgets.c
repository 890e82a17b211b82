/* Who pays for what, and how far, told as timelines: accounts, reservations, calls of processes. */
#include "trace_kept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define WITH(budget, steps)                                                                                  \
    "{\"api_version\":\"v1\",\"name\":\"t\",\"budget\":{" budget "},\"steps\":{" steps "}}"
#define TEMPLATE(name, budget, steps)                                                                        \
    "{\"api_version\":\"v1\",\"kind\":\"template\",\"name\":\"" name "\",\"budget\":{" budget                \
    "},\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define MODEL "\"model\":{\"input\":\"x\",\"max_tokens\":50}"
#define LONG "\"model\":{\"input\":\"x\",\"max_tokens\":9000}"
#define CALL(ref) "\"task\":{\"ref\":\"" ref "\"}"

static struct trace *begin(void)
{
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "router", .slots = 100, .handlers = "model", .inner = true });
    attach(t, "w1", 4);
    return t;
}

static void router_is_back(struct trace *t, const char *holds)
{
    attach_as(t, &(struct worker_spec){
                     .id = "router", .slots = 100, .handlers = "model", .inner = true, .holds = holds });
}

/* ---- reservations ---- */

static void a_call_waits_for_what_another_has_reserved(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, WITH("\"tokens\":130", "\"a\":{" MODEL "},\"b\":{" MODEL "},\"c\":{" MODEL "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to router");
    assert_string_equal(reason_of(t, 1, "b"), "budget");
    used(t, 1, 1, 0);
    succeed(t, "router", "a", "1");
    expect(t, "used 1+1 tokens, 0 wasted", "a SUCCEEDED", "answer accepted to router",
           "assign b#1 to router");
    cancel_step(t, 1, "c"); /* it waits for nothing any more */
    expect(t, "c is to stop", "reply ok t0-000001");
    assert_int_equal(status_of(t, 1, "c"), COX_STEP_CANCELLED);
    used(t, 1, 1, 0);
    succeed(t, "router", "b", "1");
    ignore(t);
    assert_string_equal(usage_of(t, 1), "2 calls, 2+2 tokens, 0 wasted");
    trace_end(t);
}

/* What an agent's call only names is read by the model as well. */
static void an_agent_reserves_what_its_call_only_names(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, WITH("\"tokens\":6000",
                   "\"a\":{\"agent\":{\"input\":\"x\",\"max_tokens\":50,\"tools\":[{\"name\":\"look\","
                   "\"description\":\"looks\"," RUN
                   "}]}},\"w\":{\"wait\":{\"signal\":\"go\"}},\"b\":{\"needs\":[\"w\"]," MODEL "}"));
    evaluate(t);
    decide(t);
    succeed(
        t, "router", "a.t1",
        "{\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"look\",\"arguments\":\"{"
        "}\"}}]}");
    decide(t);
    succeed_large(t, "w1", "a.t1.look.0", 6000);
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t2"), COX_STEP_RUNNING);
    assert_true(strlen(last_spec(t)) < 3000);
    signal_task(t, 1, "go", "1");
    ignore(t);
    assert_string_equal(reason_of(t, 1, "b"), "budget");
    used(t, 1, 1, 0);
    succeed(t, "router", "a.t2", "{\"content\":\"42\"}");
    ignore(t);
    assert_int_equal(status_of(t, 1, "b"), COX_STEP_RUNNING);
    trace_end(t);
}

static void what_waits_fails_when_the_budget_is_used_up(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, WITH("\"tokens\":130", "\"a\":{" MODEL "},\"b\":{" MODEL "},\"c\":{" MODEL "}"));
    ignore(t);
    used(t, 100, 50, 0);
    succeed(t, "router", "a", "1");
    expect(t, "used 100+50 tokens, 0 wasted", "a SUCCEEDED",
           "b refused BUDGET_EXHAUSTED: budget.tokens: 150 used, of 130",
           "c refused BUDGET_EXHAUSTED: budget.tokens: 150 used, of 130",
           "task FAILED BUDGET_EXHAUSTED: budget.tokens: 150 used, of 130", "answer accepted to router");
    trace_end(t);
}

static void a_reservation_outlives_a_restart(void **state)
{
    (void)state;
    struct trace *t = begin();
    /* More than would be taken for a call of which nothing was written down. */
    submit(t, WITH("\"tokens\":8000", "\"a\":{" LONG "},\"b\":{" LONG "}"));
    started(t, "router", "a");
    for (int i = 0; i < 2; i++) { /* from the log, and from the checkpoint */
        crash(t);
        ignore(t);
        router_is_back(t, "a");
        expect_nothing(t);
        assert_string_equal(reason_of(t, 1, "b"), "budget");
        checkpoint(t);
    }
    used(t, 1, 1, 0);
    succeed(t, "router", "a", "1");
    expect(t, "used 1+1 tokens, 0 wasted", "a SUCCEEDED", "answer accepted to router",
           "assign b#1 to router");
    trace_end(t);
}

static void an_answer_is_held_to_what_is_left(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, DOC("\"a\":{\"model\":{\"input\":\"x\"}}"));
    assert_int_equal(last_hint(t).output_tokens, 0);
    submit(t, WITH("\"tokens\":1000", "\"a\":{\"model\":{\"input\":\"x\"}}"));
    assert_in_range(last_hint(t).output_tokens, 950, 999);
    submit(t, WITH("\"tokens\":1000", "\"a\":{" MODEL "}"));
    assert_int_equal(last_hint(t).output_tokens, 50);
    submit(t, WITH("\"tokens\":1", "\"a\":{" MODEL "}"));
    assert_int_equal(last_hint(t).output_tokens, 50); /* an answer cut off after a word helps nobody */
    submit(t, WITH("\"cost\":1", "\"a\":{\"model\":{\"input\":\"x\"}}"));
    assert_int_equal(last_hint(t).output_tokens, 16384);
    ignore(t);
    trace_end(t);
}

static void the_first_call_tells_the_price(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, WITH("\"cost\":1", "\"a\":{" MODEL "},\"b\":{" MODEL "},\"c\":{" MODEL "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to router");
    used(t, 10, 10, 20);
    succeed(t, "router", "a", "1");
    expect(t, "used 10+10 tokens, 0 wasted", "a SUCCEEDED", "answer accepted to router",
           "assign b#1 to router", "assign c#1 to router");
    trace_end(t);
}

/* ---- accounts ---- */

static void a_templates_budget_holds_for_its_maps(void **state)
{
    (void)state;
    struct trace *t = begin();
    keep_template(t, TEMPLATE("sub", "\"tokens\":50",
                              "\"m\":{\"map\":{\"over\":[1,2]},\"model\":{\"input\":\"${{ item }}\"}}"));
    submit(t, WITH("\"tokens\":100000", "\"s\":{" CALL("sub@1") "},\"a\":{\"needs\":[\"s\"]," MODEL "}"));
    compile(t);
    ignore(t);
    assert_int_equal(stats_of(t).n_running, 1); /* the second item waits: for an account of its frame */
    used(t, 40, 20, 0);
    items(t, "router", "2/m[0]", "1");
    expect(t, "used 40+20 tokens, 0 wasted", "2/m[0] done", "2/m[1] FAILED after BUDGET_EXHAUSTED",
           "2/m FAILED after BUDGET_EXHAUSTED",
           "task FAILED BUDGET_EXHAUSTED: 1 of 2 items failed, tolerated are 0; item 1: budget.tokens: 60 "
           "used, of 50",
           "s FAILED after BUDGET_EXHAUSTED", "a SKIPPED",
           "task FAILED BUDGET_EXHAUSTED: step m: 1 of 2 items failed, tolerated are 0; item 1: "
           "budget.tokens: 60 used, of 50",
           "answer accepted to router");
    assert_string_equal(usage_of(t, 1), "1 calls, 40+20 tokens, 0 wasted");
    assert_string_equal(usage_of(t, 2), "1 calls, 40+20 tokens, 0 wasted");
    trace_end(t);
}

static void every_account_on_the_way_up_is_charged(void **state)
{
    (void)state;
    struct trace *t = begin();
    keep_template(t, TEMPLATE("inner", "\"tokens\":10000", "\"a\":{" MODEL "}"));
    keep_template(t, TEMPLATE("outer", "\"tokens\":50",
                              "\"x\":{" CALL("inner@1") "},\"y\":{\"needs\":[\"x\"]," MODEL "}"));
    submit(t, WITH("\"tokens\":10000", "\"s\":{" CALL("outer@1") "}"));
    compile(t);
    compile(t);
    ignore(t);
    used(t, 40, 20, 0);
    succeed_in(t, 3, "router", "a", "1");
    ignore(t);
    assert_string_equal(usage_of(t, 3), "1 calls, 40+20 tokens, 0 wasted");
    assert_string_equal(usage_of(t, 2), "1 calls, 40+20 tokens, 0 wasted");
    assert_string_equal(usage_of(t, 1), "1 calls, 40+20 tokens, 0 wasted");
    assert_int_equal(view_of(t, 2).code, COX_CODE_BUDGET_EXHAUSTED);
    trace_end(t);
}

static void a_sub_task_has_what_is_left_of_its_parents(void **state)
{
    (void)state;
    struct trace *t = begin();
    keep_template(t, TEMPLATE("sub", "", "\"a\":{" MODEL "},\"b\":{\"needs\":[\"a\"]," MODEL "}"));
    submit(t, WITH("\"tokens\":50", "\"s\":{" CALL("sub@1") "}"));
    compile(t);
    ignore(t);
    used(t, 40, 20, 0);
    succeed_in(t, 2, "router", "a", "1");
    expect(t, "used 40+20 tokens, 0 wasted", "2/a SUCCEEDED",
           "2/b refused BUDGET_EXHAUSTED: budget.tokens: 60 used, of 50",
           "task FAILED BUDGET_EXHAUSTED: budget.tokens: 60 used, of 50", "s FAILED after BUDGET_EXHAUSTED",
           "task FAILED BUDGET_EXHAUSTED: step b: budget.tokens: 60 used, of 50",
           "answer accepted to router");
    trace_end(t);
}

static void processors_steps_and_time_of_a_template(void **state)
{
    (void)state;
    struct trace *t = begin();
    keep_template(
        t, TEMPLATE("cpu", "\"cpu_seconds\":0.0005", "\"a\":{" RUN "},\"b\":{\"needs\":[\"a\"]," RUN "}"));
    keep_template(
        t, TEMPLATE("one", "\"steps\":1", "\"m\":{\"map\":{\"over\":[1]},\"wait\":{\"signal\":\"go\"}}"));
    keep_template(t, TEMPLATE("late", "\"timeout\":\"5s\"", "\"w\":{\"wait\":{\"signal\":\"go\"}}"));
    submit(t, DOC("\"s\":{" CALL("cpu@1") "}"));
    compile(t);
    succeed_in(t, 2, "w1", "a", "1");
    assert_string_equal(view_of(t, 1).message.data ? (const char *)view_of(t, 1).message.data : "",
                        "step b: budget.cpu_seconds: 0.001000 used, of 0.000500");
    submit(t, DOC("\"s\":{" CALL("one@1") "}"));
    compile(t);
    after_ms(t, 1);
    assert_int_equal(view_of(t, 3).code, COX_CODE_BUDGET_EXHAUSTED);
    submit(t, DOC("\"s\":{" CALL("late@1") "}"));
    compile(t);
    after_ms(t, 2000); /* asleep */
    assert_false(is_live(t, 5));
    after_ms(t, 3000);
    load(t);
    after_ms(t, 1);
    assert_int_equal(view_of(t, 5).code, COX_CODE_TIMEOUT);
    ignore(t);
    trace_end(t);
}

/* ---- calls of processes ---- */

static void processes_share_what_is_left(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, WITH("\"tokens\":1000", "\"a\":{" RUN "},\"b\":{" MODEL "}"));
    used(t, 1, 1, 0);
    succeed(t, "router", "b", "1");
    ignore(t);
    uint32_t n = 0;
    while (n < 64 && process_calls(t, 1, "a", 100, 100))
        n++;
    assert_int_equal(n, 5); /* the last has been promised two tokens too many */
    assert_true(last_hint(t).waits);
    process_called(t, "router", 150);
    expect(t, "used 0+150 tokens, 0 wasted");
    assert_true(process_calls(t, 1, "a", 100, 100));
    assert_false(process_calls(t, 1, "a", 100, 100));
    for (int i = 0; i < 5; i++)
        process_called(t, "router", 190);
    assert_false(process_calls(t, 1, "a", 1, 1));
    assert_true(last_hint(t).spent);
    ignore(t);
    assert_string_equal(usage_of(t, 1), "7 calls, 1+1101 tokens, 0 wasted");
    trace_end(t);
}

static void what_comes_after_the_end_is_counted(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, DOC("\"a\":{" RUN "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    assert_true(process_calls(t, 1, "a", 400, 100));
    assert_true(process_calls(t, 1, "a", 400, 100));
    succeed(t, "w1", "a", "1");
    archived(t, 1);
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    process_called(t, "router", 30);
    expect(t, "used 0+0 tokens, 30 wasted", "fence a at router");
    assert_true(is_live(t, 1)); /* its books are open */
    process_called(t, "router", 40);
    expect(t, "used 0+0 tokens, 40 wasted", "fence 1/0 at router");
    assert_false(is_live(t, 1));
    assert_string_equal(archived_usage_of(t, 1), "2 calls, 0+0 tokens, 70 wasted");
    trace_end(t);
}

static void calls_that_a_restart_cut_off_are_guessed(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, WITH("\"tokens\":1000", "\"a\":{" RUN "}"));
    assert_true(process_calls(t, 1, "a", 400, 100));
    ignore(t);
    crash(t);
    expect(t, "used 0+0 tokens, 0 wasted, guessed 200");
    assert_string_equal(usage_of(t, 1), "0 calls, 0+0 tokens, 200 wasted");
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .holds = "a" });
    assert_true(process_calls(t, 1, "a", 400, 100));
    assert_true(process_calls(t, 1, "a", 400, 100)); /* nothing is reserved for what is dead */
    ignore(t);
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_waits_for_what_another_has_reserved),
        cmocka_unit_test(an_agent_reserves_what_its_call_only_names),
        cmocka_unit_test(what_waits_fails_when_the_budget_is_used_up),
        cmocka_unit_test(a_reservation_outlives_a_restart),
        cmocka_unit_test(an_answer_is_held_to_what_is_left),
        cmocka_unit_test(the_first_call_tells_the_price),
        cmocka_unit_test(a_templates_budget_holds_for_its_maps),
        cmocka_unit_test(every_account_on_the_way_up_is_charged),
        cmocka_unit_test(a_sub_task_has_what_is_left_of_its_parents),
        cmocka_unit_test(processors_steps_and_time_of_a_template),
        cmocka_unit_test(processes_share_what_is_left),
        cmocka_unit_test(what_comes_after_the_end_is_counted),
        cmocka_unit_test(calls_that_a_restart_cut_off_are_guessed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
