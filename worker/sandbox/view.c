/* A file system of its own: an empty tmpfs into which parts of the host are bound, without what is secret on
 * it. Parts are cloned before anything covers them, get their flags while nobody can reach them, and are
 * moved into place. */
#include "enter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIECES_MAX (PLAN_READ_MAX + 64)
#define INODES_MAX "65536"

/* Programs and their libraries, and what of /etc they cannot do without: no passwords, keys or tokens. */
static const char *const system_dirs[] = { "/usr",   "/bin",   "/sbin",   "/lib",
                                           "/lib32", "/lib64", "/libx32", "/opt" };
static const char *const etc[] = {
    "/etc/alternatives",   "/etc/ca-certificates",
    "/etc/debian_version", "/etc/fonts",
    "/etc/ld.so.cache",    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",   "/etc/locale.alias",
    "/etc/localtime",      "/etc/magic",
    "/etc/mime.types",     "/etc/os-release",
    "/etc/perl",           "/etc/pki",
    "/etc/profile",        "/etc/protocols",
    "/etc/python3",        "/etc/services",
    "/etc/ssl/certs",      "/etc/ssl/openssl.cnf",
    "/etc/timezone",       "/etc/java",
};
static const char *const etc_of_network[] = { "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf",
                                              "/etc/gai.conf" };
static const char *const devices[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom" };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct piece {
    int tree; /* a mount that nobody sees yet */
    bool is_dir;
    const char *at;
};

struct view {
    struct piece pieces[PIECES_MAX];
    size_t n;
};

static void set_flags(int fd, const char *path, uint64_t flags)
{
    struct mount_attr attr = { .attr_set = flags };
    unsigned how = AT_RECURSIVE | (path[0] ? 0 : AT_EMPTY_PATH);

    if (mount_setattr(fd, path, how, &attr, sizeof(attr)) != 0)
        die("set the flags of a mount");
}

static bool is_absent(int err)
{
    return err == ENOENT || err == ENOTDIR || err == EACCES || err == ELOOP;
}

static void take(struct view *v, const char *path, uint64_t flags, bool must)
{
    struct piece *p = &v->pieces[v->n];
    struct stat st;

    if (v->n == PIECES_MAX) {
        errno = E2BIG;
        die(path);
    }
    p->tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (p->tree < 0 && !must && is_absent(errno))
        return;
    if (p->tree < 0 || fstat(p->tree, &st) != 0)
        die(path);
    set_flags(p->tree, "", flags);
    p->is_dir = S_ISDIR(st.st_mode);
    p->at = path;
    v->n++;
}

#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static void take_all(struct view *v, const struct plan *plan)
{
    struct stat st;

    for (size_t i = 0; i < COUNT(system_dirs); i++)
        if (lstat(system_dirs[i], &st) == 0 && S_ISDIR(st.st_mode))
            take(v, system_dirs[i], READ_ONLY, true);
    for (size_t i = 0; i < COUNT(etc); i++)
        take(v, etc[i], READ_ONLY, false);
    for (size_t i = 0; i < COUNT(etc_of_network) && plan->network; i++)
        take(v, etc_of_network[i], READ_ONLY, false);
    for (size_t i = 0; i < COUNT(devices); i++)
        take(v, devices[i], MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, true);
    for (size_t i = 0; i < plan->n_read; i++)
        take(v, plan->read[i], READ_ONLY, true);
    if (plan->work)
        take(v, plan->work, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, true);
}

/* ---------------------------------------------------------------- places; all paths are relative to the new
 * root */

static void make_parents(const char *path)
{
    char part[4096];

    for (const char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
        snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            die(path);
    }
}

static void make_file(const char *path, const char *text)
{
    int fd;

    make_parents(path);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        die(path);
    close(fd);
}

static void make_dir(const char *path, mode_t mode)
{
    make_parents(path);
    if ((mkdir(path, 0755) != 0 && errno != EEXIST) || chmod(path, mode) != 0)
        die(path);
}

static void make_link(const char *to, const char *path)
{
    if (symlink(to, path) != 0)
        die(path);
}

static void place(const struct piece *p)
{
    const char *at = p->at + strspn(p->at, "/");
    struct stat st;

    if (stat(at, &st) == 0)
        ; /* within another piece */
    else if (p->is_dir)
        make_dir(at, 0755);
    else
        make_file(at, "");
    if (move_mount(p->tree, "", AT_FDCWD, at, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        die(p->at);
    close(p->tree);
}

/* A directory of the root itself that stays writable when the root does not. */
static void make_writable(const char *path)
{
    int tree;

    make_dir(path, 01777);
    tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0 || move_mount(tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        die(path);
    close(tree);
}

static void make_links(void)
{
    static const char *const std[][2] = { { "/proc/self/fd", "dev/fd" },
                                          { "/proc/self/fd/0", "dev/stdin" },
                                          { "/proc/self/fd/1", "dev/stdout" },
                                          { "/proc/self/fd/2", "dev/stderr" } };
    char target[256];

    for (size_t i = 0; i < COUNT(std); i++)
        make_link(std[i][0], std[i][1]);
    for (size_t i = 0; i < COUNT(system_dirs); i++) { /* /bin -> usr/bin, as on the host */
        ssize_t len = readlink(system_dirs[i], target, sizeof(target) - 1);

        if (len <= 0)
            continue;
        target[len] = 0;
        make_link(target, system_dirs[i] + 1);
    }
}

static void make_texts(const struct plan *plan)
{
    char line[256];

    snprintf(line, sizeof(line),
             "root:x:0:0::/:/usr/sbin/nologin\nstep:x:%u:%u::/tmp:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/"
             "nologin\n",
             STEP_UID, STEP_GID);
    make_file("etc/passwd", line);
    snprintf(line, sizeof(line), "root:x:0:\nstep:x:%u:\nnogroup:x:65534:\n", STEP_GID);
    make_file("etc/group", line);
    make_file("etc/hostname", "sandbox\n");
    if (plan->network)
        return;
    make_file("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    make_file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
}

void view_enter(const struct plan *plan)
{
    static struct view v;
    char options[128];

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        die("make mounts private");
    take_all(&v, plan);
    snprintf(options, sizeof(options), "mode=0755,nr_inodes=" INODES_MAX ",size=%llu",
             (unsigned long long)plan->tmp_len_max);
    if (mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, options) != 0 || chdir("/tmp") != 0)
        die("mount a tmpfs");
    make_dir("proc", 0555);
    make_dir("dev", 0755);
    make_writable("tmp");
    make_writable("dev/shm");
    make_links();
    make_texts(plan);
    for (size_t i = 0; i < v.n; i++)
        place(&v.pieces[i]);
    if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL) != 0)
        die("mount /proc");
    if (syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
        die("change the root");
    struct mount_attr attr = { .attr_set = READ_ONLY };
    if (mount_setattr(AT_FDCWD, "/", 0, &attr, sizeof(attr)) != 0)
        die("make the root read-only");
}
