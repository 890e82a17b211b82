/* Directories as blobs: what a folder of files was at one moment, so that another host can go on with it.
 *
 *   tree      what is in it, in one order: its hash says that two are the same
 *   chunk     up to 1 MiB of a file, or a piece of the list of files, named by its content
 *   pack      a blob: chunks that the packs before it did not have, where they are in it, and (in the last
 * one of a snapshot) the root: which packs there are, and which chunks the list is made of
 *
 * A snapshot is named by its last pack. One of an unchanged folder reads no file and stores nothing; one
 * after a small change stores that, the pieces of the list it is in, and the root. Kept are files, folders
 * and links with their permissions, and files' times of change; hard links become files of their own. Not
 * kept are owners, extended attributes, times of folders, set-user-id and the like; what is neither file,
 * folder nor link is left out, and said so.
 *
 * Nothing here trusts a folder that steps write, while they do, nor a pack. Thread: any, one a snapshot. */
#ifndef COX_WORKER_SNAPSHOT_H
#define COX_WORKER_SNAPSHOT_H

#include "cox/types.h"

#include <stdatomic.h>

#define SNAPSHOT_FILES_MAX 200000u /* with folders and links */
#define SNAPSHOT_LEN_MAX ((uint64_t)4 << 30)
#define SNAPSHOT_DEPTH_MAX 128u
#define SNAPSHOT_PATH_LEN_MAX 4000u
#define SNAPSHOT_CHUNK_LEN (1u << 20)
#define SNAPSHOT_PACK_LEN_MAX (256u << 20) /* then the next is begun */
#define SNAPSHOT_PACKS_MAX 48u             /* of one snapshot; beyond, all is packed anew */

struct snapshot_name {
    struct cox_hash tree; /* of what is kept, but for times: equal trees have equal hashes */
    struct cox_hash blob; /* the last pack */
    uint64_t size;        /* of all files */
    uint32_t n_files;     /* with folders and links */
};

/* Where packs are kept; each function returns NONE, or a code and why. */
struct snapshot_store {
    enum cox_code (*put)(void *user, int fd, struct cox_hash *ret_hash, uint64_t *ret_len,
                         struct cox_buf *why);
    /* The whole pack, to be read and closed. */
    enum cox_code (*get)(void *user, const struct cox_hash *hash, int *ret_fd, struct cox_buf *why);
    int (*scratch)(void *user);   /* a new file without a name; -1 with errno */
    const atomic_bool *cancelled; /* the work ends soon once it is set, with CANCELLED */
    void *user;
};

/* What a folder was when it was taken or restored, and what the store has of it. Not changed once made. */
struct snapshot;

void snapshot_name(const struct snapshot *s, struct snapshot_name *ret);
/* All packs that it needs, the last one its own; those of an earlier snapshot among them. */
const struct cox_hash *snapshot_blobs(const struct snapshot *s, size_t *ret_n);
/* Appends what was left out or moved while it was read, as a sentence; nothing when all is there. */
void snapshot_note(const struct snapshot *s, struct cox_buf *out);
void snapshot_free(struct snapshot *s); /* NULL is allowed */

/* The folder `dir`, which may be written to meanwhile: each file is then as it was at some moment.
 *   last        what it was, or NULL; taken over, and freed, when a new one is returned
 *   calm_until  wall clock, ns: since then somebody may have been writing; INT64_MAX: nobody
 * Errors: RESOURCE_EXHAUSTED beyond the limits, UNAVAILABLE (what cannot be read, or stored), CANCELLED. */
enum cox_code snapshot_take(const char *dir, struct snapshot *last, int64_t calm_until,
                            const struct snapshot_store *store, struct snapshot **ret, struct cox_buf *why);

/* Into the folder `dir`, which is empty and nobody else's. What fails leaves it for removal.
 *   wanted  its blob names it; its tree must come of it
 * Errors: INPUT_INVALID (damaged, or another tree), RESOURCE_EXHAUSTED, UNAVAILABLE, CANCELLED. */
enum cox_code snapshot_restore(const char *dir, const struct snapshot_name *wanted,
                               const struct snapshot_store *store, struct snapshot **ret,
                               struct cox_buf *why);

#endif
