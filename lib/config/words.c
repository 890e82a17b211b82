#include "cox/config.h"

#include <string.h>

#define WORD_MAX 64

unsigned cox_config_distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX + 1];
    size_t len = strlen(b);

    if (len > WORD_MAX || strlen(a) > WORD_MAX)
        return WORD_MAX;
    for (unsigned k = 0; k <= len; k++)
        rows[0][k] = k;
    unsigned *above2 = rows[2], *above = rows[0], *row = rows[1];

    for (unsigned i = 1; a[i - 1]; i++) {
        row[0] = i;
        for (size_t k = 1; k <= len; k++) {
            row[k] = above[k - 1] + (a[i - 1] != b[k - 1]);
            row[k] = above[k] + 1 < row[k] ? above[k] + 1 : row[k];
            row[k] = row[k - 1] + 1 < row[k] ? row[k - 1] + 1 : row[k];
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] && above2[k - 2] + 1 < row[k])
                row[k] = above2[k - 2] + 1;
        }
        unsigned *spare = above2;
        above2 = above;
        above = row;
        row = spare;
    }
    return above[len];
}

void cox_config_consider(const char *word, const char *candidate, const char **nearest, unsigned *best)
{
    unsigned d = cox_config_distance(word, candidate);

    /* Of a word of two letters, everything short is near. */
    if (d < *best && d < strlen(word)) {
        *best = d;
        *nearest = candidate;
    }
}
