#include "gate.h"

#include "stats.h"

#include <string.h>

#define NS_PER_MINUTE 60000000000LL
#define LATE_NS (100 * NS_PER_MS) /* a rate catches up with what it missed while we were busy, no more */

/* ---- what a step holds ---- */

struct hold *hold_get(const struct cox_engine *e, const struct step *s)
{
    return s->flags & (STEP_GATED | STEP_HELD) ? cox_map64_get(&e->holds, (uintptr_t)s) : NULL;
}

struct hold *hold_make(struct cox_engine *e, struct step *s)
{
    struct hold *h = hold_get(e, s);
    if (h != NULL)
        return h;
    h = COX_NEW(struct hold);
    h->step = s;
    s->flags |= STEP_HELD;
    cox_map64_set(&e->holds, (uintptr_t)s, h);
    return h;
}

void hold_tidy(struct cox_engine *e, struct hold *h)
{
    if (h->concurrency != NULL || h->rate != NULL || h->cls != NULL)
        return;
    h->step->flags &= (unsigned char)~(STEP_GATED | STEP_HELD);
    cox_map64_remove(&e->holds, (uintptr_t)h->step);
    cox_free(h);
}

/* ---- gates ---- */

struct cox_slice gate_text(const struct gate *g)
{
    struct cox_slice text = cox_slice(g->key.data + g->text_at, g->key.len - g->text_at);
    bool quoted = text.len >= 2 && text.data[0] == '"';
    return quoted ? cox_slice(text.data + 1, text.len - 2) : text;
}

static struct gate *gate_acquire(struct cox_engine *e, const struct cox_task *t, char kind,
                                 struct cox_slice key)
{
    struct cox_buf text = { 0 };
    cox_buf_append_str(&text, t->tenant);
    cox_put_u8(&text, 0);
    cox_put_u8(&text, (uint8_t)kind);
    size_t text_at = text.len;
    cox_buf_append_slice(&text, key);
    struct gate *g = cox_mapb_get(&e->gates, cox_buf_slice(&text));
    if (g == NULL) {
        g = COX_NEW(struct gate);
        g->key = cox_slice(text_own(cox_buf_slice(&text)), text.len);
        g->text_at = text_at;
        g->is_rate = kind == 'r';
        g->next_ns = e->now.mono_ns;
        cox_list_init(&g->in_due);
        cox_heap_node_init(&g->timer.node);
        g->timer.kind = TIMER_GATE;
        cox_mapb_set(&e->gates, g->key, g);
    }
    cox_buf_fini(&text);
    g->n_holds++;
    return g;
}

static void gate_free(struct cox_engine *e, struct gate *g)
{
    timer_clear(e, &g->timer);
    cox_list_remove(&g->in_due);
    cox_mapb_remove(&e->gates, g->key);
    queue_fini(&g->waiting);
    cox_free((void *)(uintptr_t)g->key.data);
    cox_free(g);
}

/* A rate is remembered until the next step may pass: else a new gate would let it through at once. */
static void gate_release(struct cox_engine *e, struct gate *g)
{
    if (--g->n_holds > 0)
        return;
    bool ending = e->fx == NULL; /* the engine is taken down */
    if (g->is_rate && g->next_ns > e->now.mono_ns && !ending)
        timer_set(e, &g->timer, g->next_ns);
    else
        gate_free(e, g);
}

static void gate_look_again(struct cox_engine *e, struct gate *g)
{
    if (cox_list_empty(&g->in_due))
        cox_list_push_back(&e->gates_due, &g->in_due);
}

static void gate_wait(struct cox_engine *e, struct gate *g, struct step *s)
{
    struct cox_task *t = step_page(s)->task;
    struct cox_image_step doc;
    cox_image_step(&t->image, step_index(s), &doc);
    s->flags |= STEP_GATED;
    queue_push(&g->waiting, s, doc.priority);
    stats_gated(e, t, s, g->is_rate, 1);
    gate_look_again(e, g);
}

static void gate_unwait(struct cox_engine *e, struct gate *g, struct step *s)
{
    s->flags &= (unsigned char)~STEP_GATED;
    queue_remove(&g->waiting, s);
    stats_gated(e, step_page(s)->task, s, g->is_rate, -1);
}

/* ---- keys ---- */

static bool key_is_large(const struct cox_task *t, uint32_t template_index)
{
    struct cox_image_template tpl;
    cox_image_template(&t->image, template_index, &tpl);
    uint64_t size = tpl.reads_inputs ? t->doc.inputs_json.len : 0;
    for (uint32_t i = 0; i < tpl.n_steps && size <= GATE_KEY_INPUT_LEN_MAX; i++) {
        uint32_t index = cox_image_template_step(&t->image, template_index, i);
        if (t->pages[index / COX_PAGE_STEPS] == NULL || task_step(t, index)->output == NULL)
            continue;
        const struct cox_payload *p = &task_step(t, index)->output->payload;
        size += p->kind == COX_PAYLOAD_STORED ? GATE_KEY_INPUT_LEN_MAX + 1u : p->size;
    }
    return size > GATE_KEY_INPUT_LEN_MAX;
}

/* False: `error` says why. */
static bool key_evaluate(struct cox_task *t, uint32_t step, uint32_t template_index, const char *field,
                         struct cox_buf *key, struct cox_buf *error)
{
    struct cox_image_template tpl;
    struct cox_eval_env env;
    struct frame_values values;
    cox_image_template(&t->image, template_index, &tpl);
    if (key_is_large(t, template_index)) {
        cox_buf_printf(error, "%s.key: its expression reads more than %u bytes; name a smaller value", field,
                       GATE_KEY_INPUT_LEN_MAX);
        return false;
    }
    eval_env_init(&env, &values, t, step);
    if (tpl.is_const)
        cox_buf_append_slice(key, tpl.json);
    else if (cox_eval_template(&t->image, template_index, &env, key, error) != COX_OK)
        return false;
    if (key->len > GATE_KEY_LEN_MAX)
        cox_buf_printf(error, "%s.key: %zu bytes, at most %u", field, key->len, GATE_KEY_LEN_MAX);
    return error->len == 0;
}

/* Refers the hold to its gates. False: a key could not be evaluated. */
static bool hold_find_gates(struct cox_engine *e, struct hold *h, struct cox_task *t, uint32_t step,
                            const struct cox_image_extras *x, struct cox_buf *error)
{
    struct cox_buf key = { 0 };
    bool ok = true;
    if (x->concurrency_key != COX_IMAGE_NONE) {
        ok = key_evaluate(t, step, x->concurrency_key, "concurrency", &key, error);
        if (ok) {
            h->concurrency = gate_acquire(e, t, 'c', cox_buf_slice(&key));
            h->concurrency->limit = x->concurrency_limit;
            gate_look_again(e, h->concurrency); /* it may have grown */
        }
    }
    cox_buf_clear(&key);
    if (ok && x->rate_key != COX_IMAGE_NONE) {
        ok = key_evaluate(t, step, x->rate_key, "rate", &key, error);
        if (ok) {
            h->rate = gate_acquire(e, t, 'r', cox_buf_slice(&key));
            int64_t milli = x->rate_per_minute_milli > 0 ? (int64_t)x->rate_per_minute_milli : 1;
            h->rate->span_ns = (NS_PER_MINUTE * 1000 + milli - 1) / milli;
        }
    }
    cox_buf_fini(&key);
    return ok;
}

static bool step_extras(const struct cox_task *t, uint32_t step, struct cox_image_extras *ret)
{
    struct cox_image_step doc;
    if (cox_image_n_extras(&t->image) == 0)
        return false; /* the common case */
    cox_image_step(&t->image, step, &doc);
    if (doc.extras == COX_IMAGE_NONE)
        return false;
    cox_image_extras(&t->image, doc.extras, ret);
    return ret->concurrency_key != COX_IMAGE_NONE || ret->rate_key != COX_IMAGE_NONE;
}

/* ---- passing ---- */

static void hold_leave_rate(struct cox_engine *e, struct hold *h)
{
    if (h->rate != NULL)
        gate_release(e, h->rate);
    h->rate = NULL;
}

static void hold_leave_concurrency(struct cox_engine *e, struct hold *h)
{
    struct gate *g = h->concurrency;
    if (g == NULL)
        return;
    h->concurrency = NULL;
    if (h->permitted) {
        h->permitted = false;
        g->n_used -= !COX_PLANTED("permit-not-given-back");
        if (g->waiting.n > 0)
            gate_look_again(e, g);
    }
    gate_release(e, g);
}

static bool rate_takes(struct cox_engine *e, struct gate *g)
{
    int64_t now = e->now.mono_ns;
    if (!e->gates_open || g->next_ns > now)
        return false;
    if (g->next_ns < now - LATE_NS)
        g->next_ns = now - LATE_NS;
    g->next_ns += g->span_ns;
    return true;
}

/* From the gate where it stands on. True: it has passed them all. */
static bool hold_advance(struct cox_engine *e, struct hold *h)
{
    struct gate *c = h->concurrency;
    if (c != NULL && !h->permitted) {
        if (!e->gates_open || c->n_used >= c->limit + COX_PLANTED("one-above-concurrency") ||
            c->waiting.n > 0) {
            gate_wait(e, c, h->step);
            return false;
        }
        h->permitted = true;
        c->n_used++;
    }
    struct gate *r = h->rate;
    if (r == NULL)
        return true;
    if (r->waiting.n == 0 && r->next_ns < e->now.mono_ns)
        r->next_ns = e->now.mono_ns; /* nobody came for a while: that gives nothing to catch up with */
    if (r->waiting.n > 0 || !rate_takes(e, r)) {
        gate_wait(e, r, h->step);
        return false;
    }
    hold_leave_rate(e, h);
    return true;
}

bool gate_pass(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct cox_image_extras x;
    struct hold *known = hold_get(e, s);
    if (known != NULL) /* its permit is from before: its input was computed, or its worker gave it back */
        return !(s->flags & STEP_GATED);
    if (!step_extras(t, step, &x))
        return true;
    struct cox_buf error = { 0 };
    struct hold *h = hold_make(e, s);
    bool ok = hold_find_gates(e, h, t, step, &x, &error);
    bool passed = ok && hold_advance(e, h);
    if (!ok) {
        hold_leave_rate(e, h);
        hold_leave_concurrency(e, h);
    }
    hold_tidy(e, h);
    if (!ok)
        step_refuse(e, t, step, COX_CODE_INPUT_INVALID, cox_buf_slice(&error));
    cox_buf_fini(&error);
    return passed;
}

void hold_leave_gates(struct cox_engine *e, struct step *s)
{
    struct hold *h = hold_get(e, s);
    if (s->flags & STEP_GATED)
        gate_unwait(e, h->concurrency != NULL && !h->permitted ? h->concurrency : h->rate, s);
    hold_leave_rate(e, h);
    hold_leave_concurrency(e, h);
    hold_tidy(e, h);
}

void gate_restore(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_extras x;
    if (!step_extras(t, step, &x) || x.concurrency_key == COX_IMAGE_NONE)
        return;
    x.rate_key = COX_IMAGE_NONE;
    struct cox_buf error = { 0 };
    struct hold *h = hold_make(e, task_step(t, step));
    if (hold_find_gates(e, h, t, step, &x, &error)) {
        h->permitted = !COX_PLANTED("permit-forgotten-in-recovery");
        h->concurrency->n_used += h->permitted;
    }
    hold_tidy(e, h);
    cox_buf_fini(&error);
}

/* ---- letting through ---- */

static struct step *gate_next(struct cox_engine *e, struct gate *g)
{
    struct step *s = queue_first(&g->waiting);
    if (s == NULL || (g->is_rate ? !rate_takes(e, g) : g->n_used >= g->limit))
        return NULL;
    gate_unwait(e, g, s);
    return s;
}

static void gate_run(struct cox_engine *e, struct gate *g)
{
    struct step *s;
    g->n_holds++; /* stays while its last step passes */
    while ((s = gate_next(e, g)) != NULL) {
        struct hold *h = hold_get(e, s);
        if (g->is_rate) {
            hold_leave_rate(e, h);
        } else {
            h->permitted = true;
            g->n_used++;
        }
        if (!hold_advance(e, h))
            continue;
        hold_tidy(e, h);
        struct cox_task *t = step_page(s)->task;
        uint32_t step = step_index(s);
        step_place_passed(e, t, step);
        changed(e, t, step);
    }
    if (g->is_rate && g->waiting.n > 0)
        timer_set(e, &g->timer, g->next_ns);
    gate_release(e, g);
}

void gates_run(struct cox_engine *e)
{
    e->gates_open = true;
    while (!cox_list_empty(&e->gates_due)) {
        struct gate *g = COX_CONTAINER_OF(e->gates_due.next, struct gate, in_due);
        cox_list_remove(&g->in_due);
        gate_run(e, g);
        settle_all(e);
    }
}

void gate_timer(struct cox_engine *e, struct gate *g)
{
    if (g->n_holds > 0)
        gate_look_again(e, g);
    else if (g->next_ns > e->now.mono_ns)
        timer_set(e, &g->timer, g->next_ns);
    else
        gate_free(e, g);
}

void gates_free(struct cox_engine *e)
{
    size_t it = 0;
    struct cox_slice key;
    void *at;
    while (cox_mapb_next(&e->gates, &it, &key, &at)) { /* only remembered rates: their steps are gone */
        struct gate *g = at;
        queue_fini(&g->waiting);
        cox_free((void *)(uintptr_t)g->key.data);
        cox_free(g);
    }
    cox_mapb_fini(&e->gates);
    cox_map64_fini(&e->holds);
}

/* ---- what must always hold ---- */

void gates_check(const struct cox_engine *e)
{
    uint64_t n_used = 0, n_permitted = 0, n_waiting = 0, n_gated = 0;
    size_t it = 0;
    struct cox_slice key;
    uint64_t step;
    void *at;
    while (cox_mapb_next(&e->gates, &it, &key, &at)) {
        const struct gate *g = at;
        n_used += g->n_used;
        n_waiting += g->waiting.n;
        COX_ASSERT(g->n_holds >= g->waiting.n + g->n_used);
        COX_ASSERT(g->n_holds > 0 || cox_heap_has(&g->timer.node));
        if (g->waiting.n > 0)
            COX_ASSERT(g->is_rate ? cox_heap_has(&g->timer.node) : g->n_used >= g->limit);
    }
    it = 0;
    while (cox_map64_next(&e->holds, &it, &step, &at)) {
        const struct hold *h = at;
        n_permitted += h->permitted;
        n_gated += (h->step->flags & STEP_GATED) != 0;
        COX_ASSERT(h->concurrency != NULL || h->rate != NULL || h->cls != NULL);
    }
    COX_ASSERT(n_used == n_permitted && n_waiting == n_gated);
    COX_ASSERT(cox_list_empty(&e->gates_due));
}
