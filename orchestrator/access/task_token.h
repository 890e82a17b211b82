/* Tokens for one task: what they allow is written in them, and signed (HMAC-SHA256) with the key of this data
 * directory; nothing is stored. They can read one task until they expire. Who makes the key anew (takes the
 * file away and sends SIGHUP, or restarts) ends all of them.
 *
 *   "coxt_" hex(version 1, task, when it expires, tenant) "." hex(HMAC of that)
 */
#ifndef COX_ORCHESTRATOR_ACCESS_TASK_TOKEN_H
#define COX_ORCHESTRATOR_ACCESS_TASK_TOKEN_H

#include "token_file.h"

#define TASK_TOKEN_PREFIX "coxt_"

struct task_token {
    cox_task_id task;
    int64_t expires_wall_ms;
    char tenant[ACCESS_TENANT_LEN_MAX + 1];
};
struct task_token_key {
    uint8_t b[32];
};

/* Reads the key's file, or makes it (mode 0600, synced) when it is not there. path NULL: a key that nobody
 * keeps. Errors: COX_ERR_IO, COX_ERR_INVALID. */
COX_MUST_CHECK enum cox_err task_token_key_load(const char *path, struct task_token_key *ret,
                                                struct cox_buf *error);

void task_token_sign(const struct task_token_key *key, const struct task_token *t, struct cox_buf *out);
/* False when it is none, or not signed with this key. That it has not expired is for the caller to see to. */
bool task_token_verify(const struct task_token_key *key, struct cox_slice text, struct task_token *ret);

#endif
