/* Steps that cannot reach what is not theirs. The levels, weakest first:
 *
 *   none    a process of the worker's own user
 *   net     its own users, mounts, processes, IPC and host name; a read-only system; no rights, few
 *           system calls; limits. The host's network
 *   strict  the same, with no network but a loopback of its own
 *
 * A level is given whole or not at all: what the host cannot do is found out once, by trying it, and said. */
#ifndef COX_WORKER_SANDBOX_SANDBOX_H
#define COX_WORKER_SANDBOX_SANDBOX_H

#include "cgroups.h"

#include "../handlers/spawn.h"

#include "cox/base/buf.h"
#include "cox/types.h"

enum sandbox_level { SANDBOX_NONE, SANDBOX_NET, SANDBOX_STRICT, SANDBOX_LEVEL_NR };

const char *sandbox_level_text(enum sandbox_level level);
bool sandbox_level_parse(struct cox_slice text, enum sandbox_level *ret);

/* What a worker that is root runs sandboxed steps as, outside of their own view. */
#define SANDBOX_UID 65534u
#define SANDBOX_PROCESSES_MAX 1024u /* of a step, threads counted */
#define SANDBOX_FILES_MAX 4096u

/* What a worker says of its sandbox are labels: steps are placed by them. */
#define SANDBOX_LABEL "sandbox."
#define SANDBOX_LABELS 8
#define SANDBOX_LABEL_MEMORY 4 /* among them: what holds steps to their memory; two more limits follow */
#define SANDBOX_LABEL_GROUPS 7

struct sandbox;

struct sandbox_config {
    enum sandbox_level least; /* what a step that asks for less, or for nothing, gets */
    const char *helper;       /* the program cox-sandbox; NULL: beside the running one */
    const char *work_dir;     /* where all steps work: must not lie in what every step may read */
    const char *const *read;  /* absolute paths that every step may read, beside the system's */
    size_t n_read;
    const struct cgroups_config *cgroups; /* NULL: attempts get none, and this process stays where it is */
};

/* Tries each level, with processes that end at once. Blocks for some milliseconds; the thread must have every
 * signal blocked. */
struct sandbox *sandbox_create(const struct sandbox_config *config);
void sandbox_destroy(struct sandbox *s); /* NULL is allowed */

/* NULL: it can be given. Else why it cannot, for people. `s` may be NULL: only none can. Thread: any. */
const char *sandbox_why_not(const struct sandbox *s, enum sandbox_level level);
/* What a step that asks for `asked` gets. Thread: any. */
enum sandbox_level sandbox_level_for(const struct sandbox *s, enum sandbox_level asked);
/* Its labels; they live as long as it. */
void sandbox_labels(const struct sandbox *s, const char *ret_keys[SANDBOX_LABELS],
                    const char *ret_values[SANDBOX_LABELS]);

/* ---------------------------------------------------------------- a step */

/* Borrowed for the call. */
struct sandbox_step {
    const char *work;        /* writable; NULL: nothing of the host is */
    const char *input;       /* a file for standard input, among `read`; NULL: spawn_args has it */
    const char *const *read; /* readable beside the system, ended by NULL; NULL: nothing is */
    const char *program;     /* readable too; may be NULL */
    const char *bundle;      /* readable too; may be NULL */
    const struct cox_resources *resources; /* 0: defaults */
    /* At strict: a listener at `port` of the sandbox's own loopback comes through *ret_channel, to be closed
     * by the caller; port 0: none does. */
    uint16_t port;
    int *ret_channel;
};

struct sandboxed;

/* As spawn_process, in a sandbox of that level, which must not be none. *ret is for sandbox_end. What fails
 * inside the sandbox is told there, later. Thread: any. */
int sandbox_spawn(struct sandbox *s, enum sandbox_level level, const struct sandbox_step *step,
                  const struct spawn_args *args, pid_t *ret_pid, struct sandboxed **ret);

/* Kills all that is inside; the process ends when nothing is left. Idempotent until it is reaped. */
void sandbox_kill(pid_t pid);

/* How it ended, once the process has been reaped. */
struct sandbox_end {
    bool is_up;       /* the step began, or its program could not be started (exec_errno) */
    int exec_errno;   /* 0: it was started */
    bool has_status;  /* the step ended by itself, with `status`; else it was killed */
    int status;       /* as of wait(2) */
    char limit[240];  /* which limit it broke; empty: none */
    char failed[300]; /* why there was no sandbox; empty: there was */
};
/* Frees it. ret may be NULL. */
void sandbox_end(struct sandboxed *in, struct sandbox_end *ret);

/* The step's environment for a sandbox: what of the worker's makes sense inside, in place of `envp` (ended by
 * NULL), whose entries are moved or replaced. */
void sandbox_environment(char **envp, enum sandbox_level level);

#endif
