/* Shared by the files of this folder. */
#ifndef COX_WORKER_GATEWAY_INTERNAL_H
#define COX_WORKER_GATEWAY_INTERNAL_H

#include "gateway.h"
#include "models.h"
#include "request.h"

#define KEY_RANDOM_LEN 24u /* bytes */
#define KEY_PREFIX "COXKEY-"
#define KEY_TEXT_MAX (sizeof(KEY_PREFIX) + (size_t)2 * KEY_RANDOM_LEN)

struct listener {
    struct gateway *gateway;
    struct gateway_attempt *attempt; /* whose sandbox it is in; NULL: the host's loopback */
    int fd;
    struct event *event;
    struct event *pause;       /* no descriptor was left: later again */
    struct cox_list strangers; /* connections without a key, oldest first */
    uint32_t n_strangers;
    uint16_t port;
};

struct gateway_attempt {
    struct cox_list link;
    struct gateway *gateway;
    char key[KEY_TEXT_MAX];
    bool revoked;
    struct cox_ref ref;
    char tenant[CACHE_TENANT_MAX];
    uint64_t disk_len_max; /* of what it sends at once; 0: half of what is free */
    const char *const *blobs;
    struct redactor *redactor;

    bool confined;        /* it asks inside its sandbox, and nowhere else */
    struct listener *own; /* there; NULL: not yet */
    int channel;          /* which that comes through; -1: it has come, or none does */
    struct event *channel_event;

    struct cox_list connections;
    uint32_t n_connections; /* of them about blobs */
    uint32_t n_calls;       /* and model calls */
    uint64_t sending_len;   /* of what is being received or stored */
    uint32_t n_sent;        /* begun, in all */
    struct cox_hash *stored;
    size_t n_stored;
};

struct gateway {
    struct event_base *base;
    struct courier *courier;
    struct models *models; /* NULL: no model calls */
    const char *spool_dir;
    struct listener *host; /* NULL: none */
    struct cox_list attempts;
    uint8_t buf[64 << 10];
};

/* gateway.c: whose key this is, at this listener; NULL: nobody's. */
struct gateway_attempt *gateway_find(const struct listener *at, struct cox_slice key);

/* A connection: one request, its answer, the end.
 *
 *   HEAD     until its empty line, for GATEWAY_HEAD_MS
 *   BODY     what is to be stored goes into a file, as fast as it comes
 *   STORING  with the courier; nothing is read
 *   RELAY    a model call: its body goes to the orchestrator, the answer comes back, both in pieces
 *   ANSWER   the head, then the file if it has one, as fast as it goes
 *   LINGER   until the other side closes: closing first could take the answer away from it */
enum connection_state { HEAD, BODY, STORING, RELAY, ANSWER, LINGER };

struct connection {
    struct cox_list link; /* among the listener's strangers, or its attempt's */
    struct listener *at;  /* NULL: it has shown a key, and is its attempt's */
    struct gateway *gateway;
    struct gateway_attempt *attempt;
    enum connection_state state;
    int fd;
    struct event *readable, *writable, *timer;
    struct cox_buf bytes; /* the head that comes, or what goes to the process */
    size_t sent;          /* of it */
    int file;             /* -1: none */
    off_t file_at, file_len;
    uint64_t len;            /* of the body; counted in its attempt's sending_len. 0: not (any more) */
    struct courier_job *job; /* under way */

    bool is_call;            /* a model call */
    struct model_call *call; /* under way */
    uint64_t body_left;      /* of its body, to come */
    size_t n_extra;          /* bytes that came behind it */
    bool is_old, chunked, answered;
    bool broken; /* the answer is not whole, and never will be */
};

/* connection.c. Takes over the socket. */
void connection_open(struct listener *at, int fd);
void connections_close(struct cox_list *list);
void connection_drop(struct connection *c);
void connection_refuse(struct connection *c, int status, const char *why);
/* The answer has left: the other side may read it in peace. */
void connection_linger(struct connection *c);
void connection_expect_within(struct connection *c, int ms);
const char *connection_reason(int status); /* "Not Found" */

/* relay.c: model calls. */
bool relay_is_call(struct cox_slice path);
void relay_begin(struct connection *c, const struct request *r, struct cox_slice head, struct cox_slice rest);
void relay_take(struct connection *c, struct cox_slice data); /* from the process */
void relay_send(struct connection *c);                        /* to it; it can take some */

#endif
