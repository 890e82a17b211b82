/* Requests to model servers: libcurl's multi interface in the edge's event loop. Connections are kept and
 * reused, HTTP/2 is spoken where the server offers it, bodies come in pieces as they arrive.
 *
 * Four timeouts: to connect, to the first byte of content (the caller says when that has come), between two
 * pieces, and in all. Cancelling closes the stream at once: with HTTP/1.1 the socket, so that the server
 * notices. Thread: one, the loop's. No callback comes from inside a function below.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_UPSTREAM_H
#define COX_ORCHESTRATOR_INFERENCE_UPSTREAM_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#include <event2/event.h>

struct upstream;
struct upstream_call;

struct upstream_config {
    struct event_base *base;
    uint32_t connections_max; /* kept open though idle, in all; 0: 16,384 */
    /* None is kept while there are so many sockets, two for each call: its caller has one as well. 0: what
     * the process may have, less 1,024. */
    uint32_t sockets_max;
};
struct upstream *upstream_create(const struct upstream_config *config);
void upstream_destroy(struct upstream *u); /* cancels what is under way, silently. NULL is allowed */

/* Where: made once for an endpoint and URL, shared by its calls. */
struct upstream_target {
    const char *url;     /* "http://10.0.0.7:8000/v1/chat/completions" */
    const char *bearer;  /* Authorization; NULL: none */
    const char *ca_file; /* NULL: the system's */
};

struct upstream_timeouts { /* milliseconds; 0: none */
    int64_t connect_ms, first_ms, stall_ms, total_ms;
};

enum upstream_end {
    UPSTREAM_OK,      /* the response is whole, whatever its status */
    UPSTREAM_CONNECT, /* no connection: nothing of the request was seen */
    UPSTREAM_BROKEN,  /* the connection ended before the response did */
    UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_FIRST_TIMEOUT,
    UPSTREAM_STALL_TIMEOUT,
    UPSTREAM_TOTAL_TIMEOUT,
    UPSTREAM_PROTOCOL /* what came is no HTTP, or too large */
};
const char *upstream_end_text(enum upstream_end end); /* "no connection" */

struct upstream_head {
    int status;
    struct cox_slice content_type;
    struct cox_slice retry_after; /* as it came; empty: none */
    struct cox_slice date;        /* likewise: the server's clock */
    struct cox_slice request_id;  /* x-request-id of the server */
    struct cox_slice server;
};
struct upstream_events {
    void (*on_head)(void *user, const struct upstream_head *head);
    void (*on_data)(void *user, struct cox_slice piece);
    /* Last, exactly once unless cancelled; the call is freed after it. `message` says what curl found. */
    void (*on_end)(void *user, enum upstream_end end, const char *message);
};

struct upstream_request {
    const struct upstream_target *target; /* outlives the call */
    const char *method;                   /* "POST" */
    const struct cox_slice *body;         /* pieces, borrowed until on_end or cancel */
    size_t n_body;
    const char *const *headers; /* "x-request-id: 7" ..., copied */
    size_t n_headers;
    struct upstream_timeouts timeouts;
    const struct upstream_events *events;
    void *user;
};
struct upstream_call *upstream_start(struct upstream *u, const struct upstream_request *request);
void upstream_first(struct upstream_call *c);  /* content has begun: from here on stall_ms counts */
void upstream_cancel(struct upstream_call *c); /* nothing more is told */
/* The reader is slow: nothing more is read until resumed; the stall timeout rests meanwhile. */
void upstream_pause(struct upstream_call *c, bool pause);

#endif
