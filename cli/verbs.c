#include "verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 64

#define VERB(id, name, args, min, max, summary)                                                              \
    {                                                                                                        \
        name, args, min, max, cli_##id, cli_##id##_options, summary, cli_##id##_help                         \
    }

/* Sorted by name: found by binary search, and shown in this order. */
const struct cli_verb cli_verbs[] = {
    VERB(admin_backup, "admin backup", "DIR", 1, 1, "copy all data of the orchestrator, while it works"),
    VERB(admin_certs, "admin certs", "DIR", 1, 1, "make a CA and certificates for a first cluster"),
    VERB(admin_lift, "admin lift", "TASK", 1, 1, "take up a task that recovery has quarantined"),
    VERB(admin_restore, "admin restore", "DIR", 1, 1, "make a data directory of a backup"),
    VERB(admin_token, "admin token", "NAME", 1, 1,
         "make a token and its row in the orchestrator's token file"),
    VERB(admin_verify, "admin verify", "DIR", 1, 1, "check a backup or a data directory"),
    VERB(completion, "completion", "bash|zsh|fish", 1, 1, "print a completion script for the shell"),
    VERB(config_delete_context, "config delete-context", "NAME", 1, 1, "forget a context"),
    VERB(config_get_contexts, "config get-contexts", "", 0, 0, "list the contexts"),
    VERB(config_set_context, "config set-context", "NAME", 1, 1, "make or change a context"),
    VERB(config_use_context, "config use-context", "NAME", 1, 1, "make a context the current one"),
    VERB(config_view, "config view", "", 0, 0, "show the configuration file"),
    VERB(dev, "dev", "[DIR]", 0, 1, "run an orchestrator and a worker for the project here"),
    VERB(explain, "explain", "TASK[/STEP]", 1, 1, "say why a task or step is where it is"),
    VERB(help, "help", "[VERB]", 0, 2, "say what there is, or how a verb is used"),
    VERB(init, "init", "[DIR]", 0, 1, "make a project to start from"),
    VERB(model_describe, "model describe", "NAME", 1, 1, "show a model and the servers that have it"),
    VERB(model_list, "model list", "", 0, 0, "list the models"),
    VERB(schedule_apply, "schedule apply", "FILE|-...", 1, 1000, "create or replace schedules"),
    VERB(schedule_delete, "schedule delete", "NAME...", 1, 1000, "delete schedules; tasks they made go on"),
    VERB(schedule_get, "schedule get", "NAME", 1, 1, "show a schedule"),
    VERB(schedule_list, "schedule list", "", 0, 0, "list the schedules"),
    VERB(task_approve, "task approve", "ID STEP", 2, 2, "answer an approval: go on"),
    VERB(task_cancel, "task cancel", "[ID...]", 0, 1000, "end tasks"),
    VERB(task_delete, "task delete", "[ID...]", 0, 1000, "forget ended tasks"),
    VERB(task_describe, "task describe", "ID [STEP]", 1, 2, "show a task with its steps and their attempts"),
    VERB(task_fork, "task fork", "ID", 1, 1, "make a new task that keeps an old one's results"),
    VERB(task_get, "task get", "ID", 1, 1, "show a task"),
    VERB(task_list, "task list", "", 0, 0, "list tasks, newest first"),
    VERB(task_logs, "task logs", "ID STEP", 2, 2, "print the log of a step"),
    VERB(task_message, "task message", "ID [STEP] TEXT", 2, 3, "say something to a running agent"),
    VERB(task_output, "task output", "ID [STEP]", 1, 2,
         "print the outputs of a task, or the output of a step"),
    VERB(task_pause, "task pause", "[ID...]", 0, 1000,
         "hold tasks: what runs may finish, nothing new starts"),
    VERB(task_reject, "task reject", "ID STEP", 2, 2, "answer an approval: do not go on"),
    VERB(task_resume, "task resume", "[ID...]", 0, 1000, "let paused tasks go on"),
    VERB(task_retry, "task retry", "[ID...]", 0, 1000, "run what failed in ended tasks again"),
    VERB(task_run, "task run", "FILE|-", 1, 1, "submit a task, follow it, print its outputs"),
    VERB(task_signal, "task signal", "ID... NAME", 1, 1000, "deliver a signal to tasks"),
    VERB(task_submit, "task submit", "FILE|-", 1, 1, "submit a task, or one for each line of inputs"),
    VERB(task_token, "task token", "ID", 1, 1, "make a token that reads this task, for a short time"),
    VERB(task_watch, "task watch", "ID", 1, 1, "follow a task until it has ended"),
    VERB(template_apply, "template apply", "FILE|-...", 1, 1000, "create or replace templates"),
    VERB(template_delete, "template delete", "NAME@MAJOR...", 1, 1000,
         "delete templates; tasks made of them go on"),
    VERB(template_get, "template get", "NAME[@MAJOR]", 1, 1, "show a template"),
    VERB(template_list, "template list", "", 0, 0, "list the templates"),
    VERB(top, "top", "", 0, 0, "watch tasks, queues and workers"),
    VERB(usage, "usage", "", 0, 0, "show what model calls used"),
    VERB(validate, "validate", "FILE|-...", 1, 1000, "check a document without an orchestrator"),
    VERB(version, "version", "", 0, 0, "print the version and its limits"),
    VERB(worker_cordon, "worker cordon", "ID...", 1, 1000, "give workers nothing new"),
    VERB(worker_describe, "worker describe", "ID", 1, 1, "show a worker and the steps it has"),
    VERB(worker_drain, "worker drain", "ID...", 1, 1000, "have workers finish what they have and leave"),
    VERB(worker_list, "worker list", "", 0, 0, "list the workers"),
    VERB(worker_uncordon, "worker uncordon", "ID...", 1, 1000, "lift a cordon"),
};
const size_t cli_n_verbs = sizeof(cli_verbs) / sizeof(*cli_verbs);

/* Promised by the contract, not made yet. A group stands for all of its verbs that the table lacks. */
static const char *const planned[] = { "task message", "tenant" };

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

enum cli_exit cli_unknown_verb(const char *name)
{
    const char *nearest = NULL;
    unsigned best = COX_CONFIG_NEAR;

    for (size_t i = 0; i < sizeof(planned) / sizeof(*planned); i++) {
        size_t len = strlen(planned[i]);
        if (strncmp(planned[i], name, len) == 0 && (!name[len] || name[len] == ' ')) {
            cli_error("%s: not available in this version", name);
            return CLI_USAGE;
        }
    }
    for (size_t i = 0; i < cli_n_verbs; i++) {
        const char *verb = cli_verbs[i].name, *space = strchr(verb, ' ');
        unsigned before = best;
        char group[WORD_MAX];
        cox_config_consider(name, verb, &nearest, &best);
        if (!space)
            continue;
        cox_config_consider(name, space + 1, &nearest, &best);
        snprintf(group, sizeof(group), "%.*s", (int)(space - verb), verb);
        if (cox_config_distance(name, group) < best) {
            best = cox_config_distance(name, group);
            cli_error("no such verb: %s; did you mean cox %s?", name, group);
            return CLI_USAGE;
        }
        if (best < before)
            nearest = verb;
    }
    if (nearest)
        cli_error("no such verb: %s; did you mean cox %s?", name, nearest);
    else
        cli_error("no such verb: %s; see cox help", name);
    return CLI_USAGE;
}
