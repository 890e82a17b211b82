/* Attempts: one step with one worker, from `assigned` to its end. */
#include "budget.h"
#include "expand/agent.h"
#include "expand/expand.h"
#include "expand/map.h"
#include "gate.h"
#include "hint.h"
#include "route.h"
#include "stats.h"
#include "workspace.h"

#include <string.h>

struct attempt *attempt_new(struct cox_engine *e, struct cox_task *t, uint32_t step, struct worker *w,
                            struct cox_token token)
{
    struct attempt *a = e->free_attempts;
    if (a != NULL)
        e->free_attempts = (struct attempt *)(void *)a->task;
    else
        a = cox_alloc(sizeof *a);
    memset(a, 0, sizeof *a);
    a->task = t;
    a->step_index = step;
    a->step = task_step(t, step);
    a->token = token;
    a->worker = w;
    a->assigned_mono_ns = e->now.mono_ns;
    a->n_gaps = e->n_gaps;
    cox_list_init(&a->in_unstarted);
    cox_heap_node_init(&a->timer.node);
    a->timer.kind = TIMER_ATTEMPT;
    cox_list_push_back(&w->attempts, &a->in_worker);
    w->n_attempts++;
    stats_slot(e, w, 1);
    worker_in_fleet(e, w);
    workspace_enter(e, a);
    e->stats.n_running++;
    return a;
}

/* It is in the worker's hands: its spec no longer waits in the stream. */
void attempt_arrived(struct cox_engine *e, struct attempt *a)
{
    cox_list_remove(&a->in_unstarted);
    a->worker->unstarted_len -= a->spec_len;
    a->spec_len = 0;
    placement_worker_changed(e, a->worker);
}

void attempt_release(struct cox_engine *e, struct attempt *a)
{
    budget_release(e, a);
    workspace_leave(e, a);
    timer_clear(e, &a->timer);
    attempt_arrived(e, a);
    cox_list_remove(&a->in_worker);
    a->worker->n_attempts--;
    stats_slot(e, a->worker, -1);
    worker_in_fleet(e, a->worker);
    e->stats.n_running--;
    if (!COX_PLANTED("resources-not-given-back"))
        resources_give(&a->worker->used, &a->cls->resources);
    route_attempt_over(e, a->cls, a->task, a->worker);
    placement_worker_changed(e, a->worker);
    if (a->step->attempt == a)
        a->step->attempt = NULL;
    a->task = (struct cox_task *)(void *)e->free_attempts;
    e->free_attempts = a;
}

struct cox_ref attempt_ref(const struct attempt *a)
{
    return (struct cox_ref){ a->task->id, a->step_index, a->token };
}

/* It is on its way to the worker: what it takes there. */
void attempt_sent(struct cox_engine *e, struct attempt *a, struct class *cls, size_t spec_len)
{
    a->cls = cls;
    route_attempt_begun(e, cls, a->task, a->worker);
    stats_started(e, a->step);
    cox_list_push_back(&e->unstarted, &a->in_unstarted);
    resources_take(&a->worker->used, &cls->resources);
    a->worker->taken++;
    a->spec_len = spec_len;
    a->worker->unstarted_len += spec_len;
    e->stats.attempts_assigned++;
}

void attempt_reserves(struct attempt *a, const struct reservation *call, uint64_t output_tokens)
{
    a->call = *call;
    a->output_tokens = output_tokens;
    budget_add(a->task, call->reserved);
}

void attempt_assign(struct cox_engine *e, struct cox_task *t, uint32_t step, struct worker *w,
                    struct class *cls, struct cox_slice spec)
{
    struct record r = { .type = RECORD_ASSIGNED, .task = t->id, .step = step, .wall_ms = e->now.wall_ms };
    r.u.assigned.token = (struct cox_token){ e->meta.epoch, ++e->next_token };
    r.u.assigned.worker = w->ref;
    uint64_t output_tokens = 0;
    if (cls->is_model)
        r.u.assigned.call = budget_reservation_of(t, spec, agent_said_elsewhere(t, step), &output_tokens);
    emit(e, &r);
    workspace_begin(e, t, step, w);
    struct attempt *a = attempt_new(e, t, step, w, r.u.assigned.token);
    a->step->attempt = a;
    attempt_sent(e, a, cls, spec.len);
    attempt_reserves(a, &r.u.assigned.call, output_tokens);

    struct cox_act_assign out;
    attempt_describe(e, a, &out);
    out.attempt = a->step->n_attempts;
    out.spec_json = spec;
    again_resume(e, t, step, &out.continuation);
    act(e, COX_ACT_ASSIGN)->u.assign = out;
    hint_expect(e, a);
    changed(e, t, step);
}

static struct cox_slice arena_slice(struct cox_arena *arena, const struct cox_buf *b)
{
    return cox_slice(cox_arena_dup(arena, b->data, b->len), b->len);
}

/* {"name": "path"}, evaluated; small by nature, so here. Empty: none, or its expressions fail. */
static struct cox_slice artifacts_wanted(struct cox_engine *e, const struct cox_task *t, uint32_t step,
                                         uint32_t extras_index)
{
    struct cox_image_extras extras;
    struct frame_values values;
    struct cox_eval_env env;
    struct cox_buf json = { 0 }, error = { 0 };
    cox_image_extras(&t->image, extras_index, &extras);
    if (extras.artifacts == COX_IMAGE_NONE || template_is_large(t, extras.artifacts))
        return cox_slice(NULL, 0);
    eval_env_init(&env, &values, t, step);
    if (cox_eval_template(&t->image, extras.artifacts, &env, &json, &error) != COX_OK)
        cox_buf_clear(&json);
    struct cox_slice out = arena_slice(&e->fx->arena, &json);
    cox_buf_fini(&json);
    cox_buf_fini(&error);
    return out;
}

static struct cox_slice address_in_frame(struct cox_engine *e, const struct cox_task *t, uint32_t step)
{
    struct cox_buf address = { 0 };
    cox_step_address(&address, t, step);
    struct cox_slice out = arena_slice(&e->fx->arena, &address);
    cox_buf_fini(&address);
    return out;
}

void attempt_describe(struct cox_engine *e, const struct attempt *a, struct cox_act_assign *ret)
{
    const struct cox_task *t = a->task, *of = t;
    struct cox_image_step doc;
    struct cox_image_call call;
    cox_image_step(&t->image, a->step_index, &doc);
    step_call(t, a->step_index, a->step, &call);
    /* what a program asks for has its task's bundle, and what a model has planned */
    while (!of->own_image || of->doc.outputs_always || frame_is_plans(of))
        of = of->parent;
    memset(ret, 0, sizeof *ret);
    ret->session = a->worker->session;
    ret->ref = attempt_ref(a);
    ret->root = t->root->id;
    ret->fallback = (a->step->flags & STEP_IN_FALLBACK) != 0;
    ret->address = t->parent == NULL ? doc.name : address_in_frame(e, t, a->step_index);
    ret->handler = cox_slice(a->cls->handler, a->cls->handler_len);
    if (a->cls->is_program)
        ret->version = version_of(t, a->step_index, a->step);
    workspace_describe(e, a->task, a->step_index, a->worker, ret);
    ret->timeout_ms = call.timeout_ms;
    ret->resources = a->cls->resources;
    ret->bundle = of->doc.bundle;
    ret->tenant = cox_slice_str(t->tenant);
    if (!ret->fallback && doc.extras != COX_IMAGE_NONE)
        ret->artifacts = artifacts_wanted(e, t, a->step_index, doc.extras);
    if (a->call.reserved > 0)
        hint_call(e, a, &ret->hint);
}

/* After replay: the step is RUNNING, its worker is expected back. */
struct attempt *attempt_restore(struct cox_engine *e, struct cox_task *t, uint32_t step, struct worker *w)
{
    struct attempt *a = attempt_new(e, t, step, w, task_step(t, step)->token);
    a->step->attempt = a;
    a->cls = route_restore(e, t, step, w);
    if (!COX_PLANTED("restored-attempt-takes-nothing"))
        resources_take(&w->used, &a->cls->resources);
    budget_restore(a);
    gate_restore(e, t, step);
    return a;
}

/* ---- what comes after an end ---- */

/* Backoff before try n + 1: initial * multiplier^(n-1), at most max; then half of it plus a random part of
 * the other half ("equal jitter": spreads a herd, keeps a floor). Integers throughout. */
int64_t backoff_ms(struct cox_engine *e, const struct cox_image_call *call, uint32_t n_tries)
{
    int64_t ms = call->initial_backoff_ms;
    for (uint32_t i = 1; i < n_tries && ms < call->max_backoff_ms; i++)
        ms = ms > INT64_MAX / 1000000 ? call->max_backoff_ms : ms * call->multiplier_milli / 1000;
    if (ms > call->max_backoff_ms)
        ms = call->max_backoff_ms;
    if (ms <= 1)
        return ms;
    return ms - (int64_t)cox_rng_below(&e->rng, (uint64_t)ms / 2 + 1);
}

/* Order of TASK_FORMAT rule 3: losses have a limit of their own; then retry, then fallback, then FAILED. */
enum record_next decide_next(struct cox_engine *e, const struct cox_task *t, uint32_t step,
                             struct record_ended *en)
{
    const struct step *s = task_step(t, step);
    struct cox_image_step doc;
    struct cox_image_call call;
    if (s->flags & STEP_STOPPING &&
        !COX_PLANTED("race-takes-second-winner")) /* whatever it says: a race has one winner */
        return NEXT_CANCEL;
    if (en->status == COX_ATTEMPT_SUCCEEDED)
        return NEXT_DONE;
    if (t->stopping != COX_TASK_NONE)
        return NEXT_CANCEL;
    cox_image_step(&t->image, step, &doc);
    step_call(t, step, s, &call);
    bool lost = en->code == COX_CODE_WORKER_LOST || en->code == COX_CODE_PREEMPTED;
    bool mapped = doc.map != COX_IMAGE_NONE && !(s->flags & STEP_IN_FALLBACK); /* its items were retried */
    if (lost && !mapped && (s->n_losses + 1u < COX_LOSSES_MAX || COX_PLANTED("losses-without-end")))
        return NEXT_REQUEUE;
    if (!lost && !mapped && !(COX_PLANTED("fallback-before-retry") && doc.fallback != COX_IMAGE_NONE) &&
        s->n_tries < call.max_attempts + COX_PLANTED("one-try-too-many") &&
        (call.retry_on & 1u << en->code || COX_PLANTED("retry-on-anything"))) {
        en->retry_wall_ms = e->now.wall_ms + backoff_ms(e, &call, s->n_tries);
        return NEXT_RETRY;
    }
    if (doc.fallback != COX_IMAGE_NONE && !(s->flags & STEP_IN_FALLBACK))
        return NEXT_FALLBACK;
    return NEXT_FAIL;
}

static void keep(struct cox_engine *e, cox_task_id root, struct cox_slice tenant, const struct cox_payload *p)
{
    struct record r = { .type = RECORD_PAYLOAD, .task = root };
    r.u.payload.hash = p->hash;
    r.u.payload.bytes = p->bytes;
    if (!cox_slice_is(tenant, "default") && !COX_PLANTED("value-without-owner"))
        r.u.payload.tenant = tenant;
    emit(e, &r);
    if (COX_PLANTED("value-not-handed-over"))
        return;
    struct cox_action *a = act(e, COX_ACT_PUT_PAYLOAD);
    a->u.payload.hash = p->hash;
    a->u.payload.root = root;
    a->u.payload.tenant = cox_slice(cox_arena_dup(&e->fx->arena, tenant.data, tenant.len), tenant.len);
    a->u.payload.bytes = cox_slice(cox_arena_dup(&e->fx->arena, p->bytes.data, p->bytes.len), p->bytes.len);
}

void payload_keep(struct cox_engine *e, cox_task_id root, const struct cox_payload *p)
{
    if (p->kind == COX_PAYLOAD_STORED)
        keep(e, root, cox_engine_tenant(e, root), p);
}

void payload_keep_for_ever(struct cox_engine *e, struct cox_slice tenant, const struct cox_hash *hash)
{
    keep(e, 0, COX_PLANTED("kept-for-nobody") ? cox_slice(NULL, 0) : tenant,
         &(struct cox_payload){ .kind = COX_PAYLOAD_STORED, .hash = *hash });
}

/* Workspaces leave a worker that is to be left as soon as nobody works in them. */
static void leave_worker(struct cox_engine *e, struct worker *w)
{
    if ((w->draining || w->cordoned) && !w->gone && !cox_list_empty(&w->pinned))
        route_worker_changed(e, w);
}

/* `in` is NULL when no worker said so: it was lost, timed out, did not confirm. */
static void attempt_end(struct cox_engine *e, struct attempt *a, struct record_ended *en,
                        const struct cox_in_result *in)
{
    struct cox_task *t = a->task;
    struct worker *w = a->worker;
    uint32_t step = a->step_index;
    workspace_ended(e, a, in);
    if (a->items_of != NULL) {
        map_attempt_ended(e, a, en, in);
        settle_all(e);
        leave_worker(e, w);
        return;
    }
    en->token = a->token;
    en->next = decide_next(e, t, step, en);
    if (en->next == NEXT_DONE && in != NULL && in->continuation.kind != COX_PAYLOAD_NONE)
        again_decide(t, step, en, &in->continuation);
    if (en->next != NEXT_DONE && en->next != NEXT_FAIL && en->next != NEXT_CONTINUE)
        en->output.kind = COX_PAYLOAD_NONE;
    if (en->next != NEXT_DONE)
        en->artifacts.kind = COX_PAYLOAD_NONE;
    ledger_charge(e, a, in, en->next == NEXT_DONE || en->next == NEXT_CONTINUE);
    payload_keep(e, t->root->id, &en->output);
    payload_keep(e, t->root->id, &en->artifacts);
    for (size_t i = 0; in != NULL && i < in->n_blobs; i++)
        payload_keep(e, t->root->id,
                     &(struct cox_payload){ .kind = COX_PAYLOAD_STORED, .hash = in->blobs[i] });
    attempt_release(e, a);
    step_ended(e, t, step, en);
    settle_all(e);
    leave_worker(e, w);
}

/* Records the end of a step's attempt, whoever ran it, and lets follow what follows. */
void step_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct record_ended *en)
{
    struct record r = {
        .type = RECORD_ATTEMPT_ENDED, .task = t->id, .step = step, .wall_ms = e->now.wall_ms
    };
    r.u.ended = *en;
    if (task_step(t, step)->flags & STEP_EVALUATING)
        evaluations_forget(e, t, step); /* what it began with: the next try asks for itself */
    emit(e, &r);
    gate_leave(e, task_step(t, step));
    if (cox_step_status_final((enum cox_step_status)task_step(t, step)->status))
        step_settle(e, t, step);
    else if (en->next == NEXT_CONTINUE)
        again_begin(e, t, step);
    else
        step_again(e, t, step);
}

/* ---- results ---- */

struct attempt *attempt_find(const struct cox_engine *e, struct cox_ref ref, enum cox_answer *ret_why)
{
    struct cox_task *t = cox_map64_get(&e->tasks, ref.task);
    if (t == NULL || ref.step < t->first || ref.step >= t->first + t->n_steps) {
        *ret_why = COX_ANSWER_UNKNOWN;
        return NULL;
    }
    if (!task_has_step(t, ref.step)) {
        *ret_why = COX_ANSWER_STALE;
        return NULL;
    }
    struct step *s = task_step(t, ref.step);
    if (s->x != NULL && s->x->map != NULL) {
        *ret_why = COX_ANSWER_STALE; /* or a duplicate: which batches have ended is not kept */
        return map_attempt_find(t, ref.step, ref.token);
    }
    if (ref.token.counter != 0 &&
        (cox_token_eq(s->token, ref.token) ||
         (COX_PLANTED("token-counter-only") && s->token.counter == ref.token.counter))) {
        *ret_why = COX_ANSWER_DUPLICATE;
        return s->attempt;
    }
    *ret_why = COX_ANSWER_STALE;
    return NULL;
}

static void answer(struct cox_engine *e, uint32_t session, struct cox_ref ref, enum cox_answer kind)
{
    struct cox_action *a = act(e, COX_ACT_ANSWER);
    a->u.attempt.session = session;
    a->u.attempt.ref = ref;
    a->u.attempt.answer = kind;
}

/* A token is no secret among workers: only who was given the attempt may say how it ended. */
static bool may_report(const struct cox_engine *e, const struct attempt *a, uint32_t session)
{
    return session == a->worker->session_before || worker_by_session(e, session) == a->worker ||
           COX_PLANTED("anybody-reports");
}

void attempt_result(struct cox_engine *e, const struct cox_in_result *in)
{
    enum cox_answer why;
    struct attempt *a = attempt_find(e, in->ref, &why);
    if (a != NULL && !may_report(e, a, in->session)) {
        e->stats.results_stale++;
        answer(e, in->session, in->ref, COX_ANSWER_STALE);
        return;
    }
    if (a == NULL) {
        ledger_late(e, in);
        if (why != COX_ANSWER_DUPLICATE)
            e->stats.results_stale++;
        else if (COX_PLANTED("no-answer-to-duplicate"))
            return;
        answer(e, in->session, in->ref, why);
        return;
    }
    struct record_ended en = { .status = in->status,
                               .code = in->code,
                               .message = text_cut(in->message, COX_ERROR_MESSAGE_LEN_MAX),
                               .output = in->output,
                               .artifacts = in->artifacts,
                               .has_exit_code = in->has_exit_code,
                               .exit_code = in->exit_code,
                               .cpu_us = in->cpu_us };
    histogram_add(&e->stats.run, (int64_t)in->run_us);
    hint_ran(a->cls, in->run_us);
    budget_cpu_used(a->task, in->cpu_us);
    attempt_end(e, a, &en, in);
    answer(e, in->session, in->ref, COX_ANSWER_ACCEPTED);
}

/* Our own limit, past the worker's, which gives each item of a batch its time in turn. */
int64_t timeout_at(const struct cox_engine *e, const struct cox_image_call *call, const struct attempt *a)
{
    return mono_after(e, call->timeout_ms * (a->n > 0 ? a->n : 1) + COX_TIMEOUT_GRACE_MS);
}

void attempt_started(struct cox_engine *e, uint32_t session, struct cox_ref ref)
{
    enum cox_answer why;
    struct attempt *a = attempt_find(e, ref, &why);
    if (a == NULL || a->started || a->worker->session != session)
        return;
    a->started = true;
    attempt_arrived(e, a);
    struct cox_image_call call;
    step_call(a->task, a->step_index, a->step, &call);
    if (call.timeout_ms > 0 && !a->cancelling && !COX_PLANTED("backstop-forgotten"))
        timer_set(e, &a->timer, timeout_at(e, &call, a));
    changed(e, a->task, a->step_index);
}

void attempt_withdraw(struct cox_engine *e, struct attempt *a, bool returned)
{
    struct cox_task *t = a->task;
    uint32_t step = a->step_index;
    if (returned)
        budget_release(e, a); /* nobody was asked */
    if (a->items_of != NULL) {
        map_attempt_withdrawn(e, a, returned);
        return;
    }
    if (t->stopping != COX_TASK_NONE || a->step->flags & STEP_STOPPING) { /* nothing will run it again */
        struct record_ended en = { .status = COX_ATTEMPT_CANCELLED, .code = COX_CODE_CANCELLED };
        attempt_end(e, a, &en, NULL);
        return;
    }
    struct record r = { .type = RECORD_UNASSIGNED, .task = t->id, .step = step, .wall_ms = e->now.wall_ms };
    r.u.unassigned.token = a->token;
    r.u.unassigned.returned = returned;
    ledger_charge(e, a, NULL, false);
    attempt_release(e, a);
    emit(e, &r);
    step_again(e, t, step);
}

void attempt_returned(struct cox_engine *e, uint32_t session, struct cox_ref ref)
{
    enum cox_answer why;
    struct attempt *a = attempt_find(e, ref, &why);
    if (a != NULL && a->worker->session == session && !a->started)
        attempt_withdraw(e, a, true);
}

void attempt_lost(struct cox_engine *e, struct attempt *a)
{
    static const char text[] = "the worker was lost";
    struct record_ended en = { .status = COX_ATTEMPT_LOST,
                               .code = COX_CODE_WORKER_LOST,
                               .message = { (const uint8_t *)text, sizeof text - 1 } };
    e->stats.attempts_lost++;
    attempt_end(e, a, &en, NULL);
}

/* ---- stopping ---- */

static void send_cancel(struct cox_engine *e, uint32_t session, struct cox_ref ref)
{
    struct cox_action *out = act(e, COX_ACT_CANCEL);
    out->u.attempt.session = session;
    out->u.attempt.ref = ref;
}

void attempt_cancel(struct cox_engine *e, struct attempt *a)
{
    if (a->cancelling)
        return;
    a->cancelling = true;
    cox_list_remove(&a->in_unstarted);
    if (!COX_PLANTED("cancel-waits-for-ever"))
        timer_set(e, &a->timer, e->now.mono_ns + COX_START_LIMIT_MS * NS_PER_MS);
    if (a->worker->session != 0)
        send_cancel(e, a->worker->session, attempt_ref(a));
    changed(e, a->task, a->step_index);
}

/* The worker should have reported by now: a timeout it missed, or a cancel it did not confirm. */
void attempt_timer(struct cox_engine *e, struct attempt *a)
{
    struct record_ended en = { 0 };
    if (worker_unheard(e, a->worker)) {
        timer_set(e, &a->timer, e->patience_until_ns);
        return;
    }
    if (a->worker->session != 0 && !a->cancelling)
        send_cancel(e, a->worker->session, attempt_ref(a));
    if (a->cancelling) {
        en.status = COX_ATTEMPT_CANCELLED;
        en.code = COX_CODE_CANCELLED;
        en.message = cox_slice_str("the worker did not confirm in time");
    } else {
        en.status = COX_ATTEMPT_TIMED_OUT;
        en.code = COX_CODE_TIMEOUT;
        en.message = cox_slice_str("still running after its timeout; its worker did not stop it");
    }
    attempt_end(e, a, &en, NULL);
}

/* Assigned, its worker beats, but it was never reported as started: the worker does not have it. The list
 * is in order of assignment and the limit is one constant, so only its head needs a look. */
void attempts_check_unstarted(struct cox_engine *e)
{
    while (!cox_list_empty(&e->unstarted)) {
        struct attempt *a = COX_CONTAINER_OF(e->unstarted.next, struct attempt, in_unstarted);
        if (e->now.mono_ns - a->assigned_mono_ns < COX_START_LIMIT_MS * NS_PER_MS ||
            gap_excuses(e, a->n_gaps))
            return;
        cox_list_remove(&a->in_unstarted);
        if (a->worker->session == 0 || COX_PLANTED("unstarted-forgotten"))
            continue; /* the worker's own liveness decides */
        send_cancel(e, a->worker->session, attempt_ref(a));
        attempt_lost(e, a);
    }
}
