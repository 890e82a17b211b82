#include "task.h"
#include "verbs.h"

#include <stdlib.h>

#define EVENTS_MAX 256

const struct cli_option cli_task_logs_options[] = {
    { "attempt", 0, "N", "which attempt, 1 for the first (default: the newest)" },
    { "follow", 'f', NULL, "go on until the step has ended, through its retries" },
    { 0 },
};
const char cli_task_logs_help[] = "Prints what the step writes to its standard output and standard error.\n\n"
                                  "Examples:\n"
                                  "  cox task logs t0-00000k build\n"
                                  "  cox task logs t0-00000k build --attempt 1\n"
                                  "  cox task logs t0-00000k build -f\n";

struct reading {
    struct cli *cli;
    bool closed;
    bool begun; /* something was printed: starting again would print it twice */
    uint32_t attempt;
    struct cox_rpc_error *error;
};

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetLogsResponse *piece = (const Coxswain__V1__GetLogsResponse *)message;
    struct reading *r = user;

    (void)call;
    if (r->begun && piece->attempt != r->attempt)
        cli_note(r->cli, "-- attempt %u --", piece->attempt);
    else if (r->begun && piece->reset)
        cli_note(r->cli, "-- some of the log is missing here --");
    r->attempt = piece->attempt;
    r->begun = true;
    fwrite(piece->data.data, 1, piece->data.len, stdout);
    fflush(stdout);
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct reading *r = user;

    (void)call;
    r->closed = true;
    r->error = cox_rpc_error_copy(status);
}

static enum cli_exit read_once(struct reading *r, const Coxswain__V1__GetLogsRequest *request)
{
    static const struct cox_rpc_handlers handlers = { .on_message = on_message, .on_closed = on_closed };
    struct cox_rpc_call_config config = { .service = &coxswain__v1__task_service__descriptor,
                                          .method = "GetLogs",
                                          .handlers = &handlers,
                                          .user = r };
    struct cox_rpc_call *call = cox_rpc_call_start(r->cli->channel, &config);
    bool stopped = false;

    r->closed = false;
    if (cox_rpc_send(call, &request->base) == COX_OK)
        cox_rpc_half_close(call);
    while (!r->closed) {
        if (cli_interrupted() && !stopped) {
            cox_rpc_cancel(call, NULL);
            stopped = true;
        }
        cox_rpc_loop_run_once(r->cli->loop, COX_RPC_FOREVER, EVENTS_MAX);
    }
    return stopped ? CLI_INTERRUPTED : cli_exit_of(r->error);
}

enum cli_exit cli_task_logs(struct cli *cli)
{
    Coxswain__V1__GetLogsRequest request = COXSWAIN__V1__GET_LOGS_REQUEST__INIT;
    struct reading r = { .cli = cli };
    struct cli_outage outage = { 0 };
    const char *attempt = cli_get(cli, "attempt");
    char *end = NULL;
    enum cli_exit code;

    request.id = (char *)(uintptr_t)cli->args[0];
    request.step = (char *)(uintptr_t)cli->args[1];
    request.follow = cli_has(cli, "follow");
    request.attempt = attempt ? (uint32_t)strtoul(attempt, &end, 10) : 0;
    if (attempt && (*end || request.attempt == 0)) {
        cli_error("--attempt: expected a number from 1, found %s", attempt);
        return CLI_USAGE;
    }
    cli_connect(cli);
    for (;;) {
        code = read_once(&r, &request);
        bool again = code == CLI_UNAVAILABLE && r.error->status == COX_RPC_UNAVAILABLE && !r.begun;
        if (again)
            code = cli_outage_pause(cli, &outage, r.error);
        if (code && code != CLI_INTERRUPTED)
            cli_print_error(cli, r.error);
        cox_rpc_error_free(r.error);
        if (code || !again)
            return code;
    }
}
