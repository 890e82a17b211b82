/* Placement: classes of steps with the same shape, and workers with room.
 *
 * Steps of one class (handler, resources, requirements) wait in one queue, by priority, then in order of
 * becoming ready. A class with ready steps is `active` while it may find a worker, `parked` when those that
 * fit have no room, `homeless` when none fits. A worker that gains room serves the parked classes, longest
 * parked first, until it is full, so an end of an attempt does not look at all that waits. Workers with
 * credit stand in one line; who got a step goes to its end, which spreads work evenly. A dispatch allocates
 * nothing. */
#include "expand/map.h"
#include "state.h"

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

static bool labels_satisfy(const struct requirement *r, const struct worker *w)
{
    bool equal = false;
    for (size_t i = 0; i < w->n_labels && !equal; i++)
        equal = cox_slice_is(w->labels[i].name, r->label) && cox_slice_is(w->labels[i].value, r->value);
    return equal != r->negated;
}

static bool class_fits(const struct class *c, const struct worker *w)
{
    bool offers = false;
    for (size_t i = 0; i < w->n_handlers && !offers; i++)
        offers = cox_slice_eq(w->handlers[i], cox_slice(c->handler, c->handler_len));
    for (uint32_t i = 0; i < c->n_requires && offers; i++)
        offers = labels_satisfy(&c->requires[i], w);
    return offers && c->resources.cpu_milli <= w->resources.cpu_milli &&
           c->resources.memory_bytes <= w->resources.memory_bytes &&
           c->resources.disk_bytes <= w->resources.disk_bytes;
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
    c = COX_NEW(struct class);
    c->n_users = 1;
    c->index = class_free_index(e);
    e->classes[c->index] = c;
    c->key = cox_slice(text_own(doc.key), doc.key.len);
    c->handler = text_own(doc.handler);
    c->handler_len = doc.handler.len;
    c->resources = doc.resources;
    class_requirements(c, img, index, doc.n_requires);
    cox_list_init(&c->in_active);
    cox_list_init(&c->in_idle);
    cox_mapb_set(&e->classes_by_key, c->key, c);
    COX_LIST_FOR_EACH (it, &e->fleet) {
        struct worker *w = COX_CONTAINER_OF(it, struct worker, in_fleet);
        worker_set_eligible(w, c, w->session != 0 && class_fits(c, w));
        e->n_fits++;
    }
    return c;
}

static void class_free(struct cox_engine *e, struct class *c)
{
    COX_LIST_FOR_EACH (it, &e->fleet)
        worker_set_eligible(COX_CONTAINER_OF(it, struct worker, in_fleet), c, false);
    cox_mapb_remove(&e->classes_by_key, c->key);
    e->classes[c->index] = NULL;
    if (c->index < e->class_hint)
        e->class_hint = c->index;
    for (uint32_t i = 0; i < c->n_requires; i++) {
        cox_free(c->requires[i].label);
        cox_free(c->requires[i].value);
    }
    queue_fini(&c->queue);
    cox_free(c->requires);
    cox_free((void *)(uintptr_t)c->key.data);
    cox_free(c->handler);
    cox_free(c);
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
    cox_list_push_back(&e->idle_classes, &c->in_idle);
    e->n_idle_classes++;
    classes_free_idle(e, IDLE_CLASSES_MAX);
}

/* ---- queues ---- */

static struct band *queue_band(struct step_queue *q, int32_t priority)
{
    uint32_t at = 0;
    while (at < q->n_bands && q->bands[at]->priority > priority)
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
    e->stats.n_ready++;
    if (c->queue.n == 1)
        cox_list_push_back(&e->active, &c->in_active);
}

void class_dequeue(struct cox_engine *e, struct class *c, struct step *s)
{
    queue_remove(&c->queue, s);
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

static bool worker_has_room(const struct worker *w, const struct class *c)
{
    return c->resources.cpu_milli <= w->resources.cpu_milli - w->used.cpu_milli &&
           c->resources.memory_bytes <= w->resources.memory_bytes - w->used.memory_bytes &&
           c->resources.disk_bytes <= w->resources.disk_bytes - w->used.disk_bytes;
}

#define UNSTARTED_LEN_MAX COX_SPEC_LEN_MAX /* twice this fits into a stream's outbox */

bool worker_available(const struct worker *w)
{
    return w->session != 0 && !w->draining && w->granted > w->taken && w->unstarted_len < UNSTARTED_LEN_MAX;
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
    if (cox_list_empty(&w->in_woken))
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
    COX_LIST_FOR_EACH (it, &e->available) {
        struct worker *w = COX_CONTAINER_OF(it, struct worker, in_available);
        if (worker_eligible(w, c) && worker_has_room(w, c))
            return w;
    }
    return NULL;
}

static void dispatch_to(struct cox_engine *e, struct class *c, struct worker *w)
{
    struct step *s = queue_first(&c->queue);
    struct cox_task *t = step_page(s)->task;
    uint32_t step = step_index(s);
    struct cox_slice spec;
    class_dequeue(e, c, s);
    if (s->status == COX_STEP_WAITING) {
        map_dispatch(e, c, s, w);
    } else if (step_spec(e, t, step, &spec)) {
        attempt_assign(e, t, step, w, c, spec);
    } else {
        settle_all(e); /* refused: its dependants may be ready or skipped now */
        return;
    }
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

static void serve_parked(struct cox_engine *e, struct worker *w)
{
    struct class *c;
    while (worker_available(w) && (c = pick_class(e, w)) != NULL) {
        class_list(c, &e->parked); /* to its end: classes take turns */
        dispatch_to(e, c, w);
    }
}

void placement_dispatch(struct cox_engine *e)
{
    while (!cox_list_empty(&e->woken)) {
        struct worker *w = COX_CONTAINER_OF(e->woken.next, struct worker, in_woken);
        cox_list_remove(&w->in_woken);
        serve_parked(e, w);
    }
    while (!cox_list_empty(&e->active)) { /* classes take turns, a step each */
        struct class *c = COX_CONTAINER_OF(e->active.next, struct class, in_active);
        struct worker *w = pick_worker(e, c);
        class_list(c, w != NULL ? &e->active : c->n_eligible > 0 ? &e->parked : &e->homeless);
        if (w != NULL)
            dispatch_to(e, c, w);
    }
}

/* What waits could not have been placed. For tests. */
void placement_check(const struct cox_engine *e)
{
    COX_ASSERT(cox_list_empty(&e->active) && cox_list_empty(&e->woken));
    COX_LIST_FOR_EACH (it, &e->parked)
        COX_ASSERT(pick_worker(e, COX_CONTAINER_OF(it, struct class, in_active)) == NULL);
    COX_LIST_FOR_EACH (it, &e->homeless)
        COX_ASSERT(COX_CONTAINER_OF(it, struct class, in_active)->n_eligible == 0);
}
