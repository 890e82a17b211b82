#include "tools.h"

#include "client.h"

#include "cox/json.h"

#include <string.h>

/* ---------------------------------------------------------------- lists */

static void say(struct cox_buf *log, struct cox_slice name, const char *why)
{
    cox_buf_append_str(log, "mcp: left out the tool ");
    cox_json_quote(log, cox_slice(name.data, name.len < 100 ? name.len : 100));
    cox_buf_printf(log, ": %s\n", why);
}

static void put_member(struct cox_buf *out, struct cox_slice tool, const char *theirs, const char *ours,
                       enum cox_json_kind kind)
{
    struct cox_slice value;

    if (!cox_json_member(tool, theirs, &value) || cox_json_kind(value) != kind)
        return;
    cox_buf_printf(out, ",\"%s\":", ours);
    cox_json_compact(out, value);
}

/* NULL: it can be offered. */
static const char *why_not(struct cox_slice tool, struct cox_slice name, bool headers,
                           const struct cox_mapb *names)
{
    struct cox_buf unused = { 0 };
    struct cox_slice schema;

    if (name.len == 0 || name.len > MCP_TOOL_NAME_LEN_MAX)
        return "expected a name of 1 to 256 bytes";
    if (tool.len > MCP_TOOL_LEN_MAX)
        return "expected at most 256 KiB about a tool";
    if (!cox_json_member(tool, "inputSchema", &schema) || cox_json_kind(schema) != COX_JSON_OBJECT)
        return "expected an object as its input schema";
    if (cox_mapb_get(names, name))
        return "there is another one of that name";
    if (headers && !mcp_params_put(&unused, schema, cox_slice(NULL, 0)))
        return "its schema has an x-mcp-header where there must be none, or twice, or of no name of a header";
    return NULL;
}

static bool take(struct cox_buf *out, struct cox_slice tool, bool headers, struct cox_mapb *names,
                 struct cox_buf *log)
{
    static char seen;
    struct cox_slice raw = { 0 };
    struct cox_buf name = { 0 };
    const char *why;

    if (cox_json_member(tool, "name", &raw) && cox_json_kind(raw) == COX_JSON_STRING)
        cox_json_unquote(&name, raw);
    why = why_not(tool, cox_buf_slice(&name), headers, names);
    if (why) {
        say(log, cox_buf_slice(&name), why);
    } else {
        cox_mapb_set(names, cox_buf_slice(&name), &seen);
        cox_buf_append_str(out, out->len > 0 ? ",{\"name\":" : "{\"name\":");
        cox_json_quote(out, cox_buf_slice(&name));
        put_member(out, tool, "title", "title", COX_JSON_STRING);
        put_member(out, tool, "description", "description", COX_JSON_STRING);
        put_member(out, tool, "inputSchema", "input_schema", COX_JSON_OBJECT);
        put_member(out, tool, "outputSchema", "output_schema", COX_JSON_OBJECT);
        put_member(out, tool, "annotations", "annotations", COX_JSON_OBJECT);
        cox_buf_append_str(out, "}");
    }
    cox_buf_fini(&name);
    return !why;
}

int mcp_tools_take(struct cox_buf *out, struct cox_slice result, bool headers, struct cox_mapb *names,
                   struct cox_buf *log)
{
    struct cox_slice tools;
    int n = 0;

    if (!cox_json_member(result, "tools", &tools) || cox_json_kind(tools) != COX_JSON_ARRAY)
        return -1;
    for (struct cox_json_walk w = cox_json_walk(tools);
         cox_json_next(&w) && names->len <= MCP_TOOLS_MAX && out->len <= MCP_LIST_LEN_MAX;)
        n += take(out, w.value, headers, names, log);
    return n;
}

bool mcp_tools_find(struct cox_slice text, struct cox_slice name, struct cox_slice *ret)
{
    struct cox_buf list = { 0 }, plain = { 0 };
    bool found = false;
    struct cox_slice value;
    size_t at = 0;

    cox_json_unquote(&plain, name);
    cox_buf_append_str(&list, "[");
    cox_buf_append_slice(&list, text);
    cox_buf_append_str(&list, "]");
    for (struct cox_json_walk w = cox_json_walk(cox_buf_slice(&list)); !found && cox_json_next(&w);) {
        found = cox_json_member(w.value, "name", &value) && cox_json_string_is(value, cox_buf_slice(&plain));
        at = (size_t)(w.value.data - list.data) - 1;
        *ret = cox_slice(text.data + at, w.value.len);
    }
    cox_buf_fini(&list);
    cox_buf_fini(&plain);
    return found;
}

/* ---------------------------------------------------------------- results */

/* The texts among what a tool gave. */
static void put_texts(struct cox_buf *out, struct cox_slice content)
{
    struct cox_slice value;
    bool some = false;

    for (struct cox_json_walk w = cox_json_walk(content); cox_json_next(&w);) {
        if (!cox_json_member(w.value, "type", &value) || !cox_json_string_is(value, cox_slice_str("text")) ||
            !cox_json_member(w.value, "text", &value) || cox_json_kind(value) != COX_JSON_STRING)
            continue;
        if (some)
            cox_buf_append_str(out, "\n");
        cox_json_unquote(out, value);
        some = true;
    }
}

static const char *wrong_item(struct cox_slice content)
{
    struct cox_slice value;

    for (struct cox_json_walk w = cox_json_walk(content); cox_json_next(&w);)
        if (cox_json_kind(w.value) != COX_JSON_OBJECT || !cox_json_member(w.value, "type", &value) ||
            cox_json_kind(value) != COX_JSON_STRING)
            return "mcp: the tool's result: expected \"content\" to be a list of objects with a \"type\"";
    return NULL;
}

void mcp_result_read(struct cox_slice result, struct outcome *ret)
{
    struct cox_slice content = { 0 }, structured = { 0 }, value;
    bool has_content = cox_json_member(result, "content", &content);
    bool has_structured = cox_json_member(result, "structuredContent", &structured);
    bool failed = cox_json_member(result, "isError", &value) && cox_slice_is(value, "true");
    struct cox_buf text = { 0 };
    const char *why = NULL;

    if (has_content && cox_json_kind(content) != COX_JSON_ARRAY)
        why = "mcp: the tool's result: expected \"content\" to be a list";
    else if (!has_content && !has_structured)
        why = "mcp: the tool's result: expected \"content\" or \"structuredContent\"";
    else if (has_content)
        why = wrong_item(content);
    if (why) {
        ret->code = COX_CODE_OUTPUT_INVALID;
        outcome_say(ret, cox_slice_str(why));
        return;
    }
    put_texts(&text, content);
    cox_buf_append_str(&ret->output, "{\"content\":");
    cox_json_compact(&ret->output, has_content ? content : cox_slice_str("[]"));
    cox_buf_append_str(&ret->output, ",\"text\":");
    cox_json_quote(&ret->output, cox_buf_slice(&text));
    cox_buf_append_str(&ret->output, ",\"structured_content\":");
    cox_json_compact(&ret->output, has_structured ? structured : cox_slice_str("null"));
    cox_buf_append_str(&ret->output, "}");
    if (failed) {
        ret->code = COX_CODE_INTERNAL;
        outcome_say(ret, text.len > 0 ? cox_buf_slice(&text)
                                      : cox_slice_str("mcp: the tool failed, and said nothing about it"));
    }
    cox_buf_fini(&text);
}
