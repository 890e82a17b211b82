#include "fault_vfs.h"

#include "cox/base/alloc.h"
#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/base/rng.h"
#include "cox/base/units.h"

#include <pthread.h>
#include <sqlite3.h>
#include <string.h>

#define SECTOR 512u
#define FILES_MAX 16

enum op_kind { OP_MAKE, OP_WRITE, OP_TRUNCATE, OP_REMOVE };

/* A change not synced yet. */
struct op {
    enum op_kind kind;
    bool doomed; /* its sync failed: it will never arrive */
    size_t at;   /* WRITE: the place; TRUNCATE: the size */
    struct cox_buf bytes;
    struct op *next;
};

struct content {
    bool exists;
    struct cox_buf bytes;
};

struct file {
    char *name;
    struct content seen; /* what reads see */
    struct content safe; /* what a disk certainly holds */
    struct op *ops;      /* from `safe` to `seen`, oldest first */
    struct op **ops_end;
};

struct fault_vfs {
    sqlite3_vfs vfs; /* first: SQLite hands it back */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct cox_rng rng;
    struct file files[FILES_MAX];
    size_t n_files;
    size_t n_open;
    enum fault_kind kind;
    uint64_t countdown;
    bool struck;
    bool dark; /* the power is gone */
    bool hold;
    size_t n_held;
};

struct handle {
    sqlite3_file base; /* first */
    struct fault_vfs *v;
    struct file *file;
    bool sync_names; /* with its first sync, as SQLite's Unix files do for new journals */
};

/* ---- content ---- */

static void content_apply(struct content *c, const struct op *op)
{
    size_t end = op->at + op->bytes.len;

    switch (op->kind) {
    case OP_MAKE:
        c->exists = true;
        break;
    case OP_REMOVE:
        c->exists = false;
        cox_buf_clear(&c->bytes);
        break;
    case OP_TRUNCATE:
        if (c->bytes.len > op->at)
            c->bytes.len = op->at;
        break;
    case OP_WRITE:
        if (c->bytes.len < end) {
            size_t more = end - c->bytes.len;

            memset(cox_buf_extend(&c->bytes, more), 0, more);
        }
        if (op->bytes.len > 0)
            memcpy(c->bytes.data + op->at, op->bytes.data, op->bytes.len);
        break;
    }
}

/* The sectors of a write arrive each by its own luck. */
static void content_apply_torn(struct content *c, const struct op *op, struct cox_rng *rng)
{
    size_t done = 0;

    while (done < op->bytes.len) {
        size_t len = SECTOR - (op->at + done) % SECTOR;

        if (len > op->bytes.len - done)
            len = op->bytes.len - done;
        struct op part = { .kind = OP_WRITE, .at = op->at + done };

        part.bytes = (struct cox_buf){ .data = op->bytes.data + done, .len = len };
        if (cox_rng_chance(rng, 500000))
            content_apply(c, &part);
        done += len;
    }
}

static void content_copy(struct content *to, const struct content *from)
{
    to->exists = from->exists;
    cox_buf_clear(&to->bytes);
    cox_buf_append(&to->bytes, from->bytes.data, from->bytes.len);
}

/* ---- files ---- */

static struct file *file_find(struct fault_vfs *v, const char *name)
{
    for (size_t i = 0; i < v->n_files; i++)
        if (strcmp(v->files[i].name, name) == 0)
            return &v->files[i];
    return NULL;
}

static struct file *file_get(struct fault_vfs *v, const char *name)
{
    struct file *f = file_find(v, name);

    if (f)
        return f;
    COX_ASSERT(v->n_files < FILES_MAX);
    f = &v->files[v->n_files++];
    *f = (struct file){ .name = cox_strdup(name) };
    f->ops_end = &f->ops;
    return f;
}

static void file_add(struct file *f, enum op_kind kind, size_t at, const void *data, size_t len)
{
    struct op *op = COX_NEW(struct op);

    *op = (struct op){ .kind = kind, .at = at };
    cox_buf_append(&op->bytes, data, len);
    content_apply(&f->seen, op);
    *f->ops_end = op;
    f->ops_end = &op->next;
}

static void file_drop_op(struct file *f)
{
    struct op *op = f->ops;

    f->ops = op->next;
    if (!f->ops)
        f->ops_end = &f->ops;
    cox_buf_fini(&op->bytes);
    cox_free(op);
}

static void file_forget_ops(struct file *f)
{
    while (f->ops)
        file_drop_op(f);
}

/* Names are safe, contents are not. */
static void file_sync_name(struct file *f)
{
    size_t n = 0;
    size_t i = 0;

    for (struct op *op = f->ops; op; op = op->next) {
        i++;
        if (op->kind == OP_REMOVE || (op->kind == OP_MAKE && n + 1 == i))
            n = i;
    }
    for (; n > 0; n--) {
        content_apply(&f->safe, f->ops);
        file_drop_op(f);
    }
}

static void file_sync(struct file *f)
{
    for (struct op *op = f->ops; op; op = op->next)
        if (!op->doomed)
            content_apply(&f->safe, op);
    file_forget_ops(f);
}

static void file_doom(struct file *f)
{
    for (struct op *op = f->ops; op; op = op->next)
        op->doomed = op->kind == OP_WRITE;
}

/* One cut loses nearly everything, another nearly nothing, a third tears at random. */
static void file_cut(struct file *f, struct cox_rng *rng, uint32_t lost_ppm, uint32_t torn_ppm)
{
    for (struct op *op = f->ops; op; op = op->next) {
        if (op->doomed || cox_rng_chance(rng, lost_ppm)) {
            if (op->kind == OP_MAKE || op->kind == OP_REMOVE)
                break; /* what follows happened to a file that has no name now */
            continue;
        }
        if (op->kind == OP_WRITE && cox_rng_chance(rng, torn_ppm))
            content_apply_torn(&f->safe, op, rng);
        else
            content_apply(&f->safe, op);
    }
    if (!f->safe.exists)
        cox_buf_clear(&f->safe.bytes);
    content_copy(&f->seen, &f->safe);
    file_forget_ops(f);
}

/* ---- faults ---- */

/* Counts one change and says what becomes of it. */
static enum fault_kind meet(struct fault_vfs *v, bool is_write, bool is_sync)
{
    if (v->kind == FAULT_NONE || v->struck)
        return FAULT_NONE;
    if (v->countdown > 1) {
        v->countdown--;
        return FAULT_NONE;
    }
    bool fits = v->kind == FAULT_POWER_CUT || (v->kind == FAULT_SYNC ? is_sync : is_write);

    if (!fits)
        return FAULT_NONE;
    v->struck = true;
    v->dark = v->kind == FAULT_POWER_CUT;
    return v->kind;
}

/* ---- SQLite's file methods ---- */

static struct handle *lock(sqlite3_file *base)
{
    struct handle *h = (struct handle *)base;

    pthread_mutex_lock(&h->v->mutex);
    return h;
}

static int unlock(struct handle *h, int rc)
{
    pthread_mutex_unlock(&h->v->mutex);
    return rc;
}

static int io_close(sqlite3_file *base)
{
    struct handle *h = lock(base);

    h->v->n_open--;
    return unlock(h, SQLITE_OK);
}

static int io_read(sqlite3_file *base, void *to, int amount, sqlite3_int64 offset)
{
    struct handle *h = lock(base);
    struct cox_buf *b = &h->file->seen.bytes;
    size_t want = (size_t)amount;
    size_t at = (size_t)offset;
    size_t have = at >= b->len ? 0 : b->len - at < want ? b->len - at : want;

    if (h->v->dark)
        return unlock(h, SQLITE_IOERR_READ);
    if (have > 0)
        memcpy(to, b->data + at, have);
    memset((uint8_t *)to + have, 0, want - have);
    return unlock(h, have < want ? SQLITE_IOERR_SHORT_READ : SQLITE_OK);
}

static int io_write(sqlite3_file *base, const void *data, int amount, sqlite3_int64 offset)
{
    struct handle *h = lock(base);
    size_t len = (size_t)amount;

    if (h->v->dark)
        return unlock(h, SQLITE_IOERR_WRITE);
    enum fault_kind fault = meet(h->v, true, false);

    if (fault == FAULT_NO_SPACE)
        return unlock(h, SQLITE_FULL);
    if (fault == FAULT_SHORT_WRITE)
        len /= 2;
    file_add(h->file, OP_WRITE, (size_t)offset, data, len);
    if (fault == FAULT_SHORT_WRITE)
        return unlock(h, SQLITE_FULL);
    return unlock(h, fault == FAULT_POWER_CUT ? SQLITE_IOERR_WRITE : SQLITE_OK);
}

static int io_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct handle *h = lock(base);

    if (h->v->dark || meet(h->v, false, false) != FAULT_NONE)
        return unlock(h, SQLITE_IOERR_TRUNCATE);
    file_add(h->file, OP_TRUNCATE, (size_t)size, NULL, 0);
    return unlock(h, SQLITE_OK);
}

static int io_sync(sqlite3_file *base, int flags)
{
    struct handle *h = lock(base);

    (void)flags;
    h->v->n_held++;
    pthread_cond_broadcast(&h->v->cond);
    while (h->v->hold)
        pthread_cond_wait(&h->v->cond, &h->v->mutex);
    h->v->n_held--;
    enum fault_kind fault = h->v->dark ? FAULT_POWER_CUT : meet(h->v, false, true);

    if (fault == FAULT_NONE) {
        file_sync(h->file);
        for (size_t i = 0; i < h->v->n_files && h->sync_names; i++)
            file_sync_name(&h->v->files[i]);
        h->sync_names = false;
    } else if (fault == FAULT_SYNC) {
        file_doom(h->file);
    }
    return unlock(h, fault == FAULT_NONE ? SQLITE_OK : SQLITE_IOERR_FSYNC);
}

static int io_size(sqlite3_file *base, sqlite3_int64 *ret)
{
    struct handle *h = lock(base);

    *ret = (sqlite3_int64)h->file->seen.bytes.len;
    return unlock(h, SQLITE_OK);
}

/* One process: nobody else to lock out. */
static int io_lock(sqlite3_file *base, int level)
{
    (void)base;
    (void)level;
    return SQLITE_OK;
}

static int io_check_reserved(sqlite3_file *base, int *ret)
{
    (void)base;
    *ret = 0;
    return SQLITE_OK;
}

static int io_control(sqlite3_file *base, int op, void *arg)
{
    (void)base;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int io_sector_size(sqlite3_file *base)
{
    (void)base;
    return 4096; /* as SQLite assumes of Unix */
}

/* Tearing stays within the bytes written, as SQLite assumes of Unix. */
static int io_characteristics(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods io_methods = {
    .iVersion = 1,
    .xClose = io_close,
    .xRead = io_read,
    .xWrite = io_write,
    .xTruncate = io_truncate,
    .xSync = io_sync,
    .xFileSize = io_size,
    .xLock = io_lock,
    .xUnlock = io_lock,
    .xCheckReservedLock = io_check_reserved,
    .xFileControl = io_control,
    .xSectorSize = io_sector_size,
    .xDeviceCharacteristics = io_characteristics,
};

/* ---- SQLite's file system methods ---- */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *ret_flags)
{
    struct fault_vfs *v = (struct fault_vfs *)vfs;
    struct handle *h = (struct handle *)base;

    *h = (struct handle){ .v = v };
    COX_ASSERT(name);
    pthread_mutex_lock(&v->mutex);
    struct file *f = file_get(v, name);
    bool ok = !v->dark && (f->seen.exists || (flags & SQLITE_OPEN_CREATE));

    if (ok) {
        if (!f->seen.exists)
            file_add(f, OP_MAKE, 0, NULL, 0);
        h->file = f;
        h->sync_names =
            (flags & SQLITE_OPEN_CREATE) && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL));
        h->base.pMethods = &io_methods;
        v->n_open++;
    }
    pthread_mutex_unlock(&v->mutex);
    if (ok && ret_flags)
        *ret_flags = flags;
    return ok ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    struct fault_vfs *v = (struct fault_vfs *)vfs;
    int rc = SQLITE_OK;

    pthread_mutex_lock(&v->mutex);
    struct file *f = file_get(v, name);

    if (v->dark || meet(v, false, false) != FAULT_NONE) {
        rc = SQLITE_IOERR_DELETE;
    } else if (!f->seen.exists) {
        rc = SQLITE_IOERR_DELETE_NOENT;
    } else {
        file_add(f, OP_REMOVE, 0, NULL, 0);
        if (sync)
            file_sync(f);
    }
    pthread_mutex_unlock(&v->mutex);
    return rc;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
    struct fault_vfs *v = (struct fault_vfs *)vfs;

    (void)flags;
    pthread_mutex_lock(&v->mutex);
    struct file *f = file_find(v, name);

    *ret = f && f->seen.exists;
    pthread_mutex_unlock(&v->mutex);
    return SQLITE_OK;
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int cap, char *ret)
{
    (void)vfs;
    (void)sqlite3_snprintf(cap, ret, "%s", name);
    return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *vfs, int n, char *ret)
{
    struct fault_vfs *v = (struct fault_vfs *)vfs;

    pthread_mutex_lock(&v->mutex);
    for (int i = 0; i < n; i++)
        ret[i] = (char)cox_rng_u64(&v->rng);
    pthread_mutex_unlock(&v->mutex);
    return n;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int vfs_time(sqlite3_vfs *vfs, sqlite3_int64 *ret_ms)
{
    (void)vfs;
    *ret_ms = 210866760000000 + cox_clock_wall_ms(); /* since the Julian epoch */
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int n, char *ret)
{
    (void)vfs;
    (void)n;
    (void)ret;
    return 0;
}

struct fault_vfs *fault_vfs_create(const char *name, uint64_t seed)
{
    struct fault_vfs *v = COX_NEW(struct fault_vfs);

    pthread_mutex_init(&v->mutex, NULL);
    pthread_cond_init(&v->cond, NULL);
    cox_rng_init(&v->rng, seed);
    v->vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = (int)sizeof(struct handle),
        .mxPathname = 512,
        .zName = cox_strdup(name),
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_pathname,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_time,
    };
    COX_ASSERT(sqlite3_vfs_register(&v->vfs, 0) == SQLITE_OK);
    return v;
}

void fault_vfs_destroy(struct fault_vfs *v)
{
    COX_ASSERT(v->n_open == 0);
    (void)sqlite3_vfs_unregister(&v->vfs);
    for (size_t i = 0; i < v->n_files; i++) {
        file_forget_ops(&v->files[i]);
        cox_buf_fini(&v->files[i].seen.bytes);
        cox_buf_fini(&v->files[i].safe.bytes);
        cox_free(v->files[i].name);
    }
    cox_free((char *)v->vfs.zName);
    pthread_cond_destroy(&v->cond);
    pthread_mutex_destroy(&v->mutex);
    cox_free(v);
}

void fault_vfs_plan(struct fault_vfs *v, enum fault_kind kind, uint64_t at)
{
    pthread_mutex_lock(&v->mutex);
    v->kind = kind;
    v->countdown = at;
    v->struck = false;
    pthread_mutex_unlock(&v->mutex);
}

bool fault_vfs_struck(struct fault_vfs *v)
{
    pthread_mutex_lock(&v->mutex);
    bool struck = v->struck;

    pthread_mutex_unlock(&v->mutex);
    return struck;
}

void fault_vfs_power_cycle(struct fault_vfs *v)
{
    static const uint32_t lost_ppm[] = { 1000000, 900000, 500000, 100000, 0 };
    uint32_t lost = lost_ppm[cox_rng_below(&v->rng, 5)];
    uint32_t torn = cox_rng_chance(&v->rng, 500000) ? 300000 : 0;

    COX_ASSERT(v->n_open == 0);
    for (size_t i = 0; i < v->n_files; i++)
        file_cut(&v->files[i], &v->rng, lost, torn);
    v->dark = false;
    v->kind = FAULT_NONE;
    v->struck = false;
}

void fault_vfs_hold_syncs(struct fault_vfs *v, bool hold)
{
    pthread_mutex_lock(&v->mutex);
    v->hold = hold;
    pthread_cond_broadcast(&v->cond);
    pthread_mutex_unlock(&v->mutex);
}

void fault_vfs_await_sync(struct fault_vfs *v)
{
    pthread_mutex_lock(&v->mutex);
    while (v->n_held == 0)
        pthread_cond_wait(&v->cond, &v->mutex);
    pthread_mutex_unlock(&v->mutex);
}
