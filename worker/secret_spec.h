/* The spec of a step with secrets, as worker_service.proto describes Assign.spec_json:
 *
 *     [{KEY: REFERENCE, ...}, SPEC, [PATH, ...]]
 *
 * At each path SPEC has, in place of a string, the list of its pieces: text, KEY, text, KEY ... text. */
#ifndef COX_WORKER_SECRET_SPEC_H
#define COX_WORKER_SECRET_SPEC_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#define SECRET_SPEC_KEYS_MAX 32u

struct secret_spec {
    size_t n;                                          /* of its secrets */
    struct cox_slice keys[SECRET_SPEC_KEYS_MAX];       /* raw JSON strings */
    struct cox_slice references[SECRET_SPEC_KEYS_MAX]; /* raw */
    struct cox_slice spec, places;
};

/* False: `text` is a plain spec, or nothing that can be read; then `ret->spec` is all of it. Slices borrow.
 */
bool secret_spec_read(struct cox_slice text, struct secret_spec *ret);

/* Appends SPEC with values[i] where its key i stands. Only paths decide: what was interpolated lies below
 * none, and is copied as it is. `out` is to be freed by wiped_fini. Errors: COX_ERR_INVALID, the places are
 * none of SPEC's. */
COX_MUST_CHECK enum cox_err secret_spec_fill(const struct secret_spec *s, const struct cox_slice *values,
                                             struct cox_buf *out);

#endif
