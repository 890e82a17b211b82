/* Model servers that say what a test tells them, and a router before them, in one loop. */
#ifndef COX_TEST_ROUTER_FIXTURE_H
#define COX_TEST_ROUTER_FIXTURE_H

#include "check.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "inference/router.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVERS_MAX 3
#define LINES_MAX 8
#define PATIENCE_NS 20000000000LL

#define HEAD_200 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
#define HEAD_STREAM "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define ROLE_EVENT                                                                                           \
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
#define TEXT_EVENT "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n"
#define STOP_EVENT "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE_EVENT                                                                                          \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":7,"                        \
    "\"prompt_tokens_details\":{\"cached_tokens\":40}}}\n\n"
#define DONE_EVENT "data: [DONE]\n\n"
#define WHOLE_BODY                                                                                           \
    "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},"                    \
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":7,"                 \
    "\"prompt_tokens_details\":{\"cached_tokens\":40}}}"

enum then { KEEP, CLOSE, HANG };
/* What a server answers to a request; the last is said again and again. */
struct line {
    const char *text; /* head and body; NULL: an answer with WHOLE_BODY */
    enum then then;
    int64_t delay_ms;
};

struct server {
    struct world *world;
    struct evconnlistener *listener;
    int port;
    const struct line *lines;
    size_t n_lines, n_requests, n_open, n_open_max, n_hung_up;
    struct cox_buf last; /* request */
};

struct world {
    struct event_base *base;
    struct router *router;
    struct server servers[SERVERS_MAX];
};

/* ---- servers ---- */

struct peer {
    struct server *server;
    struct bufferevent *io;
    struct event *timer;
    const struct line *line;
    bool busy;
};

static inline void peer_free(struct peer *p)
{
    p->server->n_open -= p->busy;
    bufferevent_free(p->io);
    event_free(p->timer);
    cox_free(p);
}

static inline void peer_gone(struct bufferevent *io, short what, void *user)
{
    struct peer *p = user;

    (void)io, (void)what;
    p->server->n_hung_up += p->busy;
    peer_free(p);
}

static inline void peer_written(struct bufferevent *io, void *user)
{
    struct peer *p = user;

    if (p->line && p->line->then == CLOSE && evbuffer_get_length(bufferevent_get_output(io)) == 0)
        peer_free(p);
}

static inline void peer_say(int fd, short what, void *user)
{
    struct peer *p = user;
    struct evbuffer *out = bufferevent_get_output(p->io);

    (void)fd, (void)what;
    if (p->line->then == KEEP) {
        p->busy = false;
        p->server->n_open--;
    }
    if (p->line->text)
        evbuffer_add(out, p->line->text, strlen(p->line->text));
    else
        evbuffer_add_printf(out, HEAD_200 "Content-Length: %zu\r\n\r\n%s", strlen(WHOLE_BODY), WHOLE_BODY);
    if (p->line->then == CLOSE && evbuffer_get_length(out) == 0)
        peer_free(p);
}

static inline void peer_read(struct bufferevent *io, void *user)
{
    struct peer *p = user;
    struct server *s = p->server;
    struct evbuffer *in = bufferevent_get_input(io);
    size_t len = evbuffer_get_length(in);
    char *text = (char *)evbuffer_pullup(in, -1);
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);

    if (end.pos < 0)
        return;
    char *head = cox_strndup(text, (size_t)end.pos);
    const char *length = strcasestr(head, "content-length:");
    size_t body_len = length ? strtoul(length + 15, NULL, 10) : 0;

    cox_free(head);
    if (len < (size_t)end.pos + 4 + body_len)
        return;
    cox_buf_clear(&s->last);
    cox_buf_append(&s->last, text, len);
    evbuffer_drain(in, len);
    p->line = &s->lines[s->n_requests < s->n_lines ? s->n_requests : s->n_lines - 1];
    s->n_requests++;
    p->busy = true;
    if (++s->n_open > s->n_open_max)
        s->n_open_max = s->n_open;
    const struct timeval delay = { p->line->delay_ms / 1000, p->line->delay_ms % 1000 * 1000 };

    if (p->line->delay_ms > 0)
        event_add(p->timer, &delay);
    else
        peer_say(-1, 0, p);
}

static inline void server_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *from, int len,
                                 void *user)
{
    struct server *s = user;
    struct peer *p = COX_NEW(struct peer);

    (void)l, (void)from, (void)len;
    p->server = s;
    p->io = bufferevent_socket_new(s->world->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    p->timer = event_new(s->world->base, -1, 0, peer_say, p);
    bufferevent_setcb(p->io, peer_read, peer_written, peer_gone, p);
    bufferevent_enable(p->io, EV_READ | EV_WRITE);
}

static inline void server_start(struct world *w, struct server *s, const struct line *lines, size_t n)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);

    s->world = w;
    s->lines = lines;
    s->n_lines = n;
    s->listener = evconnlistener_new_bind(w->base, server_accept, s, LEV_OPT_CLOSE_ON_FREE, 64,
                                          (struct sockaddr *)&at, sizeof(at));
    assert_non_null(s->listener);
    assert_int_equal(getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&at, &len), 0);
    s->port = ntohs(at.sin_port);
}

/* ---- the router ---- */

/* `models` is the JSON of the catalogue, with %d for the ports of the servers in order. */
static inline void world_models(struct world *w, const char *models)
{
    struct cox_buf json = { 0 }, error = { 0 };
    struct catalogue_text *text;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    cox_buf_printf(&json, models, w->servers[0].port, w->servers[1].port, w->servers[2].port);
#pragma GCC diagnostic pop
    if (catalogue_parse(NULL, 0, cox_buf_slice(&json), &text, &error))
        fail_msg("%s: %s", cox_buf_cstr(&json), cox_buf_cstr(&error));
    catalogue_apply(router_catalogue(w->router), text);
    cox_buf_fini(&json);
    cox_buf_fini(&error);
}

static inline struct world *world_begin(const struct upstream_timeouts *timeouts)
{
    struct world *w = COX_NEW(struct world);

    w->base = event_base_new();
    w->router = router_create(
        &(struct router_config){ .base = w->base,
                                 .seed = 1,
                                 .scrape_ms = -1,
                                 .timeouts = timeouts ? *timeouts : (struct upstream_timeouts){ 0 } });
    return w;
}

static inline void world_end(struct world *w)
{
    router_destroy(w->router);
    for (size_t i = 0; i < SERVERS_MAX; i++) {
        if (w->servers[i].listener)
            evconnlistener_free(w->servers[i].listener);
        cox_buf_fini(&w->servers[i].last);
    }
    event_base_loop(w->base, EVLOOP_NONBLOCK); /* connections of servers see that they are closed */
    event_base_loop(w->base, EVLOOP_NONBLOCK);
    event_base_free(w->base);
    cox_free(w);
}

/* ---- a caller ---- */

struct heard {
    int status;
    bool is_stream, over, cancels;
    struct cox_buf data;
    enum router_end end;
    int http_status;
    enum cox_code code;
    char api_code[64], message[256], model[64];
    struct router_books books;
    struct router_call *call;
    size_t n_answers;
};

static inline void heard_head(void *user, const struct router_head *head)
{
    struct heard *h = user;

    assert_int_equal(h->status, 0);
    assert_false(h->over);
    h->status = head->status;
    h->is_stream = head->is_stream;
    snprintf(h->model, sizeof(h->model), "%s", head->model);
}

static inline void heard_data(void *user, struct cox_slice piece)
{
    struct heard *h = user;

    assert_int_not_equal(h->status, 0);
    assert_false(h->over);
    cox_buf_append_slice(&h->data, piece);
    if (h->cancels)
        router_cancel(h->call);
}

static inline void heard_answer(void *user, const struct chat_answer *a)
{
    struct heard *h = user;

    (void)a;
    h->n_answers++;
}

static inline void heard_end(void *user, enum router_end end, const struct router_error *error,
                             const struct router_books *books)
{
    struct heard *h = user;

    assert_false(h->over);
    h->over = true;
    h->end = end;
    h->books = *books;
    if (!error)
        return;
    h->http_status = error->http_status;
    h->code = error->code;
    snprintf(h->api_code, sizeof(h->api_code), "%s", error->api_code ? error->api_code : "");
    snprintf(h->message, sizeof(h->message), "%s", error->message);
}

static inline void ask_as(struct world *w, struct heard *h, const char *body, const struct router_who *who)
{
    static const struct router_sink sink = { heard_head, heard_data, heard_answer, heard_end };
    struct cox_buf text = { 0 };

    *h = (struct heard){ .cancels = h->cancels };
    cox_buf_append_str(&text, body);
    h->call = router_start(
        w->router, &(struct router_request){
                       .api = CHAT_COMPLETIONS, .body = &text, .who = *who, .sink = &sink, .user = h });
    assert_false(h->over); /* never from inside */
    assert_int_equal(h->status, 0);
}

static inline struct router_who who_of(const char *tenant)
{
    return (struct router_who){ .tenant = cox_slice_str(tenant),
                                .program = cox_slice_str("p"),
                                .band = PLACEMENT_BAND_NORMAL,
                                .deadline_ns = INT64_MAX };
}

static inline void ask(struct world *w, struct heard *h, const char *body)
{
    const struct router_who who = who_of("t");

    ask_as(w, h, body, &who);
}

#define AWAIT(w, cond)                                                                                       \
    do {                                                                                                     \
        int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;                                              \
        while (!(cond)) {                                                                                    \
            event_base_loop((w)->base, EVLOOP_ONCE);                                                         \
            if (cox_clock_mono_ns() > give_up_ns)                                                            \
                fail_msg("never: %s", #cond);                                                                \
        }                                                                                                    \
    } while (0)

static inline void heard_fini(struct heard *h)
{
    cox_buf_fini(&h->data);
}

#endif
