#include "cox/base/ring.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <stdatomic.h>

#define CACHE_LINE 64

/* head and tail count pops and pushes and wrap around; a slot is their value modulo the capacity. Each has a
 * cache line of its own, so that the two threads do not take it from each other on every step. */
struct cox_ring {
    _Atomic size_t head; /* written by the consumer */
    char head_pad[CACHE_LINE - sizeof(size_t)];
    _Atomic size_t tail; /* written by the producer */
    char tail_pad[CACHE_LINE - sizeof(size_t)];
    size_t mask;
    void **items;
};

struct cox_ring *cox_ring_create(size_t cap)
{
    COX_ASSERT(cap > 0 && (cap & (cap - 1)) == 0);
    struct cox_ring *r = cox_alloc(sizeof(*r));

    atomic_init(&r->head, 0);
    atomic_init(&r->tail, 0);
    r->mask = cap - 1;
    r->items = cox_calloc(cap, sizeof(*r->items));
    return r;
}

void cox_ring_destroy(struct cox_ring *r)
{
    if (!r)
        return;
    cox_free(r->items);
    cox_free(r);
}

/* Publishing the tail and then reading the head are sequentially consistent, as are the consumer's write of
 * the head and its next read of the tail. So of a push into a ring just drained, either the producer learns
 * that it was empty, or the consumer sees the item: a wake-up cannot fall between them. */
bool cox_ring_push(struct cox_ring *r, void *item, bool *ret_was_empty)
{
    COX_ASSERT(item);
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

    if (tail - atomic_load_explicit(&r->head, memory_order_acquire) > r->mask)
        return false;
    r->items[tail & r->mask] = item;
    atomic_store_explicit(&r->tail, tail + 1, memory_order_seq_cst);
    bool was_empty = atomic_load_explicit(&r->head, memory_order_seq_cst) == tail;

    if (ret_was_empty)
        *ret_was_empty = was_empty;
    return true;
}

void *cox_ring_pop(struct cox_ring *r)
{
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

    if (head == atomic_load_explicit(&r->tail, memory_order_seq_cst))
        return NULL;
    void *item = r->items[head & r->mask];

    atomic_store_explicit(&r->head, head + 1, memory_order_seq_cst);
    return item;
}

size_t cox_ring_len(const struct cox_ring *r)
{
    /* The head first: the tail read after it cannot be behind it. */
    size_t head = atomic_load_explicit(&r->head, memory_order_acquire);
    size_t len = atomic_load_explicit(&r->tail, memory_order_acquire) - head;

    return len > r->mask ? r->mask + 1 : len;
}

size_t cox_ring_cap(const struct cox_ring *r)
{
    return r->mask + 1;
}
