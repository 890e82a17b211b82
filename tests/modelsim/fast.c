/* --fast: no engine, no reading of requests, answers made beforehand. For measuring what stands in front of
 * it. */
#include "sim.h"

#include <string.h>

#define EVENT_TEXT                                                                                           \
    "data: "                                                                                                 \
    "{\"id\":\"chatcmpl-sim-fast\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"sim\","    \
    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"kalo\"},\"logprobs\":null,\"finish_reason\":null}]}" \
    "\n\n"

static void put_chunk(struct cox_buf *out, const char *text)
{
    cox_buf_printf(out, "%zx\r\n%s\r\n", strlen(text), text);
}

void fast_prepare(struct sim *s)
{
    uint64_t n = s->options.fast_events;
    struct cox_buf body = { 0 };

    cox_buf_printf(&body,
                   "{\"id\":\"chatcmpl-sim-fast\",\"object\":\"chat.completion\",\"created\":1,\"model\":"
                   "\"sim\",\"choices\":[{"
                   "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"kalo\"},\"logprobs\":null,"
                   "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":16,\"total_tokens\":%llu,"
                   "\"completion_tokens\":%llu,\"prompt_tokens_details\":{\"cached_tokens\":0}}}",
                   (unsigned long long)n + 16, (unsigned long long)n);
    http_put_answer(&s->fast_whole, SIM_IDENTITY, 200, "application/json", "", cox_buf_slice(&body));
    cox_buf_fini(&body);
    cox_buf_append_str(&s->fast_head,
                       "HTTP/1.1 200 OK\r\nServer: " SIM_IDENTITY
                       "\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: "
                       "chunked\r\nCache-Control: no-cache\r\n\r\n");
    put_chunk(
        &s->fast_tail,
        "data: "
        "{\"id\":\"chatcmpl-sim-fast\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"sim\","
        "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
    cox_buf_printf(
        &body,
        "data: "
        "{\"id\":\"chatcmpl-sim-fast\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"sim\","
        "\"choices\":[],\"usage\":{\"prompt_tokens\":16,\"total_tokens\":%llu,\"completion_tokens\":%llu}}"
        "\n\n",
        (unsigned long long)n + 16, (unsigned long long)n);
    put_chunk(&s->fast_tail, cox_buf_cstr(&body));
    cox_buf_fini(&body);
    put_chunk(&s->fast_tail, "data: [DONE]\n\n");
    cox_buf_append_str(&s->fast_tail, "0\r\n\r\n");
    cox_buf_append_slice(&s->fast_stream, cox_buf_slice(&s->fast_head));
    for (uint64_t i = 0; i < n; i++)
        put_chunk(&s->fast_stream, EVENT_TEXT);
    cox_buf_append_slice(&s->fast_stream, cox_buf_slice(&s->fast_tail));
}

static bool wants_stream(struct cox_slice body)
{
    const uint8_t *p = body.data, *end = body.data + body.len;

    while (p && p < end && (p = memmem(p, (size_t)(end - p), "\"stream\"", 8))) {
        p += 8;
        while (p < end && (*p == ' ' || *p == ':'))
            p++;
        if (end - p >= 4 && memcmp(p, "true", 4) == 0)
            return true;
    }
    return false;
}

void fast_request(struct sim *s, struct http_conn *c, const struct http_request *q)
{
    s->counts.calls++;
    s->counts.answered++;
    if (!wants_stream(q->body)) {
        http_answer_raw(c, cox_buf_slice(&s->fast_whole));
    } else if (s->options.events_coalesced) {
        http_answer_raw(c, cox_buf_slice(&s->fast_stream));
    } else {
        http_put_raw(c, cox_buf_slice(&s->fast_head));
        for (uint64_t i = 0; i < s->options.fast_events; i++) {
            http_put(c, cox_slice(EVENT_TEXT, sizeof(EVENT_TEXT) - 1));
            http_flush(c);
        }
        http_answer_raw(c, cox_buf_slice(&s->fast_tail));
    }
}
