/* Model calls: a connection passed on to the orchestrator, and what comes back. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define UNSENT_LEN_MAX ((size_t)256 << 10) /* of an answer that the process does not read */
#define EXTRA_LEN_MAX 8192u                /* behind the body: nothing is meant to be there */

static struct cox_slice without_query(struct cox_slice path)
{
    const uint8_t *mark = memchr(path.data, '?', path.len);

    return mark ? cox_slice(path.data, (size_t)(mark - path.data)) : path;
}

static bool begins_with(struct cox_slice s, const char *prefix)
{
    size_t len = strlen(prefix);

    return s.len >= len && memcmp(s.data, prefix, len) == 0;
}

bool relay_is_call(struct cox_slice path)
{
    return begins_with(path, "/v1/");
}

/* A model's name, which may have slashes; nothing that leads elsewhere. */
static bool is_model_name(struct cox_slice name)
{
    return name.len > 0 && name.data[0] != '/' && !memmem(name.data, name.len, "..", 2) &&
           !memmem(name.data, name.len, "//", 2) && !memchr(name.data, '#', name.len) &&
           !memchr(name.data, '\\', name.len);
}

/* The method that the path wants; NULL: there is no such path. */
static const char *method_of(struct cox_slice path)
{
    static const char models[] = "/v1/models/";
    const size_t len = sizeof(models) - 1;

    if (cox_slice_is(path, "/v1/chat/completions") || cox_slice_is(path, "/v1/completions") ||
        cox_slice_is(path, "/v1/embeddings"))
        return "POST";
    if (cox_slice_is(path, "/v1/models") ||
        (begins_with(path, models) &&
         (is_model_name(cox_slice(path.data + len, path.len - len)) || COX_PLANTED("gateway-any-path"))))
        return "GET";
    return NULL;
}

/* Somebody is to do something before long: the process to send or to read. */
static void mind_timer(struct connection *c)
{
    bool reads = c->body_left > 0 && event_pending(c->readable, EV_READ, NULL);

    if (c->sent < c->bytes.len || (c->call && reads))
        connection_expect_within(c, GATEWAY_SILENCE_MS);
    else
        event_del(c->timer);
}

/* ---------------------------------------------------------------- back to the process */

static void put(struct connection *c, struct cox_slice piece)
{
    if (c->sent > c->bytes.len / 2 && !COX_PLANTED("gateway-keeps-what-was-sent")) {
        c->bytes.len -= c->sent;
        memmove(c->bytes.data, c->bytes.data + c->sent, c->bytes.len);
        c->sent = 0;
    }
    cox_buf_append_slice(&c->bytes, piece);
    if (!event_pending(c->writable, EV_WRITE, NULL)) {
        event_add(c->writable, NULL);
        mind_timer(c);
    }
}

static void on_head(void *user, const struct model_head *head)
{
    struct connection *c = user;
    struct cox_buf out = { 0 };

    c->answered = true;
    c->chunked = !head->has_len && !c->is_old;
    cox_buf_printf(&out, "HTTP/1.1 %d %s\r\n", head->status, connection_reason(head->status));
    cox_buf_append_slice(&out, head->fields);
    if (c->chunked)
        cox_buf_append_str(&out, "Transfer-Encoding: chunked\r\n");
    else if (head->has_len)
        cox_buf_printf(&out, "Content-Length: %llu\r\n", (unsigned long long)head->len);
    cox_buf_append_str(&out, "Connection: close\r\n\r\n");
    put(c, cox_buf_slice(&out));
    cox_buf_fini(&out);
}

static bool on_data(void *user, struct cox_slice piece)
{
    struct connection *c = user;
    char size[24];

    if (c->bytes.len - c->sent >= UNSENT_LEN_MAX && !COX_PLANTED("gateway-answers-unbounded"))
        return false;
    if (c->chunked) {
        snprintf(size, sizeof(size), "%zx\r\n", piece.len);
        put(c, cox_slice_str(size));
    }
    put(c, piece);
    if (c->chunked)
        put(c, cox_slice_str("\r\n"));
    return true;
}

static void on_room(void *user)
{
    struct connection *c = user;

    if (c->body_left == 0 || event_pending(c->readable, EV_READ, NULL))
        return;
    event_add(c->readable, NULL);
    mind_timer(c);
}

static void on_end(void *user, const char *why)
{
    struct connection *c = user;

    c->call = NULL;
    event_add(c->readable, NULL);
    if (!c->answered) {
        connection_refuse(c, 503, why ? why : "no answer came");
        return;
    }
    c->broken = why != NULL;
    put(c, cox_slice_str(c->chunked && !why ? "0\r\n\r\n" : ""));
}

static const struct model_events events = {
    .on_head = on_head, .on_data = on_data, .on_room = on_room, .on_end = on_end
};

/* So that nobody takes the piece that came for the whole. */
static void cut(struct connection *c)
{
    const struct linger at_once = { .l_onoff = 1 };

    if (!c->chunked)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    connection_drop(c);
}

static void all_sent(struct connection *c)
{
    cox_buf_clear(&c->bytes);
    c->sent = 0;
    event_del(c->writable);
    if (c->call) {
        mind_timer(c);
        models_resume(c->call);
    } else if (c->broken) {
        cut(c);
    } else {
        connection_linger(c);
    }
}

void relay_send(struct connection *c)
{
    ssize_t n = 0;

    if (c->sent < c->bytes.len)
        n = send(c->fd, c->bytes.data + c->sent, c->bytes.len - c->sent, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        connection_drop(c);
        return;
    }
    c->sent += (size_t)n;
    if (c->sent == c->bytes.len)
        all_sent(c);
    else
        mind_timer(c);
}

/* ---------------------------------------------------------------- from the process */

void relay_take(struct connection *c, struct cox_slice data)
{
    size_t n = c->body_left < data.len ? (size_t)c->body_left : data.len;

    c->n_extra += data.len - n;
    if (c->n_extra > EXTRA_LEN_MAX) {
        connection_drop(c);
        return;
    }
    c->body_left -= n;
    if (c->call && n > 0 && !models_feed(c->call, cox_slice(data.data, n)) && c->body_left > 0)
        event_del(c->readable);
    mind_timer(c);
}

static bool may_begin(struct connection *c, const struct request *r, struct cox_slice path)
{
    const char *method = method_of(path);
    bool is_post = r->method == REQUEST_POST;

    if (!method || !c->gateway->models)
        connection_refuse(c, 404, "no such path");
    else if (strcmp(method, "POST") == 0 ? !is_post : r->method != REQUEST_GET)
        connection_refuse(c, 405, "chat/completions, completions and embeddings take POST, models takes GET");
    else if (is_post && !r->has_len)
        connection_refuse(c, 411, "a body's length must be said first: Content-Length");
    else if (is_post && r->len > GATEWAY_CALL_LEN_MAX)
        connection_refuse(c, 413, "a model call has at most 16 MiB");
    else if (!models_served(c->gateway->models))
        connection_refuse(c, 503, "the orchestrator serves no models, or is away");
    else
        return true;
    return false;
}

void relay_begin(struct connection *c, const struct request *r, struct cox_slice head, struct cox_slice rest)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct cox_slice path = without_query(r->path);
    struct cox_buf fields = { 0 };
    char *target;

    if (!may_begin(c, r, path))
        return;
    request_fields(head, &fields);
    target = cox_asprintf("%.*s", (int)r->path.len, (const char *)r->path.data);
    c->state = RELAY;
    c->is_old = r->is_old;
    c->body_left = r->method == REQUEST_POST ? r->len : 0;
    c->call = models_start(c->gateway->models,
                           &(struct model_request){ .method = method_of(path),
                                                    .path = target,
                                                    .tenant = c->attempt->tenant,
                                                    .attempt = c->attempt->ref,
                                                    .fields = cox_buf_slice(&fields),
                                                    .len = c->body_left },
                           &events, c);
    cox_free(target);
    cox_buf_fini(&fields);
    if (r->expects && c->body_left > 0 && rest.len == 0)
        (void)!send(c->fd, go_on, sizeof(go_on) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    relay_take(c, rest);
}
