#include "place.h"

#include "cox/base/err.h"
#include "cox/json.h"
#include "cox/limits.h"

int shown_len(struct cox_slice s, size_t max)
{
    size_t len = s.len < max ? s.len : max;

    while (len < s.len && len > 0 && (s.data[len] & 0xc0) == 0x80)
        len--;
    return (int)len;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

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
        cox_json_quote(out, key);
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

uint32_t line_at(struct cox_slice text, size_t offset)
{
    uint32_t line = 1;

    for (size_t i = 0; i < offset && i < text.len; i++)
        line += text.data[i] == '\n';
    return line;
}

uint32_t place_line(struct cox_slice text, const struct place *at)
{
    const struct place *chain[PLACE_DEPTH_MAX];
    size_t n = unwind(at, chain);
    struct cox_slice value = cox_json_trim(text);
    const uint8_t *found = value.data;

    for (size_t i = 0; i < n; i++) {
        bool in_object = cox_json_kind(value) == COX_JSON_OBJECT, here = false;
        struct cox_json_walk w = cox_json_walk(value);
        size_t index = 0;

        while (!here && cox_json_next(&w)) {
            here = chain[i]->key ? in_object && cox_json_string_is(w.key, cox_slice_str(chain[i]->key))
                                 : index++ == chain[i]->index;
        }
        if (!here)
            break;
        value = w.value;
        found = chain[i]->key ? w.key.data : value.data;
    }
    return line_at(text, (size_t)(found - text.data));
}

/* Where a forward walk over tokens stands: in which containers, at which key or element of each. */
struct trail {
    bool object[COX_JSON_DEPTH_MAX];
    bool want_key[COX_JSON_DEPTH_MAX];
    struct cox_slice key[COX_JSON_DEPTH_MAX]; /* raw, with its quotes */
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

/* Behind the quote that closes the raw string at p, or `end`. */
static const uint8_t *string_end(const uint8_t *p, const uint8_t *end)
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\' && p + 1 < end;
    return p < end ? p + 1 : end;
}

void path_put_at(struct cox_buf *out, struct cox_slice text, size_t offset)
{
    const uint8_t *p = text.data, *text_end = p + text.len,
                  *end = p + (offset < text.len ? offset : text.len);
    struct trail t = { .depth = 0 };
    struct cox_buf key = { 0 };

    while (p < end) {
        if (*p == '"') {
            const uint8_t *string = p;

            p = string_end(p, text_end);
            if (t.depth > 0 && t.want_key[t.depth - 1]) {
                t.key[t.depth - 1] = cox_slice(string, (size_t)(p - string));
                t.want_key[t.depth - 1] = false;
            }
        } else if (!trail_take(&t, *p++)) {
            break;
        }
    }
    for (size_t i = 0; i < t.depth; i++) {
        cox_buf_clear(&key);
        cox_json_unquote(&key, t.key[i]);
        if (!t.object[i])
            cox_buf_printf(out, "[%zu]", t.index[i]);
        else if (t.key[i].data)
            put_key(out, cox_buf_slice(&key));
    }
    cox_buf_fini(&key);
}
