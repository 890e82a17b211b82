/* Which steps an image has: the document's own, and inner steps behind their owners, so that every expression
 * can refer to every step before the first is compiled. */
#include "compile.h"

#include "cox/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INNER_NAME_LEN_MAX 255u
#define OWNER_SHOWN_MAX 128 /* of an owner's name, in one that is too long */
#define WHAT_LEN_MAX (TOOL_PART_LEN + 16u)

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

/* Named after its owner, and too long a name after its index: names are unique, whatever their length. */
static uint32_t plan_inner(struct compiler *c, uint32_t owner, const char *what)
{
    struct cox_slice up = cox_slice_str(c->plan[owner].name);
    char index[16] = "";

    if (up.len + strlen(what) > INNER_NAME_LEN_MAX) {
        snprintf(index, sizeof(index), "~%u", c->n_steps);
        up.len = OWNER_SHOWN_MAX < up.len ? OWNER_SHOWN_MAX : up.len;
    }
    cox_buf_clear(&c->scratch);
    cox_buf_append_slice(&c->scratch, up);
    cox_buf_append_str(&c->scratch, index);
    cox_buf_append_str(&c->scratch, what);
    COX_ASSERT(c->scratch.len <= INNER_NAME_LEN_MAX);
    return plan_add(c, cox_arena_dup(&c->texts, c->scratch.data, c->scratch.len), owner);
}

static void plan_end(struct compiler *c, uint32_t step)
{
    c->plan[step].n_inner = c->n_steps - step - 1;
}

static void plan_call(struct compiler *c, uint32_t owner, const char *what, const json_t *call,
                      struct depth depth);

static void plan_body(struct compiler *c, uint32_t owner, const char *what, const char *part)
{
    char name[WHAT_LEN_MAX];

    snprintf(name, sizeof(name), "%s.%s", what, part);
    uint32_t body = plan_inner(c, owner, name);

    c->plan[body].is_body = true;
}

static void plan_alternatives(struct compiler *c, uint32_t owner, const char *what, const json_t *race,
                              struct depth depth)
{
    size_t n = json_array_size(race);

    if (depth.races++ >= COX_RACE_DEPTH_MAX || n > COX_RACE_MAX)
        return;
    for (size_t i = 0; i < n; i++) {
        char name[WHAT_LEN_MAX];

        snprintf(name, sizeof(name), "%s.%zu", what, i);
        uint32_t inner = plan_inner(c, owner, name);

        plan_call(c, inner, "", json_array_get(race, i), depth);
        plan_end(c, inner);
    }
}

/* An agent's bodies: those that every one has, then its tools'. */
static void plan_agent(struct compiler *c, uint32_t owner, const char *what, const json_t *agent,
                       struct depth depth)
{
    const json_t *tools = json_object_get(agent, "tools");

    if (depth.agents++ >= COX_AGENT_DEPTH_MAX)
        return;
    plan_body(c, owner, what, "model");
    plan_body(c, owner, what, "approval");
    for (size_t i = 0; i < json_array_size(tools) && i < COX_TOOLS_MAX; i++) {
        const json_t *tool = json_array_get(tools, i), *agent_tool = json_object_get(tool, "agent");
        char name[TOOL_PART_LEN];

        for (uint32_t body = 0; body < tool_bodies(tool); body++) {
            tool_part(tool, i, body, name);
            plan_body(c, owner, what, name);
        }
        if (tool_bodies(tool) == 1 && json_is_object(agent_tool)) {
            uint32_t body = c->n_steps - 1;

            plan_agent(c, body, "", agent_tool, depth);
            plan_end(c, body);
        }
    }
}

/* Inner steps of what `call` is, run by the step `owner`. As deep as they may be in each other: what is
 * deeper is refused when it is compiled. */
static void plan_call(struct compiler *c, uint32_t owner, const char *what, const json_t *call,
                      struct depth depth)
{
    const json_t *agent = json_object_get(call, "agent");

    plan_alternatives(c, owner, what, json_object_get(call, "race"), depth);
    if (json_is_object(agent))
        plan_agent(c, owner, what, agent, depth);
    if (json_is_object(json_object_get(call, "plan"))) {
        plan_body(c, owner, what, "model");
        plan_body(c, owner, what, "approval");
    }
}

static bool runs_without_attempts(const json_t *step)
{
    static const char *const kinds[] = { "task", "race", "wait", "approval", "agent", "plan" };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (json_object_get(step, kinds[i]))
            return true;
    }
    return false;
}

static void plan_step(struct compiler *c, const char *name, const json_t *step)
{
    const struct depth none = { 0 };
    uint32_t own = plan_add(c, name, COX_IMAGE_NONE);
    bool mapped = json_object_get(step, "map") != NULL;

    if (mapped && runs_without_attempts(step)) {
        uint32_t body = plan_inner(c, own, "[]");

        c->plan[body].is_body = c->plan[body].of_map = true;
        plan_call(c, body, "", step, none);
        plan_end(c, body);
    } else if (!mapped) {
        plan_call(c, own, "", step, none);
    }
    c->plan[own].fallback = c->n_steps;
    plan_call(c, own, ".fallback", json_object_get(step, "fallback"), none);
    plan_end(c, own);
}

/* Steps that run in the task's own frame: all but bodies and what is in them. */
static uint32_t count_members(const struct compiler *c)
{
    uint32_t n = 0, body_end = 0;

    for (uint32_t i = 0; i < c->n_steps; i++) {
        if (c->plan[i].is_body && i >= body_end)
            body_end = i + c->plan[i].n_inner + 1;
        n += i >= body_end;
    }
    return n;
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
    c->n_members = count_members(c);
    if (c->n_steps > COX_TASK_STEPS_MAX) {
        report_at(&c->report, c->steps_at,
                  "found %u steps, those in races, maps and agents included, expected 1 to %u", c->n_steps,
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
