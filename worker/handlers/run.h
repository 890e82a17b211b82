/* The `run` handler: one process a call, its pipes, its group's end. Everything happens on the thread of its
 * event base; nothing blocks, but the start and writes of long output to a file. */
#ifndef COX_WORKER_HANDLERS_RUN_H
#define COX_WORKER_HANDLERS_RUN_H

#include "handler.h"

#define RUN_KILL_GRACE_MS 2000 /* from SIGTERM to SIGKILL */
#define RUN_PIPE_GRACE_MS 100  /* what a process leaves behind may hold its pipes for so long */

/* Whatever is wrong with `args` comes as an outcome. The thread must have every signal blocked. */
struct call *run_start(struct handler_host *host, const struct call_args *args,
                       void (*on_done)(struct call *call, struct outcome *outcome),
                       void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data),
                       void *user);

#endif
