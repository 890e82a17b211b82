/* cox_task_compile: the document's top level, and the order in which its parts are compiled. */
#include "compile.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <stdio.h>
#include <string.h>

#define TASK_NAME_EXPECTED "a name of a-z, 0-9, _ and -, at most 63 long, a letter or _ first"
#define BUNDLE_EXPECTED                                                                                      \
    "\"sha256:\" and 64 hexadecimal digits: `cox` packs the folder, uploads it and puts this"

enum {
    TASK_API_VERSION,
    TASK_NAME,
    TASK_KIND,
    TASK_DESCRIPTION,
    TASK_LABELS,
    TASK_INPUTS,
    TASK_DEFAULTS,
    TASK_BUDGET,
    TASK_FAIL_FAST,
    TASK_PRIORITY,
    TASK_STEPS,
    TASK_OUTPUTS,
    TASK_BUNDLE,
    TASK_SCHEDULE,
    TASK_VERSION,
    TASK_NR
};
static const struct field task_fields[TASK_NR] = {
    [TASK_API_VERSION] = { "api_version", WANT_ANY, FIELD_REQUIRED, "\"v1\"" },
    [TASK_NAME] = { "name", WANT_STRING, FIELD_REQUIRED, TASK_NAME_EXPECTED },
    [TASK_KIND] = { "kind", WANT_STRING, FIELD_OPTIONAL, "\"task\", \"template\" or \"schedule\"" },
    [TASK_DESCRIPTION] = { "description", WANT_STRING, FIELD_OPTIONAL, "a string" },
    [TASK_LABELS] = { "labels", WANT_OBJECT, FIELD_OPTIONAL, "an object of strings" },
    [TASK_INPUTS] = { "inputs", WANT_OBJECT, FIELD_OPTIONAL,
                      "an object such as {\"repo\": {\"type\": \"string\"}}" },
    [TASK_DEFAULTS] = { "defaults", WANT_OBJECT, FIELD_OPTIONAL, "an object with `timeout` and `retry`" },
    [TASK_BUDGET] = { "budget", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"timeout\": \"2h\"}" },
    [TASK_FAIL_FAST] = { "fail_fast", WANT_BOOL, FIELD_OPTIONAL, "true or false" },
    [TASK_PRIORITY] = { "priority", WANT_ANY, FIELD_OPTIONAL, "" },
    [TASK_STEPS] = { "steps", WANT_OBJECT, FIELD_REQUIRED, "an object of steps by name" },
    [TASK_OUTPUTS] = { "outputs", WANT_OBJECT, FIELD_OPTIONAL, "an object of values by name" },
    [TASK_BUNDLE] = { "bundle", WANT_STRING, FIELD_OPTIONAL, BUNDLE_EXPECTED },
    [TASK_SCHEDULE] = { "schedule", WANT_OBJECT, FIELD_OPTIONAL,
                        "an object such as {\"cron\": \"0 3 * * *\"}" },
    [TASK_VERSION] = { "version", WANT_ANY, FIELD_OPTIONAL, "" },
};

enum { DEFAULTS_TIMEOUT, DEFAULTS_RETRY, DEFAULTS_NR };
static const struct field defaults_fields[DEFAULTS_NR] = {
    { "timeout", WANT_ANY, FIELD_OPTIONAL, "" },
    { "retry", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"max_attempts\": 3}" },
};

enum { BUDGET_TIMEOUT, BUDGET_TOKENS, BUDGET_COST, BUDGET_CPU, BUDGET_STEPS, BUDGET_NR };
static const struct field budget_fields[BUDGET_NR] = {
    { "timeout", WANT_ANY, FIELD_OPTIONAL, "" }, { "tokens", WANT_ANY, FIELD_OPTIONAL, "" },
    { "cost", WANT_ANY, FIELD_OPTIONAL, "" },    { "cpu_seconds", WANT_ANY, FIELD_OPTIONAL, "" },
    { "steps", WANT_ANY, FIELD_OPTIONAL, "" },
};

void u32s_add(struct u32s *s, uint32_t v)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->v = cox_realloc(s->v, s->cap, sizeof(*s->v));
    }
    s->v[s->n++] = v;
}

/* ---- the parts of the top level ---- */

static void check_label(struct compiler *c, const struct place *at, struct cox_slice name,
                        struct cox_slice value)
{
    if (name.len == 0 || name.len > COX_LABEL_LEN_MAX || value.len > COX_LABEL_LEN_MAX)
        report_at(&c->report, at,
                  "found a label of %zu and %zu bytes, expected a name of 1 to %u and a value of at most %u",
                  name.len, value.len, COX_LABEL_LEN_MAX, COX_LABEL_LEN_MAX);
}

static bool label_given(const struct compiler *c, const char *name)
{
    for (size_t i = 0; i < c->source->n_labels; i++) {
        if (cox_slice_is(c->source->labels[i].name, name))
            return true;
    }
    return false;
}

/* The document's labels that the request does not replace, then the request's. */
static void compile_labels(struct compiler *c, const struct place *at, json_t *labels)
{
    const struct cox_task_source *source = c->source;
    const char *name;
    json_t *value;

    if (source->n_labels > COX_LABELS_MAX || json_object_size(labels) > COX_LABELS_MAX) {
        report_at(&c->report, at, "found more than %u labels, expected at most %u", COX_LABELS_MAX,
                  COX_LABELS_MAX);
        return;
    }
    json_object_foreach(labels, name, value)
    {
        struct place here = place_key(at, name);

        if (!json_is_string(value)) {
            report_found(&c->report, &here, value, "a string");
            continue;
        }
        check_label(c, &here, cox_slice_str(name), json_slice(value));
        if (!label_given(c, name))
            image_put_label(&c->image, cox_slice_str(name), json_slice(value));
    }
    for (size_t i = 0; i < source->n_labels; i++) {
        const struct cox_label *label = &source->labels[i];

        check_label(c, at, label->name, label->value);
        if (!cox_utf8_ok(label->name) || !cox_utf8_ok(label->value))
            report_at(&c->report, at, "found bytes that are not UTF-8; expected UTF-8 text");
        image_put_label(&c->image, label->name, label->value);
    }
    if (c->image.n_labels > COX_LABELS_MAX)
        report_at(&c->report, at, "found %u labels, expected at most %u", c->image.n_labels, COX_LABELS_MAX);
}

static void compile_defaults(struct compiler *c, const struct place *at, json_t *defaults)
{
    struct place timeout = place_key(at, "timeout"), retry = place_key(at, "retry");
    json_t *f[DEFAULTS_NR];

    c->timeout_ms = COX_TIMEOUT_DEFAULT_MS;
    c->retry = (struct retry){ .max_attempts = 1, .multiplier_milli = 1000 };
    if (!defaults || !fields_check(&c->report, at, defaults, "an object", defaults_fields, DEFAULTS_NR, f))
        return;
    if (f[DEFAULTS_TIMEOUT])
        field_duration(&c->report, &timeout, f[DEFAULTS_TIMEOUT], &c->timeout_ms);
    if (f[DEFAULTS_RETRY])
        compile_retry(c, &retry, f[DEFAULTS_RETRY], &c->retry);
}

#define BUDGET_ALL_NONE                                                                                      \
    {                                                                                                        \
        COX_BUDGET_NONE, COX_BUDGET_NONE, COX_BUDGET_NONE, COX_BUDGET_NONE                                   \
    }

/* Millionths of what a document says in whole units: a part of one counts as one. */
static void budget_micros(struct compiler *c, const struct place *at, const char *key, const json_t *v,
                          uint64_t *ret)
{
    struct place here = place_key(at, key);
    double n = json_is_number(v) ? json_number_value(v) : -1;

    if (v && (n < 0 || n > 1e12))
        report_found(&c->report, &here, v, "a number from 0 to 1000000000000");
    else if (v)
        *ret = (uint64_t)(n * 1e6) + ((double)(uint64_t)(n * 1e6) < n * 1e6);
}

static void budget_count(struct compiler *c, const struct place *at, const char *key, const json_t *v,
                         int64_t min, uint64_t *ret)
{
    struct place here = place_key(at, key);
    int64_t n;

    if (v && field_integer(&c->report, &here, v, min, 1000000000000000, &n))
        *ret = (uint64_t)n;
}

static void compile_budget(struct compiler *c, const struct place *at, json_t *budget,
                           struct cox_image_task *task)
{
    struct place timeout = place_key(at, "timeout");
    json_t *f[BUDGET_NR];

    if (!budget || !fields_check(&c->report, at, budget, "an object", budget_fields, BUDGET_NR, f))
        return;
    if (f[BUDGET_TIMEOUT])
        field_duration(&c->report, &timeout, f[BUDGET_TIMEOUT], &task->deadline_ms);
    budget_count(c, at, "tokens", f[BUDGET_TOKENS], 0, &task->budget[COX_BUDGET_TOKENS]);
    budget_micros(c, at, "cost", f[BUDGET_COST], &task->budget[COX_BUDGET_COST]);
    budget_micros(c, at, "cpu_seconds", f[BUDGET_CPU], &task->budget[COX_BUDGET_CPU]);
    budget_count(c, at, "steps", f[BUDGET_STEPS], 1, &task->budget[COX_BUDGET_STEPS]);
}

/* What a document has already must not be more than it may have. */
static void check_budget(struct compiler *c, const struct cox_image_task *task)
{
    struct place budget = place_key(c->steps_at->up, "budget"), here = place_key(&budget, "steps");
    uint64_t limit = task->budget[COX_BUDGET_STEPS];

    if (c->n_members > limit)
        report_at(&c->report, &here, "found %u steps in the document, expected at most the budget's %llu",
                  c->n_members, (unsigned long long)limit);
}

static void check_kind(struct compiler *c, const struct place *at, const json_t *kind)
{
    static const char *const kinds[] = {
        [COX_SOURCE_TASK] = "task", [COX_SOURCE_TEMPLATE] = "template", [COX_SOURCE_SCHEDULE] = "schedule"
    };
    const char *expected = kinds[c->source->kind], *found = kind ? json_string_value(kind) : "task";
    struct place here = place_key(at, "kind");
    char text[80];

    if (strcmp(found, expected) == 0)
        return;
    snprintf(text, sizeof(text), "\"%s\"%s", expected, c->source->kind == COX_SOURCE_TASK ? ", or none" : "");
    if (!kind)
        report_at(&c->report, &here, "missing; expected %s", text);
    else if (strcmp(found, "template") == 0 || strcmp(found, "schedule") == 0)
        report_at(&c->report, &here, "found \"%s\", expected %s; `cox %s apply` takes this document", found,
                  text, found);
    else
        report_found(&c->report, &here, kind, text);
}

/* "sha256:" and 64 digits. */
static bool hash_ok(struct cox_slice s)
{
    if (s.len != 7 + 64 || memcmp(s.data, "sha256:", 7) != 0)
        return false;
    for (size_t i = 7; i < s.len; i++) {
        uint8_t d = s.data[i];

        if (!(d >= '0' && d <= '9') && !(d >= 'a' && d <= 'f'))
            return false;
    }
    return true;
}

static void check_header(struct compiler *c, const struct place *root, json_t *const f[TASK_NR])
{
    struct place version = place_key(root, "api_version"), name = place_key(root, "name");
    struct place bundle = place_key(root, "bundle"), schedule = place_key(root, "schedule");
    struct place major = place_key(root, "version");
    const char *kind = f[TASK_KIND] ? json_string_value(f[TASK_KIND]) : "task";

    if (f[TASK_API_VERSION] &&
        !(json_is_string(f[TASK_API_VERSION]) && cox_slice_is(json_slice(f[TASK_API_VERSION]), "v1")))
        report_found(&c->report, &version, f[TASK_API_VERSION], "\"v1\"");
    if (f[TASK_NAME] && !name_ok(json_slice(f[TASK_NAME]), true))
        report_found(&c->report, &name, f[TASK_NAME], TASK_NAME_EXPECTED);
    check_kind(c, root, f[TASK_KIND]);
    if (f[TASK_BUNDLE] && !hash_ok(json_slice(f[TASK_BUNDLE])))
        report_found(&c->report, &bundle, f[TASK_BUNDLE], BUNDLE_EXPECTED);
    c->has_bundle = f[TASK_BUNDLE] != NULL;
    if (f[TASK_VERSION] && strcmp(kind, "template") != 0)
        report_at(&c->report, &major, "only a template has a version; expected `kind: template` beside it");
    else if (f[TASK_VERSION])
        compile_version(c, &major, f[TASK_VERSION]);
    if (f[TASK_SCHEDULE] && strcmp(kind, "schedule") != 0)
        report_at(&c->report, &schedule, "expected `kind: schedule` beside it");
    else if (f[TASK_SCHEDULE])
        compile_schedule(c, &schedule, f[TASK_SCHEDULE]);
    else if (strcmp(kind, "schedule") == 0)
        report_at(&c->report, &schedule, "missing; expected an object such as {\"cron\": \"0 3 * * *\"}");
}

/* ---- steps ---- */

/* Or the engine, having no room for it ever, would have it submitted again for ever. */
_Static_assert(COX_TASK_CLASSES_MAX <= COX_CLASSES_MAX, "a task alone must find room");

/* Names of `outputs` are data, so any key will do. */
static uint32_t compile_outputs(struct compiler *c, const struct place *at, json_t *outputs)
{
    const struct scope scope = { .step = COX_IMAGE_NONE };

    return outputs ? compile_template(c, &scope, at, outputs) : COX_IMAGE_NONE;
}

/* After all else but the steps: compiles them, and lays the image out when nothing is wrong. */
static void compile_graph(struct compiler *c, struct cox_image_task *task, const struct place *outputs_at,
                          json_t *outputs, struct cox_buf *ret_image)
{
    struct graph graph = { 0 };

    if (!plan_steps(c))
        return;
    check_plan_steps(c);
    compile_steps(c);
    check_budget(c, task);
    task->outputs_template =
        task->outputs_always ? compile_results(c) : compile_outputs(c, outputs_at, outputs);
    graph_build(c, &graph);
    if (report_clean(&c->report)) {
        const struct image_graph edges = { c->needs_at, c->needs.v, graph.dependants_at, graph.dependants,
                                           c->sorted };

        task->priority = c->priority;
        task->n_members = c->n_members;
        image_finish(&c->image, task, c->inputs_json, &edges, ret_image);
    }
    graph_fini(&graph);
}

/* What a program asks for: steps, and nothing around them. */
static void compile_bare_steps(struct compiler *c, struct cox_buf *ret_image)
{
    struct place root = { 0 }, inputs = place_key(&root, "inputs");
    struct cox_image_task task = { .outputs_always = true, .budget = BUDGET_ALL_NONE };

    if (!json_is_object(c->document)) {
        report_found(&c->report, &root, c->document, "an object of steps by name");
        return;
    }
    c->has_bundle = true; /* its task's */
    c->steps = c->document;
    c->steps_at = &root;
    compile_inputs(c, &inputs, NULL);
    compile_defaults(c, &root, NULL);
    compile_graph(c, &task, &root, NULL, ret_image);
}

enum { PLAN_STEPS, PLAN_OUTPUT, PLAN_NR };
static const struct field plan_fields[PLAN_NR] = {
    { "steps", WANT_OBJECT, FIELD_REQUIRED, "an object of steps by name" },
    { "output", WANT_ANY, FIELD_OPTIONAL, "" },
};

/* What a model asks for: steps, and what they come to. */
static void compile_plan_steps(struct compiler *c, struct cox_buf *ret_image)
{
    struct place root = { 0 }, inputs = place_key(&root, "inputs"), steps = place_key(&root, "steps");
    struct place output = place_key(&root, "output");
    struct cox_image_task task = { .budget = BUDGET_ALL_NONE };
    struct allow allow;
    json_t *f[PLAN_NR];

    if (!read_allowed(c, &allow) ||
        !fields_check(&c->report, &root, c->document, "an object with `steps` and `output`", plan_fields,
                      PLAN_NR, f) ||
        !f[PLAN_STEPS])
        return;
    c->has_bundle = true; /* its task's */
    c->allow = &allow;
    c->steps = f[PLAN_STEPS];
    c->steps_at = &steps;
    compile_inputs(c, &inputs, NULL);
    compile_defaults(c, &root, NULL);
    compile_graph(c, &task, &output, f[PLAN_OUTPUT] ? f[PLAN_OUTPUT] : json_null(), ret_image);
    c->allow = NULL;
}

static void compile_document(struct compiler *c, struct cox_buf *ret_image)
{
    struct place root = { 0 }, labels = place_key(&root, "labels"), inputs = place_key(&root, "inputs");
    struct place defaults = place_key(&root, "defaults"), budget = place_key(&root, "budget");
    struct place priority_at = place_key(&root, "priority"), steps = place_key(&root, "steps");
    struct place outputs = place_key(&root, "outputs");
    struct cox_image_task task = { .outputs_template = COX_IMAGE_NONE, .budget = BUDGET_ALL_NONE };
    int64_t priority = 0;
    json_t *f[TASK_NR];

    if (!fields_check(&c->report, &root, c->document, "an object, the task", task_fields, TASK_NR, f))
        return;
    check_header(c, &root, f);
    compile_labels(c, &labels, f[TASK_LABELS]);
    compile_inputs(c, &inputs, f[TASK_INPUTS]);
    compile_defaults(c, &defaults, f[TASK_DEFAULTS]);
    compile_budget(c, &budget, f[TASK_BUDGET], &task);
    if (f[TASK_PRIORITY])
        field_integer(&c->report, &priority_at, f[TASK_PRIORITY], -100, 100, &priority);
    c->priority = (int32_t)priority;
    c->steps = f[TASK_STEPS];
    c->steps_at = &steps;
    task.name = json_slice(f[TASK_NAME]);
    task.bundle = json_slice(f[TASK_BUNDLE]);
    task.fail_fast = json_is_true(f[TASK_FAIL_FAST]);
    if (c->steps)
        compile_graph(c, &task, &outputs, f[TASK_OUTPUTS], ret_image);
}

static void compiler_fini(struct compiler *c)
{
    json_decref(c->document);
    image_writer_fini(&c->image);
    cox_mapb_fini(&c->input_by_name);
    cox_free(c->inputs);
    cox_free(c->input_names);
    cox_free(c->input_types);
    json_decref(c->given);
    json_decref(c->allow_json);
    cox_free(c->plan);
    cox_arena_fini(&c->texts);
    cox_free(c->sorted);
    cox_free(c->needs_at);
    cox_free(c->needs.v);
    cox_free(c->seen_by_step);
    cox_free(c->seen_by_template);
    cox_buf_fini(&c->draft.raw);
    cox_buf_fini(&c->draft.code);
    cox_free(c->draft.refs.v);
    cox_buf_fini(&c->scratch);
    cox_buf_fini(&c->secrets.places);
}

enum cox_err cox_task_compile(const struct cox_task_source *source, struct cox_buf *ret_image,
                              struct cox_violations *v)
{
    struct compiler c = { .source = source, .report = { v, source->document } };
    const struct place root = { 0 };

    *v = (struct cox_violations){ 0 };
    cox_buf_clear(ret_image);
    image_writer_init(&c.image);
    c.document = json_parse(&c.report, &root, source->document, "a document");
    if (c.document) {
        cox_buf_reserve(&c.image.pool, source->document.len / 2); /* most of it are strings */
        if (source->kind == COX_SOURCE_STEPS)
            compile_bare_steps(&c, ret_image);
        else if (source->kind == COX_SOURCE_PLAN)
            compile_plan_steps(&c, ret_image);
        else
            compile_document(&c, ret_image);
    }
    compiler_fini(&c);
    return report_clean(&c.report) ? COX_OK : COX_ERR_INVALID;
}
