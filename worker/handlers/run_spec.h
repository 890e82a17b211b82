/* What a `run` step asks for, read from its JSON and made ready for execve. Strings live in the arena. */
#ifndef COX_WORKER_HANDLERS_RUN_SPEC_H
#define COX_WORKER_HANDLERS_RUN_SPEC_H

#include "handler.h"

#include "../sandbox/sandbox.h"

#include "cox/base/arena.h"

struct run_spec {
    char **argv;
    char **envp;
    char **paths; /* where argv[0] may be, in the order of PATH */
    const char *path_env;
    const char *stdin_path; /* of a blob that is the input; NULL: none is */
    bool has_stdin;
    struct cox_slice stdin_bytes;
    bool output_is_json;
    enum sandbox_level level;
};

/* Values that are not strings are given as their JSON text, null as nothing. The level is what the worker
 * gives to what is asked for, whether it can or not. Errors: COX_ERR_INVALID, *ret_why (in the arena) names
 * place and expectation. */
COX_MUST_CHECK enum cox_err run_spec_read(struct cox_arena *arena, const struct sandbox *sandbox,
                                          const struct call_args *args, struct run_spec *ret,
                                          const char **ret_why);

/* The same of a process that serves more than one call of a task: {"command", "args", "env", "sandbox"}. Its
 * environment says which task, and nothing of an attempt. `dir` is where it works. */
COX_MUST_CHECK enum cox_err run_spec_read_server(struct cox_arena *arena, const struct sandbox *sandbox,
                                                 const struct call_args *args, struct cox_slice server,
                                                 const char *dir, struct run_spec *ret, const char **ret_why);

/* W3C's, for programs that trace: a trace is a task, a span of it an attempt. Made of names that are the same
 * wherever they are looked at, so nothing needs to be kept. */
#define RUN_TRACEPARENT_MAX 56 /* with the 0 at its end */
void run_spec_traceparent(const struct call_args *args, char ret[RUN_TRACEPARENT_MAX]);

/* What a process of this call finds in its environment, its worker's and COX_...; ended by NULL. Returns the
 * number of entries; there is room for `room` more. */
size_t run_spec_environment(struct cox_arena *arena, const struct call_args *args, enum sandbox_level level,
                            size_t room, char ***ret);

#endif
