/* The compile thread: one thing at a time, in order, off the engine's turn. And what it evaluates: templates
 * over values that the store keeps, fetched first. */
#include "sim.h"

#include "cox/json.h"

#include <string.h>

/* ---- the thread ---- */

static void next_work(struct sim *s)
{
    if (!cox_list_empty(&s->coxd.works) && !cox_heap_has(&s->coxd.compile.node))
        event_at(s, &s->coxd.compile, s->now_ns + latency(s, s->cfg.compile_ns));
}

static void work_over(struct sim *s, struct event *ev)
{
    struct cox_list *node = s->coxd.works.next;
    (void)ev;
    cox_list_remove(node);
    cox_list_push_back(&s->coxd.done, node);
    s->coxd.n_works--;
    next_work(s);
    coxd_poke(s);
}

void works_init(struct sim *s)
{
    event_init(&s->coxd.compile, work_over);
    cox_list_init(&s->coxd.fetching);
}

void work_submit(struct sim *s, struct work *w)
{
    cox_list_push_back(&s->coxd.works, &w->node);
    s->coxd.n_works++;
    next_work(s);
}

void works_drain(struct sim *s)
{
    while (!cox_list_empty(&s->coxd.done)) {
        struct work *w = COX_CONTAINER_OF(s->coxd.done.next, struct work, node);
        cox_list_remove(&w->node);
        w->done(s, w);
    }
}

void works_drop(struct sim *s)
{
    struct cox_list *lists[] = { &s->coxd.works, &s->coxd.done, &s->coxd.fetching };
    event_cancel(s, &s->coxd.compile);
    s->coxd.n_works = 0;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        while (!cox_list_empty(lists[i])) {
            struct work *w = COX_CONTAINER_OF(lists[i]->next, struct work, node);
            cox_list_remove(&w->node);
            w->drop(w);
        }
}

/* ---- evaluations ---- */

struct value {
    uint64_t fetches[3]; /* output, errors, artifacts; 0: it is here */
    uint32_t step;
    struct cox_eval_step seen;
};
struct evaluation {
    struct work work;
    struct cox_arena arena;
    struct cox_act_evaluate act;
    struct value *values;
    size_t n_missing;
};

static void evaluation_drop(struct work *w)
{
    struct evaluation *ev = COX_CONTAINER_OF(w, struct evaluation, work);
    cox_arena_fini(&ev->arena);
    cox_free(ev);
}

static struct cox_slice keep(struct evaluation *ev, struct cox_slice s)
{
    return cox_slice(cox_arena_dup(&ev->arena, s.data, s.len), s.len);
}

static void step_of(void *user, uint32_t index, struct cox_eval_step *ret)
{
    struct evaluation *ev = user;
    for (size_t i = 0; i < ev->act.n_steps; i++)
        if (ev->values[i].step == index) {
            *ret = ev->values[i].seen;
            return;
        }
    COX_ASSERT(!"a template reads a step that it did not declare");
}

static uint32_t count_items(struct cox_slice list)
{
    struct cox_json_walk w = cox_json_walk(list);
    uint32_t n = 0;
    while (cox_json_next(&w))
        n++;
    return n;
}

/* The image is looked at now, long after the action: the engine keeps it until the answer. */
static void evaluated(struct sim *s, struct work *w)
{
    struct evaluation *ev = COX_CONTAINER_OF(w, struct evaluation, work);
    const struct cox_act_evaluate *act = &ev->act;
    struct cox_eval_env env = { .user = ev,
                                .step = step_of,
                                .success = act->success,
                                .failure = act->failure,
                                .error_code = act->error_code,
                                .error_message = act->error_message,
                                .item_json = act->item_json,
                                .item_index = act->item_index,
                                .args_json = act->args_json };
    struct cox_image image;
    struct cox_buf out = { 0 }, error = { 0 };
    bool yes = false;
    if (cox_image_open(&image, act->image) != COX_OK)
        fail(s, "the image of an evaluation is gone");
    bool condition = act->want == COX_EVAL_CONDITION;
    enum cox_err err = condition ? cox_eval_condition(&image, act->template_index, &env, &yes, &error)
                                 : cox_eval_template(&image, act->template_index, &env, &out, &error);
    if (err == COX_OK && condition)
        cox_buf_append_str(&out, yes ? "true" : "false");
    struct cox_input in = { .kind = COX_IN_EVALUATED };
    struct cox_in_evaluated *v = &in.u.evaluated;
    v->ticket = act->ticket;
    v->ok = err == COX_OK;
    v->error = cox_buf_slice(&error);
    if (v->ok && (act->want == COX_EVAL_VALUE || act->want == COX_EVAL_LIST))
        v->value = value_kept(s, cox_buf_slice(&out));
    else if (v->ok)
        v->value.kind = COX_PAYLOAD_INLINE;
    v->value.bytes = act->want == COX_EVAL_LIST || v->value.kind != COX_PAYLOAD_STORED ? cox_buf_slice(&out)
                                                                                       : v->value.bytes;
    v->value.size = out.len;
    if (v->ok && act->want == COX_EVAL_LIST)
        v->n_items = count_items(v->value.bytes);
    coxd_step(s, &in);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
    evaluation_drop(w);
}

static void fetch(struct sim *s, uint64_t *at, const struct cox_hash *hash)
{
    struct state_op *op = COX_NEW(struct state_op);
    *at = ++s->coxd.next_fetch;
    *op = (struct state_op){ .op = COX_STORE_READ_PAYLOAD, .ticket = *at, .key = payload_key(hash) };
    bool taken = store_request(s, op);
    COX_ASSERT(taken);
}

static struct cox_slice *seen_json(struct value *v, size_t k)
{
    return k == 0 ? &v->seen.output_json : k == 1 ? &v->seen.errors_json : &v->seen.artifacts_json;
}

void evaluate_start(struct sim *s, const struct cox_act_evaluate *act)
{
    struct evaluation *ev = COX_NEW(struct evaluation);
    s->n.evaluations++;
    ev->act = *act;
    ev->work.done = evaluated;
    ev->work.drop = evaluation_drop;
    ev->act.error_message = keep(ev, act->error_message);
    ev->act.item_json = keep(ev, act->item_json);
    ev->act.args_json = keep(ev, act->args_json);
    ev->values = cox_arena_alloc(&ev->arena, (act->n_steps + 1) * sizeof ev->values[0]);
    for (size_t i = 0; i < act->n_steps; i++) {
        const struct cox_eval_input *in = &act->steps[i];
        ev->values[i] = (struct value){ .step = in->step };
        ev->values[i].seen.status = in->status;
        ev->values[i].seen.code = in->code;
        ev->values[i].seen.message = keep(ev, in->message);
        const struct cox_payload *payloads[3] = { &in->output, &in->errors, &in->artifacts };
        for (size_t k = 0; k < 3; k++) {
            if (payloads[k]->kind == COX_PAYLOAD_INLINE)
                *seen_json(&ev->values[i], k) = keep(ev, payloads[k]->bytes);
            if (payloads[k]->kind != COX_PAYLOAD_STORED)
                continue;
            fetch(s, &ev->values[i].fetches[k], &payloads[k]->hash);
            ev->n_missing++;
        }
    }
    if (ev->n_missing == 0)
        work_submit(s, &ev->work);
    else
        cox_list_push_back(&s->coxd.fetching, &ev->work.node);
}

/* Rule 11. */
static void take(struct sim *s, struct evaluation *ev, struct value *v, size_t k, struct state_op *op)
{
    if (op->err != COX_OK)
        fail(s, "a stored value of a task cannot be read: %s", cox_err_text(op->err));
    v->fetches[k] = 0;
    *seen_json(v, k) = keep(ev, cox_buf_slice(&op->bytes));
    if (--ev->n_missing > 0)
        return;
    cox_list_remove(&ev->work.node);
    work_submit(s, &ev->work);
}

void evaluate_fetched(struct sim *s, struct state_op *op)
{
    COX_LIST_FOR_EACH (it, &s->coxd.fetching) {
        struct evaluation *ev = COX_CONTAINER_OF(it, struct evaluation, work.node);
        for (size_t i = 0; ev->work.done == evaluated && i < ev->act.n_steps * 3; i++)
            if (ev->values[i / 3].fetches[i % 3] == op->ticket) {
                take(s, ev, &ev->values[i / 3], i % 3, op);
                return;
            }
    }
}
