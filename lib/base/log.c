#include "cox/base/log.h"

#include "cox/base/buf.h"
#include "cox/base/units.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NUMS 8
#define NUM_LEN_MAX 24

static _Atomic int log_level = COX_LOG_INFO;
static _Atomic int log_format = COX_LOG_TEXT;

static const char *const level_names[] = { "debug", "info", "warn", "error" };
static const char *const level_labels[] = { "DEBUG", "INFO ", "WARN ", "ERROR" };

void cox_log_init(enum cox_log_level level, enum cox_log_format format)
{
    atomic_store(&log_level, (int)level);
    atomic_store(&log_format, (int)format);
}

enum cox_err cox_log_parse_level(const char *s, enum cox_log_level *ret)
{
    for (int i = COX_LOG_DEBUG; i <= COX_LOG_ERROR; i++) {
        if (strcmp(s, level_names[i]) == 0) {
            *ret = (enum cox_log_level)i;
            return COX_OK;
        }
    }
    return COX_ERR_INVALID;
}

enum cox_err cox_log_parse_format(const char *s, enum cox_log_format *ret)
{
    if (strcmp(s, "text") == 0)
        *ret = COX_LOG_TEXT;
    else if (strcmp(s, "json") == 0)
        *ret = COX_LOG_JSON;
    else
        return COX_ERR_INVALID;
    return COX_OK;
}

bool cox_log_on(enum cox_log_level level)
{
    return (int)level >= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* A JSON string. Bytes of ill-formed UTF-8 become U+FFFD: a log line is always valid JSON. */
static void put_quoted(struct cox_buf *b, const char *s)
{
    bool utf8 = cox_utf8_ok(cox_slice_str(s));

    cox_put_u8(b, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            cox_buf_printf(b, "\\%c", c);
        else if (c == '\n')
            cox_buf_append_str(b, "\\n");
        else if (c < 0x20 || c == 0x7f)
            cox_buf_printf(b, "\\u%04x", c);
        else if (c >= 0x80 && !utf8)
            cox_buf_append_str(b, "\\ufffd");
        else
            cox_put_u8(b, c);
    }
    cox_put_u8(b, '"');
}

/* A word stands as it is; anything that would make the line ambiguous is quoted. */
static void put_word(struct cox_buf *b, const char *s)
{
    bool plain = *s != '\0';

    for (const char *p = s; *p && plain; p++)
        plain = *p > ' ' && *p < 0x7f && *p != '"' && *p != '=' && *p != '\\';
    if (plain)
        cox_buf_append_str(b, s);
    else
        put_quoted(b, s);
}

/* A message is free text, but one line. */
static void put_message(struct cox_buf *b, const char *s)
{
    for (; *s; s++)
        cox_put_u8(b, (unsigned char)*s < ' ' ? ' ' : (uint8_t)*s);
}

static void put_text(struct cox_buf *b, enum cox_log_level level, const char *message, va_list args)
{
    cox_put_time(b, cox_clock_wall_ms());
    cox_buf_printf(b, " %s ", level_labels[level]);
    put_message(b, message);
    for (const char *key; (key = va_arg(args, const char *));) {
        const char *value = va_arg(args, const char *);
        cox_buf_printf(b, " %s=", key);
        put_word(b, value ? value : "");
    }
}

static void put_json(struct cox_buf *b, enum cox_log_level level, const char *message, va_list args)
{
    cox_buf_append_str(b, "{\"time\":\"");
    cox_put_time(b, cox_clock_wall_ms());
    cox_buf_printf(b, "\",\"level\":\"%s\",\"message\":", level_names[level]);
    put_quoted(b, message);
    for (const char *key; (key = va_arg(args, const char *));) {
        const char *value = va_arg(args, const char *);
        cox_put_u8(b, ',');
        put_quoted(b, key);
        cox_put_u8(b, ':');
        put_quoted(b, value ? value : "");
    }
    cox_put_u8(b, '}');
}

void cox_log(enum cox_log_level level, const char *message, ...)
{
    if (!cox_log_on(level))
        return;
    int saved_errno = errno;
    struct cox_buf line = { 0 };
    va_list args;

    va_start(args, message);
    if (atomic_load_explicit(&log_format, memory_order_relaxed) == COX_LOG_JSON)
        put_json(&line, level, message, args);
    else
        put_text(&line, level, message, args);
    va_end(args);
    cox_put_u8(&line, '\n');
    ssize_t n = write(STDERR_FILENO, line.data, line.len);

    (void)n; /* there is nowhere to report that reporting failed */
    cox_buf_fini(&line);
    errno = saved_errno;
}

const char *cox_log_num(int64_t n)
{
    static _Thread_local char texts[NUMS][NUM_LEN_MAX];
    static _Thread_local unsigned turn;
    char *text = texts[turn++ % NUMS];

    snprintf(text, NUM_LEN_MAX, "%lld", (long long)n);
    return text;
}
