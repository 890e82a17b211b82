/* Puts a thread to sleep while its rings are empty, and wakes it only when it sleeps: a wake-up is a system
 * call, and a busy thread needs none.
 *
 * The sleeper:   prepare; if there is work after all: carry on, else wait; look again.
 * The waker:     push; wake.
 * Both sides exchange the same word, so either the sleeper sees the push or the waker sees the sleeper. A
 * wait may end early; it never ends late.
 *
 * Who only waits for more of the same dozes, until a time: nudge leaves it alone, wake does not.
 */
#ifndef COX_STORE_PARKER_H
#define COX_STORE_PARKER_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>

enum store_parked { STORE_AWAKE, STORE_DOZING, STORE_SLEEPING };

struct store_parker {
    _Atomic int state; /* enum store_parked */
    sem_t posts; /* not a mutex and a condition: who is woken would find the mutex held by who woke it */
};

void store_parker_init(struct store_parker *p);
void store_parker_fini(struct store_parker *p);
void store_parker_prepare(struct store_parker *p, enum store_parked how);
void store_parker_wait(struct store_parker *p);
void store_parker_doze(struct store_parker *p, int64_t until_ns); /* cox_clock_mono_ns */
void store_parker_wake(struct store_parker *p);
void store_parker_nudge(struct store_parker *p);

#endif
