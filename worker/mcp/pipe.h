/* A server that is a process: messages, a line each, on its standard input and output; what it says on
 * standard error is told to whoever waits for it. */
#ifndef COX_WORKER_MCP_PIPE_H
#define COX_WORKER_MCP_PIPE_H

#include "../handlers/run_spec.h"
#include "client.h"

#define MCP_PIPE_CLOSE_GRACE_MS 1000        /* from the end of its input to SIGTERM */
#define MCP_PIPE_KILL_GRACE_MS 2000         /* from SIGTERM to SIGKILL */
#define MCP_PIPE_UNREAD_LEN_MAX (64u << 20) /* of ours that it does not read */

struct mcp_pipe;

struct mcp_pipe_config {
    struct handler_host *host;
    struct mcp_client *client;
    const char *dir; /* its working directory */
    const char *bundle_dir;
    const struct cox_resources *resources;
    const struct redactor *redactor; /* of its secrets; NULL: it has none */
    void (*on_gone)(void *user); /* it has ended by itself, and the client knows. Not while it is stopped */
    void *user;
};

/* NULL: it could not be started, and `message` says why. Borrows all but `client`, and references `redactor`.
 */
struct mcp_pipe *mcp_pipe_start(const struct mcp_pipe_config *config, const struct run_spec *spec,
                                struct cox_buf *message);
void mcp_pipe_send(struct mcp_pipe *s, struct cox_slice text);

/* Its input ends, then it is asked to stop, then killed. It moves to `leaving`, whose members free themselves
 * once they are gone, or are freed by mcp_pipe_kill_all. The client is not told of anything any more. */
void mcp_pipe_stop(struct mcp_pipe *s, struct cox_list *leaving);
void mcp_pipe_destroy(struct mcp_pipe *s); /* kills it now. NULL is allowed */
void mcp_pipe_kill_all(struct cox_list *leaving);

#endif
