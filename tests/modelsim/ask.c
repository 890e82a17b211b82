#include "ask.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/json.h"

#include <string.h>

const char *ask_api_text(enum ask_api api)
{
    static const char *const texts[] = { "chat", "text", "embeddings" };

    return texts[api];
}

uint32_t ask_tokens(size_t len)
{
    size_t n = (len + ASK_TOKEN_LEN - 1) / ASK_TOKEN_LEN;

    return n > 0 ? (uint32_t)n : 1;
}

void ask_fini(struct ask *a)
{
    cox_buf_fini(&a->model);
    cox_buf_fini(&a->last);
    cox_buf_fini(&a->last_role);
    for (uint32_t i = 0; i < a->n_stops; i++)
        cox_buf_fini(&a->stops[i]);
    for (uint32_t i = 0; i < a->n_prompts; i++)
        cox_buf_fini(&a->prompts[i]);
    cox_free(a->prompts);
}

/* ---- prompts ---- */

void ask_put_text(struct cox_buf *prompt, struct cox_slice text)
{
    cox_buf_append_slice(prompt, text);
}

void ask_put_tool_call(struct cox_buf *prompt, struct cox_slice name, struct cox_slice arguments)
{
    cox_buf_append_str(prompt, "\x04");
    cox_buf_append_slice(prompt, name);
    cox_buf_append_str(prompt, "\x05");
    cox_buf_append_slice(prompt, arguments);
}

/* The text of a message's content: a string, or parts of which those of text count and others stand as they
 * are. */
static void put_content(struct cox_buf *out, struct cox_slice content)
{
    struct cox_slice text;

    if (cox_json_kind(content) == COX_JSON_STRING) {
        cox_json_unquote(out, content);
    } else if (cox_json_kind(content) == COX_JSON_ARRAY) {
        struct cox_json_walk w = cox_json_walk(content);
        while (cox_json_next(&w)) {
            if (cox_json_member(w.value, "text", &text) && cox_json_kind(text) == COX_JSON_STRING)
                cox_json_unquote(out, text);
            else
                cox_buf_append_slice(out, w.value);
        }
    }
}

static void put_tool_calls(struct cox_buf *out, struct cox_slice calls)
{
    struct cox_json_walk w = cox_json_walk(calls);

    while (cox_json_next(&w)) {
        struct cox_slice function, name, arguments;
        struct cox_buf n = { 0 }, args = { 0 };

        if (cox_json_member(w.value, "function", &function) && cox_json_member(function, "name", &name))
            cox_json_unquote(&n, name);
        if (cox_json_member(w.value, "function", &function) &&
            cox_json_member(function, "arguments", &arguments))
            cox_json_unquote(&args, arguments);
        ask_put_tool_call(out, cox_buf_slice(&n), cox_buf_slice(&args));
        cox_buf_fini(&n);
        cox_buf_fini(&args);
    }
}

static struct cox_buf *add_prompt(struct ask *a)
{
    a->prompts = cox_realloc(a->prompts, a->n_prompts + 1, sizeof(*a->prompts));
    memset(&a->prompts[a->n_prompts], 0, sizeof(*a->prompts));
    return &a->prompts[a->n_prompts++];
}

static enum cox_err read_messages(struct ask *a, struct cox_slice body, const char **ret_error,
                                  const char **ret_param)
{
    struct cox_slice messages, role, content, calls;
    struct cox_buf *out = add_prompt(a);

    *ret_param = "messages";
    *ret_error = "messages: an array of at least one message is expected";
    if (!cox_json_member(body, "messages", &messages) || cox_json_kind(messages) != COX_JSON_ARRAY ||
        cox_json_count(messages) == 0)
        return COX_ERR_INVALID;
    if (a->has_tools) {
        cox_buf_append_slice(out, a->tools);
        cox_buf_append_str(out, "\x01");
    }
    a->turn = 1;
    struct cox_json_walk w = cox_json_walk(messages);
    while (cox_json_next(&w)) {
        *ret_error = "messages: each message has a role";
        if (!cox_json_member(w.value, "role", &role) || cox_json_kind(role) != COX_JSON_STRING)
            return COX_ERR_INVALID;
        cox_buf_clear(&a->last);
        cox_buf_clear(&a->last_role);
        cox_json_unquote(&a->last_role, role);
        cox_buf_append_str(out, "\x02");
        cox_buf_append_slice(out, cox_buf_slice(&a->last_role));
        cox_buf_append_str(out, "\n");
        if (cox_json_member(w.value, "content", &content)) {
            put_content(&a->last, content);
            cox_buf_append_slice(out, cox_buf_slice(&a->last));
        }
        if (cox_json_member(w.value, "tool_calls", &calls))
            put_tool_calls(out, calls);
        cox_buf_append_str(out, "\x03");
        a->turn += cox_slice_is(cox_buf_slice(&a->last_role), "assistant");
        if (cox_slice_is(cox_buf_slice(&a->last_role), "tool"))
            a->tool_results++;
        else if (cox_slice_is(cox_buf_slice(&a->last_role), "user"))
            a->tool_results = 0;
    }
    cox_buf_append_str(out, "\x02"
                            "assistant\n");
    return COX_OK;
}

/* A string, strings, tokens, or lists of tokens. */
static enum cox_err read_prompts(struct ask *a, struct cox_slice value)
{
    struct cox_json_walk w = cox_json_walk(value);
    bool tokens = false;

    if (cox_json_kind(value) == COX_JSON_STRING) {
        cox_json_unquote(add_prompt(a), value);
    } else if (cox_json_kind(value) != COX_JSON_ARRAY) {
        return COX_ERR_INVALID;
    }
    while (cox_json_next(&w)) {
        enum cox_json_kind kind = cox_json_kind(w.value);

        if (a->n_prompts >= ASK_PROMPTS_MAX)
            return COX_ERR_INVALID;
        if (kind == COX_JSON_NUMBER) {
            int64_t token = 0;
            (void)cox_json_int(w.value, &token);
            cox_put_u32(tokens ? &a->prompts[0] : add_prompt(a), (uint32_t)token);
            tokens = true;
        } else if (kind == COX_JSON_STRING) {
            cox_json_unquote(add_prompt(a), w.value);
        } else if (kind == COX_JSON_ARRAY) {
            struct cox_buf *out = add_prompt(a);
            struct cox_json_walk in = cox_json_walk(w.value);
            while (cox_json_next(&in)) {
                int64_t token = 0;
                (void)cox_json_int(in.value, &token);
                cox_put_u32(out, (uint32_t)token);
            }
        } else {
            return COX_ERR_INVALID;
        }
    }
    if (a->n_prompts == 0)
        return COX_ERR_INVALID;
    cox_buf_append_slice(&a->last, cox_buf_slice(&a->prompts[a->n_prompts - 1]));
    a->turn = 1;
    return COX_OK;
}

/* ---- members ---- */

static bool is_true(struct cox_slice object, const char *key)
{
    struct cox_slice v;

    return cox_json_member(object, key, &v) && cox_slice_is(v, "true");
}

/* False: it is there, and no number from `min` to 2^31. */
static bool read_count(struct cox_slice body, const char *key, int64_t min, uint64_t *ret)
{
    struct cox_slice v;
    int64_t n;

    if (!cox_json_member(body, key, &v) || cox_json_kind(v) == COX_JSON_NULL)
        return true;
    if (cox_json_kind(v) != COX_JSON_NUMBER || !cox_json_int(v, &n) || n < min || n > INT32_MAX)
        return false;
    *ret = (uint64_t)n;
    return true;
}

static void read_stops(struct ask *a, struct cox_slice body)
{
    struct cox_slice v;

    if (!cox_json_member(body, "stop", &v))
        return;
    if (cox_json_kind(v) == COX_JSON_STRING) {
        cox_json_unquote(&a->stops[a->n_stops++], v);
    } else {
        struct cox_json_walk w = cox_json_walk(v);
        while (cox_json_next(&w) && a->n_stops < ASK_STOPS_MAX) {
            if (cox_json_kind(w.value) == COX_JSON_STRING)
                cox_json_unquote(&a->stops[a->n_stops++], w.value);
        }
    }
}

static void read_format(struct ask *a, struct cox_slice body)
{
    struct cox_slice format, type, schema;

    if (!cox_json_member(body, "response_format", &format) || !cox_json_member(format, "type", &type))
        return;
    a->json = cox_json_string_is(type, cox_slice_str("json_object")) ||
              cox_json_string_is(type, cox_slice_str("json_schema"));
    if (cox_json_member(format, "json_schema", &schema))
        (void)cox_json_member(schema, "schema", &a->schema);
}

static const char *read_counts(struct ask *a, struct cox_slice body)
{
    uint64_t n = 1;

    if (!read_count(body, "max_tokens", 1, &a->max_tokens))
        return "max_tokens";
    if (!read_count(body, "max_completion_tokens", 1, &a->max_tokens))
        return "max_completion_tokens";
    if (!read_count(body, "min_tokens", 0, &a->min_tokens))
        return "min_tokens";
    if (!read_count(body, "dimensions", 1, &a->dimensions) || a->dimensions > 65536)
        return "dimensions";
    if (!read_count(body, "n", 1, &n) || n > ASK_CHOICES_MAX)
        return "n";
    a->n = (uint32_t)n;
    return NULL;
}

enum cox_err ask_read(struct ask *a, enum ask_api api, struct cox_slice body, const char **ret_error,
                      const char **ret_param)
{
    struct cox_slice v;

    memset(a, 0, sizeof(*a));
    a->api = api;
    *ret_param = NULL;
    *ret_error = "the body is not a JSON object";
    if (cox_json_check(body, NULL) != COX_OK || cox_json_kind(body) != COX_JSON_OBJECT)
        return COX_ERR_INVALID;
    *ret_error = "a number from 1 is expected";
    if ((*ret_param = read_counts(a, body)))
        return COX_ERR_INVALID;
    if (cox_json_member(body, "model", &v) && cox_json_kind(v) == COX_JSON_STRING)
        cox_json_unquote(&a->model, v);
    a->stream = is_true(body, "stream");
    a->ignore_eos = is_true(body, "ignore_eos");
    if (cox_json_member(body, "stream_options", &v))
        a->include_usage = is_true(v, "include_usage");
    a->base64 =
        cox_json_member(body, "encoding_format", &v) && cox_json_string_is(v, cox_slice_str("base64"));
    a->has_seed = cox_json_member(body, "seed", &v) && cox_json_int(v, &a->seed);
    if (cox_json_member(body, "tools", &v) && cox_json_kind(v) == COX_JSON_ARRAY && cox_json_count(v) > 0) {
        a->has_tools = true;
        a->tools = v;
    }
    (void)cox_json_member(body, "tool_choice", &a->tool_choice);
    read_stops(a, body);
    read_format(a, body);
    if (api == ASK_CHAT)
        return read_messages(a, body, ret_error, ret_param);
    *ret_param = api == ASK_TEXT ? "prompt" : "input";
    *ret_error = "a text, a list of texts, or tokens are expected";
    return cox_json_member(body, *ret_param, &v) ? read_prompts(a, v) : COX_ERR_INVALID;
}

uint64_t *ask_blocks(struct cox_slice prompt, struct cox_slice model, uint64_t block_tokens, uint32_t *ret_n)
{
    size_t len = (size_t)block_tokens * ASK_TOKEN_LEN;
    uint32_t n = (uint32_t)(prompt.len / len);
    uint64_t *blocks = cox_calloc(n + 1, sizeof(*blocks)), link[2] = { cox_hash64(model.data, model.len), 0 };

    for (uint32_t i = 0; i < n; i++) {
        link[1] = cox_hash64(prompt.data + i * len, len);
        link[0] = cox_hash64(link, sizeof(link));
        blocks[i] = link[0];
    }
    *ret_n = n;
    return blocks;
}
