/* JSON Schema, the part that programs and models use: does a value have the shape that was asked for?
 *
 * Checked (2020-12's meaning): type, enum, const; properties, required, additionalProperties, minProperties,
 * maxProperties; items, prefixItems, minItems, maxItems; minimum, maximum, exclusiveMinimum,
 * exclusiveMaximum; minLength, maxLength (in characters); allOf, anyOf, oneOf, not; $ref within the document
 * ("#/$defs/x"); true and false as schemas. Other keywords say nothing here: format, pattern, description and
 * so on.
 *
 * Works on text (cox/json.h), builds no tree. Bounded: depth by COX_JSON_DEPTH_MAX, work by
 * COX_SCHEMA_STEPS_MAX; a value that would need more is not accepted. Thread: any. Pure.
 */
#ifndef COX_SCHEMA_H
#define COX_SCHEMA_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#define COX_SCHEMA_STEPS_MAX 1000000u /* schemas applied and members compared, in one check */

/* Is `schema` one that cox_schema_match can use? Both texts have passed cox_json_check.
 * Errors: COX_ERR_INVALID, `why` gets "properties.n.minimum: expected a number". */
COX_MUST_CHECK enum cox_err cox_schema_check(struct cox_slice schema, struct cox_buf *why);

/* Errors: COX_ERR_INVALID, `why` gets "files[3].name: expected a string, found a number". */
COX_MUST_CHECK enum cox_err cox_schema_match(struct cox_slice schema, struct cox_slice value,
                                             struct cox_buf *why);

#endif
