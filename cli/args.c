#include "cli.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include "cli_config.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the options of every verb ----------------------------------------------------------------------- */

static const char *set_format(void *field, char *text)
{
    static const char *const names[CLI_FORMAT_NR] = {
        [CLI_TABLE] = "table", [CLI_WIDE] = "wide", [CLI_JSON] = "json",
        [CLI_JSONL] = "jsonl", [CLI_YAML] = "yaml", [CLI_NAME] = "name",
    };

    for (int f = 0; f < CLI_FORMAT_NR; f++) {
        if (strcmp(text, names[f]) == 0) {
            *(enum cli_format *)field = (enum cli_format)f;
            return NULL;
        }
    }
    return "table, wide, json, jsonl, yaml or name";
}

#define AT(field) offsetof(struct cli, field)

static const struct cox_config_key keys[] = {
    { "address", "HOST:PORT", "127.0.0.1:7600", "the orchestrator", cox_config_set_text, AT(address), 0 },
    { "token", "TOKEN", NULL, "who you are", cox_config_set_text, AT(token), 0 },
    { "tenant", "NAME", NULL, "whose tasks (default: the first that the token names)", cox_config_set_text,
      AT(tenant), 0 },
    { "tls-ca", "FILE", NULL, "speak TLS; this CA (PEM) has signed the orchestrator's certificate",
      cox_config_set_text, AT(tls.ca), 0 },
    { "tls-cert", "FILE", NULL, "show this certificate", cox_config_set_text, AT(tls.cert), 0 },
    { "tls-key", "FILE", NULL, "its key", cox_config_set_text, AT(tls.key), 0 },
    { "context", "NAME", NULL, "a context of the configuration file (default: its current one)",
      cox_config_set_text, AT(context), 0 },
    { "connect-timeout", "DURATION", "10s", "keep trying an orchestrator that is away for this long",
      cox_config_set_duration, AT(connect_timeout_ms), 0 },
    { "output", "FORMAT", "table", "table, wide, json, jsonl, yaml or name", set_format, AT(format),
      COX_CONFIG_LETTER('o') },
    { "no-color", NULL, "false", "no colours; so does NO_COLOR", cox_config_set_switch, AT(no_color), 0 },
    { "quiet", NULL, "false", "results and errors only", cox_config_set_switch, AT(quiet),
      COX_CONFIG_LETTER('q') },
};
static const char *const others[] = { "contexts", "current_context", "current-context", NULL };

const struct cox_config_program cli_program = {
    .name = "cox",
    .version = CLI_VERSION,
    .intro = "",
    .outro = "",
    .keys = keys,
    .n_keys = sizeof(keys) / sizeof(keys[0]),
    .others = others,
};

/* ---- options ---------------------------------------------------------------------------------------- */

static const struct cli_option *find_own(const struct cli *cli, const char *arg, size_t len)
{
    for (const struct cli_option *o = cli->verb ? cli->verb->options : NULL; o && o->name; o++) {
        if (arg[1] == '-' ? strlen(o->name) == len && memcmp(o->name, arg + 2, len) == 0
                          : o->letter && o->letter == arg[1])
            return o;
    }
    return NULL;
}

static const struct cox_config_key *find_global(const char *arg, size_t len)
{
    if (arg[1] == '-')
        return cox_config_find(&cli_program, cox_slice(arg + 2, len));
    for (size_t i = 0; i < cli_program.n_keys; i++) {
        if (keys[i].flags == COX_CONFIG_LETTER(arg[1]))
            return &keys[i];
    }
    return NULL;
}

static enum cli_exit unknown_option(const struct cli *cli, const char *arg)
{
    const char *name = arg + strspn(arg, "-"), *nearest = NULL;
    unsigned best = COX_CONFIG_NEAR;

    for (const struct cli_option *o = cli->verb ? cli->verb->options : NULL; o && o->name; o++)
        cox_config_consider(name, o->name, &nearest, &best);
    for (size_t i = 0; i < cli_program.n_keys; i++)
        cox_config_consider(name, keys[i].name, &nearest, &best);
    if (nearest)
        cli_error("unknown option %s; did you mean --%s?", arg, nearest);
    else
        cli_error("unknown option %s; see cox %s --help", arg, cli->verb ? cli->verb->name : "");
    return CLI_USAGE;
}

static bool is_flag(const char *arg, size_t len, const char *name)
{
    return arg[1] == '-' ? strlen(name) == len && memcmp(arg + 2, name, len) == 0
                         : arg[1] == 'h' && !arg[2] && strcmp(name, "help") == 0;
}

static void give_global(struct cli *cli, const struct cox_config_key *key, const char *value)
{
    if (key->offset == AT(address))
        cli->flag_address = value;
    if (key->offset == AT(token))
        cli->flag_token = value;
    if (key->offset == AT(tenant))
        cli->flag_tenant = value;
    if (key->offset == AT(tls.ca))
        cli->flag_tls.ca = value;
    if (key->offset == AT(tls.cert))
        cli->flag_tls.cert = value;
    if (key->offset == AT(tls.key))
        cli->flag_tls.key = value;
    cox_config_give(cli->config, key, value);
}

/* Reads the option at argv[*i], which may take argv[*i + 1] too. */
static enum cli_exit parse_option(struct cli *cli, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *value = NULL, *takes = "FILE";
    size_t len = arg[1] == '-' ? strcspn(arg + 2, "=") : 0;
    const struct cli_option *own = find_own(cli, arg, len);
    const struct cox_config_key *global = own ? NULL : find_global(arg, len);

    if (arg[1] == '-')
        value = arg[2 + len] == '=' ? arg + 2 + len + 1 : NULL;
    else
        value = arg[2] ? arg + 2 + (arg[2] == '=') : NULL;
    if (!own && !global && is_flag(arg, len, "help")) {
        cli->help = true;
        return CLI_OK;
    }
    if (!own && !global && !is_flag(arg, len, "config"))
        return unknown_option(cli, arg);
    if (own || global)
        takes = own ? own->value : global->value;
    if (own && !takes && value) {
        cli_error("option --%s takes no value", own->name);
        return CLI_USAGE;
    }
    if (takes && !value && *i + 1 < argc)
        value = argv[++*i];
    if (takes && !value) {
        cli_error("option %s needs a value: %s", arg, takes);
        return CLI_USAGE;
    }
    if (own)
        cli->given[cli->n_given++] = (struct cli_given){ own, value ? value : "" };
    else if (global)
        give_global(cli, global, value ? value : "true");
    else
        cli->config_path = value;
    return CLI_OK;
}

const char *cli_get(const struct cli *cli, const char *option)
{
    for (size_t i = cli->n_given; i-- > 0;) {
        if (strcmp(cli->given[i].option->name, option) == 0)
            return cli->given[i].value;
    }
    return NULL;
}

bool cli_has(const struct cli *cli, const char *option)
{
    return cli_get(cli, option) != NULL;
}

enum cli_exit cli_get_duration(const struct cli *cli, const char *option, int64_t fallback_ms,
                               int64_t *ret_ms)
{
    const char *value = cli_get(cli, option);

    *ret_ms = fallback_ms;
    if (!value || cox_parse_duration_ms(cox_slice_str(value), ret_ms) == COX_OK)
        return CLI_OK;
    cli_error("--%s: expected a duration such as 1.5s or 10m, found %s", option, value);
    return CLI_USAGE;
}

enum cli_exit cli_get_count(const struct cli *cli, const char *option, uint32_t fallback, uint32_t *ret)
{
    const char *value = cli_get(cli, option);
    char *end = NULL;
    unsigned long n = value ? strtoul(value, &end, 10) : fallback;

    if (value && (*value < '0' || *value > '9' || *end || n == 0 || n > UINT32_MAX)) {
        cli_error("--%s: expected a number from 1, found %s", option, value);
        return CLI_USAGE;
    }
    *ret = (uint32_t)n;
    return CLI_OK;
}

/* ---- words ------------------------------------------------------------------------------------------ */

/* A word belongs to the verb's name until that is whole. */
static enum cli_exit parse_word(struct cli *cli, const char *word)
{
    char name[64];

    if (cli->verb) {
        cli->args[cli->n_args++] = word;
        return CLI_OK;
    }
    snprintf(name, sizeof(name), "%s%s%s", cli->group ? cli->group : "", cli->group ? " " : "", word);
    cli->verb = cli_find_verb(name);
    if (cli->verb)
        return CLI_OK;
    if (cli->group || !cli_is_group(word))
        return cli_unknown_verb(name);
    cli->group = word;
    return CLI_OK;
}

static enum cli_exit check_args(const struct cli *cli)
{
    if (!cli->verb || cli->help || (cli->n_args >= cli->verb->args_min && cli->n_args <= cli->verb->args_max))
        return CLI_OK;
    if (cli->n_args > cli->verb->args_max)
        cli_error("unexpected argument %s", cli->args[cli->verb->args_max]);
    else
        cli_error("an argument is missing");
    fprintf(stderr, "usage: cox %s %s\nsee cox %s --help\n", cli->verb->name, cli->verb->args,
            cli->verb->name);
    return CLI_USAGE;
}

/* ---- settings --------------------------------------------------------------------------------------- */

static enum cli_exit settings_error(struct cox_buf *error)
{
    cli_error("%s", cox_buf_cstr(error));
    cox_buf_fini(error);
    return CLI_USAGE;
}

/* The file may be missing, unless it was named; verbs about the file itself make it. */
static enum cli_exit load_file(struct cli *cli)
{
    const char *variable = getenv("COX_CONFIG");
    struct cox_buf error = { 0 };
    bool named = true, makes_it = cli->verb && strncmp(cli->verb->name, "config ", 7) == 0;

    if (!cli->config_path && variable && *variable)
        cli->config_path = variable;
    if (!cli->config_path) {
        cli->config_path = cli->config_default = cli_config_default_path();
        named = false;
    }
    enum cox_err err = cli->config_path ? cox_config_load(cli->config, cli->config_path, &error) : COX_OK;

    if (err && !(err == COX_ERR_NOT_FOUND && (!named || makes_it)))
        return settings_error(&error);
    cox_buf_fini(&error);
    return CLI_OK;
}

static enum cli_exit take_context(struct cli *cli)
{
    const struct cox_yaml *file = cox_config_file(cli->config);
    struct cox_slice contexts, context;
    struct cox_buf error = { 0 };
    char *place;

    if (!cli->context && !(cli->context = cli->context_default = cli_current_context(file)))
        return CLI_OK;
    if (!cox_json_member(cox_buf_slice(&file->json), "contexts", &contexts) ||
        !cox_json_member(contexts, cli->context, &context)) {
        if (cli->verb && strncmp(cli->verb->name, "config ", 7) == 0)
            return CLI_OK;
        cli_error("there is no context %s in %s; see cox config get-contexts", cli->context,
                  cli->config_path);
        return CLI_USAGE;
    }
    place = cox_asprintf("contexts.%s", cli->context);
    enum cox_err err = cox_config_take(cli->config, context, place, &error);

    cox_free(place);
    if (!err)
        err = cox_config_apply(cli->config, cli, &error);
    return err ? settings_error(&error) : CLI_OK;
}

static enum cli_exit parse_settings(struct cli *cli)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    struct cox_buf error = { 0 };
    enum cli_exit code = load_file(cli);

    if (!code && cox_config_apply(cli->config, cli, &error))
        code = settings_error(&error);
    if (!code)
        code = take_context(cli);
    cli->bar = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0 && !cli->quiet;
    cli->color = cli->bar && !cli->no_color && !(no_color && *no_color);
    return code;
}

enum cli_exit cli_parse(struct cli *cli, int argc, char **argv)
{
    enum cli_exit code = CLI_OK;
    bool options_end = false;

    cli->config = cox_config_create(&cli_program);
    cli->given = cox_calloc((size_t)argc, sizeof(*cli->given));
    cli->args = cox_calloc((size_t)argc, sizeof(*cli->args));
    for (int i = 1; i < argc && !code; i++) {
        if (!options_end && strcmp(argv[i], "--") == 0)
            options_end = true;
        else if (!options_end && argv[i][0] == '-' && argv[i][1])
            code = parse_option(cli, argc, argv, &i);
        else
            code = parse_word(cli, argv[i]);
    }
    if (!code && cli->verb && !cli->help)
        code = parse_settings(cli);
    return code ? code : check_args(cli);
}

void cli_parse_fini(struct cli *cli)
{
    cox_free(cli->given);
    cox_free(cli->args);
    cox_free(cli->config_default);
    cox_free(cli->context_default);
    cox_config_destroy(cli->config);
}
