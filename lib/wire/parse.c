#include "wire_shape.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_LEN_MAX 60 /* of a value in an error */

struct parse {
    struct cox_buf path; /* of the value being read */
    struct cox_buf text; /* scratch: the last unquoted string */
    struct cox_buf *error;
};

static bool parse_message(struct parse *p, const ProtobufCMessageDescriptor *d, struct cox_slice json,
                          ProtobufCMessage **ret);

static bool expected(struct parse *p, const char *what, struct cox_slice found)
{
    found = cox_json_trim(found);
    cox_buf_printf(p->error, "%s%sexpected %s, found %.*s%s", cox_buf_cstr(&p->path),
                   p->path.len > 0 ? ": " : "", what,
                   (int)(found.len < SHOWN_LEN_MAX ? found.len : SHOWN_LEN_MAX), (const char *)found.data,
                   found.len > SHOWN_LEN_MAX ? "..." : "");
    return false;
}

/* The characters of a string, or the digits of a number; a NUL follows. Lives until the next call. */
static struct cox_slice text_of(struct parse *p, struct cox_slice json)
{
    cox_buf_clear(&p->text);
    if (cox_json_kind(json) == COX_JSON_STRING)
        cox_json_unquote(&p->text, cox_json_trim(json));
    else
        cox_buf_append_slice(&p->text, cox_json_trim(json));
    cox_buf_cstr(&p->text);
    return cox_buf_slice(&p->text);
}

static bool is_string(struct cox_slice json)
{
    return cox_json_kind(json) == COX_JSON_STRING;
}

/* ---- scalars ---------------------------------------------------------------------------------------- */

/* Decimal digits with an optional '-'; the magnitude at most `max`, or `max` + 1 below zero. */
static bool parse_integer(struct parse *p, struct cox_slice json, uint64_t max, bool is_signed, uint64_t *ret)
{
    enum cox_json_kind kind = cox_json_kind(json);

    if (kind != COX_JSON_NUMBER && kind != COX_JSON_STRING)
        return expected(p, "an integer", json);
    struct cox_slice s = text_of(p, json);
    bool negative = s.len > 0 && s.data[0] == '-';
    uint64_t v = 0;

    if (s.len == negative)
        return expected(p, "an integer", json);
    for (size_t i = negative; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return expected(p, "an integer", json);
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(s.data[i] - '0'), &v))
            return expected(p, "an integer of at most 64 bits", json);
    }
    if (negative && !is_signed && v != 0)
        return expected(p, "an integer of at least 0", json);
    if (v > max + (negative && is_signed))
        return expected(
            p, max > UINT32_MAX ? "an integer of at most 64 bits" : "an integer of at most 32 bits", json);
    *ret = negative ? 0 - v : v;
    return true;
}

static bool parse_double(struct parse *p, struct cox_slice json, double *ret)
{
    enum cox_json_kind kind = cox_json_kind(json);
    struct cox_slice s = text_of(p, json);
    char *end = NULL;

    if (kind == COX_JSON_STRING) {
        *ret = cox_slice_is(s, "NaN") ? NAN : cox_slice_is(s, "-Infinity") ? -INFINITY : INFINITY;
        if (cox_slice_is(s, "NaN") || cox_slice_is(s, "Infinity") || cox_slice_is(s, "-Infinity"))
            return true;
        struct cox_json_place place;
        if (cox_json_check(s, &place) || cox_json_kind(s) != COX_JSON_NUMBER)
            return expected(p, "a number", json);
    } else if (kind != COX_JSON_NUMBER) {
        return expected(p, "a number", json);
    }
    *ret = strtod((const char *)s.data, &end);
    return isfinite(*ret) || expected(p, "a number within the range of a double", json);
}

static void list_enum(struct cox_buf *out, const ProtobufCEnumDescriptor *e)
{
    cox_buf_append_str(out, "one of");
    for (unsigned i = 0; i < e->n_values; i++) {
        if (e->values[i].value != 0)
            cox_buf_printf(out, " %s", cox_wire_enum_text(e, e->values[i].value));
    }
}

static bool parse_enum(struct parse *p, const ProtobufCEnumDescriptor *e, struct cox_slice json, int *ret)
{
    if (is_string(json)) {
        struct cox_slice s = text_of(p, json);
        for (unsigned i = 0; i < e->n_values; i++) {
            if (cox_slice_is(s, e->values[i].name) ||
                cox_slice_is(s, cox_wire_enum_text(e, e->values[i].value))) {
                *ret = e->values[i].value;
                return true;
            }
        }
    } else if (cox_json_kind(json) == COX_JSON_NUMBER) {
        uint64_t v;
        if (!parse_integer(p, json, INT32_MAX, true, &v))
            return false;
        *ret = (int)(int64_t)v;
        return true;
    }
    struct cox_buf what = { 0 };

    list_enum(&what, e);
    expected(p, cox_buf_cstr(&what), json);
    cox_buf_fini(&what);
    return false;
}

static bool parse_string(struct parse *p, struct cox_slice json, char **ret)
{
    if (!is_string(json))
        return expected(p, "a string", json);
    struct cox_slice s = text_of(p, json);

    if (memchr(s.data, 0, s.len))
        return expected(p, "a string without U+0000", json);
    *ret = cox_strndup((const char *)s.data, s.len);
    return true;
}

static void set_bytes(ProtobufCBinaryData *ret, struct cox_slice s)
{
    ret->data = s.len > 0 ? cox_alloc(s.len) : NULL;
    ret->len = s.len;
    if (s.len > 0)
        memcpy(ret->data, s.data, s.len);
}

static bool parse_bytes(struct parse *p, struct cox_slice json, ProtobufCBinaryData *ret)
{
    struct cox_buf bytes = { 0 };

    if (!is_string(json) || cox_wire_parse_base64(&bytes, text_of(p, json))) {
        cox_buf_fini(&bytes);
        return expected(p, "base64 in a string", json);
    }
    set_bytes(ret, cox_buf_slice(&bytes));
    cox_buf_fini(&bytes);
    return true;
}

/* A union of what a field may hold, so that one function reads every type. */
static bool parse_scalar(struct parse *p, const ProtobufCFieldDescriptor *field, struct cox_slice json,
                         void *at)
{
    uint64_t v;
    double d;

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        if (!parse_integer(p, json, INT32_MAX, true, &v))
            return false;
        *(int32_t *)at = (int32_t)(int64_t)v;
        return true;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        if (!parse_integer(p, json, UINT32_MAX, false, &v))
            return false;
        *(uint32_t *)at = (uint32_t)v;
        return true;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return parse_integer(p, json, INT64_MAX, true, at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return parse_integer(p, json, UINT64_MAX, false, at);
    case PROTOBUF_C_TYPE_FLOAT:
        if (!parse_double(p, json, &d))
            return false;
        *(float *)at = (float)d;
        return isfinite(d) == isfinite(*(float *)at) ||
               expected(p, "a number within the range of a float", json);
    case PROTOBUF_C_TYPE_DOUBLE:
        return parse_double(p, json, at);
    case PROTOBUF_C_TYPE_BOOL:
        if (cox_json_kind(json) != COX_JSON_BOOL)
            return expected(p, "true or false", json);
        *(protobuf_c_boolean *)at = cox_json_trim(json).data[0] == 't';
        return true;
    case PROTOBUF_C_TYPE_ENUM:
        return parse_enum(p, field->descriptor, json, at);
    case PROTOBUF_C_TYPE_STRING:
        return parse_string(p, json, at);
    case PROTOBUF_C_TYPE_BYTES:
        return parse_bytes(p, json, at);
    case PROTOBUF_C_TYPE_MESSAGE:
        return parse_message(p, field->descriptor, json, at);
    }
    return false;
}

/* ---- fields ----------------------------------------------------------------------------------------- */

static bool parse_embedded(const ProtobufCFieldDescriptor *field, struct cox_slice json, void *at)
{
    struct cox_buf text = { 0 };

    cox_json_compact(&text, json);
    if (field->type == PROTOBUF_C_TYPE_STRING)
        *(char **)at = cox_strndup((const char *)text.data, text.len);
    else
        set_bytes(at, cox_buf_slice(&text));
    cox_buf_fini(&text);
    return true;
}

/* The key of a map's member; a key that is not a string is written as one. */
static bool parse_map_entry(struct parse *p, const ProtobufCMessageDescriptor *d, struct cox_slice raw_key,
                            struct cox_slice value, ProtobufCMessage **ret)
{
    ProtobufCMessage *entry = cox_calloc(1, d->sizeof_message);

    protobuf_c_message_init(d, entry);
    *ret = entry;
    return parse_scalar(p, &d->fields[0], raw_key, (char *)entry + d->fields[0].offset) &&
           parse_scalar(p, &d->fields[1], value, (char *)entry + d->fields[1].offset);
}

/* Reads one member of a map or one item of an array into place i; p->path names it on return. */
static bool parse_item(struct parse *p, const ProtobufCFieldDescriptor *field, const struct cox_json_walk *w,
                       char *items, size_t i, struct cox_mapb *seen)
{
    if (!cox_wire_is_map(field)) {
        cox_buf_printf(&p->path, "[%zu]", i);
        return parse_scalar(p, field, w->value, items + i * cox_wire_value_size(field));
    }
    struct cox_slice key = text_of(p, w->key);

    cox_buf_printf(&p->path, ".%.*s", (int)key.len, (const char *)key.data);
    if (cox_mapb_set(seen, key, seen))
        return expected(p, "each name once", w->value);
    return parse_map_entry(p, field->descriptor, w->key, w->value, &((ProtobufCMessage **)(void *)items)[i]);
}

static bool parse_repeated(struct parse *p, const ProtobufCFieldDescriptor *field, struct cox_slice json,
                           void *at, size_t *n)
{
    bool map = cox_wire_is_map(field), ok = true;
    size_t len = 0, path_len = p->path.len;
    struct cox_mapb seen = { 0 };

    if (cox_json_kind(json) != (map ? COX_JSON_OBJECT : COX_JSON_ARRAY))
        return expected(p, map ? "an object" : "an array", json);
    for (struct cox_json_walk w = cox_json_walk(json); cox_json_next(&w);)
        len++;
    if (len == 0)
        return true;
    char *items = cox_calloc(len, cox_wire_value_size(field));

    /* Counted at once: what is not read yet is zero, which freeing the message can take. */
    *(void **)at = items;
    *n = len;
    struct cox_json_walk w = cox_json_walk(json);

    for (size_t i = 0; ok && cox_json_next(&w); i++) {
        ok = parse_item(p, field, &w, items, i, &seen);
        p->path.len = path_len;
    }
    cox_mapb_fini(&seen);
    return ok;
}

static bool parse_field(struct parse *p, ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                        struct cox_slice json)
{
    void *at = (char *)message + field->offset;
    void *quantifier = (char *)message + field->quantifier_offset;

    if (cox_json_kind(json) == COX_JSON_NULL)
        return true;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return parse_repeated(p, field, json, at, quantifier);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        if (*(uint32_t *)quantifier != 0)
            return expected(p, "only one of the union's fields", json);
        *(uint32_t *)quantifier = field->id;
    } else if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->quantifier_offset != 0) {
        *(protobuf_c_boolean *)quantifier = true;
    }
    return cox_wire_is_json(field) ? parse_embedded(field, json, at) : parse_scalar(p, field, json, at);
}

/* ---- messages --------------------------------------------------------------------------------------- */

static bool parse_timestamp(struct parse *p, struct cox_slice json, Google__Protobuf__Timestamp *t)
{
    struct cox_slice s = text_of(p, json);
    int64_t unix_ms;

    if (!is_string(json) || cox_parse_time(s, &unix_ms))
        return expected(p, "a time such as \"2026-01-02T03:04:05.678Z\"", json);
    t->seconds = unix_ms / 1000 - (unix_ms % 1000 < 0);
    const uint8_t *dot = memchr(s.data, '.', s.len);

    for (int32_t place = COX_WIRE_NANOS / 10; dot && *++dot != 'Z'; place /= 10)
        t->nanos += (*dot - '0') * place;
    return true;
}

/* "-1.5s", exactly. */
static bool parse_seconds(struct cox_slice s, Google__Protobuf__Duration *d)
{
    bool negative = s.len > 0 && s.data[0] == '-';
    size_t i = negative;
    int64_t seconds = 0;
    int32_t nanos = 0;

    if (i >= s.len || s.data[i] < '0' || s.data[i] > '9')
        return false;
    for (; i < s.len && s.data[i] >= '0' && s.data[i] <= '9'; i++) {
        seconds = seconds * 10 + (s.data[i] - '0');
        if (seconds > COX_WIRE_DURATION_S_MAX)
            return false;
    }
    if (i < s.len && s.data[i] == '.') {
        int32_t place = COX_WIRE_NANOS / 10;
        for (i++; i < s.len && s.data[i] >= '0' && s.data[i] <= '9'; i++, place /= 10)
            nanos += (s.data[i] - '0') * place;
    }
    if (i + 1 != s.len || s.data[i] != 's')
        return false;
    d->seconds = negative ? -seconds : seconds;
    d->nanos = negative ? -nanos : nanos;
    return true;
}

static bool parse_duration(struct parse *p, struct cox_slice json, Google__Protobuf__Duration *d)
{
    struct cox_slice s = text_of(p, json);
    int64_t ms;

    if (is_string(json) && parse_seconds(s, d))
        return true;
    if (!is_string(json) || cox_parse_duration_ms(s, &ms) || ms / 1000 > COX_WIRE_DURATION_S_MAX)
        return expected(p, "a duration such as \"1.5s\" or \"10m\"", json);
    d->seconds = ms / 1000;
    d->nanos = (int32_t)(ms % 1000) * 1000000;
    return true;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *d, struct cox_slice name)
{
    for (unsigned i = 0; i < d->n_fields; i++) {
        if (cox_slice_eq(cox_wire_name(&d->fields[i]), name))
            return &d->fields[i];
    }
    return NULL;
}

static bool parse_members(struct parse *p, struct cox_slice json, ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *d = message->descriptor;
    size_t path_len = p->path.len;
    uint64_t seen = 0;

    if (cox_json_kind(json) != COX_JSON_OBJECT)
        return expected(p, "an object", json);
    COX_ASSERT(d->n_fields <= 64);
    for (struct cox_json_walk w = cox_json_walk(json); cox_json_next(&w);) {
        struct cox_slice name = text_of(p, w.key);
        const ProtobufCFieldDescriptor *field = find_field(d, name);
        cox_buf_printf(&p->path, "%s%.*s", path_len > 0 ? "." : "", (int)name.len, (const char *)name.data);
        if (!field) {
            cox_buf_printf(p->error, "%s: unknown field", cox_buf_cstr(&p->path));
            return false;
        }
        uint64_t bit = 1ull << (field - d->fields);
        if (seen & bit)
            return expected(p, "each name once", w.value);
        seen |= bit;
        if (!parse_field(p, message, field, w.value))
            return false;
        p->path.len = path_len;
    }
    return true;
}

static bool parse_message(struct parse *p, const ProtobufCMessageDescriptor *d, struct cox_slice json,
                          ProtobufCMessage **ret)
{
    ProtobufCMessage *message = cox_calloc(1, d->sizeof_message);
    enum cox_wire_known known = cox_wire_known(d);

    protobuf_c_message_init(d, message);
    *ret = message;
    if (known == COX_WIRE_WRAPPER)
        return parse_field(p, message, &d->fields[0], json);
    if (known == COX_WIRE_TIMESTAMP && cox_json_kind(json) != COX_JSON_OBJECT)
        return parse_timestamp(p, json, (Google__Protobuf__Timestamp *)message);
    if (known == COX_WIRE_DURATION && cox_json_kind(json) != COX_JSON_OBJECT)
        return parse_duration(p, json, (Google__Protobuf__Duration *)message);
    return parse_members(p, json, message);
}

enum cox_err cox_wire_from_json(const ProtobufCMessageDescriptor *descriptor, struct cox_slice text,
                                ProtobufCMessage **ret_message, struct cox_buf *error)
{
    struct parse p = { .error = error };
    struct cox_json_place place;
    ProtobufCMessage *message = NULL;

    if (cox_json_check(text, &place)) {
        cox_buf_printf(error, "line %u, column %u: expected %s", place.line, place.column, place.expected);
        return COX_ERR_INVALID;
    }
    bool ok = parse_message(&p, descriptor, text, &message);

    cox_buf_fini(&p.path);
    cox_buf_fini(&p.text);
    if (!ok) {
        protobuf_c_message_free_unpacked(message, NULL);
        return COX_ERR_INVALID;
    }
    *ret_message = message;
    return COX_OK;
}
