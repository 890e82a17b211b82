/* Keeps known values out of what leaves the worker: each, and each of its usual spellings, becomes "***".
 *
 * Looked for are a value as it is, and its lines when it has several; in base64 (both alphabets, wherever in
 * the encoded text it begins); in hexadecimal; with the escapes of URLs and of JSON. Other spellings are not:
 * reversed, split or enciphered, a value passes, as docs/security.md says.
 *
 * All at once, in one pass (Aho and Corasick 1975), whatever the boundaries of the pieces it comes in. Every
 * byte of every occurrence goes, overlapping ones too: "password" is not left in part because "pass" is a
 * secret as well. Cost: O(1) a byte, about 12 bytes of memory for each byte of a value and its spellings. */
#ifndef COX_WORKER_REDACT_H
#define COX_WORKER_REDACT_H

#include "cox/base/buf.h"

#define REDACT_LEN_MIN 4u /* of a value: shorter ones are all over any text */
#define REDACT_MARK "***"

struct redactor;

/* `values` are copied, in their spellings, until the last reference is dropped, which wipes them. Thread:
 * any, once it is made. */
struct redactor *redactor_create(const struct cox_slice *values, size_t n);
/* Of one value as it is, and no other spelling: for what is worth nothing by the time somebody could decode
 * it. */
struct redactor *redactor_create_plain(struct cox_slice value);
struct redactor *redactor_ref(struct redactor *r); /* NULL is allowed */
void redactor_unref(struct redactor *r);           /* NULL is allowed */

/* A stream being redacted. Zero-initialised, with `of` set, is at its beginning. */
struct redact_span {
    uint64_t from, to; /* offsets in the stream */
};
struct redact_stream {
    const struct redactor *of; /* NULL: everything passes */
    uint32_t state;
    uint64_t at;               /* bytes taken so far */
    struct cox_buf held;       /* the last of them: they may be the beginning of a value */
    struct redact_span *spans; /* what goes, of what is held, ascending and apart */
    size_t n_spans, cap_spans;
    bool marked; /* the last that was put out is a mark, and what it stands for may go on */
};
/* Appends to `out` what is certain by now. */
void redact_feed(struct redact_stream *s, struct cox_slice data, struct cox_buf *out);
/* The stream has ended: the rest. It is at its beginning again. */
void redact_end(struct redact_stream *s, struct cox_buf *out);
void redact_fini(struct redact_stream *s);

/* A whole text, in place. True when something went. */
bool redact_text(const struct redactor *r, struct cox_buf *text);

/* A JSON value, in place: what its strings and keys stand for, however they are escaped, and its numbers,
 * which become strings. It stays JSON; text that is none is taken as redact_text would. */
bool redact_json(const struct redactor *r, struct cox_buf *json);

#endif
