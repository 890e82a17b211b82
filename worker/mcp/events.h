/* Server-sent events as a server of the Model Context Protocol answers in, in pieces of any size. Pure.
 * Source: WHATWG HTML, "Server-sent events". */
#ifndef COX_WORKER_MCP_EVENTS_H
#define COX_WORKER_MCP_EVENTS_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#define MCP_EVENT_ID_LEN_MAX 1024u

/* Zero-initialised. */
struct mcp_events {
    struct cox_buf last_id; /* of the last event that had one: from there a stream can be gone on with */
    int64_t retry_ms;       /* how long to wait before that; 0: nothing was said */
    uint64_t n;             /* events so far, those without data among them */

    /* private */
    struct cox_buf line, data, id;
    bool has_data, has_id, cr, begun;
};
void mcp_events_fini(struct mcp_events *e);
/* Another connection: what was begun is not gone on with, `last_id` stays. */
void mcp_events_restart(struct mcp_events *e);

/* `on_event` gets the data of each whole event that has some. False from it: the rest is not looked at.
 * Errors: COX_ERR_FULL, an event longer than `len_max`. */
COX_MUST_CHECK enum cox_err mcp_events_feed(struct mcp_events *e, struct cox_slice piece, size_t len_max,
                                            bool (*on_event)(void *user, struct cox_slice data), void *user);

#endif
