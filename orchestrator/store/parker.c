#include "parker.h"

#include "cox/base/err.h"

#include <errno.h>
#include <time.h>

void store_parker_init(struct store_parker *p)
{
    atomic_init(&p->state, STORE_AWAKE);
    COX_ASSERT(sem_init(&p->posts, 0, 0) == 0);
}

void store_parker_fini(struct store_parker *p)
{
    (void)sem_destroy(&p->posts);
}

void store_parker_prepare(struct store_parker *p, enum store_parked how)
{
    (void)atomic_exchange(&p->state, how);
}

void store_parker_wait(struct store_parker *p)
{
    while (sem_wait(&p->posts) != 0)
        COX_ASSERT(errno == EINTR);
}

void store_parker_doze(struct store_parker *p, int64_t until_ns)
{
    struct timespec until = { .tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000 };

    while (sem_clockwait(&p->posts, CLOCK_MONOTONIC, &until) != 0 && errno == EINTR)
        ;
}

void store_parker_wake(struct store_parker *p)
{
    if (atomic_exchange(&p->state, STORE_AWAKE) != STORE_AWAKE)
        (void)sem_post(&p->posts);
}

/* The addition of nothing is what a mere load is not: it comes before or after the sleeper's exchange. */
void store_parker_nudge(struct store_parker *p)
{
    if (atomic_fetch_add(&p->state, 0) == STORE_SLEEPING)
        store_parker_wake(p);
}
