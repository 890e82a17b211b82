/* Directories that steps of one task share: kept while they are used, saved at the end of each attempt,
 * removed when nobody used them for a while or the disk is to be given to others, and made again from what
 * was saved.
 *
 * A workspace is (task, name), and which of its homes this is: the orchestrator counts a home whenever the
 * files go to another host, or are lost. A directory of another number is not what is asked for.
 *
 * Saves of one workspace follow each other; all that ask while one is under way share the next. */
#ifndef COX_WORKER_WORKSPACES_H
#define COX_WORKER_WORKSPACES_H

#include "courier.h"
#include "janitor.h"

#include "cox/agent.h"
#include "cox/base/buf.h"

#include <event2/event.h>

#define WORKSPACES_TTL_MS (1800 * 1000LL)
#define WORKSPACES_LEN_MAX ((uint64_t)20 << 30)

struct workspaces;
struct workspace;

struct workspaces_config {
    struct event_base *base;
    struct janitor *janitor;
    struct courier *courier; /* NULL: nothing is saved, and what goes is gone */
    const char *dir;         /* they are made in it; must outlive this */
    int64_t ttl_ms;          /* one that nobody holds goes this long after its last use */
    uint64_t len_max; /* bytes of all; those that nobody holds go before more is taken, the oldest first */
};
struct workspaces *workspaces_create(const struct workspaces_config *config);
void workspaces_destroy(
    struct workspaces *ws); /* before the courier. NULL is allowed; the directories stay */

/* One attempt in a workspace. Zero-initialised: in none. */
struct workspace_use {
    struct workspace *workspace;
    struct cox_ref attempt;
    bool writes; /* its processes may be about: true until it asks to be saved */
    struct cox_list link;
    /* Once after await or save, unless it is released before. NONE, or a code and why. */
    void (*on_done)(struct workspace_use *use, enum cox_code code, struct cox_slice why);
};

/* The workspace of an attempt, with a directory or soon with one; false with errno. Held until
 * workspace_release. */
bool workspaces_hold(struct workspaces *ws, const struct cox_agent_assign *assign, struct workspace_use *use);
const char *workspace_dir(const struct workspace_use *use);
/* Is the directory what it should be? If not, await makes it so. */
bool workspace_is_ready(const struct workspace_use *use);
void workspace_await(struct workspace_use *use);
/* The attempt's last change has been made. True: on_done comes; false: this worker saves nothing. */
bool workspace_save(struct workspace_use *use);
/* In on_done of a save that went well: what was saved. Slices and arrays live until it returns. */
void workspace_saved(const struct workspace_use *use, struct cox_buf *note, struct cox_agent_files *ret);
void workspace_release(struct workspace_use *use);

/* What the disk has of them. Thread: any. */
struct workspaces_use {
    uint32_t n, n_unsaved;
    uint64_t len;
};
void workspaces_use(const struct workspaces *ws, struct workspaces_use *ret);

/* The task needs none of its directories any more; those that are held go when they are released. */
void workspaces_forget(struct workspaces *ws, struct cox_slice task_id);

#endif
