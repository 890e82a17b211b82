/* Makes a folder of packs. Each path is made of names within the folder, opened one by one and never through
 * a link: whatever a pack says, nothing is written elsewhere. */
#include "tree.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/plant.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 50000000
#define NOBODY 65534u

struct restore {
    const struct snapshot_store *store;
    struct snapshot *s;
    struct pack_reader packs;
    EVP_MD_CTX *digest;
    struct cox_buf chunk;
    int root_fd;
    int parent_fd; /* of `parent`; -1: none is open */
    struct cox_buf parent;
    enum cox_code code;
    struct cox_buf *why;
};

static bool fail(struct restore *r, enum cox_code code, struct cox_slice path, const char *what)
{
    if (r->code != COX_CODE_NONE)
        return false;
    r->code = code;
    put_path(r->why, path);
    cox_buf_append_str(r->why, path.len > 0 ? ": " : "");
    cox_buf_append_str(r->why, what);
    return false;
}

static bool damaged(struct restore *r, const char *what)
{
    return fail(r, COX_CODE_INPUT_INVALID, cox_slice(NULL, 0), what);
}

static bool fail_errno(struct restore *r, struct cox_slice path)
{
    return fail(r, COX_CODE_UNAVAILABLE, path, strerror(errno));
}

/* ---------------------------------------------------------------- packs and the list */

static bool get_pack(struct restore *r, const struct cox_hash *hash, uint64_t *ret_len, struct cox_buf *root)
{
    struct stat st;
    int fd = -1;

    r->code = r->store->get(r->store->user, hash, &fd, r->why);
    if (r->code != COX_CODE_NONE)
        return false;
    *ret_len = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    return pack_open(&r->packs, fd, root) || damaged(r, "a pack of the snapshot is damaged");
}

static bool get_packs(struct restore *r, const struct cox_hash *last, struct cox_buf *root,
                      struct cox_slice *ret_hashes)
{
    struct snapshot *s = r->s;
    struct cox_reader in;
    struct pack_ref own = { .hash = *last };
    uint32_t n;

    if (!get_pack(r, last, &own.len, root))
        return false;
    in = cox_reader(cox_buf_slice(root));
    n = cox_get_u32(&in);
    if (n >= SNAPSHOT_PACKS_MAX)
        return damaged(r, "the snapshot has too many packs");
    for (uint32_t i = 0; i < n; i++) {
        struct cox_slice hash = cox_get_raw(&in, sizeof(own.hash.b));
        struct pack_ref *ref = &s->packs[s->n_packs];

        (void)cox_get_u64(&in);
        if (in.bad)
            return damaged(r, "the snapshot's root is damaged");
        memcpy(ref->hash.b, hash.data, hash.len);
        if (!get_pack(r, &ref->hash, &ref->len, NULL))
            return false;
        s->packs_len += ref->len;
        s->blobs[s->n_packs++] = ref->hash;
    }
    s->packs_len += own.len;
    s->blobs[s->n_packs] = own.hash;
    s->packs[s->n_packs++] = own;
    n = cox_get_u32(&in);
    *ret_hashes = cox_get_raw(&in, (size_t)n * sizeof(struct cox_hash));
    return !in.bad || damaged(r, "the snapshot's root is damaged");
}

static bool read_list(struct restore *r, struct cox_slice hashes)
{
    hash_of(r->digest, hashes, &r->s->list);
    for (size_t at = 0; at < hashes.len; at += sizeof(struct cox_hash)) {
        struct cox_hash hash;
        struct cox_reader in;

        memcpy(hash.b, hashes.data + at, sizeof(hash.b));
        if (!pack_get(&r->packs, r->digest, &hash, &r->chunk))
            return damaged(r, "a piece of the snapshot's list is damaged");
        in = cox_reader(cox_buf_slice(&r->chunk));
        while (cox_reader_left(&in) > 0)
            if (!entry_decode(&in, r->s))
                return damaged(r, "the snapshot's list is damaged");
    }
    return true;
}

static void learn(struct restore *r)
{
    struct cox_slice key;
    size_t it = 0;
    void *value;

    while (cox_mapb_next(&r->packs.places, &it, &key, &value)) {
        uint32_t opened = r->packs.items[(uintptr_t)value - 1].pack; /* the last of the list came first */

        cox_mapb_set(&r->s->known, key, (void *)(uintptr_t)(opened > 0 ? opened : r->s->n_packs));
    }
}

/* ---------------------------------------------------------------- files */

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* The folder that `path` is in; the one before it mostly is the same. -1 with errno. */
static int parent_of(struct restore *r, const char *path)
{
    size_t len = (size_t)(last_name(path) - path);
    char *copy, *rest, *part;

    if (len == 0)
        return r->root_fd;
    if (r->parent_fd >= 0 && r->parent.len == len && memcmp(r->parent.data, path, len) == 0)
        return r->parent_fd;
    if (r->parent_fd >= 0)
        close(r->parent_fd);
    cox_buf_clear(&r->parent);
    cox_buf_append(&r->parent, path, len);
    r->parent_fd = fcntl(r->root_fd, F_DUPFD_CLOEXEC, 3);
    copy = rest = cox_strndup(path, len);
    while (r->parent_fd >= 0 && (part = strsep(&rest, "/")) != NULL) {
        int flags = COX_PLANTED("restore-follows-links") ? 0 : O_NOFOLLOW, sub;

        if (*part == 0)
            continue;
        sub = openat(r->parent_fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
        close(r->parent_fd);
        r->parent_fd = sub;
    }
    cox_free(copy);
    return r->parent_fd;
}

static bool is_zero(struct cox_slice s)
{
    return s.len > 0 && s.data[0] == 0 && memcmp(s.data, s.data + 1, s.len - 1) == 0;
}

static bool write_chunk(struct restore *r, int fd, uint64_t at, struct cox_slice path)
{
    struct cox_slice left = cox_buf_slice(&r->chunk);

    if (is_zero(left))
        return true; /* a hole: its length comes at the end */
    while (left.len > 0) {
        ssize_t n = pwrite(fd, left.data, left.len, (off_t)at);

        if (n < 0 && errno != EINTR)
            return fail_errno(r, path);
        n = n > 0 ? n : 0;
        left = cox_slice(left.data + n, left.len - (size_t)n);
        at += (uint64_t)n;
    }
    return true;
}

static bool fill(struct restore *r, int fd, const struct entry *e, struct cox_slice path)
{
    uint64_t done = 0;
    bool hole = false;

    for (uint32_t i = 0; i < e->n; i++) {
        if (atomic_load(r->store->cancelled))
            return fail(r, COX_CODE_CANCELLED, cox_slice(NULL, 0), "cancelled");
        if (!pack_get(&r->packs, r->digest, &r->s->chunks[e->at + i], &r->chunk))
            return damaged(r, "a piece of a file is missing or damaged");
        if (!write_chunk(r, fd, done, path))
            return false;
        done += r->chunk.len;
        hole = is_zero(cox_buf_slice(&r->chunk));
    }
    if (done != e->size)
        return damaged(r, "a file is not as long as the list says");
    return !hole || ftruncate(fd, (off_t)e->size) == 0 || fail_errno(r, path);
}

static bool is_steps(const struct entry *e)
{
    return (e->flags & ENTRY_STEPS) != 0 && geteuid() == 0;
}

static bool finish_file(struct restore *r, int fd, struct entry *e, struct cox_slice path)
{
    struct timespec changed = { .tv_sec = e->changed_ns / 1000000000, .tv_nsec = e->changed_ns % 1000000000 };
    struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, changed };
    struct stat st;

    if (changed.tv_nsec < 0) {
        times[1].tv_nsec += 1000000000;
        times[1].tv_sec--;
    }
    if ((is_steps(e) && fchown(fd, NOBODY, NOBODY) != 0) || futimens(fd, times) != 0 || fstat(fd, &st) != 0)
        return fail_errno(r, path);
    if ((st.st_mode & 07777) != e->mode && (fchmod(fd, e->mode) != 0 || fstat(fd, &st) != 0)) /* a umask */
        return fail_errno(r, path);
    e->inode = st.st_ino;
    e->changed_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
    e->status_ns = st.st_ctim.tv_sec * INT64_C(1000000000) + st.st_ctim.tv_nsec;
    return true;
}

static bool make_file(struct restore *r, int parent, const char *name, struct entry *e, struct cox_slice path)
{
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, e->mode);
    bool ok;

    if (fd < 0)
        return fail_errno(r, path);
    ok = fill(r, fd, e, path) && finish_file(r, fd, e, path);
    close(fd);
    return ok;
}

static bool make_entry(struct restore *r, struct entry *e)
{
    struct cox_slice path = entry_path(r->s, e);
    char *text = cox_strndup((const char *)path.data, path.len);
    const char *name = last_name(text);
    int parent = parent_of(r, text);
    bool ok = false;

    if (parent < 0) {
        fail_errno(r, path);
    } else if (e->kind == ENTRY_FILE) {
        ok = make_file(r, parent, name, e, path);
    } else if (e->kind == ENTRY_FOLDER) {
        ok = mkdirat(parent, name, 0700) == 0 || fail_errno(r, path);
    } else {
        char *target = cox_strndup((const char *)r->s->names.data + e->at, e->n);

        ok = symlinkat(target, parent, name) == 0 || fail_errno(r, path);
        cox_free(target);
    }
    if (ok && e->kind != ENTRY_FILE && is_steps(e) &&
        fchownat(parent, name, NOBODY, NOBODY, AT_SYMLINK_NOFOLLOW) != 0)
        ok = fail_errno(r, path);
    cox_free(text);
    return ok;
}

/* Folders get their permissions last, the inner ones first: what is in one cannot be made in one that is
 * locked. */
static bool lock_folder(struct restore *r, const struct entry *e)
{
    struct cox_slice path = entry_path(r->s, e);
    char *text = cox_strndup((const char *)path.data, path.len);
    int parent = parent_of(r, text);
    int fd =
        parent < 0 ? -1 : openat(parent, last_name(text), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ok = (fd >= 0 && fchmod(fd, e->mode) == 0) || fail_errno(r, path);

    if (fd >= 0)
        close(fd);
    cox_free(text);
    return ok;
}

static bool make_all(struct restore *r)
{
    struct snapshot *s = r->s;
    struct timespec now;
    int64_t sure_before_ns;

    for (size_t i = 0; i < s->n; i++)
        if (!make_entry(r, &s->entries[i]))
            return false;
    for (size_t i = s->n; i-- > 0;)
        if (s->entries[i].kind == ENTRY_FOLDER && s->entries[i].mode != 0700 &&
            !lock_folder(r, &s->entries[i]))
            return false;
    clock_gettime(CLOCK_REALTIME, &now);
    sure_before_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec - TICK_NS;
    for (struct entry *e = s->entries; e < s->entries + s->n; e++)
        if (e->status_ns >= sure_before_ns)
            e->flags |= ENTRY_UNSURE;
    return true;
}

enum cox_code snapshot_restore(const char *dir, const struct snapshot_name *wanted,
                               const struct snapshot_store *store, struct snapshot **ret, struct cox_buf *why)
{
    struct restore r = { .store = store,
                         .s = COX_NEW(struct snapshot),
                         .digest = EVP_MD_CTX_new(),
                         .root_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                         .parent_fd = -1,
                         .why = why };
    struct cox_buf root = { 0 };
    struct cox_slice hashes;
    bool ok = r.root_fd >= 0 || fail_errno(&r, cox_slice(NULL, 0));

    COX_ASSERT(r.digest);
    ok = ok && get_packs(&r, &wanted->blob, &root, &hashes) && read_list(&r, hashes);
    if (ok) {
        tree_name(r.s);
        r.s->name.blob = wanted->blob;
        ok = memcmp(&r.s->name.tree, &wanted->tree, sizeof(wanted->tree)) == 0 ||
             damaged(&r, "the snapshot is of another tree");
    }
    ok = ok && make_all(&r);
    if (ok)
        learn(&r);
    if (r.root_fd >= 0)
        close(r.root_fd);
    if (r.parent_fd >= 0)
        close(r.parent_fd);
    pack_reader_fini(&r.packs);
    EVP_MD_CTX_free(r.digest);
    cox_buf_fini(&r.chunk);
    cox_buf_fini(&r.parent);
    cox_buf_fini(&root);
    if (!ok)
        snapshot_free(r.s);
    *ret = ok ? r.s : NULL;
    return ok ? COX_CODE_NONE : r.code;
}
