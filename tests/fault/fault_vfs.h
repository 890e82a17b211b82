/* A disk in memory (fault_disk.h), below SQLite, that loses power and makes mistakes on demand.
 *
 * Thread: any; one mutex orders all operations. The choices of a cut depend on the seed and on the
 * operations.
 */
#ifndef COX_TESTS_FAULT_VFS_H
#define COX_TESTS_FAULT_VFS_H

#include "fault_disk.h"

#include <stdbool.h>
#include <stdint.h>

struct fault_vfs;

enum fault_kind {
    FAULT_NONE,
    FAULT_POWER_CUT,   /* this operation does not end, and none comes after it */
    FAULT_NO_SPACE,    /* a write writes nothing */
    FAULT_SHORT_WRITE, /* a write writes its first half */
    FAULT_WRITE,       /* a write writes nothing, and it is not for want of space */
    FAULT_SYNC,        /* a sync fails */
    FAULT_TRUNCATE,
    FAULT_REMOVE,
    FAULT_READ,
    FAULT_OPEN,
    FAULT_KIND_NR
};

/* Registers itself with SQLite as `name`. */
struct fault_vfs *fault_vfs_create(const char *name, uint64_t seed);
void fault_vfs_destroy(struct fault_vfs *v);

/* What goes wrong next. */
struct fault_plan {
    enum fault_kind kind;
    /* The `at`-th change from now (from 1; a write, sync, truncation or removal) is the one that fails, or
     * the first after it that can fail in this way. Reads and openings are counted by themselves. */
    uint64_t at;
    bool lasting;     /* and so does every one after it that can; else it is one only */
    const char *file; /* only files whose name has this are struck and counted; NULL: all. Borrowed */
};
void fault_vfs_plan(struct fault_vfs *v, struct fault_plan plan);
bool fault_vfs_struck(struct fault_vfs *v); /* the planned fault has happened */
/* Files that were synced again, by the process that was told that their sync had failed. */
unsigned fault_vfs_retried_syncs(struct fault_vfs *v);
void fault_vfs_process_ended(struct fault_vfs *v); /* the next one was told nothing, and nothing is planned */

/* The power goes now, if it has not gone yet, and comes back: files are what a disk would have kept.
 * No file may be open. */
void fault_vfs_power_cycle(struct fault_vfs *v);

/* While syncs are held, they wait; the count is of those that wait now or were let go. */
void fault_vfs_hold_syncs(struct fault_vfs *v, bool hold);
void fault_vfs_await_sync(struct fault_vfs *v); /* returns when a sync waits */

/* From now on, a sync of a file whose name has this waits for a change of another file, or a millisecond: so
 * that threads that may go on meanwhile do. */
void fault_vfs_slow(struct fault_vfs *v, const char *file);

/* Called before each change that succeeds, in their order, on the thread that makes it. No call back. */
typedef void (*fault_watch_fn)(void *user, const char *name, enum fault_op_kind kind, size_t at,
                               struct cox_slice bytes);
void fault_vfs_watch(struct fault_vfs *v, fault_watch_fn fn, void *user);
struct fault_disk *fault_vfs_disk(struct fault_vfs *v); /* while no file is open */

#endif
