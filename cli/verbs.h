/* The verbs' own parts, one file each; verbs.c puts them into the table. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "cli.h"

#define CLI_VERB(name)                                                                                       \
    enum cli_exit cli_##name(struct cli *cli);                                                               \
    extern const struct cli_option cli_##name##_options[];                                                   \
    extern const char cli_##name##_help[]

CLI_VERB(admin_backup);
CLI_VERB(admin_certs);
CLI_VERB(admin_restore);
CLI_VERB(admin_lift);
CLI_VERB(admin_token);
CLI_VERB(admin_verify);
CLI_VERB(completion);
CLI_VERB(config_delete_context);
CLI_VERB(config_get_contexts);
CLI_VERB(config_set_context);
CLI_VERB(config_use_context);
CLI_VERB(config_view);
CLI_VERB(dev);
CLI_VERB(explain);
CLI_VERB(help);
CLI_VERB(init);
CLI_VERB(model_describe);
CLI_VERB(model_list);
CLI_VERB(schedule_apply);
CLI_VERB(schedule_delete);
CLI_VERB(schedule_get);
CLI_VERB(schedule_list);
CLI_VERB(task_approve);
CLI_VERB(task_cancel);
CLI_VERB(task_delete);
CLI_VERB(task_describe);
CLI_VERB(task_fork);
CLI_VERB(task_get);
CLI_VERB(task_list);
CLI_VERB(task_logs);
CLI_VERB(task_message);
CLI_VERB(task_output);
CLI_VERB(task_pause);
CLI_VERB(task_reject);
CLI_VERB(task_resume);
CLI_VERB(task_retry);
CLI_VERB(task_run);
CLI_VERB(task_signal);
CLI_VERB(task_submit);
CLI_VERB(task_token);
CLI_VERB(task_watch);
CLI_VERB(template_apply);
CLI_VERB(template_delete);
CLI_VERB(template_get);
CLI_VERB(template_list);
CLI_VERB(top);
CLI_VERB(usage);
CLI_VERB(validate);
CLI_VERB(version);
CLI_VERB(worker_cordon);
CLI_VERB(worker_describe);
CLI_VERB(worker_drain);
CLI_VERB(worker_list);
CLI_VERB(worker_uncordon);

#undef CLI_VERB

/* What coxd takes for a tenant; false after saying what it expects. (admin_token.c) */
bool cli_tenant_ok(const char *name);

#endif
