/* Backup: the store makes a copy in its own directory, which is then read to the caller and removed. Reading
 * is done on the compile thread, a piece at a time; one backup is made at once. */
#include "internal.h"

#include "cox/base/alloc.h"

#include "coxswain/v1/admin_service.pb-c.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_LEN (1u << 20)
#define RETRY_MS 5000
#define BLOB_DIRS 256u

struct backup {
    struct cox_op op;
    struct cox_ask ask;
    struct cox_work work;
    struct cox_store *store;
    char *dir;
    uint64_t as_of_seq;
    bool busy; /* with the store or the compile thread: it must stay */

    /* the compile thread's while busy */
    enum { FILE_LOG, FILE_STATE, FILE_BLOBS } phase;
    unsigned blob_dir;
    DIR *blobs;
    int fd;
    char *path;    /* of the file that has just begun, within the backup; NULL: the piece goes on */
    uint64_t size; /* of it */
    struct cox_buf piece;
    bool done, removing;
    enum cox_err err;
};

static void backup_free(struct backup *b)
{
    if (b->fd >= 0)
        (void)close(b->fd);
    if (b->blobs)
        (void)closedir(b->blobs);
    b->op.api->backing_up = false;
    cox_buf_fini(&b->ask.req.bytes);
    cox_buf_fini(&b->piece);
    cox_free(b->path);
    cox_free(b->dir);
    cox_op_fini(&b->op);
    cox_free(b);
}

/* ---- on the compile thread ---- */

/* The next file's path; NULL: there is none. */
static char *next_path(struct backup *b)
{
    while (b->phase == FILE_BLOBS) {
        struct dirent *entry = b->blobs ? readdir(b->blobs) : NULL;

        if (entry && entry->d_name[0] == '.')
            continue;
        if (entry)
            return cox_asprintf("blobs/%02x/%s", b->blob_dir - 1, entry->d_name);
        if (b->blobs)
            (void)closedir(b->blobs);
        b->blobs = NULL;
        if (b->blob_dir == BLOB_DIRS)
            return NULL;
        char *path = cox_asprintf("%s/blobs/%02x", b->dir, b->blob_dir++);
        b->blobs = opendir(path);
        cox_free(path);
    }
    switch (b->phase) {
    case FILE_LOG:
        b->phase = FILE_STATE;
        return cox_strdup("log.db");
    case FILE_STATE:
        b->phase = FILE_BLOBS;
        return cox_strdup("state.db");
    case FILE_BLOBS:
        break;
    }
    return NULL;
}

static enum cox_err open_next(struct backup *b)
{
    struct stat st;

    b->path = next_path(b);
    b->done = !b->path;
    if (b->done)
        return COX_OK;
    char *path = cox_asprintf("%s/%s", b->dir, b->path);

    b->fd = open(path, O_RDONLY | O_CLOEXEC);
    cox_free(path);
    if (b->fd < 0 || fstat(b->fd, &st) != 0)
        return COX_ERR_IO;
    b->size = (uint64_t)st.st_size;
    return COX_OK;
}

static void work(struct cox_work *w)
{
    struct backup *b = COX_CONTAINER_OF(w, struct backup, work);

    if (b->removing) {
        cox_store_backup_remove(b->store);
        return;
    }
    cox_buf_clear(&b->piece);
    if (b->fd < 0)
        b->err = open_next(b);
    if (b->err || b->done)
        return;
    ssize_t n = read(b->fd, cox_buf_extend(&b->piece, PIECE_LEN), PIECE_LEN);

    b->piece.len = n > 0 ? (size_t)n : 0;
    if (n < 0)
        b->err = COX_ERR_IO;
    if (n < (ssize_t)PIECE_LEN) {
        (void)close(b->fd);
        b->fd = -1;
    }
}

/* ---- on ours ---- */

static void go_on(struct backup *b)
{
    b->busy = true;
    cox_compile_submit(cox_driver_compile(b->op.api->driver), &b->work);
}

static void finish(struct backup *b, enum cox_err err)
{
    Coxswain__V1__BackupResponse last = COXSWAIN__V1__BACKUP_RESPONSE__INIT;

    if (err == COX_ERR_FULL)
        cox_op_failf(&b->op, COX_RPC_RESOURCE_EXHAUSTED, "DISK_FULL",
                     "the data directory has no room for a copy of the databases");
    else if (err)
        cox_op_failf(&b->op, COX_RPC_INTERNAL, "BACKUP_FAILED", "the copy failed: %s", cox_err_text(err));
    last.as_of_seq = b->as_of_seq;
    if (b->op.call)
        (void)cox_rpc_send(b->op.call, &last.base);
    cox_op_finish(&b->op);
    b->removing = true;
    go_on(b);
}

static void send_piece(struct backup *b)
{
    Coxswain__V1__BackupResponse m = COXSWAIN__V1__BACKUP_RESPONSE__INIT;

    if (b->path) {
        m.path = b->path;
        m.size = b->size;
    }
    m.data = (ProtobufCBinaryData){ b->piece.len, b->piece.data };
    if (b->op.call)
        (void)cox_rpc_send(b->op.call, &m.base);
    cox_free(b->path);
    b->path = NULL;
}

static void done(struct cox_work *w)
{
    struct backup *b = COX_CONTAINER_OF(w, struct backup, work);

    if (b->removing) {
        backup_free(b);
        return;
    }
    if (b->err || b->done || !b->op.call) {
        finish(b, b->err);
        return;
    }
    send_piece(b); /* busy: room that comes meanwhile must not read over it */
    b->busy = false;
    if (!b->op.call || cox_rpc_outbox_len(b->op.call) == 0)
        go_on(b);
}

static void on_copied(struct cox_ask *ask, enum cox_err err, uint64_t id, struct cox_buf *bytes)
{
    struct backup *b = COX_CONTAINER_OF(ask, struct backup, ask);

    b->as_of_seq = id;
    b->dir = cox_strdup(cox_buf_cstr(bytes));
    if (err || !b->op.call)
        finish(b, err);
    else
        go_on(b);
}

static void on_room(struct cox_op *op)
{
    struct backup *b = COX_CONTAINER_OF(op, struct backup, op);

    if (!b->busy)
        go_on(b);
}

static void on_gone(struct cox_op *op)
{
    on_room(op); /* finds no call, and clears up */
}

void cox_api_backup(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct cox_api *a = user;

    (void)message;
    if (cox_store_free_bytes(cox_driver_store(a->driver)) == UINT64_MAX) {
        cox_call_fail(call, COX_RPC_FAILED_PRECONDITION, "NO_DATA_DIR",
                      "this orchestrator keeps its data in memory; there is nothing to copy");
        return;
    }
    if (a->backing_up) {
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                    .reason = "BACKUP_UNDER_WAY",
                                                    .message = "another backup is being made",
                                                    .retry_delay_ms = RETRY_MS });
        return;
    }
    struct backup *b = COX_NEW(struct backup);

    a->backing_up = true;
    cox_op_init(&b->op, a, call);
    b->op.on_gone = on_gone;
    b->op.on_room = on_room;
    b->store = cox_driver_store(a->driver);
    b->fd = -1;
    b->work = (struct cox_work){ .work = work, .done = done, .len = PIECE_LEN };
    b->busy = true;
    b->ask = (struct cox_ask){ .req = { .op = COX_STORE_BACKUP }, .fn = on_copied };
    cox_driver_ask(a->driver, &b->ask);
}
