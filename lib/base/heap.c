#include "cox/base/heap.h"

#include "cox/base/alloc.h"

#define CAP_MIN ((size_t)16)

static bool before(const struct cox_heap_node *a, const struct cox_heap_node *b)
{
    return a->key != b->key ? a->key < b->key : a->order < b->order;
}

static void place(struct cox_heap *h, size_t i, struct cox_heap_node *n)
{
    h->nodes[i] = n;
    n->index = i;
}

static void sift_up(struct cox_heap *h, struct cox_heap_node *n)
{
    size_t i = n->index;

    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (!before(n, h->nodes[parent]))
            break;
        place(h, i, h->nodes[parent]);
        i = parent;
    }
    place(h, i, n);
}

static void sift_down(struct cox_heap *h, struct cox_heap_node *n)
{
    size_t i = n->index;

    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->len)
            break;
        if (child + 1 < h->len && before(h->nodes[child + 1], h->nodes[child]))
            child++;
        if (!before(h->nodes[child], n))
            break;
        place(h, i, h->nodes[child]);
        i = child;
    }
    place(h, i, n);
}

void cox_heap_fini(struct cox_heap *h)
{
    for (size_t i = 0; i < h->len; i++)
        h->nodes[i]->index = COX_HEAP_OUT;
    cox_free(h->nodes);
    *h = (struct cox_heap){ 0 };
}

void cox_heap_set(struct cox_heap *h, struct cox_heap_node *n, uint64_t key)
{
    if (!cox_heap_has(n)) {
        if (h->len == h->cap) {
            h->cap = h->cap ? h->cap * 2 : CAP_MIN;
            h->nodes = cox_realloc(h->nodes, h->cap, sizeof(*h->nodes));
        }
        place(h, h->len++, n);
    }
    n->key = key;
    n->order = h->next_order++;
    sift_up(h, n);
    sift_down(h, n);
}

void cox_heap_remove(struct cox_heap *h, struct cox_heap_node *n)
{
    if (!cox_heap_has(n))
        return;
    struct cox_heap_node *last = h->nodes[--h->len];

    if (last != n) {
        place(h, n->index, last);
        sift_up(h, last);
        sift_down(h, last);
    }
    n->index = COX_HEAP_OUT;
}

struct cox_heap_node *cox_heap_min(const struct cox_heap *h)
{
    return h->len > 0 ? h->nodes[0] : NULL;
}
