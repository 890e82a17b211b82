#include "rpc_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <string.h>

/* Common peers refuse more than 8 KiB of metadata in all; grpc-message can triple by percent-encoding and the
 * details grow by a third in base64. */
#define DETAILS_LEN_MAX 3072u
#define FIELD_LEN_MAX 256u
#define DESCRIPTION_LEN_MAX 512u

#define DOMAIN "coxswain"
#define TYPE_PREFIX "type.googleapis.com/"

/* ---- names and codes ---- */

static const struct {
    const char *text;
    enum cox_err err;
} statuses[] = {
    [COX_RPC_OK] = { "OK", COX_OK },
    [COX_RPC_CANCELLED] = { "CANCELLED", COX_ERR_CANCELLED },
    [COX_RPC_UNKNOWN] = { "UNKNOWN", COX_ERR_INTERNAL },
    [COX_RPC_INVALID_ARGUMENT] = { "INVALID_ARGUMENT", COX_ERR_INVALID },
    [COX_RPC_DEADLINE_EXCEEDED] = { "DEADLINE_EXCEEDED", COX_ERR_TIMEOUT },
    [COX_RPC_NOT_FOUND] = { "NOT_FOUND", COX_ERR_NOT_FOUND },
    [COX_RPC_ALREADY_EXISTS] = { "ALREADY_EXISTS", COX_ERR_EXISTS },
    [COX_RPC_PERMISSION_DENIED] = { "PERMISSION_DENIED", COX_ERR_DENIED },
    [COX_RPC_RESOURCE_EXHAUSTED] = { "RESOURCE_EXHAUSTED", COX_ERR_FULL },
    [COX_RPC_FAILED_PRECONDITION] = { "FAILED_PRECONDITION", COX_ERR_INVALID },
    [COX_RPC_ABORTED] = { "ABORTED", COX_ERR_STALE },
    [COX_RPC_OUT_OF_RANGE] = { "OUT_OF_RANGE", COX_ERR_INVALID },
    [COX_RPC_UNIMPLEMENTED] = { "UNIMPLEMENTED", COX_ERR_UNIMPLEMENTED },
    [COX_RPC_INTERNAL] = { "INTERNAL", COX_ERR_INTERNAL },
    [COX_RPC_UNAVAILABLE] = { "UNAVAILABLE", COX_ERR_UNAVAILABLE },
    [COX_RPC_DATA_LOSS] = { "DATA_LOSS", COX_ERR_CORRUPT },
    [COX_RPC_UNAUTHENTICATED] = { "UNAUTHENTICATED", COX_ERR_DENIED },
};
#define N_STATUSES (sizeof(statuses) / sizeof(statuses[0]))

const char *cox_rpc_status_text(enum cox_rpc_status status)
{
    return (size_t)status < N_STATUSES ? statuses[status].text : "UNKNOWN";
}

enum cox_err cox_rpc_status_to_err(enum cox_rpc_status status)
{
    return (size_t)status < N_STATUSES ? statuses[status].err : COX_ERR_INTERNAL;
}

enum cox_rpc_status cox_rpc_status_from_err(enum cox_err err)
{
    switch (err) {
    case COX_ERR_OK:
        return COX_RPC_OK;
    case COX_ERR_INVALID:
        return COX_RPC_INVALID_ARGUMENT;
    case COX_ERR_NOT_FOUND:
        return COX_RPC_NOT_FOUND;
    case COX_ERR_EXISTS:
        return COX_RPC_ALREADY_EXISTS;
    case COX_ERR_FULL:
        return COX_RPC_RESOURCE_EXHAUSTED;
    case COX_ERR_DENIED:
        return COX_RPC_PERMISSION_DENIED;
    case COX_ERR_AGAIN:
    case COX_ERR_UNAVAILABLE:
        return COX_RPC_UNAVAILABLE;
    case COX_ERR_STALE:
        return COX_RPC_ABORTED;
    case COX_ERR_TIMEOUT:
        return COX_RPC_DEADLINE_EXCEEDED;
    case COX_ERR_CANCELLED:
        return COX_RPC_CANCELLED;
    case COX_ERR_CORRUPT:
        return COX_RPC_DATA_LOSS;
    case COX_ERR_UNIMPLEMENTED:
        return COX_RPC_UNIMPLEMENTED;
    case COX_ERR_IO:
    case COX_ERR_INTERNAL:
    case COX_ERR_NR:
        break;
    }
    return COX_RPC_INTERNAL;
}

/* ---- sending ---- */

/* The length of `text` cut to `len_max` bytes at the start of a character. */
static size_t cut_len(const char *text, size_t len_max)
{
    size_t len = strnlen(text, len_max + 1);

    if (len <= len_max)
        return len;
    for (len = len_max; len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80; len--)
        ;
    return len;
}

static char *cut(struct cox_arena *arena, const char *text, size_t len_max)
{
    return text ? cox_arena_dup(arena, text, cut_len(text, len_max)) : (char *)protobuf_c_empty_string;
}

grpc_slice rpc_error_message(const struct cox_rpc_error *error)
{
    if (!error->message)
        return grpc_empty_slice();
    return grpc_slice_from_copied_buffer(error->message, cut_len(error->message, COX_ERROR_MESSAGE_LEN_MAX));
}

static void add_detail(struct cox_arena *arena, Google__Rpc__Status *status, const ProtobufCMessage *detail)
{
    Google__Protobuf__Any *any = cox_arena_alloc(arena, sizeof(*any));
    size_t name_len = strlen(detail->descriptor->name);

    google__protobuf__any__init(any);
    any->type_url = cox_arena_alloc(arena, sizeof(TYPE_PREFIX) + name_len);
    memcpy(any->type_url, TYPE_PREFIX, sizeof(TYPE_PREFIX) - 1);
    memcpy(any->type_url + sizeof(TYPE_PREFIX) - 1, detail->descriptor->name, name_len + 1);
    any->value.len = protobuf_c_message_get_packed_size(detail);
    any->value.data = cox_arena_alloc(arena, any->value.len);
    protobuf_c_message_pack(detail, any->value.data);
    status->details[status->n_details++] = any;
}

/* As many violations as fit into `room` bytes, the first always. */
static void add_violations(struct cox_arena *arena, const struct cox_rpc_error *error, size_t room,
                           Google__Rpc__Status *status)
{
    Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
    Google__Rpc__BadRequest__FieldViolation *list[COX_VIOLATIONS_MAX];

    bad.field_violations = list;
    for (size_t i = 0; i < error->n_violations && i < COX_VIOLATIONS_MAX; i++) {
        Google__Rpc__BadRequest__FieldViolation *v = cox_arena_alloc(arena, sizeof(*v));
        google__rpc__bad_request__field_violation__init(v);
        v->field = cut(arena, error->violations[i].field, FIELD_LEN_MAX);
        v->description = cut(arena, error->violations[i].description, DESCRIPTION_LEN_MAX);
        list[bad.n_field_violations++] = v;
        if (i > 0 && google__rpc__bad_request__get_packed_size(&bad) > room) {
            bad.n_field_violations--;
            break;
        }
    }
    add_detail(arena, status, &bad.base);
}

bool rpc_error_details(const struct cox_rpc_error *error, grpc_slice *ret)
{
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    Google__Protobuf__Any *details[3];
    struct cox_arena arena = { 0 };

    if (!error->reason && error->retry_delay_ms <= 0 && error->n_violations == 0)
        return false;
    status.code = (int32_t)error->status;
    status.message = cut(&arena, error->message, COX_ERROR_MESSAGE_LEN_MAX);
    status.details = details;
    if (error->reason) {
        Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
        info.reason = cut(&arena, error->reason, FIELD_LEN_MAX);
        info.domain = (char *)DOMAIN;
        add_detail(&arena, &status, &info.base);
    }
    if (error->retry_delay_ms > 0) {
        Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
        Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
        delay.seconds = error->retry_delay_ms / 1000;
        delay.nanos = (int32_t)(error->retry_delay_ms % 1000) * 1000000;
        retry.retry_delay = &delay;
        add_detail(&arena, &status, &retry.base);
    }
    if (error->n_violations > 0)
        add_violations(&arena, error, DETAILS_LEN_MAX - google__rpc__status__get_packed_size(&status),
                       &status);
    *ret = grpc_slice_malloc(google__rpc__status__get_packed_size(&status));
    google__rpc__status__pack(&status, GRPC_SLICE_START_PTR(*ret));
    cox_arena_fini(&arena);
    return true;
}

/* ---- receiving ---- */

const grpc_slice *rpc_metadata_find(const grpc_metadata_array *metadata, const char *key)
{
    for (size_t i = 0; i < metadata->count; i++)
        if (cox_slice_is(rpc_slice_view(&metadata->metadata[i].key), key))
            return &metadata->metadata[i].value;
    return NULL;
}

size_t rpc_metadata_count(const grpc_metadata_array *metadata, const char *key)
{
    size_t n = 0;

    for (size_t i = 0; i < metadata->count; i++)
        n += cox_slice_is(rpc_slice_view(&metadata->metadata[i].key), key);
    return n;
}

/* The detail as a message of `type`, NULL when it is something else. */
static const void *detail_as(const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *type,
                             struct cox_arena *arena)
{
    const char *name = strrchr(any->type_url, '/');
    ProtobufCMessage *message;

    if (!name || strcmp(name + 1, type->name) != 0)
        return NULL;
    if (rpc_unpack(type, cox_slice(any->value.data, any->value.len), arena, &message) != COX_OK)
        return NULL;
    return message;
}

static void take_violations(struct cox_rpc_error *error, const Google__Rpc__BadRequest *bad,
                            struct cox_arena *arena)
{
    struct cox_rpc_violation *list = cox_arena_alloc(arena, bad->n_field_violations * sizeof(*list));

    for (size_t i = 0; i < bad->n_field_violations; i++)
        list[i] = (struct cox_rpc_violation){ bad->field_violations[i]->field,
                                              bad->field_violations[i]->description };
    error->violations = list;
    error->n_violations = bad->n_field_violations;
}

static int64_t delay_ms(const Google__Protobuf__Duration *delay)
{
    const int64_t day_s = 86400;

    if (!delay || delay->seconds < 0 || delay->nanos < 0)
        return 0;
    return (delay->seconds < day_s ? delay->seconds : day_s) * 1000 + delay->nanos / 1000000;
}

static void take_detail(struct cox_rpc_error *error, const Google__Protobuf__Any *any,
                        struct cox_arena *arena)
{
    const Google__Rpc__ErrorInfo *info = detail_as(any, &google__rpc__error_info__descriptor, arena);
    const Google__Rpc__RetryInfo *retry = detail_as(any, &google__rpc__retry_info__descriptor, arena);
    const Google__Rpc__BadRequest *bad = detail_as(any, &google__rpc__bad_request__descriptor, arena);

    if (info)
        error->reason = info->reason;
    if (retry)
        error->retry_delay_ms = delay_ms(retry->retry_delay);
    if (bad)
        take_violations(error, bad, arena);
}

struct cox_rpc_error rpc_error_parse(grpc_status_code status, const grpc_slice *message,
                                     const grpc_slice *details, struct cox_arena *arena)
{
    struct cox_rpc_error error = { .status = (enum cox_rpc_status)status };
    struct cox_slice text = rpc_slice_view(message);
    ProtobufCMessage *packed;

    if ((size_t)status >= N_STATUSES)
        error.status = COX_RPC_UNKNOWN;
    error.message = cox_utf8_ok(text) ? cox_arena_dup(arena, text.data, text.len) : "";
    if (status != GRPC_STATUS_OK && details &&
        rpc_unpack(&google__rpc__status__descriptor, rpc_slice_view(details), arena, &packed) == COX_OK) {
        const Google__Rpc__Status *rpc_status = (const Google__Rpc__Status *)packed;
        for (size_t i = 0; i < rpc_status->n_details; i++)
            take_detail(&error, rpc_status->details[i], arena);
    }
    return error;
}

/* ---- copies ---- */

static size_t text_len(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static const char *put_text(char **at, const char *text)
{
    size_t len = text_len(text);

    if (!text)
        return NULL;
    char *copy = memcpy(*at, text, len);
    *at += len;
    return copy;
}

struct cox_rpc_error *cox_rpc_error_copy(const struct cox_rpc_error *error)
{
    size_t head_len = sizeof(*error) + error->n_violations * sizeof(*error->violations);
    size_t len = head_len + text_len(error->message) + text_len(error->reason);

    for (size_t i = 0; i < error->n_violations; i++)
        len += text_len(error->violations[i].field) + text_len(error->violations[i].description);
    struct cox_rpc_error *copy = cox_alloc(len);
    struct cox_rpc_violation *violations = (struct cox_rpc_violation *)(copy + 1);
    char *at = (char *)copy + head_len;

    *copy = *error;
    copy->message = put_text(&at, error->message);
    copy->reason = put_text(&at, error->reason);
    copy->violations = error->n_violations > 0 ? violations : NULL;
    for (size_t i = 0; i < error->n_violations; i++) {
        violations[i].field = put_text(&at, error->violations[i].field);
        violations[i].description = put_text(&at, error->violations[i].description);
    }
    return copy;
}

void cox_rpc_error_free(struct cox_rpc_error *error)
{
    cox_free(error);
}
