/* What curl is told of a request. */
#include "upstream_call.h"

#include "cox/base/alloc.h"

#include <string.h>
#include <strings.h>

#define BUFFER_LEN (16 << 10) /* of a response, read at once */
/* Of a larger body, written at once. curl keeps the buffer as long as the handle works, so it is small when
 * there are many. */
#define UPLOAD_LEN (64 << 10)
#define UPLOAD_LEN_OF_MANY (16 << 10)
#define MANY 1024u

static size_t on_read(char *to, size_t size, size_t n, void *user)
{
    struct upstream_call *c = user;
    size_t room = size * n, done = 0;

    while (done < room && c->piece < c->n_pieces) {
        struct cox_slice piece = c->pieces[c->piece];
        size_t part = piece.len - c->piece_done;

        part = part < room - done ? part : room - done;
        memcpy(to + done, piece.data + c->piece_done, part);
        done += part;
        c->piece_done += part;
        if (c->piece_done == piece.len) {
            c->piece++;
            c->piece_done = 0;
        }
    }
    return done;
}

/* curl begins a body anew when a kept connection turns out to be dead. */
static int on_seek(void *user, curl_off_t offset, int origin)
{
    struct upstream_call *c = user;

    if (origin != SEEK_SET || offset != 0)
        return CURL_SEEKFUNC_CANTSEEK;
    c->piece = 0;
    c->piece_done = 0;
    return CURL_SEEKFUNC_OK;
}

static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct upstream_call *c = user;
    int fd = upstream_sockets_open(c->u->sockets, a->family, a->socktype, a->protocol, &c->lane->n_open);

    (void)purpose;
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* "http://10.0.0.7:8000/..." or "http://[::1]/...". */
static bool is_address(const char *url)
{
    const char *host = strstr(url, "://");
    size_t len = host ? strspn(host + 3, "0123456789.") : 0;

    return host && (host[3] == '[' || (len > 0 && (host[3 + len] == ':' || host[3 + len] == '/')));
}

void upstream_call_init(struct upstream_call *c, const struct upstream_target *t)
{
    CURL *easy = c->easy;
    bool tls = strncasecmp(t->url, "https:", 6) == 0;

    curl_easy_setopt(easy, CURLOPT_PRIVATE, c);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, c->error);
    curl_easy_setopt(easy, CURLOPT_URL, t->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*"); /* nor is the environment asked for one */
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, upstream_on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, upstream_on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(easy, CURLOPT_READDATA, c);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, c);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    if (is_address(
            t->url)) /* there is nothing to resolve again; else curl looks through all hosts for old ones */
        curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* else a cancelled call waits for a name server */
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER_LEN);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 10L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1);
    /* Until the first connection says whether it can be shared, the others wait for it. */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, tls ? 1L : 0L);
    if (t->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, t->ca_file);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, c);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, upstream_sockets_close);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, c->u->sockets); /* connections outlive calls */
}

/* Those of the call, then those of its target, all in one list. */
static void set_headers(struct upstream_call *c, const struct upstream_request *q)
{
    size_t len = q->n_headers * sizeof(struct curl_slist);
    bool has_body = strcmp(q->method, "GET") != 0;
    struct curl_slist *shared = &c->route->headers[has_body ? 0 : 1]; /* the first is the body's */
    char *text;

    if (q->n_headers == 0) {
        curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, shared);
        return;
    }
    for (size_t i = 0; i < q->n_headers; i++)
        len += strlen(q->headers[i]) + 1;
    c->own_headers = cox_realloc(c->own_headers, 1, len);
    text = (char *)(c->own_headers + q->n_headers);
    for (size_t i = 0; i < q->n_headers; i++) {
        size_t n = strlen(q->headers[i]) + 1;

        memcpy(text, q->headers[i], n);
        c->own_headers[i].data = text;
        c->own_headers[i].next = i + 1 < q->n_headers ? &c->own_headers[i + 1] : shared;
        text += n;
    }
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->own_headers);
}

/* A body that is small goes out with its head; of a large one nothing is put together. */
static void set_body(struct upstream_call *c, const struct upstream_request *q)
{
    bool is_get = strcmp(q->method, "GET") == 0;
    size_t len = 0;
    const void *data = "";

    c->pieces = q->body;
    c->n_pieces = q->n_body;
    c->piece = c->piece_done = 0;
    if (is_get) {
        curl_easy_setopt(c->easy, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, NULL);
        return;
    }
    for (size_t i = 0; i < q->n_body; i++)
        len += q->body[i].len;
    curl_easy_setopt(c->easy, CURLOPT_POST, 1L);
    curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, strcmp(q->method, "POST") == 0 ? NULL : q->method);
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
    if (len > ONE_PIECE_LEN_MAX) {
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, NULL);
        curl_easy_setopt(c->easy, CURLOPT_UPLOAD_BUFFERSIZE,
                         (long)(c->u->n_busy > MANY ? UPLOAD_LEN_OF_MANY : UPLOAD_LEN));
        return;
    }
    if (q->n_body == 1) {
        data = q->body[0].data;
    } else if (len > 0) {
        cox_buf_clear(&c->whole);
        for (size_t i = 0; i < q->n_body; i++)
            cox_buf_append_slice(&c->whole, q->body[i]);
        data = c->whole.data;
    }
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, data);
}

void upstream_call_ask(struct upstream_call *c, const struct upstream_request *q)
{
    struct upstream *u = c->u;
    bool once = upstream_sockets_n_open(u->sockets) + u->n_busy >= u->sockets_max;

    curl_easy_setopt(c->easy, CURLOPT_FORBID_REUSE, once ? 1L : 0L);
    set_headers(c, q);
    set_body(c, q);
}
