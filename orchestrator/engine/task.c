/* Tasks: made from an image, linked in pieces, stopped, finished, archived. */
#include "state.h"

#include <string.h>

/* ---- life of the structure ---- */

/* Ids rise, so the end is the place; only recovery, when a page came without its header, makes one later. */
static void link_by_id(struct cox_engine *e, struct cox_task *t)
{
    struct cox_list *after = e->task_list.prev;
    while (after != &e->task_list && COX_CONTAINER_OF(after, struct cox_task, in_tasks)->id > t->id)
        after = after->prev;
    cox_list_push_front(after, &t->in_tasks);
}

struct cox_task *task_create(struct cox_engine *e, cox_task_id id)
{
    struct cox_task *t = COX_NEW(struct cox_task);
    entity_init(&t->entity, ENTITY_TASK, id, 0);
    t->id = id;
    t->error_step = COX_IMAGE_NONE;
    cox_list_init(&t->in_tasks);
    cox_list_init(&t->in_linking);
    cox_list_init(&t->signals);
    cox_list_init(&t->frames);
    cox_list_init(&t->in_frames);
    cox_list_init(&t->waiters);
    cox_heap_node_init(&t->deadline.node);
    t->deadline.kind = TIMER_DEADLINE;
    cox_heap_node_init(&t->rest.node);
    t->rest.kind = TIMER_REST;
    t->parent_item = UINT64_MAX;
    t->root = t;
    if (e != NULL) {
        cox_map64_set(&e->tasks, id, t);
        link_by_id(e, t);
    }
    return t;
}

void task_init_header(struct cox_task *t)
{
    enum cox_err err = cox_image_open(&t->image, t->image.bytes);
    COX_ASSERT(err == COX_OK); /* checked when it was submitted or loaded */
    cox_image_task(&t->image, &t->doc);
    t->has_header = true;
    uint32_t n_pages = (t->image.n_steps + COX_PAGE_STEPS - 1) / COX_PAGE_STEPS;
    t->pages = cox_realloc(t->pages, n_pages, sizeof t->pages[0]);
    for (; t->n_pages < n_pages; t->n_pages++)
        t->pages[t->n_pages] = NULL;
    t->classes = cox_calloc(t->image.n_classes, sizeof t->classes[0]);
    memset(t->n_by_status, 0, sizeof t->n_by_status);
    t->n_by_status[COX_STEP_BLOCKED] = t->image.n_steps;
}

static void step_fini(struct step *s)
{
    cox_free(s->output);
    cox_free(s->message);
    for (uint32_t i = 0; s->history != NULL && i < s->history->n; i++)
        cox_free(s->history->items[i].message);
    cox_free(s->history);
    if (s->spec != NULL)
        cox_buf_fini(s->spec);
    cox_free(s->spec);
}

static void names_free(struct cox_map64 *names)
{
    size_t it = 0;
    uint64_t ref;
    void *name;
    while (names != NULL && cox_map64_next(names, &it, &ref, &name))
        cox_free(name);
    if (names != NULL)
        cox_map64_fini(names);
    cox_free(names);
}

void task_destroy(struct cox_engine *e, struct cox_task *t)
{
    if (t == NULL)
        return;
    if (e != NULL) /* before its pages: a page without a header is not replayed, a header without a page is */
        entity_forget(e, &t->entity);
    for (uint32_t no = 0; no < t->n_pages; no++) {
        struct page *p = t->pages[no];
        for (uint32_t i = 0; p != NULL && i < p->n_steps; i++) {
            if (e != NULL && e->live)
                step_unready(e, t, &p->steps[i]);
            step_fini(&p->steps[i]);
        }
        if (p != NULL && e != NULL)
            entity_forget(e, &p->entity);
        cox_free(p);
    }
    if (e != NULL) {
        for (uint32_t i = 0; t->classes != NULL && i < t->image.n_classes; i++)
            class_release(e, t->classes[i]);
        timer_clear(e, &t->deadline);
        cox_map64_remove(&e->tasks, t->id);
        cox_list_remove(&t->in_tasks);
        cox_list_remove(&t->in_linking);
        if (e->live)
            e->n_live_steps -= t->image.n_steps;
    }
    names_free(t->worker_names);
    cox_free(t->classes);
    cox_free(t->pages);
    cox_free(t->tenant);
    cox_free(t->key);
    cox_free(t->image_bytes);
    cox_free(t->message);
    cox_free(t->outputs);
    cox_free(t);
}

struct page *page_create(struct cox_task *t, uint32_t no, uint32_t n_steps)
{
    struct page *p = cox_calloc(1, sizeof *p + n_steps * sizeof p->steps[0]);
    entity_init(&p->entity, ENTITY_PAGE, t->id, no);
    p->task = t;
    p->n_steps = n_steps;
    for (uint32_t i = 0; i < n_steps; i++) {
        p->steps[i].index = (uint8_t)i;
        p->steps[i].status = COX_STEP_BLOCKED;
        cox_list_init(&p->steps[i].in_queue);
    }
    t->pages[no] = p;
    return p;
}

struct page *task_page(struct cox_task *t, uint32_t no)
{
    if (t->pages[no] != NULL)
        return t->pages[no];
    uint32_t left = t->image.n_steps - no * COX_PAGE_STEPS;
    return page_create(t, no, left < COX_PAGE_STEPS ? left : COX_PAGE_STEPS);
}

struct step *task_step(const struct cox_task *t, uint32_t step)
{
    return &t->pages[step / COX_PAGE_STEPS]->steps[step % COX_PAGE_STEPS];
}

struct step *task_step_make(struct cox_task *t, uint32_t step)
{
    return &task_page(t, step / COX_PAGE_STEPS)->steps[step % COX_PAGE_STEPS];
}

enum cox_step_status task_step_status(const struct cox_task *t, uint32_t step)
{
    const struct page *p = t->pages[step / COX_PAGE_STEPS];
    return p == NULL ? COX_STEP_BLOCKED : (enum cox_step_status)p->steps[step % COX_PAGE_STEPS].status;
}

struct page *step_page(const struct step *s)
{
    const char *first = (const char *)(s - s->index);
    return (struct page *)(void *)((char *)(uintptr_t)first - offsetof(struct page, steps));
}

uint32_t step_index(const struct step *s)
{
    return step_page(s)->entity.sub * COX_PAGE_STEPS + s->index;
}

static uint64_t step_cpu_us(const struct step *s)
{
    uint64_t cpu = s->cpu_us;
    if (s->history == NULL)
        return cpu;
    if (s->history->n > 0 && s->history->items[s->history->n - 1].number == s->n_attempts)
        cpu = 0; /* the last attempt is in the history already */
    cpu += s->history->forgotten_cpu_us;
    for (uint32_t i = 0; i < s->history->n; i++)
        cpu += s->history->items[i].cpu_us;
    return cpu;
}

void task_derive_sums(struct cox_task *t)
{
    memset(t->n_by_status, 0, sizeof t->n_by_status);
    t->cpu_us = 0;
    for (uint32_t no = 0; no < t->n_pages; no++) {
        const struct page *p = t->pages[no];
        uint32_t left = t->image.n_steps - no * COX_PAGE_STEPS;
        if (p == NULL)
            t->n_by_status[COX_STEP_BLOCKED] += left < COX_PAGE_STEPS ? left : COX_PAGE_STEPS;
        for (uint32_t i = 0; p != NULL && i < p->n_steps; i++) {
            t->n_by_status[p->steps[i].status]++;
            t->cpu_us += step_cpu_us(&p->steps[i]);
        }
    }
}

/* ---- submission ---- */

static void reply_submit(struct cox_engine *e, uint64_t request, enum cox_err err, cox_task_id id,
                         bool existed, int64_t retry_ms, const char *message)
{
    struct cox_action *a = act(e, COX_ACT_REPLY);
    a->u.reply = (struct cox_act_reply){ .request = request,
                                         .err = err,
                                         .task = id,
                                         .status = err == COX_OK ? COX_TASK_PENDING : COX_TASK_NONE,
                                         .existed = existed,
                                         .retry_ms = retry_ms,
                                         .message = message };
}

/* True when the key settles the matter: the same task again, or another under its name. */
static bool submit_known_key(struct cox_engine *e, const struct cox_in_submit *in)
{
    struct cox_buf text = { 0 };
    key_text(&text, in->tenant, in->key);
    struct idem_key *k = cox_mapb_get(&e->keys, cox_buf_slice(&text));
    cox_buf_fini(&text);
    if (k == NULL)
        return false;
    if (e->now.wall_ms - k->wall_ms >= COX_IDEMPOTENCY_HOLD_MS) {
        emit(e, &(struct record){ .type = RECORD_KEY_EXPIRED, .task = k->entity.id });
        return false;
    }
    if (memcmp(k->document.b, in->document.b, sizeof k->document.b) == 0)
        reply_submit(e, in->request, COX_OK, k->entity.id, true, 0, NULL);
    else
        reply_submit(e, in->request, COX_ERR_EXISTS, k->entity.id, true, 0,
                     "the idempotency key was used for another document, input or label");
    return true;
}

static bool submit_has_room(const struct cox_engine *e, const struct cox_image *img)
{
    uint64_t max = e->config.live_steps_max != 0 ? e->config.live_steps_max : COX_LIVE_STEPS_MAX;
    return e->n_live_steps + img->n_steps <= max && e->tasks.len < COX_LIVE_TASKS_MAX &&
           e->classes_by_key.len - e->n_idle_classes + img->n_classes <= COX_CLASSES_MAX;
}

void task_submit(struct cox_engine *e, const struct cox_in_submit *in)
{
    struct cox_image img;
    if (in->key.len > 0 && submit_known_key(e, in))
        return;
    if (cox_image_open(&img, in->image) != COX_OK || img.n_steps == 0) {
        reply_submit(e, in->request, COX_ERR_INTERNAL, 0, false, 0, "the compiled document is damaged");
        return;
    }
    if (in->key.len > 0 && e->keys.len >= COX_IDEMPOTENCY_KEYS_MAX) {
        reply_submit(e, in->request, COX_ERR_FULL, 0, false, 1000,
                     "too many idempotency keys of the last day");
        return;
    }
    if (!submit_has_room(e, &img)) {
        reply_submit(e, in->request, COX_ERR_FULL, 0, false, 1000, "too many live steps");
        return;
    }
    struct record r = { .type = RECORD_TASK_SUBMITTED,
                        .task = ((uint64_t)e->config.shard << 48) | (e->meta.last_task_counter + 1),
                        .wall_ms = e->now.wall_ms };
    r.u.submitted.tenant = in->tenant;
    r.u.submitted.key = in->key;
    r.u.submitted.document = in->document;
    r.u.submitted.image = in->image;
    emit(e, &r);
    struct cox_task *t = cox_map64_get(&e->tasks, r.task);
    reply_submit(e, in->request, COX_OK, r.task, false, 0, NULL);
    e->n_live_steps += t->image.n_steps;
    task_arm_deadline(e, t);
    cox_list_push_back(&e->linking, &t->in_linking);
}

void task_arm_deadline(struct cox_engine *e, struct cox_task *t)
{
    if (t->doc.deadline_ms == 0 || t->stopping != COX_TASK_NONE || cox_task_status_final(t->status))
        return;
    timer_set(e, &t->deadline, mono_after(e, t->doc.deadline_ms - (e->now.wall_ms - t->created_wall_ms)));
}

/* ---- linking: the task's steps become visible to placement, some a turn ---- */

static void acquire_class(struct cox_engine *e, struct cox_task *t, uint32_t call_index)
{
    struct cox_image_call call;
    if (call_index == COX_IMAGE_NONE)
        return;
    cox_image_call(&t->image, call_index, &call);
    if (t->classes[call.class_index] == NULL)
        t->classes[call.class_index] = class_acquire(e, &t->image, call.class_index);
}

static void link_step(struct cox_engine *e, struct cox_task *t, uint32_t i)
{
    struct step *s = task_step_make(t, i);
    struct cox_image_step doc;
    cox_image_step(&t->image, i, &doc);
    acquire_class(e, t, doc.call);
    acquire_class(e, t, doc.fallback);
    s->n_waiting = 0;
    for (uint32_t k = 0; k < doc.n_needs; k++)
        if (!cox_step_status_final(task_step_status(t, cox_image_need(&t->image, i, k))))
            s->n_waiting++;
    if (s->n_waiting == 0 && !cox_step_status_final((enum cox_step_status)s->status))
        step_consider(e, t, i);
    settle_all(e); /* now: a dependant linked later finds this step final and does not wait for it */
}

#define FITS_A_STEP 64 /* looks at a worker for a new class that cost as much as linking a step */

void task_link(struct cox_engine *e, struct cox_task *t, int64_t *budget)
{
    while (t->link_next<t->image.n_steps && * budget> 0) {
        uint64_t n_fits = e->n_fits;
        link_step(e, t, t->link_next++);
        *budget -= 1 + (int64_t)((e->n_fits - n_fits) / FITS_A_STEP);
    }
    if (t->link_next == t->image.n_steps)
        cox_list_remove(&t->in_linking);
}

void task_link_some(struct cox_engine *e)
{
    int64_t budget = COX_LINK_STEPS_PER_TURN;
    while (budget > 0 && !cox_list_empty(&e->linking)) {
        struct cox_task *t = COX_CONTAINER_OF(e->linking.next, struct cox_task, in_linking);
        task_link(e, t, &budget);
        task_maybe_finish(e, t);
    }
}

/* ---- the end ---- */

void task_stop(struct cox_engine *e, struct cox_task *t, enum cox_task_status into, enum cox_code code,
               const char *message)
{
    if (t->stopping != COX_TASK_NONE || cox_task_status_final(t->status))
        return;
    timer_clear(e, &t->deadline);
    cox_list_remove(&t->in_linking); /* what is not linked yet is cancelled by the record */
    for (uint32_t no = 0; no < t->n_pages; no++)
        for (uint32_t i = 0; t->pages[no] != NULL && i < t->pages[no]->n_steps; i++)
            step_unready(e, t, &t->pages[no]->steps[i]);
    struct record r = { .type = RECORD_TASK_STOPPING, .task = t->id, .wall_ms = e->now.wall_ms };
    r.u.stopping.into = into;
    r.u.stopping.code = code;
    r.u.stopping.message = cox_slice_str(message);
    emit(e, &r);
    t->link_next = t->image.n_steps;
    changed(e, t, COX_IMAGE_NONE);
    for (uint32_t no = 0; no < t->n_pages; no++)
        for (uint32_t i = 0; i < t->pages[no]->n_steps; i++)
            if (t->pages[no]->steps[i].attempt != NULL)
                attempt_cancel(e, t->pages[no]->steps[i].attempt);
    task_maybe_finish(e, t);
}

void task_cancel(struct cox_engine *e, const struct cox_in_cancel *in)
{
    struct cox_task *t = cox_map64_get(&e->tasks, in->task);
    if (t != NULL) {
        char *reason = cox_strndup((const char *)in->reason.data, in->reason.len);
        task_stop(e, t, COX_TASK_CANCELLED, COX_CODE_CANCELLED,
                  in->reason.len > 0 ? reason : "cancelled by request");
        cox_free(reason);
        t = cox_map64_get(&e->tasks, in->task);
    }
    struct cox_action *a = act(e, COX_ACT_REPLY);
    a->u.reply = (struct cox_act_reply){ .request = in->request,
                                         .err = t == NULL ? COX_ERR_NOT_FOUND : COX_OK,
                                         .task = in->task,
                                         .status = t == NULL ? COX_TASK_NONE : t->status };
}

static bool task_all_final(const struct cox_task *t)
{
    uint32_t n = 0;
    for (int s = COX_STEP_SUCCEEDED; s < COX_STEP_STATUS_NR; s++)
        n += t->n_by_status[s];
    return n == t->image.n_steps;
}

static void task_finish(struct cox_engine *e, struct cox_task *t, const struct record_finished *f)
{
    timer_clear(e, &t->deadline);
    if (f->outputs.kind == COX_PAYLOAD_STORED)
        payload_keep(e, &f->outputs);
    struct record r = { .type = RECORD_TASK_FINISHED, .task = t->id, .wall_ms = e->now.wall_ms };
    r.u.finished = *f;
    emit(e, &r);
    e->stats.tasks_finished[f->status]++;
    changed(e, t, COX_IMAGE_NONE);
    task_archive(e, t);
}

static void finish_with_error(struct cox_engine *e, struct cox_task *t, enum cox_code code,
                              struct cox_slice message)
{
    struct record_finished f = { .status = COX_TASK_FAILED, .code = code, .message = message };
    task_finish(e, t, &f);
}

/* Outputs small enough to evaluate here; larger ones went to the compile thread. */
static void finish_with_outputs(struct cox_engine *e, struct cox_task *t)
{
    struct cox_buf json = { 0 }, error = { 0 };
    struct cox_eval_env env;
    eval_env_init(&env, t, COX_IMAGE_NONE);
    enum cox_err err = COX_OK;
    if (t->doc.outputs_template == COX_IMAGE_NONE)
        cox_buf_append_str(&json, "{}");
    else
        err = cox_eval_template(&t->image, t->doc.outputs_template, &env, &json, &error);
    if (err == COX_OK && json.len > COX_LOGGED_PAYLOAD_LEN_MAX) {
        err = COX_ERR_INVALID;
        cox_buf_printf(&error, "outputs of %zu bytes; at most %u fit", json.len, COX_LOGGED_PAYLOAD_LEN_MAX);
    }
    if (err == COX_OK) {
        struct record_finished f = { .status = COX_TASK_SUCCEEDED };
        f.outputs.kind = COX_PAYLOAD_INLINE;
        f.outputs.bytes = cox_buf_slice(&json);
        f.outputs.size = json.len;
        task_finish(e, t, &f);
    } else {
        finish_with_error(e, t, COX_CODE_OUTPUT_INVALID, cox_buf_slice(&error));
    }
    cox_buf_fini(&json);
    cox_buf_fini(&error);
}

void task_maybe_finish(struct cox_engine *e, struct cox_task *t)
{
    if (cox_task_status_final(t->status) || t->outputs_evaluating || !task_all_final(t))
        return;
    if (t->stopping != COX_TASK_NONE || t->code != COX_CODE_NONE) {
        struct record_finished f = { .status = t->stopping != COX_TASK_NONE ? t->stopping : COX_TASK_FAILED,
                                     .code = t->code,
                                     .message = cox_slice_str(t->message) };
        char *kept = cox_strdup(t->message != NULL ? t->message : ""); /* the record replaces what it names */
        f.message = cox_slice_str(kept);
        task_finish(e, t, &f);
        cox_free(kept);
    } else if (t->doc.outputs_template != COX_IMAGE_NONE && template_is_large(t, t->doc.outputs_template)) {
        t->outputs_evaluating = true;
        evaluate_later(e, t, COX_IMAGE_NONE, t->doc.outputs_template, false);
    } else {
        finish_with_outputs(e, t);
    }
}

void task_finish_evaluated(struct cox_engine *e, struct cox_task *t, const struct cox_in_evaluated *in)
{
    t->outputs_evaluating = false;
    if (cox_task_status_final(t->status))
        return;
    if (t->stopping != COX_TASK_NONE) {
        task_maybe_finish(e, t);
    } else if (in->ok) {
        struct record_finished f = { .status = COX_TASK_SUCCEEDED, .outputs = in->value };
        task_finish(e, t, &f);
    } else {
        finish_with_error(e, t, COX_CODE_OUTPUT_INVALID, in->error);
    }
}

void task_archive(struct cox_engine *e, struct cox_task *t)
{
    struct cox_buf bytes = { 0 };
    task_freeze(e, t, &bytes);
    struct cox_action *a = act(e, COX_ACT_ARCHIVE);
    a->u.archive.task = t->id;
    a->u.archive.bytes = cox_slice(cox_arena_dup(&e->fx->arena, bytes.data, bytes.len), bytes.len);
    cox_buf_fini(&bytes);
}

/* The archive has it. A task whose evaluation is still out keeps its image until that came back. */
void task_archived(struct cox_engine *e, struct cox_task *t)
{
    t->archived = true;
    if (t->n_evaluations == 0 && cox_task_status_final(t->status))
        emit(e, &(struct record){ .type = RECORD_TASK_ARCHIVED, .task = t->id });
}

/* ---- idempotency keys ---- */

#define KEYS_EXPIRED_PER_TURN 1000

void keys_expire(struct cox_engine *e)
{
    for (int n = 0; n < KEYS_EXPIRED_PER_TURN && !cox_list_empty(&e->key_list); n++) {
        struct idem_key *k = COX_CONTAINER_OF(e->key_list.next, struct idem_key, in_keys);
        if (e->now.wall_ms - k->wall_ms < COX_IDEMPOTENCY_HOLD_MS)
            break;
        emit(e, &(struct record){ .type = RECORD_KEY_EXPIRED, .task = k->entity.id });
    }
}
