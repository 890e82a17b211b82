/* The store over real files: what goes in comes out, in order, after a reopening, and what is damaged is
 * said. */
#include "store_fixture.h"

#include "cox/base/rng.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <signal.h>
#include <sys/wait.h>

/* ---- the log ---- */

static void test_a_new_store_is_empty(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_int_equal(start(f), 0);
    assert_int_equal(cox_store_durable_seq(f->store), 0);
    assert_true(cox_store_uid(f->store) != 0);
    assert_int_equal(stat(f->data_dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

/* A process that is killed leaves a write-ahead log behind, here one of 3 MiB: larger than what one write to
 * a SQLite file can carry. */
static void test_a_killed_process_leaves_nothing_behind_that_was_acknowledged(void **state)
{
    struct fixture *f = *state;
    pid_t pid = fork();
    int status;

    if (pid == 0) { /* the only thread of its process until start() */
        struct cox_buf b = { 0 };

        start(f);
        for (uint64_t seq = 1; seq <= 3; seq++) {
            memset(cox_buf_extend(&b, 1 << 20), (int)('a' + seq), 1 << 20);
            if (!cox_store_append(f->store, seq, 1, &b))
                _exit(1);
            wait_durable(f, seq);
        }
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(start(f), 3);
    assert_int_equal(f->log.len, 3 << 20);
    assert_int_equal(f->log.data[0], 'b');
    assert_int_equal(f->log.data[f->log.len - 1], 'd');
}

static void test_appended_records_are_recovered_in_order(void **state)
{
    struct fixture *f = *state;

    start(f);
    uint64_t uid = cox_store_uid(f->store);

    append(f, 1, 2, "one two ");
    append(f, 3, 1, "three ");
    wait_durable(f, 3);
    append(f, 4, 1, "four ");
    stop(f); /* commits what was handed over */

    assert_int_equal(start(f), 4);
    assert_true(cox_store_uid(f->store) == uid);
    assert_int_equal(cox_store_durable_seq(f->store), 4);
    assert_text(&f->log, "one two three four ");
    append(f, 5, 1, "five ");
    stop(f);
    assert_int_equal(start(f), 5);
    assert_text(&f->log, "one two three four five ");
}

static void test_empty_records_are_records(void **state)
{
    struct fixture *f = *state;

    start(f);
    append(f, 1, 7, "");
    stop(f);
    assert_int_equal(start(f), 7);
    assert_text(&f->log, "");
}

static void test_what_waits_is_one_commit(void **state)
{
    struct fixture *f = *state;
    struct cox_store_stats stats;
    uint64_t last_seq = 0;

    /* The threads are not started yet: to the ring that is a very slow disk. */
    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_OK);
    for (uint64_t seq = 1; seq <= 100; seq++)
        append(f, seq, 1, "x");
    assert_int_equal(cox_store_append_room(f->store), 1024 - 100);
    assert_int_equal(cox_store_durable_seq(f->store), 0);
    assert_int_equal(cox_store_start(f->store), COX_OK);
    wait_durable(f, 100);
    cox_store_stats(f->store, &stats);
    assert_int_equal(stats.commits, 1);
    assert_int_equal(stats.records, 100);
    assert_true(stats.log_bytes >= 100);
    assert_true(stats.log_file_bytes > 0 && stats.state_file_bytes > 0);
}

static void test_a_full_ring_refuses_and_keeps_the_records(void **state)
{
    struct fixture *f = *state;
    struct cox_buf b = { 0 };
    uint64_t last_seq = 0;
    uint64_t seq = 1;

    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_OK);
    while (cox_store_append_room(f->store) > 0)
        append(f, seq++, 1, "x");
    assert_int_equal(seq, 1025);
    cox_buf_append_str(&b, "y");
    assert_false(cox_store_append(f->store, seq, 1, &b));
    assert_text(&b, "y");
    assert_int_equal(cox_store_start(f->store), COX_OK);
    wait_durable(f, seq - 1);
    assert_true(cox_store_append(f->store, seq, 1, &b));
    stop(f);
    assert_int_equal(start(f), seq);
}

static void test_bytes_waiting_are_bounded_too(void **state)
{
    struct fixture *f = *state;
    struct cox_buf b = { 0 };
    uint64_t last_seq = 0;
    uint64_t seq = 1;

    f->uri = "memory";
    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_OK);
    for (;; seq++) {
        memset(cox_buf_extend(&b, 32u << 20), 0, 32u << 20);
        if (!cox_store_append(f->store, seq, 1, &b))
            break;
    }
    assert_int_equal(seq, 9); /* eight times 32 MiB */
    assert_int_equal(b.len, 32u << 20);
    assert_int_equal(cox_store_append_room(f->store), 0);
    cox_buf_fini(&b);
}

/* ---- truncation ---- */

static void test_truncation_drops_whole_rows_and_keeps_the_place(void **state)
{
    struct fixture *f = *state;

    start(f);
    append(f, 1, 2, "a b ");
    wait_durable(f, 2);
    append(f, 3, 2, "c d ");
    wait_durable(f, 4);
    request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .ticket = 7, .seq = 3 }, NULL);
    expect_event(f, COX_STORE_TRUNCATE, 7, COX_OK, "");
    stop(f);

    assert_int_equal(start(f), 4); /* record 3 shares its row with 4 */
    assert_text(&f->log, "c d ");
    request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .ticket = 8, .seq = 4 }, NULL);
    expect_event(f, COX_STORE_TRUNCATE, 8, COX_OK, "");
    stop(f);

    assert_int_equal(start(f), 4); /* nothing is left but the place */
    assert_text(&f->log, "");
    append(f, 5, 1, "e ");
    stop(f);
    assert_int_equal(start(f), 5);
    assert_text(&f->log, "e ");
}

static void test_a_long_log_is_dropped_in_steps(void **state)
{
    struct fixture *f = *state;
    struct cox_buf b = { 0 };

    start(f);
    for (uint64_t seq = 1; seq <= 200; seq++) {
        memset(cox_buf_extend(&b, 100000), 'x', 100000);
        assert_true(cox_store_append(f->store, seq, 1, &b));
        wait_durable(f, seq);
    }
    request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .seq = 199 }, NULL);
    append(f, 201, 1, "y");
    expect_event(f, COX_STORE_TRUNCATE, 0, COX_OK, "");
    stop(f);
    assert_int_equal(start(f), 201);
    assert_int_equal(f->log.len, 100001);
}

/* ---- the state ---- */

static void test_entities_are_saved_replaced_and_forgotten(void **state)
{
    struct fixture *f = *state;
    struct cox_store_request save = { .op = COX_STORE_SAVE,
                                      .key = { .kind = 1, .id = UINT64_MAX, .sub = 3 } };
    struct cox_store_request forget = { .op = COX_STORE_FORGET, .key = { .kind = 1, .id = 5, .sub = 0 } };

    start(f);
    append(f, 1, 9, "records");
    save.seq = 4;
    request(f, save, "old");
    save.seq = 9;
    request(f, save, "new");
    save.key.kind = 255;
    save.key.sub = UINT32_MAX;
    request(f, save, "other");
    save.key = forget.key;
    request(f, save, "gone");
    request(f, forget, NULL);
    request(f, forget, NULL); /* forgetting twice is no error */
    stop(f);
    start(f);
    assert_text(&f->entities, "1/18446744073709551615/3@9=new 255/18446744073709551615/4294967295@9=other ");
}

static void test_reads_see_what_was_handed_over_before(void **state)
{
    struct fixture *f = *state;
    struct cox_store_request put = { .op = COX_STORE_PUT_PAYLOAD };
    struct cox_store_request get = { .op = COX_STORE_READ_PAYLOAD, .ticket = 2 };
    struct cox_store_request archive = { .op = COX_STORE_ARCHIVE, .ticket = 3, .id = 99 };
    struct cox_store_request read = { .op = COX_STORE_READ_ARCHIVE, .ticket = 4, .id = 99 };

    SHA256((const unsigned char *)"payload", 7, put.hash.b);
    get.hash = put.hash;
    start(f);
    request(f, get, NULL);
    request(f, put, "payload");
    request(f, put, "not stored again");
    request(f, get, NULL);
    request(f, archive, "first");
    request(f, archive, "second");
    request(f, read, NULL);
    read.id = 100;
    request(f, read, NULL);
    expect_event(f, COX_STORE_READ_PAYLOAD, 2, COX_ERR_NOT_FOUND, "");
    expect_event(f, COX_STORE_READ_PAYLOAD, 2, COX_OK, "payload");
    expect_event(f, COX_STORE_ARCHIVE, 3, COX_OK, "");
    expect_event(f, COX_STORE_ARCHIVE, 3, COX_OK, "");
    expect_event(f, COX_STORE_READ_ARCHIVE, 4, COX_OK, "second");
    expect_event(f, COX_STORE_READ_ARCHIVE, 4, COX_ERR_NOT_FOUND, "");
    stop(f);

    start(f);
    read.id = 99;
    request(f, read, NULL);
    request(f, get, NULL);
    expect_event(f, COX_STORE_READ_ARCHIVE, 4, COX_OK, "second");
    expect_event(f, COX_STORE_READ_PAYLOAD, 2, COX_OK, "payload");
}

static void test_a_save_waits_for_its_records(void **state)
{
    struct fixture *f = *state;
    struct cox_store_request save = { .op = COX_STORE_SAVE, .seq = 1, .key = { .kind = 1 } };
    struct cox_store_request archive = { .op = COX_STORE_ARCHIVE };

    start(f);
    append(f, 1, 1, "record");
    request(f, save, "entity");
    request(f, archive, "task");
    expect_event(f, COX_STORE_ARCHIVE, 0, COX_OK, "");
    assert_int_equal(cox_store_durable_seq(f->store), 1);
}

static void test_values_longer_than_a_page(void **state)
{
    struct fixture *f = *state;
    struct cox_store_request req = { .op = COX_STORE_ARCHIVE, .id = 1 };
    struct cox_store_event e;

    start(f);
    for (size_t i = 0; i < 1u << 20; i++)
        cox_put_u8(&req.bytes, (uint8_t)(i * 7));
    assert_true(cox_store_request(f->store, &req));
    expect_event(f, COX_STORE_ARCHIVE, 0, COX_OK, "");
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_ARCHIVE, .id = 1 }, NULL);
    e = next_event(f);
    assert_int_equal(e.err, COX_OK);
    assert_int_equal(e.bytes.len, 1u << 20);
    for (size_t i = 0; i < e.bytes.len; i++)
        if (e.bytes.data[i] != (uint8_t)(i * 7))
            fail_msg("byte %zu", i);
    cox_buf_fini(&e.bytes);
}

static void test_events_have_room_or_the_request_is_refused(void **state)
{
    struct fixture *f = *state;
    struct cox_store_request read = { .op = COX_STORE_READ_ARCHIVE, .id = 1 };
    struct cox_store_event e;
    size_t n = 0;

    start(f);
    while (cox_store_request(f->store, &read))
        n++;
    assert_int_equal(n, 1024);
    for (; n > 0; n--)
        e = next_event(f);
    assert_int_equal(e.err, COX_ERR_NOT_FOUND);
    assert_false(cox_store_poll(f->store, &e));
    assert_true(cox_store_request(f->store, &read));
}

static void test_memory_forgets_at_close(void **state)
{
    struct fixture *f = *state;

    f->uri = "memory";
    start(f);
    append(f, 1, 1, "x");
    request(f, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .id = 1, .seq = 1 }, "task");
    expect_event(f, COX_STORE_ARCHIVE, 0, COX_OK, "");
    request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .seq = 1 }, NULL);
    expect_event(f, COX_STORE_TRUNCATE, 0, COX_OK, "");
    stop(f);
    assert_int_equal(start(f), 0);
    assert_int_equal(access(f->data_dir, F_OK), -1);
}

/* ---- refusals ---- */

static void test_a_second_process_is_locked_out(void **state)
{
    struct fixture *f = *state;
    int ready[2];
    int status;
    char c;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();

    if (pid == 0) {
        bool ok = try_open(f, 0) == COX_OK && write(ready[1], "x", 1) == 1;

        while (ok)
            (void)pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    char *expected = cox_asprintf("another coxd (pid %ld) holds %s", (long)pid, f->data_dir);

    assert_int_equal(try_open(f, 0), COX_ERR_UNAVAILABLE);
    assert_text(&f->error, expected);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(start(f), 0); /* the lock went with its holder */
    (void)close(ready[0]);
    (void)close(ready[1]);
    cox_free(expected);
}

static void test_a_damaged_row_is_named(void **state)
{
    struct fixture *f = *state;
    uint64_t last_seq;

    start(f);
    append(f, 1, 3, "abc");
    wait_durable(f, 3);
    append(f, 4, 2, "de");
    stop(f);
    sql(f, "log.db", "UPDATE log SET d = CAST(substr(d, 1, 25) || x'00' AS BLOB) WHERE last_seq = 5");
    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_ERR_CORRUPT);
    assert_says(f, "log.db: row 5 of table log: its checksum does not match");
}

static void test_a_missing_row_is_named(void **state)
{
    struct fixture *f = *state;
    uint64_t last_seq;

    start(f);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        append(f, seq, 1, "x");
        wait_durable(f, seq);
    }
    stop(f);
    sql(f, "log.db", "DELETE FROM log WHERE last_seq = 1");
    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_ERR_CORRUPT);
    assert_says(f, "row 2 of table log: begins at 2, after 0: rows are missing");
}

static void test_a_damaged_entity_is_named(void **state)
{
    struct fixture *f = *state;
    uint64_t last_seq;

    start(f);
    request(f, (struct cox_store_request){ .op = COX_STORE_SAVE, .key = { 2, 77, 5 } }, "entity");
    stop(f);
    sql(f, "state.db", "UPDATE entity SET d = x'00'");
    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_ERR_CORRUPT);
    assert_says(f, "state.db: entity (2, 77, 5): its checksum does not match");
}

/* 65,000 steps with an output of 4 KiB each are a legal task. */
static void test_a_task_longer_than_the_queue_is_archived(void **state)
{
    const size_t len = 270u << 20;
    struct fixture *f = *state;
    struct cox_store_request req = { .op = COX_STORE_ARCHIVE, .id = 1 };

    f->uri = "memory";
    start(f);
    memset(cox_buf_extend(&req.bytes, len), 'x', len);
    assert_true(cox_store_request(f->store, &req));
    struct cox_store_event e = next_event(f);

    assert_int_equal(e.op, COX_STORE_ARCHIVE);
    assert_int_equal(e.err, COX_OK);
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_ARCHIVE, .id = 1 }, NULL);
    e = next_event(f);
    assert_int_equal(e.err, COX_OK);
    assert_int_equal(e.bytes.len, len);
    cox_buf_fini(&e.bytes);
}

static void test_a_damaged_archive_is_an_answer(void **state)
{
    struct fixture *f = *state;

    start(f);
    request(f, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .id = 1 }, "task");
    stop(f);
    sql(f, "state.db", "UPDATE archive SET d = x'00'");
    start(f);
    request(f, (struct cox_store_request){ .op = COX_STORE_READ_ARCHIVE, .id = 1 }, NULL);
    expect_event(f, COX_STORE_READ_ARCHIVE, 0, COX_ERR_CORRUPT, "");
}

static void test_a_newer_format_is_refused(void **state)
{
    struct fixture *f = *state;

    start(f);
    stop(f);
    sql(f, "log.db", "PRAGMA user_version = 2");
    assert_int_equal(try_open(f, 0), COX_ERR_INVALID);
    assert_says(f, "log.db: a newer coxd made it (format 2, this one knows 1)");
}

static void test_another_shards_directory_is_refused(void **state)
{
    struct fixture *f = *state;

    start(f);
    stop(f);
    assert_int_equal(try_open(f, 1), COX_ERR_INVALID);
    assert_says(f, "belongs to shard 0, not to shard 1");
}

static void test_files_that_do_not_belong_together_are_refused(void **state)
{
    struct fixture *f = *state;

    start(f);
    append(f, 1, 1, "x");
    request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .seq = 1 }, NULL);
    expect_event(f, COX_STORE_TRUNCATE, 0, COX_OK, "");
    stop(f);
    sql(f, "state.db", "UPDATE covered SET seq = 0"); /* as an older backup has it */
    assert_int_equal(try_open(f, 0), COX_ERR_CORRUPT);
    assert_says(f, "restore both files from the same backup");
    sql(f, "state.db", "UPDATE identity SET uid = uid + 1");
    assert_int_equal(try_open(f, 0), COX_ERR_INVALID);
    assert_says(f, "does not belong to the log.db beside it");
}

static void test_state_ahead_of_the_log_is_refused(void **state)
{
    struct fixture *f = *state;
    uint64_t last_seq;

    start(f);
    append(f, 1, 2, "xy");
    request(f, (struct cox_store_request){ .op = COX_STORE_SAVE, .seq = 2 }, "entity");
    stop(f);
    sql(f, "log.db", "DELETE FROM log"); /* as an older backup has it */
    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_ERR_CORRUPT);
    assert_says(f, "an entity has applied record 2");
}

static void test_foreign_files_and_unknown_stores_are_refused(void **state)
{
    struct fixture *f = *state;

    f->uri = "granite";
    assert_int_equal(try_open(f, 0), COX_ERR_INVALID);
    assert_says(f, "store \"granite\": not known");
    f->uri = "sqlite";
    start(f);
    stop(f);
    sql(f, "log.db", "PRAGMA application_id = 5");
    assert_int_equal(try_open(f, 0), COX_ERR_INVALID);
    assert_says(f, "is not a log.db of Coxswain");
}

static void test_the_directory_cannot_be_made(void **state)
{
    struct fixture *f = *state;
    char *data_dir = f->data_dir;

    f->data_dir = cox_asprintf("%s/not/there", f->dir);
    assert_int_equal(try_open(f, 0), COX_ERR_IO);
    assert_says(f, "cannot make the data directory");
    assert_says(f, "No such file or directory");
    cox_free(f->data_dir);
    f->data_dir = data_dir;
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_store_is_empty),
        TEST(appended_records_are_recovered_in_order),
        TEST(a_killed_process_leaves_nothing_behind_that_was_acknowledged),
        TEST(empty_records_are_records),
        TEST(what_waits_is_one_commit),
        TEST(a_full_ring_refuses_and_keeps_the_records),
        TEST(bytes_waiting_are_bounded_too),
        TEST(truncation_drops_whole_rows_and_keeps_the_place),
        TEST(a_long_log_is_dropped_in_steps),
        TEST(entities_are_saved_replaced_and_forgotten),
        TEST(reads_see_what_was_handed_over_before),
        TEST(a_save_waits_for_its_records),
        TEST(values_longer_than_a_page),
        TEST(events_have_room_or_the_request_is_refused),
        TEST(memory_forgets_at_close),
        TEST(a_second_process_is_locked_out),
        TEST(a_damaged_row_is_named),
        TEST(a_missing_row_is_named),
        TEST(a_damaged_entity_is_named),
        TEST(a_task_longer_than_the_queue_is_archived),
        TEST(a_damaged_archive_is_an_answer),
        TEST(a_newer_format_is_refused),
        TEST(another_shards_directory_is_refused),
        TEST(files_that_do_not_belong_together_are_refused),
        TEST(state_ahead_of_the_log_is_refused),
        TEST(foreign_files_and_unknown_stores_are_refused),
        TEST(the_directory_cannot_be_made),
    };

    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
