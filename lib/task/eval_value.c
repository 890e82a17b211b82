/* Values and operators of expressions: CEL's rules. */
#include "eval.h"
#include "regex.h"

#include "cox/base/units.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BYTES_A_COST 256u
#define STATES_A_COST 64u /* steps of an automaton */
#define SHOWN_MAX 60

bool eval_charge(struct eval *ev, size_t bytes)
{
    ev->cost += bytes / BYTES_A_COST;
    return ev->cost <= COX_EXPR_COST_MAX;
}

/* ---- values ---- */

struct value value_error(struct eval *ev, const char *fmt, ...)
{
    char text[256];
    va_list args;

    va_start(args, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, args);

    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
    void *copy = cox_arena_dup(&ev->arena, text, len);

    return (struct value){ .type = VALUE_ERROR, .str = cox_slice(copy, len) };
}

struct value value_null(void)
{
    return (struct value){ .type = VALUE_NULL };
}

struct value value_bool(bool b)
{
    return (struct value){ .type = VALUE_BOOL, .b = b };
}

struct value value_int(int64_t i)
{
    return (struct value){ .type = VALUE_INT, .i = i };
}

struct value value_str(struct cox_slice plain)
{
    return (struct value){ .type = VALUE_STRING, .str = plain };
}

/* Computed numbers are finite: JSON has no others. */
static struct value value_double(struct eval *ev, double d)
{
    if (!isfinite(d))
        return value_error(ev, "the result is not a finite number");
    return (struct value){ .type = VALUE_DOUBLE, .d = d };
}

static struct value arena_str(struct eval *ev, const struct cox_buf *b)
{
    return value_str(cox_slice(cox_arena_dup(&ev->arena, b->data, b->len), b->len));
}

struct value value_json(struct eval *ev, struct cox_slice text)
{
    struct value v = { .json = text };

    switch (cox_json_kind(text)) {
    case COX_JSON_NULL:
        v.type = VALUE_NULL;
        break;
    case COX_JSON_BOOL:
        v.type = VALUE_BOOL;
        v.b = text.data[0] == 't';
        break;
    case COX_JSON_NUMBER:
        v.type = VALUE_INT;
        if (!cox_json_int(text, &v.i)) {
            v.type = VALUE_DOUBLE;
            v.d = cox_json_double(text);
        }
        break;
    case COX_JSON_STRING:
        v.type = VALUE_STRING;
        v.str = cox_json_inner(text);
        v.escaped = v.str.len > 0 && memchr(v.str.data, '\\', v.str.len);
        break;
    case COX_JSON_ARRAY:
        v.type = VALUE_LIST;
        break;
    case COX_JSON_OBJECT:
        v.type = VALUE_OBJECT;
        break;
    case COX_JSON_NONE:
        return value_error(ev, "a value is not valid JSON");
    }
    return v;
}

const char *value_type_text(const struct value *v)
{
    static const char *const text[VALUE_NR] = { "error",  "null",   "bool", "int",
                                                "double", "string", "list", "object" };

    return text[v->type];
}

struct cox_slice value_chars(struct eval *ev, const struct value *v)
{
    if (!v->escaped)
        return v->str;
    cox_buf_clear(&ev->scratch);
    cox_json_unescape(&ev->scratch, v->str);
    return arena_str(ev, &ev->scratch).str;
}

void value_put_json(struct cox_buf *out, const struct value *v)
{
    if (v->json.len > 0) {
        cox_json_compact(out, v->json);
        return;
    }
    switch ((enum value_type)v->type) {
    case VALUE_BOOL:
        cox_buf_append_str(out, v->b ? "true" : "false");
        break;
    case VALUE_INT:
        cox_buf_printf(out, "%lld", (long long)v->i);
        break;
    case VALUE_DOUBLE:
        cox_json_put_double(out, v->d);
        break;
    case VALUE_STRING:
        cox_json_quote(out, v->str);
        break;
    default:
        cox_buf_append_str(out, "null");
    }
}

/* ---- fields and elements ---- */

/* The member's value, the first where a key repeats. */
static bool find_member(struct cox_slice object, struct cox_slice key, struct cox_slice *ret_value)
{
    struct cox_json_walk w = cox_json_walk(object);

    while (cox_json_next(&w)) {
        if (cox_json_string_is(w.key, key)) {
            *ret_value = w.value;
            return true;
        }
    }
    return false;
}

static int shown(struct cox_slice s)
{
    return shown_len(s, SHOWN_MAX);
}

static struct value no_key(struct eval *ev, const char *why, struct cox_slice key)
{
    return value_error(ev, "%s `%.*s`", why, shown(key), (const char *)key.data);
}

/* A path through null is null: what a skipped step would have said is not known, and not an error. */
struct value value_get(struct eval *ev, const struct value *v, struct cox_slice key)
{
    struct cox_slice found;

    if (v->type == VALUE_NULL)
        return value_null();
    if (v->type != VALUE_OBJECT)
        return value_error(ev, "a value of type %s has no field `%.*s`", value_type_text(v), shown(key),
                           (const char *)key.data);
    eval_charge(ev, v->json.len);
    if (!find_member(v->json, key, &found))
        return no_key(ev, "no such key:", key);
    return value_json(ev, found);
}

struct value value_has(struct eval *ev, const struct value *v, struct cox_slice key)
{
    struct cox_slice found;

    if (v->type == VALUE_NULL)
        return value_bool(false);
    if (v->type != VALUE_OBJECT)
        return value_error(ev, "a value of type %s has no fields", value_type_text(v));
    eval_charge(ev, v->json.len);
    return value_bool(find_member(v->json, key, &found));
}

struct value value_index(struct eval *ev, const struct value *v, const struct value *index)
{
    if (v->type == VALUE_NULL)
        return value_null();
    if (v->type == VALUE_OBJECT && index->type == VALUE_STRING)
        return value_get(ev, v, value_chars(ev, index));
    if (v->type != VALUE_LIST || index->type != VALUE_INT)
        return value_error(ev, "a value of type %s has no element [%s]", value_type_text(v),
                           value_type_text(index));
    struct cox_json_walk w = cox_json_walk(v->json);

    eval_charge(ev, v->json.len);
    for (int64_t i = 0; index->i >= 0 && cox_json_next(&w); i++) {
        if (i == index->i)
            return value_json(ev, w.value);
    }
    return value_error(ev, "no such index: %lld", (long long)index->i);
}

/* ---- equality and order ---- */

/* Exact: a double is not rounded to meet an integer. */
static int compare_int_double(int64_t i, double d)
{
    if (d >= 9223372036854775808.0)
        return -1;
    if (d < -9223372036854775808.0)
        return 1;
    int64_t whole = (int64_t)d;

    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = d - (double)whole;

    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

static int compare_numbers(const struct value *a, const struct value *b)
{
    if (a->type == VALUE_INT && b->type == VALUE_INT)
        return (a->i > b->i) - (a->i < b->i);
    if (a->type == VALUE_INT)
        return compare_int_double(a->i, b->d);
    if (b->type == VALUE_INT)
        return -compare_int_double(b->i, a->d);
    return (a->d > b->d) - (a->d < b->d);
}

static bool is_number(const struct value *v)
{
    return v->type == VALUE_INT || v->type == VALUE_DOUBLE;
}

static bool text_equal(struct eval *ev, struct cox_slice a, struct cox_slice b, unsigned depth);

static bool lists_equal(struct eval *ev, struct cox_slice a, struct cox_slice b, unsigned depth)
{
    struct cox_json_walk x = cox_json_walk(a), y = cox_json_walk(b);

    for (;;) {
        bool more = cox_json_next(&x);

        if (more != cox_json_next(&y))
            return false;
        if (!more)
            return true;
        if (!text_equal(ev, x.value, y.value, depth))
            return false;
    }
}

static bool objects_equal(struct eval *ev, struct cox_slice a, struct cox_slice b, unsigned depth)
{
    struct cox_json_walk w = cox_json_walk(a);
    struct cox_buf key = { 0 };
    bool equal = cox_json_count(a) == cox_json_count(b);

    while (equal && cox_json_next(&w)) {
        struct cox_slice other;

        cox_buf_clear(&key);
        cox_json_unquote(&key, w.key);
        equal = eval_charge(ev, b.len) && find_member(b, cox_buf_slice(&key), &other) &&
                text_equal(ev, w.value, other, depth);
    }
    cox_buf_fini(&key);
    return equal;
}

/* Recursion ends at the depth that checked JSON has; a damaged image may hold more, and is never equal. */
static bool text_equal(struct eval *ev, struct cox_slice a, struct cox_slice b, unsigned depth)
{
    struct value x = value_json(ev, a), y = value_json(ev, b);

    if (depth > COX_JSON_DEPTH_MAX || !eval_charge(ev, a.len + b.len))
        return false;
    if (x.type == VALUE_LIST && y.type == VALUE_LIST)
        return lists_equal(ev, a, b, depth + 1);
    if (x.type == VALUE_OBJECT && y.type == VALUE_OBJECT)
        return objects_equal(ev, a, b, depth + 1);
    return x.type != VALUE_LIST && x.type != VALUE_OBJECT && value_equal(ev, &x, &y);
}

bool value_equal(struct eval *ev, const struct value *a, const struct value *b)
{
    if (is_number(a) && is_number(b))
        return compare_numbers(a, b) == 0;
    if (a->type != b->type)
        return false;
    switch ((enum value_type)a->type) {
    case VALUE_NULL:
        return true;
    case VALUE_BOOL:
        return a->b == b->b;
    case VALUE_STRING:
        return cox_slice_eq(value_chars(ev, a), value_chars(ev, b));
    case VALUE_LIST:
    case VALUE_OBJECT:
        return text_equal(ev, a->json, b->json, 0);
    default:
        return false;
    }
}

static struct value no_overload(struct eval *ev, const char *op, const struct value *a, const struct value *b)
{
    return value_error(ev, "`%s` does not take %s and %s", op, value_type_text(a), value_type_text(b));
}

static const char *op_text(enum op op)
{
    switch (op) {
    case OP_ADD:
        return "+";
    case OP_SUB:
        return "-";
    case OP_MUL:
        return "*";
    case OP_DIV:
        return "/";
    case OP_MOD:
        return "%";
    case OP_LT:
        return "<";
    case OP_LE:
        return "<=";
    case OP_GT:
        return ">";
    case OP_GE:
        return ">=";
    case OP_STARTS_WITH:
        return "startsWith";
    case OP_ENDS_WITH:
        return "endsWith";
    case OP_CONTAINS:
        return "contains";
    case OP_MATCHES:
        return "matches";
    default:
        return "?";
    }
}

struct value value_compare(struct eval *ev, enum op op, const struct value *a, const struct value *b)
{
    int order;

    if (is_number(a) && is_number(b))
        order = compare_numbers(a, b);
    else if (a->type == VALUE_STRING && b->type == VALUE_STRING)
        order = cox_slice_cmp(value_chars(ev, a), value_chars(ev, b)); /* UTF-8 sorts as code points do */
    else if (a->type == VALUE_BOOL && b->type == VALUE_BOOL)
        order = (int)a->b - (int)b->b;
    else
        return no_overload(ev, op_text(op), a, b);
    switch (op) {
    case OP_LT:
        return value_bool(order < 0);
    case OP_LE:
        return value_bool(order <= 0);
    case OP_GT:
        return value_bool(order > 0);
    default:
        return value_bool(order >= 0);
    }
}

struct value value_in(struct eval *ev, const struct value *v, const struct value *container)
{
    struct cox_json_walk w;

    if (container->type == VALUE_OBJECT && v->type == VALUE_STRING)
        return value_has(ev, container, value_chars(ev, v));
    if (container->type != VALUE_LIST)
        return no_overload(ev, "in", v, container);
    eval_charge(ev, container->json.len);
    w = cox_json_walk(container->json);
    while (cox_json_next(&w)) {
        struct value element = value_json(ev, w.value);

        if (value_equal(ev, v, &element))
            return value_bool(true);
    }
    return value_bool(false);
}

/* ---- arithmetic ---- */

static struct value int_arithmetic(struct eval *ev, enum op op, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool overflow;

    if ((op == OP_DIV || op == OP_MOD) && b == 0)
        return value_error(ev, "division by zero");
    switch (op) {
    case OP_ADD:
        overflow = __builtin_add_overflow(a, b, &result);
        break;
    case OP_SUB:
        overflow = __builtin_sub_overflow(a, b, &result);
        break;
    case OP_MUL:
        overflow = __builtin_mul_overflow(a, b, &result);
        break;
    default:
        overflow = a == INT64_MIN && b == -1;
        if (!overflow)
            result = op == OP_DIV ? a / b : a % b;
    }
    return overflow ? value_error(ev, "integer overflow") : value_int(result);
}

static struct value double_arithmetic(struct eval *ev, enum op op, double a, double b)
{
    switch (op) {
    case OP_ADD:
        return value_double(ev, a + b);
    case OP_SUB:
        return value_double(ev, a - b);
    case OP_MUL:
        return value_double(ev, a * b);
    default:
        return b == 0 ? value_error(ev, "division by zero") : value_double(ev, a / b);
    }
}

static struct value concat_strings(struct eval *ev, const struct value *a, const struct value *b)
{
    struct cox_slice x = value_chars(ev, a), y = value_chars(ev, b);

    if (x.len + y.len > COX_MESSAGE_LEN_MAX)
        return value_error(ev, "the result is larger than %u bytes", COX_MESSAGE_LEN_MAX);
    eval_charge(ev, x.len + y.len);
    uint8_t *both = cox_arena_alloc(&ev->arena, x.len + y.len + 1);

    if (x.len > 0)
        memcpy(both, x.data, x.len);
    if (y.len > 0)
        memcpy(both + x.len, y.data, y.len);
    return value_str(cox_slice(both, x.len + y.len));
}

static struct value concat_lists(struct eval *ev, const struct value *a, const struct value *b)
{
    struct cox_slice x = cox_json_trim(a->json), y = cox_json_trim(b->json);
    bool comma = cox_json_count(x) > 0 && cox_json_count(y) > 0;

    if (x.len + y.len > COX_MESSAGE_LEN_MAX)
        return value_error(ev, "the result is larger than %u bytes", COX_MESSAGE_LEN_MAX);
    if (!eval_charge(ev, x.len + y.len) || x.len < 2 || y.len < 2)
        return value_error(ev, "a value is not valid JSON");
    cox_buf_clear(&ev->scratch);
    cox_buf_append(&ev->scratch, x.data, x.len - 1);
    cox_buf_append_str(&ev->scratch, comma ? "," : "");
    cox_buf_append(&ev->scratch, y.data + 1, y.len - 1);
    return value_json(ev, arena_str(ev, &ev->scratch).str);
}

/* No mixing of int and double: CEL has conversions for that, the format has none, and a sum whose type hangs
 * on whether a step printed 1 or 1.0 would be a trap. */
struct value value_arithmetic(struct eval *ev, enum op op, const struct value *a, const struct value *b)
{
    if (a->type == VALUE_INT && b->type == VALUE_INT)
        return int_arithmetic(ev, op, a->i, b->i);
    if (a->type == VALUE_DOUBLE && b->type == VALUE_DOUBLE && op != OP_MOD)
        return double_arithmetic(ev, op, a->d, b->d);
    if (op == OP_ADD && a->type == VALUE_STRING && b->type == VALUE_STRING)
        return concat_strings(ev, a, b);
    if (op == OP_ADD && a->type == VALUE_LIST && b->type == VALUE_LIST)
        return concat_lists(ev, a, b);
    return no_overload(ev, op_text(op), a, b);
}

struct value value_negate(struct eval *ev, const struct value *v)
{
    if (v->type == VALUE_DOUBLE)
        return value_double(ev, -v->d);
    if (v->type != VALUE_INT)
        return value_error(ev, "`-` does not take %s", value_type_text(v));
    return v->i == INT64_MIN ? value_error(ev, "integer overflow") : value_int(-v->i);
}

/* ---- functions ---- */

struct value value_size(struct eval *ev, const struct value *v)
{
    int64_t n = 0;

    if (v->type == VALUE_LIST || v->type == VALUE_OBJECT) {
        eval_charge(ev, v->json.len);
        return value_int((int64_t)cox_json_count(v->json));
    }
    if (v->type != VALUE_STRING)
        return value_error(ev, "`size` does not take %s", value_type_text(v));
    struct cox_slice s = value_chars(ev, v);

    eval_charge(ev, s.len);
    for (size_t i = 0; i < s.len; i++)
        n += (s.data[i] & 0xc0) != 0x80; /* code points, as CEL counts */
    return value_int(n);
}

static struct value matches(struct eval *ev, struct cox_slice text, struct cox_slice pattern)
{
    struct regex *re = cox_arena_alloc(&ev->arena, sizeof(*re));
    const char *wrong = regex_compile(re, pattern);

    if (wrong)
        return value_error(ev, "in the pattern \"%.*s\": %s", shown(pattern), (const char *)pattern.data,
                           wrong);
    ev->cost += ((uint64_t)text.len * re->n_code) / STATES_A_COST;
    if (!eval_charge(ev, text.len))
        return value_null(); /* never seen: the evaluation ends here */
    return value_bool(regex_search(re, text));
}

struct value value_test(struct eval *ev, enum op op, const struct value *a, const struct value *b)
{
    if (a->type != VALUE_STRING || b->type != VALUE_STRING)
        return no_overload(ev, op_text(op), a, b);
    struct cox_slice text = value_chars(ev, a), part = value_chars(ev, b);

    eval_charge(ev, text.len);
    if (op == OP_MATCHES)
        return matches(ev, text, part);
    if (part.len > text.len)
        return value_bool(false);
    if (part.len == 0)
        return value_bool(true);
    if (op == OP_CONTAINS)
        return value_bool(memmem(text.data, text.len, part.data, part.len));
    size_t at = op == OP_STARTS_WITH ? 0 : text.len - part.len;

    return value_bool(memcmp(text.data + at, part.data, part.len) == 0);
}

struct value value_to_json(struct eval *ev, const struct value *v)
{
    struct cox_buf text = { 0 };

    value_put_json(&text, v);
    eval_charge(ev, text.len);
    struct value json = arena_str(ev, &text);

    cox_buf_fini(&text);
    return json;
}

struct value value_from_json(struct eval *ev, const struct value *v)
{
    if (v->type != VALUE_STRING)
        return value_error(ev, "`fromJSON` does not take %s", value_type_text(v));
    struct cox_slice text = value_chars(ev, v);
    struct cox_json_place bad;

    eval_charge(ev, text.len);
    if (cox_json_check(text, &bad) == COX_OK)
        return value_json(ev, cox_json_trim(text));
    if (bad.too_deep)
        return value_error(ev, "`fromJSON`: more than %u levels of nesting", COX_JSON_DEPTH_MAX);
    return value_error(ev, "`fromJSON`: the text is not valid JSON (at byte %zu)", bad.offset);
}
