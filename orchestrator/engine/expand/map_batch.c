/* Batches: items with a worker, from `assigned` to their end. */
#include "../budget.h"
#include "../hint.h"
#include "../route.h"
#include "../workspace.h"
#include "expand.h"
#include "map.h"

#include "cox/engine/batch.h"

#include <string.h>

#define BATCH_LEN_MAX ((size_t)1 << 20) /* of specs: a batch ends with the item that passes it */
#define PREPARING_MAX 8u                /* specs of one map that the compile thread makes at once */

/* Counters fill 40 bits only in months of an epoch, and then meet nobody of the next. */
static uint64_t token_key(struct cox_token token)
{
    return token.epoch << 40 ^ token.counter;
}

struct attempt *map_attempt_find(const struct cox_task *t, uint32_t step, struct cox_token token)
{
    const struct map *m = task_step(t, step)->x->map;
    struct attempt *a = cox_map64_get(&m->attempts, token_key(token));
    return a != NULL && cox_token_eq(a->token, token) ? a : NULL;
}

/* ---- giving ---- */

struct giving {
    uint32_t first, n;
    struct cox_act_item *items;
    size_t len;
    bool refused; /* the item after them has no input */
    uint32_t refused_item;
    enum cox_code refused_code;
    struct cox_buf error;
};

static bool follows(const struct giving *g, uint32_t item)
{
    return g->n == 0 || (item == g->first + g->n &&
                         (item % COX_MAP_PAGE_ITEMS != 0 || COX_PLANTED("batch-over-two-pages")));
}

static void give_item(struct map *m, struct giving *g, uint32_t item, struct cox_slice spec)
{
    map_item_take(m, item);
    if (g->n == 0)
        g->first = item;
    g->items[g->n++] = (struct cox_act_item){ item, spec };
    g->len += spec.len;
}

/* Evaluates the inputs of the items that may go together. */
static void give_small(struct cox_engine *e, struct map *m, struct giving *g, uint64_t n_max)
{
    struct frame_values values;
    struct cox_eval_env env;
    struct cox_buf json = { 0 };
    uint32_t item;
    eval_env_init(&env, &values, m->task, step_index(m->step));
    while (g->n < n_max && g->len < BATCH_LEN_MAX && map_item_peek(e, m, &item) && follows(g, item)) {
        env.item_json = map_item_json(m, item);
        env.item_index = item;
        cox_buf_clear(&json);
        enum cox_err err = cox_eval_template(&m->task->image, m->call.spec_template, &env, &json, &g->error);
        if (err == COX_OK && json.len > COX_SPEC_LEN_MAX) {
            err = COX_ERR_INVALID;
            cox_buf_printf(&g->error, "an input of %zu bytes; at most %u fit", json.len, COX_SPEC_LEN_MAX);
        }
        if (err != COX_OK) {
            map_item_take(m, item);
            g->refused = true;
            g->refused_item = item;
            g->refused_code = COX_CODE_INPUT_INVALID;
            break;
        }
        give_item(m, g, item, cox_slice(cox_arena_dup(&e->fx->arena, json.data, json.len), json.len));
    }
    cox_buf_fini(&json);
}

/* The inputs are large and were evaluated before: one item goes. */
static void give_prepared(struct cox_engine *e, struct map *m, struct giving *g)
{
    struct map_spec *sp = COX_CONTAINER_OF(m->prepared.next, struct map_spec, in_prepared);
    cox_list_remove(&sp->in_prepared);
    g->first = sp->item;
    g->n = 1;
    g->len = sp->json.len;
    g->items[0] =
        (struct cox_act_item){ sp->item, cox_slice(cox_arena_dup(&e->fx->arena, sp->json.data, sp->json.len),
                                                   sp->json.len) };
    e->spec_len_held -= sp->json.len;
    cox_buf_fini(&sp->json);
    cox_free(sp);
}

/* The budget has nothing left: the item ends here, without an attempt. */
static void give_nobody(struct cox_engine *e, struct map *m, struct giving *g, const char *why)
{
    uint32_t item;
    if (!cox_list_empty(&m->prepared)) {
        give_prepared(e, m, g);
        g->n = 0;
        item = g->first;
    } else if (map_item_peek(e, m, &item)) {
        map_item_take(m, item);
    } else {
        return;
    }
    g->refused = true;
    g->refused_item = item;
    g->refused_code = COX_CODE_BUDGET_EXHAUSTED;
    cox_buf_append_str(&g->error, why);
}

static struct attempt *batch_attempt(struct cox_engine *e, struct map *m, struct map_page *p,
                                     struct map_batch *b, struct worker *w)
{
    struct attempt *a = attempt_new(e, m->task, step_index(m->step), w, b->token);
    a->items_of = p;
    a->first = b->first;
    a->n = b->n;
    b->attempt = a;
    cox_map64_set(&m->attempts, token_key(b->token), a);
    return a;
}

static uint32_t attempt_number(struct map_page *p, uint32_t item)
{
    const struct map_again *g = cox_map64_get(&p->again, item);
    return g == NULL ? 1 : 1u + g->n_tries + g->n_losses;
}

bool cox_engine_attempt_batch(const struct cox_engine *e, struct cox_ref ref, struct cox_batch_view *ret)
{
    enum cox_answer why;
    const struct attempt *a = attempt_find(e, ref, &why);

    if (a == NULL || a->items_of == NULL)
        return false;
    *ret = (struct cox_batch_view){ a->first, a->n, attempt_number(a->items_of, a->first) };
    return true;
}

static void assign(struct cox_engine *e, struct map *m, struct class *c, struct worker *w,
                   const struct giving *g)
{
    struct map_page *p = map_page_make(m, g->first);
    struct record r = { .type = RECORD_ITEMS_ASSIGNED,
                        .task = m->task->id,
                        .step = step_index(m->step),
                        .wall_ms = e->now.wall_ms };
    r.u.items.token = (struct cox_token){ e->meta.epoch, ++e->next_token };
    r.u.items.worker = w->ref;
    r.u.items.first = g->first;
    r.u.items.n = g->n;
    uint64_t output_tokens = 0;
    if (c->is_model) /* a batch is one call */
        r.u.items.call = budget_reservation_of(m->task, g->items[0].spec_json, 0, &output_tokens);
    emit(e, &r);
    workspace_begin(e, m->task, r.step, w);
    struct attempt *a = batch_attempt(e, m, p, cox_map64_get(&p->batches, g->first), w);
    attempt_sent(e, a, c, g->len);
    attempt_reserves(a, &r.u.items.call, output_tokens);
    struct cox_act_assign out;
    attempt_describe(e, a, &out);
    out.attempt = attempt_number(p, g->first);
    out.items = g->items;
    out.n_items = g->n;
    act(e, COX_ACT_ASSIGN)->u.assign = out;
    hint_expect(e, a);
    changed(e, m->task, r.step);
}

static void refuse(struct cox_engine *e, struct map *m, const struct giving *g)
{
    map_item_emit(e, m,
                  &(struct record_item){ .index = g->refused_item,
                                         .next = NEXT_FAIL,
                                         .code = g->refused_code,
                                         .message = cox_buf_slice(&g->error) },
                  0);
}

void map_dispatch(struct cox_engine *e, struct class *c, struct step *s, struct worker *w)
{
    struct map *m = s->x->map;
    uint64_t n_max = map_room(m);
    struct giving g = { .n = 0 };
    if (n_max > m->doc.batch)
        n_max = m->doc.batch;
    g.items = cox_arena_alloc(&e->fx->arena, (n_max > 0 ? n_max : 1) * sizeof g.items[0]);
    const char *spent;
    enum budget_verdict verdict = budget_asks(e, m->task, c, &spent);
    if (verdict == BUDGET_WAITS) {
        e->n_unplaced++;
        budget_wait(e, m->task, s);
        return;
    }
    if (verdict == BUDGET_SPENT)
        give_nobody(e, m, &g, spent);
    else if (!cox_list_empty(&m->prepared))
        give_prepared(e, m, &g);
    else
        give_small(e, m, &g, n_max);
    if (g.n > 0)
        assign(e, m, c, w, &g);
    if (g.refused) {
        e->n_unplaced++;
        refuse(e, m, &g);
    }
    cox_buf_fini(&g.error);
    map_go_on(e, m);
    settle_all(e);
}

/* ---- inputs that the compile thread makes ---- */

void map_prepare(struct cox_engine *e, struct step *s)
{
    struct map *m = s->x->map;
    uint32_t item;
    while (m->n_preparing < PREPARING_MAX && m->n_preparing < map_room(m) &&
           e->n_specs_evaluating < COX_SPECS_EVALUATING_MAX && map_item_peek(e, m, &item)) {
        map_item_take(m, item);
        m->n_preparing++;
        e->n_specs_evaluating++;
        evaluate_item_later(e, m->task, step_index(s), m->call.spec_template, item, map_item_json(m, item));
    }
}

/* ---- ends ---- */

/* As for steps (TASK_FORMAT rule 3): losses have a limit of their own, then retry. */
static void decide(struct cox_engine *e, const struct map *m, const struct map_page *p,
                   struct record_item *item)
{
    const struct map_again *g = cox_map64_get(&p->again, item->index);
    uint32_t n_tries = g != NULL ? g->n_tries + 1u : 1, n_losses = g != NULL ? g->n_losses + 1u : 1;
    bool lost = item->code == COX_CODE_WORKER_LOST || item->code == COX_CODE_PREEMPTED;
    item->output = cox_slice(NULL, 0);
    if (m->stopping || m->task->stopping != COX_TASK_NONE) {
        item->next = NEXT_CANCEL;
    } else if (lost && n_losses < COX_LOSSES_MAX) {
        item->next = NEXT_REQUEUE;
    } else if (!lost && n_tries < m->call.max_attempts + COX_PLANTED("item-tried-once-more") &&
               m->call.retry_on & 1u << item->code) {
        item->next = NEXT_RETRY;
        item->retry_wall_ms = e->now.wall_ms + backoff_ms(e, &m->call, n_tries);
    } else {
        item->next = NEXT_FAIL;
    }
}

/* How one item of a batch has ended: as the worker says, or, when it says nothing of it, as the attempt did.
 */
static struct record_item outcome(const struct attempt *a, uint32_t index, const struct cox_item_result *said,
                                  const struct record_ended *en)
{
    struct record_item item = { .index = index, .next = NEXT_FAIL, .code = en->code, .message = en->message };
    if (said != NULL) {
        item.next = said->status == COX_ATTEMPT_SUCCEEDED ? NEXT_DONE : NEXT_FAIL;
        item.code = said->code;
        item.message = text_cut(said->message, COX_PAST_MESSAGE_LEN_MAX);
        item.output = said->output;
    } else if (en->status == COX_ATTEMPT_SUCCEEDED && a->n == 1) {
        item.next = NEXT_DONE; /* a worker that has no word for batches */
        item.output = en->output.bytes;
    } else if (en->status == COX_ATTEMPT_SUCCEEDED) {
        item.next = COX_PLANTED("unsaid-item-succeeds") ? NEXT_DONE : NEXT_FAIL;
        item.code = COX_CODE_OUTPUT_INVALID;
        item.message = cox_slice_str("its worker did not say how it ended");
    }
    if (item.next == NEXT_DONE && item.output.len > COX_ITEM_OUTPUT_LEN_MAX) {
        item.next = NEXT_FAIL;
        item.code = COX_CODE_OUTPUT_TOO_LARGE;
        item.message = cox_slice_str("an item's output is kept inline up to 64 KiB");
    }
    if (item.next == NEXT_DONE) {
        item.code = COX_CODE_NONE;
        item.message = cox_slice(NULL, 0);
        if (item.output.len == 0)
            item.output = cox_slice_str("null");
    } else if (item.code == COX_CODE_NONE) {
        item.code = COX_CODE_INTERNAL;
    }
    return item;
}

/* What the worker said of each item; what it says of others means nothing. */
static const struct cox_item_result **results_by_item(struct cox_engine *e, const struct attempt *a,
                                                      const struct cox_in_result *in)
{
    const struct cox_item_result **by = cox_arena_alloc(&e->fx->arena, a->n * sizeof(void *));
    memset(by, 0, a->n * sizeof(void *));
    for (size_t i = 0; in != NULL && i < in->n_items; i++) {
        uint32_t at = in->items[i].index - a->first;
        if (in->items[i].index >= a->first && at < a->n && by[at] == NULL)
            by[COX_PLANTED("items-by-position") ? i : at] = &in->items[i];
    }
    return by;
}

static void release(struct cox_engine *e, struct map *m, struct attempt *a)
{
    cox_map64_remove(&m->attempts, token_key(a->token));
    attempt_release(e, a);
}

static void give_again(struct map *m, struct map_page *p, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++)
        if (map_item_state(p, i) == ITEM_OPEN)
            map_item_again(m, p, i);
}

void map_attempt_ended(struct cox_engine *e, struct attempt *a, const struct record_ended *en,
                       const struct cox_in_result *in)
{
    struct map *m = a->step->x->map;
    struct map_page *p = a->items_of;
    struct cox_token token = a->token;
    const struct cox_item_result **said = results_by_item(e, a, in);
    struct cox_buf items = { 0 };
    uint32_t first = a->first, n = a->n;
    bool counts = false;
    for (uint32_t i = 0; i < n; i++) {
        struct record_item item = outcome(a, first + i, said[i], en);
        counts = counts || item.next == NEXT_DONE;
        if (item.next != NEXT_DONE)
            decide(e, m, p, &item);
        record_item_encode(&items, &item);
    }
    for (size_t i = 0; in != NULL && i < in->n_blobs; i++)
        payload_keep(e, m->task->root->id,
                     &(struct cox_payload){ .kind = COX_PAYLOAD_STORED, .hash = in->blobs[i] });
    ledger_charge(e, a, in, counts);
    release(e, m, a);
    map_emit_ended(e, m, p, token, en->cpu_us, cox_buf_slice(&items), n);
    cox_buf_fini(&items);
    if (!map_page_ended(p))
        give_again(m, p, first, n);
    map_go_on(e, m);
}

void map_attempt_withdrawn(struct cox_engine *e, struct attempt *a, bool returned)
{
    struct map *m = a->step->x->map;
    struct map_page *p = a->items_of;
    if (m->stopping || m->task->stopping != COX_TASK_NONE) {
        map_attempt_ended(
            e, a, &(struct record_ended){ .status = COX_ATTEMPT_CANCELLED, .code = COX_CODE_CANCELLED },
            NULL);
        return;
    }
    struct record r = { .type = RECORD_ITEMS_UNASSIGNED,
                        .task = m->task->id,
                        .step = step_index(m->step),
                        .wall_ms = e->now.wall_ms };
    r.u.items.token = a->token;
    r.u.items.worker = a->worker->ref;
    r.u.items.first = a->first;
    r.u.items.n = a->n;
    r.u.items.returned = returned;
    ledger_charge(e, a, NULL, false);
    release(e, m, a);
    emit(e, &r);
    if (!COX_PLANTED("returned-items-dropped"))
        give_again(m, p, r.u.items.first, r.u.items.n);
    map_go_on(e, m);
}

/* ---- recovery ---- */

void map_restore_batches(struct cox_engine *e, struct map *m)
{
    for (uint32_t item = 0; item < m->n_items; item++) {
        struct map_page *p = m->pages[item / COX_MAP_PAGE_ITEMS];
        if (p == NULL || p->batches.len == 0) {
            item |= COX_MAP_PAGE_ITEMS - 1;
            continue;
        }
        struct map_batch *b = cox_map64_get(&p->batches, item);
        if (b == NULL || COX_PLANTED("batch-not-restored"))
            continue;
        struct worker *w = worker_by_ref(e, b->worker);
        COX_ASSERT(w != NULL); /* named before it was given anything */
        struct attempt *a = batch_attempt(e, m, p, b, w);
        a->cls = route_restore(e, m->task, step_index(m->step), w);
        resources_take(&w->used, &a->cls->resources);
        budget_restore(a);
        worker_watch_liveness(e, w);
    }
}
