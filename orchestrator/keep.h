/* Values of any size, kept where their size belongs: inline, beside the log's records, or as blobs. */
#ifndef COX_ORCHESTRATOR_KEEP_H
#define COX_ORCHESTRATOR_KEEP_H

#include "cox/engine.h"
#include "cox/store.h"

/* Up to COX_INLINE_PAYLOAD_LEN_MAX: INLINE. Up to COX_LOGGED_PAYLOAD_LEN_MAX: STORED with its bytes, which
 * the engine logs. Above: written to the blob store, synced, and STORED without them. `bytes` are borrowed.
 * On failure `error` gets a sentence. Errors: COX_ERR_FULL, COX_ERR_IO. Thread: any; hashes, may sync a file.
 */
enum cox_err cox_keep(struct cox_store *s, const struct cox_space *space, struct cox_slice bytes,
                      struct cox_payload *ret, struct cox_buf *error);

/* The same for a value that is made in pieces: no more of it than COX_LOGGED_PAYLOAD_LEN_MAX is in memory.
 * Zero-initialised but for `store` and `space` is a value without bytes. The first error stays. */
struct cox_keeper {
    struct cox_store *store;
    struct cox_space space;
    struct cox_buf bytes; /* as long as there is no blob */
    struct cox_blob_writer *blob;
    uint64_t size;
    enum cox_err err;
};
void cox_keeper_add(struct cox_keeper *k, struct cox_slice piece);
/* The payload borrows from the keeper until fini. */
enum cox_err cox_keeper_done(struct cox_keeper *k, struct cox_payload *ret, struct cox_buf *error);
void cox_keeper_fini(struct cox_keeper *k);

#endif
