/* Intrusive binary min-heap on a u64 key (a time, usually). A node outside a heap has index
 * COX_HEAP_OUT; zero-initialised nodes must be passed to cox_heap_node_init first.
 * Equal keys leave in insertion order (`order` breaks ties), so behaviour never depends on addresses.
 * Cost: push, remove, pop O(log n), amortised one allocation. Thread: one at a time.
 */
#ifndef COX_BASE_HEAP_H
#define COX_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COX_HEAP_OUT SIZE_MAX

struct cox_heap_node {
    uint64_t key;
    uint64_t order;
    size_t index;
};

struct cox_heap {
    struct cox_heap_node **nodes;
    size_t len;
    size_t cap;
    uint64_t next_order;
};

static inline void cox_heap_node_init(struct cox_heap_node *n)
{
    n->key = 0;
    n->order = 0;
    n->index = COX_HEAP_OUT;
}
static inline bool cox_heap_has(const struct cox_heap_node *n)
{
    return n->index != COX_HEAP_OUT;
}
void cox_heap_fini(struct cox_heap *h); /* zeroed is valid; nodes are the caller's */
void cox_heap_set(struct cox_heap *h, struct cox_heap_node *n, uint64_t key); /* inserts or moves */
void cox_heap_remove(struct cox_heap *h, struct cox_heap_node *n);            /* harmless when outside */
struct cox_heap_node *cox_heap_min(const struct cox_heap *h);                 /* NULL when empty */

#endif
