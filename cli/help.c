#include "verbs.h"

#include <string.h>

const struct cli_option cli_help_options[] = { { 0 } };
const char cli_help_help[] = "Examples:\n"
                             "  cox help\n"
                             "  cox help task run\n";

static void put_options(FILE *out, const struct cli_option *options)
{
    for (; options && options->name; options++) {
        char text[64];
        snprintf(text, sizeof(text), "--%s%s%s", options->name, options->value ? " " : "",
                 options->value ? options->value : "");
        fprintf(out, "  %c%c%s %-28s %s\n", options->letter ? '-' : ' ',
                options->letter ? options->letter : ' ', options->letter ? "," : " ", text, options->help);
    }
}

static void put_global_options(FILE *out)
{
    for (size_t i = 0; i < cli_program.n_keys; i++) {
        const struct cox_config_key *k = &cli_program.keys[i];
        char text[64], letter = (char)(k->flags >> 8);
        snprintf(text, sizeof(text), "--%s%s%s", k->name, k->value ? " " : "", k->value ? k->value : "");
        fprintf(out, "  %c%c%s %-28s %s", letter ? '-' : ' ', letter ? letter : ' ', letter ? "," : " ", text,
                k->help);
        if (k->value && k->fallback)
            fprintf(out, " (default %s)", k->fallback);
        fputc('\n', out);
    }
    fprintf(out, "      %-28s %s\n  -h, %-28s %s\n", "--config FILE",
            "read these from a YAML file (default ~/.config/coxswain/config.yaml)", "--help",
            "say how it is used");
}

static void put_verbs(FILE *out, const char *group)
{
    size_t len = strlen(group);

    for (size_t i = 0; i < cli_n_verbs; i++) {
        const struct cli_verb *v = &cli_verbs[i];
        char text[64];
        if (len > 0 && (strncmp(v->name, group, len) != 0 || v->name[len] != ' '))
            continue;
        snprintf(text, sizeof(text), "%s %s", v->name, v->args);
        fprintf(out, "  cox %-32s %s\n", text, v->summary);
    }
}

void cli_help_program(FILE *out)
{
    fputs("cox: the command line of Coxswain, which runs graphs of steps on workers.\n\n", out);
    put_verbs(out, "");
    fputs("\nOptions of every verb:\n", out);
    put_global_options(out);
    fputs(
        "Each is also a variable (COX_ADDRESS) and a key of the file; a flag wins over its variable, that "
        "over\n"
        "the current context, that over the rest of the file.\n"
        "\nResults go to standard output, all else to standard error. Exit codes: 0 ok, 1 the task failed,\n"
        "2 wrong use, 3 not found, 4 not allowed, 5 unavailable, 124 time is up, 130 interrupted.\n\n"
        "Start with:\n"
        "  cox init hello && cox dev hello\n",
        out);
}

void cli_help_group(FILE *out, const char *group)
{
    put_verbs(out, group);
    fprintf(out, "\nMore: cox %s VERB --help\n", group);
}

void cli_help_own(FILE *out, const struct cli_verb *verb)
{
    fprintf(out, "usage: cox %s%s%s%s\n", verb->name, *verb->args ? " " : "", verb->args,
            verb->options->name ? " [OPTION...]" : "");
    if (verb->options->name) {
        fputs("\nOptions:\n", out);
        put_options(out, verb->options);
    }
    fprintf(out, "\n%s", verb->help);
}

void cli_help_verb(FILE *out, const struct cli_verb *verb)
{
    fprintf(out, "cox %s: %s\n\n", verb->name, verb->summary);
    cli_help_own(out, verb);
    fputs("\nOptions of every verb:\n", out);
    put_global_options(out);
}

enum cli_exit cli_help(struct cli *cli)
{
    char name[64];

    if (cli->n_args == 0) {
        cli_help_program(stdout);
        return CLI_OK;
    }
    snprintf(name, sizeof(name), "%s%s%s", cli->args[0], cli->n_args > 1 ? " " : "",
             cli->n_args > 1 ? cli->args[1] : "");
    const struct cli_verb *verb = cli_find_verb(name);

    if (verb)
        cli_help_verb(stdout, verb);
    else if (cli_is_group(name))
        cli_help_group(stdout, name);
    else
        return cli_unknown_verb(name);
    return CLI_OK;
}
