/* What a `run` step's process left, as a step's output and error. Pure. */
#ifndef COX_WORKER_HANDLERS_RUN_OUTPUT_H
#define COX_WORKER_HANDLERS_RUN_OUTPUT_H

#include "cox/types.h"

/* 0..255, or 128 + N for signal N; `status` is wait(2)'s, of a process that has ended. */
int run_exit_code(int status);

/* Appends {"exit_code","stdout","stderr"}; at most COX_LOGGED_PAYLOAD_LEN_MAX bytes, whatever the tails hold.
 */
void run_output_text(struct cox_buf *out, int exit_code, struct cox_slice stdout_tail,
                     struct cox_slice stderr_tail);

/* Appends what `text` holds as the output itself. Errors: COX_ERR_INVALID, and in `message` why not. */
COX_MUST_CHECK enum cox_err run_output_json(struct cox_buf *out, struct cox_slice text,
                                            struct cox_buf *message);

/* The same without a copy. */
COX_MUST_CHECK enum cox_err run_output_check(struct cox_slice text, struct cox_buf *message);

/* Appends "exited with code 3: <the last lines of stderr>", valid UTF-8, at most COX_ERROR_MESSAGE_LEN_MAX.
 */
void run_failure_message(struct cox_buf *message, int status, struct cox_slice stderr_tail);

/* Appends "cannot run "foo": not found in PATH (...)". */
void run_exec_message(struct cox_buf *message, const char *program, const char *path_env, int errnum);

#endif
