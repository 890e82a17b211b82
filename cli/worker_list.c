#include "verbs.h"
#include "worker.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "cox/wire.h"

const struct cli_option cli_worker_list_options[] = { { 0 } };
const char cli_worker_list_help[] =
    "Examples:\n"
    "  cox worker list\n"
    "  cox worker list -o wide\n"
    "  cox worker list -o jsonl | jq -r 'select(.state == \"ATTACHED\").id'\n";

/* Collects pages: rows of a table, or JSON of all workers. */
struct listing {
    struct cli_table table;
    struct cox_buf json;
};

static void add(struct listing *l, const struct cli *cli, const Coxswain__V1__Worker *worker)
{
    if (cli->format == CLI_NAME) {
        printf("%s\n", worker->id);
    } else if (cli->format == CLI_JSONL) {
        cli_print_message(cli, &worker->base);
    } else if (cli_structured(cli)) {
        cox_buf_append_str(&l->json, l->json.len > 0 ? "," : "");
        cox_wire_put_json(&l->json, &worker->base);
    } else {
        cli_add_worker(&l->table, worker, cli->format == CLI_WIDE);
    }
}

static void finish(struct listing *l, const struct cli *cli)
{
    if (cli->format == CLI_TABLE || cli->format == CLI_WIDE) {
        cli_table_print(&l->table, stdout);
    } else if (cli->format == CLI_JSON || cli->format == CLI_YAML) {
        struct cox_buf all = { 0 };
        cox_buf_append_str(&all, "{\"workers\":[");
        cox_buf_append_slice(&all, cox_buf_slice(&l->json));
        cox_buf_append_str(&all, "]}");
        cli_print_json(cli, cox_buf_slice(&all));
        cox_buf_fini(&all);
    }
    cox_buf_fini(&l->json);
}

enum cli_exit cli_worker_list(struct cli *cli)
{
    Coxswain__V1__ListWorkersRequest request = COXSWAIN__V1__LIST_WORKERS_REQUEST__INIT;
    struct listing l = { 0 };
    char *token = cox_strdup("");
    bool more = true;
    enum cli_exit code = CLI_OK;

    cli_add_worker(&l.table, NULL, cli->format == CLI_WIDE);
    while (more && !code) {
        ProtobufCMessage *response = NULL;
        request.page_token = token;
        code = cli_call(cli, &coxswain__v1__fleet_service__descriptor, "ListWorkers", &request.base, true,
                        &response);
        if (code)
            break;
        const Coxswain__V1__ListWorkersResponse *page = (const Coxswain__V1__ListWorkersResponse *)response;
        for (size_t i = 0; i < page->n_workers; i++)
            add(&l, cli, page->workers[i]);
        cox_free(token);
        token = cox_strdup(page->next_page_token);
        more = *token != '\0';
        protobuf_c_message_free_unpacked(response, NULL);
    }
    if (!code)
        finish(&l, cli);
    cox_buf_fini(&l.table.text);
    cox_buf_fini(&l.json);
    cox_free(token);
    return code;
}
