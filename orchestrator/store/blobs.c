/* Reading, knowing and sweeping blobs; blob_writer.c writes them. */
#include "blobs.h"

#include "backup.h"
#include "data_dir.h"
#include "internal.h"
#include "space.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define HEX_LEN (2 * sizeof(struct cox_hash))
#define SWEEP_LOOK_EVERY 64 /* files between two looks at the clock */

static const char digits[] = "0123456789abcdef";

static const struct cox_space default_space;

static void put_hex(char *out, const struct cox_hash *hash)
{
    for (size_t i = 0; i < sizeof(hash->b); i++) {
        out[2 * i] = digits[hash->b[i] >> 4];
        out[2 * i + 1] = digits[hash->b[i] & 15];
    }
    out[2 * sizeof(hash->b)] = '\0';
}

char *store_blob_path(const char *dir, const struct cox_space *space, const struct cox_hash *hash)
{
    char key[HEX_LEN + 1], content[HEX_LEN + 1];
    struct cox_hash k = store_space_key(space ? space : &default_space, hash);

    put_hex(key, &k);
    put_hex(content, hash);
    return !space || store_space_is_default(space)
               ? cox_asprintf("%s/%.2s/%s", dir, key, key + 2)
               : cox_asprintf("%s/%.2s/%s-%s", dir, key, key + 2, content);
}

static bool get_hex(const char *hex, struct cox_hash *ret)
{
    for (size_t i = 0; i < HEX_LEN; i++) {
        const char *digit = hex[i] ? strchr(digits, hex[i]) : NULL;
        unsigned v = digit ? (unsigned)(digit - digits) : 0;

        if (!digit)
            return false;
        ret->b[i / 2] = (uint8_t)(i % 2 == 0 ? v << 4 : ret->b[i / 2] | v);
    }
    return true;
}

bool store_blob_parse(const char *sub_dir, const char *name, struct store_blob_name *ret)
{
    char *hex = cox_asprintf("%s%s", sub_dir, name);
    size_t len = strlen(hex);
    bool good = len >= HEX_LEN && get_hex(hex, &ret->key);

    ret->hash = ret->key;
    if (good && len > HEX_LEN)
        good = len == 2 * HEX_LEN + 1 && hex[HEX_LEN] == '-' && get_hex(hex + HEX_LEN + 1, &ret->hash);
    cox_free(hex);
    return good;
}

/* ---- opening ---- */

/* Calls `fn` for each entry of a directory that is there. */
static void each_entry(const char *path, void (*fn)(const char *path, const char *name))
{
    DIR *d = opendir(path);
    struct dirent *entry;

    while (d && (entry = readdir(d)))
        if (entry->d_name[0] != '.')
            fn(path, entry->d_name);
    if (d)
        (void)closedir(d);
}

static void remove_file(const char *path, const char *name)
{
    char *file = cox_asprintf("%s/%s", path, name);

    (void)unlink(file);
    cox_free(file);
}

static void remove_dir(const char *path, const char *name)
{
    char *dir = cox_asprintf("%s/%s", path, name);

    each_entry(dir, remove_file);
    (void)rmdir(dir);
    cox_free(dir);
}

/* A process that was killed may have named files and not synced that: a power cut would take back the names
 * that we are about to trust. */
static enum cox_err sync_names(const struct store_blobs *b, struct cox_buf *error)
{
    if (access(b->dir, F_OK) != 0)
        return COX_OK;
    enum cox_err err = store_data_dir_sync(b->dir, error);

    for (unsigned i = 0; i < STORE_BLOB_DIRS && err == COX_OK; i++) {
        char *path = cox_asprintf("%s/%02x", b->dir, i);

        if (access(path, F_OK) == 0)
            err = store_data_dir_sync(path, error);
        cox_free(path);
    }
    return err;
}

enum cox_err store_blobs_open(struct store_blobs *b, const char *data_dir, uint64_t min_free,
                              struct cox_buf *error)
{
    const char *tmp = getenv("TMPDIR");

    *b = (struct store_blobs){ .transient = !data_dir, .min_free = min_free };
    pthread_mutex_init(&b->mutex, NULL);
    pthread_cond_init(&b->named, NULL);
    if (data_dir) {
        b->dir = cox_asprintf("%s/blobs", data_dir);
        char *unfinished = cox_asprintf("%s/tmp", b->dir);

        each_entry(unfinished, remove_file);
        cox_free(unfinished);
        char *backup = cox_asprintf("%s/backup", data_dir);

        store_backup_remove(backup);
        cox_free(backup);
        return sync_names(b, error);
    }
    b->dir = cox_asprintf("%s/cox-blobs-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(b->dir)) {
        cox_buf_printf(error, "cannot make the directory %s: %s", b->dir, strerrordesc_np(errno));
        cox_free(b->dir);
        b->dir = NULL;
        return COX_ERR_IO;
    }
    return COX_OK;
}

void store_blobs_close(struct store_blobs *b)
{
    if (!b->dir)
        return;
    if (b->swept)
        (void)closedir(b->swept);
    if (b->linked)
        (void)closedir(b->linked);
    cox_free(b->backup_dir);
    if (b->transient) {
        each_entry(b->dir, remove_dir);
        (void)rmdir(b->dir);
    }
    pthread_cond_destroy(&b->named);
    pthread_mutex_destroy(&b->mutex);
    cox_free(b->dir);
    b->dir = NULL;
}

/* ---- reading ---- */

static enum cox_err open_file(const char *path, int *ret_fd)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int e = errno;

    if (fd < 0)
        return e == ENOENT ? COX_ERR_NOT_FOUND : COX_ERR_IO;
    *ret_fd = fd;
    return COX_OK;
}

/* Appends what there is, at most `len` bytes. */
static enum cox_err read_some(int fd, uint64_t offset, size_t len, struct cox_buf *out)
{
    size_t from = out->len;
    uint8_t *p = cox_buf_extend(out, len);
    size_t have = 0;
    ssize_t n = 1;

    while (have < len && n > 0) {
        n = pread(fd, p + have, len - have, (off_t)(offset + have));
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            have += (size_t)n;
    }
    out->len = n < 0 ? from : from + have;
    return n < 0 ? COX_ERR_IO : COX_OK;
}

enum cox_err store_blob_read_file(const char *path, uint64_t offset, size_t len, struct cox_buf *out)
{
    struct stat st;
    int fd;
    enum cox_err err = open_file(path, &fd);

    if (err != COX_OK)
        return err;
    if (fstat(fd, &st) != 0)
        err = COX_ERR_IO;
    else if (offset < (uint64_t)st.st_size)
        err = read_some(fd, offset, len < (uint64_t)st.st_size - offset ? len : (size_t)st.st_size - offset,
                        out);
    (void)close(fd);
    return err;
}

enum cox_err cox_blob_read(struct cox_store *s, const struct cox_space *space, const struct cox_hash *hash,
                           uint64_t offset, size_t len, struct cox_buf *out)
{
    char *path = store_blob_path(s->blobs.dir, space, hash);
    enum cox_err err = store_blob_read_file(path, offset, len, out);

    cox_free(path);
    return err;
}

enum cox_err store_blobs_load(struct store_blobs *b, const struct cox_space *space,
                              const struct cox_hash *hash, size_t len_max, struct cox_buf *ret)
{
    char *path = store_blob_path(b->dir, space, hash);
    struct cox_hash found;
    struct stat st;
    int fd;
    enum cox_err err = open_file(path, &fd);

    cox_free(path);

    if (err != COX_OK)
        return err;
    cox_buf_clear(ret);
    if (fstat(fd, &st) != 0)
        err = COX_ERR_IO;
    else if ((uint64_t)st.st_size > len_max)
        err = COX_ERR_FULL;
    else
        err = read_some(fd, 0, (size_t)st.st_size, ret);
    (void)close(fd);
    if (err != COX_OK)
        return err;
    COX_ASSERT(EVP_Digest(ret->data, ret->len, found.b, NULL, EVP_sha256(), NULL) == 1);
    if (memcmp(found.b, hash->b, sizeof(found.b)) == 0)
        return COX_OK;
    cox_buf_clear(ret);
    return COX_ERR_CORRUPT;
}

static bool being_named(const struct store_blobs *b, const struct cox_hash *key)
{
    for (size_t i = 0; i < b->n_naming; i++)
        if (memcmp(b->naming[i].b, key->b, sizeof(key->b)) == 0)
            return true;
    return false;
}

bool cox_blob_known(struct cox_store *s, const struct cox_space *space, const struct cox_hash *hash,
                    uint64_t *ret_size)
{
    struct store_blobs *b = &s->blobs;
    char *path = store_blob_path(b->dir, space, hash);
    struct cox_hash key = store_space_key(space ? space : &default_space, hash);
    struct stat st;

    pthread_mutex_lock(&b->mutex);
    bool known = !being_named(b, &key) && utimensat(AT_FDCWD, path, NULL, 0) == 0 && stat(path, &st) == 0;

    pthread_mutex_unlock(&b->mutex);
    cox_free(path);
    if (known)
        *ret_size = (uint64_t)st.st_size;
    return known;
}

uint64_t cox_store_free_bytes(const struct cox_store *s)
{
    struct statvfs st;

    if (s->blobs.transient || statvfs(s->config.data_dir, &st) != 0)
        return UINT64_MAX;
    return (uint64_t)st.f_bavail * st.f_frsize;
}

/* ---- sweeping ---- */

/* Looks and removes under the lock, so that who was told that it is there, finds it. */
static bool remove_old(struct store_blobs *b, int dir_fd, const char *name, int64_t before_ms)
{
    struct stat st;

    pthread_mutex_lock(&b->mutex);
    bool removed = fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                   (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000 < before_ms &&
                   unlinkat(dir_fd, name, 0) == 0;

    pthread_mutex_unlock(&b->mutex);
    return removed;
}

struct sweep {
    struct store_blobs *b;
    int64_t before_ms;
    enum cox_err (*owned)(void *user, const struct store_blob_name *name, bool *ret_owned);
    void *user;
    uint64_t *n_removed;
};

static enum cox_err sweep_file(struct sweep *w, const char *sub_dir, const char *name)
{
    struct store_blobs *b = w->b;
    struct store_blob_name parsed;
    struct stat st;
    bool owned = true;

    if (!store_blob_parse(sub_dir, name, &parsed) ||
        fstatat(dirfd(b->swept), name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return COX_OK;
    if ((int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000 < w->before_ms) {
        enum cox_err err = w->owned(w->user, &parsed, &owned);

        if (err != COX_OK)
            return err;
        if (!owned && remove_old(b, dirfd(b->swept), name, w->before_ms)) {
            ++*w->n_removed;
            return COX_OK;
        }
    }
    b->sweep_bytes += (uint64_t)st.st_size;
    return COX_OK;
}

static void sub_dir_name(unsigned at, char name[3])
{
    name[0] = digits[at >> 4];
    name[1] = digits[at & 15];
    name[2] = '\0';
}

/* Opens the next directory that is there; false at the end of the pass. */
static bool sweep_enter(struct store_blobs *b)
{
    while (!b->swept && b->sweep_at < STORE_BLOB_DIRS) {
        char name[3];

        sub_dir_name(b->sweep_at, name);
        char *path = cox_asprintf("%s/%s", b->dir, name);

        b->swept = opendir(path);
        cox_free(path);
        if (!b->swept)
            b->sweep_at++;
    }
    if (b->swept)
        return true;
    atomic_store(&b->bytes, b->sweep_bytes);
    b->sweep_bytes = 0;
    b->sweep_at = 0;
    return false;
}

enum cox_err store_blobs_sweep(struct store_blobs *b, int64_t before_ms, int64_t until_ns,
                               enum cox_err (*owned)(void *user, const struct store_blob_name *name,
                                                     bool *ret_owned),
                               void *user, bool *ret_done, uint64_t *ret_n_removed)
{
    struct sweep w = { b, before_ms, owned, user, ret_n_removed };
    enum cox_err err = COX_OK;
    char sub_dir[3];

    *ret_n_removed = 0;
    for (unsigned n = 0; err == COX_OK; n++) {
        *ret_done = !sweep_enter(b);
        if (*ret_done || (n % SWEEP_LOOK_EVERY == SWEEP_LOOK_EVERY - 1 && cox_clock_mono_ns() > until_ns))
            break;
        sub_dir_name(b->sweep_at, sub_dir);
        struct dirent *entry = readdir(b->swept);

        if (entry) {
            err = sweep_file(&w, sub_dir, entry->d_name);
        } else {
            (void)closedir(b->swept);
            b->swept = NULL;
            b->sweep_at++;
        }
    }
    return err;
}
