/* History of metrics at falling resolution, in a fixed amount of memory: rings in this process, empty at its
 * start.
 *
 *     1 s for 10 min, 10 s for 2 h, 1 min for 24 h, 10 min for 7 d
 *
 * A point of a value that only grows is the last one in its span; of others, the mean. At most 512 series
 * (30 KiB each); of those that are not heard of any more, the oldest makes room. Buckets of histograms are
 * left out. Thread: one.
 */
#ifndef COX_ORCHESTRATOR_API_HISTORY_H
#define COX_ORCHESTRATOR_API_HISTORY_H

#include "metrics.h"

#define COX_HISTORY_SERIES_MAX 512u

struct cox_history;

struct cox_history *cox_history_create(void);
void cox_history_destroy(struct cox_history *h); /* NULL is allowed */

/* Samples of one moment; `wall_s` must not fall. A series without a sample is 0 (gauges) or goes on as it
 * was. */
void cox_history_begin(struct cox_history *h, int64_t wall_s);
void cox_history_add(struct cox_history *h, const struct cox_sample *sample);
void cox_history_end(struct cox_history *h);

struct cox_history_query {
    const char *name;  /* a sample's name */
    int64_t since_s;   /* 0: ten minutes before the newest */
    int64_t step_s;    /* 0: what is kept */
    uint32_t n_points; /* [out] of each series */
    int64_t start_s;   /* [out] of the first point */
};
/* Fixes the query's points: the finest resolution that reaches back to `since_s`, in spans of at least
 * `step_s`. False: nothing is kept yet. */
bool cox_history_plan(const struct cox_history *h, struct cox_history_query *q);
struct cox_history_series {
    const struct cox_label *labels;
    size_t n_labels;
};
/* Series of a planned query, in the order in which they were first heard of: *it starts at 0. Fills `points`
 * (q->n_points). False at the end. */
bool cox_history_next(const struct cox_history *h, const struct cox_history_query *q, size_t *it,
                      struct cox_history_series *ret, double *points);

#endif
