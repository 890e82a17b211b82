/* Preloaded into a program: the COX_FAIL_ALLOC-th allocation from the start fails, once; and only this
 * process's, its children have all of theirs. glibc's own functions lie under other names. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

void *__libc_malloc(size_t len);
void *__libc_calloc(size_t n, size_t len);
void *__libc_realloc(void *p, size_t len);

static _Atomic long left; /* 0: none fails any more */

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("COX_FAIL_ALLOC");

    atomic_store(&left, text ? strtol(text, NULL, 10) : 0);
    (void)unsetenv("LD_PRELOAD");
}

static int fails(void)
{
    static const char text[] = "an allocation fails\n";

    if (atomic_load_explicit(&left, memory_order_relaxed) <= 0 || atomic_fetch_sub(&left, 1) != 1)
        return 0;
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t len)
{
    return fails() ? NULL : __libc_malloc(len);
}

void *calloc(size_t n, size_t len)
{
    return fails() ? NULL : __libc_calloc(n, len);
}

void *realloc(void *p, size_t len)
{
    return fails() ? NULL : __libc_realloc(p, len);
}
