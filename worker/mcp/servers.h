/* The servers that a worker keeps; private to this folder. */
#ifndef COX_WORKER_MCP_SERVERS_H
#define COX_WORKER_MCP_SERVERS_H

#include "client.h"
#include "mcp.h"

struct mcp_server;

/* The server that `spec` (SERVER) says, kept or begun now; one more call is under way at it. NULL: it cannot
 * be had, and `ret` says why. */
struct mcp_server *mcp_server_hold(struct mcp *m, const struct call_args *args, struct cox_slice spec,
                                   struct outcome *ret);
void mcp_server_release(struct mcp_server *s);
struct mcp_client *mcp_server_client(const struct mcp_server *s);
uint32_t mcp_server_n_calls(const struct mcp_server *s);
/* Nobody finds it any more; it is stopped once its calls are over. */
void mcp_server_doom(struct mcp_server *s);

struct handler_host *mcp_host(const struct mcp *m);

#endif
