#include "json_check.h"

#include "cox/base/units.h"
#include "cox/limits.h"

#include <string.h>

_Static_assert(COX_JSON_DEPTH_MAX <= 64, "one bit a level");

struct scan {
    const uint8_t *p;
    const uint8_t *end;
    uint64_t objects; /* one bit a level: it is an object */
    unsigned depth;
};

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static int hex4(struct scan *s)
{
    int v = 0;

    if (s->end - s->p < 4)
        return -1;
    for (int i = 0; i < 4; i++, s->p++) {
        int c = *s->p;
        if (c >= '0' && c <= '9')
            v = v * 16 + c - '0';
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            v = v * 16 + (c | 32) - 'a' + 10;
        else
            return -1;
    }
    return v;
}

/* After the backslash. */
static const char *escape(struct scan *s)
{
    if (s->p == s->end)
        return "a string without an end";
    uint8_t c = *s->p++;

    if (c != 'u')
        return c && strchr("\"\\/bfnrt", c) ? NULL : "an unknown escape in a string";
    int unit = hex4(s);

    if (unit < 0)
        return "\\u without four hex digits";
    if (unit < 0xd800 || unit > 0xdfff)
        return NULL;
    if (unit > 0xdbff || s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
        return "a lone surrogate in a string";
    s->p += 2;
    unit = hex4(s);
    return unit >= 0xdc00 && unit <= 0xdfff ? NULL : "a lone surrogate in a string";
}

/* After the opening quote. */
static const char *string(struct scan *s)
{
    const char *wrong;

    while (s->p < s->end) {
        uint8_t c = *s->p++;
        if (c == '"')
            return NULL;
        if (c < 0x20)
            return "a control character in a string";
        if (c == '\\' && (wrong = escape(s)))
            return wrong;
    }
    return "a string without an end";
}

static bool digits(struct scan *s)
{
    const uint8_t *from = s->p;

    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return s->p > from;
}

static const char *number(struct scan *s)
{
    if (*s->p == '-')
        s->p++;
    if (s->p < s->end && *s->p == '0')
        s->p++;
    else if (!digits(s))
        return "a minus sign without a number";
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        if (!digits(s))
            return "a number that ends with its point";
    }
    if (s->p < s->end && (*s->p | 32) == 'e') {
        s->p++;
        if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
            s->p++;
        if (!digits(s))
            return "a number without digits in its exponent";
    }
    return NULL;
}

static const char *word(struct scan *s, const char *text)
{
    size_t len = strlen(text);

    if ((size_t)(s->end - s->p) < len || memcmp(s->p, text, len) != 0)
        return "a word that is not true, false or null";
    s->p += len;
    return NULL;
}

/* The name and colon before an object's value. */
static const char *member(struct scan *s)
{
    const char *wrong;

    skip_space(s);
    if (s->p == s->end || *s->p != '"')
        return "an object member without a name in quotes";
    s->p++;
    if ((wrong = string(s)))
        return wrong;
    skip_space(s);
    if (s->p == s->end || *s->p != ':')
        return "an object member without a colon";
    s->p++;
    return NULL;
}

/* A scalar, or the opening of a container, which then becomes the innermost level. */
static const char *value(struct scan *s, bool *ret_opened)
{
    *ret_opened = false;
    skip_space(s);
    if (s->p == s->end)
        return "the text ends where a value should be";
    switch (*s->p) {
    case '{':
    case '[':
        if (s->depth == COX_JSON_DEPTH_MAX)
            return "nested too deep";
        s->objects = s->objects << 1 | (*s->p == '{');
        s->depth++;
        s->p++;
        *ret_opened = true;
        return NULL;
    case '"':
        s->p++;
        return string(s);
    case 't':
        return word(s, "true");
    case 'f':
        return word(s, "false");
    case 'n':
        return word(s, "null");
    default:
        if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9'))
            return number(s);
        return "no JSON value starts so";
    }
}

/* Closes the levels that end here. *ret_more: a comma came, another element follows. */
static const char *close_levels(struct scan *s, bool *ret_more)
{
    *ret_more = false;
    while (s->depth > 0) {
        bool object = s->objects & 1;
        skip_space(s);
        if (s->p == s->end)
            return object ? "an object without an end" : "an array without an end";
        if (*s->p == ',') {
            s->p++;
            *ret_more = true;
            return NULL;
        }
        if (*s->p != (object ? '}' : ']'))
            return object ? "neither comma nor } in an object" : "neither comma nor ] in an array";
        s->p++;
        s->objects >>= 1;
        s->depth--;
    }
    return NULL;
}

static const char *text_value(struct scan *s)
{
    const char *wrong;
    bool opened, more = true;

    if ((wrong = value(s, &opened)))
        return wrong;
    for (;;) {
        skip_space(s);
        bool empty = opened && s->p < s->end && *s->p == (s->objects & 1 ? '}' : ']');

        if (!opened || empty) {
            if ((wrong = close_levels(s, &more)) || !more)
                return wrong;
        }
        if ((s->objects & 1) && (wrong = member(s)))
            return wrong;
        if ((wrong = value(s, &opened)))
            return wrong;
    }
}

const char *cox_json_check(struct cox_slice text, size_t *ret_at)
{
    struct scan s = { text.data, text.data + text.len, 0, 0 };

    if (!cox_utf8_ok(text)) {
        *ret_at = 0;
        return "not UTF-8";
    }
    const char *wrong = text_value(&s);

    if (!wrong) {
        skip_space(&s);
        if (s.p < s.end)
            wrong = "more text after the value";
    }
    *ret_at = (size_t)(s.p - text.data);
    return wrong;
}
