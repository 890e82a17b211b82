/* A work, shared by the files that are about its life. */
#ifndef COX_WORKER_WORK_STATE_H
#define COX_WORKER_WORK_STATE_H

#include "work_prepare.h"

#include "gateway/gateway.h"

/* One call's end: the attempt's, or that of an item of a batch. */
struct done {
    uint32_t index;
    enum cox_attempt_status status;
    enum cox_code code;
    struct cox_buf message, output;
    uint32_t n_stores; /* of its output and its parts, under way */
};

/* Something on its way to the orchestrator's blobs. */
struct store {
    struct work *work;
    struct courier_job *job;
    struct done *done; /* whose output it is, or is a part of; NULL: an artifact */
    enum outcome_file what;
    struct cox_buf name; /* of an artifact, raw JSON */
};

struct work {
    struct work_host *host;
    void *user;
    struct cox_agent_assign assign;
    struct cox_buf body; /* what assign points into */

    /* prepare */
    char *own_dir;            /* NULL: none was made */
    struct workspace_use use; /* in none: the directory is private */
    const char *dir, *bundle_dir;
    struct courier_job **fetches; /* under way; NULL where one has ended */
    size_t n_fetches, n_fetching;
    struct cache_entry **held;
    size_t n_held, n_blob_files;
    char *blobs_dir;
    const char **blob_files; /* in it, ended by NULL */
    struct work_secrets secrets;
    struct gateway_attempt *gateway; /* NULL: no process of it has a key */
    struct redactor *key_redactor;   /* of the key alone; NULL: `secrets` has it with the rest */
    struct program *program;         /* of a call of one */
    int64_t started_ns;              /* the first call; 0: none began */

    /* call */
    struct call *call;   /* NULL: none runs */
    struct event *timer; /* the next thing to do; an item's time limit */
    bool item_timed_out;
    struct done *done; /* n_calls of them */
    size_t n_calls, n_done;
    size_t inline_len; /* of all outputs so far */

    /* keep */
    struct store **stores;
    size_t n_stores, n_storing;
    struct cox_hash *blobs;
    size_t n_blobs;
    struct cox_buf artifacts;
    bool artifacts_begun;
    bool save_begun, saving;
    struct cox_agent_files files; /* of the workspace, told with the result */
    struct cox_buf files_note;
    struct cox_hash *packs;

    /* tell */
    bool killed;
    bool ended;
    enum cox_code code; /* of the attempt as a whole, where no call had it */
    struct cox_buf message;
    struct cox_buf continuation;
    bool has_exit_code;
    int exit_code;
    uint64_t cpu_us, max_rss_bytes;

    struct livelog log;
    bool log_wanted;
};

bool work_is_batch(const struct work *w);
/* Says what the attempt failed with, as a whole; the first time counts. */
void work_fail(struct work *w, enum cox_code code, struct cox_slice message);
/* Does the next thing; what it waits for calls this again. */
void work_proceed(struct work *w);

/* work_keep.c */
void work_keep_call(struct work *w, struct done *d,
                    struct outcome *o); /* of an ended call what is too large */
void work_keep_artifacts(struct work *w);
void work_keep_stored(struct work *w);                   /* what its process has stored by itself */
bool work_is_too_long(const struct work *w, size_t len); /* of an output for a result */
void work_drop_stores(struct work *w);
void work_keep_files(struct work *w); /* of a shared workspace, as its last call has left them */

#endif
