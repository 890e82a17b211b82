/* What `model` says: the request for the router, in OpenAI's shape, and what becomes of the answer. */
#include "model.h"

#include <stdio.h>
#include <string.h>

#define MODEL_NAME_LEN_MAX 256u

enum { MODEL_CACHE = REQUEST_NR, MODEL_TOOLS, MODEL_NR };
static const struct field model_fields[MODEL_NR] = {
    REQUEST_FIELDS,
    [MODEL_CACHE] = { "cache", WANT_ANY, FIELD_OPTIONAL, "" },
    [MODEL_TOOLS] = { "tools", WANT_STRING | WANT_LIST, FIELD_OPTIONAL,
                      "a list of tools, or one expression that comes to one" },
};

/* Settings that are numbers, with the range that OpenAI's reference gives. */
static const struct {
    uint8_t field;
    bool integer;
    double min, max;
    const char *expected;
} numbers[] = {
    { REQUEST_MAX_TOKENS, true, 1, 1e9, "an integer from 1 to 1000000000" },
    { REQUEST_MAX_COMPLETION, true, 1, 1e9, "an integer from 1 to 1000000000" },
    { REQUEST_TEMPERATURE, false, 0, 2, "a number from 0 to 2" },
    { REQUEST_TOP_P, false, 0, 1, "a number from 0 to 1" },
    { REQUEST_SEED, true, -9223372036854775808.0, 9223372036854775807.0, "an integer" },
    { REQUEST_PRESENCE, false, -2, 2, "a number from -2 to 2" },
    { REQUEST_FREQUENCY, false, -2, 2, "a number from -2 to 2" },
    { REQUEST_TOP_LOGPROBS, true, 0, 20, "an integer from 0 to 20" },
};

enum { MESSAGE_ROLE, MESSAGE_CONTENT, MESSAGE_NAME, MESSAGE_TOOL_CALLS, MESSAGE_TOOL_CALL_ID, MESSAGE_NR };
static const struct field message_fields[MESSAGE_NR] = {
    { "role", WANT_STRING, FIELD_REQUIRED, "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"" },
    { "content", WANT_STRING | WANT_LIST | WANT_NULL, FIELD_OPTIONAL, "a string, or a list of parts" },
    { "name", WANT_STRING, FIELD_OPTIONAL, "a string" },
    { "tool_calls", WANT_STRING | WANT_LIST, FIELD_OPTIONAL,
      "a list of tool calls, or one expression that comes to one" },
    { "tool_call_id", WANT_STRING, FIELD_OPTIONAL, "a string, the id of a tool call" },
};

static bool is_expr(const json_t *v)
{
    return json_is_string(v) && template_is_expr(json_slice(v));
}

static void put_key(struct compiler *c, const char *separator, const char *key)
{
    draft_raw(c, separator);
    cox_json_quote(&c->draft.raw, cox_slice_str(key));
    draft_raw(c, ":");
}

/* ---- messages ---- */

/* `text` of a part is text, whatever an expression comes to; the rest keeps its types. */
static void put_part(struct compiler *c, const struct scope *scope, const struct place *at, json_t *part)
{
    const char *separator = "{", *key;
    json_t *value;

    if (!json_is_object(part) || !json_is_string(json_object_get(part, "type"))) {
        report_found(&c->report, at, part, "an object such as {\"type\": \"text\", \"text\": \"...\"}");
        return;
    }
    json_object_foreach(part, key, value)
    {
        struct place here = place_key(at, key);

        put_key(c, separator, key);
        draft_value(c, scope, &here, value, strcmp(key, "text") == 0 ? EMIT_ARG : EMIT_VALUE);
        separator = ",";
    }
    draft_raw(c, "}");
}

static void put_content(struct compiler *c, const struct scope *scope, const struct place *at,
                        const json_t *content)
{
    if (!json_is_array(content)) {
        draft_value(c, scope, at, content, EMIT_ARG);
        return;
    }
    draft_raw(c, "[");
    for (size_t i = 0; i < json_array_size(content); i++) {
        struct place here = place_index(at, i);

        if (i > 0)
            draft_raw(c, ",");
        put_part(c, scope, &here, json_array_get(content, i));
    }
    draft_raw(c, "]");
}

static void check_role(struct compiler *c, const struct place *at, json_t *const f[MESSAGE_NR])
{
    static const char *const roles[] = { "system", "developer", "user", "assistant", "tool" };
    struct place role = place_key(at, "role"), content = place_key(at, "content");
    struct place calls = place_key(at, "tool_calls"), id = place_key(at, "tool_call_id");
    const char *text = json_string_value(f[MESSAGE_ROLE]);
    size_t i = 0;

    while (i < sizeof(roles) / sizeof(roles[0]) && strcmp(text, roles[i]) != 0)
        i++;
    if (i == sizeof(roles) / sizeof(roles[0]))
        report_found(&c->report, &role, f[MESSAGE_ROLE], message_fields[MESSAGE_ROLE].expected);
    if (f[MESSAGE_TOOL_CALLS] && strcmp(text, "assistant") != 0)
        report_at(&c->report, &calls, "only the assistant calls tools; expected it beside `role: assistant`");
    if (f[MESSAGE_TOOL_CALL_ID] && strcmp(text, "tool") != 0)
        report_at(&c->report, &id, "is what a tool answers; expected it beside `role: tool`");
    if (!f[MESSAGE_TOOL_CALL_ID] && strcmp(text, "tool") == 0)
        report_at(&c->report, &id, "missing; expected the id of the tool call that this answers");
    if ((!f[MESSAGE_CONTENT] || json_is_null(f[MESSAGE_CONTENT])) && !f[MESSAGE_TOOL_CALLS])
        report_at(&c->report, &content, "missing; expected a string, or a list of parts");
}

static void put_message(struct compiler *c, const struct scope *scope, const struct place *at,
                        json_t *message)
{
    struct place content = place_key(at, "content"), calls = place_key(at, "tool_calls");
    struct place name = place_key(at, "name"), id = place_key(at, "tool_call_id");
    json_t *f[MESSAGE_NR];

    if (!fields_check(&c->report, at, message, "an object such as {\"role\": \"user\", \"content\": \"...\"}",
                      message_fields, MESSAGE_NR, f) ||
        !f[MESSAGE_ROLE])
        return;
    check_role(c, at, f);
    put_key(c, "{", "role");
    cox_json_quote(&c->draft.raw, json_slice(f[MESSAGE_ROLE]));
    put_key(c, ",", "content");
    if (f[MESSAGE_CONTENT])
        put_content(c, scope, &content, f[MESSAGE_CONTENT]);
    else
        draft_raw(c, "null");
    if (f[MESSAGE_NAME]) {
        put_key(c, ",", "name");
        draft_value(c, scope, &name, f[MESSAGE_NAME], EMIT_ARG);
    }
    if (f[MESSAGE_TOOL_CALLS]) {
        if (json_is_string(f[MESSAGE_TOOL_CALLS]) && !is_expr(f[MESSAGE_TOOL_CALLS]))
            report_found(&c->report, &calls, f[MESSAGE_TOOL_CALLS],
                         message_fields[MESSAGE_TOOL_CALLS].expected);
        put_key(c, ",", "tool_calls");
        draft_value(c, scope, &calls, f[MESSAGE_TOOL_CALLS], EMIT_VALUE);
    }
    if (f[MESSAGE_TOOL_CALL_ID]) {
        put_key(c, ",", "tool_call_id");
        draft_value(c, scope, &id, f[MESSAGE_TOOL_CALL_ID], EMIT_ARG);
    }
    draft_raw(c, "}");
}

/* What comes before the document's words: one system message. */
static bool put_system(struct compiler *c, const struct scope *scope, const struct place *at,
                       const struct request *request)
{
    struct place instructions = place_key(at, "instructions");
    const json_t *own = request->instructions;

    if (request->preface.len == 0 && !own)
        return false;
    draft_raw(c, "{\"role\":\"system\",\"content\":");
    if (request->preface.len == 0) {
        draft_value(c, scope, &instructions, own, EMIT_ARG);
    } else {
        draft_raw(c, "\"");
        cox_json_escape(&c->draft.raw, request->preface);
        if (own)
            draft_text(c, scope, &instructions, json_slice(own));
        draft_raw(c, "\"");
    }
    draft_raw(c, "}");
    return true;
}

static void put_list(struct compiler *c, const struct scope *scope, const struct place *at, json_t *list,
                     bool first)
{
    if (json_array_size(list) == 0)
        report_at(&c->report, at, "found no message, expected one or more");
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct place here = place_index(at, i);

        if (!first)
            draft_raw(c, ",");
        put_message(c, scope, &here, json_array_get(list, i));
        first = false;
    }
}

static void put_messages(struct compiler *c, const struct scope *scope, const struct place *at,
                         json_t *const *f, const struct request *request)
{
    struct place input = place_key(at, "input"), messages = place_key(at, "messages");
    struct place instructions = place_key(at, "instructions");
    json_t *list = f[REQUEST_MESSAGES];

    if (!f[REQUEST_INPUT] == !list) {
        report_at(&c->report, at, "found %s, expected exactly one of `input` and `messages`",
                  list ? "`input` and `messages`" : "neither");
        return;
    }
    if (list && request->instructions)
        report_at(&c->report, &instructions,
                  "found `messages` too; expected it among them, as a message of `role: system`");
    if (json_is_string(list) && (!is_expr(list) || request->preface.len > 0))
        report_found(&c->report, &messages, list,
                     request->preface.len > 0 ? "a list of messages" : MESSAGES_EXPECTED);
    put_key(c, ",", "messages");
    if (json_is_string(list)) {
        draft_value(c, scope, &messages, list, EMIT_VALUE);
        return;
    }
    draft_raw(c, "[");
    bool first = !put_system(c, scope, at, request);

    if (list) {
        put_list(c, scope, &messages, list, first);
    } else {
        draft_raw(c, first ? "{\"role\":\"user\",\"content\":" : ",{\"role\":\"user\",\"content\":");
        draft_value(c, scope, &input, f[REQUEST_INPUT], EMIT_ARG);
        draft_raw(c, "}");
    }
    draft_raw(c, "]");
}

/* ---- settings ---- */

bool tool_name_ok(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t b = s.data[i], letter = b | 0x20;

        if (!(letter >= 'a' && letter <= 'z') && !(b >= '0' && b <= '9') && b != '_' && b != '-')
            return false;
    }
    return s.len > 0 && s.len <= 64;
}

static void check_tools(struct compiler *c, const struct place *at, const json_t *tools)
{
    if (json_is_string(tools) && !is_expr(tools))
        report_found(&c->report, at, tools, model_fields[MODEL_TOOLS].expected);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i), *type = json_object_get(tool, "type");
        const json_t *own = json_object_get(json_object_get(tool, "function"), "name");
        struct place here = place_index(at, i), function = place_key(&here, "function");
        struct place name = place_key(&function, "name");

        if (is_expr(tool))
            continue;
        if (!json_is_string(type))
            report_found(&c->report, &here, tool,
                         "an object such as {\"type\": \"function\", \"function\": {\"name\": \"...\"}}");
        else if (strcmp(json_string_value(type), "function") == 0 &&
                 !(json_is_string(own) && tool_name_ok(json_slice(own))))
            report_at(&c->report, &name, "expected a name of a-z, A-Z, 0-9, _ and -, 1 to 64 long");
    }
}

static void check_stop(struct compiler *c, const struct place *at, const json_t *stop)
{
    for (size_t i = 0; i < json_array_size(stop); i++) {
        struct place here = place_index(at, i);

        if (!json_is_string(json_array_get(stop, i)))
            report_found(&c->report, &here, json_array_get(stop, i), "a string");
    }
}

static void check_number(struct compiler *c, const struct place *at, const json_t *v, size_t i)
{
    bool number = numbers[i].integer ? json_is_integer(v) : json_is_number(v);

    if (is_expr(v))
        return;
    if (!number || json_number_value(v) < numbers[i].min || json_number_value(v) > numbers[i].max)
        report_found(&c->report, at, v, numbers[i].expected);
}

static void put_settings(struct compiler *c, const struct scope *scope, const struct place *at,
                         json_t *const *f)
{
    for (int i = REQUEST_SETTINGS; i < REQUEST_NR; i++) {
        struct place here = place_key(at, model_fields[i].name);

        if (!f[i])
            continue;
        if (i == REQUEST_STOP)
            check_stop(c, &here, f[i]);
        for (size_t k = 0; k < sizeof(numbers) / sizeof(numbers[0]); k++) {
            if (numbers[k].field == i)
                check_number(c, &here, f[i], k);
        }
        put_key(c, ",", model_fields[i].name);
        draft_value(c, scope, &here, f[i], EMIT_VALUE);
    }
}

/* What engines know beyond OpenAI. It cannot say a second time what has a field of its own, nor ask for an
 * answer of another shape. */
static void put_extra(struct compiler *c, const struct scope *scope, const struct place *at, json_t *extra,
                      const char *kind)
{
    static const char *const shape[] = { "stream", "stream_options", "n" };
    const char *key;
    json_t *value;

    json_object_foreach(extra, key, value)
    {
        struct place here = place_key(at, key);

        for (int i = 0; i < MODEL_NR; i++) {
            if (strcmp(key, model_fields[i].name) == 0)
                report_at(&c->report, &here, "`%s` is a field of `%s`; expected it there", key, kind);
        }
        for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
            if (strcmp(key, shape[i]) == 0)
                report_at(&c->report, &here, "a step has one answer, as a whole; `%s` cannot be set", key);
        }
        put_key(c, ",", key);
        draft_value(c, scope, &here, value, EMIT_VALUE);
    }
}

static void put_name(struct compiler *c, const struct scope *scope, const struct place *at,
                     const json_t *model)
{
    struct place here = place_key(at, "model");

    put_key(c, "{\"request\":{", "model");
    if (!model) {
        draft_raw(c, "\"default\"");
        return;
    }
    if (json_string_length(model) < 1 || json_string_length(model) > MODEL_NAME_LEN_MAX)
        report_at(&c->report, &here, "found a name of %zu bytes, expected 1 to %u", json_string_length(model),
                  MODEL_NAME_LEN_MAX);
    draft_value(c, scope, &here, model, EMIT_ARG);
}

static void put_cache(struct compiler *c, const struct place *at, const json_t *cache)
{
    struct place here = place_key(at, "cache");
    int64_t ms = 0;
    char text[40];

    if (!field_duration(&c->report, &here, cache, &ms))
        return;
    if (!c->idempotent)
        report_at(&c->report, &here,
                  "another call's answer will do only where a call may be made more than once; expected "
                  "`idempotent: true` beside `model`");
    snprintf(text, sizeof(text), ",\"cache_ms\":%lld", (long long)ms);
    draft_raw(c, text);
}

void put_request(struct compiler *c, const struct scope *scope, const struct place *at, json_t *const *f,
                 const struct request *request)
{
    struct place extra = place_key(at, "extra"), schema = place_key(at, "output_schema");
    struct place tools = place_key(at, "tools");

    put_name(c, scope, at, f[REQUEST_MODEL]);
    put_messages(c, scope, at, f, request);
    if (request->tools) {
        check_tools(c, &tools, request->tools);
        put_key(c, ",", "tools");
        draft_value(c, scope, &tools, request->tools, EMIT_VALUE);
    }
    put_settings(c, scope, at, f);
    if (request->schema) {
        if (f[REQUEST_RESPONSE_FORMAT])
            report_at(&c->report, &schema, "found `response_format` too, expected one of them");
        draft_raw(c, ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"output\","
                     "\"schema\":");
        json_put(&c->draft.raw, request->schema);
        draft_raw(c, "}}");
    }
    put_extra(c, scope, &extra, f[REQUEST_EXTRA], request->kind);
    draft_raw(c, "}");
}

void put_model(struct compiler *c, const struct scope *scope, const struct place *at, json_t *model)
{
    json_t *f[MODEL_NR];

    if (!fields_check(&c->report, at, model, "an object such as {\"input\": \"...\"}", model_fields, MODEL_NR,
                      f))
        return;
    put_request(
        c, scope, at, f,
        &(struct request){ .kind = "model", .tools = f[MODEL_TOOLS], .schema = f[REQUEST_OUTPUT_SCHEMA] });
    if (f[MODEL_CACHE])
        put_cache(c, at, f[MODEL_CACHE]);
    if (f[REQUEST_OUTPUT_SCHEMA]) {
        draft_raw(c, ",\"output_schema\":");
        json_put(&c->draft.raw, f[REQUEST_OUTPUT_SCHEMA]);
    }
    draft_raw(c, "}");
}
