/* The router: what becomes of a call, with model servers that do what a test tells them. */
#include "router_fixture.h"

#define ASK "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"
#define ASK_STREAM                                                                                           \
    "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"
#define ASK_USAGE                                                                                            \
    "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"                          \
    "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"
#define URL "{\"url\":\"http://127.0.0.1:%d/v1\"}"
#define ONE                                                                                                  \
    "[{\"name\":\"m\",\"price\":{\"input\":1,\"output\":2,\"currency\":\"USD\"},\"endpoints\":[" URL "]}]"
#define TWO "[{\"name\":\"m\",\"endpoints\":[" URL "," URL "]}]"

static const struct line good[] = { { NULL, KEEP, 0 } };
static const struct line good_stream[] = {
    { HEAD_STREAM ROLE_EVENT TEXT_EVENT STOP_EVENT USAGE_EVENT DONE_EVENT, CLOSE, 0 }
};

static struct world *one(const struct line *lines, size_t n)
{
    struct world *w = world_begin(NULL);

    server_start(w, &w->servers[0], lines, n);
    world_models(w, ONE);
    return w;
}

/* The first call goes to the first server: nothing tells them apart yet, so the test finds out which it was.
 */
static struct world *two(const struct line *first, size_t n, const struct upstream_timeouts *timeouts)
{
    struct world *w = world_begin(timeouts);

    server_start(w, &w->servers[0], first, n);
    server_start(w, &w->servers[1], first, n);
    world_models(w, TWO);
    return w;
}

static size_t n_requests(const struct world *w)
{
    return w->servers[0].n_requests + w->servers[1].n_requests + w->servers[2].n_requests;
}

static void done(struct world *w, struct heard *h)
{
    heard_fini(h);
    world_end(w);
}

static void test_whole_answer(void **state)
{
    struct world *w = one(good, 1);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_int_equal(h.status, 200);
    assert_string_equal(cox_buf_cstr(&h.data), WHOLE_BODY);
    assert_int_equal(h.n_answers, 1);
    assert_int_equal(h.books.input_tokens, 100);
    assert_int_equal(h.books.output_tokens, 7);
    assert_int_equal(h.books.cached_tokens, 40);
    assert_int_equal(h.books.wasted_tokens, 0);
    assert_int_equal(h.books.tries, 1);
    assert_false(h.books.estimated);
    assert_string_equal(h.books.currency, "USD");
    assert_int_equal(h.books.cost_micros, 114); /* at 1 and 2 a million tokens */
    done(w, &h);
}

static void test_stream_goes_through_as_it_is(void **state)
{
    struct world *w = one(good_stream, 1);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK_USAGE);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_true(h.is_stream);
    assert_string_equal(cox_buf_cstr(&h.data), ROLE_EVENT TEXT_EVENT STOP_EVENT USAGE_EVENT DONE_EVENT);
    done(w, &h);
}

static void test_usage_is_asked_for_and_kept_from_who_did_not(void **state)
{
    struct world *w = one(good_stream, 1);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK_STREAM);
    AWAIT(w, h.over);
    assert_string_equal(cox_buf_cstr(&h.data), ROLE_EVENT TEXT_EVENT STOP_EVENT DONE_EVENT);
    assert_int_equal(h.books.input_tokens, 100);
    assert_non_null(strstr(cox_buf_cstr(&w->servers[0].last), "include_usage"));
    done(w, &h);
}

static void test_tried_elsewhere_before_content(void **state)
{
    static const struct line lost[] = { { HEAD_STREAM ROLE_EVENT, CLOSE, 0 },
                                        { HEAD_STREAM ROLE_EVENT TEXT_EVENT STOP_EVENT DONE_EVENT, CLOSE,
                                          0 } };
    struct world *w = one(lost, 2);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK_STREAM);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_string_equal(cox_buf_cstr(&h.data), ROLE_EVENT TEXT_EVENT STOP_EVENT DONE_EVENT);
    assert_int_equal(h.books.tries, 2);
    assert_true(h.books.wasted_tokens > 0);
    assert_true(h.books.estimated);
    assert_int_equal(h.books.output_tokens, 1);
    done(w, &h);
}

static void test_broken_after_content_is_told(void **state)
{
    static const struct line broken[] = { { HEAD_STREAM ROLE_EVENT TEXT_EVENT, CLOSE, 0 } };
    struct world *w = one(broken, 1);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK_STREAM);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_BROKEN);
    assert_string_equal(cox_buf_cstr(&h.data), ROLE_EVENT TEXT_EVENT);
    assert_int_equal(w->servers[0].n_requests, 1);
    assert_int_equal(h.books.input_tokens, 0);
    assert_true(h.books.wasted_tokens > 0);
    done(w, &h);
}

static void test_garbage_is_tried_elsewhere(void **state)
{
    static const struct line garbage[] = { { HEAD_STREAM "data: {\"choices\":[{]\n\n", HANG, 0 },
                                           { NULL, KEEP, 0 } };
    struct world *w = one(garbage, 2);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK_STREAM);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_string_equal(cox_buf_cstr(&h.data), WHOLE_BODY);
    assert_int_equal(h.books.tries, 2);
    done(w, &h);
}

static void test_context_length_is_passed_on_once(void **state)
{
    static const struct line too_long[] = {
        { "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 83\r\n\r\n"
          "{\"error\":{\"message\":\"This model's maximum context length is 8 tokens\",\"code\":400}}   ",
          KEEP, 0 }
    };
    struct world *w = one(too_long, 1);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_int_equal(h.status, 400);
    assert_int_equal(h.code, COX_CODE_CONTEXT_LENGTH);
    assert_string_equal(h.api_code, "context_length_exceeded");
    assert_non_null(strstr(cox_buf_cstr(&h.data), "maximum context length"));
    assert_int_equal(w->servers[0].n_requests, 1);
    assert_int_equal(h.books.wasted_tokens, 0);
    done(w, &h);
}

static void test_slow_down_goes_elsewhere(void **state)
{
    static const struct line full[] = {
        { "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n", KEEP, 0 },
    };
    struct world *w = world_begin(NULL);
    struct heard h = { 0 };

    (void)state;
    server_start(w, &w->servers[0], full, 1);
    server_start(w, &w->servers[1], good, 1);
    world_models(w, TWO);
    for (int i = 0; i < 4; i++) { /* some of them begin where there is no room */
        ask(w, &h, ASK);
        AWAIT(w, h.over);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_int_equal(h.status, 200);
        heard_fini(&h);
    }
    assert_int_equal(w->servers[1].n_requests, 4);
    world_end(w);
}

static void test_slow_down_of_all_is_passed_on(void **state)
{
    static const struct line full[] = {
        { "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n", KEEP, 0 },
    };
    struct world *w = one(full, 1);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_FAILED);
    assert_int_equal(h.http_status, 429);
    assert_int_equal(h.code, COX_CODE_RESOURCE_EXHAUSTED);
    done(w, &h);
}

#define NOT_FOUND                                                                                            \
    "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 45\r\n\r\n"                 \
    "{\"error\":{\"message\":\"no such model\",\"code\":404}}"

/* It answers at once, and so seems to have all the room that there is: until five have found out. */
static void test_one_that_knows_nothing_loses_its_calls(void **state)
{
    static const struct line unknown[] = { { NOT_FOUND, KEEP, 0 } };
    static const struct line no_method[] = { { "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n",
                                               KEEP, 0 } };
    const struct line *first[] = { unknown, no_method };
    struct router_who who = who_of("t");

    (void)state;
    who.program = cox_slice_str(""); /* with no home */
    for (size_t k = 0; k < 2; k++) {
        struct world *w = world_begin(NULL);
        struct heard h = { 0 };

        server_start(w, &w->servers[0], first[k], 1);
        server_start(w, &w->servers[1], k ? good_stream : good, 1);
        world_models(w, TWO);
        for (int i = 0; i < 40; i++) {
            ask_as(w, &h, k ? ASK_STREAM : ASK, &who);
            AWAIT(w, h.over);
            assert_int_equal(h.end, ROUTER_ANSWERED);
            assert_int_equal(h.status, 200);
            heard_fini(&h);
        }
        assert_int_equal(w->servers[0].n_requests, 5);
        assert_int_equal(w->servers[1].n_requests, 40);
        world_end(w);
    }
}

static void test_what_nobody_knows_is_passed_on(void **state)
{
    static const struct line unknown[] = { { NOT_FOUND, KEEP, 0 } };
    struct world *w = two(unknown, 1, NULL);
    struct heard h = { 0 };

    (void)state;
    for (size_t i = 1; i <= 20; i++) { /* and nobody is blamed for it */
        ask(w, &h, ASK);
        AWAIT(w, h.over);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_int_equal(h.status, 404);
        assert_non_null(strstr(cox_buf_cstr(&h.data), "no such model"));
        assert_int_equal(w->servers[0].n_requests, i);
        assert_int_equal(w->servers[1].n_requests, i);
        heard_fini(&h);
    }
    world_end(w);
}

static void test_after_a_pause_calls_come_one_by_one(void **state)
{
    static const struct line lines[] = {
        { "HTTP/1.1 429 Busy\r\nRetry-After: 0.5\r\nContent-Length: 0\r\n\r\n", KEEP, 0 }, { NULL, KEEP, 5 }
    };
    struct world *w = one(lines, 2);
    static struct heard calls[30];
    struct server *s = &w->servers[0];

    (void)state;
    ask(w, &calls[0], ASK);
    AWAIT(w, s->n_requests == 1);
    AWAIT(w, s->n_open == 0);
    for (int i = 0; i < 20; i++)
        event_base_loop(w->base, EVLOOP_NONBLOCK); /* it is heard */
    for (size_t i = 1; i < ARRAY_LEN(calls); i++)
        ask(w, &calls[i], ASK);
    assert_int_equal(s->n_requests, 1);
    s->n_open_max = 0;
    AWAIT(w, s->n_requests > 2);
    assert_in_range(s->n_open_max, 1, 2);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        AWAIT(w, calls[i].over);
        assert_int_equal(calls[i].end, ROUTER_ANSWERED);
        heard_fini(&calls[i]);
    }
    assert_in_range(s->n_open_max, 3, 16);
    world_end(w);
}

static void test_same_500_everywhere_ends_it(void **state)
{
    static const struct line bad[] = { { "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", KEEP, 0 } };
    struct world *w = two(bad, 1, NULL);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_FAILED);
    assert_int_equal(h.http_status, 502);
    assert_int_equal(h.code, COX_CODE_MODEL_ERROR);
    assert_int_equal(w->servers[0].n_requests, 1);
    assert_int_equal(w->servers[1].n_requests, 1);
    done(w, &h);
}

static void test_hung_endpoint_is_left(void **state)
{
    static const struct line hangs[] = { { "HTTP/1.1 200 OK\r\n", HANG, 0 } };
    static const struct upstream_timeouts soon = { .first_ms = 50 };
    struct world *w = world_begin(&soon);
    struct heard h = { 0 };

    (void)state;
    server_start(w, &w->servers[0], hangs, 1);
    server_start(w, &w->servers[1], good_stream, 1);
    world_models(w, TWO);
    while (w->servers[0].n_requests == 0) {
        ask(w, &h, ASK_STREAM);
        AWAIT(w, h.over);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        heard_fini(&h);
    }
    assert_int_equal(h.books.tries, 2);
    assert_true(h.books.wasted_tokens > 0);
    AWAIT(w, w->servers[0].n_hung_up == 1);
    world_end(w);
}

static void test_fallback_answers_for_a_model(void **state)
{
    struct world *w = world_begin(NULL);
    static const struct line bad[] = { { "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", KEEP, 0 } };
    struct heard h = { 0 };

    (void)state;
    server_start(w, &w->servers[0], bad, 1);
    server_start(w, &w->servers[1], good, 1);
    world_models(w, "[{\"name\":\"m\",\"fallbacks\":[\"n\"],\"endpoints\":[" URL
                    "]},{\"name\":\"n\",\"endpoints\":[" URL "]}]");
    ask(w, &h, ASK);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_string_equal(h.model, "n");
    assert_non_null(strstr(cox_buf_cstr(&w->servers[1].last), "\"model\":\"n\""));
    assert_int_equal(h.books.tries, 4);
    done(w, &h);
}

static void test_refused_before_anything_is_sent(void **state)
{
    static const struct {
        const char *body;
        int status;
        const char *api_code;
    } cases[] = {
        { "{\"model\":\"nope\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 404,
          "model_not_found" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 400, "" },
        { "{\"model\":", 400, "" },
    };
    struct world *w = one(good, 1);
    struct heard h = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ask(w, &h, cases[i].body);
        AWAIT(w, h.over);
        assert_int_equal(h.end, ROUTER_REFUSED);
        assert_int_equal(h.http_status, cases[i].status);
        assert_string_equal(h.api_code, cases[i].api_code);
        assert_int_equal(h.status, 0);
        heard_fini(&h);
    }
    assert_int_equal(n_requests(w), 0);
    world_end(w);
}

static void test_cancel_closes_upstream(void **state)
{
    static const struct line hangs[] = { { HEAD_STREAM ROLE_EVENT TEXT_EVENT, HANG, 0 } };
    struct world *w = one(hangs, 1);
    struct heard h = { .cancels = true }; /* from inside the first piece */

    (void)state;
    ask(w, &h, ASK_STREAM);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_CANCELLED);
    assert_true(h.books.wasted_tokens > 0);
    assert_int_equal(h.books.input_tokens, 0);
    AWAIT(w, w->servers[0].n_hung_up == 1);
    done(w, &h);
}

static void test_tool_calls_get_ids(void **state)
{
#define CALL "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}"
    static const struct line nameless[] = {
        { HEAD_STREAM "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0," CALL
                      "}]}}]}\n\n" STOP_EVENT DONE_EVENT,
          CLOSE, 0 }
    };
    struct world *w = one(nameless, 1);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK_STREAM);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_non_null(strstr(cox_buf_cstr(&h.data), "\"id\":\"call_"));
    assert_non_null(strstr(cox_buf_cstr(&h.data), STOP_EVENT DONE_EVENT));
    done(w, &h);
}

static void test_answers_are_given_again(void **state)
{
    struct world *w = one(good, 1);
    struct router_who who = who_of("t"), other = who_of("u");
    struct heard h = { 0 };

    (void)state;
    who.cache_ms = other.cache_ms = 60000;
    for (int i = 0; i < 3; i++) {
        ask_as(w, &h, ASK, i < 2 ? &who : &other);
        AWAIT(w, h.over);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_string_equal(cox_buf_cstr(&h.data), WHOLE_BODY);
        assert_int_equal(h.books.from_cache, i == 1);
        assert_int_equal(h.books.input_tokens, i == 1 ? 0 : 100);
        heard_fini(&h);
    }
    assert_int_equal(w->servers[0].n_requests, 2); /* another tenant's is none of theirs */
    world_end(w);
}

static void test_never_more_than_the_endpoint_takes(void **state)
{
    static const struct line slow[] = { { NULL, KEEP, 2 } };
    struct world *w = world_begin(NULL);
    static struct heard calls[40];
    size_t over = 0;

    (void)state;
    server_start(w, &w->servers[0], slow, 1);
    world_models(
        w, "[{\"name\":\"m\",\"endpoints\":[{\"url\":\"http://127.0.0.1:%d/v1\",\"max_in_flight\":3}]}]");
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        ask(w, &calls[i], ASK);
    for (; over < ARRAY_LEN(calls); over++) {
        AWAIT(w, calls[over].over);
        assert_int_equal(calls[over].end, ROUTER_ANSWERED);
        heard_fini(&calls[over]);
    }
    assert_int_equal(w->servers[0].n_requests, ARRAY_LEN(calls));
    assert_int_equal(w->servers[0].n_open_max, 3);
    world_end(w);
}

static void test_a_model_that_goes_leaves_its_calls(void **state)
{
    static const struct line slow[] = { { NULL, KEEP, 20 } };
    struct world *w = world_begin(NULL);
    struct heard sent = { 0 }, waits = { 0 };

    (void)state;
    server_start(w, &w->servers[0], slow, 1);
    world_models(
        w, "[{\"name\":\"m\",\"endpoints\":[{\"url\":\"http://127.0.0.1:%d/v1\",\"max_in_flight\":1}]}]");
    ask(w, &sent, ASK);
    ask(w, &waits, ASK);
    world_models(w, "[]");
    AWAIT(w, sent.over && waits.over);
    assert_int_equal(sent.end, ROUTER_ANSWERED);
    assert_int_equal(waits.http_status, 404);
    heard_fini(&waits);
    done(w, &sent);
}

static void test_a_body_can_say_what_belongs_together(void **state)
{
    static const char *const says[] = { "", ",\"user\":\"u\"", ",\"prompt_cache_key\":\"k\",\"user\":\"u\"",
                                        ",\"user\":\"u\",\"prompt_cache_key\":\"k\"" };
    struct world *w = one(good, 1);
    struct router_who who = {
        .tenant = cox_slice_str("t"), .outside = true, .band = PLACEMENT_BAND_NORMAL, .deadline_ns = INT64_MAX
    };
    struct heard h = { 0 };
    struct router_stats *s = NULL;
    char body[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(says); i++) {
        snprintf(body, sizeof(body),
                 "{\"model\":\"m\"%s,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", says[i]);
        ask_as(w, &h, body, &who);
        AWAIT(w, h.over);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        heard_fini(&h);
    }
    do {
        router_stats_free(s);
        event_base_loop(w->base, EVLOOP_ONCE);
        s = router_stats(w->router);
    } while (s->n_programs < 2 || s->programs[0].n_calls < 2);
    assert_int_equal(s->n_programs, 2);
    assert_string_equal(s->programs[0].program, "k");
    assert_string_equal(s->programs[1].program, "u");
    assert_int_equal(s->programs[1].n_calls, 1);
    assert_true(s->programs[1].outside);
    router_stats_free(s);
    world_end(w);
}

static void test_numbers(void **state)
{
    struct world *w = one(good, 1);
    struct heard h = { 0 };
    struct router_stats *s = NULL;

    (void)state;
    ask(w, &h, ASK);
    AWAIT(w, h.over);
    do {
        router_stats_free(s);
        event_base_loop(w->base, EVLOOP_ONCE);
        s = router_stats(w->router);
    } while (s->n_models == 0 || s->models[0].input_tokens == 0);
    assert_string_equal(s->models[0].name, "m");
    assert_int_equal(s->models[0].n_calls, 1);
    assert_int_equal(s->models[0].cached_tokens, 40);
    assert_int_equal(s->n_programs, 1);
    assert_string_equal(s->programs[0].program, "p");
    assert_int_equal(s->programs[0].output_tokens, 7);
    assert_int_equal(s->n_tenants, 1);
    assert_int_equal(s->tenants[0].cost_micros, 114);
    router_stats_free(s);
    done(w, &h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_answer),
        cmocka_unit_test(test_stream_goes_through_as_it_is),
        cmocka_unit_test(test_usage_is_asked_for_and_kept_from_who_did_not),
        cmocka_unit_test(test_tried_elsewhere_before_content),
        cmocka_unit_test(test_broken_after_content_is_told),
        cmocka_unit_test(test_garbage_is_tried_elsewhere),
        cmocka_unit_test(test_context_length_is_passed_on_once),
        cmocka_unit_test(test_slow_down_goes_elsewhere),
        cmocka_unit_test(test_slow_down_of_all_is_passed_on),
        cmocka_unit_test(test_one_that_knows_nothing_loses_its_calls),
        cmocka_unit_test(test_what_nobody_knows_is_passed_on),
        cmocka_unit_test(test_after_a_pause_calls_come_one_by_one),
        cmocka_unit_test(test_same_500_everywhere_ends_it),
        cmocka_unit_test(test_hung_endpoint_is_left),
        cmocka_unit_test(test_fallback_answers_for_a_model),
        cmocka_unit_test(test_refused_before_anything_is_sent),
        cmocka_unit_test(test_cancel_closes_upstream),
        cmocka_unit_test(test_tool_calls_get_ids),
        cmocka_unit_test(test_answers_are_given_again),
        cmocka_unit_test(test_never_more_than_the_endpoint_takes),
        cmocka_unit_test(test_a_model_that_goes_leaves_its_calls),
        cmocka_unit_test(test_a_body_can_say_what_belongs_together),
        cmocka_unit_test(test_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
