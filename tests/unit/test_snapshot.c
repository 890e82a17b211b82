/* Folders as blobs: what comes back is what was there; what did not change costs nothing; what is hostile, in
 * the folder or in a pack, stays where it is. */
#include "check.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include "janitor.h"
#include "snapshot/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char base[64], dir[80], back[80];
static uint64_t n_puts, put_len;
static atomic_bool never;

/* ---------------------------------------------------------------- a store that is a folder */

static void store_path(char *ret, size_t len, const struct cox_hash *hash)
{
    struct cox_buf hex = { 0 };

    cox_buf_append_hex(&hex, hash->b, sizeof(hash->b));
    snprintf(ret, len, "%s/store/%s", base, cox_buf_cstr(&hex));
    cox_buf_fini(&hex);
}

static void read_all(int fd, struct cox_buf *ret)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(pread(fd, cox_buf_extend(ret, (size_t)st.st_size), (size_t)st.st_size, 0), st.st_size);
}

static void write_file(const char *path, struct cox_slice bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes.data, bytes.len), bytes.len);
    close(fd);
}

static enum cox_code put(void *user, int fd, struct cox_hash *ret_hash, uint64_t *ret_len,
                         struct cox_buf *why)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    struct cox_buf bytes = { 0 };
    char path[200];

    (void)user;
    (void)why;
    read_all(fd, &bytes);
    hash_of(digest, cox_buf_slice(&bytes), ret_hash);
    *ret_len = bytes.len;
    n_puts++;
    put_len += bytes.len;
    store_path(path, sizeof(path), ret_hash);
    write_file(path, cox_buf_slice(&bytes));
    EVP_MD_CTX_free(digest);
    cox_buf_fini(&bytes);
    return COX_CODE_NONE;
}

static enum cox_code get(void *user, const struct cox_hash *hash, int *ret_fd, struct cox_buf *why)
{
    char path[200];

    (void)user;
    store_path(path, sizeof(path), hash);
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*ret_fd < 0)
        cox_buf_append_str(why, "no such blob");
    return *ret_fd < 0 ? COX_CODE_INPUT_INVALID : COX_CODE_NONE;
}

static int scratch(void *user)
{
    char path[100];
    int fd;

    (void)user;
    snprintf(path, sizeof(path), "%s/scratch-XXXXXX", base);
    fd = mkstemp(path);
    unlink(path);
    return fd;
}

static const struct snapshot_store store = {
    .put = put, .get = get, .scratch = scratch, .cancelled = &never
};

/* ---------------------------------------------------------------- words of the tests */

static int set_up(void **state)
{
    char path[100];

    (void)state;
    snprintf(base, sizeof(base), "/tmp/cox-test-snapshot-XXXXXX");
    if (!mkdtemp(base))
        return -1;
    snprintf(dir, sizeof(dir), "%s/dir", base);
    snprintf(back, sizeof(back), "%s/back", base);
    snprintf(path, sizeof(path), "%s/store", base);
    n_puts = put_len = 0;
    return mkdir(dir, 0700) + mkdir(back, 0700) + mkdir(path, 0700);
}

static int tear_down(void **state)
{
    (void)state;
    janitor_remove_now(base);
    return 0;
}

static const char *in(const char *name)
{
    static char path[5000];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void make_file(const char *name, const char *text)
{
    write_file(in(name), cox_slice_str(text));
}

static struct snapshot *take(struct snapshot *last)
{
    struct cox_buf why = { 0 };
    struct snapshot *s;

    if (snapshot_take(dir, last, INT64_MAX, &store, &s, &why) != COX_CODE_NONE)
        fail_msg("take: %s", cox_buf_cstr(&why));
    cox_buf_fini(&why);
    return s;
}

static enum cox_code refused(struct cox_buf *why)
{
    struct snapshot *s;
    enum cox_code code = snapshot_take(dir, NULL, INT64_MAX, &store, &s, why);

    assert_null(s);
    return code;
}

static struct cox_hash tree_of(const struct snapshot *s)
{
    struct snapshot_name name;

    snapshot_name(s, &name);
    return name.tree;
}

static bool same(struct cox_hash a, struct cox_hash b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static enum cox_code restore_as(const struct snapshot_name *name, struct snapshot **ret)
{
    struct cox_buf why = { 0 };
    enum cox_code code;

    janitor_remove_now(back);
    assert_int_equal(mkdir(back, 0700), 0);
    code = snapshot_restore(back, name, &store, ret, &why);
    assert_int_equal(code == COX_CODE_NONE, why.len == 0);
    cox_buf_fini(&why);
    return code;
}

/* Restores it, takes what came of it from scratch, and compares. */
static void check_comes_back(const struct snapshot *s)
{
    struct cox_buf why = { 0 };
    struct snapshot_name name;
    struct snapshot *restored, *again;

    snapshot_name(s, &name);
    assert_int_equal(restore_as(&name, &restored), COX_CODE_NONE);
    assert_int_equal(snapshot_take(back, NULL, INT64_MAX, &store, &again, &why), COX_CODE_NONE);
    assert_true(same(tree_of(again), name.tree));
    assert_true(same(again->list, s->list)); /* times too */
    snapshot_free(restored);
    snapshot_free(again);
}

/* What is older than the kernel's tick is believed to be what it was. */
static void let_settle(struct snapshot *s)
{
    for (size_t i = 0; i < s->n; i++)
        s->entries[i].flags &= (uint8_t)~ENTRY_UNSURE;
}

/* ---------------------------------------------------------------- what is kept */

static void make_odd_tree(void)
{
    struct cox_buf big = { 0 };
    char path[100];

    make_file("a", "one");
    make_file("empty", "");
    assert_int_equal(mkdir(in("a.d"), 0755), 0);
    assert_int_equal(mkdir(in("a.d/sub"), 0700), 0);
    assert_int_equal(mkdir(in("none"), 0711), 0);
    make_file("a.d/sub/run", "#!/bin/sh\n");
    assert_int_equal(chmod(in("a.d/sub/run"), 0755), 0);
    assert_int_equal(symlink("sub/run", in("a.d/link")), 0);
    assert_int_equal(symlink("/etc/passwd", in("out")), 0);
    assert_int_equal(symlink("../../nowhere", in("dangling")), 0);
    snprintf(path, sizeof(path), "%s/hard", dir);
    assert_int_equal(link(in("a"), path), 0);
    make_file("new\nline", "x");
    make_file("\xff\xfe not text", "y");
    make_file("a.d/locked", "z");
    memset(cox_buf_extend(&big, 3500000), 0, 3500000);
    memcpy(big.data + 1500000, "in the middle", 13);
    write_file(in("big"), cox_buf_slice(&big));
    cox_buf_fini(&big);
    assert_int_equal(chmod(in("a.d/locked"), 0), 0);
    assert_int_equal(mkdir(in("shut"), 0755), 0);
    make_file("shut/f", "inside");
    assert_int_equal(chmod(in("shut"), 0), 0);
}

static void test_what_comes_back_is_what_was_there(void **state)
{
    struct snapshot *s;
    struct stat st;
    char target[100] = "", path[100];

    (void)state;
    make_odd_tree();
    s = take(NULL);
    assert_int_equal(stat(in("a.d/locked"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0); /* looking at it leaves no trace */
    assert_int_equal(stat(in("shut"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0);
    check_comes_back(s);
    snprintf(path, sizeof(path), "%s/out", back);
    assert_int_equal(readlink(path, target, sizeof(target)), 11);
    assert_string_equal(target, "/etc/passwd"); /* as it was, and followed by nobody */
    snprintf(path, sizeof(path), "%s/shut", back);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0);
    chmod(path, 0700);
    chmod(in("shut"), 0700);
    snapshot_free(s);
}

static void test_the_same_tree_has_the_same_hash(void **state)
{
    struct snapshot *first, *second;

    (void)state;
    make_file("a", "1");
    make_file("b", "2");
    first = take(NULL);
    unlink(in("a"));
    unlink(in("b"));
    make_file("b", "2");
    make_file("a", "1");
    second = take(NULL);
    assert_true(same(tree_of(first), tree_of(second)));
    snapshot_free(second);
    assert_int_equal(chmod(in("a"), 0711), 0);
    second = take(NULL);
    assert_false(same(tree_of(first), tree_of(second)));
    snapshot_free(first);
    snapshot_free(second);
}

static void test_only_what_changed_is_stored(void **state)
{
    struct snapshot *s;
    struct cox_hash before;
    char name[32], text[4096];
    size_t n;

    (void)state;
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        memset(text, 'a' + i % 26, sizeof(text));
        snprintf(text, 16, "%d", i);
        write_file(in(name), cox_slice(text, sizeof(text)));
    }
    s = take(NULL);
    assert_int_equal(n_puts, 1);
    assert_true(put_len > 500 * 4096);
    snapshot_blobs(s, &n);
    assert_int_equal(n, 1);
    let_settle(s);
    before = tree_of(s);
    put_len = 0;
    s = take(s);
    assert_int_equal(n_puts, 1); /* nothing */
    assert_true(same(before, tree_of(s)));
    snapshot_blobs(s, &n);
    assert_int_equal(n, 1);
    make_file("f250", "changed");
    s = take(s);
    assert_int_equal(n_puts, 2);
    assert_in_range(put_len, 1, 100000); /* it, and the piece of the list it is in */
    check_comes_back(s);
    let_settle(s);
    unlink(in("f3"));
    s = take(s);
    assert_false(same(before, tree_of(s)));
    check_comes_back(s);
    snapshot_free(s);
}

/* Two writes within one tick of the kernel's clock leave the same times. */
static void test_a_change_in_the_moment_of_the_snapshot_is_seen(void **state)
{
    struct snapshot *s;
    struct stat st;
    struct cox_hash before;

    (void)state;
    make_file("f", "one");
    s = take(NULL);
    before = tree_of(s);
    make_file("f", "two");
    assert_int_equal(stat(in("f"), &st), 0);
    s->entries[0].changed_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
    s->entries[0].status_ns = st.st_ctim.tv_sec * INT64_C(1000000000) + st.st_ctim.tv_nsec;
    s = take(s);
    assert_false(same(before, tree_of(s)));
    snapshot_free(s);
}

/* While others write, what they have touched since they began is never taken as known. */
static void test_files_of_those_who_still_write_are_read_again(void **state)
{
    struct cox_buf why = { 0 };
    struct snapshot *s;

    (void)state;
    make_file("f", "one");
    assert_int_equal(snapshot_take(dir, NULL, 0, &store, &s, &why), COX_CODE_NONE);
    assert_true(s->entries[0].flags & ENTRY_UNSURE);
    snapshot_free(s);
}

static void test_what_is_no_file_is_left_out_and_told(void **state)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    struct cox_buf note = { 0 };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct snapshot *s;

    (void)state;
    make_file("f", "x");
    assert_int_equal(mkfifo(in("a\nfifo"), 0600), 0);
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/sock", dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    s = take(NULL);
    assert_int_equal(s->n, 1);
    snapshot_note(s, &note);
    assert_string_equal(cox_buf_cstr(&note), "left out: 2 neither files, folders nor links (a\\x0afifo)");
    check_comes_back(s);
    snapshot_free(s);
    cox_buf_fini(&note);
    close(fd);
}

/* ---------------------------------------------------------------- limits */

static void test_too_much_is_refused(void **state)
{
    struct cox_buf why = { 0 }, path = { 0 };
    int fd;

    (void)state;
    fd = open(in("huge"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, (off_t)SNAPSHOT_LEN_MAX + 1), 0);
    close(fd);
    assert_int_equal(refused(&why), COX_CODE_RESOURCE_EXHAUSTED);
    assert_string_equal(cox_buf_cstr(&why), "huge: there are more than 4 GiB in files");
    unlink(in("huge"));
    for (uint32_t i = 0; i <= SNAPSHOT_DEPTH_MAX; i++) {
        cox_buf_append_str(&path, i > 0 ? "/d" : "d");
        assert_int_equal(mkdir(in(cox_buf_cstr(&path)), 0700), 0);
    }
    cox_buf_clear(&why);
    assert_int_equal(refused(&why), COX_CODE_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(cox_buf_cstr(&why), "more than 128 deep"));
    cox_buf_fini(&why);
    cox_buf_fini(&path);
    assert_int_equal(n_puts, 0);
}

static void test_too_many_files_are_refused(void **state)
{
    struct cox_buf why = { 0 };
    char name[32];

    (void)state;
    make_file("0", "");
    for (uint32_t i = 0; i < SNAPSHOT_FILES_MAX; i++) {
        snprintf(name, sizeof(name), "%u", i / 50000 + 1);
        if (i % 50000 == 0) { /* a file system may have few links a file */
            make_file(name, "");
            continue;
        }
        char to[64];

        snprintf(to, sizeof(to), "%s-%u", name, i);
        char *from = cox_strdup(in(name));

        assert_int_equal(link(from, in(to)), 0);
        cox_free(from);
    }
    assert_int_equal(refused(&why), COX_CODE_RESOURCE_EXHAUSTED);
    assert_string_equal(cox_buf_cstr(&why), "there are more than 200000 files");
    cox_buf_fini(&why);
}

static void test_it_ends_when_it_is_cancelled(void **state)
{
    atomic_bool cancelled = true;
    struct snapshot_store s = store;
    struct cox_buf why = { 0 };
    struct snapshot *ret;

    (void)state;
    make_file("f", "x");
    s.cancelled = &cancelled;
    assert_int_equal(snapshot_take(dir, NULL, INT64_MAX, &s, &ret, &why), COX_CODE_CANCELLED);
    cox_buf_fini(&why);
}

static void *write_on(void *stop)
{
    int fd = open(in("log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char text[8192];

    memset(text, 'x', sizeof(text));
    for (unsigned i = 0; !atomic_load((atomic_bool *)stop); i++) {
        (void)!write(fd, text, sizeof(text));
        if (i % 1000 == 0)
            (void)!ftruncate(fd, 0);
    }
    close(fd);
    return NULL;
}

static void test_a_file_that_moves_while_it_is_read_comes_to_an_end(void **state)
{
    atomic_bool stop = false;
    pthread_t thread;
    struct snapshot *s = NULL;

    (void)state;
    make_file("log", "");
    in("log"); /* its text is there before the thread needs it */
    assert_int_equal(pthread_create(&thread, NULL, write_on, &stop), 0);
    do /* whatever it caught is what comes back */
        s = take(s);
    while (s->n_moving == 0);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    struct snapshot_name name;
    struct snapshot *restored;

    snapshot_name(s, &name);
    assert_int_equal(restore_as(&name, &restored), COX_CODE_NONE);
    snapshot_free(restored);
    snapshot_free(s);
}

/* ---------------------------------------------------------------- over many turns */

static void change_something(struct cox_rng *rng)
{
    char name[40], text[3000];
    size_t len = cox_rng_below(rng, sizeof(text));
    uint64_t d = cox_rng_below(rng, 4);

    for (size_t i = 0; i < len; i++)
        text[i] = (char)cox_rng_below(rng, 256);
    snprintf(name, sizeof(name), "d%u", (unsigned)d);
    (void)!mkdir(in(name), 0755);
    snprintf(name, sizeof(name), "d%u/f%u", (unsigned)d, (unsigned)cox_rng_below(rng, 12));
    unlink(in(name));
    switch (cox_rng_below(rng, 5)) {
    case 0:
        break;
    case 1:
        assert_int_equal(symlink("../d0", in(name)), 0);
        break;
    default:
        write_file(in(name), cox_slice(text, len));
    }
}

static void test_a_chain_of_snapshots_comes_back_at_each_end(void **state)
{
    const char *env = getenv("COX_TEST_SEED");
    uint64_t first = env ? strtoull(env, NULL, 10) : 1, last = env ? first : 8;

    (void)state;
    for (uint64_t seed = first; seed <= last; seed++) {
        struct snapshot *s = NULL;
        struct cox_rng rng;

        cox_rng_init(&rng, seed);
        janitor_remove_now(dir);
        assert_int_equal(mkdir(dir, 0700), 0);
        for (int turn = 0; turn < 40; turn++) {
            for (uint64_t n = cox_rng_below(&rng, 6); n > 0; n--)
                change_something(&rng);
            s = take(s);
            check_seeded(s->n_packs <= SNAPSHOT_PACKS_MAX / 2 + 2, seed);
            if (turn % 5 == 4)
                check_comes_back(s);
            if (turn % 13 == 12) { /* elsewhere, from what is stored alone */
                struct snapshot_name name;
                struct snapshot *moved;

                snapshot_name(s, &name);
                check_seeded(restore_as(&name, &moved) == COX_CODE_NONE, seed);
                snapshot_free(s);
                s = moved;
                janitor_remove_now(dir);
                assert_int_equal(rename(back, dir), 0);
                assert_int_equal(mkdir(back, 0700), 0);
            }
        }
        snapshot_free(s);
    }
}

static void test_what_is_of_no_use_any_more_is_not_carried_for_ever(void **state)
{
    struct cox_buf text = { 0 };
    struct snapshot *s = NULL;

    (void)state;
    memset(cox_buf_extend(&text, 3 << 20), 'x', 3 << 20);
    for (int turn = 0; turn < 12; turn++) {
        for (int chunk = 0; chunk < 3; chunk++)
            snprintf((char *)text.data + ((size_t)chunk << 20), 32, "turn %d, chunk %d", turn, chunk);
        write_file(in("f"), cox_buf_slice(&text));
        s = take(s);
        assert_in_range(s->packs_len, 3 << 20, 20 << 20);
    }
    check_comes_back(s);
    snapshot_free(s);
    cox_buf_fini(&text);
}

/* ---------------------------------------------------------------- packs of people nobody knows */

/* A snapshot whose list is what a hostile hand has written. */
static void forge(struct snapshot *s, struct snapshot_name *ret)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    struct pack_writer w = { .fd = -1 };
    struct cox_buf list = { 0 }, root = { 0 }, why = { 0 };
    struct cox_hash hash;
    uint64_t len;

    for (size_t i = 0; i < s->n; i++)
        entry_encode(&list, s, &s->entries[i], true);
    hash_of(digest, cox_buf_slice(&list), &hash);
    assert_true(pack_put(&w, &store, &hash, cox_buf_slice(&list)));
    cox_put_u32(&root, 0);
    cox_put_u32(&root, 1);
    cox_buf_append(&root, hash.b, sizeof(hash.b));
    assert_true(pack_end(&w, cox_buf_slice(&root)));
    assert_int_equal(put(NULL, w.fd, &s->name.blob, &len, &why), COX_CODE_NONE);
    tree_name(s);
    snapshot_name(s, ret);
    pack_fini(&w);
    EVP_MD_CTX_free(digest);
    cox_buf_fini(&list);
    cox_buf_fini(&root);
}

static void forge_link(struct snapshot *s, const char *path, const char *target)
{
    struct entry *e = tree_add(s, cox_slice_str(path));

    e->kind = ENTRY_LINK;
    e->mode = 0777;
    e->at = (uint32_t)s->names.len;
    e->n = (uint32_t)strlen(target);
    cox_buf_append_str(&s->names, target);
}

static void forge_file(struct snapshot *s, const char *path)
{
    tree_add(s, cox_slice_str(path))->kind = ENTRY_FILE;
    s->entries[s->n - 1].mode = 0600;
}

static void test_nothing_is_written_outside(void **state)
{
    static const char *const paths[] = { "../escaped", "a/../../escaped", "/escaped", "..", ".", "", "a//b" };
    char outside[100];

    (void)state;
    snprintf(outside, sizeof(outside), "%s/outside", base);
    assert_int_equal(mkdir(outside, 0700), 0);
    for (size_t i = 0; i < ARRAY_LEN(paths) + 2; i++) {
        struct snapshot *s = COX_NEW(struct snapshot), *ret;
        struct snapshot_name name;

        if (i < ARRAY_LEN(paths)) {
            forge_file(s, paths[i]);
        } else { /* into a folder that is a link by then */
            forge_link(s, "l", i == ARRAY_LEN(paths) ? outside : "../outside");
            forge_file(s, "l/f");
        }
        forge(s, &name);
        assert_int_not_equal(restore_as(&name, &ret), COX_CODE_NONE);
        assert_null(ret);
        snapshot_free(s);
        snprintf(outside, sizeof(outside), "%s/escaped", base);
        assert_int_not_equal(access(outside, F_OK), 0);
        snprintf(outside, sizeof(outside), "%s/outside/f", base);
        assert_int_not_equal(access(outside, F_OK), 0);
        snprintf(outside, sizeof(outside), "%s/outside", base);
    }
}

static void test_a_damaged_pack_is_refused(void **state)
{
    const char *env = getenv("COX_TEST_SEED");
    uint64_t first = env ? strtoull(env, NULL, 10) : 1, last = env ? first : 400;
    struct snapshot_name name;
    struct cox_buf good = { 0 };
    char path[200];
    struct snapshot *s, *ret;
    int fd;

    (void)state;
    make_odd_tree();
    unlink(in("big"));
    s = take(NULL);
    snapshot_name(s, &name);
    store_path(path, sizeof(path), &name.blob);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    read_all(fd, &good);
    close(fd);
    for (uint64_t seed = first; seed <= last; seed++) {
        struct cox_buf bad = { 0 };
        struct cox_rng rng;

        cox_rng_init(&rng, seed);
        cox_buf_append_slice(&bad, cox_buf_slice(&good));
        if (cox_rng_below(&rng, 4) == 0)
            bad.len = cox_rng_below(&rng, bad.len);
        else
            bad.data[cox_rng_below(&rng, bad.len)] ^= (uint8_t)(1 + cox_rng_below(&rng, 255));
        write_file(path, cox_buf_slice(&bad));
        if (restore_as(&name, &ret) == COX_CODE_NONE) { /* it was a bit of no meaning */
            check_seeded(same(tree_of(ret), name.tree), seed);
            snapshot_free(ret);
        }
        cox_buf_fini(&bad);
    }
    write_file(path, cox_buf_slice(&good));
    name.tree.b[0] ^= 1;
    assert_int_equal(restore_as(&name, &ret), COX_CODE_INPUT_INVALID); /* not the one that was asked for */
    name.blob.b[0] ^= 1;
    assert_int_equal(restore_as(&name, &ret), COX_CODE_INPUT_INVALID); /* there is no such */
    chmod(in("shut"), 0700);
    cox_buf_fini(&good);
    snapshot_free(s);
}

/* A pack whose own names are true, and its chunk another: the content is looked at, too. */
static void test_a_chunk_of_another_content_is_refused(void **state)
{
    struct snapshot *s, *ret;
    struct snapshot_name name;
    struct cox_buf bytes = { 0 };
    char path[200];
    uint8_t *at;
    int fd;

    (void)state;
    make_file("f", "the quick brown fox");
    s = take(NULL);
    snapshot_name(s, &name);
    store_path(path, sizeof(path), &name.blob);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    read_all(fd, &bytes);
    close(fd);
    at = memmem(bytes.data, bytes.len, "quick", 5);
    assert_non_null(at);
    memcpy(at, "QUICK", 5);
    write_file(path, cox_buf_slice(&bytes));
    assert_int_equal(restore_as(&name, &ret), COX_CODE_INPUT_INVALID);
    cox_buf_fini(&bytes);
    snapshot_free(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_comes_back_is_what_was_there),
        TEST(test_the_same_tree_has_the_same_hash),
        TEST(test_only_what_changed_is_stored),
        TEST(test_a_change_in_the_moment_of_the_snapshot_is_seen),
        TEST(test_files_of_those_who_still_write_are_read_again),
        TEST(test_what_is_no_file_is_left_out_and_told),
        TEST(test_too_much_is_refused),
        TEST(test_too_many_files_are_refused),
        TEST(test_it_ends_when_it_is_cancelled),
        TEST(test_a_file_that_moves_while_it_is_read_comes_to_an_end),
        TEST(test_a_chain_of_snapshots_comes_back_at_each_end),
        TEST(test_what_is_of_no_use_any_more_is_not_carried_for_ever),
        TEST(test_nothing_is_written_outside),
        TEST(test_a_damaged_pack_is_refused),
        TEST(test_a_chunk_of_another_content_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
