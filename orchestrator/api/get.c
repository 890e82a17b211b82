/* GetTask and BatchGetTasks, with `wait`: one op holds an item a task; an item waits as a watcher, which is
 * all that a waiting caller costs. A task is shown as it is when it ends, because by the time the last one of
 * a batch has ended the first ones may have left the engine. */
#include "internal.h"

#include "cox/base/alloc.h"

#include <string.h>

#define WAIT_MAX_MS (3600 * 1000LL)
#define ANSWER_LEN_MAX ((size_t)COX_MESSAGE_LEN_MAX - (2u << 20))

struct get;

struct item {
    struct get *get;
    struct cox_watcher watcher;
    struct cox_fetch archive;
    struct cox_requested awake;
    bool wait;
    cox_task_id task;            /* 0: no such id */
    Coxswain__V1__Task *message; /* NULL: not known yet, or no such task */
};

struct get {
    struct cox_reading reading; /* call, arena, values */
    bool batch;
    bool finishing;
    size_t n_items;
    size_t n_left;    /* items that wait for their task or for the archive */
    size_t n_archive; /* of those, the latter, and those being woken: they cannot be given up */
    Coxswain__V1__GetTaskResponse one;
    Coxswain__V1__BatchGetTasksResponse many;
    struct item items[];
};

static struct get *get_of(struct cox_op *op)
{
    return COX_CONTAINER_OF(COX_CONTAINER_OF(op, struct cox_reading, op), struct get, reading);
}

static void get_free(struct get *g)
{
    for (size_t i = 0; i < g->n_items; i++)
        cox_watcher_stop(g->reading.op.api, &g->items[i].watcher);
    cox_op_fini(&g->reading.op);
    cox_arena_fini(&g->reading.arena);
    cox_free(g);
}

/* ---- the answer ---- */

static Coxswain__V1__Task *no_task(struct cox_arena *a, const struct item *it)
{
    Coxswain__V1__Task *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__task__init(m);
    m->id = cox_show_id(a, it->task);
    return m;
}

static void answer_one(struct get *g)
{
    g->one.task = g->items[0].message;
    if (!g->one.task) {
        char id[COX_TASK_ID_TEXT_MAX];
        cox_task_id_format(g->items[0].task, id);
        cox_reading_fail(&g->reading, COX_RPC_NOT_FOUND, "NO_TASK", "no task %s", id);
    }
    g->reading.message = &g->one.base;
}

static void answer_many(struct get *g)
{
    g->many.n_tasks = g->n_items;
    g->many.tasks = cox_arena_alloc(&g->reading.arena, (g->n_items + 1) * sizeof(*g->many.tasks));
    for (size_t i = 0; i < g->n_items; i++)
        g->many.tasks[i] =
            g->items[i].message ? g->items[i].message : no_task(&g->reading.arena, &g->items[i]);
    g->reading.message = &g->many.base;
}

/* The answer is too long already: what would only be thrown away is not made. */
static bool is_too_long(struct cox_reading *r)
{
    if (!r->error && r->shown.len > ANSWER_LEN_MAX)
        cox_reading_fail(r, COX_RPC_RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE",
                         "the answer would have more than %zu bytes; ask for fewer tasks", ANSWER_LEN_MAX);
    return r->error;
}

static void answer(struct cox_reading *r)
{
    struct get *g = COX_CONTAINER_OF(r, struct get, reading);

    if (!is_too_long(r)) {
        if (g->batch)
            answer_many(g);
        else
            answer_one(g);
    }
    if (r->error)
        cox_op_fail(&r->op, r->error);
    else
        cox_op_reply(&r->op, r->message);
    get_free(g);
}

static void on_durable(struct cox_hold *h)
{
    struct cox_reading *r = COX_CONTAINER_OF(h, struct cox_reading, hold);

    if (r->error || !r->op.call)
        answer(r);
    else
        cox_reading_fetch(r, answer);
}

static void finish(struct get *g)
{
    if (g->finishing)
        return;
    g->finishing = true;
    cox_op_unwait(&g->reading.op);
    cox_driver_hold(g->reading.op.api->driver, &g->reading.hold, on_durable);
}

/* ---- items ---- */

static void item_done(struct item *it)
{
    if (--it->get->n_left == 0)
        finish(it->get);
}

static void item_show(struct item *it, const struct cox_engine *e, const struct cox_task *t)
{
    if (!is_too_long(&it->get->reading))
        it->message = cox_show_task(&it->get->reading.shown, e, t, true);
}

static void on_changed(struct cox_watcher *w, cox_task_id frame, uint32_t step, uint64_t seq, bool final)
{
    struct item *it = COX_CONTAINER_OF(w, struct item, watcher);
    struct cox_api *a = it->get->reading.op.api;
    const struct cox_engine *e = cox_driver_engine(a->driver);

    (void)frame, (void)step, (void)seq;
    if (!final || !w->task)
        return;
    item_show(it, e, cox_engine_find(e, it->task));
    cox_watcher_stop(a, w);
    item_done(it);
}

static void on_archive(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct item *it = COX_CONTAINER_OF(f, struct item, archive);
    struct get *g = it->get;
    struct cox_task *task;

    g->n_archive--;
    if (!g->reading.op.call && !g->finishing) {
        if (g->n_archive == 0)
            get_free(g);
        return;
    }
    if (!err && (err = cox_api_thaw(&g->reading.op, bytes, &task)) == COX_OK) {
        item_show(it, NULL, task);
        cox_task_free(task);
    }
    if (err && err != COX_ERR_NOT_FOUND)
        cox_reading_fail(&g->reading, COX_RPC_DATA_LOSS, "TASK_UNREADABLE", "a task cannot be read: %s",
                         cox_err_text(err));
    item_done(it);
}

static void item_start(struct item *it, bool wait);

static void on_awake(struct cox_requested *q, const struct cox_act_reply *reply)
{
    struct item *it = COX_CONTAINER_OF(q, struct item, awake);
    struct get *g = it->get;

    (void)reply;
    g->n_archive--;
    if (g->reading.op.call || g->finishing)
        item_start(it, it->wait && !g->finishing);
    else if (g->n_archive == 0)
        get_free(g);
}

static void item_start(struct item *it, bool wait)
{
    struct cox_api *a = it->get->reading.op.api;
    const struct cox_engine *e = cox_driver_engine(a->driver);
    const struct cox_task *task = cox_api_find(&it->get->reading.op, it->task);
    struct cox_task_view v;

    it->wait = wait;
    it->awake.on_reply = on_awake;
    if (cox_api_wake(&it->get->reading.op, it->task, &it->awake)) {
        it->get->n_archive++;
        return;
    }
    if (!task) {
        it->archive.task = it->task;
        it->archive.fn = on_archive;
        it->get->n_archive++;
        cox_driver_fetch(a->driver, &it->archive);
        return;
    }
    cox_task_view(task, &v);
    if (wait && !cox_task_status_final(v.status)) {
        cox_watcher_start(a, &it->watcher, it->task);
        return;
    }
    item_show(it, e, task);
    item_done(it);
}

/* ---- the call ---- */

static void on_gone(struct cox_op *op)
{
    struct get *g = get_of(op);

    for (size_t i = 0; i < g->n_items; i++)
        cox_watcher_stop(op->api, &g->items[i].watcher);
    /* Whoever still has an answer for us finds us alive and frees us. */
    if (!g->finishing && g->n_archive == 0)
        get_free(g);
}

/* The time is up: what has not ended is shown as it is. */
static void on_time(struct cox_op *op)
{
    struct get *g = get_of(op);
    const struct cox_engine *e = cox_driver_engine(op->api->driver);

    for (size_t i = 0; i < g->n_items; i++) {
        struct item *it = &g->items[i];
        if (!it->watcher.task)
            continue;
        item_show(it, e, cox_engine_find(e, it->task));
        cox_watcher_stop(op->api, &it->watcher);
        item_done(it);
    }
}

static struct get *get_create(struct cox_api *a, struct cox_rpc_call *call, size_t n_items)
{
    struct get *g = cox_calloc(1, sizeof(*g) + n_items * sizeof(g->items[0]));

    cox_op_init(&g->reading.op, a, call);
    g->reading.op.on_gone = on_gone;
    g->reading.op.on_time = on_time;
    g->reading.shown.arena = &g->reading.arena;
    g->reading.shown.durable_seq = cox_driver_durable_seq(a->driver);
    g->n_items = n_items;
    coxswain__v1__get_task_response__init(&g->one);
    coxswain__v1__batch_get_tasks_response__init(&g->many);
    for (size_t i = 0; i < n_items; i++) {
        g->items[i].get = g;
        g->items[i].watcher.on_changed = on_changed;
        cox_watcher_init(&g->items[i].watcher);
    }
    return g;
}

static void get_start(struct get *g, const Google__Protobuf__Duration *wait)
{
    struct cox_driver *d = g->reading.op.api->driver;
    int64_t wait_ms = 0;

    if (wait && wait->seconds > 0 && wait->seconds >= WAIT_MAX_MS / 1000)
        wait_ms = WAIT_MAX_MS;
    else if (wait && wait->seconds >= 0 && wait->nanos >= 0)
        wait_ms = wait->seconds * 1000 + wait->nanos / 1000000;
    g->n_left = g->n_items + 1; /* ours, so that it does not end under way */
    for (size_t i = 0; i < g->n_items; i++)
        item_start(&g->items[i], wait_ms > 0);
    if (--g->n_left == 0)
        finish(g);
    else if (wait_ms > 0)
        cox_op_wait(&g->reading.op, cox_driver_now(d).mono_ns + wait_ms * 1000000);
}

void cox_api_get_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetTaskRequest *m = (const Coxswain__V1__GetTaskRequest *)message;
    cox_task_id task = cox_api_task_id(call, m->id);

    if (!task)
        return;
    struct get *g = get_create(user, call, 1);

    g->items[0].task = task;
    get_start(g, m->wait);
}

void cox_api_batch_get_tasks(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__BatchGetTasksRequest *m = (const Coxswain__V1__BatchGetTasksRequest *)message;

    if (m->n_ids > COX_BATCH_TASKS_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "TOO_MANY", "ids: %zu, at most %u", m->n_ids,
                      COX_BATCH_TASKS_MAX);
        return;
    }
    for (size_t i = 0; i < m->n_ids; i++) {
        cox_task_id task;
        if (cox_task_id_parse(cox_slice_str(m->ids[i]), &task)) {
            cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_ID",
                          "ids[%zu]: \"%s\" is not an id such as t0-00000k", i, m->ids[i]);
            return;
        }
    }
    struct get *g = get_create(user, call, m->n_ids);

    g->batch = true;
    for (size_t i = 0; i < m->n_ids; i++)
        COX_ASSERT(cox_task_id_parse(cox_slice_str(m->ids[i]), &g->items[i].task) == COX_OK);
    get_start(g, m->wait);
}
