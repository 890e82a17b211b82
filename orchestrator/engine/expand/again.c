/* A program that asked for steps: they run in a frame, then it is called again with what came of them. */
#include "../budget.h"
#include "expand.h"
#include "map.h"

#include "cox/json.h"

#include <string.h>

void again_decide(const struct cox_task *t, uint32_t step, struct record_ended *en,
                  const struct cox_payload *continuation)
{
    const struct step *s = task_step(t, step);
    if (s->x != NULL && s->x->n_continuations >= COX_CONTINUATIONS_MAX) {
        en->next = NEXT_FAIL;
        en->status = COX_ATTEMPT_FAILED;
        en->code = COX_CODE_RESOURCE_EXHAUSTED;
        en->message = cox_slice_str("it asked to be called again too often");
        return;
    }
    if (t->stopping != COX_TASK_NONE || s->flags & STEP_STOPPING) {
        en->next = NEXT_CANCEL;
        return;
    }
    en->next = NEXT_CONTINUE;
    en->output = *continuation;
}

static bool fetch(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct value *v,
                  const struct cox_buf *have)
{
    if (v == NULL || v->payload.kind != COX_PAYLOAD_STORED || have != NULL)
        return false;
    struct evaluation *ev = ask(e, t, step, ASKED_STEPS);
    struct cox_action *a = act(e, COX_ACT_FETCH);
    a->u.fetch.ticket = ev->ticket;
    a->u.fetch.root = t->root->id;
    a->u.fetch.hash = v->payload.hash;
    return true;
}

bool again_needs_fetch(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    const struct expansion *x = task_step(t, step)->x;
    return x->resume != NULL &&
           (fetch(e, t, step, x->asked, x->asked_bytes) || fetch(e, t, step, x->resume, x->resume_bytes));
}

static struct cox_slice bytes_of(const struct value *v, const struct cox_buf *fetched)
{
    if (v == NULL)
        return cox_slice(NULL, 0);
    return v->payload.kind == COX_PAYLOAD_INLINE ? v->payload.bytes : cox_buf_slice(fetched);
}

void again_begin(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct expansion *x = task_step(t, step)->x;
    changed(e, t, step);
    if (t->depth + 1 >= COX_FRAME_DEPTH_MAX) {
        expand_fail(e, t, step, COX_CODE_RESOURCE_EXHAUSTED, cox_slice_str("steps in steps: too deep"));
        return;
    }
    const char *why = budget_refuses_frame(e, t);
    if (why != NULL) {
        expand_fail(e, t, step, COX_CODE_BUDGET_EXHAUSTED, cox_slice_str(why));
        return;
    }
    if (fetch(e, t, step, x->asked, x->asked_bytes))
        return; /* expand_fetched() comes back here */
    struct cox_slice steps, asked = bytes_of(x->asked, x->asked_bytes);
    if (cox_json_kind(asked) != COX_JSON_OBJECT || !cox_json_member(asked, "steps", &steps)) {
        expand_fail(e, t, step, COX_CODE_OUTPUT_INVALID,
                    cox_slice_str("continue: found no `steps`, expected {\"steps\": {...}, \"state\": ...}"));
        return;
    }
    const struct cox_task *of = t;
    while (!of->own_image)
        of = of->parent;
    struct evaluation *ev = ask(e, t, step, ASKED_IMAGE);
    struct cox_act_compile c = { .ticket = ev->ticket, .root = t->root->id, .kind = COX_SOURCE_STEPS };
    c.document.kind = COX_PAYLOAD_INLINE;
    c.document.bytes = cox_slice(cox_arena_dup(&e->fx->arena, steps.data, steps.len), steps.len);
    c.inputs_json = of->doc.inputs_json;
    c.inputs_json.data = cox_arena_dup(&e->fx->arena, c.inputs_json.data, c.inputs_json.len);
    act(e, COX_ACT_COMPILE)->u.compile = c;
}

static void keep_bytes(struct cox_buf **at, struct cox_slice bytes)
{
    if (*at == NULL)
        *at = COX_NEW(struct cox_buf);
    cox_buf_clear(*at);
    cox_buf_append_slice(*at, bytes);
}

void again_frame_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_task *frame,
                       const struct cox_payload *outputs)
{
    struct record r = { .type = RECORD_CONTINUED, .task = t->id, .step = step, .wall_ms = e->now.wall_ms };
    r.u.continued.outputs = *outputs;
    r.u.continued.cpu_us = frame->cpu_us;
    emit(e, &r);
    if (outputs->kind == COX_PAYLOAD_STORED && outputs->bytes.len > 0)
        keep_bytes(&task_step(t, step)->x->resume_bytes, outputs->bytes);
    step_make_ready(e, t, step);
}

bool again_resume(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice *ret)
{
    const struct expansion *x = task_step(t, step)->x;
    struct cox_buf json = { 0 };
    struct cox_slice state;
    *ret = cox_slice(NULL, 0);
    if (x == NULL || x->resume == NULL)
        return false;
    if (!cox_json_member(bytes_of(x->asked, x->asked_bytes), "state", &state) ||
        COX_PLANTED("continuation-forgets"))
        state = cox_slice_str("null");
    cox_buf_append_str(&json, "{\"state\":");
    cox_buf_append_slice(&json, state);
    cox_buf_append_str(&json, ",\"steps\":");
    cox_buf_append_slice(&json, bytes_of(x->resume, x->resume_bytes));
    cox_buf_append_str(&json, "}");
    *ret = cox_slice(cox_arena_dup(&e->fx->arena, json.data, json.len), json.len);
    cox_buf_fini(&json);
    return true;
}

static void fetched(struct cox_engine *e, const struct evaluation *ev, struct cox_slice bytes)
{
    struct cox_task *t = ev->task;
    struct step *s = task_step(t, ev->step);
    s->flags &= (uint8_t)~STEP_EVALUATING;
    if (ev->kind == ASKED_ITEMS) {
        map_fetched(e, ev, bytes);
    } else if (s->x != NULL && s->status == COX_STEP_WAITING && s->x->continuing) {
        keep_bytes(&s->x->asked_bytes, bytes);
        again_begin(e, t, ev->step);
    } else if (s->x != NULL && s->x->resume != NULL && s->status == COX_STEP_READY) {
        bool asked = s->x->asked->payload.kind == COX_PAYLOAD_STORED && s->x->asked_bytes == NULL;
        keep_bytes(asked ? &s->x->asked_bytes : &s->x->resume_bytes, bytes);
        step_place(e, t, ev->step);
    }
}

void expand_fetched(struct cox_engine *e, const struct cox_input *input)
{
    const struct cox_in_fetched *in = &input->u.fetched;
    struct evaluation *ev = cox_map64_remove(&e->evaluations, in->ticket);
    if (ev == NULL)
        return;
    struct cox_task *t = ev->task;
    t->n_evaluations--;
    if (!ev->forgotten)
        fetched(e, ev, in->bytes);
    settle_all(e);
    if (t->archived)
        task_archived(e, t);
    cox_free(ev);
}
