/* A disk in memory, below SQLite, that loses power and makes mistakes on demand.
 *
 * What is written is seen by later reads at once, and is safe only after a sync of its file. A power cut lets
 * each unsynced operation arrive, get lost, or (a write) arrive in part, by sectors of 512 bytes, whatever
 * order they were issued in. A failed sync loses its operations for good while reads still see them, and a
 * later sync that succeeds says nothing about them: so do Linux file systems.
 *
 * A file's making is safe with its own sync, and makings and removals are with a sync of their directory: the
 * first sync of a journal or write-ahead log just opened, as in SQLite's Unix file system.
 *
 * Thread: any; one mutex orders all operations. The choices of a cut depend on the seed and on the
 * operations.
 */
#ifndef COX_TESTS_FAULT_VFS_H
#define COX_TESTS_FAULT_VFS_H

#include <stdbool.h>
#include <stdint.h>

struct fault_vfs;

enum fault_kind {
    FAULT_NONE,
    FAULT_POWER_CUT,   /* this operation does not end, and none comes after it */
    FAULT_NO_SPACE,    /* a write writes nothing */
    FAULT_SHORT_WRITE, /* a write writes its first half */
    FAULT_SYNC         /* a sync fails; other operations pass until one is met */
};

/* Registers itself with SQLite as `name`. */
struct fault_vfs *fault_vfs_create(const char *name, uint64_t seed);
void fault_vfs_destroy(struct fault_vfs *v);

/* The `at`-th change from now (from 1; a write, sync, truncation or removal) is the one of its kind to fail.
 */
void fault_vfs_plan(struct fault_vfs *v, enum fault_kind kind, uint64_t at);
bool fault_vfs_struck(struct fault_vfs *v); /* the planned fault has happened */

/* The power goes now, if it has not gone yet, and comes back: files are what a disk would have kept.
 * No file may be open. */
void fault_vfs_power_cycle(struct fault_vfs *v);

/* While syncs are held, they wait; the count is of those that wait now or were let go. */
void fault_vfs_hold_syncs(struct fault_vfs *v, bool hold);
void fault_vfs_await_sync(struct fault_vfs *v); /* returns when a sync waits */

#endif
