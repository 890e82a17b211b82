/* Entities: how durable state is saved, loaded, archived and forgotten.
 *
 * A checkpoint takes the list of changed entities as it stands (`saving`) and writes them out in slices over
 * many turns. An entity that changes meanwhile is saved with the change; its applied_seq says so. When the
 * list is empty, everything up to the sequence at which the checkpoint began is covered, and the log may be
 * truncated there. What is removed leaves a tombstone until a checkpoint has passed it on. */
#include "entity.h"
#include "expand/agent.h"
#include "expand/expand.h"
#include "expand/map.h"
#include "quarantine.h"
#include "schedule.h"
#include "sleep.h"
#include "template.h"
#include "workspace.h"

#include <string.h>

void entity_init(struct entity *en, enum entity_kind kind, uint64_t id, uint32_t sub)
{
    cox_list_init(&en->in_dirty);
    en->applied_seq = 0;
    en->kind = (uint8_t)kind;
    en->id = id;
    en->sub = sub;
}

void entity_touch(struct cox_engine *e, struct entity *en, uint64_t seq)
{
    en->applied_seq = seq;
    if (cox_list_empty(&en->in_dirty))
        cox_list_push_back(&e->dirty, &en->in_dirty);
}

void entity_forget(struct cox_engine *e, struct entity *en)
{
    cox_list_remove(&en->in_dirty);
    struct tombstone *ts = cox_pool_get(&e->tombstone_pool);
    ts->key = (struct cox_entity_key){ en->kind, en->id, en->sub };
    /* A checkpoint under way may not have come to this entity: what the state still has of it would be older
     * than the log once that is cut. So it goes with this checkpoint, not with the next. */
    cox_list_push_back(e->checkpointing && !COX_PLANTED("tombstone-too-late") ? &e->tombstones_saving
                                                                              : &e->tombstones,
                       &ts->in_tombstones);
}

/* ---- encoding: every entity begins with its format version ---- */

/* Version 1 ended where the fields of expansion begin. */
uint8_t entity_get_version(struct cox_reader *r)
{
    uint8_t version = cox_get_u8(r);
    if (version < 1 || version > ENTITY_VERSION)
        r->bad = true;
    return version;
}

void entity_put_text(struct cox_buf *b, const char *s)
{
    cox_put_bytes(b, cox_slice_str(s));
}

char *entity_get_text(struct cox_reader *r)
{
    struct cox_slice s = cox_get_bytes(r);
    return s.len > 0 ? cox_strndup((const char *)s.data, s.len) : NULL;
}

void entity_put_value(struct cox_buf *b, const struct value *v)
{
    static const struct cox_payload none = { .kind = COX_PAYLOAD_NONE };
    payload_encode(b, v != NULL ? &v->payload : &none);
}

struct value *entity_get_value(struct cox_reader *r)
{
    struct cox_payload p;
    payload_decode(r, &p);
    return value_make(&p);
}

static void words_encode(struct cox_buf *b, const struct cox_task *t)
{
    uint32_t n_refs = t->template_pins != NULL ? cox_image_n_refs(&t->image) : 0, n_pinned = 0;
    cox_put_u8(b, t->paused);
    cox_put_i64(b, t->revived_wall_ms);
    entity_put_text(b, t->schedule);
    cox_put_u64(b, t->last_signal);
    cox_put_u32(b, t->n_signals);
    COX_LIST_FOR_EACH (it, &t->signals) {
        const struct signal *sig = COX_CONTAINER_OF(it, struct signal, in_signals);
        cox_put_u64(b, sig->number);
        entity_put_text(b, sig->name);
        entity_put_value(b, sig->payload);
    }
    cox_put_u32(b, n_refs * (uint32_t)sizeof(uint64_t));
    for (uint32_t i = 0; i < n_refs; i++)
        cox_put_u64(b, t->template_pins[i]);
    for (uint32_t i = 0; t->version_pins != NULL && i < t->image.n_classes; i++)
        n_pinned += t->version_pins[i] != NULL;
    cox_put_u32(b, n_pinned);
    for (uint32_t i = 0; t->version_pins != NULL && i < t->image.n_classes; i++) {
        if (t->version_pins[i] == NULL)
            continue;
        cox_put_u32(b, i);
        entity_put_text(b, t->version_pins[i]);
    }
}

static void frame_encode(struct cox_buf *b, const struct cox_task *t)
{
    cox_put_u64(b, t->parent_id);
    if (t->parent_id == 0)
        return;
    cox_put_u32(b, t->parent_step);
    cox_put_u64(b, t->parent_token.epoch);
    cox_put_u64(b, t->parent_token.counter);
    cox_put_u64(b, t->parent_item);
    cox_put_u32(b, t->first);
    cox_put_u32(b, t->n_steps);
    cox_put_u8(b, t->own_image);
    entity_put_value(b, t->item);
    entity_put_value(b, t->args);
}

static void header_encode_with(struct cox_buf *b, const struct cox_task *t, struct cox_slice image)
{
    cox_put_u8(b, ENTITY_VERSION);
    entity_put_text(b, t->tenant);
    entity_put_text(b, t->key);
    cox_buf_append(b, t->document.b, sizeof t->document.b);
    cox_put_u8(b, (uint8_t)t->status);
    cox_put_u8(b, (uint8_t)t->stopping);
    cox_put_u8(b, (uint8_t)t->code);
    cox_put_i64(b, t->created_wall_ms);
    cox_put_i64(b, t->started_wall_ms);
    cox_put_i64(b, t->finished_wall_ms);
    entity_put_text(b, t->message);
    cox_put_u32(b, t->error_step);
    cox_put_u8(b, t->gone);
    entity_put_value(b, t->outputs);
    cox_put_bytes(b, image);
    words_encode(b, t);
    frame_encode(b, t);
    if (!ledger_untouched(t->ledger) && !COX_PLANTED("ledger-not-saved"))
        ledger_encode(b, t->ledger); /* most have none: a reader finds the end */
}

void header_encode(struct cox_buf *b, const struct cox_task *t)
{
    header_encode_with(b, t, t->own_image ? t->image.bytes : cox_slice(NULL, 0));
}

static void words_decode(struct cox_task *t, struct cox_reader *r)
{
    t->paused = cox_get_u8(r) != 0;
    t->revived_wall_ms = cox_get_i64(r);
    t->schedule = entity_get_text(r);
    t->last_signal = cox_get_u64(r);
    for (uint32_t n = cox_get_u32(r); n > 0 && !r->bad; n--) {
        struct cox_payload payload;
        uint64_t last = t->last_signal;
        t->last_signal = cox_get_u64(r) - 1; /* signal_keep counts on from here */
        struct cox_slice name = cox_get_bytes(r);
        payload_decode(r, &payload);
        if (!r->bad)
            signal_keep(t, name, &payload);
        t->last_signal = last;
    }
    struct cox_slice pins = cox_get_bytes(r);
    if (pins.len > 0 && (!t->own_image || pins.len != cox_image_n_refs(&t->image) * sizeof(uint64_t)))
        r->bad = true;
    else
        task_pin_templates(t, pins);
    for (uint32_t n = cox_get_u32(r); n > 0 && !r->bad; n--) {
        uint32_t class_index = cox_get_u32(r);
        struct cox_slice version = cox_get_bytes(r);
        if (t->image.n_classes <= class_index)
            r->bad = true;
        else
            task_pin_version(t, class_index, version);
    }
}

static void frame_decode(struct cox_task *t, struct cox_reader *r)
{
    t->parent_id = cox_get_u64(r);
    if (t->parent_id == 0)
        return;
    t->parent_step = cox_get_u32(r);
    t->parent_token.epoch = cox_get_u64(r);
    t->parent_token.counter = cox_get_u64(r);
    t->parent_item = cox_get_u64(r);
    t->first = cox_get_u32(r);
    t->n_steps = cox_get_u32(r);
    t->own_image = cox_get_u8(r) != 0;
    t->item = entity_get_value(r);
    t->args = entity_get_value(r);
    bool in_image =
        t->image_bytes == NULL || (t->first < t->image.n_steps && t->n_steps <= t->image.n_steps - t->first);
    if (t->n_steps == 0 || t->n_steps > COX_TASK_STEPS_MAX || !in_image ||
        (t->own_image && (t->image_bytes == NULL || t->first != 0)))
        r->bad = true;
}

enum cox_err header_decode(struct cox_task *t, struct cox_slice bytes)
{
    struct cox_reader r = cox_reader(bytes);
    uint8_t version = entity_get_version(&r);
    t->tenant = entity_get_text(&r);
    t->key = entity_get_text(&r);
    struct cox_slice hash = cox_get_raw(&r, sizeof t->document.b);
    if (hash.len == sizeof t->document.b)
        memcpy(t->document.b, hash.data, hash.len);
    t->status = (enum cox_task_status)cox_get_u8(&r);
    t->stopping = (enum cox_task_status)cox_get_u8(&r);
    t->code = (enum cox_code)cox_get_u8(&r);
    t->created_wall_ms = cox_get_i64(&r);
    t->started_wall_ms = cox_get_i64(&r);
    t->finished_wall_ms = cox_get_i64(&r);
    t->message = entity_get_text(&r);
    t->error_step = cox_get_u32(&r);
    t->gone = cox_get_u8(&r) != 0;
    t->outputs = entity_get_value(&r);
    struct cox_slice image = cox_get_bytes(&r);
    if (r.bad || t->status >= COX_TASK_STATUS_NR || t->stopping >= COX_TASK_STATUS_NR ||
        t->code >= COX_CODE_NR || t->tenant == NULL)
        return COX_ERR_CORRUPT;
    t->own_image = image.len > 0;
    if (t->own_image) {
        t->image_bytes = cox_alloc(image.len);
        memcpy(t->image_bytes, image.data, image.len);
        if (cox_image_open(&t->image, cox_slice(t->image_bytes, image.len)) != COX_OK)
            return COX_ERR_CORRUPT;
    }
    if (version >= 2) {
        words_decode(t, &r);
        frame_decode(t, &r);
        if (cox_reader_left(&r) > 0)
            ledger_decode(&r, t);
    }
    return r.bad || (!t->own_image && t->parent_id == 0) ? COX_ERR_CORRUPT : COX_OK;
}

void key_encode(struct cox_buf *b, const struct idem_key *k)
{
    cox_put_u8(b, ENTITY_VERSION);
    cox_put_bytes(b, cox_slice(k->map_key, k->map_key_len));
    cox_buf_append(b, k->document.b, sizeof k->document.b);
    cox_put_i64(b, k->wall_ms);
}

void worker_encode(struct cox_buf *b, const struct worker *w)
{
    cox_put_u8(b, ENTITY_VERSION);
    entity_put_text(b, w->id);
    cox_put_u8(b, w->cordoned);
}

void meta_encode(struct cox_buf *b, const struct meta *m)
{
    cox_put_u8(b, ENTITY_VERSION);
    cox_put_u64(b, m->epoch);
    cox_put_u64(b, m->last_task_counter);
    cox_put_u32(b, m->last_worker_ref);
    cox_put_u64(b, m->last_template);
    cox_put_u64(b, m->last_schedule);
}

static void entity_encode(struct cox_buf *b, const struct entity *en)
{
    switch ((enum entity_kind)en->kind) {
    case ENTITY_META:
        meta_encode(b, COX_CONTAINER_OF(en, struct meta, entity));
        break;
    case ENTITY_WORKER:
        worker_encode(b, COX_CONTAINER_OF(en, struct worker, entity));
        break;
    case ENTITY_KEY:
        key_encode(b, COX_CONTAINER_OF(en, struct idem_key, entity));
        break;
    case ENTITY_TASK:
        header_encode(b, COX_CONTAINER_OF(en, struct cox_task, entity));
        break;
    case ENTITY_PAGE:
        page_encode(b, COX_CONTAINER_OF(en, struct page, entity));
        break;
    case ENTITY_MAP_PAGE:
        map_page_encode(b, COX_CONTAINER_OF(en, struct map_page, entity));
        break;
    case ENTITY_TEMPLATE:
        template_encode(b, COX_CONTAINER_OF(en, struct template, kept.entity));
        break;
    case ENTITY_SCHEDULE:
        schedule_encode(b, COX_CONTAINER_OF(en, struct schedule, kept.entity));
        break;
    case ENTITY_SLEEPER: /* never in a list of changed ones: stored when it fell asleep */
        break;
    }
}

/* ---- checkpoints ---- */

static void checkpoint_begin(struct cox_engine *e)
{
    e->checkpointing = true;
    e->checkpoint_seq = e->seq;
    struct {
        struct cox_list *from, *to;
    } moves[] = { { &e->dirty, &e->saving }, { &e->tombstones, &e->tombstones_saving } };
    for (size_t i = 0; i < 2; i++) {
        while (!cox_list_empty(moves[i].from)) {
            struct cox_list *n = moves[i].from->next;
            cox_list_remove(n);
            cox_list_push_back(moves[i].to, n);
        }
    }
}

static size_t checkpoint_save(struct cox_engine *e, struct cox_buf *scratch)
{
    struct entity *en = COX_CONTAINER_OF(e->saving.next, struct entity, in_dirty);
    cox_list_remove(&en->in_dirty);
    cox_buf_clear(scratch);
    entity_encode(scratch, en);
    struct cox_action *a = act(e, COX_ACT_SAVE);
    a->u.save.key = (struct cox_entity_key){ en->kind, en->id, en->sub };
    a->u.save.applied_seq = COX_PLANTED("saved-as-of-the-checkpoint") ? e->checkpoint_seq : en->applied_seq;
    a->u.save.bytes = cox_slice(cox_arena_dup(&e->fx->arena, scratch->data, scratch->len), scratch->len);
    return scratch->len + sizeof *a;
}

/* Has another entity of this key been handed to the state since, by an action of its own? It would be lost.
 */
static bool is_kept_again(const struct cox_engine *e, const struct cox_entity_key *key)
{
    return (key->kind == ENTITY_SLEEPER && cox_map64_get(&e->sleepers, key->id) != NULL) ||
           (key->kind == ENTITY_MAP_PAGE && map_page_is_saved(e, key));
}

static size_t checkpoint_forget(struct cox_engine *e)
{
    struct tombstone *ts = COX_CONTAINER_OF(e->tombstones_saving.next, struct tombstone, in_tombstones);
    cox_list_remove(&ts->in_tombstones);
    if (!is_kept_again(e, &ts->key) || COX_PLANTED("forgets-what-is-kept-again")) {
        struct cox_action *a = act(e, COX_ACT_FORGET);
        a->u.save.key = ts->key;
        a->u.save.applied_seq = e->checkpoint_seq;
    }
    cox_pool_put(&e->tombstone_pool, ts);
    return sizeof(struct cox_action);
}

void checkpoint_slice(struct cox_engine *e, size_t max_bytes)
{
    if (!e->checkpointing)
        checkpoint_begin(e);
    struct cox_buf scratch = { 0 };
    size_t used = 0;
    while (used < max_bytes && !cox_list_empty(&e->tombstones_saving))
        used += checkpoint_forget(e);
    while (used < max_bytes && !cox_list_empty(&e->saving))
        used += checkpoint_save(e, &scratch);
    cox_buf_fini(&scratch);
    bool last = COX_PLANTED("truncates-before-last-page") && e->saving.next == e->saving.prev;
    if ((cox_list_empty(&e->saving) || last) && cox_list_empty(&e->tombstones_saving)) {
        act(e, COX_ACT_TRUNCATE)->u.truncate.seq = e->checkpoint_seq + COX_PLANTED("truncates-too-far");
        e->checkpointing = false;
    }
}

/* ---- loading ---- */

static enum cox_err load_key(struct cox_engine *e, uint64_t id, uint64_t seq, struct cox_slice bytes)
{
    struct cox_reader r = cox_reader(bytes);
    entity_get_version(&r);
    struct cox_slice text = cox_get_bytes(&r);
    struct cox_slice hash = cox_get_raw(&r, sizeof(struct cox_hash));
    int64_t wall_ms = cox_get_i64(&r);
    if (r.bad || cox_mapb_get(&e->keys, text) != NULL)
        return COX_ERR_CORRUPT;
    struct idem_key *k = COX_NEW(struct idem_key);
    entity_init(&k->entity, ENTITY_KEY, id, 0);
    k->entity.applied_seq = seq;
    k->map_key = cox_strndup((const char *)text.data, text.len);
    k->map_key_len = text.len;
    memcpy(k->document.b, hash.data, sizeof k->document.b);
    k->wall_ms = wall_ms;
    cox_mapb_set(&e->keys, cox_slice(k->map_key, k->map_key_len), k);
    cox_list_push_back(&e->key_list, &k->in_keys); /* ids rise with age: loaded oldest first */
    return COX_OK;
}

static enum cox_err load_meta(struct cox_engine *e, uint64_t seq, struct cox_slice bytes)
{
    struct cox_reader r = cox_reader(bytes);
    entity_get_version(&r);
    e->meta.epoch = cox_get_u64(&r);
    e->meta.last_task_counter = cox_get_u64(&r);
    e->meta.last_worker_ref = cox_get_u32(&r);
    if (cox_reader_left(&r) > 0) {
        e->meta.last_template = cox_get_u64(&r);
        e->meta.last_schedule = cox_get_u64(&r);
    }
    e->meta.entity.applied_seq = seq;
    return r.bad ? COX_ERR_CORRUPT : COX_OK;
}

#define WORKERS_MAX (1u << 26) /* ever named: they are looked up by number */

static enum cox_err load_worker(struct cox_engine *e, uint64_t id, uint64_t seq, struct cox_slice bytes)
{
    struct cox_reader r = cox_reader(bytes);
    entity_get_version(&r);
    struct cox_slice name = cox_get_bytes(&r);
    if (r.bad || name.len == 0 || id == 0 || id > WORKERS_MAX || worker_by_ref(e, (uint32_t)id) != NULL ||
        cox_mapb_get(&e->workers_by_id, name) != NULL)
        return COX_ERR_CORRUPT;
    struct worker *w = worker_make(e, (uint32_t)id, name);
    w->entity.applied_seq = seq;
    w->cordoned = cox_get_u8(&r) != 0; /* absent before there were cordons: reads as zero */
    return COX_OK;
}

static enum cox_err load_task(struct cox_engine *e, uint64_t id, uint64_t seq, struct cox_slice bytes)
{
    if (cox_map64_get(&e->tasks, id) != NULL)
        return COX_ERR_CORRUPT;
    struct cox_task *t = task_create(e, id);
    t->entity.applied_seq = seq;
    enum cox_err err = header_decode(t, bytes);
    if (err != COX_OK)
        return err;
    task_init_header(t);
    if (!task_pages_fit(t) || t->parent_id >= id) /* a frame is younger than what it is in */
        return COX_ERR_CORRUPT;
    frame_attach(e, t);
    wall_seen(e, t->created_wall_ms);
    wall_seen(e, t->finished_wall_ms);
    return COX_OK;
}

/* A page may be in the state before its header is: then it waits as raw bytes' worth of steps. */
static enum cox_err load_page(struct cox_engine *e, uint64_t id, uint32_t sub, uint64_t seq,
                              struct cox_slice bytes)
{
    struct cox_task *t = cox_map64_get(&e->tasks, id);
    if (t == NULL)
        t = task_create(e, id);
    struct cox_reader r = cox_reader(bytes);
    cox_get_u8(&r);
    uint32_t n_steps = cox_get_u32(&r);
    if (r.bad || n_steps == 0 || n_steps > COX_PAGE_STEPS || sub > COX_TASK_STEPS_MAX / COX_PAGE_STEPS)
        return COX_ERR_CORRUPT;
    if (!t->has_header && sub >= t->n_pages) {
        t->pages = cox_realloc(t->pages, sub + 1, sizeof t->pages[0]);
        for (; t->n_pages <= sub; t->n_pages++)
            t->pages[t->n_pages] = NULL;
    }
    if (sub >= t->n_pages || t->pages[sub] != NULL)
        return COX_ERR_CORRUPT;
    struct page *p = page_create(t, sub, n_steps);
    p->entity.applied_seq = seq;
    return page_decode(p, bytes);
}

static enum cox_err load_one(struct cox_engine *e, struct cox_entity_key key, uint64_t applied_seq,
                             struct cox_slice bytes)
{
    switch ((enum entity_kind)key.kind) {
    case ENTITY_META:
        return load_meta(e, applied_seq, bytes);
    case ENTITY_WORKER:
        return load_worker(e, key.id, applied_seq, bytes);
    case ENTITY_KEY:
        return load_key(e, key.id, applied_seq, bytes);
    case ENTITY_TASK:
        return load_task(e, key.id, applied_seq, bytes);
    case ENTITY_PAGE:
        return load_page(e, key.id, key.sub, applied_seq, bytes);
    case ENTITY_MAP_PAGE:
        return map_page_load(e, key.id, key.sub, applied_seq, bytes);
    case ENTITY_SLEEPER:
        return sleeper_load(e, key.id, applied_seq, bytes);
    case ENTITY_TEMPLATE:
        return template_load(e, key.id, applied_seq, bytes);
    case ENTITY_SCHEDULE:
        return schedule_load(e, key.id, applied_seq, bytes);
    }
    return COX_ERR_CORRUPT;
}

enum cox_err cox_engine_load(struct cox_engine *e, struct cox_entity_key key, uint64_t applied_seq,
                             struct cox_slice bytes)
{
    COX_ASSERT(!e->live);
    place_entity(e, key, bytes);
    enum cox_err err = COX_OK;
    if (!quarantine_takes_entity(e, key, bytes))
        err = load_one(e, key, applied_seq, bytes);
    if (err == COX_OK)
        place_none(e);
    return err;
}

/* ---- the archive: header, pages, and the names of the workers they mention ---- */

static void freeze_worker(const struct cox_engine *e, uint32_t ref, struct cox_map64 *seen,
                          struct cox_buf *names, uint32_t *n)
{
    const struct worker *w = ref != 0 ? worker_by_ref(e, ref) : NULL;
    if (w == NULL || cox_map64_get(seen, ref) != NULL)
        return;
    cox_map64_set(seen, ref, (void *)w);
    cox_put_u32(names, ref);
    entity_put_text(names, w->id);
    (*n)++;
}

void task_freeze(const struct cox_engine *e, const struct cox_task *t, struct cox_buf *out)
{
    struct cox_map64 seen = { 0 };
    struct cox_buf names = { 0 };
    uint32_t n_names = 0;
    cox_put_u8(out, ENTITY_VERSION);
    cox_put_u64(out, t->id);
    size_t at = out->len;
    cox_put_u32(out, 0);
    header_encode_with(out, t, t->image.bytes); /* a frame stands alone there */
    cox_set_u32(out, at, (uint32_t)(out->len - at - 4));
    cox_put_u32(out, t->n_pages);
    for (uint32_t no = 0; no < t->n_pages; no++) {
        const struct page *p = t->pages[no];
        at = out->len;
        cox_put_u32(out, 0);
        if (p != NULL)
            page_encode(out, p);
        cox_set_u32(out, at, (uint32_t)(out->len - at - 4));
        for (uint32_t i = 0; p != NULL && i < p->n_steps; i++) {
            const struct step *s = &p->steps[i];
            freeze_worker(e, s->worker, &seen, &names, &n_names);
            for (uint32_t k = 0; s->history != NULL && k < s->history->n; k++)
                freeze_worker(e, s->history->items[k].worker, &seen, &names, &n_names);
        }
    }
    cox_put_u32(out, n_names);
    cox_buf_append(out, names.data, names.len);
    cox_buf_fini(&names);
    cox_map64_fini(&seen);
}

static enum cox_err thaw_pages(struct cox_task *t, struct cox_reader *r)
{
    if (cox_get_u32(r) != t->n_pages)
        return COX_ERR_CORRUPT;
    for (uint32_t no = 0; no < t->n_pages; no++) {
        struct page *p = page_create(t, no, page_n_steps(t, no));
        struct cox_slice bytes = cox_get_bytes(r);
        enum cox_err err = bytes.len > 0 || r->bad ? page_decode(p, bytes) : COX_OK;
        if (err != COX_OK)
            return err;
    }
    return COX_OK;
}

static enum cox_err thaw_names(struct cox_task *t, struct cox_reader *r)
{
    uint32_t n = cox_get_u32(r);
    t->worker_names = cox_calloc(1, sizeof *t->worker_names);
    for (uint32_t i = 0; i < n && !r->bad; i++) {
        uint32_t ref = cox_get_u32(r);
        char *name = entity_get_text(r);
        if (name == NULL || ref == 0) {
            cox_free(name);
            return COX_ERR_CORRUPT;
        }
        cox_free(cox_map64_set(t->worker_names, ref, name));
    }
    return r->bad ? COX_ERR_CORRUPT : COX_OK;
}

enum cox_err cox_task_thaw(struct cox_slice archived, struct cox_task **ret)
{
    struct cox_reader r = cox_reader(archived);
    entity_get_version(&r);
    struct cox_task *t = task_create(NULL, cox_get_u64(&r));
    enum cox_err err = header_decode(t, cox_get_bytes(&r));
    err = err == COX_OK && t->image_bytes == NULL ? COX_ERR_CORRUPT : err; /* a frame stands alone there */
    if (err == COX_OK) {
        task_init_header(t);
        err = thaw_pages(t, &r);
    }
    if (err == COX_OK)
        err = thaw_names(t, &r);
    if (err != COX_OK) {
        task_destroy(NULL, t);
        return err;
    }
    ledger_forget_open(t->ledger);
    task_derive_sums(t);
    *ret = t;
    return COX_OK;
}

void cox_task_free(struct cox_task *t)
{
    task_destroy(NULL, t);
}
