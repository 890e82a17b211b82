/* What the files of lib/rpc share. gRPC's headers are included here and nowhere else.
 *
 *   loop.c         process, completion queue, wake-up
 *   call.c         a call of either side: outbox, reads, life
 *   message.c      protobuf-c to and from byte buffers
 *   error.c        statuses and google.rpc details
 *   listen.c       accepting connections, on a thread of its own
 *   server.c       calls, answering
 *   client.c       channels, calls out
 *   local.c        calls of a server's methods by the same process
 *   descriptors.c  the contract as data: methods and symbols
 *   health.c, reflection.c   the standard services, written against the public header
 */
#ifndef COX_RPC_INTERNAL_H
#define COX_RPC_INTERNAL_H

#include "cox/base/arena.h"
#include "cox/base/heap.h"
#include "cox/base/list.h"
#include "cox/base/map.h"
#include "cox/limits.h"
#include "cox/rpc.h"
#include "cox/tls.h"

#include <google/protobuf/descriptor.pb-c.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include <stdatomic.h>

/* ---- loop.c ---- */

/* What a completion queue's tag points to. */
struct rpc_tag {
    void (*fn)(void *owner, bool ok);
    void *owner;
};

struct cox_rpc_loop {
    grpc_completion_queue *cq;
    grpc_channel *lame; /* connects to nothing; its call carries wake-ups */
    grpc_call *wake_call;
    atomic_bool wake_pending;
    struct cox_arena arena; /* messages and errors given to callbacks; empty between events */
    size_t n_calls;         /* of all servers and channels */
    bool running;
    size_t n_deaf;               /* servers that have no place for a new call: one may wait in the library */
    atomic_ullong n_settled;     /* moments at which no call was waiting anywhere; read by listeners */
    struct cox_list local_ready; /* local calls with something to deliver */
    bool local_first;            /* the odd event of the next turn is theirs */
    struct cox_heap local_deadlines;
    struct cox_buf local_packed; /* scratch: the message under way to a local caller */
};

gpr_timespec rpc_deadline(int64_t mono_ns);

/* ---- message.c ---- */

/* The packed message, NULL when it is longer than COX_MESSAGE_LEN_MAX. */
grpc_byte_buffer *rpc_pack(const ProtobufCMessage *message, size_t *ret_len);

/* Decodes into `arena`, or by malloc when that is NULL. Errors: COX_ERR_INVALID for malformed bytes and text
 * that is not UTF-8, COX_ERR_FULL when the decoded form would exceed RPC_DECODED_LEN_MAX. */
COX_MUST_CHECK enum cox_err rpc_unpack(const ProtobufCMessageDescriptor *type, struct cox_slice bytes,
                                       struct cox_arena *arena, ProtobufCMessage **ret);
COX_MUST_CHECK enum cox_err rpc_unpack_buffer(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *bytes,
                                              struct cox_arena *arena, ProtobufCMessage **ret);

/* A wire byte can cost some 100 bytes in memory (an empty sub-message); this bounds one message. */
#define RPC_DECODED_LEN_MAX ((size_t)8 * COX_MESSAGE_LEN_MAX)

static inline struct cox_slice rpc_slice_view(const grpc_slice *s)
{
    return cox_slice(GRPC_SLICE_START_PTR(*s), GRPC_SLICE_LENGTH(*s));
}

/* ---- error.c ---- */

#define RPC_DETAILS_KEY "grpc-status-details-bin"

/* grpc-message, cut to its bound without splitting a character. */
grpc_slice rpc_error_message(const struct cox_rpc_error *error);
/* A packed google.rpc.Status; false when there are no details to send. */
bool rpc_error_details(const struct cox_rpc_error *error, grpc_slice *ret);
/* The error as received; everything in it lives in `arena`. `details` may be NULL or garbage. */
struct cox_rpc_error rpc_error_parse(grpc_status_code status, const grpc_slice *message,
                                     const grpc_slice *details, struct cox_arena *arena);
const grpc_slice *rpc_metadata_find(const grpc_metadata_array *metadata, const char *key);
size_t rpc_metadata_count(const grpc_metadata_array *metadata, const char *key);

/* ---- descriptors.c ---- */

void rpc_descriptors_init(void);
void rpc_descriptors_fini(void);
/* The method "/package.Service/Method", or NULL. */
const Google__Protobuf__MethodDescriptorProto *rpc_descriptors_method(struct cox_slice path);
/* The file that declares a fully qualified name, or has the given name; NULL when there is none. */
const Google__Protobuf__FileDescriptorProto *rpc_descriptors_symbol(const char *name);
const Google__Protobuf__FileDescriptorProto *rpc_descriptors_file(const char *name);

/* ---- call.c ---- */

/* A message on its way out. */
struct rpc_out {
    struct rpc_out *next;
    grpc_byte_buffer *bytes;
    size_t len;
};

/* A call lives while a batch is in flight or it is not yet closed: every batch started adds one to n_batches
 * and its event takes it back after the callback. The event of the closing batch (receive-close on a server,
 * receive-status on a client) sets `closed`; when both hold, on_closed is delivered and the call is freed.
 *
 *   open --finish, fail, half_close--> closing --last send batch--> send_done --peer--> closed
 *     \________________________ cancel, peer gone ________________________________________^
 */
struct cox_rpc_call {
    grpc_call *call;
    struct cox_rpc_loop *loop;
    struct cox_rpc_server *server;   /* one of these two */
    struct cox_rpc_channel *channel; /* a reference */
    struct cox_list node;            /* in the server's or the channel's list */
    struct rpc_local *local;         /* a server's call without a wire; `call` is NULL then */

    const ProtobufCMessageDescriptor *in;
    const struct cox_rpc_handlers *handlers;
    void *handlers_user;
    void *user;
    void *caller;                     /* server: what `admit` said */
    cox_rpc_on_response *on_response; /* client, unary: instead of handlers */
    ProtobufCMessage *
        *keep_response; /* client, unary, blocking: decode to memory that outlives the callback */

    struct rpc_tag on_send;
    struct rpc_tag on_recv;
    struct rpc_tag on_open;
    struct rpc_tag on_close;
    unsigned n_batches;

    struct rpc_out *out_head; /* not yet given to the library */
    struct rpc_out *out_tail;
    struct rpc_out *in_flight;
    size_t outbox_len; /* bytes of all of these */
    size_t outbox_len_max;
    grpc_byte_buffer *received;

    bool one_message; /* the peer sends exactly one */
    bool md_wanted;
    bool md_sent;
    bool sending;
    bool closing;
    bool send_done;
    bool dead; /* nothing can be sent any more */
    bool reading;
    bool read_end;
    bool paused;
    bool had_message;
    bool closed;

    struct cox_rpc_error *cut; /* why we cancelled it */
    int64_t deadline_ns;
    char *peer;
    struct cox_tls_certificate *certificate; /* of a server's peer, or NULL */
    bool unsure; /* whose it is: its connection may have ended, and another have its descriptor */

    grpc_metadata *own_metadata; /* client: the channel's and the call's; NULL: the channel's alone */
    size_t n_own_metadata;
    grpc_metadata_array metadata; /* server: of the request; client: initial */
    grpc_metadata_array trailing; /* client */
    grpc_slice message;           /* of the status: sent (server), received (client) */
    grpc_metadata details;        /* server: sent with the status */
    size_t n_details;
    grpc_status_code status; /* sent or received */
    uint32_t md_flags;       /* client: of the initial metadata */
    int cancelled;           /* server */
};

struct cox_rpc_call *rpc_call_create(struct cox_rpc_loop *loop, grpc_call *call);
/* Starts a batch whose event goes to `tag`. COX_ERR_INVALID when the library refuses it. */
COX_MUST_CHECK enum cox_err rpc_call_start(struct cox_rpc_call *call, const grpc_op *ops, size_t n_ops,
                                           struct rpc_tag *tag);
/* To be called last by every tag's function. */
void rpc_call_batch_done(struct cox_rpc_call *call);
/* cox_rpc_send without the sending. */
COX_MUST_CHECK enum cox_err rpc_call_queue(struct cox_rpc_call *call, const ProtobufCMessage *message);
/* Sends what can be sent; the only place that starts send batches. */
void rpc_call_pump(struct cox_rpc_call *call);
/* Arms a read unless there is a reason not to. */
void rpc_call_read(struct cox_rpc_call *call);
/* Gives the handlers a message, or refuses the call for what was wrong with it. */
void rpc_call_deliver(struct cox_rpc_call *call, enum cox_err err, const ProtobufCMessage *message);
/* A server's peer will send no more. */
void rpc_call_end_of_input(struct cox_rpc_call *call);
/* What on_closed is told; may live in the loop's arena. */
struct cox_rpc_error rpc_call_closing_status(struct cox_rpc_call *call);
void rpc_call_destroy(struct cox_rpc_call *call);

/* ---- server.c ---- */

/* True while the server takes no messages. */
bool rpc_server_paused(const struct cox_rpc_server *server);
bool rpc_server_draining(const struct cox_rpc_server *server);
/* A call without a wire, counted and listed like the others, and its opening: on_open, or a refusal. */
struct cox_rpc_call *rpc_server_accept_local(struct cox_rpc_server *server);
void rpc_server_open(struct cox_rpc_call *call, struct cox_slice path);
/* Gives a call its status, which leaves behind the queued messages. */
void rpc_server_answer(struct cox_rpc_call *call, const struct cox_rpc_error *error);
void rpc_server_call_gone(struct cox_rpc_server *server, void *caller);
/* So many bytes more are on their way to peers, in all outboxes but local ones. */
void rpc_server_holds(struct cox_rpc_server *server, ptrdiff_t len);
/* What the library calls a peer, as an address. The caller frees it. */
char *rpc_server_peer(const struct cox_rpc_server *server, const char *library_name);
/* ---- listen.c ---- */

struct rpc_listener;
/* Binds and listens; NULL when that is not possible. Who connects waits until it is started. */
struct rpc_listener *rpc_listener_create(struct cox_rpc_loop *loop, const char *address, struct cox_tls *tls,
                                         int *ret_port);
/* Connections go to `server` from here on. */
void rpc_listener_start(struct rpc_listener *l, grpc_server *server);
/* Closes the port; connections that the server has stay. Harmless before start, and again. */
void rpc_listener_stop(struct rpc_listener *l);
void rpc_listener_destroy(struct rpc_listener *l); /* NULL is allowed */
/* Thread: any. The caller frees it. */
char *rpc_listener_peer(struct rpc_listener *l, const char *library_name);
/* What the peer of a new call has shown, or NULL; freed by cox_free. To be asked as soon as the call is
 * there. */
struct cox_tls_certificate *rpc_listener_certificate(struct rpc_listener *l, const char *library_name,
                                                     bool *ret_unsure);

/* ---- local.c ---- */

/* Something may be deliverable: looked at by the loop. */
void rpc_local_ready(struct cox_rpc_call *call);
/* cox_rpc_send, once it is known that the call takes messages. */
COX_MUST_CHECK enum cox_err rpc_local_queue(struct cox_rpc_call *call, const ProtobufCMessage *message);
/* The service's status, and an end that the service did not choose; the latter is ignored on a call that
 * already has one. */
void rpc_local_answer(struct cox_rpc_call *call, const struct cox_rpc_error *error);
void rpc_local_abort(struct cox_rpc_call *call, const struct cox_rpc_error *error);
const char *rpc_local_peer(const struct cox_rpc_call *call);
struct cox_slice rpc_local_metadata(const struct cox_rpc_call *call, const char *key);
size_t rpc_local_metadata_count(const struct cox_rpc_call *call, const char *key);
/* Delivers at most `events_max` events; when the loop must come again (0: at once). */
size_t rpc_local_run(struct cox_rpc_loop *loop, size_t events_max);
int64_t rpc_local_wake_ns(const struct cox_rpc_loop *loop);

/* ---- client.c ---- */

void rpc_channel_unref(struct cox_rpc_channel *channel);
/* The initial metadata of a call. */
void rpc_channel_metadata(const struct cox_rpc_call *call, grpc_op *op);
/* Delivers a unary call's answer. */
void rpc_client_deliver(struct cox_rpc_call *call, const struct cox_rpc_error *status);

/* ---- health.c, reflection.c ---- */

struct rpc_health;
struct rpc_health *rpc_health_create(const struct cox_rpc_service *services, size_t n_services);
void rpc_health_destroy(struct rpc_health *health);
void rpc_health_set_serving(struct rpc_health *health, bool serving);
struct cox_rpc_service rpc_health_service(struct rpc_health *health);

struct rpc_reflection;
struct rpc_reflection *rpc_reflection_create(const struct cox_rpc_service *services, size_t n_services);
void rpc_reflection_destroy(struct rpc_reflection *reflection);
#define RPC_REFLECTION_SERVICES 2 /* v1 and v1alpha */
void rpc_reflection_services(struct rpc_reflection *reflection,
                             struct cox_rpc_service services[RPC_REFLECTION_SERVICES]);

#endif
