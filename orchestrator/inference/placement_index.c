#include "placement_index.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/plant.h"

#include <string.h>

struct index_node {
    struct index_tree *tree;
    struct index_node *parent;
    struct cox_list sibling; /* in the parent's children, or the tree's roots */
    struct cox_list children;
    struct cox_heap_node leaf; /* in the tree's leaves, while it has no children */
    uint64_t touched;
    uint32_t start; /* how many blocks come before */
    uint32_t n, cap;
    uint64_t *hashes;
};

/* ---- who has a block: up to three owners in one word ---- */

#define FIELD_BITS 20u
#define FIELD_MASK ((1u << FIELD_BITS) - 1u)
#define FIELDS 3u
#define TAKEN (1ULL << 63) /* so that the word is never NULL, and no address either */

static uint32_t field(uint64_t word, uint32_t i)
{
    return (uint32_t)(word >> (i * FIELD_BITS)) & FIELD_MASK;
}

/* The word without this owner. */
static uint64_t without(uint64_t word, uint32_t owner)
{
    uint64_t kept = TAKEN;

    for (uint32_t i = 0, to = 0; i < FIELDS; i++) {
        uint32_t f = field(word, i);
        if (f != 0 && f != owner + 1)
            kept |= (uint64_t)f << (to++ * FIELD_BITS);
    }
    return kept;
}

static struct cox_map64 *part(struct cox_map64 *parts, uint64_t key)
{
    return &parts[key >> 56];
}

static uint64_t holders_get(const struct index_shared *s, uint64_t hash)
{
    return (uintptr_t)cox_map64_get(&s->holders[hash >> 56], hash);
}

static void holders_add(struct index_shared *s, uint64_t hash, uint32_t owner)
{
    uint64_t rest = without(holders_get(s, hash), owner) & ~TAKEN;
    uint64_t word = TAKEN | ((rest << FIELD_BITS) & ((1ULL << (FIELDS * FIELD_BITS)) - 1)) | (owner + 1u);

    cox_map64_set(part(s->holders, hash), hash, (void *)(uintptr_t)word);
}

static void holders_drop(struct index_shared *s, uint64_t hash, uint32_t owner)
{
    uint64_t word = holders_get(s, hash), rest = without(word, owner);

    if (word == 0 || rest == word)
        return;
    if (rest == TAKEN)
        cox_map64_remove(part(s->holders, hash), hash);
    else
        cox_map64_set(part(s->holders, hash), hash, (void *)(uintptr_t)rest);
}

/* ---- where a block is ---- */

static uint64_t at_key(const struct index_tree *t, uint64_t hash)
{
    return hash ^ ((uint64_t)(t->owner + 1u) * 0x9e3779b97f4a7c15ULL);
}

static struct index_node *at_get(const struct index_tree *t, uint64_t hash)
{
    uint64_t key = at_key(t, hash);

    return cox_map64_get(part(t->shared->at, key), key);
}

static void at_set(struct index_tree *t, uint64_t hash, struct index_node *x)
{
    uint64_t key = at_key(t, hash);

    cox_map64_set(part(t->shared->at, key), key, x);
}

static void at_remove(struct index_tree *t, uint64_t hash)
{
    uint64_t key = at_key(t, hash);

    cox_map64_remove(part(t->shared->at, key), key);
}

/* The node that holds block `depth` of a prompt, or NULL. Two blocks whose keys are equal by chance are told
 * apart here. */
static struct index_node *node_at(const struct index_tree *t, uint64_t hash, uint32_t depth)
{
    struct index_node *x = at_get(t, hash);

    if (x == NULL || x->tree != t || depth < x->start || depth - x->start >= x->n ||
        x->hashes[depth - x->start] != hash)
        return NULL;
    return x;
}

static void blocks_set(struct index_node *x, uint32_t from)
{
    for (uint32_t i = from; i < x->n; i++)
        at_set(x->tree, x->hashes[i], x);
}

static void blocks_drop(struct index_node *x, uint32_t keep)
{
    struct index_tree *t = x->tree;

    for (uint32_t i = keep; i < x->n; i++) {
        if (at_get(t, x->hashes[i]) == x)
            at_remove(t, x->hashes[i]);
        holders_drop(t->shared, x->hashes[i], t->owner);
    }
    t->n_blocks -= x->n - keep;
    x->n = keep;
}

static void append(struct index_node *x, const uint64_t *blocks, uint32_t n)
{
    struct index_tree *t = x->tree;
    uint32_t from = x->n;

    if (n > x->cap - x->n) {
        x->cap = x->n > 0 && x->n + n < 2 * x->cap ? 2 * x->cap : x->n + n;
        x->hashes = cox_realloc(x->hashes, x->cap, sizeof *x->hashes);
    }
    memcpy(x->hashes + x->n, blocks, n * sizeof *blocks);
    x->n += n;
    t->n_blocks += n;
    blocks_set(x, from);
    for (uint32_t i = from; i < x->n; i++)
        holders_add(t->shared, x->hashes[i], t->owner);
}

static struct index_node *node_make(struct index_tree *t, struct index_node *parent, uint32_t start)
{
    struct index_node *x = COX_NEW(struct index_node);

    x->tree = t;
    x->parent = parent;
    x->start = start;
    x->touched = t->clock;
    cox_list_init(&x->children);
    cox_list_init(&x->sibling);
    cox_heap_node_init(&x->leaf);
    cox_list_push_back(parent != NULL ? &parent->children : &t->roots, &x->sibling);
    if (parent != NULL)
        cox_heap_remove(&t->leaves, &parent->leaf);
    cox_heap_set(&t->leaves, &x->leaf, x->touched);
    return x;
}

/* A node without children and without blocks leaves; its parent may be a leaf now. */
static void node_free(struct index_node *x)
{
    struct index_tree *t = x->tree;
    struct index_node *parent = x->parent;

    cox_heap_remove(&t->leaves, &x->leaf);
    cox_list_remove(&x->sibling);
    cox_free(x->hashes);
    cox_free(x);
    if (parent != NULL && cox_list_empty(&parent->children))
        cox_heap_set(&t->leaves, &parent->leaf, parent->touched);
}

static void touch(struct index_node *x)
{
    struct index_tree *t = x->tree;

    t->clock++;
    for (; x != NULL; x = x->parent) {
        x->touched = t->clock;
        if (cox_heap_has(&x->leaf))
            cox_heap_set(&t->leaves, &x->leaf, x->touched);
    }
}

/* Of `x` stay the first `n` blocks; the others are a node of their own below it, with its children. */
static void split(struct index_node *x, uint32_t n)
{
    struct index_tree *t = x->tree;
    struct index_node *low = COX_NEW(struct index_node);

    low->tree = t;
    low->parent = x;
    low->start = x->start + n;
    low->touched = x->touched;
    low->n = low->cap = x->n - n;
    low->hashes = cox_alloc(low->n * sizeof *low->hashes);
    memcpy(low->hashes, x->hashes + n, low->n * sizeof *low->hashes);
    cox_list_init(&low->children);
    cox_list_init(&low->sibling);
    cox_heap_node_init(&low->leaf);
    COX_LIST_FOR_EACH (it, &x->children) {
        cox_list_remove(it);
        cox_list_push_back(&low->children, it);
        COX_CONTAINER_OF(it, struct index_node, sibling)->parent = low;
    }
    x->n = n;
    cox_list_push_back(&x->children, &low->sibling);
    cox_heap_remove(&t->leaves, &x->leaf);
    if (cox_list_empty(&low->children))
        cox_heap_set(&t->leaves, &low->leaf, low->touched);
    blocks_set(low, 0);
}

static void evict(struct index_tree *t)
{
    while (t->n_blocks > t->max_blocks) {
        struct cox_heap_node *least = cox_heap_min(&t->leaves);
        struct index_node *x = COX_CONTAINER_OF(least, struct index_node, leaf);
        uint32_t excess = t->n_blocks - t->max_blocks;
        if (excess < x->n) {
            blocks_drop(x, x->n - excess);
            return;
        }
        blocks_drop(x, 0);
        node_free(x);
    }
}

/* ---- public ---- */

void index_shared_fini(struct index_shared *s)
{
    for (uint32_t i = 0; i < INDEX_PARTS; i++) {
        cox_map64_fini(&s->at[i]);
        cox_map64_fini(&s->holders[i]);
    }
}

uint64_t index_shared_len(const struct index_shared *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < INDEX_PARTS; i++)
        n += s->at[i].len + s->holders[i].len;
    return n;
}

void index_tree_init(struct index_tree *t, struct index_shared *shared, uint32_t owner, uint32_t max_blocks)
{
    COX_ASSERT(owner <= INDEX_OWNERS_MAX);
    *t = (struct index_tree){ .shared = shared, .owner = owner, .max_blocks = max_blocks };
    cox_list_init(&t->roots);
}

void index_forget(struct index_tree *t)
{
    uint32_t max_blocks = t->max_blocks;

    t->max_blocks = 0;
    evict(t);
    t->max_blocks = max_blocks;
}

void index_tree_fini(struct index_tree *t)
{
    index_forget(t);
    COX_ASSERT(t->n_blocks == 0 && cox_list_empty(&t->roots));
    cox_heap_fini(&t->leaves);
}

void index_limit(struct index_tree *t, uint32_t max_blocks)
{
    t->max_blocks = max_blocks;
    evict(t);
}

uint32_t index_hit(const struct index_tree *t, const uint64_t *blocks, uint32_t n)
{
    uint32_t there = 0, absent = n;

    while (there < absent) {
        uint32_t middle = there + (absent - there) / 2;
        if (node_at(t, blocks[middle], middle) != NULL)
            there = middle + 1;
        else
            absent = middle;
    }
    return there;
}

void index_put(struct index_tree *t, const uint64_t *blocks, uint32_t n)
{
    n = n < t->max_blocks ? n : t->max_blocks;
    uint32_t there = index_hit(t, blocks, n);
    struct index_node *x = there > 0 ? node_at(t, blocks[there - 1], there - 1) : NULL;

    if (x != NULL && there - x->start < x->n)
        split(x, there - x->start);
    if (x != NULL && !COX_PLANTED("index-no-touch"))
        touch(x);
    if (there == n)
        return;
    if (x == NULL || !cox_list_empty(&x->children)) {
        t->clock++;
        x = node_make(t, x, there);
    }
    append(x, blocks + there, n - there);
    evict(t);
}

void index_cut(struct index_tree *t, const uint64_t *blocks, uint32_t n, uint32_t keep)
{
    uint32_t there = index_hit(t, blocks, n);

    if (keep >= there)
        return;
    struct index_node *x = node_at(t, blocks[keep], keep);
    if (keep > x->start) {
        split(x, keep - x->start);
        x = node_at(t, blocks[keep], keep);
    }
    /* What continues it goes first, from its ends. */
    struct index_node *top = x->parent;
    while (x != top) {
        if (!cox_list_empty(&x->children)) {
            x = COX_CONTAINER_OF(x->children.next, struct index_node, sibling);
            continue;
        }
        struct index_node *up = cox_list_empty(&x->children) && x->start == keep ? top : x->parent;
        blocks_drop(x, 0);
        node_free(x);
        x = up;
    }
}

/* Below how many blocks somebody is named who has them: at least `least` of them. */
static uint32_t deepest(const struct index_shared *s, const uint64_t *blocks, uint32_t n, uint32_t least)
{
    uint32_t there = 0, absent = n;

    while (there < absent) {
        uint32_t middle = there + (absent - there) / 2;
        if (field(holders_get(s, blocks[middle]), least - 1) != 0)
            there = middle + 1;
        else
            absent = middle;
    }
    return there;
}

uint32_t index_best(const struct index_shared *s, const uint64_t *blocks, uint32_t n, uint32_t *ret,
                    uint32_t max)
{
    uint32_t found = 0;
    uint32_t limit = n;

    for (uint32_t least = 1; least <= 2 && found < max; least++) {
        limit = deepest(s, blocks, limit, least);
        if (limit == 0)
            break;
        uint64_t word = holders_get(s, blocks[limit - 1]);
        for (uint32_t i = 0; i < FIELDS && found < max; i++) {
            uint32_t f = field(word, i);
            bool known = f == 0 || (found > 0 && ret[0] == f - 1);
            if (!known)
                ret[found++] = f - 1;
        }
    }
    return found;
}
