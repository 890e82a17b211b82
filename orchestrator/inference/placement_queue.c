/* Who is next. Tenants by a counter of the tokens they were given, the least first: deficit round robin
 * without rounds (Shreedhar, Varghese 1995), as the virtual token counter of Sheng et al. 2024. Within one,
 * bands; within a band, first the calls that cannot wait, by the latest moment at which they may be sent,
 * then programs by the service they have attained (Luo et al. 2025). */
#include "placement_inside.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#define PROMOTE_SERVICES 3
#define PROMOTE_MAX_NS (30 * NS_PER_S)
#define PROMOTE_MIN_NS NS_PER_S
#define SERVICE_HALF_LIFE_NS 60000000000ULL
#define SCALE_BITS 20 /* of a doubling of service */

/* ---- attained service, on a scale that decays ----
 *
 * Service s at time t is kept as log2(s) + t / half-life: all of it decays alike, so the order of these
 * numbers stays right while time passes, and nothing has to be sorted anew. The logarithm is linear between
 * powers of two: what counts is that it rises. */

static uint64_t log2_fixed(uint64_t x)
{
    unsigned top = 63u - (unsigned)__builtin_clzll(x | 1);
    uint64_t rest = x - (1ULL << top);

    return ((uint64_t)top << SCALE_BITS) + muldiv(rest, 1ULL << SCALE_BITS, 1ULL << top);
}

static uint64_t exp2_fixed(uint64_t y)
{
    uint64_t top = y >> SCALE_BITS, rest = y & ((1ULL << SCALE_BITS) - 1);

    if (top >= 62)
        return 1ULL << 62;
    return (1ULL << top) + muldiv(rest, 1ULL << top, 1ULL << SCALE_BITS);
}

static uint64_t scale_at(int64_t now_ns)
{
    return muldiv(as_key(now_ns), 1ULL << SCALE_BITS, SERVICE_HALF_LIFE_NS);
}

static uint64_t service_add(uint64_t service, int64_t now_ns, uint64_t tokens)
{
    uint64_t zero = scale_at(now_ns);
    uint64_t have = service > zero ? exp2_fixed(service - zero) : 1;

    return zero + log2_fixed(have + tokens);
}

/* ---- tenants ---- */

void tenant_free(struct placement *p, struct placement_tenant *t)
{
    cox_map64_remove(&t->pool->tenants, t->id);
    cox_heap_remove(&t->pool->turns, &t->turn);
    cox_heap_remove(&t->pool->held_turns, &t->held_turn);
    cox_list_remove(&t->idle);
    cox_heap_fini(&t->held);
    for (int b = 0; b < PLACEMENT_BAND_NR; b++) {
        cox_heap_fini(&t->pressing[b]);
        cox_heap_fini(&t->lines[b]);
        cox_heap_fini(&t->loose[b].calls);
    }
    cox_free(t);
    p->n_tenants--;
}

static struct placement_tenant *tenant_of(struct placement_pool *q, uint64_t id)
{
    struct placement *p = q->p;
    struct placement_tenant *t = cox_map64_get(&q->tenants, id);

    if (t != NULL) {
        cox_list_remove(&t->idle);
        return t;
    }
    while (p->n_tenants >= TENANTS_MAX && !cox_list_empty(&p->idle_tenants))
        tenant_free(p, COX_CONTAINER_OF(p->idle_tenants.next, struct placement_tenant, idle));
    t = COX_NEW(struct placement_tenant);
    t->id = id;
    t->pool = q;
    cox_list_init(&t->idle);
    cox_heap_node_init(&t->turn);
    cox_heap_node_init(&t->held_turn);
    for (uint8_t b = 0; b < PLACEMENT_BAND_NR; b++) {
        t->loose[b].tenant = t;
        t->loose[b].band = b;
        cox_heap_node_init(&t->loose[b].turn);
    }
    cox_map64_set(&q->tenants, id, t);
    p->n_tenants++;
    return t;
}

/* ---- programs ---- */

struct placement_program *program_find(const struct placement_pool *q, uint64_t id)
{
    return id != 0 ? cox_map64_get(&q->programs, id) : NULL;
}

void program_free(struct placement *p, struct placement_program *g)
{
    keep_drop(g);
    cox_map64_remove(&g->pool->programs, g->id);
    cox_list_remove(&g->idle);
    cox_free(g);
    p->n_programs--;
}

static struct placement_program *program_of(struct placement_pool *q, uint64_t id)
{
    struct placement *p = q->p;
    struct placement_program *g = program_find(q, id);

    if (id == 0)
        return NULL;
    if (g != NULL) {
        cox_list_remove(&g->idle);
        return g;
    }
    while (p->n_programs >= PROGRAMS_MAX && !cox_list_empty(&p->idle_programs))
        program_free(p, COX_CONTAINER_OF(p->idle_programs.next, struct placement_program, idle));
    g = COX_NEW(struct placement_program);
    g->id = id;
    g->pool = q;
    g->home = NO_PLACE;
    g->since_ns = p->now_ns;
    g->return_ns = INT64_MAX;
    cox_list_init(&g->idle);
    cox_heap_node_init(&g->kept);
    cox_heap_node_init(&g->lapse);
    cox_map64_set(&q->programs, id, g);
    p->n_programs++;
    return g;
}

/* ---- lines ---- */

static void line_key(struct placement_line *l)
{
    struct cox_heap_node *first = cox_heap_min(&l->calls);
    int64_t since = COX_CONTAINER_OF(first, struct placement_call, order)->submitted_ns;
    uint64_t fresh = scale_at(since);
    uint64_t key = l->program != NULL && l->program->service > fresh ? l->program->service : fresh;

    cox_heap_set(&l->tenant->lines[l->band], &l->turn, key);
}

static struct placement_line *line_of(struct placement_call *c, enum placement_band band)
{
    struct placement_program *g = c->of_program;

    if (g == NULL || (g->lines[band] != NULL && g->lines[band]->tenant != c->of_tenant))
        return &c->of_tenant->loose[band];
    if (g->lines[band] == NULL) {
        struct placement_line *l = COX_NEW(struct placement_line);
        l->program = g;
        l->tenant = c->of_tenant;
        l->band = (uint8_t)band;
        cox_heap_node_init(&l->turn);
        g->lines[band] = l;
    }
    return g->lines[band];
}

static void line_add(struct placement_call *c)
{
    struct placement_line *l = c->of_line = line_of(c, c->band);

    cox_heap_set(&l->calls, &c->order, UINT64_MAX - as_key(c->critical_path_ns));
    if (!cox_heap_has(&l->turn))
        line_key(l);
}

static void line_remove(struct placement_call *c)
{
    struct placement_line *l = c->of_line;

    cox_heap_remove(&l->calls, &c->order);
    if (l->calls.len > 0) {
        if (l->program == NULL)
            line_key(l);
        return;
    }
    cox_heap_remove(&l->tenant->lines[l->band], &l->turn);
    if (l->program != NULL) {
        l->program->lines[l->band] = NULL;
        cox_heap_fini(&l->calls);
        cox_free(l);
    }
}

/* ---- the queue ---- */

static void set_turn(struct placement_tenant *t)
{
    if (t->n_queued > 0)
        cox_heap_set(&t->pool->turns, &t->turn, t->counter);
    else
        cox_heap_remove(&t->pool->turns, &t->turn);
    if (t->held.len > 0)
        cox_heap_set(&t->pool->held_turns, &t->held_turn, t->counter);
    else
        cox_heap_remove(&t->pool->held_turns, &t->held_turn);
}

static void enqueued(struct placement_tenant *t)
{
    if (t->n_queued++ > 0)
        return;
    if (t->counter < t->pool->counter_floor && !COX_PLANTED("fairness-saves-up"))
        t->counter = t->pool->counter_floor;
    set_turn(t);
}

static int64_t promote_after_ns(const struct placement_pool *q)
{
    uint64_t ns = PROMOTE_SERVICES * q->call_ns;

    if (q->call_ns == 0 || ns > (uint64_t)PROMOTE_MAX_NS)
        return PROMOTE_MAX_NS;
    return ns < (uint64_t)PROMOTE_MIN_NS ? PROMOTE_MIN_NS : (int64_t)ns;
}

static int64_t minus(int64_t a, int64_t b) /* no further than the ends */
{
    int64_t r;
    return __builtin_sub_overflow(a, b, &r) ? (b > 0 ? INT64_MIN : INT64_MAX) : r;
}

static bool is_fifo(const struct placement_pool *q)
{
    return q->p->policy != PLACEMENT_PROGRAM;
}

static void press(struct placement_call *c)
{
    c->state = CALL_PRESSING;
    cox_heap_set(&c->of_tenant->pressing[c->rank], &c->order, as_key(c->latest_ns));
}

void queue_add(struct placement_pool *q, struct placement_call *c, int64_t now_ns)
{
    int64_t after = promote_after_ns(q);

    c->of_program = program_of(q, c->program);
    c->of_tenant = tenant_of(q, c->tenant);
    c->of_tenant->n_calls++;
    if (c->of_program != NULL)
        c->of_program->n_waiting++;
    c->rank = (uint8_t)c->band;
    c->latest_ns = c->deadline_ns == INT64_MAX
                       ? now_ns + after
                       : minus(c->deadline_ns, minus(c->critical_path_ns, -(int64_t)q->call_ns));
    c->state = CALL_QUEUED;
    cox_list_push_back(&q->arrivals, &c->link);
    q->waiting[c->band]++;
    q->waiting_tokens[c->band] += call_tokens(c);
    q->n_waiting++;
    if (is_fifo(q)) {
        cox_heap_set(&q->fifo, &c->order, 0);
        return;
    }
    int64_t due_ns = now_ns + after;
    int64_t urgent_ns = c->deadline_ns == INT64_MAX ? INT64_MAX : minus(c->latest_ns, after);
    cox_heap_set(&q->due, &c->due, as_key(urgent_ns < due_ns ? urgent_ns : due_ns));
    line_add(c);
    enqueued(c->of_tenant);
}

void queue_age(struct placement_pool *q, int64_t now_ns)
{
    int64_t after = promote_after_ns(q);
    struct cox_heap_node *n;

    while ((n = cox_heap_min(&q->due)) != NULL && n->key <= as_key(now_ns)) {
        struct placement_call *c = COX_CONTAINER_OF(n, struct placement_call, due);
        if (c->state == CALL_PARKED || c->state == CALL_HELD) {
            queue_unpark(q, c, now_ns);
            continue;
        }
        bool waited = now_ns - c->submitted_ns >= after;
        if (c->state == CALL_QUEUED)
            line_remove(c);
        else
            cox_heap_remove(&c->of_tenant->pressing[c->rank], &c->order);
        if (waited && c->rank > 0 && !COX_PLANTED("no-promotion"))
            c->rank--;
        press(c);
        if (c->rank > 0)
            cox_heap_set(&q->due, &c->due, as_key(now_ns + after));
        else
            cox_heap_remove(&q->due, &c->due);
    }
}

struct placement_call *placement_queue_first(struct placement_pool *q)
{
    if (is_fifo(q)) {
        struct cox_heap_node *n = cox_heap_min(&q->fifo);
        return n != NULL ? COX_CONTAINER_OF(n, struct placement_call, order) : NULL;
    }
    struct cox_heap_node *turn = cox_heap_min(&q->turns);
    if (turn == NULL)
        return NULL;
    struct placement_tenant *t = COX_CONTAINER_OF(turn, struct placement_tenant, turn);
    for (int b = 0; b < PLACEMENT_BAND_NR; b++) {
        struct cox_heap_node *n = cox_heap_min(&t->pressing[b]);
        if (n == NULL && (n = cox_heap_min(&t->lines[b])) != NULL)
            n = cox_heap_min(&COX_CONTAINER_OF(n, struct placement_line, turn)->calls);
        if (n != NULL)
            return COX_CONTAINER_OF(n, struct placement_call, order);
    }
    COX_ASSERT(!"a tenant with nothing in its queue");
    return NULL;
}

static void dequeue(struct placement_pool *q, struct placement_call *c)
{
    if (is_fifo(q)) {
        cox_heap_remove(&q->fifo, &c->order);
        return;
    }
    if (c->state == CALL_QUEUED)
        line_remove(c);
    else
        cox_heap_remove(&c->of_tenant->pressing[c->rank], &c->order);
    c->of_tenant->n_queued--;
    set_turn(c->of_tenant);
}

static void unpark(struct placement_pool *q, struct placement_call *c)
{
    struct place *x = q->p->places[c->endpoint];

    cox_heap_remove(&x->parked, &c->order);
    x->parked_tokens -= call_tokens(c);
    place_room(x);
}

void queue_park(struct placement_pool *q, struct placement_call *c, struct place *at, int64_t until_ns)
{
    dequeue(q, c);
    c->state = CALL_PARKED;
    c->endpoint = at->id;
    c->has_waited_for_home = true;
    cox_heap_set(&at->parked, &c->order, 0);
    at->parked_tokens += call_tokens(c);
    if (until_ns != INT64_MAX)
        cox_heap_set(&q->due, &c->due, as_key(until_ns));
    else
        cox_heap_remove(&q->due, &c->due);
    place_room(at);
}

static void unhold(struct placement_call *c)
{
    cox_heap_remove(&c->of_tenant->held, &c->order);
    c->may_crowd = true;
    set_turn(c->of_tenant);
}

void queue_hold(struct placement_pool *q, struct placement_call *c, int64_t until_ns)
{
    /* Not the least served: who has been put out midway has most of its work behind it, and lets go of its
     * place for good when that is done. */
    int64_t since_ns = c->of_program != NULL ? c->of_program->since_ns : c->submitted_ns;
    int64_t last_ns = c->deadline_ns < INT64_MAX && c->latest_ns < until_ns ? c->latest_ns : until_ns;

    dequeue(q, c);
    c->state = CALL_HELD;
    cox_heap_set(&c->of_tenant->held, &c->order, ((uint64_t)c->band << 60) | (as_key(since_ns) >> 4));
    cox_heap_set(&q->due, &c->due, as_key(last_ns));
    set_turn(c->of_tenant);
}

struct placement_call *queue_held(const struct placement_pool *q)
{
    struct cox_heap_node *turn = cox_heap_min(&q->held_turns);

    if (turn == NULL)
        return NULL;
    turn = cox_heap_min(&COX_CONTAINER_OF(turn, struct placement_tenant, held_turn)->held);
    return COX_CONTAINER_OF(turn, struct placement_call, order);
}

void queue_unpark(struct placement_pool *q, struct placement_call *c, int64_t now_ns)
{
    if (c->state == CALL_HELD)
        unhold(c);
    else
        unpark(q, c);
    cox_heap_remove(&q->due, &c->due);
    if (is_fifo(q)) {
        c->state = CALL_QUEUED;
        cox_heap_set(&q->fifo, &c->order, 0);
        return;
    }
    c->rank = 0;
    if (c->latest_ns > now_ns)
        c->latest_ns = now_ns;
    press(c);
    enqueued(c->of_tenant);
}

void queue_leave(struct placement_call *c, struct placement_pool *q)
{
    if (c->state == CALL_PARKED)
        unpark(q, c);
    else if (c->state == CALL_HELD)
        unhold(c);
    else
        dequeue(q, c);
    cox_heap_remove(&q->due, &c->due);
    cox_list_remove(&c->link);
    q->waiting[c->band]--;
    q->waiting_tokens[c->band] -= call_tokens(c);
    q->n_waiting--;
    if (c->of_program != NULL)
        c->of_program->n_waiting--;
}

/* ---- the books of tenants and programs ---- */

static void tenant_charge(struct placement_tenant *t, int64_t tokens)
{
    if (COX_PLANTED("fair-by-calls"))
        tokens = 1;
    t->counter = tokens < 0 && (uint64_t)-tokens > t->counter ? 0 : t->counter + (uint64_t)tokens;
    if (cox_heap_has(&t->turn) || t->held.len > 0)
        set_turn(t);
}

static void program_charge(struct placement_program *g, int64_t now_ns, uint64_t tokens)
{
    g->service = service_add(g->service, now_ns, tokens);
    for (int b = 0; b < PLACEMENT_BAND_NR; b++) {
        if (g->lines[b] != NULL)
            line_key(g->lines[b]);
    }
}

void queue_charge(struct placement_pool *q, struct placement_call *c, int64_t now_ns)
{
    uint64_t counter = c->of_tenant->counter;

    if (counter > q->counter_floor)
        q->counter_floor = counter;
    c->fair_tokens = (uint64_t)c->input_tokens + 2ULL * c->decode_tokens;
    tenant_charge(c->of_tenant, (int64_t)c->fair_tokens);
    if (c->of_program != NULL)
        program_charge(c->of_program, now_ns, c->input_tokens);
}

void queue_settle(struct placement_pool *q, struct placement_call *c, int64_t now_ns, uint64_t input_tokens,
                  uint64_t output_tokens)
{
    uint64_t used = input_tokens + 2 * output_tokens;

    (void)q;
    tenant_charge(c->of_tenant, (int64_t)used - (int64_t)c->fair_tokens);
    if (c->of_program != NULL)
        program_charge(c->of_program, now_ns, 2 * output_tokens);
}

void queue_over(struct placement *p, struct placement_call *c)
{
    struct placement_program *g = c->of_program;
    struct placement_tenant *t = c->of_tenant;

    if (--t->n_calls == 0)
        cox_list_push_back(&p->idle_tenants, &t->idle);
    if (g != NULL && g->n_waiting == 0 && g->n_running == 0)
        cox_list_push_back(&p->idle_programs, &g->idle);
    c->of_program = NULL;
    c->of_tenant = NULL;
}

uint64_t queue_wait_ns(const struct placement_pool *q, enum placement_band band)
{
    uint64_t tokens = 0;

    for (int b = 0; b <= (int)band; b++)
        tokens += q->waiting_tokens[b];
    return q->rate > 0 ? muldiv(tokens, NS_PER_S, q->rate) : 0;
}
