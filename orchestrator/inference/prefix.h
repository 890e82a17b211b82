/* Hashes of a prompt's prefixes, found again from turn to turn: turn n hashes only what it adds.
 *
 * A prompt is the canonical bytes of a request in the order in which engines see them: model, tools, then the
 * messages. It is cut into blocks of PLACEMENT_BLOCK_LEN; each hash (XXH3-64) goes over its block and the
 * hash before it, so equal hashes mean equal prefixes. Pure. Thread: one.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_PREFIX_H
#define COX_ORCHESTRATOR_INFERENCE_PREFIX_H

#include "cox/base/buf.h"

/* What a program's last prompt was: kept between its calls. Zero-initialised: nothing yet. */
struct prefix {
    uint64_t *blocks;
    uint32_t n_blocks, cap_blocks;
    struct prefix_part *parts; /* length and digest of each part that is hashed already */
    uint32_t n_parts, cap_parts;
    struct cox_buf tail; /* bytes after the last whole block */
    uint64_t hashed_len; /* in all calls: what tests and the benchmark look at */
};
void prefix_fini(struct prefix *x);

/* Makes `x` that of these parts. Those which are the same as last time, from the first on, are compared by
 * length and digest and not cut up again. `salt` keeps tenants apart. */
void prefix_update(struct prefix *x, uint64_t salt, const struct cox_slice *parts, uint32_t n_parts);

#endif
