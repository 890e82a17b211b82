/* Kind `plan`: a model is asked for steps. What it may ask for is said to it, and held against its answer. */
#include "model.h"

#include "cox/base/plant.h"

#include <stdio.h>
#include <string.h>

#define REASKS_MAX 10
#define KIND_BIT(kind) (1u << COX_KIND_##kind)
#define ALLOW_EXPECTED "an object such as {\"uses\": [\"code_*\"], \"max_steps\": 100}"

enum { PLAN_INSTRUCTIONS = REQUEST_NR, PLAN_ALLOW, PLAN_ON_INVALID, PLAN_NR };
static const struct field plan_fields[PLAN_NR] = {
    REQUEST_FIELDS,
    [PLAN_INSTRUCTIONS] = { "instructions", WANT_STRING, FIELD_OPTIONAL, "a string, what the plan is for" },
    [PLAN_ALLOW] = { "allow", WANT_OBJECT, FIELD_OPTIONAL, ALLOW_EXPECTED },
    [PLAN_ON_INVALID] = { "on_invalid", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"reask\": 2}" },
};

enum { ALLOW_USES, ALLOW_KINDS, ALLOW_STEPS, ALLOW_DEPTH, ALLOW_NR };
static const struct field allow_fields[ALLOW_NR] = {
    { "uses", WANT_LIST, FIELD_OPTIONAL, "a list of programs such as [\"code_*\"]" },
    { "kinds", WANT_LIST, FIELD_OPTIONAL, "a list of kinds such as [\"uses\", \"run\"]" },
    { "max_steps", WANT_ANY, FIELD_OPTIONAL, "" },
    { "max_depth", WANT_ANY, FIELD_OPTIONAL, "" },
};

static const struct field invalid_fields[1] = { { "reask", WANT_ANY, FIELD_OPTIONAL, "" } };

/* What a model is told of each kind. */
static const char *const kind_help[COX_KIND_NR] = {
    [COX_KIND_USES] = "{\"uses\": \"NAME@MAJOR\", \"with\": {...}}: a program and its input",
    [COX_KIND_MODEL] = "{\"model\": {\"input\": \"TEXT\"}}: a question to a language model; its output is "
                       "{\"content\": \"TEXT\"}",
    [COX_KIND_JQ] = "{\"jq\": {\"program\": \".x\", \"input\": VALUE}}: a jq program over a value",
    [COX_KIND_WAIT] = "{\"wait\": {\"for\": \"10s\"}}: time passes",
    [COX_KIND_RACE] = "{\"race\": [STEP, STEP, ...]}: alternatives, of which the first that succeeds is the "
                      "step's",
    [COX_KIND_TASK] =
        "{\"task\": {\"ref\": \"NAME@VERSION\", \"inputs\": {...}}}: a task made from a template",
    [COX_KIND_RUN] =
        "{\"run\": {\"argv\": [\"PROGRAM\", ...], \"stdin\": \"TEXT\"}}: a process; its output is "
        "{\"exit_code\", \"stdout\", \"stderr\"}",
    [COX_KIND_HTTP] = "{\"http\": {\"method\": \"GET\", \"url\": \"https://...\"}}: a request",
    [COX_KIND_MCP] =
        "{\"mcp\": {\"url\": \"https://...\", \"tool\": \"NAME\", \"arguments\": {...}}}: a tool of "
        "an MCP server",
    [COX_KIND_APPROVAL] = "{\"approval\": {\"prompt\": \"TEXT\"}}: a person's yes or no",
    [COX_KIND_AGENT] = "{\"agent\": {\"input\": \"TEXT\", \"tools\": [...]}}: a model with tools, until it "
                       "answers",
    [COX_KIND_PLAN] =
        "{\"plan\": {\"input\": \"TEXT\"}}: a plan like this one, made and run when the step is "
        "reached",
};

/* ---- what is allowed ---- */

static const struct allow defaults = {
    .kinds = KIND_BIT(USES) | KIND_BIT(MODEL) | KIND_BIT(JQ) | KIND_BIT(WAIT) | KIND_BIT(RACE),
    .max_steps = COX_PLAN_STEPS_DEFAULT,
    .max_depth = 1,
};

static enum cox_step_kind kind_named(const json_t *name)
{
    for (int k = COX_KIND_NONE + 1; k < COX_KIND_NR; k++) {
        if (json_is_string(name) &&
            strcmp(json_string_value(name), cox_step_kind_text((enum cox_step_kind)k)) == 0)
            return (enum cox_step_kind)k;
    }
    return COX_KIND_NONE;
}

static bool is_allowed(const struct allow *allow, struct cox_slice uses)
{
    for (size_t i = 0; i < json_array_size(allow->uses); i++) {
        struct cox_slice pattern = json_slice(json_array_get(allow->uses, i));

        /* A pattern of a plan in a plan is one of the outer one's, or a name that it allows. */
        if (cox_slice_eq(pattern, uses) ||
            (!memchr(uses.data, '*', uses.len) && cox_slice_like(uses, pattern)))
            return true;
    }
    return false;
}

static void put_list(struct cox_buf *out, const struct allow *allow)
{
    const char *separator = "";

    for (size_t i = 0; i < json_array_size(allow->uses) && out->len < 2000; i++) {
        cox_buf_printf(out, "%s%s", separator, json_string_value(json_array_get(allow->uses, i)));
        separator = ", ";
    }
    if (!*separator)
        cox_buf_append_str(out, "none");
}

static void read_uses(struct compiler *c, const struct place *at, const struct allow *outer, json_t *uses,
                      struct allow *ret)
{
    struct cox_buf list = { 0 };

    put_list(&list, outer);
    for (size_t i = 0; i < json_array_size(uses); i++) {
        const json_t *pattern = json_array_get(uses, i);
        struct place here = place_index(at, i);

        if (!json_is_string(pattern) || json_string_length(pattern) == 0)
            report_found(&c->report, &here, pattern,
                         "a program such as \"lint@1\", in which * is any characters");
        else if (c->allow && !is_allowed(outer, json_slice(pattern)))
            report_found(&c->report, &here, pattern, cox_buf_cstr(&list));
    }
    ret->uses = uses;
    cox_buf_fini(&list);
}

static void read_kinds(struct compiler *c, const struct place *at, const struct allow *outer,
                       const json_t *kinds, struct allow *ret)
{
    ret->kinds = 0;
    for (size_t i = 0; i < json_array_size(kinds); i++) {
        const json_t *name = json_array_get(kinds, i);
        enum cox_step_kind kind = kind_named(name);
        struct place here = place_index(at, i);

        if (kind == COX_KIND_NONE)
            report_found(&c->report, &here, name, "a kind of steps such as \"uses\"");
        else if (c->allow && !(outer->kinds & 1u << kind))
            report_found(&c->report, &here, name, "a kind that the plan which this is in may have");
        ret->kinds |= 1u << kind;
    }
}

/* A plan in a plan may do what that one may, and is one less deep. */
static void read_allow(struct compiler *c, const struct place *at, json_t *json, const struct allow *outer,
                       struct allow *ret)
{
    struct place uses = place_key(at, "uses"), kinds = place_key(at, "kinds");
    struct place steps_at = place_key(at, "max_steps"), depth_at = place_key(at, "max_depth");
    int64_t steps = outer->max_steps, depth = c->allow ? (int64_t)outer->max_depth - 1 : 1;
    int64_t steps_max = c->allow ? steps : COX_TASK_STEPS_MAX,
            depth_max = c->allow ? depth : COX_FRAME_DEPTH_MAX;
    json_t *f[ALLOW_NR] = { NULL };

    *ret = *outer;
    if (json && !fields_check(&c->report, at, json, ALLOW_EXPECTED, allow_fields, ALLOW_NR, f))
        return;
    if (f[ALLOW_USES])
        read_uses(c, &uses, outer, f[ALLOW_USES], ret);
    if (f[ALLOW_STEPS])
        field_integer(&c->report, &steps_at, f[ALLOW_STEPS], 1, steps_max, &steps);
    if (f[ALLOW_DEPTH])
        field_integer(&c->report, &depth_at, f[ALLOW_DEPTH], 1, depth_max, &depth);
    if (f[ALLOW_KINDS])
        read_kinds(c, &kinds, outer, f[ALLOW_KINDS], ret);
    ret->max_steps = (uint32_t)steps;
    ret->max_depth = (uint32_t)depth;
    if (f[ALLOW_KINDS] && ret->kinds & KIND_BIT(PLAN) && depth < 2)
        report_at(&c->report, &depth_at,
                  "found plans among `kinds`, expected at least 2 for a plan in a plan");
    if (!f[ALLOW_KINDS])
        ret->kinds = depth > 1 ? ret->kinds | KIND_BIT(PLAN) : ret->kinds & ~KIND_BIT(PLAN);
}

static void put_allow(struct cox_buf *out, const struct allow *allow)
{
    const char *separator = "";

    cox_buf_append_str(out, "{\"uses\":");
    if (allow->uses)
        json_put(out, allow->uses);
    else
        cox_buf_append_str(out, "[]");
    cox_buf_append_str(out, ",\"kinds\":[");
    for (int k = 0; k < COX_KIND_NR; k++) {
        if (!(allow->kinds & 1u << k))
            continue;
        cox_buf_printf(out, "%s\"%s\"", separator, cox_step_kind_text((enum cox_step_kind)k));
        separator = ",";
    }
    cox_buf_printf(out, "],\"max_steps\":%u,\"max_depth\":%u}", allow->max_steps, allow->max_depth);
}

/* ---- what the model is told ---- */

static void put_preface(struct cox_buf *out, const struct allow *allow)
{
    cox_buf_append_str(
        out,
        "You plan work as a graph of steps, which is run for you. Answer with one JSON object and nothing "
        "else: {\"steps\": {NAME: STEP, ...}, \"output\": VALUE}.\n"
        "- A NAME is of a-z, 0-9 and _, and begins with a letter.\n"
        "- A STEP is an object with exactly one kind, and, if need be, \"needs\": [NAME, ...], \"if\": "
        "\"${{ EXPRESSION }}\", \"map\": {\"over\": \"${{ LIST }}\"} (the step once for each item, which it "
        "reads as ${{ item }}), \"timeout\": \"10m\", \"allow_failure\": true.\n"
        "- Texts may hold expressions: ${{ steps.NAME.output }} is what another step came to, and makes "
        "this one wait for it; steps that do not wait for each other run at once. Fields of outputs are "
        "read as ${{ steps.NAME.output.field }}.\n"
        "- \"output\" is what the plan comes to, with expressions over its steps.\n"
        "- Kinds of steps:\n");
    for (int k = 0; k < COX_KIND_NR; k++) {
        if (allow->kinds & 1u << k && kind_help[k])
            cox_buf_printf(out, "  - %s\n", kind_help[k]);
    }
    if (allow->kinds & KIND_BIT(USES)) {
        struct cox_buf list = { 0 };

        put_list(&list, allow);
        cox_buf_printf(out, "- Programs that \"uses\" may name, in which * is any characters: %s\n",
                       cox_buf_cstr(&list));
        cox_buf_fini(&list);
    }
    cox_buf_printf(out, "- At most %u steps, alternatives of races included.\n", allow->max_steps);
}

/* ---- the kind ---- */

static int64_t read_reasks(struct compiler *c, const struct place *at, json_t *on_invalid)
{
    struct place here = place_key(at, "on_invalid"), reask = place_key(&here, "reask");
    int64_t reasks = COX_TURN_REASKS_DEFAULT;
    json_t *f[1];

    if (on_invalid &&
        fields_check(&c->report, &here, on_invalid, plan_fields[PLAN_ON_INVALID].expected, invalid_fields, 1,
                     f) &&
        f[0])
        field_integer(&c->report, &reask, f[0], 0, REASKS_MAX, &reasks);
    return reasks;
}

static void refuse_shapes(struct compiler *c, const struct place *at, json_t *const f[PLAN_NR])
{
    static const int shapes[] = { REQUEST_OUTPUT_SCHEMA, REQUEST_RESPONSE_FORMAT, REQUEST_TOOL_CHOICE,
                                  REQUEST_PARALLEL };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct place here = place_key(at, plan_fields[shapes[i]].name);

        if (f[shapes[i]])
            report_at(&c->report, &here, "the answer is a plan, and made without tools; `%s` cannot be set",
                      plan_fields[shapes[i]].name);
    }
}

void compile_plan(struct compiler *c, const struct place *at, const struct scope *scope,
                  const struct call_source *source, struct cox_image_call *call, struct cox_buf *config)
{
    struct place allow_at = place_key(at, "allow");
    struct allow allow;
    struct cox_buf preface = { 0 };
    json_t *f[PLAN_NR], *schema;

    if (!fields_check(&c->report, at, source->f[CALL_PLAN], "an object such as {\"input\": \"...\"}",
                      plan_fields, PLAN_NR, f))
        return;
    refuse_shapes(c, at, f);
    f[REQUEST_RESPONSE_FORMAT] = NULL;
    read_allow(c, &allow_at, f[PLAN_ALLOW], c->allow ? c->allow : &defaults, &allow);
    put_preface(&preface, &allow);
    schema =
        json_loads("{\"type\":\"object\",\"properties\":{\"steps\":{\"type\":\"object\","
                   "\"additionalProperties\":{\"type\":\"object\"}},\"output\":{}},\"required\":[\"steps\"]}",
                   0, NULL);
    draft_begin(c);
    put_request(c, scope, at, f,
                &(struct request){ .kind = "plan",
                                   .preface = cox_buf_slice(&preface),
                                   .instructions = f[PLAN_INSTRUCTIONS],
                                   .schema = schema });
    draft_raw(c, "}");
    call->spec_template = draft_end(c, at);
    cox_buf_printf(config,
                   "{\"max_turns\":%u,\"max_parallel\":1,\"reasks\":%lld,\"plan\":", COX_TURNS_DEFAULT,
                   (long long)read_reasks(c, at, f[PLAN_ON_INVALID]));
    put_allow(config, &allow);
    cox_buf_append_str(config, ",\"tools\":[]}");
    json_decref(schema);
    cox_buf_fini(&preface);
}

/* ---- an answer ---- */

static void put_kinds(struct cox_buf *out, uint32_t kinds)
{
    const char *separator = "";

    for (int k = 0; k < COX_KIND_NR; k++) {
        if (!(kinds & 1u << k))
            continue;
        cox_buf_printf(out, "%s`%s`", separator, cox_step_kind_text((enum cox_step_kind)k));
        separator = ", ";
    }
}

void check_allowed(struct compiler *c, const struct place *at, const struct call_source *source)
{
    struct place here = place_key(at, cox_step_kind_text(source->kind));
    struct cox_buf expected = { 0 };

    if (!c->allow || COX_PLANTED("plans-allowed-all"))
        return;
    if (!(c->allow->kinds & 1u << source->kind)) {
        put_kinds(&expected, c->allow->kinds);
        report_at(&c->report, &here, "a plan may not have `%s`, expected one of %s",
                  cox_step_kind_text(source->kind), cox_buf_cstr(&expected));
    } else if (source->kind == COX_KIND_USES && !is_allowed(c->allow, json_slice(source->f[CALL_USES]))) {
        put_list(&expected, c->allow);
        report_at(&c->report, &here, "a plan may not use `%.*s`, expected one of: %s",
                  shown_len(json_slice(source->f[CALL_USES]), 100), json_string_value(source->f[CALL_USES]),
                  cox_buf_cstr(&expected));
    }
    cox_buf_fini(&expected);
}

bool read_allowed(struct compiler *c, struct allow *ret)
{
    struct report own = { c->report.violations, { 0 } }, saved = c->report;
    struct place root = { 0 }, at = place_key(&root, "allow");
    struct cox_slice text = cox_json_trim(c->source->allow_json);

    c->report = own; /* places in it are not in the document */
    c->allow_json = text.len > 0 ? json_parse(&c->report, &at, text, "an allow-list") : NULL;
    if (text.len == 0 || c->allow_json)
        read_allow(c, &at, c->allow_json, &defaults, ret);
    c->report = saved;
    return report_clean(&c->report);
}

void check_plan_steps(struct compiler *c)
{
    if (c->allow && c->n_steps > c->allow->max_steps)
        report_at(&c->report, c->steps_at,
                  "found %u steps, those in races, maps and agents included, expected at most %u", c->n_steps,
                  c->allow->max_steps);
}
