/* A thread of the store: takes turns while there is work, sleeps while there is none. */
#ifndef COX_STORE_THREAD_H
#define COX_STORE_THREAD_H

#include "parker.h"

#include <pthread.h>
#include <stdbool.h>

struct store_thread {
    pthread_t id;
    bool started;
    _Atomic bool closing; /* finish what is in the rings, then end */
    struct store_parker parker;
};

void store_thread_init(struct store_thread *t);

/* False when the system has no thread to give. Signals are blocked in it: they are the program's main
 * thread's business. */
bool store_thread_start(struct store_thread *t, const char *name, void *(*body)(void *), void *arg);

/* Lets it finish its work, and joins it if it was started. */
void store_thread_join(struct store_thread *t);
/* Once nobody can wake it any more. */
void store_thread_fini(struct store_thread *t);

/* The thread's own loop: calls `turn` until it returns false, or finds no work after closing was asked. */
void store_thread_loop(struct store_thread *t, bool (*turn)(void *work, bool *ret_worked), void *work);

#endif
