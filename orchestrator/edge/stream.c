/* Answers that come in pieces, and bodies that go in pieces.
 *
 * What a reader has not taken stays a debt of the call: its messages count as taken when the socket has taken
 * what they were turned into. So the service's own bound on its outbox is what a slow reader meets. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/wire.h"

#include "coxswain/v1/blob_service.pb-c.h"
#include "coxswain/v1/stats_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HELLO_MS 200 /* what may wait for ever is begun by then, if it was not refused */
#define HEARTBEAT_MS 15000

/* ---- events ---- */

static void put_event(struct conn *c, const char *id, const char *event, struct cox_slice data)
{
    struct cox_buf text = { 0 };

    if (id)
        cox_buf_printf(&text, "id: %s\n", id);
    cox_buf_printf(&text, "event: %s\ndata: ", event);
    cox_buf_append_slice(&text, data);
    cox_buf_append_str(&text, "\n\n");
    conn_write(c, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

static void put_message(struct conn *c, const char *id, const char *event, const ProtobufCMessage *m)
{
    struct cox_buf json = { 0 };

    cox_wire_put_json(&json, m);
    put_event(c, id, event, cox_buf_slice(&json));
    cox_buf_fini(&json);
}

/* A message may tell of a step and of the task: two events, and only the last moves the resume point. */
static void put_watch(struct conn *c, Coxswain__V1__WatchTaskResponse *m)
{
    Coxswain__V1__Task *task = m->task;
    Coxswain__V1__Step *step = m->step;
    char id[24];

    if (m->token) {
        put_message(c, NULL, "token", &m->token->base);
        return;
    }
    snprintf(id, sizeof(id), "%" PRIu64, m->seq);
    m->task = NULL;
    if (step)
        put_message(c, task ? NULL : id, "step", &m->base);
    m->task = task;
    m->step = NULL;
    if (task)
        put_message(c, id, "task", &m->base);
    m->step = step;
}

static void put_as_event(struct conn *c, ProtobufCMessage *m)
{
    if (m->descriptor == &coxswain__v1__watch_task_response__descriptor)
        put_watch(c, (Coxswain__V1__WatchTaskResponse *)m);
    else if (m->descriptor == &coxswain__v1__get_logs_response__descriptor)
        put_message(c, NULL, "log", m);
    else
        put_message(c, NULL, "stats", m);
}

static void put_as_bytes(struct conn *c, const ProtobufCMessage *m)
{
    const ProtobufCBinaryData *data = m->descriptor == &coxswain__v1__get_logs_response__descriptor
                                          ? &((const Coxswain__V1__GetLogsResponse *)m)->data
                                          : &((const Coxswain__V1__GetBlobResponse *)m)->data;

    conn_write(c, cox_slice(data->data, data->len));
}

/* ---- the answer ---- */

static void begin(struct exchange *x)
{
    const char *type = x->events                      ? "text/event-stream"
                       : x->route->kind == ROUTE_LOGS ? "text/plain; charset=utf-8"
                                                      : "application/octet-stream";

    x->begun = true;
    conn_begin(
        x->conn,
        &(struct answer){ .status = 200, .type = type, .headers = cox_buf_cstr(&x->headers), .plain = true });
    conn_timer(x->conn, x->events ? HEARTBEAT_MS : 0);
}

void stream_on_drained(struct exchange *x)
{
    if (x->untaken_len == 0 || !x->call)
        return;
    call_taken(x->call, x->untaken_len);
    x->untaken_len = 0;
}

static void on_message(void *user, struct cox_slice packed)
{
    struct exchange *x = user;
    struct conn *c = x->conn;

    if (!x->begun)
        begin(x);
    if (x->head_only) {
        conn_end(c);
        return;
    }
    ProtobufCMessage *m =
        protobuf_c_message_unpack(route_output(x->route), &cox_wire_allocator, packed.len, packed.data);

    COX_ASSERT(m); /* our own service packed it */
    x->untaken_len += packed.len;
    if (x->events)
        put_as_event(c, m);
    else
        put_as_bytes(c, m);
    protobuf_c_message_free_unpacked(m, NULL);
    if (conn_unsent_len(c) == 0)
        stream_on_drained(x);
}

static void end_events(struct exchange *x, const struct cox_rpc_error *status)
{
    struct cox_buf text = { 0 };

    if (status->status == COX_RPC_OK) {
        put_event(x->conn, "end", "end", cox_slice_str("{}"));
    } else {
        if (status->retry_delay_ms > 0)
            cox_buf_printf(&text, "retry: %" PRId64 "\n\n", status->retry_delay_ms);
        conn_write(x->conn, cox_buf_slice(&text));
        cox_buf_clear(&text);
        answer_put_error(&text, answer_http_status(status->status), status);
        put_event(x->conn, NULL, "error", cox_buf_slice(&text));
    }
    cox_buf_fini(&text);
    conn_end(x->conn);
}

static void on_closed(void *user, const struct cox_rpc_error *status)
{
    struct exchange *x = user;

    x->call = NULL;
    if (status->status != COX_RPC_OK && !x->begun) {
        answer_error(x->conn, status);
        return;
    }
    if (!x->begun)
        begin(x);
    if (x->events)
        end_events(x, status);
    else if (status->status == COX_RPC_OK)
        conn_end(x->conn);
    else
        conn_cut(x->conn);
}

const struct call_events stream_events = { on_message, NULL, on_closed };

static bool follows(const struct exchange *x)
{
    for (size_t i = 0; i < x->n_query; i++)
        if (cox_slice_is(x->query[i].name, "follow"))
            return !cox_slice_is(x->query[i].value, "false") && !cox_slice_is(x->query[i].value, "0");
    return false;
}

void stream_start(struct exchange *x)
{
    struct cox_slice accept = edge_header(&x->conn->head, "accept");

    x->events = x->route->kind == ROUTE_EVENTS ||
                (x->route->kind == ROUTE_LOGS && edge_header_has(accept, "text/event-stream"));
    /* What ends by itself says something or is refused: late is no reason to call it found. */
    conn_timer(x->conn, x->events || follows(x) ? HELLO_MS : 0);
}

void stream_on_time(struct exchange *x)
{
    if (!x->begun)
        begin(x);
    else if (x->events && conn_unsent_len(x->conn) == 0)
        conn_write(x->conn, cox_slice_str(": still here\n\n"));
    if (x->head_only)
        conn_end(x->conn);
    else if (x->events)
        conn_timer(x->conn, HEARTBEAT_MS);
}

/* ---- uploads ---- */

static void on_put_message(void *user, struct cox_slice packed)
{
    struct exchange *x = user;

    cox_buf_append_slice(&x->message, packed);
    x->has_message = true;
}

static void on_put_read(void *user, size_t len)
{
    struct exchange *x = user;

    x->unread_len -= len;
    if (x->unread_len <= COX_HTTP_BLOB_WINDOW_LEN / 2)
        conn_pause_body(x->conn, false);
}

static void on_put_closed(void *user, const struct cox_rpc_error *status)
{
    struct exchange *x = user;

    x->call = NULL;
    if (status->status == COX_RPC_OK && x->has_message)
        exchange_answer_message(x, cox_buf_slice(&x->message));
    else
        answer_error(x->conn, status);
}

const struct call_events upload_events = { on_put_message, on_put_read, on_put_closed };

void upload_start(struct exchange *x)
{
    struct conn *c = x->conn;

    if (c->head.chunked) {
        answer_refusal(c, 411, "LENGTH_REQUIRED", NULL, "a blob's length must be said first: Content-Length");
        return;
    }
    if (c->head.body_len > COX_BLOB_LEN_MAX) {
        answer_refusal(c, 413, "BODY_TOO_LARGE", NULL, "a blob has at most 1 GiB");
        return;
    }
    c->streaming_body = true;
    x->upload_len = c->head.body_len;
    exchange_call(x, cox_slice(NULL, 0), &upload_events);
}

void upload_piece(struct exchange *x, struct cox_slice piece)
{
    Coxswain__V1__PutBlobRequest m = COXSWAIN__V1__PUT_BLOB_REQUEST__INIT;
    char *hash = NULL;
    struct cox_buf packed = { 0 };

    if (x->uploaded_len == 0) {
        hash = cox_strndup((const char *)x->path_params[0].value.data, x->path_params[0].value.len);
        m.hash = hash;
        m.size = x->upload_len;
    }
    m.data = (ProtobufCBinaryData){ piece.len, (uint8_t *)(uintptr_t)piece.data }; /* only read */
    coxswain__v1__put_blob_request__pack(
        &m, cox_buf_extend(&packed, coxswain__v1__put_blob_request__get_packed_size(&m)));
    x->uploaded_len += piece.len;
    x->unread_len += packed.len;
    call_send(x->call, cox_buf_slice(&packed));
    if (x->unread_len > COX_HTTP_BLOB_WINDOW_LEN)
        conn_pause_body(x->conn, true);
    cox_buf_fini(&packed);
    cox_free(hash);
}

void upload_end(struct exchange *x)
{
    if (x->uploaded_len == 0)
        upload_piece(x, cox_slice(NULL, 0)); /* an empty blob has a name too */
    call_half_close(x->call);
}
