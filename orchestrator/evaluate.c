/* COX_ACT_EVALUATE: fetch the stored values that a template names, evaluate on the compile thread, answer.
 *
 * Everything the action borrows from its effects is copied, since fetching outlives the turn; the image is
 * the engine's and stays until the answer. */
#include "driver.h"

#include "sha256.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"

#include <string.h>

struct value {
    struct cox_fetch fetch;
    struct evaluation *of;
    uint32_t step;
    struct cox_eval_step seen;
    struct cox_buf bytes; /* what seen.output_json points to, when fetched */
};

struct evaluation {
    struct cox_work work;
    struct cox_driver *driver;
    struct cox_arena arena;
    struct cox_act_evaluate act; /* copied: its slices are in the arena */
    struct value *values;        /* by ascending step */
    size_t n_values;
    size_t n_missing;
    bool ok;
    struct cox_buf out;
    struct cox_buf error;
    struct cox_hash hash;
};

static struct cox_slice copy(struct cox_arena *a, struct cox_slice s)
{
    return cox_slice(cox_arena_dup(a, s.data, s.len), s.len);
}

static void step_of(void *user, uint32_t index, struct cox_eval_step *ret)
{
    struct evaluation *ev = user;
    size_t from = 0, to = ev->n_values;

    while (from < to) {
        size_t mid = from + (to - from) / 2;
        if (ev->values[mid].step < index)
            from = mid + 1;
        else
            to = mid;
    }
    COX_ASSERT(from < ev->n_values && ev->values[from].step == index);
    *ret = ev->values[from].seen;
}

static enum cox_err evaluate(struct evaluation *ev, const struct cox_image *image)
{
    const struct cox_act_evaluate *act = &ev->act;
    const struct cox_eval_env env = {
        .user = ev,
        .step = step_of,
        .success = act->success,
        .failure = act->failure,
        .error_code = act->error_code,
        .error_message = act->error_message,
    };
    bool yes;

    if (act->want != COX_EVAL_CONDITION)
        return cox_eval_template(image, act->template_index, &env, &ev->out, &ev->error);
    enum cox_err err = cox_eval_condition(image, act->template_index, &env, &yes, &ev->error);

    if (!err)
        cox_buf_append_str(&ev->out, yes ? "true" : "false");
    return err;
}

static void work(struct cox_work *w)
{
    struct evaluation *ev = COX_CONTAINER_OF(w, struct evaluation, work);
    bool outputs = ev->act.step == COX_IMAGE_NONE;
    size_t len_max = outputs ? COX_LOGGED_PAYLOAD_LEN_MAX : COX_SPEC_LEN_MAX;

    ev->ok = evaluate(ev, ev->act.opened) == COX_OK;
    if (ev->ok && ev->out.len > len_max) {
        ev->ok = false;
        cox_buf_printf(&ev->error, "%s of %zu bytes; at most %zu fit", outputs ? "outputs" : "an input",
                       ev->out.len, len_max);
    }
    if (ev->ok && outputs && ev->out.len > COX_INLINE_PAYLOAD_LEN_MAX)
        ev->hash = cox_sha256(cox_buf_slice(&ev->out));
}

static void evaluation_free(struct evaluation *ev)
{
    for (size_t i = 0; i < ev->n_values; i++)
        cox_buf_fini(&ev->values[i].bytes);
    cox_buf_fini(&ev->out);
    cox_buf_fini(&ev->error);
    cox_arena_fini(&ev->arena);
    cox_free(ev);
}

static void answer(struct evaluation *ev)
{
    bool stored = ev->act.step == COX_IMAGE_NONE && ev->out.len > COX_INLINE_PAYLOAD_LEN_MAX;
    struct cox_input in = { .kind = COX_IN_EVALUATED };

    in.u.evaluated.ticket = ev->act.ticket;
    in.u.evaluated.ok = ev->ok;
    in.u.evaluated.error = cox_buf_slice(&ev->error);
    if (ev->ok)
        in.u.evaluated.value = (struct cox_payload){
            .kind = stored ? COX_PAYLOAD_STORED : COX_PAYLOAD_INLINE,
            .bytes = cox_buf_slice(&ev->out),
            .hash = ev->hash,
            .size = ev->out.len,
        };
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
        v->seen.output_json = cox_buf_slice(&v->bytes);
        ev->work.len += v->bytes.len;
    }
    if (--ev->n_missing == 0)
        complete(ev);
}

/* Inserts by step: templates name few steps. */
static void value_add(struct evaluation *ev, const struct cox_eval_input *in)
{
    size_t i = ev->n_values++;

    for (; i > 0 && ev->values[i - 1].step > in->step; i--)
        ev->values[i] = ev->values[i - 1];
    ev->values[i] = (struct value){
        .of = ev,
        .step = in->step,
        .seen = { .status = in->status, .code = in->code, .message = copy(&ev->arena, in->message) },
    };
    if (in->output.kind == COX_PAYLOAD_INLINE) {
        ev->values[i].seen.output_json = copy(&ev->arena, in->output.bytes);
    } else if (in->output.kind == COX_PAYLOAD_STORED) {
        ev->values[i].fetch.hash = in->output.hash;
        ev->values[i].fetch.fn = on_value;
        ev->n_missing++;
    }
}

void cox_evaluate_start(struct cox_driver *d, const struct cox_act_evaluate *act)
{
    struct evaluation *ev = COX_NEW(struct evaluation);

    ev->driver = d;
    ev->work.work = work;
    ev->work.done = done;
    ev->act = *act;
    ev->act.error_message = copy(&ev->arena, act->error_message);
    ev->act.steps = NULL;
    ev->values = cox_arena_alloc(&ev->arena, (act->n_steps + 1) * sizeof(*ev->values));
    for (size_t i = 0; i < act->n_steps; i++)
        value_add(ev, &act->steps[i]);
    for (size_t i = 0; i < ev->n_values; i++) {
        if (ev->values[i].fetch.fn)
            cox_driver_fetch(d, &ev->values[i].fetch);
    }
    if (ev->n_missing == 0)
        complete(ev);
}
