/* Placement: classes of steps with the same shape, and workers with room.
 *
 * Steps of one class (handler, resources, requirements) wait in one queue, by priority, then in order of
 * becoming ready. A class with ready steps is `active` while it may find a worker, `parked` when those that
 * fit have no room, `homeless` when none fits. A worker that gains room serves the parked classes, longest
 * parked first, until it is full, so an end of an attempt does not look at all that waits. Workers with
 * credit stand in one line; who got a step goes to its end, which spreads work evenly. A dispatch allocates
 * nothing.
 *
 * Steps that have less choice than their class (one worker, one version, away from their like) wait in a
 * variant of it, a class like any other: so they do not stand in the way of those that have more. */
#include "budget.h"
#include "expand/map.h"
#include "gate.h"
#include "route.h"
#include "stats.h"

#include <string.h>

/* ---- classes ---- */

static void class_requirements(struct class *c, const struct cox_image *img, uint32_t index, uint32_t n)
{
    c->n_requires = n;
    c->requires = cox_calloc(n > 0 ? n : 1, sizeof c->requires[0]);
    for (uint32_t i = 0; i < n; i++) {
        struct cox_slice label, value;
        cox_image_require(img, index, i, &label, &value, &c->requires[i].negated);
        c->requires[i].label = text_own(label);
        c->requires[i].value = text_own(value);
    }
}

#define IDLE_CLASSES_MAX 1024
#define IDLE_VARIANTS_MAX 256

static uint32_t class_free_index(struct cox_engine *e)
{
    while (e->class_hint < e->n_classes_cap && e->classes[e->class_hint] != NULL)
        e->class_hint++;
    if (e->class_hint == e->n_classes_cap) {
        uint32_t old = e->n_classes_cap;
        e->n_classes_cap = old == 0 ? 64 : old * 2;
        e->classes = cox_realloc(e->classes, e->n_classes_cap, sizeof e->classes[0]);
        memset(e->classes + old, 0, (e->n_classes_cap - old) * sizeof e->classes[0]);
    }
    return e->class_hint;
}

static bool worker_eligible(const struct worker *w, const struct class *c)
{
    return c->index / 64 < w->n_eligible_words && (w->eligible[c->index / 64] >> (c->index % 64) & 1) != 0;
}

static void worker_set_eligible(struct worker *w, struct class *c, bool on)
{
    if (worker_eligible(w, c) == on)
        return;
    size_t word = c->index / 64;
    if (word >= w->n_eligible_words) {
        w->eligible = cox_realloc(w->eligible, word + 1, sizeof w->eligible[0]);
        memset(w->eligible + w->n_eligible_words, 0,
               (word + 1 - w->n_eligible_words) * sizeof w->eligible[0]);
        w->n_eligible_words = word + 1;
    }
    w->eligible[word] ^= 1ULL << (c->index % 64);
    c->n_eligible += on ? 1 : (uint32_t)-1;
}

static void class_list(struct class *c, struct cox_list *list)
{
    cox_list_remove(&c->in_active);
    cox_list_push_back(list, &c->in_active);
}

bool labels_satisfy(const struct requirement *r, const struct worker *w)
{
    bool equal = false;
    for (size_t i = 0; i < w->n_labels && !equal; i++)
        equal = cox_slice_is(w->labels[i].name, r->label) && cox_slice_is(w->labels[i].value, r->value);
    return equal != r->negated || COX_PLANTED("requirement-ignored");
}

static bool worker_offers(const struct worker *w, const struct class *c)
{
    for (size_t i = 0; i < w->n_handlers; i++)
        if (cox_slice_eq(w->handlers[i], cox_slice(c->handler, c->handler_len)))
            return c->version == NULL || w->versions[i].len == 0 || cox_slice_is(w->versions[i], c->version);
    return false;
}

bool resources_hold(const struct cox_resources *all, const struct cox_resources *r)
{
    return r->cpu_milli <= all->cpu_milli && r->memory_bytes <= all->memory_bytes &&
           r->disk_bytes <= all->disk_bytes;
}

bool class_fits(const struct class *c, const struct worker *w)
{
    bool offers = (c->only == NULL || c->only == w) && worker_offers(w, c);
    for (uint32_t i = 0; i < c->n_requires && offers; i++)
        offers = labels_satisfy(&c->requires[i], w);
    return offers && resources_hold(&w->resources, &c->resources);
}

static struct class *class_new(struct cox_engine *e, struct cox_slice key)
{
    struct class *c = COX_NEW(struct class);
    c->n_users = 1;
    c->index = class_free_index(e);
    e->classes[c->index] = c;
    c->key = cox_slice(text_own(key), key.len);
    cox_list_init(&c->in_active);
    cox_list_init(&c->in_idle);
    cox_list_init(&c->in_pinned);
    return c;
}

static void class_meets_fleet(struct cox_engine *e, struct class *c)
{
    if (c->only != NULL) {
        worker_set_eligible(c->only, c, c->only->session != 0 && class_fits(c, c->only));
        e->n_fits++;
        return;
    }
    COX_LIST_FOR_EACH (it, &e->fleet) {
        struct worker *w = COX_CONTAINER_OF(it, struct worker, in_fleet);
        worker_set_eligible(w, c, w->session != 0 && class_fits(c, w));
        e->n_fits++;
    }
}

struct class *class_acquire(struct cox_engine *e, const struct cox_image *img, uint32_t index)
{
    struct cox_image_class doc;
    cox_image_class(img, index, &doc);
    struct class *c = cox_mapb_get(&e->classes_by_key, doc.key);
    if (c != NULL) {
        if (c->n_users++ == 0) {
            cox_list_remove(&c->in_idle);
            e->n_idle_classes--;
        }
        return c;
    }
    c = class_new(e, doc.key);
    c->handler = text_own(doc.handler);
    c->handler_len = doc.handler.len;
    c->is_program = memchr(c->handler, '@', c->handler_len) != NULL;
    c->is_model = cox_slice_is(doc.handler, cox_step_kind_text(COX_KIND_MODEL));
    c->resources = doc.resources;
    class_requirements(c, img, index, doc.n_requires);
    cox_mapb_set(&e->classes_by_key, c->key, c);
    class_meets_fleet(e, c);
    return c;
}

/* ---- variants ---- */

static struct spread *spread_acquire(struct cox_engine *e, struct cox_slice key)
{
    struct spread *sp = cox_mapb_get(&e->spreads, key);
    if (sp == NULL) {
        sp = COX_NEW(struct spread);
        sp->key = cox_slice(text_own(key), key.len);
        cox_mapb_set(&e->spreads, sp->key, sp);
    }
    sp->n_users++;
    return sp;
}

static void spread_release(struct cox_engine *e, struct spread *sp)
{
    if (sp == NULL || --sp->n_users > 0)
        return;
    cox_mapb_remove(&e->spreads, sp->key);
    cox_map64_fini(&sp->n_by_worker);
    cox_free((void *)(uintptr_t)sp->key.data);
    cox_free(sp);
}

struct class *class_variant(struct cox_engine *e, struct class *base, const struct class_choice *choice)
{
    struct cox_buf key = { 0 };
    cox_put_u32(&key, base->index); /* its own while the variant holds it */
    cox_put_u32(&key, choice->only != NULL ? choice->only->ref : 0);
    cox_put_bytes(&key, choice->version);
    cox_put_bytes(&key, choice->spread);
    struct class *c = cox_mapb_get(&e->variants_by_key, cox_buf_slice(&key));
    if (c == NULL) {
        c = class_new(e, cox_buf_slice(&key));
        c->n_users = 0;
        c->base = base;
        base->n_users++;
        c->handler = base->handler;
        c->handler_len = base->handler_len;
        c->is_program = base->is_program;
        c->is_model = base->is_model;
        c->resources = base->resources;
        c->requires = base->requires;
        c->n_requires = base->n_requires;
        c->only = choice->only;
        c->version = choice->version.len > 0 ? text_own(choice->version) : NULL;
        c->spread = choice->spread.len > 0 ? spread_acquire(e, choice->spread) : NULL;
        cox_mapb_set(&e->variants_by_key, c->key, c);
        if (c->only != NULL)
            cox_list_push_back(&c->only->pinned, &c->in_pinned);
        class_meets_fleet(e, c);
    } else if (c->n_users == 0) {
        cox_list_remove(&c->in_idle);
        e->n_idle_variants--;
    }
    c->n_users++;
    cox_buf_fini(&key);
    return c;
}

static void class_free(struct cox_engine *e, struct class *c)
{
    if (c->only != NULL)
        worker_set_eligible(c->only, c, false);
    COX_LIST_FOR_EACH (it, &e->fleet)
        if (c->only == NULL)
            worker_set_eligible(COX_CONTAINER_OF(it, struct worker, in_fleet), c, false);
    cox_mapb_remove(c->base != NULL ? &e->variants_by_key : &e->classes_by_key, c->key);
    cox_list_remove(&c->in_pinned);
    e->classes[c->index] = NULL;
    if (c->index < e->class_hint)
        e->class_hint = c->index;
    spread_release(e, c->spread);
    for (uint32_t i = 0; c->base == NULL && i < c->n_requires; i++) {
        cox_free(c->requires[i].label);
        cox_free(c->requires[i].value);
    }
    queue_fini(&c->queue);
    if (c->base != NULL) {
        class_release(e, c->base);
    } else {
        cox_free(c->requires);
        cox_free(c->handler);
    }
    cox_free(c->by_tenant);
    cox_free(c->version);
    cox_free((void *)(uintptr_t)c->key.data);
    cox_free(c);
}

static void variants_free_idle(struct cox_engine *e, uint32_t n_left)
{
    for (; e->n_idle_variants > n_left; e->n_idle_variants--) {
        struct class *c = COX_CONTAINER_OF(e->idle_variants.next, struct class, in_idle);
        cox_list_remove(&c->in_idle);
        class_free(e, c);
    }
}

void classes_free_idle(struct cox_engine *e, uint32_t n_left)
{
    for (; e->n_idle_classes > n_left; e->n_idle_classes--) {
        struct class *c = COX_CONTAINER_OF(e->idle_classes.next, struct class, in_idle);
        cox_list_remove(&c->in_idle);
        class_free(e, c);
    }
}

/* A class costs a look at every worker, and short tasks of one shape come one after the other: it is kept. */
void class_release(struct cox_engine *e, struct class *c)
{
    if (c == NULL || --c->n_users > 0)
        return;
    COX_ASSERT(c->queue.n == 0);
    if (c->only != NULL) { /* cost a look at one worker */
        class_free(e, c);
        return;
    }
    if (c->base != NULL) {
        cox_list_push_back(&e->idle_variants, &c->in_idle);
        e->n_idle_variants++;
        variants_free_idle(e, IDLE_VARIANTS_MAX);
        return;
    }
    cox_list_push_back(&e->idle_classes, &c->in_idle);
    e->n_idle_classes++;
    classes_free_idle(e, IDLE_CLASSES_MAX);
}

/* ---- queues ---- */

static struct band *queue_band(struct step_queue *q, int32_t priority)
{
    uint32_t at = 0;
    while (at < q->n_bands && (q->bands[at]->priority > priority) != COX_PLANTED("low-priority-first"))
        at++;
    if (at < q->n_bands && q->bands[at]->priority == priority)
        return q->bands[at];
    q->bands = cox_realloc(q->bands, q->n_bands + 1, sizeof q->bands[0]);
    memmove(q->bands + at + 1, q->bands + at, (q->n_bands - at) * sizeof q->bands[0]);
    q->n_bands++;
    q->bands[at] = COX_NEW(struct band);
    cox_list_init(&q->bands[at]->steps);
    q->bands[at]->priority = priority;
    return q->bands[at];
}

void queue_push(struct step_queue *q, struct step *s, int32_t priority)
{
    cox_list_push_back(&queue_band(q, priority)->steps, &s->in_queue);
    q->n++;
}

void queue_remove(struct step_queue *q, struct step *s)
{
    cox_list_remove(&s->in_queue);
    q->n--;
}

struct step *queue_first(const struct step_queue *q)
{
    for (uint32_t i = 0; i < q->n_bands; i++)
        if (!cox_list_empty(&q->bands[i]->steps))
            return COX_CONTAINER_OF(q->bands[i]->steps.next, struct step, in_queue);
    return NULL;
}

void queue_fini(struct step_queue *q)
{
    for (uint32_t i = 0; i < q->n_bands; i++)
        cox_free(q->bands[i]);
    cox_free(q->bands);
}

void class_enqueue(struct cox_engine *e, struct class *c, struct step *s, int32_t priority)
{
    queue_push(&c->queue, s, priority);
    stats_queued(e, c, s, 1);
    e->stats.n_ready++;
    if (c->queue.n == 1)
        cox_list_push_back(&e->active, &c->in_active);
}

void class_dequeue(struct cox_engine *e, struct class *c, struct step *s)
{
    queue_remove(&c->queue, s);
    stats_queued(e, c, s, -1);
    e->stats.n_ready--;
    if (c->queue.n == 0)
        cox_list_remove(&c->in_active);
}

/* ---- workers' room ---- */

void resources_take(struct cox_resources *used, const struct cox_resources *r)
{
    used->cpu_milli += r->cpu_milli;
    used->memory_bytes += r->memory_bytes;
    used->disk_bytes += r->disk_bytes;
}

void resources_give(struct cox_resources *used, const struct cox_resources *r)
{
    used->cpu_milli -= r->cpu_milli;
    used->memory_bytes -= r->memory_bytes;
    used->disk_bytes -= r->disk_bytes;
}

bool worker_has_room(const struct worker *w, const struct class *c)
{
    return c->resources.cpu_milli <= w->resources.cpu_milli - w->used.cpu_milli &&
           (c->resources.memory_bytes <= w->resources.memory_bytes - w->used.memory_bytes ||
            COX_PLANTED("memory-not-counted")) &&
           c->resources.disk_bytes <= w->resources.disk_bytes - w->used.disk_bytes;
}

#define UNSTARTED_LEN_MAX COX_SPEC_LEN_MAX /* twice this fits into a stream's outbox */

/* Who had the router's name once may have left a cordon with it, and nobody could lift that. */
bool worker_is_cordoned(const struct worker *w)
{
    return w->cordoned && (!w->inner || COX_PLANTED("router-cordoned"));
}

bool worker_available(const struct worker *w)
{
    return w->session != 0 && !w->draining && (!worker_is_cordoned(w) || COX_PLANTED("cordon-ignored")) &&
           w->granted + COX_PLANTED("credit-off-by-one") > w->taken && w->unstarted_len < UNSTARTED_LEN_MAX;
}

void placement_worker_changed(struct cox_engine *e, struct worker *w)
{
    if (!worker_available(w)) {
        cox_list_remove(&w->in_available);
        cox_list_remove(&w->in_woken);
        return;
    }
    if (cox_list_empty(&w->in_available))
        cox_list_push_back(&e->available, &w->in_available);
    if (cox_list_empty(&w->in_woken) && !COX_PLANTED("parked-forgotten"))
        cox_list_push_back(&e->woken, &w->in_woken);
}

static void class_meets(struct cox_engine *e, struct class *c, struct worker *w)
{
    worker_set_eligible(w, c, class_fits(c, w));
    if (c->queue.n > 0 && c->n_eligible == 1 && worker_eligible(w, c))
        class_list(c, &e->active); /* was homeless */
}

void placement_worker_classes(struct cox_engine *e, struct worker *w)
{
    for (uint32_t i = 0; i < e->n_classes_cap; i++)
        if (e->classes[i] != NULL)
            class_meets(e, e->classes[i], w);
}

void placement_worker_gone(struct cox_engine *e, struct worker *w)
{
    cox_list_remove(&w->in_available);
    cox_list_remove(&w->in_woken);
    for (uint32_t i = 0; i < e->n_classes_cap; i++)
        if (e->classes[i] != NULL)
            worker_set_eligible(w, e->classes[i], false);
}

static struct worker *pick_worker(const struct cox_engine *e, const struct class *c)
{
    if (c->n_eligible == 0)
        return NULL;
    struct worker *second = NULL;
    COX_LIST_FOR_EACH (it, &e->available) {
        struct worker *w = COX_CONTAINER_OF(it, struct worker, in_available);
        if (!worker_eligible(w, c) || !worker_has_room(w, c))
            continue;
        if (c->spread == NULL || cox_map64_get(&c->spread->n_by_worker, w->ref) == NULL)
            return w;
        if (second == NULL)
            second = w;
    }
    return second;
}

static void dispatch_to(struct cox_engine *e, struct class *c, struct worker *w)
{
    struct step *s = queue_first(&c->queue);
    struct cox_task *t = step_page(s)->task;
    uint32_t step = step_index(s);
    struct cox_slice spec;
    if (!route_take(e, c, s, w))
        return;
    const char *spent = NULL;
    enum budget_verdict verdict = s->status == COX_STEP_WAITING ? BUDGET_GOES : budget_asks(e, t, c, &spent);
    if (s->status == COX_STEP_WAITING) {
        map_dispatch(e, c, s, w);
    } else if (verdict == BUDGET_WAITS) {
        e->n_unplaced++;
        budget_wait(e, t, s);
    } else if (verdict == BUDGET_SPENT) {
        e->n_unplaced++;
        step_refuse(e, t, step, COX_CODE_BUDGET_EXHAUSTED, cox_slice_str(spent));
        settle_all(e);
    } else if (step_spec(e, t, step, &spec)) {
        attempt_assign(e, t, step, w, c, spec);
    } else {
        e->n_unplaced++;
        settle_all(e); /* refused: its dependants may be ready or skipped now */
    }
    if (c->base != NULL)
        class_release(e, c);
    cox_list_remove(&w->in_available);
    if (worker_available(w))
        cox_list_push_back(&e->available, &w->in_available);
}

/* The first parked class that has a step for the worker. */
static struct class *pick_class(struct cox_engine *e, const struct worker *w)
{
    COX_LIST_FOR_EACH (it, &e->parked) {
        struct class *c = COX_CONTAINER_OF(it, struct class, in_active);
        if (worker_eligible(w, c) && worker_has_room(w, c))
            return c;
    }
    return NULL;
}

/* What is assigned is bounded by the room that workers have. What is refused is bounded by nothing: the next
 * turn goes on with it. */
static bool turn_is_over(const struct cox_engine *e)
{
    return e->n_unplaced >= COX_LINK_STEPS_PER_TURN && !COX_PLANTED("refuses-all-in-one-turn");
}

bool placement_goes_on(const struct cox_engine *e)
{
    return !cox_list_empty(&e->woken) || !cox_list_empty(&e->active);
}

static void serve_parked(struct cox_engine *e, struct worker *w)
{
    struct class *c;
    while (!turn_is_over(e) && worker_available(w) && (c = pick_class(e, w)) != NULL) {
        class_list(c, &e->parked); /* to its end: classes take turns */
        dispatch_to(e, c, w);
    }
}

static void dispatch(struct cox_engine *e)
{
    while (!turn_is_over(e) && !cox_list_empty(&e->woken)) {
        struct worker *w = COX_CONTAINER_OF(e->woken.next, struct worker, in_woken);
        cox_list_remove(&w->in_woken);
        serve_parked(e, w);
        if (turn_is_over(e) && worker_available(w) && cox_list_empty(&w->in_woken))
            cox_list_push_front(&e->woken, &w->in_woken);
    }
    while (!turn_is_over(e) && !cox_list_empty(&e->active)) { /* classes take turns, a step each */
        struct class *c = COX_CONTAINER_OF(e->active.next, struct class, in_active);
        struct worker *w = pick_worker(e, c);
        class_list(c, w != NULL ? &e->active : c->n_eligible > 0 ? &e->parked : &e->homeless);
        if (w != NULL)
            dispatch_to(e, c, w);
    }
}

/* What is dispatched may end at once, and leave its place at a gate, or what it waited for, to others. */
void placement_dispatch(struct cox_engine *e)
{
    e->n_unplaced = 0;
    do {
        gates_run(e);
        budgets_run(e);
        dispatch(e);
    } while (!cox_list_empty(&e->gates_due) || !cox_list_empty(&e->budgets_due));
}

/* ---- life ---- */

void placement_init(struct cox_engine *e)
{
    cox_list_init(&e->idle_variants);
    cox_list_init(&e->gates_due);
    cox_list_init(&e->budgets_due);
}

void placement_fini(struct cox_engine *e)
{
    gates_free(e);
    variants_free_idle(e, 0);
    classes_free_idle(e, 0);
    cox_mapb_fini(&e->variants_by_key);
    cox_mapb_fini(&e->spreads);
    stats_free(e);
}

/* What waits could not have been placed. For tests. */
void placement_check(const struct cox_engine *e)
{
    if (turn_is_over(e))
        return;
    COX_ASSERT(!placement_goes_on(e));
    COX_LIST_FOR_EACH (it, &e->parked)
        COX_ASSERT(pick_worker(e, COX_CONTAINER_OF(it, struct class, in_active)) == NULL);
    COX_LIST_FOR_EACH (it, &e->homeless)
        COX_ASSERT(COX_CONTAINER_OF(it, struct class, in_active)->n_eligible == 0);
}
