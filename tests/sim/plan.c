#include "plan.h"

#include "scene.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"

#include <stdio.h>
#include <string.h>

/* ---- drawing ---- */

static uint32_t below(struct cox_rng *rng, uint32_t bound)
{
    return (uint32_t)cox_rng_below(rng, bound);
}

static bool one_in(struct cox_rng *rng, uint32_t n)
{
    return below(rng, n) == 0;
}

static uint32_t draw_size(struct cox_rng *rng, uint32_t max)
{
    uint32_t n = 1 + below(rng, 12);
    if (one_in(rng, 4))
        n = 1 + below(rng, 60);
    if (one_in(rng, 12))
        n = 200 + below(rng, 201); /* more than a page */
    if (one_in(rng, 60))
        n = 900 + below(rng, 600); /* more than what is linked in a turn */
    return n < max ? n : max;
}

static uint32_t draw_ms(struct cox_rng *rng)
{
    if (one_in(rng, 40))
        return 10000 + below(rng, 60000);
    if (one_in(rng, 8))
        return 100 + below(rng, 4000);
    return below(rng, 60);
}

static void draw_call(struct plan_call *c, struct cox_rng *rng)
{
    c->ms = draw_ms(rng);
    c->flaky = one_in(rng, 4) ? 50 + below(rng, 700) : 0;
    c->broken = one_in(rng, 8) ? 50 + below(rng, 700) : 0;
    c->pad = one_in(rng, 12) ? 3000 + below(rng, 9000) : one_in(rng, 4) ? below(rng, 700) : 0;
    c->kills = one_in(rng, 300);
    c->fail_output = one_in(rng, 2);
    c->reads_inputs = one_in(rng, 10);
    c->handler = one_in(rng, 3) ? below(rng, HANDLERS) : 0;
    c->zone = one_in(rng, 8) ? (int)below(rng, 2 * ZONES) : -1;
    c->cpu_milli = one_in(rng, 4) ? 250 * (1 + below(rng, 8)) : 0;
    c->memory_mib = one_in(rng, 6) ? 100 * (1 + below(rng, 10)) : 0;
    c->timeout_ms = one_in(rng, 6) ? 500 + below(rng, 20000) : 0;
    c->max_attempts = 1 + below(rng, 5);
    c->backoff_ms = 1 + below(rng, one_in(rng, 5) ? 8000 : 300);
    c->backoff_max_ms = c->backoff_ms * (1 + below(rng, 8));
}

/* Decided without a draw: what older seeds drew stays as it was. */
static void may_call_model(struct plan_call *c)
{
    uint64_t h = cox_hash64(c->id, strlen(c->id)) ^ (c->ms * 2654435761ULL + c->backoff_ms);
    if (cox_hash64(&h, sizeof h) % 8 != 0)
        return;
    c->model = true;
    c->zone = -1;
    c->cpu_milli = c->memory_mib = 0;
}

static void add_ref(struct plan_call *c, struct cox_rng *rng, uint32_t step)
{
    if (c->n_refs == sizeof c->refs / sizeof c->refs[0])
        return;
    enum form form = (enum form)below(rng, FORM_NR);
    if (form == FORM_SUM && !one_in(rng, 3))
        form = FORM_H;
    c->refs[c->n_refs++] = (struct plan_ref){ step, form };
}

/* Makes step i depend on `on`: by `needs`, or by a reference in its input. */
static void depend(struct plan_step *st, struct cox_rng *rng, uint32_t on)
{
    if (one_in(rng, 2) && st->call.n_refs < 3)
        add_ref(&st->call, rng, on);
    else if (st->n_needs < sizeof st->needs / sizeof st->needs[0])
        st->needs[st->n_needs++] = on;
}

enum shape { SHAPE_LOOSE, SHAPE_CHAIN, SHAPE_FAN, SHAPE_LAYERS, SHAPE_RANDOM, SHAPE_NR };

static void draw_edges(struct plan *p, struct cox_rng *rng, enum shape shape, uint32_t i)
{
    struct plan_step *st = &p->steps[i];
    uint32_t width = 2 + i % 7;
    if (i == 0 || shape == SHAPE_LOOSE)
        return;
    switch (shape) {
    case SHAPE_CHAIN:
        depend(st, rng, i - 1);
        break;
    case SHAPE_FAN: /* 1 -> n -> 1 */
        if (i + 1 < p->n_steps)
            depend(st, rng, 0);
        for (uint32_t k = 0; i + 1 == p->n_steps && k < 8; k++)
            depend(st, rng, below(rng, i));
        break;
    case SHAPE_LAYERS:
        for (uint32_t k = 0; k < 2 && i >= width; k++)
            depend(st, rng, i - width + below(rng, width));
        break;
    default:
        for (uint32_t k = below(rng, 4); k > 0; k--)
            depend(st, rng, below(rng, i));
    }
}

static void draw_step(struct plan *p, struct cox_rng *rng, enum shape shape, uint32_t i)
{
    struct plan_step *st = &p->steps[i];
    snprintf(st->name, sizeof st->name, "s%u", i);
    draw_call(&st->call, rng);
    snprintf(st->call.id, sizeof st->call.id, "%s/%s", p->name, st->name);
    may_call_model(&st->call);
    draw_edges(p, rng, shape, i);
    if (i > 0 && one_in(rng, 5)) {
        st->cond = (enum cond)below(rng, COND_NR);
        st->cond_step = below(rng, i);
    }
    st->allow_failure = one_in(rng, 6);
    st->priority = one_in(rng, 10) ? (int)below(rng, 201) - 100 : 1000;
    st->has_fallback = one_in(rng, 6);
    if (!st->has_fallback)
        return;
    draw_call(&st->fallback, rng);
    st->fallback.reads_error = one_in(rng, 2);
    snprintf(st->fallback.id, sizeof st->fallback.id, "%s/%s/fallback", p->name, st->name);
    may_call_model(&st->fallback);
    for (uint32_t k = 0; k < st->call.n_refs; k++)
        if (one_in(rng, 2))
            add_ref(&st->fallback, rng, st->call.refs[k].step);
}

void plan_draw(struct plan *p, struct cox_rng *rng, uint32_t number, uint32_t n_steps_max)
{
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "j%u", number);
    p->n_steps = draw_size(rng, n_steps_max);
    p->steps = cox_calloc(p->n_steps, sizeof p->steps[0]);
    p->order = cox_calloc(p->n_steps, sizeof p->order[0]);
    enum shape shape = (enum shape)below(rng, SHAPE_NR);
    p->fail_fast = one_in(rng, 5);
    p->deadline_ms = one_in(rng, 10) ? 1000 + below(rng, 60000) : 0;
    p->priority = one_in(rng, 4) ? (int)below(rng, 201) - 100 : 0;
    p->input_pad = one_in(rng, 10) ? 5000 : below(rng, 30);
    bool shuffled = one_in(rng, 2);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        draw_step(p, rng, shape, i);
        uint32_t at = shuffled ? below(rng, i + 1) : i;
        p->order[i] = p->order[at];
        p->order[at] = i;
    }
    p->n_outputs = below(rng, 5);
    for (uint32_t i = 0; i < p->n_outputs; i++)
        p->outputs[i] = (struct plan_ref){ below(rng, p->n_steps), (enum form)below(rng, FORM_SUM) };
}

void plan_fini(struct plan *p)
{
    cox_free(p->steps);
    cox_free(p->order);
    cox_free(p->scene);
}

/* ---- the document ---- */

static json_t *ref_value(const struct plan *p, const struct plan_ref *r)
{
    static const char *const forms[FORM_NR] = {
        [FORM_H] = "${{ steps.%s.output.h }}",       [FORM_N] = "${{ steps.%s.output.n }}",
        [FORM_ALL] = "${{ steps.%s.output }}",       [FORM_TEXT] = "x ${{ steps.%s.output.n }} y",
        [FORM_SUM] = "${{ steps.%s.output.n + 1 }}",
    };
    char text[96];
    char *at = strstr(forms[r->form], "%s");
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - forms[r->form]), forms[r->form],
             p->steps[r->step].name, at + 2);
    return json_string(text);
}

static void put_requires(json_t *o, const struct plan_call *c)
{
    if (c->zone < 0)
        return;
    char text[32];
    snprintf(text, sizeof text, "zone %s z%d", c->zone < ZONES ? "==" : "!=", c->zone % ZONES);
    json_object_set_new(o, "requires", json_string(text));
}

static void put_millis(json_t *o, const char *key, uint32_t ms)
{
    char text[32];
    snprintf(text, sizeof text, "%ums", ms);
    json_object_set_new(o, key, json_string(text));
}

static json_t *call_input(const struct plan *p, const struct plan_call *c)
{
    json_t *with = json_pack("{s:s,s:i,s:i,s:i,s:i,s:b,s:b}", "id", c->id, "ms", (int)c->ms, "flaky",
                             (int)c->flaky, "broken", (int)c->broken, "pad", (int)c->pad, "kills",
                             (int)c->kills, "fail_output", (int)c->fail_output);
    for (uint32_t i = 0; i < c->n_refs; i++) {
        char key[16];
        snprintf(key, sizeof key, "r%u", i);
        json_object_set_new(with, key, ref_value(p, &c->refs[i]));
    }
    if (c->reads_inputs)
        json_object_set_new(with, "in", json_string("${{ inputs.text }}"));
    if (c->reads_error)
        json_object_set_new(with, "error", json_string("${{ error.code }}"));
    return with;
}

static void put_what(json_t *o, const struct plan *p, const struct plan_call *c)
{
    char text[32];
    if (c->model) {
        json_object_set_new(o, "model",
                            json_pack("{s:s,s:{s:o}}", "input", "x", "extra", "sim", call_input(p, c)));
        return;
    }
    snprintf(text, sizeof text, "sim@%u", c->handler + 1);
    json_object_set_new(o, "uses", json_string(text));
    json_object_set_new(o, "with", call_input(p, c));
}

static void put_call(json_t *o, const struct plan *p, const struct plan_call *c)
{
    char text[32];
    put_what(o, p, c);
    put_requires(o, c);
    json_t *res = json_object();
    if (c->cpu_milli > 0) {
        snprintf(text, sizeof text, "%um", c->cpu_milli);
        json_object_set_new(res, "cpu", json_string(text));
    }
    if (c->memory_mib > 0) {
        snprintf(text, sizeof text, "%uMi", c->memory_mib);
        json_object_set_new(res, "memory", json_string(text));
    }
    if (json_object_size(res) > 0)
        json_object_set(o, "resources", res);
    json_decref(res);
    if (c->timeout_ms > 0)
        put_millis(o, "timeout", c->timeout_ms);
    json_t *retry = json_pack("{s:i}", "max_attempts", (int)c->max_attempts);
    put_millis(retry, "initial_backoff", c->backoff_ms);
    put_millis(retry, "max_backoff", c->backoff_max_ms);
    json_object_set_new(o, "retry", retry);
}

static void put_condition(json_t *o, const struct plan *p, const struct plan_step *st)
{
    const char *on = p->steps[st->cond_step].name;
    char text[160];
    switch (st->cond) {
    case COND_ALWAYS:
        snprintf(text, sizeof text, "${{ always() }}");
        break;
    case COND_FAILURE:
        snprintf(text, sizeof text, "${{ failure() }}");
        break;
    case COND_SUCCESS:
        snprintf(text, sizeof text, "${{ success() }}");
        break;
    case COND_N:
        snprintf(text, sizeof text, "${{ steps.%s.output != null && steps.%s.output.n < 50 }}", on, on);
        break;
    case COND_ALL_LOW:
        snprintf(text, sizeof text, "${{ size(toJSON(steps.%s.output)) > 4 && steps.%s.output.n < 50 }}", on,
                 on);
        break;
    default:
        return;
    }
    json_object_set_new(o, "if", json_string(text));
}

static json_t *step_document(const struct plan *p, const struct plan_step *st)
{
    json_t *o = json_object();
    put_call(o, p, &st->call);
    put_condition(o, p, st);
    json_t *needs = json_array();
    for (uint32_t i = 0; i < st->n_needs; i++)
        json_array_append_new(needs, json_string(p->steps[st->needs[i]].name));
    json_object_set_new(o, "needs", needs);
    if (st->allow_failure)
        json_object_set_new(o, "allow_failure", json_true());
    if (st->priority != 1000)
        json_object_set_new(o, "priority", json_integer(st->priority));
    if (st->has_fallback) {
        json_t *fallback = json_object();
        put_call(fallback, p, &st->fallback);
        json_object_set_new(o, "fallback", fallback);
    }
    return o;
}

char *plan_input_text(const struct plan *p)
{
    char *text = cox_calloc(1, p->input_pad + 1);
    memset(text, 'i', p->input_pad);
    return text;
}

json_t *plan_document(const struct plan *p)
{
    if (p->scene != NULL)
        return scene_document(p->scene);
    char *input = plan_input_text(p);
    json_t *o = json_pack("{s:s,s:s,s:{s:{s:s,s:s}},s:i}", "api_version", "v1", "name", p->name, "inputs",
                          "text", "type", "string", "default", input, "priority", p->priority);
    cox_free(input);
    if (p->fail_fast)
        json_object_set_new(o, "fail_fast", json_true());
    if (p->deadline_ms > 0) {
        json_t *budget = json_object();
        put_millis(budget, "timeout", p->deadline_ms);
        json_object_set_new(o, "budget", budget);
    }
    json_t *steps = json_object();
    for (uint32_t i = 0; i < p->n_steps; i++)
        json_object_set_new(steps, p->steps[p->order[i]].name, step_document(p, &p->steps[p->order[i]]));
    json_object_set_new(o, "steps", steps);
    json_t *outputs = json_object();
    for (uint32_t i = 0; i < p->n_outputs; i++) {
        char key[16];
        snprintf(key, sizeof key, "o%u", i);
        json_object_set_new(outputs, key, ref_value(p, &p->outputs[i]));
    }
    json_object_set_new(o, "outputs", outputs);
    return o;
}

/* ---- bodies ---- */

static uint64_t mix(uint64_t x, uint64_t y)
{
    uint64_t parts[2] = { x, y };
    return cox_hash64(parts, sizeof parts);
}

static uint32_t number_of(const json_t *spec, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(spec, key));
}

static char *make_output(uint64_t h, uint32_t pad)
{
    char *out = cox_calloc(1, pad + 64);
    int n = snprintf(out, 64, "{\"h\":\"%016llx\",\"n\":%u,\"pad\":\"", (unsigned long long)h,
                     (unsigned)(h % 100));
    memset(out + n, 'p', pad);
    memcpy(out + n + pad, "\"}", 3);
    return out;
}

static uint64_t hash_of(const json_t *spec)
{
    char *text = json_dumps(spec, JSON_COMPACT | JSON_SORT_KEYS);
    uint64_t h = cox_hash64(text, strlen(text));
    free(text);
    return h;
}

char *output_of(const json_t *spec)
{
    uint32_t n = number_of(spec, "list");
    char *out = make_output(hash_of(spec), number_of(spec, "pad"));
    if (n == 0)
        return out;
    json_t *o = json_loads(out, 0, NULL), *list = json_array();
    cox_free(out);
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(i * 7));
    json_object_set_new(o, "list", list);
    char *text = json_dumps(o, JSON_COMPACT);
    out = cox_strdup(text);
    free(text);
    json_decref(o);
    return out;
}

bool asked_came_back(const json_t *spec, const json_t *continuation)
{
    static const char *const names[] = { "x", "y" };
    const json_t *asks = json_object_get(spec, "asks"), *steps = json_object_get(continuation, "steps");
    bool same = json_object_size(steps) == json_object_size(asks);
    for (size_t i = 0; i < 2; i++) {
        const json_t *step = json_object_get(steps, names[i]);
        const char *status = json_string_value(json_object_get(step, "status"));
        char *text = output_of(json_object_get(json_object_get(asks, names[i]), "with"));
        json_t *expected = json_loads(text, 0, NULL);
        if (status == NULL)
            same = false;
        else if (strcmp(status, "SUCCEEDED") == 0)
            same = same && json_equal(expected, json_object_get(step, "output"));
        json_decref(expected);
        cox_free(text);
    }
    return same;
}

/* What it asks for, as often as its spec says; its state counts. */
static char *ask_again(const json_t *spec, const json_t *continuation)
{
    json_int_t done = json_integer_value(json_object_get(json_object_get(continuation, "state"), "done"));
    if (done >= json_integer_value(json_object_get(spec, "again")))
        return NULL;
    json_t *o = json_pack("{s:O,s:{s:I,s:O}}", "steps", json_object_get(spec, "asks"), "state", "done",
                          done + 1, "spec", spec);
    char *text = json_dumps(o, JSON_COMPACT), *out = cox_strdup(text);
    free(text);
    json_decref(o);
    return out;
}

struct outcome outcome_of(const json_t *spec, const json_t *continuation, uint32_t attempt)
{
    static const enum cox_code passing[] = { COX_CODE_EXIT_NONZERO, COX_CODE_UNAVAILABLE };
    static const enum cox_code lasting[] = { COX_CODE_DENIED, COX_CODE_INTERNAL, COX_CODE_OUTPUT_INVALID };
    uint64_t h = hash_of(spec), r = mix(h, attempt);
    uint32_t die = (uint32_t)(mix(r, 1) % 1000), flaky = number_of(spec, "flaky");
    uint32_t ms = number_of(spec, "ms");
    struct outcome o = { .run_ms = ms / 2 + (int64_t)(mix(r, 2) % (ms + 1)) };
    o.kills = json_is_true(json_object_get(spec, "kills"));
    if (die < flaky)
        o.code = passing[mix(r, 3) % 2];
    else if (die < flaky + number_of(spec, "broken"))
        o.code = lasting[mix(r, 3) % 3];
    if (o.code == COX_CODE_NONE)
        o.continuation = ask_again(spec, continuation);
    if (o.continuation != NULL)
        return o;
    if (o.code == COX_CODE_NONE)
        o.output = output_of(spec);
    else if (json_is_true(json_object_get(spec, "fail_output")))
        o.output = make_output(r, number_of(spec, "pad") / 2);
    return o;
}

void outcome_fini(struct outcome *o)
{
    cox_free(o->output);
    cox_free(o->continuation);
    o->output = o->continuation = NULL;
}
