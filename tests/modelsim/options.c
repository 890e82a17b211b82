#include "sim.h"

#include "cox/config.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#ifndef COX_VERSION
#error "the build says which version this is"
#endif

static const char *set_number(void *field, char *text)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || n > (1ull << 40))
        return "a number";
    *(uint64_t *)field = n;
    return NULL;
}

static const char *set_endpoints(void *field, char *text)
{
    const char *why = set_number(field, text);

    if (why || *(uint64_t *)field < 1 || *(uint64_t *)field > SIM_ENDPOINTS_MAX)
        return "a number from 1 to 10000";
    return NULL;
}

static const char *set_speed(void *field, char *text)
{
    char *end;
    double speed = strtod(text, &end);

    if (end == text || *end || !(speed >= 0.001 && speed <= 1e6))
        return "a factor such as 10 or 0.5";
    *(uint64_t *)field = (uint64_t)(speed * 1000 + 0.5);
    return NULL;
}

static const char *set_engine(void *field, char *text)
{
    static const char *const names[] = { "vllm", "sglang", "llamacpp", "tgi" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *(enum sim_engine *)field = (enum sim_engine)i;
            return NULL;
        }
    }
    return "vllm, sglang, llamacpp or tgi";
}

static const char *set_models(void *options, char *text)
{
    struct sim_options *o = options;
    char *rest = NULL;

    o->n_models = 0;
    for (char *p = strtok_r(text, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        if (o->n_models == sizeof(o->models) / sizeof(o->models[0]))
            return "at most 64 names";
        o->models[o->n_models++] = p;
    }
    return NULL;
}

#define AT(member) offsetof(struct sim_options, member)
static const struct cox_config_key keys[] = {
    { "listen", "HOST:PORT", "127.0.0.1:0",
      "the first endpoint; others take the ports that follow, or with port 0 free ones", cox_config_set_text,
      AT(listen), 0 },
    { "endpoints", "N", "1", "how many engines to play, each on a port of its own", set_endpoints,
      AT(n_endpoints), 0 },
    { "admin", "HOST:PORT", "127.0.0.1:0", "/sim/... here as well, for when endpoints refuse connections",
      cox_config_set_text, AT(admin), 0 },
    { "ready-file", "FILE", NULL,
      "written when all listen: {\"endpoints\":[URL,...],\"admin\":URL,\"pid\":N}", cox_config_set_text,
      AT(ready_file), 0 },
    { "served-model-name", "NAME,...", NULL,
      "models that are served; others get 404 (default: every name is served)", set_models, 0,
      COX_CONFIG_LIST },
    { "require-key", "KEY", NULL, "calls without `Authorization: Bearer KEY` get 401", cox_config_set_text,
      AT(require_key), 0 },
    { "engine", "NAME", "vllm", "whose names /metrics uses: vllm, sglang, llamacpp, tgi", set_engine,
      AT(names), 0 },
    { "profile", "NAME", "h100-llama-8b",
      "costs and sizes: h100-llama-8b, h100x4-llama-70b; the options below change single ones",
      cox_config_set_text, AT(profile), 0 },
    { "step-us", "N", NULL, "a step of the engine takes so long by itself", set_number, AT(engine.step_us),
      0 },
    { "prefill-tokens-per-s", "N", NULL, "prompt tokens that are computed in a second", set_number,
      AT(engine.prefill_tokens_per_s), 0 },
    { "prefill-attention-ps", "N", NULL, "picoseconds for a prompt token and a token before it", set_number,
      AT(engine.prefill_attention_ps), 0 },
    { "decode-us", "N", NULL, "microseconds that a call which decodes adds to a step", set_number,
      AT(engine.decode_us), 0 },
    { "decode-attention-ns", "N", NULL, "nanoseconds that a token of its context adds", set_number,
      AT(engine.decode_attention_ns), 0 },
    { "kv-tokens", "N", NULL, "size of an endpoint's KV cache", set_number, AT(engine.kv_tokens), 0 },
    { "block-size", "N", NULL, "tokens of a block of it", set_number, AT(engine.block_tokens), 0 },
    { "max-num-seqs", "N", NULL, "calls that run at once", set_number, AT(engine.max_num_seqs), 0 },
    { "max-num-batched-tokens", "N", NULL, "tokens of a step", set_number, AT(engine.max_batched_tokens), 0 },
    { "queue-max", "N", NULL, "calls that wait; more get 503", set_number, AT(engine.queue_max), 0 },
    { "max-model-len", "N", "0", "longer calls get 400 (0: what fits into the cache)", set_number,
      AT(max_model_len), 0 },
    { "no-prefix-caching", NULL, NULL, "every prompt is computed whole", cox_config_set_switch,
      AT(no_prefix_caching), 0 },
    { "speed", "X", "1", "simulated time goes X times as fast", set_speed, AT(speed_permille), 0 },
    { "seed", "N", "1", "of replies and faults", set_number, AT(seed), 0 },
    { "output-tokens", "N", "64", "mean length of a reply", set_number, AT(output_tokens), 0 },
    { "tool-turns", "N", "1", "with tools, a tool is called until so many of its results came back",
      set_number, AT(tool_turns), 0 },
    { "dimensions", "N", "64", "of embeddings, unless the request says", set_number, AT(dimensions), 0 },
    { "script", "FILE", NULL, "replies by rules: YAML, or a JSON object a line", cox_config_set_text,
      AT(script_file), 0 },
    { "faults", "JSON", NULL, "faults from the start, as POST /sim/faults takes them; an object or an array",
      cox_config_set_text, AT(faults), 0 },
    { "fast", NULL, NULL, "no simulation: one fixed answer at once, for measuring what stands in front",
      cox_config_set_switch, AT(fast), 0 },
    { "fast-events", "N", "50", "events of a streamed fixed answer", set_number, AT(fast_events), 0 },
    { "events-coalesced", NULL, NULL, "they are written together, not one by one", cox_config_set_switch,
      AT(events_coalesced), 0 },
};

const struct cox_config_program modelsim_config_program = {
    .name = "cox-modelsim",
    .version = COX_VERSION,
    .intro = "usage: cox-modelsim [FLAG...]\n\n"
             "A SIMULATED inference server: OpenAI's API and the timing of a real engine, with pseudo-words "
             "for answers.\n"
             "There is no model in it.\n",
    .outro =
        "POST /v1/chat/completions, /v1/completions, /v1/embeddings; GET /v1/models, /metrics, /health;\n"
        "GET /sim/state, /sim/calls?after=N; POST /sim/faults, /sim/reset, /sim/forget\n",
    .keys = keys,
    .n_keys = sizeof(keys) / sizeof(keys[0]),
};

#define UNSET UINT64_MAX

static void fill(uint64_t *field, uint64_t value)
{
    if (*field == UNSET)
        *field = value;
}

static bool apply_profile(struct sim_options *o)
{
    const struct engine_config *p = NULL;
    struct engine_config *g = &o->engine;

    for (unsigned i = 0; i < engine_n_profiles; i++) {
        if (strcmp(engine_profiles[i].name, o->profile) == 0)
            p = &engine_profiles[i].config;
    }
    if (!p)
        return false;
    fill(&g->step_us, p->step_us);
    fill(&g->prefill_tokens_per_s, p->prefill_tokens_per_s);
    fill(&g->prefill_attention_ps, p->prefill_attention_ps);
    fill(&g->decode_us, p->decode_us);
    fill(&g->decode_attention_ns, p->decode_attention_ns);
    fill(&g->kv_tokens, p->kv_tokens);
    fill(&g->block_tokens, p->block_tokens);
    fill(&g->max_num_seqs, p->max_num_seqs);
    fill(&g->max_batched_tokens, p->max_batched_tokens);
    fill(&g->queue_max, p->queue_max);
    g->speed_permille = o->speed_permille;
    g->cache = !o->no_prefix_caching;
    return true;
}

enum options_outcome options_read(struct sim_options *o, int argc, char **argv, struct cox_config **keep)
{
    struct engine_config *g = &o->engine;

    memset(o, 0, sizeof(*o));
    g->step_us = g->prefill_tokens_per_s = g->prefill_attention_ps = g->decode_us = g->decode_attention_ns =
        UNSET;
    g->kv_tokens = g->block_tokens = g->max_num_seqs = g->max_batched_tokens = g->queue_max = UNSET;
    enum cox_config_outcome outcome = cox_config_read(&modelsim_config_program, argc, argv, o, stderr, keep);
    if (outcome != COX_CONFIG_RUN)
        return outcome == COX_CONFIG_EXIT_OK ? OPTIONS_OK : OPTIONS_BAD;
    if (!apply_profile(o)) {
        fprintf(stderr, "cox-modelsim: --profile: h100-llama-8b or h100x4-llama-70b is expected\n");
        return OPTIONS_BAD;
    }
    if (g->prefill_tokens_per_s == 0 || g->block_tokens == 0 || g->block_tokens > g->kv_tokens ||
        g->max_num_seqs == 0 || g->max_batched_tokens == 0 ||
        g->kv_tokens / g->block_tokens > UINT32_MAX / 2) {
        fprintf(stderr,
                "cox-modelsim: rates, sizes and limits are at least 1, and a block fits into the cache\n");
        return OPTIONS_BAD;
    }
    return OPTIONS_RUN;
}
