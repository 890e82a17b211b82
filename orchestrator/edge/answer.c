#include "internal.h"

#include "cox/json.h"

#include <inttypes.h>
#include <string.h>

/* As google/rpc/code.proto maps them. */
int answer_http_status(enum cox_rpc_status status)
{
    static const int statuses[] = {
        [COX_RPC_OK] = 200,
        [COX_RPC_CANCELLED] = 499,
        [COX_RPC_UNKNOWN] = 500,
        [COX_RPC_INVALID_ARGUMENT] = 400,
        [COX_RPC_DEADLINE_EXCEEDED] = 504,
        [COX_RPC_NOT_FOUND] = 404,
        [COX_RPC_ALREADY_EXISTS] = 409,
        [COX_RPC_PERMISSION_DENIED] = 403,
        [COX_RPC_RESOURCE_EXHAUSTED] = 429,
        [COX_RPC_FAILED_PRECONDITION] = 400,
        [COX_RPC_ABORTED] = 409,
        [COX_RPC_OUT_OF_RANGE] = 400,
        [COX_RPC_UNIMPLEMENTED] = 501,
        [COX_RPC_INTERNAL] = 500,
        [COX_RPC_UNAVAILABLE] = 503,
        [COX_RPC_DATA_LOSS] = 500,
        [COX_RPC_UNAUTHENTICATED] = 401,
    };

    return (size_t)status < sizeof(statuses) / sizeof(statuses[0]) ? statuses[status] : 500;
}

static const struct {
    int status;
    const char *reason;
    enum cox_rpc_status code; /* of our own refusals */
} statuses[] = {
    { 200, "OK", COX_RPC_OK },
    { 204, "No Content", COX_RPC_OK },
    { 201, "Created", COX_RPC_OK },
    { 400, "Bad Request", COX_RPC_INVALID_ARGUMENT },
    { 401, "Unauthorized", COX_RPC_UNAUTHENTICATED },
    { 403, "Forbidden", COX_RPC_PERMISSION_DENIED },
    { 404, "Not Found", COX_RPC_NOT_FOUND },
    { 405, "Method Not Allowed", COX_RPC_UNIMPLEMENTED },
    { 408, "Request Timeout", COX_RPC_DEADLINE_EXCEEDED },
    { 409, "Conflict", COX_RPC_ABORTED },
    { 411, "Length Required", COX_RPC_INVALID_ARGUMENT },
    { 413, "Content Too Large", COX_RPC_OUT_OF_RANGE },
    { 414, "URI Too Long", COX_RPC_OUT_OF_RANGE },
    { 415, "Unsupported Media Type", COX_RPC_INVALID_ARGUMENT },
    { 422, "Unprocessable Content", COX_RPC_INVALID_ARGUMENT },
    { 429, "Too Many Requests", COX_RPC_RESOURCE_EXHAUSTED },
    { 431, "Request Header Fields Too Large", COX_RPC_OUT_OF_RANGE },
    { 499, "Client Closed Request", COX_RPC_CANCELLED },
    { 500, "Internal Server Error", COX_RPC_INTERNAL },
    { 501, "Not Implemented", COX_RPC_UNIMPLEMENTED },
    { 502, "Bad Gateway", COX_RPC_UNAVAILABLE },
    { 503, "Service Unavailable", COX_RPC_UNAVAILABLE },
    { 504, "Gateway Timeout", COX_RPC_DEADLINE_EXCEEDED },
    { 505, "HTTP Version Not Supported", COX_RPC_UNIMPLEMENTED },
};
#define N_STATUSES (sizeof(statuses) / sizeof(statuses[0]))

const char *answer_reason(int http_status)
{
    for (size_t i = 0; i < N_STATUSES; i++)
        if (statuses[i].status == http_status)
            return statuses[i].reason;
    return "Unknown";
}

static enum cox_rpc_status code_of(int http_status)
{
    for (size_t i = 0; i < N_STATUSES; i++)
        if (statuses[i].status == http_status)
            return statuses[i].code;
    return COX_RPC_UNKNOWN;
}

static void put_text(struct cox_buf *out, const char *name, const char *text)
{
    cox_buf_printf(out, ",\"%s\":", name);
    cox_json_quote(out, cox_slice_str(text ? text : ""));
}

void answer_put_error(struct cox_buf *out, int http_status, const struct cox_rpc_error *error)
{
    cox_buf_printf(out, "{\"error\":{\"code\":\"%s\",\"status\":%d", cox_rpc_status_text(error->status),
                   http_status);
    put_text(out, "message", error->message);
    put_text(out, "reason", error->reason);
    cox_buf_printf(out, ",\"retry_delay_ms\":%" PRId64 ",\"violations\":[", error->retry_delay_ms);
    for (size_t i = 0; i < error->n_violations; i++) {
        cox_buf_append_str(out, i > 0 ? ",{\"field\":" : "{\"field\":");
        cox_json_quote(out, cox_slice_str(error->violations[i].field ? error->violations[i].field : ""));
        put_text(out, "description", error->violations[i].description);
        cox_put_u8(out, '}');
    }
    cox_buf_append_str(out, "]}}");
}

static void answer(struct conn *c, int http_status, const struct cox_rpc_error *error, const char *headers)
{
    struct cox_buf body = { 0 }, lines = { 0 };

    if (openai_is_path(c))
        openai_put_error(&body, http_status, error);
    else
        answer_put_error(&body, http_status, error);
    if (headers)
        cox_buf_append_str(&lines, headers);
    if (http_status == 401)
        cox_buf_append_str(&lines, "WWW-Authenticate: Bearer realm=\"coxswain\"\r\n");
    if (error->retry_delay_ms > 0)
        cox_buf_printf(&lines, "Retry-After: %" PRId64 "\r\n", (error->retry_delay_ms + 999) / 1000);
    guard_put_cors(c->edge, &c->head, &lines);
    conn_answer(c, &(struct answer){ .status = http_status,
                                     .type = "application/json",
                                     .headers = cox_buf_cstr(&lines),
                                     .body = cox_buf_slice(&body) });
    cox_buf_fini(&body);
    cox_buf_fini(&lines);
}

void answer_error(struct conn *c, const struct cox_rpc_error *error)
{
    answer(c, answer_http_status(error->status), error, NULL);
}

void answer_refusal(struct conn *c, int http_status, const char *reason, const char *headers,
                    const char *message)
{
    answer(c, http_status,
           &(struct cox_rpc_error){ .status = code_of(http_status), .message = message, .reason = reason },
           headers);
}
