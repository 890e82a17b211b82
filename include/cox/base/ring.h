/* Bounded single-producer single-consumer ring of pointers between two threads.
 *
 * Push never blocks. Whoever sends a request that will be answered over a ring counts the answers it is owed
 * and keeps them, with what lies in the answer ring, within that ring's capacity: so an answer always fits.
 * The ring does not wake anybody: the producer calls the consumer's own wake-up (rpc loop, condition
 * variable, event) when cox_ring_push says the ring was empty. A consumer that finds the ring empty may sleep
 * until then: of a push into a ring just drained, either the producer learns that it was empty, or the
 * consumer sees the item.
 */
#ifndef COX_BASE_RING_H
#define COX_BASE_RING_H

#include <stdbool.h>
#include <stddef.h>

struct cox_ring;

struct cox_ring *cox_ring_create(size_t cap); /* cap: a power of two */
void cox_ring_destroy(struct cox_ring *r); /* NULL is allowed; must be empty or its items leaked knowingly */
bool cox_ring_push(struct cox_ring *r, void *item, bool *ret_was_empty); /* producer; false when full */
void *cox_ring_pop(struct cox_ring *r);                                  /* consumer; NULL when empty */
size_t cox_ring_len(const struct cox_ring *r);                           /* either side; a snapshot */
size_t cox_ring_cap(const struct cox_ring *r);

#endif
