/* A server that does what each test tells it to: well, badly and not at all. It lives in the same loop as who
 * asks, so that a test knows what it has seen without waiting for a time. */
#ifndef COX_TEST_UPSTREAM_FIXTURE_H
#define COX_TEST_UPSTREAM_FIXTURE_H

#include "check.h"

#include "upstream.h"

#include "cox/base/alloc.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define GUARD_S 30 /* far beyond what anything here takes */

/* ---- the server ---- */

struct world;

struct peer {
    struct world *w;
    struct bufferevent *io;
    struct peer *next;
    unsigned n_requests;
};

struct world {
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *guard;
    struct upstream *u;
    char url[80];
    struct upstream_target target;
    struct peer *peers;
    void (*on_request)(struct world *w, struct peer *p); /* the whole of it is in `request` */
    struct cox_buf request;                              /* the last */
    const char *say;
    unsigned n_connections, n_requests, n_closed;
};

static void put(struct peer *p, const char *text)
{
    bufferevent_write(p->io, text, strlen(text));
}

static void drop_peer(struct peer *p)
{
    struct peer **at = &p->w->peers;

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    bufferevent_free(p->io);
    cox_free(p);
}

/* The length of a whole request at the front of what came; 0: not whole. */
static size_t request_len(struct evbuffer *in)
{
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
    size_t body = 0;
    char head[8192];
    const char *length;

    if (end.pos < 0)
        return 0;
    assert_true((size_t)end.pos < sizeof(head));
    evbuffer_copyout(in, head, (size_t)end.pos);
    head[end.pos] = '\0';
    length = strcasestr(head, "content-length:");
    if (length)
        body = strtoul(length + 15, NULL, 10);
    return evbuffer_get_length(in) >= (size_t)end.pos + 4 + body ? (size_t)end.pos + 4 + body : 0;
}

static void on_readable(struct bufferevent *io, void *user)
{
    struct peer *p = user;
    struct world *w = p->w;
    size_t len = request_len(bufferevent_get_input(io));

    if (len == 0)
        return;
    cox_buf_clear(&w->request);
    evbuffer_remove(bufferevent_get_input(io), cox_buf_extend(&w->request, len), len);
    w->n_requests++;
    p->n_requests++;
    w->on_request(w, p);
}

static void on_peer_event(struct bufferevent *io, short what, void *user)
{
    struct peer *p = user;

    (void)io;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        p->w->n_closed++;
        drop_peer(p);
    }
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int len, void *user)
{
    struct world *w = user;
    struct peer *p = COX_NEW(struct peer);

    (void)l;
    (void)a;
    (void)len;
    p->w = w;
    p->io = bufferevent_socket_new(w->base, fd, BEV_OPT_CLOSE_ON_FREE);
    p->next = w->peers;
    w->peers = p;
    w->n_connections++;
    bufferevent_setcb(p->io, on_readable, NULL, on_peer_event, p);
    bufferevent_enable(p->io, EV_READ | EV_WRITE);
}

static void on_guard(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    (void)user;
    fail_msg("what was waited for did not come in %d s", GUARD_S);
}

static void listen_at(struct world *w, int family)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr *a = family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
    socklen_t len = family == AF_INET ? sizeof(v4) : sizeof(v6);

    w->listener = evconnlistener_new_bind(w->base, on_accept, w, LEV_OPT_CLOSE_ON_FREE, 512, a, (int)len);
    if (!w->listener)
        return;
    getsockname(evconnlistener_get_fd(w->listener), a, &len);
    snprintf(w->url, sizeof(w->url), "http://%s:%d/v1/x", family == AF_INET ? "127.0.0.1" : "[::1]",
             ntohs(family == AF_INET ? v4.sin_port : v6.sin6_port));
}

static struct world *begin_at(int family)
{
    struct world *w = COX_NEW(struct world);
    struct upstream_config config = { 0 };

    w->base = event_base_new();
    config.base = w->base;
    w->u = upstream_create(&config);
    w->guard = evtimer_new(w->base, on_guard, w);
    event_add(w->guard, &(struct timeval){ .tv_sec = GUARD_S });
    listen_at(w, family);
    w->target.url = w->url;
    return w;
}

static struct world *begin(void (*on_request)(struct world *w, struct peer *p))
{
    struct world *w = begin_at(AF_INET);

    assert_non_null(w->listener);
    w->on_request = on_request;
    return w;
}

static void end(struct world *w)
{
    upstream_destroy(w->u);
    while (w->peers)
        drop_peer(w->peers);
    if (w->listener)
        evconnlistener_free(w->listener);
    event_free(w->guard);
    event_base_free(w->base);
    cox_buf_fini(&w->request);
    cox_free(w);
}

static void turn(struct world *w)
{
    event_base_loop(w->base, EVLOOP_ONCE);
}

/* ---- the client ---- */

struct asked {
    struct upstream_call *call;
    unsigned n_heads, n_pieces, n_ends;
    int status;
    char content_type[64], retry_after[32], request_id[32], server[32];
    struct cox_buf body;
    enum upstream_end end;
    char message[256];
    void (*on_piece)(struct asked *a); /* what to do meanwhile */
    bool cancelled;
    struct world *w;
};

static void copy(char *to, size_t room, struct cox_slice s)
{
    snprintf(to, room, "%.*s", (int)s.len, s.data ? (const char *)s.data : "");
}

static void on_head(void *user, const struct upstream_head *head)
{
    struct asked *a = user;

    assert_int_equal(a->n_pieces + a->n_ends + a->cancelled, 0);
    a->n_heads++;
    a->status = head->status;
    copy(a->content_type, sizeof(a->content_type), head->content_type);
    copy(a->retry_after, sizeof(a->retry_after), head->retry_after);
    copy(a->request_id, sizeof(a->request_id), head->request_id);
    copy(a->server, sizeof(a->server), head->server);
}

static void on_data(void *user, struct cox_slice piece)
{
    struct asked *a = user;

    assert_true(a->n_heads == 1 && a->n_ends == 0 && !a->cancelled && piece.len > 0);
    a->n_pieces++;
    cox_buf_append_slice(&a->body, piece);
    if (a->on_piece)
        a->on_piece(a);
}

static void on_end(void *user, enum upstream_end end, const char *message)
{
    struct asked *a = user;

    assert_true(a->n_ends == 0 && !a->cancelled);
    a->n_ends++;
    a->end = end;
    snprintf(a->message, sizeof(a->message), "%s", message);
}

static const struct upstream_events events = { .on_head = on_head, .on_data = on_data, .on_end = on_end };

static void ask_with(struct world *w, struct asked *a, struct upstream_request q)
{
    a->w = w;
    q.target = q.target ? q.target : &w->target;
    q.method = q.method ? q.method : "POST";
    q.events = &events;
    q.user = a;
    a->call = upstream_start(w->u, &q);
    assert_int_equal(a->n_heads + a->n_pieces + a->n_ends, 0); /* nothing from inside of start */
}

static const struct cox_slice hello = { (const uint8_t *)"{\"a\":1}", 7 };

static void ask(struct world *w, struct asked *a)
{
    ask_with(w, a, (struct upstream_request){ .body = &hello, .n_body = 1 });
}

static void wait_end(struct asked *a)
{
    while (a->n_ends == 0)
        turn(a->w);
}

static void asked_fini(struct asked *a)
{
    cox_buf_fini(&a->body);
}

/* ---- what servers do ---- */

static void say(struct world *w, struct peer *p)
{
    put(p, w->say);
}

static void say_long_body(struct world *w, struct peer *p)
{
    static char block[1 << 20];

    put(p, w->say);
    for (int i = 0; i < 65; i++)
        bufferevent_write(p->io, block, sizeof(block));
}

#endif
