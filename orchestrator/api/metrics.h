/* Metrics: one table says what there is; /metrics, GetStats, WatchStats, GetHistory and the scaler read it.
 *
 * A metric is read from a source that was filled once, so that all values are of one moment. Reading it is
 * O(samples), of queues O(classes log classes); tenants beyond 200 are counted as "(other)" by the engine
 * already. Thread: the engine's.
 */
#ifndef COX_ORCHESTRATOR_API_METRICS_H
#define COX_ORCHESTRATOR_API_METRICS_H

#include "cox/engine_stats.h"
#include "cox/store.h"

struct router_stats;

enum cox_metric_type { COX_METRIC_COUNTER, COX_METRIC_GAUGE, COX_METRIC_HISTOGRAM, COX_METRIC_SUMMARY };

#define COX_METRIC_LABELS_MAX 3
#define COX_METRIC_CLASSES_MAX 200u /* of a tenant's queues with one reason; the others count as "other" */

/* Why a call was refused before the engine heard of it. */
enum cox_refusal {
    COX_REFUSAL_DRAINING,
    COX_REFUSAL_COMPILING,
    COX_REFUSAL_DISK,
    COX_REFUSAL_MEMORY,
    COX_REFUSAL_IDENTITY,
    COX_REFUSAL_ROLE,
    COX_REFUSAL_TENANT,
    COX_REFUSAL_NR
};

struct cox_metric_source {
    const struct cox_engine *engine;
    const char *version;
    struct cox_engine_stats stats;
    struct cox_store_stats store;
    uint64_t refused[COX_REFUSAL_NR];
    const struct router_stats *router; /* NULL: there are no models */
};

struct cox_sample {
    const char *name; /* with the suffix of its part: "cox_step_run_seconds_sum" */
    bool cumulative;  /* only grows while the process lives */
    bool is_bucket;   /* one of a histogram's buckets */
    struct cox_label labels[COX_METRIC_LABELS_MAX];
    size_t n_labels;
    double value;
};
/* `sample` and what it points to live for the call. */
typedef void cox_on_sample(void *user, const struct cox_sample *sample);

struct cox_metric {
    const char *name;
    enum cox_metric_type type;
    const char *help;
    void (*read)(const struct cox_metric *m, const struct cox_metric_source *src, cox_on_sample *fn,
                 void *user);
};

/* `s` may be NULL. Nothing is refused yet in it, and there are no models: who knows of them says so. */
void cox_metric_source_read(struct cox_metric_source *src, const struct cox_engine *e,
                            const struct cox_store *s, const char *version);
/* In the table's order; *it starts at 0; NULL at the end. */
const struct cox_metric *cox_metric_next(size_t *it);
/* Every sample whose metric's name begins with `prefix`. */
void cox_metrics_read(const struct cox_metric_source *src, const char *prefix, cox_on_sample *fn, void *user);
/* Prometheus text exposition format 0.0.4. */
void cox_metrics_write(const struct cox_metric_source *src, struct cox_buf *out);

#endif
