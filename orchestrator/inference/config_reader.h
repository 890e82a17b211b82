/* Reads JSON of a configuration by tables of fields; what is wrong is said with its place:
 * "models[1].endpoints[0].url: \"ftp://x\"; expected a URL such as ...". The first that is wrong ends it.
 * Readers return false then. Thread: one a reader. */
#ifndef COX_ORCHESTRATOR_INFERENCE_CONFIG_READER_H
#define COX_ORCHESTRATOR_INFERENCE_CONFIG_READER_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

struct config_reader {
    struct cox_buf path;
    struct cox_buf *error;
    enum cox_err err; /* COX_OK until something is wrong */
};

struct config_field {
    const char *name;
    bool (*read)(struct config_reader *r, void *target, struct cox_slice value);
};

bool config_fail(struct config_reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "VALUE; expected ...", the value as it was written, and not all of a long one. */
bool config_expected(struct config_reader *r, struct cox_slice value, const char *expected);

/* The place goes one deeper, and back. */
size_t config_enter(struct config_reader *r, const char *name);
size_t config_enter_item(struct config_reader *r, size_t index);
void config_leave(struct config_reader *r, size_t mark);

/* Every member by its field; null is as if it were not there, names that the table lacks are refused with
 * what is near. */
bool config_object(struct config_reader *r, struct cox_slice value, void *target,
                   const struct config_field *fields, size_t n_fields);
/* Calls `read` for every item with its place entered. */
bool config_list(struct config_reader *r, struct cox_slice value, void *target, size_t max,
                 bool (*read)(struct config_reader *r, void *target, struct cox_slice item));

/* Text of 1 to `max` printable bytes of ASCII. */
bool config_text(struct config_reader *r, struct cox_slice value, size_t max, const char *expected,
                 char **ret);
bool config_count(struct config_reader *r, struct cox_slice value, uint64_t min, uint64_t max, uint64_t *ret);

#endif
