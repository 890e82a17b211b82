#include "config_reader.h"

#include "cox/base/alloc.h"
#include "cox/config.h"
#include "cox/json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SHOWN_MAX 80u

bool config_fail(struct config_reader *r, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (!r->err)
        cox_buf_printf(r->error, "%s%s%s", cox_buf_cstr(&r->path), r->path.len > 0 ? ": " : "", text);
    if (!r->err)
        r->err = COX_ERR_INVALID;
    return false;
}

bool config_expected(struct config_reader *r, struct cox_slice value, const char *expected)
{
    enum cox_json_kind kind = cox_json_kind(value);
    bool scalar = kind != COX_JSON_OBJECT && kind != COX_JSON_ARRAY;
    int shown = (int)(value.len < SHOWN_MAX ? value.len : SHOWN_MAX);

    if (!scalar)
        return config_fail(r, "%s; expected %s", cox_json_kind_text(kind), expected);
    return config_fail(r, "%.*s%s; expected %s", shown, (const char *)value.data,
                       value.len > SHOWN_MAX ? "..." : "", expected);
}

size_t config_enter(struct config_reader *r, const char *name)
{
    size_t mark = r->path.len;

    cox_buf_printf(&r->path, "%s%s", mark > 0 ? "." : "", name);
    return mark;
}

size_t config_enter_item(struct config_reader *r, size_t index)
{
    size_t mark = r->path.len;

    cox_buf_printf(&r->path, "[%zu]", index);
    return mark;
}

void config_leave(struct config_reader *r, size_t mark)
{
    r->path.len = mark;
}

static bool unknown(struct config_reader *r, const char *name, const struct config_field *fields, size_t n)
{
    const char *nearest = NULL;
    unsigned best = COX_CONFIG_NEAR;
    struct cox_buf all = { 0 };
    bool ok;

    for (size_t i = 0; i < n; i++) {
        cox_config_consider(name, fields[i].name, &nearest, &best);
        cox_buf_printf(&all, "%s%s", i == 0 ? "" : i + 1 < n ? ", " : " or ", fields[i].name);
    }
    if (nearest)
        ok = config_fail(r, "unknown key; did you mean %s?", nearest);
    else
        ok = config_fail(r, "unknown key; expected %s", cox_buf_cstr(&all));
    cox_buf_fini(&all);
    return ok;
}

bool config_object(struct config_reader *r, struct cox_slice value, void *target,
                   const struct config_field *fields, size_t n_fields)
{
    struct cox_buf name = { 0 };
    bool ok = cox_json_kind(value) == COX_JSON_OBJECT || config_expected(r, value, "names and values");

    for (struct cox_json_walk w = cox_json_walk(value); ok && cox_json_next(&w);) {
        size_t i = 0;

        cox_buf_clear(&name);
        cox_json_unquote(&name, w.key);
        while (i < n_fields && !cox_slice_is(cox_buf_slice(&name), fields[i].name))
            i++;
        size_t mark = config_enter(r, cox_buf_cstr(&name));

        if (i == n_fields)
            ok = unknown(r, cox_buf_cstr(&name), fields, n_fields);
        else if (cox_json_kind(w.value) != COX_JSON_NULL)
            ok = fields[i].read(r, target, w.value);
        config_leave(r, mark);
    }
    cox_buf_fini(&name);
    return ok;
}

bool config_list(struct config_reader *r, struct cox_slice value, void *target, size_t max,
                 bool (*read)(struct config_reader *r, void *target, struct cox_slice item))
{
    size_t n = 0;
    bool ok = cox_json_kind(value) == COX_JSON_ARRAY || config_expected(r, value, "a list");

    for (struct cox_json_walk w = cox_json_walk(value); ok && cox_json_next(&w); n++) {
        if (n == max)
            return config_fail(r, "more than %zu", max);
        size_t mark = config_enter_item(r, n);

        ok = read(r, target, w.value);
        config_leave(r, mark);
    }
    return ok;
}

bool config_text(struct config_reader *r, struct cox_slice value, size_t max, const char *expected,
                 char **ret)
{
    struct cox_buf text = { 0 };
    bool ok = cox_json_kind(value) == COX_JSON_STRING;

    cox_json_unquote(&text, value);
    ok = ok && text.len > 0 && text.len <= max;
    for (size_t i = 0; ok && i < text.len; i++)
        ok = text.data[i] >= ' ' && text.data[i] < 0x7f;
    if (ok) {
        cox_free(*ret); /* of a name said twice the last counts, as everywhere */
        *ret = cox_strndup((const char *)text.data, text.len);
    }
    cox_buf_fini(&text);
    return ok || config_expected(r, value, expected);
}

bool config_count(struct config_reader *r, struct cox_slice value, uint64_t min, uint64_t max, uint64_t *ret)
{
    char expected[80];
    int64_t n = -1;

    if (cox_json_kind(value) == COX_JSON_NUMBER && cox_json_int(value, &n) && n >= 0 && (uint64_t)n >= min &&
        (uint64_t)n <= max) {
        *ret = (uint64_t)n;
        return true;
    }
    (void)snprintf(expected, sizeof(expected), "a whole number from %" PRIu64 " to %" PRIu64, min, max);
    return config_expected(r, value, expected);
}
