/* Any bytes as a client's certificate, or as its subject alone: read as text that is what OpenSSL's own
 * reading of each attribute says, or refused for a reason that can be named. What comes out decides who
 * somebody is. */
#include "fuzz.h"

#include "lib/tls/internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <string.h>

#define NAMES_MAX 64 /* of CN, O and OU together, as lib/tls/peer.c has it */

/* Of one attribute, in the order of the subject. */
struct attribute {
    int nid;
    unsigned char *text; /* NULL: it is no text */
    size_t len;
};

/* What counts. Fewer than `max` are kept; returns how many there are. */
static size_t read_subject(const X509_NAME *subject, struct attribute *ret, size_t max)
{
    size_t n = 0;

    for (int i = 0; i < X509_NAME_entry_count(subject); i++) {
        const X509_NAME_ENTRY *entry = X509_NAME_get_entry(subject, i);
        struct attribute a = { .nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry)) };

        if (a.nid != NID_commonName && a.nid != NID_organizationName && a.nid != NID_organizationalUnitName)
            continue;
        int len = ASN1_STRING_to_UTF8(&a.text, X509_NAME_ENTRY_get_data(entry));

        if (len < 0)
            a.text = NULL;
        a.len = len < 0 ? 0 : (size_t)len;
        if (n < max)
            ret[n] = a;
        else
            OPENSSL_free(a.text);
        n++;
    }
    return n;
}

static bool is_name(const struct attribute *a)
{
    return a->text && !memchr(a->text, 0, a->len) && cox_utf8_ok(cox_slice(a->text, a->len));
}

static void check_same(const char *said, const struct attribute *a)
{
    COX_ASSERT(strlen(said) == a->len && memcmp(said, a->text, a->len) == 0);
}

/* Each attribute stands where it should: all O, the first OU, and the first CN that says something. */
static void check_names(const struct cox_tls_certificate *c, const struct attribute *all, size_t n)
{
    size_t n_organizations = 0;
    bool named = false, in_unit = false;

    for (size_t i = 0; i < n; i++) {
        if (all[i].nid == NID_organizationName) {
            COX_ASSERT(n_organizations < c->n_organizations);
            check_same(c->organizations[n_organizations++], &all[i]);
        } else if (all[i].nid == NID_commonName && !named && all[i].len > 0) {
            check_same(c->name, &all[i]);
            named = true;
        } else if (all[i].nid == NID_organizationalUnitName && !in_unit) {
            COX_ASSERT(c->unit);
            check_same(c->unit, &all[i]);
            in_unit = true;
        }
    }
    COX_ASSERT(n_organizations == c->n_organizations);
    COX_ASSERT(named || c->name[0] == '\0');
    COX_ASSERT(in_unit || !c->unit);
}

static void check_copy(const struct cox_tls_certificate *c)
{
    struct cox_tls_certificate *copy = cox_tls_certificate_copy(c);

    COX_ASSERT(strcmp(copy->name, c->name) == 0 && copy->n_organizations == c->n_organizations);
    for (size_t i = 0; i < c->n_organizations; i++)
        COX_ASSERT(strcmp(copy->organizations[i], c->organizations[i]) == 0);
    COX_ASSERT(!copy->unit == !c->unit && (!c->unit || strcmp(copy->unit, c->unit) == 0));
    cox_free(copy);
}

static void check(X509 *certificate)
{
    struct attribute all[NAMES_MAX];
    size_t n = read_subject(X509_get_subject_name(certificate), all, NAMES_MAX);
    struct cox_tls_certificate *c = tls_certificate_read(certificate);
    bool sound = n <= NAMES_MAX;

    for (size_t i = 0; i < n && i < NAMES_MAX; i++)
        sound = sound && is_name(&all[i]);
    COX_ASSERT(sound == (c != NULL));
    if (c) {
        check_names(c, all, n);
        check_copy(c);
    }
    cox_free(c);
    for (size_t i = 0; i < n && i < NAMES_MAX; i++)
        OPENSSL_free(all[i].text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned char *p = data;
    X509 *certificate = d2i_X509(NULL, &p, (long)size);

    if (!certificate) {
        X509_NAME *subject;

        p = data;
        subject = d2i_X509_NAME(NULL, &p, (long)size);
        certificate = subject ? X509_new() : NULL;
        if (certificate)
            COX_ASSERT(X509_set_subject_name(certificate, subject) == 1);
        X509_NAME_free(subject);
    }
    if (certificate)
        check(certificate);
    X509_free(certificate);
    ERR_clear_error();
    return 0;
}
