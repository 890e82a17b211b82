#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/schema.h"
#include "cox/turn.h"

#include <string.h>

#define NAME_SHOWN_LEN 64u
#define NAMES_SHOWN_LEN 2000u /* of the tools that there are, in an error */
#define SAID_LEN_MAX 4096u    /* what the model is told of one thing */

static bool member(struct cox_slice object, const char *name, enum cox_json_kind kind, struct cox_slice *ret)
{
    return cox_json_member(object, name, ret) && cox_json_kind(*ret) == kind;
}

static bool is_true(struct cox_slice object, const char *name)
{
    struct cox_slice v;

    return cox_json_member(object, name, &v) && cox_slice_is(v, "true");
}

/* ---- what is wrong with an answer ---- */

static void put_shown(struct cox_buf *out, struct cox_slice text, size_t len_max)
{
    size_t at = 0;

    for (size_t n; at < text.len && (n = cox_utf8_len(cox_slice(text.data + at, text.len - at))) > 0; at += n)
        if (at + n > len_max)
            break;
    cox_buf_append(out, text.data, at);
}

/* A place in what the model said is in its words, which may be long. */
static void put_said(struct cox_buf *out, const struct cox_buf *why)
{
    struct cox_buf shown = { 0 };

    put_shown(&shown, cox_buf_slice(why), SAID_LEN_MAX);
    cox_json_quote(out, cox_buf_slice(&shown));
    cox_buf_fini(&shown);
}

/* Why half an answer is none. */
static void put_cut_off(struct cox_buf *why, struct cox_slice answer)
{
    struct cox_slice reason;

    if (member(answer, "finish_reason", COX_JSON_STRING, &reason) &&
        cox_json_string_is(reason, cox_slice_str("length")))
        cox_buf_append_str(why,
                           "; it was cut off at the most tokens that an answer may have, say it shorter");
}

/* `why` is for the model; asked often enough, it is the agent's failure. */
static void refuse(const struct cox_turn *turn, struct cox_buf *out, const struct cox_buf *why)
{
    struct cox_slice v;
    int64_t reasks = COX_TURN_REASKS_DEFAULT;

    if (cox_json_member(turn->config, "reasks", &v))
        (void)cox_json_int(v, &reasks);
    if ((int64_t)turn->n_reasks < reasks || COX_PLANTED("asked-for-ever")) {
        cox_buf_append_str(out, "{\"say\":");
        put_said(out, why);
        cox_buf_append_str(out, "}");
        return;
    }
    cox_buf_append_str(out, "{\"fail\":{\"code\":\"OUTPUT_INVALID\",\"message\":");
    put_said(out, why);
    cox_buf_append_str(out, "}}");
}

/* ---- calls ---- */

/* The agent's tools, found by name: answers have many calls, and agents many tools. */
struct tools {
    struct cox_slice json;
    struct cox_slice *list;
    struct cox_mapb by_name; /* -> into `list` */
};

static struct tools tools_open(struct cox_slice json)
{
    struct tools t = { .json = json, .list = cox_calloc(cox_json_count(json) + 1, sizeof(*t.list)) };
    struct cox_buf name = { 0 };
    struct cox_slice had;
    size_t n = 0;

    for (struct cox_json_walk w = cox_json_walk(json); cox_json_next(&w); n++) {
        t.list[n] = w.value;
        if (!member(w.value, "name", COX_JSON_STRING, &had))
            continue;
        cox_buf_clear(&name);
        cox_json_unquote(&name, had);
        if (!cox_mapb_get(&t.by_name, cox_buf_slice(&name)))
            cox_mapb_set(&t.by_name, cox_buf_slice(&name), &t.list[n]);
    }
    cox_buf_fini(&name);
    return t;
}

static void tools_close(struct tools *t)
{
    cox_mapb_fini(&t->by_name);
    cox_free(t->list);
}

static void complain_of_name(struct cox_buf *why, const struct tools *tools, struct cox_slice name)
{
    struct cox_slice had;
    const char *separator = "";

    cox_buf_append_str(why, "there is no tool \"");
    put_shown(why, name, NAME_SHOWN_LEN);
    cox_buf_append_str(why, "\"; the tools are: ");
    for (struct cox_json_walk w = cox_json_walk(tools->json);
         cox_json_next(&w) && why->len < NAMES_SHOWN_LEN;) {
        cox_buf_append_str(why, separator);
        if (cox_json_member(w.value, "name", &had))
            cox_json_unquote(why, had);
        separator = ", ";
    }
    if (*separator == '\0')
        cox_buf_append_str(why, "none");
}

/* Its arguments, as JSON; false: `why`. Some models send an object instead of its text, some nothing. */
static bool read_args(struct cox_slice function, struct cox_buf *args, size_t room, struct cox_buf *why)
{
    struct cox_slice v;
    struct cox_json_place at;

    if (!cox_json_member(function, "arguments", &v) || cox_json_kind(v) == COX_JSON_NULL)
        v = cox_slice_str("\"\"");
    if (cox_json_kind(v) == COX_JSON_STRING)
        cox_json_unquote(args, v);
    else
        cox_buf_append_slice(args, v);
    if (cox_json_trim(cox_buf_slice(args)).len == 0)
        cox_buf_append_str(args, "{}");
    if (args->len > room) {
        cox_buf_printf(why, "the arguments of this answer's calls have more than %u bytes together",
                       COX_TURN_ARGS_LEN_MAX);
        return false;
    }
    if (cox_json_check(cox_buf_slice(args), &at) != COX_OK) {
        cox_buf_printf(why, "the arguments are not JSON: expected %s at line %u, column %u", at.expected,
                       at.line, at.column);
        return false;
    }
    if (cox_json_kind(cox_buf_slice(args)) != COX_JSON_OBJECT) {
        cox_buf_printf(why, "the arguments are %s, expected an object",
                       cox_json_kind_text(cox_json_kind(cox_buf_slice(args))));
        return false;
    }
    return true;
}

static bool args_fit(struct cox_slice tool, const struct cox_buf *args, struct cox_buf *why)
{
    struct cox_slice schema;
    struct cox_buf what = { 0 };
    bool fit = COX_PLANTED("tool-args-unchecked") || !cox_json_member(tool, "parameters", &schema) ||
               cox_schema_match(schema, cox_buf_slice(args), &what) == COX_OK;

    if (!fit)
        cox_buf_printf(why, "the arguments do not fit the tool's parameters: %s", cox_buf_cstr(&what));
    cox_buf_fini(&what);
    return fit;
}

static void put_found(struct cox_buf *out, struct cox_slice tool, struct cox_slice args)
{
    struct cox_slice v;

    if (is_true(tool, "ask"))
        cox_buf_append_str(out, ",\"ask\":true");
    else if (cox_json_member(tool, "step", &v))
        cox_buf_printf(out, ",\"step\":%.*s", (int)v.len, (const char *)v.data);
    if (is_true(tool, "approve") && !COX_PLANTED("tools-unapproved"))
        cox_buf_append_str(out, ",\"approve\":true");
    cox_buf_append_str(out, ",\"args\":");
    if (cox_json_member(tool, "remote", &v)) {
        cox_buf_append_str(out, "{\"tool\":");
        cox_buf_append_slice(out, v);
        cox_buf_append_str(out, ",\"arguments\":");
        cox_buf_append_slice(out, args);
        cox_buf_append_str(out, "}");
    } else {
        cox_buf_append_slice(out, args);
    }
    cox_buf_append_str(out, "}");
}

/* Returns how many bytes of arguments it has. */
static size_t put_call(struct cox_buf *out, const struct tools *tools, struct cox_slice call, size_t room,
                       struct cox_slice answer)
{
    struct cox_slice id = cox_slice_str("\"\""), function = call, name_json;
    const struct cox_slice *tool;
    struct cox_buf name = { 0 }, args = { 0 }, why = { 0 };
    size_t used = 0;

    (void)member(call, "id", COX_JSON_STRING, &id);
    (void)member(call, "function", COX_JSON_OBJECT, &function);
    if (member(function, "name", COX_JSON_STRING, &name_json))
        cox_json_unquote(&name, name_json);
    cox_buf_append_str(out, "{\"id\":");
    cox_buf_append_slice(out, id);
    tool = cox_mapb_get(&tools->by_name, cox_buf_slice(&name));
    if (!tool)
        complain_of_name(&why, tools, cox_buf_slice(&name));
    else if (!read_args(function, &args, room, &why))
        put_cut_off(&why, answer);
    else if (args_fit(*tool, &args, &why))
        used = args.len;
    if (name.len > NAME_SHOWN_LEN)
        name.len = 0; /* no tool's */
    cox_buf_append_str(out, ",\"name\":");
    cox_json_quote(out, cox_utf8_ok(cox_buf_slice(&name)) ? cox_buf_slice(&name) : cox_slice(NULL, 0));
    if (why.len > 0) {
        cox_buf_append_str(out, ",\"error\":");
        put_said(out, &why);
        cox_buf_append_str(out, "}");
    } else {
        put_found(out, *tool, cox_json_trim(cox_buf_slice(&args)));
    }
    cox_buf_fini(&name);
    cox_buf_fini(&args);
    cox_buf_fini(&why);
    return used;
}

/* Results are told apart by the ids of their calls. */
static bool ids_differ(struct cox_slice calls, struct cox_buf *why)
{
    struct cox_mapb seen = { 0 };
    struct cox_buf id = { 0 };
    bool differ = true;

    for (struct cox_json_walk w = cox_json_walk(calls); differ && cox_json_next(&w);) {
        struct cox_slice v = cox_slice(NULL, 0);

        cox_buf_clear(&id);
        if (member(w.value, "id", COX_JSON_STRING, &v))
            cox_json_unquote(&id, v);
        differ = !cox_mapb_set(&seen, cox_buf_slice(&id), &seen);
        if (!differ) {
            cox_buf_append_str(why, "two calls of the answer have the id \"");
            put_shown(why, cox_buf_slice(&id), NAME_SHOWN_LEN);
            cox_buf_append_str(why, "\", expected each its own");
        }
    }
    cox_mapb_fini(&seen);
    cox_buf_fini(&id);
    return differ;
}

static void put_calls(const struct cox_turn *turn, struct cox_slice calls, struct cox_buf *out)
{
    struct tools tools = tools_open(turn->tools);
    size_t room = COX_TURN_ARGS_LEN_MAX;
    const char *separator = "";

    cox_buf_append_str(out, "{\"calls\":[");
    for (struct cox_json_walk w = cox_json_walk(calls); cox_json_next(&w);) {
        cox_buf_append_str(out, separator);
        room -= put_call(out, &tools, w.value, room, turn->answer);
        separator = ",";
    }
    cox_buf_append_str(out, "]}");
    tools_close(&tools);
}

static void decide_calls(const struct cox_turn *turn, struct cox_slice calls, struct cox_buf *out)
{
    size_t n = cox_json_count(calls);
    struct cox_buf why = { 0 };

    if (n > COX_TURN_CALLS_MAX)
        cox_buf_printf(&why, "%zu calls in one answer, expected at most %u", n, COX_TURN_CALLS_MAX);
    else if (ids_differ(calls, &why))
        put_calls(turn, calls, out);
    if (why.len > 0)
        refuse(turn, out, &why);
    cox_buf_fini(&why);
}

/* ---- an output ---- */

/* A model that was asked for JSON may put it into a fence. */
static struct cox_slice without_fence(struct cox_slice text)
{
    struct cox_slice t = cox_json_trim(text);
    const uint8_t *end;

    if (t.len < 7 || memcmp(t.data, "```", 3) != 0 || memcmp(t.data + t.len - 3, "```", 3) != 0)
        return t;
    end = memchr(t.data, '\n', t.len);
    return end ? cox_json_trim(cox_slice(end + 1, (size_t)(t.data + t.len - 3 - (end + 1)))) : t;
}

/* Why the text is not the value that was asked for; `why` stays empty when it is. */
static void check_value(const struct cox_turn *turn, struct cox_slice schema, struct cox_slice value,
                        bool planned, struct cox_buf *why)
{
    struct cox_buf what = { 0 };
    struct cox_json_place at;
    struct cox_slice steps;

    if (cox_json_check(value, &at) != COX_OK) {
        cox_buf_printf(why, "the answer is not JSON: expected %s at line %u, column %u", at.expected, at.line,
                       at.column);
        put_cut_off(why, turn->answer);
    } else if (planned && !member(value, "steps", COX_JSON_OBJECT, &steps)) {
        cox_buf_printf(why, "the answer is no plan: expected an object {\"steps\": {...}, \"output\": ...}");
    } else if (schema.len > 0 && cox_schema_match(schema, value, &what) != COX_OK) {
        cox_buf_printf(why, "the answer is not what was asked for: %s", cox_buf_cstr(&what));
    }
    cox_buf_fini(&what);
}

static void put_value(const struct cox_turn *turn, struct cox_slice schema, struct cox_slice text,
                      bool planned, struct cox_buf *out)
{
    struct cox_slice value = without_fence(text);
    struct cox_buf why = { 0 };

    check_value(turn, schema, value, planned, &why);
    if (why.len > 0) {
        refuse(turn, out, &why);
    } else {
        cox_buf_append_str(out, planned ? "{\"plan\":" : "{\"output\":");
        cox_json_compact(out, value);
        cox_buf_append_str(out, "}");
    }
    cox_buf_fini(&why);
}

static void put_text(struct cox_slice answer, struct cox_slice content, struct cox_buf *out)
{
    static const char *const kept[] = { "finish_reason", "model" };
    struct cox_slice v;

    cox_buf_append_str(out, "{\"output\":{\"content\":");
    cox_buf_append_slice(out, content);
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
        if (!member(answer, kept[i], COX_JSON_STRING, &v))
            continue;
        cox_buf_printf(out, ",\"%s\":", kept[i]);
        cox_buf_append_slice(out, v);
    }
    cox_buf_append_str(out, "}}");
}

static bool is_blank(struct cox_slice content)
{
    struct cox_buf text = { 0 };
    bool blank;

    cox_json_unquote(&text, content);
    blank = cox_json_trim(cox_buf_slice(&text)).len == 0;
    cox_buf_fini(&text);
    return blank;
}

void cox_turn_decide(const struct cox_turn *turn, struct cox_buf *decision)
{
    struct cox_slice calls, content, schema = cox_slice(NULL, 0), plan;
    struct cox_buf text = { 0 }, why = { 0 };
    bool planned = member(turn->config, "plan", COX_JSON_OBJECT, &plan);

    if (cox_json_check(turn->answer, NULL) != COX_OK || cox_json_check(turn->tools, NULL) != COX_OK ||
        cox_json_kind(turn->answer) != COX_JSON_OBJECT) {
        cox_buf_append_str(
            decision,
            "{\"fail\":{\"code\":\"INTERNAL\",\"message\":\"what was kept of the turn is damaged\"}}");
        return;
    }
    (void)member(turn->config, "output_schema", COX_JSON_OBJECT, &schema);
    if (member(turn->answer, "tool_calls", COX_JSON_ARRAY, &calls) && cox_json_count(calls) > 0) {
        decide_calls(turn, calls, decision);
    } else if (!member(turn->answer, "content", COX_JSON_STRING, &content) || is_blank(content)) {
        cox_buf_append_str(&why, "the answer has neither a text nor a call of a tool");
        put_cut_off(&why, turn->answer);
        refuse(turn, decision, &why);
    } else if (planned || schema.len > 0) {
        cox_json_unquote(&text, content);
        put_value(turn, planned ? cox_slice(NULL, 0) : schema, cox_buf_slice(&text), planned, decision);
    } else {
        put_text(turn->answer, content, decision);
    }
    cox_buf_fini(&text);
    cox_buf_fini(&why);
}
