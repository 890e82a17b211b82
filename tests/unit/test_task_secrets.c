/* `secrets` in documents: where `secrets.KEY` may stand, and the spec that then comes out. What a worker
 * makes of it: test_secret_spec.c. */
#include "task_fixture.h"

#define HEAD "{`api_version`: `v1`, `name`: `t`, `inputs`: {`x`: {`type`: `any`, `default`: `d`}}, "
#define STEP(body) HEAD "`steps`: {`a`: {" body "}}}"
#define SECRETS ", `secrets`: {`TOKEN`: `slack`, `b2`: `a.b-c`}"
#define HOLDS "[{\"TOKEN\":\"slack\",\"b2\":\"a.b-c\"},"

static void spec_is(const char *body, bool fallback, const char *expected)
{
    struct cox_buf document = { 0 };
    struct world w = { .error_message = "no", .error_code = COX_CODE_TIMEOUT };
    struct cox_image_step step;
    struct cox_image_call call;
    struct compiled c;

    cox_buf_printf(&document, HEAD "`steps`: {`a`: {%s}}}", body);
    must_compile(&c, cox_buf_cstr(&document), NULL);
    cox_image_step(&c.image, 0, &step);
    cox_image_call(&c.image, fallback ? step.fallback : step.call, &call);
    assert_string_equal(evaluate(&c.image, call.spec_template, &w), expected);
    compiled_fini(&c);
    cox_buf_fini(&document);
}

static void test_where_secrets_may_stand(void **state)
{
    (void)state;
    spec_is("`run`: {`argv`: [`x`], `env`: {`T`: `${{ secrets.TOKEN }}`, `U`: `${{ inputs.x }}`}, `stdin`: "
            "`u:${{ inputs.x }}:${{secrets['b2']}}\\n`}" SECRETS,
            false,
            HOLDS "{\"argv\":[\"x\"],\"env\":{\"T\":[\"\",\"TOKEN\",\"\"],\"U\":\"d\"},\"stdin\":"
                  "[\"u:d:\",\"b2\",\"\\n\"]},[[\"env\",\"T\"],[\"stdin\"]]]");
    spec_is("`http`: {`url`: `https://x/${{ secrets.b2 }}`, `headers`: {`A`: `Bearer ${{ secrets.TOKEN }}`}, "
            "`json`: {`l`: [1, {`k`: `${{ secrets.b2 }}${{ secrets.b2 }}`}]}}" SECRETS,
            false,
            HOLDS "{\"method\":\"GET\",\"url\":[\"https://x/\",\"b2\",\"\"],\"headers\":{\"A\":[\"Bearer \","
                  "\"TOKEN\",\"\"]},\"json\":{\"l\":[1,{\"k\":[\"\",\"b2\",\"\",\"b2\",\"\"]}]}},"
                  "[[\"url\"],[\"headers\",\"A\"],[\"json\",\"l\",1,\"k\"]]]");
    spec_is("`uses`: `x@1`, `with`: {`a`: {`t`: `${{ secrets.TOKEN }}`}}" SECRETS, false,
            HOLDS "{\"a\":{\"t\":[\"\",\"TOKEN\",\"\"]}},[[\"a\",\"t\"]]]");
    spec_is(
        "`run`: {`argv`: [`x`]}, `fallback`: {`uses`: `x@1`, `with`: {`e`: `${{ error.code }}`, `t`: `${{ "
        "secrets.T }}`}, `secrets`: {`T`: `t`}}",
        true, "[{\"T\":\"t\"},{\"e\":\"TIMEOUT\",\"t\":[\"\",\"T\",\"\"]},[[\"t\"]]]");
    /* They need not be read: the worker still knows what to keep out of output. */
    spec_is("`run`: {`argv`: [`x`]}" SECRETS, false, HOLDS "{\"argv\":[\"x\"]},[]]");
    spec_is("`run`: {`argv`: [`x`]}, `secrets`: {}", false, "{\"argv\":[\"x\"]}");
}

static void test_a_program_of_the_bundle(void **state)
{
    static const char hash[] = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    struct world w = { .error_message = "" };
    struct cox_buf document = { 0 };
    struct cox_image_step step;
    struct cox_image_call call;
    struct compiled c;

    (void)state;
    cox_buf_printf(
        &document,
        HEAD "`bundle`: `%s`, `steps`: {`a`: {`uses`: `./p`, `with`: {`t`: `${{ secrets.TOKEN }}`}" SECRETS
             "}}}",
        hash);
    must_compile(&c, cox_buf_cstr(&document), NULL);
    cox_image_step(&c.image, 0, &step);
    cox_image_call(&c.image, step.call, &call);
    assert_string_equal(evaluate(&c.image, call.spec_template, &w), HOLDS
                        "{\"path\":\"./p\",\"input\":{\"t\":[\"\",\"TOKEN\",\"\"]}},[[\"input\",\"t\"]]]");
    compiled_fini(&c);
    cox_buf_fini(&document);
}

#define ALONE "`secrets.KEY` stands alone in its `${{ }}`, and in what a worker hands on"

static void test_where_they_may_not(void **state)
{
    static const struct {
        const char *document, *path, *message;
    } cases[] = {
        { STEP("`run`: {`argv`: [`x`, `${{ secrets.TOKEN }}`]}" SECRETS), "steps.a.run.argv[1]",
          "everybody on a worker's host sees the arguments" },
        { STEP("`run`: {`argv`: [`x`]}, `if`: `${{ secrets.TOKEN == 'x' }}`" SECRETS), "steps.a.if", ALONE },
        { STEP("`run`: {`argv`: [`x`], `env`: {`T`: `${{ secrets.TOKEN + 'x' }}`}}" SECRETS),
          "steps.a.run.env.T", ALONE },
        { STEP("`run`: {`argv`: [`x`], `env`: {`T`: `${{ toJSON(secrets.TOKEN) }}`}}" SECRETS),
          "steps.a.run.env.T", ALONE },
        { STEP("`run`: {`argv`: [`x`], `env`: {`T`: `${{ secrets }}`}}" SECRETS), "steps.a.run.env.T",
          ALONE },
        { STEP("`run`: {`argv`: [`x`], `env`: {`T`: `${{ secrets.TOKEN.x }}`}}" SECRETS), "steps.a.run.env.T",
          ALONE },
        { STEP("`run`: {`argv`: [`x`], `env`: {`T`: `${{ secrets[inputs.x] }}`}}" SECRETS),
          "steps.a.run.env.T", ALONE },
        { STEP("`run`: {`argv`: [`x`], `env`: {`T`: `${{ secrets.TOKEN }}`}}"), "steps.a.run.env.T", ALONE },
        { STEP("`run`: {`argv`: [`x`], `env`: {`T`: `a ${{ secrets.TOKEM }}`}}" SECRETS), "steps.a.run.env.T",
          "unknown secret `TOKEM`, expected one of the step's `secrets`; did you mean `TOKEN`?" },
        { STEP("`run`: {`argv`: [`x`]}, `artifacts`: {`a`: `${{ secrets.TOKEN }}`}" SECRETS),
          "steps.a.artifacts.a", ALONE },
        { STEP("`run`: {`argv`: [`x`]}, `concurrency`: {`key`: `${{ secrets.TOKEN }}`, `limit`: 1}" SECRETS),
          "steps.a.concurrency.key", ALONE },
        { STEP("`run`: {`argv`: [`x`]}, `map`: {`over`: `${{ secrets.TOKEN }}`}" SECRETS), "steps.a.map.over",
          ALONE },
        { STEP("`run`: {`argv`: [`x`]}, `fallback`: {`run`: {`argv`: [`x`], `stdin`: `${{ secrets.TOKEN "
               "}}`}}" SECRETS),
          "steps.a.fallback.run.stdin", ALONE },
        { HEAD "`steps`: {`a`: {`run`: {`argv`: [`x`]}" SECRETS
               "}}, `outputs`: {`t`: `${{ secrets.TOKEN }}`}}",
          "outputs.t", ALONE },
        { HEAD "`steps`: {`a`: {`run`: {`argv`: [`x`]}" SECRETS
               "}, `b`: {`run`: {`argv`: [`x`], `stdin`: `${{ "
               "secrets.TOKEN }}`}}}}",
          "steps.b.run.stdin", ALONE },
        { STEP("`jq`: {`program`: `.`, `input`: 1}" SECRETS), "steps.a.secrets",
          "what `jq` computes is stored" },
        { STEP("`wait`: {`for`: `1s`}" SECRETS), "steps.a.secrets",
          "expected it beside `run`, `uses`, `http` or `mcp`" },
        { STEP("`run`: {`argv`: [`x`]}, `secrets`: {`a-b`: `x`}"), "steps.a.secrets.a-b", "found the name" },
        { STEP("`run`: {`argv`: [`x`]}, `secrets`: {`A`: `../x`}"), "steps.a.secrets.A", "name of a secret" },
        { STEP("`run`: {`argv`: [`x`]}, `secrets`: {`A`: `${{ inputs.x }}`}"), "steps.a.secrets.A",
          "without expressions" },
        { STEP("`run`: {`argv`: [`x`]}, `secrets`: {`A`: 1}"), "steps.a.secrets.A", "name of a secret" },
        { STEP("`run`: {`argv`: [`x`]}, `secrets`: [`A`]"), "steps.a.secrets", "expected names of secrets" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(cases[i].document, NULL, cases[i].path, 1, cases[i].message);
}

/* Else what a program says would choose among all that its tenant may use. */
static void test_not_in_steps_that_a_program_asks_for(void **state)
{
    struct cox_buf steps = quoted("{`a`: {`run`: {`argv`: [`x`]}, `secrets`: {`T`: `t`}}}");
    struct cox_task_source source = { .kind = COX_SOURCE_STEPS, .document = cox_buf_slice(&steps) };
    struct compiled c;

    (void)state;
    compile_source(&c, &source);
    expect_violation(&c, "bare steps", "a.secrets", 1, "have no secrets");
    compiled_fini(&c);
    cox_buf_fini(&steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_secrets_may_stand),
        cmocka_unit_test(test_a_program_of_the_bundle),
        cmocka_unit_test(test_where_they_may_not),
        cmocka_unit_test(test_not_in_steps_that_a_program_asks_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
