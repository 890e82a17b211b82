/* An agent's tools: their bodies, and how the model is told of them. */
#include "model.h"

#include "cox/base/plant.h"
#include "cox/schema.h"

#include <stdio.h>
#include <string.h>

#define TOOL_NAME_LEN_MAX 64u
#define NAME_EXPECTED "a name of a-z, A-Z, 0-9, _ and -, 1 to 64 long"
#define NAMES_EXPECTED "the name of a tool, in which * is any characters"

enum { TOOL_NAME = CALL_NR, TOOL_DESCRIPTION, TOOL_PARAMETERS, TOOL_ALLOW, TOOL_APPROVE, TOOL_ASK, TOOL_NR };
static const struct field tool_fields[TOOL_NR] = {
    CALL_FIELDS,
    [TOOL_NAME] = { "name", WANT_STRING, FIELD_OPTIONAL, NAME_EXPECTED },
    [TOOL_DESCRIPTION] = { "description", WANT_STRING, FIELD_OPTIONAL, "a string, for the model" },
    [TOOL_PARAMETERS] = { "parameters", WANT_OBJECT, FIELD_OPTIONAL, "an object, a JSON Schema" },
    [TOOL_ALLOW] = { "allow", WANT_LIST, FIELD_OPTIONAL, "a list of names of the server's tools" },
    [TOOL_APPROVE] = { "approve", WANT_LIST, FIELD_OPTIONAL, "a list of names of the server's tools" },
    [TOOL_ASK] = { "ask_user", WANT_BOOL, FIELD_OPTIONAL, "true" },
};

/* Of one agent, while its tools are compiled. */
struct tools {
    struct compiler *c;
    const struct call_source *agent;
    const struct place *at; /* the agent */
    struct scope scope;
    const json_t *list;
    const json_t *approve;
    struct cox_buf *config;
    uint32_t next; /* the body of the next tool */
};

struct tool {
    struct place at;
    size_t i;
    json_t *json;
    json_t *f[TOOL_NR];
    enum cox_step_kind kind;
    char name[TOOL_NAME_LEN_MAX + 1]; /* empty: none */
};

/* ---- names ---- */

static bool is_taken_by_agents(const char *name)
{
    return strcmp(name, "model") == 0 || strcmp(name, "approval") == 0 || strcmp(name, "fallback") == 0;
}

/* Of a program without its version, and of one in a bundle what its file is called. */
static struct cox_slice program_name(struct cox_slice uses)
{
    const uint8_t *slash = uses.len > 0 ? memrchr(uses.data, '/', uses.len) : NULL;
    struct cox_slice name = uses;
    const uint8_t *end;

    if (slash)
        name = cox_slice(slash + 1, (size_t)(uses.data + uses.len - slash) - 1);
    end = name.len > 0 ? memchr(name.data, slash ? '.' : '@', name.len) : NULL;
    return end ? cox_slice(name.data, (size_t)(end - name.data)) : name;
}

static void tool_name(const json_t *tool, char ret[TOOL_NAME_LEN_MAX + 1])
{
    const json_t *name = json_object_get(tool, "name"), *uses = json_object_get(tool, "uses");
    struct cox_slice s = { 0 };

    if (json_object_get(tool, "ask_user"))
        s = cox_slice_str("ask_user");
    if (json_is_string(uses))
        s = program_name(json_slice(uses));
    if (json_is_string(name))
        s = json_slice(name);
    if (!tool_name_ok(s))
        s.len = 0;
    snprintf(ret, TOOL_NAME_LEN_MAX + 1, "%.*s", (int)s.len, s.len > 0 ? (const char *)s.data : "");
}

uint32_t tool_bodies(const json_t *tool)
{
    if (!json_is_object(tool) || json_object_get(tool, "ask_user"))
        return 0;
    return json_object_get(tool, "mcp") ? 2 : 1;
}

void tool_part(const json_t *tool, size_t i, uint32_t body, char ret[TOOL_PART_LEN])
{
    char name[TOOL_NAME_LEN_MAX + 1];

    tool_name(tool, name);
    if (json_object_get(tool, "mcp"))
        snprintf(ret, TOOL_PART_LEN, "mcp.%zu.%s", i, body == 0 ? "list" : "call");
    else if (*name && !is_taken_by_agents(name))
        snprintf(ret, TOOL_PART_LEN, "%s", name);
    else
        snprintf(ret, TOOL_PART_LEN, "%zu", i);
}

static void check_name(struct tools *ts, const struct tool *t)
{
    struct place here = place_key(&t->at, "name");
    struct report *report = &ts->c->report;

    if (!*t->name && t->f[TOOL_NAME])
        report_found(report, &here, t->f[TOOL_NAME], NAME_EXPECTED);
    else if (!*t->name)
        report_at(report, &here, "missing; expected " NAME_EXPECTED);
    else if (is_taken_by_agents(t->name))
        report_at(report, &here, "`%s` is a part of every agent; expected another name", t->name);
    for (size_t i = 0; i < t->i && *t->name; i++) {
        char other[TOOL_NAME_LEN_MAX + 1];

        tool_name(json_array_get(ts->list, i), other);
        if (strcmp(other, t->name) != 0 || json_object_get(json_array_get(ts->list, i), "mcp"))
            continue;
        report_at(report, &here, "tools[%zu] is called `%s` too; expected a name of its own", i, t->name);
        return;
    }
}

/* ---- what the model is told ---- */

static void put_member(struct cox_buf *out, const char *name, struct cox_slice text)
{
    cox_buf_printf(out, ",\"%s\":", name);
    cox_json_quote(out, text);
}

void compile_schema(struct compiler *c, const struct place *at, const json_t *schema)
{
    struct cox_buf text = { 0 }, why = { 0 };

    json_put(&text, schema);
    if (cox_schema_check(cox_buf_slice(&text), &why) != COX_OK)
        report_at(&c->report, at, "not a JSON Schema that arguments and answers can be held against: %s",
                  cox_buf_cstr(&why));
    cox_buf_fini(&text);
    cox_buf_fini(&why);
}

/* Of a program without parameters, workers say what they are. */
static void put_parameters(struct tools *ts, const struct tool *t)
{
    struct place here = place_key(&t->at, "parameters");
    const json_t *parameters = t->f[TOOL_PARAMETERS];

    if (t->kind == COX_KIND_USES && !uses_of_bundle(json_slice(t->f[CALL_USES])))
        put_member(ts->config, "uses", json_slice(t->f[CALL_USES]));
    else if (!parameters && t->kind == COX_KIND_USES)
        cox_buf_append_str(ts->config, ",\"parameters\":{\"type\":\"object\"}");
    else if (!parameters && t->kind == COX_KIND_AGENT)
        cox_buf_append_str(ts->config, ",\"parameters\":{\"type\":\"object\",\"properties\":{\"input\":{"
                                       "\"type\":\"string\"}},\"required\":[\"input\"]}");
    else if (!parameters)
        cox_buf_append_str(ts->config, ",\"parameters\":{\"type\":\"object\",\"properties\":{}}");
    if (!parameters)
        return;
    compile_schema(ts->c, &here, parameters);
    cox_buf_append_str(ts->config, ",\"parameters\":");
    json_put(ts->config, parameters);
}

static bool matches(const json_t *pattern, const char *name)
{
    return json_is_string(pattern) && cox_slice_like(cox_slice_str(name), json_slice(pattern));
}

static bool names_some(const json_t *patterns, const char *name)
{
    for (size_t i = 0; i < json_array_size(patterns); i++) {
        if (matches(json_array_get(patterns, i), name))
            return true;
    }
    return false;
}

static void put_tool(struct tools *ts, const struct tool *t)
{
    struct place description = place_key(&t->at, "description");
    const json_t *told = t->f[TOOL_DESCRIPTION];

    cox_buf_append_str(ts->config, "{\"name\":");
    cox_json_quote(ts->config, cox_slice_str(t->name));
    if (told && strstr(json_string_value(told), "${{"))
        report_at(&ts->c->report, &description, "is shown to the model as it is; expected no `${{`");
    if (told)
        put_member(ts->config, "description", json_slice(told));
    if (t->f[TOOL_ASK]) {
        cox_buf_append_str(ts->config, ",\"ask\":true}");
        return;
    }
    put_parameters(ts, t);
    cox_buf_printf(ts->config, ",\"step\":%u", ts->next - ts->agent->inner_first);
    if (names_some(ts->approve, t->name))
        cox_buf_append_str(ts->config, ",\"approve\":true");
    cox_buf_append_str(ts->config, "}");
}

/* ---- bodies ---- */

/* What runs for a call of the tool. Tools with files share the agent's. */
static void compile_body(struct tools *ts, struct tool *t)
{
    struct compiler *c = ts->c;
    struct planned *plan = &c->plan[ts->next];
    struct call_source source = { .f = t->f,
                                  .kind = t->kind,
                                  .owner = ts->next,
                                  .inner_first = ts->next + 1,
                                  .inner_end = ts->next + plan->n_inner + 1,
                                  .depth = { .agents = ts->agent->depth.agents + 1 } };
    json_t *args = NULL;

    if (t->kind == COX_KIND_USES && !t->f[CALL_WITH])
        t->f[CALL_WITH] = args = json_string("${{ args }}");
    if (t->kind == COX_KIND_AGENT)
        source.input = t->f[TOOL_PARAMETERS] ? "${{ args }}" : "${{ args.input }}";
    plan->kind = t->kind;
    plan->call = compile_call(c, &t->at, &ts->scope, &source);
    plan->extras = COX_IMAGE_NONE;
    if (args)
        t->f[CALL_WITH] = NULL;
    json_decref(args);
    if (COX_PLANTED("tools-without-files"))
        return;
    if (t->kind == COX_KIND_RUN || t->kind == COX_KIND_USES || t->kind == COX_KIND_MCP ||
        t->kind == COX_KIND_AGENT)
        plan->extras =
            image_put_extras(&c->image, &(struct cox_image_extras){ .affinity = COX_AFFINITY_WORKSPACE,
                                                                    .affinity_step = ts->agent->owner,
                                                                    .concurrency_key = COX_IMAGE_NONE,
                                                                    .rate_key = COX_IMAGE_NONE,
                                                                    .artifacts = COX_IMAGE_NONE });
}

/* ---- tools ---- */

static void refuse_members(struct tools *ts, const struct tool *t, const int *fields, size_t n,
                           const char *why)
{
    for (size_t i = 0; i < n; i++) {
        struct place here = place_key(&t->at, tool_fields[fields[i]].name);

        if (t->f[fields[i]])
            report_at(&ts->c->report, &here, "%s", why);
    }
}

static void compile_ask(struct tools *ts, struct tool *t)
{
    struct place ask = place_key(&t->at, "ask_user");

    if (!json_is_true(t->f[TOOL_ASK]))
        report_found(&ts->c->report, &ask, t->f[TOOL_ASK], tool_fields[TOOL_ASK].expected);
    for (int i = 0; i < TOOL_NR; i++) {
        struct place here = place_key(&t->at, tool_fields[i].name);

        if (t->f[i] && i != TOOL_ASK && i != TOOL_NAME && i != TOOL_DESCRIPTION)
            report_at(
                &ts->c->report, &here,
                "`ask_user` asks a person and runs nothing; expected `name` and `description` beside it");
    }
    check_name(ts, t);
    put_tool(ts, t);
}

/* ---- servers ---- */

static void put_patterns(struct tools *ts, const struct place *at, const json_t *patterns, bool *first)
{
    for (size_t i = 0; i < json_array_size(patterns); i++) {
        const json_t *pattern = json_array_get(patterns, i);
        struct place here = place_index(at, i);

        if (!json_is_string(pattern)) {
            report_found(&ts->c->report, &here, pattern, NAMES_EXPECTED);
            continue;
        }
        cox_buf_append_str(ts->config, *first ? "" : ",");
        cox_json_quote(ts->config, json_slice(pattern));
        *first = false;
    }
}

/* What is not allowed needs no approval: who names it has misspelled one of the two. */
static void check_allowed_names(struct tools *ts, const struct place *at, const struct tool *t)
{
    for (size_t i = 0; t->f[TOOL_ALLOW] && i < json_array_size(t->f[TOOL_APPROVE]); i++) {
        const json_t *name = json_array_get(t->f[TOOL_APPROVE], i);
        struct place here = place_index(at, i);

        if (json_is_string(name) && !strchr(json_string_value(name), '*') &&
            !names_some(t->f[TOOL_ALLOW], json_string_value(name)))
            report_found(&ts->c->report, &here, name, "one of the tools that `allow` names");
    }
}

/* Names that the agent's `approve` has may be of any server's tools. */
static void put_server(struct tools *ts, const struct tool *t)
{
    struct place allow = place_key(&t->at, "allow"), approve = place_key(&t->at, "approve");
    struct place of_agent = place_key(ts->at, "approve");
    uint32_t list = ts->next - ts->agent->inner_first;
    bool first = true;

    cox_buf_printf(ts->config, "{\"mcp\":true,\"list\":%u,\"step\":%u", list, list + 1);
    if (t->f[TOOL_ALLOW]) {
        cox_buf_append_str(ts->config, ",\"allow\":[");
        put_patterns(ts, &allow, t->f[TOOL_ALLOW], &first);
        cox_buf_append_str(ts->config, "]");
    }
    if (t->f[TOOL_APPROVE] || ts->approve) {
        first = true;
        cox_buf_append_str(ts->config, ",\"approve\":[");
        put_patterns(ts, &approve, t->f[TOOL_APPROVE], &first);
        for (size_t i = 0; i < json_array_size(ts->approve); i++) {
            if (!json_is_string(json_array_get(ts->approve, i)))
                return; /* check_approve says so */
        }
        put_patterns(ts, &of_agent, ts->approve, &first);
        cox_buf_append_str(ts->config, "]");
    }
    check_allowed_names(ts, &approve, t);
    cox_buf_append_str(ts->config, "}");
}

/* One body asks for the server's tools when the agent begins, the other calls one of them. */
static void compile_server(struct tools *ts, struct tool *t)
{
    static const int of_tools[] = { TOOL_NAME, TOOL_DESCRIPTION, TOOL_PARAMETERS };
    static const char *const questions[] = { "tool", "arguments", "list" };
    struct place mcp_at = place_key(&t->at, "mcp");
    const struct cox_violations *found = ts->c->report.violations;
    uint32_t n_before = found->n + found->n_more;
    json_t *mcp = t->f[CALL_MCP], *list = json_copy(mcp), *call = json_copy(mcp);

    refuse_members(ts, t, of_tools, 3,
                   "a server says what its tools are; expected `allow` and `approve` beside `mcp`");
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        struct place here = place_key(&mcp_at, questions[i]);

        if (json_object_get(mcp, questions[i]))
            report_at(&ts->c->report, &here,
                      "which tool is called is the model's to say; expected `allow` beside `mcp`");
    }
    put_server(ts, t);
    json_object_set_new(list, "list", json_true());
    json_object_set_new(call, "tool", json_string("${{ args.tool }}"));
    json_object_set_new(call, "arguments", json_string("${{ args.arguments }}"));
    if (found->n + found->n_more == n_before) {
        t->f[CALL_MCP] = list;
        compile_body(ts, t);
    }
    if (found->n + found->n_more == n_before) { /* or the same would be said twice */
        ts->next++;
        t->f[CALL_MCP] = call;
        compile_body(ts, t);
    }
    t->f[CALL_MCP] = mcp;
    json_decref(list);
    json_decref(call);
}

static void compile_kind(struct tools *ts, struct tool *t)
{
    static const int of_servers[] = { TOOL_ALLOW, TOOL_APPROVE };

    t->kind = call_kind(ts->c, &t->at, t->json, t->f);
    if (t->kind == COX_KIND_NONE)
        return;
    if (t->kind == COX_KIND_MCP) {
        compile_server(ts, t);
        return;
    }
    if (!cox_step_kind_is_leaf(t->kind) && t->kind != COX_KIND_TASK && t->kind != COX_KIND_AGENT) {
        report_at(&ts->c->report, &t->at,
                  "found `%s`, which is no tool; expected one of `run`, `uses`, `http`, `jq`, `mcp`, "
                  "`model`, `task` and `agent`",
                  cox_step_kind_text(t->kind));
        return;
    }
    refuse_members(ts, t, of_servers, 2, "is about the tools of a server; expected it beside `mcp`");
    check_name(ts, t);
    put_tool(ts, t);
    compile_body(ts, t);
}

static void compile_tool(struct tools *ts, size_t i)
{
    struct place list = place_key(ts->at, "tools");
    struct tool t = { .at = place_index(&list, i), .i = i, .json = json_array_get(ts->list, i) };

    if (!fields_check(&ts->c->report, &t.at, t.json, "an object such as {\"uses\": \"web_search@1\"}",
                      tool_fields, TOOL_NR, t.f))
        return;
    tool_name(t.json, t.name);
    if (i > 0)
        cox_buf_append_str(ts->config, ",");
    if (t.f[TOOL_ASK])
        compile_ask(ts, &t);
    else
        compile_kind(ts, &t);
}

static void report_unknown_tool(struct tools *ts, const struct place *at, const json_t *pattern)
{
    struct suggestion near = suggestion(json_slice(pattern));
    char text[SUGGESTION_LEN];

    for (size_t i = 0; report_open(&ts->c->report) && i < json_array_size(ts->list); i++) {
        char name[TOOL_NAME_LEN_MAX + 1];

        tool_name(json_array_get(ts->list, i), name);
        suggestion_offer(&near, cox_slice_str(cox_arena_dup(&ts->c->texts, name, strlen(name))));
    }
    report_at(&ts->c->report, at, "unknown tool `%.*s`, expected the name of one of `tools`%s",
              shown_len(json_slice(pattern), 100), json_string_value(pattern), suggestion_text(&near, text));
}

/* Names of tools that only a server knows cannot be missed here. */
static void check_approve(struct tools *ts)
{
    struct place list = place_key(ts->at, "approve");

    for (size_t i = 0; i < json_array_size(ts->approve); i++) {
        const json_t *pattern = json_array_get(ts->approve, i);
        struct place here = place_index(&list, i);
        bool found = false;

        if (!json_is_string(pattern)) {
            report_found(&ts->c->report, &here, pattern, NAMES_EXPECTED);
            continue;
        }
        for (size_t k = 0; k < json_array_size(ts->list) && !found; k++) {
            const json_t *tool = json_array_get(ts->list, k);
            char name[TOOL_NAME_LEN_MAX + 1];

            tool_name(tool, name);
            found = json_object_get(tool, "mcp") ||
                    (*name && !json_object_get(tool, "ask_user") && matches(pattern, name));
        }
        if (!found)
            report_unknown_tool(ts, &here, pattern);
    }
}

void compile_tools(struct compiler *c, const struct place *at, const struct scope *scope, json_t *list,
                   const json_t *approve, const struct call_source *source, struct cox_buf *config)
{
    struct place here = place_key(at, "tools");
    size_t n = json_array_size(list);
    struct tools ts = {
        .c = c,
        .agent = source,
        .at = at,
        .scope = *scope,
        .list = list,
        .approve = approve,
        .config = config,
        .next = source->inner_first + COX_TURN_TOOLS,
    };

    if (n > COX_TOOLS_MAX)
        report_at(&c->report, &here, "found %zu tools, expected at most %u", n, COX_TOOLS_MAX);
    ts.scope.args = true;
    ts.scope.fallback = false; /* what a tool sees is the call's, not the step's that failed */
    for (size_t i = 0; i < n && i < COX_TOOLS_MAX; i++) {
        uint32_t end = ts.next;

        for (uint32_t body = 0; body < tool_bodies(json_array_get(list, i)); body++)
            end += 1 + c->plan[end].n_inner;
        compile_tool(&ts, i);
        ts.next = end;
    }
    check_approve(&ts);
}
