#include "jtext.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/units.h"
#include "cox/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(COX_JSON_DEPTH_MAX <= 64, "a container's kind is a bit of a u64");

static const uint8_t *skip_space(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hex digits, or -1. */
static int32_t hex4(const uint8_t *p, const uint8_t *end)
{
    int32_t v = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(p[i]);

        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* ---- the strict check ---- */

/* After the "\u" at p: the end of the escape, which is a surrogate pair or no surrogate. */
static const uint8_t *check_unicode(const uint8_t *p, const uint8_t *end)
{
    int32_t high = hex4(p, end);

    if (high < 0 || (high >= 0xdc00 && high <= 0xdfff))
        return NULL;
    p += 4;
    if (high < 0xd800 || high > 0xdbff)
        return p;
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return NULL;
    int32_t low = hex4(p + 2, end);

    return low >= 0xdc00 && low <= 0xdfff ? p + 6 : NULL;
}

static const uint8_t *check_string(const uint8_t *p, const uint8_t *end)
{
    if (p == end || *p++ != '"')
        return NULL;
    while (p < end) {
        uint8_t c = *p++;

        if (c == '"')
            return p;
        if (c < 0x20)
            return NULL;
        if (c != '\\')
            continue;
        if (p == end)
            return NULL;
        c = *p++;
        if (c == 'u')
            p = check_unicode(p, end);
        else if (!strchr("\"\\/bfnrt", c) || c == '\0')
            return NULL;
        if (!p)
            return NULL;
    }
    return NULL;
}

static const uint8_t *check_digits(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *first = p;

    while (p < end && is_digit(*p))
        p++;
    return p > first ? p : NULL;
}

static const uint8_t *check_number(const uint8_t *p, const uint8_t *end)
{
    if (p < end && *p == '-')
        p++;
    if (p < end && *p == '0')
        p++;
    else if (!(p = check_digits(p, end)))
        return NULL;
    if (p < end && *p == '.' && !(p = check_digits(p + 1, end)))
        return NULL;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        p = check_digits(p, end);
    }
    return p;
}

static const uint8_t *check_word(const uint8_t *p, const uint8_t *end, const char *word)
{
    size_t len = strlen(word);

    return (size_t)(end - p) >= len && memcmp(p, word, len) == 0 ? p + len : NULL;
}

static const uint8_t *check_scalar(const uint8_t *p, const uint8_t *end)
{
    switch (*p) {
    case '"':
        return check_string(p, end);
    case 't':
        return check_word(p, end, "true");
    case 'f':
        return check_word(p, end, "false");
    case 'n':
        return check_word(p, end, "null");
    default:
        return check_number(p, end);
    }
}

/* A key and its colon. */
static const uint8_t *check_key(const uint8_t *p, const uint8_t *end)
{
    p = check_string(skip_space(p, end), end);
    if (!p)
        return NULL;
    p = skip_space(p, end);
    return p < end && *p == ':' ? p + 1 : NULL;
}

/* The containers around the place being read: bit 0 of `objects` is the innermost, set for an object. */
struct nesting {
    uint64_t objects;
    unsigned depth;
};

/* Closes finished containers after a value and passes the comma (and key) before the next value.
 * NULL: broken, at *bad. Depth 0: the text's value has ended. */
static const uint8_t *check_after_value(struct nesting *in, const uint8_t *p, const uint8_t *end,
                                        const uint8_t **bad)
{
    for (;;) {
        p = skip_space(p, end);
        *bad = p;
        if (in->depth == 0)
            return p;
        if (p == end)
            return NULL;
        if (*p == ',') {
            p++;
            return in->objects & 1 ? check_key(p, end) : p;
        }
        if (*p != (in->objects & 1 ? '}' : ']'))
            return NULL;
        p++;
        in->objects >>= 1;
        in->depth--;
    }
}

static enum jtext_fault check_syntax(const uint8_t *p, const uint8_t *end, const uint8_t **bad)
{
    struct nesting in = { 0 };

    for (;;) {
        p = skip_space(p, end);
        *bad = p;
        if (p == end)
            return JTEXT_SYNTAX;
        if (*p == '{' || *p == '[') {
            bool object = *p == '{';

            if (in.depth == COX_JSON_DEPTH_MAX)
                return JTEXT_DEPTH;
            in.objects = in.objects << 1 | object;
            in.depth++;
            p = skip_space(p + 1, end);
            *bad = p;
            if (p == end)
                return JTEXT_SYNTAX;
            if (*p != (object ? '}' : ']')) {
                if (object && !(p = check_key(p, end)))
                    return JTEXT_SYNTAX;
                continue;
            }
        } else if (!(p = check_scalar(p, end))) {
            return JTEXT_SYNTAX;
        }
        p = check_after_value(&in, p, end, bad);
        if (!p)
            return JTEXT_SYNTAX;
        if (in.depth == 0)
            return p == end ? JTEXT_FINE : JTEXT_SYNTAX;
    }
}

enum jtext_fault jtext_check_syntax(struct cox_slice text, size_t *ret_at)
{
    const uint8_t *bad = text.data;
    enum jtext_fault fault = JTEXT_SYNTAX;

    if (text.len > 0)
        fault = check_syntax(text.data, text.data + text.len, &bad);
    if (ret_at)
        *ret_at = (size_t)(bad - text.data);
    return fault;
}

enum jtext_fault jtext_check(struct cox_slice text, size_t *ret_at)
{
    enum jtext_fault fault = jtext_check_syntax(text, ret_at);

    return fault == JTEXT_FINE && !cox_utf8_ok(text) ? JTEXT_UTF8 : fault;
}

/* ---- walking ---- */

int jtext_shown(struct cox_slice s, size_t max)
{
    size_t len = s.len < max ? s.len : max;

    while (len < s.len && len > 0 && (s.data[len] & 0xc0) == 0x80)
        len--;
    return (int)len;
}

struct cox_slice jtext_trim(struct cox_slice text)
{
    if (text.len == 0)
        return text;
    const uint8_t *end = text.data + text.len, *p = skip_space(text.data, end);

    while (end > p && (end[-1] == ' ' || end[-1] == '\n' || end[-1] == '\t' || end[-1] == '\r'))
        end--;
    return cox_slice(p, (size_t)(end - p));
}

enum jtext_type jtext_type(struct cox_slice value)
{
    if (value.len == 0)
        return JTEXT_BAD;
    switch (value.data[0]) {
    case 'n':
        return JTEXT_NULL;
    case 't':
    case 'f':
        return JTEXT_BOOL;
    case '"':
        return value.len >= 2 && value.data[value.len - 1] == '"' ? JTEXT_STRING : JTEXT_BAD;
    case '[':
        return JTEXT_LIST;
    case '{':
        return JTEXT_OBJECT;
    default:
        return value.data[0] == '-' || is_digit(value.data[0]) ? JTEXT_NUMBER : JTEXT_BAD;
    }
}

static const uint8_t *skip_string(const uint8_t *p, const uint8_t *end)
{
    for (p++; p < end; p++) {
        if (*p == '"')
            return p + 1;
        if (*p == '\\' && ++p == end)
            return NULL;
    }
    return NULL;
}

/* The end of the value at p, or NULL. Trusts the inside of containers: they were checked, or are garbage
 * from which only another error can come. */
static const uint8_t *skip_value(const uint8_t *p, const uint8_t *end)
{
    size_t depth = 0;

    while (p < end) {
        uint8_t c = *p;

        if (c == '"') {
            p = skip_string(p, end);
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
        } else if (depth == 0 && (c == ',' || c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == ':')) {
            return p;
        }
        p++;
    }
    return depth == 0 ? p : NULL;
}

struct jtext_iter jtext_iter(struct cox_slice container)
{
    struct jtext_iter it = { 0 };

    if (container.len == 0 || (container.data[0] != '{' && container.data[0] != '[')) {
        it.bad = true;
        return it;
    }
    it.p = container.data + 1;
    it.end = container.data + container.len;
    it.object = container.data[0] == '{';
    return it;
}

static const uint8_t *next_key(struct jtext_iter *it, const uint8_t *p)
{
    const uint8_t *end = it->end, *key = p;

    if (p == end || *p != '"')
        return NULL;
    p = skip_string(p, end);
    if (!p)
        return NULL;
    it->key = cox_slice(key + 1, (size_t)(p - key) - 2);
    p = skip_space(p, end);
    return p < end && *p == ':' ? skip_space(p + 1, end) : NULL;
}

bool jtext_next(struct jtext_iter *it)
{
    if (it->bad)
        return false;
    const uint8_t *p = skip_space(it->p, it->end);

    it->bad = true; /* until all of the next item is seen */
    if (p == it->end)
        return false;
    if (*p == (it->object ? '}' : ']')) {
        it->bad = false;
        it->p = p;
        return false;
    }
    if (it->started) {
        if (*p != ',')
            return false;
        p = skip_space(p + 1, it->end);
    }
    it->started = true;
    if (it->object && !(p = next_key(it, p)))
        return false;
    const uint8_t *value = p;

    p = skip_value(p, it->end);
    if (!p || p == value)
        return false;
    it->value = cox_slice(value, (size_t)(p - value));
    it->p = p;
    it->bad = false;
    return true;
}

bool jtext_member(struct cox_slice object, struct cox_slice key, struct cox_slice *ret_value)
{
    struct jtext_iter it = jtext_iter(object);

    while (jtext_next(&it)) {
        if (jtext_key_is(it.key, key)) {
            *ret_value = it.value;
            return true;
        }
    }
    return false;
}

bool jtext_key_is(struct cox_slice raw, struct cox_slice plain)
{
    if (raw.len < plain.len)
        return false; /* an escape is never shorter than what it stands for */
    if (raw.len == plain.len && !memchr(raw.data, '\\', raw.len))
        return cox_slice_eq(raw, plain);
    if (raw.len == 0 || !memchr(raw.data, '\\', raw.len))
        return false;
    struct cox_buf text = { 0 };

    jtext_unescape(raw, &text);
    bool same = cox_slice_eq(cox_buf_slice(&text), plain);

    cox_buf_fini(&text);
    return same;
}

/* ---- strings ---- */

struct cox_slice jtext_raw(struct cox_slice string)
{
    return string.len >= 2 ? cox_slice(string.data + 1, string.len - 2) : cox_slice(NULL, 0);
}

void jtext_put_utf8(struct cox_buf *out, uint32_t c)
{
    if (c < 0x80) {
        cox_put_u8(out, (uint8_t)c);
    } else if (c < 0x800) {
        cox_put_u8(out, (uint8_t)(0xc0 | c >> 6));
        cox_put_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        cox_put_u8(out, (uint8_t)(0xe0 | c >> 12));
        cox_put_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        cox_put_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    } else {
        cox_put_u8(out, (uint8_t)(0xf0 | c >> 18));
        cox_put_u8(out, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
        cox_put_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        cox_put_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    }
}

/* After the "\u" at p; what is no character (garbage, a lone surrogate) becomes U+FFFD. */
static const uint8_t *unescape_unicode(const uint8_t *p, const uint8_t *end, struct cox_buf *out)
{
    int32_t c = hex4(p, end);

    if (c < 0) {
        jtext_put_utf8(out, 0xfffd);
        return p;
    }
    p += 4;
    if (c >= 0xd800 && c <= 0xdbff && end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
        int32_t low = hex4(p + 2, end);

        if (low >= 0xdc00 && low <= 0xdfff) {
            jtext_put_utf8(out, 0x10000u + (uint32_t)(c - 0xd800) * 0x400u + (uint32_t)(low - 0xdc00));
            return p + 6;
        }
    }
    jtext_put_utf8(out, c >= 0xd800 && c <= 0xdfff ? 0xfffd : (uint32_t)c);
    return p;
}

void jtext_unescape(struct cox_slice raw, struct cox_buf *out)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const uint8_t *p = raw.data, *end = raw.len > 0 ? raw.data + raw.len : raw.data;

    while (p < end) {
        const uint8_t *escape = memchr(p, '\\', (size_t)(end - p));

        if (!escape || escape + 1 == end) {
            cox_buf_append(out, p, (size_t)(end - p));
            return;
        }
        cox_buf_append(out, p, (size_t)(escape - p));
        uint8_t c = escape[1];

        p = escape + 2;
        if (c == 'u') {
            p = unescape_unicode(p, end, out);
            continue;
        }
        const char *known = memchr(from, c, sizeof(from) - 1);

        cox_put_u8(out, known ? (uint8_t)to[known - from] : c);
    }
}

void jtext_put_escaped(struct cox_buf *out, struct cox_slice plain)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    size_t done = 0;

    for (size_t i = 0; i < plain.len; i++) {
        uint8_t c = plain.data[i];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        cox_buf_append(out, plain.data + done, i - done);
        done = i + 1;
        const char *known = memchr(from, c, sizeof(from) - 1);

        if (known) {
            cox_put_u8(out, '\\');
            cox_put_u8(out, (uint8_t)to[known - from]);
        } else {
            cox_buf_printf(out, "\\u%04x", c);
        }
    }
    if (plain.len > done)
        cox_buf_append(out, plain.data + done, plain.len - done);
}

void jtext_put_string(struct cox_buf *out, struct cox_slice plain)
{
    cox_put_u8(out, '"');
    jtext_put_escaped(out, plain);
    cox_put_u8(out, '"');
}

void jtext_put_compact(struct cox_buf *out, struct cox_slice text)
{
    const uint8_t *p = text.data, *end = text.len > 0 ? text.data + text.len : text.data, *from = p;

    while (p < end) {
        if (*p == '"') {
            const uint8_t *after = skip_string(p, end);

            p = after ? after : end;
        } else if (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r') {
            cox_buf_append(out, from, (size_t)(p - from));
            p = from = skip_space(p, end);
        } else {
            p++;
        }
    }
    cox_buf_append(out, from, (size_t)(end - from));
}

/* ---- numbers ---- */

void jtext_put_double(struct cox_buf *out, double d)
{
    char text[40];

    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    cox_buf_append_str(out, text);
    if (!strpbrk(text, ".e"))
        cox_buf_append_str(out, ".0"); /* or it would read back as an integer */
}

bool jtext_is_int(struct cox_slice number, int64_t *ret)
{
    bool negative = number.len > 0 && number.data[0] == '-';
    size_t i = negative ? 1 : 0;
    int64_t v = 0;

    if (i == number.len)
        return false;
    for (; i < number.len; i++) {
        int digit = number.data[i] - '0';

        if (!is_digit(number.data[i]) || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_sub_overflow(v, digit, &v))
            return false;
    }
    /* Counted downwards, because the smallest integer has no positive twin. */
    if (!negative && v == INT64_MIN)
        return false;
    *ret = negative ? v : -v;
    return true;
}

double jtext_double(struct cox_slice number)
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

/* ---- places ---- */

static bool plain_key(struct cox_slice key)
{
    if (key.len == 0 || is_digit(key.data[0]))
        return false;
    for (size_t i = 0; i < key.len; i++) {
        uint8_t c = key.data[i];

        if (!is_digit(c) && c != '_' && c != '-' && ((c | 0x20) < 'a' || (c | 0x20) > 'z'))
            return false;
    }
    return true;
}

static void put_key(struct cox_buf *out, struct cox_slice key)
{
    if (plain_key(key)) {
        if (out->len > 0)
            cox_put_u8(out, '.');
        cox_buf_append_slice(out, key);
    } else {
        cox_put_u8(out, '[');
        jtext_put_string(out, key);
        cox_put_u8(out, ']');
    }
}

/* The chain from the root: steps[n], without the root itself. Chains are as deep as documents may be,
 * plus the few links that the checks add. */
#define PLACE_DEPTH_MAX (COX_JSON_DEPTH_MAX + 8)
static size_t unwind(const struct place *at, const struct place *chain[PLACE_DEPTH_MAX])
{
    size_t n = 0, i = 0;

    for (const struct place *p = at; p && p->up; p = p->up)
        n++;
    COX_ASSERT(n <= PLACE_DEPTH_MAX);
    for (const struct place *p = at; p && p->up; p = p->up)
        chain[n - ++i] = p;
    return n;
}

void place_put(struct cox_buf *out, const struct place *at)
{
    const struct place *chain[PLACE_DEPTH_MAX];
    size_t n = unwind(at, chain);

    for (size_t i = 0; i < n; i++) {
        if (chain[i]->key)
            put_key(out, cox_slice_str(chain[i]->key));
        else
            cox_buf_printf(out, "[%zu]", chain[i]->index);
    }
}

uint32_t jtext_line_at(struct cox_slice text, size_t offset)
{
    uint32_t line = 1;

    for (size_t i = 0; i < offset && i < text.len; i++)
        line += text.data[i] == '\n';
    return line;
}

uint32_t jtext_line(struct cox_slice text, const struct place *at)
{
    const struct place *chain[PLACE_DEPTH_MAX];
    size_t n = unwind(at, chain);
    struct cox_slice value = jtext_trim(text);
    const uint8_t *found = value.data;

    for (size_t i = 0; i < n; i++) {
        struct jtext_iter it = jtext_iter(value);
        bool here = false;
        size_t index = 0;

        while (!here && jtext_next(&it)) {
            here = chain[i]->key ? it.object && jtext_key_is(it.key, cox_slice_str(chain[i]->key))
                                 : index++ == chain[i]->index;
        }
        if (!here)
            break;
        value = it.value;
        found = chain[i]->key ? it.key.data : value.data;
    }
    return jtext_line_at(text, (size_t)(found - text.data));
}

/* Where a forward walk over tokens stands: in which containers, at which key or element of each. */
struct trail {
    bool object[COX_JSON_DEPTH_MAX];
    bool want_key[COX_JSON_DEPTH_MAX];
    struct cox_slice key[COX_JSON_DEPTH_MAX]; /* raw */
    size_t index[COX_JSON_DEPTH_MAX];
    size_t depth;
};

/* Takes one punctuation byte; false: deeper than a document may be. */
static bool trail_take(struct trail *t, uint8_t c)
{
    size_t top = t->depth - 1;

    if (c == '{' || c == '[') {
        if (t->depth == COX_JSON_DEPTH_MAX)
            return false;
        t->object[t->depth] = t->want_key[t->depth] = c == '{';
        t->key[t->depth] = cox_slice(NULL, 0);
        t->index[t->depth++] = 0;
    } else if ((c == '}' || c == ']') && t->depth > 0) {
        t->depth--;
    } else if (c == ',' && t->depth > 0) {
        t->index[top]++;
        t->want_key[top] = t->object[top];
    }
    return true;
}

void jtext_put_path_at(struct cox_buf *out, struct cox_slice text, size_t offset)
{
    const uint8_t *p = text.data, *end = p + (offset < text.len ? offset : text.len);
    struct trail t = { .depth = 0 };
    struct cox_buf key = { 0 };

    while (p && p < end) {
        if (*p == '"') {
            const uint8_t *string = p;

            p = skip_string(p, text.data + text.len);
            if (p && t.depth > 0 && t.want_key[t.depth - 1]) {
                t.key[t.depth - 1] = cox_slice(string + 1, (size_t)(p - string) - 2);
                t.want_key[t.depth - 1] = false;
            }
        } else if (!trail_take(&t, *p++)) {
            break;
        }
    }
    for (size_t i = 0; i < t.depth; i++) {
        cox_buf_clear(&key);
        jtext_unescape(t.key[i], &key);
        if (!t.object[i])
            cox_buf_printf(out, "[%zu]", t.index[i]);
        else if (t.key[i].data)
            put_key(out, cox_buf_slice(&key));
    }
    cox_buf_fini(&key);
}
