/* One direction between two threads: a bounded ring, and in front of it, on the producer's side, what did not
 * fit. A push never blocks and never fails. What may be under way is bounded by those who push: each call
 * bounds its own. */
#ifndef COX_ORCHESTRATOR_EDGE_LANE_H
#define COX_ORCHESTRATOR_EDGE_LANE_H

#include "cox/base/list.h"
#include "cox/base/ring.h"

#include <stdatomic.h>

struct lane {
    struct cox_ring *ring;
    struct cox_list backlog; /* producer's */
    atomic_bool stuck;       /* there is a backlog: the producer wants to be woken when there is room */
    void (*wake_consumer)(void *user);
    void (*wake_producer)(void *user);
    void *user;
};

void lane_init(struct lane *l, void (*wake_consumer)(void *user), void (*wake_producer)(void *user),
               void *user);
void lane_fini(struct lane *l); /* must be empty */

/* Producer. `node` is the first member of what is pushed; it belongs to the consumer from then on. */
void lane_push(struct lane *l, struct cox_list *node);
void lane_flush(struct lane *l); /* when woken */

/* Consumer: the oldest, or NULL. */
struct cox_list *lane_pop(struct lane *l);

#endif
