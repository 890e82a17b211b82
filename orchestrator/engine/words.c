/* What people say to a live task: pause, resume, signal, approve, cancel, and to its agents. */
#include "expand/agent.h"
#include "expand/expand.h"
#include "expand/map.h"
#include "sleep.h"

#include <string.h>

void reply(struct cox_engine *e, uint64_t request, enum cox_err err, const struct cox_task *t,
           const char *message)
{
    if (request == 0)
        return; /* the engine's own word */
    struct cox_action *a = act(e, COX_ACT_REPLY);
    a->u.reply = (struct cox_act_reply){ .request = request,
                                         .err = err,
                                         .task = t != NULL ? t->id : 0,
                                         .status = t != NULL ? t->status : COX_TASK_NONE,
                                         .message = message };
}

/* A root that people may speak to. NULL after the answer. */
static struct cox_task *find_root(struct cox_engine *e, uint64_t request, cox_task_id id)
{
    struct cox_task *t = cox_map64_get(&e->tasks, id);
    if (t == NULL || t->parent_id != 0) {
        reply(e, request, COX_ERR_NOT_FOUND, NULL, NULL);
        return NULL;
    }
    if (cox_task_status_final(t->status)) {
        reply(e, request, COX_ERR_INVALID, t, "the task has ended");
        return NULL;
    }
    return t;
}

/* ---- pause and resume ---- */

static void each_ready(struct cox_engine *e, struct cox_task *t, bool pause)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE && i < t->link_next;
         i = cox_task_next_step(t, i + 1)) {
        struct step *s = task_step(t, i);
        bool map = s->status == COX_STEP_WAITING && s->x->map != NULL;
        if (s->status != COX_STEP_READY && !map)
            continue;
        if (pause)
            step_unready(e, t, s);
        else if (map)
            map_place(e, t, i);
        else if (!(s->flags & STEP_EVALUATING) && cox_list_empty(&s->in_queue) && s->backoff == NULL)
            step_make_ready(e, t, i); /* but for alternatives of a race that has begun just now */
        changed(e, t, i);
    }
}

void task_pause(struct cox_engine *e, const struct cox_in_task *in, bool pause)
{
    struct cox_task *t = find_root(e, in->request, in->task);
    if (t == NULL)
        return;
    if (t->paused != pause && t->stopping == COX_TASK_NONE) {
        emit(e, &(struct record){ .type = pause ? RECORD_TASK_PAUSED : RECORD_TASK_RESUMED,
                                  .task = t->id,
                                  .wall_ms = e->now.wall_ms });
        if (pause) /* their places at gates go, and with them what was asked for while they had these */
            evaluations_forget(e, t, COX_IMAGE_NONE);
        each_ready(e, t, pause);
        COX_LIST_FOR_EACH (it, &t->frames)
            each_ready(e, COX_CONTAINER_OF(it, struct cox_task, in_frames), pause);
        changed(e, t, COX_IMAGE_NONE);
    }
    reply(e, in->request, COX_OK, t, NULL);
    task_may_rest(e, t);
}

/* ---- signals ---- */

void signal_keep(struct cox_task *root, struct cox_slice name, const struct cox_payload *payload)
{
    struct signal *sig = COX_NEW(struct signal);
    sig->number = ++root->last_signal;
    sig->name = text_own(name);
    sig->payload = value_make(payload);
    if (COX_PLANTED("newest-signal-first"))
        cox_list_push_front(&root->signals, &sig->in_signals);
    else
        cox_list_push_back(&root->signals, &sig->in_signals);
    root->n_signals++;
}

static void signal_free(struct cox_task *root, struct signal *sig)
{
    cox_list_remove(&sig->in_signals);
    root->n_signals--;
    cox_free(sig->name);
    cox_free(sig->payload);
    cox_free(sig);
}

void signal_drop(struct cox_task *root, uint64_t number)
{
    COX_LIST_FOR_EACH (it, &root->signals) {
        struct signal *sig = COX_CONTAINER_OF(it, struct signal, in_signals);
        if (sig->number != number)
            continue;
        signal_free(root, sig);
        return;
    }
}

const struct signal *signal_find(const struct cox_task *root, struct cox_slice name)
{
    COX_LIST_FOR_EACH (it, &root->signals) {
        const struct signal *sig = COX_CONTAINER_OF(it, struct signal, in_signals);
        if (cox_slice_eq(cox_slice_str(sig->name), name))
            return sig;
    }
    return NULL;
}

void task_signal(struct cox_engine *e, const struct cox_in_signal *in)
{
    struct cox_task *t = find_root(e, in->request, in->task);
    if (t == NULL)
        return;
    if (t->n_signals >= COX_SIGNALS_MAX) {
        reply(e, in->request, COX_ERR_FULL, t, "too many signals that no step has waited for");
        return;
    }
    payload_keep(e, t->id, &in->payload);
    struct record r = { .type = RECORD_SIGNALLED, .task = t->id, .wall_ms = e->now.wall_ms };
    r.u.signalled.name = in->name;
    r.u.signalled.payload = in->payload;
    emit(e, &r);
    reply(e, in->request, COX_OK, t, NULL);
    if (t->stopping == COX_TASK_NONE)
        wait_take(e, t, in->name);
}

void task_free_words(struct cox_task *t)
{
    while (!cox_list_empty(&t->signals))
        signal_free(t, COX_CONTAINER_OF(t->signals.next, struct signal, in_signals));
    for (uint32_t i = 0; t->version_pins != NULL && i < t->image.n_classes; i++)
        cox_free(t->version_pins[i]);
    cox_free(t->version_pins);
    cox_free(t->template_pins);
    cox_free(t->schedule);
    cox_free(t->item);
    cox_free(t->args);
}

/* ---- approvals ---- */

static struct cox_task *find_step(struct cox_engine *e, const struct cox_task *root, struct cox_slice address,
                                  uint32_t *ret_step, uint64_t *ret_item)
{
    const struct cox_task *t = cox_engine_find_step(e, root, address, ret_step, ret_item);
    /* an item of a map that runs steps is their frame's entry */
    return t != NULL ? cox_map64_get(&e->tasks, t->id) : NULL;
}

void task_approve(struct cox_engine *e, const struct cox_in_approve *in)
{
    uint32_t step;
    uint64_t item;
    const char *message = NULL;
    struct cox_task *root = find_root(e, in->request, in->task);
    if (root == NULL)
        return;
    struct cox_task *t = find_step(e, root, in->step, &step, &item);
    if (t == NULL || !task_has_step(t, step)) {
        reply(e, in->request, COX_ERR_NOT_FOUND, root, "the task has no such step now");
        return;
    }
    enum cox_err err = approval_answer(e, t, step, in, &message);
    reply(e, in->request, err, root, message);
}

/* ---- messages ---- */

/* Those of the task itself: what is said to an agent within an agent is said to it by name. */
static bool may_be_meant(const struct cox_task *frame)
{
    for (; frame->parent != NULL; frame = frame->parent)
        if (frame_is_agents(frame))
            return false;
    return true;
}

static uint32_t find_agents_in(struct cox_task *frame, struct cox_task **ret, uint32_t *ret_step)
{
    uint32_t n = 0;
    if (!may_be_meant(frame) || frame->n_by_status[COX_STEP_WAITING] == 0)
        return 0;
    for (uint32_t i = cox_task_next_step(frame, 0); i != COX_IMAGE_NONE;
         i = cox_task_next_step(frame, i + 1)) {
        if (task_step_status(frame, i) != COX_STEP_WAITING || !step_is_agent(frame, i) ||
            task_step(frame, i)->x->child != NULL) /* a plan that runs: its model is asked no more */
            continue;
        *ret = frame;
        *ret_step = i;
        n++;
    }
    return n;
}

/* The only agent that runs. NULL after the answer. */
static struct cox_task *find_only_agent(struct cox_engine *e, const struct cox_in_message *in,
                                        struct cox_task *root, uint32_t *ret_step)
{
    struct cox_task *t = NULL;
    uint32_t n = find_agents_in(root, &t, ret_step);
    COX_LIST_FOR_EACH (it, &root->frames)
        n += find_agents_in(COX_CONTAINER_OF(it, struct cox_task, in_frames), &t, ret_step);
    if (n == 0)
        reply(e, in->request, COX_ERR_INVALID, root, "no agent of the task runs now");
    else if (n > 1)
        reply(e, in->request, COX_ERR_INVALID, root, "several agents of the task run: name the step of one");
    return n == 1 ? t : NULL;
}

static struct cox_task *find_agent(struct cox_engine *e, const struct cox_in_message *in,
                                   struct cox_task *root, uint32_t *ret_step)
{
    uint64_t item;
    if (in->step.len == 0)
        return find_only_agent(e, in, root, ret_step);
    struct cox_task *t = find_step(e, root, in->step, ret_step, &item);
    if (t == NULL || item != UINT64_MAX || !task_has_step(t, *ret_step)) {
        reply(e, in->request, COX_ERR_NOT_FOUND, root, "the task has no such step now");
        return NULL;
    }
    if (!step_is_agent(t, *ret_step)) {
        reply(e, in->request, COX_ERR_INVALID, root, "the step is no agent");
        return NULL;
    }
    return t;
}

void task_message(struct cox_engine *e, const struct cox_in_message *in)
{
    uint32_t step;
    struct cox_task *root = find_root(e, in->request, in->task);
    struct cox_task *t = root != NULL ? find_agent(e, in, root, &step) : NULL;
    if (t == NULL)
        return;
    enum cox_err err = agent_hear(e, t, step, in->text);
    reply(e, in->request, err, root,
          err == COX_ERR_FULL ? "the agent has not yet heard what was said before: too many words wait"
          : err != COX_OK     ? "the agent does not run now"
                              : NULL);
}

/* ---- cancelling ---- */

static void cancel_step(struct cox_engine *e, struct cox_task *root, const struct cox_in_cancel *in)
{
    uint32_t step;
    uint64_t item;
    struct cox_task *t = find_step(e, root, in->step, &step, &item);
    if (t == NULL || item != UINT64_MAX) {
        reply(e, in->request, COX_ERR_NOT_FOUND, root, "the task has no such step now");
        return;
    }
    task_step_make(t, step);
    if (cox_step_status_final(task_step_status(t, step))) {
        reply(e, in->request, COX_ERR_INVALID, root, "the step has ended");
        return;
    }
    step_cancel(e, t, step);
    reply(e, in->request, COX_OK, root, NULL);
}

void task_cancel(struct cox_engine *e, const struct cox_in_cancel *in)
{
    struct cox_task *t = cox_map64_get(&e->tasks, in->task);
    if (t == NULL || t->parent_id != 0) {
        reply(e, in->request, COX_ERR_NOT_FOUND, NULL, NULL);
        return;
    }
    if (in->step.len > 0) {
        cancel_step(e, t, in);
        return;
    }
    char *reason = cox_strndup((const char *)in->reason.data, in->reason.len);
    task_stop(e, t, COX_TASK_CANCELLED, COX_CODE_CANCELLED,
              in->reason.len > 0 ? reason : "cancelled by request");
    cox_free(reason);
    reply(e, in->request, COX_OK, t, NULL);
}
