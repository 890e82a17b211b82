/* Facts behind a READY step's reason: who could run it, and what it waits for. */
#include "gate.h"
#include "route.h"

#include <string.h>

#define AHEAD_MAX 100000u /* steps looked at in a queue */

static bool offers(const struct worker *w, const struct class *c, struct cox_slice *ret_version)
{
    for (size_t i = 0; i < w->n_handlers; i++) {
        if (!cox_slice_eq(w->handlers[i], cox_slice(c->handler, c->handler_len)))
            continue;
        *ret_version = w->versions[i];
        return true;
    }
    return false;
}

static bool has_labels(const struct worker *w, const struct class *c)
{
    for (uint32_t i = 0; i < c->n_requires; i++)
        if (!labels_satisfy(&c->requires[i], w))
            return false;
    return true;
}

static void count_worker(const struct worker *w, const struct class *c, struct cox_slice pinned,
                         struct cox_step_why *ret)
{
    struct cox_slice version = { NULL, 0 };
    ret->n_workers++;
    if (!offers(w, c, &version))
        return;
    ret->n_offer++;
    if (pinned.len > 0 && version.len > 0 && !cox_slice_eq(version, pinned))
        return;
    ret->n_version++;
    if (!has_labels(w, c))
        return;
    ret->n_labels++;
    if (!resources_hold(&w->resources, &c->resources))
        return;
    ret->n_fit++;
    if (worker_is_cordoned(w) || w->draining)
        ret->n_cordoned++;
    else if (worker_available(w) && worker_has_room(w, c))
        ret->n_free++;
}

/* Steps in front of it in its queue, as far as is looked. */
static uint32_t count_ahead(const struct step_queue *q, const struct step *s)
{
    uint32_t n = 0;
    for (uint32_t b = 0; b < q->n_bands; b++) {
        COX_LIST_FOR_EACH (it, &q->bands[b]->steps) {
            if (it == &s->in_queue || n == AHEAD_MAX)
                return n;
            n++;
        }
    }
    return n;
}

static void see_gate(const struct hold *h, struct cox_step_why *ret)
{
    const struct gate *g = h->concurrency != NULL && !h->permitted ? h->concurrency : h->rate;
    ret->gate = gate_text(g);
    ret->gate_limit = g->limit;
    ret->gate_used = g->n_used;
    ret->n_ahead = count_ahead(&g->waiting, h->step);
}

void cox_step_why(const struct cox_engine *e, const struct cox_task *t, uint32_t step,
                  struct cox_step_why *ret)
{
    memset(ret, 0, sizeof *ret);
    if (!task_has_step(t, step))
        return;
    const struct step *s = task_step(t, step);
    const struct hold *h = hold_get(e, s);
    const struct class *c = route_class(e, t, s);
    if (s->flags & STEP_GATED)
        see_gate(h, ret);
    if (c == NULL)
        return;
    ret->handler = cox_slice(c->handler, c->handler_len);
    ret->version = version_of(t, step, s);
    ret->worker = cox_slice_str(c->only != NULL ? c->only->id : NULL);
    COX_LIST_FOR_EACH (it, &e->fleet) {
        const struct worker *w = COX_CONTAINER_OF(it, struct worker, in_fleet);
        if (w->session != 0 && (c->only == NULL || c->only == w) && (!w->inner || c->is_model))
            count_worker(w, c, ret->version, ret);
    }
    if (!cox_list_empty(&s->in_queue) && !(s->flags & (STEP_GATED | STEP_UNEVALUATED)))
        ret->n_ahead = count_ahead(&c->queue, s);
}
