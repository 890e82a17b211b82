#include "metrics.h"

#include "metrics_models.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define US_PER_S 1e6
#define NAME_LEN_MAX 64

void cox_metric_source_read(struct cox_metric_source *src, const struct cox_engine *e,
                            const struct cox_store *s, const char *version)
{
    memset(src, 0, sizeof(*src));
    src->engine = e;
    src->version = version;
    cox_engine_stats(e, &src->stats);
    if (s)
        cox_store_stats(s, &src->store);
}

/* ---- saying ---- */

struct said {
    const struct cox_metric *metric;
    cox_on_sample *fn;
    void *user;
};

static struct cox_label label(const char *name, const char *value)
{
    return (struct cox_label){ cox_slice_str(name), cox_slice_str(value) };
}

static void say(const struct said *s, double value, size_t n_labels, struct cox_label a, struct cox_label b)
{
    struct cox_sample sample = { .name = s->metric->name,
                                 .cumulative = s->metric->type != COX_METRIC_GAUGE,
                                 .labels = { a, b },
                                 .n_labels = n_labels,
                                 .value = value };

    s->fn(s->user, &sample);
}

static void say_plain(const struct said *s, uint64_t value)
{
    say(s, (double)value, 0, label("", ""), label("", ""));
}

static void say_one(const struct said *s, const char *name, const char *text, uint64_t value)
{
    say(s, (double)value, 1, label(name, text), label("", ""));
}

static void say_part(const struct said *s, const char *suffix, double value, const char *le)
{
    char name[NAME_LEN_MAX];
    struct cox_sample sample = { .name = name, .cumulative = true, .value = value, .is_bucket = le != NULL };

    snprintf(name, sizeof(name), "%s%s", s->metric->name, suffix);
    if (le)
        sample.labels[sample.n_labels++] = label("le", le);
    s->fn(s->user, &sample);
}

static void say_histogram(const struct said *s, const struct cox_histogram *h)
{
    uint64_t n = 0;

    for (int i = 0; i < COX_HISTOGRAM_BUCKETS; i++) {
        char le[32] = "+Inf";
        if (i < COX_HISTOGRAM_BUCKETS - 1)
            snprintf(le, sizeof(le), "%g", (double)cox_histogram_bounds_us[i] / US_PER_S);
        n += h->n[i];
        say_part(s, "_bucket", (double)n, le);
    }
    say_part(s, "_sum", (double)h->sum_us / US_PER_S, NULL);
    say_part(s, "_count", (double)n, NULL);
}

/* ---- the metrics ---- */

#define READ(fn_name)                                                                                        \
    static void fn_name(const struct cox_metric *m, const struct cox_metric_source *src, cox_on_sample *fn,  \
                        void *user)
#define SAID (&(const struct said){ m, fn, user })

READ(read_steps_finished)
{
    for (int kind = COX_KIND_NONE + 1; kind < COX_KIND_NR; kind++)
        for (int st = COX_STEP_SUCCEEDED; st < COX_STEP_STATUS_NR; st++)
            if (src->stats.steps_finished_by_kind[kind][st] > 0)
                say(SAID, (double)src->stats.steps_finished_by_kind[kind][st], 2,
                    label("status", cox_step_status_text((enum cox_step_status)st)),
                    label("kind", cox_step_kind_text((enum cox_step_kind)kind)));
}

READ(read_tasks_finished)
{
    for (int st = COX_TASK_SUCCEEDED; st < COX_TASK_STATUS_NR; st++)
        say_one(SAID, "status", cox_task_status_text((enum cox_task_status)st),
                src->stats.tasks_finished[st]);
}

READ(read_tasks)
{
    for (int st = COX_TASK_PENDING; st < COX_TASK_SUCCEEDED; st++)
        say_one(SAID, "status", cox_task_status_text((enum cox_task_status)st),
                src->stats.n_tasks_by_status[st]);
}

READ(read_tasks_asleep)
{
    say_plain(SAID, src->stats.n_tasks_asleep);
}

READ(read_tasks_quarantined)
{
    say_plain(SAID, src->stats.n_tasks_quarantined);
}

READ(read_steps)
{
    say_plain(SAID, src->stats.n_live_steps);
}

READ(read_steps_running)
{
    say_plain(SAID, src->stats.n_running);
}

static const char *reason_text(enum cox_step_reason reason)
{
    static const char *const texts[COX_REASON_NR] = {
        [COX_REASON_NO_WORKER] = "NO_WORKER",     [COX_REASON_NO_CAPACITY] = "NO_CAPACITY",
        [COX_REASON_CONCURRENCY] = "CONCURRENCY", [COX_REASON_RATE] = "RATE",
        [COX_REASON_AFFINITY] = "AFFINITY",       [COX_REASON_VERSION] = "VERSION",
    };

    return texts[reason] ? texts[reason] : "OTHER";
}

static int by_tenant_reason_class(const void *left, const void *right)
{
    const struct cox_queue_view *a = left, *b = right;
    int order = cox_slice_cmp(a->tenant, b->tenant);

    if (order == 0)
        order = (a->reason > b->reason) - (a->reason < b->reason);
    return order ? order : cox_slice_cmp(a->class, b->class);
}

static bool same_group(const struct cox_queue_view *a, const struct cox_queue_view *b)
{
    return a->reason == b->reason && cox_slice_eq(a->tenant, b->tenant);
}

/* Classes that differ in resources or requirements are one queue to those who watch it. Documents name
 * handlers as they like, and each name would be a series for ever: so they are bounded. */
READ(read_queue)
{
    struct cox_queue_view *all = NULL, v;
    size_t n = 0, cap = 0, it = 0;

    while (cox_engine_next_queue(src->engine, &it, &v)) {
        if (v.reason == COX_REASON_NONE)
            continue; /* it runs */
        if (n == cap)
            all = cox_realloc(all, cap = cap ? cap * 2 : 64, sizeof(*all));
        all[n++] = v;
    }
    if (n > 0)
        qsort(all, n, sizeof(*all), by_tenant_reason_class);
    for (size_t i = 0, next, shown = 0; i < n; i = next) {
        uint64_t depth = 0;
        bool rest = shown == COX_METRIC_CLASSES_MAX;

        for (next = i; next < n && same_group(&all[i], &all[next]) &&
                       (rest || cox_slice_eq(all[i].class, all[next].class));
             next++)
            depth += all[next].n;
        struct cox_sample sample = { .name = m->name, .n_labels = 3, .value = (double)depth };
        sample.labels[0] = (struct cox_label){ cox_slice_str("tenant"), all[i].tenant };
        sample.labels[1] =
            (struct cox_label){ cox_slice_str("class"), rest ? cox_slice_str("other") : all[i].class };
        sample.labels[2] = label("reason", reason_text(all[i].reason));
        fn(user, &sample);
        shown = next < n && same_group(&all[i], &all[next]) ? shown + 1 : 0;
    }
    cox_free(all);
}

READ(read_slots)
{
    struct cox_zone_view z;
    size_t n = 0;

    for (size_t it = 0; cox_engine_next_zone(src->engine, &it, &z); n++) {
        struct cox_label zone = { cox_slice_str("zone"), z.name };
        say(SAID, (double)z.n_busy, 2, label("state", "busy"), zone);
        say(SAID, (double)(z.n_slots - z.n_busy), 2, label("state", "free"), zone);
    }
    if (n == 0) { /* a number, and not its absence, is what alerts are made of */
        say(SAID, 0, 2, label("state", "busy"), label("zone", ""));
        say(SAID, 0, 2, label("state", "free"), label("zone", ""));
    }
}

READ(read_workers)
{
    const struct cox_engine_stats *s = &src->stats;

    say_one(SAID, "state", "attached", s->n_workers - s->n_workers_cordoned - s->n_workers_draining);
    say_one(SAID, "state", "cordoned", s->n_workers_cordoned);
    say_one(SAID, "state", "draining", s->n_workers_draining);
    say_one(SAID, "state", "disconnected", s->n_workers_disconnected);
}

READ(read_ready_to_start)
{
    say_histogram(SAID, &src->stats.ready_to_start);
}

READ(read_run)
{
    say_histogram(SAID, &src->stats.run);
}

READ(read_task_duration)
{
    say_histogram(SAID, &src->stats.task_duration);
}

READ(read_attempts)
{
    say_plain(SAID, src->stats.attempts_assigned);
}

READ(read_attempts_lost)
{
    say_plain(SAID, src->stats.attempts_lost);
}

READ(read_stale)
{
    say_plain(SAID, src->stats.results_stale);
}

READ(read_refused)
{
    static const char *const texts[COX_REFUSAL_NR] = {
        [COX_REFUSAL_DRAINING] = "draining", [COX_REFUSAL_COMPILING] = "compiling",
        [COX_REFUSAL_DISK] = "disk",         [COX_REFUSAL_MEMORY] = "memory",
        [COX_REFUSAL_IDENTITY] = "identity", [COX_REFUSAL_ROLE] = "role",
        [COX_REFUSAL_TENANT] = "tenant",
    };

    say_one(SAID, "reason", "full", src->stats.refused_full);
    for (int i = 0; i < COX_REFUSAL_NR; i++)
        say_one(SAID, "reason", texts[i], src->refused[i]);
}

READ(read_commit)
{
    say_part(SAID, "_sum", (double)src->store.commit_ns_total / 1e9, NULL);
    say_part(SAID, "_count", (double)src->store.commits, NULL);
}

READ(read_store_bytes)
{
    say_one(SAID, "file", "log", src->store.log_file_bytes);
    say_one(SAID, "file", "state", src->store.state_file_bytes);
    say_one(SAID, "file", "index", src->store.index_file_bytes);
    say_one(SAID, "file", "blobs", src->store.blob_bytes);
}

READ(read_store_records)
{
    say_plain(SAID, src->store.records);
}

READ(read_store_log_bytes)
{
    say_plain(SAID, src->store.log_bytes);
}

READ(read_archived)
{
    say_plain(SAID, src->store.n_archived);
}

READ(read_swept)
{
    say_plain(SAID, src->store.n_swept);
}

READ(read_build)
{
    say_one(SAID, "version", src->version, 1);
}

static const struct cox_metric metrics[] = {
    { "cox_steps_finished_total", COX_METRIC_COUNTER, "Steps that ended, by how and by kind.",
      read_steps_finished },
    { "cox_tasks_finished_total", COX_METRIC_COUNTER, "Tasks that ended, by how.", read_tasks_finished },
    { "cox_tasks", COX_METRIC_GAUGE, "Live tasks, those that sleep included.", read_tasks },
    { "cox_tasks_asleep", COX_METRIC_GAUGE, "Live tasks that only wait and are not in memory.",
      read_tasks_asleep },
    { "cox_tasks_quarantined", COX_METRIC_GAUGE, "Tasks that recovery left alone, for it crashed over them.",
      read_tasks_quarantined },
    { "cox_steps", COX_METRIC_GAUGE, "Steps of live tasks.", read_steps },
    { "cox_steps_running", COX_METRIC_GAUGE, "Attempts that workers have.", read_steps_running },
    { "cox_queue_depth", COX_METRIC_GAUGE, "READY steps that wait, by tenant, handler and reason.",
      read_queue },
    { "cox_slots", COX_METRIC_GAUGE, "Slots of attached workers.", read_slots },
    { "cox_workers", COX_METRIC_GAUGE, "Workers, by state.", read_workers },
    { "cox_step_ready_to_start_seconds", COX_METRIC_HISTOGRAM,
      "Time from READY, backoff over, to a worker: gates, affinity and queues.", read_ready_to_start },
    { "cox_step_run_seconds", COX_METRIC_HISTOGRAM, "Time that attempts ran, as workers report it.",
      read_run },
    { "cox_task_duration_seconds", COX_METRIC_HISTOGRAM, "Time from a task's acceptance to its end.",
      read_task_duration },
    { "cox_attempts_assigned_total", COX_METRIC_COUNTER, "Attempts given to workers.", read_attempts },
    { "cox_attempts_lost_total", COX_METRIC_COUNTER, "Attempts lost with their worker.", read_attempts_lost },
    { "cox_results_stale_total", COX_METRIC_COUNTER,
      "Results of attempts that were no longer the present one.", read_stale },
    { "cox_refused_total", COX_METRIC_COUNTER,
      "Calls refused: submissions, retries and forks for want of room, all for who makes them; by reason.",
      read_refused },
    { "cox_store_commit_seconds", COX_METRIC_SUMMARY, "Time that group commits of the log took.",
      read_commit },
    { "cox_store_bytes", COX_METRIC_GAUGE, "Bytes on disk, by file.", read_store_bytes },
    { "cox_store_records_total", COX_METRIC_COUNTER, "Records appended to the log.", read_store_records },
    { "cox_store_log_bytes_total", COX_METRIC_COUNTER, "Bytes appended to the log.", read_store_log_bytes },
    { "cox_store_archived_total", COX_METRIC_COUNTER, "Tasks handed to the archive.", read_archived },
    { "cox_store_swept_total", COX_METRIC_COUNTER, "Values removed because nothing referred to them.",
      read_swept },
    { "cox_model_queue_depth", COX_METRIC_GAUGE, "Model calls that wait for an endpoint.",
      cox_metric_model_queue_depth },
    { "cox_model_in_flight", COX_METRIC_GAUGE, "Model calls under way.", cox_metric_model_in_flight },
    { "cox_model_calls_total", COX_METRIC_COUNTER, "Model calls that ended, by how.",
      cox_metric_model_calls },
    { "cox_model_retries_total", COX_METRIC_COUNTER, "Tries of model calls beyond the first.",
      cox_metric_model_retries },
    { "cox_model_fallbacks_total", COX_METRIC_COUNTER, "Model calls that went on to another model.",
      cox_metric_model_fallbacks },
    { "cox_model_cache_answers_total", COX_METRIC_COUNTER, "Model calls answered from an earlier answer.",
      cox_metric_model_cache_answers },
    { "cox_model_ttft_seconds", COX_METRIC_HISTOGRAM, "Time from a model call's arrival to its first token.",
      cox_metric_model_ttft },
    { "cox_model_tokens_total", COX_METRIC_COUNTER, "Tokens of model calls, by direction.",
      cox_metric_model_tokens },
    { "cox_model_cached_tokens_total", COX_METRIC_COUNTER, "Input tokens that endpoints found in a cache.",
      cox_metric_model_cached },
    { "cox_model_wasted_tokens_total", COX_METRIC_COUNTER, "Tokens of tries that nothing came of.",
      cox_metric_model_wasted },
    { "cox_model_cost_micros_total", COX_METRIC_COUNTER,
      "What model calls cost, in millionths of the currency.", cox_metric_model_cost },
    { "cox_endpoint_up", COX_METRIC_GAUGE, "1 while an endpoint of a model takes calls.",
      cox_metric_endpoint_up },
    { "cox_endpoint_in_flight", COX_METRIC_GAUGE, "Model calls under way at an endpoint.",
      cox_metric_endpoint_in_flight },
    { "cox_build_info", COX_METRIC_GAUGE, "Always 1; the version is in its label.", read_build },
};

const struct cox_metric *cox_metric_next(size_t *it)
{
    return *it < sizeof(metrics) / sizeof(metrics[0]) ? &metrics[(*it)++] : NULL;
}

void cox_metrics_read(const struct cox_metric_source *src, const char *prefix, cox_on_sample *fn, void *user)
{
    const struct cox_metric *m;
    size_t len = strlen(prefix);

    for (size_t it = 0; (m = cox_metric_next(&it));)
        if (strncmp(m->name, prefix, len) == 0)
            m->read(m, src, fn, user);
}

/* ---- Prometheus' text ---- */

static void put_number(struct cox_buf *out, double value)
{
    if (value == (double)(int64_t)value && value < 9007199254740992.0 && value > -9007199254740992.0)
        cox_buf_printf(out, "%lld", (long long)value);
    else
        cox_buf_printf(out, "%.9g", value);
}

static void put_label_value(struct cox_buf *out, struct cox_slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.data[i];
        if (c == '\n')
            cox_buf_append_str(out, "\\n");
        else if (c == '\\' || c == '"')
            cox_buf_printf(out, "\\%c", c);
        else
            cox_put_u8(out, c);
    }
}

static void write_sample(void *user, const struct cox_sample *s)
{
    struct cox_buf *out = user;

    cox_buf_append_str(out, s->name);
    for (size_t i = 0; i < s->n_labels; i++) {
        cox_buf_append_str(out, i == 0 ? "{" : ",");
        cox_buf_append_slice(out, s->labels[i].name);
        cox_buf_append_str(out, "=\"");
        put_label_value(out, s->labels[i].value);
        cox_buf_append_str(out, "\"");
    }
    cox_buf_append_str(out, s->n_labels > 0 ? "} " : " ");
    put_number(out, s->value);
    cox_put_u8(out, '\n');
}

void cox_metrics_write(const struct cox_metric_source *src, struct cox_buf *out)
{
    static const char *const types[] = { "counter", "gauge", "histogram", "summary" };
    const struct cox_metric *m;

    for (size_t it = 0; (m = cox_metric_next(&it));) {
        cox_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, types[m->type]);
        m->read(m, src, write_sample, out);
    }
}
