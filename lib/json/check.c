#include "text.h"

#include "cox/json.h"

#include "cox/base/units.h"

static uint8_t peek(const struct cox_json_scan *s)
{
    return s->p < s->end ? *s->p : 0;
}

static bool fail(struct cox_json_scan *s, const char *expected)
{
    s->expected = expected;
    return false;
}

static void skip_space(struct cox_json_scan *s)
{
    while (s->p < s->end && json_is_space(*s->p))
        s->p++;
}

/* ---- scalars ---------------------------------------------------------------------------------------- */

static int hex_value(uint8_t c)
{
    if (json_is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads the four digits after "\u". */
static bool take_hex4(struct json_text *t, uint32_t *ret)
{
    *ret = 0;
    for (int i = 0; i < 4; i++, t->p++) {
        int v = t->p < t->end ? hex_value(*t->p) : -1;
        if (v < 0)
            return false;
        *ret = *ret << 4 | (uint32_t)v;
    }
    return true;
}

const char *json_take_escaped_char(struct json_text *t, uint32_t *ret)
{
    static const char digits[] = "four hexadecimal digits";
    uint32_t low;

    if (!take_hex4(t, ret))
        return digits;
    if (*ret < 0xd800 || *ret > 0xdfff)
        return NULL;
    if (*ret > 0xdbff || t->end - t->p < 2 || t->p[0] != '\\' || t->p[1] != 'u')
        return "a whole surrogate pair";
    t->p += 2;
    if (!take_hex4(t, &low))
        return digits;
    if (low < 0xdc00 || low > 0xdfff)
        return "the low half of a surrogate pair";
    *ret = 0x10000 + ((*ret - 0xd800) << 10) + (low - 0xdc00);
    return NULL;
}

/* The backslash at s->p and what belongs to it. */
static bool check_escape(struct cox_json_scan *s)
{
    static const char letters[] = "\"\\/bfnrt";

    if (++s->p == s->end)
        return fail(s, "an escape");
    if (*s->p == 'u') {
        struct json_text t = { s->p + 1, s->end };
        uint32_t c;
        const char *expected = json_take_escaped_char(&t, &c);

        s->p = t.p;
        return !expected || fail(s, expected);
    }
    if (*s->p != 'n' && !memchr(letters, *s->p, sizeof(letters) - 1))
        return fail(s, "one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
    s->p++;
    return true;
}

#define NEAR 32

static bool check_string(struct cox_json_scan *s)
{
    const uint8_t *start = ++s->p, *scarce = start; /* up to there, blocks are not worth their beginning */
    uint8_t bits = 0;

    for (;;) {
        const uint8_t *from = s->p < scarce ? s->p : json_easy_end(s->p, s->end, false, &bits);

        s->p = json_plain_end(from, s->end, &bits);
        if (s->p == s->end)
            return fail(s, "'\"' at the end of the string");
        if (*s->p == '"')
            break;
        if (*s->p != '\\')
            return fail(s, "an escape such as \\n instead of a control character");
        scarce = s->p + NEAR; /* where one is, there are more: \u of other scripts */
        if (!check_escape(s))
            return false;
    }
    if (bits >= 0x80 && !cox_utf8_ok(cox_slice(start, (size_t)(s->p - start))))
        return fail(s, "UTF-8 in the string that ends here");
    s->p++;
    return true;
}

static bool check_digits(struct cox_json_scan *s)
{
    if (!json_is_digit(peek(s)))
        return fail(s, "a digit");
    while (json_is_digit(peek(s)))
        s->p++;
    return true;
}

static bool check_number(struct cox_json_scan *s)
{
    if (peek(s) == '-')
        s->p++;
    if (peek(s) == '0')
        s->p++;
    else if (!check_digits(s))
        return false;
    if (peek(s) == '.') {
        s->p++;
        if (!check_digits(s))
            return false;
    }
    if ((peek(s) | 0x20) == 'e') {
        s->p++;
        if (peek(s) == '+' || peek(s) == '-')
            s->p++;
        return check_digits(s);
    }
    return true;
}

static bool check_word(struct cox_json_scan *s, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(s->end - s->p) < len || memcmp(s->p, word, len) != 0)
        return fail(s, "a JSON value");
    s->p += len;
    return true;
}

static bool check_scalar(struct cox_json_scan *s)
{
    switch (peek(s)) {
    case '"':
        return check_string(s);
    case 't':
        return check_word(s, "true");
    case 'f':
        return check_word(s, "false");
    case 'n':
        return check_word(s, "null");
    default:
        if (peek(s) == '-' || json_is_digit(peek(s)))
            return check_number(s);
        return fail(s, "a JSON value");
    }
}

/* ---- structure -------------------------------------------------------------------------------------- */

struct cox_json_scan cox_json_scan(struct cox_slice text)
{
    struct cox_json_scan s;

    /* Not the closers: what is not open is not looked at. */
    s.expected = NULL;
    s.too_deep = s.just_opened = false;
    s.depth = 0;
    s.start = s.p = text.data;
    s.end = json_end_of(text);
    skip_space(&s);
    return s;
}

enum cox_json_kind cox_json_scan_kind(const struct cox_json_scan *s)
{
    if (s->expected || s->p == s->end)
        return COX_JSON_NONE;
    switch (*s->p) {
    case 'n':
        return COX_JSON_NULL;
    case 't':
    case 'f':
        return COX_JSON_BOOL;
    case '"':
        return COX_JSON_STRING;
    case '[':
        return COX_JSON_ARRAY;
    case '{':
        return COX_JSON_OBJECT;
    default:
        return *s->p == '-' || json_is_digit(*s->p) ? COX_JSON_NUMBER : COX_JSON_NONE;
    }
}

static bool open_container(struct cox_json_scan *s)
{
    if (s->depth == COX_JSON_DEPTH_MAX) {
        s->too_deep = true;
        return fail(s, "less nesting");
    }
    s->closers[s->depth++] = *s->p == '{' ? '}' : ']';
    s->p++;
    s->just_opened = true;
    return true;
}

bool cox_json_scan_open(struct cox_json_scan *s)
{
    return !s->expected && (peek(s) == '{' || peek(s) == '[') && open_container(s);
}

static bool take_key(struct cox_json_scan *s, struct cox_slice *ret)
{
    const uint8_t *start = s->p;

    if (peek(s) != '"')
        return fail(s, "a name in double quotes");
    if (!check_string(s))
        return false;
    *ret = cox_slice(start, (size_t)(s->p - start));
    skip_space(s);
    if (peek(s) != ':')
        return fail(s, "':' after the name");
    s->p++;
    skip_space(s);
    return true;
}

bool cox_json_scan_next(struct cox_json_scan *s, struct cox_slice *ret_key)
{
    bool first = s->just_opened;
    uint8_t closer;

    if (s->expected || s->depth == 0)
        return false;
    closer = s->closers[s->depth - 1];
    s->just_opened = false;
    *ret_key = cox_slice(NULL, 0);
    skip_space(s);
    if (peek(s) == closer) {
        s->p++;
        s->depth--;
        return false;
    }
    if (!first) {
        if (peek(s) != ',')
            return fail(s, closer == '}' ? "',' or '}'" : "',' or ']'");
        s->p++;
        skip_space(s);
    }
    return closer == ']' || take_key(s, ret_key);
}

bool cox_json_scan_value(struct cox_json_scan *s, struct cox_slice *ret)
{
    const uint8_t *start = s->p;
    unsigned base = s->depth;
    struct cox_slice key;

    if (s->expected)
        return false;
    for (;;) {
        if (peek(s) == '{' || peek(s) == '[') {
            if (!open_container(s))
                return false;
        } else if (!check_scalar(s)) {
            return false;
        }
        while (s->depth > base && !cox_json_scan_next(s, &key)) {
            if (s->expected)
                return false;
        }
        if (s->depth == base)
            break;
    }
    if (ret)
        *ret = cox_slice(start, (size_t)(s->p - start));
    return true;
}

bool cox_json_scan_end(struct cox_json_scan *s)
{
    if (s->expected)
        return false;
    skip_space(s);
    return (s->depth == 0 && s->p == s->end) || fail(s, "the end of the text");
}

void cox_json_scan_place(const struct cox_json_scan *s, struct cox_json_place *ret)
{
    *ret = (struct cox_json_place){ .line = 1,
                                    .column = 1,
                                    .offset = (size_t)(s->p - s->start),
                                    .expected = s->expected,
                                    .too_deep = s->too_deep };
    for (const uint8_t *p = s->start; p < s->p; p++) {
        ret->line += *p == '\n';
        ret->column = *p == '\n' ? 1 : ret->column + 1;
    }
}

enum cox_err cox_json_check(struct cox_slice text, struct cox_json_place *ret_place)
{
    struct cox_json_scan s = cox_json_scan(text);

    if (cox_json_scan_value(&s, NULL) && cox_json_scan_end(&s))
        return COX_OK;
    if (ret_place)
        cox_json_scan_place(&s, ret_place);
    return COX_ERR_INVALID;
}
