#include "sha256.h"

#include "cox/base/alloc.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

static pthread_once_t fetched = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;

static void fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    COX_ASSERT(sha256);
}

/* Fetched once: looking an algorithm up by name costs more than hashing a small value. */
static const EVP_MD *algorithm(void)
{
    pthread_once(&fetched, fetch);
    return sha256;
}

struct cox_hash cox_sha256(struct cox_slice bytes)
{
    struct cox_hash h;

    COX_ASSERT(EVP_Digest(bytes.data, bytes.len, h.b, NULL, algorithm(), NULL) == 1);
    return h;
}

void cox_hash_format(const struct cox_hash *h, char text[COX_HASH_TEXT_MAX])
{
    static const char digits[] = "0123456789abcdef";
    char *p = text + 7;

    memcpy(text, "sha256:", 7);
    for (size_t i = 0; i < sizeof(h->b); i++) {
        *p++ = digits[h->b[i] >> 4];
        *p++ = digits[h->b[i] & 15];
    }
    *p = '\0';
}

struct cox_sha256 {
    EVP_MD_CTX *ctx;
};

struct cox_sha256 *cox_sha256_create(void)
{
    struct cox_sha256 *s = COX_NEW(struct cox_sha256);

    s->ctx = EVP_MD_CTX_new();
    COX_ASSERT(s->ctx && EVP_DigestInit_ex(s->ctx, algorithm(), NULL) == 1);
    return s;
}

void cox_sha256_add(struct cox_sha256 *s, struct cox_slice piece)
{
    uint8_t len[8];

    for (int i = 0; i < 8; i++)
        len[i] = (uint8_t)((uint64_t)piece.len >> (8 * i));
    COX_ASSERT(EVP_DigestUpdate(s->ctx, len, sizeof(len)) == 1);
    COX_ASSERT(EVP_DigestUpdate(s->ctx, piece.data, piece.len) == 1);
}

struct cox_hash cox_sha256_destroy(struct cox_sha256 *s)
{
    struct cox_hash h;

    COX_ASSERT(EVP_DigestFinal_ex(s->ctx, h.b, NULL) == 1);
    EVP_MD_CTX_free(s->ctx);
    cox_free(s);
    return h;
}

static int nibble(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool cox_hash_parse(struct cox_slice text, struct cox_hash *ret)
{
    static const char prefix[] = "sha256:";
    size_t at = sizeof(prefix) - 1;
    struct cox_hash h;

    if (text.len != at + 2 * sizeof(h.b) || memcmp(text.data, prefix, at) != 0)
        return false;
    for (size_t i = 0; i < sizeof(h.b); i++, at += 2) {
        int high = nibble(text.data[at]), low = nibble(text.data[at + 1]);
        if (high < 0 || low < 0)
            return false;
        h.b[i] = (uint8_t)(high << 4 | low);
    }
    *ret = h;
    return true;
}
