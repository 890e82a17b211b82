/* What programs on workers say of themselves: descriptions and schemas, by "name@major", as the last worker
 * that attached with one has said. It stays when that worker leaves: a step that needs the program waits for
 * a worker as any does.
 *
 * Bounded: COX_PROGRAMS_MAX names and COX_PROGRAMS_LEN_MAX bytes; beyond, those that are new are not kept.
 * Thread: any. */
#ifndef COX_ORCHESTRATOR_PROGRAMS_H
#define COX_ORCHESTRATOR_PROGRAMS_H

#include "cox/base/buf.h"

#include <stdbool.h>

#define COX_PROGRAMS_MAX 10000u
#define COX_PROGRAMS_LEN_MAX ((size_t)64 << 20)

struct cox_programs;

struct cox_programs *cox_programs_create(void);
void cox_programs_destroy(struct cox_programs *p); /* NULL is allowed */

/* Copied. `input_schema` that is not a JSON object is not kept: a program may say what it likes. */
void cox_programs_put(struct cox_programs *p, struct cox_slice name_at_major, struct cox_slice description,
                      struct cox_slice input_schema);

/* Appends what is known. False: no worker has ever offered it. */
bool cox_programs_find(struct cox_programs *p, struct cox_slice name_at_major, struct cox_buf *description,
                       struct cox_buf *input_schema);

#endif
