#include "data_dir.h"

#include "cox/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static enum cox_err failed(struct cox_buf *error, const char *doing, const char *path)
{
    int e = errno;

    cox_buf_printf(error, "%s %s: %s", doing, path, strerrordesc_np(e) ? strerrordesc_np(e) : "?");
    return COX_ERR_IO;
}

enum cox_err store_data_dir_sync(const char *path, struct cox_buf *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum cox_err err = COX_OK;

    if (fd < 0)
        return failed(error, "cannot open the directory", path);
    if (fsync(fd) != 0)
        err = failed(error, "cannot sync the directory", path);
    (void)close(fd);
    return err;
}

static enum cox_err make(const char *path, struct cox_buf *error)
{
    if (mkdir(path, 0700) != 0)
        return errno == EEXIST ? COX_OK : failed(error, "cannot make the data directory", path);
    char *copy = cox_strdup(path);
    enum cox_err err = store_data_dir_sync(dirname(copy), error);

    cox_free(copy);
    return err;
}

static enum cox_err held(int fd, const char *path, struct cox_buf *error)
{
    char text[32] = "";
    ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

    cox_buf_printf(error, "another coxd (pid %ld) holds %s", len > 0 ? strtol(text, NULL, 10) : 0L, path);
    return COX_ERR_UNAVAILABLE;
}

enum cox_err store_data_dir_open(struct store_data_dir *d, const char *path, struct cox_buf *error)
{
    enum cox_err err = make(path, error);

    *d = (struct store_data_dir){ .lock_fd = -1 };
    if (err != COX_OK)
        return err;
    char *name = cox_asprintf("%s/lock", path);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0) {
        err = failed(error, "cannot open", name);
        goto out;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        err = errno == EWOULDBLOCK ? held(fd, path, error) : failed(error, "cannot lock", name);
        goto out;
    }
    /* On a full disk the pid cannot be written; the lock holds all the same. */
    if (ftruncate(fd, 0) == 0)
        (void)!dprintf(fd, "%ld\n", (long)getpid());
    d->lock_fd = fd;
    fd = -1;
out:
    if (fd >= 0)
        (void)close(fd);
    cox_free(name);
    return err;
}

void store_data_dir_close(struct store_data_dir *d)
{
    if (d->lock_fd >= 0)
        (void)close(d->lock_fd);
    d->lock_fd = -1;
}
