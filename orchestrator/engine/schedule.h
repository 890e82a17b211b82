/* Schedules: tasks made by the clock.
 *
 * A run is due at a moment of wall time. When that comes, the run is made (a task, as a submission makes
 * one), queued behind the task of the run before it, or skipped, as `overlap` says. A run that is found later
 * than it may be (`catch_up_ms`, at least COX_SCHEDULE_LATE_MS) is skipped. Each of these is one record.
 */
#ifndef ENGINE_SCHEDULE_H
#define ENGINE_SCHEDULE_H

#include "kept.h"

#include "cox/cron.h"

struct schedule {
    struct kept kept; /* entity id: its number */
    /* durable */
    struct cox_slice document, image, cron, zone; /* owned */
    enum cox_overlap overlap;
    int64_t catch_up_ms;
    int64_t next_wall_ms; /* the run that comes next; 0: none ever */
    int64_t last_wall_ms; /* when a task was last made; 0: never */
    cox_task_id last_task;
    uint32_t n_queued;
    uint64_t n_skipped;
    /* derived */
    struct cox_cron parsed;
    struct cox_heap_node look; /* in the engine's `schedules_due`, by wall time: something is to be done */
};

void schedule_apply(struct cox_engine *e, const struct cox_in_schedule *in);
void schedule_delete(struct cox_engine *e, const struct cox_in_schedule *in);
void schedule_task_ended(struct cox_engine *e, const struct cox_task *t); /* TASK_FINISHED of a root */
void schedules_run(struct cox_engine *e);              /* what is due; a bounded part of it */
int64_t schedules_wake_ns(const struct cox_engine *e); /* INT64_MAX: nothing to wait for */
void schedules_recovered(struct cox_engine *e);

void apply_schedule(struct cox_engine *e, uint64_t seq, const struct record *r); /* APPLIED, DELETED, RAN */
void schedule_encode(struct cox_buf *b, const struct schedule *s);
COX_MUST_CHECK enum cox_err schedule_load(struct cox_engine *e, uint64_t id, uint64_t seq,
                                          struct cox_slice bytes);
bool schedule_record_ok(const struct record *r); /* APPLIED: what apply takes for granted */
/* APPLIED, in replay: no other has its name, or one that this one made room for: then the record of its
 * deletion is yet to come. When the log has been replayed, schedules_distinct(). */
bool schedule_name_free(const struct cox_engine *e, uint64_t seq, const struct record *r);
bool schedules_distinct(const struct cox_engine *e);
uint64_t schedules_hash(const struct cox_engine *e, uint64_t h);
void schedules_check(const struct cox_engine *e);
void schedules_free(struct cox_engine *e);

#endif
