#include "unpack.h"

#include "cox/base/alloc.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_LEN (64u << 10)

/* ---------------------------------------------------------------- paths */

/* The next component of *path, which moves on; NULL at the end. The text is changed. */
static char *next_part(char **path)
{
    char *part;

    do
        part = strsep(path, "/");
    while (part && (part[0] == 0 || strcmp(part, ".") == 0));
    return part;
}

static bool is_plain(const char *path)
{
    size_t len = strlen(path);

    return len > 0 && len <= UNPACK_PATH_LEN_MAX && path[0] != '/';
}

/* Opens the folder that holds the last component of `copy`, which is changed; *ret_last is that component.
 *   make  folders that are missing are made
 * Returns -1 with errno; EINVAL for "..", and for a path without any component. */
static int open_parent(int dir_fd, char *copy, bool make, char **ret_last)
{
    int fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 3);
    char *rest = copy;
    char *part = next_part(&rest);

    for (char *next; fd >= 0 && part; part = next) {
        int sub;

        if (strcmp(part, "..") == 0)
            break;
        next = next_part(&rest);
        if (!next) {
            *ret_last = part;
            return fd;
        }
        if (make)
            (void)!mkdirat(fd, part, 0755);
        sub = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(fd);
        if (sub < 0)
            return -1;
        fd = sub;
    }
    if (fd >= 0)
        close(fd);
    errno = EINVAL;
    return -1;
}

int open_within(int dir_fd, const char *path)
{
    char *copy = cox_strdup(path);
    char *last;
    int parent = -1;
    int fd = -1;
    struct stat st;
    int why;

    errno = EINVAL;
    if (is_plain(path))
        parent = open_parent(dir_fd, copy, false, &last);
    if (parent >= 0) /* O_NONBLOCK: a fifo must not hold anybody up */
        fd = openat(parent, last, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    why = errno;
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        fd = -1;
        why = EINVAL;
    }
    if (parent >= 0)
        close(parent);
    cox_free(copy);
    errno = why;
    return fd;
}

/* Does a link at `path` to `target` stay inside? Steps up come first and are counted from real folders: ".."
 * after a name could be that of another link, and lead anywhere. */
static bool stays_inside(const char *path, const char *target)
{
    char *copy = cox_strdup(path);
    char *rest = copy;
    int depth = -1; /* the link's own name does not count */
    bool named = false;
    bool ok = is_plain(target);

    while (next_part(&rest))
        depth++;
    cox_free(copy);
    copy = rest = cox_strdup(target);
    for (char *part = next_part(&rest); ok && part; part = next_part(&rest)) {
        if (strcmp(part, "..") == 0)
            ok = !named && depth-- > 0;
        else
            named = true;
    }
    cox_free(copy);
    return ok;
}

/* ---------------------------------------------------------------- unpacking */

struct unpack {
    struct archive *archive;
    int dir_fd;
    uint64_t len;
    uint32_t n_files;
    struct cox_buf *why;
};

static enum cox_err refuse(struct unpack *u, const char *path, const char *what)
{
    cox_buf_printf(u->why, "bundle: %.200s: %s", path, what);
    return COX_ERR_INVALID;
}

static enum cox_err fail(struct unpack *u, const char *path)
{
    cox_buf_printf(u->why, "bundle: %.200s: %s", path, strerror(errno));
    return errno == ENOSPC || errno == EDQUOT || errno == EMFILE || errno == EIO ? COX_ERR_IO
                                                                                 : COX_ERR_INVALID;
}

static enum cox_err write_file(struct unpack *u, int fd, const char *path)
{
    static __thread uint8_t block[BLOCK_LEN];
    ssize_t n;

    while ((n = archive_read_data(u->archive, block, sizeof(block))) > 0) {
        u->len += (uint64_t)n;
        if (u->len > UNPACK_LEN_MAX)
            return refuse(u, path, "unpacked, there are more than 4 GiB");
        for (ssize_t at = 0; at < n;) {
            ssize_t written = write(fd, block + at, (size_t)(n - at));

            if (written < 0 && errno != EINTR)
                return fail(u, path);
            at += written > 0 ? written : 0;
        }
    }
    return n < 0 ? refuse(u, path, "its content is damaged") : COX_OK;
}

static enum cox_err make_file(struct unpack *u, struct archive_entry *entry, int parent, const char *last,
                              const char *path)
{
    mode_t mode = archive_entry_perm(entry) & 0111 ? 0555 : 0444;
    int fd = openat(parent, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    enum cox_err err;

    if (fd < 0)
        return fail(u, path);
    err = write_file(u, fd, path);
    if (err == COX_OK && fchmod(fd, mode) != 0)
        err = fail(u, path);
    close(fd);
    return err;
}

static enum cox_err make_entry(struct unpack *u, struct archive_entry *entry, int parent, const char *last,
                               const char *path)
{
    const char *target = archive_entry_symlink(entry);

    switch (archive_entry_filetype(entry)) {
    case AE_IFDIR:
        return mkdirat(parent, last, 0755) == 0 || errno == EEXIST ? COX_OK : fail(u, path);
    case AE_IFREG:
        return make_file(u, entry, parent, last, path);
    case AE_IFLNK:
        if (!target || !stays_inside(path, target))
            return refuse(u, path, "a link that leads out of the bundle");
        return symlinkat(target, parent, last) == 0 ? COX_OK : fail(u, path);
    default:
        return refuse(u, path, "neither a file, a folder nor a link");
    }
}

static bool is_root(const char *path)
{
    return path[strspn(path, "./")] == 0 && !strstr(path, "..");
}

static enum cox_err take_entry(struct unpack *u, struct archive_entry *entry)
{
    const char *path = archive_entry_pathname(entry);
    char *copy, *last;
    enum cox_err err;
    int parent;

    if (!path || !is_plain(path))
        return refuse(u, path ? path : "an entry", "expected a path within the bundle");
    if (is_root(path))
        return COX_OK;
    if (archive_entry_hardlink(entry))
        return refuse(u, path, "a hard link");
    if (++u->n_files > UNPACK_FILES_MAX)
        return refuse(u, path, "there are more than 100000 files");
    copy = cox_strdup(path);
    parent = open_parent(u->dir_fd, copy, true, &last);
    if (parent >= 0)
        err = make_entry(u, entry, parent, last, path);
    else
        err = errno == EINVAL ? refuse(u, path, "expected a path within the bundle") : fail(u, path);
    if (parent >= 0)
        close(parent);
    cox_free(copy);
    return err;
}

/* Folders lose their write bits last. What was made is not deep: paths have a length. */
static void make_read_only(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL)
        if (e->d_name[0] != '.' || (e->d_name[1] && strcmp(e->d_name, "..") != 0))
            if (e->d_type == DT_DIR || e->d_type == DT_UNKNOWN)
                make_read_only(dirfd(d), e->d_name);
    if (d) {
        (void)!fchmod(dirfd(d), 0555);
        closedir(d);
    } else if (fd >= 0) {
        close(fd);
    }
}

enum cox_err unpack_tar(const char *archive, const char *dir, uint64_t *ret_len, struct cox_buf *why)
{
    struct unpack u = { .archive = archive_read_new(), .why = why };
    struct archive_entry *entry;
    enum cox_err err = COX_OK;
    int r = ARCHIVE_OK;

    COX_ASSERT(u.archive);
    archive_read_support_filter_gzip(u.archive);
    archive_read_support_format_tar(u.archive);
    u.dir_fd = mkdir(dir, 0700) == 0 ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (u.dir_fd < 0) {
        cox_buf_printf(why, "bundle: cannot make its folder: %s", strerror(errno));
        err = COX_ERR_IO;
    } else if (archive_read_open_filename(u.archive, archive, BLOCK_LEN) != ARCHIVE_OK) {
        cox_buf_append_str(why, "bundle: expected a tar.gz archive");
        err = COX_ERR_INVALID;
    }
    while (err == COX_OK && (r = archive_read_next_header(u.archive, &entry)) == ARCHIVE_OK)
        err = take_entry(&u, entry);
    if (err == COX_OK && r != ARCHIVE_EOF) {
        cox_buf_printf(why, "bundle: damaged, or no tar.gz archive: %.200s", archive_error_string(u.archive));
        err = COX_ERR_INVALID;
    }
    archive_read_free(u.archive);
    if (u.dir_fd >= 0)
        close(u.dir_fd);
    if (err == COX_OK)
        make_read_only(AT_FDCWD, dir);
    *ret_len = u.len;
    return err;
}
