/* Everything becomes one JSON object, which lib/wire reads: so that the same words mean the same in a path, a
 * query and a body, and a field given twice is found in one place. */
#include "map.h"

#include "cox/json.h"
#include "cox/wire.h"

#include <string.h>

struct map {
    const struct map_input *in;
    struct cox_buf json;
    struct map_error *error;
    bool used[EDGE_PARAMS_MAX]; /* of the query */
};

void map_error_fini(struct map_error *e)
{
    cox_buf_fini(&e->field);
    cox_buf_fini(&e->description);
}

static bool wrong(struct map *m, struct cox_slice field, const char *description)
{
    cox_buf_append_slice(&m->error->field, field);
    cox_buf_append_str(&m->error->description, description);
    return false;
}

/* ---- names ---- */

static bool begins(struct cox_slice s, struct cox_slice head)
{
    return s.len >= head.len && memcmp(s.data, head.data, head.len) == 0;
}

/* "labels" by "label", "statuses" by "status". */
static bool is_singular(struct cox_slice plural, struct cox_slice s)
{
    if (s.len == 0 || !begins(plural, s))
        return false;
    struct cox_slice tail = cox_slice(plural.data + s.len, plural.len - s.len);
    uint8_t last = s.data[s.len - 1];

    return last == 's' || last == 'x' ? cox_slice_is(tail, "es") : cox_slice_is(tail, "s");
}

static bool names(const ProtobufCFieldDescriptor *field, struct cox_slice s)
{
    struct cox_slice name = cox_wire_name(field);

    return cox_slice_eq(name, s) || (field->label == PROTOBUF_C_LABEL_REPEATED && is_singular(name, s));
}

/* "labels.x": what stands behind the dot; data NULL when it is no member of the field. */
static struct cox_slice member(const ProtobufCFieldDescriptor *field, struct cox_slice s)
{
    const uint8_t *dot = s.len > 0 ? memchr(s.data, '.', s.len) : NULL;

    if (!dot || !names(field, cox_slice(s.data, (size_t)(dot - s.data))))
        return cox_slice(NULL, 0);
    return cox_slice(dot + 1, (size_t)(s.data + s.len - dot) - 1);
}

/* ---- values ---- */

static bool put_bool(struct map *m, struct cox_slice name, struct cox_slice value)
{
    bool yes = value.len == 0 || cox_slice_is(value, "true") || cox_slice_is(value, "1");

    if (!yes && !cox_slice_is(value, "false") && !cox_slice_is(value, "0"))
        return wrong(m, name, "expected true or false");
    cox_buf_append_str(&m->json, yes ? "true" : "false");
    return true;
}

/* Strings stand for values of every other type: lib/wire reads numbers, times and names of enums from them.
 */
static bool put_value(struct map *m, const ProtobufCFieldDescriptor *field, struct cox_slice name,
                      struct cox_slice value)
{
    if (field->type == PROTOBUF_C_TYPE_BOOL)
        return put_bool(m, name, value);
    if (!cox_wire_is_json(field)) {
        cox_json_quote(&m->json, value);
        return true;
    }
    if (cox_json_check(value, NULL))
        return wrong(m, name, "expected JSON");
    cox_buf_append_slice(&m->json, value);
    return true;
}

static void begin_member(struct map *m, struct cox_slice name)
{
    if (m->json.len > 1)
        cox_put_u8(&m->json, ',');
    cox_json_quote(&m->json, name);
    cox_put_u8(&m->json, ':');
}

/* One NAME=VALUE of a map, whichever way it was written. */
static bool put_entry(struct map *m, const ProtobufCFieldDescriptor *field, const struct edge_param *p)
{
    const ProtobufCFieldDescriptor *type =
        &((const ProtobufCMessageDescriptor *)field->descriptor)->fields[1];
    struct cox_slice key = member(field, p->name), value = p->value;

    if (!key.data) {
        const uint8_t *equals = value.len > 0 ? memchr(value.data, '=', value.len) : NULL;
        if (!equals)
            return wrong(m, p->name, "expected NAME=VALUE");
        key = cox_slice(value.data, (size_t)(equals - value.data));
        value = cox_slice(equals + 1, value.len - key.len - 1);
    }
    cox_json_quote(&m->json, key);
    cox_put_u8(&m->json, ':');
    return put_value(m, type, p->name, value);
}

static bool put_repeated(struct map *m, const ProtobufCFieldDescriptor *field)
{
    bool map = cox_wire_is_map(field), any = false;

    if (field->type == PROTOBUF_C_TYPE_MESSAGE && !map)
        return true; /* lists of messages are for bodies */
    for (size_t i = 0; i < m->in->n_query; i++) {
        const struct edge_param *p = &m->in->query[i];
        if (!names(field, p->name) && !(map && member(field, p->name).data))
            continue;
        m->used[i] = true;
        if (any)
            cox_put_u8(&m->json, ',');
        else
            begin_member(m, cox_wire_name(field));
        if (!any)
            cox_put_u8(&m->json, map ? '{' : '[');
        any = true;
        if (map ? !put_entry(m, field, p) : !put_value(m, field, p->name, p->value))
            return false;
    }
    if (any)
        cox_put_u8(&m->json, map ? '}' : ']');
    return true;
}

static bool is_scalar(const ProtobufCFieldDescriptor *field)
{
    return field->type != PROTOBUF_C_TYPE_MESSAGE || cox_wire_known(field->descriptor) != COX_WIRE_PLAIN;
}

static bool put_single(struct map *m, const ProtobufCFieldDescriptor *field)
{
    bool any = false;

    if (!is_scalar(field))
        return true;
    for (size_t i = 0; i < m->in->n_fixed + m->in->n_query; i++) {
        bool fixed = i < m->in->n_fixed;
        const struct edge_param *p = fixed ? &m->in->fixed[i] : &m->in->query[i - m->in->n_fixed];
        if (!names(field, p->name))
            continue;
        if (!fixed)
            m->used[i - m->in->n_fixed] = true;
        if (any)
            return wrong(m, p->name, "given more than once");
        any = true;
        begin_member(m, cox_wire_name(field));
        if (!put_value(m, field, p->name, p->value))
            return false;
    }
    return true;
}

/* ---- the body ---- */

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *type, const char *name)
{
    return protobuf_c_message_descriptor_get_field_by_name(type, name);
}

static bool put_body(struct map *m)
{
    struct cox_slice body = cox_json_trim(m->in->body), version;
    struct cox_json_place place;

    if (body.len == 0)
        return true;
    if (cox_json_check(m->in->body, &place)) {
        cox_buf_printf(&m->error->description, "line %u, column %u: expected %s", place.line, place.column,
                       place.expected);
        return false;
    }
    if (cox_json_kind(body) != COX_JSON_OBJECT)
        return wrong(m, cox_slice(NULL, 0), "expected a JSON object");
    if (find_field(m->in->type, "document") && cox_json_member(body, "api_version", &version)) {
        begin_member(m, cox_slice_str("document"));
        cox_buf_append_slice(&m->json, body);
        return true;
    }
    cox_buf_append(&m->json, body.data + 1, body.len - 2);
    while (m->json.len > 1 && strchr(" \t\r\n", m->json.data[m->json.len - 1]))
        m->json.len--;
    return true;
}

static bool put_key(struct map *m)
{
    const ProtobufCFieldDescriptor *field = find_field(m->in->type, "key");

    if (!m->in->key.data || !field || field->type != PROTOBUF_C_TYPE_STRING)
        return true;
    begin_member(m, cox_slice_str("key"));
    cox_json_quote(&m->json, m->in->key);
    return true;
}

/* ---- together ---- */

static void list_names(struct map *m)
{
    const ProtobufCMessageDescriptor *type = m->in->type;
    const char *between = "; expected one of ";

    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &type->fields[i];
        struct cox_slice name = cox_wire_name(f);
        bool fixed = false;
        for (size_t k = 0; k < m->in->n_fixed; k++)
            fixed |= cox_slice_eq(m->in->fixed[k].name, name);
        if (fixed || (!is_scalar(f) && !cox_wire_is_map(f)))
            continue;
        cox_buf_append_str(&m->error->description, between);
        cox_buf_append_slice(&m->error->description, name);
        between = ", ";
    }
}

static bool build(struct map *m)
{
    const ProtobufCMessageDescriptor *type = m->in->type;

    cox_put_u8(&m->json, '{');
    if (!put_body(m) || !put_key(m))
        return false;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &type->fields[i];
        if (f->label == PROTOBUF_C_LABEL_REPEATED ? !put_repeated(m, f) : !put_single(m, f))
            return false;
    }
    for (size_t i = 0; i < m->in->n_query; i++) {
        if (m->used[i])
            continue;
        wrong(m, m->in->query[i].name, "unknown parameter");
        list_names(m);
        return false;
    }
    cox_put_u8(&m->json, '}');
    return true;
}

/* lib/wire says "PLACE: what is wrong". */
static void split(struct map *m, struct cox_slice text)
{
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.data[i] == ' ')
            break;
        if (text.data[i] == ':' && text.data[i + 1] == ' ') {
            cox_buf_append(&m->error->field, text.data, i);
            cox_buf_append(&m->error->description, text.data + i + 2, text.len - i - 2);
            return;
        }
    }
    cox_buf_append_slice(&m->error->description, text);
}

enum cox_err map_request(const struct map_input *in, struct cox_buf *packed, struct map_error *ret_error)
{
    struct map m = { .in = in, .error = ret_error };
    ProtobufCMessage *message;
    struct cox_buf text = { 0 };
    enum cox_err err = COX_ERR_INVALID;

    if (!build(&m))
        goto out;
    err = cox_wire_from_json(in->type, cox_buf_slice(&m.json), &message, &text);
    if (err) {
        split(&m, cox_buf_slice(&text));
        goto out;
    }
    size_t len = protobuf_c_message_get_packed_size(message);

    protobuf_c_message_pack(message, cox_buf_extend(packed, len));
    protobuf_c_message_free_unpacked(message, NULL);
out:
    cox_buf_fini(&m.json);
    cox_buf_fini(&text);
    return err;
}
