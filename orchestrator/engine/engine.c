/* The engine's door: one input in, records and actions out. Everything else in this folder is reached from
 * the one switch below. */
#include "expand/agent.h"
#include "expand/expand.h"
#include "expand/map.h"
#include "gate.h"
#include "quarantine.h"
#include "schedule.h"
#include "sleep.h"
#include "stats.h"
#include "template.h"

#include <string.h>

/* ---- life ---- */

struct cox_engine *cox_engine_create(const struct cox_engine_config *config)
{
    struct cox_engine *e = COX_NEW(struct cox_engine);
    e->config = *config;
    e->sleeper_pool.item_len = sizeof(struct sleeper);
    e->tombstone_pool.item_len = sizeof(struct tombstone);
    cox_rng_init(&e->rng, config->seed);
    entity_init(&e->meta.entity, ENTITY_META, 0, 0);
    struct cox_list *lists[] = { &e->task_list,  &e->linking,
                                 &e->available,  &e->active,
                                 &e->homeless,   &e->fleet,
                                 &e->woken,      &e->idle_classes,
                                 &e->parked,     &e->unstarted,
                                 &e->key_list,   &e->dirty,
                                 &e->saving,     &e->unevaluated,
                                 &e->tombstones, &e->tombstones_saving,
                                 &e->map_pages,  &e->templates_unused,
                                 &e->unequipped, &e->quarantine };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        cox_list_init(lists[i]);
    placement_init(e);
    return e;
}

static void free_attempts(struct cox_engine *e)
{
    for (uint32_t ref = 0; ref < e->n_workers_cap; ref++) {
        struct worker *w = e->workers[ref];
        while (w != NULL && !cox_list_empty(&w->attempts))
            attempt_release(e, COX_CONTAINER_OF(w->attempts.next, struct attempt, in_worker));
    }
    while (e->free_attempts != NULL) {
        struct attempt *a = e->free_attempts;
        e->free_attempts = (struct attempt *)(void *)a->task;
        cox_free(a);
    }
}

static void free_evaluations(struct cox_engine *e)
{
    size_t it = 0;
    uint64_t ticket;
    void *ev;
    while (cox_map64_next(&e->evaluations, &it, &ticket, &ev))
        cox_free(ev);
    cox_map64_fini(&e->evaluations);
}

static void free_keys(struct cox_engine *e)
{
    while (!cox_list_empty(&e->key_list)) {
        struct idem_key *k = COX_CONTAINER_OF(e->key_list.next, struct idem_key, in_keys);
        cox_list_remove(&k->in_keys);
        cox_list_remove(&k->entity.in_dirty);
        cox_free(k->map_key);
        cox_free(k);
    }
    cox_mapb_fini(&e->keys);
}

void cox_engine_destroy(struct cox_engine *e)
{
    if (e == NULL)
        return;
    cox_heap_fini(&e->timers);
    free_attempts(e);
    free_evaluations(e);
    while (!cox_list_empty(&e->task_list)) /* frames before what they are in */
        task_destroy(e, COX_CONTAINER_OF(e->task_list.prev, struct cox_task, in_tasks));
    placement_fini(e);
    free_keys(e);
    for (uint32_t ref = 0; ref < e->n_workers_cap; ref++) {
        if (e->workers[ref] != NULL)
            cox_list_remove(&e->workers[ref]->entity.in_dirty);
        worker_destroy(e->workers[ref]);
    }
    cox_free(e->workers);
    cox_free(e->classes);
    cox_free(e->settled);
    sleepers_free(e);
    templates_free(e);
    schedules_free(e);
    map_pages_free_lost(e);
    cox_pool_fini(&e->tombstone_pool);
    cox_pool_fini(&e->sleeper_pool);
    cox_map64_fini(&e->tasks);
    cox_map64_fini(&e->sessions);
    cox_mapb_fini(&e->workers_by_id);
    cox_mapb_fini(&e->classes_by_key);
    cox_buf_fini(&e->replayed_archives);
    cox_buf_fini(&e->replayed_payloads);
    cox_buf_fini(&e->replayed_claims);
    cox_buf_fini(&e->asleep_rows);
    quarantine_free(e);
    cox_free(e);
}

void cox_effects_reset(struct cox_effects *fx)
{
    cox_buf_clear(&fx->records);
    fx->n_records = 0;
    fx->first_seq = 0;
    fx->n_actions = 0;
    cox_arena_reset(&fx->arena);
}

void cox_effects_fini(struct cox_effects *fx)
{
    cox_buf_fini(&fx->records);
    cox_free(fx->actions);
    cox_arena_fini(&fx->arena);
    memset(fx, 0, sizeof *fx);
}

/* ---- actions and timers ---- */

struct cox_action *act(struct cox_engine *e, enum cox_action_kind kind)
{
    struct cox_effects *fx = e->fx;
    if (fx->n_actions == fx->cap_actions) {
        fx->cap_actions = fx->cap_actions == 0 ? 64 : fx->cap_actions * 2;
        fx->actions = cox_realloc(fx->actions, fx->cap_actions, sizeof fx->actions[0]);
    }
    struct cox_action *a = &fx->actions[fx->n_actions++];
    a->kind = kind;
    a->after_seq = e->seq;
    memset(&a->u, 0, sizeof a->u);
    return a;
}

void changed(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    stats_task(e, t);
    if (t->root->n_watchers == 0)
        return;
    struct cox_action *a = act(e, COX_ACT_CHANGED);
    a->u.changed.task = t->root->id;
    a->u.changed.frame = t->id;
    a->u.changed.step = step;
    a->u.changed.seq = e->seq;
    a->u.changed.final = step == COX_IMAGE_NONE && t == t->root && cox_task_status_final(t->status);
}

void timer_set(struct cox_engine *e, struct timer *t, int64_t mono_ns)
{
    cox_heap_set(&e->timers, &t->node, mono_ns > 0 ? (uint64_t)mono_ns : 0);
}

int64_t mono_after(const struct cox_engine *e, int64_t ms)
{
    return e->now.mono_ns + (ms > 0 ? ms : 0) * NS_PER_MS;
}

void timer_clear(struct cox_engine *e, struct timer *t)
{
    cox_heap_remove(&e->timers, &t->node);
}

static void deadline_passed(struct cox_engine *e, struct cox_task *t)
{
    int64_t from_ms = t->revived_wall_ms > 0 ? t->revived_wall_ms : t->created_wall_ms;
    if (e->now.wall_ms - from_ms < t->doc.deadline_ms)
        task_arm_deadline(e, t); /* the wall clock stood still meanwhile */
    else
        task_stop(e, t, COX_TASK_FAILED, COX_CODE_TIMEOUT, "the task's budget.timeout has passed");
}

static void backoff_over(struct cox_engine *e, struct backoff *b)
{
    struct cox_task *t = b->task;
    uint32_t step = b->step;
    cox_free(b);
    task_step(t, step)->backoff = NULL;
    step_place(e, t, step);
}

static void timer_fire(struct cox_engine *e, struct timer *t)
{
    switch (t->kind) {
    case TIMER_BACKOFF:
        backoff_over(e, COX_CONTAINER_OF(t, struct backoff, timer));
        break;
    case TIMER_ATTEMPT:
        attempt_timer(e, COX_CONTAINER_OF(t, struct attempt, timer));
        break;
    case TIMER_DEADLINE:
        deadline_passed(e, COX_CONTAINER_OF(t, struct cox_task, deadline));
        break;
    case TIMER_WORKER:
        worker_timer(e, COX_CONTAINER_OF(t, struct worker, liveness));
        break;
    case TIMER_WAITING:
        expand_timer(e, COX_CONTAINER_OF(t, struct expansion, timer));
        break;
    case TIMER_MAP:
        map_timer(e, COX_CONTAINER_OF(t, struct map, timer));
        break;
    case TIMER_REST:
        task_rested(e, COX_CONTAINER_OF(t, struct cox_task, rest));
        break;
    case TIMER_SLEEPER:
        sleeper_timer(e, COX_CONTAINER_OF(t, struct sleeper, timer));
        break;
    case TIMER_GATE:
        gate_timer(e, COX_CONTAINER_OF(t, struct gate, timer));
        break;
    default:
        break;
    }
}

#define TIMERS_PER_STEP 1000

static void timers_run(struct cox_engine *e)
{
    for (int n = 0; n < TIMERS_PER_STEP; n++) {
        struct cox_heap_node *node = cox_heap_min(&e->timers);
        if (node == NULL || node->key > (uint64_t)e->now.mono_ns)
            break;
        cox_heap_remove(&e->timers, node);
        timer_fire(e, COX_CONTAINER_OF(node, struct timer, node));
    }
    attempts_check_unstarted(e);
    keys_expire(e);
}

static int64_t next_wake(const struct cox_engine *e)
{
    int64_t wake = INT64_MAX;
    const struct cox_heap_node *node = cox_heap_min(&e->timers);
    if (!cox_list_empty(&e->linking) || placement_goes_on(e))
        return e->now.mono_ns;
    if (node != NULL)
        wake = (int64_t)node->key;
    if (!cox_list_empty(&e->unstarted)) {
        const struct attempt *a = COX_CONTAINER_OF(e->unstarted.next, struct attempt, in_unstarted);
        int64_t at = a->assigned_mono_ns + COX_START_LIMIT_MS * NS_PER_MS;
        at = at < e->patience_until_ns && gap_excuses(e, a->n_gaps) ? e->patience_until_ns : at;
        wake = at < wake ? at : wake;
    }
    if (!cox_list_empty(&e->key_list)) {
        const struct idem_key *k = COX_CONTAINER_OF(e->key_list.next, struct idem_key, in_keys);
        int64_t left_ms = k->wall_ms + COX_IDEMPOTENCY_HOLD_MS - e->now.wall_ms;
        int64_t at = mono_after(e, left_ms);
        wake = at < wake ? at : wake;
    }
    int64_t at = schedules_wake_ns(e);
    return at < wake ? at : wake;
}

/* ---- inputs ---- */

static void task_watch(struct cox_engine *e, cox_task_id id, bool on)
{
    struct cox_task *t = cox_map64_get(&e->tasks, id);
    if (t != NULL && on)
        t->n_watchers++;
    else if (t != NULL && t->n_watchers > 0 && --t->n_watchers == 0)
        task_may_rest(e, t);
}

static void evaluated(struct cox_engine *e, const struct cox_input *input)
{
    const struct cox_in_evaluated *in = &input->u.evaluated;
    struct evaluation *ev = cox_map64_remove(&e->evaluations, in->ticket);
    if (ev == NULL)
        return;
    struct cox_task *t = ev->task;
    t->n_evaluations--;
    if (ev->step != COX_IMAGE_NONE)
        step_evaluated(e, ev, input);
    else
        task_finish_evaluated(e, t, in);
    settle_all(e);
    if (t->archived)
        task_archived(e, t);
    cox_free(ev);
}

static void decided(struct cox_engine *e, const struct cox_in_decided *in)
{
    struct evaluation *ev = cox_map64_remove(&e->evaluations, in->ticket);
    if (ev == NULL)
        return;
    struct cox_task *t = ev->task;
    t->n_evaluations--;
    if (!ev->forgotten) {
        task_step(t, ev->step)->flags &= (uint8_t)~STEP_EVALUATING;
        agent_decided(e, ev, in);
    }
    settle_all(e);
    if (t->archived)
        task_archived(e, t);
    cox_free(ev);
}

static void session_input(struct cox_engine *e, const struct cox_input *in, struct worker *w)
{
    if (w == NULL)
        return; /* a session that was closed meanwhile */
    worker_seen(e, w);
    switch (in->kind) {
    case COX_IN_DETACH:
        worker_detach(e, w);
        break;
    case COX_IN_CREDIT:
        worker_credit(e, w, in->u.credit.granted);
        break;
    case COX_IN_DRAINING:
        worker_draining(e, w);
        break;
    default:
        break;
    }
}

/* What workers say, and what happens to their attempts. */
static bool handle_fleet(struct cox_engine *e, const struct cox_input *in)
{
    switch (in->kind) {
    case COX_IN_ATTACH:
        worker_attach(e, &in->u.attach);
        agents_equip_more(e);
        return true;
    case COX_IN_DETACH:
    case COX_IN_BEAT:
    case COX_IN_DRAINING:
        session_input(e, in, worker_by_session(e, in->u.session.session));
        return true;
    case COX_IN_CREDIT:
        session_input(e, in, worker_by_session(e, in->u.credit.session));
        return true;
    case COX_IN_STARTED:
        attempt_started(e, in->u.attempt.session, in->u.attempt.ref);
        return true;
    case COX_IN_RETURNED:
        attempt_returned(e, in->u.attempt.session, in->u.attempt.ref);
        return true;
    case COX_IN_RESULT:
        attempt_result(e, &in->u.result);
        return true;
    case COX_IN_CALL:
        ledger_call(e, &in->u.call);
        return true;
    case COX_IN_SPEND:
        ledger_spend(e, &in->u.spend);
        return true;
    case COX_IN_POLICY:
        worker_policy(e, &in->u.policy);
        return true;
    default:
        return false;
    }
}

/* What people and programs say to a task. */
static bool handle_word(struct cox_engine *e, const struct cox_input *in)
{
    struct cox_task *t;
    switch (in->kind) {
    case COX_IN_SUBMIT:
        task_submit(e, &in->u.submit);
        return true;
    case COX_IN_CANCEL:
        task_cancel(e, &in->u.cancel);
        return true;
    case COX_IN_WATCH:
    case COX_IN_UNWATCH:
        task_watch(e, in->u.task.task, in->kind == COX_IN_WATCH);
        return true;
    case COX_IN_PAUSE:
    case COX_IN_RESUME:
        task_pause(e, &in->u.of, in->kind == COX_IN_PAUSE);
        return true;
    case COX_IN_WANT:
        t = cox_map64_get(&e->tasks, in->u.of.task);
        reply(e, in->u.of.request, t != NULL ? COX_OK : COX_ERR_NOT_FOUND, t, NULL);
        if (t != NULL)
            task_may_rest(e, t);
        return true;
    case COX_IN_SIGNAL:
        task_signal(e, &in->u.signal);
        return true;
    case COX_IN_APPROVE:
        task_approve(e, &in->u.approve);
        return true;
    case COX_IN_MESSAGE:
        task_message(e, &in->u.message);
        return true;
    case COX_IN_RETRY:
        task_retry(e, &in->u.retry);
        return true;
    case COX_IN_FORK:
        task_fork(e, &in->u.fork);
        return true;
    default:
        return false;
    }
}

/* What was asked of the compile thread and the store. */
static bool handle_answer(struct cox_engine *e, const struct cox_input *in)
{
    struct cox_task *t;
    switch (in->kind) {
    case COX_IN_EVALUATED:
    case COX_IN_COMPOSED:
    case COX_IN_TOOLS:
        evaluated(e, in);
        return true;
    case COX_IN_DECIDED:
        decided(e, &in->u.decided);
        return true;
    case COX_IN_COMPILED:
        expand_compiled(e, &in->u.compiled);
        return true;
    case COX_IN_LOADED:
        sleeper_loaded(e, &in->u.loaded);
        return true;
    case COX_IN_FETCHED:
        expand_fetched(e, in);
        return true;
    case COX_IN_ARCHIVED:
        t = cox_map64_get(&e->tasks, in->u.task.task);
        if (t != NULL)
            task_archived(e, t);
        return true;
    default:
        return false;
    }
}

void engine_handle(struct cox_engine *e, const struct cox_input *in)
{
    if (handle_fleet(e, in) || handle_word(e, in) || handle_answer(e, in))
        return;
    switch (in->kind) {
    case COX_IN_TIMER:
        timers_run(e);
        break;
    case COX_IN_GAP:
        fleet_gap(e, in->u.gap.ns);
        break;
    case COX_IN_CHECKPOINT:
        checkpoint_slice(e, in->u.checkpoint.max_bytes);
        break;
    case COX_IN_TEMPLATE_APPLY:
        template_apply(e, &in->u.template);
        break;
    case COX_IN_TEMPLATE_DELETE:
        template_delete(e, &in->u.template);
        break;
    case COX_IN_SCHEDULE_APPLY:
        schedule_apply(e, &in->u.schedule);
        break;
    case COX_IN_SCHEDULE_DELETE:
        schedule_delete(e, &in->u.schedule);
        break;
    default:
        COX_ASSERT(!"not an input");
    }
}

void cox_engine_step(struct cox_engine *e, const struct cox_input *in, struct cox_effects *fx)
{
    COX_ASSERT(e->live);
    e->fx = fx;
    if (in->now.mono_ns > e->now.mono_ns)
        e->now.mono_ns = in->now.mono_ns;
    if (in->now.wall_ms > e->now.wall_ms)
        e->now.wall_ms = in->now.wall_ms;
    schedules_run(e);
    if (!sleeper_keeps(e, in))
        engine_handle(e, in);
    settle_all(e);
    task_link_some(e);
    placement_dispatch(e);
    specs_evaluate_more(e);
    templates_drop_unused(e);
    fx->wake_mono_ns = next_wake(e);
    e->fx = NULL;
}

/* ---- recovery ---- */

/* The host's clock may have been set back since: time as people see it goes on from the newest record. */
void wall_seen(struct cox_engine *e, int64_t wall_ms)
{
    if (wall_ms > e->now.wall_ms)
        e->now.wall_ms = wall_ms;
}

/* The fork may have ended or left memory since, or be left alone: what it is made of stays its own. */
static void claim_replayed(struct cox_engine *e, const struct record *r)
{
    if (r->type != RECORD_TASK_FORKED || COX_PLANTED("replayed-fork-claims-nothing"))
        return;
    cox_put_u64(&e->replayed_claims, r->task);
    cox_put_u64(&e->replayed_claims, r->u.forked.from);
}

enum cox_err cox_engine_replay(struct cox_engine *e, uint64_t first_seq, uint32_t n, struct cox_slice records)
{
    COX_ASSERT(!e->live);
    struct cox_reader in = cox_reader(records);
    struct record r;
    uint32_t seen = 0;
    for (const uint8_t *from = in.p; record_decode(&in, &r); from = in.p) {
        e->seq = first_seq + seen++;
        wall_seen(e, r.wall_ms);
        place_record(e, &r);
        claim_replayed(e, &r);
        if (quarantine_takes_record(e, &r, cox_slice(from, (size_t)(in.p - from))))
            continue;
        if (!record_fits(e, e->seq, &r))
            return COX_ERR_CORRUPT;
        apply(e, e->seq, &r);
        if (e->misfit)
            return COX_ERR_CORRUPT;
    }
    place_none(e);
    return in.bad || seen != n ? COX_ERR_CORRUPT : COX_OK;
}

void payload_replayed(struct cox_engine *e, const struct record *r)
{
    cox_put_u64(&e->replayed_payloads, r->task);
    cox_buf_append(&e->replayed_payloads, r->u.payload.hash.b, sizeof r->u.payload.hash.b);
    cox_put_bytes(&e->replayed_payloads, r->u.payload.bytes);
    cox_put_bytes(&e->replayed_payloads,
                  r->u.payload.tenant.len > 0
                      ? r->u.payload.tenant
                      : cox_engine_tenant(e, r->task)); /* later it may have ended, and gone */
}

static void hand_over_payloads(struct cox_engine *e)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&e->replayed_payloads));
    while (cox_reader_left(&in) > 0) {
        cox_task_id root = cox_get_u64(&in);
        struct cox_slice hash = cox_get_raw(&in, sizeof(struct cox_hash));
        struct cox_slice bytes = cox_get_bytes(&in), tenant = cox_get_bytes(&in);
        struct cox_action *a = act(e, COX_ACT_PUT_PAYLOAD);
        memcpy(a->u.payload.hash.b, hash.data, sizeof a->u.payload.hash.b);
        a->u.payload.root = root;
        a->u.payload.tenant =
            tenant.len > 0 ? cox_slice(cox_arena_dup(&e->fx->arena, tenant.data, tenant.len), tenant.len)
                           : tenant_dup(e, root);
        a->u.payload.bytes = cox_slice(cox_arena_dup(&e->fx->arena, bytes.data, bytes.len), bytes.len);
    }
    cox_buf_fini(&e->replayed_payloads);
}

/* After the values: who claims must find them. */
static void hand_over_claims(struct cox_engine *e)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&e->replayed_claims));
    while (cox_reader_left(&in) > 0) {
        cox_task_id fork = cox_get_u64(&in);
        task_claim_values(e, fork, cox_get_u64(&in));
    }
    cox_buf_fini(&e->replayed_claims);
}

/* Frames that went while what they were in left memory, or began anew: the state may have lost them. */
static void hand_over_archives(struct cox_engine *e)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&e->replayed_archives));
    while (cox_reader_left(&in) > 0) {
        struct cox_action *a = act(e, COX_ACT_ARCHIVE);
        a->u.archive.task = cox_get_u64(&in);
        a->u.archive.root = cox_get_u64(&in);
        struct cox_slice bytes = cox_get_bytes(&in);
        a->u.archive.bytes = cox_slice(cox_arena_dup(&e->fx->arena, bytes.data, bytes.len), bytes.len);
    }
    cox_buf_fini(&e->replayed_archives);
}

/* Attempts of the log, with the workers that are expected back. */
static void restore_attempt(struct cox_engine *e, struct cox_task *t, const struct step *s)
{
    struct worker *w = worker_by_ref(e, s->worker);
    COX_ASSERT(w != NULL); /* named before its first assignment */
    attempt_restore(e, t, step_index(s), w);
    worker_watch_liveness(e, w);
}

/* What has begun: attempts, frames, items of maps. */
static void restore_begun(struct cox_engine *e, struct cox_task *t)
{
    for (uint32_t no = 0; no < t->n_pages; no++) {
        struct page *p = t->pages[no];
        for (uint32_t i = 0; p != NULL && i < p->n_steps; i++) {
            struct step *s = &p->steps[i];
            if (s->status != COX_STEP_RUNNING && s->status != COX_STEP_WAITING)
                continue;
            place_derive(e, t, STAGE_BEGUN, step_index(s));
            task_acquire_classes(e, t, step_index(s));
            if (s->status == COX_STEP_RUNNING)
                restore_attempt(e, t, s);
            else
                expand_adopt(e, t, step_index(s));
        }
    }
}

static void derive_task(struct cox_engine *e, struct cox_task *t)
{
    place_derive(e, t, STAGE_TASK, t->first);
    task_derive_sums(t);
    templates_hold_task(e, t);
    e->n_live_steps += t->n_steps;
    t->link_next = t->first;
    if (!cox_task_status_final(t->status)) {
        if (frame_is_agents(t))
            agent_frame_back(t);
        restore_begun(e, t);
        return;
    }
    t->link_next = t->first + t->n_steps;
    if (!COX_PLANTED("ended-not-archived-again"))
        task_archive(e, t);
    if (t->parent == NULL)
        task_index(e, t);
}

/* A step that is linked may end at once, and with it its task, and what that has begun is stopped: so all
 * that has begun anywhere was restored before. */
static void link_task(struct cox_engine *e, struct cox_task *t)
{
    if (cox_task_status_final(t->status))
        return;
    if (t->parent == NULL)
        task_index(e, t);
    int64_t all = INT64_MAX;
    task_link(e, t, &all);
    stats_task(e, t);
    task_arm_deadline(e, t);
}

/* Frames are derived before what they are under may go on. */
static void restore_waiting(struct cox_engine *e, struct cox_task *t, uint64_t last_token)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        struct cox_image_step doc;
        if (!task_has_step(t, i))
            continue;
        cox_image_step(&t->image, i, &doc);
        place_derive(e, t, STAGE_WAITING, i);
        const struct step *s = task_step(t, i);
        bool is_new = s->token.epoch == e->meta.epoch && s->token.counter > last_token;
        if (s->status == COX_STEP_WAITING && is_new)
            continue; /* it began as it was linked */
        if (s->status == COX_STEP_WAITING) {
            if (!s->x->continuing) /* between two calls of a program it has no place at a gate */
                gate_restore(e, t, i);
            expand_restore(e, t, i);
        } else if (cox_step_status_final(task_step_status(t, i)) && doc.n_inner > 0 &&
                   !cox_task_status_final(t->status))
            inner_close(e, t, i); /* its losers were being stopped */
    }
    settle_all(e);
    task_maybe_finish(e, t);
    settle_all(e);
    task_may_rest(e, t);
}

void tasks_derive(struct cox_engine *e, struct cox_task **tasks, size_t n)
{
    uint64_t last_token = e->next_token;
    for (size_t i = 0; i < n; i++)
        derive_task(e, tasks[i]);
    for (size_t i = 0; i < n; i++)
        link_task(e, tasks[i]);
    for (size_t i = n; i-- > 0;) /* children first: ids rise */
        restore_waiting(e, tasks[i], last_token);
    place_none(e);
}

static void derive_all(struct cox_engine *e)
{
    size_t n = 0;
    struct cox_task **tasks = cox_calloc(e->tasks.len + 1, sizeof(struct cox_task *));
    COX_LIST_FOR_EACH (it, &e->task_list) {
        struct cox_task *t = COX_CONTAINER_OF(it, struct cox_task, in_tasks);
        frame_attach(e, t);
        if (!t->has_header || (t->parent_id != 0 && t->parent == NULL))
            task_destroy(e, t); /* what a checkpoint has forgotten in part */
        else
            tasks[n++] = t;
    }
    for (size_t i = 0; i < n; i++)
        ledger_recovered(e, tasks[i]);
    tasks_derive(e, tasks, n);
    cox_free(tasks);
}

enum cox_err cox_engine_recovered(struct cox_engine *e, struct cox_now now, uint64_t last_seq,
                                  struct cox_effects *fx)
{
    if ((e->seq > last_seq && last_seq != 0) || !schedules_distinct(e))
        return COX_ERR_CORRUPT;
    e->seq = last_seq;
    e->now.mono_ns = now.mono_ns;
    wall_seen(e, now.wall_ms);
    e->fx = fx;
    e->live = true;
    struct record r = { .type = RECORD_EPOCH, .wall_ms = now.wall_ms };
    r.u.epoch = e->meta.epoch + !COX_PLANTED("epoch-not-raised");
    emit(e, &r);
    e->adoption_until_ns = now.mono_ns + COX_ADOPTION_MS * NS_PER_MS;
    hand_over_payloads(e);
    hand_over_claims(e);
    if (!COX_PLANTED("archives-of-frames-lost"))
        hand_over_archives(e);
    quarantine_recovered(e);
    derive_all(e);
    map_pages_forget_lost(e);
    sleepers_recovered(e);
    schedules_recovered(e);
    placement_dispatch(e);
    specs_evaluate_more(e);
    fx->wake_mono_ns = next_wake(e);
    e->fx = NULL;
    e->config.on_place = NULL;
    return COX_OK;
}

uint64_t cox_engine_seq(const struct cox_engine *e)
{
    return e->seq;
}
