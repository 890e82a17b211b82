#include "verbs.h"

#include "cli_config.h"
#include "cox/limits.h"

const struct cli_option cli_version_options[] = { { 0 } };
const char cli_version_help[] = "Examples:\n"
                                "  cox version\n"
                                "  cox version -o json | jq .limits\n";

/* Those of rule 13 of the task format first. */
static const struct {
    const char *name;
    unsigned value;
} limits[] = {
    { "document_bytes", COX_DOCUMENT_LEN_MAX },
    { "task_steps", COX_TASK_STEPS_MAX },
    { "map_items", COX_MAP_ITEMS_MAX },
    { "inline_value_bytes", COX_INLINE_VALUE_LEN_MAX },
    { "output_bytes", COX_BLOB_LEN_MAX },
    { "log_bytes", COX_LOG_LEN_MAX },
    { "depth", COX_FRAME_DEPTH_MAX },
    { "expression_cost", COX_EXPR_COST_MAX },
    { "expression_bytes", COX_EXPR_LEN_MAX },
    { "task_classes", COX_TASK_CLASSES_MAX },
    { "map_batch", COX_MAP_BATCH_MAX },
    { "race_alternatives", COX_RACE_MAX },
    { "race_depth", COX_RACE_DEPTH_MAX },
    { "agent_turns", COX_TURNS_MAX },
    { "agent_tools", COX_TOOLS_MAX },
    { "agent_calls", COX_TURN_CALLS_MAX },
    { "agent_arguments_bytes", COX_TURN_ARGS_LEN_MAX },
    { "agent_depth", COX_AGENT_DEPTH_MAX },
    { "continuations", COX_CONTINUATIONS_MAX },
    { "signals", COX_SIGNALS_MAX },
    { "signal_bytes", COX_SIGNAL_LEN_MAX },
    { "stdio_tail_bytes", COX_STDIO_TAIL_LEN_MAX },
    { "step_input_bytes", COX_SPEC_LEN_MAX },
    { "attempts", COX_ATTEMPTS_MAX },
    { "worker_losses", COX_LOSSES_MAX },
    { "json_depth", COX_JSON_DEPTH_MAX },
    { "labels", COX_LABELS_MAX },
    { "key_bytes", COX_IDEMPOTENCY_KEY_LEN_MAX },
    { "message_bytes", COX_MESSAGE_LEN_MAX },
};

enum cli_exit cli_version(struct cli *cli)
{
    struct cox_buf json = { 0 };

    if (!cli_structured(cli)) {
        printf("cox %s\n", CLI_VERSION);
        return CLI_OK;
    }
    cox_buf_printf(&json, "{\"version\":\"%s\",\"limits\":{", CLI_VERSION);
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        cox_buf_printf(&json, "%s\"%s\":%u", i ? "," : "", limits[i].name, limits[i].value);
    cox_buf_append_str(&json, "}}");
    cli_print_json(cli, cox_buf_slice(&json));
    cox_buf_fini(&json);
    return CLI_OK;
}
