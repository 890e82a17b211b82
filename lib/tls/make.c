/* Certificates for a first cluster: a CA of its own, and what it signs. P-256 keys, SHA-256. */
#include "internal.h"

#include "cox/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLOCKS_DIFFER_S 3600 /* valid from before now: other hosts' clocks may be late */
#define SERIAL_LEN 16

/* ---- files ---- */

struct file {
    const char *path;
    char *new_path;
    mode_t mode;
};

/* Beside its place; renamed once all is well. */
static enum cox_err write_new(struct file *f, BIO *pem, struct cox_buf *error)
{
    char *data;
    long len = BIO_get_mem_data(pem, &data);
    struct stat st;

    f->new_path = cox_asprintf("%s.new", f->path);
    if (lstat(f->path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) {
        cox_buf_printf(error, "%s: is there, and not a file", f->path);
        return COX_ERR_IO;
    }
    unlink(f->new_path);
    int fd = open(f->new_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, f->mode);
    bool ok = fd >= 0 && fchmod(fd, f->mode) == 0 && write(fd, data, (size_t)len) == len && fsync(fd) == 0;

    if (!ok)
        cox_buf_printf(error, "%s: %s", f->new_path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok ? COX_OK : COX_ERR_IO;
}

static enum cox_err write_pair(X509 *certificate, EVP_PKEY *pkey, const char *cert, const char *key,
                               struct cox_buf *error)
{
    struct file files[] = { { .path = key, .mode = 0600 }, { .path = cert, .mode = 0644 } };
    BIO *pems[] = { BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()) };
    enum cox_err err = COX_OK;

    COX_ASSERT(pems[0] && pems[1]);
    COX_ASSERT(PEM_write_bio_PKCS8PrivateKey(pems[0], pkey, NULL, NULL, 0, NULL, NULL) == 1);
    COX_ASSERT(PEM_write_bio_X509(pems[1], certificate) == 1);
    for (int i = 0; i < 2 && !err; i++)
        err = write_new(&files[i], pems[i], error);
    for (int i = 0; i < 2; i++) {
        if (!err && rename(files[i].new_path, files[i].path)) {
            cox_buf_printf(error, "%s: %s", files[i].path, strerror(errno));
            err = COX_ERR_IO;
        }
        if (err && files[i].new_path)
            unlink(files[i].new_path);
        cox_free(files[i].new_path);
        BIO_free(pems[i]);
    }
    return err;
}

/* ---- certificates ---- */

static enum cox_err add_name(X509_NAME *subject, const char *attribute, const char *text,
                             struct cox_buf *error)
{
    if (!text || X509_NAME_add_entry_by_txt(subject, attribute, MBSTRING_UTF8, (const unsigned char *)text,
                                            -1, -1, 0) == 1)
        return COX_OK;
    cox_buf_printf(error, "\"%s\" is no name for a certificate: 1 to 64 characters", text);
    ERR_clear_error();
    return COX_ERR_INVALID;
}

static void extend(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;

    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509V3_set_ctx_nodb(&context);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);

    COX_ASSERT(extension && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* Values of their own, not text that is parsed: a name cannot say more than a name. */
static enum cox_err add_hosts(X509 *certificate, const struct cox_tls_request *request, struct cox_buf *error)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    enum cox_err err = COX_OK;

    for (size_t i = 0; i < request->n_hosts && !err; i++) {
        const char *host = request->hosts[i];
        ASN1_OCTET_STRING *address = a2i_IPADDRESS(host);
        GENERAL_NAME *name = GENERAL_NAME_new();

        ERR_clear_error();
        COX_ASSERT(name);
        if (address) {
            GENERAL_NAME_set0_value(name, GEN_IPADD, address);
        } else if (host[0] && strlen(host) <= 253 && !strpbrk(host, " :/@")) {
            ASN1_IA5STRING *text = ASN1_IA5STRING_new();
            COX_ASSERT(text && ASN1_STRING_set(text, host, -1) == 1);
            GENERAL_NAME_set0_value(name, GEN_DNS, text);
        } else {
            cox_buf_printf(
                error, "\"%s\" is neither the name of a host nor an address; no port belongs to it", host);
            err = COX_ERR_INVALID;
        }
        if (err)
            GENERAL_NAME_free(name);
        else
            sk_GENERAL_NAME_push(names, name);
    }
    if (!err && request->n_hosts > 0)
        COX_ASSERT(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0) == 1);
    GENERAL_NAMES_free(names);
    return err;
}

/* NULL: not for so many days. */
static X509 *create(EVP_PKEY *key, int64_t days, struct cox_buf *error)
{
    if (days < 1 || days > COX_TLS_DAYS_MAX) {
        cox_buf_printf(error, "a certificate is valid for 1 to %d days", COX_TLS_DAYS_MAX);
        return NULL;
    }
    X509 *certificate = X509_new();
    unsigned char serial[SERIAL_LEN];
    BIGNUM *number;

    COX_ASSERT(certificate && RAND_bytes(serial, sizeof(serial)) == 1);
    serial[0] &= 0x7f;
    number = BN_bin2bn(serial, sizeof(serial), NULL);
    COX_ASSERT(number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)));
    BN_free(number);
    COX_ASSERT(X509_set_version(certificate, X509_VERSION_3) == 1 && X509_set_pubkey(certificate, key) == 1);
    COX_ASSERT(X509_gmtime_adj(X509_getm_notBefore(certificate), -CLOCKS_DIFFER_S));
    COX_ASSERT(X509_time_adj_ex(X509_getm_notAfter(certificate), (int)days, 0, NULL));
    return certificate;
}

enum cox_err cox_tls_make_ca(const char *cert, const char *key, const char *name, int64_t days,
                             struct cox_buf *error)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");

    COX_ASSERT(pkey);
    X509 *ca = create(pkey, days, error);
    enum cox_err err = ca ? add_name(X509_get_subject_name(ca), "CN", name, error) : COX_ERR_INVALID;

    if (!err) {
        X509_set_issuer_name(ca, X509_get_subject_name(ca));
        extend(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
        extend(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign");
        extend(ca, ca, NID_subject_key_identifier, "hash");
        COX_ASSERT(X509_sign(ca, pkey, EVP_sha256()) > 0);
        err = write_pair(ca, pkey, cert, key, error);
    }
    X509_free(ca);
    EVP_PKEY_free(pkey);
    return err;
}

static enum cox_err read_ca(const char *cert, const char *key, X509 **ret_ca, EVP_PKEY **ret_key,
                            struct cox_buf *error)
{
    BIO *cert_file, *key_file;
    enum cox_err err = COX_OK;

    ERR_clear_error();
    cert_file = BIO_new_file(cert, "re");
    if (!cert_file || !(*ret_ca = PEM_read_bio_X509(cert_file, NULL, NULL, NULL))) {
        tls_put_errors(error, cert);
        err = COX_ERR_INVALID;
    }
    BIO_free(cert_file);
    if (err)
        return err;
    key_file = BIO_new_file(key, "re");
    if (!key_file || !(*ret_key = PEM_read_bio_PrivateKey(key_file, NULL, NULL, NULL))) {
        tls_put_errors(error, key);
        err = COX_ERR_INVALID;
    } else if (X509_check_private_key(*ret_ca, *ret_key) != 1) {
        cox_buf_printf(error, "the key in %s is not that of the CA in %s", key, cert);
        err = COX_ERR_INVALID;
    }
    ERR_clear_error();
    BIO_free(key_file);
    return err;
}

static enum cox_err fill(X509 *certificate, X509 *ca, const struct cox_tls_request *request,
                         struct cox_buf *error)
{
    X509_NAME *subject = X509_get_subject_name(certificate);

    if (add_name(subject, "O", request->organization, error) ||
        add_name(subject, "OU", request->unit, error) || add_name(subject, "CN", request->name, error))
        return COX_ERR_INVALID;
    X509_set_issuer_name(certificate, X509_get_subject_name(ca));
    extend(certificate, ca, NID_basic_constraints, "critical,CA:FALSE");
    extend(certificate, ca, NID_key_usage, "critical,digitalSignature");
    extend(certificate, ca, NID_ext_key_usage,
           request->role == COX_TLS_ROLE_SERVER ? "serverAuth" : "clientAuth");
    extend(certificate, ca, NID_subject_key_identifier, "hash");
    extend(certificate, ca, NID_authority_key_identifier, "keyid");
    return add_hosts(certificate, request, error);
}

enum cox_err cox_tls_make(const char *ca_cert, const char *ca_key, const struct cox_tls_request *request,
                          const char *cert, const char *key, struct cox_buf *error)
{
    EVP_PKEY *signer = NULL, *pkey = EVP_EC_gen("P-256");
    X509 *ca = NULL, *certificate = create(pkey, request->days, error);
    enum cox_err err = certificate ? read_ca(ca_cert, ca_key, &ca, &signer, error) : COX_ERR_INVALID;

    if (!err && X509_cmp_time(X509_get0_notAfter(ca),
                              &(time_t){ (time_t)tls_time_s(X509_get0_notAfter(certificate)) }) < 0) {
        cox_buf_printf(error,
                       "%s would end before what it signs: fewer days, or a new CA in a folder of its own",
                       ca_cert);
        err = COX_ERR_INVALID;
    }
    if (!err)
        err = fill(certificate, ca, request, error);
    if (!err) {
        COX_ASSERT(X509_sign(certificate, signer, EVP_sha256()) > 0);
        err = write_pair(certificate, pkey, cert, key, error);
    }
    X509_free(certificate);
    X509_free(ca);
    EVP_PKEY_free(signer);
    EVP_PKEY_free(pkey);
    return err;
}
