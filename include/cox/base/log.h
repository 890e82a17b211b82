/* Structured log lines on stderr; only shells (programs and their threads) log, libraries return errors.
 *
 * text:  2026-01-02T03:04:05.678Z INFO  message key=value key="two words"
 * json:  {"time":"...","level":"info","message":"...","key":"value"}
 * One write(2) a line. Thread: any.
 */
#ifndef COX_BASE_LOG_H
#define COX_BASE_LOG_H

#include "cox/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum cox_log_level { COX_LOG_DEBUG, COX_LOG_INFO, COX_LOG_WARN, COX_LOG_ERROR };
enum cox_log_format { COX_LOG_TEXT, COX_LOG_JSON };

void cox_log_init(enum cox_log_level level, enum cox_log_format format); /* defaults: INFO, TEXT */
COX_MUST_CHECK enum cox_err cox_log_parse_level(const char *s, enum cox_log_level *ret);
COX_MUST_CHECK enum cox_err cox_log_parse_format(const char *s, enum cox_log_format *ret);
bool cox_log_on(enum cox_log_level level);

/* `...` are key/value pairs of C strings ended by a NULL key:
 *   cox_log(COX_LOG_INFO, "worker attached", "worker", id, "slots", COX_LOG_NUM(n), NULL);
 */
void cox_log(enum cox_log_level level, const char *message, ...) __attribute__((sentinel));

/* A number as a C string in a per-thread rotating scratch of 8; valid until the eighth next use. */
const char *cox_log_num(int64_t n);
#define COX_LOG_NUM(n) cox_log_num((int64_t)(n))

#endif
