/* `agent` in documents: the first call of its model, its config, the bodies that the engine opens, and what
 * is refused. */
#include "task_fixture.h"

#include "cox/json.h"

#define HEAD                                                                                                 \
    "{`api_version`: `v1`, `name`: `t`, `bundle`: "                                                          \
    "`sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef`, "                            \
    "`inputs`: {`q`: {`type`: `any`, `default`: {`a`: 1}}}, "
#define STEP(body) HEAD "`steps`: {`a`: {" body "}}}"
#define AGENT(body) STEP("`agent`: {" body "}")
#define TOOLS(tools) AGENT("`input`: `x`, `tools`: [" tools "]")

static struct cox_image_call call_of(const struct cox_image *img, uint32_t step)
{
    struct cox_image_step s;
    struct cox_image_call call;

    cox_image_step(img, step, &s);
    cox_image_call(img, s.call, &call);
    return call;
}

static uint32_t step_named(const struct cox_image *img, const char *name)
{
    uint32_t step = cox_image_find_step(img, cox_slice_str(name));

    if (step == COX_IMAGE_NONE)
        print_error("no step %s\n", name);
    assert_true(step != COX_IMAGE_NONE);
    return step;
}

/* "a:agent a.model:model* ..." in the image's order; a star is a body, and what it follows comes behind @. */
static const char *steps_of(const struct cox_image *img)
{
    static struct cox_buf out;

    cox_buf_clear(&out);
    for (uint32_t i = 0; i < img->n_steps; i++) {
        struct cox_image_extras extras = { .affinity_step = COX_IMAGE_NONE };
        struct cox_image_step step, followed;

        cox_image_step(img, i, &step);
        cox_buf_printf(&out, "%s%.*s:%s%s", i > 0 ? " " : "", (int)step.name.len,
                       (const char *)step.name.data, cox_step_kind_text(step.kind), step.is_body ? "*" : "");
        if (step.extras == COX_IMAGE_NONE)
            continue;
        cox_image_extras(img, step.extras, &extras);
        assert_int_equal(extras.affinity, COX_AFFINITY_WORKSPACE);
        cox_image_step(img, extras.affinity_step, &followed);
        cox_buf_printf(&out, "@%.*s", (int)followed.name.len, (const char *)followed.name.data);
    }
    return cox_buf_cstr(&out);
}

static void steps_are(const char *document, const char *expected)
{
    struct compiled c;

    must_compile(&c, document, NULL);
    assert_string_equal(steps_of(&c.image), expected);
    compiled_fini(&c);
}

/* What the first call of step 0's model is, and its config. */
static void agent_is(const char *document, const char *spec, const char *config)
{
    struct world w = { .error_message = "no" };
    struct cox_buf found = { 0 };
    struct cox_image_call call;
    struct compiled c;

    must_compile(&c, document, NULL);
    call = call_of(&c.image, 0);
    assert_true(call.kind == COX_KIND_AGENT || call.kind == COX_KIND_PLAN);
    assert_int_equal(call.class_index, COX_IMAGE_NONE);
    assert_string_equal(evaluate(&c.image, call.spec_template, &w), spec);
    assert_int_equal(cox_json_check(call.ref, NULL), COX_OK);
    cox_buf_append_slice(&found, call.ref);
    if (config)
        assert_string_equal(cox_buf_cstr(&found), config);
    cox_buf_fini(&found);
    compiled_fini(&c);
}

#define DEFAULTS "{\"max_turns\":50,\"max_parallel\":8,\"reasks\":2"

static void test_an_agent_says_what_it_is_for_and_what_is_asked(void **state)
{
    (void)state;
    agent_is(AGENT("`input`: `Hi ${{ inputs.q.a }}`"),
             "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi 1\"}]}}",
             DEFAULTS ",\"tools\":[]}");
    agent_is(
        AGENT("`model`: `big`, `instructions`: `Be ${{ inputs.q.a }}.`, `input`: `${{ inputs.q }}`, "
              "`temperature`: 0.5, `tool_choice`: `auto`, `parallel_tool_calls`: true, `extra`: {`top_k`: "
              "3}"),
        "{\"request\":{\"model\":\"big\",\"messages\":[{\"role\":\"system\",\"content\":\"Be 1.\"},"
        "{\"role\":\"user\",\"content\":\"{\\\"a\\\":1}\"}],\"tool_choice\":\"auto\","
        "\"parallel_tool_calls\":true,\"temperature\":0.5,\"top_k\":3}}",
        DEFAULTS ",\"tools\":[]}");
    agent_is(AGENT("`messages`: [{`role`: `user`, `content`: `x`}]"),
             "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}}",
             NULL);
    agent_is(AGENT("`messages`: `${{ inputs.q }}`"),
             "{\"request\":{\"model\":\"default\",\"messages\":{\"a\":1}}}", NULL);
    /* with tools, what the answer is to look like is said in words: held to it, a model calls no tool */
    agent_is(AGENT("`input`: `x`, `output_schema`: {`type`: `object`}, `tools`: [{`uses`: `w@1`}]"),
             "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"system\",\"content\":\"When you "
             "are done with "
             "the tools, answer with JSON and nothing else, that fits this JSON Schema: "
             "{\\\"type\\\":\\\"object\\\"}"
             "\\n\\n\"},{\"role\":\"user\",\"content\":\"x\"}]}}",
             NULL);
}

/* The answer is checked by who decides about turns: the router would take a call of a tool for a bad one. */
static void test_limits_and_the_shape_of_the_answer_are_config(void **state)
{
    (void)state;
    agent_is(AGENT("`input`: `x`, `max_turns`: 12, `max_parallel_tool_calls`: 3, `output_schema`: {`type`: "
                   "`object`}, `context`: {`max_tokens`: 1000, `on_full`: `summarize`}"),
             "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
             "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"output\",\"schema\":"
             "{\"type\":\"object\"}}}}}",
             "{\"max_turns\":12,\"max_parallel\":3,\"reasks\":2,\"output_schema\":{\"type\":\"object\"},"
             "\"context\":{\"max_tokens\":1000,\"on_full\":\"summarize\"},\"tools\":[]}");
    agent_is(AGENT("`input`: `x`, `context`: {`max_tokens`: 5}"),
             "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}}",
             DEFAULTS ",\"context\":{\"max_tokens\":5,\"on_full\":\"fail\"},\"tools\":[]}");
}

#define X_SPEC "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}}"

static void test_the_model_is_told_of_each_tool(void **state)
{
    (void)state;
    agent_is(
        AGENT("`input`: `x`, `approve`: [`py*`], `tools`: [{`uses`: `web-search@1`}, {`name`: `python`, "
              "`description`: `Run`, `parameters`: {`type`: `object`, `required`: [`code`]}, `run`: "
              "{`argv`: [`p`]}}, {`uses`: `./tools/grep.py`}, {`name`: `now`, `http`: {`url`: "
              "`http://x/`}}, {`name`: `Ask-1`, `agent`: {`model`: `big`}}, {`ask_user`: true}, {`uses`: "
              "`x@2`, `name`: `y`, `parameters`: {}}]"),
        X_SPEC,
        DEFAULTS
        ",\"tools\":[{\"name\":\"web-search\",\"uses\":\"web-search@1\",\"step\":2},"
        "{\"name\":\"python\",\"description\":\"Run\",\"parameters\":{\"type\":\"object\",\"required\":"
        "[\"code\"]},\"step\":3,\"approve\":true},"
        "{\"name\":\"grep\",\"parameters\":{\"type\":\"object\"},\"step\":4},"
        "{\"name\":\"now\",\"parameters\":{\"type\":\"object\",\"properties\":{}},\"step\":5},"
        "{\"name\":\"Ask-1\",\"parameters\":{\"type\":\"object\",\"properties\":{\"input\":{\"type\":"
        "\"string\"}},\"required\":[\"input\"]},\"step\":6},"
        "{\"name\":\"ask_user\",\"ask\":true},"
        "{\"name\":\"y\",\"uses\":\"x@2\",\"parameters\":{},\"step\":9}]}");
}

/* Tools that have files have the agent's. An agent that is a tool is one of them, and so are its tools. */
static void test_bodies_lie_behind_the_agent(void **state)
{
    struct cox_image_call call;
    struct compiled c;

    (void)state;
    steps_are(AGENT("`input`: `x`"), "a:agent a.model:model* a.approval:approval*");
    steps_are(
        TOOLS("{`uses`: `w@1`}, {`name`: `h`, `http`: {`url`: `http://x/`}}, {`name`: `j`, `jq`: "
              "{`program`: `.`}}, {`name`: `m`, `model`: {`input`: `${{ args.q }}`}}, {`name`: `s`, "
              "`task`: {`ref`: `t@1`}}, {`name`: `r`, `run`: {`argv`: [`x`]}}"),
        "a:agent a.model:model* a.approval:approval* a.w:uses*@a a.h:http* a.j:jq* a.m:model* a.s:task* "
        "a.r:run*@a");
    steps_are(TOOLS("{`name`: `e`, `agent`: {`tools`: [{`uses`: `w@1`}]}}, {`uses`: `w@1`}"),
              "a:agent a.model:model* a.approval:approval* a.e:agent*@a a.e.model:model* "
              "a.e.approval:approval* a.e.w:uses*@a.e a.w:uses*@a");
    must_compile(&c, TOOLS("{`name`: `e`, `agent`: {`tools`: [{`uses`: `w@1`}]}}, {`uses`: `w@1`}"), NULL);
    call = call_of(&c.image, 0);
    assert_int_equal(call.inner_first, 1);
    assert_int_equal(call.inner_n, 7); /* config's `step` of the last one is 6 */
    assert_non_null(memmem(call.ref.data, call.ref.len, "\"step\":6", 8));
    call = call_of(&c.image, step_named(&c.image, "a.e"));
    assert_int_equal(call.inner_first, 4);
    assert_int_equal(call.inner_n, 3);
    compiled_fini(&c);
}

/* An agent may work in the files of a step before it, and a step behind it in the agent's. */
static void test_an_agent_in_files_of_others(void **state)
{
    (void)state;
    steps_are(HEAD
              "`steps`: {`c`: {`uses`: `clone@1`}, `a`: {`affinity`: {`workspace`: `c`}, `agent`: {`input`: "
              "`x`, `tools`: [{`uses`: `w@1`}]}}, `d`: {`uses`: `diff@1`, `affinity`: {`workspace`: `a`}}}}",
              "c:uses a:agent@c a.model:model* a.approval:approval* a.w:uses*@a d:uses@a");
    refused(STEP("`affinity`: {`spread`: true}, `agent`: {`input`: `x`}"), NULL, "steps.a.affinity", 1,
            "expected `workspace`, without `map`");
    refused(HEAD
            "`steps`: {`c`: {`uses`: `clone@1`}, `a`: {`affinity`: {`workspace`: `c`}, `map`: {`over`: [1]}, "
            "`agent`: {`input`: `x`}}}}",
            NULL, "steps.a.affinity", 1, "without `map`");
    refused(HEAD
            "`steps`: {`c`: {`agent`: {`input`: `x`}}, `a`: {`affinity`: {`step`: `c`}, `uses`: `x@1`}}}",
            NULL, "steps.a.affinity.step", 1, "runs on no worker");
}

static void test_agents_stand_where_any_call_does(void **state)
{
    (void)state;
    steps_are(STEP("`map`: {`over`: [1]}, `agent`: {`input`: `${{ item }}`, `tools`: [{`uses`: `w@1`}]}"),
              "a:agent a[]:agent* a[].model:model* a[].approval:approval* a[].w:uses*@a[]");
    steps_are(
        STEP("`race`: [{`agent`: {`input`: `x`, `tools`: [{`uses`: `w@1`}]}}, {`uses`: `v@1`}, {`race`: "
             "[{`uses`: `u@1`}, {`agent`: {`input`: `y`}}]}]"),
        "a:race a.0:agent a.0.model:model* a.0.approval:approval* a.0.w:uses*@a.0 a.1:uses a.2:race "
        "a.2.0:uses a.2.1:agent a.2.1.model:model* a.2.1.approval:approval*");
    steps_are(
        STEP("`agent`: {`input`: `x`, `tools`: [{`uses`: `w@1`}]}, `fallback`: {`agent`: {`input`: `${{ "
             "error.code }}`, `tools`: [{`uses`: `w@1`}]}}"),
        "a:agent a.model:model* a.approval:approval* a.w:uses*@a a.fallback.model:model* "
        "a.fallback.approval:approval* a.fallback.w:uses*@a");
    steps_are(STEP("`map`: {`over`: [1]}, `race`: [{`agent`: {`input`: `x`}}, {`uses`: `v@1`}]"),
              "a:race a[]:race* a[].0:agent a[].0.model:model* a[].0.approval:approval* a[].1:uses");
}

static void test_members_are_steps_of_the_tasks_own_frame(void **state)
{
    static const struct {
        const char *document;
        uint32_t n;
    } cases[] = {
        { TOOLS("{`uses`: `w@1`}"), 1 },
        { STEP("`map`: {`over`: [1]}, `agent`: {`input`: `x`}"), 1 },
        { STEP("`race`: [{`agent`: {`input`: `x`}}, {`uses`: `v@1`}]"), 3 },
        { STEP("`map`: {`over`: [1]}, `race`: [{`agent`: {`input`: `x`}}, {`uses`: `v@1`}]"), 1 },
        { TOOLS("{`name`: `e`, `agent`: {`tools`: [{`uses`: `w@1`}]}}, {`uses`: `w@1`}"), 1 },
    };
    struct cox_image_task task;
    struct compiled c;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        must_compile(&c, cases[i].document, NULL);
        cox_image_task(&c.image, &task);
        assert_int_equal(task.n_members, cases[i].n);
        compiled_fini(&c);
    }
}

static void test_a_tool_sees_its_arguments_and_what_the_agent_sees(void **state)
{
    static const char document[] = HEAD
        "`steps`: {`b`: {`uses`: `b@1`}, `a`: {`map`: {`over`: [1]}, `agent`: {`input`: `x`, `tools`: ["
        "{`uses`: `w@1`}, {`uses`: `./v`, `name`: `v`}, {`name`: `r`, `run`: {`argv`: [`x`], `stdin`: `${{ "
        "args.code }} ${{ item }} ${{ steps.b.output }} ${{ inputs.q.a }}`}}, {`name`: `e`, `agent`: "
        "{`instructions`: `e`}}, {`name`: `f`, `parameters`: {`type`: `object`}, `agent`: {`model`: "
        "`m`}}]}}}}";
    struct world w = { .item_json = "7", .args_json = "{\"code\":\"c\",\"input\":\"i\",\"n\":[1]}" };
    struct cox_image_template template;
    struct cox_image_step step;
    struct compiled c;

    (void)state;
    w.steps[0] = (struct cox_eval_step){ .status = COX_STEP_SUCCEEDED, .output_json = cox_slice_str("5") };
    must_compile(&c, document, NULL);
#define SPEC(name) evaluate(&c.image, call_of(&c.image, step_named(&c.image, name)).spec_template, &w)
    assert_string_equal(SPEC("a[].w"), w.args_json);
    assert_string_equal(SPEC("a[].v"),
                        "{\"path\":\"./v\",\"input\":{\"code\":\"c\",\"input\":\"i\",\"n\":[1]}}");
    assert_string_equal(SPEC("a[].r"), "{\"argv\":[\"x\"],\"stdin\":\"c 7 5 1\"}");
    assert_string_equal(SPEC("a[].e"),
                        "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"system\","
                        "\"content\":\"e\"},{\"role\":\"user\",\"content\":\"i\"}]}}");
    assert_string_equal(SPEC("a[].f"),
                        "{\"request\":{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":"
                        "\"{\\\"code\\\":\\\"c\\\",\\\"input\\\":\\\"i\\\",\\\"n\\\":[1]}\"}]}}");
    assert_string_equal(SPEC("a[].model"), "{}");
    w.args_json = "{\"prompt\":\"May I?\"}";
    assert_string_equal(SPEC("a[].approval"), "\"May I?\"");
    cox_image_template(&c.image, call_of(&c.image, step_named(&c.image, "a[].w")).spec_template, &template);
    assert_true(template.reads_item);
    /* What its tools refer to, the agent needs. */
    cox_image_step(&c.image, step_named(&c.image, "a"), &step);
    assert_int_equal(step.n_needs, 1);
    compiled_fini(&c);
}

/* `retry` is of one call of the model; `timeout` of all that the agent does. */
static void test_what_an_agent_is_allowed_to_take(void **state)
{
    static const char document[] = HEAD
        "`defaults`: {`timeout`: `7s`, `retry`: {`max_attempts`: 4}}, `steps`: {`a`: {`timeout`: `1h`, "
        "`retry`: {`max_attempts`: 9, `on`: [`MODEL_ERROR`]}, `agent`: {`input`: `x`, `tools`: [{`uses`: "
        "`w@1`, `timeout`: `2s`, `retry`: {`max_attempts`: 2}, `resources`: {`cpu`: 2}}]}}, `b`: {`agent`: "
        "{`input`: `x`}}}}";
    struct cox_image_call call;
    struct cox_image_class cls;
    struct compiled c;

    (void)state;
    must_compile(&c, document, NULL);
    call = call_of(&c.image, step_named(&c.image, "a"));
    assert_int_equal(call.timeout_ms, 3600000);
    assert_int_equal(call.max_attempts, 1);
    assert_int_equal(call.retry_on, 0);
    assert_int_equal(call.inner_first, 1);
    assert_int_equal(call.inner_n, 3);
    call = call_of(&c.image, step_named(&c.image, "a.model"));
    assert_int_equal(call.timeout_ms, 7000);
    assert_int_equal(call.max_attempts, 9);
    assert_int_equal(call.retry_on, 1u << COX_CODE_MODEL_ERROR);
    cox_image_class(&c.image, call.class_index, &cls);
    assert_true(cox_slice_is(cls.handler, "model"));
    assert_true(c.image.has_models && c.image.has_inner && c.image.expands);
    call = call_of(&c.image, step_named(&c.image, "a.w"));
    assert_int_equal(call.timeout_ms, 2000);
    assert_int_equal(call.max_attempts, 2);
    cox_image_class(&c.image, call.class_index, &cls);
    assert_int_equal(cls.resources.cpu_milli, 2000);
    call = call_of(&c.image, step_named(&c.image, "b"));
    assert_int_equal(call.timeout_ms, 0);
    call = call_of(&c.image, step_named(&c.image, "b.model"));
    assert_int_equal(call.max_attempts, 4);
    compiled_fini(&c);
}

/* What a server offers is known when the agent begins: one body asks, one calls. */
static void test_tools_of_servers(void **state)
{
    static const char document[] = AGENT(
        "`input`: `x`, `approve`: [`rm*`], `tools`: [{`uses`: `w@1`}, {`mcp`: {`url`: `http://x/`, "
        "`headers`: "
        "{`A`: `${{ secrets.T }}`}}, `secrets`: {`T`: `t`}, `timeout`: `3s`, `allow`: [`get-*`, `put`], "
        "`approve`: [`put`]}, {`mcp`: {`command`: `srv`}}]");
    struct world w = { .args_json = "{\"tool\":\"get-sum\",\"arguments\":{\"a\":1}}" };
    struct cox_image_call call;
    struct compiled c;

    (void)state;
    agent_is(
        document, X_SPEC,
        DEFAULTS
        ",\"tools\":[{\"name\":\"w\",\"uses\":\"w@1\",\"step\":2},{\"mcp\":true,\"list\":3,\"step\":4,"
        "\"allow\":[\"get-*\",\"put\"],\"approve\":[\"put\",\"rm*\"]},{\"mcp\":true,\"list\":5,\"step\":6,"
        "\"approve\":[\"rm*\"]}]}");
    steps_are(document, "a:agent a.model:model* a.approval:approval* a.w:uses*@a a.mcp.1.list:mcp*@a "
                        "a.mcp.1.call:mcp*@a a.mcp.2.list:mcp*@a a.mcp.2.call:mcp*@a");
    must_compile(&c, document, NULL);
    call = call_of(&c.image, step_named(&c.image, "a.mcp.1.call"));
    assert_int_equal(call.timeout_ms, 3000);
    assert_string_equal(
        evaluate(&c.image, call.spec_template, &w),
        "[{\"T\":\"t\"},{\"mcp\":{\"url\":\"http://x/\",\"headers\":{\"A\":[\"\",\"T\",\"\"]}},\"tool\":"
        "\"get-sum\",\"arguments\":{\"a\":1}},[[\"mcp\",\"headers\",\"A\"]]]");
    call = call_of(&c.image, step_named(&c.image, "a.mcp.2.list"));
    assert_string_equal(evaluate(&c.image, call.spec_template, &w),
                        "{\"mcp\":{\"command\":\"srv\"},\"list\":true}");
    compiled_fini(&c);
}

static void test_what_is_refused(void **state)
{
    static const struct {
        const char *document, *path, *message;
    } cases[] = {
        { AGENT(""), "steps.a.agent", "found neither, expected exactly one of `input` and `messages`" },
        { AGENT("`messages`: `${{ inputs.q }}`, `instructions`: `x`"), "steps.a.agent.instructions",
          "expected it among them" },
        { AGENT("`input`: `x`, `max_turns`: 0"), "steps.a.agent.max_turns", "an integer from 1 to 10000" },
        { AGENT("`input`: `x`, `max_parallel_tool_calls`: 129"), "steps.a.agent.max_parallel_tool_calls",
          "from 1 to 128" },
        { AGENT("`input`: `x`, `context`: {}"), "steps.a.agent.context.max_tokens", "missing" },
        { AGENT("`input`: `x`, `context`: {`max_tokens`: 5, `on_full`: `x`}"),
          "steps.a.agent.context.on_full", "trim_tool_results" },
        { AGENT("`input`: `x`, `output_schema`: {`type`: `strin`}"), "steps.a.agent.output_schema",
          "not a JSON Schema" },
        { AGENT("`input`: `x`, `cache`: `1m`"), "steps.a.agent.cache", "unknown field" },
        { AGENT("`input`: `x`, `extra`: {`tools`: []}"), "steps.a.agent.extra.tools", "a field of `agent`" },
        { AGENT("`input`: `x`, `temperature`: 3"), "steps.a.agent.temperature", "from 0 to 2" },
        { AGENT("`input`: `x`, `approve`: [`pyton`], `tools`: [{`name`: `python`, `run`: {`argv`: [`x`]}}]"),
          "steps.a.agent.approve[0]", "did you mean `python`?" },
        { AGENT("`input`: `x`, `approve`: [`ask_user`], `tools`: [{`ask_user`: true}]"),
          "steps.a.agent.approve[0]", "unknown tool" },
        { STEP("`agent`: {`input`: `x`}, `resources`: {`cpu`: 1}"), "steps.a.resources", "takes no worker" },
        { STEP("`agent`: {`input`: `x`}, `secrets`: {`A`: `b`}"), "steps.a.secrets", "attempts on workers" },
        { TOOLS("`x`"), "steps.a.agent.tools[0]", "expected an object such as" },
        { TOOLS("{`run`: {`argv`: [`x`]}}"), "steps.a.agent.tools[0].name", "missing" },
        { TOOLS("{`name`: `a b`, `run`: {`argv`: [`x`]}}"), "steps.a.agent.tools[0].name", "a name of a-z" },
        { TOOLS("{`name`: `model`, `run`: {`argv`: [`x`]}}"), "steps.a.agent.tools[0].name",
          "a part of every agent" },
        { TOOLS("{`uses`: `w@1`}, {`uses`: `v@1`}, {`uses`: `w@2`}"), "steps.a.agent.tools[2].name",
          "tools[0] is called `w` too" },
        { TOOLS("{`name`: `w`}"), "steps.a.agent.tools[0]", "found no kind" },
        { TOOLS("{`uses`: `w@1`, `run`: {`argv`: [`x`]}}"), "steps.a.agent.tools[0]", "exactly one kind" },
        { TOOLS("{`name`: `w`, `wait`: {`for`: `1s`}}"), "steps.a.agent.tools[0]",
          "`wait`, which is no tool" },
        { TOOLS("{`name`: `w`, `race`: [{`uses`: `a@1`}, {`uses`: `b@1`}]}"), "steps.a.agent.tools[0]",
          "which is no tool" },
        { TOOLS("{`uses`: `w@1`, `allow`: []}"), "steps.a.agent.tools[0].allow", "expected it beside `mcp`" },
        { TOOLS("{`mcp`: {`url`: `http://x/`}, `name`: `x`}"), "steps.a.agent.tools[0].name",
          "says what its tools are" },
        { TOOLS("{`mcp`: {`url`: `http://x/`, `tool`: `x`}}"), "steps.a.agent.tools[0].mcp.tool",
          "the model's to say" },
        { TOOLS("{`mcp`: {}}"), "steps.a.agent.tools[0].mcp", "exactly one of `url` and `command`" },
        { TOOLS("{`mcp`: {`url`: `http://x/`}, `allow`: [`a*`], `approve`: [`b`]}"),
          "steps.a.agent.tools[0].approve[0]", "that `allow` names" },
        { TOOLS("{`mcp`: {`url`: `http://x/`}, `allow`: [1]}"), "steps.a.agent.tools[0].allow[0]",
          "the name of a tool" },
        { TOOLS("{`uses`: `w@1`, `parameters`: {`type`: 1}}"), "steps.a.agent.tools[0].parameters",
          "not a JSON Schema" },
        { TOOLS("{`uses`: `w@1`, `description`: `${{ inputs.q }}`}"), "steps.a.agent.tools[0].description",
          "as it is" },
        { TOOLS("{`uses`: `w@1`, `needs`: []}"), "steps.a.agent.tools[0].needs", "unknown field" },
        { TOOLS("{`uses`: `w@1`, `with`: {`x`: `${{ error.code }}`}}"), "steps.a.agent.tools[0].with.x",
          "in a `fallback` only" },
        { TOOLS("{`ask_user`: false}"), "steps.a.agent.tools[0].ask_user", "expected true" },
        { TOOLS("{`ask_user`: true, `timeout`: `1s`}"), "steps.a.agent.tools[0].timeout", "asks a person" },
        { TOOLS("{`name`: `b`, `agent`: {`tools`: [{`name`: `c`, `agent`: {`tools`: [{`name`: `d`, `agent`: "
                "{`tools`: [{`name`: `e`, `agent`: {}}]}}]}}]}}"),
          "steps.a.agent.tools[0].agent.tools[0].agent.tools[0].agent.tools[0].agent",
          "agents more than 4 deep" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(cases[i].document, NULL, cases[i].path, 1, cases[i].message);
}

/* Whatever the names of tools are, those of steps are unique and no longer than an image can have them. */
static void test_long_names_of_tools(void **state)
{
    static const char open[] = "{`name`: `%s`, `agent`: {`tools`: [", close[] = "]}}";
    struct cox_buf document = { 0 };
    char name[65];
    struct compiled c;

    (void)state;
    memset(name, 'n', 64);
    name[64] = '\0';
    cox_buf_append_str(&document, HEAD "`steps`: {`abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz`: "
                                       "{`agent`: {`input`: `x`, `tools`: [");
    for (int i = 0; i < 3; i++)
        cox_buf_printf(&document, open, name);
    cox_buf_printf(&document,
                   "{`name`: `%s`, `run`: {`argv`: [`x`]}}, {`name`: `m%s`, `run`: {`argv`: [`x`]}}", name,
                   name + 1);
    for (int i = 0; i < 3; i++)
        cox_buf_append_str(&document, close);
    cox_buf_append_str(&document, "]}}}}");
    must_compile(&c, cox_buf_cstr(&document), NULL);
    assert_int_equal(c.image.n_steps, 1 + 4 * 2 + 3 + 2);
    compiled_fini(&c);
    cox_buf_fini(&document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_agent_says_what_it_is_for_and_what_is_asked),
        cmocka_unit_test(test_limits_and_the_shape_of_the_answer_are_config),
        cmocka_unit_test(test_the_model_is_told_of_each_tool),
        cmocka_unit_test(test_bodies_lie_behind_the_agent),
        cmocka_unit_test(test_an_agent_in_files_of_others),
        cmocka_unit_test(test_agents_stand_where_any_call_does),
        cmocka_unit_test(test_members_are_steps_of_the_tasks_own_frame),
        cmocka_unit_test(test_a_tool_sees_its_arguments_and_what_the_agent_sees),
        cmocka_unit_test(test_what_an_agent_is_allowed_to_take),
        cmocka_unit_test(test_tools_of_servers),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_long_names_of_tools),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
