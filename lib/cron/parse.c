/* Cron expressions to bit sets. */
#include "cox/cron.h"

#include <string.h>

struct field {
    const char *name;
    int32_t min, max;
    const char *const *names; /* of min, min + 1, ...; NULL: none */
    const char *expected;
};
static const char *const month_names[] = { "jan", "feb", "mar", "apr", "may", "jun", "jul",
                                           "aug", "sep", "oct", "nov", "dec", NULL };
static const char *const weekday_names[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL };
static const struct field fields[5] = {
    { "minute", 0, 59, NULL, "0-59" },
    { "hour", 0, 23, NULL, "0-23" },
    { "day of month", 1, 31, NULL, "1-31" },
    { "month", 1, 12, month_names, "1-12 or jan-dec" },
    { "day of week", 0, 7, weekday_names, "0-7 or sun-sat" },
};
enum { MINUTE, HOUR, DAY, MONTH, WEEKDAY };

static const struct {
    const char *name, *means;
} nicknames[] = {
    { "@hourly", "0 * * * *" },   { "@daily", "0 0 * * *" },   { "@midnight", "0 0 * * *" },
    { "@weekly", "0 0 * * 0" },   { "@monthly", "0 0 1 * *" }, { "@yearly", "0 0 1 1 *" },
    { "@annually", "0 0 1 1 *" },
};

#define SHOWN_MAX 40

static int lower(int c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

static bool is_word(struct cox_slice s, const char *word)
{
    if (s.len != strlen(word))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (lower(s.data[i]) != word[i])
            return false;
    return true;
}

/* Not cut inside a character: strict readers refuse a message that is not UTF-8. */
static int shown_len(struct cox_slice s)
{
    if (s.len <= SHOWN_MAX)
        return (int)s.len;
    int len = SHOWN_MAX;
    while (len > 0 && (s.data[len] & 0xc0) == 0x80)
        len--;
    return len;
}

static enum cox_err wrong(struct cox_buf *error, const char *where, struct cox_slice found,
                          const char *expected)
{
    cox_buf_printf(error, "%s: found \"%.*s%s\", expected %s", where, shown_len(found),
                   (const char *)found.data, SHOWN_MAX < found.len ? "..." : "", expected);
    return COX_ERR_INVALID;
}

/* Up to `c`, which is taken; all of it when there is none. */
static struct cox_slice cut(struct cox_slice *rest, int c, bool *ret_found)
{
    const uint8_t *at = rest->len > 0 ? memchr(rest->data, c, rest->len) : NULL;
    struct cox_slice ret = *rest;
    *ret_found = at != NULL;
    if (at != NULL)
        ret.len = (size_t)(at - rest->data);
    *rest = at != NULL ? cox_slice(at + 1, rest->len - ret.len - 1) : cox_slice(NULL, 0);
    return ret;
}

static bool number(struct cox_slice s, int32_t max, int32_t *ret)
{
    int32_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9' || n > max)
            return false;
        n = n * 10 + (s.data[i] - '0');
    }
    *ret = n;
    return s.len > 0 && n <= max;
}

static bool value(const struct field *f, struct cox_slice s, int32_t *ret)
{
    for (int32_t i = 0; f->names != NULL && f->names[i] != NULL; i++) {
        if (is_word(s, f->names[i])) {
            *ret = f->min + i;
            return true;
        }
    }
    return number(s, f->max, ret) && *ret >= f->min;
}

/* One of a list: *, a value or a range; the last two of them with a step. */
static enum cox_err parse_item(const struct field *f, struct cox_slice item, uint64_t *bits, bool *any,
                               struct cox_buf *error)
{
    struct cox_slice step = item;
    bool has_step, has_range;
    struct cox_slice range = cut(&step, '/', &has_step);
    int32_t every = 1, low = f->min, high = f->max == 7 ? 6 : f->max;
    if (has_step && (!number(step, f->max, &every) || every == 0)) {
        cox_buf_printf(error, "%s: step \"%.*s\", expected a number from 1 to %d", f->name, shown_len(step),
                       (const char *)step.data, (int)f->max);
        return COX_ERR_INVALID;
    }
    if (cox_slice_is(range, "*")) {
        *any = true;
    } else {
        struct cox_slice to = range;
        struct cox_slice from = cut(&to, '-', &has_range);
        if (!value(f, from, &low))
            return wrong(error, f->name, from, f->expected);
        if (!has_range && has_step)
            return wrong(error, f->name, item, "a range before the step, such as 10-50/5 or */5");
        high = low;
        if (has_range && !value(f, to, &high))
            return wrong(error, f->name, to, f->expected);
        if (high == 0 && low > 0 && f->max == 7)
            high = 7; /* fri-sun */
        if (high < low)
            return wrong(error, f->name, range, "a range that rises");
    }
    for (int32_t v = low; v <= high; v += every)
        *bits |= 1ULL << v;
    return COX_OK;
}

static enum cox_err parse_field(const struct field *f, struct cox_slice text, uint64_t *bits, bool *any,
                                struct cox_buf *error)
{
    bool more = true;
    *bits = 0;
    *any = false;
    while (more) {
        struct cox_slice item = cut(&text, ',', &more);
        if (item.len == 0)
            return wrong(error, f->name, item, f->expected);
        enum cox_err err = parse_item(f, item, bits, any, error);
        if (err != COX_OK)
            return err;
    }
    return COX_OK;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* Into at most 6 words; returns how many. */
static size_t split(struct cox_slice text, struct cox_slice words[6])
{
    size_t n = 0, i = 0;
    while (n < 6) {
        while (i < text.len && is_blank(text.data[i]))
            i++;
        size_t begin = i;
        while (i < text.len && !is_blank(text.data[i]))
            i++;
        if (i == begin)
            break;
        words[n++] = cox_slice(text.data + begin, i - begin);
    }
    return n;
}

enum cox_err cox_cron_parse(struct cox_slice text, struct cox_cron *ret, struct cox_buf *error)
{
    struct cox_slice words[6];
    uint64_t bits[5];
    bool any[5];
    size_t n = split(text, words);
    if (n == 1 && words[0].data[0] == '@') {
        const char *means = NULL;
        for (size_t i = 0; i < sizeof nicknames / sizeof nicknames[0]; i++)
            if (is_word(words[0], nicknames[i].name))
                means = nicknames[i].means;
        if (means == NULL)
            return wrong(error, "cron", words[0], "@hourly, @daily, @weekly, @monthly or @yearly");
        n = split(cox_slice_str(means), words);
    }
    if (n != 5) {
        cox_buf_printf(error, "cron: %s fields, expected 5: minute, hour, day of month, month, day of week",
                       n == 6 ? "more than 5" : (const char *[]){ "no", "1", "2", "3", "4" }[n]);
        return COX_ERR_INVALID;
    }
    for (size_t i = 0; i < 5; i++) {
        enum cox_err err = parse_field(&fields[i], words[i], &bits[i], &any[i], error);
        if (err != COX_OK)
            return err;
    }
    *ret = (struct cox_cron){
        .minutes = bits[MINUTE],
        .hours = (uint32_t)bits[HOUR],
        .days = (uint32_t)bits[DAY],
        .months = (uint32_t)bits[MONTH],
        .weekdays = (uint8_t)((bits[WEEKDAY] & 0x7f) | (bits[WEEKDAY] >> 7)),
        .any_day = any[DAY],
        .any_weekday = any[WEEKDAY],
        .any_hour = any[HOUR],
        .any_minute = any[MINUTE],
    };
    return COX_OK;
}
