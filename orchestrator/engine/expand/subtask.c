/* task: a frame over the image of a template, compiled with this step's inputs. */
#include "../template.h"
#include "agent.h"
#include "expand.h"

#include <string.h>

/* The revision that was pinned when the frame's task was made. */
static const struct template *pinned(const struct cox_engine *e, const struct cox_task *t,
                                     struct cox_slice ref)
{
    while (!t->own_image)
        t = t->parent;
    for (uint32_t i = 0; t->template_pins != NULL && i < cox_image_n_refs(&t->image); i++)
        if (cox_slice_eq(cox_image_ref(&t->image, i), ref))
            return template_by_revision(e, t->template_pins[i]);
    return NULL;
}

void subtask_compile(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice inputs_json)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    const struct template *tpl = pinned(e, t, call.ref);
    struct cox_buf text = { 0 };
    if (tpl == NULL)
        template_missing(&text, call.ref);
    else if (t->depth + 1 >= COX_FRAME_DEPTH_MAX)
        cox_buf_printf(&text, "tasks in tasks: deeper than %u", COX_FRAME_DEPTH_MAX);
    if (text.len > 0) {
        expand_fail(e, t, step, tpl == NULL ? COX_CODE_INPUT_INVALID : COX_CODE_RESOURCE_EXHAUSTED,
                    cox_buf_slice(&text));
        cox_buf_fini(&text);
        return;
    }
    struct evaluation *ev = ask(e, t, step, ASKED_IMAGE);
    struct cox_act_compile c = { .ticket = ev->ticket, .root = t->root->id, .kind = COX_SOURCE_TEMPLATE };
    struct cox_slice document = template_document(tpl);
    c.document.kind = COX_PAYLOAD_INLINE;
    c.document.bytes = cox_slice(cox_arena_dup(&e->fx->arena, document.data, document.len), document.len);
    if (inputs_json.len == 0)
        inputs_json = cox_slice_str("{}");
    c.inputs_json =
        cox_slice(cox_arena_dup(&e->fx->arena, inputs_json.data, inputs_json.len), inputs_json.len);
    act(e, COX_ACT_COMPILE)->u.compile = c;
}

void subtask_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice inputs_json)
{
    waiting_begins(e, t, step, 0, cox_slice(NULL, 0));
    subtask_compile(e, t, step, inputs_json);
}

/* It had begun, and its frame was not yet opened: what its inputs are is computed again. */
void subtask_restore(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    evaluate_later(e, t, step, call.spec_template, ASKED_INPUTS);
}

bool subtask_open(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_in_compiled *in,
                  enum cox_code *ret_code, struct cox_buf *why)
{
    struct record_frame f = { .item = UINT64_MAX, .image = in->image };
    struct cox_buf pins = { 0 };
    struct cox_slice missing;
    struct cox_image image;
    bool opens = false;
    *ret_code = COX_CODE_INPUT_INVALID;
    if (!in->ok) {
        cox_buf_append_slice(why, in->error);
    } else if (cox_image_open(&image, in->image) != COX_OK) {
        *ret_code = COX_CODE_INTERNAL;
        cox_buf_append_str(why, "the compiled steps are damaged");
    } else if (!templates_resolve(e, cox_slice_str(t->tenant), &image, &pins, &missing)) {
        template_missing(why, missing);
    } else {
        f.pins = cox_buf_slice(&pins);
        frame_open(e, t, step, &f);
        opens = true;
    }
    cox_buf_fini(&pins);
    return opens;
}

static void open_compiled(struct cox_engine *e, struct cox_task *t, uint32_t step,
                          const struct cox_in_compiled *in)
{
    bool continuing = task_step(t, step)->x->continuing;
    struct cox_buf why = { 0 };
    enum cox_code code;
    if (!continuing && step_is_agent(t, step)) {
        plan_compiled(e, t, step, in);
    } else if (!subtask_open(e, t, step, in, &code, &why)) {
        if (continuing && code == COX_CODE_INPUT_INVALID)
            code = COX_CODE_OUTPUT_INVALID;
        expand_fail(e, t, step, code, cox_buf_slice(&why));
    }
    cox_buf_fini(&why);
}

void expand_compiled(struct cox_engine *e, const struct cox_in_compiled *in)
{
    struct evaluation *ev = cox_map64_remove(&e->evaluations, in->ticket);
    if (ev == NULL)
        return;
    struct cox_task *t = ev->task;
    struct step *s = task_step(t, ev->step);
    t->n_evaluations--;
    if (!ev->forgotten)
        s->flags &= (uint8_t)~STEP_EVALUATING;
    bool stopped = ev->forgotten || t->stopping != COX_TASK_NONE || s->flags & STEP_STOPPING ||
                   s->x == NULL || s->x->timed_out;
    if (s->status == COX_STEP_WAITING && !stopped && s->x->child == NULL)
        open_compiled(e, t, ev->step, in);
    settle_all(e);
    if (t->archived)
        task_archived(e, t);
    cox_free(ev);
}
