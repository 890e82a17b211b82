/* Model calls of a step's process: what of them reaches the orchestrator, and what comes back. The
 * orchestrator is a socket of this test, which reads heads and writes answers by hand. */
#include "check.h"
#include "gateway/internal.h"
#include "gateway/request.h"

#include "cox/agent.h"
#include "cox/base/units.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_NS (20 * INT64_C(1000000000))
#define CALL "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"

struct bench {
    struct event_base *base;
    struct models *models;
    struct gateway *gateway;
    struct gateway_attempt *a;
    int listening; /* the orchestrator's */
    char url[64], token_file[64];
};

static void write_token(const struct bench *b, const char *token)
{
    FILE *f = fopen(b->token_file, "we");

    assert_non_null(f);
    assert_true(fputs(token, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void begin(struct bench *b)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct cox_agent_assign assign = { .ref = { .task = 11, .step = 22, .token = { 33, 44 } },
                                       .tenant = cox_slice_str("acme") };
    socklen_t len = sizeof(at);
    int fd;

    memset(b, 0, sizeof(*b));
    b->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(b->listening, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(b->listening, 128), 0);
    assert_int_equal(getsockname(b->listening, (struct sockaddr *)&at, &len), 0);
    snprintf(b->url, sizeof(b->url), "http://*:%d", ntohs(at.sin_port));
    snprintf(b->token_file, sizeof(b->token_file), "/tmp/cox-test-models-XXXXXX");
    fd = mkstemp(b->token_file);
    assert_true(fd >= 0);
    close(fd);
    write_token(b, "worker-token\n");
    b->base = event_base_new();
    b->models =
        models_create(&(struct models_config){ .base = b->base, .token_file = b->token_file, .tls = NULL });
    b->gateway = gateway_create(b->base, NULL, b->models, "/tmp");
    b->a = gateway_admit(b->gateway, &assign);
    models_aim(b->models, "127.0.0.1:7600", "the-session", b->url);
}

static void end(struct bench *b)
{
    gateway_attempt_free(b->a);
    gateway_destroy(b->gateway);
    models_destroy(b->models);
    event_base_free(b->base);
    close(b->listening);
    assert_int_equal(unlink(b->token_file), 0);
}

static void turn(struct bench *b)
{
    event_base_loop(b->base, EVLOOP_NONBLOCK);
}

/* ---------------------------------------------------------------- the process */

static int dial(const struct bench *b)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char url[GATEWAY_URL_MAX];
    unsigned port;

    assert_true(gateway_url(b->a, false, url));
    assert_int_equal(sscanf(url, "http://127.0.0.1:%u/blobs", &port), 1);
    at.sin_port = htons((uint16_t)port);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* The head and the key's line, then `rest`. */
static int ask(const struct bench *b, const char *first, const char *rest)
{
    char key[120];
    int fd = dial(b);

    snprintf(key, sizeof(key), "Authorization: Bearer %s\r\n", gateway_key(b->a));
    say(fd, first);
    say(fd, key);
    say(fd, rest);
    return fd;
}

/* Reads until `until` stands in what came, or the other side ends, which it says. */
static bool hear(struct bench *b, int fd, struct cox_buf *ret, const char *until)
{
    int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;
    char piece[65536];
    ssize_t n;

    while (!until || !strstr(cox_buf_cstr(ret), until)) {
        turn(b);
        n = recv(fd, piece, sizeof(piece), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return n == 0;
        if (n > 0)
            cox_buf_append(ret, piece, (size_t)n);
        if (cox_clock_mono_ns() > give_up_ns)
            fail_msg("waited for %s; there is: %.600s", until ? until : "the end", cox_buf_cstr(ret));
    }
    return true;
}

static int status_of(const struct cox_buf *answer)
{
    int status = 0;

    sscanf((const char *)answer->data, "HTTP/1.1 %d ", &status);
    return status;
}

static int ask_whole(struct bench *b, const char *first, const char *rest, struct cox_buf *ret)
{
    int fd = ask(b, first, rest);

    cox_buf_clear(ret);
    hear(b, fd, ret, NULL);
    close(fd);
    cox_buf_append(ret, "", 1);
    return status_of(ret);
}

/* ---------------------------------------------------------------- the orchestrator */

static int take(struct bench *b)
{
    int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;
    int fd;

    while ((fd = accept4(b->listening, NULL, NULL, SOCK_CLOEXEC)) < 0) {
        turn(b);
        assert_true(cox_clock_mono_ns() < give_up_ns);
    }
    return fd;
}

static bool nobody_calls(struct bench *b)
{
    for (int i = 0; i < 50; i++)
        turn(b);
    return accept4(b->listening, NULL, NULL, SOCK_CLOEXEC) < 0;
}

static void assert_has(const struct cox_buf *b, const char *text)
{
    if (!memmem(b->data, b->len, text, strlen(text)))
        fail_msg("expected %s in: %.2000s", text, (const char *)b->data);
}

static void assert_lacks(const struct cox_buf *b, const char *text)
{
    if (memmem(b->data, b->len, text, strlen(text)))
        fail_msg("expected no %s in: %.2000s", text, (const char *)b->data);
}

/* ---------------------------------------------------------------- */

static void test_a_call_passes_and_says_whose_it_is(void **state)
{
    struct cox_buf got = { 0 }, answer = { 0 };
    struct bench b;
    int fd, up;

    (void)state;
    begin(&b);
    fd = ask(&b, CALL,
             "Content-Type: application/json\r\nCookie: a=b\r\ncox-tenant: other\r\nOrigin: http://evil\r\n"
             "x-request-id: mine\r\nX-Session-ID: s7\r\nContent-Length: 12\r\n\r\n{\"model\":7}\n");
    up = take(&b);
    hear(&b, up, &got, "{\"model\":7}\n");
    assert_has(&got, "POST /v1/chat/completions HTTP/1.1\r\n");
    assert_has(&got, "cox-attempt: 11/22/33/44\r\n");
    assert_has(&got, "cox-session: the-session\r\n");
    assert_has(&got, "cox-tenant: acme\r\n");
    assert_has(&got, "Authorization: Bearer worker-token\r\n");
    assert_has(&got, "Content-Type: application/json\r\n");
    assert_has(&got, "x-request-id: mine\r\n");
    assert_has(&got, "X-Session-ID: s7\r\n");
    assert_has(&got, "Content-Length: 12\r\n");
    assert_lacks(&got, gateway_key(b.a));
    assert_lacks(&got, "Cookie");
    assert_lacks(&got, "other");
    assert_lacks(&got, "evil");
    say(up, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\nx-request-id: mine\r\n"
            "Keep-Alive: 5\r\n\r\n{\"ok\":1}\n");
    assert_true(hear(&b, fd, &answer, NULL));
    assert_int_equal(status_of(&answer), 200);
    assert_has(&answer, "Content-Length: 9\r\n");
    assert_has(&answer, "x-request-id: mine\r\n");
    assert_has(&answer, "Connection: close\r\n\r\n{\"ok\":1}\n");
    assert_lacks(&answer, "Keep-Alive");
    close(fd);
    close(up);
    cox_buf_fini(&got);
    cox_buf_fini(&answer);
    end(&b);
}

/* An event reaches the process before the next one is there. */
static void test_streams_come_as_they_are_made(void **state)
{
    struct cox_buf got = { 0 }, answer = { 0 };
    struct bench b;
    int fd, up;

    (void)state;
    begin(&b);
    fd = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}");
    up = take(&b);
    hear(&b, up, &got, "{}");
    say(up, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            "Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
    hear(&b, fd, &answer, "data: 1\n\n");
    assert_has(&answer, "Transfer-Encoding: chunked\r\n");
    say(up, "9\r\ndata: 2\n\n\r\n");
    hear(&b, fd, &answer, "data: 2\n\n");
    assert_lacks(&answer, "0\r\n\r\n");
    say(up, "0\r\n\r\n");
    assert_true(hear(&b, fd, &answer, NULL));
    assert_has(&answer, "\r\n0\r\n\r\n");
    close(fd);
    close(up);
    cox_buf_fini(&got);
    cox_buf_fini(&answer);
    end(&b);
}

/* What is not whole must not look so. */
static void test_a_broken_answer_is_seen(void **state)
{
    struct cox_buf got = { 0 }, answer = { 0 };
    struct bench b;
    int fd, up;

    (void)state;
    begin(&b);
    fd = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}");
    up = take(&b);
    hear(&b, up, &got, "{}");
    say(up, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
    hear(&b, fd, &answer, "data: 1\n\n");
    close(up);
    hear(&b, fd, &answer, NULL);
    assert_lacks(&answer, "\r\n0\r\n\r\n");
    close(fd);

    cox_buf_clear(&answer);
    fd = ask(&b, "POST /v1/completions HTTP/1.0\r\n", "Content-Length: 2\r\n\r\n{}");
    up = take(&b);
    cox_buf_clear(&got);
    hear(&b, up, &got, "{}");
    say(up, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
    hear(&b, fd, &answer, "data: 1\n\n");
    assert_lacks(&answer, "chunked");
    close(up);
    assert_false(hear(&b, fd, &answer, NULL)); /* a reset, no end */
    close(fd);
    cox_buf_fini(&got);
    cox_buf_fini(&answer);
    end(&b);
}

/* The process hangs up, its attempt ends: the orchestrator sees either at once. */
static void test_who_hangs_up_ends_the_call(void **state)
{
    struct cox_buf got = { 0 }, answer = { 0 };
    struct bench b;
    int fd, up;

    (void)state;
    begin(&b);
    for (int revoke = 0; revoke < 2; revoke++) {
        fd = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}");
        up = take(&b);
        cox_buf_clear(&got);
        hear(&b, up, &got, "{}");
        if (revoke)
            gateway_revoke(b.a);
        else
            close(fd);
        hear(&b, up, &got, NULL);
        close(up);
        if (revoke) {
            hear(&b, fd, &answer, NULL);
            assert_int_equal(answer.len, 0);
            close(fd);
        }
    }
    cox_buf_fini(&got);
    cox_buf_fini(&answer);
    end(&b);
}

/* A process that does not read holds some memory, and no more: the orchestrator is held in its turn. */
static void test_slow_readers_hold_the_other_end(void **state)
{
    static char block[65536];
    struct cox_buf got = { 0 };
    struct bench b;
    size_t sent = 0, heard = 0;
    int fd, up, idle = 0;
    ssize_t n;

    (void)state;
    begin(&b);
    memset(block, 'x', sizeof(block));
    fd = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}");
    up = take(&b);
    hear(&b, up, &got, "{}");
    say(up, "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
    while (idle < 200) { /* until nothing is taken any more */
        turn(&b);
        n = send(up, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);
        idle = n > 0 ? 0 : idle + 1;
        sent += n > 0 ? (size_t)n : 0;
        if (sent > (size_t)48 << 20)
            fail_msg("%zu bytes are held for a process that reads nothing", sent);
    }
    while (heard < (size_t)67108864) {
        char piece[65536];

        turn(&b);
        n = sent < (size_t)67108864
                ? send(up, block, 67108864 - sent < sizeof(block) ? 67108864 - sent : sizeof(block),
                       MSG_NOSIGNAL | MSG_DONTWAIT)
                : 0;
        sent += n > 0 ? (size_t)n : 0;
        n = recv(fd, piece, sizeof(piece), MSG_DONTWAIT);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        heard += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    close(up);
    cox_buf_fini(&got);
    end(&b);
}

/* A process that never catches up, but reads on, does not make the worker keep all that it has read. */
static void test_what_was_read_is_forgotten(void **state)
{
    static char block[16384];
    const size_t len = (size_t)4 << 20;
    const int small = 65536;
    struct cox_buf got = { 0 };
    struct bench b;
    size_t said = 0, heard = 0;
    int fd, up;

    (void)state;
    begin(&b);
    fd = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}");
    up = take(&b);
    hear(&b, up, &got, "{}");
    const struct connection *c = COX_CONTAINER_OF(b.a->connections.next, struct connection, link);

    setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    say(up, "HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n");
    while (said < len) {
        bool waits = c->bytes.len - c->sent >= ((size_t)128 << 10);
        ssize_t n = waits ? recv(fd, block, sizeof(block), MSG_DONTWAIT)
                          : send(up, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);

        turn(&b);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        said += !waits && n > 0 ? (size_t)n : 0;
        heard += waits && n > 0 ? (size_t)n : 0;
        if (c->bytes.len > (size_t)1 << 20)
            fail_msg("%zu bytes are kept of an answer of which %zu were read", c->bytes.len, heard);
    }
    assert_true(heard > len / 2);
    close(fd);
    close(up);
    cox_buf_fini(&got);
    end(&b);
}

/* A body goes through in pieces, also one that the orchestrator takes slowly. */
static void test_large_bodies_pass(void **state)
{
    const size_t len = (size_t)8 << 20;
    char *body = malloc(len), *heard = malloc(len + 4096);
    struct cox_buf answer = { 0 };
    size_t sent = 0, n_heard = 0;
    char head[80];
    struct bench b;
    int fd, up;
    ssize_t n;

    (void)state;
    begin(&b);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)(i * 2654435761u >> 13);
    snprintf(head, sizeof(head), "Content-Length: %zu\r\n\r\n", len);
    fd = ask(&b, CALL, head);
    up = take(&b);
    while (n_heard < len || !memmem(heard, 4096, "\r\n\r\n", 4) ||
           n_heard < len + (size_t)((char *)memmem(heard, 4096, "\r\n\r\n", 4) - heard) + 4) {
        turn(&b);
        if (sent < len) {
            n = send(fd, body + sent, len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            sent += n > 0 ? (size_t)n : 0;
        }
        n = recv(up, heard + n_heard, 30000 < len + 4096 - n_heard ? 30000 : len + 4096 - n_heard,
                 MSG_DONTWAIT);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        n_heard += n > 0 ? (size_t)n : 0;
    }
    assert_memory_equal((char *)memmem(heard, 4096, "\r\n\r\n", 4) + 4, body, len);
    say(up, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_true(hear(&b, fd, &answer, NULL));
    assert_int_equal(status_of(&answer), 200);
    close(fd);
    close(up);
    free(body);
    free(heard);
    cox_buf_fini(&answer);
    end(&b);
}

/* The orchestrator closes a connection that was kept just as the next call comes by it. */
static void test_a_closed_connection_costs_no_call(void **state)
{
    const size_t len = 600000; /* more than a socket takes at once */
    char *body = malloc(len + 1), head[80];
    struct cox_buf got = { 0 }, answer = { 0 };
    struct bench b;
    int fd, up, again;

    (void)state;
    begin(&b);
    memset(body, 'y', len);
    body[len] = 0;
    fd = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}");
    up = take(&b);
    hear(&b, up, &got, "{}");
    say(up, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_true(hear(&b, fd, &answer, NULL));
    close(fd);
    cox_buf_clear(&got);
    cox_buf_clear(&answer);
    snprintf(head, sizeof(head), "Content-Length: %zu\r\n\r\n", len);
    fd = ask(&b, CALL, head);
    hear(&b, up, &got, "\r\n\r\n"); /* by the same connection */
    for (size_t sent = 0; sent < len;) {
        ssize_t n =
            send(fd, body + sent, len - sent < 50000 ? len - sent : 50000, MSG_NOSIGNAL | MSG_DONTWAIT);

        turn(&b);
        sent += n > 0 ? (size_t)n : 0;
        if (up >= 0 && sent > 300000) {
            hear(&b, up, &got, "yyyyyyyy");
            close(up);
            up = -1;
        }
    }
    again = take(&b);
    cox_buf_clear(&got);
    while (got.len < len || !memmem(got.data, got.len, "\r\n\r\n", 4) ||
           got.len < len + (size_t)((uint8_t *)memmem(got.data, got.len, "\r\n\r\n", 4) - got.data) + 4) {
        ssize_t n = recv(again, head, sizeof(head), MSG_DONTWAIT);

        turn(&b);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        if (n > 0)
            cox_buf_append(&got, head, (size_t)n);
    }
    assert_memory_equal((uint8_t *)memmem(got.data, got.len, "\r\n\r\n", 4) + 4, body, len);
    say(again, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_true(hear(&b, fd, &answer, NULL));
    assert_int_equal(status_of(&answer), 200);
    close(fd);
    close(again);
    free(body);
    cox_buf_fini(&got);
    cox_buf_fini(&answer);
    end(&b);
}

static void test_other_paths_lead_nowhere(void **state)
{
    static const struct {
        const char *first;
        int status;
    } bad[] = {
        { "GET /v1/chat/completions HTTP/1.1\r\n", 405 },
        { "POST /v1/models HTTP/1.1\r\n", 405 },
        { "GET /v1/models/ HTTP/1.1\r\n", 404 },
        { "GET /v1/models/../../api/v1/tasks HTTP/1.1\r\n", 404 },
        { "GET /v1/models/a/..%2f../api HTTP/1.1\r\n", 404 },
        { "GET /v1/models//etc HTTP/1.1\r\n", 404 },
        { "GET /v1/models/#x HTTP/1.1\r\n", 404 },
        { "POST /v1/responses HTTP/1.1\r\n", 404 },
        { "POST /v1/ HTTP/1.1\r\n", 404 },
        { "GET /api/v1/tasks HTTP/1.1\r\n", 404 },
        { "POST /v1/embeddings HTTP/1.1\r\n", 411 },
        { "POST /v1/embeddings HTTP/1.1\r\nContent-Length: 16777217\r\n", 413 },
    };
    struct cox_buf answer = { 0 }, got = { 0 };
    struct bench b;
    int fd, up;

    (void)state;
    begin(&b);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int status = ask_whole(&b, bad[i].first, "\r\n", &answer);

        if (status != bad[i].status)
            fail_msg("%d, not %d: %s", status, bad[i].status, bad[i].first);
        assert_has(&answer, "\"type\":\"invalid_request_error\"");
    }
    assert_true(nobody_calls(&b));
    fd = ask(&b, "GET /v1/models/meta/llama%2F3?x=1 HTTP/1.1\r\n", "\r\n");
    up = take(&b);
    hear(&b, up, &got, "\r\n\r\n");
    assert_has(&got, "GET /v1/models/meta/llama%2F3?x=1 HTTP/1.1\r\n");
    close(up);
    close(fd);
    cox_buf_fini(&answer);
    cox_buf_fini(&got);
    end(&b);
}

static void test_where_nobody_serves(void **state)
{
    struct cox_buf answer = { 0 };
    char url[GATEWAY_URL_MAX];
    struct bench b;

    (void)state;
    begin(&b);
    assert_true(gateway_models_url(b.a, false, url));
    assert_non_null(strstr(url, "/v1"));
    assert_true(gateway_models_url(b.a, true, url));
    assert_string_equal(url, "http://127.0.0.1:7602/v1");
    models_aim(b.models, "127.0.0.1:7600", "", "");
    assert_false(gateway_models_url(b.a, false, url));
    assert_int_equal(ask_whole(&b, CALL, "Content-Length: 2\r\n\r\n{}", &answer), 503);
    assert_has(&answer, "Retry-After: 1\r\n");
    models_aim(b.models, "127.0.0.1:7600", "s", "http://127.0.0.1:1");
    assert_int_equal(ask_whole(&b, CALL, "Content-Length: 2\r\n\r\n{}", &answer), 503);
    assert_has(&answer, "\"type\":\"server_error\"");
    cox_buf_fini(&answer);
    end(&b);
}

/* A worker whose words are encrypted says its token to nobody who would hear it in plaintext. */
static void test_no_token_in_plaintext(void **state)
{
    const struct cox_tls_files tls = { .ca = "/nonexistent" };
    struct event_base *base = event_base_new();
    struct models *m = models_create(&(struct models_config){ .base = base, .tls = &tls });

    (void)state;
    models_aim(m, "cox.example:7600", "s", "http://*:7601");
    assert_false(models_served(m));
    models_aim(m, "cox.example:7600", "s", "https://*:7601");
    assert_true(models_served(m));
    models_aim(m, "unix:/run/cox", "s", "https://*:7601");
    assert_false(models_served(m));
    models_destroy(m);
    event_base_free(base);
}

static void test_calls_at_once_are_bounded(void **state)
{
    struct cox_buf answer = { 0 };
    int fds[GATEWAY_CALLS_MAX], ups[GATEWAY_CALLS_MAX];
    struct bench b;

    (void)state;
    begin(&b);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}");
        ups[i] = take(&b);
    }
    assert_int_equal(ask_whole(&b, CALL, "Content-Length: 2\r\n\r\n{}", &answer), 429);
    assert_int_equal(ask_whole(&b, "GET /blobs/sha256:0 HTTP/1.1\r\n", "\r\n", &answer), 404);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        struct cox_buf end_of_it = { 0 };

        close(fds[i]);
        hear(&b, ups[i], &end_of_it, NULL); /* it ends */
        cox_buf_fini(&end_of_it);
        close(ups[i]);
    }
    fds[0] = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}"); /* there is room again */
    ups[0] = take(&b);
    close(fds[0]);
    close(ups[0]);
    cox_buf_fini(&answer);
    end(&b);
}

/* The worker's token was exchanged since it was read: that is no fault of the step's. */
static void test_an_exchanged_token_is_read_again(void **state)
{
    static const char refusal[] =
        "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    struct cox_buf answer = { 0 }, got = { 0 };
    struct bench b;

    (void)state;
    begin(&b);
    write_token(&b, "newer-token\n");
    for (int i = 0; i < 2; i++) {
        int fd = ask(&b, CALL, "Content-Length: 2\r\n\r\n{}"), up = take(&b);

        cox_buf_clear(&got);
        cox_buf_clear(&answer);
        hear(&b, up, &got, "{}");
        assert_has(&got, i == 0 ? "Bearer worker-token\r\n" : "Bearer newer-token\r\n");
        say(up, refusal);
        hear(&b, fd, &answer, NULL);
        assert_int_equal(status_of(&answer), i == 0 ? 503 : 401); /* the second is about the attempt */
        close(fd);
        close(up);
    }
    cox_buf_fini(&answer);
    cox_buf_fini(&got);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_call_passes_and_says_whose_it_is),
        cmocka_unit_test(test_streams_come_as_they_are_made),
        cmocka_unit_test(test_a_broken_answer_is_seen),
        cmocka_unit_test(test_who_hangs_up_ends_the_call),
        cmocka_unit_test(test_slow_readers_hold_the_other_end),
        cmocka_unit_test(test_what_was_read_is_forgotten),
        cmocka_unit_test(test_large_bodies_pass),
        cmocka_unit_test(test_a_closed_connection_costs_no_call),
        cmocka_unit_test(test_other_paths_lead_nowhere),
        cmocka_unit_test(test_where_nobody_serves),
        cmocka_unit_test(test_no_token_in_plaintext),
        cmocka_unit_test(test_calls_at_once_are_bounded),
        cmocka_unit_test(test_an_exchanged_token_is_read_again),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
