/* Starts one process, as cheaply and cleanly as Linux can. */
#ifndef COX_WORKER_HANDLERS_SPAWN_H
#define COX_WORKER_HANDLERS_SPAWN_H

#include <sys/types.h>

/* Borrowed for the call. Every array ends with NULL. */
struct spawn_args {
    char *const *paths; /* tried in this order */
    char *const *argv;
    char *const *envp;
    const char *dir;  /* working directory */
    int in, out, err; /* its standard streams; none of them is 0, 1 or 2 */
};

/* The child leads a session, and so a process group, of its own; has default signal dispositions, an empty
 * mask, no descriptors but the three; and is killed when the calling thread ends, the worker's death
 * included. Returns 0 and *ret_pid, or the errno of what failed; then there is no child. The thread must have
 * every signal blocked. */
int spawn_process(const struct spawn_args *args, pid_t *ret_pid);

#endif
