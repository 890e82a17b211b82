/* Deletion, retention and the sweep: what goes, what stays, and what does not come back. */
#include "store_fixture.h"

#include "orchestrator/store/row.h"

#include "cox/base/units.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <time.h>

#define HOUR_MS (3600 * 1000LL)
#define DAY_MS (24 * HOUR_MS)

static struct cox_hash hash_of(const char *text)
{
    struct cox_hash h;

    SHA256((const unsigned char *)text, strlen(text), h.b);
    return h;
}

static void archive(struct fixture *f, uint64_t id, uint64_t root)
{
    request(f, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .ticket = id, .id = id, .owner = root },
            "task");
    expect_event(f, COX_STORE_ARCHIVE, id, COX_OK, "");
}

static void put(struct fixture *f, const char *text, uint64_t owner)
{
    request(f,
            (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = hash_of(text), .owner = owner },
            text);
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

static enum cox_err answer_to(struct fixture *f, struct cox_store_request req)
{
    request(f, req, NULL);
    struct cox_store_event e = next_event(f);

    assert_int_equal(e.op, req.op);
    cox_buf_fini(&e.bytes);
    return e.err;
}

static bool has_task(struct fixture *f, uint64_t id)
{
    return answer_to(f, (struct cox_store_request){ .op = COX_STORE_READ_ARCHIVE, .id = id }) == COX_OK;
}

static bool has_value(struct fixture *f, const char *text)
{
    return answer_to(f, (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD, .hash = hash_of(text) }) ==
           COX_OK;
}

static enum cox_err forget(struct fixture *f, uint64_t id)
{
    return answer_to(f, (struct cox_store_request){ .op = COX_STORE_DELETE, .id = id });
}

/* A whole pass. `in_use`: 0, or a task that is about to run again. */
static void sweep_but(struct fixture *f, uint64_t in_use)
{
    for (bool more = true; more;) {
        struct cox_store_request req = { .op = COX_STORE_SWEEP };

        for (uint64_t i = 1000; in_use != 0 && i < 1003; i++) /* others, which are not there */
            cox_put_u64(&req.bytes, i);
        if (in_use != 0)
            cox_put_u64(&req.bytes, in_use);
        request(f, req, NULL);
        struct cox_store_event e = next_event(f);

        assert_int_equal(e.op, COX_STORE_SWEEP);
        assert_int_equal(e.err, COX_OK);
        more = e.id == 1;
    }
}

static void sweep(struct fixture *f)
{
    sweep_but(f, 0);
}

/* Makes all of it older, from outside. */
static void age(struct fixture *f, int64_t ms)
{
    char *text = cox_asprintf("UPDATE ended SET ended_ms = ended_ms - %" PRId64
                              "; UPDATE payload SET created_ms = created_ms - %" PRId64,
                              ms, ms);

    stop(f);
    sql(f, "state.db", text);
    cox_free(text);
    start(f);
}

static void age_blob_in(struct fixture *f, const struct cox_space *space, const struct cox_hash *hash,
                        int64_t ms)
{
    char *path = store_blob_path(f->store->blobs.dir, space, hash);
    int64_t then_ms = cox_clock_wall_ms() - ms;
    struct timespec times[2] = { { then_ms / 1000, 0 }, { then_ms / 1000, 0 } };

    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    cox_free(path);
}

static void age_blob(struct fixture *f, const struct cox_hash *hash, int64_t ms)
{
    age_blob_in(f, NULL, hash, ms);
}

static void index_row(struct fixture *f, uint64_t id, enum cox_task_status status)
{
    struct cox_index_row row = { .id = id, .status = (uint8_t)status, .created_wall_ms = (int64_t)id };
    struct cox_store_request req = { .op = COX_STORE_INDEX, .id = id };

    cox_index_row_encode(&req.bytes, &row);
    assert_true(cox_store_request(f->store, &req));
}

static uint32_t n_listed(struct fixture *f)
{
    struct cox_index_query q = { .limit = 1000 };
    struct cox_store_request req = { .op = COX_STORE_LIST };
    struct cox_index_page page;

    cox_index_query_encode(&req.bytes, &q);
    assert_true(cox_store_request(f->store, &req));
    struct cox_store_event e = next_event(f);
    assert_int_equal(e.err, COX_OK);
    assert_int_equal(cox_index_page_open(cox_buf_slice(&e.bytes), &page), COX_OK);
    cox_buf_fini(&e.bytes);
    return page.n;
}

static void test_a_deleted_task_goes_with_its_frames_and_index_row(void **state)
{
    struct fixture *f = *state;

    start(f);
    archive(f, 2, 1); /* a frame ends before its root */
    archive(f, 1, 0);
    archive(f, 3, 0);
    index_row(f, 1, COX_TASK_SUCCEEDED);
    index_row(f, 3, COX_TASK_SUCCEEDED);
    assert_int_equal(forget(f, 2), COX_ERR_NOT_FOUND); /* not by itself */
    assert_int_equal(forget(f, 1), COX_OK);
    assert_false(has_task(f, 1));
    assert_false(has_task(f, 2));
    assert_true(has_task(f, 3));
    assert_int_equal(n_listed(f), 1);
    assert_int_equal(forget(f, 1), COX_ERR_NOT_FOUND);
}

/* The log still has the task's records: recovery hands it to the archive once more. */
static void test_a_deleted_task_does_not_come_back_with_the_log(void **state)
{
    struct fixture *f = *state;

    start(f);
    append(f, 1, 1, "r");
    wait_durable(f, 1);
    archive(f, 1, 0);
    assert_int_equal(forget(f, 1), COX_OK);
    stop(f);
    start(f);
    archive(f, 2, 1);
    archive(f, 1, 0);
    put(f, "value", 1);
    index_row(f, 1, COX_TASK_SUCCEEDED);
    assert_false(has_task(f, 1));
    assert_false(has_task(f, 2));
    assert_false(has_value(f, "value"));
    assert_int_equal(n_listed(f), 0);
    /* Once the log is cut behind it, and once more, nothing is left to remember. */
    for (uint64_t seq = 2; seq <= 3; seq++) {
        append(f, seq, 1, "r");
        wait_durable(f, seq);
        request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .seq = seq }, NULL);
        expect_event(f, COX_STORE_TRUNCATE, 0, COX_OK, "");
    }
    assert_int_equal(f->store->state.n_deleted, 0);
}

static void test_a_task_with_many_frames_goes_in_pieces(void **state)
{
    struct fixture *f = *state;

    start(f);
    for (uint64_t id = 2; id <= 1001; id++)
        archive(f, id, 1);
    archive(f, 1, 0);
    assert_int_equal(forget(f, 1), COX_OK);
    assert_false(has_task(f, 1));
    assert_true(has_task(f, 1001)); /* not yet */
    stop(f);
    start(f);
    sweep(f);
    for (uint64_t id = 2; id <= 1001; id++)
        assert_false(has_task(f, id));
}

static void test_retention_takes_the_old_and_leaves_what_runs_again(void **state)
{
    struct fixture *f = *state;

    f->retention_ms = 7 * DAY_MS;
    start(f);
    archive(f, 2, 1);
    archive(f, 1, 0);
    archive(f, 3, 0);
    archive(f, 5, 4); /* a frame whose root still runs */
    index_row(f, 1, COX_TASK_FAILED);
    index_row(f, 3, COX_TASK_FAILED);
    age(f, 6 * DAY_MS);
    sweep(f);
    assert_true(has_task(f, 1) && has_task(f, 2) && has_task(f, 3) && has_task(f, 5));
    index_row(f, 3, COX_TASK_PENDING); /* retried */
    age(f, 2 * DAY_MS);
    archive(f, 6, 0);
    sweep(f);
    assert_false(has_task(f, 1));
    assert_false(has_task(f, 2));
    assert_true(has_task(f, 3));
    assert_true(has_task(f, 5));
    assert_true(has_task(f, 6));
    assert_int_equal(n_listed(f), 1);
    struct cox_store_stats stats;
    cox_store_stats(f->store, &stats);
    assert_int_equal(stats.n_swept, 1);
}

/* Its bytes were read for a retry; that it lives is told behind the sweep. Once it was taken in between, its
 * result had nowhere to go. */
static void test_retention_leaves_what_is_about_to_run_again(void **state)
{
    struct fixture *f = *state;

    f->retention_ms = 7 * DAY_MS;
    start(f);
    archive(f, 1, 0);
    archive(f, 2, 0);
    index_row(f, 1, COX_TASK_FAILED);
    index_row(f, 2, COX_TASK_FAILED);
    age(f, 8 * DAY_MS);
    sweep_but(f, 1);
    assert_true(has_task(f, 1));
    assert_false(has_task(f, 2));
    index_row(f, 1, COX_TASK_PENDING);
    sweep(f);
    assert_true(has_task(f, 1));
    index_row(f, 1, COX_TASK_SUCCEEDED);
    archive(f, 1, 0);
    age(f, 8 * DAY_MS);
    sweep(f);
    assert_false(has_task(f, 1));
}

static void test_without_retention_tasks_stay(void **state)
{
    struct fixture *f = *state;

    start(f);
    archive(f, 1, 0);
    age(f, 1000 * DAY_MS);
    sweep(f);
    assert_true(has_task(f, 1));
}

static void test_payloads_go_when_nobody_owns_them_and_they_are_old(void **state)
{
    struct fixture *f = *state;

    start(f);
    archive(f, 1, 0);
    archive(f, 2, 0);
    put(f, "of one", 1);
    put(f, "of two", 2);
    put(f, "of both", 1);
    put(f, "of both", 2);
    put(f, "for ever", 0);
    assert_int_equal(forget(f, 1), COX_OK);
    sweep(f);
    assert_true(has_value(f, "of one")); /* too young */
    age(f, 25 * HOUR_MS);
    sweep(f);
    assert_false(has_value(f, "of one"));
    assert_true(has_value(f, "of two"));
    assert_true(has_value(f, "of both"));
    assert_true(has_value(f, "for ever"));
}

/* Values of a fork are those of the task it was made from. */
static void test_what_one_task_owns_another_may_own_too(void **state)
{
    struct fixture *f = *state;

    start(f);
    archive(f, 1, 0);
    put(f, "of both", 1);
    request(f, (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .id = 1, .owner = 2 }, NULL);
    put(f, "of one", 1);
    assert_int_equal(forget(f, 1), COX_OK);
    age(f, 25 * HOUR_MS);
    sweep(f);
    assert_true(has_value(f, "of both"));
    assert_false(has_value(f, "of one"));
}

static void test_blobs_go_when_nobody_owns_or_touched_them(void **state)
{
    struct fixture *f = *state;
    uint64_t size;

    start(f);
    struct cox_hash owned = put_blob(f, "owned"), old = put_blob(f, "old"), young = put_blob(f, "young");
    struct cox_hash touched = put_blob(f, "touched"), again = put_blob(f, "again");

    request(f, (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = owned, .owner = 1 }, NULL);
    age_blob(f, &owned, 100 * DAY_MS);
    age_blob(f, &old, 25 * HOUR_MS);
    age_blob(f, &young, 23 * HOUR_MS);
    age_blob(f, &touched, 25 * HOUR_MS);
    age_blob(f, &again, 25 * HOUR_MS);
    assert_true(cox_blob_known(f->store, NULL, &touched, &size));
    (void)put_blob(f, "again");
    sweep(f);
    assert_true(cox_blob_known(f->store, NULL, &owned, &size));
    assert_true(cox_blob_known(f->store, NULL, &young, &size));
    assert_true(cox_blob_known(f->store, NULL, &touched, &size));
    assert_true(cox_blob_known(f->store, NULL, &again, &size));
    assert_false(cox_blob_known(f->store, NULL, &old, &size));
    struct cox_store_stats stats;
    cox_store_stats(f->store, &stats);
    assert_int_equal(stats.n_swept, 1);
    assert_int_equal(stats.blob_bytes, 5 + 5 + 7 + 5);
}

static enum cox_err read_value(struct fixture *f, const struct cox_space *space, const char *text)
{
    return answer_to(f, (struct cox_store_request){
                            .op = COX_STORE_READ_PAYLOAD, .hash = hash_of(text), .space = *space });
}

static void put_in(struct fixture *f, const struct cox_space *space, const char *text, uint64_t owner)
{
    request(f,
            (struct cox_store_request){
                .op = COX_STORE_PUT_PAYLOAD, .hash = hash_of(text), .space = *space, .owner = owner },
            text);
}

static void put_blob_in(struct fixture *f, const struct cox_space *space, const char *text)
{
    struct cox_blob_writer *w;
    struct cox_hash hash;
    uint64_t size;

    assert_int_equal(cox_blob_create(f->store, &w), COX_OK);
    assert_int_equal(cox_blob_write(w, cox_slice_str(text)), COX_OK);
    assert_int_equal(cox_blob_done(w, space, NULL, &hash, &size), COX_OK);
}

/* Not asked for: that would make it young. */
static bool is_there(struct fixture *f, const struct cox_space *space, const struct cox_hash *hash)
{
    char *path = store_blob_path(f->store->blobs.dir, space, hash);
    bool there = access(path, F_OK) == 0;

    cox_free(path);
    return there;
}

/* The same bytes of two tenants and of the default one: each goes with its own owner, alone. */
static void test_a_sweep_takes_what_one_tenant_has_left(void **state)
{
    const struct cox_space spaces[] = { cox_space_of(cox_slice_str("alpha")),
                                        cox_space_of(cox_slice_str("beta")),
                                        cox_space_of(cox_slice_str("default")) };
    struct fixture *f = *state;
    struct cox_hash blob = hash_of("large");

    start(f);
    for (uint64_t i = 0; i < 3; i++) {
        archive(f, i + 1, 0);
        put_in(f, &spaces[i], "small", i + 1);
        put_blob_in(f, &spaces[i], "large");
        request(f,
                (struct cox_store_request){
                    .op = COX_STORE_PUT_PAYLOAD, .hash = blob, .space = spaces[i], .owner = i + 1 },
                NULL);
    }
    age(f, 25 * HOUR_MS);
    for (size_t i = 0; i < ARRAY_LEN(spaces); i++)
        age_blob_in(f, &spaces[i], &blob, 25 * HOUR_MS);
    for (uint64_t gone = 0; gone < 3; gone++) {
        assert_int_equal(forget(f, gone + 1), COX_OK);
        sweep(f);
        sweep(f); /* a blob goes once it is synced that its owners went */
        for (uint64_t i = 0; i < 3; i++) {
            assert_int_equal(read_value(f, &spaces[i], "small"), i <= gone ? COX_ERR_NOT_FOUND : COX_OK);
            assert_int_equal(is_there(f, &spaces[i], &blob), i > gone);
        }
    }
}

/* Directories of format 1 know neither owners nor ages. */
static void test_an_older_directory_keeps_everything(void **state)
{
    static const char old[] =
        "CREATE TABLE identity(one INTEGER PRIMARY KEY CHECK (one = 1), shard INTEGER NOT NULL,"
        " uid INTEGER NOT NULL); INSERT INTO identity SELECT 1, 0, 77;"
        "CREATE TABLE entity(kind INTEGER NOT NULL, id INTEGER NOT NULL, sub INTEGER NOT NULL,"
        " applied_seq INTEGER NOT NULL, crc INTEGER NOT NULL, d BLOB NOT NULL,"
        " PRIMARY KEY(kind, id, sub)) WITHOUT ROWID;"
        "CREATE TABLE payload(hash BLOB NOT NULL UNIQUE, crc INTEGER NOT NULL,"
        " created_ms INTEGER NOT NULL, d BLOB NOT NULL);"
        "CREATE TABLE archive(id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, d BLOB NOT NULL);"
        "CREATE TABLE covered(one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL,"
        " syncs INTEGER NOT NULL); INSERT INTO covered VALUES(1, 0, 0);"
        "PRAGMA application_id = 1131378803; PRAGMA user_version = 1;";
    struct fixture *f = *state;
    char *path = cox_asprintf("%s/state.db", f->data_dir);

    f->retention_ms = 7 * DAY_MS;
    start(f);
    stop(f);
    assert_int_equal(unlink(path), 0);
    cox_free(path);
    sql(f, "state.db", old);
    sql(f, "log.db", "UPDATE identity SET uid = 77");
    char *text = cox_asprintf("INSERT INTO archive VALUES(1, %" PRIu32 ", CAST('task' AS BLOB));"
                              "INSERT INTO archive SELECT 3, crc, d FROM archive;"
                              "INSERT INTO payload VALUES(x'%064d', 0, 0, x'00')",
                              store_crc(cox_slice_str("task")), 0);
    sql(f, "state.db", text);
    cox_free(text);
    start(f);
    sweep(f);
    assert_true(has_task(f, 1));
    assert_int_equal(answer_to(f, (struct cox_store_request){ .op = COX_STORE_READ_PAYLOAD }),
                     COX_ERR_CORRUPT); /* there, that is */
    archive(f, 2, 1);
    assert_int_equal(forget(f, 1), COX_OK);
    assert_false(has_task(f, 2));
    assert_true(has_task(f, 3));
    age(f, 8 * DAY_MS); /* since it was brought up to date */
    sweep(f);
    assert_false(has_task(f, 3));
}

/* One request inside the transaction that is open. */
static uint64_t work(struct fixture *f, enum cox_store_op op, uint64_t id)
{
    struct store_item item = { .req = { .op = op, .id = id } };

    assert_int_equal(store_state_work(f->store, &item, &f->error), COX_OK);
    assert_int_equal(item.answer, COX_OK);
    return item.req.id;
}

/* A crash in the middle takes the deletion back, and the task wants its blob. */
static void test_a_blob_goes_after_its_owner_has_gone_for_good(void **state)
{
    struct fixture *f = *state;
    uint64_t last_seq, size;

    start(f);
    archive(f, 1, 0);
    struct cox_hash blob = put_blob(f, "a blob");
    request(f, (struct cox_store_request){ .op = COX_STORE_PUT_PAYLOAD, .hash = blob, .owner = 1 }, NULL);
    stop(f);
    assert_int_equal(try_open(f, 0), COX_OK);
    assert_int_equal(try_recover(f, &last_seq), COX_OK);
    age_blob(f, &blob, 2 * DAY_MS);
    while (!f->store->index.complete)
        assert_int_equal(store_state_rebuild(f->store, &f->error), COX_OK);
    assert_int_equal(store_state_begin(&f->store->state, &f->error), COX_OK);
    (void)work(f, COX_STORE_DELETE, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(work(f, COX_STORE_SWEEP, 0), 1); /* there is more to do */
    assert_int_equal(store_index_commit(&f->store->index, &f->error), COX_OK);
    assert_int_equal(store_state_commit(&f->store->state, &f->error), COX_OK);
    assert_true(cox_blob_known(f->store, NULL, &blob, &size));
    age_blob(f, &blob, 2 * DAY_MS);
    stop(f);
    start(f);
    sweep(f);
    assert_false(cox_blob_known(f->store, NULL, &blob, &size));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_deleted_task_goes_with_its_frames_and_index_row),
        TEST(test_a_deleted_task_does_not_come_back_with_the_log),
        TEST(test_a_task_with_many_frames_goes_in_pieces),
        TEST(test_retention_takes_the_old_and_leaves_what_runs_again),
        TEST(test_retention_leaves_what_is_about_to_run_again),
        TEST(test_without_retention_tasks_stay),
        TEST(test_payloads_go_when_nobody_owns_them_and_they_are_old),
        TEST(test_what_one_task_owns_another_may_own_too),
        TEST(test_blobs_go_when_nobody_owns_or_touched_them),
        TEST(test_a_sweep_takes_what_one_tenant_has_left),
        TEST(test_a_blob_goes_after_its_owner_has_gone_for_good),
        TEST(test_an_older_directory_keeps_everything),
    };

    return cmocka_run_group_tests_name("store sweep", tests, NULL, NULL);
}
