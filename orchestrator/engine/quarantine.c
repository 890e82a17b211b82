/* Roots that recovery leaves alone, because it has crashed over them again and again; and where it is, so
 * that somebody can tell.
 *
 * Nothing of such a task is loaded, applied or derived, so nothing of it can crash again. Its saved entities
 * and its records in the log are handed out to be kept aside: a version that can read them takes it up where
 * it was. Live, the task is simply not there: its workers' results are UNKNOWN. */
#include "quarantine.h"
#include "sleep.h"

#include "cox/base/plant.h"
#include "kept.h"

#include <string.h>

struct quarantined {
    struct cox_list in_quarantine;
    cox_task_id root;
    struct cox_slice why;   /* owned */
    struct cox_slice image; /* owned: for when nothing of it can be read */
    bool unread, archived, deleted;
    bool over;             /* the archive has its true end */
    struct cox_task *stub; /* its header, as the newest of what was seen has it; NULL: not seen */
};

void cox_engine_quarantine(struct cox_engine *e, const struct cox_quarantined *in, struct cox_slice image)
{
    struct quarantined *q = COX_NEW(struct quarantined);
    COX_ASSERT(!e->live && e->seq == 0 && cox_map64_get(&e->quarantined, in->root) == NULL);
    q->root = in->root;
    q->why = slice_own(in->why);
    q->unread = in->unread;
    q->archived = in->archived;
    q->deleted = in->deleted;
    cox_map64_set(&e->quarantined, q->root, q);
    cox_list_push_back(&e->quarantine, &q->in_quarantine);
    q->image = slice_own(image);
}

bool cox_engine_is_quarantined(const struct cox_engine *e, cox_task_id root)
{
    const struct quarantined *q = cox_map64_get(&e->quarantined, root);
    return q != NULL && q->root == root && !q->deleted;
}

bool quarantine_refuses(struct cox_engine *e, uint64_t request, cox_task_id task)
{
    if (!cox_engine_is_quarantined(e, task))
        return false;
    reply(e, request, COX_ERR_INVALID, NULL, "the task is quarantined: lift that first, or delete the task");
    return true;
}

static void stub_set(struct quarantined *q, struct cox_task *stub)
{
    task_destroy(NULL, q->stub);
    q->stub = stub;
}

void quarantine_free(struct cox_engine *e)
{
    while (!cox_list_empty(&e->quarantine)) {
        struct quarantined *q = COX_CONTAINER_OF(e->quarantine.next, struct quarantined, in_quarantine);
        cox_list_remove(&q->in_quarantine);
        stub_set(q, NULL);
        slice_free(q->why);
        slice_free(q->image);
        cox_free(q);
    }
    cox_map64_fini(&e->quarantined);
    cox_buf_fini(&e->set_aside);
}

/* ---- what people get to see of it ---- */

static void stub_image(struct cox_task *t, struct cox_slice image)
{
    t->own_image = true;
    t->image_bytes = cox_alloc(image.len);
    memcpy(t->image_bytes, image.data, image.len);
    t->image.bytes = cox_slice(t->image_bytes, image.len);
}

static void stub_from_submitted(struct quarantined *q, const struct record *r)
{
    const struct record_submitted *s = &r->u.submitted;
    struct cox_image image;
    if (cox_image_open(&image, s->image) != COX_OK)
        return;
    struct cox_task *t = task_create(NULL, q->root);
    t->tenant = text_own(s->tenant.len > 0 ? s->tenant : cox_slice_str("default"));
    t->key = s->key.len > 0 ? text_own(s->key) : NULL;
    t->document = s->document;
    t->schedule = s->schedule.len > 0 ? text_own(s->schedule) : NULL;
    t->created_wall_ms = r->wall_ms;
    stub_image(t, s->image);
    task_init_header(t);
    stub_set(q, t);
}

static void stub_from_header(struct quarantined *q, struct cox_slice header)
{
    struct cox_task *t = task_create(NULL, q->root);
    if (header_decode(t, header) != COX_OK || !t->own_image) {
        task_destroy(NULL, t);
        return;
    }
    task_init_header(t);
    stub_set(q, t);
}

/* It had ended, and people may have been told: that stays true. */
static void stub_finish(struct quarantined *q, const struct record_finished *f)
{
    struct cox_task *t = q->stub;
    q->over = q->archived;
    if (t == NULL)
        return;
    t->status = f->status;
    t->code = f->code;
    cox_free(t->message);
    t->message = f->message.len > 0 ? text_own(f->message) : NULL;
    cox_free(t->outputs);
    t->outputs = value_make(&f->outputs);
}

static struct cox_task *stub_unread(const struct cox_engine *e, const struct quarantined *q)
{
    struct cox_task *t = task_create(NULL, q->root);
    t->tenant = cox_strdup("default");
    t->created_wall_ms = e->now.wall_ms;
    stub_image(t, q->image);
    task_init_header(t);
    return t;
}

static void stub_archive(struct cox_engine *e, struct quarantined *q)
{
    if (q->stub == NULL)
        stub_set(q, stub_unread(e, q));
    struct cox_task *t = q->stub;
    if (!cox_task_status_final(t->status)) {
        t->status = COX_TASK_FAILED;
        t->code = COX_CODE_INTERNAL;
        cox_free(t->message);
        t->message = text_own(text_cut(q->why, COX_ERROR_MESSAGE_LEN_MAX));
        t->error_step = COX_IMAGE_NONE;
    }
    if (t->finished_wall_ms == 0)
        t->finished_wall_ms = e->now.wall_ms;
    struct cox_buf bytes = { 0 };
    task_freeze(e, t, &bytes);
    struct cox_action *a = act(e, COX_ACT_ARCHIVE);
    a->u.archive.task = a->u.archive.root = t->id;
    a->u.archive.bytes = cox_slice(cox_arena_dup(&e->fx->arena, bytes.data, bytes.len), bytes.len);
    cox_buf_fini(&bytes);
    task_index(e, t);
}

/* ---- what recovery meets ---- */

/* The task in which the frame of this header is; 0: it is a root, or cannot be read. Looks at no image. */
static cox_task_id header_parent(struct cox_slice bytes)
{
    struct cox_reader r = cox_reader(bytes);
    struct cox_payload skipped;
    uint8_t version = cox_get_u8(&r);
    for (int i = 0; i < 2; i++) /* tenant, key */
        cox_get_bytes(&r);
    cox_get_raw(&r, sizeof(struct cox_hash) + 3 + 3 * sizeof(int64_t));
    cox_get_bytes(&r); /* message */
    cox_get_raw(&r, sizeof(uint32_t) + 1);
    payload_decode(&r, &skipped);
    cox_get_bytes(&r); /* image */
    cox_get_raw(&r, 1 + sizeof(int64_t));
    cox_get_bytes(&r); /* schedule */
    cox_get_u64(&r);
    for (uint32_t n = cox_get_u32(&r); n > 0 && !r.bad; n--) {
        cox_get_u64(&r);
        cox_get_bytes(&r);
        payload_decode(&r, &skipped);
    }
    cox_get_bytes(&r); /* template pins */
    for (uint32_t n = cox_get_u32(&r); n > 0 && !r.bad; n--) {
        cox_get_u32(&r);
        cox_get_bytes(&r);
    }
    cox_task_id parent = cox_get_u64(&r);
    return version < 2 || r.bad ? 0 : parent;
}

static void aside_put(struct cox_engine *e, const struct quarantined *q, struct cox_entity_key key,
                      uint64_t seq, struct cox_slice bytes)
{
    if (q->deleted || (key.kind == 0 && COX_PLANTED("record-not-set-aside")))
        return;
    cox_put_u64(&e->set_aside, q->root);
    cox_put_u8(&e->set_aside, key.kind);
    cox_put_u64(&e->set_aside, key.id);
    cox_put_u32(&e->set_aside, key.sub);
    cox_put_u64(&e->set_aside, seq);
    cox_put_bytes(&e->set_aside, bytes);
}

/* Frames of a tree that comes back belong to it as well: records will name them. */
static void learn_tree(struct cox_engine *e, struct quarantined *q, struct cox_slice tree)
{
    struct cox_reader in;
    struct frozen task;
    uint32_t n;
    if (!tree_open(tree, &in, &n))
        return;
    while (tree_next(&in, &n, &task)) {
        cox_map64_set(&e->quarantined, task.id, q);
        if (task.id == q->root && !q->unread)
            stub_from_header(q, task.header);
    }
}

bool quarantine_takes_entity(struct cox_engine *e, struct cox_entity_key key, struct cox_slice bytes)
{
    bool of_task = key.kind == ENTITY_TASK || key.kind == ENTITY_PAGE || key.kind == ENTITY_MAP_PAGE ||
                   key.kind == ENTITY_SLEEPER;
    if (cox_list_empty(&e->quarantine) || !of_task)
        return false;
    struct quarantined *q = cox_map64_get(&e->quarantined, key.id);
    if (q == NULL && key.kind == ENTITY_TASK && (q = cox_map64_get(&e->quarantined, header_parent(bytes))))
        cox_map64_set(&e->quarantined, key.id, q); /* a frame; its parent's id is lower, so it came before */
    if (q == NULL)
        return false;
    if (key.kind == ENTITY_SLEEPER)
        learn_tree(e, q, sleeper_tree(bytes));
    else if (key.kind == ENTITY_TASK && key.id == q->root && !q->unread)
        stub_from_header(q, bytes);
    aside_put(e, q, key, 0, cox_slice(NULL, 0));
    return true;
}

/* Of records that are about a task; others use the field `task` for numbers of their own. */
static bool is_about_task(const struct record *r)
{
    switch (r->type) {
    case RECORD_EPOCH:
    case RECORD_WORKER_NAMED:
    case RECORD_PAYLOAD: /* the values are kept: what is left alone may come back */
    case RECORD_KEY_EXPIRED:
    case RECORD_POLICY:
    case RECORD_TEMPLATE_APPLIED:
    case RECORD_TEMPLATE_DROPPED:
    case RECORD_SCHEDULE_APPLIED:
    case RECORD_SCHEDULE_DELETED:
    case RECORD_SCHEDULE_RAN:
        return false;
    default:
        return true;
    }
}

static void learn_record(struct cox_engine *e, struct quarantined *q, const struct record *r)
{
    if (r->type == RECORD_TASK_WOKEN)
        learn_tree(e, q, r->u.woken.bytes);
    if (r->task != q->root || q->unread)
        return;
    struct cox_reader in;
    switch (r->type) {
    case RECORD_TASK_SUBMITTED:
        stub_from_submitted(q, r);
        break;
    case RECORD_TASK_FORKED:
        in = cox_reader(r->u.forked.bytes);
        stub_from_header(q, cox_get_bytes(&in));
        break;
    case RECORD_TASK_REVIVED:
        in = cox_reader(r->u.woken.bytes);
        stub_from_header(q, cox_get_bytes(&in));
        q->over = false;
        break;
    case RECORD_TASK_FINISHED:
        stub_finish(q, &r->u.finished);
        break;
    case RECORD_TASK_ARCHIVED:
        q->over = true;
        break;
    default:
        break;
    }
}

bool quarantine_takes_record(struct cox_engine *e, const struct record *r, struct cox_slice framed)
{
    if (cox_list_empty(&e->quarantine) || !is_about_task(r))
        return false;
    struct quarantined *q = cox_map64_get(&e->quarantined, r->task);
    if (q == NULL && r->type == RECORD_FRAME_OPENED &&
        (q = cox_map64_get(&e->quarantined, r->u.frame.parent)))
        cox_map64_set(&e->quarantined, r->task, q);
    if (q == NULL)
        return false;
    bool makes_task =
        r->type == RECORD_TASK_SUBMITTED || r->type == RECORD_TASK_FORKED || r->type == RECORD_FRAME_OPENED;
    if (makes_task && !COX_PLANTED("quarantine-frees-number"))
        apply_name_of_task(e, e->seq, r);
    learn_record(e, q, r);
    aside_put(e, q, (struct cox_entity_key){ 0 }, e->seq, framed);
    return true;
}

static void hand_over_aside(struct cox_engine *e)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&e->set_aside));
    while (cox_reader_left(&in) > 0) {
        struct cox_action *a = act(e, COX_ACT_ASIDE);
        a->u.aside.root = cox_get_u64(&in);
        a->u.aside.key.kind = cox_get_u8(&in);
        a->u.aside.key.id = cox_get_u64(&in);
        a->u.aside.key.sub = cox_get_u32(&in);
        a->u.aside.seq = cox_get_u64(&in);
        struct cox_slice bytes = cox_get_bytes(&in);
        a->u.aside.bytes = cox_slice(cox_arena_dup(&e->fx->arena, bytes.data, bytes.len), bytes.len);
    }
    cox_buf_fini(&e->set_aside);
}

static void alarm_about(struct cox_engine *e, const struct quarantined *q)
{
    struct cox_buf text = { 0 };
    char id[COX_TASK_ID_TEXT_MAX];
    cox_task_id_format(q->root, id);
    cox_buf_printf(&text, "task %s is left alone: %.*s", id, (int)q->why.len, (const char *)q->why.data);
    act(e, COX_ACT_ALARM)->u.alarm.text = cox_arena_dup(&e->fx->arena, cox_buf_cstr(&text), text.len + 1);
    cox_buf_fini(&text);
}

void quarantine_recovered(struct cox_engine *e)
{
    hand_over_aside(e);
    COX_LIST_FOR_EACH (it, &e->quarantine) {
        struct quarantined *q = COX_CONTAINER_OF(it, struct quarantined, in_quarantine);
        if (q->deleted)
            continue;
        e->stats.n_tasks_quarantined++;
        alarm_about(e, q);
        if (!q->over && (q->stub != NULL || !q->archived))
            stub_archive(e, q);
        stub_set(q, NULL);
    }
}

/* ---- where recovery is ---- */

static void place(const struct cox_engine *e, const struct cox_place *p)
{
    e->config.on_place(e->config.user, p);
}

/* 0: not known, or not yet. */
static cox_task_id root_of(const struct cox_engine *e, cox_task_id id)
{
    const struct cox_task *t = cox_map64_get(&e->tasks, id);
    const struct quarantined *q;
    while (t != NULL && t->has_header && t->parent_id != 0) {
        id = t->parent_id;
        t = cox_map64_get(&e->tasks, id);
    }
    if (t != NULL)
        return t->has_header ? id : 0;
    q = cox_map64_get(&e->quarantined, id);
    return q != NULL ? q->root : 0;
}

void place_entity(const struct cox_engine *e, struct cox_entity_key key, struct cox_slice bytes)
{
    struct cox_place p = { .phase = COX_PLACE_LOAD, .kind = key.kind, .at = key.id, .sub = key.sub };
    if (e->config.on_place == NULL)
        return;
    if (key.kind == ENTITY_TASK) {
        cox_task_id parent = header_parent(bytes);
        p.root = parent != 0 ? root_of(e, parent) : key.id;
    } else if (key.kind == ENTITY_SLEEPER) {
        p.root = key.id;
    } else if (key.kind == ENTITY_PAGE || key.kind == ENTITY_MAP_PAGE) {
        p.root = root_of(e, key.id);
    }
    place(e, &p);
}

void place_record(const struct cox_engine *e, const struct record *r)
{
    struct cox_place p = { .phase = COX_PLACE_REPLAY, .kind = r->type, .at = e->seq };
    if (e->config.on_place == NULL)
        return;
    if (r->type == RECORD_FRAME_OPENED)
        p.root = root_of(e, r->u.frame.parent);
    else if (r->type == RECORD_TASK_SUBMITTED || r->type == RECORD_TASK_FORKED ||
             r->type == RECORD_TASK_REVIVED || r->type == RECORD_TASK_WOKEN)
        p.root = r->task;
    else if (is_about_task(r))
        p.root = root_of(e, r->task);
    place(e, &p);
}

void place_derive(const struct cox_engine *e, const struct cox_task *t, enum place_stage stage, uint32_t step)
{
    if (e->config.on_place != NULL)
        place(e,
              &(struct cox_place){
                  .phase = COX_PLACE_DERIVE, .kind = stage, .at = t->id, .sub = step, .root = t->root->id });
}

void place_none(const struct cox_engine *e)
{
    if (e->config.on_place != NULL)
        place(e, &(struct cox_place){ .phase = COX_PLACE_NONE });
}
