/* `plan` in documents, and the plans that models answer with (COX_SOURCE_PLAN). */
#include "task_fixture.h"

#include "cox/json.h"

#define HEAD "{`api_version`: `v1`, `name`: `t`, `inputs`: {`q`: {`type`: `any`, `default`: {`a`: 1}}}, "
#define STEP(body) HEAD "`steps`: {`a`: {" body "}}}"
#define PLAN(body) STEP("`plan`: {" body "}")

static struct cox_image_call call_of(const struct cox_image *img, uint32_t step)
{
    struct cox_image_step s;
    struct cox_image_call call;

    cox_image_step(img, step, &s);
    cox_image_call(img, s.call, &call);
    return call;
}

static void config_is(const char *document, const char *expected)
{
    struct cox_buf found = { 0 }, want = quoted(expected);
    struct cox_image_call call;
    struct compiled c;

    must_compile(&c, document, NULL);
    call = call_of(&c.image, 0);
    assert_int_equal(call.kind, COX_KIND_PLAN);
    assert_int_equal(call.inner_n, COX_TURN_TOOLS);
    cox_buf_append_slice(&found, call.ref);
    assert_string_equal(cox_buf_cstr(&found), cox_buf_cstr(&want));
    cox_buf_fini(&found);
    cox_buf_fini(&want);
    compiled_fini(&c);
}

#define CONFIG(reasks, plan)                                                                                 \
    "{`max_turns`:50,`max_parallel`:1,`reasks`:" reasks ",`plan`:" plan ",`tools`:[]}"

static void test_what_a_plan_may_have(void **state)
{
    (void)state;
    config_is(
        PLAN("`input`: `x`"),
        CONFIG("2", "{`uses`:[],`kinds`:[`uses`,`jq`,`race`,`wait`,`model`],`max_steps`:100,`max_depth`:1}"));
    config_is(
        PLAN("`input`: `x`, `allow`: {`uses`: [`code_*`], `max_steps`: 200, `max_depth`: 2}, `on_invalid`: "
             "{`reask`: 5}"),
        CONFIG("5", "{`uses`:[`code_*`],`kinds`:[`uses`,`jq`,`race`,`wait`,`model`,`plan`],`max_steps`:200,"
                    "`max_depth`:2}"));
    config_is(PLAN("`input`: `x`, `allow`: {`kinds`: [`run`, `http`]}"),
              CONFIG("2", "{`uses`:[],`kinds`:[`run`,`http`],`max_steps`:100,`max_depth`:1}"));
}

/* The model is told what it may ask for, then what the document says. */
static void test_the_first_call(void **state)
{
    struct cox_slice request, messages, text, format, schema;
    struct cox_buf system = { 0 };
    struct world w = { .error_message = "no" };
    struct compiled c;

    (void)state;
    must_compile(
        &c,
        PLAN("`model`: `big`, `instructions`: `Be ${{ inputs.q.a }}.`, `input`: `Fix`, `max_tokens`: 9, "
             "`allow`: {`uses`: [`code_*`, `lint@1`], `kinds`: [`uses`, `run`], `max_steps`: 7}"),
        NULL);
    struct cox_slice spec = cox_slice_str(evaluate(&c.image, call_of(&c.image, 0).spec_template, &w));

    assert_true(cox_json_member(spec, "request", &request));
    assert_true(cox_json_member(request, "model", &text) && cox_slice_is(text, "\"big\""));
    assert_true(cox_json_member(request, "max_tokens", &text) && cox_slice_is(text, "9"));
    assert_true(cox_json_member(request, "response_format", &format));
    assert_true(cox_json_member(format, "json_schema", &schema));
    assert_true(cox_json_member(request, "messages", &messages));
    assert_int_equal(cox_json_count(messages), 2);
    struct cox_json_walk walk = cox_json_walk(messages);

    assert_true(cox_json_next(&walk) && cox_json_member(walk.value, "content", &text));
    cox_json_unquote(&system, text);
    const char *said = cox_buf_cstr(&system);

    assert_non_null(strstr(said, "code_*, lint@1\n"));
    assert_non_null(strstr(said, "{\"run\": {\"argv\""));
    assert_null(strstr(said, "{\"http\""));
    assert_non_null(strstr(said, "At most 7 steps"));
    assert_non_null(strstr(said, "${{ steps.NAME.output }}"));
    assert_string_equal(said + system.len - 5, "Be 1.");
    cox_buf_fini(&system);
    compiled_fini(&c);
    /* Messages of the document's own come behind it. */
    must_compile(&c, PLAN("`messages`: [{`role`: `user`, `content`: `x`}, {`role`: `user`, `content`: `y`}]"),
                 NULL);
    spec = cox_slice_str(evaluate(&c.image, call_of(&c.image, 0).spec_template, &w));
    assert_true(cox_json_member(spec, "request", &request) &&
                cox_json_member(request, "messages", &messages));
    assert_int_equal(cox_json_count(messages), 3);
    compiled_fini(&c);
}

static void test_what_is_refused_of_documents(void **state)
{
    static const struct {
        const char *document, *path, *message;
    } cases[] = {
        { PLAN(""), "steps.a.plan", "expected exactly one of `input` and `messages`" },
        { PLAN("`messages`: `${{ inputs.q }}`"), "steps.a.plan.messages", "expected a list of messages" },
        { PLAN("`input`: `x`, `tools`: []"), "steps.a.plan.tools", "unknown field" },
        { PLAN("`input`: `x`, `output_schema`: {}"), "steps.a.plan.output_schema", "the answer is a plan" },
        { PLAN("`input`: `x`, `response_format`: {}"), "steps.a.plan.response_format",
          "the answer is a plan" },
        { PLAN("`input`: `x`, `allow`: {`uses`: [1]}"), "steps.a.plan.allow.uses[0]", "in which *" },
        { PLAN("`input`: `x`, `allow`: {`kinds`: [`ran`]}"), "steps.a.plan.allow.kinds[0]",
          "a kind of steps" },
        { PLAN("`input`: `x`, `allow`: {`kinds`: [`plan`]}"), "steps.a.plan.allow.max_depth", "at least 2" },
        { PLAN("`input`: `x`, `allow`: {`max_steps`: 0}"), "steps.a.plan.allow.max_steps",
          "from 1 to 100000" },
        { PLAN("`input`: `x`, `allow`: {`max_depth`: 17}"), "steps.a.plan.allow.max_depth", "from 1 to 16" },
        { PLAN("`input`: `x`, `on_invalid`: {`reask`: 11}"), "steps.a.plan.on_invalid.reask",
          "from 0 to 10" },
        { PLAN("`input`: `x`, `on_invalid`: {`retry`: 1}"), "steps.a.plan.on_invalid.retry",
          "unknown field" },
        { STEP("`plan`: {`input`: `x`}, `resources`: {`cpu`: 1}"), "steps.a.resources", "takes no worker" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(cases[i].document, NULL, cases[i].path, 1, cases[i].message);
}

/* ---- answers ---- */

static void answer(struct compiled *c, const char *text, const char *allow)
{
    struct cox_buf document = quoted(text), list = quoted(allow);
    const struct cox_task_source source = {
        .kind = COX_SOURCE_PLAN,
        .document = cox_buf_slice(&document),
        .inputs_json = cox_slice_str("{\"repo\":\"r\"}"),
        .allow_json = cox_buf_slice(&list),

    };

    compile_source(c, &source);
    cox_buf_fini(&document);
    cox_buf_fini(&list);
}

static void answer_refused(const char *text, const char *allow, const char *path, const char *message)
{
    struct compiled c;

    answer(&c, text, allow);
    if (c.err != COX_OK && c.violations.n == 1)
        c.violations.items[0].line = 0; /* a plan is one line: what matters is where in it */
    expect_violation(&c, text, path, 0, message);
    compiled_fini(&c);
}

static void test_an_answer_becomes_a_graph(void **state)
{
    struct world w = { .error_message = "no" };
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    answer(&c,
           "{`steps`: {`a`: {`uses`: `code_fix@1`, `with`: {`repo`: `${{ inputs.repo }}`}}, `b`: {`jq`: "
           "{`program`: "
           "`.`, `input`: `${{ steps.a.output }}`}, `map`: {`over`: [1]}}}, `output`: {`patch`: `${{ "
           "steps.b.output }}`}}",
           "{`uses`: [`code_*`], `max_steps`: 2}");
    print_violations(&c.violations);
    assert_int_equal(c.err, COX_OK);
    cox_image_task(&c.image, &task);
    assert_false(task.outputs_always);
    assert_int_equal(task.n_members, 2);
    w.steps[1] = (struct cox_eval_step){ .status = COX_STEP_SUCCEEDED, .output_json = cox_slice_str("[5]") };
    assert_string_equal(evaluate(&c.image, task.outputs_template, &w), "{\"patch\":[5]}");
    assert_string_equal(evaluate(&c.image, call_of(&c.image, 0).spec_template, &w), "{\"repo\":\"r\"}");
    compiled_fini(&c);
    answer(&c, "{`steps`: {`a`: {`model`: {`input`: `x`}}}}", "");
    assert_int_equal(c.err, COX_OK);
    cox_image_task(&c.image, &task);
    assert_string_equal(evaluate(&c.image, task.outputs_template, &w), "null");
    compiled_fini(&c);
}

#define CODE "{`uses`: [`code_*`, `./tools/*`], `max_steps`: 3}"
#define RUN "`run`: {`argv`: [`rm`]}"

/* What is said of an answer is what the model is told when it is asked again. */
static void test_answers_that_are_refused(void **state)
{
    static const struct {
        const char *text, *allow, *path, *message;
    } cases[] = {
        { "[]", "", "", "an object with `steps` and `output`" },
        { "{`output`: 1}", "", "steps", "missing; expected an object of steps by name" },
        { "{`steps`: {}}", "", "steps", "found 0 steps" },
        { "{`steps`: {`a`: {`jq`: {`program`: `.`}}}, `outputs`: 1}", "", "outputs",
          "did you mean `output`?" },
        { "{`steps`: {`a`: {`uses`: `rm_all@1`}}}", CODE, "steps.a.uses",
          "a plan may not use `rm_all@1`, expected one of: code_*, ./tools/*" },
        { "{`steps`: {`a`: {`uses`: `code_x@1`}}}", "", "steps.a.uses", "expected one of: none" },
        { "{`steps`: {`a`: {" RUN "}}}", CODE, "steps.a.run",
          "a plan may not have `run`, expected one of `uses`, `jq`, `race`, `wait`, `model`" },
        { "{`steps`: {`a`: {`race`: [{`uses`: `code_x@1`}, {" RUN "}]}}}", CODE, "steps.a.race[1].run",
          "`run`" },
        { "{`steps`: {`a`: {`uses`: `code_x@1`, `fallback`: {`http`: {`url`: `http://x/`}}}}}", CODE,
          "steps.a.fallback.http", "may not have `http`" },
        { "{`steps`: {`a`: {`map`: {`over`: [1]}, `task`: {`ref`: `t@1`}}}}", CODE, "steps.a.task",
          "`task`" },
        { "{`steps`: {`a`: {`agent`: {`input`: `x`, `tools`: [{`name`: `sh`, " RUN "}]}}}}",
          "{`kinds`: [`agent`, `model`]}", "steps.a.agent.tools[0].run", "may not have `run`" },
        { "{`steps`: {`a`: {`agent`: {`input`: `x`, `tools`: [{`uses`: `rm@1`}]}}}}",
          "{`kinds`: [`agent`, `uses`], `uses`: [`code_*`]}", "steps.a.agent.tools[0].uses",
          "may not use `rm@1`" },
        { "{`steps`: {`a`: {`wait`: {`for`: `1s`}}, `b`: {`wait`: {`for`: `1s`}}, `c`: {`wait`: {`for`: "
          "`1s`}}, `d`: "
          "{`wait`: {`for`: `1s`}}}}",
          CODE, "steps", "found 4 steps, those in races, maps and agents included, expected at most 3" },
        { "{`steps`: {`a`: {`uses`: `code_x@1`, `secrets`: {`A`: `b`}}}}", CODE, "steps.a.secrets",
          "have no secrets" },
        { "{`steps`: {`a`: {`uses`: `code_x@1`, `with`: {`x`: `${{ secrets.A }}`}}}}", CODE, "steps.a.with.x",
          "secrets.KEY" },
        { "{`steps`: {`a`: {`needs`: [`b`], `uses`: `code_x@1`}, `b`: {`needs`: [`a`], `uses`: `code_x@1`}}}",
          CODE, "steps.a", "a -> b -> a" },
        { "{`steps`: {`a`: {`plan`: {`input`: `x`}}}}", CODE, "steps.a.plan", "may not have `plan`" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        answer_refused(cases[i].text, cases[i].allow, cases[i].path, cases[i].message);
}

#define DEEP "{`uses`: [`code_*`, `lint@1`], `max_steps`: 9, `max_depth`: 3}"
#define INNER(allow) "{`steps`: {`a`: {`plan`: {`input`: `x`, `allow`: {" allow "}}}}}"

/* A plan in a plan may do no more than the plan that it is in. */
static void test_plans_in_plans(void **state)
{
    static const struct {
        const char *text, *path, *message;
    } cases[] = {
        { INNER("`uses`: [`*`]"), "steps.a.plan.allow.uses[0]", "expected code_*, lint@1" },
        { INNER("`uses`: [`co*`]"), "steps.a.plan.allow.uses[0]", "expected code_*, lint@1" },
        { INNER("`uses`: [`rm@1`]"), "steps.a.plan.allow.uses[0]", "expected code_*, lint@1" },
        { INNER("`kinds`: [`run`]"), "steps.a.plan.allow.kinds[0]", "the plan which this is in" },
        { INNER("`max_steps`: 10"), "steps.a.plan.allow.max_steps", "from 1 to 9" },
        { INNER("`max_depth`: 3"), "steps.a.plan.allow.max_depth", "from 1 to 2" },
    };
    static const struct {
        const char *text, *allow, *expected;
    } inner[] = {
        { INNER(""), DEEP,
          "`plan`:{`uses`:[`code_*`,`lint@1`],`kinds`:[`uses`,`jq`,`race`,`wait`,`model`,`plan`],`max_steps`:"
          "9,"
          "`max_depth`:2}" },
        { INNER("`uses`: [`code_*`, `code_fix@1`, `lint@1`], `kinds`: [`uses`], `max_steps`: 4, `max_depth`: "
                "1"),
          DEEP,
          "`plan`:{`uses`:[`code_*`,`code_fix@1`,`lint@1`],`kinds`:[`uses`],`max_steps`:4,`max_depth`:1}" },
        { INNER(""), "{`max_depth`: 2}",
          "`plan`:{`uses`:[],`kinds`:[`uses`,`jq`,`race`,`wait`,`model`],`max_steps`:100,`max_depth`:1}" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        answer_refused(cases[i].text, DEEP, cases[i].path, cases[i].message);
    for (size_t i = 0; i < sizeof(inner) / sizeof(inner[0]); i++) {
        struct cox_buf want = quoted(inner[i].expected), found = { 0 };
        struct compiled c;

        answer(&c, inner[i].text, inner[i].allow);
        print_violations(&c.violations);
        assert_int_equal(c.err, COX_OK);
        cox_buf_append_slice(&found, call_of(&c.image, 0).ref);
        if (!strstr(cox_buf_cstr(&found), cox_buf_cstr(&want)))
            print_error("expected %s\nin %s\n", cox_buf_cstr(&want), cox_buf_cstr(&found));
        assert_non_null(strstr(cox_buf_cstr(&found), cox_buf_cstr(&want)));
        cox_buf_fini(&want);
        cox_buf_fini(&found);
        compiled_fini(&c);
    }
}

/* 100,001 steps, in less than what a document may be. */
static void test_a_plan_of_very_many_steps(void **state)
{
    struct cox_buf text = { 0 };
    struct compiled c;

    (void)state;
    cox_buf_append_str(&text, "{`steps`: {");
    for (unsigned i = 0; i < 100001; i++)
        cox_buf_printf(&text, "%s`s%u`: {`wait`: {`for`: `1s`}}", i > 0 ? "," : "", i);
    cox_buf_append_str(&text, "}}");
    answer(&c, cox_buf_cstr(&text), "");
    assert_int_equal(c.err, COX_ERR_INVALID);
    assert_int_equal(c.violations.n, 1);
    assert_non_null(strstr(c.violations.items[0].message, "found 100001 steps"));
    compiled_fini(&c);
    cox_buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_plan_may_have),         cmocka_unit_test(test_the_first_call),
        cmocka_unit_test(test_what_is_refused_of_documents), cmocka_unit_test(test_an_answer_becomes_a_graph),
        cmocka_unit_test(test_answers_that_are_refused),     cmocka_unit_test(test_plans_in_plans),
        cmocka_unit_test(test_a_plan_of_very_many_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
