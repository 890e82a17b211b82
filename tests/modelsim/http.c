#include "http.h"

#include "cox/base/alloc.h"
#include "cox/base/list.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_LEN 65536u
#define KEEP_LEN 65536u /* memory that a connection keeps between requests */

struct http_server {
    struct http_config config;
    struct event *accept, *reap;
    struct sockaddr_storage address;
    int address_len;
    struct cox_list conns, dead;
    size_t n_conns;
};

struct http_conn {
    struct cox_list link;
    struct http_server *server;
    struct event *read, *write;
    int fd;
    struct cox_buf in, body, out;
    size_t parsed; /* of in: the request that is being answered */
    size_t seen;   /* of in: where no end of a head is */
    size_t sent;   /* of out */
    bool answering, close_after, continued;
    bool inside; /* handle_next is on the stack */
    bool dead, half_closed;
    void (*on_gone)(void *user);
    void *user;
};

/* ---- ends ---- */

static void free_conn(struct http_conn *c)
{
    event_free(c->read);
    event_free(c->write);
    close(c->fd);
    cox_buf_fini(&c->in);
    cox_buf_fini(&c->body);
    cox_buf_fini(&c->out);
    cox_free(c);
}

/* Who writes to a connection finds out after it has returned to the loop, not in the midst of its work. */
static void on_reap(evutil_socket_t fd, short what, void *user)
{
    struct http_server *s = user;

    (void)fd;
    (void)what;
    while (!cox_list_empty(&s->dead)) {
        struct http_conn *c = COX_CONTAINER_OF(s->dead.next, struct http_conn, link);
        cox_list_remove(&c->link);
        if (c->on_gone)
            c->on_gone(c->user);
        free_conn(c);
    }
}

static void kill_conn(struct http_conn *c, bool tell)
{
    if (c->dead)
        return;
    c->dead = true;
    if (!tell)
        c->on_gone = NULL;
    event_del(c->read);
    event_del(c->write);
    cox_list_remove(&c->link);
    cox_list_push_back(&c->server->dead, &c->link);
    c->server->n_conns--;
    event_active(c->server->reap, EV_TIMEOUT, 1);
}

void http_watch(struct http_conn *c, void (*on_gone)(void *user), void *user)
{
    c->on_gone = on_gone;
    c->user = user;
}

void http_reset(struct http_conn *c)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };

    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    kill_conn(c, false);
}

void http_half_close(struct http_conn *c)
{
    http_flush(c);
    c->half_closed = true;
    (void)shutdown(c->fd, SHUT_WR);
}

/* ---- writing ---- */

void http_flush(struct http_conn *c)
{
    while (!c->dead && !c->half_closed && c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);

        if (n > 0) {
            c->sent += (size_t)n;
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (c->out.len - c->sent > HTTP_OUT_LEN_MAX)
                kill_conn(c, true);
            else
                event_add(c->write, NULL);
            return;
        } else {
            kill_conn(c, true);
            return;
        }
    }
    if (c->dead)
        return;
    cox_buf_clear(&c->out);
    c->sent = 0;
}

static const char *status_text(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 413:
        return "Content Too Large";
    case 429:
        return "Too Many Requests";
    case 500:
        return "Internal Server Error";
    case 503:
        return "Service Unavailable";
    default:
        return "Other";
    }
}

void http_put_answer(struct cox_buf *out, const char *identity, int status, const char *content_type,
                     const char *headers, struct cox_slice body)
{
    cox_buf_printf(out, "HTTP/1.1 %d %s\r\nServer: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n",
                   status, status_text(status), identity, content_type, body.len, headers);
    cox_buf_append_slice(out, body);
}

/* The answer is whole. */
static void finish(struct http_conn *c)
{
    c->on_gone = NULL;
    http_flush(c);
    if (c->dead)
        return;
    c->answering = false;
    if (c->parsed < c->in.len)
        memmove(c->in.data, c->in.data + c->parsed, c->in.len - c->parsed);
    c->in.len -= c->parsed;
    c->parsed = c->seen = 0;
    if (c->in.len == 0 && c->in.cap > KEEP_LEN)
        cox_buf_fini(&c->in);
    cox_buf_fini(&c->body);
    if (c->close_after && c->out.len == 0)
        kill_conn(c, false);
    else if (!c->inside && c->in.len > 0)
        event_active(c->read, EV_READ, 1); /* who answers is in the midst of something */
}

void http_answer_raw(struct http_conn *c, struct cox_slice bytes)
{
    cox_buf_append_slice(&c->out, bytes);
    finish(c);
}

void http_answer(struct http_conn *c, int status, const char *content_type, const char *headers,
                 struct cox_slice body)
{
    http_put_answer(&c->out, c->server->config.identity, status, content_type, headers, body);
    finish(c);
}

void http_begin(struct http_conn *c, int status, const char *content_type, const char *headers)
{
    cox_buf_printf(&c->out,
                   "HTTP/1.1 %d %s\r\nServer: %s\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n%s\r\n",
                   status, status_text(status), c->server->config.identity, content_type, headers);
}

void http_put(struct http_conn *c, struct cox_slice piece)
{
    cox_buf_printf(&c->out, "%zx\r\n", piece.len);
    cox_buf_append_slice(&c->out, piece);
    cox_buf_append_str(&c->out, "\r\n");
}

void http_put_raw(struct http_conn *c, struct cox_slice bytes)
{
    cox_buf_append_slice(&c->out, bytes);
}

void http_end(struct http_conn *c)
{
    cox_buf_append_str(&c->out, "0\r\n\r\n");
    finish(c);
}

/* ---- reading ---- */

struct cox_slice http_header(const struct http_request *q, const char *name)
{
    const char *p = (const char *)q->head.data, *end = p + q->head.len;
    size_t len = strlen(name);

    while (p < end) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        const char *stop = eol ? eol : end;

        if ((size_t)(stop - p) > len && p[len] == ':' && strncasecmp(p, name, len) == 0) {
            const char *from = p + len + 1;
            while (from < stop && (*from == ' ' || *from == '\t'))
                from++;
            while (stop > from && (stop[-1] == '\r' || stop[-1] == ' '))
                stop--;
            return cox_slice(from, (size_t)(stop - from));
        }
        p = eol ? eol + 1 : end;
    }
    return cox_slice(NULL, 0);
}

static bool same_word(struct cox_slice s, const char *word)
{
    return s.len == strlen(word) && strncasecmp((const char *)s.data, word, s.len) == 0;
}

static void refuse_request(struct http_conn *c, int status)
{
    c->close_after = true;
    c->answering = true;
    c->parsed = c->in.len;
    http_answer(c, status, "text/plain", "Connection: close\r\n", cox_slice_str(status_text(status)));
}

enum parse { PARSE_MORE, PARSE_DONE, PARSE_BAD };

static enum parse parse_chunked(struct http_conn *c, size_t at, struct http_request *q)
{
    cox_buf_clear(&c->body);
    for (;;) {
        uint8_t *p = c->in.data + at, *eol = memchr(p, '\n', c->in.len - at);
        size_t len = 0, digits = 0;

        if (!eol)
            return c->in.len - at > 32 ? PARSE_BAD : PARSE_MORE;
        for (; p < eol && *p != '\r' && *p != ';'; p++, digits++) {
            const char *hex = "0123456789abcdefABCDEF", *d = strchr(hex, *p);
            if (!d || !*p || digits > 7)
                return PARSE_BAD;
            len = len * 16 + (size_t)(d - hex < 16 ? d - hex : d - hex - 6);
        }
        at = (size_t)(eol + 1 - c->in.data);
        if (digits == 0 || c->body.len + len > HTTP_BODY_LEN_MAX)
            return PARSE_BAD;
        if (c->in.len - at < len + 2)
            return PARSE_MORE;
        cox_buf_append(&c->body, c->in.data + at, len);
        at += len + 2;
        if (len == 0) {
            c->parsed = at;
            q->body = cox_buf_slice(&c->body);
            return PARSE_DONE;
        }
    }
}

static enum parse parse_body(struct http_conn *c, size_t at, struct http_request *q)
{
    struct cox_slice length = http_header(q, "content-length");
    uint64_t len = 0;

    if (same_word(http_header(q, "expect"), "100-continue") && !c->continued) {
        c->continued = true;
        cox_buf_append_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        http_flush(c);
    }
    if (same_word(http_header(q, "transfer-encoding"), "chunked"))
        return parse_chunked(c, at, q);
    for (size_t i = 0; i < length.len; i++) {
        if (length.data[i] < '0' || length.data[i] > '9' || len > HTTP_BODY_LEN_MAX)
            return PARSE_BAD;
        len = len * 10 + (uint64_t)(length.data[i] - '0');
    }
    if (len > HTTP_BODY_LEN_MAX)
        return PARSE_BAD;
    if (c->in.len - at < len) {
        cox_buf_reserve(&c->in, (size_t)len - (c->in.len - at));
        return PARSE_MORE;
    }
    q->body = cox_slice(c->in.data + at, (size_t)len);
    c->parsed = at + (size_t)len;
    return PARSE_DONE;
}

static enum parse parse_request(struct http_conn *c, struct http_request *q)
{
    size_t from = c->seen > 3 ? c->seen - 3 : 0;
    uint8_t *end = memmem(c->in.data + from, c->in.len - from, "\r\n\r\n", 4);

    c->seen = c->in.len;
    if (!end)
        return c->in.len > HTTP_HEAD_LEN_MAX ? PARSE_BAD : PARSE_MORE;
    c->seen = (size_t)(end - c->in.data);
    uint8_t *eol = memchr(c->in.data, '\r', c->seen + 1);
    uint8_t *method = memchr(c->in.data, ' ', (size_t)(eol - c->in.data));
    uint8_t *target = method ? memchr(method + 1, ' ', (size_t)(eol - method - 1)) : NULL;
    if (!target)
        return PARSE_BAD;
    uint8_t *query = memchr(method + 1, '?', (size_t)(target - method - 1));
    q->method = cox_slice(c->in.data, (size_t)(method - c->in.data));
    q->path = cox_slice(method + 1, (size_t)((query ? query : target) - method - 1));
    q->query = query ? cox_slice(query + 1, (size_t)(target - query - 1)) : cox_slice(NULL, 0);
    q->head = cox_slice(eol, (size_t)(end + 2 - eol));
    if (q->head.len > 2)
        q->head = cox_slice(eol + 2, (size_t)(end - eol));
    c->close_after = same_word(http_header(q, "connection"), "close");
    return parse_body(c, c->seen + 4, q);
}

static void handle_next(struct http_conn *c)
{
    struct http_request q;

    c->inside = true;
    while (!c->dead && !c->answering && c->in.len > 0) {
        memset(&q, 0, sizeof(q));
        enum parse parse = parse_request(c, &q);

        if (parse == PARSE_MORE)
            break;
        if (parse == PARSE_BAD) {
            refuse_request(c, 400);
            break;
        }
        c->continued = false;
        c->answering = true;
        c->server->config.on_request(c->server->config.user, c, &q);
    }
    c->inside = false;
}

static void on_read(evutil_socket_t fd, short what, void *user)
{
    struct http_conn *c = user;

    (void)what;
    cox_buf_reserve(&c->in, READ_LEN);
    ssize_t n = recv(fd, c->in.data + c->in.len, c->in.cap - c->in.len, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        kill_conn(c, true);
        return;
    }
    c->in.len += n > 0 ? (size_t)n : 0;
    if (!c->answering)
        handle_next(c);
    else if (c->in.len - c->parsed > HTTP_BODY_LEN_MAX)
        kill_conn(c, true);
}

static void on_write(evutil_socket_t fd, short what, void *user)
{
    struct http_conn *c = user;

    (void)fd;
    (void)what;
    http_flush(c);
    if (!c->answering && c->close_after && c->out.len == 0)
        kill_conn(c, false);
}

static void on_accept(evutil_socket_t listener, short what, void *user)
{
    struct http_server *s = user;
    int one = 1;

    (void)what;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct http_conn *c = COX_NEW(struct http_conn);

        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        c->server = s;
        c->fd = fd;
        c->read = event_new(s->config.base, fd, EV_READ | EV_PERSIST, on_read, c);
        c->write = event_new(s->config.base, fd, EV_WRITE, on_write, c);
        COX_ASSERT(c->read && c->write);
        cox_list_push_back(&s->conns, &c->link);
        s->n_conns++;
        event_add(c->read, NULL);
    }
}

/* ---- the listener ---- */

static enum cox_err open_listener(struct http_server *s)
{
    int one = 1;
    int fd = socket(s->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(s->address);

    if (fd < 0)
        return COX_ERR_UNAVAILABLE;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&s->address, (socklen_t)s->address_len) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&s->address, &len) < 0) {
        close(fd);
        return COX_ERR_UNAVAILABLE;
    }
    s->accept = event_new(s->config.base, fd, EV_READ | EV_PERSIST, on_accept, s);
    COX_ASSERT(s->accept);
    event_add(s->accept, NULL);
    return COX_OK;
}

static void close_listener(struct http_server *s)
{
    int fd;

    if (!s->accept)
        return;
    fd = event_get_fd(s->accept);
    event_free(s->accept);
    s->accept = NULL;
    close(fd);
}

/* "127.0.0.1:8000", "[::1]:0" */
static bool read_address(struct http_server *s, const char *text)
{
    const char *colon = strrchr(text, ':');
    struct sockaddr_in *v4 = (struct sockaddr_in *)&s->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&s->address;
    char host[64], *end;
    size_t len = colon ? (size_t)(colon - text) : 0;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;

    if (!colon || len >= sizeof(host) || colon[1] < '0' || colon[1] > '9' || *end || port > 65535)
        return false;
    bool bracket = len > 2 && text[0] == '[' && text[len - 1] == ']';
    memcpy(host, text + bracket, len - 2 * bracket);
    host[len - 2 * bracket] = 0;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        s->address_len = sizeof(*v4);
        return true;
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    s->address_len = sizeof(*v6);
    return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1;
}

enum cox_err http_listen(const struct http_config *config, struct http_server **ret)
{
    struct http_server *s = COX_NEW(struct http_server);
    enum cox_err err = COX_ERR_INVALID;

    s->config = *config;
    cox_list_init(&s->conns);
    cox_list_init(&s->dead);
    s->reap = event_new(config->base, -1, 0, on_reap, s);
    COX_ASSERT(s->reap);
    if (read_address(s, config->address))
        err = open_listener(s);
    if (err != COX_OK) {
        event_free(s->reap);
        cox_free(s);
        return err;
    }
    *ret = s;
    return COX_OK;
}

void http_destroy(struct http_server *s)
{
    if (!s)
        return;
    close_listener(s);
    COX_LIST_FOR_EACH (it, &s->conns)
        kill_conn(COX_CONTAINER_OF(it, struct http_conn, link), true);
    on_reap(-1, 0, s);
    event_free(s->reap);
    cox_free(s);
}

uint16_t http_port(const struct http_server *s)
{
    if (s->address.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&s->address)->sin6_port);
    return ntohs(((const struct sockaddr_in *)&s->address)->sin_port);
}

size_t http_n_connections(const struct http_server *s)
{
    return s->n_conns;
}

enum cox_err http_refuse(struct http_server *s, bool refuse)
{
    if (!refuse)
        return s->accept ? COX_OK : open_listener(s);
    close_listener(s);
    COX_LIST_FOR_EACH (it, &s->conns)
        kill_conn(COX_CONTAINER_OF(it, struct http_conn, link), true);
    return COX_OK;
}
