/* A program that `cox dev` runs: its process and its log. */
#ifndef CLI_CHILD_H
#define CLI_CHILD_H

#include "cox/base/buf.h"

#include <sys/types.h>

struct child {
    const char *name; /* NULL: never started */
    const char *color;
    pid_t pid; /* 0: does not run */
    int status;
    int log_fd; /* -1: none */
    struct cox_buf line;
};
#define CHILD_NONE ((struct child){ .log_fd = -1 })

/* Starts argv[0], found in PATH when it has no slash, in a process group of its own, to end when we do. With
 * `logged` its output comes to log_fd, else it is ours. When it cannot be started, it ends with exit code
 * 127. */
void child_start(struct child *c, const char *name, const char *color, const char *const *argv, bool logged);
/* Shows what was logged, each line after the name; does not wait. */
void child_show_log(struct child *c, bool color);
void child_reap(struct child *c); /* sees whether it has ended */
bool child_runs(const struct child *c);
void child_signal(const struct child *c, int number);
int child_exit_code(const struct child *c); /* 128 + N when ended by signal N */
void child_end(struct child *c);            /* closes and frees */

#endif
