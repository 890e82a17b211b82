#include "attempts.h"

#include "router.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"

#include <string.h>

struct attempt {
    struct cox_list node; /* of all */
    struct cox_list due;  /* of those to be told; empty: not */
    struct cox_list calls;
    struct attempts_spend spend; /* since it was told last */
    bool fenced;                 /* the engine wants to hear of it only what was spent */
};

struct attempts {
    struct attempts_config config;
    struct cox_mapb by_ref; /* of struct attempt */
    struct cox_list all, due;
    struct event *look, *tell;
    bool told; /* on_spend was called, and attempts_take has not said that there is nothing */
};

struct key {
    uint64_t words[4];
};

static struct key key_of(struct cox_ref ref)
{
    return (struct key){ { ref.task, ref.step, ref.token.epoch, ref.token.counter } };
}

static struct cox_slice bytes_of(const struct key *key)
{
    return cox_slice(key, sizeof(*key));
}

static struct timeval in_ms(int ms)
{
    return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
}

/* ---------------------------------------------------------------- telling */

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
    struct attempts *a = arg;

    (void)fd, (void)what;
    if (a->told || cox_list_empty(&a->due))
        return;
    a->told = true;
    a->config.on_spend(a->config.user);
}

static void mark_due(struct attempts *a, struct attempt *t)
{
    if (cox_list_empty(&t->due))
        cox_list_push_back(&a->due, &t->due);
    if (!a->told)
        event_active(a->tell, EV_TIMEOUT, 0);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct attempts *a = arg;
    bool any = false;

    (void)fd, (void)what;
    COX_LIST_FOR_EACH (it, &a->all) {
        struct attempt *t = COX_CONTAINER_OF(it, struct attempt, node);

        if (!t->fenced && !cox_list_empty(&t->calls)) {
            mark_due(a, t);
            any = true;
        }
    }
    const struct timeval tv = in_ms(ATTEMPTS_LOOK_MS);

    if (any)
        event_add(a->look, &tv);
}

static void forget(struct attempts *a, struct attempt *t)
{
    const struct key key = key_of(t->spend.ref);

    cox_mapb_remove(&a->by_ref, bytes_of(&key));
    cox_list_remove(&t->node);
    cox_list_remove(&t->due);
    cox_free(t);
}

bool attempts_take(struct attempts *a, struct attempts_spend *ret)
{
    struct attempt *t;

    if (cox_list_empty(&a->due)) {
        a->told = false;
        return false;
    }
    t = COX_CONTAINER_OF(a->due.next, struct attempt, due);
    *ret = t->spend;
    cox_list_remove(&t->due);
    if (cox_list_empty(&t->calls))
        forget(a, t);
    else
        t->spend = (struct attempts_spend){ .ref = ret->ref };
    return true;
}

/* ---------------------------------------------------------------- calls */

static struct attempt *find(const struct attempts *a, struct cox_ref ref)
{
    const struct key key = key_of(ref);

    return cox_mapb_get(&a->by_ref, bytes_of(&key));
}

static struct attempt *find_or_add(struct attempts *a, struct cox_ref ref)
{
    const struct key key = key_of(ref);
    struct attempt *t = find(a, ref);

    if (t)
        return t;
    t = COX_NEW(struct attempt);
    t->spend.ref = ref;
    cox_list_init(&t->calls);
    cox_list_init(&t->due);
    cox_list_init(&t->node);
    cox_list_push_back(&a->all, &t->node);
    cox_mapb_set(&a->by_ref, bytes_of(&key), t);
    return t;
}

void attempts_begin(struct attempts *a, struct attempt_call *c, struct cox_ref ref,
                    void (*on_fenced)(void *user), void *user)
{
    const struct timeval tv = in_ms(ATTEMPTS_LOOK_MS);

    *c = (struct attempt_call){ .attempt = find_or_add(a, ref), .on_fenced = on_fenced, .user = user };
    cox_list_init(&c->node);
    cox_list_push_back(&c->attempt->calls, &c->node);
    c->attempt->fenced = false; /* the engine has just let it in: it is to hear of this call's end, too */
    if (!event_pending(a->look, EV_TIMEOUT, NULL))
        event_add(a->look, &tv);
}

void attempts_end(struct attempts *a, struct attempt_call *c, const struct router_books *books)
{
    struct attempt *t = c->attempt;
    struct attempts_spend *s = &t->spend;

    cox_list_remove(&c->node);
    c->attempt = NULL;
    s->n_calls += books->tries > 0 || books->from_cache;
    s->input_tokens += books->input_tokens;
    s->output_tokens += books->output_tokens;
    s->cached_tokens += books->cached_tokens;
    s->wasted_tokens += books->wasted_tokens;
    s->cost_micros += books->cost_micros;
    if (*books->currency)
        memcpy(s->currency, books->currency, sizeof(s->currency));
    mark_due(a, t);
}

void attempts_fence(struct attempts *a, struct cox_ref ref)
{
    struct attempt *t = find(a, ref);

    if (!t || t->fenced || COX_PLANTED("attempt-fence-unheard"))
        return;
    t->fenced = true;
    COX_LIST_FOR_EACH (it, &t->calls) {
        struct attempt_call *c = COX_CONTAINER_OF(it, struct attempt_call, node);

        c->on_fenced(c->user);
    }
}

/* ---------------------------------------------------------------- life */

struct attempts *attempts_create(const struct attempts_config *config)
{
    struct attempts *a = COX_NEW(struct attempts);

    a->config = *config;
    cox_list_init(&a->all);
    cox_list_init(&a->due);
    a->look = evtimer_new(config->base, on_look, a);
    a->tell = evtimer_new(config->base, on_tell, a);
    return a;
}

void attempts_destroy(struct attempts *a)
{
    if (!a)
        return;
    COX_LIST_FOR_EACH (it, &a->all)
        forget(a, COX_CONTAINER_OF(it, struct attempt, node));
    cox_mapb_fini(&a->by_ref);
    event_free(a->look);
    event_free(a->tell);
    cox_free(a);
}
