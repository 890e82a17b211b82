/* Files as a disk without power has them: what is safe, what was changed since, and what of it arrived.
 *
 * A change is seen by later reads at once, and is safe only after a sync of its file. A power cut lets each
 * unsynced change arrive, get lost, or (a write) arrive in part, by sectors of 512 bytes, whatever order they
 * were issued in. A failed sync loses its changes for good while reads still see them, and a later sync that
 * succeeds says nothing about them: so do Linux file systems.
 *
 * A file's making is safe with its own sync, and makings and removals are with a sync of their directory.
 *
 * Contents are blocks that files share until one changes them: an image of a disk costs no copy of its bytes.
 *
 * Thread: one at a time, for a disk and all that were cut from it.
 */
#ifndef COX_TESTS_FAULT_DISK_H
#define COX_TESTS_FAULT_DISK_H

#include "cox/base/buf.h"
#include "cox/base/rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAULT_FILES_MAX 16

struct fault_block;

struct fault_content {
    bool exists;
    size_t len;
    struct fault_block **blocks; /* NULL: zeros */
    size_t n_blocks;
};

enum fault_op_kind {
    FAULT_OP_MAKE,
    FAULT_OP_WRITE,
    FAULT_OP_TRUNCATE,
    FAULT_OP_REMOVE,
    FAULT_OP_SYNC,      /* of a file; never unsynced itself */
    FAULT_OP_SYNC_NAMES /* of the directory */
};

/* A change not synced yet. */
struct fault_op {
    enum fault_op_kind kind;
    bool doomed; /* its sync failed: it will never arrive */
    size_t at;   /* WRITE: the place; TRUNCATE: the size */
    struct cox_buf bytes;
    struct fault_op *next;
};

struct fault_file {
    char *name;
    struct fault_content seen; /* what reads see */
    struct fault_content safe; /* what a disk certainly holds */
    struct fault_op *ops;      /* from `safe` to `seen`, oldest first */
    struct fault_op **ops_end;
    size_t n_ops;
};

struct fault_disk {
    struct fault_file files[FAULT_FILES_MAX];
    size_t n_files;
    bool careless; /* an image to be looked at: nobody will ask what is safe */
};

void fault_disk_fini(struct fault_disk *d);
struct fault_file *fault_disk_find(struct fault_disk *d, const char *name); /* NULL: never was */
struct fault_file *fault_disk_get(struct fault_disk *d, const char *name);

size_t fault_file_read(const struct fault_file *f, size_t at, void *to, size_t want); /* bytes there were */
/* One change of any kind. FAULT_OP_SYNC_NAMES: of the directory that the file is in. */
void fault_disk_change(struct fault_disk *d, struct fault_file *f, enum fault_op_kind kind, size_t at,
                       struct cox_slice bytes);
void fault_file_doom(struct fault_file *f); /* a sync failed */

/* What becomes of an unsynced change. Whose file and which of its changes, both counted from 0. */
enum fault_fate { FAULT_ARRIVES, FAULT_IS_LOST, FAULT_IS_TORN };
typedef enum fault_fate (*fault_fate_fn)(void *user, const struct fault_disk *d, size_t file, size_t op);

/* The power goes: `to`, which may be `from` itself, is what was left. The sectors of torn writes arrive each
 * by its own luck. */
void fault_disk_cut(const struct fault_disk *from, struct fault_disk *to, fault_fate_fn fate, void *user,
                    struct cox_rng *rng);

#endif
