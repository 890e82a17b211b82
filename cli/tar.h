/* Entries of a tar archive (POSIX ustar) that say nothing about when and by whom. */
#ifndef CLI_TAR_H
#define CLI_TAR_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

/* Appends a header. type '0' file, '2' symbolic link to `link`, '5' folder (path without the final slash).
 * COX_ERR_INVALID when a name does not fit: 255 bytes with a slash in the right place, a link's target 100.
 */
COX_MUST_CHECK enum cox_err cli_tar_header(struct cox_buf *out, const char *path, char type, size_t size,
                                           bool executable, const char *link);
/* Fills up the last block of `size` bytes of data. */
void cli_tar_pad(struct cox_buf *out, size_t size);
void cli_tar_end(struct cox_buf *out);

/* Compresses, without name and time. */
void cli_gzip(struct cox_buf *out, struct cox_slice data);

#endif
