/* `model` in documents: the spec that the router gets, and what is refused. */
#include "task_fixture.h"

#define HEAD                                                                                                 \
    "{`api_version`: `v1`, `name`: `t`, `inputs`: {`x`: {`type`: `any`, `default`: {`a`: 1}}, "              \
    "`t`: {`type`: `number`, `default`: 0.5}}, "
#define STEP(body) HEAD "`steps`: {`a`: {" body "}}}"
#define MODEL(body) STEP("`model`: {" body "}")

static void spec_is(const char *document, const char *expected)
{
    struct world w = { .error_message = "no", .item_json = "\"i\"" };
    struct cox_image_class cls;
    struct cox_image_step step;
    struct cox_image_call call;
    struct compiled c;

    must_compile(&c, document, NULL);
    cox_image_step(&c.image, 0, &step);
    cox_image_call(&c.image, step.call, &call);
    assert_int_equal(call.kind, COX_KIND_MODEL);
    assert_true(c.image.has_models);
    assert_false(cox_step_kind_is_worker(call.kind));
    cox_image_class(&c.image, call.class_index, &cls);
    assert_true(cox_slice_is(cls.handler, "model"));
    assert_string_equal(evaluate(&c.image, call.spec_template, &w), expected);
    compiled_fini(&c);
}

static void test_the_request(void **state)
{
    (void)state;
    spec_is(MODEL("`input`: `Hi`"), "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"user\","
                                    "\"content\":\"Hi\"}]}}");
    /* Text is text, whatever an expression comes to; settings keep their types. */
    spec_is(MODEL("`model`: `m-${{ inputs.x.a }}`, `input`: `${{ inputs.x }}`, `temperature`: `${{ inputs.t "
                  "}}`, `max_tokens`: 5, `stop`: [`a`, `${{ inputs.x.a }}`]"),
            "{\"request\":{\"model\":\"m-1\",\"messages\":[{\"role\":\"user\",\"content\":\"{\\\"a\\\":1}\"}]"
            ",\"max_tokens\":5,\"temperature\":0.5,\"stop\":[\"a\",1]}}");
    spec_is(MODEL("`messages`: `${{ inputs.x }}`, `tools`: [{`type`: `function`, `function`: {`name`: `f`}}]"
                  ", `tool_choice`: `auto`"),
            "{\"request\":{\"model\":\"default\",\"messages\":{\"a\":1},\"tools\":[{\"type\":\"function\","
            "\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"auto\"}}");
}

static void test_messages(void **state)
{
    (void)state;
    spec_is(MODEL("`messages`: [{`role`: `system`, `content`: `S ${{ inputs.x.a }}`}, {`role`: `user`, "
                  "`content`: [{`type`: `text`, `text`: `${{ inputs.x }}`}, {`type`: `image_url`, "
                  "`image_url`: {`url`: `data:x`}}]}, {`role`: `assistant`, `tool_calls`: [{`id`: `c`}]}, "
                  "{`role`: `tool`, `tool_call_id`: `c`, `content`: `7`}]"),
            "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"system\",\"content\":\"S 1\"},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"{\\\"a\\\":1}\"},{\"type\":"
            "\"image_url\",\"image_url\":{\"url\":\"data:x\"}}]},{\"role\":\"assistant\",\"content\":null,"
            "\"tool_calls\":[{\"id\":\"c\"}]},{\"role\":\"tool\",\"content\":\"7\",\"tool_call_id\":\"c\"}]"
            "}}");
}

static void test_what_becomes_of_the_answer(void **state)
{
    (void)state;
    spec_is(STEP("`idempotent`: true, `model`: {`input`: `x`, `cache`: `1m`, `output_schema`: {`type`: "
                 "`object`}, `extra`: {`top_k`: 3, `guided_regex`: `${{ inputs.x.a }}`}}"),
            "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
            "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"output\",\"schema\":"
            "{\"type\":\"object\"}}},\"top_k\":3,\"guided_regex\":1},\"cache_ms\":60000,\"output_schema\":"
            "{\"type\":\"object\"}}");
}

/* Beside other kinds, under a map, in a race, as a fallback, with gates. */
static void test_a_call_like_others(void **state)
{
    static const char document[] =
        HEAD "`defaults`: {`timeout`: `7s`, `retry`: {`max_attempts`: 4}}, `steps`: {"
             "`m`: {`map`: {`over`: [1, 2], `max_parallel`: 1}, `model`: {`input`: `${{ item }}`}, "
             "`concurrency`: {`key`: `k`, `limit`: 2}, `rate`: {`key`: `r`, `per_minute`: 5}},"
             "`r`: {`race`: [{`model`: {`input`: `a`}}, {`model`: {`input`: `b`}, `timeout`: `1s`}]},"
             "`f`: {`needs`: [`m`], `if`: `${{ success() }}`, `run`: {`argv`: [`x`]}, `fallback`: {`model`: "
             "{`input`: `${{ error.message }}`}}}}}";
    struct cox_image_call call;
    struct cox_image_step step;
    struct compiled c;
    struct world w = { .error_message = "why", .error_code = COX_CODE_TIMEOUT };

    (void)state;
    must_compile(&c, document, NULL);
    cox_image_step(&c.image, cox_image_find_step(&c.image, cox_slice_str("m")), &step);
    assert_true(step.map != COX_IMAGE_NONE && step.extras != COX_IMAGE_NONE && step.n_inner == 0);
    cox_image_call(&c.image, step.call, &call);
    assert_int_equal(call.timeout_ms, 7000);
    assert_int_equal(call.max_attempts, 4);
    cox_image_step(&c.image, cox_image_find_step(&c.image, cox_slice_str("r.1")), &step);
    cox_image_call(&c.image, step.call, &call);
    assert_int_equal(call.kind, COX_KIND_MODEL);
    assert_int_equal(call.timeout_ms, 1000);
    cox_image_step(&c.image, cox_image_find_step(&c.image, cox_slice_str("f")), &step);
    cox_image_call(&c.image, step.fallback, &call);
    assert_string_equal(evaluate(&c.image, call.spec_template, &w),
                        "{\"request\":{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":"
                        "\"why\"}]}}");
    compiled_fini(&c);
}

static void test_what_is_refused(void **state)
{
    static const struct {
        const char *document, *path, *message;
    } cases[] = {
        { MODEL(""), "steps.a.model", "found neither, expected exactly one of `input` and `messages`" },
        { MODEL("`input`: `x`, `messages`: `${{ inputs.x }}`"), "steps.a.model", "expected exactly one" },
        { MODEL("`messages`: []"), "steps.a.model.messages", "found no message" },
        { MODEL("`messages`: `x`"), "steps.a.model.messages", "a list of messages, or one expression" },
        { MODEL("`messages`: [{`role`: `bot`, `content`: `x`}]"), "steps.a.model.messages[0].role",
          "expected \"system\"" },
        { MODEL("`messages`: [{`role`: `user`}]"), "steps.a.model.messages[0].content", "missing" },
        { MODEL("`messages`: [{`role`: `user`, `content`: [1]}]"), "steps.a.model.messages[0].content[0]",
          "expected an object such as" },
        { MODEL("`messages`: [{`role`: `tool`, `content`: `x`}]"), "steps.a.model.messages[0].tool_call_id",
          "missing" },
        { MODEL("`messages`: [{`role`: `user`, `content`: `x`, `tool_calls`: []}]"),
          "steps.a.model.messages[0].tool_calls", "only the assistant" },
        { MODEL("`messages`: [{`role`: `user`, `content`: `x`, `tool_call_id`: `c`}]"),
          "steps.a.model.messages[0].tool_call_id", "is what a tool answers" },
        { MODEL("`input`: `x`, `model`: ``"), "steps.a.model.model", "expected 1 to 256" },
        { MODEL("`input`: `x`, `temperature`: 3"), "steps.a.model.temperature", "a number from 0 to 2" },
        { MODEL("`input`: `x`, `temperature`: `hot`"), "steps.a.model.temperature", "a number from 0 to 2" },
        { MODEL("`input`: `x`, `max_tokens`: 0"), "steps.a.model.max_tokens", "an integer from 1" },
        { MODEL("`input`: `x`, `seed`: 1.5"), "steps.a.model.seed", "an integer" },
        { MODEL("`input`: `x`, `stop`: [1]"), "steps.a.model.stop[0]", "a string" },
        { MODEL("`input`: `x`, `tools`: [{`name`: `f`}]"), "steps.a.model.tools[0]",
          "expected an object such as {\"type\": \"function\"" },
        { MODEL("`input`: `x`, `tools`: [{`type`: `function`, `function`: {`name`: `a b`}}]"),
          "steps.a.model.tools[0].function.name", "1 to 64 long" },
        { MODEL("`input`: `x`, `top_k`: 3"), "steps.a.model.top_k", "unknown field" },
        { MODEL("`input`: `x`, `extra`: {`stream`: true}"), "steps.a.model.extra.stream", "as a whole" },
        { MODEL("`input`: `x`, `extra`: {`seed`: 1}"), "steps.a.model.extra.seed", "is a field of `model`" },
        { MODEL("`input`: `x`, `cache`: `1m`"), "steps.a.model.cache", "expected `idempotent: true`" },
        { MODEL("`input`: `x`, `output_schema`: {}, `response_format`: {}"), "steps.a.model.output_schema",
          "expected one of them" },
        { STEP("`model`: {`input`: `x`}, `resources`: {`cpu`: 1}"), "steps.a.resources", "takes no worker" },
        { STEP("`model`: {`input`: `x`}, `requires`: `a == b`"), "steps.a.requires", "takes no worker" },
        { STEP("`model`: {`input`: `x`}, `affinity`: {`spread`: true}"), "steps.a.affinity", "on workers" },
        { STEP("`model`: {`input`: `x`}, `artifacts`: {`a`: `b`}"), "steps.a.artifacts", "on workers" },
        { STEP("`model`: {`input`: `x`}, `secrets`: {`A`: `b`}"), "steps.a.secrets", "on workers" },
        { STEP("`model`: {`input`: `x`}, `map`: {`over`: [], `batch`: 2}"), "steps.a.map.batch",
          "not dispatched to workers" },
        { STEP("`wait`: {`for`: `1s`}, `rate`: {`key`: `k`, `per_minute`: 1}"), "steps.a.rate",
          "`jq`, `mcp` or `model`" },
        { STEP("`model`: {`input`: `x`}, `with`: {}"), "steps.a.with", "expected `uses` beside it" },
        { HEAD "`steps`: {`m`: {`model`: {`input`: `x`}}, `a`: {`run`: {`argv`: [`x`]}, `affinity`: "
               "{`step`: `m`}}}}",
          "steps.a.affinity.step", "runs on no worker" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(cases[i].document, NULL, cases[i].path, 1, cases[i].message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_request),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_what_becomes_of_the_answer),
        cmocka_unit_test(test_a_call_like_others),
        cmocka_unit_test(test_what_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
