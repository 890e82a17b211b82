#include "trace_state.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "trace_kept.h"
#include "trace_quarantine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct cox_now now(const struct trace *t)
{
    return (struct cox_now){ t->mono_ms * 1000000, START_WALL_MS + t->mono_ms - t->wall_back_ms };
}

void say(struct trace *t, const char *fmt, ...)
{
    va_list ap;
    char text[1024];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert_true(t->n_lines < LINES_MAX);
    t->lines[t->n_lines++] = cox_strdup(text);
}

const char *party(const struct trace *t, uint32_t session)
{
    for (size_t i = 0; i < t->n_parties; i++)
        if (t->parties[i].session == session)
            return t->parties[i].id;
    return "nobody";
}

uint32_t session_of(const struct trace *t, const char *id)
{
    for (size_t i = t->n_parties; i > 0; i--)
        if (strcmp(t->parties[i - 1].id, id) == 0)
            return t->parties[i - 1].session;
    return 0;
}

const char *step_name(struct trace *t, cox_task_id task, uint32_t step)
{
    static char names[4][96];
    static int next;
    char *text = names[next++ % 4];
    const struct cox_task *live = cox_engine_find(t->engine, task);
    unsigned no = (unsigned)(task & 0xffffffff);
    if (live == NULL) {
        snprintf(text, sizeof names[0], "%u/%u", no, step);
        return text;
    }
    struct cox_task_view view;
    struct cox_image_step doc;
    cox_task_view(live, &view);
    cox_image_step(view.image, step, &doc);
    if (trace_is_agents(live)) { /* by what people know it */
        struct cox_buf address = { 0 };
        cox_step_address(&address, live, step);
        snprintf(text, sizeof names[0], "%s", cox_buf_cstr(&address));
        cox_buf_fini(&address);
    } else if (no == 1)
        snprintf(text, sizeof names[0], "%.*s", (int)doc.name.len, (const char *)doc.name.data);
    else
        snprintf(text, sizeof names[0], "%u/%.*s", no, (int)doc.name.len, (const char *)doc.name.data);
    return text;
}

/* ---- what the engine sent ---- */

static void say_reply(struct trace *t, const struct cox_act_reply *r)
{
    char id[COX_TASK_ID_TEXT_MAX] = "-";
    if (r->task != 0)
        cox_task_id_format(r->task, id);
    if (r->err != COX_OK)
        say(t, "reply %s%s%s", cox_err_text(r->err), r->message != NULL ? ": " : "",
            r->message != NULL ? r->message : "");
    else
        say(t, "reply ok %s%s", id, r->existed ? " (known)" : "");
}

static void keep_evaluation(struct trace *t, const struct cox_act_evaluate *x)
{
    assert_true(t->n_evals < EVALUATIONS_MAX);
    struct open_evaluation *o = &t->evals[t->n_evals++];
    memset(o, 0, sizeof *o);
    o->act = *x;
    o->act.item_json =
        cox_slice(cox_strndup((const char *)x->item_json.data, x->item_json.len), x->item_json.len);
    cox_buf_append_slice(&o->image, x->image);
    o->steps = cox_calloc(x->n_steps + 1, sizeof o->steps[0]);
    for (size_t i = 0; i < x->n_steps; i++) {
        o->steps[i] = x->steps[i];
        o->steps[i].message =
            cox_slice_str(cox_strndup((const char *)x->steps[i].message.data, x->steps[i].message.len));
        struct cox_payload *values[] = { &o->steps[i].output, &o->steps[i].errors, &o->steps[i].artifacts };
        for (size_t k = 0; k < 3; k++)
            values[k]->bytes.data =
                (const uint8_t *)cox_strndup((const char *)values[k]->bytes.data, values[k]->bytes.len);
    }
}

void keep_entity(struct trace *t, const struct cox_action *a)
{
    for (size_t i = 0; i < t->n_saved; i++) {
        struct saved *s = &t->saved[i];
        if (s->key.kind == a->u.save.key.kind && s->key.id == a->u.save.key.id &&
            s->key.sub == a->u.save.key.sub) {
            cox_buf_fini(&s->bytes);
            t->saved[i] = t->saved[--t->n_saved];
            break;
        }
    }
    if (a->kind == COX_ACT_FORGET)
        return;
    t->saved = cox_realloc(t->saved, t->n_saved + 1, sizeof t->saved[0]);
    struct saved *s = &t->saved[t->n_saved++];
    memset(s, 0, sizeof *s);
    s->key = a->u.save.key;
    s->applied_seq = a->u.save.applied_seq;
    cox_buf_append_slice(&s->bytes, a->u.save.bytes);
}

void keep_bytes(struct trace *t, const struct cox_hash *name, struct cox_slice bytes)
{
    struct cox_slice hash = cox_slice(name->b, sizeof name->b);
    struct cox_buf *b = COX_NEW(struct cox_buf);
    cox_buf_append_slice(b, bytes);
    struct cox_buf *old = cox_mapb_set(&t->payloads, hash, b);
    if (old != NULL)
        cox_buf_fini(old);
    cox_free(old);
}

static void own(struct trace *t, cox_task_id root, struct cox_hash hash, struct cox_slice tenant)
{
    t->owned = cox_realloc(t->owned, t->n_owned + 1, sizeof t->owned[0]);
    struct owned *o = &t->owned[t->n_owned++];
    *o = (struct owned){ .root = root, .hash = hash };
    snprintf(o->tenant, sizeof o->tenant, "%.*s", (int)tenant.len, (const char *)tenant.data);
}

bool all_owned_in(const struct trace *t, const char *tenant)
{
    for (size_t i = 0; i < t->n_owned; i++)
        if (strcmp(t->owned[i].tenant, tenant) != 0)
            return false;
    return t->n_owned > 0;
}

bool owns(const struct trace *t, uint32_t task_no, struct cox_hash hash)
{
    for (size_t i = 0; i < t->n_owned; i++)
        if (t->owned[i].root == task_no && memcmp(&t->owned[i].hash, &hash, sizeof hash) == 0)
            return true;
    return false;
}

void state_forgets_owners(struct trace *t)
{
    t->n_owned = 0;
}

static void keep_payload(struct trace *t, const struct cox_action *a)
{
    for (size_t i = 0, n = t->n_owned; a->u.payload.from != 0 && i < n; i++)
        if (t->owned[i].root == a->u.payload.from)
            own(t, a->u.payload.root, t->owned[i].hash, cox_slice_str(t->owned[i].tenant));
    if (a->u.payload.from != 0)
        return;
    own(t, a->u.payload.root, a->u.payload.hash, a->u.payload.tenant);
    if (a->u.payload.bytes.len > 0)
        keep_bytes(t, &a->u.payload.hash, a->u.payload.bytes);
    else /* a blob: only its owner is noted */
        assert_non_null(
            cox_mapb_get(&t->payloads, cox_slice(a->u.payload.hash.b, sizeof a->u.payload.hash.b)));
}

static void keep_batch(struct trace *t, const struct cox_act_assign *a)
{
    assert_true(t->n_batches < BATCHES_MAX);
    for (size_t i = 0; i < a->n_items; i++)
        assert_int_equal(a->items[i].index, a->items[0].index + i);
    t->batches[t->n_batches++] = (struct batch){ a->ref, a->items[0].index, (uint32_t)a->n_items, false };
}

struct cox_call_hint last_hint(const struct trace *t)
{
    return t->last_hint;
}

static const char *usage_text(struct cox_usage u)
{
    static char text[160];
    int n = snprintf(text, sizeof text, "%u calls, %u+%u tokens, %u wasted", (unsigned)u.model_calls,
                     (unsigned)u.input_tokens, (unsigned)u.output_tokens, (unsigned)u.wasted_tokens);
    if (u.cost_micros > 0)
        snprintf(text + n, sizeof text - (size_t)n, ", %u %s", (unsigned)u.cost_micros, u.currency);
    return text;
}

const char *usage_of(struct trace *t, uint32_t task_no)
{
    return usage_text(view_of(t, task_no).usage);
}

const char *archived_usage_of(struct trace *t, uint32_t task_no)
{
    struct cox_task *archived;
    struct cox_task_view v;
    assert_int_equal(cox_task_thaw(archive_of(t, task_no), &archived), COX_OK);
    cox_task_view(archived, &v);
    const char *text = usage_text(v.usage);
    cox_task_free(archived);
    return text;
}

static void say_assign(struct trace *t, const struct cox_act_assign *a)
{
    const char *step = step_name(t, a->ref.task, a->ref.step), *to = party(t, a->session);
    cox_buf_clear(&t->last_continuation);
    cox_buf_append_slice(&t->last_continuation, a->continuation);
    t->last_hint = a->hint;
    cox_buf_clear(&t->last_spec);
    cox_buf_append_slice(&t->last_spec, a->spec_json);
    if (a->n_items == 0) {
        char home[32] = "", from[16] = "";
        if (a->home.number > 1)
            snprintf(home, sizeof home, " home %u", a->home.number);
        if (a->home.has_snapshot)
            snprintf(from, sizeof from, " from %c", a->home.snapshot.b[0]);
        say(t, "assign %s#%u to %s%s%s%.*s%s%s%s%.*s%s", step, a->attempt, to,
            a->fallback ? " (fallback)" : "", a->workspace.len > 0 ? " in " : "", (int)a->workspace.len,
            (const char *)a->workspace.data, home, from, a->version.len > 0 ? " version " : "",
            (int)a->version.len, (const char *)a->version.data, a->bundle.len > 0 ? " with a bundle" : "");
        return;
    }
    keep_batch(t, a);
    if (a->n_items == 1)
        say(t, "assign %s[%u]#%u to %s: %.*s", step, a->items[0].index, a->attempt, to,
            (int)a->items[0].spec_json.len, (const char *)a->items[0].spec_json.data);
    else
        say(t, "assign %s[%u..%u]#%u to %s", step, a->items[0].index,
            a->items[0].index + (uint32_t)a->n_items - 1, a->attempt, to);
}

static void keep_compose(struct trace *t, const struct cox_act_compose *x)
{
    assert_true(t->n_composes < ASKED_MAX);
    struct asked *c = &t->composes[t->n_composes++];
    *c = (struct asked){ .ticket = x->ticket, .n_parts = x->n_parts };
    c->parts = cox_calloc(x->n_parts, sizeof c->parts[0]);
    memcpy(c->parts, x->parts, x->n_parts * sizeof c->parts[0]);
    say(t, "compose %zu parts", x->n_parts);
}

static void keep_fetch(struct trace *t, uint64_t ticket, struct cox_hash hash)
{
    assert_true(t->n_fetches < ASKED_MAX);
    t->fetches[t->n_fetches++] = (struct asked){ .ticket = ticket, .hash = hash };
    say(t, "fetch");
}

static void keep_other(struct trace *t, const struct cox_action *a)
{
    const struct cox_act_index *x = &a->u.index;
    if (a->kind == COX_ACT_COMPOSE)
        keep_compose(t, &a->u.compose);
    else if (a->kind == COX_ACT_FETCH)
        keep_fetch(t, a->u.fetch.ticket, a->u.fetch.hash);
    trace_keep_aside(t, a);
    trace_keep_turn(t, a);
    if (a->kind != COX_ACT_INDEX)
        return;
    cox_buf_printf(&t->listed, "%u %s %.*s %.*s", (uint32_t)x->task,
                   cox_task_status_final(x->status) ? "ended" : "live", (int)x->name.len,
                   (const char *)x->name.data, (int)x->tenant.len, (const char *)x->tenant.data);
    for (size_t i = 0; i < x->n_labels; i++)
        cox_buf_printf(&t->listed, " %.*s=%.*s", (int)x->labels[i].name.len,
                       (const char *)x->labels[i].name.data, (int)x->labels[i].value.len,
                       (const char *)x->labels[i].value.data);
    cox_put_u8(&t->listed, '\n');
}

const char *listed(struct trace *t)
{
    return cox_buf_cstr(&t->listed);
}

static void keep_compile(struct trace *t, const struct cox_act_compile *c)
{
    assert_true(t->n_compiles - t->n_done_compiles < COMPILES_MAX);
    struct open_compile *o = &t->compiles[t->n_compiles++ % COMPILES_MAX];
    o->ticket = c->ticket;
    o->kind = c->kind;
    cox_buf_clear(&o->document);
    cox_buf_clear(&o->inputs);
    cox_buf_append_slice(&o->document, c->document.bytes);
    cox_buf_append_slice(&o->inputs, c->inputs_json);
    cox_buf_clear(&o->allow);
    cox_buf_append_slice(&o->allow, c->allow_json);
    say(t, "compile %s with %.*s",
        c->kind == COX_SOURCE_TEMPLATE ? "template"
        : c->kind == COX_SOURCE_PLAN   ? "plan"
                                       : "steps",
        (int)c->inputs_json.len, (const char *)c->inputs_json.data);
}

static void say_to_worker(struct trace *t, const struct cox_action *a)
{
    if (a->kind == COX_ACT_RELEASE)
        say(t, "release t0-%06u on %s", (unsigned)a->u.worker.task, party(t, a->u.worker.session));
    else
        say(t, "drain %s", party(t, a->u.worker.session));
}

static void say_to_router(struct trace *t, const struct cox_action *a)
{
    if (a->kind == COX_ACT_FENCED)
        say(t, "fence %s at %s", step_name(t, a->u.attempt.ref.task, a->u.attempt.ref.step),
            party(t, a->u.attempt.session));
    else
        say(t, "%s expects a call of t0-%06u in %u ms", party(t, a->u.expect.session),
            (unsigned)a->u.expect.root, (unsigned)a->u.expect.in_ms);
}

static void say_action(struct trace *t, const struct cox_action *a)
{
    static const char *const answers[] = { "", "accepted", "duplicate", "stale", "unknown" };
    switch (a->kind) {
    case COX_ACT_REPLY:
        say_reply(t, &a->u.reply);
        break;
    case COX_ACT_ASSIGN:
        say_assign(t, &a->u.assign);
        break;
    case COX_ACT_CANCEL:
        say(t, "stop %s on %s", step_name(t, a->u.attempt.ref.task, a->u.attempt.ref.step),
            party(t, a->u.attempt.session));
        break;
    case COX_ACT_ANSWER:
        t->last_answer = a->u.attempt.answer;
        say(t, "answer %s to %s", answers[a->u.attempt.answer], party(t, a->u.attempt.session));
        break;
    case COX_ACT_FENCED:
    case COX_ACT_EXPECT:
        say_to_router(t, a);
        break;
    case COX_ACT_CLOSE:
        say(t, "close %s: %s", party(t, a->u.close.session), a->u.close.message);
        break;
    case COX_ACT_RELEASE:
    case COX_ACT_DRAIN:
        say_to_worker(t, a);
        break;
    case COX_ACT_CHANGED:
        say(t, "changed%s", a->u.changed.final ? " (final)" : "");
        break;
    case COX_ACT_EVALUATE:
        say(t, "evaluate for %s",
            a->u.evaluate.step == COX_IMAGE_NONE ? "outputs"
                                                 : step_name(t, a->u.evaluate.task, a->u.evaluate.step));
        keep_evaluation(t, &a->u.evaluate);
        break;
    case COX_ACT_PUT_PAYLOAD:
        keep_payload(t, a);
        break;
    case COX_ACT_ARCHIVE:
        trace_keep_archive(t, a);
        break;
    case COX_ACT_LOAD:
        say(t, "load");
        t->loading = a->u.load.sleeper;
        break;
    case COX_ACT_STORE_SLEEPER:
    case COX_ACT_SAVE:
    case COX_ACT_FORGET:
        keep_entity(t, a);
        break;
    case COX_ACT_TRUNCATE:
        trace_truncated(t, a->u.truncate.seq);
        break;
    case COX_ACT_COMPILE:
        keep_compile(t, &a->u.compile);
        break;
    case COX_ACT_ALARM:
        say(t, "alarm: %s", a->u.alarm.text);
        break;
    default:
        keep_other(t, a);
        break;
    }
}

/* ---- what the engine wrote down and people can see ---- */

static void say_items(struct trace *t, const struct record *r)
{
    static const char *const next[] = { "done", "retries", "goes to another worker",
                                        "?",    "FAILED",  "CANCELLED" };
    struct cox_reader in = cox_reader(r->u.items_ended.items);
    struct record_item item;
    while (record_item_next(&in, &item)) {
        bool plain = item.next == NEXT_DONE || item.next == NEXT_CANCEL;
        say(t, "%s[%u] %s%s%s", step_name(t, r->task, r->step), item.index, next[item.next],
            plain ? "" : " after ", plain ? "" : cox_code_text(item.code));
    }
    assert_false(in.bad);
}

static void say_frame(struct trace *t, const struct record *r)
{
    const struct record_frame *f = &r->u.frame;
    char item[32] = "";
    if (trace_is_agents(cox_engine_find(t->engine, r->task))) {
        say(t, "%s opens", step_name(t, r->task, f->first));
        return;
    }
    if (f->item != UINT64_MAX)
        snprintf(item, sizeof item, "[%u]", (unsigned)f->item);
    say(t, "frame %u under %s%s", (unsigned)(r->task & 0xffffffff), step_name(t, f->parent, f->parent_step),
        item);
}

static void say_expansion(struct trace *t, const struct record *r)
{
    switch (r->type) {
    case RECORD_WAITING:
        say(t, "%s waits%s%.*s", step_name(t, r->task, r->step), r->u.waiting.detail.len > 0 ? ": " : "",
            (int)r->u.waiting.detail.len, (const char *)r->u.waiting.detail.data);
        break;
    case RECORD_FRAME_OPENED:
        say_frame(t, r);
        break;
    case RECORD_AGENT:
        trace_say_agent(t, r);
        break;
    case RECORD_CONTINUED:
        say(t, "%s is called again with %.*s", step_name(t, r->task, r->step),
            (int)r->u.continued.outputs.bytes.len, (const char *)r->u.continued.outputs.bytes.data);
        break;
    case RECORD_STEP_CANCELLED:
        say(t, "%s is to stop", step_name(t, r->task, r->step));
        break;
    case RECORD_STEP_RESET:
        say(t, "%s begins anew", step_name(t, r->task, r->step));
        break;
    case RECORD_SIGNALLED:
        say(t, "signal %.*s", (int)r->u.signalled.name.len, (const char *)r->u.signalled.name.data);
        break;
    case RECORD_TASK_PAUSED:
        say(t, "task pauses");
        break;
    case RECORD_TASK_RESUMED:
        say(t, "task goes on");
        break;
    case RECORD_TASK_EVICTED:
        say(t, "task %u sleeps", (unsigned)(r->task & 0xffffffff));
        break;
    case RECORD_TASK_WOKEN:
        say(t, "task %u wakes", (unsigned)(r->task & 0xffffffff));
        break;
    case RECORD_TASK_REVIVED:
        say(t, "task %u runs again", (unsigned)(r->task & 0xffffffff));
        break;
    case RECORD_TASK_FORKED:
        say(t, "task %u is forked", (unsigned)(r->task & 0xffffffff));
        break;
    default:
        break;
    }
}

static void say_usage(struct trace *t, const struct record_usage *u)
{
    char guess[64] = "";
    if (u->guessed > 0)
        snprintf(guess, sizeof guess, ", guessed %u", (unsigned)u->guessed);
    if (u->settled > 0)
        snprintf(guess, sizeof guess, ", guessed had been %u", (unsigned)u->settled);
    if (u->n_steps > 0)
        say(t, "%u more steps", (unsigned)u->n_steps);
    else
        say(t, "used %u+%u tokens, %u wasted%s", (unsigned)u->usage.input_tokens,
            (unsigned)u->usage.output_tokens, (unsigned)u->usage.wasted_tokens, guess);
}

static void say_record(struct trace *t, const struct record *r)
{
    char kept[256];
    switch (r->type) {
    case RECORD_STEP_SKIPPED:
        say(t, "%s SKIPPED", step_name(t, r->task, r->step));
        break;
    case RECORD_STEP_REFUSED:
        say(t, "%s refused %s: %.*s", step_name(t, r->task, r->step), cox_code_text(r->u.refused.code),
            (int)r->u.refused.message.len, (const char *)r->u.refused.message.data);
        break;
    case RECORD_UNASSIGNED:
        say(t, "%s taken back from its worker", step_name(t, r->task, r->step));
        break;
    case RECORD_ATTEMPT_ENDED: {
        static const char *const next[] = { "SUCCEEDED", "retries",   "goes to another worker", "falls back",
                                            "FAILED",    "CANCELLED", "asks for steps" };
        bool plain = r->u.ended.code == COX_CODE_NONE || r->u.ended.next == NEXT_CANCEL;
        say(t, "%s %s%s%s", step_name(t, r->task, r->step), next[r->u.ended.next], plain ? "" : " after ",
            plain ? "" : cox_code_text(r->u.ended.code));
        break;
    }
    case RECORD_USAGE:
        say_usage(t, &r->u.usage);
        break;
    case RECORD_MAP_BEGUN:
        say(t, "%s maps %u items", step_name(t, r->task, r->step), r->u.map.n_items);
        break;
    case RECORD_ITEMS_ENDED:
        say_items(t, r);
        break;
    case RECORD_ITEMS_UNASSIGNED:
        for (size_t i = 0; i < t->n_batches; i++)
            t->batches[i].reported |= cox_token_eq(t->batches[i].ref.token, r->u.items.token);
        say(t, "%s[%u..%u] taken back from their worker", step_name(t, r->task, r->step), r->u.items.first,
            r->u.items.first + r->u.items.n - 1);
        break;
    case RECORD_TASK_STOPPING:
        say(t, "task stops: %.*s", (int)r->u.stopping.message.len, (const char *)r->u.stopping.message.data);
        break;
    case RECORD_TASK_FINISHED:
        if (r->u.finished.status == COX_TASK_SUCCEEDED)
            say(t, "task SUCCEEDED %.*s", (int)r->u.finished.outputs.bytes.len,
                (const char *)r->u.finished.outputs.bytes.data);
        else
            say(t, "task %s %s: %.*s", cox_task_status_text(r->u.finished.status),
                cox_code_text(r->u.finished.code), (int)r->u.finished.message.len,
                (const char *)r->u.finished.message.data);
        break;
    default: /* assigned, answered, replied: said by the action */
        say_expansion(t, r);
        if (trace_tell_kept(r, kept, sizeof kept))
            say(t, "%s", kept);
        break;
    }
}

void absorb(struct trace *t)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&t->fx.records));
    struct record r;
    uint64_t last = cox_engine_seq(t->engine);
    if (t->fx.n_records > 0)
        assert_int_equal(t->fx.first_seq, t->n_records + 1);
    while (record_decode(&in, &r))
        say_record(t, &r);
    assert_false(in.bad);
    cox_buf_append(&t->log, t->fx.records.data, t->fx.records.len);
    t->n_records += t->fx.n_records;
    uint64_t after = 0;
    for (size_t i = 0; i < t->fx.n_actions; i++) {
        assert_true(t->fx.actions[i].after_seq >= after && t->fx.actions[i].after_seq <= last);
        after = t->fx.actions[i].after_seq;
        say_action(t, &t->fx.actions[i]);
    }
    cox_effects_reset(&t->fx);
    if (t->n_inputs++ % t->check_every == 0)
        cox_engine_check(t->engine);
}

void step(struct trace *t, struct cox_input *in)
{
    in->now = now(t);
    cox_engine_step(t->engine, in, &t->fx);
    absorb(t);
}
