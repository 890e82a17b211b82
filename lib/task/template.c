/* Templates: JSON values with `${{ }}` inside strings, compiled to code.h programs. */
#include "compile.h"

#include <string.h>

#define OPEN "${{"
#define OPEN_LEN 3u
#define CLOSE_LEN 2u

void draft_begin(struct compiler *c)
{
    struct draft *d = &c->draft;

    cox_buf_clear(&d->raw);
    cox_buf_clear(&d->code);
    d->refs.n = 0;
    d->reads_inputs = false;
    d->reads_error = false;
    d->reads_item = false;
    d->cost = 0;
    d->serial++;
}

void draft_raw(struct compiler *c, const char *json)
{
    cox_buf_append_str(&c->draft.raw, json);
}

static void put_code(struct compiler *c, enum op op, struct image_str operand)
{
    cox_put_u32(&c->draft.code, (uint32_t)op | operand.len << 8);
    cox_put_u32(&c->draft.code, operand.at);
}

/* Moves the text collected so far into the program. */
static void flush_raw(struct compiler *c)
{
    struct draft *d = &c->draft;

    if (d->raw.len == 0)
        return;
    COX_ASSERT(d->raw.len <= CODE_N_MAX);
    put_code(c, OP_RAW, image_put_str(&c->image, cox_buf_slice(&d->raw)));
    cox_buf_clear(&d->raw);
}

/* The length of the expression at the start of `text`, up to its "}}"; -1 when there is none. Braces inside
 * string literals do not count; r"..." has no escapes. */
static ptrdiff_t expr_len(struct cox_slice text)
{
    const uint8_t *p = text.data;
    uint8_t quote = 0;
    bool raw = false;

    for (size_t i = 0; i < text.len; i++) {
        if (quote) {
            if (p[i] == '\\' && !raw)
                i++;
            else if (p[i] == quote)
                quote = 0;
        } else if (p[i] == '"' || p[i] == '\'') {
            quote = p[i];
            raw = i > 0 && (p[i - 1] | 0x20) == 'r';
        } else if (p[i] == '}' && i + 1 < text.len && p[i + 1] == '}') {
            return (ptrdiff_t)i;
        }
    }
    return -1;
}

/* Compiles the expression after "${{". Returns what lies behind its "}}", or NULL after reporting. */
static const uint8_t *put_expr(struct compiler *c, const struct scope *scope, const struct place *at,
                               const uint8_t *p, const uint8_t *end)
{
    ptrdiff_t len = expr_len(cox_slice(p, (size_t)(end - p)));

    if (len < 0) {
        report_at(&c->report, at, "found `${{` without its `}}`");
        return NULL;
    }
    flush_raw(c);
    return compile_expr(c, scope, at, cox_slice(p, (size_t)len)) ? p + len + CLOSE_LEN : NULL;
}

void draft_text(struct compiler *c, const struct scope *scope, const struct place *at, struct cox_slice s)
{
    enum op emit = template_is_expr(s) ? OP_EMIT_ARG : OP_EMIT_TEXT;
    const uint8_t *p = s.data, *end = s.data + s.len, *open;

    while ((open = memmem(p, (size_t)(end - p), OPEN, OPEN_LEN))) {
        cox_json_escape(&c->draft.raw, cox_slice(p, (size_t)(open - p)));
        p = put_expr(c, scope, at, open + OPEN_LEN, end);
        if (!p)
            return;
        put_code(c, emit, (struct image_str){ 0 });
    }
    cox_json_escape(&c->draft.raw, cox_slice(p, (size_t)(end - p)));
}

/* A string with an expression in it that is not all of it, or that becomes a string whatever its value. */
static void put_text(struct compiler *c, const struct scope *scope, const struct place *at,
                     struct cox_slice s)
{
    draft_raw(c, "\"");
    draft_text(c, scope, at, s);
    draft_raw(c, "\"");
}

/* Does an expression of the text read a secret? */
static bool reads_secret(struct compiler *c, struct cox_slice s)
{
    const uint8_t *p = s.data, *end = s.data + s.len;
    struct cox_buf key = { 0 };
    bool found = false;

    while (!found && c->secrets.root && (p = memmem(p, (size_t)(end - p), OPEN, OPEN_LEN))) {
        p += OPEN_LEN;
        ptrdiff_t len = expr_len(cox_slice(p, (size_t)(end - p)));

        found = len >= 0 && secrets_take(c, NULL, cox_slice(p, (size_t)len), &key);
        p += len < 0 ? 0 : len;
    }
    cox_buf_fini(&key);
    return found;
}

/* A string that reads secrets, as a list: text, key, text, key ... text. */
static void put_pieces(struct compiler *c, const struct scope *scope, const struct place *at,
                       struct cox_slice s)
{
    const uint8_t *p = s.data, *end = s.data + s.len, *open;
    struct cox_buf key = { 0 };

    secrets_place(c, at);
    draft_raw(c, "[\"");
    while (p && (open = memmem(p, (size_t)(end - p), OPEN, OPEN_LEN))) {
        ptrdiff_t len = expr_len(cox_slice(open + OPEN_LEN, (size_t)(end - open) - OPEN_LEN));

        cox_json_escape(&c->draft.raw, cox_slice(p, (size_t)(open - p)));
        if (len >= 0 && secrets_take(c, at, cox_slice(open + OPEN_LEN, (size_t)len), &key)) {
            draft_raw(c, "\",");
            cox_json_quote(&c->draft.raw, cox_buf_slice(&key));
            draft_raw(c, ",\"");
            p = open + OPEN_LEN + len + CLOSE_LEN;
        } else if ((p = put_expr(c, scope, at, open + OPEN_LEN, end)) != NULL) {
            put_code(c, OP_EMIT_TEXT, (struct image_str){ 0 });
        }
    }
    if (p)
        cox_json_escape(&c->draft.raw, cox_slice(p, (size_t)(end - p)));
    draft_raw(c, "\"]");
    cox_buf_fini(&key);
}

bool template_is_expr(struct cox_slice s)
{
    if (s.len < OPEN_LEN || memcmp(s.data, OPEN, OPEN_LEN) != 0)
        return false;
    ptrdiff_t len = expr_len(cox_slice(s.data + OPEN_LEN, s.len - OPEN_LEN));

    return len >= 0 && OPEN_LEN + (size_t)len + CLOSE_LEN == s.len;
}

static void put_string(struct compiler *c, const struct scope *scope, const struct place *at,
                       const json_t *value, enum emit emit)
{
    struct cox_slice s = json_slice(value);

    if (s.len == 0 || !memmem(s.data, s.len, OPEN, OPEN_LEN))
        cox_json_quote(&c->draft.raw, s);
    else if (reads_secret(c, s))
        put_pieces(c, scope, at, s);
    else if (emit == EMIT_ARG || !template_is_expr(s))
        put_text(c, scope, at, s);
    else if (put_expr(c, scope, at, s.data + OPEN_LEN, s.data + s.len))
        put_code(c, OP_EMIT_VALUE, (struct image_str){ 0 });
}

static void put_object(struct compiler *c, const struct scope *scope, const struct place *at,
                       const json_t *value)
{
    const char *separator = "{", *key;
    json_t *member;

    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        struct place here = place_key(at, key);

        draft_raw(c, separator);
        cox_json_quote(&c->draft.raw, cox_slice_str(key));
        draft_raw(c, ":");
        draft_value(c, scope, &here, member, EMIT_VALUE);
        separator = ",";
    }
    draft_raw(c, *separator == '{' ? "{}" : "}");
}

/* Recurses as deep as json_parse lets a document be. */
void draft_value(struct compiler *c, const struct scope *scope, const struct place *at, const json_t *value,
                 enum emit emit)
{
    if (json_is_string(value)) {
        put_string(c, scope, at, value, emit);
    } else if (json_is_object(value)) {
        put_object(c, scope, at, value);
    } else if (json_is_array(value)) {
        draft_raw(c, "[");
        for (size_t i = 0; i < json_array_size(value); i++) {
            struct place here = place_index(at, i);

            if (i > 0)
                draft_raw(c, ",");
            draft_value(c, scope, &here, json_array_get(value, i), EMIT_VALUE);
        }
        draft_raw(c, "]");
    } else {
        json_put(&c->draft.raw, value);
    }
}

uint32_t draft_end(struct compiler *c, const struct place *at)
{
    struct draft *d = &c->draft;

    if (d->code.len == 0)
        return image_put_const(&c->image, cox_buf_slice(&d->raw));
    if (d->cost > COX_EXPR_COST_MAX)
        report_at(&c->report, at, "its expressions cost %u, expected at most %u in one value", d->cost,
                  COX_EXPR_COST_MAX);
    flush_raw(c);
    return image_put_program(&c->image, &(struct image_program){
                                            .code = cox_buf_slice(&d->code),
                                            .refs = d->refs.v,
                                            .n_refs = d->refs.n,
                                            .reads_inputs = d->reads_inputs,
                                            .reads_error = d->reads_error,
                                            .reads_item = d->reads_item,
                                        });
}

uint32_t compile_template(struct compiler *c, const struct scope *scope, const struct place *at,
                          const json_t *value)
{
    draft_begin(c);
    draft_value(c, scope, at, value, EMIT_VALUE);
    return draft_end(c, at);
}

/* An `if` leaves its one value on the stack. */
uint32_t compile_condition(struct compiler *c, const struct scope *scope, const struct place *at,
                           const json_t *value)
{
    struct cox_slice s = json_is_string(value) ? json_slice(value) : cox_slice(NULL, 0);

    if (json_is_boolean(value))
        return image_put_const(&c->image, cox_slice_str(json_is_true(value) ? "true" : "false"));
    if (!template_is_expr(s)) {
        report_found(&c->report, at, value, "one expression such as \"${{ success() }}\", true or false");
        return COX_IMAGE_NONE;
    }
    draft_begin(c);
    put_expr(c, scope, at, s.data + OPEN_LEN, s.data + s.len);
    return draft_end(c, at);
}

uint32_t compile_results(struct compiler *c)
{
    draft_begin(c);
    for (uint32_t i = 0; i < c->n_steps; i++) {
        if (c->plan[i].owner == COX_IMAGE_NONE)
            u32s_add(&c->draft.refs, i);
    }
    put_code(c, OP_RESULTS, (struct image_str){ 0 });
    return draft_end(c, c->steps_at);
}
