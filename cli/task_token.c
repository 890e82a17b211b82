/* A link for somebody who has no token: one task, for reading, for a while. */
#include "verbs.h"

#include "coxswain/v1/task_service.pb-c.h"

#include <stdio.h>

#define LIFE_MS_DEFAULT (15 * 60 * 1000LL)

const struct cli_option cli_task_token_options[] = {
    { "expires", 0, "DURATION", "it is good for so long, at most 24h (default: 15m)" },
    { 0 },
};
const char cli_task_token_help[] = "The token reads this task's state, steps, outputs, logs and events, and "
                                   "nothing else. It lives no longer than\n"
                                   "the one it is made with. It cannot be taken back by itself: who keeps "
                                   "the orchestrator makes its key anew.\n\n"
                                   "Example:\n"
                                   "  cox task token t0-00000k --expires 1h\n";

enum cli_exit cli_task_token(struct cli *cli)
{
    Coxswain__V1__CreateTaskTokenRequest request = COXSWAIN__V1__CREATE_TASK_TOKEN_REQUEST__INIT;
    Google__Protobuf__Duration life = GOOGLE__PROTOBUF__DURATION__INIT;
    ProtobufCMessage *response = NULL;
    int64_t life_ms = LIFE_MS_DEFAULT;
    enum cli_exit code = cli_get_duration(cli, "expires", LIFE_MS_DEFAULT, &life_ms);

    if (code)
        return code;
    life.seconds = life_ms / 1000;
    life.nanos = (int32_t)(life_ms % 1000 * 1000000);
    request.id = (char *)(uintptr_t)cli->args[0];
    request.expires_in = &life;
    code = cli_call(cli, &coxswain__v1__task_service__descriptor, "CreateTaskToken", &request.base, true,
                    &response);
    if (code)
        return code;
    if (cli_structured(cli))
        cli_print_message(cli, response);
    else
        printf("%s\n", ((const Coxswain__V1__CreateTaskTokenResponse *)response)->token);
    protobuf_c_message_free_unpacked(response, NULL);
    return CLI_OK;
}
