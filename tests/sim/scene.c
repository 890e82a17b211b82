#include "scene.h"

#include "plan.h"

#include "cox/base/alloc.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- drawing ---- */

static uint32_t below(struct cox_rng *rng, uint32_t bound)
{
    return (uint32_t)cox_rng_below(rng, bound);
}

static bool one_in(struct cox_rng *rng, uint32_t n)
{
    return below(rng, n) == 0;
}

static uint32_t draw_ms(struct cox_rng *rng)
{
    return one_in(rng, 8) ? 1000 + below(rng, 15000) : one_in(rng, 3) ? below(rng, 2000) : below(rng, 60);
}

static void draw_map(struct scene *sc, struct cox_rng *rng, uint32_t i)
{
    struct scene_step *st = &sc->steps[i];
    bool leaf = st->kind == SCENE_USES;
    st->mapped = true;
    st->n_items = below(rng, 13);
    if (leaf && one_in(rng, 6))
        st->n_items = 50 + below(rng, 300);
    if (leaf && one_in(rng, 60))
        st->n_items = 4000 + below(rng, 5000); /* more than a page */
    st->batch = one_in(rng, 2) ? 1 : 1 + below(rng, st->n_items / 8 + 8);
    st->max_parallel = one_in(rng, 3) ? 1 + below(rng, 20) : 0;
    st->tolerate = one_in(rng, 2) ? st->n_items : below(rng, st->n_items / 2 + 1);
    if (st->n_items > 20) {
        st->ms = below(rng, 4);
        st->broken = st->pad = 0;
        st->max_parallel = 0;
        st->batch = (st->batch + st->n_items / 20) % 999 + 1;
    }
    for (uint32_t k = 0; k < i; k++)
        if (leaf && sc->steps[k].list > 0 && !sc->steps[k].mapped && one_in(rng, 2))
            st->list_of = (int)k;
    if (st->list_of >= 0) {
        st->n_items = sc->steps[st->list_of].list;
        st->needs[st->n_needs++] = (uint32_t)st->list_of;
    }
}

static void draw_limits(struct scene *sc, struct cox_rng *rng, uint32_t i)
{
    struct scene_step *st = &sc->steps[i];
    st->max_attempts = 1 + below(rng, 4);
    if (one_in(rng, 5) && st->kind != SCENE_FOR)
        st->timeout_ms = 500 + below(rng, 8000);
    if (st->kind == SCENE_APPROVAL && one_in(rng, 2)) {
        static const char *const what[] = { "fail", "approve", "reject" };
        st->expires_ms = 200 + below(rng, 9000);
        st->on_expire = what[below(rng, 3)];
    }
    bool leaf = st->kind == SCENE_USES || st->kind == SCENE_AGAIN;
    if (leaf && !st->mapped && one_in(rng, 4))
        st->concurrency = 1 + below(rng, SCENE_KEYS);
    st->rate = leaf && one_in(rng, 10);
    st->spread = leaf && one_in(rng, 10);
    for (uint32_t k = 0; leaf && !st->spread && k < i; k++)
        if (sc->steps[k].kind == SCENE_USES && !sc->steps[k].mapped && one_in(rng, 2))
            st->beside = (int)k;
    st->same_files = st->beside >= 0 && one_in(rng, 2);
    if (st->kind == SCENE_FOR && !st->mapped && one_in(rng, 2))
        st->until_wall_ms = SCENE_BASE_WALL_MS + below(rng, 60000);
}

static void draw_step(struct scene *sc, struct cox_rng *rng, uint32_t i)
{
    struct scene_step *st = &sc->steps[i];
    snprintf(st->name, sizeof st->name, "s%u", i);
    st->kind = (enum scene_kind)below(rng, SCENE_KIND_NR);
    st->list_of = st->reads = st->beside = -1;
    for (uint32_t k = below(rng, 3); i > 0 && k > 0; k--)
        st->needs[st->n_needs++] = below(rng, i);
    st->ms = draw_ms(rng);
    st->flaky = one_in(rng, 3) ? 50 + below(rng, 500) : 0;
    st->broken = one_in(rng, 6) ? 50 + below(rng, 400) : 0;
    st->pad = one_in(rng, 8) ? 4000 + below(rng, 4000) : below(rng, 100);
    st->list = st->kind == SCENE_USES && one_in(rng, 3) ? 1 + below(rng, one_in(rng, 3) ? 900 : 9) : 0;
    st->n = 2 + below(rng, 3);
    if (st->kind == SCENE_TASK)
        st->n = below(rng, SCENE_TEMPLATES);
    if (st->kind == SCENE_SIGNAL)
        st->n = below(rng, SCENE_SIGNALS);
    st->race_waits = st->kind == SCENE_RACE && one_in(rng, 3);
    bool may_map =
        st->kind == SCENE_USES || st->kind == SCENE_FOR || st->kind == SCENE_RACE || st->kind == SCENE_TASK;
    if (may_map && one_in(rng, 3))
        draw_map(sc, rng, i);
    if (i > 0 && st->n_needs < 3 && (st->kind == SCENE_USES || st->kind == SCENE_AGAIN) && !st->mapped &&
        one_in(rng, 2)) {
        st->reads = (int)below(rng, i);
        if (sc->steps[st->reads].mapped && sc->steps[st->reads].n_items > 500)
            st->reads = -1;
    }
    st->allow_failure = one_in(rng, 3);
    st->has_fallback = one_in(rng, 5);
    st->always = one_in(rng, 6);
    draw_limits(sc, rng, i);
}

void scene_draw(struct scene *sc, const char *name, struct cox_rng *rng, uint32_t n_steps_max)
{
    memset(sc, 0, sizeof *sc);
    sc->name = name;
    sc->n_steps = 1 + below(rng, SCENE_STEPS_MAX);
    if (sc->n_steps > n_steps_max)
        sc->n_steps = n_steps_max;
    sc->fail_fast = one_in(rng, 6);
    sc->deadline_ms = one_in(rng, 12) ? 1000 + below(rng, 60000) : 0;
    for (uint32_t i = 0; i < sc->n_steps; i++)
        draw_step(sc, rng, i);
}

/* ---- what bodies are given ---- */

static json_t *body(const char *id, uint32_t ms, uint32_t flaky, uint32_t broken, uint32_t pad)
{
    return json_pack("{s:s,s:i,s:i,s:i,s:i}", "id", id, "ms", (int)ms, "flaky", (int)flaky, "broken",
                     (int)broken, "pad", (int)pad);
}

/* What an AGAIN body asks for: a step that succeeds, one that may not, perhaps a wait. */
static json_t *asked_steps(const struct scene *sc, uint32_t i)
{
    char id[64];
    snprintf(id, sizeof id, "%s/s%u/asked", sc->name, i);
    json_t *o = json_pack("{s:{s:s,s:o,s:{s:i,s:s}},s:{s:s,s:o,s:b}}", "x", "uses", "sim@1", "with",
                          body(id, 20, 100, 0, 10), "retry", "max_attempts", 9, "initial_backoff", "10ms",
                          "y", "uses", "sim@2", "with", body(id, 30, 0, 300, 10), "allow_failure", 1);
    if (sc->steps[i].pad > 4000)
        json_object_set_new(o, "z", json_pack("{s:{s:s}}", "wait", "for", "2s"));
    return o;
}

/* `item`: a value, or the expression for it; NULL: not mapped. `read`: what the step reads. */
static json_t *spec_of(const struct scene *sc, uint32_t i, bool fallback, uint32_t alternative, json_t *item,
                       json_t *index, json_t *read)
{
    const struct scene_step *st = &sc->steps[i];
    char id[64];
    snprintf(id, sizeof id, "%s/%s/%u%s", sc->name, st->name, alternative, fallback ? "/fallback" : "");
    if (fallback)
        return body(id, st->ms / 2, 0, 200, 20);
    json_t *o = body(id, st->ms, st->flaky, st->broken, st->pad);
    if (item != NULL) {
        json_object_set(o, "item", item);
        json_object_set(o, "index", index);
    }
    if (st->list > 0)
        json_object_set_new(o, "list", json_integer(st->list));
    if (read != NULL)
        json_object_set(o, "r", read);
    if (st->kind == SCENE_AGAIN) {
        json_object_set_new(o, "again", json_integer(st->n - 1));
        json_object_set_new(o, "asks", asked_steps(sc, i));
    }
    return o;
}

static json_t *template_spec(uint32_t number, json_t *x)
{
    char id[16];
    snprintf(id, sizeof id, "tpl%u", number);
    json_t *o = body(id, 15, 150, 0, 5);
    json_object_set(o, "x", x);
    return o;
}

/* ---- the document ---- */

static json_t *millis(uint32_t ms)
{
    char text[24];
    snprintf(text, sizeof text, "%ums", ms);
    return json_string(text);
}

static json_t *instant(int64_t wall_ms)
{
    char text[40];
    time_t seconds = wall_ms / 1000;
    struct tm tm;
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(wall_ms % 1000));
    return json_string(text);
}

static json_t *retry(uint32_t max_attempts)
{
    return json_pack("{s:i,s:s,s:s}", "max_attempts", (int)max_attempts, "initial_backoff", "40ms",
                     "max_backoff", "900ms");
}

static void put_uses(json_t *o, uint32_t handler, json_t *with)
{
    char text[16];
    snprintf(text, sizeof text, "sim@%u", handler);
    json_object_set_new(o, "uses", json_string(text));
    json_object_set_new(o, "with", with);
}

uint32_t scene_alternatives(const struct scene_step *st)
{
    return st->kind == SCENE_RACE ? st->n : 1;
}

static json_t *race(const struct scene *sc, uint32_t i, json_t *item, json_t *index)
{
    const struct scene_step *st = &sc->steps[i];
    json_t *list = json_array();
    for (uint32_t k = 0; k < st->n; k++) {
        json_t *o = json_object();
        if (st->race_waits && k + 1 == st->n) {
            json_object_set_new(o, "wait", json_pack("{s:o}", "for", millis(st->ms)));
        } else {
            put_uses(o, 1 + k % 3, spec_of(sc, i, false, k, item, index, NULL));
            json_object_set_new(o, "retry", retry(st->max_attempts));
        }
        json_array_append_new(list, o);
    }
    return list;
}

static void put_kind(json_t *o, const struct scene *sc, uint32_t i)
{
    const struct scene_step *st = &sc->steps[i];
    json_t *item = st->mapped ? json_string("${{ item }}") : NULL;
    json_t *index = st->mapped ? json_string("${{ index }}") : NULL;
    json_t *read = NULL;
    char text[64];
    if (st->reads >= 0) {
        snprintf(text, sizeof text, "${{ steps.s%d.output }}", st->reads);
        read = json_string(text);
    }
    switch (st->kind) {
    case SCENE_USES:
    case SCENE_AGAIN:
        put_uses(o, st->beside >= 0 ? 1 : 1 + i % 2, spec_of(sc, i, false, 0, item, index, read));
        break;
    case SCENE_FOR:
        json_object_set_new(o, "wait",
                            st->until_wall_ms > 0 ? json_pack("{s:o}", "until", instant(st->until_wall_ms))
                                                  : json_pack("{s:o}", "for", millis(st->ms)));
        break;
    case SCENE_SIGNAL:
        snprintf(text, sizeof text, "g%u", st->n);
        json_object_set_new(o, "wait", json_pack("{s:s}", "signal", text));
        break;
    case SCENE_APPROVAL:
        json_object_set_new(o, "approval", json_pack("{s:s}", "prompt", "Go on?"));
        if (st->expires_ms > 0) {
            json_object_set_new(json_object_get(o, "approval"), "expires", millis(st->expires_ms));
            json_object_set_new(json_object_get(o, "approval"), "on_expire", json_string(st->on_expire));
        }
        break;
    case SCENE_RACE:
        json_object_set_new(o, "race", race(sc, i, item, index));
        break;
    default:
        snprintf(text, sizeof text, "tpl%u@1", st->n);
        json_object_set_new(o, "task",
                            json_pack("{s:s,s:{s:o}}", "ref", text, "inputs", "x",
                                      st->mapped ? json_incref(item) : json_integer(i)));
    }
    json_decref(item);
    json_decref(index);
    json_decref(read);
}

static json_t *item_value(uint64_t index)
{
    return json_integer((json_int_t)(index * 7));
}

static void put_map(json_t *o, const struct scene_step *st)
{
    json_t *map = json_pack("{s:i}", "tolerate_failures", (int)st->tolerate);
    char text[64];
    if (st->list_of >= 0) {
        snprintf(text, sizeof text, "${{ steps.s%d.output.list }}", st->list_of);
        json_object_set_new(map, "over", json_string(text));
    } else {
        json_t *list = json_array();
        for (uint32_t k = 0; k < st->n_items; k++)
            json_array_append_new(list, item_value(k));
        json_object_set_new(map, "over", list);
    }
    if (st->kind == SCENE_USES)
        json_object_set_new(map, "batch", json_integer(st->batch));
    if (st->max_parallel > 0)
        json_object_set_new(map, "max_parallel", json_integer(st->max_parallel));
    json_object_set_new(o, "map", map);
}

static void put_limits(json_t *o, const struct scene_step *st)
{
    char text[16];
    json_object_set_new(o, "retry", retry(st->max_attempts));
    if (st->timeout_ms > 0)
        json_object_set_new(o, "timeout", millis(st->timeout_ms));
    if (st->concurrency > 0) {
        snprintf(text, sizeof text, "k%u", st->concurrency);
        json_object_set_new(o, "concurrency",
                            json_pack("{s:s,s:i}", "key", text, "limit", (int)st->concurrency));
    }
    if (st->rate)
        json_object_set_new(o, "rate", json_pack("{s:s,s:i}", "key", "r", "per_minute", 120));
    if (st->spread)
        json_object_set_new(o, "affinity", json_pack("{s:b}", "spread", 1));
    if (st->beside >= 0) {
        snprintf(text, sizeof text, "s%d", st->beside);
        json_object_set_new(o, "affinity", json_pack("{s:s}", st->same_files ? "workspace" : "step", text));
    }
}

static json_t *step_document(const struct scene *sc, uint32_t i)
{
    const struct scene_step *st = &sc->steps[i];
    json_t *o = json_object(), *needs = json_array();
    put_kind(o, sc, i);
    if (st->mapped)
        put_map(o, st);
    put_limits(o, st);
    for (uint32_t k = 0; k < st->n_needs; k++)
        json_array_append_new(needs, json_string(sc->steps[st->needs[k]].name));
    json_object_set_new(o, "needs", needs);
    if (st->allow_failure)
        json_object_set_new(o, "allow_failure", json_true());
    if (st->always)
        json_object_set_new(o, "if", json_string("${{ always() }}"));
    if (st->has_fallback) {
        json_t *fallback = json_object();
        put_uses(fallback, 1, spec_of(sc, i, true, 0, NULL, NULL, NULL));
        json_object_set_new(fallback, "retry", retry(2));
        json_object_set_new(o, "fallback", fallback);
    }
    return o;
}

json_t *scene_document(const struct scene *sc)
{
    json_t *o = json_pack("{s:s,s:s}", "api_version", "v1", "name", sc->name);
    json_t *steps = json_object(), *outputs = json_object();
    if (sc->fail_fast)
        json_object_set_new(o, "fail_fast", json_true());
    if (sc->deadline_ms > 0)
        json_object_set_new(o, "budget", json_pack("{s:o}", "timeout", millis(sc->deadline_ms)));
    for (uint32_t i = 0; i < sc->n_steps; i++) {
        char text[64];
        snprintf(text, sizeof text, "${{ steps.%s.output }}", sc->steps[i].name);
        json_object_set_new(steps, sc->steps[i].name, step_document(sc, i));
        json_object_set_new(outputs, sc->steps[i].name, json_string(text));
    }
    json_object_set_new(o, "steps", steps);
    json_object_set_new(o, "outputs", outputs);
    return o;
}

json_t *scene_template(uint32_t number)
{
    char name[8];
    json_t *x = json_string("${{ inputs.x }}"), *a = json_object(),
           *out = json_string("${{ steps.a.output.h }}");
    snprintf(name, sizeof name, "tpl%u", number);
    if (number == 1) {
        json_object_set_new(a, "wait", json_pack("{s:s}", "for", "1500ms"));
        json_decref(out);
        out = json_string("${{ steps.a.output }}");
    } else if (number == 2) {
        json_object_set_new(a, "task", json_pack("{s:s,s:{s:O}}", "ref", "tpl0@1", "inputs", "x", x));
        json_decref(out);
        out = json_string("${{ steps.a.output.a }}");
    } else {
        put_uses(a, 1, template_spec(number, x));
        json_object_set_new(a, "retry", retry(9));
    }
    json_t *o = json_pack("{s:s,s:s,s:s,s:{s:{s:s}},s:{s:o},s:{s:s,s:o}}", "api_version", "v1", "kind",
                          "template", "name", name, "inputs", "x", "type", "integer", "steps", "a", a,
                          "outputs", "y", "${{ inputs.x + 1 }}", "a", out);
    json_decref(x);
    return o;
}

json_t *scene_schedule(void)
{
    json_t *with = body("sched", 50, 100, 0, 5), *waits = json_pack("{s:{s:s}}", "wait", "for", "3s");
    return json_pack("{s:s,s:s,s:s,s:{s:s,s:s,s:s},s:{s:{s:s,s:o},s:o}}", "api_version", "v1", "kind",
                     "schedule", "name", "sched", "schedule", "cron", "* * * * *", "overlap", "queue",
                     "catch_up", "10m", "steps", "a", "uses", "sim@1", "with", with, "b", waits);
}

/* ---- what comes of it ---- */

static json_t *body_value(json_t *spec)
{
    char *text = output_of(spec);
    json_t *v = json_loads(text, 0, NULL);
    cox_free(text);
    json_decref(spec);
    return v;
}

static json_t *task_value(uint32_t number, json_t *x)
{
    json_t *a = json_null();
    if (number != 1) {
        json_t *v = body_value(template_spec(0, x));
        a = json_incref(json_object_get(v, "h"));
        json_decref(v);
    }
    return json_pack("{s:I,s:o}", "y", json_integer_value(x) + 1, "a", a);
}

json_t *scene_value(const struct scene *sc, uint32_t i, json_t *const *outputs, bool fallback,
                    uint32_t alternative, json_t *item, uint64_t index)
{
    const struct scene_step *st = &sc->steps[i];
    if (fallback)
        return body_value(spec_of(sc, i, true, 0, NULL, NULL, NULL));
    json_t *x = item != NULL ? json_incref(item) : json_integer(i), *at = json_integer((json_int_t)index),
           *v = NULL;
    switch (st->kind) {
    case SCENE_USES:
    case SCENE_AGAIN:
    case SCENE_RACE:
        if (st->race_waits && alternative + 1 == st->n)
            v = json_null();
        else
            v = body_value(
                spec_of(sc, i, false, alternative, item, at, st->reads >= 0 ? outputs[st->reads] : NULL));
        break;
    case SCENE_FOR:
        v = json_null();
        break;
    case SCENE_TASK:
        v = task_value(st->n, x);
        break;
    default:
        break;
    }
    json_decref(x);
    json_decref(at);
    return v;
}
