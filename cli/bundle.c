#include "bundle.h"

#include "cox/base/alloc.h"

#include "tar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/sha.h>

#define DEPTH_MAX 64
#define IGNORE_LEN_MAX (1u << 20)
#define LINK_LEN_MAX 100

static const char always_ignored[] = ".git\n.cox\n__pycache__\n";

struct pack {
    struct cox_buf tar;
    struct cox_buf ignore;
    struct cox_buf *error;
    unsigned n_files;
};

static enum cox_err fail(struct pack *p, const char *path, const char *what)
{
    cox_buf_printf(p->error, "%s: %s", path, what);
    return COX_ERR_INVALID;
}

static enum cox_err fail_errno(struct pack *p, const char *path)
{
    cox_buf_printf(p->error, "%s: %s", path, strerror(errno));
    return COX_ERR_IO;
}

/* Appends at most `max` bytes of a file; false, with errno, when it cannot be read. */
static bool append_file(struct cox_buf *out, int fd, size_t max)
{
    ssize_t n = 1;

    for (size_t start = out->len; n > 0 && out->len - start < max;) {
        cox_buf_reserve(out, 65536);
        n = read(fd, out->data + out->len, 65536 < max ? 65536 : max);
        out->len += n > 0 ? (size_t)n : 0;
    }
    return n >= 0;
}

static enum cox_err read_ignore(struct pack *p, int dir_fd, const char *dir)
{
    int fd = openat(dir_fd, ".coxignore", O_RDONLY | O_CLOEXEC);

    cox_buf_append_str(&p->ignore, always_ignored);
    if (fd < 0)
        return errno == ENOENT ? COX_OK : fail_errno(p, ".coxignore");
    bool ok = append_file(&p->ignore, fd, IGNORE_LEN_MAX);

    close(fd);
    return ok ? COX_OK : fail_errno(p, dir);
}

static enum cox_err add_file(struct pack *p, int parent_fd, const char *name, const char *path,
                             const struct stat *st)
{
    int fd = openat(parent_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t size = (size_t)st->st_size;

    if (fd < 0)
        return fail_errno(p, path);
    if (p->tar.len + size > CLI_BUNDLE_LEN_MAX) {
        close(fd);
        return fail(p, path, "the bundle grows beyond 256 MiB here; leave things out with .coxignore");
    }
    enum cox_err err = cli_tar_header(&p->tar, path, '0', size, (st->st_mode & 0111) != 0, NULL);
    size_t start = p->tar.len;

    if (err)
        err = fail(p, path, "the path is too long for a bundle");
    else if (!append_file(&p->tar, fd, size + 1))
        err = fail_errno(p, path);
    else if (p->tar.len - start != size)
        err = fail(p, path, "changed while it was read; try again");
    cli_tar_pad(&p->tar, p->tar.len - start);
    close(fd);
    return err;
}

/* A link that leads out of the bundle would mean something else on a worker. Steps up come first: after a
 * name they could be those of another link, and a worker takes none of them. */
static enum cox_err add_link(struct pack *p, int parent_fd, const char *name, const char *path)
{
    char target[LINK_LEN_MAX + 1];
    ssize_t len = readlinkat(parent_fd, name, target, sizeof(target));
    int depth = 0;

    if (len < 0)
        return fail_errno(p, path);
    if ((size_t)len > LINK_LEN_MAX)
        return fail(p, path, "the link's target is too long for a bundle");
    target[len] = '\0';
    for (const char *s = path; *s; s++)
        depth += *s == '/';
    bool named = false, up_after_name = false;

    for (const char *s = target; *s && depth >= 0; s += strcspn(s, "/"), s += *s == '/') {
        size_t seg = strcspn(s, "/");
        bool up = seg == 2 && s[0] == '.' && s[1] == '.';
        bool name_here = !up && seg > 0 && !(seg == 1 && *s == '.');
        depth += up ? -1 : name_here;
        up_after_name = up_after_name || (up && named);
        named = named || name_here;
    }
    if (depth >= 0 && up_after_name)
        return fail(p, path, "the link goes up after a name; expected its \"..\" to come first");
    if (*target == '/' || depth < 0)
        return fail(p, path,
                    "the link leads out of the bundle; expected a relative link to something inside");
    return cli_tar_header(&p->tar, path, '2', 0, true, target)
               ? fail(p, path, "the path is too long for a bundle")
               : COX_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in a folder, sorted; freed by free_names. */
static char **list(int fd, size_t *ret_n)
{
    DIR *dir = fdopendir(dup(fd));
    size_t cap = 0;
    char **names = NULL;

    *ret_n = 0;
    if (!dir)
        return NULL;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (*ret_n == cap) {
            cap = cap ? 2 * cap : 32;
            names = cox_realloc(names, cap, sizeof(*names));
        }
        names[(*ret_n)++] = cox_strdup(e->d_name);
    }
    closedir(dir);
    if (*ret_n > 0)
        qsort(names, *ret_n, sizeof(*names), by_name);
    return names;
}

static enum cox_err add_dir(struct pack *p, int fd, const char *prefix, unsigned depth);

static enum cox_err add_folder(struct pack *p, int parent_fd, const char *name, const char *path,
                               unsigned depth)
{
    char *prefix;
    int fd;

    if (depth == DEPTH_MAX)
        return fail(p, path, "folders are nested too deeply");
    if (cli_tar_header(&p->tar, path, '5', 0, true, NULL))
        return fail(p, path, "the path is too long for a bundle");
    fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fail_errno(p, path);
    prefix = cox_asprintf("%s/", path);
    enum cox_err err = add_dir(p, fd, prefix, depth + 1);

    cox_free(prefix);
    close(fd);
    return err;
}

static enum cox_err add_entry(struct pack *p, int fd, const char *name, const char *path, unsigned depth)
{
    struct stat st;

    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return fail_errno(p, path);
    if (cli_bundle_ignores(cox_buf_slice(&p->ignore), path, S_ISDIR(st.st_mode)))
        return COX_OK;
    if (p->n_files++ == CLI_BUNDLE_FILES_MAX)
        return fail(p, path, "the bundle has more than 100,000 files here; leave things out with .coxignore");
    if (S_ISREG(st.st_mode))
        return add_file(p, fd, name, path, &st);
    if (S_ISLNK(st.st_mode))
        return add_link(p, fd, name, path);
    if (S_ISDIR(st.st_mode))
        return add_folder(p, fd, name, path, depth);
    return fail(p, path, "is neither a file nor a folder nor a link; leave it out with .coxignore");
}

static enum cox_err add_dir(struct pack *p, int fd, const char *prefix, unsigned depth)
{
    size_t n;
    char **names = list(fd, &n);
    enum cox_err err = COX_OK;

    for (size_t i = 0; i < n; i++) {
        char *path = cox_asprintf("%s%s", prefix, names[i]);
        if (!err)
            err = add_entry(p, fd, names[i], path, depth);
        cox_free(path);
        cox_free(names[i]);
    }
    cox_free(names);
    return err;
}

enum cox_err cli_bundle_pack(const char *dir, struct cox_buf *out, struct cox_buf *error)
{
    struct pack p = { .error = error };
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return fail_errno(&p, dir);
    enum cox_err err = read_ignore(&p, fd, dir);

    if (!err)
        err = add_dir(&p, fd, "", 0);
    if (!err) {
        cli_tar_end(&p.tar);
        cli_gzip(out, cox_buf_slice(&p.tar));
    }
    close(fd);
    cox_buf_fini(&p.tar);
    cox_buf_fini(&p.ignore);
    return err;
}

void cli_hash(struct cox_slice bytes, char ret[CLI_HASH_LEN + 1])
{
    unsigned char digest[SHA256_DIGEST_LENGTH];

    SHA256(bytes.data, bytes.len, digest);
    memcpy(ret, "sha256:", 7);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++)
        snprintf(ret + 7 + 2 * i, 3, "%02x", digest[i]);
}
