#include "compile.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/ring.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#define RING_CAP 1024

struct cox_compile {
    struct cox_ring *jobs;
    struct cox_ring *answers;
    struct cox_list backlog; /* owner's: did not fit the ring */
    size_t n_out;            /* in either ring or in work; at most RING_CAP, so answers always fit */
    size_t len;              /* bytes of everything submitted and not done */
    sem_t n_jobs;
    atomic_bool stop;
    pthread_t thread;
    void (*wake)(void *user);
    void *user;
};

static void *run(void *arg)
{
    struct cox_compile *c = arg;

    for (;;) {
        while (sem_wait(&c->n_jobs) != 0)
            COX_ASSERT(errno == EINTR);
        struct cox_work *w = cox_ring_pop(c->jobs);
        bool was_empty;

        if (!w) {
            COX_ASSERT(atomic_load(&c->stop));
            return NULL;
        }
        w->work(w);
        COX_ASSERT(cox_ring_push(c->answers, w, &was_empty));
        if (was_empty)
            c->wake(c->user);
    }
}

struct cox_compile *cox_compile_create(void (*wake)(void *user), void *user)
{
    struct cox_compile *c = COX_NEW(struct cox_compile);

    c->jobs = cox_ring_create(RING_CAP);
    c->answers = cox_ring_create(RING_CAP);
    cox_list_init(&c->backlog);
    c->wake = wake;
    c->user = user;
    COX_ASSERT(sem_init(&c->n_jobs, 0, 0) == 0);
    COX_ASSERT(pthread_create(&c->thread, NULL, run, c) == 0);
    (void)pthread_setname_np(c->thread, "cox-compile"); /* shown by ps and perf */
    return c;
}

void cox_compile_destroy(struct cox_compile *c)
{
    if (!c)
        return;
    atomic_store(&c->stop, true);
    sem_post(&c->n_jobs);
    pthread_join(c->thread, NULL);
    sem_destroy(&c->n_jobs);
    cox_ring_destroy(c->jobs);
    cox_ring_destroy(c->answers);
    cox_free(c);
}

static void push(struct cox_compile *c, struct cox_work *w)
{
    c->n_out++;
    COX_ASSERT(cox_ring_push(c->jobs, w, NULL));
    sem_post(&c->n_jobs);
}

void cox_compile_submit(struct cox_compile *c, struct cox_work *w)
{
    c->len += w->len;
    if (c->n_out < RING_CAP && cox_list_empty(&c->backlog))
        push(c, w);
    else
        cox_list_push_back(&c->backlog, &w->node);
}

bool cox_compile_full(const struct cox_compile *c)
{
    return !cox_list_empty(&c->backlog) || c->len >= COX_COMPILE_LEN_MAX;
}

void cox_compile_drain(struct cox_compile *c)
{
    struct cox_work *w;

    while ((w = cox_ring_pop(c->answers))) {
        c->n_out--;
        c->len -= w->len;
        w->done(w);
    }
    while (c->n_out < RING_CAP && !cox_list_empty(&c->backlog)) {
        w = COX_CONTAINER_OF(c->backlog.next, struct cox_work, node);
        cox_list_remove(&w->node);
        push(c, w);
    }
}
