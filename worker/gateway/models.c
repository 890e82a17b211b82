#include "models.h"

#include "../curl_loop.h"
#include "../token.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECT_MS 5000L
#define IDLE_MAX 8L                  /* connections kept for the next call */
#define IDLE_S 20L                   /* and for how long: the other end closes them after some time */
#define KEEPALIVE_S 15L              /* a peer that has vanished is noticed though nothing is to be sent */
#define FEED_LEN ((size_t)256 << 10) /* of a body, taken from the process and not yet sent */
#define AGAIN_LEN ((size_t)1 << 20)  /* of a body that is kept until there is an answer */
#define FIELDS_LEN_MAX ((size_t)64 << 10)

/* Where calls go; replaced as a whole. */
struct aim {
    char *url, *session;
    bool dialled; /* its host is the one that was dialled: a name that the port may not go by */
};

struct models {
    struct models_config config;
    struct curl_loop loop;
    pthread_mutex_t mutex; /* of `aim` and `authorization` */
    struct aim aim;
    char *authorization; /* "Bearer TOKEN"; NULL: none */
};

struct model_call {
    struct models *models;
    CURL *easy;
    struct curl_slist *headers;
    const struct model_events *events;
    void *user;
    struct cox_buf body; /* fed; sent up to body_at */
    size_t body_at;
    bool keeps_body; /* it may have to be sent again */
    uint64_t left;   /* of the body, not yet fed */
    struct cox_buf fields;
    struct model_head head;
    bool has_head;
    int paused; /* CURLPAUSE_* */
    const char *why;
    char *authorization; /* that it was sent with */
    char error[CURL_ERROR_SIZE];
};

/* ---------------------------------------------------------------- the answer */

static struct cox_slice trim(struct cox_slice s)
{
    while (s.len > 0 && strchr(" \t\r\n", s.data[0]))
        s = cox_slice(s.data + 1, s.len - 1);
    while (s.len > 0 && strchr(" \t\r\n", s.data[s.len - 1]))
        s.len--;
    return s;
}

static bool is_named(struct cox_slice line, const char *name)
{
    size_t len = strlen(name);

    return line.len > len && line.data[len] == ':' && strncasecmp((const char *)line.data, name, len) == 0;
}

static bool is_of_the_connection(struct cox_slice line)
{
    static const char *const names[] = { "connection", "keep-alive", "transfer-encoding", "trailer",
                                         "upgrade" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (is_named(line, names[i]))
            return true;
    return false;
}

/* Another token than this call's: it was exchanged, and the call's was refused for that. */
static bool has_new_token(struct model_call *c)
{
    struct models *m = c->models;
    char *now = token_authorization(m->config.token_file);
    bool differs = now && (!c->authorization || strcmp(now, c->authorization) != 0);

    pthread_mutex_lock(&m->mutex);
    if (differs) {
        cox_free(m->authorization);
        m->authorization = now;
        now = NULL;
    }
    pthread_mutex_unlock(&m->mutex);
    cox_free(now);
    return differs;
}

static size_t end_head(struct model_call *c, size_t len)
{
    if (c->head.status < 200) {
        cox_buf_clear(&c->fields);
        return len;
    }
    if (c->head.status == 401 && has_new_token(c)) {
        c->why = "the worker's token has just been exchanged: try again";
        return 0;
    }
    c->has_head = true;
    c->head.fields = cox_buf_slice(&c->fields);
    c->events->on_head(c->user, &c->head);
    return len;
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct model_call *c = user;
    struct cox_slice line = trim(cox_slice(data, size * n));
    const uint8_t *space;

    if (c->has_head) /* trailers */
        return size * n;
    if (line.len > 5 && memcmp(line.data, "HTTP/", 5) == 0) {
        space = memchr(line.data, ' ', line.len);
        c->head = (struct model_head){ .status = space ? (int)strtol((const char *)space, NULL, 10) : 0 };
        cox_buf_clear(&c->fields);
    } else if (line.len == 0) {
        return end_head(c, size * n);
    } else if (is_named(line, "content-length")) {
        c->head.has_len = true;
        c->head.len = strtoull((const char *)line.data + sizeof("content-length:") - 1, NULL, 10);
    } else if (c->fields.len + line.len > FIELDS_LEN_MAX) {
        c->why = "the head of the answer is longer than 64 KiB";
        return 0;
    } else if (!is_of_the_connection(line)) {
        cox_buf_append_slice(&c->fields, line);
        cox_buf_append_str(&c->fields, "\r\n");
    }
    return size * n;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct model_call *c = user;

    if (c->events->on_data(c->user, cox_slice(data, size * n)))
        return size * n;
    c->paused |= CURLPAUSE_RECV;
    return CURL_WRITEFUNC_PAUSE;
}

/* ---------------------------------------------------------------- the request */

static void forget_sent(struct model_call *c)
{
    c->body.len -= c->body_at;
    if (c->body.len > 0)
        memmove(c->body.data, c->body.data + c->body_at, c->body.len);
    c->body_at = 0;
}

static size_t on_read(char *to, size_t size, size_t n, void *user)
{
    struct model_call *c = user;
    size_t len = c->body.len - c->body_at;

    if (len == 0 && c->left > 0) {
        c->paused |= CURLPAUSE_SEND;
        return CURL_READFUNC_PAUSE;
    }
    if (len > size * n)
        len = size * n;
    if (len > 0)
        memcpy(to, c->body.data + c->body_at, len);
    c->body_at += len;
    if (c->body_at == c->body.len) {
        if (!c->keeps_body)
            forget_sent(c);
        if (c->left > 0)
            c->events->on_room(c->user);
    }
    return len;
}

/* The connection of an earlier call turned out to be closed: curl sends all of it again by another. */
static int on_seek(void *user, curl_off_t offset, int origin)
{
    struct model_call *c = user;

    if (!c->keeps_body || offset != 0 || origin != SEEK_SET || COX_PLANTED("gateway-body-once"))
        return CURL_SEEKFUNC_FAIL;
    c->body_at = 0;
    return CURL_SEEKFUNC_OK;
}

static void unpause(struct model_call *c, int what)
{
    if (!(c->paused & what))
        return;
    c->paused &= ~what;
    curl_easy_pause(c->easy, c->paused);
}

bool models_feed(struct model_call *c, struct cox_slice piece)
{
    if (piece.len > c->left)
        piece.len = (size_t)c->left;
    if (!c->keeps_body && c->body_at > c->body.len / 2)
        forget_sent(c);
    cox_buf_append_slice(&c->body, piece);
    c->left -= piece.len;
    unpause(c, CURLPAUSE_SEND);
    return c->body.len - c->body_at < FEED_LEN;
}

void models_resume(struct model_call *c)
{
    unpause(c, CURLPAUSE_RECV);
}

static void add_header(struct model_call *c, const char *name, const char *value)
{
    char *line = cox_asprintf("%s: %s", name, value);

    c->headers = curl_slist_append(c->headers, line);
    explicit_bzero(line, strlen(line));
    cox_free(line);
}

static void pass_on(struct model_call *c, struct cox_slice fields)
{
    while (fields.len > 0) {
        const uint8_t *end = memmem(fields.data, fields.len, "\r\n", 2);
        size_t len = (size_t)(end - fields.data);
        char *line = cox_asprintf("%.*s", (int)len, (const char *)fields.data);

        c->headers = curl_slist_append(c->headers, line);
        cox_free(line);
        fields = cox_slice(end + 2, fields.len - len - 2);
    }
}

static void say_whose(struct model_call *c, const struct model_request *q, const char *session, bool dialled)
{
    char attempt[COX_REF_TEXT_MAX];

    cox_ref_format(q->attempt, attempt);
    if (dialled) /* the port answers to names that it was told of (--http-host), against pages of browsers */
        c->headers = curl_slist_append(c->headers, "Host: localhost");
    add_header(c, "cox-attempt", attempt);
    if (session && *session)
        add_header(c, "cox-session", session);
    if (*q->tenant && !COX_PLANTED("gateway-call-without-tenant"))
        add_header(c, "cox-tenant", q->tenant);
    if (c->authorization)
        add_header(c, "Authorization", c->authorization);
    pass_on(c, q->fields);
    if (strcmp(q->method, "POST") == 0)
        c->headers = curl_slist_append(c->headers, "Expect:");
}

static void set_tls(struct model_call *c)
{
    const struct cox_tls_files *tls = c->models->config.tls;

    curl_easy_setopt(c->easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (!tls)
        return;
    if (tls->ca) {
        curl_easy_setopt(c->easy, CURLOPT_CAINFO, tls->ca);
        curl_easy_setopt(c->easy, CURLOPT_CAPATH, NULL);
        curl_easy_setopt(c->easy, CURLOPT_CA_CACHE_TIMEOUT, 0L); /* it may be exchanged */
    }
    if (tls->cert) {
        curl_easy_setopt(c->easy, CURLOPT_SSLCERT, tls->cert);
        curl_easy_setopt(c->easy, CURLOPT_SSLKEY, tls->key);
    }
}

static void set_up(struct model_call *c, const struct model_request *q, const char *url)
{
    CURL *e = c->easy;

    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, IDLE_S);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_S);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_S);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->error);
    curl_easy_setopt(e, CURLOPT_PRIVATE, c);
    if (strcmp(q->method, "POST") == 0) {
        curl_easy_setopt(e, CURLOPT_POST, 1L);
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->len);
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(e, CURLOPT_READDATA, c);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, c);
        if (!c->keeps_body) /* a new connection is not closed meanwhile, and nothing has to be sent again */
            curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
    }
    set_tls(c);
}

struct model_call *models_start(struct models *m, const struct model_request *q,
                                const struct model_events *events, void *user)
{
    struct model_call *c = COX_NEW(struct model_call);
    char *url, *session;
    bool dialled;

    c->models = m;
    c->events = events;
    c->user = user;
    c->left = q->len;
    c->keeps_body = q->len <= AGAIN_LEN;
    c->easy = curl_easy_init();
    COX_ASSERT(c->easy);
    pthread_mutex_lock(&m->mutex);
    url = cox_asprintf("%s%s", m->aim.url ? m->aim.url : "", q->path);
    session = cox_strdup(m->aim.session ? m->aim.session : "");
    dialled = m->aim.dialled;
    c->authorization = m->authorization ? cox_strdup(m->authorization) : NULL;
    pthread_mutex_unlock(&m->mutex);
    say_whose(c, q, session, dialled);
    set_up(c, q, url);
    explicit_bzero(session, strlen(session));
    cox_free(session);
    cox_free(url);
    curl_multi_add_handle(m->loop.multi, c->easy);
    return c;
}

/* ---------------------------------------------------------------- the end */

static void call_free(struct model_call *c)
{
    curl_multi_remove_handle(c->models->loop.multi, c->easy);
    curl_easy_cleanup(c->easy);
    for (struct curl_slist *h = c->headers; h; h = h->next)
        explicit_bzero(h->data, strlen(h->data));
    curl_slist_free_all(c->headers);
    if (c->authorization)
        explicit_bzero(c->authorization, strlen(c->authorization));
    cox_free(c->authorization);
    cox_buf_fini(&c->body);
    cox_buf_fini(&c->fields);
    cox_free(c);
}

void models_cancel(struct model_call *c)
{
    call_free(c);
}

static void end(struct model_call *c, CURLcode r)
{
    char *why = NULL;

    if (c->why)
        why = cox_strdup(c->why);
    else if (r != CURLE_OK)
        why = cox_asprintf("the orchestrator's models: %s", c->error[0] ? c->error : curl_easy_strerror(r));
    else if (!c->has_head)
        why = cox_strdup("the orchestrator's models: no answer came");
    c->events->on_end(c->user, why);
    cox_free(why);
    call_free(c);
}

static void on_done(void *owner, CURLcode result)
{
    end(owner, result);
}

/* ---------------------------------------------------------------- where */

/* "host:port" without the port, and without a scheme of gRPC's names; empty: it has no host. */
static struct cox_slice host_of(const char *address)
{
    static const char *const schemes[] = { "dns:///", "dns:", "ipv4:", "ipv6:" };
    const char *colon;

    if (strncmp(address, "unix:", 5) == 0)
        return cox_slice(NULL, 0);
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
        if (strncmp(address, schemes[i], strlen(schemes[i])) == 0) {
            address += strlen(schemes[i]);
            break;
        }
    colon = strrchr(address, ':');
    return cox_slice(address, colon ? (size_t)(colon - address) : strlen(address));
}

/* The URL with the host that was dialled in the place of "*"; NULL: no calls can go there. */
static char *resolve(const char *url, const char *address, bool with_tls)
{
    static const char mark[] = "://*";
    const char *star = strstr(url, mark);
    struct cox_slice host = host_of(address);
    size_t len = strlen(url);

    if (*url == 0)
        return NULL;
    if (with_tls && strncmp(url, "https://", 8) != 0 && !COX_PLANTED("gateway-token-in-plaintext")) {
        cox_log(COX_LOG_WARN,
                "no model calls for steps: this worker speaks TLS, the orchestrator's URL does not", "url",
                url, NULL);
        return NULL;
    }
    while (len > 0 && url[len - 1] == '/')
        len--;
    if (!star)
        return cox_asprintf("%.*s", (int)len, url);
    if (host.len == 0)
        return NULL;
    return cox_asprintf("%.*s%.*s%.*s", (int)(star - url) + 3, url, (int)host.len, (const char *)host.data,
                        (int)(len - (size_t)(star - url) - (sizeof(mark) - 1)), star + sizeof(mark) - 1);
}

void models_aim(struct models *m, const char *address, const char *session, const char *url)
{
    struct aim next = { resolve(url, address, m->config.tls != NULL), cox_strdup(session),
                        strstr(url, "://*") != NULL };
    struct aim last;
    char *authorization = token_authorization(m->config.token_file), *old;

    pthread_mutex_lock(&m->mutex);
    last = m->aim;
    m->aim = next;
    old = m->authorization;
    m->authorization = authorization;
    pthread_mutex_unlock(&m->mutex);
    cox_free(last.url);
    cox_free(last.session);
    cox_free(old);
}

bool models_served(struct models *m)
{
    bool served;

    pthread_mutex_lock(&m->mutex);
    served = m->aim.url != NULL;
    pthread_mutex_unlock(&m->mutex);
    return served;
}

struct models *models_create(const struct models_config *config)
{
    struct models *m = COX_NEW(struct models);

    m->config = *config;
    pthread_mutex_init(&m->mutex, NULL);
    curl_loop_init(&m->loop, config->base, on_done);
    curl_multi_setopt(m->loop.multi, CURLMOPT_MAXCONNECTS, IDLE_MAX);
    return m;
}

void models_destroy(struct models *m)
{
    if (!m)
        return;
    curl_loop_fini(&m->loop);
    pthread_mutex_destroy(&m->mutex);
    cox_free(m->aim.url);
    cox_free(m->aim.session);
    cox_free(m->authorization);
    cox_free(m);
}
