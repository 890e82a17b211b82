/* The driver's turn, between an engine and a store that do what each test tells them. */
#include "driver_fakes.h"

#include "cox/base/alloc.h"

#include <string.h>

#define MS 1000000LL

/* ---- the clock: moves when told ---- */

static int64_t clock_ns;

int64_t __wrap_cox_clock_mono_ns(void);
int64_t __wrap_cox_clock_mono_ns(void)
{
    return clock_ns;
}

/* ---- what the hooks saw ---- */

static struct {
    uint64_t released[64]; /* session of each action */
    size_t n_released;
    size_t n_changed, n_turns, n_flushes;
} seen;
static uint64_t in_use;

static void on_action(void *user, const struct cox_action *a)
{
    (void)user;
    seen.released[seen.n_released++] = a->u.assign.session;
}

static void on_changed(void *user, const struct cox_action *a)
{
    (void)user, (void)a;
    seen.n_changed++;
}

static void on_turn(void *user)
{
    (void)user;
    seen.n_turns++;
}

static void on_flush(void *user)
{
    (void)user;
    seen.n_flushes++;
}

static void put_in_use(void *user, struct cox_buf *out)
{
    (void)user;
    if (in_use != 0)
        cox_put_u64(out, in_use);
}

static void wake(void *user)
{
    (void)user;
}

static int setup(void **state)
{
    const struct cox_driver_config config = { .store = "memory", .checkpoint_len = 1000, .wake = wake };
    const struct cox_driver_hooks hooks = { NULL, on_action, on_changed, on_turn, on_flush, put_in_use };
    struct cox_driver_recovery found;
    struct cox_buf error = { 0 };
    struct cox_driver *d;

    memset(&fake, 0, sizeof(fake));
    memset(&store, 0, sizeof(store));
    memset(&seen, 0, sizeof(seen));
    clock_ns = 1000 * MS;
    fake.wake_ns = INT64_MAX;
    store.room = store.state_room = 32;
    assert_int_equal(cox_driver_create(&config, &hooks, &d, &found, &error), COX_OK);
    cox_driver_turn(d, 1);
    assert_false(cox_driver_settled(d));
    store.durable = 1;
    cox_driver_turn(d, 0);
    assert_true(cox_driver_settled(d));
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    cox_driver_destroy(*state);
    return 0;
}

/* One input that makes `n_records` and an assignment to `session`. */
static void feed(struct cox_driver *d, uint32_t n_records, uint32_t session)
{
    fake.n_records = n_records;
    fake.actions[fake.n_actions++] =
        (struct cox_action){ .kind = COX_ACT_ASSIGN, .u.assign = { .session = session } };
    cox_driver_step(d, &(struct cox_input){ .kind = COX_IN_BEAT });
}

/* ---- the tests ---- */

static void nothing_leaves_before_it_is_durable(void **state)
{
    struct cox_driver *d = *state;

    feed(d, 2, 10);
    feed(d, 1, 11);
    cox_driver_turn(d, 1);
    assert_int_equal(store.appended, 4); /* one batch for both */
    assert_int_equal(store.room, 30);
    assert_int_equal(seen.n_released, 0);
    store.durable = 3;
    cox_driver_turn(d, 0);
    assert_int_equal(seen.n_released, 1);
    assert_int_equal(seen.released[0], 10);
    store.durable = 4;
    cox_driver_turn(d, 0);
    assert_int_equal(seen.n_released, 2);
    assert_int_equal(seen.released[1], 11);
    assert_true(cox_driver_settled(d));
}

/* Or a task that was deleted would be shown once more after a restart, until the store has said no. */
static void nothing_is_settled_before_the_ended_are_archived(void **state)
{
    struct cox_driver *d = *state;

    fake.actions[fake.n_actions++] = (struct cox_action){ .kind = COX_ACT_ARCHIVE };
    cox_driver_step(d, &(struct cox_input){ .kind = COX_IN_BEAT });
    cox_driver_turn(d, 1);
    assert_int_equal(store.requests[store.n_requests - 1], COX_STORE_ARCHIVE);
    assert_false(cox_driver_settled(d));
    store.events[store.n_events++] = (struct cox_store_event){ .op = COX_STORE_ARCHIVE };
    cox_driver_turn(d, 1);
    assert_true(cox_driver_settled(d));
}

static void what_needs_no_record_leaves_in_its_turn(void **state)
{
    struct cox_driver *d = *state;

    feed(d, 0, 10);
    cox_driver_turn(d, 1);
    assert_int_equal(seen.n_released, 1);
    assert_int_equal(store.room, 31);
}

static void but_not_before_what_came_earlier(void **state)
{
    struct cox_driver *d = *state;

    feed(d, 1, 10);
    cox_driver_turn(d, 1);
    feed(d, 0, 11);
    cox_driver_turn(d, 1);
    assert_int_equal(seen.n_released, 0);
    store.durable = 2;
    cox_driver_turn(d, 0);
    assert_int_equal(seen.released[0], 10);
    assert_int_equal(seen.released[1], 11);
}

static void a_full_log_gathers_turns_and_says_so(void **state)
{
    struct cox_driver *d = *state;

    store.room = 0;
    feed(d, 1, 10);
    cox_driver_turn(d, 1);
    assert_true(cox_driver_full(d));
    feed(d, 1, 11);
    cox_driver_turn(d, 1);
    assert_int_equal(store.appended, 1);
    store.room = 8;
    cox_driver_turn(d, 0);
    assert_int_equal(store.appended, 3);
    assert_int_equal(store.room, 7);
    assert_false(cox_driver_full(d));
    store.durable = 3;
    cox_driver_turn(d, 0);
    assert_int_equal(seen.n_released, 2);
}

static void a_full_state_holds_what_follows(void **state)
{
    struct cox_driver *d = *state;

    store.state_room = 0;
    fake.actions[fake.n_actions++] = (struct cox_action){ .kind = COX_ACT_PUT_PAYLOAD };
    feed(d, 1, 10);
    cox_driver_turn(d, 1);
    store.durable = 2;
    cox_driver_turn(d, 0);
    assert_int_equal(seen.n_released, 0);
    assert_true(cox_driver_full(d));
    assert_true(cox_driver_wake_ns(d) < INT64_MAX);
    store.state_room = 1;
    cox_driver_turn(d, 0);
    assert_int_equal(store.requests[0], COX_STORE_PUT_PAYLOAD);
    assert_int_equal(seen.n_released, 1);
}

static int n_held;

static void on_hold(struct cox_hold *h)
{
    (void)h;
    n_held++;
}

static void a_read_waits_for_what_it_saw(void **state)
{
    struct cox_driver *d = *state;
    struct cox_hold first, second;

    n_held = 0;
    cox_driver_hold(d, &first, on_hold);
    feed(d, 1, 10);
    cox_driver_hold(d, &second, on_hold);
    assert_int_equal(n_held, 0);
    cox_driver_turn(d, 1);
    assert_int_equal(n_held, 1);
    store.durable = 2;
    cox_driver_turn(d, 0);
    assert_int_equal(n_held, 2);
    assert_int_equal(seen.n_released, 1);
}

/* A payload must be in the state before somebody who saw its name may read it. */
static void a_read_waits_for_the_state(void **state)
{
    struct cox_driver *d = *state;
    struct cox_hold hold;

    n_held = 0;
    store.state_room = 0;
    fake.actions[fake.n_actions++] = (struct cox_action){ .kind = COX_ACT_PUT_PAYLOAD };
    feed(d, 1, 10);
    cox_driver_hold(d, &hold, on_hold);
    cox_driver_turn(d, 1);
    store.durable = 2;
    cox_driver_turn(d, 0);
    assert_int_equal(n_held, 0);
    store.state_room = 1;
    cox_driver_turn(d, 0);
    assert_int_equal(n_held, 1);
}

static int n_fetched;

static void on_fetched(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    (void)f, (void)bytes;
    assert_int_equal(err, COX_OK);
    n_fetched++;
}

static void a_fetch_waits_for_room(void **state)
{
    struct cox_driver *d = *state;
    struct cox_fetch fetch = { .task = 5, .fn = on_fetched };

    n_fetched = 0;
    store.state_room = 0;
    cox_driver_fetch(d, &fetch);
    cox_driver_turn(d, 0);
    assert_true(cox_driver_full(d));
    store.state_room = 1;
    cox_driver_turn(d, 0); /* asks */
    cox_driver_turn(d, 0); /* hears */
    assert_int_equal(n_fetched, 1);
    assert_false(cox_driver_full(d));
}

static void changes_are_told_at_the_turns_end(void **state)
{
    struct cox_driver *d = *state;

    fake.n_records = 1;
    fake.actions[fake.n_actions++] = (struct cox_action){ .kind = COX_ACT_CHANGED };
    cox_driver_step(d, &(struct cox_input){ .kind = COX_IN_BEAT });
    assert_int_equal(seen.n_changed, 0);
    cox_driver_turn(d, 1);
    assert_int_equal(seen.n_changed, 1);
    store.durable = 2;
    cox_driver_turn(d, 0);
    assert_int_equal(seen.n_changed, 1); /* once */
}

static void a_due_timer_fires_once_there_is_quiet(void **state)
{
    struct cox_driver *d = *state;
    size_t n = fake.n_inputs;

    fake.wake_ns = 0;
    feed(d, 0, 10); /* tells the driver of the wake-up */
    fake.wake_ns = INT64_MAX;
    cox_driver_turn(d, 1);
    assert_int_equal(fake.n_inputs, n + 2);
    assert_int_equal(fake.inputs[n + 1], COX_IN_TIMER);
    assert_true(cox_driver_wake_ns(d) == INT64_MAX);
}

static void a_full_log_holds_timers(void **state)
{
    struct cox_driver *d = *state;

    store.room = 0;
    fake.wake_ns = 0;
    feed(d, 1, 10);
    fake.wake_ns = INT64_MAX;
    size_t n = fake.n_inputs;

    cox_driver_turn(d, 1);
    assert_int_equal(fake.n_inputs, n);
    store.room = 8;
    cox_driver_turn(d, 0);
    cox_driver_turn(d, 0);
    assert_int_equal(fake.n_inputs, n + 1);
}

static size_t n_told(enum cox_input_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < fake.n_inputs; i++)
        n += fake.inputs[i] == kind;
    return n;
}

/* The engine wants to be woken `after_ns` from now, and not again. */
static void arm(struct cox_driver *d, int64_t after_ns)
{
    fake.wake_ns = clock_ns + after_ns;
    cox_driver_step(d, &(struct cox_input){ .kind = COX_IN_BEAT });
    cox_driver_turn(d, 1);
}

static void a_turn_later(struct cox_driver *d, int64_t after_ns, size_t n_events)
{
    clock_ns += after_ns;
    cox_driver_turn(d, n_events);
}

/* A result that came while we were stopped stands behind whatever else is to be read: the timeout that passed
 * meanwhile must find it told. */
static void after_a_gap_timers_wait_for_what_peers_have_said(void **state)
{
    struct cox_driver *d = *state;

    arm(d, 500 * MS);
    a_turn_later(d, 5000 * MS, 0);
    assert_int_equal(n_told(COX_IN_TIMER), 0);
    assert_true(cox_driver_wake_ns(d) <= clock_ns + 20 * MS); /* and sleeps no longer than the quiet takes */
    clock_ns += 15 * MS;
    cox_driver_step(d, &(struct cox_input){ .kind = COX_IN_RESULT });
    cox_driver_turn(d, 1);
    a_turn_later(d, 15 * MS, 0);
    assert_int_equal(n_told(COX_IN_TIMER), 0);
    fake.wake_ns = INT64_MAX;
    a_turn_later(d, 5 * MS, 0);
    assert_int_equal(n_told(COX_IN_TIMER), 1);
    assert_int_equal(fake.inputs[fake.n_inputs - 1], COX_IN_TIMER);
    assert_true(cox_driver_wake_ns(d) == INT64_MAX);
}

/* So long as no turn lasts a second, a timer is not kept from firing by those who speak. */
static void without_a_gap_timers_wait_for_nobody(void **state)
{
    struct cox_driver *d = *state;

    arm(d, 500 * MS);
    a_turn_later(d, 499 * MS, 1);
    assert_int_equal(n_told(COX_IN_TIMER), 0);
    a_turn_later(d, 1 * MS, 1);
    assert_int_equal(n_told(COX_IN_TIMER), 1);
}

static void after_a_gap_a_busy_network_holds_timers_two_seconds_at_most(void **state)
{
    struct cox_driver *d = *state;

    arm(d, 500 * MS);
    a_turn_later(d, 5000 * MS, 1);
    for (int i = 0; i < 199; i++) {
        a_turn_later(d, 10 * MS, 1);
        assert_int_equal(n_told(COX_IN_TIMER), 0);
    }
    a_turn_later(d, 10 * MS, 1);
    assert_int_equal(n_told(COX_IN_TIMER), 1);
}

/* Turns were taken all the while, but nothing was read: a gap as any other. */
static void after_a_second_of_a_full_log_timers_wait_as_well(void **state)
{
    struct cox_driver *d = *state;

    arm(d, 500 * MS);
    store.room = 0;
    for (int i = 0; i < 150; i++)
        a_turn_later(d, 10 * MS, 0);
    store.room = 8;
    a_turn_later(d, 10 * MS, 0);
    assert_int_equal(n_told(COX_IN_TIMER), 0);
    a_turn_later(d, 10 * MS, 1);
    assert_int_equal(n_told(COX_IN_TIMER), 0);
    a_turn_later(d, 20 * MS, 0);
    assert_int_equal(n_told(COX_IN_TIMER), 1);
}

/* Swapped out, or stopped and let go again and again: what is due is late, and comes. */
static void turns_that_are_far_apart_for_ever_still_fire_timers(void **state)
{
    struct cox_driver *d = *state;
    int n_turns = 1;

    arm(d, 500 * MS);
    for (a_turn_later(d, 1500 * MS, 1); n_told(COX_IN_TIMER) == 0; n_turns++) {
        assert_true(n_turns < 10);
        a_turn_later(d, 1500 * MS, 1);
    }
    assert_true(n_turns > 2);
}

static void a_checkpoint_goes_on_until_the_log_is_cut(void **state)
{
    struct cox_driver *d = *state;

    cox_driver_checkpoint(d);
    fake.actions[fake.n_actions++] = (struct cox_action){ .kind = COX_ACT_SAVE };
    cox_driver_turn(d, 0);
    assert_int_equal(fake.inputs[fake.n_inputs - 1], COX_IN_CHECKPOINT);
    assert_true(cox_driver_wake_ns(d) < INT64_MAX);
    fake.actions[fake.n_actions++] = (struct cox_action){ .kind = COX_ACT_TRUNCATE };
    cox_driver_turn(d, 0);
    size_t n = fake.n_inputs;

    assert_int_equal(store.requests[0], COX_STORE_SAVE);
    assert_int_equal(store.requests[1], COX_STORE_TRUNCATE);
    cox_driver_turn(d, 0);
    assert_int_equal(fake.n_inputs, n); /* nothing more is asked for */
    assert_true(cox_driver_checkpointing(d));
    store.events[store.n_events++] = (struct cox_store_event){ .op = COX_STORE_TRUNCATE };
    cox_driver_turn(d, 0);
    assert_false(cox_driver_checkpointing(d));
}

static void a_checkpoint_begins_when_the_log_has_grown(void **state)
{
    struct cox_driver *d = *state;

    feed(d, 999, 10);
    cox_driver_turn(d, 1);
    cox_driver_turn(d, 0);
    assert_true(cox_driver_checkpointing(d));
}

static void on_asked(struct cox_ask *ask, enum cox_err err, uint64_t id, struct cox_buf *bytes)
{
    (void)bytes;
    assert_int_equal(err, COX_ERR_NOT_FOUND);
    assert_int_equal(id, 5);
    ask->fn = NULL;
}

static void what_is_asked_of_the_store_waits_for_room_and_is_answered(void **state)
{
    struct cox_driver *d = *state;
    struct cox_ask ask = { .req = { .op = COX_STORE_DELETE, .id = 5 }, .fn = on_asked };

    store.state_room = 0;
    cox_driver_ask(d, &ask);
    cox_driver_turn(d, 0);
    assert_int_equal(store.n_requests, 0);
    assert_true(cox_driver_wake_ns(d) < INT64_MAX);
    store.state_room = 1;
    cox_driver_turn(d, 0);
    assert_int_equal(store.n_requests, 1);
    assert_int_equal(store.requests[0], COX_STORE_DELETE);
    store.events[store.n_events++] =
        (struct cox_store_event){ COX_STORE_DELETE, (uintptr_t)&ask, 5, COX_ERR_NOT_FOUND, { 0 } };
    cox_driver_turn(d, 0);
    assert_null(ask.fn);
    assert_true(cox_driver_wake_ns(d) == INT64_MAX);
}

/* However long the sweep has waited: who is in use is what counts when it goes. */
static void a_sweep_is_told_what_is_in_use(void **state)
{
    struct cox_driver *d = *state;
    struct cox_ask ask = { .req = { .op = COX_STORE_SWEEP }, .fn = on_asked };

    in_use = 8;
    store.state_room = 0;
    cox_driver_ask(d, &ask);
    cox_driver_turn(d, 0);
    in_use = 9;
    store.state_room = 1;
    cox_driver_turn(d, 0);
    in_use = 0;
    assert_int_equal(store.n_requests, 1);
    assert_int_equal(store.in_use, 9);
}

/* A driver of its own, whose store has as much room as the test says. */
static struct cox_driver *housekeeping(uint64_t free_bytes, uint64_t min_free, uint64_t memory_limit)
{
    const struct cox_driver_config config = { .store = "memory",
                                              .checkpoint_len = 1000,
                                              .wake = wake,
                                              .min_free = min_free,
                                              .memory_limit = memory_limit };
    struct cox_driver_recovery found;
    struct cox_buf error = { 0 };
    struct cox_driver *d;

    memset(&store, 0, sizeof(store));
    store.room = store.state_room = 32;
    store.free_bytes = free_bytes;
    assert_int_equal(cox_driver_create(&config, &(struct cox_driver_hooks){ 0 }, &d, &found, &error), COX_OK);
    cox_driver_turn(d, 0);
    return d;
}

static void what_is_short_is_found(void **state)
{
    struct cox_driver *d;

    (void)state;
    d = housekeeping(999, 1000, 0);
    assert_int_equal(cox_driver_shortage(d), COX_SHORTAGE_DISK);
    assert_false(cox_driver_ready(d));
    assert_false(cox_driver_full(d)); /* running tasks finish */
    assert_true(cox_driver_wake_ns(d) < INT64_MAX);
    cox_driver_destroy(d);
    d = housekeeping(1000, 1000, (uint64_t)1 << 50);
    assert_int_equal(cox_driver_shortage(d), COX_SHORTAGE_NONE);
    assert_true(cox_driver_ready(d));
    cox_driver_destroy(d);
    d = housekeeping(1000, 1000, 1);
    assert_int_equal(cox_driver_shortage(d), COX_SHORTAGE_MEMORY);
    assert_true(cox_driver_full(d)); /* above all of it: reads stop until the next look */
    cox_driver_destroy(d);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(nothing_leaves_before_it_is_durable),
        TEST(nothing_is_settled_before_the_ended_are_archived),
        TEST(what_needs_no_record_leaves_in_its_turn),
        TEST(but_not_before_what_came_earlier),
        TEST(a_full_log_gathers_turns_and_says_so),
        TEST(a_full_state_holds_what_follows),
        TEST(a_read_waits_for_what_it_saw),
        TEST(a_read_waits_for_the_state),
        TEST(a_fetch_waits_for_room),
        TEST(changes_are_told_at_the_turns_end),
        TEST(a_due_timer_fires_once_there_is_quiet),
        TEST(a_full_log_holds_timers),
        TEST(after_a_gap_timers_wait_for_what_peers_have_said),
        TEST(without_a_gap_timers_wait_for_nobody),
        TEST(after_a_gap_a_busy_network_holds_timers_two_seconds_at_most),
        TEST(turns_that_are_far_apart_for_ever_still_fire_timers),
        TEST(after_a_second_of_a_full_log_timers_wait_as_well),
        TEST(a_checkpoint_goes_on_until_the_log_is_cut),
        TEST(a_checkpoint_begins_when_the_log_has_grown),
        TEST(what_is_asked_of_the_store_waits_for_room_and_is_answered),
        TEST(a_sweep_is_told_what_is_in_use),
        TEST(what_is_short_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
