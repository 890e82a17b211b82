/* Model calls as JSON lines in a file: what was asked and what was answered. Recorded from real calls, and
 * played back to the same requests without any model, so that agents can be tested offline.
 *
 *     {"api":"chat/completions","model":"default","request":{...},"type":"text/event-stream","response":"...",
 *      "usage":{"input_tokens":9,"output_tokens":4,"cached_tokens":0}}
 *
 * `usage` is what the call was charged: clients that do not ask for it are not told in the response.
 *
 * A request is the same when its body is, byte by byte but for white space. One that was recorded more than
 * once is answered in that order, and after the last with the last. Thread: one at a time.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_TAPE_H
#define COX_ORCHESTRATOR_INFERENCE_TAPE_H

#include "chat.h"

struct tape;

/* Errors: COX_ERR_IO, COX_ERR_INVALID; `error` names file, line and what was expected. */
COX_MUST_CHECK enum cox_err tape_record(const char *path, struct tape **ret, struct cox_buf *error);
COX_MUST_CHECK enum cox_err tape_replay(const char *path, struct tape **ret, struct cox_buf *error);
void tape_close(struct tape *t); /* NULL is allowed */
bool tape_is_replay(const struct tape *t);

/* Appends a call and flushes it; what cannot be written is logged. */
void tape_put(struct tape *t, enum chat_api api, struct cox_slice model, struct cox_slice request,
              struct cox_slice type, struct cox_slice response, const struct chat_usage *usage);

struct tape_answer { /* borrowed */
    struct cox_slice type, response;
    struct chat_usage usage; /* none in recordings of before it was kept */
};
/* False: it was not recorded; `why` names the nearest recorded request, and where they part. */
bool tape_find(struct tape *t, enum chat_api api, struct cox_slice request, struct tape_answer *ret,
               struct cox_buf *why);

#endif
