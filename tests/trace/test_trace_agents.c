/* Agents, told as timelines: turns of a model, and of the tools that it asks for. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define LOOK                                                                                                 \
    "{\"name\":\"look\",\"description\":\"looks\",\"parameters\":{\"type\":\"object\",\"properties\":{"      \
    "\"input\":{"                                                                                            \
    "\"type\":\"string\"}},\"required\":[\"input\"]},\"run\":{\"argv\":[\"look\",\"${{ args.input }}\"]}}"
#define AGENT(fields, tools)                                                                                 \
    "\"a\":{\"agent\":{\"instructions\":\"do\",\"input\":\"x\"," fields "\"tools\":[" tools "]}}"

#define ANSWER(text) "{\"content\":\"" text "\",\"finish_reason\":\"stop\"}"
#define CALL(id, name, args)                                                                                 \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"arguments\":\"" args     \
    "\"}}"
#define CALLS(calls) "{\"content\":null,\"tool_calls\":[" calls "],\"finish_reason\":\"tool_calls\"}"

static struct trace *begin(void)
{
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "router", .slots = 100, .handlers = "model", .inner = true });
    attach(t, "w1", 4);
    return t;
}

static void an_agent_that_answers_at_once(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, DOC(AGENT("", "")));
    expect(t, "reply ok t0-000001", "evaluate for a");
    evaluate(t);
    expect(t, "a waits", "a begins", "which tools");
    decide(t);
    expect(t, "a has its tools", "a.t1 opens", "assign a.t1#1 to router");
    assert_non_null(strstr(last_spec(t), "\"said\":[]"));
    succeed(t, "router", "a.t1", ANSWER("42"));
    expect(t, "a.t1 SUCCEEDED", "task SUCCEEDED {\"content\":\"42\",\"finish_reason\":\"stop\"}",
           "a is answered", "what does it ask for", "answer accepted to router");
    decide(t);
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}");
    trace_end(t);
}

static void tools_run_and_the_model_hears_of_them(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, DOC(AGENT("", LOOK)));
    evaluate(t);
    decide(t);
    ignore(t);
    succeed(t, "router", "a.t1",
            CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}") "," CALL("c2", "look",
                                                                            "{\\\"input\\\":\\\"down\\\"}")));
    decide(t);
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t1.look.0"), COX_STEP_RUNNING);
    assert_non_null(strstr(last_spec(t), "\"down\""));
    succeed(t, "w1", "a.t1.look.1", "\"floor\"");
    succeed(t, "w1", "a.t1.look.0", "\"sky\"");
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t2"), COX_STEP_RUNNING);
    /* in the order of the calls */
    assert_non_null(
        strstr(last_spec(t), "{\"result\":\"sky\",\"id\":\"c1\"},{\"result\":\"floor\",\"id\":\"c2\"}"));
    crash(t);
    ignore(t);
    trace_end(t);
}

/* Up to where the model is asked. */
static struct trace *begun(const char *document)
{
    struct trace *t = begin();
    submit(t, document);
    evaluate(t);
    decide(t);
    ignore(t);
    return t;
}

/* The model's answer, and what follows from it. */
static void says(struct trace *t, const char *turn, const char *answer)
{
    succeed(t, "router", turn, answer);
    decide(t);
}

static void what_the_model_gets_wrong_it_is_told(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("", LOOK)));
    says(t, "a.t1", CALLS(CALL("c1", "lick", "{}") "," CALL("c2", "look", "{\\\"input\\\":7}")));
    expect(t, "a.t1 SUCCEEDED",
           "task SUCCEEDED " CALLS(CALL("c1", "lick", "{}") "," CALL("c2", "look", "{\\\"input\\\":7}")),
           "a is answered", "what does it ask for", "answer accepted to router", "a makes 2 calls",
           "a.t2 opens", "assign a.t2#1 to router");
    assert_non_null(strstr(last_spec(t), "there is no tool \\\"lick\\\"; the tools are: look"));
    assert_non_null(strstr(last_spec(t), "input: expected string"));
    says(t, "a.t2", "{\"content\":null,\"finish_reason\":\"stop\"}");
    assert_non_null(strstr(last_spec(t), "neither a text nor a call"));
    says(t, "a.t3", "{\"content\":null}");
    ignore(t);
    says(t, "a.t4", "{\"content\":null}"); /* twice is enough */
    expect(t, "a.t4 SUCCEEDED", "task SUCCEEDED {\"content\":null}", "a is answered", "what does it ask for",
           "answer accepted to router", "a FAILED after OUTPUT_INVALID",
           "task FAILED OUTPUT_INVALID: the answer has neither a text nor a call of a tool");
    trace_end(t);
}

static void a_tool_that_fails_is_an_answer(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("", LOOK)));
    says(t, "a.t1", CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}")));
    fails(t, "w1", "a.t1.look.0", COX_CODE_EXIT_NONZERO);
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t2"), COX_STEP_RUNNING);
    assert_non_null(strstr(last_spec(t), "EXIT_NONZERO"));
    trace_end(t);
}

static void no_more_calls_at_once_than_it_may_make(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("\"max_parallel_tool_calls\":1,", LOOK)));
    says(t, "a.t1",
         CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"1\\\"}") "," CALL("c2", "look",
                                                                        "{\\\"input\\\":\\\"2\\\"}")));
    ignore(t);
    succeed(t, "w1", "a.t1.look.0", "1");
    expect(t, "a.t1.look.0 SUCCEEDED", "task SUCCEEDED 1", "a call 0 returned 1", "a.t1.look.1 opens",
           "answer accepted to w1", "assign a.t1.look.1#1 to w1 in a");
    trace_end(t);
}

static void some_calls_need_a_person(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("\"approve\":[\"look\"],", LOOK)));
    says(t, "a.t1",
         CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}") "," CALL("c2", "look",
                                                                         "{\\\"input\\\":\\\"down\\\"}")));
    ignore(t);
    assert_string_equal(reason_of(t, 1, "a.t1.look.0.approval"), "approval");
    answer_approval(t, 1, "a.t1.look.0.approval", true, "");
    answer_approval(t, 1, "a.t1.look.1.approval", false, "not there");
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t1.look.0"), COX_STEP_RUNNING);
    succeed(t, "w1", "a.t1.look.0", "\"sky\"");
    ignore(t);
    assert_non_null(strstr(last_spec(t),
                           "{\"result\":\"sky\",\"id\":\"c1\"},{\"result\":{\"error\":{\"code\":\"DENIED\""));
    assert_non_null(strstr(last_spec(t), "not there"));
    trace_end(t);
}

static void a_question_is_answered_in_the_persons_words(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("", "{\"ask_user\":true}")));
    says(t, "a.t1", CALLS(CALL("c1", "ask_user", "{\\\"question\\\":\\\"which?\\\"}")));
    ignore(t);
    answer_approval(t, 1, "a.t1.ask_user.0.approval", true, "the \"red\" one");
    ignore(t);
    assert_non_null(strstr(last_spec(t), "{\"result\":\"the \\\"red\\\" one\",\"id\":\"c1\"}"));
    says(t, "a.t2", CALLS(CALL("c2", "ask_user", "{\\\"question\\\":\\\"sure?\\\"}")));
    answer_approval(t, 1, "a.t2.ask_user.0.approval", true, "");
    ignore(t);
    assert_non_null(strstr(last_spec(t), "{\"result\":\"yes\",\"id\":\"c2\"}"));
    trace_end(t);
}

static void a_persons_word_comes_with_the_next_turn(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("", LOOK)));
    message_task(t, 1, "", "hurry");
    expect(t, "a hears hurry", "reply ok t0-000001");
    says(t, "a.t1", CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}")));
    ignore(t);
    message_task(t, 1, "a", "and look down");
    ignore(t);
    crash(t);
    attach_as(t, &(struct worker_spec){
                     .id = "router", .boot = "boot2", .slots = 100, .handlers = "model", .inner = true });
    attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "boot2", .slots = 4 });
    succeed(t, "w1", "a.t1.look.0", "\"sky\"");
    ignore(t);
    assert_non_null(strstr(last_spec(t), "{\"result\":\"sky\",\"id\":\"c1\"},{\"text\":\"hurry\"},"
                                         "{\"text\":\"and look down\"}]"));
    message_task(t, 1, "", "wait"); /* what it was about to say is not its last word then */
    says(t, "a.t2", ANSWER("42"));
    ignore(t);
    assert_non_null(strstr(last_spec(t), "42\",\"finish_reason\":\"stop\"}},{\"text\":\"wait\"}]"));
    says(t, "a.t3", ANSWER("43"));
    ignore(t);
    message_task(t, 1, "", "too late");
    expect(t, "reply invalid argument: the task has ended");
    trace_end(t);
}

static void a_word_needs_an_agent_that_runs(void **state)
{
    (void)state;
    struct trace *t = begin();
    submit(t, DOC("\"b\":{" RUN
                  "}," AGENT("", LOOK) ",\"c\":{\"agent\":{\"instructions\":\"do\",\"input\":\"x\"}}"));
    ignore(t);
    message_task(t, 1, "", "hello");
    expect(t, "reply invalid argument: no agent of the task runs now");
    message_task(t, 1, "a", "hello");
    expect(t, "reply invalid argument: the agent does not run now");
    evaluate(t);
    evaluate(t);
    decide(t);
    decide(t);
    ignore(t);
    message_task(t, 1, "", "hello");
    expect(t, "reply invalid argument: several agents of the task run: name the step of one");
    message_task(t, 1, "b", "hello");
    expect(t, "reply invalid argument: the step is no agent");
    message_task(t, 1, "nobody", "hello");
    expect(t, "reply not found: the task has no such step now");
    for (int i = 0; i < 256; i++)
        message_task(t, 1, "c", "hello");
    ignore(t);
    message_task(t, 1, "c", "hello");
    expect(t, "reply limit reached: the agent has not yet heard what was said before: too many words wait");
    trace_end(t);
}

static void it_asks_no_more_often_than_it_may(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("\"max_turns\":1,", LOOK)));
    says(t, "a.t1", CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}")));
    ignore(t);
    succeed(t, "w1", "a.t1.look.0", "1");
    expect(t, "a.t1.look.0 SUCCEEDED", "task SUCCEEDED 1", "a call 0 returned 1",
           "a FAILED after RESOURCE_EXHAUSTED",
           "task FAILED RESOURCE_EXHAUSTED: no answer after 1 turns (`max_turns`)", "release t0-000001 on w1",
           "answer accepted to w1");
    trace_end(t);
}

static void a_failed_model_fails_it_and_a_retry_goes_on_where_it_was(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("", LOOK)));
    says(t, "a.t1", CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}")));
    succeed(t, "w1", "a.t1.look.0", "\"sky\"");
    ignore(t);
    fails(t, "router", "a.t2", COX_CODE_MODEL_ERROR);
    assert_int_equal(view_of(t, 1).status, COX_TASK_FAILED);
    for (uint32_t no = 4; no > 0; no--)
        archived(t, no);
    ignore(t);
    retry_task(t, 1);
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t2"), COX_STEP_RUNNING);
    assert_non_null(strstr(last_spec(t), "{\"result\":\"sky\",\"id\":\"c1\"}"));
    says(t, "a.t2", ANSWER("42"));
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    trace_end(t);
}

static void cancelled_it_ends_when_what_it_has_begun_has_ended(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("", LOOK)));
    says(t, "a.t1", CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}")));
    ignore(t);
    cancel(t, 1, "enough");
    ignore(t);
    assert_int_equal(status_of(t, 1, "a"), COX_STEP_WAITING);
    cancelled(t, "w1", "a.t1.look.0");
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_CANCELLED);
    trace_end(t);
}

static void a_tool_that_nobody_offers_is_waited_for(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT("", "{\"uses\":\"offered@1\"}")));
    assert_int_equal(status_of(t, 1, "a"), COX_STEP_WAITING);
    program_offered(t, true);
    attach_as(t, &(struct worker_spec){ .id = "w2", .slots = 1, .handlers = "offered@1=1.0.0" });
    decide(t);
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t1"), COX_STEP_RUNNING);
    trace_end(t);
}

static void an_agent_may_be_a_tool(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(
        AGENT("", "{\"name\":\"expert\",\"description\":\"knows\",\"agent\":{\"instructions\":\"know\"}}")));
    says(t, "a.t1", CALLS(CALL("c1", "expert", "{\\\"input\\\":\\\"why\\\"}")));
    evaluate(t);
    decide(t);
    ignore(t);
    says(t, "a.t1.expert.0.t1", ANSWER("because"));
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t2"), COX_STEP_RUNNING);
    assert_non_null(strstr(last_spec(t), "because"));
    says(t, "a.t2", ANSWER("42"));
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    trace_end(t);
}

/* What is said is kept once: a crash after each record of a run of turns finds the same conversation. */
static void a_crash_at_any_moment_changes_nothing(void **state)
{
    (void)state;
    for (int stop = 0; stop < 6; stop++) {
        struct trace *t = begun(DOC(AGENT("", LOOK)));
        int at = 0;
#define MAYBE_CRASH()                                                                                        \
    do {                                                                                                     \
        if (at++ == stop) {                                                                                  \
            crash(t);                                                                                        \
            attach_as(                                                                                       \
                t, &(struct worker_spec){                                                                    \
                       .id = "router", .boot = "boot2", .slots = 100, .handlers = "model", .inner = true }); \
            attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "boot2", .slots = 4 });                  \
        }                                                                                                    \
        ignore(t);                                                                                           \
    } while (0)
        MAYBE_CRASH();
        succeed(t, "router", "a.t1", CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}")));
        MAYBE_CRASH();
        decide(t);
        MAYBE_CRASH();
        succeed(t, "w1", "a.t1.look.0", "\"sky\"");
        MAYBE_CRASH();
        assert_non_null(strstr(last_spec(t), "{\"result\":\"sky\",\"id\":\"c1\"}"));
        succeed(t, "router", "a.t2", ANSWER("42"));
        MAYBE_CRASH();
        decide(t);
        assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
        ignore(t);
        trace_end(t);
    }
}

/* ---- plans ---- */

#define PLAN(fields) "\"p\":{\"plan\":{\"input\":\"x\"" fields "}}"
#define RUNS ",\"allow\":{\"kinds\":[\"run\"]}"
#define PLANNED(steps, output)                                                                               \
    "{\"content\":\"{\\\"steps\\\":{" steps "},\\\"output\\\":\\\"" output                                   \
    "\\\"}\",\"finish_reason\":\"stop\"}"
#define STEP_OF_PLAN(name) "\\\"" name "\\\":{\\\"run\\\":{\\\"argv\\\":[\\\"true\\\"]}}"
#define OF(name) "${{ steps." name ".output }}"

static void a_plan_is_run_and_comes_to_its_output(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(PLAN(RUNS)));
    says(t, "p.t1", PLANNED(STEP_OF_PLAN("x"), OF("x")));
    ignore(t);
    assert_string_equal(reason_of(t, 1, "p"), "expanding");
    compile(t);
    expect(t, "frame 3 under p", "assign 3/x#1 to w1");
    assert_string_equal(reason_of(t, 1, "p"), "children");
    assert_int_equal(status_of(t, 1, "p.x"), COX_STEP_RUNNING);
    succeed_in(t, 3, "w1", "x", "5");
    expect(t, "3/x SUCCEEDED", "task SUCCEEDED 5", "p SUCCEEDED", "task SUCCEEDED {}",
           "answer accepted to w1");
    trace_end(t);
}

static void a_plan_that_cannot_be_run_is_told_to_the_model(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(PLAN(RUNS ",\"on_invalid\":{\"reask\":2}")));
    says(t, "p.t1", PLANNED(STEP_OF_PLAN("x"), OF("y")));
    ignore(t);
    compile(t);
    ignore(t);
    assert_non_null(strstr(last_spec(t), "the plan cannot be run: "));
    says(t, "p.t2", PLANNED(STEP_OF_PLAN("t1"), OF("t1"))); /* the address of the model's call */
    ignore(t);
    compile(t);
    expect(t, "p is told the plan cannot be run: steps.t1: the name is taken, expected another", "p.t3 opens",
           "assign p.t3#1 to router");
    crash(t); /* how often it was asked is no secret of the process */
    attach_as(t, &(struct worker_spec){
                     .id = "router", .boot = "boot2", .slots = 100, .handlers = "model", .inner = true });
    ignore(t);
    says(t, "p.t3", PLANNED(STEP_OF_PLAN("t3"), OF("t3")));
    ignore(t);
    compile(t);
    expect(
        t, "p FAILED after OUTPUT_INVALID",
        "task FAILED OUTPUT_INVALID: the plan cannot be run: steps.t3: the name is taken, expected another");
    trace_end(t);
}

static void a_plan_has_no_more_than_it_may_have(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(PLAN(",\"allow\":{\"kinds\":[\"uses\"],\"uses\":[\"p@1\"]}")));
    says(t, "p.t1", PLANNED(STEP_OF_PLAN("x"), OF("x")));
    ignore(t);
    compile(t);
    ignore(t);
    assert_int_equal(status_of(t, 1, "p.t2"), COX_STEP_RUNNING);
    assert_non_null(strstr(last_spec(t), "a plan may not have `run`"));
    trace_end(t);
}

/* The graph ran, and failed: the model has said what it had to say. */
static void a_plan_whose_steps_fail_is_run_again_and_not_asked_for_again(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(PLAN(RUNS)));
    says(t, "p.t1", PLANNED(STEP_OF_PLAN("x"), OF("x")));
    compile(t);
    ignore(t);
    fails_in(t, 3, "w1", "x", COX_CODE_EXIT_NONZERO);
    expect(t, "3/x FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: it broke",
           "p FAILED after EXIT_NONZERO", "task FAILED EXIT_NONZERO: step x: it broke",
           "answer accepted to w1");
    for (uint32_t no = 3; no > 0; no--)
        archived(t, no);
    ignore(t);
    retry_task(t, 1);
    expect(t, "task 1 runs again", "p waits", "reply ok t0-000001", "what does it ask for");
    decide(t);
    expect(t, "compile plan with {}");
    compile(t);
    expect(t, "frame 4 under p", "assign 4/x#1 to w1");
    succeed_in(t, 4, "w1", "x", "5");
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    trace_end(t);
}

static void a_stopped_plan_stops_its_steps(void **state)
{
    (void)state;
    struct trace *t = begun(DOC("\"p\":{\"plan\":{\"input\":\"x\"" RUNS "},\"timeout\":\"5s\"}"));
    says(t, "p.t1", PLANNED(STEP_OF_PLAN("x"), OF("x")));
    compile(t);
    ignore(t);
    after_ms(t, 5000);
    ignore(t);
    assert_int_equal(status_of(t, 1, "p"), COX_STEP_WAITING); /* until they have ended */
    cancelled_in(t, 3, "w1", "x");
    expect(t, "3/x CANCELLED", "task CANCELLED CANCELLED: what it is part of was stopped",
           "p FAILED after TIMEOUT", "task FAILED TIMEOUT: its `timeout` has passed",
           "answer accepted to w1");
    trace_end(t);
}

/* What its model used, and what the plan's steps use, is the task's. */
static void a_plan_has_what_is_left_of_the_budget(void **state)
{
    (void)state;
    struct trace *t =
        begun("{\"api_version\":\"v1\",\"name\":\"t\",\"budget\":{\"tokens\":50},\"steps\":{" PLAN(
            ",\"allow\":{\"kinds\":[\"model\"]}") "}}");
    used(t, 40, 20, 0);
    says(t, "p.t1", PLANNED("\\\"x\\\":{\\\"model\\\":{\\\"input\\\":\\\"x\\\"}}", OF("x")));
    compile(t);
    ignore(t);
    assert_int_equal(view_of(t, 1).code, COX_CODE_BUDGET_EXHAUSTED);
    trace_end(t);
}

static void a_crash_at_any_moment_of_a_plan_changes_nothing(void **state)
{
    (void)state;
    for (int stop = 0; stop < 5; stop++) {
        struct trace *t = begun(DOC(PLAN(RUNS)));
        int at = 0;
        MAYBE_CRASH();
        succeed(t, "router", "p.t1", PLANNED(STEP_OF_PLAN("x"), OF("x")));
        MAYBE_CRASH();
        decide(t);
        MAYBE_CRASH();
        if (at - 1 == stop)
            decide(t); /* anew, of the answer that is kept */
        compile(t);
        MAYBE_CRASH();
        assert_int_equal(status_of(t, 1, "p.x"), COX_STEP_RUNNING);
        succeed_in(t, 3, "w1", "x", "5");
        assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
        MAYBE_CRASH();
        trace_end(t);
    }
}

/* ---- how long the conversation may be ---- */

#define CONTEXT(max, full) "\"context\":{\"max_tokens\":" max ",\"on_full\":\"" full "\"},"
#define LOOKS CALLS(CALL("c1", "look", "{\\\"input\\\":\\\"up\\\"}"))

/* A turn that looks, and sees so much. */
static void looks(struct trace *t, uint64_t input_tokens, const char *turn, const char *tool, int len)
{
    char seen[2000];
    snprintf(seen, sizeof seen, "\"%0*d\"", len, 7);
    used(t, input_tokens, 10, 0);
    says(t, turn, LOOKS);
    ignore(t);
    succeed(t, "w1", tool, seen);
}

static void a_conversation_that_is_too_long_fails(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT(CONTEXT("1000", "fail"), LOOK)));
    looks(t, 700, "a.t1", "a.t1.look.0", 400);
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t2"), COX_STEP_RUNNING); /* 700 and a bit */
    looks(t, 950, "a.t2", "a.t2.look.0", 400);
    ignore(t);
    assert_int_equal(view_of(t, 1).code, COX_CODE_CONTEXT_LENGTH);
    trace_end(t);
}

static void the_oldest_results_make_room(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT(CONTEXT("1000", "trim_tool_results"), LOOK)));
    looks(t, 300, "a.t1", "a.t1.look.0", 1000);
    looks(t, 600, "a.t2", "a.t2.look.0", 10);
    looks(t, 900, "a.t3", "a.t3.look.0", 600);
    ignore(t);
    assert_int_equal(status_of(t, 1, "a.t4"), COX_STEP_RUNNING);
    assert_non_null(strstr(last_spec(t), "[left out: a result of 1002 bytes]"));
    assert_null(strstr(last_spec(t), "a result of 602 bytes")); /* the model has not seen it yet */
    assert_non_null(strstr(last_spec(t), "\"0000000007\""));
    trace_end(t);
}

static void a_call_that_is_refused_as_too_long_is_tried_with_less(void **state)
{
    (void)state;
    struct trace *t = begun(DOC(AGENT(CONTEXT("100000", "trim_tool_results"), LOOK)));
    looks(t, 300, "a.t1", "a.t1.look.0", 1600);
    looks(t, 300, "a.t2", "a.t2.look.0", 400);
    looks(t, 300, "a.t3", "a.t3.look.0", 10);
    ignore(t);
    fails(t, "router", "a.t4", COX_CODE_CONTEXT_LENGTH);
    expect(t, "a.t4 FAILED after CONTEXT_LENGTH", "task FAILED CONTEXT_LENGTH: it broke",
           "a is refused as too long", "a leaves out results before 2", "a.t5 opens",
           "answer accepted to router", "assign a.t5#1 to router");
    crash(t); /* what was left out stays so */
    attach_as(t, &(struct worker_spec){
                     .id = "router", .boot = "boot2", .slots = 100, .handlers = "model", .inner = true });
    ignore(t);
    assert_non_null(strstr(last_spec(t), "[left out: a result of 1602 bytes]"));
    assert_non_null(strstr(last_spec(t), "0000000007"));
    fails(t, "router", "a.t5", COX_CODE_CONTEXT_LENGTH);
    expect(t, "a.t5 FAILED after CONTEXT_LENGTH", "task FAILED CONTEXT_LENGTH: it broke",
           "a FAILED after CONTEXT_LENGTH", "task FAILED CONTEXT_LENGTH: it broke",
           "answer accepted to router");
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_agent_that_answers_at_once),
        cmocka_unit_test(tools_run_and_the_model_hears_of_them),
        cmocka_unit_test(what_the_model_gets_wrong_it_is_told),
        cmocka_unit_test(a_tool_that_fails_is_an_answer),
        cmocka_unit_test(no_more_calls_at_once_than_it_may_make),
        cmocka_unit_test(some_calls_need_a_person),
        cmocka_unit_test(a_question_is_answered_in_the_persons_words),
        cmocka_unit_test(a_persons_word_comes_with_the_next_turn),
        cmocka_unit_test(a_word_needs_an_agent_that_runs),
        cmocka_unit_test(it_asks_no_more_often_than_it_may),
        cmocka_unit_test(a_failed_model_fails_it_and_a_retry_goes_on_where_it_was),
        cmocka_unit_test(cancelled_it_ends_when_what_it_has_begun_has_ended),
        cmocka_unit_test(a_tool_that_nobody_offers_is_waited_for),
        cmocka_unit_test(an_agent_may_be_a_tool),
        cmocka_unit_test(a_crash_at_any_moment_changes_nothing),
        cmocka_unit_test(a_plan_is_run_and_comes_to_its_output),
        cmocka_unit_test(a_plan_that_cannot_be_run_is_told_to_the_model),
        cmocka_unit_test(a_plan_has_no_more_than_it_may_have),
        cmocka_unit_test(a_plan_whose_steps_fail_is_run_again_and_not_asked_for_again),
        cmocka_unit_test(a_stopped_plan_stops_its_steps),
        cmocka_unit_test(a_plan_has_what_is_left_of_the_budget),
        cmocka_unit_test(a_crash_at_any_moment_of_a_plan_changes_nothing),
        cmocka_unit_test(a_conversation_that_is_too_long_fails),
        cmocka_unit_test(the_oldest_results_make_room),
        cmocka_unit_test(a_call_that_is_refused_as_too_long_is_tried_with_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
