/* Any bytes as a request to a model and as what a server answers. The first byte chooses the API.
 *
 * A request: refused with words, or it is JSON, its spans lie in it, and what is sent on is JSON that reads
 * as the same request with our name of the model and our wish for usage. An answer: an object of JSON or
 * refused; with ids supplied it is still JSON, lacks none, and supplying them again changes nothing. */
#include "fuzz.h"

#include "chat.h"

#include "cox/json.h"

static bool inside(struct cox_slice part, struct cox_slice whole)
{
    return part.len == 0 || (part.data >= whole.data && part.data + part.len <= whole.data + whole.len);
}

static bool is_json(struct cox_slice text)
{
    return cox_json_check(text, NULL) == COX_OK;
}

static void check_rewritten(const struct chat_request *q, struct cox_slice body)
{
    struct cox_buf memory = { 0 }, sent = { 0 }, error = { 0 };
    struct cox_slice pieces[CHAT_PIECES_MAX];
    struct chat_reader reader = { 0 };
    struct chat_request again;
    const char *param;
    size_t n = chat_request_rewrite(q, body, "up\"stream", true, &memory, pieces);

    COX_ASSERT(n >= 1 && n <= CHAT_PIECES_MAX);
    for (size_t i = 0; i < n; i++)
        cox_buf_append_slice(&sent, pieces[i]);
    COX_ASSERT(chat_request_read(&reader, q->api, cox_buf_slice(&sent), &again, &error, &param) == COX_OK);
    COX_ASSERT(cox_slice_is(again.model, "up\"stream"));
    COX_ASSERT(again.stream == q->stream && again.n_parts == q->n_parts && again.prompt_len == q->prompt_len);
    COX_ASSERT(again.max_tokens == q->max_tokens && again.n_choices == q->n_choices);
    COX_ASSERT(!q->stream || again.include_usage);
    for (uint32_t i = 0; i < q->n_parts; i++)
        COX_ASSERT(cox_slice_eq(again.parts[i], q->parts[i]));
    chat_reader_fini(&reader);
    cox_buf_fini(&memory);
    cox_buf_fini(&sent);
    cox_buf_fini(&error);
}

static void check_request(enum chat_api api, struct cox_slice body)
{
    struct chat_reader reader = { 0 };
    struct chat_request q;
    struct cox_buf error = { 0 };
    const char *param;

    if (chat_request_read(&reader, api, body, &q, &error, &param) != COX_OK) {
        COX_ASSERT(error.len > 0);
    } else {
        uint64_t len = 0;

        COX_ASSERT(is_json(body) && cox_json_kind(body) == COX_JSON_OBJECT);
        COX_ASSERT(inside(q.model_span, body) && inside(q.stream_options_span, body));
        COX_ASSERT(q.n_parts > 0 && q.n_choices > 0 && q.insert_at < body.len);
        for (uint32_t i = 0; i < q.n_parts; i++) {
            COX_ASSERT(q.parts[i].len > 0 && inside(q.parts[i], body) && is_json(q.parts[i]));
            len += q.parts[i].len;
        }
        COX_ASSERT(len == q.prompt_len);
        check_rewritten(&q, body);
    }
    chat_reader_fini(&reader);
    cox_buf_fini(&error);
}

static void check_mended(enum chat_api api, struct cox_slice json, bool missing)
{
    struct chat_reader reader = { 0 };
    struct chat_answer a;
    struct cox_buf once = { 0 }, twice = { 0 };

    chat_answer_mend(json, 1, &once);
    COX_ASSERT(missing || cox_slice_eq(cox_buf_slice(&once), json));
    COX_ASSERT(chat_answer_read(&reader, api, cox_buf_slice(&once), &a) == COX_OK && !a.ids_missing);
    chat_answer_mend(cox_buf_slice(&once), 2, &twice);
    COX_ASSERT(cox_slice_eq(cox_buf_slice(&once), cox_buf_slice(&twice)));
    chat_reader_fini(&reader);
    cox_buf_fini(&once);
    cox_buf_fini(&twice);
}

static void check_answer(enum chat_api api, struct cox_slice json)
{
    struct chat_reader reader = { 0 };
    struct chat_answer a;
    bool ok = chat_answer_read(&reader, api, json, &a) == COX_OK;

    COX_ASSERT(ok == (is_json(json) && cox_json_kind(json) == COX_JSON_OBJECT));
    if (ok) {
        COX_ASSERT(inside(a.error_message, json) && inside(a.error_type, json) && inside(a.error_code, json));
        COX_ASSERT(inside(a.text, json) || inside(a.text, cox_buf_slice(&reader.text)));
        check_mended(api, json, a.ids_missing);
    }
    chat_reader_fini(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cox_slice text = cox_slice(data + 1, size > 0 ? size - 1 : 0);
    enum chat_api api;

    if (size == 0)
        return 0;
    api = (enum chat_api)(data[0] % 3);
    check_request(api, text);
    check_answer(api, text);
    return 0;
}
