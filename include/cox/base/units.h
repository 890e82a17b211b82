/* Text of durations, sizes and times, as users write them.
 *   durations: "1.5s", "250ms", "10m", "2h", "7d", and sums such as "1h30m"; a plain 0 is allowed
 *   sizes:     "512", "16Gi", "512M", "0.5G" (Ki Mi Gi Ti are powers of 1024, K k M G T of 1000)
 *   cpu:       "0.5", "2", "500m"  -> thousandths of a core
 *   times:     RFC 3339 UTC with milliseconds
 * Errors: COX_ERR_INVALID on any other text, overflow or negative values; *ret is untouched. Thread: any.
 */
#ifndef COX_BASE_UNITS_H
#define COX_BASE_UNITS_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

COX_MUST_CHECK enum cox_err cox_parse_duration_ms(struct cox_slice s, int64_t *ret_ms);
COX_MUST_CHECK enum cox_err cox_parse_size(struct cox_slice s, int64_t *ret_bytes);
COX_MUST_CHECK enum cox_err cox_parse_cpu_milli(struct cox_slice s, int64_t *ret_milli);
void cox_put_duration(struct cox_buf *b, int64_t ms);  /* human: "1.5s", "2m3s", "1h2m" */
void cox_put_time(struct cox_buf *b, int64_t unix_ms); /* "2026-01-02T03:04:05.678Z" */
COX_MUST_CHECK enum cox_err cox_parse_time(struct cox_slice s, int64_t *ret_unix_ms);

/* True when s is well-formed UTF-8 (no surrogates, no overlong forms). */
bool cox_utf8_ok(struct cox_slice s);
/* Length of the well-formed character at the front of `s`; 0 when there is none. */
size_t cox_utf8_len(struct cox_slice s);
/* Writes a character (no surrogate, at most U+10FFFF) and returns its length, 1 to 4. */
size_t cox_utf8_encode(uint8_t ret[4], uint32_t c);

/* Clocks, for shells only: pure parts take time as an argument. */
int64_t cox_clock_mono_ns(void);
int64_t cox_clock_wall_ms(void);

#endif
