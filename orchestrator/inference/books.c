/* What a call is expected to take, and what it has taken. A call is charged once, for the try whose answer
 * counts; every other try that an endpoint may have worked on is wasted. */
#include "router_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <string.h>

#define FIRST_MS_MIN 10000
#define FIRST_MS_MAX (15 * 60 * 1000)
#define WHOLE_MS_MIN 60000     /* of answers that come at once, at their end */
#define OUTPUT_TOKENS_MAX 4096 /* that a call may take when it does not say */
#define WEIGHT 0.1             /* of the newest, in what is learned */
#define BYTES_PER_TOKEN_MAX 16 /* of text: prose has four, and its JSON a few more */
#define TOKENS_PER_MEDIA_MAX 100000

const double router_ttft_bounds_s[ROUTER_TTFT_BUCKETS - 1] = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                                               2,     4,    8,     15,   30,  60,   120 };

static void learn(double *mean, double value)
{
    *mean = *mean > 0 ? *mean + WEIGHT * (value - *mean) : value;
}

static double text_tokens(const struct router_call *c)
{
    return (double)(c->request.prompt_len - c->request.media_len) / c->pool->bytes_per_token;
}

uint32_t books_estimate_input(const struct router_call *c)
{
    double tokens = text_tokens(c) + c->request.n_media * c->pool->tokens_per_media;

    return tokens < 1 ? 1 : tokens > 100e6 ? 100000000 : (uint32_t)tokens;
}

/* Three times what is predicted and two seconds; nothing is cut off that could be a long prefill. */
int64_t books_first_ms(const struct router_call *c)
{
    const struct router *r = c->router;
    const struct pool *pool = c->pool;
    int64_t least_ms = r->config.timeouts.first_ms > 0 ? r->config.timeouts.first_ms : FIRST_MS_MIN;
    struct placement_endpoint_view view;
    double predicted_ms = 0;

    placement_endpoint_view(r->placement, c->placed.endpoint, &view);
    if (view.prefill_tokens_per_s > 0)
        predicted_ms = (double)view.pending_prefill_tokens * 1e3 / (double)view.prefill_tokens_per_s;
    if (pool->ttft_ns > 0 && predicted_ms < (pool->ttft_ns + 2 * pool->ttft_off_ns) / 1e6)
        predicted_ms = (pool->ttft_ns + 2 * pool->ttft_off_ns) / 1e6;
    if (!c->request.stream && c->api != CHAT_EMBEDDINGS) {
        double tokens = c->request.max_tokens > 0 ? (double)c->request.max_tokens : OUTPUT_TOKENS_MAX;
        predicted_ms += tokens * pool->ns_per_output_token / 1e6;
        if (r->config.timeouts.first_ms <= 0)
            least_ms = WHOLE_MS_MIN;
    }
    int64_t ms = (int64_t)(3 * predicted_ms) + 2000;

    return ms < least_ms ? least_ms : ms > FIRST_MS_MAX ? FIRST_MS_MAX : ms;
}

void books_first_token(struct router_call *c, int64_t now_ns)
{
    struct router_model_stats *s = &c->pool->stats;
    double ttft_s = (double)(now_ns - c->started_ns) / 1e9;
    size_t i = 0;

    c->first_ns = now_ns;
    while (i < ROUTER_TTFT_BUCKETS - 1 && ttft_s > router_ttft_bounds_s[i])
        i++;
    s->ttft[i]++;
    s->ttft_sum_s += ttft_s;
    if (!c->reply.is_stream)
        return;
    double took_ns = (double)(now_ns - c->sent_ns), off_ns = took_ns - c->pool->ttft_ns;

    if (c->pool->ttft_ns > 0)
        learn(&c->pool->ttft_off_ns, off_ns < 0 ? -off_ns : off_ns);
    learn(&c->pool->ttft_ns, took_ns);
}

static uint64_t output_so_far(const struct router_call *c)
{
    const struct reply *p = &c->reply;

    return p->usage.has && p->usage.output_tokens > p->n_pieces ? p->usage.output_tokens : p->n_pieces;
}

static double within(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

/* Text teaches what text takes, and what it does not explain is the images'. */
static void learn_tokens(struct router_call *c, double input)
{
    const struct chat_request *q = &c->request;

    if (input <= 16 || q->prompt_len <= 64)
        return;
    if (q->n_media == 0)
        learn(&c->pool->bytes_per_token, within((double)q->prompt_len / input, 1, BYTES_PER_TOKEN_MAX));
    else
        learn(&c->pool->tokens_per_media,
              within((input - text_tokens(c)) / q->n_media, 1, TOKENS_PER_MEDIA_MAX));
}

static void learn_of(struct router_call *c, uint64_t input, uint64_t output)
{
    int64_t from_ns = c->reply.is_stream ? c->first_ns : c->sent_ns;

    learn_tokens(c, (double)input);
    if (output > 8)
        learn(&c->pool->ns_per_output_token, (double)(cox_clock_mono_ns() - from_ns) / (double)output);
}

static void add_cost(struct router_call *c, uint64_t input, uint64_t cached, uint64_t output)
{
    const struct model_price *price = &c->model->price;

    if (!price->currency[0])
        return;
    c->books.cost_micros += model_cost_micros(price, input, cached, output);
    memcpy(c->books.currency, price->currency, sizeof(c->books.currency));
}

void books_charge(struct router_call *c)
{
    struct router_books *b = &c->books;
    const struct chat_usage *usage = &c->reply.usage;

    b->estimated = !usage->has;
    b->input_tokens = usage->has ? usage->input_tokens : books_estimate_input(c);
    b->output_tokens = usage->has ? usage->output_tokens : c->reply.n_pieces;
    b->cached_tokens = usage->has && usage->cached_tokens > 0 ? (uint64_t)usage->cached_tokens : 0;
    if (b->cached_tokens > b->input_tokens)
        b->cached_tokens = b->input_tokens;
    add_cost(c, b->input_tokens, b->cached_tokens, b->output_tokens);
    if (usage->has)
        learn_of(c, b->input_tokens, b->output_tokens);
}

void books_replay(struct router_call *c, const struct chat_usage *usage)
{
    if (!usage->has)
        return;
    c->reply.usage = *usage;
    c->books.input_tokens = usage->input_tokens;
    c->books.output_tokens = usage->output_tokens;
    c->books.cached_tokens = (uint64_t)usage->cached_tokens;
    add_cost(c, c->books.input_tokens, c->books.cached_tokens, c->books.output_tokens);
}

void books_waste(struct router_call *c, bool begun)
{
    const struct chat_usage *usage = &c->reply.usage;
    uint64_t input = usage->has ? usage->input_tokens : books_estimate_input(c);
    uint64_t output = begun ? output_so_far(c) : 0;

    if (c->reply.status >= 400 && !c->reply.failed)
        return;
    c->books.wasted_tokens += COX_PLANTED("lost-tries-for-nothing") ? 0 : input + output;
    add_cost(c, input, 0, output);
}

static void add_books(struct router_tenant_stats *s, const struct router_books *b)
{
    s->n_calls++;
    s->input_tokens += b->input_tokens;
    s->output_tokens += b->output_tokens;
    s->cached_tokens += b->cached_tokens;
    s->wasted_tokens += b->wasted_tokens;
    s->cost_micros += b->cost_micros;
    s->last_wall_ms = cox_clock_wall_ms();
    if (b->currency[0])
        memcpy(s->currency, b->currency, sizeof(s->currency));
}

/* Few, nearly always; those beyond the bound are one. */
static struct router_tenant_stats *tenant_of(struct router *r, struct cox_slice tenant)
{
    size_t i = 0;

    while (i < r->n_tenants && !cox_slice_is(tenant, r->tenants[i].tenant))
        i++;
    if (i < r->n_tenants)
        return &r->tenants[i];
    if (i <= ROUTER_TENANTS_MAX) {
        r->tenants[i].tenant = i < ROUTER_TENANTS_MAX ? cox_strndup((const char *)tenant.data, tenant.len)
                                                      : cox_strdup("(other)");
        r->n_tenants++;
    }
    return &r->tenants[r->n_tenants - 1];
}

void books_fini(struct router *r)
{
    while (r->n_tenants > 0)
        cox_free(r->tenants[--r->n_tenants].tenant);
}

void books_close(struct router_call *c)
{
    const struct router_books *b = &c->books;

    if (c->pool) {
        struct router_model_stats *s = &c->pool->stats;
        s->n_calls++; /* with how it ended: a counter of what went well must not fall again */
        s->n_errors += c->end != ROUTER_ANSWERED && c->end != ROUTER_CANCELLED;
        s->input_tokens += b->input_tokens;
        s->output_tokens += b->output_tokens;
        s->cached_tokens += b->cached_tokens;
        s->wasted_tokens += b->wasted_tokens;
        s->cost_micros += b->cost_micros;
    }
    if (c->pool)
        add_books(tenant_of(c->router, c->who.tenant), b);
    if (c->program)
        add_books(&c->program->books, b);
    if (c->records && c->end == ROUTER_ANSWERED && c->reply.status == 200)
        tape_put(c->router->config.tape, c->api, cox_slice_str(c->model->name), cox_buf_slice(&c->body),
                 cox_buf_slice(&c->reply.type), cox_buf_slice(&c->copy),
                 &(struct chat_usage){ true, b->input_tokens, b->output_tokens, (int64_t)b->cached_tokens });
    if (c->keeps && c->end == ROUTER_ANSWERED && c->reply.status == 200) {
        const struct router_head head = { .is_stream = c->reply.is_stream,
                                          .content_type = cox_buf_slice(&c->reply.type),
                                          .model = c->model->name,
                                          .endpoint = "cache" };
        stored_put(&c->router->stored, c->key, cox_clock_mono_ns(), &head, cox_buf_slice(&c->copy));
    }
}
