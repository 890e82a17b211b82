#include "verbs.h"

#include "cli_config.h"
#include "cox/limits.h"

const struct cli_option cli_version_options[] = { { 0 } };
const char cli_version_help[] = "Examples:\n"
                                "  cox version\n"
                                "  cox version -o json | jq .limits\n";

enum cli_exit cli_version(struct cli *cli)
{
    struct cox_buf json = { 0 };

    if (!cli_structured(cli)) {
        printf("cox %s\n", CLI_VERSION);
        return CLI_OK;
    }
    cox_buf_printf(
        &json,
        "{\"version\":\"%s\",\"limits\":{\"document_bytes\":%u,\"task_steps\":%u,\"task_classes\":%u,"
        "\"inline_value_bytes\":%u,\"stdio_tail_bytes\":%u,\"log_bytes\":%u,\"attempts\":%u,"
        "\"expression_cost\":%u,\"expression_bytes\":%u,\"json_depth\":%u,\"labels\":%u,\"key_bytes\":%u,"
        "\"message_bytes\":%u,\"map_items\":%u,\"output_bytes\":%u,\"depth\":%u}}",
        CLI_VERSION, COX_DOCUMENT_LEN_MAX, COX_TASK_STEPS_MAX, COX_TASK_CLASSES_MAX, COX_INLINE_VALUE_LEN_MAX,
        COX_STDIO_TAIL_LEN_MAX, COX_LOG_LEN_MAX, COX_ATTEMPTS_MAX, COX_EXPR_COST_MAX, COX_EXPR_LEN_MAX,
        COX_JSON_DEPTH_MAX, COX_LABELS_MAX, COX_IDEMPOTENCY_KEY_LEN_MAX, COX_MESSAGE_LEN_MAX,
        COX_MAP_ITEMS_MAX, COX_BLOB_LEN_MAX, COX_FRAME_DEPTH_MAX);
    cli_print_json(cli, cox_buf_slice(&json));
    cox_buf_fini(&json);
    return CLI_OK;
}
