/* Values that are too large for a message, on their way between a model step and the orchestrator's blobs:
 * what a worker does with files, here in memory. Thread: the steps'. */
#ifndef COX_ORCHESTRATOR_INFERENCE_STEP_BLOB_H
#define COX_ORCHESTRATOR_INFERENCE_STEP_BLOB_H

#include "steps.h"

struct step_blob; /* one transfer, from its beginning until step_blob_free */

/* Once, from the loop. NONE: stored, or all of it is there; else `why` is for people. It may free the
 * transfer. */
typedef void step_blob_done(void *user, enum cox_code code, const char *why);

/* Stores bytes, which must stay as they are until then. */
struct step_blob *step_blob_put(struct steps *s, struct cox_slice tenant, struct cox_slice bytes,
                                step_blob_done *done, void *user);
/* What they are named by, once stored. */
struct cox_hash step_blob_hash(const struct step_blob *b);

/* Fetches what the name stands for: at most `len_max` bytes, else INPUT_INVALID. */
struct step_blob *step_blob_get(struct steps *s, struct cox_slice tenant, const struct cox_hash *hash,
                                size_t len_max, step_blob_done *done, void *user);
struct cox_buf *step_blob_bytes(struct step_blob *b); /* may be taken over */

/* Ends it if it is under way: `done` is not called any more. NULL is allowed. */
void step_blob_free(struct step_blob *b);

#endif
