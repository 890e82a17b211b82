/* Explain: where a task or step is, why, what can be done about it, and the commands for that. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/engine/agent.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LINES_MAX 16
#define LINE_LEN_MAX 768
#define STEPS_SHOWN 5
#define SLICE(s) (int)(s).len, (const char *)(s).data

struct explanation {
    struct cox_arena *arena;
    Coxswain__V1__ExplainResponse *m;
    char id[COX_TASK_ID_TEXT_MAX]; /* of the root */
    const char *address;           /* of the step, within the task; NULL: the task */
    bool whole;                    /* may hear of what other tenants have, in numbers */
    bool quarantined;              /* the task: nothing can be asked of it until that is lifted */
};

static char *line(struct cox_arena *a, const char *fmt, va_list args)
{
    char text[LINE_LEN_MAX];
    size_t len = cox_api_vtext(text, sizeof(text), fmt, args);

    return cox_show_text(a, cox_slice(text, len));
}

static void add(struct explanation *x, char ***lines, size_t *n, char *text)
{
    if (!*lines)
        *lines = cox_arena_alloc(x->arena, LINES_MAX * sizeof(**lines));
    for (size_t i = 0; i < *n; i++)
        if (strcmp((*lines)[i], text) == 0)
            return;
    if (*n < LINES_MAX)
        (*lines)[(*n)++] = text;
}

#define SAYS(name)                                                                                           \
    static void name(struct explanation *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));     \
    static void name(struct explanation *x, const char *fmt, ...)

SAYS(summary)
{
    va_list args;

    va_start(args, fmt);
    x->m->summary = line(x->arena, fmt, args);
    va_end(args);
}

SAYS(detail)
{
    va_list args;

    va_start(args, fmt);
    add(x, &x->m->details, &x->m->n_details, line(x->arena, fmt, args));
    va_end(args);
}

SAYS(command)
{
    va_list args;

    va_start(args, fmt);
    add(x, &x->m->next_commands, &x->m->n_next_commands, line(x->arena, fmt, args));
    va_end(args);
}

static char *step_address(struct explanation *x, const struct cox_task *t, uint32_t step)
{
    struct cox_buf text = { 0 };

    cox_step_address(&text, t, step);
    char *kept = cox_show_text(x->arena, cox_buf_slice(&text));
    cox_buf_fini(&text);
    return kept;
}

static char *time_text(struct explanation *x, int64_t wall_ms)
{
    struct cox_buf text = { 0 };

    cox_put_time(&text, wall_ms);
    char *kept = cox_show_text(x->arena, cox_buf_slice(&text));
    cox_buf_fini(&text);
    return kept;
}

static const char *reason(struct explanation *x, const struct cox_engine *e, const struct cox_task *t,
                          uint32_t step, const struct cox_step_view *v)
{
    struct cox_task_view task;
    struct cox_step_why why;
    bool facts = e && v->status == COX_STEP_READY;

    cox_task_view(t, &task);
    if (facts)
        cox_step_why(e, t, step, &why);
    if (facts && v->reason == COX_REASON_NO_CAPACITY && !x->whole && !COX_PLANTED("others-counted"))
        why.n_ahead = 0; /* of the queue of all tenants; gates are those of one */
    return cox_show_reason(x->arena, e, t, task.image, step, v, facts ? &why : NULL);
}

/* ---- what to do about a reason ---- */

static void advise_worker(struct explanation *x, const struct cox_step_why *why)
{
    if (cox_slice_is(why->handler, "model")) {
        detail(x, "model calls are the orchestrator's own, and it knows no model");
        detail(x, "start it with --model NAME=URL, or with `models` in its file; the URL is that of an "
                  "OpenAI-compatible server, up to /v1");
        command(x, "cox model list");
        return;
    }
    detail(
        x,
        "%u workers are attached; %u offer %.*s, %u of these have the labels, %u of these are large enough",
        why->n_workers, why->n_offer, SLICE(why->handler), why->n_labels, why->n_fit);
    if (why->n_workers == 0)
        detail(x, "start a worker: cox-worker --orchestrator ADDRESS");
    else if (why->n_offer == 0)
        detail(x, "start a worker that offers it: an executable of that name in its --handler-dir; "
                  "one that a worker left out is named in its log, with the reason");
    else if (why->n_labels == 0)
        detail(x, "start a worker with the labels that `requires` names (cox-worker --label k=v); "
                  "of a `sandbox`, cox worker describe says what a host gives and why not");
    else
        detail(x, "start a larger worker (cox-worker --resources cpu=N,memory=NGi), or ask for less");
    command(x, "cox worker list -o wide");
    command(x, "cox task cancel %s", x->id);
}

static void advise_capacity(struct explanation *x, const struct cox_step_why *why)
{
    detail(x, "%u workers fit, %u of them are cordoned or draining, %u have room", why->n_fit,
           why->n_cordoned, why->n_free);
    if (x->whole)
        detail(x, "at least %u steps are before it", why->n_ahead);
    if (why->n_cordoned > 0)
        detail(x, "lift a cordon, or wait for the others");
    else
        detail(x, "it runs as soon as one of them has room; more workers or slots make that sooner");
    command(x, "cox worker list");
}

static void advise_ready(struct explanation *x, const struct cox_step_view *v, const struct cox_step_why *why)
{
    switch (v->reason) {
    case COX_REASON_NO_WORKER:
        advise_worker(x, why);
        break;
    case COX_REASON_NO_CAPACITY:
        advise_capacity(x, why);
        break;
    case COX_REASON_BACKOFF:
        detail(x, "`retry` in the document says how long it waits; nothing needs to be done");
        if (v->message.len > 0)
            detail(x, "the last attempt: %.*s", SLICE(v->message));
        if (v->code == COX_CODE_UNAVAILABLE)
            detail(x, "another worker may have what that one lacks; secrets are given to workers, by "
                      "--secrets-dir or `secrets` in their files");
        command(x, "cox task logs %s %s", x->id, x->address);
        break;
    case COX_REASON_EVALUATING:
        detail(x, "large values are fetched and put together; a few steps at a time");
        break;
    case COX_REASON_PAUSED:
        detail(x, "running attempts finish, nothing new starts until the task is resumed");
        command(x, "cox task resume %s", x->id);
        break;
    case COX_REASON_CONCURRENCY:
        detail(
            x,
            "steps with this key, of all tasks of the tenant, run at most %u at once; %u hold a permit now",
            why->gate_limit, why->gate_used);
        detail(x, "it goes on when one of them ends; by priority, then in order of arrival");
        command(x, "cox task list");
        break;
    case COX_REASON_RATE:
        detail(x, "steps with this key, of all tasks of the tenant, start one after the other at the rate "
                  "asked for");
        break;
    case COX_REASON_BUDGET:
        detail(x, "a call reserves what it may use at most, and gives back what it did not use: it begins as "
                  "one of them ends");
        detail(x, "the smaller a call's `max_tokens`, the more of them go at once");
        break;
    case COX_REASON_AFFINITY:
        detail(x, "`affinity` ties it to the worker that ran the step it names, or has its files");
        detail(x, "should that worker be lost or drained, others run it, with the files that were saved");
        command(x, "cox worker describe %.*s", SLICE(why->worker));
        break;
    case COX_REASON_VERSION:
        detail(x, "a task stays with the version it began with; %u workers offer %.*s in others",
               why->n_offer, SLICE(why->handler));
        detail(x, "start a worker with version %.*s, or cancel the task and submit it again",
               SLICE(why->version));
        command(x, "cox worker list -o wide");
        command(x, "cox task cancel %s", x->id);
        break;
    default:
        break;
    }
}

/* What of it is under way, and what answers those that wait for a person. */
static void explain_agent(struct explanation *x, const struct cox_engine *e, const struct cox_task *t,
                          uint32_t step)
{
    struct cox_task_view own, v;
    struct cox_step_view of;
    const void *it = NULL;
    const struct cox_task *frame;

    cox_task_view(t, &own);
    const struct cox_task *root = cox_engine_find(e, own.root);

    while (root && (frame = cox_engine_next_frame(e, root, &it))) {
        cox_task_view(frame, &v);
        if (v.parent != own.id || v.parent_step != step || cox_task_status_final(v.status))
            continue;
        uint32_t first = cox_task_next_step(frame, 0);
        char *address = step_address(x, frame, first);

        cox_step_view(e, frame, first, &of);
        const char *text = reason(x, e, frame, first, &of);

        detail(x, "%s is %s%s%s", address, cox_step_status_text(of.status), *text ? ": " : "", text);
        if (of.reason == COX_REASON_APPROVAL) {
            command(x, "cox task approve %s %s --comment TEXT", x->id, address);
            command(x, "cox task reject %s %s --comment TEXT", x->id, address);
        } else {
            command(x, "cox explain %s/%s", x->id, address);
        }
    }
}

/* False: it is none, or has not begun. */
static bool advise_agent(struct explanation *x, const struct cox_engine *e, const struct cox_task *t,
                         uint32_t step)
{
    struct cox_agent_view a;

    if (!cox_agent_view(t, step, &a))
        return false;
    if (a.missing.len > 0) {
        detail(x, "it goes on when a worker attaches that offers it: an executable of that name in its "
                  "--handler-dir");
        command(x, "cox worker list -o wide");
    }
    explain_agent(x, e, t, step);
    command(x, "cox task message %s %s TEXT", x->id, x->address);
    return true;
}

static void advise(struct explanation *x, const struct cox_engine *e, const struct cox_task *t, uint32_t step,
                   const struct cox_step_view *v)
{
    struct cox_step_why why;

    switch (v->reason) {
    case COX_REASON_WORKER_AWAY:
        detail(x, "if it does not come back in time, the step goes to another worker");
        command(x, "cox worker list");
        break;
    case COX_REASON_CANCELLING:
        detail(
            x,
            "its worker has been told to stop it; if it does not confirm, it counts as cancelled after 30 s");
        break;
    case COX_REASON_TIMER:
        detail(x, "nothing needs to be done");
        break;
    case COX_REASON_SIGNAL:
        detail(x, "it goes on when the task gets this signal");
        command(x, "cox task signal %s %.*s", x->id, SLICE(v->waits_for));
        break;
    case COX_REASON_APPROVAL:
        detail(x, "somebody has to say yes or no");
        command(x, "cox task approve %s %s", x->id, x->address);
        command(x, "cox task reject %s %s", x->id, x->address);
        break;
    case COX_REASON_EXPANDING:
        (void)advise_agent(x, e, t, step);
        break;
    case COX_REASON_CHILDREN:
    case COX_REASON_ITEMS:
        if (advise_agent(x, e, t, step))
            break;
        detail(x, "its own steps are shown with the task");
        command(x, "cox task describe %s", x->id);
        break;
    case COX_REASON_DEPENDENCIES:
        detail(x, "it is looked at when all of them have ended");
        break;
    default:
        if (v->status != COX_STEP_READY)
            break;
        cox_step_why(e, t, step, &why);
        advise_ready(x, v, &why);
        break;
    }
}

/* ---- steps ---- */

static void explain_attempt(struct explanation *x, const struct cox_engine *e, const struct cox_task *t,
                            uint32_t step, uint32_t i)
{
    struct cox_attempt_view a;

    cox_attempt_view(e, t, step, i, &a);
    detail(x, "attempt %u%s%.*s: %s%s%s%s%.*s", a.number, a.worker_id.len > 0 ? " on " : "",
           SLICE(a.worker_id), cox_attempt_status_text(a.status), a.code != COX_CODE_NONE ? " " : "",
           cox_code_text(a.code), a.message.len > 0 ? ": " : "", SLICE(a.message));
}

static void explain_skip(struct explanation *x, const struct cox_task *t, const struct cox_image *img,
                         uint32_t step)
{
    struct cox_image_step s;

    cox_image_step(img, step, &s);
    for (uint32_t i = 0; i < s.n_needs; i++) {
        struct cox_step_view need;
        uint32_t index = cox_image_need(img, step, i);
        cox_step_view(NULL, t, index, &need);
        if (need.status != COX_STEP_SUCCEEDED)
            detail(x, "it needs %s, which is %s", step_address(x, t, index),
                   cox_step_status_text(need.status));
    }
    if (s.condition != COX_IMAGE_NONE)
        detail(x, "its `if` was false");
}

static void suggest_again(struct explanation *x)
{
    if (!x->quarantined) {
        command(x, "cox task retry %s", x->id);
        return;
    }
    detail(x,
           "it can be lifted while coxd is stopped, for a version that can read it; until then it can only "
           "be read, or deleted");
    command(x, "cox admin lift %s --data-dir DIR", x->id);
    command(x, "cox task delete %s", x->id);
}

static void explain_final(struct explanation *x, const struct cox_engine *e, const struct cox_task *t,
                          const struct cox_image *img, uint32_t step, const struct cox_step_view *v)
{
    switch (v->status) {
    case COX_STEP_SUCCEEDED:
        summary(x, "step %s SUCCEEDED%s", x->address, v->via_fallback ? " by its fallback" : "");
        command(x, "cox task output %s %s", x->id, x->address);
        break;
    case COX_STEP_FAILED:
        summary(x, "step %s FAILED with %s: %.*s", x->address, cox_code_text(v->code), SLICE(v->message));
        command(x, "cox task logs %s %s", x->id, x->address);
        suggest_again(x);
        break;
    case COX_STEP_SKIPPED:
        summary(x, "step %s was SKIPPED", x->address);
        explain_skip(x, t, img, step);
        break;
    default:
        summary(x, "step %s was CANCELLED%s%.*s", x->address, v->message.len > 0 ? ": " : "",
                SLICE(v->message));
        suggest_again(x);
        break;
    }
    for (uint32_t i = v->n_attempts > 3 ? v->n_attempts - 3 : 0; i < v->n_attempts; i++)
        explain_attempt(x, e, t, step, i);
}

/* `asked`: the address, where the frame does not know its own; empty: it does. */
static void explain_step(struct explanation *x, const struct cox_engine *e, const struct cox_task *t,
                         uint32_t step, struct cox_slice asked)
{
    struct cox_task_view task;
    struct cox_step_view v;

    cox_task_view(t, &task);
    cox_step_view(e, t, step, &v);
    x->address = asked.len > 0 ? cox_show_text(x->arena, asked) : step_address(x, t, step);
    if (cox_step_status_final(v.status)) {
        explain_final(x, e, t, task.image, step, &v);
        return;
    }
    const char *text = reason(x, e, t, step, &v);

    summary(x, "step %s is %s%s%s", x->address, cox_step_status_text(v.status), *text ? ": " : "", text);
    if (x->quarantined)
        suggest_again(x);
    else
        advise(x, e, t, step, &v);
    if (v.status == COX_STEP_RUNNING && v.n_attempts > 0) {
        explain_attempt(x, e, t, step, v.n_attempts - 1);
        command(x, "cox task logs %s %s -f", x->id, x->address);
    }
}

/* ---- tasks ---- */

/* The steps that hold a live task, those that nothing moves first. */
static void explain_holders(struct explanation *x, const struct cox_engine *e, const struct cox_task *t)
{
    static const enum cox_step_status order[] = { COX_STEP_READY, COX_STEP_WAITING, COX_STEP_RUNNING };
    uint32_t n = 0;

    for (size_t k = 0; k < sizeof(order) / sizeof(order[0]); k++) {
        for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE && n < STEPS_SHOWN;
             i = cox_task_next_step(t, i + 1)) {
            struct cox_step_view v;
            cox_step_view(e, t, i, &v);
            if (v.status != order[k])
                continue;
            const char *text = reason(x, e, t, i, &v);
            detail(x, "%s is %s%s%s", step_address(x, t, i), cox_step_status_text(v.status),
                   *text ? ": " : "", text);
            command(x, "cox explain %s/%s", x->id, step_address(x, t, i));
            n++;
        }
    }
}

static void explain_counts(struct explanation *x, const struct cox_task_view *v)
{
    uint32_t total = 0, ended = 0;

    for (int i = 1; i < COX_STEP_STATUS_NR; i++) {
        total += v->n_steps_by_status[i];
        ended += cox_step_status_final((enum cox_step_status)i) ? v->n_steps_by_status[i] : 0;
    }
    summary(x, "task %s is %s: %u of %u steps have ended, %u run, %u are ready, %u wait", x->id,
            cox_task_status_text(v->status), ended, total, v->n_steps_by_status[COX_STEP_RUNNING],
            v->n_steps_by_status[COX_STEP_READY], v->n_steps_by_status[COX_STEP_WAITING]);
}

static void explain_failed(struct explanation *x, const struct cox_task *t, const struct cox_task_view *v)
{
    summary(x, "task %s FAILED with %s: %.*s", x->id, cox_code_text(v->code), SLICE(v->message));
    if (v->error_step == COX_IMAGE_NONE)
        return;
    char *step = step_address(x, t, v->error_step);

    detail(x, "the first step that failed was %s", step);
    command(x, "cox explain %s/%s", x->id, step);
    command(x, "cox task logs %s %s", x->id, step);
}

static void explain_task(struct explanation *x, const struct cox_engine *e, const struct cox_task *t)
{
    struct cox_task_view v;

    cox_task_view(t, &v);
    switch (v.status) {
    case COX_TASK_SUCCEEDED:
        summary(x, "task %s SUCCEEDED at %s", x->id, time_text(x, v.finished_wall_ms));
        command(x, "cox task output %s", x->id);
        break;
    case COX_TASK_FAILED:
        explain_failed(x, t, &v);
        suggest_again(x);
        break;
    case COX_TASK_CANCELLED:
        summary(x, "task %s was CANCELLED: %.*s", x->id, SLICE(v.message));
        suggest_again(x);
        break;
    case COX_TASK_PAUSED:
        explain_counts(x, &v);
        detail(x, "it is paused: running attempts finish, nothing new starts");
        command(x, "cox task resume %s", x->id);
        break;
    default:
        explain_counts(x, &v);
        explain_holders(x, e, t);
        command(x, "cox task describe %s", x->id);
        break;
    }
}

static bool has_item(const struct cox_task *t, uint32_t step, uint64_t item)
{
    struct cox_map_view m;

    return item == UINT64_MAX || !cox_map_view(t, step, &m) || item < m.n_items;
}

static void build_explanation(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t)
{
    struct explanation x = { .arena = &r->arena,
                             .m = cox_arena_alloc(&r->arena, sizeof(*x.m)),
                             .whole = r->op.whole };
    uint64_t item;
    uint32_t step;

    coxswain__v1__explain_response__init(x.m);
    cox_task_id_format(r->task, x.id);
    x.quarantined = cox_engine_is_quarantined(cox_driver_engine(r->op.api->driver), r->task);
    r->message = &x.m->base;
    if (r->step_name.len == 0 && r->shown_name.len == 0) {
        explain_task(&x, e, t);
        return;
    }
    const struct cox_task *root = t;

    t = cox_engine_find_step(e, root, r->step_name, &step, &item);
    if (!t && cox_reading_ended(r, e, root))
        return;
    if (t && has_item(t, step, item)) {
        explain_step(&x, e, t, step, r->shown_name);
        if (item != UINT64_MAX) {
            detail(&x, "of single items only those that failed are told apart: the step's errors list them");
            command(&x, "cox task describe %s %s", x.id, x.address);
        }
    } else {
        cox_reading_fail(r, COX_RPC_NOT_FOUND, "NO_STEP", "task %s has no step \"%.*s\"", x.id,
                         SLICE(r->shown_name.len > 0 ? r->shown_name : r->step_name));
    }
}

void cox_api_explain(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ExplainRequest *m = (const Coxswain__V1__ExplainRequest *)message;
    struct cox_reading *r = cox_reading_create(user, call, m->id);

    if (!r)
        return;
    struct cox_slice name = cox_slice_str(m->step);

    r->step_name = cox_slice(cox_show_text(&r->arena, name), name.len);
    r->build = build_explanation;
    cox_reading_start(r);
}
