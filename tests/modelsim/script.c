#include "script.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/yaml.h"

#include <fnmatch.h>
#include <string.h>

#define RULES_MAX 100000u

struct script {
    struct cox_buf json; /* what the rules point into: an array */
    struct script_rule *rules;
    size_t n_rules;
};

void script_free(struct script *s)
{
    if (!s)
        return;
    cox_buf_fini(&s->json);
    cox_free(s->rules);
    cox_free(s);
}

static const char *take_number(struct cox_slice object, const char *key, int64_t *ret)
{
    struct cox_slice v;

    if (cox_json_member(object, key, &v) &&
        (cox_json_kind(v) != COX_JSON_NUMBER || !cox_json_int(v, ret) || *ret < 0))
        return "a number is expected";
    return NULL;
}

static const char *take_text(struct cox_slice object, const char *key, struct cox_slice *ret)
{
    struct cox_slice v;

    if (!cox_json_member(object, key, &v))
        return NULL;
    if (cox_json_kind(v) != COX_JSON_STRING)
        return "a text is expected";
    *ret = v;
    return NULL;
}

static const char *take_delay(struct cox_slice object, int64_t *ret)
{
    struct cox_slice v;

    if (!cox_json_member(object, "delay", &v))
        return NULL;
    return cox_parse_duration_ms(cox_json_inner(v), ret) == COX_OK ? NULL
                                                                   : "a duration such as 500ms is expected";
}

static const char *take_match(struct script_rule *r, struct cox_slice match)
{
    const char *why = take_text(match, "model", &r->model);

    why = why ? why : take_text(match, "last", &r->last);
    why = why ? why : take_text(match, "role", &r->role);
    return why ? why : take_number(match, "turn", &r->turn);
}

static const char *take_error(struct script_rule *r, struct cox_slice error)
{
    const char *why;

    r->status = 500;
    why = take_number(error, "status", &r->status);
    why = why ? why : take_text(error, "message", &r->message);
    why = why ? why : take_text(error, "type", &r->type);
    why = why ? why : take_text(error, "code", &r->code);
    why = why ? why : take_number(error, "retry_after", &r->retry_after_s);
    return why || r->status < 400 || r->status > 599 ? "error: status from 400 to 599 and texts are expected"
                                                     : NULL;
}

static const char *take_reply(struct script_rule *r, struct cox_slice reply)
{
    struct cox_slice v;
    const char *why = take_text(reply, "text", &r->text);

    r->has_text = r->text.len > 0;
    why = why ? why : take_text(reply, "finish_reason", &r->finish);
    why = why ? why : take_delay(reply, &r->delay_ms);
    if (!why && cox_json_member(reply, "usage", &v)) {
        why = take_number(v, "prompt_tokens", &r->input_tokens);
        why = why ? why : take_number(v, "completion_tokens", &r->output_tokens);
        why = why ? why : take_number(v, "cached_tokens", &r->cached_tokens);
    }
    if (!why && cox_json_member(reply, "error", &v))
        why = take_error(r, v);
    if (!why && cox_json_member(reply, "tool_calls", &r->tool_calls)) {
        struct cox_json_walk w = cox_json_walk(r->tool_calls);
        struct cox_slice name;
        while (cox_json_next(&w)) {
            if (!cox_json_member(w.value, "name", &name) || cox_json_kind(name) != COX_JSON_STRING)
                why = "tool_calls: each has a name";
        }
    }
    if (!why && !r->has_text && r->tool_calls.len == 0 && r->status == 0 && r->delay_ms == 0)
        why = "reply: text, tool_calls, error or delay is expected";
    return why;
}

static const char *take_rule(struct script_rule *r, struct cox_slice rule)
{
    struct cox_json_walk w = cox_json_walk(rule);
    bool replies = false;
    const char *why = cox_json_kind(rule) == COX_JSON_OBJECT ? NULL : "an object is expected";

    *r = (struct script_rule){ .times = -1, .input_tokens = -1, .output_tokens = -1, .cached_tokens = -1 };
    while (!why && cox_json_next(&w)) {
        if (cox_json_string_is(w.key, cox_slice_str("match"))) {
            why = take_match(r, w.value);
        } else if (cox_json_string_is(w.key, cox_slice_str("reply"))) {
            why = take_reply(r, w.value);
            replies = true;
        } else if (cox_json_string_is(w.key, cox_slice_str("times"))) {
            why = take_number(rule, "times", &r->times);
        } else {
            why = "match, reply and times are what a rule has";
        }
    }
    return !why && !replies ? "reply is expected" : why;
}

/* Lines of JSON to an array; anything else is YAML, of which JSON is a part. */
static enum cox_err to_array(struct cox_buf *out, struct cox_slice text, struct cox_buf *error)
{
    struct cox_slice first = cox_json_trim(text);
    struct cox_yaml yaml = { 0 };

    if (cox_json_kind(first) == COX_JSON_OBJECT) {
        const uint8_t *p = text.data, *end = text.data + text.len;
        cox_buf_append_str(out, "[");
        for (unsigned line = 1; p < end; line++) {
            const uint8_t *eol = memchr(p, '\n', (size_t)(end - p));
            struct cox_slice s = cox_json_trim(cox_slice(p, (size_t)((eol ? eol : end) - p)));
            if (s.len > 0 && cox_json_check(s, NULL) != COX_OK) {
                cox_buf_printf(error, "line %u: a JSON object is expected", line);
                return COX_ERR_INVALID;
            }
            if (s.len > 0)
                cox_buf_append_str(out, out->len > 1 ? "," : "");
            cox_buf_append_slice(out, s);
            p = eol ? eol + 1 : end;
        }
        cox_buf_append_str(out, "]");
        return COX_OK;
    }
    enum cox_err err = cox_yaml_parse(&yaml, text);
    if (err == COX_OK)
        cox_buf_append_slice(out, cox_buf_slice(&yaml.json));
    else
        cox_buf_printf(error, "line %zu: %s", yaml.error_line, cox_buf_cstr(&yaml.error));
    cox_yaml_fini(&yaml);
    return err;
}

enum cox_err script_parse(struct cox_slice text, struct script **ret, struct cox_buf *error)
{
    struct script *s = COX_NEW(struct script);
    enum cox_err err = to_array(&s->json, text, error);
    struct cox_slice list = cox_buf_slice(&s->json);

    if (err == COX_OK && cox_json_kind(list) == COX_JSON_OBJECT)
        (void)cox_json_member(list, "replies", &list);
    if (err == COX_OK && (cox_json_kind(list) != COX_JSON_ARRAY || cox_json_count(list) > RULES_MAX)) {
        cox_buf_append_str(error, "a list of rules is expected");
        err = COX_ERR_INVALID;
    }
    if (err == COX_OK) {
        struct cox_json_walk w = cox_json_walk(list);
        s->rules = cox_calloc(cox_json_count(list) + 1, sizeof(*s->rules));
        while (err == COX_OK && cox_json_next(&w)) {
            const char *why = take_rule(&s->rules[s->n_rules], w.value);
            if (why) {
                cox_buf_printf(error, "rule %zu: %s", s->n_rules + 1, why);
                err = COX_ERR_INVALID;
            }
            s->n_rules++;
        }
    }
    if (err != COX_OK) {
        script_free(s);
        return err;
    }
    *ret = s;
    return COX_OK;
}

/* ---- matching ---- */

static bool fits_pattern(struct cox_slice raw, const struct cox_buf *text)
{
    struct cox_buf pattern = { 0 }, copy = { 0 };

    cox_json_unquote(&pattern, raw);
    cox_buf_append_slice(&copy, cox_buf_slice(text));
    bool fits = fnmatch(cox_buf_cstr(&pattern), cox_buf_cstr(&copy), 0) == 0;
    cox_buf_fini(&pattern);
    cox_buf_fini(&copy);
    return fits;
}

static bool has_part(struct cox_slice raw, const struct cox_buf *text)
{
    struct cox_buf part = { 0 };

    cox_json_unquote(&part, raw);
    bool has = part.len == 0 || (text->len > 0 && memmem(text->data, text->len, part.data, part.len));
    cox_buf_fini(&part);
    return has;
}

const struct script_rule *script_find(struct script *s, const struct ask *a)
{
    for (size_t i = 0; s && i < s->n_rules; i++) {
        struct script_rule *r = &s->rules[i];

        if (r->times == 0 || (r->turn > 0 && r->turn != a->turn) ||
            (r->model.len > 0 && !fits_pattern(r->model, &a->model)) ||
            (r->role.len > 0 && !fits_pattern(r->role, &a->last_role)) ||
            (r->last.len > 0 && !has_part(r->last, &a->last)))
            continue;
        if (r->times > 0)
            r->times--;
        return r;
    }
    return NULL;
}
