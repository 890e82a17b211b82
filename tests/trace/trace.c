#include "trace.h"

#include "../../orchestrator/engine/record.h"
#include "trace_kept.h"
#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LINES_MAX 16384
#define PARTIES_MAX 64
#define ENTITIES_MAX 65536
#define EVALUATIONS_MAX 256
#define COMPILES_MAX 64
#define BATCHES_MAX 16384
#define ASKED_MAX 64
#define START_WALL_MS 1000000

struct saved {
    struct cox_entity_key key;
    uint64_t applied_seq;
    struct cox_buf bytes;
};

struct open_evaluation {
    struct cox_act_evaluate act;
    struct cox_buf image;
    struct cox_eval_input *steps;
};

struct batch {
    struct cox_ref ref;
    uint32_t first, n;
    bool reported;
};

/* A COMPOSE or FETCH that waits for its answer. */
struct asked {
    uint64_t ticket;
    struct cox_hash hash;
    struct cox_entity_key *parts;
    size_t n_parts;
};

/* A COMPILE that waits for its answer. */
struct open_compile {
    uint64_t ticket;
    enum cox_source_kind kind;
    struct cox_buf document, inputs;
};

struct trace {
    struct cox_engine *engine;
    struct open_compile compiles[COMPILES_MAX];
    size_t n_compiles, n_done_compiles;
    struct cox_effects fx;
    int64_t mono_ms;
    int64_t wall_back_ms; /* how far the host's clock was set back */
    char *lines[LINES_MAX];
    size_t n_lines;
    uint64_t next_request;
    uint32_t next_session;
    struct {
        char *id;
        uint32_t session;
    } parties[PARTIES_MAX];
    size_t n_parties;
    struct cox_buf log; /* every record ever */
    uint64_t n_records;
    uint64_t truncated_seq; /* the checkpoint covers the log up to here */
    size_t truncated_len;
    uint64_t checkpoint_seq_seen;
    struct saved *saved;
    size_t n_saved;
    struct cox_mapb payloads;
    struct open_evaluation evals[EVALUATIONS_MAX];
    size_t n_evals;
    size_t n_done_evals;
    struct batch batches[BATCHES_MAX];
    size_t n_batches;
    struct asked composes[ASKED_MAX], fetches[ASKED_MAX];
    size_t n_composes, n_done_composes, n_fetches, n_done_fetches;
    struct cox_buf last_output;
    enum cox_answer last_answer;
};

static struct cox_now now(const struct trace *t)
{
    return (struct cox_now){ t->mono_ms * 1000000, START_WALL_MS + t->mono_ms - t->wall_back_ms };
}

static void say(struct trace *t, const char *fmt, ...)
{
    va_list ap;
    char text[1024];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert_true(t->n_lines < LINES_MAX);
    t->lines[t->n_lines++] = cox_strdup(text);
}

static const char *party(const struct trace *t, uint32_t session)
{
    for (size_t i = 0; i < t->n_parties; i++)
        if (t->parties[i].session == session)
            return t->parties[i].id;
    return "nobody";
}

static uint32_t session_of(const struct trace *t, const char *id)
{
    for (size_t i = t->n_parties; i > 0; i--)
        if (strcmp(t->parties[i - 1].id, id) == 0)
            return t->parties[i - 1].session;
    return 0;
}

static const char *step_name(struct trace *t, cox_task_id task, uint32_t step)
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
    if (no == 1)
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

static void keep_entity(struct trace *t, const struct cox_action *a)
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

static void keep_payload(struct trace *t, const struct cox_action *a)
{
    struct cox_slice hash = cox_slice(a->u.payload.hash.b, sizeof a->u.payload.hash.b);
    struct cox_buf *b = COX_NEW(struct cox_buf);
    cox_buf_append_slice(b, a->u.payload.bytes);
    struct cox_buf *old = cox_mapb_set(&t->payloads, hash, b);
    if (old != NULL)
        cox_buf_fini(old);
    cox_free(old);
}

static void keep_batch(struct trace *t, const struct cox_act_assign *a)
{
    assert_true(t->n_batches < BATCHES_MAX);
    for (size_t i = 0; i < a->n_items; i++)
        assert_int_equal(a->items[i].index, a->items[0].index + i);
    t->batches[t->n_batches++] = (struct batch){ a->ref, a->items[0].index, (uint32_t)a->n_items, false };
}

static void say_assign(struct trace *t, const struct cox_act_assign *a)
{
    const char *step = step_name(t, a->ref.task, a->ref.step), *to = party(t, a->session);
    if (a->n_items == 0) {
        say(t, "assign %s#%u to %s%s%s%.*s%s%.*s", step, a->attempt, to, a->fallback ? " (fallback)" : "",
            a->workspace.len > 0 ? " in " : "", (int)a->workspace.len, (const char *)a->workspace.data,
            a->version.len > 0 ? " version " : "", (int)a->version.len, (const char *)a->version.data);
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

static void keep_compile(struct trace *t, const struct cox_act_compile *c)
{
    assert_true(t->n_compiles < COMPILES_MAX);
    struct open_compile *o = &t->compiles[t->n_compiles++];
    *o = (struct open_compile){ .ticket = c->ticket, .kind = c->kind };
    cox_buf_append_slice(&o->document, c->document.bytes);
    cox_buf_append_slice(&o->inputs, c->inputs_json);
    say(t, "compile %s with %.*s", c->kind == COX_SOURCE_TEMPLATE ? "template" : "steps", (int)c->inputs_json.len,
        (const char *)c->inputs_json.data);
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
    case COX_ACT_COMPOSE:
        keep_compose(t, &a->u.compose);
        break;
    case COX_ACT_FETCH:
        keep_fetch(t, a->u.fetch.ticket, a->u.fetch.hash);
        break;
    case COX_ACT_CANCEL:
        say(t, "stop %s on %s", step_name(t, a->u.attempt.ref.task, a->u.attempt.ref.step),
            party(t, a->u.attempt.session));
        break;
    case COX_ACT_ANSWER:
        t->last_answer = a->u.attempt.answer;
        say(t, "answer %s to %s", answers[a->u.attempt.answer], party(t, a->u.attempt.session));
        break;
    case COX_ACT_CLOSE:
        say(t, "close %s: %s", party(t, a->u.close.session), a->u.close.message);
        break;
    case COX_ACT_RELEASE:
        say(t, "release t0-%06u on %s", (unsigned)a->u.worker.task, party(t, a->u.worker.session));
        break;
    case COX_ACT_DRAIN:
        say(t, "drain %s", party(t, a->u.worker.session));
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
        break;
    case COX_ACT_SAVE:
    case COX_ACT_FORGET:
        keep_entity(t, a);
        break;
    case COX_ACT_TRUNCATE:
        t->truncated_seq = a->u.truncate.seq;
        break;
    case COX_ACT_COMPILE:
        keep_compile(t, &a->u.compile);
        break;
    case COX_ACT_ALARM:
        say(t, "alarm: %s", a->u.alarm.text);
        break;
    default:
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
        static const char *const next[] = { "SUCCEEDED",  "retries", "goes to another worker",
                                            "falls back", "FAILED",  "CANCELLED" };
        bool plain = r->u.ended.code == COX_CODE_NONE || r->u.ended.next == NEXT_CANCEL;
        say(t, "%s %s%s%s", step_name(t, r->task, r->step), next[r->u.ended.next], plain ? "" : " after ",
            plain ? "" : cox_code_text(r->u.ended.code));
        break;
    }
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
        if (trace_tell_kept(r, kept, sizeof kept))
            say(t, "%s", kept);
        break;
    }
}

static void absorb(struct trace *t)
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
    cox_engine_check(t->engine);
}

static void step(struct trace *t, struct cox_input *in)
{
    in->now = now(t);
    cox_engine_step(t->engine, in, &t->fx);
    absorb(t);
}

/* ---- life ---- */

static struct cox_engine *fresh(void)
{
    return cox_engine_create(&(struct cox_engine_config){ .shard = 0, .seed = 1 });
}

struct trace *trace_begin(void)
{
    struct trace *t = COX_NEW(struct trace);
    t->engine = fresh();
    assert_int_equal(cox_engine_recovered(t->engine, now(t), 0, &t->fx), COX_OK);
    absorb(t);
    return t;
}

static void seek_tail(const struct trace *t, uint64_t after_seq, struct cox_slice *ret)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&t->log));
    struct record r;
    for (uint64_t seq = 1; seq <= after_seq; seq++)
        assert_true(record_decode(&in, &r));
    *ret = cox_slice(in.p, (size_t)(in.end - in.p));
}

/* An engine as recovery would make it, from the saved entities and the log after `after_seq`. */
static struct cox_engine *rebuild(const struct trace *t, bool from_checkpoint)
{
    struct cox_engine *e = fresh();
    struct cox_slice tail;
    uint64_t after = from_checkpoint ? t->truncated_seq : 0;
    for (int kind = 1; from_checkpoint && kind < 10; kind++)
        for (size_t i = 0; i < t->n_saved; i++)
            if (t->saved[i].key.kind == kind)
                assert_int_equal(cox_engine_load(e, t->saved[i].key, t->saved[i].applied_seq,
                                                 cox_buf_slice(&t->saved[i].bytes)),
                                 COX_OK);
    seek_tail(t, after, &tail);
    assert_int_equal(cox_engine_replay(e, after + 1, (uint32_t)(t->n_records - after), tail), COX_OK);
    return e;
}

static int by_key(const void *a, const void *b)
{
    const struct saved *x = a, *y = b;
    if (x->key.kind != y->key.kind)
        return x->key.kind < y->key.kind ? -1 : 1;
    if (x->key.id != y->key.id)
        return x->key.id < y->key.id ? -1 : 1;
    return x->key.sub < y->key.sub ? -1 : x->key.sub > y->key.sub;
}

static void check_hashes(struct trace *t)
{
    uint64_t live = cox_engine_hash(t->engine);
    for (int from_checkpoint = 0; from_checkpoint < 2; from_checkpoint++) {
        qsort(t->saved, t->n_saved, sizeof t->saved[0], by_key);
        struct cox_engine *e = rebuild(t, from_checkpoint);
        assert_int_equal(cox_engine_hash(e), live);
        cox_engine_destroy(e);
    }
}

void trace_end(struct trace *t)
{
    expect_nothing(t);
    check_hashes(t);
    checkpoint(t);
    check_hashes(t);
    cox_engine_destroy(t->engine);
    for (size_t i = 0; i < t->n_compiles; i++) {
        cox_buf_fini(&t->compiles[i].document);
        cox_buf_fini(&t->compiles[i].inputs);
    }
    cox_effects_fini(&t->fx);
    cox_buf_fini(&t->log);
    for (size_t i = 0; i < t->n_parties; i++)
        cox_free(t->parties[i].id);
    for (size_t i = 0; i < t->n_saved; i++)
        cox_buf_fini(&t->saved[i].bytes);
    cox_free(t->saved);
    size_t it = 0;
    struct cox_slice key;
    void *b;
    while (cox_mapb_next(&t->payloads, &it, &key, &b)) {
        cox_buf_fini(b);
        cox_free(b);
    }
    cox_mapb_fini(&t->payloads);
    for (size_t i = 0; i < t->n_composes; i++)
        cox_free(t->composes[i].parts);
    cox_buf_fini(&t->last_output);
    cox_free(t);
}

void checkpoint(struct trace *t)
{
    uint64_t before = t->truncated_seq, target = cox_engine_seq(t->engine);
    while (t->truncated_seq == before && before != target)
        step(t, &(struct cox_input){ .kind = COX_IN_CHECKPOINT, .u.checkpoint.max_bytes = 300 });
}

void checkpoint_some(struct trace *t)
{
    step(t, &(struct cox_input){ .kind = COX_IN_CHECKPOINT, .u.checkpoint.max_bytes = 1 });
}

void crash(struct trace *t)
{
    check_hashes(t);
    qsort(t->saved, t->n_saved, sizeof t->saved[0], by_key);
    struct cox_engine *e = rebuild(t, true);
    cox_engine_destroy(t->engine);
    t->n_done_compiles = t->n_compiles; /* what was asked died with the engine */
    t->engine = e;
    for (size_t i = 0; i < t->n_parties; i++)
        t->parties[i].session = 0;
    t->n_done_composes = t->n_composes; /* what was asked died with the engine */
    t->n_done_fetches = t->n_fetches;
    assert_int_equal(cox_engine_recovered(e, now(t), t->n_records, &t->fx), COX_OK);
    absorb(t);
}

void trace_step(struct trace *t, struct cox_input *in)
{
    step(t, in);
}

const struct cox_engine *trace_engine(const struct trace *t)
{
    return t->engine;
}

int64_t wake_in_ms(const struct trace *t)
{
    int64_t wake_ms = (t->fx.wake_mono_ns + 999999) / 1000000;
    return t->fx.wake_mono_ns == INT64_MAX ? INT64_MAX : wake_ms - t->mono_ms;
}

void away_ms(struct trace *t, int64_t ms)
{
    t->mono_ms += ms;
}

/* ---- the story ---- */

void submit_keyed(struct trace *t, const char *key, const char *document_json)
{
    struct cox_task_source source = { .document = cox_slice_str(document_json) };
    struct cox_buf image = { 0 };
    struct cox_violations v = { 0 };
    if (cox_task_compile(&source, &image, &v) != COX_OK)
        fail_msg("%s: %s", v.items[0].path, v.items[0].message);
    struct cox_input in = { .kind = COX_IN_SUBMIT };
    in.u.submit.request = ++t->next_request;
    in.u.submit.tenant = cox_slice_str("default");
    in.u.submit.key = cox_slice_str(key);
    in.u.submit.image = cox_buf_slice(&image);
    uint64_t h = cox_hash64(document_json, strlen(document_json));
    memcpy(in.u.submit.document.b, &h, sizeof h);
    step(t, &in);
    cox_buf_fini(&image);
    cox_violations_fini(&v);
}

void submit(struct trace *t, const char *document_json)
{
    submit_keyed(t, "", document_json);
}

void cancel(struct trace *t, uint32_t task_no, const char *reason)
{
    struct cox_input in = { .kind = COX_IN_CANCEL };
    in.u.cancel.request = ++t->next_request;
    in.u.cancel.task = task_no;
    in.u.cancel.reason = cox_slice_str(reason);
    step(t, &in);
}

void set_clock_back(struct trace *t, int64_t ms)
{
    t->wall_back_ms += ms;
}

void after_ms(struct trace *t, int64_t ms)
{
    int64_t until_ms = t->mono_ms + ms;
    for (;;) {
        step(t, &(struct cox_input){ .kind = COX_IN_TIMER });
        if (t->fx.wake_mono_ns > until_ms * 1000000)
            break;
        int64_t wake_ms = (t->fx.wake_mono_ns + 999999) / 1000000;
        t->mono_ms = wake_ms > t->mono_ms ? wake_ms : t->mono_ms;
    }
    t->mono_ms = until_ms;
    step(t, &(struct cox_input){ .kind = COX_IN_TIMER });
}

static size_t split(const char *text, char *copy, const char **ret, size_t max)
{
    size_t n = 0;
    if (text == NULL || *text == '\0')
        return 0;
    memcpy(copy, text, strlen(text) + 1);
    for (char *p = copy; p != NULL && n < max;) {
        char *comma = strchr(p, ',');
        if (comma != NULL)
            *comma++ = '\0';
        ret[n++] = p;
        p = comma;
    }
    return n;
}

static struct cox_ref ref_of(struct trace *t, uint32_t task_no, const char *name);

/* "lint@1=1.4.2": a handler and its exact version. */
static struct cox_slice handler(const char *text, struct cox_slice *ret_version)
{
    const char *eq = strchr(text, '=');
    *ret_version = cox_slice_str(eq != NULL ? eq + 1 : NULL);
    return eq != NULL ? cox_slice(text, (size_t)(eq - text)) : cox_slice_str(text);
}

void attach_as(struct trace *t, const struct worker_spec *spec)
{
    char texts[3][512];
    const char *names[16];
    struct cox_slice handlers[16], versions[16];
    struct cox_label labels[16];
    struct cox_ref holds[16];
    struct cox_input in = { .kind = COX_IN_ATTACH };
    struct cox_in_attach *at = &in.u.attach;
    at->session = ++t->next_session;
    at->worker_id = cox_slice_str(spec->id);
    at->boot_id = cox_slice_str(spec->boot != NULL ? spec->boot : "boot1");
    at->slots = spec->slots;
    at->resources = spec->resources;
    at->n_handlers = split(spec->handlers != NULL ? spec->handlers : "run", texts[0], names, 16);
    for (size_t i = 0; i < at->n_handlers; i++)
        handlers[i] = handler(names[i], &versions[i]);
    at->handlers = handlers;
    at->versions = versions;
    at->n_labels = split(spec->labels, texts[1], names, 16);
    for (size_t i = 0; i < at->n_labels; i++) {
        const char *eq = strchr(names[i], '=');
        labels[i] = (struct cox_label){ cox_slice(names[i], (size_t)(eq - names[i])), cox_slice_str(eq + 1) };
    }
    at->labels = labels;
    at->n_holds = split(spec->holds, texts[2], names, 16);
    for (size_t i = 0; i < at->n_holds; i++) {
        struct cox_task_view view;
        cox_task_view(cox_engine_find(t->engine, 1), &view);
        holds[i] = ref_of(t, 1, names[i]);
    }
    at->holds = holds;
    assert_true(t->n_parties < PARTIES_MAX);
    t->parties[t->n_parties].id = cox_strdup(spec->id);
    t->parties[t->n_parties++].session = at->session;
    step(t, &in);
    uint32_t n = spec->credit != 0 ? spec->credit : spec->slots;
    if (n > 0)
        credit(t, spec->id, n);
}

void attach(struct trace *t, const char *id, uint32_t slots)
{
    attach_as(t, &(struct worker_spec){ .id = id, .slots = slots });
}

static void session_input(struct trace *t, enum cox_input_kind kind, const char *id)
{
    struct cox_input in = { .kind = kind };
    in.u.session.session = session_of(t, id);
    step(t, &in);
}

void detach(struct trace *t, const char *id)
{
    session_input(t, COX_IN_DETACH, id);
}

void beat(struct trace *t, const char *id)
{
    session_input(t, COX_IN_BEAT, id);
}

void drain(struct trace *t, const char *id)
{
    session_input(t, COX_IN_DRAINING, id);
}

void policy(struct trace *t, const char *id, int what)
{
    struct cox_input in = { .kind = COX_IN_POLICY };
    in.u.policy.request = ++t->next_request;
    in.u.policy.worker_id = cox_slice_str(id);
    in.u.policy.what = what;
    step(t, &in);
}

void credit(struct trace *t, const char *id, uint64_t granted)
{
    struct cox_input in = { .kind = COX_IN_CREDIT };
    in.u.credit.session = session_of(t, id);
    in.u.credit.granted = granted;
    step(t, &in);
}

/* The newest batch that begins with the item: "scan[0]". */
static const struct batch *batch_of(const struct trace *t, const char *name)
{
    const char *bracket = strchr(name, '[');
    uint32_t first = (uint32_t)strtoul(bracket + 1, NULL, 10);
    for (size_t i = t->n_batches; i > 0; i--)
        if (t->batches[i - 1].first == first)
            return &t->batches[i - 1];
    fail_msg("no batch begins with %s", name);
    return NULL;
}

static struct cox_ref ref_of(struct trace *t, uint32_t task_no, const char *name)
{
    if (strchr(name, '[') != NULL)
        return batch_of(t, name)->ref;
    const struct cox_task *task = cox_engine_find(t->engine, task_no);
    assert_non_null(task);
    struct cox_task_view view;
    struct cox_step_view sv;
    struct cox_attempt_view av;
    cox_task_view(task, &view);
    uint32_t index = cox_image_find_step(view.image, cox_slice_str(name));
    assert_int_not_equal(index, COX_IMAGE_NONE);
    cox_step_view(t->engine, task, index, &sv);
    assert_true(sv.n_attempts > 0);
    cox_attempt_view(t->engine, task, index, sv.n_attempts - 1, &av);
    return (struct cox_ref){ task_no, index, av.ref.token };
}

struct cox_token token_of(struct trace *t, uint32_t task_no, const char *name)
{
    return ref_of(t, task_no, name).token;
}

static void attempt_input(struct trace *t, enum cox_input_kind kind, const char *worker, const char *name)
{
    struct cox_input in = { .kind = kind };
    in.u.attempt.session = session_of(t, worker);
    in.u.attempt.ref = ref_of(t, 1, name);
    step(t, &in);
}

void started(struct trace *t, const char *worker, const char *name)
{
    attempt_input(t, COX_IN_STARTED, worker, name);
}

void returned(struct trace *t, const char *worker, const char *name)
{
    attempt_input(t, COX_IN_RETURNED, worker, name);
}

static struct cox_input result(struct trace *t, uint32_t task_no, const char *worker, const char *name)
{
    struct cox_input in = { .kind = COX_IN_RESULT };
    in.u.result.session = session_of(t, worker);
    in.u.result.ref = ref_of(t, task_no, name);
    return in;
}

void succeed_in(struct trace *t, uint32_t task_no, const char *worker, const char *name,
                const char *output_json)
{
    struct cox_input in = result(t, task_no, worker, name);
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.output.kind = COX_PAYLOAD_INLINE;
    in.u.result.output.bytes = cox_slice_str(output_json);
    in.u.result.output.size = strlen(output_json);
    step(t, &in);
}

void succeed(struct trace *t, const char *worker, const char *name, const char *output_json)
{
    succeed_in(t, 1, worker, name, output_json);
}

void succeed_large(struct trace *t, const char *worker, const char *name, size_t len)
{
    struct cox_input in = result(t, 1, worker, name);
    char *text = cox_alloc(len + 2);
    memset(text, 'x', len + 2);
    text[0] = text[len + 1] = '"';
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.output.kind = COX_PAYLOAD_STORED;
    in.u.result.output.bytes = cox_slice(text, len + 2);
    in.u.result.output.size = len + 2;
    uint64_t h = cox_hash64(text, len + 2);
    memcpy(in.u.result.output.hash.b, &h, sizeof h);
    step(t, &in);
    cox_free(text);
}

void fails(struct trace *t, const char *worker, const char *name, enum cox_code code)
{
    struct cox_input in = result(t, 1, worker, name);
    in.u.result.status = code == COX_CODE_TIMEOUT ? COX_ATTEMPT_TIMED_OUT : COX_ATTEMPT_FAILED;
    in.u.result.code = code;
    in.u.result.message = cox_slice_str("it broke");
    step(t, &in);
}

void cancelled(struct trace *t, const char *worker, const char *name)
{
    struct cox_input in = result(t, 1, worker, name);
    in.u.result.status = COX_ATTEMPT_CANCELLED;
    in.u.result.code = COX_CODE_CANCELLED;
    step(t, &in);
}

void report_token(struct trace *t, const char *worker, uint32_t task_no, uint32_t step_no,
                  struct cox_token token)
{
    struct cox_input in = { .kind = COX_IN_RESULT };
    in.u.result.session = session_of(t, worker);
    in.u.result.ref = (struct cox_ref){ task_no, step_no, token };
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    step(t, &in);
}

void archived(struct trace *t, uint32_t task_no)
{
    step(t, &(struct cox_input){ .kind = COX_IN_ARCHIVED, .u.task.task = task_no });
}

bool open_batch(const struct trace *t, size_t which, uint32_t *ret_first, uint32_t *ret_n)
{
    for (size_t i = 0; i < t->n_batches; i++) {
        if (t->batches[i].reported || which-- > 0)
            continue;
        *ret_first = t->batches[i].first;
        *ret_n = t->batches[i].n;
        return true;
    }
    return false;
}

void forget_batches(struct trace *t)
{
    t->n_batches = 0;
}

enum cox_answer last_answer(const struct trace *t)
{
    return t->last_answer;
}

size_t open_composes(const struct trace *t)
{
    return t->n_composes - t->n_done_composes;
}

size_t open_fetches(const struct trace *t)
{
    return t->n_fetches - t->n_done_fetches;
}

struct cox_slice last_output(const struct trace *t)
{
    return cox_buf_slice(&t->last_output);
}

static void item_end(char *word, struct cox_item_result *ret)
{
    ret->status = *word == '!' ? COX_ATTEMPT_FAILED : COX_ATTEMPT_SUCCEEDED;
    if (*word == '!') {
        assert_true(cox_code_parse(cox_slice_str(word + 1), &ret->code));
        ret->message = cox_slice_str("it broke");
    } else {
        ret->output = cox_slice_str(word);
    }
}

void items(struct trace *t, const char *worker, const char *batch, const char *ends)
{
    const struct batch *b = batch_of(t, batch);
    struct cox_item_result *results = cox_calloc(b->n, sizeof results[0]);
    char *words = cox_strdup(ends), *rest = words, *word;
    struct cox_input in = result(t, 1, worker, batch);
    uint32_t index = b->first;
    while ((word = strtok_r(rest, " ", &rest)) != NULL) {
        assert_true(index < b->first + b->n);
        results[in.u.result.n_items].index = index++;
        if (strcmp(word, "-") != 0)
            item_end(word, &results[in.u.result.n_items++]);
    }
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.items = results;
    ((struct batch *)(uintptr_t)b)->reported = true;
    step(t, &in);
    cox_free(results);
    cox_free(words);
}

/* ---- the compile thread's part ---- */

void compile(struct trace *t)
{
    assert_true(t->n_done_compiles < t->n_compiles);
    const struct open_compile *o = &t->compiles[t->n_done_compiles++];
    struct cox_task_source source = { .kind = o->kind,
                                      .document = cox_buf_slice(&o->document),
                                      .inputs_json = cox_buf_slice(&o->inputs) };
    struct cox_buf image = { 0 };
    struct cox_violations v = { 0 };
    struct cox_input in = { .kind = COX_IN_COMPILED, .u.compiled.ticket = o->ticket };
    in.u.compiled.ok = cox_task_compile(&source, &image, &v) == COX_OK;
    in.u.compiled.image = cox_buf_slice(&image);
    if (!in.u.compiled.ok)
        in.u.compiled.error = cox_slice_str(v.items[0].message);
    step(t, &in);
    cox_buf_fini(&image);
    cox_violations_fini(&v);
}

/* As coxd keeps it: by size. The name is not of the kind that coxd uses; the engine does not look. */
static struct cox_payload kept(struct trace *t, const struct cox_buf *b)
{
    struct cox_payload p = { .kind = COX_PAYLOAD_INLINE, .bytes = cox_buf_slice(b), .size = b->len };
    (void)t;
    if (b->len > COX_INLINE_PAYLOAD_LEN_MAX) {
        uint64_t h = cox_hash64(b->data, b->len);
        p.kind = COX_PAYLOAD_STORED;
        memcpy(p.hash.b, &h, sizeof h);
    }
    return p;
}

static const struct saved *saved_of(const struct trace *t, struct cox_entity_key key)
{
    for (size_t i = 0; i < t->n_saved; i++)
        if (t->saved[i].key.kind == key.kind && t->saved[i].key.id == key.id &&
            t->saved[i].key.sub == key.sub)
            return &t->saved[i];
    fail_msg("part %u was not saved before it was to be joined", key.sub);
    return NULL;
}

void compose(struct trace *t)
{
    assert_true(t->n_done_composes < t->n_composes);
    const struct asked *c = &t->composes[t->n_done_composes++];
    struct cox_buf output = { 0 }, failures = { 0 };
    struct cox_input in = { .kind = COX_IN_COMPOSED };
    cox_put_u8(&output, '[');
    cox_put_u8(&failures, '[');
    for (size_t i = 0; i < c->n_parts; i++) {
        struct cox_buf outs = { 0 }, fails_ = { 0 };
        const struct saved *s = saved_of(t, c->parts[i]);
        assert_int_equal(cox_map_part_outputs(s->key, cox_buf_slice(&s->bytes), &outs, &fails_), COX_OK);
        cox_buf_append_str(&output, output.len > 1 ? "," : "");
        cox_buf_append_slice(&output, cox_buf_slice(&outs));
        cox_buf_append_str(&failures, failures.len > 1 && fails_.len > 0 ? "," : "");
        cox_buf_append_slice(&failures, cox_buf_slice(&fails_));
        cox_buf_fini(&outs);
        cox_buf_fini(&fails_);
    }
    cox_put_u8(&output, ']');
    cox_put_u8(&failures, ']');
    in.u.evaluated.ticket = c->ticket;
    in.u.evaluated.ok = true;
    in.u.evaluated.value = kept(t, &output);
    cox_buf_clear(&t->last_output);
    cox_buf_append_slice(&t->last_output, cox_buf_slice(&output));
    if (failures.len > 2)
        in.u.evaluated.errors = kept(t, &failures);
    step(t, &in);
    cox_buf_fini(&output);
    cox_buf_fini(&failures);
}

void fetch(struct trace *t)
{
    assert_true(t->n_done_fetches < t->n_fetches);
    const struct asked *f = &t->fetches[t->n_done_fetches++];
    struct cox_buf *b = cox_mapb_get(&t->payloads, cox_slice(f->hash.b, sizeof f->hash.b));
    struct cox_input in = { .kind = COX_IN_FETCHED, .u.fetched.ticket = f->ticket };
    assert_non_null(b);
    in.u.fetched.bytes = cox_buf_slice(b);
    step(t, &in);
}

static uint32_t count_items(struct cox_slice list)
{
    struct cox_json_walk w = cox_json_walk(list);
    uint32_t n = 0;
    while (cox_json_next(&w))
        n++;
    return n;
}

struct eval_user {
    struct trace *t;
    struct open_evaluation *o;
};

static struct cox_slice value_of(struct trace *t, const struct cox_payload *p)
{
    if (p->kind != COX_PAYLOAD_STORED)
        return p->bytes;
    struct cox_buf *b = cox_mapb_get(&t->payloads, cox_slice(p->hash.b, sizeof p->hash.b));
    assert_non_null(b);
    return cox_buf_slice(b);
}

static void eval_step(void *user, uint32_t index, struct cox_eval_step *ret)
{
    struct eval_user *u = user;
    memset(ret, 0, sizeof *ret);
    for (size_t i = 0; i < u->o->act.n_steps; i++) {
        const struct cox_eval_input *in = &u->o->steps[i];
        if (in->step != index)
            continue;
        ret->status = in->status;
        ret->code = in->code;
        ret->message = in->message;
        ret->output_json = value_of(u->t, &in->output);
        ret->errors_json = value_of(u->t, &in->errors);
        ret->artifacts_json = value_of(u->t, &in->artifacts);
    }
}

size_t open_evaluations(const struct trace *t)
{
    return t->n_evals - t->n_done_evals;
}

void evaluate(struct trace *t)
{
    assert_true(t->n_done_evals < t->n_evals);
    struct open_evaluation *o = &t->evals[t->n_done_evals++];
    struct eval_user user = { t, o };
    struct cox_eval_env env = { .user = &user,
                                .step = eval_step,
                                .success = o->act.success,
                                .failure = o->act.failure,
                                .error_code = o->act.error_code,
                                .item_json = o->act.item_json,
                                .item_index = o->act.item_index };
    struct cox_image image;
    struct cox_buf out = { 0 }, error = { 0 };
    assert_int_equal(cox_image_open(&image, cox_buf_slice(&o->image)), COX_OK);
    struct cox_input in = { .kind = COX_IN_EVALUATED };
    in.u.evaluated.ticket = o->act.ticket;
    bool yes = false;
    if (o->act.want == COX_EVAL_CONDITION) {
        in.u.evaluated.ok = cox_eval_condition(&image, o->act.template_index, &env, &yes, &error) == COX_OK;
        cox_buf_append_str(&out, yes ? "true" : "false");
    } else {
        in.u.evaluated.ok = cox_eval_template(&image, o->act.template_index, &env, &out, &error) == COX_OK;
    }
    in.u.evaluated.value.kind = COX_PAYLOAD_INLINE;
    in.u.evaluated.value.bytes = cox_buf_slice(&out);
    in.u.evaluated.value.size = out.len;
    if (o->act.want == COX_EVAL_LIST) {
        in.u.evaluated.value = kept(t, &out);
        in.u.evaluated.n_items = count_items(cox_buf_slice(&out));
    }
    in.u.evaluated.error = cox_buf_slice(&error);
    step(t, &in);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
    cox_buf_fini(&o->image);
    for (size_t i = 0; i < o->act.n_steps; i++) {
        cox_free((void *)(uintptr_t)o->steps[i].message.data);
        cox_free((void *)(uintptr_t)o->steps[i].output.bytes.data);
        cox_free((void *)(uintptr_t)o->steps[i].errors.bytes.data);
        cox_free((void *)(uintptr_t)o->steps[i].artifacts.bytes.data);
    }
    cox_free(o->steps);
    cox_free((void *)(uintptr_t)o->act.item_json.data);
}

/* ---- looking ---- */

struct cox_task_view view_of(struct trace *t, uint32_t task_no)
{
    struct cox_task_view view;
    cox_task_view(cox_engine_find(t->engine, task_no), &view);
    return view;
}

static struct cox_step_view step_of(struct trace *t, uint32_t task_no, const char *name)
{
    const struct cox_task_view view = view_of(t, task_no);
    uint32_t index = cox_image_find_step(view.image, cox_slice_str(name));
    struct cox_step_view sv;
    cox_step_view(t->engine, cox_engine_find(t->engine, task_no), index, &sv);
    return sv;
}

enum cox_step_status status_of(struct trace *t, uint32_t task_no, const char *name)
{
    return step_of(t, task_no, name).status;
}

bool is_live(struct trace *t, uint32_t task_no)
{
    return cox_engine_find(t->engine, task_no) != NULL;
}

uint32_t n_attempts_of(struct trace *t, uint32_t task_no, const char *name)
{
    return step_of(t, task_no, name).n_attempts;
}

const char *reason_of(struct trace *t, uint32_t task_no, const char *name)
{
    static const char *const texts[] = {
        "",            "dependencies", "backoff", "no worker", "no capacity", "evaluating", "worker away",
        "cancelling",  "paused",       "concurrency", "rate", "affinity", "version", "timer", "signal", "approval",
        "children",    "items",        "expanding"
    };
    return texts[step_of(t, task_no, name).reason];
}

struct cox_step_why why_of(struct trace *t, uint32_t task_no, const char *name)
{
    const struct cox_task_view view = view_of(t, task_no);
    struct cox_step_why why;
    cox_step_why(t->engine, cox_engine_find(t->engine, task_no),
                 cox_image_find_step(view.image, cox_slice_str(name)), &why);
    return why;
}

struct cox_engine_stats stats_of(struct trace *t)
{
    struct cox_engine_stats stats;
    cox_engine_stats(t->engine, &stats);
    return stats;
}

uint64_t queued(struct trace *t, enum cox_step_reason reason)
{
    struct cox_queue_view v;
    uint64_t n = 0;
    for (size_t it = 0; cox_engine_next_queue(t->engine, &it, &v);)
        n += v.reason == reason ? v.n : 0;
    return n;
}

void ignore(struct trace *t)
{
    for (size_t i = 0; i < t->n_lines; i++)
        cox_free(t->lines[i]);
    t->n_lines = 0;
}

void expect_lines(struct trace *t, const char *file, int line, const char *const *lines, size_t n)
{
    bool same = n == t->n_lines;
    for (size_t i = 0; same && i < n; i++)
        same = strcmp(lines[i], t->lines[i]) == 0;
    if (!same) {
        print_error("%s:%d: expected:\n", file, line);
        for (size_t i = 0; i < n; i++)
            print_error("    \"%s\",\n", lines[i]);
        print_error("but the engine did:\n");
        for (size_t i = 0; i < t->n_lines; i++)
            print_error("    \"%s\",\n", t->lines[i]);
    }
    ignore(t);
    if (!same)
        _fail(file, line);
}
