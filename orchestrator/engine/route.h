/* Where a READY step may run: its class, with less choice when the document or the past say so.
 *
 * - `affinity: {step: NAME}`: the worker of NAME's last attempt. It is waited for while it is away; once it
 *   has been declared lost, any worker does. A name that never ran on a worker says nothing, and what it
 *   names itself is asked.
 * - `affinity: {workspace: NAME}`: where the files are (workspace.h), which are waited for in the same way.
 * - `affinity: {spread: ...}`: away from its like, when there is a choice.
 * - `uses: name@MAJOR`: the exact version that the task is pinned to. It is the newest that a worker offers
 *   which fits the step otherwise, when the task is submitted or, when there is none yet, when the step is
 *   given to a worker. Workers that report no version match any.
 */
#ifndef ENGINE_ROUTE_H
#define ENGINE_ROUTE_H

#include "state.h"

void route_enqueue(struct cox_engine *e, struct cox_task *t,
                   uint32_t step); /* gates passed, input small or known */
/* The same, `call` being what it is to run. */
void route_enqueue_again(struct cox_engine *e, struct cox_task *t, struct step *s); /* a map's step too */
void route_enqueue_call(struct cox_engine *e, struct cox_task *t, uint32_t step,
                        const struct cox_image_call *call);
void route_dequeue(struct cox_engine *e, struct cox_task *t, struct step *s);
/* It leaves `c` for an attempt; false: it must wait in another class, and does so now. The caller owns one
 * use of a variant then (class_release). */
bool route_take(struct cox_engine *e, struct class *c, struct step *s, struct worker *w);
/* The class it is queued in, or would be but for its choice. */
struct class *route_class(const struct cox_engine *e, const struct cox_task *t, const struct step *s);
/* An attempt has begun with this class (live or after replay), or has ended. */
void route_attempt_begun(struct cox_engine *e, struct class *c, struct cox_task *t, const struct worker *w);
void route_attempt_over(struct cox_engine *e, struct class *c, struct cox_task *t, const struct worker *w);
/* After replay: it runs there. Its class; the same as route_attempt_begun of it. */
struct class *route_restore(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct worker *w);
/* Its files are lost: it can never run. */
bool route_is_lost(const struct cox_engine *e, const struct cox_task *t, uint32_t step);
void route_worker_gone(struct cox_engine *e, struct worker *w);
void route_worker_changed(struct cox_engine *e, struct worker *w); /* it leaves, or has begun anew */
/* Who owns the image that the frame runs: itself, or one it is in. */
struct cox_task *image_owner(struct cox_task *t);
bool step_affinity(const struct cox_image *img, uint32_t step, enum cox_affinity_kind kind,
                   uint32_t *ret_step);
/* The worker that the nearest step of the chain of affinities ran on; NULL: none did. */
struct worker *affinity_worker(const struct cox_engine *e, const struct cox_task *t, uint32_t step,
                               enum cox_affinity_kind kind);

void versions_pin(struct cox_engine *e, struct cox_task *t); /* at submission */
/* The version a step's program is pinned to, empty: none. */
struct cox_slice version_of(const struct cox_task *t, uint32_t step, const struct step *s);
/* Dotted numbers: 1.10.0 is newer than 1.9.3. */
int version_cmp(struct cox_slice a, struct cox_slice b);

#endif
