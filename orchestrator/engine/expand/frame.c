/* Frames: tasks under a step, over an image of their own or a range of their parent's. */
#include "../budget.h"
#include "agent.h"
#include "expand.h"
#include "map.h"

#include <string.h>

struct cox_task *frame_open(struct cox_engine *e, struct cox_task *t, uint32_t step,
                            const struct record_frame *f)
{
    struct record r = { .type = RECORD_FRAME_OPENED,
                        .task = ((uint64_t)e->config.shard << 48) | (e->meta.last_task_counter + 1),
                        .wall_ms = e->now.wall_ms };
    r.u.frame = *f;
    r.u.frame.parent = t->id;
    r.u.frame.parent_step = step;
    r.u.frame.token = task_step(t, step)->token;
    emit(e, &r);
    struct cox_task *frame = cox_map64_get(&e->tasks, r.task);
    budget_frame_opened(e, frame);
    if (f->item == UINT64_MAX)
        task_step(t, step)->x->child = frame;
    task_begin(e, frame);
    changed(e, t, step);
    return frame;
}

struct cox_task *frame_open_item(struct cox_engine *e, struct cox_task *t, uint32_t step, uint64_t item,
                                 struct cox_slice item_json)
{
    struct record_frame f = { .item = item, .first = step + 1 };
    f.item_json =
        (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = item_json, .size = item_json.len };
    return frame_open(e, t, step, &f);
}

/* ---- the end ---- */

void frame_finish_range(struct cox_engine *e, struct cox_task *frame)
{
    const struct step *entry = task_step(frame, frame->first);
    struct record_finished f = { .status = COX_TASK_FAILED, .code = COX_CODE_CANCELLED };
    if (entry->status == COX_STEP_SUCCEEDED) {
        f.status = COX_TASK_SUCCEEDED;
        f.code = COX_CODE_NONE;
        if (entry->output != NULL)
            f.outputs = entry->output->payload;
    } else if (entry->status == COX_STEP_CANCELLED) {
        f.status = COX_TASK_CANCELLED;
    } else if (entry->code != COX_CODE_NONE) {
        f.code = (enum cox_code)entry->code;
        f.message = cox_slice_str(entry->message);
    }
    task_finish(e, frame, &f);
}

static void subtask_ended(struct cox_engine *e, struct cox_task *t, uint32_t step,
                          const struct cox_task *frame, const struct cox_payload *outputs)
{
    struct record_ended en = { .status = COX_ATTEMPT_SUCCEEDED, .cpu_us = frame->cpu_us };
    struct cox_buf text = { 0 };
    if (frame->status == COX_TASK_SUCCEEDED) {
        en.output = *outputs;
    } else {
        en.status = frame->status == COX_TASK_CANCELLED ? COX_ATTEMPT_CANCELLED : COX_ATTEMPT_FAILED;
        en.code = frame->code != COX_CODE_NONE ? frame->code : COX_CODE_CANCELLED;
        if (frame->error_step != COX_IMAGE_NONE) {
            struct cox_image_step failed;
            cox_image_step(&frame->image, frame->error_step, &failed);
            cox_buf_printf(&text, "step %.*s: ", (int)failed.name.len, (const char *)failed.name.data);
        }
        cox_buf_append_slice(&text, cox_slice_str(frame->message));
        en.message = text_cut(cox_buf_slice(&text), COX_ERROR_MESSAGE_LEN_MAX);
    }
    expand_end(e, t, step, &en);
    cox_buf_fini(&text);
}

/* Its step may have gone on without it: a frame that was stopped is told apart by the attempt it was for. */
void frame_ended(struct cox_engine *e, struct cox_task *frame, const struct cox_payload *outputs)
{
    struct cox_task *t = frame->parent;
    struct step *s = task_step(t, frame->parent_step);
    if (frame->parent_item == UINT64_MAX && s->x != NULL && s->x->child == frame)
        s->x->child = NULL;
    bool current =
        s->status == COX_STEP_WAITING &&
        (s->x->continuing ? s->x->frame == frame->id : cox_token_eq(s->token, frame->parent_token));
    if (!current)
        return;
    if (frame_is_agents(frame))
        agent_frame_ended(e, t, frame->parent_step, frame, outputs);
    else if (frame->parent_item != UINT64_MAX)
        map_item_ended(e, t, frame->parent_step, frame->parent_item, frame);
    else if (!s->x->continuing)
        subtask_ended(e, t, frame->parent_step, frame, outputs);
    else if (s->flags & STEP_STOPPING || t->stopping != COX_TASK_NONE || frame->status != COX_TASK_SUCCEEDED)
        subtask_ended(e, t, frame->parent_step, frame, outputs);
    else
        again_frame_ended(e, t, frame->parent_step, frame, outputs);
}

/* ---- which steps run in it ---- */

uint32_t cox_task_next_step(const struct cox_task *t, uint32_t from)
{
    struct cox_image_step doc;
    uint32_t end = t->first + t->n_steps;
    if (from <= t->first)
        return t->first;
    if (!t->image.has_inner)
        return from < end ? from : COX_IMAGE_NONE;
    while (from < end) {
        cox_image_step(&t->image, from, &doc);
        if (!doc.is_body)
            return from;
        from += 1 + doc.n_inner; /* runs in frames of its own */
    }
    return COX_IMAGE_NONE;
}

uint32_t task_n_members(const struct cox_task *t)
{
    uint32_t n = 0;
    if (t->own_image)
        return t->doc.n_members;
    if (t->n_steps == 1)
        return 1;
    for (uint32_t i = t->first; i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1))
        n++; /* an agent in it has bodies of its own */
    return n;
}

uint32_t task_next_inner(const struct cox_task *t, uint32_t owner, uint32_t after)
{
    struct cox_image_step doc;
    if (!t->image.has_inner)
        return COX_IMAGE_NONE;
    cox_image_step(&t->image, owner, &doc);
    uint32_t i = cox_task_next_step(t, after + 1);
    return i <= owner + doc.n_inner ? i : COX_IMAGE_NONE;
}

bool task_is_member(const struct cox_task *t, uint32_t step)
{
    struct cox_image_step doc;
    if (!t->image.has_inner)
        return true;
    for (uint32_t i = step; i != COX_IMAGE_NONE && i != t->first; i = doc.owner) {
        cox_image_step(&t->image, i, &doc);
        if (doc.is_body)
            return false;
    }
    return true;
}

/* ---- addresses ---- */

static void put_prefix(struct cox_buf *out, const struct cox_task *frame)
{
    if (frame->parent == NULL)
        return;
    cox_step_address(out, frame->parent, frame->parent_step);
    if (frame_is_agents(frame))
        agent_address(out, frame);
    else if (frame->parent_item != UINT64_MAX)
        cox_buf_printf(out, "[%llu]", (unsigned long long)frame->parent_item);
    if (frame->own_image)
        cox_buf_append_str(out, ".");
}

void cox_step_address(struct cox_buf *out, const struct cox_task *frame, uint32_t step)
{
    struct cox_image_step doc, entry;
    cox_image_step(&frame->image, step, &doc);
    put_prefix(out, frame);
    if (!frame->own_image) { /* the entry's own name is that of the step the frame is under */
        cox_image_step(&frame->image, frame->first, &entry);
        if (doc.name.len >= entry.name.len) /* but for a damaged archive */
            doc.name = cox_slice(doc.name.data + entry.name.len, doc.name.len - entry.name.len);
    }
    cox_buf_append_slice(out, doc.name);
}

const struct cox_task *cox_engine_next_frame(const struct cox_engine *e, const struct cox_task *root,
                                             const void **it)
{
    (void)e;
    const struct cox_list *at = *it == NULL ? root->frames.next : ((const struct cox_list *)*it)->next;
    if (at == &root->frames)
        return NULL;
    *it = at;
    return COX_CONTAINER_OF(at, struct cox_task, in_frames);
}

/* Does `address` begin with this step's address? What follows is left in *rest. */
static bool address_starts(const struct cox_task *t, uint32_t step, struct cox_slice address, size_t *ret_len)
{
    struct cox_buf own = { 0 };
    cox_step_address(&own, t, step);
    bool starts = own.len <= address.len && (own.len == 0 || memcmp(own.data, address.data, own.len) == 0);
    *ret_len = own.len;
    cox_buf_fini(&own);
    return starts;
}

/* "[17]" and nothing else. */
static bool parse_item(struct cox_slice s, uint64_t *ret)
{
    if (s.len < 3 || s.len > 12 || s.data[0] != '[' || s.data[s.len - 1] != ']')
        return false;
    *ret = 0;
    for (size_t i = 1; i + 1 < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        *ret = *ret * 10 + (uint64_t)(s.data[i] - '0');
    }
    return true;
}

static bool find_in(const struct cox_task *t, struct cox_slice address, uint32_t *ret_step,
                    uint64_t *ret_item)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        struct cox_image_step doc;
        size_t len;
        cox_image_step(&t->image, i, &doc);
        if (!address_starts(t, i, address, &len))
            continue;
        struct cox_slice rest = cox_slice(address.data + len, address.len - len);
        *ret_step = i;
        *ret_item = UINT64_MAX;
        if (rest.len == 0 || (doc.map != COX_IMAGE_NONE && parse_item(rest, ret_item)))
            return true;
    }
    return false;
}

const struct cox_task *cox_engine_find_step(const struct cox_engine *e, const struct cox_task *root,
                                            struct cox_slice address, uint32_t *ret_step, uint64_t *ret_item)
{
    const void *it = NULL;
    const struct cox_task *frame;
    if (root->own_image) { /* the common case: a step of the document */
        *ret_step = cox_image_find_step(&root->image, address);
        *ret_item = UINT64_MAX;
        if (*ret_step != COX_IMAGE_NONE && task_is_member(root, *ret_step))
            return root;
    }
    const struct cox_task *ended = NULL;
    uint32_t step;
    uint64_t item;
    while ((frame = cox_engine_next_frame(e, root, &it)) != NULL) {
        if (!find_in(frame, address, &step, &item))
            continue;
        *ret_step = step;
        *ret_item = item;
        if (!cox_task_status_final(frame->status))
            return frame;
        ended = frame; /* what runs again has the address of what had failed */
    }
    if (ended != NULL)
        return ended;
    return find_in(root, address, ret_step, ret_item) ? root : NULL;
}
