#include "parker.h"

#include "cox/base/err.h"

#include <errno.h>

void store_parker_init(struct store_parker *p)
{
    atomic_init(&p->sleeping, false);
    COX_ASSERT(sem_init(&p->posts, 0, 0) == 0);
}

void store_parker_fini(struct store_parker *p)
{
    (void)sem_destroy(&p->posts);
}

void store_parker_prepare(struct store_parker *p)
{
    (void)atomic_exchange(&p->sleeping, true);
}

void store_parker_wait(struct store_parker *p)
{
    while (sem_wait(&p->posts) != 0)
        COX_ASSERT(errno == EINTR);
}

void store_parker_wake(struct store_parker *p)
{
    if (atomic_exchange(&p->sleeping, false))
        (void)sem_post(&p->posts);
}
