/* Requests that take too long, are cancelled, paused, and many. */
#include "upstream_fixture.h"

/* ---- timeouts ---- */

static void ask_in_time(struct world *w, struct asked *a, struct upstream_timeouts timeouts)
{
    ask_with(w, a, (struct upstream_request){ .body = &hello, .n_body = 1, .timeouts = timeouts });
}

static void no_connection_in_time(void **state)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    struct world *w = begin(say);
    struct asked asked = { 0 };
    int full = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fillers[3];
    char url[64];

    (void)state;
    /* Whoever comes to a queue that is full hears nothing. */
    assert_int_equal(bind(full, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(full, 0), 0);
    getsockname(full, (struct sockaddr *)&a, &len);
    for (size_t i = 0; i < ARRAY_LEN(fillers); i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(fillers[i], (struct sockaddr *)&a, sizeof(a));
    }
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", ntohs(a.sin_port));
    w->target.url = url;
    ask_in_time(w, &asked, (struct upstream_timeouts){ .connect_ms = 20 });
    wait_end(&asked);
    assert_int_equal(asked.end, UPSTREAM_CONNECT_TIMEOUT);
    for (size_t i = 0; i < ARRAY_LEN(fillers); i++)
        close(fillers[i]);
    close(full);
    end(w);
}

static void no_content_in_time(void **state)
{
    struct world *w = begin(say);
    struct asked a = { 0 };

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: a comment is no content\n\n";
    ask_in_time(w, &a, (struct upstream_timeouts){ .first_ms = 30, .stall_ms = 60000, .total_ms = 60000 });
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_FIRST_TIMEOUT);
    assert_string_equal(a.message, "no content within 30 ms");
    assert_int_equal(a.n_pieces, 1);
    while (w->n_closed == 0) /* and the server knows */
        turn(w);
    asked_fini(&a);
    end(w);
}

static void content_begins(struct asked *a)
{
    upstream_first(a->call);
}

static void stalls(void **state)
{
    struct world *w = begin(say);
    struct asked a = { .on_piece = content_begins };

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n";
    ask_in_time(w, &a, (struct upstream_timeouts){ .first_ms = 60000, .stall_ms = 30, .total_ms = 60000 });
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_STALL_TIMEOUT);
    assert_string_equal(a.message, "nothing came for 30 ms");
    asked_fini(&a);
    end(w);
}

static void say_more(evutil_socket_t fd, short what, void *user)
{
    struct world *w = user;

    (void)fd;
    (void)what;
    if (w->peers)
        put(w->peers, "data: y\n\n");
}

/* Every piece puts it off. The pieces come with a timer here: a slow machine is late with both. */
static void does_not_stall_while_pieces_come(void **state)
{
    struct world *w = begin(say);
    struct asked a = { .on_piece = content_begins };
    struct event *more = event_new(w->base, -1, EV_PERSIST, say_more, w);

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n";
    event_add(more, &(struct timeval){ .tv_usec = 10000 });
    ask_in_time(w, &a, (struct upstream_timeouts){ .stall_ms = 4000, .total_ms = 100 });
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_TOTAL_TIMEOUT);
    assert_string_equal(a.message, "not whole within 100 ms");
    assert_true(a.n_pieces > 1);
    event_free(more);
    asked_fini(&a);
    end(w);
}

/* ---- cancelling and pausing ---- */

static void cancel(struct asked *a)
{
    a->cancelled = true;
    upstream_cancel(a->call);
}

static void cancelling_closes_at_once(void **state)
{
    struct world *w = begin(say);
    struct asked a = { 0 }, never = { 0 };

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n";
    ask(w, &never);
    cancel(&never); /* before curl has seen it */
    ask(w, &a);
    while (a.n_pieces == 0)
        turn(w);
    assert_int_equal(w->n_connections, 1);
    cancel(&a);
    while (w->n_closed == 0)
        turn(w);
    assert_int_equal(w->n_requests, 1);
    asked_fini(&a);
    end(w);
}

static void cancel_here(struct asked *a)
{
    cancel(a);
}

static void cancels_from_inside(void **state)
{
    struct world *w = begin(say);
    struct asked a = { .on_piece = cancel_here }, b = { 0 };

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n1\r\ny\r\n0\r\n\r\n";
    ask(w, &a);
    while (w->n_closed == 0)
        turn(w);
    assert_int_equal(a.n_pieces, 1);
    ask(w, &b);
    wait_end(&b);
    assert_int_equal(b.end, UPSTREAM_OK);
    assert_string_equal(cox_buf_cstr(&b.body), "xy");
    asked_fini(&a);
    asked_fini(&b);
    end(w);
}

static struct asked *other;

static void cancel_other_and_ask(struct asked *a)
{
    a->on_piece = NULL;
    cancel(other);
    other = COX_NEW(struct asked);
    ask(a->w, other);
}

static void deals_with_others_from_inside(void **state)
{
    struct world *w = begin(say);
    struct asked a = { .on_piece = cancel_other_and_ask }, b = { 0 };

    (void)state;
    other = &b;
    w->say = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n";
    ask(w, &b);
    while (b.n_pieces == 0)
        turn(w);
    ask(w, &a);
    while (other == &b || other->n_pieces == 0 || w->n_closed == 0)
        turn(w);
    assert_int_equal(w->n_closed, 1);
    cancel(&a);
    cancel(other);
    asked_fini(other);
    cox_free(other);
    asked_fini(&a);
    asked_fini(&b);
    end(w);
}

static void pause_here(struct asked *a)
{
    upstream_pause(a->call, true);
}

static void a_paused_call_hears_nothing_and_does_not_stall(void **state)
{
    struct world *w = begin(say);
    struct asked a = { .on_piece = pause_here }, clock = { 0 };
    struct upstream_target nowhere = { .url = w->url };

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
             "1\r\na\r\n1\r\nb\r\n";
    ask_in_time(w, &a, (struct upstream_timeouts){ .stall_ms = 20 });
    upstream_first(a.call);
    while (a.n_pieces == 0)
        turn(w);
    put(w->peers, "1\r\nc\r\n0\r\n\r\n");
    /* Another call's timeout says that more time has passed than this one's stall allows. */
    w->say = "";
    ask_with(
        w, &clock,
        (struct upstream_request){ .target = &nowhere, .method = "GET", .timeouts = { .total_ms = 60 } });
    wait_end(&clock);
    assert_int_equal(clock.end, UPSTREAM_TOTAL_TIMEOUT);
    assert_int_equal(a.n_pieces, 1);
    assert_int_equal(a.n_ends, 0);
    a.on_piece = NULL;
    upstream_pause(a.call, false);
    assert_int_equal(a.n_pieces, 1); /* nothing from inside */
    wait_end(&a);
    assert_int_equal(a.end, UPSTREAM_OK);
    assert_string_equal(cox_buf_cstr(&a.body), "abc");
    asked_fini(&a);
    end(w);
}

/* What is not read does not pile up here: the server cannot go on. */
static void pausing_holds_the_server(void **state)
{
    struct world *w = begin(say_long_body);
    struct asked a = { .on_piece = pause_here };
    size_t left, before = 0;

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    ask(w, &a);
    while (a.n_pieces == 0)
        turn(w);
    do { /* until nothing moves any more */
        left = before;
        event_base_loop(w->base, EVLOOP_NONBLOCK);
        before = evbuffer_get_length(bufferevent_get_output(w->peers->io));
    } while (before != left);
    assert_true(left > 16 << 20);
    assert_int_equal(a.n_pieces, 1);
    cancel(&a);
    asked_fini(&a);
    end(w);
}

/* ---- many ---- */

static void many_at_once(void **state)
{
    enum { N = 300 };
    struct world *w = begin(say);
    struct asked *a = cox_calloc(N, sizeof(*a));
    unsigned n_ends = 0;

    (void)state;
    w->say =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    for (int i = 0; i < N; i++)
        ask(w, &a[i]);
    for (int i = 0; i < N; i++) {
        while (a[i].n_pieces == 0)
            turn(w);
    }
    assert_int_equal(w->n_connections, N);
    for (int i = 0; i < N; i += 2)
        cancel(&a[i]);
    for (struct peer *p = w->peers; p; p = p->next)
        put(p, "0\r\n\r\n");
    while (n_ends < N / 2) {
        turn(w);
        n_ends = 0;
        for (int i = 0; i < N; i++)
            n_ends += a[i].n_ends;
    }
    for (int i = 0; i < N; i++) {
        assert_true(a[i].cancelled || a[i].end == UPSTREAM_OK);
        asked_fini(&a[i]);
    }
    /* Half of the connections are there yet. */
    while (w->n_closed < N / 2)
        turn(w);
    w->say = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    memset(a, 0, N * sizeof(*a));
    for (int i = 0; i < N / 2; i++)
        ask(w, &a[i]);
    for (int i = 0; i < N / 2; i++) {
        wait_end(&a[i]);
        asked_fini(&a[i]);
    }
    assert_int_equal(w->n_connections, N);
    cox_free(a);
    end(w);
}

static void ends_with_calls_under_way(void **state)
{
    struct world *w = begin(say);
    struct asked a = { 0 }, b = { 0 };

    (void)state;
    w->say = "HTTP/1.1 200 OK\r\n\r\nx";
    ask(w, &a);
    while (a.n_pieces == 0)
        turn(w);
    ask(w, &b);
    a.cancelled = b.cancelled = true;
    end(w);
    asked_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_connection_in_time),
        cmocka_unit_test(no_content_in_time),
        cmocka_unit_test(stalls),
        cmocka_unit_test(does_not_stall_while_pieces_come),
        cmocka_unit_test(cancelling_closes_at_once),
        cmocka_unit_test(cancels_from_inside),
        cmocka_unit_test(deals_with_others_from_inside),
        cmocka_unit_test(a_paused_call_hears_nothing_and_does_not_stall),
        cmocka_unit_test(pausing_holds_the_server),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(ends_with_calls_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
