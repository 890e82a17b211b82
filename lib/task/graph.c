/* Edges of the task graph in both directions, and the check that it has no cycle (Kahn 1962). */
#include "compile.h"

#include "cox/base/alloc.h"

#include <string.h>

#define CYCLE_SHOWN_MAX 12u /* steps of a cycle named in a message */

/* Dependants of a step come out in ascending order: cox_image_open relies on it. */
static void reverse(const struct compiler *c, struct graph *g)
{
    uint32_t *at = cox_calloc((size_t)c->n_steps + 1, sizeof(*at));
    uint32_t *fill = cox_alloc(((size_t)c->n_steps + 1) * sizeof(*fill));

    for (uint32_t e = 0; e < c->needs.n; e++)
        at[c->needs.v[e] + 1]++;
    for (uint32_t i = 0; i < c->n_steps; i++)
        at[i + 1] += at[i];
    memcpy(fill, at, ((size_t)c->n_steps + 1) * sizeof(*fill));
    g->dependants = cox_calloc((size_t)c->needs.n + 1, sizeof(*g->dependants));
    for (uint32_t i = 0; i < c->n_steps; i++) {
        for (uint32_t e = c->needs_at[i]; e < c->needs_at[i + 1]; e++)
            g->dependants[fill[c->needs.v[e]]++] = i;
    }
    g->dependants_at = at;
    cox_free(fill);
}

/* Takes away steps whose needs are all taken, until none is left to take. open[i]: needs of step i that
 * remain; 0 everywhere when there is no cycle. Returns the steps that remain. */
static uint32_t take_all(const struct compiler *c, const struct graph *g, uint32_t *open)
{
    uint32_t *queue = cox_alloc((size_t)c->n_steps * sizeof(*queue));
    uint32_t n_queue = 0;

    for (uint32_t i = 0; i < c->n_steps; i++) {
        open[i] = c->needs_at[i + 1] - c->needs_at[i];
        if (open[i] == 0)
            queue[n_queue++] = i;
    }
    for (uint32_t q = 0; q < n_queue; q++) {
        uint32_t i = queue[q];

        for (uint32_t e = g->dependants_at[i]; e < g->dependants_at[i + 1]; e++) {
            if (--open[g->dependants[e]] == 0)
                queue[n_queue++] = g->dependants[e];
        }
    }
    cox_free(queue);
    return c->n_steps - n_queue;
}

/* A need of `step` that remains: it exists for every step that remains. */
static uint32_t open_need(const struct compiler *c, const uint32_t *open, uint32_t step)
{
    for (uint32_t e = c->needs_at[step]; e < c->needs_at[step + 1]; e++) {
        if (open[c->needs.v[e]] > 0)
            return c->needs.v[e];
    }
    COX_ASSERT(false);
    return 0;
}

static void report_cycle(struct compiler *c, const uint32_t *open)
{
    uint32_t *met = cox_calloc(c->n_steps, sizeof(*met)), step = 0, n = 0;
    struct cox_buf text = { 0 };

    while (open[step] == 0)
        step++;
    for (uint32_t k = 1; met[step] == 0; k++) { /* any walk along open needs ends in a cycle */
        met[step] = k;
        step = open_need(c, open, step);
    }
    uint32_t first = step;

    for (uint32_t i = open_need(c, open, step); i != step; i = open_need(c, open, i)) {
        if (i < first)
            first = i;
    }
    step = first;
    do {
        if (n < CYCLE_SHOWN_MAX)
            cox_buf_printf(&text, "%s -> ", c->plan[step].name);
        n++;
        step = open_need(c, open, step);
    } while (step != first);
    if (n > CYCLE_SHOWN_MAX)
        cox_buf_printf(&text, "... (%u steps) -> ", n);
    cox_buf_append_str(&text, c->plan[first].name);
    struct place at = place_key(c->steps_at, c->plan[first].name);

    report_at(&c->report, &at, "steps need each other in a cycle: %s; expected no cycle",
              cox_buf_cstr(&text));
    cox_buf_fini(&text);
    cox_free(met);
}

void graph_build(struct compiler *c, struct graph *ret)
{
    uint32_t *open = cox_alloc((size_t)c->n_steps * sizeof(*open));

    reverse(c, ret);
    if (take_all(c, ret, open) > 0)
        report_cycle(c, open);
    cox_free(open);
}

void graph_fini(struct graph *g)
{
    cox_free(g->dependants_at);
    cox_free(g->dependants);
    *g = (struct graph){ 0 };
}
