/* coxd: the real engine, and a driver that owes it what engine.h says. A turn reads what arrived, lets timers
 * fire, saves a slice of a checkpoint, appends all records as one batch, and lets go what is durable. */
#include "sim.h"

#include <string.h>

#define GAP_NS SECOND
#define QUIET_NS (20 * MS)
#define SETTLE_NS (2 * SECOND)
#define ROOM_MIN 2
#define WORKS_MAX 64
#define KIND_MAP_PAGE 6 /* of entities, as the engine numbers them */

/* ---- turns ---- */

static struct turn *turn_get(struct coxd *d)
{
    if (cox_list_empty(&d->pool))
        return COX_NEW(struct turn);
    struct turn *t = COX_CONTAINER_OF(d->pool.next, struct turn, node);
    cox_list_remove(&t->node);
    return t;
}

static void turn_free(struct turn *t)
{
    cox_effects_fini(&t->fx);
    cox_free(t);
}

/* Mostly used again; now and then freed, so that a sanitizer sees who still looks at it. */
static void turn_put(struct sim *s, struct turn *t)
{
    if (chance(s, 300)) {
        turn_free(t);
        return;
    }
    cox_effects_reset(&t->fx);
    t->next_action = 0;
    cox_list_push_front(&s->coxd.pool, &t->node);
}

static void turns_free(struct cox_list *list)
{
    while (!cox_list_empty(list)) {
        struct turn *t = COX_CONTAINER_OF(list->next, struct turn, node);
        cox_list_remove(&t->node);
        turn_free(t);
    }
}

static struct cox_now now_of(struct sim *s)
{
    struct coxd *d = &s->coxd;
    int64_t wall_ms = INT64_C(1700000000000) + s->now_ns / MS + s->wall_offset_ms;
    if (wall_ms > d->wall_ms)
        d->wall_ms = wall_ms;
    return (struct cox_now){ s->now_ns, d->wall_ms };
}

void coxd_step(struct sim *s, struct cox_input *in)
{
    struct coxd *d = &s->coxd;
    struct cox_effects *fx = &d->cur->fx;
    size_t from = fx->records.len;
    in->now = now_of(s);
    if (fx->n_records > 0)
        cox_put_u32(&d->inputs, fx->n_records);
    cox_engine_step(d->engine, in, fx);
    d->wake_ns = fx->wake_mono_ns;
    s->n.steps++;
    audit_watch(s, cox_slice(fx->records.data + from, fx->records.len - from));
    if (s->opt.check_each)
        cox_engine_check(d->engine);
}

void coxd_poke(struct sim *s)
{
    if (s->coxd.up)
        event_soon(s, &s->coxd.turn_ev, s->now_ns + between(s, 0, MS / 2));
}

/* ---- actions ---- */

static bool to_state(struct sim *s, enum cox_store_op kind, struct cox_entity_key key, uint64_t seq,
                     struct cox_slice bytes)
{
    struct state_op *op = COX_NEW(struct state_op);
    *op = (struct state_op){ .op = kind, .key = key, .seq = seq };
    cox_buf_append_slice(&op->bytes, bytes);
    if (kind == COX_STORE_SAVE && s->cfg.older_records && chance(s, 500))
        older_entity(s, key.kind, &op->bytes);
    if (store_request(s, op))
        return true;
    cox_list_init(&op->node);
    state_op_free(op);
    return false;
}

/* What a task owns, and what it has of another. */
static bool payload_to_state(struct sim *s, const struct cox_action *a)
{
    struct state_op *op = COX_NEW(struct state_op);
    *op = (struct state_op){ .op = COX_STORE_PUT_PAYLOAD,
                             .root = a->u.payload.root,
                             .from = a->u.payload.from };
    op->key = payload_key(&a->u.payload.hash);
    cox_buf_append_slice(&op->bytes, a->u.payload.bytes);
    if (op->from != 0 && s->opt.plant == PLANT_OWNER && chance(s, 500))
        op->from = 0;
    const struct audit_task *owner = audit_task(s, op->root);
    bool gone = owner != NULL && owner->deleted; /* the log brings it back */
    if (!gone && op->from == 0 && op->bytes.len == 0 && a->u.payload.from == 0 &&
        store_row(s, op->key) == NULL && !store_waits(s, op->key))
        fail(s, "a value is claimed that nobody has kept");
    if (store_request(s, op))
        return true;
    cox_list_init(&op->node);
    state_op_free(op);
    return false;
}

static bool store_sleeper(struct sim *s, const struct cox_action *a)
{
    struct cox_buf bytes = { 0 };
    cox_buf_append_slice(&bytes, a->u.save.bytes);
    if (s->opt.plant == PLANT_WAKE)
        memset(bytes.data + 1, 0, sizeof(int64_t)); /* behind the version */
    bool taken = to_state(s, COX_STORE_SAVE, a->u.save.key, a->u.save.applied_seq, cox_buf_slice(&bytes));
    cox_buf_fini(&bytes);
    return taken;
}

/* False: not now. */
static bool action_do(struct sim *s, const struct cox_action *a)
{
    struct cox_entity_key archive = { .kind = ROW_ARCHIVE, .id = a->u.archive.task };
    uint64_t seq;
    switch (a->kind) {
    case COX_ACT_PUT_PAYLOAD:
        if (s->opt.plant == PLANT_SKIP_PAYLOAD && chance(s, 250))
            return true;
        return payload_to_state(s, a);
    case COX_ACT_ARCHIVE:
        return to_state(s, COX_STORE_ARCHIVE, archive, a->u.archive.root, a->u.archive.bytes);
    case COX_ACT_SAVE:
        if (s->opt.plant == PLANT_MAP_PAGE && a->u.save.key.kind == KIND_MAP_PAGE && chance(s, 250))
            return true;
        return to_state(s, COX_STORE_SAVE, a->u.save.key, a->u.save.applied_seq, a->u.save.bytes);
    case COX_ACT_FORGET:
        return to_state(s, COX_STORE_FORGET, a->u.save.key, 0, cox_slice(NULL, 0));
    case COX_ACT_TRUNCATE:
        seq = s->opt.plant == PLANT_STALE_PAGE ? s->store.durable_seq : a->u.truncate.seq;
        return to_state(s, COX_STORE_TRUNCATE, (struct cox_entity_key){ 0 }, seq, cox_slice(NULL, 0));
    case COX_ACT_EVALUATE:
        evaluate_start(s, &a->u.evaluate);
        return true;
    case COX_ACT_ALARM:
        trace(s, "coxd: alarm: %s", a->u.alarm.text);
        return true;
    case COX_ACT_CHANGED:
    case COX_ACT_INDEX:
    case COX_ACT_RELEASE:
    case COX_ACT_FENCED: /* nobody spends but by results */
    case COX_ACT_EXPECT:
    case COX_ACT_ASIDE: /* nothing is quarantined here */
        return true;
    case COX_ACT_STORE_SLEEPER:
        return s->opt.plant == PLANT_SLEEPER && chance(s, 250) ? true : store_sleeper(s, a);
    case COX_ACT_LOAD:
        load_start(s, a->u.load.sleeper);
        return true;
    case COX_ACT_COMPILE:
        compile_start(s, &a->u.compile);
        return true;
    case COX_ACT_COMPOSE:
        compose_start(s, &a->u.compose);
        return true;
    case COX_ACT_FETCH:
        fetch_start(s, a->u.fetch.ticket, &a->u.fetch.hash);
        return true;
    case COX_ACT_TOOLS:
    case COX_ACT_DECIDE:
        fail(s, "the engine runs an agent, and no scene has one");
        return true;
    case COX_ACT_REPLY:
        audit_action(s, a);
        client_reply(s, &a->u.reply);
        return true;
    case COX_ACT_ASSIGN:
    case COX_ACT_ANSWER:
        audit_action(s, a);
        session_act(s, a);
        return true;
    case COX_ACT_CANCEL:
    case COX_ACT_CLOSE:
    case COX_ACT_DRAIN:
        session_act(s, a);
        return true;
    }
    return true;
}

/* Does it crash after this effect? What has left by then is on its way, or not even that. */
static bool dies_here(struct sim *s)
{
    if (s->coxd.crash_in == 0 || --s->coxd.crash_in > 0 || s->healed)
        return false;
    if (chance(s, 500))
        session_flush(s);
    befell(s, KIND_CRASH_SENDING);
    return true;
}

/* The actions of a turn that are durable. True: it died at one of them. */
static bool release_turn(struct sim *s, struct turn *t, uint64_t durable)
{
    for (; t->next_action < t->fx.n_actions; t->next_action++) {
        const struct cox_action *a = &t->fx.actions[t->next_action];
        if (a->after_seq > durable || !action_do(s, a))
            return false;
        if (dies_here(s))
            return true;
    }
    return false;
}

/* Lets go what is durable, in order. */
static void release(struct sim *s)
{
    struct coxd *d = &s->coxd;
    uint64_t durable = s->store.durable_seq, done = durable;
    if (s->opt.plant == PLANT_EARLY)
        durable = UINT64_MAX;
    bool died = false;
    struct cox_list gone;
    cox_list_init(&gone);
    d->state_full = false;
    while (!cox_list_empty(&d->turns) && !died) {
        struct turn *t = COX_CONTAINER_OF(d->turns.next, struct turn, node);
        died = release_turn(s, t, durable);
        if (!died && t->next_action < t->fx.n_actions) {
            const struct cox_action *a = &t->fx.actions[t->next_action];
            d->state_full = a->after_seq <= durable;
            done = d->state_full ? a->after_seq - 1 : durable;
            break;
        }
        cox_list_remove(&t->node);
        cox_list_push_back(&gone, &t->node);
    }
    if (!died)
        session_flush(s);
    COX_LIST_FOR_EACH (it, &gone) {
        cox_list_remove(it);
        turn_put(s, COX_CONTAINER_OF(it, struct turn, node));
    }
    if (died)
        coxd_crash(s, chance(s, 300));
    else
        client_holds_release(s, s->opt.plant == PLANT_EARLY_VIEW ? UINT64_MAX : done);
}

/* ---- the parts of a turn ---- */

static bool full(const struct sim *s)
{
    return s->coxd.state_full || store_room(s) < ROOM_MIN || s->coxd.n_works >= WORKS_MAX;
}

static size_t read_inbox(struct sim *s)
{
    struct coxd *d = &s->coxd;
    size_t n = 0, max = befalls(s, KIND_CUT_READ, s->cfg.read_cut) ? 1 + rnd(s, 3) : SIZE_MAX;
    for (; n < max && !full(s) && !cox_list_empty(&d->inbox); n++) {
        struct message *m = COX_CONTAINER_OF(d->inbox.next, struct message, node);
        cox_list_remove(&m->node);
        session_receive(s, m);
        message_free(m);
    }
    return n;
}

static void store_events(struct sim *s)
{
    struct state_op *op;
    while ((op = store_poll(s)) != NULL) {
        struct cox_input in = { .kind = COX_IN_ARCHIVED };
        in.u.task.task = op->key.id;
        switch (op->op) {
        case COX_STORE_ARCHIVE:
            coxd_step(s, &in);
            break;
        case COX_STORE_TRUNCATE:
            s->coxd.checkpoint = CHECKPOINT_NONE;
            break;
        case COX_STORE_READ_ARCHIVE:
            client_archived(s, op);
            break;
        default:
            answer_read(s, op);
        }
        state_op_free(op);
    }
}

/* After a time in which nobody was heard, timers wait until what peers said meanwhile has been read. */
static bool timers_wait(struct sim *s, size_t n_events)
{
    struct coxd *d = &s->coxd;
    bool deaf = s->now_ns - d->last_turn_ns > GAP_NS;
    d->last_turn_ns = s->now_ns;
    if (n_events > 0)
        d->last_event_ns = s->now_ns;
    if (deaf || full(s))
        d->settle_until_ns = s->now_ns + SETTLE_NS;
    int64_t left_ns = d->settle_until_ns - s->now_ns;
    bool quiet = s->now_ns - d->last_event_ns >= QUIET_NS && left_ns <= SETTLE_NS - QUIET_NS &&
                 cox_list_empty(&d->inbox);
    if (left_ns <= 0 || quiet)
        d->settle_until_ns = 0;
    return d->settle_until_ns != 0;
}

static void timers(struct sim *s, size_t n_events)
{
    bool wait = timers_wait(s, n_events) && s->opt.plant != PLANT_DEAF;
    if (!wait && s->now_ns >= s->coxd.wake_ns)
        coxd_step(s, &(struct cox_input){ .kind = COX_IN_TIMER });
}

static void checkpoint(struct sim *s)
{
    struct coxd *d = &s->coxd;
    if (d->checkpoint == CHECKPOINT_NONE && d->log_len >= s->cfg.checkpoint_len) {
        d->checkpoint = CHECKPOINT_SAVING;
        d->log_len = 0;
    }
    if (d->checkpoint != CHECKPOINT_SAVING || full(s))
        return;
    struct cox_input in = { .kind = COX_IN_CHECKPOINT };
    in.u.checkpoint.max_bytes = s->cfg.checkpoint_slice;
    coxd_step(s, &in);
    for (size_t i = 0; i < d->cur->fx.n_actions; i++)
        if (d->cur->fx.actions[i].kind == COX_ACT_TRUNCATE)
            d->checkpoint = CHECKPOINT_CUTTING;
}

static void append(struct sim *s)
{
    struct coxd *d = &s->coxd;
    struct cox_effects *fx = &d->cur->fx;
    size_t len = fx->records.len;
    if (fx->n_records == 0 && fx->n_actions == 0)
        return;
    d->log_full =
        fx->n_records > 0 && !store_append(s, fx->first_seq, fx->n_records, &fx->records, &d->inputs);
    if (d->log_full)
        return;
    fx->n_records = 0;
    d->log_len += len;
    cox_list_push_back(&d->turns, &d->cur->node);
    d->cur = turn_get(d);
}

bool coxd_settled(const struct sim *s)
{
    const struct coxd *d = &s->coxd;
    return d->up && cox_list_empty(&d->turns) && d->cur->fx.n_actions + d->cur->fx.n_records == 0 &&
           s->store.durable_seq >= cox_engine_seq(d->engine);
}

static void set_wake(struct sim *s)
{
    struct coxd *d = &s->coxd;
    int64_t at_ns = d->wake_ns;
    if (d->checkpoint == CHECKPOINT_SAVING && !full(s))
        at_ns = s->now_ns;
    else if (full(s) || d->settle_until_ns != 0)
        at_ns = s->now_ns + QUIET_NS;
    if (!cox_list_empty(&d->inbox) && !full(s))
        at_ns = s->now_ns;
    if (at_ns != INT64_MAX)
        event_soon(s, &d->turn_ev, at_ns + between(s, 1, MS / 4));
}

static void turn(struct sim *s, struct event *ev)
{
    struct coxd *d = &s->coxd;
    if (!d->up)
        return;
    if (d->paused_until_ns > s->now_ns) {
        event_at(s, ev, d->paused_until_ns);
        return;
    }
    s->n.turns++;
    if (s->opt.plant == PLANT_DEAF)
        timers(s, 0);
    size_t n = read_inbox(s);
    works_drain(s);
    store_events(s);
    timers(s, n);
    checkpoint(s);
    append(s);
    uint32_t incarnation = d->incarnation;
    release(s);
    if (!d->up || d->incarnation != incarnation)
        return; /* it crashed half way through */
    if (!d->listening && coxd_settled(s)) {
        d->listening = true;
        trace(s, "coxd: listens");
    }
    if (s->n.turns % 64 == 0)
        cox_engine_check(d->engine);
    if (d->leaving && coxd_settled(s) && cox_list_empty(&d->inbox))
        coxd_crash(s, false);
    else
        set_wake(s);
}

/* ---- life and death ---- */

/* The engine's state must be what all records of the log make of an empty one. (rules 1 and 9) */
static void compare_with_log(struct sim *s, const struct cox_engine *e, size_t n_batches, const char *what)
{
    struct cox_engine_config config = { 0 };
    struct cox_engine *genesis = cox_engine_create(&config);
    if (store_replay_all(s, genesis, n_batches) != COX_OK)
        fail(s, "the log cannot be replayed from its beginning");
    if (cox_engine_hash(genesis) != cox_engine_hash(e))
        fail(s, "%s differs from the log replayed from its beginning, at record %llu", what,
             (unsigned long long)cox_engine_seq(genesis));
    s->n.hash_checks++;
    cox_engine_destroy(genesis);
}

void coxd_check_hashes(struct sim *s)
{
    struct coxd *d = &s->coxd;
    if (!d->up || d->cur->fx.n_records > 0)
        return;
    compare_with_log(s, d->engine, s->store.n, "the live state");
    cox_engine_check(d->engine);
}

void coxd_boot(struct sim *s)
{
    struct coxd *d = &s->coxd;
    struct cox_engine_config config = { .seed = rnd(s, UINT64_MAX), .live_steps_max = s->cfg.live_steps_max };
    if (d->up)
        return;
    event_cancel(s, &d->boot_ev);
    d->engine = cox_engine_create(&config);
    enum cox_err err = store_recover(s, d->engine);
    if (err != COX_OK)
        fail(s, "recovery finds the data damaged: %s", cox_err_text(err));
    compare_with_log(s, d->engine, s->store.n, "the recovered state");
    d->up = true;
    d->incarnation++;
    d->listening = d->leaving = false;
    d->wall_ms = 0;
    d->checkpoint = CHECKPOINT_NONE;
    d->log_len = 0;
    d->crash_in = 0;
    d->state_full = d->log_full = false;
    d->last_turn_ns = d->last_event_ns = s->now_ns;
    d->settle_until_ns = d->paused_until_ns = 0;
    d->cur = turn_get(d);
    err = cox_engine_recovered(d->engine, now_of(s), s->store.durable_seq, &d->cur->fx);
    if (err != COX_OK)
        fail(s, "the recovered state does not fit together: %s", cox_err_text(err));
    d->wake_ns = d->cur->fx.wake_mono_ns;
    d->recovered_ns = s->now_ns;
    cox_engine_check(d->engine);
    if (befalls(s, KIND_CRASH_RECOVERING, 100))
        event_at(s, &d->crash_ev, s->now_ns + between(s, 0, 2 * s->cfg.commit_ns));
    trace(s, "coxd: recovered %llu records, of them %llu cut", (unsigned long long)s->store.durable_seq,
          (unsigned long long)s->store.cut_seq);
    coxd_poke(s);
}

static void inbox_free(struct coxd *d)
{
    while (!cox_list_empty(&d->inbox))
        message_free(COX_CONTAINER_OF(d->inbox.next, struct message, node));
}

static void streams_lose_coxd(struct sim *s, bool power_cut)
{
    COX_LIST_FOR_EACH (it, &s->streams) {
        struct stream *st = COX_CONTAINER_OF(it, struct stream, node);
        st->coxd_over = true;
        message_free(st->out);
        st->out = NULL;
        if (st->open && !st->broken)
            stream_break(s, st, between(s, 0, power_cut ? 12 * SECOND : 200 * MS), INT64_MAX);
    }
}

static void forget_all(struct sim *s)
{
    struct coxd *d = &s->coxd;
    works_drop(s);
    turns_free(&d->turns);
    if (d->cur != NULL)
        turn_free(d->cur);
    d->cur = NULL;
    cox_buf_clear(&d->inputs);
    inbox_free(d);
    cox_engine_destroy(d->engine);
    d->engine = NULL;
}

void coxd_crash(struct sim *s, bool power_cut)
{
    struct coxd *d = &s->coxd;
    if (!d->up)
        return;
    coxd_check_hashes(s);
    trace(s, "coxd: %s at record %llu, durable %llu",
          power_cut    ? "power cut"
          : d->leaving ? "left"
                       : "crashed",
          (unsigned long long)cox_engine_seq(d->engine), (unsigned long long)s->store.durable_seq);
    s->n.crashes++;
    d->up = d->listening = false;
    event_cancel(s, &d->turn_ev);
    event_cancel(s, &d->crash_ev);
    forget_all(s);
    store_crash(s, power_cut);
    save_log(s);
    streams_lose_coxd(s, power_cut);
    clients_coxd_gone(s);
    int64_t down_ns = chance(s, 50) ? 100 * SECOND : chance(s, 200) ? 15 * SECOND : 2 * SECOND;
    event_at(s, &d->boot_ev, s->now_ns + between(s, 10 * MS, down_ns));
}

void coxd_leave(struct sim *s)
{
    if (!s->coxd.up || s->coxd.leaving)
        return;
    trace(s, "coxd: asked to stop");
    befell(s, KIND_STOP);
    s->coxd.leaving = true;
    session_reconnect_all(s);
    coxd_poke(s);
}

static void boots(struct sim *s, struct event *ev)
{
    (void)ev;
    coxd_boot(s);
}

static void dies_early(struct sim *s, struct event *ev)
{
    (void)ev;
    coxd_crash(s, chance(s, 300));
}

void coxd_init(struct sim *s)
{
    struct coxd *d = &s->coxd;
    struct cox_list *lists[] = { &d->turns, &d->pool, &d->inbox, &d->works, &d->done, &d->holds };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        cox_list_init(lists[i]);
    event_init(&d->turn_ev, turn);
    event_init(&d->boot_ev, boots);
    event_init(&d->crash_ev, dies_early);
    works_init(s);
    event_at(s, &d->boot_ev, 0);
}

void coxd_fini(struct sim *s)
{
    forget_all(s);
    cox_buf_fini(&s->coxd.inputs);
    turns_free(&s->coxd.pool);
}
