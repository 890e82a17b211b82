#include "verbs.h"

#include <string.h>

const struct cli_option cli_completion_options[] = { { 0 } };
const char cli_completion_help[] = "Example:\n"
                                   "  source <(cox completion bash)\n";

/* The words that may follow `prefix` ("" or "task "). */
static void put_words(const char *prefix)
{
    const char *last = "";

    for (size_t i = 0; i < cli_n_verbs; i++) {
        const char *word = cli_verbs[i].name + strlen(prefix);
        size_t len;
        if (strncmp(cli_verbs[i].name, prefix, strlen(prefix)) != 0)
            continue;
        len = strcspn(word, " ");
        if (strncmp(word, last, len) != 0 || last[len] != ' ')
            printf(" %.*s", (int)len, word);
        last = word;
    }
}

static void put_options(const struct cli_option *options)
{
    for (; options->name; options++)
        printf(" --%s", options->name);
}

enum cli_exit cli_completion(struct cli *cli)
{
    if (strcmp(cli->args[0], "bash") != 0) {
        cli_error("expected bash, found %s", cli->args[0]);
        return CLI_USAGE;
    }
    printf("_cox() {\n    local word=${COMP_WORDS[COMP_CWORD]} words=\n"
           "    case \"$COMP_CWORD:${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n    1:*) words='");
    put_words("");
    printf("' ;;\n    2:task*) words='");
    put_words("task ");
    printf("' ;;\n    2:worker*) words='");
    put_words("worker ");
    printf("' ;;\n    esac\n    if [[ $word == -* ]]; then\n        words='");
    put_options(cli_global_options);
    printf("'\n        case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n");
    for (size_t i = 0; i < cli_n_verbs; i++) {
        if (!cli_verbs[i].options->name)
            continue;
        printf("        '%s'*) words+='", cli_verbs[i].name);
        put_options(cli_verbs[i].options);
        printf("' ;;\n");
    }
    printf("        esac\n    fi\n"
           "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}\n"
           "complete -o default -F _cox cox\n");
    return CLI_OK;
}
