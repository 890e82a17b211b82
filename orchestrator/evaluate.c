/* COX_ACT_EVALUATE: fetch the stored values that a template names, evaluate on the compile thread, answer.
 *
 * Everything the action borrows from its effects is copied, since fetching outlives the turn; the image is
 * the engine's and stays until the answer. */
#include "driver.h"
#include "keep.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/json.h"

#include <stdlib.h>
#include <string.h>

/* One of a step's values. */
struct value {
    struct cox_fetch fetch;
    struct evaluation *of;
    struct cox_slice *seen; /* what it becomes in `step.seen` */
    struct cox_buf bytes;
};

struct step {
    uint32_t index;
    struct cox_eval_step seen;
    struct value output, errors, artifacts;
};

struct evaluation {
    struct cox_work work;
    struct cox_driver *driver;
    struct cox_arena arena;
    struct cox_act_evaluate act; /* copied: its slices are in the arena */
    struct cox_space space;
    struct step *steps; /* by ascending index */
    size_t n_steps;
    size_t n_missing;
    bool ok;
    struct cox_buf out;
    struct cox_buf error;
    struct cox_payload payload;
    uint32_t n_items;
};

static struct cox_slice copy(struct cox_arena *a, struct cox_slice s)
{
    return cox_slice(cox_arena_dup(a, s.data, s.len), s.len);
}

static void step_of(void *user, uint32_t index, struct cox_eval_step *ret)
{
    struct evaluation *ev = user;
    size_t from = 0, to = ev->n_steps;

    while (from < to) {
        size_t mid = from + (to - from) / 2;
        if (ev->steps[mid].index < index)
            from = mid + 1;
        else
            to = mid;
    }
    COX_ASSERT(from < ev->n_steps && ev->steps[from].index == index);
    *ret = ev->steps[from].seen;
}

static enum cox_err evaluate(struct evaluation *ev)
{
    const struct cox_act_evaluate *act = &ev->act;
    const struct cox_eval_env env = {
        .user = ev,
        .step = step_of,
        .success = act->success,
        .failure = act->failure,
        .error_code = act->error_code,
        .error_message = act->error_message,
        .item_json = act->item_json,
        .item_index = act->item_index,
        .args_json = act->args_json,
        .checked = true,
        .len_max = act->want == COX_EVAL_SPEC ? 0 : COX_BLOB_LEN_MAX,
    };
    bool yes;

    if (act->want != COX_EVAL_CONDITION)
        return cox_eval_template(act->opened, act->template_index, &env, &ev->out, &ev->error);
    enum cox_err err = cox_eval_condition(act->opened, act->template_index, &env, &yes, &ev->error);

    if (!err)
        cox_buf_append_str(&ev->out, yes ? "true" : "false");
    return err;
}

/* Says what is wrong with the value for what is wanted of it. */
static void check(struct evaluation *ev)
{
    struct cox_slice out = cox_buf_slice(&ev->out);
    enum cox_json_kind kind = cox_json_kind(out);

    if (ev->act.want == COX_EVAL_SPEC && out.len > COX_SPEC_LEN_MAX)
        cox_buf_printf(&ev->error, "an input of %zu bytes; at most %u fit", out.len, COX_SPEC_LEN_MAX);
    if (ev->act.want != COX_EVAL_LIST)
        return;
    if (kind != COX_JSON_ARRAY && kind != COX_JSON_NULL)
        cox_buf_printf(&ev->error, "map.over: expected a list or null, found %s", cox_json_kind_text(kind));
    struct cox_json_walk items = cox_json_walk(out);

    while (kind == COX_JSON_ARRAY && ev->n_items <= COX_MAP_ITEMS_MAX && cox_json_next(&items))
        ev->n_items++;
}

/* Once here, so that expressions need not pay for it: a list is worth passing on whatever its length. */
static bool is_json(struct evaluation *ev, struct cox_slice json)
{
    struct cox_json_place at;

    if (json.len == 0 || cox_json_check(json, &at) == COX_OK)
        return true;
    cox_buf_printf(&ev->error, "the stored output of a step that it reads is not valid JSON at byte %zu",
                   at.offset);
    return false;
}

static bool values_are_json(struct evaluation *ev)
{
    bool ok = true;

    for (size_t i = 0; ok && i < ev->n_steps; i++) {
        const struct cox_eval_step *seen = &ev->steps[i].seen;
        ok = is_json(ev, seen->output_json) && is_json(ev, seen->errors_json) &&
             is_json(ev, seen->artifacts_json);
    }
    return ok;
}

static void work(struct cox_work *w)
{
    struct evaluation *ev = COX_CONTAINER_OF(w, struct evaluation, work);
    bool inlined = ev->act.want == COX_EVAL_SPEC || ev->act.want == COX_EVAL_CONDITION;
    struct cox_slice out;

    if (values_are_json(ev) && evaluate(ev) == COX_OK)
        check(ev);
    out = cox_buf_slice(&ev->out);
    if (ev->error.len == 0 && inlined)
        ev->payload = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = out, .size = out.len };
    else if (ev->error.len == 0)
        cox_keep(cox_driver_store(ev->driver), &ev->space, out, &ev->payload, &ev->error);
    ev->ok = ev->error.len == 0;
    if (ev->act.want == COX_EVAL_LIST)
        ev->payload.bytes = out;
}

static void evaluation_free(struct evaluation *ev)
{
    for (size_t i = 0; i < ev->n_steps; i++) {
        cox_buf_fini(&ev->steps[i].output.bytes);
        cox_buf_fini(&ev->steps[i].errors.bytes);
        cox_buf_fini(&ev->steps[i].artifacts.bytes);
    }
    cox_buf_fini(&ev->out);
    cox_buf_fini(&ev->error);
    cox_arena_fini(&ev->arena);
    cox_free(ev);
}

static void answer(struct evaluation *ev)
{
    struct cox_input in = { .kind = COX_IN_EVALUATED };

    in.u.evaluated.ticket = ev->act.ticket;
    in.u.evaluated.ok = ev->ok;
    in.u.evaluated.error = cox_buf_slice(&ev->error);
    in.u.evaluated.n_items = ev->n_items;
    if (ev->ok)
        in.u.evaluated.value = ev->payload;
    cox_driver_step(ev->driver, &in);
    evaluation_free(ev);
}

static void done(struct cox_work *w)
{
    answer(COX_CONTAINER_OF(w, struct evaluation, work));
}

static void complete(struct evaluation *ev)
{
    if (ev->error.len > 0)
        answer(ev);
    else
        cox_compile_submit(cox_driver_compile(ev->driver), &ev->work);
}

static void on_value(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct value *v = COX_CONTAINER_OF(f, struct value, fetch);
    struct evaluation *ev = v->of;

    if (err) {
        cox_log(COX_LOG_ERROR, "a stored value cannot be read", "error", cox_err_text(err), NULL);
        if (ev->error.len == 0)
            cox_buf_printf(&ev->error, "a stored value cannot be read: %s", cox_err_text(err));
    } else {
        v->bytes = *bytes;
        memset(bytes, 0, sizeof(*bytes));
        *v->seen = cox_buf_slice(&v->bytes);
        ev->work.len += v->bytes.len;
    }
    if (--ev->n_missing == 0)
        complete(ev);
}

static void value_take(struct evaluation *ev, struct value *v, const struct cox_payload *p)
{
    if (p->kind == COX_PAYLOAD_INLINE) {
        *v->seen = copy(&ev->arena, p->bytes);
    } else if (p->kind == COX_PAYLOAD_STORED) {
        v->of = ev;
        v->fetch.hash = p->hash;
        v->fetch.space = ev->space;
        v->fetch.fn = on_value;
        ev->n_missing++;
    }
}

static int by_step(const void *a, const void *b)
{
    const struct cox_eval_input *const *x = a, *const *y = b;

    return ((*x)->step > (*y)->step) - ((*x)->step < (*y)->step);
}

static void step_take(struct evaluation *ev, struct step *s, const struct cox_eval_input *in)
{
    *s = (struct step){
        .index = in->step,
        .seen = { .status = in->status, .code = in->code, .message = copy(&ev->arena, in->message) },
    };
    s->output.seen = &s->seen.output_json;
    s->errors.seen = &s->seen.errors_json;
    s->artifacts.seen = &s->seen.artifacts_json;
    value_take(ev, &s->output, &in->output);
    value_take(ev, &s->errors, &in->errors);
    value_take(ev, &s->artifacts, &in->artifacts);
}

/* Outputs of a task may name each of its 100,000 steps, and the engine's thread is what this runs on. */
static void steps_take(struct evaluation *ev, const struct cox_act_evaluate *act)
{
    const struct cox_eval_input **sorted = cox_calloc(act->n_steps + 1, sizeof(*sorted));

    for (size_t i = 0; i < act->n_steps; i++)
        sorted[i] = &act->steps[i];
    qsort(sorted, act->n_steps, sizeof(*sorted), by_step);
    ev->steps = cox_arena_alloc(&ev->arena, (act->n_steps + 1) * sizeof(*ev->steps));
    for (; ev->n_steps < act->n_steps; ev->n_steps++)
        step_take(ev, &ev->steps[ev->n_steps], sorted[ev->n_steps]);
    cox_free(sorted);
}

static void value_fetch(struct cox_driver *d, struct value *v)
{
    if (v->fetch.fn)
        cox_driver_fetch(d, &v->fetch);
}

void cox_evaluate_start(struct cox_driver *d, const struct cox_act_evaluate *act)
{
    struct evaluation *ev = COX_NEW(struct evaluation);

    ev->driver = d;
    ev->work.work = work;
    ev->work.done = done;
    ev->act = *act;
    ev->space = cox_driver_space(d, act->task);
    ev->act.error_message = copy(&ev->arena, act->error_message);
    ev->act.item_json = copy(&ev->arena, act->item_json);
    ev->act.args_json = copy(&ev->arena, act->args_json);
    ev->act.steps = NULL;
    steps_take(ev, act);
    for (size_t i = 0; i < ev->n_steps; i++) {
        value_fetch(d, &ev->steps[i].output);
        value_fetch(d, &ev->steps[i].errors);
        value_fetch(d, &ev->steps[i].artifacts);
    }
    if (ev->n_missing == 0)
        complete(ev);
}
