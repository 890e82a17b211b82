/* Numbers of the router, copied four times a second for whoever asks from another thread. */
#include "router_internal.h"

#include "cox/base/alloc.h"

#include <string.h>

#define PROGRAMS_SHOWN_MAX 1000u /* the most recent */

static const char *gate_text(enum placement_gate gate)
{
    return gate == PLACEMENT_OPEN ? "open" : gate == PLACEMENT_HALF_OPEN ? "half-open" : "closed";
}

static void show_endpoint(const struct router *r, const struct endpoint *e, struct router_endpoint_stats *ret)
{
    struct health_view health;
    struct placement_endpoint_view view;

    health_view(e, &health);
    placement_endpoint_view(r->placement, e->place, &view);
    *ret = (struct router_endpoint_stats){
        .name = cox_strdup(e->name),
        .url = cox_strdup(e->url),
        .up = health.gate != PLACEMENT_CLOSED,
        .gate = gate_text(health.gate),
        .why = health.why ? health.why : "",
        .engine = health.engine ? health.engine : "",
        .in_flight = view.in_flight,
        .credit_tokens = view.credit_tokens,
        .charged_tokens = view.charged_tokens,
        .n_calls = health.n_calls,
        .n_failures = health.n_failures,
        .running = health.scraped ? health.signals.running : -1,
        .waiting = health.scraped ? health.signals.waiting : -1,
        .kv_used_permille = health.scraped ? health.signals.kv_used_permille : -1,
    };
}

static void show_model(const struct router *r, const struct model *m, struct router_model_stats *ret)
{
    const struct pool *pool = m->owner_data;
    struct placement_pool_view view;

    *ret = pool->stats;
    placement_pool_view(r->placement, pool->id, &view);
    for (int i = 0; i < PLACEMENT_BAND_NR; i++)
        ret->queue_depth += view.waiting[i];
    ret->in_flight = pool->in_flight;
    ret->name = cox_strdup(m->name);
    ret->price = m->price;
    ret->context_tokens = m->context_tokens;
    ret->aliases = cox_calloc(m->n_aliases + 1, sizeof(*ret->aliases));
    for (; ret->n_aliases < m->n_aliases; ret->n_aliases++)
        ret->aliases[ret->n_aliases] = cox_strdup(m->aliases[ret->n_aliases]);
    ret->endpoints = cox_calloc(m->n_endpoints + 1, sizeof(*ret->endpoints));
    COX_LIST_FOR_EACH (it, &m->endpoints) {
        const struct endpoint *e = COX_CONTAINER_OF(it, struct endpoint, node);
        if (ret->n_endpoints < m->n_endpoints && !e->gone)
            show_endpoint(r, e, &ret->endpoints[ret->n_endpoints++]);
    }
}

static void show_programs(const struct router *r, struct router_stats *s)
{
    s->programs = cox_calloc(PROGRAMS_SHOWN_MAX, sizeof(*s->programs));
    for (const struct cox_list *it = r->programs.used.prev;
         it != &r->programs.used && s->n_programs < PROGRAMS_SHOWN_MAX; it = it->prev) {
        const struct program *p =
            (const struct program *)(const void *)((const char *)it - offsetof(struct program, used));
        const struct router_tenant_stats *b = &p->books;
        s->programs[s->n_programs] = (struct router_program_stats){
            .tenant = cox_strdup(p->tenant),
            .program = cox_strdup(p->name),
            .outside = p->outside,
            .n_calls = b->n_calls,
            .input_tokens = b->input_tokens,
            .output_tokens = b->output_tokens,
            .cached_tokens = b->cached_tokens,
            .wasted_tokens = b->wasted_tokens,
            .cost_micros = b->cost_micros,
            .last_wall_ms = b->last_wall_ms,
        };
        memcpy(s->programs[s->n_programs++].currency, b->currency, sizeof(b->currency));
    }
}

static void copy_tenants(const struct router_tenant_stats *from, size_t n, struct router_stats *ret)
{
    ret->tenants = cox_calloc(n + 1, sizeof(*ret->tenants));
    for (; ret->n_tenants < n; ret->n_tenants++) {
        ret->tenants[ret->n_tenants] = from[ret->n_tenants];
        ret->tenants[ret->n_tenants].tenant = cox_strdup(from[ret->n_tenants].tenant);
    }
}

void router_stats_refresh(struct router *r)
{
    struct router_stats *s = COX_NEW(struct router_stats), *old;
    const struct model *m = NULL;
    size_t n = 0;

    while ((m = catalogue_next(r->catalogue, m)))
        n++;
    s->models = cox_calloc(n + 1, sizeof(*s->models));
    while ((m = catalogue_next(r->catalogue, m)))
        if (m->owner_data)
            show_model(r, m, &s->models[s->n_models++]);
    show_programs(r, s);
    copy_tenants(r->tenants, r->n_tenants, s);
    pthread_mutex_lock(&r->mutex);
    old = r->stats;
    r->stats = s;
    pthread_mutex_unlock(&r->mutex);
    router_stats_free(old);
}

static void copy_model(const struct router_model_stats *m, struct router_model_stats *ret)
{
    *ret = *m;
    ret->name = cox_strdup(m->name);
    ret->aliases = cox_calloc(m->n_aliases + 1, sizeof(*ret->aliases));
    for (size_t i = 0; i < m->n_aliases; i++)
        ret->aliases[i] = cox_strdup(m->aliases[i]);
    ret->endpoints = cox_calloc(m->n_endpoints + 1, sizeof(*ret->endpoints));
    for (size_t i = 0; i < m->n_endpoints; i++) {
        ret->endpoints[i] = m->endpoints[i];
        ret->endpoints[i].name = cox_strdup(m->endpoints[i].name);
        ret->endpoints[i].url = cox_strdup(m->endpoints[i].url);
    }
}

struct router_stats *router_stats(struct router *r)
{
    struct router_stats *s = COX_NEW(struct router_stats);

    pthread_mutex_lock(&r->mutex);
    s->models = cox_calloc(r->stats->n_models + 1, sizeof(*s->models));
    for (; s->n_models < r->stats->n_models; s->n_models++)
        copy_model(&r->stats->models[s->n_models], &s->models[s->n_models]);
    s->programs = cox_calloc(r->stats->n_programs + 1, sizeof(*s->programs));
    for (; s->n_programs < r->stats->n_programs; s->n_programs++) {
        s->programs[s->n_programs] = r->stats->programs[s->n_programs];
        s->programs[s->n_programs].tenant = cox_strdup(r->stats->programs[s->n_programs].tenant);
        s->programs[s->n_programs].program = cox_strdup(r->stats->programs[s->n_programs].program);
    }
    copy_tenants(r->stats->tenants, r->stats->n_tenants, s);
    s->since_wall_ms = r->since_wall_ms;
    pthread_mutex_unlock(&r->mutex);
    return s;
}

void router_stats_free(struct router_stats *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_models; i++) {
        struct router_model_stats *m = &s->models[i];
        for (size_t k = 0; k < m->n_aliases; k++)
            cox_free(m->aliases[k]);
        for (size_t k = 0; k < m->n_endpoints; k++) {
            cox_free(m->endpoints[k].name);
            cox_free(m->endpoints[k].url);
        }
        cox_free(m->aliases);
        cox_free(m->endpoints);
        cox_free(m->name);
    }
    for (size_t i = 0; i < s->n_programs; i++) {
        cox_free(s->programs[i].tenant);
        cox_free(s->programs[i].program);
    }
    for (size_t i = 0; i < s->n_tenants; i++)
        cox_free(s->tenants[i].tenant);
    cox_free(s->tenants);
    cox_free(s->models);
    cox_free(s->programs);
    cox_free(s);
}
