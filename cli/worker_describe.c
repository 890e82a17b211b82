#include "task.h"
#include "verbs.h"
#include "worker.h"

#include "cox/wire.h"

#include <string.h>

const struct cli_option cli_worker_describe_options[] = { { 0 } };
const char cli_worker_describe_help[] = "Example:\n"
                                        "  cox worker describe build-7\n";

#define COLUMNS 7
#define COLUMNS_WIDE 11

/* What a worker says of its sandbox are labels; they are shown apart. */
static bool is_sandbox(const char *label)
{
    return strncmp(label, "sandbox.", 8) == 0;
}

static void put_sandbox(const Coxswain__V1__Worker *worker)
{
    bool any = false;

    for (size_t i = 0; i < worker->n_labels; i++) {
        if (!is_sandbox(worker->labels[i]->key))
            continue;
        printf("%s%-10s%s\n", any ? "" : "\nSANDBOX\n", worker->labels[i]->key + 8, worker->labels[i]->value);
        any = true;
    }
}

void cli_add_worker(struct cli_listing *l, const struct cli *cli, const Coxswain__V1__Worker *worker)
{
    bool wide = cli->format == CLI_WIDE || cli->verb->args_max == 1; /* one worker is shown whole */
    static const char *const heading[] = { "ID",     "STATE",   "SLOTS", "BUSY",     "CREDIT", "ATTACHED",
                                           "LABELS", "VERSION", "PEER",  "HANDLERS", "BOOT" };
    struct cox_buf numbers[3] = { 0 }, age = { 0 }, labels = { 0 }, handlers = { 0 };

    if (!worker) {
        cli_table_row(&l->table, wide ? COLUMNS_WIDE : COLUMNS, heading);
        return;
    }
    const char *state = cox_wire_enum_text(&coxswain__v1__worker_state__descriptor, (int)worker->state);

    cox_buf_printf(&numbers[0], "%u", worker->slots);
    cox_buf_printf(&numbers[1], "%u", worker->assigned);
    cox_buf_printf(&numbers[2], "%u", worker->free_credit);
    cli_put_between(&age, worker->attached_at, NULL);
    for (size_t i = 0; i < worker->n_labels; i++)
        if (!is_sandbox(worker->labels[i]->key))
            cox_buf_printf(&labels, "%s%s=%s", labels.len > 0 ? "," : "", worker->labels[i]->key,
                           worker->labels[i]->value);
    for (size_t i = 0; i < worker->n_handlers; i++)
        cox_buf_printf(&handlers, "%s%s", i > 0 ? "," : "", worker->handlers[i]);
    const char *cells[COLUMNS_WIDE] = { worker->id,
                                        state ? state : "?",
                                        cox_buf_cstr(&numbers[0]),
                                        cox_buf_cstr(&numbers[1]),
                                        cox_buf_cstr(&numbers[2]),
                                        cox_buf_cstr(&age),
                                        cox_buf_cstr(&labels),
                                        worker->version,
                                        worker->peer,
                                        cox_buf_cstr(&handlers),
                                        worker->boot_id };

    struct cox_buf json = { 0 };

    if (cli_structured(cli))
        cox_wire_put_json(&json, &worker->base);
    cli_listing_add(l, cli, worker->id, cox_buf_slice(&json), wide ? COLUMNS_WIDE : COLUMNS, cells);
    cox_buf_fini(&json);
    for (int i = 0; i < 3; i++)
        cox_buf_fini(&numbers[i]);
    cox_buf_fini(&age);
    cox_buf_fini(&labels);
    cox_buf_fini(&handlers);
}

enum cli_exit cli_worker_describe(struct cli *cli)
{
    Coxswain__V1__DescribeWorkerRequest request = COXSWAIN__V1__DESCRIBE_WORKER_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cli_listing l = { 0 };

    request.id = (char *)(uintptr_t)cli->args[0];
    enum cli_exit code = cli_call(cli, &coxswain__v1__fleet_service__descriptor, "DescribeWorker",
                                  &request.base, true, &response);

    if (code)
        return code;
    const Coxswain__V1__DescribeWorkerResponse *d = (const Coxswain__V1__DescribeWorkerResponse *)response;

    if (cli_structured(cli)) {
        cli_print_message(cli, response);
    } else if (cli->format == CLI_NAME) {
        printf("%s\n", d->worker->id);
    } else {
        cli_add_worker(&l, cli, NULL);
        cli_add_worker(&l, cli, d->worker);
        cli_listing_finish(&l, cli, "workers");
        put_sandbox(d->worker);
        if (d->worker->workspaces)
            printf("\nWORKSPACES\n%u on its disk, %.1f MiB, %u not saved\n", d->worker->workspaces->count,
                   (double)d->worker->workspaces->bytes / (1 << 20), d->worker->workspaces->unsaved);
        for (size_t i = 0; i < d->n_steps; i++)
            printf("%s%s\n", i == 0 ? "\nSTEPS\n" : "", d->steps[i]);
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return CLI_OK;
}
