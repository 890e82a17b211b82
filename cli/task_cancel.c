#include "task.h"
#include "verbs.h"

const struct cli_option cli_task_cancel_options[] = {
    { "reason", 0, "TEXT", "why; shown in the task's error" },
    { 0 },
};
const char cli_task_cancel_help[] =
    "Steps that have not started are cancelled, running attempts are stopped. Done when the cancellation is\n"
    "durable; attempts may still be stopping: `cox task watch` waits for the end.\n\n"
    "Examples:\n"
    "  cox task cancel t0-00000k --reason 'wrong inputs'\n"
    "  cox task cancel t0-00000k t0-00000m\n";

enum cli_exit cli_task_cancel(struct cli *cli)
{
    enum cli_exit worst = CLI_OK;

    for (size_t i = 0; i < cli->n_args && !cli_interrupted(); i++) {
        Coxswain__V1__CancelTaskRequest request = COXSWAIN__V1__CANCEL_TASK_REQUEST__INIT;
        ProtobufCMessage *response = NULL;
        request.id = (char *)(uintptr_t)cli->args[i];
        request.reason = (char *)(uintptr_t)(cli_has(cli, "reason") ? cli_get(cli, "reason") : "");
        enum cli_exit code = cli_call(cli, &coxswain__v1__task_service__descriptor, "CancelTask",
                                      &request.base, true, &response);
        if (code) {
            worst = worst ? worst : code;
            continue;
        }
        if (cli_structured(cli)) {
            cli_print_message(cli, response);
        } else {
            printf("%s\n", cli->args[i]);
            if (cli->format != CLI_NAME)
                cli_note(cli, "%s is %s", cli->args[i],
                         cli_task_status(((Coxswain__V1__CancelTaskResponse *)response)->status));
        }
        protobuf_c_message_free_unpacked(response, NULL);
    }
    return worst;
}
