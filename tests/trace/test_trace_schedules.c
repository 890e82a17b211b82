#include "trace_kept.h"

#include "cox/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MINUTE (60 * 1000LL)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define Y2026 1767225600000LL /* 2026-01-01T00:00:00Z, a Thursday */
#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"
#define SPRING_2026 1774746000000LL /* 2026-03-29T01:00:00Z: 02:00 is 03:00 */
#define AUTUMN_2026 1792890000000LL /* 2026-10-25T01:00:00Z: 03:00 is 02:00 */

/* A task that waits for a worker, and one that ends by itself. */
#define LONG_STEPS "\"steps\": {\"a\": {\"run\": {\"argv\": [\"true\"]}}}}"
#define SHORT_STEPS "\"steps\": {\"a\": {\"if\": \"${{ false }}\", \"run\": {\"argv\": [\"true\"]}}}}"
#define SCHEDULE(name, schedule, steps)                                                                      \
    "{\"api_version\": \"v1\", \"kind\": \"schedule\", \"name\": \"" name "\", \"schedule\": {" schedule     \
    "}, " steps

static struct trace *begin(int64_t wall_ms)
{
    struct trace *t = trace_begin();
    at_wall_ms(t, wall_ms);
    ignore(t);
    return t;
}

static void rule_12_by_the_clock(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026 + 59 * MINUTE);
    keep_schedule(t, SCHEDULE("hourly", "\"cron\": \"0 * * * *\"", LONG_STEPS), "");
    expect(t, "schedule 1 applied", "reply ok -");
    assert_int_equal(schedule_of(t, "hourly").next_wall_ms, Y2026 + HOUR);
    assert_int_equal(schedule_of(t, "hourly").last_task, 0);
    after_ms(t, MINUTE - 1);
    expect_nothing(t);
    after_ms(t, 1);
    expect(t, "run of schedule 1: task 1");
    struct cox_schedule_view v = schedule_of(t, "hourly");
    assert_true(v.last_task == 1 && v.last_wall_ms == Y2026 + HOUR && v.next_wall_ms == Y2026 + 2 * HOUR);
    assert_true(cox_slice_is(view_of(t, 1).schedule, "hourly"));
    crash(t);
    assert_true(cox_slice_is(view_of(t, 1).schedule, "hourly"));
    assert_int_equal(schedule_of(t, "hourly").next_wall_ms, Y2026 + 2 * HOUR);
    trace_end(t);
}

/* What a checkpoint has saved by then is younger than records that are replayed over it: theirs is the time
 * at which they were written, not the newest that is known. */
static void a_half_saved_checkpoint_makes_no_task_younger(void **state)
{
    (void)state;
    for (int n_saved = 0; n_saved < 8; n_saved++) {
        struct trace *t = begin(Y2026 + 59 * MINUTE);
        keep_schedule(t, SCHEDULE("hourly", "\"cron\": \"0 * * * *\"", LONG_STEPS), "");
        after_ms(t, MINUTE / 2);
        submit(t, "{\"api_version\": \"v1\", \"name\": \"t\", " LONG_STEPS);
        after_ms(t, MINUTE / 2);
        ignore(t);
        for (int i = 0; i < n_saved; i++)
            checkpoint_some(t); /* the schedule, which has run meanwhile, before the task */
        crash(t);
        assert_int_equal(view_of(t, 1).created_wall_ms, Y2026 + 59 * MINUTE + MINUTE / 2);
        ignore(t);
        trace_end(t);
    }
}

static void rule_12_skips(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("s", "\"cron\": \"* * * * *\"", LONG_STEPS), "");
    ignore(t);
    after_ms(t, 3 * MINUTE);
    expect(t, "run of schedule 1: task 1", "run of schedule 1: none, skips 1",
           "run of schedule 1: none, skips 1");
    assert_int_equal(schedule_of(t, "s").n_skipped, 2);
    cancel(t, 1, "enough");
    ignore(t);
    after_ms(t, MINUTE);
    expect(t, "run of schedule 1: task 2");
    assert_int_equal(schedule_of(t, "s").n_skipped, 2);
    trace_end(t);
}

static void rule_12_queues(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("q", "\"cron\": \"* * * * *\", \"overlap\": \"queue\"", LONG_STEPS), "");
    ignore(t);
    after_ms(t, 3 * MINUTE);
    expect(t, "run of schedule 1: task 1", "run of schedule 1: none, 1 wait",
           "run of schedule 1: none, 2 wait");
    crash(t);
    expect_nothing(t);
    cancel(t, 1, "done with");
    expect(t, "task stops: done with", "task CANCELLED CANCELLED: done with", "reply ok t0-000001");
    after_ms(t, 0); /* the engine asked to be called at once */
    expect(t, "run of schedule 1: task 2, 1 wait");
    after_ms(t, 110 * MINUTE);
    struct cox_schedule_view v = schedule_of(t, "q");
    assert_int_equal(v.n_queued, COX_SCHEDULE_QUEUE_MAX);
    assert_int_equal(v.n_skipped, 110 + 1 - COX_SCHEDULE_QUEUE_MAX);
    ignore(t);
    drop_schedule(t, "q");
    expect(t, "schedule 1 deleted", "reply ok -");
    assert_true(is_live(t, 2));
    cancel(t, 2, "x");
    ignore(t);
    after_ms(t, 10 * MINUTE);
    expect_nothing(t);
    trace_end(t);
}

static void rule_12_replaces(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("r", "\"cron\": \"* * * * *\", \"overlap\": \"replace\"", LONG_STEPS), "");
    after_ms(t, MINUTE - 5000);
    attach(t, "w2", 1);
    ignore(t);
    after_ms(t, 5000);
    expect(t, "run of schedule 1: task 1", "assign a#1 to w2");
    started(t, "w2", "a");
    beat(t, "w2");
    for (int i = 0; i < 12; i++) {
        after_ms(t, 5000);
        beat(t, "w2");
    }
    expect(t, "run of schedule 1: none, 1 wait", "task stops: replaced by the schedule's next run",
           "stop a on w2");
    cancelled(t, "w2", "a");
    expect(t, "a CANCELLED", "task CANCELLED CANCELLED: replaced by the schedule's next run",
           "answer accepted to w2");
    credit(t, "w2", 2);
    after_ms(t, 0);
    expect(t, "run of schedule 1: task 2", "assign 2/a#1 to w2");
    trace_end(t);
}

static void replace_waits_for_one(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(
        t, SCHEDULE("r", "\"cron\": \"0 * * * *\", \"overlap\": \"replace\", \"catch_up\": true", LONG_STEPS),
        "");
    ignore(t);
    away_ms(t, 3 * HOUR); /* three are due at once */
    after_ms(t, 0);
    expect(t, "run of schedule 1: task 1", "run of schedule 1: none, 1 wait",
           "task stops: replaced by the schedule's next run",
           "task CANCELLED CANCELLED: replaced by the schedule's next run", "run of schedule 1: task 2",
           "run of schedule 1: none, 1 wait", "task stops: replaced by the schedule's next run",
           "task CANCELLED CANCELLED: replaced by the schedule's next run", "run of schedule 1: task 3");
    trace_end(t);
}

static void rule_12_outage(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("none", "\"cron\": \"0 * * * *\"", SHORT_STEPS), "");
    keep_schedule(
        t,
        SCHEDULE("some", "\"cron\": \"0 * * * *\", \"catch_up\": \"2h\", \"overlap\": \"queue\"", LONG_STEPS),
        "");
    ignore(t);
    away_ms(t, 5 * HOUR + 2 * MINUTE);
    crash(t);
    expect_nothing(t); /* making tasks is not recovery's business */
    after_ms(t, 0);
    expect(t, "run of schedule 1: none, skips 5", "run of schedule 2: none, skips 3",
           "run of schedule 2: task 1", "run of schedule 2: none, 1 wait");
    assert_int_equal(schedule_of(t, "none").next_wall_ms, Y2026 + 6 * HOUR);
    assert_int_equal(schedule_of(t, "some").next_wall_ms, Y2026 + 6 * HOUR);
    away_ms(t, 58 * MINUTE + 30 * 1000); /* half a minute is no outage */
    crash(t);
    after_ms(t, 0);
    expect(t, "run of schedule 1: task 2", "run of schedule 2: none, 2 wait", "2/a SKIPPED",
           "task SUCCEEDED {}");
    trace_end(t);
}

/* Days of minutes missed: counted in pieces, a look is never long. */
static void long_outage(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("m", "\"cron\": \"* * * * *\"", SHORT_STEPS), "");
    ignore(t);
    away_ms(t, 2 * DAY + 30 * 1000);
    trace_step(t, &(struct cox_input){ .kind = COX_IN_TIMER });
    expect(t, "run of schedule 1: none, skips 1000", "run of schedule 1: none, skips 1000",
           "run of schedule 1: none, skips 879", "run of schedule 1: task 1", "a SKIPPED",
           "task SUCCEEDED {}");
    assert_int_equal(schedule_of(t, "m").next_wall_ms, Y2026 + 2 * DAY + MINUTE);
    trace_end(t);
}

/* However many are due at once, a step makes no more than a thousand. */
static void many_at_once(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    uint32_t n_live[2] = { 0, 0 };
    for (int i = 0; i < 1100; i++) {
        char document[256];
        snprintf(document, sizeof document, SCHEDULE("s%d", "\"cron\": \"0 1 * * *\"", LONG_STEPS), i);
        keep_schedule(t, document, "");
        ignore(t);
    }
    away_ms(t, HOUR);
    for (int i = 0; i < 2; i++) {
        trace_step(t, &(struct cox_input){ .kind = COX_IN_TIMER });
        for (uint32_t no = 1; no <= 1100; no++)
            n_live[i] += is_live(t, no);
        ignore(t);
    }
    assert_int_equal(n_live[0], 1000);
    assert_int_equal(n_live[1], 1100);
    cox_engine_check(trace_engine(t));
    trace_end(t);
}

static void clock_set_back(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("s", "\"cron\": \"0 * * * *\"", SHORT_STEPS), "");
    ignore(t);
    after_ms(t, HOUR - 1);
    set_clock_back(t, 30 * MINUTE); /* time stands still for half an hour, a millisecond before the run */
    uint64_t looks = 0;
    for (int64_t ms = 0; ms < 29 * MINUTE; looks++) {
        int64_t wake_ms = wake_in_ms(t);
        after_ms(t, wake_ms > 0 ? wake_ms : 1);
        ms += wake_ms > 0 ? wake_ms : 1;
    }
    assert_true(looks < 29 * 60 + 500); /* not one a millisecond */
    expect_nothing(t);
    after_ms(t, MINUTE + 2000);
    expect(t, "run of schedule 1: task 1", "a SKIPPED", "task SUCCEEDED {}");
    set_clock_back(t, HOUR);
    after_ms(t, HOUR);
    expect_nothing(t); /* not again */
    after_ms(t, HOUR);
    expect(t, "run of schedule 1: task 2", "2/a SKIPPED", "task SUCCEEDED {}");
    trace_end(t);
}

static void clock_set_forward(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("s", "\"cron\": \"0 3 * * *\"", SHORT_STEPS), "");
    ignore(t);
    after_ms(t, MINUTE);
    set_clock_back(t, -(3 * HOUR - MINUTE - 1000)); /* a second before the run */
    assert_true(wake_in_ms(t) <= MINUTE);           /* it does not sleep for the three hours */
    after_ms(t, 1000);
    expect(t, "run of schedule 1: task 1", "a SKIPPED", "task SUCCEEDED {}");
    trace_end(t);
}

static void applied_again(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("s", "\"cron\": \"* * * * *\"", LONG_STEPS), "");
    after_ms(t, 2 * MINUTE);
    keep_schedule(t, SCHEDULE("s", "\"cron\": \"30 * * * *\"", SHORT_STEPS), "");
    struct cox_schedule_view v = schedule_of(t, "s");
    assert_true(v.last_task == 1 && v.n_skipped == 1 && v.next_wall_ms == Y2026 + 30 * MINUTE);
    ignore(t);
    drop_schedule(t, "s");
    drop_schedule(t, "s");
    expect(t, "schedule 1 deleted", "reply ok -", "reply not found");
    keep_schedule(t, SCHEDULE("s", "\"cron\": \"* * * * *\"", SHORT_STEPS), "");
    expect(t, "schedule 2 applied", "reply ok -"); /* another schedule: task 1 is none of its */
    after_ms(t, MINUTE);
    expect(t, "run of schedule 2: task 2", "2/a SKIPPED", "task SUCCEEDED {}");
    checkpoint_some(t);
    crash(t);
    trace_end(t);
}

/* A checkpoint has the new one of a name, the log still begins before the old one: replay makes and deletes
 * the old one beside the new one. */
static void deleted_and_new_in_replay(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    keep_schedule(t, SCHEDULE("other", "\"cron\": \"* * * * *\"", SHORT_STEPS), "");
    checkpoint_some(t);
    keep_schedule(t, SCHEDULE("s", "\"cron\": \"0 1 * * *\"", SHORT_STEPS), "");
    drop_schedule(t, "s");
    keep_schedule(t, SCHEDULE("s", "\"cron\": \"0 2 * * *\"", SHORT_STEPS), "");
    keep_schedule(t, SCHEDULE("z", "\"cron\": \"* * * * *\"", SHORT_STEPS), "");
    checkpoint(t); /* ends the first */
    ignore(t);
    checkpoint_some(t); /* of the next: meta, */
    checkpoint_some(t); /* the new one, and then it is cut off */
    crash(t);
    assert_int_equal(schedule_of(t, "s").next_wall_ms, Y2026 + 2 * HOUR);
    trace_end(t);
}

/* No room for the run's task: it is tried again, and made when there is. */
static void no_room(void **state)
{
    (void)state;
    struct cox_engine *e = cox_engine_create(&(struct cox_engine_config){ .live_steps_max = 1 });
    struct cox_effects fx = { 0 };
    struct cox_arena memory = { 0 };
    struct cox_schedule_view v;
    struct cox_input timer = { .now = { 0, Y2026 }, .kind = COX_IN_TIMER };
    assert_int_equal(cox_engine_recovered(e, timer.now, 0, &fx), COX_OK);
    static const char *const names[] = { "first", "second" };
    static const char *const documents[] = {
        SCHEDULE("first", "\"cron\": \"* * * * *\"", LONG_STEPS),
        SCHEDULE("second", "\"cron\": \"* * * * *\"", LONG_STEPS),
    };
    for (int i = 0; i < 2; i++) {
        struct cox_input in = schedule_input(&memory, documents[i], "");
        in.now = timer.now;
        cox_engine_step(e, &in, &fx);
    }
    timer.now.wall_ms += MINUTE;
    timer.now.mono_ns += MINUTE * 1000000;
    cox_engine_step(e, &timer, &fx);
    assert_true(cox_engine_find_schedule(e, cox_slice_str("default"), cox_slice_str(names[0]), &v));
    assert_true(v.last_task == 1 && v.next_wall_ms == Y2026 + 2 * MINUTE);
    assert_true(cox_engine_find_schedule(e, cox_slice_str("default"), cox_slice_str(names[1]), &v));
    assert_true(v.last_task == 0 && v.n_skipped == 0 && v.next_wall_ms == Y2026 + MINUTE);
    assert_int_equal(fx.wake_mono_ns, timer.now.mono_ns + 1000 * 1000000LL);
    struct cox_input end = { .now = timer.now,
                             .kind = COX_IN_CANCEL,
                             .u.cancel = { .request = 1, .task = 1 } };
    cox_engine_step(e, &end, &fx);
    end = (struct cox_input){ .now = timer.now, .kind = COX_IN_ARCHIVED, .u.task.task = 1 };
    cox_engine_step(e, &end, &fx);
    timer.now.wall_ms += 1000;
    timer.now.mono_ns = fx.wake_mono_ns + 1000 * 1000000LL;
    cox_engine_step(e, &timer, &fx);
    assert_true(cox_engine_find_schedule(e, cox_slice_str("default"), cox_slice_str(names[1]), &v));
    assert_true(v.last_task == 2 && v.next_wall_ms == Y2026 + 2 * MINUTE);
    cox_engine_check(e);
    cox_engine_destroy(e);
    cox_effects_fini(&fx);
    cox_arena_fini(&memory);
}

static void bad_inputs(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026);
    struct cox_input in = { .kind = COX_IN_SCHEDULE_APPLY, .u.schedule.request = 1 };
    in.u.schedule.tenant = in.u.schedule.name = cox_slice_str("x");
    in.u.schedule.cron = cox_slice_str("61 * * * *");
    trace_step(t, &in);
    expect(t, "reply invalid argument: cron: expected five fields");
    in.u.schedule.cron = cox_slice_str("1 * * * *");
    trace_step(t, &in);
    expect(t, "reply invalid argument: time_zone: its rules are damaged");
    trace_end(t);
}

/* ---- a year, through both changes of the clock ---- */

/* When 02:30 in Berlin comes on a day of 2026, by the book. */
static int64_t half_past_two(int64_t day_ms)
{
    bool summer = day_ms > SPRING_2026 - DAY && day_ms <= AUTUMN_2026 - HOUR;
    if (day_ms == SPRING_2026 - HOUR)
        return SPRING_2026; /* it does not come: when the clock goes forward */
    return day_ms + (summer ? 30 * MINUTE : HOUR + 30 * MINUTE);
}

static void a_year(void **state)
{
    (void)state;
    struct trace *t = begin(Y2026 - MINUTE);
    struct cox_rng rng;
    int64_t daily_due = 0;
    uint32_t n_hourly = 0, n_daily = 0, seen_hourly = 0, seen_daily = 0;
    cox_rng_init(&rng, 2026);
    keep_schedule(t, SCHEDULE("hourly", "\"cron\": \"0 * * * *\"", SHORT_STEPS), BERLIN);
    keep_schedule(t, SCHEDULE("daily", "\"cron\": \"30 2 * * *\"", SHORT_STEPS), BERLIN);
    after_ms(t, MINUTE);
    for (int64_t hour = 0; hour < 365 * 24; hour++) {
        struct cox_schedule_view h = schedule_of(t, "hourly"), d = schedule_of(t, "daily");
        assert_int_equal(h.last_wall_ms, Y2026 + hour * HOUR);
        if (d.last_task != seen_daily) {
            daily_due = half_past_two(Y2026 + n_daily * DAY);
            if (d.last_wall_ms != daily_due)
                fail_msg("day %u at %lld, expected %lld", n_daily, (long long)d.last_wall_ms,
                         (long long)daily_due);
            n_daily++;
        }
        n_hourly += h.last_task != seen_hourly;
        seen_hourly = (uint32_t)h.last_task;
        if (seen_daily != (uint32_t)d.last_task)
            archived(t, (uint32_t)d.last_task);
        seen_daily = (uint32_t)d.last_task;
        archived(t, seen_hourly);
        if (cox_rng_below(&rng, 700) == 0)
            checkpoint(t);
        if (cox_rng_below(&rng, 500) == 0)
            crash(t);
        ignore(t);
        for (int half = 0; half < 2; half++) {
            away_ms(t, 30 * MINUTE); /* to the moment of the next run */
            after_ms(t, 0);
        }
    }
    assert_int_equal(n_hourly, 365 * 24);
    assert_int_equal(n_daily, 365);
    assert_int_equal(schedule_of(t, "hourly").n_skipped + schedule_of(t, "daily").n_skipped, 0);
    ignore(t);
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_12_by_the_clock),
        cmocka_unit_test(rule_12_skips),
        cmocka_unit_test(rule_12_queues),
        cmocka_unit_test(rule_12_replaces),
        cmocka_unit_test(replace_waits_for_one),
        cmocka_unit_test(rule_12_outage),
        cmocka_unit_test(long_outage),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(clock_set_back),
        cmocka_unit_test(clock_set_forward),
        cmocka_unit_test(applied_again),
        cmocka_unit_test(deleted_and_new_in_replay),
        cmocka_unit_test(no_room),
        cmocka_unit_test(a_half_saved_checkpoint_makes_no_task_younger),
        cmocka_unit_test(bad_inputs),
        cmocka_unit_test(a_year),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
