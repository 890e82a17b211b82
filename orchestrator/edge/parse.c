#include "parse.h"

#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <string.h>
#include <strings.h>

#define CHUNK_DIGITS_MAX 15u
#define CHUNK_EXTRA_LEN_MAX ((size_t)8 << 10)

/* ---- words ---- */

bool edge_slice_is_nocase(struct cox_slice s, const char *text)
{
    return strlen(text) == s.len && strncasecmp((const char *)s.data, text, s.len) == 0;
}

static bool is_token(struct cox_slice s)
{
    static const char others[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && (c == 0 || !strchr(others, c)))
            return false;
    }
    return s.len > 0;
}

static struct cox_slice trim(struct cox_slice s)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* The next item of a comma-separated list; false at its end. */
static bool next_item(struct cox_slice *list, struct cox_slice *ret)
{
    if (list->len == 0)
        return false;
    const uint8_t *comma = memchr(list->data, ',', list->len);
    size_t len = comma ? (size_t)(comma - list->data) : list->len;

    *ret = trim(cox_slice(list->data, len));
    len += comma != NULL;
    *list = cox_slice(list->data + len, list->len - len);
    return true;
}

/* "q=0", "q=0.0" and the like mean: not this one. */
static bool is_refused(struct cox_slice parameters)
{
    struct cox_slice p = trim(parameters);

    if (p.len < 3 || (p.data[0] != 'q' && p.data[0] != 'Q') || p.data[1] != '=')
        return false;
    for (size_t i = 2; i < p.len; i++)
        if (p.data[i] != '0' && p.data[i] != '.')
            return false;
    return true;
}

bool edge_header_has(struct cox_slice list, const char *token)
{
    struct cox_slice item;

    while (next_item(&list, &item)) {
        const uint8_t *semicolon = item.len > 0 ? memchr(item.data, ';', item.len) : NULL;
        size_t len = semicolon ? (size_t)(semicolon - item.data) : item.len;
        if (edge_slice_is_nocase(trim(cox_slice(item.data, len)), token))
            return !semicolon || !is_refused(cox_slice(semicolon + 1, item.len - len - 1));
    }
    return false;
}

struct cox_slice edge_header(const struct edge_head *h, const char *name)
{
    for (size_t i = 0; i < h->n_headers; i++)
        if (edge_slice_is_nocase(h->headers[i].name, name))
            return h->headers[i].value;
    return cox_slice(NULL, 0);
}

static size_t count_headers(const struct edge_head *h, const char *name)
{
    size_t n = 0;

    for (size_t i = 0; i < h->n_headers; i++)
        n += edge_slice_is_nocase(h->headers[i].name, name);
    return n;
}

/* ---- the head ---- */

static int refuse(int status, const char *why, const char **ret_why)
{
    *ret_why = why;
    return status;
}

/* The line at the front of *in without its end; false when it has none yet. */
static bool take_line(struct cox_slice *in, struct cox_slice *ret)
{
    const uint8_t *lf = in->len > 0 ? memchr(in->data, '\n', in->len) : NULL;

    if (!lf)
        return false;
    size_t len = (size_t)(lf - in->data);

    *ret = cox_slice(in->data, len > 0 && in->data[len - 1] == '\r' ? len - 1 : len);
    *in = cox_slice(lf + 1, in->len - len - 1);
    return true;
}

static int parse_request_line(struct cox_slice line, struct edge_head *h, const char **ret_why)
{
    const uint8_t *end = line.data + line.len;
    const uint8_t *a = memchr(line.data, ' ', line.len);
    const uint8_t *b = a ? memchr(a + 1, ' ', (size_t)(end - a - 1)) : NULL;

    if (!b)
        return refuse(400, "the request line is not METHOD TARGET HTTP/1.1", ret_why);
    h->method = cox_slice(line.data, (size_t)(a - line.data));
    h->target = cox_slice(a + 1, (size_t)(b - a - 1));
    struct cox_slice version = cox_slice(b + 1, (size_t)(end - b - 1));

    if (!is_token(h->method))
        return refuse(400, "the method is not a word", ret_why);
    if (h->target.len > EDGE_TARGET_LEN_MAX)
        return refuse(414, "the target is longer than 8 KiB", ret_why);
    if (version.len != 8 || memcmp(version.data, "HTTP/", 5) != 0)
        return refuse(400, "the request line does not end in HTTP/1.1", ret_why);
    if (!cox_slice_is(version, "HTTP/1.1") && !cox_slice_is(version, "HTTP/1.0"))
        return refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken here", ret_why);
    h->minor = version.data[7] == '1';
    if (h->target.len == 0 || h->target.data[0] != '/')
        return refuse(400, "the target does not begin with /", ret_why);
    for (size_t i = 0; i < h->target.len; i++)
        if (h->target.data[i] <= ' ' || h->target.data[i] >= 0x7f)
            return refuse(400, "the target has a character that must be percent-encoded", ret_why);
    return 0;
}

static int parse_header(struct cox_slice line, struct edge_head *h, const char **ret_why)
{
    const uint8_t *colon = memchr(line.data, ':', line.len);

    if (!colon || !is_token(cox_slice(line.data, (size_t)(colon - line.data))))
        return refuse(400, "a header line is not NAME: VALUE", ret_why);
    if (h->n_headers == EDGE_HEADERS_MAX)
        return refuse(431, "more than 100 headers", ret_why);
    struct edge_header *header = &h->headers[h->n_headers++];
    size_t name_len = (size_t)(colon - line.data);

    header->name = cox_slice(line.data, name_len);
    header->value = trim(cox_slice(colon + 1, line.len - name_len - 1));
    for (size_t i = 0; i < header->value.len; i++)
        if ((header->value.data[i] < ' ' && header->value.data[i] != '\t') || header->value.data[i] == 0x7f)
            return refuse(400, "a header has a control character", ret_why);
    return 0;
}

static int parse_length(struct edge_head *h, const char **ret_why)
{
    struct cox_slice text = edge_header(h, "content-length");
    uint64_t len = 0;

    if (text.len == 0 || text.len > 18)
        return refuse(400, "Content-Length is not a number of bytes", ret_why);
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return refuse(400, "Content-Length is not a number of bytes", ret_why);
        len = len * 10 + (uint64_t)(text.data[i] - '0');
    }
    h->has_length = true;
    h->body_len = len;
    return 0;
}

/* What the headers say about the body and the connection. */
static int interpret(struct edge_head *h, const char **ret_why)
{
    size_t n_lengths = count_headers(h, "content-length");
    size_t n_encodings = count_headers(h, "transfer-encoding");
    struct cox_slice connection = edge_header(h, "connection");
    size_t n_hosts = count_headers(h, "host");

    if (n_hosts > 1 || (n_hosts == 0 && h->minor > 0))
        return refuse(400, "a request has one Host header", ret_why);
    if (n_lengths + n_encodings > 1)
        return refuse(400, "a request has one Content-Length or one Transfer-Encoding", ret_why);
    if (n_encodings > 0) {
        if (!edge_slice_is_nocase(edge_header(h, "transfer-encoding"), "chunked") || h->minor == 0)
            return refuse(501, "the only transfer coding spoken here is chunked", ret_why);
        h->chunked = true;
    }
    h->keep_alive =
        h->minor > 0 ? !edge_header_has(connection, "close") : edge_header_has(connection, "keep-alive");
    h->expects_continue = h->minor > 0 && edge_slice_is_nocase(edge_header(h, "expect"), "100-continue");
    return n_lengths > 0 ? parse_length(h, ret_why) : 0;
}

int edge_parse_head(struct cox_slice in, struct edge_head *ret, size_t *ret_len, const char **ret_why)
{
    struct cox_slice rest = in, line;
    bool first = true;
    int status = 0;

    *ret_len = 0;
    memset(ret, 0, sizeof(*ret));
    while (take_line(&rest, &line)) {
        if ((size_t)(rest.data - in.data) > EDGE_HEAD_LEN_MAX)
            return refuse(431, "the head is longer than 32 KiB", ret_why);
        if (line.len == 0 && !first) {
            status = interpret(ret, ret_why);
            *ret_len = status ? 0 : (size_t)(rest.data - in.data);
            return status;
        }
        if (line.len == 0)
            continue; /* empty lines before a request: RFC 9112, 2.2 */
        status = first ? parse_request_line(line, ret, ret_why) : parse_header(line, ret, ret_why);
        if (status)
            return status;
        first = false;
    }
    if (in.len <= EDGE_HEAD_LEN_MAX)
        return 0;
    if (first)
        return refuse(414, "the request line is longer than 32 KiB", ret_why);
    return refuse(431, "the head is longer than 32 KiB", ret_why);
}

/* ---- chunked bodies ---- */

static int digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool size_char(struct edge_chunked *c, uint8_t b)
{
    int d = c->in_extension || c->had_cr ? -1 : digit(b);

    if (d >= 0) {
        c->left = c->left << 4 | (unsigned)d;
        return ++c->n_digits <= CHUNK_DIGITS_MAX;
    }
    if (b == '\n') {
        bool ok = c->n_digits > 0 && (c->had_cr || COX_PLANTED("bare-line-feeds"));
        c->state = c->left > 0 ? EDGE_CHUNK_DATA : EDGE_CHUNK_TRAILER;
        c->n_digits = 0;
        c->in_extension = false;
        c->had_cr = false;
        c->line_len = 0;
        return ok;
    }
    if (c->had_cr)
        return false;
    c->had_cr = b == '\r';
    c->in_extension = c->in_extension || b == ';' || b == ' ' || b == '\t';
    c->extra_len += c->in_extension; /* not the line's end: any number of chunks is fine */
    return (c->had_cr || c->in_extension) && c->extra_len <= CHUNK_EXTRA_LEN_MAX;
}

/* The line end behind a chunk's data. */
static bool end_char(struct edge_chunked *c, uint8_t b)
{
    if (b == '\r' && !c->had_cr) {
        c->had_cr = true;
        return true;
    }
    bool ok = b == '\n' && c->had_cr;

    c->had_cr = false;
    c->state = EDGE_CHUNK_SIZE;
    c->left = 0;
    return ok;
}

/* Trailers are read over. */
static bool trailer_char(struct edge_chunked *c, uint8_t b)
{
    bool ok = (b == '\n') == c->had_cr;

    c->had_cr = b == '\r';
    if (b == '\n') {
        if (c->line_len == 0)
            c->state = EDGE_CHUNK_DONE;
        c->line_len = 0;
        return ok;
    }
    c->line_len += b != '\r';
    return ok && ++c->extra_len <= CHUNK_EXTRA_LEN_MAX;
}

static bool chunk_char(struct edge_chunked *c, uint8_t b)
{
    switch (c->state) {
    case EDGE_CHUNK_SIZE:
        return size_char(c, b);
    case EDGE_CHUNK_DATA_END:
        return end_char(c, b);
    case EDGE_CHUNK_TRAILER:
        return trailer_char(c, b);
    case EDGE_CHUNK_DATA:
    case EDGE_CHUNK_DONE:
        break;
    }
    return false;
}

size_t edge_parse_chunked(struct edge_chunked *c, struct cox_slice in, size_t out_max, struct cox_buf *out)
{
    size_t at = 0, n_out = 0;

    while (at < in.len && c->state != EDGE_CHUNK_DONE) {
        if (c->state != EDGE_CHUNK_DATA) {
            if (!chunk_char(c, in.data[at++]))
                return SIZE_MAX;
            continue;
        }
        size_t len = in.len - at < out_max - n_out ? in.len - at : out_max - n_out;
        if (len > c->left)
            len = (size_t)c->left;
        if (len == 0)
            break;
        cox_buf_append(out, in.data + at, len);
        at += len;
        n_out += len;
        c->left -= len;
        if (c->left == 0)
            c->state = EDGE_CHUNK_DATA_END;
    }
    return at;
}

/* ---- targets ---- */

bool edge_decode(struct cox_slice text, bool form, struct cox_buf *out)
{
    size_t start = out->len;

    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '%') {
            int high = i + 2 < text.len ? digit(text.data[i + 1]) : -1;
            int low = i + 2 < text.len ? digit(text.data[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (uint8_t)(high << 4 | low);
            i += 2;
            if (c == 0)
                return false;
        } else if (c == '+' && form) {
            c = ' ';
        }
        cox_put_u8(out, c);
    }
    return cox_utf8_ok(cox_slice(out->data + start, out->len - start));
}

static struct cox_slice take_until(struct cox_slice *in, uint8_t stop)
{
    const uint8_t *p = in->len > 0 ? memchr(in->data, stop, in->len) : NULL;
    size_t len = p ? (size_t)(p - in->data) : in->len;
    struct cox_slice head = cox_slice(in->data, len);

    len += p != NULL;
    *in = cox_slice(in->data + len, in->len - len);
    return head;
}

size_t edge_parse_query(struct cox_slice query, struct cox_buf *memory, struct edge_param *ret)
{
    size_t n = 0;

    cox_buf_clear(memory);
    cox_buf_reserve(memory, query.len + 1); /* decoding never grows: the slices stay where they are */
    while (query.len > 0) {
        struct cox_slice value = take_until(&query, '&');
        if (value.len == 0)
            continue;
        struct cox_slice name = take_until(&value, '=');
        size_t at = memory->len;
        if (n == EDGE_PARAMS_MAX || !edge_decode(name, true, memory))
            return SIZE_MAX;
        ret[n].name = cox_slice(memory->data + at, memory->len - at);
        at = memory->len;
        if (!edge_decode(value, true, memory))
            return SIZE_MAX;
        ret[n].value = cox_slice(memory->data + at, memory->len - at);
        n++;
    }
    return n;
}
