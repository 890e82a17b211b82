/* What request-level routers do, for comparison: each call by itself, in order of arrival.
 *
 * round_robin, least_request and power_of_two choose among endpoints that have room at the moment. That is
 * kinder to them than a router without a queue, which must choose when the call comes.
 *
 * cache_aware is the rule of SGLang's router (sgl-router, now SMG; sgl-project/sglang, routing policy
 * "cache_aware"): when the longest queue exceeds the shortest by more than 32 calls and by a tenth, the
 * shortest queue; else the endpoint with the best prefix match if that is more than half of the prompt, else
 * the one with the smallest tree. Prompts enter the tree when they are sent. session is a rendezvous hash of
 * the program (Thaler, Ravishankar 1998). Both name one endpoint, full or not: when it is full the call waits
 * for it, as it would in the engine's own queue. */
#include "placement_inside.h"

#define BALANCE_ABS 32u
#define BALANCE_REL_PERMILLE 1100u

static const char *const texts[PLACEMENT_POLICY_NR] = { "program",      "round_robin", "least_request",
                                                        "power_of_two", "cache_aware", "session" };

const char *placement_policy_text(enum placement_policy policy)
{
    return texts[policy];
}

bool placement_policy_parse(struct cox_slice text, enum placement_policy *ret)
{
    for (int i = 0; i < PLACEMENT_POLICY_NR; i++) {
        if (cox_slice_is(text, texts[i])) {
            *ret = (enum placement_policy)i;
            return true;
        }
    }
    return false;
}

static bool avoided(const struct placement_call *c, const struct place *x)
{
    for (uint32_t i = 0; i < c->n_avoid && i < 4; i++) {
        if (c->avoid[i] == x->id)
            return true;
    }
    return false;
}

/* Whether others are to be had than those that have failed the call. */
static bool may_avoid(const struct placement_pool *q, const struct placement_call *c)
{
    for (uint32_t i = 0; c->n_avoid > 0 && i < q->n_places; i++) {
        if (place_takes(q->places[i]) && !avoided(c, q->places[i]))
            return true;
    }
    return false;
}

static bool has_room(const struct place *x, const struct placement_call *c, bool avoid)
{
    return x->parked.len == 0 && place_fits(x, call_tokens(c)) && !(avoid && avoided(c, x));
}

static struct place *round_robin(struct placement_pool *q, const struct placement_call *c, bool avoid)
{
    for (uint32_t i = 0; i < q->n_places; i++) {
        struct place *x = q->places[(q->cursor + i) % q->n_places];
        if (has_room(x, c, avoid)) {
            q->cursor = (q->cursor + i + 1) % q->n_places;
            return x;
        }
    }
    return NULL;
}

static struct place *least_request(struct placement_pool *q, const struct placement_call *c, bool avoid)
{
    struct place *least = NULL;

    for (uint32_t i = 0; i < q->n_places; i++) {
        /* Not always the first of equals. */
        struct place *x = q->places[(q->cursor + i) % q->n_places];
        if (has_room(x, c, avoid) && (least == NULL || x->in_flight < least->in_flight))
            least = x;
    }
    q->cursor = (q->cursor + 1) % q->n_places;
    return least;
}

static struct place *power_of_two(struct placement_pool *q, const struct placement_call *c, bool avoid)
{
    struct place *drawn[2] = { NULL, NULL };

    for (int i = 0; i < 2; i++) {
        struct place *x = q->places[cox_rng_below(&q->p->rng, q->n_places)];
        drawn[i] = has_room(x, c, avoid) ? x : NULL;
    }
    if (drawn[0] == NULL && drawn[1] == NULL)
        return round_robin(q, c, avoid);
    if (drawn[0] == NULL || drawn[1] == NULL)
        return drawn[0] != NULL ? drawn[0] : drawn[1];
    return drawn[0]->in_flight <= drawn[1]->in_flight ? drawn[0] : drawn[1];
}

static uint64_t queue_len(const struct place *x)
{
    return x->in_flight + x->parked.len;
}

static struct place *cache_aware(struct placement_pool *q, const struct placement_call *c, bool avoid)
{
    struct place *shortest = NULL, *match = NULL, *smallest = NULL;
    uint64_t longest = 0;
    uint32_t match_blocks = 0;

    for (uint32_t i = 0; i < q->n_places; i++) {
        struct place *x = q->places[i];
        if (!place_takes(x) || (avoid && avoided(c, x)))
            continue;
        longest = queue_len(x) > longest ? queue_len(x) : longest;
        if (shortest == NULL || queue_len(x) < queue_len(shortest))
            shortest = x;
        if (smallest == NULL || x->tree.n_blocks < smallest->tree.n_blocks)
            smallest = x;
        uint32_t blocks = index_hit(&x->tree, c->blocks, c->n_blocks);
        if (match == NULL || blocks > match_blocks) {
            match = x;
            match_blocks = blocks;
        }
    }
    if (shortest == NULL)
        return NULL;
    if (longest - queue_len(shortest) > BALANCE_ABS &&
        longest * 1000 > queue_len(shortest) * BALANCE_REL_PERMILLE)
        return shortest;
    return (uint64_t)match_blocks * 2 > c->n_blocks ? match : smallest;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static struct place *session(struct placement_pool *q, const struct placement_call *c, bool avoid)
{
    uint64_t key = c->program != 0 ? c->program : c->n_blocks > 0 ? c->blocks[0] : c->tenant;
    struct place *highest = NULL;
    uint64_t most = 0;

    for (uint32_t i = 0; i < q->n_places; i++) {
        struct place *x = q->places[i];
        uint64_t weight = mix(key ^ mix(x->id + 1));
        if (place_takes(x) && !(avoid && avoided(c, x)) && (highest == NULL || weight > most)) {
            highest = x;
            most = weight;
        }
    }
    return highest;
}

struct choice choose_by_policy(struct placement_pool *q, const struct placement_call *c)
{
    static struct place *(*const rules[PLACEMENT_POLICY_NR])(struct placement_pool *,
                                                             const struct placement_call *, bool) = {
        [PLACEMENT_ROUND_ROBIN] = round_robin,   [PLACEMENT_LEAST_REQUEST] = least_request,
        [PLACEMENT_POWER_OF_TWO] = power_of_two, [PLACEMENT_CACHE_AWARE] = cache_aware,
        [PLACEMENT_SESSION] = session,
    };
    bool avoid = may_avoid(q, c);
    struct place *x = q->n_places > 0 ? rules[q->p->policy](q, c, avoid) : NULL;

    if (x == NULL)
        return (struct choice){ .kind = CHOICE_NONE };
    struct choice r = { .kind = has_room(x, c, false) ? CHOICE_SEND : CHOICE_PARK,
                        .at = x,
                        .until_ns = INT64_MAX };
    place_hit(x, c, &r.hit_blocks, &r.hit_tokens);
    return r;
}
