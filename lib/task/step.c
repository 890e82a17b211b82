/* One step of a document. */
#include "compile.h"

#include <string.h>

#define NAME_EXPECTED "a name of a-z, 0-9 and _, at most 63 long, no digit first"

enum {
    STEP_RUN,
    STEP_USES,
    STEP_HTTP,
    STEP_MCP,
    STEP_JQ,
    STEP_MODEL,
    STEP_AGENT,
    STEP_PLAN,
    STEP_APPROVAL,
    STEP_WAIT,
    STEP_TASK,
    STEP_RACE,
    STEP_KINDS, /* the fields above are kinds: a step has exactly one */
    STEP_WITH = STEP_KINDS,
    STEP_IF,
    STEP_NEEDS,
    STEP_TIMEOUT,
    STEP_RETRY,
    STEP_FALLBACK,
    STEP_ALLOW_FAILURE,
    STEP_RESOURCES,
    STEP_REQUIRES,
    STEP_PRIORITY,
    STEP_DESCRIPTION,
    STEP_IDEMPOTENT,
    STEP_MAP,
    STEP_AFFINITY,
    STEP_CONCURRENCY,
    STEP_RATE,
    STEP_SECRETS,
    STEP_ARTIFACTS,
    STEP_NR
};
static const struct field step_fields[STEP_NR] = {
    [STEP_RUN] = { "run", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"argv\": [\"true\"]}" },
    [STEP_USES] = { "uses", WANT_STRING, FIELD_OPTIONAL, "a program such as \"lint@1\"" },
    [STEP_HTTP] = { "http", WANT_ANY, FIELD_LATER, "" },
    [STEP_MCP] = { "mcp", WANT_ANY, FIELD_LATER, "" },
    [STEP_JQ] = { "jq", WANT_ANY, FIELD_LATER, "" },
    [STEP_MODEL] = { "model", WANT_ANY, FIELD_LATER, "" },
    [STEP_AGENT] = { "agent", WANT_ANY, FIELD_LATER, "" },
    [STEP_PLAN] = { "plan", WANT_ANY, FIELD_LATER, "" },
    [STEP_APPROVAL] = { "approval", WANT_ANY, FIELD_LATER, "" },
    [STEP_WAIT] = { "wait", WANT_ANY, FIELD_LATER, "" },
    [STEP_TASK] = { "task", WANT_ANY, FIELD_LATER, "" },
    [STEP_RACE] = { "race", WANT_ANY, FIELD_LATER, "" },
    [STEP_WITH] = { "with", WANT_OBJECT, FIELD_OPTIONAL, "an object, the program's input" },
    [STEP_IF] = { "if", WANT_ANY, FIELD_OPTIONAL, "" },
    [STEP_NEEDS] = { "needs", WANT_LIST, FIELD_OPTIONAL, "a list of step names" },
    [STEP_TIMEOUT] = { "timeout", WANT_ANY, FIELD_OPTIONAL, "" },
    [STEP_RETRY] = { "retry", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"max_attempts\": 3}" },
    [STEP_FALLBACK] = { "fallback", WANT_OBJECT, FIELD_OPTIONAL, "an object with `run` or `uses`" },
    [STEP_ALLOW_FAILURE] = { "allow_failure", WANT_BOOL, FIELD_OPTIONAL, "true or false" },
    [STEP_RESOURCES] = { "resources", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"cpu\": 1}" },
    [STEP_REQUIRES] = { "requires", WANT_STRING, FIELD_OPTIONAL, "a string such as \"arch == amd64\"" },
    [STEP_PRIORITY] = { "priority", WANT_ANY, FIELD_OPTIONAL, "" },
    [STEP_DESCRIPTION] = { "description", WANT_STRING, FIELD_OPTIONAL, "a string" },
    [STEP_IDEMPOTENT] = { "idempotent", WANT_BOOL, FIELD_OPTIONAL, "true or false" },
    [STEP_MAP] = { "map", WANT_ANY, FIELD_LATER, "" },
    [STEP_AFFINITY] = { "affinity", WANT_ANY, FIELD_LATER, "" },
    [STEP_CONCURRENCY] = { "concurrency", WANT_ANY, FIELD_LATER, "" },
    [STEP_RATE] = { "rate", WANT_ANY, FIELD_LATER, "" },
    [STEP_SECRETS] = { "secrets", WANT_ANY, FIELD_LATER, "" },
    [STEP_ARTIFACTS] = { "artifacts", WANT_ANY, FIELD_LATER, "" },
};

/* A fallback is a call of its own: it takes the defaults of the task, and nothing from its step. */
enum {
    FALLBACK_RUN,
    FALLBACK_USES,
    FALLBACK_WITH,
    FALLBACK_TIMEOUT,
    FALLBACK_RETRY,
    FALLBACK_RESOURCES,
    FALLBACK_REQUIRES,
    FALLBACK_LATER, /* kinds and fields of other versions */
    FALLBACK_NR = FALLBACK_LATER + 11
};
static const struct field fallback_fields[FALLBACK_NR] = {
    [FALLBACK_RUN] = { "run", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"argv\": [\"true\"]}" },
    [FALLBACK_USES] = { "uses", WANT_STRING, FIELD_OPTIONAL, "a program such as \"lint@1\"" },
    [FALLBACK_WITH] = { "with", WANT_OBJECT, FIELD_OPTIONAL, "an object, the program's input" },
    [FALLBACK_TIMEOUT] = { "timeout", WANT_ANY, FIELD_OPTIONAL, "" },
    [FALLBACK_RETRY] = { "retry", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"max_attempts\": 3}" },
    [FALLBACK_RESOURCES] = { "resources", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"cpu\": 1}" },
    [FALLBACK_REQUIRES] = { "requires", WANT_STRING, FIELD_OPTIONAL, "a string such as \"arch == amd64\"" },
    [FALLBACK_LATER] = { "http", WANT_ANY, FIELD_LATER, "" },
    { "mcp", WANT_ANY, FIELD_LATER, "" },
    { "jq", WANT_ANY, FIELD_LATER, "" },
    { "model", WANT_ANY, FIELD_LATER, "" },
    { "agent", WANT_ANY, FIELD_LATER, "" },
    { "plan", WANT_ANY, FIELD_LATER, "" },
    { "approval", WANT_ANY, FIELD_LATER, "" },
    { "wait", WANT_ANY, FIELD_LATER, "" },
    { "task", WANT_ANY, FIELD_LATER, "" },
    { "race", WANT_ANY, FIELD_LATER, "" },
    { "secrets", WANT_ANY, FIELD_LATER, "" },
};

/* Exactly one kind? Kinds of other versions count: a step with `run` and `agent` has two. */
static bool one_kind(struct compiler *c, const struct place *at, const json_t *step)
{
    const char *first = NULL, *second = NULL;

    for (int i = 0; i < STEP_KINDS; i++) {
        if (!json_object_get(step, step_fields[i].name))
            continue;
        if (!first)
            first = step_fields[i].name;
        else if (!second)
            second = step_fields[i].name;
    }
    if (!first)
        report_at(&c->report, at, "found no kind, expected exactly one of `run` and `uses`");
    else if (second)
        report_at(&c->report, at, "found `%s` and `%s`, expected exactly one kind", first, second);
    return first && !second;
}

/* The kind to compile, after all is checked that more than one field takes part in. */
static enum cox_step_kind kind_of(struct compiler *c, const struct place *at, const json_t *step,
                                  const struct call_source *source)
{
    if (!one_kind(c, at, step))
        return COX_KIND_NONE;
    if (source->with && !source->uses && json_object_get(step, "run")) {
        struct place with = place_key(at, "with");

        report_at(&c->report, &with, "`with` is the input of a program; expected `uses` beside it");
    }
    return source->run ? COX_KIND_RUN : source->uses ? COX_KIND_USES : COX_KIND_NONE;
}

static uint32_t compile_fallback(struct compiler *c, const struct place *at, uint32_t step, json_t *fallback)
{
    const struct scope scope = { .step = step, .fallback = true };
    json_t *f[FALLBACK_NR];

    if (!fields_check(&c->report, at, fallback, "an object", fallback_fields, FALLBACK_NR, f))
        return COX_IMAGE_NONE;
    struct call_source source = {
        .run = f[FALLBACK_RUN],
        .uses = f[FALLBACK_USES],
        .with = f[FALLBACK_WITH],
        .timeout = f[FALLBACK_TIMEOUT],
        .retry = f[FALLBACK_RETRY],
        .resources = f[FALLBACK_RESOURCES],
        .requires = f[FALLBACK_REQUIRES],
    };
    enum cox_step_kind kind = kind_of(c, at, fallback, &source);

    return kind == COX_KIND_NONE ? COX_IMAGE_NONE : compile_call(c, at, &scope, &source, kind);
}

static void report_unknown_step(struct compiler *c, const struct place *at, struct cox_slice name)
{
    struct suggestion near = suggestion(name);
    char text[SUGGESTION_LEN];

    for (uint32_t i = 0; report_open(&c->report) && i < c->n_steps; i++)
        suggestion_offer(&near, cox_slice_str(c->step_names[i]));
    report_at(&c->report, at, "unknown step `%.*s`%s", shown_len(name, 100), (const char *)name.data,
              suggestion_text(&near, text));
}

static void compile_needs(struct compiler *c, const struct place *at, uint32_t self, json_t *needs)
{
    const struct scope scope = { .step = self };

    for (size_t i = 0; i < json_array_size(needs); i++) {
        json_t *need = json_array_get(needs, i);
        struct place here = place_index(at, i);

        if (!json_is_string(need)) {
            report_found(&c->report, &here, need, "the name of a step");
            continue;
        }
        uint32_t step = compiler_find_step(c, json_slice(need));

        if (step == COX_IMAGE_NONE)
            report_unknown_step(c, &here, json_slice(need));
        else if (step == self)
            report_at(&c->report, &here, "a step must not need itself");
        else
            compiler_refer(c, &scope, step);
    }
}

void compile_step(struct compiler *c, const struct place *at, uint32_t index, json_t *step)
{
    const struct scope scope = { .step = index }, condition = { .step = index, .condition = true };
    struct cox_slice name = cox_slice_str(c->step_names[index]);
    struct cox_image_step image = { .name = name, .priority = c->priority, .fallback = COX_IMAGE_NONE };
    json_t *f[STEP_NR];
    int64_t priority = c->priority;

    if (!name_ok(name, false))
        report_at(&c->report, at, "found the step name \"%.*s\", expected " NAME_EXPECTED,
                  shown_len(name, 100), c->step_names[index]);
    if (!fields_check(&c->report, at, step, "an object, the step", step_fields, STEP_NR, f))
        return;
    struct place needs = place_key(at, "needs"), if_at = place_key(at, "if");
    struct place fallback = place_key(at, "fallback"), priority_at = place_key(at, "priority");
    struct call_source source = {
        .run = f[STEP_RUN],
        .uses = f[STEP_USES],
        .with = f[STEP_WITH],
        .timeout = f[STEP_TIMEOUT],
        .retry = f[STEP_RETRY],
        .resources = f[STEP_RESOURCES],
        .requires = f[STEP_REQUIRES],
    };
    enum cox_step_kind kind = kind_of(c, at, step, &source);

    if (f[STEP_NEEDS])
        compile_needs(c, &needs, index, f[STEP_NEEDS]);
    image.condition = f[STEP_IF] ? compile_condition(c, &condition, &if_at, f[STEP_IF]) : COX_IMAGE_NONE;
    image.kind = kind;
    if (kind != COX_KIND_NONE)
        image.call = compile_call(c, at, &scope, &source, kind);
    if (f[STEP_FALLBACK])
        image.fallback = compile_fallback(c, &fallback, index, f[STEP_FALLBACK]);
    if (f[STEP_PRIORITY] && field_integer(&c->report, &priority_at, f[STEP_PRIORITY], -100, 100, &priority))
        image.priority = (int32_t)priority;
    image.allow_failure = json_is_true(f[STEP_ALLOW_FAILURE]);
    if (report_clean(&c->report))
        image_put_step(&c->image, &image);
}
