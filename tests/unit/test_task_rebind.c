/* The same task with other inputs (cox_image_rebind), and steps that programs ask for (COX_SOURCE_STEPS). */
#include "task_fixture.h"
#include "task_image_v1.h"

#define HEAD "{`api_version`: `v1`, `name`: `t`, "

static const char document[] =
    HEAD "`inputs`: {`s`: {`type`: `string`, `default`: `old`}, `n`: {`type`: `integer`, `default`: 1},"
         " `l`: {`type`: `array`, `default`: [1, 2]}, `o`: {`type`: `any`, `required`: false}},"
         " `steps`: {`a`: {`uses`: `x@1`, `with`: {`s`: `<${{ inputs.s }}>`, `n`: `${{ inputs.n + 1 }}`,"
         "   `all`: `${{ inputs }}`, `in`: `${{ inputs.n in inputs.l }}`, `list`: `${{ [inputs.s, 'old'] }}`,"
         "   `by`: `${{ fromJSON('{\\`old\\`: 1, \\`new\\`: 2}')[inputs.s] }}`, `o`: `${{ inputs.o }}`}},"
         "  `b`: {`uses`: `x@1`, `if`: `${{ inputs.s.matches(inputs.s) }}`}},"
         " `outputs`: {`s`: `${{ inputs.s }}`, `const`: `old`}}";

static const char *spec(const struct cox_image *img, struct world *w)
{
    struct cox_image_step step;
    struct cox_image_call call;

    cox_image_step(img, 0, &step);
    cox_image_call(img, step.call, &call);
    return evaluate(img, call.spec_template, w);
}

/* Rebinds, opens, and frees what was there. */
static void rebound(struct cox_image *img, struct cox_buf *bytes, const char *inputs)
{
    struct cox_buf given = quoted(inputs), next = { 0 };
    struct cox_violations v;

    if (cox_image_rebind(img, cox_buf_slice(&given), &next, &v) != COX_OK) {
        print_violations(&v);
        fail();
    }
    cox_violations_fini(&v);
    cox_buf_fini(bytes);
    *bytes = next;
    assert_int_equal(cox_image_open(img, cox_buf_slice(bytes)), COX_OK);
    cox_buf_fini(&given);
}

static void test_other_inputs(void **state)
{
    struct world w = { .error_message = "" };
    struct cox_image_task task;
    struct compiled c;
    size_t len;

    (void)state;
    must_compile(&c, document, NULL);
    assert_string_equal(
        spec(&c.image, &w),
        "{\"s\":\"<old>\",\"n\":2,\"all\":{\"s\":\"old\",\"n\":1,\"l\":[1,2],\"o\":null},\"in\":true,"
        "\"list\":[\"old\",\"old\"],\"by\":1,\"o\":null}");
    rebound(&c.image, &c.image_bytes, "{`s`: `new`, `o`: {`k`: [`much longer than what was there`]}}");
    assert_string_equal(
        spec(&c.image, &w),
        "{\"s\":\"<new>\",\"n\":2,\"all\":{\"s\":\"new\",\"n\":1,\"l\":[1,2],\"o\":{\"k\":[\"much longer "
        "than what was there\"]}},\"in\":true,\"list\":[\"new\",\"old\"],\"by\":2,"
        "\"o\":{\"k\":[\"much longer than what was there\"]}}");
    cox_image_task(&c.image, &task);
    assert_string_equal(evaluate(&c.image, task.outputs_template, &w), "{\"s\":\"new\",\"const\":\"old\"}");
    assert_true(cox_slice_is(task.name, "t"));
    /* And once more: what was not named stays, and forks of forks do not grow. */
    len = c.image_bytes.len;
    rebound(&c.image, &c.image_bytes, "{`l`: [], `o`: null, `s`: `old`}");
    assert_true(c.image_bytes.len < len);
    assert_string_equal(
        spec(&c.image, &w),
        "{\"s\":\"<old>\",\"n\":2,\"all\":{\"s\":\"old\",\"n\":1,\"l\":[],\"o\":null},\"in\":false,"
        "\"list\":[\"old\",\"old\"],\"by\":1,\"o\":null}");
    len = c.image_bytes.len;
    rebound(&c.image, &c.image_bytes, "{}");
    assert_int_equal(c.image_bytes.len, len);
    rebound(&c.image, &c.image_bytes, "");
    assert_int_equal(c.image_bytes.len, len);
    compiled_fini(&c);
}

static void test_rebinding_is_as_compiling_with_them(void **state)
{
    static const char *const inputs[] = { "{}", "{`s`: ``}", "{`n`: -9223372036854775808}", "{`l`: [[[]]]}",
                                          "{`s`: `x`, `n`: 0, `l`: [0], `o`: 1.50}" };
    struct world w = { .error_message = "" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
        struct compiled a, b;
        char want[1000];

        must_compile(&a, document, inputs[i]);
        must_compile(&b, document, NULL);
        rebound(&b.image, &b.image_bytes, inputs[i]);
        snprintf(want, sizeof(want), "%s", spec(&a.image, &w));
        assert_string_equal(spec(&b.image, &w), want);
        compiled_fini(&a);
        compiled_fini(&b);
    }
}

static void test_inputs_that_are_refused(void **state)
{
    static const struct {
        const char *inputs, *path, *message;
    } cases[] = {
        { "{`s`: 5}", "inputs.s", "found the integer 5, expected a string" },
        { "{`s`: null}", "inputs.s", "expected a string" },
        { "{`n`: 1.5}", "inputs.n", "expected an integer" },
        { "{`l`: {}}", "inputs.l", "expected a list" },
        { "{`ss`: `x`}", "inputs.ss", "unknown input; did you mean `s`?" },
        { "[]", "inputs", "expected an object of inputs by name" },
        { "{`s`: ", "inputs.s", "not valid JSON" },
    };
    struct compiled c;

    (void)state;
    must_compile(&c, document, NULL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_buf given = quoted(cases[i].inputs);
        struct compiled r = { .err = COX_OK };

        r.err = cox_image_rebind(&c.image, cox_buf_slice(&given), &r.image_bytes, &r.violations);
        assert_int_equal(r.image_bytes.len, 0);
        expect_violation(&r, cases[i].inputs, cases[i].path, 0, cases[i].message);
        compiled_fini(&r);
        cox_buf_fini(&given);
    }
    compiled_fini(&c);
}

/* It says so, and nothing is made of guesses. */
static void test_an_old_image_kept_no_types(void **state)
{
    struct compiled r = { .err = COX_OK };
    struct cox_image old;

    (void)state;
    assert_int_equal(cox_image_open(&old, cox_slice(task_image_v1, sizeof(task_image_v1))), COX_OK);
    r.err = cox_image_rebind(&old, cox_slice_str("{\"n\": 1}"), &r.image_bytes, &r.violations);
    assert_int_equal(r.image_bytes.len, 0);
    expect_violation(&r, "version 1", "inputs", 0, "made by an older version");
    compiled_fini(&r);
}

/* ---- steps of a program ---- */

static void compile_steps_source(struct compiled *c, const char *steps, const char *inputs)
{
    struct cox_buf text = quoted(steps), given = quoted(inputs);
    const struct cox_task_source source = { .kind = COX_SOURCE_STEPS,
                                            .document = cox_buf_slice(&text),
                                            .inputs_json = cox_buf_slice(&given) };

    compile_source(c, &source);
    cox_buf_fini(&text);
    cox_buf_fini(&given);
}

static void test_bare_steps(void **state)
{
    struct world w = { .error_message = "" };
    struct cox_image_template t;
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    compile_steps_source(
        &c,
        "{`a`: {`uses`: `./tool`, `with`: {`v`: `${{ inputs.x.y }}`}}, `r`: {`race`: [{`uses`: `x@1`},"
        " {`wait`: {`for`: `1s`}}]}, `b`: {`uses`: `x@1`, `with`: {`a`: `${{ steps.a.output }}`}}}",
        "{`x`: {`y`: [1]}, `Any-Name`: 2}");
    if (c.err)
        print_violations(&c.violations);
    assert_int_equal(c.err, COX_OK);
    assert_string_equal(spec(&c.image, &w), "{\"path\":\"./tool\",\"input\":{\"v\":[1]}}");
    cox_image_task(&c.image, &task);
    assert_true(task.outputs_always);
    assert_int_equal(task.name.len, 0);
    assert_int_equal(task.n_members, 5);
    assert_true(cox_slice_is(task.inputs_json, "{\"x\":{\"y\":[1]},\"Any-Name\":2}"));
    cox_image_template(&c.image, task.outputs_template, &t);
    assert_false(t.is_const);
    assert_int_equal(t.n_steps, 3); /* whose outputs must be there */
    w.steps[0] =
        (struct cox_eval_step){ .status = COX_STEP_SUCCEEDED, .output_json = cox_slice_str(" {\"k\": 1} ") };
    w.steps[1] = (struct cox_eval_step){ .status = COX_STEP_FAILED,
                                         .code = COX_CODE_TIMEOUT,
                                         .message = cox_slice_str("a \"slow\" one") };
    w.steps[4] = (struct cox_eval_step){ .status = COX_STEP_SKIPPED };
    assert_string_equal(
        evaluate(&c.image, task.outputs_template, &w),
        "{\"a\":{\"status\":\"SUCCEEDED\",\"output\":{\"k\": 1},\"error\":null},"
        "\"r\":{\"status\":\"FAILED\",\"output\":null,\"error\":{\"code\":\"TIMEOUT\",\"message\":"
        "\"a \\\"slow\\\" one\"}},"
        "\"b\":{\"status\":\"SKIPPED\",\"output\":null,\"error\":null}}");
    w.steps[0].output_json = cox_slice_str("{");
    assert_non_null(strstr(evaluate(&c.image, task.outputs_template, &w), "error: "));
    compiled_fini(&c);
}

static void test_bare_steps_that_are_refused(void **state)
{
    static const struct {
        const char *steps, *path, *message;
    } cases[] = {
        { "[]", "", "expected an object of steps by name" },
        { "{}", "", "found 0 steps" },
        { "{`a`: {`uses`: `x`}}", "a.uses", "such as \"lint@1\"" },
        { "{`a`: {`uses`: `x@1`, `needs`: [`b`]}, `b`: {`uses`: `x@1`, `needs`: [`a`]}}", "a",
          "a -> b -> a" },
        { "{`a`: {`uses`: `x@1`, `with`: {`v`: `${{ inputs.z }}`}}}", "a.with.v", "unknown input `z`" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct compiled c;

        compile_steps_source(&c, cases[i].steps, "{`x`: 1}");
        expect_violation(&c, cases[i].steps, cases[i].path, 1, cases[i].message);
        compiled_fini(&c);
    }
}

static void same_step(void *user, uint32_t index, struct cox_eval_step *ret)
{
    (void)index;
    *ret = *(const struct cox_eval_step *)user;
}

/* The cost of outputs is their length: as many steps as may be have them made. */
static void test_results_of_many_steps(void **state)
{
    const struct cox_eval_step done = { .status = COX_STEP_SUCCEEDED };
    struct cox_buf text = { 0 }, out = { 0 }, error = { 0 };
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    for (int i = 0; i < 20000; i++)
        cox_buf_printf(&text, "%s\"s%d\": {\"uses\": \"x@1\"}", i ? "," : "{", i);
    cox_buf_append_str(&text, "}");
    const struct cox_task_source source = { .kind = COX_SOURCE_STEPS, .document = cox_buf_slice(&text) };

    compile_source(&c, &source);
    assert_int_equal(c.err, COX_OK);
    cox_image_task(&c.image, &task);
    const struct cox_eval_env env = { .user = (void *)(uintptr_t)&done, .step = same_step };

    assert_int_equal(cox_eval_template(&c.image, task.outputs_template, &env, &out, &error), COX_OK);
    assert_true(out.len > 20000u * 50);
    cox_buf_fini(&text);
    cox_buf_fini(&out);
    compiled_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_inputs),
        cmocka_unit_test(test_rebinding_is_as_compiling_with_them),
        cmocka_unit_test(test_inputs_that_are_refused),
        cmocka_unit_test(test_an_old_image_kept_no_types),
        cmocka_unit_test(test_bare_steps),
        cmocka_unit_test(test_bare_steps_that_are_refused),
        cmocka_unit_test(test_results_of_many_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
