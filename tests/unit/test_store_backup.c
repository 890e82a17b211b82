/* A backup made while work goes on: what was durable when it ended is in it, and the store goes on as before.
 */
#include "store_fixture.h"

#include <openssl/sha.h>
#include <signal.h>
#include <sys/resource.h>

static void append_padded(struct fixture *f, uint64_t seq, size_t len)
{
    struct cox_buf b = { 0 };

    memset(cox_buf_extend(&b, len), (int)('a' + seq % 26), len);
    assert_true(cox_store_append(f->store, seq, 1, &b));
}

static void ask_for_backup(struct fixture *f, uint64_t ticket)
{
    request(f, (struct cox_store_request){ .op = COX_STORE_BACKUP, .ticket = ticket }, NULL);
}

static struct cox_hash put_blob(struct fixture *f, const char *text)
{
    struct cox_blob_writer *w;
    struct cox_hash hash;
    uint64_t size;

    assert_int_equal(cox_blob_create(f->store, &w), COX_OK);
    assert_int_equal(cox_blob_write(w, cox_slice_str(text)), COX_OK);
    assert_int_equal(cox_blob_done(w, NULL, NULL, &hash, &size), COX_OK);
    return hash;
}

static void save(struct fixture *f, uint64_t id, uint64_t seq, const char *text)
{
    request(f, (struct cox_store_request){ .op = COX_STORE_SAVE, .key = { 1, id, 0 }, .seq = seq }, text);
}

/* Restores what DIR/backup holds, and opens that instead. */
static uint64_t start_copy(struct fixture *f)
{
    char *from = cox_asprintf("%s/backup", f->data_dir);
    char *to = cox_asprintf("%s/restored", f->dir);

    cox_buf_clear(&f->error);
    if (cox_store_restore(from, to, &f->error) != COX_OK)
        fail_msg("%s", cox_buf_cstr(&f->error));
    stop(f);
    cox_free(from);
    cox_free(f->data_dir);
    f->data_dir = to;
    return start(f);
}

static void test_a_backup_holds_what_was_durable_when_it_ended(void **state)
{
    struct fixture *f = *state;
    struct cox_store_event e = { 0 };
    uint64_t seq = 0, truncated = 0, size;
    bool cut = false;

    start(f);
    struct cox_hash before = put_blob(f, "before");
    for (; seq < 40; seq++) /* some slices of log */
        append_padded(f, seq + 1, 400000);
    wait_durable(f, seq);
    save(f, 1, 10, "entity");
    request(f, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .id = 5 }, "task");
    expect_event(f, COX_STORE_ARCHIVE, 0, COX_OK, "");
    ask_for_backup(f, 1);
    struct cox_hash during = put_blob(f, "during");
    /* The log is written and cut meanwhile; the cut waits. */
    while (e.op != COX_STORE_BACKUP) {
        append_padded(f, ++seq, 100000);
        wait_durable(f, seq);
        if (!cut) {
            save(f, 1, seq, "entity");
            truncated = seq;
            request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .ticket = 7, .seq = seq }, NULL);
            cut = true;
        }
        while (e.op != COX_STORE_BACKUP && cox_store_poll(f->store, &e)) {
            assert_true(e.op == COX_STORE_BACKUP || e.op == COX_STORE_TRUNCATE);
            cut = cut && e.op == COX_STORE_BACKUP;
            if (e.op == COX_STORE_TRUNCATE)
                truncated = 0;
        }
    }
    assert_int_equal(e.err, COX_OK);
    assert_true(e.id >= 40 && e.id <= seq);
    uint64_t held = e.id;
    assert_non_null(strstr(cox_buf_cstr(&e.bytes), "/backup"));
    cox_buf_fini(&e.bytes);
    if (truncated)
        expect_event(f, COX_STORE_TRUNCATE, 7, COX_OK, "");
    append_padded(f, ++seq, 10);
    wait_durable(f, seq);

    assert_int_equal(start_copy(f), held);
    assert_true(cox_blob_known(f->store, NULL, &before, &size));
    assert_true(cox_blob_known(f->store, NULL, &during, &size));
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_ARCHIVE, .ticket = 9, .id = 5 }, NULL);
    expect_event(f, COX_STORE_READ_ARCHIVE, 9, COX_OK, "task");
}

static void test_one_backup_at_a_time_and_none_left_behind(void **state)
{
    struct fixture *f = *state;
    unsigned n_ok = 0, n_refused = 0;
    char *dir = cox_asprintf("%s/backup", f->data_dir);

    start(f);
    append_padded(f, 1, 30 << 20);
    ask_for_backup(f, 1);
    ask_for_backup(f, 2);
    for (int i = 0; i < 2; i++) {
        struct cox_store_event e = next_event(f);
        n_ok += e.err == COX_OK;
        n_refused += e.err == COX_ERR_UNAVAILABLE;
        cox_buf_fini(&e.bytes);
    }
    assert_int_equal(n_ok, 1);
    assert_int_equal(n_refused, 1);
    assert_int_equal(access(dir, F_OK), 0);
    cox_store_backup_remove(f->store);
    assert_int_not_equal(access(dir, F_OK), 0);
    ask_for_backup(f, 3); /* and again; this one is left by a process that is killed */
    struct cox_store_event e = next_event(f);
    assert_int_equal(e.err, COX_OK);
    cox_buf_fini(&e.bytes);
    stop(f);
    start(f);
    assert_int_not_equal(access(dir, F_OK), 0);
    cox_free(dir);
}

static void test_a_store_closes_in_the_middle_of_a_backup(void **state)
{
    struct fixture *f = *state;

    start(f);
    append_padded(f, 1, 30 << 20);
    wait_durable(f, 1);
    ask_for_backup(f, 1);
    stop(f);
    assert_int_equal(start(f), 1);
}

/* Names of the length that blobs have, below one directory. */
static char *name_of(struct fixture *f, unsigned i)
{
    return cox_asprintf("%s/blobs/3f/%062x", f->data_dir, i);
}

/* What the second one links must not be what the first one was looking at when it failed. */
static void test_a_backup_after_one_that_failed_begins_anew(void **state)
{
    struct fixture *f = *state;
    char *sub_dir = cox_asprintf("%s/blobs/3f", f->data_dir);
    struct cox_store_event e;

    start(f);
    put_blob(f, "makes the directory");
    (void)mkdir(sub_dir, 0700);
    for (unsigned i = 0; i < 40; i++) {
        char *path = name_of(f, i);
        assert_int_equal(mkdir(path, 0700), 0); /* has no second name */
        cox_free(path);
    }
    ask_for_backup(f, 1);
    e = next_event(f);
    assert_int_equal(e.err, COX_ERR_IO);
    cox_buf_fini(&e.bytes);
    for (unsigned i = 0; i < 40; i++) {
        char *path = name_of(f, i);
        assert_int_equal(rmdir(path), 0);
        cox_free(path);
    }
    ask_for_backup(f, 2);
    e = next_event(f);
    assert_int_equal(e.err, COX_OK);
    cox_buf_fini(&e.bytes);
    cox_free(sub_dir);
}

static void test_a_backup_leaves_the_room_that_tasks_need(void **state)
{
    struct fixture *f = *state;
    struct cox_store_event e;

    f->min_free = 1ull << 60;
    start(f);
    append_padded(f, 1, 1000);
    ask_for_backup(f, 1);
    e = next_event(f);
    assert_int_equal(e.err, COX_ERR_FULL);
    cox_buf_fini(&e.bytes);
    cox_store_keep(f->store, 0, 0);
    ask_for_backup(f, 2);
    e = next_event(f);
    assert_int_equal(e.err, COX_OK);
    cox_buf_fini(&e.bytes);
}

static void test_restore_refuses_what_is_no_backup_or_not_empty(void **state)
{
    struct fixture *f = *state;
    char *to = cox_asprintf("%s/other", f->dir);

    assert_int_equal(cox_store_restore(f->dir, to, &f->error), COX_ERR_INVALID);
    assert_says(f, "not a backup");
    start(f);
    cox_buf_clear(&f->error);
    assert_int_equal(cox_store_restore(f->data_dir, to, &f->error), COX_ERR_UNAVAILABLE); /* in use */
    stop(f);
    cox_buf_clear(&f->error);
    assert_int_equal(cox_store_restore(f->data_dir, to, &f->error), COX_OK);
    assert_int_equal(cox_store_restore(f->data_dir, to, &f->error), COX_ERR_INVALID);
    assert_says(f, "not empty");
    cox_free(to);
}

/* As on a disk that has no room for all of it. */
static void test_nobody_starts_from_half_a_restored_copy(void **state)
{
    struct fixture *f = *state;
    char *to = cox_asprintf("%s/half", f->dir), *log = cox_asprintf("%s/half/log.db", f->dir);
    struct rlimit limit, small;
    char *text = cox_calloc(1, (4 << 20) + 1);

    start(f);
    memset(text, 'x', 4 << 20);
    put_blob(f, text);
    cox_free(text);
    stop(f);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = (struct rlimit){ 2 << 20, limit.rlim_max };
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    cox_buf_clear(&f->error);
    assert_int_equal(cox_store_restore(f->data_dir, to, &f->error), COX_ERR_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_says(f, "cannot copy to");
    assert_int_not_equal(access(log, F_OK), 0);
    cox_free(f->data_dir);
    f->data_dir = to;
    cox_buf_clear(&f->error);
    assert_int_not_equal(try_open(f, 0), COX_OK);
    cox_free(log);
}

struct problems {
    struct cox_buf text;
};

static void on_problem(void *user, const char *what)
{
    struct problems *p = user;

    cox_buf_printf(&p->text, "%s\n", what);
}

static bool on_task(void *user, uint64_t id, struct cox_slice bytes)
{
    (void)user, (void)id;
    return cox_slice_is(bytes, "task");
}

/* Task 5 is alpha's; of 6 nobody knows any more whose it was. */
static bool on_space(void *user, uint64_t id, struct cox_space *ret)
{
    (void)user;
    *ret = cox_space_of(cox_slice_str(id == 5 ? "alpha" : "default"));
    return id != 6;
}

static void check(struct fixture *f, struct problems *p)
{
    struct cox_store_check c = { .problem = on_problem, .task = on_task, .space = on_space, .user = p };
    uint64_t last_seq;

    cox_buf_clear(&p->text);
    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_OK);
    assert_int_equal(cox_store_check(f->store, &c, &f->error), COX_OK);
    stop(f);
}

static void test_a_check_finds_each_damage(void **state)
{
    struct fixture *f = *state;
    struct problems p = { 0 };

    start(f);
    request(f, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .id = 5 }, "task");
    expect_event(f, COX_STORE_ARCHIVE, 0, COX_OK, "");
    struct cox_hash blob = put_blob(f, "blob");
    request(f, (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = blob, .owner = 5 }, NULL);
    char *path = store_blob_path(f->store->blobs.dir, NULL, &blob);
    stop(f);
    check(f, &p);
    assert_text(&p.text, "");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);
    check(f, &p);
    assert_non_null(strstr(cox_buf_cstr(&p.text), "its bytes are others"));
    assert_int_equal(unlink(path), 0);
    check(f, &p);
    assert_non_null(strstr(cox_buf_cstr(&p.text), "of task 5 is not there"));
    sql(f, "state.db", "DELETE FROM ref; UPDATE archive SET crc = 0");
    check(f, &p);
    assert_non_null(strstr(cox_buf_cstr(&p.text), "archived task 5: its checksum"));
    sql(f, "state.db", "DELETE FROM archive; INSERT INTO payload VALUES(zeroblob(32), 0, 0, x'00')");
    check(f, &p);
    assert_non_null(strstr(cox_buf_cstr(&p.text), "payload sha256:000"));
    cox_free(path);
    cox_buf_fini(&p.text);
}

static void put_value(struct fixture *f, const char *tenant, uint64_t owner, const char *text)
{
    struct cox_store_request req = { .op = COX_STORE_PUT_PAYLOAD,
                                     .owner = owner,
                                     .space = cox_space_of(cox_slice_str(tenant)) };

    SHA256((const unsigned char *)text, strlen(text), req.hash.b);
    request(f, req, text);
}

/* Bytes that are whole, with the checksum that is theirs, under the name of others. */
static void test_a_check_finds_values_under_others_names(void **state)
{
    static const char swap[] = "UPDATE payload SET crc = (SELECT crc FROM payload AS o WHERE o.d = x'%s'),"
                               " d = x'%s' WHERE d = x'%s'";
    static const struct {
        const char *from, *to; /* bytes in hexadecimal */
        bool found;
    } cases[] = {
        { "6f6e65", "74776f", true },    /* alpha's "one" becomes its "two" */
        { "74776f", "64656631", true },  /* and that a value of the default space */
        { "64656631", "6f6e65", true },  /* and that alpha's */
        { "6c6f7374", "6f6e65", false }, /* who owned it is not known: its checksum is right */
    };
    struct fixture *f = *state;
    struct problems p = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text = cox_asprintf(swap, cases[i].to, cases[i].to, cases[i].from);

        start(f);
        put_value(f, "alpha", 5, "one");
        put_value(f, "alpha", 5, "two");
        put_value(f, "default", 7, "def1");
        put_value(f, "beta", 6, "lost");
        stop(f);
        check(f, &p);
        assert_text(&p.text, "");
        sql(f, "state.db", text);
        check(f, &p);
        assert_int_equal(strstr(cox_buf_cstr(&p.text), "its bytes are others") != NULL, cases[i].found);
        sql(f, "state.db", "DELETE FROM payload; DELETE FROM ref");
        cox_free(text);
    }
    cox_buf_fini(&p.text);
}

/* A task's value that is gone is missing, though another tenant has the same bytes. */
static void test_a_check_looks_in_the_owners_space(void **state)
{
    const struct cox_space alpha = cox_space_of(cox_slice_str("alpha"));
    struct fixture *f = *state;
    struct problems p = { 0 };
    struct cox_blob_writer *w;
    struct cox_hash hash;
    uint64_t size;

    start(f);
    assert_int_equal(cox_blob_create(f->store, &w), COX_OK);
    assert_int_equal(cox_blob_write(w, cox_slice_str("large")), COX_OK);
    assert_int_equal(cox_blob_done(w, &alpha, NULL, &hash, &size), COX_OK);
    for (uint64_t owner = 0; owner < 8; owner += 7) /* 0: for ever, whosever it is */
        request(f, (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = hash, .owner = owner },
                NULL);
    stop(f);
    check(f, &p);
    assert_non_null(strstr(cox_buf_cstr(&p.text), "of task 7 is not there"));
    assert_null(strstr(cox_buf_cstr(&p.text), "of task 0 is not there"));
    cox_buf_fini(&p.text);
}

/* What two tenants keep is in a backup as it was: each finds its own there, and nobody the other's. */
static void test_a_backup_keeps_spaces_apart(void **state)
{
    const struct cox_space alpha = cox_space_of(cox_slice_str("alpha")),
                           beta = cox_space_of(cox_slice_str("beta"));
    struct fixture *f = *state;
    struct cox_hash hash;
    struct cox_blob_writer *w;
    uint64_t size;

    start(f);
    put_value(f, "alpha", 5, "small");
    assert_int_equal(cox_blob_create(f->store, &w), COX_OK);
    assert_int_equal(cox_blob_write(w, cox_slice_str("large")), COX_OK);
    assert_int_equal(cox_blob_done(w, &alpha, NULL, &hash, &size), COX_OK);
    request(
        f,
        (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = hash, .space = alpha, .owner = 5 },
        NULL);
    ask_for_backup(f, 1);
    struct cox_store_event e = next_event(f);
    assert_int_equal(e.op, COX_STORE_BACKUP);
    assert_int_equal(e.err, COX_OK);
    cox_buf_fini(&e.bytes);
    (void)start_copy(f);
    assert_true(cox_blob_known(f->store, &alpha, &hash, &size));
    assert_false(cox_blob_known(f->store, &beta, &hash, &size));
    assert_false(cox_blob_known(f->store, NULL, &hash, &size));
    SHA256((const unsigned char *)"small", 5, hash.b);
    request(
        f,
        (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 1, .hash = hash, .space = alpha },
        NULL);
    request(
        f,
        (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 2, .hash = hash, .space = beta },
        NULL);
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .ticket = 3, .hash = hash }, NULL);
    expect_event(f, COX_STORE_READ_PAYLOAD, 1, COX_OK, "small");
    expect_event(f, COX_STORE_READ_PAYLOAD, 2, COX_ERR_NOT_FOUND, "");
    expect_event(f, COX_STORE_READ_PAYLOAD, 3, COX_ERR_NOT_FOUND, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_backup_holds_what_was_durable_when_it_ended),
        TEST(test_one_backup_at_a_time_and_none_left_behind),
        TEST(test_a_store_closes_in_the_middle_of_a_backup),
        TEST(test_a_backup_after_one_that_failed_begins_anew),
        TEST(test_a_backup_leaves_the_room_that_tasks_need),
        TEST(test_restore_refuses_what_is_no_backup_or_not_empty),
        TEST(test_nobody_starts_from_half_a_restored_copy),
        TEST(test_a_check_finds_each_damage),
        TEST(test_a_check_finds_values_under_others_names),
        TEST(test_a_check_looks_in_the_owners_space),
        TEST(test_a_backup_keeps_spaces_apart),
    };

    return cmocka_run_group_tests_name("store backup", tests, NULL, NULL);
}
