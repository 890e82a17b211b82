#include "cox/base/arena.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <stdalign.h>
#include <stdint.h>
#include <string.h>

#define CHUNK_MIN ((size_t)4096)
#define ALIGN ((size_t)16)

struct cox_arena_chunk {
    struct cox_arena_chunk *next;
    size_t cap;
    alignas(ALIGN) unsigned char data[];
};

static struct cox_arena_chunk *chunk_create(size_t cap)
{
    struct cox_arena_chunk *c = cox_alloc(sizeof(*c) + cap);

    c->next = NULL;
    c->cap = cap;
    return c;
}

/* Chunks double, so that after a reset, which keeps the newest, a few turns lead to one chunk that fits all.
 */
static size_t next_cap(const struct cox_arena *a, size_t size)
{
    size_t cap = a->head ? a->head->cap * 2 : CHUNK_MIN;

    if (cap > COX_ARENA_KEEP)
        cap = COX_ARENA_KEEP;
    return cap < size ? size : cap;
}

void *cox_arena_alloc(struct cox_arena *a, size_t size)
{
    COX_ASSERT(size <= SIZE_MAX / 2);
    size = (size + ALIGN - 1) & ~(ALIGN - 1);
    if (a->head && size <= a->head->cap - a->used) {
        void *p = a->head->data + a->used;
        a->used += size;
        return p;
    }
    /* A large piece gets a chunk of its own behind the head, whose remaining room stays in use. */
    if (a->head && size > COX_ARENA_KEEP / 4) {
        struct cox_arena_chunk *own = chunk_create(size);
        own->next = a->head->next;
        a->head->next = own;
        return own->data;
    }
    struct cox_arena_chunk *c = chunk_create(next_cap(a, size));

    c->next = a->head;
    a->head = c;
    a->used = size;
    return c->data;
}

void *cox_arena_dup(struct cox_arena *a, const void *data, size_t len)
{
    COX_ASSERT(len < SIZE_MAX / 2);
    unsigned char *copy = cox_arena_alloc(a, len + 1);

    if (len > 0)
        memcpy(copy, data, len);
    copy[len] = '\0';
    return copy;
}

static void free_from(struct cox_arena_chunk *c)
{
    while (c) {
        struct cox_arena_chunk *next = c->next;
        cox_free(c);
        c = next;
    }
}

void cox_arena_reset(struct cox_arena *a)
{
    if (!a->head)
        return;
    if (a->head->cap > COX_ARENA_KEEP) {
        cox_arena_fini(a);
        return;
    }
    free_from(a->head->next);
    a->head->next = NULL;
    a->used = 0;
}

void cox_arena_wipe(struct cox_arena *a)
{
    for (struct cox_arena_chunk *c = a->head; c; c = c->next)
        explicit_bzero(c->data, c->cap);
    cox_arena_fini(a);
}

void cox_arena_fini(struct cox_arena *a)
{
    free_from(a->head);
    a->head = NULL;
    a->used = 0;
}
