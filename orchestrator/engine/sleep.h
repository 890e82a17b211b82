/* Tasks that leave memory and come back, run again, or begin as a copy of another. */
#ifndef ENGINE_SLEEP_H
#define ENGINE_SLEEP_H

#include "state.h"

/* ---- sleep.c: tasks that wait leave memory and come back ---- */
void task_may_rest(struct cox_engine *e, struct cox_task *t);  /* something of it has come to rest */
void task_rested(struct cox_engine *e, struct cox_task *root); /* TIMER_REST */
void sleeper_timer(struct cox_engine *e, struct sleeper *sl);
/* True when the task sleeps: the input was kept, it is handled once the task is back. */
bool sleeper_keeps(struct cox_engine *e, const struct cox_input *in);
void sleeper_loaded(struct cox_engine *e, const struct cox_in_loaded *in);
void sleepers_recovered(struct cox_engine *e);
void sleepers_free(struct cox_engine *e);
void apply_evicted(struct cox_engine *e, uint64_t seq, const struct record *r);
/* Replay keeps frames that have ended and went; they go now, and are handed to the archive once more. */
void frames_part(struct cox_engine *e, struct cox_task *root);
void apply_woken(struct cox_engine *e, uint64_t seq, const struct record *r);
void sleeper_encode(struct cox_buf *b, const struct sleeper *sl);
COX_MUST_CHECK enum cox_err sleeper_load(struct cox_engine *e, uint64_t id, uint64_t seq,
                                         struct cox_slice bytes);

/* ---- revive.c: tasks that run again, and tasks made from others ---- */
void task_retry(struct cox_engine *e, const struct cox_in_retry *in);
void task_fork(struct cox_engine *e, const struct cox_in_fork *in);
void apply_revived(struct cox_engine *e, uint64_t seq, const struct record *r);
void apply_forked(struct cox_engine *e, uint64_t seq, const struct record *r);
void task_claim_values(struct cox_engine *e, cox_task_id fork, cox_task_id from);

#endif
