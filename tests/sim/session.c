/* coxd's side of a worker's stream: messages into inputs, actions into messages. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

struct stream *session_find(struct sim *s, uint32_t session)
{
    COX_LIST_FOR_EACH (it, &s->streams) {
        struct stream *st = COX_CONTAINER_OF(it, struct stream, node);
        if (st->session == session && !st->coxd_over)
            return st;
    }
    return NULL;
}

/* ---- what workers say ---- */

static void feed(struct sim *s, const struct stream *st, enum cox_input_kind kind)
{
    struct cox_input in = { .kind = kind };
    in.u.session.session = st->session;
    coxd_step(s, &in);
}

static void hello(struct sim *s, struct stream *st, const struct item *it)
{
    static const struct cox_slice zone = { (const uint8_t *)"zone", 4 };
    struct host *h = st->host;
    char value[16], names[HANDLERS][16], boot[24];
    struct cox_slice handlers[HANDLERS + 1] = { 0 }, versions[HANDLERS + 1] = { 0 };
    snprintf(value, sizeof value, "z%u", h->zone);
    snprintf(boot, sizeof boot, "boot-%u", st->boot);
    for (uint32_t i = 0; i < h->n_handlers; i++) {
        snprintf(names[i], sizeof names[i], "sim@%u", i + 1);
        handlers[i] = cox_slice_str(names[i]);
        versions[i] = cox_slice_str(host_version(s, h, handlers[i]));
    }
    handlers[h->n_handlers] = cox_slice_str("model");
    struct cox_label label = { zone, cox_slice_str(value) };
    struct cox_input in = { .kind = COX_IN_ATTACH };
    st->session = ++s->coxd.last_session;
    st->attached = true;
    st->attached_ns = s->now_ns;
    s->coxd.hello_reboots = h->known_to == s->coxd.incarnation && h->known_boot != st->boot;
    h->known_to = s->coxd.incarnation;
    h->known_boot = st->boot;
    in.u.attach = (struct cox_in_attach){ .session = st->session,
                                          .worker_id = cox_slice_str(h->id),
                                          .boot_id = cox_slice_str(boot),
                                          .version = cox_slice_str("sim"),
                                          .slots = h->slots,
                                          .resources = h->resources,
                                          .labels = &label,
                                          .n_labels = 1,
                                          .handlers = handlers,
                                          .versions = versions,
                                          .n_handlers = h->n_handlers + 1 };
    if (it->number == SHARD_UID && s->opt.plant != PLANT_NO_HOLDS) {
        in.u.attach.holds = it->holds;
        in.u.attach.n_holds = it->n_holds;
    }
    struct message *welcome = message_new();
    message_add(welcome, ITEM_WELCOME)->number = SHARD_UID;
    stream_send_down(s, st, welcome);
    trace(s, "coxd: %s %s attaches as session %u, holds %zu", h->id, boot, st->session, it->n_holds);
    s->coxd.hello = it;
    coxd_step(s, &in);
    s->coxd.hello = NULL;
}

/* The planted driver looks at the counter only. */
static struct cox_ref forge(struct sim *s, struct cox_ref ref)
{
    const struct cox_task *t = cox_engine_find(s->coxd.engine, ref.task);
    struct cox_step_view step;
    struct cox_attempt_view last;
    if (s->opt.plant != PLANT_COUNTER || t == NULL)
        return ref;
    cox_step_view(s->coxd.engine, t, ref.step, &step);
    if (step.n_attempts == 0)
        return ref;
    cox_attempt_view(s->coxd.engine, t, ref.step, step.n_attempts - 1, &last);
    if (last.ref.token.counter == ref.token.counter)
        ref.token.epoch = last.ref.token.epoch;
    return ref;
}

struct large_result {
    struct work work;
    struct cox_arena arena;
    struct cox_input in;
};

static void large_drop(struct work *w)
{
    struct large_result *l = COX_CONTAINER_OF(w, struct large_result, work);
    cox_arena_fini(&l->arena);
    cox_free(l);
}

static void large_done(struct sim *s, struct work *w)
{
    struct large_result *l = COX_CONTAINER_OF(w, struct large_result, work);
    struct cox_payload *out = &l->in.u.result.output;
    out->hash = payload_hash(out->bytes);
    if (out->size > s->cfg.logged_max) { /* the worker has put it beside the log */
        store_blob(s, &out->hash, out->bytes);
        out->bytes = cox_slice(NULL, 0);
        l->in.u.result.blobs = &out->hash;
        l->in.u.result.n_blobs = 1;
    }
    coxd_step(s, &l->in);
    large_drop(w);
}

static void large_start(struct sim *s, const struct cox_input *in)
{
    struct large_result *l = COX_NEW(struct large_result);
    struct cox_in_result *r = &l->in.u.result;
    l->in = *in;
    l->work.done = large_done;
    l->work.drop = large_drop;
    r->output.kind = COX_PAYLOAD_STORED;
    r->output.bytes.data = cox_arena_dup(&l->arena, r->output.bytes.data, r->output.bytes.len);
    r->message.data = cox_arena_dup(&l->arena, r->message.data, r->message.len);
    r->files.packs = cox_arena_dup(&l->arena, r->files.packs, r->files.n_packs * sizeof r->files.packs[0]);
    work_submit(s, &l->work);
}

static void result(struct sim *s, struct stream *st, const struct item *it)
{
    const struct cox_agent_result *r = &it->result;
    struct cox_input in = { .kind = COX_IN_RESULT };
    in.u.result = (struct cox_in_result){ .session = st->session,
                                          .ref = forge(s, it->ref),
                                          .status = r->status,
                                          .code = r->code,
                                          .message = r->message,
                                          .has_exit_code = r->has_exit_code,
                                          .exit_code = r->exit_code,
                                          .cpu_us = r->cpu_us,
                                          .run_us = r->run_us };
    in.u.result.files = (struct cox_files){ .told = r->files.told,
                                            .saved = r->files.saved,
                                            .tree = r->files.tree,
                                            .packs = r->files.packs,
                                            .n_packs = r->files.n_packs,
                                            .serial = r->files.serial };
    for (size_t i = 0; i < r->files.n_packs; i++) /* uploaded before it was said */
        store_blob(s, &r->files.packs[i], cox_slice_str("files"));
    in.u.result.usage = (struct cox_usage){ .model_calls = r->usage.model_calls,
                                            .input_tokens = r->usage.input_tokens,
                                            .output_tokens = r->usage.output_tokens,
                                            .cached_tokens = r->usage.cached_input_tokens,
                                            .wasted_tokens = r->usage.wasted_tokens,
                                            .cost_micros = r->usage.cost_micros };
    memcpy(in.u.result.usage.currency, r->usage.currency, sizeof r->usage.currency);
    trace(s, "coxd: %s says %s %s", st->host->id, ref_text(it->ref), cox_attempt_status_text(r->status));
    if (r->output.len > 0)
        in.u.result.output =
            (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = r->output, .size = r->output.len };
    if (r->continuation_json.len > 0)
        in.u.result.continuation = value_kept(s, r->continuation_json);
    struct cox_item_result *items = cox_calloc(r->n_items + 1, sizeof items[0]);
    for (size_t i = 0; i < r->n_items; i++)
        items[i] = (struct cox_item_result){ .index = r->items[i].index,
                                             .status = r->items[i].status,
                                             .code = r->items[i].code,
                                             .message = r->items[i].message,
                                             .output = r->items[i].output };
    if (s->opt.plant == PLANT_ITEM && r->n_items > 1 && chance(s, 125)) {
        uint32_t first = items[0].index;
        items[0].index = items[1].index;
        items[1].index = first;
    }
    in.u.result.items = items;
    in.u.result.n_items = r->n_items;
    if (r->output.len > COX_INLINE_PAYLOAD_LEN_MAX)
        large_start(s, &in);
    else
        coxd_step(s, &in);
    cox_free(items);
}

static void receive(struct sim *s, struct stream *st, const struct item *it)
{
    struct cox_input in = { .kind = COX_IN_NR };
    switch (it->kind) {
    case ITEM_HELLO:
        hello(s, st, it);
        break;
    case ITEM_RESULT:
        result(s, st, it);
        break;
    case ITEM_STARTED:
    case ITEM_RETURNED:
        in.kind = it->kind == ITEM_STARTED ? COX_IN_STARTED : COX_IN_RETURNED;
        in.u.attempt.session = st->session;
        in.u.attempt.ref = it->ref;
        trace(s, "coxd: %s %s %s", st->host->id, in.kind == COX_IN_STARTED ? "started" : "returns",
              ref_text(it->ref));
        coxd_step(s, &in);
        break;
    case ITEM_CREDIT:
        in.kind = COX_IN_CREDIT;
        in.u.credit.session = st->session;
        in.u.credit.granted = it->number + (s->opt.plant == PLANT_CREDIT ? 1 : 0);
        coxd_step(s, &in);
        break;
    case ITEM_DRAINING:
        feed(s, st, COX_IN_DRAINING);
        break;
    case ITEM_END:
        trace(s, "coxd: session %u of %s is over", st->session, st->host->id);
        st->coxd_over = true;
        if (st->attached)
            feed(s, st, COX_IN_DETACH);
        break;
    default:
        break; /* BEAT: every message is one */
    }
}

void session_receive(struct sim *s, struct message *m)
{
    struct stream *st = m->stream;
    if (st == NULL) {
        client_request(s, &m->items[0]);
        return;
    }
    if (st->coxd_over || st->dead)
        return;
    st->heard_ns = s->now_ns;
    bool beat = false;
    for (size_t i = 0; i < m->n && !st->dead && !st->coxd_over; i++) {
        if (!st->attached && m->items[i].kind != ITEM_HELLO && m->items[i].kind != ITEM_END)
            fail(s, "%s does not begin with Hello", st->host->id);
        if (!beat && st->attached)
            feed(s, st, COX_IN_BEAT);
        beat = beat || st->attached;
        receive(s, st, &m->items[i]);
    }
}

/* ---- what the engine says ---- */

static struct item *out_add(struct stream *st, enum item_kind kind)
{
    if (st->out == NULL)
        st->out = message_new();
    return message_add(st->out, kind);
}

static void assign(struct stream *st, const struct cox_act_assign *a)
{
    struct item *it = out_add(st, ITEM_ASSIGN);
    char id[COX_TASK_ID_TEXT_MAX];
    cox_task_id_format(a->ref.task, id);
    it->assign = (struct cox_agent_assign){ .ref = a->ref,
                                            .attempt = a->attempt,
                                            .timeout_ms = (uint64_t)a->timeout_ms,
                                            .resources = a->resources,
                                            .task_id = message_keep(st->out, cox_slice_str(id)),
                                            .step_name = message_keep(st->out, a->address),
                                            .handler = message_keep(st->out, a->handler),
                                            .spec_json = message_keep(st->out, a->spec_json),
                                            .continuation_json = message_keep(st->out, a->continuation),
                                            .n_items = a->n_items };
    struct cox_agent_item *items = cox_arena_alloc(&st->out->arena, (a->n_items + 1) * sizeof items[0]);
    for (size_t i = 0; i < a->n_items; i++)
        items[i] = (struct cox_agent_item){ a->items[i].index, message_keep(st->out, a->items[i].spec_json) };
    it->assign.items = items;
    if (a->workspace.len == 0)
        return;
    struct cox_buf name = { 0 };
    cox_put_u64(&name, a->root);
    cox_buf_append_slice(&name, a->workspace);
    it->assign.workspace = message_keep(st->out, cox_buf_slice(&name));
    cox_buf_fini(&name);
    it->assign.home = a->home.number;
    if (a->home.has_snapshot)
        it->assign.snapshot = message_keep(st->out, cox_slice(a->home.snapshot.b, sizeof a->home.snapshot.b));
}

static void close(struct sim *s, struct stream *st, enum cox_err err, const char *message)
{
    trace(s, "coxd: closes session %u of %s: %s", st->session, st->host->id, message ? message : "");
    if (err == COX_ERR_INVALID)
        fail(s, "the engine says of %s: %s", st->host->id, message);
    st->dead = st->coxd_over = true;
    message_free(st->out);
    st->out = NULL;
    struct message *m = message_new();
    message_add(m, ITEM_END)->number = err == COX_ERR_STALE;
    stream_send_down(s, st, m);
}

static struct stream *other_stream(struct sim *s, const struct stream *st)
{
    COX_LIST_FOR_EACH (it, &s->streams) {
        struct stream *other = COX_CONTAINER_OF(it, struct stream, node);
        if (other != st && other->attached && !other->coxd_over)
            return other;
    }
    return NULL;
}

void session_act(struct sim *s, const struct cox_action *a)
{
    uint32_t session = a->kind == COX_ACT_ASSIGN  ? a->u.assign.session
                       : a->kind == COX_ACT_CLOSE ? a->u.close.session
                       : a->kind == COX_ACT_DRAIN ? a->u.worker.session
                                                  : a->u.attempt.session;
    struct stream *st = session_find(s, session), *other;
    if (st == NULL)
        return;
    switch (a->kind) {
    case COX_ACT_ASSIGN:
        trace(s, "coxd: %s gets %s", st->host->id, ref_text(a->u.assign.ref));
        assign(st, &a->u.assign);
        if (s->opt.plant == PLANT_ASSIGN_TWICE && chance(s, 20) && (other = other_stream(s, st)) != NULL)
            assign(other, &a->u.assign);
        break;
    case COX_ACT_CANCEL:
        if (s->opt.plant == PLANT_LOSERS && chance(s, 250))
            break;
        trace(s, "coxd: %s is to stop %s", st->host->id, ref_text(a->u.attempt.ref));
        out_add(st, ITEM_CANCEL)->ref = a->u.attempt.ref;
        break;
    case COX_ACT_ANSWER:
        if (s->opt.plant == PLANT_NO_ANSWER && chance(s, 125))
            break;
        out_add(st, ITEM_ANSWER)->ref = a->u.attempt.ref;
        break;
    case COX_ACT_DRAIN:
        out_add(st, ITEM_DRAIN);
        break;
    case COX_ACT_CLOSE:
        close(s, st, a->u.close.err, a->u.close.message);
        break;
    default:
        break;
    }
}

/* A message is read in the order of its fields. */
static void sort_items(struct message *m)
{
    for (size_t i = 1; i < m->n; i++) {
        struct item it = m->items[i];
        size_t k = i;
        for (; k > 0 && m->items[k - 1].kind > it.kind; k--)
            m->items[k] = m->items[k - 1];
        m->items[k] = it;
    }
}

void session_flush(struct sim *s)
{
    COX_LIST_FOR_EACH (it, &s->streams) {
        struct stream *st = COX_CONTAINER_OF(it, struct stream, node);
        struct message *m = st->out;
        if (m == NULL)
            continue;
        st->out = NULL;
        sort_items(m);
        stream_send_down(s, st, m);
    }
}

void session_reconnect_all(struct sim *s)
{
    COX_LIST_FOR_EACH (it, &s->streams) {
        struct stream *st = COX_CONTAINER_OF(it, struct stream, node);
        if (!st->attached || st->coxd_over)
            continue;
        struct message *m = message_new();
        message_add(m, ITEM_RECONNECT);
        stream_send_down(s, st, m);
    }
}
