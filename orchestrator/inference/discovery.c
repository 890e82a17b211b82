#include "discovery.h"

#include "discovery_look.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/units.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define NS_PER_MS INT64_C(1000000)
#define FILE_EVERY_MS 1000
#define DNS_EVERY_MS 10000

struct discovery_source {
    struct cox_list node;
    enum discovery_kind kind;
    char *what;
    void *user;
    int64_t due_ns;
    bool busy; /* a thread looks, without the lock: it frees what is gone by then */
    bool gone;
    struct endpoint_text *found; /* and not told yet */
    size_t n_found;
    bool has_found;
    /* The looking thread's. */
    struct discovery_seen seen;
    char *complaint; /* said already; NULL: all is well */
};

struct looker {
    struct shared *shared;
    enum discovery_kind kind;
    pthread_t thread;
    bool started, looking;
};

struct shared { /* with the threads, of which one may outlive the rest in a resolver that waits */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct cox_list sources;
    int event_fd;
    unsigned refs;
    bool leaving;
    struct looker lookers[2]; /* files, names */
};

struct discovery {
    struct shared *shared;
    struct event *told;
    discovery_on_found *on_found;
};

static void source_free(struct discovery_source *s)
{
    endpoints_free(s->found, s->n_found);
    cox_free(s->complaint);
    cox_free(s->what);
    cox_free(s);
}

/* Under the lock, which it gives up. */
static void release(struct shared *h)
{
    bool last = --h->refs == 0;

    pthread_mutex_unlock(&h->lock);
    if (!last)
        return;
    (void)close(h->event_fd);
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->lock);
    cox_free(h);
}

/* ---- the threads ---- */

static struct discovery_source *first_due(struct shared *h, enum discovery_kind kind)
{
    struct discovery_source *first = NULL;

    COX_LIST_FOR_EACH (it, &h->sources) {
        struct discovery_source *s = COX_CONTAINER_OF(it, struct discovery_source, node);

        if (s->kind == kind && (!first || s->due_ns < first->due_ns))
            first = s;
    }
    return first;
}

static void complain(struct discovery_source *s, const char *why)
{
    const char *what = s->kind == DISCOVERY_FILE ? "file" : "name";

    if (why && (!s->complaint || strcmp(s->complaint, why) != 0))
        cox_log(COX_LOG_WARN, "cannot find endpoints: those that there are stay", what, s->what, "why", why,
                NULL);
    else if (!why && s->complaint)
        cox_log(COX_LOG_INFO, "finds endpoints again", what, s->what, NULL);
    cox_free(s->complaint);
    s->complaint = why ? cox_strdup(why) : NULL;
}

/* Without the lock: `s` is busy. */
static enum cox_err look(struct discovery_source *s, struct endpoint_text **ret, size_t *ret_n)
{
    struct cox_buf error = { 0 };
    enum cox_err err = s->kind == DISCOVERY_FILE ? discovery_look_file(s->what, &s->seen, ret, ret_n, &error)
                                                 : discovery_look_dns(s->what, ret, ret_n, &error);

    if (err != COX_ERR_AGAIN)
        complain(s, err ? cox_buf_cstr(&error) : NULL);
    cox_buf_fini(&error);
    return err;
}

static void wait_until(struct shared *h, int64_t ns)
{
    const struct timespec at = { ns / 1000000000, ns % 1000000000 };

    if (ns == INT64_MAX)
        pthread_cond_wait(&h->changed, &h->lock);
    else
        (void)pthread_cond_timedwait(&h->changed, &h->lock, &at);
}

/* Under the lock, but while it looks. */
static void look_at(struct looker *l, struct discovery_source *s)
{
    int64_t every_ms = l->kind == DISCOVERY_FILE ? FILE_EVERY_MS : DNS_EVERY_MS;
    struct endpoint_text *found = NULL;
    struct shared *h = l->shared;
    const uint64_t one = 1;
    size_t n = 0;

    s->busy = true;
    l->looking = true;
    pthread_mutex_unlock(&h->lock);
    enum cox_err err = look(s, &found, &n);

    pthread_mutex_lock(&h->lock);
    l->looking = false;
    s->busy = false;
    s->due_ns = cox_clock_mono_ns() + every_ms * NS_PER_MS;
    if (err)
        return; /* nothing was found */
    endpoints_free(s->found, s->n_found);
    s->found = found;
    s->n_found = n;
    s->has_found = true;
    if (!s->gone && write(h->event_fd, &one, sizeof(one)) < 0)
        COX_ASSERT(errno == EAGAIN); /* the loop has plenty of wake-ups to come */
}

static void *look_around(void *arg)
{
    struct looker *l = arg;
    struct shared *h = l->shared;

    pthread_mutex_lock(&h->lock);
    while (!h->leaving) {
        struct discovery_source *s = first_due(h, l->kind);
        int64_t due_ns = s ? s->due_ns : INT64_MAX;

        if (due_ns > cox_clock_mono_ns()) {
            wait_until(h, due_ns);
            continue;
        }
        look_at(l, s);
        if (s->gone)
            source_free(s);
    }
    release(h);
    return NULL;
}

static void start(struct shared *h, enum discovery_kind kind)
{
    struct looker *l = &h->lookers[kind == DISCOVERY_FILE ? 0 : 1];

    if (l->started)
        return;
    *l = (struct looker){ .shared = h, .kind = kind, .started = true };
    h->refs++;
    COX_ASSERT(pthread_create(&l->thread, NULL, look_around, l) == 0);
}

/* ---- the loop's side ---- */

static void on_told(evutil_socket_t fd, short what, void *user)
{
    struct discovery *d = user;
    struct discovery_source *s = NULL;
    uint64_t n;

    (void)what;
    (void)!read((int)fd, &n, sizeof(n));
    do {
        struct endpoint_text *found = NULL;
        size_t n_found = 0;

        s = NULL;
        pthread_mutex_lock(&d->shared->lock);
        COX_LIST_FOR_EACH (it, &d->shared->sources) {
            struct discovery_source *each = COX_CONTAINER_OF(it, struct discovery_source, node);

            if (each->has_found && !s)
                s = each;
        }
        if (s) {
            found = s->found;
            n_found = s->n_found;
            s->found = NULL;
            s->n_found = 0;
            s->has_found = false;
        }
        pthread_mutex_unlock(&d->shared->lock);
        if (s)
            d->on_found(s->user, found, n_found);
    } while (s);
}

struct discovery *discovery_create(struct event_base *base, discovery_on_found *on_found)
{
    struct discovery *d = COX_NEW(struct discovery);
    struct shared *h = COX_NEW(struct shared);
    pthread_condattr_t attributes;

    d->shared = h;
    d->on_found = on_found;
    h->refs = 1;
    cox_list_init(&h->sources);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&h->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    h->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    COX_ASSERT(h->event_fd >= 0);
    d->told = event_new(base, h->event_fd, EV_READ | EV_PERSIST, on_told, d);
    event_add(d->told, NULL);
    return d;
}

struct discovery_source *discovery_watch(struct discovery *d, enum discovery_kind kind, const char *what,
                                         void *user)
{
    struct discovery_source *s = COX_NEW(struct discovery_source);

    s->kind = kind;
    s->what = cox_strdup(what);
    s->user = user;
    pthread_mutex_lock(&d->shared->lock);
    cox_list_push_back(&d->shared->sources, &s->node);
    start(d->shared, kind);
    pthread_cond_broadcast(&d->shared->changed);
    pthread_mutex_unlock(&d->shared->lock);
    return s;
}

void discovery_unwatch(struct discovery *d, struct discovery_source *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&d->shared->lock);
    cox_list_remove(&s->node);
    s->gone = true;
    bool busy = s->busy;

    pthread_mutex_unlock(&d->shared->lock);
    if (!busy)
        source_free(s);
}

void discovery_destroy(struct discovery *d)
{
    bool join[2] = { false, false };
    struct shared *h;

    if (!d)
        return;
    h = d->shared;
    event_free(d->told);
    while (!cox_list_empty(&h->sources))
        discovery_unwatch(d, COX_CONTAINER_OF(h->sources.next, struct discovery_source, node));
    pthread_mutex_lock(&h->lock);
    h->leaving = true;
    pthread_cond_broadcast(&h->changed);
    pthread_t threads[2] = { h->lookers[0].thread, h->lookers[1].thread };

    for (int i = 0; i < 2; i++) {
        join[i] = h->lookers[i].started && !h->lookers[i].looking;
        if (h->lookers[i].started && !join[i]) /* in a resolver that may wait for half a minute */
            pthread_detach(threads[i]);
    }
    release(h);
    for (int i = 0; i < 2; i++)
        if (join[i])
            pthread_join(threads[i], NULL);
    cox_free(d);
}
