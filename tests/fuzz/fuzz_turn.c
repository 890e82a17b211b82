/* Any bytes as what a model answers to an agent, up to the first NUL byte, and (behind it) as the list of a
 * server's tools: what is to be called is a tool that there is, with arguments that fit it. */
#include "fuzz.h"

#include "cox/json.h"
#include "cox/schema.h"
#include "cox/turn.h"

#include <string.h>

#define CONFIG                                                                                               \
    "{\"reasks\":1,\"tools\":[{\"name\":\"py\",\"parameters\":{\"type\":\"object\",\"properties\":{"         \
    "\"code\":"                                                                                              \
    "{\"type\":\"string\"}},\"required\":[\"code\"]},\"step\":2},{\"name\":\"rm\",\"parameters\":{},"        \
    "\"step\":3,"                                                                                            \
    "\"approve\":true},{\"name\":\"ask_user\",\"ask\":true},{\"mcp\":true,\"list\":4,\"step\":5,\"allow\":[" \
    "\"*a*\""                                                                                                \
    "],\"approve\":[\"b*\"]}]"
static const char *const configs[] = {
    CONFIG "}",
    CONFIG ",\"output_schema\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}}}}",
    CONFIG ",\"plan\":{\"uses\":[\"*\"]}}",
};

static struct cox_buf make_tools(struct cox_slice config, struct cox_slice list)
{
    const struct cox_turn_programs none = { 0 };
    struct cox_buf tools = { 0 }, error = { 0 };

    if (cox_turn_tools(config, &list, 1, &none, &tools, &error) != COX_OK) {
        COX_ASSERT(error.len > 0);
        cox_buf_clear(&tools);
        cox_buf_clear(&error);
        COX_ASSERT(cox_turn_tools(config, NULL, 0, &none, &tools, &error) == COX_OK);
    }
    COX_ASSERT(cox_json_check(cox_buf_slice(&tools), NULL) == COX_OK);
    COX_ASSERT(cox_json_count(cox_buf_slice(&tools)) <= COX_TOOLS_MAX);
    cox_buf_fini(&error);
    return tools;
}

static bool has(struct cox_slice object, const char *name)
{
    struct cox_slice v;

    return cox_json_member(object, name, &v);
}

static void check_call(struct cox_slice tools, struct cox_slice call)
{
    struct cox_slice name, args = cox_slice(NULL, 0), schema, had;

    COX_ASSERT(has(call, "id") && cox_json_member(call, "name", &name));
    if (has(call, "error"))
        return;
    COX_ASSERT(cox_json_member(call, "args", &args));
    for (struct cox_json_walk t = cox_json_walk(tools); cox_json_next(&t);) {
        COX_ASSERT(cox_json_member(t.value, "name", &had));
        if (!cox_slice_eq(had, name))
            continue;
        COX_ASSERT(has(t.value, "approve") == has(call, "approve") &&
                   has(t.value, "ask") == has(call, "ask"));
        COX_ASSERT(!has(t.value, "remote") || cox_json_member(args, "arguments", &args));
        COX_ASSERT(cox_json_kind(args) == COX_JSON_OBJECT && args.len <= COX_TURN_ARGS_LEN_MAX);
        COX_ASSERT(cox_json_member(t.value, "parameters", &schema));
        COX_ASSERT(cox_schema_match(schema, args, NULL) == COX_OK);
        return;
    }
    COX_ASSERT(!"a call of no tool");
}

static void check_decision(struct cox_slice tools, struct cox_slice decision)
{
    struct cox_slice calls;

    COX_ASSERT(cox_json_check(decision, NULL) == COX_OK && cox_json_count(decision) == 1);
    if (!cox_json_member(decision, "calls", &calls)) {
        COX_ASSERT(has(decision, "output") || has(decision, "plan") || has(decision, "say") ||
                   has(decision, "fail"));
        return;
    }
    COX_ASSERT(cox_json_count(calls) >= 1 && cox_json_count(calls) <= COX_TURN_CALLS_MAX);
    for (struct cox_json_walk w = cox_json_walk(calls); cox_json_next(&w);)
        check_call(tools, w.value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    size_t len = end ? (size_t)(end - data) : size;
    struct cox_slice list = end ? cox_slice(end + 1, size - len - 1) : cox_slice_str("{\"tools\":[]}");

    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        struct cox_slice config = cox_slice_str(configs[i]);
        struct cox_buf tools = make_tools(config, list), decision = { 0 };
        const struct cox_turn turn = { config, cox_buf_slice(&tools), cox_slice(data, len),
                                       (uint32_t)(size & 1) };

        cox_turn_decide(&turn, &decision);
        check_decision(cox_buf_slice(&tools), cox_buf_slice(&decision));
        cox_buf_fini(&tools);
        cox_buf_fini(&decision);
    }
    return 0;
}
