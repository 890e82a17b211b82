/* JSON as text, read in place.
 *
 * Why beside jansson: an expression picks one field out of a step's output on the engine's thread. Building
 * a tree for that costs an allocation a node; walking the text costs none. Documents, which are read whole,
 * go through jansson. Everything here is safe on any bytes; what jtext_check accepted is read right.
 * Nesting is bounded by COX_JSON_DEPTH_MAX. Numbers are read and written in the C locale.
 */
#ifndef COX_TASK_JTEXT_H
#define COX_TASK_JTEXT_H

#include "cox/base/buf.h"

enum jtext_type {
    JTEXT_BAD,
    JTEXT_NULL,
    JTEXT_BOOL,
    JTEXT_NUMBER,
    JTEXT_STRING,
    JTEXT_LIST,
    JTEXT_OBJECT,
};

/* What makes a text other than JSON. */
enum jtext_fault { JTEXT_FINE, JTEXT_SYNTAX, JTEXT_DEPTH, JTEXT_UTF8 };

/* Strict check of a whole text (RFC 8259, UTF-8, no lone surrogates, bounded depth). One pass.
 * ret_at: the byte where it fails; may be NULL. */
enum jtext_fault jtext_check(struct cox_slice text, size_t *ret_at);
enum jtext_fault jtext_check_syntax(struct cox_slice text, size_t *ret_at); /* all but UTF-8 */

/* Bytes of `s` that a message shows: at most `max`, and whole characters. */
int jtext_shown(struct cox_slice s, size_t max);

struct cox_slice jtext_trim(struct cox_slice text); /* without surrounding white space */
enum jtext_type jtext_type(struct cox_slice value); /* by its first byte; `value` is trimmed */

/* Elements of a list or members of an object, in order. */
struct jtext_iter {
    const uint8_t *p;
    const uint8_t *end;
    bool object;
    bool started;
    bool bad;               /* the text is broken; there is no next */
    struct cox_slice key;   /* as written, between its quotes; empty in a list */
    struct cox_slice value; /* trimmed */
};
struct jtext_iter jtext_iter(struct cox_slice container);
bool jtext_next(struct jtext_iter *it);

/* The member's value, the first where a key repeats; false when there is none. `key` is plain. */
bool jtext_member(struct cox_slice object, struct cox_slice key, struct cox_slice *ret_value);
bool jtext_key_is(struct cox_slice raw, struct cox_slice plain);

/* Between a string's quotes: as written, and plain. */
struct cox_slice jtext_raw(struct cox_slice string);
void jtext_unescape(struct cox_slice raw, struct cox_buf *out);
void jtext_put_utf8(struct cox_buf *out, uint32_t code_point);
void jtext_put_string(struct cox_buf *out, struct cox_slice plain);  /* with quotes */
void jtext_put_escaped(struct cox_buf *out, struct cox_slice plain); /* without */
void jtext_put_compact(struct cox_buf *out, struct cox_slice text);  /* drops white space */
void jtext_put_double(struct cox_buf *out, double d);                /* shortest text that reads back equal */

bool jtext_is_int(struct cox_slice number,
                  int64_t *ret);              /* false: has a fraction, an exponent, or is too big */
double jtext_double(struct cox_slice number); /* may be infinite */

/* A place in a document: a chain on the caller's stack, rendered only when something is wrong there. */
struct place {
    const struct place *up; /* NULL: the document itself, whose key is not read */
    const char *key;        /* NULL: an element of a list */
    size_t index;
};
void place_put(struct cox_buf *out, const struct place *at); /* appends to a path: steps.scan.run.argv[0] */

/* 1-based line of a place in the text; of the nearest part that exists when it does not. */
uint32_t jtext_line(struct cox_slice text, const struct place *at);
uint32_t jtext_line_at(struct cox_slice text, size_t offset);
/* Appends to a path what leads to the key or value that ends at `offset`. The text behind may be broken. */
void jtext_put_path_at(struct cox_buf *out, struct cox_slice text, size_t offset);

#endif
