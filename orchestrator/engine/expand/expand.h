/* Expansion: steps that no slot runs. They wait for time, a word, steps of their own.
 *
 *     READY ──expand_begin──> WAITING ──expand_end──> what follows any attempt: SUCCEEDED, retry, fallback
 * ... │ └─ its kind: race.c  inner steps of the same frame, the first success wins subtask.c  a frame over a
 * template's image wait.c  time, a signal, an approval again.c  steps that a program asked for, then the
 * program again map.c  the step once for each item
 *
 * To the rest of the engine such a step has an attempt that no worker runs: it is recorded by WAITING, ends
 * by ATTEMPT_ENDED, and is retried, replaced by a fallback, failed as any other. A frame (frame.c) is a task
 * under a step: same pages, same records, same life; its end is told to the step it is under.
 */
#ifndef ENGINE_EXPAND_H
#define ENGINE_EXPAND_H

#include "../state.h"

struct expansion *step_expansion(struct step *s); /* made when it is missing */
void expansion_forget_bytes(struct expansion *x); /* what was fetched of values that are no longer its own */
void expansion_free(struct cox_engine *e, struct step *s); /* e may be NULL: a thawed task's */

/* A READY step's turn to begin, for kinds that no slot runs and for maps. */
void expand_begin(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* Its values are there. `value`: what its template came to; empty without one. */
void expand_begin_with(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice value);
/* Ends the present attempt of a WAITING step; en->next and en->token are set here. */
void expand_end(struct cox_engine *e, struct cox_task *t, uint32_t step, struct record_ended *en);
void expand_fail(struct cox_engine *e, struct cox_task *t, uint32_t step, enum cox_code code,
                 struct cox_slice message);
/* Stops what it has begun; it ends when that has ended: CANCELLED, or TIMED_OUT when its time was up. */
void expand_end_stopped(struct cox_engine *e, struct cox_task *t,
                        uint32_t step); /* nothing of it is left to wait for */
bool expand_is_map(const struct cox_task *t, uint32_t step);
void expand_stop(struct cox_engine *e, struct cox_task *t, uint32_t step);
void expand_timer(struct cox_engine *e, struct expansion *x);
/* After recovery, for a WAITING step: what it has begun is its own again, and nothing goes on yet. */
void expand_adopt(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* The same step goes on, when its tree stands. */
void expand_restore(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* Answers of the compile thread and the store for a WAITING or READY step. */
void expand_asked(struct cox_engine *e, struct evaluation *ev, const struct cox_input *in);
void expand_compiled(struct cox_engine *e, const struct cox_in_compiled *in);
void expand_fetched(struct cox_engine *e, const struct cox_input *input);
void expand_arm(struct cox_engine *e, struct cox_task *t, uint32_t step); /* its timer */
/* Emits WAITING and arms the time limit. wake_wall_ms: 0: none. */
void waiting_begins(struct cox_engine *e, struct cox_task *t, uint32_t step, int64_t wake_wall_ms,
                    struct cox_slice detail);

/* ---- frame.c ---- */
struct cox_task *frame_open(struct cox_engine *e, struct cox_task *t, uint32_t step,
                            const struct record_frame *f); /* parent, step, token are filled in */
struct cox_task *frame_open_item(struct cox_engine *e, struct cox_task *t, uint32_t step, uint64_t item,
                                 struct cox_slice item_json);
/* A frame has finished: `outputs` with their bytes. */
void frame_ended(struct cox_engine *e, struct cox_task *frame, const struct cox_payload *outputs);
void frame_finish_range(struct cox_engine *e, struct cox_task *frame); /* as its entry ended */

/* ---- race.c ---- */
void race_begin(struct cox_engine *e, struct cox_task *t, uint32_t step);
void race_inner_ended(struct cox_engine *e, struct cox_task *t, uint32_t owner);
void race_stop(struct cox_engine *e, struct cox_task *t, uint32_t step);
void inner_close(struct cox_engine *e, struct cox_task *t,
                 uint32_t owner); /* the owner is over: so are they */

/* ---- subtask.c ---- */
void subtask_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice inputs_json);
void subtask_restore(struct cox_engine *e, struct cox_task *t, uint32_t step);
void subtask_compile(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice inputs_json);
/* A frame over what was compiled, whose own sub-tasks are of the templates as they are now. False: `why`;
 * INPUT_INVALID: the document is to blame. */
bool subtask_open(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_in_compiled *in,
                  enum cox_code *ret_code, struct cox_buf *why);

/* ---- wait.c ---- */
void wait_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice until_json);
void approval_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice prompt_json);
void wait_over(struct cox_engine *e, struct cox_task *t, uint32_t step); /* its time has come */
void wait_listen(struct cox_engine *e, struct cox_task *t, uint32_t step);
void wait_take(struct cox_engine *e, struct cox_task *root, struct cox_slice name); /* a signal is there */
/* Errors: COX_ERR_INVALID: the step waits for no approval; DENIED: not this person. */
enum cox_err approval_answer(struct cox_engine *e, struct cox_task *t, uint32_t step,
                             const struct cox_in_approve *in, const char **ret_message);

/* ---- again.c ---- */
void again_decide(const struct cox_task *t, uint32_t step, struct record_ended *en,
                  const struct cox_payload *continuation);
void again_begin(struct cox_engine *e, struct cox_task *t, uint32_t step);
void again_frame_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_task *frame,
                       const struct cox_payload *outputs);
/* {"state", "steps"} for the next call, in the effects' memory; empty: the first call. False: not yet, it is
 * being fetched. */
bool again_resume(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice *ret);
bool again_needs_fetch(struct cox_engine *e, struct cox_task *t, uint32_t step);

#endif
