/* Byte slices, growable byte buffers, and a bounded reader.
 *
 * Integers are little-endian and fixed-width on disk and in records. A reader never reads past its slice:
 * the first short read sets `bad`, everything after returns zero, and the caller checks `bad` once.
 * Thread: an object belongs to one thread at a time.
 */
#ifndef COX_BASE_BUF_H
#define COX_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Borrowed bytes; `data` may be NULL when len is 0. Not NUL-terminated. */
struct cox_slice {
    const uint8_t *data;
    size_t len;
};

static inline struct cox_slice cox_slice(const void *data, size_t len)
{
    return (struct cox_slice){ (const uint8_t *)data, len };
}
struct cox_slice cox_slice_str(const char *s); /* without the NUL; NULL gives the empty slice */
bool cox_slice_eq(struct cox_slice a, struct cox_slice b);
bool cox_slice_is(struct cox_slice a, const char *s);
int cox_slice_cmp(struct cox_slice a, struct cox_slice b); /* memcmp order, shorter first */

/* Is `text` what `pattern` says, in which `*` is any bytes, or none? O(text * pattern). */
bool cox_slice_like(struct cox_slice text, struct cox_slice pattern);

/* Owned, growable. Zero-initialised is a valid empty buffer. */
struct cox_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
};

void cox_buf_fini(struct cox_buf *b);                  /* frees; the buffer is empty and reusable */
void cox_buf_clear(struct cox_buf *b);                 /* len = 0, keeps the memory */
void cox_buf_reserve(struct cox_buf *b, size_t extra); /* room for `extra` more bytes */
uint8_t *cox_buf_extend(struct cox_buf *b, size_t n);  /* grows len by n, returns the new bytes */
void cox_buf_append(struct cox_buf *b, const void *data, size_t len);
void cox_buf_append_slice(struct cox_buf *b, struct cox_slice s);
void cox_buf_append_str(struct cox_buf *b, const char *s);
void cox_buf_printf(struct cox_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Two lower-case digits a byte. */
void cox_buf_append_hex(struct cox_buf *b, const uint8_t *bytes, size_t len);
const char *cox_buf_cstr(struct cox_buf *b); /* ensures a NUL after len; borrowed */
struct cox_slice cox_buf_slice(const struct cox_buf *b);

void cox_put_u8(struct cox_buf *b, uint8_t v);
void cox_put_u16(struct cox_buf *b, uint16_t v);
void cox_put_u32(struct cox_buf *b, uint32_t v);
void cox_put_u64(struct cox_buf *b, uint64_t v);
void cox_put_i64(struct cox_buf *b, int64_t v);
void cox_put_bytes(struct cox_buf *b, struct cox_slice s);  /* u32 length, then the bytes */
void cox_set_u32(struct cox_buf *b, size_t at, uint32_t v); /* overwrites 4 bytes already written */

struct cox_reader {
    const uint8_t *p;
    const uint8_t *end;
    bool bad;
};

struct cox_reader cox_reader(struct cox_slice s);
size_t cox_reader_left(const struct cox_reader *r);
uint8_t cox_get_u8(struct cox_reader *r);
uint16_t cox_get_u16(struct cox_reader *r);
uint32_t cox_get_u32(struct cox_reader *r);
uint64_t cox_get_u64(struct cox_reader *r);
int64_t cox_get_i64(struct cox_reader *r);
struct cox_slice cox_get_bytes(struct cox_reader *r); /* borrowed from the reader's slice */
struct cox_slice cox_get_raw(struct cox_reader *r, size_t len);

#endif
