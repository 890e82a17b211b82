/* Tasks that wait leave memory and come back, told as timelines. */
#include "trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define DOC_OUT(steps, out)                                                                                  \
    "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "},\"outputs\":{" out "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define WAITS                                                                                                \
    DOC_OUT("\"b\":{" RUN "},\"go\":{\"needs\":[\"b\"],\"wait\":{\"signal\":\"go\"}},"                       \
            "\"e\":{\"needs\":[\"go\"]," RUN "}",                                                            \
            "\"g\":\"${{ steps.go.output }}\",\"b\":\"${{ steps.b.output }}\"")

static struct trace *asleep(void)
{
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, WAITS);
    succeed(t, "w1", "b", "\"kept\"");
    ignore(t);
    after_ms(t, 999);
    beat(t, "w1");
    expect_nothing(t);
    after_ms(t, 1);
    expect(t, "task 1 sleeps");
    assert_false(is_live(t, 1));
    return t;
}

static void finish(struct trace *t)
{
    expect(t, "task 1 wakes", "signal go", "go SUCCEEDED", "reply ok t0-000001", "assign e#1 to w1");
    succeed(t, "w1", "e", "1");
    expect(t, "e SUCCEEDED", "task SUCCEEDED {\"g\":42,\"b\":\"kept\"}", "answer accepted to w1");
    trace_end(t);
}

static void a_word_wakes_a_task_and_is_heard(void **state)
{
    (void)state;
    struct trace *t = asleep();
    signal_task(t, 1, "go", "42");
    expect(t, "load");
    load(t);
    finish(t);
}

static void it_is_not_in_memory_after_a_crash_either(void **state)
{
    (void)state;
    struct trace *t = asleep();
    crash(t); /* the log has it, the state may not: it is stored once more */
    expect_nothing(t);
    assert_false(is_live(t, 1));
    attach(t, "w1", 9);
    signal_task(t, 1, "go", "42");
    expect(t, "load");
    load(t);
    finish(t);
}

static void nor_after_a_checkpoint_and_a_crash(void **state)
{
    (void)state;
    struct trace *t = asleep();
    checkpoint(t);
    crash(t);
    attach(t, "w1", 9);
    expect_nothing(t);
    signal_task(t, 1, "go", "42");
    expect(t, "load");
    load(t);
    checkpoint_some(t); /* crashes half way through one, too */
    crash(t);
    attach(t, "w1", 9);
    succeed(t, "w1", "e", "1");
    ignore(t);
    trace_end(t);
}

static void lists_know_it_after_a_crash_wherever_it_was(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, "{\"api_version\":\"v1\",\"name\":\"nightly\",\"labels\":{\"app\":\"db\",\"tier\":\"1\"},"
              "\"steps\":{\"go\":{\"wait\":{\"signal\":\"go\"}}}}");
    after_ms(t, 1000);
    ignore(t);
    assert_false(is_live(t, 1));
    crash(t); /* only the log has it */
    assert_string_equal(listed(t), "1 live nightly default app=db tier=1\n");
    checkpoint(t);
    crash(t); /* only the state has it */
    assert_string_equal(listed(t), "1 live nightly default app=db tier=1\n");
    signal_task(t, 1, "go", "42");
    load(t);
    crash(t); /* the state has it, and the log that it has ended */
    assert_string_equal(listed(t), "1 ended nightly default app=db tier=1\n");
    ignore(t);
    trace_end(t);
}

static void words_that_come_while_it_is_loaded_are_heard_in_order(void **state)
{
    (void)state;
    struct trace *t = asleep();
    pause_task(t, 1, true);
    expect(t, "load");
    signal_task(t, 1, "go", "42");
    pause_task(t, 1, false);
    expect_nothing(t);
    load(t);
    expect(t, "task 1 wakes", "task pauses", "signal go", "go SUCCEEDED", "task goes on",
           "reply ok t0-000001", "reply ok t0-000001", "reply ok t0-000001", "assign e#1 to w1");
    succeed(t, "w1", "e", "1");
    ignore(t);
    trace_end(t);
}

static void expect_paused(struct trace *t, bool paused)
{
    struct cox_engine_stats stats = stats_of(t);

    assert_false(is_live(t, 1));
    assert_int_equal(stats.n_tasks_by_status[COX_TASK_PAUSED], paused);
    assert_int_equal(stats.n_tasks_by_status[COX_TASK_WAITING], !paused);
}

static void one_that_is_paused_is_known_to_be_while_it_sleeps(void **state)
{
    (void)state;
    struct trace *t = asleep();
    expect_paused(t, false);
    pause_task(t, 1, true);
    expect(t, "load");
    load(t);
    after_ms(t, 1000);
    ignore(t);
    expect_paused(t, true);
    crash(t); /* from the log */
    expect_paused(t, true);
    checkpoint(t);
    crash(t); /* from the state */
    expect_paused(t, true);
    pause_task(t, 1, false);
    ignore(t);
    load(t);
    after_ms(t, 1000);
    ignore(t);
    expect_paused(t, false);
    trace_end(t);
}

static void time_wakes_it(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC_OUT("\"a\":{\"wait\":{\"for\":\"1h\"}}", ""));
    ignore(t);
    after_ms(t, 1000);
    expect(t, "task 1 sleeps");
    after_ms(t, 3598000);
    expect_nothing(t);
    after_ms(t, 1000);
    expect(t, "load");
    load(t);
    expect(t, "task 1 wakes");
    after_ms(t, 0);
    expect(t, "a SUCCEEDED", "task SUCCEEDED {}");
    trace_end(t);
}

static void a_deadline_counts_on_while_it_sleeps(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, "{\"api_version\":\"v1\",\"name\":\"t\",\"budget\":{\"timeout\":\"1m\"},"
              "\"steps\":{\"a\":{\"wait\":{\"signal\":\"s\"}}}}");
    ignore(t);
    after_ms(t, 1000);
    expect(t, "task 1 sleeps");
    crash(t);
    after_ms(t, 59000);
    expect(t, "load");
    load(t);
    expect(t, "task 1 wakes");
    after_ms(t, 0);
    expect(t, "task stops: the task's budget.timeout has passed", "a CANCELLED",
           "task FAILED TIMEOUT: the task's budget.timeout has passed");
    trace_end(t);
}

static void what_is_looked_at_or_works_does_not_sleep(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach(t, "w1", 9);
    submit(t, DOC_OUT("\"b\":{" RUN "},\"go\":{\"wait\":{\"signal\":\"go\"}}", ""));
    ignore(t);
    for (int i = 0; i < 10; i++, beat(t, "w1"))
        after_ms(t, 1000);
    expect_nothing(t);
    succeed(t, "w1", "b", "1");
    ignore(t);
    after_ms(t, 1000);
    expect(t, "task 1 sleeps");
    want(t, 1);
    expect(t, "load");
    load(t);
    expect(t, "task 1 wakes", "reply ok t0-000001");
    after_ms(t, 1000);
    expect(t, "task 1 sleeps");
    cancel(t, 1, "");
    expect(t, "load");
    load(t);
    expect(t, "task 1 wakes", "task stops: cancelled by request", "go CANCELLED",
           "task CANCELLED CANCELLED: cancelled by request", "reply ok t0-000001");
    trace_end(t);
}

static void what_ends_as_it_would_fall_asleep_goes_on(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC_OUT("\"a\":{\"wait\":{\"for\":\"1s\"}},\"b\":{\"needs\":[\"a\"],\"wait\":{\"for\":\"1h\"}},"
                      "\"c\":{\"wait\":{\"signal\":\"c\"}}",
                      ""));
    ignore(t);
    after_ms(t, 1000);
    expect(t, "1/0 SUCCEEDED", "1/1 waits",
           "task 1 sleeps"); /* by number: it has left memory when this is told */
    trace_end(t);
}

static void a_checkpoint_does_not_forget_what_sleeps_again(void **state)
{
    (void)state;
    struct trace *t = asleep();
    want(t, 1);
    ignore(t);
    load(t);
    ignore(t);
    after_ms(t, 1000);
    beat(t, "w1");
    expect(t, "task 1 sleeps");
    checkpoint(t); /* passes on that the first sleep is over */
    signal_task(t, 1, "go", "42");
    expect(t, "load");
    load(t);
    finish(t);
}

static void only_so_many_words_wait_for_a_task_that_is_loaded(void **state)
{
    (void)state;
    struct trace *t = asleep();
    for (int i = 0; i < 1000; i++)
        want(t, 1);
    expect(t, "load");
    want(t, 1);
    expect(t, "reply limit reached: the task is being loaded, and too many wait for it");
    load(t);
    ignore(t);
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_word_wakes_a_task_and_is_heard),
        cmocka_unit_test(it_is_not_in_memory_after_a_crash_either),
        cmocka_unit_test(nor_after_a_checkpoint_and_a_crash),
        cmocka_unit_test(lists_know_it_after_a_crash_wherever_it_was),
        cmocka_unit_test(words_that_come_while_it_is_loaded_are_heard_in_order),
        cmocka_unit_test(one_that_is_paused_is_known_to_be_while_it_sleeps),
        cmocka_unit_test(time_wakes_it),
        cmocka_unit_test(a_deadline_counts_on_while_it_sleeps),
        cmocka_unit_test(what_is_looked_at_or_works_does_not_sleep),
        cmocka_unit_test(what_ends_as_it_would_fall_asleep_goes_on),
        cmocka_unit_test(only_so_many_words_wait_for_a_task_that_is_loaded),
        cmocka_unit_test(a_checkpoint_does_not_forget_what_sleeps_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
