/* Bump allocator: many small allocations, one release. Chunks are kept by reset, so a loop turn that decodes
 * messages into an arena allocates nothing once warm. Memory above COX_ARENA_KEEP is returned on reset. */
#ifndef COX_BASE_ARENA_H
#define COX_BASE_ARENA_H

#include <stddef.h>

struct cox_arena_chunk;
struct cox_arena {
    struct cox_arena_chunk *head;
    size_t used;
};
#define COX_ARENA_KEEP ((size_t)1 << 20)

void *cox_arena_alloc(struct cox_arena *a, size_t size); /* 16-byte aligned, uninitialised, never NULL */
void *cox_arena_dup(struct cox_arena *a, const void *data, size_t len); /* adds a NUL after the copy */
void cox_arena_reset(struct cox_arena *a);
void cox_arena_fini(struct cox_arena *a);
void cox_arena_wipe(struct cox_arena *a); /* as fini, and what was in it is overwritten: it held secrets */

#endif
