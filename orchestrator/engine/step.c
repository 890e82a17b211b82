/* Steps: from blocked to final. Nothing here recurses: a step that becomes final is put on a work list, and
 * settle_all() looks at its dependants. */
#include "budget.h"
#include "expand/agent.h"
#include "expand/expand.h"
#include "expand/map.h"
#include "gate.h"
#include "route.h"
#include "sleep.h"
#include "stats.h"
#include "workspace.h"

#include <string.h>

/*
 *               ┌───────────── retry, requeue, fallback, returned ──┐
 *  BLOCKED ──> READY ──assigned──> RUNNING ──> SUCCEEDED            │
 *     │          │                   ├──> FAILED                    │
 *     ├─skipped──┤                   ├──> CANCELLED                 │
 *     │          └─refused─> FAILED  └──────────────────────────────┘
 *     └─cancelled (both) ─> CANCELLED
 *
 *  WAITING stands where RUNNING does for steps that no slot runs, and for a program that will be called
 * again.
 */
#define MAY(s) (1u << COX_STEP_##s)
static const uint32_t step_may_move_to[COX_STEP_STATUS_NR] = {
    [COX_STEP_BLOCKED] =
        MAY(READY) | MAY(RUNNING) | MAY(WAITING) | MAY(SKIPPED) | MAY(FAILED) | MAY(CANCELLED),
    [COX_STEP_READY] = MAY(READY) | MAY(RUNNING) | MAY(WAITING) | MAY(SKIPPED) | MAY(FAILED) | MAY(CANCELLED),
    [COX_STEP_RUNNING] = MAY(READY) | MAY(WAITING) | MAY(SUCCEEDED) | MAY(FAILED) | MAY(CANCELLED),
    [COX_STEP_WAITING] = MAY(READY) | MAY(SUCCEEDED) | MAY(FAILED) | MAY(CANCELLED),
};

bool step_may_move(enum cox_step_status from, enum cox_step_status to)
{
    return step_may_move_to[from] & (1u << to);
}

void step_move(struct cox_task *t, struct step *s, enum cox_step_status to)
{
    COX_ASSERT(step_may_move((enum cox_step_status)s->status, to));
    t->n_by_status[s->status]--;
    t->n_by_status[to]++;
    s->status = (uint8_t)to;
}

void step_reset(struct cox_task *t, struct step *s)
{
    t->n_by_status[s->status]--;
    t->n_by_status[COX_STEP_BLOCKED]++;
    s->status = COX_STEP_BLOCKED;
    s->token = (struct cox_token){ 0, 0 };
    s->attempt_status = COX_ATTEMPT_NONE;
    s->started_wall_ms = s->finished_wall_ms = s->ready_wall_ms = 0;
    s->cpu_us = 0;
    s->flags = 0;
    s->n_tries = 0;
    s->n_losses = 0;
    s->code = COX_CODE_NONE;
    cox_free(s->message);
    s->message = NULL;
    cox_free(s->output);
    s->output = NULL;
    expansion_free(NULL, s);
    files_uproot(s, true);
}

struct value *value_make(const struct cox_payload *p)
{
    if (p->kind == COX_PAYLOAD_NONE)
        return NULL;
    size_t len = p->kind == COX_PAYLOAD_INLINE ? p->bytes.len : 0;
    struct value *v = cox_alloc(sizeof *v + len);
    v->payload = *p;
    v->payload.bytes = cox_slice(v + 1, len);
    if (len > 0)
        memcpy(v + 1, p->bytes.data, len);
    return v;
}

/* ---- what a step is to run ---- */

void step_call(const struct cox_task *t, uint32_t step, const struct step *s, struct cox_image_call *ret)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    if (doc.call == COX_IMAGE_NONE && !(s->flags & STEP_IN_FALLBACK))
        cox_image_step(&t->image, step + 1, &doc); /* a map over a kind that no slot runs: its body's */
    cox_image_call(&t->image, s->flags & STEP_IN_FALLBACK ? doc.fallback : doc.call, ret);
}

bool step_deps_ok(const struct cox_task *t, uint32_t step, bool *ret_failure)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    bool ok = true;
    *ret_failure = false;
    for (uint32_t i = 0; i < doc.n_needs; i++) {
        uint32_t need = cox_image_need(&t->image, step, i);
        enum cox_step_status st = task_step_status(frame_of(t, need), need);
        if (st == COX_STEP_SUCCEEDED)
            continue;
        struct cox_image_step dep;
        cox_image_step(&t->image, need, &dep);
        if (st == COX_STEP_FAILED && dep.allow_failure)
            continue;
        ok = false;
        if (st == COX_STEP_FAILED)
            *ret_failure = true;
    }
    return ok;
}

/* ---- evaluation: small values here, large ones on the compile thread ---- */

const struct cox_task *frame_of(const struct cox_task *t, uint32_t step)
{
    while (!task_contains(t, step)) /* a frame over a range sees the steps around it */
        t = t->parent;
    return t;
}

static struct cox_slice inline_bytes(const struct value *v)
{
    return v != NULL && v->payload.kind == COX_PAYLOAD_INLINE ? v->payload.bytes : cox_slice(NULL, 0);
}

static const struct step *seen_step(const struct cox_task *t, uint32_t index)
{
    t = frame_of(t, index);
    return task_has_step(t, index) ? task_step(t, index) : NULL;
}

static void env_step(void *user, uint32_t index, struct cox_eval_step *ret)
{
    const struct frame_values *values = user;
    const struct step *s = seen_step(values->task, index);
    memset(ret, 0, sizeof *ret);
    ret->status = s != NULL ? (enum cox_step_status)s->status : COX_STEP_BLOCKED;
    if (s == NULL)
        return;
    ret->output_json = inline_bytes(s->output);
    if (s->x != NULL) {
        ret->errors_json = inline_bytes(s->x->errors);
        ret->artifacts_json = inline_bytes(s->x->artifacts);
    }
    if (ret->status == COX_STEP_FAILED) {
        ret->code = (enum cox_code)s->code;
        ret->message = cox_slice_str(s->message);
    }
}

/* The nearest item: of this frame, or of one it is in over the same image. So with arguments. */
static const struct cox_task *item_frame(const struct cox_task *t)
{
    while ((t->parent_item == UINT64_MAX || frame_is_agents(t)) && !t->own_image)
        t = t->parent;
    return t;
}

static const struct cox_task *args_frame(const struct cox_task *t)
{
    while (t->args == NULL && !t->own_image)
        t = t->parent;
    return t;
}

void eval_env_init(struct cox_eval_env *env, struct frame_values *values, const struct cox_task *t,
                   uint32_t step)
{
    memset(env, 0, sizeof *env);
    values->task = t;
    env->user = values;
    env->step = env_step;
    const struct cox_task *of = item_frame(t);
    env->item_json = inline_bytes(of->item);
    env->item_index = of->parent_item != UINT64_MAX ? of->parent_item : 0;
    env->args_json = inline_bytes(args_frame(t)->args);
    if (step == COX_IMAGE_NONE)
        return;
    env->success = step_deps_ok(t, step, &env->failure);
    const struct step *s = task_step(t, step);
    if (s->flags & STEP_IN_FALLBACK && !COX_PLANTED("fallback-without-error")) {
        env->error_code = (enum cox_code)s->code;
        env->error_message = cox_slice_str(s->message);
    }
}

static uint64_t value_size(const struct value *v, bool *ret_stored)
{
    if (v == NULL)
        return 0;
    *ret_stored |= v->payload.kind == COX_PAYLOAD_STORED;
    return v->payload.size;
}

bool template_is_large(const struct cox_task *t, uint32_t template_index)
{
    struct cox_image_template tpl;
    cox_image_template(&t->image, template_index, &tpl);
    if (tpl.is_const)
        return false;
    bool stored = false;
    uint64_t size = tpl.reads_inputs ? t->doc.inputs_json.len : 0;
    if (tpl.reads_item)
        size += value_size(item_frame(t)->item, &stored) + value_size(args_frame(t)->args, &stored);
    for (uint32_t i = 0; i < tpl.n_steps; i++) {
        const struct step *s = seen_step(t, cox_image_template_step(&t->image, template_index, i));
        if (s == NULL)
            continue;
        size += value_size(s->output, &stored);
        if (s->x != NULL)
            size += value_size(s->x->errors, &stored) + value_size(s->x->artifacts, &stored);
    }
    return stored || size > COX_INLINE_PAYLOAD_LEN_MAX;
}

/* A value as it may be read after the task has moved on. */
static struct cox_payload copy_value(struct cox_arena *arena, const struct value *v)
{
    struct cox_payload p = { .kind = COX_PAYLOAD_NONE };
    if (v == NULL)
        return p;
    p = v->payload;
    if (p.kind == COX_PAYLOAD_INLINE)
        p.bytes = cox_slice(cox_arena_dup(arena, p.bytes.data, p.bytes.len), p.bytes.len);
    return p;
}

/* Copies what the template refers to: the task may move on while the compile thread works. */
static const struct cox_eval_input *copy_inputs(struct cox_engine *e, const struct cox_task *t,
                                                uint32_t template_index, uint32_t n)
{
    struct cox_arena *arena = &e->fx->arena;
    struct frame_values values = { t };
    struct cox_eval_input *in = cox_arena_alloc(arena, (n > 0 ? n : 1) * sizeof *in);
    for (uint32_t i = 0; i < n; i++) {
        struct cox_eval_step seen;
        uint32_t index = cox_image_template_step(&t->image, template_index, i);
        env_step(&values, index, &seen);
        in[i] = (struct cox_eval_input){ .step = index, .status = seen.status, .code = seen.code };
        in[i].message =
            cox_slice(cox_arena_dup(arena, seen.message.data, seen.message.len), seen.message.len);
        const struct step *s = seen_step(t, index);
        if (s == NULL)
            continue;
        in[i].output = copy_value(arena, s->output);
        in[i].errors = copy_value(arena, s->x != NULL ? s->x->errors : NULL);
        in[i].artifacts = copy_value(arena, s->x != NULL ? s->x->artifacts : NULL);
    }
    return in;
}

struct evaluation *ask(struct cox_engine *e, struct cox_task *t, uint32_t step, enum asked_kind kind)
{
    struct evaluation *ev = COX_NEW(struct evaluation);
    *ev = (struct evaluation){ .ticket = ++e->next_ticket, .task = t, .step = step, .kind = kind };
    if (step != COX_IMAGE_NONE)
        ev->token = task_step(t, step)->token;
    cox_map64_set(&e->evaluations, ev->ticket, ev);
    t->n_evaluations++;
    if (step != COX_IMAGE_NONE)
        task_step(t, step)->flags |= STEP_EVALUATING;
    return ev;
}

void evaluations_forget(struct cox_engine *e, const struct cox_task *t, uint32_t step)
{
    size_t it = 0;
    uint64_t ticket;
    void *at;
    while (cox_map64_next(&e->evaluations, &it, &ticket, &at)) {
        struct evaluation *ev = at;
        if (ev->step == COX_IMAGE_NONE)
            continue; /* a task's outputs */
        struct step *s = task_step(ev->task, ev->step);
        if (step != COX_IMAGE_NONE ? ev->task != t || ev->step != step
                                   : ev->task->root != t || s->status != COX_STEP_READY)
            continue;
        ev->forgotten = true;
        s->flags &= (uint8_t)~STEP_EVALUATING;
    }
}

static struct cox_slice arena_copy(struct cox_engine *e, struct cox_slice s)
{
    return cox_slice(cox_arena_dup(&e->fx->arena, s.data, s.len), s.len);
}

static struct cox_act_evaluate *evaluate(struct cox_engine *e, struct cox_task *t, uint32_t step,
                                         uint32_t template_index, struct evaluation *ev)
{
    enum asked_kind kind = ev->kind;
    struct frame_values values;
    struct cox_eval_env env;
    eval_env_init(&env, &values, t, step);
    struct cox_image_template tpl;
    cox_image_template(&t->image, template_index, &tpl);
    struct cox_act_evaluate x = { .ticket = ev->ticket,
                                  .task = t->id,
                                  .step = step,
                                  .template_index = template_index,
                                  .want = kind == ASKED_CONDITION ? COX_EVAL_CONDITION
                                          : kind == ASKED_OUTPUTS ? COX_EVAL_VALUE
                                          : kind == ASKED_REQUEST ? COX_EVAL_VALUE
                                          : kind == ASKED_LIST    ? COX_EVAL_LIST
                                                                  : COX_EVAL_SPEC,
                                  .success = env.success,
                                  .failure = env.failure,
                                  .error_code = env.error_code,
                                  .image = t->image.bytes,
                                  .opened = &t->image,
                                  .n_steps = tpl.n_steps };
    x.error_message = arena_copy(e, env.error_message);
    x.item_json = arena_copy(e, env.item_json);
    x.item_index = env.item_index;
    x.args_json = arena_copy(e, env.args_json);
    x.steps = copy_inputs(e, t, template_index, tpl.n_steps);
    struct cox_action *a = act(e, COX_ACT_EVALUATE);
    a->u.evaluate = x;
    return &a->u.evaluate;
}

void evaluate_later(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t template_index,
                    enum asked_kind kind)
{
    evaluate(e, t, step, template_index, ask(e, t, step, kind));
}

void evaluate_item_later(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t template_index,
                         uint32_t item, struct cox_slice item_json)
{
    struct evaluation *ev = ask(e, t, step, ASKED_BATCH);
    ev->item = item;
    struct cox_act_evaluate *x = evaluate(e, t, step, template_index, ev);
    x->item_index = item;
    x->item_json = arena_copy(e, item_json);
}

void step_evaluated(struct cox_engine *e, struct evaluation *ev, const struct cox_input *input)
{
    const struct cox_in_evaluated *in = &input->u.evaluated;
    struct cox_task *t = ev->task;
    struct step *s = task_step(t, ev->step);
    if (ev->kind == ASKED_SPEC || ev->kind == ASKED_BATCH)
        e->n_specs_evaluating--;
    if (ev->forgotten)
        return;
    s->flags &= (uint8_t)~STEP_EVALUATING;
    if (t->stopping != COX_TASK_NONE || s->status == COX_STEP_RUNNING ||
        cox_step_status_final((enum cox_step_status)s->status))
        return;
    if (ev->kind != ASKED_SPEC && ev->kind != ASKED_CONDITION) {
        expand_asked(e, ev, input);
    } else if (!in->ok) {
        step_refuse(e, t, ev->step, COX_CODE_INPUT_INVALID, in->error);
    } else if (ev->kind == ASKED_SPEC) {
        s->spec = COX_NEW(struct cox_buf);
        cox_buf_append_slice(s->spec, in->value.bytes);
        e->spec_len_held += s->spec->len;
        step_make_ready(e, t, ev->step);
    } else if (cox_slice_is(in->value.bytes, "true")) {
        emit(e, &(struct record){ .type = RECORD_STEP_OPENED, .task = t->id, .step = ev->step });
        step_make_ready(e, t, ev->step);
    } else {
        step_skip(e, t, ev->step);
    }
}

/* ---- the way to READY ---- */

void step_skip(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    emit(e, &(struct record){
                .type = RECORD_STEP_SKIPPED, .task = t->id, .step = step, .wall_ms = e->now.wall_ms });
    step_settle(e, t, step);
}

/* Evaluates an `if` here. False: the answer comes later, or the step was refused. */
static bool condition_known(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t condition,
                            bool *ret_true)
{
    if (template_is_large(t, condition)) {
        evaluate_later(e, t, step, condition, ASKED_CONDITION);
        return false;
    }
    struct frame_values values;
    struct cox_eval_env env;
    struct cox_buf error = { 0 };
    eval_env_init(&env, &values, t, step);
    enum cox_err err = cox_eval_condition(&t->image, condition, &env, ret_true, &error);
    if (err != COX_OK)
        step_refuse(e, t, step, COX_CODE_INPUT_INVALID, cox_buf_slice(&error));
    cox_buf_fini(&error);
    return err == COX_OK;
}

void step_consider(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    if (s->status == COX_STEP_RUNNING || s->status == COX_STEP_WAITING || s->flags & STEP_EVALUATING ||
        t->stopping != COX_TASK_NONE)
        return;
    bool go, failure;
    if (s->flags & (STEP_OPEN | STEP_IN_FALLBACK) || s->status == COX_STEP_READY) {
        go = true; /* decided before a restart */
    } else if (doc.condition == COX_IMAGE_NONE) {
        go = step_deps_ok(t, step, &failure) || COX_PLANTED("runs-after-a-failure");
    } else if (!condition_known(e, t, step, doc.condition, &go)) {
        return;
    } else if (go) {
        emit(e, &(struct record){ .type = RECORD_STEP_OPENED, .task = t->id, .step = step });
    }
    if (go)
        step_make_ready(e, t, step);
    else
        step_skip(e, t, step);
}

bool step_is_closed(const struct cox_task *t, uint32_t step, const struct step *s)
{
    struct cox_image_step doc;
    if (!t->image.has_inner)
        return false;
    cox_image_step(&t->image, step, &doc);
    return step_is_inner(t, step, &doc) && !(s->flags & STEP_OPEN);
}

/* READY again after an attempt. Inner steps of the one that is over begin anew. */
void step_again(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    for (uint32_t i = task_next_inner(t, step, step); i != COX_IMAGE_NONE; i = task_next_inner(t, step, i)) {
        if (!task_has_step(t, i) || task_step(t, i)->status == COX_STEP_BLOCKED ||
            COX_PLANTED("inner-steps-keep-their-end"))
            continue;
        if (task_step(t, i)->flags & STEP_EVALUATING)
            evaluations_forget(e, t, i);
        emit(e, &(struct record){
                    .type = RECORD_STEP_RESET, .task = t->id, .step = i, .wall_ms = e->now.wall_ms });
    }
    step_make_ready(e, t, step);
}

void step_cancel(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    if (cox_step_status_final((enum cox_step_status)s->status) || s->flags & STEP_STOPPING)
        return;
    step_unready(e, t, s);
    emit(e, &(struct record){
                .type = RECORD_STEP_CANCELLED, .task = t->id, .step = step, .wall_ms = e->now.wall_ms });
    if (s->attempt != NULL)
        attempt_cancel(e, s->attempt);
    else if (s->status == COX_STEP_WAITING)
        expand_stop(e, t, step);
    else
        step_settle(e, t, step);
}

static void backoff_drop(struct cox_engine *e, struct step *s)
{
    if (s->backoff == NULL)
        return;
    timer_clear(e, &s->backoff->timer);
    cox_free(s->backoff);
    s->backoff = NULL;
}

static void backoff_start(struct cox_engine *e, struct cox_task *t, uint32_t step, int64_t left_ms)
{
    struct backoff *b = COX_NEW(struct backoff);
    cox_heap_node_init(&b->timer.node);
    b->timer.kind = TIMER_BACKOFF;
    b->task = t;
    b->step = step;
    task_step(t, step)->backoff = b;
    timer_set(e, &b->timer, mono_after(e, left_ms));
}

void step_make_ready(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    if (s->status != COX_STEP_READY)
        step_move(t, s, COX_STEP_READY); /* derived: that its dependencies ended well is what is durable */
    struct cox_image_call call;
    int64_t left_ms = s->ready_wall_ms - e->now.wall_ms;
    if (left_ms > 0)
        step_call(t, step, s, &call);
    if (left_ms > 0 && left_ms > call.max_backoff_ms)
        left_ms = call.max_backoff_ms; /* the host's clock was set back while we were away */
    backoff_drop(e, s);                /* asked again: one timer is enough */
    if (left_ms > 0)
        backoff_start(e, t, step, left_ms);
    else
        step_place(e, t, step);
    changed(e, t, step);
}

/* Is what it does next something that no slot runs? */
static bool step_expands(const struct cox_task *t, uint32_t step, const struct step *s)
{
    struct cox_image_step doc;
    struct cox_image_call call;
    if (!t->image.expands)
        return false;
    cox_image_step(&t->image, step, &doc);
    if (doc.map != COX_IMAGE_NONE && !(s->flags & STEP_IN_FALLBACK))
        return true;
    step_call(t, step, s, &call);
    return !cox_step_kind_is_leaf(call.kind);
}

void step_place(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    if (t->root->paused && !COX_PLANTED("paused-goes-on"))
        return; /* task_pause() places it when the task goes on */
    if (s->ready_mono_ns == 0)
        s->ready_mono_ns = e->now.mono_ns;
    if (s->spec == NULL && !gate_pass(e, t, step))
        return; /* it comes again; with its input computed, it has passed already */
    step_place_passed(e, t, step);
}

void step_place_passed(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct cox_image_call call;
    if (step_expands(t, step, s)) {
        s->ready_mono_ns = 0;
        expand_begin(e, t, step);
        return;
    }
    if (s->x != NULL && again_needs_fetch(e, t, step))
        return;
    step_call(t, step, s, &call);
    if (s->spec == NULL && template_is_large(t, call.spec_template)) {
        s->flags |= STEP_UNEVALUATED; /* specs_evaluate_more() takes it from here */
        cox_list_push_back(&e->unevaluated, &s->in_queue);
        return;
    }
    route_enqueue_call(e, t, step, &call);
}

static void spec_drop(struct cox_engine *e, struct step *s)
{
    if (s->spec == NULL)
        return;
    e->spec_len_held -= s->spec->len;
    cox_buf_fini(s->spec);
    cox_free(s->spec);
    s->spec = NULL;
}

/* A large input may be megabytes and many steps may be ready: they are computed a few at a time, and no
 * further ahead of the workers than a bound. */
void specs_evaluate_more(struct cox_engine *e)
{
    while (!cox_list_empty(&e->unevaluated) && e->n_specs_evaluating < COX_SPECS_EVALUATING_MAX &&
           e->spec_len_held < COX_SPEC_LEN_HELD_MAX) {
        struct step *s = COX_CONTAINER_OF(e->unevaluated.next, struct step, in_queue);
        struct cox_task *t = step_page(s)->task;
        struct cox_image_call call;
        cox_list_remove(&s->in_queue);
        s->flags &= (uint8_t)~STEP_UNEVALUATED;
        if (s->status == COX_STEP_WAITING) {
            map_prepare(e, s);
            continue;
        }
        step_call(t, step_index(s), s, &call);
        evaluate_later(e, t, step_index(s), call.spec_template, ASKED_SPEC);
        e->n_specs_evaluating++;
    }
}

void step_unready(struct cox_engine *e, struct cox_task *t, struct step *s)
{
    if (budget_unwait(s)) {
        /* nothing else has it */
    } else if (s->flags & STEP_UNEVALUATED) {
        s->flags &= (uint8_t)~STEP_UNEVALUATED;
        cox_list_remove(&s->in_queue);
    } else if (!cox_list_empty(&s->in_queue) && !(s->flags & STEP_GATED)) {
        route_dequeue(e, t, s);
        budget_changed(e, t); /* it may have been woken to take what others wait for */
    }
    if (s->status != COX_STEP_RUNNING && s->status != COX_STEP_WAITING)
        gate_leave(e, s);
    s->ready_mono_ns = 0;
    spec_drop(e, s);
    backoff_drop(e, s);
}

bool step_spec(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice *ret)
{
    struct step *s = task_step(t, step);
    struct cox_image_call call;
    struct cox_image_template tpl;
    if (s->spec != NULL) {
        *ret = cox_slice(cox_arena_dup(&e->fx->arena, s->spec->data, s->spec->len), s->spec->len);
        spec_drop(e, s); /* a retry evaluates anew: it may be megabytes, and many steps run */
        return true;
    }
    if (agent_spec(e, t, step, ret))
        return true;
    step_call(t, step, s, &call);
    cox_image_template(&t->image, call.spec_template, &tpl);
    if (tpl.is_const) {
        *ret = tpl.json;
        return true;
    }
    struct frame_values values;
    struct cox_eval_env env;
    struct cox_buf json = { 0 }, error = { 0 };
    eval_env_init(&env, &values, t, step);
    enum cox_err err = cox_eval_template(&t->image, call.spec_template, &env, &json, &error);
    if (err == COX_OK && json.len > COX_SPEC_LEN_MAX) {
        err = COX_ERR_INVALID;
        cox_buf_printf(&error, "an input of %zu bytes; at most %u fit", json.len, COX_SPEC_LEN_MAX);
    }
    if (err == COX_OK)
        *ret = cox_slice(cox_arena_dup(&e->fx->arena, json.data, json.len), json.len);
    else
        step_refuse(e, t, step, COX_CODE_INPUT_INVALID, cox_buf_slice(&error));
    cox_buf_fini(&json);
    cox_buf_fini(&error);
    return err == COX_OK;
}

void step_refuse(struct cox_engine *e, struct cox_task *t, uint32_t step, enum cox_code code,
                 struct cox_slice message)
{
    struct step *s = task_step(t, step);
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    bool fallback = doc.fallback != COX_IMAGE_NONE && !(s->flags & STEP_IN_FALLBACK);
    struct record r = { .type = RECORD_STEP_REFUSED, .task = t->id, .step = step, .wall_ms = e->now.wall_ms };
    r.u.refused.next = fallback ? NEXT_FALLBACK : NEXT_FAIL;
    r.u.refused.code = code;
    r.u.refused.message = message;
    emit(e, &r);
    spec_drop(e, s);
    gate_leave(e, s);
    budget_changed(e, t);
    if (fallback)
        step_make_ready(e, t, step);
    else
        step_settle(e, t, step);
}

/* ---- final ---- */

void step_settle(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    spec_drop(e, s);
    gate_leave(e, s);
    stats_step_final(e, t, step, (enum cox_step_status)s->status);
    changed(e, t, step);
    if (e->n_settled == e->cap_settled) {
        e->cap_settled = e->cap_settled == 0 ? 256 : e->cap_settled * 2;
        e->settled = cox_realloc(e->settled, e->cap_settled, sizeof e->settled[0]);
    }
    e->settled[e->n_settled++] = (struct settled){ t, step };
}

static void settle_one(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    if (doc.n_inner > 0)
        inner_close(e, t, step);
    if (step_is_inner(t, step, &doc))
        race_inner_ended(e, t, doc.owner);
    if (t->stopping != COX_TASK_NONE || step_is_inner(t, step, &doc))
        return; /* what had not begun is cancelled already */
    if (task_step_status(t, step) == COX_STEP_FAILED && !doc.allow_failure && t->doc.fail_fast &&
        !COX_PLANTED("fail-fast-forgotten")) {
        task_stop(e, t, COX_TASK_FAILED, t->code, t->message);
        return;
    }
    for (uint32_t i = 0; i < doc.n_dependants; i++) {
        uint32_t dependant = cox_image_dependant(&t->image, step, i);
        if (dependant >= t->link_next || !task_is_member(t, dependant))
            continue; /* linking will count for itself */
        struct step *d = task_step(t, dependant);
        COX_ASSERT(d->n_waiting > 0);
        if (--d->n_waiting == 0 && !cox_step_status_final((enum cox_step_status)d->status))
            step_consider(e, t, dependant);
    }
}

void settle_all(struct cox_engine *e)
{
    if (e->settling)
        return; /* what was added is next */
    e->settling = true;
    for (size_t i = 0; i < e->n_settled; i++) { /* settling may append */
        struct settled s = e->settled[i];
        settle_one(e, s.task, s.step);
        task_maybe_finish(e, s.task);
        if (s.task->root->n_by_status[COX_STEP_WAITING] > 0)
            task_may_rest(e, s.task);
    }
    e->n_settled = 0;
    e->settling = false;
}
