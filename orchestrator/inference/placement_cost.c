/* Where a call goes: nanoseconds until its first token, and what it costs those that are there. */
#include "placement_inside.h"

#include "cox/base/plant.h"

#define KV_PRESSURE_NS 150000000ULL
#define SIGNALS_FRESH_NS (2 * NS_PER_S)
#define STAY_PERMILLE 900u /* of its home's cost another must not exceed */
#define DRAWS 2u
#define AVOID_WAIT_NS (5 * NS_PER_S) /* for an endpoint that has not failed the call yet */
#define CANDIDATES_MAX (1u + 2u + DRAWS + 1u)

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

    if (g != NULL && blocks == 0 && program_home(g) == x) {
        uint64_t since = x->written_tokens - g->home_written;
        uint64_t there = since + g->context_tokens <= x->kv_tokens ? g->context_tokens : 0;
        tokens = there < c->input_tokens ? there : c->input_tokens;
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
    struct cox_heap_node *most = cox_heap_min(&q->rooms);
    return most != NULL ? add(list, n, COX_CONTAINER_OF(most, struct place, room)) : n;
}

/* The call waits for its home when that is sooner, even so, than to begin anew elsewhere now. */
static bool worth_waiting(const struct placement_call *c, const struct look *home, const struct look *best,
                          uint64_t *ret_cost)
{
    if (c->has_waited_for_home || home->hit_tokens == 0 || !place_takes(home->at))
        return false;
    *ret_cost = home->cost + room_ns(home->at, call_tokens(c));
    return *ret_cost < best->cost - best->cost / 10;
}

struct choice choose(struct placement_pool *q, const struct placement_call *c, int64_t now_ns)
{
    struct place *few[CANDIDATES_MAX], **list = q->places;
    struct place *home = c->of_program != NULL ? program_home(c->of_program) : NULL;
    uint32_t n = q->n_places;
    struct look best = { 0 }, best_avoided = { 0 }, at_home = { 0 };
    struct place *other = NULL; /* open, but full, and not to be avoided */

    if (cox_heap_min(&q->rooms) == NULL)
        return (struct choice){ .kind = CHOICE_NONE };
    if (n > SCAN_MAX) {
        list = few;
        n = candidates(q, c, home, few);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct look l;
        bool avoid = avoided(c, list[i]->id);
        if (!avoid && place_takes(list[i]) && (other == NULL || list[i]->charged < other->charged))
            other = list[i];
        bool fits = list[i]->parked.len == 0 && place_fits(list[i], call_tokens(c));
        if (!fits && list[i] != home)
            continue;
        look_at(list[i], c, now_ns, &l);
        if (list[i] == home && !avoid)
            at_home = l;
        struct look *into = avoid ? &best_avoided : &best;
        if (fits && better(&l, into))
            *into = l;
    }
    if (best.at == NULL && best_avoided.at != NULL) {
        if (other != NULL && !c->has_waited_for_home)
            return (struct choice){ CHOICE_PARK, other, 0, 0, now_ns + AVOID_WAIT_NS };
        best = best_avoided;
    }
    if (best.at == NULL)
        return (struct choice){ .kind = CHOICE_NONE };
    struct choice r = { CHOICE_SEND, best.at, best.hit_blocks, best.hit_tokens, 0 };
    if (at_home.at == NULL || at_home.at == best.at)
        return r;
    uint64_t cost;
    if (at_home.at->parked.len == 0 && place_fits(at_home.at, call_tokens(c))) {
        if (best.cost * 1000 > at_home.cost * STAY_PERMILLE)
            r = (struct choice){ CHOICE_SEND, at_home.at, at_home.hit_blocks, at_home.hit_tokens, 0 };
    } else if (worth_waiting(c, &at_home, &best, &cost)) {
        int64_t until = now_ns + (int64_t)(best.cost - at_home.cost);
        r = (struct choice){ CHOICE_PARK, at_home.at, 0, 0, until };
    }
    return r;
}
