/* The index behind lists: equal to a model under random changes and queries; made again when it is damaged,
 * missing or behind; and quick. COX_INDEX_ROWS=1000000 measures a large one. */
#include "store_fixture.h"

#include "cox/base/rng.h"
#include "cox/base/units.h"

#include <sys/wait.h>

#define TASKS 400u
#define SEEDS 30

static const char *const teams[] = { "red", "green", "blue" };

/* What the model knows of a task; its row follows from it. */
struct known {
    uint8_t status; /* 0: not there */
    uint32_t team, run, tenant;
    int64_t created_ms;
};

static void put_row(struct cox_buf *out, uint64_t id, const struct known *k)
{
    static const char *const tenants[] = { "", "acme" };
    char run[16];
    struct cox_label labels[] = { { cox_slice_str("team"), cox_slice_str(teams[k->team]) },
                                  { cox_slice_str("run"), { 0 } } };
    struct cox_index_row row = {
        .id = id,
        .status = k->status,
        .created_wall_ms = k->created_ms,
        .finished_wall_ms = k->status >= COX_TASK_SUCCEEDED ? k->created_ms + 5 : 0,
        .name = cox_slice_str("a-name"),
        .tenant = cox_slice_str(tenants[k->tenant]),
        .labels = labels,
        .n_labels = 2,
    };

    snprintf(run, sizeof(run), "%u", k->run);
    labels[1].value = cox_slice_str(run);
    cox_index_row_encode(out, &row);
}

static void index_task(struct fixture *f, uint64_t id, const struct known *k)
{
    struct cox_store_request req = { .op = COX_STORE_INDEX, .id = id };

    put_row(&req.bytes, id, k);
    assert_true(cox_store_request(f->store, &req));
}

static struct cox_store_event list_once(struct fixture *f, const struct cox_index_query *q, uint64_t seq)
{
    struct cox_store_request req = { .op = COX_STORE_LIST, .ticket = 9, .seq = seq };

    cox_index_query_encode(&req.bytes, q);
    assert_true(cox_store_request(f->store, &req));
    struct cox_store_event e = next_event(f);

    assert_int_equal(e.op, COX_STORE_LIST);
    assert_int_equal(e.ticket, 9);
    return e;
}

/* Waits for the index to be made again. */
static struct cox_store_event list(struct fixture *f, const struct cox_index_query *q)
{
    struct cox_store_event e = list_once(f, q, 0);

    while (e.err == COX_ERR_UNAVAILABLE) {
        cox_buf_fini(&e.bytes);
        e = list_once(f, q, 0);
    }
    assert_int_equal(e.err, COX_OK);
    return e;
}

static bool model_matches(const struct cox_index_query *q, const struct known *k)
{
    char run[16];

    snprintf(run, sizeof(run), "%u", k->run);
    for (size_t i = 0; i < q->n_labels; i++) {
        const char *have = cox_slice_is(q->labels[i].name, "team") ? teams[k->team] : run;
        if (!cox_slice_is(q->labels[i].value, have))
            return false;
    }
    return k->status != 0 && (q->statuses == 0 || (q->statuses & 1u << k->status)) &&
           (q->tenant.len == 0 || k->tenant == 1) &&
           (q->created_after_ms == 0 || k->created_ms >= q->created_after_ms) &&
           (q->created_before_ms == 0 || k->created_ms < q->created_before_ms);
}

/* Every page of a query against the model. */
static void compare(struct fixture *f, struct cox_index_query q, const struct known *model, uint64_t seed)
{
    uint64_t expected = TASKS;
    bool more = true;

    while (more) {
        struct cox_store_event e = list(f, &q);
        struct cox_label labels[COX_LABELS_MAX];
        struct cox_index_row row;
        struct cox_index_page page;
        struct cox_buf want = { 0 }, found = { 0 };
        uint32_t n = 0;

        assert_int_equal(cox_index_page_open(cox_buf_slice(&e.bytes), &page), COX_OK);
        check_seeded(page.n <= q.limit, seed);
        while (cox_index_page_next(&page, &row, labels)) {
            while (expected > 0 && !model_matches(&q, &model[expected]))
                expected--;
            check_seeded(row.id == expected, seed);
            cox_buf_clear(&want);
            cox_buf_clear(&found);
            put_row(&want, expected, &model[expected]);
            cox_index_row_encode(&found, &row);
            check_seeded(cox_slice_eq(cox_buf_slice(&want), cox_buf_slice(&found)), seed);
            expected--;
            n++;
        }
        check_seeded(n == page.n, seed);
        more = page.more;
        q.before_id = page.before_id;
        cox_buf_fini(&want);
        cox_buf_fini(&found);
        cox_buf_fini(&e.bytes);
    }
    while (expected > 0 && !model_matches(&q, &model[expected]))
        expected--;
    check_seeded(expected == 0, seed);
}

static struct cox_index_query random_query(struct cox_rng *rng, struct cox_label labels[2], char run[16])
{
    struct cox_index_query q = { .labels = labels, .limit = 1 + (uint32_t)cox_rng_below(rng, 60) };

    if (cox_rng_chance(rng, 500000))
        q.statuses = (uint32_t)cox_rng_below(rng, 1u << COX_TASK_STATUS_NR) & ~1u;
    if (cox_rng_chance(rng, 500000))
        labels[q.n_labels++] =
            (struct cox_label){ cox_slice_str("team"), cox_slice_str(teams[cox_rng_below(rng, 3)]) };
    if (cox_rng_chance(rng, 300000)) {
        snprintf(run, 16, "%u", (unsigned)cox_rng_below(rng, 12));
        labels[q.n_labels++] = (struct cox_label){ cox_slice_str("run"), cox_slice_str(run) };
    }
    if (cox_rng_chance(rng, 200000))
        q.tenant = cox_slice_str("acme");
    if (cox_rng_chance(rng, 200000))
        q.created_after_ms = 1 + (int64_t)cox_rng_below(rng, 12 * TASKS);
    if (cox_rng_chance(rng, 200000))
        q.created_before_ms = 1 + (int64_t)cox_rng_below(rng, 12 * TASKS);
    return q;
}

static void change(struct fixture *f, struct cox_rng *rng, struct known *model)
{
    uint64_t id = 1 + cox_rng_below(rng, TASKS);
    struct known *k = &model[id];

    if (k->created_ms < 0)
        return; /* deleted: its number is never used again */
    if (k->status == 0) {
        *k = (struct known){ .status = COX_TASK_PENDING,
                             .team = (uint32_t)cox_rng_below(rng, 3),
                             .run = (uint32_t)cox_rng_below(rng, 10),
                             .tenant = (uint32_t)cox_rng_below(rng, 2),
                             .created_ms = (int64_t)(10 * id + cox_rng_below(rng, 10)) };
    } else if (k->status == COX_TASK_PENDING) {
        k->status = (uint8_t)(COX_TASK_SUCCEEDED + cox_rng_below(rng, 3));
        request(f, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .id = id }, "task");
        assert_int_equal(next_event(f).err, COX_OK);
    } else if (cox_rng_chance(rng, 500000)) {
        k->status = COX_TASK_PENDING; /* retried */
    } else {
        k->status = 0;
        request(f, (struct cox_store_request){ .op = COX_STORE_DELETE, .id = id }, NULL);
        assert_int_equal(next_event(f).err, COX_OK);
        k->created_ms = -1;
        return;
    }
    index_task(f, id, k);
}

static void test_lists_equal_a_model(void **state)
{
    struct fixture *f = *state;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct known model[TASKS + 1] = { 0 };
        struct cox_label labels[2];
        struct cox_rng rng;
        char run[16];

        f->uri = seed % 3 ? "memory" : "sqlite";
        cox_rng_init(&rng, seed);
        char *text = cox_asprintf("%s/data-%" PRIu64, f->dir, seed);
        cox_free(f->data_dir);
        f->data_dir = text;
        start(f);
        for (int i = 0; i < 1500; i++) {
            change(f, &rng, model);
            if (i % 20 == 0)
                compare(f, random_query(&rng, labels, run), model, seed);
        }
        if (seed % 3 == 0) { /* and again after a reopening */
            stop(f);
            start(f);
            for (int i = 0; i < 20; i++)
                compare(f, random_query(&rng, labels, run), model, seed);
        }
        stop(f);
    }
}

/* Ten tasks that ended and one that runs. */
static void fill(struct fixture *f, struct known *model)
{
    for (uint64_t id = 1; id <= 10; id++) {
        model[id] = (struct known){ .status = COX_TASK_FAILED, .created_ms = (int64_t)id };
        request(f, (struct cox_store_request){ .op = COX_STORE_ARCHIVE, .id = id }, "task");
        assert_int_equal(next_event(f).err, COX_OK);
        index_task(f, id, &model[id]);
    }
    model[11] = (struct known){ .status = COX_TASK_PENDING, .created_ms = 11 };
    index_task(f, 11, &model[11]);
}

static void cut(struct fixture *f, uint64_t seq)
{
    append(f, seq, 1, "r");
    wait_durable(f, seq);
    request(f, (struct cox_store_request){ .op = COX_STORE_TRUNCATE, .seq = seq }, NULL);
    expect_event(f, COX_STORE_TRUNCATE, 0, COX_OK, "");
}

/* What the engine does after recovery. */
static void reindex_live(struct fixture *f, const struct known *model)
{
    index_task(f, 11, &model[11]);
}

static void test_a_missing_or_damaged_index_is_made_again(void **state)
{
    struct fixture *f = *state;
    struct known model[TASKS + 1] = { 0 };
    char *path = cox_asprintf("%s/index.db", f->data_dir);
    const struct cox_index_query all = { .limit = 100 };

    start(f);
    fill(f, model);
    cut(f, 1);
    stop(f);
    for (int how = 0; how < 4; how++) {
        if (how == 0) {
            assert_int_equal(unlink(path), 0);
        } else if (how == 1) {
            FILE *file = fopen(path, "w");
            fputs("this is no database at all, but it is longer than a header of a hundred bytes would be, "
                  "so that nobody takes it for one that is new\n",
                  file);
            (void)fclose(file);
        } else if (how == 2) {
            sql(f, "index.db", "UPDATE covered SET seq = 0; DELETE FROM task; DELETE FROM posting");
        } else {
            sql(f, "index.db", "DROP TABLE posting");
        }
        start(f);
        reindex_live(f, model);
        compare(f, all, model, (uint64_t)how);
        cut(f, (uint64_t)how + 2);
        stop(f);
    }
    /* The control: an index that is not behind is trusted. */
    sql(f, "index.db", "DELETE FROM task; DELETE FROM posting");
    start(f);
    struct cox_store_event e = list(f, &all);
    struct cox_index_page page;
    assert_int_equal(cox_index_page_open(cox_buf_slice(&e.bytes), &page), COX_OK);
    assert_int_equal(page.n, 0);
    cox_buf_fini(&e.bytes);
    cox_free(path);
}

static void on_fatal_exit(void *user, const char *what)
{
    (void)user;
    _exit(strstr(what, "index.db") && strstr(what, "damaged") ? COX_EXIT_RECOVER : 1);
}

static void test_damage_found_in_use_ends_the_process_and_the_next_mends_it(void **state)
{
    struct fixture *f = *state;
    struct known model[TASKS + 1] = { 0 };
    const struct cox_index_query all = { .limit = 100 };
    int status;

    start(f);
    fill(f, model);
    cut(f, 1);
    stop(f);
    sql(f, "index.db", "UPDATE task SET crc = 1 WHERE id = 4");
    pid_t pid = fork();
    if (pid == 0) {
        start(f);
        f->store->config.on_fatal = on_fatal_exit;
        list(f, &all);
        _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, COX_EXIT_RECOVER << 8);
    start(f);
    reindex_live(f, model);
    compare(f, all, model, 0);
}

static void test_a_page_says_what_it_is_of(void **state)
{
    struct fixture *f = *state;
    struct known k = { .status = COX_TASK_PENDING, .created_ms = 1 };
    struct cox_index_page page;

    start(f);
    append(f, 1, 3, "r");
    wait_durable(f, 3);
    index_task(f, 1, &k);
    struct cox_store_event e = list_once(f, &(struct cox_index_query){ .limit = 10 }, 3);
    assert_int_equal(cox_index_page_open(cox_buf_slice(&e.bytes), &page), COX_OK);
    assert_int_equal(page.as_of_seq, 3);
    assert_int_equal(page.n, 1);
    assert_false(page.more);
    cox_buf_fini(&e.bytes);
    struct cox_store_request bad = { .op = COX_STORE_LIST };
    cox_buf_append_str(&bad.bytes, "short");
    assert_true(cox_store_request(f->store, &bad));
    e = next_event(f);
    assert_int_equal(e.err, COX_ERR_INVALID);
    cox_buf_fini(&e.bytes);
    assert_int_equal(cox_index_page_open(cox_slice_str("short"), &page), COX_ERR_CORRUPT);
}

/* Two long lists that share nothing: the work is bounded, and the page says where to go on. */
static void test_a_list_that_finds_nothing_goes_on_in_pieces(void **state)
{
    struct fixture *f = *state;
    struct cox_label labels[] = { { cox_slice_str("team"), cox_slice_str("red") },
                                  { cox_slice_str("run"), cox_slice_str("1") } };
    struct cox_index_query q = { .labels = labels, .n_labels = 2, .limit = 10 };
    unsigned n_pages = 0;
    bool more = true;

    f->uri = "memory";
    start(f);
    for (uint64_t id = 1; id <= 30000; id++)
        index_task(f, id,
                   &(struct known){ .status = COX_TASK_FAILED,
                                    .team = id % 2 == 0 ? 0 : 1,
                                    .run = id % 2 == 0 ? 0 : 1,
                                    .created_ms = (int64_t)id });
    for (; more; n_pages++) {
        struct cox_store_event e = list(f, &q);
        struct cox_index_page page;

        assert_int_equal(cox_index_page_open(cox_buf_slice(&e.bytes), &page), COX_OK);
        assert_int_equal(page.n, 0);
        assert_true(!page.more || q.before_id == 0 || page.before_id < q.before_id);
        more = page.more;
        q.before_id = page.before_id;
        cox_buf_fini(&e.bytes);
    }
    assert_true(n_pages > 1);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void test_a_large_index_is_quick(void **state)
{
    struct fixture *f = *state;
    const char *rows = getenv("COX_INDEX_ROWS");
    uint64_t n = rows ? strtoull(rows, NULL, 10) : 20000;
    struct cox_label labels[2];
    int64_t took_ns[1000];
    struct cox_store_event e;
    struct cox_rng rng;
    char run[16];

    cox_rng_init(&rng, 1);
    start(f);
    int64_t from_ns = cox_clock_mono_ns();
    for (uint64_t id = 1; id <= n; id++) { /* one in a hundred failed, one in a thousand runs */
        index_task(f, id,
                   &(struct known){ .status = (uint8_t)(id % 1000 == 7  ? COX_TASK_PENDING
                                                        : id % 100 == 3 ? COX_TASK_FAILED
                                                                        : COX_TASK_SUCCEEDED),
                                    .team = (uint32_t)cox_rng_below(&rng, 3),
                                    .run = (uint32_t)cox_rng_below(&rng, 1000),
                                    .tenant = 1,
                                    .created_ms = (int64_t)(10 * id) });
        if (id % 10000 == 0 || id == n) { /* the ring takes no more */
            e = list(f, &(struct cox_index_query){ .limit = 1 });
            cox_buf_fini(&e.bytes);
        }
    }
    int64_t filled_ns = cox_clock_mono_ns() - from_ns;

    for (size_t i = 0; i < ARRAY_LEN(took_ns); i++) {
        struct cox_index_query q = random_query(&rng, labels, run);

        q.limit = 100;
        q.created_after_ms = q.created_before_ms = 0;
        if (q.n_labels == 0)
            labels[q.n_labels++] = (struct cox_label){ cox_slice_str("team"), cox_slice_str("red") };
        q.statuses = q.statuses ? q.statuses : 1u << COX_TASK_FAILED;
        if (cox_rng_chance(&rng, 500000))
            q.before_id = 1 + cox_rng_below(&rng, n);
        from_ns = cox_clock_mono_ns();
        e = list(f, &q);
        took_ns[i] = cox_clock_mono_ns() - from_ns;
        cox_buf_fini(&e.bytes);
    }
    qsort(took_ns, ARRAY_LEN(took_ns), sizeof(took_ns[0]), by_value);
    if (rows)
        print_message("%" PRIu64 " rows: %.1f us a row; a list p50 %.0f us, p99 %.0f us, max %.0f us\n", n,
                      (double)filled_ns / 1e3 / (double)n, (double)took_ns[500] / 1e3,
                      (double)took_ns[990] / 1e3, (double)took_ns[999] / 1e3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_lists_equal_a_model),
        TEST(test_a_missing_or_damaged_index_is_made_again),
        TEST(test_damage_found_in_use_ends_the_process_and_the_next_mends_it),
        TEST(test_a_page_says_what_it_is_of),
        TEST(test_a_list_that_finds_nothing_goes_on_in_pieces),
        TEST(test_a_large_index_is_quick),
    };

    return cmocka_run_group_tests_name("store index", tests, NULL, NULL);
}
