/* Steps: from blocked to final. Nothing here recurses: a step that becomes final is put on a work list, and
 * settle_all() looks at its dependants. */
#include "state.h"

#include <string.h>

/*
 *               ┌───────────── retry, requeue, fallback, returned ──┐
 *  BLOCKED ──> READY ──assigned──> RUNNING ──> SUCCEEDED            │
 *     │          │                   ├──> FAILED                    │
 *     ├─skipped──┤                   ├──> CANCELLED                 │
 *     │          └─refused─> FAILED  └──────────────────────────────┘
 *     └─cancelled (both) ─> CANCELLED
 */
#define MAY(s) (1u << COX_STEP_##s)
static const uint32_t step_may_move_to[COX_STEP_STATUS_NR] = {
    [COX_STEP_BLOCKED] = MAY(READY) | MAY(RUNNING) | MAY(SKIPPED) | MAY(FAILED) | MAY(CANCELLED),
    [COX_STEP_READY] = MAY(READY) | MAY(RUNNING) | MAY(SKIPPED) | MAY(FAILED) | MAY(CANCELLED),
    [COX_STEP_RUNNING] = MAY(READY) | MAY(SUCCEEDED) | MAY(FAILED) | MAY(CANCELLED),
};

void step_move(struct cox_task *t, struct step *s, enum cox_step_status to)
{
    COX_ASSERT(step_may_move_to[s->status] & (1u << to));
    t->n_by_status[s->status]--;
    t->n_by_status[to]++;
    s->status = (uint8_t)to;
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
        enum cox_step_status st = task_step_status(t, need);
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

static void env_step(void *user, uint32_t index, struct cox_eval_step *ret)
{
    const struct cox_task *t = user;
    memset(ret, 0, sizeof *ret);
    ret->status = task_step_status(t, index);
    if (t->pages[index / COX_PAGE_STEPS] == NULL)
        return;
    const struct step *s = task_step(t, index);
    if (s->output != NULL && s->output->payload.kind == COX_PAYLOAD_INLINE)
        ret->output_json = s->output->payload.bytes;
    if (ret->status == COX_STEP_FAILED) {
        ret->code = (enum cox_code)s->code;
        ret->message = cox_slice_str(s->message);
    }
}

void eval_env_init(struct cox_eval_env *env, struct cox_task *t, uint32_t step)
{
    memset(env, 0, sizeof *env);
    env->user = t;
    env->step = env_step;
    if (step == COX_IMAGE_NONE)
        return;
    env->success = step_deps_ok(t, step, &env->failure);
    const struct step *s = task_step(t, step);
    if (s->flags & STEP_IN_FALLBACK) {
        env->error_code = (enum cox_code)s->code;
        env->error_message = cox_slice_str(s->message);
    }
}

bool template_is_large(const struct cox_task *t, uint32_t template_index)
{
    struct cox_image_template tpl;
    cox_image_template(&t->image, template_index, &tpl);
    if (tpl.is_const)
        return false;
    uint64_t size = tpl.reads_inputs ? t->doc.inputs_json.len : 0;
    for (uint32_t i = 0; i < tpl.n_steps; i++) {
        uint32_t index = cox_image_template_step(&t->image, template_index, i);
        if (t->pages[index / COX_PAGE_STEPS] == NULL || task_step(t, index)->output == NULL)
            continue;
        const struct cox_payload *p = &task_step(t, index)->output->payload;
        if (p->kind == COX_PAYLOAD_STORED)
            return true;
        size += p->size;
    }
    return size > COX_INLINE_PAYLOAD_LEN_MAX;
}

/* Copies what the template refers to: the task may move on while the compile thread works. */
static const struct cox_eval_input *copy_inputs(struct cox_engine *e, const struct cox_task *t,
                                                uint32_t template_index, uint32_t n)
{
    struct cox_arena *arena = &e->fx->arena;
    struct cox_eval_input *in = cox_arena_alloc(arena, (n > 0 ? n : 1) * sizeof *in);
    for (uint32_t i = 0; i < n; i++) {
        struct cox_eval_step seen;
        uint32_t index = cox_image_template_step(&t->image, template_index, i);
        env_step((void *)(uintptr_t)t, index, &seen);
        in[i] = (struct cox_eval_input){ .step = index, .status = seen.status, .code = seen.code };
        in[i].message =
            cox_slice(cox_arena_dup(arena, seen.message.data, seen.message.len), seen.message.len);
        if (t->pages[index / COX_PAGE_STEPS] == NULL || task_step(t, index)->output == NULL)
            continue;
        in[i].output = task_step(t, index)->output->payload;
        in[i].output.bytes = cox_slice(cox_arena_dup(arena, seen.output_json.data, seen.output_json.len),
                                       seen.output_json.len);
    }
    return in;
}

void evaluate_later(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t template_index,
                    bool is_condition)
{
    struct evaluation *ev = COX_NEW(struct evaluation);
    *ev = (struct evaluation){ ++e->next_ticket, t, step,
                                is_condition ? ASKED_CONDITION : step == COX_IMAGE_NONE ? ASKED_OUTPUTS : ASKED_SPEC };
    cox_map64_set(&e->evaluations, ev->ticket, ev);
    t->n_evaluations++;
    if (step != COX_IMAGE_NONE)
        task_step(t, step)->flags |= STEP_EVALUATING;
    struct cox_eval_env env;
    eval_env_init(&env, t, step);
    struct cox_image_template tpl;
    cox_image_template(&t->image, template_index, &tpl);
    struct cox_act_evaluate x = { .ticket = ev->ticket,
                                  .task = t->id,
                                  .step = step,
                                  .template_index = template_index,
                                  .want = is_condition ? COX_EVAL_CONDITION : step == COX_IMAGE_NONE ? COX_EVAL_VALUE : COX_EVAL_SPEC,
                                  .success = env.success,
                                  .failure = env.failure,
                                  .error_code = env.error_code,
                                  .image = t->image.bytes,
                                  .opened = &t->image,
                                  .n_steps = tpl.n_steps };
    x.error_message = cox_slice(cox_arena_dup(&e->fx->arena, env.error_message.data, env.error_message.len),
                                env.error_message.len);
    x.steps = copy_inputs(e, t, template_index, tpl.n_steps);
    act(e, COX_ACT_EVALUATE)->u.evaluate = x;
}

void step_evaluated(struct cox_engine *e, struct evaluation *ev, const struct cox_in_evaluated *in)
{
    struct cox_task *t = ev->task;
    struct step *s = task_step(t, ev->step);
    s->flags &= (uint8_t)~STEP_EVALUATING;
    if (ev->kind != ASKED_CONDITION)
        e->n_specs_evaluating--;
    if (t->stopping != COX_TASK_NONE || cox_step_status_final((enum cox_step_status)s->status))
        return;
    if (!in->ok) {
        step_refuse(e, t, ev->step, COX_CODE_INPUT_INVALID, in->error);
    } else if (ev->kind != ASKED_CONDITION) {
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
        evaluate_later(e, t, step, condition, true);
        return false;
    }
    struct cox_eval_env env;
    struct cox_buf error = { 0 };
    eval_env_init(&env, t, step);
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
    if (s->status == COX_STEP_RUNNING || s->flags & STEP_EVALUATING || t->stopping != COX_TASK_NONE)
        return;
    bool go, failure;
    if (s->flags & (STEP_OPEN | STEP_IN_FALLBACK) || s->status == COX_STEP_READY) {
        go = true; /* decided before a restart */
    } else if (doc.condition == COX_IMAGE_NONE) {
        go = step_deps_ok(t, step, &failure);
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
    step_call(t, step, s, &call);
    int64_t left_ms = s->ready_wall_ms - e->now.wall_ms;
    if (left_ms > call.max_backoff_ms)
        left_ms = call.max_backoff_ms; /* the host's clock was set back while we were away */
    if (left_ms > 0)
        backoff_start(e, t, step, left_ms);
    else
        step_place(e, t, step);
    changed(e, t, step);
}

void step_place(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct cox_image_call call;
    step_call(t, step, s, &call);
    if (s->spec == NULL && template_is_large(t, call.spec_template)) {
        s->flags |= STEP_UNEVALUATED; /* specs_evaluate_more() takes it from here */
        cox_list_push_back(&e->unevaluated, &s->in_queue);
        return;
    }
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    class_enqueue(e, t->classes[call.class_index], s, doc.priority);
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
        step_call(t, step_index(s), s, &call);
        evaluate_later(e, t, step_index(s), call.spec_template, false);
        e->n_specs_evaluating++;
    }
}

void step_unready(struct cox_engine *e, struct cox_task *t, struct step *s)
{
    if (s->flags & STEP_UNEVALUATED) {
        s->flags &= (uint8_t)~STEP_UNEVALUATED;
        cox_list_remove(&s->in_queue);
    } else if (!cox_list_empty(&s->in_queue)) {
        struct cox_image_call call;
        step_call(t, step_index(s), s, &call);
        class_dequeue(e, t->classes[call.class_index], s);
    }
    spec_drop(e, s);
    if (s->backoff != NULL) {
        timer_clear(e, &s->backoff->timer);
        cox_free(s->backoff);
        s->backoff = NULL;
    }
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
    step_call(t, step, s, &call);
    cox_image_template(&t->image, call.spec_template, &tpl);
    if (tpl.is_const) {
        *ret = tpl.json;
        return true;
    }
    struct cox_eval_env env;
    struct cox_buf json = { 0 }, error = { 0 };
    eval_env_init(&env, t, step);
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
    e->stats.steps_finished[s->status]++;
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
    if (t->stopping != COX_TASK_NONE)
        return; /* what had not begun is cancelled already */
    cox_image_step(&t->image, step, &doc);
    if (task_step_status(t, step) == COX_STEP_FAILED && !doc.allow_failure && t->doc.fail_fast) {
        task_stop(e, t, COX_TASK_FAILED, t->code, t->message);
        return;
    }
    for (uint32_t i = 0; i < doc.n_dependants; i++) {
        uint32_t dependant = cox_image_dependant(&t->image, step, i);
        if (dependant >= t->link_next)
            continue; /* linking will count for itself */
        struct step *d = task_step(t, dependant);
        COX_ASSERT(d->n_waiting > 0);
        if (--d->n_waiting == 0 && !cox_step_status_final((enum cox_step_status)d->status))
            step_consider(e, t, dependant);
    }
}

void settle_all(struct cox_engine *e)
{
    for (size_t i = 0; i < e->n_settled; i++) { /* settling may append */
        struct settled s = e->settled[i];
        settle_one(e, s.task, s.step);
        task_maybe_finish(e, s.task);
    }
    e->n_settled = 0;
}
