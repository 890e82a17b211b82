/* A call: from its request through the engine to the last byte of its answer. */
#include "sim.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <stdio.h>
#include <string.h>

struct choice {
    struct engine_call engine;
    struct call *call;
    struct reply reply;
    struct reply_cursor cursor;
    uint64_t *blocks;
    uint32_t index;
    bool has_role; /* the first event of its stream is out */
};

struct call {
    struct cox_list link; /* of the endpoint's calls, or of those that have ended */
    struct endpoint *endpoint;
    struct http_conn *conn; /* NULL: nothing more is said to it */
    struct ask ask;
    struct sim_record record;
    struct choice *choices;
    uint32_t n_choices, n_left;
    uint32_t n_sent; /* tokens of all choices */
    enum fault_kind fault;
    const struct script_rule *rule;
    struct event *delay;
    struct cox_buf prefix; /* of each event: {"id":...,"choices":[ */
    bool begun, ended;
};

/* ---- books ---- */

static void count_in(struct counts *n)
{
    n->calls++;
    n->in_flight++;
    if (n->in_flight > n->in_flight_max)
        n->in_flight_max = n->in_flight;
}

static void count_out(struct counts *n, const char *outcome, int64_t now_ns)
{
    n->in_flight--;
    if (strcmp(outcome, "answered") == 0) {
        n->answered++;
    } else if (strcmp(outcome, "cancelled") == 0) {
        n->cancelled++;
        n->last_cancel_ns = now_ns;
    } else if (strcmp(outcome, "refused") == 0) {
        n->refused++;
    } else {
        n->faulted++;
    }
}

/* It is over; its memory goes at the next pump. */
static void end_call(struct call *c, const char *outcome)
{
    struct sim *s = c->endpoint->sim;

    if (c->ended)
        return;
    c->ended = true;
    c->conn = NULL;
    c->record.outcome = outcome;
    c->record.ended_ns = cox_clock_mono_ns();
    for (uint32_t i = 0; i < c->n_choices; i++) {
        const struct engine_call *g = &c->choices[i].engine;
        c->record.output_tokens += g->generated;
        c->record.cached_tokens += g->cached_tokens;
        if (g->first_ns > 0 && (c->record.first_ns == 0 || g->first_ns < c->record.first_ns))
            c->record.first_ns = g->first_ns;
    }
    count_out(&s->counts, outcome, c->record.ended_ns);
    count_out(&c->endpoint->counts, outcome, c->record.ended_ns);
    s->records[s->n_records++ % SIM_RECORDS_MAX] = c->record;
    cox_list_remove(&c->link);
    cox_list_push_back(&c->endpoint->ended, &c->link);
}

static void free_call(struct call *c)
{
    cox_list_remove(&c->link);
    for (uint32_t i = 0; i < c->n_choices; i++) {
        reply_fini(&c->choices[i].reply);
        cox_free(c->choices[i].blocks);
    }
    cox_free(c->choices);
    if (c->delay)
        event_free(c->delay);
    ask_fini(&c->ask);
    cox_buf_fini(&c->prefix);
    cox_free(c);
}

void endpoint_pump(struct endpoint *e)
{
    int64_t now = cox_clock_mono_ns();

    while (!cox_list_empty(&e->ended)) {
        struct call *c = COX_CONTAINER_OF(e->ended.next, struct call, link);
        for (uint32_t i = 0; i < c->n_choices; i++)
            engine_cancel(e->engine, now, &c->choices[i].engine);
        free_call(c);
    }
    int64_t next = engine_next_ns(e->engine);
    if (next == INT64_MAX) {
        event_del(e->timer);
    } else {
        int64_t us = next > now ? (next - now + 999) / 1000 : 0;
        struct timeval in = { .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
        event_add(e->timer, &in);
    }
}

/* ---- what is said ---- */

static void refuse(struct call *c, int status, const char *headers, const char *type, const char *code,
                   const char *param, struct cox_slice message, const char *outcome)
{
    struct cox_buf body = { 0 };
    struct http_conn *conn = c->conn;

    render_error(&body, status, message, type, code, param);
    end_call(c, outcome);
    http_answer(conn, status, "application/json", headers, cox_buf_slice(&body));
    cox_buf_fini(&body);
}

static const char *id_prefix(const struct call *c)
{
    return c->ask.api == ASK_CHAT ? "chatcmpl-sim-" : c->ask.api == ASK_TEXT ? "cmpl-sim-" : "embd-sim-";
}

static void put_head(struct call *c, const char *object)
{
    const struct sim *s = c->endpoint->sim;

    cox_buf_printf(&c->prefix,
                   "{\"id\":\"%s%llu\",\"object\":\"%s\",\"created\":%lld,\"model\":", id_prefix(c),
                   (unsigned long long)c->record.id, object, (long long)s->created_s);
    cox_json_quote(&c->prefix, cox_buf_slice(&c->ask.model));
    cox_buf_append_str(&c->prefix, ",\"choices\":[");
}

static uint32_t sum_of(int64_t scripted, uint32_t counted)
{
    return scripted >= 0 ? (uint32_t)scripted : counted;
}

static void put_usage(struct call *c, struct cox_buf *out)
{
    uint32_t output = 0, cached = 0;

    for (uint32_t i = 0; i < c->n_choices; i++) {
        output += c->choices[i].engine.generated;
        cached += c->choices[i].engine.cached_tokens;
    }
    if (c->n_choices > 0) /* one prompt for each n; what all n found counts once */
        cached /= c->ask.n;
    uint32_t input = sum_of(c->rule ? c->rule->input_tokens : -1, c->record.input_tokens);
    output = sum_of(c->rule ? c->rule->output_tokens : -1, c->ask.api == ASK_EMBEDDINGS ? 0 : output);
    cached = sum_of(c->rule ? c->rule->cached_tokens : -1, cached);
    cox_buf_printf(out, "{\"prompt_tokens\":%u,\"total_tokens\":%u", input, input + output);
    if (c->ask.api != ASK_EMBEDDINGS)
        cox_buf_printf(out, ",\"completion_tokens\":%u,\"prompt_tokens_details\":{\"cached_tokens\":%u}",
                       output, cached);
    cox_buf_append_str(out, "}");
}

static uint32_t tool_index(const struct call *c, uint32_t i)
{
    return i + (c->endpoint->faults.index_from_one ? 1 : 0);
}

static void put_tool_open(struct call *c, struct cox_buf *out, const struct reply_tool *t)
{
    if (!c->endpoint->faults.no_tool_ids) {
        cox_buf_append_str(out, "\"id\":");
        cox_json_quote(out, cox_buf_slice(&t->id));
        cox_buf_append_str(out, ",");
    }
    cox_buf_append_str(out, "\"type\":\"function\",\"function\":{\"name\":");
    cox_json_quote(out, cox_buf_slice(&t->name));
    cox_buf_append_str(out, ",\"arguments\":");
}

static void send_event(struct call *c, struct cox_buf *event)
{
    cox_buf_append_str(event, "\n\n");
    http_put(c->conn, cox_buf_slice(event));
    http_flush(c->conn);
}

static struct cox_buf *begin_event(struct call *c, const struct choice *o)
{
    struct cox_buf *out = &c->endpoint->sim->scratch;

    cox_buf_clear(out);
    cox_buf_append_str(out, "data: ");
    cox_buf_append_slice(out, cox_buf_slice(&c->prefix));
    if (o)
        cox_buf_printf(out, "{\"index\":%u,", o->index);
    return out;
}

static void begin_stream(struct call *c)
{
    char headers[160];

    if (c->begun)
        return;
    c->begun = true;
    snprintf(headers, sizeof(headers), "Cache-Control: no-cache\r\nx-request-id: %s\r\n",
             c->record.request_id);
    http_begin(c->conn, 200, "text/event-stream; charset=utf-8", headers);
}

static void send_role(struct call *c, struct choice *o)
{
    if (o->has_role || c->ask.api != ASK_CHAT)
        return;
    o->has_role = true;
    struct cox_buf *out = begin_event(c, o);
    cox_buf_append_str(
        out,
        "\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}");
    send_event(c, out);
}

static void send_piece(struct call *c, struct choice *o, const struct reply_piece *p)
{
    struct cox_buf *out = begin_event(c, o);

    if (c->ask.api == ASK_TEXT) {
        cox_buf_append_str(out, "\"text\":");
        cox_json_quote(out, p->bytes);
        cox_buf_append_str(out, ",\"logprobs\":null,\"finish_reason\":null}]}");
        send_event(c, out);
        return;
    }
    if (!p->is_tool) {
        cox_buf_append_str(out, "\"delta\":{\"content\":");
        cox_json_quote(out, p->bytes);
    } else {
        cox_buf_printf(out, "\"delta\":{\"tool_calls\":[{\"index\":%u,", tool_index(c, p->tool));
        if (p->opens)
            put_tool_open(c, out, &o->reply.tools[p->tool]);
        else
            cox_buf_append_str(out, "\"function\":{\"arguments\":");
        cox_json_quote(out, p->bytes);
        cox_buf_append_str(out, "}}]");
    }
    cox_buf_append_str(out, "},\"logprobs\":null,\"finish_reason\":null}]}");
    send_event(c, out);
}

static void send_finish(struct call *c, struct choice *o)
{
    struct cox_buf *out = begin_event(c, o);

    cox_buf_printf(out, "%s,\"logprobs\":null,\"finish_reason\":\"%s\"}]}",
                   c->ask.api == ASK_CHAT ? "\"delta\":{}" : "\"text\":\"\"", o->reply.finish);
    send_event(c, out);
}

/* ---- whole answers ---- */

static void put_message(struct call *c, struct choice *o, struct cox_buf *out)
{
    struct reply_cursor at = { 0 };
    struct reply_piece p;
    struct cox_buf text = { 0 };
    uint32_t open = UINT32_MAX;

    cox_buf_printf(out, "{\"index\":%u,\"logprobs\":null,\"finish_reason\":\"%s\",", o->index,
                   o->reply.finish);
    while (reply_next(&o->reply, &at, &p) && !p.is_tool)
        cox_buf_append_slice(&text, p.bytes);
    if (c->ask.api == ASK_TEXT) {
        cox_buf_append_str(out, "\"text\":");
        cox_json_quote(out, cox_buf_slice(&text));
        cox_buf_append_str(out, "}");
        cox_buf_fini(&text);
        return;
    }
    cox_buf_append_str(out, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (text.len > 0 || o->reply.n_tools == 0)
        cox_json_quote(out, cox_buf_slice(&text));
    else
        cox_buf_append_str(out, "null");
    cox_buf_append_str(out, ",\"tool_calls\":[");
    for (bool more = p.is_tool; more; more = reply_next(&o->reply, &at, &p)) {
        if (p.opens) {
            if (open != UINT32_MAX)
                cox_buf_append_str(out, "\"}},");
            cox_buf_append_str(out, "{");
            put_tool_open(c, out, &o->reply.tools[p.tool]);
            cox_buf_append_str(out, "\"");
            open = p.tool;
        }
        cox_json_escape(out, p.bytes);
    }
    cox_buf_append_str(out, open != UINT32_MAX ? "\"}}]}}" : "]}}");
    cox_buf_fini(&text);
}

static void put_whole(struct call *c, struct cox_buf *out)
{
    const struct sim *s = c->endpoint->sim;

    if (c->ask.api == ASK_EMBEDDINGS) {
        cox_buf_append_str(out, "{\"object\":\"list\",\"data\":[");
        for (uint32_t i = 0; i < c->n_choices; i++) {
            const struct cox_buf *prompt = &c->ask.prompts[i];
            cox_buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%u,\"embedding\":", i > 0 ? "," : "",
                           i);
            render_float_list(out, cox_hash64(prompt->data, prompt->len) ^ s->options.seed,
                              c->ask.dimensions > 0 ? c->ask.dimensions : s->options.dimensions,
                              c->ask.base64);
            cox_buf_append_str(out, "}");
        }
        cox_buf_append_str(out, "],\"model\":");
        cox_json_quote(out, cox_buf_slice(&c->ask.model));
        cox_buf_append_str(out, ",");
    } else {
        cox_buf_append_slice(out, cox_buf_slice(&c->prefix));
        for (uint32_t i = 0; i < c->n_choices; i++) {
            if (i > 0)
                cox_buf_append_str(out, ",");
            put_message(c, &c->choices[i], out);
        }
        cox_buf_append_str(out, "],");
    }
    cox_buf_append_str(out, "\"usage\":");
    put_usage(c, out);
    cox_buf_append_str(out, "}");
}

/* Half of an answer, and then what the fault says. */
static void break_whole(struct call *c, const struct cox_buf *body)
{
    struct http_conn *conn = c->conn;
    struct cox_buf head = { 0 };

    if (c->fault == FAULT_GARBAGE) {
        end_call(c, fault_kind_text(c->fault));
        http_answer(conn, 200, "application/json", "", cox_slice("{\"choices\": [\x01\xff\xfe not JSON", 28));
        return;
    }
    http_put_answer(&head, SIM_IDENTITY, 200, "application/json", "", cox_buf_slice(body));
    http_put_raw(conn, cox_slice(head.data, head.len - body->len / 2 - 1));
    cox_buf_fini(&head);
    http_watch(conn, NULL, NULL);
    end_call(c, fault_kind_text(c->fault));
    if (c->fault == FAULT_HALF_CLOSE) {
        http_half_close(conn);
    } else {
        http_flush(conn);
        http_reset(conn);
    }
}

static void answer_whole(struct call *c)
{
    struct cox_buf body = { 0 };
    struct http_conn *conn = c->conn;
    char headers[128];

    put_whole(c, &body);
    if (c->fault == FAULT_HANG_AFTER)
        ; /* it was to come after some tokens, and there are none before the whole */
    else if (c->fault != FAULT_NONE) {
        break_whole(c, &body);
    } else {
        snprintf(headers, sizeof(headers), "x-request-id: %s\r\n", c->record.request_id);
        end_call(c, "answered");
        http_answer(conn, 200, "application/json", headers, cox_buf_slice(&body));
    }
    cox_buf_fini(&body);
}

/* ---- from the engine ---- */

/* True: the stream is broken off here. */
static bool break_stream(struct call *c)
{
    struct http_conn *conn = c->conn;

    if (c->fault == FAULT_NONE || c->n_sent < c->endpoint->faults.after_tokens)
        return false;
    if (c->fault == FAULT_HANG_AFTER)
        return true;
    http_watch(conn, NULL, NULL);
    if (c->fault == FAULT_GARBAGE) {
        static const char garbage[] =
            "data: {\"choices\": [{\"delta\": {\x01\xff\xfe\n\ndata: \n\nevent\n: no\n\ndata: 7]\n\n";
        http_put(conn, cox_slice(garbage, sizeof(garbage) - 1));
        http_end(conn);
    } else if (c->fault == FAULT_HALF_CLOSE) {
        http_half_close(conn);
    } else {
        http_reset(conn);
    }
    end_call(c, fault_kind_text(c->fault));
    return true;
}

static void on_tokens(void *user, struct engine_call *g, int64_t now_ns, uint32_t n)
{
    struct choice *o = COX_CONTAINER_OF(g, struct choice, engine);
    struct call *c = o->call;
    struct reply_piece p;

    (void)user;
    (void)now_ns;
    if (c->ended || !c->ask.stream || c->ask.api == ASK_EMBEDDINGS)
        return;
    begin_stream(c);
    if (break_stream(c))
        return;
    send_role(c, o);
    for (uint32_t i = 0; i < n && reply_next(&o->reply, &o->cursor, &p); i++) {
        send_piece(c, o, &p);
        c->n_sent++;
    }
}

static void on_end(void *user, struct engine_call *g, int64_t now_ns)
{
    struct choice *o = COX_CONTAINER_OF(g, struct choice, engine);
    struct call *c = o->call;

    (void)user;
    (void)now_ns;
    if (c->ended)
        return;
    c->n_left--;
    if (!c->ask.stream || c->ask.api == ASK_EMBEDDINGS) {
        if (c->n_left == 0)
            answer_whole(c);
        return;
    }
    if (break_stream(c) || c->fault == FAULT_HANG_AFTER)
        return;
    send_finish(c, o);
    if (c->n_left > 0)
        return;
    if (c->ask.include_usage) {
        struct cox_buf *out = begin_event(c, NULL);
        cox_buf_append_str(out, "],\"usage\":");
        put_usage(c, out);
        cox_buf_append_str(out, "}");
        send_event(c, out);
    }
    struct http_conn *conn = c->conn;
    end_call(c, "answered");
    http_put(conn, cox_slice_str("data: [DONE]\n\n"));
    http_end(conn);
}

const struct engine_events call_engine_events = { .on_tokens = on_tokens, .on_end = on_end };

/* ---- beginnings ---- */

static void on_gone(void *user)
{
    struct call *c = user;
    struct endpoint *e = c->endpoint;

    end_call(c, "cancelled");
    endpoint_pump(e);
}

static void submit(struct call *c)
{
    struct endpoint *e = c->endpoint;
    int64_t now = cox_clock_mono_ns();
    enum cox_err err = COX_OK;

    for (uint32_t i = 0; i < c->n_choices && err == COX_OK; i++)
        err = engine_submit(e->engine, now, &c->choices[i].engine);
    if (err == COX_ERR_INVALID)
        refuse(c, 400, "", "invalid_request_error", "context_length_exceeded", "messages",
               cox_slice_str("this prompt and its answer do not fit into the KV cache"), "refused");
    else if (err != COX_OK)
        refuse(c, 503, "Retry-After: 1\r\n", "server_error", NULL, NULL, cox_slice_str("too many calls wait"),
               "refused");
    endpoint_pump(e);
}

static void on_delay(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    submit(user);
}

static void set_rule_reply(struct call *c, struct reply *r)
{
    const struct script_rule *rule = c->rule;

    r->finish = rule->tool_calls.len > 0 ? "tool_calls" : "stop";
    if (rule->has_text)
        cox_json_unquote(&r->text, rule->text);
    struct cox_json_walk w = cox_json_walk(rule->tool_calls);
    for (uint32_t i = 0; cox_json_next(&w); i++) {
        struct cox_slice v;
        struct reply_tool *t = reply_add_tool(r);
        reply_tool_id(t, c->record.id, i);
        if (cox_json_member(w.value, "id", &v)) {
            cox_buf_clear(&t->id);
            cox_json_unquote(&t->id, v);
        }
        if (cox_json_member(w.value, "name", &v))
            cox_json_unquote(&t->name, v);
        if (!cox_json_member(w.value, "arguments", &v))
            cox_buf_append_str(&t->arguments, "{}");
        else if (cox_json_kind(v) == COX_JSON_STRING)
            cox_json_unquote(&t->arguments, v);
        else
            cox_buf_append_slice(&t->arguments, v);
    }
    reply_close(r, &c->ask);
}

/* What the engine has to do for one choice: the prompt, and what the answer adds to it. */
static void make_choice(struct call *c, struct choice *o, struct cox_slice prompt, uint32_t number)
{
    struct sim *s = c->endpoint->sim;
    struct cox_buf all = { 0 };

    o->call = c;
    o->index = (uint32_t)(o - c->choices);
    if (c->ask.api == ASK_EMBEDDINGS)
        o->reply = (struct reply){ .n_tokens = 1, .finish = "stop" };
    else if (c->rule && (c->rule->has_text || c->rule->tool_calls.len > 0))
        set_rule_reply(c, &o->reply);
    else
        reply_make(&o->reply, &s->replies, &c->ask, prompt, number);
    cox_buf_append_slice(&all, prompt);
    ask_put_text(&all, cox_buf_slice(&o->reply.text));
    for (uint32_t i = 0; i < o->reply.n_tools; i++)
        ask_put_tool_call(&all, cox_buf_slice(&o->reply.tools[i].name),
                          cox_buf_slice(&o->reply.tools[i].arguments));
    o->engine.input_tokens = ask_tokens(prompt.len);
    o->engine.output_tokens = o->reply.n_tokens;
    o->blocks = ask_blocks(cox_buf_slice(&all), cox_buf_slice(&c->ask.model), s->options.engine.block_tokens,
                           &o->engine.n_blocks);
    o->engine.blocks = o->blocks;
    cox_buf_fini(&all);
}

static void make_choices(struct call *c)
{
    struct ask *a = &c->ask;
    uint32_t n = a->api == ASK_EMBEDDINGS ? 1 : a->n;

    a->n = n;
    c->n_choices = c->n_left = a->n_prompts * n;
    c->choices = cox_calloc(c->n_choices, sizeof(*c->choices));
    for (uint32_t i = 0; i < c->n_choices; i++)
        make_choice(c, &c->choices[i], cox_buf_slice(&a->prompts[i / n]), i % n);
    for (uint32_t i = 0; i < a->n_prompts; i++)
        c->record.input_tokens += ask_tokens(a->prompts[i].len);
}

static bool serves_model(const struct sim *s, const struct cox_buf *model)
{
    for (uint32_t i = 0; i < s->options.n_models; i++) {
        if (cox_slice_is(cox_buf_slice(model), s->options.models[i]))
            return true;
    }
    return s->options.n_models == 0;
}

/* False: it is answered already. */
static bool passes(struct call *c, const struct http_request *q, enum ask_api api)
{
    struct endpoint *e = c->endpoint;
    const char *error = NULL, *param = NULL, *key = e->sim->options.require_key;
    char retry[64], bearer[256];

    snprintf(bearer, sizeof(bearer), "Bearer %s", key ? key : "");
    snprintf(retry, sizeof(retry), "Retry-After: %u\r\n", e->faults.retry_after_s);
    enum cox_err err = ask_read(&c->ask, api, q->body, &error, &param);
    c->record.stream = c->ask.stream;
    c->fault = faults_pick(&e->faults, &e->rng);
    if (key && !cox_slice_is(http_header(q, "authorization"), bearer))
        refuse(c, 401, "", "invalid_request_error", "invalid_api_key", NULL,
               cox_slice_str("another key is expected"), "refused");
    else if (c->fault == FAULT_ERROR_500)
        refuse(c, 500, "", "server_error", NULL, NULL, cox_slice_str("simulated error"),
               fault_kind_text(c->fault));
    else if (c->fault == FAULT_ERROR_429)
        refuse(c, 429, retry, "rate_limit_error", "rate_limit_exceeded", NULL,
               cox_slice_str("simulated limit"), fault_kind_text(c->fault));
    else if (err != COX_OK)
        refuse(c, 400, "", "invalid_request_error", NULL, param, cox_slice_str(error), "refused");
    else if (!serves_model(e->sim, &c->ask.model))
        refuse(c, 404, "", "invalid_request_error", "model_not_found", "model",
               cox_slice_str("this model is not served here"), "refused");
    return !c->ended;
}

static void refuse_by_rule(struct call *c)
{
    struct cox_buf message = { 0 }, type = { 0 }, code = { 0 };
    char retry[64] = "";

    if (c->rule->retry_after_s > 0)
        snprintf(retry, sizeof(retry), "Retry-After: %lld\r\n", (long long)c->rule->retry_after_s);
    cox_json_unquote(&message, c->rule->message);
    cox_json_unquote(&type, c->rule->type);
    cox_json_unquote(&code, c->rule->code);
    refuse(c, (int)c->rule->status, retry, type.len > 0 ? cox_buf_cstr(&type) : "server_error",
           code.len > 0 ? cox_buf_cstr(&code) : NULL, NULL, cox_buf_slice(&message), "refused");
    cox_buf_fini(&message);
    cox_buf_fini(&type);
    cox_buf_fini(&code);
}

static void start(struct call *c)
{
    const struct sim *s = c->endpoint->sim;
    char text[160];
    uint64_t most = 0;

    c->rule = script_find(c->endpoint->sim->script, &c->ask);
    if (c->rule && c->rule->status > 0) {
        refuse_by_rule(c);
        return;
    }
    make_choices(c);
    put_head(c, c->ask.api == ASK_TEXT ? "text_completion"
                : c->ask.stream        ? "chat.completion.chunk"
                                       : "chat.completion");
    for (uint32_t i = 0; i < c->n_choices; i++) {
        uint64_t len = (uint64_t)c->choices[i].engine.input_tokens +
                       (c->ask.api == ASK_EMBEDDINGS ? 0 : c->ask.max_tokens);
        most = len > most ? len : most;
    }
    if (s->options.max_model_len > 0 && most > s->options.max_model_len) {
        snprintf(text, sizeof(text),
                 "This model's maximum context length is %llu tokens. However, you requested %llu tokens.",
                 (unsigned long long)s->options.max_model_len, (unsigned long long)most);
        refuse(c, 400, "", "invalid_request_error", "context_length_exceeded", "messages",
               cox_slice_str(text), "refused");
        return;
    }
    http_watch(c->conn, on_gone, c);
    if (c->fault == FAULT_HANG_FIRST)
        return;
    if (c->rule && c->rule->delay_ms > 0) {
        struct timeval in = { .tv_sec = c->rule->delay_ms / 1000,
                              .tv_usec = c->rule->delay_ms % 1000 * 1000 };
        c->delay = event_new(s->base, -1, 0, on_delay, c);
        COX_ASSERT(c->delay);
        event_add(c->delay, &in);
        return;
    }
    submit(c);
}

void call_begin(struct endpoint *e, struct http_conn *conn, const struct http_request *q, enum ask_api api)
{
    struct call *c = COX_NEW(struct call);
    struct cox_slice id = http_header(q, "x-request-id");

    c->endpoint = e;
    c->conn = conn;
    c->record.id = ++e->sim->n_calls;
    c->record.endpoint = e->index;
    c->record.begun_ns = cox_clock_mono_ns();
    if (id.len > 0 && id.len < sizeof(c->record.request_id) && cox_utf8_ok(id))
        memcpy(c->record.request_id, id.data, id.len);
    else
        snprintf(c->record.request_id, sizeof(c->record.request_id), "sim-%llu",
                 (unsigned long long)c->record.id);
    cox_list_push_back(&e->calls, &c->link);
    count_in(&e->sim->counts);
    count_in(&e->counts);
    if (passes(c, q, api))
        start(c);
    endpoint_pump(e);
}
