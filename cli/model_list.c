#include "model.h"
#include "verbs.h"

#include "cox/base/alloc.h"

const struct cli_option cli_model_list_options[] = { { 0 } };
const char cli_model_list_help[] = "Examples:\n"
                                   "  cox model list\n"
                                   "  cox model list -o wide\n"
                                   "  cox model list -o jsonl | jq -r 'select(.endpoints_up == 0).name'\n";

enum cli_exit cli_model_list(struct cli *cli)
{
    Coxswain__V1__ListModelsRequest request = COXSWAIN__V1__LIST_MODELS_REQUEST__INIT;
    struct cli_listing l = { 0 };
    char *token = cox_strdup("");
    bool more = true;
    enum cli_exit code = CLI_OK;

    cli_add_model(&l, cli, NULL);
    while (more && !code) {
        ProtobufCMessage *response = NULL;
        request.page_token = token;
        code = cli_call(cli, &coxswain__v1__model_service__descriptor, "ListModels", &request.base, true,
                        &response);
        if (code)
            break;
        const Coxswain__V1__ListModelsResponse *page = (const Coxswain__V1__ListModelsResponse *)response;
        for (size_t i = 0; i < page->n_models; i++)
            cli_add_model(&l, cli, page->models[i]);
        cox_free(token);
        token = cox_strdup(page->next_page_token);
        more = *token != '\0';
        protobuf_c_message_free_unpacked(response, NULL);
    }
    if (!code)
        cli_listing_finish(&l, cli, "models");
    cox_buf_fini(&l.table.text);
    cox_buf_fini(&l.json);
    cox_free(token);
    return code;
}
