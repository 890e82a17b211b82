/* WatchTask: a snapshot, then what changes, turn by turn, until the task has ended.
 *
 * No history is kept, so a resume is a snapshot with `reset`. So is what a slow reader gets once it has
 * caught up: it is told that it missed something instead of being buffered for. Changes are told together, as
 * the steps are then, each step once, the task itself with the last of them. A stream is told nothing new
 * before it has sent what it was told, nor sooner after it than all streams together can be told in a share
 * of the engine's time: one watcher hears at once, thousands of a busy task hear less often, and workers are
 * not kept waiting by them.
 */
#include "internal.h"

#include "cox/base/alloc.h"

#include <stdlib.h>
#include <string.h>

#define TELL_NS 40000       /* a message: four times its cost, so all watchers get a quarter of a core */
#define TOLD_PER_TURN 1000u /* messages; beyond, the rest of the watchers waits for later turns */
#define LATER_NS 1000000
#define CHANGES_MAX 4096u          /* not yet told; beyond half of it, a snapshot tells more with less */
#define SLOW_LEN ((size_t)1 << 20) /* not yet read: what follows is not queued but told as a reset later */

struct change {
    cox_task_id frame;
    uint32_t step; /* COX_IMAGE_NONE: the frame itself */
    uint64_t seq;
};

struct watch {
    struct cox_op op;
    struct cox_watcher watcher;
    struct cox_watch_texts texts;
    struct cox_fetch archive;
    struct cox_requested awake;
    cox_task_id task;
    int64_t due_ns;         /* not told again before */
    struct change *changes; /* not yet told */
    size_t n_changes;
    size_t cap_changes;
    size_t n_pending; /* batches and fetches that will come back to us */
    bool final;       /* among the changes */
    bool overflowed;  /* more changes than are kept: a snapshot is due */
    bool lagging;
    bool resetting; /* of the snapshot under way */
};

/* Messages that may leave together. */
struct batch {
    struct cox_hold hold;
    struct watch *watch;
    struct cox_arena arena;
    Coxswain__V1__WatchTaskResponse *messages;
    size_t n_messages;
    bool last;
    bool begins; /* a snapshot: texts come after it */
};

static struct watch *watch_of(struct cox_op *op)
{
    return COX_CONTAINER_OF(op, struct watch, op);
}

static void free_if_over(struct watch *w)
{
    if (w->op.call || w->n_pending > 0)
        return;
    cox_watch_texts_stop(&w->texts);
    cox_watcher_stop(w->op.api, &w->watcher);
    w->op.api->n_watches--;
    cox_op_fini(&w->op);
    cox_free(w->changes);
    cox_free(w);
}

/* ---- sending ---- */

static void send_all(struct watch *w, const struct batch *b)
{
    for (size_t i = 0; i < b->n_messages && w->op.call && !w->lagging; i++) {
        const Coxswain__V1__WatchTaskResponse *m = &b->messages[i];
        if (cox_rpc_outbox_len(w->op.call) > SLOW_LEN || cox_rpc_send(w->op.call, &m->base) == COX_ERR_FULL)
            w->lagging = true;
    }
    if (b->last && !w->lagging) {
        cox_watch_texts_stop(&w->texts);
        cox_op_finish(&w->op);
    }
}

static void on_durable(struct cox_hold *h)
{
    struct batch *b = COX_CONTAINER_OF(h, struct batch, hold);
    struct watch *w = b->watch;

    send_all(w, b);
    if (b->begins && w->op.call && !w->lagging)
        cox_watch_texts_task(&w->texts, cox_driver_engine(w->op.api->driver), w->task);
    cox_arena_fini(&b->arena);
    cox_free(b);
    w->n_pending--;
    free_if_over(w);
}

static struct batch *batch_create(struct watch *w, size_t n_messages)
{
    struct batch *b = COX_NEW(struct batch);

    b->watch = w;
    b->messages = cox_arena_alloc(&b->arena, n_messages * sizeof(*b->messages));
    b->n_messages = n_messages;
    for (size_t i = 0; i < n_messages; i++)
        coxswain__v1__watch_task_response__init(&b->messages[i]);
    w->n_pending++;
    return b;
}

/* ---- snapshots ---- */

static void on_archive(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct watch *w = COX_CONTAINER_OF(f, struct watch, archive);
    char id[COX_TASK_ID_TEXT_MAX];
    struct cox_task *task;

    cox_task_id_format(w->task, id);
    if (!err && (err = cox_api_thaw(&w->op, bytes, &task)) == COX_OK) {
        struct batch *b = batch_create(w, 1);
        struct cox_shown shown = { .arena = &b->arena,
                                   .durable_seq = cox_driver_durable_seq(w->op.api->driver) };
        b->messages[0].seq = shown.durable_seq;
        b->messages[0].task = cox_show_task(&shown, NULL, task, true);
        b->messages[0].reset = w->resetting;
        b->last = true;
        cox_task_free(task);
        w->n_pending--;
        on_durable(&b->hold);
        return;
    }
    w->n_pending--;
    if (err == COX_ERR_NOT_FOUND)
        cox_op_failf(&w->op, COX_RPC_NOT_FOUND, "NO_TASK", "no task %s", id);
    else
        cox_op_failf(&w->op, COX_RPC_DATA_LOSS, "TASK_UNREADABLE", "task %s cannot be read: %s", id,
                     cox_err_text(err));
    free_if_over(w);
}

static void snapshot(struct watch *w, bool reset);

static void on_awake(struct cox_requested *q, const struct cox_act_reply *reply)
{
    struct watch *w = COX_CONTAINER_OF(q, struct watch, awake);

    (void)reply;
    w->n_pending--;
    if (w->op.call)
        snapshot(w, w->resetting);
    else
        free_if_over(w);
}

static void snapshot(struct watch *w, bool reset)
{
    struct cox_driver *d = w->op.api->driver;
    const struct cox_engine *e = cox_driver_engine(d);
    const struct cox_task *task = cox_api_find(&w->op, w->task);
    struct cox_task_view v;

    w->resetting = reset;
    w->awake.on_reply = on_awake;
    if (cox_api_wake(&w->op, w->task, &w->awake)) {
        w->n_pending++;
        return;
    }
    if (!task) {
        w->archive.task = w->task;
        w->archive.fn = on_archive;
        w->n_pending++;
        cox_driver_fetch(d, &w->archive);
        return;
    }
    struct batch *b = batch_create(w, 1);
    struct cox_shown shown = { .arena = &b->arena };

    cox_task_view(task, &v);
    b->messages[0].seq = cox_engine_seq(e);
    b->messages[0].reset = reset;
    b->messages[0].task = cox_show_task(&shown, e, task, true);
    b->last = cox_task_status_final(v.status);
    b->begins = !b->last;
    cox_driver_hold(d, &b->hold, on_durable);
    if (!b->last && !w->watcher.task)
        cox_watcher_start(w->op.api, &w->watcher, w->task);
}

/* ---- changes ---- */

static int by_step(const void *a, const void *b)
{
    const struct change *x = a, *y = b;

    if (x->frame != y->frame)
        return x->frame < y->frame ? -1 : 1;
    if (x->step != y->step)
        return x->step < y->step ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int by_seq(const void *a, const void *b)
{
    const struct change *x = a, *y = b;

    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    if (x->frame != y->frame)
        return x->frame > y->frame ? -1 : 1;           /* the task itself comes last */
    return x->step < y->step ? -1 : x->step > y->step; /* the task itself comes last */
}

/* Each step once, with its last change; in the order of these. */
static size_t changes_merge(struct change *c, size_t n)
{
    size_t n_kept = 0;

    qsort(c, n, sizeof(*c), by_step);
    for (size_t i = 0; i < n; i++) {
        if (n_kept > 0 && c[n_kept - 1].step == c[i].step && c[n_kept - 1].frame == c[i].frame)
            n_kept--;
        c[n_kept++] = c[i];
    }
    qsort(c, n_kept, sizeof(*c), by_seq);
    return n_kept;
}

static void on_changed(struct cox_watcher *watcher, cox_task_id frame, uint32_t step, uint64_t seq,
                       bool final)
{
    struct watch *w = COX_CONTAINER_OF(watcher, struct watch, watcher);

    if (w->n_changes == CHANGES_MAX &&
        (w->n_changes = changes_merge(w->changes, CHANGES_MAX)) > CHANGES_MAX / 2)
        w->overflowed = true;
    if (w->overflowed)
        w->n_changes = 0;
    if (w->n_changes == w->cap_changes) {
        w->cap_changes = w->cap_changes ? w->cap_changes * 2 : 16;
        w->changes = cox_realloc(w->changes, w->cap_changes, sizeof(*w->changes));
    }
    w->changes[w->n_changes++] = (struct change){ frame, step, seq };
    w->final = w->final || final;
    cox_watcher_mark(w->op.api, watcher);
}

static void forget_changes(struct watch *w)
{
    w->n_changes = 0;
    w->final = false;
    w->overflowed = false;
}

static void tell(struct watch *w)
{
    struct cox_driver *d = w->op.api->driver;
    const struct cox_engine *e = cox_driver_engine(d);
    const struct cox_task *task = cox_api_find(&w->op, w->task);

    if (!task || w->overflowed) { /* it may have ended and gone to the archive meanwhile */
        bool reset = w->overflowed;
        forget_changes(w);
        snapshot(w, reset);
        return;
    }
    size_t n = changes_merge(w->changes, w->n_changes);
    struct batch *b = batch_create(w, n);
    struct cox_shown shown = { .arena = &b->arena };
    struct cox_task_view v;

    for (size_t i = 0; i < n; i++) {
        const struct cox_task *frame = cox_engine_find(e, w->changes[i].frame);
        b->messages[i].seq = w->changes[i].seq;
        if (w->changes[i].step == COX_IMAGE_NONE || !frame)
            continue; /* the step that it is under changes with it */
        cox_task_view(frame, &v);
        b->messages[i].step = cox_show_step(&shown, e, frame, &v, w->changes[i].step, false);
        cox_watch_texts_step(&w->texts, e, frame, w->changes[i].step);
    }
    b->messages[n - 1].task = cox_show_task(&shown, e, task, w->final);
    b->last = w->final;
    forget_changes(w);
    cox_driver_hold(d, &b->hold, on_durable);
}

static void tell_when_due(struct watch *w)
{
    if (w->n_changes == 0 || w->n_pending > 0 || !w->op.call || cox_rpc_outbox_len(w->op.call) > 0)
        return; /* nothing, or on_room comes */
    int64_t now_ns = cox_driver_now(w->op.api->driver).mono_ns;
    if (now_ns >= w->due_ns && w->op.api->n_told >= TOLD_PER_TURN)
        w->due_ns = now_ns + LATER_NS;
    if (now_ns < w->due_ns) {
        cox_op_wait(&w->op, w->due_ns);
        return;
    }
    size_t n = w->n_changes;
    w->op.api->n_told += n;
    w->due_ns = now_ns + (int64_t)(w->op.api->n_watches * n) * TELL_NS;
    tell(w);
}

static void on_turn(struct cox_watcher *watcher)
{
    struct watch *w = COX_CONTAINER_OF(watcher, struct watch, watcher);

    if (w->lagging)
        forget_changes(w); /* a snapshot follows */
    else
        tell_when_due(w);
}

/* ---- the call ---- */

static void on_gone(struct cox_op *op)
{
    struct watch *w = watch_of(op);

    cox_watch_texts_stop(&w->texts);
    cox_watcher_stop(op->api, &w->watcher);
    free_if_over(w);
}

static void on_room(struct cox_op *op)
{
    struct watch *w = watch_of(op);

    cox_watch_texts_room(&w->texts);
    if (w->lagging) {
        w->lagging = false;
        forget_changes(w);
        snapshot(w, true);
    } else {
        tell_when_due(w);
    }
}

static void on_time(struct cox_op *op)
{
    tell_when_due(watch_of(op));
}

void cox_api_watch_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__WatchTaskRequest *m = (const Coxswain__V1__WatchTaskRequest *)message;
    cox_task_id task = cox_api_task_id(call, m->id);

    if (!task)
        return;
    struct watch *w = COX_NEW(struct watch);

    cox_op_init(&w->op, user, call);
    w->op.on_gone = on_gone;
    w->op.on_room = on_room;
    w->op.on_time = on_time;
    w->op.api->n_watches++;
    w->op.endless = true;
    w->task = task;
    w->texts.op = &w->op;
    w->texts.wanted = m->tokens;
    cox_list_init(&w->texts.texts);
    w->watcher.on_changed = on_changed;
    w->watcher.on_turn = on_turn;
    cox_watcher_init(&w->watcher);
    snapshot(w, m->after_seq > 0);
}
