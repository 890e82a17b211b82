/* The verbs that steer tasks, many at a time. */
#include "bulk.h"
#include "verbs.h"

#include "cox/json.h"

#define ID(text) ((char *)(uintptr_t)(text))

/* ---- cancel ------------------------------------------------------------------------------------------- */

const struct cli_option cli_task_cancel_options[] = {
    CLI_BULK_OPTIONS,
    { "reason", 0, "TEXT", "why; shown in the task's error" },
    { "step", 0, "STEP", "only this step" },
    { 0 },
};
const char cli_task_cancel_help[] =
    "Steps that have not started are cancelled, running attempts are stopped. Done when the cancellation is\n"
    "durable; attempts may still be stopping: `cox task watch` waits for the end.\n\n" CLI_BULK_HELP
    "Examples:\n"
    "  cox task cancel t0-00000k --reason 'wrong inputs'\n"
    "  cox task cancel t0-00000k t0-00000m\n"
    "  cox task cancel -l team=sec --yes\n";

static enum cli_exit cancel(struct cli *cli, const char *id, const char **status,
                            struct cox_rpc_error **ret_error)
{
    Coxswain__V1__CancelTaskRequest request = COXSWAIN__V1__CANCEL_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;

    request.id = ID(id);
    request.reason = ID(cli_has(cli, "reason") ? cli_get(cli, "reason") : "");
    request.step = ID(cli_has(cli, "step") ? cli_get(cli, "step") : "");
    enum cli_exit code = cli_try(cli, &coxswain__v1__task_service__descriptor, "CancelTask", &request.base,
                                 true, 60000, &response, ret_error);

    if (!code) {
        *status = cli_task_status(((Coxswain__V1__CancelTaskResponse *)response)->status);
        protobuf_c_message_free_unpacked(response, NULL);
    }
    return code;
}

enum cli_exit cli_task_cancel(struct cli *cli)
{
    return cli_bulk(cli, &(struct cli_action){ "cancel", "cancelled", CLI_STATUSES_LIVE, 0, cancel });
}

/* ---- pause, resume, retry, delete --------------------------------------------------------------------- */

const struct cli_option cli_task_pause_options[] = { CLI_BULK_OPTIONS, { 0 } };
const char cli_task_pause_help[] =
    "Running attempts finish, nothing new starts, until `cox task resume`.\n\n" CLI_BULK_HELP "Examples:\n"
    "  cox task pause t0-00000k\n"
    "  cox task pause -l team=sec\n";

static enum cli_exit hold(struct cli *cli, const char *id, const char **status,
                          struct cox_rpc_error **ret_error)
{
    Coxswain__V1__PauseTaskRequest request = COXSWAIN__V1__PAUSE_TASK_REQUEST__INIT;

    (void)status;
    request.id = ID(id);
    return cli_act(cli, "PauseTask", &request.base, true, ret_error);
}

enum cli_exit cli_task_pause(struct cli *cli)
{
    const unsigned statuses = CLI_STATUSES_LIVE & ~CLI_STATUS(COXSWAIN__V1__TASK_STATUS__TASK_STATUS_PAUSED);

    return cli_bulk(cli, &(struct cli_action){ "pause", "paused", statuses, 0, hold });
}

const struct cli_option cli_task_resume_options[] = { CLI_BULK_OPTIONS, { 0 } };
const char cli_task_resume_help[] = CLI_BULK_HELP "Examples:\n"
                                                  "  cox task resume t0-00000k\n"
                                                  "  cox task resume --status PAUSED\n";

static enum cli_exit resume(struct cli *cli, const char *id, const char **status,
                            struct cox_rpc_error **ret_error)
{
    Coxswain__V1__ResumeTaskRequest request = COXSWAIN__V1__RESUME_TASK_REQUEST__INIT;

    (void)status;
    request.id = ID(id);
    return cli_act(cli, "ResumeTask", &request.base, true, ret_error);
}

enum cli_exit cli_task_resume(struct cli *cli)
{
    const unsigned statuses = CLI_STATUS(COXSWAIN__V1__TASK_STATUS__TASK_STATUS_PAUSED);

    return cli_bulk(cli, &(struct cli_action){ "resume", "going on", statuses, 0, resume });
}

const struct cli_option cli_task_retry_options[] = { CLI_BULK_OPTIONS, { 0 } };
const char cli_task_retry_help[] = "Steps that failed, were skipped or cancelled run again, with new "
                                   "attempts; what succeeded is kept.\n\n" CLI_BULK_HELP "Examples:\n"
                                   "  cox task retry t0-00000k\n"
                                   "  cox task retry --status FAILED --since 1h\n";

static enum cli_exit retry(struct cli *cli, const char *id, const char **status,
                           struct cox_rpc_error **ret_error)
{
    Coxswain__V1__RetryTaskRequest request = COXSWAIN__V1__RETRY_TASK_REQUEST__INIT;

    (void)status;
    request.id = ID(id);
    return cli_act(cli, "RetryTask", &request.base, true, ret_error);
}

enum cli_exit cli_task_retry(struct cli *cli)
{
    const unsigned statuses = CLI_STATUS(COXSWAIN__V1__TASK_STATUS__TASK_STATUS_FAILED) |
                              CLI_STATUS(COXSWAIN__V1__TASK_STATUS__TASK_STATUS_CANCELLED);

    return cli_bulk(cli, &(struct cli_action){ "retry", "running again", statuses, 0, retry });
}

const struct cli_option cli_task_delete_options[] = { CLI_BULK_OPTIONS, { 0 } };
const char cli_task_delete_help[] =
    "The task must have ended. Its results are gone then; its id is not used again.\n\n" CLI_BULK_HELP
    "Examples:\n"
    "  cox task delete t0-00000k\n"
    "  cox task delete --before 30d --yes\n";

static enum cli_exit delete (struct cli *cli, const char *id, const char **status,
                             struct cox_rpc_error **ret_error) {
    Coxswain__V1__DeleteTaskRequest request = COXSWAIN__V1__DELETE_TASK_REQUEST__INIT;

    (void)status;
    request.id = ID(id);
    return cli_act(cli, "DeleteTask", &request.base, true, ret_error);
}

enum cli_exit cli_task_delete(struct cli *cli)
{
    return cli_bulk(cli, &(struct cli_action){ "delete", "deleted", CLI_STATUSES_ENDED, 0, delete });
}

/* ---- signal ------------------------------------------------------------------------------------------- */

const struct cli_option cli_task_signal_options[] = {
    CLI_BULK_OPTIONS,
    { "payload", 0, "JSON", "a value for the step that waits for it; text that is not JSON is a string" },
    { 0 },
};
const char cli_task_signal_help[] =
    "For `wait: {signal: NAME}`. A signal that nothing waits for yet is kept for the task.\n\n" CLI_BULK_HELP
    "Examples:\n"
    "  cox task signal t0-00000k go\n"
    "  cox task signal t0-00000k t0-00000m price --payload '{\"eur\": 12}'\n"
    "  cox task signal -l team=sec go\n";

static enum cli_exit signal_task(struct cli *cli, const char *id, const char **status,
                                 struct cox_rpc_error **ret_error)
{
    Coxswain__V1__SignalTaskRequest request = COXSWAIN__V1__SIGNAL_TASK_REQUEST__INIT;
    const char *payload = cli_get(cli, "payload");
    struct cox_buf json = { 0 };

    (void)status;
    if (payload && cox_json_check(cox_slice_str(payload), NULL) == COX_OK)
        cox_buf_append_str(&json, payload);
    else if (payload)
        cox_json_quote(&json, cox_slice_str(payload));
    request.id = ID(id);
    request.name = ID(cli->args[cli->n_args - 1]);
    request.payload_json = ID(cox_buf_cstr(&json));
    /* Not repeated: two signals are not one. */
    enum cli_exit code = cli_act(cli, "SignalTask", &request.base, false, ret_error);

    cox_buf_fini(&json);
    return code;
}

enum cli_exit cli_task_signal(struct cli *cli)
{
    return cli_bulk(cli, &(struct cli_action){ "signal", "signalled", CLI_STATUSES_LIVE, 1, signal_task });
}
