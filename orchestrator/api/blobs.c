/* GetBlob and PutBlob. Files are read, hashed and synced on the compile thread, a bounded piece at a time: a
 * slow peer holds one piece in memory, and nothing of it stalls the engine. */
#include "internal.h"

#include "../sha256.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include "coxswain/v1/blob_service.pb-c.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- whose ---- */

/* A worker has blobs for the attempts that it holds, and while it does. False: the call was failed. */
static bool check_attempt(struct cox_api *a, struct cox_rpc_call *call)
{
    const struct cox_caller *caller = cox_access_caller(call);
    struct cox_slice attempt = cox_rpc_call_metadata(call, "cox-attempt");
    struct cox_slice key = cox_rpc_call_metadata(call, "cox-session");
    struct cox_ref ref;

    if (!attempt.data && (!caller->as_worker || COX_PLANTED("lease-unnamed")))
        return true;
    if (!attempt.data) {
        cox_call_fail(call, COX_RPC_FAILED_PRECONDITION, "NO_ATTEMPT",
                      "a worker says for which attempt: cox-attempt and cox-session");
        return false;
    }
    if (cox_ref_parse(attempt, &ref)) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_ATTEMPT",
                      "cox-attempt: expected TASK/STEP/EPOCH/COUNTER, four decimal numbers");
        return false;
    }
    if (cox_fleet_holds(a->fleet, ref, key, caller->tenant))
        return true;
    cox_call_fail(call, COX_RPC_ABORTED, "NOT_HELD", "this stream does not hold that attempt");
    return false;
}

#define PIECE_LEN (4u * COX_BLOB_CHUNK_LEN) /* read at once */
#define AHEAD_LEN (1u << 20)                /* received and not yet written, before the peer is held */

/* ---- GetBlob ---- */

struct get {
    struct cox_op op;
    struct cox_work work;
    struct cox_fetch payload;
    struct cox_space space;
    struct cox_hash hash;
    uint64_t offset;
    struct cox_store *store;
    struct cox_buf piece;
    size_t sent; /* of it */
    bool last;   /* nothing comes after it */
    enum cox_err err;
    bool busy; /* with the compile thread or the store: it must stay */
};

static void get_free(struct get *g)
{
    cox_buf_fini(&g->piece);
    cox_op_fini(&g->op);
    cox_free(g);
}

static void get_failed(struct get *g, enum cox_err err)
{
    char text[COX_HASH_TEXT_MAX];

    cox_hash_format(&g->hash, text);
    if (err == COX_ERR_NOT_FOUND)
        cox_op_failf(&g->op, COX_RPC_NOT_FOUND, "NO_BLOB", "no blob %s", text);
    else
        cox_op_failf(&g->op, COX_RPC_DATA_LOSS, "BLOB_UNREADABLE", "blob %s cannot be read: %s", text,
                     cox_err_text(err));
    get_free(g);
}

/* False when the outbox has no room for more. */
static bool send_some(struct get *g)
{
    while (g->sent < g->piece.len && g->op.call) {
        Coxswain__V1__GetBlobResponse m = COXSWAIN__V1__GET_BLOB_RESPONSE__INIT;
        size_t left = g->piece.len - g->sent;

        m.data = (ProtobufCBinaryData){ left < COX_BLOB_CHUNK_LEN ? left : COX_BLOB_CHUNK_LEN,
                                        g->piece.data + g->sent };
        if (cox_rpc_send(g->op.call, &m.base) == COX_ERR_FULL)
            return false;
        g->sent += m.data.len;
    }
    return true;
}

static void get_work(struct cox_work *w)
{
    struct get *g = COX_CONTAINER_OF(w, struct get, work);
    uint64_t size;

    if (!g->payload.fn) /* the first piece: who reads it is about to use it */
        (void)cox_blob_known(g->store, &g->space, &g->hash, &size);
    cox_buf_clear(&g->piece);
    g->err = cox_blob_read(g->store, &g->space, &g->hash, g->offset, PIECE_LEN, &g->piece);
}

static void get_more(struct get *g)
{
    g->busy = true;
    cox_compile_submit(cox_driver_compile(g->op.api->driver), &g->work);
}

/* Sends what is there, then reads on. Room may come while we send, hence `busy`. */
static void get_go_on(struct get *g)
{
    g->busy = true;
    bool all = send_some(g);

    g->busy = false;
    if (!g->op.call || (all && g->last)) {
        cox_op_finish(&g->op);
        get_free(g);
    } else if (all && cox_rpc_outbox_len(g->op.call) == 0) {
        get_more(g);
    }
}

/* Values of up to a megabyte are in the state, and come whole. */
static void on_payload(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct get *g = COX_CONTAINER_OF(f, struct get, payload);

    if (err && g->op.call) {
        get_failed(g, err);
        return;
    }
    cox_buf_fini(&g->piece);
    g->piece = *bytes;
    memset(bytes, 0, sizeof(*bytes));
    g->sent = g->offset < g->piece.len ? (size_t)g->offset : g->piece.len;
    g->last = true;
    get_go_on(g);
}

static void get_done(struct cox_work *w)
{
    struct get *g = COX_CONTAINER_OF(w, struct get, work);
    bool first = g->payload.fn == NULL;

    if (!g->op.call) {
        get_free(g);
        return;
    }
    g->payload.fn = on_payload;
    if (g->err == COX_ERR_NOT_FOUND && first) {
        g->payload.hash = g->hash;
        g->payload.space = g->space;
        cox_driver_fetch(g->op.api->driver, &g->payload);
        return;
    }
    if (g->err) {
        get_failed(g, g->err);
        return;
    }
    g->offset += g->piece.len;
    g->sent = 0;
    g->last = g->piece.len < PIECE_LEN;
    get_go_on(g);
}

static void get_on_room(struct cox_op *op)
{
    struct get *g = COX_CONTAINER_OF(op, struct get, op);

    if (!g->busy)
        get_go_on(g);
}

static void get_on_gone(struct cox_op *op)
{
    struct get *g = COX_CONTAINER_OF(op, struct get, op);

    if (!g->busy)
        get_free(g);
}

void cox_api_get_blob(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetBlobRequest *m = (const Coxswain__V1__GetBlobRequest *)message;
    struct cox_api *a = user;
    struct cox_hash hash;

    if (!cox_hash_parse(cox_slice_str(m->hash), &hash)) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_HASH",
                      "hash: expected \"sha256:\" and 64 hex digits, found \"%s\"", m->hash);
        return;
    }
    if (!check_attempt(a, call))
        return;
    struct get *g = COX_NEW(struct get);

    cox_op_init(&g->op, a, call);
    g->op.on_gone = get_on_gone;
    g->op.on_room = get_on_room;
    g->work = (struct cox_work){ .work = get_work, .done = get_done, .len = PIECE_LEN };
    g->space = cox_space_of(cox_slice_str(g->op.tenant));
    g->hash = hash;
    g->offset = m->offset;
    g->store = cox_driver_store(a->driver);
    get_more(g);
}

/* ---- PutBlob ---- */

struct put {
    struct cox_op op;
    struct cox_work work;
    struct cox_store *store;
    struct cox_blob_writer *writer; /* the compile thread's while busy */
    struct cox_space space;
    struct cox_hash hash;
    uint64_t size, received;
    struct cox_buf waiting; /* received */
    struct cox_buf taken;   /* being written */
    bool busy, ended, last, held;
    enum cox_err err;
};

static void put_free(struct put *p)
{
    cox_blob_abandon(p->writer);
    cox_buf_fini(&p->waiting);
    cox_buf_fini(&p->taken);
    cox_op_fini(&p->op);
    cox_free(p);
}

static void put_work(struct cox_work *w)
{
    struct put *p = COX_CONTAINER_OF(w, struct put, work);
    struct cox_hash found;
    uint64_t size;

    if (!p->writer)
        p->err = cox_blob_create(p->store, &p->writer);
    if (!p->err)
        p->err = cox_blob_write(p->writer, cox_buf_slice(&p->taken));
    if (!p->err && p->last) {
        p->err = cox_blob_done(p->writer, &p->space, &p->hash, &found, &size);
        p->writer = NULL;
    }
}

static void put_failed(struct put *p)
{
    char text[COX_HASH_TEXT_MAX];

    cox_hash_format(&p->hash, text);
    if (p->err == COX_ERR_INVALID)
        cox_op_failf(&p->op, COX_RPC_INVALID_ARGUMENT, "HASH_DIFFERS", "the bytes that came are not %s",
                     text);
    else if (p->err == COX_ERR_FULL)
        cox_op_fail(&p->op, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                     .reason = "DISK_FULL",
                                                     .message = "less than --min-free is left on the disk",
                                                     .retry_delay_ms = COX_API_SHORTAGE_RETRY_MS });
    else
        cox_op_failf(&p->op, COX_RPC_INTERNAL, "BLOB_NOT_WRITTEN", "blob %s cannot be written: %s", text,
                     cox_err_text(p->err));
    put_free(p);
}

/* Hands over what waits, unless something is on its way; holds the peer while too much waits. */
static void put_more(struct put *p)
{
    bool hold = p->waiting.len > AHEAD_LEN;

    if (!p->busy && (p->waiting.len > 0 || p->ended)) {
        struct cox_buf empty = p->taken;

        p->taken = p->waiting;
        p->waiting = empty;
        cox_buf_clear(&p->waiting);
        p->work.len = p->taken.len;
        p->last = p->ended;
        p->busy = true;
        hold = false;
        cox_compile_submit(cox_driver_compile(p->op.api->driver), &p->work);
    }
    if (hold != p->held && p->op.call) {
        p->held = hold;
        (hold ? cox_rpc_pause_reads : cox_rpc_resume_reads)(p->op.call);
    }
}

static void put_done(struct cox_work *w)
{
    struct put *p = COX_CONTAINER_OF(w, struct put, work);

    p->busy = false;
    if (!p->op.call) {
        put_free(p);
    } else if (p->err) {
        put_failed(p);
    } else if (p->last) {
        Coxswain__V1__PutBlobResponse answer = COXSWAIN__V1__PUT_BLOB_RESPONSE__INIT;
        cox_op_reply(&p->op, &answer.base);
        put_free(p);
    } else {
        put_more(p);
    }
}

static void put_on_gone(struct cox_op *op)
{
    struct put *p = COX_CONTAINER_OF(op, struct put, op);

    if (!p->busy)
        put_free(p);
}

/* What is wrong with the first message, or the blob is there: the call is answered, and NULL. */
static struct put *put_begin(struct cox_api *a, struct cox_rpc_call *call,
                             const Coxswain__V1__PutBlobRequest *m)
{
    Coxswain__V1__PutBlobResponse answer = COXSWAIN__V1__PUT_BLOB_RESPONSE__INIT;
    struct cox_store *s = cox_driver_store(a->driver);
    struct cox_hash hash;
    uint64_t size;

    if (!cox_hash_parse(cox_slice_str(m->hash), &hash)) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_HASH",
                      "hash: expected \"sha256:\" and 64 hex digits in the first message, found \"%s\"",
                      m->hash);
        return NULL;
    }
    if (m->size > COX_BLOB_LEN_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BLOB_TOO_LARGE", "size: %" PRIu64 " bytes, at most %u",
                      m->size, COX_BLOB_LEN_MAX);
        return NULL;
    }
    if (!check_attempt(a, call))
        return NULL;
    struct cox_space space = cox_space_of(cox_slice_str(cox_access_caller(call)->tenant));

    if (cox_blob_known(s, &space, &hash, &size)) {
        answer.existed = true;
        cox_rpc_reply(call, &answer.base);
        return NULL;
    }
    struct put *p = COX_NEW(struct put);

    cox_op_init(&p->op, a, call);
    p->op.on_gone = put_on_gone;
    p->work = (struct cox_work){ .work = put_work, .done = put_done };
    p->store = s;
    p->space = space;
    p->hash = hash;
    p->size = m->size;
    return p;
}

/* The call has failed; what the compile thread still does is for nobody. */
static void put_refuse(struct put *p, const char *why)
{
    cox_op_failf(&p->op, COX_RPC_INVALID_ARGUMENT, "BAD_BLOB", "%s: %" PRIu64 " of %" PRIu64 " bytes", why,
                 p->received, p->size);
    if (!p->busy)
        put_free(p);
}

void cox_api_put_blob(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__PutBlobRequest *m = (const Coxswain__V1__PutBlobRequest *)message;
    struct cox_op *op = cox_rpc_call_user(call);
    struct put *p = op ? COX_CONTAINER_OF(op, struct put, op) : put_begin(user, call, m);

    if (!p)
        return;
    p->received += m->data.len;
    if (m->data.len > COX_BLOB_CHUNK_LEN) {
        put_refuse(p, "data: more than 64 KiB in one message");
    } else if (p->received > p->size) {
        put_refuse(p, "data: more than the size that was said");
    } else {
        cox_buf_append(&p->waiting, m->data.data, m->data.len);
        put_more(p);
    }
}

void cox_api_put_blob_ended(struct cox_rpc_call *call, void *user)
{
    struct cox_op *op = cox_rpc_call_user(call);

    (void)user;
    if (!op) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_BLOB", "expected a message with hash and size");
        return;
    }
    struct put *p = COX_CONTAINER_OF(op, struct put, op);

    p->ended = true;
    if (p->received < p->size)
        put_refuse(p, "data: less than the size that was said");
    else
        put_more(p);
}
