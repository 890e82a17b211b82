/* The JSON check, against texts with a known verdict and against jansson on random ones. */
#include "check.h"

#include "cox/base/rng.h"
#include "cox/json.h"
#include "cox/limits.h"

#include <jansson.h>
#include <string.h>

static bool ok(const char *text, size_t len)
{
    struct cox_json_place at;
    bool fine = cox_json_check(cox_slice(text, len), &at) == COX_OK;

    assert_true(fine || (at.line > 0 && at.column > 0 && at.column <= len + 1 && at.expected != NULL));
    return fine;
}

static void takes_json(void **state)
{
    static const char *const texts[] = {
        "null",
        "true",
        " false ",
        "0",
        "-0",
        "1.5e+3",
        "\"\"",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "[1,2,[3]]",
        "{\"\":0}",
        "{\"a\":{\"b\":[]},\"c\":1}",
        "\"\\u00e9\\n\"",
        "\"\\ud83d\\ude00\"",
        "\"\xc3\xa9\"",
        "\"\\u0000\"",
        "\n[\t1 , {\"x\" : null}\r]",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (!ok(texts[i], strlen(texts[i])))
            fail_msg("refused: %s", texts[i]);
    }
}

static void refuses_the_rest(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "nul",
        "truex",
        "01",
        "1.",
        "-",
        ".5",
        "1e",
        "+1",
        "'a'",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\t\"",
        "\"\xff\"",
        "[",
        "]",
        "[1",
        "[1,]",
        "[,1]",
        "{",
        "{a:1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "[1 2]",
        "1 2",
        "[}",
        "{]",
        "[]]",
        "{\"a\":1]",
        "\xef\xbb\xbf"
        "1",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (ok(texts[i], strlen(texts[i])))
            fail_msg("taken: %s", texts[i]);
    }
}

static void nests_to_its_bound(void **state)
{
    char text[2 * COX_JSON_DEPTH_MAX + 4];
    size_t n = COX_JSON_DEPTH_MAX;

    (void)state;
    memset(text, '[', n);
    memset(text + n, ']', n);
    assert_true(ok(text, 2 * n));
    memset(text, '[', n + 1);
    memset(text + n + 1, ']', n + 1);
    assert_false(ok(text, 2 * n + 2));
}

/* Pieces of JSON in random order are sometimes JSON; both must say when. */
static void agrees_with_jansson(void **state)
{
    static const char *const pieces[] = { "{", "}",    "[",    "]",    ",", ":",           "\"a\"", "\"b\"",
                                          "1", "-2.5", "null", "true", " ", "\"\\u0041\"", "0",     "\"" };
    struct cox_buf text = { 0 };
    struct cox_rng rng;
    size_t n_json = 0;

    (void)state;
    cox_rng_init(&rng, 11);
    for (int round = 0; round < 200000; round++) {
        cox_buf_clear(&text);
        for (uint64_t n = 1 + cox_rng_below(&rng, 7); n > 0; n--)
            cox_buf_append_str(&text, pieces[cox_rng_below(&rng, ARRAY_LEN(pieces))]);
        json_t *json = json_loads(cox_buf_cstr(&text), JSON_DECODE_ANY, NULL);
        if (ok(cox_buf_cstr(&text), text.len) != (json != NULL))
            fail_msg("round %d: %s", round, cox_buf_cstr(&text));
        n_json += json != NULL;
        json_decref(json);
    }
    cox_buf_fini(&text);
    assert_true(n_json > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_json),
        cmocka_unit_test(refuses_the_rest),
        cmocka_unit_test(nests_to_its_bound),
        cmocka_unit_test(agrees_with_jansson),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
