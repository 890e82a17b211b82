#include "stream.h"
#include "task.h"
#include "terminal.h"
#include "verbs.h"

#include <unistd.h>

const struct cli_option cli_task_logs_options[] = {
    { "attempt", 0, "N", "which attempt, 1 for the first (default: the newest)" },
    { "follow", 'f', NULL, "go on until the step has ended, through its retries" },
    { 0 },
};
const char cli_task_logs_help[] =
    "Prints what the step writes to its standard output and standard error; of a\n"
    "model step, what the model writes.\n\n"
    "Examples:\n"
    "  cox task logs t0-00000k build\n"
    "  cox task logs t0-00000k build --attempt 1\n"
    "  cox task logs t0-00000k build -f\n";

struct reading {
    struct cli *cli;
    bool begun; /* something was printed: starting again would print it twice */
    uint32_t attempt;
    struct terminal_text *shown; /* NULL: it goes elsewhere than to a terminal, as it is */
};

static void print(struct reading *r, struct cox_slice data, bool is_end)
{
    struct cox_buf clean = { 0 };

    if (r->shown) {
        terminal_put(r->shown, data, &clean);
        if (is_end)
            terminal_end(r->shown, &clean);
        data = cox_buf_slice(&clean);
    }
    if (data.len > 0)
        fwrite(data.data, 1, data.len, stdout);
    fflush(stdout);
    cox_buf_fini(&clean);
}

static bool on_piece(void *user, const ProtobufCMessage *message)
{
    const Coxswain__V1__GetLogsResponse *piece = (const Coxswain__V1__GetLogsResponse *)message;
    struct reading *r = user;

    if (r->begun && piece->attempt != r->attempt)
        cli_note(r->cli, "-- attempt %u --", piece->attempt);
    else if (r->begun && piece->reset)
        cli_note(r->cli, piece->stream == COXSWAIN__V1__LOG_STREAM__LOG_STREAM_TOKENS
                             ? "-- the text begins again --"
                             : "-- some of the log is missing here --");
    r->attempt = piece->attempt;
    r->begun = true;
    print(r, cox_slice(piece->data.data, piece->data.len), false);
    return true;
}

enum cli_exit cli_task_logs(struct cli *cli)
{
    Coxswain__V1__GetLogsRequest request = COXSWAIN__V1__GET_LOGS_REQUEST__INIT;
    struct terminal_text shown = { 0 };
    struct reading r = { .cli = cli, .shown = isatty(STDOUT_FILENO) ? &shown : NULL };
    struct cli_outage outage = { 0 };
    bool again = true;
    enum cli_exit code =
        cli_has(cli, "attempt") ? cli_get_count(cli, "attempt", 0, &request.attempt) : CLI_OK;

    request.id = (char *)(uintptr_t)cli->args[0];
    request.step = (char *)(uintptr_t)cli->args[1];
    request.follow = cli_has(cli, "follow");
    while (again && !code) {
        struct cox_rpc_error *error = NULL;
        code = cli_stream(cli, &coxswain__v1__task_service__descriptor, "GetLogs", &request.base, on_piece,
                          &r, &error);
        again = error && error->status == COX_RPC_UNAVAILABLE && !r.begun;
        if (again)
            code = cli_outage_pause(cli, &outage, error);
        if (error && code && code != CLI_INTERRUPTED)
            cli_print_error(cli, error);
        cox_rpc_error_free(error);
    }
    print(&r, cox_slice(NULL, 0), true);
    if (!code && !r.begun)
        cli_note(
            cli,
            "nothing is kept of what %s wrote: of a program that succeeded the log is there while it runs "
            "(-f), of an item of a map only its error",
            cli->args[1]);
    return code;
}
