/* What a step's process may ask its worker for, and what it may not. */
#include "check.h"
#include "gateway/gateway.h"
#include "gateway/request.h"

#include "cox/agent.h"
#include "cox/base/rng.h"
#include "cox/base/units.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE_NS (20 * INT64_C(1000000000))
#define MINE "00000000000000000000000000000000000000000000000000000000000000aa"
#define OTHERS "00000000000000000000000000000000000000000000000000000000000000bb"

/* ---------------------------------------------------------------- heads of requests */

static int read_text(const char *text, struct request *ret)
{
    return request_read(cox_slice_str(text), ret);
}

static void test_heads_are_read(void **state)
{
    struct request r;

    (void)state;
    assert_int_equal(read_text("GET /blobs/x HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: bearer  k \r\n\r\n", &r),
                     0);
    assert_int_equal(r.method, REQUEST_GET);
    assert_true(cox_slice_is(r.path, "/blobs/x"));
    assert_true(cox_slice_is(r.key, "k"));
    assert_false(r.has_len || r.expects);
    assert_int_equal(
        read_text("POST /blobs HTTP/1.0\r\nContent-Length:12\r\nExpect: 100-Continue\r\n\r\n", &r), 0);
    assert_int_equal(r.method, REQUEST_POST);
    assert_true(r.has_len && r.expects && r.len == 12 && r.key.len == 0);
    assert_int_equal(read_text("DELETE / HTTP/1.1\r\nAuthorization: Basic abc\r\n\r\n", &r), 0);
    assert_int_equal(r.method, REQUEST_OTHER);
    assert_int_equal(r.key.len, 0);
}

static void test_what_could_be_taken_for_two_things_is_refused(void **state)
{
    static const struct {
        const char *head;
        int status;
    } bad[] = {
        { "GET /x\r\n\r\n", 400 },
        { "GET x HTTP/1.1\r\n\r\n", 400 },
        { "GET http://a/x HTTP/1.1\r\n\r\n", 400 },
        { "GET  /x HTTP/1.1\r\n\r\n", 400 },
        { "GET /x y HTTP/1.1\r\n\r\n", 400 },
        { "GET /x HTTP/2.0\r\n\r\n", 505 },
        { "GET /x HTTP/1.1\n\n\r\n\r\n", 400 },
        { "GET /x HTTP/1.1\r\nA: b\n\r\n\r\n", 400 },
        { "GET /x HTTP/1.1\r\nA: b\r\r\n\r\n", 400 },
        { "GET /x HTTP/1.1\r\n folded: b\r\n\r\n", 400 },
        { "GET /x HTTP/1.1\r\nA : b\r\n\r\n", 400 },
        { "GET /x HTTP/1.1\r\n: b\r\n\r\n", 400 },
        { "GET /x HTTP/1.1\r\nnothing\r\n\r\n", 400 },
        { "GET /x HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400 },
        { "POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400 },
        { "POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400 },
        { "POST /x HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400 },
        { "POST /x HTTP/1.1\r\nContent-Length:\r\n\r\n", 400 },
        { "POST /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400 },
        { "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411 },
        { "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400 },
        { "", 400 },
    };
    struct request r;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (read_text(bad[i].head, &r) != bad[i].status)
            fail_msg("%d, not %d: %s", read_text(bad[i].head, &r), bad[i].status, bad[i].head);
    assert_int_equal(request_read(cox_slice("GET /x HTTP/1.1\r\nA: \0b\r\n\r\n", 26), &r), 400);
}

/* Whatever stands in it: slices lie within, and what was read is read the same from a copy. */
static void test_any_bytes(void **state)
{
    static const char seed_text[] =
        "POST /blobs HTTP/1.1\r\nAuthorization: Bearer abc\r\nContent-Length: 7\r\n\r\n";

    (void)state;
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        struct cox_rng rng;
        char *head = malloc(sizeof(seed_text) - 1); /* exactly, for sanitizers */
        struct request r;

        cox_rng_init(&rng, seed);
        memcpy(head, seed_text, sizeof(seed_text) - 1);
        for (uint64_t n = cox_rng_below(&rng, 4) + 1; n > 0; n--)
            head[cox_rng_below(&rng, sizeof(seed_text) - 1)] = (char)cox_rng_below(&rng, 256);
        size_t len = sizeof(seed_text) - 1 - cox_rng_below(&rng, 3) * cox_rng_below(&rng, 20);
        int status = request_read(cox_slice(head, len), &r);

        check_seeded(status == 0 || status == 400 || status == 411 || status == 505, seed);
        if (status == 0) {
            check_seeded(r.path.data >= (uint8_t *)head && r.path.data + r.path.len <= (uint8_t *)head + len,
                         seed);
            check_seeded(r.key.len == 0 || r.key.data + r.key.len <= (uint8_t *)head + len, seed);
        }
        free(head);
    }
}

/* ---------------------------------------------------------------- a gateway and who asks it */

struct bench {
    struct event_base *base;
    struct gateway *gateway;
    struct gateway_attempt *a, *b; /* each with a blob of its own */
    char dir[64];
    char mine[160], others[160];
    const char *of_a[2], *of_b[2];
};

static void write_file(const char *path, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    for (size_t i = 0; i < len; i += 8)
        assert_int_equal(write(fd, "12345678", 8), 8);
    close(fd);
}

static void begin(struct bench *b, size_t len)
{
    struct cox_agent_assign assign = { .tenant = { 0 } };

    memset(b, 0, sizeof(*b));
    snprintf(b->dir, sizeof(b->dir), "/tmp/cox-test-gateway-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->mine, sizeof(b->mine), "%s/" MINE, b->dir);
    snprintf(b->others, sizeof(b->others), "%s/" OTHERS, b->dir);
    write_file(b->mine, len);
    write_file(b->others, 16);
    b->of_a[0] = b->mine;
    b->of_b[0] = b->others;
    b->base = event_base_new();
    b->gateway = gateway_create(b->base, NULL, NULL, b->dir);
    b->a = gateway_admit(b->gateway, &assign);
    b->b = gateway_admit(b->gateway, &assign);
    gateway_offer(b->a, b->of_a, NULL);
    gateway_offer(b->b, b->of_b, NULL);
}

static void end(struct bench *b)
{
    gateway_attempt_free(b->a);
    gateway_attempt_free(b->b);
    gateway_destroy(b->gateway);
    event_base_free(b->base);
    assert_int_equal(unlink(b->mine), 0);
    assert_int_equal(unlink(b->others), 0);
    assert_int_equal(rmdir(b->dir), 0);
}

static void turn(struct bench *b)
{
    event_base_loop(b->base, EVLOOP_NONBLOCK);
}

static int dial_port(unsigned port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

static int dial(const struct bench *b)
{
    char url[GATEWAY_URL_MAX];
    unsigned port;

    assert_true(gateway_url(b->a, false, url));
    assert_int_equal(sscanf(url, "http://127.0.0.1:%u/blobs", &port), 1);
    return dial_port(port);
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* All that comes until the other side ends. False: it broke off. */
static bool hear(struct bench *b, int fd, struct cox_buf *ret)
{
    int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;
    char piece[4096];
    ssize_t n;

    for (;;) {
        turn(b);
        n = recv(fd, piece, sizeof(piece), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return n == 0;
        if (n > 0)
            cox_buf_append(ret, piece, (size_t)n);
        assert_true(cox_clock_mono_ns() < give_up_ns);
    }
}

/* The status; `ret` has the body. */
static int ask_at(struct bench *b, int fd, const char *key, const char *method, const char *path,
                  const char *rest, struct cox_buf *ret)
{
    struct cox_buf q = { 0 }, answer = { 0 };
    int status = 0;
    char *body;

    cox_buf_printf(&q, "%s %s HTTP/1.1\r\nHost: x\r\n", method, path);
    if (key)
        cox_buf_printf(&q, "Authorization: Bearer %s\r\n", key);
    cox_buf_append_str(&q, rest ? rest : "\r\n");
    say(fd, cox_buf_cstr(&q));
    hear(b, fd, &answer);
    sscanf(cox_buf_cstr(&answer), "HTTP/1.1 %d ", &status);
    body = strstr(cox_buf_cstr(&answer), "\r\n\r\n");
    cox_buf_clear(ret);
    if (body)
        cox_buf_append_str(ret, body + 4);
    cox_buf_fini(&q);
    cox_buf_fini(&answer);
    close(fd);
    return status;
}

static int ask(struct bench *b, const char *key, const char *method, const char *path, const char *rest)
{
    struct cox_buf body = { 0 };
    int status = ask_at(b, dial(b), key, method, path, rest, &body);

    cox_buf_fini(&body);
    return status;
}

static void test_a_key_reads_the_blobs_of_its_attempt(void **state)
{
    struct cox_buf body = { 0 };
    struct bench b;

    (void)state;
    begin(&b, 64);
    assert_int_equal(ask_at(&b, dial(&b), gateway_key(b.a), "GET", "/blobs/sha256:" MINE, NULL, &body), 200);
    assert_int_equal(body.len, 64);
    assert_memory_equal(body.data, "1234567812345678", 16);
    assert_int_equal(ask_at(&b, dial(&b), gateway_key(b.a), "HEAD", "/blobs/sha256:" MINE, NULL, &body), 200);
    assert_int_equal(body.len, 0);
    assert_int_equal(ask(&b, gateway_key(b.b), "GET", "/blobs/sha256:" OTHERS, NULL), 200);
    cox_buf_fini(&body);
    end(&b);
}

static void test_and_no_others(void **state)
{
    static const char *const paths[] = {
        "/blobs/sha256:" OTHERS,
        "/blobs/" MINE,
        "/blobs/sha256:" MINE "/",
        "/blobs/sha256:" MINE "?x",
        "/blobs/sha256:../" MINE,
        "/blobs//sha256:" MINE,
        "/blobs/./sha256:" MINE,
        "/blobs/../blobs/sha256:" MINE,
        "/blobs/sha256%3A" MINE,
        "/blobs/sha256:" MINE "%00",
        "/blobs/sha256:00000000000000000000000000000000000000000000000000000000000000AA",
        "/blobs/sha256:",
        "/blobs/",
        "/blobsha256:" MINE,
        "/",
        "/v1/models",
    };
    struct cox_buf theirs = { 0 }, no = { 0 };
    struct bench b;

    (void)state;
    begin(&b, 64);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        if (ask(&b, gateway_key(b.a), "GET", paths[i], NULL) != 404)
            fail_msg("%s: expected 404", paths[i]);
    ask_at(&b, dial(&b), gateway_key(b.a), "GET", "/blobs/sha256:" OTHERS, NULL, &theirs);
    ask_at(&b, dial(&b), gateway_key(b.a), "GET", "/blobs/sha256:cc" MINE, NULL, &no);
    assert_string_equal(cox_buf_cstr(&theirs), cox_buf_cstr(&no));
    assert_int_equal(ask(&b, gateway_key(b.a), "DELETE", "/blobs/sha256:" MINE, NULL), 405);
    assert_int_equal(ask(&b, gateway_key(b.a), "PUT", "/blobs", NULL), 405);
    cox_buf_fini(&theirs);
    cox_buf_fini(&no);
    end(&b);
}

static void test_what_is_no_key_is_all_the_same(void **state)
{
    struct cox_buf body = { 0 }, first = { 0 };
    struct bench b;
    char keys[6][80];

    (void)state;
    begin(&b, 64);
    for (size_t i = 0; i < 6; i++)
        snprintf(keys[i], sizeof(keys[i]), "%s", gateway_key(b.a));
    keys[1][strlen(keys[1]) - 1] ^= 1; /* all but its last bit */
    keys[2][strlen(keys[2]) - 1] = 0;
    keys[3][strlen(keys[3]) + 1] = 0;
    keys[3][strlen(keys[3])] = '0';
    snprintf(keys[4], sizeof(keys[4]), "%s", gateway_key(b.b));
    snprintf(keys[5], sizeof(keys[5]), "COXKEY-%048d", 0);
    gateway_revoke(b.b); /* 4 is dead */
    assert_int_equal(ask(&b, keys[0], "GET", "/blobs/sha256:" MINE, NULL), 200);
    assert_int_equal(ask_at(&b, dial(&b), NULL, "GET", "/blobs/sha256:" MINE, NULL, &first), 401);
    for (size_t i = 1; i < 6; i++) {
        assert_int_equal(ask_at(&b, dial(&b), keys[i], "GET", "/blobs/sha256:" MINE, NULL, &body), 401);
        assert_string_equal(cox_buf_cstr(&body), cox_buf_cstr(&first));
        assert_int_equal(ask(&b, keys[i], "GET", "/nowhere", NULL), 401);
    }
    cox_buf_fini(&body);
    cox_buf_fini(&first);
    end(&b);
}

/* Also what it has begun. */
static void test_a_key_dies_with_its_attempt(void **state)
{
    struct cox_buf got = { 0 };
    struct bench b;
    char key[80], text[400];
    int fd;

    (void)state;
    begin(&b, (size_t)64 << 20); /* more than sockets hold */
    snprintf(key, sizeof(key), "%s", gateway_key(b.a));
    fd = dial(&b);
    snprintf(text, sizeof(text), "GET /blobs/sha256:" MINE " HTTP/1.1\r\nAuthorization: Bearer %s\r\n\r\n",
             key);
    say(fd, text);
    for (int i = 0; i < 10; i++)
        turn(&b);
    gateway_revoke(b.a);
    assert_int_equal(ask(&b, key, "GET", "/blobs/sha256:" MINE, NULL), 401);
    hear(&b, fd, &got);
    assert_true(got.len > 0 && got.len < (size_t)64 << 20);
    close(fd);
    cox_buf_fini(&got);
    end(&b);
}

/* Who does not read holds what is its own: a connection, and no memory. */
static void test_slow_readers_hold_up_nobody_else(void **state)
{
    int slow[GATEWAY_REQUESTS_MAX], silent[2 * GATEWAY_HEADS_MAX];
    struct bench b;
    char text[400];

    (void)state;
    begin(&b, (size_t)64 << 20);
    snprintf(text, sizeof(text), "GET /blobs/sha256:" MINE " HTTP/1.1\r\nAuthorization: Bearer %s\r\n\r\n",
             gateway_key(b.a));
    for (size_t i = 0; i < ARRAY_LEN(slow); i++) {
        slow[i] = dial(&b);
        say(slow[i], text);
        for (int n = 0; n < 20; n++)
            turn(&b);
    }
    for (size_t i = 0; i < ARRAY_LEN(silent); i++) { /* more than wait at once: the oldest give way */
        silent[i] = dial(&b);
        say(silent[i], "GET /blobs");
        turn(&b);
    }
    assert_int_equal(ask(&b, gateway_key(b.b), "GET", "/blobs/sha256:" OTHERS, NULL), 200);
    assert_int_equal(ask(&b, gateway_key(b.a), "GET", "/blobs/sha256:" MINE, NULL), 429);
    for (size_t i = 0; i < ARRAY_LEN(silent); i++)
        close(silent[i]);
    for (size_t i = 0; i < ARRAY_LEN(slow); i++)
        close(slow[i]);
    assert_int_equal(ask(&b, gateway_key(b.a), "HEAD", "/blobs/sha256:" MINE, NULL), 200);
    end(&b);
}

static void test_bodies_are_bounded(void **state)
{
    struct cox_buf head = { 0 };
    struct bench b;

    (void)state;
    begin(&b, 64);
    assert_int_equal(ask(&b, gateway_key(b.a), "POST", "/blobs", NULL), 411);
    assert_int_equal(ask(&b, gateway_key(b.a), "POST", "/blobs", "Transfer-Encoding: chunked\r\n\r\n"), 411);
    assert_int_equal(ask(&b, gateway_key(b.a), "POST", "/blobs", "Content-Length: 1073741825\r\n\r\n"), 413);
    assert_int_equal(ask(&b, gateway_key(b.a), "POST", "/blobs", "Content-Length: 3\r\n\r\nabc"), 503);
    assert_int_equal(ask(&b, "wrong", "POST", "/blobs", "Content-Length: 3\r\n\r\nabc"), 401);
    cox_buf_append_str(&head, "X: ");
    for (unsigned i = 0; i < REQUEST_HEAD_LEN_MAX; i++)
        cox_buf_append_str(&head, "x");
    cox_buf_append_str(&head, "\r\n\r\n");
    assert_int_equal(ask(&b, gateway_key(b.a), "GET", "/blobs/sha256:" MINE, cox_buf_cstr(&head)), 431);
    cox_buf_fini(&head);
    end(&b);
}

/* ---------------------------------------------------------------- inside a sandbox */

static int listen_anywhere(unsigned *ret_port)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

/* As cox-sandbox does. */
static void hand_over(int channel, int fd)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { .bytes = { 0 } };
    struct iovec byte = { .iov_base = (char[1]){ 0 }, .iov_len = 1 };
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    assert_int_equal(sendmsg(channel, &message, 0), 1);
    close(fd);
    close(channel);
}

static void test_a_sandboxs_key_is_good_in_it_and_nowhere_else(void **state)
{
    struct cox_buf body = { 0 };
    char url[GATEWAY_URL_MAX];
    unsigned port;
    int channel[2];
    struct bench b;

    (void)state;
    begin(&b, 64);
    assert_true(gateway_url(b.a, true, url));
    assert_string_equal(url, "http://127.0.0.1:7602/blobs");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel), 0);
    hand_over(channel[1], listen_anywhere(&port));
    gateway_listen(b.a, channel[0]);
    assert_int_equal(ask_at(&b, dial_port(port), gateway_key(b.a), "GET", "/blobs/sha256:" MINE, NULL, &body),
                     200);
    assert_int_equal(
        ask_at(&b, dial_port(port), gateway_key(b.b), "GET", "/blobs/sha256:" OTHERS, NULL, &body), 401);
    assert_int_equal(ask(&b, gateway_key(b.a), "GET", "/blobs/sha256:" MINE, NULL), 401); /* from the host */
    assert_int_equal(ask(&b, gateway_key(b.b), "GET", "/blobs/sha256:" OTHERS, NULL), 200);
    gateway_revoke(b.a); /* and nobody listens there any more */
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), -1);
    close(fd);
    cox_buf_fini(&body);
    end(&b);
}

/* A sandbox that could not be made. */
static void test_a_channel_that_ends(void **state)
{
    struct bench b;
    int channel[2];

    (void)state;
    begin(&b, 64);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel), 0);
    gateway_listen(b.a, channel[0]);
    close(channel[1]);
    turn(&b);
    assert_int_equal(fcntl(channel[0], F_GETFD), -1);
    end(&b);
}

static int block_sigpipe(void **state)
{
    sigset_t set;

    (void)state;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    return sigprocmask(SIG_BLOCK, &set, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads_are_read),
        cmocka_unit_test(test_what_could_be_taken_for_two_things_is_refused),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_a_key_reads_the_blobs_of_its_attempt),
        cmocka_unit_test(test_and_no_others),
        cmocka_unit_test(test_what_is_no_key_is_all_the_same),
        cmocka_unit_test(test_a_key_dies_with_its_attempt),
        cmocka_unit_test(test_slow_readers_hold_up_nobody_else),
        cmocka_unit_test(test_bodies_are_bounded),
        cmocka_unit_test(test_a_sandboxs_key_is_good_in_it_and_nowhere_else),
        cmocka_unit_test(test_a_channel_that_ends),
    };

    return cmocka_run_group_tests(tests, block_sigpipe, NULL);
}
