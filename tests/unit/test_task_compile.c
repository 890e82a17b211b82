/* What documents compile to: the image read back through its accessors. */
#include "task_fixture.h"

#include <stdlib.h>

static void expect_slice(struct cox_slice s, const char *expected)
{
    if (!cox_slice_is(s, expected))
        fail_msg("found %.*s, expected %s", (int)s.len, (const char *)s.data, expected);
}

static void expect_spec(const struct compiled *c, uint32_t call, struct world *w, const char *expected)
{
    struct cox_buf text = quoted(expected);
    struct cox_image_call image_call;

    cox_image_call(&c->image, call, &image_call);
    assert_string_equal(evaluate(&c->image, image_call.spec_template, w), cox_buf_cstr(&text));
    cox_buf_fini(&text);
}

/* needs[] in ascending order, ended by COX_IMAGE_NONE. */
static void expect_needs(const struct cox_image *image, uint32_t step, const uint32_t *needs)
{
    struct cox_image_step s;
    uint32_t n = 0;

    cox_image_step(image, step, &s);
    for (; needs[n] != COX_IMAGE_NONE; n++) {
        bool there = false;

        for (uint32_t i = 0; i < s.n_needs; i++)
            there = there || cox_image_need(image, step, i) == needs[n];
        assert_true(there);
    }
    assert_int_equal(s.n_needs, n);
}

static const char full[] =
    "{`api_version`: `v1`, `kind`: `task`, `name`: `repo-audit`, `description`: `all that is supported`,"
    " `labels`: {`team`: `sec`, `env`: `dev`},"
    " `inputs`: {`repo`: {`type`: `string`, `description`: `where`}, `n`: {`type`: `integer`, `default`: 3},"
    "            `opt`: {`type`: `any`, `required`: false}},"
    " `defaults`: {`timeout`: `90s`, `retry`: {`max_attempts`: 4, `initial_backoff`: `250ms`, `max_backoff`: "
    "`5s`,"
    "              `multiplier`: 1.5, `on`: [`EXIT_NONZERO`, `TIMEOUT`]}},"
    " `budget`: {`timeout`: `2h`}, `fail_fast`: true, `priority`: -7,"
    " `steps`: {"
    "  `clone`: {`run`: {`argv`: [`git`, `clone`, `${{ inputs.repo }}`]}},"
    "  `scan`: {`run`: {`argv`: [`scan`, `${{ steps.clone.output.dir }}`, `-n${{ inputs.n }}`],"
    "                   `env`: {`A`: `${{ steps.clone.output }}`, `B`: `b`}, `stdin`: `${{ null }}`,"
    "                   `output`: `json`, `sandbox`: `none`},"
    "           `needs`: [`clone`, `clone`], `if`: `${{ success() }}`, `timeout`: `0`, `retry`: {}, "
    "`priority`: 100,"
    "           `allow_failure`: true, `resources`: {`cpu`: 0.5, `memory`: `1Gi`, `disk`: 1000},"
    "           `requires`: `spot != true, arch == amd64, spot != true`, `idempotent`: true, `description`: "
    "`x`},"
    "  `report`: {`uses`: `make_report@12`, `with`: {`a`: [`${{ steps.scan.output }}`, 1], `b`: {}},"
    "             `requires`: `arch==amd64,spot!=true`,"
    "             `fallback`: {`uses`: `open-ticket@1`, `with`: {`e`: `${{ error }}`, `c`: `${{ error.code "
    "}}`},"
    "                          `timeout`: `5s`}},"
    "  `bare`: {`uses`: `make_report@12`, `requires`: `  `}},"
    " `outputs`: {`severity`: `${{ steps.report.output.severity }}`, `from`: `${{ inputs.repo }}`}}";

static void test_the_task(void **state)
{
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    must_compile(&c, full, "{`repo`: `https://x/y`}");
    cox_image_task(&c.image, &task);
    expect_slice(task.name, "repo-audit");
    expect_slice(task.inputs_json, "{\"repo\":\"https://x/y\",\"n\":3,\"opt\":null}");
    assert_int_equal(task.deadline_ms, 2 * 3600 * 1000);
    assert_int_equal(task.priority, -7);
    assert_true(task.fail_fast);
    assert_true(task.outputs_template != COX_IMAGE_NONE);
    assert_int_equal(c.image.n_steps, 4);
    compiled_fini(&c);
}

static void test_the_steps(void **state)
{
    static const uint32_t none[] = { COX_IMAGE_NONE }, clone[] = { 0, COX_IMAGE_NONE },
                          scan[] = { 1, COX_IMAGE_NONE };
    struct cox_image_step step;
    struct compiled c;

    (void)state;
    must_compile(&c, full, "{`repo`: `r`}");
    cox_image_step(&c.image, 1, &step);
    expect_slice(step.name, "scan");
    assert_int_equal(step.kind, COX_KIND_RUN);
    assert_string_equal(cox_step_kind_text(step.kind), "run");
    assert_true(step.allow_failure);
    assert_int_equal(step.priority, 100);
    assert_true(step.condition != COX_IMAGE_NONE);
    assert_int_equal(step.fallback, COX_IMAGE_NONE);
    assert_int_equal(step.n_dependants, 1);
    assert_int_equal(cox_image_dependant(&c.image, 1, 0), 2);
    cox_image_step(&c.image, 2, &step);
    assert_int_equal(step.kind, COX_KIND_USES);
    assert_false(step.allow_failure);
    assert_int_equal(step.priority, -7); /* the task's */
    assert_int_equal(step.condition, COX_IMAGE_NONE);
    assert_true(step.fallback != COX_IMAGE_NONE);
    expect_needs(&c.image, 0, none);
    expect_needs(&c.image, 1, clone); /* said twice and referred to: one edge */
    expect_needs(&c.image, 2, scan);  /* a reference implies it */
    expect_needs(&c.image, 3, none);
    assert_int_equal(cox_image_find_step(&c.image, cox_slice_str("report")), 2);
    assert_int_equal(cox_image_find_step(&c.image, cox_slice_str("reports")), COX_IMAGE_NONE);
    compiled_fini(&c);
}

static void test_calls_and_retries(void **state)
{
    const uint32_t on = 1u << COX_CODE_EXIT_NONZERO | 1u << COX_CODE_TIMEOUT;
    struct cox_image_step step;
    struct cox_image_call call;
    struct compiled c;

    (void)state;
    must_compile(&c, full, "{`repo`: `r`}");
    cox_image_step(&c.image, 0, &step);
    cox_image_call(&c.image, step.call, &call); /* from `defaults` */
    assert_int_equal(call.timeout_ms, 90 * 1000);
    assert_int_equal(call.max_attempts, 4);
    assert_int_equal(call.initial_backoff_ms, 250);
    assert_int_equal(call.max_backoff_ms, 5000);
    assert_int_equal(call.multiplier_milli, 1500);
    assert_int_equal(call.retry_on, on);
    cox_image_step(&c.image, 1, &step);
    cox_image_call(&c.image, step.call, &call); /* its own: what `retry: {}` means */
    assert_int_equal(call.timeout_ms, 0);
    assert_int_equal(call.max_attempts, 3);
    assert_int_equal(call.initial_backoff_ms, 1000);
    assert_int_equal(call.max_backoff_ms, 60 * 1000);
    assert_int_equal(call.multiplier_milli, 2000);
    assert_int_equal(call.retry_on, on | 1u << COX_CODE_UNAVAILABLE);
    cox_image_step(&c.image, 2, &step);
    cox_image_call(&c.image, step.fallback, &call);
    assert_int_equal(call.timeout_ms, 5000);
    assert_int_equal(call.max_attempts, 4);
    compiled_fini(&c);

    must_compile(&c, "{`api_version`: `v1`, `name`: `t`, `steps`: {`a`: {`uses`: `x@1`}}}", NULL);
    cox_image_call(&c.image, 0, &call);
    assert_int_equal(call.timeout_ms, COX_TIMEOUT_DEFAULT_MS);
    assert_int_equal(call.max_attempts, 1);
    assert_int_equal(call.retry_on, 0);
    compiled_fini(&c);
}

static void test_specs(void **state)
{
    struct world w = { .error_code = COX_CODE_TIMEOUT, .error_message = "too \"long\"" };
    struct cox_image_step step;
    struct compiled c;

    (void)state;
    must_compile(&c, full, "{`repo`: `r`}");
    w.steps[0].output_json = cox_slice_str("{\"dir\": [1,  2], \"s\": \"\\\"\"}");
    w.steps[1].output_json = cox_slice_str("{\"found\": 2}");
    cox_image_step(&c.image, 0, &step);
    expect_spec(&c, step.call, &w, "{`argv`:[`git`,`clone`,`r`]}");
    cox_image_step(&c.image, 1, &step);
    expect_spec(
        &c, step.call, &w,
        "{`argv`:[`scan`,`[1,2]`,`-n3`],`env`:{`A`:`{\\`dir\\`:[1,2],\\`s\\`:\\`\\\\\\`\\`}`,`B`:`b`},"
        "`stdin`:``,`output`:`json`,`sandbox`:`none`}");
    cox_image_step(&c.image, 2, &step);
    expect_spec(&c, step.call, &w, "{`a`:[{`found`:2},1],`b`:{}}");
    expect_spec(&c, step.fallback, &w, "{`e`:{`code`:`TIMEOUT`,`message`:`too \\`long\\``},`c`:`TIMEOUT`}");
    cox_image_step(&c.image, 3, &step);
    expect_spec(&c, step.call, &w, "{}");
    compiled_fini(&c);
}

static void test_what_templates_read(void **state)
{
    struct cox_image_template t;
    struct cox_image_step step;
    struct cox_image_call call;
    struct compiled c;

    (void)state;
    must_compile(&c, full, "{`repo`: `r`}");
    cox_image_step(&c.image, 1, &step);
    cox_image_call(&c.image, step.call, &call);
    cox_image_template(&c.image, call.spec_template, &t);
    assert_false(t.is_const);
    assert_true(t.reads_inputs);
    assert_false(t.reads_error);
    assert_int_equal(t.n_steps, 1); /* named twice */
    assert_int_equal(cox_image_template_step(&c.image, call.spec_template, 0), 0);
    cox_image_step(&c.image, 2, &step);
    cox_image_call(&c.image, step.fallback, &call);
    cox_image_template(&c.image, call.spec_template, &t);
    assert_true(t.reads_error);
    assert_int_equal(t.n_steps, 0);
    cox_image_step(&c.image, 3, &step);
    cox_image_call(&c.image, step.call, &call);
    cox_image_template(&c.image, call.spec_template, &t);
    assert_true(t.is_const);
    expect_slice(t.json, "{}");
    compiled_fini(&c);
}

static void test_classes(void **state)
{
    struct cox_image_step scan, report, bare;
    struct cox_image_call scan_call, report_call, bare_call;
    struct cox_image_class scan_class, report_class, bare_class;
    struct cox_slice label, value;
    struct compiled c;
    bool negated;

    (void)state;
    must_compile(&c, full, "{`repo`: `r`}");
    cox_image_step(&c.image, 1, &scan);
    cox_image_step(&c.image, 2, &report);
    cox_image_step(&c.image, 3, &bare);
    cox_image_call(&c.image, scan.call, &scan_call);
    cox_image_call(&c.image, report.call, &report_call);
    cox_image_call(&c.image, bare.call, &bare_call);
    cox_image_class(&c.image, scan_call.class_index, &scan_class);
    cox_image_class(&c.image, report_call.class_index, &report_class);
    cox_image_class(&c.image, bare_call.class_index, &bare_class);
    expect_slice(scan_class.handler, "run");
    expect_slice(report_class.handler, "make_report@12");
    assert_int_equal(scan_class.resources.cpu_milli, 500);
    assert_int_equal(scan_class.resources.memory_bytes, 1 << 30);
    assert_int_equal(scan_class.resources.disk_bytes, 1000);
    assert_int_equal(report_class.resources.cpu_milli, 0);
    assert_int_equal(bare_class.n_requires, 0);
    assert_int_equal(scan_class.n_requires, 2); /* sorted, each once */
    cox_image_require(&c.image, scan_call.class_index, 0, &label, &value, &negated);
    expect_slice(label, "arch");
    expect_slice(value, "amd64");
    assert_false(negated);
    cox_image_require(&c.image, scan_call.class_index, 1, &label, &value, &negated);
    expect_slice(label, "spot");
    expect_slice(value, "true");
    assert_true(negated);
    assert_false(cox_slice_eq(report_class.key, bare_class.key));
    compiled_fini(&c);
}

/* The order in which requirements are written does not split a class, in one image or in two. */
static void test_equal_classes_have_equal_keys(void **state)
{
    static const char a[] = "{`api_version`: `v1`, `name`: `t`, `steps`: {"
                            "`x`: {`uses`: `p@1`, `requires`: `a == 1, b != 2`, `resources`: {`cpu`: 2}},"
                            "`y`: {`uses`: `p@1`, `requires`: `b!=2,a==1`, `resources`: {`cpu`: `2000m`}}}}";
    static const char b[] =
        "{`api_version`: `v1`, `name`: `u`, `labels`: {`l`: `m`}, `steps`: {`q`: {`uses`: `z@1`},"
        "`x`: {`uses`: `p@1`, `requires`: `b != 2, a == 1, a == 1`, `resources`: {`cpu`: 2.0}}}}";
    struct cox_image_class in_a, in_b;
    struct compiled ca, cb;

    (void)state;
    must_compile(&ca, a, NULL);
    must_compile(&cb, b, NULL);
    assert_int_equal(ca.image.n_classes, 1);
    assert_int_equal(cb.image.n_classes, 2);
    cox_image_class(&ca.image, 0, &in_a);
    cox_image_class(&cb.image, 1, &in_b);
    assert_true(cox_slice_eq(in_a.key, in_b.key));
    compiled_fini(&ca);
    compiled_fini(&cb);
}

static void test_labels_of_the_request_win(void **state)
{
    const struct cox_label given[] = { { cox_slice_str("env"), cox_slice_str("prod") },
                                       { cox_slice_str("run"), cox_slice_str("7") } };
    static const char *const expected[] = { "team=sec", "env=prod", "run=7" };
    struct cox_buf document = quoted(full);
    const struct cox_task_source source = { .document = cox_buf_slice(&document),
                                            .inputs_json = cox_slice_str("{\"repo\": \"r\"}"),
                                            .labels = given,
                                            .n_labels = 2 };
    struct compiled c;

    (void)state;
    compile_source(&c, &source);
    assert_int_equal(c.err, COX_OK);
    assert_int_equal(c.image.n_labels, 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct cox_slice name, value;
        char text[64];

        cox_image_label(&c.image, i, &name, &value);
        snprintf(text, sizeof(text), "%.*s=%.*s", (int)name.len, (const char *)name.data, (int)value.len,
                 (const char *)value.data);
        assert_string_equal(text, expected[i]);
    }
    compiled_fini(&c);
    cox_buf_fini(&document);
}

static void test_the_same_source_gives_the_same_bytes(void **state)
{
    struct compiled a, b;

    (void)state;
    must_compile(&a, full, "{`repo`: `r`}");
    must_compile(&b, full, "{`repo`: `r`}");
    assert_true(cox_slice_eq(cox_buf_slice(&a.image_bytes), cox_buf_slice(&b.image_bytes)));
    compiled_fini(&a);
    compiled_fini(&b);
}

/* A hundred thousand like steps: one template, one class, and a few dozen bytes each. */
static void test_a_large_task(void **state)
{
    struct cox_buf document = quoted("{`api_version`: `v1`, `name`: `t`, `steps`: {");
    struct cox_image_step step;
    struct compiled c;

    (void)state;
    for (unsigned i = 0; i < COX_TASK_STEPS_MAX; i++)
        cox_buf_printf(&document, "%s\"s%u\":{\"uses\":\"x@1\"}", i ? "," : "", i);
    cox_buf_append_str(&document, "}}");
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    assert_int_equal(c.err, COX_OK);
    assert_int_equal(c.image.n_steps, COX_TASK_STEPS_MAX);
    assert_int_equal(c.image.n_templates, 1);
    assert_int_equal(c.image.n_classes, 1);
    assert_true(c.image_bytes.len < 60 * COX_TASK_STEPS_MAX);
    cox_image_step(&c.image, 99999, &step);
    expect_slice(step.name, "s99999");
    assert_int_equal(cox_image_find_step(&c.image, cox_slice_str("s54321")), 54321);
    compiled_fini(&c);
    cox_buf_fini(&document);
}

/* Both directions of the edges agree in a wide graph: 1 -> 300 -> 1. */
static void test_edges_in_both_directions(void **state)
{
    struct cox_buf document = quoted("{`api_version`: `v1`, `name`: `t`, `steps`: {`top`: {`uses`: `x@1`}");
    struct cox_image_step step;
    struct compiled c;

    (void)state;
    for (int i = 0; i < 300; i++)
        cox_buf_printf(&document, ",\"m%d\":{\"uses\":\"x@1\",\"needs\":[\"top\"]}", i);
    cox_buf_append_str(&document, ",\"end\":{\"uses\":\"x@1\",\"needs\":[");
    for (int i = 0; i < 300; i++)
        cox_buf_printf(&document, "%s\"m%d\"", i ? "," : "", i);
    cox_buf_append_str(&document, "]}}}");
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    assert_int_equal(c.err, COX_OK);
    cox_image_step(&c.image, 0, &step);
    assert_int_equal(step.n_needs, 0);
    assert_int_equal(step.n_dependants, 300);
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal(cox_image_dependant(&c.image, 0, i), i + 1);
    cox_image_step(&c.image, 301, &step);
    assert_int_equal(step.n_needs, 300);
    assert_int_equal(step.n_dependants, 0);
    compiled_fini(&c);
    cox_buf_fini(&document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_task),
        cmocka_unit_test(test_the_steps),
        cmocka_unit_test(test_calls_and_retries),
        cmocka_unit_test(test_specs),
        cmocka_unit_test(test_what_templates_read),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_equal_classes_have_equal_keys),
        cmocka_unit_test(test_labels_of_the_request_win),
        cmocka_unit_test(test_the_same_source_gives_the_same_bytes),
        cmocka_unit_test(test_a_large_task),
        cmocka_unit_test(test_edges_in_both_directions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
