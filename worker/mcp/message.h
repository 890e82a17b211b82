/* JSON-RPC 2.0 as the Model Context Protocol uses it: one message of a server, read. Pure. */
#ifndef COX_WORKER_MCP_MESSAGE_H
#define COX_WORKER_MCP_MESSAGE_H

#include "cox/base/buf.h"

#include <stdint.h>

#define MCP_MESSAGE_LEN_MAX (64u << 20)

enum mcp_kind { MCP_RESULT, MCP_ERROR, MCP_REQUEST, MCP_NOTIFICATION };

/* Slices borrow from the text. */
struct mcp_message {
    enum mcp_kind kind;
    uint64_t id;               /* of an answer, which one of ours it answers; 0: none that could be ours */
    struct cox_slice their_id; /* of a request: raw */
    struct cox_slice method;   /* raw, a string */
    struct cox_slice params;   /* of a request or notification; empty: none */
    struct cox_slice result;   /* an object */
    int64_t code;              /* of an error */
    struct cox_slice why;      /* raw, a string; empty: none */
    struct cox_slice data;     /* empty: none */
};

/* Reads one JSON value that has passed cox_json_check, which is no batch. NULL, or what was expected of it.
 */
const char *mcp_message_read(struct cox_slice text, struct mcp_message *ret);

#endif
