/* One expression, compiled in one pass: recursive descent that appends code as it reads. Recursion is bounded
 * by COX_EXPR_DEPTH_MAX, chains of operators loop. */
#include "compile.h"
#include "expr_lex.h"
#include "regex.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SHOWN_MAX 120u /* bytes of an expression quoted in a message */

/* What the code just appended reads, for has(). */
enum selection {
    SELECT_NONE,
    SELECT_KEY,    /* the last instruction is a GET */
    SELECT_ROOT,   /* a field of a root, which is there or null */
    SELECT_INPUTS, /* the object of all inputs */
};

struct parser {
    struct compiler *c;
    const struct scope *scope;
    const struct place *at;
    struct lexer lex;
    unsigned depth;
    uint32_t stack; /* values on it when the code so far has run */
    enum selection select;
    bool failed;
};

static void parse_expr(struct parser *p);
static void parse_postfix(struct parser *p);

/* ---- errors ---- */

static int shown(struct cox_slice s)
{
    return shown_len(s, SHOWN_MAX);
}

/* Only the first error counts: afterwards the parser sees the end of the text, and unwinds. */
static void fail(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct parser *p, const char *fmt, ...)
{
    struct cox_slice source = cox_json_trim(p->lex.source);
    char message[COX_ERROR_MESSAGE_LEN_MAX / 2];
    va_list args;

    if (p->failed)
        return;
    p->failed = true;
    p->lex.token = TOKEN_END;
    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    report_at(&p->c->report, p->at, "in `${{ %.*s }}`: %s", shown(source), (const char *)source.data,
              message);
}

static void fail_token(struct parser *p, const char *expected)
{
    if (p->lex.token == TOKEN_END)
        fail(p, "found its end, expected %s", expected);
    else
        fail(p, "found `%.*s`, expected %s", shown(p->lex.text), (const char *)p->lex.text.data, expected);
}

static void advance(struct parser *p)
{
    if (p->failed)
        return;
    lexer_next(&p->lex);
    if (p->lex.token == TOKEN_BAD)
        fail(p, "at `%.*s`: %s", shown(p->lex.text), (const char *)p->lex.text.data, p->lex.bad);
}

static bool take(struct parser *p, enum token token)
{
    if (p->lex.token != token)
        return false;
    advance(p);
    return true;
}

static void expect(struct parser *p, enum token token, const char *expected)
{
    if (!take(p, token))
        fail_token(p, expected);
}

static bool enter(struct parser *p)
{
    if (++p->depth > COX_EXPR_DEPTH_MAX)
        fail(p, "found more than %u levels of nesting, expected at most %u", COX_EXPR_DEPTH_MAX,
             COX_EXPR_DEPTH_MAX);
    return !p->failed;
}

/* ---- code ---- */

static uint32_t code_here(const struct parser *p)
{
    return (uint32_t)(p->c->draft.code.len / CODE_LEN);
}

static struct code code_get(const struct parser *p, uint32_t i)
{
    return code_load(p->c->draft.code.data + (size_t)i * CODE_LEN);
}

static void code_set(struct parser *p, uint32_t i, enum op op, uint32_t n, uint32_t at)
{
    cox_set_u32(&p->c->draft.code, (size_t)i * CODE_LEN, (uint32_t)op | n << 8);
    cox_set_u32(&p->c->draft.code, (size_t)i * CODE_LEN + 4, at);
}

static uint32_t put(struct parser *p, enum op op, uint32_t n, uint32_t at)
{
    struct draft *d = &p->c->draft;
    uint32_t i = code_here(p), takes = op == OP_LIST ? n : op_info[op].takes;

    if (p->failed)
        return 0;
    COX_ASSERT(n <= CODE_N_MAX && p->stack >= takes);
    p->stack = p->stack - takes + op_info[op].leaves;
    if (p->stack > CODE_STACK_MAX)
        fail(p, "it holds too many values at once");
    cox_put_u32(&d->code, (uint32_t)op | n << 8);
    cox_put_u32(&d->code, at);
    d->cost++;
    p->select = SELECT_NONE;
    return i;
}

static void put_str(struct parser *p, enum op op, struct image_str s)
{
    put(p, op, s.len, s.at);
}

static void put_const(struct parser *p, struct cox_slice json)
{
    put_str(p, OP_CONST, image_put_str(&p->c->image, json));
}

static void put_string(struct parser *p, struct cox_slice plain)
{
    struct cox_buf *json = &p->c->scratch;

    cox_buf_clear(json);
    cox_json_quote(json, plain);
    put_const(p, cox_buf_slice(json));
}

/* A jump to here. */
static void land(struct parser *p, uint32_t jump, enum op op)
{
    if (!p->failed)
        code_set(p, jump, op, 0, code_here(p) - jump - 1);
}

/* Takes back the code from `first` on, which would have left n values. */
static void drop_code(struct parser *p, uint32_t first, uint32_t n)
{
    p->c->draft.code.len = (size_t)first * CODE_LEN;
    p->stack -= n;
}

/* Inputs are constants too, but a fork may give others (cox_image_rebind): code must not hang on their
 * values. */
static bool is_input(const struct parser *p, uint32_t at)
{
    return at >= p->c->inputs_json.at && at < p->c->inputs_json.at + p->c->inputs_json.len;
}

/* The text of the one constant that the code from `first` on is; false when it is anything else. */
static bool one_const(const struct parser *p, uint32_t first, struct cox_slice *ret)
{
    if (p->failed || code_here(p) != first + 1)
        return false;
    struct code c = code_get(p, first);

    if (c.op != OP_CONST || is_input(p, c.at))
        return false;
    *ret = image_str(&p->c->image, (struct image_str){ c.at, c.n });
    return true;
}

/* ---- roots ---- */

/* ".name" or ["name"] after a root; false when neither follows. */
static bool take_field(struct parser *p, struct cox_buf *ret, const char *expected)
{
    bool dot = p->lex.token == TOKEN_DOT;

    cox_buf_clear(ret);
    if (!dot && p->lex.token != TOKEN_OPEN_BRACKET)
        return false;
    advance(p);
    if (dot && (p->lex.token == TOKEN_NAME || p->lex.token == TOKEN_IN)) {
        cox_buf_append_slice(ret, p->lex.text);
        advance(p);
    } else if (!dot && p->lex.token == TOKEN_STRING) {
        cox_buf_append_slice(ret, cox_buf_slice(&p->lex.value));
        advance(p);
        expect(p, TOKEN_CLOSE_BRACKET, "`]`");
    } else {
        fail_token(p, expected);
    }
    return !p->failed;
}

static void fail_unknown_step(struct parser *p, struct cox_slice name)
{
    struct suggestion near = suggestion(name);
    char text[SUGGESTION_LEN];

    compiler_offer_steps(p->c, &near);
    fail(p, "unknown step `%.*s`%s", shown(name), (const char *)name.data, suggestion_text(&near, text));
}

/* The template and the step of the scope both come to depend on `step`. */
static void refer(struct parser *p, uint32_t step)
{
    struct compiler *c = p->c;

    compiler_refer(c, p->scope, step);
    if (c->seen_by_template[step] == c->draft.serial)
        return;
    c->seen_by_template[step] = c->draft.serial;
    u32s_add(&c->draft.refs, step);
}

static void parse_step_field(struct parser *p, uint32_t step, struct cox_slice field)
{
#define FIELD_TEXT(name, text) text,
    static const char *const fields[] = { STEP_FIELD_TABLE(FIELD_TEXT) };
#undef FIELD_TEXT
    struct suggestion near = suggestion(field);
    char text[SUGGESTION_LEN];

    for (uint32_t i = 0; i < STEP_FIELD_NR; i++) {
        if (cox_slice_is(field, fields[i])) {
            refer(p, step);
            put(p, OP_STEP, i, step);
            p->select = SELECT_ROOT;
            return;
        }
        suggestion_offer(&near, cox_slice_str(fields[i]));
    }
    fail(p, "a step has no `%.*s`, expected `output`, `errors`, `artifacts`, `status` or `error`%s",
         shown(field), (const char *)field.data, suggestion_text(&near, text));
}

static void parse_steps_root(struct parser *p)
{
    static const char name_expected[] = "a step by its name, as in `steps.NAME.output`";
    struct cox_buf name = { 0 }, field = { 0 };
    uint32_t step;

    if (!take_field(p, &name, name_expected)) {
        fail_token(p, name_expected);
        goto out;
    }
    step = compiler_find_step(p->c, cox_buf_slice(&name));
    if (step == COX_IMAGE_NONE)
        fail_unknown_step(p, cox_buf_slice(&name));
    else if (step == p->scope->step)
        fail(p, "a step must not refer to itself");
    else if (take_field(p, &field, "`output`, `errors`, `artifacts`, `status` or `error`"))
        parse_step_field(p, step, cox_buf_slice(&field));
    else
        fail(p, "expected `steps.%.*s.output`, or its `errors`, `artifacts`, `status` or `error`",
             shown(cox_buf_slice(&name)), (const char *)name.data);
out:
    cox_buf_fini(&name);
    cox_buf_fini(&field);
}

static void fail_unknown_input(struct parser *p, struct cox_slice name)
{
    struct suggestion near = suggestion(name);
    char text[SUGGESTION_LEN];

    for (uint32_t i = 0; report_open(&p->c->report) && i < p->c->n_inputs; i++)
        suggestion_offer(&near, cox_slice_str(p->c->input_names[i]));
    fail(p, "unknown input `%.*s`%s", shown(name), (const char *)name.data, suggestion_text(&near, text));
}

/* Values of inputs are known now: `inputs.x` is a constant. Replaces the object of all inputs. */
static void put_input(struct parser *p, struct cox_slice name)
{
    uintptr_t found = (uintptr_t)cox_mapb_get(&p->c->input_by_name, name);

    if (!found) {
        fail_unknown_input(p, name);
        return;
    }
    drop_code(p, code_here(p) - 1, 1);
    put_str(p, OP_CONST, p->c->inputs[found - 1]);
    p->select = SELECT_ROOT;
}

static void parse_inputs_root(struct parser *p)
{
    p->c->draft.reads_inputs = true;
    put_str(p, OP_CONST, p->c->inputs_json);
    p->select = SELECT_INPUTS;
}

static void parse_error_root(struct parser *p)
{
    if (!p->scope->fallback) {
        fail(p, "`error` is known in a `fallback` only");
        return;
    }
    p->c->draft.reads_error = true;
    put(p, OP_ERROR, 0, 0);
}

/* `item`, by this or the name that `as` gave it, and `index`: known in what a map runs. `args`: in an agent's
 * tools. */
static bool parse_item_root(struct parser *p, struct cox_slice name)
{
    const struct scope *scope = p->scope;
    bool item = cox_slice_is(name, "item") || (scope->as && cox_slice_is(name, scope->as));

    if (scope->item && cox_slice_is(name, "index")) {
        put(p, OP_ITEM_INDEX, 0, 0);
    } else if ((scope->item && item) || (scope->args && cox_slice_is(name, "args"))) {
        put(p, item ? OP_ITEM : OP_ARGS, 0, 0);
        p->select = SELECT_ROOT;
    } else {
        return false;
    }
    p->c->draft.reads_item = true;
    return true;
}

static void fail_unknown_root(struct parser *p, struct cox_slice name)
{
    struct suggestion near = suggestion(name);
    char text[SUGGESTION_LEN];

    if (p->scope->as)
        suggestion_offer(&near, cox_slice_str(p->scope->as));
    suggestion_offer(&near, cox_slice_str("steps"));
    suggestion_offer(&near, cox_slice_str("inputs"));
    suggestion_offer(&near, cox_slice_str("error"));
    fail(p, "unknown name `%.*s`, expected `steps`, `inputs`, a literal or a function%s", shown(name),
         (const char *)name.data, suggestion_text(&near, text));
}

static void parse_root(struct parser *p, struct cox_slice name)
{
    if (cox_slice_is(name, "steps"))
        parse_steps_root(p);
    else if (cox_slice_is(name, "inputs"))
        parse_inputs_root(p);
    else if (cox_slice_is(name, "error"))
        parse_error_root(p);
    else if (parse_item_root(p, name))
        return;
    else if (cox_slice_is(name, "args"))
        fail(p, "`args` is known in the tools of an agent only");
    else if (cox_slice_is(name, "item") || cox_slice_is(name, "index"))
        fail(p, "`%.*s` is known in what runs for each item of a `map` only", (int)name.len,
             (const char *)name.data);
    else if (cox_slice_is(name, "secrets"))
        fail(p, "%s", secrets_why_not(p->c)); /* secrets.c has taken out those that may stand there */
    else
        fail_unknown_root(p, name);
}

/* ---- functions ---- */

static const struct function {
    const char *name;
    uint8_t op;
    uint8_t n_args; /* the receiver of a method counts */
    bool function;  /* may be called as f(a, b) */
    bool method;    /* may be called as a.f(b) */
} functions[] = {
    { "size", OP_SIZE, 1, true, true },           { "startsWith", OP_STARTS_WITH, 2, false, true },
    { "endsWith", OP_ENDS_WITH, 2, false, true }, { "contains", OP_CONTAINS, 2, false, true },
    { "matches", OP_MATCHES, 2, true, true },     { "toJSON", OP_TO_JSON, 1, true, false },
    { "fromJSON", OP_FROM_JSON, 1, true, false },
};
#define N_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))
static const char *const special_functions[] = { "has", "success", "failure", "always" };
#define N_SPECIAL (sizeof(special_functions) / sizeof(special_functions[0]))

/* A pattern that is known now is checked now, and its size is part of the cost. */
static void check_pattern(struct parser *p, struct cox_slice json)
{
    struct cox_buf text = { 0 };
    struct regex re;

    if (cox_json_kind(json) != COX_JSON_STRING)
        return;
    cox_json_unquote(&text, json);
    const char *wrong = regex_compile(&re, cox_buf_slice(&text));

    if (wrong)
        fail(p, "in the pattern %.*s: %s", shown(json), (const char *)json.data, wrong);
    else
        p->c->draft.cost += re.n_code;
    cox_buf_fini(&text);
}

/* The arguments, after the name and "(". `n` of them are there already: the receiver. */
static void parse_args(struct parser *p, const struct function *f, unsigned n)
{
    struct cox_slice pattern;
    uint32_t first = 0;

    while (p->lex.token != TOKEN_CLOSE_PAREN && !p->failed) {
        if (n == f->n_args) {
            fail(p, "`%s` takes %u argument%s", f->name, f->n_args, f->n_args == 1 ? "" : "s");
            return;
        }
        first = code_here(p);
        parse_expr(p);
        n++;
        if (p->lex.token != TOKEN_CLOSE_PAREN)
            expect(p, TOKEN_COMMA, "`,` or `)`");
    }
    expect(p, TOKEN_CLOSE_PAREN, "`)`");
    if (n < f->n_args) {
        fail(p, "`%s` takes %u argument%s", f->name, f->n_args, f->n_args == 1 ? "" : "s");
        return;
    }
    if (f->op == OP_MATCHES && one_const(p, first, &pattern))
        check_pattern(p, pattern);
    put(p, (enum op)f->op, 0, 0);
}

static void fail_unknown_function(struct parser *p, struct cox_slice name)
{
    struct suggestion near = suggestion(name);
    char text[SUGGESTION_LEN];

    for (size_t i = 0; i < N_FUNCTIONS; i++)
        suggestion_offer(&near, cox_slice_str(functions[i].name));
    for (size_t i = 0; i < N_SPECIAL; i++)
        suggestion_offer(&near, cox_slice_str(special_functions[i]));
    fail(p, "unknown function `%.*s`%s", shown(name), (const char *)name.data, suggestion_text(&near, text));
}

static const struct function *find_function(struct parser *p, struct cox_slice name, bool method)
{
    for (size_t i = 0; i < N_FUNCTIONS; i++) {
        const struct function *f = &functions[i];

        if (!cox_slice_is(name, f->name))
            continue;
        if (method ? f->method : f->function)
            return f;
        fail(p, method ? "`%s` is called as `%s(VALUE)`" : "`%s` is called as `VALUE.%s(TEXT)`", f->name,
             f->name);
        return NULL;
    }
    fail_unknown_function(p, name);
    return NULL;
}

/* has(a.b): is there a `b` in `a`? */
static void parse_has(struct parser *p)
{
    p->select = SELECT_NONE;
    parse_postfix(p);
    if (p->select == SELECT_KEY) {
        struct code last = code_get(p, code_here(p) - 1);

        code_set(p, code_here(p) - 1, OP_HAS, last.n, last.at);
    } else if (p->select == SELECT_ROOT) {
        put_const(p, cox_slice_str("null"));
        put(p, OP_NE, 0, 0);
    } else {
        fail(p, "`has` takes a field, as in `has(steps.NAME.output.FIELD)`");
    }
    expect(p, TOKEN_CLOSE_PAREN, "`)`");
}

static void parse_status_function(struct parser *p, struct cox_slice name)
{
    if (!p->scope->condition)
        fail(p, "`%.*s()` has a meaning in `if` only", (int)name.len, (const char *)name.data);
    expect(p, TOKEN_CLOSE_PAREN, "`)`: this function takes no arguments");
    if (cox_slice_is(name, "always"))
        put_const(p, cox_slice_str("true"));
    else
        put(p, cox_slice_is(name, "success") ? OP_SUCCESS : OP_FAILURE, 0, 0);
}

/* After "name(". */
static void parse_function(struct parser *p, struct cox_slice name)
{
    if (cox_slice_is(name, "has")) {
        parse_has(p);
    } else if (cox_slice_is(name, "success") || cox_slice_is(name, "failure") ||
               cox_slice_is(name, "always")) {
        parse_status_function(p, name);
    } else {
        const struct function *f = find_function(p, name, false);

        if (f)
            parse_args(p, f, 0);
    }
    p->select = SELECT_NONE;
}

/* ---- the grammar ---- */

static void parse_name(struct parser *p)
{
    struct cox_slice name = p->lex.text;

    advance(p);
    if (take(p, TOKEN_OPEN_PAREN))
        parse_function(p, name);
    else if (cox_slice_is(name, "true") || cox_slice_is(name, "false") || cox_slice_is(name, "null"))
        put_const(p, name);
    else
        parse_root(p, name);
}

static void put_int(struct parser *p, bool negative)
{
    struct cox_buf *json = &p->c->scratch;
    uint64_t n = p->lex.number;

    if (n > (uint64_t)INT64_MAX + negative) {
        fail(p, "the integer %.*s is too large", shown(p->lex.text), (const char *)p->lex.text.data);
        return;
    }
    cox_buf_clear(json);
    cox_buf_printf(json, "%s%llu", negative && n > 0 ? "-" : "", (unsigned long long)n);
    put_const(p, cox_buf_slice(json));
    advance(p);
}

static void put_double(struct parser *p)
{
    struct cox_buf *json = &p->c->scratch;
    double d = cox_json_double(p->lex.text);

    if (!isfinite(d)) {
        fail(p, "the number %.*s is too large", shown(p->lex.text), (const char *)p->lex.text.data);
        return;
    }
    cox_buf_clear(json);
    cox_json_put_double(json, d);
    put_const(p, cox_buf_slice(json));
    advance(p);
}

/* Elements are left on the stack; when all are constants, the list is one too. */
static void parse_list(struct parser *p)
{
    struct cox_buf json = { 0 };
    size_t pool_len = p->c->image.pool.len;
    uint32_t first = code_here(p), n = 0;
    bool constant = true;

    while (p->lex.token != TOKEN_CLOSE_BRACKET && !p->failed) {
        uint32_t start = code_here(p);
        struct cox_slice text;

        parse_expr(p);
        constant = constant && one_const(p, start, &text);
        cox_buf_append_str(&json, n++ == 0 ? "[" : ",");
        if (constant)
            cox_buf_append_slice(&json, text);
        if (p->lex.token != TOKEN_CLOSE_BRACKET)
            expect(p, TOKEN_COMMA, "`,` or `]`");
    }
    expect(p, TOKEN_CLOSE_BRACKET, "`]`");
    if (constant && !p->failed) {
        cox_buf_append_str(&json, n > 0 ? "]" : "[]");
        drop_code(p, first, n);
        p->c->image.pool.len = pool_len; /* nothing else refers to the elements' text */
        put_const(p, cox_buf_slice(&json));
    } else {
        put(p, OP_LIST, n, 0);
    }
    cox_buf_fini(&json);
}

static void parse_primary(struct parser *p)
{
    switch (p->lex.token) {
    case TOKEN_NAME:
        parse_name(p);
        break;
    case TOKEN_INT:
        put_int(p, false);
        break;
    case TOKEN_DOUBLE:
        put_double(p);
        break;
    case TOKEN_STRING:
        put_string(p, cox_buf_slice(&p->lex.value));
        advance(p);
        break;
    case TOKEN_OPEN_PAREN:
        advance(p);
        parse_expr(p);
        expect(p, TOKEN_CLOSE_PAREN, "`)`");
        p->select = SELECT_NONE;
        break;
    case TOKEN_OPEN_BRACKET:
        advance(p);
        parse_list(p);
        break;
    default:
        fail_token(p, "a value");
    }
}

static void put_key(struct parser *p, struct cox_slice key, bool of_inputs)
{
    if (of_inputs) {
        put_input(p, key);
        return;
    }
    put_str(p, OP_GET, image_put_str(&p->c->image, key));
    p->select = SELECT_KEY;
}

static void parse_member(struct parser *p)
{
    bool of_inputs = p->select == SELECT_INPUTS;
    struct cox_slice name = p->lex.text;

    if (p->lex.token != TOKEN_NAME && p->lex.token != TOKEN_IN) {
        fail_token(p, "a name after `.`");
        return;
    }
    advance(p);
    if (take(p, TOKEN_OPEN_PAREN)) {
        const struct function *f = find_function(p, name, true);

        if (f)
            parse_args(p, f, 1);
        return;
    }
    if (!p->failed)
        put_key(p, name, of_inputs);
}

/* A literal key is a name. */
static void parse_subscript(struct parser *p)
{
    bool of_inputs = p->select == SELECT_INPUTS;
    uint32_t first = code_here(p);
    struct cox_slice json;

    parse_expr(p);
    expect(p, TOKEN_CLOSE_BRACKET, "`]`");
    if (one_const(p, first, &json) && cox_json_kind(json) == COX_JSON_STRING) {
        struct cox_buf key = { 0 };

        cox_json_unquote(&key, json);
        drop_code(p, first, 1);
        put_key(p, cox_buf_slice(&key), of_inputs);
        cox_buf_fini(&key);
        return;
    }
    put(p, OP_INDEX, 0, 0);
}

static void parse_postfix(struct parser *p)
{
    parse_primary(p);
    while (!p->failed) {
        if (take(p, TOKEN_DOT))
            parse_member(p);
        else if (take(p, TOKEN_OPEN_BRACKET))
            parse_subscript(p);
        else
            return;
    }
}

static void parse_unary(struct parser *p)
{
    bool negate = p->lex.token == TOKEN_MINUS;

    if (!negate && p->lex.token != TOKEN_NOT) {
        parse_postfix(p);
        return;
    }
    if (!enter(p))
        return;
    advance(p);
    if (negate && p->lex.token == TOKEN_INT) {
        put_int(p, true);
    } else {
        parse_unary(p);
        put(p, negate ? OP_NEG : OP_NOT, 0, 0);
    }
    p->depth--;
}

static const struct binary {
    uint8_t token;
    uint8_t level;
    uint8_t op;
} binaries[] = {
    { TOKEN_OR, 1, OP_OR },     { TOKEN_AND, 2, OP_AND },     { TOKEN_EQ, 3, OP_EQ },
    { TOKEN_NE, 3, OP_NE },     { TOKEN_LT, 3, OP_LT },       { TOKEN_LE, 3, OP_LE },
    { TOKEN_GT, 3, OP_GT },     { TOKEN_GE, 3, OP_GE },       { TOKEN_IN, 3, OP_IN },
    { TOKEN_PLUS, 4, OP_ADD },  { TOKEN_MINUS, 4, OP_SUB },   { TOKEN_STAR, 5, OP_MUL },
    { TOKEN_SLASH, 5, OP_DIV }, { TOKEN_PERCENT, 5, OP_MOD },
};

static const struct binary *binary_of(enum token token)
{
    for (size_t i = 0; i < sizeof(binaries) / sizeof(binaries[0]); i++) {
        if (binaries[i].token == token)
            return &binaries[i];
    }
    return NULL;
}

/* Operators of at least `level`, all left-associative (precedence climbing, Richards and Whitby-Strevens). */
static void parse_binary(struct parser *p, unsigned level)
{
    const struct binary *b;

    parse_unary(p);
    while (!p->failed && (b = binary_of(p->lex.token)) && b->level >= level) {
        enum op jump_op = b->op == OP_AND ? OP_JUMP_IF_FALSE : OP_JUMP_IF_TRUE;
        bool logic = b->op == OP_AND || b->op == OP_OR;
        uint32_t jump = logic ? put(p, jump_op, 0, 0) : 0;

        advance(p);
        parse_binary(p, b->level + 1u);
        put(p, (enum op)b->op, 0, 0);
        if (logic)
            land(p, jump, jump_op);
    }
}

static void parse_expr(struct parser *p)
{
    if (!enter(p))
        return;
    parse_binary(p, 1);
    if (take(p, TOKEN_QUESTION)) {
        uint32_t branch = put(p, OP_BRANCH, 0, 0);

        parse_expr(p);
        expect(p, TOKEN_COLON, "`:`");
        uint32_t jump = put(p, OP_JUMP, 0, 0), otherwise = code_here(p);

        if (!p->failed)
            p->stack--; /* only one of the two values will be there */
        parse_expr(p);
        land(p, jump, OP_JUMP);
        if (!p->failed)
            code_set(p, branch, OP_BRANCH, otherwise - branch - 1, code_here(p) - otherwise);
        p->select = SELECT_NONE;
    }
    p->depth--;
}

bool compile_expr(struct compiler *c, const struct scope *scope, const struct place *at,
                  struct cox_slice text)
{
    struct parser p = { .c = c, .scope = scope, .at = at };

    if (text.len > COX_EXPR_LEN_MAX) {
        report_at(&c->report, at, "found an expression of %zu bytes, expected at most %u", text.len,
                  COX_EXPR_LEN_MAX);
        return false;
    }
    struct cox_slice source = cox_json_trim(text);

    lexer_init(&p.lex, text);
    if (p.lex.token == TOKEN_BAD)
        fail(&p, "at `%.*s`: %s", shown(p.lex.text), (const char *)p.lex.text.data, p.lex.bad);
    put_str(&p, OP_EXPR, image_put_str(&c->image, source));
    parse_expr(&p);
    if (p.lex.token != TOKEN_END)
        fail_token(&p, "an operator or the end");
    lexer_fini(&p.lex);
    return !p.failed;
}
