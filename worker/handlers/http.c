#include "http.h"

#include "outward.h"

#include "../curl_loop.h"
#include "../wiped.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct http {
    struct handler_host *host;
    struct curl_loop loop;
    struct reach reach;
};

struct http_call {
    struct call call;
    struct http *http;
    CURL *easy; /* NULL: refused, or over */
    struct curl_slist *headers;
    struct cox_buf request;
    struct cox_buf body;
    struct cox_buf response_headers; /* members of an object, without its braces */
    bool is_json;
    bool names_type;     /* the request's headers have a Content-Type */
    const char *why_cut; /* why the transfer was given up here; NULL: it was not */
    struct outward outward;
    const struct redactor *redactor; /* NULL: it was given no secrets */
    struct event *timer;             /* refused, or killed */
    struct outcome outcome;
};

static struct http_call *call_of(struct call *call)
{
    return COX_CONTAINER_OF(call, struct http_call, call);
}

/* ---------------------------------------------------------------- the response */

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct http_call *c = user;

    if (c->body.len + size * n > HTTP_BODY_LEN_MAX) {
        c->why_cut = "the response is longer than 64 MiB";
        return 0;
    }
    cox_buf_append(&c->body, data, size * n);
    return size * n;
}

static void put_lower(struct cox_buf *out, struct cox_slice name)
{
    struct cox_buf lower = { 0 };

    cox_buf_append_slice(&lower, name);
    for (size_t i = 0; i < lower.len; i++)
        if (lower.data[i] >= 'A' && lower.data[i] <= 'Z')
            lower.data[i] = (uint8_t)(lower.data[i] + 32);
    cox_json_quote(out, cox_buf_slice(&lower));
    cox_buf_fini(&lower);
}

static struct cox_slice trim(struct cox_slice s)
{
    while (s.len > 0 && strchr(" \t\r\n", s.data[0]))
        s = cox_slice(s.data + 1, s.len - 1);
    while (s.len > 0 && strchr(" \t\r\n", s.data[s.len - 1]))
        s.len--;
    return s;
}

/* After 303 the answer is elsewhere, to be read: curl would say the method again that it was told to say. */
static void mind_redirect(struct http_call *c, struct cox_slice line)
{
    const uint8_t *space = memchr(line.data, ' ', line.len);

    if (space && line.data + line.len - space >= 4 && memcmp(space, " 303", 4) == 0)
        curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, NULL);
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct http_call *c = user;
    struct cox_slice line = trim(cox_slice(data, size * n));
    const uint8_t *colon = line.len > 0 ? memchr(line.data, ':', line.len) : NULL;
    struct cox_slice value;

    if (line.len > 5 && memcmp(line.data, "HTTP/", 5) == 0) { /* a redirect's are not the answer's */
        cox_buf_clear(&c->response_headers);
        cox_buf_clear(&c->body);
        c->is_json = false;
        mind_redirect(c, line);
    }
    if (!colon)
        return size * n;
    if (c->response_headers.len + line.len > HTTP_HEADERS_LEN_MAX) {
        c->why_cut = "the response's headers are longer than 64 KiB";
        return 0;
    }
    value = trim(cox_slice(colon + 1, (size_t)(line.data + line.len - colon - 1)));
    if (c->response_headers.len > 0)
        cox_buf_append_str(&c->response_headers, ",");
    put_lower(&c->response_headers, cox_slice(line.data, (size_t)(colon - line.data)));
    cox_buf_append_str(&c->response_headers, ":");
    cox_json_quote(&c->response_headers, value);
    if (strncasecmp(data, "content-type:", 13) == 0)
        c->is_json = value.len >= 16 && strncasecmp((const char *)value.data, "application/json", 16) == 0;
    return size * n;
}

static void put_output(struct http_call *c, long status)
{
    struct cox_buf *out = &c->outcome.output;
    struct cox_slice body = cox_buf_slice(&c->body);

    cox_buf_printf(out, "{\"status\":%ld,\"headers\":{", status);
    cox_buf_append_slice(out, cox_buf_slice(&c->response_headers));
    cox_buf_append_str(out, "},");
    if (c->is_json && cox_json_check(body, NULL) == COX_OK) {
        cox_buf_append_str(out, "\"json\":");
        cox_buf_append_slice(out, cox_json_trim(body));
    } else {
        cox_buf_append_str(out, "\"body\":");
        cox_json_quote(out, body);
    }
    cox_buf_append_str(out, "}");
}

/* ---------------------------------------------------------------- the end */

static enum cox_code code_of_status(long status)
{
    if (status >= 200 && status < 300)
        return COX_CODE_NONE;
    if (status == 408 || status == 425 || status == 429 || status >= 500)
        return COX_CODE_UNAVAILABLE;
    return status == 401 || status == 403 ? COX_CODE_DENIED : COX_CODE_INPUT_INVALID;
}

static void judge(struct http_call *c, CURLcode r)
{
    struct outcome *o = &c->outcome;
    long status = 0;

    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    redact_json(c->redactor, &c->body);
    if (c->why_cut) {
        o->code = COX_CODE_OUTPUT_TOO_LARGE;
        outcome_say(o, cox_slice_str(c->why_cut));
    } else if (r != CURLE_OK) {
        outward_judge(&c->outward, "http", r, c->redactor, o);
    } else {
        o->code = code_of_status(status);
        put_output(c, status);
        if (o->code != COX_CODE_NONE) {
            cox_buf_printf(&o->message, "http: the server answered %ld: ", status);
            outcome_say(o, cox_slice(c->body.data, c->body.len < 300 ? c->body.len : 300));
        }
    }
}

static void drop_easy(struct http_call *c)
{
    if (!c->easy)
        return;
    curl_multi_remove_handle(c->http->loop.multi, c->easy);
    curl_easy_cleanup(c->easy);
    c->easy = NULL;
}

static void on_transfer_done(void *owner, CURLcode result)
{
    struct http_call *c = owner;

    judge(c, result);
    drop_easy(c);
    event_active(c->timer, EV_TIMEOUT, 0); /* told from the loop: it may start another request */
}

static void on_call_timer(evutil_socket_t fd, short what, void *arg)
{
    struct http_call *c = arg;

    (void)fd;
    (void)what;
    c->call.on_done(&c->call, &c->outcome);
}

static void kill_call(struct call *call)
{
    struct http_call *c = call_of(call);

    if (!c->easy)
        return;
    drop_easy(c);
    c->outcome.code = COX_CODE_UNAVAILABLE;
    outcome_say(&c->outcome, cox_slice_str("http: stopped"));
    event_active(c->timer, EV_TIMEOUT, 0);
}

static void destroy_call(struct call *call)
{
    struct http_call *c = call_of(call);

    drop_easy(c);
    event_free(c->timer);
    for (struct curl_slist *h = c->headers; h && c->redactor; h = h->next)
        explicit_bzero(h->data, strlen(h->data));
    curl_slist_free_all(c->headers);
    wiped_fini(&c->request);
    cox_buf_fini(&c->body);
    cox_buf_fini(&c->response_headers);
    outcome_fini(&c->outcome);
    cox_free(c);
}

/* ---------------------------------------------------------------- the request */

static bool refuse(struct http_call *c, const char *what, const char *expected)
{
    c->outcome.code = COX_CODE_INPUT_INVALID;
    cox_buf_printf(&c->outcome.message, "%s: expected %s", what, expected);
    return false;
}

/* A string without line breaks and NUL, which would make another request of it. */
static bool read_line(struct http_call *c, struct cox_slice raw, const char *what, struct cox_buf *ret)
{
    if (cox_json_kind(raw) == COX_JSON_STRING)
        cox_json_unquote(ret, raw);
    else if (cox_json_kind(raw) != COX_JSON_NULL)
        cox_json_compact(ret, raw);
    for (size_t i = 0; i < ret->len; i++)
        if (ret->data[i] < 32 && ret->data[i] != '\t')
            return refuse(c, what, "text without control characters");
    return true;
}

static bool is_token(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] <= 32 || s.data[i] >= 127 || strchr("()<>@,;:\\\"/[]?={}", s.data[i]))
            return false;
    return s.len > 0;
}

static bool read_headers(struct http_call *c, struct cox_slice spec)
{
    struct cox_slice value = cox_slice_str("{}");
    bool ok = true;

    if (cox_json_member(spec, "headers", &value) && cox_json_kind(value) != COX_JSON_OBJECT &&
        cox_json_kind(value) != COX_JSON_NULL)
        return refuse(c, "http.headers", "an object of strings");
    for (struct cox_json_walk w = cox_json_walk(value); ok && cox_json_next(&w);) {
        struct cox_buf line = { 0 };
        size_t name_len;

        cox_json_unquote(&line, w.key);
        name_len = line.len;
        ok = is_token(cox_buf_slice(&line)) || refuse(c, "http.headers", "names of headers");
        c->names_type |= strcasecmp(cox_buf_cstr(&line), "content-type") == 0;
        cox_buf_append_str(&line, ": ");
        ok = ok && read_line(c, w.value, "http.headers", &line);
        while (line.len > name_len + 2 && strchr(" \t", line.data[line.len - 1]))
            line.len--;
        if (line.len == name_len + 2) { /* how curl wants an empty one */
            line.data[name_len] = ';';
            line.len = name_len + 1;
        }
        if (ok)
            c->headers = curl_slist_append(c->headers, cox_buf_cstr(&line));
        wiped_fini(&line);
    }
    return ok;
}

static bool read_url(struct http_call *c, struct cox_slice spec)
{
    struct cox_slice value = cox_slice(NULL, 0);
    struct cox_buf url = { 0 };
    bool ok = cox_json_member(spec, "url", &value) && cox_json_kind(value) == COX_JSON_STRING;

    ok = ok && read_line(c, value, "http.url", &url);
    if (ok)
        ok = curl_easy_setopt(c->easy, CURLOPT_URL, cox_buf_cstr(&url)) == CURLE_OK;
    if (!ok && c->outcome.code == COX_CODE_NONE)
        refuse(c, "http.url", "http://... or https://...");
    wiped_fini(&url);
    return ok;
}

/* As browsers and RFC 9110 have it: a POST that is sent elsewhere by 301 or 302 goes on as GET, what curl has
 * no own way to send goes on as it was, with its body; 303 makes a GET of either. */
static void set_method(struct http_call *c, const char *method)
{
    bool is_post = strcmp(method, "POST") == 0;

    if (c->request.data || is_post) {
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, c->request.data ? (char *)c->request.data : "");
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->request.len);
    }
    if (is_post && !c->request.data && !c->names_type) /* curl would call nothing a form */
        c->headers = curl_slist_append(c->headers, "Content-Type:");
    if (is_post)
        return;
    curl_easy_setopt(c->easy, CURLOPT_POSTREDIR, CURL_REDIR_POST_301 | CURL_REDIR_POST_302);
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(c->easy, CURLOPT_NOBODY, 1L);
    else if (c->request.data || strcmp(method, "GET") != 0)
        curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, method);
}

static bool read_method(struct http_call *c, struct cox_slice spec)
{
    static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS" };
    struct cox_slice value;
    bool has_method = cox_json_member(spec, "method", &value) && cox_json_kind(value) != COX_JSON_NULL;
    const char *method = c->request.data ? "POST" : "GET";

    for (size_t i = 0; has_method && i < sizeof(methods) / sizeof(methods[0]); i++)
        if (cox_json_string_is(value, cox_slice_str(methods[i]))) {
            method = methods[i];
            has_method = false;
        }
    if (has_method)
        return refuse(c, "http.method", "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS");
    set_method(c, method);
    return true;
}

static void read_body(struct http_call *c, struct cox_slice spec)
{
    struct cox_slice value;

    if (cox_json_member(spec, "json", &value)) {
        cox_json_compact(&c->request, value);
        if (!c->names_type)
            c->headers = curl_slist_append(c->headers, "Content-Type: application/json");
    } else if (cox_json_member(spec, "body", &value) && cox_json_kind(value) != COX_JSON_NULL) {
        cox_buf_reserve(&c->request, 1);
        if (cox_json_kind(value) == COX_JSON_STRING)
            cox_json_unquote(&c->request, value);
        else
            cox_json_compact(&c->request, value);
    }
}

static bool read_spec(struct http_call *c, struct cox_slice spec)
{
    struct cox_json_place place;

    if (cox_json_check(spec, &place) != COX_OK || cox_json_kind(spec) != COX_JSON_OBJECT)
        return refuse(c, "http", "an object");
    if (!read_headers(c, spec))
        return false;
    read_body(c, spec);
    return read_url(c, spec) && read_method(c, spec);
}

static void set_options(struct http_call *c)
{
    CURL *easy = c->easy;

    outward_begin(&c->outward, easy, &c->http->reach);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, c);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    /* Another server is not whom the secret was meant for. */
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION,
                     c->redactor && !COX_PLANTED("secrets-follow-redirects") ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)HTTP_REDIRECTS_MAX);
}

struct call *http_call(struct http *http, const struct call_args *args,
                       void (*on_done)(struct call *call, struct outcome *outcome),
                       void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data),
                       void *user)
{
    static const struct call_ops ops = { .kill = kill_call, .destroy = destroy_call };
    struct http_call *c = COX_NEW(struct http_call);

    c->call =
        (struct call){ .ops = &ops, .host = http->host, .on_done = on_done, .on_log = on_log, .user = user };
    c->http = http;
    c->redactor = args->redactor;
    c->timer = evtimer_new(http->host->base, on_call_timer, c);
    outcome_init(&c->outcome);
    c->easy = curl_easy_init();
    COX_ASSERT(c->easy);
    if (!read_spec(c, args->spec)) {
        curl_easy_cleanup(c->easy);
        c->easy = NULL;
        event_active(c->timer, EV_TIMEOUT, 0);
        return &c->call;
    }
    set_options(c);
    curl_multi_add_handle(http->loop.multi, c->easy);
    return &c->call;
}

/* ---------------------------------------------------------------- life */

struct http *http_create(struct handler_host *host, const struct reach *reach)
{
    struct http *http = COX_NEW(struct http);

    http->host = host;
    http->reach = *reach;
    curl_loop_init(&http->loop, host->base, on_transfer_done);
    return http;
}

void http_destroy(struct http *http)
{
    if (!http)
        return;
    curl_loop_fini(&http->loop);
    cox_free(http);
}
