/* Which era a server speaks: a question that only newer ones know, then the handshake of the others. */
#include "client_state.h"

#include "cox/json.h"

#include <inttypes.h>

static const char *const legacy[] = { "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05" };
#define N_LEGACY (sizeof(legacy) / sizeof(legacy[0]))

static void break_with(struct mcp_client *c, enum cox_code code, const char *what, struct cox_slice why)
{
    struct cox_buf text = { 0 };

    cox_buf_append_str(&text, what);
    cox_buf_append_slice(&text, why);
    mcp_break_off(c, code, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

void mcp_probe(struct mcp_client *c)
{
    struct cox_buf text = { 0 };

    c->state = PROBING;
    c->probe_id = ++c->last_id;
    cox_buf_printf(&text,
                   "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64
                   ",\"method\":\"server/discover\",\"params\":{\"_meta\":{",
                   c->probe_id);
    mcp_put_modern(&text);
    cox_buf_append_str(&text, "}}}");
    mcp_send_plain(c, c->probe_id, "server/discover", &text);
}

void mcp_initialize(struct mcp_client *c)
{
    struct cox_buf text = { 0 };

    c->state = INITIALIZING;
    c->session++;
    c->init_id = ++c->last_id;
    cox_buf_printf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"method\":\"initialize\",\"params\":{",
                   c->init_id);
    cox_buf_append_str(&text,
                       "\"protocolVersion\":\"" MCP_VERSION_LEGACY "\",\"capabilities\":{},\"clientInfo\":");
    mcp_put_client_info(&text);
    cox_buf_append_str(&text, "}}");
    mcp_send_plain(c, c->init_id, "initialize", &text);
}

static void get_ready(struct mcp_client *c)
{
    c->state = READY;
    c->probe_id = c->init_id = 0;
    c->ops->ready(c->user);
    while (c->state == READY && !cox_list_empty(&c->waiting))
        mcp_send_request(c, COX_CONTAINER_OF(c->waiting.next, struct mcp_request, link));
}

/* ---------------------------------------------------------------- the choice */

static void say_versions(struct mcp_client *c, struct cox_slice versions)
{
    struct cox_buf text = { 0 };

    cox_buf_append_str(&text, "mcp: the server speaks the versions ");
    cox_buf_append_slice(&text, cox_slice(versions.data, versions.len < 300 ? versions.len : 300));
    cox_buf_append_str(&text, " of the protocol; expected one of 2024-11-05 to 2026-07-28");
    mcp_break_off(c, COX_CODE_INPUT_INVALID, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

static bool has_version(struct cox_slice versions, const char *version)
{
    for (struct cox_json_walk w = cox_json_walk(versions); cox_json_next(&w);)
        if (cox_json_string_is(w.value, cox_slice_str(version)))
            return true;
    return false;
}

static void go_modern(struct mcp_client *c)
{
    c->modern = true;
    c->session++;
    get_ready(c);
}

/* Of the versions that it says it has. */
static void choose(struct mcp_client *c, struct cox_slice versions)
{
    if (has_version(versions, MCP_VERSION)) {
        go_modern(c);
        return;
    }
    for (size_t i = 0; i < N_LEGACY; i++)
        if (has_version(versions, legacy[i])) {
            if (!c->init_id)
                mcp_initialize(c);
            return;
        }
    say_versions(c, versions);
}

bool mcp_is_modern_error(int64_t code)
{
    return code <= MCP_HEADER_MISMATCH && code >= MCP_UNSUPPORTED_VERSION;
}

void mcp_go_legacy(struct mcp_client *c)
{
    if (c->init_failed)
        mcp_break_off(
            c, COX_CODE_INPUT_INVALID,
            cox_slice_str("mcp: the server answers neither server/discover nor initialize: it speaks no "
                          "version of the protocol that is known here"));
    else if (!c->init_id)
        mcp_initialize(c);
}

void mcp_probed(struct mcp_client *c, const struct mcp_message *m)
{
    struct cox_slice versions;
    struct cox_buf why = { 0 };

    c->probe_id = 0;
    if (m->kind == MCP_RESULT && cox_json_member(m->result, "supportedVersions", &versions) &&
        cox_json_kind(versions) == COX_JSON_ARRAY) {
        choose(c, versions);
    } else if (m->kind == MCP_ERROR && m->code == MCP_UNSUPPORTED_VERSION &&
               cox_json_member(m->data, "supported", &versions)) {
        choose(c, versions);
    } else if (m->kind == MCP_ERROR && mcp_is_modern_error(m->code)) {
        cox_json_unquote(&why, m->why);
        break_with(c, COX_CODE_INPUT_INVALID, "mcp: the server refuses this client: ", cox_buf_slice(&why));
    } else {
        mcp_go_legacy(c);
    }
    cox_buf_fini(&why);
}

void mcp_initialized(struct mcp_client *c, const struct mcp_message *m)
{
    struct cox_buf text = { 0 };
    struct cox_slice version = cox_slice_str("null");

    c->init_id = 0;
    if (m->kind == MCP_ERROR) {
        c->init_failed = true;
        cox_json_unquote(&text, m->why);
        if (!c->probe_id)
            break_with(c, COX_CODE_INPUT_INVALID,
                       "mcp: the server refuses this client: ", cox_buf_slice(&text));
        cox_buf_fini(&text);
        return;
    }
    (void)cox_json_member(m->result, "protocolVersion", &version);
    c->version = NULL;
    for (size_t i = 0; i < N_LEGACY; i++)
        if (cox_json_string_is(version, cox_slice_str(legacy[i])))
            c->version = legacy[i];
    if (!c->version) {
        say_versions(c, version);
        return;
    }
    c->state = READY; /* this is the first that says the version */
    cox_buf_append_str(&text, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    mcp_send_plain(c, 0, "notifications/initialized", &text);
    if (c->state == READY)
        get_ready(c);
}

void mcp_client_probe_late(struct mcp_client *c)
{
    if (c->state == PROBING)
        mcp_initialize(c);
}
