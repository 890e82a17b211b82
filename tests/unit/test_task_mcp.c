/* `mcp` in documents: the spec that a worker gets, and what is refused. */
#include "task_fixture.h"

#define HEAD "{`api_version`: `v1`, `name`: `t`, `inputs`: {`x`: {`type`: `any`, `default`: {`a`: 1}}}, "
#define STEP(body) HEAD "`steps`: {`a`: {" body "}}}"
#define MCP(body) STEP("`mcp`: {" body "}")
#define URL "`url`: `https://e.org/mcp`"

static void spec_is(const char *document, const char *label, const char *expected)
{
    struct world w = { .error_message = "no", .item_json = "\"i\"" };
    struct cox_image_class cls;
    struct cox_image_step step;
    struct cox_image_call call;
    struct compiled c;

    must_compile(&c, document, NULL);
    cox_image_step(&c.image, 0, &step);
    cox_image_call(&c.image, step.call, &call);
    assert_int_equal(call.kind, COX_KIND_MCP);
    assert_true(cox_step_kind_is_worker(call.kind));
    assert_string_equal(cox_step_kind_text(call.kind), "mcp");
    cox_image_class(&c.image, call.class_index, &cls);
    assert_true(cox_slice_is(cls.handler, "mcp"));
    assert_int_equal(cls.n_requires, label ? 1 : 0);
    assert_string_equal(evaluate(&c.image, call.spec_template, &w), expected);
    compiled_fini(&c);
}

static void test_the_spec(void **state)
{
    (void)state;
    spec_is(
        MCP(URL ", `tool`: `sum-${{ inputs.x.a }}`, `arguments`: {`n`: `${{ inputs.x.a }}`, `s`: `x`}"), NULL,
        "{\"mcp\":{\"url\":\"https://e.org/mcp\"},\"tool\":\"sum-1\",\"arguments\":{\"n\":1,\"s\":\"x\"}}");
    spec_is(
        MCP(URL ", `headers`: {`A`: `b`}, `tool`: `t`, `arguments`: `${{ inputs.x }}`"), NULL,
        "{\"mcp\":{\"url\":\"https://e.org/mcp\",\"headers\":{\"A\":\"b\"}},\"tool\":\"t\",\"arguments\":{"
        "\"a\":1}}");
    spec_is(MCP("`command`: `npx`, `tool`: `t`"), NULL,
            "{\"mcp\":{\"command\":\"npx\"},\"tool\":\"t\",\"arguments\":{}}");
    spec_is(
        MCP("`command`: `npx`, `args`: [`-y`, `${{ inputs.x.a }}`], `env`: {`A`: `b`}, `sandbox`: `strict`, "
            "`list`: true"),
        "sandbox.strict",
        "{\"mcp\":{\"command\":\"npx\",\"args\":[\"-y\",\"1\"],\"env\":{\"A\":\"b\"},\"sandbox\":\"strict\"},"
        "\"list\":true}");
}

/* Paths are those of the spec, where the server is a member beside the tool. */
static void test_secrets(void **state)
{
    (void)state;
    spec_is(STEP("`mcp`: {" URL
                 ", `headers`: {`A`: `Bearer ${{ secrets.T }}`}, `tool`: `t`, `arguments`: {`p`: `${{ "
                 "secrets.T }}`}}, `secrets`: {`T`: `slack`}"),
            NULL,
            "[{\"T\":\"slack\"},{\"mcp\":{\"url\":\"https://e.org/mcp\",\"headers\":{\"A\":[\"Bearer "
            "\",\"T\",\"\"]}},\"tool\":\"t\",\"arguments\":{\"p\":[\"\",\"T\",\"\"]}},[[\"mcp\",\"headers\","
            "\"A\"],["
            "\"arguments\",\"p\"]]]");
    spec_is(
        STEP("`mcp`: {`command`: `x`, `env`: {`A`: `${{ secrets.T }}`}, `tool`: `t`}, `secrets`: {`T`: "
             "`slack`}"),
        NULL,
        "[{\"T\":\"slack\"},{\"mcp\":{\"command\":\"x\",\"env\":{\"A\":[\"\",\"T\",\"\"]}},\"tool\":\"t\","
        "\"arguments\":{}},[[\"mcp\",\"env\",\"A\"]]]");
}

static void test_what_is_refused(void **state)
{
    static const struct {
        const char *document, *path, *message;
    } cases[] = {
        { MCP("`tool`: `t`"), "steps.a.mcp", "found neither, expected exactly one of `url` and `command`" },
        { MCP(URL ", `command`: `x`, `tool`: `t`"), "steps.a.mcp", "found `url` and `command`" },
        { MCP(URL), "steps.a.mcp", "found neither, expected exactly one of `tool` and `list`" },
        { MCP(URL ", `tool`: `t`, `list`: true"), "steps.a.mcp", "found `tool` and `list`" },
        { MCP(URL ", `list`: false"), "steps.a.mcp.list", "expected true" },
        { MCP(URL ", `list`: true, `arguments`: {}"), "steps.a.mcp.arguments", "expected `tool` beside it" },
        { MCP(URL ", `tool`: ``"), "steps.a.mcp.tool", "expected the name" },
        { MCP(URL ", `tool`: `t`, `arguments`: `x`"), "steps.a.mcp.arguments", "one expression" },
        { MCP(URL ", `tool`: `t`, `args`: []"), "steps.a.mcp.args", "expected `command` beside it" },
        { MCP(URL ", `tool`: `t`, `sandbox`: `net`"), "steps.a.mcp.sandbox", "expected `command` beside it" },
        { MCP("`command`: `x`, `tool`: `t`, `headers`: {}"), "steps.a.mcp.headers",
          "expected `url` beside it" },
        { MCP("`command`: ``, `tool`: `t`"), "steps.a.mcp.command", "found no program" },
        { MCP("`command`: `x`, `args`: [1], `tool`: `t`"), "steps.a.mcp.args[0]", "expected a string" },
        { MCP("`command`: `x`, `sandbox`: `box`, `tool`: `t`"), "steps.a.mcp.sandbox", "\"strict\"" },
        { MCP("`url`: `ws://x`, `tool`: `t`"), "steps.a.mcp.url", "expected a URL" },
        { MCP(URL ", `list`: true, `toll`: `t`"), "steps.a.mcp.toll", "did you mean `tool`" },
        { STEP("`mcp`: {`command`: `x`, `args`: [`${{ secrets.T }}`], `tool`: `t`}, `secrets`: {`T`: `b`}"),
          "steps.a.mcp.args[0]", "everybody on a worker's host" },
        { STEP("`mcp`: {" URL ", `tool`: `${{ secrets.T }}`}, `secrets`: {`T`: `b`}"), "steps.a.mcp.tool",
          "stands alone" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(cases[i].document, NULL, cases[i].path, 1, cases[i].message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_spec),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_what_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
