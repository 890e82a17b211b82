/* `secrets: {KEY: REFERENCE}` of a call, and where its expressions may read `secrets.KEY`.
 *
 * No value is known here, nor anywhere but on the worker. What stands in the spec is a place: the string
 * becomes a list of pieces, text and keys by turns, and where such lists stand is said beside the spec by
 * paths of the document's own words:
 *
 *     [{"TOKEN": "slack"}, {"url": "https://...", "headers": {"Authorization": ["Bearer ", "TOKEN", ""]}},
 *      [["headers", "Authorization"]]]
 *
 * So what is interpolated cannot make a place, whatever it holds: it is a string within a list, or lies below
 * no path. No character is special, and nothing is escaped. */
#include "compile.h"
#include "expr_lex.h"

#include <string.h>

#define KEYS_MAX 32u
#define KEY_LEN_MAX 63u
#define REFERENCE_LEN_MAX 128u

static bool is_letter(uint8_t b)
{
    return ((b | 0x20) >= 'a' && (b | 0x20) <= 'z') || b == '_';
}

static bool is_digit(uint8_t b)
{
    return b >= '0' && b <= '9';
}

static bool key_ok(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!is_letter(s.data[i]) && (i == 0 || !is_digit(s.data[i])))
            return false;
    }
    return s.len > 0 && s.len <= KEY_LEN_MAX;
}

/* It may be the name of a file: no slash, and no dot first. */
static bool reference_ok(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        bool word = is_letter(s.data[i]) || is_digit(s.data[i]);

        if (!word && (i == 0 || (s.data[i] != '.' && s.data[i] != '-')))
            return false;
    }
    return s.len > 0 && s.len <= REFERENCE_LEN_MAX;
}

static bool is_for(struct compiler *c, const struct place *at, enum cox_step_kind kind)
{
    if (is_made(c)) {
        /* Else what a program or a model says would choose among all secrets of the tenant. */
        report_at(&c->report, at, "steps that a program or a model asks for have no secrets");
        return false;
    }
    if (kind != COX_KIND_RUN && kind != COX_KIND_USES && kind != COX_KIND_HTTP && kind != COX_KIND_MCP) {
        report_at(&c->report, at, "%s; expected it beside `run`, `uses`, `http` or `mcp`",
                  kind == COX_KIND_JQ ? "what `jq` computes is stored, and hands nothing to anybody"
                                      : "is about attempts on workers");
        return false;
    }
    return true;
}

void compile_secrets(struct compiler *c, const struct place *at, json_t *declared, enum cox_step_kind kind)
{
    struct secrets *s = &c->secrets;
    const char *key;
    json_t *reference;

    cox_buf_clear(&s->places);
    *s = (struct secrets){ .places = s->places };
    if (!declared || !is_for(c, at, kind))
        return;
    if (json_object_size(declared) > KEYS_MAX)
        report_at(&c->report, at, "found %zu secrets, expected at most %u", json_object_size(declared),
                  KEYS_MAX);
    json_object_foreach(declared, key, reference)
    {
        struct place here = place_key(at, key);

        if (!key_ok(cox_slice_str(key)))
            report_at(&c->report, &here,
                      "found the name \"%.*s\", expected one of a-z, A-Z, 0-9 and _, at most %u long, no "
                      "digit first",
                      shown_len(cox_slice_str(key), 100), key, KEY_LEN_MAX);
        if (!json_is_string(reference) || !reference_ok(json_slice(reference)))
            report_found(
                &c->report, &here, reference,
                "the name of a secret that workers know, of letters, digits, _ . and -, without expressions");
    }
    s->declared = json_object_size(declared) > 0 ? declared : NULL;
}

void secrets_begin(struct compiler *c)
{
    if (!c->secrets.declared)
        return;
    draft_raw(c, "[");
    json_put(&c->draft.raw, c->secrets.declared);
    draft_raw(c, ",");
}

void secrets_offer(struct compiler *c, const struct place *root, const char *below)
{
    if (!c->secrets.declared)
        return;
    c->secrets.root = root;
    c->secrets.below = below;
}

void secrets_end(struct compiler *c)
{
    struct secrets *s = &c->secrets;

    s->root = NULL;
    s->argv = false;
    if (!s->declared)
        return;
    draft_raw(c, ",[");
    cox_buf_append_slice(&c->draft.raw, cox_buf_slice(&s->places));
    draft_raw(c, "]]");
    s->declared = NULL;
}

/* ---- one expression ---- */

/* The key that the whole of an expression reads; false for any other expression. */
static bool read_key(struct cox_slice expr, struct cox_buf *ret)
{
    struct lexer l;
    bool ok, bracket;

    cox_buf_clear(ret);
    lexer_init(&l, expr);
    ok = l.token == TOKEN_NAME && cox_slice_is(l.text, "secrets");
    lexer_next(&l);
    bracket = l.token == TOKEN_OPEN_BRACKET;
    ok = ok && (bracket || l.token == TOKEN_DOT);
    lexer_next(&l);
    if (ok && bracket && l.token == TOKEN_STRING)
        cox_buf_append_slice(ret, cox_buf_slice(&l.value));
    else if (ok && !bracket && (l.token == TOKEN_NAME || l.token == TOKEN_IN))
        cox_buf_append_slice(ret, l.text);
    else
        ok = false;
    lexer_next(&l);
    if (bracket) {
        ok = ok && l.token == TOKEN_CLOSE_BRACKET;
        lexer_next(&l);
    }
    ok = ok && l.token == TOKEN_END;
    lexer_fini(&l);
    return ok;
}

bool secrets_take(struct compiler *c, const struct place *at, struct cox_slice expr, struct cox_buf *ret)
{
    struct suggestion near;
    char text[SUGGESTION_LEN];
    const char *key;
    json_t *reference;

    if (!c->secrets.root || !read_key(expr, ret))
        return false;
    if (!at ||
        (json_object_get(c->secrets.declared, cox_buf_cstr(ret)) && strlen(cox_buf_cstr(ret)) == ret->len))
        return true;
    near = suggestion(cox_buf_slice(ret));
    json_object_foreach((json_t *)(uintptr_t)c->secrets.declared, key, reference)
        suggestion_offer(&near, cox_slice_str(key));
    report_at(&c->report, at, "unknown secret `%.*s`, expected one of the step's `secrets`%s",
              shown_len(cox_buf_slice(ret), 100), (const char *)ret->data, suggestion_text(&near, text));
    return true;
}

const char *secrets_why_not(const struct compiler *c)
{
    if (c->secrets.argv)
        return "everybody on a worker's host sees the arguments of its processes; expected `secrets` in "
               "`env` or "
               "`stdin`";
    return "`secrets.KEY` stands alone in its `${{ }}`, and in what a worker hands on, of a step with "
           "`secrets`: "
           "`env` and `stdin` of `run`, `url`, `headers`, `json` and `body` of `http`, `url`, `headers`, "
           "`env` and "
           "`arguments` of `mcp`, `with`";
}

/* ---- places ---- */

static void put_path(struct compiler *c, const struct place *at)
{
    struct secrets *s = &c->secrets;

    if (at == s->root) {
        cox_buf_append_str(&s->places, s->below ? "[\"" : "[");
        cox_buf_append_str(&s->places, s->below ? s->below : "");
        cox_buf_append_str(&s->places, s->below ? "\"" : "");
        return;
    }
    put_path(c, at->up);
    if (s->places.data[s->places.len - 1] != '[')
        cox_buf_append_str(&s->places, ",");
    if (at->key)
        cox_json_quote(&s->places, cox_slice_str(at->key));
    else
        cox_buf_printf(&s->places, "%zu", at->index);
}

void secrets_place(struct compiler *c, const struct place *at)
{
    if (c->secrets.places.len > 0)
        cox_buf_append_str(&c->secrets.places, ",");
    put_path(c, at);
    cox_buf_append_str(&c->secrets.places, "]");
}
