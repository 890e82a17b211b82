/* What a program's call says on standard error: without its secrets it goes to the live log, and its end is
 * kept. */
#ifndef COX_WORKER_HANDLERS_CALL_LOG_H
#define COX_WORKER_HANDLERS_CALL_LOG_H

#include "handler.h"

struct call_log {
    struct call *call;
    struct tail tail;
    struct redact_stream redact;
};

/* From the beginning, also of one that was begun before. `redactor`: NULL is nothing to keep out. */
void call_log_begin(struct call_log *l, struct call *call, const struct redactor *redactor);
void call_log_take(struct call_log *l, struct cox_slice data);
void call_log_end(struct call_log *l); /* what was kept back: it may have been the beginning of a secret */

/* What a failed call said becomes its output, for people. */
void call_log_keep(const struct call_log *l, struct outcome *o);
void call_log_fini(struct call_log *l);

#endif
