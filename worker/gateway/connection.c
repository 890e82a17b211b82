/* A connection, but for model calls. */
#include "internal.h"

#include "../handlers/handler.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/json.h"
#include "cox/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PIECE_LEN ((size_t)256 << 10) /* of a file at once: then others have their turn */

static void leave(struct connection *c)
{
    cox_list_remove(&c->link);
    if (c->at)
        c->at->n_strangers--;
    else if (c->is_call)
        c->attempt->n_calls--;
    else
        c->attempt->n_connections--;
}

static void close_file(struct connection *c)
{
    if (c->file >= 0)
        close(c->file);
    c->file = -1;
}

void connection_drop(struct connection *c)
{
    leave(c);
    if (c->attempt)
        c->attempt->sending_len -= c->len;
    if (c->job) {
        atomic_store(&c->job->cancelled, true);
        c->job->user = NULL;
    }
    if (c->call)
        models_cancel(c->call);
    event_free(c->readable);
    event_free(c->writable);
    event_free(c->timer);
    close_file(c);
    close(c->fd);
    explicit_bzero(c->bytes.data, c->bytes.len);
    cox_buf_fini(&c->bytes);
    cox_free(c);
}

void connections_close(struct cox_list *list)
{
    while (!cox_list_empty(list))
        connection_drop(COX_CONTAINER_OF(list->next, struct connection, link));
}

void connection_expect_within(struct connection *c, int ms)
{
    event_add(c->timer, &(struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 });
}

/* ---------------------------------------------------------------- answers */

const char *connection_reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        { 200, "OK" },
        { 201, "Created" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 404, "Not Found" },
        { 403, "Forbidden" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 411, "Length Required" },
        { 413, "Content Too Large" },
        { 422, "Unprocessable Content" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 507, "Insufficient Storage" },
    };

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Error";
}

static void begin_answer(struct connection *c, int status, const char *type, uint64_t len)
{
    explicit_bzero(c->bytes.data, c->bytes.len);
    cox_buf_clear(&c->bytes);
    cox_buf_printf(&c->bytes, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %llu\r\n", status,
                   connection_reason(status), type, (unsigned long long)len);
    if (status == 401)
        cox_buf_append_str(&c->bytes, "WWW-Authenticate: Bearer\r\n");
    if (status == 405)
        cox_buf_append_str(&c->bytes, "Allow: GET, HEAD, POST\r\n");
    if (status == 429 || status == 503)
        cox_buf_append_str(&c->bytes, "Retry-After: 1\r\n");
    cox_buf_append_str(&c->bytes, "Connection: close\r\n\r\n");
    c->sent = 0;
    c->state = ANSWER;
    event_del(c->readable);
    event_add(c->writable, NULL);
    connection_expect_within(c, GATEWAY_SILENCE_MS);
}

static void answer_json(struct connection *c, int status, struct cox_slice json)
{
    begin_answer(c, status, "application/json", json.len);
    cox_buf_append_slice(&c->bytes, json);
}

/* As OpenAI's clients know it. */
static const char *type_of(int status)
{
    return status >= 500 ? "server_error" : status == 429 ? "rate_limit_error" : "invalid_request_error";
}

void connection_refuse(struct connection *c, int status, const char *why)
{
    struct cox_buf json = { 0 };

    close_file(c);
    cox_buf_append_str(&json, "{\"error\":{\"message\":");
    cox_json_quote(&json, cox_slice_str(why));
    cox_buf_printf(&json, ",\"type\":\"%s\",\"param\":null,\"code\":%s}}\n", type_of(status),
                   status == 401 ? "\"invalid_api_key\"" : "null");
    answer_json(c, status, cox_buf_slice(&json));
    cox_buf_fini(&json);
}

void connection_linger(struct connection *c)
{
    close_file(c);
    event_del(c->writable);
    shutdown(c->fd, SHUT_WR);
    c->state = LINGER;
    event_add(c->readable, NULL);
    connection_expect_within(c, GATEWAY_LINGER_MS);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;
    ssize_t n;

    (void)what;
    if (c->state == RELAY) {
        relay_send(c);
        return;
    }
    if (c->sent < c->bytes.len) {
        n = send(fd, c->bytes.data + c->sent, c->bytes.len - c->sent, MSG_NOSIGNAL);
        c->sent += n > 0 ? (size_t)n : 0;
    } else {
        size_t left = (size_t)(c->file_len - c->file_at);

        n = sendfile(fd, c->file, &c->file_at, left < PIECE_LEN ? left : PIECE_LEN);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) /* it has gone, or the file is shorter than it was */
        connection_drop(c);
    else if (c->sent == c->bytes.len && (c->file < 0 || c->file_at == c->file_len))
        connection_linger(c);
    else
        connection_expect_within(c, GATEWAY_SILENCE_MS);
}

/* ---------------------------------------------------------------- reading a blob */

/* The file that is a blob of this attempt; NULL: it has no such blob. */
static const char *find_blob(const struct gateway_attempt *a, const char *hex)
{
    for (size_t i = 0; a->blobs && a->blobs[i]; i++)
        if (strcmp(strrchr(a->blobs[i], '/') + 1, hex) == 0)
            return a->blobs[i];
    return NULL;
}

static const char *find_anybodys_blob(const struct gateway *g, const char *hex)
{
    const char *found = NULL;

    COX_LIST_FOR_EACH (it, &g->attempts) {
        const char *path = find_blob(COX_CONTAINER_OF(it, struct gateway_attempt, link), hex);

        found = path ? path : found;
    }
    return found;
}

static void send_blob(struct connection *c, struct cox_slice name, bool with_body)
{
    char hex[BLOB_HEX_LEN + 1];
    const char *path = blob_parse(name, hex) ? find_blob(c->attempt, hex) : NULL;
    struct stat st;

    if (!path && COX_PLANTED("gateway-blob-of-others") && blob_parse(name, hex))
        path = find_anybodys_blob(c->gateway, hex);
    c->file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (c->file < 0 || fstat(c->file, &st) != 0) {
        connection_refuse(c, 404, "the input of this attempt refers to no such blob");
        return;
    }
    c->file_at = 0;
    c->file_len = st.st_size;
    begin_answer(c, 200, "application/octet-stream", (uint64_t)st.st_size);
    if (!with_body)
        close_file(c);
}

/* ---------------------------------------------------------------- storing a blob */

static void forget_body(struct connection *c)
{
    c->attempt->sending_len -= c->len;
    c->len = 0;
}

static void add_stored(struct gateway_attempt *a, const struct cox_hash *hash)
{
    for (size_t i = 0; i < a->n_stored; i++)
        if (memcmp(&a->stored[i], hash, sizeof(*hash)) == 0)
            return;
    a->stored = cox_realloc(a->stored, a->n_stored + 1, sizeof(*a->stored));
    a->stored[a->n_stored++] = *hash;
}

static void on_stored(struct courier_job *job, void *user)
{
    struct connection *c = user;
    struct cox_buf json = { 0 };

    if (!c) {
        courier_job_free(job);
        return;
    }
    c->job = NULL;
    forget_body(c);
    if (job->code == COX_CODE_NONE) {
        add_stored(c->attempt, &job->hash);
        blob_put(&json, &job->hash, job->len);
        answer_json(c, 201, cox_buf_slice(&json));
    } else {
        connection_refuse(c, job->code == COX_CODE_RESOURCE_EXHAUSTED ? 507 : 503,
                          cox_buf_cstr(&job->message));
    }
    cox_buf_fini(&json);
    courier_job_free(job);
}

static void store(struct connection *c)
{
    struct gateway_attempt *a = c->attempt;

    event_del(c->readable);
    event_del(c->timer);
    c->state = STORING;
    c->job = courier_job(c->gateway->courier, COURIER_STORE);
    c->job->fd = c->file;
    c->file = -1;
    memcpy(c->job->tenant, a->tenant, sizeof(a->tenant));
    c->job->attempt = a->ref;
    c->job->redactor = redactor_ref(a->redactor);
    c->job->on_done = on_stored;
    c->job->user = c;
    courier_submit(c->job);
}

static void take_body(struct connection *c, struct cox_slice data)
{
    uint64_t left = c->len - (uint64_t)c->file_len;

    if (data.len > left)
        data.len = (size_t)left;
    if (!outcome_write(c->file, data)) {
        forget_body(c);
        connection_refuse(c, 507, "the worker's disk is full, or not writable");
        return;
    }
    c->file_len += (off_t)data.len;
    if ((uint64_t)c->file_len == c->len)
        store(c);
    else
        connection_expect_within(c, GATEWAY_SILENCE_MS);
}

/* What of the disk its bodies may take at once: as much as its own directory. */
static bool has_room(const struct connection *c, uint64_t len)
{
    const struct gateway_attempt *a = c->attempt;
    uint64_t len_max = a->disk_len_max;
    struct statvfs st;

    if (statvfs(c->gateway->spool_dir, &st) != 0)
        return false;
    if (len_max == 0 || len_max > (uint64_t)st.f_bavail * st.f_frsize / 2)
        len_max = (uint64_t)st.f_bavail * st.f_frsize / 2;
    return len <= len_max && a->sending_len <= len_max - len;
}

static void take_blob(struct connection *c, const struct request *r, struct cox_slice rest)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

    if (!r->has_len)
        connection_refuse(c, 411, "a blob's length must be said first: Content-Length");
    else if (r->len > COX_BLOB_LEN_MAX)
        connection_refuse(c, 413, "a blob has at most 1 GiB");
    else if (c->attempt->n_sent == GATEWAY_STORED_MAX)
        connection_refuse(c, 413, "an attempt stores at most 256 blobs");
    else if (!c->gateway->courier)
        connection_refuse(c, 503, "this worker has nowhere to store blobs");
    else if (!has_room(c, r->len))
        connection_refuse(c, 507, "more than is left of the disk, or than the step may use (resources.disk)");
    else if ((c->file = outcome_file(c->gateway->spool_dir)) < 0)
        connection_refuse(c, 507, "the worker's disk is full, or not writable");
    if (c->state != HEAD)
        return;
    c->attempt->n_sent++;
    c->attempt->sending_len += r->len;
    c->len = r->len;
    c->file_len = 0;
    c->state = BODY;
    if (r->expects && rest.len == 0)
        (void)!send(c->fd, go_on, sizeof(go_on) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    take_body(c, rest);
}

/* ---------------------------------------------------------------- requests */

static void serve(struct connection *c, const struct request *r, struct cox_slice head, struct cox_slice rest)
{
    static const char blobs[] = "/blobs";
    const size_t len = sizeof(blobs) - 1;
    struct cox_slice path = r->path;
    bool is_blobs = path.len >= len && memcmp(path.data, blobs, len) == 0;

    if (c->is_call) {
        relay_begin(c, r, head, rest);
    } else if (is_blobs && path.len == len) {
        if (r->method == REQUEST_POST)
            take_blob(c, r, rest);
        else
            connection_refuse(c, 405, "POST stores a blob; GET has one by its name: /blobs/sha256:HEX");
    } else if (is_blobs && path.data[len] == '/') {
        if (r->method == REQUEST_GET || r->method == REQUEST_HEAD)
            send_blob(c, cox_slice(path.data + len + 1, path.len - len - 1), r->method == REQUEST_GET);
        else
            connection_refuse(c, 405, "POST to /blobs stores a blob, and answers its name");
    } else {
        connection_refuse(c, 404, "no such path");
    }
}

/* From a stranger it becomes one of the attempt's. */
static void join(struct connection *c, struct gateway_attempt *a)
{
    leave(c);
    c->at = NULL;
    c->attempt = a;
    cox_list_push_back(&a->connections, &c->link);
    if (c->is_call)
        a->n_calls++;
    else
        a->n_connections++;
}

static void take_head(struct connection *c, struct cox_slice data)
{
    static const char end[] = "\r\n\r\n";
    struct gateway_attempt *a;
    struct request r;
    const uint8_t *at;
    size_t len;
    int wrong;

    cox_buf_append_slice(&c->bytes, data);
    at = memmem(c->bytes.data, c->bytes.len, end, sizeof(end) - 1);
    len = at ? (size_t)(at - c->bytes.data) + sizeof(end) - 1 : c->bytes.len;
    if (len > REQUEST_HEAD_LEN_MAX)
        connection_refuse(c, 431, "the head of a request has at most 8 KiB");
    if (!at || len > REQUEST_HEAD_LEN_MAX)
        return;
    wrong = request_read(cox_slice(c->bytes.data, len), &r);
    a = wrong ? NULL : gateway_find(c->at, r.key);
    if (wrong) {
        connection_refuse(c, wrong,
                          wrong == 411 ? "a body's length must be said first: Content-Length"
                                       : connection_reason(wrong));
    } else if (!a) {
        connection_refuse(
            c, 401, "expected Authorization: Bearer and the key of a running attempt (COX_ATTEMPT_KEY)");
    } else if (!relay_is_call(r.path) && a->n_connections == GATEWAY_REQUESTS_MAX) {
        connection_refuse(c, 429, "this attempt has 8 requests under way");
    } else if (relay_is_call(r.path) && a->n_calls == GATEWAY_CALLS_MAX) {
        connection_refuse(c, 429, "this attempt has 64 model calls under way");
    } else {
        struct cox_buf head = c->bytes; /* what answers takes its place */

        c->bytes = (struct cox_buf){ 0 };
        c->is_call = relay_is_call(r.path);
        join(c, a);
        serve(c, &r, cox_slice(head.data, len), cox_slice(head.data + len, head.len - len));
        explicit_bzero(head.data, head.len);
        cox_buf_fini(&head);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;
    uint8_t *buf = c->gateway->buf;
    ssize_t n = read(fd, buf, sizeof(c->gateway->buf));

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 && c->state == RELAY && COX_PLANTED("gateway-hang-up-unseen"))
        event_del(c->readable);
    else if (n <= 0)
        connection_drop(c);
    else if (c->state == HEAD)
        take_head(c, cox_slice(buf, (size_t)n));
    else if (c->state == BODY)
        take_body(c, cox_slice(buf, (size_t)n));
    else if (c->state == RELAY)
        relay_take(c, cox_slice(buf, (size_t)n));
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    connection_drop(arg);
}

void connection_open(struct listener *at, int fd)
{
    struct event_base *base = at->gateway->base;
    struct connection *c;

    if (at->n_strangers == GATEWAY_HEADS_MAX)
        connection_drop(COX_CONTAINER_OF(at->strangers.next, struct connection, link));
    c = COX_NEW(struct connection);
    *c = (struct connection){ .at = at, .gateway = at->gateway, .fd = fd, .file = -1 };
    c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    c->timer = evtimer_new(base, on_timer, c);
    cox_list_init(&c->link);
    cox_list_push_back(&at->strangers, &c->link);
    at->n_strangers++;
    event_add(c->readable, NULL);
    connection_expect_within(c, GATEWAY_HEAD_MS);
}
