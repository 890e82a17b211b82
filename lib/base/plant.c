#include "cox/base/plant.h"

#ifdef COX_PLANT
#include <stdlib.h>
#include <string.h>

static const char *chosen;

/* Before main: no thread reads it while it is written, and the engine asks no environment. */
__attribute__((constructor)) static void choose(void)
{
    chosen = getenv("COX_PLANT");
}

bool cox_planted(const char *name)
{
    return chosen && strcmp(chosen, name) == 0;
}
#else
typedef int nothing_is_planted; /* ISO C wants a declaration */
#endif
