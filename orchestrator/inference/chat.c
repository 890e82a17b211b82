#include "chat.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <stdio.h>
#include <string.h>

void chat_reader_fini(struct chat_reader *r)
{
    cox_free(r->parts);
    r->parts = NULL;
    r->cap_parts = 0;
    cox_buf_fini(&r->text);
}

static bool is(struct cox_slice raw, const char *name)
{
    return cox_json_string_is(raw, cox_slice_str(name));
}

/* Which of `names` a raw string is; n: none of them. */
static unsigned which(struct cox_slice raw, const char *const *names, unsigned n)
{
    unsigned i = 0;

    while (i < n && !is(raw, names[i]))
        i++;
    return i;
}

/* What a raw string stands for; copied only when it has escapes. */
static struct cox_slice text_of(struct cox_buf *memory, struct cox_slice raw)
{
    struct cox_slice inner = cox_json_inner(raw);

    if (inner.len == 0 || !memchr(inner.data, '\\', inner.len))
        return inner;
    cox_buf_clear(memory);
    cox_json_unescape(memory, inner);
    return cox_buf_slice(memory);
}

/* ---- requests --------------------------------------------------------------------------------------- */

enum member {
    M_MODEL,
    M_STREAM,
    M_STREAM_OPTIONS,
    M_MAX_TOKENS,
    M_MAX_COMPLETION_TOKENS,
    M_N,
    M_TOOLS,
    M_CACHE_KEY,
    M_USER,
    M_PROMPT, /* by the API: messages, prompt, input */
    M_NR
};

struct request {
    struct chat_reader *r;
    struct chat_request *q;
    struct cox_json_scan scan;
    struct cox_slice tools;
    struct cox_buf *error;
    const char *names[M_NR];
    const char *param;
};

static bool refuse(struct request *q, enum member m, const char *expected)
{
    q->param = q->names[m];
    cox_buf_printf(q->error, "%s: expected %s", q->param, expected);
    return false;
}

static void add_part(struct request *q, struct cox_slice part)
{
    struct chat_reader *r = q->r;

    /* The first place is for tools, wherever in the body they stand. */
    if (q->q->n_parts + 1 >= r->cap_parts) {
        r->cap_parts = r->cap_parts ? 2 * r->cap_parts : 64;
        r->parts = cox_realloc(r->parts, r->cap_parts, sizeof(r->parts[0]));
    }
    r->parts[++q->q->n_parts] = part;
    q->q->prompt_len += part.len;
}

static bool is_media(struct cox_slice key)
{
    static const char *const names[] = { "image_url", "input_audio", "file", "video_url", "audio_url" };
    enum { N = sizeof(names) / sizeof(names[0]) };

    return which(key, names, N) < N;
}

/* A part of a message's content. */
static bool take_content_part(struct request *q)
{
    const uint8_t *start = q->scan.p;
    struct cox_slice key;
    bool media = false;

    if (!cox_json_scan_open(&q->scan))
        return cox_json_scan_value(&q->scan, NULL);
    while (cox_json_scan_next(&q->scan, &key)) {
        media = media || is_media(key);
        if (!cox_json_scan_value(&q->scan, NULL))
            return false;
    }
    if (media) {
        q->q->n_media++;
        q->q->media_len += (uint64_t)(q->scan.p - start);
    }
    return !q->scan.expected;
}

static bool take_message(struct request *q, struct cox_slice *ret)
{
    const uint8_t *start = q->scan.p;
    struct cox_slice key;

    (void)cox_json_scan_open(&q->scan);
    while (cox_json_scan_next(&q->scan, &key)) {
        bool parts = cox_json_scan_kind(&q->scan) == COX_JSON_ARRAY && is(key, "content");

        if (!parts && !cox_json_scan_value(&q->scan, NULL))
            return false;
        if (!parts)
            continue;
        (void)cox_json_scan_open(&q->scan);
        while (cox_json_scan_next(&q->scan, &key))
            if (!take_content_part(q))
                return false;
    }
    *ret = cox_slice(start, (size_t)(q->scan.p - start));
    return !q->scan.expected;
}

static bool take_messages(struct request *q)
{
    struct cox_slice key, message;

    if (cox_json_scan_kind(&q->scan) != COX_JSON_ARRAY || !cox_json_scan_open(&q->scan))
        return refuse(q, M_PROMPT, "an array of messages");
    while (cox_json_scan_next(&q->scan, &key)) {
        if (cox_json_scan_kind(&q->scan) != COX_JSON_OBJECT)
            return refuse(q, M_PROMPT, "objects only");
        if (!take_message(q, &message))
            return false;
        if (q->q->n_parts == CHAT_PARTS_MAX)
            return refuse(q, M_PROMPT, "at most 65536 messages");
        add_part(q, message);
    }
    return q->scan.expected || q->q->n_parts > 0 || refuse(q, M_PROMPT, "at least one message");
}

/* A string, several, or tokens: numbers, or lists of them. */
static bool take_prompt(struct request *q)
{
    enum cox_json_kind kind = cox_json_scan_kind(&q->scan);
    const uint8_t *start = q->scan.p;
    struct cox_slice key, value;
    bool tokens = false;

    if (kind == COX_JSON_STRING) {
        if (!cox_json_scan_value(&q->scan, &value))
            return false;
        add_part(q, value);
        return true;
    }
    if (kind != COX_JSON_ARRAY || !cox_json_scan_open(&q->scan))
        return refuse(q, M_PROMPT, "a string or an array");
    while (cox_json_scan_next(&q->scan, &key)) {
        tokens = tokens || cox_json_scan_kind(&q->scan) == COX_JSON_NUMBER;
        if (!cox_json_scan_value(&q->scan, &value))
            return false;
        if (tokens)
            continue;
        if (q->q->n_parts == CHAT_PARTS_MAX)
            return refuse(q, M_PROMPT, "at most 65536 texts");
        add_part(q, value);
    }
    if (tokens && !q->scan.expected) {
        q->q->n_parts = 0;
        q->q->prompt_len = 0;
        add_part(q, cox_slice(start, (size_t)(q->scan.p - start)));
    }
    return q->scan.expected || q->q->n_parts > 0 || refuse(q, M_PROMPT, "at least one text");
}

static bool take_model(struct request *q)
{
    enum cox_json_kind kind = cox_json_scan_kind(&q->scan);
    struct cox_slice raw;

    if (!cox_json_scan_value(&q->scan, &raw))
        return false;
    if (kind != COX_JSON_STRING)
        return refuse(q, M_MODEL, "a string");
    q->q->model_span = raw;
    q->q->model = text_of(&q->r->text, raw);
    return true;
}

static bool take_flag(struct request *q, enum member m, bool *ret)
{
    enum cox_json_kind kind = cox_json_scan_kind(&q->scan);
    struct cox_slice raw;

    if (!cox_json_scan_value(&q->scan, &raw))
        return false;
    if (kind != COX_JSON_BOOL && kind != COX_JSON_NULL)
        return refuse(q, m, "true or false");
    *ret = raw.data[0] == 't';
    return true;
}

static bool take_stream_options(struct request *q)
{
    enum cox_json_kind kind = cox_json_scan_kind(&q->scan);
    struct cox_slice raw, value;

    if (!cox_json_scan_value(&q->scan, &raw))
        return false;
    if (kind != COX_JSON_OBJECT && kind != COX_JSON_NULL)
        return refuse(q, M_STREAM_OPTIONS, "an object");
    q->q->stream_options_span = raw;
    if (cox_json_member(raw, "include_usage", &value))
        q->q->include_usage = value.data[0] == 't';
    return true;
}

/* What is no count is for the server to refuse: it passes on. */
static bool take_count(struct request *q, uint64_t *ret)
{
    struct cox_slice raw;
    int64_t n;

    if (!cox_json_scan_value(&q->scan, &raw))
        return false;
    if (cox_json_int(raw, &n) && n > 0)
        *ret = (uint64_t)n;
    return true;
}

static bool take_tools(struct request *q)
{
    enum cox_json_kind kind = cox_json_scan_kind(&q->scan);
    struct cox_slice raw;

    if (!cox_json_scan_value(&q->scan, &raw))
        return false;
    if (kind == COX_JSON_ARRAY && cox_json_trim(cox_slice(raw.data + 1, raw.len - 2)).len > 0)
        q->tools = raw;
    return true;
}

/* As it stands between the quotes: it only has to be the same each time. The key is of fewer calls than the
 * user, so it is what counts. */
static bool take_group(struct request *q, enum member m)
{
    enum cox_json_kind kind = cox_json_scan_kind(&q->scan);
    struct cox_slice raw;

    if (!cox_json_scan_value(&q->scan, &raw))
        return false;
    if (kind == COX_JSON_STRING && raw.len > 2 && (m == M_CACHE_KEY || q->q->group.len == 0))
        q->q->group = cox_slice(raw.data + 1, raw.len - 2);
    return true;
}

static bool take_member(struct request *q, enum member m, uint64_t counts[M_NR])
{
    switch (m) {
    case M_MODEL:
        return take_model(q);
    case M_STREAM:
        return take_flag(q, m, &q->q->stream);
    case M_STREAM_OPTIONS:
        return take_stream_options(q);
    case M_MAX_TOKENS:
    case M_MAX_COMPLETION_TOKENS:
    case M_N:
        return take_count(q, &counts[m]);
    case M_TOOLS:
        return take_tools(q);
    case M_CACHE_KEY:
    case M_USER:
        return take_group(q, m);
    case M_PROMPT:
        return q->q->api == CHAT_COMPLETIONS ? take_messages(q) : take_prompt(q);
    case M_NR:
        break;
    }
    return cox_json_scan_value(&q->scan, NULL);
}

static bool take_members(struct request *q)
{
    uint64_t counts[M_NR] = { 0 };
    unsigned seen = 0;
    struct cox_slice key;

    if (cox_json_scan_kind(&q->scan) != COX_JSON_OBJECT || !cox_json_scan_open(&q->scan)) {
        cox_buf_append_str(q->error, "the body: expected a JSON object");
        return false;
    }
    while (cox_json_scan_next(&q->scan, &key)) {
        enum member m = which(key, q->names, M_NR);

        /* Servers differ in which of two they read: what was placed and charged must be what runs. */
        if (m < M_NR && (seen & 1u << m) != 0 && !COX_PLANTED("chat-member-twice"))
            return refuse(q, m, "it once");
        seen |= m < M_NR ? 1u << m : 0;
        if (!take_member(q, m, counts))
            return false;
    }
    q->q->max_tokens =
        counts[M_MAX_COMPLETION_TOKENS] ? counts[M_MAX_COMPLETION_TOKENS] : counts[M_MAX_TOKENS];
    if (counts[M_N] > 0)
        q->q->n_choices = counts[M_N] < UINT32_MAX ? (uint32_t)counts[M_N] : UINT32_MAX;
    if (q->q->api == CHAT_TEXT_COMPLETIONS && q->q->n_parts > 1)
        q->q->n_choices =
            q->q->n_choices < UINT32_MAX / q->q->n_parts ? q->q->n_choices * q->q->n_parts : UINT32_MAX;
    if (q->scan.expected || !cox_json_scan_end(&q->scan))
        return false;
    return (seen & 1u << M_PROMPT) != 0 || refuse(q, M_PROMPT, "it: it is required");
}

static const char *prompt_name(enum chat_api api)
{
    return api == CHAT_COMPLETIONS ? "messages" : api == CHAT_TEXT_COMPLETIONS ? "prompt" : "input";
}

/* A broken text is said to be that, whatever else was found wrong at the break. */
static void say_broken(struct request *q)
{
    struct cox_json_place at;

    cox_json_scan_place(&q->scan, &at);
    cox_buf_clear(q->error);
    cox_buf_printf(q->error, "the body is not JSON: line %u, column %u: expected %s", at.line, at.column,
                   at.expected);
    q->param = NULL;
}

enum cox_err chat_request_read(struct chat_reader *r, enum chat_api api, struct cox_slice body,
                               struct chat_request *ret, struct cox_buf *error, const char **ret_param)
{
    struct chat_request found = { .api = api, .n_choices = 1 };
    struct request q = {
        .r = r,
        .q = &found,
        .scan = cox_json_scan(body),
        .error = error,
        .names = { "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tools",
                   "prompt_cache_key", "user", prompt_name(api) },
    };
    bool ok;

    found.insert_at = (size_t)(q.scan.p - body.data) + 1;
    cox_buf_clear(&r->text);
    ok = take_members(&q);
    *ret_param = q.param;
    if (!ok) {
        if (q.scan.expected)
            say_broken(&q);
        *ret_param = q.param;
        return COX_ERR_INVALID;
    }
    found.parts = r->parts + 1;
    found.has_tools = q.tools.len > 0;
    if (found.has_tools) {
        r->parts[0] = q.tools;
        found.parts = r->parts;
        found.n_parts++;
        found.prompt_len += q.tools.len;
    }
    *ret = found;
    return COX_OK;
}

/* ---- rewriting -------------------------------------------------------------------------------------- */

struct edit {
    size_t at, len;     /* of the body: what goes */
    size_t from, count; /* of `memory`: what comes */
};

static void put_options(struct cox_buf *memory, struct cox_slice old)
{
    struct cox_json_walk w = cox_json_walk(old);

    cox_buf_append_str(memory, "{\"include_usage\":true");
    while (cox_json_next(&w)) {
        if (is(w.key, "include_usage"))
            continue;
        cox_put_u8(memory, ',');
        cox_buf_append_slice(memory, w.key);
        cox_put_u8(memory, ':');
        cox_buf_append_slice(memory, w.value);
    }
    cox_put_u8(memory, '}');
}

static void edit_model(const struct chat_request *q, struct cox_slice body, const char *model,
                       struct cox_buf *memory, struct edit *e)
{
    *e = (struct edit){ .at = q->insert_at, .from = memory->len };
    if (q->model_span.len > 0) {
        e->at = (size_t)(q->model_span.data - body.data);
        e->len = q->model_span.len;
        cox_json_quote(memory, cox_slice_str(model));
    } else {
        cox_buf_append_str(memory, "\"model\":");
        cox_json_quote(memory, cox_slice_str(model));
        cox_put_u8(memory, ',');
    }
    e->count = memory->len - e->from;
}

static void edit_options(const struct chat_request *q, struct cox_slice body, struct cox_buf *memory,
                         struct edit *e)
{
    *e = (struct edit){ .at = q->insert_at, .from = memory->len };
    if (q->stream_options_span.len > 0) {
        e->at = (size_t)(q->stream_options_span.data - body.data);
        e->len = q->stream_options_span.len;
        put_options(memory, q->stream_options_span);
    } else {
        cox_buf_append_str(memory, "\"stream_options\":{\"include_usage\":true},");
    }
    e->count = memory->len - e->from;
}

size_t chat_request_rewrite(const struct chat_request *q, struct cox_slice body, const char *upstream_model,
                            bool want_usage, struct cox_buf *memory, struct cox_slice pieces[CHAT_PIECES_MAX])
{
    struct edit edits[2];
    size_t n_edits = 0, n = 0, done = 0;

    if (upstream_model && !cox_slice_is(q->model, upstream_model))
        edit_model(q, body, upstream_model, memory, &edits[n_edits++]);
    /* Servers refuse the option where nothing is streamed. */
    if (want_usage && q->stream && !q->include_usage)
        edit_options(q, body, memory, &edits[n_edits++]);
    if (n_edits == 2 && edits[1].at < edits[0].at) {
        struct edit later = edits[0];

        edits[0] = edits[1];
        edits[1] = later;
    }
    for (size_t i = 0; i < n_edits; i++) {
        if (edits[i].at > done)
            pieces[n++] = cox_slice(body.data + done, edits[i].at - done);
        pieces[n++] = cox_slice(memory->data + edits[i].from, edits[i].count);
        done = edits[i].at + edits[i].len;
    }
    pieces[n++] = cox_slice(body.data + done, body.len - done);
    return n;
}

/* ---- errors ----------------------------------------------------------------------------------------- */

static void put_string_or_null(struct cox_buf *out, const char *text)
{
    if (text)
        cox_json_quote(out, cox_slice_str(text));
    else
        cox_buf_append_str(out, "null");
}

void chat_put_error(struct cox_buf *out, const char *message, const char *type, const char *param,
                    const char *code)
{
    cox_buf_append_str(out, "{\"error\":{\"message\":");
    put_string_or_null(out, message);
    cox_buf_append_str(out, ",\"type\":");
    put_string_or_null(out, type);
    cox_buf_append_str(out, ",\"param\":");
    put_string_or_null(out, param);
    cox_buf_append_str(out, ",\"code\":");
    put_string_or_null(out, code);
    cox_buf_append_str(out, "}}");
}
