/* JSON schemas of messages as lib/wire shows them. */
#include "openapi.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/json.h"
#include "cox/wire.h"

#include <string.h>

#define DURATION_PATTERN "^-?[0-9.]+(ns|us|ms|s|m|h|d)?"

/* A message or an enum that something refers to. */
struct schema {
    struct cox_list node;
    const ProtobufCMessageDescriptor *message; /* one of these two */
    const ProtobufCEnumDescriptor *type;
    bool answer; /* all its fields are there, always */
};

/* ---- words ---- */

void schema_key(struct cox_buf *out, const char *key)
{
    if (out->len > 0 && out->data[out->len - 1] != '{' && out->data[out->len - 1] != '[')
        cox_put_u8(out, ',');
    if (key)
        cox_buf_printf(out, "\"%s\":", key);
}

void schema_text(struct cox_buf *out, const char *key, const char *text)
{
    if (!text)
        return;
    schema_key(out, key);
    cox_json_quote(out, cox_slice_str(text));
}

/* "coxswain.v1.SubmitTasksResponse.Result" is "SubmitTasksResponse_Result". */
static void put_name(struct cox_buf *out, const char *full)
{
    static const char package[] = "coxswain.v1.";

    if (strncmp(full, package, sizeof(package) - 1) == 0)
        full += sizeof(package) - 1;
    for (; *full; full++)
        cox_put_u8(out, *full == '.' ? '_' : (uint8_t)*full);
}

static void put_ref(struct cox_buf *out, const char *full)
{
    schema_key(out, "$ref");
    cox_buf_append_str(out, "\"#/components/schemas/");
    put_name(out, full);
    cox_put_u8(out, '"');
}

static void note(struct schemas *s, const char *name, const ProtobufCMessageDescriptor *message,
                 const ProtobufCEnumDescriptor *type, bool answer)
{
    struct schema *known = cox_mapb_get(&s->seen, cox_slice_str(name));

    if (!known) {
        known = COX_NEW(struct schema);
        known->message = message;
        known->type = type;
        known->answer = answer;
        cox_mapb_set(&s->seen, cox_slice_str(name), known);
        cox_list_push_back(&s->list, &known->node);
    }
    COX_ASSERT(known->answer == answer || !message); /* requests and answers share no messages */
}

/* ---- values ---- */

static void put_known(struct cox_buf *out, enum cox_wire_known known)
{
    if (known == COX_WIRE_TIMESTAMP)
        cox_buf_append_str(out, "\"type\":[\"string\",\"null\"],\"format\":\"date-time\"");
    else if (known == COX_WIRE_DURATION)
        cox_buf_append_str(out, "\"type\":[\"string\",\"null\"],\"pattern\":\"" DURATION_PATTERN "\"");
    else
        cox_buf_append_str(out, "\"type\":[\"integer\",\"null\"]");
}

static void put_scalar(struct schemas *s, struct cox_buf *out, const ProtobufCFieldDescriptor *f, bool answer,
                       bool nullable);

static void put_message_value(struct schemas *s, struct cox_buf *out, const ProtobufCMessageDescriptor *m,
                              bool answer, bool nullable)
{
    enum cox_wire_known known = cox_wire_known(m);

    schema_key(out, NULL);
    if (known != COX_WIRE_PLAIN) {
        put_known(out, known);
        return;
    }
    note(s, m->name, m, NULL, answer);
    if (!nullable) {
        put_ref(out, m->name);
        return;
    }
    cox_buf_append_str(out, "\"anyOf\":[{");
    put_ref(out, m->name);
    cox_buf_append_str(out, "},{\"type\":\"null\"}]");
}

static const char *type_text(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return "\"type\":\"integer\",\"format\":\"int32\"";
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return "\"type\":\"integer\",\"format\":\"int64\",\"minimum\":0";
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return "\"type\":[\"integer\",\"string\"],\"format\":\"int64\"";
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        return "\"type\":[\"number\",\"string\"],\"format\":\"double\"";
    case PROTOBUF_C_TYPE_BOOL:
        return "\"type\":\"boolean\"";
    case PROTOBUF_C_TYPE_STRING:
        return "\"type\":\"string\"";
    case PROTOBUF_C_TYPE_BYTES:
        return "\"type\":\"string\",\"contentEncoding\":\"base64\"";
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_MESSAGE:
        break;
    }
    return "";
}

static void put_scalar(struct schemas *s, struct cox_buf *out, const ProtobufCFieldDescriptor *f, bool answer,
                       bool nullable)
{
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        put_message_value(s, out, f->descriptor, answer, nullable);
    } else if (f->type == PROTOBUF_C_TYPE_ENUM) {
        const ProtobufCEnumDescriptor *e = f->descriptor;
        note(s, e->name, NULL, e, answer);
        put_ref(out, e->name);
    } else {
        schema_key(out, NULL);
        cox_buf_append_str(out, type_text(f->type));
    }
}

static void put_repeated(struct schemas *s, struct cox_buf *out, const ProtobufCFieldDescriptor *f,
                         bool answer)
{
    bool map = cox_wire_is_map(f);

    schema_key(out, NULL);
    cox_buf_append_str(out, map ? "\"type\":\"object\",\"additionalProperties\":{"
                                : "\"type\":\"array\",\"items\":{");
    put_scalar(s, out, map ? &((const ProtobufCMessageDescriptor *)f->descriptor)->fields[1] : f, answer,
               false);
    cox_put_u8(out, '}');
}

void schema_put_field(struct schemas *s, struct cox_buf *out, const ProtobufCMessageDescriptor *message,
                      const ProtobufCFieldDescriptor *field, bool answer)
{
    cox_put_u8(out, '{');
    schema_text(out, "description", comments_get(&s->comments, message->name, field->name));
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        put_repeated(s, out, field, answer);
    else if (!cox_wire_is_json(field)) /* of JSON nothing is known */
        put_scalar(s, out, field, answer, true);
    cox_put_u8(out, '}');
}

void schema_put_ref(struct schemas *s, struct cox_buf *out, const ProtobufCMessageDescriptor *message,
                    bool answer)
{
    note(s, message->name, message, NULL, answer);
    cox_put_u8(out, '{');
    put_ref(out, message->name);
    cox_put_u8(out, '}');
}

/* ---- all of them ---- */

static void put_required(struct cox_buf *out, const ProtobufCMessageDescriptor *m)
{
    schema_key(out, "required");
    cox_put_u8(out, '[');
    for (unsigned i = 0; i < m->n_fields; i++) {
        schema_key(out, NULL);
        cox_json_quote(out, cox_wire_name(&m->fields[i]));
    }
    cox_put_u8(out, ']');
}

static void put_message(struct schemas *s, struct cox_buf *out, const struct schema *schema)
{
    const ProtobufCMessageDescriptor *m = schema->message;

    schema_text(out, "description", comments_get(&s->comments, m->name, NULL));
    schema_text(out, "type", "object");
    schema_key(out, "properties");
    cox_put_u8(out, '{');
    for (unsigned i = 0; i < m->n_fields; i++) {
        schema_key(out, NULL);
        cox_json_quote(out, cox_wire_name(&m->fields[i]));
        cox_put_u8(out, ':');
        schema_put_field(s, out, m, &m->fields[i], schema->answer);
    }
    cox_put_u8(out, '}');
    if (schema->answer)
        put_required(out, m);
}

static void put_enum(struct schemas *s, struct cox_buf *out, const ProtobufCEnumDescriptor *e)
{
    schema_text(out, "description", comments_get(&s->comments, e->name, NULL));
    schema_text(out, "type", "string");
    schema_key(out, "enum");
    cox_put_u8(out, '[');
    for (unsigned i = 0; i < e->n_values; i++) {
        schema_key(out, NULL);
        cox_json_quote(out, cox_slice_str(cox_wire_enum_text(e, e->values[i].value)));
    }
    cox_put_u8(out, ']');
}

/* The list grows while it is walked. */
void schema_put_all(struct schemas *s, struct cox_buf *out)
{
    for (struct cox_list *it = s->list.next; it != &s->list; it = it->next) {
        const struct schema *schema = COX_CONTAINER_OF(it, struct schema, node);
        schema_key(out, NULL);
        cox_put_u8(out, '"');
        put_name(out, schema->message ? schema->message->name : schema->type->name);
        cox_buf_append_str(out, "\":{");
        if (schema->message)
            put_message(s, out, schema);
        else
            put_enum(s, out, schema->type);
        cox_put_u8(out, '}');
    }
}

void schema_fini(struct schemas *s)
{
    COX_LIST_FOR_EACH (it, &s->list) {
        cox_list_remove(it);
        cox_free(COX_CONTAINER_OF(it, struct schema, node));
    }
    cox_mapb_fini(&s->seen);
    comments_fini(&s->comments);
}
