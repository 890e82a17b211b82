/* Tasks that wait leave memory and come back.
 *
 * A tree that only waits (for time, words, approvals) is frozen into bytes: a record says so, the bytes go to
 * the state at once, a stub with the time of its next own wake-up stays. Time, or any word to it, loads the
 * bytes; the record of its return carries them, so that replay never needs the state for it. */
#include "sleep.h"
#include "expand/agent.h"
#include "expand/expand.h"
#include "quarantine.h"
#include "template.h"

#include <string.h>

#define TREE_VERSION 1
#define SLEEPER_VERSION 2 /* 1 did not know whether it is paused */
#define KEPT_INPUTS_MAX 1000u

struct kept_input { /* a word to a task that sleeps */
    struct cox_list in_inputs;
    struct cox_input in;
    struct cox_arena arena;
};

/* ---- coming to rest ---- */

enum rest { AT_REST, AT_WORK, RESTS_SOON };

/* What is at work says so when it ends; what is just being handed over does not, and is looked at again. */
static enum rest frame_rest(const struct cox_task *t)
{
    bool ready = t->n_by_status[COX_STEP_READY] > 0 && !t->root->paused;
    if (ready || t->n_by_status[COX_STEP_RUNNING] > 0 || t->n_watchers > 0 || t->stopping != COX_TASK_NONE ||
        ledger_has_calls(t->ledger))
        return AT_WORK;
    bool handing =
        !cox_list_empty(&t->in_linking) || t->n_evaluations > 0 || cox_task_status_final(t->status);
    return handing ? RESTS_SOON : AT_REST;
}

void task_may_rest(struct cox_engine *e, struct cox_task *t)
{
    struct cox_task *root = t->root;
    if (!cox_task_status_final(root->status) && !cox_heap_has(&root->rest.node))
        timer_set(e, &root->rest, mono_after(e, COX_EVICT_AFTER_MS));
}

/* The earliest moment at which something of this frame happens by itself. False: it is a map's, or at work.
 */
static bool frame_wake(const struct cox_task *t, int64_t *wake_wall_ms)
{
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1)) {
        struct cox_image_call call;
        if (task_step_status(t, i) != COX_STEP_WAITING)
            continue;
        const struct step *s = task_step(t, i);
        if (s->x->map != NULL || s->flags & (STEP_EVALUATING | STEP_HELD) || /* a permit is held in memory */
            (s->x->agent != NULL && !cox_list_empty(&s->x->agent->in_unequipped)))
            return false;
        step_call(t, i, s, &call);
        int64_t at = s->x->wake_wall_ms > 0 ? s->x->wake_wall_ms : INT64_MAX;
        if (call.timeout_ms > 0 && !s->x->continuing && s->started_wall_ms + call.timeout_ms < at)
            at = s->started_wall_ms + call.timeout_ms;
        if (at < *wake_wall_ms)
            *wake_wall_ms = at;
    }
    return true;
}

/* That of a sub-task's own budget, too. */
static void deadline_wakes(const struct cox_task *t, int64_t *wake_wall_ms)
{
    int64_t from = t->revived_wall_ms > 0 ? t->revived_wall_ms : t->created_wall_ms;
    if (!t->own_image || t->doc.deadline_ms == 0 || COX_PLANTED("sleeps-over-its-deadline"))
        return;
    if (from + t->doc.deadline_ms < *wake_wall_ms)
        *wake_wall_ms = from + t->doc.deadline_ms;
}

void task_rested(struct cox_engine *e, struct cox_task *root)
{
    int64_t wake_wall_ms = INT64_MAX;
    settle_all(e); /* what other timers have just ended goes on first */
    uint32_t n_waiting = root->n_by_status[COX_STEP_WAITING];
    enum rest rest = frame_rest(root);
    bool rests = frame_wake(root, &wake_wall_ms);
    COX_LIST_FOR_EACH (it, &root->frames) {
        const struct cox_task *f = COX_CONTAINER_OF(it, struct cox_task, in_frames);
        rest = rest != AT_REST ? rest : frame_rest(f);
        rests = rests && rest == AT_REST && frame_wake(f, &wake_wall_ms);
        deadline_wakes(f, &wake_wall_ms);
    }
    deadline_wakes(root, &wake_wall_ms);
    if (rest == RESTS_SOON && n_waiting > 0)
        timer_set(e, &root->rest, mono_after(e, COX_EVICT_AFTER_MS));
    if (rest != AT_REST || !rests || n_waiting == 0)
        return;
    if (wake_wall_ms - e->now.wall_ms < COX_EVICT_AFTER_MS)
        return; /* not worth the way */
    struct record r = { .type = RECORD_TASK_EVICTED, .task = root->id, .wall_ms = e->now.wall_ms };
    r.u.evicted.wake_wall_ms = wake_wall_ms == INT64_MAX ? 0 : wake_wall_ms;
    emit(e, &r);
}

/* ---- bytes of a tree ---- */

static void frame_freeze(struct cox_buf *b, const struct cox_task *t)
{
    cox_put_u64(b, t->id);
    size_t at = b->len;
    cox_put_u32(b, 0);
    header_encode(b, t);
    cox_set_u32(b, at, (uint32_t)(b->len - at - 4));
    cox_put_u32(b, t->n_pages);
    for (uint32_t no = 0; no < t->n_pages; no++) {
        at = b->len;
        cox_put_u32(b, 0);
        if (t->pages[no] != NULL && t->pages[no]->entity.applied_seq > 0)
            page_encode(b, t->pages[no]);
        cox_set_u32(b, at, (uint32_t)(b->len - at - 4));
    }
}

static void tree_freeze(struct cox_buf *b, const struct cox_task *root)
{
    uint32_t n = 1;
    COX_LIST_FOR_EACH (it, &root->frames)
        n++;
    cox_put_u8(b, TREE_VERSION);
    cox_put_u32(b, n);
    frame_freeze(b, root);
    COX_LIST_FOR_EACH (it, &root->frames)
        frame_freeze(b, COX_CONTAINER_OF(it, struct cox_task, in_frames));
}

/* One frame of a tree, entity by entity: those that know of later records stay as they are. */
static bool frame_thaw(struct cox_engine *e, uint64_t seq, struct cox_reader *in)
{
    cox_task_id id = cox_get_u64(in);
    struct cox_slice header = cox_get_bytes(in);
    uint32_t n_pages = cox_get_u32(in);
    struct cox_task *t = cox_map64_get(&e->tasks, id);
    if (t == NULL)
        t = task_create(e, id);
    bool fresh = !t->has_header;
    if (fresh) {
        if (in->bad || header_decode(t, header) != COX_OK)
            return false;
        task_init_header(t);
        if (!task_pages_fit(t) || t->parent_id >= id)
            return false;
        frame_attach(e, t);
    }
    for (uint32_t no = 0; no < n_pages && !in->bad; no++) {
        struct cox_slice bytes = cox_get_bytes(in);
        if (no >= t->n_pages || page_is_newer(e, t, no, seq) || bytes.len == 0)
            continue;
        struct page *p = page_create(t, no, page_n_steps(t, no));
        if (page_decode(p, bytes) != COX_OK)
            return false;
        entity_touch(e, &p->entity, seq);
    }
    if (fresh) /* after its pages, and so is saved: what it was is not replayed onto a page that is missing */
        entity_touch(e, &t->entity, seq);
    return !in->bad;
}

/* ---- what lists say of them: recovery says it again, for a row lives no longer than the process ---- */

static void row_keep(struct cox_engine *e, const struct cox_task *t)
{
    struct cox_buf *b = &e->asleep_rows;
    cox_put_u64(b, t->id);
    cox_put_i64(b, t->created_wall_ms);
    cox_put_bytes(b, cox_slice_str(t->tenant));
    cox_put_bytes(b, t->doc.name);
    cox_put_u32(b, t->image.n_labels);
    for (uint32_t i = 0; i < t->image.n_labels; i++) {
        struct cox_slice name, value;
        cox_image_label(&t->image, i, &name, &value);
        cox_put_bytes(b, name);
        cox_put_bytes(b, value);
    }
}

/* Of a tree's first, the root. */
static enum cox_err row_keep_frozen(struct cox_engine *e, struct sleeper *sl, struct cox_slice tree)
{
    struct cox_reader in;
    struct frozen first;
    uint32_t n;
    if (!tree_open(tree, &in, &n) || !tree_next(&in, &n, &first))
        return COX_ERR_CORRUPT;
    struct cox_task *root = task_create(NULL, first.id);
    bool ok = header_decode(root, first.header) == COX_OK && root->own_image;
    if (ok) {
        task_init_header(root);
        sl->tenant = cox_strdup(root->tenant);
        row_keep(e, root);
    }
    cox_task_free(root);
    return ok ? COX_OK : COX_ERR_CORRUPT;
}

/* Those that have been woken since say it themselves. */
static void rows_say(struct cox_engine *e)
{
    struct cox_buf *rows = &e->asleep_rows;
    struct cox_reader in =
        cox_reader(cox_slice(cox_arena_dup(&e->fx->arena, rows->data, rows->len), rows->len));
    while (cox_reader_left(&in) > 0 && !COX_PLANTED("sleepers-not-listed")) {
        struct cox_act_index x = { .task = cox_get_u64(&in), .status = COX_TASK_PENDING };
        x.created_wall_ms = cox_get_i64(&in);
        x.tenant = cox_get_bytes(&in);
        x.name = cox_get_bytes(&in);
        x.n_labels = cox_get_u32(&in);
        struct cox_label *labels = cox_arena_alloc(&e->fx->arena, (x.n_labels + 1) * sizeof *labels);
        for (size_t i = 0; i < x.n_labels; i++) {
            labels[i].name = cox_get_bytes(&in);
            labels[i].value = cox_get_bytes(&in);
        }
        x.labels = labels;
        if (cox_map64_get(&e->sleepers, x.task) != NULL)
            act(e, COX_ACT_INDEX)->u.index = x;
    }
    cox_buf_fini(rows);
}

/* ---- records ---- */

static struct sleeper *sleeper_make(struct cox_engine *e, cox_task_id id)
{
    struct sleeper *sl = cox_pool_get(&e->sleeper_pool);
    entity_init(&sl->entity, ENTITY_SLEEPER, id, 0);
    cox_heap_node_init(&sl->timer.node);
    sl->timer.kind = TIMER_SLEEPER;
    cox_list_init(&sl->inputs);
    cox_map64_set(&e->sleepers, id, sl);
    return sl;
}

static void set_paused(struct cox_engine *e, struct sleeper *sl, bool paused)
{
    sl->paused = paused;
    e->n_asleep_paused += paused;
}

static void collect_pins(struct sleeper *sl, const struct cox_task *t)
{
    uint32_t n = t->template_pins != NULL ? cox_image_n_refs(&t->image) : 0;
    if (n == 0)
        return;
    sl->template_pins = cox_realloc(sl->template_pins, sl->n_template_pins + n, sizeof sl->template_pins[0]);
    memcpy(sl->template_pins + sl->n_template_pins, t->template_pins, n * sizeof sl->template_pins[0]);
    sl->n_template_pins += n;
}

static void hold_templates(struct cox_engine *e, struct sleeper *sl)
{
    if (!sl->holds_templates && !COX_PLANTED("sleeper-needs-no-template"))
        templates_hold(e, sl->template_pins, sl->n_template_pins);
    sl->holds_templates = true;
}

static void tree_destroy(struct cox_engine *e, struct cox_task *root)
{
    while (!cox_list_empty(&root->frames))
        task_destroy(e, COX_CONTAINER_OF(root->frames.prev, struct cox_task, in_frames));
    task_destroy(e, root);
}

static void sleeper_store(struct cox_engine *e, struct sleeper *sl)
{
    struct cox_buf b = { 0 };
    sleeper_encode(&b, sl);
    struct cox_action *a = act(e, COX_ACT_STORE_SLEEPER);
    a->u.save.key = (struct cox_entity_key){ ENTITY_SLEEPER, sl->entity.id, 0 };
    a->u.save.applied_seq = sl->entity.applied_seq;
    a->u.save.bytes = cox_slice(cox_arena_dup(&e->fx->arena, b.data, b.len), b.len);
    cox_buf_fini(&b);
    cox_buf_fini(&sl->bytes);
    if (sl->wake_wall_ms > 0)
        timer_set(e, &sl->timer, mono_after(e, sl->wake_wall_ms - e->now.wall_ms));
}

void frames_part(struct cox_engine *e, struct cox_task *root)
{
    for (struct cox_list *it = root->frames.prev, *before; it != &root->frames; it = before) {
        struct cox_task *f = COX_CONTAINER_OF(it, struct cox_task, in_frames);
        before = it->prev;
        if (!f->gone)
            continue;
        cox_put_u64(&e->replayed_archives, f->id);
        cox_put_u64(&e->replayed_archives, root->id);
        size_t at = e->replayed_archives.len;
        cox_put_u32(&e->replayed_archives, 0);
        task_freeze(e, f, &e->replayed_archives);
        cox_set_u32(&e->replayed_archives, at, (uint32_t)(e->replayed_archives.len - at - 4));
        task_destroy(e, f);
    }
}

void apply_evicted(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    struct cox_task *t = cox_map64_get(&e->tasks, r->task);
    struct sleeper *sl = cox_map64_get(&e->sleepers, r->task);
    if (t == NULL || !t->has_header || t->entity.applied_seq >= seq)
        return;
    frames_part(e, t);
    if (sl == NULL) {
        sl = sleeper_make(e, r->task);
        sl->entity.applied_seq = seq;
        sl->wake_wall_ms = r->u.evicted.wake_wall_ms;
        sl->n_steps = t->n_steps;
        sl->tenant = cox_strdup(t->tenant);
        set_paused(e, sl, t->paused);
        collect_pins(sl, t);
        COX_LIST_FOR_EACH (it, &t->frames)
            collect_pins(sl, COX_CONTAINER_OF(it, struct cox_task, in_frames));
        tree_freeze(&sl->bytes, t);
        if (!e->live)
            row_keep(e, t);
    }
    if (e->live)
        hold_templates(e, sl);
    tree_destroy(e, t);
    if (e->live)
        sleeper_store(e, sl);
}

static void sleeper_free(struct cox_engine *e, struct sleeper *sl)
{
    timer_clear(e, &sl->timer);
    if (sl->holds_templates)
        templates_release(e, sl->template_pins, sl->n_template_pins);
    while (!cox_list_empty(&sl->inputs)) {
        struct kept_input *k = COX_CONTAINER_OF(sl->inputs.next, struct kept_input, in_inputs);
        cox_list_remove(&k->in_inputs);
        cox_arena_fini(&k->arena);
        cox_free(k);
    }
    cox_map64_remove(&e->sleepers, sl->entity.id);
    e->n_asleep_paused -= sl->paused;
    cox_list_remove(&sl->entity.in_dirty);
    cox_buf_fini(&sl->bytes);
    cox_free(sl->template_pins);
    cox_free(sl->tenant);
    cox_pool_put(&e->sleeper_pool, sl);
}

void apply_woken(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    struct sleeper *sl = cox_map64_get(&e->sleepers, r->task);
    struct cox_reader in = cox_reader(r->u.woken.bytes);
    if (sl != NULL && sl->entity.applied_seq < seq) {
        entity_forget(e, &sl->entity);
        if (!e->live)
            sleeper_free(e, sl);
    }
    bool ok = cox_get_u8(&in) == TREE_VERSION;
    for (uint32_t n = cox_get_u32(&in); ok && n > 0; n--)
        ok = frame_thaw(e, seq, &in);
    if (!ok)
        record_misfit(e);
}

/* ---- entities ---- */

void sleeper_encode(struct cox_buf *b, const struct sleeper *sl)
{
    cox_put_u8(b, SLEEPER_VERSION);
    cox_put_i64(b, sl->wake_wall_ms);
    cox_put_u32(b, sl->n_steps);
    cox_put_u8(b, sl->paused);
    cox_put_u32(b, sl->n_template_pins);
    for (uint32_t i = 0; i < sl->n_template_pins; i++)
        cox_put_u64(b, sl->template_pins[i]);
    cox_put_bytes(b, cox_buf_slice(&sl->bytes));
}

static struct cox_slice head_decode(struct sleeper *sl, struct cox_reader *in)
{
    uint8_t version = cox_get_u8(in);
    sl->wake_wall_ms = cox_get_i64(in);
    sl->n_steps = cox_get_u32(in);
    sl->paused = cox_get_u8(in);
    uint32_t n = cox_get_u32(in);
    if (version != SLEEPER_VERSION || n > cox_reader_left(in) / sizeof(uint64_t))
        in->bad = true;
    if (!in->bad && n > 0)
        sl->template_pins = cox_calloc(n, sizeof sl->template_pins[0]);
    for (; !in->bad && sl->n_template_pins < n; sl->n_template_pins++)
        sl->template_pins[sl->n_template_pins] = cox_get_u64(in);
    return cox_get_bytes(in);
}

enum cox_err sleeper_load(struct cox_engine *e, uint64_t id, uint64_t seq, struct cox_slice bytes)
{
    if (cox_map64_get(&e->sleepers, id) != NULL)
        return COX_ERR_CORRUPT;
    struct cox_reader in = cox_reader(bytes);
    struct sleeper *sl = sleeper_make(e, id);
    sl->entity.applied_seq = seq;
    struct cox_slice tree = head_decode(sl, &in);
    set_paused(e, sl, sl->paused);
    return in.bad ? COX_ERR_CORRUPT : row_keep_frozen(e, sl, tree);
}

void sleepers_recovered(struct cox_engine *e)
{
    rows_say(e);
    size_t it = 0;
    uint64_t id;
    void *at;
    while (cox_map64_next(&e->sleepers, &it, &id, &at)) {
        struct sleeper *sl = at;
        hold_templates(e, sl);
        if (sl->bytes.len > 0 && !COX_PLANTED("sleeper-not-stored-again"))
            sleeper_store(e, sl); /* the log has it, the state may not */
        else if (sl->wake_wall_ms > 0)
            timer_set(e, &sl->timer, mono_after(e, sl->wake_wall_ms - e->now.wall_ms));
    }
}

void sleepers_free(struct cox_engine *e)
{
    size_t it = 0;
    uint64_t id;
    void *at;
    while (cox_map64_next(&e->sleepers, &it, &id, &at))
        sleeper_free(e, at);
    cox_map64_fini(&e->sleepers);
}

/* ---- a look inside ---- */

struct cox_slice sleeper_tree(struct cox_slice bytes)
{
    struct sleeper head = { 0 };
    struct cox_reader in = cox_reader(bytes);
    struct cox_slice tree = head_decode(&head, &in);
    cox_free(head.template_pins);
    return in.bad ? cox_slice(NULL, 0) : tree;
}

bool tree_open(struct cox_slice tree, struct cox_reader *ret_in, uint32_t *ret_n)
{
    *ret_in = cox_reader(tree);
    bool known = cox_get_u8(ret_in) == TREE_VERSION;
    *ret_n = cox_get_u32(ret_in);
    return known && !ret_in->bad;
}

bool tree_next(struct cox_reader *in, uint32_t *n_left, struct frozen *ret)
{
    if (in->bad || *n_left == 0)
        return false;
    --*n_left;
    ret->id = cox_get_u64(in);
    ret->header = cox_get_bytes(in);
    for (uint32_t n = cox_get_u32(in); n > 0 && !in->bad; n--)
        cox_get_bytes(in); /* pages */
    return !in->bad;
}

/* ---- waking ---- */

static void load(struct cox_engine *e, struct sleeper *sl)
{
    if (sl->loading)
        return;
    sl->loading = true;
    timer_clear(e, &sl->timer);
    act(e, COX_ACT_LOAD)->u.load.sleeper = (struct cox_entity_key){ ENTITY_SLEEPER, sl->entity.id, 0 };
}

void sleeper_timer(struct cox_engine *e, struct sleeper *sl)
{
    if (e->now.wall_ms < sl->wake_wall_ms)
        timer_set(e, &sl->timer, mono_after(e, sl->wake_wall_ms - e->now.wall_ms));
    else
        load(e, sl);
}

static void own(struct cox_arena *arena, struct cox_slice *s)
{
    s->data = cox_arena_dup(arena, s->data, s->len);
}

static cox_task_id named_task(const struct cox_input *in)
{
    switch (in->kind) {
    case COX_IN_CANCEL:
        return in->u.cancel.task;
    case COX_IN_PAUSE:
    case COX_IN_RESUME:
    case COX_IN_WANT:
        return in->u.of.task;
    case COX_IN_SIGNAL:
        return in->u.signal.task;
    case COX_IN_APPROVE:
        return in->u.approve.task;
    case COX_IN_MESSAGE:
        return in->u.message.task;
    case COX_IN_FORK:
        return in->u.fork.archived.len == 0 ? in->u.fork.from : 0;
    case COX_IN_RETRY:
        return in->u.retry.task;
    case COX_IN_WATCH:
    case COX_IN_UNWATCH:
        return in->u.task.task;
    default:
        return 0;
    }
}

static void own_slices(struct kept_input *k)
{
    struct cox_input *in = &k->in;
    struct cox_slice *slices[8] = { 0 };
    size_t n = 0;
    if (in->kind == COX_IN_CANCEL) {
        slices[n++] = &in->u.cancel.step;
        slices[n++] = &in->u.cancel.reason;
    } else if (in->kind == COX_IN_SIGNAL) {
        slices[n++] = &in->u.signal.name;
        slices[n++] = &in->u.signal.payload.bytes;
    } else if (in->kind == COX_IN_APPROVE) {
        slices[n++] = &in->u.approve.step;
        slices[n++] = &in->u.approve.comment;
        slices[n++] = &in->u.approve.by;
        slices[n++] = &in->u.approve.roles;
    } else if (in->kind == COX_IN_MESSAGE) {
        slices[n++] = &in->u.message.step;
        slices[n++] = &in->u.message.text;
    } else if (in->kind == COX_IN_RETRY) {
        slices[n++] = &in->u.retry.archived;
    } else if (in->kind == COX_IN_FORK) {
        slices[n++] = &in->u.fork.at;
        slices[n++] = &in->u.fork.image;
        slices[n++] = &in->u.fork.tenant;
        slices[n++] = &in->u.fork.key;
    }
    for (size_t i = 0; i < n; i++)
        own(&k->arena, slices[i]);
}

static uint64_t request_of(const struct cox_input *in)
{
    switch (in->kind) {
    case COX_IN_CANCEL:
        return in->u.cancel.request;
    case COX_IN_SIGNAL:
        return in->u.signal.request;
    case COX_IN_APPROVE:
        return in->u.approve.request;
    case COX_IN_MESSAGE:
        return in->u.message.request;
    case COX_IN_FORK:
        return in->u.fork.request;
    case COX_IN_RETRY:
        return in->u.retry.request;
    case COX_IN_WATCH:
    case COX_IN_UNWATCH:
        return 0; /* never refused: they are counted */
    default:
        return in->u.of.request;
    }
}

bool sleeper_keeps(struct cox_engine *e, const struct cox_input *in)
{
    cox_task_id id = named_task(in);
    struct sleeper *sl = id != 0 ? cox_map64_get(&e->sleepers, id) : NULL;
    if (sl == NULL)
        return false;
    if (sl->n_inputs >= KEPT_INPUTS_MAX && request_of(in) != 0) {
        reply(e, request_of(in), COX_ERR_FULL, NULL, "the task is being loaded, and too many wait for it");
        return true;
    }
    sl->n_inputs++;
    struct kept_input *k = COX_NEW(struct kept_input);
    k->in = *in;
    own_slices(k);
    if (COX_PLANTED("words-in-reverse"))
        cox_list_push_front(&sl->inputs, &k->in_inputs);
    else
        cox_list_push_back(&sl->inputs, &k->in_inputs);
    load(e, sl);
    return true;
}

void sleeper_loaded(struct cox_engine *e, const struct cox_in_loaded *in)
{
    struct sleeper *sl = cox_map64_get(&e->sleepers, in->task);
    struct sleeper head = { 0 };
    struct cox_reader reader = cox_reader(in->bytes);
    if (sl == NULL)
        return;
    struct cox_slice bytes = head_decode(&head, &reader);
    cox_free(head.template_pins);
    COX_ASSERT(!reader.bad); /* the state checks its rows */
    struct record r = { .type = RECORD_TASK_WOKEN, .task = in->task, .wall_ms = e->now.wall_ms };
    r.u.woken.bytes = bytes;
    emit(e, &r);

    struct cox_task *root = cox_map64_get(&e->tasks, in->task);
    size_t n = 0, n_max = 1;
    COX_LIST_FOR_EACH (it, &root->frames)
        n_max++;
    struct cox_task **tasks = cox_calloc(n_max, sizeof(struct cox_task *));
    tasks[n++] = root;
    COX_LIST_FOR_EACH (it, &root->frames)
        tasks[n++] = COX_CONTAINER_OF(it, struct cox_task, in_frames);
    tasks_derive(e, tasks, n);
    cox_free(tasks);

    struct cox_list inputs;
    cox_list_init(&inputs);
    while (!cox_list_empty(&sl->inputs)) {
        struct cox_list *node = sl->inputs.next;
        cox_list_remove(node);
        cox_list_push_back(&inputs, node);
    }
    sleeper_free(e, sl);
    while (!cox_list_empty(&inputs)) {
        struct kept_input *k = COX_CONTAINER_OF(inputs.next, struct kept_input, in_inputs);
        cox_list_remove(&k->in_inputs);
        engine_handle(e, &k->in);
        settle_all(e);
        cox_arena_fini(&k->arena);
        cox_free(k);
    }
}

bool cox_engine_asleep(const struct cox_engine *e, cox_task_id id)
{
    return cox_map64_get(&e->sleepers, id) != NULL;
}

struct cox_slice cox_engine_tenant(const struct cox_engine *e, cox_task_id id)
{
    const struct cox_task *t = cox_engine_find(e, id);
    const struct sleeper *sl = t == NULL ? cox_map64_get(&e->sleepers, id) : NULL;
    return t != NULL ? cox_task_tenant(t) : cox_slice_str(sl != NULL ? sl->tenant : NULL);
}

bool cox_engine_asleep_paused(const struct cox_engine *e, cox_task_id id)
{
    const struct sleeper *sl = cox_map64_get(&e->sleepers, id);
    return sl != NULL && sl->paused;
}
