#include "stream.h"
#include "task.h"
#include "terminal.h"
#include "verbs.h"

#include "cox/json.h"

#include "coxswain/v1/blob_service.pb-c.h"

#include <unistd.h>

const struct cli_option cli_task_output_options[] = {
    { "raw", 'r', NULL, "print a string as it is, without quotes" },
    { 0 },
};
const char cli_task_output_help[] = "Examples:\n"
                                    "  cox task output t0-00000k\n"
                                    "  cox task output t0-00000k report --raw > report.md\n";

static bool on_piece(void *user, const ProtobufCMessage *message)
{
    const Coxswain__V1__GetBlobResponse *m = (const Coxswain__V1__GetBlobResponse *)message;

    cox_buf_append(user, m->data.data, m->data.len);
    return true;
}

static enum cli_exit fetch_blob(struct cli *cli, const char *hash, struct cox_buf *ret)
{
    Coxswain__V1__GetBlobRequest request = COXSWAIN__V1__GET_BLOB_REQUEST__INIT;
    struct cox_rpc_error *error = NULL;

    request.hash = (char *)(uintptr_t)hash;
    cox_buf_clear(ret);
    enum cli_exit code = cli_stream(cli, &coxswain__v1__blob_service__descriptor, "GetBlob", &request.base,
                                    on_piece, ret, &error);

    if (code && code != CLI_INTERRUPTED)
        cli_error("%s: the output could not be read: %s", hash,
                  error && error->message ? error->message : "the call failed");
    cox_rpc_error_free(error);
    return code;
}

enum cli_exit cli_fetch_output(struct cli *cli, const char *id, const char *step, struct cox_buf *ret)
{
    Coxswain__V1__GetOutputRequest request = COXSWAIN__V1__GET_OUTPUT_REQUEST__INIT;
    ProtobufCMessage *response = NULL;

    request.id = (char *)(uintptr_t)id;
    request.step = (char *)(uintptr_t)step;
    enum cli_exit code =
        cli_call(cli, &coxswain__v1__task_service__descriptor, "GetOutput", &request.base, true, &response);

    if (code)
        return code;
    const Coxswain__V1__GetOutputResponse *m = (const Coxswain__V1__GetOutputResponse *)response;

    if (*m->blob)
        code = fetch_blob(cli, m->blob, ret);
    else
        cox_buf_append(ret, m->json.data, m->json.len);
    if (!code && ret->len > 0 && cox_json_check(cox_buf_slice(ret), NULL)) {
        cli_error("%s: the output that came is not JSON", id);
        code = CLI_UNAVAILABLE;
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return code;
}

enum cli_exit cli_task_output(struct cli *cli)
{
    struct cox_buf json = { 0 }, raw = { 0 }, clean = { 0 };
    struct terminal_text shown = { 0 };
    enum cli_exit code = cli_fetch_output(cli, cli->args[0], cli->n_args > 1 ? cli->args[1] : "", &json);
    struct cox_slice text = json.len > 0 ? cox_buf_slice(&json) : cox_slice_str("null");

    if (!code && cli_has(cli, "raw") && cox_json_kind(text) == COX_JSON_STRING) {
        cox_json_unquote(&raw, cox_json_trim(text));
        if (isatty(STDOUT_FILENO)) {
            terminal_put(&shown, cox_buf_slice(&raw), &clean);
            terminal_end(&shown, &clean);
        }
        fwrite(clean.len > 0 ? clean.data : raw.data, 1, clean.len > 0 ? clean.len : raw.len, stdout);
    } else if (!code) {
        cli_print_json(cli, text);
    }
    cox_buf_fini(&clean);
    cox_buf_fini(&raw);
    cox_buf_fini(&json);
    return code;
}
