#include "verbs.h"
#include "worker.h"

#include "cox/json.h"

const struct cli_option cli_worker_cordon_options[] = { { 0 } };
const char cli_worker_cordon_help[] = "What they run goes on; the cordon survives restarts.\n\n"
                                      "Example:\n"
                                      "  cox worker cordon build-7\n";
const struct cli_option cli_worker_uncordon_options[] = { { 0 } };
const char cli_worker_uncordon_help[] = "Example:\n"
                                        "  cox worker uncordon build-7\n";
const struct cli_option cli_worker_drain_options[] = { { 0 } };
const char cli_worker_drain_help[] =
    "Cordons them, and asks their programs to end once what runs has ended.\n\n"
    "Examples:\n"
    "  cox worker drain build-7\n"
    "  cox worker list -o jsonl | jq -r 'select(.labels.zone == \"a\").id' | xargs cox worker drain\n";

typedef enum cli_exit act(struct cli *cli, const char *id, struct cox_rpc_error **ret_error);

static enum cli_exit call(struct cli *cli, const char *method, const ProtobufCMessage *request,
                          struct cox_rpc_error **ret_error)
{
    ProtobufCMessage *response = NULL;
    enum cli_exit code = cli_try(cli, &coxswain__v1__fleet_service__descriptor, method, request, true, 60000,
                                 &response, ret_error);

    if (!code)
        protobuf_c_message_free_unpacked(response, NULL);
    return code;
}

static enum cli_exit set_cordon(struct cli *cli, const char *id, bool uncordon,
                                struct cox_rpc_error **ret_error)
{
    Coxswain__V1__CordonWorkerRequest request = COXSWAIN__V1__CORDON_WORKER_REQUEST__INIT;

    request.id = (char *)(uintptr_t)id;
    request.uncordon = uncordon;
    return call(cli, "CordonWorker", &request.base, ret_error);
}

static enum cli_exit cordon(struct cli *cli, const char *id, struct cox_rpc_error **ret_error)
{
    return set_cordon(cli, id, false, ret_error);
}

static enum cli_exit uncordon(struct cli *cli, const char *id, struct cox_rpc_error **ret_error)
{
    return set_cordon(cli, id, true, ret_error);
}

static enum cli_exit drain(struct cli *cli, const char *id, struct cox_rpc_error **ret_error)
{
    Coxswain__V1__DrainWorkerRequest request = COXSWAIN__V1__DRAIN_WORKER_REQUEST__INIT;

    request.id = (char *)(uintptr_t)id;
    return call(cli, "DrainWorker", &request.base, ret_error);
}

static enum cli_exit each(struct cli *cli, act *f, const char *done)
{
    struct cli_listing l = { 0 };
    enum cli_exit worst = CLI_OK, code = CLI_OK;

    for (size_t i = 0; i < cli->n_args && code != CLI_INTERRUPTED; i++) {
        struct cox_rpc_error *error = NULL;
        code = f(cli, cli->args[i], &error);
        cli_report_done(cli, &l, cli->args[i], code, done, NULL, error);
        cox_rpc_error_free(error);
        worst = cli_worse(worst, code);
    }
    if (cli_structured(cli))
        cli_listing_finish(&l, cli, "results");
    return worst;
}

enum cli_exit cli_worker_cordon(struct cli *cli)
{
    return each(cli, cordon, "cordoned");
}

enum cli_exit cli_worker_uncordon(struct cli *cli)
{
    return each(cli, uncordon, "taking work again");
}

enum cli_exit cli_worker_drain(struct cli *cli)
{
    return each(cli, drain, "draining");
}
