/* Budgets: who pays for what a task does, and whether there is anything left.
 *
 * An ACCOUNT is a task with a document of its own: a root, or a frame under it (a sub-task's, of a template).
 * Items of maps have none and use that of what they are in. Whatever is begun, reserved and used in a frame
 * goes to its account and to every account above it, up to the root; what is to begin asks each of them. So a
 * sub-task has what is left of its parent's budget, and of its own.
 *
 *     BUDGET_GOES     there is something left in each
 *     BUDGET_WAITS    only what model calls under way have reserved stands in the way: it begins as they end
 *     BUDGET_SPENT    something is used up: it fails with BUDGET_EXHAUSTED
 *
 * A call reserves what it may use at most (struct reservation), and is let in while anything is left. So at
 * most one call under way has been promised more than there was: by so much may a budget be exceeded.
 */
#ifndef ENGINE_BUDGET_H
#define ENGINE_BUDGET_H

#include "state.h"

struct cox_task *budget_account(struct cox_task *t);
struct cox_task *budget_above(struct cox_task *account); /* NULL: it is the root */

/* ---- may it begin? ---- */
enum budget_verdict { BUDGET_GOES, BUDGET_WAITS, BUDGET_SPENT };
/* An attempt of this class. `ret_why`, of what is SPENT: a text in the effects. O(depth). */
enum budget_verdict budget_asks(struct cox_engine *e, struct cox_task *t, const struct class *c,
                                const char **ret_why);
enum budget_verdict budget_calls(struct cox_task *t); /* a model call; O(depth) */
/* A further frame: NULL, or why not. */
const char *budget_refuses_frame(struct cox_engine *e, struct cox_task *t);
/* Model calls have used up a budget that the task draws on. NULL: false. */
bool budget_is_spent(struct cox_task *t);
uint64_t
budget_tokens_left(struct cox_task *t); /* of the tightest account; COX_BUDGET_NONE: no such budget */

/* ---- model calls ---- */
/* What a call of so many bytes, that says how long its answer may be (0: it does not), is to reserve.
 * `ret_output`: tokens that it is to be held to; 0: no budget does. */
struct reservation budget_reservation(struct cox_task *t, uint64_t len, uint64_t said, uint64_t *ret_output);
/* The same, of a step's spec. `elsewhere`: bytes of what it only names (agent_said_elsewhere). */
struct reservation budget_reservation_of(struct cox_task *t, struct cox_slice spec, uint64_t elsewhere,
                                         uint64_t *ret_output);
void budget_add(struct cox_task *t, uint64_t tokens); /* to what is reserved */
void budget_sub(struct cox_engine *e, struct cox_task *t, uint64_t tokens);
void budget_restore(struct attempt *a);                       /* after replay, of a model step */
void budget_release(struct cox_engine *e, struct attempt *a); /* it is over */

/* ---- waiting ---- */
void budget_wait(struct cox_engine *e, struct cox_task *t, struct step *s); /* it is in no queue */
bool budget_unwait(struct step *s);                                         /* false: it did not */
/* There may be room, or nothing to wait for any more. */
void budget_changed(struct cox_engine *e, struct cox_task *t);
void budgets_run(struct cox_engine *e);

/* ---- processors, steps ---- */
void budget_cpu_used(struct cox_task *t, uint64_t cpu_us);
void budget_frame_opened(struct cox_engine *e, struct cox_task *frame);

void budgets_check(const struct cox_engine *e); /* for tests */

#endif
