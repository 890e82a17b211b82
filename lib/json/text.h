/* Characters of JSON text, for both who check it and who walk over it. Inside of lib/json only. */
#ifndef COX_LIB_JSON_TEXT_H
#define COX_LIB_JSON_TEXT_H

#include "cox/base/buf.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

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

#ifdef __SSE2__
/* 64 bytes, and a bit for each that has a property. */
struct json_block {
    __m128i at[4];
};

static inline uint64_t json_bits(__m128i a, __m128i b, __m128i c, __m128i d)
{
    return (uint64_t)(uint32_t)_mm_movemask_epi8(a) | (uint64_t)(uint32_t)_mm_movemask_epi8(b) << 16 |
           (uint64_t)(uint32_t)_mm_movemask_epi8(c) << 32 | (uint64_t)(uint32_t)_mm_movemask_epi8(d) << 48;
}

static inline uint64_t json_equal(const struct json_block *x, char c)
{
    const __m128i all = _mm_set1_epi8(c);

    return json_bits(_mm_cmpeq_epi8(x->at[0], all), _mm_cmpeq_epi8(x->at[1], all),
                     _mm_cmpeq_epi8(x->at[2], all), _mm_cmpeq_epi8(x->at[3], all));
}

static inline __m128i json_is_control(__m128i x)
{
    return _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
}

static inline uint64_t json_controls(const struct json_block *x)
{
    return json_bits(json_is_control(x->at[0]), json_is_control(x->at[1]), json_is_control(x->at[2]),
                     json_is_control(x->at[3]));
}

static inline bool json_all_plain(const struct json_block *x)
{
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
    __m128i any = _mm_setzero_si128();

    for (int i = 0; i < 4; i++)
        any = _mm_or_si128(
            any, _mm_or_si128(json_is_control(x->at[i]), _mm_or_si128(_mm_cmpeq_epi8(x->at[i], quote),
                                                                      _mm_cmpeq_epi8(x->at[i], slash))));
    return _mm_movemask_epi8(any) == 0;
}

/* Which characters stand behind an odd number of backslashes. `*escaped`: the first one does, for what was
 * before; then, whether the one behind the block does. A run's first bit, added to the run, carries to the
 * place behind it; where that is odd and the run began at an even place, or the other way round, the run is
 * odd (Langdale, Lemire: Parsing gigabytes of JSON per second, 2019). */
static inline uint64_t json_escaped(uint64_t slashes, bool *escaped)
{
    const uint64_t even = 0x5555555555555555;
    uint64_t first = *escaped, runs = slashes & ~first, starts = runs & ~(runs << 1), behind_odd;
    uint64_t behind_even = (runs + (starts & even)) & ~runs;

    *escaped = __builtin_add_overflow(runs, starts & ~even, &behind_odd);
    return first | (behind_even & ~even) | (behind_odd & ~runs & even);
}
#endif

/* Where at or behind p something stands in a string that is neither plain nor, unless `any_escape`, one of \n
 * \t \" \\: its end, another escape, a control character, or where the text has too little left to look at in
 * this way. */
static inline const uint8_t *json_easy_end(const uint8_t *p, const uint8_t *end, bool any_escape,
                                           uint8_t *bits)
{
#ifdef __SSE2__
    bool escaped = false;

    for (; end - p >= 64; p += 64) {
        struct json_block x;
        uint64_t quotes, slashes, behind, hard, stops;

        memcpy(&x, p, sizeof(x));
        *bits |= _mm_movemask_epi8(
                     _mm_or_si128(_mm_or_si128(x.at[0], x.at[1]), _mm_or_si128(x.at[2], x.at[3]))) != 0
                     ? 0x80
                     : 0;
        if (!escaped && json_all_plain(&x))
            continue;
        quotes = json_equal(&x, '"');
        slashes = json_equal(&x, '\\');
        behind = json_escaped(slashes, &escaped);
        hard = any_escape ? 0 : behind & ~(quotes | slashes | json_equal(&x, 'n') | json_equal(&x, 't'));
        stops = (quotes & ~behind) | json_controls(&x) | hard >> 1;
        if ((hard & 1) != 0)
            return p - 1;
        if (stops != 0)
            return p + __builtin_ctzll(stops);
    }
    return p - escaped;
#else
    (void)end, (void)any_escape, (void)bits;
    return p;
#endif
}

struct json_text {
    const uint8_t *p;
    const uint8_t *end;
};

/* Reads what follows "\u", with the second half of a surrogate pair. NULL: well; else what was expected at
 * t->p. */
const char *json_take_escaped_char(struct json_text *t, uint32_t *ret);

#endif
