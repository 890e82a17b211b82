#include "map.h"

#include "../budget.h"
#include "../route.h"
#include "expand.h"

#include <string.h>

#define FRAMES_MAX 10000u    /* of one map at once, when it has no limit of its own */
#define FRAMES_PER_TURN 100u /* opened before others have their turn */
#define LISTED_LEN_MAX ((size_t)COX_INLINE_PAYLOAD_LEN_MAX)

/* ---- the list ---- */

static void map_doc(const struct cox_task *t, uint32_t step, struct cox_image_map *ret)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, step, &doc);
    cox_image_map(&t->image, doc.map, ret);
}

/* Derives from the document what the live map goes by. */
static void derive(struct map *m)
{
    struct cox_image_step doc;
    uint32_t step = step_index(m->step);
    cox_image_step(&m->task->image, step, &doc);
    cox_image_map(&m->task->image, doc.map, &m->doc);
    m->of_frames = doc.call == COX_IMAGE_NONE;
    if (!m->of_frames) {
        cox_image_call(&m->task->image, doc.call, &m->call);
        m->task->root->n_maps++;
    }
    m->derived = true;
    m->n_tolerated = m->doc.tolerate_ppm ? m->n_items * m->doc.tolerate / 1000000 : m->doc.tolerate;
}

/* The list is not worth a fallback's other words: the same checks for a list made here or elsewhere. */
static bool list_fits(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice json,
                      uint64_t n_items, bool is_list)
{
    struct cox_buf text = { 0 };
    enum cox_code code = COX_CODE_INPUT_INVALID;
    if (!is_list) {
        cox_buf_printf(&text, "map.over: expected a list or null, found %s",
                       cox_json_kind_text(cox_json_kind(json)));
    } else if (n_items > COX_MAP_ITEMS_MAX) {
        cox_buf_printf(&text, "map.over: a list of %llu items; at most %u fit", (unsigned long long)n_items,
                       COX_MAP_ITEMS_MAX);
    } else if (json.len > COX_MAP_ITEMS_LEN_MAX) {
        cox_buf_printf(&text, "map.over: a list of %zu bytes; at most %u fit", json.len,
                       COX_MAP_ITEMS_LEN_MAX);
        code = COX_CODE_RESOURCE_EXHAUSTED;
    } else if (e->map_len_held + json.len > COX_MAP_HELD_LEN_MAX) {
        cox_buf_printf(&text, "map.over: no room for a list of %zu bytes: those of running maps have %llu",
                       json.len, (unsigned long long)e->map_len_held);
        code = COX_CODE_RESOURCE_EXHAUSTED;
    }
    bool fits = text.len == 0;
    if (!fits)
        step_refuse(e, t, step, code, cox_buf_slice(&text));
    cox_buf_fini(&text);
    return fits;
}

/* The list is known. `items` keeps it: NONE when it stands in the image. */
static void list_known(struct cox_engine *e, struct cox_task *t, uint32_t step,
                       const struct cox_payload *items, struct cox_slice json, uint64_t n_items, bool is_list)
{
    struct step *s = task_step(t, step);
    struct cox_payload kept = *items;
    if (!list_fits(e, t, step, json, n_items, is_list))
        return;
    if (kept.kind == COX_PAYLOAD_STORED && kept.size > COX_LOGGED_PAYLOAD_LEN_MAX)
        kept.bytes = cox_slice(NULL, 0); /* the blob store has it */
    waiting_begins(e, t, step, 0, cox_slice(NULL, 0));
    payload_keep(e, t->root->id, &kept);
    struct record r = { .type = RECORD_MAP_BEGUN, .task = t->id, .step = step, .wall_ms = e->now.wall_ms };
    r.u.map.n_items = (uint32_t)n_items;
    r.u.map.items = kept;
    emit(e, &r);
    struct map *m = s->x->map;
    derive(m);
    if (items->kind == COX_PAYLOAD_INLINE)
        json = s->x->map_items->payload.bytes;
    map_list_take(e, m, json, items->kind != COX_PAYLOAD_STORED);
    map_go_on(e, m);
}

void map_begin(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_map doc;
    struct cox_image_template tpl;
    struct frame_values values;
    struct cox_eval_env env;
    struct cox_payload items = { .kind = COX_PAYLOAD_NONE };
    struct cox_buf json = { 0 }, error = { 0 };
    uint64_t n_items;
    map_doc(t, step, &doc);
    cox_image_template(&t->image, doc.over, &tpl);
    if (tpl.is_const) {
        bool is_list = map_list_count(tpl.json, &n_items);
        list_known(e, t, step, &items, tpl.json, n_items, is_list);
        return;
    }
    if (template_is_large(t, doc.over)) {
        evaluate_later(e, t, step, doc.over, ASKED_LIST);
        return;
    }
    eval_env_init(&env, &values, t, step);
    if (cox_eval_template(&t->image, doc.over, &env, &json, &error) != COX_OK) {
        step_refuse(e, t, step, COX_CODE_INPUT_INVALID, cox_buf_slice(&error));
    } else if (json.len > COX_INLINE_PAYLOAD_LEN_MAX) {
        evaluate_later(e, t, step, doc.over,
                       ASKED_LIST); /* the engine has no name for it: it would have to hash */
    } else {
        items = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE,
                                      .bytes = cox_buf_slice(&json),
                                      .size = json.len };
        bool is_list = map_list_count(items.bytes, &n_items);
        list_known(e, t, step, &items, items.bytes, n_items, is_list);
    }
    cox_buf_fini(&json);
    cox_buf_fini(&error);
}

/* ---- what is to be given ---- */

bool map_item_peek(const struct cox_engine *e, const struct map *m, uint32_t *ret)
{
    const struct cox_heap_node *node = cox_heap_min(&m->again);
    if (node != NULL && node->key <= (uint64_t)e->now.wall_ms)
        *ret = COX_CONTAINER_OF(node, struct map_again, node)->item;
    else if (m->next < m->n_items)
        *ret = m->next;
    else
        return false;
    return true;
}

void map_item_take(struct map *m, uint32_t item)
{
    if (item == m->next) {
        m->next++;
        return;
    }
    struct map_again *g = cox_map64_get(&m->pages[item / COX_MAP_PAGE_ITEMS]->again, item);
    cox_heap_remove(&m->again, &g->node);
}

void map_item_again(struct map *m, struct map_page *p, uint32_t item)
{
    struct map_again *g = map_again_make(p, item);
    cox_heap_set(&m->again, &g->node, g->ready_wall_ms > 0 ? (uint64_t)g->ready_wall_ms : 0);
}

uint64_t map_room(const struct map *m)
{
    uint64_t max = m->doc.max_parallel;
    if (max == 0)
        max = m->of_frames ? FRAMES_MAX : UINT64_MAX;
    max += COX_PLANTED("one-above-max-parallel") && m->doc.max_parallel > 0;
    return m->n_given < max ? max - m->n_given : 0;
}

static bool may_give(const struct cox_engine *e, const struct map *m)
{
    uint32_t item;
    return !m->stopping && m->list.len > 0 && m->task->stopping == COX_TASK_NONE &&
           (!m->task->root->paused || COX_PLANTED("paused-map-gives")) &&
           (map_room(m) > 0 && map_item_peek(e, m, &item));
}

static void open_frames(struct cox_engine *e, struct map *m)
{
    uint32_t item;
    m->holds_ends = true;
    for (uint32_t n = 0; n < FRAMES_PER_TURN && may_give(e, m) && map_item_peek(e, m, &item); n++) {
        map_item_take(m, item);
        const char *why = budget_refuses_frame(e, m->task);
        if (why != NULL) {
            map_item_emit(e, m,
                          &(struct record_item){ .index = item,
                                                 .next = NEXT_FAIL,
                                                 .code = COX_CODE_BUDGET_EXHAUSTED,
                                                 .message = cox_slice_str(why) },
                          0);
            continue;
        }
        m->n_given++;
        frame_open_item(e, m->task, step_index(m->step), item, map_item_json(m, item));
    }
    m->holds_ends = false;
}

/* Puts the step where what is next of it is seen to: the class's queue, or the line for large inputs. */
static void place(struct cox_engine *e, struct map *m)
{
    struct step *s = m->step;
    bool prepared = !cox_list_empty(&m->prepared);
    if (!cox_list_empty(&s->in_queue))
        return;
    if (!prepared && template_is_large(m->task, m->call.spec_template)) {
        if (m->n_preparing > 0)
            return;
        s->flags |= STEP_UNEVALUATED; /* specs_evaluate_more() takes it from here */
        cox_list_push_back(&e->unevaluated, &s->in_queue);
        return;
    }
    route_enqueue(e, m->task, step_index(s));
}

static void unplace(struct cox_engine *e, struct map *m)
{
    struct step *s = m->step;
    if (budget_unwait(s))
        return;
    if (s->flags & STEP_UNEVALUATED) {
        s->flags &= (uint8_t)~STEP_UNEVALUATED;
        cox_list_remove(&s->in_queue);
    } else if (!cox_list_empty(&s->in_queue)) {
        route_dequeue(e, m->task, s);
    }
}

static void give(struct cox_engine *e, struct map *m)
{
    const struct cox_heap_node *node = cox_heap_min(&m->again);
    if (m->of_frames && may_give(e, m)) {
        timer_set(e, &m->timer, e->now.mono_ns); /* in turn with others */
        return;
    }
    if (may_give(e, m) || (!cox_list_empty(&m->prepared) && !m->task->root->paused))
        place(e, m);
    else if (m->task->root->paused)
        unplace(e, m);
    if (node != NULL && node->key > (uint64_t)e->now.wall_ms && !m->stopping)
        timer_set(e, &m->timer, mono_after(e, (int64_t)node->key - e->now.wall_ms));
}

void map_place(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    if (s->x != NULL && s->x->map != NULL)
        map_go_on(e, s->x->map);
}

void map_timer(struct cox_engine *e, struct map *m)
{
    if (m->of_frames)
        open_frames(e, m);
    map_go_on(e, m);
}

/* ---- the ends of items ---- */

/* Hands a page that has ended to the state, now: its bytes need not stay. */
static void save_page(struct cox_engine *e, struct map_page *p)
{
    struct cox_buf bytes = { 0 };
    map_page_encode(&bytes, p);
    cox_list_remove(&p->entity.in_dirty);
    if (COX_PLANTED("ended-page-not-saved")) {
        cox_buf_fini(&bytes);
        map_page_seal(p);
        return;
    }
    struct cox_action *a = act(e, COX_ACT_SAVE);
    a->u.save.key = (struct cox_entity_key){ p->entity.kind, p->entity.id, p->entity.sub };
    a->u.save.applied_seq = p->entity.applied_seq;
    a->u.save.bytes = cox_slice(cox_arena_dup(&e->fx->arena, bytes.data, bytes.len), bytes.len);
    cox_buf_fini(&bytes);
    map_page_seal(p);
}

void map_emit_ended(struct cox_engine *e, struct map *m, struct map_page *p, struct cox_token token,
                    uint64_t cpu_us, struct cox_slice items, uint32_t n)
{
    struct record r = { .type = RECORD_ITEMS_ENDED,
                        .task = m->task->id,
                        .step = step_index(m->step),
                        .wall_ms = e->now.wall_ms };
    r.u.items_ended.token = token;
    r.u.items_ended.cpu_us = cpu_us;
    r.u.items_ended.items = items;
    r.u.items_ended.n = n;
    emit(e, &r);
    changed(e, m->task, r.step);
    if (map_page_ended(p) && m->n_done + m->n_failed < m->n_items)
        save_page(e, p); /* the map's last page may still end it without */
}

void map_item_emit(struct cox_engine *e, struct map *m, const struct record_item *item, uint64_t cpu_us)
{
    struct cox_buf bytes = { 0 };
    record_item_encode(&bytes, item);
    map_emit_ended(e, m, map_page_make(m, item->index), (struct cox_token){ 0, 0 }, cpu_us,
                   cox_buf_slice(&bytes), 1);
    cox_buf_fini(&bytes);
}

static void put_reference(struct cox_buf *out, const struct cox_payload *p)
{
    static const char digits[] = "0123456789abcdef";
    cox_buf_append_str(out, "{\"$blob\":\"sha256:");
    for (size_t i = 0; i < sizeof p->hash.b; i++) {
        cox_put_u8(out, (uint8_t)digits[p->hash.b[i] >> 4]);
        cox_put_u8(out, (uint8_t)digits[p->hash.b[i] & 15]);
    }
    cox_buf_printf(out, "\",\"size\":%llu}", (unsigned long long)p->size);
}

void map_item_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, uint64_t item,
                    struct cox_task *frame)
{
    struct map *m = task_step(t, step)->x->map;
    struct record_item end = { .index = (uint32_t)item, .next = NEXT_DONE };
    struct cox_buf output = { 0 };
    m->n_given--;
    if (frame->status == COX_TASK_SUCCEEDED) {
        if (frame->outputs == NULL)
            cox_buf_append_str(&output, "null");
        else if (frame->outputs->payload.kind == COX_PAYLOAD_STORED)
            put_reference(&output, &frame->outputs->payload);
        else
            cox_buf_append_slice(&output, frame->outputs->payload.bytes);
        end.output = cox_buf_slice(&output);
    } else {
        end.next = m->stopping || t->stopping != COX_TASK_NONE ? NEXT_CANCEL : NEXT_FAIL;
        end.code = frame->code != COX_CODE_NONE ? frame->code : COX_CODE_CANCELLED;
        end.message = text_cut(cox_slice_str(frame->message), COX_PAST_MESSAGE_LEN_MAX);
    }
    map_item_emit(e, m, &end, frame->cpu_us);
    cox_buf_fini(&output);
    if (!m->holds_ends)
        map_go_on(e, m);
}

/* ---- the end ---- */

static const struct map_failure *first_failure(const struct map *m)
{
    const struct map_failure *first = NULL;
    for (uint32_t no = 0; no < m->n_pages && first == NULL; no++)
        for (uint32_t i = 0; m->pages[no] != NULL && i < m->pages[no]->n_failures; i++)
            if (first == NULL || m->pages[no]->failures[i].item < first->item)
                first = &m->pages[no]->failures[i];
    return first;
}

/* The failures that are still in memory, as far as they fit inline; how many more there are. */
static void put_failures(struct cox_buf *out, const struct map *m)
{
    struct cox_buf page = { 0 };
    uint64_t n = 0;
    cox_put_u8(out, '[');
    for (uint32_t no = 0; no < m->n_pages; no++) {
        if (m->pages[no] == NULL || m->pages[no]->n_failures == 0)
            continue;
        cox_buf_clear(&page);
        cox_put_u8(&page, '[');
        map_page_failures(m->pages[no], &page);
        cox_put_u8(&page, ']');
        struct cox_json_walk w = cox_json_walk(cox_buf_slice(&page));
        while (cox_json_next(&w) && out->len + w.value.len + 32 < LISTED_LEN_MAX) {
            if (n++ > 0)
                cox_put_u8(out, ',');
            cox_buf_append_slice(out, w.value);
        }
    }
    if (n < m->n_failed)
        cox_buf_printf(out, "%s{\"more\":%llu}", n > 0 ? "," : "", (unsigned long long)(m->n_failed - n));
    cox_put_u8(out, ']');
    cox_buf_fini(&page);
}

static void end_with(struct cox_engine *e, struct map *m, struct record_ended *en)
{
    en->cpu_us = m->cpu_us;
    expand_end(e, m->task, step_index(m->step), en);
}

static void end_stopped(struct cox_engine *e, struct map *m)
{
    struct record_ended en = { .status = COX_ATTEMPT_FAILED, .code = m->stop_code };
    struct cox_buf text = { 0 }, errors = { 0 };
    const struct map_failure *f = first_failure(m);
    if (m->stop_code == COX_CODE_CANCELLED) {
        en.status = COX_ATTEMPT_CANCELLED;
    } else if (m->stop_code == COX_CODE_WORKER_LOST) {
        cox_buf_append_str(&text, "its workspace was lost with its worker");
    } else if (m->stop_code == COX_CODE_INTERNAL) {
        cox_buf_append_str(&text, "the map's list cannot be read any more");
    } else if (m->stop_code == COX_CODE_OUTPUT_TOO_LARGE) {
        cox_buf_printf(&text, "the items' outputs have more than %u bytes", COX_BLOB_LEN_MAX);
    } else {
        COX_ASSERT(f != NULL);
        en.code = (enum cox_code)f->code;
        cox_buf_printf(&text, "%llu of %u items failed, tolerated are %llu; item %u: %s",
                       (unsigned long long)m->n_failed, m->n_items, (unsigned long long)m->n_tolerated,
                       f->item, f->message != NULL ? f->message : "");
    }
    en.message = cox_buf_slice(&text);
    if (f != NULL && en.status == COX_ATTEMPT_FAILED) {
        put_failures(&errors, m);
        en.errors = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE,
                                          .bytes = cox_buf_slice(&errors),
                                          .size = errors.len };
    }
    end_with(e, m, &en);
    cox_buf_fini(&text);
    cox_buf_fini(&errors);
}

/* False: it is too large to be made here, or has left memory. */
static bool end_inline(struct cox_engine *e, struct map *m)
{
    struct cox_buf output = { 0 }, errors = { 0 };
    if (m->n_items > COX_MAP_PAGE_ITEMS || m->outputs_len > LISTED_LEN_MAX ||
        (m->n_items > 0 && m->pages[0]->states == NULL))
        return false;
    if (m->n_items > 0) {
        map_page_outputs(m->pages[0], &output);
        map_page_failures(m->pages[0], &errors);
    }
    bool fits = output.len + 2 <= LISTED_LEN_MAX && errors.len + 2 <= LISTED_LEN_MAX;
    if (fits) {
        struct cox_buf list = { 0 };
        cox_buf_printf(&list, "[%.*s][%.*s]", (int)output.len, (const char *)cox_buf_cstr(&output),
                       (int)errors.len, (const char *)cox_buf_cstr(&errors));
        struct record_ended en = { .status = COX_ATTEMPT_SUCCEEDED };
        en.output = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE,
                                          .bytes = cox_slice(list.data, output.len + 2),
                                          .size = output.len + 2 };
        if (errors.len > 0)
            en.errors = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE,
                                              .bytes = cox_slice(list.data + output.len + 2, errors.len + 2),
                                              .size = errors.len + 2 };
        end_with(e, m, &en);
        cox_buf_fini(&list);
    }
    cox_buf_fini(&output);
    cox_buf_fini(&errors);
    return fits;
}

static void save_ended(struct cox_engine *e, struct map *m)
{
    for (uint32_t no = 0; no < m->n_pages; no++)
        if (m->pages[no] != NULL && map_page_ended(m->pages[no]) && m->pages[no]->states != NULL)
            save_page(e, m->pages[no]);
}

static void compose(struct cox_engine *e, struct map *m)
{
    struct cox_entity_key *parts = cox_arena_alloc(&e->fx->arena, m->n_pages * sizeof parts[0]);
    for (uint32_t no = 0; no < m->n_pages; no++) {
        const struct entity *en = &m->pages[no]->entity;
        parts[no] = (struct cox_entity_key){ en->kind, en->id, en->sub };
    }
    save_ended(e, m);
    map_list_free(e, m);
    m->ticket = ask(e, m->task, step_index(m->step), ASKED_OUTPUT)->ticket;
    struct cox_act_compose x = {
        .ticket = m->ticket, .root = m->task->root->id, .parts = parts, .n_parts = m->n_pages
    };
    act(e, COX_ACT_COMPOSE)->u.compose = x;
}

static void stop(struct cox_engine *e, struct map *m, enum cox_code code)
{
    if (m->stopping)
        return;
    m->stopping = true;
    m->stop_code = code;
    timer_clear(e, &m->timer);
    unplace(e, m);
    m->holds_ends = true;
    COX_LIST_FOR_EACH (it, &m->task->root->frames) {
        struct cox_task *frame = COX_CONTAINER_OF(it, struct cox_task, in_frames);
        if (m->of_frames && frame->parent == m->task && frame->parent_step == step_index(m->step) &&
            cox_token_eq(frame->parent_token, m->step->token))
            task_stop(e, frame, COX_TASK_CANCELLED, COX_CODE_CANCELLED, "the map it is part of was stopped");
    }
    m->holds_ends = false;
    for (uint32_t item = 0; m->attempts.len > 0 && item < m->next; item++) {
        struct map_page *p = m->pages[item / COX_MAP_PAGE_ITEMS];
        struct map_batch *b = p != NULL ? cox_map64_get(&p->batches, item) : NULL;
        if (p == NULL || p->batches.len == 0)
            item |= COX_MAP_PAGE_ITEMS - 1;
        else if (b != NULL)
            attempt_cancel(e, b->attempt);
    }
}

void map_go_on(struct cox_engine *e, struct map *m)
{
    if (!m->stopping && m->n_failed > m->n_tolerated + COX_PLANTED("tolerates-one-more"))
        stop(e, m, COX_CODE_NONE);
    if (!m->stopping && !m->of_frames && route_is_lost(e, m->task, step_index(m->step)))
        stop(e, m, COX_CODE_WORKER_LOST);
    if (!m->stopping && m->outputs_len > COX_BLOB_LEN_MAX)
        stop(e, m, COX_CODE_OUTPUT_TOO_LARGE);
    if (m->stopping) {
        if (m->n_given == 0)
            end_stopped(e, m);
    } else if (m->ticket != 0) {
        return;
    } else if (m->n_done + m->n_failed < m->n_items) {
        give(e, m);
    } else if (!end_inline(e, m)) {
        compose(e, m);
    }
}

void map_stop(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct map *m = task_step(t, step)->x->map;
    stop(e, m, COX_CODE_CANCELLED);
    map_go_on(e, m);
}

/* ---- answers ---- */

static void list_asked(struct cox_engine *e, const struct evaluation *ev, const struct cox_in_evaluated *in)
{
    struct step *s = task_step(ev->task, ev->step);
    if (s->status != COX_STEP_READY || ev->task->root->paused)
        return; /* asked again when the task goes on */
    if (in->ok)
        list_known(e, ev->task, ev->step, &in->value, in->value.bytes, in->n_items,
                   cox_json_kind(in->value.bytes) == COX_JSON_ARRAY || cox_slice_is(in->value.bytes, "null"));
    else
        step_refuse(e, ev->task, ev->step, COX_CODE_INPUT_INVALID, in->error);
}

static void output_asked(struct cox_engine *e, struct map *m, const struct cox_in_evaluated *in)
{
    struct record_ended en = { .status = COX_ATTEMPT_SUCCEEDED, .output = in->value, .errors = in->errors };
    if (!in->ok) {
        en = (struct record_ended){ .status = COX_ATTEMPT_FAILED, .code = COX_CODE_INTERNAL };
        en.message = text_cut(in->error, COX_ERROR_MESSAGE_LEN_MAX);
    }
    end_with(e, m, &en);
}

static void spec_asked(struct cox_engine *e, struct map *m, uint32_t item, const struct cox_in_evaluated *in)
{
    m->n_preparing--;
    if (m->stopping)
        return;
    if (in->ok) {
        struct map_spec *sp = COX_NEW(struct map_spec);
        sp->item = item;
        cox_buf_append_slice(&sp->json, in->value.bytes);
        e->spec_len_held += sp->json.len;
        cox_list_push_back(&m->prepared, &sp->in_prepared);
    } else {
        map_item_emit(
            e, m,
            &(struct record_item){
                .index = item, .next = NEXT_FAIL, .code = COX_CODE_INPUT_INVALID, .message = in->error },
            0);
    }
    map_go_on(e, m);
}

void map_asked(struct cox_engine *e, const struct evaluation *ev, const struct cox_in_evaluated *in)
{
    struct step *s = task_step(ev->task, ev->step);
    struct map *m = s->x != NULL ? s->x->map : NULL;
    if (ev->kind == ASKED_LIST)
        list_asked(e, ev, in);
    else if (m == NULL || !cox_token_eq(ev->token, s->token))
        return; /* of an attempt that is over */
    else if (ev->kind == ASKED_BATCH)
        spec_asked(e, m, ev->item, in);
    else if (m->ticket == ev->ticket && !m->stopping)
        output_asked(e, m, in);
}

void map_fetched(struct cox_engine *e, const struct evaluation *ev, struct cox_slice bytes)
{
    struct step *s = task_step(ev->task, ev->step);
    struct map *m = s->x != NULL ? s->x->map : NULL;
    if (m == NULL || m->ticket != ev->ticket)
        return;
    m->ticket = 0;
    if (bytes.len > 0)
        map_list_take(e, m, bytes, false);
    else
        stop(e, m, COX_CODE_INTERNAL);
    map_go_on(e, m);
}

/* ---- recovery ---- */

/* Marks the items that frames work on. */
static void restore_frames(struct map *m, uint8_t *given)
{
    COX_LIST_FOR_EACH (it, &m->task->root->frames) {
        const struct cox_task *frame = COX_CONTAINER_OF(it, struct cox_task, in_frames);
        if (frame->parent != m->task || frame->parent_step != step_index(m->step) ||
            !cox_token_eq(frame->parent_token, m->step->token) || cox_task_status_final(frame->status) ||
            frame->parent_item >= m->n_items)
            continue;
        given[frame->parent_item / 8] |= (uint8_t)(1u << frame->parent_item % 8);
        m->n_given++;
        if (m->next <= frame->parent_item)
            m->next = (uint32_t)frame->parent_item + 1;
    }
}

static void restore_page(struct map *m, const struct map_page *p, uint8_t *given)
{
    for (uint32_t item = p->first; item < p->first + p->n_items; item++) {
        const struct map_batch *b = cox_map64_get(&p->batches, item);
        for (uint32_t i = 0; b != NULL && i < b->n; i++)
            given[(item + i) / 8] |= (uint8_t)(1u << (item + i) % 8);
        if ((map_item_state(p, item) != ITEM_OPEN || given[item / 8] >> item % 8 & 1 ||
             cox_map64_get(&p->again, item) != NULL) &&
            m->next <= item)
            m->next = item + 1;
    }
}

/* What is open, not with anybody, and not at the list's end, is to be given again. */
static void restore_items(struct map *m)
{
    uint8_t *given = cox_calloc(m->n_items / 8 + 1, 1);
    if (m->of_frames)
        restore_frames(m, given);
    for (uint32_t no = 0; no < m->n_pages; no++)
        if (m->pages[no] != NULL)
            restore_page(m, m->pages[no], given);
    for (uint32_t item = 0; item < m->next; item++) {
        struct map_page *p = m->pages[item / COX_MAP_PAGE_ITEMS];
        if (p != NULL && map_page_ended(p))
            item |= COX_MAP_PAGE_ITEMS - 1;
        else if (!(given[item / 8] >> item % 8 & 1) && (p == NULL || map_item_state(p, item) == ITEM_OPEN))
            map_item_again(m, map_page_make(m, item), item);
    }
    cox_free(given);
}

static void restore_list(struct cox_engine *e, struct map *m)
{
    const struct value *items = m->step->x->map_items;
    struct cox_image_template tpl;
    if (m->n_done + m->n_failed == m->n_items)
        return;
    if (items == NULL) {
        cox_image_template(&m->task->image, m->doc.over, &tpl);
        map_list_take(e, m, tpl.json, true);
    } else if (items->payload.kind == COX_PAYLOAD_INLINE) {
        map_list_take(e, m, items->payload.bytes, true);
    } else {
        m->ticket = ask(e, m->task, step_index(m->step), ASKED_ITEMS)->ticket;
        struct cox_action *a = act(e, COX_ACT_FETCH);
        a->u.fetch.ticket = m->ticket;
        a->u.fetch.root = m->task->root->id;
        a->u.fetch.hash = items->payload.hash;
    }
}

void map_adopt(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct map *m = map_make(t, task_step(t, step));
    derive(m);
    if (!m->of_frames)
        map_restore_batches(e, m);
    restore_items(m);
}

void map_restore(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct map *m = s->x->map;
    if (!m->stopping) /* by something that ended as it was linked */
        restore_list(e, m);
    if (m->n_done + m->n_failed < m->n_items)
        save_ended(e, m);
    if (s->flags & STEP_STOPPING || t->stopping != COX_TASK_NONE)
        stop(e, m, COX_CODE_CANCELLED);
    map_go_on(e, m);
}

/* ---- derived state goes ---- */

static void free_specs(struct cox_engine *e, struct map *m)
{
    while (!cox_list_empty(&m->prepared)) {
        struct map_spec *sp = COX_CONTAINER_OF(m->prepared.next, struct map_spec, in_prepared);
        cox_list_remove(&sp->in_prepared);
        if (e != NULL)
            e->spec_len_held -= sp->json.len;
        cox_buf_fini(&sp->json);
        cox_free(sp);
    }
}

void map_free(struct cox_engine *e, struct expansion *x)
{
    struct map *m = x->map;
    if (m == NULL)
        return;
    x->map = NULL;
    if (m->derived && !m->of_frames)
        m->task->root->n_maps--;
    if (e != NULL) {
        timer_clear(e, &m->timer);
        if (e->live)
            unplace(e, m);
    }
    free_specs(e, m);
    map_list_free(e, m);
    cox_heap_fini(&m->again);
    map_pages_free(m);
    cox_map64_fini(&m->attempts);
    cox_free(m);
}

/* ---- looking ---- */

bool cox_map_view(const struct cox_task *t, uint32_t step, struct cox_map_view *ret)
{
    const struct step *s = task_has_step(t, step) ? task_step(t, step) : NULL;
    const struct map *m = s != NULL && s->x != NULL ? s->x->map : NULL;
    memset(ret, 0, sizeof *ret);
    if (m == NULL)
        return false;
    ret->n_items = m->n_items;
    ret->n_running = m->n_given;
    ret->n_succeeded = m->n_done;
    ret->n_failed = m->n_failed;
    ret->n_tolerated = m->n_tolerated;
    ret->bytes = sizeof *m + m->n_pages * sizeof m->pages[0] + m->text.len;
    for (uint32_t no = 0; no < m->n_pages; no++) {
        const struct map_page *p = m->pages[no];
        if (p == NULL)
            continue;
        ret->bytes += sizeof *p + p->outputs.cap + (p->states != NULL ? p->n_items / 4 : 0) +
                      (p->places != NULL ? p->n_items * sizeof p->places[0] : 0) +
                      p->batches.len * sizeof(struct map_batch) + p->again.len * sizeof(struct map_again);
    }
    return true;
}
