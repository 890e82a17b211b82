#include "hint.h"

#include "budget.h"
#include "expand/map.h"

#include <string.h>

#define MEAN_SHARE 8        /* of the latest in the moving mean */
#define STEP_GUESS_MS 1000u /* of a class of which nothing has ended yet */
#define DEPENDANTS_LOOKED_AT 16u

static struct class *base_of(struct class *c)
{
    return c->base != NULL ? c->base : c;
}

void hint_ran(struct class *c, uint64_t run_us)
{
    c = base_of(c);
    c->run_us = c->run_us == 0 ? run_us : c->run_us - c->run_us / MEAN_SHARE + run_us / MEAN_SHARE;
}

/* ---- the critical path ---- */

static uint64_t own_ms(const struct cox_task *t, uint32_t step)
{
    struct cox_image_step doc;
    struct cox_image_call call;
    cox_image_step(&t->image, step, &doc);
    if (doc.call == COX_IMAGE_NONE)
        return STEP_GUESS_MS;
    cox_image_call(&t->image, doc.call, &call);
    if (call.kind == COX_KIND_WAIT && call.wait == COX_WAIT_FOR)
        return (uint64_t)call.wait_ms;
    const struct class *c = call.class_index != COX_IMAGE_NONE ? t->classes[call.class_index] : NULL;
    return c != NULL && c->run_us > 0 ? c->run_us / 1000 : STEP_GUESS_MS;
}

/* From the ends of the graph to its beginnings, each edge once. */
static uint32_t *after_all(const struct cox_task *t)
{
    uint32_t n = t->image.n_steps, n_done = 0, n_known = 0;
    uint32_t *after_ms = cox_calloc(n, sizeof *after_ms), *left = cox_calloc(n, sizeof *left);
    uint32_t *order = cox_calloc(n, sizeof *order);
    struct cox_image_step doc;
    for (uint32_t i = 0; i < n; i++) {
        cox_image_step(&t->image, i, &doc);
        left[i] = doc.n_dependants;
        if (left[i] == 0)
            order[n_known++] = i;
    }
    while (n_done < n_known) {
        uint32_t i = order[n_done++];
        uint64_t ms = after_ms[i] + own_ms(t, i);
        cox_image_step(&t->image, i, &doc);
        for (uint32_t k = 0; k < doc.n_needs; k++) {
            uint32_t need = cox_image_need(&t->image, i, k);
            if (after_ms[need] < ms)
                after_ms[need] = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
            if (--left[need] == 0)
                order[n_known++] = need;
        }
    }
    cox_free(left);
    cox_free(order);
    return after_ms;
}

/* The document's own step: what is inside of it has no dependants. */
static uint32_t outermost(const struct cox_task *t, uint32_t step)
{
    struct cox_image_step doc;
    for (cox_image_step(&t->image, step, &doc); doc.owner != COX_IMAGE_NONE;
         cox_image_step(&t->image, step, &doc))
        step = doc.owner;
    return step;
}

static uint64_t after(struct cox_task *t, uint32_t step)
{
    uint64_t ms = 0;
    for (;;) {
        while (!t->own_image) /* a range of what it is in */
            t = t->parent;
        if (t->after_ms == NULL)
            t->after_ms = after_all(t);
        ms += t->after_ms[outermost(t, step)];
        if (t->parent == NULL)
            return ms;
        step = t->parent_step;
        t = t->parent;
    }
}

/* ---- what waits with it ---- */

static uint32_t siblings(const struct attempt *a)
{
    const struct cox_task *t = a->task;
    uint32_t step = outermost(t, a->step_index), most = 0;
    struct cox_image_step doc;
    if (a->items_of != NULL) {
        const struct map *m = a->step->x->map;
        uint64_t open = m->n_items - m->n_done - m->n_failed;
        return open > 1 ? (uint32_t)(open - 1) : 0;
    }
    if (!task_contains(t, step) || !task_is_member(t, step))
        return 0;
    cox_image_step(&t->image, step, &doc);
    for (uint32_t i = 0; i < doc.n_dependants && i < DEPENDANTS_LOOKED_AT; i++) {
        uint32_t d = cox_image_dependant(&t->image, step, i);
        if (task_contains(t, d) && task_has_step(t, d) && task_step(t, d)->n_waiting > most + 1)
            most = task_step(t, d)->n_waiting - 1;
    }
    return most;
}

static uint64_t deadline_ms(const struct cox_engine *e, const struct cox_task *t)
{
    int64_t nearest = INT64_MAX;
    for (; t != NULL; t = t->parent) {
        int64_t from = t->revived_wall_ms > 0 ? t->revived_wall_ms : t->created_wall_ms;
        if (t->own_image && t->doc.deadline_ms > 0 && from + t->doc.deadline_ms < nearest)
            nearest = from + t->doc.deadline_ms;
    }
    if (nearest == INT64_MAX)
        return 0;
    return nearest > e->now.wall_ms ? (uint64_t)(nearest - e->now.wall_ms) : 1;
}

void hint_call(const struct cox_engine *e, const struct attempt *a, struct cox_call_hint *ret)
{
    struct cox_image_step doc;
    uint64_t left = budget_tokens_left(a->task);
    cox_image_step(&a->task->image, a->step_index, &doc);
    *ret = (struct cox_call_hint){ .priority = doc.priority,
                                   .critical_path_ms = after(a->task, a->step_index),
                                   .deadline_ms = deadline_ms(e, a->task),
                                   .tokens_left = left == COX_BUDGET_NONE ? 0
                                                  : left > 0              ? left
                                                                          : 1,
                                   .output_tokens = a->output_tokens,
                                   .siblings = siblings(a),
                                   .idempotent = doc.idempotent };
}

cox_task_id cox_engine_call_hint(const struct cox_engine *e, struct cox_ref ref,
                                 const struct cox_call_asked *asked, struct cox_call_hint *ret,
                                 struct cox_in_call *ret_call)
{
    enum cox_answer why;
    const struct attempt *a = attempt_find(e, ref, &why);

    if (a == NULL || a->cancelling)
        return 0;
    hint_call(e, a, ret);
    enum budget_verdict verdict = budget_calls(a->task);
    ret->spent = verdict == BUDGET_SPENT;
    ret->waits = verdict == BUDGET_WAITS;
    struct reservation r = budget_reservation(a->task, asked->len, asked->output_tokens, &ret->output_tokens);
    *ret_call = (struct cox_in_call){ .ref = ref, .reserved = r.reserved, .guessed = r.guessed };
    return a->task->root->id;
}

/* ---- what will come ---- */

static bool calls_model(const struct cox_task *t, uint32_t step)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    return doc.kind == COX_KIND_MODEL;
}

void hint_expect(struct cox_engine *e, const struct attempt *a)
{
    const struct cox_task *t = a->task;
    const struct class *c = base_of(a->cls);
    struct cox_image_step doc;
    if (!t->image.has_models || e->router == NULL || e->router->session == 0 || c->is_model ||
        c->run_us == 0 || (a->items_of != NULL && a->first != 0))
        return;
    cox_image_step(&t->image, outermost(t, a->step_index), &doc);
    for (uint32_t i = 0; i < doc.n_dependants && i < DEPENDANTS_LOOKED_AT; i++) {
        if (!calls_model(t, cox_image_dependant(&t->image, outermost(t, a->step_index), i)))
            continue;
        struct cox_action *out = act(e, COX_ACT_EXPECT);
        out->u.expect.session = e->router->session;
        out->u.expect.root = t->root->id;
        out->u.expect.in_ms = c->run_us / 1000;
        return;
    }
}
