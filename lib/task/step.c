/* One step of a document, its fallback, and the alternatives of its race. */
#include "compile.h"

#include <string.h>

#define NAME_EXPECTED "a name of a-z, 0-9 and _, at most 63 long, no digit first"

/* A fallback, or an alternative of a race: a call and nothing else. */
static const struct field call_fields[CALL_NR] = { CALL_FIELDS };

enum {
    STEP_NEEDS_FIELD = CALL_NR,
    STEP_IF,
    STEP_FALLBACK,
    STEP_ALLOW,
    STEP_PRIORITY,
    STEP_DESCRIPTION,
    STEP_IDEM,
    STEP_MAP,
    STEP_AFFINITY,
    STEP_CONCURRENCY,
    STEP_RATE,
    STEP_ARTIFACTS,
    STEP_NR
};
static const struct field step_fields[STEP_NR] = {
    CALL_FIELDS,
    [STEP_NEEDS_FIELD] = { "needs", WANT_LIST, FIELD_OPTIONAL, "a list of step names" },
    [STEP_IF] = { "if", WANT_ANY, FIELD_OPTIONAL, "" },
    [STEP_FALLBACK] = { "fallback", WANT_OBJECT, FIELD_OPTIONAL, "an object with `run` or `uses`" },
    [STEP_ALLOW] = { "allow_failure", WANT_BOOL, FIELD_OPTIONAL, "true or false" },
    [STEP_PRIORITY] = { "priority", WANT_ANY, FIELD_OPTIONAL, "" },
    [STEP_DESCRIPTION] = { "description", WANT_STRING, FIELD_OPTIONAL, "a string" },
    [STEP_IDEM] = { "idempotent", WANT_BOOL, FIELD_OPTIONAL, "true or false" },
    [STEP_MAP] = { "map", WANT_OBJECT, FIELD_OPTIONAL,
                   "an object such as {\"over\": \"${{ inputs.list }}\"}" },
    [STEP_AFFINITY] = { "affinity", WANT_OBJECT, FIELD_OPTIONAL,
                        "an object such as {\"workspace\": \"clone\"}" },
    [STEP_CONCURRENCY] = { "concurrency", WANT_OBJECT, FIELD_OPTIONAL,
                           "an object such as {\"key\": \"db\", \"limit\": 4}" },
    [STEP_RATE] = { "rate", WANT_OBJECT, FIELD_OPTIONAL,
                    "an object such as {\"key\": \"api\", \"per_minute\": 60}" },
    [STEP_ARTIFACTS] = { "artifacts", WANT_OBJECT, FIELD_OPTIONAL,
                         "an object such as {\"patch\": \"out.diff\"}" },
};

/* Kinds in the order of their fields. */
static const uint8_t kind_of_field[CALL_KINDS] = {
    [CALL_RUN] = COX_KIND_RUN,   [CALL_USES] = COX_KIND_USES,         [CALL_HTTP] = COX_KIND_HTTP,
    [CALL_JQ] = COX_KIND_JQ,     [CALL_TASK] = COX_KIND_TASK,         [CALL_RACE] = COX_KIND_RACE,
    [CALL_WAIT] = COX_KIND_WAIT, [CALL_APPROVAL] = COX_KIND_APPROVAL, [CALL_MODEL] = COX_KIND_MODEL,
    [CALL_MCP] = COX_KIND_MCP,   [CALL_AGENT] = COX_KIND_AGENT,       [CALL_PLAN] = COX_KIND_PLAN,
};

/* Says what is wrong with the kinds of a call. */
static void report_kinds(struct compiler *c, const struct place *at, const json_t *call)
{
    const char *first = NULL, *second = NULL;

    for (int i = 0; i < CALL_KINDS; i++) {
        if (!json_object_get(call, call_fields[i].name))
            continue;
        if (!first)
            first = call_fields[i].name;
        else if (!second)
            second = call_fields[i].name;
    }
    if (!first)
        report_at(&c->report, at,
                  "found no kind, expected exactly one of `run`, `uses`, `http`, `jq`, `mcp`, `model`, "
                  "`agent`, `plan`, "
                  "`task`, `race`, `wait` and `approval`");
    else if (second)
        report_at(&c->report, at, "found `%s` and `%s`, expected exactly one kind", first, second);
}

/* The field that says what to run; CALL_KINDS after reporting. */
static int one_kind(struct compiler *c, const struct place *at, const json_t *call, json_t *const *f)
{
    int found = CALL_KINDS, n = 0;

    for (int i = 0; i < CALL_KINDS; i++) {
        if (f[i]) {
            found = i;
            n++;
        }
    }
    if (n == 1)
        return found;
    report_kinds(c, at, call);
    return CALL_KINDS;
}

/* After all is checked that more than one field takes part in. */
enum cox_step_kind call_kind(struct compiler *c, const struct place *at, const json_t *call, json_t *const *f)
{
    int field = one_kind(c, at, call, f);

    if (field == CALL_KINDS)
        return COX_KIND_NONE;
    if (f[CALL_WITH] && field != CALL_USES) {
        struct place with = place_key(at, "with");

        report_at(&c->report, &with, "`with` is the input of a program; expected `uses` beside it");
    }
    return (enum cox_step_kind)kind_of_field[field];
}

/* ---- inner steps ---- */

static void put_inner(struct compiler *c, uint32_t index, const struct cox_image_step *owner,
                      enum cox_step_kind kind, uint32_t call, uint32_t extras)
{
    const struct planned *plan = &c->plan[index];
    const struct cox_image_step image = {
        .name = cox_slice_str(plan->name),
        .kind = kind,
        .priority = owner->priority,
        .condition = COX_IMAGE_NONE,
        .call = call,
        .fallback = COX_IMAGE_NONE,
        .owner = plan->owner,
        .n_inner = plan->n_inner,
        .is_body = plan->is_body,
        .map = COX_IMAGE_NONE,
        .extras = extras,
        .idempotent = owner->idempotent,
    };

    if (report_clean(&c->report))
        image_put_step(&c->image, &image);
}

static void compile_inner(struct compiler *c, const struct place *at, const struct scope *scope,
                          const struct call_source *source, const struct cox_image_step *owner);

/* What the race in the call at `at` chooses from. Recurses as deep as races may be in races; compile_call has
 * refused others. */
static void compile_alternatives(struct compiler *c, const struct place *at, const struct scope *scope,
                                 const struct call_source *source, const struct cox_image_step *owner)
{
    struct place list = place_key(at, "race");
    const json_t *race = source->f[CALL_RACE];
    uint32_t next = source->inner_first;

    if (source->depth.races >= COX_RACE_DEPTH_MAX || json_array_size(race) > COX_RACE_MAX)
        return;
    for (size_t i = 0; i < json_array_size(race); i++) {
        struct place here = place_index(&list, i);
        json_t *alternative = json_array_get(race, i), *f[CALL_NR];
        struct call_source inner = { .f = f, .owner = next, .inner_first = next + 1, .depth = source->depth };

        inner.depth.races++;
        inner.inner_end = next += 1 + c->plan[next].n_inner;
        if (!fields_check(&c->report, &here, alternative, "an object such as {\"uses\": \"lint@1\"}",
                          call_fields, CALL_NR, f))
            continue;
        inner.kind = call_kind(c, &here, alternative, f);
        if (inner.kind == COX_KIND_NONE)
            continue;
        put_inner(c, inner.owner, owner, inner.kind, compile_call(c, &here, scope, &inner), COX_IMAGE_NONE);
        compile_inner(c, &here, scope, &inner, owner);
    }
}

/* The inner steps of the call at `at`, behind it. Those of agents, and of agents that are their tools, are
 * all bodies, and compiled. */
static void compile_inner(struct compiler *c, const struct place *at, const struct scope *scope,
                          const struct call_source *source, const struct cox_image_step *owner)
{
    if (source->kind == COX_KIND_RACE)
        compile_alternatives(c, at, scope, source, owner);
    if (source->kind != COX_KIND_AGENT && source->kind != COX_KIND_PLAN)
        return;
    for (uint32_t i = source->inner_first; i < source->inner_end && report_clean(&c->report); i++)
        put_inner(c, i, owner, c->plan[i].kind, c->plan[i].call, c->plan[i].extras);
}

/* ---- a step ---- */

static uint32_t compile_fallback(struct compiler *c, const struct place *at, const struct scope *scope,
                                 json_t *fallback, json_t *f[CALL_NR], struct call_source *ret)
{
    const struct planned *plan = &c->plan[scope->step];

    if (!fields_check(&c->report, at, fallback, "an object", call_fields, CALL_NR, f))
        return COX_IMAGE_NONE;
    *ret = (struct call_source){ .f = f,
                                 .kind = call_kind(c, at, fallback, f),
                                 .owner = scope->step,
                                 .inner_first = plan->fallback,
                                 .inner_end = scope->step + plan->n_inner + 1 };
    return ret->kind == COX_KIND_NONE ? COX_IMAGE_NONE : compile_call(c, at, scope, ret);
}

static void compile_needs(struct compiler *c, const struct place *at, const struct scope *scope,
                          const json_t *needs)
{
    for (size_t i = 0; i < json_array_size(needs); i++) {
        struct place here = place_index(at, i);

        compile_step_name(c, scope, &here, json_array_get(needs, i));
    }
}

/* A step and what it runs, in the order in which their records lie. */
struct step_source {
    json_t *f[STEP_NR];
    json_t *fallback[CALL_NR];
    struct call_source runs, fallback_runs;
    struct scope plain, call, fallback_scope;
};

static void compile_all_inner(struct compiler *c, const struct place *at, uint32_t index,
                              const struct step_source *s, const struct cox_image_step *image)
{
    struct place fallback = place_key(at, "fallback");

    if (c->plan[index].n_inner == 0)
        return;
    if (s->runs.owner != index && s->runs.kind != COX_KIND_NONE)
        put_inner(c, s->runs.owner, image, s->runs.kind, compile_call(c, at, &s->call, &s->runs),
                  COX_IMAGE_NONE);
    compile_inner(c, at, &s->call, &s->runs, image);
    compile_inner(c, &fallback, &s->fallback_scope, &s->fallback_runs, image);
}

/* What a step runs: itself, or what its map has for a body, planned before the map was looked at, which may
 * have been refused. */
static void find_runs(struct compiler *c, uint32_t index, struct step_source *s)
{
    bool of_map = c->plan[index].n_inner > 0 && c->plan[index + 1].of_map;
    uint32_t owner = of_map ? index + 1 : index;

    s->runs = (struct call_source){ .f = s->f,
                                    .kind = s->runs.kind,
                                    .owner = owner,
                                    .inner_first = owner + 1,
                                    .inner_end = c->plan[index].fallback };
}

static void compile_parts(struct compiler *c, const struct place *at, uint32_t index, struct step_source *s,
                          struct cox_image_step *image)
{
    struct place if_at = place_key(at, "if"), needs = place_key(at, "needs"), map = place_key(at, "map");
    struct place fallback = place_key(at, "fallback");
    const struct scope condition = { .step = index, .condition = true };
    enum cox_step_kind kind = s->runs.kind;
    const struct extras_source extras = {
        s->f[STEP_AFFINITY],   s->f[STEP_CONCURRENCY], s->f[STEP_RATE], s->f[STEP_ARTIFACTS], kind,
        s->f[STEP_MAP] != NULL
    };

    if (s->f[STEP_NEEDS_FIELD])
        compile_needs(c, &needs, &s->plain, s->f[STEP_NEEDS_FIELD]);
    if (s->f[STEP_IF])
        image->condition = compile_condition(c, &condition, &if_at, s->f[STEP_IF]);
    if (s->f[STEP_MAP]) {
        image->map = compile_map(c, &map, &s->plain, s->f[STEP_MAP], kind, &s->call.as);
        s->call.item = true;
    }
    if (kind != COX_KIND_NONE && s->runs.owner == index)
        image->call = compile_call(c, at, &s->call, &s->runs);
    if (s->f[STEP_FALLBACK])
        image->fallback = compile_fallback(c, &fallback, &s->fallback_scope, s->f[STEP_FALLBACK], s->fallback,
                                           &s->fallback_runs);
    if ((extras.affinity || extras.concurrency || extras.rate || extras.artifacts) && kind != COX_KIND_NONE)
        image->extras = compile_extras(c, at, &s->plain, &extras);
}

void compile_step(struct compiler *c, const struct place *at, uint32_t index, json_t *step)
{
    struct cox_slice name = cox_slice_str(c->plan[index].name);
    struct cox_image_step image = {
        .name = name,
        .priority = c->priority,
        .condition = COX_IMAGE_NONE,
        .call = COX_IMAGE_NONE,
        .fallback = COX_IMAGE_NONE,
        .owner = COX_IMAGE_NONE,
        .n_inner = c->plan[index].n_inner,
        .map = COX_IMAGE_NONE,
        .extras = COX_IMAGE_NONE,
    };
    struct step_source s = {
        .plain = { .step = index },
        .call = { .step = index },
        .fallback_scope = { .step = index, .fallback = true },
    };
    struct place priority_at = place_key(at, "priority");
    int64_t priority = c->priority;

    if (!name_ok(name, false))
        report_at(&c->report, at, "found the step name \"%.*s\", expected " NAME_EXPECTED,
                  shown_len(name, 100), (const char *)name.data);
    if (!fields_check(&c->report, at, step, "an object, the step", step_fields, STEP_NR, s.f))
        return;
    s.runs.kind = image.kind = call_kind(c, at, step, s.f);
    find_runs(c, index, &s);
    if (s.f[STEP_PRIORITY] &&
        field_integer(&c->report, &priority_at, s.f[STEP_PRIORITY], -100, 100, &priority))
        image.priority = (int32_t)priority;
    image.allow_failure = json_is_true(s.f[STEP_ALLOW]);
    c->idempotent = image.idempotent = json_is_true(s.f[STEP_IDEM]);
    compile_parts(c, at, index, &s, &image);
    if (report_clean(&c->report))
        image_put_step(&c->image, &image);
    compile_all_inner(c, at, index, &s, &image);
}
