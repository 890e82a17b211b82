/* Calls of programs, and the processes that are kept warm for them: one call at a time a process, each
 * process for one program. A process is kept for the next call unless it broke the protocol, its file has
 * changed, or it has served POOL_CALLS_MAX calls; and stopped when nobody called it for POOL_IDLE_MS. */
#ifndef COX_WORKER_HANDLERS_POOL_H
#define COX_WORKER_HANDLERS_POOL_H

#include "handler.h"

#include "../program.h"

#define POOL_IDLE_MS 60000
#define POOL_SPARE 16u /* kept beyond a worker's slots: for steps that take turns at several programs */
#define POOL_CALLS_MAX 10000u
#define POOL_LINE_LEN_MAX (64u << 20) /* of an answer */
#define POOL_KILL_GRACE_MS 2000       /* from SIGTERM to SIGKILL */

struct pool;

/* At most `n_max` processes are kept, those that work included. */
struct pool *pool_create(struct handler_host *host, uint32_t n_max, const char *dir);
void pool_destroy(struct pool *pool); /* its calls are destroyed before. NULL is allowed */

/* Whatever is wrong comes as an outcome. The thread must have every signal blocked.
 *   program  a reference is taken
 *   input    JSON, checked here */
struct call *pool_call(struct pool *pool, struct program *program, const struct call_args *args,
                       struct cox_slice input, void (*on_done)(struct call *call, struct outcome *outcome),
                       void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data),
                       void *user);

uint32_t pool_n_idle(const struct pool *pool);

#endif
