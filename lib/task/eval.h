/* Values of expressions, and what one evaluation may use. Values from JSON keep their text: what is only
 * passed on is never decoded. */
#ifndef COX_TASK_EVAL_H
#define COX_TASK_EVAL_H

#include "code.h"
#include "image_write.h"
#include "place.h"

#include "cox/base/arena.h"
#include "cox/json.h"
#include "cox/task.h"

enum value_type {
    VALUE_ERROR,
    VALUE_NULL,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_DOUBLE,
    VALUE_STRING,
    VALUE_LIST,   /* JSON text */
    VALUE_OBJECT, /* JSON text */
    VALUE_NR
};

struct value {
    uint8_t type;
    bool escaped;          /* a string as between the quotes of JSON, with escapes in it */
    struct cox_slice json; /* the text it was read from; empty when it was computed */
    union {
        bool b;
        int64_t i;
        double d;
        struct cox_slice str; /* of a string; of an error, the message */
    };
};

struct eval {
    const struct cox_image *img;
    const struct cox_eval_env *env;
    struct cox_arena arena; /* what lives as long as the evaluation */
    struct cox_buf scratch; /* what lives as long as one instruction */
    uint64_t cost;
    struct cox_slice checked; /* the step output that was last found to be JSON */
    struct cox_slice checked_item;
    struct cox_slice checked_args;
};

/* Charges for walking over `bytes`; false once the evaluation has cost too much. */
bool eval_charge(struct eval *ev, size_t bytes);

struct value value_error(struct eval *ev, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct value value_null(void);
struct value value_bool(bool b);
struct value value_int(int64_t i);
struct value value_str(struct cox_slice plain);
struct value value_json(struct eval *ev, struct cox_slice text); /* of one trimmed JSON value */
const char *value_type_text(const struct value *v);

/* A string's characters, decoded when needed. */
struct cox_slice value_chars(struct eval *ev, const struct value *v);
void value_put_json(struct cox_buf *out, const struct value *v);

/* Operators. Operands are no errors. */
struct value value_get(struct eval *ev, const struct value *v, struct cox_slice key);
struct value value_has(struct eval *ev, const struct value *v, struct cox_slice key);
struct value value_index(struct eval *ev, const struct value *v, const struct value *index);
struct value value_in(struct eval *ev, const struct value *v, const struct value *container);
bool value_equal(struct eval *ev, const struct value *a, const struct value *b);
struct value value_compare(struct eval *ev, enum op op, const struct value *a, const struct value *b);
struct value value_arithmetic(struct eval *ev, enum op op, const struct value *a, const struct value *b);
struct value value_negate(struct eval *ev, const struct value *v);
struct value value_size(struct eval *ev, const struct value *v);
struct value value_test(struct eval *ev, enum op op, const struct value *a, const struct value *b);
struct value value_to_json(struct eval *ev, const struct value *v);
struct value value_from_json(struct eval *ev, const struct value *v);

#endif
