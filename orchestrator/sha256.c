#include "sha256.h"

#include "cox/base/alloc.h"

#include <openssl/evp.h>
#include <pthread.h>

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
