/* Tasks that run again, and tasks made from others.
 *
 * Both begin as the frozen bytes of a task with some steps made as if they had never been tried. The record
 * has these bytes, so what is run again was decided once. */
#include "expand/agent.h"
#include "expand/expand.h"
#include "quarantine.h"
#include "sleep.h"
#include "template.h"
#include "workspace.h"

#include <string.h>

/* Marks `step` and all that depends on it. */
static void mark_dependants(const struct cox_task *t, bool *again, uint32_t step)
{
    uint32_t *stack = cox_calloc(t->n_steps + 1, sizeof *stack);
    size_t n = 0;
    stack[n++] = step;
    again[step] = true;
    while (n > 0) {
        struct cox_image_step doc;
        uint32_t i = stack[--n];
        cox_image_step(&t->image, i, &doc);
        for (uint32_t k = 0; k < doc.n_dependants; k++) {
            uint32_t d = cox_image_dependant(&t->image, i, k);
            if (!again[d] && !COX_PLANTED("retry-keeps-dependants")) {
                again[d] = true;
                stack[n++] = d;
            }
        }
    }
    cox_free(stack);
}

/* The step of the document that it belongs to. */
static uint32_t outermost(const struct cox_task *t, uint32_t step)
{
    struct cox_image_step doc;
    for (cox_image_step(&t->image, step, &doc); doc.owner != COX_IMAGE_NONE;
         cox_image_step(&t->image, step, &doc))
        step = doc.owner;
    return step;
}

static bool succeeded(const struct cox_task *t, uint32_t step)
{
    return task_step_status(t, step) == COX_STEP_SUCCEEDED;
}

/* The loser of a race that is just being stopped: nobody runs it for the new task. */
static void lose(struct cox_task *t, struct step *s)
{
    if (cox_step_status_final((enum cox_step_status)s->status))
        return;
    if (s->status == COX_STEP_RUNNING || s->status == COX_STEP_WAITING)
        s->attempt_status = COX_ATTEMPT_CANCELLED;
    step_move(t, s, COX_STEP_CANCELLED);
}

/* An agent that did not succeed goes on where it was, unless what it began with is to change. */
static struct agent *agent_to_keep(const struct cox_task *t, uint32_t step, const bool *again)
{
    const struct step *s = task_step(t, step);
    struct cox_image_step doc;
    if (s->x == NULL || s->x->agent == NULL || s->status == COX_STEP_SUCCEEDED)
        return NULL;
    step = outermost(t, step);
    cox_image_step(&t->image, step, &doc);
    for (uint32_t k = 0; k < doc.n_needs; k++)
        if (again[cox_image_need(&t->image, step, k)])
            return NULL;
    struct agent *a = s->x->agent;
    s->x->agent = NULL;
    return a;
}

/* What is marked is to be run again, and all that is part of it: the losers of a race that was won stay. */
static void reset_steps(struct cox_task *t, const bool *again)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        struct step *s = task_step_make(t, i);
        files_uproot(s, false);
        if (!again[outermost(t, i)]) {
            lose(t, s);
            continue;
        }
        struct agent *agent = agent_to_keep(t, i, again);
        attempt_remember(s);
        step_reset(t, s);
        if (agent != NULL)
            step_expansion(s)->agent = agent;
    }
    t->stopping = COX_TASK_NONE;
    t->code = COX_CODE_NONE;
    cox_free(t->message);
    t->message = NULL;
    t->error_step = COX_IMAGE_NONE;
    cox_free(t->outputs);
    t->outputs = NULL;
    t->finished_wall_ms = 0;
    t->gone = false;
    t->paused = false;
}

/* ---- bytes ---- */

static void body_encode(struct cox_buf *b, const struct cox_task *t)
{
    size_t at = b->len;
    cox_put_u32(b, 0);
    header_encode(b, t);
    cox_set_u32(b, at, (uint32_t)(b->len - at - 4));
    cox_put_u32(b, t->n_pages);
    for (uint32_t no = 0; no < t->n_pages; no++) {
        at = b->len;
        cox_put_u32(b, 0);
        page_encode(b, t->pages[no]);
        cox_set_u32(b, at, (uint32_t)(b->len - at - 4));
    }
}

/* Entities that know of later records stay as they are. */
static struct cox_task *body_decode(struct cox_engine *e, uint64_t seq, cox_task_id id,
                                    struct cox_slice bytes)
{
    struct cox_reader in = cox_reader(bytes);
    struct cox_slice header = cox_get_bytes(&in);
    struct cox_task *t = cox_map64_get(&e->tasks, id);
    bool fresh = t == NULL || !t->has_header;
    if (t == NULL)
        t = task_create(e, id);
    if (fresh) {
        if (header_decode(t, header) != COX_OK || !t->own_image) {
            record_misfit(e);
            return t;
        }
        task_init_header(t);
        if (!task_pages_fit(t))
            record_misfit(e);
    }
    uint32_t n_pages = cox_get_u32(&in);
    for (uint32_t no = 0; no < n_pages && !in.bad; no++) {
        struct cox_slice page = cox_get_bytes(&in);
        if (no >= t->n_pages || page_is_newer(e, t, no, seq))
            continue;
        struct page *p = page_create(t, no, page_n_steps(t, no));
        if (page_decode(p, page) != COX_OK)
            record_misfit(e);
        entity_touch(e, &p->entity, seq);
    }
    if (fresh) /* after its pages: see frame_thaw() */
        entity_touch(e, &t->entity, seq);
    task_derive_sums(t);
    return t;
}

/* Marks what did not succeed and all that depends on it: what that was made of is to change. What its `if`
 * has skipped is asked again only when the inputs are others. */
static void mark_failed(const struct cox_task *t, bool *again, bool other_inputs)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        bool skipped = task_step_status(t, i) == COX_STEP_SKIPPED;
        if (outermost(t, i) == i && !succeeded(t, i) && (!skipped || other_inputs))
            mark_dependants(t, again, i);
    }
}

/* ---- retry ---- */

void apply_revived(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    struct cox_task *t = cox_map64_get(&e->tasks, r->task);
    if (t != NULL && t->has_header && t->entity.applied_seq < seq) {
        frames_part(e, t);
        if (!cox_list_empty(&t->frames)) { /* a task with parts that live has not ended */
            record_misfit(e);
            return;
        }
        task_destroy(e, t); /* replay keeps ended tasks until the archive surely has them */
    }
    body_decode(e, seq, r->task, r->u.woken.bytes);
}

void task_retry(struct cox_engine *e, const struct cox_in_retry *in)
{
    struct cox_task *t = cox_map64_get(&e->tasks, in->task), *old;
    if (quarantine_refuses(e, in->request, in->task))
        return;
    if (t != NULL) {
        reply(e, in->request, COX_ERR_INVALID, t,
              cox_task_status_final(t->status) ? "the task is just ending; try again"
                                               : "the task has not ended");
        return;
    }
    if (cox_task_thaw(in->archived, &old) != COX_OK) {
        reply(e, in->request, COX_ERR_INTERNAL, NULL, "the archived task is damaged");
        return;
    }
    if (old->status == COX_TASK_SUCCEEDED && !COX_PLANTED("retry-of-a-success")) {
        reply(e, in->request, COX_ERR_INVALID, old, "the task has succeeded: there is nothing to run again");
        cox_task_free(old);
        return;
    }
    if (!task_has_room(e, &old->image)) {
        task_refuse_full(e, in->request);
        cox_task_free(old);
        return;
    }
    bool *again = cox_calloc(old->n_steps + 1, sizeof *again);
    mark_failed(old, again, false);
    reset_steps(old, again);
    cox_free(again);
    old->status = COX_TASK_PENDING;
    old->started_wall_ms = 0;
    old->revived_wall_ms = e->now.wall_ms;
    templates_repin(e, old);
    struct cox_buf bytes = { 0 };
    body_encode(&bytes, old);
    struct record r = { .type = RECORD_TASK_REVIVED, .task = in->task, .wall_ms = e->now.wall_ms };
    r.u.woken.bytes = cox_buf_slice(&bytes);
    emit(e, &r);
    cox_buf_fini(&bytes);
    cox_task_free(old);
    t = cox_map64_get(&e->tasks, in->task);
    task_begin(e, t);
    task_index(e, t);
    reply(e, in->request, COX_OK, t, NULL);
}

/* ---- fork ---- */

void apply_forked(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    (void)body_decode(e, seq, r->task, r->u.forked.bytes);
}

/* Values it has from another task are kept as long as it is, and so is what these refer to: which those are,
 * only the state knows. */
void task_claim_values(struct cox_engine *e, cox_task_id fork, cox_task_id from)
{
    struct cox_action *a = act(e, COX_ACT_PUT_PAYLOAD);
    a->u.payload.root = fork;
    a->u.payload.from = from;
}

/* A copy of the task to change, or NULL after the answer. */
static struct cox_task *fork_source(struct cox_engine *e, const struct cox_in_fork *in)
{
    struct cox_task *t = cox_map64_get(&e->tasks, in->from), *copy = NULL;
    struct cox_buf bytes = { 0 };
    enum cox_err err = COX_ERR_NOT_FOUND;
    if (in->archived.len > 0) {
        err = cox_task_thaw(in->archived, &copy);
    } else if (t != NULL && t->parent_id == 0) {
        task_freeze(e, t, &bytes);
        err = cox_task_thaw(cox_buf_slice(&bytes), &copy);
        cox_buf_fini(&bytes);
    }
    if (err == COX_OK)
        return copy;
    reply(e, in->request, err == COX_ERR_NOT_FOUND ? err : COX_ERR_INTERNAL, NULL,
          err == COX_ERR_NOT_FOUND ? NULL : "the task to fork is damaged");
    return NULL;
}

static void fork_become(struct cox_engine *e, struct cox_task *copy, const struct cox_in_fork *in)
{
    cox_free(copy->tenant);
    cox_free(copy->key);
    copy->tenant = text_own(in->tenant);
    copy->key = in->key.len > 0 ? text_own(in->key) : NULL;
    copy->document = in->document;
    ledger_free(copy->ledger); /* it has spent nothing yet */
    copy->ledger = NULL;
    copy->status = COX_TASK_PENDING;
    copy->created_wall_ms = e->now.wall_ms;
    copy->started_wall_ms = copy->revived_wall_ms = 0;
    cox_free(copy->schedule);
    copy->schedule = NULL;
    if (in->image.len > 0) {
        cox_free(copy->image_bytes);
        copy->image_bytes = cox_alloc(in->image.len);
        memcpy(copy->image_bytes, in->image.data, in->image.len);
        copy->image.bytes = cox_slice(copy->image_bytes, in->image.len);
    }
}

static bool fork_mark(struct cox_engine *e, const struct cox_task *copy, const struct cox_in_fork *in,
                      bool *again)
{
    mark_failed(copy, again, in->image.len > 0);
    if (in->at.len == 0)
        return true;
    uint32_t at = cox_image_find_step(&copy->image, in->at);
    if (at == COX_IMAGE_NONE) {
        reply(e, in->request, COX_ERR_INVALID, NULL, "at: the task has no such step");
        return false;
    }
    mark_dependants(copy, again, outermost(copy, at));
    return true;
}

void task_fork(struct cox_engine *e, const struct cox_in_fork *in)
{
    struct cox_in_submit same = {
        .request = in->request, .tenant = in->tenant, .key = in->key, .document = in->document
    };
    if ((in->key.len > 0 && task_known_key(e, &same)) || quarantine_refuses(e, in->request, in->from))
        return;
    struct cox_task *copy = fork_source(e, in);
    if (copy == NULL)
        return;
    bool *again = cox_calloc(copy->n_steps + 1, sizeof *again);
    bool marked = fork_mark(e, copy, in, again), room = marked && task_has_room(e, &copy->image);
    if (marked && !room)
        task_refuse_full(e, in->request);
    if (room) {
        struct cox_buf bytes = { 0 };
        reset_steps(copy, again);
        fork_become(e, copy, in);
        templates_repin(e, copy);
        body_encode(&bytes, copy);
        struct record r = { .type = RECORD_TASK_FORKED,
                            .task = ((uint64_t)e->config.shard << 48) | (e->meta.last_task_counter + 1),
                            .wall_ms = e->now.wall_ms };
        r.u.forked.tenant = in->tenant;
        r.u.forked.key = in->key;
        r.u.forked.document = in->document;
        r.u.forked.bytes = cox_buf_slice(&bytes);
        r.u.forked.from = in->from;
        emit(e, &r);
        cox_buf_fini(&bytes);
        struct cox_task *t = cox_map64_get(&e->tasks, r.task);
        if (!COX_PLANTED("fork-claims-nothing"))
            task_claim_values(e, t->id, in->from);
        task_begin(e, t);
        task_index(e, t);
        reply(e, in->request, COX_OK, t, NULL);
    }
    cox_free(again);
    cox_task_free(copy);
}
