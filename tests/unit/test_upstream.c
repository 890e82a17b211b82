/* Requests to a model server, and what comes back. */
#include "upstream_fixture.h"

/* ---- whole answers ---- */

static void on_written(struct bufferevent *io, void *user)
{
    (void)io;
    drop_peer(user);
}

/* Says it and ends the connection. */
static void put_last(struct peer *p, const char *text)
{
    put(p, text);
    if (text[0] == '\0')
        drop_peer(p);
    else
        bufferevent_setcb(p->io, NULL, on_written, NULL, p);
}

static void say_last(struct world *w, struct peer *p)
{
    put_last(p, w->say);
}

static void asks_and_hears(void **state)
{
    struct world *w = begin(say);
    struct asked a = { 0 };
    static const char *const headers[] = { "x-request-id: 7", "traceparent: 00-1-2-01" };
    struct cox_slice pieces[] = { cox_slice_str("{\"a\""), cox_slice(NULL, 0), cox_slice_str(":1}") };
    const char *request;

    (void)state;
    w->target.bearer = "secret";
    w->say = "HTTP/1.1 200 OK\r\nContent-Type:  text/event-stream; x \r\nServer: it\r\nRETRY-AFTER: 3\r\n"
             "x-request-id: abc\r\nContent-Length: 5\r\n\r\nhello";
    ask_with(w, &a,
             (struct upstream_request){ .body = pieces, .n_body = 3, .headers = headers, .n_headers = 2 });
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_OK);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.content_type, "text/event-stream; x");
    assert_string_equal(a.retry_after, "3");
    assert_string_equal(a.request_id, "abc");
    assert_string_equal(a.server, "it");
    assert_string_equal(cox_buf_cstr(&a.body), "hello");
    request = cox_buf_cstr(&w->request);
    assert_memory_equal(request, "POST /v1/x HTTP/1.1\r\n", 21);
    assert_non_null(strstr(request, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(request, "\r\nAuthorization: Bearer secret\r\n"));
    assert_non_null(strstr(request, "\r\nx-request-id: 7\r\n"));
    assert_non_null(strstr(request, "\r\ntraceparent: 00-1-2-01\r\n"));
    assert_non_null(strstr(request, "\r\n\r\n{\"a\":1}"));
    assert_null(strcasestr(request, "expect:"));
    assert_null(strcasestr(request, "accept-encoding:"));
    asked_fini(&a);
    end(w);
}

static void reuses_connections(void **state)
{
    struct world *w = begin(say);

    (void)state;
    w->say = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
    for (int i = 0; i < 20; i++) {
        struct asked a = { 0 };

        ask_with(w, &a,
                 i % 3 == 2 ? (struct upstream_request){ .method = "GET" }
                            : (struct upstream_request){ .body = &hello, .n_body = 1 });
        wait_end(&a);
        assert_int_equal(a.end, UPSTREAM_OK);
        assert_int_equal(a.status, 404);
        assert_memory_equal(w->request.data, i % 3 == 2 ? "GET " : "POST", 4);
        assert_true((strcasestr(cox_buf_cstr(&w->request), "content-type") == NULL) == (i % 3 == 2));
        asked_fini(&a);
    }
    assert_int_equal(w->n_connections, 1);
    end(w);
}

static void keeps_none_while_sockets_are_few(void **state)
{
    struct world *w = begin(say);

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    upstream_destroy(w->u);
    w->u = upstream_create(&(struct upstream_config){ .base = w->base, .sockets_max = 1 });
    for (unsigned i = 0; i < 3; i++) {
        struct asked a = { 0 };

        ask_with(w, &a, (struct upstream_request){ .method = "GET" });
        wait_end(&a);
        assert_int_equal(a.end, UPSTREAM_OK);
        assert_int_equal(w->n_connections, i + 1);
        asked_fini(&a);
    }
    end(w);
}

#define MANY_SERVERS 300

static void ask_all(struct world *w, struct upstream_target *targets, unsigned at_once)
{
    static struct asked all[MANY_SERVERS];

    memset(all, 0, sizeof(all));
    for (unsigned i = 0; i < MANY_SERVERS; i++) {
        ask_with(w, &all[i], (struct upstream_request){ .method = "GET", .target = &targets[i] });
        if (i % at_once == at_once - 1)
            wait_end(&all[i]);
    }
    for (unsigned i = 0; i < MANY_SERVERS; i++) {
        wait_end(&all[i]);
        assert_int_equal(all[i].end, UPSTREAM_OK);
        asked_fini(&all[i]);
    }
}

static void keeps_a_connection_to_each_of_many_servers(void **state)
{
    struct world *w = begin(say);
    static struct upstream_target targets[MANY_SERVERS];
    static struct evconnlistener *listeners[MANY_SERVERS];

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (unsigned i = 0; i < MANY_SERVERS; i++) {
        if (i > 0) {
            listeners[i] = w->listener;
            listen_at(w, AF_INET);
        }
        targets[i] = (struct upstream_target){ .url = cox_asprintf("%s/metrics", w->url) };
    }
    ask_all(w, targets, 1);
    ask_all(w, targets, MANY_SERVERS); /* all at once */
    ask_all(w, targets, 7);
    ask_all(w, targets, 1);
    assert_int_equal(w->n_connections, MANY_SERVERS);
    assert_int_equal(w->n_requests, 4 * MANY_SERVERS);
    for (unsigned i = 0; i < MANY_SERVERS; i++) {
        if (i > 0)
            evconnlistener_free(listeners[i]);
        cox_free((char *)(uintptr_t)targets[i].url);
    }
    end(w);
}

static void echo_length(struct world *w, struct peer *p)
{
    char text[100], length[30];
    uint64_t sum = 0;
    const uint8_t *body = memmem(w->request.data, w->request.len, "\r\n\r\n", 4);
    size_t len;

    assert_non_null(body);
    body += 4;
    len = (size_t)(w->request.data + w->request.len - body);
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + body[i];
    snprintf(length, sizeof(length), "%zu:%llx", len, (unsigned long long)sum);
    snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(length), length);
    put(p, text);
}

static void sends_bodies_of_any_size(void **state)
{
    static const size_t sizes[] = { 0, 1, 60 << 10, (60 << 10) + 1, 400000, 3 << 20, 5 };
    struct world *w = begin(echo_length);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct asked a = { 0 };
        uint8_t *data = cox_alloc(sizes[i] + 1);
        size_t third = sizes[i] / 3;
        struct cox_slice pieces[] = { cox_slice(data, third), cox_slice(data + third, third),
                                      cox_slice(data + 2 * third, sizes[i] - 2 * third) };
        uint64_t sum = 0;
        char expected[30];

        for (size_t k = 0; k < sizes[i]; k++) {
            data[k] = (uint8_t)(k * 7 + k / 255);
            sum = sum * 31 + data[k];
        }
        snprintf(expected, sizeof(expected), "%zu:%llx", sizes[i], (unsigned long long)sum);
        ask_with(w, &a, (struct upstream_request){ .body = pieces, .n_body = 3 });
        wait_end(&a);
        assert_int_equal(a.end, UPSTREAM_OK);
        assert_string_equal(cox_buf_cstr(&a.body), expected);
        asked_fini(&a);
        cox_free(data);
    }
    assert_int_equal(w->n_connections, 1);
    end(w);
}

static void speaks_to_ipv6(void **state)
{
    struct world *w = begin_at(AF_INET6);
    struct asked a = { 0 };

    (void)state;
    if (!w->listener) {
        end(w);
        skip();
    }
    w->on_request = say;
    w->say = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n6";
    ask(w, &a);
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_OK);
    assert_string_equal(cox_buf_cstr(&a.body), "6");
    asked_fini(&a);
    end(w);
}

/* What a server may say, and what that is. */
static void knows_ends_from_ends(void **state)
{
    static const struct {
        const char *say, *body;
        enum upstream_end end;
        bool closes;
    } cases[] = {
        { "HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end", UPSTREAM_OK, true },
        { "HTTP/1.1 100 Continue\r\nServer: x\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n"
          "Content-Length: 1\r\n\r\n1",
          "1", UPSTREAM_OK, false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: "
          "1\r\n\r\n",
          "abcde", UPSTREAM_OK, false },
        { "HTTP/1.1 204 No Content\r\n\r\n", "", UPSTREAM_OK, false },
        { "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "no", UPSTREAM_OK, false },
        { "HTTP/1.0 200 OK\r\n\r\nold", "old", UPSTREAM_OK, true },
        { "HTTP/1.1 301 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", "", UPSTREAM_OK, false },
        { "", "", UPSTREAM_BROKEN, true },
        { "HTTP/1.1 200 OK\r\nContent-Le", "", UPSTREAM_BROKEN, true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "half", UPSTREAM_BROKEN, true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "ab", UPSTREAM_BROKEN, true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "ab", UPSTREAM_BROKEN, true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nab", "", UPSTREAM_PROTOCOL, false },
        { "220 mail.example ESMTP\r\n", "", UPSTREAM_PROTOCOL, true },
        { "\x16\x03\x01 garbage\r\n\r\n", "", UPSTREAM_PROTOCOL, true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\nContent-Length: -1\r\n\r\n", "", UPSTREAM_PROTOCOL,
          false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world *w = begin(cases[i].closes ? say_last : say);
        struct asked a = { 0 };

        w->say = cases[i].say;
        ask(w, &a);
        wait_end(&a);
        if (a.end != cases[i].end || strcmp(cox_buf_cstr(&a.body), cases[i].body) != 0)
            fail_msg("%s: %s (%s), '%s'", cases[i].say, upstream_end_text(a.end), a.message,
                     cox_buf_cstr(&a.body));
        assert_true((a.message[0] == '\0') == (a.end == UPSTREAM_OK));
        assert_int_equal(a.n_heads, a.end == UPSTREAM_OK || a.body.len > 0 || a.status > 0);
        asked_fini(&a);
        end(w);
    }
}

static void tells_only_the_last_head(void **state)
{
    struct world *w = begin(say);
    struct asked a = { 0 };

    (void)state;
    w->say = "HTTP/1.1 103 Early Hints\r\nServer: early\r\nContent-Type: early\r\n\r\n"
             "HTTP/1.1 200 OK\r\nServer: late\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
             "Server: trailer\r\n\r\n";
    ask(w, &a);
    wait_end(&a);
    assert_int_equal(a.n_heads, 1);
    assert_string_equal(a.server, "late");
    assert_string_equal(a.content_type, "");
    asked_fini(&a);
    end(w);
}

static void say_long_head(struct world *w, struct peer *p)
{
    (void)w;
    put(p, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 3000; i++)
        put(p, "x-filler: 0123456789012345678901234567890123456789\r\n");
}

static void refuses_what_is_too_large(void **state)
{
    struct world *w = begin(say_long_head);
    struct asked a = { 0 }, b = { 0 }, c = { 0 };

    (void)state;
    ask(w, &a);
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_PROTOCOL);
    assert_non_null(strstr(a.message, "64 KiB"));
    w->on_request = say_long_body;
    w->say = "HTTP/1.1 200 OK\r\n\r\n";
    ask(w, &b);
    wait_end(&b);
    assert_int_equal(b.end, UPSTREAM_PROTOCOL);
    assert_non_null(strstr(b.message, "64 MiB"));
    assert_true(b.body.len <= 64 << 20);
    /* A stream may be as long as it likes. */
    w->say = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 68157440\r\n\r\n";
    ask(w, &c);
    wait_end(&c);
    assert_int_equal(c.end, UPSTREAM_OK);
    assert_int_equal(c.body.len, 65 << 20);
    asked_fini(&a);
    asked_fini(&b);
    asked_fini(&c);
    end(w);
}

static void says_when_nobody_listens(void **state)
{
    struct world *w = begin(say);
    struct asked a = { 0 };

    (void)state;
    evconnlistener_free(w->listener);
    w->listener = NULL;
    ask(w, &a);
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_CONNECT);
    assert_true(a.message[0] != '\0');
    w->target.url = "http://name.invalid/";
    a = (struct asked){ 0 };
    ask(w, &a);
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_CONNECT);
    w->target.url = "ftp://127.0.0.1/";
    a = (struct asked){ 0 };
    ask(w, &a);
    wait_end(&a);
    assert_int_not_equal(a.end, UPSTREAM_OK);
    end(w);
}

/* A kept connection that the server has ended meanwhile is no failure. */
static void gets_over_dead_connections(void **state)
{
    struct world *w = begin(say);
    struct asked a = { 0 }, b = { 0 }, c = { 0 };
    struct cox_slice big = { cox_calloc(1, 200000), 200000 };

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1";
    ask(w, &a);
    wait_end(&a);
    drop_peer(w->peers);
    ask(w, &b);
    wait_end(&b);
    assert_int_equal(b.end, UPSTREAM_OK);
    assert_int_equal(w->n_connections, 2);
    /* The same when it was heard of before, and with a body that is read again. */
    drop_peer(w->peers);
    event_base_loop(w->base, EVLOOP_NONBLOCK);
    ask_with(w, &c, (struct upstream_request){ .body = &big, .n_body = 1 });
    wait_end(&c);
    assert_int_equal(c.end, UPSTREAM_OK);
    assert_int_equal(w->n_connections, 3);
    cox_free((void *)(uintptr_t)big.data);
    asked_fini(&a);
    asked_fini(&b);
    asked_fini(&c);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asks_and_hears),
        cmocka_unit_test(reuses_connections),
        cmocka_unit_test(keeps_none_while_sockets_are_few),
        cmocka_unit_test(keeps_a_connection_to_each_of_many_servers),
        cmocka_unit_test(sends_bodies_of_any_size),
        cmocka_unit_test(speaks_to_ipv6),
        cmocka_unit_test(knows_ends_from_ends),
        cmocka_unit_test(tells_only_the_last_head),
        cmocka_unit_test(refuses_what_is_too_large),
        cmocka_unit_test(says_when_nobody_listens),
        cmocka_unit_test(gets_over_dead_connections),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
