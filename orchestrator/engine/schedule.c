#include "schedule.h"
#include "sleep.h"

#include "template.h"

#include <string.h>

#define SCHEDULE_VERSION 1
#define RUNS_PER_STEP 1000              /* tasks made, or looks that came to nothing */
#define RECORDS_LEN_PER_STEP (8u << 20) /* and images are in the records */
#define SKIPPED_PER_LOOK 1000           /* runs that are too late, in one record */
#define RETRY_MS 1000                   /* when there was no room for the task */
#define SLEEP_MAX_MS 60000              /* the wall clock may jump while nothing happens */
#define STILL_MS 100                    /* a wall clock that has not moved for so long stands still, */
#define STILL_LOOK_MS 1000              /* and is looked at that often */

static struct schedule *of(struct kept *k)
{
    return k != NULL ? COX_CONTAINER_OF(k, struct schedule, kept) : NULL;
}

static struct schedule *find(const struct cox_engine *e, struct cox_slice tenant, struct cox_slice name)
{
    return of(kept_find(&e->schedules_by_name, tenant, name, 0));
}

static int64_t next_after(const struct schedule *s, int64_t wall_ms)
{
    int64_t next_ms = cox_cron_next(&s->parsed, s->zone, wall_ms);
    return next_ms == INT64_MAX ? 0 : next_ms;
}

/* The task of the last run has not ended: it is live, or it waits outside of memory. */
static bool is_busy(const struct cox_engine *e, const struct schedule *s)
{
    const struct cox_task *t = cox_map64_get(&e->tasks, s->last_task);
    return t != NULL ? !cox_task_status_final(t->status) : cox_map64_get(&e->sleepers, s->last_task) != NULL;
}

/* ---- the clock ---- */

static void look_at(struct cox_engine *e, struct schedule *s, int64_t wall_ms)
{
    cox_heap_set(&e->schedules_due, &s->look, wall_ms > 0 ? (uint64_t)wall_ms : 0);
}

static void look_later(struct cox_engine *e, struct schedule *s)
{
    if (s->n_queued > 0 && !is_busy(e, s))
        look_at(e, s, 0);
    else if (s->next_wall_ms != 0)
        look_at(e, s, s->next_wall_ms);
    else
        cox_heap_remove(&e->schedules_due, &s->look);
}

void schedule_task_ended(struct cox_engine *e, const struct cox_task *t)
{
    if (t->schedule == NULL)
        return;
    struct schedule *s = find(e, cox_slice_str(t->tenant), cox_slice_str(t->schedule));
    if (s != NULL && s->last_task == t->id)
        look_later(e, s);
}

/* Monotonic time is what the caller sleeps by. It is asked anew after each input, so a jump of the wall clock
 * shows at the next one, and after SLEEP_MAX_MS when there is none. */
int64_t schedules_wake_ns(const struct cox_engine *e)
{
    const struct cox_heap_node *first = cox_heap_min(&e->schedules_due);
    if (first == NULL)
        return INT64_MAX;
    int64_t left_ms = (int64_t)first->key - e->now.wall_ms;
    if (left_ms > SLEEP_MAX_MS)
        left_ms = SLEEP_MAX_MS;
    else if (left_ms > 0 && left_ms < STILL_LOOK_MS &&
             e->now.mono_ns - e->wall_moved_ns > STILL_MS * NS_PER_MS)
        left_ms = STILL_LOOK_MS;
    return mono_after(e, left_ms);
}

/* ---- runs ---- */

static void emit_ran(struct cox_engine *e, const struct schedule *s, const struct record *ran)
{
    struct record r = *ran;
    r.type = RECORD_SCHEDULE_RAN;
    r.task = s->kept.entity.id;
    r.wall_ms = e->now.wall_ms;
    emit(e, &r);
}

/* The record of a run as if nothing came of it. */
static struct record ran_record(const struct schedule *s, int64_t due_wall_ms)
{
    struct record r = { 0 };
    r.u.ran.due_wall_ms = due_wall_ms;
    r.u.ran.next_wall_ms = s->next_wall_ms;
    r.u.ran.n_queued = s->n_queued;
    return r;
}

static void alarm_about(struct cox_engine *e, const struct schedule *s, const char *what)
{
    struct cox_buf text = { 0 };
    cox_buf_printf(&text, "schedule %s: %s", s->kept.name, what);
    act(e, COX_ACT_ALARM)->u.alarm.text = cox_arena_dup(&e->fx->arena, cox_buf_cstr(&text), text.len + 1);
    cox_buf_fini(&text);
}

/* Makes the run's task. False: there is no room now. A task that cannot be made at all is a skipped run. */
static bool run(struct cox_engine *e, struct schedule *s, struct record *r)
{
    struct cox_in_submit in = { .tenant = cox_slice_str(s->kept.tenant), .image = s->image };
    struct task_made made;
    enum cox_err err = task_make(e, &in, cox_slice_str(s->kept.name), &made);
    if (err == COX_ERR_FULL)
        return false;
    r->u.ran.made = err == COX_OK ? made.task : 0;
    r->u.ran.n_skipped = err != COX_OK;
    if (err != COX_OK)
        alarm_about(e, s, made.message);
    emit_ran(e, s, r);
    return true;
}

/* Runs that are found too late, as many as one record is to say. */
static void skip_missed(struct cox_engine *e, struct schedule *s, int64_t oldest_wall_ms)
{
    struct record r = ran_record(s, s->next_wall_ms);
    int64_t next_ms = s->next_wall_ms;
    while (next_ms != 0 && next_ms < oldest_wall_ms && r.u.ran.n_skipped < SKIPPED_PER_LOOK) {
        r.u.ran.due_wall_ms = next_ms;
        r.u.ran.n_skipped++;
        next_ms = next_after(s, next_ms);
    }
    r.u.ran.next_wall_ms = next_ms;
    emit_ran(e, s, &r);
}

static void stop_last(struct cox_engine *e, cox_task_id id)
{
    struct cox_input in = { .now = e->now, .kind = COX_IN_CANCEL };
    in.u.cancel.task = id;
    in.u.cancel.reason = cox_slice_str("replaced by the schedule's next run");
    if (!sleeper_keeps(e, &in))
        task_cancel(e, &in.u.cancel);
}

/* A run is due while the task of the one before it has not ended. */
static void overlap(struct cox_engine *e, struct schedule *s, struct record *r)
{
    cox_task_id last = s->last_task;
    switch (s->overlap) {
    case COX_OVERLAP_SKIP:
        r->u.ran.n_skipped = 1;
        break;
    case COX_OVERLAP_QUEUE:
        if (s->n_queued < COX_SCHEDULE_QUEUE_MAX)
            r->u.ran.n_queued = s->n_queued + 1;
        else
            r->u.ran.n_skipped = 1;
        break;
    case COX_OVERLAP_REPLACE: /* starts when the old one has stopped; of several that wait, only the newest
                                 does */
        r->u.ran.n_skipped = s->n_queued;
        r->u.ran.n_queued = 1;
        break;
    }
    emit_ran(e, s, r);
    if (s->overlap == COX_OVERLAP_REPLACE)
        stop_last(e, last);
}

static void look(struct cox_engine *e, struct schedule *s)
{
    int64_t late_ms = s->catch_up_ms > COX_SCHEDULE_LATE_MS ? s->catch_up_ms : COX_SCHEDULE_LATE_MS;
    int64_t oldest_wall_ms = e->now.wall_ms > late_ms ? e->now.wall_ms - late_ms : 0;
    bool room = true;
    if (s->n_queued > 0 && !is_busy(e, s)) {
        struct record r = ran_record(s, 0);
        r.u.ran.n_queued--;
        room = run(e, s, &r);
    } else if (s->next_wall_ms != 0 && s->next_wall_ms < oldest_wall_ms &&
               !COX_PLANTED("late-runs-made-up-for")) {
        skip_missed(e, s, oldest_wall_ms);
    } else if (s->next_wall_ms != 0 && s->next_wall_ms <= e->now.wall_ms) {
        struct record r = ran_record(s, s->next_wall_ms);
        r.u.ran.next_wall_ms = next_after(s, s->next_wall_ms);
        if (is_busy(e, s) && !COX_PLANTED("overlapping-runs"))
            overlap(e, s, &r);
        else
            room = run(e, s, &r);
    }
    if (room)
        look_later(e, s);
    else
        look_at(e, s, e->now.wall_ms + RETRY_MS);
}

void schedules_run(struct cox_engine *e)
{
    if (e->now.wall_ms != e->wall_moved_ms) {
        e->wall_moved_ms = e->now.wall_ms;
        e->wall_moved_ns = e->now.mono_ns;
    }
    for (int n = 0; n < RUNS_PER_STEP && e->fx->records.len < RECORDS_LEN_PER_STEP; n++) {
        struct cox_heap_node *node = cox_heap_min(&e->schedules_due);
        if (node == NULL || node->key > (uint64_t)e->now.wall_ms)
            return;
        look(e, COX_CONTAINER_OF(node, struct schedule, look));
    }
}

void schedules_recovered(struct cox_engine *e)
{
    for (uint32_t i = 0; i < e->schedules_by_name.n; i++)
        look_later(e, of(e->schedules_by_name.items[i]));
}

/* ---- inputs ---- */

static const char *wrong(const struct cox_in_schedule *in, struct cox_cron *ret)
{
    struct cox_buf error = { 0 };
    struct cox_image img;
    enum cox_err err = cox_cron_parse(in->cron, ret, &error);
    cox_buf_fini(&error);
    if (err != COX_OK)
        return "cron: expected five fields";
    if (cox_zone_check(in->zone) != COX_OK)
        return "time_zone: its rules are damaged";
    if (cox_image_open(&img, in->image) != COX_OK || img.n_steps == 0)
        return "the compiled document is damaged";
    return NULL;
}

bool schedule_name_free(const struct cox_engine *e, uint64_t seq, const struct record *r)
{
    const struct kept *known = kept_find(&e->schedules_by_name, r->u.schedule.tenant, r->u.schedule.name, 0);
    return known == NULL || known->entity.id == r->task ||
           (known->entity.id > r->task && known->entity.applied_seq > seq);
}

bool schedules_distinct(const struct cox_engine *e)
{
    return e->schedules.len == e->schedules_by_name.n;
}

bool schedule_record_ok(const struct record *r)
{
    struct cox_in_schedule in = { .image = r->u.schedule.image,
                                  .cron = r->u.schedule.cron,
                                  .zone = r->u.schedule.zone };
    struct cox_cron parsed;
    return r->u.schedule.overlap <= COX_OVERLAP_REPLACE && wrong(&in, &parsed) == NULL;
}

/* Its task's templates are there now. False after saying so. */
static bool has_templates(struct cox_engine *e, const struct cox_in_schedule *in)
{
    struct cox_image img;
    struct cox_buf pins = { 0 }, text = { 0 };
    struct cox_slice missing;
    enum cox_err err = cox_image_open(&img, in->image);
    COX_ASSERT(err == COX_OK); /* wrong() looked */
    bool found = templates_resolve(e, in->tenant, &img, &pins, &missing);
    if (!found) {
        template_missing(&text, missing);
        act(e, COX_ACT_REPLY)->u.reply = (struct cox_act_reply){
            .request = in->request,
            .err = COX_ERR_INVALID,
            .message = cox_arena_dup(&e->fx->arena, cox_buf_cstr(&text), text.len + 1),
            .place = template_place(&img, missing, &e->fx->arena),
        };
    }
    cox_buf_fini(&text);
    cox_buf_fini(&pins);
    return found;
}

void schedule_apply(struct cox_engine *e, const struct cox_in_schedule *in)
{
    struct cox_cron parsed;
    const char *message = wrong(in, &parsed);
    if (message != NULL) {
        reply(e, in->request, COX_ERR_INVALID, NULL, message);
        return;
    }
    if (!has_templates(e, in))
        return;
    const struct schedule *known = find(e, in->tenant, in->name);
    uint64_t len = in->document.len + in->image.len + in->zone.len;
    if (!kept_has_room(e, known != NULL ? 0 : e->schedules.len, COX_SCHEDULES_MAX, len)) {
        reply(e, in->request, COX_ERR_FULL, NULL, "too many templates and schedules are kept");
        return;
    }
    struct record r = { .type = RECORD_SCHEDULE_APPLIED,
                        .task = known != NULL ? known->kept.entity.id : e->meta.last_schedule + 1,
                        .wall_ms = e->now.wall_ms };
    int64_t next_ms = cox_cron_next(&parsed, in->zone, e->now.wall_ms);
    r.u.schedule.tenant = in->tenant;
    r.u.schedule.name = in->name;
    r.u.schedule.document = in->document;
    r.u.schedule.image = in->image;
    r.u.schedule.cron = in->cron;
    r.u.schedule.zone = in->zone;
    r.u.schedule.overlap = (uint8_t)in->overlap;
    r.u.schedule.catch_up_ms = in->catch_up_ms;
    r.u.schedule.next_wall_ms = next_ms == INT64_MAX ? 0 : next_ms;
    emit(e, &r);
    bundle_keep_of(e, in->tenant, in->document);
    look_later(e, find(e, in->tenant, in->name));
    reply(e, in->request, COX_OK, NULL, NULL);
}

void schedule_delete(struct cox_engine *e, const struct cox_in_schedule *in)
{
    const struct schedule *s = find(e, in->tenant, in->name);
    if (s != NULL) {
        struct record r = { .type = RECORD_SCHEDULE_DELETED,
                            .task = s->kept.entity.id,
                            .wall_ms = e->now.wall_ms };
        emit(e, &r);
    }
    reply(e, in->request, s != NULL ? COX_OK : COX_ERR_NOT_FOUND, NULL, NULL);
}

/* ---- durable state ---- */

static uint64_t held_len(const struct schedule *s)
{
    return s->document.len + s->image.len + s->zone.len;
}

static void set_slice(struct cox_slice *at, struct cox_slice s)
{
    struct cox_slice old = *at;
    *at = slice_own(s);
    slice_free(old);
}

/* What APPLIED says; history stays. */
static void set_document(struct cox_engine *e, struct schedule *s, const struct record *r)
{
    e->kept_len -= held_len(s);
    set_slice(&s->document, r->u.schedule.document);
    set_slice(&s->image, r->u.schedule.image);
    set_slice(&s->cron, r->u.schedule.cron);
    set_slice(&s->zone, r->u.schedule.zone);
    e->kept_len += held_len(s);
    s->overlap = (enum cox_overlap)r->u.schedule.overlap;
    s->catch_up_ms = r->u.schedule.catch_up_ms;
    s->next_wall_ms = r->u.schedule.next_wall_ms;
    struct cox_buf error = { 0 };
    enum cox_err err = cox_cron_parse(s->cron, &s->parsed, &error);
    COX_ASSERT(err == COX_OK); /* checked when it was applied or loaded */
    cox_buf_fini(&error);
}

static struct schedule *make(struct cox_engine *e, uint64_t number, struct cox_slice tenant,
                             struct cox_slice name)
{
    struct schedule *s = COX_NEW(struct schedule);
    kept_init(&s->kept, ENTITY_SCHEDULE, number, tenant, name, 0);
    cox_heap_node_init(&s->look);
    cox_map64_set(&e->schedules, number, s);
    const struct kept *known = kept_find(&e->schedules_by_name, tenant, name, 0);
    if (known == NULL || known->entity.id < number) /* replay: this one has been deleted since */
        kept_insert(&e->schedules_by_name, &s->kept);
    return s;
}

static void destroy(struct cox_engine *e, struct schedule *s)
{
    if (find(e, cox_slice_str(s->kept.tenant), cox_slice_str(s->kept.name)) == s)
        kept_remove(&e->schedules_by_name, &s->kept);
    cox_map64_remove(&e->schedules, s->kept.entity.id);
    cox_heap_remove(&e->schedules_due, &s->look);
    cox_list_remove(&s->kept.entity.in_dirty);
    e->kept_len -= held_len(s);
    slice_free(s->document);
    slice_free(s->image);
    slice_free(s->cron);
    slice_free(s->zone);
    cox_free(s->kept.tenant);
    cox_free(s->kept.name);
    cox_free(s);
}

static void apply_applied(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    if (e->meta.entity.applied_seq < seq) {
        if (r->task > e->meta.last_schedule)
            e->meta.last_schedule = r->task;
        entity_touch(e, &e->meta.entity, seq);
    }
    struct schedule *s = cox_map64_get(&e->schedules, r->task);
    if (s == NULL)
        s = make(e, r->task, r->u.schedule.tenant, r->u.schedule.name);
    if (s->kept.entity.applied_seq >= seq)
        return;
    set_document(e, s, r);
    entity_touch(e, &s->kept.entity, seq);
}

static void apply_ran(struct cox_engine *e, uint64_t seq, struct schedule *s, const struct record *r)
{
    if (s->kept.entity.applied_seq >= seq)
        return;
    s->next_wall_ms = r->u.ran.next_wall_ms;
    s->n_queued = r->u.ran.n_queued;
    s->n_skipped += r->u.ran.n_skipped;
    if (r->u.ran.made != 0 && !COX_PLANTED("run-forgotten")) {
        s->last_task = r->u.ran.made;
        s->last_wall_ms = r->wall_ms;
    }
    entity_touch(e, &s->kept.entity, seq);
}

void apply_schedule(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    struct schedule *s = cox_map64_get(&e->schedules, r->task);
    if (r->type == RECORD_SCHEDULE_APPLIED) {
        apply_applied(e, seq, r);
    } else if (s != NULL && r->type == RECORD_SCHEDULE_RAN) {
        apply_ran(e, seq, s, r);
    } else if (s != NULL) {
        entity_forget(e, &s->kept.entity);
        destroy(e, s);
    }
}

void schedule_encode(struct cox_buf *b, const struct schedule *s)
{
    cox_put_u8(b, SCHEDULE_VERSION);
    cox_put_bytes(b, cox_slice_str(s->kept.tenant));
    cox_put_bytes(b, cox_slice_str(s->kept.name));
    cox_put_bytes(b, s->document);
    cox_put_bytes(b, s->image);
    cox_put_bytes(b, s->cron);
    cox_put_bytes(b, s->zone);
    cox_put_u8(b, (uint8_t)s->overlap);
    cox_put_i64(b, s->catch_up_ms);
    cox_put_i64(b, s->next_wall_ms);
    cox_put_i64(b, s->last_wall_ms);
    cox_put_u64(b, s->last_task);
    cox_put_u32(b, s->n_queued);
    cox_put_u64(b, s->n_skipped);
}

static bool decode(struct cox_slice bytes, struct record *r, struct schedule *ret)
{
    struct cox_reader in = cox_reader(bytes);
    if (cox_get_u8(&in) != SCHEDULE_VERSION)
        return false;
    r->u.schedule.tenant = record_get_name(&in);
    r->u.schedule.name = record_get_name(&in);
    r->u.schedule.document = cox_get_bytes(&in);
    r->u.schedule.image = cox_get_bytes(&in);
    r->u.schedule.cron = cox_get_bytes(&in);
    r->u.schedule.zone = cox_get_bytes(&in);
    r->u.schedule.overlap = cox_get_u8(&in);
    r->u.schedule.catch_up_ms = cox_get_i64(&in);
    r->u.schedule.next_wall_ms = cox_get_i64(&in);
    ret->last_wall_ms = cox_get_i64(&in);
    ret->last_task = cox_get_u64(&in);
    ret->n_queued = cox_get_u32(&in);
    ret->n_skipped = cox_get_u64(&in);
    return !in.bad && r->u.schedule.name.len > 0;
}

enum cox_err schedule_load(struct cox_engine *e, uint64_t id, uint64_t seq, struct cox_slice bytes)
{
    struct record r = { 0 };
    struct schedule history = { 0 };
    if (!decode(bytes, &r, &history) || !schedule_record_ok(&r) || cox_map64_get(&e->schedules, id) != NULL ||
        find(e, r.u.schedule.tenant, r.u.schedule.name) != NULL)
        return COX_ERR_CORRUPT;
    struct schedule *s = make(e, id, r.u.schedule.tenant, r.u.schedule.name);
    set_document(e, s, &r);
    s->kept.entity.applied_seq = seq;
    s->last_wall_ms = history.last_wall_ms;
    s->last_task = history.last_task;
    s->n_queued = history.n_queued;
    s->n_skipped = history.n_skipped;
    wall_seen(e, s->last_wall_ms);
    return COX_OK;
}

uint64_t schedules_hash(const struct cox_engine *e, uint64_t h)
{
    struct cox_buf b = { 0 };
    for (uint32_t i = 0; i < e->schedules_by_name.n; i++) {
        const struct schedule *s = of(e->schedules_by_name.items[i]);
        cox_buf_clear(&b);
        schedule_encode(&b, s);
        h = entity_fold(h, &s->kept.entity, &b);
    }
    cox_buf_fini(&b);
    return h;
}

void schedules_free(struct cox_engine *e)
{
    while (e->schedules_by_name.n > 0)
        destroy(e, of(e->schedules_by_name.items[e->schedules_by_name.n - 1]));
    size_t it = 0;
    uint64_t number;
    void *left; /* of a history that named two the same: recovery has refused it */
    while (cox_map64_next(&e->schedules, &it, &number, &left))
        destroy(e, left);
    cox_free(e->schedules_by_name.items);
    cox_map64_fini(&e->schedules);
    cox_heap_fini(&e->schedules_due);
}

void schedules_check(const struct cox_engine *e)
{
    kept_check(&e->schedules_by_name);
    COX_ASSERT(e->schedules_by_name.n == e->schedules.len);
    for (uint32_t i = 0; i < e->schedules_by_name.n; i++) {
        const struct schedule *s = of(e->schedules_by_name.items[i]);
        COX_ASSERT(cox_map64_get(&e->schedules, s->kept.entity.id) == s);
        COX_ASSERT(s->n_queued <= COX_SCHEDULE_QUEUE_MAX);
        COX_ASSERT(cox_heap_has(&s->look) || (s->next_wall_ms == 0 && (s->n_queued == 0 || is_busy(e, s))));
    }
}

/* ---- views ---- */

static void view(const struct schedule *s, struct cox_schedule_view *ret)
{
    *ret = (struct cox_schedule_view){ .tenant = cox_slice_str(s->kept.tenant),
                                       .name = cox_slice_str(s->kept.name),
                                       .document = s->document,
                                       .last_wall_ms = s->last_wall_ms,
                                       .next_wall_ms = s->next_wall_ms,
                                       .last_task = s->last_task,
                                       .n_queued = s->n_queued,
                                       .n_skipped = s->n_skipped };
}

bool cox_engine_next_schedule(const struct cox_engine *e, struct cox_slice tenant,
                              struct cox_slice after_name, struct cox_schedule_view *ret)
{
    const struct kept_index *ix = &e->schedules_by_name;
    uint32_t at = kept_place(ix, tenant, after_name, 1);
    if (at == ix->n || !cox_slice_is(tenant, ix->items[at]->tenant))
        return false;
    view(of(ix->items[at]), ret);
    return true;
}

bool cox_engine_find_schedule(const struct cox_engine *e, struct cox_slice tenant, struct cox_slice name,
                              struct cox_schedule_view *ret)
{
    const struct schedule *s = find(e, tenant, name);
    if (s != NULL)
        view(s, ret);
    return s != NULL;
}
