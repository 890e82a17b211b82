/* What a scene must have come to: statuses from those of what came before, values from the plan alone. What
 * only chance and people decided (who wins, what fails) is taken as it is. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct seen {
    struct cox_step_view view;
    json_t *output;
};
struct model {
    struct sim *s;
    const struct audit_task *at;
    const struct scene *sc;
    const struct cox_task *t;
    struct seen steps[SCENE_STEPS_MAX];
    json_t *outputs[SCENE_STEPS_MAX]; /* as an expression sees them */
};

static bool is_ok(const struct model *m, uint32_t i)
{
    const struct cox_step_view *v = &m->steps[i].view;
    return v->status == COX_STEP_SUCCEEDED || (v->status == COX_STEP_FAILED && m->sc->steps[i].allow_failure);
}

static bool needs_ok(const struct model *m, uint32_t i)
{
    const struct scene_step *st = &m->sc->steps[i];
    bool ok = true;
    for (uint32_t k = 0; k < st->n_needs; k++)
        ok = ok && is_ok(m, st->needs[k]);
    if (st->reads >= 0)
        ok = ok && is_ok(m, (uint32_t)st->reads);
    if (st->beside >= 0)
        ok = ok && is_ok(m, (uint32_t)st->beside);
    return ok;
}

static bool is_value(const struct model *m, uint32_t i, json_t *is, json_t *item, uint64_t index)
{
    for (uint32_t k = 0; k < scene_alternatives(&m->sc->steps[i]); k++) {
        json_t *should = scene_value(m->sc, i, m->outputs, false, k, item, index);
        bool same = should == NULL || json_equal(is, should);
        json_decref(should);
        if (same)
            return true;
    }
    return false;
}

static void tell(const struct model *m, uint32_t i, json_t *is, json_t *item, uint64_t index)
{
    for (uint32_t k = 0; k < scene_alternatives(&m->sc->steps[i]); k++) {
        json_t *should = scene_value(m->sc, i, m->outputs, false, k, item, index);
        char *a = json_dumps(should, JSON_ENCODE_ANY | JSON_COMPACT),
             *b = json_dumps(is, JSON_ENCODE_ANY | JSON_COMPACT);
        trace(m->s, "should be %.100s", a);
        trace(m->s, "is        %.100s", b);
        free(a);
        free(b);
        json_decref(should);
    }
}

/* An item that is a frame has large values by reference. */
static json_t *resolve(const struct model *m, json_t *v)
{
    const char *text = json_string_value(json_object_get(v, "$blob"));
    struct cox_payload p = { .kind = COX_PAYLOAD_STORED };
    if (text == NULL)
        return json_incref(v);
    for (size_t i = 0; i < sizeof p.hash.b; i++) {
        unsigned byte = 0;
        sscanf(text + strlen("sha256:") + 2 * i, "%2x", &byte);
        p.hash.b[i] = (uint8_t)byte;
    }
    p.size = (uint64_t)json_integer_value(json_object_get(v, "size"));
    return verify_value(m->s, m->at, &p);
}

static void verify_list(const struct model *m, uint32_t i)
{
    const struct seen *is = &m->steps[i];
    const struct scene_step *st = &m->sc->steps[i];
    size_t n_null = 0, n = json_array_size(is->output);
    bool nulls = st->kind == SCENE_USES || st->kind == SCENE_TASK;
    uint32_t n_items = st->list_of < 0 ? st->n_items : (uint32_t)n;
    if (!json_is_array(is->output) || n != n_items)
        fail(m->s, "%s/%s: a map of %u items has %zu outputs", m->at->job->plan.name, st->name, n_items, n);
    for (size_t k = 0; k < n; k++) {
        json_t *item = json_integer((json_int_t)k * 7), *v = resolve(m, json_array_get(is->output, k));
        n_null += json_is_null(v);
        if (!json_is_null(v) && !is_value(m, i, v, item, k))
            tell(m, i, v, item, k), fail(m->s, "%s/%s: item %zu has another output than its body made",
                                         m->at->job->plan.name, st->name, k);
        json_decref(item);
        json_decref(v);
    }
    if (n_null > st->tolerate && nulls)
        fail(m->s, "%s/%s: %zu items have no output", m->at->job->plan.name, st->name, n_null);
    json_t *errors = verify_value(m->s, m->at, &is->view.errors);
    if (nulls && json_array_size(errors) != n_null)
        fail(m->s, "%s/%s: %zu items failed, and %zu say why", m->at->job->plan.name, st->name, n_null,
             json_array_size(errors));
    json_decref(errors);
}

static void verify_output(const struct model *m, uint32_t i)
{
    const struct seen *is = &m->steps[i];
    if (is->view.via_fallback) {
        json_t *should = scene_value(m->sc, i, m->outputs, true, 0, NULL, 0);
        if (!json_equal(is->output, should))
            fail(m->s, "%s/%s has another output than its fallback made", m->at->job->plan.name,
                 m->sc->steps[i].name);
        json_decref(should);
    } else if (m->sc->steps[i].mapped) {
        verify_list(m, i);
    } else if (!is_value(m, i, is->output, NULL, 0)) {
        fail(m->s, "%s/%s has another output than was made", m->at->job->plan.name, m->sc->steps[i].name);
    }
}

static void verify_step(struct model *m, uint32_t i)
{
    const struct scene_step *st = &m->sc->steps[i];
    struct seen *is = &m->steps[i];
    uint32_t index = cox_image_find_step(&m->at->image, cox_slice_str(st->name));
    cox_step_view(NULL, m->t, index, &is->view);
    is->output = verify_value(m->s, m->at, &is->view.output);
    m->outputs[i] = is->output;
    bool ran = is->view.status == COX_STEP_SUCCEEDED || is->view.status == COX_STEP_FAILED;
    bool may = st->always || needs_ok(m, i);
    if (ran && !may)
        fail(m->s, "%s/%s ran, and what it needs did not end well", m->at->job->plan.name, st->name);
    if (is->view.status == COX_STEP_SKIPPED && may)
        fail(m->s, "%s/%s is skipped for no reason", m->at->job->plan.name, st->name);
    if (is->view.status == COX_STEP_CANCELLED && !m->at->stopping && !m->at->steps[index].told &&
        !m->at->forked)
        fail(m->s, "%s/%s is cancelled, and nobody asked for it", m->at->job->plan.name, st->name);
    if (is->view.status == COX_STEP_SUCCEEDED)
        verify_output(m, i);
}

static void verify_end(const struct model *m, const struct cox_task_view *v)
{
    bool failed = m->at->outputs_failed || m->at->late;
    for (uint32_t i = 0; i < m->sc->n_steps; i++)
        failed = failed || (m->steps[i].view.status == COX_STEP_FAILED && !m->sc->steps[i].allow_failure);
    if (v->status == COX_TASK_SUCCEEDED && failed)
        fail(m->s, "%s SUCCEEDED, and a step did not", m->at->job->plan.name);
    if (v->status == COX_TASK_FAILED && !failed && m->sc->n_steps > 0)
        fail(m->s, "%s FAILED for no reason: %.*s", m->at->job->plan.name, (int)v->message.len,
             (const char *)v->message.data);
    if (v->status != COX_TASK_SUCCEEDED || m->sc->n_steps == 0)
        return;
    json_t *is = verify_value(m->s, m->at, &v->outputs), *should = json_object();
    for (uint32_t i = 0; i < m->sc->n_steps; i++)
        json_object_set(should, m->sc->steps[i].name, m->outputs[i]);
    if (!json_equal(is, should))
        fail(m->s, "%s has other outputs than its steps made", m->at->job->plan.name);
    json_decref(is);
    json_decref(should);
}

void verify_scene(struct sim *s, const struct audit_task *at, const struct cox_task *t)
{
    struct model m = { .s = s, .at = at, .sc = at->job->plan.scene, .t = t };
    struct cox_task_view view;
    cox_task_view(t, &view);
    if (at->asleep || (view.status != at->status))
        fail(s, "%s is archived as %s", at->job->plan.name, cox_task_status_text(view.status));
    for (uint32_t i = 0; i < m.sc->n_steps; i++)
        verify_step(&m, i);
    verify_end(&m, &view);
    for (uint32_t i = 0; i < m.sc->n_steps; i++)
        json_decref(m.outputs[i]);
}
