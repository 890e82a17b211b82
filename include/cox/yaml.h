/* YAML 1.2 (core schema) to JSON text, for task documents.
 *
 * Plain scalars are null, booleans (true, false: not yes and no), integers and floats as the core schema
 * says; quoted ones are strings. Refused: repeated keys, keys that are not scalars, merge keys, tags beyond
 * the core schema, more than one document, .inf and .nan, and what expands beyond COX_DOCUMENT_LEN_MAX
 * (aliases). */
#ifndef COX_YAML_H
#define COX_YAML_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/base/map.h"

struct cox_yaml {
    struct cox_buf json;   /* the document */
    struct cox_mapb lines; /* "steps.scan.run.argv[0]" -> its 1-based line as a pointer */

    size_t error_line; /* 1-based, after COX_ERR_INVALID */
    size_t error_column;
    struct cox_buf error;
};

/* Errors: COX_ERR_INVALID. Freed by cox_yaml_fini in either case. */
COX_MUST_CHECK enum cox_err cox_yaml_parse(struct cox_yaml *y, struct cox_slice text);
void cox_yaml_fini(struct cox_yaml *y);

/* The line of a path, or of the nearest part of the document around it; 0 when nothing is known. */
unsigned cox_yaml_line(const struct cox_yaml *y, const char *path);

#endif
