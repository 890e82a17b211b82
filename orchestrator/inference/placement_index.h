/* Which prefixes lie in which endpoint's cache, as far as one can know from outside.
 *
 * A tree for each endpoint: a node is a run of blocks that nothing branches off inside, leaves are forgotten
 * from their ends, least recently used first, as engines do it (radix attention). What is known of an
 * endpoint is therefore closed: a block is there only with all before it, and how much of a prompt is there
 * is a binary search. A table shared by a pool names, for each block, up to three endpoints that have it.
 *
 * Cost: index_hit O(log n) look-ups in the prompt's blocks; index_put the same, and O(1) for each block that
 * is new; memory about 110 bytes for each block and endpoint. Pure. Thread: one.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_PLACEMENT_INDEX_H
#define COX_ORCHESTRATOR_INFERENCE_PLACEMENT_INDEX_H

#include "cox/base/heap.h"
#include "cox/base/list.h"
#include "cox/base/map.h"

#define INDEX_OWNERS_MAX 1048574u /* endpoint ids fit 20 bits */

#define INDEX_PARTS 256u                   /* maps grow one by one, so that none takes long */
struct index_shared {                      /* zero-initialised */
    struct cox_map64 at[INDEX_PARTS];      /* block and endpoint -> node */
    struct cox_map64 holders[INDEX_PARTS]; /* block -> up to three endpoints, the latest first */
};
void index_shared_fini(struct index_shared *s);
uint64_t index_shared_len(const struct index_shared *s); /* entries of both */

struct index_tree { /* index_tree_init */
    struct index_shared *shared;
    uint32_t owner;
    uint32_t n_blocks, max_blocks;
    uint64_t clock;
    struct cox_list roots;
    struct cox_heap leaves; /* by when they were touched */
};
void index_tree_init(struct index_tree *t, struct index_shared *shared, uint32_t owner, uint32_t max_blocks);
void index_tree_fini(struct index_tree *t);
/* At most so many blocks from now on; the least recently used go. */
void index_limit(struct index_tree *t, uint32_t max_blocks);

/* How many of the blocks, from the first on, are there. */
uint32_t index_hit(const struct index_tree *t, const uint64_t *blocks, uint32_t n);
/* They are there now, and have been used. */
void index_put(struct index_tree *t, const uint64_t *blocks, uint32_t n);
/* Of this prompt only the first `keep` blocks are there, whatever was believed; what continues it is gone
 * with it. */
void index_cut(struct index_tree *t, const uint64_t *blocks, uint32_t n, uint32_t keep);
void index_forget(struct index_tree *t);

/* Up to `max` (2) endpoints that have the longest known prefixes of these blocks. Returns how many. */
uint32_t index_best(const struct index_shared *s, const uint64_t *blocks, uint32_t n, uint32_t *ret,
                    uint32_t max);

#endif
