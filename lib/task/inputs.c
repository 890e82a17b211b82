/* Inputs of a task: what the document declares, with what the request gives. */
#include "inputs.h"
#include "compile.h"

#include "cox/base/alloc.h"

#include <string.h>

enum { INPUT_TYPE, INPUT_DEFAULT, INPUT_REQUIRED, INPUT_DESCRIPTION, INPUT_NR };
static const struct field input_fields[INPUT_NR] = {
    { "type", WANT_STRING, FIELD_REQUIRED,
      "\"string\", \"integer\", \"number\", \"boolean\", \"array\", \"object\" or \"any\"" },
    { "default", WANT_ANY, FIELD_OPTIONAL, "" },
    { "required", WANT_BOOL, FIELD_OPTIONAL, "true or false" },
    { "description", WANT_STRING, FIELD_OPTIONAL, "a string" },
};

/* Their order is in images: append only. */
static const struct input_type input_types[] = {
    { "string", WANT_STRING, "a string" }, { "integer", WANT_INTEGER, "an integer" },
    { "number", WANT_NUMBER, "a number" }, { "boolean", WANT_BOOL, "true or false" },
    { "array", WANT_LIST, "a list" },      { "object", WANT_OBJECT, "an object" },
    { "any", WANT_ANY, "any value" },
};
#define N_TYPES (sizeof(input_types) / sizeof(input_types[0]))

const struct input_type *input_type(uint32_t type)
{
    return type < N_TYPES ? &input_types[type] : &input_types[N_TYPES - 1];
}

static uint32_t find_type(struct compiler *c, const struct place *at, const json_t *type)
{
    struct place here = place_key(at, "type");

    for (uint32_t i = 0; i < N_TYPES; i++) {
        if (strcmp(json_string_value(type), input_types[i].name) == 0)
            return i;
    }
    report_found(&c->report, &here, type, input_fields[INPUT_TYPE].expected);
    return N_TYPES;
}

/* The value of one declared input; NULL after reporting. Borrowed. `given_report` knows the request's text.
 */
static json_t *input_value(struct compiler *c, struct report *given_report, const struct place *at,
                           json_t *declared, json_t *given, uint32_t *ret_type)
{
    json_t *f[INPUT_NR];

    *ret_type = N_TYPES;

    if (!fields_check(&c->report, at, declared, "an object such as {\"type\": \"string\"}", input_fields,
                      INPUT_NR, f) ||
        !f[INPUT_TYPE])
        return NULL;
    *ret_type = find_type(c, at, f[INPUT_TYPE]);
    const struct input_type *type = input_type(*ret_type);
    struct place fallback = place_key(at, "default");

    if (*ret_type == N_TYPES)
        return NULL;
    if (f[INPUT_DEFAULT] && !(want_of(f[INPUT_DEFAULT]) & type->want)) {
        report_found(&c->report, &fallback, f[INPUT_DEFAULT], type->expected);
        return NULL;
    }
    if (given && !(want_of(given) & type->want)) {
        report_found(given_report, at, given, type->expected);
        return NULL;
    }
    if (given)
        return given;
    if (f[INPUT_DEFAULT])
        return f[INPUT_DEFAULT];
    bool checked_only = c->source->kind == COX_SOURCE_TEMPLATE && c->source->inputs_json.len == 0;

    if (checked_only || (f[INPUT_REQUIRED] && json_is_false(f[INPUT_REQUIRED])))
        return json_null(); /* a singleton, never freed */
    report_at(&c->report, at, "missing; this input has no default, expected %s", type->expected);
    return NULL;
}

/* Adds `"name":value` to the text of the inputs, remembering where the value lies in it. */
static void add_input(struct compiler *c, const char *name, const json_t *value, uint32_t type)
{
    struct cox_buf *text = &c->scratch;
    uint32_t i = c->n_inputs++;

    cox_buf_append_str(text, i > 0 ? "," : "{");
    cox_json_quote(text, cox_slice_str(name));
    cox_put_u8(text, ':');
    size_t at = text->len;

    if (value)
        json_put(text, value);
    c->inputs[i] = (struct image_str){ (uint32_t)at, (uint32_t)(text->len - at) };
    c->input_types[i] = type;
    c->input_names[i] = name;
    cox_mapb_set(&c->input_by_name, cox_slice_str(name), (void *)(uintptr_t)((size_t)i + 1));
}

static void report_unknown_inputs(struct compiler *c, struct report *given_report, const struct place *at,
                                  json_t *declared, json_t *given)
{
    const char *name, *known;
    json_t *value, *any;

    json_object_foreach(given, name, value)
    {
        struct suggestion near = suggestion(cox_slice_str(name));
        struct place here = place_key(at, name);
        char text[SUGGESTION_LEN];

        if (json_object_get(declared, name))
            continue;
        if (report_open(&c->report)) {
            json_object_foreach(declared, known, any) suggestion_offer(&near, cox_slice_str(known));
        }
        report_at(given_report, &here, "unknown input%s", suggestion_text(&near, text));
    }
}

static void put_inputs(struct compiler *c, const struct place *at)
{
    struct cox_buf *text = &c->scratch;

    cox_buf_append_str(text, c->n_inputs > 0 ? "}" : "{}");
    if (text->len > COX_DOCUMENT_LEN_MAX) {
        report_at(&c->report, at, "found inputs of %zu bytes, expected at most %u", text->len,
                  COX_DOCUMENT_LEN_MAX);
        cox_buf_clear(text);
    }
    c->inputs_json = image_put_str(&c->image, cox_buf_slice(text));
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        c->inputs[i].at += c->inputs_json.at;
        image_put_input(&c->image, cox_slice_str(c->input_names[i]), c->inputs[i], c->input_types[i]);
    }
}

/* What the document declares, each with its value. */
static void declared_inputs(struct compiler *c, struct report *given_report, const struct place *at,
                            json_t *declared, json_t *given)
{
    const char *name;
    json_t *value;

    json_object_foreach(declared, name, value)
    {
        struct place here = place_key(at, name);
        uint32_t type;

        if (!name_ok(cox_slice_str(name), false))
            report_at(&c->report, &here, "found the input name \"%.*s\", expected a name of a-z, 0-9 and _",
                      shown_len(cox_slice_str(name), 100), name);
        value = input_value(c, given_report, &here, value, json_object_get(given, name), &type);
        add_input(c, name, value, type);
    }
    report_unknown_inputs(c, given_report, at, declared, given);
}

void compile_inputs(struct compiler *c, const struct place *at, json_t *declared)
{
    struct report given_report = { c->report.violations, { 0 } };
    struct cox_slice given_text = c->source->inputs_json;
    json_t *given = NULL, *value;
    const char *name;

    if (cox_json_trim(given_text).len > 0) {
        given = json_parse(&given_report, at, given_text, "inputs");
        if (given && !json_is_object(given))
            report_found(&given_report, at, given, "an object of inputs by name");
    }
    size_t n = json_object_size(is_made(c) ? given : declared);

    c->inputs = cox_calloc(n + 1, sizeof(*c->inputs));
    c->input_names = cox_calloc(n + 1, sizeof(*c->input_names));
    c->input_types = cox_calloc(n + 1, sizeof(*c->input_types));
    cox_buf_clear(&c->scratch);
    if (is_made(c)) {
        json_object_foreach(given, name, value) add_input(c, name, value, N_TYPES - 1);
    } else {
        declared_inputs(c, &given_report, at, declared, given);
    }
    put_inputs(c, at);
    c->given = given;
}
