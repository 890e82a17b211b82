#include "cox/schema.h"

#include "cox/json.h"
#include "cox/limits.h"

#include <string.h>

enum shape {
    SHAPE_SCHEMA,
    SHAPE_SCHEMAS,
    SHAPE_SCHEMA_LIST,
    SHAPE_NUMBER,
    SHAPE_COUNT,
    SHAPE_TYPE,
    SHAPE_NAMES,
    SHAPE_LIST,
    SHAPE_REF
};

static const struct keyword {
    const char *name;
    enum shape shape;
    const char *expected;
} keywords[] = {
    { "type", SHAPE_TYPE, "a name of a type, or a list of them" },
    { "enum", SHAPE_LIST, "a list of values" },
    { "properties", SHAPE_SCHEMAS, "an object of schemas" },
    { "required", SHAPE_NAMES, "a list of names" },
    { "additionalProperties", SHAPE_SCHEMA, "a schema" },
    { "minProperties", SHAPE_COUNT, "a number of 0 or more" },
    { "maxProperties", SHAPE_COUNT, "a number of 0 or more" },
    { "items", SHAPE_SCHEMA, "a schema" },
    { "prefixItems", SHAPE_SCHEMA_LIST, "a list of schemas" },
    { "minItems", SHAPE_COUNT, "a number of 0 or more" },
    { "maxItems", SHAPE_COUNT, "a number of 0 or more" },
    { "minimum", SHAPE_NUMBER, "a number" },
    { "maximum", SHAPE_NUMBER, "a number" },
    { "exclusiveMinimum", SHAPE_NUMBER, "a number" },
    { "exclusiveMaximum", SHAPE_NUMBER, "a number" },
    { "minLength", SHAPE_COUNT, "a number of 0 or more" },
    { "maxLength", SHAPE_COUNT, "a number of 0 or more" },
    { "allOf", SHAPE_SCHEMA_LIST, "a list of schemas" },
    { "anyOf", SHAPE_SCHEMA_LIST, "a list of schemas" },
    { "oneOf", SHAPE_SCHEMA_LIST, "a list of schemas" },
    { "not", SHAPE_SCHEMA, "a schema" },
    { "$defs", SHAPE_SCHEMAS, "an object of schemas" },
    { "$ref", SHAPE_REF, "a reference within the schema, such as #/$defs/x" },
};

static const char *const types[] = { "null", "boolean", "number", "integer", "string", "array", "object" };

struct frame {
    const struct frame *up;
    struct cox_slice key; /* raw; empty: the index counts */
    const char *name;     /* or this */
    size_t index;
};

static void put_path(struct cox_buf *out, const struct frame *f)
{
    if (!f)
        return;
    put_path(out, f->up);
    if (f->name) {
        cox_buf_printf(out, "%s%s", out->len > 0 ? "." : "", f->name);
    } else if (f->key.len > 0) {
        if (out->len > 0)
            cox_buf_append_str(out, ".");
        cox_json_unquote(out, f->key);
    } else {
        cox_buf_printf(out, "[%zu]", f->index);
    }
}

static enum cox_err fail(struct cox_buf *why, const struct frame *f, const char *expected)
{
    struct cox_buf path = { 0 };

    put_path(&path, f);
    cox_buf_printf(why, "%s: expected %s", path.len > 0 ? cox_buf_cstr(&path) : "the schema", expected);
    cox_buf_fini(&path);
    return COX_ERR_INVALID;
}

static bool is_type(struct cox_slice raw)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (cox_json_string_is(raw, cox_slice_str(types[i])))
            return true;
    return false;
}

static bool all(struct cox_slice list, bool (*is)(struct cox_slice))
{
    for (struct cox_json_walk w = cox_json_walk(list); cox_json_next(&w);)
        if (!is(w.value))
            return false;
    return cox_json_kind(list) == COX_JSON_ARRAY;
}

static bool is_string(struct cox_slice raw)
{
    return cox_json_kind(raw) == COX_JSON_STRING;
}

static bool is_local_ref(struct cox_slice raw)
{
    struct cox_slice inner = cox_json_inner(raw);

    return is_string(raw) && inner.len > 0 && inner.data[0] == '#' &&
           (inner.len == 1 || inner.data[1] == '/');
}

static enum cox_err check(struct cox_slice schema, const struct frame *at, unsigned depth,
                          struct cox_buf *why);

static enum cox_err check_each(struct cox_slice schemas, const struct frame *at, unsigned depth,
                               struct cox_buf *why)
{
    struct frame f = { .up = at };
    enum cox_err err = COX_OK;

    for (struct cox_json_walk w = cox_json_walk(schemas); err == COX_OK && cox_json_next(&w); f.index++) {
        f.key = w.key;
        err = check(w.value, &f, depth + 1, why);
    }
    return err;
}

static enum cox_err check_keyword(const struct keyword *k, struct cox_slice value, const struct frame *at,
                                  unsigned depth, struct cox_buf *why)
{
    const struct frame f = { .up = at, .name = k->name };
    enum cox_json_kind kind = cox_json_kind(value);
    bool ok = false;
    int64_t n;

    switch (k->shape) {
    case SHAPE_SCHEMA:
        return check(value, &f, depth + 1, why);
    case SHAPE_SCHEMAS:
        return kind == COX_JSON_OBJECT ? check_each(value, &f, depth, why) : fail(why, &f, k->expected);
    case SHAPE_SCHEMA_LIST:
        return kind == COX_JSON_ARRAY ? check_each(value, &f, depth, why) : fail(why, &f, k->expected);
    case SHAPE_NUMBER:
        ok = kind == COX_JSON_NUMBER;
        break;
    case SHAPE_COUNT:
        ok = kind == COX_JSON_NUMBER && cox_json_int(value, &n) && n >= 0;
        break;
    case SHAPE_TYPE:
        ok = is_type(value) || all(value, is_type);
        break;
    case SHAPE_NAMES:
        ok = all(value, is_string);
        break;
    case SHAPE_LIST:
        ok = kind == COX_JSON_ARRAY;
        break;
    case SHAPE_REF:
        ok = is_local_ref(value);
        break;
    }
    return ok ? COX_OK : fail(why, &f, k->expected);
}

static enum cox_err check(struct cox_slice schema, const struct frame *at, unsigned depth,
                          struct cox_buf *why)
{
    enum cox_json_kind kind = cox_json_kind(schema);
    enum cox_err err = COX_OK;

    if (depth > COX_JSON_DEPTH_MAX)
        return fail(why, at, "less depth");
    if (kind == COX_JSON_BOOL)
        return COX_OK;
    if (kind != COX_JSON_OBJECT)
        return fail(why, at, "a schema: an object, true or false");
    for (struct cox_json_walk w = cox_json_walk(schema); err == COX_OK && cox_json_next(&w);)
        for (size_t i = 0; err == COX_OK && i < sizeof(keywords) / sizeof(keywords[0]); i++)
            if (cox_json_string_is(w.key, cox_slice_str(keywords[i].name)))
                err = check_keyword(&keywords[i], w.value, at, depth, why);
    return err;
}

enum cox_err cox_schema_check(struct cox_slice schema, struct cox_buf *why)
{
    return check(cox_json_trim(schema), NULL, 0, why);
}
