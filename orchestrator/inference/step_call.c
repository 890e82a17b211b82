/* One attempt at a model step: what is asked, what came, and what that means for the step. */
#include "output_cap.h"
#include "steps_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/schema.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_MS INT64_C(1000000)

/* ---- how it ended ---- */

void step_call_fail(struct step_call *c, enum cox_code code, const char *fmt, ...)
{
    char text[COX_ERROR_MESSAGE_LEN_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    c->status = code == COX_CODE_TIMEOUT     ? COX_ATTEMPT_TIMED_OUT
                : code == COX_CODE_CANCELLED ? COX_ATTEMPT_CANCELLED
                                             : COX_ATTEMPT_FAILED;
    c->code = code;
    cox_buf_clear(&c->output);
    cox_buf_clear(&c->message);
    cox_buf_append_str(&c->message, text);
}

void step_call_end(struct step_call *c)
{
    c->call = NULL;
    cox_list_remove(&c->node);
    cox_list_push_back(&c->steps->ended, &c->node);
    steps_stir(c->steps);
}

/* ---- the output ---- */

static void put_member(struct cox_buf *out, const char *name, const struct cox_buf *text)
{
    cox_buf_printf(out, "\"%s\":", name);
    cox_json_quote(out, cox_buf_slice(text));
}

static bool has_id(const struct step_answer *a, uint32_t n, uint32_t but, const struct cox_buf *id)
{
    for (uint32_t i = 0; i < n; i++) {
        if (i != but && cox_slice_eq(cox_buf_slice(&a->tools[i].id), cox_buf_slice(id)))
            return true;
    }
    return false;
}

/* Results are told apart by the ids of their calls: one without, or with another's, gets its own. */
static void mend_ids(struct step_answer *a)
{
    for (uint32_t i = 0; i < a->n_tools; i++) {
        struct cox_buf *id = &a->tools[i].id;
        bool taken = id->len == 0 || has_id(a, i, i, id);

        for (uint32_t k = i; taken; k++) {
            cox_buf_clear(id);
            cox_buf_printf(id, "call_%u", k);
            taken = has_id(a, a->n_tools, i, id);
        }
    }
}

static void put_tools(struct cox_buf *out, const struct step_answer *a)
{
    cox_buf_append_str(out, ",\"tool_calls\":[");
    for (uint32_t i = 0; i < a->n_tools; i++) {
        cox_buf_append_str(out, i ? ",{" : "{");
        put_member(out, "id", &a->tools[i].id);
        cox_buf_append_str(out, ",\"type\":\"function\",\"function\":{");
        put_member(out, "name", &a->tools[i].name);
        cox_buf_append_str(out, ",");
        put_member(out, "arguments", &a->tools[i].arguments);
        cox_buf_append_str(out, "}}");
    }
    cox_buf_append_str(out, "]");
}

static void put_output(struct step_call *c, const struct router_books *books)
{
    struct cox_buf *out = &c->output;
    const struct step_answer *a = &c->answer;

    mend_ids(&c->answer);
    if (c->schema.len > 0) {
        cox_json_compact(out, cox_buf_slice(&a->text));
        return;
    }
    cox_buf_append_str(out, "{\"content\":");
    if (a->text.len > 0 || a->n_tools == 0)
        cox_json_quote(out, cox_buf_slice(&a->text));
    else
        cox_buf_append_str(out, "null");
    if (a->n_tools > 0)
        put_tools(out, a);
    cox_buf_append_str(out, ",");
    put_member(out, "finish_reason", &a->finish_reason);
    cox_buf_append_str(out, ",");
    put_member(out, "model", c->model.len > 0 ? &c->model : &a->model);
    cox_buf_printf(out,
                   ",\"usage\":{\"input_tokens\":%" PRIu64 ",\"output_tokens\":%" PRIu64
                   ",\"cached_tokens\":%" PRIu64 "}}",
                   books->input_tokens, books->output_tokens, books->cached_tokens);
}

/* Whether the text is the JSON that was asked for; says so when it is not. */
static bool check_schema(struct step_call *c)
{
    struct cox_slice text = cox_buf_slice(&c->answer.text);
    struct cox_json_place at;
    struct cox_buf why = { 0 };

    if (c->schema.len == 0 || COX_PLANTED("answer-unchecked"))
        return true;
    if (cox_json_check(text, &at) != COX_OK) {
        step_call_fail(
            c, COX_CODE_OUTPUT_INVALID, "the model's answer is not JSON: expected %s at line %u, column %u%s",
            at.expected, at.line, at.column,
            cox_slice_is(cox_buf_slice(&c->answer.finish_reason), "length") ? "; it was cut off at max_tokens"
                                                                            : "");
        return false;
    }
    bool ok = cox_schema_match(c->schema, text, &why) == COX_OK;

    if (!ok)
        step_call_fail(c, COX_CODE_OUTPUT_INVALID, "the model's answer does not fit output_schema: %s",
                       cox_buf_cstr(&why));
    cox_buf_fini(&why);
    return ok;
}

static void succeed(struct step_call *c, const struct router_books *books)
{
    if (!check_schema(c))
        return;
    put_output(c, books);
    c->status = COX_ATTEMPT_SUCCEEDED;
    c->code = COX_CODE_NONE;
}

/* ---- failures ---- */

static bool says_context_length(const struct cox_buf *refusal)
{
    static const char *const words[] = { "context_length", "context length", "maximum context",
                                         "too many tokens", "exceeds the available context" };
    struct cox_slice body = cox_buf_slice(refusal);

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (body.len > 0 && memmem(body.data, body.len, words[i], strlen(words[i])))
            return true;
    return false;
}

/* Of an answer that was passed on though it is a refusal. */
static enum cox_code code_of(const struct step_call *c)
{
    switch (c->http_status) {
    case 401:
    case 403:
        return COX_CODE_DENIED;
    case 408:
        return COX_CODE_TIMEOUT;
    case 413:
        return COX_CODE_CONTEXT_LENGTH;
    case 429:
        return COX_CODE_RESOURCE_EXHAUSTED;
    case 502:
    case 503:
    case 504:
        return COX_CODE_UNAVAILABLE;
    default:
        return says_context_length(&c->refusal) ? COX_CODE_CONTEXT_LENGTH : COX_CODE_MODEL_ERROR;
    }
}

static void fail_by_status(struct step_call *c)
{
    struct cox_buf said = { 0 };

    step_answer_put_refusal(&said, cox_buf_slice(&c->refusal));
    step_call_fail(c, code_of(c), "the model server answered %d: %s", c->http_status, cox_buf_cstr(&said));
    cox_buf_fini(&said);
}

static void fail_by_router(struct step_call *c, enum router_end how, const struct router_error *error)
{
    static const char *const texts[] = { [ROUTER_ANSWERED] = "the answer was not passed on",
                                         [ROUTER_REFUSED] = "the router refused the call",
                                         [ROUTER_FAILED] = "no endpoint answered",
                                         [ROUTER_BROKEN] = "the answer broke off",
                                         [ROUTER_CANCELLED] = "cancelled while it ran" };

    if (how == ROUTER_CANCELLED)
        step_call_fail(c, COX_CODE_CANCELLED, "%s", texts[how]);
    else
        step_call_fail(c, error && error->code != COX_CODE_NONE ? error->code : COX_CODE_UNAVAILABLE, "%s",
                       error && error->message ? error->message : texts[how]);
}

static void judge(struct step_call *c, enum router_end how, const struct router_error *error,
                  const struct router_books *books)
{
    if (c->spoilt == COX_ERR_FULL) {
        step_call_fail(c, COX_CODE_OUTPUT_TOO_LARGE, "the model's answer is longer than %u MiB",
                       (unsigned)(STEP_ANSWER_LEN_MAX >> 20));
    } else if (c->spoilt == COX_ERR_UNAVAILABLE) {
        step_call_fail(c, COX_CODE_UNAVAILABLE,
                       "the answers of all model steps under way have more than %zu MiB",
                       c->steps->config.held_len_max >> 20);
    } else if (how == ROUTER_ANSWERED && c->http_status / 100 != 2) {
        if (error && error->code != COX_CODE_NONE)
            fail_by_router(c, how, error);
        else
            fail_by_status(c);
    } else if (c->spoilt || (how == ROUTER_ANSWERED && step_answer_end(&c->answer) != COX_OK)) {
        step_call_fail(c, COX_CODE_MODEL_ERROR, "%s", cox_buf_cstr(&c->answer.error));
    } else if (how != ROUTER_ANSWERED) {
        fail_by_router(c, how, error);
    } else {
        succeed(c, books);
    }
}

static void add_books(struct cox_agent_usage *u, const struct router_books *b)
{
    if (COX_PLANTED("model-calls-free"))
        return;
    u->model_calls += b->tries > 0 || b->from_cache;
    u->input_tokens += b->input_tokens;
    u->output_tokens += b->output_tokens;
    u->cached_input_tokens += b->cached_tokens;
    u->wasted_tokens += b->wasted_tokens;
    u->cost_micros += b->cost_micros;
    if (b->currency[0] != '\0')
        memcpy(u->currency, b->currency, sizeof(u->currency));
}

/* ---- what the router tells ---- */

static void on_head(void *user, const struct router_head *head)
{
    struct step_call *c = user;

    c->http_status = head->status;
    if (head->model)
        cox_buf_append_str(&c->model, head->model);
    step_answer_begin(&c->answer, head->is_stream);
}

static void keep_refusal(struct step_call *c, struct cox_slice piece)
{
    size_t room = STEP_ANSWER_REFUSAL_LEN_MAX * 4 - c->refusal.len;

    cox_buf_append(&c->refusal, piece.data, piece.len < room ? piece.len : room);
}

static void on_data(void *user, struct cox_slice piece)
{
    struct step_call *c = user;
    size_t before = c->answer.text.len;

    if (c->spoilt || !c->steps)
        return;
    if (c->http_status / 100 != 2) {
        keep_refusal(c, piece);
        return;
    }
    c->spoilt = step_answer_feed(&c->answer, piece);
    if (!c->spoilt && !step_values_hold(c, step_answer_len(&c->answer)))
        c->spoilt = COX_ERR_UNAVAILABLE;
    if (c->spoilt) {
        cox_list_remove(&c->node);
        cox_list_push_back(&c->steps->spoilt, &c->node);
        steps_stir(c->steps);
    }
    if (c->log_wanted && c->answer.text.len > before && cox_list_empty(&c->chatty)) {
        cox_list_push_back(&c->steps->chatty, &c->chatty);
        steps_stir(c->steps);
    }
}

static void on_end(void *user, enum router_end how, const struct router_error *error,
                   const struct router_books *books)
{
    struct step_call *c = user;

    if (!c->steps) {
        step_call_destroy(c);
        return;
    }
    c->call = NULL;
    add_books(&c->usage, books);
    judge(c, how, error, books);
    if (c->status == COX_ATTEMPT_SUCCEEDED)
        step_values_keep(c);
    else
        step_call_end(c);
}

static const struct router_sink sink = { .on_head = on_head, .on_data = on_data, .on_end = on_end };

/* ---- what is asked ---- */

/* The request as it is, but streamed. */
static void put_body(struct cox_buf *out, struct cox_slice request)
{
    struct cox_slice stream = { 0 };
    bool any = false;

    for (struct cox_json_walk w = cox_json_walk(request); cox_json_next(&w); any = true)
        if (cox_json_string_is(w.key, cox_slice_str("stream")))
            stream = w.value;
    if (stream.len > 0) {
        size_t at = (size_t)(stream.data - request.data);

        cox_buf_append(out, request.data, at);
        cox_buf_append_str(out, "true");
        cox_buf_append(out, stream.data + stream.len, request.len - at - stream.len);
        return;
    }
    cox_buf_append_str(out, any ? "{\"stream\":true," : "{\"stream\":true");
    cox_buf_append(out, request.data + 1, request.len - 1);
}

static enum placement_band band_of(int32_t priority)
{
    return priority > 0 ? PLACEMENT_BAND_HIGH : priority < 0 ? PLACEMENT_BAND_LOW : PLACEMENT_BAND_NORMAL;
}

static int64_t sooner(int64_t a_ns, int64_t now_ns, uint64_t ms)
{
    int64_t b_ns;

    if (ms == 0 || ms > (uint64_t)(INT64_MAX - now_ns) / (uint64_t)NS_PER_MS)
        return a_ns;
    b_ns = now_ns + (int64_t)ms * NS_PER_MS;
    return b_ns < a_ns ? b_ns : a_ns;
}

static struct cox_slice spec_of(const struct step_call *c)
{
    return c->assign->n_items > 0 ? c->assign->items[0].spec_json : c->assign->spec_json;
}

static struct router_who who_of(const struct step_call *c)
{
    const struct cox_agent_assign *as = c->assign;
    int64_t now_ns = cox_clock_mono_ns();
    int64_t deadline_ns = sooner(sooner(INT64_MAX, now_ns, as->timeout_ms), now_ns, as->hint.deadline_ms);

    return (struct router_who){
        .tenant = as->tenant.len > 0 ? as->tenant : cox_slice_str("default"),
        .program = as->task_id,
        .band = band_of(as->hint.priority),
        .deadline_ns = deadline_ns,
        .critical_path_ms = as->hint.critical_path_ms > INT64_MAX ? 0 : (int64_t)as->hint.critical_path_ms,
        .cache_ms = c->cache_ms,
    };
}

void step_call_send(struct step_call *c, struct cox_buf *body)
{
    c->steps->n_calls++;
    c->call =
        router_start(c->steps->config.router,
                     &(struct router_request){
                         .api = CHAT_COMPLETIONS, .body = body, .who = who_of(c), .sink = &sink, .user = c });
    cox_buf_fini(body);
}

void step_call_ask(struct step_call *c, struct cox_slice request)
{
    struct cox_buf body = { 0 };

    put_body(&body, request);
    if (c->assign->hint.output_tokens > 0)
        output_cap_apply(&body, c->assign->hint.output_tokens);
    step_call_send(c, &body);
}

/* All at once: a request is long, and each look at it goes over all of it. Returns the conversation of an
 * agent's turn; empty: it is none. */
static struct cox_slice read_spec(struct step_call *c, struct cox_slice spec)
{
    struct cox_slice conversation = { 0 };
    int64_t n;

    for (struct cox_json_walk w = cox_json_walk(spec); cox_json_next(&w);) {
        if (cox_json_string_is(w.key, cox_slice_str("request")))
            c->request = w.value;
        else if (cox_json_string_is(w.key, cox_slice_str("output_schema")))
            c->schema = w.value;
        else if (cox_json_string_is(w.key, cox_slice_str("cache_ms")))
            c->cache_ms = cox_json_int(w.value, &n) && n > 0 ? n : 0;
        else if (cox_json_string_is(w.key, cox_slice_str("conversation")))
            conversation = w.value;
    }
    return conversation;
}

static void begin(struct step_call *c)
{
    struct cox_slice spec = spec_of(c), conversation;

    if (cox_json_kind(spec) == COX_JSON_ARRAY) {
        step_call_fail(c, COX_CODE_DENIED, "a model step cannot use secrets: workers alone know them");
        step_call_end(c);
        return;
    }
    conversation = read_spec(c, spec);
    if (conversation.len > 0) {
        step_values_converse(c, conversation);
    } else if (cox_json_kind(c->request) == COX_JSON_OBJECT) {
        step_values_fetch(c);
    } else {
        step_call_fail(c, COX_CODE_INPUT_INVALID, "the spec of a model step has no request");
        step_call_end(c);
    }
}

/* ---- the attempt ---- */

/* An item has ended as it has, and with that its batch was worked through; unless it was stopped, which is
 * for the agent to name. */
static struct cox_agent_result item_result(struct step_call *c, const struct cox_agent_result *result)
{
    c->item = (struct cox_agent_item_result){ .index = c->assign->items[0].index,
                                              .status = c->status,
                                              .code = c->code,
                                              .message = result->message,
                                              .output = result->output };
    return (struct cox_agent_result){ .status = COX_ATTEMPT_SUCCEEDED,
                                      .items = &c->item,
                                      .n_items = 1,
                                      .blobs = result->blobs,
                                      .n_blobs = result->n_blobs,
                                      .usage = result->usage,
                                      .run_us = result->run_us };
}

struct cox_agent_result step_call_result(struct step_call *c)
{
    const struct cox_agent_result result = {
        .status = c->status == COX_ATTEMPT_SUCCEEDED ? COX_ATTEMPT_SUCCEEDED : COX_ATTEMPT_FAILED,
        .code = c->code,
        .message = cox_buf_slice(&c->message),
        .output = cox_buf_slice(&c->output),
        .blobs = &c->kept,
        .n_blobs = c->is_kept,
        .usage = c->usage,
        .run_us = (uint64_t)(cox_clock_mono_ns() - c->started_ns) / 1000,
    };

    return c->assign->n_items == 0 || c->code == COX_CODE_CANCELLED ? result : item_result(c, &result);
}

struct step_call *step_call_start(struct steps *s, uint32_t slot, const struct cox_agent_assign *assign)
{
    struct step_call *c = COX_NEW(struct step_call);

    c->steps = s;
    c->slot = slot;
    c->assign = assign;
    c->started_ns = cox_clock_mono_ns();
    cox_list_init(&c->node);
    cox_list_init(&c->chatty);
    begin(c);
    return c;
}

void step_call_kill(struct step_call *c)
{
    if (c->call && !COX_PLANTED("cancelled-goes-on"))
        router_cancel(c->call);
    if (step_values_stop(c)) {
        step_call_fail(c, COX_CODE_CANCELLED, "cancelled while its values were exchanged");
        step_call_end(c);
    }
}

void step_call_abandon(struct step_call *c)
{
    step_values_fini(c);
    c->steps = NULL;
    cox_list_remove(&c->node);
    cox_list_remove(&c->chatty);
    if (c->call)
        router_cancel(c->call);
    else
        step_call_destroy(c);
}

void step_call_destroy(struct step_call *c)
{
    cox_list_remove(&c->node);
    cox_list_remove(&c->chatty);
    if (c->steps)
        step_values_fini(c);
    step_answer_fini(&c->answer);
    cox_buf_fini(&c->model);
    cox_buf_fini(&c->refusal);
    cox_buf_fini(&c->message);
    cox_buf_fini(&c->output);
    cox_free(c);
}
