/* Roots that recovery leaves alone, and where recovery is. */
#ifndef ENGINE_QUARANTINE_H
#define ENGINE_QUARANTINE_H

#include "state.h"

/* Each true when it belongs to one: it was set aside, and nothing else is to be done about it. */
bool quarantine_takes_entity(struct cox_engine *e, struct cox_entity_key key, struct cox_slice bytes);
bool quarantine_takes_record(struct cox_engine *e, const struct record *r, struct cox_slice framed);
void quarantine_recovered(struct cox_engine *e);
void quarantine_free(struct cox_engine *e);
/* True after the answer: nothing can be made of a task that is left alone. */
bool quarantine_refuses(struct cox_engine *e, uint64_t request, cox_task_id task);
/* Where recovery is, for whoever looks on. */
void place_entity(const struct cox_engine *e, struct cox_entity_key key, struct cox_slice bytes);
void place_record(const struct cox_engine *e, const struct record *r);
enum place_stage { STAGE_TASK = 1, STAGE_BEGUN, STAGE_LINK, STAGE_WAITING }; /* values are on disk */
void place_derive(const struct cox_engine *e, const struct cox_task *t, enum place_stage stage,
                  uint32_t step);
void place_none(const struct cox_engine *e);

/* ---- apply.c ---- */
/* Of a record that makes a task: what does not end with the task. */
void apply_name_of_task(struct cox_engine *e, uint64_t seq, const struct record *r);

/* ---- sleep.c: a look into frozen trees ---- */
/* The tree that a saved sleeper holds; empty: it cannot be read. */
struct cox_slice sleeper_tree(struct cox_slice bytes);
/* Tasks of a frozen tree, the root first: *in begins as all of it. False at the end, and on damage. */
struct frozen {
    cox_task_id id;
    struct cox_slice header;
};
bool tree_next(struct cox_reader *in, uint32_t *n_left, struct frozen *ret);
bool tree_open(struct cox_slice tree, struct cox_reader *ret_in, uint32_t *ret_n);

#endif
