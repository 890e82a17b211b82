/* Clients: they submit, ask again when no answer came, cancel, and look. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hold { /* a view, shown once it is durable */
    struct cox_list node;
    uint64_t seq;
    struct job *job;
    enum cox_task_status status;
};

#define PATIENCE_NS (10 * SECOND)

/* ---- the way to coxd ---- */

struct letter {
    struct cox_list node;
    struct event ev;
    struct message *message;
};

static void letter_free(struct sim *s, struct letter *l)
{
    event_cancel(s, &l->ev);
    cox_list_remove(&l->node);
    message_free(l->message);
    cox_free(l);
}

static void letter_arrives(struct sim *s, struct event *ev)
{
    struct letter *l = COX_CONTAINER_OF(ev, struct letter, ev);
    if (s->coxd.up && s->coxd.listening && !s->coxd.leaving) {
        s->n.reordered += l->message->sent < s->last_heard;
        s->last_heard = l->message->sent > s->last_heard ? l->message->sent : s->last_heard;
        cox_list_push_back(&s->coxd.inbox, &l->message->node);
        l->message = NULL;
        coxd_poke(s);
    }
    letter_free(s, l);
}

static void post(struct sim *s, struct message *m, int64_t after_ns)
{
    struct letter *l = COX_NEW(struct letter);
    l->message = m;
    m->sent = ++s->n_sent;
    event_init(&l->ev, letter_arrives);
    cox_list_push_back(&s->letters, &l->node);
    event_at(s, &l->ev, s->now_ns + after_ns);
}

/* What may be asked twice: a task that its key makes one, and what asks for no more than is so already. */
static bool repeatable(const struct sim *s, const struct item *it)
{
    return it->kind == ITEM_STOP || it->kind == ITEM_GET ||
           (it->kind == ITEM_SUBMIT && s->jobs[it->number].key[0] != 0);
}

void client_send(struct sim *s, struct message *m)
{
    if (repeatable(s, &m->items[0]) && befalls(s, KIND_REQUEST_TWICE, 30)) {
        struct message *copy = message_new();
        *message_add(copy, m->items[0].kind) = m->items[0];
        post(s, copy, between(s, 0, 3 * SECOND));
    }
    post(s, m, befalls(s, KIND_OVERTAKEN, 50) ? between(s, 0, 6 * SECOND) : 0);
}

/* ---- asking ---- */

static bool ask(struct sim *s, struct job *j, enum item_kind kind, struct event *again, struct event *lost)
{
    if (!s->coxd.up || !s->coxd.listening || s->coxd.leaving) {
        event_at(s, again, s->now_ns + between(s, 100 * MS, 2 * SECOND));
        return false;
    }
    struct message *m = message_new();
    message_add(m, kind)->number = j->index;
    event_at(s, lost, s->now_ns + PATIENCE_NS);
    client_send(s, m);
    return true;
}

static void submit(struct sim *s, struct event *ev)
{
    struct job *j = COX_CONTAINER_OF(ev, struct job, submit);
    if (j->plan.scene != NULL && !operator_has_templates(s)) {
        event_at(s, ev, s->now_ns + between(s, 10 * MS, SECOND));
        return;
    }
    if (ask(s, j, ITEM_SUBMIT, ev, &j->submit_lost))
        j->state = JOB_ASKING;
}

static void cancel(struct sim *s, struct event *ev)
{
    struct job *j = COX_CONTAINER_OF(ev, struct job, cancel);
    if (!ask(s, j, ITEM_STOP, ev, &j->cancel_lost))
        return;
    befell(s, KIND_CANCEL);
    j->cancel_sent = true;
}

static void look(struct sim *s, struct event *ev)
{
    struct job *j = COX_CONTAINER_OF(ev, struct job, read);
    (void)ask(s, j, ITEM_GET, ev, &j->read_lost);
}

/* With a key a client asks again; without one it cannot know. */
static void submit_lost(struct sim *s, struct event *ev)
{
    struct job *j = COX_CONTAINER_OF(ev, struct job, submit_lost);
    if (j->state != JOB_ASKING)
        return;
    j->state = j->key[0] != 0 && j->from == NULL ? JOB_NEW : JOB_UNKNOWN;
    if (j->state == JOB_UNKNOWN)
        word_begin(s, j);
    trace(s, "client: no answer for %s", j->plan.name);
    if (j->state == JOB_NEW)
        event_at(s, &j->submit, s->now_ns + between(s, 10 * MS, SECOND));
}

static void cancel_lost(struct sim *s, struct event *ev)
{
    struct job *j = COX_CONTAINER_OF(ev, struct job, cancel_lost);
    event_at(s, &j->cancel, s->now_ns + between(s, 10 * MS, SECOND));
}

static void read_lost(struct sim *s, struct event *ev)
{
    struct job *j = COX_CONTAINER_OF(ev, struct job, read_lost);
    event_at(s, &j->read, s->now_ns + between(s, 10 * MS, SECOND));
}

/* ---- answers ---- */

static struct job *client_of(struct sim *s, struct job *from);

static bool has_client(const struct sim *s, cox_task_id task)
{
    for (uint32_t i = 0; i < s->n_jobs; i++)
        if (s->jobs[i].task == task)
            return true;
    return false;
}

/* Its key expired while it asked, and what it had asked for first runs too: somebody looks after that. */
static void leave_none(struct sim *s, const struct job *j)
{
    for (size_t i = 0; i < s->audit.n; i++) {
        const struct audit_task *t = s->audit.list[i];
        if (t->parent != NULL || t->forked || t->finished || t->job->from != NULL ||
            strcmp(t->job->plan.name, j->plan.name) != 0 || has_client(s, t->id))
            continue;
        struct job *other = client_of(s, t->job);
        other->task = t->id;
        other->state = JOB_ACKED;
        trace(s, "client: somebody finds a task of %s", j->plan.name);
        event_at(s, &other->read, s->now_ns + between(s, 0, 10 * SECOND));
        word_begin(s, other);
    }
}

/* Rule 2. */
static void acknowledged(struct sim *s, struct job *j, const struct cox_act_reply *r)
{
    const struct audit_task *t = audit_task(s, r->task);
    if (t == NULL)
        fail(s, "%s is acknowledged, and not in the durable log", j->plan.name);
    if (strcmp(t->job->plan.name, j->plan.name) != 0)
        fail(s, "%s is acknowledged as the task of %s", j->plan.name, t->job->plan.name);
    if (j->task != 0 && j->task != r->task)
        fail(s, "%s is acknowledged twice, as different tasks", j->plan.name);
    j->state = JOB_ACKED;
    j->task = r->task;
    trace(s, "client: %s is task %s", j->plan.name, ref_text((struct cox_ref){ .task = r->task }));
    event_at(s, &j->read, s->now_ns + between(s, 0, 10 * SECOND));
    word_begin(s, j);
    leave_none(s, j);
    if (j->wants_cancel)
        event_at(s, &j->cancel, s->now_ns + between(s, 0, chance(s, 500) ? 200 * MS : 15 * SECOND));
}

static bool shares_key(const struct sim *s, const struct job *j)
{
    for (uint32_t i = 0; i < s->n_jobs; i++)
        if (&s->jobs[i] != j && j->key[0] != 0 && strcmp(s->jobs[i].key, j->key) == 0 &&
            strcmp(s->jobs[i].plan.name, j->plan.name) != 0)
            return true;
    return false;
}

static void submit_reply(struct sim *s, struct job *j, const struct cox_act_reply *r)
{
    event_cancel(s, &j->submit_lost);
    if (j->state != JOB_ASKING)
        return; /* an answer to an earlier try */
    switch (r->err) {
    case COX_OK:
        acknowledged(s, j, r);
        break;
    case COX_ERR_INVALID: /* a template is not there just now */
        if (j->plan.scene == NULL || r->place == NULL)
            fail(s, "%s is refused: %s", j->plan.name, r->message);
        operator_doubt(s);
        j->state = JOB_NEW;
        event_at(s, &j->submit, s->now_ns + between(s, 100 * MS, 2 * SECOND));
        break;
    case COX_ERR_EXISTS:
        if (!shares_key(s, j))
            fail(s, "%s is refused for a key that only it uses", j->plan.name);
        j->state = JOB_REFUSED;
        leave_none(s, j);
        break;
    case COX_ERR_FULL:
        if (s->cfg.live_steps_max == 0)
            fail(s, "%s is refused for want of room", j->plan.name);
        j->state = JOB_NEW;
        event_at(s, &j->submit, s->now_ns + r->retry_ms * MS);
        break;
    default:
        fail(s, "%s is refused: %s", j->plan.name, cox_err_text(r->err));
    }
}

static void fork_reply(struct sim *s, struct job *j, const struct cox_act_reply *r)
{
    event_cancel(s, &j->submit_lost);
    if (j->state != JOB_ASKING)
        return;
    if (r->err == COX_OK)
        acknowledged(s, j, r);
    else if (r->err == COX_ERR_FULL || r->err == COX_ERR_NOT_FOUND)
        j->state = JOB_REFUSED;
    else
        fail(s, "a fork of %s is refused: %s", j->plan.name, cox_err_text(r->err));
}

static void cancel_reply(struct sim *s, struct job *j, const struct cox_act_reply *r)
{
    const struct audit_task *t = audit_task(s, j->task);
    event_cancel(s, &j->cancel_lost);
    event_cancel(s, &j->cancel);
    j->cancel_answered = true;
    if (r->err == COX_ERR_NOT_FOUND && !t->archived && !t->revived)
        fail(s, "%s cannot be cancelled: it is not found, and not archived either", j->plan.name);
    if (r->err == COX_OK && !t->stopping && !t->finished && !t->revived)
        fail(s, "%s is said to be cancelled, and that is not durable", j->plan.name);
}

void client_reply(struct sim *s, const struct cox_act_reply *r)
{
    if (operator_reply(s, r))
        return;
    struct job *j = &s->jobs[r->request / OP_NR];
    if (r->request % OP_NR == OP_WORD) {
        word_reply(s, j, r);
        return;
    }
    if (befalls(s, KIND_DROP, 40))
        return; /* lost on the way; the client's patience ends */
    if (r->request % OP_NR == OP_SUBMIT)
        submit_reply(s, j, r);
    else if (r->request % OP_NR == OP_FORK)
        fork_reply(s, j, r);
    else
        cancel_reply(s, j, r);
}

/* ---- reading ---- */

/* Rule 2. */
static void saw(struct sim *s, struct job *j, enum cox_task_status status)
{
    const struct audit_task *t = audit_task(s, j->task);
    event_cancel(s, &j->read_lost);
    if (j->seen != COX_TASK_NONE && j->seen != status && !t->revived)
        fail(s, "%s was seen %s and is now %s", j->plan.name, cox_task_status_text(j->seen),
             cox_task_status_text(status));
    if (!cox_task_status_final(status)) {
        event_at(s, &j->read, s->now_ns + between(s, SECOND, 10 * SECOND));
        return;
    }
    if ((!t->finished || t->status != status) && j->n_retries == 0 && !t->revived)
        fail(s, "%s is shown %s, and that is not durable", j->plan.name, cox_task_status_text(status));
    if (j->seen == COX_TASK_NONE && chance(s, 500)) /* and once more, later */
        event_at(s, &j->read, s->now_ns + between(s, 0, 30 * SECOND));
    j->seen = status;
    j->state = JOB_OVER;
    if (!s->healed && kind_on(s, KIND_DELETE) && chance(s, 150) && s->coxd.up) {
        struct message *m = message_new();
        message_add(m, ITEM_DELETE)->number = j->index;
        client_send(s, m);
    }
}

static bool in_use(const struct sim *s, cox_task_id task)
{
    for (uint32_t i = 0; i < s->n_jobs; i++) {
        const struct job *j = &s->jobs[i];
        if (j->task == task && j->n_words > 0)
            return true;
        if (j->state == JOB_ASKING && j->from != NULL && j->forked_from == task)
            return true;
    }
    return false;
}

/* As DeleteTask: ended tasks only, and none that is being retried or forked. What it had must have been
 * right. */
static void delete (struct sim *s, const struct job *j)
{
    struct audit_task *t = audit_task(s, j->task);
    if (t == NULL || t->deleted || !t->finished || !t->archived || in_use(s, j->task) ||
        cox_engine_find(s->coxd.engine, j->task) != NULL || cox_engine_asleep(s->coxd.engine, j->task) ||
        s->store.n_queue > 0 || s->store.durable_seq < cox_engine_seq(s->coxd.engine))
        return;
    trace(s, "client: deletes %s", ref_text((struct cox_ref){ .task = t->id }));
    verify_root(s, t);
    t->deleted = true;
    store_delete(s, t->id);
}

void client_holds_release(struct sim *s, uint64_t durable_seq)
{
    while (!cox_list_empty(&s->coxd.holds)) {
        struct hold *h = COX_CONTAINER_OF(s->coxd.holds.next, struct hold, node);
        if (h->seq > durable_seq)
            return;
        cox_list_remove(&h->node);
        saw(s, h->job, h->status);
        cox_free(h);
    }
}

static void hold(struct sim *s, struct job *j, enum cox_task_status status)
{
    struct hold *h = COX_NEW(struct hold);
    *h = (struct hold){ .seq = cox_engine_seq(s->coxd.engine), .job = j, .status = status };
    cox_list_push_back(&s->coxd.holds, &h->node);
}

static void get(struct sim *s, struct job *j)
{
    const struct cox_task *t = cox_engine_find(s->coxd.engine, j->task);
    struct cox_task_view view;
    if (t == NULL && cox_engine_asleep(s->coxd.engine, j->task)) {
        hold(s, j, COX_TASK_WAITING);
        return;
    }
    if (t == NULL) {
        struct state_op *op = COX_NEW(struct state_op);
        *op = (struct state_op){ .op = COX_STORE_READ_ARCHIVE, .reader = READER_CLIENT, .ticket = j->index };
        op->key = (struct cox_entity_key){ .kind = ROW_ARCHIVE, .id = j->task };
        bool taken = store_request(s, op);
        COX_ASSERT(taken);
        return;
    }
    cox_task_view(t, &view);
    for (uint32_t i = 0; i < view.image->n_steps; i++) { /* views of every moment are well-formed */
        struct cox_step_view step;
        struct cox_attempt_view at;
        cox_step_view(s->coxd.engine, t, i, &step);
        for (uint32_t k = 0; k < step.n_attempts; k++)
            cox_attempt_view(s->coxd.engine, t, i, k, &at);
    }
    hold(s, j, view.status);
}

/* Rule 10. */
void client_archived(struct sim *s, const struct state_op *op)
{
    struct job *j = &s->jobs[op->ticket];
    struct cox_task *t;
    struct cox_task_view view;
    if (audit_task(s, j->task)->deleted && op->err == COX_ERR_NOT_FOUND) {
        event_cancel(s, &j->read_lost);
        event_cancel(s, &j->word);
        j->state = JOB_OVER;
        return;
    }
    if (op->err != COX_OK)
        fail(s, "%s was acknowledged, and is in neither the engine nor the archive", j->plan.name);
    if (cox_task_thaw(cox_buf_slice(&op->bytes), &t) != COX_OK)
        fail(s, "%s cannot be read from the archive", j->plan.name);
    cox_task_view(t, &view);
    saw(s, j, view.status);
    cox_task_free(t);
    word_archived(s, j, cox_buf_slice(&op->bytes), view.status);
}

/* ---- coxd's side ---- */

void client_request(struct sim *s, const struct item *it)
{
    if (it->kind == ITEM_OPERATOR) {
        operator_request(s, it->number);
        return;
    }
    struct job *j = &s->jobs[it->number];
    struct cox_input in = { .kind = COX_IN_SUBMIT };
    bool forgotten;
    switch (it->kind) {
    case ITEM_SUBMIT:
        forgotten = s->opt.plant == PLANT_KEY && chance(s, 125);
        in.u.submit = (struct cox_in_submit){ .request = request_number(j, OP_SUBMIT),
                                              .tenant = cox_slice_str("default"),
                                              .key = cox_slice_str(forgotten ? "" : j->key),
                                              .document = j->hash,
                                              .image = cox_buf_slice(&j->image) };
        break;
    case ITEM_STOP:
        in.kind = COX_IN_CANCEL;
        in.u.cancel.request = request_number(j, OP_CANCEL);
        in.u.cancel.task = j->task;
        in.u.cancel.reason = cox_slice_str(j->index % 2 == 0 ? "enough of it" : "");
        trace(s, "client: cancels %s", j->plan.name);
        break;
    case ITEM_WORD:
        word_request(s, j);
        return;
    case ITEM_DELETE:
        delete (s, j);
        return;
    default:
        if (j->watched) {
            in.kind = chance(s, 500) ? COX_IN_WATCH : COX_IN_UNWATCH;
            in.u.task.task = j->task;
            coxd_step(s, &in);
        }
        get(s, j);
        return;
    }
    coxd_step(s, &in);
}

void clients_coxd_gone(struct sim *s)
{
    while (!cox_list_empty(&s->coxd.holds)) {
        struct hold *h = COX_CONTAINER_OF(s->coxd.holds.next, struct hold, node);
        cox_list_remove(&h->node);
        cox_free(h);
    }
    for (uint32_t i = 0; i < s->n_jobs; i++) { /* a broken connection is noticed sooner than silence */
        s->jobs[i].n_words = 0;
        struct event *lost[] = { &s->jobs[i].submit_lost, &s->jobs[i].cancel_lost, &s->jobs[i].read_lost };
        for (size_t k = 0; k < 3; k++)
            if (cox_heap_has(&lost[k]->node))
                event_soon(s, lost[k], s->now_ns + between(s, 0, SECOND));
    }
}

/* ---- life ---- */

static void compile(struct sim *s, struct job *j)
{
    json_t *doc = plan_document(&j->plan);
    char *text = json_dumps(doc, JSON_COMPACT);
    struct cox_task_source source = { .document = cox_slice_str(text) };
    struct cox_violations v = { 0 };
    if (cox_task_compile(&source, &j->image, &v) != COX_OK)
        fail(s, "a drawn document does not compile: %s: %s", v.items[0].path, v.items[0].message);
    cox_violations_fini(&v);
    j->hash = payload_hash(source.document);
    if (s->opt.trace_all && j->plan.scene != NULL)
        fprintf(stderr, "%s: %s\n", j->plan.name, text);
    free(text);
    json_decref(doc);
}

static void init_events(struct job *j)
{
    event_init(&j->submit, submit);
    event_init(&j->cancel, cancel);
    event_init(&j->read, look);
    event_init(&j->submit_lost, submit_lost);
    event_init(&j->cancel_lost, cancel_lost);
    event_init(&j->read_lost, read_lost);
    word_init(j);
}

/* One more client for a task that is made of that job's document. */
static struct job *client_of(struct sim *s, struct job *from)
{
    struct job *j = &s->jobs[s->n_jobs];
    if (s->n_jobs == s->cap_jobs)
        fail(s, "there are too many clients");
    j->index = s->n_jobs++;
    j->plan = from->plan;
    j->from = from->from != NULL ? from->from : from;
    init_events(j);
    return j;
}

struct job *client_fork(struct sim *s, struct job *from)
{
    if (s->n_jobs >= s->cap_jobs / 2 || s->healed || !kind_on(s, KIND_FORK))
        return NULL;
    befell(s, KIND_FORK);
    struct job *j = client_of(s, from);
    snprintf(j->key, sizeof j->key, "f%u", j->index);
    j->state = JOB_ASKING;
    event_at(s, &j->submit_lost, s->now_ns + PATIENCE_NS);
    return j;
}

/* Which client it is, and of which document. What it is does not depend on how many there are. */
static uint32_t draw_client(struct sim *s, struct job *j, uint32_t i)
{
    uint32_t number = i;
    if (i > 0 && chance(s, 120)) { /* another client with the same key, and perhaps another document */
        if (s->jobs[i - 1].key[0] == 0)
            snprintf(s->jobs[i - 1].key, sizeof j->key, "k%u", i - 1);
        memcpy(j->key, s->jobs[i - 1].key, sizeof j->key);
        if (chance(s, 600))
            sscanf(s->jobs[i - 1].plan.name, "j%u", &number);
    } else if (chance(s, 500)) {
        snprintf(j->key, sizeof j->key, "k%u", i);
    }
    j->wants_cancel = chance(s, 120) && kind_on(s, KIND_CANCEL);
    j->watched = chance(s, 300);
    event_at(s, &j->submit, between(s, 0, s->cfg.load_ns));
    return number;
}

static bool skipped(const struct sim *s, uint32_t i)
{
    return i < 64 * sizeof s->opt.skip / sizeof s->opt.skip[0] && (s->opt.skip[i / 64] >> i % 64 & 1) != 0;
}

static void draw_job(struct sim *s, struct job *j, uint32_t i)
{
    struct cox_rng rng;
    uint64_t parts[3] = { s->opt.seed, 2, i };
    j->index = i;
    init_events(j);
    cox_rng_init(&rng, cox_hash64(parts, sizeof parts));
    s->chance = &rng;
    uint32_t number = draw_client(s, j, i);
    s->chance = &s->rng;
    cox_rng_init(&rng, s->opt.seed * 1000003 + number);
    plan_draw(&j->plan, &rng, number, s->opt.n_steps_max);
    if (cox_rng_below(&rng, 1000) < s->cfg.scenes) {
        befell(s, KIND_SCENE);
        j->plan.scene = COX_NEW(struct scene);
        scene_draw(j->plan.scene, j->plan.name, &rng, s->opt.n_steps_max);
    }
    compile(s, j);
    if (!skipped(s, i))
        return;
    event_cancel(s, &j->submit);
    j->state = JOB_REFUSED;
}

void clients_init(struct sim *s)
{
    s->cap_jobs = 4 * s->n_jobs; /* forks take as many again */
    s->jobs = cox_calloc(s->cap_jobs, sizeof s->jobs[0]);
    cox_list_init(&s->letters);
    for (uint32_t i = 0; i < s->n_jobs; i++)
        draw_job(s, &s->jobs[i], i);
}

void clients_fini(struct sim *s)
{
    while (!cox_list_empty(&s->letters))
        letter_free(s, COX_CONTAINER_OF(s->letters.next, struct letter, node));
    for (uint32_t i = 0; i < s->n_jobs; i++) {
        if (s->jobs[i].from == NULL)
            plan_fini(&s->jobs[i].plan);
        cox_buf_fini(&s->jobs[i].image);
    }
    cox_free(s->jobs);
}

bool clients_settled(const struct sim *s)
{
    for (uint32_t i = 0; i < s->n_jobs; i++) {
        const struct job *j = &s->jobs[i];
        if (j->state != JOB_OVER && j->state != JOB_REFUSED && j->state != JOB_UNKNOWN)
            return false;
        if (j->n_words > 0)
            return false;
        if (cox_heap_has(&j->cancel.node) || cox_heap_has(&j->cancel_lost.node) ||
            cox_heap_has(&j->read.node) || cox_heap_has(&j->read_lost.node))
            return false;
    }
    return true;
}
