/* What the two halves of the first judge share. */
#ifndef SIM_AUDIT_H
#define SIM_AUDIT_H

#include "sim.h"

#include "record.h"

struct audit_worker {
    struct host *host;
    struct cox_resources used;
};
struct audit_worker *audit_worker(const struct sim *s, uint32_t ref);
struct cox_image_class audit_class(const struct audit_task *t, uint32_t step);
void audit_occupy(struct sim *s, struct audit_worker *w, const struct cox_resources *r, int sign);
uint64_t audit_value_id(struct cox_slice bytes);
uint64_t audit_payload_id(const struct cox_payload *p);
/* A program's version is pinned; a step is given to a worker that has it. */
void audit_pinned(struct sim *s, struct audit_task *t, const struct record *r);
void audit_version(struct sim *s, const struct audit_task *t, uint32_t step, const struct audit_worker *w);
void audit_token_follows(struct sim *s, struct cox_token token);
void audit_was_said(struct sim *s, struct cox_ref ref, const struct record_ended *en);
/* Its worker has said so of this item of the batch. */
void audit_item_was_said(struct sim *s, struct cox_ref ref, const struct record_item *item);
struct audit_task *audit_task_new(struct sim *s, cox_task_id id, struct job *job,
                                  const struct cox_image *image, int64_t wall_ms);
/* A task is accepted under the job's key: it is free. */
void audit_key(struct sim *s, const struct job *j);

void audit_usage(struct sim *s, const struct record *r);
void audit_call_ended(struct sim *s, const struct audit_task *t, const struct record *r);
void audit_charges_fini(struct sim *s);

/* ---- scenes (audit_scene.c) ---- */
void scene_frame_opened(struct sim *s, const struct record *r);
void scene_forked(struct sim *s, const struct record *r);
void scene_record(struct sim *s, struct audit_task *t, const struct record *r);
void scene_assign_leaves(struct sim *s, const struct audit_task *t, const struct cox_act_assign *a);
void scene_answer_leaves(struct sim *s, const struct audit_task *t, struct cox_ref ref,
                         enum cox_answer answer);
void scene_task_fini(struct audit_task *t);

/* The step of the scene that this one of a root is; NULL: none. */
const struct scene_step *scene_step(const struct audit_task *t, uint32_t step);

#endif
