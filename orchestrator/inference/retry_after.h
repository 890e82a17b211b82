/* Retry-After: seconds, or a date (RFC 9110, 10.2.3). Pure. Thread: any. */
#ifndef COX_ORCHESTRATOR_INFERENCE_RETRY_AFTER_H
#define COX_ORCHESTRATOR_INFERENCE_RETRY_AFTER_H

#include "cox/base/buf.h"

/* Milliseconds, up to an hour; -1: `text` is empty. A date is taken against `date`, the server's own of the
 * same answer, or `wall_ms` where it has sent none: clocks differ. What is neither counts as a second. */
int64_t retry_after_ms(struct cox_slice text, struct cox_slice date, int64_t wall_ms);

#endif
