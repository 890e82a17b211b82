/* Requests whose answers a budget holds to so many tokens: nothing else of them changes. */
#include "check.h"

#include "output_cap.h"

#include <string.h>

static void check_cap(const char *body, uint64_t tokens, const char *expected)
{
    struct cox_buf b = { 0 };

    cox_buf_append_str(&b, body);
    output_cap_apply(&b, tokens);
    assert_string_equal(cox_buf_cstr(&b), expected);
    cox_buf_fini(&b);
}

static void test_who_does_not_say(void **state)
{
    (void)state;
    check_cap("{}", 7, "{\"max_tokens\":7}");
    check_cap(" { \"model\" : \"m\" }\n", 7, " {\"max_tokens\":7, \"model\" : \"m\" }\n");
    check_cap("{\"max_tokens\":null,\"n\":1}", 7, "{\"max_tokens\":7,\"n\":1}");
    check_cap("{\"x\":{\"max_tokens\":1}}", 7, "{\"max_tokens\":7,\"x\":{\"max_tokens\":1}}");
}

static void test_who_asks_for_more(void **state)
{
    (void)state;
    check_cap("{\"max_tokens\": 100, \"a\":1}", 7, "{\"max_tokens\": 7, \"a\":1}");
    check_cap("{\"max_completion_tokens\":100}", 7, "{\"max_completion_tokens\":7}");
    check_cap("{\"max_tokens\":100,\"b\":[1],\"max_completion_tokens\":5}", 7,
              "{\"max_tokens\":7,\"b\":[1],\"max_completion_tokens\":5}");
    check_cap("{\"n\":3,\"max_tokens\":100}", 10, "{\"n\":3,\"max_tokens\":3}");
    check_cap("{\"n\":3,\"max_tokens\":100}", 2, "{\"n\":3,\"max_tokens\":1}");
}

static void test_who_asks_for_less(void **state)
{
    (void)state;
    check_cap("{\"max_tokens\":7}", 7, "{\"max_tokens\":7}");
    check_cap("{\"max_tokens\":1,\"n\":2}", 7, "{\"max_tokens\":1,\"n\":2}");
    check_cap("[]", 7, "[]"); /* it is refused elsewhere */
    check_cap("", 7, "");
}

static void test_what_is_asked_for(void **state)
{
    (void)state;
    assert_int_equal(output_cap_asked(cox_slice_str("{}")), 0);
    assert_int_equal(output_cap_asked(cox_slice_str("{\"max_tokens\":12}")), 12);
    assert_int_equal(output_cap_asked(cox_slice_str("{\"max_tokens\":12,\"n\":3}")), 36);
    assert_int_equal(output_cap_asked(cox_slice_str("{\"max_completion_tokens\":9,\"max_tokens\":12}")), 9);
    assert_int_equal(output_cap_asked(cox_slice_str("{\"max_tokens\":-1}")), 0);
    assert_int_equal(output_cap_asked(cox_slice_str("{\"max_tokens\":1.5}")), 0);
    assert_int_equal(output_cap_asked(cox_slice_str("nonsense")), 0);
    assert_true(output_cap_asked(cox_slice_str("{\"max_tokens\":9223372036854775807,\"n\":9}")) ==
                UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_does_not_say),
        cmocka_unit_test(test_who_asks_for_more),
        cmocka_unit_test(test_who_asks_for_less),
        cmocka_unit_test(test_what_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
