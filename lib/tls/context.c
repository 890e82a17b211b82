/* What a server offers and asks for. One context serves until files that are better have been read. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <time.h>

#define SECURITY_LEVEL 2 /* no RSA below 2,048 bits, no SHA-1 */
#define CHAIN_LEN_MAX (32 << 10)

const char *tls_last_error(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;

    ERR_clear_error();
    return text ? text : code ? "a failure without a name" : "no reason given";
}

void tls_put_errors(struct cox_buf *out, const char *path)
{
    unsigned long code = ERR_peek_error(); /* what began it; the last one says "system lib" */

    if (ERR_SYSTEM_ERROR(code)) {
        cox_buf_printf(out, "%s: %s", path, strerror(ERR_GET_REASON(code)));
        ERR_clear_error();
    } else {
        cox_buf_printf(out, "%s: %s", path, tls_last_error());
    }
}

/* Whoever does not say h2 would be told of HTTP/2 in vain; a browser without http/1.1 likewise. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char h2[] = "\x02h2", http[] = "\x08http/1.1";
    const struct tls_conn *c = SSL_get_app_data(ssl);
    bool grpc = c->kind == COX_TLS_GRPC;
    unsigned char *chosen;

    (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, grpc ? h2 : http,
                              (unsigned)(grpc ? sizeof(h2) : sizeof(http)) - 1, in,
                              in_len) != OPENSSL_NPN_NEGOTIATED)
        return COX_PLANTED("any-alpn") ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

int64_t tls_time_s(const ASN1_TIME *time)
{
    struct tm tm;

    return ASN1_TIME_to_tm(time, &tm) ? (int64_t)timegm(&tm) : 0;
}

int64_t tls_context_expires_s(SSL_CTX *context)
{
    X509 *own = SSL_CTX_get0_certificate(context);
    int64_t first = tls_time_s(X509_get0_notAfter(own));
    STACK_OF(X509) *chain = NULL;

    SSL_CTX_get0_chain_certs(context, &chain);
    for (int i = 0; i < sk_X509_num(chain); i++) {
        int64_t s = tls_time_s(X509_get0_notAfter(sk_X509_value(chain, i)));
        if (s < first)
            first = s;
    }
    return first;
}

static enum cox_err check_validity(SSL_CTX *context, const char *path, struct cox_buf *error)
{
    X509 *own = SSL_CTX_get0_certificate(context);

    if (X509_cmp_current_time(X509_get0_notBefore(own)) > 0) {
        cox_buf_printf(error, "%s is not valid yet: is the clock right?", path);
        return COX_ERR_INVALID;
    }
    if (X509_cmp_current_time(X509_get0_notAfter(own)) < 0) {
        cox_buf_printf(error, "%s has expired: have a new one made (cox admin certs makes them)", path);
        return COX_ERR_INVALID;
    }
    return COX_OK;
}

enum cox_err tls_use_files(SSL_CTX *context, const char *cert, const char *key, struct cox_buf *error)
{
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(context, cert) != 1) {
        tls_put_errors(error, cert);
        return COX_ERR_INVALID;
    }
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH) {
            ERR_clear_error();
            cox_buf_printf(error, "the key in %s is not that of the certificate in %s", key, cert);
        } else {
            tls_put_errors(error, key);
        }
        return COX_ERR_INVALID;
    }
    return check_validity(context, cert, error);
}

static enum cox_err trust(SSL_CTX *context, const char *ca, struct cox_buf *error)
{
    STACK_OF(X509_NAME) * names;

    if (!ca)
        return COX_OK;
    ERR_clear_error();
    if (SSL_CTX_load_verify_file(context, ca) != 1 || !(names = SSL_load_client_CA_file(ca))) {
        tls_put_errors(error, ca);
        return COX_ERR_INVALID;
    }
    SSL_CTX_set_client_CA_list(context, names); /* tells clients with several which to show */
    return COX_OK;
}

/* Each connection proves itself anew: a session taken up again would outlive the CA that let it in. */
static void set_rules(SSL_CTX *context)
{
    SSL_CTX_set_min_proto_version(context, COX_PLANTED("old-tls") ? TLS1_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_security_level(context, COX_PLANTED("old-tls") ? 0 : SECURITY_LEVEL);
    SSL_CTX_set_cipher_list(context,
                            COX_PLANTED("old-tls") ? "ALL:@SECLEVEL=0" : "ECDHE+AESGCM:ECDHE+CHACHA20");
    SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384");
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(context, CHAIN_LEN_MAX);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1); /* one read(2) for many small records */
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
}

SSL_CTX *tls_context_load(const struct cox_tls_files *files, struct cox_buf *error)
{
    SSL_CTX *context;

    if (!files->cert || !files->key) {
        cox_buf_append_str(error, "TLS needs both a certificate and its key: --tls-cert and --tls-key");
        return NULL;
    }
    context = SSL_CTX_new(TLS_server_method());
    COX_ASSERT(context);
    set_rules(context);
    if (tls_use_files(context, files->cert, files->key, error) == COX_OK &&
        trust(context, files->ca, error) == COX_OK)
        return context;
    SSL_CTX_free(context);
    return NULL;
}
