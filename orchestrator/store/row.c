#include "row.h"

#include <string.h>
#include <zlib.h>

#define CRC_AT 20u

uint32_t store_crc(struct cox_slice s)
{
    return (uint32_t)crc32_z(0, s.data, s.len);
}

static uint32_t row_crc(const uint8_t *header, struct cox_slice records)
{
    uLong crc = crc32_z(0, header, CRC_AT);

    /* A NULL pointer means "initial value" to zlib, whatever the length. */
    return (uint32_t)(records.len > 0 ? crc32_z(crc, records.data, records.len) : crc);
}

void store_row_begin(struct cox_buf *b)
{
    COX_ASSERT(b->len == 0);
    memset(cox_buf_extend(b, STORE_ROW_HEADER_LEN), 0, STORE_ROW_HEADER_LEN);
}

void store_row_end(struct cox_buf *b, uint64_t first_seq, uint32_t n)
{
    COX_ASSERT(b->len >= STORE_ROW_HEADER_LEN && b->len - STORE_ROW_HEADER_LEN <= UINT32_MAX);
    struct cox_slice records = cox_slice(b->data + STORE_ROW_HEADER_LEN, b->len - STORE_ROW_HEADER_LEN);

    cox_set_u32(b, 0, STORE_ROW_VERSION);
    cox_set_u32(b, 4, n);
    cox_set_u32(b, 8, (uint32_t)first_seq);
    cox_set_u32(b, 12, (uint32_t)(first_seq >> 32));
    cox_set_u32(b, 16, (uint32_t)records.len);
    cox_set_u32(b, CRC_AT, row_crc(b->data, records));
}

enum cox_err store_row_parse(struct cox_slice blob, struct store_row *ret, const char **ret_why)
{
    struct cox_reader r = cox_reader(blob);
    uint32_t version = cox_get_u32(&r);
    uint32_t n = cox_get_u32(&r);
    uint64_t first_seq = cox_get_u64(&r);
    uint32_t len = cox_get_u32(&r);
    uint32_t crc = cox_get_u32(&r);

    if (r.bad) {
        *ret_why = "it is shorter than its header";
        return COX_ERR_CORRUPT;
    }
    if (len != cox_reader_left(&r)) {
        *ret_why = "its length is not the one in its header";
        return COX_ERR_CORRUPT;
    }
    struct cox_slice records = cox_get_raw(&r, len);

    if (crc != row_crc(blob.data, records)) {
        *ret_why = "its checksum does not match";
        return COX_ERR_CORRUPT;
    }
    if (version != STORE_ROW_VERSION) {
        *ret_why = "a newer version of coxd wrote it";
        return COX_ERR_INVALID;
    }
    if (n == 0 || first_seq == 0 || first_seq + n - 1 < first_seq) {
        *ret_why = "its sequence numbers make no sense";
        return COX_ERR_CORRUPT;
    }
    *ret = (struct store_row){ .first_seq = first_seq, .n = n, .records = records };
    return COX_OK;
}
