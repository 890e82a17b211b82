/* Buffers that hold secrets: they leave nothing behind where they were. */
#ifndef COX_WORKER_WIPED_H
#define COX_WORKER_WIPED_H

#include "cox/base/buf.h"

/* Room for `extra` more bytes, so that nothing else makes the buffer move. */
void wiped_reserve(struct cox_buf *b, size_t extra);
void wiped_append(struct cox_buf *b, struct cox_slice s);
void wiped_fini(struct cox_buf *b); /* the buffer is empty and reusable */

#endif
