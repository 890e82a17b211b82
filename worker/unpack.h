/* Archives of people nobody knows, and paths within folders that steps have written. */
#ifndef COX_WORKER_UNPACK_H
#define COX_WORKER_UNPACK_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#define UNPACK_FILES_MAX 100000u
#define UNPACK_LEN_MAX ((uint64_t)4 << 30)
#define UNPACK_PATH_LEN_MAX 4000u

/* Unpacks a tar, gzipped or not, into the new folder `dir`, which then is read-only. Taken are files, folders
 * and links that stay inside; refused is what is absolute, has "..", goes through a link, is no file, or is
 * too much. Errors: COX_ERR_INVALID (`why` names the entry), COX_ERR_IO; `dir` may be there and needs
 * removing. */
COX_MUST_CHECK enum cox_err unpack_tar(const char *archive, const char *dir, uint64_t *ret_len,
                                       struct cox_buf *why);

/* Opens the regular file `path`, relative and within `dir_fd`, for reading; no component may be a link. -1
 * with errno: EINVAL for a path that is not of this kind. */
int open_within(int dir_fd, const char *path);

#endif
