#include "bulk.h"

#include <string.h>
#include <unistd.h>

#define CALL_TIMEOUT_MS 60000

struct ids {
    struct cox_buf text; /* each ended by NUL */
    size_t n;
};

static void on_task(void *user, const Coxswain__V1__Task *task)
{
    struct ids *ids = user;

    cox_buf_append(&ids->text, task->id, strlen(task->id) + 1);
    ids->n++;
}

static bool selects(const struct cli *cli)
{
    return cli_has(cli, "label") || cli_has(cli, "status") || cli_has(cli, "since") || cli_has(cli, "before");
}

/* Only a terminal is asked: a script has said what it wants. */
static bool confirm(const struct cli *cli, const struct cli_action *a, size_t n)
{
    char answer[16];

    if (cli_has(cli, "yes") || n == 0 || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return true;
    fprintf(stderr, "%s %zu task%s? [y/N] ", a->verb, n, n == 1 ? "" : "s");
    return fgets(answer, sizeof(answer), stdin) && (*answer == 'y' || *answer == 'Y');
}

static enum cli_exit collect(struct cli *cli, const struct cli_action *a, struct ids *ids)
{
    struct cli_select s;
    bool more;
    enum cli_exit code = cli_select_init(&s, cli);

    if (!code && s.request.n_statuses == 0)
        cli_select_statuses(&s, a->statuses);
    if (!code)
        code = cli_select_each(cli, &s, UINT32_MAX, on_task, ids, &more);
    cli_select_fini(&s);
    if (!code && ids->n == 0)
        cli_note(cli, "no task fits");
    if (!code && !confirm(cli, a, ids->n)) {
        cli_note(cli, "nothing was done");
        code = CLI_INTERRUPTED;
    }
    return code;
}

enum cli_exit cli_bulk(struct cli *cli, const struct cli_action *a)
{
    struct ids ids = { 0 };
    struct cli_listing l = { 0 };
    size_t n_named = cli->n_args > a->n_own_args ? cli->n_args - a->n_own_args : 0;
    enum cli_exit stop = CLI_OK, worst = CLI_OK;

    if (cli->n_args < a->n_own_args || (n_named == 0) != selects(cli)) {
        cli_error(n_named > 0 ? "either ids or a selection, not both"
                              : "expected ids, or a selection such as -l k=v");
        fprintf(stderr, "usage: cox %s %s\n", cli->verb->name, cli->verb->args);
        return CLI_USAGE;
    }
    for (size_t i = 0; i < n_named; i++) {
        cox_buf_append(&ids.text, cli->args[i], strlen(cli->args[i]) + 1);
        ids.n++;
    }
    if (n_named == 0)
        stop = collect(cli, a, &ids);
    const char *id = (const char *)ids.text.data;

    for (size_t i = 0; i < ids.n && !stop; i++, id += strlen(id) + 1) {
        const char *status = NULL;
        struct cox_rpc_error *error = NULL;
        enum cli_exit code = a->act(cli, id, &status, &error);
        if (code == CLI_INTERRUPTED) {
            stop = code;
            break;
        }
        cli_report_done(cli, &l, id, code, a->done, status, error);
        cox_rpc_error_free(error);
        worst = cli_worse(worst, code);
    }
    if (cli_structured(cli))
        cli_listing_finish(&l, cli, "results");
    cox_buf_fini(&ids.text);
    return cli_worse(stop, worst);
}

enum cli_exit cli_act(struct cli *cli, const char *method, const ProtobufCMessage *request, bool repeatable,
                      struct cox_rpc_error **ret_error)
{
    ProtobufCMessage *response = NULL;
    enum cli_exit code = cli_try(cli, &coxswain__v1__task_service__descriptor, method, request, repeatable,
                                 CALL_TIMEOUT_MS, &response, ret_error);

    if (!code)
        protobuf_c_message_free_unpacked(response, NULL);
    return code;
}
