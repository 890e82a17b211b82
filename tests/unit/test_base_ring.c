#include "check.h"

#include "cox/base/ring.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ITEMS 200000
#define LONGEST_WAIT_MS 20000

static void holds_what_it_says(void **state)
{
    (void)state;
    struct cox_ring *r = cox_ring_create(4);
    int items[5];
    bool was_empty;

    assert_int_equal(cox_ring_cap(r), 4);
    assert_null(cox_ring_pop(r));
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(cox_ring_len(r), i);
        assert_true(cox_ring_push(r, &items[i], &was_empty));
        assert_int_equal(was_empty, i == 0);
    }
    assert_false(cox_ring_push(r, &items[4], &was_empty));
    assert_int_equal(cox_ring_len(r), 4);
    for (size_t i = 0; i < 4; i++)
        assert_ptr_equal(cox_ring_pop(r), &items[i]);
    assert_null(cox_ring_pop(r));
    assert_true(cox_ring_push(r, &items[4], &was_empty));
    assert_true(was_empty);
    assert_ptr_equal(cox_ring_pop(r), &items[4]);
    cox_ring_destroy(r);
    cox_ring_destroy(NULL);
}

struct pair {
    struct cox_ring *ring;
    int wake; /* eventfd */
};

static void *produce(void *arg)
{
    struct pair *p = arg;
    uint64_t one = 1;

    for (uintptr_t i = 1; i <= ITEMS;) {
        bool was_empty;
        if (!cox_ring_push(p->ring, (void *)i, &was_empty))
            continue;
        i++;
        if (was_empty && write(p->wake, &one, sizeof(one)) != sizeof(one))
            return NULL;
    }
    return p;
}

/* The consumer sleeps whenever it finds the ring empty, so one wake-up missed in 200,000 pushes shows as a
 * wait that ends in the time limit. */
static void wakes_and_orders_across_threads(void **state)
{
    (void)state;
    struct pair p = { .ring = cox_ring_create(64), .wake = eventfd(0, 0) };
    pthread_t producer;
    void *produced;
    uintptr_t next = 1;

    assert_true(p.wake >= 0);
    assert_int_equal(pthread_create(&producer, NULL, produce, &p), 0);
    while (next <= ITEMS) {
        void *item = cox_ring_pop(p.ring);
        if (item) {
            assert_int_equal((uintptr_t)item, next);
            next++;
            continue;
        }
        struct pollfd fd = { .fd = p.wake, .events = POLLIN };
        uint64_t count;
        assert_int_equal(poll(&fd, 1, LONGEST_WAIT_MS), 1);
        assert_int_equal(read(p.wake, &count, sizeof(count)), sizeof(count));
    }
    assert_int_equal(pthread_join(producer, &produced), 0);
    assert_ptr_equal(produced, &p);
    assert_null(cox_ring_pop(p.ring));
    close(p.wake);
    cox_ring_destroy(p.ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_what_it_says),
        cmocka_unit_test(wakes_and_orders_across_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
