/* DescribeTask and GetOutput: one reading each, with a builder. */
#include "internal.h"

#define DESCRIBED_LEN_MAX ((size_t)COX_MESSAGE_LEN_MAX - (2u << 20))
#define STEP_LEN 64 /* what a described step takes beside its texts, about */

static uint32_t find_step(struct cox_reading *r, const struct cox_image *img)
{
    uint32_t step = cox_image_find_step(img, r->step_name);
    char id[COX_TASK_ID_TEXT_MAX];

    cox_task_id_format(r->task, id);
    if (step == COX_IMAGE_NONE)
        cox_reading_fail(r, COX_RPC_NOT_FOUND, "NO_STEP", "task %s has no step \"%s\"", id,
                         (const char *)r->step_name.data);
    return step;
}

static void build_description(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t)
{
    Coxswain__V1__DescribeTaskResponse *m = cox_arena_alloc(&r->arena, sizeof(*m));
    struct cox_task_view v;
    uint32_t from = 0, to;

    cox_task_view(t, &v);
    to = v.image->n_steps;
    if (r->step_name.len > 0) {
        if ((from = find_step(r, v.image)) == COX_IMAGE_NONE)
            return;
        to = from + 1;
    }
    coxswain__v1__describe_task_response__init(m);
    m->task = cox_show_task(&r->shown, e, t, true);
    m->steps = cox_arena_alloc(&r->arena, (to - from + 1) * sizeof(*m->steps));
    for (uint32_t i = from; i < to; i++) {
        m->steps[m->n_steps++] = cox_show_step(&r->shown, e, t, &v, i, true);
        r->shown.len += STEP_LEN;
        if (r->shown.len > DESCRIBED_LEN_MAX) {
            cox_reading_fail(r, COX_RPC_RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE",
                             "the description of %u steps would have more than %zu bytes; name a step",
                             to - from, DESCRIBED_LEN_MAX);
            return;
        }
    }
    r->message = &m->base;
}

void cox_api_describe_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__DescribeTaskRequest *m = (const Coxswain__V1__DescribeTaskRequest *)message;
    struct cox_reading *r = cox_reading_create(user, call, m->id);

    if (!r)
        return;
    struct cox_slice name = cox_slice_str(m->step);

    r->step_name = cox_slice(cox_show_text(&r->arena, name), name.len);
    r->build = build_description;
    cox_reading_start(r);
}

/* ---- outputs ---- */

static void build_task_outputs(struct cox_reading *r, const struct cox_task_view *v, ProtobufCBinaryData *ret)
{
    static const struct cox_payload empty = { .kind = COX_PAYLOAD_INLINE,
                                              .bytes = { (const uint8_t *)"{}", 2 },
                                              .size = 2 };
    char id[COX_TASK_ID_TEXT_MAX];

    cox_task_id_format(r->task, id);
    if (v->status == COX_TASK_SUCCEEDED)
        cox_show_payload(&r->shown, v->outputs.kind == COX_PAYLOAD_NONE ? &empty : &v->outputs, ret);
    else if (cox_task_status_final(v->status))
        cox_reading_fail(r, COX_RPC_FAILED_PRECONDITION, "NO_OUTPUT",
                         "task %s has no outputs: it is %s: %.*s", id, cox_task_status_text(v->status),
                         (int)v->message.len, (const char *)v->message.data);
    else
        cox_reading_fail(r, COX_RPC_FAILED_PRECONDITION, "NOT_ENDED", "task %s has not ended: it is %s", id,
                         cox_task_status_text(v->status));
}

static void build_output(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t)
{
    Coxswain__V1__GetOutputResponse *m = cox_arena_alloc(&r->arena, sizeof(*m));
    struct cox_task_view v;
    struct cox_step_view step;
    uint32_t index;

    cox_task_view(t, &v);
    coxswain__v1__get_output_response__init(m);
    r->message = &m->base;
    if (r->step_name.len == 0) {
        build_task_outputs(r, &v, &m->json);
        return;
    }
    if ((index = find_step(r, v.image)) == COX_IMAGE_NONE)
        return;
    cox_step_view(e, t, index, &step);
    if (cox_step_status_final(step.status))
        cox_show_payload(&r->shown, &step.output, &m->json);
    else
        cox_reading_fail(r, COX_RPC_FAILED_PRECONDITION, "NOT_ENDED", "step %s has not ended: it is %s",
                         (const char *)r->step_name.data, cox_step_status_text(step.status));
}

void cox_api_get_output(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetOutputRequest *m = (const Coxswain__V1__GetOutputRequest *)message;
    struct cox_reading *r = cox_reading_create(user, call, m->id);

    if (!r)
        return;
    struct cox_slice name = cox_slice_str(m->step);

    r->step_name = cox_slice(cox_show_text(&r->arena, name), name.len);
    r->build = build_output;
    cox_reading_start(r);
}
