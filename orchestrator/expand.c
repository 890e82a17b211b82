/* COX_ACT_COMPILE: the image of a frame, made on the compile thread. COX_ACT_LOAD: a task that comes back. */
#include "driver.h"

#include "cox/base/alloc.h"
#include "cox/base/arena.h"
#include "cox/base/log.h"

struct expansion {
    struct cox_work work;
    struct cox_driver *driver;
    struct cox_arena arena;
    struct cox_act_compile act;
    struct cox_buf image, error;
    bool ok;
};

static struct cox_slice copy(struct cox_arena *arena, struct cox_slice s)
{
    return cox_slice(cox_arena_dup(arena, s.data, s.len), s.len);
}

/* All of them, one a line of the sentence: whoever wrote the steps may be a program that reads it. */
static void put_violations(struct cox_buf *out, const struct cox_violations *v)
{
    for (uint32_t i = 0; i < v->n; i++)
        cox_buf_printf(out, "%s%s%s%s", i > 0 ? "; " : "", v->items[i].path, *v->items[i].path ? ": " : "",
                       v->items[i].message);
    if (v->n_more > 0)
        cox_buf_printf(out, "; and %u more", v->n_more);
}

static void work(struct cox_work *w)
{
    struct expansion *x = COX_CONTAINER_OF(w, struct expansion, work);
    const struct cox_task_source source = {
        .kind = x->act.kind,
        .document = x->act.document.bytes,
        .inputs_json = x->act.inputs_json,
        .allow_json = x->act.allow_json,
    };
    struct cox_violations violations;

    x->ok = cox_task_compile(&source, &x->image, &violations) == COX_OK;
    if (!x->ok)
        put_violations(&x->error, &violations);
    cox_violations_fini(&violations);
}

static void done(struct cox_work *w)
{
    struct expansion *x = COX_CONTAINER_OF(w, struct expansion, work);
    struct cox_input in = { .kind = COX_IN_COMPILED };

    in.u.compiled.ticket = x->act.ticket;
    in.u.compiled.ok = x->ok;
    in.u.compiled.image = cox_buf_slice(&x->image);
    in.u.compiled.error = cox_buf_slice(&x->error);
    cox_driver_step(x->driver, &in);
    cox_buf_fini(&x->image);
    cox_buf_fini(&x->error);
    cox_arena_fini(&x->arena);
    cox_free(x);
}

void cox_expand_start(struct cox_driver *d, const struct cox_act_compile *act)
{
    struct expansion *x = COX_NEW(struct expansion);

    x->driver = d;
    x->work.work = work;
    x->work.done = done;
    x->act = *act;
    x->act.document.bytes = copy(&x->arena, act->document.bytes);
    x->act.inputs_json = copy(&x->arena, act->inputs_json);
    x->act.allow_json = copy(&x->arena, act->allow_json);
    x->work.len = act->document.bytes.len + act->inputs_json.len;
    cox_compile_submit(cox_driver_compile(d), &x->work);
}

/* ---- tasks that come back ---- */

struct waking {
    struct cox_fetch fetch;
    struct cox_driver *driver;
    cox_task_id task;
};

static void on_loaded(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct waking *w = COX_CONTAINER_OF(f, struct waking, fetch);
    struct cox_input in = { .kind = COX_IN_LOADED };

    if (err) /* it was acknowledged and is not there: as bad as a log that cannot be read */
        cox_driver_fatal("a waiting task cannot be read from the state");
    in.u.loaded.task = w->task;
    in.u.loaded.bytes = cox_buf_slice(bytes);
    cox_driver_step(w->driver, &in);
    cox_free(w);
}

void cox_load_start(struct cox_driver *d, struct cox_entity_key sleeper)
{
    struct waking *w = COX_NEW(struct waking);

    *w = (struct waking){ .fetch = { .entity = sleeper, .fn = on_loaded }, .driver = d, .task = sleeper.id };
    cox_driver_fetch(d, &w->fetch);
}
