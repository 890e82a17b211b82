#include "check.h"

#include "cox/base/alloc.h"
#include "cox/base/buf.h"

#include <string.h>

static void put_record(struct cox_buf *b)
{
    cox_put_u8(b, 0x12);
    cox_put_u16(b, 0x3456);
    cox_put_u32(b, 0x789abcde);
    cox_put_u64(b, 0x0123456789abcdefULL);
    cox_put_i64(b, -2);
    cox_put_bytes(b, cox_slice_str("hello"));
    cox_buf_append_str(b, "raw");
}

static void integers_are_little_endian(void **state)
{
    (void)state;
    static const uint8_t want[] = {
        0x12, 0x56, 0x34, 0xde, 0xbc, 0x9a, 0x78, 0xef, 0xcd, 0xab, 0x89, 0x67,
        0x45, 0x23, 0x01, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 5,
        0,    0,    0,    'h',  'e',  'l',  'l',  'o',  'r',  'a',  'w',
    };
    struct cox_buf b = { 0 };

    put_record(&b);
    assert_int_equal(b.len, sizeof(want));
    assert_memory_equal(b.data, want, sizeof(want));
    cox_set_u32(&b, 3, 7);
    assert_memory_equal(b.data + 3, "\7\0\0\0\xef", 5);
    cox_buf_fini(&b);
}

static void reader_returns_what_was_put(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };

    put_record(&b);
    struct cox_reader r = cox_reader(cox_buf_slice(&b));

    assert_int_equal(cox_reader_left(&r), b.len);
    assert_int_equal(cox_get_u8(&r), 0x12);
    assert_int_equal(cox_get_u16(&r), 0x3456);
    assert_int_equal(cox_get_u32(&r), 0x789abcde);
    assert_true(cox_get_u64(&r) == 0x0123456789abcdefULL);
    assert_true(cox_get_i64(&r) == -2);
    assert_true(cox_slice_is(cox_get_bytes(&r), "hello"));
    assert_true(cox_slice_is(cox_get_raw(&r, 3), "raw"));
    assert_int_equal(cox_reader_left(&r), 0);
    assert_false(r.bad);
    cox_buf_fini(&b);
}

/* Cut anywhere, the record reads as bad and everything after the cut as nothing. Each cut is a block of
 * memory of its own, so that a sanitizer or valgrind sees a read past it. */
static void reader_survives_every_truncation(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };

    put_record(&b);
    for (size_t cut = 0; cut < b.len; cut++) {
        uint8_t *copy = cox_alloc(cut);
        if (cut > 0)
            memcpy(copy, b.data, cut);
        struct cox_reader r = cox_reader(cox_slice(copy, cut));
        cox_get_u8(&r);
        cox_get_u16(&r);
        cox_get_u32(&r);
        cox_get_u64(&r);
        int64_t i64 = cox_get_i64(&r);
        assert_true(cut >= 23 ? i64 == -2 : i64 == 0);
        assert_int_equal(cox_get_bytes(&r).len, cut >= 32 ? 5 : 0);
        assert_int_equal(cox_get_raw(&r, 3).len, 0);
        assert_true(r.bad);
        assert_int_equal(cox_reader_left(&r), 0);
        assert_int_equal(cox_get_u8(&r), 0);
        cox_free(copy);
    }
    cox_buf_fini(&b);
}

static void reader_refuses_a_length_beyond_its_end(void **state)
{
    (void)state;
    static const uint8_t huge[] = { 0xff, 0xff, 0xff, 0xff, 'x' };
    struct cox_reader r = cox_reader(cox_slice(huge, sizeof(huge)));

    assert_int_equal(cox_get_bytes(&r).len, 0);
    assert_true(r.bad);
    r = cox_reader(cox_slice(NULL, 0));
    assert_int_equal(cox_get_raw(&r, 0).len, 0);
    assert_false(r.bad);
    assert_int_equal(cox_get_raw(&r, SIZE_MAX).len, 0);
    assert_true(r.bad);
}

static void text_grows_as_needed(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };
    char long_text[1000];

    memset(long_text, 'y', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    assert_string_equal(cox_buf_cstr(&b), "");
    cox_buf_printf(&b, "%d-%s", 42, "x");
    assert_string_equal(cox_buf_cstr(&b), "42-x");
    cox_buf_clear(&b);
    for (int i = 0; i < 10; i++)
        cox_buf_printf(&b, "%s", long_text);
    assert_int_equal(b.len, 9990);
    assert_int_equal(strlen(cox_buf_cstr(&b)), 9990);
    assert_int_equal(strspn(cox_buf_cstr(&b), "y"), 9990);
    cox_buf_fini(&b);
    assert_int_equal(b.cap, 0);
    for (int len = 0; len < 300; len++) { /* the text that just fits, and the one that just does not */
        cox_buf_printf(&b, "%.*s", len, long_text);
        assert_int_equal(b.len, len);
        assert_int_equal(strspn(cox_buf_cstr(&b), "y"), len);
        cox_buf_fini(&b);
    }
}

static int sign(int x)
{
    return (x > 0) - (x < 0);
}

static void slices_compare_as_memcmp(void **state)
{
    (void)state;
    static const char *const sorted[] = { "", "a", "aa", "ab", "b", "\xff" };

    for (size_t i = 0; i < ARRAY_LEN(sorted); i++) {
        for (size_t j = 0; j < ARRAY_LEN(sorted); j++) {
            struct cox_slice a = cox_slice_str(sorted[i]);
            struct cox_slice b = cox_slice_str(sorted[j]);
            assert_int_equal(sign(cox_slice_cmp(a, b)), sign((int)i - (int)j));
            assert_int_equal(cox_slice_eq(a, b), i == j);
        }
    }
    assert_true(cox_slice_eq(cox_slice_str(NULL), cox_slice_str("")));
}

static void test_patterns(void **state)
{
    static const struct {
        const char *text, *pattern;
        bool like;
    } cases[] = {
        { "", "", true },
        { "", "*", true },
        { "a", "", false },
        { "abc", "abc", true },
        { "abc", "ab", false },
        { "abc", "abcd", false },
        { "abc", "a*", true },
        { "abc", "*c", true },
        { "abc", "a*c", true },
        { "abc", "*b*", true },
        { "abc", "*d*", false },
        { "aXbXc", "a*b*c", true },
        { "aab", "*ab", true },
        { "abab", "*ab", true },
        { "abac", "*ab", false },
        { "a.c", "a?c", false },
        { "code_x@1", "code_*", true },
        { "xcode_1", "code_*", false },
        { "mississippi", "m*issip*i", true },
        { "**", "*", true },
        { "a", "***", true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(cox_slice_like(cox_slice_str(cases[i].text), cox_slice_str(cases[i].pattern)),
                         cases[i].like);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(integers_are_little_endian),
        cmocka_unit_test(reader_returns_what_was_put),
        cmocka_unit_test(reader_survives_every_truncation),
        cmocka_unit_test(reader_refuses_a_length_beyond_its_end),
        cmocka_unit_test(text_grows_as_needed),
        cmocka_unit_test(slices_compare_as_memcmp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
