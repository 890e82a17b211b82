/* A client's files, and why no connection came about. gRPC says that a handshake failed and not why; so this
 * connects once more and looks. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HOST_MAX 256

/* ---- files ---- */

static SSL_CTX *client_context(const struct cox_tls_files *files, struct cox_buf *error)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    COX_ASSERT(context);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    ERR_clear_error();
    if (!files->ca)
        cox_buf_append_str(error, "TLS needs the CA that signs the orchestrator's certificate: --tls-ca");
    else if (!files->cert != !files->key)
        cox_buf_append_str(error, "a certificate needs its key: --tls-cert and --tls-key go together");
    else if (SSL_CTX_load_verify_file(context, files->ca) != 1)
        tls_put_errors(error, files->ca);
    else if (!files->cert || tls_use_files(context, files->cert, files->key, error) == COX_OK)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

enum cox_err cox_tls_check_client(const struct cox_tls_files *files, struct cox_buf *error)
{
    SSL_CTX *context = client_context(files, error);

    if (!context)
        return COX_ERR_INVALID;
    SSL_CTX_free(context);
    return COX_OK;
}

/* ---- one connection ---- */

struct probe {
    const struct cox_tls_files *files;
    char host[HOST_MAX];
    int fd;
    int64_t until_ns;
    SSL *ssl;
    X509 *shown; /* OpenSSL itself forgets a certificate that is no good */
    struct cox_buf *why;
};

static bool wait_for(const struct probe *p, short events)
{
    struct pollfd pfd = { .fd = p->fd, .events = events };
    int64_t left_ms = (p->until_ns - cox_clock_mono_ns()) / 1000000;

    return left_ms > 0 && poll(&pfd, 1, (int)left_ms) > 0;
}

static bool connect_to(struct probe *p, const char *port)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;

    p->fd = -1;
    if (getaddrinfo(p->host, port, &hints, &found))
        return false;
    for (const struct addrinfo *it = found; it && p->fd < 0; it = it->ai_next) {
        int err = 0;
        socklen_t len = sizeof(err);

        p->fd = socket(it->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (p->fd < 0)
            continue;
        if ((connect(p->fd, it->ai_addr, it->ai_addrlen) == 0 || errno == EINPROGRESS) &&
            wait_for(p, POLLOUT) && getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0)
            break;
        close(p->fd);
        p->fd = -1;
    }
    freeaddrinfo(found);
    return p->fd >= 0;
}

/* "dns:///name:port", "[::1]:port", "name:port". */
static bool split(const char *address, char *host, const char **ret_port)
{
    const char *at = strstr(address, "///"), *name = at ? at + 3 : address, *colon = strrchr(name, ':');
    bool six = name[0] == '[';
    size_t len = colon ? (size_t)(colon - name) - (six ? 2u : 0u) : 0;

    if (!colon || strncmp(address, "unix:", 5) == 0 || len == 0 || len >= HOST_MAX)
        return false;
    memcpy(host, name + six, len);
    host[len] = '\0';
    *ret_port = colon + 1;
    return true;
}

/* Goes on with what `step` does until it has done it (1), failed for good (0), or time is up (-1). */
static int drive(struct probe *p, int (*step)(SSL *ssl))
{
    for (;;) {
        ERR_clear_error();
        int n = step(p->ssl), why = SSL_get_error(p->ssl, n);

        if (n > 0)
            return 1;
        if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
            return 0;
        if (!wait_for(p, why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT))
            return -1;
    }
}

/* The first words of HTTP/2, to hear something: in TLS 1.3 a refusal comes after the handshake. */
static int speak(SSL *ssl)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";

    return SSL_write(ssl, preface, sizeof(preface) - 1);
}

static int listen_once(SSL *ssl)
{
    char byte;

    return SSL_read(ssl, &byte, 1);
}

/* ---- what it means ---- */

static void put_names(struct cox_buf *out, X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    const char *between = "";

    for (int i = 0; i < sk_GENERAL_NAME_num(names) && i < 8; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        int type, len;
        const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
        char text[INET6_ADDRSTRLEN];

        len = type == GEN_IPADD || type == GEN_DNS ? ASN1_STRING_length(value) : 0;
        if (type == GEN_DNS)
            cox_buf_printf(out, "%s%.*s", between, len, (const char *)ASN1_STRING_get0_data(value));
        else if (type == GEN_IPADD && (len == 4 || len == 16) &&
                 inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(value), text, sizeof(text)))
            cox_buf_printf(out, "%s%s", between, text);
        if (len > 0)
            between = ", ";
    }
    GENERAL_NAMES_free(names);
}

static void say_unverified(struct probe *p, long verified)
{
    switch (verified) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        cox_buf_append_str(p->why, "the orchestrator's certificate has expired: it needs a new one");
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        cox_buf_append_str(p->why, "the orchestrator's certificate is not valid yet: is the clock right?");
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        cox_buf_printf(p->why, "the orchestrator's certificate is not for %s but for ", p->host);
        if (p->shown)
            put_names(p->why, p->shown);
        cox_buf_append_str(p->why, ": use a name that it has, or have one made with this one");
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        cox_buf_printf(p->why,
                       "the orchestrator's certificate is not signed by the CA in %s: --tls-ca must be the "
                       "CA of its cluster",
                       p->files->ca);
        break;
    default:
        cox_buf_printf(p->why, "the orchestrator's certificate cannot be trusted: %s",
                       X509_verify_cert_error_string(verified));
    }
}

/* What the other side or OpenSSL objected to. False: nothing that has to do with TLS. */
static bool say_refused(struct probe *p, int reason)
{
    switch (reason) {
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
        cox_buf_append_str(p->why,
                           p->files->cert
                               ? "the orchestrator does not take our certificate: it wants one of its own CA"
                               : "the orchestrator wants a certificate: --tls-cert and --tls-key");
        return true;
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
        cox_buf_printf(p->why,
                       "the orchestrator does not know the CA of our certificate in %s: have one made by its "
                       "CA",
                       p->files->cert ? p->files->cert : "--tls-cert");
        return true;
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        cox_buf_printf(p->why, "our certificate in %s has expired: have a new one made", p->files->cert);
        return true;
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
        cox_buf_printf(p->why,
                       "the orchestrator does not take our certificate in %s: it must be one for a client",
                       p->files->cert);
        return true;
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
        cox_buf_append_str(p->why, "that port does not speak gRPC: is it the one of coxd --http?");
        return true;
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_BAD_RECORD_TYPE:
        cox_buf_append_str(p->why,
                           "that port speaks without TLS: leave out --tls-ca, or start coxd with --tls-cert "
                           "and --tls-key");
        return true;
    default:
        return false;
    }
}

static int on_verified(int ok, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct probe *p = SSL_get_app_data(ssl);
    X509 *certificate = X509_STORE_CTX_get0_cert(store);

    if (!p->shown && X509_up_ref(certificate) == 1)
        p->shown = certificate;
    return ok;
}

static void aim(struct probe *p)
{
    unsigned char address[16];
    bool number = inet_pton(AF_INET, p->host, address) == 1 || inet_pton(AF_INET6, p->host, address) == 1;

    SSL_set_app_data(p->ssl, p);
    SSL_set_verify(p->ssl, SSL_VERIFY_PEER, on_verified);
    if (number)
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(p->ssl), p->host);
    else if (SSL_set1_host(p->ssl, p->host) == 1)
        (void)SSL_set_tlsext_host_name(p->ssl, p->host);
}

static bool look(struct probe *p, SSL_CTX *context)
{
    static const unsigned char h2[] = "\x02h2";

    p->ssl = SSL_new(context);
    COX_ASSERT(p->ssl && SSL_set_fd(p->ssl, p->fd) == 1);
    SSL_set_alpn_protos(p->ssl, h2, sizeof(h2) - 1);
    if (p->files)
        aim(p);
    int done = drive(p, SSL_connect);

    if (!p->files) { /* we would speak plainly: does the other side? */
        bool tls = SSL_version(p->ssl) >= TLS1_2_VERSION && SSL_get0_peer_certificate(p->ssl);
        if (tls)
            cox_buf_append_str(p->why, "that port speaks TLS: say --tls-ca FILE, with the CA of its cluster");
        return tls;
    }
    long verified = SSL_get_verify_result(p->ssl);

    if (done == 0 && verified != X509_V_OK) {
        say_unverified(p, verified);
        return true;
    }
    if (done == 1 && (done = drive(p, speak)) == 1)
        done = drive(p, listen_once);
    return done == 0 && say_refused(p, ERR_GET_REASON(ERR_peek_last_error()));
}

bool cox_tls_diagnose(const char *address, const struct cox_tls_files *files, int64_t limit_ms,
                      struct cox_buf *ret_why)
{
    struct probe p = { .files = files,
                       .until_ns = cox_clock_mono_ns() + limit_ms * INT64_C(1000000),
                       .why = ret_why };
    SSL_CTX *context = files ? client_context(files, ret_why) : SSL_CTX_new(TLS_client_method());
    const char *port;
    bool found = !context; /* the files are to blame, and it has been said */

    if (context && split(address, p.host, &port) && connect_to(&p, port)) {
        found = look(&p, context);
        SSL_free(p.ssl);
        X509_free(p.shown);
        close(p.fd);
    }
    SSL_CTX_free(context);
    ERR_clear_error();
    return found;
}
