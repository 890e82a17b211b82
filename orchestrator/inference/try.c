/* One try of a call: sent to an endpoint, judged by what became of it, and what comes next. */
#include "router_internal.h"

#include "cox/base/log.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <stdio.h>
#include <string.h>

#define BACKOFF_MS 50 /* the second try waits up to this, the third twice as long */
#define BACKOFF_MS_MAX 2000
#define SLOW_MS 1000 /* 429 without Retry-After */
#define DENIED_SAID_EACH_NS (10 * INT64_C(1000000000))

/* ---- a try ---- */

static void put_headers(struct router_call *c, const char *ret[ROUTER_HEADERS_MAX + 1], char id[160])
{
    for (size_t i = 0; i < c->n_headers; i++)
        ret[i] = c->headers[i];
    snprintf(id, 160, "x-request-id: %s", c->request_id);
    ret[c->n_headers] = id;
}

/* The name that the endpoint knows; NULL: the one that the client said. */
static const char *upstream_name(const struct router_call *c)
{
    if (c->endpoint->upstream_model)
        return c->endpoint->upstream_model;
    return cox_slice_is(c->request.model, c->model->name) ? NULL : c->model->name;
}

void call_dispatch(struct router_call *c)
{
    struct router *r = c->router;
    const char *headers[ROUTER_HEADERS_MAX + 1];
    char id[160];
    struct upstream_timeouts timeouts = r->config.timeouts;

    c->state = CALL_SENT;
    c->sent_ns = cox_clock_mono_ns();
    c->endpoint = r->by_place[c->placed.endpoint];
    endpoint_ref(c->endpoint);
    c->pool->in_flight++;
    c->n_tries++;
    c->n_model_tries++;
    c->books.tries++;
    reply_reset(&c->reply);
    router_set_timer(c, c->who.deadline_ns);
    cox_buf_clear(&c->rewritten);
    c->asked_usage = c->request.stream && !c->request.include_usage && c->api != CHAT_EMBEDDINGS &&
                     !c->asks_nothing && !c->endpoint->no_usage_option;
    size_t n = chat_request_rewrite(&c->request, cox_buf_slice(&c->body), upstream_name(c), c->asked_usage,
                                    &c->rewritten, c->pieces);

    put_headers(c, headers, id);
    timeouts.first_ms = books_first_ms(c);
    c->upstream =
        upstream_start(r->upstream, &(struct upstream_request){ .target = &c->endpoint->targets[c->api],
                                                                .method = "POST",
                                                                .body = c->pieces,
                                                                .n_body = n,
                                                                .headers = headers,
                                                                .n_headers = c->n_headers + 1,
                                                                .timeouts = timeouts,
                                                                .events = &reply_events,
                                                                .user = c });
    if (c->paused)
        upstream_pause(c->upstream, true);
}

static void release(struct router_call *c, bool answered)
{
    const struct chat_usage *usage = &c->reply.usage;
    const struct placement_outcome outcome = {
        .answered = answered || c->reply.begun,
        .input_tokens = (uint32_t)(usage->has ? usage->input_tokens : 0),
        .cached_tokens = usage->has ? usage->cached_tokens : -1,
        .output_tokens = (uint32_t)(usage->has ? usage->output_tokens : c->reply.n_pieces),
    };

    placement_done(c->router->placement, cox_clock_mono_ns(), &c->placed, &outcome);
    c->pool->in_flight--;
    endpoint_unref(c->endpoint);
    c->endpoint = NULL;
}

static void avoid(struct router_call *c, const struct endpoint *e)
{
    struct placement_call *p = &c->placed;

    p->avoid[p->n_avoid < 4 ? p->n_avoid++ : c->n_tries % 4] = e->place;
}

/* ---- what comes after a try ---- */

/* All that the caller waits for has been said, though the stream may have gone on. */
static bool said_all(const struct reply *p)
{
    return p->begun && p->finished && !p->failed && !p->garbage;
}

/* The endpoint is not to blame when others answer the same request with the same fault; true: so it is. */
static bool suspect(struct router_call *c)
{
    if (!c->suspect) {
        endpoint_ref(c->endpoint);
        c->suspect = c->endpoint;
        return false;
    }
    if (c->suspect == c->endpoint) {
        health_tell(c->router->health, c->endpoint, HEALTH_BAD, 0);
        return false;
    }
    endpoint_unref(c->suspect);
    c->suspect = NULL;
    return true;
}

static void clear_suspect(struct router_call *c)
{
    if (!c->suspect)
        return;
    if (c->suspect != c->endpoint)
        health_tell(c->router->health, c->suspect, HEALTH_BAD, 0);
    endpoint_unref(c->suspect);
    c->suspect = NULL;
}

static void count_answer(struct router_call *c)
{
    if (c->asks_nothing && c->endpoint->place == c->asks_nothing_of)
        c->endpoint->no_usage_option = true;
    health_tell(c->router->health, c->endpoint, HEALTH_GOOD, 0);
    clear_suspect(c);
    books_charge(c);
}

static void answered(struct router_call *c)
{
    count_answer(c);
    if (!c->reply.is_stream)
        reply_pass_whole(c);
    if (c->state == CALL_OVER)
        return; /* cancelled by who was told */
    release(c, true);
    call_end(c, ROUTER_ANSWERED);
}

bool call_drop_try(struct router_call *c)
{
    bool all = said_all(&c->reply) && !COX_PLANTED("left-is-lost");

    if (c->upstream)
        upstream_cancel(c->upstream);
    c->upstream = NULL;
    if (all)
        count_answer(c);
    else
        books_waste(c, c->reply.begun);
    release(c, all);
    return all;
}

/* Who begins a stream, and says so there, does know it. */
static bool is_unknown(const struct router_call *c)
{
    return !c->reply.failed && (c->reply.status == 404 || c->reply.status == 405);
}

/* The request is to blame. As the endpoint says it. */
static void refused_by_endpoint(struct router_call *c)
{
    bool context = reply_is_context_length(c);
    const struct router_error error = { .http_status = c->reply.status,
                                        .code = context ? COX_CODE_CONTEXT_LENGTH : COX_CODE_MODEL_ERROR,
                                        .type = "invalid_request_error",
                                        .api_code = context ? "context_length_exceeded" : NULL };

    call_set_error(c, &error, "the model %s answered %d: %s", c->model->name, c->reply.status, c->reply.said);
    if (!is_unknown(c))
        health_tell(c->router->health, c->endpoint, HEALTH_GOOD, 0);
    reply_pass_whole(c);
    if (c->state == CALL_OVER)
        return;
    release(c, false);
    call_end(c, ROUTER_ANSWERED);
}

/* Of an error behind content: the endpoint's own faults are what it does not blame on the request. */
static bool is_own_fault(const struct reply *p)
{
    int status = p->failed ? p->error_status : 500;

    return status >= 500 || status == 401 || status == 403 || status == 408 || status == 429 || p->failed_any;
}

static void broken(struct router_call *c, const char *why)
{
    const struct reply *p = &c->reply;
    bool own =
        (is_own_fault(p) && !reply_is_context_length(c)) || COX_PLANTED("errors-in-streams-are-endpoints");
    bool secret = p->failed && (p->error_status == 401 || p->error_status == 403);
    const struct router_error error = {
        .http_status = own ? 502 : p->error_status,
        .code = own                          ? COX_CODE_UNAVAILABLE
                : reply_is_context_length(c) ? COX_CODE_CONTEXT_LENGTH
                                             : COX_CODE_MODEL_ERROR,
        .retryable = own,
        .type = own ? "server_error" : "invalid_request_error",
        .api_code = "stream_broken",
        .told = p->error_told,
    };

    call_set_error(c, &error, "the endpoint %s of the model %s broke off: %s", c->endpoint->name,
                   c->model->name, p->said[0] && !secret ? p->said : why);
    health_tell(c->router->health, c->endpoint, own ? HEALTH_BAD : HEALTH_GOOD, 0);
    books_waste(c, true);
    release(c, true);
    call_end(c, ROUTER_BROKEN);
}

static void try_again(struct router_call *c, int64_t after_ms)
{
    c->pool->stats.n_retries++;
    if (after_ms <= 0) {
        call_queue(c);
        return;
    }
    int64_t at_ns = cox_clock_mono_ns() + after_ms * ROUTER_NS_PER_MS;

    c->state = CALL_BACKOFF;
    router_set_timer(c, router_sooner(at_ns, c->who.deadline_ns));
}

/* Full jitter: whoever failed together is not to come back together. */
int64_t call_backoff_ms(struct cox_rng *rng, uint32_t n_tries)
{
    int64_t ms = (int64_t)BACKOFF_MS << (n_tries > 7 ? 6 : n_tries - 1);

    return 1 + (int64_t)cox_rng_below(rng, (uint64_t)router_sooner(ms, BACKOFF_MS_MAX));
}

/* Of the model's endpoints, beside the one that this call was sent to, which may be closed by now. */
static bool others_are_open(const struct router_call *c)
{
    return c->pool->n_open > (c->endpoint->owner_data != NULL);
}

static void slowed_down(struct router_call *c)
{
    int64_t ms = c->reply.slow_ms >= 0 ? c->reply.slow_ms : SLOW_MS;
    const struct router_error error = { .http_status = c->reply.status,
                                        .code = COX_CODE_RESOURCE_EXHAUSTED,
                                        .retryable = true,
                                        .retry_ms = ms,
                                        .type = "rate_limit_error",
                                        .api_code = "rate_limit_exceeded" };

    health_tell(c->router->health, c->endpoint, HEALTH_SLOW_DOWN, ms);
    bool others = others_are_open(c);

    call_set_error(c, &error, "the model %s answered %d: %s", c->model->name, c->reply.status, c->reply.said);
    avoid(c, c->endpoint);
    release(c, false);
    c->n_model_tries--; /* nothing was tried: it said that it has no room */
    if (++c->n_slowed <= ROUTER_SLOWED_MAX && (others || ms <= ROUTER_SLOW_DOWN_MS_MAX)) {
        try_again(c, others ? 0 : ms);
        return;
    }
    if (call_next_model(c))
        call_queue(c);
    else
        call_end(c, ROUTER_FAILED);
}

/* 401 and 403: it is our key that it refuses, and nobody else's business what it says of it. A 403 may also
 * be for what a request asks, so that it takes two endpoints' word, or more of them. */
static void denied(struct router_call *c)
{
    const struct router_error error = { .http_status = 502,
                                        .code = COX_CODE_UNAVAILABLE,
                                        .retryable = true,
                                        .type = "server_error",
                                        .api_code = "upstream_denied" };
    bool all = false, of_key = c->reply.status == 401;
    int64_t now_ns = cox_clock_mono_ns();

    if (of_key)
        health_tell(c->router->health, c->endpoint, HEALTH_DENIED, 0);
    bool others = others_are_open(c);

    if (!of_key && (others || c->suspect))
        all = suspect(c);
    else if (!of_key)
        health_tell(c->router->health, c->endpoint, HEALTH_BAD, 0);
    if (now_ns >= c->pool->denied_said_ns + DENIED_SAID_EACH_NS || c->pool->denied_said_ns == 0) {
        cox_log(COX_LOG_ERROR, "an endpoint refuses the key that it is called with", "model", c->model->name,
                "endpoint", c->endpoint->name, "status", COX_LOG_NUM(c->reply.status), NULL);
        c->pool->denied_said_ns = now_ns;
    }
    call_set_error(c, &error,
                   "the model %s cannot be used: its endpoint %s refuses the key that it is configured with",
                   c->model->name, c->endpoint->name);
    avoid(c, c->endpoint);
    release(c, false);
    c->n_model_tries--;
    if (others && !all && ++c->n_slowed <= ROUTER_SLOWED_MAX)
        try_again(c, 0);
    else if (call_next_model(c))
        call_queue(c);
    else
        call_end(c, ROUTER_FAILED);
}

/* Some servers refuse what they do not know, and we ask for the usage of streams whose clients do not. */
static bool refuses_our_option(const struct router_call *c)
{
    static const char name[] = "stream_options";
    const struct reply *p = &c->reply;

    return (p->status == 400 || p->status == 422) && c->asked_usage &&
           c->request.stream_options_span.len == 0 && p->body.len > 0 &&
           memmem(p->body.data, p->body.len, name, strlen(name)) != NULL;
}

static void go_without_option(struct router_call *c)
{
    c->asks_nothing = true;
    c->asks_nothing_of = c->endpoint->place;
    release(c, false);
    c->n_model_tries--;
    try_again(c, 0);
}

static void failed(struct router_call *c, enum upstream_end end, const char *why)
{
    const struct reply *p = &c->reply;
    bool refused = p->status >= 400 && end == UPSTREAM_OK;
    bool unseen = end == UPSTREAM_CONNECT || end == UPSTREAM_CONNECT_TIMEOUT;
    bool late =
        end == UPSTREAM_FIRST_TIMEOUT || end == UPSTREAM_STALL_TIMEOUT || end == UPSTREAM_TOTAL_TIMEOUT;
    bool all = false;
    const struct router_error error = { .http_status = late ? 504 : 502,
                                        .code = refused ? COX_CODE_MODEL_ERROR : COX_CODE_UNAVAILABLE,
                                        .retryable = true,
                                        .type = "server_error",
                                        .api_code = late ? "upstream_timeout" : "upstream_error" };

    if (refused && (p->status == 500 || p->failed_any))
        all = suspect(c);
    else
        health_tell(c->router->health, c->endpoint, HEALTH_BAD, 0);
    if (!unseen && (!refused || p->failed))
        books_waste(c, false);
    if (all && p->failed_any) {
        refused_by_endpoint(c);
        return;
    }
    if (refused)
        call_set_error(c, &error, "the endpoint %s of the model %s answered %d: %s", c->endpoint->name,
                       c->model->name, p->status, p->said);
    else
        call_set_error(c, &error, "the endpoint %s of the model %s failed: %s", c->endpoint->name,
                       c->model->name, p->said[0] ? p->said : why);
    bool others = others_are_open(c);

    avoid(c, c->endpoint);
    release(c, false);
    if (unseen && others && ++c->n_slowed <= ROUTER_SLOWED_MAX) {
        c->n_model_tries--; /* nothing of it was seen, and somebody else is there */
        try_again(c, 0);
    } else if (!all && c->n_model_tries < ROUTER_TRIES_MAX && router_may_retry(c->router)) {
        try_again(c, call_backoff_ms(&c->router->rng, c->n_model_tries));
    } else if (call_next_model(c)) {
        call_queue(c);
    } else {
        call_end(c, ROUTER_FAILED);
    }
}

/* Whoever else might know it is asked, at no cost: nothing was done. */
static void not_known(struct router_call *c)
{
    bool is_new = unknown_add(c);

    if (unknown_to_others(c) || c->n_slowed >= ROUTER_SLOWED_MAX) {
        refused_by_endpoint(c);
        return;
    }
    if (is_new)
        avoid(c, c->endpoint);
    release(c, false);
    c->n_model_tries--;
    c->n_slowed++;
    try_again(c, is_new ? 0 : SLOW_MS); /* the others are full */
}

static bool is_refusal(const struct router_call *c)
{
    const struct reply *p = &c->reply;

    return p->status >= 400 && p->status < 500 && p->status != 408 &&
           (!p->failed_any || reply_is_context_length(c));
}

/* An answer, or a status, that is whole. */
static void judge(struct router_call *c, const char *why)
{
    const struct reply *p = &c->reply;

    if (p->status == 429 || (p->status == 503 && p->slow_ms >= 0))
        slowed_down(c);
    else if ((p->status == 401 || p->status == 403) && !COX_PLANTED("key-is-told"))
        denied(c);
    else if (refuses_our_option(c))
        go_without_option(c);
    else if (is_unknown(c) && !COX_PLANTED("unknown-is-passed-on"))
        not_known(c);
    else if (is_refusal(c))
        refused_by_endpoint(c);
    else if (p->status >= 200 && p->status < 300 && !p->is_stream && !p->garbage)
        answered(c);
    else
        failed(c, UPSTREAM_OK, why);
}

void call_try_ended(struct router_call *c, enum upstream_end end, const char *message)
{
    struct reply *p = &c->reply;
    const char *why = message && message[0] ? message : upstream_end_text(end);
    bool whole = end == UPSTREAM_OK && !p->too_long;

    c->upstream = NULL;
    if (whole && !p->is_stream)
        reply_read_whole(c);
    if (said_all(p))
        answered(c);
    else if (p->begun && !COX_PLANTED("retry-after-content"))
        broken(c, p->garbage  ? "it said what cannot be read"
                  : p->failed ? "an error"
                  : whole     ? "no end"
                              : why);
    else if (!whole)
        failed(c, end == UPSTREAM_OK ? UPSTREAM_PROTOCOL : end, p->too_long ? "its answer is too long" : why);
    else
        judge(c, p->garbage ? "its answer cannot be read" : "its answer ended before it began");
    router_pump(c->router);
}
