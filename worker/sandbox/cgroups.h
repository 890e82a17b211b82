/* Control groups of version 2: one for each sandboxed attempt, in which the kernel counts what all of its
 * processes use together. Where the worker has none, or one lacks a controller, process 1 of the sandbox
 * watches instead.
 *
 *   the worker's own group        must have been delegated to it, with no process but the worker in it
 *     cox-attempts-PID-NUMBER     locked (flock) while its worker lives, so that the next one knows what
 *                                 is left over
 *       self                      the worker, for version 2 allows no processes beside groups with limits
 *       1, 2 ...                  an attempt
 */
#ifndef COX_WORKER_SANDBOX_CGROUPS_H
#define COX_WORKER_SANDBOX_CGROUPS_H

#include <stdbool.h>
#include <stdint.h>

enum cgroup_limit { CGROUP_MEMORY, CGROUP_PROCESSES, CGROUP_CPU, CGROUP_LIMIT_NR };

struct cgroups_config {
    const char *dir; /* the worker's own group; NULL: what /proc says of this process */
    /* As mkdir(2) and rmdir(2), for what stands in for a tree and has no files of the kernel's; NULL: those.
     */
    int (*make)(const char *path);
    int (*remove)(const char *path);
};

struct cgroups;

/* Moves this process into a group below its own, and removes what dead workers have left there. Never NULL;
 * what cannot be had is said by the two below. Blocks, for seconds where what is left over will not die. */
struct cgroups *cgroups_create(const struct cgroups_config *config);
/* Moves this process back. NULL is allowed. */
void cgroups_destroy(struct cgroups *c);
/* From now on there are none. */
void cgroups_give_up(struct cgroups *c, const char *why);

/* NULL: the kernel holds attempts to it. Else why not, for people. Thread: any. */
const char *cgroups_why_not(const struct cgroups *c, enum cgroup_limit limit);
/* Where they are; NULL: there are none, and *ret_why says why. */
const char *cgroups_dir(const struct cgroups *c, const char **ret_why);

/* ---------------------------------------------------------------- an attempt */

struct cgroup_amounts {
    uint64_t memory_len_max; /* bytes, of the step's own */
    uint64_t processes_max;  /* threads counted, process 1 too */
    int64_t cpu_milli;       /* what was asked for; 0: nothing */
};

struct cgroup;

/* NULL: there is none for this attempt. What was there at the start and now is not, is logged. Thread: any.
 */
struct cgroup *cgroup_begin(struct cgroups *c, const struct cgroup_amounts *amounts);
/* Its directory, for who puts a process into it; -1 after cgroup_release. */
int cgroup_fd(const struct cgroup *g);
void cgroup_release(struct cgroup *g);
bool cgroup_holds(const struct cgroup *g, enum cgroup_limit limit); /* NULL holds nothing */

/* Nothing of the attempt is left, or all of it is about to die. Returns whether the kernel has killed it for
 * wanting more memory than it may have. Frees it; NULL is allowed. Thread: any. */
bool cgroup_end(struct cgroup *g);

#endif
