/* What an agent's turn asks of a model: its first request, its tools, and what was said since, put together
 * as one request in OpenAI's shape. The engine names the parts (engine/expand/agent_spec.c), by reference
 * where they are long, {"$blob": "sha256:...", "size": N}:
 *
 *     {"request": {"request": {..., "messages": [...]}}, "tools": [...] (cox/turn.h),
 *      "said": [{"answer": OUTPUT}, {"result": VALUE, "id": "..."}, {"text": "..."}, ...]}
 *
 *     answer   a model step's output: the assistant's message
 *     result   what came of the call `id`: a string as it is, other values as their JSON
 *     text     a user's message
 *     kept     true: the value is a reference. Without it, what looks like one is what was said: models and
 *              tools may say anything, and are given nothing for it
 *
 * Each part is rendered by itself and stays as it is, so that a turn renders what it adds. Pure. Thread: any.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_CONVERSATION_H
#define COX_ORCHESTRATOR_INFERENCE_CONVERSATION_H

#include "cox/types.h"

#include "cox/base/buf.h"
#include "cox/base/err.h"

enum conversation_place {
    CONVERSATION_REQUEST, /* the first part */
    CONVERSATION_TOOLS,   /* the second */
    CONVERSATION_ANSWER,
    CONVERSATION_UNHEARD, /* an answer whose calls nobody has answered: as if it had made none, since servers
                             refuse such calls */
    CONVERSATION_RESULT,
    CONVERSATION_TEXT
};
struct conversation_part {
    enum conversation_place place;
    bool is_kept; /* it is elsewhere, by this name; else `value` is it */
    struct cox_hash hash;
    struct cox_slice value; /* of the conversation */
    struct cox_slice id;    /* RESULT: with its quotes */
};
/* Zero-initialised: nothing. */
struct conversation {
    struct conversation_part *parts; /* borrow from the text */
    uint32_t n_parts;
};
void conversation_fini(struct conversation *c);

/* Of valid JSON. Errors: COX_ERR_INVALID, it has not that shape. Cost: O(bytes of `text`). */
COX_MUST_CHECK enum cox_err conversation_read(struct conversation *c, struct cox_slice text);

/* What a part adds to a request. */
struct conversation_text {
    struct cox_buf bytes;
    size_t messages_len, tools_len; /* REQUEST: of `bytes`, in this order; what is left is all else */
};
/* Of a part's value, which is valid JSON. A result's text is without its id. Errors: COX_ERR_INVALID, the
 * value is not what its place needs. Cost: O(bytes). */
COX_MUST_CHECK enum cox_err conversation_render(enum conversation_place place, struct cox_slice value,
                                                struct conversation_text *ret);

/* Appends the request, streamed, of all parts' texts in their order; `output_tokens` as of output_cap_apply,
 * 0: no cap. Cost: copies. */
void conversation_put(const struct conversation *c, const struct conversation_text *const *texts,
                      uint64_t output_tokens, struct cox_buf *out);

#endif
