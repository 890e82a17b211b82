#include "report.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/units.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DISTANCE_MAX 2u

void cox_violations_fini(struct cox_violations *v)
{
    for (uint32_t i = 0; i < v->n; i++) {
        cox_free(v->items[i].path);
        cox_free(v->items[i].message);
    }
    *v = (struct cox_violations){ 0 };
}

bool report_clean(const struct report *r)
{
    return r->violations->n == 0;
}

bool report_open(const struct report *r)
{
    return r->violations->n < COX_VIOLATIONS_MAX;
}

static char *buf_text(struct cox_buf *b)
{
    char *text = cox_strdup(cox_buf_cstr(b));

    cox_buf_fini(b);
    return text;
}

/* Messages quote the document, so cutting one may split a character: cut before it. */
static char *format_message(const char *fmt, va_list args)
{
    char text[COX_ERROR_MESSAGE_LEN_MAX];
    int n = vsnprintf(text, sizeof(text), fmt, args);

    COX_ASSERT(n >= 0);
    size_t len = (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;

    if ((size_t)n > len) {
        while (len > 0 && ((uint8_t)text[len - 1] & 0xc0) == 0x80)
            len--;
        if (len > 0 && ((uint8_t)text[len - 1] & 0x80))
            len--;
    }
    return cox_strndup(text, len);
}

static void add(struct report *r, char *path, char *message, uint32_t line)
{
    r->violations->items[r->violations->n++] =
        (struct cox_violation){ .path = path, .message = message, .line = line };
}

void report_at(struct report *r, const struct place *at, const char *fmt, ...)
{
    struct cox_buf path = { 0 };
    va_list args;

    if (!report_open(r)) {
        r->violations->n_more++;
        return;
    }
    place_put(&path, at);
    va_start(args, fmt);
    char *message = format_message(fmt, args);

    va_end(args);
    add(r, buf_text(&path), message, r->text.len > 0 ? place_line(r->text, at) : 0);
}

void report_offset(struct report *r, const struct place *at, struct cox_slice text, size_t offset,
                   const char *fmt, ...)
{
    struct cox_buf path = { 0 };
    va_list args;

    if (!report_open(r)) {
        r->violations->n_more++;
        return;
    }
    place_put(&path, at);
    path_put_at(&path, text, offset);
    if (!cox_utf8_ok(cox_buf_slice(&path)))
        cox_buf_clear(&path); /* the text is broken, and a path must not be */
    va_start(args, fmt);
    char *message = format_message(fmt, args);

    va_end(args);
    add(r, buf_text(&path), message, r->text.len > 0 ? line_at(text, offset) : 0);
}

const char *found_text(const json_t *value, char ret[FOUND_LEN])
{
    struct cox_slice s;

    switch (json_typeof(value)) {
    case JSON_STRING:
        s = cox_slice(json_string_value(value), json_string_length(value));
        snprintf(ret, FOUND_LEN, "the string \"%.*s%s\"", shown_len(s, 37), json_string_value(value),
                 s.len > 37 ? "..." : "");
        break;
    case JSON_INTEGER:
        snprintf(ret, FOUND_LEN, "the integer %lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(ret, FOUND_LEN, "the number %g", json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(ret, FOUND_LEN, "the boolean %s", json_is_true(value) ? "true" : "false");
        break;
    case JSON_NULL:
        return "null";
    case JSON_ARRAY:
        return "a list";
    case JSON_OBJECT:
        return "an object";
    }
    return ret;
}

void report_found(struct report *r, const struct place *at, const json_t *value, const char *expected)
{
    char found[FOUND_LEN];

    report_at(r, at, "found %s, expected %s", found_text(value, found), expected);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Edits that make one name of the other: a letter changed, added or left out, or two neighbours swapped. */
static unsigned distance(struct cox_slice a, struct cox_slice b)
{
    unsigned rows[3][COX_NAME_LEN_MAX + 1], *before = rows[0], *above = rows[1], *row = rows[2];

    for (unsigned j = 0; j <= b.len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned *oldest = before;

        before = above;
        above = row;
        row = oldest;
        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            row[j] = above[j - 1] + (a.data[i - 1] != b.data[j - 1]);
            row[j] = least(row[j], least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] && a.data[i - 2] == b.data[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
    }
    return row[b.len];
}

struct suggestion suggestion(struct cox_slice word)
{
    return (struct suggestion){ .word = word, .distance = DISTANCE_MAX + 1 };
}

void suggestion_offer(struct suggestion *s, struct cox_slice name)
{
    size_t longer = s->word.len > name.len ? s->word.len : name.len;
    size_t shorter = s->word.len + name.len - longer;

    if (longer > COX_NAME_LEN_MAX || longer - shorter > DISTANCE_MAX)
        return;
    unsigned d = distance(s->word, name);

    /* In a word of three letters, two wrong ones are no resemblance. */
    if (d < s->distance && 2 * d <= longer) {
        s->distance = d;
        s->best = name;
    }
}

const char *suggestion_text(const struct suggestion *s, char ret[SUGGESTION_LEN])
{
    if (s->distance > DISTANCE_MAX)
        return "";
    snprintf(ret, SUGGESTION_LEN, "; did you mean `%.*s`?", (int)s->best.len, (const char *)s->best.data);
    return ret;
}
