#include "wire_shape.h"

#include "cox/base/units.h"
#include "cox/json.h"

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_message(struct cox_buf *out, const ProtobufCMessage *message);

static void put_i64(struct cox_buf *out, int64_t v)
{
    bool exact = v >= -COX_WIRE_INT_EXACT_MAX && v <= COX_WIRE_INT_EXACT_MAX;

    cox_buf_printf(out, exact ? "%" PRId64 : "\"%" PRId64 "\"", v);
}

static void put_u64(struct cox_buf *out, uint64_t v)
{
    bool exact = v <= (uint64_t)COX_WIRE_INT_EXACT_MAX;

    cox_buf_printf(out, exact ? "%" PRIu64 : "\"%" PRIu64 "\"", v);
}

/* The fewest digits that read back as the same value. */
static void put_double(struct cox_buf *out, double v, int digits_min, int digits_max, bool single)
{
    char text[40];

    if (isnan(v) || isinf(v)) {
        cox_buf_append_str(out, isnan(v) ? "\"NaN\"" : v > 0 ? "\"Infinity\"" : "\"-Infinity\"");
        return;
    }
    for (int digits = digits_min; digits <= digits_max; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        double back = single ? (double)strtof(text, NULL) : strtod(text, NULL);
        if (!(back < v) && !(back > v))
            break;
    }
    cox_buf_append_str(out, text);
}

static void put_enum(struct cox_buf *out, const ProtobufCEnumDescriptor *descriptor, int v)
{
    const char *text = cox_wire_enum_text(descriptor, v);

    if (text)
        cox_json_quote(out, cox_slice_str(text));
    else
        cox_buf_printf(out, "%d", v);
}

/* JSON text inside a message is shown as it is; what should be JSON and is not, as a string. */
static void put_embedded(struct cox_buf *out, struct cox_slice text)
{
    if (text.len == 0)
        cox_buf_append_str(out, "null");
    else if (cox_json_check(text, NULL) == COX_OK)
        cox_json_compact(out, text);
    else
        cox_json_quote(out, text);
}

static void put_scalar(struct cox_buf *out, const ProtobufCFieldDescriptor *field, const void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        cox_buf_printf(out, "%" PRId32, *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        cox_buf_printf(out, "%" PRIu32, *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        put_i64(out, *(const int64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        put_u64(out, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        put_double(out, (double)*(const float *)at, 6, 9, true);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        put_double(out, *(const double *)at, 15, 17, false);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        cox_buf_append_str(out, *(const protobuf_c_boolean *)at ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        put_enum(out, field->descriptor, *(const int *)at);
        break;
    case PROTOBUF_C_TYPE_STRING:
        cox_json_quote(out, cox_slice_str(*(const char *const *)at));
        break;
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *bytes = at;
        cox_put_u8(out, '"');
        cox_wire_put_base64(out, cox_slice(bytes->data, bytes->len));
        cox_put_u8(out, '"');
        break;
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        put_message(out, *(const ProtobufCMessage *const *)at);
        break;
    }
}

/* The name of a map's member: a string whatever the key's type. */
static void put_map_key(struct cox_buf *out, const ProtobufCMessage *entry)
{
    const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0];
    const void *at = (const char *)entry + key->offset;
    size_t start = out->len;

    put_scalar(out, key, at);
    if (out->data[start] == '"')
        return;
    size_t len = out->len - start;

    cox_put_u8(out, '"');
    cox_put_u8(out, '"');
    memmove(out->data + start + 1, out->data + start, len);
    out->data[start] = '"';
}

static void put_repeated(struct cox_buf *out, const ProtobufCFieldDescriptor *field, const void *at, size_t n)
{
    bool map = cox_wire_is_map(field);
    size_t size = cox_wire_value_size(field);
    const char *items = *(const char *const *)at;

    cox_put_u8(out, map ? '{' : '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            cox_put_u8(out, ',');
        if (!map) {
            put_scalar(out, field, items + i * size);
            continue;
        }
        const ProtobufCMessage *entry = ((const ProtobufCMessage *const *)(const void *)items)[i];
        const ProtobufCFieldDescriptor *value = &entry->descriptor->fields[1];
        put_map_key(out, entry);
        cox_put_u8(out, ':');
        put_scalar(out, value, (const char *)entry + value->offset);
    }
    cox_put_u8(out, map ? '}' : ']');
}

/* False for a field of a union that is not the one that is set, or an optional value that is not there. */
static bool is_there(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *quantifier = (const char *)message + field->quantifier_offset;

    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *)(const void *)quantifier == field->id;
    if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->quantifier_offset != 0)
        return *(const protobuf_c_boolean *)(const void *)quantifier;
    return true;
}

static void put_field(struct cox_buf *out, const ProtobufCMessage *message,
                      const ProtobufCFieldDescriptor *field)
{
    const void *at = (const char *)message + field->offset;

    if (!is_there(message, field)) {
        cox_buf_append_str(out, "null");
    } else if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        put_repeated(out, field, at,
                     *(const size_t *)(const void *)((const char *)message + field->quantifier_offset));
    } else if (cox_wire_is_json(field) && field->type == PROTOBUF_C_TYPE_STRING) {
        put_embedded(out, cox_slice_str(*(const char *const *)at));
    } else if (cox_wire_is_json(field)) {
        const ProtobufCBinaryData *bytes = at;
        put_embedded(out, cox_slice(bytes->data, bytes->len));
    } else {
        put_scalar(out, field, at);
    }
}

/* Digits of nanoseconds in groups of three, as protobuf's own JSON has them. */
static void put_nanos(struct cox_buf *out, int32_t nanos)
{
    if (nanos % 1000000 == 0)
        cox_buf_printf(out, "%03d", nanos / 1000000);
    else if (nanos % 1000 == 0)
        cox_buf_printf(out, "%06d", nanos / 1000);
    else
        cox_buf_printf(out, "%09d", nanos);
}

static bool put_timestamp(struct cox_buf *out, const Google__Protobuf__Timestamp *t)
{
    if (t->seconds < COX_WIRE_TIME_S_MIN || t->seconds > COX_WIRE_TIME_S_MAX || t->nanos < 0 ||
        t->nanos >= COX_WIRE_NANOS)
        return false;
    cox_put_u8(out, '"');
    cox_put_time(out, t->seconds * 1000);
    out->len -= strlen("000Z");
    put_nanos(out, t->nanos);
    cox_buf_append_str(out, "Z\"");
    return true;
}

static bool put_duration(struct cox_buf *out, const Google__Protobuf__Duration *d)
{
    bool negative = d->seconds < 0 || d->nanos < 0;

    if (d->seconds < -COX_WIRE_DURATION_S_MAX || d->seconds > COX_WIRE_DURATION_S_MAX ||
        d->nanos <= -COX_WIRE_NANOS || d->nanos >= COX_WIRE_NANOS ||
        (negative && (d->seconds > 0 || d->nanos > 0)))
        return false;
    cox_buf_printf(out, "\"%s%" PRId64, negative ? "-" : "", negative ? -d->seconds : d->seconds);
    if (d->nanos != 0) {
        cox_buf_printf(out, ".%09d", abs(d->nanos));
        while (out->data[out->len - 1] == '0')
            out->len--;
    }
    cox_buf_append_str(out, "s\"");
    return true;
}

/* True when the message has been written in a form of its own. Values out of the range of that form are
 * written field by field, so that nothing is lost. */
static bool put_known(struct cox_buf *out, const ProtobufCMessage *message)
{
    switch (cox_wire_known(message->descriptor)) {
    case COX_WIRE_TIMESTAMP:
        return put_timestamp(out, (const Google__Protobuf__Timestamp *)message);
    case COX_WIRE_DURATION:
        return put_duration(out, (const Google__Protobuf__Duration *)message);
    case COX_WIRE_WRAPPER:
        put_field(out, message, &message->descriptor->fields[0]);
        return true;
    case COX_WIRE_PLAIN:
        break;
    }
    return false;
}

static void put_message(struct cox_buf *out, const ProtobufCMessage *message)
{
    if (!message) {
        cox_buf_append_str(out, "null");
        return;
    }
    if (put_known(out, message))
        return;
    cox_put_u8(out, '{');
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (i > 0)
            cox_put_u8(out, ',');
        cox_json_quote(out, cox_wire_name(field));
        cox_put_u8(out, ':');
        put_field(out, message, field);
    }
    cox_put_u8(out, '}');
}

void cox_wire_put_json(struct cox_buf *out, const ProtobufCMessage *message)
{
    put_message(out, message);
}
