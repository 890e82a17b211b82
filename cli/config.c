/* The verbs about contexts: where `cox` finds an orchestrator, under a name. */
#include "verbs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <string.h>

#define CONFIG_EXAMPLE                                                                                       \
    "The file is ~/.config/coxswain/config.yaml, or the one of --config or COX_CONFIG, readable by its "     \
    "owner "                                                                                                 \
    "only:\n"                                                                                                \
    "  current_context: local\n"                                                                             \
    "  contexts: {local: {address: \"127.0.0.1:7600\"}}\n"                                                   \
    "Options of every verb may stand in a context, or beside them for all: output, connect_timeout.\n\n"

const struct cli_option cli_config_set_context_options[] = {
    { "use", 0, NULL, "make it the current one" },
    { 0 },
};
const char cli_config_set_context_help[] = CONFIG_EXAMPLE
    "Makes a context, or changes what is given: its address (--address), token (--token), tenant\n"
    "(--tenant), and the files of TLS (--tls-ca, --tls-cert, --tls-key).\n\n"
    "Example:\n"
    "  cox config set-context prod --address cox.example.org:7600 --use\n";
const struct cli_option cli_config_use_context_options[] = { { 0 } };
const char cli_config_use_context_help[] = CONFIG_EXAMPLE "Example:\n  cox config use-context prod\n";
const struct cli_option cli_config_get_contexts_options[] = { { 0 } };
const char cli_config_get_contexts_help[] = CONFIG_EXAMPLE "Example:\n  cox config get-contexts -o name\n";
const struct cli_option cli_config_delete_context_options[] = { { 0 } };
const char cli_config_delete_context_help[] = CONFIG_EXAMPLE "Example:\n  cox config delete-context prod\n";
const struct cli_option cli_config_view_options[] = {
    { "show-tokens", 0, NULL, "tokens as they are" },
    { 0 },
};
const char cli_config_view_help[] = CONFIG_EXAMPLE "Example:\n  cox config view -o json | jq .contexts\n";

static struct cox_slice contexts_of(const struct cli *cli)
{
    struct cox_slice contexts = { 0 };

    (void)cox_json_member(cox_buf_slice(&cox_config_file(cli->config)->json), "contexts", &contexts);
    return contexts;
}

static enum cli_exit need_context(const struct cli *cli, const char *name)
{
    struct cox_slice found;

    if (cox_json_member(contexts_of(cli), name, &found))
        return CLI_OK;
    cli_error("there is no context %s; see cox config get-contexts", name);
    return CLI_NOT_FOUND;
}

enum cli_exit cli_config_set_context(struct cli *cli)
{
    const char *name = cli->args[0];
    struct cox_slice found;
    bool known = cox_json_member(contexts_of(cli), name, &found);
    const char *address = cli->flag_address;
    const char *token = cli->flag_token;
    const struct cox_tls_files *tls = &cli->flag_tls;

    if (!known && !address) {
        cli_error("a new context needs --address HOST:PORT");
        return CLI_USAGE;
    }
    if (known && !address && !token && !cli->flag_tenant && !tls->ca && !tls->cert && !tls->key &&
        !cli_has(cli, "use")) {
        cli_error(
            "nothing to change: give --address, --token, --tenant, --tls-ca, --tls-cert, --tls-key or --use");
        return CLI_USAGE;
    }
    enum cli_exit code =
        cli_put_context(cli, name, address, token, cli->flag_tenant, tls, cli_has(cli, "use"));

    if (!code)
        cli_note(cli, "context %s is in %s", name, cli->config_path);
    return code;
}

enum cli_exit cli_config_use_context(struct cli *cli)
{
    enum cli_exit code = need_context(cli, cli->args[0]);

    if (!code)
        code = cli_put_context(cli, cli->args[0], NULL, NULL, NULL, NULL, true);
    if (!code)
        cli_note(cli, "%s is the current context", cli->args[0]);
    return code;
}

enum cli_exit cli_config_delete_context(struct cli *cli)
{
    enum cli_exit code = need_context(cli, cli->args[0]);

    if (!code)
        code = cli_put_context(cli, cli->args[0], NULL, NULL, NULL, NULL, false);
    if (!code)
        cli_note(cli, "context %s is gone", cli->args[0]);
    return code;
}

enum cli_exit cli_config_get_contexts(struct cli *cli)
{
    static const char *const heading[] = { "CURRENT", "NAME", "ADDRESS" };
    struct cli_listing l = { 0 };
    char *current = cli_current_context(cox_config_file(cli->config));

    cli_table_row(&l.table, 3, heading);
    for (struct cox_json_walk w = cox_json_walk(contexts_of(cli)); cox_json_next(&w);) {
        struct cox_buf name = { 0 }, address = { 0 }, json = { 0 };
        struct cox_slice raw;
        cox_json_unquote(&name, w.key);
        if (cox_json_member(w.value, "address", &raw))
            cox_json_unquote(&address, raw);
        bool is_current = current && strcmp(current, cox_buf_cstr(&name)) == 0;
        cox_buf_append_str(&json, "{\"name\":");
        cox_json_quote(&json, cox_buf_slice(&name));
        cox_buf_append_str(&json, ",\"address\":");
        cox_json_quote(&json, cox_buf_slice(&address));
        cox_buf_printf(&json, ",\"current\":%s}", is_current ? "true" : "false");
        const char *cells[] = { is_current ? "*" : " ", cox_buf_cstr(&name), cox_buf_cstr(&address) };

        cli_listing_add(&l, cli, cells[1], cox_buf_slice(&json), 3, cells);
        cox_buf_fini(&name);
        cox_buf_fini(&address);
        cox_buf_fini(&json);
    }
    cli_listing_finish(&l, cli, "contexts");
    cox_free(current);
    return CLI_OK;
}

/* The file as JSON, tokens hidden. */
static void put_hidden(struct cox_buf *out, struct cox_slice json)
{
    enum cox_json_kind kind = cox_json_kind(json);
    bool first = true;

    if (kind != COX_JSON_OBJECT) {
        cox_buf_append_slice(out, json);
        return;
    }
    cox_put_u8(out, '{');
    for (struct cox_json_walk w = cox_json_walk(json); cox_json_next(&w); first = false) {
        cox_buf_append_str(out, first ? "" : ",");
        cox_buf_append_slice(out, w.key);
        cox_put_u8(out, ':');
        if (cox_slice_is(w.key, "\"token\""))
            cox_buf_append_str(out, "\"(hidden)\"");
        else
            put_hidden(out, w.value);
    }
    cox_put_u8(out, '}');
}

enum cli_exit cli_config_view(struct cli *cli)
{
    struct cox_slice json = cox_buf_slice(&cox_config_file(cli->config)->json);
    struct cox_buf hidden = { 0 };

    if (json.len == 0)
        json = cox_slice_str("{}");
    if (!cli_has(cli, "show-tokens")) {
        put_hidden(&hidden, json);
        json = cox_buf_slice(&hidden);
    }
    if (cli_structured(cli)) {
        cli_print_json(cli, json);
    } else {
        struct cox_buf yaml = { 0 };
        cli_put_yaml(&yaml, json);
        fwrite(yaml.data, 1, yaml.len, stdout);
        cox_buf_fini(&yaml);
    }
    cox_buf_fini(&hidden);
    return CLI_OK;
}
