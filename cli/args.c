#include "cli.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADDRESS_DEFAULT "127.0.0.1:7600"
#define CONNECT_TIMEOUT_DEFAULT_MS 10000

const struct cli_option cli_global_options[] = {
    { "address", 0, "HOST:PORT", "orchestrator (COX_ADDRESS; default " ADDRESS_DEFAULT ")" },
    { "token", 0, "TOKEN", "who you are (COX_TOKEN)" },
    { "connect-timeout", 0, "DURATION",
      "keep trying an orchestrator that is away for this long (default 10s)" },
    { "output", 'o', "FORMAT", "table, wide, json, jsonl, yaml or name" },
    { "no-color", 0, NULL, "no colours (NO_COLOR)" },
    { "quiet", 'q', NULL, "results and errors only" },
    { "help", 'h', NULL, "say how it is used" },
    { 0 },
};

static const char *const format_names[CLI_FORMAT_NR] = {
    [CLI_TABLE] = "table", [CLI_WIDE] = "wide", [CLI_JSON] = "json",
    [CLI_JSONL] = "jsonl", [CLI_YAML] = "yaml", [CLI_NAME] = "name",
};

/* ---- options ---------------------------------------------------------------------------------------- */

static const struct cli_option *find_in(const struct cli_option *options, const char *name, size_t len)
{
    for (; options && options->name; options++) {
        if (strlen(options->name) == len && memcmp(options->name, name, len) == 0)
            return options;
    }
    return NULL;
}

static const struct cli_option *find_letter(const struct cli_option *options, char letter)
{
    for (; options && options->name; options++) {
        if (options->letter == letter)
            return options;
    }
    return NULL;
}

static void nearest_in(const struct cli_option *options, const char *name, const char **nearest,
                       unsigned *best)
{
    for (; options && options->name; options++) {
        unsigned d = cli_distance(name, options->name);
        if (d < *best) {
            *best = d;
            *nearest = options->name;
        }
    }
}

static enum cli_exit unknown_option(const struct cli *cli, const char *arg)
{
    const char *name = arg + strspn(arg, "-"), *nearest = NULL;
    unsigned best = 3;

    nearest_in(cli->verb ? cli->verb->options : NULL, name, &nearest, &best);
    nearest_in(cli_global_options, name, &nearest, &best);
    if (nearest && strlen(name) > 2)
        cli_error("unknown option %s; did you mean --%s?", arg, nearest);
    else
        cli_error("unknown option %s; see cox %s --help", arg, cli->verb ? cli->verb->name : "");
    return CLI_USAGE;
}

/* Reads the option at argv[*i], which may take argv[*i + 1] too. */
static enum cli_exit parse_option(struct cli *cli, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *value = NULL;
    const struct cli_option *own = cli->verb ? cli->verb->options : NULL, *option;

    if (arg[1] == '-') {
        size_t len = strcspn(arg + 2, "=");
        option = find_in(own, arg + 2, len);
        option = option ? option : find_in(cli_global_options, arg + 2, len);
        value = arg[2 + len] == '=' ? arg + 2 + len + 1 : NULL;
    } else {
        option = find_letter(own, arg[1]);
        option = option ? option : find_letter(cli_global_options, arg[1]);
        value = arg[2] ? arg + 2 + (arg[2] == '=') : NULL;
    }
    if (!option)
        return unknown_option(cli, arg);
    if (!option->value && value) {
        cli_error("option --%s takes no value", option->name);
        return CLI_USAGE;
    }
    if (option->value && !value && *i + 1 < argc)
        value = argv[++*i];
    if (option->value && !value) {
        cli_error("option --%s needs a value: %s", option->name, option->value);
        return CLI_USAGE;
    }
    cli->given[cli->n_given++] = (struct cli_given){ option, value ? value : "" };
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

static const char *setting(const struct cli *cli, const char *option, const char *variable)
{
    const char *value = cli_get(cli, option);

    if (!value)
        value = getenv(variable);
    return value && *value ? value : NULL;
}

static enum cli_exit parse_format(struct cli *cli)
{
    const char *value = cli_get(cli, "output");

    if (!value)
        return CLI_OK;
    for (int f = 0; f < CLI_FORMAT_NR; f++) {
        if (strcmp(value, format_names[f]) == 0) {
            cli->format = (enum cli_format)f;
            return CLI_OK;
        }
    }
    cli_error("-o: expected table, wide, json, jsonl, yaml or name, found %s", value);
    return CLI_USAGE;
}

static enum cli_exit parse_settings(struct cli *cli)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    const char *address = setting(cli, "address", "COX_ADDRESS");

    cli->address = address ? address : ADDRESS_DEFAULT;
    cli->token = setting(cli, "token", "COX_TOKEN");
    cli->help = cli_has(cli, "help");
    cli->quiet = cli_has(cli, "quiet");
    cli->bar = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0 && !cli->quiet;
    cli->color = cli->bar && !cli_has(cli, "no-color") && !(no_color && *no_color);
    enum cli_exit code = parse_format(cli);

    if (code)
        return code;
    return cli_get_duration(cli, "connect-timeout", CONNECT_TIMEOUT_DEFAULT_MS, &cli->connect_timeout_ms);
}

enum cli_exit cli_parse(struct cli *cli, int argc, char **argv)
{
    enum cli_exit code = CLI_OK;
    bool options_end = false;

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
    if (!code)
        code = parse_settings(cli);
    return code ? code : check_args(cli);
}

void cli_parse_fini(struct cli *cli)
{
    cox_free(cli->given);
    cox_free(cli->args);
}
