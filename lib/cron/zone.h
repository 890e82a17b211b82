/* A zone as spans of one offset. Private to lib/cron. Times in seconds since 1970. */
#ifndef CRON_ZONE_H
#define CRON_ZONE_H

#include "cox/base/buf.h"

struct zone_span {
    int64_t since_s; /* INT64_MIN: it has no beginning */
    int64_t until_s; /* exclusive; INT64_MAX: it has no end */
    int32_t offset_s;
    int32_t before_s; /* the offset until then; the same when it has no beginning */
};
/* `zone` must have passed cox_zone_check; bytes that have not give UTC. */
struct zone_span zone_span_at(struct cox_slice zone, int64_t at_s);

/* Days since 1970 of a date of the proleptic Gregorian calendar, and back. */
int64_t days_from_date(int64_t year, int month, int day);
void date_from_days(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day);
static inline int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}
static inline int weekday_from_days(int64_t days)
{
    return (int)(((days + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
}

#endif
