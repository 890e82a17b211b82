#include "task.h"
#include "verbs.h"

#include "cox/base/units.h"

const struct cli_option cli_task_submit_options[] = {
    CLI_SUBMIT_OPTIONS,
    { "for-each", 0, "FILE", "a task for each line: a JSON object of inputs; - is standard input" },
    { "dry-run", 0, NULL, "have the orchestrator check it, create nothing" },
    { "wait", 0, NULL, "wait for the task to end; exit 1 when it does not succeed" },
    { "timeout", 0, "DURATION", "with --wait: exit 124 after this long; the task goes on" },
    { 0 },
};
const char cli_task_submit_help[] =
    "Prints the task's id. Submitting again with the same --key and document gives the same id; without "
    "--key a\n"
    "random one is used, so that an answer that was lost does not make a second task.\n\n"
    "With --for-each, line N of the file gets the key KEY/N: what was interrupted goes on where it was when "
    "it is\n"
    "said again with the same --key. A line that is refused is told with its number; the others go on. A "
    "line's\n"
    "inputs win over --input. With --wait it ends when all tasks have, and names those that did not "
    "succeed.\n\n"
    "Examples:\n"
    "  cox task submit docs/examples/diamond.yaml\n"
    "  id=$(cox task submit audit.yaml --input repo=/src/app --label team=sec -o name)\n"
    "  cox task submit audit.yaml --wait --timeout 10m -o json | jq .outputs\n"
    "  cox task submit check.yaml --for-each inputs.jsonl --key run-7 --wait -o jsonl > results.jsonl\n"
    "  generate-task | cox task submit - --key nightly-2026-01-02\n";

static enum cli_exit wait_for(struct cli *cli, const char *id)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    Coxswain__V1__Task *task = NULL;
    ProtobufCMessage *response = NULL;
    int64_t timeout_ms;
    enum cli_exit code = cli_get_duration(cli, "timeout", 0, &timeout_ms);

    if (code)
        return code;
    code = cli_follow(cli, id, timeout_ms > 0 ? cox_clock_mono_ns() + timeout_ms * 1000000 : COX_RPC_FOREVER,
                      false, &task);
    if (task)
        protobuf_c_message_free_unpacked(&task->base, NULL);
    if (code != CLI_OK && code != CLI_TIMED_OUT)
        return code;
    request.id = (char *)(uintptr_t)id;
    enum cli_exit got =
        cli_call(cli, &coxswain__v1__task_service__descriptor, "GetTask", &request.base, true, &response);

    if (got)
        return got;
    task = ((Coxswain__V1__GetTaskResponse *)response)->task;
    cli_print_task(cli, task);
    if (code == CLI_OK) {
        code = cli_task_exit(task);
        if (code)
            cli_report_failures(cli, task);
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return code;
}

enum cli_exit cli_task_submit(struct cli *cli)
{
    Coxswain__V1__SubmitTaskResponse *response = NULL;

    if (cli_has(cli, "for-each"))
        return cli_submit_each(cli);
    enum cli_exit code = cli_submit(cli, &response);

    if (code)
        return code;
    if (cli_has(cli, "dry-run")) {
        cli_note(cli, "%s is valid", cli->args[0]);
        if (cli_structured(cli))
            cli_print_message(cli, &response->base);
    } else if (cli_has(cli, "wait")) {
        code = wait_for(cli, response->id);
    } else if (cli_structured(cli)) {
        cli_print_message(cli, &response->base);
    } else {
        printf("%s\n", response->id);
        if (cli->format != CLI_NAME)
            cli_note(cli, "%s. Follow it: cox task watch %s",
                     response->existed ? "known by its key" : "submitted", response->id);
    }
    protobuf_c_message_free_unpacked(&response->base, NULL);
    return code;
}
