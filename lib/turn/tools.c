#include "cox/base/map.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/schema.h"
#include "cox/turn.h"

#include <string.h>

#define NAME_LEN_MAX 64u
#define DESCRIPTION_LEN_MAX 16384u

static const char any_object[] = "{\"type\":\"object\"}";
static const char input_string[] =
    "{\"type\":\"object\",\"properties\":{\"input\":{\"type\":\"string\"}},\"required\":[\"input\"]}";
static const char question[] = "{\"type\":\"object\",\"properties\":{\"question\":{\"type\":\"string\"}},"
                               "\"required\":[\"question\"]}";

struct tools {
    struct cox_slice config;
    const struct cox_turn_programs *programs;
    struct cox_buf *out, *error;
    struct cox_mapb taken; /* names -> not NULL */
    uint32_t n;
    enum cox_err err;
};

static bool member(struct cox_slice object, const char *name, enum cox_json_kind kind, struct cox_slice *ret)
{
    return cox_json_member(object, name, ret) && cox_json_kind(*ret) == kind;
}

static bool is_true(struct cox_slice object, const char *name)
{
    struct cox_slice v;

    return cox_json_member(object, name, &v) && cox_slice_is(v, "true");
}

static void get_text(struct cox_slice object, const char *name, struct cox_buf *out)
{
    struct cox_slice v;

    if (member(object, name, COX_JSON_STRING, &v))
        cox_json_unquote(out, v);
}

static void refuse(struct tools *t, enum cox_err err, struct cox_slice name, const char *why)
{
    if (t->err)
        return;
    t->err = err;
    cox_buf_printf(t->error, "tool %.*s: %s", (int)name.len, (const char *)name.data, why);
}

/* ---- names ---- */

/* What models take: other bytes become "_". */
static void put_name(struct cox_buf *out, struct cox_slice name)
{
    for (size_t i = 0; i < name.len && out->len < NAME_LEN_MAX; i++) {
        uint8_t b = name.data[i], letter = b | 0x20;
        bool takes = (letter >= 'a' && letter <= 'z') || (b >= '0' && b <= '9') || b == '_' || b == '-';

        cox_buf_append(out, takes ? &b : (const uint8_t *)"_", 1);
    }
    if (out->len == 0)
        cox_buf_append_str(out, "tool");
}

/* The second of two alike is "NAME_2". */
static void make_unique(struct tools *t, struct cox_buf *name)
{
    size_t len = name->len;

    for (unsigned i = 2; cox_mapb_get(&t->taken, cox_buf_slice(name)); i++) {
        struct cox_buf suffix = { 0 };

        cox_buf_printf(&suffix, "_%u", i);
        name->len = len + suffix.len > NAME_LEN_MAX ? NAME_LEN_MAX - suffix.len : len;
        cox_buf_append_slice(name, cox_buf_slice(&suffix));
        cox_buf_fini(&suffix);
    }
    cox_mapb_set(&t->taken, cox_buf_slice(name), t);
}

/* ---- one tool ---- */

struct tool {
    struct cox_slice name, description, parameters; /* name and description: text, not JSON */
    int64_t step;
    struct cox_slice remote; /* JSON; empty: none */
    bool approve, ask;
    bool is_own; /* the document's, whose name is taken already */
};

static void put_cut(struct cox_buf *out, struct cox_slice text)
{
    size_t at = 0;

    for (size_t n; at < text.len && (n = cox_utf8_len(cox_slice(text.data + at, text.len - at))) > 0; at += n)
        if (at + n > DESCRIPTION_LEN_MAX)
            break;
    cox_json_quote(out, cox_slice(text.data, at));
}

static void put_tool(struct tools *t, const struct tool *tool)
{
    struct cox_buf name = { 0 }, why = { 0 };

    if (t->err)
        return;
    if (t->n == COX_TOOLS_MAX) {
        refuse(t, COX_ERR_INVALID, tool->name, "it is one too many for an agent");
        return;
    }
    if (cox_json_check(tool->parameters, NULL) != COX_OK ||
        cox_schema_check(tool->parameters, &why) != COX_OK) {
        cox_buf_append_str(&why, why.len > 0 ? "" : "not JSON");
        refuse(t, COX_ERR_INVALID, tool->name, cox_buf_cstr(&why));
        cox_buf_fini(&why);
        return;
    }
    cox_buf_fini(&why);
    put_name(&name, tool->name);
    if (!tool->is_own)
        make_unique(t, &name);
    cox_buf_append_str(t->out, t->n++ > 0 ? ",{\"name\":" : "{\"name\":");
    cox_json_quote(t->out, cox_buf_slice(&name));
    cox_buf_append_str(t->out, ",\"description\":");
    put_cut(t->out, tool->description);
    cox_buf_append_str(t->out, ",\"parameters\":");
    cox_buf_append_slice(t->out, cox_json_trim(tool->parameters));
    if (tool->ask)
        cox_buf_append_str(t->out, ",\"ask\":true");
    else
        cox_buf_printf(t->out, ",\"step\":%lld", (long long)tool->step);
    if (tool->remote.len > 0) {
        cox_buf_append_str(t->out, ",\"remote\":");
        cox_buf_append_slice(t->out, tool->remote);
    }
    cox_buf_append_str(t->out, tool->approve ? ",\"approve\":true}" : "}");
    cox_buf_fini(&name);
}

static void from_config(struct tools *t, struct cox_slice json)
{
    struct cox_buf name = { 0 }, description = { 0 }, uses = { 0 };
    struct cox_slice v;
    struct cox_turn_program program = { 0 };
    struct tool tool = { .ask = is_true(json, "ask"), .approve = is_true(json, "approve"), .is_own = true };

    get_text(json, "name", &name);
    get_text(json, "description", &description);
    get_text(json, "uses", &uses);
    if (cox_json_member(json, "step", &v))
        (void)cox_json_int(v, &tool.step);
    if (member(json, "parameters", COX_JSON_OBJECT, &v))
        tool.parameters = v;
    if (uses.len > 0 && (tool.parameters.len == 0 || description.len == 0)) {
        if (!t->programs->find(t->programs->user, cox_buf_slice(&uses), &program)) {
            if (!t->err)
                cox_buf_printf(t->error, "no worker offers %s", cox_buf_cstr(&uses));
            t->err = t->err ? t->err : COX_ERR_NOT_FOUND;
        }
        if (description.len == 0)
            cox_buf_append_slice(&description, program.description);
        if (tool.parameters.len == 0)
            tool.parameters = program.input_schema;
    }
    if (tool.parameters.len == 0)
        tool.parameters = tool.ask       ? cox_slice_str(question)
                          : uses.len > 0 ? cox_slice_str(any_object)
                                         : cox_slice_str(input_string);
    if (tool.ask && description.len == 0)
        cox_buf_append_str(&description, "Ask the user a question, and wait for the answer.");
    tool.name = cox_buf_slice(&name);
    tool.description = cox_buf_slice(&description);
    put_tool(t, &tool);
    cox_buf_fini(&name);
    cox_buf_fini(&description);
    cox_buf_fini(&uses);
}

/* ---- tools of a server ---- */

/* Without a list, `otherwise`. */
static bool is_listed(struct cox_slice source, const char *list, struct cox_slice name, bool otherwise)
{
    struct cox_slice patterns;
    struct cox_buf pattern = { 0 };
    bool is = false;

    if (!member(source, list, COX_JSON_ARRAY, &patterns))
        return otherwise;
    for (struct cox_json_walk w = cox_json_walk(patterns); !is && cox_json_next(&w);) {
        cox_buf_clear(&pattern);
        cox_json_unquote(&pattern, w.value);
        is = cox_slice_like(name, cox_buf_slice(&pattern));
    }
    cox_buf_fini(&pattern);
    return is;
}

static void from_server(struct tools *t, struct cox_slice source, struct cox_slice list)
{
    struct cox_slice listed, v;

    if (cox_json_check(list, NULL) != COX_OK || !member(list, "tools", COX_JSON_ARRAY, &listed)) {
        refuse(t, COX_ERR_INVALID, cox_slice_str("of a server"), "its list of tools is none");
        return;
    }
    for (struct cox_json_walk w = cox_json_walk(listed); !t->err && cox_json_next(&w);) {
        struct cox_buf name = { 0 }, description = { 0 };
        struct tool tool = { .parameters = cox_slice_str(any_object) };

        get_text(w.value, "name", &name);
        get_text(w.value, "description", &description);
        tool.name = cox_buf_slice(&name);
        tool.description = cox_buf_slice(&description);
        if (cox_json_member(source, "step", &v))
            (void)cox_json_int(v, &tool.step);
        if (member(w.value, "input_schema", COX_JSON_OBJECT, &v))
            tool.parameters = v;
        tool.approve = is_listed(source, "approve", tool.name, false);
        if (cox_json_member(w.value, "name", &v) && is_listed(source, "allow", tool.name, true)) {
            tool.remote = v;
            put_tool(t, &tool);
        }
        cox_buf_fini(&name);
        cox_buf_fini(&description);
    }
}

/* What the document calls its tools nobody else's is called, wherever they stand. */
static void take_own_names(struct tools *t, struct cox_slice sources)
{
    struct cox_buf name = { 0 };

    for (struct cox_json_walk w = cox_json_walk(sources); cox_json_next(&w);) {
        if (is_true(w.value, "mcp"))
            continue;
        cox_buf_clear(&name);
        get_text(w.value, "name", &name);
        cox_mapb_set(&t->taken, cox_buf_slice(&name), t);
    }
    cox_buf_fini(&name);
}

enum cox_err cox_turn_tools(struct cox_slice config, const struct cox_slice *lists, size_t n_lists,
                            const struct cox_turn_programs *programs, struct cox_buf *tools,
                            struct cox_buf *error)
{
    struct tools t = { .config = config, .programs = programs, .out = tools, .error = error };
    struct cox_slice sources;
    size_t list = 0;

    cox_buf_append_str(tools, "[");
    if (member(config, "tools", COX_JSON_ARRAY, &sources)) {
        take_own_names(&t, sources);
        for (struct cox_json_walk w = cox_json_walk(sources); !t.err && cox_json_next(&w);) {
            if (!is_true(w.value, "mcp"))
                from_config(&t, w.value);
            else if (list < n_lists)
                from_server(&t, w.value, lists[list++]);
        }
    }
    cox_buf_append_str(tools, "]");
    cox_mapb_fini(&t.taken);
    return t.err;
}
