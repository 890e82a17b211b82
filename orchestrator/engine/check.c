/* What must always hold, and hashes over all durable state. For tests and `coxd --verify`. */
#include "budget.h"
#include "expand/map.h"
#include "gate.h"
#include "schedule.h"
#include "template.h"

#include <string.h>

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

/* In no order: the map has none that two engines share. */
static uint64_t hash_sleepers(const struct cox_engine *e)
{
    size_t it = 0;
    uint64_t id, sum = 0;
    void *at;
    while (cox_map64_next(&e->sleepers, &it, &id, &at)) {
        const struct sleeper *sl = at;
        uint64_t parts[4] = { id, (uint64_t)sl->wake_wall_ms, sl->n_steps, sl->n_template_pins };
        sum += cox_hash64(parts, sizeof parts);
    }
    return sum;
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
    uint64_t parts[2] = { h, hash_sleepers(e) };
    return schedules_hash(e, templates_hash(e, cox_hash64(parts, sizeof parts)));
}

static bool waits_for_something(const struct cox_task *t, const struct step *s)
{
    return t->root->paused || s->flags & (STEP_EVALUATING | STEP_GATED) || s->backoff != NULL ||
           !cox_list_empty(&s->in_queue);
}

static void check_expansion(const struct cox_engine *e, const struct cox_task *t, const struct step *s)
{
    const struct expansion *x = s->x;
    COX_ASSERT(x->step == s);
    if (x->map != NULL)
        map_check(e, x->map);
    if (x->child != NULL)
        COX_ASSERT(x->child->parent == t && x->child->id == x->frame && s->status == COX_STEP_WAITING);
    COX_ASSERT(s->status == COX_STEP_WAITING || !cox_heap_has(&x->timer.node));
    COX_ASSERT(!x->continuing || s->status == COX_STEP_WAITING);
}

static void check_step(const struct cox_engine *e, const struct cox_task *t, uint32_t i)
{
    const struct step *s = task_step(t, i);
    COX_ASSERT((s->status == COX_STEP_RUNNING) == (s->attempt != NULL));
    COX_ASSERT(s->backoff == NULL || s->status == COX_STEP_READY);
    COX_ASSERT(cox_list_empty(&s->in_queue) || s->status == COX_STEP_READY ||
               (s->x != NULL && s->x->map != NULL));
    COX_ASSERT(s->status != COX_STEP_WAITING || s->x != NULL);
    if (s->x != NULL)
        check_expansion(e, t, s);
    if (s->attempt != NULL) {
        COX_ASSERT(s->attempt->task == t && s->attempt->step_index == i &&
                   s->attempt->worker->ref == s->worker && cox_token_eq(s->attempt->token, s->token));
        COX_ASSERT(s->token.epoch <= e->meta.epoch && s->token.counter > 0);
    }
    if (i >= t->link_next || t->stopping != COX_TASK_NONE)
        return;
    if (s->status == COX_STEP_READY)
        COX_ASSERT(waits_for_something(t, s));
    struct cox_image_step doc;
    cox_image_step(&t->image, i, &doc);
    if (step_is_inner(t, i, &doc)) {
        COX_ASSERT(s->status != COX_STEP_BLOCKED || !(s->flags & STEP_OPEN));
        return;
    }
    uint32_t n_waiting = 0;
    for (uint32_t k = 0; k < doc.n_needs; k++)
        n_waiting += task_contains(t, cox_image_need(&t->image, i, k)) &&
                     !cox_step_status_final(task_step_status(t, cox_image_need(&t->image, i, k)));
    COX_ASSERT(n_waiting == s->n_waiting);
    if (s->status == COX_STEP_BLOCKED)
        COX_ASSERT(n_waiting > 0 || s->flags & STEP_EVALUATING);
    else if (s->status != COX_STEP_CANCELLED)
        COX_ASSERT(n_waiting == 0);
}

static void check_task(const struct cox_engine *e, const struct cox_task *t)
{
    uint32_t n[COX_STEP_STATUS_NR] = { 0 };
    uint64_t cpu_us = 0;
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        n[task_step_status(t, i)]++;
        if (!task_has_step(t, i))
            continue;
        check_step(e, t, i);
        cpu_us += step_cpu_us(task_step(t, i));
    }
    COX_ASSERT(cpu_us == t->cpu_us);
    COX_ASSERT(memcmp(n, t->n_by_status, sizeof n) == 0);
    uint32_t n_final = 0;
    for (int s = COX_STEP_SUCCEEDED; s < COX_STEP_STATUS_NR; s++)
        n_final += n[s];
    if (!cox_task_status_final(t->status) && !t->outputs_evaluating)
        COX_ASSERT(n_final < task_n_members(t));
    COX_ASSERT(t->parent_id == 0 || (t->parent != NULL && t->root != t));
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
    uint64_t n_steps = 0;
    COX_ASSERT(e->n_settled == 0);
    placement_check(e);
    gates_check(e);
    templates_check(e);
    schedules_check(e);
    COX_LIST_FOR_EACH (it, &e->task_list) {
        const struct cox_task *t = COX_CONTAINER_OF(it, struct cox_task, in_tasks);
        check_task(e, t);
        n_steps += t->n_steps;
    }
    budgets_check(e);
    uint64_t n_running = 0;
    COX_ASSERT(n_steps == e->n_live_steps);
    for (uint32_t ref = 1; ref < e->n_workers_cap; ref++) {
        if (e->workers[ref] == NULL)
            continue;
        check_worker(e->workers[ref]);
        n_running += e->workers[ref]->n_attempts;
    }
    COX_ASSERT(n_running == e->stats.n_running);
}
