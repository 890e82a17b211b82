/* A client from its first question to its last:
 *
 *   NEW           nobody has asked
 *   PROBING       server/discover is on its way: does it know the newer era?
 *   INITIALIZING  it may not, or has lost the session: initialize is on its way
 *   READY         requests go out as they come
 *   BROKEN        nothing more will be answered */
#ifndef COX_WORKER_MCP_CLIENT_STATE_H
#define COX_WORKER_MCP_CLIENT_STATE_H

#include "client.h"

#include "cox/base/map.h"

#define MCP_HEADER_MISMATCH (-32020)
#define MCP_UNSUPPORTED_VERSION (-32022)

enum mcp_state { NEW, PROBING, INITIALIZING, READY, BROKEN };

struct mcp_client {
    const struct mcp_client_ops *ops;
    void *user;
    bool http;
    enum mcp_state state;
    bool modern;
    const char *version; /* the handshake's; NULL: none yet */
    uint64_t last_id;
    uint64_t probe_id, init_id; /* 0: no answer is awaited */
    bool init_failed;
    uint32_t session;        /* how often there was a handshake */
    struct cox_list waiting; /* requests that are not sent */
    struct cox_map64 flying; /* by id */
    struct cox_list asked;   /* all of `flying` */
    struct cox_buf tools;    /* the last list, its items */
    int64_t tools_until_ms;  /* 0: there is none */
    uint64_t n_heard, n_odd;
};

/* client.c */
void mcp_break_off(struct mcp_client *c, enum cox_code code, struct cox_slice message);
void mcp_send_request(struct mcp_client *c, struct mcp_request *r);
/* A message that is no request of somebody's; takes `text` over. id 0: nobody answers it. */
void mcp_send_plain(struct mcp_client *c, uint64_t id, const char *method, struct cox_buf *text);
void mcp_put_client_info(struct cox_buf *out);
void mcp_put_modern(struct cox_buf *out); /* what each request of the newer era says of itself, in `_meta` */

/* handshake.c */
void mcp_probe(struct mcp_client *c);
void mcp_initialize(struct mcp_client *c);
void mcp_probed(struct mcp_client *c, const struct mcp_message *m);
void mcp_initialized(struct mcp_client *c, const struct mcp_message *m);
void mcp_go_legacy(struct mcp_client *c); /* it does not know the newer era */
bool mcp_is_modern_error(int64_t code);

#endif
