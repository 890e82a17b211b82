/* The file of tokens (--token-file): a YAML list, a row a token.
 *
 *   - name: ci                        who it is, for people and the log; two rows of one name are two tokens
 *     token_sha256: "9f86d0..."       of the token as it is sent; the token itself is nowhere
 *     roles: [submitter, reader]
 *     tenants: [alpha, beta]          or "*": all; without a word of the caller, the first is meant
 *     expires: 2027-01-01T00:00:00Z   may be missing: never
 */
#ifndef COX_ORCHESTRATOR_ACCESS_TOKEN_FILE_H
#define COX_ORCHESTRATOR_ACCESS_TOKEN_FILE_H

#include "cox/base/map.h"
#include "cox/types.h"

#define ACCESS_TOKENS_MAX 10000u
#define ACCESS_TENANTS_MAX 1000u /* of one token */
#define ACCESS_TENANT_LEN_MAX 63u

struct access_token {
    char *name;
    struct cox_hash sha256;
    unsigned roles;
    char **tenants;
    size_t n_tenants;        /* 0: all */
    int64_t expires_wall_ms; /* INT64_MAX: never */
};

struct access_tokens {
    struct access_token *items;
    size_t n;
    struct cox_mapb by_hash; /* the 32 bytes -> struct access_token */
};

/* Errors: COX_ERR_INVALID, COX_ERR_IO; `error` is a sentence with the line. */
COX_MUST_CHECK enum cox_err access_tokens_read(const char *path, struct access_tokens *ret,
                                               struct cox_buf *error);
COX_MUST_CHECK enum cox_err access_tokens_parse(struct cox_slice text, struct access_tokens *ret,
                                                struct cox_buf *error);
void access_tokens_fini(struct access_tokens *t);

/* The row of a token as it was sent; NULL. What the time of the answer could tell is something about the
 * SHA-256 of what was sent, which leads nowhere: to choose what one sends by the beginning of its hash is to
 * search 2^256 of them. The one comparison that follows reads all 32 bytes. */
const struct access_token *access_tokens_find(const struct access_tokens *t, const struct cox_hash *sha256);
bool access_token_has_tenant(const struct access_token *t, struct cox_slice tenant);

/* 1 to 63 of a-z, 0-9, "-", "_" and ".", and the first one of a-z or 0-9. */
bool access_tenant_ok(struct cox_slice name);

#endif
