/* The JSON check, against texts with a known verdict and against jansson on random ones. */
#include "check.h"

#include "cox/base/rng.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/limits.h"

#include <jansson.h>
#include <stdlib.h>
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

/* Strings are looked at in blocks: whatever stands across their borders has to be seen as one character at a
 * time sees it. */
static void blocks_do_not_matter(void **state)
{
    static const struct {
        const char *text;
        bool bad;
    } pieces[] = {
        { "a", false },           { "plain text without anything", false },
        { "\\n", false },         { "\\\"", false },
        { "\\\\", false },        { "\\\\\\\\\\\\", false },
        { "\\u0041", false },     { "\\/", false },
        { "\\t", false },         { "\xe6\xa8\xa1", false },
        { "\xc3\xa9", false },    { "\\x", true },
        { "\n", true },           { "\\u00g0", true },
        { "\\\n", true },         { "\xe6\xa8", true },
        { "\xed\xa0\x80", true },
    };
    enum { FINE = 11 };
    struct cox_buf text = { 0 };
    struct cox_rng rng;
    const char *said = getenv("COX_TEST_SEED");
    uint64_t seed = said ? strtoull(said, NULL, 10) : (uint64_t)cox_clock_mono_ns();

    (void)state;
    cox_rng_init(&rng, seed);
    for (int i = 0; i < 20000; i++) {
        uint64_t n = cox_rng_below(&rng, 60),
                 at = cox_rng_below(&rng, 4) == 0 ? cox_rng_below(&rng, n + 1) : n;
        const uint64_t kinds = 1 + cox_rng_below(&rng, FINE);
        bool bad = false;

        cox_buf_clear(&text);
        cox_buf_append_str(&text, "[\"");
        for (uint64_t k = 0; k < n; k++) {
            uint64_t j =
                k == at ? FINE + cox_rng_below(&rng, ARRAY_LEN(pieces) - FINE) : cox_rng_below(&rng, kinds);

            cox_buf_append_str(&text, pieces[j].text);
            bad = bad || pieces[j].bad;
        }
        cox_buf_append_str(&text, "\"");
        size_t string_len = text.len - 1;
        cox_buf_append_str(&text, ",\"end\"]");
        if (ok((const char *)text.data, text.len) == bad)
            fail_msg("seed %llu: %s: %.*s", (unsigned long long)seed, bad ? "taken" : "refused",
                     (int)text.len, text.data);
        if (bad)
            continue;
        struct cox_json_walk w = cox_json_walk(cox_buf_slice(&text));

        assert_true(cox_json_next(&w));
        assert_int_equal(w.value.len, string_len);
        assert_true(cox_json_next(&w) && w.value.len == 5 && !cox_json_next(&w));
        for (size_t cut = text.len;
             cut-- > 0 && cut + 70 > text.len;) /* and broken off anywhere: no byte behind it */
            assert_false(ok((const char *)text.data, cut));
    }
    cox_buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_json),           cmocka_unit_test(refuses_the_rest),
        cmocka_unit_test(nests_to_its_bound),   cmocka_unit_test(agrees_with_jansson),
        cmocka_unit_test(blocks_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
