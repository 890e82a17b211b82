/* A backup, or a data directory that nobody uses, copied to a new place: synced, and without what is made
 * again. */
#include "data_dir.h"

#include "cox/base/alloc.h"
#include "cox/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_LEN (1u << 20)
/* One without the other is refused at a start: so nobody starts from half a copy. */
#define FIRST "state.db"
#define LAST "log.db"

static enum cox_err failed(struct cox_buf *error, const char *doing, const char *path)
{
    cox_buf_printf(error, "%s %s: %s", doing, path, strerrordesc_np(errno));
    return errno == ENOSPC ? COX_ERR_FULL : COX_ERR_IO;
}

static enum cox_err write_all(int fd, const uint8_t *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno != EINTR)
            return COX_ERR_IO;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return COX_OK;
}

static enum cox_err copy_bytes(int in, int out)
{
    uint8_t *chunk = cox_alloc(COPY_LEN);
    enum cox_err err = COX_OK;
    ssize_t n;

    do {
        n = read(in, chunk, COPY_LEN);
        if (n > 0)
            err = write_all(out, chunk, (size_t)n);
    } while (err == COX_OK && (n > 0 || (n < 0 && errno == EINTR)));
    if (err == COX_OK && (n < 0 || fsync(out) != 0))
        err = COX_ERR_IO;
    int e = errno;

    cox_free(chunk);
    errno = e;
    return err;
}

static enum cox_err copy_file(const char *from, const char *to, struct cox_buf *error)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = -1;
    enum cox_err err = COX_OK;

    if (in < 0)
        return failed(error, "cannot read", from);
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0 || copy_bytes(in, out) != COX_OK)
        err = failed(error, "cannot copy to", to);
    if (out >= 0)
        (void)close(out);
    (void)close(in);
    return err;
}

/* Files of one directory, and of those below it. */
static enum cox_err copy_dir(const char *from, const char *to, unsigned depth, struct cox_buf *error)
{
    static const char *const skipped[] = { "lock", "tmp", "backup", "index.db", "index.db-wal", FIRST, LAST };
    DIR *d = opendir(from);
    struct dirent *entry;
    enum cox_err err = COX_OK;

    if (!d)
        return failed(error, "cannot read", from);
    while (err == COX_OK && (entry = readdir(d))) {
        char *in = cox_asprintf("%s/%s", from, entry->d_name);
        char *out = cox_asprintf("%s/%s", to, entry->d_name);
        bool skip = entry->d_name[0] == '.';
        struct stat st;

        for (size_t i = 0; i < sizeof(skipped) / sizeof(skipped[0]); i++)
            skip = skip || strcmp(entry->d_name, skipped[i]) == 0;
        if (!skip && lstat(in, &st) != 0)
            err = failed(error, "cannot read", in);
        else if (!skip && S_ISREG(st.st_mode))
            err = copy_file(in, out, error);
        else if (!skip && S_ISDIR(st.st_mode) && depth > 0)
            err = mkdir(out, 0700) == 0 ? copy_dir(in, out, depth - 1, error)
                                        : failed(error, "cannot make", out);
        cox_free(in);
        cox_free(out);
    }
    (void)closedir(d);
    return err == COX_OK ? store_data_dir_sync(to, error) : err;
}

static enum cox_err copy_one(const char *from_dir, const char *to_dir, const char *name,
                             struct cox_buf *error)
{
    char *in = cox_asprintf("%s/%s", from_dir, name), *out = cox_asprintf("%s/%s", to_dir, name);
    enum cox_err err = copy_file(in, out, error);

    cox_free(in);
    cox_free(out);
    return err;
}

static enum cox_err copy_all(const char *from_dir, const char *to_dir, struct cox_buf *error)
{
    char *copy = cox_strdup(to_dir);
    enum cox_err err = copy_one(from_dir, to_dir, FIRST, error);

    if (err == COX_OK)
        err = copy_dir(from_dir, to_dir, 2, error);
    if (err == COX_OK)
        err = copy_one(from_dir, to_dir, LAST, error);
    if (err == COX_OK)
        err = store_data_dir_sync(to_dir, error);
    if (err == COX_OK)
        err = store_data_dir_sync(dirname(copy), error);
    cox_free(copy);
    return err;
}

static bool is_empty(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    bool empty = d;

    while (d && (entry = readdir(d)))
        empty = empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
    if (d)
        (void)closedir(d);
    return empty;
}

static bool has_file(const char *dir, const char *name)
{
    char *path = cox_asprintf("%s/%s", dir, name);
    bool has = access(path, R_OK) == 0;

    cox_free(path);
    return has;
}

enum cox_err cox_store_restore(const char *from_dir, const char *to_dir, struct cox_buf *error)
{
    struct store_data_dir held = { .lock_fd = -1 };
    enum cox_err err;

    if (!has_file(from_dir, FIRST) || !has_file(from_dir, LAST)) {
        cox_buf_printf(error, "%s: not a backup: expected state.db and log.db in it", from_dir);
        return COX_ERR_INVALID;
    }
    if (access(to_dir, F_OK) == 0 && !is_empty(to_dir)) {
        cox_buf_printf(error, "%s: not empty; name a directory that is new or empty", to_dir);
        return COX_ERR_INVALID;
    }
    /* Of a data directory the lock says whether a coxd uses it; making one in a backup would change it. */
    if (has_file(from_dir, "lock") && (err = store_data_dir_open(&held, from_dir, error)) != COX_OK)
        return err;
    if (mkdir(to_dir, 0700) != 0 && errno != EEXIST)
        err = failed(error, "cannot make", to_dir);
    else
        err = copy_all(from_dir, to_dir, error);
    store_data_dir_close(&held);
    return err;
}
