/* The next run: within a span of one offset local time runs evenly, so it is found there by days and bits;
 * what a change of the clock skips or repeats is looked at where one span follows another. */
#include "cox/cron.h"

#include "zone.h"

#define AHEAD_DAYS (5 * 366)

static bool day_matches(const struct cox_cron *c, int64_t days)
{
    int64_t year;
    int month, day;
    date_from_days(days, &year, &month, &day);
    if (!(c->months >> month & 1))
        return false;
    bool by_day = c->days >> day & 1;
    bool by_weekday = c->weekdays >> weekday_from_days(days) & 1;
    return c->any_day || c->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* The first minute of a day that matches, from `minute` on; -1: none. */
static int minute_from(const struct cox_cron *c, int minute)
{
    int hour = minute / 60;
    uint64_t minutes = c->minutes >> (minute % 60);
    if (c->hours >> hour & 1 && minutes != 0)
        return minute + __builtin_ctzll(minutes);
    if (hour == 23 || c->hours >> (hour + 1) == 0)
        return -1;
    hour += 1 + __builtin_ctz(c->hours >> (hour + 1));
    return hour * 60 + __builtin_ctzll(c->minutes);
}

/* The first local time that matches in [from, until), as seconds since 1970 of local time; INT64_MAX: none.
 */
static int64_t local_match(const struct cox_cron *c, int64_t from_s, int64_t until_s)
{
    int64_t from_min = -floor_div(-from_s, 60);
    int64_t day = floor_div(from_min, 1440);
    int minute = (int)(from_min - day * 1440);
    for (; day * 86400 < until_s; day++, minute = 0) {
        int m = day_matches(c, day) ? minute_from(c, minute) : -1;
        if (m >= 0)
            return day * 86400 + m * 60 < until_s ? day * 86400 + m * 60 : INT64_MAX;
    }
    return INT64_MAX;
}

/* The first run in a span at or after `from_s`; INT64_MAX: none before `until_s`. */
static int64_t span_match(const struct cox_cron *c, const struct zone_span *sp, int64_t from_s,
                          int64_t until_s)
{
    bool fixed = !c->any_hour && !c->any_minute;
    int64_t local = from_s + sp->offset_s;
    if (fixed && sp->since_s != INT64_MIN) {
        int64_t change_s = sp->since_s + sp->before_s; /* as the clock showed it before the change */
        if (from_s <= sp->since_s && local_match(c, change_s, sp->since_s + sp->offset_s) != INT64_MAX)
            return sp->since_s;
        if (local < change_s) /* these times have been before */
            local = change_s;
    }
    int64_t found = local_match(c, local, until_s + sp->offset_s);
    return found == INT64_MAX ? INT64_MAX : found - sp->offset_s;
}

int64_t cox_cron_next(const struct cox_cron *cron, struct cox_slice zone, int64_t after_wall_ms)
{
    int64_t from_s = floor_div(after_wall_ms, 1000) + 1;
    int64_t end_s = from_s + AHEAD_DAYS * 86400LL;
    while (from_s < end_s) {
        struct zone_span sp = zone_span_at(zone, from_s);
        int64_t until_s = sp.until_s < end_s ? sp.until_s : end_s;
        int64_t found = span_match(cron, &sp, from_s, until_s);
        if (found != INT64_MAX)
            return found * 1000;
        from_s = until_s;
    }
    return INT64_MAX;
}
