/* For tests, whose clock is theirs: what the timer does. */
#ifndef COX_ORCHESTRATOR_INFERENCE_HEALTH_TURN_H
#define COX_ORCHESTRATOR_INFERENCE_HEALTH_TURN_H

#include "health.h"

/* Does what is due, of thousands a part; returns when there is more, on the monotonic clock. */
int64_t health_turn(struct health *h, int64_t now_ns);

#endif
