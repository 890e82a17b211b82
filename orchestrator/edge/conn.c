/* One connection: one request after the other, each answered before the next is read. Reading goes on while
 * an answer is made, so that a peer that leaves is noticed at once. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/network.h"
#include "cox/base/plant.h"

#include <event2/buffer.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define IDLE_MS 60000 /* between requests */
#define HEAD_MS 10000 /* for a head, from its first byte */
#define BODY_MS 30000 /* without a byte of a body */
#define STALL_S 30    /* without a byte taken by a reader who is owed some */
#define LINGER_MS 2000
#define READ_AHEAD_LEN ((size_t)64 << 10)
#define WRITE_LOW_LEN ((size_t)64 << 10)
#define PIECE_LEN ((size_t)64 << 10)
#define GZIP_LEN_MIN 1024u
#define FIRST_LINE_LEN_MIN 8 /* of anything that wants an answer: a method, a target, an end of line */

static void proceed(struct conn *c);

void conn_timer(struct conn *c, int64_t delay_ms)
{
    struct timeval tv = { delay_ms / 1000, delay_ms % 1000 * 1000 };

    if (delay_ms > 0)
        event_add(c->timer, &tv);
    else
        event_del(c->timer);
}

static void hold(struct conn *c, size_t len)
{
    c->held_len += len;
    atomic_fetch_add(&c->edge->held_len, len);
}

static void release(struct conn *c)
{
    atomic_fetch_sub(&c->edge->held_len, c->held_len);
    c->held_len = 0;
}

void conn_mind_listener(struct cox_edge *e)
{
    if (!e->listener)
        return;
    if (!e->resting && room_is_there(e))
        evconnlistener_enable(e->listener);
    else
        evconnlistener_disable(e->listener);
}

void conn_destroy(struct conn *c)
{
    struct cox_edge *e = c->edge;

    exchange_end(c);
    release(c);
    room_leave(c);
    cox_list_remove(&c->node);
    if (e->n_conns-- - e->n_calling >= COX_HTTP_CONNECTIONS_MAX)
        conn_mind_listener(e);
    if (atomic_load(&e->stop) && cox_list_empty(&e->conns))
        event_base_loopbreak(e->base);
    event_free(c->timer);
    bufferevent_free(c->bev);
    cox_buf_fini(&c->head_bytes);
    cox_buf_fini(&c->body);
    cox_list_remove(&c->gathering);
    cox_buf_fini(&c->gathered);
    cox_free(c);
}

bool conn_idle(const struct conn *c)
{
    return c->phase == CONN_HEAD || c->phase == CONN_LINGERING;
}

static enum room_rank rank_of(const struct conn *c)
{
    bool served = c->served || COX_PLANTED("strangers-are-clients");

    switch (c->phase) {
    case CONN_HEAD:
        return served ? ROOM_IDLE : ROOM_STRANGER;
    case CONN_BODY:
    case CONN_LEAVING:
        return served ? ROOM_SLOW : ROOM_BEGUN;
    case CONN_LINGERING:
        return ROOM_STRANGER;
    default:
        return ROOM_STAYS;
    }
}

static void enter(struct conn *c, enum conn_phase phase)
{
    c->phase = phase;
    room_stand(c, rank_of(c));
    if (room_taken(c->edge) >= COX_HTTP_CONNECTIONS_MAX)
        conn_mind_listener(c->edge);
}

void conn_calls(struct conn *c, bool calls)
{
    struct cox_edge *e = c->edge;

    if (calls == c->calls)
        return;
    c->calls = calls;
    e->n_calling += calls ? 1 : SIZE_MAX;
    edge_mind_calls(e);
    if (room_taken(e) + 1 < COX_HTTP_CONNECTIONS_MAX)
        return;
    if (!calls && room_taken(e) > COX_HTTP_CONNECTIONS_MAX) {
        struct conn *gives_way = room_first(e, c);
        if (gives_way)
            conn_destroy(gives_way);
    }
    conn_mind_listener(e);
}

size_t conn_unsent_len(const struct conn *c)
{
    return evbuffer_get_length(bufferevent_get_output(c->bev)) + c->gathered.len;
}

struct cox_tls_certificate *conn_certificate(const struct conn *c)
{
    return c->edge->config.tls ? cox_tls_peer(c->edge->config.tls, bufferevent_getfd(c->bev)) : NULL;
}

/* ---- writing ---- */

/* The loop waits for the socket only while there is something for it: telling the kernel so, and no more,
 * costs as much as a small answer. */
static void write_by_loop(struct conn *c)
{
    if (!c->writing)
        bufferevent_enable(c->bev, EV_WRITE);
    c->writing = true;
}

/* At once, as far as the socket takes it. */
static void flush(struct conn *c)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);

    if (!c->writing && evbuffer_get_length(out) > 0) {
        evbuffer_unfreeze(out, 1); /* the bufferevent keeps it so between its own writes */
        (void)evbuffer_write(out, bufferevent_getfd(c->bev));
        evbuffer_freeze(out, 1);
    }
    if (evbuffer_get_length(out) > 0)
        write_by_loop(c); /* what went wrong is seen there, too */
}

/* ---- answering ---- */

static void put_head(struct conn *c, const struct answer *a, bool gzipped, int64_t body_len)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);

    if (atomic_load(&c->edge->state) == EDGE_DRAINING)
        c->close_after = true;
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nServer: %s\r\n", a->status, answer_reason(a->status),
                        c->edge->server);
    if (a->type)
        evbuffer_add_printf(out, "Content-Type: %s\r\n", a->type);
    if (!a->plain)
        evbuffer_add_printf(out, "Vary: Accept-Encoding, Origin\r\n");
    if (gzipped)
        evbuffer_add_printf(out, "Content-Encoding: gzip\r\n");
    if (body_len >= 0)
        evbuffer_add_printf(out, "Content-Length: %lld\r\n", (long long)body_len);
    if (c->chunked_answer)
        evbuffer_add_printf(out, "Transfer-Encoding: chunked\r\n");
    evbuffer_add_printf(out, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    if (a->headers)
        evbuffer_add(out, a->headers, strlen(a->headers));
    evbuffer_add_printf(out, "Connection: %s\r\n\r\n", c->close_after ? "close" : "keep-alive");
    c->answered = true;
    c->served |= a->status < 400;
}

/* The answer is in the buffer: what comes next, once it has left. */
static void finish(struct conn *c)
{
    cox_list_remove(&c->gathering);
    exchange_end(c);
    if (!c->body_over)
        c->close_after = true; /* what is left of the request would be taken for the next one */
    enter(c, CONN_LEAVING);
    conn_timer(c, 0);
    flush(c);
    if (conn_unsent_len(c) == 0)
        proceed(c);
}

void conn_answer(struct conn *c, const struct answer *a)
{
    struct cox_slice body = a->body;
    struct cox_buf packed = { 0 };
    bool gzipped = !a->plain && body.len > GZIP_LEN_MIN &&
                   edge_header_has(edge_header(&c->head, "accept-encoding"), "gzip") &&
                   gzip_pack(body, &packed) && packed.len < body.len;

    if (gzipped)
        body = cox_buf_slice(&packed);
    if (!c->body_over)
        c->close_after = true;
    put_head(c, a, gzipped, a->status == 204 || a->status == 304 ? -1 : (int64_t)body.len);
    if (!c->no_body) {
        evbuffer_add(bufferevent_get_output(c->bev), body.data, body.len);
        hold(c, body.len);
    }
    cox_buf_fini(&packed);
    finish(c);
}

void conn_begin(struct conn *c, const struct answer *a)
{
    c->chunked_answer = c->head.minor > 0;
    if (!c->chunked_answer || !c->body_over)
        c->close_after = true;
    put_head(c, a, false, -1);
    if (!c->gathers)
        write_by_loop(c);
}

static void put_piece(struct conn *c, struct cox_slice piece)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    char line[24];

    if (piece.len == 0)
        return;
    if (c->chunked_answer)
        evbuffer_add(out, line, (size_t)snprintf(line, sizeof(line), "%zx\r\n", piece.len));
    evbuffer_add(out, piece.data, piece.len);
    if (c->chunked_answer)
        evbuffer_add(out, "\r\n", 2);
}

static void put_gathered(struct conn *c)
{
    put_piece(c, cox_buf_slice(&c->gathered));
    cox_buf_clear(&c->gathered);
}

void conn_write(struct conn *c, struct cox_slice piece)
{
    if (piece.len == 0 || c->no_body)
        return;
    if (c->gathers) {
        cox_buf_append_slice(&c->gathered, piece);
        cox_list_remove(&c->gathering);
        cox_list_push_back(&c->edge->gathering, &c->gathering);
        event_active(c->edge->gathered, EV_TIMEOUT, 0);
        return;
    }
    put_piece(c, piece);
    write_by_loop(c);
}

void conn_flush_gathered(struct cox_edge *e)
{
    while (!cox_list_empty(&e->gathering)) {
        struct conn *c = COX_CONTAINER_OF(e->gathering.next, struct conn, gathering);
        cox_list_remove(&c->gathering);
        put_gathered(c);
        flush(c);
        if (c->exchange && conn_unsent_len(c) == 0)
            exchange_on_drained(c);
    }
}

void conn_end(struct conn *c)
{
    put_gathered(c);
    if (c->chunked_answer && !c->no_body)
        evbuffer_add(bufferevent_get_output(c->bev), "0\r\n\r\n", 5);
    finish(c);
}

void conn_cut(struct conn *c)
{
    c->close_after = true;
    if (c->chunked_answer) {
        finish(c); /* no last chunk: it ends short */
        return;
    }
    struct linger reset = { 1, 0 };

    if (c->edge->config.tls)
        cox_tls_cut(c->edge->config.tls, bufferevent_getfd(c->bev));

    setsockopt(bufferevent_getfd(c->bev), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    conn_destroy(c);
}

/* ---- reading ---- */

static void begin_request(struct conn *c)
{
    cox_buf_fini(&c->head_bytes);
    cox_buf_fini(&c->body);
    release(c);
    enter(c, CONN_HEAD);
    c->head = (struct edge_head){ 0 };
    c->chunked = (struct edge_chunked){ 0 };
    c->body_over = true; /* nothing of the next request is owed yet */
    c->answered = c->chunked_answer = c->no_body = c->streaming_body = c->body_paused = c->gathers = false;
    c->head_begun = false;
    conn_timer(c, IDLE_MS);
}

static void take_piece(struct conn *c, size_t held_before)
{
    if (c->streaming_body) {
        struct cox_slice piece = cox_slice(c->body.data, c->body.len);
        if (piece.len > 0)
            exchange_on_piece(c, piece);
        cox_buf_clear(&c->body);
        return;
    }
    hold(c, c->body.len - held_before);
}

static bool read_length_body(struct conn *c, struct evbuffer *in)
{
    size_t len = evbuffer_get_length(in);

    if (len > c->body_left)
        len = (size_t)c->body_left;
    if (len > PIECE_LEN)
        len = PIECE_LEN;
    evbuffer_remove(in, cox_buf_extend(&c->body, len), len);
    c->body_left -= len;
    c->body_over = c->body_left == 0;
    return true;
}

static bool read_chunked_body(struct conn *c, struct evbuffer *in)
{
    size_t len = evbuffer_get_length(in) < PIECE_LEN ? evbuffer_get_length(in) : PIECE_LEN;
    size_t taken =
        edge_parse_chunked(&c->chunked, cox_slice(evbuffer_pullup(in, (ev_ssize_t)len), len), len, &c->body);

    if (taken == SIZE_MAX)
        return false;
    evbuffer_drain(in, taken);
    c->body_over = c->chunked.state == EDGE_CHUNK_DONE;
    return true;
}

/* False when there is nothing more to do for now. */
static bool read_body(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    size_t before = c->body.len;

    if (!c->body_over && (evbuffer_get_length(in) == 0 || c->body_paused))
        return false;
    if (!c->body_over && (c->head.chunked ? !read_chunked_body(c, in) : !read_length_body(c, in))) {
        answer_refusal(c, 400, "MALFORMED_BODY", NULL, "the body is not in chunked coding");
        return true;
    }
    if (c->body.len > c->body_max && !c->streaming_body) {
        answer_refusal(c, 413, "BODY_TOO_LARGE", NULL, "the body is longer than this route takes");
        return true;
    }
    conn_timer(c, BODY_MS);
    take_piece(c, before);
    if (c->body.len > COX_HTTP_OUTBOX_LEN_MAX && !c->streaming_body && !c->body_over &&
        atomic_load(&c->edge->held_len) > COX_HTTP_HELD_LEN_MAX) {
        cox_buf_fini(&c->body);
        exchange_refuse_held(c);
        return true;
    }
    if (c->phase != CONN_BODY || !c->body_over)
        return c->phase != CONN_BODY || evbuffer_get_length(in) > 0;
    enter(c, CONN_ANSWERING);
    conn_timer(c, 0);
    exchange_on_body(c);
    return true;
}

static void start_body(struct conn *c)
{
    bool has_body = c->head.chunked || (c->head.has_length && c->head.body_len > 0);

    c->body_left = c->head.body_len;
    c->body_over = !has_body;
    enter(c, CONN_BODY);
    c->body_max = 0;
    c->no_body = cox_slice_is(c->head.method, "HEAD");
    c->close_after = !c->head.keep_alive;
    conn_timer(c, BODY_MS);
    exchange_on_head(c);
    if (c->phase != CONN_BODY)
        return;
    if (!c->head.chunked && !c->streaming_body && c->body_left > c->body_max) {
        answer_refusal(c, 413, "BODY_TOO_LARGE", NULL, "the body is longer than this route takes");
        return;
    }
    if (has_body && c->head.expects_continue)
        evbuffer_add_printf(bufferevent_get_output(c->bev), "HTTP/1.1 100 Continue\r\n\r\n");
    flush(c);
}

static bool read_head(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    size_t len = evbuffer_get_length(in), head_len;
    const char *why = NULL;

    if (len == 0)
        return false;
    if (len > EDGE_HEAD_LEN_MAX + 2)
        len = EDGE_HEAD_LEN_MAX + 2;
    cox_buf_clear(&c->head_bytes);
    evbuffer_copyout(in, cox_buf_extend(&c->head_bytes, len), len);
    int status = edge_parse_head(cox_buf_slice(&c->head_bytes), &c->head, &head_len, &why);

    if (status) {
        c->body_over = false;
        enter(c, CONN_BODY);
        answer_refusal(c, status, "MALFORMED_REQUEST", NULL, why);
        return true;
    }
    if (head_len == 0) {
        if (!c->head_begun)
            conn_timer(c, HEAD_MS);
        c->head_begun = true;
        return false;
    }
    evbuffer_drain(in, head_len);
    start_body(c);
    return true;
}

/* Who says a byte at a time wakes us when there could be a line. Behind TLS crumbs wait in its handshake.
 */
static void let_crumbs_wait(struct conn *c, bool wait)
{
    const int len = wait ? FIRST_LINE_LEN_MIN : 1;

    c->crumbs_wait = wait;
    (void)setsockopt(bufferevent_getfd(c->bev), SOL_SOCKET, SO_RCVLOWAT, &len, sizeof(len));
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;
    bool more = true;

    (void)bev;
    if (c->crumbs_wait)
        let_crumbs_wait(c, false);
    while (more) {
        more = false;
        if (c->phase == CONN_HEAD)
            more = read_head(c);
        else if (c->phase == CONN_BODY)
            more = read_body(c);
        else if (c->phase == CONN_LINGERING)
            evbuffer_drain(bufferevent_get_input(c->bev), SIZE_MAX);
    }
}

void conn_pause_body(struct conn *c, bool pause)
{
    bool resume = c->body_paused && !pause;

    if (pause != c->body_paused && c->phase == CONN_BODY)
        conn_timer(c, pause ? 0 : BODY_MS); /* the peer is not to blame for a pause */
    c->body_paused = pause;
    if (resume)
        bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_OPT_DEFER_CALLBACKS);
}

/* ---- after an answer ---- */

/* The answer has left. */
static void proceed(struct conn *c)
{
    release(c);
    if (!c->close_after) {
        begin_request(c);
        if (evbuffer_get_length(bufferevent_get_input(c->bev)) > 0)
            bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_OPT_DEFER_CALLBACKS);
        return;
    }
    enter(c, CONN_LINGERING);
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    evbuffer_drain(bufferevent_get_input(c->bev), SIZE_MAX);
    conn_timer(c, atomic_load(&c->edge->stop) ? 1 : LINGER_MS);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;

    (void)bev;
    if (c->writing && conn_unsent_len(c) == 0) {
        c->writing = false;
        bufferevent_disable(c->bev, EV_WRITE);
    }
    if (c->phase == CONN_LEAVING) {
        if (conn_unsent_len(c) == 0)
            proceed(c);
    } else if (c->exchange) {
        exchange_on_drained(c);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct conn *c = arg;
    /* One call tells all that has happened since the last. */
    bool half = (what & BEV_EVENT_EOF) && !(what & (BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT));

    (void)bev;
    if (half && c->phase == CONN_LEAVING && conn_unsent_len(c) > 0)
        c->close_after = true; /* closed for writing only, perhaps: the answer still goes out */
    else
        conn_destroy(c); /* the peer has left, the socket has failed, or nothing was taken for too long */
}

static void on_timer(int fd, short what, void *arg)
{
    struct conn *c = arg;

    (void)fd, (void)what;
    if (c->phase == CONN_ANSWERING) {
        exchange_on_time(c);
    } else if (c->phase == CONN_BODY) {
        c->close_after = true;
        answer_refusal(c, 408, "BODY_TIMEOUT", NULL, "the rest of the request did not come in time");
    } else {
        conn_destroy(c);
    }
}

/* ---- accepting ---- */

static void name_peer(struct conn *c, const struct sockaddr *peer)
{
    char host[48] = "";
    char port[8] = "";

    if (getnameinfo(peer,
                    peer->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
                    host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
        host[0] = '\0';
    snprintf(c->peer, sizeof(c->peer), "http:%s:%s", host, port);
}

void conn_accept(struct cox_edge *e, int fd, const struct sockaddr *peer)
{
    struct conn *c = COX_NEW(struct conn);
    const struct timeval stall = { STALL_S, 0 };

    c->edge = e;
    c->bev = bufferevent_socket_new(e->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    COX_ASSERT(c->bev);
    c->timer = event_new(e->base, -1, 0, on_timer, c);
    name_peer(c, peer);
    cox_list_push_back(&e->conns, &c->node);
    cox_list_init(&c->gathering);
    room_enter(c, cox_network_of(peer));
    if (!e->config.tls)
        let_crumbs_wait(c, true);
    bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
    bufferevent_setwatermark(c->bev, EV_READ, 0, READ_AHEAD_LEN);
    bufferevent_setwatermark(c->bev, EV_WRITE, WRITE_LOW_LEN, 0);
    bufferevent_set_timeouts(c->bev, NULL, &stall);
    begin_request(c);
    bufferevent_disable(c->bev, EV_WRITE); /* they begin with it */
    bufferevent_enable(c->bev, EV_READ);
    e->n_conns++;
    if (room_taken(e) < COX_HTTP_CONNECTIONS_MAX)
        return;
    /* If nobody gives way the newest is the last: until it has spoken the next one takes its place. */
    struct conn *gives_way = room_first(e, c);

    if (gives_way)
        conn_destroy(gives_way);
    conn_mind_listener(e);
}
