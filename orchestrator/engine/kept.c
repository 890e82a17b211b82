/* Names of what operators keep: a sorted array. There are at most 100,000, they change rarely, and lists are
 * read in their order. */
#include "kept.h"

#include <string.h>

void kept_init(struct kept *k, enum entity_kind kind, uint64_t id, struct cox_slice tenant,
               struct cox_slice name, uint32_t major)
{
    entity_init(&k->entity, kind, id, 0);
    k->tenant = text_own(tenant);
    k->name = text_own(name);
    k->major = major;
}

static int compare(const struct kept *k, struct cox_slice tenant, struct cox_slice name, uint32_t major)
{
    int c = cox_slice_cmp(cox_slice_str(k->tenant), tenant);
    if (c == 0)
        c = cox_slice_cmp(cox_slice_str(k->name), name);
    if (c == 0)
        c = (k->major > major) - (k->major < major);
    return c;
}

uint32_t kept_place(const struct kept_index *ix, struct cox_slice tenant, struct cox_slice name,
                    uint32_t major)
{
    uint32_t low = 0, high = ix->n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (compare(ix->items[mid], tenant, name, major) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct kept *kept_find(const struct kept_index *ix, struct cox_slice tenant, struct cox_slice name,
                       uint32_t major)
{
    uint32_t at = kept_place(ix, tenant, name, major);
    return at < ix->n && compare(ix->items[at], tenant, name, major) == 0 ? ix->items[at] : NULL;
}

/* In the place of the one of this name, if there is one. */
void kept_insert(struct kept_index *ix, struct kept *k)
{
    struct cox_slice tenant = cox_slice_str(k->tenant), name = cox_slice_str(k->name);
    uint32_t at = kept_place(ix, tenant, name, k->major);
    if (at < ix->n && compare(ix->items[at], tenant, name, k->major) == 0) {
        ix->items[at] = k;
        return;
    }
    if (ix->n == ix->cap) {
        ix->cap = ix->cap == 0 ? 16 : ix->cap * 2;
        ix->items = cox_realloc(ix->items, ix->cap, sizeof ix->items[0]);
    }
    memmove(ix->items + at + 1, ix->items + at, (ix->n - at) * sizeof ix->items[0]);
    ix->items[at] = k;
    ix->n++;
}

void kept_remove(struct kept_index *ix, const struct kept *k)
{
    uint32_t at = kept_place(ix, cox_slice_str(k->tenant), cox_slice_str(k->name), k->major);
    COX_ASSERT(at < ix->n && ix->items[at] == k);
    ix->n--;
    memmove(ix->items + at, ix->items + at + 1, (ix->n - at) * sizeof ix->items[0]);
}

void kept_check(const struct kept_index *ix)
{
    for (uint32_t i = 1; i < ix->n; i++) {
        const struct kept *k = ix->items[i];
        COX_ASSERT(compare(ix->items[i - 1], cox_slice_str(k->tenant), cox_slice_str(k->name), k->major) < 0);
    }
}

bool kept_has_room(const struct cox_engine *e, size_t n, size_t n_max, uint64_t len)
{
    return n < n_max && e->kept_len + len <= COX_KEPT_LEN_MAX;
}
