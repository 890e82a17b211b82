#include "check.h"

#include "cox/base/alloc.h"
#include "cox/base/arena.h"
#include "cox/base/list.h"
#include "cox/base/pool.h"
#include "cox/base/rng.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void strings_are_copied(void **state)
{
    (void)state;
    char *a = cox_strndup("abcdef", 3);
    char *b = cox_asprintf("%s-%d", a, 7);

    assert_string_equal(a, "abc");
    assert_string_equal(b, "abc-7");
    cox_free(a);
    cox_free(b);
    cox_free(NULL);
}

/* Memory that cannot be had ends the process with the code that means "start me again". */
static void no_memory_exits_to_recover(void **state)
{
    (void)state;
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        close(STDERR_FILENO);
        void *p = cox_realloc(NULL, SIZE_MAX / 2, 3);
        _exit(p != NULL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), COX_EXIT_RECOVER);
}

#define PIECES 2000

static void arena_pieces_do_not_overlap(void **state)
{
    (void)state;
    static struct {
        unsigned char *p;
        size_t len;
    } pieces[PIECES];
    struct cox_arena a = { 0 };
    struct cox_rng rng;

    cox_rng_init(&rng, 5);
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < PIECES; i++) {
            pieces[i].len = cox_rng_below(&rng, i % 500 == 0 ? COX_ARENA_KEEP : 300);
            pieces[i].p = cox_arena_alloc(&a, pieces[i].len);
            assert_int_equal((uintptr_t)pieces[i].p % 16, 0);
            memset(pieces[i].p, (int)(i % 251), pieces[i].len);
        }
        for (size_t i = 0; i < PIECES; i++) {
            for (size_t j = 0; j < pieces[i].len; j++)
                assert_int_equal(pieces[i].p[j], i % 251);
        }
        cox_arena_reset(&a);
    }
    cox_arena_fini(&a);
}

static void arena_is_warm_after_a_few_turns(void **state)
{
    (void)state;
    struct cox_arena a = { 0 };
    void *first[2] = { 0 };

    for (int turn = 0; turn < 10; turn++) {
        first[turn % 2] = cox_arena_dup(&a, "hello", 5);
        assert_string_equal(first[turn % 2], "hello");
        for (int i = 0; i < 100; i++)
            memset(cox_arena_alloc(&a, 1000), 'x', 1000);
        cox_arena_reset(&a);
    }
    assert_ptr_equal(first[0], first[1]); /* the last two turns used the same memory */
    memset(cox_arena_alloc(&a, COX_ARENA_KEEP * 2), 'x', COX_ARENA_KEEP * 2);
    cox_arena_fini(&a);
    memset(cox_arena_alloc(&a, COX_ARENA_KEEP + 1), 'x', COX_ARENA_KEEP + 1);
    cox_arena_reset(&a);
    assert_null(a.head);
    cox_arena_fini(&a);
}

struct entry {
    int n;
    struct cox_list link;
};

static int list_digits(struct cox_list *head)
{
    int digits = 0;

    COX_LIST_FOR_EACH (it, head)
        digits = digits * 10 + COX_CONTAINER_OF(it, struct entry, link)->n;
    return digits;
}

static void lists_keep_order_and_survive_removal(void **state)
{
    (void)state;
    struct cox_list head;
    struct entry e[5];

    cox_list_init(&head);
    assert_true(cox_list_empty(&head));
    for (int i = 0; i < 5; i++) {
        e[i].n = i + 1;
        cox_list_push_back(&head, &e[i].link);
    }
    assert_int_equal(list_digits(&head), 12345);
    cox_list_remove(&e[2].link);
    cox_list_remove(&e[2].link);
    assert_int_equal(list_digits(&head), 1245);
    cox_list_push_front(&head, &e[2].link);
    assert_int_equal(list_digits(&head), 31245);
    COX_LIST_FOR_EACH (it, &head)
        cox_list_remove(it);
    assert_true(cox_list_empty(&head));
}

static void random_numbers_are_the_published_ones(void **state)
{
    (void)state;
    struct cox_rng r = { { 1, 2, 3, 4 } };

    assert_true(cox_rng_u64(&r) == 11520);
    assert_true(cox_rng_u64(&r) == 0);
    assert_true(cox_rng_u64(&r) == 1509978240);
    assert_true(cox_rng_u64(&r) == 1215971899390074240);
    cox_rng_init(&r, 0);
    assert_true(r.s[0] == 0xe220a8397b1dcdafULL);
    assert_true(r.s[1] == 0x6e789e6aa1b965f4ULL);
    assert_true(r.s[2] == 0x06c45d188009454fULL);
    assert_true(r.s[3] == 0xf88bb8a8724c81ecULL);
}

static void random_bounds_hold_evenly(void **state)
{
    (void)state;
    struct cox_rng r;
    int seen[7] = { 0 };
    int chances = 0;

    cox_rng_init(&r, 42);
    for (int i = 0; i < 70000; i++) {
        uint64_t n = cox_rng_below(&r, 7);
        assert_in_range(n, 0, 6);
        seen[n]++;
        chances += cox_rng_chance(&r, 100000);
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(seen[i], 9500, 10500); /* the seed is fixed: this does not vary */
    assert_in_range(chances, 6700, 7300);
    assert_false(cox_rng_chance(&r, 0));
    assert_true(cox_rng_chance(&r, 1000000));
    assert_int_equal(cox_rng_below(&r, 1), 0);
}

static void a_pool_gives_zeroed_objects_and_takes_them_back(void **state)
{
    struct thing {
        uint64_t a, b, c;
    } * things[5000];
    struct cox_pool p = { .item_len = sizeof(struct thing) };

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 5000; i++) {
            things[i] = cox_pool_get(&p);
            assert_true(things[i]->a == 0 && things[i]->b == 0 && things[i]->c == 0);
            *things[i] = (struct thing){ i, ~i, i * i };
        }
        for (size_t i = 0; i < 5000; i++)
            assert_true(things[i]->a == i && things[i]->b == ~i && things[i]->c == i * i);
        void *blocks = p.blocks;
        for (size_t i = 0; i < 5000; i++)
            cox_pool_put(&p, things[i]);
        cox_pool_put(&p, cox_pool_get(&p));
        assert_ptr_equal(p.blocks, blocks); /* what came back is used first */
    }
    cox_pool_fini(&p);
    assert_null(p.blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_copied),
        cmocka_unit_test(no_memory_exits_to_recover),
        cmocka_unit_test(arena_pieces_do_not_overlap),
        cmocka_unit_test(arena_is_warm_after_a_few_turns),
        cmocka_unit_test(a_pool_gives_zeroed_objects_and_takes_them_back),
        cmocka_unit_test(lists_keep_order_and_survive_removal),
        cmocka_unit_test(random_numbers_are_the_published_ones),
        cmocka_unit_test(random_bounds_hold_evenly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
