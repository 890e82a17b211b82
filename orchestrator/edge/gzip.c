#include "internal.h"

#include <zlib.h>

#define GZIP_WINDOW (15 + 16) /* 16: gzip's own head and tail */
#define STEP_LEN ((size_t)64 << 10)

bool gzip_pack(struct cox_slice in, struct cox_buf *out)
{
    z_stream z = { 0 };

    if (in.len > UINT32_MAX || deflateInit2(&z, 1, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    uLong bound = deflateBound(&z, (uLong)in.len);
    size_t start = out->len;

    z.next_in = (Bytef *)(uintptr_t)in.data;
    z.avail_in = (uInt)in.len;
    z.next_out = cox_buf_extend(out, bound);
    z.avail_out = (uInt)bound;
    int end = deflate(&z, Z_FINISH);

    out->len = start + z.total_out;
    deflateEnd(&z);
    return end == Z_STREAM_END;
}

enum cox_err gzip_unpack(struct cox_slice in, size_t len_max, struct cox_buf *out)
{
    z_stream z = { 0 };
    size_t start = out->len;
    int end = Z_OK;

    if (in.len > UINT32_MAX || inflateInit2(&z, GZIP_WINDOW) != Z_OK)
        return COX_ERR_INVALID;
    z.next_in = (Bytef *)(uintptr_t)in.data;
    z.avail_in = (uInt)in.len;
    while (end == Z_OK && z.total_out <= len_max) {
        z.next_out = cox_buf_extend(out, STEP_LEN);
        z.avail_out = STEP_LEN;
        end = inflate(&z, Z_NO_FLUSH);
        out->len -= z.avail_out;
    }
    bool whole = end == Z_STREAM_END && z.avail_in == 0;

    inflateEnd(&z);
    if (out->len - start > len_max)
        return COX_ERR_FULL;
    return whole ? COX_OK : COX_ERR_INVALID;
}
