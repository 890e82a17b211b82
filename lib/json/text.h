/* Characters of JSON text, for both who check it and who walk over it. Inside of lib/json only. */
#ifndef COX_LIB_JSON_TEXT_H
#define COX_LIB_JSON_TEXT_H

#include "cox/base/buf.h"

#include <string.h>

static inline bool json_is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static inline bool json_is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static inline const uint8_t *json_end_of(struct cox_slice s)
{
    return s.len > 0 ? s.data + s.len : s.data;
}

/* Where at or behind p the first quote, backslash or control character stands; `end` when there is none.
 * `bits` collects the bits of what is passed over, and perhaps of a few bytes more. */
static inline const uint8_t *json_plain_end(const uint8_t *p, const uint8_t *end, uint8_t *bits)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t ones = 0x0101010101010101, tops = ones * 0x80;
    uint64_t seen = 0;

    /* Eight at a time: subtracting borrows out of a byte only where it is smaller, so the lowest mark is
     * right, whatever stands above it. */
    for (; end - p >= 8; p += 8) {
        uint64_t x, quote, escape, marks;

        memcpy(&x, p, 8);
        seen |= x;
        quote = x ^ ones * '"';
        escape = x ^ ones * '\\';
        marks = ((quote - ones) & ~quote) | ((escape - ones) & ~escape) | ((x - ones * 0x20) & ~x);
        if ((marks & tops) != 0) {
            *bits |= (seen & tops) != 0 ? 0x80 : 0;
            return p + (__builtin_ctzll(marks & tops) >> 3);
        }
    }
    *bits |= (seen & tops) != 0 ? 0x80 : 0;
#endif
    for (; p < end && *p != '"' && *p != '\\' && *p >= 0x20; p++)
        *bits |= *p;
    return p;
}

struct json_text {
    const uint8_t *p;
    const uint8_t *end;
};

/* Reads what follows "\u", with the second half of a surrogate pair. NULL: well; else what was expected at
 * t->p. */
const char *json_take_escaped_char(struct json_text *t, uint32_t *ret);

#endif
