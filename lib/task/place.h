/* Places in a document, for messages: their paths and lines, and how much of a text a message shows. */
#ifndef COX_TASK_PLACE_H
#define COX_TASK_PLACE_H

#include "cox/base/buf.h"

/* Bytes of `s` that a message shows: at most `max`, and whole characters. */
int shown_len(struct cox_slice s, size_t max);

/* A place in a document: a chain on the caller's stack, rendered only when something is wrong there. */
struct place {
    const struct place *up; /* NULL: the document itself, whose key is not read */
    const char *key;        /* NULL: an element of a list */
    size_t index;
};
void place_put(struct cox_buf *out, const struct place *at); /* appends to a path: steps.scan.run.argv[0] */

/* 1-based line of a place in the text; of the nearest part that exists when it does not. */
uint32_t place_line(struct cox_slice text, const struct place *at);

/* The same for a byte of a text, which may be broken behind it. */
uint32_t line_at(struct cox_slice text, size_t offset);
void path_put_at(struct cox_buf *out, struct cox_slice text, size_t offset); /* to what ends at `offset` */

#endif
