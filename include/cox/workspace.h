/* What workers say of workspaces that steps share, as the engine takes it. */
#ifndef COX_WORKSPACE_H
#define COX_WORKSPACE_H

#include "cox/types.h"

#define COX_SNAPSHOT_PACKS_MAX 64u
/* What the files of a shared workspace were when an attempt in it ended; told: there was one. */
struct cox_files {
    bool told, saved; /* not saved: `note` says why */
    struct cox_hash tree;
    const struct cox_hash *packs; /* blobs that it can be made from again, in the store already; the last
                                     names it */
    size_t n_packs;
    uint64_t size;
    uint32_t n_files;
    uint32_t serial; /* rises within a home */
    struct cox_slice note;
};

/* Where one is: on one worker at a time. */
struct cox_home {
    uint32_t number;   /* which of its places this is; 0: not known */
    bool has_snapshot; /* what it begins with there; else empty */
    struct cox_hash snapshot, tree;
};

#endif
