/* TLS, both ends: a server's connections ended by threads of ours, what clients are told when it fails, and
 * the certificates of a first cluster. OpenSSL does the cryptography; its headers are included in lib/tls.
 *
 * A server hands over the socket of a client and gets a socket of the plain words in return. What the client
 * has to prove it has proved before the first plain byte comes out.
 *
 *     client ==TLS==> fd | handshake thread, then relay thread | socketpair --> the reader of plain words
 *
 * Thread: any, unless said otherwise.
 */
#ifndef COX_TLS_H
#define COX_TLS_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

/* Files in PEM; NULL: not given. `cert` may hold the chain up to the CA, its own certificate first. */
struct cox_tls_files {
    const char *cert;
    const char *key;
    const char *ca;
};

/* ---- a server ------------------------------------------------------------------------------------------ */

#define COX_TLS_HANDSHAKES_MAX 512u /* begun and not ended, together; the oldest gives way */
#define COX_TLS_HANDSHAKE_MS 10000  /* from the connection to the last word of the handshake */
#define COX_TLS_LEAVING_MS                                                                                   \
    10000 /* once the reader of plain words has left: without a byte of its last ones taken */
#define COX_TLS_LEAVING_ALL_MS 60000  /* and until all are */
#define COX_TLS_RELAY_LEN (64u << 10) /* taken from one side and not yet by the other, each way */

struct cox_tls;

/* Errors: COX_ERR_INVALID; `error` says which file is wrong, why, and what to do. */
COX_MUST_CHECK enum cox_err cox_tls_create(const struct cox_tls_files *files, struct cox_tls **ret,
                                           struct cox_buf *error);
/* Cuts what is left. The readers of plain words have gone before. NULL is allowed. */
void cox_tls_destroy(struct cox_tls *t);

/* Reads the files again: new connections get what they say, the others go on. On an error all stays as it
 * was, and `error` says why. */
COX_MUST_CHECK enum cox_err cox_tls_reload(struct cox_tls *t, const struct cox_tls_files *files,
                                           struct cox_buf *error);

enum cox_tls_kind {
    COX_TLS_GRPC, /* says h2; with a CA it must show a certificate */
    COX_TLS_HTTP  /* says http/1.1 or nothing; a certificate is taken when it is shown */
};

/* Takes the socket of a client. Returns the socket of its plain words, which comes to its end when the
 * handshake fails; -1 and errno when there is none to be had, and `fd` is closed. The first piece of a gRPC
 * connection has at least the 24 bytes that HTTP/2 begins with, or the connection ends. */
int cox_tls_terminate(struct cox_tls *t, int fd, enum cox_tls_kind kind);

/* Who a client is: what its certificate says, which the CA has signed and which was valid when it connected.
 * Never changes. */
struct cox_tls_certificate {
    const char *name;                 /* CN; "" when it has none */
    const char *const *organizations; /* every O, in order */
    size_t n_organizations;
    const char *unit; /* the first OU; NULL: none */
};
/* One block, freed by cox_free. */
struct cox_tls_certificate *cox_tls_certificate_copy(const struct cox_tls_certificate *from);

/* Of the connection whose plain words come from `plain_fd`, as long as that is open; freed by cox_free.
 * NULL: it has shown none. */
struct cox_tls_certificate *cox_tls_peer(struct cox_tls *t, int plain_fd);

/* The connection of these plain words ends as a failure, not as an end that was meant: to be called before
 * they are closed. */
void cox_tls_cut(struct cox_tls *t, int plain_fd);

struct cox_tls_stats {
    int64_t expires_s;   /* when the first of our own certificate chain ends, since 1970 */
    uint64_t n_done;     /* handshakes that went well */
    uint64_t n_failed;   /* that one side refused */
    uint64_t n_given_up; /* that took too long, gave way or hung up */
    uint64_t n_open;     /* connections now, handshakes included */
};
struct cox_tls_stats cox_tls_stats(struct cox_tls *t);

/* ---- a client ------------------------------------------------------------------------------------------ */

/* Whether a client can use these files: they can be read, the key is the certificate's, and it is valid now.
 * Errors: COX_ERR_INVALID; `error` says what is wrong and what to do. */
COX_MUST_CHECK enum cox_err cox_tls_check_client(const struct cox_tls_files *files, struct cox_buf *error);

/* Why no connection came about, for people: connects once more, by itself, and says what was wrong and what
 * to do. False: nothing wrong was found with TLS. Blocks, at most `limit_ms`.
 *   files  NULL: the client speaks without TLS */
bool cox_tls_diagnose(const char *address, const struct cox_tls_files *files, int64_t limit_ms,
                      struct cox_buf *ret_why);

/* ---- certificates for a first cluster ------------------------------------------------------------------ */

#define COX_TLS_DAYS_MAX 36500 /* that a certificate is valid */

enum cox_tls_role { COX_TLS_ROLE_SERVER, COX_TLS_ROLE_CLIENT };

/* What `make` signs. Text is UTF-8. */
struct cox_tls_request {
    enum cox_tls_role role;
    const char *name;         /* CN */
    const char *organization; /* O; NULL: none */
    const char *unit;         /* OU; NULL: none */
    const char *const *hosts; /* names and addresses that a server is reached by */
    size_t n_hosts;
    int64_t days;
};

/* A new CA: `cert` and `key` are written, the key for its owner only. */
COX_MUST_CHECK enum cox_err cox_tls_make_ca(const char *cert, const char *key, const char *name, int64_t days,
                                            struct cox_buf *error);
/* A certificate and its new key, signed by that CA. Errors: COX_ERR_INVALID, COX_ERR_IO. Nothing is written
 * unless all is. */
COX_MUST_CHECK enum cox_err cox_tls_make(const char *ca_cert, const char *ca_key,
                                         const struct cox_tls_request *request, const char *cert,
                                         const char *key, struct cox_buf *error);

#endif
