/* Approvals, words to agents, and forks of tasks. */
#include "task.h"
#include "verbs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#define ID(text) ((char *)(uintptr_t)(text))

/* ---- approvals ---------------------------------------------------------------------------------------- */

const struct cli_option cli_task_approve_options[] = {
    { "comment", 0, "TEXT", "for people; part of the step's output" },
    { 0 },
};
const char cli_task_approve_help[] =
    "STEP is the step's name, or its address within the task, as `task describe` shows it.\n\n"
    "Examples:\n"
    "  cox task list --status WAITING\n"
    "  cox task approve t0-00000k apply --comment 'looks right'\n";
const struct cli_option cli_task_reject_options[] = {
    { "comment", 0, "TEXT", "why; shown in the step's error" },
    { 0 },
};
const char cli_task_reject_help[] = "The step fails with the code DENIED.\n\n"
                                    "Example:\n"
                                    "  cox task reject t0-00000k apply --comment 'not on a Friday'\n";

static enum cli_exit answer(struct cli *cli, bool approve)
{
    Coxswain__V1__ApproveStepRequest request = COXSWAIN__V1__APPROVE_STEP_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_buf json = { 0 };

    request.id = ID(cli->args[0]);
    request.step = ID(cli->args[1]);
    request.approve = approve;
    request.comment = ID(cli_has(cli, "comment") ? cli_get(cli, "comment") : "");
    enum cli_exit code =
        cli_call(cli, &coxswain__v1__task_service__descriptor, "ApproveStep", &request.base, true, &response);

    if (code)
        return code;
    protobuf_c_message_free_unpacked(response, NULL);
    if (cli_structured(cli)) {
        cox_buf_append_str(&json, "{\"id\":");
        cox_json_quote(&json, cox_slice_str(cli->args[0]));
        cox_buf_append_str(&json, ",\"step\":");
        cox_json_quote(&json, cox_slice_str(cli->args[1]));
        cox_buf_printf(&json, ",\"approved\":%s}", approve ? "true" : "false");
        cli_print_json(cli, cox_buf_slice(&json));
        cox_buf_fini(&json);
    } else {
        printf("%s/%s\n", cli->args[0], cli->args[1]);
        if (cli->format != CLI_NAME)
            cli_note(cli, "%s. Follow it: cox task watch %s", approve ? "approved" : "rejected",
                     cli->args[0]);
    }
    return CLI_OK;
}

enum cli_exit cli_task_approve(struct cli *cli)
{
    return answer(cli, true);
}

enum cli_exit cli_task_reject(struct cli *cli)
{
    return answer(cli, false);
}

/* ---- messages ----------------------------------------------------------------------------------------- */

const struct cli_option cli_task_message_options[] = { { 0 } };
const char cli_task_message_help[] =
    "The model hears it with its next turn; an answer that it was about to give is\n"
    "not the last one then. STEP is needed where several agents of the task run,\n"
    "and for an agent that is a tool of another.\n\n"
    "Examples:\n"
    "  cox task message t0-00000k 'leave the tests alone'\n"
    "  cox task message t0-00000k triage 'look at the parser first'\n";

enum cli_exit cli_task_message(struct cli *cli)
{
    Coxswain__V1__MessageTaskRequest request = COXSWAIN__V1__MESSAGE_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_buf json = { 0 };

    request.id = ID(cli->args[0]);
    request.step = ID(cli->n_args > 2 ? cli->args[1] : "");
    request.text = ID(cli->args[cli->n_args - 1]);
    /* Not repeated: said twice is not said once. */
    enum cli_exit code = cli_call(cli, &coxswain__v1__task_service__descriptor, "MessageTask", &request.base,
                                  false, &response);

    if (code)
        return code;
    protobuf_c_message_free_unpacked(response, NULL);
    if (cli_structured(cli)) {
        cox_buf_append_str(&json, "{\"id\":");
        cox_json_quote(&json, cox_slice_str(cli->args[0]));
        cox_buf_append_str(&json, ",\"step\":");
        cox_json_quote(&json, cox_slice_str(request.step));
        cox_buf_append_str(&json, ",\"said\":");
        cox_json_quote(&json, cox_slice_str(request.text));
        cox_buf_append_str(&json, "}");
        cli_print_json(cli, cox_buf_slice(&json));
        cox_buf_fini(&json);
    } else {
        printf("%s\n", cli->args[0]);
        if (cli->format != CLI_NAME)
            cli_note(cli, "said. Follow it: cox task watch %s", cli->args[0]);
    }
    return CLI_OK;
}

/* ---- fork --------------------------------------------------------------------------------------------- */

const struct cli_option cli_task_fork_options[] = {
    { "at", 0, "STEP", "run this step again, and all that depends on it (default: what did not succeed)" },
    CLI_INPUT_OPTIONS,
    { "key", 0, "KEY", "idempotency key: the same key is the same fork" },
    { 0 },
};
const char cli_task_fork_help[] =
    "The new task has the old one's document and results up to STEP; inputs may change.\n\n"
    "Examples:\n"
    "  cox task fork t0-00000k --at summary\n"
    "  id=$(cox task fork t0-00000k --at scan --input depth=3 -o name)\n";

enum cli_exit cli_task_fork(struct cli *cli)
{
    Coxswain__V1__ForkTaskRequest request = COXSWAIN__V1__FORK_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_buf inputs = { 0 };
    char *key = cli_get(cli, "key") ? cox_strdup(cli_get(cli, "key")) : cli_random_key();
    enum cli_exit code = cli_put_inputs(cli, cox_slice_str("{}"), &inputs);

    if (!code) {
        request.id = ID(cli->args[0]);
        request.at = ID(cli_has(cli, "at") ? cli_get(cli, "at") : "");
        request.inputs_json = ID(inputs.len > 2 ? cox_buf_cstr(&inputs) : "");
        request.key = key;
        code = cli_call(cli, &coxswain__v1__task_service__descriptor, "ForkTask", &request.base, true,
                        &response);
    }
    if (!code && cli_structured(cli)) {
        cli_print_message(cli, response);
    } else if (!code) {
        const char *id = ((Coxswain__V1__ForkTaskResponse *)response)->id;
        printf("%s\n", id);
        if (cli->format != CLI_NAME)
            cli_note(cli, "forked. Follow it: cox task watch %s", id);
    }
    if (!code)
        protobuf_c_message_free_unpacked(response, NULL);
    cox_free(key);
    cox_buf_fini(&inputs);
    return code;
}
