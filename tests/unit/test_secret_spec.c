/* What a worker makes of a spec with secrets (worker/secret_spec.h): values stand where the document says,
 * and nowhere else, whatever inputs hold. The spec comes from the compiler and the evaluator, as it does in a
 * task. */
#include "secret_spec.h"
#include "task_fixture.h"
#include "wiped.h"

#include "cox/base/rng.h"
#include "cox/json.h"

#include <stdlib.h>

static void filled(const char *text, const struct cox_slice *values, const char *expected)
{
    struct cox_buf spec = quoted(text), out = { 0 };
    struct secret_spec s;

    assert_true(secret_spec_read(cox_buf_slice(&spec), &s));
    if (expected) {
        struct cox_buf e = quoted(expected);

        assert_int_equal(secret_spec_fill(&s, values, &out), COX_OK);
        assert_string_equal(cox_buf_cstr(&out), cox_buf_cstr(&e));
        cox_buf_fini(&e);
    } else {
        assert_int_equal(secret_spec_fill(&s, values, &out), COX_ERR_INVALID);
    }
    wiped_fini(&out);
    cox_buf_fini(&spec);
}

static void test_places(void **state)
{
    const struct cox_slice values[] = { cox_slice_str("v\"1\\\n"), cox_slice_str("v2") };

    (void)state;
    filled("[{`A`:`a`,`B`:`b`},{`x`:[`<`,`A`,`>`],`y`:[1,[``,`B`,``,`A`,``]]},[[`x`],[`y`,1]]]", values,
           "{`x`:`<v\\`1\\\\\\n>`,`y`:[1,`v2v\\`1\\\\\\n`]}");
    filled("[{`A`:`a`},{`x`:[``,`A`,``]},[]]", values, "{`x`:[``,`A`,``]}");
    filled("[{`A`:`a`},{`x`:{`x`:[``,`A`,``]},`y`:[``,`A`,``]},[[`y`]]]", values,
           "{`x`:{`x`:[``,`A`,``]},`y`:`v\\`1\\\\\\n`}");
    filled("[{`A`:`a`},{`\\u0078`:[``,`A`,``]},[[`x`]]]", values, "{`\\u0078`:`v\\`1\\\\\\n`}");
    /* none of SPEC's */
    filled("[{`A`:`a`},{`x`:[``,`A`,``]},[[`y`]]]", values, NULL);
    filled("[{`A`:`a`},{`x`:[``,`A`,``]},[[`x`,0]]]", values, NULL);
    filled("[{`A`:`a`},{`x`:[``,`C`,``]},[[`x`]]]", values, NULL);
    filled("[{`A`:`a`},{`x`:[``,`A`,1]},[[`x`]]]", values, NULL);
    filled("[{`A`:`a`},{`x`:`A`},[[`x`]]]", values, NULL);
    filled("[{`A`:`a`},{`x`:[``,`A`,``]},[[`x`],[`x`]]]", values, NULL);
    filled("[{`A`:`a`},{`x`:[``,`A`,``]},[`x`]]", values, NULL);
}

static void test_what_is_no_such_spec(void **state)
{
    static const char *const plain[] = { "{}",
                                         "[]",
                                         "[{`A`:`a`},{}]",
                                         "[{`A`:1},{},[]]",
                                         "[[],{},[]]",
                                         "[{`A`:`a`},{},{}]",
                                         "[{`A`:`a`},{},[],1]",
                                         "[{`A`:`a`},{},[]" };
    struct secret_spec s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        struct cox_buf text = quoted(plain[i]);

        assert_false(secret_spec_read(cox_buf_slice(&text), &s));
        assert_true(cox_slice_eq(s.spec, cox_buf_slice(&text)));
        cox_buf_fini(&text);
    }
}

/* ---- forgeries ---- */

/* What somebody would try who knows how specs are made. */
static void put_word(struct cox_rng *rng, struct cox_buf *out)
{
    static const char *const words[] = { "TOKEN",
                                         "K2",
                                         "slack",
                                         "\"",
                                         "\\",
                                         "\",\"TOKEN\",\"",
                                         "[\"\",\"TOKEN\",\"\"]",
                                         "f0",
                                         "${{ secrets.TOKEN }}",
                                         "]]",
                                         "}}",
                                         "\n",
                                         "\xc3\xa9",
                                         "a",
                                         "{\"TOKEN\":\"slack\"}" };

    for (uint64_t n = cox_rng_below(rng, 4); n > 0; n--)
        cox_buf_append_str(out, words[cox_rng_below(rng, ARRAY_LEN(words))]);
}

static void put_data(struct cox_rng *rng, struct cox_buf *json, int depth)
{
    struct cox_buf word = { 0 };
    uint64_t kind = cox_rng_below(rng, depth > 3 ? 2 : 5), n = cox_rng_below(rng, 4);

    put_word(rng, &word);
    if (kind == 0)
        cox_buf_printf(json, "%llu", (unsigned long long)n);
    else if (kind == 1)
        cox_json_quote(json, cox_buf_slice(&word));
    else if (kind == 2)
        cox_buf_append_str(json, "[\"\",\"TOKEN\",\"\"]");
    for (uint64_t i = 0; kind > 2 && i < n; i++) {
        cox_buf_append_str(json, i > 0 ? "," : kind == 3 ? "[" : "{");
        if (kind == 4)
            cox_buf_printf(json, "\"f%llu\":", (unsigned long long)i);
        put_data(rng, json, depth + 1);
    }
    if (kind > 2)
        cox_buf_append_str(json, kind == 3 ? (n ? "]" : "[]") : n ? "}" : "{}");
    cox_buf_fini(&word);
}

/* One field of `with`: as the document has it, and as the program must get it. */
static void put_field(struct cox_rng *rng, struct cox_buf *document, struct cox_buf *expected,
                      struct cox_slice text, struct cox_slice data, const struct cox_slice *values)
{
    struct cox_buf source = { 0 }, plain = { 0 }, word = { 0 };

    for (uint64_t n = 1 + cox_rng_below(rng, 4); n > 0; n--) {
        uint64_t kind = cox_rng_below(rng, 5);

        cox_buf_clear(&word);
        put_word(rng, &word);
        if (memmem(word.data ? (void *)word.data : "", word.len, "${{", 3))
            cox_buf_clear(&word);
        if (kind == 0) {
            cox_buf_append_str(&source, "${{ secrets.TOKEN }}");
            cox_buf_append_slice(&plain, values[0]);
        } else if (kind == 1) {
            cox_buf_append_str(&source, "${{secrets[ 'K2' ]}}");
            cox_buf_append_slice(&plain, values[1]);
        } else if (kind == 2) {
            cox_buf_append_str(&source, "${{ inputs.text }}");
            cox_buf_append_slice(&plain, text);
        } else if (kind == 3 && cox_json_kind(data) != COX_JSON_STRING) {
            cox_buf_append_str(&source, "-${{ inputs.data }}");
            cox_buf_append_str(&plain, "-");
            cox_json_compact(&plain, data);
        } else {
            cox_buf_append_str(&source, ".");
            cox_buf_append_str(&plain, ".");
            cox_buf_append_slice(&source, cox_buf_slice(&word));
            cox_buf_append_slice(&plain, cox_buf_slice(&word));
        }
    }
    cox_json_quote(document, cox_buf_slice(&source));
    cox_json_quote(expected, cox_buf_slice(&plain));
    cox_buf_fini(&source);
    cox_buf_fini(&plain);
    cox_buf_fini(&word);
}

static void one_document(uint64_t seed)
{
    const struct cox_slice values[] = { cox_slice_str("s3cr3t\"\\ \n"),
                                        cox_slice_str("[\"\",\"TOKEN\",\"\"]") };
    struct cox_buf text = { 0 }, data = { 0 }, inputs = { 0 }, with = { 0 }, expected = { 0 },
                   document = { 0 };
    struct cox_buf out = { 0 };
    struct world w = { .error_message = "" };
    struct cox_image_step step;
    struct cox_image_call call;
    struct secret_spec s;
    struct compiled c;
    struct cox_rng rng;

    cox_rng_init(&rng, seed);
    put_word(&rng, &text);
    put_data(&rng, &data, 0);
    cox_buf_append_str(&inputs, "{\"text\":");
    cox_json_quote(&inputs, cox_buf_slice(&text));
    cox_buf_printf(&inputs, ",\"data\":%s}", cox_buf_cstr(&data));
    for (uint64_t i = 0, n = 1 + cox_rng_below(&rng, 5); i < n; i++) {
        const char *separator = i > 0 ? "," : "";

        cox_buf_printf(&with, "%s\"f%llu\":", separator, (unsigned long long)i);
        cox_buf_printf(&expected, "%s\"f%llu\":", separator, (unsigned long long)i);
        if (cox_rng_below(&rng, 3) == 0) { /* data whole, beside places with the names of its keys */
            cox_buf_append_str(&with, "\"${{ inputs.data }}\"");
            cox_buf_append_slice(&expected, cox_buf_slice(&data));
        } else {
            bool nested = cox_rng_below(&rng, 2) == 0;

            cox_buf_append_str(&with, nested ? "{\"f0\":[" : "");
            cox_buf_append_str(&expected, nested ? "{\"f0\":[" : "");
            put_field(&rng, &with, &expected, cox_buf_slice(&text), cox_buf_slice(&data), values);
            cox_buf_append_str(&with, nested ? "]}" : "");
            cox_buf_append_str(&expected, nested ? "]}" : "");
        }
    }
    cox_buf_printf(
        &document,
        "{\"api_version\":\"v1\",\"name\":\"t\",\"inputs\":{\"text\":{\"type\":\"string\"},\"data\":{"
        "\"type\":"
        "\"any\"}},\"steps\":{\"a\":{\"uses\":\"x@1\",\"secrets\":{\"TOKEN\":\"slack\",\"K2\":\"other\"},"
        "\"with\":{%s}}}}",
        cox_buf_cstr(&with));
    compile_bytes(&c, cox_buf_slice(&document), cox_buf_cstr(&inputs));
    if (c.err != COX_OK)
        print_violations(&c.violations);
    check_seeded(c.err == COX_OK, seed);
    cox_image_step(&c.image, 0, &step);
    cox_image_call(&c.image, step.call, &call);
    check_seeded(secret_spec_read(cox_slice_str(evaluate(&c.image, call.spec_template, &w)), &s), seed);
    check_seeded(secret_spec_fill(&s, values, &out) == COX_OK, seed);
    if (out.len < 2 || strncmp(cox_buf_cstr(&out) + 1, cox_buf_cstr(&expected), expected.len) != 0 ||
        out.len != expected.len + 2) {
        print_error("seed %llu: %s\n expected {%s}\n found    %s\n", (unsigned long long)seed,
                    cox_buf_cstr(&document), cox_buf_cstr(&expected), cox_buf_cstr(&out));
        fail();
    }
    compiled_fini(&c);
    wiped_fini(&out);
    struct cox_buf *bufs[] = { &text, &data, &inputs, &with, &expected, &document };
    for (size_t i = 0; i < ARRAY_LEN(bufs); i++)
        cox_buf_fini(bufs[i]);
}

/* COX_SEED=N runs one. */
static void test_no_data_makes_a_place(void **state)
{
    const char *given = getenv("COX_SEED");

    (void)state;
    if (given) {
        one_document(strtoull(given, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= 5000; seed++)
        one_document(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_what_is_no_such_spec),
        cmocka_unit_test(test_no_data_makes_a_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
