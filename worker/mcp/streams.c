/* An exchange is one HTTP request. Those of the client's requests have its id, and are there until their
 * answer is: when the stream that it comes in is cut, they become a GET that goes on with it. */
#include "streams.h"

#include "../handlers/outward.h"
#include "../wiped.h"
#include "events.h"
#include "tools.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <string.h>
#include <strings.h>

enum exchange_kind {
    POST,
    ASIDE,  /* a POST that nobody waits for */
    LISTEN, /* a GET for what the server says by itself */
    BYE     /* a DELETE */
};

struct mcp_streams {
    struct event_base *base;
    struct curl_loop *loop;
    struct reach reach;
    struct mcp_client *client;
    struct redactor *redactor;
    struct cox_buf url;
    struct curl_slist *headers; /* the document's */
    struct cox_buf session;     /* empty: none */
    const char *version;        /* the last that a message named; NULL: none */
    struct cox_list exchanges;
    struct cox_list held;  /* not begun */
    struct exchange *gate; /* the others wait until the server has heard that it is initialized */
    struct event *kick;    /* begins them: libcurl takes none while it calls back */
    bool wants_to_listen;
    unsigned n_aside;
};

struct exchange {
    struct cox_list link;
    struct mcp_streams *streams; /* NULL: it says good-bye, alone */
    CURLM *multi;
    enum exchange_kind kind;
    uint64_t id; /* of the client's request; 0: none */
    CURL *easy;  /* NULL: it waits for its turn, or for `timer` */
    struct outward outward;
    struct curl_slist *headers;
    struct cox_buf text;
    struct event *timer; /* NULL: it waits for nothing */
    struct mcp_events events;
    struct cox_buf body;
    struct reach reach; /* of one that is alone */
    long status;
    bool is_stream, in_session, initializes, modern, resumes;
    const char *why_cut; /* NULL: it was not */
    unsigned n_resumes;
    uint64_t n_events; /* when it was last begun */
};

/* ---------------------------------------------------------------- ends */

static void wipe_headers(struct curl_slist *headers)
{
    for (struct curl_slist *h = headers; h; h = h->next)
        explicit_bzero(h->data, strlen(h->data));
    curl_slist_free_all(headers);
}

static void drop_easy(struct exchange *x)
{
    if (x->easy) {
        curl_multi_remove_handle(x->multi, x->easy);
        curl_easy_cleanup(x->easy);
    }
    x->easy = NULL;
    wipe_headers(x->headers);
    x->headers = NULL;
}

static void free_exchange(struct exchange *x)
{
    struct mcp_streams *s = x->streams;

    if (s && s->gate == x)
        s->gate = NULL;
    if (s && x->kind == ASIDE)
        s->n_aside--;
    drop_easy(x);
    cox_list_remove(&x->link);
    if (x->timer)
        event_free(x->timer);
    wiped_fini(&x->text);
    mcp_events_fini(&x->events);
    cox_buf_fini(&x->body);
    cox_free(x);
}

/* ---------------------------------------------------------------- what is sent */

/* "NAME: value", or as curl wants one without a value. */
static void add_header(struct exchange *x, const char *name, struct cox_slice value)
{
    struct cox_buf line = { 0 };

    wiped_reserve(&line, strlen(name) + value.len + 3);
    cox_buf_append_str(&line, name);
    cox_buf_append_str(&line, value.len > 0 ? ": " : ";");
    cox_buf_append_slice(&line, value);
    x->headers = curl_slist_append(x->headers, cox_buf_cstr(&line));
    wiped_fini(&line);
}

/* "Mcp-Param-X: y" lines, whose values are safe already. */
static void add_params(struct exchange *x, struct cox_slice params)
{
    const uint8_t *end;

    while (params.len > 0 && (end = memchr(params.data, '\n', params.len)) != NULL) {
        size_t len = (size_t)(end - params.data);
        const uint8_t *colon = memchr(params.data, ':', len);
        char name[160];

        if (colon && (size_t)(colon - params.data) < sizeof(name)) {
            size_t name_len = (size_t)(colon - params.data);

            memcpy(name, params.data, name_len);
            name[name_len] = 0;
            add_header(x, name, cox_slice(colon + 2, len - name_len - 2));
        }
        params = cox_slice(end + 1, params.len - len - 1);
    }
}

static void add_standard(struct exchange *x)
{
    struct mcp_streams *s = x->streams;

    for (struct curl_slist *h = s->headers; h; h = h->next)
        x->headers = curl_slist_append(x->headers, h->data);
    x->in_session = s->session.len > 0 && !x->initializes && !x->modern;
    if (x->in_session)
        add_header(x, "Mcp-Session-Id", cox_buf_slice(&s->session));
    if (s->version && !x->initializes)
        add_header(x, "MCP-Protocol-Version", cox_slice_str(s->version));
}

static void add_message(struct exchange *x, const struct mcp_outgoing *m)
{
    struct cox_buf name = { 0 }, value = { 0 };

    add_header(x, "Content-Type", cox_slice_str("application/json"));
    add_header(x, "Accept", cox_slice_str("application/json, text/event-stream"));
    x->headers = curl_slist_append(x->headers, "Expect:"); /* none: nobody waits to be told to go on */
    if (!m->modern || !m->method)
        return;
    add_header(x, "Mcp-Method", cox_slice_str(m->method));
    if (m->tool.len > 0) {
        cox_json_unquote(&name, m->tool);
        mcp_header_put(&value, cox_buf_slice(&name));
        add_header(x, "Mcp-Name", cox_buf_slice(&value));
    }
    add_params(x, m->params);
    cox_buf_fini(&name);
    cox_buf_fini(&value);
}

/* ---------------------------------------------------------------- what is answered */

static bool on_event(void *user, struct cox_slice data)
{
    struct exchange *x = user;

    x->n_resumes = 0;
    mcp_client_take(x->streams->client, data, x->id);
    return !x->id || mcp_client_awaits(x->streams->client, x->id);
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct exchange *x = user;
    bool ok = x->status >= 200 && x->status < 300;
    size_t len_max = ok ? MCP_MESSAGE_LEN_MAX : MCP_REFUSAL_LEN_MAX;

    if (!x->streams)
        return size * n; /* nobody reads it */
    if (ok && x->is_stream && x->kind != ASIDE) {
        if (mcp_events_feed(&x->events, cox_slice(data, size * n), len_max, on_event, x) != COX_OK)
            x->why_cut = "mcp: a message of the server is longer than 64 MiB";
        else if (!x->id || mcp_client_awaits(x->streams->client, x->id))
            return size * n;
        return 0; /* it has been answered, or never will */
    }
    if (!ok && x->body.len + size * n > len_max)
        return size * n; /* enough is known */
    if (x->body.len + size * n > len_max) {
        x->why_cut = "mcp: a message of the server is longer than 64 MiB";
        return 0;
    }
    cox_buf_append(&x->body, data, size * n);
    return size * n;
}

static bool is_named(struct cox_slice line, const char *name, struct cox_slice *ret)
{
    size_t len = strlen(name);

    if (line.len <= len || strncasecmp((const char *)line.data, name, len) != 0 || line.data[len] != ':')
        return false;
    *ret = cox_json_trim(cox_slice(line.data + len + 1, line.len - len - 1));
    return true;
}

static void take_session(struct exchange *x, struct cox_slice id)
{
    for (size_t i = 0; i < id.len; i++)
        if (id.data[i] < 0x21 || id.data[i] > 0x7E)
            return;
    if (id.len == 0 || id.len > MCP_SESSION_LEN_MAX)
        return;
    cox_buf_clear(&x->streams->session);
    cox_buf_append_slice(&x->streams->session, id);
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct exchange *x = user;
    struct cox_slice line = cox_slice(data, size * n), value;

    if (line.len > 5 && memcmp(line.data, "HTTP/", 5) == 0)
        curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &x->status);
    else if (is_named(line, "Content-Type", &value))
        x->is_stream = value.len >= 17 && strncasecmp((const char *)value.data, "text/event-stream", 17) == 0;
    else if (x->streams && x->initializes && is_named(line, "Mcp-Session-Id", &value))
        take_session(x, value);
    return size * n;
}

/* ---------------------------------------------------------------- beginning */

static void set_options(struct exchange *x, const struct reach *reach, const struct cox_buf *url)
{
    CURL *easy = x->easy;

    outward_begin(&x->outward, easy, reach);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, x);
    curl_easy_setopt(easy, CURLOPT_URL, (const char *)url->data);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, x->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    if (x->kind == BYE) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)MCP_BYE_LIMIT_MS);
    } else if (x->kind != LISTEN && !x->resumes) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, x->text.data);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->text.len);
    }
}

static void begin(struct exchange *x)
{
    struct mcp_streams *s = x->streams;

    x->easy = curl_easy_init();
    COX_ASSERT(x->easy);
    x->status = 0;
    x->is_stream = false;
    x->why_cut = NULL;
    x->n_events = x->events.n;
    cox_buf_clear(&x->body);
    set_options(x, &s->reach, &s->url);
    curl_multi_add_handle(x->multi, x->easy);
}

static struct exchange *new_exchange(struct mcp_streams *s, enum exchange_kind kind, uint64_t id)
{
    struct exchange *x = COX_NEW(struct exchange);

    x->streams = s;
    x->multi = s->loop->multi;
    x->kind = kind;
    x->id = id;
    cox_list_init(&x->link);
    cox_list_push_back(&s->exchanges, &x->link);
    return x;
}

/* A GET: from where the stream was, or for what comes. */
static void get(struct exchange *x)
{
    x->resumes = true;
    mcp_events_restart(&x->events);
    add_standard(x);
    add_header(x, "Accept", cox_slice_str("text/event-stream"));
    if (x->events.last_id.len > 0)
        add_header(x, "Last-Event-ID", cox_buf_slice(&x->events.last_id));
    begin(x);
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    get(arg);
}

/* Later, and as the server says when. */
static void resume(struct exchange *x)
{
    int64_t ms = x->events.retry_ms > 0 ? x->events.retry_ms : MCP_RETRY_MS;

    ms = ms < MCP_RETRY_MAX_MS ? ms : MCP_RETRY_MAX_MS;
    x->n_resumes++;
    drop_easy(x);
    if (!x->timer)
        x->timer = evtimer_new(x->streams->base, on_resume, x);
    event_add(x->timer, &(struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 });
}

static void listen_again(struct mcp_streams *s)
{
    COX_LIST_FOR_EACH (it, &s->exchanges) {
        struct exchange *x = COX_CONTAINER_OF(it, struct exchange, link);

        if (x->kind == LISTEN) /* of a session that is lost */
            free_exchange(x);
    }
    s->wants_to_listen = false;
    get(new_exchange(s, LISTEN, 0));
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
    struct mcp_streams *s = arg;

    (void)fd;
    (void)what;
    COX_LIST_FOR_EACH (it, &s->held) {
        struct exchange *x = COX_CONTAINER_OF(it, struct exchange, link);

        if (s->gate && s->gate != x)
            continue;
        cox_list_remove(it);
        cox_list_push_back(&s->exchanges, it);
        begin(x);
    }
    if (s->wants_to_listen && !s->gate)
        listen_again(s);
}

/* ---------------------------------------------------------------- done */

static bool may_resume(const struct exchange *x)
{
    return x->events.last_id.len > 0 && !x->modern && x->n_resumes < MCP_RESUMES_MAX;
}

/* The request has not been answered. What it failed with. */
static void fail(struct exchange *x, CURLcode r)
{
    struct outcome o;

    outcome_init(&o);
    if (x->why_cut) {
        o.code = COX_CODE_OUTPUT_TOO_LARGE;
        outcome_say(&o, cox_slice_str(x->why_cut));
    } else if (r != CURLE_OK) {
        outward_judge(&x->outward, "mcp", r, x->streams->redactor, &o);
    } else if (x->is_stream) {
        o.code = COX_CODE_UNAVAILABLE;
        outcome_say(&o, cox_slice_str("mcp: the server ended its stream before the answer"));
    } else {
        o.code = COX_CODE_OUTPUT_INVALID;
        outcome_say(&o,
                    cox_slice_str("mcp: the server's answer is not one of the protocol: expected JSON, or "
                                  "events, with the answer to the request"));
    }
    mcp_client_failed(x->streams->client, x->id, o.code, cox_buf_slice(&o.message));
    outcome_fini(&o);
}

static void answered(struct exchange *x, CURLcode r)
{
    struct mcp_client *client = x->streams->client;
    bool ok = x->status >= 200 && x->status < 300;

    if (r == CURLE_OK && ok && !x->is_stream && x->body.len > 0)
        mcp_client_take(client, cox_buf_slice(&x->body), x->id);
    if (!mcp_client_awaits(client, x->id)) {
        free_exchange(x);
        return;
    }
    if (!x->why_cut && may_resume(x) && (r != CURLE_OK || ok)) {
        resume(x);
        return;
    }
    redact_text(x->streams->redactor, &x->body);
    if (r == CURLE_OK && !ok && !x->resumes)
        mcp_client_rejected(client, x->id, x->status, cox_buf_slice(&x->body), x->in_session);
    else
        fail(x, r);
    free_exchange(x);
}

/* Only a server that has said something is listened to again. */
static void listened(struct exchange *x, CURLcode r)
{
    bool ok = r == CURLE_OK && x->status >= 200 && x->status < 300 && x->is_stream;

    if (x->events.n > x->n_events)
        x->n_resumes = 0;
    if ((ok || r != CURLE_OK) && x->events.n > 0 && x->n_resumes < MCP_RESUMES_MAX && !x->why_cut)
        resume(x);
    else
        free_exchange(x);
}

void mcp_streams_on_done(void *owner, CURLcode result)
{
    struct exchange *x = owner;
    struct mcp_streams *s = x->streams;

    if (x->kind == POST) {
        answered(x, result);
    } else if (x->kind == LISTEN) {
        listened(x, result);
    } else {
        bool was_gate = s && s->gate == x;

        free_exchange(x);
        if (was_gate)
            event_active(s->kick, EV_TIMEOUT, 0);
    }
}

/* ---------------------------------------------------------------- messages */

void mcp_streams_send(struct mcp_streams *s, const struct mcp_outgoing *m)
{
    bool tells = m->method && strcmp(m->method, "notifications/initialized") == 0;
    struct exchange *x;

    if (!m->id && s->n_aside >= MCP_ASIDE_MAX)
        return;
    x = new_exchange(s, m->id ? POST : ASIDE, m->id);
    s->n_aside += x->kind == ASIDE;
    x->initializes = m->method && strcmp(m->method, "initialize") == 0;
    x->modern = m->modern;
    if (m->version)
        s->version = m->version;
    wiped_append(&x->text, m->text);
    if (x->initializes)
        cox_buf_clear(&s->session);
    add_standard(x);
    add_message(x, m);
    if (tells)
        s->gate = x;
    cox_list_remove(&x->link);
    cox_list_push_back(&s->held, &x->link);
    event_active(s->kick, EV_TIMEOUT, 0);
}

void mcp_streams_drop(struct mcp_streams *s, uint64_t id)
{
    struct cox_list *lists[] = { &s->held, &s->exchanges };

    for (size_t i = 0; i < 2; i++)
        COX_LIST_FOR_EACH (it, lists[i]) {
            struct exchange *x = COX_CONTAINER_OF(it, struct exchange, link);

            if (x->id == id)
                free_exchange(x);
        }
}

void mcp_streams_listen(struct mcp_streams *s)
{
    s->wants_to_listen = true;
    event_active(s->kick, EV_TIMEOUT, 0);
}

/* ---------------------------------------------------------------- life */

static bool expect(struct cox_buf *message, const char *what, const char *expected)
{
    cox_buf_printf(message, "%s: expected %s", what, expected);
    return false;
}

/* Which headers are the protocol's own. */
static bool is_ours(const char *name)
{
    static const char *const names[] = { "accept", "content-type", "content-length", "transfer-encoding",
                                         "last-event-id" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return strncasecmp(name, "mcp-", 4) == 0;
}

static bool read_header(struct mcp_streams *s, struct cox_slice key, struct cox_slice raw,
                        struct cox_buf *message)
{
    struct cox_buf line = { 0 };
    size_t name_len;
    bool ok;

    wiped_reserve(&line, key.len + raw.len + 4);
    cox_json_unquote(&line, key);
    name_len = line.len;
    ok = name_len > 0 && !is_ours(cox_buf_cstr(&line));
    for (size_t i = 0; i < name_len; i++)
        ok = ok && line.data[i] > 32 && line.data[i] < 127 && !strchr("()<>@,;:\\\"/[]?={}", line.data[i]);
    if (!ok)
        expect(message, "mcp.headers", "names of headers, none of the protocol's own");
    cox_buf_append_str(&line, ": ");
    if (cox_json_kind(raw) == COX_JSON_STRING)
        cox_json_unquote(&line, raw);
    else if (cox_json_kind(raw) != COX_JSON_NULL)
        cox_json_compact(&line, raw);
    for (size_t i = name_len; ok && i < line.len; i++)
        ok = (line.data[i] >= 32 && line.data[i] != 127) || line.data[i] == '\t' ||
             expect(message, "mcp.headers", "text without control characters");
    while (ok && line.len > name_len + 2 && strchr(" \t", line.data[line.len - 1]))
        line.len--;
    if (ok && line.len == name_len + 2) { /* how curl wants an empty one */
        line.data[name_len] = ';';
        line.len = name_len + 1;
    }
    if (ok)
        s->headers = curl_slist_append(s->headers, cox_buf_cstr(&line));
    wiped_fini(&line);
    return ok;
}

static bool read_server(struct mcp_streams *s, struct cox_slice server, struct cox_buf *message)
{
    struct cox_slice value = { 0 };
    bool ok = cox_json_member(server, "url", &value) && cox_json_kind(value) == COX_JSON_STRING;

    wiped_reserve(&s->url, value.len + 1);
    if (ok)
        cox_json_unquote(&s->url, value);
    cox_buf_cstr(&s->url);
    for (size_t i = 0; ok && i < s->url.len; i++)
        ok = s->url.data[i] > 32 && s->url.data[i] != 127;
    if (!ok || (strncasecmp((char *)s->url.data, "http://", 7) != 0 &&
                strncasecmp((char *)s->url.data, "https://", 8) != 0))
        return expect(message, "mcp.url", "http://... or https://...");
    if (!cox_json_member(server, "headers", &value) || cox_json_kind(value) == COX_JSON_NULL)
        return true;
    if (cox_json_kind(value) != COX_JSON_OBJECT)
        return expect(message, "mcp.headers", "an object of strings");
    for (struct cox_json_walk w = cox_json_walk(value); ok && cox_json_next(&w);)
        ok = read_header(s, w.key, w.value, message);
    return ok;
}

static void destroy(struct mcp_streams *s)
{
    struct cox_list *lists[] = { &s->held, &s->exchanges };

    for (size_t i = 0; i < 2; i++)
        while (!cox_list_empty(lists[i]))
            free_exchange(COX_CONTAINER_OF(lists[i]->next, struct exchange, link));
    event_free(s->kick);
    wipe_headers(s->headers);
    wiped_fini(&s->url);
    wiped_fini(&s->session);
    redactor_unref(s->redactor);
    cox_free(s);
}

struct mcp_streams *mcp_streams_start(const struct mcp_streams_config *config, struct cox_slice server,
                                      struct cox_buf *message)
{
    struct mcp_streams *s = COX_NEW(struct mcp_streams);

    s->base = config->base;
    s->loop = config->loop;
    s->reach = *config->reach;
    s->client = config->client;
    s->redactor = redactor_ref((struct redactor *)(uintptr_t)config->redactor);
    cox_list_init(&s->exchanges);
    cox_list_init(&s->held);
    s->kick = evtimer_new(s->base, on_kick, s);
    if (read_server(s, server, message))
        return s;
    destroy(s);
    return NULL;
}

static void say_bye(struct mcp_streams *s, struct cox_list *leaving)
{
    struct exchange *x = new_exchange(s, BYE, 0);

    add_standard(x);
    x->reach = s->reach;
    x->easy = curl_easy_init();
    COX_ASSERT(x->easy);
    set_options(x, &x->reach, &s->url);
    cox_list_remove(&x->link);
    cox_list_push_back(leaving, &x->link);
    x->streams = NULL;
    curl_multi_add_handle(x->multi, x->easy);
}

void mcp_streams_stop(struct mcp_streams *s, struct cox_list *leaving)
{
    if (!s)
        return;
    if (s->session.len > 0)
        say_bye(s, leaving);
    destroy(s);
}

void mcp_streams_kill_all(struct cox_list *leaving)
{
    while (!cox_list_empty(leaving))
        free_exchange(COX_CONTAINER_OF(leaving->next, struct exchange, link));
}
