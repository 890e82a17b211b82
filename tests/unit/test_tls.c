/* TLS on a socketpair: who is let in, what crosses, and how it ends. The other side is OpenSSL, on this
 * thread. */
#include "tls_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define PATIENCE_S 20
#define LONG_LEN ((size_t)3 << 20)

static struct cox_tls *tls;

/* A client and the reader of its plain words. */
struct wire {
    int net, plain;
    SSL *ssl;
};

struct offer {
    const char *file; /* its certificate; NULL: none */
    const char *protocols;
    int version_max; /* 0: any */
    const char *ciphers;
};
static const struct offer honest = { "alice", "\x02h2", 0, NULL };

static SSL_CTX *context_of(const struct offer *o)
{
    struct cox_tls_files files = tls_files(o->file, "ca");
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    SSL_CTX_set_security_level(context, 0);
    if (o->version_max) {
        SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
        SSL_CTX_set_max_proto_version(context, o->version_max);
    }
    if (o->ciphers)
        assert_int_equal(SSL_CTX_set_cipher_list(context, o->ciphers), 1);
    if (o->file) {
        assert_int_equal(SSL_CTX_use_certificate_chain_file(context, files.cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(context, files.key, SSL_FILETYPE_PEM), 1);
    }
    return context;
}

/* Connects and shakes hands as far as the client can tell. */
static struct wire dial(enum cox_tls_kind kind, const struct offer *o)
{
    const struct timeval patience = { PATIENCE_S, 0 };
    struct wire w;
    int pair[2];
    SSL_CTX *context = context_of(o);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    assert_int_equal(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
    w.net = pair[0];
    w.plain = cox_tls_terminate(tls, pair[1], kind);
    assert_true(w.plain >= 0);
    w.ssl = SSL_new(context);
    SSL_set_fd(w.ssl, w.net);
    if (o->protocols)
        SSL_set_alpn_protos(w.ssl, (const unsigned char *)o->protocols, (unsigned)strlen(o->protocols));
    (void)SSL_connect(w.ssl);
    SSL_CTX_free(context);
    return w;
}

static void hang_up(struct wire *w)
{
    SSL_free(w->ssl);
    close(w->net);
    if (w->plain >= 0)
        close(w->plain);
}

/* What comes out, up to len; 0 at the end. */
static ssize_t hear(const struct wire *w, void *data, size_t len)
{
    struct pollfd pfd = { .fd = w->plain, .events = POLLIN };

    assert_int_equal(poll(&pfd, 1, PATIENCE_S * 1000), 1);
    return recv(w->plain, data, len, 0);
}

static const char words[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/* Whether the client is let in: its words come out, or the end does. */
static bool gets_in(enum cox_tls_kind kind, const struct offer *o)
{
    struct wire w = dial(kind, o);
    char heard[64];

    (void)SSL_write(w.ssl, words, sizeof(words) - 1);
    ssize_t n = hear(&w, heard, sizeof(heard));

    if (n > 0)
        assert_memory_equal(heard, words, sizeof(words) - 1);
    hang_up(&w);
    return n > 0;
}

static int setup(void **state)
{
    struct cox_tls_files files;
    struct cox_buf error = { 0 };

    (void)state;
    tls_fixture_init();
    files = tls_files("server", "ca");
    assert_int_equal(cox_tls_create(&files, &tls, &error), COX_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cox_tls_destroy(tls);
    tls_fixture_fini();
    return 0;
}

static void test_who_gets_in(void **state)
{
    static const struct {
        struct offer offer;
        bool grpc, http;
    } cases[] = {
        { { "alice", "\x02h2", 0, NULL }, true, false },
        { { "alice", "\x08http/1.1", 0, NULL }, false, true },
        { { "alice", "\x02h2\x08http/1.1", 0, NULL }, true, true },
        { { "alice", NULL, 0, NULL }, false, true }, /* it does not say what it speaks */
        { { "alice", "\x02h2\x08http/1.1", TLS1_2_VERSION, NULL }, true, true },
        { { "alice", "\x02h2\x08http/1.1", TLS1_1_VERSION, NULL }, false, false },
        { { "alice", "\x02h2\x08http/1.1", TLS1_VERSION, NULL }, false, false },
        { { "alice", "\x02h2\x08http/1.1", TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA" }, false, false },
        { { NULL, "\x02h2\x08http/1.1", 0, NULL }, false, true },
        { { NULL, "\x02h2\x08http/1.1", TLS1_2_VERSION, NULL }, false, true },
        { { "mallory", "\x02h2\x08http/1.1", 0, NULL }, false, false }, /* another CA's */
        { { "server", "\x02h2\x08http/1.1", 0, NULL }, false, false },  /* made for servers */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if (gets_in(COX_TLS_GRPC, &cases[i].offer) != cases[i].grpc)
            fail_msg("case %zu: gRPC", i);
        if (gets_in(COX_TLS_HTTP, &cases[i].offer) != cases[i].http)
            fail_msg("case %zu: HTTP", i);
    }
    struct cox_tls_stats stats = cox_tls_stats(tls);

    assert_int_equal(stats.n_done, 9);
    assert_int_equal(stats.n_done + stats.n_failed + stats.n_given_up, 2 * ARRAY_LEN(cases));
}

static void test_who_it_is(void **state)
{
    static const struct offer nobody = { NULL, NULL, 0, NULL };
    struct wire w = dial(COX_TLS_GRPC, &honest), http = dial(COX_TLS_HTTP, &nobody);
    char heard[64];

    (void)state;
    SSL_write(w.ssl, words, sizeof(words) - 1);
    assert_true(hear(&w, heard, sizeof(heard)) > 0);
    struct cox_tls_certificate *who = cox_tls_peer(tls, w.plain);

    assert_string_equal(who->name, "alice");
    assert_int_equal(who->n_organizations, 1);
    assert_string_equal(who->organizations[0], "cox:submitter");
    assert_string_equal(who->unit, "blue");
    cox_free(who);
    SSL_write(http.ssl, words, sizeof(words) - 1);
    assert_true(hear(&http, heard, sizeof(heard)) > 0);
    assert_null(cox_tls_peer(tls, http.plain));
    assert_null(cox_tls_peer(tls, -1));

    int number = w.plain;
    hang_up(&w);
    w = dial(COX_TLS_HTTP, &nobody); /* gets the lowest number that is free */
    assert_true(w.plain <= number || w.net <= number);
    assert_null(cox_tls_peer(tls, w.plain));
    hang_up(&w);
    hang_up(&http);
}

/* A handshake whose reader leaves half way, and another connection that gets the reader's number. */
static void test_a_number_with_a_new_owner(void **state)
{
    static const struct offer nobody = { NULL, NULL, 0, NULL };

    (void)state;
    for (int i = 0; i < 50; i++) {
        struct wire w = dial(COX_TLS_HTTP, &honest), next;
        close(w.plain); /* at once, whether it has been let in or not */
        w.plain = -1;
        next = dial(COX_TLS_HTTP, &nobody);
        char heard[64];
        SSL_write(next.ssl, words, sizeof(words) - 1);
        assert_true(hear(&next, heard, sizeof(heard)) > 0);
        assert_null(cox_tls_peer(tls, next.plain));
        hang_up(&next);
        hang_up(&w);
    }
}

/* ---- bytes ---- */

struct load {
    struct wire *wire;
    bool from_client;
    uint32_t seed;
};

static uint8_t byte_at(uint32_t seed, size_t at)
{
    return (uint8_t)((at * 2654435761u + seed) >> 13);
}

static void *say_much(void *arg)
{
    struct load *l = arg;
    static uint8_t bytes[2][70000];
    uint8_t *piece = bytes[l->from_client];

    for (size_t at = 0; at < LONG_LEN;) {
        size_t n = 1 + (at * 7919) % sizeof(bytes[0]);
        if (n > LONG_LEN - at)
            n = LONG_LEN - at;
        if (at == 0)
            n = 100;
        for (size_t i = 0; i < n; i++)
            piece[i] = byte_at(l->seed, at + i);
        if (l->from_client) {
            assert_true(SSL_write(l->wire->ssl, piece, (int)n) == (int)n);
        } else {
            for (size_t sent = 0; sent < n;) {
                struct pollfd pfd = { .fd = l->wire->plain, .events = POLLOUT };
                assert_int_equal(poll(&pfd, 1, PATIENCE_S * 1000), 1);
                ssize_t m = send(l->wire->plain, piece + sent, n - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
                assert_true(m > 0 || errno == EAGAIN);
                sent += m > 0 ? (size_t)m : 0;
            }
        }
        at += n;
    }
    return NULL;
}

/* One direction after the other, read only when all that fits has been said. */
static void test_all_bytes_cross(void **state)
{
    struct wire w = dial(COX_TLS_GRPC, &honest);
    static uint8_t heard[5000];
    pthread_t thread;

    (void)state;
    for (int from_client = 1; from_client >= 0; from_client--) {
        struct load load = { &w, from_client, 17u + (unsigned)from_client };
        assert_int_equal(pthread_create(&thread, NULL, say_much, &load), 0);
        for (size_t at = 0; at < LONG_LEN;) {
            ssize_t n = from_client ? hear(&w, heard, sizeof(heard)) : SSL_read(w.ssl, heard, sizeof(heard));
            assert_true(n > 0);
            for (ssize_t i = 0; i < n; i++, at++)
                if (heard[i] != byte_at(load.seed, at))
                    fail_msg("byte %zu, from_client %d", at, from_client);
        }
        pthread_join(thread, NULL);
    }
    hang_up(&w);
}

static void test_ends_are_passed_on(void **state)
{
    struct wire w = dial(COX_TLS_HTTP, &(struct offer){ NULL, NULL, 0, NULL });
    char heard[64];

    (void)state;
    SSL_write(w.ssl, "question", 8);
    SSL_shutdown(w.ssl); /* says no more */
    assert_int_equal(hear(&w, heard, sizeof(heard)), 8);
    assert_int_equal(hear(&w, heard, sizeof(heard)), 0);
    assert_int_equal(send(w.plain, "answer", 6, MSG_NOSIGNAL), 6);
    assert_int_equal(SSL_read(w.ssl, heard, sizeof(heard)), 6);
    close(w.plain);
    w.plain = -1;
    assert_int_equal(SSL_read(w.ssl, heard, sizeof(heard)), 0); /* meant, not broken off */
    assert_int_equal(SSL_get_error(w.ssl, 0), SSL_ERROR_ZERO_RETURN);
    hang_up(&w);

    w = dial(COX_TLS_HTTP, &(struct offer){ NULL, NULL, 0, NULL });
    SSL_write(w.ssl, "question", 8);
    assert_int_equal(hear(&w, heard, sizeof(heard)), 8);
    assert_int_equal(send(w.plain, "half an ans", 11, MSG_NOSIGNAL), 11);
    cox_tls_cut(tls, w.plain);
    close(w.plain);
    w.plain = -1;
    int n = SSL_read(w.ssl, heard, sizeof(heard));

    if (n > 0)
        n = SSL_read(w.ssl, heard, sizeof(heard));
    assert_true(n <= 0);
    assert_int_not_equal(SSL_get_error(w.ssl, n), SSL_ERROR_ZERO_RETURN);
    hang_up(&w);
}

/* ---- attacks ---- */

/* Whoever counted the connection has left; what it costs must end without them. */
static void test_last_words_that_nobody_takes(void **state)
{
    struct wire w = dial(COX_TLS_HTTP, &(struct offer){ NULL, NULL, 0, NULL });
    struct pollfd pfd = { .fd = w.net };
    static uint8_t much[1 << 16];
    char heard[64];

    (void)state;
    SSL_write(w.ssl, "question", 8);
    assert_int_equal(hear(&w, heard, sizeof(heard)), 8);
    /* Until the client's socket, what is kept between, and the reader's own are full. */
    while (poll(&(struct pollfd){ .fd = w.plain, .events = POLLOUT }, 1, 1000) == 1)
        (void)!send(w.plain, much, sizeof(much), MSG_NOSIGNAL | MSG_DONTWAIT);
    assert_int_equal(cox_tls_stats(tls).n_open, 1);
    close(w.plain);
    w.plain = -1;
    assert_int_equal(poll(&pfd, 1, COX_TLS_LEAVING_MS + PATIENCE_S * 1000), 1);
    assert_true(pfd.revents & POLLHUP);
    hang_up(&w);
}

static void test_endless_updates_of_keys(void **state)
{
    struct wire w = dial(COX_TLS_GRPC, &honest);
    char heard[64];
    int n = 0;

    (void)state;
    SSL_write(w.ssl, words, sizeof(words) - 1);
    assert_true(hear(&w, heard, sizeof(heard)) > 0);
    while (n < 100000 && SSL_key_update(w.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 &&
           SSL_do_handshake(w.ssl) == 1)
        n++;
    assert_int_equal(hear(&w, heard, sizeof(heard)), 0);
    assert_in_range(n, 32, 99999);
    hang_up(&w);
}

static void test_a_few_updates_of_keys(void **state)
{
    struct wire w = dial(COX_TLS_GRPC, &honest);
    char heard[64];

    (void)state;
    SSL_write(w.ssl, words, sizeof(words) - 1);
    assert_true(hear(&w, heard, sizeof(heard)) > 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(SSL_key_update(w.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_write(w.ssl, "more", 4), 4);
        assert_int_equal(hear(&w, heard, sizeof(heard)), 4);
        assert_int_equal(send(w.plain, "less", 4, MSG_NOSIGNAL), 4);
        assert_int_equal(SSL_read(w.ssl, heard, sizeof(heard)), 4);
    }
    hang_up(&w);
}

/* More than may be begun: the oldest are out, and an honest client is served. */
static void test_half_handshakes(void **state)
{
    enum { N = COX_TLS_HANDSHAKES_MAX + 100 };
    static const unsigned char hello_begun[] = { 0x16, 0x03, 0x01, 0x02, 0x00, 0x01 };
    static int nets[N], plains[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        assert_int_equal(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
        nets[i] = pair[0];
        plains[i] = cox_tls_terminate(tls, pair[1], COX_TLS_GRPC);
        assert_true(plains[i] >= 0);
        assert_int_equal(send(nets[i], hello_begun, sizeof(hello_begun), MSG_NOSIGNAL), sizeof(hello_begun));
    }
    assert_true(gets_in(COX_TLS_GRPC, &honest));
    for (int i = 0; i < 100; i++) {
        struct pollfd pfd = { .fd = plains[i], .events = POLLIN };
        assert_int_equal(poll(&pfd, 1, PATIENCE_S * 1000 / 4), 1);
    }
    assert_in_range(cox_tls_stats(tls).n_given_up, 100, 101);
    for (int i = 0; i < N; i++) {
        close(nets[i]);
        close(plains[i]);
    }
}

/* ---- files ---- */

static void append(const char *from, const char *to)
{
    FILE *in = fopen(tls_path(from), "re"), *out = fopen(tls_path(to), "ae");
    char line[256];

    assert_true(in && out);
    while (fgets(line, sizeof(line), in))
        fputs(line, out);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static void test_reloading(void **state)
{
    struct cox_tls_files files = tls_files("server", "other"), bad = tls_files("alice", "ca");
    struct wire w = dial(COX_TLS_GRPC, &honest);
    struct offer mallory = honest;
    struct cox_buf error = { 0 };
    char heard[64];

    (void)state;
    SSL_write(w.ssl, words, sizeof(words) - 1);
    assert_true(hear(&w, heard, sizeof(heard)) > 0);
    mallory.file = "mallory";
    bad.key = files.key;
    assert_int_equal(cox_tls_reload(tls, &bad, &error), COX_ERR_INVALID);
    assert_non_null(strstr(cox_buf_cstr(&error), "is not that of the certificate"));
    assert_true(gets_in(COX_TLS_GRPC, &honest));
    assert_int_equal(cox_tls_reload(tls, &files, &error), COX_OK);
    assert_false(gets_in(COX_TLS_GRPC, &honest)); /* its CA has been taken away */
    assert_true(gets_in(COX_TLS_GRPC, &mallory));
    SSL_write(w.ssl, "still", 5); /* who is in stays in */
    assert_int_equal(hear(&w, heard, sizeof(heard)), 5);
    hang_up(&w);

    files.ca = tls_path("both.crt"); /* as long as both are in use */
    append("ca.crt", "both.crt");
    append("other.crt", "both.crt");
    assert_int_equal(cox_tls_reload(tls, &files, &error), COX_OK);
    assert_true(gets_in(COX_TLS_GRPC, &honest));
    assert_true(gets_in(COX_TLS_GRPC, &mallory));
    cox_buf_fini(&error);
}

static void test_made_files(void **state)
{
    struct cox_tls_request request = { .role = COX_TLS_ROLE_CLIENT, .name = "eve", .days = 2 };
    const char *bad_hosts[] = { "not a host" };
    struct cox_buf error = { 0 };
    struct stat st;

    (void)state;
    assert_int_equal(stat(tls_path("alice.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(tls_path("ca.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(cox_tls_stats(tls).expires_s > time(NULL) + 86400);
    assert_true(cox_tls_stats(tls).expires_s <= time(NULL) + 2 * 86400);

#define MAKE                                                                                                 \
    cox_tls_make(tls_path("ca.crt"), tls_path("ca.key"), &request, tls_path("x.crt"), tls_path("x.key"),     \
                 &error)
    for (size_t i = 0; i < 4; i++) { /* the CA ends after nine */
        request.days = ((const int64_t[]){ 10, 0, 3000000, UINT32_MAX })[i];
        assert_int_equal(MAKE, COX_ERR_INVALID);
    }
    request.days = 2;
    request.hosts = bad_hosts;
    request.n_hosts = 1;
    assert_int_equal(MAKE, COX_ERR_INVALID);
    request.n_hosts = 0;
    request.name = "a name of more than the sixty-four characters that a certificate has room for";
    assert_int_equal(MAKE, COX_ERR_INVALID);
    assert_int_equal(access(tls_path("x.crt"), F_OK), -1);
    assert_int_equal(access(tls_path("x.key"), F_OK), -1);
    request.name = "eve";
    assert_int_equal(mkdir(tls_path("x.crt"), 0700), 0);
    assert_int_equal(MAKE, COX_ERR_IO);
    assert_int_equal(access(tls_path("x.key"), F_OK), -1); /* not half of a pair */
    assert_int_equal(rmdir(tls_path("x.crt")), 0);
    cox_buf_fini(&error);
}

static void test_files_of_clients(void **state)
{
    struct {
        struct cox_tls_files files;
        const char *says;
    } cases[] = {
        { tls_files("alice", "ca"), NULL },
        { tls_files(NULL, "ca"), NULL },
        { tls_files("alice", NULL), "--tls-ca" },
        { { .ca = tls_path("ca.crt"), .cert = tls_path("alice.crt") }, "go together" },
        { { .ca = tls_path("ca.crt"), .cert = tls_path("alice.crt"), .key = tls_path("bob.key") },
          "is not that of the certificate" },
        { { .ca = tls_path("missing") }, "No such file" },
        { { .ca = tls_path("ca.key") }, "ca.key: " },
    };
    struct cox_buf error = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cox_buf_clear(&error);
        enum cox_err err = cox_tls_check_client(&cases[i].files, &error);
        if ((err == COX_OK) != !cases[i].says ||
            (cases[i].says && !strstr(cox_buf_cstr(&error), cases[i].says)))
            fail_msg("case %zu: %s", i, cox_buf_cstr(&error));
    }
    cox_buf_fini(&error);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_who_gets_in),
        T(test_who_it_is),
        T(test_a_number_with_a_new_owner),
        T(test_all_bytes_cross),
        T(test_ends_are_passed_on),
        T(test_last_words_that_nobody_takes),
        T(test_endless_updates_of_keys),
        T(test_a_few_updates_of_keys),
        T(test_half_handshakes),
        T(test_reloading),
        T(test_made_files),
        T(test_files_of_clients),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
