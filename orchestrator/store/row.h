/* The blob of one log row: a header, then the records of one group commit.
 *
 *   at  size
 *    0   1   version, 1
 *    1   3   zero
 *    4   4   n, the number of records, > 0
 *    8   8   first_seq, of the first record, > 0
 *   16   4   len, of what follows the header
 *   20   4   CRC-32 (zlib's polynomial) of bytes 0..19 and of the len bytes after the header
 *   24  len  the records, opaque
 *
 * Integers are little-endian. A row written by any released version stays readable: a new layout takes a new
 * version number. Thread: any.
 */
#ifndef COX_STORE_ROW_H
#define COX_STORE_ROW_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#define STORE_ROW_VERSION 1u
#define STORE_ROW_HEADER_LEN 24u

struct store_row {
    uint64_t first_seq;
    uint32_t n;
    struct cox_slice records; /* borrowed from the blob */
};

/* A row is built in place: begin makes room for the header in an empty buffer, the caller appends records,
 * end writes the header. The records must stay below 4 GiB. */
void store_row_begin(struct cox_buf *b);
void store_row_end(struct cox_buf *b, uint64_t first_seq, uint32_t n);

/* COX_ERR_CORRUPT with the reason in *ret_why (static text) when the blob is damaged, COX_ERR_INVALID when a
 * newer version wrote it. */
COX_MUST_CHECK enum cox_err store_row_parse(struct cox_slice blob, struct store_row *ret,
                                            const char **ret_why);

/* CRC-32 of one slice, as stored beside the state's blobs. */
uint32_t store_crc(struct cox_slice s);

#endif
