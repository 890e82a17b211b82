/* Whose a call is when its connection has gone and another has its descriptor: never the next owner's.
 *
 * The clients are written by hand, frame by frame, so that each step is known to have happened: a PING that
 * comes back says that the library has read what was before it. It does so on whatever thread runs any loop;
 * the calls meanwhile wait in the queue of the server's loop, which runs only where the test says so. */
#include "rpc_fixture.h"
#include "tls_fixture.h"

#include <coxswain/v1/task_service.pb-c.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define DESCRIPTORS 256 /* few: numbers are taken in turn, and come round again soon */
#define LOWEST 64
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
enum { FRAME_DATA, FRAME_HEADERS, FRAME_SETTINGS = 4, FRAME_PING = 6 };
enum { FLAG_ACK = 1, FLAG_END_STREAM = 1, FLAG_END_HEADERS = 4 };

static struct {
    int n_opened;
    char says[16], is[16]; /* of the last call: who it says it is from, and whose certificate it has */
} service;

static void on_open(struct cox_rpc_call *call, void *user)
{
    struct cox_slice says = cox_rpc_call_metadata(call, "who");
    const struct cox_tls_certificate *c = cox_rpc_call_certificate(call);

    (void)user;
    service.n_opened++;
    snprintf(service.says, sizeof(service.says), "%.*s", (int)says.len, (const char *)says.data);
    snprintf(service.is, sizeof(service.is), "%s", c ? c->name : "nobody");
    if (c)
        assert_string_equal(service.is, service.says);
}

static void on_get(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    Coxswain__V1__GetTaskResponse response = COXSWAIN__V1__GET_TASK_RESPONSE__INIT;

    (void)message, (void)user;
    cox_rpc_reply(call, &response.base);
}

static const struct cox_rpc_method methods[] = { { "GetTask",
                                                   { .on_open = on_open, .on_message = on_get } } };
static const struct cox_rpc_service services[] = {
    { &coxswain__v1__task_service__descriptor, methods, ARRAY_LEN(methods), NULL },
};

static struct fixture f;
static struct cox_rpc_loop *beside; /* runs while the server's does not */
static struct cox_tls *tls;
static struct rlimit limit_before;

static int setup(void **state)
{
    struct cox_buf error = { 0 };

    (void)state;
    memset(&service, 0, sizeof(service));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit_before), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ DESCRIPTORS, limit_before.rlim_max }), 0);
    tls_fixture_init();
    struct cox_tls_files files = tls_files("server", "ca");
    assert_int_equal(cox_tls_create(&files, &tls, &error), COX_OK);
    fixture_init(&f, (struct cox_rpc_server_config){ .services = services, .n_services = 1, .tls = tls });
    beside = cox_rpc_loop_create();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cox_rpc_loop_destroy(beside);
    fixture_fini(&f);
    cox_tls_destroy(tls);
    tls_fixture_fini();
    setrlimit(RLIMIT_NOFILE, &limit_before);
    return 0;
}

/* Lets the library work, but no call reach the server, until it holds. */
#define UNTIL(cond)                                                                                          \
    do {                                                                                                     \
        int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;                                              \
        while (!(cond)) {                                                                                    \
            cox_rpc_loop_run_once(beside, cox_clock_mono_ns() + 1000000, 1);                                 \
            assert_true(cox_clock_mono_ns() < give_up_ns);                                                   \
        }                                                                                                    \
    } while (0)

/* ---- a client ---- */

struct client {
    const char *who;
    int net;
    SSL *ssl;
    uint32_t stream; /* the next one */
    struct cox_buf heard;
};

static struct client dial(const char *who)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)cox_rpc_server_port(f.server)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct cox_tls_files files = tls_files(who, "ca");
    struct client c = { .who = who, .stream = 1, .net = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    assert_int_equal(connect(c.net, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(SSL_CTX_use_certificate_chain_file(context, files.cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(context, files.key, SSL_FILETYPE_PEM), 1);
    c.ssl = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_fd(c.ssl, c.net);
    SSL_set_alpn_protos(c.ssl, (const unsigned char *)"\x02h2", 3);
    assert_int_equal(SSL_connect(c.ssl), 1);
    assert_int_equal(fcntl(c.net, F_SETFL, O_NONBLOCK), 0);
    return c;
}

static void leave(struct client *c)
{
    SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    close(c->net);
    cox_buf_fini(&c->heard);
}

static void put_frame(struct cox_buf *out, int type, int flags, uint32_t stream, struct cox_slice content)
{
    for (int shift = 16; shift >= 0; shift -= 8)
        cox_put_u8(out, (uint8_t)(content.len >> shift));
    cox_put_u8(out, (uint8_t)type);
    cox_put_u8(out, (uint8_t)flags);
    for (int shift = 24; shift >= 0; shift -= 8)
        cox_put_u8(out, (uint8_t)(stream >> shift));
    cox_buf_append_slice(out, content);
}

/* A literal that no table remembers (RFC 7541, 6.2.2). */
static void put_header(struct cox_buf *out, const char *name, const char *value)
{
    cox_put_u8(out, 0);
    cox_put_u8(out, (uint8_t)strlen(name));
    cox_buf_append_str(out, name);
    cox_put_u8(out, (uint8_t)strlen(value));
    cox_buf_append_str(out, value);
}

/* Whether the answer to a PING is among what has come. */
static bool hears_ping(struct client *c)
{
    uint8_t piece[4096];
    size_t at = 0;

    for (int n; (n = SSL_read(c->ssl, piece, sizeof(piece))) > 0;)
        cox_buf_append(&c->heard, piece, (size_t)n);
    while (c->heard.len - at >= 9) {
        const uint8_t *h = c->heard.data + at;

        if (h[3] == FRAME_PING && (h[4] & FLAG_ACK)) {
            cox_buf_clear(&c->heard);
            return true;
        }
        at += 9 + ((size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2]);
        if (at > c->heard.len)
            break;
    }
    return false;
}

/* Makes a call, and waits until the library has it. */
static void call(struct client *c)
{
    static const uint8_t empty[5], ping[8];
    struct cox_buf headers = { 0 }, out = { 0 };

    if (c->stream == 1) {
        cox_buf_append_str(&out, PREFACE);
        put_frame(&out, FRAME_SETTINGS, 0, 0, (struct cox_slice){ 0 });
    }
    put_header(&headers, ":method", "POST");
    put_header(&headers, ":scheme", "http");
    put_header(&headers, ":path", "/coxswain.v1.TaskService/GetTask");
    put_header(&headers, ":authority", "test");
    put_header(&headers, "te", "trailers");
    put_header(&headers, "content-type", "application/grpc");
    put_header(&headers, "who", c->who);
    put_frame(&out, FRAME_HEADERS, FLAG_END_HEADERS, c->stream, cox_buf_slice(&headers));
    put_frame(&out, FRAME_DATA, FLAG_END_STREAM, c->stream, cox_slice(empty, sizeof(empty)));
    put_frame(&out, FRAME_PING, 0, 0, cox_slice(ping, sizeof(ping)));
    assert_int_equal(SSL_write(c->ssl, out.data, (int)out.len), (int)out.len);
    c->stream += 2;
    UNTIL(hears_ping(c));
    cox_buf_fini(&headers);
    cox_buf_fini(&out);
}

/* Whose certificate a descriptor's number stands for. */
static bool owns(const char *who, int number)
{
    struct cox_tls_certificate *c = cox_tls_peer(tls, number);
    bool is = c && strcmp(c->name, who) == 0;

    cox_free(c);
    return is;
}

static int number_of(const char *who)
{
    for (int i = 0; i < DESCRIPTORS; i++) {
        if (owns(who, i))
            return i;
    }
    return -1;
}

static bool is_open(int number)
{
    return fcntl(number, F_GETFD) >= 0;
}

static int n_open(void)
{
    int n = 0;

    for (int i = 0; i < DESCRIPTORS; i++)
        n += is_open(i);
    return n;
}

/* Takes the next number, which is free again afterwards. */
static void pass_by(const char *who)
{
    int before = n_open();
    struct client c = dial(who);

    leave(&c);
    UNTIL(n_open() <= before);
}

/* Has called. Her number is none of the lowest, which go to whatever is opened. */
static struct client alice_with_number(int *ret)
{
    for (int i = 0; i < LOWEST; i++)
        pass_by("bob");
    struct client alice = dial("alice");

    call(&alice);
    *ret = number_of("alice");
    assert_true(*ret >= LOWEST);
    return alice;
}

/* Bobs come and go until one has the number that was Alice's: they are given all of them in turn. False: none
 * can have it. */
static bool bob_gets(int number, struct client *ret)
{
    for (int i = 0; i < DESCRIPTORS; i++) {
        int before = n_open();

        *ret = dial("bob");
        if (!owns("alice", number)) { /* it has been given away */
            UNTIL(owns("bob", number));
            return true;
        }
        leave(ret);
        UNTIL(n_open() <= before);
    }
    return false;
}

/* Alice has called and left, and nobody has looked at her call yet. Either the library keeps her descriptor
 * until that is done, and nobody can get it, as 1.51 does; or Bob gets it, and is not taken for the caller.
 */
static void test_a_call_that_waits_is_not_the_next_owners(void **state)
{
    int number;
    struct client alice = alice_with_number(&number), bob;

    (void)state;
    leave(&alice);
    if (bob_gets(number, &bob)) {
        call(&bob);
        leave(&bob);
    } else {
        assert_true(is_open(number));
    }
    for (int i = 0; i < 8; i++)
        cox_rpc_loop_run_once(f.loop, 0, 256); /* on_open compares */
    if (service.n_opened > 0)
        assert_string_equal(service.says, "alice");
    UNTIL(!is_open(number));
}

/* A number's second owner is believed to be the caller only when no call of the first can be left anywhere.
 */
static void test_the_second_owner_waits_its_turn(void **state)
{
    int number;
    struct client alice = alice_with_number(&number), bob;

    (void)state;
    RUN_UNTIL(&f, service.n_opened == 1); /* a number's first owner waits for nothing */
    assert_string_equal(service.is, "alice");
    leave(&alice);
    UNTIL(!is_open(number));
    assert_true(bob_gets(number, &bob));
    call(&bob);
    cox_rpc_loop_run_once(f.loop, 0, 1);
    assert_int_equal(service.n_opened, 1);
    for (int i = 0; i < 8; i++)
        cox_rpc_loop_run_once(f.loop, 0, 256);
    assert_int_equal(service.n_opened, 1); /* it was refused, not put off */
    call(&bob);
    RUN_UNTIL(&f, service.n_opened == 2);
    assert_string_equal(service.is, "bob");
    leave(&bob);
}

/* Whom the library has not seen has no calls that could be left: a crowd that says nothing, and has had every
 * number, costs nobody his first call. */
static void test_who_said_nothing_was_no_owner(void **state)
{
    struct client bob;

    (void)state;
    for (int i = 0; i < DESCRIPTORS; i++)
        pass_by("alice");
    bob = dial("bob");
    call(&bob);
    for (int i = 0; i < 8; i++)
        cox_rpc_loop_run_once(f.loop, 0, 256);
    assert_int_equal(service.n_opened, 1);
    assert_string_equal(service.is, "bob");
    leave(&bob);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_call_that_waits_is_not_the_next_owners, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_second_owner_waits_its_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_said_nothing_was_no_owner, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
