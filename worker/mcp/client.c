#include "client_state.h"

#include "tools.h"

#include "../wiped.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <inttypes.h>
#include <string.h>

#define INVALID_PARAMS (-32602)
#define METHOD_NOT_FOUND (-32601)
#define INVALID_REQUEST (-32600)

/* ---------------------------------------------------------------- ends */

static void forget(struct mcp_client *c, struct mcp_request *r)
{
    if (r->id)
        cox_map64_remove(&c->flying, r->id);
    r->id = 0;
    cox_list_remove(&r->link);
}

static void free_request(struct mcp_request *r)
{
    wiped_fini(&r->state);
    cox_buf_fini(&r->cursor);
    cox_buf_fini(&r->tools);
    cox_mapb_fini(&r->names);
}

static void end(struct mcp_client *c, struct mcp_request *r, struct outcome *o)
{
    forget(c, r);
    r->asked = false;
    free_request(r);
    r->on_done(r, o);
    outcome_fini(o);
}

static void fail(struct mcp_client *c, struct mcp_request *r, enum cox_code code, struct cox_slice message)
{
    struct outcome o;

    outcome_init(&o);
    o.code = code;
    outcome_say(&o, message);
    end(c, r, &o);
}

static void fail_all(struct mcp_client *c, enum cox_code code, struct cox_slice message)
{
    struct cox_list *lists[] = { &c->waiting, &c->asked };

    for (size_t i = 0; i < 2; i++)
        while (!cox_list_empty(lists[i]))
            fail(c, COX_CONTAINER_OF(lists[i]->next, struct mcp_request, link), code, message);
}

void mcp_break_off(struct mcp_client *c, enum cox_code code, struct cox_slice message)
{
    if (c->state == BROKEN)
        return;
    c->state = BROKEN;
    fail_all(c, code, message);
    c->ops->broken(c->user);
}

void mcp_client_gone(struct mcp_client *c, enum cox_code code, struct cox_slice message)
{
    if (c->state == BROKEN)
        return;
    c->state = BROKEN;
    fail_all(c, code, message);
}

/* Who goes on sending what answers nothing is not listened to for ever. */
static void odd(struct mcp_client *c)
{
    if (++c->n_odd > MCP_ODD_MAX && !COX_PLANTED("mcp-listens-for-ever"))
        mcp_break_off(
            c, COX_CODE_OUTPUT_INVALID,
            cox_slice_str("mcp: the server sent more than 1000 messages that are none, or that answer "
                          "what nobody asked"));
}

/* ---------------------------------------------------------------- what is sent */

void mcp_put_client_info(struct cox_buf *out)
{
    cox_buf_append_str(out, "{\"name\":\"coxswain\",\"version\":\"" COX_VERSION "\"}");
}

void mcp_put_modern(struct cox_buf *out)
{
    cox_buf_append_str(out, "\"io.modelcontextprotocol/protocolVersion\":\"" MCP_VERSION "\","
                            "\"io.modelcontextprotocol/clientInfo\":");
    mcp_put_client_info(out);
    cox_buf_append_str(out, ",\"io.modelcontextprotocol/clientCapabilities\":{}");
}

static void send_message(struct mcp_client *c, uint64_t id, const char *method, struct cox_slice text,
                         struct cox_slice tool, struct cox_slice params)
{
    bool probes = id && id == c->probe_id;

    c->ops->send(c->user, &(struct mcp_outgoing){ .id = id,
                                                  .method = method,
                                                  .text = text,
                                                  .tool = tool,
                                                  .params = params,
                                                  .modern = c->modern || probes,
                                                  .version = c->modern || probes ? MCP_VERSION
                                                             : c->state == READY ? c->version
                                                                                 : NULL });
}

void mcp_send_plain(struct mcp_client *c, uint64_t id, const char *method, struct cox_buf *text)
{
    send_message(c, id, method, cox_buf_slice(text), cox_slice(NULL, 0), cox_slice(NULL, 0));
    cox_buf_fini(text);
}

static void put_meta(struct mcp_client *c, struct cox_buf *out, const struct mcp_request *r)
{
    cox_buf_append_str(out, "\"_meta\":{");
    if (c->modern) {
        mcp_put_modern(out);
        cox_buf_append_str(out, ",");
    }
    if (r->traceparent.len > 0) {
        cox_buf_append_str(out, "\"traceparent\":");
        cox_json_quote(out, r->traceparent);
        cox_buf_append_str(out, ",");
    }
    cox_buf_printf(out, "\"progressToken\":%" PRIu64 "}}}", r->token);
}

static void put_call(struct cox_buf *out, const struct mcp_request *r)
{
    cox_buf_append_str(out, "\"name\":");
    cox_json_compact(out, r->tool);
    cox_buf_append_str(out, ",\"arguments\":");
    cox_json_compact(out, r->arguments);
    if (r->state.len > 0) {
        cox_buf_append_str(out, ",\"requestState\":");
        cox_buf_append_slice(out, cox_buf_slice(&r->state));
    }
    cox_buf_append_str(out, ",");
}

/* The headers that the tool's schema asks for, as far as it is known. */
static void put_params(struct mcp_client *c, struct cox_buf *out, const struct mcp_request *r)
{
    struct cox_slice tool, schema;

    if (c->http && c->modern && mcp_tools_find(cox_buf_slice(&c->tools), r->tool, &tool) &&
        cox_json_member(tool, "input_schema", &schema))
        (void)mcp_params_put(out, schema, r->arguments);
}

void mcp_send_request(struct mcp_client *c, struct mcp_request *r)
{
    const char *method = r->calling ? "tools/call" : "tools/list";
    struct cox_buf text = { 0 }, params = { 0 };

    wiped_reserve(&text, r->arguments.len + r->tool.len + r->state.len + r->cursor.len + 1024);
    wiped_reserve(&params, r->arguments.len * 2 + (MCP_PARAMS_MAX << 8));
    r->id = ++c->last_id;
    if (!r->token)
        r->token = r->id;
    r->session = c->session;
    cox_map64_set(&c->flying, r->id, r);
    cox_list_remove(&r->link);
    cox_list_push_back(&c->asked, &r->link);
    cox_buf_printf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"method\":\"%s\",\"params\":{", r->id,
                   method);
    if (r->calling) {
        put_call(&text, r);
        put_params(c, &params, r);
    } else if (r->cursor.len > 0) {
        cox_buf_append_str(&text, "\"cursor\":");
        cox_buf_append_slice(&text, cox_buf_slice(&r->cursor));
        cox_buf_append_str(&text, ",");
    }
    put_meta(c, &text, r);
    send_message(c, r->id, method, cox_buf_slice(&text), r->calling ? r->tool : cox_slice(NULL, 0),
                 cox_buf_slice(&params));
    wiped_fini(&text);
    wiped_fini(&params);
}

/* Asked again, from where it was, once the server is known. */
static void wait_again(struct mcp_client *c, struct mcp_request *r)
{
    forget(c, r);
    cox_list_push_back(&c->waiting, &r->link);
}

/* ---------------------------------------------------------------- answers */

static void say_to(struct mcp_request *r, const struct cox_buf *text)
{
    if (text->len > 0)
        r->on_log(r, cox_buf_slice(text));
}

static void keep_tools(struct mcp_client *c, struct mcp_request *r)
{
    cox_buf_clear(&c->tools);
    cox_buf_append_slice(&c->tools, cox_buf_slice(&r->tools));
    c->tools_until_ms = r->now_ms + r->ttl_ms;
}

static void give_tools(struct mcp_client *c, struct mcp_request *r, struct cox_slice tools)
{
    struct outcome o;

    outcome_init(&o);
    cox_buf_append_str(&o.output, "{\"tools\":[");
    cox_buf_append_slice(&o.output, tools);
    cox_buf_append_str(&o.output, "]}");
    end(c, r, &o);
}

/* The next page goes by the cursor that this one gave. NULL: it goes on. */
static const char *next_page(struct mcp_request *r, struct cox_slice cursor)
{
    if (cox_slice_eq(cursor, cox_buf_slice(&r->cursor)))
        return "mcp: tools/list: the server gives the same cursor again and again";
    if (++r->n_pages >= MCP_PAGES_MAX)
        return "mcp: tools/list: expected at most 1000 pages";
    if (cursor.len > MCP_TOOL_LEN_MAX)
        return "mcp: tools/list: expected a cursor of at most 256 KiB";
    cox_buf_clear(&r->cursor);
    cox_buf_append_slice(&r->cursor, cursor);
    return NULL;
}

static const char *take_page(struct mcp_client *c, struct mcp_request *r, struct cox_slice result,
                             bool *ret_more)
{
    struct cox_buf log = { 0 };
    struct cox_slice value;
    int64_t ttl_ms;
    int n = mcp_tools_take(&r->tools, result, c->http && c->modern, &r->names, &log);

    say_to(r, &log);
    cox_buf_fini(&log);
    if (n < 0)
        return "mcp: tools/list: expected \"tools\" to be a list";
    r->n_tools += (unsigned)n;
    if (r->n_tools > MCP_TOOLS_MAX || r->tools.len > MCP_LIST_LEN_MAX)
        return "mcp: tools/list: expected at most 4096 tools and 4 MiB about them";
    r->ttl_ms = MCP_LIST_TTL_MS;
    if (cox_json_member(result, "ttlMs", &value) && cox_json_int(value, &ttl_ms) && ttl_ms >= 0)
        r->ttl_ms = ttl_ms < MCP_LIST_TTL_MAX_MS ? ttl_ms : MCP_LIST_TTL_MAX_MS;
    *ret_more = cox_json_member(result, "nextCursor", &value) && cox_json_kind(value) == COX_JSON_STRING;
    return *ret_more ? next_page(r, value) : NULL;
}

static void on_page(struct mcp_client *c, struct mcp_request *r, struct cox_slice result)
{
    bool more = false;
    const char *why = take_page(c, r, result, &more);

    if (why) {
        fail(c, r, COX_CODE_OUTPUT_INVALID, cox_slice_str(why));
        return;
    }
    if (more) {
        mcp_send_request(c, r);
        return;
    }
    keep_tools(c, r);
    if (r->what == MCP_LIST_TOOLS) {
        give_tools(c, r, cox_buf_slice(&r->tools));
        return;
    }
    r->calling = true;
    mcp_send_request(c, r);
}

static void say_inputs(struct mcp_client *c, struct mcp_request *r, struct cox_slice inputs)
{
    struct cox_buf text = { 0 };
    struct cox_slice method;
    const char *separator = "";

    cox_buf_append_str(&text, "mcp: the tool asks for what no step can give: ");
    for (struct cox_json_walk w = cox_json_walk(inputs); cox_json_next(&w) && text.len < 300;)
        if (cox_json_member(w.value, "method", &method) && cox_json_kind(method) == COX_JSON_STRING) {
            cox_buf_append_str(&text, separator);
            cox_json_unquote(&text, cox_slice(method.data, method.len));
            separator = ", ";
        }
    fail(c, r, COX_CODE_INPUT_INVALID, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

/* It wants the request once more, with what it gives along, or with what people or models would have to say.
 */
static void on_input_required(struct mcp_client *c, struct mcp_request *r, struct cox_slice result)
{
    struct cox_slice value;

    if (cox_json_member(result, "inputRequests", &value) && cox_json_count(value) > 0) {
        say_inputs(c, r, value);
        return;
    }
    if (++r->rounds > MCP_ROUNDS_MAX) {
        fail(
            c, r, COX_CODE_OUTPUT_INVALID,
            cox_slice_str("mcp: the server wants the same call again and again: expected a result within 8"));
        return;
    }
    wiped_fini(&r->state);
    if (cox_json_member(result, "requestState", &value) && cox_json_kind(value) == COX_JSON_STRING)
        cox_buf_append_slice(&r->state, value);
    mcp_send_request(c, r);
}

static void on_result(struct mcp_client *c, struct mcp_request *r, struct cox_slice result)
{
    struct cox_slice type;
    struct outcome o;

    if (cox_json_member(result, "resultType", &type) &&
        !cox_json_string_is(type, cox_slice_str("complete"))) {
        if (r->calling && cox_json_string_is(type, cox_slice_str("input_required")))
            on_input_required(c, r, result);
        else
            fail(c, r, COX_CODE_OUTPUT_INVALID,
                 cox_slice_str("mcp: a result of another type than \"complete\""));
        return;
    }
    if (!r->calling) {
        on_page(c, r, result);
        return;
    }
    outcome_init(&o);
    mcp_result_read(result, &o);
    end(c, r, &o);
}

static void on_error(struct mcp_client *c, struct mcp_request *r, const struct mcp_message *m)
{
    bool is_ours = m->code == INVALID_PARAMS || m->code == METHOD_NOT_FOUND || m->code == INVALID_REQUEST;
    struct cox_buf text = { 0 };

    if (m->code == MCP_HEADER_MISMATCH && c->http && c->modern && r->calling && !r->relisted) {
        /* The tool may have another schema by now, or nobody has looked at it yet. */
        r->relisted = true;
        r->calling = false;
        r->n_pages = r->n_tools = 0;
        cox_buf_clear(&r->cursor);
        cox_buf_clear(&r->tools);
        cox_mapb_fini(&r->names);
        mcp_send_request(c, r);
        return;
    }
    cox_buf_printf(&text, "mcp: the server answered %s with error %" PRId64 ": ",
                   r->calling ? "tools/call" : "tools/list", m->code);
    cox_json_unquote(&text, m->why);
    fail(c, r, is_ours ? COX_CODE_INPUT_INVALID : COX_CODE_INTERNAL, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

static void on_answer(struct mcp_client *c, const struct mcp_message *m)
{
    struct mcp_request *r;

    if (m->id && m->id == c->probe_id) {
        mcp_probed(c, m);
        return;
    }
    if (m->id && m->id == c->init_id) {
        mcp_initialized(c, m);
        return;
    }
    r = m->id ? cox_map64_get(&c->flying, m->id) : NULL;
    if (!r) {
        odd(c);
        return;
    }
    cox_map64_remove(&c->flying, r->id);
    r->id = 0;
    if (m->kind == MCP_RESULT)
        on_result(c, r, m->result);
    else
        on_error(c, r, m);
}

/* ---------------------------------------------------------------- what the server asks and tells */

static void answer_request(struct mcp_client *c, const struct mcp_message *m)
{
    bool is_ping = cox_json_string_is(m->method, cox_slice_str("ping"));
    struct cox_buf text = { 0 };

    if (m->their_id.len > 256) {
        odd(c);
        return;
    }
    cox_buf_append_str(&text, "{\"jsonrpc\":\"2.0\",\"id\":");
    cox_buf_append_slice(&text, m->their_id);
    cox_buf_append_str(&text, is_ping
                                  ? ",\"result\":{}}"
                                  : ",\"error\":{\"code\":-32601,\"message\":\"this client offers no such "
                                    "method\"}}");
    mcp_send_plain(c, 0, NULL, &text);
}

static void put_text(struct cox_buf *out, struct cox_slice params, const char *name, const char *before)
{
    struct cox_slice value;

    if (!cox_json_member(params, name, &value) || cox_json_kind(value) == COX_JSON_NULL)
        return;
    cox_buf_append_str(out, before);
    if (cox_json_kind(value) == COX_JSON_STRING)
        cox_json_unquote(out, value);
    else
        cox_json_compact(out, value);
}

static void on_progress(struct mcp_client *c, struct cox_slice params)
{
    struct cox_slice value;
    struct cox_buf text = { 0 };
    int64_t token = 0;

    if (!cox_json_member(params, "progressToken", &value) || !cox_json_int(value, &token))
        return;
    cox_buf_append_str(&text, "progress");
    put_text(&text, params, "progress", " ");
    put_text(&text, params, "total", "/");
    put_text(&text, params, "message", ": ");
    cox_buf_append_str(&text, "\n");
    COX_LIST_FOR_EACH (it, &c->asked) {
        struct mcp_request *r = COX_CONTAINER_OF(it, struct mcp_request, link);

        if (r->token == (uint64_t)token)
            say_to(r, &text);
    }
    cox_buf_fini(&text);
}

/* To those who wait: which of them is meant is not said, unless it came with an answer. */
static void tell(struct mcp_client *c, struct cox_slice text, uint64_t via)
{
    struct cox_list *lists[] = { &c->waiting, &c->asked };
    struct mcp_request *one = via ? cox_map64_get(&c->flying, via) : NULL;

    if (one) {
        one->on_log(one, text);
        return;
    }
    for (size_t i = 0; i < 2; i++)
        COX_LIST_FOR_EACH (it, lists[i]) {
            struct mcp_request *r = COX_CONTAINER_OF(it, struct mcp_request, link);

            r->on_log(r, text);
        }
}

void mcp_client_say(struct mcp_client *c, struct cox_slice text)
{
    tell(c, text, 0);
}

static void on_notification(struct mcp_client *c, const struct mcp_message *m, uint64_t via)
{
    struct cox_buf text = { 0 };

    if (cox_json_string_is(m->method, cox_slice_str("notifications/progress"))) {
        on_progress(c, m->params);
    } else if (cox_json_string_is(m->method, cox_slice_str("notifications/tools/list_changed"))) {
        c->tools_until_ms = 0;
    } else if (cox_json_string_is(m->method, cox_slice_str("notifications/message"))) {
        put_text(&text, m->params, "level", "");
        put_text(&text, m->params, "logger", " ");
        put_text(&text, m->params, "data", ": ");
        cox_buf_append_str(&text, "\n");
        tell(c, cox_buf_slice(&text), via);
    }
    cox_buf_fini(&text);
}

static bool take_one(struct mcp_client *c, struct cox_slice text, uint64_t via)
{
    struct mcp_message m;

    if (mcp_message_read(text, &m)) {
        odd(c);
        return false;
    }
    c->n_heard++;
    if (m.kind == MCP_ERROR && !m.id)
        m.id = via; /* it could not read what it was asked */
    if (m.kind == MCP_REQUEST)
        answer_request(c, &m);
    else if (m.kind == MCP_NOTIFICATION)
        on_notification(c, &m, via);
    else
        on_answer(c, &m);
    return true;
}

/* What is no JSON may have been an answer, and who waits for that would wait for ever. */
static void refuse_text(struct mcp_client *c, struct cox_slice text, uint64_t via,
                        const struct cox_json_place *place)
{
    struct cox_buf message = { 0 };
    struct cox_slice value;
    int64_t id = 0;

    odd(c);
    if (cox_json_member(text, "id", &value) && cox_json_int(value, &id) && id > 0)
        via = (uint64_t)id;
    if (place->too_deep)
        cox_buf_append_str(
            &message,
            "mcp: the server's answer is nested too deep to be read: expected JSON at most 64 deep");
    else
        cox_buf_printf(&message, "mcp: the server's answer is no JSON: line %u, column %u: expected %s",
                       place->line, place->column, place->expected ? place->expected : "at most 64 MiB");
    mcp_client_failed(c, via, COX_CODE_OUTPUT_INVALID, cox_buf_slice(&message));
    cox_buf_fini(&message);
}

bool mcp_client_take(struct mcp_client *c, struct cox_slice text, uint64_t via)
{
    struct cox_json_place place = { 0 };
    bool ok = true;

    if (c->state == BROKEN)
        return true;
    if (text.len > MCP_MESSAGE_LEN_MAX || cox_json_check(text, &place) != COX_OK) {
        refuse_text(c, text, via, &place);
        return false;
    }
    if (cox_json_kind(text) != COX_JSON_ARRAY)
        return take_one(c, cox_json_trim(text), via);
    for (struct cox_json_walk w = cox_json_walk(text); cox_json_next(&w) && c->state != BROKEN;)
        ok = take_one(c, w.value, via) && ok; /* a batch, as revision 2025-03-26 has them */
    return ok;
}

/* ---------------------------------------------------------------- what became of a request */

static enum cox_code code_of_status(long status)
{
    if (status == 408 || status == 425 || status == 429 || status >= 500)
        return COX_CODE_UNAVAILABLE;
    return status == 401 || status == 403 ? COX_CODE_DENIED : COX_CODE_INPUT_INVALID;
}

static void put_status(struct cox_buf *out, long status, struct cox_slice body)
{
    cox_buf_printf(out, "mcp: the server answered %ld", status);
    if (status == 401)
        cox_buf_append_str(out, ", it wants to know who asks: expected `headers` with Authorization");
    if (status >= 300 && status < 400)
        cox_buf_append_str(out, ", it is elsewhere: expected its own URL, redirects are not followed");
    cox_buf_append_str(out, ": ");
    cox_buf_append_slice(out, cox_slice(body.data, body.len < 300 ? body.len : 300));
}

/* The same request in a new session, once: a server that forgets each at once would be asked for ever. */
static bool ask_in_new_session(struct mcp_client *c, uint64_t id)
{
    struct mcp_request *r = cox_map64_get(&c->flying, id);

    if (!r || c->modern || r->resent || COX_PLANTED("mcp-keeps-lost-session"))
        return false;
    r->resent = true;
    wait_again(c, r);
    if (r->session < c->session && c->state == READY)
        mcp_send_request(c, r); /* another one found out, and there is a new one by now */
    else if (c->state == READY)
        mcp_initialize(c);
    return true;
}

/* Of an answer that is no success: the error in it, when there is one that says what is wrong. */
static bool take_error(struct mcp_client *c, uint64_t id, struct cox_slice body)
{
    struct mcp_message m;

    if (body.len == 0 || cox_json_check(body, NULL) != COX_OK || mcp_message_read(cox_json_trim(body), &m) ||
        m.kind != MCP_ERROR)
        return false;
    if (id == c->init_id || (id == c->probe_id && !mcp_is_modern_error(m.code)))
        return false;
    m.id = id;
    c->n_heard++;
    on_answer(c, &m);
    return true;
}

void mcp_client_rejected(struct mcp_client *c, uint64_t id, long status, struct cox_slice body,
                         bool in_session)
{
    bool probes = id && id == c->probe_id;
    enum cox_code code = code_of_status(status);
    struct cox_buf text = { 0 };

    if (c->state == BROKEN || !id)
        return;
    if (in_session && status == 404) {
        if (!ask_in_new_session(c, id))
            mcp_client_failed(c, id, COX_CODE_UNAVAILABLE,
                              cox_slice_str("mcp: the server loses its session again and again"));
        return;
    }
    if (code != COX_CODE_DENIED && status != 429 && take_error(c, id, body))
        return;
    if (probes && (code == COX_CODE_INPUT_INVALID || status == 500 || status == 501) && status >= 400) {
        c->probe_id = 0;
        mcp_go_legacy(c);
        return;
    }
    put_status(&text, status, body);
    if (id == c->init_id && (status == 400 || status == 404 || status == 405))
        cox_buf_append_str(&text, " (it may speak the transport of 2024-11-05, HTTP with SSE, which is not "
                                  "known here)");
    mcp_client_failed(c, id, code, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

void mcp_client_failed(struct mcp_client *c, uint64_t id, enum cox_code code, struct cox_slice message)
{
    struct mcp_request *r = id ? cox_map64_get(&c->flying, id) : NULL;

    if (r)
        fail(c, r, code, message);
    else if (id && (id == c->probe_id || id == c->init_id))
        mcp_break_off(c, code, message);
}

/* ---------------------------------------------------------------- questions */

void mcp_client_ask(struct mcp_client *c, struct mcp_request *r)
{
    r->asked = true;
    r->calling = r->what == MCP_CALL_TOOL;
    cox_list_init(&r->link);
    cox_list_push_back(&c->waiting, &r->link);
    if (c->state == BROKEN)
        fail(c, r, COX_CODE_UNAVAILABLE, cox_slice_str("mcp: the server is gone"));
    else if (r->what == MCP_LIST_TOOLS && c->tools_until_ms > r->now_ms)
        give_tools(c, r, cox_buf_slice(&c->tools));
    else if (c->state == NEW)
        mcp_probe(c);
    else if (c->state == READY)
        mcp_send_request(c, r);
}

void mcp_client_cancel(struct mcp_client *c, struct mcp_request *r)
{
    uint64_t id = r->id;
    struct cox_buf text = { 0 };

    if (!r->asked)
        return;
    forget(c, r);
    r->asked = false;
    free_request(r);
    if (!id || c->state == BROKEN)
        return;
    c->ops->drop(c->user, id);
    if (c->http && c->modern)
        return; /* there the closed connection says it */
    cox_buf_printf(
        &text,
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%" PRIu64
        ",\"reason\":\"the step was stopped\"}}",
        id);
    mcp_send_plain(c, 0, "notifications/cancelled", &text);
}

/* ---------------------------------------------------------------- life */

struct mcp_client *mcp_client_create(const struct mcp_client_ops *ops, void *user, bool http)
{
    struct mcp_client *c = COX_NEW(struct mcp_client);

    c->ops = ops;
    c->user = user;
    c->http = http;
    cox_list_init(&c->waiting);
    cox_list_init(&c->asked);
    return c;
}

void mcp_client_destroy(struct mcp_client *c)
{
    if (!c)
        return;
    cox_map64_fini(&c->flying);
    cox_buf_fini(&c->tools);
    cox_free(c);
}

bool mcp_client_is_ready(const struct mcp_client *c)
{
    return c->state == READY;
}

bool mcp_client_is_broken(const struct mcp_client *c)
{
    return c->state == BROKEN;
}

bool mcp_client_is_modern(const struct mcp_client *c)
{
    return c->modern;
}

uint64_t mcp_client_n_heard(const struct mcp_client *c)
{
    return c->n_heard;
}

bool mcp_client_awaits(const struct mcp_client *c, uint64_t id)
{
    return id && c->state != BROKEN &&
           (id == c->probe_id || id == c->init_id || cox_map64_get(&c->flying, id));
}
