#include "verbs.h"
#include "worker.h"

#include "cox/base/alloc.h"

const struct cli_option cli_worker_list_options[] = { { 0 } };
const char cli_worker_list_help[] =
    "Examples:\n"
    "  cox worker list\n"
    "  cox worker list -o wide\n"
    "  cox worker list -o jsonl | jq -r 'select(.state == \"ATTACHED\").id'\n";

enum cli_exit cli_worker_list(struct cli *cli)
{
    Coxswain__V1__ListWorkersRequest request = COXSWAIN__V1__LIST_WORKERS_REQUEST__INIT;
    struct cli_listing l = { 0 };
    char *token = cox_strdup("");
    bool more = true;
    enum cli_exit code = CLI_OK;

    cli_add_worker(&l, cli, NULL);
    while (more && !code) {
        ProtobufCMessage *response = NULL;
        request.page_token = token;
        code = cli_call(cli, &coxswain__v1__fleet_service__descriptor, "ListWorkers", &request.base, true,
                        &response);
        if (code)
            break;
        const Coxswain__V1__ListWorkersResponse *page = (const Coxswain__V1__ListWorkersResponse *)response;
        for (size_t i = 0; i < page->n_workers; i++)
            cli_add_worker(&l, cli, page->workers[i]);
        cox_free(token);
        token = cox_strdup(page->next_page_token);
        more = *token != '\0';
        protobuf_c_message_free_unpacked(response, NULL);
    }
    if (!code)
        cli_listing_finish(&l, cli, "workers");
    cox_buf_fini(&l.table.text);
    cox_buf_fini(&l.json);
    cox_free(token);
    return code;
}
