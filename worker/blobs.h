/* References to blobs in values, {"$blob": "sha256:HEX", "size": N}. Pure. */
#ifndef COX_WORKER_BLOBS_H
#define COX_WORKER_BLOBS_H

#include "cox/types.h"

#define BLOB_HEX_LEN 64
#define BLOB_REFS_MAX 256u /* in one attempt's input */

/* "sha256:" and 64 lower-case hex digits; false for anything else. */
bool blob_parse(struct cox_slice text, char ret_hex[BLOB_HEX_LEN + 1]);

/* Is this JSON value a reference? Also as text, where a document turns values into strings (stdin, env). */
bool blob_ref(struct cox_slice value, char ret_hex[BLOB_HEX_LEN + 1]);

/* Appends the reference as JSON. */
void blob_put(struct cox_buf *out, const struct cox_hash *hash, uint64_t len);

void blob_hex(const struct cox_hash *hash, char ret_hex[BLOB_HEX_LEN + 1]);

/* Distinct references anywhere in `json`. Errors: COX_ERR_INVALID when it is not JSON, COX_ERR_FULL beyond
 * BLOB_REFS_MAX. Cost: one search when there is none. */
struct blob_refs {
    char hex[BLOB_REFS_MAX][BLOB_HEX_LEN + 1];
    size_t n;
};
COX_MUST_CHECK enum cox_err blob_find(struct cox_slice json, struct blob_refs *refs);

/* The path of a program in what is asked of a bundle, freed by cox_free; NULL: there is none. */
char *blob_program_path(struct cox_slice spec_json);

#endif
