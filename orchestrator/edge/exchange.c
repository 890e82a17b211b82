/* A request, from its head to its answer. */
#include "internal.h"

#include "map.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/wire.h"

#include <stdio.h>
#include <string.h>

#define DRAIN_RETRY_MS 1000
#define MODELS "coxswain.v1.ModelService"

/* ---- life ---- */

void exchange_end(struct conn *c)
{
    struct exchange *x = c->exchange;

    if (!x)
        return;
    c->exchange = NULL;
    conn_calls(c, false);
    if (x->call)
        call_drop(x->call);
    if (x->openai)
        openai_drop(x->openai);
    cox_buf_fini(&x->type);
    cox_buf_fini(&x->path_memory);
    cox_buf_fini(&x->query_memory);
    cox_buf_fini(&x->message);
    cox_buf_fini(&x->headers);
    cox_free(x);
}

/* ---- refusals that need no service ---- */

static struct cox_slice path_of(struct cox_slice target, struct cox_slice *ret_query)
{
    const uint8_t *mark = memchr(target.data, '?', target.len);
    size_t len = mark ? (size_t)(mark - target.data) : target.len;

    *ret_query = mark ? cox_slice(mark + 1, target.len - len - 1) : cox_slice(NULL, 0);
    return cox_slice(target.data, len);
}

static void answer_options(struct conn *c, const char *allowed)
{
    struct cox_buf headers = { 0 };

    cox_buf_printf(&headers, "Allow: %s, OPTIONS\r\n", allowed);
    guard_put_cors(c->edge, &c->head, &headers);
    conn_answer(c, &(struct answer){ .status = 204, .headers = cox_buf_cstr(&headers), .plain = true });
    cox_buf_fini(&headers);
}

static void answer_no_route(struct conn *c, struct cox_buf *allowed)
{
    struct cox_buf headers = { 0 };

    if (allowed->len == 0) {
        answer_refusal(c, 404, "NO_ROUTE", NULL, "there is nothing at this path; see /openapi.json");
    } else if (cox_slice_is(c->head.method, "OPTIONS")) {
        answer_options(c, cox_buf_cstr(allowed));
    } else {
        cox_buf_printf(&headers, "Allow: %s, OPTIONS\r\n", cox_buf_cstr(allowed));
        answer_refusal(c, 405, "METHOD_NOT_ALLOWED", cox_buf_cstr(&headers),
                       "this path takes other methods; the Allow header names them");
    }
    cox_buf_fini(&headers);
}

/* Probes and the description of the interface answer at any time; the rest only while serving. */
static bool refuse_by_state(struct conn *c, const struct route *r)
{
    int state = atomic_load(&c->edge->state);

    if (state == EDGE_SERVING || r->kind == ROUTE_LIVENESS || r->kind == ROUTE_OPENAPI)
        return false;
    answer_error(c, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                             .message = state == EDGE_STARTING
                                                            ? "the orchestrator is recovering its state"
                                                            : "the orchestrator is stopping",
                                             .reason = state == EDGE_STARTING ? "STARTING" : "DRAINING",
                                             .retry_delay_ms = DRAIN_RETRY_MS });
    return true;
}

static bool is_json(struct cox_slice type)
{
    const uint8_t *semicolon = type.len > 0 ? memchr(type.data, ';', type.len) : NULL;
    size_t len = semicolon ? (size_t)(semicolon - type.data) : type.len;

    while (len > 0 && type.data[len - 1] == ' ')
        len--;
    return edge_slice_is_nocase(cox_slice(type.data, len), "application/json");
}

void exchange_refuse_held(struct conn *c)
{
    answer_error(c, &call_too_much);
}

/* Bodies that are coming and answers that their readers have not taken. What is small is let in: those who
 * leave their answers lying are not to shut the door for others. */
static bool refuse_by_held(struct conn *c, const struct route *r)
{
    bool small = !c->head.chunked && c->head.body_len <= COX_HTTP_OUTBOX_LEN_MAX;

    if ((!r->service && r->kind != ROUTE_COMPLETE) || small ||
        atomic_load(&c->edge->held_len) <= COX_HTTP_HELD_LEN_MAX)
        return false;
    exchange_refuse_held(c);
    return true;
}

/* What is wrong with the body as its headers tell it; false when the request was answered. */
static bool accept_body(struct conn *c, const struct route *r)
{
    bool has_body = c->head.chunked || (c->head.has_length && c->head.body_len > 0);
    struct cox_slice encoding = edge_header(&c->head, "content-encoding");
    bool gzipped = edge_slice_is_nocase(encoding, "gzip") || edge_slice_is_nocase(encoding, "x-gzip");

    if (!has_body)
        return true;
    if (!route_has_body(r)) {
        answer_refusal(c, 400, "UNEXPECTED_BODY", NULL, "this request takes no body");
    } else if (encoding.data && !edge_slice_is_nocase(encoding, "identity") &&
               (!gzipped || r->kind == ROUTE_UPLOAD)) {
        answer_refusal(c, 415, "UNSUPPORTED_ENCODING", "Accept-Encoding: gzip\r\n",
                       r->kind == ROUTE_UPLOAD ? "blobs are taken as they are, without a content coding"
                                               : "the only content coding taken is gzip");
    } else if (r->kind != ROUTE_UPLOAD && !is_json(edge_header(&c->head, "content-type"))) {
        answer_refusal(c, 415, "UNSUPPORTED_MEDIA_TYPE", NULL,
                       "expected a body of Content-Type: application/json");
    } else {
        c->body_max = COX_HTTP_BODY_LEN_MAX;
        return true;
    }
    return false;
}

static bool guarded(struct conn *c)
{
    const char *why = guard_host(c->edge, &c->head);

    if (why) {
        answer_refusal(c, 403, "HOST_NOT_ALLOWED", NULL, why);
        return true;
    }
    why = guard_origin(c->edge, &c->head);
    if (why)
        answer_refusal(c, 403, "ORIGIN_NOT_ALLOWED", NULL, why);
    return why != NULL;
}

static bool is_model(const struct route *r)
{
    return r->kind == ROUTE_COMPLETE || r->kind == ROUTE_MODELS || r->kind == ROUTE_MODEL;
}

/* Strangers are told by the head: nothing of theirs is read, inflated or parsed. What a call may is judged
 * where the call arrives; the two that are none, here. */
static bool refuse_stranger(struct conn *c, const struct route *r)
{
    struct cox_edge *e = c->edge;
    bool open = r->kind == ROUTE_LIVENESS || r->kind == ROUTE_READINESS;

    snprintf(c->exchange->tenant, sizeof(c->exchange->tenant), "default");
    if (open || !e->config.refuses)
        return false;
    struct cox_tls_certificate *certificate = conn_certificate(c);
    const struct cox_rpc_error *why;

    if (is_model(r))
        why = e->config.admits(e->config.user, edge_header(&c->head, "authorization"), certificate,
                               edge_header(&c->head, "cox-tenant"), MODELS,
                               r->kind != ROUTE_COMPLETE                   ? "ListModels"
                               : edge_header(&c->head, "cox-attempt").data ? "CompleteForAttempt"
                                                                           : "Complete",
                               c->exchange->tenant);
    else
        why = e->config.refuses(e->config.user, edge_header(&c->head, "authorization"), certificate,
                                r->kind == ROUTE_METRICS ? "coxswain.v1.StatsService" : NULL, "GetMetrics");

    cox_free(certificate);
    if (why)
        answer_error(c, why);
    return why;
}

void exchange_on_head(struct conn *c)
{
    struct exchange *x = COX_NEW(struct exchange);
    struct cox_slice query, path = path_of(c->head.target, &query);
    struct cox_buf allowed = { 0 };

    x->conn = c;
    c->exchange = x;
    x->head_only = c->no_body;
    if (guarded(c))
        goto out;
    x->route = route_find(c->head.method, path, &x->path_memory, x->path_params, &x->n_path_params, &allowed);
    if (!x->route) {
        answer_no_route(c, &allowed);
        goto out;
    }
    guard_put_cors(c->edge, &c->head, &x->headers);
    x->n_query = edge_parse_query(query, &x->query_memory, x->query);
    if (x->n_query == SIZE_MAX) {
        answer_refusal(c, 400, "MALFORMED_QUERY", NULL,
                       "the query is malformed, or has more than 128 parameters");
        goto out;
    }
    if (refuse_by_state(c, x->route) || refuse_stranger(c, x->route) || refuse_by_held(c, x->route) ||
        !accept_body(c, x->route))
        goto out;
    if (x->route->kind == ROUTE_UPLOAD)
        upload_start(x);
out:
    cox_buf_fini(&allowed);
}

/* ---- calls ---- */

static const char *const passed[] = { "authorization", "cox-tenant" };

void exchange_call(struct exchange *x, struct cox_slice packed, const struct call_events *events)
{
    struct conn *c = x->conn;
    struct cox_rpc_metadata metadata[EDGE_HEADERS_MAX];
    size_t n = 0;
    char path[128];

    /* As often as they came: more than once is refused where they are read. */
    for (size_t i = 0; i < c->head.n_headers; i++)
        for (size_t k = 0; k < sizeof(passed) / sizeof(passed[0]); k++)
            if (edge_slice_is_nocase(c->head.headers[i].name, passed[k]))
                metadata[n++] =
                    (struct cox_rpc_metadata){ passed[k],
                                               cox_strndup((const char *)c->head.headers[i].value.data,
                                                           c->head.headers[i].value.len) };
    snprintf(path, sizeof(path), "/%s/%s", x->route->service->name, x->route->method);
    x->call = call_start(c->edge, path, metadata, n, c->peer, conn_certificate(c), events, x);
    while (n > 0)
        cox_free((char *)(uintptr_t)metadata[--n].value);
    if (packed.data)
        call_send(x->call, packed);
}

static void on_message(void *user, struct cox_slice packed)
{
    struct exchange *x = user;

    cox_buf_clear(&x->message);
    cox_buf_append_slice(&x->message, packed);
    x->has_message = true;
}

static void put_field(struct cox_buf *out, const ProtobufCMessage *message, const char *name)
{
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
    const ProtobufCBinaryData *bytes = (const void *)((const char *)message + f->offset);

    if (bytes->len > 0)
        cox_buf_append(out, bytes->data, bytes->len);
    else
        cox_buf_append_str(out, "null");
}

void exchange_answer_message(struct exchange *x, struct cox_slice packed)
{
    ProtobufCMessage *m =
        protobuf_c_message_unpack(route_output(x->route), &cox_wire_allocator, packed.len, packed.data);
    struct cox_buf json = { 0 };

    COX_ASSERT(m); /* our own service packed it */
    if (x->route->result)
        put_field(&json, m, x->route->result);
    else
        cox_wire_put_json(&json, m);
    protobuf_c_message_free_unpacked(m, NULL);
    cox_put_u8(&json, '\n');
    conn_answer(x->conn, &(struct answer){ .status = 200,
                                           .type = "application/json",
                                           .headers = cox_buf_cstr(&x->headers),
                                           .body = cox_buf_slice(&json) });
    cox_buf_fini(&json);
}

static void on_closed(void *user, const struct cox_rpc_error *status)
{
    struct exchange *x = user;

    x->call = NULL;
    if (status->status != COX_RPC_OK)
        answer_error(x->conn, status);
    else if (x->has_message)
        exchange_answer_message(x, cox_buf_slice(&x->message));
    else
        answer_refusal(x->conn, 500, "NO_ANSWER", NULL, "the service gave no answer");
}

static const struct call_events unary_events = { on_message, NULL, on_closed };

/* ---- what is asked of the engine's thread without a service ---- */

static void ask_metrics(struct cox_edge *e, struct cox_slice question, struct cox_buf *out, bool *ret_ok)
{
    (void)question;
    *ret_ok = true;
    if (e->config.metrics)
        e->config.metrics(e->config.user, out);
}

static void ask_ready(struct cox_edge *e, struct cox_slice question, struct cox_buf *out, bool *ret_ok)
{
    (void)question;
    *ret_ok = !e->config.ready || e->config.ready(e->config.user, out);
    if (*ret_ok)
        cox_buf_append_str(out, "ok\n");
}

static void on_told(void *user, const struct cox_rpc_error *status)
{
    struct exchange *x = user;
    bool metrics = x->route->kind == ROUTE_METRICS;

    x->call = NULL;
    if (status->status != COX_RPC_OK) {
        answer_error(x->conn, status);
        return;
    }
    conn_answer(x->conn, &(struct answer){ .status = 200,
                                           .type = metrics ? "text/plain; version=0.0.4; charset=utf-8"
                                                           : "text/plain; charset=utf-8",
                                           .headers = cox_buf_cstr(&x->headers),
                                           .body = cox_buf_slice(&x->message) });
}

static const struct call_events ask_events = { on_message, NULL, on_told };

static void answer_openapi(struct exchange *x)
{
    struct cox_edge *e = x->conn->edge;

    if (e->openapi.len == 0)
        openapi_put(&e->openapi, e->config.version);
    conn_answer(x->conn, &(struct answer){ .status = 200,
                                           .type = "application/json",
                                           .headers = cox_buf_cstr(&x->headers),
                                           .body = cox_buf_slice(&e->openapi) });
}

static void answer_alive(struct exchange *x)
{
    conn_answer(x->conn, &(struct answer){ .status = 200,
                                           .type = "text/plain; charset=utf-8",
                                           .headers = cox_buf_cstr(&x->headers),
                                           .body = cox_slice_str("ok\n") });
}

/* ---- the request is whole ---- */

static void answer_violation(struct exchange *x, struct map_error *error)
{
    struct cox_buf message = { 0 };
    const struct cox_rpc_violation violation = { cox_buf_cstr(&error->field),
                                                 cox_buf_cstr(&error->description) };

    cox_buf_printf(&message, "%s%s%s", violation.field, error->field.len > 0 ? ": " : "",
                   violation.description);
    answer_error(x->conn, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                                   .message = cox_buf_cstr(&message),
                                                   .reason = "MALFORMED_REQUEST",
                                                   .violations = &violation,
                                                   .n_violations = 1 });
    cox_buf_fini(&message);
}

/* An EventSource comes back to the address that it began with, and says in a header how far it got since. */
static void drop_after_seq(struct exchange *x)
{
    size_t n = 0;

    for (size_t i = 0; i < x->n_query; i++)
        if (!cox_slice_is(x->query[i].name, "after_seq"))
            x->query[n++] = x->query[i];
    x->n_query = n;
}

/* What the route sets and what the path says. */
static size_t fixed_params(struct exchange *x, struct edge_param ret[ROUTE_PARAMS_MAX + 2])
{
    size_t n = x->n_path_params;
    const char *equals = x->route->fixed ? strchr(x->route->fixed, '=') : NULL;
    struct cox_slice last_id = edge_header(&x->conn->head, "last-event-id");

    memcpy(ret, x->path_params, n * sizeof(*ret));
    if (equals)
        ret[n++] = (struct edge_param){ cox_slice(x->route->fixed, (size_t)(equals - x->route->fixed)),
                                        cox_slice_str(equals + 1) };
    if (last_id.len > 0 && x->route->kind == ROUTE_EVENTS &&
        protobuf_c_message_descriptor_get_field_by_name(route_input(x->route), "after_seq")) {
        ret[n++] = (struct edge_param){ cox_slice_str("after_seq"), last_id };
        drop_after_seq(x);
    }
    return n;
}

static bool map(struct exchange *x, struct cox_slice body, struct cox_buf *packed)
{
    struct edge_param fixed[ROUTE_PARAMS_MAX + 2];
    struct map_error error = { { 0 }, { 0 } };
    size_t n_fixed = fixed_params(x, fixed);
    const struct map_input in = {
        .type = route_input(x->route),
        .fixed = fixed,
        .n_fixed = n_fixed,
        .query = x->query,
        .n_query = x->n_query,
        .body = body,
        .key = edge_header(&x->conn->head, "idempotency-key"),
    };
    enum cox_err err = map_request(&in, packed, &error);

    if (err)
        answer_violation(x, &error);
    map_error_fini(&error);
    return !err;
}

bool exchange_inflate_body(struct conn *c, struct cox_buf *inflated)
{
    struct cox_slice encoding = edge_header(&c->head, "content-encoding");
    enum cox_err err;

    if (!encoding.data || edge_slice_is_nocase(encoding, "identity") || c->body.len == 0) {
        cox_buf_append_slice(inflated, cox_buf_slice(&c->body));
        return true;
    }
    err = gzip_unpack(cox_buf_slice(&c->body), c->body_max, inflated);
    if (err == COX_ERR_FULL)
        answer_refusal(c, 413, "BODY_TOO_LARGE", NULL, "the body is longer than 16 MiB once inflated");
    else if (err)
        answer_refusal(c, 400, "MALFORMED_BODY", NULL, "the body is not gzip, as Content-Encoding says");
    return !err;
}

/* Events after the last one: an EventSource that comes back is told to stay away. */
static bool is_over(struct exchange *x)
{
    if (x->route->kind != ROUTE_EVENTS || !cox_slice_is(edge_header(&x->conn->head, "last-event-id"), "end"))
        return false;
    conn_answer(x->conn,
                &(struct answer){ .status = 204, .headers = cox_buf_cstr(&x->headers), .plain = true });
    return true;
}

static void start_service(struct exchange *x)
{
    struct cox_buf packed = { 0 }, body = { 0 };

    if (is_over(x) || !exchange_inflate_body(x->conn, &body) || !map(x, cox_buf_slice(&body), &packed))
        goto out;
    cox_buf_cstr(&packed); /* an empty message is one too */
    bool unary = x->route->kind == ROUTE_UNARY;

    exchange_call(x, cox_buf_slice(&packed), unary ? &unary_events : &stream_events);
    call_half_close(x->call);
    if (!unary)
        stream_start(x);
out:
    cox_buf_fini(&packed);
    cox_buf_fini(&body);
}

void exchange_on_body(struct conn *c)
{
    struct exchange *x = c->exchange;

    switch (x->route->kind) {
    case ROUTE_UNARY:
    case ROUTE_EVENTS:
    case ROUTE_LOGS:
    case ROUTE_BLOB:
        start_service(x);
        break;
    case ROUTE_UPLOAD:
        upload_end(x);
        break;
    case ROUTE_LIVENESS:
        answer_alive(x);
        break;
    case ROUTE_READINESS:
        x->call = call_start_ask(c->edge, ask_ready, cox_slice(NULL, 0), &ask_events, x);
        break;
    case ROUTE_METRICS:
        x->call = call_start_ask(c->edge, ask_metrics, cox_slice(NULL, 0), &ask_events, x);
        break;
    case ROUTE_OPENAPI:
        answer_openapi(x);
        break;
    case ROUTE_COMPLETE:
        openai_start(x);
        break;
    case ROUTE_MODELS:
        openai_list_models(x);
        break;
    case ROUTE_MODEL:
        openai_get_model(x);
        break;
    }
}

void exchange_on_piece(struct conn *c, struct cox_slice piece)
{
    upload_piece(c->exchange, piece);
}

void exchange_on_drained(struct conn *c)
{
    if (c->exchange->openai)
        openai_on_drained(c->exchange);
    else if (c->exchange->route && c->exchange->begun)
        stream_on_drained(c->exchange);
}

void exchange_on_time(struct conn *c)
{
    if (c->exchange)
        stream_on_time(c->exchange);
}
