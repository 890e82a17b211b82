/* Reading: what users and operators see. Nothing here changes anything. */
#include "gate.h"
#include "route.h"
#include "schedule.h"
#include "template.h"

#include <string.h>

const struct cox_task *cox_engine_find(const struct cox_engine *e, cox_task_id id)
{
    return cox_map64_get(&e->tasks, id);
}

void cox_task_view(const struct cox_task *t, struct cox_task_view *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->id = t->id;
    ret->tenant = cox_slice_str(t->tenant);
    ret->image = &t->image;
    ret->status = t->status;
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
}

/* Why a READY step that is not backing off does not run. */
static enum cox_step_reason queue_reason(const struct cox_engine *e, const struct cox_task *t,
                                         const struct step *s)
{
    const struct hold *h = hold_get(e, s);
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

static enum cox_step_reason waiting_reason(const struct cox_task *t, uint32_t step, const struct step *s)
{
    struct cox_image_call call;
    step_call(t, step, s, &call);
    if (s->x == NULL || s->flags & STEP_EVALUATING)
        return COX_REASON_EXPANDING;
    if (s->x->map != NULL)
        return COX_REASON_ITEMS;
    if (s->x->continuing)
        return s->x->child != NULL ? COX_REASON_CHILDREN : COX_REASON_EXPANDING;
    switch (call.kind) {
    case COX_KIND_APPROVAL:
        return COX_REASON_APPROVAL;
    case COX_KIND_WAIT:
        return call.wait == COX_WAIT_SIGNAL ? COX_REASON_SIGNAL : COX_REASON_TIMER;
    case COX_KIND_RACE:
        return COX_REASON_CHILDREN;
    default:
        return s->x->child != NULL ? COX_REASON_CHILDREN : COX_REASON_EXPANDING;
    }
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
    if (ret->status == COX_STEP_WAITING && s->x != NULL) {
        ret->ready_wall_ms = s->x->wake_wall_ms;
        ret->waits_for = cox_slice_str(s->x->detail);
    }
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
    ret->ref.token = s->token;
}

bool cox_engine_next_worker(const struct cox_engine *e, size_t *it, struct cox_worker_view *ret)
{
    const struct worker *w = NULL;
    while (w == NULL && ++*it < e->n_workers_cap)
        if (e->workers[*it] != NULL && (e->workers[*it]->boot_id != NULL || e->workers[*it]->n_attempts > 0))
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

/* ---- what must always hold ---- */

static int by_key(const struct entity *a, const struct entity *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    return a->sub < b->sub ? -1 : a->sub > b->sub;
}

uint64_t entity_fold(uint64_t hash, const struct entity *en, const struct cox_buf *body)
{
    uint64_t parts[4] = { hash, ((uint64_t)en->kind << 32) | en->sub, en->id,
                          cox_hash64(body->data, body->len) };
    return cox_hash64(parts, sizeof parts);
}

static uint64_t hash_task(uint64_t h, const struct cox_task *t, struct cox_buf *b)
{
    cox_buf_clear(b);
    header_encode(b, t);
    h = entity_fold(h, &t->entity, b);
    for (uint32_t no = 0; no < t->n_pages; no++) {
        if (t->pages[no] == NULL || t->pages[no]->entity.applied_seq == 0)
            continue; /* never changed by a record: replay may not have made it */
        cox_buf_clear(b);
        page_encode(b, t->pages[no]);
        h = entity_fold(h, &t->pages[no]->entity, b);
    }
    return h;
}

uint64_t cox_engine_hash(const struct cox_engine *e)
{
    struct cox_buf b = { 0 };
    uint64_t h = 0;
    const struct entity *last = NULL;
    meta_encode(&b, &e->meta);
    h = entity_fold(h, &e->meta.entity, &b);
    for (uint32_t ref = 1; ref < e->n_workers_cap; ref++) {
        if (e->workers[ref] == NULL)
            continue;
        cox_buf_clear(&b);
        worker_encode(&b, e->workers[ref]);
        h = entity_fold(h, &e->workers[ref]->entity, &b);
    }
    COX_LIST_FOR_EACH (it, &e->key_list) {
        const struct idem_key *k = COX_CONTAINER_OF(it, struct idem_key, in_keys);
        cox_buf_clear(&b);
        key_encode(&b, k);
        h = entity_fold(h, &k->entity, &b);
    }
    COX_LIST_FOR_EACH (it, &e->task_list) {
        const struct cox_task *t = COX_CONTAINER_OF(it, struct cox_task, in_tasks);
        COX_ASSERT(last == NULL || by_key(last, &t->entity) < 0);
        last = &t->entity;
        if (t->gone || !t->has_header)
            continue; /* live they are destroyed at once, after replay by recovery */
        h = hash_task(h, t, &b);
    }
    cox_buf_fini(&b);
    return schedules_hash(e, templates_hash(e, h));
}

static void check_step(const struct cox_engine *e, const struct cox_task *t, uint32_t i)
{
    const struct step *s = task_step(t, i);
    COX_ASSERT((s->status == COX_STEP_RUNNING) == (s->attempt != NULL));
    COX_ASSERT(s->backoff == NULL || s->status == COX_STEP_READY);
    COX_ASSERT(cox_list_empty(&s->in_queue) || s->status == COX_STEP_READY);
    if (s->attempt != NULL) {
        COX_ASSERT(s->attempt->task == t && s->attempt->step_index == i &&
                   s->attempt->worker->ref == s->worker);
        COX_ASSERT(s->token.epoch <= e->meta.epoch && s->token.counter > 0);
    }
    if (i >= t->link_next || t->stopping != COX_TASK_NONE)
        return;
    if (s->status == COX_STEP_READY)
        COX_ASSERT(s->backoff != NULL || !cox_list_empty(&s->in_queue) || s->flags & STEP_EVALUATING);
    struct cox_image_step doc;
    cox_image_step(&t->image, i, &doc);
    uint32_t n_waiting = 0;
    for (uint32_t k = 0; k < doc.n_needs; k++)
        n_waiting += !cox_step_status_final(task_step_status(t, cox_image_need(&t->image, i, k)));
    COX_ASSERT(n_waiting == s->n_waiting);
    if (s->status == COX_STEP_BLOCKED)
        COX_ASSERT(n_waiting > 0 || s->flags & STEP_EVALUATING);
    else if (s->status != COX_STEP_CANCELLED)
        COX_ASSERT(n_waiting == 0);
}

static void check_task(const struct cox_engine *e, const struct cox_task *t)
{
    uint32_t n[COX_STEP_STATUS_NR] = { 0 };
    for (uint32_t i = 0; i < t->image.n_steps; i++) {
        n[task_step_status(t, i)]++;
        if (t->pages[i / COX_PAGE_STEPS] != NULL)
            check_step(e, t, i);
    }
    COX_ASSERT(memcmp(n, t->n_by_status, sizeof n) == 0);
    uint32_t n_final = 0;
    for (int s = COX_STEP_SUCCEEDED; s < COX_STEP_STATUS_NR; s++)
        n_final += n[s];
    if (!cox_task_status_final(t->status) && !t->outputs_evaluating)
        COX_ASSERT(n_final < t->image.n_steps);
}

static void check_worker(const struct worker *w)
{
    struct cox_resources used = { 0 };
    uint32_t n = 0;
    COX_LIST_FOR_EACH (it, &w->attempts) {
        resources_take(&used, &COX_CONTAINER_OF(it, struct attempt, in_worker)->cls->resources);
        n++;
    }
    COX_ASSERT(n == w->n_attempts);
    COX_ASSERT(memcmp(&used, &w->used, sizeof used) == 0);
    COX_ASSERT(w->taken <= w->granted || w->session == 0);
    COX_ASSERT(worker_available(w) == !cox_list_empty(&w->in_available));
    COX_ASSERT(w->session != 0 || w->n_attempts == 0 || cox_heap_has(&w->liveness.node));
}

void cox_engine_check(const struct cox_engine *e)
{
    uint64_t n_running = 0, n_steps = 0;
    COX_ASSERT(e->n_settled == 0);
    placement_check(e);
    gates_check(e);
    templates_check(e);
    schedules_check(e);
    COX_LIST_FOR_EACH (it, &e->task_list) {
        const struct cox_task *t = COX_CONTAINER_OF(it, struct cox_task, in_tasks);
        check_task(e, t);
        n_running += t->n_by_status[COX_STEP_RUNNING];
        n_steps += t->image.n_steps;
    }
    COX_ASSERT(n_running == e->stats.n_running && n_steps == e->n_live_steps);
    for (uint32_t ref = 1; ref < e->n_workers_cap; ref++)
        if (e->workers[ref] != NULL)
            check_worker(e->workers[ref]);
}
