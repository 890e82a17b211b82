/* SRV records, from a name server that the test plays: over UDP, over TCP what does not fit, and what a bad
 * one says. */
#include "discovery_look.h"

#include "check.h"

#include "cox/base/alloc.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <poll.h>
#include <pthread.h>
#include <resolv.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int __real___res_ninit(res_state state);
int __wrap___res_ninit(res_state state);

static struct sockaddr_in name_server;

/* The system's resolver, with our server for its only one. */
int __wrap___res_ninit(res_state state)
{
    int ret = __real___res_ninit(state);

    state->nscount = 1;
    state->nsaddr_list[0] = name_server;
    state->retrans = 2;
    state->retry = 2;
    state->options &= ~((unsigned long)RES_DNSRCH | (unsigned long)RES_DEFNAMES);
    return ret;
}

/* ---- the name server ---- */

struct message {
    uint8_t bytes[32768];
    size_t len;
    unsigned n_answers;
};

struct server {
    int udp, tcp, stop[2];
    pthread_t thread;
    void (*put)(struct message *m); /* the answers */
    int code;                       /* of the response */
    atomic_uint n_udp, n_tcp;
};

static void put16(struct message *m, unsigned v)
{
    m->bytes[m->len++] = (uint8_t)(v >> 8);
    m->bytes[m->len++] = (uint8_t)v;
}

/* "a.example" as labels. */
static void put_labels(struct message *m, const char *name)
{
    while (*name) {
        size_t n = strcspn(name, ".");

        m->bytes[m->len++] = (uint8_t)n;
        memcpy(m->bytes + m->len, name, n);
        m->len += n;
        name += n + (name[n] == '.');
    }
    m->bytes[m->len++] = 0;
}

/* A record of the name that was asked for, but for its data; where its length belongs. */
static size_t begin_record(struct message *m, unsigned type)
{
    put16(m, 0xc00c); /* the question's name */
    put16(m, type);
    put16(m, ns_c_in);
    put16(m, 0);
    put16(m, 60);
    put16(m, 0);
    m->n_answers++;
    return m->len;
}

static void end_record(struct message *m, size_t from)
{
    m->bytes[from - 2] = (uint8_t)((m->len - from) >> 8);
    m->bytes[from - 1] = (uint8_t)(m->len - from);
}

static void put_srv(struct message *m, unsigned priority, const char *host, unsigned port)
{
    size_t from = begin_record(m, ns_t_srv);

    put16(m, priority);
    put16(m, 10);
    put16(m, port);
    put_labels(m, host);
    end_record(m, from);
}

static void answer(struct server *s, const uint8_t *query, size_t len, struct message *m)
{
    memcpy(m->bytes, query, len < 512 ? len : 512);
    m->len = 12;
    m->n_answers = 0;
    while (m->len < len && query[m->len])
        m->len += 1u + query[m->len];
    m->len += 5; /* its end, type and class */
    m->bytes[2] |= 0x80;
    m->bytes[3] = (uint8_t)(0x80 | s->code);
    if (s->put)
        s->put(m);
    m->bytes[6] = (uint8_t)(m->n_answers >> 8);
    m->bytes[7] = (uint8_t)m->n_answers;
    memset(m->bytes + 8, 0, 4);
}

static void serve_udp(struct server *s)
{
    static struct message m;
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    uint8_t query[512];
    ssize_t n = recvfrom(s->udp, query, sizeof(query), 0, (struct sockaddr *)&from, &from_len);

    assert_true(n > 12);
    s->n_udp++;
    answer(s, query, (size_t)n, &m);
    if (m.len > 512) {
        m.len = 512;
        m.bytes[2] |= 0x02; /* there is more of it */
        memset(m.bytes + 6, 0, 2);
    }
    assert_int_equal(sendto(s->udp, m.bytes, m.len, 0, (struct sockaddr *)&from, from_len), m.len);
}

static void serve_tcp(struct server *s)
{
    static struct message m;
    uint8_t query[514];
    size_t done = 0;
    int fd = accept(s->tcp, NULL, NULL);

    assert_true(fd >= 0);
    s->n_tcp++;
    while (done < 2 || done < 2u + ((unsigned)query[0] << 8 | query[1])) {
        ssize_t n = read(fd, query + done, sizeof(query) - done);
        assert_true(n > 0);
        done += (size_t)n;
    }
    answer(s, query + 2, done - 2, &m);
    const uint8_t len[2] = { (uint8_t)(m.len >> 8), (uint8_t)m.len };

    assert_int_equal(write(fd, len, 2), 2);
    assert_int_equal(write(fd, m.bytes, m.len), m.len);
    close(fd);
}

static void *serve(void *user)
{
    struct server *s = user;
    struct pollfd fds[] = { { s->stop[0], POLLIN, 0 }, { s->udp, POLLIN, 0 }, { s->tcp, POLLIN, 0 } };

    while (poll(fds, 3, -1) > 0 && !fds[0].revents) {
        if (fds[1].revents)
            serve_udp(s);
        if (fds[2].revents)
            serve_tcp(s);
    }
    return NULL;
}

static void start(struct server *s)
{
    socklen_t len = sizeof(name_server);

    name_server = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    s->tcp = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->tcp, (struct sockaddr *)&name_server, sizeof(name_server)), 0);
    assert_int_equal(getsockname(s->tcp, (struct sockaddr *)&name_server, &len), 0);
    assert_int_equal(listen(s->tcp, 4), 0);
    s->udp = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(s->udp, (struct sockaddr *)&name_server, sizeof(name_server)), 0);
    assert_int_equal(pipe(s->stop), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct server *s)
{
    assert_int_equal(write(s->stop[1], "x", 1), 1);
    pthread_join(s->thread, NULL);
    close(s->udp);
    close(s->tcp);
    close(s->stop[0]);
    close(s->stop[1]);
}

/* What is found of one name, URLs with a blank behind each; or why not. */
static enum cox_err look(struct server *s, struct cox_buf *said)
{
    struct endpoint_text *found = NULL;
    size_t n = 0;

    start(s);
    enum cox_err err = discovery_look_dns("_vllm._tcp.models.example", &found, &n, said);

    stop(s);
    for (size_t i = 0; i < n; i++)
        cox_buf_printf(said, "%s ", found[i].url);
    endpoints_free(found, n);
    return err;
}

static void check_found(void (*put)(struct message *m), const char *expected)
{
    struct server s = { .put = put };
    struct cox_buf said = { 0 };

    assert_int_equal(look(&s, &said), COX_OK);
    assert_string_equal(cox_buf_cstr(&said), expected);
    assert_int_equal(s.n_udp, 1);
    cox_buf_fini(&said);
}

/* ---- what it says ---- */

static void three(struct message *m)
{
    put_srv(m, 2, "b.example", 8001);
    put_srv(m, 1, "a.example", 8000);
    put_srv(m, 1, "b.example", 8000);
    put_srv(m, 9, "a.example", 8000); /* said twice */
}

static void a_record_is_an_endpoint(void **state)
{
    (void)state;
    check_found(three, "http://a.example:8000/v1 http://b.example:8000/v1 http://b.example:8001/v1 ");
}

static void none(struct message *m)
{
    put_srv(m, 0, "", 0); /* RFC 2782: decidedly not available at this domain */
}

static void a_dot_is_none(void **state)
{
    (void)state;
    check_found(none, "");
}

/* An alias before it, a target that points back into the message, records that are cut short or lead nowhere,
 * and what is no name of a host. */
static void odd(struct message *m)
{
    size_t from = begin_record(m, ns_t_cname);

    put_labels(m, "elsewhere.example");
    end_record(m, from);
    from = begin_record(m, ns_t_srv);
    put16(m, 0), put16(m, 0), put16(m, 7);
    m->bytes[m->len++] = 1;
    m->bytes[m->len++] = 'p';
    put16(m, 0xc00c + 11); /* "models.example", in the question */
    end_record(m, from);
    from = begin_record(m, ns_t_srv);
    put16(m, 0), put16(m, 0);
    end_record(m, from);
    from = begin_record(m, ns_t_srv);
    put16(m, 0), put16(m, 0), put16(m, 7);
    put16(m, 0xc000 | (unsigned)m->len); /* at itself */
    end_record(m, from);
    put_srv(m, 0, "no host", 80);
    put_srv(m, 0, "a/b", 80);
    put_srv(m, 0, "port.example", 0);
    put_srv(m, 0, "good.example", 65535);
}

static void what_cannot_be_read_is_left_out(void **state)
{
    (void)state;
    check_found(odd, "http://good.example:65535/v1 http://p.models.example:7/v1 ");
}

static void hundreds(struct message *m)
{
    for (unsigned i = 0; i < 500; i++)
        put_srv(m, 0, "pod.models.example", 1000 + i);
}

static void many_come_by_tcp(void **state)
{
    struct server s = { .put = hundreds };
    struct cox_buf said = { 0 };
    unsigned n = 0;

    (void)state;
    assert_int_equal(look(&s, &said), COX_OK);
    for (const char *at = cox_buf_cstr(&said); (at = strstr(at, "http://pod.models.example:")); at++)
        n++;
    assert_int_equal(n, 500);
    assert_true(s.n_tcp == 1);
    cox_buf_fini(&said);
}

static void short_by_a_record(struct message *m)
{
    put_srv(m, 0, "a.example", 80);
    m->n_answers++;
}

static void a_name_that_is_not_there_is_said(void **state)
{
    struct server unknown = { .code = ns_r_nxdomain }, empty = { 0 }, cut = { .put = short_by_a_record };
    struct cox_buf said = { 0 };

    (void)state;
    assert_int_equal(look(&unknown, &said), COX_ERR_UNAVAILABLE);
    assert_string_equal(cox_buf_cstr(&said), "Unknown host");
    cox_buf_clear(&said);
    assert_int_equal(look(&empty, &said), COX_ERR_UNAVAILABLE);
    assert_true(said.len > 0);
    cox_buf_clear(&said);
    assert_int_equal(look(&cut, &said), COX_ERR_UNAVAILABLE);
    assert_string_equal(cox_buf_cstr(&said), "the name server's answer cannot be read");
    cox_buf_fini(&said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_an_endpoint),          cmocka_unit_test(a_dot_is_none),
        cmocka_unit_test(what_cannot_be_read_is_left_out),  cmocka_unit_test(many_come_by_tcp),
        cmocka_unit_test(a_name_that_is_not_there_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
