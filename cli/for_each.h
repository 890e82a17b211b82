/* Lines of inputs, and the requests they become; what of --for-each can be tested without an orchestrator. */
#ifndef CLI_FOR_EACH_H
#define CLI_FOR_EACH_H

#include "cox/base/buf.h"

#include <stdio.h>

/* Appends the object of inputs of a line: the line's own members, and those of `base` (an object) that it
 * lacks. False when the line is no object; `error` says what was expected, with its column. */
bool cli_merge_inputs(struct cox_buf *out, struct cox_slice base, struct cox_slice line,
                      struct cox_buf *error);

/* Reads the next line that is not blank, without its end. `*number` counts all lines. False at the end, when
 * the file cannot be read (ferror), or when the line is longer than a document may be (`ret` is longer then).
 */
bool cli_next_line(FILE *in, struct cox_buf *ret, size_t *number);

#endif
