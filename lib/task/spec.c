/* What workers' handlers get: the specs of `run`, `uses`, `http` and `jq`; those of `model` and `mcp` are in
 * model.c and mcp.c. */
#include "compile.h"

#include "cox/base/units.h"

#include <string.h>

enum { RUN_ARGV, RUN_ENV, RUN_STDIN, RUN_OUTPUT, RUN_SANDBOX, RUN_NR };
static const struct field run_fields[RUN_NR] = {
    { "argv", WANT_LIST, FIELD_REQUIRED, "a list of strings, the program first" },
    { "env", WANT_OBJECT, FIELD_OPTIONAL, "an object of strings" },
    { "stdin", WANT_STRING, FIELD_OPTIONAL, "a string" },
    { "output", WANT_STRING, FIELD_OPTIONAL, "\"text\" or \"json\"" },
    { "sandbox", WANT_STRING, FIELD_OPTIONAL, "\"none\"" },
};

enum { HTTP_METHOD, HTTP_URL, HTTP_HEADERS, HTTP_JSON, HTTP_BODY, HTTP_NR };
static const struct field http_fields[HTTP_NR] = {
    { "method", WANT_STRING, FIELD_OPTIONAL,
      "\"GET\", \"HEAD\", \"POST\", \"PUT\", \"PATCH\" or \"DELETE\"" },
    { "url", WANT_STRING, FIELD_REQUIRED, "a URL such as \"https://example.org/\"" },
    { "headers", WANT_OBJECT, FIELD_OPTIONAL, "an object of strings" },
    { "json", WANT_ANY, FIELD_OPTIONAL, "" },
    { "body", WANT_STRING, FIELD_OPTIONAL, "a string" },
};

enum { JQ_PROGRAM, JQ_INPUT, JQ_NR };
static const struct field jq_fields[JQ_NR] = {
    { "program", WANT_STRING, FIELD_REQUIRED, "a jq program such as \".x\"" },
    { "input", WANT_ANY, FIELD_OPTIONAL, "" },
};

/* ---- run ---- */

void put_env(struct compiler *c, const struct scope *scope, const struct place *at, json_t *env)
{
    const char *separator = "{", *name;
    json_t *value;

    json_object_foreach(env, name, value)
    {
        struct place here = place_key(at, name);

        if (!*name || strchr(name, '='))
            report_at(&c->report, &here, "expected the name of an environment variable, without `=`");
        if (!json_is_string(value)) {
            report_found(&c->report, &here, value, "a string");
            continue;
        }
        draft_raw(c, separator);
        cox_json_quote(&c->draft.raw, cox_slice_str(name));
        draft_raw(c, ":");
        draft_value(c, scope, &here, value, EMIT_ARG);
        separator = ",";
    }
    draft_raw(c, *separator == '{' ? "{}" : "}");
}

static void put_argv(struct compiler *c, const struct scope *scope, const struct place *at, json_t *argv)
{
    size_t n = json_array_size(argv);

    if (n == 0 || (json_is_string(json_array_get(argv, 0)) && !json_string_length(json_array_get(argv, 0))))
        report_at(&c->report, at, "found no program, expected a list of strings, the program first");
    draft_raw(c, "[");
    for (size_t i = 0; i < n; i++) {
        struct place here = place_index(at, i);
        json_t *value = json_array_get(argv, i);

        if (i > 0)
            draft_raw(c, ",");
        if (json_is_string(value))
            draft_value(c, scope, &here, value, EMIT_ARG);
        else
            report_found(&c->report, &here, value, "a string");
    }
    draft_raw(c, "]");
}

void put_sandbox(struct compiler *c, const struct place *at, const json_t *sandbox)
{
    const char *level = json_string_value(sandbox);

    if (strcmp(level, "none") != 0 && strcmp(level, "net") != 0 && strcmp(level, "strict") != 0)
        report_found(&c->report, at, sandbox, "\"none\", \"net\" or \"strict\"");
    draft_raw(c, strcmp(level, "strict") == 0 ? ",\"sandbox\":\"strict\""
                 : strcmp(level, "net") == 0  ? ",\"sandbox\":\"net\""
                                              : ",\"sandbox\":\"none\"");
}

static void put_run(struct compiler *c, const struct scope *scope, const struct place *at, json_t *run)
{
    json_t *f[RUN_NR];

    if (!fields_check(&c->report, at, run, "an object such as {\"argv\": [\"true\"]}", run_fields, RUN_NR, f))
        return;
    struct place argv = place_key(at, "argv"), env = place_key(at, "env"), input = place_key(at, "stdin");
    struct place output = place_key(at, "output"), sandbox = place_key(at, "sandbox");

    draft_raw(c, "{\"argv\":");
    c->secrets.argv = true;
    if (f[RUN_ARGV])
        put_argv(c, scope, &argv, f[RUN_ARGV]);
    c->secrets.argv = false;
    secrets_offer(c, at, NULL);
    if (f[RUN_ENV]) {
        draft_raw(c, ",\"env\":");
        put_env(c, scope, &env, f[RUN_ENV]);
    }
    if (f[RUN_STDIN]) {
        draft_raw(c, ",\"stdin\":");
        draft_value(c, scope, &input, f[RUN_STDIN], EMIT_ARG);
    }
    if (f[RUN_OUTPUT]) {
        const char *text = json_string_value(f[RUN_OUTPUT]);

        if (strcmp(text, "text") != 0 && strcmp(text, "json") != 0)
            report_found(&c->report, &output, f[RUN_OUTPUT], run_fields[RUN_OUTPUT].expected);
        draft_raw(c, strcmp(text, "json") == 0 ? ",\"output\":\"json\"" : ",\"output\":\"text\"");
    }
    if (f[RUN_SANDBOX])
        put_sandbox(c, &sandbox, f[RUN_SANDBOX]);
    draft_raw(c, "}");
}

/* ---- uses ---- */

bool versioned_ok(struct cox_slice s, unsigned least)
{
    const uint8_t *sign = s.len > 0 ? memchr(s.data, '@', s.len) : NULL;

    if (!sign)
        return false;
    size_t name_len = (size_t)(sign - s.data), digits = s.len - name_len - 1;

    if (!name_ok(cox_slice(s.data, name_len), true) || digits < 1 || digits > 9 ||
        (sign[1] == '0' && (digits > 1 || least > 0)))
        return false;
    for (size_t i = 1; i <= digits; i++) {
        if (sign[i] < '0' || sign[i] > '9')
            return false;
    }
    return true;
}

bool uses_of_bundle(struct cox_slice s)
{
    return s.len > 1 && s.data[0] == '.' && s.data[1] == '/';
}

bool path_ok(struct cox_slice s)
{
    if (s.len == 0 || s.data[0] == '/')
        return false;
    for (size_t at = 0; at <= s.len;) {
        const uint8_t *slash = at < s.len ? memchr(s.data + at, '/', s.len - at) : NULL;
        size_t end = slash ? (size_t)(slash - s.data) : s.len;

        if (end - at == 2 && s.data[at] == '.' && s.data[at + 1] == '.')
            return false;
        at = end + 1;
    }
    return true;
}

/* NAME@MAJOR, or ./PATH in the task's bundle. */
static void check_program(struct compiler *c, const struct place *at, const json_t *uses)
{
    struct cox_slice s = json_slice(uses);

    if (!uses_of_bundle(s)) {
        if (!versioned_ok(s, 0))
            report_found(&c->report, at, uses, "a program and its major version such as \"lint@1\"");
    } else if (s.len == 2 || !path_ok(s)) {
        report_found(&c->report, at, uses,
                     "a program in the bundle such as \"./tools/grep.py\", without `..`");
    } else if (!c->has_bundle) {
        report_at(&c->report, at, "a program of the bundle, but the document has no `bundle`");
    }
}

static void put_uses(struct compiler *c, const struct scope *scope, const struct place *at, json_t *const *f)
{
    struct place uses = place_key(at, "uses"), with = place_key(at, "with");
    bool bundle = uses_of_bundle(json_slice(f[CALL_USES]));

    check_program(c, &uses, f[CALL_USES]);
    if (bundle) {
        draft_raw(c, "{\"path\":");
        cox_json_quote(&c->draft.raw, json_slice(f[CALL_USES]));
        draft_raw(c, ",\"input\":");
    }
    secrets_offer(c, &with, bundle ? "input" : NULL);
    if (f[CALL_WITH])
        draft_value(c, scope, &with, f[CALL_WITH], EMIT_VALUE);
    else
        draft_raw(c, "{}");
    if (bundle)
        draft_raw(c, "}");
}

/* ---- http, jq ---- */

static void put_method(struct compiler *c, const struct place *at, const json_t *method)
{
    static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE" };
    struct place here = place_key(at, "method");
    const char *text = method ? json_string_value(method) : methods[0];

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(text, methods[i]) == 0) {
            draft_raw(c, "\"method\":");
            cox_json_quote(&c->draft.raw, cox_slice_str(text));
            return;
        }
    }
    report_found(&c->report, &here, method, http_fields[HTTP_METHOD].expected);
}

void put_url(struct compiler *c, const struct scope *scope, const struct place *at, const json_t *url)
{
    struct place here = place_key(at, "url");
    const char *text = json_string_value(url);

    if (!strstr(text, "${{") && strncmp(text, "http://", 7) != 0 && strncmp(text, "https://", 8) != 0)
        report_found(&c->report, &here, url, http_fields[HTTP_URL].expected);
    draft_raw(c, "\"url\":");
    draft_value(c, scope, &here, url, EMIT_ARG);
}

/* RFC 9110: letters, digits and some signs. */
static bool token_ok(const char *s)
{
    size_t len = strlen(s);

    for (size_t i = 0; i < len; i++) {
        bool alnum = (s[i] >= '0' && s[i] <= '9') || ((s[i] | 0x20) >= 'a' && (s[i] | 0x20) <= 'z');

        if (!alnum && !strchr("!#$%&'*+-.^_`|~", s[i]))
            return false;
    }
    return len > 0;
}

void put_headers(struct compiler *c, const struct scope *scope, const struct place *at, json_t *headers)
{
    const char *separator = ",\"headers\":{", *name;
    json_t *value;

    json_object_foreach(headers, name, value)
    {
        struct place here = place_key(at, name);

        if (!token_ok(name))
            report_at(&c->report, &here, "expected the name of a header such as `Accept`");
        if (!json_is_string(value)) {
            report_found(&c->report, &here, value, "a string");
            continue;
        }
        draft_raw(c, separator);
        cox_json_quote(&c->draft.raw, cox_slice_str(name));
        draft_raw(c, ":");
        draft_value(c, scope, &here, value, EMIT_ARG);
        separator = ",";
    }
    if (separator[1] == '\0')
        draft_raw(c, "}");
}

static void put_http(struct compiler *c, const struct scope *scope, const struct place *at, json_t *http)
{
    struct place headers = place_key(at, "headers"), json = place_key(at, "json"),
                 body = place_key(at, "body");
    json_t *f[HTTP_NR];

    if (!fields_check(&c->report, at, http, "an object such as {\"url\": \"https://...\"}", http_fields,
                      HTTP_NR, f))
        return;
    secrets_offer(c, at, NULL);
    draft_raw(c, "{");
    put_method(c, at, f[HTTP_METHOD]);
    draft_raw(c, ",");
    if (f[HTTP_URL])
        put_url(c, scope, at, f[HTTP_URL]);
    put_headers(c, scope, &headers, f[HTTP_HEADERS]);
    if (f[HTTP_JSON] && f[HTTP_BODY])
        report_at(&c->report, at, "found `json` and `body`, expected one of them");
    if (f[HTTP_JSON]) {
        draft_raw(c, ",\"json\":");
        draft_value(c, scope, &json, f[HTTP_JSON], EMIT_VALUE);
    } else if (f[HTTP_BODY]) {
        draft_raw(c, ",\"body\":");
        draft_value(c, scope, &body, f[HTTP_BODY], EMIT_ARG);
    }
    draft_raw(c, "}");
}

/* A program is text as it is: values come in as its input, and never as parts of a program. */
static void put_jq(struct compiler *c, const struct scope *scope, const struct place *at, json_t *jq)
{
    struct place program = place_key(at, "program"), input = place_key(at, "input");
    json_t *f[JQ_NR];

    if (!fields_check(&c->report, at, jq, "an object such as {\"program\": \".x\"}", jq_fields, JQ_NR, f) ||
        !f[JQ_PROGRAM])
        return;
    if (strstr(json_string_value(f[JQ_PROGRAM]), "${{"))
        report_at(&c->report, &program, "found `${{` in a jq program; expected values in `input`");
    draft_raw(c, "{\"program\":");
    cox_json_quote(&c->draft.raw, json_slice(f[JQ_PROGRAM]));
    draft_raw(c, ",\"input\":");
    if (f[JQ_INPUT])
        draft_value(c, scope, &input, f[JQ_INPUT], EMIT_VALUE);
    else
        draft_raw(c, "null");
    draft_raw(c, "}");
}

void put_spec(struct compiler *c, const struct place *at, const struct scope *scope, json_t *const *f,
              enum cox_step_kind kind)
{
    struct place here = place_key(at, cox_step_kind_text(kind));

    if (kind == COX_KIND_RUN)
        put_run(c, scope, &here, f[CALL_RUN]);
    else if (kind == COX_KIND_HTTP)
        put_http(c, scope, &here, f[CALL_HTTP]);
    else if (kind == COX_KIND_JQ)
        put_jq(c, scope, &here, f[CALL_JQ]);
    else if (kind == COX_KIND_MODEL)
        put_model(c, scope, &here, f[CALL_MODEL]);
    else if (kind == COX_KIND_MCP)
        put_mcp(c, scope, &here, f[CALL_MCP]);
    else
        put_uses(c, scope, at, f);
}

struct cox_slice spec_sandbox_label(json_t *const *f, enum cox_step_kind kind)
{
    const json_t *spec = kind == COX_KIND_RUN ? f[CALL_RUN] : kind == COX_KIND_MCP ? f[CALL_MCP] : NULL;
    const char *level = json_string_value(json_object_get(spec, "sandbox"));

    if (level && strcmp(level, "strict") == 0)
        return cox_slice_str("sandbox.strict");
    return cox_slice_str(level && strcmp(level, "net") == 0 ? "sandbox.net" : NULL);
}

struct cox_slice spec_handler(json_t *const *f, enum cox_step_kind kind)
{
    if (kind != COX_KIND_USES)
        return cox_slice_str(cox_step_kind_text(kind));
    return uses_of_bundle(json_slice(f[CALL_USES])) ? cox_slice_str("bundle") : json_slice(f[CALL_USES]);
}
