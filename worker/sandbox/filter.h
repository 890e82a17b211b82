/* The system calls that a step may make, as the kernel wants to have them said. */
#ifndef COX_WORKER_SANDBOX_FILTER_H
#define COX_WORKER_SANDBOX_FILTER_H

#include <stdbool.h>

/* A file in memory with the filter, close-on-exec; -1 with errno.
 *   unix_sockets  false: none of the host's can be named (a network namespace that is shared with the host
 * has its abstract ones, unless Landlock scopes them) */
int filter_file(bool unix_sockets);

#endif
