/* Which steps an image has: the document's own, and inner steps behind their owners, so that every expression
 * can refer to every step before the first is compiled. */
#include "compile.h"

#include "cox/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INNER_NAME_LEN_MAX 255u

/* ---- names ---- */

uint32_t compiler_find_step(const struct compiler *c, struct cox_slice name)
{
    uint32_t low = 0, high = c->n_steps;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2, step = c->sorted[mid];
        int order = cox_slice_cmp(cox_slice_str(c->plan[step].name), name);

        if (order == 0)
            return c->plan[step].owner == COX_IMAGE_NONE ? step : COX_IMAGE_NONE;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return COX_IMAGE_NONE;
}

void compiler_offer_steps(const struct compiler *c, struct suggestion *near)
{
    for (uint32_t i = 0; report_open(&c->report) && i < c->n_steps; i += 1 + c->plan[i].n_inner)
        suggestion_offer(near, cox_slice_str(c->plan[i].name));
}

void compiler_refer(struct compiler *c, const struct scope *scope, uint32_t step)
{
    if (scope->step == COX_IMAGE_NONE || c->seen_by_step[step] == scope->step + 1)
        return;
    c->seen_by_step[step] = scope->step + 1;
    u32s_add(&c->needs, step);
}

uint32_t compile_step_name(struct compiler *c, const struct scope *scope, const struct place *at,
                           const json_t *name)
{
    char text[SUGGESTION_LEN];

    if (!json_is_string(name)) {
        report_found(&c->report, at, name, "the name of a step");
        return COX_IMAGE_NONE;
    }
    struct cox_slice s = json_slice(name);
    struct suggestion near = suggestion(s);
    uint32_t step = compiler_find_step(c, s);

    if (step == scope->step && step != COX_IMAGE_NONE) {
        report_at(&c->report, at, "a step must not need itself");
        return COX_IMAGE_NONE;
    }
    if (step == COX_IMAGE_NONE) {
        compiler_offer_steps(c, &near);
        report_at(&c->report, at, "unknown step `%.*s`%s", shown_len(s, 100), (const char *)s.data,
                  suggestion_text(&near, text));
        return COX_IMAGE_NONE;
    }
    compiler_refer(c, scope, step);
    return step;
}

/* ---- the plan ---- */

static uint32_t plan_add(struct compiler *c, const char *name, uint32_t owner)
{
    if (c->n_steps == c->plan_cap) {
        c->plan_cap = c->plan_cap * 2;
        c->plan = cox_realloc(c->plan, c->plan_cap, sizeof(*c->plan));
    }
    c->plan[c->n_steps] = (struct planned){ .name = name, .owner = owner };
    return c->n_steps++;
}

static uint32_t plan_inner(struct compiler *c, uint32_t owner, const char *what)
{
    char name[INNER_NAME_LEN_MAX + 1];
    int len = snprintf(name, sizeof(name), "%.*s%s", shown_len(cox_slice_str(c->plan[owner].name), 200),
                       c->plan[owner].name, what);

    return plan_add(c, cox_arena_dup(&c->names, name, (size_t)len), owner);
}

static void plan_end(struct compiler *c, uint32_t step)
{
    c->plan[step].n_inner = c->n_steps - step - 1;
}

/* Alternatives of the race that `call`, run by the inner step or step `owner`, may be. As deep as races may
 * be in races: what is deeper is refused when it is compiled. */
static void plan_race(struct compiler *c, uint32_t owner, const char *what, const json_t *call,
                      unsigned races)
{
    const json_t *race = json_object_get(call, "race");
    size_t n = json_array_size(race);

    if (races >= COX_RACE_DEPTH_MAX || n > COX_RACE_MAX)
        return;
    for (size_t i = 0; i < n; i++) {
        char name[40];

        snprintf(name, sizeof(name), "%s.%zu", what, i);
        uint32_t inner = plan_inner(c, owner, name);

        plan_race(c, inner, "", json_array_get(race, i), races + 1);
        plan_end(c, inner);
    }
}

static bool runs_without_slot(const json_t *step)
{
    return json_object_get(step, "task") || json_object_get(step, "race") || json_object_get(step, "wait") ||
           json_object_get(step, "approval");
}

static void plan_step(struct compiler *c, const char *name, const json_t *step)
{
    uint32_t own = plan_add(c, name, COX_IMAGE_NONE);
    bool mapped = json_object_get(step, "map") != NULL;

    c->n_members++;
    if (mapped && runs_without_slot(step)) {
        uint32_t body = plan_inner(c, own, "[]");

        c->plan[body].is_body = true;
        plan_race(c, body, "", step, 0);
        plan_end(c, body);
    } else if (!mapped) {
        plan_race(c, own, "", step, 0);
        c->n_members += c->n_steps - own - 1;
    }
    c->plan[own].fallback = c->n_steps;
    plan_race(c, own, ".fallback", json_object_get(step, "fallback"), 0);
    c->n_members += c->n_steps - c->plan[own].fallback;
    plan_end(c, own);
}

static int compare_names(const void *a, const void *b, void *plan)
{
    const struct planned *p = plan;

    return strcmp(p[*(const uint32_t *)a].name, p[*(const uint32_t *)b].name);
}

bool plan_steps(struct compiler *c)
{
    size_t n = json_object_size(c->steps);
    const char *name;
    json_t *step;

    if (n < 1 || n > COX_TASK_STEPS_MAX) {
        report_at(&c->report, c->steps_at, "found %zu steps, expected 1 to %u", n, COX_TASK_STEPS_MAX);
        return false;
    }
    c->plan_cap = (uint32_t)n;
    c->plan = cox_calloc(n, sizeof(*c->plan));
    json_object_foreach(c->steps, name, step) plan_step(c, name, step);
    if (c->n_steps > COX_TASK_STEPS_MAX) {
        report_at(&c->report, c->steps_at,
                  "found %u steps, those in races and maps included, expected 1 to %u", c->n_steps,
                  COX_TASK_STEPS_MAX);
        return false;
    }
    c->sorted = cox_calloc(c->n_steps, sizeof(*c->sorted));
    c->needs_at = cox_calloc((size_t)c->n_steps + 1, sizeof(*c->needs_at));
    c->seen_by_step = cox_calloc(c->n_steps, sizeof(*c->seen_by_step));
    c->seen_by_template = cox_calloc(c->n_steps, sizeof(*c->seen_by_template));
    for (uint32_t i = 0; i < c->n_steps; i++)
        c->sorted[i] = i;
    qsort_r(c->sorted, c->n_steps, sizeof(*c->sorted), compare_names, c->plan);
    return true;
}

/* What inner steps refer to, their owner needs: theirs are empty. */
void compile_steps(struct compiler *c)
{
    uint32_t index = 0;
    const char *name;
    json_t *step;

    json_object_foreach(c->steps, name, step)
    {
        struct place here = place_key(c->steps_at, name);
        uint32_t end = index + 1 + c->plan[index].n_inner;

        compile_step(c, &here, index, step);
        while (index < end)
            c->needs_at[++index] = c->needs.n;
    }
    if (c->image.n_classes > COX_TASK_CLASSES_MAX)
        report_at(&c->report, c->steps_at,
                  "found %u different combinations of program, `resources` and `requires`, "
                  "expected at most %u",
                  c->image.n_classes, COX_TASK_CLASSES_MAX);
}
