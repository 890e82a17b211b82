/* gRPC, server and client, without gRPC's headers: this file and lib/rpc are the only place that knows them.
 *
 * A loop is one completion queue and the one thread that drains it; every callback runs there, inline. One
 * loop may serve servers and channels together. No function here calls back before it returns, except those
 * that say that they run the loop. Except cox_rpc_loop_wake, everything belongs to the loop's thread.
 *
 *   cox_rpc_init();
 *   struct cox_rpc_loop *loop = cox_rpc_loop_create();
 *   struct cox_rpc_server *server;
 *   err = cox_rpc_server_create(loop, &(struct cox_rpc_server_config){ .address = "127.0.0.1:0", ... },
 * &server); while (!stop) { cox_rpc_loop_run_once(loop, next_timer_ns, 256);
 *       ...                                          drain rings, fire timers, flush outboxes
 *   }
 *   cox_rpc_server_destroy(server);
 *   cox_rpc_loop_destroy(loop);
 *   cox_rpc_fini();
 *
 * Messages are protobuf-c structs. A message given to a callback lives in the loop's arena and dies when the
 * callback returns; a message given to this module is packed before the function returns and stays the
 * caller's. Strings are checked: a message with a malformed encoding or a string that is not UTF-8 never
 * reaches a callback.
 */
#ifndef COX_RPC_H
#define COX_RPC_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/tls.h"

#include <protobuf-c/protobuf-c.h>

struct cox_rpc_loop;
struct cox_rpc_server;
struct cox_rpc_channel;
struct cox_rpc_call;
struct cox_tls; /* cox/tls.h, as the next */
struct cox_tls_files;

/* ---- process ---------------------------------------------------------------------------------------- */

/* Once, before any other function. The library's threads start with all signals blocked; it may later start
 * more from the loop's thread, with that thread's mask, so handlers must suit any thread. */
void cox_rpc_init(void);

/* After the last loop is destroyed; waits for the library's threads. Leaving main without it may abort. */
void cox_rpc_fini(void);

/* ---- loop ------------------------------------------------------------------------------------------- */

struct cox_rpc_loop *cox_rpc_loop_create(void);

/* Every server and channel of the loop must be destroyed before; runs the loop until the last on_closed is
 * delivered. NULL is allowed. No other thread may call cox_rpc_loop_wake from here on. */
void cox_rpc_loop_destroy(struct cox_rpc_loop *loop);

#define COX_RPC_FOREVER INT64_MAX

/* Waits for an event, a wake-up or the deadline, then handles what is there, at most `events_max` events,
 * without waiting again. A deadline in the past only looks. Events beyond the cap are kept for the next call.
 *   deadline_mono_ns  on cox_clock_mono_ns(); may be overshot by about 1 ms; COX_RPC_FOREVER never comes
 * Returns the number of events handled; a wake-up counts none. Not from inside a callback. */
size_t cox_rpc_loop_run_once(struct cox_rpc_loop *loop, int64_t deadline_mono_ns, size_t events_max);

/* Makes the current or the next cox_rpc_loop_run_once return. Wake-ups that are not yet taken coalesce:
 * whatever was stored before the call is seen by the loop's thread after run_once returns.
 * Thread: any. Not from a signal handler. */
void cox_rpc_loop_wake(struct cox_rpc_loop *loop);

/* ---- errors ----------------------------------------------------------------------------------------- */

/* gRPC's status codes, same values. */
enum cox_rpc_status {
    COX_RPC_OK = 0,
    COX_RPC_CANCELLED = 1,
    COX_RPC_UNKNOWN = 2,
    COX_RPC_INVALID_ARGUMENT = 3,
    COX_RPC_DEADLINE_EXCEEDED = 4,
    COX_RPC_NOT_FOUND = 5,
    COX_RPC_ALREADY_EXISTS = 6,
    COX_RPC_PERMISSION_DENIED = 7,
    COX_RPC_RESOURCE_EXHAUSTED = 8,
    COX_RPC_FAILED_PRECONDITION = 9,
    COX_RPC_ABORTED = 10,
    COX_RPC_OUT_OF_RANGE = 11,
    COX_RPC_UNIMPLEMENTED = 12,
    COX_RPC_INTERNAL = 13,
    COX_RPC_UNAVAILABLE = 14,
    COX_RPC_DATA_LOSS = 15,
    COX_RPC_UNAUTHENTICATED = 16
};

/* One thing that is wrong with a request. */
struct cox_rpc_violation {
    const char *field;       /* path in the request or document: "steps.build.run" */
    const char *description; /* "line 12: expected a duration such as 10s" */
};

/* A status with what google.rpc's ErrorInfo, RetryInfo and BadRequest say. It travels as the grpc-status and
 * grpc-message, and, when any detail is set, as google.rpc.Status in grpc-status-details-bin. Zeroed is OK.
 * Everything in it is borrowed for the call, unless from cox_rpc_error_copy. */
struct cox_rpc_error {
    enum cox_rpc_status status;
    const char *message; /* for people; NULL means empty; cut at COX_ERROR_MESSAGE_LEN_MAX bytes */
    const char *reason;  /* ErrorInfo.reason, UPPER_SNAKE, for programs; its domain is "coxswain"; or NULL */
    int64_t retry_delay_ms; /* RetryInfo; 0 means none */
    const struct cox_rpc_violation *violations;
    size_t n_violations; /* at most COX_VIOLATIONS_MAX are sent */
};

/* A deep copy in one allocation, freed by cox_rpc_error_free (NULL is allowed). */
struct cox_rpc_error *cox_rpc_error_copy(const struct cox_rpc_error *error);
void cox_rpc_error_free(struct cox_rpc_error *error);

const char *cox_rpc_status_text(enum cox_rpc_status status);   /* "NOT_FOUND"; other values "UNKNOWN" */
enum cox_rpc_status cox_rpc_status_from_err(enum cox_err err); /* STALE is ABORTED, FULL RESOURCE_EXHAUSTED */
enum cox_err cox_rpc_status_to_err(enum cox_rpc_status status);

/* ---- calls, both sides ------------------------------------------------------------------------------ */

/* What happens to a call. Any may be NULL. `user` is the service's (server) or the call's (client) `user`.
 *
 * A call is valid from its first callback (server) or from cox_rpc_call_start (client) until on_closed has
 * returned; on_closed is the last callback and comes exactly once, whoever ended the call and however. */
struct cox_rpc_handlers {
    /* Server: a call has come; no message yet. Client: the server has answered, be it to refuse. */
    void (*on_open)(struct cox_rpc_call *call, void *user);
    /* One message, in order. On a server whose method takes one message, exactly once, or not at all. */
    void (*on_message)(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user);
    /* Server, methods that take a stream: the peer will send no more. */
    void (*on_half_close)(struct cox_rpc_call *call, void *user);
    /* The outbox has become empty: everything sent has passed flow control. */
    void (*on_drained)(struct cox_rpc_call *call, void *user);
    /* Client: the server's status, or the transport's, with its details.
     * Server: OK once our own status, whichever it was, is on its way; CANCELLED if the peer cancelled,
     * vanished or ran out of time before that. */
    void (*on_closed)(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user);
};

/* Queues one message. A server's first message of a method that returns one message should go through
 * cox_rpc_reply. Errors: COX_ERR_FULL, nothing is queued, when the outbox would hold more than its bound
 * (an empty outbox takes any message up to COX_MESSAGE_LEN_MAX); the caller decides to wait for on_drained or
 * to cut the peer off by cox_rpc_cancel. COX_ERR_CANCELLED when the call has ended or is finishing.
 * Cost: one pack; no copy. */
enum cox_err cox_rpc_send(struct cox_rpc_call *call, const ProtobufCMessage *message);

/* Packed bytes that flow control has not taken yet, the message in flight included. */
size_t cox_rpc_outbox_len(const struct cox_rpc_call *call);

/* Stops taking messages from the peer, who is soon held by flow control; one message that is already being
 * read may still come. On a client the server's status waits behind the messages not taken. Idempotent. */
void cox_rpc_pause_reads(struct cox_rpc_call *call);
void cox_rpc_resume_reads(struct cox_rpc_call *call);

/* Ends the call now. Server: the peer sees `error`, queued messages are dropped. Client: `error` may be NULL,
 * the server sees a cancelled call; on_closed gets `error`'s status and message, or CANCELLED.
 * on_closed still comes. Harmless on a call that has ended. */
void cox_rpc_cancel(struct cox_rpc_call *call, const struct cox_rpc_error *error);

/* The caller's own pointer, NULL at first. */
void *cox_rpc_call_user(const struct cox_rpc_call *call);
void cox_rpc_call_set_user(struct cox_rpc_call *call, void *user);

/* "ipv4:127.0.0.1:4711"; never NULL; valid as long as the call. */
const char *cox_rpc_call_peer(struct cox_rpc_call *call);
bool cox_rpc_call_inside(const struct cox_rpc_call *call); /* a local call of peer COX_RPC_PEER_INSIDE */

/* The certificate of a server's call; NULL: its peer has shown none, or the connection has no TLS. Valid as
 * long as the call. */
const struct cox_tls_certificate *cox_rpc_call_certificate(struct cox_rpc_call *call);

/* When the call's time is up, on cox_clock_mono_ns(); COX_RPC_FOREVER without a deadline. */
int64_t cox_rpc_call_deadline_ns(const struct cox_rpc_call *call);

/* ---- server ----------------------------------------------------------------------------------------- */

/* A method that is served: its name in the service's descriptor and its handlers. Which methods stream is
 * read from the contract itself (the descriptor set built from proto/). */
struct cox_rpc_method {
    const char *name; /* "SubmitTask" */
    struct cox_rpc_handlers handlers;
};

/* A service. Methods that it declares and the table lacks are answered UNIMPLEMENTED, as are those of
 * services without an entry and unknown paths, each with a message that tells the three apart. */
struct cox_rpc_service {
    const ProtobufCServiceDescriptor *descriptor; /* &coxswain__v1__task_service__descriptor */
    const struct cox_rpc_method *methods;
    size_t n_methods;
    void *user;
};

/* Borrowed for the call, except `services` and all it refers to, which must outlive the server. Zeroes mean
 * the defaults of limits.h. */
struct cox_rpc_server_config {
    const char *address; /* "127.0.0.1:7600", "[::1]:0"; port 0 picks a free one */
    const struct cox_rpc_service *services;
    size_t n_services;
    size_t message_len_max; /* of a received message; beyond: RESOURCE_EXHAUSTED. 0: COX_MESSAGE_LEN_MAX */
    size_t outbox_len_max;  /* of each call. 0: COX_OUTBOX_LEN_MAX */
    size_t calls_max;       /* at once; beyond: RESOURCE_EXHAUSTED with a retry delay. 0: 65536 */
    /* Who may call: asked once a call, gRPC or local, health and reflection included, before its first
     * handler. False: it has failed the call itself. A path that is not served has neither service nor
     * method, and is refused when this returns. NULL: everybody. */
    bool (*admit)(struct cox_rpc_call *call, const ProtobufCServiceDescriptor *service, const char *method,
                  void *admit_user);
    /* A call with a caller (cox_rpc_call_set_caller) is over; its on_closed has returned. May be NULL. */
    void (*released)(void *caller, void *admit_user);
    void *admit_user;
    struct cox_tls *tls; /* ends the TLS of every connection, and outlives the server; NULL: plaintext */
};

/* Starts to listen. Health (Check, Watch) and reflection (v1, v1alpha) are served beside `services`.
 * Errors: COX_ERR_UNAVAILABLE when the address cannot be bound, COX_ERR_INVALID for a table that names a
 * method its descriptor lacks. */
COX_MUST_CHECK enum cox_err cox_rpc_server_create(struct cox_rpc_loop *loop,
                                                  const struct cox_rpc_server_config *config,
                                                  struct cox_rpc_server **ret_server);
int cox_rpc_server_port(const struct cox_rpc_server *server);
size_t cox_rpc_server_calls(const struct cox_rpc_server *server); /* live now, health watches included */

/* What health says of the server and of each of its services; NOT_SERVING at first. Watchers are told. */
void cox_rpc_server_set_serving(struct cox_rpc_server *server, bool serving);

/* Takes no new messages and no new calls until resumed: for a caller whose own queues are full. Messages
 * being read already (one a call) and up to 64 new calls may still come. Idempotent. */
void cox_rpc_server_pause_reads(struct cox_rpc_server *server);
void cox_rpc_server_resume_reads(struct cox_rpc_server *server);

/* Stops listening and tells peers to go elsewhere; live calls go on. Watch cox_rpc_server_calls, then
 * destroy. */
void cox_rpc_server_drain(struct cox_rpc_server *server);

/* Cancels what is live and runs the loop (the on_closed of every call comes) until all is gone. NULL is
 * allowed. */
void cox_rpc_server_destroy(struct cox_rpc_server *server);

/* Answers of a server. Each ends the call once queued messages have left; what is sent after is refused.
 * They may come any time until on_closed, also much later than the callback. A later answer is ignored. */
void cox_rpc_reply(struct cox_rpc_call *call, const ProtobufCMessage *message); /* send, then finish */
void cox_rpc_finish(struct cox_rpc_call *call);                                 /* status OK */
void cox_rpc_fail(struct cox_rpc_call *call, const struct cox_rpc_error *error);

/* Request metadata by lower-case key; data is NULL when absent. Valid as long as the call. */
struct cox_slice cox_rpc_call_metadata(const struct cox_rpc_call *call, const char *key);

/* How often a key came. */
size_t cox_rpc_call_metadata_count(const struct cox_rpc_call *call, const char *key);

/* What `admit` found out about who calls; NULL at first. Services read it. */
void *cox_rpc_call_caller(const struct cox_rpc_call *call);
void cox_rpc_call_set_caller(struct cox_rpc_call *call, void *caller);

struct cox_rpc_metadata {
    const char *key; /* lower case */
    const char *value;
};

/* ---- local calls: the same services without a wire, for the HTTP edge ---------------------------------- */

/* What a local call gets back, on the loop's thread, inline from whatever the service did; they may
 * call the functions below, which only queue, and must not call the service back. Slices are packed messages
 * and live for the call. */
struct cox_rpc_local_callbacks {
    void (*on_message)(void *user, struct cox_slice packed);
    /* A message of so many bytes has reached the service, or never will; may be NULL. The caller bounds what
     * it sends by it: what a paused service does not take waits here. */
    void (*on_read)(void *user, size_t len);
    /* Exactly once, last, also after cox_rpc_local_cancel. */
    void (*on_closed)(void *user, const struct cox_rpc_error *status);
};
/* The peer of calls that a process makes of its own services, for itself. */
#define COX_RPC_PEER_INSIDE "inside"
struct cox_rpc_local_config {
    const char *path;                        /* "/coxswain.v1.TaskService/GetTask" */
    const struct cox_rpc_metadata *metadata; /* copied */
    size_t n_metadata;
    const char *peer;                                /* for cox_rpc_call_peer; copied; NULL: "local" */
    const struct cox_tls_certificate *certificate;   /* for cox_rpc_call_certificate; copied; NULL: none */
    int64_t deadline_ns;                             /* COX_RPC_FOREVER: none */
    size_t outbox_len_max;                           /* bytes sent and not yet taken; 0: the server's */
    const struct cox_rpc_local_callbacks *callbacks; /* must outlive the call */
    void *user;
};
/* Starts a call of a method that takes one message or a stream of them. Handlers see an ordinary call: paused
 * reads, draining, bounds and deadlines hold for it too. Never fails: what is wrong is told by on_closed,
 * which does not come before this returns. */
struct cox_rpc_call *cox_rpc_local_start(struct cox_rpc_server *server,
                                         const struct cox_rpc_local_config *config);
/* One message, packed; a malformed one ends the call INVALID_ARGUMENT. Then half-close. */
void cox_rpc_local_send(struct cox_rpc_call *call, struct cox_slice packed);
void cox_rpc_local_half_close(struct cox_rpc_call *call);
/* The reader has taken so many bytes of messages: room in the outbox again. */
void cox_rpc_local_taken(struct cox_rpc_call *call, size_t len);
void cox_rpc_local_cancel(struct cox_rpc_call *call);

/* ---- client ----------------------------------------------------------------------------------------- */

/* Copied. Zeroes mean the defaults. */
struct cox_rpc_channel_config {
    const char *target;                      /* "127.0.0.1:7600", "dns:///host:port", "unix:/path" */
    const struct cox_rpc_metadata *metadata; /* sent with each call; for example authorization */
    size_t n_metadata;
    bool own_connection;              /* do not share a connection with equal channels (load generators) */
    int64_t reconnect_backoff_ms;     /* first pause between connection attempts. 0: 100 */
    int64_t reconnect_backoff_max_ms; /* 0: 2,000 */
    int64_t connect_limit_ms;         /* for one attempt, until the server has spoken; 0: 5,000 */
    size_t message_len_max;           /* as in the server's configuration */
    const struct cox_tls_files *tls;  /* read now; calls fail when they cannot be. NULL: plaintext */
};

/* Connects when first used. Never fails; a bad target fails its calls. With TLS the server's certificate must
 * be that CA's and name the target's host. */
struct cox_rpc_channel *cox_rpc_channel_create(struct cox_rpc_loop *loop,
                                               const struct cox_rpc_channel_config *config);
/* Cancels its calls; their on_closed come while the loop runs on. NULL is allowed. */
void cox_rpc_channel_destroy(struct cox_rpc_channel *channel);

enum cox_rpc_channel_state {
    COX_RPC_CHANNEL_IDLE,
    COX_RPC_CHANNEL_CONNECTING,
    COX_RPC_CHANNEL_READY,
    COX_RPC_CHANNEL_FAILED /* the last attempt failed; it will try again after its pause */
};
enum cox_rpc_channel_state cox_rpc_channel_state(struct cox_rpc_channel *channel, bool connect);

struct cox_rpc_call_config {
    const ProtobufCServiceDescriptor *service;
    const char *method;                      /* "Attach"; must be one of the service's */
    const struct cox_rpc_handlers *handlers; /* must outlive the call */
    void *user;                              /* given to the handlers */
    int64_t timeout_ms;                      /* of the whole call; 0: none */
    bool wait_for_ready;   /* wait for a connection instead of failing UNAVAILABLE at once */
    size_t outbox_len_max; /* 0: COX_OUTBOX_LEN_MAX */
    const struct cox_rpc_metadata *metadata; /* beside the channel's; copied */
    size_t n_metadata;
};

/* Starts a call of any kind; send with cox_rpc_send. A method that takes one message: send it, then
 * half-close. */
struct cox_rpc_call *cox_rpc_call_start(struct cox_rpc_channel *channel,
                                        const struct cox_rpc_call_config *config);

/* Says that no more messages will be sent, once the queued ones have left. */
void cox_rpc_half_close(struct cox_rpc_call *call);

/* One request, one answer. `response` is NULL unless status->status is COX_RPC_OK; both borrowed. */
typedef void cox_rpc_on_response(const ProtobufCMessage *response, const struct cox_rpc_error *status,
                                 void *user);

/* Fails at once (by callback) while the server cannot be reached; timeout_ms 0: no limit.
 * Returns the call, for cox_rpc_cancel; valid until the callback. Cheaper than a call of four callbacks. */
struct cox_rpc_call *cox_rpc_unary(struct cox_rpc_channel *channel, const ProtobufCServiceDescriptor *service,
                                   const char *method, const ProtobufCMessage *request, int64_t timeout_ms,
                                   cox_rpc_on_response *on_response, void *user);

/* The same, waiting for the answer: runs the loop, other callbacks included. Not from inside a callback.
 *   ret_response  [out] on COX_OK; freed by protobuf_c_message_free_unpacked(response, NULL)
 *   ret_error     [out] on any other; freed by cox_rpc_error_free; may be NULL
 * Returns cox_rpc_status_to_err of the status. */
enum cox_err cox_rpc_unary_blocking(struct cox_rpc_channel *channel,
                                    const ProtobufCServiceDescriptor *service, const char *method,
                                    const ProtobufCMessage *request, int64_t timeout_ms,
                                    ProtobufCMessage **ret_response, struct cox_rpc_error **ret_error);

#endif
