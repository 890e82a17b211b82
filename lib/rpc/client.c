#include "rpc_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <stdio.h>
#include <string.h>

#define PEM_LEN_MAX ((size_t)4 << 20) /* system CAs are some 200 KiB */
#define PIECE_LEN ((size_t)64 << 10)

struct cox_rpc_channel {
    struct cox_rpc_loop *loop;
    grpc_channel *channel;
    grpc_metadata *metadata;
    size_t n_metadata;
    struct cox_list calls;
    size_t n_refs; /* the owner's, and one for each call */
};

/* ---- channels ---- */

#define INT_ARG(name, n)                                                                                     \
    {                                                                                                        \
        .type = GRPC_ARG_INTEGER, .key = (char *)(name), .value.integer = (int)(n)                           \
    }

/* NULL: it cannot be read, or is longer than any. */
static char *read_file(const char *path)
{
    struct cox_buf text = { 0 };
    FILE *f = fopen(path, "re");
    size_t n = 1;

    while (f && n > 0 && text.len < PEM_LEN_MAX) {
        n = fread(cox_buf_extend(&text, PIECE_LEN), 1, PIECE_LEN, f);
        text.len -= PIECE_LEN - n;
    }
    bool ok = f && !ferror(f) && n == 0 && text.len > 0;

    if (f)
        fclose(f);
    char *copy = ok ? cox_strdup(cox_buf_cstr(&text)) : NULL;

    if (text.len > 0)
        explicit_bzero(text.data, text.len);
    cox_buf_fini(&text);
    return copy;
}

/* NULL: the files are of no use; `why` says it. */
static grpc_channel_credentials *create_credentials(const struct cox_tls_files *files, struct cox_buf *why)
{
    if (!files)
        return grpc_insecure_credentials_create();
    if (cox_tls_check_client(files, why))
        return NULL;
    char *ca = read_file(files->ca), *cert = files->cert ? read_file(files->cert) : NULL;
    char *key = files->key ? read_file(files->key) : NULL;
    grpc_ssl_pem_key_cert_pair pair = { key, cert };
    grpc_channel_credentials *credentials = NULL;

    if (ca && !cert == !files->cert && !key == !files->key)
        credentials = grpc_ssl_credentials_create(ca, cert ? &pair : NULL, NULL, NULL);
    if (!credentials)
        cox_buf_append_str(why, "the files of TLS cannot be read");
    if (key)
        explicit_bzero(key, strlen(key));
    cox_free(ca);
    cox_free(cert);
    cox_free(key);
    return credentials;
}

static grpc_channel *create_grpc_channel(const struct cox_rpc_channel_config *config)
{
    size_t len_max = config->message_len_max > 0 ? config->message_len_max : COX_MESSAGE_LEN_MAX;
    int64_t backoff_ms = config->reconnect_backoff_ms > 0 ? config->reconnect_backoff_ms : 100;
    int64_t backoff_max_ms = config->reconnect_backoff_max_ms > 0 ? config->reconnect_backoff_max_ms : 2000;
    int64_t connect_limit_ms = config->connect_limit_ms > 0 ? config->connect_limit_ms : 5000;
    grpc_arg args[] = {
        INT_ARG(GRPC_ARG_HTTP2_BDP_PROBE, 0), /* as on the server */
        INT_ARG(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 262144),
        INT_ARG(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, len_max),
        /* The server allows a ping every 10 s. */
        INT_ARG(GRPC_ARG_KEEPALIVE_TIME_MS, 30000),
        INT_ARG(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000),
        INT_ARG(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        INT_ARG(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        INT_ARG(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, backoff_ms),
        INT_ARG(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, backoff_max_ms),
        /* This one bounds a connection attempt; the pause between attempts is the two above. */
        INT_ARG(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, connect_limit_ms),
        INT_ARG(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, backoff_max_ms),
        /* Whether to send again is the caller's decision, who has idempotency keys. */
        INT_ARG(GRPC_ARG_ENABLE_RETRIES, 0),
        INT_ARG(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        INT_ARG(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
        INT_ARG(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, config->own_connection ? 1 : 0),
    };
    grpc_channel_args list = { sizeof(args) / sizeof(args[0]), args };
    struct cox_buf why = { 0 };
    grpc_channel_credentials *credentials = create_credentials(config->tls, &why);
    grpc_channel *channel =
        credentials
            ? grpc_channel_create(config->target, credentials, &list)
            : grpc_lame_client_channel_create(config->target, GRPC_STATUS_UNAVAILABLE, cox_buf_cstr(&why));

    if (credentials)
        grpc_channel_credentials_release(credentials);
    cox_buf_fini(&why);
    return channel;
}

struct cox_rpc_channel *cox_rpc_channel_create(struct cox_rpc_loop *loop,
                                               const struct cox_rpc_channel_config *config)
{
    struct cox_rpc_channel *channel = COX_NEW(struct cox_rpc_channel);

    channel->loop = loop;
    channel->channel = create_grpc_channel(config);
    channel->n_refs = 1;
    cox_list_init(&channel->calls);
    channel->metadata = cox_calloc(config->n_metadata, sizeof(*channel->metadata));
    channel->n_metadata = config->n_metadata;
    for (size_t i = 0; i < config->n_metadata; i++) {
        channel->metadata[i].key = grpc_slice_from_copied_string(config->metadata[i].key);
        channel->metadata[i].value = grpc_slice_from_copied_string(config->metadata[i].value);
    }
    return channel;
}

void rpc_channel_unref(struct cox_rpc_channel *channel)
{
    if (--channel->n_refs > 0)
        return;
    for (size_t i = 0; i < channel->n_metadata; i++) {
        grpc_slice_unref(channel->metadata[i].key);
        grpc_slice_unref(channel->metadata[i].value);
    }
    cox_free(channel->metadata);
    cox_free(channel);
}

void cox_rpc_channel_destroy(struct cox_rpc_channel *channel)
{
    if (!channel)
        return;
    COX_LIST_FOR_EACH (it, &channel->calls) {
        cox_rpc_cancel(COX_CONTAINER_OF(it, struct cox_rpc_call, node), NULL);
    }
    grpc_channel_destroy(channel->channel);
    channel->channel = NULL;
    rpc_channel_unref(channel);
}

enum cox_rpc_channel_state cox_rpc_channel_state(struct cox_rpc_channel *channel, bool connect)
{
    switch (grpc_channel_check_connectivity_state(channel->channel, connect)) {
    case GRPC_CHANNEL_IDLE:
        return COX_RPC_CHANNEL_IDLE;
    case GRPC_CHANNEL_CONNECTING:
        return COX_RPC_CHANNEL_CONNECTING;
    case GRPC_CHANNEL_READY:
        return COX_RPC_CHANNEL_READY;
    case GRPC_CHANNEL_TRANSIENT_FAILURE:
    case GRPC_CHANNEL_SHUTDOWN:
        break;
    }
    return COX_RPC_CHANNEL_FAILED;
}

void rpc_channel_metadata(const struct cox_rpc_call *call, grpc_op *op)
{
    op->data.send_initial_metadata.metadata =
        call->own_metadata ? call->own_metadata : call->channel->metadata;
    op->data.send_initial_metadata.count =
        call->own_metadata ? call->n_own_metadata : call->channel->n_metadata;
}

static void take_metadata(struct cox_rpc_call *call, const struct cox_rpc_call_config *config)
{
    const struct cox_rpc_channel *channel = call->channel;
    size_t n = 0;

    if (config->n_metadata == 0)
        return;
    call->own_metadata = cox_calloc(channel->n_metadata + config->n_metadata, sizeof(*call->own_metadata));
    for (size_t i = 0; i < channel->n_metadata; i++, n++) {
        call->own_metadata[n].key = grpc_slice_ref(channel->metadata[i].key);
        call->own_metadata[n].value = grpc_slice_ref(channel->metadata[i].value);
    }
    for (size_t i = 0; i < config->n_metadata; i++, n++) {
        call->own_metadata[n].key = grpc_slice_from_copied_string(config->metadata[i].key);
        call->own_metadata[n].value = grpc_slice_from_copied_string(config->metadata[i].value);
    }
    call->n_own_metadata = n;
}

/* ---- calls ---- */

static void on_status(void *owner, bool ok)
{
    struct cox_rpc_call *call = owner;

    (void)ok;
    call->closed = true;
    rpc_call_batch_done(call);
}

static void on_initial_metadata(void *owner, bool ok)
{
    struct cox_rpc_call *call = owner;

    if (ok && !call->cut && call->handlers->on_open)
        call->handlers->on_open(call, call->handlers_user);
    rpc_call_batch_done(call);
}

static struct cox_rpc_call *create_call(struct cox_rpc_channel *channel,
                                        const ProtobufCServiceDescriptor *service, const char *method,
                                        int64_t timeout_ms)
{
    const ProtobufCMethodDescriptor *type = protobuf_c_service_descriptor_get_method_by_name(service, method);
    int64_t deadline_ns = COX_RPC_FOREVER;
    struct cox_buf path = { 0 };

    COX_ASSERT(type != NULL && channel->channel != NULL);
    if (timeout_ms > 0 && timeout_ms < INT64_MAX / 2000000)
        deadline_ns = cox_clock_mono_ns() + timeout_ms * 1000000;
    cox_buf_printf(&path, "/%s/%s", service->name, method);
    grpc_slice path_slice = grpc_slice_from_copied_buffer((const char *)path.data, path.len);
    struct cox_rpc_call *call = rpc_call_create(
        channel->loop,
        grpc_channel_create_call(channel->channel, NULL, GRPC_PROPAGATE_DEFAULTS, channel->loop->cq,
                                 path_slice, NULL, rpc_deadline(deadline_ns), NULL));

    grpc_slice_unref(path_slice);
    cox_buf_fini(&path);
    call->channel = channel;
    channel->n_refs++;
    cox_list_push_back(&channel->calls, &call->node);
    call->in = type->output;
    call->deadline_ns = deadline_ns;
    call->on_close = (struct rpc_tag){ on_status, call };
    return call;
}

static grpc_op recv_status(struct cox_rpc_call *call)
{
    return (grpc_op){ .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                      .data.recv_status_on_client = { .trailing_metadata = &call->trailing,
                                                      .status = &call->status,
                                                      .status_details = &call->message } };
}

static grpc_op recv_initial_metadata(struct cox_rpc_call *call)
{
    return (grpc_op){ .op = GRPC_OP_RECV_INITIAL_METADATA,
                      .data.recv_initial_metadata.recv_initial_metadata = &call->metadata };
}

static void await_status(struct cox_rpc_call *call)
{
    grpc_op op = recv_status(call);
    enum cox_err err = rpc_call_start(call, &op, 1, &call->on_close);

    COX_ASSERT(err == COX_OK);
}

struct cox_rpc_call *cox_rpc_call_start(struct cox_rpc_channel *channel,
                                        const struct cox_rpc_call_config *config)
{
    struct cox_rpc_call *call = create_call(channel, config->service, config->method, config->timeout_ms);
    grpc_op op = recv_initial_metadata(call);

    call->handlers = config->handlers;
    call->handlers_user = config->user;
    take_metadata(call, config);
    call->outbox_len_max = config->outbox_len_max > 0 ? config->outbox_len_max : COX_OUTBOX_LEN_MAX;
    if (config->wait_for_ready)
        call->md_flags =
            GRPC_INITIAL_METADATA_WAIT_FOR_READY | GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
    call->on_open = (struct rpc_tag){ on_initial_metadata, call };
    await_status(call);
    call->md_wanted = true;
    rpc_call_pump(call);
    enum cox_err err = rpc_call_start(call, &op, 1, &call->on_open);

    COX_ASSERT(err == COX_OK);
    rpc_call_read(call);
    return call;
}

/* ---- one request, one answer ---- */

static const struct cox_rpc_handlers no_handlers;

struct cox_rpc_call *cox_rpc_unary(struct cox_rpc_channel *channel, const ProtobufCServiceDescriptor *service,
                                   const char *method, const ProtobufCMessage *request, int64_t timeout_ms,
                                   cox_rpc_on_response *on_response, void *user)
{
    struct cox_rpc_call *call = create_call(channel, service, method, timeout_ms);
    size_t len;
    grpc_byte_buffer *bytes = rpc_pack(request, &len);
    grpc_op ops[6] = {
        { .op = GRPC_OP_SEND_INITIAL_METADATA },
        { .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = bytes },
        { .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
        recv_initial_metadata(call),
        { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->received },
        recv_status(call),
    };
    enum cox_err err = COX_ERR_FULL;

    rpc_channel_metadata(call, &ops[0]);
    call->handlers = &no_handlers;
    call->on_response = on_response;
    call->handlers_user = user;
    if (bytes)
        err = rpc_call_start(call, ops, 6, &call->on_close);
    if (err != COX_OK) {
        await_status(call);
        cox_rpc_cancel(call,
                       err == COX_ERR_FULL
                           ? &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                      .message = "the request is too long for one message" }
                           : &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                                      .message = "metadata that no header may carry" });
    }
    if (bytes)
        grpc_byte_buffer_destroy(bytes);
    return call;
}

void rpc_client_deliver(struct cox_rpc_call *call, const struct cox_rpc_error *status)
{
    static const struct cox_rpc_error malformed = { .status = COX_RPC_INTERNAL,
                                                    .message = "the server's answer is not well-formed" };
    struct cox_arena *arena = call->keep_response ? NULL : &call->loop->arena;
    ProtobufCMessage *response = NULL;

    if (status->status == COX_RPC_OK &&
        (!call->received || rpc_unpack_buffer(call->in, call->received, arena, &response) != COX_OK))
        status = &malformed;
    if (call->keep_response)
        *call->keep_response = response;
    call->on_response(response, status, call->handlers_user);
}

struct blocking {
    bool done;
    enum cox_err err;
    struct cox_rpc_error *error;
};

static void on_blocking_response(const ProtobufCMessage *response, const struct cox_rpc_error *status,
                                 void *user)
{
    struct blocking *wait = user;

    (void)response;
    wait->done = true;
    wait->err = cox_rpc_status_to_err(status->status);
    if (wait->err != COX_OK)
        wait->error = cox_rpc_error_copy(status);
}

enum cox_err cox_rpc_unary_blocking(struct cox_rpc_channel *channel,
                                    const ProtobufCServiceDescriptor *service, const char *method,
                                    const ProtobufCMessage *request, int64_t timeout_ms,
                                    ProtobufCMessage **ret_response, struct cox_rpc_error **ret_error)
{
    struct blocking wait = { 0 };
    ProtobufCMessage *response = NULL;
    struct cox_rpc_call *call =
        cox_rpc_unary(channel, service, method, request, timeout_ms, on_blocking_response, &wait);

    call->keep_response = &response;
    while (!wait.done)
        cox_rpc_loop_run_once(channel->loop, COX_RPC_FOREVER, 1);
    if (wait.err == COX_OK)
        *ret_response = response;
    else if (ret_error)
        *ret_error = wait.error;
    else
        cox_rpc_error_free(wait.error);
    return wait.err;
}
