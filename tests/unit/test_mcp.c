/* The client of the Model Context Protocol against scripted servers: what it says, and what it makes of
 * answers. */
#include "check.h"

#include "mcp/client.h"
#include "mcp/events.h"
#include "mcp/tools.h"

#include "cox/base/rng.h"
#include "cox/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SENT_MAX 64

struct sent {
    uint64_t id;
    char method[40];
    bool modern;
    char version[16];
    struct cox_buf text, params;
};

struct bench {
    struct mcp_client *client;
    struct sent sent[SENT_MAX];
    size_t n_sent, n_ready, n_broken, n_dropped;
};

struct question {
    struct mcp_request request;
    bool done;
    struct outcome outcome;
    struct cox_buf log;
};

static void on_send(void *user, const struct mcp_outgoing *m)
{
    struct bench *b = user;
    struct sent *s = &b->sent[b->n_sent++];

    assert_true(b->n_sent < SENT_MAX);
    assert_int_equal(cox_json_check(m->text, NULL), COX_OK);
    s->id = m->id;
    snprintf(s->method, sizeof(s->method), "%s", m->method ? m->method : "");
    snprintf(s->version, sizeof(s->version), "%s", m->version ? m->version : "");
    s->modern = m->modern;
    cox_buf_append_slice(&s->text, m->text);
    cox_buf_append_slice(&s->params, m->params);
}

static void on_drop(void *user, uint64_t id)
{
    (void)id;
    ((struct bench *)user)->n_dropped++;
}

static void on_ready(void *user)
{
    ((struct bench *)user)->n_ready++;
}

static void on_broken(void *user)
{
    ((struct bench *)user)->n_broken++;
}

static void begin(struct bench *b, bool http)
{
    static const struct mcp_client_ops ops = {
        .send = on_send, .drop = on_drop, .ready = on_ready, .broken = on_broken
    };

    *b = (struct bench){ 0 };
    b->client = mcp_client_create(&ops, b, http);
}

static void finish(struct bench *b)
{
    for (size_t i = 0; i < b->n_sent; i++) {
        cox_buf_fini(&b->sent[i].text);
        cox_buf_fini(&b->sent[i].params);
    }
    mcp_client_destroy(b->client);
}

static void on_done(struct mcp_request *r, struct outcome *o)
{
    struct question *q = r->user;

    assert_false(q->done);
    q->done = true;
    q->outcome = *o;
    outcome_init(o);
}

static void on_log(struct mcp_request *r, struct cox_slice text)
{
    cox_buf_append_slice(&((struct question *)r->user)->log, text);
}

/* tool NULL: the list. */
static void ask(struct bench *b, struct question *q, const char *tool, const char *arguments)
{
    *q = (struct question){ .request = { .what = tool ? MCP_CALL_TOOL : MCP_LIST_TOOLS,
                                         .tool = cox_slice_str(tool),
                                         .arguments = cox_slice_str(arguments),
                                         .traceparent = cox_slice_str("00-1-2-01"),
                                         .now_ms = 1000,
                                         .on_done = on_done,
                                         .on_log = on_log } };
    q->request.user = q;
    outcome_init(&q->outcome);
    mcp_client_ask(b->client, &q->request);
}

static void drop(struct question *q)
{
    outcome_fini(&q->outcome);
    cox_buf_fini(&q->log);
}

static struct sent *last(struct bench *b)
{
    return &b->sent[b->n_sent - 1];
}

/* Answers the last that was sent: `format` has one %llu, its id. */
static void say(struct bench *b, const char *format)
{
    char text[2000];

    snprintf(text, sizeof(text), format, (unsigned long long)last(b)->id);
    mcp_client_take(b->client, cox_slice_str(text), 0);
}

static void expect_sent(struct bench *b, const char *method, const char *part)
{
    assert_string_equal(last(b)->method, method);
    if (!strstr(cox_buf_cstr(&last(b)->text), part))
        fail_msg("expected %s in %s", part, cox_buf_cstr(&last(b)->text));
}

static void expect_end(struct question *q, enum cox_code code, const char *part)
{
    struct cox_buf *text = code == COX_CODE_NONE ? &q->outcome.output : &q->outcome.message;

    assert_true(q->done);
    if (q->outcome.code != code || !strstr(cox_buf_cstr(text), part))
        fail_msg("expected %s with %s, found %s with %s", cox_code_text(code), part,
                 cox_code_text(q->outcome.code), cox_buf_cstr(text));
    if (code == COX_CODE_NONE)
        assert_int_equal(cox_json_check(cox_buf_slice(&q->outcome.output), NULL), COX_OK);
    drop(q);
}

#define RESULT(body) "{\"jsonrpc\":\"2.0\",\"id\":%llu,\"result\":{" body "}}"
#define ERROR(code, more)                                                                                    \
    "{\"jsonrpc\":\"2.0\",\"id\":%llu,\"error\":{\"code\":" code ",\"message\":\"no\"" more "}}"
#define TEXT(text) RESULT("\"content\":[{\"type\":\"text\",\"text\":\"" text "\"}]")

static void be_legacy(struct bench *b)
{
    expect_sent(b, "server/discover", "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"");
    assert_true(last(b)->modern);
    assert_string_equal(last(b)->version, "2026-07-28");
    say(b, ERROR("-32601", ""));
    expect_sent(b, "initialize", "\"protocolVersion\":\"2025-11-25\"");
    assert_string_equal(last(b)->version, "");
    say(b, RESULT("\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"serverInfo\":{}"));
    assert_int_equal(b->n_ready, 1);
}

static void be_modern(struct bench *b)
{
    say(b, RESULT("\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\",\"2025-11-25\"],"
                  "\"capabilities\":{}"));
    assert_int_equal(b->n_ready, 1);
}

/* ---------------------------------------------------------------- the tests */

static void test_the_older_era(void **state)
{
    struct question q;
    struct bench b;

    (void)state;
    begin(&b, false);
    ask(&b, &q, "\"sum\"", "{\"a\":1}");
    be_legacy(&b);
    assert_string_equal(b.sent[2].method, "notifications/initialized");
    assert_string_equal(b.sent[2].version, "2025-06-18");
    expect_sent(&b, "tools/call",
                "\"name\":\"sum\",\"arguments\":{\"a\":1},\"_meta\":{\"traceparent\":\"00-1-2-01\"");
    assert_null(strstr(cox_buf_cstr(&last(&b)->text), "io.modelcontextprotocol"));
    assert_false(last(&b)->modern);
    say(&b, TEXT("3"));
    expect_end(
        &q, COX_CODE_NONE,
        "{\"content\":[{\"type\":\"text\",\"text\":\"3\"}],\"text\":\"3\",\"structured_content\":null}");
    finish(&b);
}

static void test_the_newer_era(void **state)
{
    struct question q;
    struct bench b;

    (void)state;
    begin(&b, true);
    ask(&b, &q, "\"sum\"", "{}");
    be_modern(&b);
    expect_sent(&b, "tools/call", "\"io.modelcontextprotocol/clientCapabilities\":{}");
    assert_true(last(&b)->modern && b.n_sent == 2);
    say(&b, RESULT("\"resultType\":\"complete\",\"content\":[],\"structuredContent\":[1]"));
    expect_end(&q, COX_CODE_NONE, "\"structured_content\":[1]");
    finish(&b);
}

static void test_which_era(void **state)
{
    static const struct {
        const char *answer; /* to server/discover */
        const char *method; /* what follows; NULL: nothing, and why */
        const char *why;
    } cases[] = {
        { ERROR("-32601", ""), "initialize", NULL },
        { ERROR("-32000", ""), "initialize", NULL },
        { RESULT(""), "initialize", NULL },
        { ERROR("-32022", ",\"data\":{\"supported\":[\"2026-07-28\"]}"), "tools/list", NULL },
        { ERROR("-32022", ",\"data\":{\"supported\":[\"2025-03-26\"]}"), "initialize", NULL },
        { ERROR("-32022", ",\"data\":{\"supported\":[\"2099-01-01\"]}"), NULL, "2099-01-01" },
        { ERROR("-32021", ""), NULL, "refuses this client" },
        { RESULT("\"supportedVersions\":[\"2025-11-25\"]"), "initialize", NULL },
        { RESULT("\"supportedVersions\":[]"), NULL, "expected one of 2024-11-05 to 2026-07-28" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct question q;
        struct bench b;

        begin(&b, false);
        ask(&b, &q, NULL, NULL);
        say(&b, cases[i].answer);
        assert_int_equal(b.n_broken, cases[i].method ? 0 : 1);
        if (cases[i].method) {
            assert_string_equal(last(&b)->method, cases[i].method);
            mcp_client_gone(b.client, COX_CODE_UNAVAILABLE, cox_slice_str("gone"));
            expect_end(&q, COX_CODE_UNAVAILABLE, "gone");
        } else {
            expect_end(&q, COX_CODE_INPUT_INVALID, cases[i].why);
        }
        finish(&b);
    }
}

/* A server may be slow to begin, or never answer what it does not know. */
static void test_a_late_probe(void **state)
{
    struct question q;
    struct bench b;
    uint64_t probe;

    (void)state;
    begin(&b, false);
    ask(&b, &q, "\"t\"", "{}");
    probe = last(&b)->id;
    mcp_client_probe_late(b.client);
    expect_sent(&b, "initialize", "2025-11-25");
    say(&b, RESULT("\"protocolVersion\":\"2024-11-05\""));
    expect_sent(&b, "tools/call", "\"t\"");
    say(&b, TEXT("x"));
    expect_end(&q, COX_CODE_NONE, "x");
    finish(&b);

    /* It was slow, and is of the newer era. */
    begin(&b, false);
    ask(&b, &q, "\"t\"", "{}");
    mcp_client_probe_late(b.client);
    b.sent[1].id = probe;
    say(&b, RESULT("\"supportedVersions\":[\"2026-07-28\"]"));
    expect_sent(&b, "tools/call", "2026-07-28");
    mcp_client_gone(b.client, COX_CODE_UNAVAILABLE, cox_slice_str("gone"));
    expect_end(&q, COX_CODE_UNAVAILABLE, "gone");
    finish(&b);
}

static void test_a_list(void **state)
{
    struct question q, again;
    struct bench b;

    (void)state;
    begin(&b, false);
    ask(&b, &q, NULL, NULL);
    be_legacy(&b);
    say(&b, RESULT("\"tools\":[{\"name\":\"a\",\"description\":\"A\",\"inputSchema\":{\"type\":\"object\"},"
                   "\"outputSchema\":"
                   "{}},{\"name\":\"a\",\"inputSchema\":{}},{\"name\":\"b\"}],\"nextCursor\":\"c1\""));
    expect_sent(&b, "tools/list", "\"cursor\":\"c1\"");
    say(&b, RESULT("\"tools\":[{\"name\":\"c\",\"inputSchema\":{}}]"));
    assert_non_null(
        strstr(cox_buf_cstr(&q.log), "left out the tool \"a\": there is another one of that name"));
    assert_non_null(
        strstr(cox_buf_cstr(&q.log), "left out the tool \"b\": expected an object as its input schema"));
    expect_end(&q, COX_CODE_NONE,
               "{\"tools\":[{\"name\":\"a\",\"description\":\"A\",\"input_schema\":{\"type\":\"object\"},"
               "\"output_schema\":{}}"
               ",{\"name\":\"c\",\"input_schema\":{}}]}");
    /* It is kept for a while, until the server says that it has changed. */
    ask(&b, &again, NULL, NULL);
    expect_end(&again, COX_CODE_NONE, "\"c\"");
    mcp_client_take(
        b.client, cox_slice_str("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}"), 0);
    ask(&b, &again, NULL, NULL);
    assert_false(again.done);
    say(&b, RESULT("\"tools\":[]"));
    expect_end(&again, COX_CODE_NONE, "{\"tools\":[]}");
    finish(&b);
}

static void test_lists_without_end(void **state)
{
    struct question q;
    struct bench b;

    (void)state;
    begin(&b, false);
    ask(&b, &q, NULL, NULL);
    be_legacy(&b);
    for (int i = 0; !q.done && i < 2000; i++) {
        char text[300];

        snprintf(text, sizeof(text),
                 "{\"jsonrpc\":\"2.0\",\"id\":%llu,\"result\":{\"tools\":[],\"nextCursor\":\"%d\"}}",
                 (unsigned long long)last(&b)->id, i);
        while (b.n_sent > 3) { /* there is no room for so many */
            b.n_sent--;
            cox_buf_fini(&b.sent[b.n_sent].text);
            cox_buf_fini(&b.sent[b.n_sent].params);
            b.sent[b.n_sent] = (struct sent){ 0 };
        }
        mcp_client_take(b.client, cox_slice_str(text), 0);
    }
    expect_end(&q, COX_CODE_OUTPUT_INVALID, "at most 1000 pages");
    finish(&b);
}

static void test_failures(void **state)
{
    static const struct {
        const char *answer;
        enum cox_code code;
        const char *message;
    } cases[] = {
        { RESULT("\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}],"
                 "\"isError\":true"),
          COX_CODE_INTERNAL, "a\nb" },
        { RESULT("\"content\":[],\"isError\":true"), COX_CODE_INTERNAL, "said nothing about it" },
        { RESULT(""), COX_CODE_OUTPUT_INVALID, "expected \"content\" or \"structuredContent\"" },
        { RESULT("\"content\":1"), COX_CODE_OUTPUT_INVALID, "expected \"content\" to be a list" },
        { RESULT("\"content\":[1]"), COX_CODE_OUTPUT_INVALID, "objects with a \"type\"" },
        { RESULT("\"resultType\":\"dream\",\"content\":[]"), COX_CODE_OUTPUT_INVALID, "another type" },
        { RESULT("\"resultType\":\"input_required\",\"inputRequests\":{\"x\":{\"method\":\"sampling/"
                 "createMessage\"}}"),
          COX_CODE_INPUT_INVALID, "sampling/createMessage" },
        { ERROR("-32602", ""), COX_CODE_INPUT_INVALID, "error -32602: no" },
        { ERROR("-32603", ""), COX_CODE_INTERNAL, "error -32603: no" },
        { "{\"jsonrpc\":\"2.0\",\"id\":%llu,\"result\":{\"content\":[}}", COX_CODE_OUTPUT_INVALID,
          "is no JSON" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct question q;
        struct bench b;

        begin(&b, false);
        ask(&b, &q, "\"t\"", "{}");
        be_legacy(&b);
        say(&b, cases[i].answer);
        expect_end(&q, cases[i].code, cases[i].message);
        assert_false(mcp_client_is_broken(b.client));
        finish(&b);
    }
}

/* The same call again and again, with what the server gives along. */
static void test_rounds(void **state)
{
    struct question q;
    struct bench b;
    uint64_t id = 0;

    (void)state;
    begin(&b, false);
    ask(&b, &q, "\"t\"", "{}");
    be_modern(&b);
    for (int i = 0; !q.done && i < 20; i++) {
        assert_true(last(&b)->id > id);
        id = last(&b)->id;
        if (i > 0)
            expect_sent(&b, "tools/call", "\"requestState\":\"s\\u0041\"");
        say(&b, RESULT("\"resultType\":\"input_required\",\"requestState\":\"s\\u0041\""));
    }
    expect_end(&q, COX_CODE_OUTPUT_INVALID, "again and again");
    finish(&b);
}

static void test_what_the_server_says_beside(void **state)
{
    struct question q;
    struct bench b;
    char text[200];

    (void)state;
    begin(&b, false);
    ask(&b, &q, "\"t\"", "{}");
    be_legacy(&b);
    snprintf(text, sizeof(text),
             "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/"
             "progress\",\"params\":{\"progressToken\":%llu,\"progress\":1,"
             "\"total\":4,\"message\":\"on\"}}",
             (unsigned long long)last(&b)->id);
    mcp_client_take(b.client, cox_slice_str(text), 0);
    mcp_client_take(
        b.client,
        cox_slice_str(
            "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\","
            "\"data\":{\"a\":1}}}"),
        0);
    mcp_client_say(b.client, cox_slice_str("stderr\n"));
    assert_string_equal(cox_buf_cstr(&q.log), "progress 1/4: on\ninfo: {\"a\":1}\nstderr\n");
    mcp_client_take(b.client, cox_slice_str("{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}"), 0);
    expect_sent(&b, "", "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"result\":{}}");
    assert_int_equal(last(&b)->id, 0);
    mcp_client_take(b.client, cox_slice_str("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"roots/list\"}"), 0);
    expect_sent(&b, "", "\"id\":7,\"error\":{\"code\":-32601");
    assert_false(q.done);
    mcp_client_cancel(b.client, &q.request);
    expect_sent(&b, "notifications/cancelled", "\"requestId\":");
    assert_int_equal(b.n_dropped, 1);
    assert_false(q.done);
    drop(&q);
    finish(&b);
}

static void test_batches(void **state)
{
    struct question q, r;
    struct bench b;
    char text[400];

    (void)state;
    begin(&b, false);
    ask(&b, &q, "\"t\"", "{}");
    be_legacy(&b);
    ask(&b, &r, "\"t\"", "{}");
    snprintf(text, sizeof(text),
             "[{\"jsonrpc\":\"2.0\",\"id\":%llu,\"result\":{\"content\":[]}},{\"jsonrpc\":\"2.0\",\"id\":%"
             "llu,\"result\":{"
             "\"content\":[{\"type\":\"text\",\"text\":\"first\"}]}}]",
             (unsigned long long)last(&b)->id, (unsigned long long)last(&b)->id - 1);
    mcp_client_take(b.client, cox_slice_str(text), 0);
    expect_end(&q, COX_CODE_NONE, "first");
    expect_end(&r, COX_CODE_NONE, "\"content\":[]");
    finish(&b);
}

/* Answers to nobody are borne with for a while. */
static void test_odd_ones(void **state)
{
    static const char *const odd[] = { "{\"jsonrpc\":\"2.0\",\"id\":4711,\"result\":{}}", "garbage", "{}",
                                       "[1]", "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{}}" };

    (void)state;
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        struct question q;
        struct bench b;

        begin(&b, false);
        ask(&b, &q, "\"t\"", "{}");
        be_legacy(&b);
        for (unsigned n = 0; n < MCP_ODD_MAX; n++)
            mcp_client_take(b.client, cox_slice_str(odd[i]), 0);
        assert_false(q.done);
        mcp_client_take(b.client, cox_slice_str(odd[i]), 0);
        expect_end(&q, COX_CODE_OUTPUT_INVALID, "more than 1000 messages");
        assert_int_equal(b.n_broken, 1);
        finish(&b);
    }
}

static void test_a_lost_session(void **state)
{
    struct question q, r;
    struct bench b;
    uint64_t first;

    (void)state;
    begin(&b, true);
    ask(&b, &q, "\"t\"", "{}");
    be_legacy(&b);
    first = last(&b)->id;
    ask(&b, &r, "\"u\"", "{}");
    mcp_client_rejected(b.client, first, 404, cox_slice_str("gone"), true);
    expect_sent(&b, "initialize", "");
    mcp_client_rejected(b.client, first + 1, 404, cox_slice_str("gone"), true); /* of the same session */
    expect_sent(&b, "initialize", "");
    say(&b, RESULT("\"protocolVersion\":\"2025-11-25\""));
    expect_sent(&b, "tools/call", "\"u\"");
    mcp_client_rejected(b.client, last(&b)->id, 404, cox_slice_str("gone"), true);
    expect_end(&r, COX_CODE_UNAVAILABLE, "loses its session");
    b.n_sent--;
    expect_sent(&b, "tools/call", "\"t\"");
    say(&b, TEXT("x"));
    b.n_sent++;
    expect_end(&q, COX_CODE_NONE, "x");
    finish(&b);
}

static void test_what_http_says(void **state)
{
    static const struct {
        long status;
        const char *body;
        enum cox_code code;
        const char *message;
    } cases[] = {
        { 401, "", COX_CODE_DENIED, "expected `headers` with Authorization" },
        { 503, "later", COX_CODE_UNAVAILABLE, "503: later" },
        { 429, "", COX_CODE_UNAVAILABLE, "429" },
        { 307, "", COX_CODE_INPUT_INVALID, "redirects are not followed" },
        { 404, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32601,\"message\":\"none\"}}",
          COX_CODE_INPUT_INVALID, "error -32601: none" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct question q;
        struct bench b;

        begin(&b, true);
        ask(&b, &q, "\"t\"", "{}");
        mcp_client_rejected(b.client, last(&b)->id, 400, cox_slice_str("what?"), false);
        expect_sent(&b, "initialize", "");
        say(&b, RESULT("\"protocolVersion\":\"2025-11-25\""));
        mcp_client_rejected(b.client, last(&b)->id, cases[i].status, cox_slice_str(cases[i].body), false);
        expect_end(&q, cases[i].code, cases[i].message);
        finish(&b);
    }
}

/* ---------------------------------------------------------------- headers */

static void test_parameters_as_headers(void **state)
{
    struct question q;
    struct bench b;

    (void)state;
    begin(&b, true);
    ask(&b, &q, "\"sql\"", "{\"region\":\"us\",\"deep\":{\"n\":7},\"q\":\"x\"}");
    be_modern(&b);
    assert_int_equal(last(&b)->params.len, 0);
    /* What the tool wants is looked up when the server says that something is missing. */
    say(&b, ERROR("-32020", ""));
    expect_sent(&b, "tools/list", "");
    say(&b, RESULT("\"tools\":[{\"name\":\"sql\",\"inputSchema\":{\"properties\":{\"region\":{\"type\":"
                   "\"string\",\"x-mcp-header\":"
                   "\"Region\"},\"deep\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\","
                   "\"x-mcp-header\":\"N\"},"
                   "\"absent\":{\"type\":\"string\",\"x-mcp-header\":\"A\"}}}}}}]"));
    expect_sent(&b, "tools/call", "\"sql\"");
    assert_string_equal(cox_buf_cstr(&last(&b)->params), "Mcp-Param-Region: us\nMcp-Param-N: 7\n");
    say(&b, ERROR("-32020", "")); /* and once is enough */
    expect_end(&q, COX_CODE_INTERNAL, "-32020");
    finish(&b);
}

static void test_values_of_headers(void **state)
{
    static const char *const cases[][2] = {
        { "us-west1", "us-west1" },
        { "Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?=" },
        { " padded ", "=?base64?IHBhZGRlZCA=?=" },
        { "line1\nline2", "=?base64?bGluZTEKbGluZTI=?=" },
        { "=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=" },
        { "", "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cox_buf out = { 0 };

        mcp_header_put(&out, cox_slice_str(cases[i][0]));
        assert_string_equal(cox_buf_cstr(&out), cases[i][1]);
        cox_buf_fini(&out);
    }
}

static void test_schemas_that_ask_wrongly(void **state)
{
#define PROPERTY(body) "{\"properties\":{\"p\":{" body "}}}"
    static const struct {
        const char *schema;
        bool ok;
    } cases[] = {
        { "{}", true },
        { PROPERTY("\"type\":\"string\",\"x-mcp-header\":\"A\""), true },
        { PROPERTY("\"type\":\"number\",\"x-mcp-header\":\"A\""), false },
        { PROPERTY("\"type\":\"string\",\"x-mcp-header\":\"\""), false },
        { PROPERTY("\"type\":\"string\",\"x-mcp-header\":\"a b\""), false },
        { PROPERTY("\"type\":\"string\",\"x-mcp-header\":1"), false },
        { PROPERTY("\"items\":{\"type\":\"string\",\"x-mcp-header\":\"A\"}"), false },
        { PROPERTY("\"default\":{\"x-mcp-header\":\"A\"}"), true },
        { "{\"x-mcp-header\":\"A\"}", false },
        { "{\"anyOf\":[{\"properties\":{\"p\":{\"type\":\"string\",\"x-mcp-header\":\"A\"}}}]}", false },
        { "{\"properties\":{\"p\":{\"type\":\"string\",\"x-mcp-header\":\"A\"},\"q\":{\"type\":\"string\","
          "\"x-mcp-header\":\"a\"}}}",
          false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cox_buf out = { 0 };

        if (mcp_params_put(&out, cox_slice_str(cases[i].schema), cox_slice(NULL, 0)) != cases[i].ok)
            fail_msg("%s", cases[i].schema);
        cox_buf_fini(&out);
    }
}

/* ---------------------------------------------------------------- events */

static bool join(void *user, struct cox_slice data)
{
    cox_buf_append_slice(user, data);
    cox_buf_append_str(user, "|");
    return true;
}

static void test_events(void **state)
{
    static const char stream[] =
        "\xEF\xBB\xBFid: 1\r\ndata:\r\n\r\n: hush\nevent: message\ndata: {\"a\":\ndata: 1}\nid: 2\n\n"
        "retry: 250\n\ndata: b\r\rid: 3\ndata: cut";
    uint64_t seed = getenv("COX_TEST_SEED") ? strtoull(getenv("COX_TEST_SEED"), NULL, 10) : 1;
    struct cox_rng rng;

    (void)state;
    cox_rng_init(&rng, seed);
    for (int round = 0; round < 300; round++) {
        struct mcp_events e = { 0 };
        struct cox_buf out = { 0 };
        size_t at = 0;

        while (at < sizeof(stream) - 1) {
            size_t len = 1 + cox_rng_below(&rng, sizeof(stream));

            len = len < sizeof(stream) - 1 - at ? len : sizeof(stream) - 1 - at;
            assert_int_equal(mcp_events_feed(&e, cox_slice(stream + at, len), 100, join, &out), COX_OK);
            at += len;
        }
        if (strcmp(cox_buf_cstr(&out), "{\"a\":\n1}|b|") != 0)
            fail_msg("COX_TEST_SEED=%llu: %s", (unsigned long long)seed, cox_buf_cstr(&out));
        assert_string_equal(cox_buf_cstr(&e.last_id), "2");
        assert_int_equal(e.retry_ms, 250);
        assert_int_equal(e.n, 3);
        assert_int_equal(mcp_events_feed(&e, cox_slice(stream, sizeof(stream) - 1), 8, join, &out),
                         COX_ERR_FULL);
        mcp_events_fini(&e);
        cox_buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_older_era),
        cmocka_unit_test(test_the_newer_era),
        cmocka_unit_test(test_which_era),
        cmocka_unit_test(test_a_late_probe),
        cmocka_unit_test(test_a_list),
        cmocka_unit_test(test_lists_without_end),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_what_the_server_says_beside),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_odd_ones),
        cmocka_unit_test(test_a_lost_session),
        cmocka_unit_test(test_what_http_says),
        cmocka_unit_test(test_parameters_as_headers),
        cmocka_unit_test(test_values_of_headers),
        cmocka_unit_test(test_schemas_that_ask_wrongly),
        cmocka_unit_test(test_events),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
