/* Joining a map's pages, and keeping values where their size belongs: the driver and the store are the
 * test's. */
#include "driver.h"
#include "keep.h"
#include "sha256.h"

#include "check.h"

#include "cox/base/alloc.h"

#include <stdio.h>
#include <string.h>

/* ---- the store's blobs: one at a time ---- */

struct cox_blob_writer {
    struct cox_buf bytes;
};
static struct {
    struct cox_buf kept; /* the last blob */
    size_t n_kept, n_open;
    enum cox_err fails_with;
} blobs;

enum cox_err cox_blob_create_for_task(struct cox_store *s, struct cox_blob_writer **ret)
{
    (void)s;
    if (blobs.fails_with)
        return blobs.fails_with;
    *ret = COX_NEW(struct cox_blob_writer);
    blobs.n_open++;
    return COX_OK;
}

enum cox_err cox_blob_write(struct cox_blob_writer *w, struct cox_slice bytes)
{
    cox_buf_append_slice(&w->bytes, bytes);
    return COX_OK;
}

void cox_blob_abandon(struct cox_blob_writer *w)
{
    if (w == NULL)
        return;
    cox_buf_fini(&w->bytes);
    cox_free(w);
    blobs.n_open--;
}

struct cox_space cox_driver_space(const struct cox_driver *d, cox_task_id task)
{
    (void)d, (void)task;
    return (struct cox_space){ { 0 } };
}

enum cox_err cox_blob_done(struct cox_blob_writer *w, const struct cox_space *space,
                           const struct cox_hash *expected, struct cox_hash *ret_hash, uint64_t *ret_size)
{
    (void)expected, (void)space;
    *ret_hash = cox_sha256(cox_buf_slice(&w->bytes));
    *ret_size = w->bytes.len;
    cox_buf_clear(&blobs.kept);
    cox_buf_append_slice(&blobs.kept, cox_buf_slice(&w->bytes));
    blobs.n_kept++;
    cox_blob_abandon(w);
    return COX_OK;
}

/* ---- the driver: pages are texts "outputs|failures", read and worked on at once ---- */

#define PAGES_MAX 64

static struct {
    struct cox_buf pages[PAGES_MAX];
    size_t n_reads;
    uint32_t missing; /* this page is not there; UINT32_MAX: all are */
    struct cox_list waiting;
    /* the answer */
    size_t n_answers;
    bool ok;
    struct cox_buf value, errors, error;
    struct cox_payload value_payload, errors_payload;
} fake;

struct cox_store *cox_driver_store(struct cox_driver *d)
{
    (void)d;
    return NULL;
}

struct cox_compile *cox_driver_compile(struct cox_driver *d)
{
    (void)d;
    return NULL;
}

void cox_compile_submit(struct cox_compile *c, struct cox_work *w)
{
    (void)c;
    w->work(w);
    w->done(w);
}

void cox_driver_fetch(struct cox_driver *d, struct cox_fetch *f)
{
    (void)d;
    assert_int_equal(f->entity.sub, fake.n_reads++); /* in order, one at a time */
    cox_list_push_back(&fake.waiting, &f->node);
}

void cox_driver_step(struct cox_driver *d, struct cox_input *in)
{
    (void)d;
    assert_int_equal(in->kind, COX_IN_COMPOSED);
    assert_int_equal(in->u.evaluated.ticket, 9);
    fake.n_answers++;
    fake.ok = in->u.evaluated.ok;
    fake.value_payload = in->u.evaluated.value;
    fake.errors_payload = in->u.evaluated.errors;
    cox_buf_append_slice(&fake.value, in->u.evaluated.value.bytes);
    cox_buf_append_slice(&fake.errors, in->u.evaluated.errors.bytes);
    cox_buf_append_slice(&fake.error, in->u.evaluated.error);
}

enum cox_err cox_map_part_outputs(struct cox_entity_key key, struct cox_slice bytes, struct cox_buf *outputs,
                                  struct cox_buf *errors)
{
    const uint8_t *bar = memchr(bytes.data, '|', bytes.len);
    size_t len = bar == NULL ? 0 : (size_t)(bar - bytes.data);
    assert_int_equal(key.kind, 6);
    if (bar == NULL)
        return COX_ERR_CORRUPT;
    cox_buf_append(outputs, bytes.data, len);
    cox_buf_append(errors, bar + 1, bytes.len - len - 1);
    return COX_OK;
}

static void deliver(void)
{
    while (!cox_list_empty(&fake.waiting)) {
        struct cox_fetch *f = COX_CONTAINER_OF(fake.waiting.next, struct cox_fetch, node);
        struct cox_buf copy = { 0 };
        uint32_t sub = f->entity.sub;
        cox_list_remove(&f->node);
        cox_buf_append_slice(&copy, cox_buf_slice(&fake.pages[sub]));
        f->fn(f, sub == fake.missing ? COX_ERR_NOT_FOUND : COX_OK, &copy);
        cox_buf_fini(&copy);
    }
}

static void run(size_t n_pages)
{
    struct cox_entity_key parts[PAGES_MAX];
    for (uint32_t i = 0; i < n_pages; i++)
        parts[i] = (struct cox_entity_key){ 6, 1, i };
    cox_compose_start(NULL, &(struct cox_act_compose){ .ticket = 9, .parts = parts, .n_parts = n_pages });
    deliver();
    assert_int_equal(fake.n_answers, 1);
    assert_int_equal(blobs.n_open, 0);
}

static int setup(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof(fake));
    memset(&blobs, 0, sizeof(blobs));
    cox_list_init(&fake.waiting);
    fake.missing = UINT32_MAX;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < PAGES_MAX; i++)
        cox_buf_fini(&fake.pages[i]);
    cox_buf_fini(&fake.value);
    cox_buf_fini(&fake.errors);
    cox_buf_fini(&fake.error);
    cox_buf_fini(&blobs.kept);
    return 0;
}

static void page(size_t i, const char *text)
{
    cox_buf_append_str(&fake.pages[i], text);
}

/* ---- the tests ---- */

static void pages_become_one_list(void **state)
{
    (void)state;
    page(0, "1,null,3|{\"index\":1}");
    page(1, "4,5|");
    page(2, "6|{\"index\":5}");
    run(3);
    assert_true(fake.ok);
    assert_int_equal(fake.value_payload.kind, COX_PAYLOAD_INLINE);
    assert_string_equal(cox_buf_cstr(&fake.value), "[1,null,3,4,5,6]");
    assert_int_equal(fake.value_payload.size, 16);
    assert_string_equal(cox_buf_cstr(&fake.errors), "[{\"index\":1},{\"index\":5}]");
}

static void without_failures_there_is_no_list_of_them(void **state)
{
    (void)state;
    page(0, "1|");
    run(1);
    assert_string_equal(cox_buf_cstr(&fake.value), "[1]");
    assert_int_equal(fake.errors_payload.kind, COX_PAYLOAD_NONE);
}

static void put_string(struct cox_buf *b, size_t len)
{
    cox_put_u8(b, '"');
    memset(cox_buf_extend(b, len - 2), 'x', len - 2);
    cox_put_u8(b, '"');
}

/* A list of one string, `len` bytes in all. */
static void value_of_len(size_t len)
{
    put_string(&fake.pages[0], len - 2);
    page(0, "|");
    run(1);
    assert_true(fake.ok);
    assert_int_equal(fake.value_payload.size, len);
}

static void up_to_4_kib_a_value_is_inline(void **state)
{
    (void)state;
    value_of_len(COX_INLINE_PAYLOAD_LEN_MAX);
    assert_int_equal(fake.value_payload.kind, COX_PAYLOAD_INLINE);
}

static void up_to_1_mib_it_is_stored_by_way_of_the_log(void **state)
{
    (void)state;
    value_of_len(COX_INLINE_PAYLOAD_LEN_MAX + 1);
    struct cox_hash hash = cox_sha256(cox_buf_slice(&fake.value));
    assert_int_equal(fake.value_payload.kind, COX_PAYLOAD_STORED);
    assert_memory_equal(fake.value_payload.hash.b, hash.b, sizeof(hash.b));
    assert_int_equal(blobs.n_kept, 0);
}

static void above_1_mib_it_is_a_blob_before_the_engine_hears_of_it(void **state)
{
    (void)state;
    value_of_len(COX_LOGGED_PAYLOAD_LEN_MAX + 1);
    struct cox_hash hash = cox_sha256(cox_buf_slice(&blobs.kept));
    assert_int_equal(fake.value_payload.kind, COX_PAYLOAD_STORED);
    assert_int_equal(fake.value.len, 0); /* its bytes do not pass through the log */
    assert_int_equal(blobs.n_kept, 1);
    assert_int_equal(blobs.kept.len, COX_LOGGED_PAYLOAD_LEN_MAX + 1);
    assert_memory_equal(fake.value_payload.hash.b, hash.b, sizeof(hash.b));
    assert_int_equal(blobs.kept.data[0], '[');
    assert_int_equal(blobs.kept.data[blobs.kept.len - 1], ']');
}

static void a_full_disk_fails_the_map_and_says_so(void **state)
{
    (void)state;
    blobs.fails_with = COX_ERR_FULL;
    put_string(&fake.pages[0], COX_LOGGED_PAYLOAD_LEN_MAX);
    page(0, "|");
    run(1);
    assert_false(fake.ok);
    assert_non_null(strstr(cox_buf_cstr(&fake.error), "cannot be kept"));
}

static void a_megabyte_of_failures_is_kept_and_the_rest_counted(void **state)
{
    (void)state;
    size_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        page(i, "null|");
        for (size_t k = 0; k < 1000; k++, n++) {
            if (k > 0)
                page(i, ",");
            put_string(&fake.pages[i], 1000);
        }
    }
    run(3);
    size_t kept = (COX_LOGGED_PAYLOAD_LEN_MAX - 64) / 1001;
    char more[64];
    snprintf(more, sizeof(more), ",{\"more\":%zu}]", n - kept);
    assert_true(fake.ok);
    assert_true(fake.errors.len <= COX_LOGGED_PAYLOAD_LEN_MAX);
    assert_string_equal(cox_buf_cstr(&fake.errors) + fake.errors.len - strlen(more), more);
}

static void a_damaged_page_is_named(void **state)
{
    (void)state;
    page(0, "1|");
    page(1, "no page");
    page(2, "3|");
    run(3);
    assert_false(fake.ok);
    assert_int_equal(fake.n_reads, 2);
    assert_non_null(strstr(cox_buf_cstr(&fake.error), "page 1 of the map's items is damaged"));
}

static void a_missing_page_is_named(void **state)
{
    (void)state;
    page(0, "1|");
    fake.missing = 1;
    run(3);
    assert_false(fake.ok);
    assert_non_null(strstr(cox_buf_cstr(&fake.error), "page 1 of the map's items cannot be read"));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(pages_become_one_list),
        TEST(without_failures_there_is_no_list_of_them),
        TEST(up_to_4_kib_a_value_is_inline),
        TEST(up_to_1_mib_it_is_stored_by_way_of_the_log),
        TEST(above_1_mib_it_is_a_blob_before_the_engine_hears_of_it),
        TEST(a_full_disk_fails_the_map_and_says_so),
        TEST(a_megabyte_of_failures_is_kept_and_the_rest_counted),
        TEST(a_damaged_page_is_named),
        TEST(a_missing_page_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
