/* Words for timelines about tasks that recovery leaves alone. The teller keeps what is set aside, as the
 * store would, and gives it back once a task is lifted. */
#ifndef TRACE_QUARANTINE_H
#define TRACE_QUARANTINE_H

#include "trace.h"

/* From the next crash() on; a second time, it is not even looked into. */
void quarantine(struct trace *t, uint32_t task_no);
void lift(struct trace *t, uint32_t task_no); /* likewise */
size_t n_aside(const struct trace *t, uint32_t task_no);
/* As the archive has it; false: it has not. The name is written to a text of 64. */
bool archived_as(struct trace *t, uint32_t task_no, enum cox_task_status *ret_status, enum cox_code *ret_code,
                 char *name);
/* Of which the newest recovery has told; of the first tasks. */
size_t n_places(const struct trace *t, uint32_t task_no, int phase);

/* For the teller. */
void trace_quarantine_config(const struct trace *t, struct cox_engine_config *config);
void trace_quarantine_tell(const struct trace *t, struct cox_engine *e);
void trace_quarantine_replay(const struct trace *t, struct cox_engine *e);
void trace_keep_aside(struct trace *t, const struct cox_action *a); /* of other kinds: nothing */
void trace_truncated(struct trace *t, uint64_t seq);
void trace_quarantine_fini(struct trace *t);

#endif
