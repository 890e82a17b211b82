/* Task documents in YAML: the core schema's values, what is refused and where, and the lines of paths. */
#include "cox/yaml.h"

#include "cox/json.h"
#include "cox/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void assert_gives(const char *yaml, const char *json)
{
    struct cox_yaml y = { 0 };

    if (cox_yaml_parse(&y, cox_slice_str(yaml)))
        fail_msg("%s\n%zu:%zu: %s", yaml, y.error_line, y.error_column, cox_buf_cstr(&y.error));
    assert_string_equal(cox_buf_cstr(&y.json), json);
    cox_yaml_fini(&y);
}

static void assert_refused(const char *yaml, size_t line, size_t column, const char *message)
{
    struct cox_yaml y = { 0 };

    assert_int_equal(cox_yaml_parse(&y, cox_slice_str(yaml)), COX_ERR_INVALID);
    assert_string_equal(cox_buf_cstr(&y.error), message);
    assert_int_equal(y.error_line, line);
    assert_int_equal(y.error_column, column);
    cox_yaml_fini(&y);
}

static void test_plain_scalars_follow_the_core_schema(void **state)
{
    (void)state;
    assert_gives("[~, null, Null, NULL, ]", "[null,null,null,null]");
    assert_gives("a:\n", "{\"a\":null}");
    assert_gives("[true, True, FALSE, yes, no, on, off, y, n]",
                 "[true,true,false,\"yes\",\"no\",\"on\",\"off\",\"y\",\"n\"]");
    assert_gives("[0, -1, +2, 007, 0o17, 0x1F, 123456789012345678901234567890]",
                 "[0,-1,2,7,15,31,123456789012345678901234567890]");
    assert_gives("[1.50, .5, 1., 1e3, -1.5E-3, 00.1]", "[1.50,0.5,1.0,1e3,-1.5E-3,0.1]");
    assert_gives("[1.2.3, 1_000, 0b1, 12:30, -, 1e, 10m, 2001-01-01]",
                 "[\"1.2.3\",\"1_000\",\"0b1\",\"12:30\",\"-\",\"1e\",\"10m\",\"2001-01-01\"]");
}

static void test_quoted_and_block_scalars_are_strings(void **state)
{
    (void)state;
    assert_gives("['true', \"1\", 'it''s', \"tab\\t\"]", "[\"true\",\"1\",\"it's\",\"tab\\t\"]");
    assert_gives("a: |\n  1\n  2\nb: >-\n  3\n  4\n", "{\"a\":\"1\\n2\\n\",\"b\":\"3 4\"}");
    assert_gives("[!!str 1, !!int 2, !!float 1.5, !!null ~, !!bool true, ! 3]",
                 "[\"1\",2,1.5,null,true,\"3\"]");
}

static void test_keys_are_names(void **state)
{
    (void)state;
    assert_gives("{1: a, true: b, null: c, 'x y': d, on: e}",
                 "{\"1\":\"a\",\"true\":\"b\",\"null\":\"c\",\"x y\":\"d\",\"on\":\"e\"}");
}

static void test_aliases_are_copies(void **state)
{
    (void)state;
    assert_gives("a: &x {b: [1]}\nc: *x\nd: [*x, &x 2, *x]",
                 "{\"a\":{\"b\":[1]},\"c\":{\"b\":[1]},\"d\":[{\"b\":[1]},2,2]}");
}

static void test_refusals_name_line_and_column(void **state)
{
    (void)state;
    assert_refused("", 1, 1, "the document is empty");
    assert_refused("# only words\n", 1, 1, "the document is empty");
    assert_refused("a: 1\nb: 2\na: 3\n", 3, 1, "the key a was given before");
    assert_refused("a:\n  <<: {b: 1}\n", 2, 3, "merge keys are not part of YAML 1.2");
    assert_refused("a: !thing 1", 1, 4, "a tag that is not of the core schema");
    assert_refused("a: !!int x", 1, 4,
                   "a value that does not fit its tag, or a tag that is not of the core schema");
    assert_refused("a: *b", 1, 4, "an alias of an anchor that was not defined before");
    assert_refused("a: &b [1, *b]", 1, 11, "an alias inside of its own anchor");
    assert_refused("[a]: 1", 1, 1, "a key must be a plain or quoted word");
    assert_refused("--- 1\n--- 2\n", 2, 1, "a second document");
    assert_refused("a: .inf", 1, 4, "infinity and not-a-number have no JSON form");
    assert_refused("a: 0x10000000000000000", 1, 4, "an integer of more than 64 bits");
    assert_refused("a: b: c", 1, 5, "mapping values are not allowed in this context");
}

/* What cannot be decoded is found a buffer at a time, before anything of it is parsed. */
static void test_bad_characters_have_their_place(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };

    assert_refused("\xff", 1, 1, "invalid leading UTF-8 octet");
    assert_refused("a: 1\nb: \xff\n", 2, 4, "invalid leading UTF-8 octet");
    assert_refused("a: 1\n\nb: caf\xc3\xa9 \xc3(\n", 3, 9, "invalid trailing UTF-8 octet");
    assert_refused("a: 1\r\nb: \xed\xa0\x80\n", 2, 4, "invalid Unicode character");
    assert_refused("a: 1\rb: x\x01\n", 2, 5, "control characters are not allowed");
    assert_refused("a: \xe2\x82", 1, 4, "incomplete UTF-8 octet sequence");
    for (int i = 0; i < 10000; i++)
        cox_buf_printf(&b, "k%d: v\n", i);
    cox_buf_append_str(&b, "bad: '\xff'\n");
    assert_refused(cox_buf_cstr(&b), 10001, 7, "invalid leading UTF-8 octet");
    cox_buf_fini(&b);
}

static void test_bombs_are_refused(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };
    struct cox_yaml y = { 0 };

    /* Ten aliases of ten aliases of ...: 10^8 words from ten lines. */
    cox_buf_append_str(&b, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 8; i++) {
        cox_buf_printf(&b, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            cox_buf_printf(&b, "%s*a%d", k > 0 ? ", " : "", i - 1);
        cox_buf_append_str(&b, "]\n");
    }
    assert_int_equal(cox_yaml_parse(&y, cox_buf_slice(&b)), COX_ERR_INVALID);
    assert_string_equal(cox_buf_cstr(&y.error), "aliases make the document grow beyond 4 MiB here");
    assert_true(y.json.cap < 4 * (size_t)COX_DOCUMENT_LEN_MAX);
    cox_yaml_fini(&y);

    cox_buf_clear(&b);
    y = (struct cox_yaml){ 0 };
    for (int i = 0; i < 1000; i++)
        cox_put_u8(&b, '[');
    assert_int_equal(cox_yaml_parse(&y, cox_buf_slice(&b)), COX_ERR_INVALID);
    assert_string_equal(cox_buf_cstr(&y.error), "nested too deeply");
    cox_yaml_fini(&y);
    cox_buf_fini(&b);
}

static void test_paths_have_lines(void **state)
{
    (void)state;
    struct cox_yaml y = { 0 };
    static const char text[] = "api_version: v1\n"
                               "steps:\n"
                               "  scan:\n"
                               "    run:\n"
                               "      argv:\n"
                               "        - ls\n"
                               "        - -l\n"
                               "    env: {A: 1,\n"
                               "          B: 2}\n";

    assert_int_equal(cox_yaml_parse(&y, cox_slice_str(text)), COX_OK);
    assert_int_equal(cox_yaml_line(&y, ""), 1);
    assert_int_equal(cox_yaml_line(&y, "steps"), 2);
    assert_int_equal(cox_yaml_line(&y, "steps.scan.run.argv"), 5);
    assert_int_equal(cox_yaml_line(&y, "steps.scan.run.argv[1]"), 7);
    assert_int_equal(cox_yaml_line(&y, "steps.scan.env.B"), 9);
    assert_int_equal(cox_yaml_line(&y, "steps.scan.run.argv[9].x"), 5); /* the nearest that is there */
    assert_int_equal(cox_yaml_line(&y, "nothing.like.it"), 1);
    cox_yaml_fini(&y);
}

/* A path a value, each as long as the key above them: of 4 MiB these would be terabytes. */
static void test_a_long_key_over_many_values_is_not_kept_for_each(void **state)
{
    (void)state;
    struct cox_yaml y = { 0 };
    struct cox_buf b = { 0 }, path = { 0 };
    struct cox_slice key;
    size_t it = 0, len = 0;
    void *line;

    for (int i = 0; i < 1 << 20; i++)
        cox_put_u8(&path, 'k');
    cox_buf_append_str(&b, "? ");
    cox_buf_append_slice(&b, cox_buf_slice(&path));
    cox_buf_append_str(&b, "\n:\n");
    for (int i = 0; i < 1000; i++)
        cox_buf_append_str(&b, " - 1\n");
    assert_int_equal(cox_yaml_parse(&y, cox_buf_slice(&b)), COX_OK);
    while (cox_mapb_next(&y.lines, &it, &key, &line))
        len += key.len;
    assert_true(len < 64 << 20);
    cox_buf_append_str(&path, "[1]");
    assert_int_equal(cox_yaml_line(&y, cox_buf_cstr(&path)), 4);
    path.len -= 3;
    cox_buf_append_str(&path, "[999]");
    assert_int_equal(cox_yaml_line(&y, cox_buf_cstr(&path)), 1); /* the nearest that is kept */
    cox_yaml_fini(&y);
    cox_buf_fini(&b);
    cox_buf_fini(&path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_scalars_follow_the_core_schema),
        cmocka_unit_test(test_quoted_and_block_scalars_are_strings),
        cmocka_unit_test(test_keys_are_names),
        cmocka_unit_test(test_aliases_are_copies),
        cmocka_unit_test(test_refusals_name_line_and_column),
        cmocka_unit_test(test_bad_characters_have_their_place),
        cmocka_unit_test(test_bombs_are_refused),
        cmocka_unit_test(test_paths_have_lines),
        cmocka_unit_test(test_a_long_key_over_many_values_is_not_kept_for_each),
    };

    return cmocka_run_group_tests_name("cox_yaml", tests, NULL, NULL);
}
