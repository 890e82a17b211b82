/* The http handler in the slots, against a server of a few lines. */
#include "secrets.h"
#include "slots_fixture.h"

#include "cox/json.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>

static sem_t asked, name_server;

/* In place of libc's: a name server that takes its time. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
    (void)name;
    (void)service;
    (void)hints;
    (void)ret;
    sem_post(&asked);
    sem_wait(&name_server);
    return EAI_NONAME;
}

struct server {
    int fd;
    int port;
    pthread_t thread;
    char request[4096]; /* the last one */
};

static const char *response_to(const char *request)
{
    if (strstr(request, " /json "))
        return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\nConnection: "
               "close\r\n\r\n{\"a\":1}";
    if (strstr(request, " /text "))
        return "HTTP/1.1 201 Created\r\nX-Odd: a\"b\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    if (strstr(request, " /there "))
        return "HTTP/1.1 302 Found\r\nLocation: /json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    if (strstr(request, " /see "))
        return "HTTP/1.1 303 See Other\r\nLocation: /json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    if (strstr(request, " /temporary "))
        return "HTTP/1.1 307 Temporary Redirect\r\nLocation: /json\r\nContent-Length: 0\r\nConnection: "
               "close\r\n\r\n";
    if (strstr(request, " /inward "))
        return "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/json\r\nContent-Length: 0\r\nConnection: "
               "close\r\n\r\n";
    if (strstr(request, " /round "))
        return "HTTP/1.1 302 Found\r\nLocation: /round\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    if (strstr(request, " /away "))
        return "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\nConnection: "
               "close\r\n\r\n";
    if (strstr(request, " /busy "))
        return "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy";
    if (strstr(request, " /hang "))
        return NULL;
    return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
}

static void *server_main(void *arg)
{
    struct server *s = arg;
    int held[16];
    size_t n_held = 0;

    for (;;) {
        int fd = accept(s->fd, NULL, NULL);
        size_t len = 0;
        ssize_t n = 1;
        const char *response;

        if (fd < 0)
            break;
        memset(s->request, 0, sizeof(s->request));
        while (n > 0 && !strstr(s->request, "\r\n\r\n") && len < sizeof(s->request) - 1)
            len += (size_t)((n = read(fd, s->request + len, sizeof(s->request) - 1 - len)) > 0 ? n : 0);
        response = response_to(s->request);
        if (response) {
            (void)!write(fd, response, strlen(response));
            close(fd);
        } else if (n_held < 16) {
            held[n_held++] = fd;
        }
    }
    while (n_held > 0)
        close(held[--n_held]);
    return NULL;
}

static void server_start(struct server *s)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);

    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(s->fd, 16), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&at, &len), 0);
    s->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static void server_stop(struct server *s)
{
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
}

static void expect_http(struct bench *b, const char *spec, int port, enum cox_code code, const char *expected)
{
    char text[300];
    struct slots_reply *reply;
    struct cox_slice found;

    snprintf(text, sizeof(text), spec, port);
    reply = bench_run(
        b, (struct cox_agent_assign){ .handler = cox_slice_str("http"), .spec_json = cox_slice_str(text) });
    found = code == COX_CODE_NONE ? reply->result.output : reply->result.message;
    if (reply->result.code != code || !memmem(found.data, found.len, expected, strlen(expected)))
        fail_msg("%s: found %s %.*s", text, cox_code_text(reply->result.code), (int)found.len,
                 (const char *)found.data);
    slots_reply_free(b->slots, reply);
}

static void begin(struct bench *b)
{
    bench_begin(b);
    assert_int_equal(reach_allow(&b->reach, "127.0.0.1"), COX_OK);
    bench_start(b);
}

static void test_http(void **state)
{
    struct server server;
    struct bench b;
    struct cox_agent_assign hang = { .ref = { 1, 1, { 1, 1 } }, .handler = cox_slice_str("http") };
    char text[100];

    (void)state;
    begin(&b);
    server_start(&server);
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/json\"}", server.port, COX_CODE_NONE,
                "\"json\":{\"a\":1}");
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/text\"}", server.port, COX_CODE_NONE,
                "{\"status\":201,\"headers\":{\"x-odd\":\"a\\\"b\"");
    expect_http(&b,
                "{\"method\":\"PUT\",\"url\":\"http://127.0.0.1:%d/"
                "text\",\"json\":{\"k\":[1]},\"headers\":{\"A-b\":\"c\"}}",
                server.port, COX_CODE_NONE, "\"body\":\"hi\"");
    assert_non_null(strstr(server.request, "PUT /text "));
    assert_non_null(strstr(server.request, "A-b: c\r\n"));
    assert_non_null(strstr(server.request, "Content-Type: application/json\r\n"));
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/there\"}", server.port, COX_CODE_NONE, "\"status\":200");
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/round\"}", server.port, COX_CODE_OUTPUT_INVALID,
                "redirects");
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/away\"}", server.port, COX_CODE_INPUT_INVALID, "rotocol");
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/busy\"}", server.port, COX_CODE_UNAVAILABLE, "503: busy");
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/none\"}", server.port, COX_CODE_INPUT_INVALID, "404");
    expect_http(&b, "{\"url\":\"file:///etc/passwd\",\"body\":\"%d\"}", 1, COX_CODE_INPUT_INVALID, "http");
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/\\r\\nX: y\"}", 1, COX_CODE_INPUT_INVALID,
                "control characters");
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/\",\"headers\":{\"A b\":\"c\"}}", 1,
                COX_CODE_INPUT_INVALID, "names of headers");
    snprintf(text, sizeof(text), "{\"url\":\"http://127.0.0.1:%d/hang\"}", server.port);
    hang.spec_json = cox_slice_str(text);
    slots_start(b.slots, 1, &hang);
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/json\"}", server.port, COX_CODE_NONE, "json");
    slots_kill(b.slots, 1);
    slots_reply_free(b.slots, bench_reply(&b));
    server_stop(&server);
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/json\"}", server.port, COX_CODE_UNAVAILABLE, "http: ");
    bench_end(&b);
}

static void test_headers_are_sent_as_given(void **state)
{
    struct server server;
    struct bench b;

    (void)state;
    begin(&b);
    server_start(&server);
    expect_http(&b,
                "{\"url\":\"http://127.0.0.1:%d/json\",\"headers\":{\"A\":\"1:2\",\"B\":\"\",\"C\":\" \","
                "\"content-type\":\"application/x\"},\"json\":1}",
                server.port, COX_CODE_NONE, "json");
    assert_non_null(strstr(server.request, "\r\nA: 1:2\r\n"));
    assert_non_null(strstr(server.request, "\r\nB:\r\n"));
    assert_non_null(strstr(server.request, "\r\nC:\r\n"));
    assert_non_null(strstr(server.request, "\r\ncontent-type: application/x\r\n"));
    assert_null(strstr(server.request, "application/json"));
    server_stop(&server);
    bench_end(&b);
}

/* server.request is the last one: that which was led on. */
static void test_redirects_keep_or_change_the_method(void **state)
{
    static const struct {
        const char *method, *path, *line;
        bool body;
    } cases[] = {
        { "POST", "there", "GET /json ", false },     { "POST", "see", "GET /json ", false },
        { "POST", "temporary", "POST /json ", true }, { "PUT", "there", "PUT /json ", true },
        { "PUT", "see", "GET /json ", false },        { "PUT", "temporary", "PUT /json ", true },
        { "PATCH", "there", "PATCH /json ", true },   { "DELETE", "see", "GET /json ", false },
        { "DELETE", "there", "DELETE /json ", true }, { "GET", "temporary", "GET /json ", true },
    };
    struct server server;
    struct bench b;

    (void)state;
    begin(&b);
    server_start(&server);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char spec[200];

        snprintf(spec, sizeof(spec),
                 "{\"method\":\"%s\",\"body\":\"123\",\"url\":\"http://127.0.0.1:%%d/%s\"}", cases[i].method,
                 cases[i].path);
        expect_http(&b, spec, server.port, COX_CODE_NONE, "\"status\":200");
        if (strncmp(server.request, cases[i].line, strlen(cases[i].line)) != 0 ||
            !strstr(server.request, "Content-Length: 3\r\n") == cases[i].body)
            fail_msg("%s %s: %s", cases[i].method, cases[i].path, server.request);
    }
    expect_http(&b, "{\"method\":\"DELETE\",\"url\":\"http://127.0.0.1:%d/see\"}", server.port, COX_CODE_NONE,
                "json");
    assert_ptr_equal(strstr(server.request, "GET /json "), server.request);
    expect_http(&b, "{\"method\":\"POST\",\"url\":\"http://127.0.0.1:%d/text\"}", server.port, COX_CODE_NONE,
                "hi");
    assert_ptr_equal(strstr(server.request, "POST /text "), server.request);
    assert_null(strcasestr(server.request, "content-type:"));
    server_stop(&server);
    bench_end(&b);
}

/* What is looked at is where the connection goes, however that was written or arrived at. */
static void test_addresses_that_are_not_public_are_denied(void **state)
{
    struct server server = { 0 };
    struct bench b;

    (void)state;
    bench_begin(&b);
    bench_start(&b);
    server_start(&server);
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/json\"}", server.port, COX_CODE_DENIED,
                "127.0.0.1 is not a public address");
    expect_http(&b, "{\"url\":\"http://localhost:%d/json\"}", server.port, COX_CODE_DENIED, "--http-allow");
    expect_http(&b, "{\"url\":\"http://0x7f000001:%d/json\"}", server.port, COX_CODE_DENIED, "127.0.0.1");
    expect_http(&b, "{\"url\":\"http://2130706433:%d/json\"}", server.port, COX_CODE_DENIED, "127.0.0.1");
    expect_http(&b, "{\"url\":\"http://[::ffff:127.0.0.1]:%d/json\"}", server.port, COX_CODE_DENIED,
                "127.0.0.1");
    expect_http(&b, "{\"url\":\"http://0:%d/json\"}", server.port, COX_CODE_DENIED, "0.0.0.0");
    expect_http(&b, "{\"url\":\"http://169.254.169.254/latest/meta-data?%d\"}", 1, COX_CODE_DENIED,
                "169.254");
    bench_end(&b);
    assert_int_equal(server.request[0], 0); /* nobody came */
    begin(&b);
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/json\"}", server.port, COX_CODE_NONE, "json");
    expect_http(&b, "{\"url\":\"http://127.0.0.1:%d/inward\"}", server.port, COX_CODE_DENIED, "127.0.0.2");
    server_stop(&server);
    bench_end(&b);
}

/* They are meant for the server that the document names, and whoever that one names is another. */
static void test_secrets_are_not_led_on(void **state)
{
    struct cox_buf path = { 0 }, error = { 0 };
    struct server server;
    struct bench b;

    (void)state;
    bench_begin(&b);
    assert_int_equal(secret_table_read(cox_slice_str("{}"), &b.secrets, &path, &error), COX_OK);
    b.secrets_dir = b.programs;
    bench_write(&b, "key", "s3cr3t-value\n");
    assert_int_equal(reach_allow(&b.reach, "127.0.0.1"), COX_OK);
    bench_start(&b);
    server_start(&server);
    expect_http(&b,
                "[{\"K\":\"key\"},{\"url\":\"http://127.0.0.1:%d/"
                "there\",\"headers\":{\"X-Key\":[\"<\",\"K\",\">\"]}},"
                "[[\"headers\",\"X-Key\"]]]",
                server.port, COX_CODE_INPUT_INVALID, "the server answered 302");
    assert_ptr_equal(strstr(server.request, "GET /there "), server.request);
    assert_non_null(strstr(server.request, "\r\nX-Key: <s3cr3t-value>\r\n"));
    server_stop(&server);
    bench_end(&b);
}

static void test_a_name_server_holds_up_nobody(void **state)
{
    struct cox_agent_assign assign = { .ref = { 1, 1, { 1, 1 } },
                                       .handler = cox_slice_str("http"),
                                       .spec_json = cox_slice_str("{\"url\":\"http://slow.invalid/\"}") };
    struct bench b;

    (void)state;
    sem_init(&asked, 0, 0);
    sem_init(&name_server, 0, 0);
    begin(&b);
    slots_start(b.slots, 0, &assign);
    sem_wait(&asked);
    slots_kill(b.slots, 0);
    slots_reply_free(b.slots, bench_reply(&b)); /* or it gives up */
    sem_post(&name_server);
    sem_post(&name_server);
    expect_http(&b, "{\"url\":\"http://other.invalid:%d/\"}", 1, COX_CODE_UNAVAILABLE, "other.invalid");
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http),
        cmocka_unit_test(test_headers_are_sent_as_given),
        cmocka_unit_test(test_secrets_are_not_led_on),
        cmocka_unit_test(test_redirects_keep_or_change_the_method),
        cmocka_unit_test(test_addresses_that_are_not_public_are_denied),
        cmocka_unit_test(test_a_name_server_holds_up_nobody),
    };

    return cmocka_run_group_tests(tests, bench_block_signals, NULL);
}
