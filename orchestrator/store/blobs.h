/* Large values: synced files named by their content, DIR/blobs/ab/<62 hex digits>, and what is being written
 * in DIR/blobs/tmp. Those of a space other than the default one are named by their key there, and then by
 * their content: DIR/blobs/ab/<62 hex digits of the key>-<64 of the content>. A file has its name only when
 * its bytes are on disk, so a name can be trusted.
 *
 * How old a file is says its modification time: whoever asks for it makes it young again.
 *
 * Thread: any; sweeping belongs to the state's.
 */
#ifndef COX_STORE_BLOBS_H
#define COX_STORE_BLOBS_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/store.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#define STORE_BLOB_DIRS 256
#define STORE_BLOB_NAMING_MAX 64

struct store_blob_name {
    struct cox_hash key; /* what owners name it by; equal to the hash in the default space */
    struct cox_hash hash;
};

struct store_blobs {
    char *dir;
    bool transient; /* "memory": goes with the store */
    _Atomic uint64_t min_free;
    _Atomic uint64_t n_made;
    _Atomic uint64_t bytes; /* in named files, as the last sweep counted and what came since */

    pthread_mutex_t
        mutex; /* of names: renaming, removing, touching; held over a sync only where a directory is made */
    pthread_cond_t named;
    struct cox_hash naming[STORE_BLOB_NAMING_MAX]; /* have their name, but the directory is not synced yet */
    size_t n_naming;

    char *backup_dir; /* under the mutex: new names are linked below it; NULL: no backup */
    enum cox_err backup_err;
    DIR *linked; /* the state thread's, as the next */
    unsigned backup_at;

    DIR *swept; /* of the directory that the sweep is in; NULL: between two */
    unsigned sweep_at;
    uint64_t sweep_bytes;
};

/* data_dir NULL: a private directory that close removes. Removes what an earlier process left unfinished. */
COX_MUST_CHECK enum cox_err store_blobs_open(struct store_blobs *b, const char *data_dir, uint64_t min_free,
                                             struct cox_buf *error);
void store_blobs_close(struct store_blobs *b);

/* The whole blob, checked against its name. Errors: COX_ERR_NOT_FOUND, COX_ERR_CORRUPT, COX_ERR_IO,
 * COX_ERR_FULL (longer than len_max). */
COX_MUST_CHECK enum cox_err store_blobs_load(struct store_blobs *b, const struct cox_space *space,
                                             const struct cox_hash *hash, size_t len_max,
                                             struct cox_buf *ret);

/* Goes on sweeping until `until_ns` (monotonic) or the end of a pass over all files (*ret_done). Removes what
 * was last touched before `before_ms` and `owned` does not claim. */
COX_MUST_CHECK enum cox_err
store_blobs_sweep(struct store_blobs *b, int64_t before_ms, int64_t until_ns,
                  enum cox_err (*owned)(void *user, const struct store_blob_name *name, bool *ret_owned),
                  void *user, bool *ret_done, uint64_t *ret_n_removed);

/* The path of a blob, below `dir`; freed by the caller. space NULL: the default one. */
char *store_blob_path(const char *dir, const struct cox_space *space, const struct cox_hash *hash);
/* What a file's names say; false when they are none of ours. */
bool store_blob_parse(const char *sub_dir, const char *name, struct store_blob_name *ret);
/* Up to `len` bytes of a file. */
COX_MUST_CHECK enum cox_err store_blob_read_file(const char *path, uint64_t offset, size_t len,
                                                 struct cox_buf *out);

#endif
