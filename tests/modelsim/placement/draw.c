#include "world.h"

#include <math.h>

double draw_unit(struct cox_rng *rng)
{
    return ((double)(cox_rng_u64(rng) >> 11) + 1) / 9007199254740993.0;
}

double draw_exponential(struct cox_rng *rng, double mean)
{
    return -mean * log(draw_unit(rng));
}

double draw_lognormal(struct cox_rng *rng, double median, double sigma)
{
    double u = draw_unit(rng), v = draw_unit(rng);

    return median * exp(sigma * sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v));
}

/* The finaliser of MurmurHash3, over both. */
uint64_t mix64(uint64_t a, uint64_t b)
{
    uint64_t h = a * 0x9e3779b97f4a7c15u + b;

    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}
