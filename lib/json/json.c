#include "cox/json.h"

#include "cox/base/units.h"
#include "cox/limits.h"

#include <string.h>

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* ---- checking --------------------------------------------------------------------------------------- */

struct scan {
    const uint8_t *p;
    const uint8_t *end;
    const char *expected; /* of the first error */
};

static uint8_t peek(const struct scan *s)
{
    return s->p < s->end ? *s->p : 0;
}

static bool fail(struct scan *s, const char *expected)
{
    s->expected = expected;
    return false;
}

static void skip_space(struct scan *s)
{
    while (s->p < s->end && is_space(*s->p))
        s->p++;
}

static int hex_value(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads the four digits after "\u". */
static bool take_hex4(struct scan *s, uint32_t *ret)
{
    *ret = 0;
    for (int i = 0; i < 4; i++, s->p++) {
        int v = s->p < s->end ? hex_value(*s->p) : -1;
        if (v < 0)
            return fail(s, "four hexadecimal digits");
        *ret = *ret << 4 | (uint32_t)v;
    }
    return true;
}

/* Reads what follows "\u", with the second half of a surrogate pair. */
static bool take_escaped_char(struct scan *s, uint32_t *ret)
{
    uint32_t low;

    if (!take_hex4(s, ret))
        return false;
    if (*ret < 0xd800 || *ret > 0xdfff)
        return true;
    if (*ret > 0xdbff || s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
        return fail(s, "a whole surrogate pair");
    s->p += 2;
    if (!take_hex4(s, &low))
        return false;
    if (low < 0xdc00 || low > 0xdfff)
        return fail(s, "the low half of a surrogate pair");
    *ret = 0x10000 + ((*ret - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

static bool check_string(struct scan *s)
{
    const uint8_t *start = ++s->p;
    uint32_t c;

    for (; peek(s) != '"'; s->p++) {
        if (s->p == s->end)
            return fail(s, "'\"' at the end of the string");
        if (*s->p < 0x20)
            return fail(s, "an escape such as \\n instead of a control character");
        if (*s->p != '\\')
            continue;
        if (++s->p == s->end)
            return fail(s, "an escape");
        if (*s->p == 'u') {
            s->p++;
            if (!take_escaped_char(s, &c))
                return false;
            s->p--;
        } else if (!strchr("\"\\/bfnrt", *s->p) || *s->p == 0) {
            return fail(s, "one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
        }
    }
    if (!cox_utf8_ok(cox_slice(start, (size_t)(s->p - start))))
        return fail(s, "UTF-8 in the string that ends here");
    s->p++;
    return true;
}

static bool check_digits(struct scan *s)
{
    if (!is_digit(peek(s)))
        return fail(s, "a digit");
    while (is_digit(peek(s)))
        s->p++;
    return true;
}

static bool check_number(struct scan *s)
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

static bool check_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(s->end - s->p) < len || memcmp(s->p, word, len) != 0)
        return fail(s, "a JSON value");
    s->p += len;
    return true;
}

static bool check_scalar(struct scan *s)
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
        if (peek(s) == '-' || is_digit(peek(s)))
            return check_number(s);
        return fail(s, "a JSON value");
    }
}

static bool check_key(struct scan *s)
{
    if (peek(s) != '"')
        return fail(s, "a name in double quotes");
    if (!check_string(s))
        return false;
    skip_space(s);
    if (peek(s) != ':')
        return fail(s, "':' after the name");
    s->p++;
    skip_space(s);
    return true;
}

/* Reads an opening bracket and, unless it closes at once, up to the first value. */
static bool check_open(struct scan *s, char *closers, unsigned *depth, bool *ret_empty)
{
    char closer = *s->p == '{' ? '}' : ']';

    if (*depth == COX_JSON_DEPTH_MAX)
        return fail(s, "less nesting");
    s->p++;
    skip_space(s);
    *ret_empty = peek(s) == (uint8_t)closer;
    if (*ret_empty) {
        s->p++;
        return true;
    }
    closers[(*depth)++] = closer;
    return closer == ']' || check_key(s);
}

/* After a value: closes what ends here; *ret_more says that a value follows. */
static bool check_after(struct scan *s, const char *closers, unsigned *depth, bool *ret_more)
{
    *ret_more = false;
    while (*depth > 0) {
        char closer = closers[*depth - 1];
        skip_space(s);
        if (peek(s) == ',') {
            s->p++;
            skip_space(s);
            *ret_more = true;
            return closer == ']' || check_key(s);
        }
        if (peek(s) != (uint8_t)closer)
            return fail(s, closer == '}' ? "',' or '}'" : "',' or ']'");
        s->p++;
        (*depth)--;
    }
    return true;
}

static bool check_text(struct scan *s)
{
    char closers[COX_JSON_DEPTH_MAX];
    unsigned depth = 0;
    bool more = true;

    skip_space(s);
    while (more) {
        bool whole = true;
        if (peek(s) == '{' || peek(s) == '[') {
            if (!check_open(s, closers, &depth, &whole))
                return false;
        } else if (!check_scalar(s)) {
            return false;
        }
        if (whole && !check_after(s, closers, &depth, &more))
            return false;
    }
    skip_space(s);
    return s->p == s->end || fail(s, "the end of the text");
}

enum cox_err cox_json_check(struct cox_slice text, struct cox_json_place *ret_place)
{
    struct scan s = { text.data, text.data ? text.data + text.len : NULL, NULL };

    if (check_text(&s))
        return COX_OK;
    if (ret_place) {
        *ret_place = (struct cox_json_place){ 1, 1, s.expected };
        for (const uint8_t *p = text.data; p < s.p; p++) {
            ret_place->line += *p == '\n';
            ret_place->column = *p == '\n' ? 1 : ret_place->column + 1;
        }
    }
    return COX_ERR_INVALID;
}

/* ---- walking over checked text ---------------------------------------------------------------------- */

struct cox_slice cox_json_trim(struct cox_slice text)
{
    while (text.len > 0 && is_space(text.data[0]))
        text = cox_slice(text.data + 1, text.len - 1);
    while (text.len > 0 && is_space(text.data[text.len - 1]))
        text.len--;
    return text;
}

enum cox_json_kind cox_json_kind(struct cox_slice text)
{
    text = cox_json_trim(text);
    COX_ASSERT(text.len > 0);
    switch (text.data[0]) {
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
        return COX_JSON_NUMBER;
    }
}

const char *cox_json_kind_text(enum cox_json_kind kind)
{
    static const char *const texts[] = {
        "null", "a boolean", "a number", "a string", "an array", "an object"
    };

    return texts[kind];
}

/* Length of the raw string at p, quotes included. */
static size_t string_len(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *start = p++;

    for (; p < end && *p != '"'; p++)
        p += *p == '\\';
    COX_ASSERT(p < end);
    return (size_t)(p + 1 - start);
}

/* Length of the value at p: up to the separator on its own level. */
static size_t value_len(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *start = p;
    unsigned depth = 0;

    for (; p < end; p++) {
        if (*p == '"') {
            p += string_len(p, end) - 1;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0)
                break;
            depth--;
        } else if (depth == 0 && (*p == ',' || is_space(*p))) {
            break;
        }
    }
    return (size_t)(p - start);
}

static void drop(struct cox_slice *s, size_t n)
{
    COX_ASSERT(n <= s->len);
    *s = cox_slice(s->data + n, s->len - n);
    while (s->len > 0 && is_space(s->data[0]))
        *s = cox_slice(s->data + 1, s->len - 1);
}

struct cox_json_walk cox_json_walk(struct cox_slice text)
{
    enum cox_json_kind kind = cox_json_kind(text);
    struct cox_json_walk w = { .rest = cox_json_trim(text) };

    COX_ASSERT(kind == COX_JSON_OBJECT || kind == COX_JSON_ARRAY);
    drop(&w.rest, 1);
    return w;
}

bool cox_json_next(struct cox_json_walk *w)
{
    COX_ASSERT(w->rest.len > 0);
    if (w->rest.data[0] == '}' || w->rest.data[0] == ']')
        return false;
    size_t len = value_len(w->rest.data, w->rest.data + w->rest.len);

    w->key = cox_slice(NULL, 0);
    if (w->rest.data[0] == '"') {
        len = string_len(w->rest.data, w->rest.data + w->rest.len);
        struct cox_slice string = cox_slice(w->rest.data, len);
        struct cox_slice after = w->rest;
        drop(&after, len);
        if (after.data[0] == ':') {
            w->key = string;
            drop(&after, 1);
            w->rest = after;
            len = value_len(w->rest.data, w->rest.data + w->rest.len);
        }
    }
    w->value = cox_slice(w->rest.data, len);
    drop(&w->rest, len);
    if (w->rest.data[0] == ',')
        drop(&w->rest, 1);
    return true;
}

bool cox_json_member(struct cox_slice text, const char *key, struct cox_slice *ret_value)
{
    struct cox_buf name = { 0 };
    bool found = false;

    if (cox_json_kind(text) != COX_JSON_OBJECT)
        return false;
    struct cox_json_walk w = cox_json_walk(text);

    while (cox_json_next(&w)) {
        cox_buf_clear(&name);
        cox_json_unquote(&name, w.key);
        if (cox_slice_is(cox_buf_slice(&name), key)) {
            *ret_value = w.value;
            found = true;
        }
    }
    cox_buf_fini(&name);
    return found;
}

/* ---- strings ---------------------------------------------------------------------------------------- */

static void put_utf8(struct cox_buf *out, uint32_t c)
{
    if (c < 0x80) {
        cox_put_u8(out, (uint8_t)c);
        return;
    }
    int tail = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = { 0, 0xc0, 0xe0, 0xf0 };

    cox_put_u8(out, (uint8_t)(lead[tail] | c >> (6 * tail)));
    while (tail-- > 0)
        cox_put_u8(out, (uint8_t)(0x80 | (c >> (6 * tail) & 0x3f)));
}

void cox_json_unquote(struct cox_buf *out, struct cox_slice raw)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";

    COX_ASSERT(raw.len >= 2 && raw.data[0] == '"');
    struct scan s = { raw.data + 1, raw.data + raw.len - 1, NULL };

    while (s.p < s.end) {
        const uint8_t *plain = s.p;
        while (s.p < s.end && *s.p != '\\')
            s.p++;
        cox_buf_append(out, plain, (size_t)(s.p - plain));
        if (s.p == s.end)
            break;
        uint8_t escape = s.p[1];
        s.p += 2;
        if (escape == 'u') {
            uint32_t c;
            COX_ASSERT(take_escaped_char(&s, &c));
            put_utf8(out, c);
        } else {
            const char *at = strchr(from, escape);
            COX_ASSERT(at && *at);
            cox_put_u8(out, (uint8_t)to[at - from]);
        }
    }
}

/* Length of the well-formed UTF-8 character at the front of s; 0 when there is none. */
static size_t char_len(struct cox_slice s)
{
    for (size_t n = 1; n <= 4 && n <= s.len; n++) {
        if (cox_utf8_ok(cox_slice(s.data, n)))
            return n;
    }
    return 0;
}

static void quote_special(struct cox_buf *out, uint8_t c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = strchr(from, c);

    if (c != 0 && at)
        cox_buf_printf(out, "\\%c", to[at - from]);
    else
        cox_buf_printf(out, "\\u%04x", c);
}

void cox_json_quote(struct cox_buf *out, struct cox_slice text)
{
    cox_buf_reserve(out, text.len + 2);
    cox_put_u8(out, '"');
    for (size_t i = 0; i < text.len;) {
        uint8_t c = text.data[i];
        if (c >= 0x80) {
            size_t n = char_len(cox_slice(text.data + i, text.len - i));
            if (n > 0)
                cox_buf_append(out, text.data + i, n);
            else
                cox_buf_append_str(out, "\xef\xbf\xbd");
            i += n > 0 ? n : 1;
            continue;
        }
        if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
            quote_special(out, c);
        else
            cox_put_u8(out, c);
        i++;
    }
    cox_put_u8(out, '"');
}

/* ---- layout ----------------------------------------------------------------------------------------- */

void cox_json_compact(struct cox_buf *out, struct cox_slice text)
{
    const uint8_t *end = text.data + text.len;

    for (const uint8_t *p = text.data; p < end;) {
        size_t len = *p == '"' ? string_len(p, end) : 1;
        if (!is_space(*p))
            cox_buf_append(out, p, len);
        p += len;
    }
}

static void new_line(struct cox_buf *out, unsigned depth, unsigned indent)
{
    cox_put_u8(out, '\n');
    memset(cox_buf_extend(out, (size_t)depth * indent), ' ', (size_t)depth * indent);
}

void cox_json_pretty(struct cox_buf *out, struct cox_slice text, unsigned indent)
{
    const uint8_t *end = text.data + text.len;
    unsigned depth = 0;
    bool open = false; /* the bracket just written may yet turn out to be empty */

    for (const uint8_t *p = text.data; p < end;) {
        size_t len = *p == '"' ? string_len(p, end) : 1;
        bool closes = *p == '}' || *p == ']';
        if (is_space(*p)) {
            p++;
            continue;
        }
        if (closes)
            depth--;
        if (open != closes)
            new_line(out, depth, indent);
        open = *p == '{' || *p == '[';
        depth += open;
        cox_buf_append(out, p, len);
        if (*p == ',')
            new_line(out, depth, indent);
        if (*p == ':')
            cox_put_u8(out, ' ');
        p += len;
    }
}
