/* What the model of a plan has made: steps, run in a frame of their own under the plan's step. */
#include "agent.h"
#include "expand.h"

#include "cox/json.h"

#include <string.h>

#define TOLD_LEN_MAX 4096u /* of what is wrong with a plan */

bool frame_is_plans(const struct cox_task *frame)
{
    return frame->parent != NULL && frame->own_image && frame->parent_item == UINT64_MAX &&
           step_is_agent(frame->parent, frame->parent_step);
}

static struct cox_slice keep(struct cox_engine *e, struct cox_slice s)
{
    return cox_slice(cox_arena_dup(&e->fx->arena, s.data, s.len), s.len);
}

void plan_compile(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice plan)
{
    struct cox_image_call call;
    struct cox_slice allow = cox_slice(NULL, 0);
    const struct cox_task *of = t;
    while (!of->own_image)
        of = of->parent;
    step_call(t, step, task_step(t, step), &call);
    (void)cox_json_member(call.ref, "plan", &allow);
    struct evaluation *ev = ask(e, t, step, ASKED_IMAGE);
    struct cox_act_compile c = { .ticket = ev->ticket, .root = t->root->id, .kind = COX_SOURCE_PLAN };
    c.document = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = keep(e, plan), .size = plan.len };
    c.inputs_json = keep(e, of->doc.inputs_json);
    c.allow_json = COX_PLANTED("plan-without-its-allow-list") ? cox_slice(NULL, 0) : keep(e, allow);
    act(e, COX_ACT_COMPILE)->u.compile = c;
}

/* A turn's call of the model has the address that a step of this name would have. */
static bool has_name_of_turn(const struct cox_image *image, uint32_t turn, struct cox_buf *why)
{
    for (uint32_t i = 1; i <= turn; i++) {
        struct cox_buf text = { 0 };
        cox_buf_printf(&text, "t%u", i);
        uint32_t step = cox_image_find_step(image, cox_buf_slice(&text));
        cox_buf_fini(&text);
        if (step != COX_IMAGE_NONE) {
            cox_buf_printf(why, "steps.t%u: the name is taken, expected another", i);
            return true;
        }
    }
    return false;
}

/* The model is told what is wrong, as often as it may be. */
static void refuse(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_buf *why)
{
    const struct agent *a = task_step(t, step)->x->agent;
    struct cox_image_call call;
    struct cox_slice v;
    struct cox_buf text = { 0 };
    int64_t reasks = COX_TURN_REASKS_DEFAULT;
    step_call(t, step, task_step(t, step), &call);
    if (cox_json_member(call.ref, "reasks", &v))
        (void)cox_json_int(v, &reasks);
    cox_buf_append_str(&text, "the plan cannot be run: ");
    cox_buf_append_slice(&text, cox_buf_slice(why));
    struct cox_slice said = text_cut(cox_buf_slice(&text), TOLD_LEN_MAX);
    if ((int64_t)a->n_reasks < reasks)
        agent_tell(e, t, step, said);
    else
        agent_fail(e, t, step, COX_CODE_OUTPUT_INVALID, said);
    cox_buf_fini(&text);
}

void plan_compiled(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_in_compiled *in)
{
    const struct agent *a = task_step(t, step)->x->agent;
    enum cox_code code = COX_CODE_INPUT_INVALID;
    struct cox_buf why = { 0 };
    struct cox_image image;
    if (!agent_waits(t, step))
        return;
    if (a->n_heard > 0) { /* somebody has said something since: it is asked again */
        agent_tell(e, t, step, cox_slice(NULL, 0));
    } else if (in->ok && cox_image_open(&image, in->image) == COX_OK &&
               has_name_of_turn(&image, a->turn, &why)) {
        refuse(e, t, step, &why);
    } else if (!subtask_open(e, t, step, in, &code, &why)) {
        if (code == COX_CODE_INPUT_INVALID)
            refuse(e, t, step, &why);
        else
            agent_fail(e, t, step, code, cox_buf_slice(&why));
    }
    cox_buf_fini(&why);
    agent_go_on(e, t, step);
}
