#include "tools.h"

#include "../wiped.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#define ANNOTATION "x-mcp-header"
#define MARK_BEGIN "=?base64?"
#define MARK_END "?="

static bool is_plain(struct cox_slice s)
{
    size_t begin = strlen(MARK_BEGIN), end = strlen(MARK_END);

    for (size_t i = 0; i < s.len; i++)
        if ((s.data[i] < 32 && s.data[i] != '\t') || s.data[i] > 126)
            return false;
    if (s.len > 0 && (strchr(" \t", s.data[0]) || strchr(" \t", s.data[s.len - 1])))
        return false;
    return s.len < begin + end || memcmp(s.data, MARK_BEGIN, begin) != 0 ||
           memcmp(s.data + s.len - end, MARK_END, end) != 0;
}

void mcp_header_put(struct cox_buf *out, struct cox_slice text)
{
    if (is_plain(text)) {
        cox_buf_append_slice(out, text);
        return;
    }
    cox_buf_append_str(out, MARK_BEGIN);
    if (text.len > 0) {
        uint8_t *to = cox_buf_extend(out, (text.len + 2) / 3 * 4 + 1);

        out->len -= 1; /* EVP_EncodeBlock ends with a NUL */
        EVP_EncodeBlock(to, text.data, (int)text.len);
    }
    cox_buf_append_str(out, MARK_END);
}

/* ---------------------------------------------------------------- schemas */

struct walk {
    struct cox_buf *out;
    struct cox_slice names[MCP_PARAMS_MAX]; /* what stands between the quotes */
    size_t n;
};

static bool is_name(struct cox_slice raw)
{
    struct cox_slice s = cox_json_inner(raw);

    if (cox_json_kind(raw) != COX_JSON_STRING)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t b = s.data[i], letter = b | 0x20;

        if (!(letter >= 'a' && letter <= 'z') && !(b >= '0' && b <= '9') && !memchr("!#$%&'*+-.^_`|~", b, 15))
            return false;
    }
    return s.len > 0 && s.len <= 128;
}

static bool is_new(struct walk *w, struct cox_slice name)
{
    for (size_t i = 0; i < w->n; i++)
        if (w->names[i].len == name.len &&
            strncasecmp((const char *)w->names[i].data, (const char *)name.data, name.len) == 0)
            return false;
    if (w->n == MCP_PARAMS_MAX)
        return false;
    w->names[w->n++] = name;
    return true;
}

static bool is_primitive(struct cox_slice schema)
{
    struct cox_slice type;

    return cox_json_member(schema, "type", &type) && (cox_json_string_is(type, cox_slice_str("string")) ||
                                                      cox_json_string_is(type, cox_slice_str("integer")) ||
                                                      cox_json_string_is(type, cox_slice_str("boolean")));
}

static void put_value(struct walk *w, struct cox_slice name, struct cox_slice value)
{
    enum cox_json_kind kind = cox_json_kind(value);
    struct cox_buf text = { 0 };

    if (kind != COX_JSON_STRING && kind != COX_JSON_NUMBER && kind != COX_JSON_BOOL)
        return;
    wiped_reserve(&text, value.len + 1);
    if (kind == COX_JSON_STRING)
        cox_json_unquote(&text, value);
    else
        cox_buf_append_slice(&text, value);
    cox_buf_append_str(w->out, "Mcp-Param-");
    cox_buf_append_slice(w->out, name);
    cox_buf_append_str(w->out, ": ");
    mcp_header_put(w->out, cox_buf_slice(&text));
    cox_buf_append_str(w->out, "\n");
    wiped_fini(&text);
}

/* Data within a schema, where the word means nothing. */
static bool is_data(struct cox_slice key)
{
    static const char *const keys[] = { "default", "const", "enum", "examples" };

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (cox_json_string_is(key, cox_slice_str(keys[i])))
            return true;
    return false;
}

/* Anywhere but on a way of `properties` the word makes the schema a wrong one. Recurses as deep as JSON may.
 */
static bool is_free_of_it(struct cox_slice value)
{
    bool ok = true;

    for (struct cox_json_walk w = cox_json_walk(value); ok && cox_json_next(&w);) {
        if (w.key.len > 0 && cox_json_string_is(w.key, cox_slice_str(ANNOTATION)))
            return false;
        ok = (w.key.len > 0 && is_data(w.key)) || is_free_of_it(w.value);
    }
    return ok;
}

static bool walk_schema(struct walk *w, struct cox_slice schema, struct cox_slice arguments);

static bool walk_property(struct walk *w, struct cox_slice schema, struct cox_slice value)
{
    struct cox_slice name;

    if (!cox_json_member(schema, ANNOTATION, &name))
        return walk_schema(w, schema, value);
    if (!is_name(name) || !is_primitive(schema) || !is_new(w, cox_json_inner(name)))
        return false;
    put_value(w, cox_json_inner(name), value);
    return true;
}

static struct cox_slice member_of(struct cox_slice arguments, struct cox_slice key)
{
    struct cox_slice found = { 0 };
    struct cox_buf name = { 0 };

    cox_json_unquote(&name, key);
    if (cox_json_kind(arguments) != COX_JSON_OBJECT || memchr(cox_buf_cstr(&name), 0, name.len) ||
        !cox_json_member(arguments, cox_buf_cstr(&name), &found))
        found = cox_slice(NULL, 0);
    cox_buf_fini(&name);
    return found;
}

static bool walk_schema(struct walk *w, struct cox_slice schema, struct cox_slice arguments)
{
    bool ok = true;

    if (cox_json_kind(schema) != COX_JSON_OBJECT)
        return true;
    for (struct cox_json_walk it = cox_json_walk(schema); ok && cox_json_next(&it);) {
        if (!cox_json_string_is(it.key, cox_slice_str("properties"))) {
            ok = !cox_json_string_is(it.key, cox_slice_str(ANNOTATION)) &&
                 (is_data(it.key) || is_free_of_it(it.value));
            continue;
        }
        for (struct cox_json_walk p = cox_json_walk(it.value); ok && cox_json_next(&p);)
            ok = walk_property(w, p.value, arguments.len > 0 ? member_of(arguments, p.key) : arguments);
    }
    return ok;
}

bool mcp_params_put(struct cox_buf *out, struct cox_slice schema, struct cox_slice arguments)
{
    struct walk w = { .out = out };

    return walk_schema(&w, schema, arguments);
}
