#include "task.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "cox/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#define SUBMIT_TIMEOUT_MS 60000

/* ---- inputs ----------------------------------------------------------------------------------------- */

/* True when the document declares the input with type string. */
static bool is_string_input(struct cox_slice document, const char *name)
{
    struct cox_slice inputs, input, type;

    return cox_json_member(document, "inputs", &inputs) && cox_json_member(inputs, name, &input) &&
           cox_json_member(input, "type", &type) && cox_slice_is(type, "\"string\"");
}

/* The input's name in `given`, and its value; false when there is no '='. */
static bool split(const char *given, char *name, size_t name_cap, const char **ret_value)
{
    const char *equals = strchr(given, '=');
    size_t len = equals ? (size_t)(equals - given) : 0;

    if (len == 0 || len >= name_cap)
        return false;
    memcpy(name, given, len);
    name[len] = '\0';
    *ret_value = equals + 1;
    return true;
}

static bool given_later(const struct cli *cli, size_t after, const char *name)
{
    for (size_t i = after; i < cli->n_given; i++) {
        const struct cli_given *g = &cli->given[i];
        if (strcmp(g->option->name, "input") == 0 && strncmp(g->value, name, strlen(name)) == 0 &&
            g->value[strlen(name)] == '=')
            return true;
    }
    return false;
}

static void put_member(struct cox_buf *out, struct cox_slice raw_key, struct cox_slice raw_value)
{
    if (out->len > 1)
        cox_put_u8(out, ',');
    cox_buf_append_slice(out, raw_key);
    cox_put_u8(out, ':');
    cox_buf_append_slice(out, raw_value);
}

/* What the file holds, less what --input overrides. */
static enum cli_exit put_inputs_file(const struct cli *cli, struct cox_buf *out)
{
    const char *path = cli_has(cli, "inputs") ? cli_get(cli, "inputs") : cli_get(cli, "inputs-file");
    struct cli_document file;
    struct cox_buf name = { 0 };

    if (!path)
        return CLI_OK;
    enum cli_exit code = cli_document_load(&file, path);

    if (!code && cox_json_kind(cli_document_json(&file)) != COX_JSON_OBJECT) {
        cli_error("%s: expected an object of inputs, found %s", path,
                  cox_json_kind_text(cox_json_kind(cli_document_json(&file))));
        code = CLI_USAGE;
    }
    if (!code) {
        struct cox_json_walk w = cox_json_walk(cli_document_json(&file));
        while (cox_json_next(&w)) {
            cox_buf_clear(&name);
            cox_json_unquote(&name, w.key);
            if (!given_later(cli, 0, cox_buf_cstr(&name)))
                put_member(out, w.key, w.value);
        }
    }
    cox_buf_fini(&name);
    cli_document_fini(&file);
    return code;
}

/* The text of an input: as given, or what the file of "@FILE" holds. "@@" begins a text with '@'. */
static enum cli_exit read_input(const char *name, const char *value, struct cox_buf *ret)
{
    if (value[0] != '@' || value[1] == '@') {
        cox_buf_append_str(ret, value + (value[0] == '@'));
        return CLI_OK;
    }
    FILE *f = fopen(value + 1, "rbe");
    size_t n = 1;

    while (f && n > 0 && ret->len <= COX_DOCUMENT_LEN_MAX) {
        cox_buf_reserve(ret, 65536);
        n = fread(ret->data + ret->len, 1, 65536, f);
        ret->len += n;
    }
    bool bad = !f || ferror(f);

    if (bad)
        cli_error("--input %s: %s: %s", name, value + 1, strerror(errno));
    else if (ret->len > COX_DOCUMENT_LEN_MAX)
        cli_error("--input %s: %s: expected at most %u MiB", name, value + 1, COX_DOCUMENT_LEN_MAX >> 20);
    if (f)
        fclose(f);
    return bad || ret->len > COX_DOCUMENT_LEN_MAX ? CLI_USAGE : CLI_OK;
}

enum cli_exit cli_put_inputs(const struct cli *cli, struct cox_slice document, struct cox_buf *out)
{
    cox_put_u8(out, '{');
    enum cli_exit code = put_inputs_file(cli, out);

    for (size_t i = 0; i < cli->n_given && !code; i++) {
        char name[128];
        const char *value;
        struct cox_buf key = { 0 }, text = { 0 }, raw = { 0 };
        if (strcmp(cli->given[i].option->name, "input") != 0)
            continue;
        if (!split(cli->given[i].value, name, sizeof(name), &value)) {
            cli_error("--input: expected NAME=VALUE, found %s", cli->given[i].value);
            return CLI_USAGE;
        }
        if (given_later(cli, i + 1, name))
            continue;
        code = read_input(name, value, &raw);
        cox_json_quote(&key, cox_slice_str(name));
        if (is_string_input(document, name) || cox_json_check(cox_buf_slice(&raw), NULL))
            cox_json_quote(&text, cox_buf_slice(&raw));
        else
            cox_buf_append_slice(&text, cox_buf_slice(&raw));
        put_member(out, cox_buf_slice(&key), cox_buf_slice(&text));
        cox_buf_fini(&key);
        cox_buf_fini(&text);
        cox_buf_fini(&raw);
    }
    cox_put_u8(out, '}');
    return code;
}

/* ---- labels and key --------------------------------------------------------------------------------- */

enum cli_exit cli_add_labels(const struct cli *cli, Coxswain__V1__SubmitTaskRequest *request)
{
    request->labels = cox_calloc(cli->n_given + 1, sizeof(*request->labels));
    for (size_t i = 0; i < cli->n_given; i++) {
        char name[300];
        const char *value;
        if (strcmp(cli->given[i].option->name, "label") != 0)
            continue;
        if (!split(cli->given[i].value, name, sizeof(name), &value)) {
            cli_error("--label: expected NAME=VALUE, found %s", cli->given[i].value);
            return CLI_USAGE;
        }
        Coxswain__V1__SubmitTaskRequest__LabelsEntry *entry =
            COX_NEW(Coxswain__V1__SubmitTaskRequest__LabelsEntry);
        coxswain__v1__submit_task_request__labels_entry__init(entry);
        entry->key = cox_strdup(name);
        entry->value = cox_strdup(value);
        request->labels[request->n_labels++] = entry;
    }
    return CLI_OK;
}

char *cli_random_key(void)
{
    uint64_t bits[2];

    COX_ASSERT(getrandom(bits, sizeof(bits), 0) == sizeof(bits));
    return cox_asprintf("cox-%016" PRIx64 "%016" PRIx64, bits[0], bits[1]);
}

/* ---- the call --------------------------------------------------------------------------------------- */

static enum cli_exit send_request(struct cli *cli, const struct cli_document *d,
                                  const Coxswain__V1__SubmitTaskRequest *request,
                                  Coxswain__V1__SubmitTaskResponse **ret)
{
    ProtobufCMessage *response = NULL;
    struct cox_rpc_error *error = NULL;
    enum cli_exit code = cli_try(cli, &coxswain__v1__task_service__descriptor, "SubmitTask", &request->base,
                                 true, SUBMIT_TIMEOUT_MS, &response, &error);

    if (code == CLI_OK)
        *ret = (Coxswain__V1__SubmitTaskResponse *)response;
    if (error)
        cli_document_error(cli, d, error);
    if (code == CLI_INTERRUPTED || code == CLI_UNAVAILABLE)
        cli_note(cli, "     Whether it was submitted is not known; submit it again with --key %s to be sure.",
                 request->key);
    cox_rpc_error_free(error);
    return code;
}

void cli_free_labels(Coxswain__V1__SubmitTaskRequest *request)
{
    for (size_t i = 0; i < request->n_labels; i++) {
        cox_free(request->labels[i]->key);
        cox_free(request->labels[i]->value);
        cox_free(request->labels[i]);
    }
    cox_free(request->labels);
}

enum cli_exit cli_submit(struct cli *cli, Coxswain__V1__SubmitTaskResponse **ret_response)
{
    Coxswain__V1__SubmitTaskRequest request = COXSWAIN__V1__SUBMIT_TASK_REQUEST__INIT;
    struct cli_document d;
    struct cox_buf inputs = { 0 };
    char *key = cli_get(cli, "key") ? cox_strdup(cli_get(cli, "key")) : cli_random_key();
    enum cli_exit code = cli_document_load(&d, cli->args[0]);

    if (!code)
        code = cli_put_inputs(cli, cli_document_json(&d), &inputs);
    if (!code)
        code = cli_document_pin(cli, &d, !cli_has(cli, "dry-run"));
    if (!code)
        code = cli_add_labels(cli, &request);
    if (!code) {
        struct cox_slice document = cli_document_json(&d);
        request.document = (ProtobufCBinaryData){ document.len, (uint8_t *)(uintptr_t)document.data };
        request.inputs_json = (char *)(uintptr_t)cox_buf_cstr(&inputs);
        request.key = key;
        request.dry_run = cli_has(cli, "dry-run");
        code = send_request(cli, &d, &request, ret_response);
    }
    cli_free_labels(&request);
    cox_free(key);
    cox_buf_fini(&inputs);
    cli_document_fini(&d);
    return code;
}
