/* Inside of upstream: a call and what it belongs to. */
#ifndef COX_ORCHESTRATOR_INFERENCE_UPSTREAM_CALL_H
#define COX_ORCHESTRATOR_INFERENCE_UPSTREAM_CALL_H

#include "upstream.h"
#include "upstream_sockets.h"

#include "cox/base/heap.h"
#include "cox/base/list.h"
#include "cox/base/map.h"

#include <curl/curl.h>

#define ONE_PIECE_LEN_MAX (60u << 10) /* a body up to this goes out with its head, in one system call */

/* Some of the calls, with a multi handle of their own. curl looks at all connections to a server, in use or
 * not, when it wants one: with 9,000 of them that took ten times as long as all else, and so they are parted.
 * It also looks at all connections when it has to give one up: so each server has a lane that keeps its
 * connections, and no lane is that of more servers than it may keep connections. When it has no room, the
 * first lane with a connection to spare is used, else the first with room. */
struct lane {
    struct upstream *u;
    CURLM *multi;
    struct event *timer; /* curl's own */
    uint32_t n_calls;
    uint32_t n_open; /* sockets */
    uint32_t n_servers;
    uint32_t kept_max; /* connections */
    bool is_due;       /* curl wants to be called at once */
};

struct upstream {
    struct event_base *base;
    struct upstream_sockets *sockets;
    struct event *soon;   /* at once, but not from inside of who asked */
    struct event *expiry; /* of the first deadline */
    struct cox_heap deadlines;
    uint64_t expiry_armed;    /* the key that `expiry` stands for; UINT64_MAX: none */
    struct cox_mapb routes;   /* by what a target is */
    struct cox_mapb servers;  /* by the beginning of its URL */
    struct cox_list quiet;    /* servers without a handle, the longest so first */
    size_t lane_with_seat;    /* no lane before this one can take another server */
    struct cox_list all_idle; /* calls without work, the longest idle first */
    struct cox_list wanting;  /* calls that something is to be done for, soon */
    struct cox_list underway; /* all others */
    uint32_t n_idle, n_busy;
    bool in_curl;
    bool soon_runs;
    struct lane **lanes;
    size_t n_lanes;
    uint32_t connections_max, sockets_max;
};

/* Where connections lead to. Outlives its routes while there are not too many. */
struct upstream_server {
    struct cox_list node; /* of the quiet ones */
    char *key;            /* "http://10.0.0.7:8000" */
    size_t key_len;
    struct lane *lane; /* where its connections are kept; NULL: there are too many servers */
    uint32_t n_routes;
    bool has_spread; /* its lane was full once, and others have connections to it */
};

/* Calls to the same target: what they share. Lives as long as one of its handles. */
struct route {
    struct upstream_server *server;
    char *key; /* url, bearer and ca_file, NUL behind each */
    size_t key_len;
    struct cox_list idle;
    uint32_t n_calls;
    char *authorization;          /* header; NULL: none */
    struct curl_slist headers[3]; /* linked behind those of a call */
};

enum phase { PHASE_IDLE, PHASE_START, PHASE_RUNS, PHASE_CANCEL };

struct upstream_call {
    struct upstream *u;
    struct route *route;
    struct lane *lane; /* while curl has it */
    CURL *easy;
    struct cox_list of_route;   /* while idle */
    struct cox_list node;       /* all_idle, wanting or underway */
    struct cox_heap_node until; /* when to look at its deadlines */
    enum phase phase;
    const struct upstream_events *events;
    void *user;
    struct upstream_timeouts timeouts;
    int64_t start_ns, heard_ns; /* heard: the last piece, or the end of a pause */
    long connect_ms;            /* as the handle has it */
    bool content_begun, paused, resume;
    bool head_told, is_stream, reads_body;
    const char *refused; /* why a callback of curl stopped the call; NULL: none did */
    /* the body */
    const struct cox_slice *pieces;
    size_t n_pieces, piece, piece_done;
    struct cox_buf whole;
    /* the head */
    struct curl_slist *own_headers; /* in one block */
    struct cox_buf head;
    struct upstream_head parsed;
    size_t head_len;
    uint64_t received;
    char error[CURL_ERROR_SIZE];
};

/* What its handle says to every request: once, when it is made. */
void upstream_call_init(struct upstream_call *c, const struct upstream_target *t);
/* Headers and body of this one. */
void upstream_call_ask(struct upstream_call *c, const struct upstream_request *q);

/* curl's callbacks for what is heard. */
size_t upstream_on_header(char *data, size_t size, size_t n, void *call);
size_t upstream_on_body(char *data, size_t size, size_t n, void *call);

#endif
