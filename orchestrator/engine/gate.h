/* Gates: `concurrency` and `rate` of a tenant, by key. A READY step passes them before it is queued.
 *
 * At a `concurrency` gate a step takes a permit, and keeps it until its attempt ends; then it passes `rate`,
 * which only takes a moment in time from it. Who waits is let through by priority, then in order of arrival.
 * All of it is derived: recovery gives running steps their permits, then opens the gates. Of different limits
 * for one key, the one that came last counts. A gate lives as long as somebody waits or holds a permit, one
 * of a rate until its next moment has come.
 */
#ifndef ENGINE_GATE_H
#define ENGINE_GATE_H

#include "state.h"

#define GATE_KEY_LEN_MAX 256u         /* of the key as JSON */
#define GATE_KEY_INPUT_LEN_MAX 65536u /* of what its expression reads */

struct gate {
    struct cox_slice key; /* owned: tenant, NUL, 'c' or 'r', the key as JSON */
    size_t text_at;       /* in `key`: the key itself */
    bool is_rate;
    uint32_t limit, n_used;   /* concurrency */
    int64_t span_ns, next_ns; /* rate: between steps, the next moment (GCRA's theoretical arrival time) */
    struct step_queue waiting;
    uint32_t n_holds;       /* that refer to it */
    struct cox_list in_due; /* engine's gates_due */
    struct timer timer;     /* rate */
};

/* What a step has beside its place in a plain class's queue. */
struct hold {
    struct step *step;
    struct gate *concurrency; /* waits there, or holds its permit */
    struct gate *rate;        /* is yet to pass it */
    bool permitted;           /* by `concurrency` */
    struct class *cls;        /* while it is queued in a variant of its class (route.h) */
};
struct hold *hold_get(const struct cox_engine *e, const struct step *s); /* NULL: none */
struct hold *hold_make(struct cox_engine *e, struct step *s);
void hold_tidy(struct cox_engine *e, struct hold *h); /* frees it when nothing is left in it */

/* True: go on. False: it waits (step_place comes again), or was refused for its key. */
bool gate_pass(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* Its attempt has ended, or it will have none. Harmless when it has nothing. */
void hold_leave_gates(struct cox_engine *e, struct step *s);
static inline void gate_leave(struct cox_engine *e, struct step *s)
{
    if (s->flags & (STEP_GATED | STEP_HELD))
        hold_leave_gates(e, s);
}
/* After replay: it runs, so it has a permit. */
void gate_restore(struct cox_engine *e, struct cox_task *t, uint32_t step);
void gate_timer(struct cox_engine *e, struct gate *g);
void gates_run(struct cox_engine *e); /* lets through whoever may pass now */
void gates_free(struct cox_engine *e);
void gates_check(const struct cox_engine *e); /* for tests */
struct cox_slice gate_text(const struct gate *g);

#endif
