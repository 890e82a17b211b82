/* What curl tells of a response. */
#include "upstream_call.h"

#include "cox/base/units.h"

#include <string.h>
#include <strings.h>

#define HEAD_LEN_MAX (64u << 10)
#define WHOLE_LEN_MAX ((uint64_t)64 << 20) /* of a response that is no stream */

/* The bytes of a line of the head that begins with `name`, in lower case and with its colon. */
static bool header_value(struct cox_slice line, const char *name, struct cox_slice *ret)
{
    size_t len = strlen(name);

    if (line.len < len || strncasecmp((const char *)line.data, name, len) != 0)
        return false;
    line = cox_slice(line.data + len, line.len - len);
    while (line.len > 0 && (line.data[0] == ' ' || line.data[0] == '\t'))
        line = cox_slice(line.data + 1, line.len - 1);
    while (line.len > 0 && strchr(" \t\r\n", line.data[line.len - 1]))
        line.len--;
    *ret = line;
    return true;
}

static void keep_header(struct upstream_call *c, struct cox_slice line)
{
    static const char *const names[] = { "content-type:", "retry-after:", "x-request-id:", "server:",
                                         "date:" };
    struct cox_slice *places[] = { &c->parsed.content_type, &c->parsed.retry_after, &c->parsed.request_id,
                                   &c->parsed.server, &c->parsed.date };
    struct cox_slice value;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!header_value(line, names[i], &value))
            continue;
        /* Where in `head` it is until all of the head is there: the memory may move. */
        *places[i] = cox_slice((const void *)c->head.len, value.len);
        cox_buf_append_slice(&c->head, value);
    }
}

static void tell_head(struct upstream_call *c)
{
    struct cox_slice *places[] = { &c->parsed.content_type, &c->parsed.retry_after, &c->parsed.request_id,
                                   &c->parsed.server, &c->parsed.date };
    long status = 0;

    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200) { /* an interim response: another head follows */
        cox_buf_clear(&c->head);
        c->parsed = (struct upstream_head){ 0 };
        return;
    }
    c->parsed.status = (int)status;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (places[i]->len > 0)
            places[i]->data = c->head.data + (uintptr_t)places[i]->data;
    }
    c->is_stream = c->parsed.content_type.len >= 17 &&
                   strncasecmp((const char *)c->parsed.content_type.data, "text/event-stream", 17) == 0;
    c->head_told = true;
    if (c->events->on_head)
        c->events->on_head(c->user, &c->parsed);
}

size_t upstream_on_header(char *data, size_t size, size_t n, void *user)
{
    struct upstream_call *c = user;
    size_t len = size * n;

    if (c->phase != PHASE_RUNS)
        return 0;
    if (c->head_told)
        return len; /* a trailer */
    c->head_len += len;
    if (c->head_len > HEAD_LEN_MAX) {
        c->refused = "the head of the response is longer than 64 KiB";
        return 0;
    }
    if (len <= 2 && (data[0] == '\r' || data[0] == '\n'))
        tell_head(c);
    else
        keep_header(c, cox_slice(data, len));
    return c->phase == PHASE_RUNS ? len : 0;
}

size_t upstream_on_body(char *data, size_t size, size_t n, void *user)
{
    struct upstream_call *c = user;
    size_t len = size * n;

    if (c->phase != PHASE_RUNS)
        return 0;
    c->received += len;
    if (!c->is_stream && c->received > WHOLE_LEN_MAX) {
        c->refused = "the response is longer than 64 MiB";
        return 0;
    }
    c->heard_ns = cox_clock_mono_ns();
    c->events->on_data(c->user, cox_slice(data, len));
    return c->phase == PHASE_RUNS ? len : 0;
}
