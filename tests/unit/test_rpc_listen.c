/* Who connects and says nothing, and what happens when descriptors run out: lib/rpc/listen.c. */
#include "rpc_fixture.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grpc/health/v1/health.pb-c.h>
#include <netdb.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIMIT 600       /* descriptors: */
#define WAITING_MAX 100 /* a third of the half that listen.c gives to connections */
#define SILENT (WAITING_MAX + 6)

static int connect_to(const struct fixture *f)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)cox_rpc_server_port(f->server)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static bool is_ended(int fd)
{
    char c;
    ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

static int n_ended(const int *fds, int n)
{
    int sum = 0;

    for (int i = 0; i < n; i++)
        sum += is_ended(fds[i]);
    return sum;
}

static void on_answer(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    int *answered = user;

    (void)response;
    *answered = status->status == COX_RPC_OK ? 1 : -1;
}

/* A client that behaves, on a connection of its own, asks until it is served. */
static void is_served(struct fixture *f)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct cox_rpc_channel *channel = fixture_connect(f);
    int64_t until_ns = cox_clock_mono_ns() + PATIENCE_NS;
    int answered = 0;

    while (answered != 1 && cox_clock_mono_ns() < until_ns) {
        answered = 0;
        cox_rpc_unary(channel, &grpc__health__v1__health__descriptor, "Check", &request.base, 10000,
                      on_answer, &answered);
        RUN_UNTIL(f, answered != 0);
    }
    assert_int_equal(answered, 1);
    cox_rpc_channel_destroy(channel);
}

static void limit_fds(rlim_t n)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = n;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void the_silent_give_way_to_those_who_speak(void **state)
{
    struct fixture f;
    struct rlimit before;
    int fds[SILENT];

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit_fds(LIMIT);
    fixture_init(&f, (struct cox_rpc_server_config){ 0 });
    for (int i = 0; i < SILENT; i++)
        fds[i] = connect_to(&f);
    for (int i = 0; i < SILENT - WAITING_MAX; i++)
        RUN_UNTIL(&f, is_ended(fds[i]));
    assert_false(is_ended(fds[SILENT - 1]));
    is_served(&f);
    for (int i = 0; i < SILENT; i++)
        close(fds[i]);
    fixture_fini(&f);
    limit_fds(before.rlim_cur);
}

static void when_descriptors_become_scarce_some_are_refused(void **state)
{
    struct fixture f;
    struct rlimit before;
    int fds[60];

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit_fds(200); /* connections up to number 100; each needs two numbers here */
    fixture_init(&f, (struct cox_rpc_server_config){ 0 });
    for (int i = 0; i < 60; i++) {
        fds[i] = connect_to(&f);
        assert_int_equal(send(fds[i], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, 0), 24);
    }
    RUN_UNTIL(&f, n_ended(fds, 60) > 0);
    assert_true(n_ended(fds, 60) < 60);
    for (int i = 0; i < 60; i++)
        close(fds[i]);
    is_served(&f);
    fixture_fini(&f);
    limit_fds(before.rlim_cur);
}

static void after_a_failed_accept_it_goes_on(void **state)
{
    struct fixture f;
    struct rlimit before;
    int taken[200], n_taken = 0, fd;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit_fds(200);
    fixture_init(&f, (struct cox_rpc_server_config){ 0 });
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)cox_rpc_server_port(f.server)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int mine = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    while ((fd = fcntl(mine, F_DUPFD_CLOEXEC, 3)) >= 0)
        taken[n_taken++] = fd;
    assert_int_equal(connect(mine, (struct sockaddr *)&to, sizeof(to)),
                     0); /* no number is left to accept it */
    /* In this time the mistake would be made that this is about; that nothing happened tells nobody. */
    cox_rpc_loop_run_once(f.loop, cox_clock_mono_ns() + 50000000, 256);
    while (n_taken > 0)
        close(taken[--n_taken]);
    is_served(&f);
    close(mine);
    fixture_fini(&f);
    limit_fds(before.rlim_cur);
}

/* In place of the C library's: "host.test" is a host whose first address is not this one's, as ::1 is not
 * where there is no IPv6. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (!name || strcmp(name, "host.test") != 0)
        return real(name, service, hints, ret);
    assert_int_equal(real("192.0.2.1", service, hints, ret), 0);
    return real("127.0.0.1", service, hints, &(*ret)->ai_next);
}

static void an_address_that_the_host_lacks_is_left_out(void **state)
{
    struct fixture f;
    char taken[32];
    struct cox_rpc_server_config config = { .address = "host.test:0" };
    struct cox_rpc_server *other;

    (void)state;
    fixture_init(&f, (struct cox_rpc_server_config){ 0 });
    assert_int_equal(cox_rpc_server_create(f.loop, &config, &other), COX_OK);
    close(connect_to(&(struct fixture){ .server = other }));
    cox_rpc_server_destroy(other);
    /* But not one that somebody else has, nor all of them. */
    snprintf(taken, sizeof(taken), "host.test:%d", cox_rpc_server_port(f.server));
    config.address = taken;
    assert_int_equal(cox_rpc_server_create(f.loop, &config, &other), COX_ERR_UNAVAILABLE);
    config.address = "192.0.2.1:0";
    assert_int_equal(cox_rpc_server_create(f.loop, &config, &other), COX_ERR_UNAVAILABLE);
    fixture_fini(&f);
}

/* What would hand over those who have left already answers them, with settings. */
static void who_has_left_is_not_answered(void **state)
{
    struct fixture f;
    ssize_t n;
    char c;

    (void)state;
    fixture_init(&f, (struct cox_rpc_server_config){ 0 });
    int fd = connect_to(&f);

    /* in one packet with the farewell */
    assert_int_equal(send(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, MSG_MORE), 24);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    while ((n = recv(fd, &c, 1, MSG_DONTWAIT)) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        cox_rpc_loop_run_once(f.loop, cox_clock_mono_ns() + 1000000, 256);
    assert_true(n <= 0);
    close(fd);
    is_served(&f);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_a_failed_accept_it_goes_on), /* first: descriptors are closed by and by */
        cmocka_unit_test(when_descriptors_become_scarce_some_are_refused),
        cmocka_unit_test(who_has_left_is_not_answered),
        cmocka_unit_test(the_silent_give_way_to_those_who_speak),
        cmocka_unit_test(an_address_that_the_host_lacks_is_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
