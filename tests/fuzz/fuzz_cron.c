/* Any text as a cron expression (up to the first NUL byte), any instant (8 bytes behind it), and any rest as
 * a zone: the words of a TZ rule after 'r', a file's bytes after 'f', the compact form after 'z', else UTC.
 * Refused with words, or the next run is the first moment that a walk through every minute finds. */
#include "fuzz.h"

#include "cox/base/units.h"
#include "cox/cron.h"

#include <string.h>

#define WALK_S (30 * 3600)       /* how far the walk goes */
#define APART_S (8 * 86400LL)    /* changes of the clock that the walk understands */
#define FAR_MS 100000000000000LL /* about the year 5138, and as far back */

static void put_be(struct cox_buf *b, uint64_t v, int len)
{
    while (len-- > 0)
        cox_put_u8(b, len < 8 ? (uint8_t)(v >> (8 * len)) : 0);
}

static void put_header(struct cox_buf *b)
{
    cox_buf_append_str(b, "TZif2");
    put_be(b, 0, 15);
    for (int i = 0; i < 6; i++)
        put_be(b, i == 4 ? 1 : i == 5 ? 4 : 0, 4);
    put_be(b, 0, 6);
    put_be(b, 0, 4);
}

/* True: `out` is a zone. */
static bool make_zone(struct cox_slice in, struct cox_buf *out)
{
    struct cox_buf file = { 0 };
    uint8_t kind = in.len > 0 ? in.data[0] : 0;
    struct cox_slice rest = in.len > 0 ? cox_slice(in.data + 1, in.len - 1) : in;
    bool ok;

    if (kind == 'z') {
        cox_buf_append_slice(out, rest);
        return cox_zone_check(rest) == COX_OK;
    }
    if (kind == 'r') {
        put_header(&file);
        put_header(&file);
        cox_put_u8(&file, '\n');
        cox_buf_append_slice(&file, rest);
        cox_put_u8(&file, '\n');
        rest = cox_buf_slice(&file);
    }
    ok = cox_zone_compile(kind == 'r' || kind == 'f' ? rest : cox_slice(NULL, 0), out) == COX_OK;
    COX_ASSERT(!ok || cox_zone_check(cox_buf_slice(out)) == COX_OK);
    cox_buf_fini(&file);
    return ok;
}

/* ---- the walk: what the contract says, by another calendar than the code's ---- */

static bool is_leap(int64_t y)
{
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

static bool day_matches(const struct cox_cron *c, int64_t days)
{
    static const int lengths[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int64_t era = days / 146097 - (days % 146097 < 0), year = 1970 + era * 400, left = days - era * 146097;
    int month = 0, weekday = (int)(((days % 7) + 7 + 4) % 7);

    while (left >= 365 + is_leap(year))
        left -= 365 + is_leap(year++);
    while (left >= lengths[month] + (month == 1 && is_leap(year))) {
        left -= lengths[month] + (month == 1 && is_leap(year));
        month++;
    }
    bool by_day = c->days >> (left + 1) & 1, by_weekday = c->weekdays >> weekday & 1;
    bool day = c->any_day || c->any_weekday ? by_day && by_weekday : by_day || by_weekday;

    return day && c->months >> (month + 1) & 1;
}

static bool local_matches(const struct cox_cron *c, int64_t local_s)
{
    int64_t days = local_s / 86400 - (local_s % 86400 < 0), of_day = local_s - days * 86400;

    return of_day % 60 == 0 && c->hours >> (of_day / 3600) & 1 && c->minutes >> (of_day / 60 % 60) & 1 &&
           day_matches(c, days);
}

/* Between two moments of different offsets: when the second one begins. */
static int64_t change_between(struct cox_slice zone, int64_t low_s, int64_t high_s)
{
    int32_t before = cox_zone_offset_s(zone, low_s * 1000);

    while (high_s - low_s > 1) {
        int64_t mid = low_s + (high_s - low_s) / 2;
        if (cox_zone_offset_s(zone, mid * 1000) == before)
            low_s = mid;
        else
            high_s = mid;
    }
    return high_s;
}

/* The last change that is not after a moment; INT64_MIN: none for days. False: several are too close. */
static bool last_change(struct cox_slice zone, int64_t at_s, int64_t *ret_s)
{
    int32_t now = cox_zone_offset_s(zone, at_s * 1000);
    int64_t found = INT64_MIN;

    for (int64_t s = at_s; s > at_s - APART_S; s -= 3600) {
        int32_t earlier = cox_zone_offset_s(zone, (s - 3600) * 1000);
        if (earlier == now)
            continue;
        if (found != INT64_MIN)
            return false;
        found = change_between(zone, s - 3600, s);
        now = earlier;
    }
    *ret_s = found;
    return true;
}

static bool skipped_matches(const struct cox_cron *c, int64_t from_s, int64_t until_s)
{
    for (int64_t s = from_s + (60 - from_s % 60) % 60; s < until_s; s += 60) {
        if (local_matches(c, s))
            return true;
    }
    return false;
}

/* The first run in (from, until], whose clock goes evenly; local times before `shown_s` have been. */
static int64_t walk_evenly(const struct cox_cron *c, int64_t from_s, int64_t until_s, int32_t offset,
                           int64_t shown_s)
{
    int64_t local = from_s + offset;

    for (local += 60 - (local % 60 + 60) % 60; local <= until_s + offset; local += 60) {
        if (local_matches(c, local) && local >= shown_s)
            return local - offset;
    }
    return INT64_MAX;
}

/* The first run in (after, after + WALK_S]; INT64_MAX: none. */
static int64_t walk(const struct cox_cron *c, struct cox_slice zone, int64_t after_s, int64_t changed_s)
{
    bool fixed = !c->any_hour && !c->any_minute;
    int32_t offset = cox_zone_offset_s(zone, after_s * 1000), then;
    int64_t shown_s = INT64_MIN, found = INT64_MAX, next;

    if (fixed && changed_s != INT64_MIN)
        shown_s = changed_s + cox_zone_offset_s(zone, (changed_s - 1) * 1000);
    for (int64_t at = after_s; at < after_s + WALK_S && found == INT64_MAX; at = next) {
        next = at + 3600;
        then = cox_zone_offset_s(zone, next * 1000);
        if (then != offset)
            next = change_between(zone, at, next) - 1;
        found = walk_evenly(c, at, next, offset, shown_s);
        if (then == offset || found != INT64_MAX)
            continue;
        next++; /* the change itself */
        if (fixed)
            shown_s = next + offset;
        if (fixed && then > offset && skipped_matches(c, shown_s, next + then))
            return next;
        offset = then;
        if (local_matches(c, next + offset) && next + offset >= shown_s)
            return next;
    }
    return found <= after_s + WALK_S ? found : INT64_MAX;
}

static void check_next(const struct cox_cron *c, struct cox_slice zone, int64_t after_ms)
{
    int64_t next = cox_cron_next(c, zone, after_ms), again, changed_s;
    int64_t after_s = after_ms / 1000 - (after_ms % 1000 < 0);
    int64_t low, high;

    COX_ASSERT(next > after_ms);
    if (next == INT64_MAX)
        return;
    again = cox_cron_next(c, zone, next - 1);
    COX_ASSERT(again == next && next % 1000 == 0);
    COX_ASSERT(cox_cron_next(c, zone, next) > next);
    if (!last_change(zone, after_s, &changed_s) || !last_change(zone, after_s + APART_S, &low) ||
        !last_change(zone, after_s + APART_S / 2, &high))
        return;
    int64_t walked = walk(c, zone, after_s, changed_s);
    COX_ASSERT(walked == INT64_MAX ? next / 1000 > after_s + WALK_S : next / 1000 == walked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    struct cox_slice text = cox_slice(data, end ? (size_t)(end - data) : size);
    struct cox_reader rest = cox_reader(cox_slice(data + text.len, size - text.len));
    struct cox_buf error = { 0 }, zone = { 0 };
    struct cox_cron cron;

    cox_get_u8(&rest);
    int64_t after_ms = cox_get_i64(&rest) % FAR_MS;
    bool has_zone = make_zone(cox_get_raw(&rest, cox_reader_left(&rest)), &zone);

    if (cox_cron_parse(text, &cron, &error) != COX_OK) {
        COX_ASSERT(error.len > 0 && error.len < 400);
        COX_ASSERT(!cox_utf8_ok(text) || cox_utf8_ok(cox_buf_slice(&error)));
    } else {
        COX_ASSERT(error.len == 0 && cron.minutes && cron.hours && cron.days && cron.months && cron.weekdays);
        COX_ASSERT(cron.minutes >> 60 == 0 && cron.hours >> 24 == 0 && cron.weekdays >> 7 == 0);
        COX_ASSERT((cron.days & 1) == 0 && cron.months >> 13 == 0 && (cron.months & 1) == 0);
        if (has_zone)
            check_next(&cron, cox_buf_slice(&zone), after_ms);
    }
    cox_buf_fini(&error);
    cox_buf_fini(&zone);
    return 0;
}
