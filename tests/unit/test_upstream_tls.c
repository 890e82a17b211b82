/* HTTPS: a server of HTTP/2 in a few frames, in a thread of its own, that says what it has seen. */
#include "tls_fixture.h"
#include "upstream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#define GUARD_S 30

enum { F_DATA = 0, F_HEADERS = 1, F_RST_STREAM = 3, F_SETTINGS = 4 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

/* A server of one connection. It answers none of the requests before `together` of them are there. */
struct server {
    int listener;
    bool h2;
    unsigned together;
    pthread_t thread;
    /* what it saw; read when it has ended */
    unsigned n_requests;
    bool first_reset; /* the stream of the first request */
    char protocol[16];
};

static void put_frame(SSL *ssl, uint8_t type, uint8_t flags, uint32_t stream, const char *payload)
{
    uint8_t frame[64] = { 0, 0, (uint8_t)strlen(payload), type, flags };

    frame[7] = (uint8_t)(stream >> 8);
    frame[8] = (uint8_t)stream;
    memcpy(frame + 9, payload, strlen(payload));
    SSL_write(ssl, frame, (int)(9 + strlen(payload)));
}

static bool take(SSL *ssl, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        int n = SSL_read(ssl, (char *)to + done, (int)(len - done));

        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

/* The first is left without its end; the others are answered. */
static void answer(SSL *ssl, uint32_t stream, bool whole)
{
    put_frame(ssl, F_HEADERS, END_HEADERS, stream, "\x88"); /* :status 200, of the static table */
    put_frame(ssl, F_DATA, whole ? END_STREAM : 0, stream, "two");
}

static void serve_h2(struct server *s, SSL *ssl)
{
    char preface[24];
    uint8_t head[9], payload[1 << 15];
    uint32_t streams[16];

    if (!take(ssl, preface, sizeof(preface)))
        return;
    put_frame(ssl, F_SETTINGS, 0, 0, "");
    while (take(ssl, head, sizeof(head))) {
        size_t len = (size_t)head[1] << 8 | head[2];
        uint32_t stream = (uint32_t)head[7] << 8 | head[8];

        if (len > sizeof(payload) || !take(ssl, payload, len))
            return;
        if (head[3] == F_SETTINGS && !(head[4] & ACK))
            put_frame(ssl, F_SETTINGS, ACK, 0, "");
        if (head[3] == F_RST_STREAM)
            s->first_reset = s->first_reset || (s->n_requests > 0 && stream == streams[0]);
        if ((head[3] == F_HEADERS || head[3] == F_DATA) && (head[4] & END_STREAM))
            streams[s->n_requests++ % 16] = stream;
        else
            continue;
        for (unsigned i = 0; s->n_requests == s->together && i < s->together; i++)
            answer(ssl, streams[i], i > 0);
        if (s->n_requests > s->together)
            answer(ssl, stream, true);
    }
}

static void serve_h1(struct server *s, SSL *ssl)
{
    static const char say[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none";
    char request[4096];

    while (SSL_read(ssl, request, sizeof(request)) > 0) {
        s->n_requests++;
        SSL_write(ssl, say, sizeof(say) - 1);
    }
}

static int choose(SSL *ssl, const unsigned char **out, unsigned char *len, const unsigned char *in,
                  unsigned in_len, void *user)
{
    static const unsigned char h2[] = "\x02h2";

    (void)ssl;
    (void)user;
    return SSL_select_next_proto((unsigned char **)(uintptr_t)out, len, h2, 3, in, in_len) ==
                   OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_NOACK;
}

static void *serve(void *user)
{
    struct server *s = user;
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL *ssl;
    const unsigned char *protocol;
    unsigned len = 0;
    int fd;

    SSL_CTX_use_certificate_chain_file(ctx, tls_path("server.crt"));
    SSL_CTX_use_PrivateKey_file(ctx, tls_path("server.key"), SSL_FILETYPE_PEM);
    if (s->h2)
        SSL_CTX_set_alpn_select_cb(ctx, choose, NULL);
    ssl = SSL_new(ctx);
    fd = accept(s->listener, NULL, NULL);
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) {
        SSL_get0_alpn_selected(ssl, &protocol, &len);
        snprintf(s->protocol, sizeof(s->protocol), "%.*s", (int)len, (const char *)protocol);
        if (s->h2)
            serve_h2(s, ssl);
        else
            serve_h1(s, ssl);
    }
    close(fd);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return NULL;
}

static void start(struct server *s, char url[64])
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);

    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s->listener, 16), 0);
    getsockname(s->listener, (struct sockaddr *)&a, &len);
    snprintf(url, 64, "https://127.0.0.1:%d/v1/x", ntohs(a.sin_port));
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

/* ---- the client ---- */

struct asked {
    struct upstream_call *call;
    int status;
    size_t n_bytes;
    unsigned n_ends;
    enum upstream_end end;
};

static void on_head(void *user, const struct upstream_head *head)
{
    ((struct asked *)user)->status = head->status;
}

static void on_data(void *user, struct cox_slice piece)
{
    ((struct asked *)user)->n_bytes += piece.len;
}

static void on_end(void *user, enum upstream_end end, const char *message)
{
    struct asked *a = user;

    a->n_ends++;
    a->end = end;
    assert_true((end == UPSTREAM_OK) == (message[0] == '\0'));
}

static void on_guard(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    (void)user;
    fail_msg("what was waited for did not come in %d s", GUARD_S);
}

struct client {
    struct event_base *base;
    struct event *guard;
    struct upstream *u;
    struct upstream_target target;
};

static void open_client(struct client *c, const char *url, const char *ca)
{
    c->base = event_base_new();
    c->guard = evtimer_new(c->base, on_guard, NULL);
    event_add(c->guard, &(struct timeval){ .tv_sec = GUARD_S });
    c->u = upstream_create(&(struct upstream_config){ .base = c->base });
    c->target = (struct upstream_target){ .url = url, .ca_file = tls_path(ca) };
}

static void close_client(struct client *c)
{
    upstream_destroy(c->u);
    event_free(c->guard);
    event_base_free(c->base);
}

static void ask(struct client *c, struct asked *a, size_t body_len)
{
    static const struct upstream_events events = { .on_head = on_head, .on_data = on_data, .on_end = on_end };
    static const uint8_t bytes[100000];
    static struct cox_slice body; /* lives as long as a call */

    body = cox_slice(bytes, body_len);
    a->call = upstream_start(c->u, &(struct upstream_request){ .target = &c->target,
                                                               .method = "POST",
                                                               .body = &body,
                                                               .n_body = 1,
                                                               .events = &events,
                                                               .user = a });
}

static void turn(struct client *c)
{
    event_base_loop(c->base, EVLOOP_ONCE);
}

static void shares_a_connection_by_http2(void **state)
{
    struct server s = { .h2 = true, .together = 3 };
    struct client c;
    struct asked a[4] = { 0 };
    char url[64];

    (void)state;
    start(&s, url);
    open_client(&c, url, "ca.crt");
    for (size_t i = 0; i < 3; i++)
        ask(&c, &a[i], 100);
    while (a[0].n_bytes + a[1].n_bytes + a[2].n_bytes < 9 || a[0].n_ends + a[1].n_ends + a[2].n_ends < 2)
        turn(&c);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(a[i].status, 200);
        assert_int_equal(a[i].n_bytes, 3);
        if (a[i].n_ends == 0) /* whose request came first */
            upstream_cancel(a[i].call);
        else
            assert_int_equal(a[i].end, UPSTREAM_OK);
    }
    /* The connection outlives a stream that was cancelled. */
    ask(&c, &a[3], 20000);
    while (a[3].n_ends == 0)
        turn(&c);
    assert_int_equal(a[3].end, UPSTREAM_OK);
    close_client(&c);
    pthread_join(s.thread, NULL);
    close(s.listener);
    assert_string_equal(s.protocol, "h2");
    assert_int_equal(s.n_requests, 4);
    assert_true(s.first_reset);
}

static void speaks_http1_where_no_other_is_offered(void **state)
{
    struct server s = { 0 };
    struct client c;
    char url[64];

    (void)state;
    start(&s, url);
    open_client(&c, url, "ca.crt");
    for (int i = 0; i < 3; i++) {
        struct asked a = { 0 };

        ask(&c, &a, 100);
        while (a.n_ends == 0)
            turn(&c);
        assert_int_equal(a.end, UPSTREAM_OK);
        assert_int_equal(a.n_bytes, 3);
    }
    close_client(&c);
    pthread_join(s.thread, NULL);
    close(s.listener);
    assert_int_equal(s.n_requests, 3);
    assert_string_equal(s.protocol, "");
}

static void believes_nobody_it_does_not_know(void **state)
{
    struct server s = { 0 };
    struct client c;
    struct asked a = { 0 };
    char url[64];

    (void)state;
    start(&s, url);
    open_client(&c, url, "other.crt");
    ask(&c, &a, 100);
    while (a.n_ends == 0)
        turn(&c);
    assert_int_equal(a.end, UPSTREAM_CONNECT);
    close_client(&c);
    pthread_join(s.thread, NULL);
    close(s.listener);
    assert_int_equal(s.n_requests, 0);
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    tls_fixture_init();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tls_fixture_fini();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_a_connection_by_http2),
        cmocka_unit_test(speaks_http1_where_no_other_is_offered),
        cmocka_unit_test(believes_nobody_it_does_not_know),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
