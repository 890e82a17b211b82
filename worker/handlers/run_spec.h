/* What a `run` step asks for, read from its JSON and made ready for execve. Strings live in the arena. */
#ifndef COX_WORKER_HANDLERS_RUN_SPEC_H
#define COX_WORKER_HANDLERS_RUN_SPEC_H

#include "cox/agent.h"
#include "cox/base/arena.h"

struct run_spec {
    char **argv;
    char **envp;
    char **paths; /* where argv[0] may be, in the order of PATH */
    const char *path_env;
    bool has_stdin;
    struct cox_slice stdin_bytes;
    bool output_is_json;
};

/*   dir  the attempt's working directory, for COX_WORKSPACE
 * Values that are not strings are given as their JSON text, null as nothing.
 * Errors: COX_ERR_INVALID, *ret_why (in the arena) names place and expectation. */
COX_MUST_CHECK enum cox_err run_spec_read(struct cox_arena *arena, const struct cox_agent_assign *assign,
                                          const char *dir, struct run_spec *ret, const char **ret_why);

#endif
