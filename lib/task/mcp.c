/* What `mcp` says: a server of the Model Context Protocol, and what is asked of it. */
#include "compile.h"

#include <string.h>

enum {
    MCP_URL,
    MCP_HEADERS,
    MCP_COMMAND,
    MCP_ARGS,
    MCP_ENV,
    MCP_SANDBOX,
    MCP_TOOL,
    MCP_ARGUMENTS,
    MCP_LIST,
    MCP_NR
};
static const struct field mcp_fields[MCP_NR] = {
    [MCP_URL] = { "url", WANT_STRING, FIELD_OPTIONAL, "a URL such as \"https://example.org/mcp\"" },
    [MCP_HEADERS] = { "headers", WANT_OBJECT, FIELD_OPTIONAL, "an object of strings" },
    [MCP_COMMAND] = { "command", WANT_STRING, FIELD_OPTIONAL, "the program that is the server" },
    [MCP_ARGS] = { "args", WANT_LIST, FIELD_OPTIONAL, "a list of strings, its arguments" },
    [MCP_ENV] = { "env", WANT_OBJECT, FIELD_OPTIONAL, "an object of strings" },
    [MCP_SANDBOX] = { "sandbox", WANT_STRING, FIELD_OPTIONAL, "\"none\", \"net\" or \"strict\"" },
    [MCP_TOOL] = { "tool", WANT_STRING, FIELD_OPTIONAL, "the name of one of the server's tools" },
    [MCP_ARGUMENTS] = { "arguments", WANT_OBJECT | WANT_STRING, FIELD_OPTIONAL,
                        "an object, or one expression that comes to one" },
    [MCP_LIST] = { "list", WANT_BOOL, FIELD_OPTIONAL, "true" },
};

/* Members that say something of one kind of server stand beside that one. */
static void check_server(struct compiler *c, const struct place *at, json_t *const f[MCP_NR])
{
    static const int of_command[] = { MCP_ARGS, MCP_ENV, MCP_SANDBOX };
    struct place headers = place_key(at, "headers"), command = place_key(at, "command");

    if (!f[MCP_URL] == !f[MCP_COMMAND]) {
        report_at(&c->report, at, "found %s, expected exactly one of `url` and `command`",
                  f[MCP_URL] ? "`url` and `command`" : "neither");
        return;
    }
    if (f[MCP_HEADERS] && !f[MCP_URL])
        report_at(&c->report, &headers, "are of requests; expected `url` beside it");
    if (f[MCP_COMMAND] && json_string_length(f[MCP_COMMAND]) == 0)
        report_at(&c->report, &command, "found no program, expected the one that is the server");
    for (size_t i = 0; i < sizeof(of_command) / sizeof(of_command[0]); i++) {
        struct place here = place_key(at, mcp_fields[of_command[i]].name);

        if (f[of_command[i]] && !f[MCP_COMMAND])
            report_at(&c->report, &here, "is about a process; expected `command` beside it");
    }
}

static void put_args(struct compiler *c, const struct scope *scope, const struct place *at,
                     const json_t *args)
{
    draft_raw(c, ",\"args\":[");
    for (size_t i = 0; i < json_array_size(args); i++) {
        struct place here = place_index(at, i);
        json_t *value = json_array_get(args, i);

        if (i > 0)
            draft_raw(c, ",");
        if (json_is_string(value))
            draft_value(c, scope, &here, value, EMIT_ARG);
        else
            report_found(&c->report, &here, value, "a string");
    }
    draft_raw(c, "]");
}

/* Secrets go where the server alone sees them: not into its arguments. */
static void put_server(struct compiler *c, const struct scope *scope, const struct place *at,
                       json_t *const f[MCP_NR])
{
    struct place headers = place_key(at, "headers"), command = place_key(at, "command");
    struct place args = place_key(at, "args"), env = place_key(at, "env");
    struct place sandbox = place_key(at, "sandbox");

    check_server(c, at, f);
    draft_raw(c, "{");
    if (f[MCP_COMMAND]) {
        c->secrets.argv = true;
        draft_raw(c, "\"command\":");
        draft_value(c, scope, &command, f[MCP_COMMAND], EMIT_ARG);
        if (f[MCP_ARGS])
            put_args(c, scope, &args, f[MCP_ARGS]);
        c->secrets.argv = false;
    }
    secrets_offer(c, at, "mcp");
    if (f[MCP_URL] && !f[MCP_COMMAND]) {
        put_url(c, scope, at, f[MCP_URL]);
        put_headers(c, scope, &headers, f[MCP_HEADERS]);
    }
    if (f[MCP_ENV]) {
        draft_raw(c, ",\"env\":");
        put_env(c, scope, &env, f[MCP_ENV]);
    }
    if (f[MCP_SANDBOX])
        put_sandbox(c, &sandbox, f[MCP_SANDBOX]);
    draft_raw(c, "}");
    secrets_offer(c, NULL, NULL);
}

static void put_question(struct compiler *c, const struct scope *scope, const struct place *at,
                         json_t *const f[MCP_NR])
{
    struct place tool = place_key(at, "tool"), arguments = place_key(at, "arguments");
    struct place list = place_key(at, "list");

    if (f[MCP_LIST] && !json_is_true(f[MCP_LIST]))
        report_found(&c->report, &list, f[MCP_LIST], mcp_fields[MCP_LIST].expected);
    if (!f[MCP_TOOL] == !f[MCP_LIST]) {
        report_at(&c->report, at, "found %s, expected exactly one of `tool` and `list`",
                  f[MCP_TOOL] ? "`tool` and `list`" : "neither");
        return;
    }
    if (f[MCP_LIST]) {
        if (f[MCP_ARGUMENTS])
            report_at(&c->report, &arguments, "are of a tool; expected `tool` beside it");
        draft_raw(c, ",\"list\":true");
        return;
    }
    if (json_string_length(f[MCP_TOOL]) == 0)
        report_found(&c->report, &tool, f[MCP_TOOL], mcp_fields[MCP_TOOL].expected);
    draft_raw(c, ",\"tool\":");
    draft_value(c, scope, &tool, f[MCP_TOOL], EMIT_ARG);
    draft_raw(c, ",\"arguments\":");
    if (json_is_string(f[MCP_ARGUMENTS]) && !template_is_expr(json_slice(f[MCP_ARGUMENTS])))
        report_found(&c->report, &arguments, f[MCP_ARGUMENTS], mcp_fields[MCP_ARGUMENTS].expected);
    secrets_offer(c, at, NULL);
    if (f[MCP_ARGUMENTS])
        draft_value(c, scope, &arguments, f[MCP_ARGUMENTS], EMIT_VALUE);
    else
        draft_raw(c, "{}");
}

static void put_tool_of_args(struct compiler *c, const struct scope *scope, const struct place *at)
{
    static const char *const parts[][2] = { { ",\"tool\":", "${{ args.tool }}" },
                                            { ",\"arguments\":", "${{ args.arguments }}" } };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        json_t *text = json_string(parts[i][1]);

        draft_raw(c, parts[i][0]);
        draft_value(c, scope, at, text, i == 0 ? EMIT_ARG : EMIT_VALUE);
        json_decref(text);
    }
}

void put_mcp_tools(struct compiler *c, const struct scope *scope, const struct place *at, json_t *mcp,
                   bool list)
{
    static const int of_steps[] = { MCP_TOOL, MCP_ARGUMENTS, MCP_LIST };
    json_t *f[MCP_NR];

    if (!fields_check(&c->report, at, mcp, "an object such as {\"url\": \"https://...\"}", mcp_fields, MCP_NR,
                      f))
        return;
    for (size_t i = 0; i < sizeof(of_steps) / sizeof(of_steps[0]); i++) {
        struct place here = place_key(at, mcp_fields[of_steps[i]].name);

        if (f[of_steps[i]])
            report_at(&c->report, &here,
                      "is of a step; an agent's model says which tool it calls, and with what");
    }
    draft_raw(c, "{\"mcp\":");
    put_server(c, scope, at, f);
    if (list)
        draft_raw(c, ",\"list\":true");
    else
        put_tool_of_args(c, scope, at);
    draft_raw(c, "}");
}

void put_mcp(struct compiler *c, const struct scope *scope, const struct place *at, json_t *mcp)
{
    json_t *f[MCP_NR];

    if (!fields_check(&c->report, at, mcp, "an object such as {\"url\": \"https://...\", \"tool\": \"x\"}",
                      mcp_fields, MCP_NR, f))
        return;
    draft_raw(c, "{\"mcp\":");
    put_server(c, scope, at, f);
    put_question(c, scope, at, f);
    draft_raw(c, "}");
}
