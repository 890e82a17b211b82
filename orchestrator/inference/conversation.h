/* What an agent's turn asks of a model: its first request, its tools, and what was said since, put together
 * as one request in OpenAI's shape. The engine names them (engine/expand/agent_spec.c), by reference where
 * they are long; here all of them are there:
 *
 *     {"request": {"request": {..., "messages": [...]}}, "tools": [...] (cox/turn.h),
 *      "said": [{"answer": OUTPUT}, {"result": VALUE, "id": "..."}, {"text": "..."}, ...]}
 *
 *     answer   a model step's output: the assistant's message
 *     result   what came of the call `id`: a string as it is, other values as their JSON
 *     text     a user's message
 *
 * What a value says of itself is text: nothing in it is looked at but the members named here. Pure. Thread:
 * any. Cost: O(bytes).
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_CONVERSATION_H
#define COX_ORCHESTRATOR_INFERENCE_CONVERSATION_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

/* Appends the request. `conversation` is valid JSON. Errors: COX_ERR_INVALID: it has not that shape. */
COX_MUST_CHECK enum cox_err conversation_put(struct cox_slice conversation, struct cox_buf *out);

#endif
