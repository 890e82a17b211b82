/* Many small objects of one size that live long: together, in blocks, so that they do not lie scattered
 * between short-lived memory and keep its pages from being used again. Zero-initialised but for `item_len` is
 * valid and empty. Blocks are freed by cox_pool_fini only. Thread: one. */
#ifndef COX_BASE_POOL_H
#define COX_BASE_POOL_H

#include <stddef.h>

struct cox_pool {
    size_t item_len; /* of each object; at least a pointer's */
    void *blocks;    /* linked through their first word */
    void *free;      /* objects, linked likewise */
};

void *cox_pool_get(struct cox_pool *p);            /* zeroed; O(1), now and then a block */
void cox_pool_put(struct cox_pool *p, void *item); /* one of its own */
void cox_pool_fini(struct cox_pool *p);            /* every object with it */

#endif
