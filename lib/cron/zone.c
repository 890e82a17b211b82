/* Zones: from a system's TZif file (RFC 8536) to a table of changes and the rule that goes on after them. */
#include "zone.h"

#include "cox/cron.h"

#include <string.h>

/*
 * u8 version, i32 offset before the first change, u32 n, n x { i64 at_s, i32 offset_s },
 * u8 what follows the last change: 0 its offset for ever, 1 a rule:
 *     i32 standard, i32 summer, 2 x { u8 form, u8 month, u8 week, u8 weekday, u16 day, i32 time_s }
 * A change in the table has another offset than what it follows; their times rise.
 */
#define ZONE_VERSION 1
#define ZONE_HEAD 9
#define CHANGE_LEN 12
#define CHANGES_MAX 4096u
#define OFFSET_MAX_S (26 * 3600)
#define RULE_TIME_MAX_S (167 * 3600)

enum day_form { DAY_JULIAN = 1, DAY_OF_YEAR = 2, DAY_OF_MONTH_WEEK = 3 }; /* Jn, n, Mm.w.d */
struct rule_day {
    uint8_t form, month, week, weekday;
    uint16_t day;
    int32_t time_s;
};
struct rule {
    int32_t standard_s, summer_s;
    struct rule_day begin, end; /* of summer time */
};
struct change {
    int64_t at_s;
    int32_t offset_s;
};
struct zone {
    const uint8_t *changes;
    uint32_t n;
    int32_t first_s;
    bool has_rule;
    struct rule rule;
};

/* ---- dates: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March ---- */

int64_t days_from_date(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = floor_div(y, 400);
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void date_from_days(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day)
{
    int64_t z = days + 719468;
    int64_t era = floor_div(z, 146097);
    int64_t of_era = z - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *ret_day = (int)(of_year - (153 * m + 2) / 5 + 1);
    *ret_month = (int)(m < 10 ? m + 3 : m - 9);
    *ret_year = y + era * 400 + (*ret_month <= 2);
}

static bool is_leap(int64_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* ---- rules ---- */

/* Days since 1970 on which a change of this year falls. */
static int64_t rule_days(const struct rule_day *d, int64_t year)
{
    int64_t first = days_from_date(year, 1, 1);
    if (d->form == DAY_OF_YEAR)
        return first + d->day;
    if (d->form == DAY_JULIAN) /* 29 February is not counted */
        return first + d->day - 1 + (is_leap(year) && d->day >= 60);
    int64_t month = days_from_date(year, d->month, 1);
    int64_t next = d->month == 12 ? days_from_date(year + 1, 1, 1) : days_from_date(year, d->month + 1, 1);
    int64_t at = month + (d->weekday - weekday_from_days(month) + 7) % 7 + (d->week - 1) * 7;
    return at < next ? at : at - 7; /* week 5 is the last there is */
}

/* The span around a moment: changes of the years about it, the latest that is not after it. */
static struct zone_span rule_span(const struct rule *r, int64_t at_s)
{
    struct zone_span ret = { INT64_MIN, INT64_MAX, r->standard_s, r->standard_s };
    int64_t year;
    int month, day;
    date_from_days(floor_div(at_s, 86400), &year, &month, &day);
    for (int64_t y = year - 2; y <= year + 2; y++) {
        int64_t begin = rule_days(&r->begin, y) * 86400 + r->begin.time_s - r->standard_s;
        int64_t end = rule_days(&r->end, y) * 86400 + r->end.time_s - r->summer_s;
        if (begin <= at_s && begin >= ret.since_s)
            ret = (struct zone_span){ begin, ret.until_s, r->summer_s, r->standard_s };
        if (end <= at_s && end > ret.since_s)
            ret = (struct zone_span){ end, ret.until_s, r->standard_s, r->summer_s };
        if (begin > at_s && begin < ret.until_s)
            ret.until_s = begin;
        if (end > at_s && end < ret.until_s)
            ret.until_s = end;
    }
    return ret;
}

/* ---- the compact form ---- */

static int32_t get_i32(struct cox_reader *r)
{
    return (int32_t)cox_get_u32(r);
}

static void put_day(struct cox_buf *b, const struct rule_day *d)
{
    cox_put_u8(b, d->form);
    cox_put_u8(b, d->month);
    cox_put_u8(b, d->week);
    cox_put_u8(b, d->weekday);
    cox_put_u16(b, d->day);
    cox_put_u32(b, (uint32_t)d->time_s);
}

static bool get_day(struct cox_reader *r, struct rule_day *d)
{
    d->form = cox_get_u8(r);
    d->month = cox_get_u8(r);
    d->week = cox_get_u8(r);
    d->weekday = cox_get_u8(r);
    d->day = cox_get_u16(r);
    d->time_s = get_i32(r);
    if (r->bad || d->time_s < -RULE_TIME_MAX_S || d->time_s > RULE_TIME_MAX_S)
        return false;
    switch (d->form) {
    case DAY_JULIAN:
        return d->day >= 1 && d->day <= 365;
    case DAY_OF_YEAR:
        return d->day <= 365;
    case DAY_OF_MONTH_WEEK:
        return d->month >= 1 && d->month <= 12 && d->week >= 1 && d->week <= 5 && d->weekday <= 6;
    default:
        return false;
    }
}

static bool offset_ok(int32_t offset_s)
{
    return offset_s >= -OFFSET_MAX_S && offset_s <= OFFSET_MAX_S;
}

/* Everything but the order of the changes, which only cox_zone_check reads through. */
static bool zone_open(struct cox_slice bytes, struct zone *ret)
{
    struct cox_reader r = cox_reader(bytes);
    *ret = (struct zone){ 0 };
    if (cox_get_u8(&r) != ZONE_VERSION)
        return false;
    ret->first_s = get_i32(&r);
    ret->n = cox_get_u32(&r);
    if (r.bad || ret->n > CHANGES_MAX || !offset_ok(ret->first_s))
        return false;
    ret->changes = cox_get_raw(&r, (size_t)ret->n * CHANGE_LEN).data;
    uint8_t then = cox_get_u8(&r);
    if (r.bad || then > 1)
        return false;
    ret->has_rule = then == 1;
    if (ret->has_rule) {
        ret->rule.standard_s = get_i32(&r);
        ret->rule.summer_s = get_i32(&r);
        if (!get_day(&r, &ret->rule.begin) || !get_day(&r, &ret->rule.end) ||
            !offset_ok(ret->rule.standard_s) || !offset_ok(ret->rule.summer_s))
            return false;
    }
    return cox_reader_left(&r) == 0;
}

static struct change change_at(const struct zone *z, uint32_t i)
{
    struct cox_reader r = cox_reader(cox_slice(z->changes + (size_t)i * CHANGE_LEN, CHANGE_LEN));
    int64_t at_s = cox_get_i64(&r);
    return (struct change){ at_s, get_i32(&r) };
}

enum cox_err cox_zone_check(struct cox_slice bytes)
{
    struct zone z;
    if (!zone_open(bytes, &z))
        return COX_ERR_CORRUPT;
    for (uint32_t i = 0; i < z.n; i++)
        if (!offset_ok(change_at(&z, i).offset_s) ||
            (i > 0 && change_at(&z, i).at_s <= change_at(&z, i - 1).at_s))
            return COX_ERR_CORRUPT;
    return COX_OK;
}

struct zone_span zone_span_at(struct cox_slice bytes, int64_t at_s)
{
    struct zone z;
    if (!zone_open(bytes, &z))
        return (struct zone_span){ INT64_MIN, INT64_MAX, 0, 0 };
    uint32_t low = 0, high = z.n; /* the number of changes that are not after the moment */
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (change_at(&z, mid).at_s <= at_s)
            low = mid + 1;
        else
            high = mid;
    }
    struct zone_span ret = { INT64_MIN, INT64_MAX, z.first_s, z.first_s };
    if (low > 0) {
        ret.since_s = change_at(&z, low - 1).at_s;
        ret.offset_s = change_at(&z, low - 1).offset_s;
        ret.before_s = low > 1 ? change_at(&z, low - 2).offset_s : z.first_s;
    }
    if (low < z.n) {
        ret.until_s = change_at(&z, low).at_s;
    } else if (z.has_rule) {
        struct zone_span by_rule = rule_span(&z.rule, at_s);
        if (low == 0 || by_rule.since_s > ret.since_s)
            return by_rule;
        ret.until_s = by_rule.until_s;
    }
    return ret;
}

int32_t cox_zone_offset_s(struct cox_slice zone, int64_t wall_ms)
{
    return zone_span_at(zone, floor_div(wall_ms, 1000)).offset_s;
}

/* ---- the footer: a TZ string of POSIX, with the extensions of RFC 8536 section 3.3.1 ---- */

struct text {
    const uint8_t *p, *end;
    bool bad;
};

static int peek(const struct text *t)
{
    return t->p < t->end ? *t->p : -1;
}

static bool take(struct text *t, int c)
{
    if (peek(t) != c)
        return false;
    t->p++;
    return true;
}

static int32_t take_number(struct text *t, int32_t max)
{
    int32_t n = 0;
    if (peek(t) < '0' || peek(t) > '9')
        t->bad = true;
    while (peek(t) >= '0' && peek(t) <= '9' && n <= max)
        n = n * 10 + (*t->p++ - '0');
    if (n > max)
        t->bad = true;
    return n;
}

static void skip_name(struct text *t)
{
    const uint8_t *begin = t->p;
    if (take(t, '<')) {
        while (t->p < t->end && *t->p != '>')
            t->p++;
        t->bad |= !take(t, '>');
        return;
    }
    while ((peek(t) >= 'a' && peek(t) <= 'z') || (peek(t) >= 'A' && peek(t) <= 'Z'))
        t->p++;
    t->bad |= t->p - begin < 3;
}

/* [+-]hh[:mm[:ss]] in seconds. */
static int32_t take_time(struct text *t, int32_t hours_max)
{
    bool negative = take(t, '-');
    if (!negative)
        take(t, '+');
    int32_t s = take_number(t, hours_max) * 3600;
    if (take(t, ':'))
        s += take_number(t, 59) * 60;
    if (take(t, ':'))
        s += take_number(t, 59);
    return negative ? -s : s;
}

static struct rule_day take_day(struct text *t)
{
    struct rule_day d = { .form = DAY_OF_YEAR, .time_s = 2 * 3600 };
    if (take(t, 'M')) {
        d.form = DAY_OF_MONTH_WEEK;
        d.month = (uint8_t)take_number(t, 12);
        t->bad |= !take(t, '.');
        d.week = (uint8_t)take_number(t, 5);
        t->bad |= !take(t, '.');
        d.weekday = (uint8_t)take_number(t, 6);
        t->bad |= d.month == 0 || d.week == 0;
    } else {
        if (take(t, 'J'))
            d.form = DAY_JULIAN;
        d.day = (uint16_t)take_number(t, 365);
        t->bad |= d.form == DAY_JULIAN && d.day == 0;
    }
    if (take(t, '/'))
        d.time_s = take_time(t, 167);
    return d;
}

/* False: it is no such string. `ret_summer`: it has summer time; else only `standard_s` is set. */
static bool parse_footer(struct cox_slice footer, struct rule *ret, bool *ret_summer)
{
    struct text t = { footer.data, footer.data + footer.len, false };
    *ret = (struct rule){ 0 };
    skip_name(&t);
    ret->standard_s = -take_time(&t, 24); /* it counts west of Greenwich */
    *ret_summer = t.p < t.end;
    if (*ret_summer) {
        skip_name(&t);
        ret->summer_s = peek(&t) == ',' ? ret->standard_s + 3600 : -take_time(&t, 24);
        t.bad |= !take(&t, ',');
        ret->begin = take_day(&t);
        t.bad |= !take(&t, ',');
        ret->end = take_day(&t);
    }
    return !t.bad && t.p == t.end;
}

/* ---- TZif ---- */

struct tzif {
    uint8_t version;
    uint32_t n_utc, n_std, n_leaps, n_times, n_types, n_chars;
};

static uint32_t get_be32(struct cox_reader *r)
{
    struct cox_slice s = cox_get_raw(r, 4);
    if (s.len < 4)
        return 0;
    return (uint32_t)s.data[0] << 24 | (uint32_t)s.data[1] << 16 | (uint32_t)s.data[2] << 8 | s.data[3];
}

static int64_t get_be64(struct cox_reader *r)
{
    uint64_t high = get_be32(r);
    return (int64_t)(high << 32 | get_be32(r));
}

static bool get_header(struct cox_reader *r, struct tzif *ret)
{
    struct cox_slice magic = cox_get_raw(r, 4);
    if (magic.len < 4 || memcmp(magic.data, "TZif", 4) != 0)
        return false;
    ret->version = cox_get_u8(r);
    cox_get_raw(r, 15);
    uint32_t *counts[] = { &ret->n_utc,   &ret->n_std,   &ret->n_leaps,
                           &ret->n_times, &ret->n_types, &ret->n_chars };
    for (size_t i = 0; i < 6; i++) {
        *counts[i] = get_be32(r);
        if (*counts[i] > CHANGES_MAX)
            return false;
    }
    return !r->bad && ret->n_types > 0 && ret->n_types <= 256;
}

static void skip_data(struct cox_reader *r, const struct tzif *h, size_t time_len)
{
    cox_get_raw(r, h->n_times * (time_len + 1) + h->n_types * (size_t)6 + h->n_chars +
                       h->n_leaps * (time_len + 4) + h->n_std + h->n_utc);
}

/* What changes the offset, since 1970: nothing here is older. */
struct table {
    int32_t first_s;
    uint32_t n;
    struct change changes[CHANGES_MAX];
};

static int32_t table_last(const struct table *t)
{
    return t->n > 0 ? t->changes[t->n - 1].offset_s : t->first_s;
}

static enum cox_err read_table(struct cox_reader *r, const struct tzif *h, size_t time_len, struct table *ret)
{
    int32_t offsets[256];
    struct cox_reader times = cox_reader(cox_get_raw(r, h->n_times * time_len));
    struct cox_slice types = cox_get_raw(r, h->n_times);
    struct cox_reader infos = cox_reader(cox_get_raw(r, h->n_types * (size_t)6));
    cox_get_raw(r, h->n_chars + h->n_leaps * (time_len + 4) + h->n_std + h->n_utc);
    for (uint32_t i = 0; i < h->n_types; i++) {
        offsets[i] = (int32_t)get_be32(&infos);
        cox_get_raw(&infos, 2);
        if (!offset_ok(offsets[i]))
            return COX_ERR_CORRUPT;
    }
    if (r->bad || h->n_leaps > 0) /* a zone that counts leap seconds has another time than we have */
        return COX_ERR_CORRUPT;
    ret->first_s = offsets[0];
    ret->n = 0;
    int64_t last_s = INT64_MIN;
    for (uint32_t i = 0; i < h->n_times; i++) {
        int64_t at_s = time_len == 8 ? get_be64(&times) : (int32_t)get_be32(&times);
        if (types.data[i] >= h->n_types || (i > 0 && at_s <= last_s))
            return COX_ERR_CORRUPT;
        last_s = at_s;
        int32_t offset_s = offsets[types.data[i]];
        if (at_s <= 0)
            ret->first_s = offset_s;
        else if (offset_s != table_last(ret))
            ret->changes[ret->n++] = (struct change){ at_s, offset_s };
    }
    return COX_OK;
}

/* Leaves out what the rule says too: files often list the changes up to 2037. */
static void drop_what_follows(struct table *t, const struct rule *rule)
{
    while (t->n > 1) {
        const struct change *last = &t->changes[t->n - 1], *before = last - 1;
        struct zone_span at = rule_span(rule, last->at_s), until = rule_span(rule, last->at_s - 1);
        if (at.since_s != last->at_s || at.offset_s != last->offset_s || until.since_s != before->at_s ||
            until.offset_s != before->offset_s)
            break;
        t->n--;
    }
}

static void put_zone(struct cox_buf *b, const struct table *t, const struct rule *rule)
{
    cox_put_u8(b, ZONE_VERSION);
    cox_put_u32(b, (uint32_t)t->first_s);
    cox_put_u32(b, t->n);
    for (uint32_t i = 0; i < t->n; i++) {
        cox_put_i64(b, t->changes[i].at_s);
        cox_put_u32(b, (uint32_t)t->changes[i].offset_s);
    }
    cox_put_u8(b, rule != NULL);
    if (rule == NULL)
        return;
    cox_put_u32(b, (uint32_t)rule->standard_s);
    cox_put_u32(b, (uint32_t)rule->summer_s);
    put_day(b, &rule->begin);
    put_day(b, &rule->end);
}

/* The line at a file's end: empty, or what goes on after the table. */
static enum cox_err read_footer(struct cox_reader *r, struct table *t, struct rule *ret, bool *ret_summer)
{
    struct cox_slice rest = cox_get_raw(r, cox_reader_left(r));
    *ret_summer = false;
    if (rest.len < 2 || rest.data[0] != '\n' || rest.data[rest.len - 1] != '\n')
        return COX_ERR_CORRUPT;
    if (rest.len == 2)
        return COX_OK;
    if (!parse_footer(cox_slice(rest.data + 1, rest.len - 2), ret, ret_summer))
        return COX_ERR_CORRUPT;
    if (*ret_summer)
        drop_what_follows(t, ret);
    else if (t->n == 0)
        t->first_s = ret->standard_s;
    else if (table_last(t) != ret->standard_s)
        return COX_ERR_CORRUPT;
    return COX_OK;
}

enum cox_err cox_zone_compile(struct cox_slice file, struct cox_buf *out)
{
    struct table table = { 0 };
    struct rule rule;
    struct tzif h;
    bool summer = false;
    if (file.len > 0) {
        struct cox_reader r = cox_reader(file);
        size_t time_len = 4;
        if (!get_header(&r, &h))
            return COX_ERR_CORRUPT;
        if (h.version >= '2') {
            skip_data(&r, &h, 4);
            if (!get_header(&r, &h))
                return COX_ERR_CORRUPT;
            time_len = 8;
        }
        enum cox_err err = read_table(&r, &h, time_len, &table);
        if (err == COX_OK && time_len == 8)
            err = read_footer(&r, &table, &rule, &summer);
        if (err != COX_OK)
            return err;
    }
    put_zone(out, &table, summer ? &rule : NULL);
    return COX_OK;
}
