/* Calls without a wire: a service's handlers, called by the same process. Everything towards the service
 * waits in the loop's list of ready calls and is delivered by run_once, one event a time, as a wire's events
 * are; what the service says goes to the caller at once, packed. */
#include "rpc_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <string.h>

#define DRAINING_RETRY_MS 1000

struct rpc_in {
    struct cox_list node;
    size_t len;
    uint8_t data[];
};

struct rpc_local {
    struct cox_rpc_call *call;
    const struct cox_rpc_local_callbacks *callbacks;
    void *user;
    char *path;
    char *peer;
    struct cox_rpc_metadata *metadata;
    size_t n_metadata;
    struct cox_list ready; /* in the loop's, when there may be something to deliver */
    struct cox_heap_node deadline;
    struct cox_list in; /* struct rpc_in, not yet delivered */
    bool opened;
    bool half_closed;
    bool drained;                 /* on_drained is due */
    struct cox_rpc_error *status; /* of the end, once `closing` */
};

void rpc_local_ready(struct cox_rpc_call *call)
{
    if (cox_list_empty(&call->local->ready))
        cox_list_push_back(&call->loop->local_ready, &call->local->ready);
}

/* ---- towards the caller ---- */

enum cox_err rpc_local_queue(struct cox_rpc_call *call, const ProtobufCMessage *message)
{
    struct cox_buf *packed = &call->loop->local_packed;
    size_t len = protobuf_c_message_get_packed_size(message);

    if (len > COX_MESSAGE_LEN_MAX || call->outbox_len >= call->outbox_len_max ||
        (call->outbox_len > 0 && len > call->outbox_len_max - call->outbox_len))
        return COX_ERR_FULL;
    cox_buf_clear(packed);
    protobuf_c_message_pack(message, cox_buf_extend(packed, len));
    call->outbox_len += len;
    call->local->callbacks->on_message(call->local->user, cox_buf_slice(packed));
    return COX_OK;
}

void rpc_local_answer(struct cox_rpc_call *call, const struct cox_rpc_error *error)
{
    cox_rpc_error_free(call->local->status);
    call->local->status = cox_rpc_error_copy(error);
    call->closing = true;
    rpc_local_ready(call);
}

void rpc_local_abort(struct cox_rpc_call *call, const struct cox_rpc_error *error)
{
    if (call->closing)
        return;
    call->cancelled = 1;
    rpc_local_answer(call, error);
}

static void local_destroy(struct rpc_local *l)
{
    COX_LIST_FOR_EACH (it, &l->in) {
        cox_list_remove(it);
        cox_free(COX_CONTAINER_OF(it, struct rpc_in, node));
    }
    cox_list_remove(&l->ready);
    cox_heap_remove(&l->call->loop->local_deadlines, &l->deadline);
    for (size_t i = 0; i < l->n_metadata; i++) {
        cox_free((char *)(uintptr_t)l->metadata[i].key);
        cox_free((char *)(uintptr_t)l->metadata[i].value);
    }
    cox_free(l->metadata);
    cox_free(l->path);
    cox_free(l->peer);
    cox_rpc_error_free(l->status);
    cox_free(l);
}

static void close_call(struct cox_rpc_call *call)
{
    struct rpc_local *l = call->local;
    struct cox_rpc_server *server = call->server;
    struct cox_rpc_error seen = rpc_call_closing_status(call);
    void *caller = call->caller;

    call->closed = true;
    call->dead = true;
    l->callbacks->on_closed(l->user, l->status);
    if (call->handlers->on_closed)
        call->handlers->on_closed(call, &seen, call->handlers_user);
    local_destroy(l);
    rpc_call_destroy(call);
    rpc_server_call_gone(server, caller);
}

/* ---- towards the service ---- */

static void open_call(struct cox_rpc_call *call)
{
    struct rpc_local *l = call->local;

    l->opened = true;
    if (rpc_server_draining(call->server))
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                    .message = "the server is stopping",
                                                    .reason = "DRAINING",
                                                    .retry_delay_ms = DRAINING_RETRY_MS });
    else
        rpc_server_open(call, cox_slice_str(l->path));
}

static void deliver(struct cox_rpc_call *call)
{
    struct rpc_local *l = call->local;
    struct rpc_in *in = COX_CONTAINER_OF(l->in.next, struct rpc_in, node);
    size_t len = in->len;
    ProtobufCMessage *message = NULL;

    cox_list_remove(&in->node);
    if (!call->read_end) {
        enum cox_err err = rpc_unpack(call->in, cox_slice(in->data, len), &call->loop->arena, &message);
        rpc_call_deliver(call, err, message);
    }
    cox_free(in);
    if (l->callbacks->on_read)
        l->callbacks->on_read(l->user, len);
}

/* Delivers the next event of a call; false when there is none that may be delivered now. */
static bool step(struct cox_rpc_call *call)
{
    struct rpc_local *l = call->local;
    bool held = rpc_server_paused(call->server);

    if (call->closing) {
        close_call(call);
        return true;
    }
    if (!l->opened && !held) {
        open_call(call);
    } else if (l->opened && l->drained) {
        l->drained = false;
        if (call->handlers->on_drained)
            call->handlers->on_drained(call, call->handlers_user);
    } else if (!l->opened || held || call->paused) {
        return false;
    } else if (!cox_list_empty(&l->in)) {
        deliver(call);
    } else if (l->half_closed && !call->read_end) {
        rpc_call_end_of_input(call);
    } else {
        return false;
    }
    rpc_local_ready(call);
    return true;
}

static void expire(struct cox_rpc_loop *loop)
{
    const struct cox_heap_node *first = cox_heap_min(&loop->local_deadlines);

    if (!first)
        return;
    int64_t now_ns = cox_clock_mono_ns();

    for (; first && (int64_t)first->key <= now_ns; first = cox_heap_min(&loop->local_deadlines)) {
        struct rpc_local *l = COX_CONTAINER_OF(first, struct rpc_local, deadline);
        cox_heap_remove(&loop->local_deadlines, &l->deadline);
        rpc_local_abort(l->call, &(struct cox_rpc_error){ .status = COX_RPC_DEADLINE_EXCEEDED,
                                                          .message = "the call's time is up" });
    }
}

size_t rpc_local_run(struct cox_rpc_loop *loop, size_t events_max)
{
    size_t n = 0;

    expire(loop);
    while (n < events_max && !cox_list_empty(&loop->local_ready)) {
        struct rpc_local *l = COX_CONTAINER_OF(loop->local_ready.next, struct rpc_local, ready);
        cox_list_remove(&l->ready);
        n += step(l->call);
        cox_arena_reset(&loop->arena);
    }
    return n;
}

int64_t rpc_local_wake_ns(const struct cox_rpc_loop *loop)
{
    const struct cox_heap_node *first = cox_heap_min(&loop->local_deadlines);

    if (!cox_list_empty(&loop->local_ready))
        return 0;
    return first ? (int64_t)first->key : COX_RPC_FOREVER;
}

/* ---- the caller's side ---- */

struct cox_rpc_call *cox_rpc_local_start(struct cox_rpc_server *server,
                                         const struct cox_rpc_local_config *config)
{
    struct cox_rpc_call *call = rpc_server_accept_local(server);
    struct rpc_local *l = COX_NEW(struct rpc_local);

    l->call = call;
    l->callbacks = config->callbacks;
    l->user = config->user;
    l->path = cox_strdup(config->path);
    l->peer = cox_strdup(config->peer ? config->peer : "local");
    l->metadata = cox_calloc(config->n_metadata + 1, sizeof(*l->metadata));
    for (; l->n_metadata < config->n_metadata; l->n_metadata++) {
        l->metadata[l->n_metadata].key = cox_strdup(config->metadata[l->n_metadata].key);
        l->metadata[l->n_metadata].value = cox_strdup(config->metadata[l->n_metadata].value);
    }
    cox_list_init(&l->ready);
    cox_list_init(&l->in);
    cox_heap_node_init(&l->deadline);
    call->local = l;
    call->certificate = config->certificate ? cox_tls_certificate_copy(config->certificate) : NULL;
    call->deadline_ns = config->deadline_ns;
    if (config->outbox_len_max > 0)
        call->outbox_len_max = config->outbox_len_max;
    if (config->deadline_ns != COX_RPC_FOREVER)
        cox_heap_set(&call->loop->local_deadlines, &l->deadline,
                     config->deadline_ns < 0 ? 0 : (uint64_t)config->deadline_ns);
    rpc_local_ready(call);
    return call;
}

void cox_rpc_local_send(struct cox_rpc_call *call, struct cox_slice packed)
{
    if (call->closing)
        return;
    if (packed.len > COX_MESSAGE_LEN_MAX) {
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                    .message = "the message is too long",
                                                    .reason = "MESSAGE_TOO_LARGE" });
        return;
    }
    struct rpc_in *in = cox_alloc(sizeof(*in) + packed.len);

    in->len = packed.len;
    if (packed.len > 0)
        memcpy(in->data, packed.data, packed.len);
    cox_list_push_back(&call->local->in, &in->node);
    rpc_local_ready(call);
}

void cox_rpc_local_half_close(struct cox_rpc_call *call)
{
    call->local->half_closed = true;
    rpc_local_ready(call);
}

void cox_rpc_local_taken(struct cox_rpc_call *call, size_t len)
{
    COX_ASSERT(len <= call->outbox_len);
    call->outbox_len -= len;
    if (len == 0 || call->outbox_len > 0 || call->closing)
        return;
    call->local->drained = true;
    rpc_local_ready(call);
}

void cox_rpc_local_cancel(struct cox_rpc_call *call)
{
    rpc_local_abort(call,
                    &(struct cox_rpc_error){ .status = COX_RPC_CANCELLED, .message = "the caller has left" });
}

/* ---- what call.c and server.c ask ---- */

const char *rpc_local_peer(const struct cox_rpc_call *call)
{
    return call->local->peer;
}

struct cox_slice rpc_local_metadata(const struct cox_rpc_call *call, const char *key)
{
    const struct rpc_local *l = call->local;

    for (size_t i = 0; i < l->n_metadata; i++)
        if (strcmp(l->metadata[i].key, key) == 0)
            return cox_slice_str(l->metadata[i].value);
    return cox_slice(NULL, 0);
}

size_t rpc_local_metadata_count(const struct cox_rpc_call *call, const char *key)
{
    const struct rpc_local *l = call->local;
    size_t n = 0;

    for (size_t i = 0; i < l->n_metadata; i++)
        n += strcmp(l->metadata[i].key, key) == 0;
    return n;
}
