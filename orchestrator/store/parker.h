/* Puts a thread to sleep while its rings are empty, and wakes it only when it sleeps: a wake-up is a system
 * call, and a busy thread needs none.
 *
 * The sleeper:   prepare; if there is work after all: carry on, else wait; look again.
 * The waker:     push; wake.
 * Both sides exchange the same flag, so either the sleeper sees the push or the waker sees the sleeper. A
 * wait may end early; it never ends late.
 */
#ifndef COX_STORE_PARKER_H
#define COX_STORE_PARKER_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

struct store_parker {
    _Atomic bool sleeping;
    sem_t posts; /* not a mutex and a condition: who is woken would find the mutex held by who woke it */
};

void store_parker_init(struct store_parker *p);
void store_parker_fini(struct store_parker *p);
void store_parker_prepare(struct store_parker *p);
void store_parker_wait(struct store_parker *p);
void store_parker_wake(struct store_parker *p);

#endif
