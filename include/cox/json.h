/* JSON text as it is: check once, then walk over slices of it.
 *
 * Why no tree: values that users pass along (inputs, outputs) must come out with the digits and the order of
 * keys that went in, and a document of 4 MiB should not become 40 MiB of nodes; and an expression that picks
 * one field out of a value should allocate nothing. cox_json_check proves that a text is one well-formed
 * value (RFC 8259); the other functions read right what has passed it. Of any other text they make garbage or
 * nothing, and read no byte outside of it. Nothing here recurses. Numbers are read and written in the C
 * locale. Thread: any.
 */
#ifndef COX_JSON_H
#define COX_JSON_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/limits.h"

/* Where a text stops to be JSON, and what was expected there. */
struct cox_json_place {
    uint32_t line;        /* 1-based */
    uint32_t column;      /* 1-based, in bytes */
    size_t offset;        /* 0-based */
    const char *expected; /* "',' or '}'"; static */
    bool too_deep;        /* nothing but COX_JSON_DEPTH_MAX stands against what was read */
};

/* Checks that `text` is one JSON value, in UTF-8, nested at most COX_JSON_DEPTH_MAX deep, without lone
 * surrogates in escapes. Repeated keys pass: what they mean is for the reader of the object to say.
 * Errors: COX_ERR_INVALID, *ret_place (may be NULL) says where. Cost: O(text). */
COX_MUST_CHECK enum cox_err cox_json_check(struct cox_slice text, struct cox_json_place *ret_place);

enum cox_json_kind {
    COX_JSON_NULL,
    COX_JSON_BOOL,
    COX_JSON_NUMBER,
    COX_JSON_STRING,
    COX_JSON_ARRAY,
    COX_JSON_OBJECT,
    COX_JSON_NONE /* not JSON */
};
enum cox_json_kind cox_json_kind(struct cox_slice text); /* by its first character */
const char *cox_json_kind_text(enum cox_json_kind kind); /* "an object" */

/* Reading and checking in one pass, for text that nobody has checked and is large or comes often:
 *   struct cox_json_scan s = cox_json_scan(text);
 *   if (cox_json_scan_open(&s))
 *       while (cox_json_scan_next(&s, &key)) cox_json_scan_value(&s, &value);
 *   if (!cox_json_scan_end(&s)) ... cox_json_scan_place(&s, &place);
 * After each `next` that is true comes one `value`, or one `open` and its members up to the `next` that is
 * false. After the first error everything is false; what was handed out before it is good. The same is well
 * and wrong as for cox_json_check. Cost: O(text) for all; allocates nothing. */
struct cox_json_scan {
    const char *expected; /* NULL: all was well so far */
    bool too_deep;
    /* private */
    bool just_opened;
    unsigned depth;
    const uint8_t *start, *p, *end;
    uint8_t closers[COX_JSON_DEPTH_MAX];
};
struct cox_json_scan cox_json_scan(struct cox_slice text);
enum cox_json_kind cox_json_scan_kind(const struct cox_json_scan *s); /* of the value that comes next */
/* Enters the object or array that comes next; false, and nothing is taken, when it is neither. */
bool cox_json_scan_open(struct cox_json_scan *s);
/* To the next member or item of what was entered last; false: it is left, or the text is broken. `key` is raw
 * with its quotes, empty in an array. */
bool cox_json_scan_next(struct cox_json_scan *s, struct cox_slice *ret_key);
bool cox_json_scan_value(struct cox_json_scan *s, struct cox_slice *ret); /* takes it whole; NULL: skips */
bool cox_json_scan_end(struct cox_json_scan *s);                          /* all was well, nothing is left */
void cox_json_scan_place(const struct cox_json_scan *s, struct cox_json_place *ret); /* of the error */

/* The value without the white space around it. */
struct cox_slice cox_json_trim(struct cox_slice text);

/* Walks over the members of an object or the items of an array, in their order; nothing else has any.
 *   struct cox_json_walk w = cox_json_walk(object);
 *   while (cox_json_next(&w)) use(w.key, w.value);
 * `key` is the raw string with its quotes, empty in an array. Cost: O(size) for the whole walk. */
struct cox_json_walk {
    struct cox_slice key;
    struct cox_slice value; /* trimmed */
    /* private */
    const uint8_t *p;
    const uint8_t *end;
    uint8_t closer;
    bool started;
};
struct cox_json_walk cox_json_walk(struct cox_slice text);
bool cox_json_next(struct cox_json_walk *w);

/* How many a walk meets. O(size). */
size_t cox_json_count(struct cox_slice container);

/* The value of the last member named `key`, escapes in names resolved; false when there is none or `text` is
 * not an object. O(size), allocates nothing. */
bool cox_json_member(struct cox_slice text, const char *key, struct cox_slice *ret_value);

/* Does a raw string (with its quotes) stand for these characters? O(size), allocates nothing. */
bool cox_json_string_is(struct cox_slice raw, struct cox_slice text);

/* What stands between the quotes of a raw string, escapes as they are; empty when it is none. */
struct cox_slice cox_json_inner(struct cox_slice raw);

/* Appends the characters that a raw string stands for: with its quotes, or what stands between them. An
 * escape that stands for no character becomes U+FFFD. */
void cox_json_unquote(struct cox_buf *out, struct cox_slice raw);
void cox_json_unescape(struct cox_buf *out, struct cox_slice inner);

/* Appends `text` as a JSON string, or as what stands between its quotes. Escaped is only what must be; bytes
 * that are not UTF-8 become U+FFFD. */
void cox_json_quote(struct cox_buf *out, struct cox_slice text);
void cox_json_escape(struct cox_buf *out, struct cox_slice text);

/* The number as an integer; false when it has a fraction or an exponent or is beyond 64 bits. */
bool cox_json_int(struct cox_slice number, int64_t *ret);
double cox_json_double(struct cox_slice number); /* may be infinite */
/* Appends a finite number: the fewest digits that read back as equal, and never as an integer ("2.0"). */
void cox_json_put_double(struct cox_buf *out, double d);

/* Appends the value with nothing but the necessary characters, or with line breaks and `indent` spaces a
 * level. */
void cox_json_compact(struct cox_buf *out, struct cox_slice text);
void cox_json_pretty(struct cox_buf *out, struct cox_slice text, unsigned indent);

#endif
