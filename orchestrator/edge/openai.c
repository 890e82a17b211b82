/* The OpenAI edge: calls of models by any program that knows OpenAI's interface, passed to the router. What
 * the endpoint says goes out byte by byte, each piece as it comes. */
#include "../inference/output_cap.h"
#include "claim.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define UNSENT_LEN_MAX                                                                                       \
    ((size_t)64 << 10) /* of a stream whose reader is slow: then its endpoint is not read */
#define ID_LEN_MAX 128u
#define SESSION_LEN_MAX 255u
#define ASK_AGAIN_MS 20 /* of a call that waits for what others have reserved; doubled up to the second */
#define ASK_AGAIN_MAX_MS 500
#define ATTEMPT_OVER "the attempt that this key is of is over"

/* A call and the request that it is made for. Outlives the request when that goes first, until the router has
 * told the end. */
struct openai {
    struct exchange *exchange; /* NULL: the client has left */
    struct cox_edge *edge;
    struct router_call *call;
    struct attempt_call attempt;
    bool of_attempt, fenced, paused, begun;
    struct cox_edge_claim claim; /* of a call that a step's process makes */
    struct cox_edge_attempt task;
    struct cox_list in_claims; /* the engine is asked, and says what is to be undone should nobody want it */
    struct event *again;       /* NULL: it has not had to wait */
    int again_ms;
};

static void destroy(struct openai *o)
{
    if (o->attempt.attempt && o->edge->attempts) /* it was not let in */
        attempts_refuse(o->edge->attempts, &o->attempt);
    cox_list_remove(&o->in_claims);
    if (o->again)
        event_free(o->again);
    cox_free(o);
}

bool openai_is_path(const struct conn *c)
{
    return c->head.target.len >= 4 && memcmp(c->head.target.data, "/v1/", 4) == 0;
}

/* ---- errors ---- */

static const char *type_of(int http_status)
{
    if (http_status == 429)
        return "rate_limit_error";
    if (http_status == 403)
        return "permission_error";
    return http_status >= 500 ? "server_error" : "invalid_request_error";
}

static const char *code_of(int http_status, const char *reason, char code[64])
{
    size_t i = 0;

    if (http_status == 401)
        return "invalid_api_key";
    for (; reason && reason[i] && i < 63; i++)
        code[i] = (char)(reason[i] >= 'A' && reason[i] <= 'Z' ? reason[i] - 'A' + 'a' : reason[i]);
    code[i] = '\0';
    return i > 0 ? code : NULL;
}

void openai_put_error(struct cox_buf *out, int http_status, const struct cox_rpc_error *error)
{
    char code[64];

    chat_put_error(out, error->message ? error->message : "", type_of(http_status), NULL,
                   code_of(http_status, error->reason, code));
}

/* ---- headers ---- */

static bool is_plain(struct cox_slice text, size_t len_max)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] < 0x21 || text.data[i] > 0x7e)
            return false;
    return text.len > 0 && text.len <= len_max;
}

static void put_head(struct openai *o, const struct router_head *head)
{
    struct cox_buf *headers = &o->exchange->headers;

    cox_buf_printf(headers, "x-request-id: %s\r\nx-cox-model: %s\r\nx-cox-endpoint: %s\r\n",
                   router_request_id(o->call), head->model, head->endpoint);
    cox_buf_printf(headers, "x-cox-waited-us: %" PRId64 "\r\nx-cox-tries: %u\r\n", head->waited_us,
                   head->tries);
}

/* ---- from the router ---- */

static void on_head(void *user, const struct router_head *head)
{
    struct openai *o = user;
    struct exchange *x = o->exchange;

    if (!x)
        return;
    put_head(o, head);
    x->status = head->status;
    cox_buf_append_slice(&x->type, head->content_type);
    if (!head->is_stream)
        return;
    o->begun = x->begun = x->conn->gathers = true;
    conn_begin(x->conn, &(struct answer){ .status = head->status,
                                          .type = cox_buf_cstr(&x->type),
                                          .headers = cox_buf_cstr(&x->headers),
                                          .plain = true });
}

static void on_data(void *user, struct cox_slice piece)
{
    struct openai *o = user;
    struct exchange *x = o->exchange;

    if (!x)
        return;
    if (!o->begun) { /* whole, and in one piece: answered at its end */
        cox_buf_append_slice(&x->message, piece);
        return;
    }
    conn_write(x->conn, piece);
    if (!o->paused && conn_unsent_len(x->conn) > UNSENT_LEN_MAX) {
        o->paused = true;
        router_pause(o->call, true);
    }
}

void openai_on_drained(struct exchange *x)
{
    struct openai *o = x->openai;

    if (!o->paused)
        return;
    o->paused = false;
    router_pause(o->call, false);
}

static void answer_router_error(struct openai *o, const struct router_error *e)
{
    struct exchange *x = o->exchange;
    struct cox_buf body = { 0 };

    cox_buf_printf(&x->headers, "x-request-id: %s\r\n", router_request_id(o->call));
    if (e->retry_ms > 0)
        cox_buf_printf(&x->headers, "Retry-After: %" PRId64 "\r\n", (e->retry_ms + 999) / 1000);
    chat_put_error(&body, e->message, e->type ? e->type : type_of(e->http_status), e->param, e->api_code);
    conn_answer(x->conn, &(struct answer){ .status = e->http_status,
                                           .type = "application/json",
                                           .headers = cox_buf_cstr(&x->headers),
                                           .body = cox_buf_slice(&body) });
    cox_buf_fini(&body);
}

static void end_stream(struct openai *o, const struct router_error *e)
{
    static const struct router_error over = { .type = "invalid_request_error",
                                              .api_code = "attempt_over",
                                              .message = ATTEMPT_OVER };
    struct conn *c = o->exchange->conn;
    struct cox_buf text = { 0 };

    if (o->fenced)
        e = &over;
    if (e && !e->told) {
        cox_buf_append_str(&text, "data: ");
        chat_put_error(&text, e->message, e->type ? e->type : "server_error", e->param, e->api_code);
        cox_buf_append_str(&text, "\n\n");
        conn_write(c, cox_buf_slice(&text));
    }
    cox_buf_fini(&text);
    conn_end(c);
}

static void answer_whole(struct exchange *x)
{
    conn_answer(x->conn, &(struct answer){ .status = x->status,
                                           .type = x->type.len > 0 ? cox_buf_cstr(&x->type) : NULL,
                                           .headers = cox_buf_cstr(&x->headers),
                                           .body = cox_buf_slice(&x->message),
                                           .plain = true });
}

static void answer_fenced(struct exchange *x)
{
    answer_refusal(x->conn, 401, "ATTEMPT_OVER", NULL, ATTEMPT_OVER);
}

static void on_end(void *user, enum router_end end, const struct router_error *error,
                   const struct router_books *books)
{
    struct openai *o = user;
    struct exchange *x = o->exchange;

    if (o->of_attempt)
        attempts_end(o->edge->attempts, &o->attempt, books);
    if (x) {
        x->openai = NULL;
        if (o->begun)
            end_stream(o, end == ROUTER_ANSWERED ? NULL : error);
        else if (o->fenced)
            answer_fenced(x);
        else if (end == ROUTER_ANSWERED)
            answer_whole(x);
        else
            answer_router_error(o, error);
    }
    destroy(o);
}

static const struct router_sink sink = { on_head, on_data, NULL, on_end };

/* The client has left, or is answered otherwise. */
void openai_drop(struct openai *o)
{
    o->exchange = NULL;
    if (o->call)
        router_cancel(o->call);
    else if (cox_list_empty(&o->in_claims))
        destroy(o);
}

void openai_fini(struct cox_edge *e)
{
    while (!cox_list_empty(&e->claims))
        destroy(COX_CONTAINER_OF(e->claims.next, struct openai, in_claims));
}

/* ---- who, and what for ---- */

/* What other routers and agents call the header that says which calls belong together. */
static struct cox_slice session_of(const struct edge_head *h)
{
    static const char *const names[] = { "x-session-id", "x-claude-code-session-id", "x-session-affinity",
                                         "session-id",   "x-dynamo-session-id",      "x-smg-routing-key" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct cox_slice value = edge_header(h, names[i]);
        if (is_plain(value, SESSION_LEN_MAX))
            return value;
    }
    return cox_slice(NULL, 0);
}

static enum placement_band band_of(const struct openai *o, const struct edge_head *h)
{
    struct cox_slice value = edge_header(h, "x-cox-priority");

    if (o->of_attempt)
        return o->task.priority > 0   ? PLACEMENT_BAND_HIGH
               : o->task.priority < 0 ? PLACEMENT_BAND_LOW
                                      : PLACEMENT_BAND_NORMAL;

    return edge_slice_is_nocase(value, "high")  ? PLACEMENT_BAND_HIGH
           : edge_slice_is_nocase(value, "low") ? PLACEMENT_BAND_LOW
                                                : PLACEMENT_BAND_NORMAL;
}

static int64_t deadline_of(const struct openai *o)
{
    return o->of_attempt && o->task.deadline_ms > 0 && o->task.deadline_ms < INT32_MAX
               ? cox_clock_mono_ns() + (int64_t)o->task.deadline_ms * 1000000
               : INT64_MAX;
}

static void start_call(struct exchange *x)
{
    struct openai *o = x->openai;
    const struct edge_head *h = &x->conn->head;
    struct cox_slice id = edge_header(h, "x-request-id"), trace = edge_header(h, "traceparent");
    struct cox_slice session = session_of(h);
    char *header = NULL, *request_id = NULL;

    if (is_plain(id, ID_LEN_MAX))
        request_id = cox_strndup((const char *)id.data, id.len);
    if (is_plain(trace, ID_LEN_MAX))
        header = cox_asprintf("traceparent: %.*s", (int)trace.len, (const char *)trace.data);
    const char *headers[] = { header };
    const struct router_request request = {
        .api = x->route->api,
        .body = &x->conn->body,
        .who = { .tenant = cox_slice_str(x->tenant),
                 .program = o->of_attempt ? cox_slice_str(o->task.program) : session,
                 .outside = !o->of_attempt,
                 .band = band_of(o, h),
                 .deadline_ns = deadline_of(o),
                 .critical_path_ms = (int64_t)o->task.critical_path_ms },
        .headers = headers,
        .n_headers = header != NULL,
        .request_id = request_id,
        .sink = &sink,
        .user = o,
    };

    o->call = router_start(o->edge->router, &request);
    cox_free(header);
    cox_free(request_id);
}

/* False when the body was refused. */
static bool inflate(struct conn *c)
{
    struct cox_slice encoding = edge_header(&c->head, "content-encoding");
    struct cox_buf inflated = { 0 };

    if (!encoding.data || edge_slice_is_nocase(encoding, "identity") || c->body.len == 0)
        return true;
    if (!exchange_inflate_body(c, &inflated)) {
        cox_buf_fini(&inflated);
        return false;
    }
    cox_buf_fini(&c->body);
    c->body = inflated;
    return true;
}

/* ---- calls of steps' processes ---- */

static void on_fenced(void *user)
{
    struct openai *o = user;

    o->fenced = true;
    router_cancel(o->call);
}

static void on_claim(void *user, struct cox_slice message)
{
    struct openai *o = user;

    o->of_attempt = claim_answer(message, &o->task);
}

static void ask_whose(struct openai *o);

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    ask_whose(arg);
}

/* Others have reserved what is left: they give back what they do not use. */
static void claim_again(struct openai *o)
{
    o->again_ms = o->again_ms == 0 ? ASK_AGAIN_MS : o->again_ms * 2;
    if (o->again_ms > ASK_AGAIN_MAX_MS)
        o->again_ms = ASK_AGAIN_MAX_MS;
    const struct timeval tv = { .tv_usec = o->again_ms * 1000 };

    if (!o->again)
        o->again = evtimer_new(o->edge->base, on_again, o);
    event_add(o->again, &tv);
}

/* The engine has let it in, and waits for its end. False: it is over, nobody wants it any more. */
static bool begin(struct openai *o)
{
    static const struct router_books nothing = { .tries = 0 };
    const struct attempts_promise promise = { o->task.reserved, o->task.guessed };
    struct exchange *x = o->exchange;

    if (!o->edge->attempts || !attempts_admit(o->edge->attempts, &o->attempt, promise))
        return false;
    if (!x) {
        attempts_end(o->edge->attempts, &o->attempt, &nothing);
        return false;
    }
    if (o->task.output_tokens > 0 && x->route->api != CHAT_EMBEDDINGS)
        output_cap_apply(&x->conn->body, o->task.output_tokens);
    start_call(x);
    return true;
}

static void on_claim_closed(void *user, const struct cox_rpc_error *status)
{
    struct openai *o = user;
    struct exchange *x = o->exchange;
    bool answered = status->status == COX_RPC_OK && o->of_attempt;

    cox_list_remove(&o->in_claims);
    if (answered && !o->task.spent && !o->task.waits && begin(o))
        return;
    if (x && answered && o->task.waits) {
        claim_again(o);
        return;
    }
    bool spent = answered && o->task.spent;

    destroy(o);
    if (!x)
        return;
    x->openai = NULL;
    if (status->status != COX_RPC_OK)
        answer_error(x->conn, status);
    else if (spent)
        answer_refusal(x->conn, 429, "BUDGET_EXHAUSTED", NULL,
                       "the task's budget has nothing left for model calls");
    else
        answer_fenced(x);
}

static const struct call_events claim_events = { on_claim, NULL, on_claim_closed };

/* Not by the exchange: should that go meanwhile, the answer is to be heard all the same. */
static void ask_whose(struct openai *o)
{
    o->of_attempt = false;
    cox_list_push_back(&o->edge->claims, &o->in_claims);
    (void)claim_ask(o->edge, &o->claim, &claim_events, o);
}

void openai_start(struct exchange *x)
{
    struct cox_edge *e = x->conn->edge;
    struct openai *o;

    if (!inflate(x->conn))
        return;
    if (e->n_calling >= e->calling_max) {
        answer_refusal(x->conn, 429, "TOO_MANY_CALLS", "Retry-After: 1\r\n",
                       "too many calls of models are under way");
        return;
    }
    conn_calls(x->conn, true);
    o = COX_NEW(struct openai);
    o->exchange = x;
    o->edge = e;
    cox_list_init(&o->in_claims);
    x->openai = o;
    enum claim_found claim = claim_read(&x->conn->head, &o->claim);

    if (claim == CLAIM_MADE) {
        attempts_begin(e->attempts, &o->attempt, o->claim.ref, on_fenced, o);
        o->claim.len = x->conn->body.len;
        o->claim.output_tokens =
            x->route->api == CHAT_EMBEDDINGS ? 1 : output_cap_asked(cox_buf_slice(&x->conn->body));
        ask_whose(o);
    } else if (claim == CLAIM_NONE) {
        start_call(x);
    } else {
        x->openai = NULL;
        destroy(o);
        answer_refusal(
            x->conn, 400, "BAD_ATTEMPT", NULL,
            "cox-attempt: expected TASK/STEP/EPOCH/COUNTER, four decimal numbers, and cox-session");
    }
}

/* ---- GET /v1/models ---- */

static void put_model(struct cox_buf *out, const char *name, const struct model *m)
{
    cox_buf_append_str(out, "{\"id\":");
    cox_json_quote(out, cox_slice_str(name));
    cox_buf_append_str(out, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"coxswain\"");
    if (m->context_tokens > 0)
        cox_buf_printf(out, ",\"max_model_len\":%" PRIu64, m->context_tokens);
    cox_put_u8(out, '}');
}

static void answer_json(struct exchange *x, struct cox_buf *json)
{
    cox_put_u8(json, '\n');
    conn_answer(x->conn, &(struct answer){ .status = 200,
                                           .type = "application/json",
                                           .headers = cox_buf_cstr(&x->headers),
                                           .body = cox_buf_slice(json) });
    cox_buf_fini(json);
}

void openai_list_models(struct exchange *x)
{
    const struct catalogue *catalogue = router_catalogue(x->conn->edge->router);
    const struct model *m = NULL;
    struct cox_buf json = { 0 };
    const char *comma = "";

    cox_buf_append_str(&json, "{\"object\":\"list\",\"data\":[");
    while ((m = catalogue_next(catalogue, m))) {
        cox_buf_append_str(&json, comma);
        put_model(&json, m->name, m);
        comma = ",";
        for (size_t i = 0; i < m->n_aliases; i++) {
            cox_buf_append_str(&json, comma);
            put_model(&json, m->aliases[i], m);
        }
    }
    cox_buf_append_str(&json, "]}");
    answer_json(x, &json);
}

void openai_get_model(struct exchange *x)
{
    struct cox_slice name = x->path_params[0].value;
    const struct model *m = catalogue_find(router_catalogue(x->conn->edge->router), name);
    struct cox_buf json = { 0 };

    if (!m) {
        answer_refusal(x->conn, 404, "MODEL_NOT_FOUND", NULL,
                       "there is no such model; GET /v1/models lists those that there are");
        return;
    }
    char *text = cox_strndup((const char *)name.data, name.len);

    put_model(&json, text, m);
    cox_free(text);
    answer_json(x, &json);
}
