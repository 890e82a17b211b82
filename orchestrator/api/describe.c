/* DescribeTask and GetOutput: one reading each, with a builder. */
#include "internal.h"

#include "../sha256.h"

#include "cox/engine/agent.h"

#include <stdio.h>
#include <string.h>

#define DESCRIBED_LEN_MAX ((size_t)COX_MESSAGE_LEN_MAX - (2u << 20))
#define ENDED_MAX 200u /* of an agent's calls that have ended, shown with the whole task: the last ones */
#define STEP_LEN 64    /* what a described step takes beside its texts, about */

/* The frame that has the step, NULL after saying that there is none, or that it is in another. */
static const struct cox_task *find_step(struct cox_reading *r, const struct cox_engine *e,
                                        const struct cox_task *t, uint32_t *ret_step)
{
    uint64_t item;
    const struct cox_task *frame = cox_engine_find_step(e, t, r->step_name, ret_step, &item);
    char id[COX_TASK_ID_TEXT_MAX];

    if (frame && item == UINT64_MAX)
        return frame;
    if (!frame && cox_reading_ended(r, e, t))
        return NULL;
    cox_task_id_format(r->task, id);
    cox_reading_fail(
        r, COX_RPC_NOT_FOUND, "NO_STEP",
        frame ? "task %s: \"%s\" is an item of a map: the step before the [ has its output and errors"
              : "task %s has no step \"%s\"",
        id, (const char *)(r->shown_name.len > 0 ? r->shown_name : r->step_name).data);
    return NULL;
}

struct description {
    struct cox_reading *reading;
    const struct cox_engine *engine;
    const struct cox_task *root;
    Coxswain__V1__DescribeTaskResponse *message;
    size_t cap;
    bool whole; /* all of the task */
};

static bool add(struct description *d, Coxswain__V1__Step *step)
{
    struct cox_reading *r = d->reading;
    Coxswain__V1__DescribeTaskResponse *m = d->message;

    if (m->n_steps == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 64;
        void *more = cox_arena_alloc(&r->arena, cap * sizeof(*m->steps));
        if (m->n_steps > 0)
            memcpy(more, m->steps, m->n_steps * sizeof(*m->steps));
        m->steps = more;
        d->cap = cap;
    }
    m->steps[m->n_steps++] = step;
    r->shown.len += STEP_LEN;
    if (r->shown.len <= DESCRIBED_LEN_MAX)
        return true;
    cox_reading_fail(r, COX_RPC_RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE",
                     "the description would have more than %zu bytes; name a step", DESCRIBED_LEN_MAX);
    return false;
}

/* Within an ended frame: addresses there begin with what was asked for. */
static void put_whole_address(struct cox_reading *r, Coxswain__V1__Step *step)
{
    struct cox_slice asked = r->shown_name, rest = r->step_name;
    const char *slash = strchr(step->address, '/');
    struct cox_buf text = { 0 };
    char id[COX_TASK_ID_TEXT_MAX];

    if (asked.len == 0 || !slash)
        return;
    cox_task_id_format(r->task, id);
    cox_buf_printf(&text, "%s/%.*s%s", id, (int)(asked.len - rest.len), (const char *)asked.data, slash + 1);
    step->address = cox_show_text(&r->arena, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

static bool add_step(struct description *d, const struct cox_task *t, uint32_t step)
{
    struct cox_task_view v;

    cox_task_view(t, &v);
    Coxswain__V1__Step *shown = cox_show_step(&d->reading->shown, d->engine, t, &v, step, true);

    put_whole_address(d->reading, shown);
    return add(d, shown);
}

/* What an agent has begun that has left the engine. */
static bool add_ended(struct description *d, const struct cox_task *t, uint32_t step)
{
    struct cox_agent_view agent;
    struct cox_task_view v;
    Coxswain__V1__Step *shown;

    if (!cox_agent_view(t, step, &agent))
        return true;
    uint32_t it = d->whole && agent.n_places > ENDED_MAX ? agent.n_places - ENDED_MAX : 0;

    cox_task_view(t, &v);
    while ((shown = cox_show_ended(&d->reading->shown, t, &v, step, &it))) {
        put_whole_address(d->reading, shown);
        if (!add(d, shown))
            return false;
    }
    return true;
}

/* A step, and behind it the steps of the frames under it. */
static bool add_frame(struct description *d, const struct cox_task *t);

static bool add_with_frames(struct description *d, const struct cox_task *t, uint32_t step)
{
    struct cox_step_view view;
    struct cox_task_view own, v;
    const void *it = NULL;
    const struct cox_task *frame;

    if (!add_step(d, t, step) || !add_ended(d, t, step))
        return false;
    cox_step_view(d->engine, t, step, &view);
    if (view.status != COX_STEP_WAITING)
        return true;
    cox_task_view(t, &own);
    bool agent = cox_agent_view(t, step, &(struct cox_agent_view){ 0 });

    while ((frame = cox_engine_next_frame(d->engine, d->root, &it))) {
        cox_task_view(frame, &v);
        if (agent && v.parent_item != UINT64_MAX && cox_task_status_final(v.status))
            continue; /* the agent has told of it */
        if (v.parent == own.id && v.parent_step == step && !add_frame(d, frame))
            return false;
    }
    return true;
}

static bool add_frame(struct description *d, const struct cox_task *t)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        if (!add_with_frames(d, t, i))
            return false;
    }
    return true;
}

static void build_description(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t)
{
    struct description d = { .reading = r, .engine = e, .root = t, .whole = r->step_name.len == 0 };
    uint32_t step;

    if (r->message) { /* the task was shown, its step is in this frame */
        d.message = (Coxswain__V1__DescribeTaskResponse *)(uintptr_t)r->message;
    } else {
        d.message = cox_arena_alloc(&r->arena, sizeof(*d.message));
        coxswain__v1__describe_task_response__init(d.message);
        d.message->task = cox_show_task(&r->shown, e, t, true);
        r->message = &d.message->base;
    }
    if (r->step_name.len > 0 || r->shown_name.len > 0) {
        const struct cox_task *frame = find_step(r, e, t, &step);
        if (frame)
            (void)add_with_frames(&d, frame, step);
    } else {
        (void)add_frame(&d, t);
    }
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
    if (r->step_name.len == 0 && r->shown_name.len == 0) {
        build_task_outputs(r, &v, &m->json);
        return;
    }
    const struct cox_task *frame = find_step(r, e, t, &index);
    if (!frame)
        return;
    cox_step_view(e, frame, index, &step);
    if (cox_step_status_final(step.status))
        cox_show_payload(&r->shown, &step.output, &m->json);
    else
        cox_reading_fail(r, COX_RPC_FAILED_PRECONDITION, "NOT_ENDED", "step %s has not ended: it is %s",
                         (const char *)(r->shown_name.len > 0 ? r->shown_name : r->step_name).data,
                         cox_step_status_text(step.status));
}

/* What does not fit one answer is a blob, and read as one. */
static void build_bounded_output(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t)
{
    char name[COX_HASH_TEXT_MAX], reference[COX_HASH_TEXT_MAX + 64];

    build_output(r, e, t);
    if (r->error || !r->shown.wanted || r->shown.len <= DESCRIBED_LEN_MAX)
        return;
    Coxswain__V1__GetOutputResponse *m = (Coxswain__V1__GetOutputResponse *)r->message;

    cox_hash_format(&r->shown.wanted->fetch.hash, name);
    r->shown.wanted = NULL;
    int len = snprintf(reference, sizeof(reference), "{\"$blob\":\"%s\",\"size\":%zu}", name, r->shown.len);

    m->blob = cox_show_text(&r->arena, cox_slice_str(name));
    m->json.data = (uint8_t *)cox_show_text(&r->arena, cox_slice(reference, (size_t)len));
    m->json.len = (size_t)len;
}

void cox_api_get_output(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetOutputRequest *m = (const Coxswain__V1__GetOutputRequest *)message;
    struct cox_reading *r = cox_reading_create(user, call, m->id);

    if (!r)
        return;
    struct cox_slice name = cox_slice_str(m->step);

    r->step_name = cox_slice(cox_show_text(&r->arena, name), name.len);
    r->build = build_bounded_output;
    cox_reading_start(r);
}
