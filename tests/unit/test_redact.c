/* Redaction against a model that looks at every place of the whole text; spellings against OpenSSL's and by
 * hand. */
#include "redact.h"

#include "check.h"

#include "cox/base/rng.h"
#include "cox/json.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct redactor *one(const char *value)
{
    struct cox_slice v = cox_slice_str(value);

    return redactor_create(&v, 1);
}

static void text_is(const struct redactor *r, const char *text, const char *expected)
{
    struct cox_buf b = { 0 };

    cox_buf_append_str(&b, text);
    assert_int_equal(redact_text(r, &b), strcmp(text, expected) != 0);
    assert_string_equal(cox_buf_cstr(&b), expected);
    cox_buf_fini(&b);
}

static void test_plain(void **state)
{
    struct redactor *r = one("s3cr3t!");

    (void)state;
    text_is(r, "", "");
    text_is(r, "nothing here", "nothing here");
    text_is(r, "s3cr3t!", "***");
    text_is(r, "<s3cr3t!>", "<***>");
    text_is(r, "s3cr3t!s3cr3t!", "***");
    text_is(r, "s3cr3t! s3cr3t!", "*** ***");
    text_is(r, "s3cr3s3cr3t!", "s3cr3***");
    text_is(r, "s3cr3t", "s3cr3t"); /* a part is not it */
    text_is(r, "***", "***");
    redactor_unref(r);
    text_is(NULL, "s3cr3t!", "s3cr3t!");
    redactor_unref(NULL);
}

static void test_values_within_values(void **state)
{
    const struct cox_slice values[] = { cox_slice_str("pass"), cox_slice_str("mypassword"),
                                        cox_slice_str("wordle") };
    struct redactor *r = redactor_create(values, 3);

    (void)state;
    text_is(r, "mypassword", "***");
    text_is(r, "mypasswordle", "***"); /* overlapping: all of both */
    text_is(r, "mypasswor", "my***wor");
    text_is(r, "a pass, a wordle", "a ***, a ***");
    redactor_unref(r);
}

static void test_short_values_and_lines(void **state)
{
    const struct cox_slice values[] = {
        cox_slice_str("abc"), cox_slice_str("-----BEGIN KEY-----\nMIIEvQIBADAN\r\nshort\nlast-line-of-it")
    };
    struct redactor *r = redactor_create(values, 2);

    (void)state;
    text_is(r, "abc", "abc");
    text_is(r, "> MIIEvQIBADAN\n> last-line-of-it\n> short", "> ***\n> ***\n> short");
    text_is(r, "x-----BEGIN KEY-----\nMIIEvQIBADAN\r\nshort\nlast-line-of-ity", "x***y");
    redactor_unref(r);
}

/* ---- spellings ---- */

static void encoded(struct cox_buf *out, const char *prefix, const char *value, const char *suffix)
{
    struct cox_buf plain = { 0 };

    cox_buf_printf(&plain, "%s%s%s", prefix, value, suffix);
    cox_buf_reserve(out, 4 * plain.len + 8);
    out->len = (size_t)EVP_EncodeBlock(out->data, plain.data, (int)plain.len);
    cox_buf_fini(&plain);
}

/* Every length of what is in front and behind, in both alphabets: at most three characters beside the mark on
 * each side come from the value's neighbours or from its first and last bits. */
static void test_base64(void **state)
{
    static const char value[] = "p\xc3\xb6>>??~~secret\xff value";
    struct redactor *r = one(value);

    (void)state;
    for (size_t before = 0; before < 7; before++) {
        for (size_t after = 0; after < 7; after++) {
            struct cox_buf text = { 0 };
            const char *mark;

            encoded(&text, "......" + (6 - before), value, "......" + (6 - after));
            for (int url = 0; url < 2; url++) {
                struct cox_buf copy = { 0 };

                cox_buf_append_slice(&copy, cox_buf_slice(&text));
                for (size_t i = 0; url && i < copy.len; i++)
                    copy.data[i] = copy.data[i] == '+' ? '-' : copy.data[i] == '/' ? '_' : copy.data[i];
                assert_true(redact_text(r, &copy));
                mark = strstr(cox_buf_cstr(&copy), "***");
                assert_non_null(mark);
                assert_true((size_t)(mark - (char *)copy.data) <= (before * 4 + 2) / 3 + 1);
                assert_true(strlen(mark + 3) <= (after * 4 + 2) / 3 + 4);
                cox_buf_fini(&copy);
            }
            cox_buf_fini(&text);
        }
    }
    redactor_unref(r);
}

static void test_base64_in_lines(void **state)
{
    char value[300] = { 0 };
    struct cox_buf text = { 0 }, wrapped = { 0 };
    struct redactor *r;

    (void)state;
    for (size_t i = 0; i < sizeof(value) - 1; i++)
        value[i] = (char)('!' + i * 7 % 90);
    r = one(value);
    encoded(&text, "", value, "");
    for (size_t columns = 64; columns <= 76; columns += 12) {
        cox_buf_clear(&wrapped);
        for (size_t at = 0; at < text.len; at += columns)
            cox_buf_printf(&wrapped, "%.*s\n", (int)columns, cox_buf_cstr(&text) + at);
        assert_true(redact_text(r, &wrapped));
        for (const char *p = cox_buf_cstr(&wrapped); *p; p = strchr(p, '\n') + 1)
            assert_true(strncmp(p, "***", 3) == 0);
    }
    cox_buf_fini(&text);
    cox_buf_fini(&wrapped);
    redactor_unref(r);
}

static void test_other_spellings(void **state)
{
    struct redactor *r = one("a \"b\"\t/\\&c");

    (void)state;
    text_is(r, "x=a%20%22b%22%09%2F%5C%26c&y", "x=***&y");
    text_is(r, "x=a%20%22b%22%09%2f%5c%26c&y", "x=***&y");
    text_is(r, "x=a%20%22b%22%09/%5C%26c&y", "x=***&y"); /* as Python's quote */
    text_is(r, "x=a%20%22b%22%09/%5C&c&y", "x=***&y");   /* as encodeURI */
    text_is(r, "x=a+%22b%22%09%2F%5C%26c&y", "x=***&y");
    text_is(r, "{\"k\": \"a \\\"b\\\"\\t/\\\\&c\"}", "{\"k\": \"***\"}");
    text_is(r, "{\"k\": \"{\\\"k\\\": \\\"a \\\\\\\"b\\\\\\\"\\\\t/\\\\\\\\&c\\\"}\"}",
            "{\"k\": \"{\\\"k\\\": \\\"***\\\"}\"}");
    text_is(r, "612022622209 61202262220 92f5c2663 6120226222092f5c2663",
            "612022622209 61202262220 92f5c2663 ***");
    text_is(r, "6120226222092F5C2663.", "***.");
    redactor_unref(r);
    r = one("p\xc3\xa4ss\xf0\x9f\x94\x91w\"");
    text_is(r, "\"p\\u00e4ss\\ud83d\\udd11w\\\"\" p\\u00E4ss\\uD83D\\uDD11w\\\"", "\"***\" ***");
    text_is(r, "p%C3%A4ss%F0%9F%94%91w%22", "***");
    redactor_unref(r);
}

static void json_is(const struct redactor *r, const char *text, const char *expected)
{
    struct cox_buf b = { 0 };

    cox_buf_append_str(&b, text);
    assert_int_equal(redact_json(r, &b), strcmp(text, expected) != 0);
    assert_string_equal(cox_buf_cstr(&b), expected);
    cox_buf_fini(&b);
}

static void test_json(void **state)
{
    const struct cox_slice values[] = { cox_slice_str("hunter2"), cox_slice_str("12345678") };
    struct redactor *r = redactor_create(values, 2);

    (void)state;
    json_is(r, "{\"a\": [\"x\", 1.50, null, true, {}], \"b\\u0041\": \"\\u00e9\"}",
            "{\"a\": [\"x\", 1.50, null, true, {}], \"b\\u0041\": \"\\u00e9\"}"); /* not rewritten without a
                                                                                     cause */
    json_is(r, "{\"hunter2\": \"a hunter2\"}", "{\"***\": \"a ***\"}");
    json_is(r, "\"\\u0068unter\\u0032\"", "\"***\"");
    json_is(r, "[12345678, -12345678, 123456789]", "[\"***\", \"-***\", \"***9\"]");
    json_is(r, "[\"hun\", \"ter2\"]", "[\"hun\", \"ter2\"]");
    json_is(r, "no json hunter2", "no json ***");
    redactor_unref(r);
}

/* ---- the model ---- */

#define N_VALUES 4
#define TEXT_MAX 400

/* Letters whose other spellings have none of these letters: only the values themselves count. */
static struct cox_slice random_word(struct cox_rng *rng, char *to, size_t min, size_t max)
{
    size_t len = min + cox_rng_below(rng, max - min + 1);

    for (size_t i = 0; i < len; i++)
        to[i] = "xyz"[cox_rng_below(rng, 1 + cox_rng_below(rng, 3))];
    return cox_slice(to, len);
}

static void model(struct cox_buf *out, struct cox_slice text, const struct cox_slice *values, size_t n)
{
    bool gone[TEXT_MAX] = { 0 };

    for (size_t at = 0; at < text.len; at++) {
        for (size_t v = 0; v < n; v++) {
            if (at + values[v].len <= text.len && memcmp(text.data + at, values[v].data, values[v].len) == 0)
                memset(gone + at, true, values[v].len);
        }
    }
    for (size_t at = 0; at < text.len; at++) {
        if (!gone[at])
            cox_put_u8(out, text.data[at]);
        else if (at == 0 || !gone[at - 1])
            cox_buf_append_str(out, "***");
    }
}

static void one_history(uint64_t seed)
{
    struct cox_rng rng;
    char store[N_VALUES][16], text_store[TEXT_MAX];
    struct cox_slice values[N_VALUES], text;
    struct cox_buf expected = { 0 }, found = { 0 };
    size_t n;

    cox_rng_init(&rng, seed);
    n = 1 + cox_rng_below(&rng, N_VALUES);
    for (size_t i = 0; i < n; i++)
        values[i] = random_word(&rng, store[i], REDACT_LEN_MIN, sizeof(store[i]));
    text = random_word(&rng, text_store, 0, sizeof(text_store));
    model(&expected, text, values, n);
    struct redactor *r = redactor_create(values, n);
    struct redact_stream s = { .of = r };

    for (size_t at = 0; at < text.len;) {
        size_t len = 1 + cox_rng_below(&rng, 20);

        len = len < text.len - at ? len : text.len - at;
        redact_feed(&s, cox_slice(text.data + at, len), &found);
        at += len;
    }
    redact_end(&s, &found);
    redact_fini(&s);
    redactor_unref(r);
    if (!cox_slice_eq(cox_buf_slice(&expected), cox_buf_slice(&found))) {
        print_error("seed %llu: %.*s\n expected %s\n found %s\n", (unsigned long long)seed, (int)text.len,
                    (const char *)text.data, cox_buf_cstr(&expected), cox_buf_cstr(&found));
        fail();
    }
    cox_buf_fini(&expected);
    cox_buf_fini(&found);
}

/* COX_SEED=N runs one. */
static void test_streams_as_the_model(void **state)
{
    const char *given = getenv("COX_SEED");

    (void)state;
    if (given) {
        one_history(strtoull(given, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= 20000; seed++)
        one_history(seed);
}

/* A value that repeats itself, and a stream of it: what is held stays as long as the value, and all of it
 * goes. */
static void test_a_long_run_of_one_letter(void **state)
{
    static char letters[65536];
    struct cox_slice value = cox_slice(memset(letters, 'a', sizeof(letters)), sizeof(letters));
    struct redactor *r = redactor_create(&value, 1);
    struct redact_stream s = { .of = r };
    struct cox_buf out = { 0 };

    (void)state;
    for (int i = 0; i < 40; i++) {
        redact_feed(&s, cox_slice(letters, sizeof(letters) - 7), &out);
        assert_true(s.held.len <= 2 * sizeof(letters));
    }
    redact_feed(&s, cox_slice_str("b"), &out);
    redact_feed(&s, cox_slice(letters, 60000), &out); /* less than the value */
    redact_end(&s, &out);
    redact_fini(&s);
    assert_int_equal(out.len, 3 + 1 + 60000);
    assert_memory_equal(out.data, "***b", 4);
    cox_buf_fini(&out);
    redactor_unref(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_values_within_values),
        cmocka_unit_test(test_short_values_and_lines),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_base64_in_lines),
        cmocka_unit_test(test_other_spellings),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_streams_as_the_model),
        cmocka_unit_test(test_a_long_run_of_one_letter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
