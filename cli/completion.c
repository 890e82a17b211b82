/* Completion scripts, made of the table of verbs. */
#include "verbs.h"

#include <string.h>

const struct cli_option cli_completion_options[] = { { 0 } };
const char cli_completion_help[] = "Examples:\n"
                                   "  source <(cox completion bash)\n"
                                   "  cox completion zsh > ~/.zfunc/_cox\n"
                                   "  cox completion fish > ~/.config/fish/completions/cox.fish\n";

/* Calls `put` for each word that may follow `prefix` ("" or "task "), once. */
static void each_word(const char *prefix, void (*put)(const char *word, size_t len, const struct cli_verb *v))
{
    const char *last = "";

    for (size_t i = 0; i < cli_n_verbs; i++) {
        const char *word = cli_verbs[i].name + strlen(prefix);
        if (strncmp(cli_verbs[i].name, prefix, strlen(prefix)) != 0)
            continue;
        size_t len = strcspn(word, " ");
        if (strncmp(word, last, len) != 0 || last[len] != ' ')
            put(word, len, &cli_verbs[i]);
        last = word;
    }
}

static void put_word(const char *word, size_t len, const struct cli_verb *v)
{
    (void)v;
    printf(" %.*s", (int)len, word);
}

static void put_global_options(void)
{
    for (size_t i = 0; i < cli_program.n_keys; i++)
        printf(" --%s", cli_program.keys[i].name);
    printf(" --config --help");
}

static void put_options(const struct cli_option *options)
{
    for (; options->name; options++)
        printf(" --%s", options->name);
}

static void put_group_case(const char *word, size_t len, const struct cli_verb *v)
{
    char prefix[64];

    if (v->name[len] != ' ')
        return;
    snprintf(prefix, sizeof(prefix), "%.*s ", (int)len, word);
    printf("    '2:%s'*) words='", prefix);
    each_word(prefix, put_word);
    printf("' ;;\n");
}

/* A shell's `case` that sets `words`, over "POSITION:FIRST SECOND"; bash and zsh read it alike. */
static void put_cases(void)
{
    printf("    1:*) words='");
    each_word("", put_word);
    printf("' ;;\n");
    each_word("", put_group_case);
    printf("    esac\n    if [[ $word == -* ]]; then\n        words='");
    put_global_options();
    printf("'\n        case \"$first $second\" in\n");
    for (size_t i = 0; i < cli_n_verbs; i++) {
        if (!cli_verbs[i].options->name)
            continue;
        printf("        '%s'*) words+='", cli_verbs[i].name);
        put_options(cli_verbs[i].options);
        printf("' ;;\n");
    }
    printf("        esac\n    fi\n");
}

static void put_bash(void)
{
    printf("_cox() {\n    local word=${COMP_WORDS[COMP_CWORD]} words= first=${COMP_WORDS[1]} "
           "second=${COMP_WORDS[2]}\n"
           "    case \"$COMP_CWORD:$first $second\" in\n");
    put_cases();
    printf("    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}\n"
           "complete -o default -F _cox cox\n");
}

static void put_zsh(void)
{
    printf("#compdef cox\n_cox() {\n    local word=${words[CURRENT]} first=${words[2]} second=${words[3]} "
           "at=$((CURRENT - 1))\n"
           "    local words=\n    case \"$at:$first $second\" in\n");
    put_cases();
    printf("    if [[ -n $words ]]; then compadd -- ${=words}; else _files; fi\n}\n"
           "compdef _cox cox\n");
}

/* Between single quotes. */
static void put_quoted(const char *text)
{
    fputc('\'', stdout);
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\')
            fputc('\\', stdout);
        fputc(*text, stdout);
    }
    fputc('\'', stdout);
}

static void put_fish_option(const char *when, const char *name, char letter, const char *value,
                            const char *help)
{
    printf("complete -c cox -n '%s' -l %s%s%.1s%s -d ", when, name, letter ? " -s " : "",
           letter ? &letter : "", value ? " -r" : " -f");
    put_quoted(help);
    fputc('\n', stdout);
}

static void put_fish_first(const char *word, size_t len, const struct cli_verb *v)
{
    printf("complete -c cox -f -n '__fish_use_subcommand' -a %.*s -d ", (int)len, word);
    put_quoted(v->name[len] == ' ' ? "a group of verbs" : v->summary);
    fputc('\n', stdout);
}

static void put_fish(void)
{
    char when[160];

    each_word("", put_fish_first);
    for (size_t i = 0; i < cli_n_verbs; i++) {
        const struct cli_verb *v = &cli_verbs[i];
        const char *space = strchr(v->name, ' ');
        int len = space ? (int)(space - v->name) : 0;
        if (space) {
            printf("complete -c cox -f -n 'test (count (commandline -opc)) -eq 2; and "
                   "__fish_seen_subcommand_from "
                   "%.*s' -a %s -d ",
                   len, v->name, space + 1);
            put_quoted(v->summary);
            fputc('\n', stdout);
            snprintf(when, sizeof(when),
                     "__fish_seen_subcommand_from %.*s; and __fish_seen_subcommand_from %s", len, v->name,
                     space + 1);
        } else {
            snprintf(when, sizeof(when), "__fish_seen_subcommand_from %s", v->name);
        }
        for (const struct cli_option *o = v->options; o->name; o++)
            put_fish_option(when, o->name, o->letter, o->value, o->help);
    }
    for (size_t i = 0; i < cli_program.n_keys; i++) {
        const struct cox_config_key *k = &cli_program.keys[i];
        put_fish_option("true", k->name, (char)(k->flags >> 8), k->value, k->help);
    }
}

enum cli_exit cli_completion(struct cli *cli)
{
    if (strcmp(cli->args[0], "bash") == 0) {
        put_bash();
    } else if (strcmp(cli->args[0], "zsh") == 0) {
        put_zsh();
    } else if (strcmp(cli->args[0], "fish") == 0) {
        put_fish();
    } else {
        cli_error("expected bash, zsh or fish, found %s", cli->args[0]);
        return CLI_USAGE;
    }
    return CLI_OK;
}
