/* Spaces of values: what is kept for one tenant is not there for another, though the bytes be the same. */
#include "space.h"

#include <openssl/evp.h>
#include <string.h>

#define DEFAULT_TENANT "default"

static const struct cox_space none;

static void digest(const char *what, struct cox_slice a, struct cox_slice b, uint8_t ret[32])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    COX_ASSERT(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
               EVP_DigestUpdate(ctx, what, strlen(what)) == 1 && EVP_DigestUpdate(ctx, a.data, a.len) == 1 &&
               EVP_DigestUpdate(ctx, b.data, b.len) == 1 && EVP_DigestFinal_ex(ctx, ret, NULL) == 1);
    EVP_MD_CTX_free(ctx);
}

struct cox_space cox_space_of(struct cox_slice tenant)
{
    struct cox_space space = none;

    if (tenant.len > 0 && !cox_slice_is(tenant, DEFAULT_TENANT) && !COX_PLANTED("one-space"))
        digest("coxswain tenant", tenant, cox_slice(NULL, 0), space.b);
    return space;
}

bool store_space_is_default(const struct cox_space *space)
{
    return memcmp(space->b, none.b, sizeof(none.b)) == 0;
}

struct cox_hash store_space_key(const struct cox_space *space, const struct cox_hash *hash)
{
    struct cox_hash key = *hash;

    if (!store_space_is_default(space))
        digest("coxswain value", cox_slice(space->b, sizeof(space->b)), cox_slice(hash->b, sizeof(hash->b)),
               key.b);
    return key;
}
