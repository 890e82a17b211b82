/* The KV cache of a simulated engine: blocks of tokens, found again by the hash of their prefix.
 *
 * A block is held by calls (counted), or is kept because its name may be asked for again, or is empty. What
 * is kept goes, least recently released first, when a block is needed. held + kept + empty = all, always.
 * After vLLM's design of automatic prefix caching (hash chains over blocks, LRU of free blocks). Pure.
 */
#ifndef COX_MODELSIM_KV_H
#define COX_MODELSIM_KV_H

#include <stdbool.h>
#include <stdint.h>

struct kv;

#define KV_NONE UINT32_MAX

struct kv *kv_create(uint32_t n_blocks);
void kv_destroy(struct kv *kv); /* NULL is allowed */

/* The block of that name, held once more; KV_NONE: it is not there. */
uint32_t kv_hold(struct kv *kv, uint64_t name);
/* Whether it is there, which changes nothing; *ret_idle: nobody holds it. */
bool kv_has(const struct kv *kv, uint64_t name, bool *ret_idle);
/* A block without a name, held once; KV_NONE: all are held. */
uint32_t kv_take(struct kv *kv);
/* What is in it is computed now. Where another has the name already, this one stays without. */
void kv_name(struct kv *kv, uint32_t block, uint64_t name);
void kv_release(struct kv *kv, uint32_t block);
void kv_forget(struct kv *kv); /* names of what nobody holds: as after a restart */

struct kv_counts {
    uint32_t n_blocks, held, kept, empty;
    uint64_t evicted;
};
void kv_counts(const struct kv *kv, struct kv_counts *ret);
uint32_t kv_available(const struct kv *kv); /* kept + empty */

#endif
