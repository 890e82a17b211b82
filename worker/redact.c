#include "redact.h"

#include "wiped.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <stdatomic.h>
#include <string.h>

#define LINE_LEN_MIN 8u /* of a value with several: shorter ones are often words that anybody writes */
#define BASE64_LEN_MIN 6u

/* A state: a beginning of a pattern. Most have one continuation, so those are a list. */
struct node {
    uint32_t child, sibling; /* 0: none */
    uint32_t fail;           /* the longest other beginning that this one ends with */
    uint32_t depth;
    uint32_t match; /* length of the longest pattern that this one ends with; 0: none */
    uint8_t byte;
};

struct redactor {
    atomic_uint n_refs;
    struct node *nodes; /* [0] is the root */
    uint32_t n, cap;
    uint32_t first[256]; /* the root's continuations, again */
    bool is_plain;       /* it has no escapes to be looked behind */
};

/* ---------------------------------------------------------------- patterns */

static uint32_t find_child(const struct redactor *r, uint32_t at, uint8_t byte)
{
    uint32_t child;

    if (at == 0)
        return r->first[byte];
    for (child = r->nodes[at].child; child && r->nodes[child].byte != byte; child = r->nodes[child].sibling)
        ;
    return child;
}

/* Grows by hand: what realloc leaves behind would hold the values. */
static uint32_t add_node(struct redactor *r, uint32_t parent, uint8_t byte)
{
    struct node *old = r->nodes;

    if (r->n == r->cap) {
        r->cap = r->cap * 2;
        r->nodes = cox_calloc(r->cap, sizeof(*r->nodes));
        memcpy(r->nodes, old, r->n * sizeof(*old));
        explicit_bzero(old, r->n * sizeof(*old));
        cox_free(old);
    }
    r->nodes[r->n] =
        (struct node){ .sibling = r->nodes[parent].child, .depth = r->nodes[parent].depth + 1, .byte = byte };
    r->nodes[parent].child = r->n;
    if (parent == 0)
        r->first[byte] = r->n;
    return r->n++;
}

static void add(struct redactor *r, struct cox_slice pattern)
{
    uint32_t at = 0, next;

    if (pattern.len < REDACT_LEN_MIN)
        return;
    for (size_t i = 0; i < pattern.len; i++) {
        next = find_child(r, at, pattern.data[i]);
        at = next ? next : add_node(r, at, pattern.data[i]);
    }
    r->nodes[at].match = r->nodes[at].depth;
}

static void add_buf(struct redactor *r, struct cox_buf *pattern)
{
    add(r, cox_buf_slice(pattern));
    wiped_fini(pattern);
}

/* As programs break it to lines when it is encoded alone. */
static void add_wrapped(struct redactor *r, struct cox_slice encoded)
{
    static const size_t columns[] = { 64, 76 };

    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
        for (size_t at = 0; encoded.len > columns[i] && at < encoded.len; at += columns[i]) {
            size_t len = encoded.len - at < columns[i] ? encoded.len - at : columns[i];

            if (len >= BASE64_LEN_MIN)
                add(r, cox_slice(encoded.data + at, len));
        }
    }
}

/* What is the same wherever in the encoded text the value begins: with `before` bytes in front of it in its
 * first group, and whatever behind it. */
static void add_base64(struct redactor *r, struct cox_slice value, unsigned before, const char *extra)
{
    static const char common[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    struct cox_buf out = { 0 };
    size_t bits = value.len * 8, at = before == 0   ? 0
                                      : before == 1 ? 4
                                                    : 2; /* the first sextet that is ours */

    cox_buf_reserve(&out, bits / 6 + 1);
    for (; at + 6 <= bits; at += 6) {
        unsigned two =
            (unsigned)value.data[at / 8] << 8 | (at / 8 + 1 < value.len ? value.data[at / 8 + 1] : 0);
        unsigned sextet = two >> (10 - at % 8) & 63;

        cox_put_u8(&out, (uint8_t)(sextet < 62 ? common[sextet] : extra[sextet - 62]));
    }
    if (before == 0)
        add_wrapped(r, cox_buf_slice(&out));
    if (out.len >= BASE64_LEN_MIN)
        add(r, cox_buf_slice(&out));
    wiped_fini(&out);
}

static void add_hex(struct redactor *r, struct cox_slice value, const char *digits)
{
    struct cox_buf out = { 0 };

    cox_buf_reserve(&out, 2 * value.len + 1);
    for (size_t i = 0; i < value.len; i++) {
        cox_put_u8(&out, (uint8_t)digits[value.data[i] >> 4]);
        cox_put_u8(&out, (uint8_t)digits[value.data[i] & 15]);
    }
    add_buf(r, &out);
}

/* Escaped as in URLs, but for letters, digits and `plain`; a space is `space`, or escaped when that is 0. */
static void add_url(struct redactor *r, struct cox_slice value, const char *digits, const char *plain,
                    char space)
{
    struct cox_buf out = { 0 };

    cox_buf_reserve(&out, 3 * value.len + 1);
    for (size_t i = 0; i < value.len; i++) {
        uint8_t b = value.data[i];

        if ((b >= '0' && b <= '9') || ((b | 0x20) >= 'a' && (b | 0x20) <= 'z') || (b && strchr(plain, b))) {
            cox_put_u8(&out, b);
        } else if (b == ' ' && space) {
            cox_put_u8(&out, (uint8_t)space);
        } else {
            cox_put_u8(&out, '%');
            cox_put_u8(&out, (uint8_t)digits[b >> 4]);
            cox_put_u8(&out, (uint8_t)digits[b & 15]);
        }
    }
    add_buf(r, &out);
}

/* What languages' own functions leave as it is differs. */
static void add_urls(struct redactor *r, struct cox_slice value)
{
    static const char *const plain[] = {
        "-._~",                   /* RFC 3986; Python's quote(safe=""), Go's PathEscape but for a few */
        "-._~/",                  /* Python's quote */
        "-._~!'()*",              /* encodeURIComponent */
        "-._~!'()*;/?:@&=+$,#",   /* encodeURI */
        "-._~!'()*;/?:@&=+$,#[]", /* what curl takes in a URL */
        "-._*",                   /* forms: HTML's, Java's */
        "-._",                    /* PHP's urlencode, before it knew "~" */
    };

    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        add_url(r, value, "0123456789ABCDEF", plain[i], 0);
        add_url(r, value, "0123456789ABCDEF", plain[i], '+');
        add_url(r, value, "0123456789abcdef", plain[i], 0);
        add_url(r, value, "0123456789abcdef", plain[i], '+');
    }
}

static void add_json(struct redactor *r, struct cox_slice value)
{
    struct cox_buf once = { 0 }, twice = { 0 };

    cox_buf_reserve(&once, 6 * value.len + 1);
    cox_json_escape(&once, value);
    cox_buf_reserve(&twice, 2 * once.len + 1);
    cox_json_escape(&twice, cox_buf_slice(&once)); /* JSON within a string of JSON, as logs have it */
    add_buf(r, &twice);
    add_buf(r, &once);
}

static uint32_t decode_utf8(const uint8_t *p, size_t len, size_t *ret_len)
{
    size_t n = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
    uint32_t c = n == 1 ? *p : *p & (0x7fu >> n);

    n = n < len ? n : len;
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (p[i] & 0x3fu);
    *ret_len = n;
    return c;
}

/* JSON in ASCII alone, as many libraries write it. */
static void add_json_ascii(struct redactor *r, struct cox_slice value, bool upper)
{
    struct cox_buf out = { 0 };
    size_t len;

    cox_buf_reserve(&out, 12 * value.len + 1);
    for (size_t at = 0; at < value.len; at += len) {
        uint32_t c = decode_utf8(value.data + at, value.len - at, &len);
        uint32_t units[2] = { c, 0 };

        if (c < 0x80) {
            cox_json_escape(&out, cox_slice(value.data + at, 1));
            continue;
        }
        if (c >= 0x10000) {
            units[0] = 0xd800 + ((c - 0x10000) >> 10);
            units[1] = 0xdc00 + ((c - 0x10000) & 0x3ff);
        }
        for (size_t i = 0; i < 2 && units[i]; i++)
            cox_buf_printf(&out, upper ? "\\u%04X" : "\\u%04x", units[i]);
    }
    add_buf(r, &out);
}

static void add_spellings(struct redactor *r, struct cox_slice value)
{
    add(r, value);
    if (COX_PLANTED("redact-plain-only"))
        return;
    for (unsigned before = 0; before < 3; before++) {
        add_base64(r, value, before, "+/");
        add_base64(r, value, before, "-_");
    }
    add_hex(r, value, "0123456789abcdef");
    add_hex(r, value, "0123456789ABCDEF");
    add_urls(r, value);
    add_json(r, value);
    add_json_ascii(r, value, false);
    add_json_ascii(r, value, true);
}

/* A key of several lines is seldom printed without something before each. */
static void add_lines(struct redactor *r, struct cox_slice value)
{
    const uint8_t *p = value.data, *end = value.data + value.len, *feed;

    while ((feed = memchr(p, '\n', (size_t)(end - p))) != NULL || (p > value.data && p < end)) {
        size_t len = (size_t)((feed ? feed : end) - p);

        if (len > 0 && p[len - 1] == '\r')
            len--;
        if (len >= LINE_LEN_MIN)
            add_spellings(r, cox_slice(p, len));
        p = feed ? feed + 1 : end;
    }
}

/* Breadth first, so that what a state falls back to is ready before it. */
static void link_up(struct redactor *r)
{
    uint32_t *queue = cox_calloc(r->n, sizeof(*queue));
    uint32_t from = 0, to = 1;

    while (from < to) {
        uint32_t at = queue[from++];

        for (uint32_t child = r->nodes[at].child; child; child = r->nodes[child].sibling) {
            struct node *c = &r->nodes[child];
            uint32_t fail = r->nodes[at].fail, next = 0;

            while (at != 0 && !(next = find_child(r, fail, c->byte)) && fail != 0)
                fail = r->nodes[fail].fail;
            c->fail = next;
            if (c->match == 0)
                c->match = r->nodes[next].match;
            queue[to++] = child;
        }
    }
    cox_free(queue);
}

struct redactor *redactor_create(const struct cox_slice *values, size_t n)
{
    struct redactor *r = COX_NEW(struct redactor);

    atomic_init(&r->n_refs, 1);
    r->cap = 1024;
    r->nodes = cox_calloc(r->cap, sizeof(*r->nodes));
    r->n = 1;
    for (size_t i = 0; i < n; i++) {
        add_spellings(r, values[i]);
        add_lines(r, values[i]);
    }
    link_up(r);
    return r;
}

struct redactor *redactor_create_plain(struct cox_slice value)
{
    struct redactor *r = COX_NEW(struct redactor);

    atomic_init(&r->n_refs, 1);
    r->cap = (uint32_t)value.len + 2;
    r->is_plain = true;
    r->nodes = cox_calloc(r->cap, sizeof(*r->nodes));
    r->n = 1;
    add(r, value);
    link_up(r);
    return r;
}

struct redactor *redactor_ref(struct redactor *r)
{
    if (r)
        atomic_fetch_add(&r->n_refs, 1);
    return r;
}

void redactor_unref(struct redactor *r)
{
    if (!r || atomic_fetch_sub(&r->n_refs, 1) > 1)
        return;
    explicit_bzero(r->nodes, r->cap * sizeof(*r->nodes));
    cox_free(r->nodes);
    explicit_bzero(r, sizeof(*r));
    cox_free(r);
}

/* ---------------------------------------------------------------- streams */

static uint32_t next_state(const struct redactor *r, uint32_t state, uint8_t byte)
{
    uint32_t next;

    while (!(next = find_child(r, state, byte)) && state != 0)
        state = r->nodes[state].fail;
    return next;
}

/* The last `len` bytes go. What it overlaps or touches becomes one with it. */
static void cover(struct redact_stream *s, uint32_t len)
{
    struct redact_span span = { s->at - len, s->at };

    while (s->n_spans > 0 && s->spans[s->n_spans - 1].to >= span.from) {
        if (s->spans[s->n_spans - 1].from < span.from)
            span.from = s->spans[s->n_spans - 1].from;
        s->n_spans--;
    }
    if (s->n_spans == s->cap_spans) {
        s->cap_spans = s->cap_spans ? 2 * s->cap_spans : 8;
        s->spans = cox_realloc(s->spans, s->cap_spans, sizeof(*s->spans));
    }
    s->spans[s->n_spans++] = span;
}

static void put_plain(struct redact_stream *s, struct cox_slice data, struct cox_buf *out)
{
    if (data.len == 0)
        return;
    cox_buf_append_slice(out, data);
    s->marked = false;
}

static void put_mark(struct redact_stream *s, struct cox_buf *out)
{
    if (!s->marked)
        cox_buf_append_str(out, REDACT_MARK);
    s->marked = true;
}

/* Puts out what is held but for the last `keep` bytes. */
static void release(struct redact_stream *s, size_t keep, struct cox_buf *out)
{
    uint64_t begin = s->at - s->held.len, end = s->at - keep, p = begin;
    size_t done = 0;

    while (p < end) {
        const struct redact_span *span = done < s->n_spans ? &s->spans[done] : NULL;
        uint64_t stop = span && span->from < end ? span->from : end;

        if (stop > p)
            put_plain(s, cox_slice(s->held.data + (p - begin), (size_t)(stop - p)), out);
        p = stop > p ? stop : p;
        if (p == end)
            break;
        put_mark(s, out);
        p = span->to < end ? span->to : end;
        if (span->to <= end)
            done++;
    }
    if (done > 0 && s->n_spans > done)
        memmove(s->spans, s->spans + done, (s->n_spans - done) * sizeof(*s->spans));
    s->n_spans -= done;
    if (keep > 0)
        memmove(s->held.data, s->held.data + (s->held.len - keep), keep);
    s->held.len = keep;
}

/* How many bytes from the front begin no pattern at all. */
static size_t skip(const struct redactor *r, struct cox_slice data)
{
    size_t n = 0;

    while (n < data.len && r->first[data.data[n]] == 0)
        n++;
    return n;
}

#define HELD_SLACK 4096u /* what is certain is put out in pieces of this, not byte by byte */

void redact_feed(struct redact_stream *s, struct cox_slice data, struct cox_buf *out)
{
    const struct redactor *r = s->of;
    size_t n;

    if (!r || COX_PLANTED("redact-nothing")) {
        cox_buf_append_slice(out, data);
        return;
    }
    for (size_t i = 0; i < data.len; i++) {
        if (s->state == 0 && (n = skip(r, cox_slice(data.data + i, data.len - i))) > 0) {
            if (s->held.len > 0)
                release(s, 0, out);
            put_plain(s, cox_slice(data.data + i, n), out);
            s->at += n;
            i += n;
            if (i == data.len)
                break;
        }
        s->state = next_state(r, s->state, data.data[i]);
        cox_put_u8(&s->held, data.data[i]);
        s->at++;
        if (r->nodes[s->state].match)
            cover(s, r->nodes[s->state].match);
        if (s->held.len > r->nodes[s->state].depth + HELD_SLACK)
            release(s, r->nodes[s->state].depth, out);
    }
    release(s, COX_PLANTED("redact-forgets-the-edge") ? 0 : r->nodes[s->state].depth, out);
    if (COX_PLANTED("redact-forgets-the-edge"))
        s->state = 0;
}

void redact_end(struct redact_stream *s, struct cox_buf *out)
{
    const struct redactor *of = s->of;

    if (of)
        release(s, 0, out);
    redact_fini(s);
    s->of = of;
}

void redact_fini(struct redact_stream *s)
{
    wiped_fini(&s->held);
    cox_free(s->spans);
    *s = (struct redact_stream){ 0 };
}

/* ---------------------------------------------------------------- whole texts */

/* Spares texts without it being written anew. */
static bool occurs(const struct redactor *r, struct cox_slice text)
{
    uint32_t state = 0;

    for (size_t i = 0; i < text.len; i++) {
        state = next_state(r, state, text.data[i]);
        if (r->nodes[state].match)
            return true;
    }
    return false;
}

static void put_redacted(const struct redactor *r, struct cox_slice text, struct cox_buf *out)
{
    struct redact_stream s = { .of = r };

    redact_feed(&s, text, out);
    redact_end(&s, out);
    redact_fini(&s);
}

/* `next` takes the place of `text`. */
static bool replace(struct cox_buf *text, struct cox_buf *next)
{
    bool changed = !cox_slice_eq(cox_buf_slice(text), cox_buf_slice(next));

    wiped_fini(text);
    *text = *next;
    *next = (struct cox_buf){ 0 };
    return changed;
}

bool redact_text(const struct redactor *r, struct cox_buf *text)
{
    struct cox_buf next = { 0 };

    if (!r || text->len == 0 || (r->is_plain && !occurs(r, cox_buf_slice(text))))
        return false;
    cox_buf_reserve(&next, text->len + 1);
    put_redacted(r, cox_buf_slice(text), &next);
    return replace(text, &next);
}

/* A string, a number or a word of JSON. */
static void put_scalar(const struct redactor *r, struct cox_slice raw, struct cox_buf *out)
{
    bool is_string = raw.data[0] == '"';
    struct cox_buf plain = { 0 };

    cox_buf_reserve(&plain, raw.len + 1);
    if (is_string)
        cox_json_unquote(&plain, raw);
    else
        cox_buf_append_slice(&plain, raw);
    if (redact_text(r, &plain))
        cox_json_quote(out, cox_buf_slice(&plain));
    else
        cox_buf_append_slice(out, raw);
    wiped_fini(&plain);
}

static size_t scalar_len(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *from = p;

    if (*p != '"') {
        while (p < end && !strchr(" \t\r\n,:[]{}\"", *p))
            p++;
        return (size_t)(p - from);
    }
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\';
    return (size_t)(p - from) + 1;
}

bool redact_json(const struct redactor *r, struct cox_buf *json)
{
    struct cox_buf next = { 0 };

    if (!r || json->len == 0 || (r->is_plain && !occurs(r, cox_buf_slice(json))))
        return false;
    if (cox_json_check(cox_buf_slice(json), NULL) != COX_OK)
        return redact_text(r, json);
    const uint8_t *p = json->data, *end = json->data + json->len;

    cox_buf_reserve(&next, json->len + 1);
    while (p < end) {
        size_t len = *p && strchr(" \t\r\n,:[]{}", *p) ? 0 : scalar_len(p, end);

        if (len == 0)
            cox_put_u8(&next, *p++);
        else
            put_scalar(r, cox_slice(p, len), &next);
        p += len;
    }
    return replace(json, &next);
}
