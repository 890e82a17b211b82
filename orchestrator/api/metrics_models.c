#include "metrics_models.h"

#include "../inference/router.h"

#include <stdio.h>

#define NAME_LEN_MAX 64

struct said {
    const struct cox_metric *metric;
    cox_on_sample *fn;
    void *user;
    const char *model;
};

static void say(const struct said *s, double value, const char *label, const char *text)
{
    struct cox_sample sample = { .name = s->metric->name,
                                 .cumulative = s->metric->type != COX_METRIC_GAUGE,
                                 .labels = { { cox_slice_str("model"), cox_slice_str(s->model) },
                                             { cox_slice_str(label), cox_slice_str(text) } },
                                 .n_labels = label ? 2 : 1,
                                 .value = value };

    s->fn(s->user, &sample);
}

static void say_part(const struct said *s, const char *suffix, double value, const char *le)
{
    char name[NAME_LEN_MAX];
    struct cox_sample sample = { .name = name,
                                 .cumulative = true,
                                 .is_bucket = le != NULL,
                                 .labels = { { cox_slice_str("model"), cox_slice_str(s->model) },
                                             { cox_slice_str("le"), cox_slice_str(le) } },
                                 .n_labels = le ? 2 : 1,
                                 .value = value };

    snprintf(name, sizeof(name), "%s%s", s->metric->name, suffix);
    s->fn(s->user, &sample);
}

static void say_ttft(const struct said *s, const struct router_model_stats *m)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < ROUTER_TTFT_BUCKETS; i++) {
        char le[32] = "+Inf";

        if (i < ROUTER_TTFT_BUCKETS - 1)
            snprintf(le, sizeof(le), "%g", router_ttft_bounds_s[i]);
        n += m->ttft[i];
        say_part(s, "_bucket", (double)n, le);
    }
    say_part(s, "_sum", m->ttft_sum_s, NULL);
    say_part(s, "_count", (double)n, NULL);
}

/* One function a metric: `body` says what there is of the model `m`. */
#define EACH(suffix, body)                                                                                   \
    void cox_metric_##suffix(const struct cox_metric *metric, const struct cox_metric_source *src,           \
                             cox_on_sample *fn, void *user)                                                  \
    {                                                                                                        \
        for (size_t i = 0; src->router && i < src->router->n_models; i++) {                                  \
            const struct router_model_stats *m = &src->router->models[i];                                    \
            const struct said s = { metric, fn, user, m->name };                                             \
            body;                                                                                            \
        }                                                                                                    \
    }

EACH(model_queue_depth, say(&s, m->queue_depth, NULL, NULL))
EACH(model_in_flight, say(&s, m->in_flight, NULL, NULL))
EACH(model_calls, (say(&s, (double)(m->n_calls - m->n_errors), "status", "ok"),
                   say(&s, (double)m->n_errors, "status", "error")))
EACH(model_retries, say(&s, (double)m->n_retries, NULL, NULL))
EACH(model_fallbacks, say(&s, (double)m->n_fallbacks, NULL, NULL))
EACH(model_cache_answers, say(&s, (double)m->n_cache_answers, NULL, NULL))
EACH(model_ttft, say_ttft(&s, m))
EACH(model_tokens, (say(&s, (double)m->input_tokens, "direction", "input"),
                    say(&s, (double)m->output_tokens, "direction", "output")))
EACH(model_cached, say(&s, (double)m->cached_tokens, NULL, NULL))
EACH(model_wasted, say(&s, (double)m->wasted_tokens, NULL, NULL))
EACH(model_cost, say(&s, (double)m->cost_micros, "currency", m->price.currency))

static void say_endpoints(const struct said *s, const struct router_model_stats *m, bool up)
{
    for (size_t i = 0; i < m->n_endpoints; i++)
        say(s, up ? m->endpoints[i].up : m->endpoints[i].in_flight, "endpoint", m->endpoints[i].name);
}

EACH(endpoint_up, say_endpoints(&s, m, true))
EACH(endpoint_in_flight, say_endpoints(&s, m, false))
