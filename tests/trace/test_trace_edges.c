/* Edges, told as timelines: histories that are legal and seldom. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define ONE DOC("\"a\":{" RUN "}")

static void a_step_skipped_while_the_task_is_linked_skips_its_dependants(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC("\"a\":{\"if\":\"${{ 1 > 2 }}\"," RUN "},\"b\":{\"needs\":[\"a\"]," RUN "},"
                  "\"c\":{\"needs\":[\"a\",\"b\"],\"if\":\"${{ always() }}\"," RUN "}"));
    expect(t, "a SKIPPED", "b SKIPPED", "reply ok t0-000001");
    attach(t, "w1", 1);
    expect(t, "assign c#1 to w1");
    crash(t);
    attach(t, "w1", 1);
    expect(t, "c taken back from its worker", "assign c#2 to w1");
    succeed(t, "w1", "c", "1");
    expect(t, "c SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void a_fallback_after_a_bad_condition_outlives_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC("\"a\":{" RUN "},\"b\":{\"if\":\"${{ steps.a.output + 1 > 2 }}\"," RUN
                  ",\"fallback\":{" RUN "}}"));
    attach(t, "w1", 1);
    ignore(t);
    succeed(t, "w1", "a", "\"text\"");
    expect(t, "a SUCCEEDED", "b refused INPUT_INVALID: ${{ steps.a.output + 1 > 2 }}: `+` does not take string and int",
           "answer accepted to w1");
    checkpoint(t);
    crash(t);
    attach(t, "w1", 1);
    expect(t, "assign b#1 to w1 (fallback)");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

/* The step's assignment is behind the cut, its result after it, and the task has gone meanwhile. */
static void a_task_archived_during_a_checkpoint_is_forgotten_with_it(void **state)
{
    (void)state;
    for (int n_slices = 0; n_slices < 8; n_slices++) {
        struct trace *t = trace_begin();
        submit(t, ONE);
        checkpoint(t);
        attach(t, "w1", 1);
        checkpoint_some(t);
        succeed(t, "w1", "a", "1");
        archived(t, 1);
        ignore(t);
        for (int i = 0; i < n_slices; i++)
            checkpoint_some(t);
        crash(t);
        expect_nothing(t);
        trace_end(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_skipped_while_the_task_is_linked_skips_its_dependants),
        cmocka_unit_test(a_fallback_after_a_bad_condition_outlives_a_crash),
        cmocka_unit_test(a_task_archived_during_a_checkpoint_is_forgotten_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
