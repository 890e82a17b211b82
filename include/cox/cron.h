/* When a schedule runs: cron expressions in a time zone. Pure: no clock, no I/O; the zone's rules are bytes
 * that were read from the system's zone files (TZif, RFC 8536) by whoever may do I/O.
 *
 * Five fields: minute hour day-of-month month day-of-week. Lists, ranges, steps, names (jan, mon), 7 for
 * Sunday, and @hourly @daily @midnight @weekly @monthly @yearly @annually. When both day fields are
 * restricted, either matches (as in Vixie cron, where a field with `*` in it is not restricted, `*` with a
 * step included). Local times that a change of the clock skips run at the moment of the change; those that it
 * repeats run once, the first time; expressions with `*` for hour or minute run through both: not in what is
 * skipped, twice in what is repeated. Thread: any.
 */
#ifndef COX_CRON_H
#define COX_CRON_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

struct cox_cron {
    uint64_t minutes; /* bit n: minute n */
    uint32_t hours, days, months;
    uint8_t weekdays; /* bit 0: Sunday */
    bool any_day, any_weekday, any_hour, any_minute;
};
/* Errors: COX_ERR_INVALID, and `error` says which field, what was found and what was expected. */
COX_MUST_CHECK enum cox_err cox_cron_parse(struct cox_slice text, struct cox_cron *ret,
                                           struct cox_buf *error);

/* Rules of a zone, compact: appended to `out` from the bytes of a TZif file; empty input means UTC.
 * Errors: COX_ERR_CORRUPT. */
COX_MUST_CHECK enum cox_err cox_zone_compile(struct cox_slice tzif, struct cox_buf *out);
COX_MUST_CHECK enum cox_err cox_zone_check(struct cox_slice zone); /* bytes of cox_zone_compile? */
/* Seconds east of UTC at a moment. */
int32_t cox_zone_offset_s(struct cox_slice zone, int64_t wall_ms);

/* The first run after `after_wall_ms`; INT64_MAX: never (30 February), looking 5 years ahead.
 * Cost: O(days looked at), a few microseconds. */
int64_t cox_cron_next(const struct cox_cron *cron, struct cox_slice zone, int64_t after_wall_ms);

#endif
