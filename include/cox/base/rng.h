/* Seeded pseudo-random numbers (xoshiro256**, Blackman and Vigna 2018; seeded by splitmix64).
 * Same seed, same sequence, on every machine. Not for secrets. */
#ifndef COX_BASE_RNG_H
#define COX_BASE_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct cox_rng {
    uint64_t s[4];
};
void cox_rng_init(struct cox_rng *r, uint64_t seed);
uint64_t cox_rng_u64(struct cox_rng *r);
uint64_t cox_rng_below(struct cox_rng *r, uint64_t bound); /* uniform in [0, bound); bound > 0 */
bool cox_rng_chance(struct cox_rng *r, uint32_t per_million);

#endif
