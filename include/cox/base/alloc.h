/* Memory that cannot fail to arrive.
 *
 * Why: an orchestrator that is half way through applying a record cannot go on without the memory for the
 * other half. Sizes that come from outside are checked against limits.h first; what remains is the machine
 * running out, and then the process exits with COX_EXIT_RECOVER (75), as it does on a failed commit, and
 * recovers from its log. Thread: any.
 */
#ifndef COX_BASE_ALLOC_H
#define COX_BASE_ALLOC_H

#include <stddef.h>

#define COX_EXIT_RECOVER 75 /* EX_TEMPFAIL: start me again, nothing acknowledged is lost */

#define COX_ALLOC_FN __attribute__((malloc, returns_nonnull, warn_unused_result))

void *cox_alloc(size_t size) COX_ALLOC_FN;            /* uninitialised; size 0 gives 1 byte */
void *cox_calloc(size_t n, size_t size) COX_ALLOC_FN; /* zeroed; n * size is overflow-checked */
void *cox_realloc(void *p, size_t n, size_t size)     /* n * size is overflow-checked */
    __attribute__((returns_nonnull, warn_unused_result));
char *cox_strdup(const char *s) COX_ALLOC_FN;
char *cox_strndup(const char *s, size_t len) COX_ALLOC_FN; /* copies len bytes, adds NUL */
char *cox_asprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2))) COX_ALLOC_FN;
void cox_free(void *p);                 /* NULL is allowed */
_Noreturn void cox_out_of_memory(void); /* for who learns from a library that it had none */

#define COX_NEW(type) ((type *)cox_calloc(1, sizeof(type)))

#endif
