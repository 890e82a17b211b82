/* StatsService, and the clock behind its history: once a second all metrics are read, for whoever asks. */
#include "history.h"
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "coxd_config.h"

#include "coxswain/v1/stats_service.pb-c.h"

#include <string.h>

#define NS_PER_S 1000000000LL
#define EVERY_MIN_MS 100
#define EVERY_MAX_MS (3600 * 1000LL)
#define SLOW_LEN ((size_t)256 << 10) /* not yet read: what follows is left out */

struct cox_stats {
    struct cox_op tick; /* only its wait */
    struct cox_history *history;
};

static void source_read(const struct cox_api *a, struct cox_metric_source *src)
{
    cox_metric_source_read(src, cox_driver_engine(a->driver), cox_driver_store(a->driver), COXD_VERSION);
    memcpy(src->refused, a->refused, sizeof(src->refused));
    src->router = cox_api_read_router(a);
    if (!a->access)
        return;
    src->refused[COX_REFUSAL_IDENTITY] = cox_access_n_refused(a->access, ACCESS_REFUSED_IDENTITY);
    src->refused[COX_REFUSAL_ROLE] = cox_access_n_refused(a->access, ACCESS_REFUSED_ROLE);
    src->refused[COX_REFUSAL_TENANT] = cox_access_n_refused(a->access, ACCESS_REFUSED_TENANT);
}

static void source_fini(struct cox_metric_source *src)
{
    router_stats_free((struct router_stats *)(uintptr_t)src->router);
}

void cox_metrics_text(struct cox_api *a, struct cox_buf *out)
{
    struct cox_metric_source src;

    source_read(a, &src);
    cox_metrics_write(&src, out);
    source_fini(&src);
}

/* ---- the clock ---- */

static void keep_sample(void *user, const struct cox_sample *s)
{
    if (strncmp(s->name, "cox_endpoint_", 13) !=
        0) /* there may be ten thousand, for whom there is Prometheus */
        cox_history_add(user, s);
}

static void on_tick(struct cox_op *op)
{
    struct cox_stats *st = COX_CONTAINER_OF(op, struct cox_stats, tick);
    struct cox_now now = cox_driver_now(op->api->driver);
    struct cox_metric_source src;

    source_read(op->api, &src);
    cox_history_begin(st->history, now.wall_ms / 1000);
    cox_metrics_read(&src, "", keep_sample, st->history);
    cox_history_end(st->history);
    source_fini(&src);
    cox_op_wait(op, now.mono_ns + NS_PER_S);
}

void cox_stats_start(struct cox_api *a)
{
    struct cox_stats *st = COX_NEW(struct cox_stats);

    st->history = cox_history_create();
    st->tick.api = a;
    st->tick.on_time = on_tick;
    cox_list_init(&st->tick.node);
    cox_heap_node_init(&st->tick.wait);
    a->stats = st;
    cox_op_wait(&st->tick, cox_driver_now(a->driver).mono_ns);
}

void cox_stats_stop(struct cox_api *a)
{
    if (!a->stats)
        return;
    cox_op_unwait(&a->stats->tick);
    cox_history_destroy(a->stats->history);
    cox_free(a->stats);
}

/* ---- values of now ---- */

struct shown_samples {
    const char *tenant; /* only what is its own; NULL: all */
    struct cox_arena arena;
    Coxswain__V1__Sample **items;
    size_t n, cap;
};

static Coxswain__V1__Sample__LabelsEntry *show_label(struct cox_arena *a, const struct cox_label *l)
{
    Coxswain__V1__Sample__LabelsEntry *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__sample__labels_entry__init(m);
    m->key = cox_show_text(a, l->name);
    m->value = cox_show_text(a, l->value);
    return m;
}

/* Who is bound to tenants sees what carries their name: the rest is of all together. */
static bool is_shown(const char *tenant, const struct cox_label *labels, size_t n_labels)
{
    bool theirs = !tenant || COX_PLANTED("statistics-of-all");

    for (size_t i = 0; i < n_labels && !theirs; i++)
        theirs = cox_slice_is(labels[i].name, "tenant") && cox_slice_is(labels[i].value, tenant);
    return theirs;
}

static void show_sample(void *user, const struct cox_sample *s)
{
    struct shown_samples *out = user;

    if (!is_shown(out->tenant, s->labels, s->n_labels))
        return;
    Coxswain__V1__Sample *m = cox_arena_alloc(&out->arena, sizeof(*m));

    coxswain__v1__sample__init(m);
    m->name = cox_show_text(&out->arena, cox_slice_str(s->name));
    m->value = s->value;
    m->labels = cox_arena_alloc(&out->arena, (s->n_labels + 1) * sizeof(*m->labels));
    for (; m->n_labels < s->n_labels; m->n_labels++)
        m->labels[m->n_labels] = show_label(&out->arena, &s->labels[m->n_labels]);
    if (out->n == out->cap) {
        out->cap = out->cap ? out->cap * 2 : 64;
        out->items = cox_realloc(out->items, out->cap, sizeof(*out->items));
    }
    out->items[out->n++] = m;
}

static void show_samples(const struct cox_api *a, const char *prefix, struct shown_samples *out)
{
    struct cox_metric_source src;

    source_read(a, &src);
    cox_metrics_read(&src, prefix, show_sample, out);
    source_fini(&src);
}

static void shown_samples_fini(struct shown_samples *out)
{
    cox_arena_fini(&out->arena);
    cox_free(out->items);
}

void cox_api_get_stats(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetStatsRequest *m = (const Coxswain__V1__GetStatsRequest *)message;
    Coxswain__V1__GetStatsResponse answer = COXSWAIN__V1__GET_STATS_RESPONSE__INIT;
    const struct cox_caller *caller = cox_access_caller(call);
    struct shown_samples shown = { .tenant = caller->whole ? NULL : caller->tenant };
    struct cox_api *a = user;

    show_samples(a, m->prefix, &shown);
    answer.time = cox_show_time(&shown.arena, cox_driver_now(a->driver).wall_ms);
    answer.samples = shown.items;
    answer.n_samples = shown.n;
    cox_rpc_reply(call, &answer.base);
    shown_samples_fini(&shown);
}

void cox_api_get_metrics(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    Coxswain__V1__GetMetricsResponse answer = COXSWAIN__V1__GET_METRICS_RESPONSE__INIT;
    struct cox_buf text = { 0 };

    (void)message;
    cox_metrics_text(user, &text);
    answer.text = (char *)(uintptr_t)cox_buf_cstr(&text);
    cox_rpc_reply(call, &answer.base);
    cox_buf_fini(&text);
}

/* ---- history ---- */

static Google__Protobuf__Duration *show_duration(struct cox_arena *a, int64_t s)
{
    Google__Protobuf__Duration *d = cox_arena_alloc(a, sizeof(*d));

    google__protobuf__duration__init(d);
    d->seconds = s;
    return d;
}

static Coxswain__V1__Series *show_series(struct cox_arena *a, const struct cox_history_series *s,
                                         const struct cox_history_query *q, double *points)
{
    Coxswain__V1__Series *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__series__init(m);
    m->labels = cox_arena_alloc(a, (s->n_labels + 1) * sizeof(*m->labels));
    for (; m->n_labels < s->n_labels; m->n_labels++) {
        Coxswain__V1__Series__LabelsEntry *entry = cox_arena_alloc(a, sizeof(*entry));
        coxswain__v1__series__labels_entry__init(entry);
        entry->key = cox_show_text(a, s->labels[m->n_labels].name);
        entry->value = cox_show_text(a, s->labels[m->n_labels].value);
        m->labels[m->n_labels] = entry;
    }
    m->start = cox_show_time(a, q->start_s * 1000);
    m->step = show_duration(a, q->step_s);
    m->values = points;
    m->n_values = q->n_points;
    return m;
}

static bool is_metric(const char *name)
{
    static const char *const suffixes[] = { "", "_sum", "_count" };
    const struct cox_metric *m;

    for (size_t it = 0; (m = cox_metric_next(&it));) {
        bool parts = m->type == COX_METRIC_HISTOGRAM || m->type == COX_METRIC_SUMMARY;
        size_t len = strlen(m->name);
        for (size_t i = parts ? 1 : 0; i < (parts ? 3 : 1); i++)
            if (strncmp(name, m->name, len) == 0 && strcmp(name + len, suffixes[i]) == 0)
                return true;
    }
    return false;
}

void cox_api_get_history(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetHistoryRequest *m = (const Coxswain__V1__GetHistoryRequest *)message;
    Coxswain__V1__GetHistoryResponse answer = COXSWAIN__V1__GET_HISTORY_RESPONSE__INIT;
    struct cox_api *a = user;
    struct cox_history_query q = { .name = m->metric };
    const struct cox_caller *caller = cox_access_caller(call);
    struct cox_history_series s;
    struct cox_arena arena = { 0 };
    size_t it = 0;

    if (!is_metric(m->metric)) {
        cox_call_fail(call, COX_RPC_NOT_FOUND, "NO_METRIC",
                      "metric: no \"%s\"; GetStats lists them (of a histogram: NAME_sum, NAME_count)",
                      m->metric);
        return;
    }
    if (m->since && m->since->seconds > 0)
        q.since_s = m->since->seconds;
    if (m->step && m->step->seconds > 0)
        q.step_s = m->step->seconds;
    if (!cox_history_plan(a->stats->history, &q)) {
        cox_rpc_reply(call, &answer.base);
        return;
    }
    answer.series = cox_arena_alloc(&arena, COX_HISTORY_SERIES_MAX * sizeof(*answer.series));
    for (;;) {
        double *points = cox_arena_alloc(&arena, q.n_points * sizeof(*points));
        if (!cox_history_next(a->stats->history, &q, &it, &s, points))
            break;
        if (!is_shown(caller->whole ? NULL : caller->tenant, s.labels, s.n_labels))
            continue;
        answer.series[answer.n_series++] = show_series(&arena, &s, &q, points);
    }
    cox_rpc_reply(call, &answer.base);
    cox_arena_fini(&arena);
}

/* ---- again and again ---- */

struct stats_watch {
    struct cox_op op;
    char *prefix;
    int64_t every_ns;
};

static void watch_send(struct cox_op *op)
{
    struct stats_watch *w = COX_CONTAINER_OF(op, struct stats_watch, op);
    Coxswain__V1__WatchStatsResponse m = COXSWAIN__V1__WATCH_STATS_RESPONSE__INIT;
    struct shown_samples shown = { .tenant = op->whole ? NULL : op->tenant };
    struct cox_now now = cox_driver_now(op->api->driver);

    cox_op_wait(op, now.mono_ns + w->every_ns);
    if (cox_rpc_outbox_len(op->call) > SLOW_LEN)
        return;
    show_samples(op->api, w->prefix, &shown);
    m.time = cox_show_time(&shown.arena, now.wall_ms);
    m.samples = shown.items;
    m.n_samples = shown.n;
    cox_rpc_send(op->call, &m.base);
    shown_samples_fini(&shown);
}

static void watch_gone(struct cox_op *op)
{
    struct stats_watch *w = COX_CONTAINER_OF(op, struct stats_watch, op);

    cox_op_fini(op);
    cox_free(w->prefix);
    cox_free(w);
}

void cox_api_watch_stats(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__WatchStatsRequest *m = (const Coxswain__V1__WatchStatsRequest *)message;
    bool sane = !m->every || (m->every->seconds >= 0 && m->every->seconds <= EVERY_MAX_MS / 1000);
    int64_t every_ms = m->every && sane ? m->every->seconds * 1000 + m->every->nanos / 1000000 : 1000;

    if (!sane || every_ms < EVERY_MIN_MS || every_ms > EVERY_MAX_MS) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_SPAN", "every: expected 100 ms to 1 h");
        return;
    }
    struct stats_watch *w = COX_NEW(struct stats_watch);

    cox_op_init(&w->op, user, call);
    w->op.on_gone = watch_gone;
    w->op.on_time = watch_send;
    w->op.endless = true;
    w->prefix = cox_strdup(m->prefix);
    w->every_ns = every_ms * 1000000;
    watch_send(&w->op);
}
