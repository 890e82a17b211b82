/* How long the answer to a request may be: what it says itself, and what a budget lets it have. The rest of
 * the body stays as it came. Pure. Thread: any.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_OUTPUT_CAP_H
#define COX_ORCHESTRATOR_INFERENCE_OUTPUT_CAP_H

#include "cox/base/buf.h"

/* Tokens that all choices may have together; 0: it does not say, or is no object. O(body). */
uint64_t output_cap_asked(struct cox_slice body);
/* Holds it to so many, where it asks for more or does not say. O(body). */
void output_cap_apply(struct cox_buf *body, uint64_t tokens);

#endif
