/* The data directory: made when missing, held by one process.
 *
 * The lock is flock(2) on DIR/lock, which the kernel drops with the process, however it ends; the file's text
 * is the holder's pid, for people. SQLite's own locks would do too, but could not say who holds them. */
#ifndef COX_STORE_DATA_DIR_H
#define COX_STORE_DATA_DIR_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

struct store_data_dir {
    int lock_fd;
};

/* Errors: COX_ERR_UNAVAILABLE (another process holds it), COX_ERR_IO; `error` says what and where. */
COX_MUST_CHECK enum cox_err store_data_dir_open(struct store_data_dir *d, const char *path,
                                                struct cox_buf *error);
void store_data_dir_close(struct store_data_dir *d);

/* Makes the names of the files in a directory survive power loss. */
COX_MUST_CHECK enum cox_err store_data_dir_sync(const char *path, struct cox_buf *error);

#endif
