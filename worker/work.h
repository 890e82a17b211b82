/* What a slot does for one attempt, from what was assigned to what is reported:
 *
 *   prepare   a working directory; the bundle and the blobs that its input names are fetched
 *   call      its handler, once, or for one item of a batch after the other, each with the time limit
 *   keep      what is too large for a result, and artifacts, are stored as blobs
 *   tell      once, whatever happened
 *
 * Everything of a work happens on the thread of its event base. */
#ifndef COX_WORKER_WORK_H
#define COX_WORKER_WORK_H

#include "courier.h"
#include "janitor.h"
#include "workspaces.h"

#include "handlers/handler.h"

struct work;

/* Where an ended or talking work reports. */
struct work_ops {
    /* Once a work; the result is borrowed for the call. The work may be destroyed in it. */
    void (*on_ended)(struct work *work, const struct cox_agent_result *result, void *user);
    /* A piece of its log, while wanted. False: no room now; work_log_more repeats it. */
    bool (*on_log)(struct work *work, enum livelog_stream stream, struct cox_slice data, bool dropped,
                   void *user);
};

/* What the works of a thread share; outlives them. */
struct work_host {
    struct handler_host handlers;
    struct janitor *janitor;
    struct courier *courier;       /* NULL: blobs and bundles cannot be had */
    struct catalogue *catalogue;   /* NULL: no programs */
    struct pool *pool;             /* NULL: no programs */
    struct http *http;             /* NULL: not offered */
    struct mcp *mcp;               /* NULL: not offered */
    struct gateway *gateway;       /* NULL: processes get no keys */
    struct secrets *secrets;       /* NULL: steps with secrets are refused */
    struct workspaces *workspaces; /* NULL: every directory is private */
    struct program *jq;            /* NULL: not offered */
    const char *dir;               /* private directories are made in it */
    /* `dir` is gone: somebody tidied up. Makes it again, or returns false with errno. NULL: cannot. */
    bool (*remake_dir)(struct work_host *host);
    size_t log_len_max;
    const struct work_ops *ops;
    uint64_t n_works; /* so far: names directories */
};

#define WORK_INLINE_LEN_MAX (4u << 20) /* of a batch's outputs in one result; then small ones only */
#define WORK_SMALL_LEN_MAX 2048u       /* which are no longer than this */
#define WORK_STORES_MAX 4u             /* of a batch under way at once */
#define WORK_ARTIFACTS_MAX 256u

/* Starts what `assign` says (borrowed for the call). Whatever is wrong with it comes as a result. Calls
 * nothing back before it returns. The thread must have every signal blocked. */
struct work *work_start(struct work_host *host, const struct cox_agent_assign *assign, void *user);

/* What runs is stopped, then killed. on_ended still comes. Idempotent. */
void work_kill(struct work *work);

/* Sends the log from its beginning, then as it grows, or stops that. */
void work_log(struct work *work, bool wanted);
void work_log_more(struct work *work);

/* Ended or not: what is left of it is killed with SIGKILL, its directory goes to the janitor. */
void work_destroy(struct work *work);

#endif
