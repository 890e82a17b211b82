/* The large values that a model step's request refers to, {"$blob": "sha256:...", "size": N}, and what
 * becomes of them where they stand:
 *
 *     in `messages`   a list of messages, or one: it takes its place in the list
 *     within those    text, whatever the bytes are: `content`, `text` of a part; also where the reference
 * itself was made a string, as expressions do there elsewhere       the JSON value
 *
 * Pure. Thread: any.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_STEP_INPUT_H
#define COX_ORCHESTRATOR_INFERENCE_STEP_INPUT_H

#include "cox/types.h"

#define STEP_INPUT_REFS_MAX 4096u
#define STEP_INPUT_LEN_MAX ((size_t)16 << 20) /* of a request with all of its values */

enum step_input_place { STEP_INPUT_VALUE, STEP_INPUT_MESSAGES, STEP_INPUT_TEXT };
struct step_input_ref {
    size_t at, len; /* of the reference, in the request */
    enum step_input_place place;
    struct cox_hash hash;
    uint32_t first;       /* the first of the same name: its bytes are this one's, too */
    struct cox_buf bytes; /* to be filled in; of the first of each name */
};
/* Zero-initialised: none. */
struct step_input {
    struct step_input_ref *refs; /* by where they stand */
    uint32_t n_refs;
};
void step_input_fini(struct step_input *in);

/* Finds them in a request that is valid JSON. Errors: COX_ERR_FULL, more than STEP_INPUT_REFS_MAX. Cost: one
 * search for "$blob" when there is none. */
COX_MUST_CHECK enum cox_err step_input_find(struct step_input *in, struct cox_slice request);

/* Appends the request with the bytes in the places of their names.
 * Errors: COX_ERR_INVALID, `why` says which value is not what its place needs; COX_ERR_FULL, the whole has
 * more than STEP_INPUT_LEN_MAX. */
COX_MUST_CHECK enum cox_err step_input_put(const struct step_input *in, struct cox_slice request,
                                           struct cox_buf *out, struct cox_buf *why);

#endif
