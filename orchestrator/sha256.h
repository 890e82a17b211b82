/* SHA-256, by libcrypto. Thread: any. */
#ifndef COX_ORCHESTRATOR_SHA256_H
#define COX_ORCHESTRATOR_SHA256_H

#include "cox/types.h"

struct cox_hash cox_sha256(struct cox_slice bytes);

/* Of several pieces; each is preceded by its length, so that no two lists of pieces hash alike. */
struct cox_sha256;
struct cox_sha256 *cox_sha256_create(void);
void cox_sha256_add(struct cox_sha256 *s, struct cox_slice piece);
struct cox_hash cox_sha256_destroy(struct cox_sha256 *s);

#endif
