#include "kv.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/map.h"

#include <stddef.h>

struct block {
    uint64_t name;
    uint32_t holders;
    uint32_t next, prev; /* among those that nobody holds */
    bool named;
};

struct kv {
    struct block *blocks; /* [0] is the head of the list; block b is at b + 1 */
    uint32_t len, cap, max;
    uint32_t n_idle, n_kept; /* in the list; of them named */
    uint64_t evicted;
    struct cox_map64 names; /* -> index + 1 */
};

struct kv *kv_create(uint32_t n_blocks)
{
    struct kv *kv = COX_NEW(struct kv);

    kv->max = n_blocks;
    kv->cap = 64;
    kv->blocks = cox_calloc(kv->cap, sizeof(*kv->blocks));
    kv->len = 1;
    return kv;
}

void kv_destroy(struct kv *kv)
{
    if (!kv)
        return;
    cox_map64_fini(&kv->names);
    cox_free(kv->blocks);
    cox_free(kv);
}

static void unlink_block(struct kv *kv, uint32_t i)
{
    struct block *b = &kv->blocks[i];

    kv->blocks[b->prev].next = b->next;
    kv->blocks[b->next].prev = b->prev;
    kv->n_idle--;
    kv->n_kept -= b->named;
}

/* What has no name is of no use to anybody: it goes first. */
static void link_block(struct kv *kv, uint32_t i)
{
    struct block *b = &kv->blocks[i], *head = &kv->blocks[0];

    b->prev = b->named ? head->prev : 0;
    b->next = b->named ? 0 : head->next;
    kv->blocks[b->prev].next = i;
    kv->blocks[b->next].prev = i;
    kv->n_idle++;
    kv->n_kept += b->named;
}

static void unname(struct kv *kv, struct block *b)
{
    cox_map64_remove(&kv->names, b->name);
    b->named = false;
}

uint32_t kv_hold(struct kv *kv, uint64_t name)
{
    uintptr_t i = (uintptr_t)cox_map64_get(&kv->names, name);

    if (i == 0)
        return KV_NONE;
    if (kv->blocks[i].holders == 0)
        unlink_block(kv, (uint32_t)i);
    kv->blocks[i].holders++;
    return (uint32_t)i - 1;
}

bool kv_has(const struct kv *kv, uint64_t name, bool *ret_idle)
{
    uintptr_t i = (uintptr_t)cox_map64_get(&kv->names, name);

    *ret_idle = i != 0 && kv->blocks[i].holders == 0;
    return i != 0;
}

uint32_t kv_take(struct kv *kv)
{
    uint32_t i = kv->blocks[0].next;

    if ((i == 0 || kv->blocks[i].named) && kv->len <= kv->max) {
        if (kv->len == kv->cap) {
            kv->cap *= 2;
            kv->blocks = cox_realloc(kv->blocks, kv->cap, sizeof(*kv->blocks));
        }
        i = kv->len++;
        kv->blocks[i] = (struct block){ .holders = 1 };
        return i - 1;
    }
    if (i == 0)
        return KV_NONE;
    unlink_block(kv, i);
    if (kv->blocks[i].named) {
        unname(kv, &kv->blocks[i]);
        kv->evicted++;
    }
    kv->blocks[i].holders = 1;
    return i - 1;
}

void kv_name(struct kv *kv, uint32_t block, uint64_t name)
{
    struct block *b = &kv->blocks[block + 1];

    COX_ASSERT(b->holders > 0);
    if (b->named || cox_map64_get(&kv->names, name))
        return;
    b->name = name;
    b->named = true;
    cox_map64_set(&kv->names, name, (void *)(uintptr_t)(block + 1));
}

void kv_release(struct kv *kv, uint32_t block)
{
    struct block *b = &kv->blocks[block + 1];

    COX_ASSERT(b->holders > 0);
    if (--b->holders == 0)
        link_block(kv, block + 1);
}

void kv_forget(struct kv *kv)
{
    for (uint32_t i = kv->blocks[0].next; i != 0; i = kv->blocks[i].next) {
        if (kv->blocks[i].named)
            unname(kv, &kv->blocks[i]);
    }
    kv->n_kept = 0;
}

void kv_counts(const struct kv *kv, struct kv_counts *ret)
{
    ret->n_blocks = kv->max;
    ret->held = kv->len - 1 - kv->n_idle;
    ret->kept = kv->n_kept;
    ret->empty = kv->max - ret->held - ret->kept;
    ret->evicted = kv->evicted;
}

uint32_t kv_available(const struct kv *kv)
{
    return kv->max - (kv->len - 1 - kv->n_idle);
}
