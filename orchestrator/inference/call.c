/* A call on its way: read, queued, ended. What an endpoint makes of it is in try.c. */
#include "router_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define GROUP_LEN_MAX 255u

/* ---- ends ---- */

void call_end(struct router_call *c, enum router_end end)
{
    c->end = end;
    c->state = CALL_OVER;
    router_set_timer(c, INT64_MAX);
    cox_list_remove(&c->node);
    cox_list_push_back(&c->router->over, &c->node);
    router_turn_soon(c->router);
}

void call_set_error(struct router_call *c, const struct router_error *error, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    cox_buf_clear(&c->message);
    cox_buf_append_str(&c->message, text);
    c->error = *error;
}

static void drop_pool(struct router_call *c)
{
    struct pool *pool = c->pool;

    if (!pool)
        return;
    c->pool = NULL;
    pool->n_calls--;
    router_free_pool_if_over(c->router, pool);
}

void call_tell_end(struct router_call *c)
{
    struct router *r = c->router;

    if (c->replays)
        reply_replay(c);
    cox_list_remove(&c->node);
    books_close(c);
    c->error.message = cox_buf_cstr(&c->message);
    c->sink->on_end(c->user, c->end, c->error.http_status ? &c->error : NULL, &c->books);
    r->n_calls--;
    if (c->program)
        programs_release(&r->programs, c->program);
    drop_pool(c);
    if (c->model)
        model_unref(c->model);
    if (c->asked)
        model_unref(c->asked);
    if (c->suspect)
        endpoint_unref(c->suspect);
    unknown_forget(c);
    for (size_t i = 0; i < c->n_headers; i++)
        cox_free(c->headers[i]);
    reply_fini(&c->reply);
    cox_buf_fini(&c->texts);
    cox_buf_fini(&c->body);
    cox_buf_fini(&c->rewritten);
    cox_buf_fini(&c->copy);
    cox_buf_fini(&c->message);
    cox_free(c->request_id);
    cox_free(c->model_said);
    cox_free(c->blocks);
    cox_free(c);
}

/* ---- which model ---- */

static void take_pool(struct router_call *c, struct model *m)
{
    drop_pool(c);
    if (c->model)
        model_unref(c->model);
    model_ref(m);
    c->model = m;
    c->pool = m->owner_data;
    c->pool->n_calls++;
    c->n_slowed = 0;
    c->n_model_tries = 0;
}

bool call_next_model(struct router_call *c)
{
    while (c->next_fallback < c->asked->n_fallbacks) {
        struct model *m =
            catalogue_find(c->router->catalogue, cox_slice_str(c->asked->fallbacks[c->next_fallback++]));
        if (!m || !m->owner_data || m == c->model)
            continue;
        if (c->pool)
            c->pool->stats.n_fallbacks++;
        take_pool(c, m);
        c->placed.n_avoid = 0;
        return true;
    }
    return false;
}

/* ---- the queue ---- */

static void fail_for_room(struct router_call *c, enum cox_err err, int64_t retry_ms)
{
    const struct router_error full = { .http_status = 429,
                                       .code = COX_CODE_RESOURCE_EXHAUSTED,
                                       .retryable = true,
                                       .retry_ms = retry_ms > 0 ? retry_ms : 1000,
                                       .type = "rate_limit_error",
                                       .api_code = "insufficient_capacity" };
    const struct router_error none = { .http_status = 503,
                                       .code = COX_CODE_UNAVAILABLE,
                                       .retryable = true,
                                       .retry_ms = 1000,
                                       .type = "server_error",
                                       .api_code = "no_endpoint" };

    if (call_next_model(c)) {
        call_queue(c);
        return;
    }
    if (err == COX_ERR_FULL)
        call_set_error(c, &full, "too many calls wait for the model %s", c->model->name);
    else
        call_set_error(c, &none, "no endpoint of the model %s can be used now", c->model->name);
    call_end(c, c->n_tries > 0 ? ROUTER_FAILED : ROUTER_REFUSED);
}

static void fail_gone(struct router_call *c)
{
    if (call_next_model(c)) {
        call_queue(c);
        return;
    }
    call_set_error(c,
                   &(struct router_error){ .http_status = 404,
                                           .code = COX_CODE_INPUT_INVALID,
                                           .type = "invalid_request_error",
                                           .param = "model",
                                           .api_code = "model_not_found" },
                   "the model %s has been taken out of service", c->asked->name);
    call_end(c, ROUTER_REFUSED);
}

static void arm_queued(struct router_call *c, int64_t now_ns)
{
    int64_t late_ns = c->queued_ns + ROUTER_WAIT_MS * ROUTER_NS_PER_MS;
    int64_t closed_ns = c->queued_ns + ROUTER_WAIT_CLOSED_MS * ROUTER_NS_PER_MS;

    router_set_timer(c, router_sooner(c->who.deadline_ns, now_ns < closed_ns ? closed_ns : late_ns));
}

#define CONTEXT_TOKENS_MAX 131072u /* where the model does not say how much it takes */

/* An image is bytes, and few tokens. What is taken for more than an endpoint has room for would wait until
 * one is empty, and all others behind it. */
static uint32_t placed_tokens(const struct router_call *c)
{
    uint64_t most = c->model->context_tokens > 0 ? c->model->context_tokens : CONTEXT_TOKENS_MAX;
    uint32_t tokens = books_estimate_input(c);

    return tokens < most ? tokens : (uint32_t)most;
}

void call_queue(struct router_call *c)
{
    struct router *r = c->router;
    int64_t now_ns = cox_clock_mono_ns(), retry_ms = 0;

    if (!c->pool->model) {
        fail_gone(c);
        return;
    }
    struct placement_call placed = {
        .pool = c->pool->id,
        .band = c->who.band,
        .tenant = cox_hash64(c->who.tenant.data, c->who.tenant.len) | 1,
        .program = c->program ? c->program->number : 0,
        .blocks = c->blocks,
        .n_blocks = c->placed.n_blocks,
        .input_tokens = placed_tokens(c),
        .output_tokens = c->request.max_tokens < 256 ? (uint32_t)c->request.max_tokens : 0,
        .deadline_ns = c->who.deadline_ns,
        .critical_path_ns = c->who.critical_path_ms * ROUTER_NS_PER_MS,
        .n_avoid = c->placed.n_avoid,
    };

    memcpy(placed.avoid, c->placed.avoid, sizeof(placed.avoid));
    c->placed = placed;
    enum cox_err err = placement_submit(r->placement, now_ns, &c->placed, &retry_ms);

    if (err) {
        fail_for_room(c, err, retry_ms);
        return;
    }
    c->state = CALL_QUEUED;
    c->queued_ns = now_ns;
    arm_queued(c, now_ns);
}

void call_strand(struct router_call *c)
{
    if (c->state == CALL_QUEUED)
        placement_withdraw(c->router->placement, &c->placed);
    if (c->state == CALL_QUEUED || c->state == CALL_BACKOFF)
        fail_gone(c);
}

/* ---- time ---- */

static void fail_late(struct router_call *c)
{
    call_set_error(c,
                   &(struct router_error){ .http_status = 504,
                                           .code = COX_CODE_TIMEOUT,
                                           .type = "server_error",
                                           .api_code = "deadline_exceeded" },
                   "the call's time was over before the model %s had answered", c->model->name);
}

void call_on_time(struct router_call *c, int64_t now_ns)
{
    bool late = now_ns >= c->who.deadline_ns;

    if (c->state == CALL_BACKOFF && !late) {
        call_queue(c);
    } else if (c->state == CALL_BACKOFF) {
        fail_late(c);
        call_end(c, ROUTER_FAILED);
    } else if (c->state == CALL_SENT && !late) { /* [DONE], and no end */
        upstream_cancel(c->upstream);
        call_try_ended(c, UPSTREAM_OK, NULL);
    } else if (c->state == CALL_SENT) {
        bool begun = c->reply.begun, all = call_drop_try(c);

        if (!all)
            fail_late(c);
        call_end(c, all ? ROUTER_ANSWERED : begun ? ROUTER_BROKEN : ROUTER_FAILED);
    } else if (c->state == CALL_QUEUED && late) {
        placement_withdraw(c->router->placement, &c->placed);
        fail_late(c);
        call_end(c, ROUTER_FAILED);
    } else if (c->state == CALL_QUEUED) {
        bool closed = c->pool->n_open == 0;
        if (!closed && now_ns < c->queued_ns + ROUTER_WAIT_MS * ROUTER_NS_PER_MS) {
            arm_queued(c, now_ns);
            return;
        }
        placement_withdraw(c->router->placement, &c->placed);
        fail_for_room(c, closed ? COX_ERR_UNAVAILABLE : COX_ERR_FULL, 0);
    }
}

/* ---- the beginning ---- */

static struct cox_slice keep_text(struct cox_buf *texts, struct cox_slice text)
{
    size_t at = texts->len; /* there is room: nothing moves */

    cox_buf_append_slice(texts, text);
    return cox_slice(texts->data + at, text.len);
}

static void keep_who(struct router_call *c, const struct router_request *q)
{
    c->who = q->who;
    cox_buf_reserve(&c->texts, q->who.tenant.len + q->who.program.len + 1);
    c->who.tenant = keep_text(&c->texts, q->who.tenant);
    c->who.program = keep_text(&c->texts, q->who.program);
    for (size_t i = 0; i < q->n_headers && i < ROUTER_HEADERS_MAX; i++)
        c->headers[c->n_headers++] = cox_strdup(q->headers[i]);
    c->request_id = q->request_id ? cox_strndup(q->request_id, strnlen(q->request_id, 128))
                                  : cox_asprintf("req_%016llx%08llx", (unsigned long long)c->router->id_salt,
                                                 (unsigned long long)++c->router->last_id);
}

static bool read_request(struct router_call *c)
{
    struct router *r = c->router;
    struct cox_buf why = { 0 };
    const char *param = NULL;
    enum cox_err err =
        chat_request_read(&r->reader, c->api, cox_buf_slice(&c->body), &c->request, &why, &param);

    if (!err && c->request.model.len == 0) {
        err = COX_ERR_INVALID;
        param = "model";
        cox_buf_append_str(&why, "you must say which model: model");
    }
    c->model_said = cox_strndup((const char *)c->request.model.data, c->request.model.len);
    c->request.model = cox_slice_str(c->model_said); /* it may have been the reader's */
    if (err)
        call_set_error(c,
                       &(struct router_error){ .http_status = 400,
                                               .code = COX_CODE_INPUT_INVALID,
                                               .type = "invalid_request_error",
                                               .param = param },
                       "%s", cox_buf_cstr(&why));
    cox_buf_fini(&why);
    return !err;
}

static bool find_model(struct router_call *c)
{
    struct model *m = catalogue_find(c->router->catalogue, c->request.model);

    if (m && m->owner_data) {
        model_ref(m);
        c->asked = m;
        take_pool(c, m);
        return true;
    }
    call_set_error(c,
                   &(struct router_error){ .http_status = 404,
                                           .code = COX_CODE_INPUT_INVALID,
                                           .type = "invalid_request_error",
                                           .param = "model",
                                           .api_code = "model_not_found" },
                   "the model %.*s does not exist; GET /v1/models lists those that do",
                   (int)(c->request.model.len < 200 ? c->request.model.len : 200),
                   (const char *)c->request.model.data);
    return false;
}

/* The blocks are the call's own: the program's may change while it is under way. */
static void hash_prompt(struct router_call *c)
{
    struct router *r = c->router;
    struct prefix *x = c->program ? &c->program->prefix : &r->scratch;

    prefix_update(x, cox_hash64(c->who.tenant.data, c->who.tenant.len), c->request.parts, c->request.n_parts);
    c->placed.n_blocks = x->n_blocks < PLACEMENT_BLOCKS_MAX ? x->n_blocks : PLACEMENT_BLOCKS_MAX;
    c->blocks = cox_alloc(c->placed.n_blocks * sizeof(*c->blocks));
    if (c->placed.n_blocks > 0)
        memcpy(c->blocks, x->blocks, c->placed.n_blocks * sizeof(*c->blocks));
}

static bool answer_from_kept(struct router_call *c, const struct router_request *q)
{
    struct router *r = c->router;

    if (q->who.cache_ms <= 0)
        return false;
    stored_key(q, cox_slice_str(c->model->name), cox_buf_slice(&c->body), c->key);
    c->keeps = true;
    const struct stored_answer *stored =
        stored_find(&r->stored, c->key, c->started_ns - q->who.cache_ms * ROUTER_NS_PER_MS);

    if (!stored)
        return false;
    c->keeps = false;
    c->replays = true;
    c->books.from_cache = true;
    c->pool->stats.n_cache_answers++;
    c->reply.status = 200;
    c->reply.is_stream = stored->is_stream;
    cox_buf_append_str(&c->reply.type, stored->type);
    cox_buf_append_slice(&c->reply.body, cox_buf_slice(&stored->bytes));
    call_end(c, ROUTER_ANSWERED);
    return true;
}

/* With a tape that is played back, all answers come from it: what it has not is refused. */
static bool answer_from_tape(struct router_call *c)
{
    static const char events[] = "text/event-stream";
    struct tape *t = c->router->config.tape;
    struct cox_buf why = { 0 };
    struct tape_answer answer;

    c->records = t && !tape_is_replay(t);
    if (!t || c->records)
        return false;
    bool found = tape_find(t, c->api, cox_buf_slice(&c->body), &answer, &why);

    if (found) {
        c->replays = true;
        c->books.from_cache = true;
        c->reply.status = 200;
        c->reply.is_stream =
            answer.type.len >= strlen(events) && memcmp(answer.type.data, events, strlen(events)) == 0;
        cox_buf_append_slice(&c->reply.type, answer.type);
        cox_buf_append_slice(&c->reply.body, answer.response);
        books_replay(c, &answer.usage);
    } else {
        call_set_error(c,
                       &(struct router_error){ .http_status = 404,
                                               .code = COX_CODE_MODEL_ERROR,
                                               .type = "invalid_request_error",
                                               .param = "messages",
                                               .api_code = "not_recorded" },
                       "%s", cox_buf_cstr(&why));
    }
    call_end(c, found ? ROUTER_ANSWERED : ROUTER_REFUSED);
    cox_buf_fini(&why);
    return true;
}

static bool has_room(struct router_call *c)
{
    if (c->router->n_calls <= c->router->config.calls_max)
        return true;
    call_set_error(c,
                   &(struct router_error){ .http_status = 429,
                                           .code = COX_CODE_RESOURCE_EXHAUSTED,
                                           .retryable = true,
                                           .retry_ms = 1000,
                                           .type = "rate_limit_error",
                                           .api_code = "too_many_calls" },
                   "too many calls of models are under way");
    return false;
}

struct router_call *router_start(struct router *r, const struct router_request *q)
{
    struct router_call *c = COX_NEW(struct router_call);

    c->router = r;
    c->sink = q->sink;
    c->user = q->user;
    c->api = q->api;
    c->body = *q->body;
    *q->body = (struct cox_buf){ 0 };
    c->started_ns = cox_clock_mono_ns();
    c->reply.slow_ms = -1;
    cox_heap_node_init(&c->timer);
    cox_list_init(&c->node);
    cox_list_push_back(&r->calls, &c->node);
    r->n_calls++;
    keep_who(c, q);
    if (!has_room(c) || !read_request(c) || !find_model(c)) {
        call_end(c, ROUTER_REFUSED);
        return c;
    }
    if (c->who.outside && c->who.program.len == 0 && c->request.group.len <= GROUP_LEN_MAX)
        c->who.program = c->request.group; /* it is in the body, which stays */
    if (c->who.program.len > 0)
        c->program = programs_hold(&r->programs, &c->who);
    if (answer_from_tape(c) || answer_from_kept(c, q))
        return c;
    router_earn_retry(r);
    hash_prompt(c);
    c->request.parts = NULL;
    call_queue(c);
    router_pump(r);
    return c;
}

void router_cancel(struct router_call *c)
{
    if (c->state == CALL_OVER)
        return;
    if (c->state == CALL_QUEUED)
        placement_withdraw(c->router->placement, &c->placed);
    if (c->state == CALL_SENT)
        (void)call_drop_try(c);
    c->error = (struct router_error){ 0 };
    call_end(c, ROUTER_CANCELLED);
}

void router_pause(struct router_call *c, bool pause)
{
    if (pause == c->paused)
        return;
    c->paused = pause;
    if (c->upstream)
        upstream_pause(c->upstream, pause);
}

const char *router_request_id(const struct router_call *c)
{
    return c->request_id;
}
