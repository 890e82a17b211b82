#include "workspaces.h"

#include "cox/base/alloc.h"
#include "cox/base/list.h"
#include "cox/base/map.h"
#include "cox/base/units.h"

#include <errno.h>
#include <stdint.h>
#include <sys/stat.h>

struct workspace {
    struct cox_list link;      /* of `idle` while nobody holds it */
    struct cox_list task_link; /* those of one task */
    struct workspaces *all;
    struct cox_buf key;
    struct cox_buf task_id;
    char *dir;
    uint32_t n_holders;
    int64_t used_ns;
    bool forgotten; /* goes when it is released */
};

struct workspaces {
    struct janitor *janitor;
    const char *dir;
    int64_t ttl_ms;
    struct event *timer;
    struct cox_mapb index; /* by key */
    struct cox_mapb tasks; /* task id -> any workspace of it, which links the others */
    struct cox_list idle;  /* longest unused first */
    uint64_t n_made;
};

static void put_key(struct cox_buf *key, struct cox_slice task_id, struct cox_slice name)
{
    cox_put_bytes(key, task_id);
    cox_put_bytes(key, name);
}

static void remove_workspace(struct workspace *w)
{
    struct workspaces *ws = w->all;
    struct cox_slice task = cox_buf_slice(&w->task_id);

    if (!w->forgotten)
        cox_mapb_remove(&ws->index, cox_buf_slice(&w->key));
    if (cox_mapb_get(&ws->tasks, task) == w) {
        cox_mapb_remove(&ws->tasks, task);
        if (!cox_list_empty(&w->task_link))
            cox_mapb_set(&ws->tasks, task, COX_CONTAINER_OF(w->task_link.next, struct workspace, task_link));
    }
    cox_list_remove(&w->task_link);
    cox_list_remove(&w->link);
    janitor_remove(ws->janitor, w->dir);
    cox_free(w->dir);
    cox_buf_fini(&w->key);
    cox_buf_fini(&w->task_id);
    cox_free(w);
}

static void arm(struct workspaces *ws)
{
    struct workspace *first;
    int64_t left_ms;
    struct timeval tv;

    if (cox_list_empty(&ws->idle)) {
        event_del(ws->timer);
        return;
    }
    first = COX_CONTAINER_OF(ws->idle.next, struct workspace, link);
    left_ms = ws->ttl_ms - (cox_clock_mono_ns() - first->used_ns) / 1000000 + 1;
    left_ms = left_ms > 0 ? left_ms : 0;
    tv = (struct timeval){ .tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000 };
    event_add(ws->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct workspaces *ws = arg;
    int64_t oldest_ns = cox_clock_mono_ns() - ws->ttl_ms * 1000000;

    (void)fd;
    (void)what;
    COX_LIST_FOR_EACH (it, &ws->idle) {
        struct workspace *w = COX_CONTAINER_OF(it, struct workspace, link);

        if (w->used_ns > oldest_ns)
            break;
        remove_workspace(w);
    }
    arm(ws);
}

static struct workspace *make(struct workspaces *ws, struct cox_slice task_id, const struct cox_buf *key)
{
    struct workspace *w;
    struct workspace *sibling = cox_mapb_get(&ws->tasks, task_id);
    char *dir = cox_asprintf("%s/w%llu", ws->dir, (unsigned long long)++ws->n_made);

    if (mkdir(dir, 0700) != 0) {
        cox_free(dir);
        return NULL;
    }
    w = COX_NEW(struct workspace);
    w->all = ws;
    w->dir = dir;
    cox_buf_append_slice(&w->key, cox_buf_slice(key));
    cox_buf_append_slice(&w->task_id, task_id);
    cox_list_init(&w->link);
    cox_list_init(&w->task_link);
    cox_mapb_set(&ws->index, cox_buf_slice(key), w);
    if (sibling)
        cox_list_push_back(&sibling->task_link, &w->task_link);
    else
        cox_mapb_set(&ws->tasks, task_id, w);
    return w;
}

struct workspace *workspaces_hold(struct workspaces *ws, struct cox_slice task_id, struct cox_slice name)
{
    struct cox_buf key = { 0 };
    struct workspace *w;

    put_key(&key, task_id, name);
    w = cox_mapb_get(&ws->index, cox_buf_slice(&key));
    if (!w)
        w = make(ws, task_id, &key);
    cox_buf_fini(&key);
    if (!w || (mkdir(w->dir, 0700) != 0 && errno != EEXIST)) /* again, when somebody tidied up */
        return NULL;
    cox_list_remove(&w->link);
    w->n_holders++;
    return w;
}

const char *workspace_dir(const struct workspace *w)
{
    return w->dir;
}

void workspace_release(struct workspace *w)
{
    struct workspaces *ws = w->all;

    if (--w->n_holders > 0)
        return;
    if (w->forgotten) {
        remove_workspace(w);
        return;
    }
    w->used_ns = cox_clock_mono_ns();
    cox_list_push_back(&ws->idle, &w->link);
    arm(ws);
}

void workspaces_forget(struct workspaces *ws, struct cox_slice task_id)
{
    struct workspace *w;

    while ((w = cox_mapb_get(&ws->tasks, task_id)) != NULL) {
        if (w->n_holders == 0) {
            remove_workspace(w);
            continue;
        }
        cox_mapb_remove(&ws->index, cox_buf_slice(&w->key));
        cox_mapb_remove(&ws->tasks, task_id);
        w->forgotten = true;
        if (!cox_list_empty(&w->task_link))
            cox_mapb_set(&ws->tasks, task_id,
                         COX_CONTAINER_OF(w->task_link.next, struct workspace, task_link));
        cox_list_remove(&w->task_link);
    }
    arm(ws);
}

struct workspaces *workspaces_create(struct event_base *base, struct janitor *janitor, const char *dir,
                                     int64_t ttl_ms)
{
    struct workspaces *ws = COX_NEW(struct workspaces);

    ws->janitor = janitor;
    ws->dir = dir;
    ws->ttl_ms = ttl_ms;
    ws->timer = evtimer_new(base, on_timer, ws);
    cox_list_init(&ws->idle);
    return ws;
}

void workspaces_destroy(struct workspaces *ws)
{
    struct cox_slice key;
    size_t it = 0;
    void *w;

    if (!ws)
        return;
    while (cox_mapb_next(&ws->index, &it, &key, &w)) {
        cox_free(((struct workspace *)w)->dir);
        cox_buf_fini(&((struct workspace *)w)->key);
        cox_buf_fini(&((struct workspace *)w)->task_id);
        cox_free(w);
    }
    cox_mapb_fini(&ws->index);
    cox_mapb_fini(&ws->tasks);
    event_free(ws->timer);
    cox_free(ws);
}
