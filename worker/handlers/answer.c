#include "answer.h"

#include "run_spec.h"

#include "../gateway/gateway.h"

#include "cox/json.h"
#include "cox/schema.h"

#include <inttypes.h>
#include <stdio.h>

/* ---------------------------------------------------------------- asking */

static void put_member(struct cox_buf *out, const char *name, struct cox_slice text)
{
    cox_buf_printf(out, ",\"%s\":", name);
    cox_json_quote(out, text);
}

static void put_own(struct cox_buf *out, const char *name, const struct call_args *args,
                    struct cox_slice of_step)
{
    struct cox_buf own = { 0 };

    call_put_own(&own, args, of_step);
    put_member(out, name, cox_buf_slice(&own));
    cox_buf_fini(&own);
}

void answer_ask(struct cox_buf *out, uint64_t id, struct cox_slice input, const struct call_args *args,
                bool own_network)
{
    const struct cox_agent_assign *assign = args->assign;
    char traceparent[RUN_TRACEPARENT_MAX], url[GATEWAY_URL_MAX];

    run_spec_traceparent(args, traceparent);
    cox_buf_printf(out, "{\"id\":\"%" PRIu64 "\",\"input\":", id);
    cox_json_compact(out, input.len > 0 ? input : cox_slice_str("null"));
    cox_buf_printf(out, ",\"context\":{\"attempt\":%u", assign->attempt);
    put_member(out, "task_id", assign->task_id);
    put_own(out, "step", args, assign->step_name);
    put_own(out, "idempotency_key", args, assign->idempotency_key);
    put_member(out, "traceparent", cox_slice_str(traceparent));
    put_member(out, "workspace", cox_slice_str(args->dir));
    if (args->bundle_dir)
        put_member(out, "bundle", cox_slice_str(args->bundle_dir));
    if (args->blobs_dir)
        put_member(out, "blobs", cox_slice_str(args->blobs_dir));
    if (args->gateway && gateway_url(args->gateway, own_network, url)) {
        put_member(out, "blobs_url", cox_slice_str(url));
        put_member(out, "key", cox_slice_str(gateway_key(args->gateway)));
    }
    if (args->gateway && gateway_models_url(args->gateway, own_network, url))
        put_member(out, "models_url", cox_slice_str(url));
    if (args->index)
        cox_buf_printf(out, ",\"item\":{\"index\":%u}", *args->index);
    if (assign->continuation_json.len > 0) {
        cox_buf_append_str(out, ",\"continuation\":");
        cox_json_compact(out, assign->continuation_json);
    }
    cox_buf_append_str(out, "}}\n");
}

/* ---------------------------------------------------------------- codes */

/* What TASK_FORMAT rule 3 retries unless a step says otherwise. */
static bool is_retried(enum cox_code code)
{
    return code == COX_CODE_EXIT_NONZERO || code == COX_CODE_TIMEOUT || code == COX_CODE_UNAVAILABLE;
}

enum cox_code answer_code(struct cox_slice said, bool has_retryable, bool retryable, bool *ret_named)
{
    enum cox_code code = COX_CODE_NONE;
    bool known = cox_code_parse(said, &code) && code != COX_CODE_NONE;
    enum cox_code meant = code;

    /* These count against the worker, not against the step's retries. */
    if (code == COX_CODE_WORKER_LOST || code == COX_CODE_PREEMPTED || code == COX_CODE_CANCELLED)
        known = false;
    if (!known)
        meant = COX_CODE_INTERNAL;
    if (has_retryable && retryable && !is_retried(meant))
        meant = COX_CODE_UNAVAILABLE;
    if (has_retryable && !retryable && is_retried(meant))
        meant = COX_CODE_INTERNAL;
    *ret_named = said.len > 0 && meant != code;
    return meant;
}

/* ---------------------------------------------------------------- answers */

static bool invalid(struct outcome *ret, const char *why)
{
    ret->code = COX_CODE_OUTPUT_INVALID;
    outcome_say(ret, cox_slice_str(why));
    return false;
}

static void read_error(struct cox_slice error, struct outcome *ret)
{
    struct cox_slice value;
    struct cox_buf said = { 0 }, message = { 0 };
    bool has_retryable, retryable, named;

    if (cox_json_member(error, "code", &value))
        cox_json_unquote(&said, value);
    has_retryable = cox_json_member(error, "retryable", &value) && cox_json_kind(value) == COX_JSON_BOOL;
    retryable = has_retryable && cox_slice_is(value, "true");
    ret->code = answer_code(cox_buf_slice(&said), has_retryable, retryable, &named);
    if (named)
        cox_buf_printf(&message, "%s: ", cox_buf_cstr(&said));
    if (cox_json_member(error, "message", &value) && cox_json_kind(value) == COX_JSON_STRING)
        cox_json_unquote(&message, value);
    outcome_say(ret, cox_buf_slice(&message));
    cox_buf_fini(&said);
    cox_buf_fini(&message);
}

static bool read_continue(struct cox_slice value, struct outcome *ret)
{
    struct cox_slice steps;

    if (!cox_json_member(value, "steps", &steps) || cox_json_kind(steps) != COX_JSON_OBJECT)
        return invalid(ret, "continue.steps: expected an object of steps");
    cox_json_compact(&ret->continuation, value);
    if (ret->continuation.len <= COX_LOGGED_PAYLOAD_LEN_MAX)
        return true;
    cox_buf_clear(&ret->continuation);
    ret->code = COX_CODE_OUTPUT_TOO_LARGE;
    outcome_say(ret, cox_slice_str("continue: expected at most 1 MiB of steps and state"));
    return true;
}

static bool read_output(struct cox_slice value, struct cox_slice schema, struct outcome *ret)
{
    struct cox_buf why = { 0 };

    if (schema.len > 0 && cox_schema_match(schema, value, &why) != COX_OK) {
        ret->code = COX_CODE_OUTPUT_INVALID;
        cox_buf_append_str(&ret->message, "output: ");
        outcome_say(ret, cox_buf_slice(&why));
    } else {
        cox_buf_append_slice(&ret->output, value);
    }
    cox_buf_fini(&why);
    return true;
}

bool answer_read(struct cox_slice line, uint64_t id, struct cox_slice output_schema, struct outcome *ret)
{
    struct cox_slice value, output, error, more;
    struct cox_json_place place;
    char text[24];
    int n;

    if (cox_json_check(line, &place) != COX_OK) {
        cox_buf_printf(&ret->message, "the program wrote a line that is no JSON: column %u: expected %s",
                       place.column, place.expected);
        return invalid(ret, "");
    }
    snprintf(text, sizeof(text), "%" PRIu64, id);
    if (!cox_json_member(line, "id", &value) || !cox_json_string_is(value, cox_slice_str(text)))
        return invalid(ret,
                       "the program answered another call than the one it was given: expected its \"id\"");
    n = cox_json_member(line, "output", &output);
    n += 2 * cox_json_member(line, "error", &error);
    n += 4 * cox_json_member(line, "continue", &more);
    if (n == 1)
        return read_output(output, output_schema, ret);
    if (n == 4)
        return read_continue(more, ret);
    if (n != 2)
        return invalid(ret, "the program's answer: expected one of \"output\", \"error\" and \"continue\"");
    if (cox_json_kind(error) != COX_JSON_OBJECT)
        return invalid(ret, "the program's answer: expected \"error\" to be an object");
    read_error(error, ret);
    return true;
}
