/* Tasks of steps that no slot runs: waits, signals, approvals, races, sub-tasks, programs that are called
 * again, maps. As plan.h: what is drawn, its document, and what its values must be. */
#ifndef SIM_SCENE_H
#define SIM_SCENE_H

#include "cox/base/rng.h"
#include "cox/types.h"

#include <jansson.h>

#define SCENE_STEPS_MAX 7u
#define SCENE_BASE_WALL_MS INT64_C(1700000000000) /* when a history begins */
#define SCENE_SIGNALS 3u                          /* names: g0 .. */
#define SCENE_TEMPLATES 3u /* tpl0@1: a body; tpl1@1: a wait; tpl2@1: tpl0 as a sub-task */
#define SCENE_KEYS 3u      /* of `concurrency`: k1 .., each of its number */

enum scene_kind {
    SCENE_USES,
    SCENE_FOR,
    SCENE_SIGNAL,
    SCENE_APPROVAL,
    SCENE_RACE, /* of bodies, the last alternative perhaps a wait */
    SCENE_TASK,
    SCENE_AGAIN, /* a program that asks for steps, some times */
    SCENE_KIND_NR
};
struct scene_step {
    char name[8];
    enum scene_kind kind;
    bool mapped; /* USES, FOR, RACE, TASK */
    uint32_t n_items, batch, max_parallel, tolerate;
    int list_of; /* the step whose output.list is gone over; -1: a list in the document */
    uint32_t n_needs, needs[3];
    int reads; /* USES, AGAIN: the step whose output its input has; -1: none */
    bool allow_failure, has_fallback, always;
    uint32_t ms, flaky, broken, pad, list;
    uint32_t n;      /* RACE: alternatives. AGAIN: times. TASK: which template. SIGNAL: which name */
    bool race_waits; /* RACE: the last alternative is a wait */
    uint32_t max_attempts, timeout_ms, expires_ms;
    const char *on_expire;
    uint32_t concurrency; /* 0: none */
    bool rate, spread;
    int beside;            /* affinity.step; -1: none */
    bool same_files;       /* that is affinity.workspace */
    int64_t until_wall_ms; /* FOR: until then; 0: for `ms` */
};
struct scene {
    const char *name;
    uint32_t n_steps;
    struct scene_step steps[SCENE_STEPS_MAX];
    bool fail_fast;
    uint32_t deadline_ms;
};

void scene_draw(struct scene *sc, const char *name, struct cox_rng *rng, uint32_t n_steps_max);
json_t *scene_document(const struct scene *sc);
json_t *scene_template(uint32_t number);
json_t *scene_schedule(void);

/* What a step's value is, as far as its inputs say: outputs[] are those of the steps before it, owned by the
 * caller. `item` is NULL for what is not mapped. SIGNAL and APPROVAL: NULL, nobody knows. New reference. */
json_t *scene_value(const struct scene *sc, uint32_t i, json_t *const *outputs, bool fallback,
                    uint32_t alternative, json_t *item, uint64_t index);
uint32_t scene_alternatives(const struct scene_step *st);

#endif
