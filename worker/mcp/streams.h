/* A server over streamable HTTP: a request a message, whose answer is one message or a stream of events; and,
 * in the older era, a session, a stream for what the server says by itself, and streams that can be gone on
 * with. */
#ifndef COX_WORKER_MCP_STREAMS_H
#define COX_WORKER_MCP_STREAMS_H

#include "../curl_loop.h"
#include "../handlers/reach.h"
#include "client.h"

#define MCP_RESUMES_MAX 5u /* in a row, without anything new */
#define MCP_RETRY_MS 1000  /* before that, where the server says nothing of it */
#define MCP_RETRY_MAX_MS 30000
#define MCP_BYE_LIMIT_MS 5000           /* for the end of a session */
#define MCP_ASIDE_MAX 64u               /* notifications and answers under way at once; more are dropped */
#define MCP_REFUSAL_LEN_MAX (64u << 10) /* of an answer that is no success */
#define MCP_SESSION_LEN_MAX 1024u

struct mcp_streams;

struct mcp_streams_config {
    struct event_base *base;
    struct curl_loop *loop; /* its on_done is mcp_streams_on_done */
    const struct reach *reach;
    struct mcp_client *client;
    const struct redactor *redactor; /* NULL: it has no secrets. Referenced */
};

/* `server` is {"url", "headers"}, borrowed. NULL: `message` names what was expected of it. */
struct mcp_streams *mcp_streams_start(const struct mcp_streams_config *config, struct cox_slice server,
                                      struct cox_buf *message);
void mcp_streams_send(struct mcp_streams *s, const struct mcp_outgoing *m);
void mcp_streams_drop(struct mcp_streams *s, uint64_t id);
/* The handshake is over: of the older era a stream is opened for what the server says by itself. */
void mcp_streams_listen(struct mcp_streams *s);

/* The session is ended by a request that is a member of `leaving` until it is over, or is freed by
 * mcp_streams_kill_all. The client is not told of anything any more. NULL is allowed. */
void mcp_streams_stop(struct mcp_streams *s, struct cox_list *leaving);
void mcp_streams_kill_all(struct cox_list *leaving);

void mcp_streams_on_done(void *owner, CURLcode result);

#endif
