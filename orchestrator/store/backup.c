#include "backup.h"

#include "data_dir.h"
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_PAGES 256  /* of 16 KiB, a slice */
#define LINK_NS 5000000 /* of one slice */
#define LINK_LOOK_EVERY 64

/* ---- a database ---- */

static enum cox_err copy_begin(struct store_copy *c, struct store_db *from, const char *to_dir)
{
    const char *name = strrchr(from->path, '/');
    char *path = cox_asprintf("%s/%s", to_dir, name ? name + 1 : from->path);
    int rc =
        sqlite3_open_v2(path, &c->to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);

    cox_free(path);
    /* Nobody reads it before it is whole, so nothing of it needs to survive. */
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c->to, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        c->backup = sqlite3_backup_init(c->to, "main", from->sql, "main");
    return c->backup ? COX_OK : COX_ERR_IO;
}

void store_copy_abandon(struct store_copy *c)
{
    (void)sqlite3_backup_finish(c->backup);
    (void)sqlite3_close(c->to);
    *c = (struct store_copy){ 0 };
}

bool store_backup_has_room(const struct cox_store *s)
{
    return cox_store_free_bytes(s) >= s->blobs.min_free;
}

enum cox_err store_copy_step(struct store_copy *c, struct store_db *from, const char *to_dir, bool *ret_done)
{
    enum cox_err err = c->to ? COX_OK : copy_begin(c, from, to_dir);
    int rc = err == COX_OK ? sqlite3_backup_step(c->backup, COPY_PAGES) : SQLITE_ERROR;

    *ret_done = rc == SQLITE_DONE;
    if (rc == SQLITE_OK)
        return COX_OK;
    if (sqlite3_backup_finish(c->backup) != SQLITE_OK || !*ret_done)
        err = rc == SQLITE_FULL ? COX_ERR_FULL : COX_ERR_IO;
    c->backup = NULL;
    if (sqlite3_close(c->to) != SQLITE_OK)
        err = COX_ERR_IO;
    c->to = NULL;
    return err;
}

/* ---- the directory ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

void store_backup_remove(const char *dir)
{
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void cox_store_backup_remove(struct cox_store *s)
{
    char *dir = cox_asprintf("%s/backup", s->config.data_dir);

    store_backup_remove(dir);
    cox_free(dir);
}

enum cox_err store_backup_begin(struct store_blobs *b, const char *dir)
{
    char *blobs = cox_asprintf("%s/blobs", dir);
    enum cox_err err = COX_OK;

    store_backup_remove(dir);
    if (b->linked) /* of one that failed */
        (void)closedir(b->linked);
    b->linked = NULL;
    if (mkdir(dir, 0700) != 0 || mkdir(blobs, 0700) != 0)
        err = errno == ENOSPC ? COX_ERR_FULL : COX_ERR_IO;
    if (err == COX_OK) {
        pthread_mutex_lock(&b->mutex);
        b->backup_dir = blobs;
        b->backup_err = COX_OK;
        pthread_mutex_unlock(&b->mutex);
        b->backup_at = 0;
        return COX_OK;
    }
    cox_free(blobs);
    return err;
}

void store_backup_end(struct store_blobs *b)
{
    pthread_mutex_lock(&b->mutex);
    cox_free(b->backup_dir);
    b->backup_dir = NULL;
    pthread_mutex_unlock(&b->mutex);
}

/* ---- blobs ---- */

/* `from` is below b->dir: "DIR/ab/NAME". */
static enum cox_err link_blob(struct store_blobs *b, const char *from)
{
    char *to = cox_asprintf("%s%s", b->backup_dir, from + strlen(b->dir));
    char *slash = strrchr(to, '/');
    int rc;

    *slash = '\0';
    (void)mkdir(to, 0700);
    *slash = '/';
    rc = link(from, to);
    int e = rc == 0 || errno == EEXIST ? 0 : errno;

    cox_free(to);
    return e == 0 ? COX_OK : e == ENOSPC ? COX_ERR_FULL : COX_ERR_IO;
}

void store_backup_add(struct store_blobs *b, const char *path)
{
    if (b->backup_dir && b->backup_err == COX_OK)
        b->backup_err = link_blob(b, path);
}

static bool link_enter(struct store_blobs *b, char sub_dir[3])
{
    while (b->backup_at < STORE_BLOB_DIRS) {
        snprintf(sub_dir, 3, "%02x", b->backup_at & 0xffu);
        if (b->linked)
            return true;
        char *path = cox_asprintf("%s/%s", b->dir, sub_dir);

        b->linked = opendir(path);
        cox_free(path);
        if (!b->linked)
            b->backup_at++;
    }
    return false;
}

enum cox_err store_backup_link(struct store_blobs *b, bool *ret_done)
{
    int64_t until_ns = cox_clock_mono_ns() + LINK_NS;
    enum cox_err err = COX_OK;
    char sub_dir[3];

    *ret_done = false;
    for (unsigned n = 0; err == COX_OK && (n % LINK_LOOK_EVERY != 0 || cox_clock_mono_ns() < until_ns); n++) {
        struct store_blob_name name;

        if (!link_enter(b, sub_dir)) {
            *ret_done = true;
            pthread_mutex_lock(&b->mutex);
            err = b->backup_err;
            pthread_mutex_unlock(&b->mutex);
            return err;
        }
        struct dirent *entry = readdir(b->linked);

        if (!entry) {
            (void)closedir(b->linked);
            b->linked = NULL;
            b->backup_at++;
        } else if (store_blob_parse(sub_dir, entry->d_name, &name)) {
            char *path = cox_asprintf("%s/%s/%s", b->dir, sub_dir, entry->d_name);

            err = link_blob(b, path);
            cox_free(path);
        }
    }
    return err;
}
