#include "lane.h"

#include "cox/base/err.h"

#define LANE_CAP 1024

void lane_init(struct lane *l, void (*wake_consumer)(void *user), void (*wake_producer)(void *user),
               void *user)
{
    l->ring = cox_ring_create(LANE_CAP);
    cox_list_init(&l->backlog);
    atomic_init(&l->stuck, false);
    l->wake_consumer = wake_consumer;
    l->wake_producer = wake_producer;
    l->user = user;
}

void lane_fini(struct lane *l)
{
    COX_ASSERT(cox_list_empty(&l->backlog));
    cox_ring_destroy(l->ring);
}

void lane_flush(struct lane *l)
{
    bool was_empty = false, wake = false;

    while (!cox_list_empty(&l->backlog)) {
        struct cox_list *node = l->backlog.next;
        cox_list_remove(node);
        if (!cox_ring_push(l->ring, node, &was_empty)) {
            cox_list_push_front(&l->backlog, node);
            break;
        }
        wake |= was_empty;
    }
    if (wake)
        l->wake_consumer(l->user);
    if (cox_list_empty(&l->backlog))
        return;
    atomic_store(&l->stuck, true);
    /* The consumer may have emptied the ring before it could see that. */
    if (cox_ring_len(l->ring) < cox_ring_cap(l->ring) && atomic_exchange(&l->stuck, false))
        l->wake_producer(l->user);
}

void lane_push(struct lane *l, struct cox_list *node)
{
    bool idle = cox_list_empty(&l->backlog);

    cox_list_init(node);
    cox_list_push_back(&l->backlog, node);
    if (idle)
        lane_flush(l);
}

struct cox_list *lane_pop(struct lane *l)
{
    struct cox_list *node = cox_ring_pop(l->ring);

    if (node && atomic_load(&l->stuck) && cox_ring_len(l->ring) <= LANE_CAP / 2 &&
        atomic_exchange(&l->stuck, false))
        l->wake_producer(l->user);
    return node;
}
