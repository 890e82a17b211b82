#include "workspaces.h"

#include "blobs.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/log.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_LEN 4096u /* what an entry takes on disk beside its bytes, about */
#define AWAY_MAX 4096u /* what is forgotten beyond: the orchestrator knows it, too */

struct workspace {
    struct cox_list link;      /* of `idle` while nobody holds it */
    struct cox_list task_link; /* those of one task */
    struct workspaces *all;
    struct cox_buf key;
    struct cox_buf task_id;
    char tenant[CACHE_TENANT_MAX];
    uint32_t home;
    char *dir;    /* NULL: it has none now */
    bool present; /* the directory is what it should be */
    uint32_t n_holders, n_writers;
    int64_t written_since_ns; /* wall clock; while there are writers */
    int64_t used_ns;
    uint64_t len;   /* counted in all->len */
    bool away;      /* in all->away: it has no directory, and nobody holds it */
    bool forgotten; /* goes when it is released */

    bool has_name;             /* it was saved, as: */
    struct snapshot_name name; /* what it is made from when it is not present */
    bool unsaved;              /* somebody's work is only here */
    struct snapshot *last;     /* what the directory was then; NULL: not known */
    uint32_t serial;
    struct courier_job *job; /* saves or restores it; holds it */
    struct cox_ref job_attempt;
    struct cox_list waiting;    /* uses that the job is for */
    struct cox_list want_later; /* uses that ask for a save after this one */
};

struct workspaces {
    struct workspaces_config config;
    struct event *timer;
    struct cox_mapb index; /* by key */
    struct cox_mapb tasks; /* task id -> any workspace of it, which links the others */
    struct cox_list idle;  /* longest unused first */
    struct cox_list held;
    struct cox_list away; /* known by what they were saved as, longest first */
    uint32_t n_away;
    uint64_t n_made, len;
    atomic_uint_least32_t said_n, said_unsaved; /* for other threads */
    atomic_uint_least64_t said_len;
};

static void put_key(struct cox_buf *key, struct cox_slice task_id, struct cox_slice name)
{
    cox_put_bytes(key, task_id);
    cox_put_bytes(key, name);
}

/* ---------------------------------------------------------------- directories */

static void set_len(struct workspace *w, uint64_t len)
{
    w->all->len += len - w->len;
    w->len = len;
    atomic_store(&w->all->said_len, w->all->len);
}

static void set_unsaved(struct workspace *w, bool unsaved)
{
    if (unsaved && !w->unsaved)
        atomic_fetch_add(&w->all->said_unsaved, 1);
    else if (!unsaved && w->unsaved)
        atomic_fetch_sub(&w->all->said_unsaved, 1);
    w->unsaved = unsaved;
}

static void measure(struct workspace *w)
{
    struct snapshot_name name;

    if (!w->last)
        return;
    snapshot_name(w->last, &name);
    set_len(w, name.size + (uint64_t)name.n_files * FILE_LEN);
}

/* Each has a name of its own: what the janitor still removes is nobody's to write into. */
static bool make_dir(struct workspace *w)
{
    struct workspaces *ws = w->all;

    cox_free(w->dir);
    w->dir = cox_asprintf("%s/w%llu", ws->config.dir, (unsigned long long)++ws->n_made);
    if (mkdir(w->dir, 0700) == 0) {
        atomic_fetch_add(&ws->said_n, 1);
        return true;
    }
    cox_free(w->dir);
    w->dir = NULL;
    return false;
}

static void drop_dir(struct workspace *w)
{
    if (w->dir) {
        janitor_remove(w->all->config.janitor, w->dir);
        atomic_fetch_sub(&w->all->said_n, 1);
    }
    cox_free(w->dir);
    w->dir = NULL;
    w->present = false;
    set_unsaved(w, false);
    snapshot_free(w->last);
    w->last = NULL;
    set_len(w, 0);
}

static void leave_index(struct workspace *w)
{
    struct workspaces *ws = w->all;
    struct cox_slice task = cox_buf_slice(&w->task_id);

    if (w->forgotten)
        return;
    w->forgotten = true;
    cox_mapb_remove(&ws->index, cox_buf_slice(&w->key));
    if (cox_mapb_get(&ws->tasks, task) == w) {
        cox_mapb_remove(&ws->tasks, task);
        if (!cox_list_empty(&w->task_link))
            cox_mapb_set(&ws->tasks, task, COX_CONTAINER_OF(w->task_link.next, struct workspace, task_link));
    }
    cox_list_remove(&w->task_link);
}

static void free_workspace(struct workspace *w)
{
    w->all->n_away -= w->away;
    cox_list_remove(&w->link);
    snapshot_free(w->last);
    cox_free(w->dir);
    cox_buf_fini(&w->key);
    cox_buf_fini(&w->task_id);
    cox_free(w);
}

static void remove_workspace(struct workspace *w)
{
    leave_index(w);
    drop_dir(w);
    free_workspace(w);
}

/* Nobody holds it: its disk is for others. What was saved is known still, and enough. */
static void put_away(struct workspace *w)
{
    if (!w->all->config.courier) {
        remove_workspace(w);
        return;
    }
    drop_dir(w);
    cox_list_remove(&w->link);
    cox_list_push_back(&w->all->away, &w->link);
    w->away = true;
    if (w->all->n_away++ >= AWAY_MAX)
        remove_workspace(COX_CONTAINER_OF(w->all->away.next, struct workspace, link));
}

static bool may_go(const struct workspace *w)
{
    return !w->all->config.courier || (w->has_name && !w->unsaved);
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
    left_ms = ws->config.ttl_ms - (cox_clock_mono_ns() - first->used_ns) / 1000000 + 1;
    left_ms = left_ms > 0 ? left_ms : 0;
    tv = (struct timeval){ .tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000 };
    event_add(ws->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct workspaces *ws = arg;
    int64_t oldest_ns = cox_clock_mono_ns() - ws->config.ttl_ms * 1000000;

    (void)fd;
    (void)what;
    COX_LIST_FOR_EACH (it, &ws->idle) {
        struct workspace *w = COX_CONTAINER_OF(it, struct workspace, link);

        if (w->used_ns > oldest_ns)
            break;
        if (may_go(w))
            put_away(w);
        else
            cox_list_remove(&w->link); /* until the task is over: it is nowhere else */
    }
    arm(ws);
}

static void make_room(struct workspaces *ws)
{
    COX_LIST_FOR_EACH (it, &ws->idle) {
        struct workspace *w = COX_CONTAINER_OF(it, struct workspace, link);

        if (ws->len <= ws->config.len_max)
            break;
        if (may_go(w))
            put_away(w);
    }
}

/* ---------------------------------------------------------------- jobs */

static void unhold(struct workspace *w)
{
    struct workspaces *ws = w->all;

    if (--w->n_holders > 0)
        return;
    if (w->forgotten) {
        remove_workspace(w);
        return;
    }
    w->used_ns = cox_clock_mono_ns();
    cox_list_remove(&w->link);
    if (w->dir)
        cox_list_push_back(&ws->idle, &w->link);
    make_room(ws);
    arm(ws);
}

static void on_job(struct courier_job *job, void *user);

static void start_job(struct workspace *w, enum courier_kind kind)
{
    const struct workspace_use *first = COX_CONTAINER_OF(w->waiting.next, struct workspace_use, link);
    struct courier_job *job = courier_job(w->all->config.courier, kind);

    job->dir = cox_strdup(w->dir);
    memcpy(job->tenant, w->tenant, sizeof(job->tenant));
    job->attempt = w->job_attempt = first->attempt;
    job->name = w->name;
    if (kind == COURIER_TAKE) {
        job->snapshot = w->last;
        job->calm_until = w->n_writers > 0 ? w->written_since_ns : INT64_MAX;
        w->last = NULL;
    }
    job->on_done = on_job;
    job->user = w;
    w->job = job;
    w->n_holders++;
    courier_submit(job);
}

/* False: it failed, and nobody waits for it any more, or it failed for somebody who still does. */
static bool is_worth_another(const struct workspace *w)
{
    COX_LIST_FOR_EACH (it, (struct cox_list *)(uintptr_t)&w->waiting) {
        const struct workspace_use *use = COX_CONTAINER_OF(it, struct workspace_use, link);

        if (cox_token_eq(use->attempt.token, w->job_attempt.token))
            return false;
    }
    return !cox_list_empty(&w->waiting);
}

static void tell(struct workspace *w, enum cox_code code, struct cox_slice why)
{
    struct cox_list told;

    cox_list_init(&told);
    while (!cox_list_empty(&w->waiting)) {
        struct cox_list *first = w->waiting.next;

        cox_list_remove(first);
        cox_list_push_back(&told, first);
    }
    while (!cox_list_empty(&told)) { /* what is called may release others of it */
        struct workspace_use *use = COX_CONTAINER_OF(told.next, struct workspace_use, link);

        cox_list_remove(&use->link);
        use->on_done(use, code, why);
    }
}

static void end_take(struct workspace *w, struct courier_job *job)
{
    w->last = job->snapshot;
    job->snapshot = NULL;
    set_unsaved(w, job->code != COX_CODE_NONE);
    if (w->unsaved)
        return;
    w->has_name = true;
    snapshot_name(w->last, &w->name);
    w->serial++;
    measure(w);
}

static void end_restore(struct workspace *w, struct courier_job *job)
{
    if (job->code != COX_CODE_NONE) {
        drop_dir(w);
        return;
    }
    w->last = job->snapshot;
    job->snapshot = NULL;
    w->present = true;
    measure(w);
}

static void on_job(struct courier_job *job, void *user)
{
    struct workspace *w = user;
    enum courier_kind kind = job->kind;
    bool again;

    if (!w) {
        courier_job_free(job);
        return;
    }
    w->job = NULL;
    if (kind == COURIER_TAKE)
        end_take(w, job);
    else
        end_restore(w, job);
    again = job->code != COX_CODE_NONE && is_worth_another(w) && (w->dir || make_dir(w));
    if (!again)
        tell(w, job->code, cox_buf_slice(&job->message));
    courier_job_free(job);
    while (!cox_list_empty(&w->want_later)) {
        struct cox_list *first = w->want_later.next;

        cox_list_remove(first);
        cox_list_push_back(&w->waiting, first);
        again = true;
    }
    if (again && !w->job && !cox_list_empty(&w->waiting))
        start_job(w, kind);
    make_room(w->all);
    unhold(w);
}

/* ---------------------------------------------------------------- uses */

static struct workspace *make(struct workspaces *ws, const struct cox_agent_assign *assign,
                              const struct cox_buf *key)
{
    struct workspace *w;
    struct workspace *sibling = cox_mapb_get(&ws->tasks, assign->task_id);

    w = COX_NEW(struct workspace);
    w->all = ws;
    w->home = assign->home;
    cache_tenant(w->tenant, assign->tenant);
    cox_buf_append_slice(&w->key, cox_buf_slice(key));
    cox_buf_append_slice(&w->task_id, assign->task_id);
    cox_list_init(&w->link);
    cox_list_init(&w->task_link);
    cox_list_init(&w->waiting);
    cox_list_init(&w->want_later);
    cox_mapb_set(&ws->index, cox_buf_slice(key), w);
    if (sibling)
        cox_list_push_back(&sibling->task_link, &w->task_link);
    else
        cox_mapb_set(&ws->tasks, assign->task_id, w);
    return w;
}

static bool read_hash(struct cox_slice text, struct cox_hash *ret)
{
    char hex[BLOB_HEX_LEN + 1];

    if (!blob_parse(text, hex))
        return false;
    for (size_t i = 0; i < sizeof(ret->b); i++) {
        unsigned high = (unsigned)(hex[2 * i] <= '9' ? hex[2 * i] - '0' : hex[2 * i] - 'a' + 10);
        unsigned low = (unsigned)(hex[2 * i + 1] <= '9' ? hex[2 * i + 1] - '0' : hex[2 * i + 1] - 'a' + 10);

        ret->b[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* The workspace as it is to begin: what it was saved as, or empty. */
static void begin(struct workspace *w, const struct cox_agent_assign *assign)
{
    w->has_name = w->all->config.courier && read_hash(assign->snapshot, &w->name.blob) &&
                  read_hash(assign->tree, &w->name.tree);
}

static bool take_dir(struct workspace *w)
{
    if (w->dir && w->present && mkdir(w->dir, 0700) != 0)
        return errno == EEXIST;
    if (w->dir && (!w->present || !w->has_name || w->n_holders > 0))
        return true; /* it is being restored; or somebody tidied up, and it begins anew */
    drop_dir(w);
    if (!make_dir(w))
        return false;
    w->present = !w->has_name;
    return true;
}

bool workspaces_hold(struct workspaces *ws, const struct cox_agent_assign *assign, struct workspace_use *use)
{
    struct cox_buf key = { 0 };
    struct workspace *w;

    put_key(&key, assign->task_id, assign->workspace);
    w = cox_mapb_get(&ws->index, cox_buf_slice(&key));
    if (w && w->home != assign->home && !COX_PLANTED("old-home-serves")) {
        /* it has been elsewhere since */
        leave_index(w);
        if (w->n_holders == 0)
            remove_workspace(w);
        w = NULL;
    }
    if (!w) {
        w = make(ws, assign, &key);
        begin(w, assign);
    }
    cox_buf_fini(&key);
    if (!take_dir(w)) {
        int why = errno;

        if (w->n_holders == 0)
            remove_workspace(w);
        errno = why;
        return false;
    }
    ws->n_away -= w->away;
    w->away = false;
    cox_list_remove(&w->link);
    cox_list_push_back(&ws->held, &w->link);
    w->n_holders++;
    if (w->n_writers++ == 0)
        w->written_since_ns = cox_clock_wall_ms() * 1000000;
    use->workspace = w;
    use->attempt = assign->ref;
    use->writes = true;
    cox_list_init(&use->link);
    return true;
}

const char *workspace_dir(const struct workspace_use *use)
{
    return use->workspace->dir;
}

bool workspace_is_ready(const struct workspace_use *use)
{
    return use->workspace->present;
}

void workspace_await(struct workspace_use *use)
{
    struct workspace *w = use->workspace;

    cox_list_push_back(&w->waiting, &use->link);
    if (!w->job)
        start_job(w, COURIER_RESTORE);
}

static void stop_writing(struct workspace_use *use)
{
    use->workspace->n_writers -= use->writes;
    use->writes = false;
}

bool workspace_save(struct workspace_use *use)
{
    struct workspace *w = use->workspace;

    if (!w->all->config.courier)
        return false;
    stop_writing(use);
    cox_list_push_back(w->job ? &w->want_later : &w->waiting, &use->link);
    if (!w->job)
        start_job(w, COURIER_TAKE);
    return true;
}

void workspace_saved(const struct workspace_use *use, struct cox_buf *note, struct cox_agent_files *ret)
{
    const struct workspace *w = use->workspace;

    snapshot_note(w->last, note);
    *ret = (struct cox_agent_files){ .told = true,
                                     .saved = true,
                                     .tree = w->name.tree,
                                     .size = w->name.size,
                                     .n_files = w->name.n_files,
                                     .serial = w->serial,
                                     .note = cox_buf_slice(note) };
    ret->packs = snapshot_blobs(w->last, &ret->n_packs);
}

void workspace_release(struct workspace_use *use)
{
    struct workspace *w = use->workspace;

    if (!w)
        return;
    use->workspace = NULL;
    w->n_writers -= use->writes;
    use->writes = false;
    cox_list_remove(&use->link);
    unhold(w);
}

void workspaces_use(const struct workspaces *ws, struct workspaces_use *ret)
{
    *ret = (struct workspaces_use){ .n = atomic_load(&ws->said_n),
                                    .n_unsaved = atomic_load(&ws->said_unsaved),
                                    .len = atomic_load(&ws->said_len) };
}

void workspaces_forget(struct workspaces *ws, struct cox_slice task_id)
{
    struct workspace *w;

    while ((w = cox_mapb_get(&ws->tasks, task_id)) != NULL) {
        leave_index(w);
        if (w->n_holders == 0)
            remove_workspace(w);
    }
    arm(ws);
}

/* ---------------------------------------------------------------- life */

struct workspaces *workspaces_create(const struct workspaces_config *config)
{
    struct workspaces *ws = COX_NEW(struct workspaces);

    ws->config = *config;
    ws->timer = evtimer_new(config->base, on_timer, ws);
    cox_list_init(&ws->idle);
    cox_list_init(&ws->held);
    cox_list_init(&ws->away);
    return ws;
}

void workspaces_destroy(struct workspaces *ws)
{
    struct cox_slice key;
    size_t it = 0;
    void *found;

    if (!ws)
        return;
    COX_LIST_FOR_EACH (at, &ws->held) { /* works are gone; jobs may be left */
        struct workspace *w = COX_CONTAINER_OF(at, struct workspace, link);

        if (w->job) {
            atomic_store(&w->job->cancelled, true);
            w->job->user = NULL;
        }
        leave_index(w);
        free_workspace(w);
    }
    while (cox_mapb_next(&ws->index, &it, &key, &found))
        free_workspace(found);
    cox_mapb_fini(&ws->index);
    cox_mapb_fini(&ws->tasks);
    event_free(ws->timer);
    cox_free(ws);
}
