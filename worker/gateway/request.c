#include "request.h"

#include <string.h>
#include <strings.h>

#define DIGITS_MAX 18 /* of a length: more cannot be meant */

struct reading {
    struct request *to;
    bool has_key, has_encoding;
};

static struct cox_slice trim(struct cox_slice s)
{
    while (s.len > 0 && (*s.data == ' ' || *s.data == '\t'))
        s = cox_slice(s.data + 1, s.len - 1);
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool is_word(struct cox_slice s, const char *word)
{
    return s.len == strlen(word) && strncasecmp((const char *)s.data, word, s.len) == 0;
}

/* The next line, without its end; false when there is none that ends as lines do. */
static bool next_line(struct cox_slice *rest, struct cox_slice *ret)
{
    const uint8_t *end = rest->len > 0 ? memchr(rest->data, '\n', rest->len) : NULL;

    if (!end || end == rest->data || end[-1] != '\r')
        return false;
    *ret = cox_slice(rest->data, (size_t)(end - rest->data) - 1);
    *rest = cox_slice(end + 1, rest->len - ret->len - 2);
    for (size_t i = 0; i < ret->len; i++)
        if ((ret->data[i] < ' ' && ret->data[i] != '\t') || ret->data[i] == 0x7f)
            return false;
    return true;
}

static bool next_part(struct cox_slice *line, struct cox_slice *ret)
{
    const uint8_t *end = memchr(line->data, ' ', line->len);

    if (!end)
        return false;
    *ret = cox_slice(line->data, (size_t)(end - line->data));
    *line = cox_slice(end + 1, line->len - ret->len - 1);
    return ret->len > 0;
}

static int read_first(struct cox_slice line, struct request *ret)
{
    static const char *const methods[] = { "GET", "HEAD", "POST" };
    struct cox_slice method;

    if (!next_part(&line, &method) || !next_part(&line, &ret->path) || ret->path.data[0] != '/')
        return 400;
    if (!cox_slice_is(line, "HTTP/1.1") && !cox_slice_is(line, "HTTP/1.0"))
        return line.len > 5 && memcmp(line.data, "HTTP/", 5) == 0 ? 505 : 400;
    ret->is_old = cox_slice_is(line, "HTTP/1.0");
    ret->method = REQUEST_OTHER;
    for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (cox_slice_is(method, methods[i]))
            ret->method = (enum request_method)i;
    return 0;
}

static bool read_len(struct cox_slice value, struct request *ret)
{
    bool ok = !ret->has_len && value.len > 0 && value.len <= DIGITS_MAX;

    ret->has_len = true;
    for (size_t i = 0; ok && i < value.len; i++) {
        ok = value.data[i] >= '0' && value.data[i] <= '9';
        ret->len = ret->len * 10 + (uint64_t)(value.data[i] - '0');
    }
    return ok;
}

static bool read_key(struct cox_slice value, struct reading *r)
{
    static const char scheme[] = "Bearer ";
    const size_t len = sizeof(scheme) - 1;
    bool ok = !r->has_key;

    r->has_key = true;
    if (value.len > len && strncasecmp((const char *)value.data, scheme, len) == 0)
        r->to->key = trim(cox_slice(value.data + len, value.len - len));
    return ok;
}

static bool read_field(struct cox_slice line, struct reading *r)
{
    const uint8_t *colon = line.len > 0 ? memchr(line.data, ':', line.len) : NULL;
    struct cox_slice name, value;

    if (!colon || colon == line.data)
        return false;
    name = cox_slice(line.data, (size_t)(colon - line.data));
    value = trim(cox_slice(colon + 1, line.len - name.len - 1));
    if (memchr(name.data, ' ', name.len) || memchr(name.data, '\t', name.len))
        return false; /* also a line that goes on with the one before it */
    if (is_word(name, "content-length"))
        return read_len(value, r->to);
    if (is_word(name, "authorization"))
        return read_key(value, r);
    r->has_encoding |= is_word(name, "transfer-encoding");
    r->to->expects |= is_word(name, "expect") && is_word(value, "100-continue");
    return true;
}

int request_read(struct cox_slice head, struct request *ret)
{
    struct reading r = { .to = ret };
    struct cox_slice line;
    int wrong;

    *ret = (struct request){ 0 };
    if (!next_line(&head, &line))
        return 400;
    wrong = read_first(line, ret);
    if (wrong)
        return wrong;
    while (next_line(&head, &line)) {
        if (line.len == 0)
            return r.has_encoding ? (ret->has_len ? 400 : 411) : 0;
        if (!read_field(line, &r))
            return 400;
    }
    return 400;
}

static bool passes(struct cox_slice name)
{
    static const char *const names[] = {
        "accept",           "accept-encoding",     "baggage",
        "content-encoding", "content-type",        "idempotency-key",
        "openai-beta",      "session-id",          "traceparent",
        "tracestate",       "user-agent",          "x-claude-code-session-id",
        "x-request-id",     "x-client-request-id", "x-session-affinity",
        "x-session-id",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (is_word(name, names[i]))
            return true;
    return false;
}

void request_fields(struct cox_slice head, struct cox_buf *out)
{
    struct cox_slice line;

    if (!next_line(&head, &line))
        return;
    while (next_line(&head, &line) && line.len > 0) {
        const uint8_t *colon = memchr(line.data, ':', line.len);

        if (!colon || !passes(cox_slice(line.data, (size_t)(colon - line.data))))
            continue;
        cox_buf_append_slice(out, line);
        cox_buf_append_str(out, "\r\n");
    }
}
