/* What is measured of an endpoint. Prefill is taken as one server, first come first served: between two first
 * tokens, or from a dispatch on if that came later, it has worked on the second call's prompt. Sums that
 * forget give the rate, so that prompts of one batch, whose first tokens come together, count in full. */
#include "placement_inside.h"

#define SIGNALS_FRESH_NS (2 * NS_PER_S)
#define PREFILL_SEEN_MIN 64u        /* shorter prompts say more about the network */
#define PREFILL_SUM_MAX 200000u     /* tokens: what is older fades */
#define CREDIT_CUT_EACH_NS NS_PER_S /* a cut has to show before the next */
#define CREDIT_CALLS_MIN 2u
#define CREDIT_MAX (1ULL << 31) /* where nobody says how large the cache is */
#define BLOCKS_SEEN_MIN 8u      /* shorter prompts end within a block */

static uint64_t mean(uint64_t old, uint64_t new, uint64_t part)
{
    return old == 0 ? new : old - old / part + new / part;
}

/* The credit to begin with: what its cache holds. */
void learn_credit(struct place *x)
{
    x->kv_tokens = x->limits.kv_tokens > 0 ? x->limits.kv_tokens : x->signals.kv_tokens;
    x->kv_is_known = x->kv_tokens > 0;
    if (!x->kv_is_known)
        x->kv_tokens = KV_TOKENS_DEFAULT;
    x->credit = x->kv_tokens;
}

void learn_init(struct place *x)
{
    learn_credit(x);
    x->prefill_rate = x->limits.prefill_tokens_per_s ? x->limits.prefill_tokens_per_s : PREFILL_DEFAULT;
    x->decode_rate = x->limits.decode_tokens_per_s ? x->limits.decode_tokens_per_s : DECODE_DEFAULT;
    x->trust_permille = 1000;
    x->told_permille = 1000;
    x->prefill_tokens_sum = x->prefill_rate / 4;
    x->prefill_ns_sum = NS_PER_S / 4;
}

/* ---- credit ----
 *
 * The knee is where more in flight gives no more throughput: the engine lets calls wait then. What it says to
 * run, of what it has, is the part that is of use; a fifth more keeps it from running dry. */

static void credit_to(struct place *x, uint64_t credit)
{
    uint64_t least = CREDIT_CALLS_MIN * (x->pool->mean_input + (uint64_t)x->pool->mean_output);
    uint64_t most = x->kv_is_known ? x->kv_tokens + x->kv_tokens / 5 : CREDIT_MAX;

    least = least < most ? least : most;
    x->credit = credit < least ? least : credit > most ? most : credit;
    if (x->credit == 0)
        x->credit = 1;
    if (!x->kv_is_known && x->credit > x->kv_tokens)
        x->kv_tokens = x->credit;
}

static bool crowded(const struct place *x, int64_t now_ns, uint64_t first_ns, uint64_t expected_ns)
{
    const struct placement_signals *s = &x->signals;

    if (s->running >= 0 && s->waiting >= 0 && now_ns - x->signals_ns <= SIGNALS_FRESH_NS)
        return s->waiting > 1 && s->waiting * 5 > s->running;
    return first_ns > 3 * expected_ns + (uint64_t)NS_PER_S;
}

static void credit_learn(struct place *x, int64_t now_ns, uint64_t first_ns, uint64_t expected_ns)
{
    if (crowded(x, now_ns, first_ns, expected_ns)) {
        if (now_ns - x->credit_cut_ns < CREDIT_CUT_EACH_NS)
            return;
        x->credit_cut_ns = now_ns;
        uint64_t running = x->signals.running > 0 ? (uint64_t)x->signals.running : 1;
        uint64_t all = running + (x->signals.waiting > 0 ? (uint64_t)x->signals.waiting : 0);
        uint64_t knee = now_ns - x->signals_ns <= SIGNALS_FRESH_NS && all > running
                            ? muldiv(x->charged, running, all)
                            : muldiv(x->charged, 3, 4);
        knee = knee + knee / 5;
        credit_to(x, knee > x->credit / 2 ? knee : x->credit / 2);
    } else if (x->charged >= x->credit - x->credit / 5) {
        credit_to(x, x->credit + x->credit / 32 + 1);
    }
}

/* ---- calls ---- */

static uint64_t ns_for(uint64_t tokens, uint64_t rate)
{
    return muldiv(tokens, (uint64_t)NS_PER_S, rate);
}

/* How long until what it has to prefill is done. Where first tokens are told, what they have not been told of
 * is still to do; elsewhere the clock must say. */
uint64_t learn_pending_ns(const struct place *x, int64_t now_ns)
{
    uint64_t by_tokens = ns_for(x->pending_prefill, x->prefill_rate);
    uint64_t by_clock = x->busy_until_ns > now_ns ? (uint64_t)(x->busy_until_ns - now_ns) : 0;

    return x->told_permille >= 500 || by_tokens < by_clock ? by_tokens : by_clock;
}

void learn_sent(struct place *x, struct placement_call *c, int64_t now_ns)
{
    int64_t from = x->busy_until_ns > now_ns ? x->busy_until_ns : now_ns;

    x->busy_until_ns = from + (int64_t)ns_for(c->miss_tokens, x->prefill_rate);
    x->pending_prefill += c->miss_tokens;
    x->n_prefilling++;
    x->decode_pending += c->decode_tokens;
}

static void prefilled(struct place *x, const struct placement_call *c)
{
    x->pending_prefill -= c->miss_tokens;
    x->n_prefilling--;
}

void learn_first(struct place *x, struct placement_call *c, int64_t now_ns)
{
    int64_t from = x->last_first_ns > c->dispatched_ns ? x->last_first_ns : c->dispatched_ns;
    uint64_t expected_ns = ns_for(x->pending_prefill, x->prefill_rate);

    prefilled(x, c);
    x->decoding++;
    x->told_permille = (uint32_t)mean(x->told_permille, 1000, 8);
    if (x->n_prefilling == 0)
        x->busy_until_ns = now_ns;
    credit_learn(x, now_ns, (uint64_t)(now_ns - c->dispatched_ns), expected_ns);
    x->last_first_ns = now_ns;
    if (c->miss_tokens < PREFILL_SEEN_MIN)
        return;
    uint64_t took_ns = now_ns > from ? (uint64_t)(now_ns - from) : 0;
    uint64_t most_ns = 8 * ns_for(c->miss_tokens, x->prefill_rate) + NS_PER_MS;
    x->prefill_tokens_sum += c->miss_tokens;
    x->prefill_ns_sum += took_ns < most_ns ? took_ns : most_ns;
    while (x->prefill_tokens_sum > PREFILL_SUM_MAX || x->prefill_ns_sum > 20ULL * NS_PER_S) {
        x->prefill_tokens_sum -= x->prefill_tokens_sum / 4;
        x->prefill_ns_sum -= x->prefill_ns_sum / 4;
    }
    uint64_t rate = muldiv(x->prefill_tokens_sum, NS_PER_S, x->prefill_ns_sum);
    x->prefill_rate = rate < 10 ? 10 : rate > 10000000 ? 10000000 : rate;
}

/* Decoding shares its steps among all that run, so the sum over them is what saturates. A sample above what
 * was believed is evidence; one below is evidence only when the endpoint was as full as ever. */
static void decode_learn(struct place *x, const struct placement_call *c, int64_t now_ns, uint64_t tokens)
{
    int64_t took_ns = now_ns - c->first_token_ns;

    if (tokens < 8 || took_ns <= 0)
        return;
    uint64_t rate = muldiv(muldiv(tokens, NS_PER_S, (uint64_t)took_ns), x->decoding, 1);
    if (rate > x->decode_rate)
        x->decode_rate += (rate - x->decode_rate) / 4;
    else if (x->charged >= x->credit - x->credit / 4)
        x->decode_rate -= (x->decode_rate - rate) / 16;
    if (x->decode_rate < 1)
        x->decode_rate = 1;
}

/* What part of what it was believed to have it had. */
static void trust_learn(struct place *x, const struct placement_call *c,
                        const struct placement_outcome *outcome)
{
    if (outcome->cached_tokens < 0 || c->hit_tokens < PREFILL_SEEN_MIN)
        return;
    uint64_t believed = muldiv(c->hit_tokens, 1000, x->trust_permille > 0 ? x->trust_permille : 1);
    uint64_t had = (uint64_t)outcome->cached_tokens;
    uint64_t part = had >= believed ? 1000 : muldiv(had, 1000, believed);

    x->trust_permille = (uint32_t)((x->trust_permille * 7 + part + 7) / 8);
    if (x->trust_permille < 20)
        x->trust_permille = 20;
}

void learn_done(struct place *x, struct placement_call *c, int64_t now_ns,
                const struct placement_outcome *outcome)
{
    struct placement_pool *q = x->pool;

    x->decode_pending -= c->decode_tokens;
    if (c->state == CALL_SENT) {
        prefilled(x, c);
        if (outcome->answered)
            x->told_permille -= x->told_permille / 8;
    } else {
        if (outcome->answered)
            decode_learn(x, c, now_ns, outcome->output_tokens);
        x->decoding--;
    }
    if (!outcome->answered)
        return;
    trust_learn(x, c, outcome);
    uint64_t took_ns = now_ns > c->dispatched_ns ? (uint64_t)(now_ns - c->dispatched_ns) : 0;
    x->call_ns = mean(x->call_ns, took_ns, 8);
    q->call_ns = mean(q->call_ns, took_ns, 16);
    if (outcome->output_tokens > 0)
        q->mean_output = (uint32_t)mean(q->mean_output, outcome->output_tokens, 16);
    uint64_t input = outcome->input_tokens > 0 ? outcome->input_tokens : c->input_tokens;
    q->mean_input = (uint32_t)mean(q->mean_input, input, 16);
    if (outcome->input_tokens > 0 && c->n_blocks >= BLOCKS_SEEN_MIN && c->n_blocks < PLACEMENT_BLOCKS_MAX)
        q->block_tokens_16 = mean(q->block_tokens_16, muldiv(input, 16, c->n_blocks), 16);
    if (q->block_tokens_16 < 16)
        q->block_tokens_16 = 16;
}
