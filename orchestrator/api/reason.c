/* Why a step is not where it could be: one sentence for each reason, with the facts behind it. */
#include "internal.h"

#include "cox/base/units.h"
#include "cox/engine/agent.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 5 /* of steps in a reason */
#define REASON_LEN_MAX 512
#define SLICE(s) (int)(s).len, (const char *)(s).data

struct text {
    char *at;
    size_t len;
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    t->len += cox_api_vtext(t->at + t->len, REASON_LEN_MAX - t->len, fmt, args);
    va_end(args);
}

static void put_time(struct text *out, int64_t wall_ms)
{
    struct cox_buf time = { 0 };

    cox_put_time(&time, wall_ms);
    put(out, "%s", cox_buf_cstr(&time));
    cox_buf_fini(&time);
}

static void put_waits_for(struct text *out, const struct cox_engine *e, const struct cox_task *t,
                          const struct cox_image *img, uint32_t step)
{
    struct cox_image_step s;
    uint32_t n = 0;

    cox_image_step(img, step, &s);
    for (uint32_t i = 0; i < s.n_needs; i++) {
        struct cox_image_step need_doc;
        struct cox_step_view need;
        uint32_t index = cox_image_need(img, step, i);
        cox_step_view(e, t, index, &need);
        if (cox_step_status_final(need.status))
            continue;
        cox_image_step(img, index, &need_doc);
        if (n < NAMES_MAX)
            put(out, "%s%.*s", n ? ", " : "waits for ", SLICE(need_doc.name));
        n++;
    }
    if (n > NAMES_MAX)
        put(out, " and %u more", n - NAMES_MAX);
    else if (n == 0)
        put(out, "not looked at yet");
}

static bool step_class(const struct cox_image *img, uint32_t step, const struct cox_step_view *v,
                       struct cox_image_class *ret, uint32_t *ret_index)
{
    struct cox_image_step s;
    struct cox_image_call call;

    cox_image_step(img, step, &s);
    uint32_t index = v->in_fallback && s.fallback != COX_IMAGE_NONE ? s.fallback : s.call;

    if (index == COX_IMAGE_NONE)
        return false;
    cox_image_call(img, index, &call);
    if (call.class_index == COX_IMAGE_NONE)
        return false;
    *ret_index = call.class_index;
    cox_image_class(img, call.class_index, ret);
    return true;
}

static void put_requires(struct text *out, const struct cox_image *img, uint32_t index, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct cox_slice label, value;
        bool negated;
        cox_image_require(img, index, i, &label, &value, &negated);
        if (label.len > 8 && memcmp(label.data, "sandbox.", 8) == 0 && cox_slice_is(value, "yes") && !negated)
            put(out, "%sthe sandbox %.*s", i ? ", " : "", SLICE(cox_slice(label.data + 8, label.len - 8)));
        else
            put(out, "%s%.*s %s %.*s", i ? ", " : "", SLICE(label), negated ? "!=" : "==", SLICE(value));
    }
}

static void put_resources(struct text *out, const struct cox_resources *r)
{
    const char *comma = "";

    if (r->cpu_milli) {
        put(out, "cpu %lld.%03lld", (long long)r->cpu_milli / 1000, (long long)r->cpu_milli % 1000);
        comma = ", ";
    }
    if (r->memory_bytes) {
        put(out, "%smemory %lldMi", comma, (long long)(r->memory_bytes >> 20));
        comma = ", ";
    }
    if (r->disk_bytes)
        put(out, "%sdisk %lldMi", comma, (long long)(r->disk_bytes >> 20));
}

/* The first thing that rules all workers out; without facts, all that is asked for. */
static void put_no_worker(struct text *out, const struct cox_image *img, uint32_t step,
                          const struct cox_step_view *v, const struct cox_step_why *why)
{
    struct cox_image_class cls;
    uint32_t index;

    if (!step_class(img, step, v, &cls, &index))
        return;
    const struct cox_resources *r = &cls.resources;
    bool sized = r->cpu_milli || r->memory_bytes || r->disk_bytes;

    if (cox_slice_is(cls.handler, "model")) {
        put(out, "no model endpoint is configured");
    } else if (why && why->n_workers == 0) {
        put(out, "no worker is attached");
    } else if (why && why->n_offer == 0) {
        put(out, "no attached worker offers %.*s", SLICE(cls.handler));
    } else if (why && why->n_labels == 0) {
        put(out, "no attached worker that offers %.*s has ", SLICE(cls.handler));
        put_requires(out, img, index, cls.n_requires);
    } else {
        put(out, "no attached worker %s %.*s%s", why ? "that offers" : "offers", SLICE(cls.handler),
            cls.n_requires ? " where " : "");
        put_requires(out, img, index, cls.n_requires);
        put(out, "%s", !sized ? "" : why ? " has " : ", with ");
        put_resources(out, r);
    }
}

static void put_capacity(struct text *out, const struct cox_step_why *why)
{
    if (!why)
        put(out, "every worker that fits is busy");
    else if (why->n_fit > 0 && why->n_cordoned == why->n_fit)
        put(out, "every worker that fits is cordoned or draining (%u)", why->n_cordoned);
    else
        put(out, "every worker that fits is busy (%u)", why->n_fit - why->n_cordoned);
    if (why && why->n_ahead > 0)
        put(out, ", %u steps are before it", why->n_ahead);
}

static void put_affinity(struct text *out, const struct cox_step_why *why)
{
    if (!why)
        put(out, "the worker it must run on is away or busy");
    else if (why->n_workers == 0)
        put(out, "must run on %.*s, which is disconnected; waiting for it to come back", SLICE(why->worker));
    else if (why->n_fit == 0)
        put(out, "must run on %.*s, which does not fit it", SLICE(why->worker));
    else if (why->n_cordoned > 0)
        put(out, "must run on %.*s, which is cordoned or draining", SLICE(why->worker));
    else
        put(out, "must run on %.*s, which is busy", SLICE(why->worker));
}

static void put_concurrency(struct text *out, const struct cox_step_why *why)
{
    if (why)
        put(out, "concurrency \"%.*s\" has no room: %u of %u run, %u wait before it", SLICE(why->gate),
            why->gate_used, why->gate_limit, why->n_ahead);
    else
        put(out, "its `concurrency` has no room");
}

static void put_rate(struct text *out, const struct cox_step_view *v, const struct cox_step_why *why)
{
    if (why)
        put(out, "rate \"%.*s\": %u wait before it, the next may start at ", SLICE(why->gate), why->n_ahead);
    else
        put(out, "its `rate` lets the next start at ");
    put_time(out, v->ready_wall_ms);
}

static void put_version(struct text *out, const struct cox_step_why *why)
{
    if (why)
        put(out, "its task is pinned to %.*s in version %.*s, which no attached worker offers",
            SLICE(why->handler), SLICE(why->version));
    else
        put(out, "no attached worker offers the version that its task is pinned to");
}

/* False: it is no agent's. */
static bool put_agent(struct text *out, const struct cox_task *t, uint32_t step,
                      const struct cox_step_view *v)
{
    struct cox_agent_view a;

    if (!cox_agent_view(t, step, &a))
        return false;
    if (a.missing.len > 0)
        put(out, "%.*s", SLICE(a.missing));
    else if (a.asks_model)
        put(out, "turn %u: the model is asked", a.turn);
    else if (a.undecided && v->reason == COX_REASON_EXPANDING)
        put(out, "turn %u: the answer is being read", a.turn);
    else if (a.undecided)
        put(out, "turn %u: what it planned runs", a.turn);
    else if (a.n_calls > 0)
        put(out, "turn %u: %u of %u calls have returned", a.turn, a.n_calls - a.n_left, a.n_calls);
    else
        put(out, "turn %u is being prepared", a.turn);
    if (a.n_heard > 0)
        put(out, "; it hears %u word%s with the next", a.n_heard, a.n_heard == 1 ? "" : "s");
    return true;
}

static void put_waiting(struct text *out, const struct cox_task *t, uint32_t step,
                        const struct cox_step_view *v)
{
    bool own = v->reason == COX_REASON_CHILDREN || v->reason == COX_REASON_EXPANDING;

    if (own && put_agent(out, t, step, v))
        return;
    switch (v->reason) {
    case COX_REASON_TIMER:
        put(out, "waits until ");
        put_time(out, v->ready_wall_ms);
        break;
    case COX_REASON_SIGNAL:
        put(out, "waits for the signal %.*s", SLICE(v->waits_for));
        break;
    case COX_REASON_APPROVAL:
        put(out, "waits for an approval: %.*s", SLICE(v->waits_for));
        if (v->ready_wall_ms > 0) {
            put(out, " (expires ");
            put_time(out, v->ready_wall_ms);
            put(out, ")");
        }
        break;
    case COX_REASON_CHILDREN:
        put(out, "waits for steps of its own");
        break;
    case COX_REASON_EXPANDING:
        put(out, "its steps or values are being prepared");
        break;
    default:
        break;
    }
}

static void put_items(struct text *out, const struct cox_task *t, uint32_t step)
{
    struct cox_map_view m;

    if (!cox_map_view(t, step, &m)) {
        put(out, "its list is being made");
        return;
    }
    put(out, "%llu of %llu items have ended, %llu run, %llu failed",
        (unsigned long long)(m.n_succeeded + m.n_failed), (unsigned long long)m.n_items,
        (unsigned long long)m.n_running, (unsigned long long)m.n_failed);
}

/* A worker that could not give what a step needs says what that is, such as secrets: the step waits for one
 * that can. */
static void put_lack(struct text *out, const struct cox_step_view *v)
{
    const uint8_t *end = v->message.len > 0 ? memchr(v->message.data, '\n', v->message.len) : NULL;
    struct cox_slice words = v->message;

    if (end)
        words.len = (size_t)(end - v->message.data);
    if (v->code == COX_CODE_UNAVAILABLE && words.len > 0)
        put(out, ": %.*s", SLICE(words));
}

static void put_ready(struct text *out, const struct cox_image *img, uint32_t step,
                      const struct cox_step_view *v, const struct cox_step_why *why)
{
    switch (v->reason) {
    case COX_REASON_BACKOFF:
        put(out, "tries again at ");
        put_time(out, v->ready_wall_ms);
        if (v->code != COX_CODE_NONE)
            put(out, " after %s", cox_code_text(v->code));
        put_lack(out, v);
        break;
    case COX_REASON_NO_WORKER:
        put_no_worker(out, img, step, v, why);
        break;
    case COX_REASON_NO_CAPACITY:
        put_capacity(out, why);
        break;
    case COX_REASON_EVALUATING:
        put(out, "its input is being computed");
        break;
    case COX_REASON_PAUSED:
        put(out, "its task is paused");
        break;
    case COX_REASON_CONCURRENCY:
        put_concurrency(out, why);
        break;
    case COX_REASON_RATE:
        put_rate(out, v, why);
        break;
    case COX_REASON_AFFINITY:
        put_affinity(out, why);
        break;
    case COX_REASON_VERSION:
        put_version(out, why);
        break;
    case COX_REASON_BUDGET:
        put(out, "model calls under way have reserved what is left of the budget");
        break;
    default:
        break;
    }
}

char *cox_show_reason(struct cox_arena *a, const struct cox_engine *e, const struct cox_task *t,
                      const struct cox_image *img, uint32_t step, const struct cox_step_view *v,
                      const struct cox_step_why *why)
{
    struct text out = { NULL, 0 };

    if (v->reason == COX_REASON_NONE || !e)
        return (char *)(uintptr_t)protobuf_c_empty_string;
    out.at = cox_arena_alloc(a, REASON_LEN_MAX);
    out.at[0] = '\0';
    switch (v->reason) {
    case COX_REASON_DEPENDENCIES:
        put_waits_for(&out, e, t, img, step);
        break;
    case COX_REASON_WORKER_AWAY:
        put(&out, "its worker is disconnected; waiting for it to come back");
        break;
    case COX_REASON_CANCELLING:
        put(&out, "told to stop");
        break;
    case COX_REASON_ITEMS:
        put_items(&out, t, step);
        break;
    default:
        if (v->status == COX_STEP_WAITING)
            put_waiting(&out, t, step, v);
        else
            put_ready(&out, img, step, v, why);
        break;
    }
    return out.at;
}
