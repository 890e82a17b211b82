#include "task.h"
#include "verbs.h"

#include "cox/base/alloc.h"

#include <string.h>

const struct cli_option cli_explain_options[] = { { 0 } };
const char cli_explain_help[] =
    "One line, then what it rests on, most telling first, then commands that help.\n\n"
    "Examples:\n"
    "  cox explain t0-00000k\n"
    "  cox explain t0-00000k/build\n"
    "  cox explain t0-00000k/scan[17] -o json\n";

enum cli_exit cli_explain(struct cli *cli)
{
    Coxswain__V1__ExplainRequest request = COXSWAIN__V1__EXPLAIN_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    char *id = cox_strdup(cli->args[0]), *slash = strchr(id, '/');

    if (slash)
        *slash = '\0';
    request.id = id;
    if (slash)
        request.step = slash + 1;
    enum cli_exit code =
        cli_call(cli, &coxswain__v1__task_service__descriptor, "Explain", &request.base, true, &response);

    if (!code) {
        const Coxswain__V1__ExplainResponse *e = (const Coxswain__V1__ExplainResponse *)response;
        if (cli_structured(cli)) {
            cli_print_message(cli, response);
        } else {
            struct cox_buf out = { 0 };
            cli_put_line(&out, cox_slice_str(e->summary));
            for (size_t i = 0; i < e->n_details; i++) {
                cox_buf_append_str(&out, "\n  ");
                cli_put_line(&out, cox_slice_str(e->details[i]));
            }
            for (size_t i = 0; i < e->n_next_commands; i++) {
                cox_buf_append_str(&out, "\nnext: ");
                cli_put_line(&out, cox_slice_str(e->next_commands[i]));
            }
            printf("%s\n", cox_buf_cstr(&out));
            cox_buf_fini(&out);
        }
        protobuf_c_message_free_unpacked(response, NULL);
    }
    cox_free(id);
    return code;
}
