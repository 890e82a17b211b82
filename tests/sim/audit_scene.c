/* The first judge, for tasks of steps that no slot runs: frames, races, waits, maps, words, sleep. */
#include "audit.h"

#include <stdio.h>
#include <string.h>

enum { ITEM_FREE, ITEM_GIVEN, ITEM_WELL, ITEM_ILL };

static const char *name_of(const struct audit_task *t)
{
    return t->job->plan.name;
}

static bool is_final(const struct audit_step *st)
{
    return cox_step_status_final((enum cox_step_status)st->status);
}

static bool is_member(const struct audit_task *t, uint32_t step)
{
    struct cox_image_step doc;
    if (step < t->first || step >= t->first + t->n_members)
        return false;
    for (cox_image_step(&t->image, step, &doc); doc.owner != COX_IMAGE_NONE && step != t->first;) {
        step = doc.owner;
        if (step < t->first)
            return false;
        cox_image_step(&t->image, step, &doc);
        if (doc.map != COX_IMAGE_NONE)
            return false; /* of the map's frames */
    }
    return true;
}

const struct scene_step *scene_step(const struct audit_task *t, uint32_t step)
{
    struct cox_image_step doc;
    if (t->parent != NULL)
        return NULL;
    cox_image_step(&t->image, step, &doc);
    for (uint32_t i = 0; i < t->job->plan.scene->n_steps; i++)
        if (cox_slice_is(doc.name, t->job->plan.scene->steps[i].name))
            return &t->job->plan.scene->steps[i];
    return NULL;
}

/* ---- life of tasks ---- */

void scene_frame_opened(struct sim *s, const struct record *r)
{
    struct audit_task *parent = audit_task(s, r->u.frame.parent);
    struct cox_image image;
    if (parent == NULL || audit_task(s, r->task) != NULL)
        fail(s, "a frame is opened wrongly");
    if (parent->finished)
        fail(s, "%s is over, and a frame is opened under it", name_of(parent));
    const struct audit_step *under = &parent->steps[r->u.frame.parent_step];
    if (under->status != COX_STEP_WAITING || !cox_token_eq(under->token, r->u.frame.token))
        fail(s, "%s/%u: a frame is opened under a step that does not wait", name_of(parent),
             r->u.frame.parent_step);
    image = parent->image;
    if (r->u.frame.image.len > 0 && cox_image_open(&image, r->u.frame.image) != COX_OK)
        fail(s, "the log holds a damaged image");
    struct audit_task *t = audit_task_new(s, r->task, parent->job, &image, r->wall_ms);
    t->parent = parent;
    t->root = parent->root;
    t->parent_step = r->u.frame.parent_step;
    t->parent_item = r->u.frame.item;
    if (r->u.frame.image.len == 0) {
        struct cox_image_step entry;
        cox_image_step(&image, r->u.frame.first, &entry);
        t->first = r->u.frame.first;
        t->n_members = 1 + entry.n_inner;
    }
    for (size_t i = 0; i < s->audit.n; i++) {
        const struct audit_task *f = s->audit.list[i];
        if (f != t && f->parent == parent && f->parent_step == t->parent_step &&
            f->parent_item == t->parent_item && !f->finished)
            fail(s, "%s/%u has two frames at once", name_of(parent), t->parent_step);
    }
    if (t->parent_item != UINT64_MAX && under->n_items > t->parent_item) {
        if (under->items[t->parent_item] != ITEM_FREE)
            fail(s, "%s/%u: item %llu is given while it is not free", name_of(parent), t->parent_step,
                 (unsigned long long)t->parent_item);
        under->items[t->parent_item] = ITEM_GIVEN;
    }
    s->n.frames++;
}

static struct job *job_of_key(const struct sim *s, struct cox_slice key)
{
    for (uint32_t i = 0; i < s->n_jobs; i++)
        if (cox_slice_is(key, s->jobs[i].key))
            return &s->jobs[i];
    return NULL;
}

void scene_forked(struct sim *s, const struct record *r)
{
    struct job *j = job_of_key(s, r->u.forked.key);
    struct cox_image image;
    if (j == NULL || j->from == NULL || audit_task(s, r->task) != NULL)
        fail(s, "the log holds a fork that nobody asked for");
    if (cox_image_open(&image, cox_buf_slice(&j->from->image)) != COX_OK)
        fail(s, "the image of a task is damaged");
    audit_key(s, j);
    audit_task_new(s, r->task, j, &image, r->wall_ms)->forked = true;
    s->n.forks++;
}

/* It ended and runs again: what succeeded stays. */
static void revived(struct sim *s, struct audit_task *t)
{
    struct cox_image_step doc;
    if (!t->finished || t->status == COX_TASK_SUCCEEDED)
        fail(s, "%s runs again, and had not failed", name_of(t));
    t->finished = t->archived = t->stopping = t->late = t->paused = t->outputs_failed = false;
    t->revived = true;
    t->created_wall_ms = t->revived_wall_ms;
    bool *again = cox_calloc(t->image.n_steps + 1, 1);
    for (uint32_t i = 0; i < t->image.n_steps; i++) { /* the document's order is that of needs, in scenes */
        uint8_t status = t->steps[i].status;
        cox_image_step(&t->image, i, &doc);
        again[i] = status != COX_STEP_SUCCEEDED && status != COX_STEP_SKIPPED;
        for (uint32_t k = 0; k < doc.n_needs; k++)
            again[i] = again[i] || again[cox_image_need(&t->image, i, k)];
        for (uint32_t k = i; doc.owner != COX_IMAGE_NONE; cox_image_step(&t->image, k, &doc))
            again[i] = again[k = doc.owner];
    }
    for (uint32_t i = 0; i < t->image.n_steps; i++) {
        if (!again[i] || !is_member(t, i))
            continue;
        t->steps[i].status = COX_STEP_BLOCKED;
        t->steps[i].in_fallback = t->steps[i].told = t->steps[i].continuing = false;
        t->steps[i].ready_wall_ms = 0;
    }
    cox_free(again);
    s->n.retries++;
}

void scene_task_fini(struct audit_task *t)
{
    for (uint32_t i = 0; i < t->image.n_steps; i++) {
        cox_free(t->steps[i].items);
        cox_free(t->steps[i].batches);
    }
    cox_free(t->signals);
}

/* ---- attempts ---- */

static void may_begin(struct sim *s, const struct audit_task *t, uint32_t step, const char *what)
{
    struct cox_image_step doc;
    const struct audit_step *st = &t->steps[step];
    cox_image_step(&t->image, step, &doc);
    if (t->root->paused)
        fail(s, "%s/%u is %s, and the task is paused", name_of(t), step, what);
    if (is_final(st) || st->status == COX_STEP_RUNNING || st->status == COX_STEP_WAITING)
        fail(s, "%s/%u is %s while %s", name_of(t), step, what,
             cox_step_status_text((enum cox_step_status)st->status));
    if (st->told)
        fail(s, "%s/%u is %s, and was cancelled", name_of(t), step, what);
    if (doc.owner != COX_IMAGE_NONE && step != t->first && t->steps[doc.owner].status != COX_STEP_WAITING)
        fail(s, "%s/%u is %s, and the race it is in is not on", name_of(t), step, what);
    for (uint32_t i = 0; i < doc.n_needs && !t->forked; i++)
        if (!is_final(&t->steps[cox_image_need(&t->image, step, i)]))
            fail(s, "%s/%u is %s while its dependency %u is not over", name_of(t), step, what,
                 cox_image_need(&t->image, step, i));
}

/* No more hold a key of `concurrency` than may. */
static void check_limit(struct sim *s, const struct audit_task *t, uint32_t step)
{
    const struct scene_step *of = scene_step(t, step);
    uint32_t n = 0;
    if (of == NULL || of->concurrency == 0 || t->steps[step].in_fallback)
        return;
    for (size_t k = 0; k < s->audit.n; k++) {
        const struct audit_task *o = s->audit.list[k];
        if (o->parent != NULL || o->finished || o->job->plan.scene == NULL)
            continue;
        for (uint32_t i = 0; i < o->image.n_steps; i++) {
            const struct audit_step *st = &o->steps[i];
            const struct scene_step *other = scene_step(o, i);
            bool holds =
                st->status == COX_STEP_RUNNING || (st->status == COX_STEP_WAITING && !st->continuing);
            n += other != NULL && other->concurrency == of->concurrency && holds && !st->in_fallback;
        }
    }
    if (n > of->concurrency)
        fail(s, "%s/%u: %u steps hold the key k%u", name_of(t), step, n, of->concurrency);
}

static void assigned(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    struct audit_worker *w = audit_worker(s, r->u.assigned.worker);
    if (w == NULL)
        fail(s, "%s/%u is assigned to a worker without a name", name_of(t), r->step);
    may_begin(s, t, r->step, "assigned");
    audit_token_follows(s, r->u.assigned.token);
    if (r->wall_ms < st->ready_wall_ms && s->cfg.mean_ms[KIND_CLOCK_JUMP] == 0)
        fail(s, "%s/%u is assigned before its backoff is over", name_of(t), r->step);
    struct cox_image_class cls = audit_class(t, r->step);
    audit_version(s, t, r->step, w);
    audit_occupy(s, w, &cls.resources, 1);
    st->status = COX_STEP_RUNNING;
    st->token = r->u.assigned.token;
    st->worker = r->u.assigned.worker;
    st->n_attempts++;
    check_limit(s, t, r->step);
}

static void waiting(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    may_begin(s, t, r->step, "waiting");
    audit_token_follows(s, r->u.waiting.token);
    st->status = COX_STEP_WAITING;
    st->token = r->u.waiting.token;
    st->wake_wall_ms = r->u.waiting.wake_wall_ms;
    const struct scene_step *of = scene_step(t, r->step);
    if (of != NULL && of->until_wall_ms > 0 && !st->in_fallback) {
        befell(s, KIND_UNTIL);
        if (st->wake_wall_ms != of->until_wall_ms)
            fail(s, "%s/%u waits until another time than was said", name_of(t), r->step);
    }
    st->n_attempts++;
    st->continuing = false;
    cox_free(st->items);
    st->items = NULL;
    st->n_items = st->n_batches = 0;
    check_limit(s, t, r->step);
    s->n.waits++;
}

static void leaves_worker(struct sim *s, struct audit_task *t, uint32_t step)
{
    struct cox_image_class cls = audit_class(t, step);
    audit_occupy(s, audit_worker(s, t->steps[step].worker), &cls.resources, -1);
}

static bool in_range(const struct audit_task *under, const struct audit_task *t, uint32_t step)
{
    return under->parent == t && under->parent_step == step && !under->finished;
}

/* ---- ends ---- */

static void race_over(struct sim *s, const struct audit_task *t, uint32_t step, bool won)
{
    struct cox_image_step doc;
    uint32_t n = 0;
    cox_image_step(&t->image, step, &doc);
    for (uint32_t i = step + 1; i <= step + doc.n_inner; i++)
        n += t->steps[i].status == COX_STEP_SUCCEEDED;
    if (doc.kind == COX_KIND_RACE && doc.map == COX_IMAGE_NONE && !t->steps[step].in_fallback && won &&
        n != 1)
        fail(s, "%s/%u: a race is won by %u", name_of(t), step, n);
}

static void signal_taken(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_task *root = t->root;
    uint64_t number = r->u.ended.took_signal;
    if (root->forked)
        return;
    if (number > root->n_signals || root->signals[number - 1].taken)
        fail(s, "%s/%u takes signal %llu, which is not there", name_of(t), r->step,
             (unsigned long long)number);
    struct audit_signal *sig = &root->signals[number - 1];
    sig->taken = true;
    if (sig->value != audit_payload_id(&r->u.ended.output))
        fail(s, "%s/%u takes a signal with another value", name_of(t), r->step);
    for (uint64_t i = 0; i + 1 < number; i++)
        if (!root->signals[i].taken && root->signals[i].name == sig->name)
            fail(s, "%s/%u takes a signal before one that came earlier", name_of(t), r->step);
    const struct scene_step *of = scene_step(t, r->step);
    if (of != NULL && (of->kind != SCENE_SIGNAL || of->n != sig->name))
        fail(s, "%s/%u takes a signal that it does not wait for", name_of(t), r->step);
    s->n.signals++;
}

static void map_over(struct sim *s, const struct audit_task *t, const struct record *r)
{
    const struct audit_step *st = &t->steps[r->step];
    uint32_t n[4] = { 0 };
    for (uint32_t i = 0; i < st->n_items; i++)
        n[st->items[i]]++;
    if (st->n_batches > 0 || n[ITEM_GIVEN] > 0)
        fail(s, "%s/%u is over, and items of it are with somebody", name_of(t), r->step);
    if (r->u.ended.next == NEXT_DONE && n[ITEM_FREE] > 0)
        fail(s, "%s/%u has SUCCEEDED, and %u items of it have not ended", name_of(t), r->step, n[ITEM_FREE]);
    const struct scene_step *of = scene_step(t, r->step);
    if (of != NULL && r->u.ended.next == NEXT_DONE && n[ITEM_ILL] > of->tolerate)
        fail(s, "%s/%u has SUCCEEDED with %u failed items", name_of(t), r->step, n[ITEM_ILL]);
}

static void early(struct sim *s, const struct audit_task *t, const struct record *r)
{
    const struct audit_step *st = &t->steps[r->step];
    const struct scene_step *of = scene_step(t, r->step);
    if (of != NULL && of->kind == SCENE_FOR && !of->mapped && !st->in_fallback &&
        r->wall_ms < st->wake_wall_ms)
        fail(s, "%s/%u has waited too short a time", name_of(t), r->step);
}

static void ended(struct sim *s, struct audit_task *t, const struct record *r)
{
    static const enum cox_step_status after[] = {
        [NEXT_DONE] = COX_STEP_SUCCEEDED,   [NEXT_RETRY] = COX_STEP_READY, [NEXT_REQUEUE] = COX_STEP_READY,
        [NEXT_FALLBACK] = COX_STEP_READY,   [NEXT_FAIL] = COX_STEP_FAILED, [NEXT_CANCEL] = COX_STEP_CANCELLED,
        [NEXT_CONTINUE] = COX_STEP_WAITING,
    };
    const struct record_ended *en = &r->u.ended;
    struct audit_step *st = &t->steps[r->step];
    bool ran = st->status == COX_STEP_RUNNING;
    if ((!ran && st->status != COX_STEP_WAITING) || !cox_token_eq(st->token, en->token))
        fail(s, "%s/%u: an attempt ends which is not the current one", name_of(t), r->step);
    if (ran && (en->status == COX_ATTEMPT_SUCCEEDED || en->status == COX_ATTEMPT_FAILED) &&
        en->code != COX_CODE_RESOURCE_EXHAUSTED)
        audit_was_said(s, (struct cox_ref){ r->task, r->step, en->token }, en);
    if (ran)
        leaves_worker(s, t, r->step);
    else
        map_over(s, t, r);
    if (st->told && en->next != NEXT_CANCEL)
        fail(s, "%s/%u was cancelled, and ends otherwise", name_of(t), r->step);
    for (size_t i = 0; i < s->audit.n; i++)
        if (in_range(s->audit.list[i], t, r->step))
            fail(s, "%s/%u is over, and a frame under it is not", name_of(t), r->step);
    race_over(s, t, r->step, en->next == NEXT_DONE && !ran);
    if (en->next == NEXT_DONE && !ran)
        early(s, t, r);
    if (en->took_signal != 0)
        signal_taken(s, t, r);
    st->continuing = en->next == NEXT_CONTINUE;
    st->ready_wall_ms = en->next == NEXT_RETRY ? en->retry_wall_ms : 0;
    st->status = (uint8_t)after[en->next];
    st->in_fallback = st->in_fallback || en->next == NEXT_FALLBACK;
    s->n.continuations += en->next == NEXT_CONTINUE;
    s->audit.n_ended++;
}

/* An alternative that ends after its race was decided does not win. */
static void loser_ends(struct sim *s, const struct audit_task *t, const struct record *r)
{
    struct cox_image_step doc, owner;
    cox_image_step(&t->image, r->step, &doc);
    if (doc.owner == COX_IMAGE_NONE || r->step == t->first || r->u.ended.next != NEXT_DONE)
        return;
    cox_image_step(&t->image, doc.owner, &owner);
    if (t->steps[doc.owner].status != COX_STEP_WAITING)
        fail(s, "%s/%u wins a race that is over", name_of(t), r->step);
}

/* ---- maps ---- */

static struct audit_batch *batch_of(const struct audit_step *st, struct cox_token token)
{
    for (uint32_t i = 0; i < st->n_batches; i++)
        if (cox_token_eq(st->batches[i].token, token))
            return &st->batches[i];
    return NULL;
}

static void map_begun(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    if (st->status != COX_STEP_WAITING || st->items != NULL)
        fail(s, "%s/%u: a map begins wrongly", name_of(t), r->step);
    const struct scene_step *of = scene_step(t, r->step);
    if (of != NULL && of->n_items != r->u.map.n_items && of->list_of < 0)
        fail(s, "%s/%u: a map of %u items", name_of(t), r->step, r->u.map.n_items);
    st->n_items = r->u.map.n_items;
    st->items = cox_calloc(st->n_items + 1, 1);
    s->n.maps++;
}

static void items_assigned(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    struct audit_worker *w = audit_worker(s, r->u.items.worker);
    uint64_t end = (uint64_t)r->u.items.first + r->u.items.n;
    if (st->status != COX_STEP_WAITING || st->items == NULL || end > st->n_items || r->u.items.n == 0 ||
        w == NULL)
        fail(s, "%s/%u: items %u..%llu are given wrongly", name_of(t), r->step, r->u.items.first,
             (unsigned long long)end);
    if (t->root->paused || t->stopping || st->told)
        fail(s, "%s/%u: items are given, and it is to stand still", name_of(t), r->step);
    const struct scene_step *of = scene_step(t, r->step);
    if (of != NULL && r->u.items.n > of->batch)
        fail(s, "%s/%u: %u items at once, and `batch` is %u", name_of(t), r->step, r->u.items.n, of->batch);
    audit_token_follows(s, r->u.items.token);
    uint32_t n_given = 0;
    for (uint64_t i = r->u.items.first; i < end; i++) {
        if (st->items[i] != ITEM_FREE)
            fail(s, "%s/%u: item %llu is given while it is not free", name_of(t), r->step,
                 (unsigned long long)i);
        st->items[i] = ITEM_GIVEN;
    }
    for (uint32_t i = 0; i < st->n_items; i++)
        n_given += st->items[i] == ITEM_GIVEN;
    if (of != NULL && of->max_parallel > 0 && n_given > of->max_parallel)
        fail(s, "%s/%u: %u items at once, and `max_parallel` is %u", name_of(t), r->step, n_given,
             of->max_parallel);
    struct cox_image_class cls = audit_class(t, r->step);
    audit_occupy(s, w, &cls.resources, 1);
    if (st->n_batches == st->cap_batches) {
        st->cap_batches = st->cap_batches == 0 ? 8 : st->cap_batches * 2;
        st->batches = cox_realloc(st->batches, st->cap_batches, sizeof st->batches[0]);
    }
    st->batches[st->n_batches++] =
        (struct audit_batch){ r->u.items.token, r->u.items.worker, r->u.items.first, r->u.items.n };
    s->n.batches_given++;
}

static void batch_over(struct sim *s, struct audit_task *t, uint32_t step, struct audit_batch *b)
{
    struct audit_step *st = &t->steps[step];
    struct cox_image_class cls = audit_class(t, step);
    audit_occupy(s, audit_worker(s, b->worker), &cls.resources, -1);
    *b = st->batches[--st->n_batches];
}

static void item_ended(struct sim *s, struct audit_task *t, uint32_t step, const struct record_item *item)
{
    struct audit_step *st = &t->steps[step];
    uint8_t *at = &st->items[item->index];
    if (*at == ITEM_WELL || *at == ITEM_ILL)
        fail(s, "%s/%u: item %u ends twice", name_of(t), step, item->index);
    *at = item->next == NEXT_DONE ? ITEM_WELL : item->next == NEXT_FAIL ? ITEM_ILL : ITEM_FREE;
}

static void items_ended(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    struct cox_reader in = cox_reader(r->u.items_ended.items);
    struct record_item item;
    struct cox_token token = r->u.items_ended.token;
    struct audit_batch *b = batch_of(st, token);
    uint32_t n = 0;
    if (st->status != COX_STEP_WAITING || (b == NULL && token.counter != 0))
        fail(s, "%s/%u: items end that nobody had", name_of(t), r->step);
    for (; record_item_next(&in, &item); n++) {
        if (item.index >= st->n_items || (b != NULL && item.index != b->first + n))
            fail(s, "%s/%u: item %u ends, which was not given", name_of(t), r->step, item.index);
        if (b != NULL && item.next == NEXT_DONE)
            audit_item_was_said(s, (struct cox_ref){ r->task, r->step, token }, &item);
        item_ended(s, t, r->step, &item);
    }
    if (in.bad || n != (b != NULL ? b->n : 1))
        fail(s, "%s/%u: %u items end at once", name_of(t), r->step, n);
    if (b != NULL)
        batch_over(s, t, r->step, b);
}

static void items_unassigned(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    struct audit_batch *b = batch_of(st, r->u.items.token);
    if (b == NULL || b->first != r->u.items.first || b->n != r->u.items.n)
        fail(s, "%s/%u: items come back that nobody had", name_of(t), r->step);
    memset(st->items + b->first, ITEM_FREE, b->n);
    batch_over(s, t, r->step, b);
}

/* ---- words, sleep ---- */

static void signalled(struct sim *s, struct audit_task *t, const struct record *r)
{
    unsigned name;
    char text[16];
    snprintf(text, sizeof text, "%.*s", (int)r->u.signalled.name.len, (const char *)r->u.signalled.name.data);
    if (sscanf(text, "g%u", &name) != 1)
        fail(s, "%s is sent a signal that nobody sent", name_of(t));
    for (uint32_t i = 0; i < t->n_signals; i++)
        if (t->signals[i].value == audit_payload_id(&r->u.signalled.payload))
            fail(s, "%s is sent a signal twice that was said once", name_of(t));
    t->signals = cox_realloc(t->signals, t->n_signals + 1, sizeof t->signals[0]);
    t->signals[t->n_signals++] =
        (struct audit_signal){ name, audit_payload_id(&r->u.signalled.payload), false };
}

static void evicted(struct sim *s, struct audit_task *root)
{
    for (size_t i = 0; i < s->audit.n; i++) {
        const struct audit_task *t = s->audit.list[i];
        for (uint32_t k = 0; t->root == root && !t->finished && k < t->image.n_steps; k++)
            if (t->steps[k].status == COX_STEP_RUNNING || t->steps[k].n_batches > 0)
                fail(s, "%s leaves memory, and its step %u runs", name_of(t), k);
    }
    root->asleep = true;
    s->n.sleeps++;
}

static void stopping(struct sim *s, struct audit_task *t, const struct record *r)
{
    int64_t deadline_ms = t->job->plan.scene->deadline_ms;
    (void)s;
    t->stopping = true;
    t->late = t->parent == NULL && deadline_ms > 0 && r->wall_ms - t->created_wall_ms >= deadline_ms;
    for (uint32_t i = 0; i < t->image.n_steps; i++)
        if (is_member(t, i) && !is_final(&t->steps[i]) && t->steps[i].status != COX_STEP_RUNNING &&
            t->steps[i].status != COX_STEP_WAITING)
            t->steps[i].status = COX_STEP_CANCELLED;
}

static void finished(struct sim *s, struct audit_task *t, const struct record *r)
{
    for (uint32_t i = 0; i < t->image.n_steps && !t->forked; i++)
        if (is_member(t, i) && !is_final(&t->steps[i]))
            fail(s, "%s is over, and its step %u is %s", name_of(t), i,
                 cox_step_status_text((enum cox_step_status)t->steps[i].status));
    for (size_t i = 0; i < s->audit.n; i++)
        if (s->audit.list[i]->parent == t && !s->audit.list[i]->finished)
            fail(s, "%s is over, and a frame under it is not", name_of(t));
    t->finished = true;
    t->status = r->u.finished.status;
    t->outputs_failed = r->u.finished.code == COX_CODE_OUTPUT_INVALID;
    if (t->parent == NULL)
        trace(s, "audit: %s is %s", name_of(t), cox_task_status_text(t->status));
}

static void told(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    if (is_final(st))
        fail(s, "%s/%u is over, and is cancelled", name_of(t), r->step);
    st->told = true;
    if (st->status != COX_STEP_RUNNING && st->status != COX_STEP_WAITING)
        st->status = COX_STEP_CANCELLED;
}

static void step_record(struct sim *s, struct audit_task *t, const struct record *r)
{
    struct audit_step *st = &t->steps[r->step];
    if (!is_member(t, r->step))
        fail(s, "a record is of step %u, which is not in %s's frame", r->step, name_of(t));
    if (is_final(st) && r->type != RECORD_STEP_RESET)
        fail(s, "%s/%u is over, and goes on with record type %d", name_of(t), r->step, (int)r->type);
    switch (r->type) {
    case RECORD_STEP_SKIPPED:
        st->status = COX_STEP_SKIPPED;
        break;
    case RECORD_STEP_REFUSED:
        st->in_fallback = r->u.refused.next == NEXT_FALLBACK;
        st->status = r->u.refused.next == NEXT_FALLBACK ? COX_STEP_READY : COX_STEP_FAILED;
        break;
    case RECORD_STEP_CANCELLED:
        told(s, t, r);
        break;
    case RECORD_STEP_RESET:
        if (st->status == COX_STEP_RUNNING || st->status == COX_STEP_WAITING)
            fail(s, "%s/%u begins anew while it runs", name_of(t), r->step);
        st->status = COX_STEP_BLOCKED;
        st->in_fallback = st->told = false;
        st->ready_wall_ms = 0;
        break;
    case RECORD_ASSIGNED:
        assigned(s, t, r);
        break;
    case RECORD_WAITING:
        waiting(s, t, r);
        break;
    case RECORD_ATTEMPT_ENDED:
        loser_ends(s, t, r);
        ended(s, t, r);
        break;
    case RECORD_CONTINUED:
        if (!st->continuing)
            fail(s, "%s/%u is called again, and has asked for nothing", name_of(t), r->step);
        st->continuing = false;
        st->status = COX_STEP_READY;
        break;
    case RECORD_UNASSIGNED:
        if (st->status != COX_STEP_RUNNING || !cox_token_eq(st->token, r->u.unassigned.token))
            fail(s, "%s/%u is taken back, and nobody has it", name_of(t), r->step);
        leaves_worker(s, t, r->step);
        st->status = COX_STEP_READY;
        break;
    case RECORD_MAP_BEGUN:
        map_begun(s, t, r);
        break;
    case RECORD_ITEMS_ASSIGNED:
        items_assigned(s, t, r);
        break;
    case RECORD_ITEMS_ENDED:
        items_ended(s, t, r);
        break;
    case RECORD_ITEMS_UNASSIGNED:
        items_unassigned(s, t, r);
        break;
    default:
        break;
    }
}

void scene_record(struct sim *s, struct audit_task *t, const struct record *r)
{
    if (t->root->asleep && r->type != RECORD_TASK_WOKEN)
        fail(s, "%s sleeps, and goes on with record type %d", name_of(t), (int)r->type);
    if (t->finished && r->type != RECORD_TASK_ARCHIVED && r->type != RECORD_TASK_REVIVED)
        fail(s, "%s is over, and goes on with record type %d", name_of(t), (int)r->type);
    switch (r->type) {
    case RECORD_TASK_ARCHIVED:
        if (!t->finished)
            fail(s, "%s is archived before it is over", name_of(t));
        t->archived = true;
        break;
    case RECORD_TASK_STOPPING:
        stopping(s, t, r);
        break;
    case RECORD_TASK_FINISHED:
        finished(s, t, r);
        break;
    case RECORD_TASK_REVIVED:
        t->revived_wall_ms = r->wall_ms;
        revived(s, t);
        break;
    case RECORD_TASK_PAUSED:
    case RECORD_TASK_RESUMED:
        t->paused = r->type == RECORD_TASK_PAUSED;
        s->n.pauses += t->paused;
        break;
    case RECORD_SIGNALLED:
        signalled(s, t, r);
        break;
    case RECORD_TASK_EVICTED:
        evicted(s, t);
        break;
    case RECORD_TASK_WOKEN:
        if (!t->asleep)
            fail(s, "%s wakes, and did not sleep", name_of(t));
        t->asleep = false;
        break;
    case RECORD_PINNED:
        audit_pinned(s, t, r);
        break;
    default:
        step_record(s, t, r);
    }
}

/* ---- actions, as they leave ---- */

static bool later(struct cox_token a, struct cox_token b)
{
    return a.epoch > b.epoch || (a.epoch == b.epoch && a.counter > b.counter);
}

/* Rules 2 and 5. */
void scene_assign_leaves(struct sim *s, const struct audit_task *t, const struct cox_act_assign *a)
{
    const struct audit_step *st = &t->steps[a->ref.step];
    const struct stream *to = session_find(s, a->session);
    const struct audit_batch *b = batch_of(st, a->ref.token);
    bool now = b != NULL || (a->n_items == 0 && cox_token_eq(st->token, a->ref.token));
    if (later(a->ref.token, s->audit.last_token))
        fail(s, "%s leaves before its assignment is durable", ref_text(a->ref));
    if (a->root != t->root->id)
        fail(s, "%s is said to be of another task", ref_text(a->ref));
    if (to == NULL || !now)
        return;
    if (audit_worker(s, b != NULL ? b->worker : st->worker)->host != to->host)
        fail(s, "%s goes to %s, and another worker is on record", ref_text(a->ref), to->host->id);
    if (b != NULL && (a->n_items != b->n || a->items[0].index != b->first))
        fail(s, "%s goes with other items than are on record", ref_text(a->ref));
}

/* Rules 2 and 6. */
void scene_answer_leaves(struct sim *s, const struct audit_task *t, struct cox_ref ref,
                         enum cox_answer answer)
{
    const struct audit_step *st = &t->steps[ref.step];
    bool runs = batch_of(st, ref.token) != NULL ||
                (st->status == COX_STEP_RUNNING && cox_token_eq(st->token, ref.token));
    if (answer == COX_ANSWER_ACCEPTED && runs)
        fail(s, "%s is answered accepted, and that is not durable", ref_text(ref));
    if (answer != COX_ANSWER_ACCEPTED && runs)
        fail(s, "%s is the current attempt, and its result is refused", ref_text(ref));
}
