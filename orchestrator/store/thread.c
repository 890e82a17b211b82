#include "thread.h"

#include <signal.h>

void store_thread_init(struct store_thread *t)
{
    t->started = false;
    atomic_init(&t->closing, false);
    store_parker_init(&t->parker);
}

bool store_thread_start(struct store_thread *t, const char *name, void *(*body)(void *), void *arg)
{
    sigset_t all;
    sigset_t old;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    t->started = pthread_create(&t->id, NULL, body, arg) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (t->started)
        (void)pthread_setname_np(t->id, name);
    return t->started;
}

void store_thread_join(struct store_thread *t)
{
    if (!t->started)
        return;
    atomic_store(&t->closing, true);
    store_parker_wake(&t->parker);
    (void)pthread_join(t->id, NULL);
}

void store_thread_fini(struct store_thread *t)
{
    store_parker_fini(&t->parker);
}

void store_thread_loop(struct store_thread *t, bool (*turn)(void *work, bool *ret_worked), void *work)
{
    bool announced = false; /* that we are about to sleep: look once more, then do */

    for (;;) {
        bool closing = atomic_load(&t->closing); /* before the rings: nothing is pushed once it is set */
        bool worked = false;

        if (!turn(work, &worked) || (closing && !worked))
            return;
        if (worked) {
            announced = false;
        } else if (!announced) {
            store_parker_prepare(&t->parker, STORE_SLEEPING);
            announced = true;
        } else {
            store_parker_wait(&t->parker);
            announced = false;
        }
    }
}
