/* Objects of a document against tables of the fields they may have. */
#ifndef COX_TASK_FIELDS_H
#define COX_TASK_FIELDS_H

#include "report.h"

enum {
    WANT_STRING = 1 << 0,
    WANT_INTEGER = 1 << 1,
    WANT_REAL = 1 << 2,
    WANT_BOOL = 1 << 3,
    WANT_LIST = 1 << 4,
    WANT_OBJECT = 1 << 5,
    WANT_NULL = 1 << 6,
    WANT_NUMBER = WANT_INTEGER | WANT_REAL,
    WANT_ANY = (1 << 7) - 1,
};

enum field_rule {
    FIELD_OPTIONAL,
    FIELD_REQUIRED,
};

struct field {
    const char *name;
    uint8_t want;         /* WANT_... bits */
    uint8_t rule;         /* enum field_rule */
    const char *expected; /* "a list of step names" */
};

/* Checks `object` (of any type) against `table` and fills ret[i] with the value of table[i]: borrowed, NULL
 * when absent or reported. False when `object` is no object. */
bool fields_check(struct report *r, const struct place *at, json_t *object, const char *expected,
                  const struct field *table, size_t n, json_t **ret);

/* JSON type as a WANT_ bit. */
unsigned want_of(const json_t *value);

/* Single values. Each reports at `at` and returns false when the value is not what it should be. */
bool field_duration(struct report *r, const struct place *at, const json_t *v, int64_t *ret_ms);
bool field_integer(struct report *r, const struct place *at, const json_t *v, int64_t min, int64_t max,
                   int64_t *ret);

/* [a-z_][a-z0-9_]{0,62}; with `dashes`, '-' too after the first. */
bool name_ok(struct cox_slice s, bool dashes);

static inline struct place place_key(const struct place *up, const char *key)
{
    return (struct place){ .up = up, .key = key };
}
static inline struct place place_index(const struct place *up, size_t index)
{
    return (struct place){ .up = up, .index = index };
}
static inline struct cox_slice json_slice(const json_t *string)
{
    return cox_slice(json_string_value(string), json_string_length(string));
}

#endif
