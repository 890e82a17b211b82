/* What the files of lib/tls share.
 *
 *   context.c    what a server offers and asks for; its files, read and read again
 *   peer.c       a client's certificate, as text
 *   terminate.c  handshakes, on a thread of their own
 *   relay.c      the bytes of connections that have been let in, on another
 *   client.c     a client's files; why no connection came about
 *   make.c       certificates for a first cluster
 */
#ifndef COX_TLS_INTERNAL_H
#define COX_TLS_INTERNAL_H

#include "cox/base/list.h"
#include "cox/tls.h"

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- context.c ---- */

/* "FILE: what OpenSSL said", from its queue, which is emptied. */
void tls_put_errors(struct cox_buf *out, const char *path);
/* What OpenSSL said last, from its queue, which is emptied; never NULL. */
const char *tls_last_error(void);
/* NULL: `error` says why. */
SSL_CTX *tls_context_load(const struct cox_tls_files *files, struct cox_buf *error);
/* When the first of its own certificates ends, since 1970. */
int64_t tls_context_expires_s(SSL_CTX *context);
int64_t tls_time_s(const ASN1_TIME *time);
/* Certificate and key of a context, and that they belong together and are valid now. */
COX_MUST_CHECK enum cox_err tls_use_files(SSL_CTX *context, const char *cert, const char *key,
                                          struct cox_buf *error);

/* ---- peer.c ---- */

/* What a verified certificate says; NULL when it says what no name may hold. Freed by cox_free. */
struct cox_tls_certificate *tls_certificate_read(X509 *certificate);

/* ---- connections ---- */

struct tls_piece { /* on its way, and not taken yet */
    uint8_t *data;
    size_t at, len;
};

struct tls_conn {
    struct cox_list node;
    struct cox_list due; /* of those that end soon, or have more to say than one turn may take */
    SSL *ssl;            /* NULL: it has not spoken yet */
    int net, plain;      /* its sockets; `plain` is our end of the pair */
    int reader;          /* the number that the other end had when it was made */
    uint64_t id;
    enum cox_tls_kind kind;
    int64_t until_ns; /* of its handshake, then of its leaving */
    int64_t left_ns;  /* when its reader did; 0: it is there */
    uint32_t net_events, plain_events;
    struct tls_piece to_net, to_plain;
    unsigned n_late; /* words of a handshake after the handshake */
    bool let_in;     /* its handshake is over */
    bool begun;      /* its first piece has been handed over */
    bool net_over, plain_over, told_over;
    bool plain_gone; /* closed by its reader, but what it had said may still be there */
    bool dead;       /* events that still name it mean nothing */
};

/* An event's pointer is a connection, its lowest bit the plain side. */
#define TLS_PLAIN_BIT ((uintptr_t)1)

void tls_conn_free(struct cox_tls *t, struct tls_conn *c);
bool tls_conn_is_cut(struct cox_tls *t, const struct tls_conn *c);
void tls_watch(int epoll_fd, struct tls_conn *c, bool plain, uint32_t events);
void tls_unwatch(int epoll_fd, struct tls_conn *c);
void tls_thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg);

/* ---- relay.c ---- */

struct tls_relay;
struct tls_relay *tls_relay_create(struct cox_tls *t);
/* A connection whose handshake went well. From the handshake thread. */
void tls_relay_take(struct tls_relay *r, struct tls_conn *c);
void tls_relay_destroy(struct tls_relay *r); /* what is under way has a moment to leave */

#endif
