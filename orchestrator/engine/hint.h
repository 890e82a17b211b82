/* What the router should know of a model call beside the call: from the graph, and from how long attempts of
 * each class take. Nothing of it is durable, and nothing is done for tasks without model steps. */
#ifndef ENGINE_HINT_H
#define ENGINE_HINT_H

#include "state.h"

void hint_ran(struct class *c, uint64_t run_us); /* an attempt of this class has ended */
void hint_call(const struct cox_engine *e, const struct attempt *a, struct cox_call_hint *ret);
/* An attempt on a worker has begun, and model steps wait for it: the router hears when they may come. Once a
 * step. */
void hint_expect(struct cox_engine *e, const struct attempt *a);

#endif
