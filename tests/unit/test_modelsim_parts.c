/* What a request to the simulated server asks, what it is answered, scripts and faults: read and refused. */
#include "ask.h"
#include "fault.h"
#include "reply.h"
#include "script.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include "check.h"

#include <string.h>

static const struct reply_config replies = { .seed = 1, .output_tokens = 40, .tool_turns = 1 };

static void read_ask(struct ask *a, enum ask_api api, const char *body)
{
    const char *error = NULL, *param = NULL;

    if (ask_read(a, api, cox_slice_str(body), &error, &param) != COX_OK)
        fail_msg("%s: %s: %s", body, param ? param : "", error);
}

static void test_wrong_requests_are_refused_with_their_member(void **state)
{
    static const struct {
        enum ask_api api;
        const char *body, *param;
    } cases[] = {
        { ASK_CHAT, "", NULL },
        { ASK_CHAT, "[]", NULL },
        { ASK_CHAT, "{}", "messages" },
        { ASK_CHAT, "{\"messages\":[]}", "messages" },
        { ASK_CHAT, "{\"messages\":[{\"content\":\"x\"}]}", "messages" },
        { ASK_CHAT, "{\"messages\":[{\"role\":\"user\"}],\"n\":0}", "n" },
        { ASK_CHAT, "{\"messages\":[{\"role\":\"user\"}],\"n\":129}", "n" },
        { ASK_CHAT, "{\"messages\":[{\"role\":\"user\"}],\"max_tokens\":-1}", "max_tokens" },
        { ASK_CHAT, "{\"messages\":[{\"role\":\"user\"}],\"max_completion_tokens\":1.5}",
          "max_completion_tokens" },
        { ASK_TEXT, "{}", "prompt" },
        { ASK_TEXT, "{\"prompt\":[]}", "prompt" },
        { ASK_TEXT, "{\"prompt\":[{}]}", "prompt" },
        { ASK_EMBEDDINGS, "{\"input\":7}", "input" },
        { ASK_EMBEDDINGS, "{\"input\":\"x\",\"dimensions\":0}", "dimensions" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *error = NULL, *param = NULL;
        struct ask a;

        assert_int_equal(ask_read(&a, cases[i].api, cox_slice_str(cases[i].body), &error, &param),
                         COX_ERR_INVALID);
        assert_non_null(error);
        if (cases[i].param)
            assert_string_equal(param, cases[i].param);
        else
            assert_null(param);
        ask_fini(&a);
    }
}

static void test_a_turn_goes_on_where_the_last_ended(void **state)
{
    static const char first[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"be\"},{\"role\":\"user\",\"content\":\"x\"}]}";
    static const char second[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"be\"},{\"role\":\"user\",\"content\":[{\"type\":"
        "\"text\",\"text\":\"x\"}]},{\"role\":\"assistant\",\"content\":\"ye\\u0073\",\"tool_calls\":[{"
        "\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\","
        "\"content\":\"7\"}]}";
    struct ask a, b;

    (void)state;
    read_ask(&a, ASK_CHAT, first);
    read_ask(&b, ASK_CHAT, second);
    ask_put_text(&a.prompts[0], cox_slice_str("yes"));
    ask_put_tool_call(&a.prompts[0], cox_slice_str("f"), cox_slice_str("{}"));
    assert_true(a.prompts[0].len < b.prompts[0].len);
    assert_memory_equal(a.prompts[0].data, b.prompts[0].data, a.prompts[0].len);
    assert_int_equal(a.turn, 1);
    assert_int_equal(b.turn, 2);
    assert_int_equal(b.tool_results, 1);
    assert_string_equal(cox_buf_cstr(&b.last), "7");
    ask_fini(&a);
    ask_fini(&b);
}

static void test_blocks_are_chained(void **state)
{
    uint32_t n = 0, m = 0;
    char text[400];

    (void)state;
    memset(text, 'x', sizeof(text));
    uint64_t *a = ask_blocks(cox_slice(text, sizeof(text)), cox_slice_str("m"), 16, &n);
    text[70] = 'y';
    uint64_t *b = ask_blocks(cox_slice(text, sizeof(text)), cox_slice_str("m"), 16, &m);
    assert_int_equal(n, 6);
    assert_int_equal(m, 6);
    assert_true(a[0] == b[0]);
    for (uint32_t i = 1; i < n; i++)
        assert_true(a[i] != b[i]);
    cox_free(b);
    b = ask_blocks(cox_slice(text, 64), cox_slice_str("other"), 16, &m);
    assert_true(a[0] != b[0]);
    cox_free(a);
    cox_free(b);
}

/* Everything comes out, in tokens that are counted rightly, and characters stay whole. */
static void test_tokens_come_out_whole(void **state)
{
    static const char *const texts[] = {
        "", "a", "abcd", "abcde", "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f\xe2\x82\xac", "abc\xf0\x9f\x98\x80"
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct reply r = { .finish = "stop" };
        struct reply_cursor at = { 0 };
        struct reply_piece p;
        struct cox_buf said = { 0 };
        struct ask none = { 0 };
        uint32_t n = 0;

        cox_buf_append_str(&r.text, texts[i]);
        cox_buf_append_str(&reply_add_tool(&r)->name, "f");
        cox_buf_append_str(&r.tools[0].arguments, "{\"a\": 1}");
        reply_close(&r, &none);
        while (reply_next(&r, &at, &p)) {
            n++;
            if (!p.is_tool) {
                assert_true(p.bytes.len > 0 && (p.bytes.data[0] & 0xc0) != 0x80);
                cox_buf_append_slice(&said, p.bytes);
            }
        }
        assert_int_equal(n, r.n_tokens);
        assert_string_equal(cox_buf_cstr(&said), texts[i]);
        cox_buf_fini(&said);
        reply_fini(&r);
    }
}

static void test_replies_obey(void **state)
{
    struct ask a;
    struct reply r, again;

    (void)state;
    read_ask(&a, ASK_TEXT, "{\"prompt\":\"x\",\"max_tokens\":7,\"ignore_eos\":true}");
    reply_make(&r, &replies, &a, cox_buf_slice(&a.prompts[0]), 0);
    reply_make(&again, &replies, &a, cox_buf_slice(&a.prompts[0]), 0);
    assert_int_equal(r.n_tokens, 7);
    assert_true(cox_slice_eq(cox_buf_slice(&r.text), cox_buf_slice(&again.text)));
    reply_fini(&again);
    reply_make(&again, &replies, &a, cox_buf_slice(&a.prompts[0]), 1);
    assert_false(cox_slice_eq(cox_buf_slice(&r.text), cox_buf_slice(&again.text)));
    reply_fini(&again);
    reply_fini(&r);
    ask_fini(&a);

    read_ask(&a, ASK_CHAT,
             "{\"messages\":[{\"role\":\"user\"}],\"response_format\":{\"type\":\"json_schema\",\"json_"
             "schema\":{\"schema\":"
             "{\"$defs\":{\"d\":{\"type\":\"array\",\"minItems\":2,\"items\":{\"enum\":[\"q\"]}}},\"type\":"
             "\"object\","
             "\"properties\":{\"a\":{\"$ref\":\"#/$defs/"
             "d\"},\"b\":{\"type\":[\"integer\",\"null\"],\"minimum\":3}}}}}}");
    reply_make(&r, &replies, &a, cox_buf_slice(&a.prompts[0]), 0);
    assert_string_equal(cox_buf_cstr(&r.text), "{\"a\": [\"q\", \"q\"], \"b\": 3}");
    reply_fini(&r);
    ask_fini(&a);
}

/* A schema that refers to itself ends all the same. */
static void test_schemas_without_end(void **state)
{
    struct cox_buf out = { 0 };

    (void)state;
    reply_put_instance(&out, cox_slice_str("{\"properties\":{\"a\":{\"$ref\":\"#\"}}}"), 1);
    assert_int_equal(cox_json_check(cox_buf_slice(&out), NULL), COX_OK);
    cox_buf_fini(&out);
}

static void test_scripts_are_read_or_refused_with_their_rule(void **state)
{
    static const char *const wrong[] = {
        "a: b: c",
        "7",
        "- {reply: {}}",
        "- {match: {turn: x}, reply: {text: y}}",
        "- {match: {}}",
        "- {reply: {text: x}}\n- {replies: 1}",
        "- {reply: {error: {status: 200}}}",
        "- {reply: {tool_calls: [{}]}}",
        "- {reply: {text: x, delay: long}}",
        "{\"reply\":{\"text\":\"x\"}}\nnonsense",
    };
    struct script *s = NULL;
    struct cox_buf error = { 0 };
    struct ask a;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        cox_buf_clear(&error);
        if (script_parse(cox_slice_str(wrong[i]), &s, &error) == COX_OK)
            fail_msg("taken: %s", wrong[i]);
        assert_true(error.len > 0);
    }
    assert_int_equal(
        script_parse(
            cox_slice_str(
                "{\"match\":{\"turn\":2},\"reply\":{\"text\":\"x\"}}\n\n{\"reply\":{\"delay\":\"2s\"}}\n"),
            &s, &error),
        COX_OK);
    read_ask(&a, ASK_TEXT, "{\"prompt\":\"x\"}");
    assert_int_equal(script_find(s, &a)->delay_ms, 2000);
    a.turn = 2;
    assert_true(script_find(s, &a)->has_text);
    ask_fini(&a);
    script_free(s);
    cox_buf_fini(&error);
}

static void test_faults(void **state)
{
    static const char *const wrong[] = { "",
                                         "[1]",
                                         "{\"kill\":1.5}",
                                         "{\"kill\":-1}",
                                         "{\"kill\":\"x\"}",
                                         "{\"slow\":\"x\"}",
                                         "{\"metrics\":\"odd\"}",
                                         "{\"refuse\":1}",
                                         "{\"nonsense\":1}" };
    struct cox_buf error = { 0 };
    struct faults f, before;
    struct cox_rng rng;
    uint32_t n = 0;

    (void)state;
    faults_init(&f);
    before = f;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_int_equal(faults_read(&f, cox_slice_str(wrong[i]), &error), COX_ERR_INVALID);
        assert_memory_equal(&f, &before, sizeof(f));
    }
    assert_int_equal(faults_read(&f, cox_slice_str("{\"kill\":0.25,\"slow\":2.5,\"refuse\":true}"), &error),
                     COX_OK);
    assert_int_equal(f.slow_permille, 2500);
    cox_rng_init(&rng, 7);
    for (int i = 0; i < 10000; i++)
        n += faults_pick(&f, &rng) == FAULT_KILL;
    assert_in_range(n, 2200, 2800);
    assert_int_equal(faults_read(&f, cox_slice_str("{\"reset\":true,\"hang_first\":true}"), &error), COX_OK);
    assert_int_equal(faults_pick(&f, &rng), FAULT_HANG_FIRST);
    assert_int_equal(f.slow_permille, 1000);
    cox_buf_fini(&error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_requests_are_refused_with_their_member),
        cmocka_unit_test(test_a_turn_goes_on_where_the_last_ended),
        cmocka_unit_test(test_blocks_are_chained),
        cmocka_unit_test(test_tokens_come_out_whole),
        cmocka_unit_test(test_replies_obey),
        cmocka_unit_test(test_schemas_without_end),
        cmocka_unit_test(test_scripts_are_read_or_refused_with_their_rule),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
