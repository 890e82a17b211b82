/* The machine that runs templates. Programs come from an image that may be damaged: every instruction's
 * operands were checked when it was opened (image.c), and the stack is checked here. */
#include "eval.h"

#include "cox/base/err.h"

#include <stdio.h>
#include <string.h>

#define EXPR_SHOWN_MAX 200

struct machine {
    struct eval ev;
    struct cox_slice code;
    struct value stack[CODE_STACK_MAX];
    uint32_t n_stack;
    struct cox_slice expr; /* the text of the expression being evaluated */
    struct cox_buf *out;
    size_t out_start;
    struct cox_buf *error;
};

/* ---- results ---- */

static bool fail(struct machine *m, struct cox_slice why)
{
    size_t len = (size_t)shown_len(m->expr, EXPR_SHOWN_MAX);

    cox_buf_append_str(m->error, "${{ ");
    cox_buf_append(m->error, m->expr.data, len);
    cox_buf_append_str(m->error, len < m->expr.len ? "... }}: " : " }}: ");
    cox_buf_append_slice(m->error, why);
    return false;
}

static bool fail_str(struct machine *m, const char *why)
{
    return fail(m, cox_slice_str(why));
}

/* A string's characters as they are; any other value as compact JSON. */
static void emit_text(struct machine *m, const struct value *v)
{
    struct cox_buf *scratch = &m->ev.scratch;

    if (v->type == VALUE_STRING && v->escaped) {
        cox_buf_append_slice(m->out, v->str);
    } else if (v->type == VALUE_STRING) {
        cox_json_escape(m->out, v->str);
    } else if (v->type == VALUE_LIST || v->type == VALUE_OBJECT) {
        cox_buf_clear(scratch);
        cox_json_compact(scratch, v->json);
        cox_json_escape(m->out, cox_buf_slice(scratch));
    } else {
        value_put_json(m->out, v);
    }
}

static bool fits(struct machine *m)
{
    size_t len_max = m->ev.env->len_max ? m->ev.env->len_max : COX_MESSAGE_LEN_MAX;

    if (m->out->len - m->out_start <= len_max)
        return true;
    char why[64];

    snprintf(why, sizeof(why), "the result is larger than %zu bytes", len_max);
    return fail_str(m, why);
}

static bool emit(struct machine *m, enum op op)
{
    const struct value *v = &m->stack[--m->n_stack];

    if (v->type == VALUE_ERROR)
        return fail(m, v->str);
    if (op == OP_EMIT_VALUE)
        value_put_json(m->out, v);
    else if (op == OP_EMIT_TEXT || v->type != VALUE_NULL)
        emit_text(m, v);
    return fits(m);
}

/* ---- roots ---- */

static struct value error_value(struct eval *ev, enum cox_code code, struct cox_slice message)
{
    struct cox_buf *json = &ev->scratch;

    if (code == COX_CODE_NONE)
        return value_null();
    cox_buf_clear(json);
    cox_buf_append_str(json, "{\"code\":\"");
    cox_buf_append_str(json, cox_code_text(code));
    cox_buf_append_str(json, "\",\"message\":");
    cox_json_quote(json, message);
    cox_buf_append_str(json, "}");
    return value_json(ev, cox_slice(cox_arena_dup(&ev->arena, json->data, json->len), json->len));
}

/* Outputs come from workers: they are checked before anything is read from them, unless the caller has.
 * `checked` is what was found to be JSON the last time. */
static struct value foreign_value(struct eval *ev, struct cox_slice json, const char *what,
                                  struct cox_slice *checked)
{
    bool known = ev->env->checked && checked == &ev->checked;

    if (json.len == 0)
        return value_null();
    if (!known && (json.data != checked->data || json.len != checked->len)) {
        eval_charge(ev, json.len);
        if (cox_json_check(json, NULL))
            return value_error(ev, "%s is not valid JSON", what);
        *checked = json;
    }
    return value_json(ev, cox_json_trim(json));
}

static struct value step_value(struct eval *ev, uint32_t index, enum step_field field)
{
    struct cox_eval_step step = { 0 };

    ev->env->step(ev->env->user, index, &step);
    switch (field) {
    case STEP_FIELD_OUTPUT:
        return foreign_value(ev, step.output_json, "the step's output", &ev->checked);
    case STEP_FIELD_STATUS:
        return value_str(cox_slice_str(cox_step_status_text(step.status)));
    case STEP_FIELD_ERROR:
        return error_value(ev, step.code, step.message);
    case STEP_FIELD_ERRORS:
        if (step.errors_json.len == 0)
            return value_json(ev, cox_slice_str("[]"));
        return foreign_value(ev, step.errors_json, "the list of the step's errors", &ev->checked);
    case STEP_FIELD_ARTIFACTS:
        return foreign_value(ev, step.artifacts_json, "the step's artifacts", &ev->checked);
    case STEP_FIELD_NR:
        break;
    }
    return value_null();
}

static bool put_result(struct machine *m, uint32_t index)
{
    struct cox_eval_step step = { 0 };
    struct value error;

    m->ev.env->step(m->ev.env->user, index, &step);
    error = error_value(&m->ev, step.code, step.message);
    cox_buf_append_str(m->out, ":{\"status\":\"");
    cox_buf_append_str(m->out, cox_step_status_text(step.status));
    cox_buf_append_str(m->out, "\",\"output\":");
    if (step.output_json.len > 0 && !m->ev.env->checked && cox_json_check(step.output_json, NULL))
        return fail_str(m, "a step's output is not valid JSON");
    if (step.output_json.len > 0)
        cox_buf_append_slice(m->out, cox_json_trim(step.output_json));
    else
        cox_buf_append_str(m->out, "null");
    cox_buf_append_str(m->out, ",\"error\":");
    value_put_json(m->out, &error);
    cox_buf_append_str(m->out, "}");
    return fits(m);
}

/* Costs what the result is long, and that has a limit of its own. */
static bool put_results(struct machine *m)
{
    const char *separator = "{";

    for (uint32_t i = 0; i < m->ev.img->n_steps; i++) {
        struct cox_image_step step;

        cox_image_step(m->ev.img, i, &step);
        if (step.owner != COX_IMAGE_NONE)
            continue;
        cox_buf_append_str(m->out, separator);
        cox_json_quote(m->out, step.name);
        if (!put_result(m, i))
            return false;
        separator = ",";
    }
    cox_buf_append_str(m->out, *separator == '{' ? "{}" : "}");
    return true;
}

/* ---- instructions ---- */

/* Is b decisive for && (false) or || (true)? */
static bool decides(const struct value *v, bool decisive)
{
    return v->type == VALUE_BOOL && v->b == decisive;
}

/* && and ||: a decisive operand decides, whatever the other one is; else an error stays an error. */
static struct value logic(struct eval *ev, const char *op, bool decisive, const struct value *a,
                          const struct value *b)
{
    if (decides(a, decisive) || decides(b, decisive))
        return value_bool(decisive);
    if (a->type == VALUE_ERROR)
        return *a;
    if (b->type == VALUE_ERROR)
        return *b;
    if (a->type != VALUE_BOOL || b->type != VALUE_BOOL)
        return value_error(ev, "`%s` does not take %s and %s", op, value_type_text(a), value_type_text(b));
    return value_bool(!decisive);
}

static struct value not_value(struct eval *ev, const struct value *v)
{
    if (v->type != VALUE_BOOL)
        return value_error(ev, "`!` does not take %s", value_type_text(v));
    return value_bool(!v->b);
}

static struct value list_value(struct machine *m, uint32_t n)
{
    struct cox_buf json = { 0 };
    struct value list = { .type = VALUE_NULL };

    for (uint32_t i = 0; i < n && list.type != VALUE_ERROR; i++) {
        const struct value *v = &m->stack[m->n_stack - n + i];

        if (v->type == VALUE_ERROR)
            list = *v;
        cox_buf_append_str(&json, i == 0 ? "[" : ",");
        value_put_json(&json, v);
    }
    cox_buf_append_str(&json, n == 0 ? "[]" : "]");
    m->n_stack -= n;
    eval_charge(&m->ev, json.len);
    if (json.len > COX_MESSAGE_LEN_MAX)
        list = value_error(&m->ev, "the result is larger than %u bytes", COX_MESSAGE_LEN_MAX);
    if (list.type != VALUE_ERROR)
        list = value_json(&m->ev, cox_slice(cox_arena_dup(&m->ev.arena, json.data, json.len), json.len));
    cox_buf_fini(&json);
    return list;
}

static struct value unary(struct machine *m, struct code c, const struct value *v)
{
    struct eval *ev = &m->ev;
    struct cox_slice key = { 0 };

    if (v->type == VALUE_ERROR)
        return *v;
    switch (c.op) {
    case OP_GET:
    case OP_HAS:
        if (!image_reads(ev->img, c.at, c.n, &key))
            return value_error(ev, "the image is damaged");
        return c.op == OP_GET ? value_get(ev, v, key) : value_has(ev, v, key);
    case OP_NOT:
        return not_value(ev, v);
    case OP_NEG:
        return value_negate(ev, v);
    case OP_SIZE:
        return value_size(ev, v);
    case OP_TO_JSON:
        return value_to_json(ev, v);
    default:
        return value_from_json(ev, v);
    }
}

static struct value binary(struct machine *m, enum op op, const struct value *a, const struct value *b)
{
    struct eval *ev = &m->ev;

    if (op == OP_AND || op == OP_OR)
        return logic(ev, op == OP_AND ? "&&" : "||", op == OP_OR, a, b);
    if (a->type == VALUE_ERROR)
        return *a;
    if (b->type == VALUE_ERROR)
        return *b;
    switch (op) {
    case OP_EQ:
        return value_bool(value_equal(ev, a, b));
    case OP_NE:
        return value_bool(!value_equal(ev, a, b));
    case OP_LT:
    case OP_LE:
    case OP_GT:
    case OP_GE:
        return value_compare(ev, op, a, b);
    case OP_IN:
        return value_in(ev, a, b);
    case OP_INDEX:
        return value_index(ev, a, b);
    case OP_STARTS_WITH:
    case OP_ENDS_WITH:
    case OP_CONTAINS:
    case OP_MATCHES:
        return value_test(ev, op, a, b);
    default:
        return value_arithmetic(ev, op, a, b);
    }
}

static struct value load(struct machine *m, struct code c)
{
    struct eval *ev = &m->ev;
    struct cox_slice text;

    switch (c.op) {
    case OP_CONST:
        if (!image_reads(ev->img, c.at, c.n, &text))
            return value_error(ev, "the image is damaged");
        return value_json(ev, text);
    case OP_STEP:
        return step_value(ev, c.at, (enum step_field)c.n);
    case OP_ERROR:
        return error_value(ev, ev->env->error_code, ev->env->error_message);
    case OP_SUCCESS:
        return value_bool(ev->env->success);
    case OP_ITEM:
        return foreign_value(ev, ev->env->item_json, "the item", &ev->checked_item);
    case OP_ARGS:
        return foreign_value(ev, ev->env->args_json, "the tool's arguments", &ev->checked_args);
    case OP_ITEM_INDEX:
        return ev->env->item_index <= INT64_MAX ? value_int((int64_t)ev->env->item_index) : value_null();
    default:
        return value_bool(ev->env->failure);
    }
}

/* How far to jump. BRANCH takes the condition; what is no bool becomes an error, past both branches. */
static uint32_t jump(struct machine *m, struct code c)
{
    struct value *top = m->n_stack > 0 ? &m->stack[m->n_stack - 1] : NULL;

    if (c.op == OP_JUMP)
        return c.at;
    if (c.op == OP_JUMP_IF_FALSE || c.op == OP_JUMP_IF_TRUE)
        return top && decides(top, c.op == OP_JUMP_IF_TRUE) ? c.at : 0;
    if (top->type == VALUE_BOOL) {
        m->n_stack--;
        return top->b ? 0 : c.n;
    }
    if (top->type != VALUE_ERROR)
        *top = value_error(&m->ev, "`?:` does not take %s as its condition", value_type_text(top));
    return c.n + c.at;
}

/* Runs one instruction; *pc is already behind it. */
static bool step(struct machine *m, struct code c, size_t *pc)
{
    struct op_info info = op_info[c.op];
    uint32_t takes = c.op == OP_LIST ? c.n : info.takes;
    struct value *top, result;
    struct cox_slice text;

    if (m->n_stack < takes || m->n_stack - takes + info.leaves > CODE_STACK_MAX)
        return fail_str(m, "the image is damaged");
    top = &m->stack[m->n_stack];
    switch (c.op) {
    case OP_RAW:
    case OP_EXPR:
        if (!image_reads(m->ev.img, c.at, c.n, &text))
            return fail_str(m, "the image is damaged");
        if (c.op == OP_RAW)
            cox_buf_append_slice(m->out, text);
        else
            m->expr = text;
        return true;
    case OP_EMIT_VALUE:
    case OP_EMIT_TEXT:
    case OP_EMIT_ARG:
        return emit(m, (enum op)c.op);
    case OP_RESULTS:
        return put_results(m);
    case OP_JUMP:
    case OP_JUMP_IF_FALSE:
    case OP_JUMP_IF_TRUE:
    case OP_BRANCH:
        *pc += (size_t)jump(m, c) * CODE_LEN;
        return true;
    case OP_LIST:
        result = list_value(m, c.n);
        break;
    default:
        result = takes == 0   ? load(m, c)
                 : takes == 1 ? unary(m, c, &top[-1])
                              : binary(m, (enum op)c.op, &top[-2], &top[-1]);
        m->n_stack -= takes;
    }
    m->stack[m->n_stack++] = result;
    return true;
}

static bool run(struct machine *m)
{
    size_t pc = 0;

    while (pc < m->code.len) {
        struct code c = code_load(m->code.data + pc);

        pc += CODE_LEN;
        m->ev.cost++;
        if (!step(m, c, &pc))
            return false;
        if (m->ev.cost > COX_EXPR_COST_MAX)
            return fail_str(m, "it costs too much with these values");
    }
    return true;
}

static void machine_init(struct machine *m, const struct cox_image *image, uint32_t index,
                         const struct cox_eval_env *env, struct cox_buf *out, struct cox_buf *error)
{
    /* Not all of it: the stack is large, and only what was pushed is read. */
    m->ev = (struct eval){ .img = image, .env = env };
    m->code = image_code(image, index);
    m->n_stack = 0;
    m->expr = cox_slice(NULL, 0);
    m->out = out;
    m->out_start = out->len;
    m->error = error;
}

static void machine_fini(struct machine *m)
{
    cox_arena_fini(&m->ev.arena);
    cox_buf_fini(&m->ev.scratch);
}

enum cox_err cox_eval_template(const struct cox_image *image, uint32_t index, const struct cox_eval_env *env,
                               struct cox_buf *out, struct cox_buf *error)
{
    struct cox_image_template template;
    struct machine m;

    cox_image_template(image, index, &template);
    if (template.is_const) {
        cox_buf_append_slice(out, template.json);
        return COX_OK;
    }
    machine_init(&m, image, index, env, out, error);
    bool ok = run(&m);

    if (!ok)
        out->len = m.out_start;
    machine_fini(&m);
    return ok ? COX_OK : COX_ERR_INVALID;
}

enum cox_err cox_eval_condition(const struct cox_image *image, uint32_t index, const struct cox_eval_env *env,
                                bool *ret, struct cox_buf *error)
{
    struct cox_image_template template;
    struct cox_buf none = { 0 };
    struct machine m;

    cox_image_template(image, index, &template);
    if (template.is_const) {
        *ret = cox_slice_is(template.json, "true");
        return COX_OK;
    }
    machine_init(&m, image, index, env, &none, error);
    bool ok = run(&m) && (m.n_stack == 1 || fail_str(&m, "the image is damaged"));
    const struct value *v = &m.stack[0];

    if (ok && v->type == VALUE_ERROR)
        ok = fail(&m, v->str);
    else if (ok && v->type != VALUE_BOOL && v->type != VALUE_NULL) {
        char why[64];

        snprintf(why, sizeof(why), "`if` needs a bool, not %s", value_type_text(v));
        ok = fail_str(&m, why);
    }
    if (ok)
        *ret = v->type == VALUE_BOOL && v->b;
    machine_fini(&m);
    cox_buf_fini(&none);
    return ok ? COX_OK : COX_ERR_INVALID;
}
