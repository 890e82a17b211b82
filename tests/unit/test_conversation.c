/* An agent's turn as a request: what is read of its parts, what each comes to, and what is kept of that. */
#include "check.h"

#include "orchestrator/inference/conversation.h"
#include "orchestrator/inference/said.h"

#include "cox/json.h"

#include <string.h>

#define HASH_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define REF_A "{\"$blob\":\"" HASH_A "\",\"size\":9}"
#define BEGUN                                                                                                \
    "\"request\":{\"request\":{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}"
#define TALK(said) "{" BEGUN ",\"tools\":[],\"said\":[" said "]}"
#define HI "{\"role\":\"user\",\"content\":\"hi\"}"

/* All of it inline. */
static void put(const char *text, uint64_t output_tokens, const char *expected)
{
    struct conversation c = { 0 };
    struct conversation_text texts[8] = { 0 };
    const struct conversation_text *all[8];
    struct cox_buf out = { 0 };

    assert_int_equal(cox_json_check(cox_slice_str(text), NULL), COX_OK);
    assert_int_equal(conversation_read(&c, cox_slice_str(text)), COX_OK);
    assert_true(c.n_parts <= 8);
    for (uint32_t i = 0; i < c.n_parts; i++) {
        assert_false(c.parts[i].is_kept);
        assert_int_equal(conversation_render(c.parts[i].place, c.parts[i].value, &texts[i]), COX_OK);
        all[i] = &texts[i];
    }
    conversation_put(&c, all, output_tokens, &out);
    assert_int_equal(cox_json_check(cox_buf_slice(&out), NULL), COX_OK);
    assert_string_equal(cox_buf_cstr(&out), expected);
    for (uint32_t i = 0; i < c.n_parts; i++)
        cox_buf_fini(&texts[i].bytes);
    cox_buf_fini(&out);
    conversation_fini(&c);
}

#define HEAD "{\"stream\":true,\"model\":\"m\",\"messages\":[" HI

static void test_what_was_said_becomes_messages(void **state)
{
    (void)state;
    put(TALK(""), 0, HEAD "]}");
    put(TALK(
            "{\"answer\":{\"content\":\"well\",\"finish_reason\":\"stop\",\"usage\":{}}},{\"text\":\"and\"}"),
        0, HEAD ",{\"role\":\"assistant\",\"content\":\"well\"},{\"role\":\"user\",\"content\":\"and\"}]}");
    /* without a text: nothing is said beside calls, and something must be without them; calls that nobody has
     * answered are none */
    put(TALK("{\"answer\":{\"content\":null,\"tool_calls\":[{\"id\":\"a\"}]}},{\"result\":1,\"id\":\"a\"},"
             "{\"answer\":{\"tool_calls\":[]}},{\"answer\":{\"content\":\"\",\"tool_calls\":[{\"id\":\"b\"}]}"
             "},"
             "{\"text\":\"no\"}"),
        0,
        HEAD ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"a\"}]},{\"role\":\"tool\","
             "\"tool_call_id\":\"a\",\"content\":\"1\"},{\"role\":\"assistant\",\"content\":\"\"},{\"role\":"
             "\"assistant\","
             "\"content\":\"\"},{\"role\":\"user\",\"content\":\"no\"}]}");
    /* strings as they are, all else as its JSON */
    put(TALK("{\"result\":\"a\\nb\",\"id\":\"x\\\"\"},{\"result\":{\"a\" : [1, \"q\"]},\"id\":\"y\"},"
             "{\"result\":null,\"id\":\"z\"}"),
        0,
        HEAD ",{\"role\":\"tool\",\"tool_call_id\":\"x\\\"\",\"content\":\"a\\nb\"},{\"role\":\"tool\","
             "\"tool_call_id\":\"y\",\"content\":\"{\\\"a\\\":[1,\\\"q\\\"]}\"},{\"role\":\"tool\","
             "\"tool_call_id\":\"z\",\"content\":\"null\"}]}");
}

static void test_what_looks_like_a_reference_is_text(void **state)
{
    (void)state;
    put(TALK("{\"result\":" REF_A ",\"id\":\"x\"},{\"result\":" REF_A ",\"kept\":false,\"id\":\"y\"}"), 0,
        HEAD ",{\"role\":\"tool\",\"tool_call_id\":\"x\",\"content\":\"{\\\"$blob\\\":\\\"" HASH_A
             "\\\",\\\"size\\\":9}\"},{\"role\":\"tool\",\"tool_call_id\":\"y\",\"content\":\"{\\\"$blob\\\":"
             "\\\"" HASH_A "\\\",\\\"size\\\":9}\"}]}");
    put(TALK("{\"answer\":{\"$blob\":\"" HASH_A "\",\"kept\":true}}"), 0,
        HEAD ",{\"role\":\"assistant\",\"content\":\"\"}]}");
}

static void test_a_request_keeps_what_it_asks_for(void **state)
{
    (void)state;
    put("{\"request\":{\"request\":{\"stream\":false,\"messages\":[1],\"model\":\"m\",\"seed\":7,\"tools\":["
        "2]}},"
        "\"tools\":[{\"name\":\"f\",\"step\":3,\"parameters\":{}},{\"name\":\"g\",\"description\":\"G\"}],"
        "\"said\":[]}",
        0,
        "{\"stream\":true,\"model\":\"m\",\"seed\":7,\"messages\":[1],\"tools\":[2,{\"type\":\"function\","
        "\"function\":{\"name\":\"f\",\"parameters\":{}}},{\"type\":\"function\",\"function\":{\"name\":"
        "\"g\","
        "\"description\":\"G\"}}]}");
    put("{\"request\":{\"request\":{\"model\":\"m\",\"max_tokens\":900}},\"tools\":[],\"said\":[]}", 50,
        "{\"stream\":true,\"model\":\"m\",\"max_tokens\":50,\"messages\":[]}");
    put("{\"request\":{\"request\":{\"model\":\"m\"}},\"tools\":[],\"said\":[{\"text\":\"a\"}]}", 50,
        "{\"max_tokens\":50,\"stream\":true,\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":"
        "\"a\"}]}");
}

static void test_references_are_marked(void **state)
{
    struct conversation c = { 0 };
    const char *text = "{\"request\":" REF_A ",\"tools\":" REF_A ",\"said\":[{\"result\":" REF_A
                       ",\"kept\":true,\"id\":\"x\"},{\"text\":\"a\"}]}";

    (void)state;
    assert_int_equal(conversation_read(&c, cox_slice_str(text)), COX_OK);
    assert_int_equal(c.n_parts, 4);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(c.parts[i].is_kept && c.parts[i].hash.b[31] == 0xaa);
    assert_false(c.parts[3].is_kept);
    conversation_fini(&c);
}

static void test_what_is_damaged_is_said(void **state)
{
    static const char *const texts[] = {
        "[]",
        "{}",
        "{\"request\":{},\"tools\":[]}",
        "{\"request\":{},\"tools\":[],\"said\":{}}",
        TALK("{}"),
        TALK("1"),
        TALK("{\"result\":1}"),
        TALK("{\"result\":1,\"id\":2}"),
        TALK("{\"text\":\"a\",\"kept\":true}"),
        TALK("{\"text\":{\"$blob\":\"sha256:12\"},\"kept\":true}"),
    };
    struct conversation_text out;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct conversation c = { 0 };

        assert_int_equal(conversation_read(&c, cox_slice_str(texts[i])), COX_ERR_INVALID);
        conversation_fini(&c);
    }
    assert_int_equal(conversation_render(CONVERSATION_REQUEST, cox_slice_str("{}"), &out), COX_ERR_INVALID);
    assert_int_equal(conversation_render(CONVERSATION_TOOLS, cox_slice_str("{}"), &out), COX_ERR_INVALID);
    assert_int_equal(conversation_render(CONVERSATION_ANSWER, cox_slice_str("\"a\""), &out), COX_ERR_INVALID);
    assert_int_equal(conversation_render(CONVERSATION_TEXT, cox_slice_str("1"), &out), COX_ERR_INVALID);
}

/* ---------------------------------------------------------------- kept */

static struct conversation_part part_of(enum conversation_place place, uint8_t name)
{
    struct conversation_part p = { .place = place, .is_kept = true };

    memset(p.hash.b, name, sizeof(p.hash.b));
    return p;
}

static struct said *add(struct said_cache *c, const char *tenant, struct conversation_part part, size_t len)
{
    struct conversation_text text = { 0 };

    memset(cox_buf_extend(&text.bytes, len), 'x', len);
    return said_add(c, cox_slice_str(tenant), &part, &text);
}

static struct said *find(struct said_cache *c, const char *tenant, struct conversation_part part)
{
    return said_find(c, cox_slice_str(tenant), &part);
}

static void test_a_tenants_texts_are_its_own(void **state)
{
    struct conversation_part result = part_of(CONVERSATION_RESULT, 1);
    struct said_cache c;
    struct said *s;

    (void)state;
    said_cache_init(&c, 1u << 20);
    s = add(&c, "a", result, 100);
    said_release(&c, s);
    assert_ptr_equal(find(&c, "a", result), s);
    said_release(&c, s);
    assert_null(find(&c, "b", result));
    assert_null(find(&c, "", result));
    assert_null(find(&c, "a", part_of(CONVERSATION_TEXT, 1)));
    assert_null(find(&c, "a", part_of(CONVERSATION_RESULT, 2)));
    said_cache_fini(&c);
}

static void test_the_least_recently_used_goes_and_the_used_stays(void **state)
{
    struct said_cache c;
    struct said *used, *s;

    (void)state;
    said_cache_init(&c, 100u << 10);
    used = add(&c, "a", part_of(CONVERSATION_TEXT, 0), 10u << 10);
    for (uint8_t i = 1; i < 100; i++) {
        said_release(&c, add(&c, "a", part_of(CONVERSATION_TEXT, i), 10u << 10));
        assert_true(c.len <= c.len_max);
        if ((s = find(&c, "a", part_of(CONVERSATION_TEXT, 1))) != NULL)
            said_release(&c, s); /* used with each */
        assert_non_null(s);
    }
    assert_null(find(&c, "a", part_of(CONVERSATION_TEXT, 2)));
    assert_ptr_equal(find(&c, "a", part_of(CONVERSATION_TEXT, 0)), used);
    said_release(&c, used);
    s = add(&c, "a", part_of(CONVERSATION_TEXT, 200), 200u << 10); /* there is no room for it at all */
    assert_int_equal(s->text.bytes.len, 200u << 10);
    assert_null(find(&c, "a", part_of(CONVERSATION_TEXT, 200)));
    said_release(&c, s);
    assert_true(c.len > 0);
    said_release(&c, used);
    said_cache_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_said_becomes_messages),
        cmocka_unit_test(test_what_looks_like_a_reference_is_text),
        cmocka_unit_test(test_a_request_keeps_what_it_asks_for),
        cmocka_unit_test(test_references_are_marked),
        cmocka_unit_test(test_what_is_damaged_is_said),
        cmocka_unit_test(test_a_tenants_texts_are_its_own),
        cmocka_unit_test(test_the_least_recently_used_goes_and_the_used_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
