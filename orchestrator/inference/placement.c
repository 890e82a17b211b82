#include "placement.h"

#include "placement_inside.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#define INDEX_BLOCKS_MAX 2097152u /* over all endpoints, or INDEX_BLOCKS_MIN each: about 110 bytes each */
#define INDEX_BLOCKS_MIN 256u
#define CACHED_SLACK_TOKENS 256u
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 60000
#define RATE_WINDOW_NS NS_PER_S

/* ---- life ---- */

struct placement *placement_create(const struct placement_config *config)
{
    struct placement *p = COX_NEW(struct placement);

    p->policy = config->policy;
    p->queue_max = config->queue_max > 0 ? config->queue_max : PLACEMENT_QUEUE_MAX;
    cox_rng_init(&p->rng, config->seed);
    cox_list_init(&p->ready);
    cox_list_init(&p->idle_programs);
    cox_list_init(&p->idle_tenants);
    p->next_serial = 1;
    return p;
}

static void place_free(struct place *x)
{
    struct placement *p = x->pool->p;

    COX_ASSERT(x->in_flight == 0 && x->charged == 0);
    index_tree_fini(&x->tree);
    cox_heap_remove(&x->pool->rooms, &x->room);
    cox_heap_remove(&x->pool->berths, &x->berth);
    cox_list_remove(&x->freed);
    cox_heap_fini(&x->parked);
    cox_heap_fini(&x->kept);
    p->places[x->id] = NULL;
    if (p->n_free_ids == p->cap_free_ids) {
        p->cap_free_ids = p->cap_free_ids ? 2 * p->cap_free_ids : 16;
        p->free_ids = cox_realloc(p->free_ids, p->cap_free_ids, sizeof *p->free_ids);
    }
    p->free_ids[p->n_free_ids++] = x->id;
    cox_free(x);
}

static void pool_free(struct placement_pool *q)
{
    struct placement *p = q->p;
    size_t it = 0;
    uint64_t key;
    void *value;

    while (cox_map64_next(&q->tenants, &it, &key, &value))
        tenant_free(p, value);
    for (it = 0; cox_map64_next(&q->programs, &it, &key, &value);) {
        struct placement_program *g = value;
        for (int b = 0; b < PLACEMENT_BAND_NR; b++) {
            if (g->lines[b] != NULL) {
                cox_heap_fini(&g->lines[b]->calls);
                cox_free(g->lines[b]);
            }
        }
        program_free(p, g);
    }
    cox_heap_fini(&q->rooms);
    cox_heap_fini(&q->berths);
    cox_heap_fini(&q->held_turns);
    cox_heap_fini(&q->turns);
    cox_heap_fini(&q->fifo);
    cox_heap_fini(&q->due);
    cox_heap_fini(&q->lapses);
    cox_map64_fini(&q->programs);
    cox_map64_fini(&q->tenants);
    index_shared_fini(&q->shared);
    cox_list_remove(&q->ready);
    p->pools[q->id] = NULL;
    cox_free(q->places);
    cox_free(q);
}

void placement_destroy(struct placement *p)
{
    if (p == NULL)
        return;
    for (uint32_t i = 0; i < p->n_places; i++) {
        if (p->places[i] != NULL) {
            p->places[i]->in_flight = 0;
            p->places[i]->charged = 0;
        }
    }
    for (uint32_t i = 0; i < p->n_pools; i++) {
        struct placement_pool *q = p->pools[i];
        if (q == NULL)
            continue;
        for (uint32_t j = 0; j < p->n_places; j++) {
            if (p->places[j] != NULL && p->places[j]->pool == q)
                place_free(p->places[j]);
        }
        pool_free(q);
    }
    cox_free(p->pools);
    cox_free(p->places);
    cox_free(p->free_ids);
    cox_free(p);
}

static struct placement_pool *pool_at(const struct placement *p, uint32_t id)
{
    COX_ASSERT(id < p->n_pools && p->pools[id] != NULL);
    return p->pools[id];
}

static struct place *place_at(const struct placement *p, uint32_t id)
{
    COX_ASSERT(id < p->n_places && p->places[id] != NULL);
    return p->places[id];
}

void pool_wake(struct placement_pool *q)
{
    if (cox_list_empty(&q->ready))
        cox_list_push_back(&q->p->ready, &q->ready);
}

/* ---- pools ---- */

uint32_t placement_pool_add(struct placement *p)
{
    uint32_t id = 0;

    while (id < p->n_pools && p->pools[id] != NULL)
        id++;
    if (id == p->cap_pools) {
        p->cap_pools = p->cap_pools ? 2 * p->cap_pools : 8;
        p->pools = cox_realloc(p->pools, p->cap_pools, sizeof(struct placement_pool *));
    }
    if (id == p->n_pools)
        p->n_pools++;
    struct placement_pool *q = p->pools[id] = COX_NEW(struct placement_pool);
    q->id = id;
    q->p = p;
    q->mean_output = OUTPUT_DEFAULT;
    q->block_tokens_16 = 16 * BLOCK_TOKENS_DEFAULT;
    cox_list_init(&q->ready);
    cox_list_init(&q->freed);
    cox_list_init(&q->arrivals);
    return id;
}

void placement_pool_remove(struct placement *p, uint32_t pool)
{
    struct placement_pool *q = pool_at(p, pool);

    COX_ASSERT(q->n_places == 0 && q->n_waiting == 0);
    for (uint32_t i = 0; i < p->n_places; i++)
        COX_ASSERT(p->places[i] == NULL || p->places[i]->pool != q);
    pool_free(q);
}

/* ---- endpoints ---- */

/* As many blocks as its cache holds, by what a block turns out to be in tokens, and a part more: what is
 * believed in vain costs a detour, what is not known costs a prefill. */
static void index_resize(struct place *x)
{
    uint32_t n_all = x->pool->p->n_places;
    uint64_t blocks = muldiv(x->kv_tokens, 16, x->pool->block_tokens_16);
    uint64_t share = INDEX_BLOCKS_MAX / (n_all > 0 ? n_all : 1);

    blocks += blocks / 8;
    share = share > INDEX_BLOCKS_MIN ? share : INDEX_BLOCKS_MIN;
    x->index_is_short = share < blocks;
    index_limit(&x->tree, (uint32_t)(blocks < share ? blocks : share));
}

static uint32_t id_make(struct placement *p)
{
    if (p->n_free_ids > 0)
        return p->free_ids[--p->n_free_ids];
    if (p->n_places == p->cap_places) {
        p->cap_places = p->cap_places ? 2 * p->cap_places : 16;
        p->places = cox_realloc(p->places, p->cap_places, sizeof(struct place *));
    }
    return p->n_places++;
}

uint32_t placement_endpoint_add(struct placement *p, uint32_t pool, const struct placement_limits *limits)
{
    struct placement_pool *q = pool_at(p, pool);
    uint32_t id = id_make(p);
    struct place *x = p->places[id] = COX_NEW(struct place);

    x->id = id;
    x->serial = p->next_serial++;
    x->pool = q;
    x->limits = *limits;
    x->signals = (struct placement_signals){ -1, -1, -1, 0 };
    x->signals_ns = INT64_MIN / 2;
    x->credit_cut_ns = INT64_MIN / 2;
    cox_heap_node_init(&x->room);
    cox_heap_node_init(&x->berth);
    cox_list_init(&x->freed);
    learn_init(x);
    index_tree_init(&x->tree, &q->shared, id, 0);
    if (q->n_places == q->cap_places) {
        q->cap_places = q->cap_places ? 2 * q->cap_places : 8;
        q->places = cox_realloc(q->places, q->cap_places, sizeof(struct place *));
    }
    x->at = q->n_places;
    q->places[q->n_places++] = x;
    index_resize(x);
    place_room(x);
    pool_wake(q);
    return id;
}

void placement_endpoint_limit(struct placement *p, uint32_t endpoint, const struct placement_limits *limits)
{
    struct place *x = place_at(p, endpoint);

    x->limits = *limits;
    learn_credit(x);
    index_resize(x);
    place_room(x);
    pool_wake(x->pool);
}

static void unpark_all(struct place *x)
{
    struct cox_heap_node *n;

    while ((n = cox_heap_min(&x->parked)) != NULL)
        queue_unpark(x->pool, COX_CONTAINER_OF(n, struct placement_call, order), x->pool->p->now_ns);
    pool_wake(x->pool);
}

static void forget(struct place *x)
{
    struct cox_heap_node *n;

    while ((n = cox_heap_min(&x->kept)) != NULL)
        keep_drop(COX_CONTAINER_OF(n, struct placement_program, kept));
    x->serial = x->pool->p->next_serial++;
    index_forget(&x->tree);
}

void placement_endpoint_remove(struct placement *p, uint32_t endpoint)
{
    struct place *x = place_at(p, endpoint);
    struct placement_pool *q = x->pool;

    COX_ASSERT(!x->removed);
    forget(x);
    x->removed = true;
    unpark_all(x);
    place_room(x);
    q->places[x->at] = q->places[--q->n_places];
    q->places[x->at]->at = x->at;
    q->cursor = 0;
    if (x->in_flight == 0)
        place_free(x);
}

void placement_endpoint_gate(struct placement *p, uint32_t endpoint, enum placement_gate gate, bool do_forget)
{
    struct place *x = place_at(p, endpoint);

    x->gate = gate;
    if (do_forget)
        forget(x);
    if (gate != PLACEMENT_OPEN)
        unpark_all(x);
    place_room(x);
    pool_wake(x->pool);
}

void placement_endpoint_signals(struct placement *p, uint32_t endpoint, int64_t now_ns,
                                const struct placement_signals *signals)
{
    struct place *x = place_at(p, endpoint);
    uint64_t kv_before = x->signals.kv_tokens;

    x->signals = *signals;
    x->signals_ns = now_ns;
    if (signals->kv_tokens == 0)
        x->signals.kv_tokens = kv_before;
    if (x->signals.kv_tokens != kv_before && x->limits.kv_tokens == 0) {
        learn_credit(x);
        index_resize(x);
        place_room(x);
        pool_wake(x->pool);
    }
}

/* ---- calls ---- */

static int64_t retry_ms(uint64_t wait_ns)
{
    uint64_t ms = wait_ns / (uint64_t)NS_PER_MS;

    return ms < RETRY_MIN_MS ? RETRY_MIN_MS : ms > RETRY_MAX_MS ? RETRY_MAX_MS : (int64_t)ms;
}

enum cox_err placement_submit(struct placement *p, int64_t now_ns, struct placement_call *call,
                              int64_t *ret_retry_ms)
{
    struct placement_pool *q = pool_at(p, call->pool);
    uint64_t wait_ns = queue_wait_ns(q, call->band);

    p->now_ns = now_ns;
    call->state = CALL_NONE;
    *ret_retry_ms = retry_ms(wait_ns);
    if (q->n_places == 0)
        return COX_ERR_UNAVAILABLE;
    if (q->n_waiting >= p->queue_max)
        return COX_ERR_FULL;
    if (call->deadline_ns != INT64_MAX && q->n_waiting > 0 &&
        (call->deadline_ns <= now_ns || wait_ns > (uint64_t)(call->deadline_ns - now_ns)))
        return COX_ERR_FULL;
    if (call->n_blocks > PLACEMENT_BLOCKS_MAX)
        call->n_blocks = PLACEMENT_BLOCKS_MAX;
    cox_list_init(&call->link);
    cox_heap_node_init(&call->order);
    cox_heap_node_init(&call->due);
    call->submitted_ns = now_ns;
    call->dispatched_ns = call->first_token_ns = 0;
    call->endpoint = NO_PLACE;
    call->hit_tokens = call->charged_tokens = call->hit_blocks = call->miss_tokens = 0;
    call->has_waited_for_home = call->may_crowd = call->grows = false;
    const struct placement_program *g = program_find(q, call->program);
    call->decode_tokens = call->output_tokens > 0           ? call->output_tokens
                          : g != NULL && g->mean_output > 0 ? g->mean_output
                                                            : q->mean_output;
    queue_add(q, call, now_ns);
    if (call->of_program != NULL)
        keep_back(call->of_program, now_ns);
    pool_wake(q);
    return COX_OK;
}

static void dispatch(struct placement_pool *q, struct placement_call *c, const struct choice *to,
                     int64_t now_ns)
{
    struct place *x = to->at;
    struct placement_program *g = c->of_program;
    uint64_t tokens = place_need(x, c, to->hit_tokens);

    queue_leave(c, q);
    c->state = CALL_SENT;
    c->dispatched_ns = now_ns;
    c->endpoint = x->id;
    c->hit_blocks = to->hit_blocks;
    c->hit_tokens = to->hit_tokens;
    c->miss_tokens = c->input_tokens - to->hit_tokens;
    c->charged_tokens = (uint32_t)(tokens < x->credit ? tokens : x->credit);
    x->charged += c->charged_tokens;
    x->in_flight++;
    learn_sent(x, c, now_ns);
    if (to->hit_tokens == 0)
        x->cold_use = ++q->cold_turn;
    if (g != NULL) {
        if (g->n_running++ == 0 && g->last_done_ns > 0) {
            g->n_back++;
            int64_t gap_ns = c->submitted_ns > g->last_done_ns ? c->submitted_ns - g->last_done_ns : 0;
            g->mean_gap_ns = g->mean_gap_ns == 0 ? gap_ns : g->mean_gap_ns + (gap_ns - g->mean_gap_ns) / 4;
        }
        keep_drop(g);
        c->grows = keep_grows(g);
        x->growing_tokens += c->grows ? c->charged_tokens : 0;
        g->home = x->id;
        g->home_serial = x->serial;
    }
    queue_charge(q, c, now_ns);
    if (q->p->policy == PLACEMENT_CACHE_AWARE)
        index_put(&x->tree, c->blocks, c->n_blocks);
    place_room(x);
}

/* Those that wait for an endpoint which may have room now. */
static struct placement_call *next_parked(struct placement_pool *q, int64_t now_ns)
{
    while (!cox_list_empty(&q->freed)) {
        struct place *x = COX_CONTAINER_OF(q->freed.next, struct place, freed);
        struct placement_call *c = COX_CONTAINER_OF(cox_heap_min(&x->parked), struct placement_call, order);
        struct choice to = { .kind = CHOICE_SEND, .at = x };
        place_hit(x, c, &to.hit_blocks, &to.hit_tokens);
        if (place_fits(x, place_need(x, c, to.hit_tokens))) {
            dispatch(q, c, &to, now_ns);
            return c;
        }
        cox_list_remove(&x->freed);
    }
    return NULL;
}

static struct placement_call *next_in(struct placement_pool *q, int64_t now_ns)
{
    struct placement_call *c;

    queue_age(q, now_ns);
    keep_lapse(q, now_ns);
    if ((c = next_parked(q, now_ns)) != NULL)
        return c;
    while ((c = queue_held(q)) != NULL) {
        struct choice to = choose(q, c, now_ns);
        if (to.kind != CHOICE_SEND)
            break;
        dispatch(q, c, &to, now_ns);
        return c;
    }
    while ((c = placement_queue_first(q)) != NULL) {
        struct choice to = q->p->policy == PLACEMENT_PROGRAM ? choose(q, c, now_ns) : choose_by_policy(q, c);
        if (to.kind == CHOICE_NONE)
            return NULL;
        if (to.kind == CHOICE_SEND) {
            dispatch(q, c, &to, now_ns);
            return c;
        }
        if (to.kind == CHOICE_HOLD)
            queue_hold(q, c, to.until_ns);
        else
            queue_park(q, c, to.at, to.until_ns);
    }
    return NULL;
}

/* When time alone may change something for calls that wait. */
static uint64_t pool_wake_key(const struct placement_pool *q)
{
    const struct cox_heap_node *due = cox_heap_min(&q->due), *lapse = cox_heap_min(&q->lapses);
    uint64_t key = due != NULL ? due->key : UINT64_MAX;

    if (q->n_waiting == 0)
        return UINT64_MAX;
    return lapse != NULL && lapse->key < key ? lapse->key : key;
}

struct placement_call *placement_next(struct placement *p, int64_t now_ns)
{
    p->now_ns = now_ns;
    for (uint32_t i = 0; i < p->n_pools; i++) {
        if (p->pools[i] != NULL && pool_wake_key(p->pools[i]) <= as_key(now_ns))
            pool_wake(p->pools[i]);
    }
    while (!cox_list_empty(&p->ready)) {
        struct placement_pool *q = COX_CONTAINER_OF(p->ready.next, struct placement_pool, ready);
        struct placement_call *c = next_in(q, now_ns);
        cox_list_remove(&q->ready);
        if (c != NULL) {
            cox_list_push_back(&p->ready, &q->ready);
            return c;
        }
    }
    return NULL;
}

void placement_withdraw(struct placement *p, struct placement_call *call)
{
    if (call->state != CALL_QUEUED && call->state != CALL_PRESSING && call->state != CALL_PARKED &&
        call->state != CALL_HELD)
        return;
    struct placement_pool *q = pool_at(p, call->pool);

    struct placement_program *g = call->of_program;

    queue_leave(call, q);
    if (g != NULL && g->n_waiting == 0)
        keep_home(g, p->now_ns);
    call->state = CALL_OVER;
    queue_over(p, call);
    pool_wake(q);
}

/* Its prompt lies in the endpoint's cache now. */
static void prefilled(struct place *x, struct placement_call *c)
{
    x->written_tokens += c->miss_tokens;
    if (c->n_blocks > 0 && !x->removed)
        index_put(&x->tree, c->blocks, c->n_blocks);
}

void placement_first_token(struct placement *p, int64_t now_ns, struct placement_call *call)
{
    struct place *x = place_at(p, call->endpoint);

    p->now_ns = now_ns;
    COX_ASSERT(call->state == CALL_SENT);
    learn_first(x, call, now_ns);
    call->state = CALL_PREFILLED;
    call->first_token_ns = now_ns;
    prefilled(x, call);
    place_room(x);
    pool_wake(x->pool);
}

static void rate_window(struct placement_pool *q, int64_t now_ns, uint64_t tokens)
{
    q->window_tokens += tokens;
    q->window_busy |= q->n_waiting > 0;
    if (now_ns - q->window_ns < RATE_WINDOW_NS)
        return;
    uint64_t rate = muldiv(q->window_tokens, NS_PER_S, (uint64_t)(now_ns - q->window_ns));
    if (q->window_busy)
        q->rate = q->rate == 0 ? rate : q->rate - q->rate / 4 + rate / 4;
    q->window_ns = now_ns;
    q->window_tokens = 0;
    q->window_busy = false;
}

static void program_done(struct place *x, struct placement_call *c, int64_t now_ns,
                         const struct placement_outcome *outcome)
{
    struct placement_program *g = c->of_program;

    g->n_running--;
    if (outcome->answered) {
        uint64_t input = outcome->input_tokens > 0 ? outcome->input_tokens : c->input_tokens;
        uint64_t context = input + outcome->output_tokens;
        g->context_tokens = (uint32_t)(context < UINT32_MAX ? context : UINT32_MAX);
        if (outcome->output_tokens > 0)
            g->mean_output = g->mean_output == 0 ? outcome->output_tokens
                                                 : (g->mean_output * 3 + outcome->output_tokens) / 4;
        if (g->home == x->id)
            g->home_written = x->written_tokens;
    }
    g->last_done_ns = now_ns;
    g->return_ns = g->mean_gap_ns > 0 ? now_ns + g->mean_gap_ns : INT64_MAX;
    keep_home(g, now_ns);
}

/* The endpoint had less than was believed: what is missing, and all that continues it, has been pushed out.
 * Engines count in blocks of their own, so a little less says nothing. */
static void correct(struct place *x, const struct placement_call *c, const struct placement_outcome *outcome)
{
    uint64_t input = outcome->input_tokens > 0 ? outcome->input_tokens : c->input_tokens;

    if (outcome->cached_tokens < 0 || c->n_blocks == 0 || input == 0)
        return;
    uint64_t had = (uint64_t)outcome->cached_tokens;
    if (had + had / 8 + CACHED_SLACK_TOKENS >= c->hit_tokens && !COX_PLANTED("cut-by-rounding"))
        return;
    uint64_t blocks = muldiv(had, c->n_blocks, input);
    index_cut(&x->tree, c->blocks, c->n_blocks, blocks < c->n_blocks ? (uint32_t)blocks : c->n_blocks);
    index_put(&x->tree, c->blocks, c->n_blocks);
}

void placement_done(struct placement *p, int64_t now_ns, struct placement_call *call,
                    const struct placement_outcome *outcome)
{
    struct place *x = place_at(p, call->endpoint);
    struct placement_pool *q = x->pool;

    p->now_ns = now_ns;
    COX_ASSERT(call->state == CALL_SENT || call->state == CALL_PREFILLED);
    learn_done(x, call, now_ns, outcome);
    if (outcome->answered && call->state == CALL_SENT)
        prefilled(x, call);
    x->written_tokens += outcome->output_tokens;
    if (!x->removed && outcome->answered) {
        index_resize(x);
        correct(x, call, outcome);
    }
    if (!COX_PLANTED("credit-not-refunded") || outcome->answered)
        x->charged -= call->charged_tokens;
    x->growing_tokens -= call->grows ? call->charged_tokens : 0;
    x->in_flight--;
    rate_window(q, now_ns, call->charged_tokens);
    uint64_t input = outcome->input_tokens > 0 ? outcome->input_tokens : call->input_tokens;
    queue_settle(q, call, now_ns, outcome->answered ? input : 0, outcome->output_tokens);
    if (call->of_program != NULL)
        program_done(x, call, now_ns, outcome);
    call->state = CALL_OVER;
    queue_over(p, call);
    if (x->removed && x->in_flight == 0)
        place_free(x);
    else
        place_room(x);
    pool_wake(q);
}

int64_t placement_wake_ns(const struct placement *p)
{
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; i < p->n_pools; i++) {
        uint64_t key = p->pools[i] != NULL ? pool_wake_key(p->pools[i]) : UINT64_MAX;
        least = key < least ? key : least;
    }
    return least < INT64_MAX ? (int64_t)least : INT64_MAX;
}

/* ---- programs ---- */

void placement_expect(struct placement *p, int64_t now_ns, uint64_t program, int64_t return_ns)
{
    p->now_ns = now_ns;
    for (uint32_t i = 0; i < p->n_pools; i++) {
        struct placement_program *g = p->pools[i] != NULL ? program_find(p->pools[i], program) : NULL;
        if (g == NULL || g->n_running > 0)
            continue;
        g->return_ns = return_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + return_ns;
        keep_home(g, now_ns);
    }
}

void placement_program_end(struct placement *p, uint64_t program)
{
    for (uint32_t i = 0; i < p->n_pools; i++) {
        struct placement_program *g = p->pools[i] != NULL ? program_find(p->pools[i], program) : NULL;
        if (g == NULL)
            continue;
        keep_drop(g);
        g->return_ns = INT64_MAX;
        if (g->n_running == 0 && g->n_waiting == 0)
            program_free(p, g);
    }
}

/* ---- numbers ---- */

void placement_endpoint_view(const struct placement *p, uint32_t endpoint,
                             struct placement_endpoint_view *ret)
{
    const struct place *x = place_at(p, endpoint);

    *ret = (struct placement_endpoint_view){
        .in_flight = x->in_flight,
        .credit_tokens = x->credit,
        .charged_tokens = x->charged,
        .pending_prefill_tokens = x->pending_prefill,
        .decoding = x->decoding,
        .prefill_tokens_per_s = x->prefill_rate,
        .decode_tokens_per_s = x->decode_rate,
        .cached_blocks = x->tree.n_blocks,
    };
}

void placement_pool_view(const struct placement *p, uint32_t pool, struct placement_pool_view *ret)
{
    const struct placement_pool *q = pool_at(p, pool);

    *ret = (struct placement_pool_view){ .oldest_submitted_ns = INT64_MAX };
    for (int b = 0; b < PLACEMENT_BAND_NR; b++)
        ret->waiting[b] = q->waiting[b];
    if (!cox_list_empty(&q->arrivals))
        ret->oldest_submitted_ns =
            COX_CONTAINER_OF(q->arrivals.next, struct placement_call, link)->submitted_ns;
    ret->wait_estimate_ms = (int64_t)(queue_wait_ns(q, PLACEMENT_BAND_LOW) / (uint64_t)NS_PER_MS);
}
