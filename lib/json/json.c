#include "text.h"

#include "cox/json.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- walking over checked text ---------------------------------------------------------------------- */

struct cox_slice cox_json_trim(struct cox_slice text)
{
    while (text.len > 0 && json_is_space(text.data[0]))
        text = cox_slice(text.data + 1, text.len - 1);
    while (text.len > 0 && json_is_space(text.data[text.len - 1]))
        text.len--;
    return text;
}

enum cox_json_kind cox_json_kind(struct cox_slice text)
{
    text = cox_json_trim(text);
    if (text.len == 0)
        return COX_JSON_NONE;
    switch (text.data[0]) {
    case 'n':
        return COX_JSON_NULL;
    case 't':
    case 'f':
        return COX_JSON_BOOL;
    case '"':
        return text.len >= 2 && text.data[text.len - 1] == '"' ? COX_JSON_STRING : COX_JSON_NONE;
    case '[':
        return COX_JSON_ARRAY;
    case '{':
        return COX_JSON_OBJECT;
    default:
        return text.data[0] == '-' || json_is_digit(text.data[0]) ? COX_JSON_NUMBER : COX_JSON_NONE;
    }
}

const char *cox_json_kind_text(enum cox_json_kind kind)
{
    static const char *const texts[] = {
        "null", "a boolean", "a number", "a string", "an array", "an object", "text other than JSON"
    };

    return texts[kind];
}

static const uint8_t *space_end(const uint8_t *p, const uint8_t *end)
{
    while (p < end && json_is_space(*p))
        p++;
    return p;
}

/* Behind the raw string at p; NULL when it has no end. */
static const uint8_t *string_end(const uint8_t *p, const uint8_t *end)
{
    uint8_t bits = 0;

    for (p++;; p++) {
        p = json_plain_end(json_easy_end(p, end, true, &bits), end, &bits);
        if (p < end && *p == '"')
            return p + 1;
        if (p < end && *p == '\\')
            p++;
        if (p >= end)
            return NULL;
    }
}

/* Behind the value at p: at the separator on its own level. NULL when it has no end. */
static const uint8_t *value_end(const uint8_t *p, const uint8_t *end)
{
    size_t depth = 0;

    while (p < end) {
        uint8_t c = *p;

        if (c == '"') {
            p = string_end(p, end);
            if (!p || depth == 0)
                return p;
            continue;
        }
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                return p;
            if (--depth == 0)
                return p + 1;
        } else if (depth == 0 && (c == ',' || c == ':' || json_is_space(c))) {
            return p;
        }
        p++;
    }
    return depth == 0 ? p : NULL;
}

struct cox_json_walk cox_json_walk(struct cox_slice text)
{
    const uint8_t *end = json_end_of(text), *p = space_end(text.data, end);

    if (p == end || (*p != '{' && *p != '['))
        return (struct cox_json_walk){ 0 };
    return (struct cox_json_walk){ .p = p + 1, .end = end, .closer = *p == '{' ? '}' : ']' };
}

/* Takes the key at p and its colon; where the value begins. */
static const uint8_t *take_key(struct cox_json_walk *w, const uint8_t *p)
{
    const uint8_t *after = p < w->end && *p == '"' ? string_end(p, w->end) : NULL;

    if (!after)
        return NULL;
    w->key = cox_slice(p, (size_t)(after - p));
    p = space_end(after, w->end);
    return p < w->end && *p == ':' ? space_end(p + 1, w->end) : NULL;
}

bool cox_json_next(struct cox_json_walk *w)
{
    const uint8_t *p = space_end(w->p, w->end), *value;

    w->p = w->end; /* until all of the next value is seen */
    if (p == w->end || *p == w->closer)
        return false;
    if (w->started) {
        if (*p != ',')
            return false;
        p = space_end(p + 1, w->end);
    }
    w->started = true;
    value = w->closer == '}' ? take_key(w, p) : p;
    p = value ? value_end(value, w->end) : NULL;
    if (!p || p == value)
        return false;
    w->value = cox_slice(value, (size_t)(p - value));
    w->p = p;
    return true;
}

size_t cox_json_count(struct cox_slice container)
{
    struct cox_json_walk w = cox_json_walk(container);
    size_t n = 0;

    while (cox_json_next(&w))
        n++;
    return n;
}

bool cox_json_member(struct cox_slice text, const char *key, struct cox_slice *ret_value)
{
    bool found = false;

    if (cox_json_kind(text) != COX_JSON_OBJECT)
        return false;
    struct cox_json_walk w = cox_json_walk(text);

    while (cox_json_next(&w)) {
        if (cox_json_string_is(w.key, cox_slice_str(key))) {
            *ret_value = w.value;
            found = true;
        }
    }
    return found;
}

/* ---- strings ---------------------------------------------------------------------------------------- */

struct cox_slice cox_json_inner(struct cox_slice raw)
{
    bool whole = raw.len >= 2 && raw.data[0] == '"' && raw.data[raw.len - 1] == '"';

    return whole ? cox_slice(raw.data + 1, raw.len - 2) : cox_slice(NULL, 0);
}

/* Takes the escape at s->p and gives its character in UTF-8. */
static size_t take_escape(struct json_text *s, uint8_t ret[4])
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t c = 0xfffd;

    s->p++;
    if (s->p < s->end) {
        uint8_t letter = *s->p++;
        const char *at = memchr(from, letter, sizeof(from) - 1);

        if (at)
            c = (uint8_t)to[at - from];
        else if (letter == 'u' && json_take_escaped_char(s, &c) != NULL)
            c = 0xfffd;
    }
    return cox_utf8_encode(ret, c);
}

/* Takes what stands before the next escape. */
static struct cox_slice take_plain(struct json_text *s)
{
    const uint8_t *p = s->p, *escape = p < s->end ? memchr(p, '\\', (size_t)(s->end - p)) : NULL;

    s->p = escape ? escape : s->end;
    return cox_slice(p, (size_t)(s->p - p));
}

void cox_json_unescape(struct cox_buf *out, struct cox_slice inner)
{
    struct json_text s = { .p = inner.data, .end = json_end_of(inner) };

    while (s.p < s.end) {
        uint8_t c[4];

        cox_buf_append_slice(out, take_plain(&s));
        if (s.p < s.end)
            cox_buf_append(out, c, take_escape(&s, c));
    }
}

void cox_json_unquote(struct cox_buf *out, struct cox_slice raw)
{
    cox_json_unescape(out, cox_json_inner(raw));
}

static bool drop_prefix(struct cox_slice *s, struct cox_slice prefix)
{
    if (s->len < prefix.len || (prefix.len > 0 && memcmp(s->data, prefix.data, prefix.len) != 0))
        return false;
    *s = cox_slice(s->data + prefix.len, s->len - prefix.len);
    return true;
}

bool cox_json_string_is(struct cox_slice raw, struct cox_slice text)
{
    struct cox_slice inner = cox_json_inner(raw);
    struct json_text s = { .p = inner.data, .end = json_end_of(inner) };

    if (inner.len < text.len)
        return false; /* an escape is never shorter than what it stands for */
    if (text.len > 0 && inner.data[0] != text.data[0] && inner.data[0] != '\\')
        return false; /* most keys of an object */
    while (s.p < s.end) {
        uint8_t c[4];

        if (!drop_prefix(&text, take_plain(&s)))
            return false;
        if (s.p < s.end && !drop_prefix(&text, cox_slice(c, take_escape(&s, c))))
            return false;
    }
    return text.len == 0;
}

static void escape_special(struct cox_buf *out, uint8_t c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = memchr(from, c, sizeof(from) - 1);

    if (at)
        cox_buf_append(out, (const char[]){ '\\', to[at - from] }, 2);
    else
        cox_buf_printf(out, "\\u%04x", c);
}

void cox_json_escape(struct cox_buf *out, struct cox_slice text)
{
    size_t done = 0, n;

    for (size_t i = 0; i < text.len; i += n) {
        uint8_t c = text.data[i];

        n = c < 0x80 ? 1 : cox_utf8_len(cox_slice(text.data + i, text.len - i));
        if (n > 0 && c >= 0x20 && c != '"' && c != '\\')
            continue;
        cox_buf_append(out, text.data + done, i - done);
        if (n > 0)
            escape_special(out, c);
        else
            cox_buf_append_str(out, "\xef\xbf\xbd");
        n = 1;
        done = i + 1;
    }
    if (done < text.len)
        cox_buf_append(out, text.data + done, text.len - done);
}

void cox_json_quote(struct cox_buf *out, struct cox_slice text)
{
    cox_put_u8(out, '"');
    cox_json_escape(out, text);
    cox_put_u8(out, '"');
}

/* ---- numbers ---------------------------------------------------------------------------------------- */

bool cox_json_int(struct cox_slice number, int64_t *ret)
{
    bool negative = number.len > 0 && number.data[0] == '-';
    size_t i = negative;
    int64_t v = 0;

    if (i == number.len)
        return false;
    for (; i < number.len; i++) {
        int digit = number.data[i] - '0';

        if (!json_is_digit(number.data[i]) || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_sub_overflow(v, digit, &v))
            return false;
    }
    /* Counted downwards, because the smallest integer has no positive twin. */
    if (!negative && v == INT64_MIN)
        return false;
    *ret = negative ? v : -v;
    return true;
}

double cox_json_double(struct cox_slice number)
{
    char small[64], *text = small;

    if (number.len == 0)
        return 0;
    if (number.len >= sizeof(small))
        text = cox_alloc(number.len + 1);
    memcpy(text, number.data, number.len);
    text[number.len] = '\0';
    double d = strtod(text, NULL);

    if (text != small)
        cox_free(text);
    return d;
}

void cox_json_put_double(struct cox_buf *out, double d)
{
    char text[40];

    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    cox_buf_append_str(out, text);
    if (!strpbrk(text, ".e"))
        cox_buf_append_str(out, ".0");
}

/* ---- layout ----------------------------------------------------------------------------------------- */

/* Behind the token at p: a raw string, or one character. */
static const uint8_t *token_end(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *after = *p == '"' ? string_end(p, end) : p + 1;

    return after ? after : end;
}

void cox_json_compact(struct cox_buf *out, struct cox_slice text)
{
    const uint8_t *end = json_end_of(text), *from = text.data;

    for (const uint8_t *p = from; p < end;) {
        if (json_is_space(*p)) {
            cox_buf_append(out, from, (size_t)(p - from));
            p = from = space_end(p, end);
        } else {
            p = token_end(p, end);
        }
    }
    cox_buf_append(out, from, (size_t)(end - from));
}

static void new_line(struct cox_buf *out, unsigned depth, unsigned indent)
{
    cox_put_u8(out, '\n');
    memset(cox_buf_extend(out, (size_t)depth * indent), ' ', (size_t)depth * indent);
}

void cox_json_pretty(struct cox_buf *out, struct cox_slice text, unsigned indent)
{
    const uint8_t *end = json_end_of(text);
    unsigned depth = 0;
    bool open = false; /* the bracket just written may yet turn out to be empty */

    for (const uint8_t *p = text.data; p < end;) {
        const uint8_t *after = token_end(p, end);
        bool closes = *p == '}' || *p == ']';
        if (json_is_space(*p)) {
            p++;
            continue;
        }
        if (closes && depth > 0)
            depth--;
        if (open != closes)
            new_line(out, depth, indent);
        open = *p == '{' || *p == '[';
        depth += open && depth < COX_JSON_DEPTH_MAX;
        cox_buf_append(out, p, (size_t)(after - p));
        if (*p == ',')
            new_line(out, depth, indent);
        if (*p == ':')
            cox_put_u8(out, ' ');
        p = after;
    }
}
