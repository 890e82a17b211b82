/* Homes that are kept warm. While a program's tool runs, what its home has cached of it counts as taken, so
 * that others go where less would be pushed out for them.
 *
 * For how long that is worth it: keeping a share s of a cache for t costs s * t of it, as far as others want
 * it (the pressure on it, p); losing it costs its prefill again. Both grow with the context alike, so the
 * rule needs no size: keep what is expected within (tokens of the cache / prefill rate) / p: the time in
 * which the cache could be filled from nothing. (Continuum's time to live, arXiv 2511.02230, by the same
 * weighing; InferCept's waste, arXiv 2402.01869.) */
#include "placement_inside.h"

#define KEEP_LATE_MIN_NS NS_PER_S /* a tool may take longer than was said */
#define KEEP_MAX_NS (600 * NS_PER_S)
#define WORTH 2u
/* Programs that are new to a cache are let in while it holds, beside what is in use and kept, half as much
 * again of those that keep coming back: their contexts grow with each turn. */
#define GROWTH_PERMILLE 500u
#define RETURNS_MIN 3u

struct place *program_home(const struct placement_program *g)
{
    if (g->home == NO_PLACE || g->home >= g->pool->p->n_places)
        return NULL;
    struct place *x = g->pool->p->places[g->home];

    return x != NULL && !x->removed && x->serial == g->home_serial ? x : NULL;
}

void keep_drop(struct placement_program *g)
{
    struct place *x = program_home(g);

    cox_heap_remove(&g->pool->lapses, &g->lapse);
    if (!cox_heap_has(&g->kept) || x == NULL)
        return;
    cox_heap_remove(&x->kept, &g->kept);
    x->kept_tokens -= g->kept_tokens;
    x->growing_tokens -= g->kept_grows ? g->kept_tokens : 0;
    place_room(x);
    pool_wake(x->pool);
}

bool keep_grows(const struct placement_program *g)
{
    return g->n_back >= RETURNS_MIN;
}

bool keep_fits(const struct place *x, uint64_t tokens)
{
    return !x->kv_is_known || x->charged + x->kept_tokens + tokens <= x->kv_tokens;
}

uint64_t keep_berth(const struct place *x)
{
    uint64_t used = x->charged + x->kept_tokens + muldiv(x->growing_tokens, GROWTH_PERMILLE, 1000);

    if (place_free_tokens(x) == 0)
        return 0;
    return used == 0 || !x->kv_is_known ? UINT64_MAX : used < x->kv_tokens ? x->kv_tokens - used : 0;
}

void keep_back(struct placement_program *g, int64_t now_ns)
{
    if (!cox_heap_has(&g->kept))
        return;
    cox_heap_remove(&g->pool->lapses, &g->lapse);
    cox_heap_set(&program_home(g)->kept, &g->kept, UINT64_MAX - as_key(now_ns));
}

static uint64_t worth_ns(const struct place *x)
{
    uint64_t fill_ns = muldiv(x->kv_tokens, NS_PER_S, x->prefill_rate);
    uint64_t pressure = muldiv(x->charged + x->kept_tokens, 1000, x->kv_tokens);

    return muldiv(fill_ns, WORTH * 1000, pressure < 100 ? 100 : pressure);
}

void keep_home(struct placement_program *g, int64_t now_ns)
{
    struct place *x = program_home(g);

    keep_drop(g);
    if (x == NULL || g->return_ns == INT64_MAX || g->n_running > 0 || g->context_tokens == 0)
        return;
    int64_t away_ns = g->return_ns > now_ns ? g->return_ns - now_ns : 0;
    if (away_ns > KEEP_MAX_NS || (uint64_t)away_ns > worth_ns(x))
        return;
    g->kept_tokens = g->context_tokens;
    g->kept_grows = keep_grows(g);
    x->kept_tokens += g->kept_tokens;
    x->growing_tokens += g->kept_grows ? g->kept_tokens : 0;
    cox_heap_set(&x->kept, &g->kept, UINT64_MAX - as_key(g->return_ns));
    place_room(x);
    int64_t late_ns = away_ns > KEEP_LATE_MIN_NS ? away_ns : KEEP_LATE_MIN_NS;
    cox_heap_set(&g->pool->lapses, &g->lapse, as_key(now_ns + away_ns + late_ns));
    while (x->kept.len > 0 && x->kept_tokens + x->charged > x->kv_tokens)
        keep_drop(COX_CONTAINER_OF(cox_heap_min(&x->kept), struct placement_program, kept));
}

void keep_lapse(struct placement_pool *q, int64_t now_ns)
{
    struct cox_heap_node *n;

    while ((n = cox_heap_min(&q->lapses)) != NULL && n->key <= as_key(now_ns))
        keep_drop(COX_CONTAINER_OF(n, struct placement_program, lapse));
}
