/* What an endpoint says, and what of it goes to the caller: bytes as they came, but for events that only we
 * asked for and tool calls without ids. Nothing is passed on before there is content, so that until then
 * another endpoint can be tried. */
#include "retry_after.h"
#include "router_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define STREAM_TYPE "text/event-stream"

/* ---- life ---- */

void reply_reset(struct reply *p)
{
    cox_buf_clear(&p->type);
    cox_buf_clear(&p->request_id);
    cox_buf_clear(&p->held);
    cox_buf_clear(&p->body);
    sse_fini(&p->sse);
    *p = (struct reply){
        .slow_ms = -1, .type = p->type, .request_id = p->request_id, .held = p->held, .body = p->body
    };
}

void reply_fini(struct reply *p)
{
    cox_buf_fini(&p->type);
    cox_buf_fini(&p->request_id);
    cox_buf_fini(&p->held);
    cox_buf_fini(&p->body);
    sse_fini(&p->sse);
}

/* ---- to the caller ---- */

static struct router_head head_of(const struct router_call *c)
{
    const struct reply *p = &c->reply;

    return (struct router_head){
        .status = p->status,
        .is_stream = p->is_stream,
        .content_type = cox_buf_slice(&p->type),
        .request_id = cox_buf_slice(&p->request_id),
        .model = c->model->name,
        .endpoint = c->endpoint ? c->endpoint->name : "cache",
        .waited_us = c->sent_ns ? (c->sent_ns - c->started_ns) / 1000 : 0,
        .tries = c->n_tries,
    };
}

static void pass(struct router_call *c, struct cox_slice bytes)
{
    if (c->state == CALL_OVER && !c->replays)
        return; /* cancelled by who was told */
    if (!c->head_told) {
        const struct router_head head = head_of(c);
        c->head_told = true;
        c->sink->on_head(c->user, &head);
        if (c->state == CALL_OVER && !c->replays)
            return;
    }
    c->keeps = c->keeps && c->copy.len + bytes.len <= STORED_LEN_MAX;
    if (c->keeps || c->records)
        cox_buf_append_slice(&c->copy, bytes);
    if (bytes.len > 0)
        c->sink->on_data(c->user, bytes);
}

static void tell_answer(struct router_call *c, const struct chat_answer *a)
{
    if (c->sink->on_answer && (c->state != CALL_OVER || c->replays))
        c->sink->on_answer(c->user, a);
}

/* ---- streams ---- */

static uint64_t seed_of(const struct router_call *c)
{
    return cox_hash64(c->request_id, strlen(c->request_id));
}

static void note_usage(struct reply *p, const struct chat_answer *a)
{
    if (a->usage.has)
        p->usage = a->usage;
}

static void note_error(struct reply *p, const struct chat_answer *a)
{
    size_t n = a->error_message.len < sizeof(p->said) - 1 ? a->error_message.len : sizeof(p->said) - 1;
    size_t m = a->error_code.len < sizeof(p->said_code) - 1 ? a->error_code.len : sizeof(p->said_code) - 1;

    if (n > 0)
        memcpy(p->said, a->error_message.data, n);
    p->said[n] = '\0';
    if (m > 0)
        memcpy(p->said_code, a->error_code.data, m);
    p->said_code[m] = '\0';
}

/* Content: from here on the caller has something of this try. */
static void begin(struct router_call *c)
{
    struct reply *p = &c->reply;
    int64_t now_ns = cox_clock_mono_ns();

    p->begun = true;
    if (c->upstream)
        upstream_first(c->upstream);
    placement_first_token(c->router->placement, now_ns, &c->placed);
    books_first_token(c, now_ns);
}

static void pass_run(struct router_call *c)
{
    struct reply *p = &c->reply;

    if (p->run_to > p->run_from)
        pass(c, cox_slice(p->piece.data + p->run_from, p->run_to - p->run_from));
    p->run_from = p->run_to;
}

static void pass_held(struct router_call *c)
{
    struct reply *p = &c->reply;

    if (p->held_whole > 0)
        pass(c, cox_slice(p->held.data, p->held_whole));
    cox_buf_clear(&p->held);
    p->held_whole = 0;
}

/* The event that ends at `end` of the piece: `instead` (data and a line end, or nothing) goes in its place
 * unless NULL. */
static void take_event(struct router_call *c, size_t end, const struct cox_buf *instead)
{
    struct reply *p = &c->reply;
    struct cox_slice rest = cox_slice(p->piece.data + p->event_from, end - p->event_from);

    if (p->begun && p->held.len == 0) { /* all of it is in this piece, and all before it has left, or can */
        if (!instead) {
            p->run_to = end;
        } else {
            pass_run(c);
            if (instead->len > 0)
                pass(c, cox_buf_slice(instead));
            p->run_from = p->run_to = end;
        }
    } else {
        if (instead) {
            p->held.len = p->held_whole;
            rest = cox_buf_slice(instead);
        }
        cox_buf_append_slice(&p->held, rest);
        p->held_whole = p->held.len;
        p->run_from = p->run_to = end;
        if (p->begun)
            pass_held(c);
    }
    p->event_from = end;
}

/* An error behind a status of 200. Nobody has been told of that yet while there was no content. */
static void take_error(struct router_call *c, const struct chat_answer *a, struct cox_slice json)
{
    struct reply *p = &c->reply;

    p->failed = true;
    p->failed_any = a->error_is_any;
    p->error_status = a->error_status;
    p->error_told = a->is_error;
    note_error(p, a);
    if (p->begun)
        return;
    p->status = a->error_status;
    p->is_stream = false;
    cox_buf_clear(&p->type);
    cox_buf_append_str(&p->type, "application/json");
    if (json.data == p->body.data)
        return; /* it was no stream */
    cox_buf_clear(&p->body);
    cox_buf_append_slice(&p->body, json);
}

static void count_finished(struct router_call *c, const struct chat_answer *a)
{
    struct reply *p = &c->reply;

    if (a->finish == CHAT_FINISH_NONE)
        return;
    chat_finished_add(&p->choices, &a->finished);
    p->finished =
        chat_finished_count(&p->choices) >= c->request.n_choices || COX_PLANTED("one-choice-is-all");
}

static bool on_event(void *user, struct cox_slice data, size_t end)
{
    struct router_call *c = user;
    struct reply *p = &c->reply;
    struct chat_answer a;
    struct cox_buf instead = { 0 };
    bool replaced = false;

    data = cox_json_trim(data);
    if (data.len == 0) { /* some keep connections awake so */
        take_event(c, end, NULL);
        return c->state != CALL_OVER;
    }
    if (cox_slice_is(data, "[DONE]")) {
        p->done = p->finished = true;
        take_event(c, end, NULL);
        return false; /* what comes behind it is nothing of the answer */
    }
    if (chat_answer_read(&c->router->reader, c->api, data, &a) != COX_OK) {
        p->garbage = true;
        return false;
    }
    note_usage(p, &a);
    if (a.error_status > 0) {
        take_error(c, &a, data);
        if (!p->begun)
            return false;
    }
    p->n_pieces += a.has_content;
    count_finished(c, &a);
    if (!p->begun && (a.has_content || a.finish != CHAT_FINISH_NONE))
        begin(c);
    if (p->begun)
        tell_answer(c, &a);
    if (c->asked_usage && a.usage.has && !a.has_choices && !COX_PLANTED("usage-not-asked-for")) {
        replaced = true;
    } else if (a.ids_missing) {
        replaced = true;
        cox_buf_append_str(&instead, "data: ");
        chat_answer_mend(data, seed_of(c), &instead);
        cox_buf_append_str(&instead, "\n\n");
    }
    take_event(c, end, replaced ? &instead : NULL);
    cox_buf_fini(&instead);
    return c->state != CALL_OVER;
}

static bool are_comments(struct cox_slice lines)
{
    const uint8_t *p = lines.data, *end = lines.data + lines.len;

    for (; p < end; p++) { /* line by line; the last one has to be whole */
        if (*p != ':' && *p != '\n' && *p != '\r')
            return false;
        p = *p == ':' ? memchr(p, '\n', (size_t)(end - p)) : p;
        if (!p)
            return false;
    }
    return true;
}

/* What is left of the piece begins an event, or is a comment between two, which keeps clients awake. */
static void hold_rest(struct router_call *c)
{
    struct reply *p = &c->reply;
    struct cox_slice rest = cox_slice(p->piece.data + p->event_from, p->piece.len - p->event_from);

    if (p->begun && p->held.len == 0 && rest.len > 0 && are_comments(rest))
        pass(c, rest);
    else
        cox_buf_append_slice(&p->held, rest);
    /* The events in it have their own bound; lines without data, and events without content, have none. */
    if (p->held.len > (p->begun ? SSE_EVENT_LEN_MAX : ROUTER_HELD_LEN_MAX))
        p->too_long = true;
}

static void feed(struct router_call *c, struct cox_slice piece)
{
    struct reply *p = &c->reply;

    if (p->done)
        return;
    p->piece = piece;
    p->event_from = p->run_from = p->run_to = 0;
    if (sse_feed(&p->sse, piece, on_event, c) != COX_OK)
        p->garbage = true;
    if (c->state == CALL_OVER)
        return;
    pass_run(c);
    if (c->state == CALL_OVER || p->garbage || (p->failed && !p->begun))
        return;
    if (!p->done) {
        hold_rest(c);
        return;
    }
    router_set_timer(
        c, router_sooner(c->who.deadline_ns, cox_clock_mono_ns() + ROUTER_DONE_MS * ROUTER_NS_PER_MS));
    router_turn_soon(c->router);
}

/* ---- what is no stream ---- */

void reply_read_whole(struct router_call *c)
{
    struct reply *p = &c->reply;
    struct chat_answer a = { 0 };

    if (chat_answer_read(&c->router->reader, c->api, cox_buf_slice(&p->body), &a) != COX_OK) {
        p->garbage = true;
        a.error_message = cox_buf_slice(&p->body); /* a proxy's page, perhaps */
    }
    if (p->status >= 400)
        note_error(p, &a);
    if (p->status >= 400 || p->garbage)
        return;
    if (a.error_status > 0)
        take_error(c, &a, cox_buf_slice(&p->body));
    note_usage(p, &a);
    p->n_pieces = a.text.len / 4;
}

void reply_pass_whole(struct router_call *c)
{
    struct reply *p = &c->reply;
    struct chat_answer a;
    struct cox_buf mended = { 0 };
    struct cox_slice bytes = cox_buf_slice(&p->body);

    if (!c->replays && p->status < 300) {
        int64_t now_ns = cox_clock_mono_ns();
        /* Only what generates nothing has taken no longer than its prompt. */
        if (c->api == CHAT_EMBEDDINGS || COX_PLANTED("decode-counts-as-prefill"))
            placement_first_token(c->router->placement, now_ns, &c->placed);
        books_first_token(c, now_ns);
    }
    if (p->status < 300 && chat_answer_read(&c->router->reader, c->api, bytes, &a) == COX_OK) {
        if (!c->head_told) {
            const struct router_head head = head_of(c);
            c->head_told = true;
            c->sink->on_head(c->user, &head);
        }
        tell_answer(c, &a);
        if (a.ids_missing) {
            chat_answer_mend(bytes, seed_of(c), &mended);
            bytes = cox_buf_slice(&mended);
        }
    }
    pass(c, bytes);
    cox_buf_fini(&mended);
}

static bool on_kept_event(void *user, struct cox_slice data, size_t end)
{
    struct router_call *c = user;
    struct chat_answer a;

    (void)end;
    if (chat_answer_read(&c->router->reader, c->api, data, &a) == COX_OK)
        tell_answer(c, &a);
    return true;
}

void reply_replay(struct router_call *c)
{
    if (!c->reply.is_stream) {
        reply_pass_whole(c);
        return;
    }
    const struct router_head head = head_of(c);

    c->head_told = true;
    c->sink->on_head(c->user, &head);
    if (sse_feed(&c->reply.sse, cox_buf_slice(&c->reply.body), on_kept_event, c))
        return; /* it was read when it was kept */
    pass(c, cox_buf_slice(&c->reply.body));
}

static bool says(const char *text, const char *words)
{
    return strcasestr(text, words) != NULL;
}

/* OpenAI's code, and the sentences of vLLM, SGLang, llama.cpp and TGI. */
bool reply_is_context_length(const struct router_call *c)
{
    const struct reply *p = &c->reply;
    int status = p->failed ? p->error_status : p->status;

    if (status != 400 && status != 413 && status != 422)
        return false;
    return says(p->said_code, "context_length") || says(p->said, "maximum context length") ||
           says(p->said, "context length") || says(p->said, "longer than the model") ||
           says(p->said, "maximum model length") || says(p->said, "exceeds the available context size") ||
           says(p->said, "prompt is too long") || says(p->said, "input token count") ||
           says(p->said, "inputs tokens + max_new_tokens") || says(p->said, "`inputs` must have less than");
}

/* ---- from upstream ---- */

static void on_head(void *user, const struct upstream_head *head)
{
    struct router_call *c = user;
    struct reply *p = &c->reply;

    p->has_head = true;
    p->status = head->status;
    p->slow_ms = retry_after_ms(head->retry_after, head->date, cox_clock_wall_ms());
    cox_buf_append_slice(&p->type, head->content_type);
    cox_buf_append_slice(&p->request_id, head->request_id);
    p->is_stream = head->status == 200 && head->content_type.len >= strlen(STREAM_TYPE) &&
                   strncasecmp((const char *)head->content_type.data, STREAM_TYPE, strlen(STREAM_TYPE)) == 0;
    if (head->status == 200 && c->n_unknown > 0)
        unknown_prove(c);
}

static void take_whole(struct router_call *c, struct cox_slice piece)
{
    struct reply *p = &c->reply;
    size_t len_max = p->status >= 400 ? ROUTER_ERROR_LEN_MAX : ROUTER_ANSWER_LEN_MAX;

    if (p->body.len == 0 && c->upstream)
        upstream_first(c->upstream);
    if (p->body.len + piece.len > len_max)
        p->too_long = true;
    else
        cox_buf_append_slice(&p->body, piece);
}

static void on_data(void *user, struct cox_slice piece)
{
    struct router_call *c = user;
    struct reply *p = &c->reply;

    if (p->is_stream)
        feed(c, piece);
    else
        take_whole(c, piece);
    if (c->state == CALL_OVER || !(p->garbage || p->too_long || (p->failed && !p->begun)))
        return;
    upstream_cancel(c->upstream);
    if (p->failed && !p->begun)
        call_try_ended(c, UPSTREAM_OK, NULL);
    else
        call_try_ended(c, UPSTREAM_PROTOCOL, "its answer cannot be read");
}

static void on_end(void *user, enum upstream_end end, const char *message)
{
    struct router_call *c = user;

    c->upstream = NULL;
    if (c->reply.done)
        end = UPSTREAM_OK; /* whatever the connection did after the last word */
    call_try_ended(c, end, message);
}

const struct upstream_events reply_events = { on_head, on_data, on_end };
