#include "rpc_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <stdlib.h>

#define NESTING_MAX 64

grpc_byte_buffer *rpc_pack(const ProtobufCMessage *message, size_t *ret_len)
{
    size_t len = protobuf_c_message_get_packed_size(message);

    if (len > COX_MESSAGE_LEN_MAX)
        return NULL;
    grpc_slice slice = grpc_slice_malloc(len);
    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    grpc_byte_buffer *bytes = grpc_raw_byte_buffer_create(&slice, 1);

    grpc_slice_unref(slice);
    *ret_len = len;
    return bytes;
}

/* ---- text ---- */

/* Most text is short and ASCII: one pass finds its end and what needs a closer look. */
static bool text_ok(const char *text)
{
    while ((signed char)*text > 0)
        text++;
    return *text == '\0' || cox_utf8_ok(cox_slice_str(text));
}

static bool message_text_ok(const ProtobufCMessage *message, unsigned depth);

static bool value_text_ok(const ProtobufCFieldDescriptor *field, const void *member, unsigned depth)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessage *sub = *(const ProtobufCMessage *const *)member;
        return !sub || message_text_ok(sub, depth + 1);
    }
    const char *text = *(const char *const *)member;

    return !text || text_ok(text);
}

static bool field_text_ok(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message,
                          unsigned depth)
{
    const char *base = (const char *)message;
    const void *member = base + field->offset;

    if (field->type != PROTOBUF_C_TYPE_MESSAGE && field->type != PROTOBUF_C_TYPE_STRING)
        return true;
    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        bool absent = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
                      *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id;
        return absent || value_text_ok(field, member, depth);
    }
    size_t n = *(const size_t *)(const void *)(base + field->quantifier_offset);
    const void *const *values = *(const void *const *const *)member;

    for (size_t i = 0; i < n; i++)
        if (!value_text_ok(field, &values[i], depth))
            return false;
    return true;
}

/* proto3 says that strings are UTF-8; protobuf-c does not look. */
static bool message_text_ok(const ProtobufCMessage *message, unsigned depth)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;

    if (depth > NESTING_MAX)
        return false;
    for (unsigned i = 0; i < type->n_fields; i++)
        if (!field_text_ok(&type->fields[i], message, depth))
            return false;
    return true;
}

/* ---- decoding ---- */

struct decode_space {
    struct cox_arena *arena; /* NULL: malloc */
    size_t left;
    bool refused;
};

static void *space_alloc(void *data, size_t size)
{
    struct decode_space *space = data;

    if (size > space->left) {
        space->refused = true;
        return NULL;
    }
    space->left -= size;
    return space->arena ? cox_arena_alloc(space->arena, size) : cox_alloc(size);
}

static void space_free(void *data, void *p)
{
    struct decode_space *space = data;

    if (!space->arena)
        free(p);
}

enum cox_err rpc_unpack(const ProtobufCMessageDescriptor *type, struct cox_slice bytes,
                        struct cox_arena *arena, ProtobufCMessage **ret)
{
    struct decode_space space = { .arena = arena, .left = RPC_DECODED_LEN_MAX };
    ProtobufCAllocator allocator = { space_alloc, space_free, &space };
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, bytes.len, bytes.data);

    if (!message)
        return space.refused ? COX_ERR_FULL : COX_ERR_INVALID;
    if (!message_text_ok(message, 0)) {
        protobuf_c_message_free_unpacked(message, &allocator);
        return COX_ERR_INVALID;
    }
    *ret = message;
    return COX_OK;
}

enum cox_err rpc_unpack_buffer(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *bytes,
                               struct cox_arena *arena, ProtobufCMessage **ret)
{
    grpc_byte_buffer_reader reader;
    grpc_slice *first;
    enum cox_err err;

    if (!grpc_byte_buffer_reader_init(&reader, bytes))
        return COX_ERR_INVALID;
    if (grpc_byte_buffer_length(bytes) == 0) {
        err = rpc_unpack(type, cox_slice(NULL, 0), arena, ret);
    } else if (grpc_byte_buffer_reader_peek(&reader, &first) &&
               GRPC_SLICE_LENGTH(*first) == grpc_byte_buffer_length(bytes)) {
        err = rpc_unpack(type, rpc_slice_view(first), arena, ret);
    } else {
        grpc_byte_buffer_reader_destroy(&reader);
        if (!grpc_byte_buffer_reader_init(&reader, bytes))
            return COX_ERR_INVALID;
        grpc_slice whole = grpc_byte_buffer_reader_readall(&reader);
        err = rpc_unpack(type, rpc_slice_view(&whole), arena, ret);
        grpc_slice_unref(whole);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    return err;
}
