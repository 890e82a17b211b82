/* Brings blobs and bundles from the orchestrator and takes blobs there, on threads of its own: each job is
 * done by one of them from beginning to end, over a gRPC connection of that thread. */
#ifndef COX_WORKER_COURIER_H
#define COX_WORKER_COURIER_H

#include "cache.h"
#include "program.h"
#include "redact.h"

#include "snapshot/snapshot.h"

#include "cox/base/list.h"

struct courier;

enum courier_kind {
    COURIER_FETCH_BLOB,   /* hex -> entry */
    COURIER_FETCH_BUNDLE, /* hex -> entry; with `path` also the program there, described */
    COURIER_STORE,        /* fd, which it closes -> hash, len */
    COURIER_TAKE,         /* dir, snapshot (taken over) -> snapshot; the same one where it fails */
    COURIER_RESTORE       /* dir, which is empty, name -> snapshot */
};

struct courier_job {
    enum courier_kind kind;
    char tenant[CACHE_TENANT_MAX]; /* "": the default one */
    struct cox_ref attempt;        /* whose */
    char hex[BLOB_HEX_LEN + 1];
    char *path; /* within the bundle; NULL: no program is wanted. Freed by courier_job_free */
    int fd;
    char *dir;                 /* freed by courier_job_free */
    struct snapshot *snapshot; /* freed by courier_job_free unless it was taken (set NULL) */
    struct snapshot_name name;
    int64_t calm_until;        /* as in snapshot_take */
    struct redactor *redactor; /* of a file to be stored: what must not be in it. NULL: nothing */
    bool is_json;              /* the file is; it may have secrets in other escapes than usual */
    atomic_bool cancelled;     /* set it and the job ends soon, with CANCELLED */
    /* Once a job, within courier_reap or courier_destroy. It owns the job from then on. */
    void (*on_done)(struct courier_job *job, void *user);
    void *user;

    enum cox_code code; /* NONE: done */
    struct cox_buf message;
    struct cache_entry *entry; /* held; released by courier_job_free unless it was taken (set NULL) */
    struct program *program;   /* a reference, dropped by courier_job_free unless it was taken (set NULL) */
    struct cox_hash hash;
    uint64_t len;

    struct courier *courier; /* private */
    struct cox_list link;
};

struct courier_config {
    const char *dir; /* of the cache, and of what is under way */
    uint64_t cache_len_max;
    const char *token_file;          /* who it is; NULL: nobody */
    const struct cox_tls_files *tls; /* NULL: plaintext */
    void (*on_ready)(void *user);    /* courier_reap has something. Thread: any of the courier's */
    struct sandbox *sandbox;         /* bundles' programs describe themselves in it; NULL: none */
    void *user;
};

/* cox_rpc_init was called before; every signal is blocked. */
struct courier *courier_create(const struct courier_config *config);
void courier_destroy(struct courier *c); /* cancels what is left. NULL is allowed */

/* Where the orchestrator is, from now on, and what it gave the worker's stream ("": nothing). Thread: any. */
void courier_aim(struct courier *c, const char *address, const char *session);

struct courier_job *courier_job(struct courier *c, enum courier_kind kind);
void courier_submit(struct courier_job *job);
void courier_job_free(struct courier_job *job);
void courier_reap(struct courier *c); /* thread: the one that submits */

struct cache *courier_cache(struct courier *c);

#endif
