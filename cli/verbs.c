#include "verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 64
#define SUGGEST_DISTANCE_MAX 2

#define VERB(id, name, args, min, max, summary)                                                              \
    {                                                                                                        \
        name, args, min, max, cli_##id, cli_##id##_options, summary, cli_##id##_help                         \
    }

/* Sorted by name: found by binary search, and shown in this order. */
const struct cli_verb cli_verbs[] = {
    VERB(completion, "completion", "bash", 1, 1, "print a completion script for the shell"),
    VERB(help, "help", "[VERB]", 0, 2, "say what there is, or how a verb is used"),
    VERB(task_cancel, "task cancel", "ID...", 1, 1000, "end tasks"),
    VERB(task_describe, "task describe", "ID [STEP]", 1, 2, "show a task with its steps and their attempts"),
    VERB(task_get, "task get", "ID", 1, 1, "show a task"),
    VERB(task_logs, "task logs", "ID STEP", 2, 2, "print the log of a step"),
    VERB(task_output, "task output", "ID [STEP]", 1, 2,
         "print the outputs of a task, or the output of a step"),
    VERB(task_run, "task run", "FILE|-", 1, 1, "submit a task, follow it, print its outputs"),
    VERB(task_submit, "task submit", "FILE|-", 1, 1, "submit a task"),
    VERB(task_watch, "task watch", "ID", 1, 1, "follow a task until it has ended"),
    VERB(validate, "validate", "FILE|-...", 1, 1000, "check a document without an orchestrator"),
    VERB(version, "version", "", 0, 0, "print the version and its limits"),
    VERB(worker_describe, "worker describe", "ID", 1, 1, "show a worker and the steps it has"),
    VERB(worker_list, "worker list", "", 0, 0, "list the workers"),
};
const size_t cli_n_verbs = sizeof(cli_verbs) / sizeof(*cli_verbs);

/* Promised by the contract, not made yet. A group stands for all of its verbs that the table lacks. */
static const char *const planned[] = {
    "admin",      "config",       "dev",         "explain",    "init",          "model",
    "schedule",   "task approve", "task delete", "task fork",  "task list",     "task message",
    "task pause", "task reject",  "task resume", "task retry", "task signal",   "task token",
    "template",   "tenant",       "top",         "usage",      "worker cordon", "worker drain",
};

static int compare(const void *name, const void *verb)
{
    return strcmp(name, ((const struct cli_verb *)verb)->name);
}

const struct cli_verb *cli_find_verb(const char *name)
{
    return bsearch(name, cli_verbs, cli_n_verbs, sizeof(*cli_verbs), compare);
}

bool cli_is_group(const char *word)
{
    size_t len = strlen(word);

    for (size_t i = 0; i < cli_n_verbs; i++) {
        if (strncmp(cli_verbs[i].name, word, len) == 0 && cli_verbs[i].name[len] == ' ')
            return true;
    }
    return false;
}

unsigned cli_distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX + 1];
    size_t len = strlen(b);

    if (len > WORD_MAX || strlen(a) > WORD_MAX)
        return WORD_MAX;
    for (unsigned k = 0; k <= len; k++)
        rows[0][k] = k;
    unsigned *above2 = rows[2], *above = rows[0], *row = rows[1];

    for (unsigned i = 1; a[i - 1]; i++) {
        row[0] = i;
        for (size_t k = 1; k <= len; k++) {
            row[k] = above[k - 1] + (a[i - 1] != b[k - 1]);
            row[k] = above[k] + 1 < row[k] ? above[k] + 1 : row[k];
            row[k] = row[k - 1] + 1 < row[k] ? row[k - 1] + 1 : row[k];
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] && above2[k - 2] + 1 < row[k])
                row[k] = above2[k - 2] + 1;
        }
        unsigned *spare = above2;
        above2 = above;
        above = row;
        row = spare;
    }
    return above[len];
}

/* Keeps `candidate` as the nearest when it is nearer to `name` than what was. */
static void consider(const char *name, const char *candidate, const char *suggestion, unsigned *best,
                     char *nearest, size_t cap)
{
    unsigned d = cli_distance(name, candidate);

    if (d < *best) {
        *best = d;
        snprintf(nearest, cap, "%s", suggestion);
    }
}

enum cli_exit cli_unknown_verb(const char *name)
{
    char nearest[WORD_MAX] = "", group[WORD_MAX];
    unsigned best = SUGGEST_DISTANCE_MAX + 1;

    for (size_t i = 0; i < sizeof(planned) / sizeof(*planned); i++) {
        if (strcmp(planned[i], name) == 0) {
            cli_error("%s: not available in this version", name);
            return CLI_USAGE;
        }
    }
    for (size_t i = 0; i < cli_n_verbs; i++) {
        const char *verb = cli_verbs[i].name, *space = strchr(verb, ' ');
        consider(name, verb, verb, &best, nearest, sizeof(nearest));
        if (!space)
            continue;
        snprintf(group, sizeof(group), "%.*s", (int)(space - verb), verb);
        consider(name, group, group, &best, nearest, sizeof(nearest));
        consider(name, space + 1, verb, &best, nearest, sizeof(nearest));
    }
    if (*nearest)
        cli_error("no such verb: %s; did you mean cox %s?", name, nearest);
    else
        cli_error("no such verb: %s; see cox help", name);
    return CLI_USAGE;
}
