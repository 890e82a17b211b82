/* Tasks: made from an image, linked in pieces, stopped, finished, archived. */
#include "expand/expand.h"
#include "gate.h"
#include "quarantine.h"
#include "route.h"
#include "schedule.h"
#include "stats.h"
#include "template.h"
#include "workspace.h"

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

static void pages_reserve(struct cox_task *t)
{
    uint32_t n_pages = (t->n_steps + COX_PAGE_STEPS - 1) / COX_PAGE_STEPS;
    if (n_pages <= t->n_pages)
        return;
    t->pages = cox_realloc(t->pages, n_pages, sizeof t->pages[0]);
    for (; t->n_pages < n_pages; t->n_pages++)
        t->pages[t->n_pages] = NULL;
}

static void image_opened(struct cox_task *t)
{
    enum cox_err err = cox_image_open(&t->image, t->image.bytes);
    COX_ASSERT(err == COX_OK); /* checked when it was submitted or loaded */
    cox_image_task(&t->image, &t->doc);
    if (t->own_image)
        t->n_steps = t->image.n_steps;
    t->classes = cox_calloc(t->image.n_classes > 0 ? t->image.n_classes : 1, sizeof t->classes[0]);
    memset(t->n_by_status, 0, sizeof t->n_by_status);
    t->n_by_status[COX_STEP_BLOCKED] = task_n_members(t);
}

void task_init_header(struct cox_task *t)
{
    t->has_header = true;
    if (t->image_bytes != NULL)
        image_opened(t);
    pages_reserve(t);
}

static bool range_fits(const struct cox_task *t, const struct cox_task *parent)
{
    return parent->image.bytes.len > 0 && t->first < parent->image.n_steps &&
           t->n_steps <= parent->image.n_steps - t->first;
}

/* A frame over a range of its parent's image borrows it; in recovery the parent may come later. */
void frame_attach(struct cox_engine *e, struct cox_task *t)
{
    if (t->parent != NULL || t->parent_id == 0)
        return;
    struct cox_task *parent = cox_map64_get(&e->tasks, t->parent_id);
    if (parent == NULL || !parent->has_header || parent->id >= t->id)
        return;
    frame_attach(e, parent);
    if (t->image_bytes == NULL && !range_fits(t, parent))
        return;
    t->parent = parent;
    t->root = parent->root;
    t->depth = parent->depth + 1;
    parent->n_children++;
    cox_list_push_back(&t->root->frames, &t->in_frames);
    if (t->image_bytes == NULL) {
        t->image.bytes = parent->image.bytes;
        image_opened(t);
    }
}

static void step_fini(struct cox_engine *e, struct step *s)
{
    expansion_free(e, s);
    cox_free(s->output);
    cox_free(s->message);
    for (uint32_t i = 0; s->history != NULL && i < s->history->n; i++)
        cox_free(s->history->items[i].message);
    cox_free(s->history);
    files_free(s->files);
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

static void step_drop(struct cox_engine *e, struct cox_task *t, struct step *s)
{
    step_unready(e, t, s);
    gate_leave(e, s);
}

static void page_free(struct cox_engine *e, struct page *p)
{
    for (uint32_t i = 0; p != NULL && i < p->n_steps; i++) {
        if (e != NULL && e->live)
            step_drop(e, p->task, &p->steps[i]);
        step_fini(e, &p->steps[i]);
    }
    cox_free(p);
}

/* What a task was before it slept or ended is no part of what it is when it comes back. Replay may have made
 * it anew, or found it: a checkpoint that ended half way forgets a header before its pages. */
bool page_is_newer(struct cox_engine *e, struct cox_task *t, uint32_t no, uint64_t seq)
{
    struct page *p = t->pages[no];
    if (p == NULL || p->entity.applied_seq >= seq)
        return p != NULL;
    entity_forget(e, &p->entity);
    t->pages[no] = NULL;
    page_free(e, p);
    return false;
}

void task_destroy(struct cox_engine *e, struct cox_task *t)
{
    if (t == NULL)
        return;
    if (e != NULL) /* before its pages: a page without a header is not replayed, a header without a page is */
        entity_forget(e, &t->entity);
    for (uint32_t no = 0; no < t->n_pages; no++) {
        struct page *p = t->pages[no];
        if (p != NULL && e != NULL)
            entity_forget(e, &p->entity);
        page_free(e, p);
    }
    if (e != NULL) {
        for (uint32_t i = 0; t->classes != NULL && i < t->image.n_classes; i++)
            class_release(e, t->classes[i]);
        timer_clear(e, &t->deadline);
        templates_release_task(e, t);
        timer_clear(e, &t->rest);
        cox_list_remove(&t->in_frames);
        if (t->parent != NULL)
            t->parent->n_children--;
        cox_map64_remove(&e->tasks, t->id);
        cox_list_remove(&t->in_tasks);
        cox_list_remove(&t->in_linking);
        if (e->live)
            e->n_live_steps -= t->n_steps;
        stats_task_gone(e, t);
    }
    cox_free(t->workspace_owners);
    ledger_free(t->ledger);
    cox_free(t->after_ms);
    cox_free(t->workspace_workers);
    names_free(t->worker_names);
    task_free_words(t);
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
    return page_create(t, no, page_n_steps(t, no));
}

uint32_t page_n_steps(const struct cox_task *t, uint32_t no)
{
    uint32_t left = t->n_steps - no * COX_PAGE_STEPS;
    return left < COX_PAGE_STEPS ? left : COX_PAGE_STEPS;
}

bool task_has_step(const struct cox_task *t, uint32_t step)
{
    return t->pages[(step - t->first) / COX_PAGE_STEPS] != NULL;
}

struct step *task_step(const struct cox_task *t, uint32_t step)
{
    step -= t->first;
    return &t->pages[step / COX_PAGE_STEPS]->steps[step % COX_PAGE_STEPS];
}

struct step *task_step_make(struct cox_task *t, uint32_t step)
{
    step -= t->first;
    return &task_page(t, step / COX_PAGE_STEPS)->steps[step % COX_PAGE_STEPS];
}

enum cox_step_status task_step_status(const struct cox_task *t, uint32_t step)
{
    step -= t->first;
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
    return step_page(s)->task->first + step_page(s)->entity.sub * COX_PAGE_STEPS + s->index;
}

uint64_t step_cpu_us(const struct step *s)
{
    uint64_t cpu = attempt_is_past(s) ? 0 : s->cpu_us;
    if (s->history == NULL)
        return cpu;
    cpu += s->history->forgotten_cpu_us;
    for (uint32_t i = 0; i < s->history->n; i++)
        cpu += s->history->items[i].cpu_us;
    return cpu;
}

void task_derive_sums(struct cox_task *t)
{
    memset(t->n_by_status, 0, sizeof t->n_by_status);
    t->cpu_us = 0;
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        t->n_by_status[task_step_status(t, i)]++;
        if (task_has_step(t, i))
            t->cpu_us += step_cpu_us(task_step(t, i));
    }
}

/* ---- submission ---- */

#define SUBMIT_RETRY_MS 1000
#define TOO_MANY_STEPS "too many live steps"

static void reply_submit(struct cox_engine *e, uint64_t request, enum cox_err err, bool existed,
                         const struct task_made *made)
{
    struct cox_action *a = act(e, COX_ACT_REPLY);
    a->u.reply = (struct cox_act_reply){ .request = request,
                                         .err = err,
                                         .task = made->task,
                                         .status = err == COX_OK ? COX_TASK_PENDING : COX_TASK_NONE,
                                         .existed = existed,
                                         .retry_ms = err == COX_ERR_FULL ? SUBMIT_RETRY_MS : 0,
                                         .message = made->message,
                                         .place = made->place };
}

/* True when the key settles the matter: the same task again, or another under its name. */
bool task_known_key(struct cox_engine *e, const struct cox_in_submit *in)
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
    if (memcmp(k->document.b, in->document.b, sizeof k->document.b) == 0 ||
        COX_PLANTED("key-for-any-document"))
        reply_submit(e, in->request, COX_OK, true, &(struct task_made){ .task = k->entity.id });
    else
        reply_submit(e, in->request, COX_ERR_EXISTS, true,
                     &(struct task_made){
                         .task = k->entity.id,
                         .message = "the idempotency key was used for another document, input or label" });
    return true;
}

bool task_has_room(struct cox_engine *e, const struct cox_image *img)
{
    uint64_t max = e->config.live_steps_max != 0 ? e->config.live_steps_max : COX_LIVE_STEPS_MAX;
    if (e->n_live_steps + img->n_steps <= max && e->tasks.len < COX_LIVE_TASKS_MAX &&
        e->classes_by_key.len - e->n_idle_classes + img->n_classes <= COX_CLASSES_MAX)
        return true;
    e->stats.refused_full++;
    return false;
}

void task_refuse_full(struct cox_engine *e, uint64_t request)
{
    reply_submit(e, request, COX_ERR_FULL, false, &(struct task_made){ .message = TOO_MANY_STEPS });
}

/* Pins what the image names. False: one of them is not there, and `ret` says which. */
static bool submit_pins(struct cox_engine *e, const struct cox_in_submit *in, const struct cox_image *img,
                        struct cox_buf *pins, struct task_made *ret)
{
    struct cox_slice missing;
    if (templates_resolve(e, in->tenant, img, pins, &missing))
        return true;
    struct cox_buf text = { 0 };
    template_missing(&text, missing);
    ret->message = cox_arena_dup(&e->fx->arena, cox_buf_cstr(&text), text.len + 1);
    ret->place = template_place(img, missing, &e->fx->arena);
    cox_buf_fini(&text);
    return false;
}

enum cox_err task_make(struct cox_engine *e, const struct cox_in_submit *in, struct cox_slice schedule,
                       struct task_made *ret)
{
    struct cox_image img;
    struct cox_buf pins = { 0 };
    *ret = (struct task_made){ 0 };
    if (cox_image_open(&img, in->image) != COX_OK || img.n_steps == 0) {
        ret->message = "the compiled document is damaged";
        return COX_ERR_INTERNAL;
    }
    if (in->key.len > 0 && e->keys.len >= COX_IDEMPOTENCY_KEYS_MAX) {
        ret->message = "too many idempotency keys of the last day";
        return COX_ERR_FULL;
    }
    if (!task_has_room(e, &img)) {
        ret->message = TOO_MANY_STEPS;
        return COX_ERR_FULL;
    }
    if (!submit_pins(e, in, &img, &pins, ret)) {
        cox_buf_fini(&pins);
        return COX_ERR_INVALID;
    }
    struct record r = { .type = RECORD_TASK_SUBMITTED,
                        .task = ((uint64_t)e->config.shard << 48) | (e->meta.last_task_counter + 1),
                        .wall_ms = e->now.wall_ms };
    r.u.submitted.tenant = in->tenant;
    r.u.submitted.key = in->key;
    r.u.submitted.document = in->document;
    r.u.submitted.image = in->image;
    r.u.submitted.schedule = schedule;
    r.u.submitted.pins = cox_buf_slice(&pins);
    emit(e, &r);
    cox_buf_fini(&pins);
    ret->task = r.task;
    struct cox_task *t = cox_map64_get(&e->tasks, r.task);
    task_begin(e, t);
    task_index(e, t);
    return COX_OK;
}

void task_submit(struct cox_engine *e, const struct cox_in_submit *in)
{
    struct task_made made;
    if (in->key.len > 0 && task_known_key(e, in))
        return;
    enum cox_err err = task_make(e, in, cox_slice(NULL, 0), &made);
    reply_submit(e, in->request, err, false, &made);
}

/* A task or frame that the last record has made. */
void task_begin(struct cox_engine *e, struct cox_task *t)
{
    e->n_live_steps += t->n_steps;
    t->link_next = t->first;
    templates_hold_task(e, t);
    if (t->own_image)
        bundle_keep(e, t->root->id, t->doc.bundle);
    if (t->parent_id == 0)
        inputs_keep(e, t->id, t->doc.inputs_json); /* a frame's are of its root's values */
    task_arm_deadline(e, t);
    cox_list_push_back(&e->linking, &t->in_linking);
    if (t->own_image)
        versions_pin(e, t);
    stats_task(e, t);
}

void task_arm_deadline(struct cox_engine *e, struct cox_task *t)
{
    if (t->doc.deadline_ms == 0 || !t->own_image || t->stopping != COX_TASK_NONE ||
        cox_task_status_final(t->status))
        return;
    int64_t from_ms = t->revived_wall_ms > 0 ? t->revived_wall_ms : t->created_wall_ms;
    if (COX_PLANTED("deadline-begins-anew"))
        from_ms = e->now.wall_ms;
    timer_set(e, &t->deadline, mono_after(e, t->doc.deadline_ms - (e->now.wall_ms - from_ms)));
}

/* ---- linking: the task's steps become visible to placement, some a turn ---- */

static void acquire_class(struct cox_engine *e, struct cox_task *t, uint32_t call_index)
{
    struct cox_image_call call;
    if (call_index == COX_IMAGE_NONE)
        return;
    cox_image_call(&t->image, call_index, &call);
    if (call.class_index == COX_IMAGE_NONE)
        return;
    if (t->classes[call.class_index] == NULL)
        t->classes[call.class_index] = class_acquire(e, &t->image, call.class_index);
}

void task_acquire_classes(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    acquire_class(e, t, doc.call);
    acquire_class(e, t, doc.fallback);
}

static void link_step(struct cox_engine *e, struct cox_task *t, uint32_t i)
{
    struct step *s = task_step_make(t, i);
    struct cox_image_step doc;
    cox_image_step(&t->image, i, &doc);
    task_acquire_classes(e, t, i);
    s->n_waiting = 0; /* what a frame's steps refer to outside it has ended */
    for (uint32_t k = COX_PLANTED("first-need-not-awaited"); k < doc.n_needs; k++)
        if (task_contains(t, cox_image_need(&t->image, i, k)) &&
            !cox_step_status_final(task_step_status(t, cox_image_need(&t->image, i, k))))
            s->n_waiting++;
    if (s->n_waiting == 0 && !cox_step_status_final((enum cox_step_status)s->status) &&
        !step_is_closed(t, i, s))
        step_consider(e, t, i);
    settle_all(e); /* now: a dependant linked later finds this step final and does not wait for it */
}

#define FITS_A_STEP 64 /* looks at a worker for a new class that cost as much as linking a step */

void task_link(struct cox_engine *e, struct cox_task *t, int64_t *budget)
{
    uint32_t end = t->first + t->n_steps;
    while (t->link_next<end && * budget> 0) {
        uint64_t n_fits = e->n_fits;
        uint32_t step = cox_task_next_step(t, t->link_next);
        t->link_next = step == COX_IMAGE_NONE ? end : step + 1;
        if (step == COX_IMAGE_NONE)
            break;
        place_derive(e, t, STAGE_LINK, step);
        link_step(e, t, step);
        *budget -= 1 + (int64_t)((e->n_fits - n_fits) / FITS_A_STEP);
    }
    if (t->link_next == end)
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

/* Steps that have begun end by themselves, once what they have begun has stopped. */
static void stop_begun(struct cox_engine *e, struct cox_task *t)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        struct step *s = task_step(t, i);
        if (s->attempt != NULL)
            attempt_cancel(e, s->attempt);
        else if (s->status == COX_STEP_WAITING)
            expand_stop(e, t, i);
    }
}

void task_stop(struct cox_engine *e, struct cox_task *t, enum cox_task_status into, enum cox_code code,
               const char *message)
{
    if (t->stopping != COX_TASK_NONE || cox_task_status_final(t->status))
        return;
    timer_clear(e, &t->deadline);
    cox_list_remove(&t->in_linking); /* what is not linked yet is cancelled by the record */
    for (uint32_t no = 0; no < t->n_pages; no++)
        for (uint32_t i = 0; t->pages[no] != NULL && i < t->pages[no]->n_steps; i++)
            if (t->pages[no]->steps[i].backoff == NULL || !COX_PLANTED("stop-leaves-backoff"))
                step_unready(e, t, &t->pages[no]->steps[i]);
    struct record r = { .type = RECORD_TASK_STOPPING, .task = t->id, .wall_ms = e->now.wall_ms };
    r.u.stopping.into = into;
    r.u.stopping.code = code;
    r.u.stopping.message = cox_slice_str(message);
    stats_steps_cancelled(e, t);
    emit(e, &r);
    t->link_next = t->first + t->n_steps;
    changed(e, t, COX_IMAGE_NONE);
    stop_begun(e, t);
    task_maybe_finish(e, t);
}

static bool task_all_final(const struct cox_task *t)
{
    uint32_t n = 0;
    for (int s = COX_STEP_SUCCEEDED; s < COX_STEP_STATUS_NR; s++)
        n += t->n_by_status[s];
    return n == task_n_members(t);
}

void task_finish(struct cox_engine *e, struct cox_task *t, const struct record_finished *f)
{
    timer_clear(e, &t->deadline);
    payload_keep(e, t->root->id, &f->outputs);
    struct record r = { .type = RECORD_TASK_FINISHED, .task = t->id, .wall_ms = e->now.wall_ms };
    r.u.finished = *f;
    emit(e, &r);
    changed(e, t, COX_IMAGE_NONE);
    task_archive(e, t);
    if (t->parent != NULL) {
        frame_ended(e, t, &f->outputs);
        return;
    }
    stats_task_finished(e, t, f->status);
    task_index(e, t);
    schedule_task_ended(e, t);
}

static void finish_with_error(struct cox_engine *e, struct cox_task *t, enum cox_code code,
                              struct cox_slice message)
{
    struct record_finished f = { .status = COX_TASK_FAILED, .code = code, .message = message };
    task_finish(e, t, &f);
}

static void finish_with_outputs_later(struct cox_engine *e, struct cox_task *t)
{
    t->outputs_evaluating = true;
    evaluate_later(e, t, COX_IMAGE_NONE, t->doc.outputs_template, ASKED_OUTPUTS);
}

/* Made of small values, so evaluated here; what they come to may be large all the same. */
static void finish_with_outputs(struct cox_engine *e, struct cox_task *t)
{
    struct cox_buf json = { 0 }, error = { 0 };
    struct cox_eval_env env;
    struct frame_values values;
    eval_env_init(&env, &values, t, COX_IMAGE_NONE);
    enum cox_err err = COX_OK;
    if (t->doc.outputs_template == COX_IMAGE_NONE)
        cox_buf_append_str(&json, "{}");
    else
        err = cox_eval_template(&t->image, t->doc.outputs_template, &env, &json, &error);
    if (err == COX_OK && json.len > COX_INLINE_PAYLOAD_LEN_MAX) {
        finish_with_outputs_later(e, t); /* the engine has no name for it: it would have to hash */
    } else if (err == COX_OK) {
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
    bool failed = t->code != COX_CODE_NONE && !t->doc.outputs_always;
    if (!t->own_image) {
        frame_finish_range(e, t);
    } else if (t->stopping != COX_TASK_NONE || failed) {
        struct record_finished f = { .status = t->stopping != COX_TASK_NONE ? t->stopping : COX_TASK_FAILED,
                                     .code = t->code,
                                     .message = cox_slice_str(t->message) };
        char *kept = cox_strdup(t->message != NULL ? t->message : ""); /* the record replaces what it names */
        f.message = cox_slice_str(kept);
        task_finish(e, t, &f);
        cox_free(kept);
    } else if (t->doc.outputs_template != COX_IMAGE_NONE && template_is_large(t, t->doc.outputs_template)) {
        finish_with_outputs_later(e, t);
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

static void hand_to_archive(struct cox_engine *e, const struct cox_task *t)
{
    struct cox_buf bytes = { 0 };
    task_freeze(e, t, &bytes);
    struct cox_action *a = act(e, COX_ACT_ARCHIVE);
    a->u.archive.task = t->id;
    a->u.archive.root = t->root->id;
    a->u.archive.bytes = cox_slice(cox_arena_dup(&e->fx->arena, bytes.data, bytes.len), bytes.len);
    cox_buf_fini(&bytes);
}

void task_archive(struct cox_engine *e, struct cox_task *t)
{
    if (t->parent == NULL)
        workspaces_release(e, t);
    hand_to_archive(e, t);
}

/* What ListTasks knows of it. */
void task_index(struct cox_engine *e, const struct cox_task *t)
{
    struct cox_arena *arena = &e->fx->arena;
    struct cox_label *labels = cox_arena_alloc(arena, (t->image.n_labels + 1) * sizeof *labels);
    struct cox_slice tenant = cox_slice_str(t->tenant);
    for (uint32_t i = 0; i < t->image.n_labels; i++) {
        struct cox_slice name, value;
        cox_image_label(&t->image, i, &name, &value);
        labels[i].name = cox_slice(cox_arena_dup(arena, name.data, name.len), name.len);
        labels[i].value = cox_slice(cox_arena_dup(arena, value.data, value.len), value.len);
    }
    struct cox_act_index x = { .task = t->id,
                               .status = cox_task_status_final(t->status) ? t->status : COX_TASK_PENDING,
                               .created_wall_ms = t->created_wall_ms,
                               .finished_wall_ms = t->finished_wall_ms,
                               .labels = labels,
                               .n_labels = t->image.n_labels };
    x.name = cox_slice(cox_arena_dup(arena, t->doc.name.data, t->doc.name.len), t->doc.name.len);
    x.tenant = cox_slice(cox_arena_dup(arena, tenant.data, tenant.len), tenant.len);
    act(e, COX_ACT_INDEX)->u.index = x;
}

void tasks_archive_again(struct cox_engine *e, struct cox_task *t)
{
    for (const struct cox_task *in = t; in != NULL && !COX_PLANTED("late-usage-not-archived");
         in = in->parent)
        if (cox_task_status_final(in->status))
            hand_to_archive(e, in);
    if (t->archived)
        task_archived(e, t);
}

/* The archive has it. A task whose evaluation is still out keeps its image until that came back, one whose
 * processes still call models until it is known what they used, and one whose frames are still here stays
 * until the last of them has gone. */
void task_archived(struct cox_engine *e, struct cox_task *t)
{
    t->archived = true;
    while (t != NULL && t->archived &&
           (t->n_evaluations == 0 || COX_PLANTED("ends-with-its-evaluation-out")) &&
           (t->n_children == 0 || COX_PLANTED("archived-with-frames-left")) &&
           (!ledger_has_calls(t->ledger) || COX_PLANTED("books-close-with-calls-under-way")) &&
           cox_task_status_final(t->status)) {
        struct cox_task *parent = t->parent;
        emit(e, &(struct record){ .type = RECORD_TASK_ARCHIVED, .task = t->id });
        t = parent;
    }
}

/* ---- idempotency keys ---- */

#define KEYS_EXPIRED_PER_TURN 1000

void keys_expire(struct cox_engine *e)
{
    for (int n = 0; n < KEYS_EXPIRED_PER_TURN && !cox_list_empty(&e->key_list); n++) {
        struct idem_key *k = COX_CONTAINER_OF(e->key_list.next, struct idem_key, in_keys);
        if (e->now.wall_ms - k->wall_ms <
            COX_IDEMPOTENCY_HOLD_MS / (COX_PLANTED("key-expires-too-soon") ? 2 : 1))
            break;
        emit(e, &(struct record){ .type = RECORD_KEY_EXPIRED, .task = k->entity.id });
    }
}

/* ---- pins ---- */

void task_pin_templates(struct cox_task *t, struct cox_slice pins)
{
    struct cox_reader in = cox_reader(pins);
    size_t n = pins.len / sizeof(uint64_t);
    if (n == 0)
        return;
    t->template_pins = cox_calloc(n, sizeof t->template_pins[0]);
    for (size_t i = 0; i < n; i++)
        t->template_pins[i] = cox_get_u64(&in);
}

void task_pin_version(struct cox_task *t, uint32_t class_index, struct cox_slice version)
{
    if (t->version_pins == NULL)
        t->version_pins = cox_calloc(t->image.n_classes, sizeof t->version_pins[0]);
    cox_free(t->version_pins[class_index]);
    t->version_pins[class_index] = text_own(version);
}
