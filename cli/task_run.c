#include "task.h"
#include "verbs.h"

#include "cox/base/units.h"

const struct cli_option cli_task_run_options[] = {
    CLI_SUBMIT_OPTIONS,
    { "timeout", 0, "DURATION", "exit 124 after this long; the task goes on" },
    { 0 },
};
const char cli_task_run_help[] =
    "Submits the task, follows it with a progress bar, and prints its outputs as JSON. A restart of the\n"
    "orchestrator on the way does not matter. Exits 1 when the task does not succeed, and says which step "
    "failed\n"
    "and why. After Ctrl-C (exit 130) the task goes on.\n\n"
    "Examples:\n"
    "  cox task run docs/examples/diamond.yaml\n"
    "  cox task run docs/examples/repo-audit.yaml --input repo=$PWD\n"
    "  cox task run audit.yaml --inputs-file inputs.json -q | jq .report\n";

static enum cli_exit print_outputs(struct cli *cli, const char *id)
{
    struct cox_buf json = { 0 };
    enum cli_exit code = cli_fetch_output(cli, id, "", &json);

    if (!code)
        cli_print_json(cli, json.len > 0 ? cox_buf_slice(&json) : cox_slice_str("{}"));
    cox_buf_fini(&json);
    return code;
}

static enum cli_exit follow(struct cli *cli, const char *id, int64_t timeout_ms)
{
    Coxswain__V1__Task *task = NULL;
    enum cli_exit code = cli_follow(
        cli, id, timeout_ms > 0 ? cox_clock_mono_ns() + timeout_ms * 1000000 : COX_RPC_FOREVER, false, &task);

    if (code == CLI_OK && cli_task_exit(task) == CLI_OK) {
        struct cox_buf took = { 0 };
        cli_put_between(&took, task->created_at, task->finished_at);
        cli_note(cli, "%s SUCCEEDED in %s", id, cox_buf_cstr(&took));
        cox_buf_fini(&took);
        code = print_outputs(cli, id);
    } else if (code == CLI_OK) {
        code = cli_task_exit(task);
        cli_report_failures(cli, task);
    }
    if (task)
        protobuf_c_message_free_unpacked(&task->base, NULL);
    return code;
}

enum cli_exit cli_task_run(struct cli *cli)
{
    Coxswain__V1__SubmitTaskResponse *response = NULL;
    int64_t timeout_ms;
    enum cli_exit code = cli_get_duration(cli, "timeout", 0, &timeout_ms);

    if (!code)
        code = cli_submit(cli, &response);
    if (code)
        return code;
    cli_note(cli, "%s %s", response->id, response->existed ? "known by its key" : "submitted");
    code = follow(cli, response->id, timeout_ms);
    protobuf_c_message_free_unpacked(&response->base, NULL);
    return code;
}
