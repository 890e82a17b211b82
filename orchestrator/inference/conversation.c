#include "conversation.h"

#include "output_cap.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <string.h>

static bool member(struct cox_slice object, const char *name, enum cox_json_kind kind, struct cox_slice *ret)
{
    return cox_json_member(object, name, ret) && cox_json_kind(*ret) == kind;
}

void conversation_fini(struct conversation *c)
{
    cox_free(c->parts);
    *c = (struct conversation){ 0 };
}

/* ---- reading ---- */

static bool is_reference(struct cox_slice value, struct cox_hash *ret)
{
    struct cox_slice name;

    return member(value, "$blob", COX_JSON_STRING, &name) && cox_hash_parse(cox_json_inner(name), ret);
}

static bool read_entry(struct cox_slice entry, struct conversation_part *ret)
{
    static const struct {
        const char *name;
        enum conversation_place place;
    } places[] = { { "answer", CONVERSATION_ANSWER },
                   { "result", CONVERSATION_RESULT },
                   { "text", CONVERSATION_TEXT } };
    bool found = false, has_id = false, kept = false;

    *ret = (struct conversation_part){ 0 };
    for (struct cox_json_walk w = cox_json_walk(entry); cox_json_next(&w);) {
        if (cox_json_string_is(w.key, cox_slice_str("id"))) {
            ret->id = w.value;
            has_id = cox_json_kind(w.value) == COX_JSON_STRING;
        } else if (cox_json_string_is(w.key, cox_slice_str("kept"))) {
            kept = cox_slice_is(w.value, "true");
        }
        for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
            if (!cox_json_string_is(w.key, cox_slice_str(places[i].name)))
                continue;
            found = true;
            ret->place = places[i].place;
            ret->value = w.value;
        }
    }
    kept |= COX_PLANTED("said-is-searched") && is_reference(ret->value, &ret->hash);
    ret->is_kept = kept && is_reference(ret->value, &ret->hash);
    return found && ret->is_kept == kept && (has_id || ret->place != CONVERSATION_RESULT);
}

/* The first two are the engine's own, and never of a shape that a reference could be taken for. */
static bool read_first(struct cox_slice text, const char *name, enum conversation_place place,
                       struct conversation_part *ret)
{
    *ret = (struct conversation_part){ .place = place };
    if (!cox_json_member(text, name, &ret->value))
        return false;
    ret->is_kept = is_reference(ret->value, &ret->hash);
    return true;
}

enum cox_err conversation_read(struct conversation *c, struct cox_slice text)
{
    struct cox_slice said;
    uint32_t n = 2;

    if (!member(text, "said", COX_JSON_ARRAY, &said))
        return COX_ERR_INVALID;
    c->n_parts = n + (uint32_t)cox_json_count(said);
    c->parts = cox_calloc(c->n_parts, sizeof(*c->parts));
    if (!read_first(text, "request", CONVERSATION_REQUEST, &c->parts[0]) ||
        !read_first(text, "tools", CONVERSATION_TOOLS, &c->parts[1]))
        return COX_ERR_INVALID;
    for (struct cox_json_walk w = cox_json_walk(said); cox_json_next(&w);)
        if (!read_entry(w.value, &c->parts[n++]))
            return COX_ERR_INVALID;
    for (uint32_t i = 2; i < n; i++)
        if (c->parts[i].place == CONVERSATION_ANSWER &&
            (i + 1 == n || c->parts[i + 1].place != CONVERSATION_RESULT))
            c->parts[i].place = CONVERSATION_UNHEARD;
    return COX_OK;
}

/* ---- rendering ---- */

static void put_comma(struct cox_buf *out, bool *first)
{
    if (!*first)
        cox_buf_append_str(out, ",");
    *first = false;
}

/* Of a list, as it stands there. */
static void put_items(struct cox_buf *out, struct cox_slice list)
{
    bool first = true;

    for (struct cox_json_walk w = cox_json_walk(list); cox_json_next(&w);) {
        put_comma(out, &first);
        cox_buf_append_slice(out, w.value);
    }
}

static enum cox_err put_answer(struct cox_buf *out, struct cox_slice output, bool heard)
{
    struct cox_slice content, calls;
    bool called = heard && member(output, "tool_calls", COX_JSON_ARRAY, &calls) && cox_json_count(calls) > 0;

    if (cox_json_kind(output) != COX_JSON_OBJECT)
        return COX_ERR_INVALID;
    cox_buf_append_str(out, "{\"role\":\"assistant\",\"content\":");
    if (member(output, "content", COX_JSON_STRING, &content))
        cox_buf_append_slice(out, content);
    else
        cox_buf_append_str(out, called ? "null" : "\"\"");
    if (called) {
        cox_buf_append_str(out, ",\"tool_calls\":");
        cox_buf_append_slice(out, calls);
    }
    cox_buf_append_str(out, "}");
    return COX_OK;
}

static void put_result(struct cox_buf *out, struct cox_slice value)
{
    struct cox_buf compact = { 0 };

    if (cox_json_kind(value) == COX_JSON_STRING) {
        cox_buf_append_slice(out, value);
        return;
    }
    cox_json_compact(&compact, value);
    cox_json_quote(out, cox_buf_slice(&compact));
    cox_buf_fini(&compact);
}

static void put_tool(struct cox_buf *out, struct cox_slice tool)
{
    static const char *const members[] = { "name", "description", "parameters" };
    struct cox_slice value;
    bool first = true;

    cox_buf_append_str(out, "{\"type\":\"function\",\"function\":{");
    for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
        if (!cox_json_member(tool, members[i], &value))
            continue;
        put_comma(out, &first);
        cox_buf_printf(out, "\"%s\":", members[i]);
        cox_buf_append_slice(out, value);
    }
    cox_buf_append_str(out, "}}");
}

static enum cox_err put_tools(struct cox_buf *out, struct cox_slice tools)
{
    bool first = true;

    for (struct cox_json_walk w = cox_json_walk(tools); cox_json_next(&w);) {
        put_comma(out, &first);
        put_tool(out, w.value);
    }
    return cox_json_kind(tools) == COX_JSON_ARRAY ? COX_OK : COX_ERR_INVALID;
}

/* All but the lists stands together, so that a cap is put in without a look at them. */
static enum cox_err put_request(struct conversation_text *to, struct cox_slice spec)
{
    static const char *const others[] = { "messages", "tools", "stream" };
    struct cox_slice request, list;

    if (!member(spec, "request", COX_JSON_OBJECT, &request))
        return COX_ERR_INVALID;
    if (cox_json_member(request, "messages", &list) && cox_json_kind(list) != COX_JSON_ARRAY)
        return COX_ERR_INVALID;
    if (member(request, "messages", COX_JSON_ARRAY, &list))
        put_items(&to->bytes, list);
    to->messages_len = to->bytes.len;
    if (member(request, "tools", COX_JSON_ARRAY, &list))
        put_items(&to->bytes, list);
    to->tools_len = to->bytes.len - to->messages_len;
    cox_buf_append_str(&to->bytes, "{\"stream\":true");
    for (struct cox_json_walk w = cox_json_walk(request); cox_json_next(&w);) {
        bool other = false;

        for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
            other |= cox_json_string_is(w.key, cox_slice_str(others[i]));
        if (other)
            continue;
        cox_buf_append_str(&to->bytes, ",");
        cox_buf_append_slice(&to->bytes, w.key);
        cox_buf_append_str(&to->bytes, ":");
        cox_buf_append_slice(&to->bytes, w.value);
    }
    cox_buf_append_str(&to->bytes, "}");
    return COX_OK;
}

enum cox_err conversation_render(enum conversation_place place, struct cox_slice value,
                                 struct conversation_text *ret)
{
    *ret = (struct conversation_text){ 0 };
    switch (place) {
    case CONVERSATION_REQUEST:
        return put_request(ret, value);
    case CONVERSATION_TOOLS:
        return put_tools(&ret->bytes, value);
    case CONVERSATION_ANSWER:
    case CONVERSATION_UNHEARD:
        return put_answer(&ret->bytes, value, place == CONVERSATION_ANSWER);
    case CONVERSATION_RESULT:
        put_result(&ret->bytes, value);
        return COX_OK;
    case CONVERSATION_TEXT:
        if (cox_json_kind(value) != COX_JSON_STRING)
            return COX_ERR_INVALID;
        cox_buf_append_str(&ret->bytes, "{\"role\":\"user\",\"content\":");
        cox_buf_append_slice(&ret->bytes, value);
        cox_buf_append_str(&ret->bytes, "}");
        return COX_OK;
    }
    return COX_ERR_INVALID;
}

/* ---- together ---- */

/* Some behind others, of which there may be none. */
static void put_more(struct cox_buf *out, struct cox_slice items, bool *first)
{
    if (items.len == 0)
        return;
    put_comma(out, first);
    cox_buf_append_slice(out, items);
}

static void put_head(struct cox_buf *out, struct cox_slice request, uint64_t output_tokens)
{
    struct cox_buf head = { 0 };

    cox_buf_append_slice(&head, request);
    if (output_tokens > 0)
        output_cap_apply(&head, output_tokens);
    cox_buf_append(out, head.data, head.len - 1); /* the brace comes last of all */
    cox_buf_fini(&head);
}

void conversation_put(const struct conversation *c, const struct conversation_text *const *texts,
                      uint64_t output_tokens, struct cox_buf *out)
{
    const struct conversation_text *begun = texts[0];
    const uint8_t *at = begun->bytes.data;
    size_t lists_len = begun->messages_len + begun->tools_len;
    bool first = true;

    put_head(out, cox_slice(at + lists_len, begun->bytes.len - lists_len), output_tokens);
    cox_buf_append_str(out, ",\"messages\":[");
    put_more(out, cox_slice(at, begun->messages_len), &first);
    for (uint32_t i = 2; i < c->n_parts; i++) {
        put_comma(out, &first);
        if (c->parts[i].place == CONVERSATION_RESULT) {
            cox_buf_append_str(out, "{\"role\":\"tool\",\"tool_call_id\":");
            cox_buf_append_slice(out, c->parts[i].id);
            cox_buf_append_str(out, ",\"content\":");
        }
        cox_buf_append_slice(out, cox_buf_slice(&texts[i]->bytes));
        if (c->parts[i].place == CONVERSATION_RESULT)
            cox_buf_append_str(out, "}");
    }
    cox_buf_append_str(out, "]");
    if (begun->tools_len + texts[1]->bytes.len > 0) {
        first = true;
        cox_buf_append_str(out, ",\"tools\":[");
        put_more(out, cox_slice(at + begun->messages_len, begun->tools_len), &first);
        put_more(out, cox_buf_slice(&texts[1]->bytes), &first);
        cox_buf_append_str(out, "]");
    }
    cox_buf_append_str(out, "}");
}
