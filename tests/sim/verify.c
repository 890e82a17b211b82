/* The second judge: computes from the plan alone how a task must have ended. What chance decided (losses,
 * timeouts near the limit) is read from the attempts; that each attempt ended as its body does, that the
 * rules of retry, loss, fallback and conditions were kept, and every value, is computed here once more. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model_step {
    uint32_t index; /* in the image */
    enum cox_step_status status;
    enum cox_code code; /* of the last failure */
    json_t *output;     /* owned; NULL: null */
};
struct model {
    struct sim *s;
    const struct plan *plan;
    const struct cox_task *t;
    struct cox_task_view view;
    struct model_step *steps; /* by the plan's order */
    const struct audit_task *at;
};

/* ---- values ---- */

json_t *verify_value(struct sim *s, const struct audit_task *at, const struct cox_payload *p)
{
    struct cox_slice bytes = p->bytes;
    if (p->kind == COX_PAYLOAD_NONE)
        return json_null();
    if (p->kind == COX_PAYLOAD_STORED) {
        const struct row *row = store_row(s, payload_key(&p->hash));
        if (row == NULL)
            fail(s, "%s: a stored value is not in the state", at->job->plan.name);
        bytes = cox_buf_slice(&row->bytes);
    }
    json_t *v = json_loadb((const char *)bytes.data, bytes.len, JSON_DECODE_ANY, NULL);
    if (v == NULL || bytes.len != p->size)
        fail(s, "%s: a value is not JSON, or of another size", at->job->plan.name);
    return v;
}

static json_t *form_value(const struct model *m, const struct plan_ref *r, bool *ret_error)
{
    const json_t *out = m->steps[r->step].output;
    json_t *n = json_object_get(out, "n");
    char text[64];
    switch (r->form) {
    case FORM_H:
        return out != NULL ? json_incref(json_object_get(out, "h")) : json_null();
    case FORM_N:
        return out != NULL ? json_incref(n) : json_null();
    case FORM_ALL:
        return out != NULL ? json_deep_copy(out) : json_null();
    case FORM_TEXT:
        if (out == NULL)
            return json_string("x null y");
        snprintf(text, sizeof text, "x %lld y", (long long)json_integer_value(n));
        return json_string(text);
    default:
        if (out == NULL)
            *ret_error = true;
        return out != NULL ? json_integer(json_integer_value(n) + 1) : json_null();
    }
}

/* The spec of a call, or NULL when an expression in it has no value. */
static json_t *call_spec(const struct model *m, const struct plan_call *c, enum cox_code error)
{
    bool bad = false;
    json_t *o = json_object();
    json_object_set_new(o, "id", json_string(c->id));
    json_object_set_new(o, "ms", json_integer(c->ms));
    json_object_set_new(o, "flaky", json_integer(c->flaky));
    json_object_set_new(o, "broken", json_integer(c->broken));
    json_object_set_new(o, "pad", json_integer(c->pad));
    json_object_set_new(o, "kills", json_boolean(c->kills));
    json_object_set_new(o, "fail_output", json_boolean(c->fail_output));
    for (uint32_t i = 0; i < c->n_refs; i++) {
        char key[16];
        snprintf(key, sizeof key, "r%u", i);
        json_object_set_new(o, key, form_value(m, &c->refs[i], &bad));
    }
    if (c->reads_inputs) {
        char *text = plan_input_text(m->plan);
        json_object_set_new(o, "in", json_string(text));
        cox_free(text);
    }
    if (c->reads_error)
        json_object_set_new(o, "error", json_string(cox_code_text(error)));
    if (bad)
        json_decref(o);
    return bad ? NULL : o;
}

/* ---- conditions ---- */

static void depends(const struct model *m, uint32_t on, bool *ok, bool *failure)
{
    enum cox_step_status st = m->steps[on].status;
    if (st == COX_STEP_SUCCEEDED || (st == COX_STEP_FAILED && m->plan->steps[on].allow_failure))
        return;
    *ok = false;
    *failure = *failure || st == COX_STEP_FAILED;
}

static bool expect_open(const struct model *m, uint32_t i)
{
    const struct plan_step *st = &m->plan->steps[i];
    const json_t *out = m->steps[st->cond_step].output;
    bool ok = true, failure = false;
    for (uint32_t k = 0; k < st->n_needs; k++)
        depends(m, st->needs[k], &ok, &failure);
    for (uint32_t k = 0; k < st->call.n_refs; k++)
        depends(m, st->call.refs[k].step, &ok, &failure);
    switch (st->cond) {
    case COND_ALWAYS:
        return true;
    case COND_FAILURE:
        return failure;
    case COND_N:
    case COND_ALL_LOW:
        return out != NULL && json_integer_value(json_object_get(out, "n")) < 50;
    default:
        return ok;
    }
}

/* ---- attempts ---- */

struct walk { /* through the attempts of a step */
    const struct plan_step *doc;
    bool in_fallback;
    uint32_t tries, losses;
    enum cox_code code;       /* of the last failure */
    enum cox_code error;      /* what the fallback is for */
    enum cox_step_status end; /* NONE: not yet */
    char *output;
};

static const struct plan_call *walk_call(const struct walk *w)
{
    return w->in_fallback ? &w->doc->fallback : &w->doc->call;
}

static void walk_give_up(struct walk *w)
{
    if (w->doc->has_fallback && !w->in_fallback) {
        w->in_fallback = true;
        w->error = w->code;
        w->tries = 0;
    } else {
        w->end = COX_STEP_FAILED;
    }
}

static void walk_failure(struct walk *w, enum cox_code code)
{
    bool again = code == COX_CODE_EXIT_NONZERO || code == COX_CODE_TIMEOUT || code == COX_CODE_UNAVAILABLE;
    w->code = code;
    if (again && ++w->tries < walk_call(w)->max_attempts)
        return;
    walk_give_up(w);
}

static void walk_loss(struct walk *w, enum cox_code code)
{
    w->code = code;
    if (w->losses + 1 < COX_LOSSES_MAX)
        w->losses++;
    else
        walk_give_up(w);
}

static bool may_time_out(const struct model *m, const struct plan_call *c, const struct outcome *o)
{
    return m->s->opt.faults || (c->timeout_ms > 0 && o->run_ms + 300 >= c->timeout_ms);
}

static bool may_end_itself(const struct model *m, const struct plan_call *c, const struct outcome *o)
{
    return m->s->opt.faults || c->timeout_ms == 0 || o->run_ms <= c->timeout_ms + 300;
}

static void walk_attempt(struct model *m, struct walk *w, const struct audit_attempt *av, const json_t *spec)
{
    const struct plan_call *c = walk_call(w);
    struct outcome o = outcome_of(spec, NULL, av->number);
    bool bad = av->in_fallback != w->in_fallback;
    enum cox_code code = (enum cox_code)av->code;
    if (o.kills && kind_on(m->s, KIND_KILLER) &&
        (av->status == COX_ATTEMPT_SUCCEEDED || av->status == COX_ATTEMPT_FAILED) && code == o.code)
        bad = true; /* nobody was left to say so */
    switch ((enum cox_attempt_status)av->status) {
    case COX_ATTEMPT_LOST:
        bad = bad || !m->s->opt.faults;
        if (code != COX_CODE_NONE)
            walk_loss(w, code);
        break;
    case COX_ATTEMPT_SUCCEEDED:
        bad = bad || o.code != COX_CODE_NONE || !may_end_itself(m, c, &o);
        w->end = COX_STEP_SUCCEEDED;
        w->output = o.output;
        o.output = NULL;
        break;
    case COX_ATTEMPT_FAILED:
        if (code == COX_CODE_PREEMPTED) {
            bad = bad || !m->s->opt.faults;
            walk_loss(w, code);
            break;
        }
        bad = bad || code != o.code || !may_end_itself(m, c, &o);
        walk_failure(w, code);
        if (w->end != COX_STEP_NONE) {
            w->output = o.output;
            o.output = NULL;
        }
        break;
    case COX_ATTEMPT_TIMED_OUT:
        bad = bad || !may_time_out(m, c, &o);
        walk_failure(w, COX_CODE_TIMEOUT);
        break;
    default:
        bad = true;
    }
    if (bad)
        fail(m->s, "%s: attempt %u ended %s %s, its body ends %s after %lld ms", c->id, av->number,
             cox_attempt_status_text((enum cox_attempt_status)av->status), cox_code_text(code),
             cox_code_text(o.code), (long long)o.run_ms);
    outcome_fini(&o);
}

static void walk_all(struct model *m, struct walk *w, const struct audit_step *st)
{
    uint32_t i = 0;
    while (w->end == COX_STEP_NONE) {
        json_t *spec = call_spec(m, walk_call(w), w->error);
        if (spec == NULL) {
            w->code = COX_CODE_INPUT_INVALID;
            walk_give_up(w);
            continue;
        }
        if (i == st->n)
            fail(m->s, "%s/%s is over, and should have run again", m->plan->name, w->doc->name);
        walk_attempt(m, w, &st->attempts[i++], spec);
        json_decref(spec);
    }
    if (i != st->n)
        fail(m->s, "%s/%s ran %u times, and should have ended after %u", m->plan->name, w->doc->name, st->n,
             i);
}

/* What people are shown are the newest of the attempts in the log. */
static void compare_attempts(struct model *m, uint32_t index, const struct audit_step *st, uint32_t n_shown)
{
    uint32_t n = st->n < COX_ATTEMPTS_KEPT ? st->n : COX_ATTEMPTS_KEPT;
    if (n_shown < n || n_shown > st->n)
        fail(m->s, "%s/%u shows %u of %u attempts", m->plan->name, index, n_shown, st->n);
    for (uint32_t i = 0; i < n_shown; i++) {
        const struct audit_attempt *a = &st->attempts[st->n - n_shown + i];
        struct cox_attempt_view v;
        cox_attempt_view(NULL, m->t, index, i, &v);
        enum cox_code code = a->status == COX_ATTEMPT_LOST ? COX_CODE_WORKER_LOST : (enum cox_code)a->code;
        if (v.number != a->number || v.status != a->status || v.code != code || v.fallback != a->in_fallback)
            fail(m->s, "%s/%u: attempt %u is shown as %u, %s %s", m->plan->name, index, a->number, v.number,
                 cox_attempt_status_text(v.status), cox_code_text(v.code));
    }
}

/* ---- a step ---- */

static void compare_output(struct model *m, uint32_t i, const struct cox_step_view *v, const char *expected)
{
    json_t *is = verify_value(m->s, m->at, &v->output);
    json_t *should = expected != NULL ? json_loads(expected, 0, NULL) : json_null();
    if (!json_equal(is, should))
        fail(m->s, "%s/%s has another output than its body made", m->plan->name, m->plan->steps[i].name);
    json_decref(is);
    if (expected != NULL)
        m->steps[i].output = should;
    else
        json_decref(should);
}

static void verify_ran(struct model *m, uint32_t i, const struct cox_step_view *v)
{
    struct walk w = { .doc = &m->plan->steps[i] };
    walk_all(m, &w, &m->at->steps[m->steps[i].index]);
    if (v->status != w.end)
        fail(m->s, "%s/%s is %s, and should be %s", m->plan->name, w.doc->name,
             cox_step_status_text(v->status), cox_step_status_text(w.end));
    if (v->status == COX_STEP_FAILED && v->code != w.code)
        fail(m->s, "%s/%s failed with %s, and should have with %s", m->plan->name, w.doc->name,
             cox_code_text(v->code), cox_code_text(w.code));
    if (v->via_fallback != (w.in_fallback && w.end == COX_STEP_SUCCEEDED))
        fail(m->s, "%s/%s is wrong about its fallback", m->plan->name, w.doc->name);
    compare_output(m, i, v, w.output);
    cox_free(w.output);
}

static void verify_step(struct model *m, uint32_t i)
{
    const struct plan_step *doc = &m->plan->steps[i];
    struct model_step *st = &m->steps[i];
    struct cox_step_view v;
    st->index = cox_image_find_step(m->view.image, cox_slice_str(doc->name));
    COX_ASSERT(st->index != COX_IMAGE_NONE);
    cox_step_view(NULL, m->t, st->index, &v);
    st->status = v.status;
    compare_attempts(m, st->index, &m->at->steps[st->index], v.n_attempts);
    st->code = v.code;
    if (v.status == COX_STEP_CANCELLED) {
        if (!m->at->stopping)
            fail(m->s, "%s/%s is cancelled, and nothing stopped the task", m->plan->name, doc->name);
        return;
    }
    bool open = expect_open(m, i);
    if (open == (v.status == COX_STEP_SKIPPED))
        fail(m->s, "%s/%s is %s, and its condition says %s", m->plan->name, doc->name,
             cox_step_status_text(v.status), open ? "run" : "skip");
    if (open)
        verify_ran(m, i, &v);
    else if (v.n_attempts != 0)
        fail(m->s, "%s/%s is skipped and ran", m->plan->name, doc->name);
}

/* ---- the task ---- */

static bool cancel_was_sent(const struct sim *s, cox_task_id id)
{
    for (uint32_t i = 0; i < s->n_jobs; i++)
        if (s->jobs[i].task == id && s->jobs[i].cancel_sent)
            return true;
    return false;
}

static void verify_outputs(struct model *m)
{
    json_t *should = json_object(), *is = verify_value(m->s, m->at, &m->view.outputs);
    for (uint32_t i = 0; i < m->plan->n_outputs; i++) {
        char key[16];
        bool bad = false;
        snprintf(key, sizeof key, "o%u", i);
        json_object_set_new(should, key, form_value(m, &m->plan->outputs[i], &bad));
    }
    if (!json_equal(is, should))
        fail(m->s, "%s has other outputs than its steps make", m->plan->name);
    json_decref(is);
    json_decref(should);
}

static void verify_end(struct model *m)
{
    bool failed = false, cancelled = false;
    for (uint32_t i = 0; i < m->plan->n_steps; i++) {
        failed = failed || (m->steps[i].status == COX_STEP_FAILED && !m->plan->steps[i].allow_failure);
        cancelled = cancelled || m->steps[i].status == COX_STEP_CANCELLED;
    }
    switch (m->view.status) {
    case COX_TASK_SUCCEEDED:
        if (failed || cancelled)
            fail(m->s, "%s SUCCEEDED, and a step did not", m->plan->name);
        verify_outputs(m);
        break;
    case COX_TASK_FAILED:
        if (!failed && !m->at->late)
            fail(m->s, "%s FAILED for no reason: %s %.*s", m->plan->name, cox_code_text(m->view.code),
                 (int)m->view.message.len, (const char *)m->view.message.data);
        break;
    case COX_TASK_CANCELLED:
        if (!cancel_was_sent(m->s, m->view.id))
            fail(m->s, "%s is CANCELLED, and nobody asked for it", m->plan->name);
        break;
    default:
        fail(m->s, "%s ended %s", m->plan->name, cox_task_status_text(m->view.status));
    }
}

static void verify_task(struct sim *s, const struct audit_task *at, const struct cox_task *t)
{
    struct model m = { .s = s, .plan = &at->job->plan, .at = at, .t = t };
    struct cox_image_task doc;
    cox_task_view(t, &m.view);
    cox_image_task(m.view.image, &doc);
    if (!cox_slice_is(doc.name, m.plan->name) || m.view.image->n_steps != m.plan->n_steps)
        fail(s, "%s is another task", m.plan->name);
    m.steps = cox_calloc(m.plan->n_steps, sizeof m.steps[0]);
    for (uint32_t i = 0; i < m.plan->n_steps; i++)
        verify_step(&m, i);
    verify_end(&m);
    for (uint32_t i = 0; i < m.plan->n_steps; i++)
        json_decref(m.steps[i].output);
    cox_free(m.steps);
}

static void verify_archived(struct sim *s, const struct audit_task *at)
{
    const struct row *row = store_row(s, (struct cox_entity_key){ .kind = ROW_ARCHIVE, .id = at->id });
    struct cox_task *t;
    if (row == NULL)
        fail(s, "%s (%llu) is not in the archive", at->job->plan.name, (unsigned long long)at->id);
    if (cox_task_thaw(cox_buf_slice(&row->bytes), &t) != COX_OK)
        fail(s, "%s cannot be read from the archive", at->job->plan.name);
    if (at->parent == NULL)
        verify_usage(s, at, t);
    if (at->parent == NULL && at->job->plan.scene != NULL)
        verify_scene(s, at, t);
    else if (at->parent == NULL)
        verify_task(s, at, t);
    cox_task_free(t);
}

void verify_root(struct sim *s, const struct audit_task *root)
{
    for (size_t i = 0; i < s->audit.n; i++)
        if (s->audit.list[i]->root == root)
            verify_archived(s, s->audit.list[i]);
}

/* At the end, when everything has come to rest. (rules 10 and 11) */
void verify_all(struct sim *s)
{
    for (size_t i = 0; i < s->audit.n; i++)
        if (!s->audit.list[i]->root->deleted)
            verify_archived(s, s->audit.list[i]);
}
