#include "task.h"
#include "verbs.h"

#include "cox/base/units.h"

const struct cli_option cli_task_watch_options[] = {
    { "timeout", 0, "DURATION", "exit 124 after this long" },
    { 0 },
};
const char cli_task_watch_help[] =
    "Shows the steps as a tree on a terminal, elsewhere a line for each that ends, on standard error; then "
    "the ended\n"
    "task on standard output as `task get` does. With -o jsonl, standard output has each event as a line of "
    "JSON\n"
    "instead. Restarts of the orchestrator do not matter. Exits 1 when the task did not succeed.\n\n"
    "Examples:\n"
    "  cox task watch t0-00000k\n"
    "  cox task watch t0-00000k -o jsonl | jq .step.address\n";

enum cli_exit cli_task_watch(struct cli *cli)
{
    Coxswain__V1__Task *task = NULL;
    bool events = cli->format == CLI_JSONL;
    int64_t timeout_ms;
    enum cli_exit code = cli_get_duration(cli, "timeout", 0, &timeout_ms);

    if (code)
        return code;
    int64_t deadline_ns = timeout_ms > 0 ? cox_clock_mono_ns() + timeout_ms * 1000000 : COX_RPC_FOREVER;

    code = events ? cli_follow(cli, cli->args[0], deadline_ns, true, &task)
                  : cli_follow_tree(cli, cli->args[0], deadline_ns, &task);
    if (code == CLI_OK) {
        if (!events)
            cli_print_task(cli, task);
        code = cli_task_exit(task);
        if (code)
            cli_report_failures(cli, task);
    }
    if (task)
        protobuf_c_message_free_unpacked(&task->base, NULL);
    return code;
}
