#include "cox/base/pool.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <string.h>

#define BLOCK_LEN 65536u

struct link {
    struct link *next;
};

static void grow(struct cox_pool *p)
{
    size_t len = (p->item_len + sizeof(struct link) - 1) / sizeof(struct link) * sizeof(struct link);
    COX_ASSERT(p->item_len >= sizeof(struct link) && len <= BLOCK_LEN - sizeof(struct link));
    struct link *block = cox_alloc(BLOCK_LEN);
    block->next = p->blocks;
    p->blocks = block;
    for (size_t at = sizeof *block; at + len <= BLOCK_LEN; at += len) {
        struct link *item = (struct link *)(void *)((char *)block + at);
        item->next = p->free;
        p->free = item;
    }
}

void *cox_pool_get(struct cox_pool *p)
{
    if (p->free == NULL)
        grow(p);
    struct link *item = p->free;
    p->free = item->next;
    memset(item, 0, p->item_len);
    return item;
}

void cox_pool_put(struct cox_pool *p, void *item)
{
    struct link *link = item;
    link->next = p->free;
    p->free = link;
}

void cox_pool_fini(struct cox_pool *p)
{
    while (p->blocks != NULL) {
        struct link *block = p->blocks;
        p->blocks = block->next;
        cox_free(block);
    }
    p->free = NULL;
}
