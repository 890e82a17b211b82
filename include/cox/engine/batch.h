/* What of a map an attempt works through. Thread: the engine's. */
#ifndef COX_ENGINE_BATCH_H
#define COX_ENGINE_BATCH_H

#include "cox/engine.h"

struct cox_batch_view {
    uint32_t first, n; /* items, by index in the map */
    uint32_t number;   /* which attempt of theirs: 1 for the first */
};
/* False: it is a step's own, or not current. */
bool cox_engine_attempt_batch(const struct cox_engine *e, struct cox_ref ref, struct cox_batch_view *ret);

#endif
