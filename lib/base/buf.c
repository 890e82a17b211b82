#include "cox/base/buf.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CAP_MIN ((size_t)64)

struct cox_slice cox_slice_str(const char *s)
{
    return cox_slice(s, s ? strlen(s) : 0);
}

bool cox_slice_eq(struct cox_slice a, struct cox_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool cox_slice_is(struct cox_slice a, const char *s)
{
    return cox_slice_eq(a, cox_slice_str(s));
}

int cox_slice_cmp(struct cox_slice a, struct cox_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n > 0 ? memcmp(a.data, b.data, n) : 0;

    if (order != 0)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

/* Only the last star need be gone back to: what an earlier one took is as good as any. */
bool cox_slice_like(struct cox_slice text, struct cox_slice pattern)
{
    size_t t = 0, p = 0, star = SIZE_MAX, taken = 0;

    while (t < text.len) {
        if (p < pattern.len && pattern.data[p] == '*') {
            star = p++;
            taken = t;
        } else if (p < pattern.len && pattern.data[p] == text.data[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++taken;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.data[p] == '*')
        p++;
    return p == pattern.len;
}

void cox_buf_fini(struct cox_buf *b)
{
    cox_free(b->data);
    *b = (struct cox_buf){ 0 };
}

void cox_buf_clear(struct cox_buf *b)
{
    b->len = 0;
}

void cox_buf_reserve(struct cox_buf *b, size_t extra)
{
    if (extra <= b->cap - b->len)
        return;
    COX_ASSERT(extra <= SIZE_MAX / 2 - b->len);
    size_t cap = b->cap * 2 < CAP_MIN ? CAP_MIN : b->cap * 2;

    if (cap < b->len + extra)
        cap = b->len + extra;
    b->data = cox_realloc(b->data, cap, 1);
    b->cap = cap;
}

uint8_t *cox_buf_extend(struct cox_buf *b, size_t n)
{
    cox_buf_reserve(b, n);
    uint8_t *p = b->data ? b->data + b->len : NULL;

    b->len += n;
    return p;
}

void cox_buf_append(struct cox_buf *b, const void *data, size_t len)
{
    if (len > 0)
        memcpy(cox_buf_extend(b, len), data, len);
}

void cox_buf_append_slice(struct cox_buf *b, struct cox_slice s)
{
    cox_buf_append(b, s.data, s.len);
}

void cox_buf_append_str(struct cox_buf *b, const char *s)
{
    cox_buf_append(b, s, strlen(s));
}

void cox_buf_printf(struct cox_buf *b, const char *fmt, ...)
{
    va_list args;

    cox_buf_reserve(b, CAP_MIN);
    va_start(args, fmt);
    int n = vsnprintf((char *)b->data + b->len, b->cap - b->len, fmt, args);
    va_end(args);
    COX_ASSERT(n >= 0);
    if ((size_t)n >= b->cap - b->len) {
        cox_buf_reserve(b, (size_t)n + 1);
        va_start(args, fmt);
        n = vsnprintf((char *)b->data + b->len, b->cap - b->len, fmt, args);
        va_end(args);
    }
    b->len += (size_t)n;
}

void cox_buf_append_hex(struct cox_buf *b, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        cox_buf_printf(b, "%02x", bytes[i]);
}

const char *cox_buf_cstr(struct cox_buf *b)
{
    cox_buf_reserve(b, 1);
    b->data[b->len] = '\0';
    return (const char *)b->data;
}

struct cox_slice cox_buf_slice(const struct cox_buf *b)
{
    return cox_slice(b->data, b->len);
}

static void store_le(uint8_t *p, uint64_t v, size_t width)
{
    for (size_t i = 0; i < width; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t load_le(const uint8_t *p, size_t width)
{
    uint64_t v = 0;

    for (size_t i = 0; i < width; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

void cox_put_u8(struct cox_buf *b, uint8_t v)
{
    *cox_buf_extend(b, 1) = v;
}

void cox_put_u16(struct cox_buf *b, uint16_t v)
{
    store_le(cox_buf_extend(b, 2), v, 2);
}

void cox_put_u32(struct cox_buf *b, uint32_t v)
{
    store_le(cox_buf_extend(b, 4), v, 4);
}

void cox_put_u64(struct cox_buf *b, uint64_t v)
{
    store_le(cox_buf_extend(b, 8), v, 8);
}

void cox_put_i64(struct cox_buf *b, int64_t v)
{
    cox_put_u64(b, (uint64_t)v);
}

void cox_put_bytes(struct cox_buf *b, struct cox_slice s)
{
    COX_ASSERT(s.len <= UINT32_MAX);
    cox_put_u32(b, (uint32_t)s.len);
    cox_buf_append_slice(b, s);
}

void cox_set_u32(struct cox_buf *b, size_t at, uint32_t v)
{
    COX_ASSERT(b->len >= 4 && at <= b->len - 4);
    store_le(b->data + at, v, 4);
}

struct cox_reader cox_reader(struct cox_slice s)
{
    return (struct cox_reader){ .p = s.data, .end = s.data ? s.data + s.len : NULL, .bad = false };
}

size_t cox_reader_left(const struct cox_reader *r)
{
    return r->bad ? 0 : (size_t)(r->end - r->p);
}

struct cox_slice cox_get_raw(struct cox_reader *r, size_t len)
{
    if (r->bad || len > (size_t)(r->end - r->p)) {
        r->bad = true;
        return cox_slice(NULL, 0);
    }
    struct cox_slice s = cox_slice(r->p, len);

    if (len > 0)
        r->p += len;
    return s;
}

static uint64_t get_le(struct cox_reader *r, size_t width)
{
    struct cox_slice s = cox_get_raw(r, width);

    return load_le(s.data, s.len);
}

uint8_t cox_get_u8(struct cox_reader *r)
{
    return (uint8_t)get_le(r, 1);
}

uint16_t cox_get_u16(struct cox_reader *r)
{
    return (uint16_t)get_le(r, 2);
}

uint32_t cox_get_u32(struct cox_reader *r)
{
    return (uint32_t)get_le(r, 4);
}

uint64_t cox_get_u64(struct cox_reader *r)
{
    return get_le(r, 8);
}

int64_t cox_get_i64(struct cox_reader *r)
{
    return (int64_t)cox_get_u64(r);
}

struct cox_slice cox_get_bytes(struct cox_reader *r)
{
    return cox_get_raw(r, cox_get_u32(r));
}
