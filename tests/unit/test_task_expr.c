/* Expressions and templates: what they come to, by table. */
#include "task_fixture.h"

#include "check.h"

#include "cox/base/rng.h"

/* Two steps have ended, one was skipped; the value under test is the output `v`. */
#define DOCUMENT(value)                                                                                      \
    "{`api_version`: `v1`, `name`: `t`,"                                                                     \
    " `inputs`: {`n`: {`type`: `integer`, `default`: 7}, `s`: {`type`: `string`, `default`: `a\\`b`},"       \
    "            `list`: {`type`: `array`, `default`: [1, 2.5, `x`]},"                                       \
    "            `obj`: {`type`: `object`, `default`: {`k`: {`x`: 1}, `none`: null}},"                       \
    "            `gone`: {`type`: `string`, `required`: false}},"                                            \
    " `steps`: {`ok`: {`uses`: `x@1`}, `bad`: {`uses`: `x@1`}, `skipped`: {`uses`: `x@1`}},"                 \
    " `outputs`: {`v`: " value "}}"

static const char ok_output[] =
    "{ \"code\" : 0, \"text\": \"line \\u00e9\\n\", \"big\": 12345678901234567890,"
    " \"half\": 0.5, \"list\": [1, [2], {\"a\": 3}], \"t\": true, \"nil\": null }";

static struct world ended(void)
{
    struct world w = { .error_message = "" };

    w.steps[0] =
        (struct cox_eval_step){ .status = COX_STEP_SUCCEEDED, .output_json = cox_slice_str(ok_output) };
    w.steps[1] = (struct cox_eval_step){ .status = COX_STEP_FAILED,
                                         .code = COX_CODE_TIMEOUT,
                                         .message = cox_slice_str("after \"1s\"") };
    w.steps[2] = (struct cox_eval_step){ .status = COX_STEP_SKIPPED };
    return w;
}

/* The document whose output `v` is the string "${{ expr }}". */
static struct cox_buf document_of(const char *expr)
{
    struct cox_buf document = { 0 }, head = quoted(DOCUMENT("`${{ "));
    const char *tail = " }}\"}}";
    size_t head_len = (size_t)((const char *)memmem(head.data, head.len, "${{ ", 4) - (char *)head.data) + 4;

    cox_buf_append(&document, head.data, head_len);
    for (const char *p = expr; *p; p++) {
        if (*p == '"' || *p == '\\')
            cox_buf_append_str(&document, "\\");
        cox_buf_append(&document, p, 1);
    }
    cox_buf_append_str(&document, tail);
    cox_buf_fini(&head);
    return document;
}

/* What the expression comes to, as compact JSON, "error: ..." when it fails then, "refused: ..." when it does
 * not compile. Valid until the next call. */
static const char *value_of(const char *expr)
{
    static char text[2048];
    struct cox_buf document = document_of(expr);
    struct world w = ended();
    struct compiled c;

    compile_bytes(&c, cox_buf_slice(&document), NULL);
    if (c.err != COX_OK) {
        assert_int_equal(c.violations.n, 1);
        assert_string_equal(c.violations.items[0].path, "outputs.v");
        snprintf(text, sizeof(text), "refused: %s", c.violations.items[0].message);
    } else {
        struct cox_image_task task;

        cox_image_task(&c.image, &task);
        const char *value = evaluate(&c.image, task.outputs_template, &w);

        if (strncmp(value, "{\"v\":", 5) == 0)
            snprintf(text, sizeof(text), "%.*s", (int)strlen(value) - 6, value + 5);
        else
            snprintf(text, sizeof(text), "%s", value);
    }
    compiled_fini(&c);
    cox_buf_fini(&document);
    return text;
}

struct expr_case {
    const char *expr;
    const char *value; /* JSON; or a part of the error or refusal when it begins so */
};

static bool as_expected(const char *found, const char *expected)
{
    static const char *const kinds[] = { "error: ", "refused: " };

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        size_t len = strlen(kinds[i]);

        if (strncmp(expected, kinds[i], len) == 0)
            return strncmp(found, kinds[i], len) == 0 && strstr(found, expected + len);
    }
    return strcmp(found, expected) == 0;
}

static void check_all(const struct expr_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *found = value_of(cases[i].expr);

        if (!as_expected(found, cases[i].value)) {
            print_error("${{ %s }}\n  expected %s\n  found    %s\n", cases[i].expr, cases[i].value, found);
            fail();
        }
    }
}
#define CHECK_ALL(cases) check_all(cases, ARRAY_LEN(cases))

static void test_literals(void **state)
{
    static const struct expr_case cases[] = {
        { "1", "1" },
        { "-1", "-1" },
        { "0x1F", "31" },
        { "9223372036854775807", "9223372036854775807" },
        { "-9223372036854775808", "-9223372036854775808" },
        { "9223372036854775808", "refused: too large" },
        { "99999999999999999999", "refused: too large" },
        { "1.5", "1.5" },
        { "1e3", "1000.0" },
        { "2.5E-3", "0.0025" },
        { "0.1", "0.1" },
        { "1e999", "refused: too large" },
        { "1x", "refused: neither a number nor a name" },
        { "true", "true" },
        { "null", "null" },
        { "'a'", "\"a\"" },
        { "\"it's\"", "\"it's\"" },
        { "'\\n\\t\\\\\\''", "\"\\n\\t\\\\'\"" },
        { "'\\u00e9\\x41\\101\\U0001F600'", "\"\xc3\xa9"
                                            "AA\xf0\x9f\x98\x80\"" },
        { "r'a\\n'", "\"a\\\\n\"" },
        { "'a\\q'", "refused: unknown escape" },
        { "'a\\ud800'", "refused: unknown escape" },
        { "'}}'", "\"}}\"" },
        { "'a' + \"}}\"", "\"a}}\"" },
        { "[]", "[]" },
        { "[1, 'a', [true]]", "[1,\"a\",[true]]" },
        { "[1 + 1, inputs.n]", "[2,7]" },
        { "[1, 2", "refused: found its end, expected `,` or `]`" },
        { "{'a': 1}", "refused: map literals" },
    };

    (void)state;
    CHECK_ALL(cases);
}

static void test_paths(void **state)
{
    static const struct expr_case cases[] = {
        { "inputs.n", "7" },
        { "inputs[\"n\"]", "7" },
        { "inputs['s']", "\"a\\\"b\"" },
        { "inputs[inputs.gone == null ? 'n' : 's']", "7" },
        { "inputs['a' + 'b']", "error: no such key: `ab`" },
        { "inputs.list[1]", "2.5" },
        { "inputs.list[-1]", "error: no such index: -1" },
        { "inputs.list[3]", "error: no such index: 3" },
        { "inputs.list[1.0]", "error: no element [double]" },
        { "inputs.obj.k.x", "1" },
        { "inputs.obj['k']['x']", "1" },
        { "inputs.gone", "null" },
        { "inputs.gone.a.b[3]['c']", "null" },
        { "inputs.obj.none.deeper", "null" },
        { "inputs.obj.missing", "error: no such key: `missing`" },
        { "inputs.n.x", "error: a value of type int has no field `x`" },
        { "steps.ok.output.code", "0" },
        { "steps['ok']['output'].text", "\"line \\u00e9\\n\"" },
        { "steps.ok.output.list[2].a", "3" },
        { "steps.ok.output.big", "12345678901234567890" },
        { "steps.ok.output.list", "[1,[2],{\"a\":3}]" },
        { "steps.ok.status", "\"SUCCEEDED\"" },
        { "steps.ok.error", "null" },
        { "steps.ok.errors", "[]" },
        { "steps.bad.status", "\"FAILED\"" },
        { "steps.bad.error", "{\"code\":\"TIMEOUT\",\"message\":\"after \\\"1s\\\"\"}" },
        { "steps.bad.error.code", "\"TIMEOUT\"" },
        { "steps.bad.error.message", "\"after \\\"1s\\\"\"" },
        { "steps.skipped.output", "null" },
        { "steps.skipped.output.a.b", "null" },
        { "steps.skipped.error.code", "null" },
        { "steps.ok.", "refused: found its end, expected" },
        { "steps.ok[", "refused: found its end, expected" },
        { "inputs.", "refused: found its end" },
        { "inputs.nn", "refused: unknown input `nn`; did you mean `n`?" },
        { "nothing", "refused: unknown name `nothing`" },
    };

    (void)state;
    CHECK_ALL(cases);
}

static void test_arithmetic(void **state)
{
    static const struct expr_case cases[] = {
        { "1 + 2 * 3 - 4", "3" },
        { "(1 + 2) * 3", "9" },
        { "7 / 2", "3" },
        { "-7 / 2", "-3" },
        { "-7 % 3", "-1" },
        { "10 - 3 - 2", "5" },
        { "- (5)", "-5" },
        { "--5", "5" },
        { "1.5 + 1.5", "3.0" },
        { "1.0 / 4.0", "0.25" },
        { "1 + 1.0", "error: `+` does not take int and double" },
        { "1 + 'a'", "error: `+` does not take int and string" },
        { "null + 1", "error: `+` does not take null and int" },
        { "5.0 % 2.0", "error: `%` does not take double and double" },
        { "1 / 0", "error: division by zero" },
        { "1 % 0", "error: division by zero" },
        { "1.0 / 0.0", "error: division by zero" },
        { "9223372036854775807 + 1", "error: integer overflow" },
        { "-9223372036854775808 - 1", "error: integer overflow" },
        { "9223372036854775807 * 2", "error: integer overflow" },
        { "-9223372036854775808 / -1", "error: integer overflow" },
        { "-9223372036854775808 % -1", "error: integer overflow" },
        { "-inputs.n", "-7" },
        { "-(-9223372036854775807 - 1)", "error: integer overflow" },
        { "1e308 * 10.0", "error: not a finite number" },
        { "-'a'", "error: `-` does not take string" },
        { "'a' + 'b' + inputs.s", "\"aba\\\"b\"" },
        { "[1] + [] + [2, 'x']", "[1,2,\"x\"]" },
        { "steps.ok.output.code + 1", "1" },
    };

    (void)state;
    CHECK_ALL(cases);
}

static void test_comparison(void **state)
{
    static const struct expr_case cases[] = {
        { "1 == 1.0", "true" },
        { "1 != 1.0", "false" },
        { "1 < 1.5", "true" },
        { "2 > 1.5", "true" },
        { "9007199254740993 == 9007199254740992.0", "false" }, /* rounding would say true */
        { "9223372036854775807 < 9223372036854775808.0", "true" },
        { "-9223372036854775808 <= -9223372036854775808.0", "true" },
        { "-1 > -1.5", "true" },
        { "'a' < 'b'", "true" },
        { "'a' < 'aa'", "true" },
        { "'\xc3\xa9' > 'z'", "true" },
        { "false < true", "true" },
        { "1 < 'a'", "error: `<` does not take int and string" },
        { "null < 1", "error: `<` does not take null and int" },
        { "1 == 'a'", "false" },
        { "null == null", "true" },
        { "null != 0", "true" },
        { "[1, 2] == [1.0, 2]", "true" },
        { "[1, 2] == [2, 1]", "false" },
        { "[1] == [1, 2]", "false" },
        { "inputs.obj == fromJSON('{\"none\": null, \"k\": {\"x\": 1.0}}')", "true" },
        { "inputs.obj == fromJSON('{\"none\": null}')", "false" },
        { "inputs.s == 'a\"b'", "true" },
        { "fromJSON('\"\\\\u0061\"') == 'a'", "true" },
        { "1 < 2 == true", "true" },
        { "2 in [1, 2, 3]", "true" },
        { "2.0 in [1, 2]", "true" },
        { "'2' in [1, 2]", "false" },
        { "[1] in [[1]]", "true" },
        { "'k' in inputs.obj", "true" },
        { "'z' in inputs.obj", "false" },
        { "1 in inputs.obj", "error: `in` does not take int and object" },
        { "1 in null", "error: `in` does not take int and null" },
        { "inputs.n in [inputs.n]", "true" },
    };

    (void)state;
    CHECK_ALL(cases);
}

static void test_logic(void **state)
{
    static const struct expr_case cases[] = {
        { "true && false", "false" },
        { "true || false", "true" },
        { "!true", "false" },
        { "!!true", "true" },
        { "!1", "error: `!` does not take int" },
        /* an error gives way to an operand that decides, on either side */
        { "false && 1 / 0 == 1", "false" },
        { "1 / 0 == 1 && false", "false" },
        { "true || 1 / 0 == 1", "true" },
        { "1 / 0 == 1 || true", "true" },
        { "1 / 0 == 1 && true", "error: division by zero" },
        { "true && 1 / 0 == 1", "error: division by zero" },
        { "1 / 0 == 1 || false", "error: division by zero" },
        { "1 && false", "false" },
        { "1 && true", "error: `&&` does not take int and bool" },
        { "null || false", "error: `||` does not take null and bool" },
        { "true && true && false || true", "true" },
        { "false && true || true", "true" },
        { "true ? 1 : 2", "1" },
        { "false ? 1 : 2", "2" },
        { "false ? 1 / 0 : 2", "2" }, /* the branch not taken does not run */
        { "true ? 1 : 1 / 0", "1" },
        { "false ? 1 : true ? 2 : 3", "2" },
        { "(true ? false : true) ? 1 : 2", "2" },
        { "1 ? 1 : 2", "error: `?:` does not take int" },
        { "1 / 0 == 1 ? 1 : 2", "error: division by zero" },
        { "true ? 1", "refused: found its end, expected `:`" },
        { "1 = 1", "refused: expected `==`" },
        { "1 & 1", "refused: expected `&&`" },
        { "1 +", "refused: found its end, expected a value" },
        { "1 2", "refused: found `2`, expected an operator or the end" },
        { "", "refused: found its end, expected a value" },
        { "(1", "refused: found its end, expected `)`" },
        { "1)", "refused: found `)`" },
        { "#", "refused: no meaning" },
        { "'a", "refused: without its `}}`" },
    };

    (void)state;
    CHECK_ALL(cases);
}

static void test_functions(void **state)
{
    static const struct expr_case cases[] = {
        { "size('')", "0" },
        { "size('h\xc3\xa9')", "2" },
        { "'abc'.size()", "3" },
        { "size(inputs.list)", "3" },
        { "size(inputs.obj)", "2" },
        { "size(1)", "error: `size` does not take int" },
        { "size(null)", "error: `size` does not take null" },
        { "size()", "refused: `size` takes 1 argument" },
        { "size(1, 2)", "refused: `size` takes 1 argument" },
        { "has(inputs.obj.k)", "true" },
        { "has(inputs.obj.none)", "true" },
        { "has(inputs.obj.z)", "false" },
        { "has(inputs.obj['k'].x)", "true" },
        { "has(inputs.obj.z.y)", "error: no such key: `z`" },
        { "has(inputs.gone.x)", "false" },
        { "has(inputs.gone)", "false" },
        { "has(inputs.n)", "true" },
        { "has(steps.skipped.output)", "false" },
        { "has(steps.ok.output)", "true" },
        { "has(steps.skipped.output.x)", "false" },
        { "has(inputs.n.x)", "error: has no fields" },
        { "has(1)", "refused: `has` takes a field" },
        { "has(true ? 1 : inputs.obj.k)", "refused: `has` takes a field" },
        { "has((inputs.obj.k))", "refused: `has` takes a field" },
        { "'abc'.startsWith('ab')", "true" },
        { "'abc'.startsWith('abcd')", "false" },
        { "'abc'.startsWith('')", "true" },
        { "'abc'.endsWith('bc')", "true" },
        { "'abc'.endsWith('b')", "false" },
        { "'abc'.contains('b')", "true" },
        { "'abc'.contains('x')", "false" },
        { "steps.ok.output.text.contains('\xc3\xa9')", "true" },
        { "'abc'.contains(1)", "error: `contains` does not take string and int" },
        { "contains('abc', 'b')", "refused: `contains` is called as `VALUE.contains(TEXT)`" },
        { "'a'.toJSON()", "refused: `toJSON` is called as `toJSON(VALUE)`" },
        { "toJSON(inputs.obj)", "\"{\\\"k\\\":{\\\"x\\\":1},\\\"none\\\":null}\"" },
        { "toJSON('a')", "\"\\\"a\\\"\"" },
        { "fromJSON('{\"a\": [1, 2]}').a[1]", "2" },
        { "fromJSON(' 5 ')", "5" },
        { "fromJSON('{')", "error: the text is not valid JSON (at byte 1)" },
        { "fromJSON('[1,]')", "error: not valid JSON" },
        { "fromJSON('01')", "error: not valid JSON" },
        { "fromJSON(1)", "error: `fromJSON` does not take int" },
        { "fromJSON(toJSON(inputs.list)) == inputs.list", "true" },
        { "startswith('a')", "refused: unknown function `startswith`; did you mean `startsWith`?" },
        { "'a'.foo()", "refused: unknown function `foo`" },
    };

    (void)state;
    CHECK_ALL(cases);
}

static void test_patterns(void **state)
{
    static const struct expr_case cases[] = {
        { "'abc'.matches('b')", "true" },
        { "matches('abc', '^b')", "false" },
        { "'abc'.matches('^abc$')", "true" },
        { "'abc'.matches('^a.c$')", "true" },
        { "'a\\nc'.matches('a.c')", "false" },
        { "'a\\nc'.matches('(?s)a.c')", "true" },
        { "''.matches('')", "true" },
        { "''.matches('^$')", "true" },
        { "''.matches('a*')", "true" },
        { "''.matches('a+')", "false" },
        { "'aaa'.matches('^a{3}$')", "true" },
        { "'aaa'.matches('^a{1,2}$')", "false" },
        { "'aaa'.matches('^a{2,}$')", "true" },
        { "'aaa'.matches('^(a{0,2})a$')", "true" },
        { "'b'.matches('^a{0}b$')", "true" },
        { "'a{x'.matches('^a{x$')", "true" },
        { "'xyz'.matches('^(ab|x|q)yz$')", "true" },
        { "'ab'.matches('^(|a)b$')", "true" },
        { "'b'.matches('^(|a)b$')", "true" },
        { "'abab'.matches('^(?:ab)*$')", "true" },
        { "'aba'.matches('^(?:ab)*$')", "false" },
        { "'ABC'.matches('(?i)^a[b]c$')", "true" },
        { "'ABC'.matches('^a')", "false" },
        { "'aBc'.matches('^a(?i:b)c$')", "true" },
        { "'aBC'.matches('^a(?i:b)c$')", "false" },
        { "'a1_ '.matches(r'^\\w\\d\\w\\s$')", "true" },
        { "'a'.matches(r'\\D\\W?')", "true" },
        { "'1'.matches(r'^\\D$')", "false" },
        { "'x-y'.matches('^[a-z-]+$')", "true" },
        { "']'.matches('^[]]$')", "true" },
        { "'b'.matches('^[^a-]$')", "true" },
        { "'-'.matches('^[^a-]$')", "false" },
        { "'ab1'.matches('^[[:alpha:]]+[[:^alpha:]]$')", "true" },
        { "'\xc3\xa9'.matches('^.$')", "true" },
        { "'\xc3\xa9'.matches('^[\xc3\xa0-\xc3\xbf]$')", "true" },
        { "'\xc3\xa9'.matches(r'^\\xe9$')", "true" },
        { "'\xc3\xa9'.matches(r'^\\x{e9}$')", "true" },
        { "'a b'.matches(r'a\\b')", "true" },
        { "'ab'.matches(r'a\\b')", "false" },
        { "'ab'.matches(r'a\\B')", "true" },
        { "'x\\na'.matches('(?m)^a$')", "true" },
        { "'x\\na'.matches('^a$')", "false" },
        { "'a\\n'.matches('a$')", "false" },
        { "'a.c'.matches(r'^a\\.c$')", "true" },
        { "'a+c'.matches(r'^\\Qa+c\\E$')", "true" },
        { "'aa'.matches('^(?P<x>a)+?$')", "true" },
        /* what a backtracking matcher takes for ever over */
        { "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'.matches('^(a*)*(a*)*(a|aa)+b$')", "false" },
    };

    (void)state;
    CHECK_ALL(cases);
}

static void test_patterns_that_are_refused(void **state)
{
    static const struct expr_case cases[] = {
        { "'a'.matches('(')", "refused: a group has no end" },
        { "'a'.matches(')')", "refused: a `)` has no `(`" },
        { "'a'.matches('*')", "refused: nothing to repeat" },
        { "'a'.matches('a**')", "refused: needs a group" },
        { "'a'.matches('[')", "refused: a class has no end" },
        { "'a'.matches('[b-a]')", "refused: bad range" },
        { "'a'.matches('a{2,1}')", "refused: bad repeat counts" },
        { "'a'.matches('a{1001}')", "refused: bad repeat counts" },
        { "'a'.matches('(?:(?:a{100}){100}){100}')", "refused: too large" },
        { "'a'.matches(r'(a)\\1')", "refused: backreferences" },
        { "'a'.matches('(?=a)')", "refused: lookaround" },
        { "'a'.matches(r'\\p{L}')", "refused: Unicode classes" },
        { "'a'.matches(r'\\')", "refused: backslash" },
        { "'a'.matches('[[:nope:]]')", "refused: unknown class name" },
        { "'a'.matches(inputs.s + '(')", "error: a group has no end" },
        { "'a'.matches(1)", "error: `matches` does not take string and int" },
    };

    (void)state;
    CHECK_ALL(cases);
}

static void test_templates_in_longer_strings(void **state)
{
    static const struct {
        const char *value;    /* JSON of the output `v`, backticks for quotes */
        const char *expected; /* the same */
    } cases[] = {
        { "`plain`", "`plain`" },
        { "`n=${{ inputs.n }}`", "`n=7`" },
        { "`${{ inputs.n }}!`", "`7!`" },
        { "`${{ inputs.n }}${{ inputs.n }}`", "`77`" },
        { "`<${{ inputs.s }}>`", "`<a\\`b>`" },
        { "`<${{ inputs.obj.k }}>`", "`<{\\`x\\`:1}>`" },
        { "`<${{ null }} ${{ true }} ${{ 0.5 }}>`", "`<null true 0.5>`" },
        { "`<${{ steps.ok.output.text }}>`", "`<line \\u00e9\\n>`" },
        { "`a\\nb ${{ '\\\\n' }}`", "`a\\nb \\n`" },
        { "[1, {`k${{ 1 }}`: `${{ inputs.list }}`}]",
          "[1,{`k${{ 1 }}`:[1,2.5,`x`]}]" }, /* keys are no templates */
        { "1.0", "1.0" },
        { "`}} {{ $ $} ${ {`", "`}} {{ $ $} ${ {`" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[1200];
        struct cox_buf expected = quoted("{`v`:");
        struct cox_buf value = quoted(cases[i].expected);
        struct world w = ended();
        struct cox_image_task task;
        struct compiled c;

        cox_buf_append_slice(&expected, cox_buf_slice(&value));
        cox_buf_append_str(&expected, "}");
        snprintf(text, sizeof(text), DOCUMENT("%s"), cases[i].value);
        must_compile(&c, text, NULL);
        cox_image_task(&c.image, &task);
        assert_string_equal(evaluate(&c.image, task.outputs_template, &w), cox_buf_cstr(&expected));
        compiled_fini(&c);
        cox_buf_fini(&expected);
        cox_buf_fini(&value);
    }
}

static void test_errors_name_the_expression(void **state)
{
    (void)state;
    assert_string_equal(value_of("  inputs.n + steps.ok.output.half "),
                        "error: ${{ inputs.n + steps.ok.output.half }}: `+` does not take int and double");
}

static void test_bounds(void **state)
{
    struct cox_buf expr = { 0 };

    (void)state;
    for (unsigned i = 0; i < 200; i++)
        cox_buf_append_str(&expr, "(");
    assert_true(as_expected(value_of(cox_buf_cstr(&expr)), "refused: 64 levels of nesting"));
    cox_buf_clear(&expr);
    for (unsigned i = 0; i < 200; i++)
        cox_buf_append_str(&expr, "!");
    assert_true(as_expected(value_of(cox_buf_cstr(&expr)), "refused: 64 levels of nesting"));
    cox_buf_clear(&expr);
    for (unsigned i = 0; i < 200; i++)
        cox_buf_append_str(&expr, "true ? 1 : ");
    assert_true(as_expected(value_of(cox_buf_cstr(&expr)), "refused: 64 levels of nesting"));
    cox_buf_clear(&expr);
    cox_buf_append_str(&expr, "1");
    for (unsigned i = 0; i < 3000; i++)
        cox_buf_append_str(&expr, " + 1"); /* a chain is not deep */
    assert_string_equal(value_of(cox_buf_cstr(&expr)), "3001");
    for (unsigned i = 0; i < 3000; i++)
        cox_buf_append_str(&expr, " + 1");
    assert_true(as_expected(value_of(cox_buf_cstr(&expr)), "refused: expected at most 16384"));
    cox_buf_clear(&expr);
    cox_buf_append_str(&expr, "[inputs.n");
    for (unsigned i = 0; i < 500; i++)
        cox_buf_append_str(&expr, ", inputs.n + 1");
    cox_buf_append_str(&expr, "]");
    assert_true(as_expected(value_of(cox_buf_cstr(&expr)), "refused: too many values at once"));
    cox_buf_fini(&expr);
}

static void test_rule_13_a_template_may_cost_only_so_much(void **state)
{
    struct compiled c;

    (void)state;
    struct cox_buf document =
        quoted("{`api_version`: `v1`, `name`: `t`, `steps`: {`a`: {`uses`: `x@1`}}, `outputs`: {`v`: [");
    for (int i = 0; i < 60000; i++)
        cox_buf_append_str(&document, i ? ",\"${{ 1 }}\"" : "\"${{ 1 }}\"");
    cox_buf_append_str(&document, "]}}");
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    expect_violation(&c, "60,000 expressions", "outputs", 1, "cost 120000, expected at most 100000");
    compiled_fini(&c);
    cox_buf_fini(&document);
}

/* Values decide about cost too: a large output searched again and again ends in an error, soon. */
static void test_rule_13_an_evaluation_may_cost_only_so_much(void **state)
{
    struct cox_buf document =
        document_of("steps.ok.output.matches('(x+x+)+y') || steps.ok.output.matches('(x*)*z')"
                    " || steps.ok.output.matches('[a-x]{200}y')");
    struct cox_buf output = { 0 }, out = { 0 }, error = { 0 };
    struct cox_image_task task;
    struct world w = ended();
    struct compiled c;

    (void)state;
    cox_buf_append_str(&output, "\"");
    memset(cox_buf_extend(&output, 1u << 20), 'x', 1u << 20);
    cox_buf_append_str(&output, "\"");
    w.steps[0].output_json = cox_buf_slice(&output);
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    assert_int_equal(c.err, COX_OK);
    cox_image_task(&c.image, &task);
    struct cox_eval_env env = world_env(&w);

    assert_int_equal(cox_eval_template(&c.image, task.outputs_template, &env, &out, &error), COX_ERR_INVALID);
    assert_non_null(strstr(cox_buf_cstr(&error), "costs too much"));
    compiled_fini(&c);
    cox_buf_fini(&document);
    cox_buf_fini(&output);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

/* A list of 40 MB, as a map over a million items has it. */
static void test_rule_13_passing_a_checked_value_on_costs_nothing(void **state)
{
    struct cox_buf document = document_of("steps.ok.output"), output = { 0 }, out = { 0 }, error = { 0 };
    struct cox_image_task task;
    struct world w = ended();
    struct compiled c;

    (void)state;
    cox_buf_append_str(&output, "[");
    for (int i = 0; i < 1000000; i++)
        cox_buf_printf(&output, "%s\"a string of some forty bytes, %07d\"", i > 0 ? "," : "", i);
    cox_buf_append_str(&output, "]");
    w.steps[0].output_json = cox_buf_slice(&output);
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    assert_int_equal(c.err, COX_OK);
    cox_image_task(&c.image, &task);
    struct cox_eval_env env = world_env(&w);

    assert_int_equal(cox_eval_template(&c.image, task.outputs_template, &env, &out, &error), COX_ERR_INVALID);
    env.checked = true;
    assert_int_equal(cox_eval_template(&c.image, task.outputs_template, &env, &out, &error), COX_ERR_INVALID);
    env.len_max = COX_BLOB_LEN_MAX;
    assert_int_equal(cox_eval_template(&c.image, task.outputs_template, &env, &out, &error), COX_OK);
    assert_true(out.len >= output.len);
    compiled_fini(&c);
    cox_buf_fini(&document);
    cox_buf_fini(&output);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

static void test_outputs_that_are_not_json_are_errors(void **state)
{
    static const char *const broken[] = {
        "{",
        "{\"text\": 1",
        "{\"text\" 1}",
        "nul",
        "[1 2]",
        "{\"text\": \"\xff\"}",
        "{\"text\": \"\x01\"}",
        "1 2",
        "\"\\x\"",
        "\"\\ud800\"",
        "01",
        "1.",
        "-",
        "+1",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "'a'",
    };
    struct cox_buf document = document_of("steps.ok.output.text");
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    assert_int_equal(c.err, COX_OK);
    cox_image_task(&c.image, &task);
    for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
        struct world w = ended();

        w.steps[0].output_json = cox_slice_str(broken[i]);
        if (!strstr(evaluate(&c.image, task.outputs_template, &w), "output is not valid JSON"))
            fail_msg("taken for JSON: %s", broken[i]);
    }
    compiled_fini(&c);
    cox_buf_fini(&document);
}

static void test_conditions(void **state)
{
    static const struct {
        const char *condition;
        bool success, failure;
        int expected; /* -1: an error */
    } cases[] = {
        { "`${{ success() }}`", true, false, 1 },
        { "`${{ success() }}`", false, true, 0 },
        { "`${{ failure() }}`", false, true, 1 },
        { "`${{ always() }}`", false, true, 1 },
        { "`${{ !success() && failure() }}`", false, true, 1 },
        { "true", false, true, 1 },
        { "false", true, false, 0 },
        { "`${{ steps.ok.output.t }}`", true, false, 1 },
        { "`${{ steps.ok.output.nil }}`", true, false, 0 },
        { "`${{ steps.skipped.output.x.y }}`", true, false, 0 },
        { "`${{ steps.ok.output.code }}`", true, false, -1 },
        { "`${{ steps.ok.output.absent }}`", true, false, -1 },
        { "`${{ steps.ok.output.code == 0 }}`", true, false, 1 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_buf error = { 0 };
        struct world w = ended();
        struct cox_image_step step;
        struct compiled c;
        char text[1024];
        bool value = false;

        snprintf(
            text, sizeof(text),
            "{`api_version`: `v1`, `name`: `t`, `steps`: {`ok`: {`uses`: `x@1`}, `bad`: {`uses`: `x@1`}, "
            "`skipped`: {`uses`: `x@1`}, `a`: {`uses`: `x@1`, `if`: %s}}}",
            cases[i].condition);
        must_compile(&c, text, NULL);
        w.success = cases[i].success;
        w.failure = cases[i].failure;
        cox_image_step(&c.image, 3, &step);
        struct cox_eval_env env = world_env(&w);
        enum cox_err err = cox_eval_condition(&c.image, step.condition, &env, &value, &error);

        assert_int_equal(err, cases[i].expected < 0 ? COX_ERR_INVALID : COX_OK);
        if (err == COX_OK)
            assert_int_equal(value, cases[i].expected);
        else
            assert_true(error.len > 0);
        compiled_fini(&c);
        cox_buf_fini(&error);
    }
}

/* Random trees of integers and operators against the same tree computed here. */
struct tree {
    struct cox_buf text;
    struct cox_rng rng;
};

static int64_t grow(struct tree *t, unsigned depth, bool *error)
{
    if (depth == 0 || cox_rng_below(&t->rng, 4) == 0) {
        int64_t n = (int64_t)cox_rng_below(&t->rng, 41) - 20;

        if (cox_rng_below(&t->rng, 12) == 0)
            n = INT64_MAX - (int64_t)cox_rng_below(&t->rng, 3);
        cox_buf_printf(&t->text, "%lld", (long long)n);
        return n;
    }
    const char *op = &"+-*/%"[cox_rng_below(&t->rng, 5)];
    int64_t result = 0;

    cox_buf_append_str(&t->text, "(");
    int64_t a = grow(t, depth - 1, error);

    cox_buf_printf(&t->text, " %c ", *op);
    int64_t b = grow(t, depth - 1, error);

    cox_buf_append_str(&t->text, ")");
    if (*op == '+')
        *error |= __builtin_add_overflow(a, b, &result);
    else if (*op == '-')
        *error |= __builtin_sub_overflow(a, b, &result);
    else if (*op == '*')
        *error |= __builtin_mul_overflow(a, b, &result);
    else if (b == 0 || (a == INT64_MIN && b == -1))
        *error = true;
    else
        result = *op == '/' ? a / b : a % b;
    return result;
}

static void test_random_arithmetic(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct tree t = { { 0 }, { { 0 } } };
        char expected[32];
        bool error = false;

        cox_rng_init(&t.rng, seed);
        int64_t v = grow(&t, 5, &error);

        snprintf(expected, sizeof(expected), "%lld", (long long)v);
        const char *found = value_of(cox_buf_cstr(&t.text));

        check_seeded(error ? strncmp(found, "error: ", 7) == 0 : strcmp(found, expected) == 0, seed);
        cox_buf_fini(&t.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_comparison),
        cmocka_unit_test(test_logic),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_patterns_that_are_refused),
        cmocka_unit_test(test_templates_in_longer_strings),
        cmocka_unit_test(test_errors_name_the_expression),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_rule_13_a_template_may_cost_only_so_much),
        cmocka_unit_test(test_rule_13_an_evaluation_may_cost_only_so_much),
        cmocka_unit_test(test_rule_13_passing_a_checked_value_on_costs_nothing),
        cmocka_unit_test(test_outputs_that_are_not_json_are_errors),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_random_arithmetic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
