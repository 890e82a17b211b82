#include "expand.h"
#include "../budget.h"
#include "../sleep.h"
#include "agent.h"

#include "map.h"

#include <string.h>

struct expansion *step_expansion(struct step *s)
{
    if (s->x == NULL) {
        s->x = COX_NEW(struct expansion);
        s->x->step = s;
        cox_heap_node_init(&s->x->timer.node);
        s->x->timer.kind = TIMER_WAITING;
        cox_list_init(&s->x->in_waiters);
    }
    return s->x;
}

static void bytes_drop(struct cox_buf **b)
{
    if (*b != NULL)
        cox_buf_fini(*b);
    cox_free(*b);
    *b = NULL;
}

void expansion_forget_bytes(struct expansion *x)
{
    bytes_drop(&x->asked_bytes);
    bytes_drop(&x->resume_bytes);
}

void expansion_free(struct cox_engine *e, struct step *s)
{
    struct expansion *x = s->x;
    if (x == NULL)
        return;
    map_free(e, x);
    agent_free(x->agent);
    if (e != NULL && e->live)
        timer_clear(e, &x->timer);
    cox_list_remove(&x->in_waiters);
    expansion_forget_bytes(x);
    cox_free(x->detail);
    cox_free(x->asked);
    cox_free(x->resume);
    cox_free(x->errors);
    cox_free(x->artifacts);
    cox_free(x->map_items);
    cox_free(x);
    s->x = NULL;
}

/* ---- the beginning ---- */

bool expand_is_map(const struct cox_task *t, uint32_t step)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    return doc.map != COX_IMAGE_NONE && !(task_step(t, step)->flags & STEP_IN_FALLBACK);
}

void waiting_begins(struct cox_engine *e, struct cox_task *t, uint32_t step, int64_t wake_wall_ms,
                    struct cox_slice detail)
{
    struct record r = { .type = RECORD_WAITING, .task = t->id, .step = step, .wall_ms = e->now.wall_ms };
    r.u.waiting.token = (struct cox_token){ e->meta.epoch, ++e->next_token };
    r.u.waiting.wake_wall_ms = wake_wall_ms;
    r.u.waiting.detail = detail;
    emit(e, &r);
    expand_arm(e, t, step);
    changed(e, t, step);
    task_may_rest(e, t);
}

/* The nearer of its wake-up and its time limit, which for a map is its items' own. */
void expand_arm(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct cox_image_call call;
    int64_t at_ms = s->x->wake_wall_ms > 0 ? s->x->wake_wall_ms : INT64_MAX;
    step_call(t, step, s, &call);
    if (call.timeout_ms > 0 && !expand_is_map(t, step) && !s->x->continuing &&
        s->started_wall_ms + call.timeout_ms < at_ms)
        at_ms = s->started_wall_ms + call.timeout_ms;
    if (at_ms != INT64_MAX)
        timer_set(e, &s->x->timer, mono_after(e, at_ms - e->now.wall_ms));
}

void expand_begin_with(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice value)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    switch (call.kind) {
    case COX_KIND_TASK:
        subtask_begin(e, t, step, value);
        break;
    case COX_KIND_RACE:
        race_begin(e, t, step);
        break;
    case COX_KIND_WAIT:
        wait_begin(e, t, step, value);
        break;
    case COX_KIND_APPROVAL:
        approval_begin(e, t, step, value);
        break;
    default:
        COX_ASSERT(!"a kind that slots run");
    }
}

void expand_begin(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_call call;
    struct frame_values values;
    struct cox_eval_env env;
    struct cox_buf json = { 0 }, error = { 0 };
    step_expansion(task_step(t, step));
    if (expand_is_map(t, step)) {
        map_begin(e, t, step);
        return;
    }
    step_call(t, step, task_step(t, step), &call);
    if (step_is_agent(t, step)) {
        if (task_step(t, step)->x->agent != NULL) /* tried again: it goes on where it was */
            agent_begin(e, t, step, NULL);
        else
            evaluate_later(e, t, step, call.spec_template, ASKED_REQUEST);
        return;
    }
    const char *why = call.kind == COX_KIND_TASK ? budget_refuses_frame(e, t) : NULL;
    if (why != NULL) {
        step_refuse(e, t, step, COX_CODE_BUDGET_EXHAUSTED, cox_slice_str(why));
        return;
    }
    if (call.spec_template != COX_IMAGE_NONE && template_is_large(t, call.spec_template)) {
        evaluate_later(e, t, step, call.spec_template, ASKED_INPUTS);
        return;
    }
    eval_env_init(&env, &values, t, step);
    if (call.spec_template == COX_IMAGE_NONE ||
        cox_eval_template(&t->image, call.spec_template, &env, &json, &error) == COX_OK)
        expand_begin_with(e, t, step, cox_buf_slice(&json));
    else
        step_refuse(e, t, step, COX_CODE_INPUT_INVALID, cox_buf_slice(&error));
    cox_buf_fini(&json);
    cox_buf_fini(&error);
}

/* ---- the end ---- */

void expand_end(struct cox_engine *e, struct cox_task *t, uint32_t step, struct record_ended *en)
{
    struct step *s = task_step(t, step);
    COX_ASSERT(s->status == COX_STEP_WAITING);
    timer_clear(e, &s->x->timer);
    cox_list_remove(&s->x->in_waiters);
    if (s->x->timed_out && en->status != COX_ATTEMPT_SUCCEEDED) {
        en->status = COX_ATTEMPT_TIMED_OUT;
        en->code = COX_CODE_TIMEOUT;
        en->message = cox_slice_str("its `timeout` has passed");
    }
    s->x->timed_out = false;
    en->token = s->token;
    en->next = decide_next(e, t, step, en);
    if (en->next != NEXT_DONE && en->next != NEXT_FAIL)
        en->output.kind = en->errors.kind = COX_PAYLOAD_NONE;
    payload_keep(e, t->root->id, &en->output);
    payload_keep(e, t->root->id, &en->errors);
    step_ended(e, t, step, en);
}

void expand_fail(struct cox_engine *e, struct cox_task *t, uint32_t step, enum cox_code code,
                 struct cox_slice message)
{
    struct record_ended en = { .status = COX_ATTEMPT_FAILED, .code = code };
    en.message = text_cut(message, COX_ERROR_MESSAGE_LEN_MAX);
    expand_end(e, t, step, &en);
}

void expand_end_stopped(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct record_ended en = { .status = COX_ATTEMPT_CANCELLED, .code = COX_CODE_CANCELLED };
    expand_end(e, t, step, &en);
}

void expand_stop(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct cox_image_call call;
    step_call(t, step, s, &call);
    cox_list_remove(&s->x->in_waiters);
    if (step_is_agent(t, step) && !s->x->continuing)
        agent_stop(e, t, step);
    else if (s->x->child != NULL && COX_PLANTED("stopped-subtask-runs-on"))
        expand_end_stopped(e, t, step);
    else if (s->x->child != NULL)
        task_stop(e, s->x->child, COX_TASK_CANCELLED, COX_CODE_CANCELLED, "what it is part of was stopped");
    else if (expand_is_map(t, step) && !s->x->continuing)
        map_stop(e, t, step);
    else if (call.kind == COX_KIND_RACE)
        race_stop(e, t, step);
    else
        expand_end_stopped(e, t, step);
}

void expand_timer(struct cox_engine *e, struct expansion *x)
{
    struct step *s = x->step;
    struct cox_task *t = step_page(s)->task;
    uint32_t step = step_index(s);
    if (x->wake_wall_ms > 0 && e->now.wall_ms >= x->wake_wall_ms) {
        wait_over(e, t, step);
        return;
    }
    struct cox_image_call call;
    step_call(t, step, s, &call);
    if (call.timeout_ms == 0 || e->now.wall_ms < s->started_wall_ms + call.timeout_ms) {
        expand_arm(e, t, step); /* the wall clock stood still meanwhile */
        return;
    }
    x->timed_out = true;
    expand_stop(e, t, step);
}

/* ---- recovery ---- */

void expand_adopt(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct expansion *x = step_expansion(task_step(t, step));
    if (x->frame != 0)
        x->child = cox_map64_get(&e->tasks, x->frame);
    if (x->map_begun)
        map_adopt(e, t, step);
}

void expand_restore(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct expansion *x = s->x;
    struct cox_image_call call;
    if (x->map_begun) {
        map_restore(e, t, step); /* stops by itself */
        return;
    }
    if (s->flags & STEP_STOPPING || t->stopping != COX_TASK_NONE) {
        expand_stop(e, t, step);
        return;
    }
    if (x->continuing) {
        if (x->child == NULL)
            again_begin(e, t, step);
        return;
    }
    if (!COX_PLANTED("wait-not-armed-again"))
        expand_arm(e, t, step);
    step_call(t, step, s, &call);
    if (step_is_agent(t, step))
        agent_go_on(e, t, step);
    else if (call.kind == COX_KIND_TASK && x->child == NULL && !COX_PLANTED("subtask-lost-in-recovery"))
        subtask_restore(e, t, step);
    else if (call.kind == COX_KIND_RACE)
        race_inner_ended(e, t, step);
    else if (call.kind == COX_KIND_WAIT && call.wait == COX_WAIT_SIGNAL)
        wait_listen(e, t, step);
}

/* ---- answers ---- */

void expand_asked(struct cox_engine *e, struct evaluation *ev, const struct cox_input *input)
{
    const struct cox_in_evaluated *in = &input->u.evaluated;
    struct cox_task *t = ev->task;
    struct step *s = task_step(t, ev->step);
    if (ev->kind == ASKED_LIST || ev->kind == ASKED_BATCH || ev->kind == ASKED_OUTPUT) {
        map_asked(e, ev, in);
    } else if (ev->kind == ASKED_TOOLS) {
        agent_equipped(e, ev, in);
    } else if (s->status == COX_STEP_WAITING) {
        if (in->ok)
            subtask_compile(e, t, ev->step, in->value.bytes); /* after recovery: it had begun */
        else
            expand_fail(e, t, ev->step, COX_CODE_INPUT_INVALID, in->error);
    } else if (!in->ok) {
        step_refuse(e, t, ev->step, COX_CODE_INPUT_INVALID, in->error);
    } else if (t->root->paused) {
        return; /* asked again when the task goes on */
    } else if (ev->kind == ASKED_REQUEST) {
        agent_begin(e, t, ev->step, &in->value);
    } else {
        expand_begin_with(e, t, ev->step, in->value.bytes);
    }
}
