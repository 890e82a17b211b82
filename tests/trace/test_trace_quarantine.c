/* Rule 4: tasks that recovery leaves alone, told as timelines. */
#include "trace_kept.h"
#include "trace_quarantine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define DOC(name, steps) "{\"api_version\":\"v1\",\"name\":\"" name "\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define TWO "\"a\":{" RUN "},\"b\":{\"needs\":[\"a\"]," RUN "}"

static void is_shown_as_failed(struct trace *t, uint32_t task_no, const char *name)
{
    enum cox_task_status status;
    enum cox_code code;
    char found[64];
    assert_true(archived_as(t, task_no, &status, &code, found));
    assert_int_equal(status, COX_TASK_FAILED);
    assert_int_equal(code, COX_CODE_INTERNAL);
    assert_string_equal(found, name);
}

static void rule_4_others_go_on(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 8 });
    submit_keyed(t, "k", DOC("victim", TWO));
    submit(t, DOC("other", TWO));
    succeed(t, "w1", "a", "1");
    succeed_in(t, 2, "w1", "a", "1");
    struct cox_token lost = token_of(t, 1, "b");
    ignore(t);
    quarantine(t, 1);
    crash(t);
    expect(t, "alarm: task t0-000001 is left alone: it crashed");
    assert_false(is_live(t, 1));
    assert_int_equal(stats_of(t).n_tasks_quarantined, 1);
    assert_int_equal(stats_of(t).n_live_tasks, 1);
    assert_int_equal(status_of(t, 2, "b"), COX_STEP_RUNNING);
    is_shown_as_failed(t, 1, "victim");

    attach(t, "w1", 2);
    ignore(t);
    report_token(t, "w1", 1, 1, lost); /* rule 6 */
    expect(t, "answer unknown to w1");
    submit_keyed(t, "k", DOC("victim", TWO));
    expect(t, "reply ok t0-000001 (known)");
    retry_task(t, 1);
    expect(t, "reply invalid argument: the task is quarantined: lift that first, or delete the task");
    fork_task(t, 1, "a");
    expect(t, "reply invalid argument: the task is quarantined: lift that first, or delete the task");
    submit(t, DOC("third", TWO));
    expect(t, "reply ok t0-000003", "assign 3/a#1 to w1"); /* its number is taken */
    trace_end(t);
}

/* What happens to it between two moments of a checkpoint makes no difference, and neither does where the
 * records are: in the log, or kept aside. */
static void story(struct trace *t, int n_saved, bool cut)
{
    attach(t, "w1", 4);
    keep_template(t, DOC("build\",\"kind\":\"template", TWO));
    submit(t, DOC("victim", "\"a\":{" RUN "},\"sub\":{\"task\":{\"ref\":\"build@1\"}},"
                            "\"map\":{\"map\":{\"over\":[1,2,3]}," RUN "},"
                            "\"end\":{\"needs\":[\"a\",\"sub\",\"map\"]," RUN "}"));
    submit(t, DOC("other", TWO));
    compile(t);
    for (int i = 0; i < n_saved; i++)
        checkpoint_some(t);
    items(t, "w1", "map[0]", "5");
    succeed(t, "w1", "a", "1");
    keep_template(t, DOC("build\",\"kind\":\"template", "\"new\":{" RUN "}")); /* 1 is still needed */
    if (cut)
        checkpoint(t);
    quarantine(t, 1);
    crash(t);
    is_shown_as_failed(t, 1, "victim");
    assert_true(n_aside(t, 1) > 0);
    checkpoint(t);
    crash(t);
    assert_int_equal(stats_of(t).n_tasks_quarantined, 1);
    lift(t, 1);
    crash(t);
    assert_int_equal(stats_of(t).n_tasks_quarantined, 0);
    crash(t); /* before a checkpoint has it */
}

static void rule_4_lifted_it_goes_on_where_it_was(void **state)
{
    (void)state;
    for (int i = 0; i < 48; i++) {
        struct trace *t = trace_begin();
        story(t, i / 2, i % 2);
        ignore(t);
        assert_int_equal(status_of(t, 1, "a"), COX_STEP_SUCCEEDED);
        assert_int_equal(status_of(t, 1, "map"), COX_STEP_WAITING);
        assert_int_equal(status_of(t, 1, "sub"), COX_STEP_WAITING);
        checkpoint(t);
        assert_int_equal(n_aside(t, 1), 0);
        attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "boot2", .slots = 8 });
        ignore(t);
        items(t, "w1", "map[1]", "6");
        items(t, "w1", "map[2]", "7");
        succeed_in(t, 3, "w1", "a", "1"); /* the frame of `sub` */
        succeed_in(t, 3, "w1", "b", "1");
        ignore(t);
        succeed(t, "w1", "end", "1");
        /* the revision that it was given is needed no longer */
        expect(t, "end SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
        archived(t, 3);
        archived(t, 1);
        expect(t, "revision 1 dropped");
        trace_end(t);
    }
}

/* A task that sleeps, one that was woken, and one of which nothing can be read. */
static void rule_4_asleep(void **state)
{
    (void)state;
    for (int woken = 0; woken < 2; woken++) {
        struct trace *t = trace_begin();
        submit(t, DOC("victim", "\"w\":{\"wait\":{\"signal\":\"go\"}},\"b\":{\"needs\":[\"w\"]," RUN "}"));
        after_ms(t, 2000);
        if (woken) {
            want(t, 1);
            load(t);
        } else {
            checkpoint(t);
        }
        ignore(t);
        quarantine(t, 1);
        crash(t);
        expect(t, "alarm: task t0-000001 is left alone: it crashed");
        assert_int_equal(stats_of(t).n_tasks_asleep, 0);
        is_shown_as_failed(t, 1, "victim");
        signal_task(t, 1, "go", "1");
        expect(t, "reply not found");
        quarantine(t, 1);
        crash(t);
        expect(t, "alarm: task t0-000001 is left alone: it crashed");
        is_shown_as_failed(t, 1, "victim"); /* read before */
        checkpoint(t);
        lift(t, 1);
        crash(t);
        ignore(t);
        assert_int_equal(stats_of(t).n_live_tasks + stats_of(t).n_tasks_asleep, 1);
        signal_task(t, 1, "go", "1");
        if (!woken)
            load(t);
        ignore(t);
        assert_int_equal(status_of(t, 1, "w"), COX_STEP_SUCCEEDED);
        trace_end(t);
    }
}

static void rule_4_unread(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC("victim", TWO));
    quarantine(t, 1);
    quarantine(t, 1);
    /* nothing was lifted between: the second time is about reading it */
    crash(t);
    is_shown_as_failed(t, 1, "unreadable");
    lift(t, 1);
    crash(t);
    ignore(t);
    assert_true(is_live(t, 1));
    trace_end(t);
}

/* It had ended, and people were told. */
static void rule_4_what_has_ended_stays_so(void **state)
{
    (void)state;
    enum cox_task_status status;
    enum cox_code code;
    char name[64];
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    submit(t, DOC("victim", "\"a\":{" RUN "}"));
    succeed(t, "w1", "a", "1");
    archived(t, 1);
    quarantine(t, 1);
    crash(t);
    ignore(t);
    assert_true(archived_as(t, 1, &status, &code, name));
    assert_int_equal(status, COX_TASK_SUCCEEDED);
    trace_end(t);
}

/* Whoever looks on learns whose things recovery is about to touch: those of frames are their root's. */
static void rule_4_places(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    keep_template(t, DOC("build\",\"kind\":\"template", TWO));
    submit(t, DOC("victim", "\"sub\":{\"task\":{\"ref\":\"build@1\"}}"));
    compile(t);
    crash(t);
    ignore(t);
    assert_int_equal(n_places(t, 1, COX_PLACE_LOAD), 0);
    assert_int_equal(n_places(t, 1, COX_PLACE_REPLAY), 4); /* submitted, waits, frame, assigned */
    assert_true(n_places(t, 1, COX_PLACE_DERIVE) >= 4);
    assert_int_equal(n_places(t, 2, COX_PLACE_REPLAY) + n_places(t, 2, COX_PLACE_DERIVE), 0);
    checkpoint(t);
    crash(t);
    ignore(t);
    assert_int_equal(n_places(t, 1, COX_PLACE_LOAD), 4); /* two headers, two pages */
    assert_int_equal(n_places(t, 1, COX_PLACE_REPLAY), 0);
    assert_int_equal(n_places(t, 2, COX_PLACE_LOAD), 0);
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_4_others_go_on),
        cmocka_unit_test(rule_4_lifted_it_goes_on_where_it_was),
        cmocka_unit_test(rule_4_asleep),
        cmocka_unit_test(rule_4_unread),
        cmocka_unit_test(rule_4_what_has_ended_stays_so),
        cmocka_unit_test(rule_4_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
