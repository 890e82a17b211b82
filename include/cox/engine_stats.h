/* Numbers of an engine, kept on each transition: reading is O(what is asked for). Thread: the engine's. */
#ifndef COX_ENGINE_STATS_H
#define COX_ENGINE_STATS_H

#include "cox/engine.h"

#define COX_HISTOGRAM_BUCKETS 20
/* Bounds in microseconds of all histograms: 100 us .. 10 h; the last bucket is the rest. */
extern const int64_t cox_histogram_bounds_us[COX_HISTOGRAM_BUCKETS - 1];
struct cox_histogram {
    uint64_t n[COX_HISTOGRAM_BUCKETS], sum_us;
};

/* READY steps of one tenant, class and reason, or (NONE) attempts that run: *it starts at 0; false at the
 * end. */
struct cox_queue_view {
    struct cox_slice tenant, class; /* class: the handler */
    enum cox_step_reason reason;
    uint64_t n;
};
bool cox_engine_next_queue(const struct cox_engine *e, size_t *it, struct cox_queue_view *ret);

/* Slots of attached workers by their label `zone`, "" for those without; zones beyond the first 200 are
 * "other". *it starts at 0; false at the end. */
struct cox_zone_view {
    struct cox_slice name;
    uint64_t n_slots, n_busy;
};
bool cox_engine_next_zone(const struct cox_engine *e, size_t *it, struct cox_zone_view *ret);

struct cox_engine_stats {
    uint64_t steps_finished_by_kind[COX_KIND_NR][COX_STEP_STATUS_NR];
    struct cox_histogram ready_to_start, run, task_duration;
    uint64_t n_tasks_by_status[COX_TASK_STATUS_NR]; /* live ones, roots only; WAITING and PAUSED include
                                                       evicted ones */
    uint64_t n_tasks_asleep;
    uint64_t n_slots_busy, n_workers_cordoned, n_workers_draining, n_workers_disconnected;
    uint64_t refused_full; /* submissions */
    uint64_t n_live_tasks, n_live_steps;
    uint64_t n_tasks_quarantined; /* in none of the counts of tasks */
    uint64_t n_ready, n_running, n_workers, n_slots;
    uint64_t tasks_finished[COX_TASK_STATUS_NR];
    uint64_t steps_finished[COX_STEP_STATUS_NR];
    uint64_t attempts_assigned, attempts_lost, results_stale;
};
void cox_engine_stats(const struct cox_engine *e, struct cox_engine_stats *ret);

#endif
