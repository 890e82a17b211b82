#include "message.h"

#include "cox/json.h"

static const char *read_answer(struct cox_slice id, bool has_id, struct mcp_message *ret)
{
    int64_t n = 0;

    if (has_id && cox_json_kind(id) == COX_JSON_NUMBER && cox_json_int(id, &n) && n > 0)
        ret->id = (uint64_t)n;
    if (ret->kind == MCP_RESULT)
        return cox_json_kind(ret->result) == COX_JSON_OBJECT ? NULL : "\"result\" to be an object";
    return NULL;
}

static const char *read_error(struct cox_slice error, struct mcp_message *ret)
{
    struct cox_slice value;

    if (cox_json_kind(error) != COX_JSON_OBJECT)
        return "\"error\" to be an object";
    if (!cox_json_member(error, "code", &value) || cox_json_kind(value) != COX_JSON_NUMBER ||
        !cox_json_int(value, &ret->code))
        return "\"error\" to have an integer \"code\"";
    if (cox_json_member(error, "message", &value) && cox_json_kind(value) == COX_JSON_STRING)
        ret->why = value;
    if (cox_json_member(error, "data", &value))
        ret->data = value;
    return NULL;
}

const char *mcp_message_read(struct cox_slice text, struct mcp_message *ret)
{
    struct cox_slice id = { 0 }, value;
    bool has_id;

    *ret = (struct mcp_message){ .kind = MCP_NOTIFICATION };
    if (cox_json_kind(text) != COX_JSON_OBJECT)
        return "an object";
    if (!cox_json_member(text, "jsonrpc", &value) || !cox_json_string_is(value, cox_slice_str("2.0")))
        return "\"jsonrpc\": \"2.0\"";
    has_id = cox_json_member(text, "id", &id);
    if (cox_json_member(text, "method", &ret->method)) {
        if (cox_json_kind(ret->method) != COX_JSON_STRING)
            return "\"method\" to be a string";
        (void)cox_json_member(text, "params", &ret->params);
        if (!has_id)
            return NULL;
        ret->kind = MCP_REQUEST;
        ret->their_id = id;
        return cox_json_kind(id) == COX_JSON_STRING || cox_json_kind(id) == COX_JSON_NUMBER
                   ? NULL
                   : "\"id\" to be a string or a number";
    }
    if (cox_json_member(text, "result", &ret->result)) {
        ret->kind = MCP_RESULT;
        return read_answer(id, has_id, ret);
    }
    if (cox_json_member(text, "error", &value)) {
        const char *why = read_error(value, ret);

        ret->kind = MCP_ERROR;
        return why ? why : read_answer(id, has_id, ret);
    }
    return "a method, a result or an error";
}
