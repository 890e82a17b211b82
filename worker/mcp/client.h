/* The client's side of the Model Context Protocol towards one server, without a transport and without a
 * clock.
 *
 * Both eras: revision 2026-07-28, where every request says of itself which version it is of, and 2024-11-05
 * to 2025-11-25, which begin with `initialize`. Which one a server speaks is found out by asking it
 * (`server/discover`) before anything else; what is asked meanwhile waits.
 *
 *     mcp_client_ask(client, request)   ->  ops.send: messages for the server
 *     mcp_client_take(client, message)  ->  request.on_done, once a request
 *
 * A transport hands over what the server says, and what became of it: `take`, `rejected`, `failed`, `gone`.
 * Callbacks may come within each of these calls and within `ask`; `on_done` must not free the client.
 * Bounded whatever the server says: the numbers below. Thread: one. */
#ifndef COX_WORKER_MCP_CLIENT_H
#define COX_WORKER_MCP_CLIENT_H

#include "../handlers/handler.h"
#include "message.h"

#include "cox/base/list.h"
#include "cox/base/map.h"

#define MCP_VERSION "2026-07-28"
#define MCP_VERSION_LEGACY "2025-11-25" /* the newest that begins with `initialize` */

#define MCP_PAGES_MAX 1000u /* of a list of tools */
#define MCP_TOOLS_MAX 4096u
#define MCP_LIST_LEN_MAX (4u << 20)   /* of all of it */
#define MCP_TOOL_LEN_MAX (256u << 10) /* of one: a longer one is left out */
#define MCP_TOOL_NAME_LEN_MAX 256u
#define MCP_LIST_TTL_MS 60000 /* of a list, where the server says nothing of it */
#define MCP_LIST_TTL_MAX_MS 3600000
#define MCP_ROUNDS_MAX 8u /* a server may ask for its request again so often, with what it gave */
#define MCP_ODD_MAX 1000u /* messages that answer nothing or are none, then nobody listens any more */
#define MCP_ASKED_MAX 65536u

enum mcp_what { MCP_LIST_TOOLS, MCP_CALL_TOOL };

/* A question of ours. Its owner keeps it until on_done or mcp_client_cancel. */
struct mcp_request {
    enum mcp_what what;
    struct cox_slice tool, arguments; /* of a call; raw JSON: a string, an object. Borrowed */
    struct cox_slice traceparent;     /* empty: none. Borrowed */
    int64_t now_ms;                   /* of any clock: when it was asked */
    /* Once, unless it is cancelled. `outcome` is taken over by whoever is told. */
    void (*on_done)(struct mcp_request *r, struct outcome *outcome);
    void (*on_log)(struct mcp_request *r, struct cox_slice text);
    void *user;

    /* private */
    struct cox_list link;
    bool asked, calling; /* calling: the tool itself, not yet or no more the list that it takes first */
    bool resent, relisted;
    uint64_t id;    /* 0: waits until the server is known */
    uint64_t token; /* of progress */
    uint32_t session;
    unsigned rounds, n_pages, n_tools;
    int64_t ttl_ms;
    struct cox_buf state, cursor, tools;
    struct cox_mapb names;
};

/* For the server. Borrowed for the call. */
struct mcp_outgoing {
    uint64_t id;        /* of a request; 0: a notification or an answer, which nobody answers */
    const char *method; /* NULL: an answer */
    struct cox_slice text;
    struct cox_slice tool;   /* raw; empty: none */
    struct cox_slice params; /* "Mcp-Param-X: y" lines, each ended by LF; empty: none */
    const char *version;     /* what a header says of it; NULL: nothing */
    bool modern;
};

struct mcp_client_ops {
    void (*send)(void *user, const struct mcp_outgoing *m);
    void (*drop)(void *user, uint64_t id); /* nobody waits for the answer to it any more */
    void (*ready)(void *user);             /* which era is known: requests are on their way */
    void (*broken)(void *user);            /* nothing more can be asked; not told of what `gone` said */
};

struct mcp_client;

/* `http`: a request is given up by closing its connection, and parameters may have to be headers. */
struct mcp_client *mcp_client_create(const struct mcp_client_ops *ops, void *user, bool http);
void mcp_client_destroy(struct mcp_client *c); /* its requests have ended. NULL is allowed */

void mcp_client_ask(struct mcp_client *c, struct mcp_request *r);
/* It is on_done no more. */
void mcp_client_cancel(struct mcp_client *c, struct mcp_request *r);

/* One message of the server; `via`: of the request in whose answer it came, 0: not known.
 * False: `text` is no message, and was counted. */
bool mcp_client_take(struct mcp_client *c, struct cox_slice text, uint64_t via);
/* HTTP said `status` to request `id`, with `body`. `in_session`: the request named a session. */
void mcp_client_rejected(struct mcp_client *c, uint64_t id, long status, struct cox_slice body,
                         bool in_session);
/* Request `id` will not be answered. */
void mcp_client_failed(struct mcp_client *c, uint64_t id, enum cox_code code, struct cox_slice message);
/* No request will be. */
void mcp_client_gone(struct mcp_client *c, enum cox_code code, struct cox_slice message);
/* The server has kept silent for a while about what it was asked first: it may not know the newer era. */
void mcp_client_probe_late(struct mcp_client *c);
/* What the server says beside the protocol. */
void mcp_client_say(struct mcp_client *c, struct cox_slice text);

bool mcp_client_is_ready(const struct mcp_client *c);
bool mcp_client_is_broken(const struct mcp_client *c);
bool mcp_client_is_modern(const struct mcp_client *c);
bool mcp_client_awaits(const struct mcp_client *c, uint64_t id); /* an answer to that request */
uint64_t mcp_client_n_heard(const struct mcp_client *c);         /* messages so far */

#endif
