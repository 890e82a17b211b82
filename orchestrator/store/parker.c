#include "parker.h"

void store_parker_init(struct store_parker *p)
{
    atomic_init(&p->sleeping, false);
    p->woken = false;
    (void)pthread_mutex_init(&p->mutex, NULL);
    (void)pthread_cond_init(&p->cond, NULL);
}

void store_parker_fini(struct store_parker *p)
{
    (void)pthread_cond_destroy(&p->cond);
    (void)pthread_mutex_destroy(&p->mutex);
}

void store_parker_prepare(struct store_parker *p)
{
    (void)atomic_exchange(&p->sleeping, true);
}

void store_parker_wait(struct store_parker *p)
{
    (void)pthread_mutex_lock(&p->mutex);
    while (!p->woken)
        (void)pthread_cond_wait(&p->cond, &p->mutex);
    p->woken = false;
    (void)pthread_mutex_unlock(&p->mutex);
}

void store_parker_wake(struct store_parker *p)
{
    if (!atomic_exchange(&p->sleeping, false))
        return;
    (void)pthread_mutex_lock(&p->mutex);
    p->woken = true;
    (void)pthread_cond_signal(&p->cond);
    (void)pthread_mutex_unlock(&p->mutex);
}
