/* Edges, told as timelines: histories that are legal and seldom. */
#include "trace.h"

#include "cox/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

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
    submit(t, DOC("\"a\":{" RUN "},\"b\":{\"if\":\"${{ steps.a.output + 1 > 2 }}\"," RUN ",\"fallback\":{" RUN
                  "}}"));
    attach(t, "w1", 1);
    ignore(t);
    succeed(t, "w1", "a", "\"text\"");
    expect(t, "a SUCCEEDED",
           "b refused INPUT_INVALID: ${{ steps.a.output + 1 > 2 }}: `+` does not take string and int",
           "answer accepted to w1");
    checkpoint(t);
    crash(t);
    attach(t, "w1", 1);
    expect(t, "assign b#1 to w1 (fallback)");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

/* The assignment may be behind the cut and the result after it; the task goes while it is being saved. */
static void a_task_archived_during_a_checkpoint_is_forgotten_with_it(void **state)
{
    (void)state;
    for (int n_slices = 0; n_slices < 16; n_slices++) {
        struct trace *t = trace_begin();
        bool assigned_first = n_slices % 2 != 0;
        submit(t, ONE);
        if (assigned_first)
            attach(t, "w1", 1);
        checkpoint(t);
        if (!assigned_first)
            attach(t, "w1", 1);
        checkpoint_some(t);
        succeed(t, "w1", "a", "1");
        archived(t, 1);
        ignore(t);
        for (int i = 0; i < n_slices / 2; i++)
            checkpoint_some(t);
        crash(t);
        expect_nothing(t);
        trace_end(t);
    }
}

/* The archive's row may be lost in a power cut as long as the log has not been cut. */
static void an_archived_task_is_handed_over_again_after_a_crash(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, ONE);
    attach(t, "w1", 1);
    succeed(t, "w1", "a", "1");
    archived(t, 1);
    ignore(t);
    for (int i = 0; i < 2; i++) {
        assert_false(is_live(t, 1));
        crash(t);
        assert_true(is_live(t, 1)); /* until the archive has it again */
        if (i == 0)
            checkpoint(t);
        archived(t, 1);
    }
    checkpoint(t);
    crash(t);
    assert_false(is_live(t, 1));
    trace_end(t);
}

/* `a`, then steps whose input repeats its output. */
static void submit_repeating(struct trace *t, const char *steps, uint32_t n_times)
{
    struct cox_buf doc = { 0 };
    cox_buf_append_str(&doc, "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"a\":{" RUN "}");
    for (const char *name = steps; *name != '\0'; name++) {
        cox_buf_printf(&doc, ",\"%c\":{\"run\":{\"argv\":[\"cat\"", *name);
        for (uint32_t i = 0; i < n_times; i++)
            cox_buf_append_str(&doc, ",\"${{ steps.a.output }}\"");
        cox_buf_append_str(&doc, "]}}");
    }
    cox_buf_append_str(&doc, "}}");
    submit(t, cox_buf_cstr(&doc));
    cox_buf_fini(&doc);
}

static void succeed_with_4_kb(struct trace *t, const char *worker, const char *step)
{
    char text[4001];
    memset(text, 'x', sizeof text - 1);
    text[0] = text[sizeof text - 2] = '"';
    text[sizeof text - 1] = '\0';
    succeed(t, worker, step, text);
}

static void an_input_that_fits_into_no_message_is_refused(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 2);
    submit_repeating(t, "b", 2200);
    ignore(t);
    succeed_with_4_kb(t, "w1", "a");
    expect(t, "a SUCCEEDED", "b refused INPUT_INVALID: an input of 8802216 bytes; at most 8388608 fit",
           "task FAILED INPUT_INVALID: an input of 8802216 bytes; at most 8388608 fit",
           "answer accepted to w1");
    trace_end(t);
}

static void outputs_that_grow_large_are_made_elsewhere(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 2);
    submit(t, "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"a\":{\"run\":{\"argv\":[\"true\"]}}},"
              "\"outputs\":{\"o\":\"${{ steps.a.output }}${{ steps.a.output }}\"}}");
    ignore(t);
    succeed_with_4_kb(t, "w1", "a"); /* it is read here; twice as much has to be named by its content */
    expect(t, "a SUCCEEDED", "evaluate for outputs", "answer accepted to w1");
    evaluate(t);
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_SUCCEEDED);
    trace_end(t);
}

static void a_worker_is_not_sent_more_than_its_stream_holds(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 8, .credit = 8 });
    submit_repeating(t, "bcde", 1300);
    ignore(t);
    succeed_with_4_kb(t, "w1", "a");
    expect(t, "a SUCCEEDED", "answer accepted to w1", "assign b#1 to w1", "assign c#1 to w1");
    started(t, "w1", "b");
    expect(t, "assign d#1 to w1");
    succeed(t, "w1", "c", "1");
    expect(t, "c SUCCEEDED", "answer accepted to w1", "assign e#1 to w1");
    trace_end(t);
}

static void room_goes_to_the_class_that_waits_longest_and_fits(void **state)
{
    (void)state;
#define MEMORY(gi) "\"resources\":{\"memory\":\"" gi "Gi\"}"
    struct trace *t = trace_begin();
    submit(t, DOC("\"a\":{" RUN "," MEMORY("3") "},\"b\":{" RUN "," MEMORY(
                  "4") "},"
                       "\"c\":{" RUN "," MEMORY("2") "},\"d\":{" RUN "," MEMORY("1") "}"));
    attach_as(t, &(struct worker_spec){
                     .id = "w1", .slots = 1, .credit = 9, .resources = { 8000, (int64_t)4 << 30, 0 } });
    expect(t, "reply ok t0-000001", "assign a#1 to w1", "assign d#1 to w1");
    succeed(t, "w1", "d", "1");
    expect(t, "d SUCCEEDED", "answer accepted to w1");
    succeed(t, "w1", "a", "1");
    expect(t, "a SUCCEEDED", "answer accepted to w1", "assign b#1 to w1");
    succeed(t, "w1", "b", "1");
    expect(t, "b SUCCEEDED", "answer accepted to w1", "assign c#1 to w1");
    trace_end(t);
}

static void a_step_remembers_its_newest_attempts(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 99 });
    submit(t, DOC("\"a\":{" RUN ",\"retry\":{\"max_attempts\":40,\"initial_backoff\":\"0\"}}"));
    for (int i = 0; i < 39; i++)
        fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    ignore(t);
    assert_int_equal(n_attempts_of(t, 1, "a"), COX_ATTEMPTS_KEPT + 1);
    checkpoint(t);
    crash(t);
    assert_int_equal(n_attempts_of(t, 1, "a"), COX_ATTEMPTS_KEPT + 1);
    attach(t, "w1", 1);
    expect(t, "a taken back from its worker", "assign a#41 to w1");
    trace_end(t);
}

static void a_clock_set_back_during_a_restart_does_not_stretch_a_backoff(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    after_ms(t, 600000);
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN
                  ",\"retry\":{\"max_attempts\":2,\"initial_backoff\":\"2s\",\"max_backoff\":\"2s\"}}"));
    fails(t, "w1", "a", COX_CODE_EXIT_NONZERO);
    set_clock_back(t, 500000);
    crash(t);
    attach(t, "w1", 1);
    ignore(t);
    after_ms(t, 2001);
    expect(t, "assign a#2 to w1");
    trace_end(t);
}

static void time_goes_on_from_the_log_when_the_clock_was_set_back(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 1);
    after_ms(t, 600000);
    attach(t, "w1", 1);
    submit(t, DOC("\"a\":{" RUN "}"));
    set_clock_back(t, 500000);
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .holds = "a" });
    succeed(t, "w1", "a", "1");
    assert_true(view_of(t, 1).finished_wall_ms >= view_of(t, 1).created_wall_ms);
    assert_true(view_of(t, 1).created_wall_ms > 0);
    ignore(t);
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_skipped_while_the_task_is_linked_skips_its_dependants),
        cmocka_unit_test(a_fallback_after_a_bad_condition_outlives_a_crash),
        cmocka_unit_test(a_task_archived_during_a_checkpoint_is_forgotten_with_it),
        cmocka_unit_test(an_archived_task_is_handed_over_again_after_a_crash),
        cmocka_unit_test(an_input_that_fits_into_no_message_is_refused),
        cmocka_unit_test(outputs_that_grow_large_are_made_elsewhere),
        cmocka_unit_test(a_worker_is_not_sent_more_than_its_stream_holds),
        cmocka_unit_test(room_goes_to_the_class_that_waits_longest_and_fits),
        cmocka_unit_test(a_step_remembers_its_newest_attempts),
        cmocka_unit_test(a_clock_set_back_during_a_restart_does_not_stretch_a_backoff),
        cmocka_unit_test(time_goes_on_from_the_log_when_the_clock_was_set_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
