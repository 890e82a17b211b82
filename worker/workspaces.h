/* Directories that steps of one task share, kept until the task is released or nobody used them for a while.
 */
#ifndef COX_WORKER_WORKSPACES_H
#define COX_WORKER_WORKSPACES_H

#include "janitor.h"

#include "cox/base/buf.h"

#include <event2/event.h>

#define WORKSPACES_TTL_MS (3600 * 1000LL)

struct workspaces;
struct workspace;

/*   dir     they are made in it; must outlive this
 *   ttl_ms  one that nobody holds goes this long after its last use */
struct workspaces *workspaces_create(struct event_base *base, struct janitor *janitor, const char *dir,
                                     int64_t ttl_ms);
void workspaces_destroy(struct workspaces *ws); /* NULL is allowed; the directories stay */

/* The directory of (task, name), made when absent; NULL with errno. Held until workspace_release. */
struct workspace *workspaces_hold(struct workspaces *ws, struct cox_slice task_id, struct cox_slice name);
const char *workspace_dir(const struct workspace *w);
void workspace_release(struct workspace *w);

/* The task needs none of its directories any more; those that are held go when they are released. */
void workspaces_forget(struct workspaces *ws, struct cox_slice task_id);

#endif
