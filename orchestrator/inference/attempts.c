#include "attempts.h"

#include "router.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <string.h>

struct attempt {
    struct cox_list node; /* of all */
    struct cox_list due;  /* of those to be told; empty: not */
    struct cox_list look; /* of those to be named, by look_ns; empty: not */
    int64_t look_ns;
    struct cox_list calls;
    uint32_t n_admitted;
    struct attempts_spend spend; /* since it was told last */
    bool fenced;                 /* the engine wants to hear of it only what was spent */
};

struct attempts {
    struct attempts_config config;
    struct cox_mapb by_ref; /* of struct attempt */
    struct cox_list all, due, looks;
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

static void look_at(struct attempts *a, int64_t at_ns)
{
    int64_t ms = (at_ns - cox_clock_mono_ns()) / 1000000;
    const struct timeval tv = in_ms(ms > ATTEMPTS_TICK_MS ? (int)ms : ATTEMPTS_TICK_MS);

    event_add(a->look, &tv);
}

/* It is being named: not again before some time has passed. */
static void postpone_look(struct attempts *a, struct attempt *t)
{
    cox_list_remove(&t->look);
    if (t->fenced || t->n_admitted == 0)
        return;
    t->look_ns = cox_clock_mono_ns() + ATTEMPTS_LOOK_MS * INT64_C(1000000);
    cox_list_push_back(&a->looks, &t->look);
    if (!event_pending(a->look, EV_TIMEOUT, NULL))
        look_at(a, t->look_ns);
}

static void mark_due(struct attempts *a, struct attempt *t)
{
    if (cox_list_empty(&t->due))
        cox_list_push_back(&a->due, &t->due);
    postpone_look(a, t);
    if (!a->told)
        event_active(a->tell, EV_TIMEOUT, 0);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct attempts *a = arg;
    int64_t now_ns = cox_clock_mono_ns();

    (void)fd, (void)what;
    for (unsigned n = 0; n < ATTEMPTS_LOOKS_MAX && !cox_list_empty(&a->looks); n++) {
        struct attempt *t = COX_CONTAINER_OF(a->looks.next, struct attempt, look);

        if (t->look_ns > now_ns)
            break;
        mark_due(a, t);
    }
    if (!cox_list_empty(&a->looks))
        look_at(a, COX_CONTAINER_OF(a->looks.next, struct attempt, look)->look_ns);
}

static void forget(struct attempts *a, struct attempt *t)
{
    const struct key key = key_of(t->spend.ref);

    cox_mapb_remove(&a->by_ref, bytes_of(&key));
    cox_list_remove(&t->node);
    cox_list_remove(&t->due);
    cox_list_remove(&t->look);
    cox_free(t);
}

bool attempts_any(const struct attempts *a)
{
    return !cox_list_empty(&a->all);
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
    cox_list_init(&t->look);
    cox_list_init(&t->node);
    cox_list_push_back(&a->all, &t->node);
    cox_mapb_set(&a->by_ref, bytes_of(&key), t);
    return t;
}

void attempts_begin(struct attempts *a, struct attempt_call *c, struct cox_ref ref,
                    void (*on_fenced)(void *user), void *user)
{
    *c = (struct attempt_call){ .attempt = find_or_add(a, ref), .on_fenced = on_fenced, .user = user };
    cox_list_init(&c->node);
    cox_list_push_back(&c->attempt->calls, &c->node);
}

bool attempts_admit(struct attempts *a, struct attempt_call *c, struct attempts_promise promise)
{
    struct attempt *t = c->attempt;
    bool fenced = c->fenced;

    c->promise = promise;
    c->admitted = true;
    t->n_admitted++;
    t->fenced = false; /* the engine has let it in since: it is to hear of this call's end, too */
    if (cox_list_empty(&t->look))
        postpone_look(a, t);
    if (fenced)
        attempts_end(a, c, &(struct router_books){ .tries = 0 });
    return !fenced;
}

void attempts_refuse(struct attempts *a, struct attempt_call *c)
{
    struct attempt *t = c->attempt;

    cox_list_remove(&c->node);
    c->attempt = NULL;
    if (cox_list_empty(&t->calls) && cox_list_empty(&t->due))
        forget(a, t);
}

void attempts_end(struct attempts *a, struct attempt_call *c, const struct router_books *books)
{
    struct attempt *t = c->attempt;
    struct attempts_spend *s = &t->spend;

    cox_list_remove(&c->node);
    c->attempt = NULL;
    t->n_admitted--;
    s->n_calls += books->tries > 0 || books->from_cache;
    s->input_tokens += books->input_tokens;
    s->output_tokens += books->output_tokens;
    s->cached_tokens += books->cached_tokens;
    s->wasted_tokens += books->wasted_tokens;
    s->cost_micros += books->cost_micros;
    s->n_ended++;
    s->released.reserved += c->promise.reserved;
    s->released.guessed += c->promise.guessed;
    if (*books->currency)
        memcpy(s->currency, books->currency, sizeof(s->currency));
    mark_due(a, t);
}

void attempts_fence(struct attempts *a, struct cox_ref ref)
{
    struct attempt *t = find(a, ref);

    if (!t || COX_PLANTED("attempt-fence-unheard"))
        return;
    t->fenced = true;
    cox_list_remove(&t->look);
    COX_LIST_FOR_EACH (it, &t->calls) {
        struct attempt_call *c = COX_CONTAINER_OF(it, struct attempt_call, node);

        if (c->fenced)
            continue;
        c->fenced = !COX_PLANTED("fence-before-admission");
        if (c->admitted)
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
    cox_list_init(&a->looks);
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
