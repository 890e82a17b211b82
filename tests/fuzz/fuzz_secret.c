/* Any bytes as secrets and what a step with them says. The first byte chooses how that is cut, then come up
 * to three values and the text, with a NUL byte behind each value.
 *
 * Redaction: the same however the text is cut; no value is left of it, in any spelling that is looked for;
 * what was JSON is JSON, and none of its strings has a value. The same text as a spec with secrets: it is
 * filled or refused whatever the values are, what is filled is JSON, and without a place for one it is as it
 * was. */
#include "fuzz.h"

#include "redact.h"
#include "secret_spec.h"
#include "wiped.h"

#include "cox/base/rng.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <string.h>

#define VALUES_MAX 3

static bool has(struct cox_slice text, struct cox_slice value)
{
    return value.len >= REDACT_LEN_MIN && text.len >= value.len &&
           memmem(text.data, text.len, value.data, value.len) != NULL;
}

static bool same(const struct cox_buf *a, const struct cox_buf *b)
{
    return cox_slice_eq(cox_buf_slice(a), cox_buf_slice(b));
}

static struct cox_buf copy_of(struct cox_slice s)
{
    struct cox_buf copy = { 0 };

    cox_buf_append_slice(&copy, s);
    return copy;
}

/* Pieces of 1 to `piece_max` bytes. */
static void check_pieces(const struct redactor *r, struct cox_slice text, const struct cox_buf *whole,
                         struct cox_rng *rng, uint64_t piece_max)
{
    struct redact_stream s = { .of = r };
    struct cox_buf out = { 0 };

    for (size_t at = 0, n; at < text.len; at += n) {
        n = 1 + (size_t)cox_rng_below(rng, piece_max);
        n = n < text.len - at ? n : text.len - at;
        redact_feed(&s, cox_slice(text.data + at, n), &out);
    }
    redact_end(&s, &out);
    redact_fini(&s);
    COX_ASSERT(same(&out, whole));
    wiped_fini(&out);
}

static void check_hex(struct cox_slice out, struct cox_slice value)
{
    struct cox_buf hex = { 0 };

    for (size_t i = 0; i < value.len; i++)
        cox_buf_printf(&hex, "%02x", value.data[i]);
    COX_ASSERT(!has(out, cox_buf_slice(&hex)));
    cox_buf_fini(&hex);
}

/* Values with a part of the mark are left out: a mark may complete one that was not there. */
static bool tells_by_mark(const struct cox_slice *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (memchr(values[i].data, REDACT_MARK[0], values[i].len))
            return true;
    }
    return false;
}

static void check_text(const struct redactor *r, const struct cox_slice *values, size_t n,
                       struct cox_slice text, struct cox_rng *rng)
{
    struct cox_buf whole = copy_of(text), again;
    bool changed = redact_text(r, &whole);

    COX_ASSERT(changed == !cox_slice_eq(cox_buf_slice(&whole), text));
    check_pieces(r, text, &whole, rng, 1);
    check_pieces(r, text, &whole, rng, 3);
    check_pieces(r, text, &whole, rng, 40);
    again = copy_of(cox_buf_slice(&whole));
    if (!tells_by_mark(values, n)) {
        COX_ASSERT(!redact_text(r, &again)); /* nothing that is looked for is left */
        for (size_t i = 0; i < n; i++) {
            COX_ASSERT(!has(cox_buf_slice(&whole), values[i]));
            if (values[i].len >= REDACT_LEN_MIN)
                check_hex(cox_buf_slice(&whole), values[i]);
        }
    }
    wiped_fini(&whole);
    wiped_fini(&again);
}

/* No string of a JSON value stands for text with a value in it. */
static void check_strings(struct cox_slice json, const struct cox_slice *values, size_t n)
{
    for (const uint8_t *p = json.data, *end = p + json.len; p < end; p++) {
        const uint8_t *from = p;
        struct cox_buf plain = { 0 };

        if (*p != '"')
            continue;
        for (p++; *p != '"'; p++)
            p += *p == '\\';
        cox_json_unquote(&plain, cox_slice(from, (size_t)(p - from) + 1));
        for (size_t i = 0; i < n; i++)
            COX_ASSERT(!has(cox_buf_slice(&plain), values[i]));
        cox_buf_fini(&plain);
    }
}

static void check_json(const struct redactor *r, const struct cox_slice *values, size_t n,
                       struct cox_slice text)
{
    struct cox_buf json = copy_of(text), plain = copy_of(text);
    bool was = cox_json_check(text, NULL) == COX_OK, changed = redact_json(r, &json);

    if (!was) {
        COX_ASSERT(redact_text(r, &plain) == changed && same(&json, &plain));
    } else {
        COX_ASSERT(cox_json_check(cox_buf_slice(&json), NULL) == COX_OK);
        if (!tells_by_mark(values, n))
            check_strings(cox_buf_slice(&json), values, n);
    }
    wiped_fini(&json);
    wiped_fini(&plain);
}

static void check_spec(const struct cox_slice *values, size_t n, struct cox_slice text)
{
    struct cox_slice given[SECRET_SPEC_KEYS_MAX] = { 0 }, none[SECRET_SPEC_KEYS_MAX] = { 0 };
    struct cox_buf filled = { 0 }, empty = { 0 };
    struct secret_spec s;

    if (!secret_spec_read(text, &s)) {
        COX_ASSERT(cox_slice_eq(s.spec, text));
        return;
    }
    for (size_t i = 0; i < s.n && n > 0; i++)
        given[i] = values[i % n];
    bool ok = secret_spec_fill(&s, given, &filled) == COX_OK;

    COX_ASSERT(ok == (secret_spec_fill(&s, none, &empty) == COX_OK));
    COX_ASSERT(!ok || cox_json_check(cox_buf_slice(&filled), NULL) == COX_OK);
    if (cox_json_count(s.places) == 0)
        COX_ASSERT(ok && cox_slice_eq(cox_buf_slice(&filled), s.spec));
    wiped_fini(&filled);
    wiped_fini(&empty);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cox_slice values[VALUES_MAX], text;
    struct cox_rng rng;
    const uint8_t *p = data + 1, *end = data + size, *stop;
    size_t n = 0;

    if (size == 0)
        return 0;
    cox_rng_init(&rng, data[0]);
    for (; n < VALUES_MAX && (stop = memchr(p, 0, (size_t)(end - p))) != NULL; n++, p = stop + 1)
        values[n] = cox_slice(p, (size_t)(stop - p));
    text = cox_slice(p, (size_t)(end - p));
    struct redactor *r = redactor_create(values, n);

    check_text(r, values, n, text, &rng);
    check_json(r, values, n, text);
    check_spec(values, n, text);
    redactor_unref(r);
    return 0;
}
