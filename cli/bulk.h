/* Verbs that act on tasks one by one: those that are named, or all that -l and --status select. */
#ifndef CLI_BULK_H
#define CLI_BULK_H

#include "select.h"

/* clang-format off */
#define CLI_BULK_OPTIONS \
    CLI_SELECT_OPTIONS, \
    { "yes", 'y', NULL, "do not ask, however many they are" }
#define CLI_BULK_HELP \
    "With -l, --status, --since or --before instead of ids it acts on every task that fits; on a terminal it asks " \
    "first.\nExits with the worst of the codes.\n\n"
/* clang-format on */

struct cli_action {
    const char *verb;  /* "cancel" */
    const char *done;  /* "cancelled" */
    unsigned statuses; /* that it can act on: what a selection without --status takes */
    size_t n_own_args; /* last arguments that are no ids */
    /* Makes the call. *ret_error as cli_try has it; `status` may get the task's status, "CANCELLED". */
    enum cli_exit (*act)(struct cli *cli, const char *id, const char **status,
                         struct cox_rpc_error **ret_error);
};

/* Acts, reports each, returns the worst code. */
enum cli_exit cli_bulk(struct cli *cli, const struct cli_action *action);

/* One call whose answer says nothing: what most actions are. */
enum cli_exit cli_act(struct cli *cli, const char *method, const ProtobufCMessage *request, bool repeatable,
                      struct cox_rpc_error **ret_error);

#endif
