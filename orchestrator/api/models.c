/* The models as the router has them. Nothing here is durable, so nothing is held. */
#include "internal.h"

#include "coxswain/v1/model_service.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_DEFAULT 1000u
#define PAGE_MAX 10000u

void cox_api_set_router(struct cox_api *a, cox_api_router_stats *stats, void *user)
{
    a->router_stats = stats;
    a->router_user = user;
}

struct router_stats *cox_api_read_router(const struct cox_api *a)
{
    return a->router_stats ? a->router_stats(a->router_user) : NULL;
}

/* ---- a model ---- */

static Coxswain__V1__Price *show_price(struct cox_arena *a, const struct model_price *price)
{
    Coxswain__V1__Price *m = cox_arena_alloc(a, sizeof(*m));

    if (!*price->currency)
        return NULL;
    coxswain__v1__price__init(m);
    m->input_micros = (int64_t)price->input_micros;
    m->output_micros = (int64_t)price->output_micros;
    m->cached_input_micros = (int64_t)price->cached_input_micros;
    m->per_tokens = (int64_t)price->per_tokens;
    m->currency = cox_show_text(a, cox_slice_str(price->currency));
    return m;
}

/* The upper bound of the bucket that this share of all lies in. */
static double ttft_quantile(const struct router_model_stats *m, double share)
{
    uint64_t n = 0, sum = 0;

    for (unsigned i = 0; i < ROUTER_TTFT_BUCKETS; i++)
        n += m->ttft[i];
    for (unsigned i = 0; i < ROUTER_TTFT_BUCKETS && n > 0; i++) {
        sum += m->ttft[i];
        if ((double)sum >= share * (double)n)
            return router_ttft_bounds_s[i < ROUTER_TTFT_BUCKETS - 1 ? i : ROUTER_TTFT_BUCKETS - 2];
    }
    return 0;
}

static Coxswain__V1__ModelTraffic *show_traffic(struct cox_arena *a, const struct router_model_stats *s)
{
    Coxswain__V1__ModelTraffic *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__model_traffic__init(m);
    m->calls = (int64_t)s->n_calls;
    m->failed_calls = (int64_t)s->n_errors;
    m->retries = (int64_t)s->n_retries;
    m->fallbacks = (int64_t)s->n_fallbacks;
    m->cache_answers = (int64_t)s->n_cache_answers;
    m->ttft_p50_seconds = ttft_quantile(s, 0.5);
    m->ttft_p99_seconds = ttft_quantile(s, 0.99);
    m->usage = cox_show_model_usage(a, s);
    return m;
}

static Coxswain__V1__Model *show_model(struct cox_arena *a, const struct router_model_stats *s, bool whole)
{
    Coxswain__V1__Model *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__model__init(m);
    m->name = cox_show_text(a, cox_slice_str(s->name));
    m->aliases = cox_arena_alloc(a, (s->n_aliases + 1) * sizeof(*m->aliases));
    for (; m->n_aliases < s->n_aliases; m->n_aliases++)
        m->aliases[m->n_aliases] = cox_show_text(a, cox_slice_str(s->aliases[m->n_aliases]));
    m->price = show_price(a, &s->price);
    m->context_tokens = (int64_t)s->context_tokens;
    m->endpoints = (uint32_t)s->n_endpoints;
    for (size_t i = 0; i < s->n_endpoints; i++)
        m->endpoints_up += s->endpoints[i].up;
    m->queue_depth = s->queue_depth;
    m->in_flight = s->in_flight;
    if (whole)
        m->traffic = show_traffic(a, s);
    return m;
}

static Coxswain__V1__Endpoint *show_endpoint(struct cox_arena *a, const struct router_endpoint_stats *s)
{
    Coxswain__V1__Endpoint *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__endpoint__init(m);
    m->name = cox_show_text(a, cox_slice_str(s->name));
    m->url = cox_show_text(a, cox_slice_str(s->url));
    m->up = s->up;
    m->gate = cox_show_text(a, cox_slice_str(s->gate));
    m->why = cox_show_text(a, cox_slice_str(s->why));
    m->engine = cox_show_text(a, cox_slice_str(s->engine));
    m->in_flight = s->in_flight;
    m->credit_tokens = s->credit_tokens > INT64_MAX ? INT64_MAX : (int64_t)s->credit_tokens;
    m->charged_tokens = (int64_t)s->charged_tokens;
    m->calls = (int64_t)s->n_calls;
    m->failed_calls = (int64_t)s->n_failures;
    m->running = s->running;
    m->waiting = s->waiting;
    m->kv_used = s->kv_used_permille < 0 ? -1 : s->kv_used_permille / 1000.0;
    return m;
}

/* ---- the methods ---- */

void cox_api_list_models(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ListModelsRequest *m = (const Coxswain__V1__ListModelsRequest *)message;
    Coxswain__V1__ListModelsResponse answer = COXSWAIN__V1__LIST_MODELS_RESPONSE__INIT;
    uint32_t page = m->page_size == 0 ? PAGE_DEFAULT : m->page_size;
    bool whole = cox_access_caller(call)->whole;
    struct cox_arena arena = { 0 };
    char token[24], *end;
    size_t at = strtoul(m->page_token, &end, 10); /* where the last page ended */

    if (*end != '\0') {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_PAGE_TOKEN",
                      "page_token: expected one from an earlier answer, found \"%s\"", m->page_token);
        return;
    }
    struct router_stats *stats = cox_api_read_router(user);
    size_t n = stats ? stats->n_models : 0;

    if (page > PAGE_MAX)
        page = PAGE_MAX;
    answer.models = cox_arena_alloc(&arena, (page + 1) * sizeof(*answer.models));
    for (; at < n && answer.n_models < page; at++)
        answer.models[answer.n_models++] = show_model(&arena, &stats->models[at], whole);
    if (at < n) {
        snprintf(token, sizeof(token), "%zu", at);
        answer.next_page_token = token;
    }
    cox_rpc_reply(call, &answer.base);
    router_stats_free(stats);
    cox_arena_fini(&arena);
}

static const struct router_model_stats *find_model(const struct router_stats *stats, const char *name)
{
    for (size_t i = 0; stats && i < stats->n_models; i++) {
        const struct router_model_stats *m = &stats->models[i];

        if (strcmp(m->name, name) == 0)
            return m;
        for (size_t k = 0; k < m->n_aliases; k++)
            if (strcmp(m->aliases[k], name) == 0)
                return m;
    }
    return NULL;
}

void cox_api_describe_model(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__DescribeModelRequest *m = (const Coxswain__V1__DescribeModelRequest *)message;
    Coxswain__V1__DescribeModelResponse answer = COXSWAIN__V1__DESCRIBE_MODEL_RESPONSE__INIT;
    struct router_stats *stats = cox_api_read_router(user);
    const struct router_model_stats *s = find_model(stats, m->name);
    bool whole = cox_access_caller(call)->whole;
    struct cox_arena arena = { 0 };

    if (s) {
        answer.model = show_model(&arena, s, whole);
        answer.endpoints = cox_arena_alloc(&arena, (s->n_endpoints + 1) * sizeof(*answer.endpoints));
        while (whole && answer.n_endpoints < s->n_endpoints) {
            answer.endpoints[answer.n_endpoints] = show_endpoint(&arena, &s->endpoints[answer.n_endpoints]);
            answer.n_endpoints++;
        }
        cox_rpc_reply(call, &answer.base);
    } else {
        cox_call_fail(call, COX_RPC_NOT_FOUND, "NO_MODEL", "no model %s", m->name);
    }
    router_stats_free(stats);
    cox_arena_fini(&arena);
}
