#include "wire_shape.h"

#include "cox/base/alloc.h"

#include <string.h>

static void *allocate(void *data, size_t size)
{
    (void)data;
    return cox_alloc(size);
}

static void release(void *data, void *p)
{
    (void)data;
    cox_free(p);
}

ProtobufCAllocator cox_wire_allocator = { .alloc = allocate, .free = release };

static bool ends_with(const char *s, const char *tail)
{
    size_t len = strlen(s), tail_len = strlen(tail);

    return len > tail_len && strcmp(s + len - tail_len, tail) == 0;
}

enum cox_wire_known cox_wire_known(const ProtobufCMessageDescriptor *descriptor)
{
    static const char package[] = "google.protobuf.";

    if (strncmp(descriptor->name, package, sizeof(package) - 1) != 0)
        return COX_WIRE_PLAIN;
    if (strcmp(descriptor->short_name, "Timestamp") == 0)
        return COX_WIRE_TIMESTAMP;
    if (strcmp(descriptor->short_name, "Duration") == 0)
        return COX_WIRE_DURATION;
    return ends_with(descriptor->short_name, "Value") && descriptor->n_fields == 1 ? COX_WIRE_WRAPPER
                                                                                   : COX_WIRE_PLAIN;
}

bool cox_wire_is_map(const ProtobufCFieldDescriptor *field)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return false;
    const ProtobufCMessageDescriptor *entry = field->descriptor;

    return entry->n_fields == 2 && ends_with(entry->short_name, "Entry") &&
           strcmp(entry->fields[0].name, "key") == 0 && strcmp(entry->fields[1].name, "value") == 0;
}

bool cox_wire_is_json(const ProtobufCFieldDescriptor *field)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return false;
    if (field->type == PROTOBUF_C_TYPE_BYTES &&
        (strcmp(field->name, "json") == 0 || strcmp(field->name, "document") == 0))
        return true;
    return (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES) &&
           ends_with(field->name, "_json");
}

struct cox_slice cox_wire_name(const ProtobufCFieldDescriptor *field)
{
    struct cox_slice name = cox_slice_str(field->name);

    if (cox_wire_is_json(field) && ends_with(field->name, "_json"))
        name.len -= strlen("_json");
    return name;
}

size_t cox_wire_value_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    COX_ASSERT(!"a type of protobuf");
    return 0;
}

/* Bytes of the prefix that the enum's values share: "TaskStatus" gives "TASK_STATUS_". 0 when a value lacks
 * it. */
static size_t prefix_len(const ProtobufCEnumDescriptor *e, const char *value)
{
    size_t n = 0;

    for (const char *p = e->short_name; *p; p++) {
        bool upper = *p >= 'A' && *p <= 'Z';
        if (upper && p > e->short_name && value[n++] != '_')
            return 0;
        char want = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
        if (value[n++] != want)
            return 0;
    }
    return value[n] == '_' && value[n + 1] ? n + 1 : 0;
}

const char *cox_wire_enum_text(const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(descriptor, value);

    return v ? v->name + prefix_len(descriptor, v->name) : NULL;
}
