/* Numbers, kept on each transition: nothing here looks through tasks or workers. They are derived, and begin
 * at zero with the process but for what is there now (live tasks, workers, queues). */
#ifndef ENGINE_STATS_H
#define ENGINE_STATS_H

#include "state.h"

struct zone {
    char *name;
    uint64_t n_slots, n_busy;
};

#define STATS_TENANTS_MAX 200u /* told apart */
#define STATS_TENANT_OTHER 1u  /* the others, together: under a name that no tenant can have, and so see */
#define STATS_TENANT_OTHER_TEXT "(other)"
#define STATS_ZONES_MAX 200u

void histogram_add(struct cox_histogram *h, int64_t us);

/* The tenant of a root in memory or asleep, in the effects; empty: it is not here. */
struct cox_slice tenant_dup(struct cox_engine *e, cox_task_id root);
/* The number of a task's tenant, from 1. */
uint32_t stats_tenant(struct cox_engine *e, struct cox_task *t);
void stats_queued(struct cox_engine *e, struct class *c, const struct step *s, int n);
void stats_running(struct cox_engine *e, struct class *base, struct cox_task *t, int n);
void stats_gated(struct cox_engine *e, struct cox_task *t, const struct step *s, bool is_rate, int n);

void stats_task(struct cox_engine *e, struct cox_task *t); /* its status may have changed */
void stats_task_gone(struct cox_engine *e, struct cox_task *t);
void stats_task_finished(struct cox_engine *e, const struct cox_task *t, enum cox_task_status status);
void stats_step_final(struct cox_engine *e, const struct cox_task *t, uint32_t step,
                      enum cox_step_status status);
void stats_steps_cancelled(struct cox_engine *e, const struct cox_task *t); /* before its STOPPING record */
void stats_started(struct cox_engine *e, struct step *s); /* it has been given to a worker */

void stats_worker(struct cox_engine *e, struct worker *w); /* its state may have changed */
/* An attempt was added to (1) or taken from (-1) a worker's, whose n_attempts counts it already. */
void stats_slot(struct cox_engine *e, const struct worker *w, int n);
void stats_slots(struct cox_engine *e, struct worker *w, int n); /* it attached (1), detached (-1) */
void stats_free(struct cox_engine *e);

#endif
