/* What a restart finds half way, told as timelines: a checkpoint that ended in its middle, steps that were
 * not linked yet. */
#include "trace.h"
#include "trace_kept.h"

#include "cox/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define DOC_OUT(steps, out)                                                                                  \
    "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "},\"outputs\":{" out "}}"
#define CHILD                                                                                                \
    "{\"api_version\":\"v1\",\"kind\":\"template\",\"name\":\"child\",\"inputs\":{\"x\":{\"type\":"          \
    "\"integer\"}},"                                                                                         \
    "\"steps\":{\"a\":{" RUN "}},\"outputs\":{\"y\":\"${{ inputs.x + 1 }}\"}}"
#define SUB_TASK "\"task\":{\"ref\":\"child@1\",\"inputs\":{\"x\":\"${{ item.n }}\"}}"
#define NOBODY "\"uses\":\"nobody@1\""
#define N_SLICES 12 /* more than what the checkpoints here have to save and to forget */

/* ---- checkpoints that ended in the middle ---- */

static void some_of_a_checkpoint_then_crash(struct trace *t, int n_slices)
{
    for (int i = 0; i < n_slices; i++)
        checkpoint_some(t);
    ignore(t);
    crash(t); /* compares what is rebuilt with what was */
    ignore(t);
}

static void a_task_that_woke_is_what_it_was_wherever_the_checkpoint_ended(void **state)
{
    (void)state;
    for (int n_slices = 0; n_slices < N_SLICES; n_slices++) {
        struct trace *t = trace_begin();
        attach(t, "w1", 9);
        submit(t, DOC_OUT("\"b\":{" RUN "},\"go\":{\"needs\":[\"b\"],\"wait\":{\"signal\":\"go\"}},"
                          "\"e\":{\"needs\":[\"go\"]," RUN "}",
                          "\"b\":\"${{ steps.b.output }}\""));
        checkpoint(t); /* the state has `b` as it runs; that it ended is in the log */
        succeed(t, "w1", "b", "\"kept\"");
        after_ms(t, 1000);
        assert_false(is_live(t, 1));
        signal_task(t, 1, "go", "42");
        load(t);
        some_of_a_checkpoint_then_crash(t, n_slices);
        assert_int_equal(status_of(t, 1, "b"), COX_STEP_SUCCEEDED);
        attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .holds = "e" });
        succeed(t, "w1", "e", "1");
        expect(t, "e SUCCEEDED", "task SUCCEEDED {\"b\":\"kept\"}", "answer accepted to w1");
        trace_end(t);
    }
}

static void a_task_that_runs_again_is_what_it_was_wherever_the_checkpoint_ended(void **state)
{
    (void)state;
    for (int n_slices = 0; n_slices < N_SLICES; n_slices++) {
        struct trace *t = trace_begin();
        attach(t, "w1", 9);
        submit(t, DOC_OUT("\"a\":{" RUN "},\"b\":{\"needs\":[\"a\"]," RUN "}",
                          "\"a\":\"${{ steps.a.output }}\""));
        checkpoint(t);
        succeed(t, "w1", "a", "7");
        fails(t, "w1", "b", COX_CODE_EXIT_NONZERO);
        archived(t, 1);
        retry_task(t, 1);
        some_of_a_checkpoint_then_crash(t, n_slices);
        attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .holds = "b" });
        succeed(t, "w1", "b", "1");
        expect(t, "b SUCCEEDED", "task SUCCEEDED {\"a\":7}", "answer accepted to w1");
        trace_end(t);
    }
}

/* ---- steps that were not linked yet ---- */

/* `n` steps that nobody runs before one more. */
static void submit_many(struct trace *t, const char *before, unsigned n, const char *last)
{
    struct cox_buf doc = { 0 };
    cox_buf_printf(
        &doc,
        "{\"api_version\":\"v1\",\"name\":\"t\",\"fail_fast\":true,\"inputs\":{\"v\":{\"type\":\"any\","
        "\"default\":\"text\"}},\"steps\":{%s",
        before);
    for (unsigned i = 0; i < n; i++)
        cox_buf_printf(&doc, "\"s%u\":{" NOBODY "},", i);
    cox_buf_printf(&doc, "%s}}", last);
    submit(t, cox_buf_cstr(&doc));
    cox_buf_fini(&doc);
    ignore(t);
}

static void fire_timers(struct trace *t)
{
    trace_step(t, &(struct cox_input){ .kind = COX_IN_TIMER });
}

/* Items that fail as soon as they are looked at, in a restart that looks at them first. */
static void items_that_end_as_they_are_linked_are_counted(bool with_checkpoint)
{
    struct trace *t = trace_begin();
    keep_template(t, CHILD);
    submit(t, "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"scan\":{\"map\":{\"over\":[{\"n\":1},2],"
              "\"tolerate_failures\":1}," SUB_TASK "}},"
              "\"outputs\":{\"o\":\"${{ steps.scan.output }}\"}}");
    if (with_checkpoint)
        checkpoint(t);
    submit_many(t, "", 2999, "\"z\":{" NOBODY "}"); /* links before the frames of the map do */
    fire_timers(t);
    expect(t, "frame 3 under scan[0]", "frame 4 under scan[1]");
    crash(t);
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_WAITING);
    attach(t, "w1", 9);
    compile(t);
    expect(t, "frame 5 under 3/scan[]", "assign 5/a#1 to w1");
    succeed_in(t, 5, "w1", "a", "1");
    expect(t, "5/a SUCCEEDED", "task SUCCEEDED {\"y\":2}", "3/scan[] SUCCEEDED", "task SUCCEEDED {\"y\":2}",
           "scan[0] done", "scan SUCCEEDED", "task SUCCEEDED {\"o\":[{\"y\":2},null]}",
           "answer accepted to w1");
    trace_end(t);
}

static void an_item_may_end_as_it_is_linked(void **state)
{
    (void)state;
    items_that_end_as_they_are_linked_are_counted(false);
    items_that_end_as_they_are_linked_are_counted(true);
}

static void what_a_step_stops_as_it_is_linked_is_stopped_with_all_that_it_began(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    keep_template(t, CHILD);
    submit_many(t,
                "\"s\":{\"task\":{\"ref\":\"child@1\",\"inputs\":{\"x\":4}}},"
                "\"m\":{\"map\":{\"over\":[1,2]},\"wait\":{\"for\":\"1h\"}},",
                5000, "\"z\":{" RUN ",\"if\":\"${{ inputs.v + 1 > 2 }}\"}");
    compile(t);
    expect(t, "frame 2 under s");
    fire_timers(t);
    expect(t, "frame 3 under m[0]", "frame 4 under m[1]");
    crash(t); /* `z` is linked now, fails, and the task with it */
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_FAILED);
    assert_int_equal(view_of(t, 2).status, COX_TASK_CANCELLED);
    assert_int_equal(view_of(t, 3).status, COX_TASK_CANCELLED);
    assert_int_equal(view_of(t, 4).status, COX_TASK_CANCELLED);
    attach(t, "w1", 9);
    expect_nothing(t);
    trace_end(t);
}

static void a_wait_that_begins_as_it_is_linked_begins_once(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit_many(t, "", 2999, "\"y\":{\"wait\":{\"signal\":\"go\"}},\"z\":{\"wait\":{\"signal\":\"go\"}}");
    crash(t);
    ignore(t);
    signal_task(t, 1, "go", "1");
    expect(t, "signal go", "y SUCCEEDED", "reply ok t0-000001");
    signal_task(t, 1, "go", "2");
    expect(t, "signal go", "z SUCCEEDED", "reply ok t0-000001");
    signal_task(t, 1, "go", "3");
    expect(t, "signal go", "reply ok t0-000001");
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_that_woke_is_what_it_was_wherever_the_checkpoint_ended),
        cmocka_unit_test(a_task_that_runs_again_is_what_it_was_wherever_the_checkpoint_ended),
        cmocka_unit_test(an_item_may_end_as_it_is_linked),
        cmocka_unit_test(a_wait_that_begins_as_it_is_linked_begins_once),
        cmocka_unit_test(what_a_step_stops_as_it_is_linked_is_stopped_with_all_that_it_began),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
