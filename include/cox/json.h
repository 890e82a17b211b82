/* JSON text as it is: check once, then walk over slices of it.
 *
 * Why no tree: values that users pass along (inputs, outputs) must come out with the digits and the order of
 * keys that went in, and a document of 4 MiB should not become 40 MiB of nodes. cox_json_check proves that a
 * text is one well-formed value (RFC 8259); the other functions take text that has passed it, and abort on
 * any other. Nothing here recurses. Thread: any.
 */
#ifndef COX_JSON_H
#define COX_JSON_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

/* Where a text stops to be JSON, and what was expected there. */
struct cox_json_place {
    uint32_t line;        /* 1-based */
    uint32_t column;      /* 1-based, in bytes */
    const char *expected; /* "',' or '}'"; static */
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
    COX_JSON_OBJECT
};
enum cox_json_kind cox_json_kind(struct cox_slice text);
const char *cox_json_kind_text(enum cox_json_kind kind); /* "an object" */

/* The value without the white space around it. */
struct cox_slice cox_json_trim(struct cox_slice text);

/* Walks over the members of an object or the items of an array, in their order.
 *   struct cox_json_walk w = cox_json_walk(object);
 *   while (cox_json_next(&w)) use(w.key, w.value);
 * `key` is the raw string with its quotes, empty in an array. Cost: O(size) for the whole walk. */
struct cox_json_walk {
    struct cox_slice key;
    struct cox_slice value;
    struct cox_slice rest; /* private */
};
struct cox_json_walk cox_json_walk(struct cox_slice text);
bool cox_json_next(struct cox_json_walk *w);

/* The value of the last member named `key`, escapes in names resolved; false when there is none or `text` is
 * not an object. O(size). */
bool cox_json_member(struct cox_slice text, const char *key, struct cox_slice *ret_value);

/* Appends the characters that a raw string (with its quotes) stands for. */
void cox_json_unquote(struct cox_buf *out, struct cox_slice raw);

/* Appends `text` as a JSON string; bytes that are not UTF-8 become U+FFFD. */
void cox_json_quote(struct cox_buf *out, struct cox_slice text);

/* Appends the value with nothing but the necessary characters, or with line breaks and `indent` spaces a
 * level. */
void cox_json_compact(struct cox_buf *out, struct cox_slice text);
void cox_json_pretty(struct cox_buf *out, struct cox_slice text, unsigned indent);

#endif
