#include "driver.h"
#include "programs.h"

#include "housekeep.h"
#include "recover.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <string.h>
#include <unistd.h>

#define NS_PER_MS 1000000LL
#define GAP_NS (1000 * NS_PER_MS)    /* between turns: longer means that we were not running */
#define QUIET_NS (20 * NS_PER_MS)    /* nothing to read for so long: peers' words have all been heard */
#define SETTLE_NS (2000 * NS_PER_MS) /* a busy network never falls quiet: wait no longer than this */
#define SETTLES_MAX 3u /* one after the other: where turns are always far apart, timers fire all the same */
#define RETRY_NS NS_PER_MS /* the state's ring gives no sign when it has room again */
#define PENDING_LEN_MAX ((size_t)128 << 20)
#define CHECKPOINT_SLICE_LEN ((size_t)1 << 20)
#define APPEND_ROOM_MIN 2
#define POOL_MAX 64
#define IDLE_NS (1000 * NS_PER_MS)
#define INDEX_ROW_LEN 128
#define CLOCK_STEPS 64 /* inputs that may share one reading of the clock */

/* The effects of one turn, from its append until the last action has left. */
struct turn {
    struct cox_list node;
    struct cox_effects fx;
    size_t next_action;
    size_t len;
};

struct cox_driver {
    struct cox_engine *engine;
    struct cox_store *store;
    struct cox_compile *compile;
    struct cox_programs *programs;
    struct cox_driver_hooks hooks;
    struct cox_now now;
    int64_t due_ns; /* between turns: when the next one was to be, at the latest */
    int64_t gap_ns; /* 0, or we were stopped for so long and the engine has not heard of it */
    uint32_t n_fed; /* inputs from outside in this turn */

    struct turn *cur;      /* takes effects */
    size_t n_seen;         /* actions of cur that were looked at for changes */
    struct cox_list turns; /* appended, oldest first */
    struct cox_list pool;
    size_t n_pool;
    size_t pending_len;
    size_t records_len; /* of the last turn: the next is likely to be as long */
    size_t n_archiving; /* ended tasks handed to the store that it has not answered for */
    bool state_full;    /* the next action waits for the state's ring */
    bool log_full;      /* the current turn waits for the log's ring */

    struct cox_list holds;   /* by seq */
    struct cox_list fetches; /* not yet with the store */
    struct cox_list asks;    /* likewise */
    uint64_t done_seq;       /* up to here the store has been told everything */
    struct cox_housekeep housekeep;

    int64_t engine_wake_ns;
    int64_t last_turn_ns;
    int64_t last_event_ns;
    int64_t settle_until_ns; /* 0: timers may fire */
    uint32_t n_settles;      /* begun since timers might last fire */
    int64_t full_since_ns;   /* 0: not full */

    uint64_t checkpoint_len;
    uint64_t log_len; /* since the last checkpoint began */
    enum { CHECKPOINT_NONE, CHECKPOINT_SAVING, CHECKPOINT_CUTTING } checkpoint;
};

/* ---- turns ---- */

static struct turn *turn_get(struct cox_driver *d)
{
    if (cox_list_empty(&d->pool))
        return COX_NEW(struct turn);
    struct turn *t = COX_CONTAINER_OF(d->pool.next, struct turn, node);

    cox_list_remove(&t->node);
    d->n_pool--;
    return t;
}

static void turn_free(struct turn *t)
{
    cox_effects_fini(&t->fx);
    cox_free(t);
}

static void turn_put(struct cox_driver *d, struct turn *t)
{
    if (d->n_pool == POOL_MAX) {
        turn_free(t);
        return;
    }
    cox_effects_reset(&t->fx);
    t->next_action = 0;
    cox_list_push_front(&d->pool, &t->node);
    d->n_pool++;
}

/* Wall time never goes back, whatever the host's clock does. */
static void clock_read(struct cox_driver *d)
{
    int64_t wall_ms = cox_clock_wall_ms(), mono_ns = cox_clock_mono_ns();
    int64_t expected_ns = d->now.mono_ns > d->due_ns ? d->now.mono_ns : d->due_ns;

    if (d->now.mono_ns > 0 && mono_ns - expected_ns > GAP_NS)
        d->gap_ns = mono_ns - expected_ns;
    d->due_ns = 0;
    d->now.mono_ns = mono_ns;
    if (wall_ms > d->now.wall_ms)
        d->now.wall_ms = wall_ms;
}

static void step_one(struct cox_driver *d, struct cox_input *in)
{
    in->now = d->now;
    cox_engine_step(d->engine, in, &d->cur->fx);
    d->engine_wake_ns = d->cur->fx.wake_mono_ns;
}

static void step(struct cox_driver *d, struct cox_input *in)
{
    if (d->gap_ns > 0 && !COX_PLANTED("gap-untold"))
        step_one(d, &(struct cox_input){ .kind = COX_IN_GAP, .u.gap.ns = d->gap_ns });
    d->gap_ns = 0;
    step_one(d, in);
}

void cox_driver_step(struct cox_driver *d, struct cox_input *in)
{
    if (d->n_fed++ % CLOCK_STEPS == 0)
        clock_read(d);
    step(d, in);
}

/* ---- recovery ---- */

static void on_fatal(void *user, const char *what)
{
    (void)user;
    cox_log(COX_LOG_ERROR, "the store failed; leaving to recover from the log", "what", what, NULL);
    _exit(COX_EXIT_RECOVER);
}

void cox_driver_fatal(const char *what)
{
    on_fatal(NULL, what);
}

static enum cox_err recover(struct cox_driver *d, const struct cox_driver_config *config,
                            struct cox_driver_recovery *found, struct cox_buf *error)
{
    enum cox_err err = cox_recover(d->store, config, &d->engine, &d->now, &d->cur->fx, found, error);

    d->engine_wake_ns = d->cur->fx.wake_mono_ns;
    d->log_len = found->log_len;
    return err;
}

enum cox_err cox_driver_create(const struct cox_driver_config *config, const struct cox_driver_hooks *hooks,
                               struct cox_driver **ret, struct cox_driver_recovery *ret_recovery,
                               struct cox_buf *error)
{
    const struct cox_store_config store_config = {
        .uri = config->store,
        .data_dir = config->data_dir,
        .shard = config->shard,
        .retention_ms = config->retention_ms,
        .min_free = config->min_free,
        .wake = config->wake,
        .on_fatal = on_fatal,
        .user = config->wake_user,
    };
    struct cox_driver *d = COX_NEW(struct cox_driver);
    enum cox_err err;

    cox_list_init(&d->turns);
    cox_list_init(&d->pool);
    cox_list_init(&d->holds);
    cox_list_init(&d->fetches);
    cox_list_init(&d->asks);
    d->hooks = *hooks;
    d->checkpoint_len = config->checkpoint_len;
    d->engine_wake_ns = INT64_MAX;
    d->cur = turn_get(d);
    memset(ret_recovery, 0, sizeof(*ret_recovery));
    err = cox_store_open(&store_config, &d->store, error);
    if (err)
        goto out;
    err = recover(d, config, ret_recovery, error);
    if (err)
        goto out;
    err = cox_store_start(d->store);
    if (err) {
        cox_buf_printf(error, "the store's threads did not start: %s", cox_err_text(err));
        goto out;
    }
    d->programs = cox_programs_create();
    d->compile = cox_compile_create(config->wake, config->wake_user);
    d->last_turn_ns = d->last_event_ns = cox_clock_mono_ns();
    cox_housekeep_init(&d->housekeep, d, config, d->last_turn_ns);
    *ret = d;
    d = NULL;
out:
    cox_driver_destroy(d);
    return err;
}

static void turns_free(struct cox_list *turns)
{
    COX_LIST_FOR_EACH (it, turns)
        turn_free(COX_CONTAINER_OF(it, struct turn, node));
}

void cox_driver_destroy(struct cox_driver *d)
{
    if (!d)
        return;
    cox_compile_destroy(d->compile);
    cox_programs_destroy(d->programs);
    cox_store_close(d->store);
    if (d->engine)
        cox_engine_destroy(d->engine);
    turn_free(d->cur);
    turns_free(&d->turns);
    turns_free(&d->pool);
    cox_free(d);
}

/* ---- what comes back from the store ---- */

void cox_driver_fetch(struct cox_driver *d, struct cox_fetch *f)
{
    cox_list_push_back(&d->fetches, &f->node);
}

static void fetches_send(struct cox_driver *d)
{
    while (!cox_list_empty(&d->fetches)) {
        struct cox_fetch *f = COX_CONTAINER_OF(d->fetches.next, struct cox_fetch, node);
        struct cox_store_request req = {
            .op = f->task          ? COX_STORE_READ_ARCHIVE
                  : f->entity.kind ? COX_STORE_READ_ENTITY
                                   : COX_STORE_READ_PAYLOAD,
            .ticket = (uintptr_t)f,
            .id = f->task,
            .key = f->entity,
            .hash = f->hash,
            .space = f->space,
        };

        if (!cox_store_request(d->store, &req))
            return;
        cox_list_remove(&f->node);
    }
}

void cox_driver_ask(struct cox_driver *d, struct cox_ask *ask)
{
    cox_list_push_back(&d->asks, &ask->node);
}

static void asks_send(struct cox_driver *d)
{
    while (!cox_list_empty(&d->asks)) {
        struct cox_ask *ask = COX_CONTAINER_OF(d->asks.next, struct cox_ask, node);

        ask->req.ticket = (uintptr_t)ask;
        if (ask->req.op == COX_STORE_LIST)
            ask->req.seq = d->done_seq;
        bool sweeps = ask->req.op == COX_STORE_SWEEP;

        if (sweeps && d->hooks.put_in_use && !COX_PLANTED("sweep-told-nothing"))
            d->hooks.put_in_use(d->hooks.user, &ask->req.bytes);
        if (!cox_store_request(d->store, &ask->req)) {
            if (sweeps) /* who is in use is asked again */
                cox_buf_fini(&ask->req.bytes);
            return;
        }
        cox_list_remove(&ask->node);
    }
}

static void event_handle(struct cox_driver *d, struct cox_store_event *ev)
{
    struct cox_fetch *f;
    struct cox_ask *ask;

    switch (ev->op) {
    case COX_STORE_READ_ARCHIVE:
    case COX_STORE_READ_PAYLOAD:
    case COX_STORE_READ_ENTITY:
        f = (struct cox_fetch *)(uintptr_t)ev->ticket;
        f->fn(f, ev->err, &ev->bytes);
        break;
    case COX_STORE_ARCHIVE:
        if (ev->err)
            on_fatal(NULL, "a finished task could not be archived");
        d->n_archiving--;
        step(d, &(struct cox_input){ .kind = COX_IN_ARCHIVED, .u.task.task = ev->id });
        break;
    case COX_STORE_LIST:
    case COX_STORE_DELETE:
    case COX_STORE_SWEEP:
    case COX_STORE_BACKUP:
        ask = (struct cox_ask *)(uintptr_t)ev->ticket;
        ask->fn(ask, ev->err, ev->id, &ev->bytes);
        break;
    case COX_STORE_TRUNCATE:
        if (ev->err)
            on_fatal(NULL, "the log could not be cut after a checkpoint");
        d->checkpoint = CHECKPOINT_NONE;
        break;
    case COX_STORE_SAVE:
    case COX_STORE_FORGET:
    default:
        break;
    }
    cox_buf_fini(&ev->bytes);
}

/* ---- actions ---- */

/* COX_ACT_FETCH */
struct asked_fetch {
    struct cox_fetch fetch;
    struct cox_driver *driver;
    uint64_t ticket;
};

static void on_fetched(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct asked_fetch *af = COX_CONTAINER_OF(f, struct asked_fetch, fetch);
    struct cox_input in = { .kind = COX_IN_FETCHED, .u.fetched.ticket = af->ticket };

    if (err)
        cox_log(COX_LOG_ERROR, "a stored value cannot be read", "error", cox_err_text(err), NULL);
    in.u.fetched.bytes = cox_buf_slice(bytes);
    cox_driver_step(af->driver, &in);
    cox_free(af);
}

struct cox_space cox_driver_space(const struct cox_driver *d, cox_task_id task)
{
    return cox_space_of(cox_engine_tenant(d->engine, task));
}

static void fetch_start(struct cox_driver *d, const struct cox_action *a)
{
    struct asked_fetch *af = COX_NEW(struct asked_fetch);

    *af = (struct asked_fetch){
        .fetch = { .hash = a->u.fetch.hash, .space = cox_driver_space(d, a->u.fetch.root), .fn = on_fetched },
        .driver = d,
        .ticket = a->u.fetch.ticket
    };
    cox_driver_fetch(d, &af->fetch);
}

static void put_index_row(struct cox_buf *out, const struct cox_act_index *x)
{
    cox_buf_reserve(out, INDEX_ROW_LEN);
    cox_index_row_encode(out, &(struct cox_index_row){
                                  .id = x->task,
                                  .status = (uint8_t)x->status,
                                  .created_wall_ms = x->created_wall_ms,
                                  .finished_wall_ms = x->finished_wall_ms,
                                  .name = x->name,
                                  .tenant = x->tenant,
                                  .labels = x->labels,
                                  .n_labels = x->n_labels,
                              });
}

static bool store_action(struct cox_driver *d, enum cox_store_op op, const struct cox_action *a)
{
    struct cox_store_request req = { .op = op };
    struct cox_slice bytes = { NULL, 0 };

    switch (op) {
    case COX_STORE_SAVE:
    case COX_STORE_FORGET:
        req.key = a->u.save.key;
        req.seq = a->u.save.applied_seq;
        bytes = a->u.save.bytes;
        break;
    case COX_STORE_ARCHIVE:
        req.id = a->u.archive.task;
        req.owner = a->u.archive.root == a->u.archive.task ? 0 : a->u.archive.root;
        bytes = a->u.archive.bytes;
        break;
    case COX_STORE_PUT_PAYLOAD:
        req.hash = a->u.payload.hash;
        req.space = cox_space_of(a->u.payload.tenant);
        req.owner = a->u.payload.root;
        req.id = a->u.payload.from;
        bytes = a->u.payload.bytes;
        break;
    case COX_STORE_TRUNCATE:
        req.seq = a->u.truncate.seq;
        break;
    case COX_STORE_ASIDE:
        req.owner = a->u.aside.root;
        req.key = a->u.aside.key;
        req.seq = a->u.aside.seq;
        bytes = a->u.aside.bytes;
        break;
    case COX_STORE_INDEX:
        req.id = a->u.index.task;
        put_index_row(&req.bytes, &a->u.index);
        break;
    default:
        return true;
    }
    cox_buf_append_slice(&req.bytes, bytes);
    if (cox_store_request(d->store, &req)) {
        d->n_archiving += op == COX_STORE_ARCHIVE;
        return true;
    }
    cox_buf_fini(&req.bytes);
    return false;
}

/* False: not now, try again later. */
static bool action_do(struct cox_driver *d, const struct cox_action *a)
{
    switch (a->kind) {
    case COX_ACT_PUT_PAYLOAD:
        return store_action(d, COX_STORE_PUT_PAYLOAD, a);
    case COX_ACT_ARCHIVE:
        return store_action(d, COX_STORE_ARCHIVE, a);
    case COX_ACT_SAVE:
        return store_action(d, COX_STORE_SAVE, a);
    case COX_ACT_FORGET:
        return store_action(d, COX_STORE_FORGET, a);
    case COX_ACT_ASIDE:
        return store_action(d, COX_STORE_ASIDE, a);
    case COX_ACT_TRUNCATE:
        return store_action(d, COX_STORE_TRUNCATE, a);
    case COX_ACT_INDEX:
        return store_action(d, COX_STORE_INDEX, a);
    case COX_ACT_STORE_SLEEPER:
        return store_action(d, COX_STORE_SAVE, a);
    case COX_ACT_LOAD:
        cox_load_start(d, a->u.load.sleeper);
        return true;
    case COX_ACT_COMPILE:
        cox_expand_start(d, &a->u.compile);
        return true;
    case COX_ACT_EVALUATE:
        cox_evaluate_start(d, &a->u.evaluate);
        return true;
    case COX_ACT_TOOLS:
        cox_tools_start(d, &a->u.tools);
        return true;
    case COX_ACT_DECIDE:
        cox_decide_start(d, &a->u.decide);
        return true;
    case COX_ACT_COMPOSE:
        cox_compose_start(d, &a->u.compose);
        return true;
    case COX_ACT_FETCH:
        fetch_start(d, a);
        return true;
    case COX_ACT_ALARM:
        cox_log(COX_LOG_WARN, a->u.alarm.text, NULL);
        return true;
    case COX_ACT_CHANGED:
        return true; /* seen at the end of its turn */
    case COX_ACT_REPLY:
    case COX_ACT_ASSIGN:
    case COX_ACT_CANCEL:
    case COX_ACT_ANSWER:
    case COX_ACT_FENCED:
    case COX_ACT_EXPECT:
    case COX_ACT_CLOSE:
    case COX_ACT_RELEASE:
    case COX_ACT_DRAIN:
        if (d->hooks.on_action)
            d->hooks.on_action(d->hooks.user, a);
        return true;
    default:
        return true;
    }
    return true;
}

/* Lets go what is durable. Returns the position up to which everything has been done. */
static uint64_t release(struct cox_driver *d)
{
    uint64_t durable = cox_store_durable_seq(d->store);
    struct cox_list gone;
    uint64_t done = durable;

    cox_list_init(&gone);
    d->state_full = false;
    while (!cox_list_empty(&d->turns)) {
        struct turn *t = COX_CONTAINER_OF(d->turns.next, struct turn, node);
        const struct cox_action *a = NULL;

        for (; t->next_action < t->fx.n_actions; t->next_action++) {
            a = &t->fx.actions[t->next_action];
            if ((a->after_seq > durable && !COX_PLANTED("ack-before-commit")) || !action_do(d, a))
                break;
        }
        if (t->next_action < t->fx.n_actions) {
            d->state_full = a->after_seq <= durable;
            done = d->state_full && !COX_PLANTED("list-before-its-rows") ? a->after_seq - 1 : durable;
            break;
        }
        cox_list_remove(&t->node);
        cox_list_push_back(&gone, &t->node);
        d->pending_len -= t->len;
    }
    if (d->hooks.on_flush)
        d->hooks.on_flush(d->hooks.user);
    COX_LIST_FOR_EACH (it, &gone)
        turn_put(d, COX_CONTAINER_OF(it, struct turn, node));
    return done;
}

void cox_driver_hold(struct cox_driver *d, struct cox_hold *h, void (*fn)(struct cox_hold *h))
{
    h->seq = COX_PLANTED("read-of-uncommitted") ? 0 : cox_engine_seq(d->engine);
    h->fn = fn;
    cox_list_push_back(&d->holds, &h->node);
}

static void holds_release(struct cox_driver *d, uint64_t done)
{
    while (!cox_list_empty(&d->holds)) {
        struct cox_hold *h = COX_CONTAINER_OF(d->holds.next, struct cox_hold, node);

        if (h->seq > done)
            return;
        cox_list_remove(&h->node);
        h->fn(h);
    }
}

/* ---- the turn ---- */

/* Hands the turn's records to the log. When its ring is full the effects go on growing with the next turn. */
static void append(struct cox_driver *d)
{
    struct turn *t = d->cur;
    struct cox_effects *fx = &t->fx;

    if (fx->n_records == 0 && fx->n_actions == 0)
        return;
    size_t records_len = fx->records.len;

    d->records_len = records_len;
    d->log_full =
        fx->n_records > 0 && !cox_store_append(d->store, fx->first_seq, fx->n_records, &fx->records);
    if (d->log_full && !COX_PLANTED("full-log-drops-a-turn"))
        return;
    fx->n_records = 0;
    t->len = records_len + fx->n_actions * sizeof(*fx->actions);
    d->log_len += records_len;
    d->pending_len += t->len;
    cox_list_push_back(&d->turns, &t->node);
    d->cur = turn_get(d);
    cox_buf_reserve(&d->cur->fx.records, d->records_len);
    d->n_seen = 0;
}

/* Indexes, not pointers: a hook may feed an input, which adds actions. */
static void changes_tell(struct cox_driver *d)
{
    for (; d->n_seen < d->cur->fx.n_actions; d->n_seen++) {
        struct cox_action a = d->cur->fx.actions[d->n_seen];

        if (a.kind == COX_ACT_CHANGED && d->hooks.on_changed)
            d->hooks.on_changed(d->hooks.user, &a);
        else if (a.kind == COX_ACT_TRUNCATE)
            d->checkpoint = CHECKPOINT_CUTTING;
    }
}

/* After a time in which we heard nobody, timers wait until what peers have said meanwhile has been read. */
static bool timers_wait(struct cox_driver *d, size_t n_events)
{
    int64_t now_ns = d->now.mono_ns;
    bool full = cox_driver_full(d);
    bool deaf = now_ns - d->last_turn_ns > GAP_NS ||
                (d->full_since_ns && now_ns - d->full_since_ns > GAP_NS && !COX_PLANTED("full-is-not-deaf"));

    d->last_turn_ns = now_ns;
    if (!full)
        d->full_since_ns = 0;
    else if (!d->full_since_ns)
        d->full_since_ns = now_ns;
    if (n_events > 0)
        d->last_event_ns = now_ns;
    if (deaf && !COX_PLANTED("timers-before-input") && (full || d->n_settles++ < SETTLES_MAX))
        d->settle_until_ns = now_ns + SETTLE_NS;
    int64_t left_ns = d->settle_until_ns - now_ns;
    bool quiet = now_ns - d->last_event_ns >= QUIET_NS && left_ns <= SETTLE_NS - QUIET_NS;

    if (left_ns <= 0 || quiet)
        d->settle_until_ns = 0;
    if (full || !d->settle_until_ns)
        d->n_settles = 0;
    return full || d->settle_until_ns != 0;
}

static void timers_fire(struct cox_driver *d, size_t n_events)
{
    if (!timers_wait(d, n_events) && d->now.mono_ns >= d->engine_wake_ns)
        step(d, &(struct cox_input){ .kind = COX_IN_TIMER });
}

static bool checkpoint_may_save(const struct cox_driver *d)
{
    return d->checkpoint == CHECKPOINT_SAVING && !d->state_full && d->pending_len < PENDING_LEN_MAX / 2;
}

static void checkpoint_turn(struct cox_driver *d)
{
    if (d->log_len >= d->checkpoint_len)
        cox_driver_checkpoint(d);
    if (checkpoint_may_save(d))
        step(d, &(struct cox_input){ .kind = COX_IN_CHECKPOINT,
                                     .u.checkpoint.max_bytes = CHECKPOINT_SLICE_LEN });
}

/* After a burst the memory of its turns is freed. */
static void give_back(struct cox_driver *d)
{
    if (d->n_pool == 0 || !cox_list_empty(&d->turns) || d->now.mono_ns - d->last_event_ns < IDLE_NS)
        return;
    while (!cox_list_empty(&d->pool)) {
        struct turn *t = COX_CONTAINER_OF(d->pool.next, struct turn, node);

        cox_list_remove(&t->node);
        turn_free(t);
    }
    d->n_pool = 0;
}

void cox_driver_turn(struct cox_driver *d, size_t n_events)
{
    struct cox_store_event ev;

    clock_read(d);
    d->n_fed = 0;
    cox_compile_drain(d->compile);
    while (cox_store_poll(d->store, &ev))
        event_handle(d, &ev);
    timers_fire(d, n_events);
    checkpoint_turn(d);
    changes_tell(d);
    if (d->hooks.on_turn)
        d->hooks.on_turn(d->hooks.user);
    append(d);
    d->done_seq = release(d);
    holds_release(d, d->done_seq);
    cox_housekeep_turn(&d->housekeep, d->now.mono_ns, cox_list_empty(&d->turns));
    give_back(d);
    fetches_send(d);
    asks_send(d);
    d->due_ns = cox_driver_wake_ns(d);
}

int64_t cox_driver_wake_ns(const struct cox_driver *d)
{
    if (checkpoint_may_save(d) || (!d->log_full && d->cur->fx.n_records + d->cur->fx.n_actions > 0))
        return d->now.mono_ns;
    if (d->state_full || !cox_list_empty(&d->fetches) || !cox_list_empty(&d->asks))
        return d->now.mono_ns + RETRY_NS;
    if (d->settle_until_ns || cox_driver_full(d))
        return d->now.mono_ns + QUIET_NS;
    int64_t housekeep_ns = cox_housekeep_wake_ns(&d->housekeep);

    return d->engine_wake_ns < housekeep_ns ? d->engine_wake_ns : housekeep_ns;
}

bool cox_driver_full(const struct cox_driver *d)
{
    return d->state_full || cox_store_append_room(d->store) < APPEND_ROOM_MIN ||
           d->pending_len + d->cur->fx.records.len > PENDING_LEN_MAX || cox_compile_full(d->compile) ||
           !cox_list_empty(&d->fetches) || d->housekeep.stifled;
}

bool cox_driver_settled(const struct cox_driver *d)
{
    return cox_list_empty(&d->turns) && d->cur->fx.n_records == 0 && d->cur->fx.n_actions == 0 &&
           d->n_archiving == 0 && cox_store_durable_seq(d->store) >= cox_engine_seq(d->engine);
}

void cox_driver_checkpoint(struct cox_driver *d)
{
    if (d->checkpoint != CHECKPOINT_NONE)
        return;
    d->checkpoint = CHECKPOINT_SAVING;
    d->log_len = 0;
}

bool cox_driver_checkpointing(const struct cox_driver *d)
{
    return d->checkpoint != CHECKPOINT_NONE;
}

const struct cox_engine *cox_driver_engine(const struct cox_driver *d)
{
    return d->engine;
}

struct cox_compile *cox_driver_compile(struct cox_driver *d)
{
    return d->compile;
}

struct cox_programs *cox_driver_programs(struct cox_driver *d)
{
    return d->programs;
}

void cox_driver_limit(struct cox_driver *d, int64_t retention_ms, uint64_t min_free, uint64_t memory_limit)
{
    cox_store_keep(d->store, retention_ms, min_free);
    cox_housekeep_limit(&d->housekeep, min_free, memory_limit);
}

enum cox_shortage cox_driver_shortage(const struct cox_driver *d)
{
    return d->housekeep.shortage;
}

bool cox_driver_ready(const struct cox_driver *d)
{
    return d->housekeep.shortage == COX_SHORTAGE_NONE;
}

struct cox_store *cox_driver_store(struct cox_driver *d)
{
    return d->store;
}

uint64_t cox_driver_uid(const struct cox_driver *d)
{
    return cox_store_uid(d->store);
}

uint64_t cox_driver_done_seq(const struct cox_driver *d)
{
    return d->done_seq;
}

uint64_t cox_driver_durable_seq(const struct cox_driver *d)
{
    return cox_store_durable_seq(d->store);
}

struct cox_now cox_driver_now(struct cox_driver *d)
{
    clock_read(d);
    return d->now;
}
