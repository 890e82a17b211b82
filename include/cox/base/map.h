/* Hash maps with borrowed values. Iteration order is unspecified: code whose output must be deterministic
 * never iterates a map (sort the keys, or keep a list beside it). Zero-initialised maps are empty and valid.
 * Cost: O(1) expected; open addressing, power-of-two capacity, grows at 3/4. Thread: one at a time.
 */
#ifndef COX_BASE_MAP_H
#define COX_BASE_MAP_H

#include "cox/base/buf.h"

struct cox_map64_slot;
struct cox_map64 { /* u64 -> void* (values are not NULL) */
    struct cox_map64_slot *slots;
    size_t len;
    size_t cap;
    size_t n_tombs;
};
void cox_map64_fini(struct cox_map64 *m);
void *cox_map64_get(const struct cox_map64 *m, uint64_t key);        /* NULL when absent */
void *cox_map64_set(struct cox_map64 *m, uint64_t key, void *value); /* returns the old value or NULL */
void *cox_map64_remove(struct cox_map64 *m, uint64_t key);           /* returns the value or NULL */
/* Visits every pair; *it starts at 0; false at the end. Meanwhile nothing may be added; what has been visited
 * may be removed. O(cap) for all. */
bool cox_map64_next(const struct cox_map64 *m, size_t *it, uint64_t *key, void **value);

struct cox_mapb_slot;
struct cox_mapb { /* bytes -> void*; keys are copied */
    struct cox_mapb_slot *slots;
    size_t len;
    size_t cap;
    size_t n_tombs;
};
void cox_mapb_fini(struct cox_mapb *m);
void *cox_mapb_get(const struct cox_mapb *m, struct cox_slice key);
void *cox_mapb_set(struct cox_mapb *m, struct cox_slice key, void *value);
void *cox_mapb_remove(struct cox_mapb *m, struct cox_slice key);
bool cox_mapb_next(const struct cox_mapb *m, size_t *it, struct cox_slice *key, void **value);

/* 64-bit mixing hash, stable across runs and machines (fixed seed: inputs to maps are length-limited ids,
 * and an open-addressing table that clusters is slow, not wrong). */
uint64_t cox_hash64(const void *data, size_t len);

#endif
