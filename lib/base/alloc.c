#include "cox/base/alloc.h"

#include "cox/base/plant.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* No stdio and no exit handlers here: either may allocate, or wait for a lock this thread holds. */
_Noreturn void cox_out_of_memory(void)
{
    static const char text[] = "out of memory: exiting to recover from the log\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);

    (void)n;
    _exit(COX_EXIT_RECOVER);
}

static void *or_exit(void *p)
{
    if (!p && !COX_PLANTED("unchecked-allocation"))
        cox_out_of_memory();
    return p;
}

void *cox_alloc(size_t size)
{
    return or_exit(malloc(size ? size : 1));
}

void *cox_calloc(size_t n, size_t size)
{
    if (n == 0 || size == 0)
        n = size = 1;
    return or_exit(calloc(n, size));
}

void *cox_realloc(void *p, size_t n, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(n, size, &total))
        cox_out_of_memory();
    return or_exit(realloc(p, total ? total : 1));
}

char *cox_strdup(const char *s)
{
    return cox_strndup(s, strlen(s));
}

char *cox_strndup(const char *s, size_t len)
{
    if (len == SIZE_MAX)
        cox_out_of_memory();
    char *copy = cox_alloc(len + 1);

    if (len > 0)
        memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

char *cox_asprintf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0)
        cox_out_of_memory();
    return or_exit(text);
}

void cox_free(void *p)
{
    free(p);
}
