/* Values of model steps that are too large for a message: outputs that are stored, and what requests refer
 * to; between an engine, a router and a blob service that are played here. */
#include "model_steps_fixture.h"

#include "orchestrator/inference/step_input.h"

#include <openssl/evp.h>

/* ---------------------------------------------------------------- outputs */

/* An answer of so many bytes, without its end. */
static void say_much(size_t i, size_t len)
{
    struct cox_buf event = { 0 };

    head(i, 200, true);
    cox_buf_append_str(&event, "data: {\"choices\":[{\"delta\":{\"content\":\"");
    memset(cox_buf_extend(&event, len), 'x', len);
    cox_buf_append_str(&event, "\"}}]}\n\n");
    r.calls[i].sink->on_data(r.calls[i].user, cox_buf_slice(&event));
    cox_buf_fini(&event);
}

static void expect_stored(struct steps_call *c, const char *tenant)
{
    uint8_t hash[32];
    char name[COX_HASH_TEXT_MAX];
    struct cox_buf expected = { 0 };
    struct cox_hash h;

    assert_string_equal(cox_buf_cstr(&c->path), "/coxswain.v1.BlobService/PutBlob");
    assert_string_equal(cox_buf_cstr(&c->tenant), tenant);
    assert_int_equal(c->put.size, c->received.len);
    assert_int_equal(EVP_Digest(c->received.data, c->received.len, hash, NULL, EVP_sha256(), NULL), 1);
    memcpy(h.b, hash, sizeof(hash));
    cox_hash_format(&h, name);
    assert_string_equal(cox_buf_cstr(&c->hash), name);
    assert_string_equal(cox_buf_cstr(&e.blob), name);
    cox_buf_printf(&expected, "{\"$blob\":\"%s\",\"size\":%zu}", name, c->received.len);
    assert_string_equal(cox_buf_cstr(&e.output), cox_buf_cstr(&expected));
    cox_buf_fini(&expected);
}

static void test_an_output_beyond_a_megabyte_is_stored(void **state)
{
    (void)state;
    begin();
    assign_as(1, SPEC, 0, "acme");
    UNTIL(r.n_calls == 1);
    say_much(0, 5u << 20);
    stop(0);
    UNTIL(b.n_calls == 1 || e.n_results == 1);
    assert_int_equal(e.n_results, 0);
    read_all(&b.calls[0]);
    answer_put(&b.calls[0]);
    UNTIL(e.n_results == 1);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    expect_stored(&b.calls[0], "acme");
    assert_int_equal(b.calls[0].received.data[0], '{');
    assert_int_equal(e.usage.output_tokens, 7);
    end();
}

static void test_what_fits_is_not_stored(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    say_much(0, 1000000);
    stop(0);
    UNTIL(e.n_results == 1);
    assert_int_equal(b.n_calls, 0);
    assert_true(e.output.len > 1000000);
    end();
}

static void test_an_items_output_beyond_64_kib_is_stored(void **state)
{
    (void)state;
    begin();
    as_item = true;
    assign(1, SPEC);
    as_item = false;
    UNTIL(r.n_calls == 1);
    say_much(0, 70000);
    stop(0);
    UNTIL(b.n_calls == 1 || e.n_results == 1);
    read_all(&b.calls[0]);
    answer_put(&b.calls[0]);
    UNTIL(e.n_results == 1);
    assert_int_equal(e.item_status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    expect_stored(&b.calls[0], "default");
    end();
}

static void test_an_output_that_cannot_be_stored_is_none(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    say_much(0, 2u << 20);
    stop(0);
    UNTIL(b.n_calls == 1 || e.n_results == 1);
    close_call(&b.calls[0], COX_CODE_UNAVAILABLE, "less than --min-free is left");
    UNTIL(e.n_results == 1);
    expect_failure(COX_CODE_UNAVAILABLE, "cannot store the answer: less than --min-free");
    assert_int_equal(e.usage.output_tokens, 7);
    end();
}

static void cancel(uint64_t counter)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__AttemptRef *all[] = { ref(counter) };

    m.cancels = all;
    m.n_cancels = 1;
    tell(&m);
}

static void test_a_cancel_stops_what_is_stored(void **state)
{
    (void)state;
    begin();
    assign(1, SPEC);
    UNTIL(r.n_calls == 1);
    say_much(0, 2u << 20);
    stop(0);
    UNTIL(b.n_calls == 1 || e.n_results == 1);
    cancel(1);
    UNTIL(e.n_results == 1);
    assert_true(b.calls[0].dropped);
    expect_failure(COX_CODE_CANCELLED, "");
    assign(2, SPEC); /* and at the end nothing is dropped any more: the port has gone */
    UNTIL(r.n_calls == 2);
    say_much(1, 2u << 20);
    stop(1);
    UNTIL(b.n_calls == 2 || e.n_results == 2);
    end();
    assert_false(b.calls[1].dropped);
}

/* ---------------------------------------------------------------- requests */

#define HASH_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define REF_A "{\"$blob\":\"" HASH_A "\",\"size\":9}"
#define REF_B "{\"$blob\":\"" HASH_B "\"}"
#define TEXT_A "\"{\\\"$blob\\\":\\\"" HASH_A "\\\",\\\"size\\\":9}\""

/* Of the newest; the order of those that begin together is nobody's business. */
static struct steps_call *asked_for(const char *hash)
{
    size_t i = b.n_calls;

    while (i-- > 0)
        if (strcmp(cox_buf_cstr(&b.calls[i].hash), hash) == 0)
            return &b.calls[i];
    fail_msg("nobody asked for %s", hash);
    return NULL;
}

static void test_what_a_request_refers_to_is_fetched(void **state)
{
    (void)state;
    begin();
    assign_as(1,
              "{\"request\":{\"model\":\"m\",\"messages\":[" REF_A ",{\"role\":\"user\",\"content\":" REF_B
              "},{\"role\":\"user\",\"content\":" TEXT_A "}]}}",
              0, "acme");
    UNTIL(b.n_calls == 2 || r.n_calls == 1); /* each once */
    assert_int_equal(r.n_calls, 0);
    assert_string_equal(cox_buf_cstr(&b.calls[0].path), "/coxswain.v1.BlobService/GetBlob");
    assert_string_equal(cox_buf_cstr(&b.calls[0].tenant), "acme");
    answer_get(asked_for(HASH_B), "say \"hi\"\n");
    answer_get(asked_for(HASH_A), " [{\"role\":\"system\"},1] ");
    UNTIL(r.n_calls == 1);
    assert_string_equal(
        cox_buf_cstr(&r.calls[0].body),
        "{\"stream\":true,\"model\":\"m\",\"messages\":[{\"role\":\"system\"},1,{\"role\":\"user\","
        "\"content\":\"say \\\"hi\\\"\\n\"},{\"role\":\"user\",\"content\":\" "
        "[{\\\"role\\\":\\\"system\\\"},1] \"}]}");
    end();
}

static void test_what_cannot_be_fetched_fails_the_step(void **state)
{
    const char *spec = "{\"request\":{\"model\":\"m\",\"messages\":[" REF_A "," REF_B "]}}";

    (void)state;
    begin();
    assign(1, spec);
    UNTIL(b.n_calls == 2 || r.n_calls > 0);
    close_call(asked_for(HASH_A), COX_CODE_INPUT_INVALID, "no blob");
    UNTIL(e.n_results == 1);
    assert_true(asked_for(HASH_B)->dropped);
    expect_failure(COX_CODE_INPUT_INVALID, "cannot fetch " HASH_A ", which the request refers to: no blob");
    assign(2, spec);
    UNTIL(b.n_calls == 4 || r.n_calls > 0);
    answer_get(asked_for(HASH_A), "[1,");
    answer_get(asked_for(HASH_B), "[]");
    UNTIL(e.n_results == 2);
    expect_failure(COX_CODE_INPUT_INVALID, "refers to " HASH_A ", which is not JSON");
    assign(3, spec);
    UNTIL(b.n_calls == 6 || r.n_calls > 0);
    cancel(3);
    UNTIL(e.n_results == 3);
    expect_failure(COX_CODE_CANCELLED, "");
    assert_true(b.calls[4].dropped && b.calls[5].dropped);
    assert_int_equal(r.n_calls, 0);
    end();
}

static void test_a_request_has_an_end(void **state)
{
    struct cox_buf much = { 0 };

    (void)state;
    memset(cox_buf_extend(&much, (17u << 20) + 1), 'x', 17u << 20);
    much.data[17u << 20] = 0;
    begin();
    assign(1, "{\"request\":{\"model\":\"m\",\"messages\":[{\"content\":" REF_A "}]}}");
    UNTIL(b.n_calls == 1 || r.n_calls > 0);
    answer_get(&b.calls[0], (const char *)much.data);
    UNTIL(e.n_results == 1);
    assert_true(b.calls[0].dropped);
    expect_failure(COX_CODE_INPUT_INVALID, "too long for a request");
    cox_buf_fini(&much);
    end();
}

#define TALK(request, said) "{\"conversation\":{\"request\":" request ",\"tools\":[],\"said\":[" said "]}}"
#define BEGUN "{\"request\":{\"model\":\"m\",\"messages\":[" REF_B "]}}"

/* The first request is fetched, then what it refers to, then what was said; with the next turn only what is
 * new; and of what a tool has said nothing but what the engine has put aside. */
static void test_a_turn_fetches_what_it_adds(void **state)
{
    (void)state;
    begin();
    assign_as(1, TALK(REF_A, "{\"result\":" REF_B ",\"id\":\"x\"}"), 0, "acme");
    UNTIL(b.n_calls == 1 || r.n_calls > 0);
    assert_string_equal(cox_buf_cstr(&b.calls[0].tenant), "acme");
    answer_get(asked_for(HASH_A), BEGUN);
    UNTIL(b.n_calls == 2 || r.n_calls > 0);
    answer_get(asked_for(HASH_B), "[{\"role\":\"user\",\"content\":" TEXT_A "}]");
    UNTIL(r.n_calls == 1);
    assert_string_equal(
        cox_buf_cstr(&r.calls[0].body),
        "{\"stream\":true,\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":" TEXT_A
        "},{\"role\":\"tool\",\"tool_call_id\":\"x\",\"content\":\"{\\\"$blob\\\":\\\"" HASH_B "\\\"}\"}]}");
    assign_as(2, TALK(REF_A, "{\"result\":" REF_B ",\"kept\":true,\"id\":\"y\"}"), 0, "acme");
    UNTIL(b.n_calls == 3 || r.n_calls > 1);
    answer_get(&b.calls[2], "\"seen\"");
    UNTIL(r.n_calls == 2);
    assign_as(3, TALK(REF_A, "{\"result\":" REF_B ",\"kept\":true,\"id\":\"z\"}"), 0, "acme");
    UNTIL(r.n_calls == 3 || b.n_calls > 3);
    assert_int_equal(b.n_calls, 3);
    assert_string_equal(
        cox_buf_cstr(&r.calls[2].body),
        "{\"stream\":true,\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":" TEXT_A
        "},{\"role\":\"tool\",\"tool_call_id\":\"z\",\"content\":\"seen\"}]}");
    assign_as(4, TALK(REF_A, ""), 0, "other"); /* what one tenant has said is nothing to another */
    UNTIL(b.n_calls == 4 || r.n_calls > 3);
    assert_int_equal(r.n_calls, 3);
    assert_string_equal(cox_buf_cstr(&b.calls[3].tenant), "other");
    end();
}

static void test_a_turn_that_cannot_be_put_together_fails(void **state)
{
    struct cox_buf much = { 0 };
    unsigned n = 0;

    (void)state;
    cox_buf_append_str(&much, "\"");
    memset(cox_buf_extend(&much, 9u << 20), 'x', 9u << 20);
    cox_buf_append_str(&much, "\"");
    begin();
    assign(++n, TALK("{\"request\":{\"model\":\"m\"}}", "{\"text\":" REF_A ",\"kept\":true}"));
    UNTIL(b.n_calls == 1 || r.n_calls > 0);
    close_call(asked_for(HASH_A), COX_CODE_UNAVAILABLE, "it is gone");
    UNTIL(e.n_results == n);
    expect_failure(COX_CODE_UNAVAILABLE, "cannot fetch " HASH_A);
    assign(++n, TALK("{\"request\":{\"model\":\"m\"}}", "{\"text\":" REF_A ",\"kept\":true}"));
    UNTIL(b.n_calls == 2 || r.n_calls > 0);
    answer_get(&b.calls[1], "{}");
    UNTIL(e.n_results == n);
    expect_failure(COX_CODE_INTERNAL, "what was said so far is damaged");
    assign(++n, TALK(REF_A, ""));
    UNTIL(b.n_calls == 3 || r.n_calls > 0);
    answer_get(&b.calls[2], "{\"request\":1}");
    UNTIL(e.n_results == n);
    expect_failure(COX_CODE_INTERNAL, "what was said so far is damaged");
    assign(++n, "{\"conversation\":[]}");
    UNTIL(e.n_results == n);
    expect_failure(COX_CODE_INTERNAL, "what was said so far is damaged");
    /* the same 9 MiB twice is more than a model is asked with, though it is fetched once */
    assign(++n, TALK("{\"request\":{\"model\":\"m\"}}", "{\"result\":" REF_A ",\"kept\":true,\"id\":\"a\"}"));
    UNTIL(b.n_calls == 4 || r.n_calls > 0);
    answer_get(&b.calls[3], cox_buf_cstr(&much));
    UNTIL(r.n_calls == 1);
    assign(++n, TALK("{\"request\":{\"model\":\"m\"}}",
                     "{\"result\":" REF_A ",\"kept\":true,\"id\":\"a\"},{\"result\":" REF_A
                     ",\"kept\":true,\"id\":\"b\"}"));
    UNTIL(e.n_results == n - 1 || b.n_calls > 4);
    assert_int_equal(b.n_calls, 4);
    expect_failure(COX_CODE_CONTEXT_LENGTH, "more than 16 MiB by its part 4 of 4");
    assert_int_equal(r.n_calls, 1);
    cox_buf_fini(&much);
    end();
}

static void test_a_cancel_stops_a_turns_fetching(void **state)
{
    (void)state;
    begin();
    assign(1, TALK(REF_A, "{\"text\":" REF_B ",\"kept\":true}"));
    UNTIL(b.n_calls == 1 || r.n_calls > 0);
    answer_get(asked_for(HASH_A), "{\"request\":{\"model\":\"m\"}}");
    UNTIL(b.n_calls == 2 || r.n_calls > 0);
    cancel(1);
    UNTIL(e.n_results == 1);
    expect_failure(COX_CODE_CANCELLED, "");
    assert_true(b.calls[1].dropped);
    assign(2, TALK(REF_A, "{\"text\":" REF_B ",\"kept\":true}"));
    UNTIL(b.n_calls == 3 || r.n_calls > 0);
    end(); /* while it is fetched */
}

static void put(const char *request, const char *a, const char *b_bytes, const char *expected)
{
    struct step_input in = { 0 };
    struct cox_buf out = { 0 }, why = { 0 };

    assert_int_equal(step_input_find(&in, cox_slice_str(request)), COX_OK);
    for (uint32_t i = 0; i < in.n_refs; i++)
        if (in.refs[i].first == i)
            cox_buf_append_str(&in.refs[i].bytes, in.refs[i].hash.b[0] == 0xaa ? a : b_bytes);
    assert_int_equal(step_input_put(&in, cox_slice_str(request), &out, &why),
                     expected ? COX_OK : COX_ERR_INVALID);
    if (expected)
        assert_string_equal(cox_buf_cstr(&out), expected);
    else
        assert_true(why.len > 0);
    step_input_fini(&in);
    cox_buf_fini(&out);
    cox_buf_fini(&why);
}

static void test_values_take_the_places_of_their_names(void **state)
{
    (void)state;
    put("{\"messages\":[1,2]}", "", "", "{\"messages\":[1,2]}");
    put("{\"messages\":" REF_A "}", "[1, 2]", "", "{\"messages\":[1, 2]}");
    put("{\"tools\":" REF_A ",\"x\":{\"y\":[" REF_B "]}}", "[1]", "{\"z\":null}",
        "{\"tools\":[1],\"x\":{\"y\":[{\"z\":null}]}}");
    /* a list of messages becomes several, or none */
    put("{\"messages\":[" REF_A "]}", "[1,2]", "", "{\"messages\":[1,2]}");
    put("{\"messages\":[" REF_A "]}", "{\"role\":1}", "", "{\"messages\":[{\"role\":1}]}");
    put("{\"messages\":[" REF_A "]}", "[]", "", "{\"messages\":[]}");
    put("{\"messages\":[0, " REF_A "]}", " [ ] ", "", "{\"messages\":[0]}");
    put("{\"messages\":[" REF_A " , " REF_B " , 0]}", "[]", "[]", "{\"messages\":[  0]}");
    put("{\"messages\":[0," REF_A "," REF_B "," REF_A ",1]}", "[]", "[7]", "{\"messages\":[0,7,1]}");
    /* text, wherever in a message; and only there is a string a name */
    put("{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":" TEXT_A "}]}]}", "1", "",
        "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"1\"}]}]}");
    put("{\"messages\":[{\"tool_calls\":[{\"function\":{\"arguments\":" TEXT_A "}}]}]}", "1", "",
        "{\"messages\":[{\"tool_calls\":[{\"function\":{\"arguments\":" TEXT_A "}}]}]}");
    put("{\"user\":" TEXT_A "}", "1", "", "{\"user\":" TEXT_A "}");
    /* what is no name stays */
    put("{\"messages\":[{\"content\":\"$blob\"},{\"content\":{\"$blob\":\"sha256:12\"}}]}", "", "",
        "{\"messages\":[{\"content\":\"$blob\"},{\"content\":{\"$blob\":\"sha256:12\"}}]}");
    /* what does not fit its place */
    put("{\"messages\":[" REF_A "]}", "no", "", NULL);
    put("{\"x\":" REF_A "}", "", "", NULL);
    put("{\"messages\":[{\"content\":" REF_A "}]}", "\xff", "", NULL);
}

static void test_a_request_refers_to_so_many_values(void **state)
{
    struct step_input in = { 0 };
    struct cox_buf request = { 0 };

    (void)state;
    cox_buf_append_str(&request, "{\"messages\":[" REF_A);
    for (unsigned i = 1; i < STEP_INPUT_REFS_MAX; i++)
        cox_buf_append_str(&request, "," REF_A);
    cox_buf_append_str(&request, "]}");
    assert_int_equal(step_input_find(&in, cox_buf_slice(&request)), COX_OK);
    assert_int_equal(in.n_refs, STEP_INPUT_REFS_MAX);
    step_input_fini(&in);
    request.len -= 2;
    cox_buf_append_str(&request, "," REF_A "]}");
    assert_int_equal(step_input_find(&in, cox_buf_slice(&request)), COX_ERR_FULL);
    step_input_fini(&in);
    cox_buf_fini(&request);
}

/* ---------------------------------------------------------------- together */

static void test_all_answers_together_have_a_bound(void **state)
{
    (void)state;
    begin_with(1u << 20);
    assign(1, SPEC);
    assign(2, SPEC);
    assign(3, SPEC);
    UNTIL(r.n_calls == 3);
    say_much(0, 900u << 10);
    say_much(1, 60u << 10); /* small ones do not count */
    say_much(2, 300u << 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(event_base_loop(e.base, EVLOOP_NONBLOCK), 0);
    assert_true(r.calls[2].cancelled);
    assert_false(r.calls[0].cancelled || r.calls[1].cancelled);
    finish(2, ROUTER_CANCELLED, NULL);
    UNTIL(e.n_results == 1);
    expect_failure(COX_CODE_UNAVAILABLE, "of all model steps under way have more than 1 MiB");
    stop(1);
    UNTIL(e.n_results == 2);
    stop(0);
    UNTIL(e.n_results == 3);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    assign(4, SPEC); /* what they held is free again */
    UNTIL(r.n_calls == 4);
    say_much(3, 900u << 10);
    stop(3);
    UNTIL(e.n_results == 4);
    assert_int_equal(e.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_output_beyond_a_megabyte_is_stored),
        cmocka_unit_test(test_what_fits_is_not_stored),
        cmocka_unit_test(test_an_items_output_beyond_64_kib_is_stored),
        cmocka_unit_test(test_an_output_that_cannot_be_stored_is_none),
        cmocka_unit_test(test_a_cancel_stops_what_is_stored),
        cmocka_unit_test(test_what_a_request_refers_to_is_fetched),
        cmocka_unit_test(test_what_cannot_be_fetched_fails_the_step),
        cmocka_unit_test(test_a_request_has_an_end),
        cmocka_unit_test(test_a_turn_fetches_what_it_adds),
        cmocka_unit_test(test_a_turn_that_cannot_be_put_together_fails),
        cmocka_unit_test(test_a_cancel_stops_a_turns_fetching),
        cmocka_unit_test(test_values_take_the_places_of_their_names),
        cmocka_unit_test(test_a_request_refers_to_so_many_values),
        cmocka_unit_test(test_all_answers_together_have_a_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
