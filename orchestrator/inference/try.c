/* One try of a call: sent to an endpoint, judged by what became of it, and what comes next. */
#include "router_internal.h"

#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <stdio.h>
#include <string.h>

#define BACKOFF_MS 50 /* the second try waits up to this, the third twice as long */
#define BACKOFF_MS_MAX 2000
#define SLOW_MS 1000 /* 429 without Retry-After */

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
    c->asked_usage = c->request.stream && !c->request.include_usage && c->api != CHAT_EMBEDDINGS;
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

void call_release(struct router_call *c, bool answered)
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

/* The endpoint is not to blame when others answer the same request with a 500 too. */
static void tell_health_of_500(struct router_call *c)
{
    struct health *h = c->router->health;

    if (!c->suspect) {
        endpoint_ref(c->endpoint);
        c->suspect = c->endpoint;
        return;
    }
    if (c->suspect == c->endpoint) {
        health_tell(h, c->endpoint, HEALTH_BAD, 0);
        return;
    }
    endpoint_unref(c->suspect);
    c->suspect = NULL;
    c->n_model_tries = ROUTER_TRIES_MAX;
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

static void answered(struct router_call *c)
{
    health_tell(c->router->health, c->endpoint, HEALTH_GOOD, 0);
    clear_suspect(c);
    books_charge(c);
    if (!c->reply.is_stream)
        reply_pass_whole(c);
    if (c->state == CALL_OVER)
        return; /* cancelled by who was told */
    call_release(c, true);
    call_end(c, ROUTER_ANSWERED);
}

/* 4xx: the request is to blame. As the endpoint says it. */
static void refused_by_endpoint(struct router_call *c)
{
    bool context = reply_is_context_length(c);
    const struct router_error error = { .http_status = c->reply.status,
                                        .code = context ? COX_CODE_CONTEXT_LENGTH : COX_CODE_MODEL_ERROR,
                                        .type = "invalid_request_error",
                                        .api_code = context ? "context_length_exceeded" : NULL };

    call_set_error(c, &error, "the model %s answered %d: %s", c->model->name, c->reply.status, c->reply.said);
    health_tell(c->router->health, c->endpoint, HEALTH_GOOD, 0);
    reply_pass_whole(c);
    if (c->state == CALL_OVER)
        return;
    call_release(c, false);
    call_end(c, ROUTER_ANSWERED);
}

static void broken(struct router_call *c, const char *why)
{
    const struct router_error error = { .http_status = 502,
                                        .code = COX_CODE_UNAVAILABLE,
                                        .retryable = true,
                                        .type = "server_error",
                                        .api_code = "stream_broken",
                                        .told = c->reply.failed };

    call_set_error(c, &error, "the endpoint %s of the model %s broke off: %s", c->endpoint->name,
                   c->model->name, c->reply.said[0] ? c->reply.said : why);
    health_tell(c->router->health, c->endpoint, HEALTH_BAD, 0);
    books_waste(c, true);
    call_release(c, true);
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
static int64_t backoff_ms(struct router_call *c)
{
    int64_t ms = (int64_t)BACKOFF_MS << (c->n_model_tries > 6 ? 6 : c->n_model_tries);

    return 1 + (int64_t)cox_rng_below(&c->router->rng, (uint64_t)router_sooner(ms, BACKOFF_MS_MAX));
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
    call_release(c, false);
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

static void failed(struct router_call *c, enum upstream_end end, const char *why)
{
    bool refused = c->reply.status >= 400 && end == UPSTREAM_OK;
    bool unseen = end == UPSTREAM_CONNECT || end == UPSTREAM_CONNECT_TIMEOUT;
    bool late =
        end == UPSTREAM_FIRST_TIMEOUT || end == UPSTREAM_STALL_TIMEOUT || end == UPSTREAM_TOTAL_TIMEOUT;
    const struct router_error error = { .http_status = late ? 504 : 502,
                                        .code = refused ? COX_CODE_MODEL_ERROR : COX_CODE_UNAVAILABLE,
                                        .retryable = true,
                                        .type = "server_error",
                                        .api_code = late ? "upstream_timeout" : "upstream_error" };

    if (refused && c->reply.status == 500)
        tell_health_of_500(c);
    else
        health_tell(c->router->health, c->endpoint, HEALTH_BAD, 0);
    if (refused)
        call_set_error(c, &error, "the endpoint %s of the model %s answered %d: %s", c->endpoint->name,
                       c->model->name, c->reply.status, c->reply.said);
    else
        call_set_error(c, &error, "the endpoint %s of the model %s failed: %s", c->endpoint->name,
                       c->model->name, c->reply.said[0] ? c->reply.said : why);
    if (!unseen && !refused)
        books_waste(c, false);
    bool others = others_are_open(c);

    avoid(c, c->endpoint);
    call_release(c, false);
    if (unseen && others && ++c->n_slowed <= ROUTER_SLOWED_MAX) {
        c->n_model_tries--; /* nothing of it was seen, and somebody else is there */
        try_again(c, 0);
    } else if (c->n_model_tries < ROUTER_TRIES_MAX && router_may_retry(c->router)) {
        try_again(c, backoff_ms(c));
    } else if (call_next_model(c)) {
        call_queue(c);
    } else {
        call_end(c, ROUTER_FAILED);
    }
}

void call_try_ended(struct router_call *c, enum upstream_end end, const char *message)
{
    struct reply *p = &c->reply;
    const char *why = message && message[0] ? message : upstream_end_text(end);
    bool whole = end == UPSTREAM_OK && !p->too_long;

    c->upstream = NULL;
    if (whole && !p->is_stream)
        reply_read_whole(c);
    if (p->begun && !p->failed && !p->garbage && p->finished)
        answered(c);
    else if (p->begun && !COX_PLANTED("retry-after-content"))
        broken(c, p->garbage  ? "it said what cannot be read"
                  : p->failed ? "an error"
                  : whole     ? "no end"
                              : why);
    else if (!whole)
        failed(c, end == UPSTREAM_OK ? UPSTREAM_PROTOCOL : end, p->too_long ? "its answer is too long" : why);
    else if (p->status == 429 || (p->status == 503 && p->slow_ms >= 0))
        slowed_down(c);
    else if (p->status >= 400 && p->status < 500 && p->status != 408 && p->status != 401 && p->status != 403)
        refused_by_endpoint(c);
    else if (p->status >= 200 && p->status < 300 && !p->is_stream && !p->garbage)
        answered(c);
    else
        failed(c, end, p->garbage ? "its answer cannot be read" : "its answer ended before it began");
    router_pump(c->router);
}
