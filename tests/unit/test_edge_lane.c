/* Between two threads: everything arrives, in order, once, though the ring is full most of the time, and both
 * sides sleep until they are woken. */
#include "check.h"

#include "cox/base/alloc.h"
#include "edge/lane.h"

#include <pthread.h>
#include <semaphore.h>

#define N_ITEMS 200000u

struct item {
    struct cox_list node;
    unsigned number;
};

static struct lane lane;
static sem_t consumer_wakes, producer_wakes;

static void wake_consumer(void *user)
{
    (void)user;
    sem_post(&consumer_wakes);
}

static void wake_producer(void *user)
{
    (void)user;
    sem_post(&producer_wakes);
}

static void *consume(void *arg)
{
    unsigned *wrong = arg, next = 0;

    while (next < N_ITEMS) {
        sem_wait(&consumer_wakes);
        for (struct cox_list *node; (node = lane_pop(&lane)); next++) {
            struct item *item = COX_CONTAINER_OF(node, struct item, node);
            *wrong += item->number != next;
            cox_free(item);
        }
    }
    return NULL;
}

static void test_everything_arrives_in_order(void **state)
{
    unsigned wrong = 0;
    pthread_t thread;

    (void)state;
    sem_init(&consumer_wakes, 0, 0);
    sem_init(&producer_wakes, 0, 0);
    lane_init(&lane, wake_consumer, wake_producer, NULL);
    pthread_create(&thread, NULL, consume, &wrong);
    for (unsigned i = 0; i < N_ITEMS; i++) {
        struct item *item = COX_NEW(struct item);
        item->number = i;
        lane_push(&lane, &item->node);
    }
    while (!cox_list_empty(&lane.backlog)) { /* hangs when a wake-up is lost */
        sem_wait(&producer_wakes);
        lane_flush(&lane);
    }
    pthread_join(thread, NULL);
    assert_int_equal(wrong, 0);
    lane_fini(&lane);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_everything_arrives_in_order) };

    return cmocka_run_group_tests_name("edge_lane", tests, NULL, NULL);
}
