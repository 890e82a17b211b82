#include "task.h"
#include "verbs.h"

const struct cli_option cli_task_get_options[] = { { 0 } };
const char cli_task_get_help[] = "Examples:\n"
                                 "  cox task get t0-00000k\n"
                                 "  cox task get t0-00000k -o json | jq .status\n";

enum cli_exit cli_task_get(struct cli *cli)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;

    request.id = (char *)(uintptr_t)cli->args[0];
    enum cli_exit code =
        cli_call(cli, &coxswain__v1__task_service__descriptor, "GetTask", &request.base, true, &response);

    if (code)
        return code;
    cli_print_task(cli, ((Coxswain__V1__GetTaskResponse *)response)->task);
    protobuf_c_message_free_unpacked(response, NULL);
    return CLI_OK;
}
