#include "cox/schema.h"

#include "cox/json.h"
#include "cox/limits.h"

#include <string.h>

struct matcher {
    struct cox_slice root;
    unsigned steps;
    struct cox_buf *why; /* NULL: only whether, not why */
};

/* Where in the value we are. */
struct place {
    const struct place *up;
    struct cox_slice key; /* raw; empty: an index */
    size_t index;
    unsigned depth;
};

static void put_place(struct cox_buf *out, const struct place *at)
{
    if (!at)
        return;
    put_place(out, at->up);
    if (at->key.len > 0) {
        if (out->len > 0)
            cox_buf_append_str(out, ".");
        cox_json_unquote(out, at->key);
    } else {
        cox_buf_printf(out, "[%zu]", at->index);
    }
}

/* Appends "files[3].name: expected "; the caller says what. Returns false. */
static bool expected(struct matcher *m, const struct place *at, const char *what, struct cox_slice more)
{
    struct cox_buf path = { 0 };

    if (!m->why)
        return false;
    put_place(&path, at);
    cox_buf_printf(m->why, "%s: expected %s", path.len > 0 ? cox_buf_cstr(&path) : "the value", what);
    cox_buf_append_slice(m->why, cox_slice(more.data, more.len < 200 ? more.len : 200));
    cox_buf_fini(&path);
    return false;
}

static bool spend(struct matcher *m, const struct place *at)
{
    if (m->steps++ < COX_SCHEMA_STEPS_MAX)
        return true;
    return expected(m, at, "less work for the schema's check", cox_slice(NULL, 0));
}

/* ---------------------------------------------------------------- equality */

static bool same_text(struct cox_slice a, struct cox_slice b)
{
    struct cox_buf text = { 0 };
    bool same;

    cox_json_unquote(&text, b);
    same = cox_json_string_is(a, cox_buf_slice(&text));
    cox_buf_fini(&text);
    return same;
}

static bool member(struct cox_slice object, struct cox_slice raw_key, struct cox_slice *ret)
{
    bool found = false;

    for (struct cox_json_walk w = cox_json_walk(object); cox_json_next(&w);)
        if (cox_slice_eq(w.key, raw_key) || same_text(w.key, raw_key)) {
            *ret = w.value;
            found = true;
        }
    return found;
}

static bool equal(struct matcher *m, struct cox_slice a, struct cox_slice b)
{
    enum cox_json_kind kind = cox_json_kind(a);
    struct cox_json_walk wa, wb;
    struct cox_slice other;
    int64_t x, y;

    if (kind != cox_json_kind(b) || m->steps++ >= COX_SCHEMA_STEPS_MAX)
        return false;
    if (kind == COX_JSON_STRING)
        return same_text(a, b);
    if (kind == COX_JSON_NUMBER && cox_json_int(a, &x) && cox_json_int(b, &y))
        return x == y;
    if (kind == COX_JSON_NUMBER)
        return !(cox_json_double(a) < cox_json_double(b)) && !(cox_json_double(a) > cox_json_double(b));
    if (kind != COX_JSON_ARRAY && kind != COX_JSON_OBJECT)
        return cox_slice_eq(a, b);
    if (cox_json_count(a) != cox_json_count(b))
        return false;
    wa = cox_json_walk(a);
    wb = cox_json_walk(b);
    while (cox_json_next(&wa)) {
        if (kind == COX_JSON_ARRAY && (!cox_json_next(&wb) || !equal(m, wa.value, wb.value)))
            return false;
        if (kind == COX_JSON_OBJECT && (!member(b, wa.key, &other) || !equal(m, wa.value, other)))
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------- simple keywords */

static bool has_type(struct cox_slice value, struct cox_slice raw_type)
{
    static const char *const names[] = {
        [COX_JSON_NULL] = "null",     [COX_JSON_BOOL] = "boolean", [COX_JSON_NUMBER] = "number",
        [COX_JSON_STRING] = "string", [COX_JSON_ARRAY] = "array",  [COX_JSON_OBJECT] = "object"
    };
    enum cox_json_kind kind = cox_json_kind(value);
    double d;

    if (kind == COX_JSON_NONE)
        return false;
    if (kind != COX_JSON_NUMBER || !cox_json_string_is(raw_type, cox_slice_str("integer")))
        return cox_json_string_is(raw_type, cox_slice_str(names[kind]));
    d = cox_json_double(value);
    return d >= -1e300 && d <= 1e300 && !(d - __builtin_trunc(d) > 0) && !(d - __builtin_trunc(d) < 0);
}

static bool match_type(struct matcher *m, struct cox_slice type, struct cox_slice value,
                       const struct place *at)
{
    bool ok = has_type(value, type);

    for (struct cox_json_walk w = cox_json_walk(type); !ok && cox_json_next(&w);)
        ok = has_type(value, w.value);
    if (ok)
        return true;
    expected(m, at, cox_json_kind(type) == COX_JSON_ARRAY ? "one of " : "", cox_json_inner(type));
    if (m->why) {
        if (cox_json_kind(type) == COX_JSON_ARRAY)
            cox_buf_append_slice(m->why, cox_slice(type.data, type.len < 200 ? type.len : 200));
        cox_buf_printf(m->why, ", found %s", cox_json_kind_text(cox_json_kind(value)));
    }
    return false;
}

static bool match_enum(struct matcher *m, struct cox_slice list, struct cox_slice value,
                       const struct place *at)
{
    for (struct cox_json_walk w = cox_json_walk(list); cox_json_next(&w);)
        if (equal(m, value, w.value))
            return true;
    return expected(m, at, "one of ", list);
}

static size_t n_characters(struct cox_slice raw)
{
    struct cox_buf text = { 0 };
    size_t n = 0;

    cox_json_unquote(&text, raw);
    for (size_t i = 0; i < text.len; i++)
        n += (text.data[i] & 0xC0) != 0x80;
    cox_buf_fini(&text);
    return n;
}

/* minLength, maxItems and so on: the size of what the keyword is about. False: it is about another type. */
static bool size_for(struct cox_slice key, struct cox_slice value, size_t *ret, const char **unit)
{
    static const struct {
        const char *suffix;
        enum cox_json_kind kind;
        const char *unit;
    } about[] = { { "Length", COX_JSON_STRING, "characters" },
                  { "Items", COX_JSON_ARRAY, "items" },
                  { "Properties", COX_JSON_OBJECT, "members" } };
    enum cox_json_kind kind = cox_json_kind(value);

    for (size_t i = 0; i < 3; i++) {
        size_t len = strlen(about[i].suffix);

        if (kind != about[i].kind || key.len != len + 3 || memcmp(key.data + 3, about[i].suffix, len) != 0)
            continue;
        *unit = about[i].unit;
        *ret = kind == COX_JSON_STRING ? n_characters(value) : cox_json_count(value);
        return true;
    }
    return false;
}

static bool match_size(struct matcher *m, struct cox_slice key, struct cox_slice bound,
                       struct cox_slice value, const struct place *at)
{
    bool is_min = key.data[1] == 'i';
    const char *unit;
    struct cox_buf what = { 0 };
    int64_t limit;
    size_t size;

    if (!size_for(key, value, &size, &unit) || !cox_json_int(bound, &limit) ||
        (is_min ? size >= (uint64_t)limit : size <= (uint64_t)limit))
        return true;
    cox_buf_printf(&what, "at %s %lld %s", is_min ? "least" : "most", (long long)limit, unit);
    expected(m, at, cox_buf_cstr(&what), cox_slice(NULL, 0));
    cox_buf_fini(&what);
    return false;
}

static bool match_number(struct matcher *m, const char *words, bool ok, struct cox_slice bound,
                         struct cox_slice value, const struct place *at)
{
    if (cox_json_kind(value) != COX_JSON_NUMBER || ok)
        return true;
    return expected(m, at, words, bound);
}

/* ---------------------------------------------------------------- keywords with schemas inside */

static bool match(struct matcher *m, struct cox_slice schema, struct cox_slice value, const struct place *at,
                  unsigned depth);

static bool quietly(struct matcher *m, struct cox_slice schema, struct cox_slice value,
                    const struct place *at, unsigned depth)
{
    struct cox_buf *why = m->why;
    bool ok;

    m->why = NULL;
    ok = match(m, schema, value, at, depth);
    m->why = why;
    return ok;
}

static bool match_members(struct matcher *m, struct cox_slice schema, struct cox_slice value,
                          const struct place *at, unsigned depth)
{
    struct place here = { .up = at, .depth = at ? at->depth + 1 : 1 };
    struct cox_slice properties = cox_slice(NULL, 0), others, sub;
    bool has_properties = cox_json_member(schema, "properties", &properties);
    bool has_others = cox_json_member(schema, "additionalProperties", &others);

    if (!has_properties && !has_others)
        return true;
    for (struct cox_json_walk w = cox_json_walk(value); cox_json_next(&w);) {
        here.key = w.key;
        if (!spend(m, &here))
            return false;
        if (has_properties && member(properties, w.key, &sub)) {
            if (!match(m, sub, w.value, &here, depth + 1))
                return false;
        } else if (has_others && cox_slice_is(others, "false")) {
            return expected(m, &here, "no member of this name", cox_slice(NULL, 0));
        } else if (has_others && !match(m, others, w.value, &here, depth + 1)) {
            return false;
        }
    }
    return true;
}

static bool match_required(struct matcher *m, struct cox_slice names, struct cox_slice value,
                           const struct place *at)
{
    struct cox_slice ignored;

    for (struct cox_json_walk w = cox_json_walk(names); cox_json_next(&w);)
        if (!spend(m, at) || !member(value, w.value, &ignored))
            return expected(m, at, "a member ", w.value);
    return true;
}

static bool match_items(struct matcher *m, struct cox_slice schema, struct cox_slice value,
                        const struct place *at, unsigned depth)
{
    struct place here = { .up = at, .depth = at ? at->depth + 1 : 1 };
    struct cox_slice prefix = cox_slice(NULL, 0), items = cox_slice(NULL, 0);
    struct cox_json_walk first;

    cox_json_member(schema, "prefixItems", &prefix);
    cox_json_member(schema, "items", &items);
    if (prefix.len + items.len == 0)
        return true;
    first = cox_json_walk(prefix);
    for (struct cox_json_walk w = cox_json_walk(value); cox_json_next(&w); here.index++) {
        struct cox_slice sub = cox_json_next(&first) ? first.value : items;

        if (sub.len > 0 && !match(m, sub, w.value, &here, depth + 1))
            return false;
    }
    return true;
}

static bool match_some(struct matcher *m, struct cox_slice key, struct cox_slice list, struct cox_slice value,
                       const struct place *at, unsigned depth)
{
    bool every = cox_slice_is(key, "allOf");
    size_t n = 0, n_ok = 0;

    for (struct cox_json_walk w = cox_json_walk(list); cox_json_next(&w); n++) {
        if (every && !match(m, w.value, value, at, depth + 1))
            return false;
        n_ok += every || quietly(m, w.value, value, at, depth + 1);
    }
    if (cox_slice_is(key, "oneOf") && n_ok != 1)
        return expected(m, at, "what exactly one of the schemas in oneOf allows", cox_slice(NULL, 0));
    if (cox_slice_is(key, "anyOf") && n_ok == 0)
        return expected(m, at, "what one of the schemas allows: ", list);
    return true;
}

/* "#/$defs/x": the parts between the slashes, one after the other. */
static bool match_ref(struct matcher *m, struct cox_slice raw, struct cox_slice value, const struct place *at,
                      unsigned depth)
{
    struct cox_buf text = { 0 };
    struct cox_slice schema = m->root;
    char *rest = NULL;
    bool ok = true;

    cox_json_unquote(&text, raw);
    for (char *part = strtok_r((char *)(uintptr_t)cox_buf_cstr(&text), "/", &rest);
         ok && (part = strtok_r(NULL, "/", &rest));)
        ok = cox_json_member(schema, part, &schema);
    cox_buf_fini(&text);
    if (!ok)
        return expected(m, at, "a schema that has what it refers to: ", raw);
    return match(m, schema, value, at, depth + 1);
}

/* ---------------------------------------------------------------- one schema */

static bool match_keyword(struct matcher *m, struct cox_slice raw_key, struct cox_slice arg,
                          struct cox_slice value, const struct place *at, unsigned depth)
{
    struct cox_slice key = cox_json_inner(raw_key);
    bool is_number = cox_json_kind(value) == COX_JSON_NUMBER;
    double d = is_number ? cox_json_double(value) : 0;
    double bound = is_number && cox_json_kind(arg) == COX_JSON_NUMBER ? cox_json_double(arg) : 0;

    if (cox_slice_is(key, "type"))
        return match_type(m, arg, value, at);
    if (cox_slice_is(key, "enum"))
        return match_enum(m, arg, value, at);
    if (cox_slice_is(key, "const"))
        return equal(m, arg, value) || expected(m, at, "", arg);
    if (cox_slice_is(key, "minimum"))
        return match_number(m, "at least ", d >= bound, arg, value, at);
    if (cox_slice_is(key, "maximum"))
        return match_number(m, "at most ", d <= bound, arg, value, at);
    if (cox_slice_is(key, "exclusiveMinimum"))
        return match_number(m, "more than ", d > bound, arg, value, at);
    if (cox_slice_is(key, "exclusiveMaximum"))
        return match_number(m, "less than ", d < bound, arg, value, at);
    if (key.len > 6 && (memcmp(key.data, "min", 3) == 0 || memcmp(key.data, "max", 3) == 0))
        return match_size(m, key, arg, value, at);
    if (cox_slice_is(key, "required") && cox_json_kind(value) == COX_JSON_OBJECT)
        return match_required(m, arg, value, at);
    if (cox_slice_is(key, "allOf") || cox_slice_is(key, "anyOf") || cox_slice_is(key, "oneOf"))
        return match_some(m, key, arg, value, at, depth);
    if (cox_slice_is(key, "not"))
        return !quietly(m, arg, value, at, depth + 1) ||
               expected(m, at, "anything but what \"not\" allows", cox_slice(NULL, 0));
    if (cox_slice_is(key, "$ref"))
        return match_ref(m, arg, value, at, depth);
    return true;
}

static bool match(struct matcher *m, struct cox_slice schema, struct cox_slice value, const struct place *at,
                  unsigned depth)
{
    enum cox_json_kind kind = cox_json_kind(value);

    if (!spend(m, at))
        return false;
    if (depth > 2 * COX_JSON_DEPTH_MAX)
        return expected(m, at, "a schema that refers less deeply to itself", cox_slice(NULL, 0));
    if (cox_slice_is(schema, "false"))
        return expected(m, at, "nothing", cox_slice(NULL, 0));
    for (struct cox_json_walk w = cox_json_walk(schema); cox_json_next(&w);)
        if (!match_keyword(m, w.key, w.value, value, at, depth))
            return false;
    if (kind == COX_JSON_OBJECT)
        return match_members(m, schema, value, at, depth);
    return kind != COX_JSON_ARRAY || match_items(m, schema, value, at, depth);
}

enum cox_err cox_schema_match(struct cox_slice schema, struct cox_slice value, struct cox_buf *why)
{
    struct matcher m = { .root = cox_json_trim(schema), .why = why };

    return match(&m, m.root, cox_json_trim(value), NULL, 0) ? COX_OK : COX_ERR_INVALID;
}
