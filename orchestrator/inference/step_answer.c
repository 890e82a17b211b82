#include "step_answer.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"

static size_t kept_len(const struct step_answer *a)
{
    size_t len = a->text.len;

    for (uint32_t i = 0; i < a->n_tools; i++)
        len += a->tools[i].arguments.len + a->tools[i].name.len + a->tools[i].id.len;
    return len;
}

size_t step_answer_len(const struct step_answer *a)
{
    return kept_len(a) + a->whole.len;
}

void step_answer_fini(struct step_answer *a)
{
    for (uint32_t i = 0; i < a->n_tools; i++) {
        cox_buf_fini(&a->tools[i].id);
        cox_buf_fini(&a->tools[i].name);
        cox_buf_fini(&a->tools[i].arguments);
    }
    cox_free(a->tools);
    cox_buf_fini(&a->text);
    cox_buf_fini(&a->finish_reason);
    cox_buf_fini(&a->model);
    cox_buf_fini(&a->error);
    cox_buf_fini(&a->whole);
    sse_fini(&a->sse);
    *a = (struct step_answer){ 0 };
}

void step_answer_begin(struct step_answer *a, bool is_stream)
{
    a->is_stream = is_stream;
}

static void add_string(struct cox_buf *to, struct cox_slice object, const char *name)
{
    struct cox_slice value;

    if (cox_json_member(object, name, &value) && cox_json_kind(value) == COX_JSON_STRING)
        cox_json_unquote(to, value);
}

/* What is said once counts once, though some endpoints say it with each piece. */
static void set_string(struct cox_buf *to, struct cox_slice object, const char *name)
{
    if (to->len == 0)
        add_string(to, object, name);
}

/* ---- errors ---- */

static void put_cut(struct cox_buf *out, struct cox_slice text)
{
    size_t at = 0;

    for (size_t n; at < text.len && (n = cox_utf8_len(cox_slice(text.data + at, text.len - at))) > 0; at += n)
        if (at + n > STEP_ANSWER_REFUSAL_LEN_MAX)
            break;
    cox_buf_append(out, text.data, at);
}

void step_answer_put_refusal(struct cox_buf *out, struct cox_slice body)
{
    static const char *const names[] = { "message", "detail", "error" };
    struct cox_buf text = { 0 };
    struct cox_slice error = body, inner;

    if (cox_json_check(body, NULL) == COX_OK) {
        if (cox_json_member(body, "error", &inner))
            error = inner;
        if (cox_json_kind(error) == COX_JSON_STRING)
            cox_json_unquote(&text, error);
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
            set_string(&text, error, names[i]);
    }
    put_cut(out, text.len > 0 ? cox_buf_slice(&text) : body);
    cox_buf_fini(&text);
}

static enum cox_err invalid(struct step_answer *a, const char *what, struct cox_slice found)
{
    a->refused = true;
    cox_buf_clear(&a->error);
    cox_buf_printf(&a->error, "the endpoint's answer has %s, found: ", what);
    put_cut(&a->error, cox_slice(found.data, found.len < 200 ? found.len : 200));
    return COX_ERR_INVALID;
}

static bool is_error(struct step_answer *a, struct cox_slice json)
{
    struct cox_slice error;

    if (!cox_json_member(json, "error", &error) || cox_json_kind(error) == COX_JSON_NULL)
        return false;
    a->refused = true;
    cox_buf_clear(&a->error);
    step_answer_put_refusal(&a->error, json);
    return true;
}

/* ---- one event, or one response ---- */

static uint32_t index_of(struct cox_slice tool, uint32_t place)
{
    struct cox_slice value;
    int64_t index;

    if (!cox_json_member(tool, "index", &value) || !cox_json_int(value, &index) || index < 0 ||
        index >= STEP_ANSWER_TOOLS_MAX)
        return place;
    return (uint32_t)index;
}

static void add_tools(struct step_answer *a, struct cox_slice list)
{
    uint32_t place = 0;

    for (struct cox_json_walk w = cox_json_walk(list); cox_json_next(&w); place++) {
        uint32_t index = index_of(w.value, place);
        struct cox_slice function;

        if (index >= STEP_ANSWER_TOOLS_MAX)
            return;
        if (index >= a->n_tools) {
            a->tools = cox_realloc(a->tools, index + 1, sizeof(*a->tools));
            for (; a->n_tools <= index; a->n_tools++)
                a->tools[a->n_tools] = (struct step_answer_tool){ 0 };
        }
        set_string(&a->tools[index].id, w.value, "id");
        if (!cox_json_member(w.value, "function", &function))
            continue;
        set_string(&a->tools[index].name, function, "name");
        add_string(&a->tools[index].arguments, function, "arguments");
    }
}

static bool first_choice(struct cox_slice json, struct cox_slice *ret)
{
    struct cox_slice choices, value;
    int64_t index;

    if (!cox_json_member(json, "choices", &choices))
        return false;
    for (struct cox_json_walk w = cox_json_walk(choices); cox_json_next(&w);) {
        if (cox_json_member(w.value, "index", &value) && cox_json_int(value, &index) && index != 0)
            continue;
        *ret = w.value;
        return true;
    }
    return false;
}

static enum cox_err take(struct step_answer *a, struct cox_slice json)
{
    struct cox_slice choice, message, text;

    if (cox_json_check(json, NULL) != COX_OK || cox_json_kind(json) != COX_JSON_OBJECT)
        return invalid(a, "something that is no JSON object", json);
    if (is_error(a, json))
        return COX_ERR_INVALID;
    set_string(&a->model, json, "model");
    if (!first_choice(json, &choice))
        return COX_OK;
    set_string(&a->finish_reason, choice, "finish_reason");
    if (!cox_json_member(choice, a->is_stream ? "delta" : "message", &message))
        return COX_OK;
    if (cox_json_member(message, "content", &text) && cox_json_kind(text) == COX_JSON_STRING) {
        a->has_text = true;
        cox_json_unquote(&a->text, text);
    }
    if (cox_json_member(message, "tool_calls", &text))
        add_tools(a, text);
    return kept_len(a) > STEP_ANSWER_LEN_MAX ? COX_ERR_FULL : COX_OK;
}

struct feeding {
    struct step_answer *answer;
    enum cox_err err;
};

static bool on_event(void *user, struct cox_slice data, size_t end)
{
    struct feeding *f = user;

    (void)end;
    if (data.len == 0 || cox_slice_is(cox_json_trim(data), "[DONE]"))
        return true;
    f->err = take(f->answer, data);
    return f->err == COX_OK;
}

enum cox_err step_answer_feed(struct step_answer *a, struct cox_slice piece)
{
    struct feeding f = { a, COX_OK };

    if (a->is_stream) {
        enum cox_err err = sse_feed(&a->sse, piece, on_event, &f);
        return f.err ? f.err : err;
    }
    if (a->whole.len + piece.len > STEP_ANSWER_LEN_MAX)
        return COX_ERR_FULL;
    cox_buf_append_slice(&a->whole, piece);
    return COX_OK;
}

enum cox_err step_answer_end(struct step_answer *a)
{
    if (a->refused)
        return COX_ERR_INVALID;
    if (!a->is_stream) {
        enum cox_err err = take(a, cox_buf_slice(&a->whole));
        cox_buf_fini(&a->whole);
        if (err)
            return err;
    }
    if (!a->has_text && a->n_tools == 0 && a->finish_reason.len == 0)
        return invalid(a, "no message", cox_slice(NULL, 0));
    return COX_OK;
}
