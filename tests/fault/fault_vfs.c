#include "fault_vfs.h"

#include "cox/base/alloc.h"
#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/base/rng.h"
#include "cox/base/units.h"

#include <pthread.h>
#include <sqlite3.h>
#include <string.h>
#include <time.h>

struct fault_vfs {
    sqlite3_vfs vfs; /* first: SQLite hands it back */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct cox_rng rng;
    struct fault_disk disk;
    const char *slow;
    uint64_t n_changes;
    fault_watch_fn watch;
    void *watch_user;
    size_t n_open;
    struct fault_plan plan;
    uint64_t countdown;
    bool struck;
    bool sync_failed[FAULT_FILES_MAX]; /* and this process was told so */
    unsigned n_retried;
    bool dark; /* the power is gone */
    bool hold;
    size_t n_held;
};

struct handle {
    sqlite3_file base; /* first */
    struct fault_vfs *v;
    struct fault_file *file;
    bool sync_names; /* with its first sync, as SQLite's Unix files do for new journals */
};

/* ---- faults ---- */

enum operation { READING, OPENING, WRITING, SYNCING, TRUNCATING, REMOVING };

static bool can_strike(enum fault_kind kind, enum operation what)
{
    switch (kind) {
    case FAULT_POWER_CUT:
        return what >= WRITING;
    case FAULT_NO_SPACE:
    case FAULT_SHORT_WRITE:
    case FAULT_WRITE:
        return what == WRITING;
    case FAULT_SYNC:
        return what == SYNCING;
    case FAULT_TRUNCATE:
        return what == TRUNCATING;
    case FAULT_REMOVE:
        return what == REMOVING;
    case FAULT_READ:
        return what == READING;
    case FAULT_OPEN:
        return what == OPENING;
    default:
        return false;
    }
}

/* Counts one operation and says what becomes of it. */
static enum fault_kind meet(struct fault_vfs *v, enum operation what, const char *name)
{
    enum fault_kind kind = v->plan.kind;

    if (kind == FAULT_NONE || (v->struck && !v->plan.lasting) ||
        (v->plan.file && !strstr(name, v->plan.file)))
        return FAULT_NONE;
    if (!can_strike(kind, what) && (what < WRITING || kind == FAULT_READ || kind == FAULT_OPEN))
        return FAULT_NONE;
    if (v->countdown > 1) {
        v->countdown--;
        return FAULT_NONE;
    }
    if (!can_strike(kind, what))
        return FAULT_NONE;
    v->struck = true;
    v->dark = kind == FAULT_POWER_CUT;
    return kind;
}

static void change(struct fault_vfs *v, struct fault_file *f, enum fault_op_kind kind, size_t at,
                   const void *data, size_t len)
{
    v->n_changes++;
    if (v->slow)
        pthread_cond_broadcast(&v->cond);
    if (v->watch)
        v->watch(v->watch_user, f->name, kind, at, cox_slice(data, len));
    fault_disk_change(&v->disk, f, kind, at, cox_slice(data, len));
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
    size_t want = (size_t)amount;

    if (h->v->dark || meet(h->v, READING, h->file->name) != FAULT_NONE)
        return unlock(h, SQLITE_IOERR_READ);
    size_t have = fault_file_read(h->file, (size_t)offset, to, want);

    memset((uint8_t *)to + have, 0, want - have);
    return unlock(h, have < want ? SQLITE_IOERR_SHORT_READ : SQLITE_OK);
}

static int io_write(sqlite3_file *base, const void *data, int amount, sqlite3_int64 offset)
{
    struct handle *h = lock(base);
    size_t len = (size_t)amount;

    if (h->v->dark)
        return unlock(h, SQLITE_IOERR_WRITE);
    enum fault_kind fault = meet(h->v, WRITING, h->file->name);

    if (fault == FAULT_NO_SPACE || fault == FAULT_WRITE)
        return unlock(h, fault == FAULT_WRITE ? SQLITE_IOERR_WRITE : SQLITE_FULL);
    if (fault == FAULT_SHORT_WRITE)
        len /= 2;
    change(h->v, h->file, FAULT_OP_WRITE, (size_t)offset, data, len);
    if (fault == FAULT_SHORT_WRITE)
        return unlock(h, SQLITE_FULL);
    return unlock(h, fault == FAULT_POWER_CUT ? SQLITE_IOERR_WRITE : SQLITE_OK);
}

static int io_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct handle *h = lock(base);

    if (h->v->dark || meet(h->v, TRUNCATING, h->file->name) != FAULT_NONE)
        return unlock(h, SQLITE_IOERR_TRUNCATE);
    change(h->v, h->file, FAULT_OP_TRUNCATE, (size_t)size, NULL, 0);
    return unlock(h, SQLITE_OK);
}

static void dawdle(struct fault_vfs *v, const struct fault_file *f)
{
    uint64_t n_changes = v->n_changes;
    struct timespec until;
    int rc = 0;

    if (!v->slow || !strstr(f->name, v->slow))
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    while (v->n_changes == n_changes && rc == 0)
        rc = pthread_cond_timedwait(&v->cond, &v->mutex, &until);
}

static int io_sync(sqlite3_file *base, int flags)
{
    struct handle *h = lock(base);
    bool *failed = &h->v->sync_failed[h->file - h->v->disk.files];

    (void)flags;
    h->v->n_retried += *failed && !h->v->dark;
    h->v->n_held++;
    pthread_cond_broadcast(&h->v->cond);
    while (h->v->hold)
        pthread_cond_wait(&h->v->cond, &h->v->mutex);
    h->v->n_held--;
    dawdle(h->v, h->file);
    enum fault_kind fault = h->v->dark ? FAULT_POWER_CUT : meet(h->v, SYNCING, h->file->name);

    if (fault == FAULT_NONE) {
        change(h->v, h->file, FAULT_OP_SYNC, 0, NULL, 0);
        if (h->sync_names)
            change(h->v, h->file, FAULT_OP_SYNC_NAMES, 0, NULL, 0);
        h->sync_names = false;
    } else if (fault == FAULT_SYNC) {
        fault_file_doom(h->file);
        *failed = true;
    }
    return unlock(h, fault == FAULT_NONE ? SQLITE_OK : SQLITE_IOERR_FSYNC);
}

static int io_size(sqlite3_file *base, sqlite3_int64 *ret)
{
    struct handle *h = lock(base);

    *ret = (sqlite3_int64)h->file->seen.len;
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
    struct fault_file *f = fault_disk_get(&v->disk, name);
    bool ok =
        !v->dark && (f->seen.exists || (flags & SQLITE_OPEN_CREATE)) && meet(v, OPENING, name) == FAULT_NONE;

    if (ok) {
        if (!f->seen.exists)
            change(v, f, FAULT_OP_MAKE, 0, NULL, 0);
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
    struct fault_file *f = fault_disk_get(&v->disk, name);

    if (v->dark || meet(v, REMOVING, name) != FAULT_NONE) {
        rc = SQLITE_IOERR_DELETE;
    } else if (!f->seen.exists) {
        rc = SQLITE_IOERR_DELETE_NOENT;
    } else {
        change(v, f, FAULT_OP_REMOVE, 0, NULL, 0);
        if (sync)
            change(v, f, FAULT_OP_SYNC, 0, NULL, 0);
    }
    pthread_mutex_unlock(&v->mutex);
    return rc;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
    struct fault_vfs *v = (struct fault_vfs *)vfs;

    (void)flags;
    pthread_mutex_lock(&v->mutex);
    struct fault_file *f = fault_disk_find(&v->disk, name);

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
    fault_disk_fini(&v->disk);
    cox_free((char *)v->vfs.zName);
    pthread_cond_destroy(&v->cond);
    pthread_mutex_destroy(&v->mutex);
    cox_free(v);
}

void fault_vfs_plan(struct fault_vfs *v, struct fault_plan plan)
{
    pthread_mutex_lock(&v->mutex);
    v->plan = plan;
    v->countdown = plan.at;
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

unsigned fault_vfs_retried_syncs(struct fault_vfs *v)
{
    return v->n_retried;
}

void fault_vfs_process_ended(struct fault_vfs *v)
{
    COX_ASSERT(v->n_open == 0);
    memset(v->sync_failed, 0, sizeof(v->sync_failed));
    v->n_retried = 0;
    v->plan.kind = FAULT_NONE;
    v->struck = false;
}

struct luck {
    struct cox_rng *rng;
    uint32_t lost_ppm, torn_ppm;
};

static enum fault_fate by_luck(void *user, const struct fault_disk *d, size_t file, size_t op)
{
    struct luck *luck = user;

    (void)d, (void)file, (void)op;
    if (cox_rng_chance(luck->rng, luck->lost_ppm))
        return FAULT_IS_LOST;
    return cox_rng_chance(luck->rng, luck->torn_ppm) ? FAULT_IS_TORN : FAULT_ARRIVES;
}

/* One cut loses nearly everything, another nearly nothing, a third tears at random. */
void fault_vfs_power_cycle(struct fault_vfs *v)
{
    static const uint32_t lost_ppm[] = { 1000000, 900000, 500000, 100000, 0 };
    struct luck luck = { &v->rng, lost_ppm[cox_rng_below(&v->rng, 5)], 0 };

    luck.torn_ppm = cox_rng_chance(&v->rng, 500000) ? 300000 : 0;
    fault_vfs_process_ended(v);
    fault_disk_cut(&v->disk, &v->disk, by_luck, &luck, &v->rng);
    v->dark = false;
}

void fault_vfs_slow(struct fault_vfs *v, const char *file)
{
    v->slow = file;
}

void fault_vfs_watch(struct fault_vfs *v, fault_watch_fn fn, void *user)
{
    v->watch = fn;
    v->watch_user = user;
}

struct fault_disk *fault_vfs_disk(struct fault_vfs *v)
{
    COX_ASSERT(v->n_open == 0);
    return &v->disk;
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
