/* The index of prefixes against a model too simple to be wrong: an array of what each endpoint has, each
 * block with the moment it was last used. */
#include "check.h"
#include "placement_index.h"

#include "cox/base/rng.h"

#include <string.h>

#define SEEDS 150
#define TURNS 400
#define OWNERS 3
#define LEN 24
#define NODES 4000

struct entry {
    uint64_t hash;
    uint32_t depth;
    uint64_t used;
    bool there;
};
struct model {
    struct entry entries[NODES];
    uint32_t n;
    uint64_t clock;
};

static struct entry *find(struct model *m, uint64_t hash)
{
    for (uint32_t i = 0; i < m->n; i++) {
        if (m->entries[i].hash == hash)
            return &m->entries[i];
    }
    return NULL;
}

static uint32_t model_hit(struct model *m, const uint64_t *blocks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct entry *e = find(m, blocks[i]);
        if (e == NULL || !e->there)
            return i;
    }
    return n;
}

static uint32_t model_len(const struct model *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n; i++)
        n += m->entries[i].there;
    return n;
}

/* The block used the longest ago goes, of one path the deepest. */
static void model_evict(struct model *m, uint32_t max)
{
    for (uint32_t len = model_len(m); len > max; len--) {
        struct entry *least = NULL;
        for (uint32_t i = 0; i < m->n; i++) {
            struct entry *e = &m->entries[i];
            if (e->there && (least == NULL || e->used < least->used ||
                             (e->used == least->used && e->depth > least->depth)))
                least = e;
        }
        least->there = false;
    }
}

static void model_put(struct model *m, const uint64_t *blocks, uint32_t n, uint32_t max)
{
    n = n < max ? n : max;
    m->clock++;
    for (uint32_t i = 0; i < n; i++) {
        struct entry *e = find(m, blocks[i]);
        if (e == NULL) {
            e = &m->entries[m->n++];
            *e = (struct entry){ .hash = blocks[i], .depth = i };
        }
        e->used = m->clock;
        e->there = true;
    }
    model_evict(m, max);
}

/* Prompts that share beginnings: a walk in a small tree, hashed along the way. */
static void draw(struct cox_rng *rng, uint64_t blocks[LEN], uint32_t *n)
{
    uint64_t hash = 1;

    *n = (uint32_t)cox_rng_below(rng, LEN + 1);
    for (uint32_t i = 0; i < *n; i++) {
        uint64_t way = i % 6 == 2 ? cox_rng_below(rng, 3) : 0;
        hash = cox_hash64(&(uint64_t[]){ hash, way }, 16);
        blocks[i] = hash;
    }
}

static void agrees_with_an_array(void **state)
{
    (void)state;
    static struct model models[OWNERS];

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct index_shared shared = { 0 };
        struct index_tree trees[OWNERS];
        uint32_t max[OWNERS];
        struct cox_rng rng;

        cox_rng_init(&rng, seed);
        memset(models, 0, sizeof models);
        for (uint32_t o = 0; o < OWNERS; o++) {
            max[o] = 5 + (uint32_t)cox_rng_below(&rng, 100);
            index_tree_init(&trees[o], &shared, o, max[o]);
        }
        for (int turn = 0; turn < TURNS; turn++) {
            uint32_t o = (uint32_t)cox_rng_below(&rng, OWNERS), n;
            uint64_t blocks[LEN];
            uint64_t what = cox_rng_below(&rng, 40);
            draw(&rng, blocks, &n);
            if (what < 30) {
                index_put(&trees[o], blocks, n);
                model_put(&models[o], blocks, n, max[o]);
            } else if (what == 30) {
                index_forget(&trees[o]);
                model_evict(&models[o], 0);
            } else if (what == 31) {
                max[o] = 5 + (uint32_t)cox_rng_below(&rng, 100);
                index_limit(&trees[o], max[o]);
                model_evict(&models[o], max[o]);
            }
            check_seeded(trees[o].n_blocks == model_len(&models[o]), seed);
            draw(&rng, blocks, &n);
            uint32_t most = 0, best[2];
            for (o = 0; o < OWNERS; o++) {
                uint32_t hit = model_hit(&models[o], blocks, n);
                check_seeded(index_hit(&trees[o], blocks, n) == hit, seed);
                most = hit > most ? hit : most;
            }
            /* As many owners as a block can name: the best of them is named. */
            uint32_t n_best = index_best(&shared, blocks, n, best, 2);
            check_seeded((n_best > 0) == (most > 0), seed);
            check_seeded(n_best == 0 || model_hit(&models[best[0]], blocks, n) == most, seed);
        }
        for (uint32_t o = 0; o < OWNERS; o++)
            index_tree_fini(&trees[o]);
        check_seeded(index_shared_len(&shared) == 0, seed);
        index_shared_fini(&shared);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
