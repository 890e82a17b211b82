/* Calls and answers. Calls of every method arrive through one generic request, armed ahead; the path is
 * looked up in a table made of the services' descriptors when the server is created. */
#include "rpc_internal.h"

#include "cox/base/alloc.h"

#include <string.h>

#define ARMED 64
#define CALLS_MAX_DEFAULT 65536u
#define CALLS_RETRY_MS 1000
#define STREAMS_MAX 8192 /* of a connection */
#define UNSURE_RETRY_MS 50

struct served_method {
    const ProtobufCServiceDescriptor *service;
    const char *name;
    const ProtobufCMessageDescriptor *in;
    const struct cox_rpc_handlers *handlers;
    void *user;
    bool client_stream;
    bool server_stream;
};

/* A place for a call that has not come yet. */
struct slot {
    struct rpc_tag tag;
    struct cox_rpc_server *server;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
    bool armed;
};

struct cox_rpc_server {
    struct cox_rpc_loop *loop;
    grpc_server *server;
    struct rpc_listener *listener;
    int port;
    size_t outbox_len_max;
    size_t calls_max;
    struct cox_mapb methods; /* path -> served_method */
    bool (*admit)(struct cox_rpc_call *call, const ProtobufCServiceDescriptor *service, const char *method,
                  void *admit_user);
    void (*released)(void *caller, void *admit_user);
    void *admit_user;
    struct rpc_health *health;
    struct rpc_reflection *reflection;
    struct cox_list calls;
    size_t n_calls;
    size_t held_len;
    struct slot slots[ARMED];
    size_t n_armed;
    bool tls;
    struct rpc_tag on_shutdown;
    bool paused;
    bool draining;
    bool shut;
};

static const struct cox_rpc_handlers no_handlers;

/* ---- answering ---- */

void rpc_server_answer(struct cox_rpc_call *call, const struct cox_rpc_error *error)
{
    if (call->local) {
        rpc_local_answer(call, error);
        return;
    }
    call->closing = true;
    call->status = (grpc_status_code)error->status;
    call->message = rpc_error_message(error);
    if (rpc_error_details(error, &call->details.value)) {
        call->details.key = grpc_slice_from_static_string(RPC_DETAILS_KEY);
        call->n_details = 1;
    }
    rpc_call_pump(call);
}

void cox_rpc_fail(struct cox_rpc_call *call, const struct cox_rpc_error *error)
{
    COX_ASSERT(call->server);
    if (!call->closing && !call->cut)
        rpc_server_answer(call, error);
}

void cox_rpc_finish(struct cox_rpc_call *call)
{
    cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_OK });
}

void rpc_server_holds(struct cox_rpc_server *server, ptrdiff_t len)
{
    server->held_len += (size_t)len;
}

/* A large answer while peers have left too many of them lying: who takes theirs can ask again. */
static bool is_too_much(const struct cox_rpc_call *call, const ProtobufCMessage *message)
{
    return !call->local && call->server->held_len > COX_HELD_LEN_MAX &&
           protobuf_c_message_get_packed_size(message) > COX_INLINE_VALUE_LEN_MAX;
}

void cox_rpc_reply(struct cox_rpc_call *call, const ProtobufCMessage *message)
{
    if (is_too_much(call, message))
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                    .message = "too many large answers wait to be taken",
                                                    .reason = "TOO_MUCH_HELD",
                                                    .retry_delay_ms = CALLS_RETRY_MS });
    else if (rpc_call_queue(call, message) == COX_ERR_FULL)
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                    .message = "the answer is too long for one message",
                                                    .reason = "MESSAGE_TOO_LARGE" });
    else
        cox_rpc_finish(call);
}

struct cox_slice cox_rpc_call_metadata(const struct cox_rpc_call *call, const char *key)
{
    if (call->local)
        return rpc_local_metadata(call, key);
    const grpc_slice *value = rpc_metadata_find(&call->metadata, key);

    return value ? rpc_slice_view(value) : cox_slice(NULL, 0);
}

size_t cox_rpc_call_metadata_count(const struct cox_rpc_call *call, const char *key)
{
    return call->local ? rpc_local_metadata_count(call, key) : rpc_metadata_count(&call->metadata, key);
}

const struct cox_tls_certificate *cox_rpc_call_certificate(struct cox_rpc_call *call)
{
    return call->certificate;
}

void *cox_rpc_call_caller(const struct cox_rpc_call *call)
{
    return call->caller;
}

void cox_rpc_call_set_caller(struct cox_rpc_call *call, void *caller)
{
    call->caller = caller;
}

/* ---- accepting ---- */

static void on_close(void *owner, bool ok)
{
    struct cox_rpc_call *call = owner;

    (void)ok;
    call->closed = true;
    rpc_call_batch_done(call);
}

static int64_t deadline_ns(gpr_timespec deadline)
{
    gpr_timespec t = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);

    return t.tv_sec >= INT64_MAX / 1000000000 ? COX_RPC_FOREVER : t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct cox_rpc_call *create_call(struct cox_rpc_server *server, grpc_call *grpc)
{
    struct cox_rpc_call *call = rpc_call_create(server->loop, grpc);

    call->server = server;
    call->handlers = &no_handlers;
    call->outbox_len_max = server->outbox_len_max;
    cox_list_push_back(&server->calls, &call->node);
    server->n_calls++;
    return call;
}

struct cox_rpc_call *rpc_server_accept_local(struct cox_rpc_server *server)
{
    return create_call(server, NULL);
}

static struct cox_rpc_call *accept_call(struct cox_rpc_server *server, struct slot *slot)
{
    struct cox_rpc_call *call = create_call(server, slot->call);
    grpc_op op = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                   .data.recv_close_on_server.cancelled = &call->cancelled };

    call->on_close = (struct rpc_tag){ on_close, call };
    call->metadata = slot->metadata;
    call->deadline_ns = deadline_ns(slot->details.deadline);
    if (server->tls) {
        char *name = grpc_call_get_peer(call->call);
        call->certificate = rpc_listener_certificate(server->listener, name ? name : "", &call->unsure);
        gpr_free(name);
    }
    enum cox_err err = rpc_call_start(call, &op, 1, &call->on_close);

    COX_ASSERT(err == COX_OK);
    return call;
}

static void refuse_path(struct cox_rpc_call *call, struct cox_slice path)
{
    struct cox_rpc_error error = { .status = COX_RPC_UNIMPLEMENTED, .reason = "UNKNOWN_METHOD" };
    struct cox_buf text = { 0 };

    cox_buf_append_str(&text, "no method ");
    cox_buf_append_slice(&text, path);
    if (rpc_descriptors_method(path)) {
        error.reason = "NOT_SERVED";
        cox_buf_clear(&text);
        cox_buf_append_slice(&text, path);
        cox_buf_append_str(&text, " is part of the contract, but not served here");
    }
    error.message = cox_buf_cstr(&text);
    cox_rpc_fail(call, &error);
    cox_buf_fini(&text);
}

void rpc_server_open(struct cox_rpc_call *call, struct cox_slice path)
{
    const struct cox_rpc_server *server = call->server;
    const struct served_method *method = cox_mapb_get(&server->methods, path);

    if (server->admit && !server->admit(call, method ? method->service : NULL, method ? method->name : NULL,
                                        server->admit_user))
        return;
    if (!method) {
        refuse_path(call, path);
        return;
    }
    if (call->server->n_calls > call->server->calls_max) {
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                    .message = "too many calls at once",
                                                    .reason = "TOO_MANY_CALLS",
                                                    .retry_delay_ms = CALLS_RETRY_MS });
        return;
    }
    call->in = method->in;
    call->handlers = method->handlers;
    call->handlers_user = method->user;
    call->one_message = !method->client_stream;
    if (call->handlers->on_open)
        call->handlers->on_open(call, call->handlers_user);
    if (method->server_stream) {
        call->md_wanted = true;
        rpc_call_pump(call);
    }
    rpc_call_read(call);
}

static void arm(struct slot *slot)
{
    struct cox_rpc_server *server = slot->server;

    if (slot->armed || server->paused || server->draining)
        return;
    grpc_call_details_init(&slot->details);
    grpc_metadata_array_init(&slot->metadata);
    slot->armed = true;
    if (server->n_armed++ == 0)
        server->loop->n_deaf--;
    grpc_call_error err =
        grpc_server_request_call(server->server, &slot->call, &slot->details, &slot->metadata,
                                 server->loop->cq, server->loop->cq, &slot->tag);

    COX_ASSERT(err == GRPC_CALL_OK);
}

static void on_new_call(void *owner, bool ok)
{
    struct slot *slot = owner;
    struct cox_rpc_server *server = slot->server;

    slot->armed = false;
    if (--server->n_armed == 0)
        server->loop->n_deaf++;
    if (!ok) {
        grpc_metadata_array_destroy(&slot->metadata);
        grpc_call_details_destroy(&slot->details);
        return;
    }
    struct cox_rpc_call *call = accept_call(server, slot);
    grpc_call_details details = slot->details;

    arm(slot);
    if (call->unsure)
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                    .message = "whose call this is has become unclear",
                                                    .reason = "UNCLEAR_PEER",
                                                    .retry_delay_ms = UNSURE_RETRY_MS });
    else
        rpc_server_open(call, rpc_slice_view(&details.method));
    grpc_call_details_destroy(&details);
}

void rpc_server_call_gone(struct cox_rpc_server *server, void *caller)
{
    server->n_calls--;
    if (caller && server->released)
        server->released(caller, server->admit_user);
}

/* ---- creating ---- */

static enum cox_err add_method(struct cox_rpc_server *server, const struct cox_rpc_service *service,
                               const struct cox_rpc_method *method)
{
    const ProtobufCMethodDescriptor *type =
        protobuf_c_service_descriptor_get_method_by_name(service->descriptor, method->name);
    struct cox_buf path = { 0 };

    cox_buf_printf(&path, "/%s/%s", service->descriptor->name, method->name);
    const Google__Protobuf__MethodDescriptorProto *declared = rpc_descriptors_method(cox_buf_slice(&path));

    if (type && declared) {
        struct served_method *served = COX_NEW(struct served_method);
        served->service = service->descriptor;
        served->name = method->name;
        served->in = type->input;
        served->handlers = &method->handlers;
        served->user = service->user;
        served->client_stream = declared->client_streaming;
        served->server_stream = declared->server_streaming;
        cox_free(cox_mapb_set(&server->methods, cox_buf_slice(&path), served));
    }
    cox_buf_fini(&path);
    return type && declared ? COX_OK : COX_ERR_INVALID;
}

static enum cox_err add_service(struct cox_rpc_server *server, const struct cox_rpc_service *service)
{
    for (size_t i = 0; i < service->n_methods; i++) {
        enum cox_err err = add_method(server, service, &service->methods[i]);
        if (err != COX_OK)
            return err;
    }
    return COX_OK;
}

static enum cox_err add_services(struct cox_rpc_server *server, const struct cox_rpc_server_config *config)
{
    struct cox_rpc_service standard[RPC_REFLECTION_SERVICES + 1];
    enum cox_err err = COX_OK;

    server->health = rpc_health_create(config->services, config->n_services);
    server->reflection = rpc_reflection_create(config->services, config->n_services);
    rpc_reflection_services(server->reflection, standard);
    standard[RPC_REFLECTION_SERVICES] = rpc_health_service(server->health);
    for (size_t i = 0; i < config->n_services && err == COX_OK; i++)
        err = add_service(server, &config->services[i]);
    for (size_t i = 0; i < RPC_REFLECTION_SERVICES + 1 && err == COX_OK; i++)
        err = add_service(server, &standard[i]);
    return err;
}

#define INT_ARG(name, n)                                                                                     \
    {                                                                                                        \
        .type = GRPC_ARG_INTEGER, .key = (char *)(name), .value.integer = (n)                                \
    }

static grpc_server *create_grpc_server(const struct cox_rpc_server_config *config)
{
    size_t len_max = config->message_len_max > 0 ? config->message_len_max : COX_MESSAGE_LEN_MAX;
    grpc_arg args[] = {
        /* Windows that grow by probing cost 4 MB for each stream that is not read; fixed ones 0.3 MB. */
        INT_ARG(GRPC_ARG_HTTP2_BDP_PROBE, 0),
        INT_ARG(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 262144),
        INT_ARG(GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_MAX),
        INT_ARG(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)len_max),
        INT_ARG(GRPC_ARG_KEEPALIVE_TIME_MS, 30000),
        INT_ARG(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000),
        INT_ARG(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        INT_ARG(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        INT_ARG(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000),
    };
    grpc_channel_args list = { sizeof(args) / sizeof(args[0]), args };

    return grpc_server_create(&list, NULL);
}

static void free_server(struct cox_rpc_server *server)
{
    size_t it = 0;
    struct cox_slice path;
    void *method;

    while (cox_mapb_next(&server->methods, &it, &path, &method))
        cox_free(method);
    cox_mapb_fini(&server->methods);
    rpc_health_destroy(server->health);
    rpc_reflection_destroy(server->reflection);
    if (server->server)
        grpc_server_destroy(server->server);
    rpc_listener_destroy(server->listener);
    cox_free(server);
}

static void on_shutdown(void *owner, bool ok)
{
    struct cox_rpc_server *server = owner;

    (void)ok;
    server->shut = true;
}

enum cox_err cox_rpc_server_create(struct cox_rpc_loop *loop, const struct cox_rpc_server_config *config,
                                   struct cox_rpc_server **ret_server)
{
    struct cox_rpc_server *server = COX_NEW(struct cox_rpc_server);
    enum cox_err err;

    server->loop = loop;
    server->tls = config->tls != NULL;
    server->outbox_len_max = config->outbox_len_max > 0 ? config->outbox_len_max : COX_OUTBOX_LEN_MAX;
    server->calls_max = config->calls_max > 0 ? config->calls_max : CALLS_MAX_DEFAULT;
    server->admit = config->admit;
    server->released = config->released;
    server->admit_user = config->admit_user;
    server->on_shutdown = (struct rpc_tag){ on_shutdown, server };
    cox_list_init(&server->calls);
    err = add_services(server, config);
    if (err == COX_OK &&
        !(server->listener = rpc_listener_create(loop, config->address, config->tls, &server->port)))
        err = COX_ERR_UNAVAILABLE;
    if (err != COX_OK) {
        free_server(server);
        return err;
    }
    server->server = create_grpc_server(config);
    grpc_server_register_completion_queue(server->server, loop->cq, NULL);
    grpc_server_start(server->server);
    rpc_listener_start(server->listener, server->server);
    loop->n_deaf++;
    for (size_t i = 0; i < ARMED; i++) {
        server->slots[i].server = server;
        server->slots[i].tag = (struct rpc_tag){ on_new_call, &server->slots[i] };
        arm(&server->slots[i]);
    }
    *ret_server = server;
    return COX_OK;
}

char *rpc_server_peer(const struct cox_rpc_server *server, const char *library_name)
{
    return rpc_listener_peer(server->listener, library_name ? library_name : "");
}

int cox_rpc_server_port(const struct cox_rpc_server *server)
{
    return server->port;
}

size_t cox_rpc_server_calls(const struct cox_rpc_server *server)
{
    return server->n_calls;
}

void cox_rpc_server_set_serving(struct cox_rpc_server *server, bool serving)
{
    rpc_health_set_serving(server->health, serving);
}

/* ---- holding and ending ---- */

bool rpc_server_paused(const struct cox_rpc_server *server)
{
    return server->paused;
}

bool rpc_server_draining(const struct cox_rpc_server *server)
{
    return server->draining;
}

void cox_rpc_server_pause_reads(struct cox_rpc_server *server)
{
    server->paused = true;
}

void cox_rpc_server_resume_reads(struct cox_rpc_server *server)
{
    if (!server->paused)
        return;
    server->paused = false;
    for (size_t i = 0; i < ARMED; i++)
        arm(&server->slots[i]);
    COX_LIST_FOR_EACH (it, &server->calls) {
        rpc_call_read(COX_CONTAINER_OF(it, struct cox_rpc_call, node));
    }
}

void cox_rpc_server_drain(struct cox_rpc_server *server)
{
    if (server->draining)
        return;
    server->draining = true;
    rpc_listener_stop(server->listener);
    grpc_server_shutdown_and_notify(server->server, server->loop->cq, &server->on_shutdown);
}

void cox_rpc_server_destroy(struct cox_rpc_server *server)
{
    if (!server)
        return;
    cox_rpc_server_drain(server);
    grpc_server_cancel_all_calls(server->server);
    COX_LIST_FOR_EACH (it, &server->calls) {
        struct cox_rpc_call *call = COX_CONTAINER_OF(it, struct cox_rpc_call, node);
        if (call->local)
            rpc_local_abort(call, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                           .message = "the server has stopped" });
    }
    while (!server->shut || server->n_calls > 0 || server->n_armed > 0)
        cox_rpc_loop_run_once(server->loop, COX_RPC_FOREVER, 256);
    server->loop->n_deaf--;
    free_server(server);
}
