/* Is this JSON? A check without building anything, for values that only travel through.
 *
 * Accepts exactly RFC 8259 texts of any kind of value, in UTF-8, with escapes that make sense (no lone
 * surrogate), nested at most COX_JSON_DEPTH_MAX deep. Thread: any. Cost: one pass, no allocation.
 */
#ifndef COX_ORCHESTRATOR_JSON_CHECK_H
#define COX_ORCHESTRATOR_JSON_CHECK_H

#include "cox/base/buf.h"

/* NULL when `text` is JSON, else what is wrong, static; *ret_at is the byte where. */
const char *cox_json_check(struct cox_slice text, size_t *ret_at);

#endif
