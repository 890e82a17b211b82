/* GET /v1/models, /health, /metrics and what tests ask of the simulator itself, below /sim/. */
#include "sim.h"

#include "cox/json.h"

#include <stdlib.h>
#include <string.h>

#define CALLS_A_PAGE 1000u

static void answer_json(struct http_conn *c, int status, struct cox_buf *body)
{
    http_answer(c, status, "application/json", "", cox_buf_slice(body));
    cox_buf_fini(body);
}

static void put_counts(struct cox_buf *out, const struct counts *n)
{
    cox_buf_printf(
        out,
        "\"in_flight\":%u,\"in_flight_max\":%u,\"calls\":%llu,\"answered\":%llu,\"cancelled\":%llu,"
        "\"refused\":%llu,\"faulted\":%llu,\"last_cancel_ns\":%lld",
        n->in_flight, n->in_flight_max, (unsigned long long)n->calls, (unsigned long long)n->answered,
        (unsigned long long)n->cancelled, (unsigned long long)n->refused, (unsigned long long)n->faulted,
        (long long)n->last_cancel_ns);
}

static void put_endpoint(struct cox_buf *out, const struct endpoint *e)
{
    struct engine_stats n;

    engine_stats(e->engine, &n);
    cox_buf_printf(out, "{\"endpoint\":%u,\"url\":\"%s\",", e->index, e->url);
    put_counts(out, &e->counts);
    cox_buf_printf(
        out,
        ",\"connections\":%zu,\"running\":%u,\"waiting\":%u,\"kv_blocks\":%u,\"kv_held\":%u,\"kv_kept\":%u,"
        "\"kv_evicted\":%llu,\"prompt_tokens\":%llu,\"cached_tokens\":%llu,\"computed_tokens\":%llu,"
        "\"generated_tokens\":%llu,\"preemptions\":%llu,\"faults\":",
        http_n_connections(e->http), n.running, n.waiting, n.kv_blocks, n.kv_held, n.kv_kept,
        (unsigned long long)n.kv_evicted, (unsigned long long)n.prompt_tokens,
        (unsigned long long)n.cached_tokens, (unsigned long long)n.computed_tokens,
        (unsigned long long)n.generated_tokens, (unsigned long long)n.preemptions);
    faults_put(out, &e->faults);
    cox_buf_append_str(out, "}");
}

static void answer_state(struct sim *s, struct http_conn *c)
{
    struct cox_buf out = { 0 };

    cox_buf_append_str(&out, "{\"simulator\":true,");
    put_counts(&out, &s->counts);
    cox_buf_printf(&out, ",\"calls_kept\":%llu,\"endpoints\":[",
                   (unsigned long long)(s->n_records < SIM_RECORDS_MAX ? s->n_records : SIM_RECORDS_MAX));
    for (uint32_t i = 0; i < s->n_endpoints; i++) {
        cox_buf_append_str(&out, i > 0 ? "," : "");
        put_endpoint(&out, &s->endpoints[i]);
    }
    cox_buf_append_str(&out, "]}\n");
    answer_json(c, 200, &out);
}

/* Calls that have ended, in that order; ?after=N goes on behind the N-th. */
static void answer_calls(struct sim *s, struct http_conn *c, struct cox_slice query)
{
    struct cox_buf out = { 0 }, text = { 0 };
    uint64_t at = 0, n = 0;

    cox_buf_append_slice(&text, query);
    const char *after = strstr(cox_buf_cstr(&text), "after=");
    if (after)
        at = strtoull(after + 6, NULL, 10);
    cox_buf_fini(&text);
    if (s->n_records > SIM_RECORDS_MAX && at < s->n_records - SIM_RECORDS_MAX)
        at = s->n_records - SIM_RECORDS_MAX;
    cox_buf_append_str(&out, "{\"calls\":[");
    for (; at < s->n_records && n < CALLS_A_PAGE; at++, n++) {
        const struct sim_record *r = &s->records[at % SIM_RECORDS_MAX];
        cox_buf_append_str(&out, n > 0 ? "," : "");
        cox_buf_printf(&out, "{\"id\":%llu,\"endpoint\":%u,\"request_id\":", (unsigned long long)r->id,
                       r->endpoint);
        cox_json_quote(&out, cox_slice_str(r->request_id));
        cox_buf_printf(
            &out,
            ",\"outcome\":\"%s\",\"stream\":%s,\"begun_ns\":%lld,\"first_ns\":%lld,\"ended_ns\":%lld,"
            "\"input_tokens\":%u,\"cached_tokens\":%u,\"output_tokens\":%u}",
            r->outcome, r->stream ? "true" : "false", (long long)r->begun_ns, (long long)r->first_ns,
            (long long)r->ended_ns, r->input_tokens, r->cached_tokens, r->output_tokens);
    }
    cox_buf_printf(&out, "],\"next\":%llu}\n", (unsigned long long)at);
    answer_json(c, 200, &out);
}

/* Which endpoints: the number that the object names, else `e`, else all. */
enum cox_err admin_set_faults(struct sim *s, struct endpoint *e, struct cox_slice json, struct cox_buf *error)
{
    struct cox_slice v;
    int64_t n = e ? (int64_t)e->index : -1;
    enum cox_err err = COX_OK;

    if (cox_json_check(json, NULL) == COX_OK && cox_json_kind(json) == COX_JSON_ARRAY) {
        struct cox_json_walk w = cox_json_walk(json);
        while (err == COX_OK && cox_json_next(&w)) {
            if (cox_json_kind(w.value) == COX_JSON_ARRAY)
                err = COX_ERR_INVALID;
            else
                err = admin_set_faults(s, e, w.value, error);
        }
        return err;
    }
    if (cox_json_check(json, NULL) == COX_OK && cox_json_member(json, "endpoint", &v)) {
        if (cox_json_string_is(v, cox_slice_str("all"))) {
            n = -1;
        } else if (cox_json_kind(v) != COX_JSON_NUMBER || !cox_json_int(v, &n) || n < 0 ||
                   n >= (int64_t)s->n_endpoints) {
            cox_buf_printf(error, "endpoint: \"all\" or a number below %u is expected", s->n_endpoints);
            return COX_ERR_INVALID;
        }
    }
    for (uint32_t i = 0; i < s->n_endpoints && err == COX_OK; i++) {
        struct endpoint *at = &s->endpoints[i];
        if (n >= 0 && (int64_t)i != n)
            continue;
        err = faults_read(&at->faults, json, error);
        if (err != COX_OK)
            break;
        engine_slow(at->engine, at->faults.slow_permille);
        err = http_refuse(at->http, at->faults.refuse);
        if (err != COX_OK)
            cox_buf_append_str(error, "refuse: its port is taken meanwhile");
    }
    return err;
}

static void answer_faults(struct sim *s, struct endpoint *e, struct http_conn *c,
                          const struct http_request *q)
{
    struct cox_buf out = { 0 }, error = { 0 };

    if (cox_slice_is(q->method, "POST") && admin_set_faults(s, e, q->body, &error) != COX_OK) {
        render_error(&out, 400, cox_buf_slice(&error), "invalid_request_error", NULL, NULL);
        cox_buf_fini(&error);
        answer_json(c, 400, &out);
        return;
    }
    cox_buf_append_str(&out, "{\"endpoints\":[");
    for (uint32_t i = 0; i < s->n_endpoints; i++) {
        cox_buf_append_str(&out, i > 0 ? "," : "");
        faults_put(&out, &s->endpoints[i].faults);
    }
    cox_buf_append_str(&out, "]}\n");
    answer_json(c, 200, &out);
}

/* Maxima and totals begin anew; what is in flight stays counted. */
static void reset_counts(struct sim *s)
{
    s->counts = (struct counts){ .in_flight = s->counts.in_flight, .in_flight_max = s->counts.in_flight };
    for (uint32_t i = 0; i < s->n_endpoints; i++) {
        struct counts *n = &s->endpoints[i].counts;
        *n = (struct counts){ .in_flight = n->in_flight, .in_flight_max = n->in_flight };
    }
    s->n_records = 0;
}

static void answer_metrics(struct endpoint *e, struct http_conn *c)
{
    struct cox_buf out = { 0 };

    if (e->faults.metrics == FAULT_METRICS_HANG)
        return;
    if (e->faults.metrics == FAULT_METRICS_404) {
        http_answer(c, 404, "text/plain", "", cox_slice_str("not found\n"));
        return;
    }
    if (e->faults.metrics == FAULT_METRICS_GARBAGE) {
        http_answer(c, 200, "text/plain", "",
                    cox_slice_str("<html>vllm:num_requests_running{ NaN NaN\n} 1e999 \x01\xff\n"));
        return;
    }
    if (e->faults.metrics != FAULT_METRICS_STALE || e->stale.len == 0) {
        cox_buf_clear(&e->stale);
        metrics_put(&e->stale, e);
    }
    cox_buf_append_slice(&out, cox_buf_slice(&e->stale));
    http_answer(c, 200, "text/plain; version=0.0.4; charset=utf-8", "", cox_buf_slice(&out));
    cox_buf_fini(&out);
}

static void answer_models(struct sim *s, struct http_conn *c)
{
    const struct sim_options *o = &s->options;
    struct cox_buf out = { 0 };

    cox_buf_append_str(&out, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < (o->n_models > 0 ? o->n_models : 1); i++) {
        cox_buf_append_str(&out, i > 0 ? ",{\"id\":" : "{\"id\":");
        cox_json_quote(&out, cox_slice_str(o->n_models > 0 ? o->models[i] : "sim"));
        cox_buf_printf(
            &out,
            ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"cox-modelsim\",\"max_model_len\":%llu}",
            (long long)s->created_s,
            (unsigned long long)(o->max_model_len > 0 ? o->max_model_len : o->engine.kv_tokens));
    }
    cox_buf_append_str(&out, "]}\n");
    answer_json(c, 200, &out);
}

bool admin_request(struct sim *s, struct endpoint *e, struct http_conn *c, const struct http_request *q)
{
    if (cox_slice_is(q->path, "/sim/state"))
        answer_state(s, c);
    else if (cox_slice_is(q->path, "/sim/calls"))
        answer_calls(s, c, q->query);
    else if (cox_slice_is(q->path, "/sim/faults"))
        answer_faults(s, e, c, q);
    else if (cox_slice_is(q->path, "/sim/reset") && cox_slice_is(q->method, "POST")) {
        reset_counts(s);
        answer_state(s, c);
    } else if (!e)
        return false;
    else if (cox_slice_is(q->path, "/sim/forget") && cox_slice_is(q->method, "POST")) {
        engine_forget(e->engine);
        answer_state(s, c);
    } else if (cox_slice_is(q->path, "/v1/models"))
        answer_models(s, c);
    else if (cox_slice_is(q->path, "/metrics"))
        answer_metrics(e, c);
    else if (cox_slice_is(q->path, "/health") || cox_slice_is(q->path, "/ping"))
        http_answer(c, 200, "application/json", "", cox_slice_str("{}"));
    else
        return false;
    return true;
}
