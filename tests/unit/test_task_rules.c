/* The numbered rules of the task format, as far as compiling and evaluating have to do with them: each test
 * carries its rule's number. What the engine makes of them is tested with the engine. */
#include "task_fixture.h"

#include <stdlib.h>

#define HEAD "{`api_version`: `v1`, `name`: `t`, "
#define STEPS(text) HEAD "`steps`: {" text "}}"
#define RUN "`run`: {`argv`: [`true`]}"
#define HASH "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct cox_image_step step_of(const struct compiled *c, const char *name)
{
    struct cox_image_step step = { 0 };
    uint32_t i = cox_image_find_step(&c->image, cox_slice_str(name));

    if (i == COX_IMAGE_NONE)
        print_error("there is no step %s\n", name);
    assert_int_not_equal(i, COX_IMAGE_NONE);
    cox_image_step(&c->image, i, &step);
    return step;
}

static struct cox_image_call call_of(const struct compiled *c, const char *name)
{
    struct cox_image_call call;

    cox_image_call(&c->image, step_of(c, name).call, &call);
    return call;
}

static struct cox_image_extras extras_of(const struct compiled *c, const char *name)
{
    struct cox_image_extras extras;

    cox_image_extras(&c->image, step_of(c, name).extras, &extras);
    return extras;
}

static struct cox_image_map map_of(const struct compiled *c, const char *name)
{
    struct cox_image_map map;

    cox_image_map(&c->image, step_of(c, name).map, &map);
    return map;
}

static bool needs(const struct compiled *c, const char *name, const char *other)
{
    uint32_t i = cox_image_find_step(&c->image, cox_slice_str(name));
    struct cox_image_step step = step_of(c, name);

    for (uint32_t k = 0; k < step.n_needs; k++) {
        if (cox_image_need(&c->image, i, k) == cox_image_find_step(&c->image, cox_slice_str(other)))
            return true;
    }
    return false;
}

static struct cox_slice handler_of(const struct compiled *c, const char *name)
{
    struct cox_image_class cls;

    cox_image_class(&c->image, call_of(c, name).class_index, &cls);
    return cls.handler;
}

/* The spec of a step, or "error: ...". */
static const char *spec_of(const struct compiled *c, const char *name, struct world *w)
{
    return evaluate(&c->image, call_of(c, name).spec_template, w);
}

static bool is(struct cox_slice s, const char *text)
{
    return cox_slice_is(s, text);
}

/* ---- rule 1 ---- */

static void test_rule_1_names(void **state)
{
    struct compiled c;

    (void)state;
    must_compile(&c, HEAD "`inputs`: {`_i9`: {`type`: `any`, `default`: 1}}, `steps`: {`_a9`: {" RUN "}}}",
                 NULL);
    compiled_fini(&c);
    refused(STEPS("`A`: {" RUN "}"), NULL, "steps.A", 1, "found the step name \"A\"");
    refused(STEPS("`a-b`: {" RUN "}"), NULL, "steps.a-b", 1, "found the step name");
    refused(HEAD "`inputs`: {`a-b`: {`type`: `any`, `default`: 1}}, `steps`: {`a`: {" RUN "}}}", NULL,
            "inputs.a-b", 1, "found the input name");
    must_compile(&c, "{`api_version`: `v1`, `name`: `a-b_9`, `steps`: {`a`: {" RUN "}}}", NULL);
    compiled_fini(&c);
    refused("{`api_version`: `v1`, `name`: `a.b`, `steps`: {`a`: {" RUN "}}}", NULL, "name", 1,
            "expected a name of");
    refused(STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: [], `as`: `the-item`}}"), NULL, "steps.a.map.as", 1,
            "expected a name of a-z, 0-9 and _");
}

static void test_rule_1_roots_cannot_be_shadowed(void **state)
{
    static const char *const roots[] = { "inputs",  "steps", "args",  "item", "index", "error",
                                         "secrets", "true",  "false", "null", "in" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(roots); i++) {
        char document[200];

        snprintf(document, sizeof(document), STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: [], `as`: `%s`}}"),
                 roots[i]);
        refused(document, NULL, "steps.a.map.as", 1, "which expressions know already");
    }
}

static void test_rule_1_a_mapped_step_sees_its_item(void **state)
{
    struct world w = { .error_message = "", .item_json = "{\"p\": [7]}", .item_index = 3 };
    struct cox_image_template t;
    struct compiled c;

    (void)state;
    must_compile(&c,
                 STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: [1], `as`: `file`},"
                       " `with`: {`v`: `${{ [file.p[0], item.p, index + 1] }}`, `t`: `${{ file }}!`}},"
                       "`b`: {`uses`: `x@1`, `with`: {`v`: `${{ steps.a.output }}`}}"),
                 NULL);
    assert_string_equal(spec_of(&c, "a", &w), "{\"v\":[7,[7],4],\"t\":\"{\\\"p\\\":[7]}!\"}");
    cox_image_template(&c.image, call_of(&c, "a").spec_template, &t);
    assert_true(t.reads_item);
    cox_image_template(&c.image, map_of(&c, "a").over, &t);
    assert_false(t.reads_item);
    w.item_json = "{";
    assert_non_null(strstr(spec_of(&c, "a", &w), "the item is not valid JSON"));
    w.item_json = "";
    assert_string_equal(spec_of(&c, "a", &w), "{\"v\":[null,null,4],\"t\":\"null!\"}");
    compiled_fini(&c);
    /* Only what runs for each item does: */
    refused(STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: `${{ item }}`}}"), NULL, "steps.a.map.over", 1,
            "what runs for each item of a `map` only");
    refused(STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: []}, `if`: `${{ index == 0 }}`}"), NULL, "steps.a.if",
            1, "what runs for each item of a `map` only");
    refused(
        STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: []}, `fallback`: {`uses`: `y@1`, `with`: {`i`: `${{ item "
              "}}`}}}"),
        NULL, "steps.a.fallback.with.i", 1, "what runs for each item of a `map` only");
    refused(STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: [], `as`: `file`}, `with`: {`i`: `${{ fiel }}`}}"),
            NULL, "steps.a.with.i", 1, "did you mean `file`?");
    refused(STEPS("`a`: {`uses`: `x@1`, `with`: {`i`: `${{ file }}`}}"), NULL, "steps.a.with.i", 1,
            "unknown name `file`");
    refused(STEPS("`a`: {`uses`: `x@1`, `with`: {`i`: `${{ args }}`}}"), NULL, "steps.a.with.i", 1,
            "in the tools of an agent only");
}

static void test_rule_1_inner_steps_have_no_names_in_expressions(void **state)
{
    struct compiled c;

    (void)state;
    must_compile(&c, STEPS("`a`: {`race`: [{" RUN "}, {`race`: [{`uses`: `x@1`}, {`uses`: `y@1`}]}]}"), NULL);
    assert_int_equal(step_of(&c, "a").n_inner, 4);
    assert_int_equal(step_of(&c, "a.1").n_inner, 2);
    assert_int_equal(step_of(&c, "a.1.1").owner, 2);
    compiled_fini(&c);
    refused(STEPS("`a`: {`race`: [{" RUN "}, {" RUN "}]}, `b`: {`uses`: `x@1`, `with`: {`i`: `${{ "
                  "steps['a.0'].output }}`}}"),
            NULL, "steps.b.with.i", 1, "unknown step `a.0`");
    refused(STEPS("`a`: {`race`: [{" RUN "}, {" RUN "}]}, `b`: {" RUN ", `needs`: [`a.0`]}"), NULL,
            "steps.b.needs[0]", 1, "unknown step `a.0`");
}

/* ---- rule 2 ---- */

static void test_rule_2_types_and_references(void **state)
{
    struct world w = { .error_message = "" };
    struct compiled c;

    (void)state;
    must_compile(
        &c,
        STEPS("`a`: {" RUN "}, `b`: {`uses`: `x@1`, `with`: {`n`: `${{ steps.a.output.n }}`,"
              " `s`: `<${{ steps.a.output.n }} ${{ steps.a.output.s }} ${{ steps.a.output }}>`}},"
              "`r`: {`race`: [{`uses`: `x@1`, `with`: {`v`: `${{ steps.b.output }}`}}, {`race`: [{" RUN
              "}, {`run`: {`argv`: [`${{ steps.a.status }}`]}}]}]},"
              "`m`: {`wait`: {`for`: `1s`}, `map`: {`over`: `${{ steps.b.output }}`}}"),
        NULL);
    w.steps[0].output_json = cox_slice_str("{\"n\": 1.50, \"s\": \"x\"}");
    assert_string_equal(spec_of(&c, "b", &w),
                        "{\"n\":1.50,\"s\":\"<1.50 x {\\\"n\\\":1.50,\\\"s\\\":\\\"x\\\"}>\"}");
    w.steps[0].output_json = cox_slice_str("[1]");
    assert_non_null(strstr(spec_of(&c, "b", &w), "error: ${{ steps.a.output.n }}: "));
    assert_true(needs(&c, "b", "a"));
    assert_true(needs(&c, "r", "a") && needs(&c, "r", "b")); /* what is in it refers to them */
    assert_int_equal(step_of(&c, "r.0").n_needs, 0);
    assert_int_equal(step_of(&c, "r.1.1").n_needs, 0);
    assert_true(needs(&c, "m", "b"));
    compiled_fini(&c);
}

/* ---- rules 3, 4 ---- */

static void test_rule_3_failure(void **state)
{
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    must_compile(&c,
                 HEAD "`fail_fast`: true, `defaults`: {`retry`: {`max_attempts`: 4}}, `steps`: {"
                      "`a`: {" RUN ", `allow_failure`: true}, `b`: {`wait`: {`for`: `1s`}}}}",
                 NULL);
    cox_image_task(&c.image, &task);
    assert_true(task.fail_fast);
    assert_false(task.outputs_always);
    assert_true(step_of(&c, "a").allow_failure);
    assert_int_equal(call_of(&c, "a").max_attempts, 4);
    assert_int_equal(call_of(&c, "b").max_attempts, 1); /* defaults are of attempts on workers */
    assert_int_equal(call_of(&c, "b").timeout_ms, 0);
    compiled_fini(&c);
    refused(STEPS("`a`: {" RUN ", `retry`: {`on`: [`BROKEN`]}}"), NULL, "steps.a.retry.on[0]", 1,
            "expected an error code");
    refused(STEPS("`a`: {" RUN ", `retry`: {`on`: [`WORKER_LOST`]}}"), NULL, "steps.a.retry.on[0]", 1,
            "a limit of their own");
}

static void test_rule_4_fallback(void **state)
{
    struct world w = { .error_code = COX_CODE_TIMEOUT, .error_message = "too slow" };
    struct cox_image_call call;
    struct compiled c;

    (void)state;
    must_compile(&c,
                 STEPS("`a`: {" RUN
                       ", `timeout`: `1s`, `fallback`: {`approval`: {`prompt`: `${{ error.code }}: ${{ "
                       "error.message }}`}}}"),
                 NULL);
    cox_image_call(&c.image, step_of(&c, "a").fallback, &call);
    assert_int_equal(call.kind, COX_KIND_APPROVAL);
    assert_int_equal(call.timeout_ms, 0); /* nothing of its step's */
    assert_string_equal(evaluate(&c.image, call.spec_template, &w), "\"TIMEOUT: too slow\"");
    compiled_fini(&c);
    must_compile(&c,
                 STEPS("`a`: {" RUN
                       ", `fallback`: {`race`: [{`uses`: `x@1`, `with`: {`e`: `${{ error }}`}}, {`wait`: "
                       "{`signal`: `go`}}]}}"),
                 NULL);
    cox_image_call(&c.image, step_of(&c, "a").fallback, &call);
    assert_int_equal(call.inner_first, 1);
    assert_int_equal(call.inner_n, 2);
    assert_true(is(step_of(&c, "a.fallback.1").name, "a.fallback.1"));
    compiled_fini(&c);
    refused(STEPS("`a`: {" RUN ", `if`: `${{ error == null }}`}"), NULL, "steps.a.if", 1,
            "in a `fallback` only");
}

/* ---- rule 5 ---- */

static void test_rule_5_map(void **state)
{
    struct world w = { .error_message = "" };
    struct compiled c;

    (void)state;
    must_compile(
        &c,
        STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: `${{ [1, 2] }}`, `max_parallel`: 5000, `batch`: 50,"
              " `tolerate_failures`: `1%`}},"
              "`b`: {`uses`: `x@1`, `map`: {`over`: [], `tolerate_failures`: 3}},"
              "`c`: {`task`: {`ref`: `t@1`, `inputs`: {`i`: `${{ item }}`}}, `map`: {`over`: [1]}},"
              "`d`: {`uses`: `x@1`, `with`: {`e`: `${{ steps.a.errors }}`}}"),
        NULL);
    struct cox_image_map map = map_of(&c, "a");

    assert_int_equal(map.max_parallel, 5000);
    assert_int_equal(map.batch, 50);
    assert_true(map.tolerate_ppm);
    assert_int_equal(map.tolerate, 10000);
    assert_string_equal(evaluate(&c.image, map.over, &w), "[1,2]");
    map = map_of(&c, "b");
    assert_int_equal(map.max_parallel, 0);
    assert_int_equal(map.batch, 1);
    assert_false(map.tolerate_ppm);
    assert_int_equal(map.tolerate, 3);
    assert_string_equal(evaluate(&c.image, map.over, &w), "[]");
    /* A leaf is called for each item; any other kind has a body. */
    assert_int_equal(step_of(&c, "a").n_inner, 0);
    assert_int_equal(step_of(&c, "c").call, COX_IMAGE_NONE);
    assert_true(step_of(&c, "c[]").is_body);
    assert_int_equal(call_of(&c, "c[]").kind, COX_KIND_TASK);
    struct cox_image_task task;

    cox_image_task(&c.image, &task);
    assert_int_equal(c.image.n_steps, 5);
    assert_int_equal(task.n_members, 4);
    assert_string_equal(spec_of(&c, "d", &w), "{\"e\":[]}");
    w.steps[0].errors_json = cox_slice_str("[{\"index\": 1}]");
    assert_string_equal(spec_of(&c, "d", &w), "{\"e\":[{\"index\":1}]}");
    compiled_fini(&c);
}

static void test_rule_5_percentages(void **state)
{
    static const struct {
        const char *text;
        int64_t ppm; /* -1: refused */
    } cases[] = { { "0%", 0 },
                  { "1%", 10000 },
                  { "100%", 1000000 },
                  { "0.25%", 2500 },
                  { "12.3456%", 123456 },
                  { "101%", -1 },
                  { "1", -1 },
                  { "%", -1 },
                  { "1.%", -1 },
                  { ".5%", -1 },
                  { "1.23456%", -1 },
                  { "1e1%", -1 },
                  { "-1%", -1 },
                  { "1 %", -1 },
                  { "99999999999999999999%", -1 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char document[200];
        struct compiled c;

        snprintf(document, sizeof(document),
                 STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: [], `tolerate_failures`: `%s`}}"),
                 cases[i].text);
        compile(&c, document, NULL);
        if (cases[i].ppm >= 0) {
            assert_int_equal(c.err, COX_OK);
            assert_int_equal(map_of(&c, "a").tolerate, cases[i].ppm);
        } else {
            expect_violation(&c, document, "steps.a.map.tolerate_failures", 1, "or a percentage such as");
        }
        compiled_fini(&c);
    }
}

static void test_rule_5_map_over_every_kind(void **state)
{
    static const char *const kinds[] = { "`wait`: {`for`: `1s`}", "`wait`: {`until`: `${{ item }}`}",
                                         "`approval`: {`prompt`: `${{ item }}?`}", "`task`: {`ref`: `t@1`}",
                                         "`race`: [{`uses`: `x@1`, `with`: {`i`: `${{ index }}`}}, {" RUN
                                         "}]" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct compiled c;
        char document[300];

        snprintf(document, sizeof(document), STEPS("`a`: {%s, `map`: {`over`: [1]}}"), kinds[i]);
        must_compile(&c, document, NULL);
        assert_int_equal(step_of(&c, "a").call, COX_IMAGE_NONE);
        assert_true(step_of(&c, "a[]").is_body);
        assert_int_equal(step_of(&c, "a[]").owner, 0);
        compiled_fini(&c);
        snprintf(document, sizeof(document), STEPS("`a`: {%s, `map`: {`over`: [1], `batch`: 2}}"), kinds[i]);
        refused(document, NULL, "steps.a.map.batch", 1, "not dispatched to workers");
    }
    refused(STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: `all of ${{ [1] }}`}}"), NULL, "steps.a.map.over", 1,
            "one expression that comes to one");
    refused(STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: [], `max_parallel`: 0}}"), NULL,
            "steps.a.map.max_parallel", 1, "from 1 to 10000000");
    refused(STEPS("`a`: {`uses`: `x@1`, `map`: {`over`: [], `batch`: 1001}}"), NULL, "steps.a.map.batch", 1,
            "from 1 to 1000");
}

/* ---- rule 6 ---- */

static void test_rule_6_skipped_steps_are_null(void **state)
{
    struct world w = { .error_message = "", .steps = { { .status = COX_STEP_SKIPPED } } };
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    must_compile(&c,
                 HEAD "`steps`: {`a`: {" RUN
                      ", `if`: false}}, `outputs`: {`o`: `${{ steps.a.output.x.y[3] }}`,"
                      " `s`: `${{ steps.a.status }}`}}",
                 NULL);
    cox_image_task(&c.image, &task);
    assert_string_equal(evaluate(&c.image, task.outputs_template, &w), "{\"o\":null,\"s\":\"SKIPPED\"}");
    compiled_fini(&c);
    must_compile(&c, STEPS("`a`: {" RUN "}"), NULL);
    assert_int_equal(step_of(&c, "a").condition, COX_IMAGE_NONE); /* success() */
    compiled_fini(&c);
}

/* ---- rules 7 (more of it in test_task_agent.c) and 8 ---- */

static void test_rule_7_names_of_tools(void **state)
{
    (void)state;
    refused(STEPS("`a`: {`agent`: {`input`: `x`, `tools`: [{`uses`: `w@1`}, {`uses`: `w@2`}]}}"), NULL,
            "steps.a.agent.tools[1].name", 1, "is called `w` too");
    refused(STEPS("`a`: {`agent`: {`input`: `x`, `approve`: [`v`], `tools`: [{`uses`: `w@1`}]}}"), NULL,
            "steps.a.agent.approve[0]", 1, "unknown tool `v`");
}

/* More of it in test_task_plan.c. */
static void test_rule_8_plans(void **state)
{
    struct cox_buf text = quoted("{`steps`: {`b`: {`uses`: `rm@1`}}, `output`: `${{ steps.b.output }}`}");
    struct cox_task_source source = { .kind = COX_SOURCE_PLAN,
                                      .document = cox_buf_slice(&text),
                                      .allow_json = cox_slice_str("{\"uses\":[\"code_*\"]}") };
    struct compiled c;

    (void)state;
    compile_source(&c, &source);
    expect_violation(&c, "a plan", "steps.b.uses", 1, "a plan may not use `rm@1`, expected one of: code_*");
    compiled_fini(&c);
    source.allow_json = cox_slice_str("{\"uses\":[\"rm@*\"]}");
    compile_source(&c, &source);
    assert_int_equal(c.err, COX_OK);
    compiled_fini(&c);
    cox_buf_fini(&text);
}

/* ---- rule 9 ---- */

static void test_rule_9_workspaces(void **state)
{
    struct compiled c;

    (void)state;
    must_compile(&c, STEPS("`a`: {" RUN "}, `b`: {" RUN ", `affinity`: {`workspace`: `a`}}"), NULL);
    assert_int_equal(extras_of(&c, "b").affinity, COX_AFFINITY_WORKSPACE);
    assert_int_equal(extras_of(&c, "b").affinity_step, 0);
    assert_true(needs(&c, "b", "a"));
    assert_int_equal(step_of(&c, "a").extras, COX_IMAGE_NONE);
    compiled_fini(&c);
    refused(
        STEPS("`a`: {" RUN ", `affinity`: {`workspace`: `b`}}, `b`: {" RUN ", `affinity`: {`step`: `a`}}"),
        NULL, "steps.a", 1, "a -> b -> a");
    refused(STEPS("`a`: {" RUN ", `affinity`: {`workspace`: `a`}}"), NULL, "steps.a.affinity.workspace", 1,
            "must not need itself");
    refused(STEPS("`a`: {" RUN ", `affinity`: {`workspace`: `aa`}}"), NULL, "steps.a.affinity.workspace", 1,
            "unknown step `aa`; did you mean `a`?");
    refused(STEPS("`a`: {`wait`: {`for`: `1s`}}, `b`: {" RUN ", `affinity`: {`workspace`: `a`}}"), NULL,
            "steps.b.affinity.workspace", 1, "runs on no worker");
    refused(STEPS("`a`: {" RUN ", `map`: {`over`: []}}, `b`: {" RUN ", `affinity`: {`step`: `a`}}"), NULL,
            "steps.b.affinity.step", 1, "its items run in many places");
    refused(STEPS("`a`: {" RUN ", `affinity`: {}}"), NULL, "steps.a.affinity", 1, "exactly one of");
    refused(STEPS("`a`: {`wait`: {`for`: `1s`}, `affinity`: {`spread`: true}}"), NULL, "steps.a.affinity", 1,
            "about attempts on workers");
}

/* ---- rule 10 ---- */

static void test_rule_10_outputs_and_artifacts(void **state)
{
    struct world w = { .error_message = "" };
    struct compiled c;

    (void)state;
    must_compile(
        &c,
        HEAD
        "`inputs`: {`n`: {`type`: `integer`, `default`: 4}}, `steps`: {"
        "`a`: {`run`: {`argv`: [`x`], `output`: `json`}, `artifacts`: {`patch`: `out/${{ inputs.n }}.diff`}},"
        "`b`: {`uses`: `x@1`, `with`: {`p`: `${{ steps.a.artifacts.patch }}`}}}}",
        NULL);
    assert_string_equal(spec_of(&c, "a", &w), "{\"argv\":[\"x\"],\"output\":\"json\"}");
    assert_string_equal(evaluate(&c.image, extras_of(&c, "a").artifacts, &w), "{\"patch\":\"out/4.diff\"}");
    assert_string_equal(spec_of(&c, "b", &w), "{\"p\":null}");
    w.steps[0].artifacts_json = cox_slice_str("{\"patch\":{\"$blob\":\"sha256:00\",\"size\":1}}");
    assert_string_equal(spec_of(&c, "b", &w), "{\"p\":{\"$blob\":\"sha256:00\",\"size\":1}}");
    compiled_fini(&c);
    refused(STEPS("`a`: {" RUN ", `artifacts`: {`p`: `/etc/passwd`}}"), NULL, "steps.a.artifacts.p", 1,
            "a path in the working directory");
    refused(STEPS("`a`: {" RUN ", `artifacts`: {`p`: `a/../../b`}}"), NULL, "steps.a.artifacts.p", 1,
            "without `..`");
    refused(STEPS("`a`: {" RUN ", `artifacts`: {`P!`: `x`}}"), NULL, "steps.a.artifacts[\"P!\"]", 1,
            "found the artifact name");
    refused(STEPS("`a`: {" RUN ", `artifacts`: {`p`: `x`}, `map`: {`over`: []}}"), NULL, "steps.a.artifacts",
            1, "keep no artifacts");
}

/* ---- rule 11 ---- */

static void test_rule_11_the_same_document_is_the_same_image(void **state)
{
    static const char document[] = STEPS("`a`: {`race`: [{" RUN "}, {`uses`: `x@1`}], `idempotent`: true},"
                                         "`b`: {`uses`: `x@1`, `map`: {`over`: `${{ steps.a.output }}`}}");
    struct compiled a, b;

    (void)state;
    must_compile(&a, document, NULL);
    must_compile(&b, document, NULL);
    assert_int_equal(cox_slice_cmp(cox_buf_slice(&a.image_bytes), cox_buf_slice(&b.image_bytes)), 0);
    assert_true(step_of(&a, "a").idempotent);
    assert_false(step_of(&a, "b").idempotent);
    compiled_fini(&a);
    compiled_fini(&b);
}

/* ---- rule 12 ---- */

static void test_rule_12_programs_and_templates_have_versions(void **state)
{
    struct world w = { .error_message = "" };
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    must_compile(&c,
                 HEAD "`bundle`: `" HASH "`, `steps`: {`a`: {`uses`: `lint@12`},"
                      "`b`: {`uses`: `./tools/grep.py`, `with`: {`q`: `${{ 1 + 1 }}`}},"
                      "`c`: {`task`: {`ref`: `build@3`}}, `d`: {`task`: {`ref`: `build@3`}},"
                      "`e`: {`race`: [{`task`: {`ref`: `test@1`, `inputs`: {`x`: 1}}}, {" RUN "}]}}}",
                 NULL);
    assert_true(is(handler_of(&c, "a"), "lint@12"));
    assert_true(is(handler_of(&c, "b"), "bundle"));
    assert_string_equal(spec_of(&c, "b", &w), "{\"path\":\"./tools/grep.py\",\"input\":{\"q\":2}}");
    cox_image_task(&c.image, &task);
    assert_true(is(task.bundle, HASH));
    assert_true(is(call_of(&c, "c").ref, "build@3"));
    assert_string_equal(spec_of(&c, "c", &w), "{}");
    assert_string_equal(spec_of(&c, "e.0", &w), "{\"x\":1}");
    assert_int_equal(cox_image_n_refs(&c.image), 2);
    assert_true(is(cox_image_ref(&c.image, 0), "build@3"));
    assert_true(is(cox_image_ref(&c.image, 1), "test@1"));
    compiled_fini(&c);
    refused(STEPS("`a`: {`task`: {`ref`: `build`}}"), NULL, "steps.a.task.ref", 1, "such as \"build@1\"");
    refused(STEPS("`a`: {`task`: {`ref`: `build@0`}}"), NULL, "steps.a.task.ref", 1, "such as \"build@1\"");
    refused(HEAD "`bundle`: `" HASH "`, `steps`: {`a`: {`uses`: `./../x`}}}", NULL, "steps.a.uses", 1,
            "without `..`");
}

/* One compilation of a document of some kind. */
static void compile_kind(struct compiled *c, enum cox_source_kind kind, const char *document,
                         const char *inputs)
{
    struct cox_buf text = quoted(document), given = quoted(inputs);
    const struct cox_task_source source = { .kind = kind,
                                            .document = cox_buf_slice(&text),
                                            .inputs_json = cox_buf_slice(&given) };

    compile_source(c, &source);
    cox_buf_fini(&text);
    cox_buf_fini(&given);
}

static void refused_kind(enum cox_source_kind kind, const char *document, const char *path,
                         const char *message)
{
    struct compiled c;

    compile_kind(&c, kind, document, "");
    expect_violation(&c, document, path, 1, message);
    compiled_fini(&c);
}

static void test_rule_12_templates(void **state)
{
    static const char document[] =
        HEAD "`kind`: `template`, `version`: 3, `inputs`: {`x`: {`type`: `string`}},"
             " `steps`: {`a`: {`uses`: `x@1`, `with`: {`x`: `${{ inputs.x }}`}}}}";
    struct cox_template_head head;
    struct cox_buf text = quoted(document);
    struct world w = { .error_message = "" };
    struct compiled c;

    (void)state;
    compile_kind(&c, COX_SOURCE_TEMPLATE, document, ""); /* only checked */
    assert_int_equal(c.err, COX_OK);
    compiled_fini(&c);
    compile_kind(&c, COX_SOURCE_TEMPLATE, document, "{`x`: `y`}");
    assert_int_equal(c.err, COX_OK);
    assert_string_equal(spec_of(&c, "a", &w), "{\"x\":\"y\"}");
    compiled_fini(&c);
    compile_kind(&c, COX_SOURCE_TEMPLATE, document, "{}");
    expect_violation(&c, document, "inputs.x", 1, "this input has no default");
    compiled_fini(&c);
    cox_template_head(cox_buf_slice(&text), &head);
    assert_true(is(head.name, "t"));
    assert_int_equal(head.major, 3);
    cox_buf_fini(&head.text);
    cox_template_head(cox_slice_str("{\"name\": \"u\"}"), &head);
    assert_true(is(head.name, "u"));
    assert_int_equal(head.major, 1);
    cox_buf_fini(&head.text);
    cox_buf_fini(&text);
    refused(document, "{`x`: `y`}", "kind", 1, "`cox template apply` takes this document");
    refused_kind(COX_SOURCE_TEMPLATE, STEPS("`a`: {" RUN "}"), "kind", "missing; expected \"template\"");
    refused_kind(COX_SOURCE_TEMPLATE, HEAD "`kind`: `template`, `version`: 0, `steps`: {`a`: {" RUN "}}}",
                 "version", "an integer from 1");
    refused(HEAD "`version`: 1, `steps`: {`a`: {" RUN "}}}", NULL, "version", 1,
            "only a template has a version");
}

#define SCHEDULE(text) HEAD "`kind`: `schedule`, `schedule`: {" text "}, `steps`: {`a`: {" RUN "}}}"

static void test_rule_12_schedules(void **state)
{
    static const struct {
        const char *text;
        const char *cron, *zone;
        enum cox_overlap overlap;
        int64_t catch_up_ms;
    } cases[] = {
        { SCHEDULE("`cron`: `0 3 * * *`"), "0 3 * * *", "UTC", COX_OVERLAP_SKIP, 0 },
        { SCHEDULE("`cron`: `@daily`, `time_zone`: `Europe/Berlin`, `overlap`: `queue`, `catch_up`: `2h`"),
          "@daily", "Europe/Berlin", COX_OVERLAP_QUEUE, 2 * 3600 * 1000 },
        { SCHEDULE("`cron`: `*/5 * * jan mon`, `overlap`: `replace`, `catch_up`: true"), "*/5 * * jan mon",
          "UTC", COX_OVERLAP_REPLACE, INT64_MAX },
        { SCHEDULE("`cron`: `0 3 * * *`, `overlap`: `skip`, `catch_up`: false"), "0 3 * * *", "UTC",
          COX_OVERLAP_SKIP, 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_buf text = quoted(cases[i].text);
        struct cox_schedule_head head;
        struct compiled c;

        compile_kind(&c, COX_SOURCE_SCHEDULE, cases[i].text, "");
        assert_int_equal(c.err, COX_OK);
        compiled_fini(&c);
        cox_schedule_head(cox_buf_slice(&text), &head);
        assert_true(is(head.name, "t") && is(head.cron, cases[i].cron) && is(head.time_zone, cases[i].zone));
        assert_int_equal(head.overlap, cases[i].overlap);
        assert_true(head.catch_up_ms == cases[i].catch_up_ms);
        cox_buf_fini(&head.text);
        cox_buf_fini(&text);
    }
}

static void test_rule_12_schedules_that_are_refused(void **state)
{
    static const struct {
        const char *document, *path, *message;
    } cases[] = {
        { SCHEDULE("`cron`: `0 3 * *`"), "schedule.cron", "" },
        { SCHEDULE("`cron`: `61 * * * *`"), "schedule.cron", "minute" },
        { SCHEDULE("`time_zone`: `UTC`"), "schedule.cron", "missing; expected five fields" },
        { SCHEDULE("`cron`: `@daily`, `time_zone`: `../../etc/passwd`"), "schedule.time_zone",
          "the name of a zone" },
        { SCHEDULE("`cron`: `@daily`, `time_zone`: ``"), "schedule.time_zone", "the name of a zone" },
        { SCHEDULE("`cron`: `@daily`, `overlap`: `both`"), "schedule.overlap",
          "\"skip\", \"queue\" or \"replace\"" },
        { SCHEDULE("`cron`: `@daily`, `catch_up`: 5"), "schedule.catch_up", "true, false or a duration" },
        { SCHEDULE("`cron`: `@daily`, `catch_up`: `5`"), "schedule.catch_up", "expected a duration" },
        { HEAD "`kind`: `schedule`, `steps`: {`a`: {" RUN "}}}", "schedule", "missing; expected an object" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        refused_kind(COX_SOURCE_SCHEDULE, cases[i].document, cases[i].path, cases[i].message);
    refused(HEAD "`schedule`: {`cron`: `@daily`}, `steps`: {`a`: {" RUN "}}}", NULL, "schedule", 1,
            "expected `kind: schedule`");
    refused(SCHEDULE("`cron`: `@daily`"), NULL, "kind", 1, "`cox schedule apply` takes this document");
}

/* ---- rule 13 ---- */

static void test_rule_13_limits(void **state)
{
    struct cox_buf text = { 0 };
    struct compiled c;

    (void)state;
    cox_buf_append_str(&text, "{\"api_version\": \"v1\", \"name\": \"t\", \"steps\": {\"a\": {\"race\": [");
    for (unsigned i = 0; i <= COX_RACE_MAX; i++)
        cox_buf_append_str(&text, i == 0 ? "{\"uses\": \"x@1\"}" : ", {\"uses\": \"x@1\"}");
    cox_buf_append_str(&text, "]}}}");
    compile_bytes(&c, cox_buf_slice(&text), NULL);
    expect_violation(&c, "101 alternatives", "steps.a.race", 1, "found 101 alternatives, expected 2 to 100");
    compiled_fini(&c);
    cox_buf_clear(&text);
    /* Inner steps count. */
    cox_buf_append_str(&text, "{\"api_version\": \"v1\", \"name\": \"t\", \"steps\": {");
    for (unsigned i = 0; i < COX_TASK_STEPS_MAX / 2; i++)
        cox_buf_printf(&text, "%s\"s%u\": {\"race\": [{}, {}]}", i ? "," : "", i);
    cox_buf_append_str(&text, "}}");
    compile_bytes(&c, cox_buf_slice(&text), NULL);
    expect_violation(&c, "150000 steps", "steps", 1,
                     "found 150000 steps, those in races, maps and agents included");
    compiled_fini(&c);
    cox_buf_fini(&text);
    refused(STEPS("`a`: {`race`: [{" RUN "}]}"), NULL, "steps.a.race", 1,
            "found 1 alternative, expected 2 to 100");
}

static void test_rule_13_races_in_races(void **state)
{
    struct cox_buf text = { 0 };
    struct compiled c;

    (void)state;
    for (unsigned depth = COX_RACE_DEPTH_MAX; depth <= COX_RACE_DEPTH_MAX + 1; depth++) {
        cox_buf_clear(&text);
        cox_buf_append_str(&text, "{\"api_version\": \"v1\", \"name\": \"t\", \"steps\": {\"a\": {");
        for (unsigned i = 0; i < depth; i++)
            cox_buf_append_str(&text, "\"race\": [{\"uses\": \"x@1\"}, {");
        cox_buf_append_str(&text, "\"uses\": \"y@1\"");
        for (unsigned i = 0; i < depth; i++)
            cox_buf_append_str(&text, "}]");
        cox_buf_append_str(&text, ", \"map\": {\"over\": [1]}}}}");
        compile_bytes(&c, cox_buf_slice(&text), NULL);
        if (depth == COX_RACE_DEPTH_MAX) {
            assert_int_equal(c.err, COX_OK);
            assert_int_equal(step_of(&c, "a").n_inner, 1 + 2 * depth);
            assert_true(is(handler_of(&c, "a[].1.1.1.1"), "y@1"));
        } else {
            expect_violation(&c, "too deep", "steps.a.race[1].race[1].race[1].race[1].race", 1,
                             "races more than 4 deep");
        }
        compiled_fini(&c);
    }
    cox_buf_fini(&text);
}

/* ---- rule 14 ---- */

static void test_rule_14_scheduling_fields(void **state)
{
    struct world w = { .error_message = "" };
    struct compiled c;

    (void)state;
    must_compile(&c,
                 HEAD "`priority`: 5, `inputs`: {`h`: {`type`: `string`, `default`: `db`}}, `steps`: {"
                      "`a`: {" RUN ", `concurrency`: {`key`: `${{ inputs.h }}-x`, `limit`: 4},"
                      " `rate`: {`key`: `api`, `per_minute`: 0.5}, `affinity`: {`spread`: `zone`}},"
                      "`b`: {" RUN ", `affinity`: {`spread`: true}, `priority`: -100},"
                      "`c`: {" RUN ", `affinity`: {`spread`: false}},"
                      "`d`: {" RUN ", `concurrency`: {`key`: `${{ steps.b.output }}`, `limit`: 1}},"
                      "`r`: {`race`: [{" RUN "}, {" RUN "}], `priority`: 7}}}",
                 NULL);
    struct cox_image_extras x = extras_of(&c, "a");

    assert_string_equal(evaluate(&c.image, x.concurrency_key, &w), "\"db-x\"");
    assert_int_equal(x.concurrency_limit, 4);
    assert_string_equal(evaluate(&c.image, x.rate_key, &w), "\"api\"");
    assert_int_equal(x.rate_per_minute_milli, 500);
    assert_int_equal(x.affinity, COX_AFFINITY_SPREAD);
    assert_true(is(x.spread, "zone"));
    assert_int_equal(extras_of(&c, "b").affinity, COX_AFFINITY_SPREAD);
    assert_int_equal(extras_of(&c, "b").concurrency_key, COX_IMAGE_NONE);
    assert_int_equal(extras_of(&c, "c").affinity, COX_AFFINITY_NONE);
    w.steps[1].output_json = cox_slice_str("12");
    assert_string_equal(evaluate(&c.image, extras_of(&c, "d").concurrency_key, &w),
                        "\"12\""); /* always a string */
    assert_true(needs(&c, "d", "b"));
    assert_int_equal(step_of(&c, "a").priority, 5);
    assert_int_equal(step_of(&c, "b").priority, -100);
    assert_int_equal(step_of(&c, "r.1").priority, 7);
    compiled_fini(&c);
    refused(STEPS("`a`: {" RUN ", `concurrency`: {`key`: `k`, `limit`: 0}}"), NULL,
            "steps.a.concurrency.limit", 1, "from 1 to 1000000");
    refused(STEPS("`a`: {" RUN ", `concurrency`: {`key`: 7, `limit`: 1}}"), NULL, "steps.a.concurrency.key",
            1, "expected a string");
    refused(STEPS("`a`: {" RUN ", `concurrency`: {`key`: ``, `limit`: 1}}"), NULL, "steps.a.concurrency.key",
            1, "not empty");
    refused(STEPS("`a`: {" RUN ", `rate`: {`key`: `k`, `per_minute`: 0}}"), NULL, "steps.a.rate.per_minute",
            1, "from 0.001");
    refused(STEPS("`a`: {" RUN ", `rate`: {`key`: `k`}}"), NULL, "steps.a.rate.per_minute", 1, "missing");
    refused(STEPS("`a`: {`wait`: {`for`: `1s`}, `resources`: {`cpu`: 1}}"), NULL, "steps.a.resources", 1,
            "`wait` takes no worker");
    refused(STEPS("`a`: {`wait`: {`for`: `1s`}, `secrets`: {`K`: `r`}}"), NULL, "steps.a.secrets", 1,
            "about attempts on workers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule_1_names),
        cmocka_unit_test(test_rule_1_roots_cannot_be_shadowed),
        cmocka_unit_test(test_rule_1_a_mapped_step_sees_its_item),
        cmocka_unit_test(test_rule_1_inner_steps_have_no_names_in_expressions),
        cmocka_unit_test(test_rule_2_types_and_references),
        cmocka_unit_test(test_rule_3_failure),
        cmocka_unit_test(test_rule_4_fallback),
        cmocka_unit_test(test_rule_5_map),
        cmocka_unit_test(test_rule_5_percentages),
        cmocka_unit_test(test_rule_5_map_over_every_kind),
        cmocka_unit_test(test_rule_6_skipped_steps_are_null),
        cmocka_unit_test(test_rule_7_names_of_tools),
        cmocka_unit_test(test_rule_8_plans),
        cmocka_unit_test(test_rule_9_workspaces),
        cmocka_unit_test(test_rule_10_outputs_and_artifacts),
        cmocka_unit_test(test_rule_11_the_same_document_is_the_same_image),
        cmocka_unit_test(test_rule_12_programs_and_templates_have_versions),
        cmocka_unit_test(test_rule_12_templates),
        cmocka_unit_test(test_rule_12_schedules),
        cmocka_unit_test(test_rule_12_schedules_that_are_refused),
        cmocka_unit_test(test_rule_13_limits),
        cmocka_unit_test(test_rule_13_races_in_races),
        cmocka_unit_test(test_rule_14_scheduling_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
