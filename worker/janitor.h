/* Removes directories that steps have left full, on a thread of its own, so that a step's million files do
 * not hold up the start of the next step. */
#ifndef COX_WORKER_JANITOR_H
#define COX_WORKER_JANITOR_H

struct janitor;

struct janitor *janitor_create(void);

/* Removes what remains first. NULL is allowed. */
void janitor_destroy(struct janitor *j);

/* The directory `path` is gone, or will be soon. Errors are met with patience, then ignored: what cannot be
 * removed stays. Thread: any one at a time. Cost: one system call when it is empty; a bounded number of full
 * ones is taken over, then the caller does the work itself. */
void janitor_remove(struct janitor *j, const char *path);

/* Removes a directory and everything in it, links not followed, whatever the depth, with two open directories
 * and no recursion. Thread: any. */
void janitor_remove_now(const char *path);

#endif
