#include "world.h"

#include "cox/base/alloc.h"

#include <stdlib.h>

void samples_add(struct samples *s, uint64_t value)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 1024;
        s->values = cox_realloc(s->values, s->cap, sizeof(*s->values));
    }
    s->values[s->n++] = value;
    s->sorted = false;
}

double samples_mean(const struct samples *s)
{
    double sum = 0;

    for (size_t i = 0; i < s->n; i++)
        sum += (double)s->values[i];
    return s->n > 0 ? sum / (double)s->n : 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

uint64_t samples_at(struct samples *s, uint32_t per_mille)
{
    if (s->n == 0)
        return 0;
    if (!s->sorted)
        qsort(s->values, s->n, sizeof(*s->values), compare);
    s->sorted = true;
    return s->values[(s->n - 1) * per_mille / 1000];
}

void samples_fini(struct samples *s)
{
    cox_free(s->values);
}
