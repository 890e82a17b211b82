#include "engine.h"

#include "kv.h"

#include "cox/base/alloc.h"

/* Where these come from: README.md. */
const struct engine_profile engine_profiles[] = {
    { "h100-llama-8b",
      "Llama 3.1 8B, BF16, vLLM, one H100",
      { .step_us = 6500,
        .prefill_tokens_per_s = 30000,
        .prefill_attention_ps = 1000,
        .decode_us = 25,
        .decode_attention_ns = 60,
        .kv_tokens = 430000,
        .block_tokens = 16,
        .max_num_seqs = 256,
        .max_batched_tokens = 8192,
        .queue_max = 100000,
        .speed_permille = 1000,
        .cache = true } },
    { "h100x4-llama-70b",
      "Llama 3.1 70B, BF16, vLLM, four H100, tensor parallel",
      { .step_us = 15000,
        .prefill_tokens_per_s = 9000,
        .prefill_attention_ps = 1500,
        .decode_us = 60,
        .decode_attention_ns = 40,
        .kv_tokens = 400000,
        .block_tokens = 16,
        .max_num_seqs = 256,
        .max_batched_tokens = 8192,
        .queue_max = 100000,
        .speed_permille = 1000,
        .cache = true } },
};
const unsigned engine_n_profiles = sizeof(engine_profiles) / sizeof(engine_profiles[0]);

struct engine {
    struct engine_config config;
    const struct engine_events *events;
    void *user;
    struct kv *kv;
    struct cox_list running, waiting; /* in the order in which they came in */
    uint32_t n_running, n_waiting;
    uint32_t factor_permille;

    /* The steps under way: `leap` of them, the first takes step_ns, each further one growth_ns more. */
    uint32_t leap; /* 0: none */
    int64_t step_ns, growth_ns;
    int64_t begun_ns, end_ns;
    int64_t wake_ns; /* when none is under way */

    struct engine_stats stats;
};

struct engine *engine_create(const struct engine_config *config, const struct engine_events *events,
                             void *user)
{
    struct engine *e = COX_NEW(struct engine);

    e->config = *config;
    e->events = events;
    e->user = user;
    COX_ASSERT(config->block_tokens > 0 && config->speed_permille > 0 && config->prefill_tokens_per_s > 0);
    e->kv = config->kv ? config->kv : kv_create((uint32_t)(config->kv_tokens / config->block_tokens));
    cox_list_init(&e->running);
    cox_list_init(&e->waiting);
    e->factor_permille = 1000;
    e->wake_ns = INT64_MAX;
    return e;
}

static struct engine_call *call_of(struct cox_list *link)
{
    return COX_CONTAINER_OF(link, struct engine_call, link);
}

static void free_table(struct engine_call *c)
{
    cox_free(c->table);
    c->table = NULL;
    c->n_table = c->cap_table = 0;
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    COX_LIST_FOR_EACH (it, &e->running)
        free_table(call_of(it));
    COX_LIST_FOR_EACH (it, &e->waiting)
        free_table(call_of(it));
    if (!e->config.kv)
        kv_destroy(e->kv);
    cox_free(e);
}

/* ---- blocks ---- */

static uint32_t blocks_for(const struct engine *e, uint64_t tokens)
{
    return (uint32_t)((tokens + e->config.block_tokens - 1) / e->config.block_tokens);
}

static void table_push(struct engine_call *c, uint32_t block)
{
    if (c->n_table == c->cap_table) {
        c->cap_table = c->cap_table ? c->cap_table * 2 : 16;
        c->table = cox_realloc(c->table, c->cap_table, sizeof(*c->table));
    }
    c->table[c->n_table++] = block;
}

/* Last first, so that of a prompt the end is evicted before the beginning that it is useless without. */
static void release_blocks(struct engine *e, struct engine_call *c)
{
    while (c->n_table > 0)
        kv_release(e->kv, c->table[--c->n_table]);
    c->computed = 0;
    c->n_named = 0;
}

/* Room for `tokens` of its context; false, and nothing taken, when there is none. */
static bool grow_blocks(struct engine *e, struct engine_call *c, uint64_t tokens)
{
    uint32_t want = blocks_for(e, tokens);

    if (want > c->n_table && want - c->n_table > kv_available(e->kv))
        return false;
    while (c->n_table < want)
        table_push(c, kv_take(e->kv));
    return true;
}

static void name_blocks(struct engine *e, struct engine_call *c)
{
    uint32_t whole = c->computed / (uint32_t)e->config.block_tokens;

    if (!e->config.cache)
        return;
    for (; c->n_named < whole && c->n_named < c->n_blocks; c->n_named++)
        kv_name(e->kv, c->table[c->n_named], c->blocks[c->n_named]);
}

/* Takes what the cache has of it, but for the last token (that has to be computed to go on from), and room
 * for the next chunk of at most `budget` tokens. 0, and nothing is touched, when there is no room: those who
 * wait do not keep alive what others could evict. */
static uint32_t enter_cache(struct engine *e, struct engine_call *c, uint64_t budget)
{
    uint32_t all = c->input_tokens + c->generated, size = (uint32_t)e->config.block_tokens;
    uint32_t most = (all - 1) / size, hits = 0, idle_hits = 0;
    bool idle = false;

    most = e->config.cache ? most : 0;
    while (hits < most && hits < c->n_blocks && kv_has(e->kv, c->blocks[hits], &idle)) {
        idle_hits += idle;
        hits++;
    }
    uint32_t hit = hits * size, chunk = all - hit < budget ? all - hit : (uint32_t)budget;
    if (blocks_for(e, (uint64_t)hit + chunk) - hits + idle_hits > kv_available(e->kv))
        return 0;
    for (uint32_t i = 0; i < hits; i++)
        table_push(c, kv_hold(e->kv, c->blocks[i]));
    c->n_named = hits;
    c->computed = hit;
    bool room = grow_blocks(e, c, (uint64_t)hit + chunk);
    COX_ASSERT(room);
    return chunk;
}

/* ---- a step ---- */

struct work {
    uint64_t budget; /* tokens left */
    uint64_t prefill, decoding, context;
    uint64_t attention; /* pairs of tokens */
};

static uint32_t tokens_to_go(const struct engine_call *c)
{
    return c->input_tokens + c->generated - c->computed;
}

static void plan_call(struct work *w, struct engine_call *c, uint32_t chunk)
{
    c->chunk = chunk;
    w->budget -= chunk;
    if (c->generated > 0 && tokens_to_go(c) == 1) {
        w->decoding++;
        w->context += c->computed;
        return;
    }
    w->prefill += chunk;
    w->attention += (uint64_t)chunk * (c->computed + chunk / 2);
}

static void unplan_call(struct work *w, struct engine_call *c)
{
    if (c->chunk == 0)
        return;
    w->budget += c->chunk;
    if (c->generated > 0 && tokens_to_go(c) == 1) {
        w->decoding--;
        w->context -= c->computed;
    } else {
        w->prefill -= c->chunk;
        w->attention -= (uint64_t)c->chunk * (c->computed + c->chunk / 2);
    }
    c->chunk = 0;
}

static void preempt(struct engine *e, struct work *w, struct engine_call *c)
{
    unplan_call(w, c);
    release_blocks(e, c);
    cox_list_remove(&c->link);
    cox_list_push_front(&e->waiting, &c->link);
    c->state = ENGINE_WAITS;
    e->n_running--;
    e->n_waiting++;
    e->stats.preemptions++;
}

/* Those that run come first. False: somebody had to go back, so nobody new comes in. */
static bool plan_running(struct engine *e, struct work *w)
{
    bool all = true;

    COX_LIST_FOR_EACH (it, &e->running)
        call_of(it)->chunk = 0;
    for (struct cox_list *it = e->running.next; it != &e->running && w->budget > 0;) {
        struct engine_call *c = call_of(it);
        uint32_t chunk = tokens_to_go(c) < w->budget ? tokens_to_go(c) : (uint32_t)w->budget;
        bool gone = false;

        while (!gone && !grow_blocks(e, c, (uint64_t)c->computed + chunk)) {
            struct engine_call *last = call_of(e->running.prev);
            gone = last == c;
            preempt(e, w, last);
            all = false;
        }
        if (gone)
            break;
        plan_call(w, c, chunk);
        it = it->next;
    }
    return all;
}

static void plan_waiting(struct engine *e, struct work *w)
{
    while (w->budget > 0 && e->n_waiting > 0 && e->n_running < e->config.max_num_seqs) {
        struct engine_call *c = call_of(e->waiting.next);

        uint32_t chunk = enter_cache(e, c, w->budget);

        if (chunk == 0)
            return;
        cox_list_remove(&c->link);
        cox_list_push_back(&e->running, &c->link);
        c->state = ENGINE_RUNS;
        e->n_waiting--;
        e->n_running++;
        if (!c->admitted) {
            c->admitted = true;
            c->cached_tokens = c->computed;
            e->stats.prompt_tokens += c->input_tokens;
            e->stats.cached_tokens += c->computed;
        }
        plan_call(w, c, chunk);
    }
}

static int64_t scaled(const struct engine *e, uint64_t ps)
{
    double ns = (double)ps / 1000.0 * (double)e->factor_permille / (double)e->config.speed_permille;

    return (int64_t)ns;
}

/* How many steps can go by with nothing to tell: all decode, nobody ends before the last, blocks suffice. */
static uint32_t quiet_steps(const struct engine *e)
{
    uint64_t steps = UINT32_MAX, need;

    COX_LIST_FOR_EACH (it, &e->running) {
        const struct engine_call *c = call_of(it);
        uint32_t left = c->output_tokens - c->generated;
        steps = left < steps ? left : steps;
    }
    for (;; steps = steps / 2) {
        if (steps <= 1)
            return 1;
        need = 0;
        COX_LIST_FOR_EACH (it, &e->running) {
            const struct engine_call *c = call_of(it);
            need += blocks_for(e, c->computed + steps) - c->n_table;
        }
        if (need <= kv_available(e->kv))
            return (uint32_t)steps;
    }
}

static int64_t end_of(const struct engine *e, int64_t steps)
{
    return e->begun_ns + steps * e->step_ns + steps * (steps - 1) / 2 * e->growth_ns;
}

static void begin_step(struct engine *e, int64_t now_ns)
{
    struct work w = { .budget = e->config.max_batched_tokens };
    const struct engine_config *g = &e->config;

    bool all = plan_running(e, &w);
    if (all)
        plan_waiting(e, &w);
    e->leap = 0;
    e->wake_ns = INT64_MAX;
    if (w.budget == g->max_batched_tokens)
        return;
    e->step_ns = scaled(e, g->step_us * 1000000 + w.prefill * (1000000000000 / g->prefill_tokens_per_s) +
                               w.attention * g->prefill_attention_ps + w.decoding * g->decode_us * 1000000 +
                               w.context * g->decode_attention_ns * 1000);
    e->step_ns = e->step_ns > 0 ? e->step_ns : 1; /* time goes on even where nothing costs anything */
    e->growth_ns = 0;
    e->leap = 1;
    if (g->quiet && all && w.prefill == 0 && w.budget > 0) {
        e->leap = quiet_steps(e);
        e->growth_ns = scaled(e, w.decoding * g->decode_attention_ns * 1000);
    }
    e->begun_ns = now_ns;
    e->end_ns = end_of(e, e->leap);
}

static void end_call(struct engine *e, struct engine_call *c)
{
    cox_list_remove(&c->link);
    if (c->state == ENGINE_RUNS)
        e->n_running--;
    else
        e->n_waiting--;
    c->state = ENGINE_OUT;
    release_blocks(e, c);
    free_table(c);
}

/* `steps` of those under way have ended at `now_ns`. */
static void end_steps(struct engine *e, uint32_t steps, int64_t now_ns)
{
    e->stats.steps += steps;
    e->stats.busy_ns += (uint64_t)(now_ns - e->begun_ns);
    /* What the first of them needs was there before it began. All that the further ones need was taken before
     * anybody ended with the last. */
    for (struct cox_list *it = e->running.next; steps > 1 && it != &e->running; it = it->next) {
        bool room = grow_blocks(e, call_of(it), (uint64_t)call_of(it)->computed + steps);
        COX_ASSERT(room);
    }
    COX_LIST_FOR_EACH (it, &e->running) {
        struct engine_call *c = call_of(it);

        if (c->chunk == 0)
            continue;
        if (c->generated == 0 || tokens_to_go(c) > 1)
            e->stats.computed_tokens += c->chunk;
        c->computed += c->chunk + (steps - 1);
        name_blocks(e, c);
        if (c->computed < c->input_tokens + c->generated + (steps - 1))
            continue;
        c->generated += steps;
        e->stats.generated_tokens += steps;
        if (c->generated == 1)
            c->first_ns = now_ns;
        if (c->generated == 1 || !e->config.quiet)
            e->events->on_tokens(e->user, c, now_ns, steps);
        if (c->generated >= c->output_tokens) {
            end_call(e, c);
            e->events->on_end(e->user, c, now_ns);
        }
    }
}

void engine_advance(struct engine *e, int64_t now_ns)
{
    for (;;) {
        if (e->leap > 0) {
            if (e->end_ns > now_ns)
                return;
            end_steps(e, e->leap, e->end_ns);
            begin_step(e, e->end_ns);
        } else {
            if (e->wake_ns > now_ns)
                return;
            begin_step(e, e->wake_ns);
            if (e->leap == 0)
                return;
        }
    }
}

/* Something changes at `now_ns`: of a leap, the steps that have ended by then are done, and one goes on. */
static void settle(struct engine *e, int64_t now_ns)
{
    if (e->leap > 0 || e->wake_ns < now_ns) /* what wakes now may be joined by what comes now */
        engine_advance(e, now_ns);
    uint32_t low = 0, high = e->leap;
    if (e->leap <= 1)
        return;
    while (low + 1 < high) { /* the most that have ended: `high` have not */
        uint32_t middle = low + (high - low) / 2;
        if (end_of(e, middle) <= now_ns)
            low = middle;
        else
            high = middle;
    }
    if (low > 0) {
        int64_t at = end_of(e, low);
        end_steps(e, low, at);
        e->step_ns += (int64_t)low * e->growth_ns;
        e->begun_ns = at;
        COX_LIST_FOR_EACH (it, &e->running) {
            bool room = grow_blocks(e, call_of(it), (uint64_t)call_of(it)->computed + 1);
            COX_ASSERT(room);
        }
    }
    e->leap = 1;
    e->end_ns = e->begun_ns + e->step_ns;
}

enum cox_err engine_submit(struct engine *e, int64_t now_ns, struct engine_call *call)
{
    uint64_t most = (uint64_t)call->input_tokens + call->output_tokens;

    COX_ASSERT(call->input_tokens > 0 && call->output_tokens > 0 && call->state == ENGINE_OUT);
    if (blocks_for(e, most) > e->config.kv_tokens / e->config.block_tokens)
        return COX_ERR_INVALID;
    settle(e, now_ns);
    if (e->config.queue_max > 0 && e->n_waiting >= e->config.queue_max)
        return COX_ERR_FULL;
    call->submitted_ns = now_ns;
    call->state = ENGINE_WAITS;
    cox_list_push_back(&e->waiting, &call->link);
    e->n_waiting++;
    if (e->leap == 0 && e->wake_ns > now_ns)
        e->wake_ns = now_ns;
    return COX_OK;
}

void engine_cancel(struct engine *e, int64_t now_ns, struct engine_call *call)
{
    if (call->state == ENGINE_OUT)
        return;
    settle(e, now_ns);
    if (call->state != ENGINE_OUT)
        end_call(e, call);
    if (e->leap == 0 && e->n_waiting > 0 && e->wake_ns > now_ns)
        e->wake_ns = now_ns;
}

int64_t engine_next_ns(const struct engine *e)
{
    return e->leap > 0 ? e->end_ns : e->wake_ns;
}

void engine_slow(struct engine *e, uint32_t factor_permille)
{
    e->factor_permille = factor_permille > 0 ? factor_permille : 1;
}

void engine_forget(struct engine *e)
{
    kv_forget(e->kv);
}

void engine_stats(const struct engine *e, struct engine_stats *ret)
{
    struct kv_counts k;

    kv_counts(e->kv, &k);
    *ret = e->stats;
    ret->running = e->n_running;
    ret->waiting = e->n_waiting;
    ret->kv_blocks = k.n_blocks;
    ret->kv_held = k.held;
    ret->kv_kept = k.kept;
    ret->kv_empty = k.empty;
    ret->kv_evicted = k.evicted;
}
