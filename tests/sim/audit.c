/* The first judge: reads the log as it becomes durable, with a few counters of its own, and says what no
 * history may contain. The second half looks at decisions when they are taken, and at actions when they
 * leave: what leaves must be in the durable log already. */
#include "audit.h"

#include <string.h>

/* What a worker said of an attempt, once or more. */
struct said {
    uint32_t n;
    struct {
        enum cox_attempt_status status;
        enum cox_code code;
        uint64_t output;
    } items[8];
};

/* ---- small things ---- */

struct audit_task *audit_task(const struct sim *s, cox_task_id id)
{
    return cox_map64_get(&s->audit.tasks, id);
}

struct audit_worker *audit_worker(const struct sim *s, uint32_t ref)
{
    struct audit_worker *list = (struct audit_worker *)(void *)s->audit.names.data;
    size_t n = s->audit.names.len / sizeof *list;
    return ref > 0 && ref <= n ? &list[ref - 1] : NULL;
}

static struct host *host_named(const struct sim *s, struct cox_slice id)
{
    for (uint32_t i = 0; i < s->n_hosts; i++)
        if (cox_slice_is(id, s->hosts[i].id))
            return &s->hosts[i];
    return NULL;
}

struct cox_image_class audit_class(const struct audit_task *t, uint32_t step)
{
    struct cox_image_step doc;
    struct cox_image_call call;
    struct cox_image_class cls;
    cox_image_step(&t->image, step, &doc);
    cox_image_call(&t->image, t->steps[step].in_fallback ? doc.fallback : doc.call, &call);
    cox_image_class(&t->image, call.class_index, &cls);
    return cls;
}

/* Rule 8. */
void audit_occupy(struct sim *s, struct audit_worker *w, const struct cox_resources *r, int sign)
{
    w->used.cpu_milli += sign * r->cpu_milli;
    w->used.memory_bytes += sign * r->memory_bytes;
    if (w->used.cpu_milli > w->host->resources.cpu_milli ||
        w->used.memory_bytes > w->host->resources.memory_bytes)
        fail(s, "%s is given more than it has", w->host->id);
}

/* Rule 5. */
void audit_token_follows(struct sim *s, struct cox_token token)
{
    struct audit *a = &s->audit;
    if (token.epoch != a->epoch || token.counter == 0 ||
        (token.epoch == a->last_token.epoch && token.counter <= a->last_token.counter))
        fail(s, "token %llu.%llu does not follow %llu.%llu in epoch %llu", (unsigned long long)token.epoch,
             (unsigned long long)token.counter, (unsigned long long)a->last_token.epoch,
             (unsigned long long)a->last_token.counter, (unsigned long long)a->epoch);
    a->last_token = token;
}

/* ---- pinned versions ---- */

/* Frames over a range of their parent's image share its pins. */
static const struct audit_task *image_owner(const struct audit_task *t)
{
    while (t->parent != NULL && t->image.bytes.data == t->parent->image.bytes.data)
        t = t->parent;
    return t;
}

void audit_pinned(struct sim *s, struct audit_task *t, const struct record *r)
{
    uint32_t cls = r->u.pinned.class_index;
    struct cox_image_class cls_of;
    const char *is = NULL;
    if (cls >= t->image.n_classes)
        fail(s, "%s is pinned where it has no program", t->job->plan.name);
    cox_image_class(&t->image, cls, &cls_of);
    for (uint32_t i = 0; i < s->n_hosts; i++)
        if (cox_slice_is(r->u.pinned.version, host_version(s, &s->hosts[i], cls_of.handler)))
            is = host_version(s, &s->hosts[i], cls_of.handler);
    if (is == NULL || *is == 0)
        fail(s, "%s is pinned to a version that nobody has", t->job->plan.name);
    if (t->pins == NULL)
        t->pins = cox_calloc(t->image.n_classes, sizeof t->pins[0]);
    if (t->pins[cls] != NULL)
        fail(s, "%s is pinned to a version twice", t->job->plan.name);
    t->pins[cls] = is;
    befell(s, KIND_VERSION);
}

void audit_version(struct sim *s, const struct audit_task *t, uint32_t step, const struct audit_worker *w)
{
    struct cox_image_step doc;
    struct cox_image_call call;
    const struct audit_task *owner = image_owner(t);
    cox_image_step(&t->image, step, &doc);
    cox_image_call(&t->image, t->steps[step].in_fallback ? doc.fallback : doc.call, &call);
    const char *pin = owner->pins != NULL ? owner->pins[call.class_index] : NULL;
    const char *has = host_version(s, w->host, audit_class(t, step).handler);
    if (pin != NULL && strcmp(pin, has) != 0)
        fail(s, "%s/%u is pinned to version %s, and goes to %s, which has %s", t->job->plan.name, step, pin,
             w->host->id, has);
}

static bool step_final(const struct audit_step *st)
{
    return cox_step_status_final((enum cox_step_status)st->status);
}

static void dependencies_over(struct sim *s, const struct audit_task *t, uint32_t step, const char *what)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    for (uint32_t i = 0; i < doc.n_needs; i++)
        if (!step_final(&t->steps[cox_image_need(&t->image, step, i)]))
            fail(s, "%s/%u is %s while its dependency %u is not over", t->job->plan.name, step, what,
                 cox_image_need(&t->image, step, i));
}

/* ---- what workers said ---- */

static struct cox_slice ref_key(struct cox_ref ref, uint64_t item, uint64_t parts[5])
{
    parts[4] = item;
    parts[0] = ref.task;
    parts[1] = ref.step;
    parts[2] = ref.token.epoch;
    parts[3] = ref.token.counter;
    return cox_slice(parts, 5 * sizeof parts[0]);
}

uint64_t audit_value_id(struct cox_slice bytes)
{
    uint64_t id;
    struct cox_hash hash = payload_hash(bytes);
    memcpy(&id, hash.b, sizeof id);
    return bytes.len == 0 ? 0 : id;
}

uint64_t audit_payload_id(const struct cox_payload *p)
{
    uint64_t id;
    if (p->kind != COX_PAYLOAD_STORED)
        return audit_value_id(p->bytes);
    memcpy(&id, p->hash.b, sizeof id);
    return id;
}

#define NO_ITEM UINT64_MAX

static void note_said(struct sim *s, struct cox_ref ref, uint64_t item, enum cox_attempt_status status,
                      enum cox_code code, uint64_t output)
{
    uint64_t parts[5];
    struct cox_slice key = ref_key(ref, item, parts);
    struct said *said = cox_mapb_get(&s->audit.results, key);
    if (said == NULL) {
        said = COX_NEW(struct said);
        cox_mapb_set(&s->audit.results, key, said);
    }
    for (uint32_t i = 0; i < said->n; i++)
        if (said->items[i].status == status && said->items[i].code == code && said->items[i].output == output)
            return;
    if (said->n == sizeof said->items / sizeof said->items[0])
        fail(s, "too many different results of %s", ref_text(ref));
    said->items[said->n].status = status;
    said->items[said->n].code = code;
    said->items[said->n++].output = output;
}

void audit_result(struct sim *s, struct cox_ref ref, const struct cox_agent_result *r)
{
    bool asks = r->continuation_json.len > 0;
    note_said(s, ref, NO_ITEM, r->status, r->code, audit_value_id(asks ? r->continuation_json : r->output));
    for (size_t i = 0; i < r->n_items; i++)
        note_said(s, ref, r->items[i].index, r->items[i].status, r->items[i].code,
                  audit_value_id(r->items[i].output));
}

void audit_item_was_said(struct sim *s, struct cox_ref ref, const struct record_item *item)
{
    uint64_t parts[5];
    const struct said *said = cox_mapb_get(&s->audit.results, ref_key(ref, item->index, parts));
    for (uint32_t i = 0; said != NULL && i < said->n; i++)
        if (said->items[i].status == COX_ATTEMPT_SUCCEEDED &&
            said->items[i].output == audit_value_id(item->output))
            return;
    fail(s, "%s: item %u is recorded as done, which its worker never said", ref_text(ref), item->index);
}

/* What the log says a worker said, it has said, of this very attempt. (rule 6) */
void audit_was_said(struct sim *s, struct cox_ref ref, const struct record_ended *en)
{
    uint64_t parts[5];
    const struct said *said = cox_mapb_get(&s->audit.results, ref_key(ref, NO_ITEM, parts));
    bool keeps_output = en->next == NEXT_DONE || en->next == NEXT_FAIL || en->next == NEXT_CONTINUE;
    for (uint32_t i = 0; said != NULL && i < said->n; i++)
        if (said->items[i].status == en->status && said->items[i].code == en->code &&
            (!keeps_output || said->items[i].output == audit_payload_id(&en->output)))
            return;
    fail(s, "%s is recorded as %s, which its worker never said of it", ref_text(ref),
         cox_attempt_status_text(en->status));
}

/* ---- the durable log ---- */

static struct job *job_named(const struct sim *s, struct cox_slice name)
{
    for (uint32_t i = 0; i < s->n_jobs; i++)
        if (cox_slice_is(name, s->jobs[i].plan.name))
            return &s->jobs[i];
    return cox_slice_is(name, s->operator.scheduled.plan.name) ? (struct job *)&s->operator.scheduled : NULL;
}

struct audit_task *audit_task_new(struct sim *s, cox_task_id id, struct job *job,
                                  const struct cox_image *image, int64_t wall_ms)
{
    struct audit *a = &s->audit;
    struct audit_task *t = COX_NEW(struct audit_task);
    *t = (struct audit_task){ .id = id, .job = job, .image = *image, .root = t };
    t->created_wall_ms = t->accepted_wall_ms = wall_ms;
    t->n_members = t->image.n_steps;
    t->steps = cox_calloc(t->image.n_steps, sizeof t->steps[0]);
    for (uint32_t i = 0; i < t->image.n_steps; i++)
        t->steps[i].status = COX_STEP_BLOCKED;
    cox_map64_set(&a->tasks, t->id, t);
    if (a->n == a->cap) {
        a->cap = a->cap == 0 ? 64 : a->cap * 2;
        a->list = cox_realloc(a->list, a->cap, sizeof a->list[0]);
    }
    a->list[a->n++] = t;
    s->n.tasks++;
    return t;
}

/* A key, as its client sends it, names one task until it expires. Frames are of their task's job. */
void audit_key(struct sim *s, const struct job *j)
{
    for (size_t i = 0; i < s->audit.n && j->key[0] != 0; i++) {
        const struct audit_task *t = s->audit.list[i];
        if (t->parent == NULL && !t->key_expired && strcmp(j->key, t->job->key) == 0)
            fail(s, "two tasks are accepted under the key %s", j->key);
    }
}

/* Not before a day has passed on the clock that the driver is told. */
static void key_expired(struct sim *s, struct audit_task *t)
{
    if (t->parent != NULL || t->key_expired || t->job->key[0] == 0)
        fail(s, "%s has no key that could expire", t->job->plan.name);
    if (s->audit.wall_ms - t->accepted_wall_ms < COX_IDEMPOTENCY_HOLD_MS)
        fail(s, "the key %s expires before a day is over", t->job->key);
    t->key_expired = true;
}

static void submitted(struct sim *s, const struct record *r)
{
    struct cox_image image;
    struct cox_image_task doc;
    if (audit_task(s, r->task) != NULL)
        fail(s, "a task id is given twice");
    if (cox_image_open(&image, r->u.submitted.image) != COX_OK)
        fail(s, "the log holds a damaged image");
    cox_image_task(&image, &doc);
    struct job *job = job_named(s, doc.name);
    if (job == NULL)
        fail(s, "the log holds a task nobody submitted");
    if ((job == &s->operator.scheduled) != (r->u.submitted.schedule.len > 0))
        fail(s, "a task is of a schedule, or is not, against what is so");
    audit_key(s, job);
    audit_task_new(s, r->task, job, &image, r->wall_ms);
}

static void assigned(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    struct audit_worker *w = audit_worker(s, r->u.assigned.worker);
    struct cox_token token = r->u.assigned.token;
    if (w == NULL)
        fail(s, "%s/%u is assigned to a worker without a name", t->job->plan.name, r->step);
    if (step_final(st) || st->status == COX_STEP_RUNNING)
        fail(s, "%s/%u is assigned while %s", t->job->plan.name, r->step,
             cox_step_status_text((enum cox_step_status)st->status));
    audit_token_follows(s, token);
    dependencies_over(s, t, r->step, "assigned");
    if (r->wall_ms < st->ready_wall_ms && s->cfg.mean_ms[KIND_CLOCK_JUMP] == 0)
        fail(s, "%s/%u is assigned %lld ms before its backoff is over", t->job->plan.name, r->step,
             (long long)(st->ready_wall_ms - r->wall_ms));
    struct cox_image_class cls = audit_class(t, r->step);
    audit_version(s, t, r->step, w);
    audit_occupy(s, w, &cls.resources, 1);
    st->status = COX_STEP_RUNNING;
    st->token = token;
    st->worker = r->u.assigned.worker;
    st->n_attempts++;
}

/* Rule 6. */
static void leaves_worker(struct sim *s, struct audit_task *t, const struct record *r, struct cox_token token)
{
    struct audit_step *st = &t->steps[r->step];
    if (st->status != COX_STEP_RUNNING || !cox_token_eq(st->token, token))
        fail(s, "%s/%u: the attempt %llu.%llu ends, which is not the current one", t->job->plan.name, r->step,
             (unsigned long long)token.epoch, (unsigned long long)token.counter);
    struct cox_image_class cls = audit_class(t, r->step);
    audit_occupy(s, audit_worker(s, st->worker), &cls.resources, -1);
}

static void note_attempt(struct audit_step *st, enum cox_attempt_status status, enum cox_code code)
{
    if (st->n == st->cap) {
        st->cap = st->cap == 0 ? 2 : st->cap * 2;
        st->attempts = cox_realloc(st->attempts, st->cap, sizeof st->attempts[0]);
    }
    st->attempts[st->n++] =
        (struct audit_attempt){ st->n_attempts, (uint8_t)status, (uint8_t)code, st->in_fallback };
}

/* The wait before a retry: between half of what the plan says and all of it. */
static void backs_off(struct sim *s, const struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    struct cox_image_step doc;
    struct cox_image_call call;
    cox_image_step(&t->image, r->step, &doc);
    cox_image_call(&t->image, st->in_fallback ? doc.fallback : doc.call, &call);
    int64_t wait_ms = r->u.ended.retry_wall_ms - r->wall_ms, min_ms = call.initial_backoff_ms / 2;
    if (wait_ms < (min_ms < call.max_backoff_ms / 2 ? min_ms : call.max_backoff_ms / 2) ||
        wait_ms > call.max_backoff_ms)
        fail(s, "%s/%u backs off for %lld ms", t->job->plan.name, r->step, (long long)wait_ms);
    st->ready_wall_ms = r->u.ended.retry_wall_ms;
}

static void ended(struct sim *s, struct audit_task *t, const struct record *r)
{
    static const enum cox_step_status after[] = {
        [NEXT_DONE] = COX_STEP_SUCCEEDED, [NEXT_RETRY] = COX_STEP_READY, [NEXT_REQUEUE] = COX_STEP_READY,
        [NEXT_FALLBACK] = COX_STEP_READY, [NEXT_FAIL] = COX_STEP_FAILED, [NEXT_CANCEL] = COX_STEP_CANCELLED,
    };
    const struct record_ended *en = &r->u.ended;
    struct audit_step *st = &t->steps[r->step];
    leaves_worker(s, t, r, en->token);
    if (cox_slice_is(audit_class(t, r->step).handler, "model"))
        audit_call_ended(s, t, r);
    if (en->status == COX_ATTEMPT_SUCCEEDED || (en->status == COX_ATTEMPT_FAILED))
        audit_was_said(s, (struct cox_ref){ r->task, r->step, en->token }, en);
    if ((en->status == COX_ATTEMPT_SUCCEEDED) != (en->next == NEXT_DONE))
        fail(s, "%s/%u: success and the step's end disagree", t->job->plan.name, r->step);
    if (en->token.epoch < s->audit.epoch)
        s->n.adopted++;
    note_attempt(st, en->status, en->code);
    st->ready_wall_ms = 0;
    if (en->next == NEXT_RETRY)
        backs_off(s, t, r);
    st->status = (uint8_t)after[en->next];
    st->in_fallback = st->in_fallback || en->next == NEXT_FALLBACK;
    s->audit.n_ended++;
    s->audit.n_lost += en->status == COX_ATTEMPT_LOST;
}

static bool failed_fast(const struct audit_task *t)
{
    bool failed = false;
    for (uint32_t i = 0; i < t->image.n_steps; i++) {
        struct cox_image_step doc;
        cox_image_step(&t->image, i, &doc);
        failed = failed || (t->steps[i].status == COX_STEP_FAILED && !doc.allow_failure);
    }
    return failed && t->job->plan.fail_fast;
}

static void stopping(struct sim *s, struct audit_task *t, const struct record *r)
{
    int64_t deadline_ms = t->job->plan.deadline_ms;
    t->stopping = true;
    t->late = deadline_ms > 0 && r->wall_ms - t->created_wall_ms >= deadline_ms;
    if (r->u.stopping.into == COX_TASK_FAILED && !t->late && !failed_fast(t))
        fail(s, "%s is stopped without need", t->job->plan.name);
    for (uint32_t i = 0; i < t->image.n_steps; i++)
        if (!step_final(&t->steps[i]) && t->steps[i].status != COX_STEP_RUNNING)
            t->steps[i].status = COX_STEP_CANCELLED;
}

static void task_finished(struct sim *s, struct audit_task *t, const struct record *r)
{
    for (uint32_t i = 0; i < t->image.n_steps; i++)
        if (!step_final(&t->steps[i]))
            fail(s, "%s is over, and its step %u is not", t->job->plan.name, i);
    if (t->finished)
        fail(s, "%s is over twice", t->job->plan.name);
    if (!s->opt.faults && t->job->plan.deadline_ms > 0 && !t->stopping &&
        r->wall_ms - t->created_wall_ms > (int64_t)t->job->plan.deadline_ms + 30000)
        fail(s, "%s is over long after its deadline", t->job->plan.name);
    t->finished = true;
    t->status = r->u.finished.status;
    trace(s, "audit: %s is %s", t->job->plan.name, cox_task_status_text(t->status));
}

static void step_record(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    if (step_final(st))
        fail(s, "%s/%u is over, and goes on", t->job->plan.name, r->step);
    if (t->stopping && r->type != RECORD_ATTEMPT_ENDED)
        fail(s, "%s stops, and its step %u goes on", t->job->plan.name, r->step);
    switch (r->type) {
    case RECORD_STEP_OPENED:
        dependencies_over(s, t, r->step, "opened");
        break;
    case RECORD_STEP_SKIPPED:
        dependencies_over(s, t, r->step, "skipped");
        st->status = COX_STEP_SKIPPED;
        break;
    case RECORD_STEP_REFUSED:
        dependencies_over(s, t, r->step, "refused");
        st->in_fallback = r->u.refused.next == NEXT_FALLBACK;
        st->status = r->u.refused.next == NEXT_FALLBACK ? COX_STEP_READY : COX_STEP_FAILED;
        break;
    case RECORD_ASSIGNED:
        assigned(s, t, r);
        break;
    case RECORD_ATTEMPT_ENDED:
        ended(s, t, r);
        break;
    case RECORD_UNASSIGNED:
        leaves_worker(s, t, r, r->u.unassigned.token);
        st->status = COX_STEP_READY;
        if (r->u.unassigned.returned)
            st->n_attempts--;
        else
            note_attempt(st, COX_ATTEMPT_LOST, COX_CODE_NONE);
        break;
    default:
        break;
    }
}

static void task_record(struct sim *s, const struct record *r)
{
    struct audit_task *t = audit_task(s, r->task);
    if (t == NULL)
        fail(s, "record type %d is of a task that was never submitted", (int)r->type);
    if (r->type == RECORD_KEY_EXPIRED) {
        key_expired(s, t);
        return;
    }
    if (t->job->plan.scene != NULL) {
        scene_record(s, t, r);
        return;
    }
    if (r->type == RECORD_TASK_ARCHIVED) {
        if (!t->finished)
            fail(s, "%s is archived before it is over", t->job->plan.name);
        t->archived = true;
        return;
    }
    if (t->finished)
        fail(s, "%s is over, and goes on with record type %d", t->job->plan.name, (int)r->type);
    if (r->type == RECORD_PINNED)
        audit_pinned(s, t, r);
    else if (r->type == RECORD_TASK_STOPPING)
        stopping(s, t, r);
    else if (r->type == RECORD_TASK_FINISHED)
        task_finished(s, t, r);
    else
        step_record(s, t, r);
}

static void record(struct sim *s, const struct record *r)
{
    struct audit_worker w = { 0 };
    switch (r->type) {
    case RECORD_EPOCH:
        if (r->u.epoch != s->audit.epoch + 1)
            fail(s, "epoch %llu follows %llu", (unsigned long long)r->u.epoch,
                 (unsigned long long)s->audit.epoch);
        s->audit.epoch = r->u.epoch;
        break;
    case RECORD_WORKER_NAMED:
        w.host = host_named(s, r->u.worker.id);
        if (w.host == NULL || r->u.worker.ref != s->audit.names.len / sizeof w + 1)
            fail(s, "a worker is named wrongly");
        cox_buf_append(&s->audit.names, &w, sizeof w);
        break;
    case RECORD_PAYLOAD:
        if (r->u.payload.bytes.len > 0 && audit_value_id(r->u.payload.bytes) !=
                                              audit_payload_id(&(struct cox_payload){
                                                  .kind = COX_PAYLOAD_STORED, .hash = r->u.payload.hash }))
            fail(s, "a payload in the log is not what its hash says");
        break;
    case RECORD_TASK_SUBMITTED:
        submitted(s, r);
        break;
    case RECORD_FRAME_OPENED:
        scene_frame_opened(s, r);
        break;
    case RECORD_TASK_FORKED:
        scene_forked(s, r);
        break;
    case RECORD_POLICY:
    case RECORD_TEMPLATE_APPLIED:
    case RECORD_TEMPLATE_DROPPED:
    case RECORD_SCHEDULE_APPLIED:
    case RECORD_SCHEDULE_DELETED:
        break;
    case RECORD_USAGE:
        audit_usage(s, r);
        break;
    case RECORD_WORKSPACE:
        break;
    case RECORD_SCHEDULE_RAN:
        s->n.scheduled += r->u.ran.made != 0;
        break;
    default:
        task_record(s, r);
    }
}

/* Rule 3. */
void audit_batch(struct sim *s, const struct batch *b)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&b->records));
    struct record r;
    uint32_t n = 0;
    if (b->first_seq != s->audit.seq + 1)
        fail(s, "record %llu is durable after %llu: what was durable is not any more",
             (unsigned long long)b->first_seq, (unsigned long long)s->audit.seq);
    for (; record_decode(&in, &r); n++)
        record(s, &r);
    if (in.bad || n != b->n)
        fail(s, "the batch at %llu cannot be read", (unsigned long long)b->first_seq);
    s->audit.seq = b->first_seq + b->n - 1;
}

/* ---- decisions, as they are taken ---- */

static bool inbox_has(const struct sim *s, const struct stream *st)
{
    COX_LIST_FOR_EACH (it, &s->coxd.inbox)
        if (COX_CONTAINER_OF(it, struct message, node)->stream == st)
            return true;
    return false;
}

/* A worker that beats and runs the step keeps it; and for a while after a recovery, any worker. (rule 7) */
static void check_lost(struct sim *s, const struct record *r)
{
    struct cox_ref ref = { r->task, r->step, r->u.ended.token };
    const struct audit_task *t = audit_task(s, r->task);
    const struct audit_worker *w = t != NULL ? audit_worker(s, t->steps[r->step].worker) : NULL;
    if (w != NULL && cox_token_eq(t->steps[r->step].token, ref.token) &&
        w->host->known_to != s->coxd.incarnation && s->now_ns - s->coxd.recovered_ns < COX_ADOPTION_MS * MS)
        fail(s, "%s is said to have lost %s, and had no time to come back", w->host->id, ref_text(ref));
    for (uint32_t i = 0; i < s->n_hosts; i++) {
        const struct host *h = &s->hosts[i];
        const struct stream *st = h->stream;
        if (!host_holds(h, ref) || st == NULL || !st->attached || st->coxd_over)
            continue;
        if (s->now_ns - st->heard_ns < COX_LOST_MS * MS || inbox_has(s, st))
            fail(s, "%s runs %s and beats, and yet is said to have lost it", h->id, ref_text(ref));
    }
}

/* Nothing that was told to stop runs on where it could have been told. (rule 8) */
static void check_cancelled(struct sim *s, const struct record *r)
{
    struct cox_ref ref = { r->task, r->step, r->u.ended.token };
    for (uint32_t i = 0; i < s->n_hosts; i++) {
        const struct host *h = &s->hosts[i];
        const struct stream *st = h->stream;
        if (host_holds(h, ref) && st != NULL && st->attached && !st->coxd_over && !st->broken &&
            s->now_ns - st->attached_ns > COX_START_LIMIT_MS * MS && h->paused_until_ns == 0 &&
            h->cut_off_until_ns == 0 && s->now_ns - s->coxd.recovered_ns > COX_START_LIMIT_MS * MS)
            fail(s, "%s runs %s, which was to stop and is said to have", h->id, ref_text(ref));
    }
}

/* Rule 7. */
static void check_withdrawn(struct sim *s, const struct record *r)
{
    struct cox_ref ref = { r->task, r->step, r->u.unassigned.token };
    const struct item *hello = s->coxd.hello;
    if (r->u.unassigned.returned)
        return;
    if (hello != NULL && s->coxd.hello_reboots)
        fail(s, "%s went down with its worker, and the loss is not charged", ref_text(ref));
    for (size_t i = 0; hello != NULL && i < hello->n_holds; i++)
        if (cox_ref_eq(hello->holds[i], ref))
            fail(s, "%s is taken from a worker whose Hello lists it", ref_text(ref));
}

void audit_watch(struct sim *s, struct cox_slice records)
{
    struct cox_reader in = cox_reader(records);
    struct record r;
    if (s->coxd.wall_ms > s->audit.wall_ms)
        s->audit.wall_ms = s->coxd.wall_ms;
    while (record_decode(&in, &r)) {
        if (r.type == RECORD_ATTEMPT_ENDED && r.u.ended.status == COX_ATTEMPT_LOST)
            check_lost(s, &r);
        else if (r.type == RECORD_ATTEMPT_ENDED && r.u.ended.status == COX_ATTEMPT_CANCELLED)
            check_cancelled(s, &r);
        else if (r.type == RECORD_UNASSIGNED)
            check_withdrawn(s, &r);
    }
}

/* ---- actions, as they leave ---- */

/* Rules 2 and 5. */
static void assign_leaves(struct sim *s, const struct cox_act_assign *a)
{
    const struct audit_task *t = audit_task(s, a->ref.task);
    const struct stream *st = session_find(s, a->session);
    if (t == NULL)
        fail(s, "%s leaves before its task is durable", ref_text(a->ref));
    if (t->job->plan.scene != NULL) {
        scene_assign_leaves(s, t, a);
        return;
    }
    const struct audit_step *step = &t->steps[a->ref.step];
    const struct cox_token *now = &step->token;
    if (now->epoch < a->ref.token.epoch ||
        (now->epoch == a->ref.token.epoch && now->counter < a->ref.token.counter))
        fail(s, "%s leaves before its assignment is durable", ref_text(a->ref));
    if (st == NULL || !cox_token_eq(*now, a->ref.token))
        return;
    struct cox_image_class cls = audit_class(t, a->ref.step);
    if (audit_worker(s, step->worker)->host != st->host)
        fail(s, "%s goes to %s, and another worker is on record", ref_text(a->ref), st->host->id);
    bool model = cox_slice_is(cls.handler, "model"); /* every host plays the router */
    if (!cox_slice_eq(cls.handler, a->handler) ||
        (!model && cls.handler.data[4] - '0' > (int)st->host->n_handlers))
        fail(s, "%s goes to %s, which has no such handler", ref_text(a->ref), st->host->id);
}

/* Rules 2 and 6. */
static void answer_leaves(struct sim *s, struct cox_ref ref, enum cox_answer answer)
{
    const struct audit_task *t = audit_task(s, ref.task);
    if (t == NULL)
        fail(s, "%s is answered, and its task is not durable", ref_text(ref));
    if (t->job->plan.scene != NULL) {
        scene_answer_leaves(s, t, ref, answer);
        return;
    }
    const struct audit_step *st = &t->steps[ref.step];
    bool last = cox_token_eq(st->token, ref.token);
    if (answer == COX_ANSWER_ACCEPTED && last && st->status == COX_STEP_RUNNING)
        fail(s, "%s is answered accepted, and that is not durable", ref_text(ref));
    if (answer != COX_ANSWER_ACCEPTED && last && st->status == COX_STEP_RUNNING)
        fail(s, "%s is the current attempt, and its result is refused", ref_text(ref));
}

void audit_action(struct sim *s, const struct cox_action *a)
{
    if (a->kind == COX_ACT_ASSIGN)
        assign_leaves(s, &a->u.assign);
    else if (a->kind == COX_ACT_ANSWER)
        answer_leaves(s, a->u.attempt.ref, a->u.attempt.answer);
}

void audit_fini(struct sim *s)
{
    audit_charges_fini(s);
    struct audit *a = &s->audit;
    size_t it = 0;
    struct cox_slice key;
    void *said;
    for (size_t i = 0; i < a->n; i++) {
        for (uint32_t k = 0; k < a->list[i]->image.n_steps; k++)
            cox_free(a->list[i]->steps[k].attempts);
        scene_task_fini(a->list[i]);
        cox_free(a->list[i]->steps);
        cox_free(a->list[i]->pins);
        cox_free(a->list[i]);
    }
    while (cox_mapb_next(&a->results, &it, &key, &said))
        cox_free(said);
    cox_free(a->list);
    cox_map64_fini(&a->tasks);
    cox_mapb_fini(&a->results);
    cox_buf_fini(&a->names);
}
