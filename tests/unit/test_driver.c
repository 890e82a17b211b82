/* The driver's turn, between an engine and a store that do what each test tells them. */
#include "driver.h"

#include "check.h"

#include "cox/base/alloc.h"

#include <string.h>

#define ACTIONS_MAX 16
#define MS 1000000LL

/* ---- the clock: moves when told ---- */

static int64_t clock_ns;

int64_t __wrap_cox_clock_mono_ns(void);
int64_t __wrap_cox_clock_mono_ns(void)
{
    return clock_ns;
}

/* ---- the engine: each input emits what was prepared for it ---- */

struct cox_engine {
    uint64_t seq;
};

static struct {
    struct cox_engine engine;
    uint32_t n_records;                     /* the next step emits so many */
    struct cox_action actions[ACTIONS_MAX]; /* and these; after_seq is relative to the first record */
    size_t n_actions;
    enum cox_input_kind inputs[64];
    size_t n_inputs;
    int64_t wake_ns;
} fake;

static void emit(uint32_t n, struct cox_effects *fx)
{
    if (n > 0 && fx->n_records == 0)
        fx->first_seq = fake.engine.seq + 1;
    for (uint32_t i = 0; i < n; i++)
        cox_put_u8(&fx->records, 1);
    fx->n_records += n;
    fake.engine.seq += n;
}

static void push(const struct cox_action *a, struct cox_effects *fx)
{
    if (fx->n_actions == fx->cap_actions) {
        fx->cap_actions = fx->cap_actions * 2 + 4;
        fx->actions = cox_realloc(fx->actions, fx->cap_actions, sizeof(*fx->actions));
    }
    fx->actions[fx->n_actions++] = *a;
}

struct cox_engine *cox_engine_create(const struct cox_engine_config *config)
{
    (void)config;
    return &fake.engine;
}

void cox_engine_destroy(struct cox_engine *e)
{
    (void)e;
}

enum cox_err cox_engine_load(struct cox_engine *e, struct cox_entity_key key, uint64_t seq,
                             struct cox_slice b)
{
    (void)e, (void)key, (void)seq, (void)b;
    return COX_OK;
}

enum cox_err cox_engine_replay(struct cox_engine *e, uint64_t first, uint32_t n, struct cox_slice b)
{
    (void)e, (void)first, (void)n, (void)b;
    return COX_OK;
}

enum cox_err cox_engine_recovered(struct cox_engine *e, struct cox_now now, uint64_t last,
                                  struct cox_effects *fx)
{
    (void)e, (void)now;
    fake.engine.seq = last;
    emit(1, fx); /* the epoch */
    fx->wake_mono_ns = fake.wake_ns;
    return COX_OK;
}

void cox_engine_step(struct cox_engine *e, const struct cox_input *in, struct cox_effects *fx)
{
    (void)e;
    fake.inputs[fake.n_inputs++] = in->kind;
    emit(fake.n_records, fx);
    for (size_t i = 0; i < fake.n_actions; i++) {
        fake.actions[i].after_seq = fake.engine.seq;
        push(&fake.actions[i], fx);
    }
    fake.n_records = 0;
    fake.n_actions = 0;
    fx->wake_mono_ns = fake.wake_ns;
}

uint64_t cox_engine_seq(const struct cox_engine *e)
{
    return e->seq;
}

void cox_effects_reset(struct cox_effects *fx)
{
    cox_buf_clear(&fx->records);
    fx->n_records = 0;
    fx->n_actions = 0;
    cox_arena_reset(&fx->arena);
}

void cox_effects_fini(struct cox_effects *fx)
{
    cox_buf_fini(&fx->records);
    cox_free(fx->actions);
    cox_arena_fini(&fx->arena);
}

void cox_evaluate_start(struct cox_driver *d, const struct cox_act_evaluate *act)
{
    (void)d, (void)act;
}

void cox_compose_start(struct cox_driver *d, const struct cox_act_compose *act)
{
    (void)d, (void)act;
}

/* Documents are not this test's matter. */
enum cox_err cox_task_compile(const struct cox_task_source *source, struct cox_buf *ret_image,
                              struct cox_violations *v)
{
    (void)source, (void)ret_image;
    memset(v, 0, sizeof(*v));
    return COX_ERR_INVALID;
}

void cox_violations_fini(struct cox_violations *v)
{
    (void)v;
}

void cox_engine_quarantine(struct cox_engine *e, const struct cox_quarantined *q, struct cox_slice image)
{
    (void)e, (void)q, (void)image;
}

/* ---- the store: commits when told ---- */

struct cox_store {
    uint64_t appended, durable;
    size_t room;       /* batches the log takes */
    size_t state_room; /* requests the state takes */
    enum cox_store_op requests[64];
    size_t n_requests;
    struct cox_store_event events[8];
    size_t n_events;
    uint64_t free_bytes;
};
static struct cox_store store;

enum cox_err cox_store_open(const struct cox_store_config *config, struct cox_store **ret,
                            struct cox_buf *error)
{
    (void)config, (void)error;
    *ret = &store;
    return COX_OK;
}

uint64_t cox_store_uid(const struct cox_store *s)
{
    (void)s;
    return 7;
}

enum cox_err cox_store_recover(struct cox_store *s, const struct cox_store_recovery *r, uint64_t *ret_last,
                               struct cox_buf *error)
{
    (void)s, (void)r, (void)error;
    *ret_last = 0;
    return COX_OK;
}

enum cox_err cox_store_quarantine(struct cox_store *s, uint64_t root, const char *why, struct cox_buf *error)
{
    (void)s, (void)root, (void)why, (void)error;
    return COX_OK;
}

enum cox_err cox_store_start(struct cox_store *s)
{
    (void)s;
    return COX_OK;
}

bool cox_store_append(struct cox_store *s, uint64_t first, uint32_t n, struct cox_buf *records)
{
    if (s->room == 0)
        return false;
    assert_int_equal(first, s->appended + 1);
    assert_int_equal(records->len, n);
    s->room--;
    s->appended += n;
    cox_buf_fini(records);
    return true;
}

uint64_t cox_store_durable_seq(const struct cox_store *s)
{
    return s->durable;
}

size_t cox_store_append_room(const struct cox_store *s)
{
    return s->room;
}

bool cox_store_request(struct cox_store *s, struct cox_store_request *req)
{
    if (s->state_room == 0)
        return false;
    s->state_room--;
    s->requests[s->n_requests++] = req->op;
    if (req->op == COX_STORE_READ_ARCHIVE)
        s->events[s->n_events++] = (struct cox_store_event){ req->op, req->ticket, req->id, COX_OK, { 0 } };
    cox_buf_fini(&req->bytes);
    return true;
}

bool cox_store_poll(struct cox_store *s, struct cox_store_event *ret)
{
    if (s->n_events == 0)
        return false;
    *ret = s->events[--s->n_events];
    return true;
}

void cox_index_row_encode(struct cox_buf *b, const struct cox_index_row *row)
{
    cox_put_u64(b, row->id);
}

void cox_store_keep(struct cox_store *s, int64_t retention_ms, uint64_t min_free)
{
    (void)s, (void)retention_ms, (void)min_free;
}

uint64_t cox_store_free_bytes(const struct cox_store *s)
{
    (void)s;
    return store.free_bytes;
}

void cox_store_close(struct cox_store *s)
{
    (void)s;
}

/* ---- what the hooks saw ---- */

static struct {
    uint64_t released[64]; /* session of each action */
    size_t n_released;
    size_t n_changed, n_turns, n_flushes;
} seen;

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

static void wake(void *user)
{
    (void)user;
}

static int setup(void **state)
{
    const struct cox_driver_config config = { .store = "memory", .checkpoint_len = 1000, .wake = wake };
    const struct cox_driver_hooks hooks = { NULL, on_action, on_changed, on_turn, on_flush };
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
        TEST(what_is_short_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
