/* What the engine says to workers: collected over a turn, sent as one message a worker. */
#include "session.h"

#include "../sha256.h"

#include "cox/base/alloc.h"

#include <stdio.h>
#include <string.h>

#define FLUSH_LEN ((size_t)1 << 20) /* send earlier than at the turn's end beyond this */

typedef Coxswain__V1__AttachResponse Response;

/* An AttemptRef and its token, made together. */
struct ref_message {
    Coxswain__V1__AttemptRef ref;
    Coxswain__V1__Token token;
};

static void ref_fill(struct ref_message *m, const struct cox_ref *ref)
{
    coxswain__v1__attempt_ref__init(&m->ref);
    coxswain__v1__token__init(&m->token);
    m->ref.task = ref->task;
    m->ref.step = ref->step;
    m->ref.token = &m->token;
    m->token.epoch = ref->token.epoch;
    m->token.counter = ref->token.counter;
}

static void flush_later(struct cox_session *s)
{
    if (s->dirty.next == &s->dirty)
        cox_list_push_back(&s->fleet->dirty, &s->dirty);
}

static void out_add(struct cox_session *s, struct cox_outgoing *out, void *message, size_t len)
{
    if (out->len == out->cap) {
        out->cap = out->cap ? out->cap * 2 : 16;
        out->items = cox_realloc(out->items, out->cap, sizeof(*out->items));
    }
    out->items[out->len++] = message;
    s->out_len += len;
    flush_later(s);
    if (s->out_len > FLUSH_LEN)
        cox_session_flush(s);
}

void cox_session_outgoing_fini(struct cox_session *s)
{
    cox_free(s->answers.items);
    cox_free(s->cancels.items);
    cox_free(s->assigns.items);
    cox_free(s->logs_wanted.items);
    cox_free(s->released.items);
    cox_free(s->fenced.items);
    cox_free(s->expects.items);
}

static void send_message(struct cox_session *s, const Response *m)
{
    if (cox_rpc_send(s->call, &m->base) == COX_ERR_FULL)
        cox_rpc_cancel(s->call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                         .reason = "SLOW_READER",
                                                         .message = "the worker does not read" });
}

void cox_session_flush(struct cox_session *s)
{
    Response m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;

    if (s->dirty.next == &s->dirty)
        return;
    m.n_answers = s->answers.len;
    m.answers = (Coxswain__V1__Answer **)s->answers.items;
    m.n_cancels = s->cancels.len;
    m.cancels = (Coxswain__V1__AttemptRef **)s->cancels.items;
    m.n_assigns = s->assigns.len;
    m.assigns = (Coxswain__V1__Assign **)s->assigns.items;
    m.n_logs_wanted = s->logs_wanted.len;
    m.logs_wanted = (Coxswain__V1__LogWanted **)s->logs_wanted.items;
    m.n_released = s->released.len;
    m.released = (char **)s->released.items;
    m.n_fenced = s->fenced.len;
    m.fenced = (Coxswain__V1__AttemptRef **)s->fenced.items;
    m.n_expects = s->expects.len;
    m.expects = (Coxswain__V1__Expect **)s->expects.items;
    m.drain = s->drain;
    if (!s->dead && s->call)
        send_message(s, &m);
    s->answers.len = s->cancels.len = s->assigns.len = s->logs_wanted.len = s->released.len = 0;
    s->fenced.len = s->expects.len = 0;
    s->drain = false;
    s->out_len = 0;
    cox_list_remove(&s->dirty);
}

void cox_fleet_flush(struct cox_fleet *f)
{
    while (!cox_list_empty(&f->dirty))
        cox_session_flush(COX_CONTAINER_OF(f->dirty.next, struct cox_session, dirty));
    cox_arena_reset(&f->arena);
}

void cox_session_send_welcome(struct cox_session *s, uint64_t shard_uid)
{
    Response m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Welcome welcome = COXSWAIN__V1__WELCOME__INIT;

    welcome.shard_uid = shard_uid;
    welcome.beat_ms = COX_BEAT_MS;
    welcome.lost_ms = COX_LOST_MS;
    welcome.session_key = s->key;
    if (s->fleet->models_url)
        welcome.models_url = s->fleet->models_url;
    m.welcome = &welcome;
    send_message(s, &m);
}

void cox_session_want_log(struct cox_session *s, const struct cox_ref *ref, bool wanted)
{
    struct {
        Coxswain__V1__LogWanted wanted;
        struct ref_message ref;
    } *m = cox_arena_alloc(&s->fleet->arena, sizeof(*m));

    coxswain__v1__log_wanted__init(&m->wanted);
    ref_fill(&m->ref, ref);
    m->wanted.ref = &m->ref.ref;
    m->wanted.wanted = wanted;
    out_add(s, &s->logs_wanted, m, 64);
}

/* ---- the engine's actions ---- */

struct assign_message {
    Coxswain__V1__Assign assign;
    struct ref_message ref;
    Coxswain__V1__Resources resources;
    Coxswain__V1__CallHint hint;
    Coxswain__V1__WorkspaceHome home;
};

static char *text(struct cox_fleet *f, struct cox_slice s)
{
    return cox_arena_dup(&f->arena, s.data, s.len);
}

/* Only read by what packs it. */
static void put_bytes(ProtobufCBinaryData *to, struct cox_slice from)
{
    to->data = (uint8_t *)(uintptr_t)from.data;
    to->len = from.len;
}

static const char *task_text(struct cox_fleet *f, cox_task_id task)
{
    if (f->named != task) {
        cox_task_id_format(task, f->named_text);
        f->named = task;
    }
    return f->named_text;
}

/* Names a step for ever, also towards other services: the shard's identity keeps two installations apart. */
static char *idempotency_key(struct cox_fleet *f, const char *task, struct cox_slice step)
{
    static const char digits[] = "0123456789abcdef";
    size_t task_len = strlen(task);
    char *key = cox_arena_alloc(&f->arena, 16 + 1 + task_len + 1 + step.len + 1);
    uint64_t uid = cox_driver_uid(f->driver);
    char *p = key;

    for (int shift = 60; shift >= 0; shift -= 4)
        *p++ = digits[uid >> shift & 15];
    *p++ = '-';
    memcpy(p, task, task_len);
    p += task_len;
    *p++ = '/';
    if (step.len > 0)
        memcpy(p, step.data, step.len);
    p[step.len] = '\0';
    return key;
}

static size_t put_items(struct cox_fleet *f, Coxswain__V1__Assign *m, const struct cox_act_assign *a)
{
    Coxswain__V1__Item *items = cox_arena_alloc(&f->arena, (a->n_items + 1) * sizeof(*items));
    size_t len = 0;

    m->items = cox_arena_alloc(&f->arena, (a->n_items + 1) * sizeof(*m->items));
    m->n_items = a->n_items;
    for (size_t i = 0; i < a->n_items; i++) {
        coxswain__v1__item__init(&items[i]);
        items[i].index = a->items[i].index;
        put_bytes(&items[i].spec_json, a->items[i].spec_json);
        m->items[i] = &items[i];
        len += a->items[i].spec_json.len + 16;
    }
    return len;
}

static void put_texts(struct cox_fleet *f, Coxswain__V1__Assign *m, const struct cox_act_assign *a)
{
    if (a->workspace.len > 0)
        m->workspace = text(f, a->workspace);
    if (a->bundle.len > 0)
        m->bundle = text(f, a->bundle);
    if (!cox_slice_is(a->tenant, "default"))
        m->tenant = text(f, a->tenant);
    if (a->version.len > 0)
        m->program_version = text(f, a->version);
}

static char *hash_text(struct cox_fleet *f, const struct cox_hash *hash)
{
    char text[COX_HASH_TEXT_MAX];

    cox_hash_format(hash, text);
    return cox_arena_dup(&f->arena, text, strlen(text) + 1);
}

static void put_home(struct cox_fleet *f, struct assign_message *m, const struct cox_act_assign *a)
{
    if (a->workspace.len == 0)
        return;
    coxswain__v1__workspace_home__init(&m->home);
    m->home.number = a->home.number;
    if (a->home.has_snapshot) {
        m->home.snapshot = hash_text(f, &a->home.snapshot);
        m->home.tree = hash_text(f, &a->home.tree);
    }
    m->assign.workspace_home = &m->home;
}

static void put_hint(struct assign_message *m, const struct cox_call_hint *h)
{
    coxswain__v1__call_hint__init(&m->hint);
    m->hint.priority = h->priority;
    m->hint.critical_path_ms = h->critical_path_ms;
    m->hint.deadline_ms = h->deadline_ms;
    m->hint.siblings = h->siblings;
    m->hint.tokens_left = h->tokens_left;
    m->hint.output_tokens = h->output_tokens;
    m->hint.idempotent = h->idempotent;
    m->assign.hint = &m->hint;
}

static void assign(struct cox_session *s, const struct cox_act_assign *a)
{
    struct cox_fleet *f = s->fleet;
    struct assign_message *m = cox_arena_alloc(&f->arena, sizeof(*m));
    const char *task = task_text(f, a->root);

    coxswain__v1__assign__init(&m->assign);
    ref_fill(&m->ref, &a->ref);
    m->assign.ref = &m->ref.ref;
    m->assign.task_id = text(f, cox_slice_str(task));
    m->assign.step_name = text(f, a->address);
    m->assign.attempt = a->attempt;
    m->assign.handler = text(f, a->handler);
    put_bytes(&m->assign.spec_json, a->spec_json);
    put_bytes(&m->assign.continuation_json, a->continuation);
    put_bytes(&m->assign.artifacts_json, a->artifacts);
    put_texts(f, &m->assign, a);
    put_home(f, m, a);
    m->assign.timeout_ms = (uint64_t)a->timeout_ms;
    m->assign.idempotency_key = idempotency_key(f, task, a->address);
    if (a->resources.cpu_milli || a->resources.memory_bytes || a->resources.disk_bytes) {
        coxswain__v1__resources__init(&m->resources);
        m->resources.cpu_milli = a->resources.cpu_milli;
        m->resources.memory_bytes = a->resources.memory_bytes;
        m->resources.disk_bytes = a->resources.disk_bytes;
        m->assign.resources = &m->resources;
    }
    if (s->inner)
        put_hint(m, &a->hint);
    size_t len = a->spec_json.len + a->continuation.len + a->artifacts.len + put_items(f, &m->assign, a);

    out_add(s, &s->assigns, m, 256 + len);
}

static void answer(struct cox_session *s, const struct cox_ref *ref, enum cox_answer kind)
{
    struct {
        Coxswain__V1__Answer answer;
        struct ref_message ref;
    } *m = cox_arena_alloc(&s->fleet->arena, sizeof(*m));

    coxswain__v1__answer__init(&m->answer);
    ref_fill(&m->ref, ref);
    m->answer.ref = &m->ref.ref;
    m->answer.kind = (Coxswain__V1__AnswerKind)kind;
    out_add(s, &s->answers, m, 48);
}

static void put_ref(struct cox_session *s, struct cox_outgoing *out, const struct cox_ref *ref)
{
    struct ref_message *m = cox_arena_alloc(&s->fleet->arena, sizeof(*m));

    ref_fill(m, ref);
    out_add(s, out, m, 48);
}

static void expect(struct cox_session *s, cox_task_id task, uint64_t in_ms)
{
    Coxswain__V1__Expect *m = cox_arena_alloc(&s->fleet->arena, sizeof(*m));

    coxswain__v1__expect__init(m);
    m->task_id = text(s->fleet, cox_slice_str(task_text(s->fleet, task)));
    m->in_ms = in_ms;
    out_add(s, &s->expects, m, 48);
}

static void release(struct cox_session *s, cox_task_id task)
{
    out_add(s, &s->released, text(s->fleet, cox_slice_str(task_text(s->fleet, task))), COX_TASK_ID_TEXT_MAX);
}

static void close_by_engine(struct cox_session *s, enum cox_err err, const char *message)
{
    if (err == COX_ERR_STALE)
        cox_session_close(s, COX_RPC_ABORTED, "SUPERSEDED", "a newer stream of the same worker has won");
    else if (err == COX_ERR_TIMEOUT)
        cox_session_close(s, COX_RPC_UNAVAILABLE, "SILENT", message ? message : "silent for too long");
    else
        cox_session_close(s, COX_RPC_INVALID_ARGUMENT, "PROTOCOL", message ? message : "refused");
}

void cox_fleet_act(struct cox_fleet *f, const struct cox_action *a)
{
    struct cox_session *s;

    switch (a->kind) {
    case COX_ACT_ASSIGN:
        if ((s = cox_session_find(f, a->u.assign.session)) && !s->dead)
            assign(s, &a->u.assign);
        break;
    case COX_ACT_CANCEL:
        if ((s = cox_session_find(f, a->u.attempt.session)) && !s->dead)
            put_ref(s, &s->cancels, &a->u.attempt.ref);
        break;
    case COX_ACT_FENCED:
        if ((s = cox_session_find(f, a->u.attempt.session)) && !s->dead)
            put_ref(s, &s->fenced, &a->u.attempt.ref);
        break;
    case COX_ACT_EXPECT:
        if ((s = cox_session_find(f, a->u.expect.session)) && !s->dead)
            expect(s, a->u.expect.root, a->u.expect.in_ms);
        break;
    case COX_ACT_ANSWER:
        if ((s = cox_session_find(f, a->u.attempt.session)) && !s->dead)
            answer(s, &a->u.attempt.ref, a->u.attempt.answer);
        break;
    case COX_ACT_RELEASE:
        if ((s = cox_session_find(f, a->u.worker.session)) && !s->dead)
            release(s, a->u.worker.task);
        break;
    case COX_ACT_DRAIN:
        if ((s = cox_session_find(f, a->u.worker.session)) && !s->dead) {
            s->drain = true;
            flush_later(s);
        }
        break;
    case COX_ACT_CLOSE:
        if ((s = cox_session_find(f, a->u.close.session)))
            close_by_engine(s, a->u.close.err, a->u.close.message);
        break;
    default:
        break;
    }
}

void cox_fleet_drain(struct cox_fleet *f)
{
    f->draining = true;
    cox_fleet_say_reconnect(f);
}

void cox_fleet_say_reconnect(struct cox_fleet *f)
{
    Response m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;

    m.reconnect = true;
    for (uint32_t i = 0; f->n_sessions > 0 && i <= f->mask; i++) {
        struct cox_session *s = f->table[i];
        if (!s || s->dead)
            continue;
        cox_session_flush(s);
        if (s->attached && !cox_rpc_call_inside(s->call)) /* who is inside leaves by itself */
            send_message(s, &m);
    }
}
