/* Reads a folder that somebody may be writing to, and puts what the store does not have. */
#include "tree.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/plant.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 50000000 /* times of files are those of the kernel's last tick, which may be so long ago */
#define NOBODY 65534u    /* whom sandboxed steps are when the worker is root */

struct take {
    const struct snapshot_store *store;
    struct snapshot *last; /* NULL: nothing is known */
    struct snapshot *s;
    size_t at_last; /* its first entry that the walk has not passed */
    int64_t sure_before_ns;
    struct pack_writer pack;
    struct cox_mapb *known; /* chunks of packs that go on; NULL: none do */
    struct cox_mapb fewer;  /* those, when not all do */
    struct cox_mapb fresh;  /* chunks of packs of this one -> which pack, from 1 */
    EVP_MD_CTX *digest;
    uint8_t *chunk;
    uint64_t size;
    struct cox_buf path;
    enum cox_code code;
    struct cox_buf *why;
};

static bool fail(struct take *t, enum cox_code code, const char *what)
{
    if (t->code != COX_CODE_NONE)
        return false;
    t->code = code;
    if (t->path.len > 0) {
        put_path(t->why, cox_buf_slice(&t->path));
        cox_buf_append_str(t->why, ": ");
    }
    cox_buf_append_str(t->why, what);
    return false;
}

static bool fail_errno(struct take *t)
{
    return fail(t, COX_CODE_UNAVAILABLE, strerror(errno));
}

static bool fail_pack(struct take *t)
{
    cox_buf_clear(&t->path);
    return fail(t, COX_CODE_UNAVAILABLE, "the worker's disk is not writable, or full");
}

static bool goes_on(struct take *t)
{
    return !atomic_load(t->store->cancelled) || fail(t, COX_CODE_CANCELLED, "cancelled");
}

static int64_t ns_of(struct timespec t)
{
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---------------------------------------------------------------- opening what has no permissions */

struct opened {
    int fd;
    bool unlocked; /* its mode was `back`, and is again when a file has been opened; a folder's is given back
                    */
    mode_t back;
};

/* Of its owner's own: a file of mode 000 is part of the tree, too. It is opened by what it is, not by its
 * name, behind which there may be something else by now. */
static void unlock(int at, const char *name, int flags, mode_t type, mode_t need, struct opened *ret)
{
    int path_fd = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char proc[32];
    struct stat st;

    if (path_fd < 0)
        return;
    snprintf(proc, sizeof(proc), "/proc/self/fd/%d", path_fd);
    if (fstat(path_fd, &st) != 0 || (st.st_mode & S_IFMT) != type)
        errno = EINVAL;
    else if (chmod(proc, (st.st_mode & 07777) | need) == 0) {
        ret->fd = open(proc, flags);
        ret->unlocked = true;
        ret->back = st.st_mode & 07777;
        if (ret->fd < 0 || type == S_IFREG)
            (void)!chmod(proc, ret->back);
    }
    close(path_fd);
}

static struct opened open_anyway(int at, const char *name, mode_t type, mode_t need)
{
    int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (type == S_IFDIR ? O_DIRECTORY : 0);
    struct opened o = { .fd = openat(at, name, flags | O_NOFOLLOW) };
    struct stat st;

    if (o.fd >= 0 && type == S_IFDIR && fstat(o.fd, &st) == 0 && (st.st_mode & need) != need) {
        close(o.fd); /* it can be listed, and nothing in it be looked at */
        o.fd = -1;
        errno = EACCES;
    }
    if (o.fd < 0 && errno == EACCES)
        unlock(at, name, flags, type, need, &o);
    return o;
}

/* ---------------------------------------------------------------- files */

static bool end_pack(struct take *t, struct cox_slice root)
{
    struct snapshot *s = t->s;
    struct pack_ref *ref = &s->packs[s->n_packs];

    if (s->n_packs == SNAPSHOT_PACKS_MAX)
        return fail(t, COX_CODE_RESOURCE_EXHAUSTED, "too many packs");
    if (!pack_end(&t->pack, root))
        return fail_pack(t);
    cox_buf_clear(&t->path);
    t->code = t->store->put(t->store->user, t->pack.fd, &ref->hash, &ref->len, t->why);
    if (t->code != COX_CODE_NONE)
        return false;
    s->blobs[s->n_packs++] = ref->hash;
    s->packs_len += ref->len;
    pack_fini(&t->pack);
    return true;
}

static bool is_known(const struct take *t, const struct cox_hash *hash)
{
    return t->known && cox_mapb_get(t->known, cox_slice(hash->b, sizeof(hash->b))) != NULL;
}

static bool keep_chunk(struct take *t, const struct cox_hash *hash, struct cox_slice chunk)
{
    struct cox_slice key = cox_slice(hash->b, sizeof(hash->b));

    if (is_known(t, hash) || cox_mapb_get(&t->fresh, key))
        return true;
    if (!pack_put(&t->pack, t->store, hash, chunk))
        return fail_pack(t);
    cox_mapb_set(&t->fresh, key, (void *)(uintptr_t)(t->s->n_packs + 1));
    return t->pack.len < SNAPSHOT_PACK_LEN_MAX || end_pack(t, cox_slice(NULL, 0));
}

/* As much as it had when it was opened: one that only grows must come to an end. */
static bool read_file(struct take *t, int fd, uint64_t len, struct entry *e)
{
    struct snapshot *s = t->s;
    size_t at = s->n_chunks;
    uint64_t done = 0;

    while (done < len) {
        size_t want = len - done < SNAPSHOT_CHUNK_LEN ? (size_t)(len - done) : SNAPSHOT_CHUNK_LEN, got = 0;
        struct cox_hash hash;
        ssize_t n = 1;

        while (got < want && n > 0) {
            n = pread(fd, t->chunk + got, want - got, (off_t)(done + got));
            got += n > 0 ? (size_t)n : 0;
            if (n < 0 && errno == EINTR)
                n = 1;
        }
        if (n < 0)
            return fail_errno(t);
        if (got == 0)
            break;
        hash_of(t->digest, cox_slice(t->chunk, got), &hash);
        tree_add_chunk(s, &hash);
        if (!keep_chunk(t, &hash, cox_slice(t->chunk, got)) || !goes_on(t))
            return false;
        done += got;
        if (got < want) /* it was cut meanwhile */
            break;
    }
    e->size = done;
    e->at = (uint32_t)at;
    e->n = (uint32_t)(s->n_chunks - at);
    return true;
}

static void note_moving(struct take *t, struct entry *e)
{
    e->flags |= ENTRY_UNSURE;
    if (t->s->n_moving++ == 0)
        put_path(&t->s->first_moving, cox_buf_slice(&t->path));
}

static bool has_chunks(const struct take *t, const struct entry *was)
{
    for (uint32_t i = 0; i < was->n; i++)
        if (!is_known(t, &t->last->chunks[was->at + i]))
            return false;
    return true;
}

/* Its place in what was known, when nothing says that it has changed. */
static const struct entry *unchanged(struct take *t, const struct stat *st)
{
    struct snapshot *last = t->last;

    for (; last && t->at_last < last->n; t->at_last++) {
        const struct entry *was = &last->entries[t->at_last];
        int order = path_cmp(entry_path(last, was), cox_buf_slice(&t->path));

        if (order > 0)
            break;
        if (order < 0)
            continue;
        return was->kind == ENTRY_FILE &&
                       (!(was->flags & ENTRY_UNSURE) || COX_PLANTED("racy-file-trusted")) &&
                       has_chunks(t, was) && was->inode == st->st_ino && was->size == (uint64_t)st->st_size &&
                       was->changed_ns == ns_of(st->st_mtim) && was->status_ns == ns_of(st->st_ctim)
                   ? was
                   : NULL;
    }
    return NULL;
}

static bool count(struct take *t, uint64_t len)
{
    t->size += len;
    if (t->s->n >= SNAPSHOT_FILES_MAX)
        return fail(t, COX_CODE_RESOURCE_EXHAUSTED, "there are more than 200000 files");
    if (t->size > SNAPSHOT_LEN_MAX)
        return fail(t, COX_CODE_RESOURCE_EXHAUSTED, "there are more than 4 GiB in files");
    return goes_on(t);
}

static void take_stat(struct take *t, struct entry *e, const struct stat *st)
{
    e->mode = st->st_mode & 0777;
    e->inode = st->st_ino;
    e->changed_ns = ns_of(st->st_mtim);
    e->status_ns = ns_of(st->st_ctim);
    if (geteuid() == 0 && st->st_uid == NOBODY)
        e->flags |= ENTRY_STEPS;
    if (e->status_ns >= t->sure_before_ns)
        e->flags |= ENTRY_UNSURE;
}

static bool take_known(struct take *t, const struct entry *was, const struct stat *st)
{
    struct entry *e = tree_add(t->s, cox_buf_slice(&t->path));

    e->kind = ENTRY_FILE;
    take_stat(t, e, st);
    e->size = was->size;
    e->at = (uint32_t)t->s->n_chunks;
    e->n = was->n;
    for (uint32_t i = 0; i < was->n; i++)
        tree_add_chunk(t->s, &t->last->chunks[was->at + i]);
    return true;
}

static bool take_file(struct take *t, int at, const char *name, const struct stat *seen)
{
    const struct entry *was = unchanged(t, seen);
    struct opened o;
    struct entry *e;
    struct stat st, after;
    bool ok;

    if (!count(t, (uint64_t)seen->st_size))
        return false;
    if (was)
        return take_known(t, was, seen);
    o = open_anyway(at, name, S_IFREG, S_IRUSR);
    if (o.fd < 0 && errno == ENOENT)
        return true; /* gone meanwhile */
    if (o.fd < 0)
        return fail_errno(t);
    ok = fstat(o.fd, &st) == 0 || fail_errno(t);
    if (ok && !S_ISREG(st.st_mode)) { /* another thing by now; the next snapshot says which */
        close(o.fd);
        return true;
    }
    e = tree_add(t->s, cox_buf_slice(&t->path));
    e->kind = ENTRY_FILE;
    ok = ok && read_file(t, o.fd, (uint64_t)st.st_size, e);
    if (ok) {
        take_stat(t, e, &st);
        if (o.unlocked)
            e->mode = o.back & 0777;
        if (fstat(o.fd, &after) != 0 || ns_of(after.st_mtim) != e->changed_ns ||
            (uint64_t)after.st_size != e->size)
            note_moving(t, e);
    }
    close(o.fd);
    return ok;
}

static bool take_link(struct take *t, int at, const char *name, const struct stat *st)
{
    char target[4096];
    ssize_t n = readlinkat(at, name, target, sizeof(target));
    struct entry *e;

    if (n < 0 && (errno == ENOENT || errno == EINVAL))
        return true;
    if (n < 0)
        return fail_errno(t);
    if (!count(t, 0))
        return false;
    e = tree_add(t->s, cox_buf_slice(&t->path));
    e->kind = ENTRY_LINK;
    take_stat(t, e, st);
    e->mode = 0777;
    e->at = (uint32_t)t->s->names.len;
    e->n = (uint32_t)n;
    cox_buf_append(&t->s->names, target, (size_t)n);
    return true;
}

/* ---------------------------------------------------------------- folders */

struct names {
    char **items;
    size_t n, cap;
};

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool list(struct take *t, DIR *d, struct names *names)
{
    struct dirent *e;

    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (t->s->n + names->n >= SNAPSHOT_FILES_MAX)
            return fail(t, COX_CODE_RESOURCE_EXHAUSTED, "there are more than 200000 files");
        if (names->n == names->cap) {
            names->cap = names->cap ? names->cap * 2 : 16;
            names->items = cox_realloc(names->items, names->cap, sizeof(*names->items));
        }
        names->items[names->n++] = cox_strdup(e->d_name);
    }
    if (names->n > 1)
        qsort(names->items, names->n, sizeof(*names->items), by_bytes);
    return true;
}

static bool walk(struct take *t, int fd, uint32_t depth);

static bool take_folder(struct take *t, int at, const char *name, const struct stat *st, uint32_t depth)
{
    struct opened o;
    struct entry *e;
    bool ok;

    if (!count(t, 0))
        return false;
    if (depth == SNAPSHOT_DEPTH_MAX)
        return fail(t, COX_CODE_RESOURCE_EXHAUSTED, "folders are more than 128 deep");
    o = open_anyway(at, name, S_IFDIR, S_IRUSR | S_IXUSR);
    if (o.fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return true;
    if (o.fd < 0)
        return fail_errno(t);
    e = tree_add(t->s, cox_buf_slice(&t->path));
    e->kind = ENTRY_FOLDER;
    take_stat(t, e, st);
    ok = walk(t, o.fd, depth + 1);
    if (o.unlocked)
        (void)!fchmod(o.fd, o.back);
    close(o.fd);
    return ok;
}

static bool take_one(struct take *t, int at, const char *name, uint32_t depth)
{
    struct stat st;

    if (t->path.len > SNAPSHOT_PATH_LEN_MAX)
        return fail(t, COX_CODE_RESOURCE_EXHAUSTED, "the path is longer than 4000 bytes");
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT || fail_errno(t);
    if (S_ISDIR(st.st_mode))
        return take_folder(t, at, name, &st, depth);
    if (S_ISREG(st.st_mode))
        return take_file(t, at, name, &st);
    if (S_ISLNK(st.st_mode))
        return take_link(t, at, name, &st);
    if (t->s->n_left_out++ == 0)
        put_path(&t->s->first_left_out, cox_buf_slice(&t->path));
    return goes_on(t);
}

static bool walk(struct take *t, int fd, uint32_t depth)
{
    struct names names = { 0 };
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    DIR *d = own >= 0 ? fdopendir(own) : NULL;
    size_t len = t->path.len;
    bool ok = d ? list(t, d, &names) : fail_errno(t);

    for (size_t i = 0; ok && i < names.n; i++) {
        t->path.len = len;
        if (len > 0)
            cox_put_u8(&t->path, '/');
        cox_buf_append_str(&t->path, names.items[i]);
        ok = take_one(t, fd, names.items[i], depth);
    }
    if (ok)
        t->path.len = len;
    for (size_t i = 0; i < names.n; i++)
        cox_free(names.items[i]);
    cox_free(names.items);
    if (d)
        closedir(d);
    else if (own >= 0)
        close(own);
    return ok;
}

/* ---------------------------------------------------------------- the list, the root */

/* The list in pieces, each a chunk like those of files: what has not changed is known. */
static bool put_list(struct take *t, struct cox_buf *hashes)
{
    struct cox_buf piece = { 0 };
    struct snapshot *s = t->s;
    bool ok = true;

    for (size_t i = 0; ok && i < s->n; i++) {
        struct cox_hash hash;

        entry_encode(&piece, s, &s->entries[i], true);
        if (i + 1 < s->n && !entry_ends_piece(s, &s->entries[i], piece.len))
            continue;
        hash_of(t->digest, cox_buf_slice(&piece), &hash);
        cox_buf_append(hashes, hash.b, sizeof(hash.b));
        ok = keep_chunk(t, &hash, cox_buf_slice(&piece));
        cox_buf_clear(&piece);
    }
    cox_buf_fini(&piece);
    hash_of(t->digest, cox_buf_slice(hashes), &s->list);
    return ok;
}

/* u32 packs before this one, each hash and u64 length; u32 pieces, each hash. */
static bool put_root(struct take *t, struct cox_slice hashes)
{
    struct snapshot *s = t->s;
    struct cox_buf root = { 0 };
    bool ok;

    if (t->pack.fd < 0) { /* what is new is only that something is gone */
        struct cox_hash none;

        hash_of(t->digest, cox_slice(NULL, 0), &none);
        if (!pack_put(&t->pack, t->store, &none, cox_slice(NULL, 0)))
            return fail_pack(t);
    }
    cox_put_u32(&root, (uint32_t)s->n_packs);
    for (size_t i = 0; i < s->n_packs; i++) {
        cox_buf_append(&root, s->packs[i].hash.b, sizeof(s->packs[i].hash.b));
        cox_put_u64(&root, s->packs[i].len);
    }
    cox_put_u32(&root, (uint32_t)(hashes.len / sizeof(struct cox_hash)));
    cox_buf_append_slice(&root, hashes);
    ok = end_pack(t, cox_buf_slice(&root));
    cox_buf_fini(&root);
    if (ok)
        s->name.blob = s->packs[s->n_packs - 1].hash;
    return ok;
}

static int by_length(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Packs of no more than this are put together into a new one. 0: all go on. */
static uint64_t small_pack(const struct snapshot *last)
{
    uint64_t lens[SNAPSHOT_PACKS_MAX];

    if (last->n_packs <= SNAPSHOT_PACKS_MAX / 2)
        return 0;
    for (size_t i = 0; i < last->n_packs; i++)
        lens[i] = last->packs[i].len;
    qsort(lens, last->n_packs, sizeof(*lens), by_length);
    return lens[last->n_packs * 3 / 4];
}

/* The packs that go on, and what is in them. */
static void inherit(struct take *t)
{
    struct snapshot *s = t->s, *last = t->last;
    uint64_t small = small_pack(last);
    uintptr_t now[SNAPSHOT_PACKS_MAX + 1] = { 0 };
    struct cox_slice key;
    size_t it = 0;
    void *pack;

    for (size_t i = 0; i < last->n_packs; i++) {
        if (last->packs[i].len <= small)
            continue;
        s->packs_len += last->packs[i].len;
        s->blobs[s->n_packs] = last->packs[i].hash;
        s->packs[s->n_packs++] = last->packs[i];
        now[i + 1] = s->n_packs;
    }
    t->known = &last->known;
    if (small == 0)
        return;
    t->known = &t->fewer;
    while (cox_mapb_next(&last->known, &it, &key, &pack))
        if (now[(uintptr_t)pack])
            cox_mapb_set(&t->fewer, key, (void *)now[(uintptr_t)pack]);
}

/* What was known is known of the new one. */
static void learn(struct take *t)
{
    struct cox_slice key;
    size_t it = 0;
    void *pack;

    if (t->known) {
        t->s->known = *t->known;
        *t->known = (struct cox_mapb){ 0 };
    }
    while (cox_mapb_next(&t->fresh, &it, &key, &pack))
        cox_mapb_set(&t->s->known, key, pack);
}

/* Most of what the packs hold is of no use any more: all is put once more. */
static bool is_worn(const struct snapshot *s)
{
    return s->packs_len > 2 * s->name.size + 256ull * s->name.n_files + (8u << 20);
}

static enum cox_code take(const char *dir, struct snapshot *last, int64_t sure_before_ns,
                          const struct snapshot_store *store, struct snapshot **ret, struct cox_buf *why)
{
    struct take t = { .store = store,
                      .last = last,
                      .s = COX_NEW(struct snapshot),
                      .sure_before_ns = sure_before_ns,
                      .pack = { .fd = -1 },
                      .digest = EVP_MD_CTX_new(),
                      .chunk = cox_alloc(SNAPSHOT_CHUNK_LEN),
                      .why = why };
    struct cox_buf hashes = { 0 };
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ok = fd >= 0 || fail_errno(&t);

    COX_ASSERT(t.digest);
    if (last)
        inherit(&t);
    ok = ok && walk(&t, fd, 0) && put_list(&t, &hashes);
    if (ok) {
        tree_name(t.s);
        if (last && t.pack.fd < 0 && t.s->n_packs == last->n_packs &&
            memcmp(&t.s->list, &last->list, sizeof(last->list)) == 0)
            t.s->name.blob = last->name.blob;
        else
            ok = put_root(&t, cox_buf_slice(&hashes));
    }
    if (ok)
        learn(&t);
    if (fd >= 0)
        close(fd);
    pack_fini(&t.pack);
    cox_mapb_fini(&t.fresh);
    cox_mapb_fini(&t.fewer);
    EVP_MD_CTX_free(t.digest);
    cox_free(t.chunk);
    cox_buf_fini(&t.path);
    cox_buf_fini(&hashes);
    if (!ok)
        snapshot_free(t.s);
    *ret = ok ? t.s : NULL;
    return ok ? COX_CODE_NONE : t.code;
}

enum cox_code snapshot_take(const char *dir, struct snapshot *last, int64_t calm_until,
                            const struct snapshot_store *store, struct snapshot **ret, struct cox_buf *why)
{
    struct timespec now;
    enum cox_code code;

    clock_gettime(CLOCK_REALTIME, &now);
    calm_until = calm_until < ns_of(now) - TICK_NS ? calm_until : ns_of(now) - TICK_NS;
    code = take(dir, last && is_worn(last) ? NULL : last, calm_until, store, ret, why);
    if (code == COX_CODE_NONE)
        snapshot_free(last);
    return code;
}
