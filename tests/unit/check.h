/* What every unit test includes: cmocka in the order it needs, and a few words more. */
#ifndef COX_TEST_CHECK_H
#define COX_TEST_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* A failed check inside a property test names the seed that repeats it. */
#define check_seeded(cond, seed)                                                                             \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            fail_msg("seed %llu: %s", (unsigned long long)(seed), #cond);                                    \
    } while (0)

#endif
