/* Roles, and the one table of what each may call. docs/security.md shows it; a test compares the two, and the
 * table with every method of every service of the contract. */
#ifndef COX_ORCHESTRATOR_ACCESS_ROLES_H
#define COX_ORCHESTRATOR_ACCESS_ROLES_H

#include "cox/base/buf.h"

enum access_role {
    ACCESS_READER = 1,
    ACCESS_SUBMITTER = 2,
    ACCESS_APPROVER = 4,
    ACCESS_OPERATOR = 8,
    ACCESS_ADMIN = 16,
    ACCESS_WORKER = 32
};
#define ACCESS_ROLES_NR 6
#define ACCESS_ROLES_ALL 63u

const char *access_role_text(unsigned index);      /* 0 to ACCESS_ROLES_NR - 1: "reader" */
unsigned access_role_parse(struct cox_slice text); /* 0: there is none of this name */

enum access_rule_flags {
    ACCESS_WHOLE = 1, /* it shows or changes what belongs to no tenant: only for who has all tenants */
    ACCESS_TASK_TOKEN =
        2, /* a task's own token may, too: the method looks at nothing but the task that it names */
    ACCESS_ANYBODY = 4, /* no identity is asked for */
    ACCESS_ANY_ROLE = 8 /* any identity will do, whatever its roles; not a task's token */
};

struct access_rule {
    const char *service; /* "coxswain.v1.TaskService" */
    const char *method;
    unsigned roles; /* any of these */
    unsigned flags;
};
extern const struct access_rule access_rules[];
extern const size_t n_access_rules;

/* NULL: not in the table, so nobody may. */
const struct access_rule *access_rule_find(const char *service, const char *method);

#endif
