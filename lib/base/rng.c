#include "cox/base/rng.h"

#include "cox/base/err.h"

static uint64_t rotl(uint64_t x, unsigned k)
{
    return (x << k) | (x >> (64 - k));
}

void cox_rng_init(struct cox_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15ULL;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        r->s[i] = z ^ (z >> 31);
    }
}

uint64_t cox_rng_u64(struct cox_rng *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

/* The high half of a 128-bit product, rejecting the few low halves that would favour some results
 * (Lemire, "Fast Random Integer Generation in an Interval", 2019). */
uint64_t cox_rng_below(struct cox_rng *r, uint64_t bound)
{
    COX_ASSERT(bound > 0);
    uint64_t reject_below = -bound % bound;
    unsigned __int128 product;

    do
        product = (unsigned __int128)cox_rng_u64(r) * bound;
    while ((uint64_t)product < reject_below);
    return (uint64_t)(product >> 64);
}

bool cox_rng_chance(struct cox_rng *r, uint32_t per_million)
{
    return cox_rng_below(r, 1000000) < per_million;
}
