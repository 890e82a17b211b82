#include "trace_kept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define TEMPLATE(name, steps)                                                                                \
    "{\"api_version\": \"v1\", \"kind\": \"template\", \"name\": \"" name "\", \"steps\": {" steps "}}"
#define TASK(name, steps) "{\"api_version\": \"v1\", \"name\": \"" name "\", \"steps\": {" steps "}}"
#define RUN(step, word) "\"" step "\": {\"run\": {\"argv\": [\"" word "\"]}}"
#define CALL(step, ref) "\"" step "\": {\"task\": {\"ref\": \"" ref "\"}}"

static bool has(struct trace *t, const char *name, uint32_t major)
{
    struct cox_template_view v;
    return cox_engine_find_template(trace_engine(t), cox_slice_str("default"), cox_slice_str(name), major,
                                    &v);
}

static void not_there(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, TASK("t", CALL("s", "build@1")));
    expect(t, "reply invalid argument: there is no template \"build@1\"");
    keep_template(t, TEMPLATE("build", RUN("b", "one")));
    expect(t, "template build@1 is revision 1", "reply ok -");
    submit(t, TASK("t", CALL("s", "build@2")));
    expect(t, "reply invalid argument: there is no template \"build@2\"");
    submit(t, TASK("t", CALL("s", "build@1") ", " CALL("z", "other@1")));
    expect(t, "reply invalid argument: there is no template \"other@1\"");
    trace_end(t);
}

static void same_again(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, TEMPLATE("build", RUN("b", "one")));
    keep_template(t, TEMPLATE("build", RUN("b", "one")));
    expect(t, "template build@1 is revision 1", "reply ok -", "reply ok -");
    keep_template(t, TEMPLATE("build", RUN("b", "two")));
    expect(t, "template build@1 is revision 2", "revision 1 dropped", "reply ok -");
    drop_template(t, "build", 1);
    drop_template(t, "build", 1);
    expect(t, "revision 2 deleted", "revision 2 dropped", "reply ok -", "reply not found");
    keep_template(t, TEMPLATE("build", RUN("b", "three")));
    expect(t, "template build@1 is revision 3", "reply ok -");
    trace_end(t);
}

/* A task runs what it was submitted with, over a new revision, a delete, and restarts. */
static void rule_12_pinned(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    keep_template(t, TEMPLATE("build", RUN("old", "one")));
    submit(t, TASK("t", RUN("first",
                            "true") ", \"s\": {\"needs\": [\"first\"], \"task\": {\"ref\": \"build@1\"}}"));
    ignore(t);
    keep_template(t, TEMPLATE("build", RUN("new", "two")));
    expect(t, "template build@1 is revision 2", "reply ok -"); /* the first one stays */
    checkpoint_some(t);
    crash(t);
    drop_template(t, "build", 1);
    expect(t, "revision 2 deleted", "revision 2 dropped", "reply ok -");
    assert_false(has(t, "build", 1));
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "first" });
    ignore(t);
    succeed(t, "w1", "first", "{}");
    ignore(t);
    compile(t);
    ignore(t);
    assert_int_equal(status_of(t, 1, "s"), COX_STEP_WAITING);
    succeed_in(t, 2, "w1", "old", "{}");
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    archived(t, 2);
    ignore(t);
    archived(t, 1);
    expect(t, "revision 1 dropped");
    trace_end(t);
}

/* What a template names is looked up when its frame opens. */
static void nested(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, TEMPLATE("outer", CALL("in", "inner@1")));
    submit(t, TASK("t", CALL("s", "outer@1")));
    ignore(t);
    compile(t);
    expect(t, "s FAILED after INPUT_INVALID", "task FAILED INPUT_INVALID: there is no template \"inner@1\"");
    keep_template(t, TEMPLATE("inner", RUN("i", "true")));
    submit(t, TASK("t", CALL("s", "outer@1")));
    ignore(t);
    compile(t);
    drop_template(t, "inner", 1);
    ignore(t);
    assert_false(has(t, "inner", 1));
    attach(t, "w1", 1);
    compile(t);
    expect(t, "frame 4 under 3/in", "assign 4/i#1 to w1");
    trace_end(t);
}

/* A task that waits has left memory; what it has pinned has not. */
static void asleep(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, TEMPLATE("build", RUN("b", "one")));
    submit(t, TASK("t", "\"w\": {\"wait\": {\"for\": \"1h\"}}, "
                        "\"s\": {\"needs\": [\"w\"], \"task\": {\"ref\": \"build@1\"}}"));
    after_ms(t, 5000);
    assert_false(is_live(t, 1));
    ignore(t);
    keep_template(t, TEMPLATE("build", RUN("b", "two")));
    drop_template(t, "build", 1);
    expect(t, "template build@1 is revision 2", "reply ok -", "revision 2 deleted", "revision 2 dropped",
           "reply ok -");
    crash(t);
    after_ms(t, 1000);
    expect_nothing(t); /* revision 1 is still there */
    trace_end(t);
}

static void in_order(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    static const char *const documents[] = {
        TEMPLATE("b", RUN("x", "true")),
        TEMPLATE("a_long", RUN("x", "true")),
        TEMPLATE("a", RUN("x", "true")),
        "{\"api_version\": \"v1\", \"kind\": \"template\", \"name\": \"a\", \"version\": 12, \"steps\": "
        "{" RUN("x", "true") "}}",
        "{\"api_version\": \"v1\", \"kind\": \"template\", \"name\": \"a\", \"version\": 2, \"steps\": {" RUN(
            "x", "true") "}}",
    };
    static const struct {
        const char *name;
        uint32_t major;
    } order[] = { { "a", 1 }, { "a", 2 }, { "a", 12 }, { "a_long", 1 }, { "b", 1 } };
    for (size_t i = 0; i < 5; i++)
        keep_template(t, documents[i]);
    ignore(t);
    crash(t);
    struct cox_slice tenant = cox_slice_str("default"), name = { 0 };
    struct cox_template_view v;
    uint32_t major = 0;
    for (size_t i = 0; i < 5; i++) {
        assert_true(cox_engine_next_template(trace_engine(t), tenant, name, major, &v));
        assert_true(cox_slice_is(v.name, order[i].name) && v.major == order[i].major);
        name = v.name;
        major = v.major;
    }
    assert_false(cox_engine_next_template(trace_engine(t), tenant, name, major, &v));
    drop_template(t, "a", 2); /* a place that is gone is a place still */
    ignore(t);
    assert_true(cox_engine_next_template(trace_engine(t), tenant, cox_slice_str("a"), 2, &v) &&
                v.major == 12);
    assert_false(cox_engine_next_template(trace_engine(t), cox_slice_str("other"), name, 0, &v));
    trace_end(t);
}

/* A schedule's task pins as any other; without its templates there is nothing to run. */
static void by_schedule(void **state)
{
    (void)state;
    static const char nightly[] =
        "{\"api_version\": \"v1\", \"kind\": \"schedule\", \"name\": \"nightly\", "
        "\"schedule\": {\"cron\": \"* * * * *\"}, \"steps\": {" CALL("s", "build@1") "}}";
    struct trace *t = trace_begin();
    keep_schedule(t, nightly, "");
    expect(t, "reply invalid argument: there is no template \"build@1\"");
    keep_template(t, TEMPLATE("build", RUN("b", "one")));
    keep_schedule(t, nightly, "");
    ignore(t);
    after_ms(t, 60000);
    expect(t, "run of schedule 1: task 1", "s waits", "compile template with {}");
    cancel(t, 1, "x");
    drop_template(t, "build", 1);
    ignore(t);
    after_ms(t, 60000);
    expect(t, "run of schedule 1: none, skips 1",
           "alarm: schedule nightly: there is no template \"build@1\"");
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(not_there),   cmocka_unit_test(same_again), cmocka_unit_test(rule_12_pinned),
        cmocka_unit_test(nested),      cmocka_unit_test(asleep),     cmocka_unit_test(in_order),
        cmocka_unit_test(by_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
