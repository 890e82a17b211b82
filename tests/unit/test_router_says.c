/* The router: what endpoints say in the ways in which servers say it, whose fault it is, and what is learned
 * of it. */
#include "router_fixture.h"
#include "router_internal.h"

#include <unistd.h>

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"
#define ASK "{\"model\":\"m\"," MESSAGES "}"
#define ASK_STREAM "{\"model\":\"m\",\"stream\":true," MESSAGES "}"
#define ASK_USAGE "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}," MESSAGES "}"
#define ASK_TWO "{\"model\":\"m\",\"stream\":true,\"n\":2," MESSAGES "}"
#define URL "{\"url\":\"http://127.0.0.1:%d/v1\"}"
#define ONE "[{\"name\":\"m\",\"context_tokens\":1000,\"endpoints\":[" URL "]}]"
#define TWO "[{\"name\":\"m\",\"endpoints\":[" URL "," URL "]}]"
#define WITH_FALLBACK                                                                                        \
    "[{\"name\":\"m\",\"fallbacks\":[\"n\"],\"endpoints\":[" URL "]},{\"name\":\"n\",\"endpoints\":[" URL    \
    "]}]"
#define STATUS(line, body)                                                                                   \
    "HTTP/1.1 " line "\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" body
#define STREAM(events)                                                                                       \
    {                                                                                                        \
        HEAD_STREAM events, CLOSE, 0                                                                         \
    }

static const struct line good[] = { { NULL, KEEP, 0 } };
static const struct line good_stream[] = { STREAM(ROLE_EVENT TEXT_EVENT STOP_EVENT USAGE_EVENT DONE_EVENT) };

static struct world *with(const char *models, const struct line *first, size_t n_first,
                          const struct line *second, size_t n_second)
{
    struct world *w = world_begin(NULL);

    server_start(w, &w->servers[0], first, n_first);
    if (second)
        server_start(w, &w->servers[1], second, n_second);
    world_models(w, models);
    return w;
}

static void call(struct world *w, struct heard *h, const char *body)
{
    heard_fini(h);
    ask(w, h, body);
    AWAIT(w, h->over);
}

static void done(struct world *w, struct heard *h)
{
    heard_fini(h);
    world_end(w);
}

static struct pool *pool_of(struct world *w)
{
    return catalogue_find(router_catalogue(w->router), cox_slice_str("m"))->owner_data;
}

static struct health_view view_of(struct world *w, const char *model)
{
    struct model *m = catalogue_find(router_catalogue(w->router), cox_slice_str(model));
    struct health_view v;

    health_view(COX_CONTAINER_OF(m->endpoints.next, struct endpoint, node), &v);
    return v;
}

/* ---- the end of a stream ---- */

#define CHOICE(index, finish)                                                                                \
    "data: {\"choices\":[{\"index\":" #index ",\"delta\":{\"content\":\"x\"},\"finish_reason\":" finish      \
    "}]}\n\n"

static void test_a_stream_ends_with_its_last_choice(void **state)
{
    static const struct line first_only[] = { STREAM(CHOICE(0, "null") CHOICE(1, "null") CHOICE(0, "\"stop\"")
                                                         CHOICE(0, "\"stop\"")) };
    static const struct line both[] = { STREAM(CHOICE(0, "null") CHOICE(1, "\"stop\"")
                                                   CHOICE(0, "\"stop\"")) };
    static const struct line told[] = { STREAM(CHOICE(0, "\"stop\"") DONE_EVENT) };
    static const struct {
        const struct line *line;
        enum router_end end;
    } cases[] = { { first_only, ROUTER_BROKEN }, { both, ROUTER_ANSWERED }, { told, ROUTER_ANSWERED } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world *w = with(ONE, cases[i].line, 1, NULL, 0);
        struct heard h = { 0 };

        call(w, &h, ASK_TWO);
        assert_int_equal(h.end, cases[i].end);
        assert_int_equal(h.books.wasted_tokens > 0, cases[i].end == ROUTER_BROKEN);
        done(w, &h);
    }
}

static void test_what_comes_behind_the_end_is_nothing(void **state)
{
    static const struct line lines[] = {
        STREAM(TEXT_EVENT STOP_EVENT USAGE_EVENT DONE_EVENT "data: bye\n\n" TEXT_EVENT "garbage"),
    };
    struct world *w = with(ONE, lines, 1, NULL, 0);
    struct heard h = { 0 };

    (void)state;
    call(w, &h, ASK_STREAM);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_string_equal(cox_buf_cstr(&h.data), TEXT_EVENT STOP_EVENT DONE_EVENT);
    assert_int_equal(h.books.output_tokens, 7);
    assert_int_equal(h.books.wasted_tokens, 0);
    done(w, &h);
}

static void test_a_connection_that_stays_open_ends_with_done(void **state)
{
    static const struct line stays[] = { { HEAD_STREAM TEXT_EVENT STOP_EVENT USAGE_EVENT DONE_EVENT, HANG,
                                           0 } };
    struct world *w = with(ONE, stays, 1, NULL, 0);
    struct heard h = { 0 };

    (void)state;
    call(w, &h, ASK_STREAM);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_int_equal(h.books.input_tokens, 100);
    AWAIT(w, w->servers[0].n_hung_up == 1);
    done(w, &h);
}

/* Clients hang up when they have read [DONE], or the last finish_reason: that is no lost call. */
static void test_who_leaves_with_the_whole_answer_is_charged(void **state)
{
    static const struct line whole[] = { { HEAD_STREAM TEXT_EVENT STOP_EVENT, HANG, 0 } };
    struct world *w = with(ONE, whole, 1, NULL, 0);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK_STREAM);
    AWAIT(w, h.data.len > 0);
    router_cancel(h.call);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_CANCELLED);
    assert_int_equal(h.books.wasted_tokens, 0);
    assert_int_equal(h.books.output_tokens, 1);
    assert_true(h.books.estimated);
    done(w, &h);
}

static void test_who_gives_up_has_not_answered(void **state)
{
    static const struct line aborts[] = {
        STREAM("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"abort\"}]}\n\n"), { NULL, KEEP, 0 }
    };
    struct world *w = with(ONE, aborts, 2, NULL, 0);
    struct heard h = { 0 };

    (void)state;
    call(w, &h, ASK_STREAM);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_int_equal(h.books.tries, 2);
    assert_string_equal(cox_buf_cstr(&h.data), WHOLE_BODY);
    done(w, &h);
}

/* ---- ways to write a stream ---- */

static void test_streams_as_servers_write_them(void **state)
{
    static const struct {
        const char *said, *heard;
    } cases[] = {
        /* A byte order mark, CRLF, no space behind the colon, other fields, comments. */
        { "\xef\xbb\xbf: hi\r\n\r\ndata:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n"
          "event: x\r\nid: 7\r\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\ndata: "
          "[DONE]\r\n\r\n",
          NULL },
        /* Data in lines, white space around [DONE], empty events. */
        { "data: {\"choices\":\ndata: "
          "[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"\"}]}\n\ndata:\n\n" STOP_EVENT
          "data: [DONE] \n\n",
          NULL },
        /* Usage with each piece, and alone at the end. */
        { "data: "
          "{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":100,\"completion_"
          "tokens\":1}}\n\n" STOP_EVENT USAGE_EVENT DONE_EVENT,
          "data: "
          "{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":100,\"completion_"
          "tokens\":1}}\n\n" STOP_EVENT DONE_EVENT },
        /* Azure's first event has no choices, and is no usage. */
        { "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n" TEXT_EVENT STOP_EVENT DONE_EVENT, NULL },
        /* Reasoning, a refusal, an old function call, log probabilities, a call without an index. */
        { "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n" STOP_EVENT DONE_EVENT,
          NULL },
        { "data: "
          "{\"choices\":[{\"delta\":{\"refusal\":\"no\"},\"logprobs\":{\"content\":[]}}]}\n\n" STOP_EVENT
              DONE_EVENT,
          NULL },
        { "data: {\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"f\",\"arguments\":\"\"}}}]}\n\n"
          "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"function_call\"}]}\n\n" DONE_EVENT,
          NULL },
        { "data: "
          "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\"}}]}}]}"
          "\n\n" STOP_EVENT DONE_EVENT,
          NULL },
        /* No [DONE] at all. */
        { TEXT_EVENT STOP_EVENT, NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text = cox_asprintf(HEAD_STREAM "%s", cases[i].said);
        const struct line line[] = { { text, CLOSE, 0 } };
        struct world *w = with(ONE, line, 1, NULL, 0);
        struct heard h = { 0 };

        call(w, &h, ASK_STREAM);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_string_equal(cox_buf_cstr(&h.data), cases[i].heard ? cases[i].heard : cases[i].said);
        assert_int_equal(h.books.tries, 1);
        done(w, &h);
        cox_free(text);
    }
}

static void test_cuts_do_not_change_what_is_passed_on(void **state)
{
    static const char said[] = ": ping\n\n" TEXT_EVENT ": ping\n" USAGE_EVENT ":\n\n" STOP_EVENT DONE_EVENT;
    static const char whole[] = ": ping\n\n" TEXT_EVENT ":\n\n" STOP_EVENT DONE_EVENT;
    static const struct line hangs[] = { { HEAD_STREAM, HANG, 0 } };

    (void)state;
    for (size_t cut = 1; cut < sizeof(said) - 1; cut++) {
        struct world *w = with(ONE, hangs, 1, NULL, 0);
        struct heard h = { 0 };

        ask(w, &h, ASK_STREAM);
        AWAIT(w, h.call->reply.is_stream);
        reply_events.on_data(h.call, cox_slice(said, cut));
        reply_events.on_data(h.call, cox_slice(said + cut, sizeof(said) - 1 - cut));
        upstream_cancel(h.call->upstream);
        reply_events.on_end(h.call, UPSTREAM_OK, NULL);
        AWAIT(w, h.over);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        if (strcmp(cox_buf_cstr(&h.data), whole) != 0 &&
            strcmp(cox_buf_cstr(&h.data), ": ping\n\n" TEXT_EVENT ": ping\n:\n\n" STOP_EVENT DONE_EVENT) != 0)
            fail_msg("cut at %zu: %s", cut, cox_buf_cstr(&h.data));
        done(w, &h);
    }
}

static void test_what_is_held_is_bounded(void **state)
{
    static const char *const lines[] = { ": nothing\n", "event: nothing\n",
                                         "data: {\"choices\":[{\"index\":0,\"delta\":{}}]}\n\n" };
    static const struct line hangs[] = { { HEAD_STREAM, HANG, 0 }, { NULL, KEEP, 0 } };
    struct cox_buf piece = { 0 };

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(lines) - 1; i++) {
        struct world *w = with(ONE, hangs, 2, NULL, 0);
        bool begun = i >= ARRAY_LEN(lines);
        size_t most = begun ? SSE_EVENT_LEN_MAX : ROUTER_HELD_LEN_MAX, said = 0;
        struct heard h = { 0 };

        cox_buf_clear(&piece);
        while (piece.len < 1 << 16)
            cox_buf_append_str(&piece, lines[i % ARRAY_LEN(lines)]);
        ask(w, &h, ASK_STREAM);
        AWAIT(w, h.call->reply.is_stream);
        if (begun) /* and then an event that does not end */
            reply_events.on_data(h.call, cox_slice_str(TEXT_EVENT "event: x\n"));
        while (h.call->state == CALL_SENT && h.call->upstream && said < 2 * most) {
            reply_events.on_data(h.call, cox_buf_slice(&piece));
            said += piece.len;
        }
        assert_true(said > most && said < most + 2 * piece.len);
        AWAIT(w, h.over);
        assert_int_equal(h.end, begun ? ROUTER_BROKEN : ROUTER_ANSWERED);
        done(w, &h);
    }
    cox_buf_fini(&piece);
}

/* ---- errors in streams ---- */

#define ERROR_EVENT(error) "data: {\"error\":" error "}\n\n" DONE_EVENT

static void test_an_error_of_the_request_in_a_stream_is_its_own(void **state)
{
    static const struct {
        const char *error;
        int status;
        enum cox_code code;
    } cases[] = {
        { "{\"message\":\"the prompt is longer than the model's "
          "context\",\"type\":\"BadRequestError\",\"code\":400}",
          400, COX_CODE_CONTEXT_LENGTH },
        { "{\"message\":\"no\",\"type\":\"invalid_request_error\",\"code\":\"context_length_exceeded\"}", 400,
          COX_CODE_CONTEXT_LENGTH },
        { "{\"message\":\"no\",\"type\":\"invalid_request_error\",\"code\":null}", 400,
          COX_CODE_MODEL_ERROR },
        { "{\"message\":\"no such lora\",\"type\":\"NotFoundError\",\"code\":404}", 404,
          COX_CODE_MODEL_ERROR },
        { "{\"message\":\"no\",\"status\":\"INVALID_ARGUMENT\"}", 400, COX_CODE_MODEL_ERROR },
    };

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        bool begun = i >= ARRAY_LEN(cases);
        const char *error = cases[i % ARRAY_LEN(cases)].error;
        char *text =
            cox_asprintf(HEAD_STREAM ROLE_EVENT "%s" ERROR_EVENT("%s"), begun ? TEXT_EVENT : "", error);
        const struct line line[] = { { text, CLOSE, 0 } };
        struct world *w = with(TWO, line, 1, line, 1);
        struct heard h = { 0 };

        call(w, &h, ASK_STREAM);
        assert_int_equal(h.end, begun ? ROUTER_BROKEN : ROUTER_ANSWERED);
        assert_int_equal(h.status, begun ? 200 : cases[i % ARRAY_LEN(cases)].status);
        assert_int_equal(h.is_stream, begun);
        assert_int_equal(h.http_status, cases[i % ARRAY_LEN(cases)].status);
        assert_int_equal(h.code, cases[i % ARRAY_LEN(cases)].code);
        assert_non_null(strstr(cox_buf_cstr(&h.data), error)); /* as the endpoint says it */
        assert_int_equal(w->servers[0].n_requests + w->servers[1].n_requests, 1);
        assert_int_equal(view_of(w, "m").n_failures, 0);
        done(w, &h);
        cox_free(text);
    }
}

static void test_an_error_of_the_endpoint_in_a_stream_is_tried_elsewhere(void **state)
{
    static const char *const errors[] = {
        "{\"message\":\"CUDA\",\"type\":\"InternalServerError\",\"code\":500}",
        "{\"message\":\"EngineCore encountered an issue\",\"type\":\"BadRequestError\",\"code\":400}", /* vLLM
                                                                                                        */
        "{\"message\":\"loading\",\"type\":\"unavailable_error\",\"code\":503}",
        "\"broken\"",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        char *text = cox_asprintf(HEAD_STREAM ROLE_EVENT ERROR_EVENT("%s"), errors[i]);
        const struct line lines[] = { { text, CLOSE, 0 }, good_stream[0] };
        struct world *w = with(ONE, lines, 2, NULL, 0);
        struct heard h = { 0 };

        call(w, &h, ASK_STREAM);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_int_equal(h.status, 200);
        assert_string_equal(cox_buf_cstr(&h.data), ROLE_EVENT TEXT_EVENT STOP_EVENT DONE_EVENT);
        assert_int_equal(h.books.tries, 2);
        assert_true(h.books.wasted_tokens > 0);
        done(w, &h);
        cox_free(text);
    }
}

/* What two say in the same words is true of the request, though the first may only have been broken. */
static void test_two_that_say_the_same_are_believed(void **state)
{
    static const struct line bad[] = { STREAM(
        ERROR_EVENT("{\"message\":\"bad grammar\",\"type\":\"BadRequestError\",\"code\":400}")) };
    struct world *w = with(TWO, bad, 1, bad, 1);
    struct heard h = { 0 };

    (void)state;
    call(w, &h, ASK_STREAM);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_int_equal(h.status, 400);
    assert_non_null(strstr(cox_buf_cstr(&h.data), "bad grammar"));
    assert_int_equal(w->servers[0].n_requests, 1);
    assert_int_equal(w->servers[1].n_requests, 1);
    assert_int_equal(view_of(w, "m").n_failures, 0);
    done(w, &h);
}

static void test_an_error_with_status_200_has_its_own(void **state)
{
    static const struct line lines[] = {
        { STATUS("200 OK", "{\"error\":{\"message\":\"too much\",\"code\":\"rate_limit_exceeded\"}}"), CLOSE,
          0 },
        { STATUS("200 OK", "{\"error\":{\"message\":\"no\",\"type\":\"invalid_request_error\"}}"), CLOSE, 0 },
    };
    struct world *w = with(TWO, lines, 1, lines + 1, 1);
    struct heard h = { 0 };

    (void)state;
    while (w->servers[0].n_requests == 0) {
        call(w, &h, ASK);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_int_equal(h.status, 400);
    }
    assert_int_equal(h.books.tries, 2); /* at once: the other had no word of waiting */
    done(w, &h);
}

/* ---- keys ---- */

#define KEY_BODY                                                                                             \
    "{\"error\":{\"message\":\"Incorrect API key provided: sk-ours\",\"code\":\"invalid_api_key\"}}"

static void test_what_is_said_of_our_key_stays_here(void **state)
{
    static const struct line denied[] = {
        { STATUS("401 Unauthorized", KEY_BODY), CLOSE, 0 },
        { STATUS("403 Forbidden", KEY_BODY), CLOSE, 0 },
        STREAM("data: " KEY_BODY "\n\n"),
        { STATUS("200 OK", KEY_BODY), CLOSE, 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(denied); i++) {
        struct world *w = with(ONE, denied + i, 1, NULL, 0);
        struct heard h = { 0 };

        call(w, &h, ASK_STREAM);
        assert_int_equal(h.end, ROUTER_FAILED);
        assert_int_equal(h.http_status, 502);
        assert_int_equal(h.code, COX_CODE_UNAVAILABLE);
        assert_string_equal(h.api_code, "upstream_denied");
        assert_non_null(strstr(h.message, "the model m "));
        assert_null(strstr(h.message, "sk-"));
        assert_int_equal(h.data.len, 0);
        assert_int_equal(w->servers[0].n_requests, 1); /* it would be the same again */
        assert_int_equal(view_of(w, "m").n_failures, 1);
        done(w, &h);
    }
}

static void test_who_refuses_our_key_is_out_at_once(void **state)
{
    static const struct line denied[] = { { STATUS("401 Unauthorized", KEY_BODY), CLOSE, 0 } };
    struct world *w = with(TWO, denied, 1, good, 1);
    struct heard h = { 0 };

    (void)state;
    for (int i = 0; i < 8; i++) {
        call(w, &h, ASK);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_int_equal(h.status, 200);
    }
    assert_int_equal(w->servers[0].n_requests, 1);
    assert_int_equal(pool_of(w)->n_open, 1);
    done(w, &h);
}

/* A filter of requests answers 403 too: nobody is to lose endpoints by what he asks. */
static void test_a_403_of_all_is_nobodys_fault(void **state)
{
    static const struct line denied[] = { { STATUS("403 Forbidden", "blocked"), CLOSE, 0 } };
    struct world *w = with(TWO, denied, 1, denied, 1);
    struct heard h = { 0 };

    (void)state;
    for (int i = 0; i < 8; i++) {
        call(w, &h, ASK);
        assert_int_equal(h.end, ROUTER_FAILED);
        assert_string_equal(h.api_code, "upstream_denied");
    }
    assert_int_equal(pool_of(w)->n_open, 2);
    assert_int_equal(view_of(w, "m").n_failures, 0);
    done(w, &h);
}

/* ---- options that servers do not know ---- */

static void test_who_refuses_our_option_is_asked_without_it(void **state)
{
    static const struct line strict[] = {
        { STATUS("422 Unprocessable Entity", "{\"detail\":[{\"loc\":[\"body\",\"stream_options\"]}]}"), CLOSE,
          0 },
        STREAM(TEXT_EVENT STOP_EVENT DONE_EVENT),
    };
    struct world *w = with(ONE, strict, 2, NULL, 0);
    struct heard h = { 0 };

    (void)state;
    for (int i = 0; i < 3; i++) {
        call(w, &h, ASK_STREAM);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_int_equal(h.status, 200);
        assert_true(h.books.estimated);
        assert_null(strstr(cox_buf_cstr(&w->servers[0].last), "stream_options"));
    }
    assert_int_equal(w->servers[0].n_requests, 4); /* it is remembered */
    done(w, &h);
}

static void test_who_asks_for_the_option_himself_hears_of_it(void **state)
{
    static const struct line strict[] = { { STATUS("400 Bad Request", "{\"error\":\"stream_options?\"}"),
                                            CLOSE, 0 } };
    struct world *w = with(ONE, strict, 1, NULL, 0);
    struct heard h = { 0 };

    (void)state;
    call(w, &h, ASK_USAGE);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_int_equal(h.status, 400);
    assert_int_equal(w->servers[0].n_requests, 1);
    done(w, &h);
}

/* ---- waiting ---- */

static void test_the_first_retry_comes_within_fifty_milliseconds(void **state)
{
    struct cox_rng rng;
    int64_t most[8] = { 0 };

    (void)state;
    cox_rng_init(&rng, 1);
    for (int i = 0; i < 20000; i++) {
        for (uint32_t n = 1; n < ARRAY_LEN(most); n++) {
            int64_t ms = call_backoff_ms(&rng, n);

            assert_true(ms >= 1);
            most[n] = ms > most[n] ? ms : most[n];
        }
    }
    assert_int_equal(most[1], 50);
    assert_int_equal(most[2], 100);
    assert_in_range(most[7], 1900, 2000);
}

#define FULL "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nConnection: close\r\n\r\n"

/* The second 429 comes from an endpoint that the first one has closed. */
static void test_nobody_waits_beside_an_idle_endpoint(void **state)
{
    static const struct line full[] = { { FULL, CLOSE, 0 } };
    struct world *w = world_begin(NULL);
    struct heard h[2] = { 0 };

    (void)state;
    server_start(w, &w->servers[0], full, 1);
    server_start(w, &w->servers[1], good, 1);
    world_models(w, "[{\"name\":\"m\",\"endpoints\":[" URL "]}]");
    ask(w, &h[0], ASK);
    ask(w, &h[1], ASK);
    world_models(w, TWO);
    for (size_t i = 0; i < ARRAY_LEN(h); i++) {
        AWAIT(w, h[i].over);
        assert_int_equal(h[i].end, ROUTER_ANSWERED);
        assert_int_equal(h[i].status, 200);
        heard_fini(&h[i]);
    }
    assert_int_equal(w->servers[0].n_requests, 2);
    world_end(w);
}

/* How often one model has asked for patience is nothing that its fallback has to answer for. */
static void test_a_fallback_has_its_own_patience(void **state)
{
    static const struct line soon[] = {
        { "HTTP/1.1 429 Busy\r\nRetry-After: 0\r\nConnection: close\r\n\r\n", CLOSE, 0 }, { FULL, CLOSE, 0 }
    };
    static const struct line then[] = {
        { "HTTP/1.1 429 Busy\r\nRetry-After: 0\r\nConnection: close\r\n\r\n", CLOSE, 0 }, { NULL, KEEP, 0 }
    };
    struct world *w = with(WITH_FALLBACK, soon, 2, then, 2);
    struct heard h = { 0 };

    (void)state;
    ask(w, &h, ASK);
    AWAIT(w, w->servers[0].n_requests == 1);
    h.call->n_slowed = ROUTER_SLOWED_MAX; /* as if it had asked eight times */
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_int_equal(h.status, 200);
    assert_string_equal(h.model, "n");
    done(w, &h);
}

/* ---- what is learned ---- */

/* Bytes are no measure of an image: what is taken for more than there is room for would wait for all others.
 */
static void test_a_large_call_does_not_wait_for_an_empty_endpoint(void **state)
{
    static const struct line hangs[] = { { "HTTP/1.1 200 OK\r\n", HANG, 0 } };
    struct world *w = with(ONE, hangs, 1, NULL, 0);
    struct cox_buf body = { 0 };
    struct heard small = { 0 }, large = { 0 };

    (void)state;
    ask(w, &small, ASK);
    cox_buf_append_str(&body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(cox_buf_extend(&body, 4 << 20), 'a', 4 << 20);
    cox_buf_append_str(&body, "\"}]}");
    ask(w, &large, cox_buf_cstr(&body));
    AWAIT(w, w->servers[0].n_requests == 2);
    router_cancel(small.call);
    router_cancel(large.call);
    AWAIT(w, small.over && large.over);
    cox_buf_fini(&body);
    heard_fini(&small);
    done(w, &large);
}

#define PIXELS 400000u

static void test_images_do_not_teach_what_text_takes(void **state)
{
    static const struct line says[] = {
        { STATUS("200 OK", "{\"choices\":[{\"message\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}],"
                           "\"usage\":{\"prompt_tokens\":620,\"completion_tokens\":1}}"),
          CLOSE, 0 },
    };
    struct world *w = with(ONE, says, 1, NULL, 0);
    struct cox_buf body = { 0 };
    struct heard h = { 0 };

    (void)state;
    cox_buf_append_str(
        &body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
               "\"what is it?\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,");
    memset(cox_buf_extend(&body, PIXELS), 'A', PIXELS);
    cox_buf_append_str(&body, "\"}}]}]}");
    for (int i = 0; i < 30; i++)
        call(w, &h, cox_buf_cstr(&body));
    assert_true(pool_of(w)->bytes_per_token == 4);
    assert_in_range((unsigned)pool_of(w)->tokens_per_media, 560, 620);

    /* And no text teaches more than can be. */
    cox_buf_clear(&body);
    cox_buf_append_str(&body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(cox_buf_extend(&body, PIXELS), 'A', PIXELS);
    cox_buf_append_str(&body, "\"}]}");
    for (int i = 0; i < 30; i++)
        call(w, &h, cox_buf_cstr(&body));
    assert_in_range((unsigned)pool_of(w)->bytes_per_token, 12, 16);
    cox_buf_fini(&body);
    done(w, &h);
}

static uint64_t prefill_rate(struct world *w)
{
    struct model *m = catalogue_find(router_catalogue(w->router), cox_slice_str("m"));
    struct placement_endpoint_view v;

    placement_endpoint_view(w->router->placement,
                            COX_CONTAINER_OF(m->endpoints.next, struct endpoint, node)->place, &v);
    return v.prefill_tokens_per_s;
}

/* An answer that comes whole comes when its last token is made. */
static void test_whole_answers_do_not_teach_how_fast_prompts_are_read(void **state)
{
    static const struct line slow[] = { { NULL, KEEP, 30 } };
    struct world *w = with("[{\"name\":\"m\",\"endpoints\":[" URL "]}]", slow, 1, NULL, 0);
    struct cox_buf body = { 0 };
    struct heard h = { 0 };
    uint64_t rate = prefill_rate(w);

    (void)state;
    cox_buf_append_str(&body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(cox_buf_extend(&body, 4000), 'a', 4000);
    cox_buf_append_str(&body, "\"}]}");
    call(w, &h, cox_buf_cstr(&body));
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_int_equal(prefill_rate(w), rate);
    cox_buf_fini(&body);
    done(w, &h);
}

/* What is played back counts as it did: the client that did not ask for the usage is not told it again,
 * either. */
static void test_what_is_played_back_counts_as_it_did(void **state)
{
    char path[] = "/tmp/cox-test-says-XXXXXX";
    struct heard h = { 0 };
    struct tape *tape = NULL;
    struct cox_buf error = { 0 };
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0 && close(fd) == 0);
    for (int replays = 0; replays < 2; replays++) {
        struct world *w = with(ONE, good_stream, 1, NULL, 0);

        assert_int_equal(replays ? tape_replay(path, &tape, &error) : tape_record(path, &tape, &error),
                         COX_OK);
        w->router->config.tape = tape;
        call(w, &h, ASK_STREAM);
        assert_int_equal(h.end, ROUTER_ANSWERED);
        assert_string_equal(cox_buf_cstr(&h.data), ROLE_EVENT TEXT_EVENT STOP_EVENT DONE_EVENT);
        assert_int_equal(h.books.input_tokens, 100);
        assert_int_equal(h.books.output_tokens, 7);
        assert_int_equal(h.books.cached_tokens, 40);
        assert_int_equal(h.books.from_cache, replays);
        assert_int_equal(w->servers[0].n_requests, !replays);
        world_end(w);
        tape_close(tape);
    }
    assert_int_equal(unlink(path), 0);
    heard_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_ends_with_its_last_choice),
        cmocka_unit_test(test_what_comes_behind_the_end_is_nothing),
        cmocka_unit_test(test_a_connection_that_stays_open_ends_with_done),
        cmocka_unit_test(test_who_leaves_with_the_whole_answer_is_charged),
        cmocka_unit_test(test_who_gives_up_has_not_answered),
        cmocka_unit_test(test_streams_as_servers_write_them),
        cmocka_unit_test(test_cuts_do_not_change_what_is_passed_on),
        cmocka_unit_test(test_what_is_held_is_bounded),
        cmocka_unit_test(test_an_error_of_the_request_in_a_stream_is_its_own),
        cmocka_unit_test(test_an_error_of_the_endpoint_in_a_stream_is_tried_elsewhere),
        cmocka_unit_test(test_two_that_say_the_same_are_believed),
        cmocka_unit_test(test_an_error_with_status_200_has_its_own),
        cmocka_unit_test(test_what_is_said_of_our_key_stays_here),
        cmocka_unit_test(test_who_refuses_our_key_is_out_at_once),
        cmocka_unit_test(test_a_403_of_all_is_nobodys_fault),
        cmocka_unit_test(test_who_refuses_our_option_is_asked_without_it),
        cmocka_unit_test(test_who_asks_for_the_option_himself_hears_of_it),
        cmocka_unit_test(test_the_first_retry_comes_within_fifty_milliseconds),
        cmocka_unit_test(test_nobody_waits_beside_an_idle_endpoint),
        cmocka_unit_test(test_a_fallback_has_its_own_patience),
        cmocka_unit_test(test_a_large_call_does_not_wait_for_an_empty_endpoint),
        cmocka_unit_test(test_images_do_not_teach_what_text_takes),
        cmocka_unit_test(test_whole_answers_do_not_teach_how_fast_prompts_are_read),
        cmocka_unit_test(test_what_is_played_back_counts_as_it_did),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
