/* What a request says, as the message of its method: parameters of the path and the query, and the JSON of
 * the body, each to the field of its name. Pure; knows no message of ours by name, except two conventions:
 *
 *   document   a body with "api_version" at its top level is the `document` of a message that has one
 *   key        the Idempotency-Key header is the `key` of a message that has one
 *
 * Query parameters: a field's name, or the singular of a repeated one's (`label` for `labels`, `status` for
 * `statuses`). Repeat it for several values. Maps take label=NAME=VALUE or labels.NAME=VALUE. Booleans take
 * true, false, 1, 0, and nothing for true. Fields of JSON take JSON.
 */
#ifndef COX_ORCHESTRATOR_EDGE_MAP_H
#define COX_ORCHESTRATOR_EDGE_MAP_H

#include "parse.h"

#include "cox/base/err.h"

#include <protobuf-c/protobuf-c.h>

struct map_input {
    const ProtobufCMessageDescriptor *type;
    const struct edge_param *fixed; /* of the route and its path */
    size_t n_fixed;
    const struct edge_param *query;
    size_t n_query;
    struct cox_slice body; /* JSON; empty: none */
    struct cox_slice key;  /* Idempotency-Key; data NULL: absent */
};

/* What is wrong, where. */
struct map_error {
    struct cox_buf field;       /* "labels.x"; empty: the body as a whole */
    struct cox_buf description; /* "expected an integer, found \"x\"" */
};
void map_error_fini(struct map_error *e);

/* Appends the packed message. Errors: COX_ERR_INVALID, told in *ret_error. */
COX_MUST_CHECK enum cox_err map_request(const struct map_input *in, struct cox_buf *packed,
                                        struct map_error *ret_error);

#endif
