/* A client's certificate, as text. It is one block: readers copy it and keep the copy. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <string.h>

#define NAMES_MAX 64

static const char *put(char **at, const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = *at;

    memcpy(copy, text, len);
    *at += len;
    return copy;
}

struct cox_tls_certificate *cox_tls_certificate_copy(const struct cox_tls_certificate *from)
{
    size_t n = from->n_organizations,
           len = strlen(from->name) + 1 + (from->unit ? strlen(from->unit) + 1 : 0);

    for (size_t i = 0; i < n; i++)
        len += strlen(from->organizations[i]) + 1;
    struct cox_tls_certificate *copy = cox_alloc(sizeof(*copy) + n * sizeof(char *) + len);
    const char **organizations = (const char **)(copy + 1);
    char *at = (char *)(organizations + n);

    copy->name = put(&at, from->name);
    copy->unit = from->unit ? put(&at, from->unit) : NULL;
    copy->organizations = organizations;
    copy->n_organizations = n;
    for (size_t i = 0; i < n; i++)
        organizations[i] = put(&at, from->organizations[i]);
    return copy;
}

/* One attribute; NULL when it is no text, or has a NUL that would hide what follows. */
static char *text_of(const X509_NAME *subject, int i)
{
    unsigned char *utf8 = NULL;
    int len = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)));
    char *copy = NULL;

    if (len >= 0 && (!memchr(utf8, 0, (size_t)len) || COX_PLANTED("certificate-name-cut")) &&
        cox_utf8_ok(cox_slice(utf8, (size_t)len)))
        copy = cox_strndup((const char *)utf8, (size_t)len);
    OPENSSL_free(utf8);
    return copy;
}

struct cox_tls_certificate *tls_certificate_read(X509 *certificate)
{
    static const int kinds[] = { NID_commonName, NID_organizationName, NID_organizationalUnitName };
    const X509_NAME *subject = X509_get_subject_name(certificate);
    struct cox_tls_certificate found = { .name = "" }, *copy = NULL;
    const char *organizations[NAMES_MAX];
    char *texts[NAMES_MAX];
    size_t n = 0;
    bool bad = false;

    for (size_t kind = 0; kind < 3; kind++) {
        for (int i = X509_NAME_get_index_by_NID(subject, kinds[kind], -1); i >= 0 && !bad;
             i = X509_NAME_get_index_by_NID(subject, kinds[kind], i)) {
            char *text = n < NAMES_MAX ? text_of(subject, i) : NULL;

            if (!text)
                bad = true;
            else if (kind == 1)
                organizations[found.n_organizations++] = text;
            else if (kind == 0 && found.name[0] == '\0')
                found.name = text;
            else if (kind == 2 && !found.unit)
                found.unit = text;
            if (text)
                texts[n++] = text;
        }
    }
    found.organizations = organizations;
    if (!bad)
        copy = cox_tls_certificate_copy(&found);
    while (n > 0)
        cox_free(texts[--n]);
    return copy;
}
