#include "task.h"
#include "verbs.h"

#include "cox/json.h"

const struct cli_option cli_task_output_options[] = {
    { "raw", 'r', NULL, "print a string as it is, without quotes" },
    { 0 },
};
const char cli_task_output_help[] = "Examples:\n"
                                    "  cox task output t0-00000k\n"
                                    "  cox task output t0-00000k report --raw > report.md\n";

enum cli_exit cli_task_output(struct cli *cli)
{
    Coxswain__V1__GetOutputRequest request = COXSWAIN__V1__GET_OUTPUT_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_buf raw = { 0 };

    request.id = (char *)(uintptr_t)cli->args[0];
    if (cli->n_args > 1)
        request.step = (char *)(uintptr_t)cli->args[1];
    enum cli_exit code =
        cli_call(cli, &coxswain__v1__task_service__descriptor, "GetOutput", &request.base, true, &response);

    if (code)
        return code;
    const ProtobufCBinaryData *json = &((Coxswain__V1__GetOutputResponse *)response)->json;
    struct cox_slice text = json->len > 0 ? cox_slice(json->data, json->len) : cox_slice_str("null");

    if (cox_json_check(text, NULL)) {
        cli_error("%s: the output that came is not JSON", cli->args[0]);
        code = CLI_UNAVAILABLE;
    } else if (cli_has(cli, "raw") && cox_json_kind(text) == COX_JSON_STRING) {
        cox_json_unquote(&raw, cox_json_trim(text));
        fwrite(raw.data, 1, raw.len, stdout);
    } else {
        cli_print_json(cli, text);
    }
    cox_buf_fini(&raw);
    protobuf_c_message_free_unpacked(response, NULL);
    return code;
}
