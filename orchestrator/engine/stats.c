#include "stats.h"

#include <string.h>

#define US 1LL
#define MS 1000LL
#define S 1000000LL
const int64_t cox_histogram_bounds_us[COX_HISTOGRAM_BUCKETS - 1] = {
    100 * US, 300 * US, 1 * MS, 3 * MS,  10 * MS, 30 * MS,  100 * MS, 300 * MS,  1 * S,     3 * S,
    10 * S,   30 * S,   60 * S, 180 * S, 600 * S, 1800 * S, 3600 * S, 10800 * S, 36000 * S,
};

void histogram_add(struct cox_histogram *h, int64_t us)
{
    int i = 0;
    if (us < 0)
        us = 0; /* the wall clock went on from a newer record */
    while (i < COX_HISTOGRAM_BUCKETS - 1 && us > cox_histogram_bounds_us[i])
        i++;
    h->n[i]++;
    h->sum_us += (uint64_t)us;
}

/* ---- queues ---- */

static uint32_t tenant_add(struct cox_engine *e, struct cox_slice name)
{
    if (e->n_tenants == 0) {
        e->tenant_names = cox_calloc(STATS_TENANTS_MAX + 2, sizeof e->tenant_names[0]);
        e->tenant_names[STATS_TENANT_OTHER] =
            cox_strdup(COX_PLANTED("others-tenant") ? "other" : STATS_TENANT_OTHER_TEXT);
        e->n_tenants = STATS_TENANT_OTHER + 1;
    }
    if (e->n_tenants == STATS_TENANTS_MAX + 2)
        return STATS_TENANT_OTHER;
    uint32_t no = e->n_tenants++;
    e->tenant_names[no] = text_own(name);
    cox_mapb_set(&e->tenants, cox_slice_str(e->tenant_names[no]), (void *)(uintptr_t)no);
    return no;
}

struct cox_slice tenant_dup(struct cox_engine *e, cox_task_id root)
{
    struct cox_slice tenant = cox_engine_tenant(e, root);
    return cox_slice(cox_arena_dup(&e->fx->arena, tenant.data, tenant.len), tenant.len);
}

uint32_t stats_tenant(struct cox_engine *e, struct cox_task *t)
{
    struct cox_task *root = t->root;
    if (root->tenant_no == 0) {
        struct cox_slice name = cox_slice_str(root->tenant);
        uint32_t no = (uint32_t)(uintptr_t)cox_mapb_get(&e->tenants, name);
        root->tenant_no = (uint16_t)(no != 0 ? no : tenant_add(e, name));
    }
    return root->tenant_no;
}

static struct queue_counts *counts_of(struct cox_engine *e, struct class *c, struct cox_task *t)
{
    uint32_t no = stats_tenant(e, t);
    if (no >= c->n_by_tenant) {
        c->by_tenant = cox_realloc(c->by_tenant, no + 1, sizeof c->by_tenant[0]);
        memset(c->by_tenant + c->n_by_tenant, 0, (no + 1 - c->n_by_tenant) * sizeof c->by_tenant[0]);
        c->n_by_tenant = no + 1;
    }
    return &c->by_tenant[no];
}

void stats_queued(struct cox_engine *e, struct class *c, const struct step *s, int n)
{
    counts_of(e, c, step_page(s)->task)->n_queued += (uint64_t)(int64_t)n;
}

void stats_running(struct cox_engine *e, struct class *base, struct cox_task *t, int n)
{
    counts_of(e, base, t)->n_running += (uint64_t)(int64_t)n;
}

/* Under its class: the queue it waits for a place in. */
void stats_gated(struct cox_engine *e, struct cox_task *t, const struct step *s, bool is_rate, int n)
{
    struct cox_image_call call;
    step_call(t, step_index(s), s, &call);
    if (call.class_index == COX_IMAGE_NONE || t->classes[call.class_index] == NULL)
        return;
    struct queue_counts *counts = counts_of(e, t->classes[call.class_index], t);
    *(is_rate ? &counts->n_rate : &counts->n_concurrency) += (uint64_t)(int64_t)n;
}

#define WAITS_NR 4 /* of a class and tenant: struct queue_counts */

static bool queue_view(const struct cox_engine *e, const struct class *c, uint32_t tenant, uint32_t what,
                       struct cox_queue_view *ret)
{
    const struct queue_counts *n = &c->by_tenant[tenant];
    const enum cox_step_reason queued = c->only != NULL      ? COX_REASON_AFFINITY
                                        : c->n_eligible > 0  ? COX_REASON_NO_CAPACITY
                                        : c->version != NULL ? COX_REASON_VERSION
                                                             : COX_REASON_NO_WORKER;
    const struct cox_queue_view views[WAITS_NR] = {
        { .reason = queued, .n = n->n_queued },
        { .reason = COX_REASON_CONCURRENCY, .n = n->n_concurrency },
        { .reason = COX_REASON_RATE, .n = n->n_rate },
        { .reason = COX_REASON_NONE, .n = n->n_running },
    };
    if (views[what].n == 0)
        return false;
    *ret = views[what];
    ret->tenant = cox_slice_str(e->tenant_names[tenant]);
    ret->class = cox_slice(c->handler, c->handler_len);
    return true;
}

bool cox_engine_next_queue(const struct cox_engine *e, size_t *it, struct cox_queue_view *ret)
{
    const size_t per_class = (STATS_TENANTS_MAX + 2) * WAITS_NR;
    for (size_t at = *it; at / per_class < e->n_classes_cap; at++) {
        const struct class *c = e->classes[at / per_class];
        size_t within = at % per_class;
        if (c == NULL || within / WAITS_NR >= c->n_by_tenant) {
            at += per_class - within - 1;
            continue;
        }
        if (queue_view(e, c, (uint32_t)(within / WAITS_NR), (uint32_t)(within % WAITS_NR), ret)) {
            *it = at + 1;
            return true;
        }
    }
    return false;
}

/* ---- tasks and steps ---- */

#define FRAMES_LOOKED_AT 16

/* As users see it, but that a task of many frames counts as running until it sleeps: this is asked at each
 * change. */
static enum cox_task_status counted_status(const struct cox_task *root)
{
    const struct cox_list *last = root->frames.next;
    if (cox_task_status_final(root->status) || root->n_by_status[COX_STEP_RUNNING] > 0)
        return root->paused && !cox_task_status_final(root->status) ? COX_TASK_PAUSED : root->status;
    for (int i = 0; i < FRAMES_LOOKED_AT && last != &root->frames; i++)
        last = last->next;
    return last == &root->frames ? task_shown_status(root) : root->status;
}

void stats_task(struct cox_engine *e, struct cox_task *t)
{
    struct cox_task *root = t->root;
    enum cox_task_status status = counted_status(root);
    if (root->counted == status)
        return;
    if (root->counted != COX_TASK_NONE)
        e->stats.n_tasks_by_status[root->counted]--;
    e->stats.n_tasks_by_status[status]++;
    root->counted = (uint8_t)status;
}

void stats_task_gone(struct cox_engine *e, struct cox_task *t)
{
    if (t->counted != COX_TASK_NONE)
        e->stats.n_tasks_by_status[t->counted]--;
    t->counted = COX_TASK_NONE;
}

void stats_task_finished(struct cox_engine *e, const struct cox_task *t, enum cox_task_status status)
{
    e->stats.tasks_finished[status]++;
    histogram_add(&e->stats.task_duration, (e->now.wall_ms - t->created_wall_ms) * 1000);
}

void stats_step_final(struct cox_engine *e, const struct cox_task *t, uint32_t step,
                      enum cox_step_status status)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    e->stats.steps_finished[status]++;
    e->stats.steps_finished_by_kind[doc.kind][status]++;
}

/* Steps that have not begun; linked or not. */
void stats_steps_cancelled(struct cox_engine *e, const struct cox_task *t)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        enum cox_step_status status = task_has_step(t, i) ? task_step_status(t, i) : COX_STEP_BLOCKED;
        if (status == COX_STEP_BLOCKED || status == COX_STEP_READY)
            stats_step_final(e, t, i, COX_STEP_CANCELLED);
    }
}

void stats_started(struct cox_engine *e, struct step *s)
{
    if (s->ready_mono_ns != 0)
        histogram_add(&e->stats.ready_to_start, (e->now.mono_ns - s->ready_mono_ns) / 1000);
    s->ready_mono_ns = 0;
}

/* ---- workers ---- */

enum worker_counted { COUNT_NONE, COUNT_ATTACHED, COUNT_CORDONED, COUNT_DRAINING, COUNT_DISCONNECTED };

static enum worker_counted worker_state(const struct worker *w)
{
    if (w->inner)
        return COUNT_NONE;
    if (w->session == 0)
        return (w->boot_id != NULL || w->n_attempts > 0) && !w->gone ? COUNT_DISCONNECTED : COUNT_NONE;
    if (w->draining)
        return COUNT_DRAINING;
    return w->cordoned ? COUNT_CORDONED : COUNT_ATTACHED;
}

static uint64_t *worker_counter(struct cox_engine *e, uint8_t counted)
{
    static uint64_t none;
    switch ((enum worker_counted)counted) {
    case COUNT_CORDONED:
        return &e->stats.n_workers_cordoned;
    case COUNT_DRAINING:
        return &e->stats.n_workers_draining;
    case COUNT_DISCONNECTED:
        return &e->stats.n_workers_disconnected;
    case COUNT_NONE:
    case COUNT_ATTACHED: /* n_attached less the others */
        break;
    }
    return &none;
}

void stats_worker(struct cox_engine *e, struct worker *w)
{
    enum worker_counted state = worker_state(w);
    if (w->counted == state)
        return;
    --*worker_counter(e, w->counted);
    ++*worker_counter(e, (uint8_t)state);
    w->counted = (uint8_t)state;
}

/* Number 0 has no name, 1 is "other". */
static void zone_add(struct cox_engine *e, struct cox_slice name)
{
    e->zone_list[e->n_zones].name = text_own(name);
    if (e->n_zones > 0) /* a map holds no zero */
        cox_mapb_set(&e->zones, cox_slice_str(e->zone_list[e->n_zones].name), (void *)(uintptr_t)e->n_zones);
    e->n_zones++;
}

static uint16_t zone_of(struct cox_engine *e, const struct worker *w)
{
    struct cox_slice name = { 0 };
    if (e->n_zones == 0) {
        e->zone_list = cox_calloc(STATS_ZONES_MAX + 2, sizeof e->zone_list[0]);
        zone_add(e, cox_slice_str(""));
        zone_add(e, cox_slice_str("other"));
    }
    for (size_t i = 0; i < w->n_labels; i++)
        if (cox_slice_is(w->labels[i].name, "zone"))
            name = w->labels[i].value;
    if (name.len == 0)
        return 0;
    uint32_t no = (uint32_t)(uintptr_t)cox_mapb_get(&e->zones, name);
    if (no == 0 && e->n_zones < STATS_ZONES_MAX + 2) {
        no = e->n_zones;
        zone_add(e, name);
    }
    return (uint16_t)(no != 0 ? no : 1);
}

bool cox_engine_next_zone(const struct cox_engine *e, size_t *it, struct cox_zone_view *ret)
{
    while (*it < e->n_zones) {
        const struct zone *z = &e->zone_list[(*it)++];
        if (z->n_slots > 0) {
            *ret = (struct cox_zone_view){ cox_slice_str(z->name), z->n_slots, z->n_busy };
            return true;
        }
    }
    return false;
}

/* Attempts beyond the slots wait in the worker. */
void stats_slot(struct cox_engine *e, const struct worker *w, int n)
{
    bool busy = w->n_attempts + (n < 0 ? 1u : 0u) <= w->slots;
    if (w->session == 0 || !busy || w->inner)
        return;
    e->stats.n_slots_busy += (uint64_t)(int64_t)n;
    e->zone_list[w->zone_no].n_busy += (uint64_t)(int64_t)n;
}

void stats_slots(struct cox_engine *e, struct worker *w, int n)
{
    if (w->inner)
        return; /* its slots are no host's */
    if (n > 0)
        w->zone_no = zone_of(e, w);
    struct zone *z = &e->zone_list[w->zone_no];
    uint64_t busy = w->n_attempts < w->slots ? w->n_attempts : w->slots;
    e->stats.n_slots += (uint64_t)(int64_t)n * w->slots;
    e->stats.n_slots_busy += (uint64_t)(int64_t)n * busy;
    z->n_slots += (uint64_t)(int64_t)n * w->slots;
    z->n_busy += (uint64_t)(int64_t)n * busy;
}

void stats_free(struct cox_engine *e)
{
    for (uint32_t i = 1; i < e->n_tenants; i++)
        cox_free(e->tenant_names[i]);
    cox_free(e->tenant_names);
    cox_mapb_fini(&e->tenants);
    for (uint32_t i = 0; i < e->n_zones; i++)
        cox_free(e->zone_list[i].name);
    cox_free(e->zone_list);
    cox_mapb_fini(&e->zones);
}

void cox_engine_stats(const struct cox_engine *e, struct cox_engine_stats *ret)
{
    *ret = e->stats;
    ret->n_live_tasks = e->tasks.len;
    ret->n_live_steps = e->n_live_steps;
    ret->n_workers = e->n_attached;
    ret->n_tasks_asleep = e->sleepers.len;
    ret->n_tasks_by_status[COX_TASK_WAITING] += e->sleepers.len - e->n_asleep_paused;
    ret->n_tasks_by_status[COX_TASK_PAUSED] += e->n_asleep_paused;
}
