/* The verbs' own parts, one file each; verbs.c puts them into the table. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "cli.h"

#define CLI_VERB(name)                                                                                       \
    enum cli_exit cli_##name(struct cli *cli);                                                               \
    extern const struct cli_option cli_##name##_options[];                                                   \
    extern const char cli_##name##_help[]

CLI_VERB(completion);
CLI_VERB(help);
CLI_VERB(task_cancel);
CLI_VERB(task_describe);
CLI_VERB(task_get);
CLI_VERB(task_logs);
CLI_VERB(task_output);
CLI_VERB(task_run);
CLI_VERB(task_submit);
CLI_VERB(task_watch);
CLI_VERB(validate);
CLI_VERB(version);
CLI_VERB(worker_describe);
CLI_VERB(worker_list);

#undef CLI_VERB

#endif
