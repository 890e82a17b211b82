/* What belongs to quarantined tasks: out of recovery's sight, and back. */
#include "store_fixture.h"

struct recovered {
    struct fixture *f;
    struct cox_buf quarantined, records;
};

static void on_quarantined(void *user, const struct cox_store_quarantined *q)
{
    struct recovered *r = user;

    cox_buf_printf(&r->quarantined, "%" PRIu64 "%s%s%s:%.*s ", q->root, q->unread ? "u" : "",
                   q->archived ? "a" : "", q->deleted ? "d" : "", (int)q->why.len, (const char *)q->why.data);
}

static enum cox_err on_saved(void *user, struct cox_entity_key key, uint64_t applied_seq,
                             struct cox_slice bytes)
{
    return on_entity(((struct recovered *)user)->f, key, applied_seq, bytes);
}

static enum cox_err on_records(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records)
{
    struct recovered *r = user;

    cox_buf_printf(&r->records, "%" PRIu64 "+%" PRIu32 "=%.*s ", first_seq, n, (int)records.len,
                   (const char *)records.data);
    return COX_OK;
}

/* Opens and recovers; `quarantine`: this root first. */
static void open_and_recover(struct fixture *f, uint64_t quarantine, const char *quarantined,
                             const char *entities, const char *records)
{
    struct recovered r = { .f = f };
    const struct cox_store_recovery callbacks = {
        .quarantined = on_quarantined, .entity = on_saved, .batch = on_records, .user = &r
    };
    uint64_t last_seq;

    cox_buf_clear(&f->entities);
    assert_int_equal(try_open(f, 0), COX_OK);
    if (quarantine)
        assert_int_equal(cox_store_quarantine(f->store, quarantine, "why", &f->error), COX_OK);
    assert_int_equal(cox_store_recover(f->store, &callbacks, &last_seq, &f->error), COX_OK);
    assert_text(&r.quarantined, quarantined);
    assert_text(&f->entities, entities);
    assert_text(&r.records, records);
    cox_buf_fini(&r.quarantined);
    cox_buf_fini(&r.records);
    assert_int_equal(cox_store_start(f->store), COX_OK);
}

static void save(struct fixture *f, uint64_t id, uint64_t seq, const char *bytes)
{
    request(f, (struct cox_store_request){ .op = COX_STORE_SAVE, .key = { 4, id, 0 }, .seq = seq }, bytes);
}

static void set_aside(struct fixture *f, uint64_t root, uint64_t seq, const char *bytes)
{
    request(f, (struct cox_store_request){ .op = COX_STORE_ASIDE, .owner = root, .seq = seq }, bytes);
}

static void move_aside(struct fixture *f, uint64_t root, uint64_t id)
{
    request(f, (struct cox_store_request){ .op = COX_STORE_ASIDE, .owner = root, .key = { 4, id, 0 } }, NULL);
}

static void archive(struct fixture *f, uint64_t id)
{
    request(f, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .ticket = id, .id = id }, "stub");
    expect_event(f, COX_STORE_ARCHIVE, id, COX_OK, "");
}

static void truncate_log(struct fixture *f, uint64_t seq)
{
    request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .seq = seq }, NULL);
    expect_event(f, COX_STORE_TRUNCATE, 0, COX_OK, "");
}

static void lift(struct fixture *f, uint64_t root, enum cox_err want)
{
    cox_buf_clear(&f->error);
    assert_int_equal(cox_store_lift(f->data_dir, root, &f->error), want);
}

/* Task 7 and its frame 8 in the state, a record of it in the log, and one of task 9. */
static void begin(struct fixture *f)
{
    start(f);
    append(f, 1, 3, "abc");
    wait_durable(f, 3);
    save(f, 7, 1, "seven");
    save(f, 8, 2, "eight");
    save(f, 9, 3, "nine");
    truncate_log(f, 3);
    append(f, 4, 2, "de");
    wait_durable(f, 5);
    stop(f);
}

static void quarantine(struct fixture *f)
{
    open_and_recover(f, 7, "7:why ", "4/7/0@1=seven 4/8/0@2=eight 4/9/0@3=nine ", "4+2=de ");
    move_aside(f, 7, 7);
    move_aside(f, 7, 8);
    set_aside(f, 7, 4, "d");
    archive(f, 7);
    stop(f);
}

static void test_what_is_set_aside_is_not_recovered(void **state)
{
    struct fixture *f = *state;

    begin(f);
    quarantine(f);
    open_and_recover(f, 0, "7a:why ", "4/9/0@3=nine ", "4+2=de ");
    truncate_log(f, 5);
    stop(f);
    open_and_recover(f, 0, "7a:why ", "4/9/0@3=nine ", "");
}

static void test_lifted_it_comes_back_until_it_is_saved(void **state)
{
    struct fixture *f = *state;

    begin(f);
    quarantine(f);
    lift(f, 9, COX_ERR_NOT_FOUND);
    lift(f, 7, COX_OK);
    lift(f, 7, COX_ERR_NOT_FOUND);
    /* the log has its record yet */
    open_and_recover(f, 0, "", "4/7/0@1=seven 4/8/0@2=eight 4/9/0@3=nine ", "4+2=de ");
    stop(f);
}

static void test_lifted_when_the_log_was_cut(void **state)
{
    struct fixture *f = *state;

    begin(f);
    quarantine(f);
    open_and_recover(f, 0, "7a:why ", "4/9/0@3=nine ", "4+2=de ");
    truncate_log(f, 5);
    append(f, 6, 1, "f");
    wait_durable(f, 6);
    stop(f);
    lift(f, 7, COX_OK);
    for (int i = 0; i < 2; i++) { /* and again, if it crashed before a checkpoint */
        open_and_recover(f, 0, "", "4/7/0@1=seven 4/8/0@2=eight 4/9/0@3=nine ", "4+1=d 6+1=f ");
        stop(f);
    }
    open_and_recover(f, 0, "", "4/7/0@1=seven 4/8/0@2=eight 4/9/0@3=nine ", "4+1=d 6+1=f ");
    save(f, 7, 4, "seven'");
    truncate_log(f, 6);
    stop(f);
    open_and_recover(f, 0, "", "4/7/0@4=seven' 4/8/0@2=eight 4/9/0@3=nine ", "");
}

static void test_quarantined_again(void **state)
{
    struct fixture *f = *state;

    begin(f);
    quarantine(f);
    open_and_recover(f, 7, "7ua:why ", "4/9/0@3=nine ", "4+2=de ");
    stop(f);
    lift(f, 7, COX_OK);
    open_and_recover(f, 7, "7a:why ", "4/7/0@1=seven 4/8/0@2=eight 4/9/0@3=nine ", "4+2=de ");
    move_aside(f, 7, 7);
    move_aside(f, 7, 8);
    truncate_log(f, 5);
    stop(f);
    lift(f, 7, COX_OK);
    open_and_recover(f, 0, "", "4/7/0@1=seven 4/8/0@2=eight 4/9/0@3=nine ", "4+1=d ");
}

static void test_deleted(void **state)
{
    struct fixture *f = *state;

    begin(f);
    quarantine(f);
    open_and_recover(f, 0, "7a:why ", "4/9/0@3=nine ", "4+2=de ");
    request(f, (struct cox_store_request){ .op = COX_STORE_DELETE, .ticket = 1, .id = 7 }, NULL);
    expect_event(f, COX_STORE_DELETE, 1, COX_OK, "");
    stop(f);
    lift(f, 7, COX_ERR_NOT_FOUND);
    /* its records are in the log: it is passed by until that is cut */
    open_and_recover(f, 0, "7d:why ", "4/9/0@3=nine ", "4+2=de ");
    truncate_log(f, 5);
    append(f, 6, 1, "f");
    wait_durable(f, 6);
    truncate_log(f, 6);
    stop(f);
    open_and_recover(f, 0, "", "4/9/0@3=nine ", "");
}

static void test_a_damaged_record_is_not_taken(void **state)
{
    struct fixture *f = *state;
    const struct cox_store_recovery r = { .entity = on_entity, .batch = on_batch, .user = f };
    uint64_t last_seq;

    begin(f);
    quarantine(f);
    open_and_recover(f, 0, "7a:why ", "4/9/0@3=nine ", "4+2=de ");
    truncate_log(f, 5);
    stop(f);
    lift(f, 7, COX_OK);
    sql(f, "state.db", "UPDATE aside SET d = x'00'");
    assert_int_equal(try_open(f, 0), COX_OK);
    cox_buf_clear(&f->log);
    assert_int_equal(cox_store_recover(f->store, &r, &last_seq, &f->error), COX_ERR_CORRUPT);
    assert_says(f, "record 4 that was kept aside: its checksum does not match");
}

static void on_problem(void *user, const char *what)
{
    cox_buf_printf(user, "%s\n", what);
}

static bool on_task(void *user, uint64_t id, struct cox_slice bytes)
{
    (void)user, (void)id, (void)bytes;
    return true;
}

/* Recovery does not look at it: who checks a directory must. */
static void test_a_check_reads_what_is_kept(void **state)
{
    struct fixture *f = *state;
    struct recovered r = { .f = f };
    const struct cox_store_recovery callbacks = { .entity = on_saved, .batch = on_records, .user = &r };
    struct cox_buf problems = { 0 };
    struct cox_store_check c = { .problem = on_problem, .task = on_task, .user = &problems };
    uint64_t last_seq;

    begin(f);
    quarantine(f);
    for (int damaged = 0; damaged < 2; damaged++) {
        if (damaged)
            sql(f, "state.db", "UPDATE aside SET d = x'00' WHERE kind = 0 OR id = 8");
        assert_int_equal(try_open(f, 0), COX_OK);
        assert_int_equal(cox_store_recover(f->store, &callbacks, &last_seq, &f->error), COX_OK);
        assert_int_equal(cox_store_check(f->store, &c, &f->error), COX_OK);
        assert_text(&problems,
                    damaged ? "record 4 that is kept aside for task 7: its checksum does not match\n"
                              "entity (4, 8) that is kept aside for task 7: its checksum does not match\n"
                            : "");
        stop(f);
    }
    cox_buf_fini(&problems);
    cox_buf_fini(&r.records);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_set_aside_is_not_recovered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lifted_it_comes_back_until_it_is_saved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lifted_when_the_log_was_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quarantined_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deleted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_check_reads_what_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_record_is_not_taken, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
