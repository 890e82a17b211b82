/* JSON text read in place: walks, names, strings, numbers; and bytes that were never checked. */
#include "check.h"

#include "cox/base/rng.h"
#include "cox/json.h"

#include <string.h>

static struct cox_slice str(const char *s)
{
    return cox_slice_str(s);
}

static void expect_buf(struct cox_buf *b, const char *expected)
{
    assert_string_equal(cox_buf_cstr(b), expected);
    cox_buf_clear(b);
}

static void walks_in_order(void **state)
{
    struct cox_json_walk w = cox_json_walk(str(" { \"a\" : [1, {\"x\":\"}\"}] , \"\\u0062\":\"q\\\"\" }"));
    struct cox_slice value;

    (void)state;
    assert_true(cox_json_next(&w));
    assert_true(cox_slice_is(w.key, "\"a\""));
    assert_true(cox_slice_is(w.value, "[1, {\"x\":\"}\"}]"));
    struct cox_json_walk items = cox_json_walk(w.value);
    assert_true(cox_json_next(&items));
    assert_true(cox_slice_is(items.value, "1") && items.key.len == 0);
    assert_true(cox_json_next(&items));
    assert_false(cox_json_next(&items));
    assert_false(cox_json_next(&items));
    assert_true(cox_json_next(&w));
    assert_true(cox_json_string_is(w.key, str("b")));
    assert_true(cox_slice_is(w.value, "\"q\\\"\""));
    assert_false(cox_json_next(&w));
    assert_true(cox_json_member(str("{\"a\":1,\"\\u0061\":2}"), "a", &value));
    assert_true(cox_slice_is(value, "2"));
    assert_false(cox_json_member(str("[\"a\"]"), "a", &value));
}

static void compares_without_decoding(void **state)
{
    (void)state;
    assert_true(cox_json_string_is(str("\"\""), str("")));
    assert_true(cox_json_string_is(str("\"a\\n\\u00e9b\\ud83d\\ude00\""), str("a\n\xc3\xa9"
                                                                              "b\xf0\x9f\x98\x80")));
    assert_true(cox_json_string_is(str("\"\\\"\""), str("\"")));
    assert_false(cox_json_string_is(str("\"ab\""), str("a")));
    assert_false(cox_json_string_is(str("\"a\""), str("ab")));
    assert_false(cox_json_string_is(str("\"a\\n\""), str("a\\n")));
    assert_false(cox_json_string_is(str("\"a\\nb\""), str("a\n")));
}

static void escapes_what_must_be(void **state)
{
    struct cox_buf b = { 0 };

    (void)state;
    cox_json_escape(&b, str("a\"\\/\n\x01\x7f\xc3\xa9"));
    expect_buf(&b, "a\\\"\\\\/\\n\\u0001\x7f\xc3\xa9");
    cox_json_quote(&b, str("\xff"
                           "a\xe2\x82"));
    expect_buf(&b, "\"\xef\xbf\xbd"
                   "a\xef\xbf\xbd\xef\xbf\xbd\"");
    cox_json_unescape(&b, str("\\ud800x\\u12"));
    expect_buf(&b, "\xef\xbf\xbdx\xef\xbf\xbd");
    cox_buf_fini(&b);
}

static void reads_and_writes_numbers(void **state)
{
    static const double doubles[] = { 0.1, 2, -0.0, 1e300, 5e-324, 1.0 / 3 };
    struct cox_buf b = { 0 };
    int64_t i;

    (void)state;
    assert_true(cox_json_int(str("-9223372036854775808"), &i) && i == INT64_MIN);
    assert_true(cox_json_int(str("9223372036854775807"), &i) && i == INT64_MAX);
    assert_false(cox_json_int(str("9223372036854775808"), &i));
    assert_false(cox_json_int(str("1.0"), &i));
    assert_false(cox_json_int(str("1e2"), &i));
    assert_false(cox_json_int(str("-"), &i));
    for (size_t k = 0; k < ARRAY_LEN(doubles); k++) {
        cox_json_put_double(&b, doubles[k]);
        assert_false(cox_json_int(cox_buf_slice(&b), &i));
        assert_true(cox_json_double(cox_buf_slice(&b)) == doubles[k]);
        cox_buf_clear(&b);
    }
    cox_json_put_double(&b, 2);
    expect_buf(&b, "2.0");
    cox_buf_fini(&b);
}

/* Each text lies in a block of exactly its size, so that a sanitizer sees one byte too many. */
static void takes_any_bytes(void **state)
{
    static const char pieces[] = "{}[]:,\"\\ u1nt\xff";
    struct cox_buf out = { 0 };
    struct cox_slice value;
    struct cox_rng rng;
    size_t n_members = 0;

    (void)state;
    cox_rng_init(&rng, 5);
    for (int round = 0; round < 50000; round++) {
        size_t len = cox_rng_below(&rng, 16);
        char *bytes = test_malloc(len + (len == 0));
        for (size_t i = 0; i < len; i++)
            bytes[i] = pieces[cox_rng_below(&rng, sizeof(pieces) - 1)];
        struct cox_slice text = cox_slice(bytes, len);
        struct cox_json_walk w = cox_json_walk(text);
        for (; cox_json_next(&w); n_members++)
            assert_true(w.value.data >= text.data && w.value.len <= len);
        cox_buf_clear(&out);
        (void)cox_json_kind_text(cox_json_kind(text));
        (void)cox_json_member(text, "u", &value);
        (void)cox_json_string_is(text, str("u"));
        cox_json_unquote(&out, text);
        cox_json_unescape(&out, text);
        cox_json_compact(&out, text);
        cox_json_pretty(&out, text, 2);
        cox_json_quote(&out, text);
        test_free(bytes);
    }
    assert_true(n_members > 1000);
    cox_buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_in_order),       cmocka_unit_test(compares_without_decoding),
        cmocka_unit_test(escapes_what_must_be), cmocka_unit_test(reads_and_writes_numbers),
        cmocka_unit_test(takes_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
