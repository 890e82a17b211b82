/* The slots of a worker: a thread that runs attempts, and two bounded rings to and from it.
 *
 * The owner (the session, on the gRPC loop's thread) starts and kills by slot number and takes replies when
 * it is woken. Everything here but `on_reply` belongs to the owner's thread.
 */
#ifndef COX_WORKER_SLOTS_H
#define COX_WORKER_SLOTS_H

#include "catalogue.h"
#include "handlers/reach.h"
#include "tail.h"
#include "workspaces.h"

#include "cox/agent.h"

struct slots;
struct secret_table;

struct slots_config {
    uint32_t n_slots;
    const char *work_dir;        /* made when absent; stale directories of dead workers in it are removed */
    const char *boot_id;         /* names this worker's own directory in it */
    struct catalogue *catalogue; /* programs; outlives the slots. NULL: none */
    const char *self;            /* a program that serves SLOTS_JQ_ARGUMENT by jq_main. NULL: no jq */
    bool with_blobs;             /* cox_rpc_init was called: blobs and bundles come and go */
    const char *token_file;      /* who exchanges them; NULL: nobody */
    uint64_t cache_len_max;      /* of them, in bytes. 0: SLOTS_CACHE_LEN_MAX */
    bool with_snapshots;         /* shared workspaces are saved as blobs, if there are blobs */
    int64_t workspace_ttl_ms;    /* 0: WORKSPACES_TTL_MS */
    uint64_t workspace_len_max;  /* 0: WORKSPACES_LEN_MAX */
    const struct cox_tls_files *tls; /* to exchange blobs with; outlives the slots. NULL: plaintext */
    struct reach reach;              /* of `http` */
    void (*on_reply)(void *user);    /* a reply may be taken. Thread: the slots' */
    struct sandbox *sandbox;         /* outlives the slots. NULL: only the level none */
    struct secret_table *secrets;    /* taken over. NULL: steps with secrets are refused */
    const char *secrets_dir;         /* NULL: none */
    void *user;
};

#define SLOTS_JQ_ARGUMENT "--jq"
#define SLOTS_CACHE_LEN_MAX ((uint64_t)8 << 30)

enum slots_reply_kind {
    SLOTS_ENDED,   /* slot, result */
    SLOTS_LOG,     /* ref, stream, bytes, dropped */
    SLOTS_SHUTDOWN /* SIGTERM or SIGINT came */
};
struct slots_reply {
    enum slots_reply_kind kind;
    uint32_t slot;
    struct cox_ref ref;
    struct cox_agent_result result; /* its slices point into `bytes` */
    enum livelog_stream stream;
    bool dropped; /* pieces before this one */
    struct cox_buf bytes;
};

#define SLOTS_LOGS_MAX 64 /* pieces of logs under way at once, all attempts together */

/* Errors: COX_ERR_IO when the directory cannot be made; errno says why. Every signal must be blocked in the
 * calling thread, and was in all threads before it. */
COX_MUST_CHECK enum cox_err slots_create(const struct slots_config *config, struct slots **ret);

/* Kills what runs, removes directories, waits for all of it. NULL is allowed. */
void slots_destroy(struct slots *s);

/* One START until the slot's ENDED was taken; `assign` is copied. */
void slots_start(struct slots *s, uint32_t slot, const struct cox_agent_assign *assign);
void slots_kill(struct slots *s, uint32_t slot);
void slots_log(struct slots *s, uint32_t slot, bool wanted); /* under overload it may come to nothing */

/* A task's shared directories may go; under overload they go later. */
void slots_release(struct slots *s, struct cox_slice task_id);
void slots_workspaces(const struct slots *s, struct workspaces_use *ret); /* as of now */
/* Where secrets are from now on; the table is taken over. Only if there was one at the start. */
void slots_secrets(struct slots *s, struct secret_table *table);
/* Where blobs are from now on, and what the orchestrator there gave this worker's stream; "": nothing yet.
 * And where it serves models (Welcome.models_url); "": nowhere. */
void slots_aim(struct slots *s, const char *address, const char *session, const char *models_url);

/* The next reply, or NULL; to be freed by slots_reply_free, which also makes room for more log. */
struct slots_reply *slots_take(struct slots *s);
void slots_reply_free(struct slots *s, struct slots_reply *reply);

/* True once after SIGHUP came; on_reply is called when it does. */
bool slots_hung_up(struct slots *s);

#endif
