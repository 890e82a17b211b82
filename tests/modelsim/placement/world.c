#include "world.h"

#include "kv.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <string.h>

enum event_kind { EVENT_ENGINE, EVENT_TURN, EVENT_ARRIVAL, EVENT_SCRAPE, EVENT_WAKE };
struct event {
    struct cox_heap_node node;
    enum event_kind kind;
    uint32_t index;
    struct program *program;
};

struct program { /* or a request of a trace */
    struct cox_list link;
    struct event event;
    struct cox_rng rng;
    uint64_t id;
    uint64_t *blocks;
    uint32_t n_blocks_max;
    uint32_t turn, n_turns, context; /* context: tokens of the prompt of this turn */
    uint32_t output, last_endpoint;
    uint32_t seen_tokens, pooled_tokens; /* of this turn's prompt: what the oracles have */
    int64_t arrived_ns, gaps_ns, expected_ns;
    struct program *parent;    /* that waits for it */
    uint32_t n_branches, came; /* that it waits for; tokens that they have brought */
    uint32_t tenant, class;
    enum placement_band band;
    int64_t deadline_ns; /* of the call */
    bool measured, traced, dated;
    struct placement_call call;
    struct engine_call engine;
    struct world *world;
};

struct world {
    const struct world_config *config;
    struct results *results;
    struct placement *placement;
    uint32_t pool;
    struct engine **engines;
    uint32_t *places, *in_flight; /* in_flight: by the engines' own count */
    uint32_t *index_of;           /* place -> engine */
    struct event *engine_events;
    struct cox_heap events;
    struct event arrival, scrape, wake;
    struct cox_list ended, programs;
    struct cox_rng arrivals;
    struct oracle *oracle;
    int64_t now_ns;
    uint64_t n_programs, n_branches, n_live, n_measured;
    struct kv *shared; /* of all engines, where the cache is ideal */
    size_t next_row;
    double live_sum[4];
    int64_t live_since_ns;
};

static void schedule(struct world *w, struct event *e, int64_t at_ns)
{
    if (at_ns == INT64_MAX)
        cox_heap_remove(&w->events, &e->node);
    else
        cox_heap_set(&w->events, &e->node, (uint64_t)(at_ns > w->now_ns ? at_ns : w->now_ns));
}

static void event_init(struct event *e, enum event_kind kind, uint32_t index, struct program *program)
{
    *e = (struct event){ .kind = kind, .index = index, .program = program };
    cox_heap_node_init(&e->node);
}

#define IDEAL_BLOCKS (1u << 24) /* more than any run computes */

/* How many were in the system, quarter by quarter of the window: whether it grows. */
static void count_live(struct world *w, int change)
{
    const struct world_config *c = w->config;
    int64_t quarter = c->window_ns / 4;

    for (int64_t at = w->live_since_ns; at < w->now_ns;) {
        int64_t in = at - c->warm_ns, end = w->now_ns;
        if (in < 0) {
            end = c->warm_ns < end ? c->warm_ns : end;
        } else if (in < 4 * quarter) {
            int64_t q = in / quarter, stop = c->warm_ns + (q + 1) * quarter;
            end = stop < end ? stop : end;
            w->live_sum[q] += (double)w->n_live * (double)(end - at);
        }
        at = end;
    }
    w->live_since_ns = w->now_ns;
    w->n_live = (uint64_t)((int64_t)w->n_live + change);
}

/* ---- programs ---- */

static uint32_t draw_tokens(struct program *g, uint64_t median, double sigma, uint32_t max)
{
    double n = draw_lognormal(&g->rng, (double)median, sigma);

    return n < 1 ? 1 : n > max ? max : (uint32_t)n;
}

static struct program *program_create(struct world *w, uint64_t id)
{
    struct program *g = COX_NEW(struct program);

    g->world = w;
    g->id = id;
    g->arrived_ns = w->now_ns;
    g->last_endpoint = UINT32_MAX;
    cox_rng_init(&g->rng, mix64(w->config->seed, id));
    event_init(&g->event, EVENT_TURN, 0, g);
    int64_t in = w->now_ns - w->config->warm_ns;
    g->measured = in >= 0 && in < w->config->window_ns;
    cox_list_push_back(&w->programs, &g->link);
    return g;
}

/* The run waits for those that are measured, but not for a tenant who brings more than can be done. */
static bool waited_for(const struct program *g)
{
    return g->measured && !g->parent && !(g->world->config->agents.tenants > 1 && g->class == 0);
}

static void program_begun(struct program *g)
{
    g->world->n_measured += waited_for(g);
    count_live(g->world, 1);
}

static void program_free(struct program *g)
{
    struct world *w = g->world;

    if (!g->traced && (!g->parent || w->config->agents.branches))
        placement_program_end(w->placement, g->id);
    cox_heap_remove(&w->events, &g->event.node);
    cox_list_remove(&g->link);
    if (!g->traced)
        cox_free(g->blocks);
    cox_free(g);
}

static void program_end(struct program *g)
{
    struct world *w = g->world;

    if (g->measured) {
        uint64_t all = (uint64_t)(w->now_ns - g->arrived_ns) / 1000;
        samples_add(&w->results->program, all);
        samples_add(&w->results->model_time, all - (uint64_t)g->gaps_ns / 1000);
        samples_add(&w->results->classes[g->class].program, all);
        w->results->n_programs++;
        w->n_measured -= waited_for(g);
    }
    count_live(w, -1);
    program_free(g);
}

static void ask_oracles(struct program *g, uint32_t n_prompt, uint32_t all)
{
    uint32_t seen = 0, pooled = 0, most = (g->context - 1) / BLOCK_TOKENS;

    if (g->world->config->no_oracles)
        return;
    oracle_call(g->world->oracle, g->blocks, n_prompt, all, &seen, &pooled);
    g->seen_tokens = (seen < most ? seen : most) * BLOCK_TOKENS;
    g->pooled_tokens = (pooled < most ? pooled : most) * BLOCK_TOKENS;
}

static void submit(struct program *g)
{
    struct world *w = g->world;
    struct placement_call *c = &g->call;
    const struct agents *a = &w->config->agents;
    uint32_t n_prompt = g->context / BLOCK_TOKENS;
    int64_t retry_ms = 0;

    n_prompt = n_prompt < g->n_blocks_max ? n_prompt : g->n_blocks_max;
    memset(c, 0, sizeof(*c));
    cox_list_init(&c->link);
    cox_heap_node_init(&c->order);
    c->pool = w->pool;
    c->band = g->band;
    c->tenant = g->tenant + 1;
    c->program = g->traced && !w->config->known_programs ? 0
                 : g->parent && !a->branches             ? g->parent->id
                                                         : g->id;
    if (a->hints)
        c->critical_path_ns = (g->n_turns - g->turn - 1) * (int64_t)(a->gap_ms * 2) * NS_PER_MS;
    c->blocks = g->blocks;
    c->n_blocks = n_prompt;
    c->input_tokens = g->context;
    c->deadline_ns = g->deadline_ns = g->dated ? w->now_ns + (int64_t)a->dated_ms * NS_PER_MS : INT64_MAX;
    uint32_t all = (g->context + g->output) / BLOCK_TOKENS;
    all = all < g->n_blocks_max ? all : g->n_blocks_max;
    g->engine = (struct engine_call){
        .blocks = g->blocks, .n_blocks = all, .input_tokens = g->context, .output_tokens = g->output
    };
    ask_oracles(g, n_prompt, all);
    if (placement_submit(w->placement, w->now_ns, c, &retry_ms) != COX_OK) {
        w->results->n_refused++;
        w->results->classes[g->class].n_late += g->measured && g->dated;
        schedule(w, &g->event, w->now_ns + (retry_ms > 0 ? retry_ms : 1) * NS_PER_MS);
    }
}

/* By another generator, so that the work is the same with and without classes. */
static void draw_class(struct program *g)
{
    const struct agents *a = &g->world->config->agents;
    struct cox_rng rng;

    cox_rng_init(&rng, mix64(~g->world->config->seed, g->id));
    double u = draw_unit(&rng);
    if (a->tenants > 1) {
        double all = a->heavy + (double)a->tenants - 1;
        g->tenant = u * all <= a->heavy ? 0 : 1 + (uint32_t)cox_rng_below(&rng, a->tenants - 1);
        g->class = g->tenant > 0;
    } else if (a->bands) {
        g->band = u <= 0.2 ? PLACEMENT_BAND_HIGH : u <= 0.8 ? PLACEMENT_BAND_NORMAL : PLACEMENT_BAND_LOW;
        g->class = g->band;
    } else if (a->dated_ms > 0) {
        g->dated = u <= 0.2;
        g->class = !g->dated;
    }
}

static void agent_init(struct program *g, uint64_t kind)
{
    const struct agents *a = &g->world->config->agents;
    uint32_t n_system = (uint32_t)a->system_tokens / BLOCK_TOKENS;

    g->n_blocks_max = (uint32_t)(a->context_max + 2 * 8192) / BLOCK_TOKENS;
    g->blocks = cox_calloc(g->n_blocks_max, sizeof(*g->blocks));
    for (uint32_t i = 0; i < g->n_blocks_max; i++)
        g->blocks[i] = i < n_system ? mix64(~kind, i) : mix64(g->id, i);
    uint64_t least = g->parent ? a->branch_turns_min : a->turns_min;
    uint64_t most = g->parent ? a->branch_turns_max : a->turns_max;
    g->n_turns = (uint32_t)(least + cox_rng_below(&g->rng, most - least + 1));
    g->context = (uint32_t)a->system_tokens + draw_tokens(g, a->task_tokens, a->task_sigma, 8192);
    g->output = draw_tokens(g, a->output_tokens, a->output_sigma, 4096);
}

static uint64_t draw_kind(struct program *g)
{
    const struct agents *a = &g->world->config->agents;

    return a->kinds > 0 ? cox_rng_below(&g->rng, a->kinds) : g->id;
}

static void agent_begin(struct world *w)
{
    struct program *g = program_create(w, ++w->n_programs);

    g->band = PLACEMENT_BAND_NORMAL;
    draw_class(g);
    agent_init(g, draw_kind(g));
    program_begun(g);
    submit(g);
}

#define BRANCH_IDS (UINT64_C(1) << 40) /* above those of programs */

static void fan_out(struct program *g)
{
    struct world *w = g->world;
    const struct agents *a = &w->config->agents;

    g->n_branches = (uint32_t)(a->fan_min + cox_rng_below(&g->rng, a->fan_max - a->fan_min + 1));
    g->came = 0;
    for (uint32_t i = 0, n = g->n_branches; i < n; i++) {
        /* By the program, not by the order of events: the same under each policy. */
        struct program *b = program_create(w, BRANCH_IDS + (g->id << 16) + g->turn * 256 + i);
        b->parent = g;
        b->measured = g->measured;
        b->band = g->band;
        b->tenant = g->tenant;
        b->class = g->class;
        b->dated = g->dated;
        agent_init(b, 1000000 + draw_kind(b));
        submit(b);
    }
}

static void branch_end(struct program *b, uint32_t answer)
{
    struct program *g = b->parent;

    g->came += answer;
    program_free(b);
    if (--g->n_branches > 0)
        return;
    uint64_t context = (uint64_t)g->context + g->came, most = g->world->config->agents.context_max;
    g->context = (uint32_t)(context < most ? context : most);
    schedule(g->world, &g->event, g->world->now_ns);
}

/* To the next turn's call, which has all of this one, its answer and the tool's result. How long the tool
 * takes; negative: there is no such turn. */
static int64_t agent_grow(struct program *g)
{
    const struct agents *a = &g->world->config->agents;
    uint32_t result = draw_tokens(g, a->result_tokens, a->result_sigma, 8192), output = g->output;
    double gap_ms = draw_lognormal(&g->rng, (double)a->gap_ms, a->gap_sigma);

    g->expected_ns = (int64_t)(gap_ms * draw_lognormal(&g->rng, 1, g->world->config->expect_sigma) * 1e6);
    g->output = draw_tokens(g, a->output_tokens, a->output_sigma, 4096);
    if (++g->turn >= g->n_turns || g->context + output + result + g->output > a->context_max)
        return -1;
    g->context += output + result;
    return (int64_t)(gap_ms * 1e6);
}

static void agent_next(struct program *g)
{
    struct world *w = g->world;
    const struct agents *a = &w->config->agents;
    uint32_t answer = g->output;
    int64_t gap_ns = agent_grow(g);

    if (gap_ns < 0) {
        if (g->parent)
            branch_end(g, answer);
        else
            program_end(g);
        return;
    }
    if (a->fan_max > 0 && !g->parent && g->turn % a->fan_every == 0) {
        fan_out(g);
        return;
    }
    g->gaps_ns += gap_ns;
    if (w->config->expects)
        placement_expect(w->placement, w->now_ns, g->parent && !a->branches ? g->parent->id : g->id,
                         g->expected_ns);
    schedule(w, &g->event, w->now_ns + gap_ns);
}

static void trace_begin(struct world *w, const struct trace_row *row)
{
    struct program *g = program_create(w, row->program);

    g->traced = true;
    g->blocks = row->blocks;
    g->n_blocks_max = row->n_blocks;
    g->context = row->input_tokens;
    g->output = row->output_tokens;
    g->band = PLACEMENT_BAND_NORMAL;
    program_begun(g);
    submit(g);
}

static void arrive(struct world *w)
{
    const struct world_config *c = w->config;

    if (!c->trace) {
        agent_begin(w);
        schedule(w, &w->arrival, w->now_ns + (int64_t)(draw_exponential(&w->arrivals, 1 / c->rate) * 1e9));
        return;
    }
    trace_begin(w, &c->trace->rows[w->next_row++]);
    if (w->next_row < c->trace->n_rows)
        schedule(w, &w->arrival, (int64_t)((double)c->trace->rows[w->next_row].at_ns / c->rate));
}

/* ---- engines ---- */

static void on_tokens(void *user, struct engine_call *call, int64_t now_ns, uint32_t n)
{
    struct program *g = COX_CONTAINER_OF(call, struct program, engine);
    struct world *w = user;

    (void)n;
    placement_first_token(w->placement, now_ns, &g->call);
    if (g->measured)
        samples_add(&w->results->ttft, (uint64_t)(now_ns - g->call.submitted_ns) / 1000);
}

static void on_end(void *user, struct engine_call *call, int64_t now_ns)
{
    struct program *g = COX_CONTAINER_OF(call, struct program, engine);
    struct world *w = user;

    (void)now_ns;
    cox_list_remove(&g->link);
    cox_list_push_back(&w->ended, &g->link);
}

static const struct engine_events engine_events = { .on_tokens = on_tokens, .on_end = on_end };

static void end_calls(struct world *w)
{
    while (!cox_list_empty(&w->ended)) {
        struct program *g = COX_CONTAINER_OF(w->ended.next, struct program, link);
        struct placement_outcome outcome = { .answered = true,
                                             .input_tokens = g->engine.input_tokens,
                                             .cached_tokens = g->engine.cached_tokens,
                                             .output_tokens = g->engine.generated };
        struct results *r = w->results;

        cox_list_remove(&g->link);
        cox_list_push_back(&w->programs, &g->link);
        uint32_t endpoint = g->call.endpoint;
        const struct placement_call c = g->call;
        w->in_flight[w->index_of[endpoint]]--;
        placement_done(w->placement, w->now_ns, &g->call, &outcome);
        if (g->measured) {
            r->n_calls++;
            r->input_tokens += g->engine.input_tokens;
            r->cached_tokens += g->engine.cached_tokens;
            r->seen_tokens += g->seen_tokens;
            r->pooled_tokens += g->pooled_tokens;
            r->output_tokens += g->engine.generated;
            r->moves += g->turn > 0 && endpoint != g->last_endpoint;
            samples_add(&r->call, (uint64_t)(w->now_ns - c.submitted_ns) / 1000);
            samples_add(&r->classes[g->class].call, (uint64_t)(w->now_ns - c.submitted_ns) / 1000);
            r->classes[g->class].n_late += w->now_ns > g->deadline_ns;
            r->queued_s += (double)(c.dispatched_ns - c.submitted_ns) / 1e9;
            r->prefill_s += (double)(g->engine.first_ns - c.dispatched_ns) / 1e9;
            r->decode_s += (double)(w->now_ns - g->engine.first_ns) / 1e9;
        }
        g->last_endpoint = endpoint;
        if (g->traced)
            program_end(g);
        else
            agent_next(g);
    }
}

static void dispatch(struct world *w)
{
    for (;;) {
        int64_t begun = w->config->timed ? cox_clock_mono_ns() : 0;
        struct placement_call *c = placement_next(w->placement, w->now_ns);
        if (w->config->timed && c)
            samples_add(&w->results->decision_ns, (uint64_t)(cox_clock_mono_ns() - begun));
        if (!c)
            break;
        struct program *g = COX_CONTAINER_OF(c, struct program, call);
        uint32_t i = w->index_of[c->endpoint];
        w->in_flight[i]++;
        if (w->config->in_flight_max > 0 && w->in_flight[i] > w->config->in_flight_max)
            w->results->credit_exceeded++;
        enum cox_err err = engine_submit(w->engines[i], w->now_ns, &g->engine);
        COX_ASSERT(err == COX_OK);
        schedule(w, &w->engine_events[i], engine_next_ns(w->engines[i]));
    }
    schedule(w, &w->wake, placement_wake_ns(w->placement));
}

static void scrape(struct world *w)
{
    struct engine_stats n;

    for (uint32_t i = 0; i < w->config->n_endpoints; i++) {
        engine_stats(w->engines[i], &n);
        struct placement_signals s = { .running = (int32_t)n.running,
                                       .waiting = (int32_t)n.waiting,
                                       .kv_used_permille =
                                           (int32_t)((uint64_t)n.kv_held * 1000 / n.kv_blocks),
                                       .kv_tokens = (uint64_t)n.kv_blocks * BLOCK_TOKENS };
        placement_endpoint_signals(w->placement, w->places[i], w->now_ns, &s);
    }
    schedule(w, &w->scrape, w->now_ns + w->config->scrape_ns);
}

/* ---- the run ---- */

static void world_init(struct world *w, const struct world_config *c, struct results *r)
{
    struct placement_config placement = { .policy = c->policy, .seed = c->seed };
    struct placement_limits limits = { .in_flight_max = c->in_flight_max };
    struct engine_config engine = c->engine;

    memset(w, 0, sizeof(*w));
    memset(r, 0, sizeof(*r));
    w->config = c;
    w->results = r;
    cox_list_init(&w->ended);
    cox_list_init(&w->programs);
    w->placement = placement_create(&placement);
    if (c->ideal != IDEAL_NOT) { /* what runs at once is bounded as ever, by the credit */
        limits.kv_tokens = c->engine.kv_tokens;
        uint64_t blocks = c->n_endpoints * (c->engine.kv_tokens / engine.block_tokens);
        blocks = c->ideal == IDEAL_POOLED && blocks < IDEAL_BLOCKS ? blocks : IDEAL_BLOCKS;
        engine.kv_tokens = blocks * engine.block_tokens;
        engine.kv = w->shared = kv_create((uint32_t)blocks);
    }
    w->pool = placement_pool_add(w->placement);
    w->engines = cox_calloc(c->n_endpoints, sizeof(struct engine *));
    w->places = cox_calloc(c->n_endpoints, sizeof(uint32_t));
    w->in_flight = cox_calloc(c->n_endpoints, sizeof(uint32_t));
    w->index_of = cox_calloc(c->n_endpoints + 1, sizeof(uint32_t));
    w->engine_events = cox_calloc(c->n_endpoints, sizeof(*w->engine_events));
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        w->engines[i] = engine_create(&engine, &engine_events, w);
        w->places[i] = placement_endpoint_add(w->placement, w->pool, &limits);
        COX_ASSERT(w->places[i] <= c->n_endpoints);
        w->index_of[w->places[i]] = i;
        event_init(&w->engine_events[i], EVENT_ENGINE, i, NULL);
    }
    uint64_t blocks = c->engine.kv_tokens / BLOCK_TOKENS * c->n_endpoints;
    w->oracle = oracle_create(blocks < UINT32_MAX / 2 ? (uint32_t)blocks : UINT32_MAX / 2);
    cox_rng_init(&w->arrivals, mix64(c->seed, 0));
    event_init(&w->arrival, EVENT_ARRIVAL, 0, NULL);
    event_init(&w->scrape, EVENT_SCRAPE, 0, NULL);
    event_init(&w->wake, EVENT_WAKE, 0, NULL);
    schedule(w, &w->arrival, 0);
    schedule(w, &w->scrape, 0);
}

static void handle(struct world *w, struct event *e)
{
    switch (e->kind) {
    case EVENT_ENGINE:
        engine_advance(w->engines[e->index], w->now_ns);
        schedule(w, e, engine_next_ns(w->engines[e->index]));
        end_calls(w);
        break;
    case EVENT_TURN:
        submit(e->program);
        break;
    case EVENT_ARRIVAL:
        arrive(w);
        break;
    case EVENT_SCRAPE:
        scrape(w);
        break;
    case EVENT_WAKE:
        break;
    }
}

static void world_fini(struct world *w)
{
    struct results *r = w->results;
    struct engine_stats n;

    count_live(w, 0);
    for (int i = 0; i < 4; i++)
        r->in_system[i] = w->live_sum[i] / ((double)w->config->window_ns / 4);
    for (uint32_t i = 0; i < w->config->n_endpoints; i++) {
        engine_stats(w->engines[i], &n);
        r->busy += w->now_ns > 0 ? (double)n.busy_ns / (double)w->now_ns / w->config->n_endpoints : 0;
        r->n_preemptions += n.preemptions;
        r->wasted_tokens += n.computed_tokens > n.prompt_tokens - n.cached_tokens
                                ? n.computed_tokens - (n.prompt_tokens - n.cached_tokens)
                                : 0;
    }
    placement_destroy(w->placement);
    COX_LIST_FOR_EACH (it, &w->programs) {
        struct program *g = COX_CONTAINER_OF(it, struct program, link);
        if (g->measured && !g->parent) { /* as long as it has taken so far: less than it would have */
            samples_add(&r->program, (uint64_t)(w->now_ns - g->arrived_ns) / 1000);
            /* Of the gap that it is in, the rest has not been yet. */
            bool in_gap = cox_heap_has(&g->event.node);
            int64_t rest = in_gap ? (int64_t)g->event.node.key - w->now_ns : 0;
            samples_add(&r->model_time, (uint64_t)(w->now_ns - g->arrived_ns - g->gaps_ns + rest) / 1000);
            r->n_unfinished++;
            samples_add(&r->classes[g->class].program, (uint64_t)(w->now_ns - g->arrived_ns) / 1000);
            r->classes[g->class].n_unfinished++;
        }
        if (!g->traced)
            cox_free(g->blocks);
        cox_free(g->engine.table);
        g->engine.table = NULL;
    }
    for (uint32_t i = 0; i < w->config->n_endpoints; i++)
        engine_destroy(w->engines[i]);
    cox_heap_fini(&w->events); /* it lets go of programs' events, so it goes before them */
    COX_LIST_FOR_EACH (it, &w->programs)
        cox_free(COX_CONTAINER_OF(it, struct program, link));
    kv_destroy(w->shared);
    oracle_destroy(w->oracle);
    cox_free(w->engines);
    cox_free(w->places);
    cox_free(w->in_flight);
    cox_free(w->index_of);
    cox_free(w->engine_events);
}

void world_run(const struct world_config *config, struct results *ret)
{
    struct world w;
    int64_t begun = cox_clock_mono_ns(), window_end = config->warm_ns + config->window_ns;

    world_init(&w, config, ret);
    for (;;) {
        struct cox_heap_node *node = cox_heap_min(&w.events);
        if (!node || (int64_t)node->key > config->limit_ns)
            break;
        w.now_ns = (int64_t)node->key;
        cox_heap_remove(&w.events, node);
        handle(&w, COX_CONTAINER_OF(node, struct event, node));
        dispatch(&w);
        if (w.now_ns > window_end && w.n_measured == 0)
            break;
    }
    ret->virtual_s = (double)w.now_ns / 1e9;
    world_fini(&w);
    ret->wall_s = (double)(cox_clock_mono_ns() - begun) / 1e9;
}

void results_fini(struct results *r)
{
    samples_fini(&r->ttft);
    samples_fini(&r->call);
    samples_fini(&r->program);
    samples_fini(&r->model_time);
    samples_fini(&r->decision_ns);
    for (unsigned i = 0; i < CLASSES; i++) {
        samples_fini(&r->classes[i].call);
        samples_fini(&r->classes[i].program);
    }
}

/* ---- what can be done at most ---- */

#define CAPACITY_PROGRAMS 4000u

double world_capacity(const struct world_config *config)
{
    const struct engine_config *e = &config->engine;
    const struct agents *a = &config->agents;
    struct world w = { .config = config };
    double seconds = 0, decoded = 0, contexts = 0;

    cox_list_init(&w.programs);
    for (uint64_t id = 1; id <= CAPACITY_PROGRAMS; id++) {
        struct program *g = program_create(&w, id);
        agent_init(g, draw_kind(g));
        double there = (double)a->system_tokens;
        do {
            double fresh = g->context - there;
            seconds += fresh / (double)e->prefill_tokens_per_s +
                       fresh * (there + fresh / 2) * (double)e->prefill_attention_ps / 1e12 +
                       g->output * ((double)e->decode_us / 1e6 +
                                    (g->context + g->output / 2.0) * (double)e->decode_attention_ns / 1e9);
            decoded += g->output;
            contexts += (double)g->output * (g->context + g->output);
            there = g->context + g->output;
        } while (agent_grow(g) >= 0);
        cox_list_remove(&g->link);
        cox_free(g->blocks);
        cox_free(g);
    }
    double at_once = (double)e->kv_tokens * decoded / contexts;
    at_once = at_once < (double)e->max_num_seqs ? at_once : (double)e->max_num_seqs;
    seconds += decoded * (double)e->step_us / 1e6 / at_once;
    return config->n_endpoints * CAPACITY_PROGRAMS / seconds;
}
