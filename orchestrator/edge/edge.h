/* The HTTP edge: the services of the gRPC server as JSON over HTTP/1.1, server-sent events, probes, metrics.
 *
 * A thread of its own does everything that a peer can make slow or expensive: sockets, parsing, JSON, gzip.
 * Requests cross to the engine's thread, and answers back, over bounded rings, as packed messages; there they
 * are local calls (cox/rpc.h) of the same handlers. Nothing blocks on either side. What a peer may hold is
 * bounded: its request, its answer, the messages of its stream that it has not read.
 *
 * Thread: every function belongs to the engine's thread.
 */
#ifndef COX_ORCHESTRATOR_EDGE_H
#define COX_ORCHESTRATOR_EDGE_H

#include "../inference/router.h"

#include "cox/rpc.h"
#include "cox/tls.h"
#include "cox/types.h"

struct cox_edge;

/* With a model call that a step's process makes by its worker: what the worker says of it, and what the
 * engine knows. No pointers: it crosses to the other thread as it is. */
#define EDGE_SESSION_LEN_MAX 127u
#define EDGE_TENANT_LEN_MAX 63u
struct cox_edge_claim {
    struct cox_ref ref;
    char session[EDGE_SESSION_LEN_MAX + 1]; /* Welcome.session_key */
    char tenant[EDGE_TENANT_LEN_MAX + 1];   /* "": the default one */
    uint64_t len, output_tokens;            /* of the request; tokens that its answer may have, 0: not said */
};
struct cox_edge_attempt {
    char program[COX_TASK_ID_TEXT_MAX]; /* the task that users know */
    int32_t priority;
    uint64_t critical_path_ms, deadline_ms; /* from now; 0: not known, none */
    bool spent;                             /* its task's budget has nothing left for model calls */
    bool waits;                             /* it has only what others have reserved: to be asked again */
    /* When neither: the call has begun, as far as the engine knows, and its end is to be told. */
    uint64_t output_tokens; /* that its answer may have; 0: as many as it asks for */
    uint64_t reserved, guessed;
};

/* Borrowed for the call, except `loop` and `user`. */
struct cox_edge_config {
    const char *address;      /* "127.0.0.1:7601", "[::1]:0"; port 0 picks a free one; NULL: no listener */
    const char *hosts;        /* names that Host may say beside loopback's and addresses: "a,b"; NULL: none */
    const char *cors_origins; /* "https://a,https://b" that browsers may call from; "*": any; NULL: none */
    struct cox_tls *tls;      /* ends the TLS of every connection, and outlives the edge; NULL: plaintext */
    const char *version;      /* of coxd, for /openapi.json and the Server header */
    struct cox_rpc_loop *loop;
    /* On the engine's thread, once serving. */
    void (*metrics)(void *user, struct cox_buf *out);   /* the text of /metrics */
    bool (*ready)(void *user, struct cox_buf *ret_why); /* false: /readyz is 503, with this reason */
    /* False: that stream does not hold that attempt of that tenant, or it is not current. */
    bool (*attempt)(void *user, const struct cox_edge_claim *claim, struct cox_edge_attempt *ret);
    /* Calls `fn` once all that the engine has done up to now is durable, `attempt` included; never from
     * inside this call. NULL: everything is, at once. */
    void (*when_durable)(void *user, void (*fn)(void *arg), void *arg);
    void *user;
    /* Why the request is refused by its head, before its body is read: the peer is nobody, or, where a
     * service is named, may not call its method. NULL, and no function: let it in. Thread: the edge's. */
    const struct cox_rpc_error *(*refuses)(void *user, struct cox_slice authorization,
                                           const struct cox_tls_certificate *certificate, const char *service,
                                           const char *method);
    /* Likewise, for a call that ends here: whose it is goes to `ret_tenant`. Where the above is, this is. */
    const struct cox_rpc_error *(*admits)(void *user, struct cox_slice authorization,
                                          const struct cox_tls_certificate *certificate,
                                          struct cox_slice tenant, const char *service, const char *method,
                                          char ret_tenant[64]);
    enum placement_policy model_policy;
    struct tape *tape;      /* of model calls, outlives the edge; NULL: none */
    int64_t first_token_ms; /* the least that a model's first token may take; 0: the router's */
    int64_t drain_ms;       /* that model steps may go on once it drains; 0: what steps.h says */
};

/* Listens at once: /healthz says yes and everything else 503 until cox_edge_serve.
 * Errors: COX_ERR_UNAVAILABLE when the address cannot be bound, COX_ERR_INVALID for no address; `error` is a
 * sentence for people. */
COX_MUST_CHECK enum cox_err cox_edge_create(const struct cox_edge_config *config, struct cox_edge **ret,
                                            struct cox_buf *error);
int cox_edge_port(const struct cox_edge *e); /* 0 without a listener */

/* The models that there are from now on; takes the text over. */
void cox_edge_models(struct cox_edge *e, struct catalogue_text *text);
/* For router_stats, and for nothing else. */
struct router *cox_edge_router(struct cox_edge *e);

/* From now on requests become calls of this server. */
void cox_edge_serve(struct cox_edge *e, struct cox_rpc_server *server);

/* Takes what has crossed; to be called after each cox_rpc_loop_run_once, which the edge wakes. */
void cox_edge_turn(struct cox_edge *e);

/* No new requests: 503, and connections close as they become idle. Calls of models go on, those of steps,
 * too.
 */
void cox_edge_drain(struct cox_edge *e);
/* Since then the last of them has ended; the loop is woken then. */
bool cox_edge_drained(const struct cox_edge *e);
/* The server goes: nothing more becomes a call of it. */
void cox_edge_leave(struct cox_edge *e);

/* After its server is gone: answers under way get a moment to leave, then the thread ends. NULL is allowed.
 */
void cox_edge_destroy(struct cox_edge *e);

#endif
