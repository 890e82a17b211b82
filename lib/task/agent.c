/* Kinds `agent` and `plan`: the first call of the model, what cox/turn.h calls config, and the bodies that
 * the engine opens turn by turn. */
#include "model.h"

#include <stdio.h>
#include <string.h>

enum {
    AGENT_INSTRUCTIONS = REQUEST_NR,
    AGENT_TOOLS,
    AGENT_APPROVE,
    AGENT_MAX_TURNS,
    AGENT_MAX_PARALLEL,
    AGENT_CONTEXT,
    AGENT_NR
};
static const struct field agent_fields[AGENT_NR] = {
    REQUEST_FIELDS,
    [AGENT_INSTRUCTIONS] = { "instructions", WANT_STRING, FIELD_OPTIONAL, "a string, what the agent is for" },
    [AGENT_TOOLS] = { "tools", WANT_LIST, FIELD_OPTIONAL, "a list of tools" },
    [AGENT_APPROVE] = { "approve", WANT_LIST, FIELD_OPTIONAL, "a list of names of tools" },
    [AGENT_MAX_TURNS] = { "max_turns", WANT_ANY, FIELD_OPTIONAL, "" },
    [AGENT_MAX_PARALLEL] = { "max_parallel_tool_calls", WANT_ANY, FIELD_OPTIONAL, "" },
    [AGENT_CONTEXT] = { "context", WANT_OBJECT, FIELD_OPTIONAL,
                        "an object such as {\"max_tokens\": 100000, \"on_full\": \"summarize\"}" },
};

enum { CONTEXT_MAX_TOKENS, CONTEXT_ON_FULL, CONTEXT_NR };
static const struct field context_fields[CONTEXT_NR] = {
    { "max_tokens", WANT_ANY, FIELD_REQUIRED, "an integer, how much the model is shown" },
    { "on_full", WANT_STRING, FIELD_OPTIONAL, "\"fail\", \"summarize\" or \"trim_tool_results\"" },
};

/* ---- bodies ---- */

static void put_body(struct compiler *c, uint32_t index, struct cox_image_call *call)
{
    c->plan[index].kind = call->kind;
    c->plan[index].call = image_put_call(&c->image, call);
    c->plan[index].extras = COX_IMAGE_NONE;
}

/* What is said to the model is put together turn by turn; when a call is tried again is the step's to say. */
static void put_model_body(struct compiler *c, uint32_t index, const struct retry *retry)
{
    const struct cox_resources none = { 0 };
    struct cox_image_call call = {
        .kind = COX_KIND_MODEL,
        .class_index = image_put_class(&c->image, cox_slice_str("model"), &none, NULL, 0),
        .spec_template = image_put_const(&c->image, cox_slice_str("{}")),
        .approvers = COX_IMAGE_NONE,
        .timeout_ms = c->timeout_ms,
        .max_attempts = retry->max_attempts,
        .initial_backoff_ms = retry->initial_backoff_ms,
        .max_backoff_ms = retry->max_backoff_ms,
        .multiplier_milli = retry->multiplier_milli,
        .retry_on = retry->on,
    };

    put_body(c, index, &call);
}

static void put_approval_body(struct compiler *c, const struct place *at, uint32_t index)
{
    const struct scope scope = { .step = COX_IMAGE_NONE, .args = true };
    struct cox_image_call call = {
        .kind = COX_KIND_APPROVAL,
        .class_index = COX_IMAGE_NONE,
        .approvers = COX_IMAGE_NONE,
        .max_attempts = 1,
        .multiplier_milli = 1000,
    };

    draft_begin(c);
    draft_raw(c, "\"");
    draft_text(c, &scope, at, cox_slice_str("${{ args.prompt }}"));
    draft_raw(c, "\"");
    call.spec_template = draft_end(c, at);
    put_body(c, index, &call);
}

/* ---- config ---- */

static void put_context(struct compiler *c, const struct place *at, json_t *context, struct cox_buf *config)
{
    static const char *const policies[] = { "fail", "summarize", "trim_tool_results" };
    struct place here = place_key(at, "context"), max = place_key(&here, "max_tokens");
    struct place full = place_key(&here, "on_full");
    const char *policy = policies[0];
    int64_t max_tokens = 0;
    json_t *f[CONTEXT_NR];
    size_t i = 0;

    if (!fields_check(&c->report, &here, context, agent_fields[AGENT_CONTEXT].expected, context_fields,
                      CONTEXT_NR, f))
        return;
    if (f[CONTEXT_MAX_TOKENS])
        field_integer(&c->report, &max, f[CONTEXT_MAX_TOKENS], 1, 1000000000, &max_tokens);
    if (f[CONTEXT_ON_FULL])
        policy = json_string_value(f[CONTEXT_ON_FULL]);
    while (i < sizeof(policies) / sizeof(policies[0]) && strcmp(policy, policies[i]) != 0)
        i++;
    if (i == sizeof(policies) / sizeof(policies[0]))
        report_found(&c->report, &full, f[CONTEXT_ON_FULL], context_fields[CONTEXT_ON_FULL].expected);
    cox_buf_printf(config, ",\"context\":{\"max_tokens\":%lld,\"on_full\":\"%s\"}", (long long)max_tokens,
                   i < sizeof(policies) / sizeof(policies[0]) ? policies[i] : "");
}

static void put_limits(struct compiler *c, const struct place *at, json_t *const *f, struct cox_buf *config)
{
    struct place turns_at = place_key(at, "max_turns");
    struct place parallel_at = place_key(at, "max_parallel_tool_calls");
    int64_t turns = COX_TURNS_DEFAULT, parallel = COX_TURN_PARALLEL_DEFAULT;

    if (f[AGENT_MAX_TURNS])
        field_integer(&c->report, &turns_at, f[AGENT_MAX_TURNS], 1, COX_TURNS_MAX, &turns);
    if (f[AGENT_MAX_PARALLEL])
        field_integer(&c->report, &parallel_at, f[AGENT_MAX_PARALLEL], 1, COX_TURN_CALLS_MAX, &parallel);
    cox_buf_printf(config, "{\"max_turns\":%lld,\"max_parallel\":%lld,\"reasks\":%u", (long long)turns,
                   (long long)parallel, COX_TURN_REASKS_DEFAULT);
}

/* Where a server is held to a schema by `response_format`, its model cannot call a tool: with tools it is
 * asked for in words, and its answer checked all the same. */
static void put_preface(struct cox_buf *out, const json_t *schema)
{
    cox_buf_append_str(out,
                       "When you are done with the tools, answer with JSON and nothing else, that fits this "
                       "JSON Schema: ");
    json_put(out, schema);
    cox_buf_append_str(out, "\n\n");
}

/* An agent that is a tool says what it was asked when it says nothing else. */
static void compile_agent(struct compiler *c, const struct place *at, const struct scope *scope,
                          const struct call_source *source, struct cox_image_call *call,
                          struct cox_buf *config)
{
    struct place schema = place_key(at, "output_schema");
    struct cox_buf preface = { 0 };
    json_t *f[AGENT_NR], *asked = NULL;

    if (!fields_check(&c->report, at, source->f[CALL_AGENT], "an object such as {\"input\": \"...\"}",
                      agent_fields, AGENT_NR, f))
        return;
    if (source->input && !f[REQUEST_INPUT] && !f[REQUEST_MESSAGES])
        f[REQUEST_INPUT] = asked = json_string(source->input);
    bool in_words = f[REQUEST_OUTPUT_SCHEMA] && json_array_size(f[AGENT_TOOLS]) > 0;

    if (in_words && !json_is_string(f[REQUEST_MESSAGES]))
        put_preface(&preface, f[REQUEST_OUTPUT_SCHEMA]);
    draft_begin(c);
    put_request(c, scope, at, f,
                &(struct request){ .kind = "agent",
                                   .preface = cox_buf_slice(&preface),
                                   .instructions = f[AGENT_INSTRUCTIONS],
                                   .schema = in_words ? NULL : f[REQUEST_OUTPUT_SCHEMA] });
    draft_raw(c, "}");
    call->spec_template = draft_end(c, at);
    json_decref(asked);
    cox_buf_fini(&preface);
    put_limits(c, at, f, config);
    if (f[REQUEST_OUTPUT_SCHEMA]) {
        compile_schema(c, &schema, f[REQUEST_OUTPUT_SCHEMA]);
        cox_buf_append_str(config, ",\"output_schema\":");
        json_put(config, f[REQUEST_OUTPUT_SCHEMA]);
    }
    if (f[AGENT_CONTEXT])
        put_context(c, at, f[AGENT_CONTEXT], config);
    cox_buf_append_str(config, ",\"tools\":[");
    compile_tools(c, at, scope, f[AGENT_TOOLS], f[AGENT_APPROVE], source, config);
    cox_buf_append_str(config, "]}");
}

void compile_turns(struct compiler *c, const struct place *at, const struct scope *scope,
                   const struct call_source *source, const struct retry *retry, struct cox_image_call *call)
{
    struct place here = place_key(at, cox_step_kind_text(source->kind));
    struct cox_buf config = { 0 };

    if (source->depth.agents >= COX_AGENT_DEPTH_MAX) {
        report_at(&c->report, &here, "found agents more than %u deep in each other, expected at most %u",
                  COX_AGENT_DEPTH_MAX, COX_AGENT_DEPTH_MAX);
        return;
    }
    call->inner_first = source->inner_first;
    call->inner_n = source->inner_end - source->inner_first;
    put_model_body(c, source->inner_first, retry);
    put_approval_body(c, &here, source->inner_first + 1);
    if (source->kind == COX_KIND_AGENT)
        compile_agent(c, &here, scope, source, call, &config);
    else
        compile_plan(c, &here, scope, source, call, &config);
    call->ref = cox_slice(cox_arena_dup(&c->texts, config.data, config.len), config.len);
    cox_buf_fini(&config);
}
