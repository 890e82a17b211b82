#include "cox/base/units.h"

#include <string.h>
#include <time.h>

#define MS_PER_DAY (24 * 3600 * 1000LL)
#define FRACTION_DIGITS 9
#define FRACTION_ONE 1000000000u

struct unit {
    const char *name;
    int64_t size;
};

static const struct unit duration_units[] = {
    { "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 3600 * 1000 }, { "d", MS_PER_DAY }, { 0 },
};
static const struct unit size_units[] = {
    { "", 1 },
    { "Ki", 1LL << 10 },
    { "Mi", 1LL << 20 },
    { "Gi", 1LL << 30 },
    { "Ti", 1LL << 40 },
    { "K", 1000 },
    { "k", 1000 },
    { "M", 1000 * 1000 },
    { "G", 1000 * 1000 * 1000 },
    { "T", 1000LL * 1000 * 1000 * 1000 },
    { 0 },
};
static const struct unit cpu_units[] = { { "", 1000 }, { "m", 1 }, { 0 } };

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_alpha(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static uint8_t peek(const struct cox_slice *s)
{
    return s->len > 0 ? s->data[0] : 0;
}

static uint8_t take(struct cox_slice *s)
{
    uint8_t c = s->data[0];

    *s = cox_slice(s->data + 1, s->len - 1);
    return c;
}

/* Takes "12.5" off the front: whole, and the fraction in billionths (digits beyond are dropped). */
static bool take_number(struct cox_slice *s, int64_t *whole, uint32_t *fraction)
{
    *whole = 0;
    *fraction = 0;
    if (!is_digit(peek(s)))
        return false;
    while (is_digit(peek(s))) {
        int64_t digit = take(s) - '0';
        if (__builtin_mul_overflow(*whole, 10, whole) || __builtin_add_overflow(*whole, digit, whole))
            return false;
    }
    if (peek(s) != '.')
        return true;
    take(s);
    if (!is_digit(peek(s)))
        return false;
    for (uint32_t place = FRACTION_ONE / 10; is_digit(peek(s)); place /= 10)
        *fraction += (uint32_t)(take(s) - '0') * place;
    return true;
}

static const struct unit *take_unit(struct cox_slice *s, const struct unit *units)
{
    size_t len = 0;

    while (len < s->len && is_alpha(s->data[len]))
        len++;
    struct cox_slice name = cox_slice(s->data, len);

    for (const struct unit *u = units; u->name; u++) {
        if (cox_slice_is(name, u->name)) {
            *s = cox_slice(s->data + len, s->len - len);
            return u;
        }
    }
    return NULL;
}

/* Takes one quantity off the front and adds it to *sum. Fractions of the smallest part are rounded up, so
 * that what was not nothing does not become nothing. */
static bool take_quantity(struct cox_slice *s, const struct unit *units, int64_t *sum)
{
    int64_t whole, value;
    uint32_t fraction;

    if (!take_number(s, &whole, &fraction))
        return false;
    const struct unit *u = take_unit(s, units);

    if (!u || (u->size == 1 && *u->name == '\0' && fraction != 0))
        return false;
    unsigned __int128 part = (unsigned __int128)fraction * (unsigned __int128)u->size;
    int64_t up = (int64_t)((part + FRACTION_ONE - 1) / FRACTION_ONE);

    return !__builtin_mul_overflow(whole, u->size, &value) && !__builtin_add_overflow(value, up, &value) &&
           !__builtin_add_overflow(*sum, value, sum);
}

enum cox_err cox_parse_duration_ms(struct cox_slice s, int64_t *ret_ms)
{
    int64_t sum = 0;

    if (cox_slice_is(s, "0")) {
        *ret_ms = 0;
        return COX_OK;
    }
    do {
        if (!take_quantity(&s, duration_units, &sum))
            return COX_ERR_INVALID;
    } while (s.len > 0);
    *ret_ms = sum;
    return COX_OK;
}

static enum cox_err parse_one(struct cox_slice s, const struct unit *units, int64_t *ret)
{
    int64_t value = 0;

    if (!take_quantity(&s, units, &value) || s.len > 0)
        return COX_ERR_INVALID;
    *ret = value;
    return COX_OK;
}

enum cox_err cox_parse_size(struct cox_slice s, int64_t *ret_bytes)
{
    return parse_one(s, size_units, ret_bytes);
}

enum cox_err cox_parse_cpu_milli(struct cox_slice s, int64_t *ret_milli)
{
    return parse_one(s, cpu_units, ret_milli);
}

static void put_two(struct cox_buf *b, uint64_t big, const char *big_unit, uint64_t small,
                    const char *small_unit)
{
    cox_buf_printf(b, "%llu%s", (unsigned long long)big, big_unit);
    if (small > 0)
        cox_buf_printf(b, "%llu%s", (unsigned long long)small, small_unit);
}

static void put_seconds(struct cox_buf *b, uint64_t ms)
{
    cox_buf_printf(b, "%u", (unsigned)(ms / 1000));
    if (ms % 1000 != 0) {
        cox_buf_printf(b, ".%03u", (unsigned)(ms % 1000));
        while (b->data[b->len - 1] == '0')
            b->len--;
    }
    cox_put_u8(b, 's');
}

void cox_put_duration(struct cox_buf *b, int64_t ms)
{
    uint64_t left = ms < 0 ? -(uint64_t)ms : (uint64_t)ms;
    uint64_t s = left / 1000;

    if (ms < 0)
        cox_put_u8(b, '-');
    if (left > 0 && left < 1000)
        cox_buf_printf(b, "%ums", (unsigned)left);
    else if (s < 60)
        put_seconds(b, left);
    else if (s < 3600)
        put_two(b, s / 60, "m", s % 60, "s");
    else if (s < 24 * 3600)
        put_two(b, s / 3600, "h", s % 3600 / 60, "m");
    else
        put_two(b, s / (24 * 3600), "d", s % (24 * 3600) / 3600, "h");
}

/* Days from 1970-01-01 to a day of the proleptic Gregorian calendar and back, after Howard Hinnant's
 * "chrono-Compatible Low-Level Date Algorithms": years start in March, in eras of 400 years. */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void civil_from_days(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;

    *day = day_of_year - (153 * shifted + 2) / 5 + 1;
    *month = shifted < 10 ? shifted + 3 : shifted - 9;
    *year = year_of_era + era * 400 + (*month <= 2);
}

void cox_put_time(struct cox_buf *b, int64_t unix_ms)
{
    int64_t days = unix_ms / MS_PER_DAY - (unix_ms % MS_PER_DAY < 0);
    int ms = (int)(unix_ms - days * MS_PER_DAY);
    int64_t year, month, day;

    civil_from_days(days, &year, &month, &day);
    cox_buf_printf(b, "%04lld-%02d-%02dT%02d:%02d:%02d.%03dZ", (long long)year, (int)month, (int)day,
                   ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
}

/* Reads `width` digits and then `after`. */
static bool take_field(struct cox_slice *s, int width, char after, int64_t *ret)
{
    *ret = 0;
    for (int i = 0; i < width; i++) {
        if (!is_digit(peek(s)))
            return false;
        *ret = *ret * 10 + (take(s) - '0');
    }
    if (!after)
        return true;
    return peek(s) == (uint8_t)after && take(s);
}

static int64_t days_in_month(int64_t year, int64_t month)
{
    int64_t next_year = month == 12 ? year + 1 : year;
    int64_t next_month = month == 12 ? 1 : month + 1;

    return days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1);
}

enum cox_err cox_parse_time(struct cox_slice s, int64_t *ret_unix_ms)
{
    int64_t year, month, day, hour, minute, second, ms = 0;

    if (!take_field(&s, 4, '-', &year) || !take_field(&s, 2, '-', &month) || !take_field(&s, 2, 'T', &day) ||
        !take_field(&s, 2, ':', &hour) || !take_field(&s, 2, ':', &minute) || !take_field(&s, 2, 0, &second))
        return COX_ERR_INVALID;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 ||
        second > 59)
        return COX_ERR_INVALID;
    if (peek(&s) == '.') {
        take(&s);
        if (!is_digit(peek(&s)))
            return COX_ERR_INVALID;
        for (int64_t place = 100; is_digit(peek(&s)); place /= 10)
            ms += (take(&s) - '0') * place;
    }
    if (!cox_slice_is(s, "Z"))
        return COX_ERR_INVALID;
    *ret_unix_ms =
        days_from_civil(year, month, day) * MS_PER_DAY + hour * 3600000 + minute * 60000 + second * 1000 + ms;
    return COX_OK;
}

/* Bytes that must follow a lead byte, or -1; the range of the first of them shuts out overlong forms,
 * surrogates and what is above U+10FFFF (Unicode, table 3-7). */
static int utf8_tail(uint8_t lead, uint8_t *min, uint8_t *max)
{
    *min = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    *max = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (lead < 0x80)
        return 0;
    if (lead >= 0xc2 && lead <= 0xdf)
        return 1;
    if (lead >= 0xe0 && lead <= 0xef)
        return 2;
    return lead >= 0xf0 && lead <= 0xf4 ? 3 : -1;
}

size_t cox_utf8_len(struct cox_slice s)
{
    uint8_t min, max;
    int tail = s.len > 0 ? utf8_tail(s.data[0], &min, &max) : -1;

    if (tail < 0 || s.len <= (size_t)tail)
        return 0;
    for (int i = 1; i <= tail; i++, min = 0x80, max = 0xbf) {
        if (s.data[i] < min || s.data[i] > max)
            return 0;
    }
    return (size_t)tail + 1;
}

bool cox_utf8_ok(struct cox_slice s)
{
    const uint8_t *p = s.data, *end = s.len > 0 ? s.data + s.len : s.data;

    while (p < end) {
        uint64_t eight;
        size_t n;

        if (end - p >= 8) {
            memcpy(&eight, p, 8);
            if ((eight & 0x8080808080808080) == 0) {
                p += 8;
                continue;
            }
        }
        if (*p < 0x80)
            n = 1;
        else if (*p > 0xe0 && *p < 0xed && end - p > 2 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80)
            n = 3; /* most of the scripts that need more than two: any two that follow will do */
        else
            n = cox_utf8_len(cox_slice(p, (size_t)(end - p)));
        if (n == 0)
            return false;
        p += n;
    }
    return true;
}

size_t cox_utf8_encode(uint8_t ret[4], uint32_t c)
{
    static const uint8_t lead[] = { 0, 0xc0, 0xe0, 0xf0 };
    size_t tail = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;

    ret[0] = (uint8_t)(lead[tail] | c >> (6 * tail));
    for (size_t i = 1; i <= tail; i++)
        ret[i] = (uint8_t)(0x80 | (c >> (6 * (tail - i)) & 0x3f));
    return tail + 1;
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t cox_clock_mono_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t cox_clock_wall_ms(void)
{
    return clock_ns(CLOCK_REALTIME) / 1000000;
}
