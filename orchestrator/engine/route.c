#include "route.h"

#include "expand/map.h"
#include "gate.h"
#include "stats.h"
#include "workspace.h"

#include <string.h>

/* ---- frames ---- */

static bool step_extras(const struct cox_image *img, uint32_t step, struct cox_image_extras *ret)
{
    struct cox_image_step doc;
    cox_image_step(img, step, &doc);
    if (doc.extras == COX_IMAGE_NONE)
        return false;
    cox_image_extras(img, doc.extras, ret);
    return true;
}

/* Frames over a range of their parent's image share what is known of the image. */
struct cox_task *image_owner(struct cox_task *t)
{
    while (t->parent != NULL && !t->own_image)
        t = t->parent;
    return t;
}

bool step_affinity(const struct cox_image *img, uint32_t step, enum cox_affinity_kind kind,
                   uint32_t *ret_step)
{
    struct cox_image_extras x;
    if (!step_extras(img, step, &x) || x.affinity != kind)
        return false;
    *ret_step = x.affinity_step;
    return true;
}

/* ---- versions ---- */

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Skips zeroes in front, and returns how many digits follow. */
static size_t number_len(struct cox_slice *s)
{
    size_t n = 0;
    while (s->len > 1 && s->data[0] == '0' && is_digit(s->data[1]))
        *s = cox_slice(s->data + 1, s->len - 1);
    while (n < s->len && is_digit(s->data[n]))
        n++;
    return n;
}

int version_cmp(struct cox_slice a, struct cox_slice b)
{
    while (a.len > 0 && b.len > 0) {
        size_t na = number_len(&a), nb = number_len(&b);
        if (na != nb)
            return na < nb ? -1 : 1;
        size_t n = na > 0 ? na : 1;
        int order = memcmp(a.data, b.data, n);
        if (order != 0)
            return order;
        a = cox_slice(a.data + n, a.len - n);
        b = cox_slice(b.data + n, b.len - n);
    }
    return a.len > 0 ? 1 : b.len > 0 ? -1 : 0;
}

static struct cox_slice worker_version(const struct worker *w, const struct class *c)
{
    for (size_t i = 0; i < w->n_handlers; i++)
        if (cox_slice_eq(w->handlers[i], cox_slice(c->handler, c->handler_len)))
            return w->versions[i];
    return cox_slice(NULL, 0);
}

static struct cox_slice newest_offered(const struct cox_engine *e, const struct class *base)
{
    struct cox_slice newest = { NULL, 0 };
    COX_LIST_FOR_EACH (it, &e->fleet) {
        const struct worker *w = COX_CONTAINER_OF(it, struct worker, in_fleet);
        if (w->session == 0 || !class_fits(base, w))
            continue;
        struct cox_slice v = worker_version(w, base);
        if (v.len > 0 && (newest.len == 0 || version_cmp(v, newest) > 0))
            newest = v;
    }
    return newest;
}

static struct cox_slice version_pinned(const struct cox_task *t, uint32_t class_index)
{
    const struct cox_task *owner = image_owner((struct cox_task *)(uintptr_t)t);
    return cox_slice_str(owner->version_pins != NULL ? owner->version_pins[class_index] : NULL);
}

struct cox_slice version_of(const struct cox_task *t, uint32_t step, const struct step *s)
{
    struct cox_image_call call;
    step_call(t, step, s, &call);
    return call.class_index != COX_IMAGE_NONE ? version_pinned(t, call.class_index) : cox_slice(NULL, 0);
}

/* The pin of a program's class, made now if there is something to pin it to. */
static struct cox_slice version_pin(struct cox_engine *e, struct cox_task *t, uint32_t class_index,
                                    const struct class *base)
{
    struct cox_slice pinned = version_pinned(t, class_index);
    if (pinned.len > 0 || !base->is_program)
        return pinned;
    struct cox_slice newest = newest_offered(e, base);
    if (newest.len == 0)
        return newest;
    struct record r = { .type = RECORD_PINNED, .task = image_owner(t)->id, .wall_ms = e->now.wall_ms };
    r.u.pinned.class_index = class_index;
    r.u.pinned.version = newest;
    emit(e, &r);
    return version_pinned(t, class_index);
}

void versions_pin(struct cox_engine *e, struct cox_task *t)
{
    for (uint32_t i = 0; i < t->image.n_classes; i++) {
        struct cox_image_class doc;
        cox_image_class(&t->image, i, &doc);
        if (memchr(doc.handler.data, '@', doc.handler.len) == NULL)
            continue;
        if (t->classes[i] == NULL)
            t->classes[i] = class_acquire(e, &t->image, i);
        version_pin(e, t, i, t->classes[i]);
    }
}

/* ---- the choice ---- */

struct worker *affinity_worker(const struct cox_engine *e, const struct cox_task *t, uint32_t step,
                               enum cox_affinity_kind kind)
{
    while (step_affinity(&t->image, step, kind, &step)) {
        const struct cox_task *frame = frame_of(t, step);
        if (!task_has_step(frame, step))
            continue;
        const struct step *s = task_step(frame, step);
        if (s->n_attempts > 0 && s->worker != 0)
            return worker_by_ref(e, s->worker);
    }
    return NULL;
}

static void spread_key(struct cox_buf *key, const struct cox_task *t, const struct class *base,
                       struct cox_slice text)
{
    cox_put_u8(key, text.len > 0);
    if (text.len > 0) {
        cox_buf_append_str(key, t->root->tenant);
        cox_put_u8(key, 0);
    }
    cox_buf_append_slice(key, text.len > 0 ? text : base->key);
}

/* False: the step must fail, its files are lost. `key` keeps what the choice names. */
static bool choose(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct class *base,
                   uint32_t class_index, struct cox_buf *key, struct class_choice *ret)
{
    struct cox_image_extras x = { .affinity = COX_AFFINITY_NONE };
    struct worker *home;
    *ret = (struct class_choice){ .version = version_pin(e, t, class_index, base) };
    step_extras(&t->image, step, &x);
    if (x.affinity == COX_AFFINITY_SPREAD) {
        spread_key(key, t, base, x.spread);
        ret->spread = cox_buf_slice(key);
    } else if (x.affinity == COX_AFFINITY_STEP) {
        ret->only = affinity_worker(e, t, step, x.affinity);
        if (ret->only != NULL && ret->only->gone)
            ret->only = NULL;
    }
    enum workspace_choice where = workspace_choose(e, t, step, &home);
    if (where == WORKSPACE_HERE && !COX_PLANTED("workspace-moves"))
        ret->only = home;
    return where != WORKSPACE_LOST;
}

static void refuse_lost(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_buf text = { 0 };
    workspace_put_loss(e, t, step, &text);
    step_refuse(e, t, step, COX_CODE_WORKER_LOST, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

void route_enqueue(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    route_enqueue_call(e, t, step, &call);
}

void route_enqueue_call(struct cox_engine *e, struct cox_task *t, uint32_t step,
                        const struct cox_image_call *call)
{
    struct step *s = task_step(t, step);
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    struct class *base = t->classes[call->class_index];
    if (doc.extras == COX_IMAGE_NONE && !base->is_program) {
        class_enqueue(e, base, s, doc.priority);
        return;
    }
    struct cox_buf key = { 0 };
    struct class_choice choice;
    if (!choose(e, t, step, base, call->class_index, &key, &choice)) {
        refuse_lost(e, t, step);
    } else if (choice.only == NULL && choice.version.len == 0 && choice.spread.len == 0) {
        class_enqueue(e, base, s, doc.priority);
    } else {
        struct class *c = class_variant(e, base, &choice);
        hold_make(e, s)->cls = c;
        class_enqueue(e, c, s, doc.priority);
        if (c->only != NULL && c->only->session == 0)
            worker_watch_liveness(e, c->only);
    }
    cox_buf_fini(&key);
}

struct class *route_class(const struct cox_engine *e, const struct cox_task *t, const struct step *s)
{
    const struct hold *h = hold_get(e, s);
    if (h != NULL && h->cls != NULL)
        return h->cls;
    struct cox_image_call call;
    step_call(t, step_index(s), s, &call);
    return call.class_index != COX_IMAGE_NONE ? t->classes[call.class_index] : NULL;
}

/* Its class's use goes to the caller. */
static void hold_leave_class(struct cox_engine *e, struct step *s)
{
    struct hold *h = hold_get(e, s);
    if (h == NULL)
        return;
    h->cls = NULL;
    hold_tidy(e, h);
}

void route_dequeue(struct cox_engine *e, struct cox_task *t, struct step *s)
{
    struct class *c = route_class(e, t, s);
    class_dequeue(e, c, s);
    hold_leave_class(e, s);
    if (c->base != NULL)
        class_release(e, c);
}

bool route_is_lost(const struct cox_engine *e, const struct cox_task *t, uint32_t step)
{
    struct worker *home;
    return workspace_choose(e, (struct cox_task *)(uintptr_t)t, step, &home) == WORKSPACE_LOST;
}

void route_enqueue_again(struct cox_engine *e, struct cox_task *t, struct step *s)
{
    uint32_t step = step_index(s);
    if (s->x != NULL && s->x->map != NULL)
        map_place(e, t, step);
    else
        route_enqueue(e, t, step);
}

/* While it waited, its workspace has found a home, or lost one. */
static bool may_begin_in(const struct cox_engine *e, struct cox_task *t, uint32_t step,
                         const struct worker *w)
{
    struct worker *home;
    enum workspace_choice where = workspace_choose(e, t, step, &home);
    return where == WORKSPACE_NONE || where == WORKSPACE_ANYWHERE || (where == WORKSPACE_HERE && home == w);
}

bool route_take(struct cox_engine *e, struct class *c, struct step *s, struct worker *w)
{
    struct cox_task *t = step_page(s)->task;
    class_dequeue(e, c, s);
    hold_leave_class(e, s);
    if (!may_begin_in(e, t, step_index(s), w) && !COX_PLANTED("workspace-in-two-places")) {
        route_enqueue_again(e, t, s);
        settle_all(e);
        if (c->base != NULL)
            class_release(e, c);
        return false;
    }
    if (!c->is_program || c->version != NULL)
        return true;
    struct cox_image_call call;
    step_call(t, step_index(s), s, &call);
    struct cox_slice mine = worker_version(w, c);
    struct cox_slice pinned = version_pin(e, t, call.class_index, t->classes[call.class_index]);
    if (pinned.len == 0 || mine.len == 0 || cox_slice_eq(pinned, mine) || COX_PLANTED("any-version-will-do"))
        return true;
    route_enqueue_again(e, t, s);
    if (c->base != NULL)
        class_release(e, c);
    return false;
}

/* ---- attempts ---- */

static void spread_count(struct spread *sp, const struct worker *w, int n)
{
    uintptr_t now = (uintptr_t)cox_map64_get(&sp->n_by_worker, w->ref) + (uintptr_t)(intptr_t)n;
    if (now > 0)
        cox_map64_set(&sp->n_by_worker, w->ref, (void *)now);
    else
        cox_map64_remove(&sp->n_by_worker, w->ref);
}

void route_attempt_begun(struct cox_engine *e, struct class *c, struct cox_task *t, const struct worker *w)
{
    stats_running(e, c->base != NULL ? c->base : c, t, 1);
    if (c->base == NULL)
        return;
    c->n_users++;
    if (c->spread != NULL)
        spread_count(c->spread, w, 1);
}

void route_attempt_over(struct cox_engine *e, struct class *c, struct cox_task *t, const struct worker *w)
{
    stats_running(e, c->base != NULL ? c->base : c, t, -1);
    if (c->base == NULL)
        return;
    if (c->spread != NULL)
        spread_count(c->spread, w, -1);
    class_release(e, c);
}

struct class *route_restore(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct worker *w)
{
    struct cox_image_extras x;
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    struct class *base = t->classes[call.class_index];
    if (!step_extras(&t->image, step, &x) || x.affinity != COX_AFFINITY_SPREAD) {
        route_attempt_begun(e, base, t, w);
        return base;
    }
    struct cox_buf key = { 0 };
    spread_key(&key, t, base, x.spread);
    struct class *c = class_variant(e, base, &(struct class_choice){ .spread = cox_buf_slice(&key) });
    route_attempt_begun(e, c, t, w);
    class_release(e, c);
    cox_buf_fini(&key);
    return c;
}

/* Those that wait for it look once more: it is to be left, or has begun anew. What stays with it waits on. */
void route_worker_changed(struct cox_engine *e, struct worker *w)
{
    struct step **waiting = NULL;
    size_t n = 0, cap = 0;
    COX_LIST_FOR_EACH (it, &w->pinned) {
        const struct class *c = COX_CONTAINER_OF(it, struct class, in_pinned);
        for (uint32_t b = 0; b < c->queue.n_bands; b++) {
            COX_LIST_FOR_EACH (at, &c->queue.bands[b]->steps) {
                if (n == cap)
                    waiting = cox_realloc(waiting, cap = cap > 0 ? cap * 2 : 16, sizeof waiting[0]);
                waiting[n++] = COX_CONTAINER_OF(at, struct step, in_queue);
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        struct cox_task *t = step_page(waiting[i])->task;
        route_dequeue(e, t, waiting[i]);
        route_enqueue_again(e, t, waiting[i]);
        changed(e, t, step_index(waiting[i]));
    }
    cox_free(waiting);
    if (n > 0)
        settle_all(e);
}

/* Steps that wait for it find another way now, or fail. */
void route_worker_gone(struct cox_engine *e, struct worker *w)
{
    while (!cox_list_empty(&w->pinned)) {
        struct class *c = COX_CONTAINER_OF(w->pinned.next, struct class, in_pinned);
        struct step *s = queue_first(&c->queue);
        if (s == NULL) { /* only attempts keep it */
            cox_list_remove(&c->in_pinned);
            continue;
        }
        struct cox_task *t = step_page(s)->task;
        route_dequeue(e, t, s);
        route_enqueue_again(e, t, s);
        changed(e, t, step_index(s));
    }
    settle_all(e);
}
