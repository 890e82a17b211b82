/* cox_task_compile: the document's top level, and the order in which its parts are compiled. */
#include "compile.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <stdlib.h>
#include <string.h>

#define TASK_NAME_EXPECTED "a name of a-z, 0-9, _ and -, at most 63 long, a letter or _ first"

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
    TASK_NR
};
static const struct field task_fields[TASK_NR] = {
    [TASK_API_VERSION] = { "api_version", WANT_ANY, FIELD_REQUIRED, "\"v1\"" },
    [TASK_NAME] = { "name", WANT_STRING, FIELD_REQUIRED, TASK_NAME_EXPECTED },
    [TASK_KIND] = { "kind", WANT_STRING, FIELD_OPTIONAL, "\"task\"" },
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
    [TASK_BUNDLE] = { "bundle", WANT_ANY, FIELD_LATER, "" },
    [TASK_SCHEDULE] = { "schedule", WANT_ANY, FIELD_LATER, "" },
};

enum { DEFAULTS_TIMEOUT, DEFAULTS_RETRY, DEFAULTS_NR };
static const struct field defaults_fields[DEFAULTS_NR] = {
    { "timeout", WANT_ANY, FIELD_OPTIONAL, "" },
    { "retry", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"max_attempts\": 3}" },
};

enum { BUDGET_TIMEOUT, BUDGET_NR = 5 };
static const struct field budget_fields[BUDGET_NR] = {
    { "timeout", WANT_ANY, FIELD_OPTIONAL, "" }, { "tokens", WANT_ANY, FIELD_LATER, "" },
    { "cost", WANT_ANY, FIELD_LATER, "" },       { "cpu_seconds", WANT_ANY, FIELD_LATER, "" },
    { "steps", WANT_ANY, FIELD_LATER, "" },
};

void u32s_add(struct u32s *s, uint32_t v)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->v = cox_realloc(s->v, s->cap, sizeof(*s->v));
    }
    s->v[s->n++] = v;
}

uint32_t compiler_find_step(const struct compiler *c, struct cox_slice name)
{
    uint32_t low = 0, high = c->n_steps;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int order = cox_slice_cmp(cox_slice_str(c->step_names[c->sorted[mid]]), name);

        if (order == 0)
            return c->sorted[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return COX_IMAGE_NONE;
}

void compiler_refer(struct compiler *c, const struct scope *scope, uint32_t step)
{
    if (scope->step == COX_IMAGE_NONE || c->seen_by_step[step] == scope->step + 1)
        return;
    c->seen_by_step[step] = scope->step + 1;
    u32s_add(&c->needs, step);
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

static void compile_budget(struct compiler *c, const struct place *at, json_t *budget,
                           int64_t *ret_deadline_ms)
{
    struct place timeout = place_key(at, "timeout");
    json_t *f[BUDGET_NR];

    if (budget && fields_check(&c->report, at, budget, "an object", budget_fields, BUDGET_NR, f) &&
        f[BUDGET_TIMEOUT])
        field_duration(&c->report, &timeout, f[BUDGET_TIMEOUT], ret_deadline_ms);
}

static void check_header(struct compiler *c, const struct place *root, json_t *const f[TASK_NR])
{
    struct place version = place_key(root, "api_version"), name = place_key(root, "name");
    struct place kind = place_key(root, "kind");
    const char *kind_text = json_string_value(f[TASK_KIND]);

    if (f[TASK_API_VERSION] &&
        !(json_is_string(f[TASK_API_VERSION]) && cox_slice_is(json_slice(f[TASK_API_VERSION]), "v1")))
        report_found(&c->report, &version, f[TASK_API_VERSION], "\"v1\"");
    if (f[TASK_NAME] && !name_ok(json_slice(f[TASK_NAME]), true))
        report_found(&c->report, &name, f[TASK_NAME], TASK_NAME_EXPECTED);
    if (!kind_text || strcmp(kind_text, "task") == 0)
        return;
    if (strcmp(kind_text, "template") == 0 || strcmp(kind_text, "schedule") == 0)
        report_at(&c->report, &kind, "the kind \"%s\" is not available in this version", kind_text);
    else
        report_found(&c->report, &kind, f[TASK_KIND], "\"task\"");
}

/* ---- steps ---- */

/* Or the engine, having no room for it ever, would have it submitted again for ever. */
_Static_assert(COX_TASK_CLASSES_MAX <= COX_CLASSES_MAX, "a task alone must find room");

static int compare_names(const void *a, const void *b, void *names)
{
    const char *const *name = names;

    return strcmp(name[*(const uint32_t *)a], name[*(const uint32_t *)b]);
}

static bool index_steps(struct compiler *c, const struct place *at, json_t *steps)
{
    size_t n = json_object_size(steps);
    const char *name;
    json_t *step;

    if (n < 1 || n > COX_TASK_STEPS_MAX) {
        report_at(&c->report, at, "found %zu steps, expected 1 to %u", n, COX_TASK_STEPS_MAX);
        return false;
    }
    c->step_names = cox_calloc(n, sizeof(*c->step_names));
    c->sorted = cox_calloc(n, sizeof(*c->sorted));
    c->needs_at = cox_calloc(n + 1, sizeof(*c->needs_at));
    c->seen_by_step = cox_calloc(n, sizeof(*c->seen_by_step));
    c->seen_by_template = cox_calloc(n, sizeof(*c->seen_by_template));
    json_object_foreach(steps, name, step)
    {
        c->step_names[c->n_steps] = name;
        c->sorted[c->n_steps] = c->n_steps;
        c->n_steps++;
    }
    qsort_r(c->sorted, n, sizeof(*c->sorted), compare_names, (void *)c->step_names);
    return true;
}

static void compile_steps(struct compiler *c, const struct place *at, json_t *steps)
{
    uint32_t index = 0;
    const char *name;
    json_t *step;

    json_object_foreach(steps, name, step)
    {
        struct place here = place_key(at, name);

        compile_step(c, &here, index++, step);
        c->needs_at[index] = c->needs.n;
    }
    if (c->image.n_classes > COX_TASK_CLASSES_MAX)
        report_at(&c->report, at,
                  "found %u different combinations of program, `resources` and `requires`, "
                  "expected at most %u",
                  c->image.n_classes, COX_TASK_CLASSES_MAX);
}

/* Names of `outputs` are data, so any key will do. */
static uint32_t compile_outputs(struct compiler *c, const struct place *at, json_t *outputs)
{
    const struct scope scope = { .step = COX_IMAGE_NONE };

    return outputs ? compile_template(c, &scope, at, outputs) : COX_IMAGE_NONE;
}

static void compile_document(struct compiler *c, struct cox_buf *ret_image)
{
    struct place root = { 0 }, labels = place_key(&root, "labels"), inputs = place_key(&root, "inputs");
    struct place defaults = place_key(&root, "defaults"), budget = place_key(&root, "budget");
    struct place priority_at = place_key(&root, "priority"), steps = place_key(&root, "steps");
    struct place outputs = place_key(&root, "outputs");
    struct cox_image_task task = { .outputs_template = COX_IMAGE_NONE };
    struct graph graph = { 0 };
    int64_t priority = 0;
    json_t *f[TASK_NR];

    if (!fields_check(&c->report, &root, c->document, "an object, the task", task_fields, TASK_NR, f))
        return;
    check_header(c, &root, f);
    compile_labels(c, &labels, f[TASK_LABELS]);
    compile_inputs(c, &inputs, f[TASK_INPUTS]);
    compile_defaults(c, &defaults, f[TASK_DEFAULTS]);
    compile_budget(c, &budget, f[TASK_BUDGET], &task.deadline_ms);
    if (f[TASK_PRIORITY])
        field_integer(&c->report, &priority_at, f[TASK_PRIORITY], -100, 100, &priority);
    c->priority = (int32_t)priority;
    if (!f[TASK_STEPS] || !index_steps(c, &steps, f[TASK_STEPS]))
        return;
    compile_steps(c, &steps, f[TASK_STEPS]);
    task.outputs_template = compile_outputs(c, &outputs, f[TASK_OUTPUTS]);
    graph_build(c, &graph);
    if (report_clean(&c->report)) {
        const struct image_graph edges = { c->needs_at, c->needs.v, graph.dependants_at, graph.dependants,
                                           c->sorted };

        task.name = json_slice(f[TASK_NAME]);
        task.priority = c->priority;
        task.fail_fast = json_is_true(f[TASK_FAIL_FAST]);
        image_finish(&c->image, &task, c->inputs_json, &edges, ret_image);
    }
    graph_fini(&graph);
}

static void compiler_fini(struct compiler *c)
{
    json_decref(c->document);
    image_writer_fini(&c->image);
    cox_mapb_fini(&c->input_by_name);
    cox_free(c->inputs);
    cox_free(c->input_names);
    cox_free(c->step_names);
    cox_free(c->sorted);
    cox_free(c->needs_at);
    cox_free(c->needs.v);
    cox_free(c->seen_by_step);
    cox_free(c->seen_by_template);
    cox_buf_fini(&c->draft.raw);
    cox_buf_fini(&c->draft.code);
    cox_free(c->draft.refs.v);
    cox_buf_fini(&c->scratch);
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
        compile_document(&c, ret_image);
    }
    compiler_fini(&c);
    return report_clean(&c.report) ? COX_OK : COX_ERR_INVALID;
}
