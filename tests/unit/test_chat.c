/* OpenAI's requests and answers, in the shapes in which servers and clients say them. */
#include "check.h"

#include "chat.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <jansson.h>
#include <string.h>

struct read {
    struct chat_reader reader;
    struct chat_request q;
    struct cox_buf error;
    const char *param;
    enum cox_err err;
};

static void read_as(struct read *r, enum chat_api api, const char *body)
{
    cox_buf_clear(&r->error);
    r->q = (struct chat_request){ 0 };
    r->err = chat_request_read(&r->reader, api, cox_slice_str(body), &r->q, &r->error, &r->param);
}

static void fini(struct read *r)
{
    chat_reader_fini(&r->reader);
    cox_buf_fini(&r->error);
}

static void assert_slice(struct cox_slice s, const char *text)
{
    if (!cox_slice_is(s, text))
        fail_msg("'%.*s' is not '%s'", (int)s.len, s.data ? (const char *)s.data : "", text);
}

static void reads_a_chat(void **state)
{
    struct read r = { 0 };

    (void)state;
    read_as(&r, CHAT_COMPLETIONS,
            " { \"messages\" : [ {\"role\":\"user\",\"content\":\"hi\"} , {\"role\":\"tool\"} ],\n"
            "\"mod\\u0065l\":\"a\\/b\",\"max_tokens\":5,\"max_completion_tokens\":7,\"n\":2,\"stream\":true,"
            "\"stream_options\":{\"include_usage\":true},\"tools\":[{\"type\":\"function\"}],\"seed\":1}");
    assert_int_equal(r.err, COX_OK);
    assert_slice(r.q.model, "a/b");
    assert_slice(r.q.model_span, "\"a\\/b\"");
    assert_true(r.q.stream && r.q.include_usage && r.q.has_tools);
    assert_int_equal(r.q.max_tokens, 7);
    assert_int_equal(r.q.n_choices, 2);
    assert_int_equal(r.q.n_parts, 3);
    assert_slice(r.q.parts[0], "[{\"type\":\"function\"}]"); /* engines see tools first */
    assert_slice(r.q.parts[1], "{\"role\":\"user\",\"content\":\"hi\"}");
    assert_slice(r.q.parts[2], "{\"role\":\"tool\"}");
    assert_int_equal(r.q.prompt_len, 21 + 30 + 15);
    assert_int_equal(r.q.insert_at, 2);

    read_as(&r, CHAT_COMPLETIONS, "{\"messages\":[{}],\"tools\":[ ],\"stream\":null,\"n\":null}");
    assert_int_equal(r.err, COX_OK);
    assert_int_equal(r.q.n_parts, 1);
    assert_true(!r.q.has_tools && !r.q.stream && r.q.model.len == 0 && r.q.model_span.len == 0);
    assert_int_equal(r.q.n_choices, 1);
    assert_int_equal(r.q.max_tokens, 0);
    fini(&r);
}

static void reads_prompts_and_inputs(void **state)
{
    static const struct {
        const char *value;
        uint32_t n_parts;
        const char *first;
    } cases[] = {
        { "\"one\"", 1, "\"one\"" },
        { "[\"a\",\"b\"]", 2, "\"a\"" },
        { "[1,2,3]", 1, "[1,2,3]" },
        { "[[1,2],[3]]", 2, "[1,2]" },
    };
    struct read r = { 0 };
    char body[200];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        snprintf(body, sizeof(body), "{\"model\":\"m\",\"prompt\":%s}", cases[i].value);
        read_as(&r, CHAT_TEXT_COMPLETIONS, body);
        assert_int_equal(r.err, COX_OK);
        assert_int_equal(r.q.n_parts, cases[i].n_parts);
        assert_slice(r.q.parts[0], cases[i].first);
        snprintf(body, sizeof(body), "{\"model\":\"m\",\"input\":%s}", cases[i].value);
        read_as(&r, CHAT_EMBEDDINGS, body);
        assert_int_equal(r.err, COX_OK);
        assert_int_equal(r.q.n_parts, cases[i].n_parts);
    }
    fini(&r);
}

static void counts_the_choices_to_come(void **state)
{
    static const struct {
        enum chat_api api;
        const char *body;
        uint32_t n;
    } cases[] = {
        { CHAT_COMPLETIONS, "{\"messages\":[{},{}],\"n\":3}", 3 },
        { CHAT_TEXT_COMPLETIONS, "{\"prompt\":\"a\",\"n\":3}", 3 },
        { CHAT_TEXT_COMPLETIONS, "{\"prompt\":[\"a\",\"b\"]}", 2 },
        { CHAT_TEXT_COMPLETIONS, "{\"n\":3,\"prompt\":[[1],[2]]}", 6 },
        { CHAT_TEXT_COMPLETIONS, "{\"prompt\":[1,2,3]}", 1 },
        { CHAT_TEXT_COMPLETIONS, "{\"prompt\":[\"a\",\"b\"],\"n\":4294967295}", UINT32_MAX },
    };
    struct read r = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        read_as(&r, cases[i].api, cases[i].body);
        assert_int_equal(r.err, COX_OK);
        assert_int_equal(r.q.n_choices, cases[i].n);
    }
    fini(&r);
}

static void counts_images_apart(void **state)
{
    struct read r = { 0 };
    static const char image[] = "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,AAAA\"}}";
    static const char sound[] = "{\"input_audio\":{\"data\":\"AAAA\"}}";
    char body[400];

    (void)state;
    snprintf(body, sizeof(body),
             "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"image_url\"}, %s,\"x\",[1]]},"
             "{\"content\":\"image_url\",\"image_url\":1},{\"content\":[%s,%s]}]}",
             image, sound, image);
    read_as(&r, CHAT_COMPLETIONS, body);
    assert_int_equal(r.err, COX_OK);
    assert_int_equal(r.q.n_parts, 3);
    assert_slice(r.q.parts[1], "{\"content\":\"image_url\",\"image_url\":1}");
    assert_int_equal(r.q.n_media, 3);
    assert_int_equal(r.q.media_len, 2 * strlen(image) + strlen(sound));
    read_as(&r, CHAT_COMPLETIONS, "{\"messages\":[{\"content\":[{\"image_url\":}]}]}");
    assert_int_equal(r.err, COX_ERR_INVALID);
    fini(&r);
}

static void many_messages_are_all_there(void **state)
{
    struct read r = { 0 };
    struct cox_buf body = { 0 };
    static const uint32_t n = 1000;

    (void)state;
    cox_buf_append_str(&body, "{\"messages\":[");
    for (uint32_t i = 0; i < n; i++)
        cox_buf_printf(&body, "%s{\"content\":%u}", i > 0 ? "," : "", i);
    cox_buf_append_str(&body, "],\"tools\":[0]}");
    read_as(&r, CHAT_COMPLETIONS, cox_buf_cstr(&body));
    assert_int_equal(r.err, COX_OK);
    assert_int_equal(r.q.n_parts, n + 1);
    assert_slice(r.q.parts[0], "[0]");
    assert_slice(r.q.parts[1], "{\"content\":0}");
    assert_slice(r.q.parts[n], "{\"content\":999}");

    cox_buf_clear(&body);
    cox_buf_append_str(&body, "{\"messages\":[{}");
    for (uint32_t i = 0; i < CHAT_PARTS_MAX; i++)
        cox_buf_append_str(&body, ",{}");
    cox_buf_append_str(&body, "]}");
    read_as(&r, CHAT_COMPLETIONS, cox_buf_cstr(&body));
    assert_int_equal(r.err, COX_ERR_INVALID);
    assert_string_equal(r.param, "messages");
    cox_buf_fini(&body);
    fini(&r);
}

static void refusals_name_the_member(void **state)
{
    static const struct {
        const char *body, *param, *words;
    } cases[] = {
        { "[]", NULL, "the body: expected a JSON object" },
        { "", NULL, "the body" },
        { "{}", "messages", "messages: expected it: it is required" },
        { "{\"messages\":{}}", "messages", "an array" },
        { "{\"messages\":[]}", "messages", "at least one" },
        { "{\"messages\":[\"x\"]}", "messages", "objects only" },
        { "{\"messages\":[{}],\"model\":1}", "model", "a string" },
        { "{\"messages\":[{}],\"stream\":\"true\"}", "stream", "true or false" },
        { "{\"messages\":[{}],\"stream_options\":1}", "stream_options", "an object" },
        { "{\"messages\":[{}],\"model\":\"a\",\"model\":\"b\"}", "model", "it once" },
        { "{\"stream\":true,\"messages\":[{}],\"str\\u0065am\":false}", "stream", "it once" },
        { "{\"messages\":[{}],\"messages\":[{}]}", "messages", "it once" },
        { "{\"messages\":[{}]", NULL, "not JSON: line 1, column 17: expected ',' or '}'" },
        { "{\"messages\":[{}]} x", NULL, "expected the end of the text" },
        { "{\"messages\":[{\"content\":\"\xff\"}]}", NULL, "UTF-8" },
        { "{\"messages\":[{}],\n\"x\":tru}", NULL, "line 2, column 5" },
        { "{\"messages\":[{}],\"model\":\"\n\"}", NULL, "control character" },
    };
    struct read r = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        read_as(&r, CHAT_COMPLETIONS, cases[i].body);
        assert_int_equal(r.err, COX_ERR_INVALID);
        if (!r.param != !cases[i].param || (r.param && strcmp(r.param, cases[i].param) != 0))
            fail_msg("%s: param %s", cases[i].body, r.param ? r.param : "none");
        if (!strstr(cox_buf_cstr(&r.error), cases[i].words))
            fail_msg("%s: %s", cases[i].body, cox_buf_cstr(&r.error));
    }
    fini(&r);
}

static void is_too_deep(void **state)
{
    struct read r = { 0 };
    char body[400] = "{\"messages\":[{}],\"x\":";

    (void)state;
    memset(body + strlen(body), '[', 64);
    read_as(&r, CHAT_COMPLETIONS, body);
    assert_int_equal(r.err, COX_ERR_INVALID);
    assert_non_null(strstr(cox_buf_cstr(&r.error), "less nesting"));
    fini(&r);
}

/* ---- rewriting ---- */

static void rewritten(const char *body, const char *model, bool want_usage, const char *expected)
{
    struct read r = { 0 };
    struct cox_slice pieces[CHAT_PIECES_MAX];
    struct cox_buf memory = { 0 }, whole = { 0 };
    size_t n;

    read_as(&r, CHAT_COMPLETIONS, body);
    assert_int_equal(r.err, COX_OK);
    n = chat_request_rewrite(&r.q, cox_slice_str(body), model, want_usage, &memory, pieces);
    assert_true(n >= 1 && n <= CHAT_PIECES_MAX);
    for (size_t i = 0; i < n; i++)
        cox_buf_append_slice(&whole, pieces[i]);
    assert_string_equal(cox_buf_cstr(&whole), expected);
    cox_buf_fini(&memory);
    cox_buf_fini(&whole);
    fini(&r);
}

static void rewrites_what_is_ours_and_nothing_else(void **state)
{
    (void)state;
    rewritten("{\"messages\":[{}],\"model\":\"m\", \"x\" : 1.0}", NULL, true,
              "{\"messages\":[{}],\"model\":\"m\", \"x\" : 1.0}");
    rewritten("{\"messages\":[{}],\"model\":\"m\", \"x\" : 1.0}", "up/\"stream\"", false,
              "{\"messages\":[{}],\"model\":\"up/\\\"stream\\\"\", \"x\" : 1.0}");
    rewritten(" {\"messages\":[{}]}", "up", false, " {\"model\":\"up\",\"messages\":[{}]}");
    rewritten(
        "{\"messages\":[{}],\"stream\":true,\"model\":\"m\"}", "up", true,
        "{\"stream_options\":{\"include_usage\":true},\"messages\":[{}],\"stream\":true,\"model\":\"up\"}");
    rewritten(
        "{\"messages\":[{}],\"stream\":true}", "up", true,
        "{\"model\":\"up\",\"stream_options\":{\"include_usage\":true},\"messages\":[{}],\"stream\":true}");
    rewritten("{\"stream_options\":{\"include_usage\":false,\"a\":[1]},\"messages\":[{}],\"stream\":true,"
              "\"model\":\"m\"}",
              "up", true,
              "{\"stream_options\":{\"include_usage\":true,\"a\":[1]},\"messages\":[{}],\"stream\":true,"
              "\"model\":\"up\"}");
    rewritten("{\"stream_options\":null,\"messages\":[{}],\"stream\":true}", NULL, true,
              "{\"stream_options\":{\"include_usage\":true},\"messages\":[{}],\"stream\":true}");
    rewritten("{\"stream_options\":{\"include_usage\":true},\"messages\":[{}],\"stream\":true}", NULL, true,
              "{\"stream_options\":{\"include_usage\":true},\"messages\":[{}],\"stream\":true}");
}

/* ---- answers ---- */

static struct chat_reader reader; /* of the tests below: what it holds lives until the next */

static struct chat_answer answer(enum chat_api api, const char *json)
{
    struct chat_answer a;

    if (chat_answer_read(&reader, api, cox_slice_str(json), &a) != COX_OK)
        fail_msg("not read: %s", json);
    return a;
}

static void reads_whole_answers(void **state)
{
    struct chat_answer a;

    (void)state;
    a = answer(CHAT_COMPLETIONS,
               "{\"id\":\"x\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
               "\"a\\n\\u00e9\"},"
               "\"finish_reason\":\"stop\"},{\"index\":1,\"message\":{\"content\":\"other\"},\"finish_"
               "reason\":\"length\"}],"
               "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3,\"total_tokens\":13,"
               "\"prompt_tokens_details\":{\"audio_tokens\":0,\"cached_tokens\":8}}}");
    assert_slice(a.text, "a\n\xc3\xa9");
    assert_true(a.has_choices && a.has_content && !a.is_error && !a.ids_missing && a.usage.has);
    assert_int_equal(a.finish, CHAT_FINISH_STOP);
    assert_int_equal(a.usage.input_tokens, 10);
    assert_int_equal(a.usage.output_tokens, 3);
    assert_int_equal(a.usage.cached_tokens, 8);

    a = answer(CHAT_TEXT_COMPLETIONS,
               "{\"choices\":[{\"finish_reason\":\"length\",\"text\":\"plain\",\"index\":0}]}");
    assert_slice(a.text, "plain");
    assert_int_equal(a.finish, CHAT_FINISH_LENGTH);
    assert_true(!a.usage.has && a.usage.cached_tokens == -1);

    a = answer(CHAT_EMBEDDINGS, "{\"object\":\"list\",\"data\":[{\"embedding\":[0.1,2e-3]}],"
                                "\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4}}");
    assert_true(a.has_choices && a.has_content && a.usage.has);
    assert_int_equal(a.usage.input_tokens, 4);
    assert_int_equal(a.usage.output_tokens, 0);
}

static void reads_pieces_of_streams(void **state)
{
    struct chat_answer a;

    (void)state;
    a = answer(CHAT_COMPLETIONS,
               "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"index\":0,"
               "\"finish_reason\":null}],\"usage\":null}");
    assert_true(a.has_choices && !a.has_content && !a.usage.has && a.text.len == 0);
    assert_int_equal(a.finish, CHAT_FINISH_NONE);
    a = answer(CHAT_COMPLETIONS, "{\"choices\":[{\"delta\":{\"content\":\"tok\"},\"index\":0}]}");
    assert_true(a.has_content);
    assert_slice(a.text, "tok");
    a = answer(CHAT_COMPLETIONS, "{\"choices\":[{\"delta\":{\"content\":\"tok\"},\"index\":1}]}");
    assert_true(a.has_content && a.text.len == 0);
    a = answer(CHAT_COMPLETIONS,
               "{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\",\"content\":null}}]}");
    assert_true(a.has_content && a.text.len == 0);
    a = answer(CHAT_COMPLETIONS, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}");
    assert_true(!a.has_content && a.has_choices);
    assert_int_equal(a.finish, CHAT_FINISH_TOOLS);
    a = answer(CHAT_COMPLETIONS, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"content_filter\"}]}");
    assert_int_equal(a.finish, CHAT_FINISH_OTHER);
    a = answer(CHAT_COMPLETIONS, "{\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,"
                                 "\"prompt_tokens_details\":null}}");
    assert_true(!a.has_choices && a.usage.has && a.usage.cached_tokens == -1);
}

static void reads_usage_in_other_words(void **state)
{
    struct chat_answer a;

    (void)state;
    a = answer(CHAT_COMPLETIONS,
               "{\"choices\":[],\"timings\":{\"cache_n\":236,\"prompt_n\":1,\"prompt_ms\":30.9,"
               "\"predicted_n\":35}}"); /* llama.cpp */
    assert_true(a.usage.has);
    assert_int_equal(a.usage.input_tokens, 237);
    assert_int_equal(a.usage.cached_tokens, 236);
    assert_int_equal(a.usage.output_tokens, 35);
    a = answer(CHAT_COMPLETIONS, "{\"timings\":{\"cache_n\":5,\"prompt_n\":1,\"predicted_n\":3},\"usage\":"
                                 "{\"prompt_tokens\":6,\"completion_tokens\":3}}");
    assert_int_equal(a.usage.input_tokens, 6);
    assert_int_equal(a.usage.cached_tokens, 5);
    a = answer(CHAT_COMPLETIONS,
               "{\"usage\":{\"prompt_tokens\":6,\"completion_tokens\":3,\"prompt_cache_hit_tokens\":4}}");
    assert_int_equal(a.usage.cached_tokens, 4);
    a = answer(CHAT_COMPLETIONS,
               "{\"usage\":{\"input_tokens\":6,\"output_tokens\":3,\"input_tokens_details\":"
               "{\"cached_tokens\":2}}}");
    assert_int_equal(a.usage.input_tokens, 6);
    assert_int_equal(a.usage.output_tokens, 3);
    assert_int_equal(a.usage.cached_tokens, 2);
    a = answer(CHAT_COMPLETIONS, "{\"usage\":{\"prompt_tokens\":-6,\"completion_tokens\":1e9}}");
    assert_false(a.usage.has);
}

static void finds_errors_in_band(void **state)
{
    struct chat_answer a;

    (void)state;
    a = answer(CHAT_COMPLETIONS,
               "{\"error\":{\"message\":\"no \\\"room\\\"\",\"type\":\"server_error\",\"param\":null,"
               "\"code\":503}}");
    assert_true(a.is_error);
    assert_slice(a.error_message, "no \\\"room\\\"");
    assert_slice(a.error_type, "server_error");
    assert_slice(a.error_code, "503");
    a = answer(CHAT_COMPLETIONS,
               "{\"object\":\"error\",\"message\":\"too long\",\"type\":\"BadRequestError\","
               "\"param\":null,\"code\":400}"); /* vLLM before 0.10 */
    assert_true(a.is_error);
    assert_slice(a.error_message, "too long");
    assert_slice(a.error_type, "BadRequestError");
    assert_slice(a.error_code, "400");
    a = answer(CHAT_COMPLETIONS, "{\"error\":\"busy\",\"error_type\":\"overloaded\"}"); /* TGI */
    assert_true(a.is_error);
    assert_slice(a.error_message, "busy");
    assert_slice(a.error_type, "overloaded");
    a = answer(CHAT_COMPLETIONS, "{\"error\":null,\"choices\":[{\"delta\":{\"content\":\"x\"}}]}");
    assert_false(a.is_error);
}

static void knows_whose_fault_an_error_is(void **state)
{
    static const struct {
        const char *error;
        int status;
        bool is_any;
    } cases[] = {
        { "{\"type\":\"invalid_request_error\",\"code\":null}", 400, false },
        { "{\"type\":\"invalid_request_error\",\"code\":\"invalid_api_key\"}", 401, false },
        { "{\"type\":\"BadRequestError\",\"code\":400}", 400, true }, /* vLLM, SGLang */
        { "{\"type\":\"BadRequestError\",\"code\":500}", 500, false },
        { "{\"type\":\"InternalServerError\",\"code\":\"503\"}", 503, false },
        { "{\"type\":\"exceed_context_size_error\"}", 400, false }, /* llama.cpp */
        { "{\"status\":\"RESOURCE_EXHAUSTED\"}", 429, false },      /* Google */
        { "{\"status\":404}", 404, false },
        { "{\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}", 429, false },
        { "{\"type\":\"something\",\"code\":7}", 500, false },
        { "{\"code\":99999999999999999999}", 500, false },
        { "\"text\"", 500, false },
        { "{}", 500, false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *json = cox_asprintf("{\"error\":%s}", cases[i].error);
        struct chat_answer a = answer(CHAT_COMPLETIONS, json);

        assert_true(a.is_error);
        if (a.error_status != cases[i].status || a.error_is_any != cases[i].is_any)
            fail_msg("%s: %d", json, a.error_status);
        cox_free(json);
    }
    struct chat_answer a =
        answer(CHAT_COMPLETIONS, "{\"error\":\"busy\",\"error_type\":\"overloaded\"}"); /* TGI */
    assert_int_equal(a.error_status, 429);
    a = answer(CHAT_COMPLETIONS,
               "{\"choices\":[{\"delta\":{},\"finish_reason\":\"insufficient_system_resource\"}]}");
    assert_true(a.gave_up && !a.is_error); /* DeepSeek */
    assert_int_equal(a.error_status, 503);
    assert_slice(a.error_message, "insufficient_system_resource");
    a = answer(CHAT_COMPLETIONS, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}");
    assert_int_equal(a.error_status, 0);
}

static void counts_choices_that_are_over(void **state)
{
    struct chat_finished f = { 0 };
    struct chat_answer a;

    (void)state;
    a = answer(CHAT_COMPLETIONS, "{\"choices\":[{\"finish_reason\":\"stop\",\"index\":1},{\"index\":64,"
                                 "\"finish_reason\":\"length\"},{\"index\":0,\"finish_reason\":\"\"},"
                                 "{\"index\":3,\"finish_reason\":null}]}");
    assert_int_equal(chat_finished_count(&a.finished), 2);
    chat_finished_add(&f, &a.finished);
    chat_finished_add(&f, &a.finished); /* said twice, over once */
    assert_int_equal(chat_finished_count(&f), 2);
    a = answer(CHAT_COMPLETIONS,
               "{\"choices\":[{\"finish_reason\":\"stop\"},{\"index\":-1,\"finish_reason\":\"stop\"},"
               "{\"index\":128,\"finish_reason\":\"stop\"}]}");
    chat_finished_add(&f, &a.finished);
    assert_int_equal(chat_finished_count(&f), 5);
}

static void what_is_no_object_is_no_answer(void **state)
{
    static const char *const texts[] = {
        "", "[DONE]", "[]", "null", "{", "{\"a\":1}}", "{\"choices\":[}", "x"
    };
    struct chat_answer a;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        assert_int_equal(chat_answer_read(&reader, CHAT_COMPLETIONS, cox_slice_str(texts[i]), &a),
                         COX_ERR_INVALID);
}

/* ---- ids ---- */

/* The ids of all calls in the order of the text, a comma behind each. */
static void ids_of(struct cox_slice json, struct cox_buf *out)
{
    json_t *root = json_loadb((const char *)json.data, json.len, 0, NULL), *choice, *call;
    size_t i, k;

    assert_non_null(root);
    json_array_foreach(json_object_get(root, "choices"), i, choice)
    {
        json_t *message = json_object_get(choice, "message");

        message = message ? message : json_object_get(choice, "delta");
        json_array_foreach(json_object_get(message, "tool_calls"), k, call)
        {
            const char *id = json_string_value(json_object_get(call, "id"));

            cox_buf_printf(out, "%s,", id ? id : "-");
        }
    }
    json_decref(root);
}

static void mended(const char *json, uint64_t seed, struct cox_buf *ids)
{
    struct cox_buf out = { 0 };
    struct chat_answer a = answer(CHAT_COMPLETIONS, json);

    assert_true(a.ids_missing);
    chat_answer_mend(cox_slice_str(json), seed, &out);
    a = answer(CHAT_COMPLETIONS, cox_buf_cstr(&out));
    assert_false(a.ids_missing);
    cox_buf_clear(ids);
    ids_of(cox_buf_slice(&out), ids);
    cox_buf_fini(&out);
}

static void supplies_ids_that_agree(void **state)
{
    static const char *const spellings[] = {
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"name\":\"f\",\"arguments\":"
        "\"\"}}]}}]}",
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":null,\"index\":1,\"function\":{\"name\":\"f\"}}]}}"
        "]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\" : \"\" "
        ",\"function\":{\"name\":\"f\"}}]}}]}",
    };
    struct cox_buf first = { 0 }, ids = { 0 };
    struct cox_slice each[4];

    (void)state;
    mended(spellings[0], 7, &first);
    assert_int_equal(first.len, 5 + 24 + 1);
    assert_memory_equal(first.data, "call_", 5);
    for (size_t i = 1; i < ARRAY_LEN(spellings); i++) {
        mended(spellings[i], 7, &ids);
        assert_string_equal(cox_buf_cstr(&ids), cox_buf_cstr(&first));
    }
    mended(spellings[0], 8, &ids);
    assert_string_not_equal(cox_buf_cstr(&ids), cox_buf_cstr(&first));

    /* Each its own, what has one keeps it. */
    mended("{\"choices\":[{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\"}},"
           "{\"id\":\"mine\",\"function\":{\"name\":\"g\"}},{\"function\":{\"name\":\"f\"}}]}},"
           "{\"index\":1,\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}}]}",
           7, &ids);
    for (size_t i = 0, at = 0; i < ARRAY_LEN(each); i++, at++) {
        each[i] = cox_slice(ids.data + at, 0);
        for (; ids.data[at] != ','; at++)
            each[i].len++;
    }
    assert_slice(each[1], "mine");
    assert_false(cox_slice_eq(each[0], each[2]) || cox_slice_eq(each[0], each[3]) ||
                 cox_slice_eq(each[2], each[3]));
    cox_buf_fini(&first);
    cox_buf_fini(&ids);
}

static void pieces_of_a_call_need_no_id(void **state)
{
    struct chat_answer a =
        answer(CHAT_COMPLETIONS, "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":"
                                 "{\"arguments\":\"{\\\"a\\\"\"}}]}}]}");

    (void)state;
    assert_true(a.has_content && !a.ids_missing);
    a = answer(CHAT_COMPLETIONS,
               "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":null,\"function\":"
               "{\"name\":null,\"arguments\":\"x\"}}]}}]}");
    assert_false(a.ids_missing);
    a = answer(CHAT_COMPLETIONS, "{\"choices\":[{\"delta\":{\"tool_calls\":null,\"content\":\"\"}}]}");
    assert_true(!a.has_content && !a.ids_missing);
}

static void writes_errors(void **state)
{
    struct cox_buf out = { 0 };

    (void)state;
    chat_put_error(&out, "no \"such\" model", "invalid_request_error", NULL, "model_not_found");
    assert_string_equal(cox_buf_cstr(&out), "{\"error\":{\"message\":\"no \\\"such\\\" model\","
                                            "\"type\":\"invalid_request_error\",\"param\":null,"
                                            "\"code\":\"model_not_found\"}}");
    cox_buf_fini(&out);
    chat_reader_fini(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_chat),
        cmocka_unit_test(reads_prompts_and_inputs),
        cmocka_unit_test(counts_the_choices_to_come),
        cmocka_unit_test(counts_images_apart),
        cmocka_unit_test(many_messages_are_all_there),
        cmocka_unit_test(refusals_name_the_member),
        cmocka_unit_test(is_too_deep),
        cmocka_unit_test(rewrites_what_is_ours_and_nothing_else),
        cmocka_unit_test(reads_whole_answers),
        cmocka_unit_test(reads_pieces_of_streams),
        cmocka_unit_test(reads_usage_in_other_words),
        cmocka_unit_test(finds_errors_in_band),
        cmocka_unit_test(knows_whose_fault_an_error_is),
        cmocka_unit_test(counts_choices_that_are_over),
        cmocka_unit_test(what_is_no_object_is_no_answer),
        cmocka_unit_test(supplies_ids_that_agree),
        cmocka_unit_test(pieces_of_a_call_need_no_id),
        cmocka_unit_test(writes_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
