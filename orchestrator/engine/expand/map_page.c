/* Map pages: what is durable of a map's items, and how records change it.
 *
 * Nothing here takes a record for granted: replay may bring those of a map that has ended since, to pages
 * that a checkpoint has forgotten already. What it makes of them goes with the record of that end. */
#include "expand.h"
#include "map.h"

#include <string.h>

#define MAP_PAGE_VERSION 1

/* ---- life ---- */

static struct map_page *page_new(uint64_t task, uint32_t sub, uint32_t n_items)
{
    struct map_page *p = COX_NEW(struct map_page);
    entity_init(&p->entity, ENTITY_MAP_PAGE, task, sub);
    p->first = sub % COX_MAP_PAGES_MAX * COX_MAP_PAGE_ITEMS;
    p->n_items = n_items;
    p->states = cox_calloc((n_items + 3) / 4, 1);
    return p;
}

static void values_free(struct cox_map64 *map)
{
    size_t it = 0;
    uint64_t key;
    void *value;
    while (cox_map64_next(map, &it, &key, &value))
        cox_free(value);
    cox_map64_fini(map);
}

static void failures_free(struct map_page *p, uint32_t from)
{
    for (uint32_t i = from; i < p->n_failures; i++)
        cox_free(p->failures[i].message);
    p->n_failures = from < p->n_failures ? from : p->n_failures;
}

static void page_free(struct map_page *p)
{
    cox_list_remove(&p->entity.in_dirty);
    values_free(&p->batches);
    values_free(&p->again);
    failures_free(p, 0);
    cox_free(p->failures);
    cox_buf_fini(&p->outputs);
    cox_free(p->states);
    cox_free(p->places);
    cox_free(p);
}

bool map_page_ended(const struct map_page *p)
{
    return p->n_done + p->n_failed == p->n_items;
}

void map_page_seal(struct map_page *p)
{
    for (uint32_t i = 1; i < p->n_failures; i++) {
        if (p->failures[i].item < p->failures[0].item) {
            struct map_failure lower = p->failures[i];
            p->failures[i] = p->failures[0];
            p->failures[0] = lower;
        }
    }
    failures_free(p, 1);
    cox_buf_fini(&p->outputs);
    values_free(&p->batches);
    values_free(&p->again);
    cox_free(p->states);
    cox_free(p->places);
    p->states = NULL;
    p->places = NULL;
}

static uint32_t page_size(uint32_t n_items, uint32_t no)
{
    uint32_t left = n_items - no * COX_MAP_PAGE_ITEMS;
    return left < COX_MAP_PAGE_ITEMS ? left : COX_MAP_PAGE_ITEMS;
}

struct map *map_make(struct cox_task *t, struct step *s)
{
    struct expansion *x = s->x;
    if (x->map != NULL)
        return x->map;
    struct map *m = COX_NEW(struct map);
    m->task = t;
    m->step = s;
    m->n_items = x->map_n_items;
    m->n_pages = (m->n_items + COX_MAP_PAGE_ITEMS - 1) / COX_MAP_PAGE_ITEMS;
    m->pages = cox_calloc(m->n_pages > 0 ? m->n_pages : 1, sizeof m->pages[0]);
    cox_heap_node_init(&m->timer.node);
    m->timer.kind = TIMER_MAP;
    cox_list_init(&m->prepared);
    x->map = m;
    return m;
}

static void count_page(struct map *m, const struct map_page *p, int sign)
{
    size_t it = 0;
    uint64_t key;
    void *value;
    m->n_done += (uint64_t)sign * p->n_done;
    m->n_failed += (uint64_t)sign * p->n_failed;
    m->outputs_len += (uint64_t)sign * p->outputs_len;
    m->cpu_us += (uint64_t)sign * p->cpu_us;
    while (cox_map64_next(&p->batches, &it, &key, &value))
        m->n_given += (uint64_t)sign * ((struct map_batch *)value)->n;
}

void map_pages_free(struct map *m)
{
    for (uint32_t no = 0; no < m->n_pages; no++)
        if (m->pages[no] != NULL)
            page_free(m->pages[no]);
    cox_free(m->pages);
}

/* ---- pages that were loaded before what they belong to ---- */

static struct step *step_of_page(struct cox_engine *e, const struct entity *en, struct cox_task **ret)
{
    struct cox_task *t = cox_map64_get(&e->tasks, en->id);
    uint32_t step = en->sub / COX_MAP_PAGES_MAX;
    if (t == NULL || !t->has_header || step >= t->image.n_steps || !task_has_step(t, step))
        return NULL;
    struct step *s = task_step(t, step);
    *ret = t;
    return s->x != NULL && s->x->map_begun ? s : NULL;
}

static bool page_adopt(struct cox_engine *e, struct map_page *p)
{
    struct cox_task *t;
    struct step *s = step_of_page(e, &p->entity, &t);
    uint32_t no = p->entity.sub % COX_MAP_PAGES_MAX;
    if (s == NULL || p->entity.applied_seq < s->x->map_seq)
        return false;
    struct map *m = map_make(t, s);
    if (no >= m->n_pages || m->pages[no] != NULL || p->n_items != page_size(m->n_items, no))
        return false;
    cox_list_remove(&p->entity.in_dirty);
    m->pages[no] = p;
    count_page(m, p, 1);
    return true;
}

bool map_page_is_saved(const struct cox_engine *e, const struct cox_entity_key *key)
{
    const struct cox_task *t = cox_map64_get(&e->tasks, key->id);
    uint32_t step = key->sub / COX_MAP_PAGES_MAX, no = key->sub % COX_MAP_PAGES_MAX;
    if (t == NULL || !t->has_header || !task_contains(t, step) || !task_has_step(t, step))
        return false;
    const struct expansion *x = task_step(t, step)->x;
    const struct map *m = x != NULL ? x->map : NULL;
    return m != NULL && no < m->n_pages && m->pages[no] != NULL && m->pages[no]->states == NULL;
}

static void pages_adopt(struct cox_engine *e)
{
    COX_LIST_FOR_EACH (it, &e->map_pages)
        page_adopt(e,
                   COX_CONTAINER_OF(COX_CONTAINER_OF(it, struct entity, in_dirty), struct map_page, entity));
}

void map_pages_forget_lost(struct cox_engine *e)
{
    while (!cox_list_empty(&e->map_pages)) {
        struct entity *en = COX_CONTAINER_OF(e->map_pages.next, struct entity, in_dirty);
        entity_forget(e, en);
        page_free(COX_CONTAINER_OF(en, struct map_page, entity));
    }
}

void map_pages_free_lost(struct cox_engine *e)
{
    while (!cox_list_empty(&e->map_pages))
        page_free(COX_CONTAINER_OF(COX_CONTAINER_OF(e->map_pages.next, struct entity, in_dirty),
                                   struct map_page, entity));
}

void map_drop(struct cox_engine *e, struct expansion *x, uint64_t seq)
{
    struct map *m = x->map;
    if (!x->map_begun || x->map_seq >= seq)
        return;
    if (m != NULL)
        cox_heap_fini(&m->again);
    for (uint32_t no = 0; m != NULL && no < m->n_pages; no++) {
        struct map_page *p = m->pages[no];
        m->pages[no] = NULL;
        if (p == NULL)
            continue;
        if (p->entity.applied_seq <= seq) {
            entity_forget(e, &p->entity);
            page_free(p);
        } else { /* replay: of the map that the step began later */
            cox_list_push_back(&e->map_pages, &p->entity.in_dirty);
        }
    }
    x->map_begun = false;
    x->map_seq = 0;
    x->map_n_items = 0;
    cox_free(x->map_items);
    x->map_items = NULL;
    map_free(e, x);
}

/* ---- records ---- */

static enum item_state state_get(const struct map_page *p, uint32_t i)
{
    return p->states == NULL ? ITEM_DONE : (enum item_state)(p->states[i / 4] >> (i % 4 * 2) & 3);
}

static void state_set(struct map_page *p, uint32_t i, enum item_state st)
{
    p->states[i / 4] = (uint8_t)((p->states[i / 4] & ~(3u << (i % 4 * 2))) | (unsigned)st << (i % 4 * 2));
}

enum item_state map_item_state(const struct map_page *p, uint32_t item)
{
    return state_get(p, item - p->first);
}

struct map_again *map_again_make(struct map_page *p, uint32_t item)
{
    struct map_again *g = cox_map64_get(&p->again, item);
    if (g != NULL)
        return g;
    g = COX_NEW(struct map_again);
    g->item = item;
    cox_heap_node_init(&g->node);
    cox_map64_set(&p->again, item, g);
    return g;
}

struct map_page *map_page_make(struct map *m, uint32_t item)
{
    uint32_t no = item / COX_MAP_PAGE_ITEMS;
    if (m->pages[no] == NULL) {
        uint32_t sub = step_index(m->step) * COX_MAP_PAGES_MAX + no;
        m->pages[no] = page_new(m->task->id, sub, page_size(m->n_items, no));
    }
    return m->pages[no];
}

static void digest_add(struct map_page *p, const struct record_item *item)
{
    uint64_t parts[4] = { p->digest, (uint64_t)item->next << 40 | (uint64_t)item->code << 32 | item->index,
                          cox_hash64(item->output.data, item->output.len),
                          cox_hash64(item->message.data, item->message.len) };
    p->digest = cox_hash64(parts, sizeof parts);
}

static void item_failed(struct map_page *p, const struct record_item *item)
{
    p->failures = cox_realloc(p->failures, p->n_failures + 1u, sizeof p->failures[0]);
    p->failures[p->n_failures++] = (struct map_failure){
        item->index, (uint8_t)item->code,
        text_own(text_cut(COX_PLANTED("failed-item-is-null") ? cox_slice(NULL, 0) : item->message,
                          COX_PAST_MESSAGE_LEN_MAX))
    };
    p->n_failed++;
}

static void again_remove(struct map *m, struct map_page *p, uint32_t item)
{
    struct map_again *g = cox_map64_remove(&p->again, item);
    if (g != NULL)
        cox_heap_remove(&m->again, &g->node);
    cox_free(g);
}

static void item_ended(struct map *m, struct map_page *p, const struct record_item *item)
{
    uint32_t i = item->index - p->first;
    struct map_again *g;
    if (item->index < p->first || i >= p->n_items || state_get(p, i) != ITEM_OPEN)
        return;
    switch (item->next) {
    case NEXT_DONE:
        state_set(p, i, ITEM_DONE);
        cox_put_u32(&p->outputs, i);
        cox_put_bytes(&p->outputs, item->output);
        p->outputs_len += item->output.len;
        p->n_done++;
        break;
    case NEXT_RETRY:
        g = map_again_make(p, item->index);
        g->n_tries++;
        g->ready_wall_ms = item->retry_wall_ms;
        return;
    case NEXT_REQUEUE:
        map_again_make(p, item->index)->n_losses++;
        return;
    case NEXT_FAIL:
        state_set(p, i, ITEM_FAILED);
        item_failed(p, item);
        break;
    default:
        return; /* CANCEL: open, and nobody will give it again */
    }
    digest_add(p, item);
    again_remove(m, p, item->index);
}

static void batch_remove(struct map *m, struct map_page *p, uint32_t first, struct cox_token token)
{
    struct map_batch *b = cox_map64_get(&p->batches, first);
    if (b == NULL || !cox_token_eq(b->token, token))
        return;
    cox_map64_remove(&p->batches, first);
    m->n_given -= b->n;
    cox_free(b);
}

static void items_ended(struct map *m, struct map_page *p, const struct record *r)
{
    struct cox_reader in = cox_reader(r->u.items_ended.items);
    struct record_item item;
    uint64_t n_done = p->n_done, n_failed = p->n_failed, len = p->outputs_len;
    for (bool first = true; record_item_next(&in, &item); first = false) {
        if (first)
            batch_remove(m, p, item.index, r->u.items_ended.token);
        item_ended(m, p, &item);
    }
    p->cpu_us += r->u.items_ended.cpu_us;
    m->cpu_us += r->u.items_ended.cpu_us;
    m->n_done += p->n_done - n_done;
    m->n_failed += p->n_failed - n_failed;
    m->outputs_len += p->outputs_len - len;
}

static void items_assigned(struct map *m, struct map_page *p, const struct record *r)
{
    struct map_batch *b = COX_NEW(struct map_batch);
    *b = (struct map_batch){ .first = r->u.items.first,
                             .n = r->u.items.n,
                             .token = r->u.items.token,
                             .worker = r->u.items.worker,
                             .assigned_wall_ms = r->wall_ms };
    for (uint32_t i = 0; i < b->n; i++) {
        struct map_again *g = cox_map64_get(&p->again, b->first + i);
        if (g != NULL)
            g->ready_wall_ms = 0;
    }
    m->n_given += b->n;
    struct map_batch *old = cox_map64_set(&p->batches, b->first, b);
    if (old != NULL)
        m->n_given -= old->n;
    cox_free(old);
}

static uint32_t first_item(const struct record *r)
{
    struct cox_reader in;
    struct record_item item;
    if (r->type != RECORD_ITEMS_ENDED)
        return r->u.items.first;
    in = cox_reader(r->u.items_ended.items);
    return record_item_next(&in, &item) ? item.index : UINT32_MAX;
}

static void map_begun(struct cox_engine *e, uint64_t seq, struct cox_task *t, const struct record *r)
{
    struct step *s = task_step_make(t, r->step);
    struct page *p = step_page(s);
    if (p->entity.applied_seq >= seq)
        return;
    struct expansion *x = step_expansion(s);
    map_drop(e, x, seq);
    x->map_begun = true;
    x->map_seq = seq;
    x->map_n_items = r->u.map.n_items;
    x->map_items = value_make(&r->u.map.items);
    map_make(t, s);
    entity_touch(e, &p->entity, seq);
    pages_adopt(e);
}

void map_apply(struct cox_engine *e, uint64_t seq, struct cox_task *t, const struct record *r)
{
    if (r->type == RECORD_MAP_BEGUN) {
        map_begun(e, seq, t, r);
        return;
    }
    uint32_t first = first_item(r);
    struct step *s = task_step_make(t, r->step);
    if (s->x == NULL || !s->x->map_begun || seq < s->x->map_seq || first >= s->x->map_n_items)
        return;
    struct map *m = map_make(t, s);
    struct map_page *p = map_page_make(m, first);
    if (p->entity.applied_seq >= seq || p->states == NULL)
        return;
    if (r->type == RECORD_ITEMS_ASSIGNED)
        items_assigned(m, p, r);
    else if (r->type == RECORD_ITEMS_UNASSIGNED)
        batch_remove(m, p, first, r->u.items.token);
    else
        items_ended(m, p, r);
    entity_touch(e, &p->entity, seq);
}

/* ---- bytes ---- */

static void put_token(struct cox_buf *b, struct cox_token token)
{
    cox_put_u64(b, token.epoch);
    cox_put_u64(b, token.counter);
}

/* What differs while items are open, in their order: maps have none of their own. */
static void open_encode(struct cox_buf *b, const struct map_page *p)
{
    cox_buf_append(b, p->states, (p->n_items + 3) / 4);
    cox_put_u32(b, (uint32_t)p->batches.len);
    for (uint32_t i = p->first; p->batches.len > 0 && i < p->first + p->n_items; i++) {
        const struct map_batch *batch = cox_map64_get(&p->batches, i);
        if (batch == NULL)
            continue;
        cox_put_u32(b, batch->first);
        cox_put_u32(b, batch->n);
        put_token(b, batch->token);
        cox_put_u32(b, batch->worker);
        cox_put_i64(b, batch->assigned_wall_ms);
    }
    size_t at = b->len;
    uint32_t n = 0;
    cox_put_u32(b, 0);
    for (uint32_t i = p->first; p->again.len > 0 && i < p->first + p->n_items; i++) {
        const struct map_again *g = cox_map64_get(&p->again, i);
        if (g == NULL || (g->n_tries == 0 && g->n_losses == 0))
            continue;
        cox_put_u32(b, g->item);
        cox_put_u16(b, g->n_tries);
        cox_put_u8(b, g->n_losses);
        cox_put_i64(b, g->ready_wall_ms);
        n++;
    }
    cox_set_u32(b, at, n);
}

static void head_encode(struct cox_buf *b, const struct map_page *p)
{
    cox_put_u8(b, MAP_PAGE_VERSION);
    cox_put_u32(b, p->first);
    cox_put_u32(b, p->n_items);
    cox_put_u32(b, p->n_done);
    cox_put_u32(b, p->n_failed);
    cox_put_u64(b, p->cpu_us);
    cox_put_u64(b, p->digest);
    cox_put_u64(b, p->outputs_len);
}

void map_page_encode(struct cox_buf *b, const struct map_page *p)
{
    COX_ASSERT(p->states != NULL); /* a sealed page was saved, and does not change */
    head_encode(b, p);
    open_encode(b, p);
    cox_put_u32(b, p->n_failures);
    for (uint32_t i = 0; i < p->n_failures; i++) {
        cox_put_u32(b, p->failures[i].item);
        cox_put_u8(b, p->failures[i].code);
        cox_put_bytes(b, cox_slice_str(p->failures[i].message));
    }
    cox_put_bytes(b, cox_buf_slice(&p->outputs));
}

static void batches_decode(struct cox_reader *r, struct map_page *p)
{
    for (uint32_t n = cox_get_u32(r); n > 0 && !r->bad; n--) {
        struct map_batch *b = COX_NEW(struct map_batch);
        b->first = cox_get_u32(r);
        b->n = cox_get_u32(r);
        b->token.epoch = cox_get_u64(r);
        b->token.counter = cox_get_u64(r);
        b->worker = cox_get_u32(r);
        b->assigned_wall_ms = cox_get_i64(r);
        if (b->first < p->first || b->n == 0 || b->n > COX_MAP_BATCH_MAX ||
            b->first - p->first + b->n > p->n_items)
            r->bad = true;
        cox_free(cox_map64_set(&p->batches, b->first, b));
    }
}

static void again_decode(struct cox_reader *r, struct map_page *p)
{
    for (uint32_t n = cox_get_u32(r); n > 0 && !r->bad; n--) {
        struct map_again *g = map_again_make(p, cox_get_u32(r));
        g->n_tries = cox_get_u16(r);
        g->n_losses = cox_get_u8(r);
        g->ready_wall_ms = cox_get_i64(r);
        if (g->item < p->first || g->item - p->first >= p->n_items)
            r->bad = true;
    }
}

static void failures_decode(struct cox_reader *r, struct map_page *p)
{
    uint32_t n = cox_get_u32(r);
    if (n > p->n_items) {
        r->bad = true;
        return;
    }
    p->failures = cox_calloc(n > 0 ? n : 1, sizeof p->failures[0]);
    while (p->n_failures < n && !r->bad) {
        struct map_failure *f = &p->failures[p->n_failures++];
        f->item = cox_get_u32(r);
        f->code = cox_get_u8(r);
        f->message = text_own(cox_get_bytes(r));
        if (f->code >= COX_CODE_NR)
            r->bad = true;
    }
}

static struct map_page *page_decode_map(struct cox_slice bytes, uint64_t id, uint32_t sub)
{
    struct cox_reader r = cox_reader(bytes);
    uint8_t version = cox_get_u8(&r);
    uint32_t first = cox_get_u32(&r), n_items = cox_get_u32(&r);
    if (r.bad || version != MAP_PAGE_VERSION || n_items == 0 || n_items > COX_MAP_PAGE_ITEMS ||
        first != sub % COX_MAP_PAGES_MAX * COX_MAP_PAGE_ITEMS)
        return NULL;
    struct map_page *p = page_new(id, sub, n_items);
    p->n_done = cox_get_u32(&r);
    p->n_failed = cox_get_u32(&r);
    p->cpu_us = cox_get_u64(&r);
    p->digest = cox_get_u64(&r);
    p->outputs_len = cox_get_u64(&r);
    struct cox_slice states = cox_get_raw(&r, (n_items + 3) / 4);
    if (!r.bad)
        memcpy(p->states, states.data, states.len);
    batches_decode(&r, p);
    again_decode(&r, p);
    failures_decode(&r, p);
    cox_buf_append_slice(&p->outputs, cox_get_bytes(&r));
    if (!r.bad && cox_reader_left(&r) == 0 && p->n_done <= n_items && p->n_failed <= n_items)
        return p;
    page_free(p);
    return NULL;
}

enum cox_err map_page_load(struct cox_engine *e, uint64_t id, uint32_t sub, uint64_t seq,
                           struct cox_slice bytes)
{
    struct map_page *p = page_decode_map(bytes, id, sub);
    if (p == NULL)
        return COX_ERR_CORRUPT;
    p->entity.applied_seq = seq;
    if (map_page_ended(p))
        map_page_seal(p); /* it comes from the state */
    cox_list_push_back(&e->map_pages, &p->entity.in_dirty);
    page_adopt(e, p);
    return COX_OK;
}

/* ---- the output ---- */

static void failure_json(struct cox_buf *out, const struct map_failure *f)
{
    cox_buf_printf(out, "{\"index\":%u,\"code\":\"%s\",\"message\":", f->item,
                   cox_code_text((enum cox_code)f->code));
    cox_json_quote(out, cox_slice_str(f->message));
    cox_put_u8(out, '}');
}

void map_page_failures(const struct map_page *p, struct cox_buf *out)
{
    const struct map_failure **sorted = cox_calloc(p->n_items, sizeof(void *));
    for (uint32_t i = 0; i < p->n_failures; i++)
        if (p->failures[i].item - p->first < p->n_items)
            sorted[p->failures[i].item - p->first] = &p->failures[i];
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (sorted[i] == NULL)
            continue;
        if (out->len > 0)
            cox_put_u8(out, ',');
        failure_json(out, sorted[i]);
    }
    cox_free(sorted);
}

void map_page_outputs(const struct map_page *p, struct cox_buf *out)
{
    struct cox_slice *sorted = cox_calloc(p->n_items, sizeof sorted[0]);
    struct cox_reader r = cox_reader(cox_buf_slice(&p->outputs));
    while (cox_reader_left(&r) > 0 && !r.bad) {
        uint32_t i = cox_get_u32(&r);
        struct cox_slice json = cox_get_bytes(&r);
        if (i < p->n_items)
            sorted[i] = json;
    }
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (out->len > 0)
            cox_put_u8(out, ',');
        if (sorted[i].len > 0)
            cox_buf_append_slice(out, sorted[i]);
        else
            cox_buf_append_str(out, "null");
    }
    cox_free(sorted);
}

enum cox_err cox_map_part_outputs(struct cox_entity_key key, struct cox_slice bytes, struct cox_buf *outputs,
                                  struct cox_buf *errors)
{
    struct map_page *p = key.kind == ENTITY_MAP_PAGE ? page_decode_map(bytes, key.id, key.sub) : NULL;
    if (p == NULL || !map_page_ended(p)) {
        if (p != NULL)
            page_free(p);
        return COX_ERR_CORRUPT;
    }
    map_page_outputs(p, outputs);
    map_page_failures(p, errors);
    page_free(p);
    return COX_OK;
}

/* ---- what must hold ---- */

uint64_t map_hash(uint64_t h, const struct map *m)
{
    struct cox_buf b = { 0 };
    for (uint32_t no = 0; m != NULL && no < m->n_pages; no++) {
        const struct map_page *p = m->pages[no];
        if (p == NULL || p->entity.applied_seq == 0)
            continue;
        cox_buf_clear(&b);
        head_encode(&b, p);
        if (!map_page_ended(p))
            open_encode(&b, p);
        uint64_t parts[3] = { h, (uint64_t)p->entity.sub << 8 | p->entity.kind, cox_hash64(b.data, b.len) };
        h = cox_hash64(parts, sizeof parts);
    }
    cox_buf_fini(&b);
    return h;
}

static void check_page(const struct map *m, const struct map_page *p)
{
    uint32_t n[4] = { 0 };
    for (uint32_t i = 0; i < p->n_items && p->states != NULL; i++)
        n[state_get(p, i)]++;
    COX_ASSERT(p->states == NULL ? map_page_ended(p)
                                 : n[ITEM_DONE] == p->n_done && n[ITEM_FAILED] == p->n_failed);
    COX_ASSERT(p->states == NULL || p->n_failures == p->n_failed);
    size_t it = 0;
    uint64_t key;
    void *value;
    while (cox_map64_next(&p->batches, &it, &key, &value)) {
        const struct map_batch *b = value;
        COX_ASSERT(b->attempt != NULL && b->attempt->items_of == p && b->attempt->first == b->first &&
                   b->attempt->n == b->n && cox_token_eq(b->attempt->token, b->token));
        for (uint32_t i = 0; i < b->n; i++)
            COX_ASSERT(state_get(p, b->first + i - p->first) == ITEM_OPEN);
    }
    it = 0;
    while (cox_map64_next(&p->again, &it, &key, &value)) {
        const struct map_again *g = value;
        COX_ASSERT(state_get(p, g->item - p->first) == ITEM_OPEN);
        COX_ASSERT(!cox_heap_has(&g->node) || g->item < m->next);
    }
}

void map_check(const struct cox_engine *e, const struct map *m)
{
    uint64_t n_done = 0, n_failed = 0, n_in_batches = 0, n_attempts = 0;
    (void)e;
    for (uint32_t no = 0; no < m->n_pages; no++) {
        const struct map_page *p = m->pages[no];
        if (p == NULL)
            continue;
        n_done += p->n_done;
        n_failed += p->n_failed;
        check_page(m, p);
        size_t it = 0;
        uint64_t key;
        void *value;
        while (cox_map64_next(&p->batches, &it, &key, &value)) {
            n_in_batches += ((const struct map_batch *)value)->n;
            n_attempts++;
        }
    }
    COX_ASSERT(n_done == m->n_done && n_failed == m->n_failed);
    COX_ASSERT(n_attempts == m->attempts.len);
    COX_ASSERT(m->of_frames || n_in_batches == m->n_given);
    COX_ASSERT(m->n_done + m->n_failed + m->n_given <= m->n_items);
    /* every open item is with somebody, waits to be given again, or was never given */
    uint64_t n_waiting = m->again.len + (m->n_items - m->next);
    COX_ASSERT(m->list.len == 0 || m->stopping || m->n_preparing > 0 || !cox_list_empty(&m->prepared) ||
               m->n_done + m->n_failed + m->n_given + n_waiting == m->n_items);
}
