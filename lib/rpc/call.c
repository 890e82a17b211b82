/* One call of either side. The peer's pace rules both directions: a message leaves when flow control takes
 * the one before, and the next is read when the handler has returned. */
#include "rpc_internal.h"

#include "cox/base/alloc.h"

#include <string.h>

static void on_send(void *owner, bool ok);
static void on_recv(void *owner, bool ok);

struct cox_rpc_call *rpc_call_create(struct cox_rpc_loop *loop, grpc_call *grpc)
{
    struct cox_rpc_call *call = COX_NEW(struct cox_rpc_call);

    call->call = grpc;
    call->loop = loop;
    call->on_send = (struct rpc_tag){ on_send, call };
    call->on_recv = (struct rpc_tag){ on_recv, call };
    call->message = grpc_empty_slice();
    call->deadline_ns = COX_RPC_FOREVER;
    grpc_metadata_array_init(&call->metadata);
    grpc_metadata_array_init(&call->trailing);
    cox_list_init(&call->node);
    loop->n_calls++;
    return call;
}

void rpc_call_destroy(struct cox_rpc_call *call)
{
    cox_list_remove(&call->node);
    call->loop->n_calls--;
    grpc_metadata_array_destroy(&call->metadata);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_slice_unref(call->message);
    if (call->n_details > 0)
        grpc_slice_unref(call->details.value);
    if (call->call)
        grpc_call_unref(call->call);
    for (size_t i = 0; i < call->n_own_metadata; i++) {
        grpc_slice_unref(call->own_metadata[i].key);
        grpc_slice_unref(call->own_metadata[i].value);
    }
    cox_free(call->own_metadata);
    cox_free(call->peer);
    cox_free(call->certificate);
    cox_rpc_error_free(call->cut);
    cox_free(call);
}

enum cox_err rpc_call_start(struct cox_rpc_call *call, const grpc_op *ops, size_t n_ops, struct rpc_tag *tag)
{
    if (grpc_call_start_batch(call->call, ops, n_ops, tag, NULL) != GRPC_CALL_OK)
        return COX_ERR_INVALID;
    call->n_batches++;
    return COX_OK;
}

/* ---- the end ---- */

struct cox_rpc_error rpc_call_closing_status(struct cox_rpc_call *call)
{
    if (call->cut)
        return *call->cut;
    if (!call->server)
        return rpc_error_parse(call->status, &call->message,
                               rpc_metadata_find(&call->trailing, RPC_DETAILS_KEY), &call->loop->arena);
    if (call->cancelled)
        return (struct cox_rpc_error){ .status = COX_RPC_CANCELLED, .message = "the peer is gone" };
    return (struct cox_rpc_error){ .status = COX_RPC_OK };
}

void rpc_call_batch_done(struct cox_rpc_call *call)
{
    struct cox_rpc_server *server = call->server;
    struct cox_rpc_channel *channel = call->channel;
    void *caller = call->caller;

    if (--call->n_batches > 0 || !call->closed)
        return;
    struct cox_rpc_error status = rpc_call_closing_status(call);

    call->dead = true;
    if (call->on_response)
        rpc_client_deliver(call, &status);
    else if (call->handlers->on_closed)
        call->handlers->on_closed(call, &status, call->handlers_user);
    if (call->received)
        grpc_byte_buffer_destroy(call->received);
    rpc_call_destroy(call);
    if (server)
        rpc_server_call_gone(server, caller);
    else
        rpc_channel_unref(channel);
}

/* ---- sending ---- */

/* It has left the outbox's front or its list. */
static void out_destroy(struct cox_rpc_call *call, struct rpc_out *out)
{
    call->outbox_len -= out->len;
    if (call->server)
        rpc_server_holds(call->server, -(ptrdiff_t)out->len);
    grpc_byte_buffer_destroy(out->bytes);
    cox_free(out);
}

static void drop_outbox(struct cox_rpc_call *call)
{
    while (call->out_head) {
        struct rpc_out *out = call->out_head;
        call->out_head = out->next;
        out_destroy(call, out);
    }
    call->out_tail = NULL;
}

static struct rpc_out *out_pop(struct cox_rpc_call *call)
{
    struct rpc_out *out = call->out_head;

    if (out) {
        call->out_head = out->next;
        if (!call->out_head)
            call->out_tail = NULL;
    }
    return out;
}

static size_t add_initial_metadata(struct cox_rpc_call *call, grpc_op *op)
{
    op->op = GRPC_OP_SEND_INITIAL_METADATA;
    op->flags = call->md_flags;
    if (call->channel)
        rpc_channel_metadata(call, op);
    call->md_sent = true;
    return 1;
}

static size_t add_end(struct cox_rpc_call *call, grpc_op *op)
{
    call->send_done = true;
    if (!call->server) {
        op->op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
        return 1;
    }
    op->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    op->data.send_status_from_server.status = call->status;
    op->data.send_status_from_server.status_details = &call->message;
    op->data.send_status_from_server.trailing_metadata = &call->details;
    op->data.send_status_from_server.trailing_metadata_count = call->n_details;
    return 1;
}

void rpc_call_pump(struct cox_rpc_call *call)
{
    grpc_op ops[3] = { 0 };
    size_t n = 0;

    if (call->sending || call->dead || call->send_done || call->local)
        return;
    struct rpc_out *out = out_pop(call);
    bool last = call->closing && !call->out_head;

    if (!call->md_sent && (call->md_wanted || out || last))
        n += add_initial_metadata(call, &ops[n]);
    if (out) {
        ops[n].op = GRPC_OP_SEND_MESSAGE;
        ops[n++].data.send_message.send_message = out->bytes;
    }
    if (last)
        n += add_end(call, &ops[n]);
    if (n == 0)
        return;
    call->in_flight = out;
    call->sending = true;
    if (rpc_call_start(call, ops, n, &call->on_send) == COX_OK)
        return;
    /* Only metadata can be refused: a token, say, with a byte that no header may hold. */
    call->sending = false;
    call->in_flight = NULL;
    if (out)
        out_destroy(call, out);
    cox_rpc_cancel(call, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                                  .message = "metadata that no header may carry" });
}

static void on_send(void *owner, bool ok)
{
    struct cox_rpc_call *call = owner;
    struct rpc_out *out = call->in_flight;

    call->sending = false;
    call->in_flight = NULL;
    if (out)
        out_destroy(call, out);
    if (!ok) {
        call->dead = true;
        drop_outbox(call);
    }
    rpc_call_pump(call);
    if (out && call->outbox_len == 0 && !call->dead && !call->closing && call->handlers->on_drained)
        call->handlers->on_drained(call, call->handlers_user);
    rpc_call_batch_done(call);
}

enum cox_err rpc_call_queue(struct cox_rpc_call *call, const ProtobufCMessage *message)
{
    size_t len;

    if (call->dead || call->closing)
        return COX_ERR_CANCELLED;
    if (call->local)
        return rpc_local_queue(call, message);
    if (call->outbox_len >= call->outbox_len_max)
        return COX_ERR_FULL;
    grpc_byte_buffer *bytes = rpc_pack(message, &len);

    if (!bytes)
        return COX_ERR_FULL;
    if (call->outbox_len > 0 && len > call->outbox_len_max - call->outbox_len) {
        grpc_byte_buffer_destroy(bytes);
        return COX_ERR_FULL;
    }
    struct rpc_out *out = COX_NEW(struct rpc_out);

    out->bytes = bytes;
    out->len = len;
    if (call->out_tail)
        call->out_tail->next = out;
    else
        call->out_head = out;
    call->out_tail = out;
    call->outbox_len += len;
    if (call->server)
        rpc_server_holds(call->server, (ptrdiff_t)len);
    return COX_OK;
}

enum cox_err cox_rpc_send(struct cox_rpc_call *call, const ProtobufCMessage *message)
{
    enum cox_err err = rpc_call_queue(call, message);

    if (err == COX_OK)
        rpc_call_pump(call);
    return err;
}

size_t cox_rpc_outbox_len(const struct cox_rpc_call *call)
{
    return call->outbox_len;
}

void cox_rpc_half_close(struct cox_rpc_call *call)
{
    COX_ASSERT(!call->server);
    if (call->closing || call->dead)
        return;
    call->closing = true;
    rpc_call_pump(call);
}

/* ---- receiving ---- */

void rpc_call_read(struct cox_rpc_call *call)
{
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->received };

    if (call->local) {
        rpc_local_ready(call);
        return;
    }
    if (call->reading || call->read_end || call->paused || call->closed || call->cut)
        return;
    if (call->server && (call->closing || rpc_server_paused(call->server)))
        return;
    call->reading = true;
    enum cox_err err = rpc_call_start(call, &op, 1, &call->on_recv);

    COX_ASSERT(err == COX_OK);
}

static void refuse_message(struct cox_rpc_call *call, enum cox_err err)
{
    struct cox_rpc_error error = { .status = COX_RPC_INVALID_ARGUMENT, .reason = "MALFORMED_MESSAGE" };
    const char *format = "the message is not a well-formed %s";
    struct cox_buf text = { 0 };

    if (!call->server)
        error.status = COX_RPC_INTERNAL;
    if (err == COX_ERR_FULL) {
        error = (struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED, .reason = "MESSAGE_TOO_LARGE" };
        format = "the %s is too large once decoded";
    }
    cox_buf_printf(&text, format, call->in->name);
    error.message = cox_buf_cstr(&text);
    if (call->server)
        cox_rpc_fail(call, &error);
    else
        cox_rpc_cancel(call, &error);
    cox_buf_fini(&text);
}

void rpc_call_deliver(struct cox_rpc_call *call, enum cox_err err, const ProtobufCMessage *message)
{
    call->had_message = true;
    if (call->one_message && call->server)
        call->read_end = true;
    if (err != COX_OK)
        refuse_message(call, err);
    else if (call->handlers->on_message)
        call->handlers->on_message(call, message, call->handlers_user);
}

static void take_message(struct cox_rpc_call *call)
{
    ProtobufCMessage *message = NULL;
    bool wanted = !call->cut && !(call->server && call->closing);
    enum cox_err err = COX_OK;

    if (wanted)
        err = rpc_unpack_buffer(call->in, call->received, &call->loop->arena, &message);
    grpc_byte_buffer_destroy(call->received);
    call->received = NULL;
    if (wanted)
        rpc_call_deliver(call, err, message);
    else if (call->one_message && call->server)
        call->read_end = true;
}

void rpc_call_end_of_input(struct cox_rpc_call *call)
{
    call->read_end = true;
    if (call->one_message)
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                                    .message = "the call carried no request" });
    else if (call->handlers->on_half_close)
        call->handlers->on_half_close(call, call->handlers_user);
}

static void take_end(struct cox_rpc_call *call, bool ok)
{
    call->read_end = true;
    if (!ok || !call->server || call->closing || grpc_call_failed_before_recv_message(call->call))
        return;
    rpc_call_end_of_input(call);
}

static void on_recv(void *owner, bool ok)
{
    struct cox_rpc_call *call = owner;

    call->reading = false;
    if (ok && call->received)
        take_message(call);
    else
        take_end(call, ok);
    rpc_call_read(call);
    rpc_call_batch_done(call);
}

void cox_rpc_pause_reads(struct cox_rpc_call *call)
{
    call->paused = true;
}

void cox_rpc_resume_reads(struct cox_rpc_call *call)
{
    call->paused = false;
    rpc_call_read(call);
}

/* ---- the rest ---- */

void cox_rpc_cancel(struct cox_rpc_call *call, const struct cox_rpc_error *error)
{
    static const struct cox_rpc_error cancelled = { .status = COX_RPC_CANCELLED, .message = "cancelled" };

    if (call->closed || call->cut)
        return;
    call->cut = cox_rpc_error_copy(error ? error : &cancelled);
    drop_outbox(call);
    if (call->local) {
        rpc_local_answer(call, call->cut);
        return;
    }
    if (call->server && !call->sending && !call->closing) {
        rpc_server_answer(call, call->cut);
        return;
    }
    call->dead = true;
    grpc_call_cancel_with_status(call->call, (grpc_status_code)call->cut->status,
                                 call->cut->message ? call->cut->message : "", NULL);
}

void *cox_rpc_call_user(const struct cox_rpc_call *call)
{
    return call->user;
}

void cox_rpc_call_set_user(struct cox_rpc_call *call, void *user)
{
    call->user = user;
}

const char *cox_rpc_call_peer(struct cox_rpc_call *call)
{
    if (call->local)
        return rpc_local_peer(call);
    if (!call->peer) {
        char *name = grpc_call_get_peer(call->call);
        call->peer = call->server ? rpc_server_peer(call->server, name) : cox_strdup(name ? name : "");
        gpr_free(name);
    }
    return call->peer;
}

bool cox_rpc_call_inside(const struct cox_rpc_call *call)
{
    return call->local && strcmp(rpc_local_peer(call), COX_RPC_PEER_INSIDE) == 0;
}

int64_t cox_rpc_call_deadline_ns(const struct cox_rpc_call *call)
{
    return call->deadline_ns;
}
