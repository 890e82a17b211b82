/* Starts one process, as cheaply and cleanly as Linux can. */
#ifndef COX_WORKER_HANDLERS_SPAWN_H
#define COX_WORKER_HANDLERS_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#define SPAWN_KEEP_MAX 5
#define SPAWN_PATH_DEFAULT "/usr/local/bin:/usr/bin:/bin"

/* Borrowed for the call. Every array ends with NULL. */
struct spawn_args {
    char *const *paths; /* tried in this order */
    char *const *argv;
    char *const *envp;
    const char *dir;          /* working directory */
    int in, out, err;         /* its standard streams; none of them is 0, 1 or 2 */
    int keep[SPAWN_KEEP_MAX]; /* more that it gets, as 3 and what follows */
    size_t n_keep;
};

/* The child leads a session, and so a process group, of its own; has default signal dispositions, an empty
 * mask, no descriptors but the three and those kept; and is killed when the calling thread ends, the worker's
 * death included. Returns 0 and *ret_pid, or the errno of what failed; then there is no child. The thread
 * must have every signal blocked. */
int spawn_process(const struct spawn_args *args, pid_t *ret_pid);

/* Close-on-exec both; the one that is ours, fds[ours], does not block. False with errno, and then -1 for what
 * is not open. */
bool spawn_pipe(int fds[2], int ours);

/* A descriptor that is readable once the process has ended, close-on-exec; -1 with errno. */
int spawn_pidfd(pid_t pid);

/* All that a child sees of its worker's environment, then `more` (borrowed; NULL: nothing). Freed by
 * cox_free; the entries live until the process ends. Thread: any, after the first call. */
char **spawn_environment(char *more);

#endif
