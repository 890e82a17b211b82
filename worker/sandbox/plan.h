/* What cox-sandbox is asked for: its arguments, `KEY=VALUE` each, then `--` and the step's own. */
#ifndef COX_WORKER_SANDBOX_PLAN_H
#define COX_WORKER_SANDBOX_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_READ_MAX 512
#define PLAN_PATHS_MAX 256

/* Borrowed from the arguments. */
struct plan {
    bool network;      /* the host's is kept */
    uint32_t uid, gid; /* of the step, outside; those of a worker that is not root are its own */
    const char *work;  /* the one directory of the host that is writable */
    const char *dir;   /* where the step begins */
    const char *input; /* a file that is its standard input; NULL: what the worker gave */
    const char *read[PLAN_READ_MAX]; /* more of the host that is readable, at the same paths */
    size_t n_read;
    char *paths[PLAN_PATHS_MAX + 1]; /* of the program, tried in this order; ended by NULL */
    size_t n_paths;
    char **argv, **envp;
    uint64_t memory_len_max, tmp_len_max, disk_len_max; /* bytes */
    uint64_t processes_max, files_max;
    uint16_t port;          /* of its own loopback, at which the worker listens; 0: none */
    int channel;            /* a descriptor: where that listener goes */
    bool has_group;         /* at GROUP_FD */
    bool is_memory_counted; /* by the kernel, in that group: nobody needs to watch it */
};

/* The environment, whose bytes are taken over and end with a NUL. False: no memory. */
bool plan_read_environment(struct plan *plan, char *bytes, size_t len);

/* False: an argument is not understood; *ret_wrong is it. */
bool plan_read(struct plan *plan, int argc, char **argv, const char **ret_wrong);

#endif
