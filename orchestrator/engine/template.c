#include "template.h"

#include <string.h>

#define TEMPLATE_VERSION 1
#define DROPPED_PER_STEP 1000

const struct template *template_by_revision(const struct cox_engine *e, uint64_t revision)
{
    return cox_map64_get(&e->templates, revision);
}

struct cox_slice template_document(const struct template *tpl)
{
    return tpl->document;
}

static struct template *of(struct kept *k)
{
    return k != NULL ? COX_CONTAINER_OF(k, struct template, kept) : NULL;
}

/* The newest revision of a name; NULL when there is none or it was deleted. */
static struct template *current(const struct cox_engine *e, struct cox_slice tenant, struct cox_slice name,
                                uint32_t major)
{
    struct template *tpl = of(kept_find(&e->templates_by_name, tenant, name, major));
    return tpl != NULL && !tpl->retired ? tpl : NULL;
}

/* ---- what tasks need of them ---- */

/* "name@major". */
static struct template *by_ref(const struct cox_engine *e, struct cox_slice tenant, struct cox_slice ref)
{
    size_t len = 0;
    uint64_t major = 0;
    while (len < ref.len && ref.data[len] != '@')
        len++;
    for (size_t i = len + 1; i < ref.len; i++) {
        if (ref.data[i] < '0' || ref.data[i] > '9' || major > UINT32_MAX)
            return NULL;
        major = major * 10 + (uint64_t)(ref.data[i] - '0');
    }
    if (len == ref.len)
        major = 1;
    return major > 0 && major <= UINT32_MAX ? current(e, tenant, cox_slice(ref.data, len), (uint32_t)major)
                                            : NULL;
}

bool templates_resolve(const struct cox_engine *e, struct cox_slice tenant, const struct cox_image *img,
                       struct cox_buf *pins, struct cox_slice *ret_missing)
{
    size_t before = pins->len;
    for (uint32_t i = 0; i < cox_image_n_refs(img); i++) {
        const struct template *tpl = by_ref(e, tenant, cox_image_ref(img, i));
        if (tpl == NULL) {
            *ret_missing = cox_image_ref(img, i);
            pins->len = before;
            return false;
        }
        cox_put_u64(pins, tpl->kept.entity.id);
    }
    return true;
}

void template_missing(struct cox_buf *text, struct cox_slice ref)
{
    cox_buf_printf(text, "there is no template \"%.*s\"", (int)ref.len, (const char *)ref.data);
}

static bool calls_ref(const struct cox_image *img, uint32_t at, struct cox_slice ref)
{
    struct cox_image_call call;
    if (at == COX_IMAGE_NONE)
        return false;
    cox_image_call(img, at, &call);
    return call.kind == COX_KIND_TASK && cox_slice_eq(call.ref, ref);
}

const char *template_place(const struct cox_image *img, struct cox_slice ref, struct cox_arena *arena)
{
    for (uint32_t i = 0; i < img->n_steps; i++) {
        struct cox_image_step step;
        cox_image_step(img, i, &step);
        bool own = calls_ref(img, step.call, ref), fallback = calls_ref(img, step.fallback, ref);
        if (!own && !fallback)
            continue;
        size_t len = 0; /* of the outermost step's name: "a" of "a.0" and of "a[]", the body of a map */
        while (len < step.name.len && step.name.data[len] != '.' && step.name.data[len] != '[')
            len++;
        bool inner = len < step.name.len && !(step.is_body && len + 2 == step.name.len);
        struct cox_buf place = { 0 };
        cox_buf_printf(&place, "steps.%.*s%s", (int)len, (const char *)step.name.data,
                       inner ? ""
                       : own ? ".task.ref"
                             : ".fallback.task.ref");
        const char *ret = cox_arena_dup(arena, cox_buf_cstr(&place), place.len + 1);
        cox_buf_fini(&place);
        return ret;
    }
    return "steps";
}

static void unused_or_not(struct cox_engine *e, struct template *tpl)
{
    cox_list_remove(&tpl->in_unused);
    if (tpl->retired && (tpl->n_pins == 0 || COX_PLANTED("template-dropped-while-needed")))
        cox_list_push_back(&e->templates_unused, &tpl->in_unused);
}

static void count_pins(struct cox_engine *e, const uint64_t *pins, uint32_t n, uint64_t change)
{
    for (uint32_t i = 0; pins != NULL && i < n; i++) {
        struct template *tpl = cox_map64_get(&e->templates, pins[i]);
        if (tpl == NULL)
            continue;
        tpl->n_pins += change;
        unused_or_not(e, tpl);
    }
}

void templates_hold(struct cox_engine *e, const uint64_t *pins, uint32_t n)
{
    count_pins(e, pins, n, 1);
}

void templates_release(struct cox_engine *e, const uint64_t *pins, uint32_t n)
{
    count_pins(e, pins, n, UINT64_MAX);
}

void templates_hold_task(struct cox_engine *e, struct cox_task *t)
{
    if (t->template_pins != NULL && !t->holds_templates) {
        templates_hold(e, t->template_pins, cox_image_n_refs(&t->image));
        t->holds_templates = true;
    }
}

void templates_release_task(struct cox_engine *e, struct cox_task *t)
{
    if (t->holds_templates)
        templates_release(e, t->template_pins, cox_image_n_refs(&t->image));
    t->holds_templates = false;
}

void templates_repin(struct cox_engine *e, struct cox_task *t)
{
    uint32_t n = cox_image_n_refs(&t->image);
    if (n > 0 && t->template_pins == NULL)
        t->template_pins = cox_calloc(n, sizeof t->template_pins[0]);
    for (uint32_t i = 0; i < n; i++) {
        const struct template *tpl = cox_map64_get(&e->templates, t->template_pins[i]);
        if (tpl == NULL)
            tpl = by_ref(e, cox_slice_str(t->tenant), cox_image_ref(&t->image, i));
        t->template_pins[i] = tpl != NULL ? tpl->kept.entity.id : 0;
    }
}

/* ---- inputs ---- */

static void emit_dropped(struct cox_engine *e, const struct template *tpl, bool deleted)
{
    struct record r = { .type = RECORD_TEMPLATE_DROPPED,
                        .task = tpl->kept.entity.id,
                        .wall_ms = e->now.wall_ms };
    r.u.template.deleted = deleted;
    emit(e, &r);
}

void template_apply(struct cox_engine *e, const struct cox_in_template *in)
{
    const struct template *now = current(e, in->tenant, in->name, in->major);
    if (now != NULL && cox_slice_eq(now->document, in->document)) {
        reply(e, in->request, COX_OK, NULL, NULL);
        return;
    }
    if (!kept_has_room(e, e->templates.len, COX_TEMPLATES_MAX, in->document.len)) {
        reply(e, in->request, COX_ERR_FULL, NULL, "too many templates and schedules are kept");
        return;
    }
    struct record r = { .type = RECORD_TEMPLATE_APPLIED,
                        .task = e->meta.last_template + 1,
                        .wall_ms = e->now.wall_ms };
    r.u.template.tenant = in->tenant;
    r.u.template.name = in->name;
    r.u.template.major = in->major;
    r.u.template.document = in->document;
    emit(e, &r);
    bundle_keep_of(e, in->tenant, in->document);
    reply(e, in->request, COX_OK, NULL, NULL);
}

void template_delete(struct cox_engine *e, const struct cox_in_template *in)
{
    const struct template *now = current(e, in->tenant, in->name, in->major);
    if (now != NULL)
        emit_dropped(e, now, true);
    reply(e, in->request, now != NULL ? COX_OK : COX_ERR_NOT_FOUND, NULL, NULL);
}

/* What a task in quarantine needs of them is not known: it may come back and want any. */
void templates_drop_unused(struct cox_engine *e)
{
    if (!cox_list_empty(&e->quarantine))
        return;
    for (int n = 0; n < DROPPED_PER_STEP && !cox_list_empty(&e->templates_unused); n++)
        emit_dropped(e, COX_CONTAINER_OF(e->templates_unused.next, struct template, in_unused), false);
}

/* ---- durable state ---- */

static struct template *make(struct cox_engine *e, uint64_t revision, struct cox_slice tenant,
                             struct cox_slice name, uint32_t major, struct cox_slice document)
{
    struct template *tpl = COX_NEW(struct template);
    kept_init(&tpl->kept, ENTITY_TEMPLATE, revision, tenant, name, major);
    tpl->document = slice_own(document);
    cox_list_init(&tpl->in_unused);
    cox_map64_set(&e->templates, revision, tpl);
    e->kept_len += document.len;
    struct template *newer = of(kept_find(&e->templates_by_name, tenant, name, major));
    if (newer == NULL || newer->kept.entity.id < revision) {
        tpl->older = newer;
        kept_insert(&e->templates_by_name, &tpl->kept);
        return tpl;
    }
    while (newer->older != NULL && newer->older->kept.entity.id > revision)
        newer = newer->older;
    tpl->older = newer->older;
    newer->older = tpl;
    return tpl;
}

static void destroy(struct cox_engine *e, struct template *tpl)
{
    struct kept *k = &tpl->kept;
    struct template *newest =
        of(kept_find(&e->templates_by_name, cox_slice_str(k->tenant), cox_slice_str(k->name), k->major));
    if (newest != tpl) {
        while (newest->older != tpl)
            newest = newest->older;
        newest->older = tpl->older;
    } else if (tpl->older != NULL) {
        kept_insert(&e->templates_by_name, &tpl->older->kept);
    } else {
        kept_remove(&e->templates_by_name, k);
    }
    cox_map64_remove(&e->templates, k->entity.id);
    cox_list_remove(&tpl->in_unused);
    cox_list_remove(&k->entity.in_dirty);
    e->kept_len -= tpl->document.len;
    slice_free(tpl->document);
    cox_free(k->tenant);
    cox_free(k->name);
    cox_free(tpl);
}

static void retire(struct cox_engine *e, struct template *tpl, uint64_t seq)
{
    if (tpl->retired || tpl->kept.entity.applied_seq >= seq)
        return;
    tpl->retired = true;
    entity_touch(e, &tpl->kept.entity, seq);
    unused_or_not(e, tpl);
}

static void apply_applied(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    if (e->meta.entity.applied_seq < seq) {
        if (r->task > e->meta.last_template)
            e->meta.last_template = r->task;
        entity_touch(e, &e->meta.entity, seq);
    }
    struct template *tpl = cox_map64_get(&e->templates, r->task);
    if (tpl == NULL) {
        tpl = make(e, r->task, r->u.template.tenant, r->u.template.name, r->u.template.major,
                   r->u.template.document);
        tpl->updated_wall_ms = r->wall_ms;
        entity_touch(e, &tpl->kept.entity, seq);
    }
    for (struct template *older = tpl->older; older != NULL; older = older->older)
        retire(e, older, seq);
}

void apply_template(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    if (r->type == RECORD_TEMPLATE_APPLIED) {
        apply_applied(e, seq, r);
        return;
    }
    struct template *tpl = cox_map64_get(&e->templates, r->task);
    if (tpl == NULL)
        return;
    if (r->u.template.deleted) {
        retire(e, tpl, seq);
    } else {
        entity_forget(e, &tpl->kept.entity);
        destroy(e, tpl);
    }
}

void template_encode(struct cox_buf *b, const struct template *tpl)
{
    cox_put_u8(b, TEMPLATE_VERSION);
    cox_put_bytes(b, cox_slice_str(tpl->kept.tenant));
    cox_put_bytes(b, cox_slice_str(tpl->kept.name));
    cox_put_u32(b, tpl->kept.major);
    cox_put_bytes(b, tpl->document);
    cox_put_i64(b, tpl->updated_wall_ms);
    cox_put_u8(b, tpl->retired);
}

enum cox_err template_load(struct cox_engine *e, uint64_t id, uint64_t seq, struct cox_slice bytes)
{
    struct cox_reader r = cox_reader(bytes);
    uint8_t version = cox_get_u8(&r);
    struct cox_slice tenant = record_get_name(&r);
    struct cox_slice name = record_get_name(&r);
    uint32_t major = cox_get_u32(&r);
    struct cox_slice document = cox_get_bytes(&r);
    int64_t updated_wall_ms = cox_get_i64(&r);
    bool retired = cox_get_u8(&r) != 0;
    if (r.bad || version != TEMPLATE_VERSION || name.len == 0 || cox_map64_get(&e->templates, id) != NULL)
        return COX_ERR_CORRUPT;
    struct template *tpl = make(e, id, tenant, name, major, document);
    tpl->kept.entity.applied_seq = seq;
    tpl->updated_wall_ms = updated_wall_ms;
    tpl->retired = retired;
    wall_seen(e, updated_wall_ms);
    unused_or_not(e, tpl);
    return COX_OK;
}

uint64_t templates_hash(const struct cox_engine *e, uint64_t h)
{
    struct cox_buf b = { 0 };
    for (uint32_t i = 0; i < e->templates_by_name.n; i++) {
        for (const struct template *tpl = of(e->templates_by_name.items[i]); tpl != NULL; tpl = tpl->older) {
            cox_buf_clear(&b);
            template_encode(&b, tpl);
            h = entity_fold(h, &tpl->kept.entity, &b);
        }
    }
    cox_buf_fini(&b);
    return h;
}

void templates_free(struct cox_engine *e)
{
    while (e->templates_by_name.n > 0)
        destroy(e, of(e->templates_by_name.items[e->templates_by_name.n - 1]));
    cox_free(e->templates_by_name.items);
    cox_map64_fini(&e->templates);
}

/* ---- what must always hold ---- */

static uint64_t pins_on(const uint64_t *pins, uint32_t n, uint64_t revision)
{
    uint64_t found = 0;
    for (uint32_t i = 0; pins != NULL && i < n; i++)
        found += pins[i] == revision;
    return found;
}

static uint64_t count_all_pins(const struct cox_engine *e, uint64_t revision)
{
    uint64_t n = 0, id;
    size_t it = 0;
    void *sleeper;
    COX_LIST_FOR_EACH (node, &e->task_list) {
        const struct cox_task *t = COX_CONTAINER_OF(node, struct cox_task, in_tasks);
        if (t->template_pins != NULL)
            n += pins_on(t->template_pins, cox_image_n_refs(&t->image), revision);
    }
    while (cox_map64_next(&e->sleepers, &it, &id, &sleeper)) {
        const struct sleeper *sl = sleeper;
        n += pins_on(sl->template_pins, sl->n_template_pins, revision);
    }
    return n;
}

void templates_check(const struct cox_engine *e)
{
    size_t n = 0;
    kept_check(&e->templates_by_name);
    for (uint32_t i = 0; i < e->templates_by_name.n; i++) {
        const struct template *tpl = of(e->templates_by_name.items[i]), *newer = NULL;
        for (; tpl != NULL; newer = tpl, tpl = tpl->older, n++) {
            COX_ASSERT(newer == NULL || (tpl->retired && tpl->kept.entity.id < newer->kept.entity.id));
            COX_ASSERT(cox_map64_get(&e->templates, tpl->kept.entity.id) == tpl);
            COX_ASSERT(tpl->n_pins == count_all_pins(e, tpl->kept.entity.id));
            COX_ASSERT((tpl->retired && tpl->n_pins == 0) == !cox_list_empty(&tpl->in_unused));
        }
    }
    COX_ASSERT(n == e->templates.len);
}

/* ---- views ---- */

static void view(const struct template *tpl, struct cox_template_view *ret)
{
    *ret = (struct cox_template_view){ .tenant = cox_slice_str(tpl->kept.tenant),
                                       .name = cox_slice_str(tpl->kept.name),
                                       .document = tpl->document,
                                       .major = tpl->kept.major,
                                       .updated_wall_ms = tpl->updated_wall_ms };
}

bool cox_engine_next_template(const struct cox_engine *e, struct cox_slice tenant,
                              struct cox_slice after_name, uint32_t after_major,
                              struct cox_template_view *ret)
{
    const struct kept_index *ix = &e->templates_by_name;
    uint32_t at = kept_place(ix, tenant, after_name, after_major);
    for (; at < ix->n && cox_slice_is(tenant, ix->items[at]->tenant); at++) {
        const struct template *tpl = of(ix->items[at]);
        if (tpl->retired || (tpl->kept.major == after_major && cox_slice_is(after_name, tpl->kept.name)))
            continue;
        view(tpl, ret);
        return true;
    }
    return false;
}

bool cox_engine_find_template(const struct cox_engine *e, struct cox_slice tenant, struct cox_slice name,
                              uint32_t major, struct cox_template_view *ret)
{
    const struct template *tpl = current(e, tenant, name, major);
    if (tpl != NULL)
        view(tpl, ret);
    return tpl != NULL;
}
