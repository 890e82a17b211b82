#include "keep.h"

#include "sha256.h"

#include <string.h>

void cox_keeper_add(struct cox_keeper *k, struct cox_slice piece)
{
    if (k->err)
        return;
    k->size += piece.len;
    if (!k->blob && k->size <= COX_LOGGED_PAYLOAD_LEN_MAX) {
        cox_buf_append_slice(&k->bytes, piece);
        return;
    }
    if (!k->blob) {
        k->err = cox_blob_create_for_task(k->store, &k->blob);
        if (!k->err)
            k->err = cox_blob_write(k->blob, cox_buf_slice(&k->bytes));
        cox_buf_fini(&k->bytes);
    }
    if (!k->err)
        k->err = cox_blob_write(k->blob, piece);
}

static enum cox_err blob_done(struct cox_keeper *k, struct cox_payload *ret)
{
    struct cox_blob_writer *blob = k->blob;

    k->blob = NULL;
    *ret = (struct cox_payload){ .kind = COX_PAYLOAD_STORED };
    return cox_blob_done(blob, &k->space, NULL, &ret->hash, &ret->size);
}

enum cox_err cox_keeper_done(struct cox_keeper *k, struct cox_payload *ret, struct cox_buf *error)
{
    memset(ret, 0, sizeof(*ret));
    if (!k->err && k->blob) {
        k->err = blob_done(k, ret);
    } else if (!k->err) {
        ret->kind = COX_PAYLOAD_INLINE;
        ret->bytes = cox_buf_slice(&k->bytes);
        ret->size = k->size;
        if (k->size > COX_INLINE_PAYLOAD_LEN_MAX) {
            ret->kind = COX_PAYLOAD_STORED;
            ret->hash = cox_sha256(ret->bytes);
        }
    }
    if (k->err)
        cox_buf_printf(error, "a value of %llu bytes cannot be kept: %s", (unsigned long long)k->size,
                       cox_err_text(k->err));
    return k->err;
}

void cox_keeper_fini(struct cox_keeper *k)
{
    cox_blob_abandon(k->blob);
    cox_buf_fini(&k->bytes);
    k->blob = NULL;
}

enum cox_err cox_keep(struct cox_store *s, const struct cox_space *space, struct cox_slice bytes,
                      struct cox_payload *ret, struct cox_buf *error)
{
    struct cox_keeper k = { .store = s, .space = *space };
    enum cox_err err;

    cox_keeper_add(&k, bytes);
    err = cox_keeper_done(&k, ret, error);
    if (!err && bytes.len <= COX_LOGGED_PAYLOAD_LEN_MAX)
        ret->bytes = bytes; /* the caller's, which stay */
    cox_keeper_fini(&k);
    return err;
}
