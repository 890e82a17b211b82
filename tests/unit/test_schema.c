/* JSON Schema: what is a schema, and what fits one. */
#include "check.h"

#include "cox/json.h"
#include "cox/schema.h"

#include <string.h>

static void expect(const char *schema, const char *value, const char *why)
{
    struct cox_buf b = { 0 };
    enum cox_err err;

    assert_int_equal(cox_json_check(cox_slice_str(schema), NULL), COX_OK);
    assert_int_equal(cox_json_check(cox_slice_str(value), NULL), COX_OK);
    assert_int_equal(cox_schema_check(cox_slice_str(schema), &b), COX_OK);
    err = cox_schema_match(cox_slice_str(schema), cox_slice_str(value), &b);
    if (err != (why ? COX_ERR_INVALID : COX_OK) || strcmp(cox_buf_cstr(&b), why ? why : "") != 0)
        fail_msg("%s with %s: expected %s, found %s", schema, value, why ? why : "a fit", cox_buf_cstr(&b));
    cox_buf_fini(&b);
}

static void test_types(void **state)
{
    (void)state;
    expect("{\"type\":\"string\"}", " \"a\" ", NULL);
    expect("{\"type\":\"string\"}", "1", "the value: expected string, found a number");
    expect("{\"type\":\"integer\"}", "1.0", NULL);
    expect("{\"type\":\"integer\"}", "1e3", NULL);
    expect("{\"type\":\"integer\"}", "1.5", "the value: expected integer, found a number");
    expect("{\"type\":\"number\"}", "1", NULL);
    expect("{\"type\":[\"null\",\"boolean\"]}", "true", NULL);
    expect("{\"type\":[\"null\",\"boolean\"]}", "[]",
           "the value: expected one of [\"null\",\"boolean\"], found an array");
    expect("true", "1", NULL);
    expect("false", "1", "the value: expected nothing");
    expect("{}", "{\"a\":1}", NULL);
}

static void test_objects(void **state)
{
    static const char schema[] =
        "{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"integer\"},"
        "\"b\":{\"items\":{\"properties\":{\"c\":{\"type\":\"string\"}}}}},\"additionalProperties\":false}";

    (void)state;
    expect(schema, "{\"a\":1}", NULL);
    expect(schema, "{\"\\u0061\":1}", NULL);
    expect(schema, "{\"b\":[]}", "the value: expected a member \"a\"");
    expect(schema, "{\"a\":\"x\"}", "a: expected integer, found a string");
    expect(schema, "{\"a\":1,\"z\":2}", "z: expected no member of this name");
    expect(schema, "{\"a\":1,\"b\":[{\"c\":\"\"},{\"c\":2}]}", "b[1].c: expected string, found a number");
    expect("{\"additionalProperties\":{\"type\":\"integer\"}}", "{\"x\":\"\"}",
           "x: expected integer, found a string");
    expect("{\"minProperties\":1}", "{}", "the value: expected at least 1 members");
    expect("{\"maxProperties\":1}", "[1,2]", NULL); /* not about arrays */
}

static void test_numbers_texts_lists(void **state)
{
    (void)state;
    expect("{\"minimum\":2}", "2", NULL);
    expect("{\"minimum\":2}", "1.9", "the value: expected at least 2");
    expect("{\"exclusiveMinimum\":2}", "2", "the value: expected more than 2");
    expect("{\"maximum\":2}", "3", "the value: expected at most 2");
    expect("{\"exclusiveMaximum\":2}", "2", "the value: expected less than 2");
    expect("{\"minimum\":2}", "\"a\"", NULL);
    expect("{\"maxLength\":2}", "\"\\u00e4\xc3\xb6\"", NULL);
    expect("{\"maxLength\":2}", "\"abc\"", "the value: expected at most 2 characters");
    expect("{\"minItems\":2}", "[1]", "the value: expected at least 2 items");
    expect("{\"prefixItems\":[{\"type\":\"string\"}],\"items\":{\"type\":\"integer\"}}", "[\"a\",1,2]", NULL);
    expect("{\"prefixItems\":[{\"type\":\"string\"}],\"items\":false}", "[\"a\",1]", "[1]: expected nothing");
}

static void test_choices(void **state)
{
    (void)state;
    expect("{\"enum\":[1,\"a\",{\"x\":[1,2],\"y\":null}]}", "{\"y\":null,\"x\":[1.0,2]}", NULL);
    expect("{\"enum\":[1,\"a\"]}", "\"b\"", "the value: expected one of [1,\"a\"]");
    expect("{\"const\":9007199254740993}", "9007199254740992", "the value: expected 9007199254740993");
    expect("{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "null", NULL);
    expect("{\"anyOf\":[{\"type\":\"string\"}]}", "1",
           "the value: expected what one of the schemas allows: [{\"type\":\"string\"}]");
    expect("{\"oneOf\":[{\"minimum\":1},{\"minimum\":2}]}", "3",
           "the value: expected what exactly one of the schemas in oneOf allows");
    expect("{\"allOf\":[{\"minimum\":1},{\"maximum\":2}]}", "3", "the value: expected at most 2");
    expect("{\"not\":{\"type\":\"string\"}}", "\"\"", "the value: expected anything but what \"not\" allows");
}

static void test_references(void **state)
{
    static const char tree[] =
        "{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{"
        "\"l\":{\"$ref\":\"#/$defs/n\"}},\"additionalProperties\":false}}}";

    (void)state;
    expect(tree, "{\"l\":{\"l\":{}}}", NULL);
    expect(tree, "{\"l\":{\"l\":{\"x\":1}}}", "l.l.x: expected no member of this name");
    expect("{\"$ref\":\"#/$defs/none\"}", "1",
           "the value: expected a schema that has what it refers to: \"#/$defs/none\"");
    expect("{\"$ref\":\"#\"}", "1", "the value: expected a schema that refers less deeply to itself");
}

/* Sixteen alternatives a level, each trying all of the next: work that doubles and doubles again. */
static void test_work_is_bounded(void **state)
{
    struct cox_buf b = { 0 };

    (void)state;
    cox_buf_append_str(&b, "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"anyOf\":[");
    for (int i = 0; i < 16; i++)
        cox_buf_printf(&b, "%s{\"$ref\":\"#/$defs/a\"}", i ? "," : "");
    cox_buf_append_str(&b, "]}}}");
    struct cox_buf why = { 0 };
    assert_int_equal(cox_schema_match(cox_buf_slice(&b), cox_slice_str("1"), &why), COX_ERR_INVALID);
    cox_buf_fini(&b);
    cox_buf_fini(&why);
}

static void test_what_is_no_schema(void **state)
{
    static const struct {
        const char *schema, *why;
    } cases[] = {
        { "3", "the schema: expected a schema: an object, true or false" },
        { "{\"type\":\"text\"}", "type: expected a name of a type, or a list of them" },
        { "{\"properties\":{\"a\":{\"minimum\":\"1\"}}}", "properties.a.minimum: expected a number" },
        { "{\"required\":[1]}", "required: expected a list of names" },
        { "{\"items\":[]}", "items: expected a schema: an object, true or false" },
        { "{\"anyOf\":[{},{\"maxItems\":-1}]}", "anyOf[1].maxItems: expected a number of 0 or more" },
        { "{\"$ref\":\"http://x/y\"}", "$ref: expected a reference within the schema, such as #/$defs/x" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cox_buf why = { 0 };

        assert_int_equal(cox_schema_check(cox_slice_str(cases[i].schema), &why), COX_ERR_INVALID);
        assert_string_equal(cox_buf_cstr(&why), cases[i].why);
        cox_buf_fini(&why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_numbers_texts_lists),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_work_is_bounded),
        cmocka_unit_test(test_what_is_no_schema),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
