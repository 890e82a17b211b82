/* apply(): how a record changes durable state. The same code runs live and in replay; it draws no random
 * number, reads no clock and takes no decision. Each entity is changed only by records after its own
 * applied_seq, so replay over a checkpoint of any age ends in the same state. */
#include "expand/agent.h"
#include "expand/expand.h"
#include "expand/map.h"
#include "quarantine.h"
#include "schedule.h"
#include "sleep.h"
#include "template.h"
#include "workspace.h"

#include <string.h>

static char *text_of(struct cox_slice s)
{
    return s.len > 0 ? cox_strndup((const char *)s.data, s.len) : NULL;
}

struct cox_slice text_cut(struct cox_slice s, size_t len_max)
{
    if (s.len <= len_max)
        return s;
    while (len_max > 0 && (s.data[len_max] & 0xc0) == 0x80) /* not inside a character */
        len_max--;
    return cox_slice(s.data, len_max);
}

static void set_text(char **at, struct cox_slice s)
{
    char *old = *at;
    *at = text_of(s);
    cox_free(old);
}

static void set_value(struct value **at, const struct cox_payload *p)
{
    struct value *old = *at;
    *at = value_make(p);
    cox_free(old);
}

static struct past_attempt *history_push(struct step *s)
{
    struct history *h = s->history;
    if (h != NULL && h->n == COX_ATTEMPTS_KEPT) {
        h->forgotten_cpu_us += h->items[0].cpu_us;
        cox_free(h->items[0].message);
        memmove(h->items, h->items + 1, --h->n * sizeof h->items[0]);
    }
    if (h == NULL || h->n == h->cap) {
        uint32_t cap = h == NULL ? 2 : h->cap * 2;
        h = cox_realloc(h, 1, sizeof *h + cap * sizeof h->items[0]);
        if (s->history == NULL)
            *h = (struct history){ .n = 0 };
        h->cap = cap;
        s->history = h;
    }
    return &h->items[h->n++];
}

/* Moves the step's last attempt into its history, ended as the record says. */
static void attempt_to_history(struct step *s, const struct record *r, enum cox_attempt_status status,
                               enum cox_code code, struct cox_slice message)
{
    struct past_attempt *p = history_push(s);
    *p = (struct past_attempt){
        .number = s->n_attempts,
        .worker = s->worker,
        .started_wall_ms = s->started_wall_ms,
        .finished_wall_ms = r->wall_ms,
        .cpu_us = s->cpu_us,
        .message = text_of(text_cut(message, COX_PAST_MESSAGE_LEN_MAX)),
        .frame = s->x != NULL ? s->x->frame : 0,
        .exit_code = s->exit_code,
        .has_exit_code = (s->flags & STEP_HAS_EXIT) != 0,
        .fallback = (s->flags & STEP_IN_FALLBACK) != 0,
        .status = (uint8_t)status,
        .code = (uint8_t)code,
    };
}

bool attempt_is_past(const struct step *s)
{
    uint32_t n = s->history != NULL ? s->history->n : 0;
    return n > 0 && s->history->items[n - 1].number == s->n_attempts;
}

void attempt_remember(struct step *s)
{
    if (s->n_attempts == 0 || s->token.counter == 0 || attempt_is_past(s))
        return;
    struct record ended = { .wall_ms = s->finished_wall_ms };
    attempt_to_history(s, &ended, (enum cox_attempt_status)s->attempt_status, (enum cox_code)s->code,
                       cox_slice_str(s->message));
}

static void attempt_begins(struct step *s, const struct record *r, struct cox_token token, uint32_t worker)
{
    s->token = token;
    s->worker = worker;
    s->started_wall_ms = r->wall_ms;
    s->finished_wall_ms = 0;
    s->ready_wall_ms = 0;
    s->cpu_us = 0;
    s->exit_code = 0;
    s->flags &= (uint8_t)~STEP_HAS_EXIT;
    s->n_attempts++;
    s->n_tries++;
    if (s->x != NULL)
        s->x->frame = 0;
}

static void page_assigned(struct cox_task *t, struct step *s, const struct record *r)
{
    attempt_begins(s, r, r->u.assigned.token, r->u.assigned.worker);
    s->attempt_status = COX_ATTEMPT_ASSIGNED;
    step_move(t, s, COX_STEP_RUNNING);
}

static void page_waiting(struct cox_task *t, struct step *s, const struct record *r)
{
    struct expansion *x = step_expansion(s);
    attempt_begins(s, r, r->u.waiting.token, 0);
    s->attempt_status = COX_ATTEMPT_RUNNING;
    x->wake_wall_ms = r->u.waiting.wake_wall_ms;
    set_text(&x->detail, r->u.waiting.detail);
    step_move(t, s, COX_STEP_WAITING);
}

/* What only a next call would have needed. */
static void page_asks_no_more(struct step *s)
{
    static const struct cox_payload none = { .kind = COX_PAYLOAD_NONE };
    if (s->x == NULL)
        return;
    set_value(&s->x->asked, &none);
    set_value(&s->x->resume, &none);
    s->x->n_continuations = 0;
    expansion_forget_bytes(s->x);
}

static void page_continues(struct cox_task *t, struct step *s, const struct record *r)
{
    struct expansion *x = step_expansion(s);
    attempt_to_history(s, r, r->u.ended.status, COX_CODE_NONE, cox_slice(NULL, 0));
    s->n_tries--;
    x->n_continuations++;
    x->continuing = true;
    set_value(&x->asked, &r->u.ended.output);
    expansion_forget_bytes(x);
    step_move(t, s, COX_STEP_WAITING);
}

static void page_done(struct cox_task *t, struct step *s, const struct record *r)
{
    const struct record_ended *en = &r->u.ended;
    set_value(&s->output, &en->output);
    if (en->artifacts.kind != COX_PAYLOAD_NONE)
        set_value(&step_expansion(s)->artifacts, &en->artifacts);
    if (en->errors.kind != COX_PAYLOAD_NONE)
        set_value(&step_expansion(s)->errors, &en->errors);
    page_asks_no_more(s);
    step_move(t, s, en->next == NEXT_DONE ? COX_STEP_SUCCEEDED : COX_STEP_FAILED);
}

/* An inner step, before its owner tries again. */
static void page_reset(struct cox_task *t, struct step *s, const struct record *r)
{
    (void)r;
    attempt_remember(s);
    step_reset(t, s);
}

static void page_unassigned(struct cox_task *t, struct step *s, const struct record *r)
{
    s->token = (struct cox_token){ 0, 0 };
    s->n_tries--;
    if (r->u.unassigned.returned)
        s->n_attempts--;
    else
        attempt_to_history(s, r, COX_ATTEMPT_LOST, COX_CODE_WORKER_LOST,
                           cox_slice_str("the worker came back without it"));
    if (s->n_attempts == 0) { /* as if it had never been given: a checkpoint keeps nothing of it */
        s->worker = 0;
        s->started_wall_ms = 0;
        s->attempt_status = COX_ATTEMPT_NONE;
    }
    step_move(t, s, COX_STEP_READY);
}

static void page_failed_with(struct step *s, enum cox_code code, struct cox_slice message)
{
    s->code = (uint8_t)code;
    set_text(&s->message, message);
}

/* Of the attempt that ends; of steps that a program asked for: then it is its last call's. */
static void page_used(struct cox_task *t, struct step *s, uint64_t cpu_us)
{
    t->cpu_us += cpu_us;
    s->cpu_us = cpu_us;
    if (s->x == NULL || !s->x->continuing)
        return;
    s->cpu_us = 0;
    s->history->items[s->history->n - 1].cpu_us += cpu_us;
}

static void page_ended(struct cox_task *t, struct step *s, const struct record *r)
{
    const struct record_ended *en = &r->u.ended;
    page_used(t, s, en->cpu_us);
    s->exit_code = en->exit_code;
    s->flags = (uint8_t)(en->has_exit_code ? s->flags | STEP_HAS_EXIT : s->flags & ~STEP_HAS_EXIT);
    s->attempt_status = (uint8_t)en->status;
    s->finished_wall_ms = r->wall_ms;
    if (s->x != NULL)
        s->x->continuing = false;
    /* while a fallback is tried again, `error` stays what the fallback is for */
    if (!(s->flags & STEP_IN_FALLBACK) || (en->next != NEXT_RETRY && en->next != NEXT_REQUEUE))
        page_failed_with(s, en->code, en->message);
    switch (en->next) {
    case NEXT_DONE:
    case NEXT_FAIL:
        page_done(t, s, r);
        break;
    case NEXT_REQUEUE:
        s->n_losses++;
        if (!COX_PLANTED("loss-counts-as-try"))
            s->n_tries--;
        attempt_to_history(s, r, en->status, en->code, en->message);
        step_move(t, s, COX_STEP_READY);
        break;
    case NEXT_RETRY:
        s->ready_wall_ms = COX_PLANTED("backoff-not-kept") ? 0 : en->retry_wall_ms;
        attempt_to_history(s, r, en->status, en->code, en->message);
        step_move(t, s, COX_STEP_READY);
        break;
    case NEXT_FALLBACK:
        attempt_to_history(s, r, en->status, en->code, en->message);
        s->flags |= STEP_IN_FALLBACK;
        s->n_tries = COX_PLANTED("fallback-inherits-tries") ? s->n_tries : 0;
        page_asks_no_more(s);
        step_move(t, s, COX_STEP_READY);
        break;
    case NEXT_CANCEL:
        step_move(t, s, COX_STEP_CANCELLED);
        break;
    case NEXT_CONTINUE:
        page_continues(t, s, r);
        break;
    }
}

/* A running step is only told; its end is a record of its own. */
static void page_cancelled(struct cox_task *t, struct step *s, const struct record *r)
{
    if (s->status == COX_STEP_RUNNING || s->status == COX_STEP_WAITING) {
        s->flags |= STEP_STOPPING;
        return;
    }
    s->finished_wall_ms = r->wall_ms;
    step_move(t, s, COX_STEP_CANCELLED);
}

static void apply_page(struct cox_task *t, struct step *s, const struct record *r)
{
    switch (r->type) {
    case RECORD_STEP_OPENED:
        s->flags |= STEP_OPEN;
        break;
    case RECORD_STEP_SKIPPED:
        s->finished_wall_ms = r->wall_ms;
        step_move(t, s, COX_STEP_SKIPPED);
        break;
    case RECORD_STEP_REFUSED:
        page_failed_with(s, r->u.refused.code, r->u.refused.message);
        s->finished_wall_ms = r->wall_ms;
        if (r->u.refused.next == NEXT_FALLBACK) {
            s->flags |= STEP_IN_FALLBACK;
            s->n_tries = 0;
            step_move(t, s, COX_STEP_READY);
        } else {
            step_move(t, s, COX_STEP_FAILED);
        }
        break;
    case RECORD_ASSIGNED:
        page_assigned(t, s, r);
        break;
    case RECORD_UNASSIGNED:
        page_unassigned(t, s, r);
        break;
    case RECORD_ATTEMPT_ENDED:
        page_ended(t, s, r);
        break;
    case RECORD_WAITING:
        page_waiting(t, s, r);
        break;
    case RECORD_CONTINUED:
        set_value(&step_expansion(s)->resume, &r->u.continued.outputs);
        page_used(t, s, r->u.continued.cpu_us);
        s->x->continuing = false;
        step_move(t, s, COX_STEP_READY);
        break;
    case RECORD_AGENT:
        agent_apply(s, r);
        break;
    case RECORD_STEP_CANCELLED:
        page_cancelled(t, s, r);
        break;
    case RECORD_STEP_RESET:
        page_reset(t, s, r);
        break;
    case RECORD_WORKSPACE:
        files_apply(s, r);
        break;
    default:
        COX_ASSERT(!"not a step's record");
    }
}

/* The task's first error is a fact of its header. True when the header changed. */
static bool header_step_failed(struct cox_task *t, const struct record *r, enum cox_code code,
                               struct cox_slice message)
{
    struct cox_image_step step;
    cox_image_step(&t->image, r->step, &step);
    if ((t->code != COX_CODE_NONE && !COX_PLANTED("first-error-overwritten")) || step.allow_failure ||
        step_is_inner(t, r->step, &step))
        return false;
    t->code = code;
    t->error_step = r->step;
    set_text(&t->message, message);
    return true;
}

static bool apply_header(struct cox_task *t, const struct record *r)
{
    switch (r->type) {
    case RECORD_ASSIGNED:
    case RECORD_WAITING:
        if (t->status != COX_TASK_PENDING)
            return false;
        t->status = COX_TASK_RUNNING;
        t->started_wall_ms = r->wall_ms;
        return true;
    case RECORD_ATTEMPT_ENDED:
        return r->u.ended.next == NEXT_FAIL && header_step_failed(t, r, r->u.ended.code, r->u.ended.message);
    case RECORD_STEP_REFUSED:
        return r->u.refused.next == NEXT_FAIL &&
               header_step_failed(t, r, r->u.refused.code, r->u.refused.message);
    case RECORD_TASK_STOPPING:
        t->stopping = r->u.stopping.into;
        if (t->code == COX_CODE_NONE) {
            t->code = r->u.stopping.code;
            set_text(&t->message, r->u.stopping.message);
        }
        return true;
    case RECORD_TASK_FINISHED:
        t->status = r->u.finished.status;
        t->finished_wall_ms = r->wall_ms;
        t->code = r->u.finished.code;
        set_text(&t->message, r->u.finished.message);
        set_value(&t->outputs, &r->u.finished.outputs);
        return true;
    case RECORD_TASK_ARCHIVED:
        t->gone = true;
        return true;
    case RECORD_TASK_PAUSED:
    case RECORD_TASK_RESUMED:
        t->paused = r->type == RECORD_TASK_PAUSED;
        return true;
    case RECORD_SIGNALLED:
        signal_keep(t, r->u.signalled.name, &r->u.signalled.payload);
        return true;
    case RECORD_PINNED:
        task_pin_version(t, r->u.pinned.class_index, r->u.pinned.version);
        return true;
    default:
        return false;
    }
}

static void apply_stopping_to_pages(struct cox_engine *e, struct cox_task *t, uint64_t seq)
{
    for (uint32_t no = 0; no < t->n_pages; no++) {
        struct page *p = task_page(t, no);
        if (p->entity.applied_seq >= seq)
            continue;
        for (uint32_t i = 0; i < p->n_steps; i++) {
            struct step *s = &p->steps[i];
            if (!cox_step_status_final((enum cox_step_status)s->status) && s->status != COX_STEP_RUNNING &&
                s->status != COX_STEP_WAITING && task_is_member(t, step_index(s)))
                step_move(t, s, COX_STEP_CANCELLED);
        }
        entity_touch(e, &p->entity, seq);
    }
}

void key_text(struct cox_buf *b, struct cox_slice tenant, struct cox_slice key)
{
    cox_buf_append_slice(b, tenant);
    cox_put_u8(b, 0);
    cox_buf_append_slice(b, key);
}

static void apply_key(struct cox_engine *e, uint64_t seq, cox_task_id task, int64_t wall_ms,
                      struct cox_slice tenant, struct cox_slice key, const struct cox_hash *document)
{
    struct cox_buf text = { 0 };
    key_text(&text, tenant, key);
    struct idem_key *known = cox_mapb_get(&e->keys, cox_buf_slice(&text));
    if (known != NULL && known->entity.applied_seq >= seq) {
        cox_buf_fini(&text);
        return;
    }
    if (known != NULL) { /* an expired key used again before its expiry was recorded cannot be: see keys */
        cox_mapb_remove(&e->keys, cox_buf_slice(&text));
        cox_list_remove(&known->in_keys);
        entity_forget(e, &known->entity);
        cox_free(known->map_key);
        cox_free(known);
    }
    struct idem_key *k = COX_NEW(struct idem_key);
    entity_init(&k->entity, ENTITY_KEY, task, 0);
    k->map_key_len = text.len;
    k->map_key = (char *)text.data; /* the buffer's memory is the key's from here on */
    k->document = *document;
    k->wall_ms = wall_ms;
    cox_mapb_set(&e->keys, cox_slice(k->map_key, k->map_key_len), k);
    cox_list_push_back(&e->key_list, &k->in_keys);
    if (!COX_PLANTED("key-forgotten"))
        entity_touch(e, &k->entity, seq);
}

static void set_image(struct cox_task *t, struct cox_slice image)
{
    t->own_image = true;
    t->image_bytes = cox_alloc(image.len);
    memcpy(t->image_bytes, image.data, image.len);
    t->image.bytes = cox_slice(t->image_bytes, image.len);
}

static void apply_task_number(struct cox_engine *e, uint64_t seq, cox_task_id id)
{
    uint64_t counter = id & 0xffffffffffffULL;
    if (e->meta.entity.applied_seq >= seq)
        return;
    if (counter > e->meta.last_task_counter)
        e->meta.last_task_counter = counter;
    entity_touch(e, &e->meta.entity, seq);
}

void apply_name_of_task(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    const struct record_submitted *s = &r->u.submitted;
    apply_task_number(e, seq, r->task);
    if (r->type == RECORD_TASK_SUBMITTED && s->key.len > 0)
        apply_key(e, seq, r->task, r->wall_ms, s->tenant, s->key, &s->document);
    else if (r->type == RECORD_TASK_FORKED && r->u.forked.key.len > 0)
        apply_key(e, seq, r->task, r->wall_ms, r->u.forked.tenant, r->u.forked.key, &r->u.forked.document);
}

static void apply_submitted(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    apply_name_of_task(e, seq, r);
    struct cox_task *t = cox_map64_get(&e->tasks, r->task);
    if (t == NULL)
        t = task_create(e, r->task);
    if (t->has_header && t->entity.applied_seq >= seq)
        return;
    t->tenant = cox_strndup((const char *)r->u.submitted.tenant.data, r->u.submitted.tenant.len);
    t->key = text_of(r->u.submitted.key);
    t->document = r->u.submitted.document;
    set_image(t, r->u.submitted.image);
    t->schedule = text_of(r->u.submitted.schedule);
    task_pin_templates(t, r->u.submitted.pins);
    t->status = COX_TASK_PENDING;
    t->created_wall_ms = COX_PLANTED("apply-reads-the-clock") ? e->now.wall_ms : r->wall_ms;
    task_init_header(t);
    if (!task_pages_fit(t))
        record_misfit(e);
    entity_touch(e, &t->entity, seq);
}

static void apply_frame_to_parent(struct cox_engine *e, uint64_t seq, struct cox_task *parent,
                                  const struct record *r)
{
    struct step *s = task_step_make(parent, r->u.frame.parent_step);
    struct page *p = step_page(s);
    if (r->u.frame.item != UINT64_MAX || p->entity.applied_seq >= seq)
        return;
    step_expansion(s)->frame = r->task;
    entity_touch(e, &p->entity, seq);
}

static void apply_frame_opened(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    const struct record_frame *f = &r->u.frame;
    apply_name_of_task(e, seq, r);
    struct cox_task *parent = cox_map64_get(&e->tasks, f->parent);
    if (parent == NULL || !parent->has_header)
        return; /* archived and forgotten, and so is the frame */
    frame_attach(e, parent);
    apply_frame_to_parent(e, seq, parent, r);
    struct cox_task *t = cox_map64_get(&e->tasks, r->task);
    if (t == NULL)
        t = task_create(e, r->task);
    if (t->has_header && t->entity.applied_seq >= seq)
        return;
    t->tenant = cox_strdup(parent->tenant);
    t->parent_id = f->parent;
    t->parent_step = f->parent_step;
    t->parent_token = f->token;
    t->parent_item = f->item == UINT64_MAX || !COX_PLANTED("spec-of-frame-lost") ? f->item : 0;
    t->item = value_make(&f->item_json);
    t->args = value_make(&f->args);
    if (f->image.len > 0) {
        set_image(t, f->image);
        task_pin_templates(t, f->pins);
    } else {
        struct cox_image_step entry;
        cox_image_step(&parent->image, f->first, &entry);
        t->first = f->first;
        t->n_steps = 1 + entry.n_inner;
    }
    t->status = COX_TASK_PENDING;
    t->created_wall_ms = r->wall_ms;
    task_init_header(t);
    frame_attach(e, t);
    if (!task_pages_fit(t))
        record_misfit(e);
    entity_touch(e, &t->entity, seq);
}

/* A signal that ended a wait is no longer the root's to give. */
static void apply_signal_taken(struct cox_engine *e, uint64_t seq, struct cox_task *root, uint64_t number)
{
    if (root->entity.applied_seq >= seq || COX_PLANTED("signal-stays"))
        return;
    signal_drop(root, number);
    entity_touch(e, &root->entity, seq);
}

static void apply_worker_named(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    if (e->meta.entity.applied_seq < seq) {
        if (r->u.worker.ref > e->meta.last_worker_ref)
            e->meta.last_worker_ref = r->u.worker.ref;
        entity_touch(e, &e->meta.entity, seq);
    }
    if (worker_by_ref(e, r->u.worker.ref) == NULL)
        entity_touch(e, &worker_make(e, r->u.worker.ref, r->u.worker.id)->entity, seq);
}

static void apply_policy(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    struct worker *w = worker_by_ref(e, r->u.policy.ref);
    if (w == NULL || w->entity.applied_seq >= seq)
        return;
    w->cordoned = r->u.policy.cordoned;
    if (!COX_PLANTED("cordon-not-saved"))
        entity_touch(e, &w->entity, seq);
}

static void apply_key_expired(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    COX_LIST_FOR_EACH (it, &e->key_list) { /* the oldest expire first: found at or near the head */
        struct idem_key *k = COX_CONTAINER_OF(it, struct idem_key, in_keys);
        if (k->entity.id != r->task)
            continue;
        if (k->entity.applied_seq < seq) {
            cox_mapb_remove(&e->keys, cox_slice(k->map_key, k->map_key_len));
            cox_list_remove(&k->in_keys);
            entity_forget(e, &k->entity);
            cox_free(k->map_key);
            cox_free(k);
        }
        return;
    }
}

static void apply_to_step(struct cox_engine *e, uint64_t seq, struct cox_task *t, const struct record *r)
{
    COX_ASSERT(task_contains(t, r->step));
    struct step *s = task_step_make(t, r->step);
    struct page *p = step_page(s);
    if (p->entity.applied_seq < seq || COX_PLANTED("record-applied-twice")) {
        apply_page(t, s, r);
        entity_touch(e, &p->entity, seq);
    }
    if (r->type == RECORD_ATTEMPT_ENDED && s->x != NULL)
        map_drop(e, s->x, seq);
}

/* A record of a task that is not known: the task was archived and forgotten by a checkpoint that this log
 * still reaches behind. */
static void apply_to_task(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    struct cox_task *t = cox_map64_get(&e->tasks, r->task);
    if (t == NULL || !t->has_header)
        return;
    frame_attach(e, t);
    switch (record_place(r->type)) {
    case PLACE_STEP_PAGE:
        apply_to_step(e, seq, t, r);
        break;
    case PLACE_MAP_PAGE:
        map_apply(e, seq, t, r);
        break;
    case PLACE_ELSEWHERE:
        break;
    }
    if (r->type == RECORD_TASK_STOPPING)
        apply_stopping_to_pages(e, t, seq);
    if (r->type == RECORD_TASK_ARCHIVED && e->live) { /* recovery hands it to the archive once more */
        task_destroy(e, t);
        return;
    }
    if (t->entity.applied_seq < seq) {
        bool header = apply_header(t, r), calls = ledger_apply(t, r);
        if (header || calls)
            entity_touch(e, &t->entity, seq);
    }
    if (r->type == RECORD_ATTEMPT_ENDED && r->u.ended.took_signal != 0)
        apply_signal_taken(e, seq, t->root, r->u.ended.took_signal);
}

static void apply_epoch(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    if (e->meta.entity.applied_seq >= seq)
        return;
    e->meta.epoch = r->u.epoch;
    entity_touch(e, &e->meta.entity, seq);
}

void apply(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    switch (r->type) {
    case RECORD_EPOCH:
        apply_epoch(e, seq, r);
        break;
    case RECORD_TASK_SUBMITTED:
        apply_submitted(e, seq, r);
        break;
    case RECORD_WORKER_NAMED:
        apply_worker_named(e, seq, r);
        break;
    case RECORD_POLICY:
        apply_policy(e, seq, r);
        break;
    case RECORD_KEY_EXPIRED:
        apply_key_expired(e, seq, r);
        break;
    case RECORD_PAYLOAD:
        if (!e->live &&
            !COX_PLANTED(
                "values-not-replayed")) /* the state may not have it: recovered() hands it over again */
            payload_replayed(e, r);
        break;
    case RECORD_FRAME_OPENED:
        apply_frame_opened(e, seq, r);
        break;
    case RECORD_USAGE:
        apply_usage(e, seq, r);
        break;
    case RECORD_TASK_EVICTED:
        apply_evicted(e, seq, r);
        break;
    case RECORD_TASK_WOKEN:
        apply_woken(e, seq, r);
        break;
    case RECORD_TASK_REVIVED:
        apply_revived(e, seq, r);
        break;
    case RECORD_TASK_FORKED:
        apply_name_of_task(e, seq, r);
        apply_forked(e, seq, r);
        break;
    case RECORD_TEMPLATE_APPLIED:
    case RECORD_TEMPLATE_DROPPED:
        apply_template(e, seq, r);
        break;
    case RECORD_SCHEDULE_APPLIED:
    case RECORD_SCHEDULE_DELETED:
    case RECORD_SCHEDULE_RAN:
        apply_schedule(e, seq, r);
        break;
    default:
        COX_ASSERT(r->type > 0 && r->type < RECORD_TYPE_END);
        apply_to_task(e, seq, r);
        break;
    }
}

uint64_t emit(struct cox_engine *e, const struct record *r)
{
    uint64_t seq = ++e->seq;
    if (e->fx->n_records++ == 0)
        e->fx->first_seq = seq;
    record_encode(&e->fx->records, r);
    apply(e, seq, r);
    return seq;
}
