/* The `mcp` handler: a call of a tool of a server of the Model Context Protocol, or the list of its tools.
 *
 * A server is kept for the next call of the same task: of the same workspace where the step has one, the same
 * server, its secrets and resources included. Calls of one server run beside each other in it. It is stopped
 * when nobody called it for MCP_IDLE_MS (MCP_WORKSPACE_IDLE_MS), when its task is released, when it breaks
 * the protocol, or when it has said nothing at all to a call that was stopped. */
#ifndef COX_WORKER_MCP_MCP_H
#define COX_WORKER_MCP_MCP_H

#include "../handlers/handler.h"
#include "../handlers/reach.h"
#include "../janitor.h"

#define MCP_IDLE_MS 60000
#define MCP_WORKSPACE_IDLE_MS                                                                                \
    300000                /* of one in a workspace: an agent comes back when its model has spoken */
#define MCP_PROBE_MS 5000 /* a process that keeps silent so long is asked the older way, too */
#define MCP_HANDSHAKE_LIMIT_MS 120000 /* a package manager may have to fetch the server first */
#define MCP_SPARE 16u                 /* servers kept beyond a worker's slots */

struct mcp;

struct mcp_config {
    struct handler_host *host;
    const struct reach *reach; /* copied */
    struct janitor *janitor;
    const char *dir;  /* servers without a workspace get directories in it; must outlive this */
    uint32_t n_max;   /* servers kept; the one unused for longest goes first */
    int64_t idle_ms;  /* 0: MCP_IDLE_MS or MCP_WORKSPACE_IDLE_MS */
    int64_t probe_ms; /* 0: MCP_PROBE_MS */
};

struct mcp *mcp_create(const struct mcp_config *config);
void mcp_destroy(struct mcp *m); /* its calls are destroyed before. NULL is allowed */

/* As other handlers start. `args->spec` is {"mcp": SERVER, "tool": "...", "arguments": {...}} or {"mcp":
 * SERVER, "list": true}; SERVER is {"url", "headers"} or {"command", "args", "env", "sandbox"}. The thread
 * must have every signal blocked. */
struct call *mcp_call(struct mcp *m, const struct call_args *args,
                      void (*on_done)(struct call *call, struct outcome *outcome),
                      void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data),
                      void *user);

/* The task needs none of its servers any more; those that are called go when that is over. */
void mcp_forget(struct mcp *m, struct cox_slice task_id);

uint32_t mcp_n_servers(const struct mcp *m);

#endif
