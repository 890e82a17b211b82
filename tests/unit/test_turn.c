/* An agent's tools, and what is decided of a model's answer (cox/turn.h). In test text a backtick stands for
 * the double quote of JSON. */
#include "check.h"

#include "cox/base/rng.h"
#include "cox/json.h"
#include "cox/schema.h"
#include "cox/turn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct cox_buf quoted(const char *text)
{
    struct cox_buf b = { 0 };

    cox_buf_append_str(&b, text);
    for (size_t i = 0; i < b.len; i++) {
        if (b.data[i] == '`')
            b.data[i] = '"';
    }
    return b;
}

/* ---- tools ---- */

static bool offers(void *user, struct cox_slice name, struct cox_turn_program *ret)
{
    (void)user;
    if (cox_slice_is(name, "web@1"))
        *ret = (struct cox_turn_program){ cox_slice_str("Search the web"),
                                          cox_slice_str("{\"type\":\"object\",\"required\":[\"q\"]}") };
    else if (cox_slice_is(name, "broken@1"))
        *ret = (struct cox_turn_program){ cox_slice_str(""), cox_slice_str("{\"type\":\"thing\"}") };
    else if (cox_slice_is(name, "silent@1"))
        *ret = (struct cox_turn_program){ 0 };
    else
        return false;
    return true;
}

static enum cox_err make_tools(const char *config, const char *list, struct cox_buf *tools,
                               struct cox_buf *error)
{
    const struct cox_turn_programs programs = { .find = offers };
    struct cox_buf c = quoted(config), l = quoted(list ? list : "");
    struct cox_slice lists[] = { cox_buf_slice(&l) };
    enum cox_err err = cox_turn_tools(cox_buf_slice(&c), lists, list ? 1 : 0, &programs, tools, error);

    cox_buf_fini(&c);
    cox_buf_fini(&l);
    return err;
}

static void tools_are(const char *config, const char *list, const char *expected)
{
    struct cox_buf tools = { 0 }, error = { 0 }, want = quoted(expected);

    assert_int_equal(make_tools(config, list, &tools, &error), COX_OK);
    assert_string_equal(cox_buf_cstr(&tools), cox_buf_cstr(&want));
    assert_int_equal(error.len, 0);
    cox_buf_fini(&tools);
    cox_buf_fini(&error);
    cox_buf_fini(&want);
}

static void tools_fail(const char *config, const char *list, enum cox_err err, const char *why)
{
    struct cox_buf tools = { 0 }, error = { 0 };

    assert_int_equal(make_tools(config, list, &tools, &error), err);
    if (!strstr(cox_buf_cstr(&error), why))
        print_error("expected: %s\nfound: %s\n", why, cox_buf_cstr(&error));
    assert_non_null(strstr(cox_buf_cstr(&error), why));
    cox_buf_fini(&tools);
    cox_buf_fini(&error);
}

static void test_the_document_says_what_a_tool_is_or_workers_do(void **state)
{
    (void)state;
    tools_are("{`tools`: []}", NULL, "[]");
    tools_are(
        "{`tools`: [{`name`: `py`, `description`: `Run`, `parameters`: {`type`: `object`}, `step`: 2, "
        "`approve`: true}, {`name`: `web`, `uses`: `web@1`, `step`: 3}, {`name`: `s`, `uses`: `silent@1`, "
        "`step`: 4}, {`name`: `ask_user`, `ask`: true}]}",
        NULL,
        "[{`name`:`py`,`description`:`Run`,`parameters`:{`type`: `object`},`step`:2,`approve`:true},"
        "{`name`:`web`,`description`:`Search the web`,`parameters`:{`type`:`object`,`required`:[`q`]},"
        "`step`:3},{`name`:`s`,`description`:``,`parameters`:{`type`:`object`},`step`:4},"
        "{`name`:`ask_user`,`description`:`Ask the user a question, and wait for the answer.`,"
        "`parameters`:{`type`:`object`,`properties`:{`question`:{`type`:`string`}},`required`:[`question`]"
        "},`ask`:true}]");
    /* What the document says wins, and needs no worker. */
    tools_are("{`tools`: [{`name`: `x`, `uses`: `gone@1`, `description`: `d`, `parameters`: {}, `step`: 2}]}",
              NULL, "[{`name`:`x`,`description`:`d`,`parameters`:{},`step`:2}]");
    tools_fail("{`tools`: [{`name`: `x`, `uses`: `gone@1`, `step`: 2}]}", NULL, COX_ERR_NOT_FOUND,
               "no worker offers gone@1");
    tools_fail("{`tools`: [{`name`: `x`, `uses`: `broken@1`, `step`: 2}]}", NULL, COX_ERR_INVALID,
               "tool x: type");
}

static void test_a_server_says_what_its_tools_are(void **state)
{
    static const char list[] =
        "{`tools`: [{`name`: `get-sum`, `description`: `Add`, `input_schema`: {`type`: `object`}}, {`name`: "
        "`get.env!`}, {`name`: `drop`}, {`description`: `no name`}]}";

    (void)state;
    tools_are(
        "{`tools`: [{`mcp`: true, `list`: 2, `step`: 3, `allow`: [`get*`], `approve`: [`*env!`]}]}", list,
        "[{`name`:`get-sum`,`description`:`Add`,`parameters`:{`type`: `object`},`step`:3,`remote`:"
        "`get-sum`},{`name`:`get_env_`,`description`:``,`parameters`:{`type`:`object`},`step`:3,`remote`:"
        "`get.env!`,`approve`:true}]");
    /* A server calls its tools what it likes: what the document calls its own stays what it is. */
    tools_are("{`tools`: [{`mcp`: true, `list`: 2, `step`: 3, `allow`: [`drop`]}, {`name`: `drop`, "
              "`parameters`: {}, `step`: 4}]}",
              list,
              "[{`name`:`drop_2`,`description`:``,`parameters`:{`type`:`object`},`step`:3,`remote`:`drop`},"
              "{`name`:`drop`,`description`:``,`parameters`:{},`step`:4}]");
    tools_are("{`tools`: [{`name`: `drop`, `parameters`: {}, `step`: 2}, {`mcp`: true, `list`: 3, `step`: 4, "
              "`allow`: [`drop`]}]}",
              list,
              "[{`name`:`drop`,`description`:``,`parameters`:{},`step`:2},{`name`:`drop_2`,`description`:``,"
              "`parameters`:{`type`:`object`},`step`:4,`remote`:`drop`}]");
    tools_are("{`tools`: [{`mcp`: true, `list`: 2, `step`: 3, `allow`: []}]}", list, "[]");
    tools_fail("{`tools`: [{`mcp`: true, `list`: 2, `step`: 3}]}", "{`tools`: 5}", COX_ERR_INVALID,
               "is none");
    tools_fail("{`tools`: [{`mcp`: true, `list`: 2, `step`: 3}]}", "{`tools`: [", COX_ERR_INVALID, "is none");
    tools_fail("{`tools`: [{`mcp`: true, `list`: 2, `step`: 3}]}",
               "{`tools`: [{`name`: `x`, `input_schema`: {`type`: 1}}]}", COX_ERR_INVALID, "tool x: type");
}

/* Long names that differ behind their 64th byte only, one too many, and a list of which none is small. */
static void test_a_server_with_many_tools(void **state)
{
    struct cox_buf list = { 0 }, tools = { 0 }, error = { 0 };
    char name[100];

    (void)state;
    memset(name, 'n', 80);
    name[80] = '\0';
    cox_buf_append_str(&list, "{`tools`: [");
    for (unsigned i = 0; i < COX_TOOLS_MAX; i++)
        cox_buf_printf(&list, "%s{`name`: `%s%u`}", i > 0 ? "," : "", name, i);
    struct cox_buf more = { 0 };

    cox_buf_append_slice(&more, cox_buf_slice(&list));
    cox_buf_append_str(&list, "]}");
    cox_buf_append_str(&more, ", {`name`: `last`}]}");
    assert_int_equal(
        make_tools("{`tools`: [{`mcp`: true, `list`: 2, `step`: 3}]}", cox_buf_cstr(&list), &tools, &error),
        COX_OK);
    assert_int_equal(cox_json_count(cox_buf_slice(&tools)), COX_TOOLS_MAX);
    for (struct cox_json_walk w = cox_json_walk(cox_buf_slice(&tools)), v = w; cox_json_next(&w);) {
        struct cox_slice a, b;

        assert_true(cox_json_member(w.value, "name", &a));
        assert_true(a.len <= 66);
        for (v = w; cox_json_next(&v);) {
            assert_true(cox_json_member(v.value, "name", &b));
            assert_false(cox_slice_eq(a, b));
        }
    }
    cox_buf_clear(&tools);
    assert_int_equal(
        make_tools("{`tools`: [{`mcp`: true, `list`: 2, `step`: 3}]}", cox_buf_cstr(&more), &tools, &error),
        COX_ERR_INVALID);
    assert_string_equal(cox_buf_cstr(&error), "tool last: it is one too many for an agent");
    cox_buf_fini(&list);
    cox_buf_fini(&more);
    cox_buf_fini(&tools);
    cox_buf_fini(&error);
}

/* ---- decisions ---- */

#define TOOLS                                                                                                \
    "[{`name`:`py`,`parameters`:{`type`:`object`,`properties`:{`code`:{`type`:`string`}},`required`:[`code`" \
    "]},"                                                                                                    \
    "`step`:2},{`name`:`rm`,`parameters`:{},`step`:3,`approve`:true},{`name`:`sum`,`parameters`:{},`step`:"  \
    "5,"                                                                                                     \
    "`remote`:`get.sum`},{`name`:`ask_user`,`parameters`:{},`ask`:true}]"
#define PLAIN "{`max_turns`:5,`reasks`:2,`tools`:[]}"
#define WITH_SCHEMA "{`reasks`:2,`output_schema`:{`type`:`object`,`required`:[`severity`]}}"
#define CALL(id, name, args)                                                                                 \
    "{`id`:`" id "`,`type`:`function`,`function`:{`name`:`" name "`,`arguments`:" args "}}"
#define CALLS(calls) "{`content`:null,`tool_calls`:[" calls "],`finish_reason`:`tool_calls`}"
#define CALLED(id, name, rest) "{`id`:`" id "`,`name`:`" name "`" rest "}"

static struct cox_buf decide_text(struct cox_slice config, struct cox_slice tools, struct cox_slice answer,
                                  uint32_t n_reasks)
{
    struct cox_buf out = { 0 };
    const struct cox_turn turn = { config, tools, answer, n_reasks };

    cox_turn_decide(&turn, &out);
    assert_int_equal(cox_json_check(cox_buf_slice(&out), NULL), COX_OK);
    return out;
}

static struct cox_buf decide(const char *config, const char *answer, uint32_t n_reasks)
{
    struct cox_buf c = quoted(config), t = quoted(TOOLS), a = quoted(answer);
    struct cox_buf out = decide_text(cox_buf_slice(&c), cox_buf_slice(&t), cox_buf_slice(&a), n_reasks);

    cox_buf_fini(&c);
    cox_buf_fini(&t);
    cox_buf_fini(&a);
    return out;
}

static void decision_is(const char *config, const char *answer, uint32_t n_reasks, const char *expected)
{
    struct cox_buf found = decide(config, answer, n_reasks), want = quoted(expected);

    assert_string_equal(cox_buf_cstr(&found), cox_buf_cstr(&want));
    cox_buf_fini(&found);
    cox_buf_fini(&want);
}

static void test_a_call_goes_to_its_tool(void **state)
{
    (void)state;
    decision_is(PLAIN, CALLS(CALL("a", "py", "`{\\`code\\`: \\`x\\`}`")), 0,
                "{`calls`:[" CALLED("a", "py", ",`step`:2,`args`:{`code`: `x`}") "]}");
    decision_is(
        PLAIN,
        CALLS(CALL("a", "rm", "`{}`") "," CALL("b", "sum", "`{\\`a\\`:1}`") "," CALL("c", "ask_user", "``")),
        0,
        "{`calls`:[" CALLED("a", "rm", ",`step`:3,`approve`:true,`args`:{}") "," CALLED(
            "b", "sum",
            ",`step`:5,`args`:{`tool`:`get.sum`,`arguments`:{`a`:1}}") "," CALLED("c", "ask_user",
                                                                                  ",`ask`:true,`args`:"
                                                                                  "{}") "]}");
    /* Some servers give the object itself, or none. */
    decision_is(PLAIN, CALLS(CALL("a", "py", "{`code`:`x`}") "," CALL("b", "rm", "null")), 0,
                "{`calls`:[" CALLED("a", "py", ",`step`:2,`args`:{`code`:`x`}") "," CALLED(
                    "b", "rm", ",`step`:3,`approve`:true,`args`:{}") "]}");
    /* Words beside calls are words: the calls are made. */
    decision_is(WITH_SCHEMA, "{`content`:`{\\`severity\\`:1}`,`tool_calls`:[" CALL("a", "rm", "`{}`") "]}", 0,
                "{`calls`:[" CALLED("a", "rm", ",`step`:3,`approve`:true,`args`:{}") "]}");
}

/* What is wrong with one call is its result, and the others are made. */
static void test_a_call_that_cannot_be_made_is_explained_to_the_model(void **state)
{
    (void)state;
    decision_is(
        PLAIN, CALLS(CALL("a", "pyton", "`{}`") "," CALL("b", "rm", "`{}`")), 0,
        "{`calls`:[" CALLED("a", "pyton",
                            ",`error`:`there is no tool \\`pyton\\`; the tools are: py, rm, sum, "
                            "ask_user`") "," CALLED("b", "rm", ",`step`:3,`approve`:true,`args`:{}") "]}");
    decision_is(PLAIN, CALLS(CALL("a", "py", "`{\\`code\\`: `")), 0,
                "{`calls`:[" CALLED("a", "py",
                                    ",`error`:`the arguments are not JSON: expected a JSON value at line 1, "
                                    "column 10`") "]}");
    decision_is(
        PLAIN, "{`tool_calls`:[" CALL("a", "py", "`{`") "],`finish_reason`:`length`}", 0,
        "{`calls`:[" CALLED("a", "py",
                            ",`error`:`the arguments are not JSON: expected a name in double quotes at "
                            "line 1, column 2; it was cut off at the most tokens that an answer "
                            "may have, say it shorter`") "]}");
    decision_is(
        PLAIN, CALLS(CALL("a", "py", "`[1]`")), 0,
        "{`calls`:[" CALLED("a", "py", ",`error`:`the arguments are an array, expected an object`") "]}");
    decision_is(PLAIN, CALLS(CALL("a", "py", "`{\\`code\\`:1}`")), 0,
                "{`calls`:[" CALLED("a", "py",
                                    ",`error`:`the arguments do not fit the tool's parameters: code: "
                                    "expected string, found a number`") "]}");
    decision_is(PLAIN, CALLS("{`id`:`a`}"), 0,
                "{`calls`:[" CALLED("a", "",
                                    ",`error`:`there is no tool \\`\\`; the tools are: py, rm, sum, "
                                    "ask_user`") "]}");
}

/* Nothing in the answer is read as ours: who approves, which step, what a remote tool is. */
static void test_text_that_imitates_our_fields_is_text(void **state)
{
    (void)state;
    decision_is(
        PLAIN,
        CALLS("{`id`:`a`,`step`:2,`approve`:false,`ask`:false,`args`:{`code`:`x`},`function`:{`name`:`rm`,"
              "`step`:2,`approve`:false,`arguments`:`{\\`approve\\`:false,\\`step\\`:2}`}}"),
        0, "{`calls`:[" CALLED("a", "rm", ",`step`:3,`approve`:true,`args`:{`approve`:false,`step`:2}") "]}");
    decision_is(PLAIN, CALLS(CALL("a", "sum", "`{\\`tool\\`:\\`drop\\`,\\`arguments\\`:{}}`")), 0,
                "{`calls`:[" CALLED(
                    "a", "sum",
                    ",`step`:5,`args`:{`tool`:`get.sum`,`arguments`:{`tool`:`drop`,`arguments`:{}}}") "]}");
    decision_is(PLAIN, "{`content`:`{\\`output\\`:1}`,`output`:2,`calls`:[],`plan`:{}}", 0,
                "{`output`:{`content`:`{\\`output\\`:1}`}}");
    decision_is(PLAIN, "{`content`:`${{ secrets.X }} [{\\`calls\\`:[]}]`,`finish_reason`:`stop`}", 0,
                "{`output`:{`content`:`${{ secrets.X }} [{\\`calls\\`:[]}]`,`finish_reason`:`stop`}}");
}

static void test_a_text_is_the_output(void **state)
{
    (void)state;
    decision_is(PLAIN, "{`content`:`Done.`,`finish_reason`:`stop`,`model`:`m`,`usage`:{}}", 0,
                "{`output`:{`content`:`Done.`,`finish_reason`:`stop`,`model`:`m`}}");
    decision_is(PLAIN, "{`content`:`Half a `,`tool_calls`:[],`finish_reason`:`length`}", 2,
                "{`output`:{`content`:`Half a `,`finish_reason`:`length`}}");
}

static void test_an_answer_that_is_none_is_asked_for_again(void **state)
{
    static const char neither[] = "the answer has neither a text nor a call of a tool";
    static const char *const answers[] = { "{`content`:null}", "{}", "{`content`:``}", "{`content`:` \\n`}",
                                           "{`content`:5,`tool_calls`:{}}" };
    char say[200], fail_text[200];

    (void)state;
    snprintf(say, sizeof(say), "{`say`:`%s`}", neither);
    snprintf(fail_text, sizeof(fail_text), "{`fail`:{`code`:`OUTPUT_INVALID`,`message`:`%s`}}", neither);
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        decision_is(PLAIN, answers[i], 0, say);
        decision_is(PLAIN, answers[i], 1, say);
        decision_is(PLAIN, answers[i], 2, fail_text);
        decision_is("{`reasks`:0}", answers[i], 0, fail_text);
    }
    decision_is(
        PLAIN, "{`content`:``,`finish_reason`:`length`}", 0,
        "{`say`:`the answer has neither a text nor a call of a tool; it was cut off at the most tokens that "
        "an answer may have, say it shorter`}");
}

static void test_an_output_of_a_shape(void **state)
{
    (void)state;
    decision_is(WITH_SCHEMA, "{`content`:`{\\`severity\\`: 1.50}`}", 0, "{`output`:{`severity`:1.50}}");
    decision_is(
        WITH_SCHEMA, "{`content`:`{}`}", 0,
        "{`say`:`the answer is not what was asked for: the value: expected a member \\`severity\\``}");
    decision_is(WITH_SCHEMA, "{`content`:`It is bad.`}", 2,
                "{`fail`:{`code`:`OUTPUT_INVALID`,`message`:`the answer is not JSON: expected a JSON value "
                "at line 1, "
                "column 1`}}");
}

/* A backtick stands for a quote here, so a fence is written as what it is. */
static void test_an_output_in_a_fence(void **state)
{
    static const char *const fenced[] = {
        "{\"content\":\"```json\\n{\\\"severity\\\": 1}\\n```\"}",
        "{\"content\":\"\\n```\\n{\\\"severity\\\":1}```\\n\"}",
    };
    struct cox_buf config = quoted(WITH_SCHEMA);

    (void)state;
    for (size_t i = 0; i < sizeof(fenced) / sizeof(fenced[0]); i++) {
        struct cox_buf out =
            decide_text(cox_buf_slice(&config), cox_slice_str("[]"), cox_slice_str(fenced[i]), 0);

        assert_string_equal(cox_buf_cstr(&out), "{\"output\":{\"severity\":1}}");
        cox_buf_fini(&out);
    }
    cox_buf_fini(&config);
}

static void test_a_plan(void **state)
{
    static const char config[] = "{`reasks`:1,`plan`:{`uses`:[`*`]}}";

    (void)state;
    decision_is(config, "{`content`:`{\\`steps\\`: {\\`a\\`: {}}, \\`output\\`: 1}`}", 0,
                "{`plan`:{`steps`:{`a`:{}},`output`:1}}");
    decision_is(config, "{`content`:`[1]`}", 0,
                "{`say`:`the answer is no plan: expected an object {\\`steps\\`: "
                "{...}, \\`output\\`: ...}`}");
    decision_is(
        config, "{`content`:`{\\`steps\\`:[]}`}", 1,
        "{`fail`:{`code`:`OUTPUT_INVALID`,`message`:`the answer is no plan: expected an object {\\`steps\\`: "
        "{...}, \\`output\\`: ...}`}}");
}

static void test_ids_are_told_apart(void **state)
{
    (void)state;
    decision_is(PLAIN, CALLS(CALL("a", "rm", "`{}`") "," CALL("b", "rm", "`{}`") "," CALL("a", "py", "`{}`")),
                0, "{`say`:`two calls of the answer have the id \\`a\\`, expected each its own`}");
    decision_is(PLAIN, CALLS("{`function`:{`name`:`rm`}},{`function`:{`name`:`rm`}}"), 2,
                "{`fail`:{`code`:`OUTPUT_INVALID`,`message`:`two calls of the answer have the id \\`\\`, "
                "expected each "
                "its own`}}");
}

static void test_what_is_damaged_fails(void **state)
{
    static const char damaged[] =
        "{`fail`:{`code`:`INTERNAL`,`message`:`what was kept of the turn is damaged`}}";
    struct cox_buf want = quoted(damaged);

    (void)state;
    decision_is(PLAIN, "{`content`:", 0, damaged);
    decision_is(PLAIN, "[]", 0, damaged);
    decision_is(PLAIN, "", 0, damaged);
    struct cox_buf out =
        decide_text(cox_slice_str("{}"), cox_slice_str("[{"), cox_slice_str("{\"content\":\"x\"}"), 0);

    assert_string_equal(cox_buf_cstr(&out), cox_buf_cstr(&want));
    cox_buf_fini(&out);
    cox_buf_fini(&want);
}

/* ---- bounds ---- */

static struct cox_buf calls_of(unsigned n, const char *name, size_t len)
{
    struct cox_buf answer = { 0 };

    cox_buf_append_str(&answer, "{\"tool_calls\":[");
    for (unsigned i = 0; i < n; i++) {
        cox_buf_printf(&answer, "%s{\"id\":\"%u\",\"function\":{\"name\":\"%s\",\"arguments\":{\"code\":\"",
                       i > 0 ? "," : "", i, name);
        memset(cox_buf_extend(&answer, len), 'x', len);
        cox_buf_append_str(&answer, "\"}}}");
    }
    cox_buf_append_str(&answer, "]}");
    return answer;
}

static void test_an_answer_of_many_calls(void **state)
{
    struct cox_buf tools = quoted(TOOLS), config = quoted(PLAIN), answer, out;
    struct cox_slice calls;

    (void)state;
    answer = calls_of(COX_TURN_CALLS_MAX, "py", 1);
    out = decide_text(cox_buf_slice(&config), cox_buf_slice(&tools), cox_buf_slice(&answer), 0);
    assert_true(cox_json_member(cox_buf_slice(&out), "calls", &calls));
    assert_int_equal(cox_json_count(calls), COX_TURN_CALLS_MAX);
    cox_buf_fini(&answer);
    cox_buf_fini(&out);
    answer = calls_of(10000, "py", 1);
    out = decide_text(cox_buf_slice(&config), cox_buf_slice(&tools), cox_buf_slice(&answer), 0);
    assert_string_equal(cox_buf_cstr(&out), "{\"say\":\"10000 calls in one answer, expected at most 128\"}");
    cox_buf_fini(&answer);
    cox_buf_fini(&out);
    cox_buf_fini(&tools);
    cox_buf_fini(&config);
}

static size_t n_errors(struct cox_slice decision)
{
    struct cox_slice calls, v;
    size_t n = 0;

    assert_true(cox_json_member(decision, "calls", &calls));
    for (struct cox_json_walk w = cox_json_walk(calls); cox_json_next(&w);)
        n += cox_json_member(w.value, "error", &v);
    return n;
}

/* Arguments of one answer have 1 MiB together: the first that fit are made, the others told so. */
static void test_an_answer_of_ten_megabytes(void **state)
{
    struct cox_buf tools = quoted(TOOLS), config = quoted(PLAIN), answer, out;
    struct cox_slice content;

    (void)state;
    answer = calls_of(100, "py", 100000);
    out = decide_text(cox_buf_slice(&config), cox_buf_slice(&tools), cox_buf_slice(&answer), 0);
    assert_int_equal(n_errors(cox_buf_slice(&out)), 90);
    assert_true(out.len < COX_TURN_ARGS_LEN_MAX + 100 * 500);
    cox_buf_fini(&answer);
    cox_buf_fini(&out);
    /* One name, or one key, as long. */
    answer = calls_of(1, "py", 0);
    cox_buf_clear(&answer);
    cox_buf_append_str(&answer, "{\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"");
    memset(cox_buf_extend(&answer, 10 << 20), 'n', 10 << 20);
    cox_buf_append_str(&answer, "\",\"arguments\":\"{}\"}}]}");
    out = decide_text(cox_buf_slice(&config), cox_buf_slice(&tools), cox_buf_slice(&answer), 0);
    assert_int_equal(n_errors(cox_buf_slice(&out)), 1);
    assert_true(out.len < 1000);
    cox_buf_fini(&answer);
    cox_buf_fini(&out);
    cox_buf_append_str(&answer, "{\"content\":\"{\\\"severity\\\":{\\\"");
    memset(cox_buf_extend(&answer, 10 << 20), 'k', 10 << 20);
    cox_buf_append_str(&answer, "\\\":1}}\"}");
    struct cox_buf strict =
        quoted("{`output_schema`:{`properties`:{`severity`:{`additionalProperties`:false}}}}");

    out = decide_text(cox_buf_slice(&strict), cox_buf_slice(&tools), cox_buf_slice(&answer), 0);
    assert_true(cox_json_member(cox_buf_slice(&out), "say", &content));
    assert_true(out.len < 5000);
    cox_buf_fini(&answer);
    cox_buf_fini(&out);
    cox_buf_fini(&strict);
    cox_buf_fini(&tools);
    cox_buf_fini(&config);
}

/* ---- a hostile model ---- */

static const char *const pieces[] = {
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"tool_calls\"",
    "\"content\"",
    "\"id\"",
    "\"function\"",
    "\"name\"",
    "\"arguments\"",
    "\"py\"",
    "\"rm\"",
    "\"{\\\"code\\\":\\\"x\\\"}\"",
    "\"{\"",
    "null",
    "1e999",
    "true",
    "\"\\ud83d\\ude00\"",
    "\"\"",
    "\"calls\"",
    "\"step\"",
    "\"finish_reason\"",
    "\"length\"",
    "{}",
    "[]",
    "{\"id\":\"a\",\"function\":{\"name\":\"py\",\"arguments\":\"{\\\"code\\\":\\\"x\\\"}\"}}",
    "{\"id\":\"b\",\"function\":{\"name\":\"sum\",\"arguments\":{\"a\":[1]}}}",
    "\"```{}```\"",
};

/* Sometimes well-formed, often nearly. */
static void put_noise(struct cox_rng *rng, struct cox_buf *out)
{
    size_t n_pieces = sizeof(pieces) / sizeof(pieces[0]);
    uint64_t n = cox_rng_below(rng, 6);

    for (uint64_t i = 0; i < n; i++) {
        bool call = cox_rng_below(rng, 4) > 0;

        if (i > 0 && cox_rng_below(rng, 8) > 0)
            cox_buf_append_str(out, ",");
        cox_buf_append_str(
            out, pieces[call ? n_pieces - 1 - cox_rng_below(rng, 5) : cox_rng_below(rng, n_pieces)]);
    }
}

static void random_answer(struct cox_rng *rng, struct cox_buf *out)
{
    cox_buf_append_str(out, "{\"tool_calls\":[");
    put_noise(rng, out);
    cox_buf_append_str(out, "],\"content\":");
    if (cox_rng_below(rng, 2))
        cox_buf_append_str(out, "\"{}\"}");
    else
        put_noise(rng, out);
    if (cox_rng_below(rng, 4) == 0)
        out->data[cox_rng_below(rng, out->len)] = (uint8_t)cox_rng_below(rng, 256);
}

/* Each call that is to be made is of a tool that there is, with arguments that fit it. */
static void check_decision(struct cox_slice tools, struct cox_slice decision)
{
    struct cox_slice calls, v, name, step, args, schema, had;

    if (!cox_json_member(decision, "calls", &calls)) {
        assert_int_equal(cox_json_count(decision), 1);
        assert_true(cox_json_member(decision, "say", &v) || cox_json_member(decision, "fail", &v) ||
                    cox_json_member(decision, "output", &v) || cox_json_member(decision, "plan", &v));
        return;
    }
    assert_true(cox_json_count(calls) <= COX_TURN_CALLS_MAX);
    for (struct cox_json_walk w = cox_json_walk(calls); cox_json_next(&w);) {
        bool found = false;

        assert_true(cox_json_member(w.value, "id", &v) && cox_json_member(w.value, "name", &name));
        if (cox_json_member(w.value, "error", &v))
            continue;
        assert_true(cox_json_member(w.value, "args", &args));
        for (struct cox_json_walk t = cox_json_walk(tools); !found && cox_json_next(&t);) {
            found = cox_json_member(t.value, "name", &had) && cox_slice_eq(had, name);
            if (!found)
                continue;
            assert_true(cox_json_member(t.value, "parameters", &schema));
            if (cox_json_member(t.value, "remote", &v))
                assert_true(cox_json_member(args, "arguments", &args));
            assert_int_equal(cox_json_kind(args), COX_JSON_OBJECT);
            assert_int_equal(cox_schema_match(schema, args, NULL), COX_OK);
            assert_int_equal(cox_json_member(t.value, "approve", &v),
                             cox_json_member(w.value, "approve", &v));
            if (cox_json_member(t.value, "step", &v))
                assert_true(cox_json_member(w.value, "step", &step) && cox_slice_eq(step, v));
        }
        assert_true(found);
    }
}

static void test_a_hostile_model(void **state)
{
    const char *given = getenv("COX_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : 1;
    struct cox_rng rng;
    struct cox_buf tools = quoted(TOOLS), config = quoted(PLAIN), shaped = quoted(WITH_SCHEMA);
    size_t n_made = 0;

    (void)state;
    cox_rng_init(&rng, seed);
    print_message("COX_SEED=%llu\n", (unsigned long long)seed);
    for (int i = 0; i < 50000; i++) {
        struct cox_buf answer = { 0 }, out;
        struct cox_slice v;

        random_answer(&rng, &answer);
        out = decide_text(cox_buf_slice(cox_rng_below(&rng, 2) ? &config : &shaped), cox_buf_slice(&tools),
                          cox_buf_slice(&answer), (uint32_t)cox_rng_below(&rng, 4));
        check_decision(cox_buf_slice(&tools), cox_buf_slice(&out));
        n_made += cox_json_member(cox_buf_slice(&out), "calls", &v);
        cox_buf_fini(&answer);
        cox_buf_fini(&out);
    }
    assert_true(n_made > 100); /* it is not noise alone */
    cox_buf_fini(&tools);
    cox_buf_fini(&config);
    cox_buf_fini(&shaped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_document_says_what_a_tool_is_or_workers_do),
        cmocka_unit_test(test_a_server_says_what_its_tools_are),
        cmocka_unit_test(test_a_server_with_many_tools),
        cmocka_unit_test(test_a_call_goes_to_its_tool),
        cmocka_unit_test(test_a_call_that_cannot_be_made_is_explained_to_the_model),
        cmocka_unit_test(test_text_that_imitates_our_fields_is_text),
        cmocka_unit_test(test_a_text_is_the_output),
        cmocka_unit_test(test_an_answer_that_is_none_is_asked_for_again),
        cmocka_unit_test(test_an_output_of_a_shape),
        cmocka_unit_test(test_an_output_in_a_fence),
        cmocka_unit_test(test_a_plan),
        cmocka_unit_test(test_ids_are_told_apart),
        cmocka_unit_test(test_what_is_damaged_fails),
        cmocka_unit_test(test_an_answer_of_many_calls),
        cmocka_unit_test(test_an_answer_of_ten_megabytes),
        cmocka_unit_test(test_a_hostile_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
