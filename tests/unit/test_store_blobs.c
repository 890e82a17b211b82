/* Blobs: what has a name is whole; payloads and blobs are read alike; what nobody finished is gone. */
#include "store_fixture.h"

#include "orchestrator/store/space.h"

#include "cox/base/units.h"

#include <dirent.h>
#include <openssl/sha.h>
#include <sys/syscall.h>

static char synced[4096]; /* paths, as the kernel names what fsync was called on */

int fsync(int fd)
{
    char *name = cox_asprintf("/proc/self/fd/%d", fd);
    size_t len = strlen(synced);
    ssize_t n = readlink(name, synced + len, sizeof(synced) - len - 2);

    memcpy(synced + len + (n > 0 ? n : 0), "\n", 2);
    cox_free(name);
    return (int)syscall(SYS_fsync, fd);
}

static struct cox_hash hash_of(const char *text)
{
    struct cox_hash h;

    SHA256((const unsigned char *)text, strlen(text), h.b);
    return h;
}

static struct cox_hash put(struct fixture *f, const char *text)
{
    struct cox_blob_writer *w;
    struct cox_hash hash;
    uint64_t size = 0;

    assert_int_equal(cox_blob_create(f->store, &w), COX_OK);
    for (const char *p = text; *p; p++) /* in pieces */
        assert_int_equal(cox_blob_write(w, cox_slice(p, 1)), COX_OK);
    assert_int_equal(cox_blob_done(w, NULL, NULL, &hash, &size), COX_OK);
    assert_int_equal(size, strlen(text));
    return hash;
}

static size_t n_unfinished(struct fixture *f)
{
    char *path = cox_asprintf("%s/blobs/tmp", f->data_dir);
    DIR *d = opendir(path);
    struct dirent *entry;
    size_t n = 0;

    assert_non_null(d);
    while ((entry = readdir(d)))
        n += entry->d_name[0] != '.';
    (void)closedir(d);
    cox_free(path);
    return n;
}

static void test_a_blob_is_read_back_in_parts_after_a_reopening(void **state)
{
    struct fixture *f = *state;
    struct cox_buf out = { 0 };
    struct stat st;
    uint64_t size = 0;

    start(f);
    struct cox_hash hash = put(f, "a large value");
    struct cox_hash want = hash_of("a large value");
    assert_memory_equal(hash.b, want.b, sizeof(hash.b));
    stop(f);
    start(f);
    assert_true(cox_blob_known(f->store, NULL, &hash, &size));
    assert_int_equal(size, 13);
    assert_int_equal(cox_blob_read(f->store, NULL, &hash, 2, 5, &out), COX_OK);
    assert_int_equal(cox_blob_read(f->store, NULL, &hash, 8, 100, &out), COX_OK);
    assert_int_equal(cox_blob_read(f->store, NULL, &hash, 13, 100, &out), COX_OK);
    assert_text(&out, "largevalue");
    char *path = store_blob_path(f->store->blobs.dir, NULL, &hash);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    cox_free(path);
    cox_buf_fini(&out);
}

/* The process before may have been killed between a file's name and its sync. */
static void test_names_that_were_found_are_synced_before_they_are_trusted(void **state)
{
    struct fixture *f = *state;

    start(f);
    struct cox_hash hash = put(f, "a large value");
    char *path = store_blob_path(f->store->blobs.dir, NULL, &hash);
    char *line = cox_asprintf("%.*s\n", (int)(strrchr(path, '/') - path), path);
    stop(f);
    synced[0] = '\0';
    start(f);
    assert_non_null(strstr(synced, line));
    cox_free(line);
    cox_free(path);
}

static void test_what_is_not_there_is_not_known(void **state)
{
    struct fixture *f = *state;
    struct cox_hash hash = hash_of("never");
    struct cox_buf out = { 0 };
    uint64_t size = 7;

    start(f);
    assert_false(cox_blob_known(f->store, NULL, &hash, &size));
    assert_int_equal(size, 7);
    assert_int_equal(cox_blob_read(f->store, NULL, &hash, 0, 10, &out), COX_ERR_NOT_FOUND);
    assert_null(out.data);
}

static void test_bytes_that_are_not_the_hash_get_no_name(void **state)
{
    struct fixture *f = *state;
    struct cox_hash expected = hash_of("this"), found = hash_of("that"), ret;
    struct cox_blob_writer *w;
    uint64_t size;

    start(f);
    assert_int_equal(cox_blob_create(f->store, &w), COX_OK);
    assert_int_equal(cox_blob_write(w, cox_slice_str("that")), COX_OK);
    assert_int_equal(cox_blob_done(w, NULL, &expected, &ret, &size), COX_ERR_INVALID);
    assert_false(cox_blob_known(f->store, NULL, &expected, &size));
    assert_false(cox_blob_known(f->store, NULL, &found, &size));
    assert_int_equal(n_unfinished(f), 0);
}

static void test_unfinished_blobs_go_with_their_process(void **state)
{
    struct fixture *f = *state;
    struct cox_blob_writer *abandoned, *left;

    start(f);
    assert_int_equal(cox_blob_create(f->store, &abandoned), COX_OK);
    assert_int_equal(cox_blob_create(f->store, &left), COX_OK);
    assert_int_equal(cox_blob_write(left, cox_slice_str("half")), COX_OK);
    assert_int_equal(n_unfinished(f), 2);
    cox_blob_abandon(abandoned);
    cox_blob_abandon(NULL);
    assert_int_equal(n_unfinished(f), 1);
    char *path = cox_asprintf("%s/blobs/tmp/left", f->data_dir); /* as a killed process leaves it */
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);
    cox_free(path);
    cox_blob_abandon(left);
    stop(f);
    start(f);
    assert_int_equal(n_unfinished(f), 0);
}

static void test_payloads_and_blobs_are_read_alike(void **state)
{
    struct fixture *f = *state;

    start(f);
    struct cox_hash blob = put(f, "blob"), payload = hash_of("payload"), none = hash_of("none");

    request(f, (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = payload, .owner = 1 },
            "payload");
    request(f, (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = blob, .owner = 1 }, NULL);
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 1, .hash = payload },
            NULL);
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 2, .hash = blob }, NULL);
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 3, .hash = none }, NULL);
    expect_event(f, COX_STORE_READ_PAYLOAD, 1, COX_OK, "payload");
    expect_event(f, COX_STORE_READ_PAYLOAD, 2, COX_OK, "blob");
    expect_event(f, COX_STORE_READ_PAYLOAD, 3, COX_ERR_NOT_FOUND, "");
}

/* The key of its row is no secret to who knows the hash and the tenant: it must lead nowhere in the default
 * space, where keys are hashes. */
static void test_the_key_of_a_value_is_no_hash(void **state)
{
    struct cox_space space = cox_space_of(cox_slice_str("alpha"));
    struct fixture *f = *state;
    struct cox_hash hash = hash_of("alpha's"), key = store_space_key(&space, &hash);

    start(f);
    request(
        f,
        (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = hash, .space = space, .owner = 1 },
        "alpha's");
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 1, .hash = key }, NULL);
    request(
        f,
        (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 2, .hash = hash, .space = space },
        NULL);
    expect_event(f, COX_STORE_READ_PAYLOAD, 1, COX_ERR_NOT_FOUND, "");
    expect_event(f, COX_STORE_READ_PAYLOAD, 2, COX_OK, "alpha's");
}

static void test_a_damaged_blob_is_an_answer(void **state)
{
    struct fixture *f = *state;

    start(f);
    struct cox_hash blob = put(f, "blob");
    char *path = store_blob_path(f->store->blobs.dir, NULL, &blob);
    FILE *file = fopen(path, "r+");

    assert_non_null(file);
    assert_int_equal(fputs("glob", file) < 0, 0);
    (void)fclose(file);
    cox_free(path);
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 1, .hash = blob }, NULL);
    expect_event(f, COX_STORE_READ_PAYLOAD, 1, COX_ERR_CORRUPT, "");
}

static void test_entities_are_read_by_key(void **state)
{
    struct fixture *f = *state;
    struct cox_entity_key key = { .kind = 3, .id = 7, .sub = 9 }, other = { .kind = 3, .id = 7, .sub = 8 };

    start(f);
    request(f, (struct cox_store_request){ .op = COX_STORE_SAVE, .key = key }, "asleep");
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_ENTITY, .ticket = 1, .key = key }, NULL);
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_ENTITY, .ticket = 2, .key = other }, NULL);
    expect_event(f, COX_STORE_READ_ENTITY, 1, COX_OK, "asleep");
    expect_event(f, COX_STORE_READ_ENTITY, 2, COX_ERR_NOT_FOUND, "");
}

static void test_too_little_room_refuses_blobs(void **state)
{
    struct fixture *f = *state;
    struct cox_blob_writer *w;

    f->min_free = UINT64_MAX / 2;
    start(f);
    assert_int_equal(cox_blob_create(f->store, &w), COX_ERR_FULL);
    assert_true(cox_store_free_bytes(f->store) < UINT64_MAX / 2);
    assert_int_equal(cox_blob_create_for_task(f->store, &w), COX_OK); /* the room is kept for these */
    char *long_text = cox_calloc(1, 20 << 20);
    struct cox_hash hash;
    uint64_t size;
    assert_int_equal(cox_blob_write(w, cox_slice(long_text, 20 << 20)), COX_OK);
    assert_int_equal(cox_blob_done(w, NULL, NULL, &hash, &size), COX_OK);
    assert_int_equal(size, 20 << 20);
    cox_free(long_text);
}

static void test_memory_keeps_blobs_until_close(void **state)
{
    struct fixture *f = *state;
    struct cox_hash blob;
    uint64_t size;

    f->uri = "memory";
    start(f);
    blob = put(f, "gone soon");
    assert_true(cox_blob_known(f->store, NULL, &blob, &size));
    assert_true(cox_store_free_bytes(f->store) == UINT64_MAX);
    char *dir = cox_strdup(f->store->blobs.dir);
    stop(f);
    assert_int_not_equal(access(dir, F_OK), 0);
    cox_free(dir);
    (void)mkdir(f->data_dir, 0700);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_blob_is_read_back_in_parts_after_a_reopening),
        TEST(test_names_that_were_found_are_synced_before_they_are_trusted),
        TEST(test_what_is_not_there_is_not_known),
        TEST(test_bytes_that_are_not_the_hash_get_no_name),
        TEST(test_unfinished_blobs_go_with_their_process),
        TEST(test_payloads_and_blobs_are_read_alike),
        TEST(test_the_key_of_a_value_is_no_hash),
        TEST(test_a_damaged_blob_is_an_answer),
        TEST(test_entities_are_read_by_key),
        TEST(test_too_little_room_refuses_blobs),
        TEST(test_memory_keeps_blobs_until_close),
    };

    return cmocka_run_group_tests_name("store blobs", tests, NULL, NULL);
}
