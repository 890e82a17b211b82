#include "conversation.h"

#include "cox/json.h"

static bool member(struct cox_slice object, const char *name, enum cox_json_kind kind, struct cox_slice *ret)
{
    return cox_json_member(object, name, ret) && cox_json_kind(*ret) == kind;
}

static void put_comma(struct cox_buf *out, bool *first)
{
    if (!*first)
        cox_buf_append_str(out, ",");
    *first = false;
}

/* A list's items, behind those that stand there. */
static void put_items(struct cox_buf *out, struct cox_slice list, bool *first)
{
    for (struct cox_json_walk w = cox_json_walk(list); cox_json_next(&w);) {
        put_comma(out, first);
        cox_buf_append_slice(out, w.value);
    }
}

/* ---- messages ---- */

/* `heard`: results of its calls follow. Without, it is as if it had not made them: servers refuse calls that
 * nobody has answered. */
static void put_answer(struct cox_buf *out, struct cox_slice output, bool heard)
{
    struct cox_slice content, calls;
    bool called = heard && member(output, "tool_calls", COX_JSON_ARRAY, &calls);

    cox_buf_append_str(out, "{\"role\":\"assistant\",\"content\":");
    if (member(output, "content", COX_JSON_STRING, &content))
        cox_buf_append_slice(out, content);
    else
        cox_buf_append_str(out, called ? "null" : "\"\"");
    if (called) {
        cox_buf_append_str(out, ",\"tool_calls\":");
        cox_buf_append_slice(out, calls);
    }
    cox_buf_append_str(out, "}");
}

static void put_result(struct cox_buf *out, struct cox_slice value, struct cox_slice id)
{
    struct cox_buf compact = { 0 };

    cox_buf_append_str(out, "{\"role\":\"tool\",\"tool_call_id\":");
    cox_buf_append_slice(out, id);
    cox_buf_append_str(out, ",\"content\":");
    if (cox_json_kind(value) == COX_JSON_STRING) {
        cox_buf_append_slice(out, value);
    } else {
        cox_json_compact(&compact, value);
        cox_json_quote(out, cox_buf_slice(&compact));
    }
    cox_buf_append_str(out, "}");
    cox_buf_fini(&compact);
}

static enum cox_err put_entry(struct cox_buf *out, struct cox_slice entry, struct cox_slice next)
{
    struct cox_slice value, id;

    if (cox_json_member(entry, "answer", &value)) {
        put_answer(out, value, cox_json_member(next, "result", &id));
    } else if (cox_json_member(entry, "result", &value) && member(entry, "id", COX_JSON_STRING, &id)) {
        put_result(out, value, id);
    } else if (member(entry, "text", COX_JSON_STRING, &value)) {
        cox_buf_append_str(out, "{\"role\":\"user\",\"content\":");
        cox_buf_append_slice(out, value);
        cox_buf_append_str(out, "}");
    } else {
        return COX_ERR_INVALID;
    }
    return COX_OK;
}

static enum cox_err put_messages(struct cox_buf *out, struct cox_slice begun, struct cox_slice said)
{
    enum cox_err err = COX_OK;
    bool first = true;

    cox_buf_append_str(out, "\"messages\":[");
    put_items(out, begun, &first);
    struct cox_json_walk ahead = cox_json_walk(said);

    (void)cox_json_next(&ahead);
    for (struct cox_json_walk w = cox_json_walk(said); !err && cox_json_next(&w);) {
        bool more = cox_json_next(&ahead);

        put_comma(out, &first);
        err = put_entry(out, w.value, more ? ahead.value : cox_slice_str("{}"));
    }
    cox_buf_append_str(out, "]");
    return err;
}

/* ---- tools ---- */

static void put_tool(struct cox_buf *out, struct cox_slice tool)
{
    static const char *const members[] = { "name", "description", "parameters" };
    struct cox_slice value;
    bool first = true;

    cox_buf_append_str(out, "{\"type\":\"function\",\"function\":{");
    for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
        if (!cox_json_member(tool, members[i], &value))
            continue;
        put_comma(out, &first);
        cox_buf_printf(out, "\"%s\":", members[i]);
        cox_buf_append_slice(out, value);
    }
    cox_buf_append_str(out, "}}");
}

static void put_tools(struct cox_buf *out, struct cox_slice begun, struct cox_slice tools)
{
    bool first = true;

    if (cox_json_count(begun) + cox_json_count(tools) == 0)
        return;
    cox_buf_append_str(out, ",\"tools\":[");
    put_items(out, begun, &first);
    for (struct cox_json_walk w = cox_json_walk(tools); cox_json_next(&w);) {
        put_comma(out, &first);
        put_tool(out, w.value);
    }
    cox_buf_append_str(out, "]");
}

enum cox_err conversation_put(struct cox_slice conversation, struct cox_buf *out)
{
    const struct cox_slice none = cox_slice_str("[]");
    struct cox_slice spec, request, tools, said, messages = none, given = none;
    enum cox_err err;

    if (!member(conversation, "request", COX_JSON_OBJECT, &spec) ||
        !member(spec, "request", COX_JSON_OBJECT, &request) ||
        !member(conversation, "tools", COX_JSON_ARRAY, &tools) ||
        !member(conversation, "said", COX_JSON_ARRAY, &said))
        return COX_ERR_INVALID;
    (void)member(request, "messages", COX_JSON_ARRAY, &messages);
    (void)member(request, "tools", COX_JSON_ARRAY, &given);
    cox_buf_append_str(out, "{");
    err = put_messages(out, messages, said);
    put_tools(out, given, tools);
    for (struct cox_json_walk w = cox_json_walk(request); cox_json_next(&w);) {
        if (cox_json_string_is(w.key, cox_slice_str("messages")) ||
            cox_json_string_is(w.key, cox_slice_str("tools")))
            continue;
        cox_buf_append_str(out, ",");
        cox_buf_append_slice(out, w.key);
        cox_buf_append_str(out, ":");
        cox_buf_append_slice(out, w.value);
    }
    cox_buf_append_str(out, "}");
    return err;
}
