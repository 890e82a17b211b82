/* Reading: what users and operators see. Nothing here changes anything. */
#include "expand/agent.h"
#include "gate.h"
#include "route.h"
#include "schedule.h"
#include "template.h"

#include <string.h>

const struct cox_task *cox_engine_find(const struct cox_engine *e, cox_task_id id)
{
    return cox_map64_get(&e->tasks, id);
}

struct cox_slice cox_task_tenant(const struct cox_task *t)
{
    return cox_slice_str(t->tenant);
}

enum cox_task_status task_shown_status(const struct cox_task *root)
{
    uint32_t n_waiting = root->n_by_status[COX_STEP_WAITING];
    uint32_t n_busy = root->n_by_status[COX_STEP_READY] + root->n_by_status[COX_STEP_RUNNING];
    if (cox_task_status_final(root->status))
        return root->status;
    if (root->paused)
        return COX_TASK_PAUSED;
    if (n_busy > 0 || n_waiting == 0 || root->n_maps > 0)
        return root->status;
    COX_LIST_FOR_EACH (it, &root->frames) {
        const struct cox_task *f = COX_CONTAINER_OF(it, struct cox_task, in_frames);
        n_busy += f->n_by_status[COX_STEP_READY] + f->n_by_status[COX_STEP_RUNNING];
        if (n_busy > 0)
            return root->status;
    }
    return COX_TASK_WAITING;
}

void cox_task_view(const struct cox_task *t, struct cox_task_view *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->id = t->id;
    ret->root = t->root->id;
    ret->parent = t->parent_id;
    ret->parent_step = t->parent_step;
    ret->parent_item = t->parent_item;
    ret->paused = t->root->paused;
    ret->schedule = cox_slice_str(t->schedule);
    ret->tenant = cox_slice_str(t->tenant);
    ret->image = &t->image;
    ret->status = task_shown_status(t);
    ret->created_wall_ms = t->created_wall_ms;
    ret->started_wall_ms = t->started_wall_ms;
    ret->finished_wall_ms = t->finished_wall_ms;
    ret->code = t->code;
    ret->message = cox_slice_str(t->message);
    ret->error_step = t->error_step;
    if (t->outputs != NULL)
        ret->outputs = t->outputs->payload;
    memcpy(ret->n_steps_by_status, t->n_by_status, sizeof ret->n_steps_by_status);
    ret->cpu_us = t->cpu_us;
    if (t->ledger != NULL)
        ret->usage = t->ledger->usage;
    if (t->parent_id != 0)
        return;
    COX_LIST_FOR_EACH (it, &t->frames) {
        const struct cox_task *f = COX_CONTAINER_OF(it, struct cox_task, in_frames);
        ret->cpu_us += cox_task_status_final(f->status) ? 0 : f->cpu_us; /* then its step has it */
        for (int s = 0; s < COX_STEP_STATUS_NR; s++)
            ret->n_steps_by_status[s] += f->n_by_status[s];
    }
}

static enum cox_step_reason waiting_reason(const struct cox_task *t, uint32_t step, const struct step *s)
{
    struct cox_image_call call;
    if (s->flags & STEP_STOPPING || t->stopping != COX_TASK_NONE)
        return COX_REASON_CANCELLING;
    if (s->flags & STEP_EVALUATING)
        return COX_REASON_EXPANDING;
    if (s->x->map != NULL)
        return t->root->paused ? COX_REASON_PAUSED : COX_REASON_ITEMS;
    if (s->x->child != NULL || s->x->continuing || (s->x->agent != NULL && s->x->agent->tools != NULL))
        return COX_REASON_CHILDREN;
    step_call(t, step, s, &call);
    if (call.kind == COX_KIND_APPROVAL)
        return COX_REASON_APPROVAL;
    if (call.kind == COX_KIND_WAIT)
        return call.wait == COX_WAIT_SIGNAL ? COX_REASON_SIGNAL : COX_REASON_TIMER;
    return call.kind == COX_KIND_RACE ? COX_REASON_CHILDREN : COX_REASON_EXPANDING;
}

/* Why a READY step that is not backing off does not run. */
static enum cox_step_reason queue_reason(const struct cox_engine *e, const struct cox_task *t,
                                         const struct step *s)
{
    const struct hold *h = hold_get(e, s);
    if (s->waits_for_budget)
        return COX_REASON_BUDGET;
    if (s->flags & STEP_GATED)
        return h->concurrency != NULL && !h->permitted ? COX_REASON_CONCURRENCY : COX_REASON_RATE;
    if (t->root->paused)
        return COX_REASON_PAUSED;
    const struct class *c = route_class(e, t, s);
    if (c == NULL)
        return COX_REASON_NONE; /* not linked yet, or a kind that no worker runs */
    if (c->only != NULL)
        return COX_REASON_AFFINITY;
    if (c->n_eligible > 0)
        return COX_REASON_NO_CAPACITY;
    return c->version != NULL && c->base->n_eligible > 0 ? COX_REASON_VERSION : COX_REASON_NO_WORKER;
}

static enum cox_step_reason step_reason(const struct cox_engine *e, const struct cox_task *t, uint32_t step,
                                        const struct step *s)
{
    switch ((enum cox_step_status)s->status) {
    case COX_STEP_BLOCKED:
        return COX_REASON_DEPENDENCIES;
    case COX_STEP_RUNNING:
        if (s->attempt == NULL)
            return COX_REASON_NONE;
        if (s->attempt->cancelling)
            return COX_REASON_CANCELLING;
        return s->attempt->worker->session == 0 ? COX_REASON_WORKER_AWAY : COX_REASON_NONE;
    case COX_STEP_READY:
        break;
    case COX_STEP_WAITING:
        return s->flags & STEP_STOPPING ? COX_REASON_CANCELLING : waiting_reason(t, step, s);
    default:
        return COX_REASON_NONE;
    }
    if (t->root->paused)
        return COX_REASON_PAUSED;
    if (s->backoff != NULL)
        return COX_REASON_BACKOFF;
    if (s->flags & (STEP_EVALUATING | STEP_UNEVALUATED))
        return COX_REASON_EVALUATING;
    return queue_reason(e, t, s);
}

static uint32_t n_history(const struct step *s)
{
    return s->history != NULL ? s->history->n : 0;
}

/* The last attempt stands in the step itself until it is over and another may follow. */
static bool last_is_inline(const struct step *s)
{
    if (s->n_attempts == 0 || s->token.counter == 0)
        return false;
    return n_history(s) == 0 || s->history->items[n_history(s) - 1].number != s->n_attempts;
}

void cox_step_view(const struct cox_engine *e, const struct cox_task *t, uint32_t step,
                   struct cox_step_view *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->status = task_step_status(t, step);
    if (!task_has_step(t, step)) {
        ret->reason = COX_REASON_DEPENDENCIES;
        return;
    }
    const struct step *s = task_step(t, step);
    if (e != NULL)
        ret->reason = step_reason(e, t, step, s);
    ret->ready_wall_ms = s->ready_wall_ms;
    if (ret->reason == COX_REASON_RATE)
        ret->ready_wall_ms = e->now.wall_ms + (hold_get(e, s)->rate->next_ns - e->now.mono_ns) / NS_PER_MS;
    if (s->x != NULL) {
        const struct expansion *x = s->x;
        if (s->status == COX_STEP_WAITING) {
            ret->ready_wall_ms = x->wake_wall_ms;
            ret->waits_for = cox_slice_str(x->detail);
        }
        if (x->errors != NULL)
            ret->errors = x->errors->payload;
        if (x->artifacts != NULL)
            ret->artifacts = x->artifacts->payload;
    }
    ret->in_fallback = (s->flags & STEP_IN_FALLBACK) != 0;
    ret->via_fallback = s->status == COX_STEP_SUCCEEDED && s->flags & STEP_IN_FALLBACK;
    if (s->status != COX_STEP_SUCCEEDED) {
        ret->code = (enum cox_code)s->code;
        ret->message = cox_slice_str(s->message);
    }
    if (s->output != NULL)
        ret->output = s->output->payload;
    ret->n_attempts = n_history(s) + (last_is_inline(s) ? 1 : 0);
}

static struct cox_slice worker_name(const struct cox_engine *e, const struct cox_task *t, uint32_t ref)
{
    if (t->worker_names != NULL)
        return cox_slice_str(cox_map64_get(t->worker_names, ref));
    const struct worker *w = e != NULL ? worker_by_ref(e, ref) : NULL;
    return cox_slice_str(w != NULL ? w->id : NULL);
}

void cox_attempt_view(const struct cox_engine *e, const struct cox_task *t, uint32_t step, uint32_t i,
                      struct cox_attempt_view *ret)
{
    const struct step *s = task_step(t, step);
    memset(ret, 0, sizeof *ret);
    ret->ref = (struct cox_ref){ t->id, step, { 0, 0 } };
    if (i < n_history(s)) {
        const struct past_attempt *p = &s->history->items[i];
        ret->number = p->number;
        ret->worker_id = worker_name(e, t, p->worker);
        ret->status = (enum cox_attempt_status)p->status;
        ret->started_wall_ms = p->started_wall_ms;
        ret->finished_wall_ms = p->finished_wall_ms;
        ret->has_exit_code = p->has_exit_code;
        ret->exit_code = p->exit_code;
        ret->code = (enum cox_code)p->code;
        ret->message = cox_slice_str(p->message);
        ret->cpu_us = p->cpu_us;
        ret->fallback = p->fallback;
        ret->frame = p->frame;
        return;
    }
    ret->number = s->n_attempts;
    ret->worker_id = worker_name(e, t, s->worker);
    ret->status = s->attempt != NULL && s->attempt->started ? COX_ATTEMPT_RUNNING
                                                            : (enum cox_attempt_status)s->attempt_status;
    ret->started_wall_ms = s->started_wall_ms;
    ret->finished_wall_ms = s->finished_wall_ms;
    ret->has_exit_code = (s->flags & STEP_HAS_EXIT) != 0;
    ret->exit_code = s->exit_code;
    if (ret->status >= COX_ATTEMPT_FAILED) {
        ret->code = (enum cox_code)s->code;
        ret->message = cox_slice_str(s->message);
    }
    ret->cpu_us = s->cpu_us;
    ret->fallback = (s->flags & STEP_IN_FALLBACK) != 0;
    ret->frame = s->x != NULL ? s->x->frame : 0;
    ret->ref.token = s->token;
}

bool cox_engine_next_worker(const struct cox_engine *e, size_t *it, struct cox_worker_view *ret)
{
    const struct worker *w = NULL;
    while (w == NULL && ++*it < e->n_workers_cap)
        if (e->workers[*it] != NULL && !e->workers[*it]->inner &&
            (e->workers[*it]->boot_id != NULL || e->workers[*it]->n_attempts > 0))
            w = e->workers[*it];
    if (w == NULL)
        return false;
    memset(ret, 0, sizeof *ret);
    ret->worker_id = cox_slice_str(w->id);
    ret->boot_id = cox_slice_str(w->boot_id);
    ret->version = cox_slice_str(w->version);
    ret->session = w->session;
    ret->draining = w->draining;
    ret->cordoned = w->cordoned;
    ret->slots = w->slots;
    ret->assigned = w->n_attempts;
    ret->free_credit = w->granted - w->taken;
    ret->resources = w->resources;
    ret->free_resources = w->resources;
    resources_give(&ret->free_resources, &w->used);
    ret->attached_wall_ms = w->attached_wall_ms;
    ret->labels = w->labels;
    ret->n_labels = w->n_labels;
    ret->handlers = w->handlers;
    ret->versions = w->versions;
    ret->n_handlers = w->n_handlers;
    return true;
}

bool cox_engine_next_attempt(const struct cox_engine *e, struct cox_slice worker_id, const void **it,
                             struct cox_ref *ret)
{
    const struct worker *w = cox_mapb_get(&e->workers_by_id, worker_id);
    if (w == NULL)
        return false;
    const struct cox_list *at = *it == NULL ? w->attempts.next : ((const struct cox_list *)*it)->next;
    if (at == &w->attempts)
        return false;
    const struct attempt *a = COX_CONTAINER_OF(at, struct attempt, in_worker);
    *it = at;
    *ret = (struct cox_ref){ a->task->id, a->step_index, a->token };
    return true;
}

uint32_t cox_engine_attempt_session(const struct cox_engine *e, struct cox_ref ref,
                                    struct cox_slice *ret_tenant)
{
    enum cox_answer why;
    const struct attempt *a = attempt_find(e, ref, &why);

    if (a == NULL || a->worker == NULL)
        return 0;
    *ret_tenant = cox_task_tenant(a->task);
    return a->worker->session;
}
