/* The one table of what is served: METHOD and path -> method of a service. Requests are matched by it,
 * /openapi.json is made of it, and the tests walk over it. */
#ifndef COX_ORCHESTRATOR_EDGE_ROUTE_H
#define COX_ORCHESTRATOR_EDGE_ROUTE_H

#include "parse.h"

#include "../inference/chat.h"

#include <protobuf-c/protobuf-c.h>

enum route_kind {
    ROUTE_UNARY,     /* one message in, one out, both JSON */
    ROUTE_EVENTS,    /* a stream of messages as server-sent events */
    ROUTE_LOGS,      /* a stream of GetLogs: text, or events where the client accepts them */
    ROUTE_BLOB,      /* a stream of GetBlob: bytes */
    ROUTE_UPLOAD,    /* the body as a stream of PutBlob */
    ROUTE_LIVENESS,  /* the process lives */
    ROUTE_READINESS, /* it serves */
    ROUTE_METRICS,
    ROUTE_OPENAPI,
    ROUTE_COMPLETE, /* OpenAI's, by the router */
    ROUTE_MODELS,
    ROUTE_MODEL
};

struct route {
    const char *verb; /* "GET" */
    /* Segments are text, {field} (any text without ':'), {+field} (any text), {field}:word. */
    const char *pattern;
    const ProtobufCServiceDescriptor *service; /* NULL: answered here */
    const char *method;
    const char *fixed;  /* "approve=true": fields that the route itself sets; NULL: none */
    const char *result; /* the field of the response that is the whole answer; NULL: all of it */
    enum route_kind kind;
    enum chat_api api; /* of ROUTE_COMPLETE */
};

extern const struct route routes[];
extern const size_t n_routes;

#define ROUTE_PARAMS_MAX 4u

/* The route of a request. HEAD is GET. Path parameters go to `params`, in memory of `*memory`.
 * NULL: *ret_allowed gets "GET, HEAD, POST" when the path exists with other methods, else stays empty. */
const struct route *route_find(struct cox_slice verb, struct cox_slice path, struct cox_buf *memory,
                               struct edge_param params[ROUTE_PARAMS_MAX], size_t *ret_n_params,
                               struct cox_buf *ret_allowed);

const ProtobufCMessageDescriptor *route_input(const struct route *r); /* NULL without a service */
const ProtobufCMessageDescriptor *route_output(const struct route *r);
bool route_has_body(const struct route *r); /* POST and PUT */

#endif
