/* What an endpoint says of itself at /metrics, under the names of the engine that it plays. */
#include "sim.h"

static void put_vllm(struct cox_buf *out, const struct endpoint *e, const struct engine_stats *n,
                     const char *model)
{
    const struct engine_config *g = &e->sim->options.engine;
    double used = n->kv_blocks > 0 ? (double)n->kv_held / n->kv_blocks : 0;
#define PUT(type, name, suffix, format, value)                                                               \
    cox_buf_printf(out,                                                                                      \
                   "# TYPE vllm:" name " " type "\nvllm:" name suffix                                        \
                   "{engine=\"0\",model_name=\"%s\"} " format "\n",                                          \
                   model, value)

    PUT("gauge", "num_requests_running", "", "%.1f", (double)n->running);
    PUT("gauge", "num_requests_waiting", "", "%.1f", (double)n->waiting);
    PUT("gauge", "kv_cache_usage_perc", "", "%.6f", used);
    PUT("counter", "prefix_cache_queries", "_total", "%.1f", (double)n->prompt_tokens);
    PUT("counter", "prefix_cache_hits", "_total", "%.1f", (double)n->cached_tokens);
    PUT("counter", "num_preemptions", "_total", "%.1f", (double)n->preemptions);
    PUT("counter", "prompt_tokens", "_total", "%.1f", (double)n->prompt_tokens);
    PUT("counter", "generation_tokens", "_total", "%.1f", (double)n->generated_tokens);
    PUT("counter", "request_success", "_total", "%.1f", (double)e->counts.answered);
#undef PUT
    cox_buf_printf(out,
                   "# TYPE vllm:cache_config_info "
                   "gauge\nvllm:cache_config_info{block_size=\"%llu\",cache_dtype=\"auto\","
                   "enable_prefix_caching=\"%s\",engine=\"0\",gpu_memory_utilization=\"0.9\",num_gpu_blocks="
                   "\"%u\"} 1.0\n",
                   (unsigned long long)g->block_tokens, g->cache ? "True" : "False", n->kv_blocks);
}

static void put_sglang(struct cox_buf *out, const struct endpoint *e, const struct engine_stats *n,
                       const char *model)
{
    const struct engine_config *g = &e->sim->options.engine;
    uint64_t tokens = n->kv_blocks * g->block_tokens;
#define PUT(name, format, value)                                                                             \
    cox_buf_printf(out, "# TYPE sglang:" name " gauge\nsglang:" name "{model_name=\"%s\"} " format "\n",     \
                   model, value)

    PUT("num_running_reqs", "%.1f", (double)n->running);
    PUT("num_queue_reqs", "%.1f", (double)n->waiting);
    PUT("num_used_tokens", "%.1f", (double)n->kv_held * (double)g->block_tokens);
    PUT("token_usage", "%.6f", n->kv_blocks > 0 ? (double)n->kv_held / n->kv_blocks : 0.0);
    PUT("cache_hit_rate", "%.6f",
        n->prompt_tokens > 0 ? (double)n->cached_tokens / (double)n->prompt_tokens : 0.0);
    PUT("max_total_num_tokens", "%.1f", (double)tokens);
#undef PUT
    cox_buf_printf(
        out,
        "# TYPE sglang:cache_config_info "
        "gauge\nsglang:cache_config_info{page_size=\"%llu\",num_pages=\"%u\"} 1.0\n"
        "# TYPE sglang:prompt_tokens_total counter\nsglang:prompt_tokens_total{model_name=\"%s\"} %.1f\n"
        "# TYPE sglang:generation_tokens_total counter\nsglang:generation_tokens_total{model_name=\"%s\"} "
        "%.1f\n",
        (unsigned long long)g->block_tokens, n->kv_blocks, model, (double)n->prompt_tokens, model,
        (double)n->generated_tokens);
}

static void put_llamacpp(struct cox_buf *out, const struct endpoint *e, const struct engine_stats *n)
{
    const struct engine_config *g = &e->sim->options.engine;

    cox_buf_printf(out,
                   "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing %u\n"
                   "# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred %u\n"
                   "# TYPE llamacpp:kv_cache_usage_ratio gauge\nllamacpp:kv_cache_usage_ratio %.6f\n"
                   "# TYPE llamacpp:kv_cache_tokens gauge\nllamacpp:kv_cache_tokens %llu\n"
                   "# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total %llu\n"
                   "# TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total %llu\n",
                   n->running, n->waiting, n->kv_blocks > 0 ? (double)n->kv_held / n->kv_blocks : 0.0,
                   (unsigned long long)(n->kv_held * g->block_tokens), (unsigned long long)n->computed_tokens,
                   (unsigned long long)n->generated_tokens);
}

static void put_tgi(struct cox_buf *out, const struct endpoint *e, const struct engine_stats *n)
{
    const struct engine_config *g = &e->sim->options.engine;

    cox_buf_printf(out,
                   "# TYPE tgi_batch_current_size gauge\ntgi_batch_current_size %u\n"
                   "# TYPE tgi_queue_size gauge\ntgi_queue_size %u\n"
                   "# TYPE tgi_batch_current_max_tokens gauge\ntgi_batch_current_max_tokens %llu\n"
                   "# TYPE tgi_request_count counter\ntgi_request_count %llu\n",
                   n->running, n->waiting, (unsigned long long)(n->kv_held * g->block_tokens),
                   (unsigned long long)e->counts.calls);
}

void metrics_put(struct cox_buf *out, const struct endpoint *e)
{
    const struct sim_options *o = &e->sim->options;
    const char *model = o->n_models > 0 ? o->models[0] : "sim";
    struct engine_stats n;

    engine_stats(e->engine, &n);
    if (o->names == SIM_VLLM)
        put_vllm(out, e, &n, model);
    else if (o->names == SIM_SGLANG)
        put_sglang(out, e, &n, model);
    else if (o->names == SIM_LLAMACPP)
        put_llamacpp(out, e, &n);
    else
        put_tgi(out, e, &n);
}
