/* Shared by the files of this folder. Unless it says otherwise, everything belongs to the edge's thread. */
#ifndef COX_ORCHESTRATOR_EDGE_INTERNAL_H
#define COX_ORCHESTRATOR_EDGE_INTERNAL_H

#include "edge.h"
#include "lane.h"
#include "parse.h"
#include "route.h"

#include "../inference/attempts.h"
#include "../inference/steps.h"

#include "cox/base/map.h"
#include "cox/limits.h"

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <pthread.h>
#include <stdatomic.h>

/* What would be lost with a connection, least first. */
enum room_rank {
    ROOM_STRANGER, /* nothing was answered on it yet, and no request is whole; or nothing comes any more */
    ROOM_BEGUN,    /* nothing was answered on it yet: a body comes, or a refusal leaves */
    ROOM_IDLE,     /* between two requests */
    ROOM_SLOW,     /* a body comes, or an answer leaves */
    ROOM_RANK_NR,
    ROOM_STAYS = ROOM_RANK_NR /* its answer is being made */
};

enum edge_state { EDGE_STARTING, EDGE_SERVING, EDGE_DRAINING };

struct cox_edge {
    struct cox_edge_config config; /* its texts are ours */
    char *host;                    /* of the address */
    int port;
    pthread_t thread;
    atomic_int state; /* enum edge_state */
    atomic_bool stop;
    atomic_bool drained; /* it drains, and the last model call has ended */

    /* The edge's thread. */
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *woken;
    struct event *give_up;     /* after stop: what has not left by now will not */
    struct cox_list gathering; /* connections with pieces that leave at the end of the turn */
    struct event *gathered;
    struct event *accept_again; /* after an error: it would come again at once */
    bool resting;               /* nobody is let in until accept_again */
    unsigned n_accepted;        /* since it rested last */
    struct cox_list conns;
    size_t n_conns;
    size_t n_calling, calling_max; /* those whose model call is under way: by descriptors, not by room */
    struct cox_map64 networks;     /* struct room_network */
    size_t n_ranked[ROOM_RANK_NR];
    bool told_draining;
    struct router *router;
    struct attempts *attempts;
    struct attach *attach; /* NULL: not serving yet */
    struct cox_list calls;
    struct cox_list claims; /* struct openai: the engine is asked whose they are */
    struct cox_buf openapi; /* made when first asked for */
    char *server;           /* the Server header */

    /* Between the threads. */
    int wake_fd; /* eventfd: the edge's thread is to look */
    atomic_size_t
        held_len; /* bytes of bodies that are being read, and of answers from the service to the socket */
    struct lane to_engine;
    struct lane to_edge;

    /* The engine's thread. */
    struct cox_rpc_server *rpc;
};

/* ---- edge.c ---- */

/* On the edge's thread: calls reach a server from now on. */
void edge_on_serving(struct cox_edge *e);
/* Likewise: no more calls from here, and those under way are to end. Also when it never served. */
void edge_on_draining(struct cox_edge *e);
/* A call of a model may have been the last. */
void edge_mind_calls(struct cox_edge *e);

/* ---- call.c: a call of a service, across the threads ---- */

/* What comes back, on the edge's thread. on_closed comes once and last, not from inside a function below, and
 * not at all after call_drop. */
struct call_events {
    void (*on_message)(void *user, struct cox_slice packed);
    void (*on_read)(void *user, size_t len); /* of what was sent */
    void (*on_closed)(void *user, const struct cox_rpc_error *status);
};
struct call;
extern const struct cox_rpc_error call_too_much;
typedef void call_ask(struct cox_edge *e, struct cox_slice question, struct cox_buf *out, bool *ret_ok);

/* The certificate, which may be NULL, is the call's from now on. */
struct call *call_start(struct cox_edge *e, const char *path, const struct cox_rpc_metadata *metadata,
                        size_t n_metadata, const char *peer, struct cox_tls_certificate *certificate,
                        const struct call_events *events, void *user);
/* As coxd itself, for a tenant (empty: the default one): let in by cox_access_admit whatever it calls, and
 * with the outbox of a worker, for its messages may be large. */
struct call *call_start_inside(struct cox_edge *e, const char *path, struct cox_slice tenant,
                               const struct call_events *events, void *user);
/* Instead of a method: `ask` runs on the engine's thread and is given the question, which is copied; what it
 * wrote comes as the one message, and the status is OK or UNAVAILABLE. */
struct call *call_start_ask(struct cox_edge *e, call_ask *ask, struct cox_slice question,
                            const struct call_events *events, void *user);
/* Likewise, of what changes something there: the answer comes once that is durable. */
struct call *call_start_change(struct cox_edge *e, call_ask *ask, struct cox_slice question,
                               const struct call_events *events, void *user);
void call_send(struct call *c, struct cox_slice packed);
void call_half_close(struct call *c);
void call_taken(struct call *c, size_t len); /* so many bytes of messages have been passed on */
void call_drop(struct call *c);              /* cancels; nothing more is told */

void call_engine_turn(struct cox_edge *e); /* engine's thread */
void call_edge_turn(struct cox_edge *e);
/* `fn` runs on the edge's thread, after everything that was sent there before. Engine's thread. */
void call_post(struct cox_edge *e, void (*fn)(struct cox_edge *e, void *arg), void *arg);
void call_fini(struct cox_edge *e); /* when both threads are done */

/* ---- attach.c: the router as a worker of the engine ---- */

struct attach;
/* Attaches as soon as calls reach a server, and again whenever the stream has ended. */
struct attach *attach_create(struct cox_edge *e, struct router *router, struct attempts *attempts);
void attach_on_spend(struct attach *a);      /* there is something to take from the attempts */
void attach_shutdown(struct attach *a);      /* no more attempts; what runs has the edge's drain_ms */
bool attach_is_over(const struct attach *a); /* since then what ran has ended, and the engine knows */
void attach_destroy(struct attach *a);       /* before its router, and when no callback comes any more */

/* ---- conn.c: a connection and the request on it ---- */

enum conn_phase {
    CONN_HEAD,      /* reading a head, or waiting for one */
    CONN_BODY,      /* reading a body */
    CONN_ANSWERING, /* the request is whole; the answer is under way */
    CONN_LEAVING,   /* the answer is in the socket's hands; then it closes */
    CONN_LINGERING  /* closed for writing; what still comes is read over, or the peer would see a reset */
};

struct exchange;
struct conn {
    struct cox_edge *edge;
    struct cox_list node;
    struct room_network *network;
    enum room_rank rank;
    struct cox_list line; /* of its network's, by rank */
    struct bufferevent *bev;
    struct event *timer;
    char peer[64];
    enum conn_phase phase;
    struct cox_buf head_bytes; /* what `head` borrows from */
    struct edge_head head;
    struct edge_chunked chunked;
    uint64_t body_left; /* of a body with a length */
    bool body_over;
    size_t body_max;
    struct cox_buf body;
    size_t held_len; /* ours of edge->held_len */
    bool streaming_body;
    bool body_paused;
    bool head_begun;
    bool crumbs_wait; /* the kernel keeps its first bytes until they could be a line */
    bool served;      /* something was asked for on it and answered */
    bool answered;    /* the status line has left */
    bool chunked_answer;
    bool no_body;     /* HEAD, 204 */
    bool close_after; /* no more requests on it */
    bool calls;       /* a model: it takes no room meanwhile */
    bool gathers;     /* pieces of a turn of the loop leave together */
    bool writing;     /* the loop waits for the socket to take something */
    struct cox_list gathering;
    struct cox_buf gathered;
    struct exchange *exchange;
};

void conn_accept(struct cox_edge *e, int fd, const struct sockaddr *peer);
void conn_destroy(struct conn *c);
/* Nothing is under way on it: it may be closed without loss. */
bool conn_idle(const struct conn *c);

/* Lets people in, or not, as there is room. */
void conn_mind_listener(struct cox_edge *e);

/* A model call is under way on it, or not any more. */
void conn_calls(struct conn *c, bool calls);

/* An answer as a whole. `headers` are whole lines with CRLF, may be NULL. Bodies are compressed when that is
 * worth it and wanted. */
struct answer {
    int status;
    const char *type; /* Content-Type; NULL: none */
    const char *headers;
    struct cox_slice body;
    bool plain; /* never compressed */
};
void conn_answer(struct conn *c, const struct answer *a);
/* An answer in pieces: the head, then conn_write, then conn_end. */
void conn_begin(struct conn *c, const struct answer *a);
void conn_write(struct conn *c, struct cox_slice piece);
void conn_end(struct conn *c);
void conn_flush_gathered(struct cox_edge *e);
void conn_cut(struct conn *c); /* mid-answer: the peer must see that it is not whole */
/* What its peer has shown, or NULL; freed by cox_free. */
struct cox_tls_certificate *conn_certificate(const struct conn *c);
size_t conn_unsent_len(const struct conn *c);      /* not yet taken by the socket */
void conn_timer(struct conn *c, int64_t delay_ms); /* exchange_on_time, once; 0: off */
void conn_pause_body(struct conn *c, bool pause);  /* of a streamed body */

/* ---- room.c: who gives way when there is no room ---- */

void room_enter(struct conn *c, uint64_t network); /* cox_network_of */
void room_stand(struct conn *c, enum room_rank rank);
void room_leave(struct conn *c);
size_t room_taken(const struct cox_edge *e); /* connections that count */
/* Who gives way, if not the newest; NULL: nobody. */
struct conn *room_first(const struct cox_edge *e, const struct conn *newest);
/* Whether somebody can be let in: there is a place, or one that its owner does not use. */
bool room_is_there(const struct cox_edge *e);

/* ---- exchange.c: what a request asks for ---- */

/* The head has come. Decides what becomes of the body (c->body_max, c->streaming_body), or answers at once.
 */
void exchange_on_head(struct conn *c);
void exchange_on_piece(struct conn *c, struct cox_slice piece); /* of a streamed body */
void exchange_on_body(struct conn *c);                          /* it is whole */
void exchange_refuse_held(struct conn *c);                      /* all bodies together are too much */
void exchange_on_drained(struct conn *c);                       /* the socket has taken nearly everything */
void exchange_on_time(struct conn *c);
void exchange_end(struct conn *c); /* answered, or the peer is gone: frees c->exchange */

/* ---- stream.c: answers in pieces ---- */

struct exchange {
    struct conn *conn;
    const struct route *route;
    struct edge_param path_params[ROUTE_PARAMS_MAX];
    size_t n_path_params;
    struct cox_buf path_memory;
    struct edge_param query[EDGE_PARAMS_MAX];
    size_t n_query;
    struct cox_buf query_memory;
    struct call *call;
    struct openai *openai;
    char tenant[64];        /* of a call of a model */
    int status;             /* that its endpoint answered */
    struct cox_buf type;    /* and its Content-Type */
    struct cox_buf message; /* of a unary answer */
    bool has_message;
    bool head_only;      /* HEAD */
    bool events;         /* a stream shown as server-sent events */
    bool begun;          /* its answer's head is out */
    size_t untaken_len;  /* messages passed on and not yet acknowledged to the call */
    uint64_t upload_len; /* of a PUT: what the body says */
    uint64_t uploaded_len;
    size_t unread_len;      /* sent to the call and not yet read by the service */
    struct cox_buf headers; /* extra lines for the answer */
};

extern const struct call_events stream_events;
extern const struct call_events upload_events;
void stream_start(struct exchange *x); /* the call has been started */
void stream_on_time(struct exchange *x);
void stream_on_drained(struct exchange *x);
void upload_start(struct exchange *x);
void upload_piece(struct exchange *x, struct cox_slice piece);
void upload_end(struct exchange *x);

/* ---- openai.c ---- */

bool openai_is_path(const struct conn *c); /* errors are to have OpenAI's shape there */
void openai_put_error(struct cox_buf *out, int http_status, const struct cox_rpc_error *error);
void openai_start(struct exchange *x); /* the body is whole */
void openai_on_drained(struct exchange *x);
void openai_drop(struct openai *o);
void openai_fini(struct cox_edge *e); /* after its connections */
void openai_list_models(struct exchange *x);
void openai_get_model(struct exchange *x);

/* ---- exchange.c, for stream.c and openai.c ---- */

bool exchange_inflate_body(struct conn *c, struct cox_buf *inflated); /* false when the body was refused */

/* Starts the call of the route with one packed message. */
void exchange_call(struct exchange *x, struct cox_slice packed, const struct call_events *events);
void exchange_answer_message(struct exchange *x, struct cox_slice packed);

/* ---- answer.c ---- */

int answer_http_status(enum cox_rpc_status status);
const char *answer_reason(int http_status); /* "Not Found" */
/* Answers with an error of a service, or one of our own. */
void answer_error(struct conn *c, const struct cox_rpc_error *error);
void answer_refusal(struct conn *c, int http_status, const char *reason, const char *headers,
                    const char *message);
/* {"error": ...} of an error, for streams that have begun. */
void answer_put_error(struct cox_buf *out, int http_status, const struct cox_rpc_error *error);

/* ---- gzip.c ---- */

bool gzip_pack(struct cox_slice in, struct cox_buf *out);
/* False when it is no gzip; COX_ERR_FULL beyond len_max. */
COX_MUST_CHECK enum cox_err gzip_unpack(struct cox_slice in, size_t len_max, struct cox_buf *out);

/* ---- guard.c: who may call, from which page ---- */

/* NULL, or why the request is refused. */
const char *guard_host(const struct cox_edge *e, const struct edge_head *h);
const char *guard_origin(const struct cox_edge *e, const struct edge_head *h);
/* Appends the lines that let a page of an allowed origin read the answer. */
void guard_put_cors(const struct cox_edge *e, const struct edge_head *h, struct cox_buf *headers);

/* ---- openapi.c ---- */

void openapi_put(struct cox_buf *out, const char *version);

/* ---- edge.c ---- */

void edge_wake_engine(struct cox_edge *e);

#endif
