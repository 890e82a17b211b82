#include "world.h"

#include "kv.h"

#include "cox/base/alloc.h"

struct oracle {
    struct cox_map64 seen;
    struct kv *pooled;
};

struct oracle *oracle_create(uint32_t n_blocks)
{
    struct oracle *o = COX_NEW(struct oracle);

    o->pooled = kv_create(n_blocks);
    return o;
}

void oracle_destroy(struct oracle *o)
{
    if (!o)
        return;
    cox_map64_fini(&o->seen);
    kv_destroy(o->pooled);
    cox_free(o);
}

void oracle_call(struct oracle *o, const uint64_t *blocks, uint32_t n_prompt, uint32_t n_all,
                 uint32_t *ret_seen, uint32_t *ret_pooled)
{
    uint32_t *held = cox_calloc(n_all + 1, sizeof(*held)), n = 0;

    *ret_seen = 0;
    /* Whatever is there has all that comes before it there too. */
    for (uint32_t low = 0, high = n_prompt; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        bool there = cox_map64_get(&o->seen, blocks[middle]) != NULL;
        low = there ? middle + 1 : low;
        high = there ? high : middle;
        *ret_seen = low;
    }
    for (uint32_t i = *ret_seen; i < n_all; i++)
        cox_map64_set(&o->seen, blocks[i], o);
    while (n < n_prompt && (held[n] = kv_hold(o->pooled, blocks[n])) != KV_NONE)
        n++;
    *ret_pooled = n;
    while (n < n_all && (held[n] = kv_take(o->pooled)) != KV_NONE) {
        kv_name(o->pooled, held[n], blocks[n]);
        n++;
    }
    while (n > 0)
        kv_release(o->pooled, held[--n]);
    cox_free(held);
}
