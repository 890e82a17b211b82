/* The router's own: its parts, its timers, and who is let in. What becomes of a call is in call.c. */
#include "router_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <string.h>

#define CACHE_LEN_MAX ((size_t)64 << 20)
#define TICK_US 250000
/* A tenth of a retry a call; and, so that few calls can be tried again too, so many at first and a second. */
#define RETRY_A_CALL 100
#define RETRY_CREDIT_MAX 256000
#define RETRY_CREDIT_FIRST 64000
#define RETRY_CREDIT_A_SECOND 4000
#define CONNECT_MS 1000
#define STALL_MS 30000
#define TOTAL_MS (30 * 60 * 1000)

/* ---- the catalogue's words ---- */

void router_free_pool_if_over(struct router *r, struct pool *pool)
{
    if (pool->model || pool->n_calls > 0)
        return;
    placement_pool_remove(r->placement, pool->id);
    cox_free(pool);
}

static void on_model(void *user, struct model *m, bool added)
{
    struct router *r = user;
    struct pool *pool = m->owner_data;

    if (added && !pool) {
        pool = COX_NEW(struct pool);
        pool->model = m;
        pool->id = m->pool = placement_pool_add(r->placement);
        pool->bytes_per_token = 4;
        pool->tokens_per_media = 1000;
        pool->ns_per_output_token = 30e6;
        m->owner_data = pool;
    } else if (!added && pool) {
        m->owner_data = NULL;
        pool->model = NULL;
        pool->n_calls++; /* the last of its calls to go on would free it */
        COX_LIST_FOR_EACH (it, &r->calls) {
            struct router_call *c = COX_CONTAINER_OF(it, struct router_call, node);
            if (c->pool == pool)
                call_strand(c);
        }
        pool->n_calls--;
        router_free_pool_if_over(r, pool);
    }
}

static void remember_place(struct router *r, struct endpoint *e)
{
    if (e->place >= r->n_places) {
        uint32_t n = (e->place + 1) * 2;
        r->by_place = cox_realloc(r->by_place, n, sizeof(*r->by_place));
        memset(r->by_place + r->n_places, 0, (n - r->n_places) * sizeof(*r->by_place));
        r->n_places = n;
    }
    r->by_place[e->place] = e;
}

/* owner_data of an endpoint says whether its pool counts it as open. */
static void count_open(struct endpoint *e, bool open)
{
    struct pool *pool = e->model->owner_data;

    if (pool && open && !e->owner_data)
        pool->n_open++;
    else if (pool && !open && e->owner_data)
        pool->n_open--;
    e->owner_data = open ? e : NULL;
}

static struct placement_limits limits_of(const struct endpoint *e)
{
    uint32_t most = e->max_in_flight, now = e->room > 0 ? e->had + e->room : 0;

    return (struct placement_limits){ .in_flight_max = now > 0 && (most == 0 || now < most) ? now : most };
}

static void on_endpoint(void *user, struct endpoint *e, bool added)
{
    const struct placement_limits limits = limits_of(e);
    struct router *r = user;
    struct pool *pool = e->model->owner_data;

    if (added) {
        e->place = placement_endpoint_add(r->placement, e->model->pool, &limits);
        remember_place(r, e);
        pool->n_endpoints++;
        count_open(e, true);
        health_add(r->health, e);
    } else {
        health_remove(r->health, e);
        count_open(e, false);
        if (pool)
            pool->n_endpoints--;
        placement_endpoint_remove(r->placement, e->place);
    }
    router_turn_soon(r);
}

static void on_endpoint_changed(void *user, struct endpoint *e)
{
    const struct placement_limits limits = limits_of(e);
    struct router *r = user;

    placement_endpoint_limit(r->placement, e->place, &limits);
    router_turn_soon(r);
}

static void on_room(void *user, struct endpoint *e, uint32_t room, bool from_now)
{
    struct placement_endpoint_view view;
    struct router *r = user;

    if (from_now) {
        placement_endpoint_view(r->placement, e->place, &view);
        e->had = view.in_flight;
    }
    e->room = room;
    on_endpoint_changed(r, e);
}

static void on_signals(void *user, struct endpoint *e, const struct placement_signals *signals)
{
    struct router *r = user;

    placement_endpoint_signals(r->placement, e->place, cox_clock_mono_ns(), signals);
    router_turn_soon(r);
}

static void on_gate(void *user, struct endpoint *e, enum placement_gate gate, bool forget)
{
    struct router *r = user;

    placement_endpoint_gate(r->placement, e->place, gate, forget);
    count_open(e, gate != PLACEMENT_CLOSED);
    router_turn_soon(r);
}

/* ---- time ---- */

void router_turn_soon(struct router *r)
{
    event_active(r->turn, EV_TIMEOUT, 0);
}

void router_set_timer(struct router_call *c, int64_t at_ns)
{
    if (at_ns == INT64_MAX)
        cox_heap_remove(&c->router->timers, &c->timer);
    else
        cox_heap_set(&c->router->timers, &c->timer, (uint64_t)at_ns);
}

/* The one timer stands at the earliest of all, or earlier: waking for nothing is cheaper than moving it. */
static void arm(struct router *r, int64_t now_ns)
{
    struct cox_heap_node *first = cox_heap_min(&r->timers);
    int64_t at_ns = placement_wake_ns(r->placement);

    if (first && (int64_t)first->key < at_ns)
        at_ns = (int64_t)first->key;
    if (at_ns == INT64_MAX || (event_pending(r->wake, EV_TIMEOUT, NULL) && r->wake_ns <= at_ns))
        return;
    int64_t us = at_ns <= now_ns ? 0 : (at_ns - now_ns + 999) / 1000;
    const struct timeval delay = { us / 1000000, us % 1000000 };

    r->wake_ns = at_ns;
    event_add(r->wake, &delay);
}

void router_pump(struct router *r)
{
    int64_t now_ns = cox_clock_mono_ns();
    struct placement_call *next;

    while ((next = placement_next(r->placement, now_ns)))
        call_dispatch(COX_CONTAINER_OF(next, struct router_call, placed));
    arm(r, now_ns);
}

static void fire_timers(struct router *r)
{
    int64_t now_ns = cox_clock_mono_ns();
    struct cox_heap_node *first;

    while ((first = cox_heap_min(&r->timers)) && (int64_t)first->key <= now_ns) {
        cox_heap_remove(&r->timers, first);
        call_on_time(COX_CONTAINER_OF(first, struct router_call, timer), now_ns);
    }
}

static void on_turn(int fd, short what, void *arg)
{
    struct router *r = arg;

    (void)fd, (void)what;
    fire_timers(r);
    router_pump(r);
    while (!cox_list_empty(&r->over))
        call_tell_end(COX_CONTAINER_OF(r->over.next, struct router_call, node));
}

static void on_tick(int fd, short what, void *arg)
{
    (void)fd, (void)what;
    router_stats_refresh(arg);
}

/* ---- retries ---- */

void router_earn_retry(struct router *r)
{
    if (r->retry_credit < RETRY_CREDIT_MAX)
        r->retry_credit += RETRY_A_CALL;
}

bool router_may_retry(struct router *r)
{
    int64_t now_ns = cox_clock_mono_ns();
    int64_t earned = (now_ns - r->retry_credit_ns) / 1000 * RETRY_CREDIT_A_SECOND / 1000000;

    if (r->retry_credit < RETRY_CREDIT_FIRST && earned > 0) {
        r->retry_credit += earned;
        if (r->retry_credit > RETRY_CREDIT_FIRST)
            r->retry_credit = RETRY_CREDIT_FIRST;
    }
    if (earned > 0)
        r->retry_credit_ns = now_ns;
    if (r->retry_credit < 1000)
        return false;
    r->retry_credit -= 1000;
    return true;
}

/* ---- life ---- */

static void set_defaults(struct router_config *config)
{
    if (!config->cache_len_max)
        config->cache_len_max = CACHE_LEN_MAX;
    if (!config->calls_max)
        config->calls_max = ROUTER_CALLS_MAX;
    if (!config->timeouts.connect_ms)
        config->timeouts.connect_ms = CONNECT_MS;
    if (!config->timeouts.stall_ms)
        config->timeouts.stall_ms = STALL_MS;
    if (!config->timeouts.total_ms)
        config->timeouts.total_ms = TOTAL_MS;
}

struct router *router_create(const struct router_config *config)
{
    static const struct catalogue_events events = { on_model, on_endpoint, on_endpoint_changed };
    const struct timeval tick = { 0, TICK_US };
    struct router *r = COX_NEW(struct router);

    r->config = *config;
    set_defaults(&r->config);
    r->base = config->base;
    r->since_wall_ms = cox_clock_wall_ms();
    cox_list_init(&r->calls);
    cox_list_init(&r->over);
    cox_rng_init(&r->rng, config->seed);
    r->id_salt = cox_rng_u64(&r->rng);
    r->retry_credit = RETRY_CREDIT_FIRST;
    r->retry_credit_ns = cox_clock_mono_ns();
    programs_init(&r->programs);
    stored_init(&r->stored, r->config.cache_len_max);
    pthread_mutex_init(&r->mutex, NULL);
    r->turn = event_new(r->base, -1, 0, on_turn, r);
    r->wake = event_new(r->base, -1, 0, on_turn, r);
    r->tick = event_new(r->base, -1, EV_PERSIST, on_tick, r);
    event_add(r->tick, &tick);
    r->placement =
        placement_create(&(struct placement_config){ .policy = config->policy, .seed = config->seed });
    r->upstream = upstream_create(&(struct upstream_config){ .base = r->base });
    r->health = health_create(&(struct health_config){ .base = r->base,
                                                       .upstream = r->upstream,
                                                       .scrape_ms = config->scrape_ms,
                                                       .on_signals = on_signals,
                                                       .on_gate = on_gate,
                                                       .on_room = on_room,
                                                       .user = r });
    r->catalogue = catalogue_create(r->base, &events, r);
    router_stats_refresh(r);
    return r;
}

void router_destroy(struct router *r)
{
    if (!r)
        return;
    r->ending = true;
    COX_LIST_FOR_EACH (it, &r->calls) {
        router_cancel(COX_CONTAINER_OF(it, struct router_call, node));
    }
    while (!cox_list_empty(&r->over))
        call_tell_end(COX_CONTAINER_OF(r->over.next, struct router_call, node));
    catalogue_destroy(r->catalogue);
    health_destroy(r->health);
    upstream_destroy(r->upstream);
    placement_destroy(r->placement);
    event_free(r->turn);
    event_free(r->wake);
    event_free(r->tick);
    books_fini(r);
    programs_fini(&r->programs);
    stored_fini(&r->stored);
    chat_reader_fini(&r->reader);
    prefix_fini(&r->scratch);
    cox_heap_fini(&r->timers);
    cox_free(r->by_place);
    router_stats_free(r->stats);
    pthread_mutex_destroy(&r->mutex);
    cox_free(r);
}

struct catalogue *router_catalogue(struct router *r)
{
    return r->catalogue;
}

/* ---- words about programs ---- */

#define RETURN_MS_MAX (24 * 3600 * 1000LL)

void router_expect(struct router *r, struct cox_slice tenant, struct cox_slice program, int64_t return_ms)
{
    const struct program *p = programs_find(&r->programs, tenant, program);

    if (return_ms > RETURN_MS_MAX)
        return_ms = RETURN_MS_MAX;
    if (p)
        placement_expect(r->placement, cox_clock_mono_ns(), p->number, return_ms * ROUTER_NS_PER_MS);
}

void router_program_end(struct router *r, struct cox_slice tenant, struct cox_slice program)
{
    struct program *p = programs_find(&r->programs, tenant, program);

    if (p)
        programs_end(&r->programs, r->placement, p);
}
