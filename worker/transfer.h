/* One thread's way to the orchestrator's BlobService: each function does its whole work before it returns,
 * and runs the loop of the connection meanwhile. */
#ifndef COX_WORKER_TRANSFER_H
#define COX_WORKER_TRANSFER_H

#include "cox/types.h"

#include "cox/tls.h"

#include <stdatomic.h>

#define TRANSFER_SILENCE_MS 30000 /* a transfer that does not move for so long is given up */

struct transfer;

/* NULL: without one. The files are read when it connects, and outlive it. */
struct transfer *transfer_create(const char *token_file, const struct cox_tls_files *tls);
void transfer_destroy(struct transfer *t);
/* From the next call on; `session` is what the orchestrator gave the worker's stream there, "": nothing. */
void transfer_aim(struct transfer *t, const char *address, const char *session);

/* For whom: an attempt that the worker holds, of a tenant's task ("": the default one). */
struct transfer_for {
    const char *tenant;
    struct cox_ref attempt;
};

/* Both return NONE, or a code and why: UNAVAILABLE, INPUT_INVALID (no such
 * blob, or not what its name says), OUTPUT_TOO_LARGE, RESOURCE_EXHAUSTED, CANCELLED. */

/* Writes the blob to the new file `path`. */
enum cox_code transfer_get(struct transfer *t, const struct transfer_for *whose, const char *hex,
                           const char *path, const atomic_bool *cancelled, struct cox_buf *why);
/* Stores the whole of the file. */
enum cox_code transfer_put(struct transfer *t, const struct transfer_for *whose, int fd,
                           struct cox_hash *ret_hash, uint64_t *ret_len, const atomic_bool *cancelled,
                           struct cox_buf *why);

/* Did the last one fail because the orchestrator was away? The same call may then do. */
bool transfer_was_away(const struct transfer *t);
/* Lets so much time pass, less when cancelled. */
void transfer_pause(struct transfer *t, int64_t ms, const atomic_bool *cancelled);

#endif
