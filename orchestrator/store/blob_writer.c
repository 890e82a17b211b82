/* Writing a blob: a temporary file, hashed as it grows; synced; named; the directory synced. */
#include "backup.h"
#include "blobs.h"
#include "data_dir.h"
#include "internal.h"
#include "space.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_EVERY (16u << 20) /* bytes between two looks at the free space */

struct cox_blob_writer {
    struct cox_store *store;
    EVP_MD_CTX *digest;
    char *path;
    int fd;
    uint64_t size;
    uint64_t look_at; /* size */
    bool for_task;    /* the room that is kept free is for it */
};

static enum cox_err no(int e)
{
    return e == ENOSPC || e == EDQUOT ? COX_ERR_FULL : COX_ERR_IO;
}

static enum cox_err sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum cox_err err = COX_OK;

    if (fd < 0)
        return COX_ERR_IO;
    if (fsync(fd) != 0)
        err = COX_ERR_IO;
    (void)close(fd);
    return err;
}

/* Makes a directory in `parent` that lasts. Under the lock, over the sync as well: who finds it there may
 * rely on it. That is once a directory. */
static enum cox_err ensure_dir(struct store_blobs *b, const char *parent, const char *path)
{
    enum cox_err err = COX_OK;

    pthread_mutex_lock(&b->mutex);
    if (mkdir(path, 0700) == 0)
        err = sync_dir(parent);
    else if (errno != EEXIST)
        err = no(errno);
    if (err != COX_OK)
        (void)rmdir(path);
    pthread_mutex_unlock(&b->mutex);
    return err;
}

static enum cox_err ensure_tmp(struct store_blobs *b, const char *data_dir, char **ret_tmp)
{
    char *tmp = cox_asprintf("%s/tmp", b->dir);
    enum cox_err err = b->transient ? COX_OK : ensure_dir(b, data_dir, b->dir);

    if (err == COX_OK)
        err = ensure_dir(b, b->dir, tmp);
    if (err == COX_OK)
        *ret_tmp = tmp;
    else
        cox_free(tmp);
    return err;
}

static bool has_room(const struct cox_store *s, uint64_t len)
{
    uint64_t free_bytes = cox_store_free_bytes(s);

    return free_bytes >= len && free_bytes - len >= s->blobs.min_free;
}

static enum cox_err create(struct cox_store *s, bool for_task, struct cox_blob_writer **ret)
{
    struct store_blobs *b = &s->blobs;
    char *tmp;
    enum cox_err err = ensure_tmp(b, s->config.data_dir, &tmp);

    if (err != COX_OK)
        return err;
    char *path = cox_asprintf("%s/%llu", tmp, (unsigned long long)atomic_fetch_add(&b->n_made, 1));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    cox_free(tmp);
    if (fd < 0) {
        err = no(errno);
        cox_free(path);
        return err;
    }
    struct cox_blob_writer *w = COX_NEW(struct cox_blob_writer);

    *w = (struct cox_blob_writer){ .store = s,
                                   .digest = EVP_MD_CTX_new(),
                                   .path = path,
                                   .fd = fd,
                                   .look_at = LOOK_EVERY,
                                   .for_task = for_task };
    COX_ASSERT(w->digest && EVP_DigestInit_ex(w->digest, EVP_sha256(), NULL) == 1);
    *ret = w;
    return COX_OK;
}

enum cox_err cox_blob_create(struct cox_store *s, struct cox_blob_writer **ret)
{
    return has_room(s, 0) ? create(s, false, ret) : COX_ERR_FULL;
}

enum cox_err cox_blob_create_for_task(struct cox_store *s, struct cox_blob_writer **ret)
{
    return create(s, true, ret);
}

enum cox_err cox_blob_write(struct cox_blob_writer *w, struct cox_slice bytes)
{
    COX_ASSERT(EVP_DigestUpdate(w->digest, bytes.data, bytes.len) == 1);
    w->size += bytes.len;
    if (w->size >= w->look_at) {
        w->look_at = w->size + LOOK_EVERY;
        if (!w->for_task && !has_room(w->store, bytes.len))
            return COX_ERR_FULL;
    }
    while (bytes.len > 0) {
        ssize_t n = write(w->fd, bytes.data, bytes.len);

        if (n < 0 && errno != EINTR)
            return no(errno);
        if (n > 0)
            bytes = cox_slice(bytes.data + n, bytes.len - (size_t)n);
    }
    return COX_OK;
}

static void naming_begin(struct store_blobs *b, const struct cox_hash *hash)
{
    pthread_mutex_lock(&b->mutex);
    while (b->n_naming == STORE_BLOB_NAMING_MAX)
        pthread_cond_wait(&b->named, &b->mutex);
    b->naming[b->n_naming++] = *hash;
    pthread_mutex_unlock(&b->mutex);
}

static void naming_end(struct store_blobs *b, const struct cox_hash *hash)
{
    pthread_mutex_lock(&b->mutex);
    for (size_t i = 0; i < b->n_naming; i++) {
        if (memcmp(b->naming[i].b, hash->b, sizeof(hash->b)) == 0) {
            b->naming[i] = b->naming[--b->n_naming];
            break;
        }
    }
    pthread_cond_signal(&b->named);
    pthread_mutex_unlock(&b->mutex);
}

/* Gives the synced file its name. An equal one that is there is replaced: the same bytes, young again. */
static enum cox_err give_name(struct cox_blob_writer *w, const struct cox_space *space,
                              const struct cox_hash *hash)
{
    static const struct cox_space default_space;
    const struct cox_hash key = store_space_key(space ? space : &default_space, hash);
    struct store_blobs *b = &w->store->blobs;
    char *path = store_blob_path(b->dir, space, hash);
    char *dir = cox_strndup(path, (size_t)(strrchr(path, '/') - path));
    enum cox_err err = ensure_dir(b, b->dir, dir);
    struct stat st;

    if (err != COX_OK)
        goto out;
    naming_begin(b, &key);
    pthread_mutex_lock(&b->mutex);
    bool replaced = stat(path, &st) == 0;

    if (rename(w->path, path) != 0)
        err = no(errno);
    else
        store_backup_add(b, path);
    pthread_mutex_unlock(&b->mutex);
    if (err == COX_OK && !COX_PLANTED("blob-name-unsynced") && (err = sync_dir(dir)) != COX_OK && !replaced)
        (void)unlink(path); /* nobody may trust a name that a power cut takes back */
    naming_end(b, &key);
    if (err == COX_OK && !replaced)
        atomic_fetch_add(&b->bytes, w->size);
out:
    cox_free(dir);
    cox_free(path);
    return err;
}

static void writer_free(struct cox_blob_writer *w)
{
    if (w->fd >= 0)
        (void)close(w->fd);
    EVP_MD_CTX_free(w->digest);
    cox_free(w->path);
    cox_free(w);
}

enum cox_err cox_blob_done(struct cox_blob_writer *w, const struct cox_space *space,
                           const struct cox_hash *expected, struct cox_hash *ret_hash, uint64_t *ret_size)
{
    struct cox_hash hash;
    enum cox_err err = COX_OK;

    COX_ASSERT(EVP_DigestFinal_ex(w->digest, hash.b, NULL) == 1);
    if (expected && memcmp(expected->b, hash.b, sizeof(hash.b)) != 0)
        err = COX_ERR_INVALID;
    if (err == COX_OK && !COX_PLANTED("blob-unsynced") && fsync(w->fd) != 0)
        err = no(errno);
    if (err == COX_OK)
        err = give_name(w, space, &hash);
    if (err != COX_OK) {
        (void)unlink(w->path);
    } else {
        *ret_hash = hash;
        *ret_size = w->size;
    }
    writer_free(w);
    return err;
}

void cox_blob_abandon(struct cox_blob_writer *w)
{
    if (!w)
        return;
    (void)unlink(w->path);
    writer_free(w);
}
