/* Words to tasks: at random while there are faults; afterwards what they need to end. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

/* A client that lost the answer finds its task in the list. */
static void find_task(struct sim *s, struct job *j)
{
    for (size_t i = 0; i < s->audit.n; i++) {
        const struct audit_task *t = s->audit.list[i];
        if (t->parent != NULL || t->job != j)
            continue;
        j->task = t->id;
        j->state = JOB_ACKED;
        event_at(s, &j->read, s->now_ns + between(s, 0, SECOND));
        return;
    }
}

static void says(struct sim *s, struct event *ev)
{
    struct job *j = COX_CONTAINER_OF(ev, struct job, word);
    bool retried = j->n_retries > 0 && s->now_ns - j->retried_ns < MINUTE;
    if (j->state == JOB_UNKNOWN)
        find_task(s, j);
    if (j->state == JOB_OVER && retried &&
        !audit_task(s, j->task)->finished) { /* what was read was of before */
        j->state = JOB_ACKED;
        event_at(s, &j->read, s->now_ns + SECOND);
    }
    if (j->state == JOB_ACKED && s->coxd.up && s->coxd.listening && !s->coxd.leaving) {
        struct message *m = message_new();
        message_add(m, ITEM_WORD)->number = j->index;
        client_send(s, m);
    }
    if (retried || j->state == JOB_ACKED || (j->state == JOB_UNKNOWN && s->now_ns < s->cfg.fault_ns + MINUTE))
        event_at(s, ev, s->now_ns + between(s, 5 * MS, s->healed ? 800 * MS : 4 * SECOND));
}

void word_init(struct job *j)
{
    event_init(&j->word, says);
}

void word_begin(struct sim *s, struct job *j)
{
    if (j->plan.scene != NULL)
        event_soon(s, &j->word, s->now_ns + between(s, 0, chance(s, 500) ? 20 * MS : 4 * SECOND));
}

/* ---- forks ---- */

static void fork_input(struct sim *s, struct job *j, struct cox_slice archived)
{
    struct job *f = client_fork(s, j);
    struct cox_input in = { .kind = COX_IN_FORK };
    if (f == NULL)
        return;
    const struct scene *sc = j->plan.scene;
    in.u.fork = (struct cox_in_fork){ .request = request_number(f, OP_FORK),
                                      .from = j->task,
                                      .archived = archived,
                                      .tenant = cox_slice_str("default"),
                                      .key = cox_slice_str(f->key),
                                      .document = payload_hash(cox_slice_str(f->key)) };
    if (chance(s, 600))
        in.u.fork.at = cox_slice_str(sc->steps[rnd(s, sc->n_steps)].name);
    f->forked_from = j->task;
    trace(s, "client: forks %s as %s", j->plan.name, f->key);
    coxd_step(s, &in);
}

/* ---- coxd's side ---- */

static void speak(struct sim *s, struct job *j, struct cox_input *in, const char *what)
{
    trace(s, "client: %s %s", what, j->plan.name);
    j->n_words++;
    coxd_step(s, in);
}

static void task_word(struct sim *s, struct job *j, enum cox_input_kind kind, const char *what)
{
    struct cox_input in = { .kind = kind };
    in.u.of.request = request_number(j, OP_WORD);
    in.u.of.task = j->task;
    speak(s, j, &in, what);
}

static void signal_word(struct sim *s, struct job *j, uint32_t name)
{
    struct cox_input in = { .kind = COX_IN_SIGNAL };
    char text[8];
    uint32_t pad = chance(s, 100) ? 5000 : (uint32_t)rnd(s, 40);
    struct cox_buf json = { 0 };
    snprintf(text, sizeof text, "g%u", name);
    cox_buf_printf(&json, "{\"job\":%u,\"said\":%u,\"pad\":\"%0*d\"}", j->index, j->n_said, (int)pad + 1, 0);
    in.u.signal.request = request_number(j, OP_WORD);
    in.u.signal.task = j->task;
    in.u.signal.name = cox_slice_str(text);
    in.u.signal.payload = value_kept(s, cox_buf_slice(&json));
    speak(s, j, &in, "signals");
    if (s->opt.plant == PLANT_SIGNAL && chance(s, 125)) {
        in.u.signal.request = 0;
        coxd_step(s, &in);
    }
    cox_buf_fini(&json);
}

static void step_word(struct sim *s, struct job *j, uint32_t i, bool cancel, bool approve)
{
    struct cox_input in = { .kind = cancel ? COX_IN_CANCEL : COX_IN_APPROVE };
    char address[24];
    snprintf(address, sizeof address, "%s", j->plan.scene->steps[i].name);
    if (cancel && j->plan.scene->steps[i].kind == SCENE_RACE && chance(s, 300))
        snprintf(address, sizeof address, "%s.%u", j->plan.scene->steps[i].name, (unsigned)rnd(s, 3));
    if (cancel) {
        in.u.cancel.request = request_number(j, OP_WORD);
        in.u.cancel.task = j->task;
        in.u.cancel.step = cox_slice_str(address);
    } else {
        in.u.approve.request = request_number(j, OP_WORD);
        in.u.approve.task = j->task;
        in.u.approve.step = cox_slice_str(address);
        in.u.approve.approve = approve;
        in.u.approve.comment = cox_slice_str("so be it");
        in.u.approve.by = cox_slice_str("somebody");
    }
    speak(s, j, &in, cancel ? "cancels a step of" : "answers");
}

static void watch_word(struct sim *s, struct job *j)
{
    struct cox_input in = { .kind = chance(s, 500) ? COX_IN_WATCH : COX_IN_UNWATCH };
    in.u.task.task = j->task;
    coxd_step(s, &in);
}

/* All that it can wait for, one after the other. */
static void needed_word(struct sim *s, struct job *j)
{
    const struct scene *sc = j->plan.scene;
    uint32_t what = j->n_said % (1 + SCENE_SIGNALS + sc->n_steps);
    if (what == 0)
        task_word(s, j, COX_IN_RESUME, "resumes");
    else if (what <= SCENE_SIGNALS)
        signal_word(s, j, what - 1);
    else if (sc->steps[what - 1 - SCENE_SIGNALS].kind == SCENE_APPROVAL)
        step_word(s, j, what - 1 - SCENE_SIGNALS, false, chance(s, 700));
}

static void any_word(struct sim *s, struct job *j)
{
    uint32_t i = (uint32_t)rnd(s, j->plan.scene->n_steps);
    switch (rnd(s, 12)) {
    case 0:
    case 1:
    case 2:
        signal_word(s, j, (uint32_t)rnd(s, SCENE_SIGNALS));
        break;
    case 3:
    case 4:
    case 5:
        step_word(s, j, i, false, chance(s, 700)); /* of an approval, or not */
        break;
    case 6:
        task_word(s, j, COX_IN_PAUSE, "pauses");
        break;
    case 7:
    case 8:
        task_word(s, j, COX_IN_RESUME, "resumes");
        break;
    case 9:
        if (chance(s, 300))
            step_word(s, j, i, true, false);
        break;
    case 10:
        if (chance(s, 150))
            fork_input(s, j, cox_slice(NULL, 0));
        else
            task_word(s, j, COX_IN_WANT, "wants");
        break;
    default:
        watch_word(s, j);
    }
}

void word_request(struct sim *s, struct job *j)
{
    j->n_said++;
    if (s->healed || !kind_on(s, KIND_WORD)) {
        needed_word(s, j);
        return;
    }
    befell(s, KIND_WORD);
    any_word(s, j);
}

void word_reply(struct sim *s, struct job *j, const struct cox_act_reply *r)
{
    const struct audit_task *t = audit_task(s, j->task);
    if (j->n_words == 0)
        fail(s, "%s: a word is answered twice", j->plan.name);
    j->n_words--;
    if (r->err != COX_OK && r->err != COX_ERR_NOT_FOUND && r->err != COX_ERR_INVALID &&
        r->err != COX_ERR_FULL)
        fail(s, "%s: a word is refused: %s", j->plan.name, cox_err_text(r->err));
    if (r->err == COX_ERR_NOT_FOUND && r->message == NULL && !t->finished && !t->revived)
        fail(s, "%s: a word finds no task, and it lives", j->plan.name);
}

/* Its archived bytes were read: sometimes it is run again, or another is made of it. */
void word_archived(struct sim *s, struct job *j, struct cox_slice bytes, enum cox_task_status status)
{
    if (j->plan.scene == NULL || j->state != JOB_OVER)
        return;
    if (j->n_forks < 2 && chance(s, 100)) {
        j->n_forks++;
        fork_input(s, j, bytes);
    }
    if (status == COX_TASK_SUCCEEDED || j->n_retries >= 2 || !chance(s, 400) || !kind_on(s, KIND_RETRY))
        return;
    befell(s, KIND_RETRY);
    struct cox_input in = { .kind = COX_IN_RETRY };
    in.u.retry.request = request_number(j, OP_WORD);
    in.u.retry.task = j->task;
    in.u.retry.archived = bytes;
    j->n_retries++;
    j->retried_ns = s->now_ns;
    j->state = JOB_ACKED;
    j->seen = COX_TASK_NONE;
    speak(s, j, &in, "retries");
    event_at(s, &j->read, s->now_ns + between(s, 0, 10 * SECOND));
    word_begin(s, j);
}
