/* Model steps, told as timelines: what they use, what they may use, and what the router hears of them. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define WITH(budget, steps)                                                                                  \
    "{\"api_version\":\"v1\",\"name\":\"t\",\"budget\":{" budget "},\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define MODEL "\"model\":{\"input\":\"x\",\"max_tokens\":50}"
#define RETRY ",\"retry\":{\"max_attempts\":3,\"initial_backoff\":\"1s\"}"
/* What such a call is taken to use: a quarter of its spec's bytes, and what it may answer. */
#define GUESSED 72u

static void router(struct trace *t)
{
    attach_as(t, &(struct worker_spec){ .id = "router", .slots = 100, .handlers = "model", .inner = true });
}

static void alive_ms(struct trace *t, int64_t ms, const char *w)
{
    for (int64_t gone = 0; gone < ms; gone += 2500) {
        after_ms(t, 2500);
        beat(t, w);
    }
}

static void a_call_goes_to_the_router_and_what_it_used_is_charged(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC("\"a\":{" MODEL "}"));
    expect(t, "reply ok t0-000001");
    assert_string_equal(reason_of(t, 1, "a"), "no worker");
    attach(t, "w1", 4);
    expect_nothing(t);
    router(t);
    expect(t, "assign a#1 to router");
    assert_int_equal(stats_of(t).n_workers, 1); /* the router is nobody's host */
    assert_int_equal(stats_of(t).n_slots, 4);
    used(t, 10, 5, 3);
    succeed(t, "router", "a", "{\"content\":\"y\"}");
    expect(t, "used 10+5 tokens, 0 wasted", "a SUCCEEDED", "task SUCCEEDED {}", "answer accepted to router");
    assert_string_equal(usage_of(t, 1), "1 calls, 10+5 tokens, 0 wasted, 3 USD");
    assert_int_equal(stats_of(t).steps_finished_by_kind[COX_KIND_MODEL][COX_STEP_SUCCEEDED], 1);
    trace_end(t);
}

static void usage_is_charged_once(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t, DOC("\"a\":{" MODEL RETRY "},\"b\":{\"needs\":[\"a\"]," RUN "}"));
    struct cox_token first = token_of(t, 1, "a");
    used(t, 10, 5, 3);
    fails(t, "router", "a", COX_CODE_UNAVAILABLE);
    after_ms(t, 1000);
    assert_string_equal(usage_of(t, 1), "1 calls, 0+0 tokens, 15 wasted, 3 USD");
    ignore(t);
    used(t, 10, 5, 3); /* the same result once more */
    report_token(t, "router", 1, 0, first);
    expect(t, "answer stale to router");
    assert_string_equal(usage_of(t, 1), "1 calls, 0+0 tokens, 15 wasted, 3 USD");
    checkpoint(t);
    crash(t);
    ignore(t);
    assert_string_equal(usage_of(t, 1), "1 calls, 0+0 tokens, 15 wasted, 3 USD");
    trace_end(t);
}

static void an_end_without_a_word_is_guessed_until_the_word_comes(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t, DOC("\"a\":{" MODEL "}"));
    struct cox_token first = token_of(t, 1, "a");
    char text[80];
    ignore(t);
    alive_ms(t, 30000, "router"); /* it never says that it has begun */
    snprintf(text, sizeof text, "0 calls, 0+0 tokens, %u wasted", GUESSED);
    assert_string_equal(usage_of(t, 1), text);
    ignore(t);
    used(t, 10, 5, 3);
    report_token(t, "router", 1, 0, first);
    expect(t, "used 0+0 tokens, 15 wasted, guessed had been 72", "answer stale to router");
    assert_string_equal(usage_of(t, 1), "1 calls, 0+0 tokens, 15 wasted, 3 USD");
    used(t, 10, 5, 3);
    report_token(t, "router", 1, 0, first);
    expect(t, "answer stale to router");
    assert_string_equal(usage_of(t, 1), "1 calls, 0+0 tokens, 15 wasted, 3 USD");
    used(t, 1, 1, 1);
    succeed(t, "router", "a", "1");
    assert_string_equal(usage_of(t, 1), "2 calls, 1+1 tokens, 15 wasted, 4 USD");
    ignore(t);
    trace_end(t);
}

static void what_a_restart_cut_off_is_guessed(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t, DOC("\"a\":{" MODEL "}"));
    started(t, "router", "a");
    crash(t);
    ignore(t);
    attach_as(t, &(struct worker_spec){
                     .id = "router", .boot = "boot2", .slots = 9, .handlers = "model", .inner = true });
    expect(t, "used 0+0 tokens, 0 wasted, guessed 72", "a taken back from its worker",
           "assign a#2 to router");
    assert_string_equal(usage_of(t, 1), "0 calls, 0+0 tokens, 72 wasted");
    used(t, 10, 5, 0);
    succeed(t, "router", "a", "1");
    ignore(t);
    assert_string_equal(usage_of(t, 1), "1 calls, 10+5 tokens, 72 wasted");
    trace_end(t);
}

static void losers_of_a_race_are_wasted(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t, DOC("\"r\":{\"race\":[{" MODEL "},{" MODEL "}]}"));
    ignore(t);
    used(t, 10, 5, 3);
    succeed(t, "router", "r.1", "1");
    used(t, 8, 2, 2);
    cancelled(t, "router", "r.0");
    ignore(t);
    assert_string_equal(usage_of(t, 1), "2 calls, 10+5 tokens, 10 wasted, 5 USD");
    trace_end(t);
}

static void items_of_a_map_are_calls(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t, DOC("\"m\":{\"map\":{\"over\":[1,2]},\"model\":{\"input\":\"${{ item }}\"}}"));
    assert_int_equal(last_hint(t).siblings, 1);
    ignore(t);
    used(t, 10, 5, 3);
    items(t, "router", "m[0]", "1");
    assert_string_equal(usage_of(t, 1), "1 calls, 10+5 tokens, 0 wasted, 3 USD");
    used(t, 10, 5, 3);
    items(t, "router", "m[1]", "!MODEL_ERROR");
    ignore(t);
    assert_string_equal(usage_of(t, 1), "2 calls, 10+5 tokens, 15 wasted, 6 USD");
    trace_end(t);
}

/* ---- budgets ---- */

static void nothing_begins_with_nothing_left(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t, WITH("\"tokens\":100", "\"a\":{" MODEL "},\"b\":{\"needs\":[\"a\"]," MODEL
                                     "},\"c\":{\"needs\":[\"b\"]," MODEL ",\"fallback\":{" MODEL "}}"));
    expect(t, "reply ok t0-000001", "assign a#1 to router");
    assert_int_equal(last_hint(t).tokens_left, 1);
    used(t, 10, 5, 0);
    succeed(t, "router", "a", "1");
    expect(t, "used 10+5 tokens, 0 wasted", "a SUCCEEDED", "answer accepted to router",
           "assign b#1 to router");
    used(t, 80, 20, 0); /* more than was left: the one call under way may do that */
    succeed(t, "router", "b", "1");
    expect(t, "used 80+20 tokens, 0 wasted", "b SUCCEEDED",
           "c refused BUDGET_EXHAUSTED: budget.tokens: 115 used, of 100", /* and its fallback */
           "c refused BUDGET_EXHAUSTED: budget.tokens: 115 used, of 100",
           "task FAILED BUDGET_EXHAUSTED: budget.tokens: 115 used, of 100", "answer accepted to router");
    trace_end(t);
}

static void items_wait_for_what_others_of_them_have_reserved(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t, WITH("\"tokens\":200", "\"m\":{\"map\":{\"over\":[1,2,3,4]},\"model\":{\"input\":\"${{ item "
                                     "}}\",\"max_tokens\":60}}"));
    after_ms(t, 1);
    assert_int_equal(stats_of(t).n_running, 2); /* of 150 tokens each at most, as far as anybody knows */
    ignore(t);
    used(t, 10, 5, 0);
    items(t, "router", "m[1]", "1");
    assert_int_equal(stats_of(t).n_running, 2);
    used(t, 10, 5, 0);
    items(t, "router", "m[0]", "1");
    ignore(t);
    used(t, 10, 200, 0); /* more than it was to */
    items(t, "router", "m[2]", "1");
    used(t, 10, 5, 0);
    items(t, "router", "m[3]", "1");
    ignore(t);
    assert_string_equal(usage_of(t, 1), "4 calls, 40+215 tokens, 0 wasted");
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    trace_end(t);
}

/* A million items may have nothing left to run on: a turn fails a thousand of them. */
static void items_without_budget_fail_some_a_turn(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    struct cox_map_view v;
    router(t);
    submit(t, WITH("\"tokens\":10",
                   "\"a\":{" MODEL "},\"m\":{\"needs\":[\"a\"],\"map\":{\"over\":\"${{ steps.a.output }}\","
                   "\"tolerate_failures\":\"100%\"},\"model\":{\"input\":\"${{ item }}\"}}"));
    used(t, 10, 5, 0);
    struct cox_buf list = { 0 };
    cox_buf_append_str(&list, "[1");
    for (int i = 0; i < 1999; i++)
        cox_buf_append_str(&list, ",1");
    cox_buf_append_str(&list, "]");
    succeed(t, "router", "a", cox_buf_cstr(&list));
    assert_true(cox_map_view(cox_engine_find(trace_engine(t), 1), 1, &v));
    assert_int_equal(v.n_failed, COX_LINK_STEPS_PER_TURN);
    assert_int_equal(wake_in_ms(t), 0);
    after_ms(t, 1);
    compose(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    ignore(t);
    cox_buf_fini(&list);
    trace_end(t);
}

static void the_budget_of_cost(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t, WITH("\"cost\":0.5", "\"a\":{" MODEL "},\"b\":{\"needs\":[\"a\"]," MODEL "}"));
    ignore(t);
    used(t, 10, 5, 600000);
    succeed(t, "router", "a", "1");
    expect(t, "used 10+5 tokens, 0 wasted", "a SUCCEEDED",
           "b refused BUDGET_EXHAUSTED: budget.cost: 0.600000 used, of 0.500000",
           "task FAILED BUDGET_EXHAUSTED: budget.cost: 0.600000 used, of 0.500000",
           "answer accepted to router");
    trace_end(t);
}

static void the_budget_of_processors(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, WITH("\"cpu_seconds\":0.0015",
                   "\"a\":{" RUN "},\"b\":{" RUN "},\"c\":{" RUN ",\"allow_failure\":true}"));
    ignore(t);
    succeed(t, "w1", "a", "1");
    credit(t, "w1", 2);
    ignore(t);
    succeed(t, "w1", "b", "1"); /* 1 ms each */
    credit(t, "w1", 3);
    expect(t, "b SUCCEEDED", "answer accepted to w1",
           "c refused BUDGET_EXHAUSTED: budget.cpu_seconds: 0.002000 used, of 0.001500", "task SUCCEEDED {}");
    trace_end(t);
}

static void the_budget_of_steps(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, WITH("\"steps\":2",
                   "\"m\":{\"map\":{\"over\":[1,2],\"max_parallel\":1},\"wait\":{\"signal\":\"go\"}}"));
    after_ms(t, 1);
    expect(t, "m waits", "m maps 2 items", "reply ok t0-000001", "frame 2 under m[0]", "1 more steps",
           "2/m[] waits: go");
    crash(t); /* it is counted durably */
    ignore(t);
    signal_task(t, 1, "go", "1");
    after_ms(t, 1);
    expect(
        t, "signal go", "2/m[] SUCCEEDED", "task SUCCEEDED 1", "m[0] done", "reply ok t0-000001",
        "m[1] FAILED after BUDGET_EXHAUSTED", "m FAILED after BUDGET_EXHAUSTED",
        "task FAILED BUDGET_EXHAUSTED: 1 of 2 items failed, tolerated are 0; item 1: budget.steps: 2 used, "
        "of 2");
    trace_end(t);
}

/* ---- what processes of steps spend ---- */

static void spends_are_charged_as_they_come_and_fenced(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    attach(t, "w1", 1);
    submit(t, WITH("\"tokens\":100", "\"a\":{" RUN RETRY "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1");
    spend(t, "router", "a", 40);
    expect(t, "used 0+40 tokens, 0 wasted");
    spend(t, "router", "a", 70);
    expect(t, "used 0+70 tokens, 0 wasted", "fence a at router");
    crash(t);
    ignore(t);
    assert_string_equal(usage_of(t, 1), "2 calls, 0+110 tokens, 0 wasted");
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    router(t);
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    ignore(t);
    spend(t, "router", "a", 1); /* it is over */
    expect(t, "used 0+0 tokens, 1 wasted", "fence a at router");
    assert_string_equal(usage_of(t, 1), "3 calls, 0+110 tokens, 1 wasted");
    trace_end(t);
}

/* ---- what the router hears ---- */

static void hints_come_from_the_graph(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    submit(t,
           WITH("\"timeout\":\"1h\"",
                "\"a\":{" MODEL ",\"priority\":7,\"idempotent\":true},\"b\":{" RUN
                "},\"c\":{\"needs\":[\"a\",\"b\"],\"wait\":{\"for\":\"5s\"}},\"d\":{\"needs\":[\"c\"]," MODEL
                "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to router");
    struct cox_call_hint h = last_hint(t);
    assert_int_equal(h.priority, 7);
    assert_true(h.idempotent);
    assert_int_equal(h.critical_path_ms, 5000 + 1000); /* the wait, and a call of which nothing is known */
    assert_int_equal(h.deadline_ms, 3600 * 1000);
    assert_int_equal(h.siblings, 1);
    assert_int_equal(h.tokens_left, 0);
    trace_end(t);
}

static void the_router_hears_when_the_next_call_may_come(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    attach(t, "w1", 9);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{\"needs\":[\"a\"]," MODEL "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to w1"); /* nobody knows yet how long that takes */
    succeed(t, "w1", "a", "1");
    ignore(t);
    submit(t, DOC("\"a\":{" RUN "},\"b\":{\"needs\":[\"a\"]," MODEL "},\"c\":{" RUN "}"));
    expect(t, "reply ok t0-000002", "assign 2/a#1 to w1", "router expects a call of t0-000002 in 1 ms",
           "assign 2/c#1 to w1");
    submit(t, DOC("\"a\":{" RUN "}"));
    expect(t, "reply ok t0-000003", "assign 3/a#1 to w1");
    trace_end(t);
}

static void nobody_takes_the_routers_name(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    router(t);
    attach_as(t, &(struct worker_spec){ .id = "router", .slots = 1, .handlers = "run" });
    expect(t, "close router: hello.worker_id: this is the router's");
    trace_end(t);
}

static void a_cordon_of_the_routers_name_is_nothing_to_the_router(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "router", 4); /* somebody's worker, once */
    policy(t, "router", COX_POLICY_CORDON);
    expect(t, "reply ok -");
    checkpoint(t);
    crash(t);
    ignore(t);
    router(t);
    submit(t, DOC("\"a\":{" MODEL "}"));
    expect(t, "reply ok t0-000001", "assign a#1 to router");
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_goes_to_the_router_and_what_it_used_is_charged),
        cmocka_unit_test(usage_is_charged_once),
        cmocka_unit_test(an_end_without_a_word_is_guessed_until_the_word_comes),
        cmocka_unit_test(what_a_restart_cut_off_is_guessed),
        cmocka_unit_test(losers_of_a_race_are_wasted),
        cmocka_unit_test(items_of_a_map_are_calls),
        cmocka_unit_test(nothing_begins_with_nothing_left),
        cmocka_unit_test(items_wait_for_what_others_of_them_have_reserved),
        cmocka_unit_test(items_without_budget_fail_some_a_turn),
        cmocka_unit_test(the_budget_of_cost),
        cmocka_unit_test(the_budget_of_processors),
        cmocka_unit_test(the_budget_of_steps),
        cmocka_unit_test(spends_are_charged_as_they_come_and_fenced),
        cmocka_unit_test(hints_come_from_the_graph),
        cmocka_unit_test(the_router_hears_when_the_next_call_may_come),
        cmocka_unit_test(nobody_takes_the_routers_name),
        cmocka_unit_test(a_cordon_of_the_routers_name_is_nothing_to_the_router),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
