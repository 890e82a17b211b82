/* The `run` handler: one process a run, its pipes, its group's end. Everything of a run happens on the thread
 * of its event base; nothing blocks, but the start and the removal of an empty directory. */
#ifndef COX_WORKER_HANDLERS_RUN_H
#define COX_WORKER_HANDLERS_RUN_H

#include "janitor.h"
#include "tail.h"

#include "cox/agent.h"

#include <event2/event.h>

struct run;

/* Where an ended or talking run reports. */
struct run_ops {
    /* Once a run; the result is borrowed for the call. The run may be destroyed in it. */
    void (*on_ended)(struct run *run, const struct cox_agent_result *result, void *user);
    /* A piece of its log, while wanted. False: no room now; run_log_more repeats it. */
    bool (*on_log)(struct run *run, enum livelog_stream stream, struct cox_slice data, bool dropped,
                   void *user);
};

/* What the runs of a thread share; outlives them. */
struct run_host {
    struct event_base *base;
    struct janitor *janitor;
    const char *dir; /* private directories are made in it */
    /* `dir` is gone: somebody tidied up. Makes it again, or returns false with errno. NULL: cannot. */
    bool (*remake_dir)(struct run_host *host);
    size_t log_len_max;
    const struct run_ops *ops;
    uint64_t n_runs; /* so far: names directories */
    uint8_t read_buf[64 << 10];
};

#define RUN_KILL_GRACE_MS 2000 /* from SIGTERM to SIGKILL */
#define RUN_PIPE_GRACE_MS 100  /* what a process leaves behind may hold its pipes for so long */

/* Starts what `assign` says (borrowed for the call). Whatever is wrong with it comes as a result. Calls
 * nothing back before it returns. The thread must have every signal blocked. */
struct run *run_start(struct run_host *host, const struct cox_agent_assign *assign, void *user);

/* SIGTERM to the process group, SIGKILL later. on_ended still comes. Idempotent. */
void run_kill(struct run *run);

/* Sends the log from its beginning, then as it grows, or stops that. */
void run_log(struct run *run, bool wanted);
void run_log_more(struct run *run);

/* Ended or not: what is left of it is killed with SIGKILL, its directory goes to the janitor. */
void run_destroy(struct run *run);

#endif
