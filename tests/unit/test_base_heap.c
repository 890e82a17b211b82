#include "check.h"

#include "cox/base/heap.h"
#include "cox/base/rng.h"

#define NODES 200
#define SEEDS 50

struct item {
    struct cox_heap_node node;
    uint64_t key;
    uint64_t set_at; /* when it was last set; 0 while outside */
};

/* The model: a scan for the least key, oldest first. */
static struct item *model_min(struct item *items)
{
    struct item *min = NULL;

    for (size_t i = 0; i < NODES; i++) {
        struct item *it = &items[i];
        if (it->set_at && (!min || it->key < min->key || (it->key == min->key && it->set_at < min->set_at)))
            min = it;
    }
    return min;
}

static void agrees_with_a_scan(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct item items[NODES] = { 0 };
        struct cox_heap heap = { 0 };
        struct cox_rng rng;
        size_t model_len = 0;

        cox_rng_init(&rng, seed);
        for (size_t i = 0; i < NODES; i++)
            cox_heap_node_init(&items[i].node);
        for (uint64_t turn = 1; turn <= 1000; turn++) {
            struct item *it = &items[cox_rng_below(&rng, NODES)];
            uint64_t what = cox_rng_below(&rng, 3);
            if (what == 0) {
                model_len -= it->set_at != 0;
                it->set_at = 0;
                cox_heap_remove(&heap, &it->node);
            } else {
                model_len += it->set_at == 0;
                it->set_at = turn;
                it->key = cox_rng_below(&rng, 20); /* few keys, so that ties are common */
                cox_heap_set(&heap, &it->node, it->key);
            }
            struct item *min = model_min(items);
            check_seeded(cox_heap_min(&heap) == (min ? &min->node : NULL), seed);
            check_seeded(heap.len == model_len, seed);
            check_seeded(cox_heap_has(&it->node) == (it->set_at != 0), seed);
        }
        for (struct item *min; seed % 2 == 0 && (min = model_min(items));) {
            check_seeded(cox_heap_min(&heap) == &min->node, seed);
            cox_heap_remove(&heap, &min->node);
            min->set_at = 0;
        }
        cox_heap_fini(&heap);
        for (size_t i = 0; i < NODES; i++)
            check_seeded(!cox_heap_has(&items[i].node), seed);
    }
}

static void equal_keys_leave_in_insertion_order(void **state)
{
    (void)state;
    struct cox_heap heap = { 0 };
    struct cox_heap_node nodes[50];

    for (size_t i = 0; i < ARRAY_LEN(nodes); i++) {
        cox_heap_node_init(&nodes[i]);
        cox_heap_set(&heap, &nodes[i], 7);
    }
    for (size_t i = 0; i < ARRAY_LEN(nodes); i++) {
        assert_ptr_equal(cox_heap_min(&heap), &nodes[i]);
        cox_heap_remove(&heap, &nodes[i]);
    }
    assert_null(cox_heap_min(&heap));
    cox_heap_remove(&heap, &nodes[0]);
    assert_int_equal(heap.len, 0);
    cox_heap_fini(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_scan),
        cmocka_unit_test(equal_keys_leave_in_insertion_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
