/* What model calls used, in rows of the router's numbers. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include "coxswain/v1/model_service.pb-c.h"

#include <string.h>

struct rows {
    struct cox_arena arena;
    const struct cox_caller *caller;
    const Coxswain__V1__GetUsageRequest *asked;
    Coxswain__V1__GetUsageResponse answer;
    size_t cap;
};

static Coxswain__V1__Usage *make_usage(struct cox_arena *a, uint64_t calls, uint64_t input, uint64_t output,
                                       uint64_t cached, uint64_t wasted, uint64_t micros,
                                       const char *currency)
{
    Coxswain__V1__Usage *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__usage__init(m);
    m->model_calls = (int64_t)calls;
    m->input_tokens = (int64_t)input;
    m->output_tokens = (int64_t)output;
    m->cached_input_tokens = (int64_t)cached;
    m->wasted_tokens = (int64_t)wasted;
    m->cost = cox_arena_alloc(a, sizeof(*m->cost));
    coxswain__v1__money__init(m->cost);
    m->cost->micros = (int64_t)micros;
    m->cost->currency = cox_show_text(a, cox_slice_str(micros > 0 ? currency : ""));
    return m;
}

Coxswain__V1__Usage *cox_show_model_usage(struct cox_arena *a, const struct router_model_stats *s)
{
    return make_usage(a, s->n_calls, s->input_tokens, s->output_tokens, s->cached_tokens, s->wasted_tokens,
                      s->cost_micros, s->price.currency);
}

/* ---- whose ---- */

/* Another tenant's looks as if it were not there. */
static bool may_see(const struct rows *r, const char *tenant)
{
    bool theirs = r->caller->whole || COX_PLANTED("usage-of-all") || strcmp(r->caller->tenant, tenant) == 0;

    return theirs && (!*r->asked->tenant || strcmp(r->asked->tenant, tenant) == 0);
}

static Coxswain__V1__UsageRow *add_row(struct rows *r, const char *tenant)
{
    Coxswain__V1__UsageRow *m = cox_arena_alloc(&r->arena, sizeof(*m));

    coxswain__v1__usage_row__init(m);
    m->tenant = cox_show_text(&r->arena, cox_slice_str(tenant));
    if (r->answer.n_rows == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 64;
        r->answer.rows = cox_realloc(r->answer.rows, r->cap, sizeof(*r->answer.rows));
    }
    r->answer.rows[r->answer.n_rows++] = m;
    return m;
}

/* ---- rows ---- */

static void add_program(struct rows *r, const struct router_program_stats *s)
{
    bool tasks_only = r->asked->by == COXSWAIN__V1__USAGE_BY__USAGE_BY_TASK;

    if (!may_see(r, s->tenant) || (tasks_only && s->outside))
        return;
    if (*r->asked->program && strcmp(r->asked->program, s->program) != 0)
        return;
    Coxswain__V1__UsageRow *m = add_row(r, s->tenant);

    m->program = cox_show_text(&r->arena, cox_slice_str(s->program));
    m->is_task = !s->outside;
    m->usage = make_usage(&r->arena, s->n_calls, s->input_tokens, s->output_tokens, s->cached_tokens,
                          s->wasted_tokens, s->cost_micros, s->currency);
    m->last_call_at = cox_show_time(&r->arena, s->last_wall_ms);
}

static void add_tenant(struct rows *r, const struct router_tenant_stats *s)
{
    if (!may_see(r, s->tenant))
        return;
    Coxswain__V1__UsageRow *m = add_row(r, s->tenant);

    m->usage = make_usage(&r->arena, s->n_calls, s->input_tokens, s->output_tokens, s->cached_tokens,
                          s->wasted_tokens, s->cost_micros, s->currency);
    m->last_call_at = cox_show_time(&r->arena, s->last_wall_ms);
}

static void add_rows(struct rows *r, const struct router_stats *s)
{
    switch (r->asked->by) {
    case COXSWAIN__V1__USAGE_BY__USAGE_BY_MODEL:
        for (size_t i = 0; i < s->n_models; i++) {
            Coxswain__V1__UsageRow *m = add_row(r, "");

            m->model = cox_show_text(&r->arena, cox_slice_str(s->models[i].name));
            m->usage = cox_show_model_usage(&r->arena, &s->models[i]);
        }
        return;
    case COXSWAIN__V1__USAGE_BY__USAGE_BY_TENANT:
        for (size_t i = 0; i < s->n_tenants; i++)
            add_tenant(r, &s->tenants[i]);
        return;
    default:
        for (size_t i = 0; i < s->n_programs; i++)
            add_program(r, &s->programs[i]);
        return;
    }
}

void cox_api_get_usage(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct rows r = { .caller = cox_access_caller(call),
                      .asked = (const Coxswain__V1__GetUsageRequest *)message,
                      .answer = COXSWAIN__V1__GET_USAGE_RESPONSE__INIT };
    int by = (int)r.asked->by;

    if (by < COXSWAIN__V1__USAGE_BY__USAGE_BY_UNSPECIFIED || by > COXSWAIN__V1__USAGE_BY__USAGE_BY_MODEL) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_USAGE",
                      "by: expected PROGRAM, TASK, TENANT or MODEL");
        return;
    }
    if (by == COXSWAIN__V1__USAGE_BY__USAGE_BY_MODEL && !r.caller->whole) {
        cox_call_fail(call, COX_RPC_PERMISSION_DENIED, "ALL_TENANTS",
                      "by: usage by model is of all tenants together, and for identities of all tenants");
        return;
    }
    struct router_stats *stats = cox_api_read_router(user);

    if (stats) {
        add_rows(&r, stats);
        r.answer.since = cox_show_time(&r.arena, stats->since_wall_ms);
    }
    cox_rpc_reply(call, &r.answer.base);
    router_stats_free(stats);
    cox_free(r.answer.rows);
    cox_arena_fini(&r.arena);
}
