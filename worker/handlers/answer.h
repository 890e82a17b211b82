/* The line protocol of programs: what a call is, and what its answer means. Pure.
 *
 *   {"id": "7", "input": ..., "context": {...}}          one line to the program
 *   {"id": "7", "output": ...}                           one line back: one of these three
 *   {"id": "7", "error": {"code", "message", "retryable"}}
 *   {"id": "7", "continue": {"steps": {...}, "state": ...}}
 */
#ifndef COX_WORKER_HANDLERS_ANSWER_H
#define COX_WORKER_HANDLERS_ANSWER_H

#include "handler.h"

#define ANSWER_ASK_LEN_MAX 65536u /* of what stands beside the input in most lines to a program */

/* Appends the line, with its line feed. `input` is JSON that was checked. */
void answer_ask(struct cox_buf *out, uint64_t id, struct cox_slice input, const struct call_args *args,
                bool own_network);

/* Reads an answer to call `id` into `ret`; anything else than an answer becomes OUTPUT_INVALID.
 *   output_schema  JSON, may be empty
 * Returns false when the program broke the protocol: it cannot be asked again. */
bool answer_read(struct cox_slice line, uint64_t id, struct cox_slice output_schema, struct outcome *ret);

/* The code of a program's error: its own when it is on the closed list and a program may say it, else
 * INTERNAL. `retryable` decides between that and what TASK_FORMAT retries by default; `*ret_named` is true
 * when the code given is not the one that was said, which then belongs into the message. */
enum cox_code answer_code(struct cox_slice said, bool has_retryable, bool retryable, bool *ret_named);

#endif
