/* Shared by the files of this folder. */
#ifndef COX_WORKER_GATEWAY_INTERNAL_H
#define COX_WORKER_GATEWAY_INTERNAL_H

#include "gateway.h"
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
    uint32_t n_connections;
    uint64_t sending_len; /* of what is being received or stored */
    uint32_t n_sent;      /* begun, in all */
    struct cox_hash *stored;
    size_t n_stored;
};

struct gateway {
    struct event_base *base;
    struct courier *courier;
    const char *spool_dir;
    struct listener *host; /* NULL: none */
    struct cox_list attempts;
    uint8_t buf[64 << 10];
};

/* gateway.c: whose key this is, at this listener; NULL: nobody's. */
struct gateway_attempt *gateway_find(const struct listener *at, struct cox_slice key);

/* connection.c. Takes over the socket. */
void connection_open(struct listener *at, int fd);
void connections_close(struct cox_list *list);

#endif
