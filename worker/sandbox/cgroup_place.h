/* Where this process's own control group of version 2 can be reached, from what the kernel says in /proc.
 * Pure. */
#ifndef COX_WORKER_SANDBOX_CGROUP_PLACE_H
#define COX_WORKER_SANDBOX_CGROUP_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#define CGROUP_PATH_MAX 1024
#define CGROUP_WHY_MAX 160

struct cgroup_place {
    char dir[CGROUP_PATH_MAX];
    char why[CGROUP_WHY_MAX]; /* for people; where there is none */
};

/* The texts of /proc/self/cgroup and /proc/self/mountinfo. False: it cannot be reached, or not be written to.
 */
bool cgroup_place(const char *groups, const char *mounts, struct cgroup_place *ret);

/* Whether a list such as "cpu memory pids", which may end with a newline, has that name. */
bool cgroup_list_has(const char *list, const char *name);

/* The number after `key` in a file of rows "KEY NUMBER"; 0 where there is no such row. */
uint64_t cgroup_count(const char *rows, const char *key);

#endif
