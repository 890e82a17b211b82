/* race: alternatives are inner steps of the same frame; the first success is the step's. */
#include "expand.h"

#include <string.h>

static uint32_t next_alternative(const struct cox_task *t, uint32_t i)
{
    struct cox_image_step doc;
    cox_image_step(&t->image, i, &doc);
    return i + 1 + doc.n_inner;
}

void race_begin(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    waiting_begins(e, t, step, 0, cox_slice(NULL, 0));
    for (uint32_t i = call.inner_first; i < call.inner_first + call.inner_n; i = next_alternative(t, i)) {
        task_step_make(t, i);
        if (!cox_step_status_final(task_step_status(t, i))) /* people may cancel one before it begins */
            emit(e, &(struct record){ .type = RECORD_STEP_OPENED, .task = t->id, .step = i });
    }
    for (uint32_t i = call.inner_first; i < call.inner_first + call.inner_n; i = next_alternative(t, i))
        if (i < t->link_next &&
            !cox_step_status_final(task_step_status(t, i))) /* else linking finds it open */
            step_make_ready(e, t, i);
    race_inner_ended(e, t, step); /* perhaps all were cancelled */
}

static void race_won(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t winner)
{
    const struct step *w = task_step(t, winner);
    struct record_ended en = { .status = COX_ATTEMPT_SUCCEEDED };
    struct cox_payload kept = { .kind = COX_PAYLOAD_NONE };
    if (w->output != NULL)
        kept = w->output->payload;
    en.output = kept;
    if (w->x != NULL && w->x->artifacts != NULL)
        en.artifacts = w->x->artifacts->payload;
    expand_end(e, t, step, &en); /* the others are closed when it settles */
}

static void race_lost(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t first_failed,
                      uint32_t n)
{
    struct cox_buf text = { 0 };
    struct record_ended en = { .status = COX_ATTEMPT_CANCELLED, .code = COX_CODE_CANCELLED };
    if (first_failed != COX_IMAGE_NONE) {
        const struct step *s = task_step(t, first_failed);
        en.status = COX_ATTEMPT_FAILED;
        en.code = (enum cox_code)s->code;
        cox_buf_printf(&text, "none of its %u alternatives succeeded; the first: %s", n,
                       s->message != NULL ? s->message : cox_code_text((enum cox_code)s->code));
        en.message = text_cut(cox_buf_slice(&text), COX_ERROR_MESSAGE_LEN_MAX);
    }
    expand_end(e, t, step, &en);
    cox_buf_fini(&text);
}

void race_inner_ended(struct cox_engine *e, struct cox_task *t, uint32_t owner)
{
    struct step *s = task_step(t, owner);
    struct cox_image_call call;
    uint32_t n = 0, n_final = 0, first_failed = COX_IMAGE_NONE;
    step_call(t, owner, s, &call);
    if (s->status != COX_STEP_WAITING || call.kind != COX_KIND_RACE)
        return;
    for (uint32_t i = call.inner_first; i < call.inner_first + call.inner_n; i = next_alternative(t, i)) {
        enum cox_step_status st = task_step_status(t, i);
        n++;
        n_final += cox_step_status_final(st);
        if (st == COX_STEP_FAILED && first_failed == COX_IMAGE_NONE)
            first_failed = i;
        if (st == COX_STEP_SUCCEEDED && !(s->flags & STEP_STOPPING) && !s->x->timed_out &&
            t->stopping == COX_TASK_NONE) {
            race_won(e, t, owner, i);
            return;
        }
    }
    if (n_final == n || (COX_PLANTED("race-lost-too-soon") && n_final > 0))
        race_lost(e, t, owner, first_failed, n);
}

void race_stop(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    for (uint32_t i = call.inner_first; i < call.inner_first + call.inner_n; i = next_alternative(t, i))
        if (task_has_step(t, i))
            step_cancel(e, t, i);
    race_inner_ended(e, t, step);
}

/* Losers are stopped; those of a call that was not made are skipped. */
void inner_close(struct cox_engine *e, struct cox_task *t, uint32_t owner)
{
    for (uint32_t i = task_next_inner(t, owner, owner); i != COX_IMAGE_NONE;
         i = task_next_inner(t, owner, i)) {
        struct step *s = task_step_make(t, i);
        if (cox_step_status_final((enum cox_step_status)s->status))
            continue;
        if (s->flags & STEP_OPEN && COX_PLANTED("losers-run-on"))
            continue;
        if (s->flags & STEP_OPEN)
            step_cancel(e, t, i);
        else
            step_skip(e, t, i);
    }
}
