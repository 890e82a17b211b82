/* Blobs against power cuts: at every sync, renaming and removal the power may go. What was acknowledged must
 * then be there, and whatever has a name must have the bytes that the name says.
 *
 * The system calls are taken over by the linker. The model of the disk has two faces, and both must do: one
 * that loses every name that was not synced, and one that keeps every name and loses the bytes that were not
 * synced.
 */
#include "cox/base/alloc.h"
#include "cox/store.h"

#include "orchestrator/store/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FILES_MAX 4096
#define NAMES_MAX 8192
#define BLOBS 60

static struct {
    bool on;
    bool lies_for_files, lies_for_dirs; /* syncs that do nothing: the controls */
    ino_t files[FILES_MAX];             /* whose bytes are safe */
    size_t n_files;
    char *names[NAMES_MAX]; /* that are safe, absolute */
    size_t n_names;
    struct cox_hash acked[BLOBS];
    size_t n_acked;
    char blobs[256]; /* the directory */
    unsigned n_cuts, lost, wrong;
} disk;

static bool file_is_safe(ino_t ino)
{
    for (size_t i = 0; i < disk.n_files; i++)
        if (disk.files[i] == ino)
            return true;
    return false;
}

static bool name_is_safe(const char *path)
{
    for (size_t i = 0; i < disk.n_names; i++)
        if (strcmp(disk.names[i], path) == 0)
            return true;
    return false;
}

/* A directory is safe when it and all above it were synced after they were made. */
static bool path_is_safe(const char *path)
{
    char *p = cox_strdup(path);
    bool safe = name_is_safe(p);

    for (char *slash = strrchr(p, '/'); safe && strcmp(p, disk.blobs) != 0; slash = strrchr(p, '/')) {
        *slash = '\0';
        safe = name_is_safe(p);
    }
    cox_free(p);
    return safe;
}

static bool has_right_bytes(const char *path, const struct cox_hash *hash)
{
    uint8_t bytes[4096];
    struct cox_hash found;
    FILE *f = fopen(path, "r");

    if (!f)
        return false;
    size_t n = fread(bytes, 1, sizeof(bytes), f);
    (void)fclose(f);
    COX_ASSERT(EVP_Digest(bytes, n, found.b, NULL, EVP_sha256(), NULL) == 1);
    return memcmp(found.b, hash->b, sizeof(found.b)) == 0;
}

/* The face that keeps names. */
static int look_at_name(const char *path, const struct stat *st, int type)
{
    const char *name = strrchr(path, '/') + 1;
    struct store_blob_name parsed;
    char sub_dir[3] = { 0 };

    if (type != FTW_F || name - path < 4)
        return 0;
    memcpy(sub_dir, name - 3, 2);
    if (store_blob_parse(sub_dir, name, &parsed) &&
        (!file_is_safe(st->st_ino) || !has_right_bytes(path, &parsed.hash)))
        disk.wrong++;
    return 0;
}

static void power_may_go(void)
{
    struct stat st;

    if (!disk.on)
        return;
    disk.on = false; /* the look makes calls of its own */
    disk.n_cuts++;
    for (size_t i = 0; i < disk.n_acked; i++) {
        char *path = store_blob_path(disk.blobs, NULL, &disk.acked[i]);

        if (!path_is_safe(path) || stat(path, &st) != 0 || !file_is_safe(st.st_ino))
            disk.lost++;
        cox_free(path);
    }
    (void)ftw(disk.blobs, look_at_name, 16);
    disk.on = true;
}

static void sync_dir(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *entry;

    while (d && (entry = readdir(d))) {
        char *name = cox_asprintf("%s/%s", path, entry->d_name);

        COX_ASSERT(disk.n_names < NAMES_MAX);
        if (entry->d_name[0] == '.' || name_is_safe(name))
            cox_free(name);
        else
            disk.names[disk.n_names++] = name;
    }
    if (d)
        (void)closedir(d);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    char link[64], path[4096];
    struct stat st;

    if (!disk.on || fstat(fd, &st) != 0)
        return __real_fsync(fd);
    power_may_go();
    if (S_ISDIR(st.st_mode) && !disk.lies_for_dirs) {
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof(path) - 1);
        COX_ASSERT(n > 0);
        path[n] = '\0';
        sync_dir(path);
    } else if (!S_ISDIR(st.st_mode) && !disk.lies_for_files) {
        COX_ASSERT(disk.n_files < FILES_MAX);
        disk.files[disk.n_files++] = st.st_ino;
    }
    power_may_go();
    return 0;
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
    power_may_go();
    int rc = __real_rename(from, to);

    power_may_go();
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

/* Some blobs, some of them twice. */
static void live(bool lies_for_files, bool lies_for_dirs)
{
    char dir[] = "/tmp/cox-blob-faults-XXXXXX";
    struct cox_buf error = { 0 };
    struct cox_store *s;
    const struct cox_store_config config = { .uri = "sqlite", .data_dir = dir };

    assert_non_null(mkdtemp(dir));
    assert_int_equal(cox_store_open(&config, &s, &error), COX_OK);
    memset(&disk, 0, sizeof(disk));
    disk.lies_for_files = lies_for_files;
    disk.lies_for_dirs = lies_for_dirs;
    (void)snprintf(disk.blobs, sizeof(disk.blobs), "%s/blobs", dir);
    disk.on = true;
    for (unsigned i = 0; i < BLOBS; i++) {
        char *text = cox_asprintf("blob %u", i % 50);
        struct cox_blob_writer *w;
        uint64_t size;

        assert_int_equal(cox_blob_create(s, &w), COX_OK);
        assert_int_equal(cox_blob_write(w, cox_slice_str(text)), COX_OK);
        assert_int_equal(cox_blob_done(w, NULL, NULL, &disk.acked[disk.n_acked], &size), COX_OK);
        disk.n_acked++;
        power_may_go();
        cox_free(text);
    }
    disk.on = false;
    cox_store_close(s);
    assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    for (size_t i = 0; i < disk.n_names; i++)
        cox_free(disk.names[i]);
    cox_buf_fini(&error);
}

static void test_acknowledged_blobs_survive_a_power_cut_anywhere(void **state)
{
    (void)state;
    live(false, false);
    assert_true(disk.n_cuts > BLOBS * 4);
    assert_int_equal(disk.lost, 0);
    assert_int_equal(disk.wrong, 0);
}

/* Controls: a disk whose syncs do nothing must lose. */
static void test_without_syncs_of_files_names_lie(void **state)
{
    (void)state;
    live(true, false);
    assert_true(disk.wrong > 0);
}

static void test_without_syncs_of_directories_blobs_are_lost(void **state)
{
    (void)state;
    live(false, true);
    assert_true(disk.lost > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acknowledged_blobs_survive_a_power_cut_anywhere),
        cmocka_unit_test(test_without_syncs_of_files_names_lie),
        cmocka_unit_test(test_without_syncs_of_directories_blobs_are_lost),
    };

    return cmocka_run_group_tests_name("blob faults", tests, NULL, NULL);
}
