/* Where a call goes: nanoseconds until its first token, and what it costs those that are there. */
#include "placement_inside.h"

#include "cox/base/plant.h"

#define KV_PRESSURE_NS 1500000000ULL
#define SIGNALS_FRESH_NS (2 * NS_PER_S)
/* Of its home's cost, what another has to fall below: for a call that has more at home, and for one that
 * loses nothing by going. */
#define STAY_PERMILLE 300u
#define STAY_COLD_PERMILLE 900u
#define DRAWS 2u
#define AVOID_WAIT_NS (5 * NS_PER_S) /* for an endpoint that has not failed the call yet */
#define CANDIDATES_MAX (1u + 2u + DRAWS + 2u)
#define HOME_WAIT_NS (30 * NS_PER_S)
/* Less than the ten minutes that the router lets a call wait. Whoever is let in beyond what fits pushes out
 * others, who come back to find nothing: when all are let in after a time that a queue reaches, that never
 * ends again. */
#define HOLD_MAX_NS (540 * NS_PER_S)

uint64_t call_tokens(const struct placement_call *c)
{
    return (uint64_t)c->input_tokens + c->decode_tokens;
}

bool place_takes(const struct place *x)
{
    if (x->removed || x->gate == PLACEMENT_CLOSED)
        return false;
    return x->gate == PLACEMENT_OPEN || x->in_flight == 0 || COX_PLANTED("half-open-takes-all");
}

uint64_t place_free_tokens(const struct place *x)
{
    bool full = x->limits.in_flight_max > 0 && x->in_flight >= x->limits.in_flight_max;

    if (!place_takes(x) || full || x->charged >= x->credit)
        return 0;
    return x->credit - x->charged;
}

bool place_fits(const struct place *x, uint64_t tokens)
{
    uint64_t have = place_free_tokens(x);

    return have > 0 && have >= (tokens < x->credit ? tokens : x->credit);
}

void place_room(struct place *x)
{
    struct placement_pool *q = x->pool;
    uint64_t have = place_free_tokens(x);

    if (have > 0 && x->parked.len > 0) {
        cox_list_remove(&x->freed);
        cox_list_push_back(&q->freed, &x->freed);
    } else {
        cox_list_remove(&x->freed);
    }
    uint64_t berth = keep_berth(x);
    if (berth > 0)
        cox_heap_set(&q->berths, &x->berth, UINT64_MAX - berth);
    else
        cox_heap_remove(&q->berths, &x->berth);
    if (have > 0 && x->parked.len == 0)
        cox_heap_set(&q->rooms, &x->room, UINT64_MAX - have);
    else
        cox_heap_remove(&q->rooms, &x->room);
}

/* What of the prompt is believed to be there: by the index, and, of a program whose home this is, by how much
 * has been written there since it was last. */
void place_hit(const struct place *x, const struct placement_call *c, uint32_t *ret_blocks,
               uint32_t *ret_tokens)
{
    uint32_t blocks = c->n_blocks > 0 ? index_hit(&x->tree, c->blocks, c->n_blocks) : 0;
    uint64_t tokens = c->n_blocks > 0 ? muldiv(c->input_tokens, blocks, c->n_blocks) : 0;
    const struct placement_program *g = c->of_program;

    if (g != NULL && (blocks == 0 || x->index_is_short) && program_home(g) == x) {
        uint64_t since = x->written_tokens - g->home_written;
        uint64_t there = since + g->context_tokens <= x->kv_tokens ? g->context_tokens : 0;
        tokens = there > tokens ? there : tokens;
    }
    if (tokens >= c->input_tokens)
        tokens = c->input_tokens > 0 ? c->input_tokens - 1 : 0;
    *ret_blocks = blocks;
    *ret_tokens = (uint32_t)muldiv(tokens, x->trust_permille, 1000);
}

/* Tokens of its cache in use, permille: as it says, and as we have charged and keep. What is kept for the
 * program itself is not in its own way. */
static uint64_t kv_permille(const struct place *x, const struct placement_call *c, int64_t now_ns)
{
    uint64_t kept = x->kept_tokens;
    const struct placement_program *g = c->of_program;

    if (g != NULL && cox_heap_has(&g->kept) && program_home(g) == x)
        kept -= g->kept_tokens;
    uint64_t ours = muldiv(x->charged + kept, 1000, x->kv_tokens);
    bool fresh = x->signals.kv_used_permille >= 0 && now_ns - x->signals_ns <= SIGNALS_FRESH_NS;
    uint64_t said = fresh ? (uint64_t)x->signals.kv_used_permille : 0;
    uint64_t k = ours > said ? ours : said;

    return k < 990 ? k : 990;
}

static uint64_t cost_ns(const struct place *x, const struct placement_call *c, uint32_t hit, int64_t now_ns)
{
    uint64_t miss = c->input_tokens - hit;
    uint64_t k = kv_permille(x, c, now_ns);

    return learn_pending_ns(x, now_ns) + muldiv(miss, NS_PER_S, x->prefill_rate) +
           KV_PRESSURE_NS * k / (1000 - k) + muldiv(x->decode_pending, NS_PER_S, x->decode_rate);
}

/* The credit that it takes there: what calls of the same program that run there have in common with it is
 * charged to them. */
uint64_t place_need(const struct place *x, const struct placement_call *c, uint32_t hit_tokens)
{
    const struct placement_program *g = c->of_program;
    bool shared = g != NULL && g->n_running > 0 && program_home(g) == x;

    return call_tokens(c) - (shared ? hit_tokens : 0);
}

/* Until it has room: what must go first, at the rate at which its calls end. */
static uint64_t room_ns(const struct place *x, uint64_t tokens)
{
    uint64_t have = place_free_tokens(x);
    uint64_t need = tokens + x->parked_tokens;

    if (need <= have)
        return 0;
    return muldiv(need - have, x->call_ns > 0 ? x->call_ns : (uint64_t)NS_PER_S, x->charged);
}

static bool avoided(const struct placement_call *c, uint32_t id)
{
    for (uint32_t i = 0; i < c->n_avoid && i < 4; i++) {
        if (c->avoid[i] == id)
            return true;
    }
    return false;
}

struct look {
    struct place *at;
    uint64_t cost;
    uint64_t tokens; /* of credit that it needs there */
    uint32_t hit_blocks, hit_tokens;
};

/* Cold ties go to whoever has been given something cold the longest ago. */
static bool better(const struct look *a, const struct look *b)
{
    if (b->at == NULL)
        return true;
    uint64_t gap = a->cost > b->cost ? a->cost - b->cost : b->cost - a->cost;
    if (a->hit_tokens == 0 && b->hit_tokens == 0 && gap <= b->cost / 64)
        return a->at->cold_use < b->at->cold_use;
    return a->cost < b->cost;
}

static void look_at(struct place *x, const struct placement_call *c, int64_t now_ns, struct look *ret)
{
    ret->at = x;
    place_hit(x, c, &ret->hit_blocks, &ret->hit_tokens);
    ret->tokens = place_need(x, c, ret->hit_tokens);
    ret->cost = cost_ns(x, c, ret->hit_tokens, now_ns);
}

static uint32_t add(struct place **list, uint32_t n, struct place *x)
{
    for (uint32_t i = 0; i < n; i++) {
        if (list[i] == x)
            return n;
    }
    list[n] = x;
    return n + 1;
}

/* Home, the best prefixes, two at random of those that have room, and the one with the most of it. */
static uint32_t candidates(struct placement_pool *q, const struct placement_call *c, struct place *home,
                           struct place **list)
{
    uint32_t best[2];
    uint32_t n = 0, n_best = index_best(&q->shared, c->blocks, c->n_blocks, best, 2);

    if (home != NULL)
        n = add(list, n, home);
    for (uint32_t i = 0; i < n_best; i++)
        n = add(list, n, q->p->places[best[i]]);
    for (uint32_t i = 0; i < DRAWS && q->rooms.len > 0; i++) {
        struct cox_heap_node *r = q->rooms.nodes[cox_rng_below(&q->p->rng, q->rooms.len)];
        n = add(list, n, COX_CONTAINER_OF(r, struct place, room));
    }
    struct cox_heap_node *most = cox_heap_min(&q->rooms), *berth = cox_heap_min(&q->berths);
    if (berth != NULL)
        n = add(list, n, COX_CONTAINER_OF(berth, struct place, berth));
    return most != NULL ? add(list, n, COX_CONTAINER_OF(most, struct place, room)) : n;
}

/* Whether its program has a place in the endpoint's working set: kept for it; or most of its prompt is there
 * still, and others of its calls run there or there is room for it. Where there is none it would go on at the
 * price of those whose homes are kept, who would do so to others in turn. */
static bool resident(const struct placement_call *c, const struct look *l)
{
    const struct placement_program *g = c->of_program;

    if (g == NULL || program_home(g) != l->at)
        return false;
    if (cox_heap_has(&g->kept))
        return true;
    return l->hit_tokens >= c->input_tokens / 2 &&
           (g->n_running > 0 || keep_fits(l->at, l->tokens) || COX_PLANTED("cached-is-kept"));
}

static bool admits(const struct placement_call *c, const struct look *l)
{
    return COX_PLANTED("crowded-cache") || c->may_crowd || resident(c, l) || keep_berth(l->at) >= l->tokens;
}

struct looks {
    struct look home;    /* whether it has room or not */
    struct look best;    /* of those that have room, and a place in their working set */
    struct look avoided; /* likewise, of those that have failed the call */
    struct place *other; /* open, but full, and not to be avoided */
    bool crowded;        /* somebody has room, but no place in its working set */
};

static void look_around(struct placement_pool *q, const struct placement_call *c, struct place *home,
                        int64_t now_ns, struct looks *ret)
{
    struct place *few[CANDIDATES_MAX], **list = q->places;
    uint32_t n = q->n_places;

    if (n > SCAN_MAX) {
        list = few;
        n = candidates(q, c, home, few);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct place *x = list[i];
        struct look l;
        bool avoid = avoided(c, x->id);
        if (!place_takes(x))
            continue;
        if (!avoid && (ret->other == NULL || x->charged < ret->other->charged))
            ret->other = x;
        if (place_free_tokens(x) == 0 && x != home)
            continue;
        look_at(x, c, now_ns, &l);
        if (x == home && !avoid)
            ret->home = l;
        struct look *into = avoid ? &ret->avoided : &ret->best;
        if (x->parked.len > 0 || !place_fits(x, l.tokens))
            continue;
        if (!admits(c, &l))
            ret->crowded = true;
        else if (better(&l, into))
            *into = l;
    }
}

static struct choice send_to(const struct look *l)
{
    return (struct choice){
        .kind = CHOICE_SEND, .at = l->at, .hit_blocks = l->hit_blocks, .hit_tokens = l->hit_tokens
    };
}

/* Between its home and the best of the others. When its home is full the call waits for it, if that is
 * sooner, even so, than to begin anew elsewhere now. */
static struct choice home_or(const struct placement_call *c, const struct look *home, const struct look *best,
                             int64_t now_ns)
{
    if (home->at == NULL || home->at == best->at || COX_PLANTED("no-home"))
        return send_to(best);
    bool warmer = home->hit_tokens > best->hit_tokens;
    if (home->at->parked.len == 0 && place_fits(home->at, home->tokens)) {
        uint64_t stay = warmer ? STAY_PERMILLE : STAY_COLD_PERMILLE;
        return best->cost * 1000 > home->cost * stay ? send_to(home) : send_to(best);
    }
    if (!warmer || c->has_waited_for_home || home->cost + room_ns(home->at, home->tokens) >= best->cost)
        return send_to(best);
    int64_t until_ns = now_ns + (int64_t)(best->cost - home->cost);
    return (struct choice){ .kind = CHOICE_PARK, .at = home->at, .until_ns = until_ns };
}

struct choice choose(struct placement_pool *q, const struct placement_call *c, int64_t now_ns)
{
    struct place *home = c->of_program != NULL ? program_home(c->of_program) : NULL;
    struct looks l = { 0 };
    struct choice none = { .kind = CHOICE_NONE }, hold = { CHOICE_HOLD, .until_ns = now_ns + HOLD_MAX_NS };

    if (cox_heap_min(&q->rooms) == NULL)
        return none;
    look_around(q, c, home, now_ns, &l);
    if (l.best.at == NULL && l.home.at != NULL && resident(c, &l.home)) { /* others may go meanwhile */
        if (COX_PLANTED("full-home-stops-all"))
            return none;
        return (struct choice){ .kind = CHOICE_PARK, .at = home, .until_ns = now_ns + HOME_WAIT_NS };
    }
    if (l.best.at == NULL && l.avoided.at != NULL) {
        if (l.other != NULL && !l.crowded && !c->has_waited_for_home)
            return (struct choice){ .kind = CHOICE_PARK, .at = l.other, .until_ns = now_ns + AVOID_WAIT_NS };
        l.best = l.avoided;
    }
    if (l.best.at == NULL)
        return l.crowded ? hold : none;
    /* Who comes new goes behind those that are held back already. */
    if (c->state != CALL_HELD && q->held_turns.len > 0 && !c->may_crowd && !resident(c, &l.best) &&
        !(l.home.at != NULL && resident(c, &l.home)))
        return hold;
    return home_or(c, &l.home, &l.best, now_ns);
}
