/* What the compile thread and the state answer beside evaluations: images, joined maps, values, sleepers.
 * Like all that thread does, an answer comes later, and a crash loses it. */
#include "sim.h"

#include <string.h>

struct cox_payload value_kept(struct sim *s, struct cox_slice json)
{
    struct cox_payload p = { .kind = COX_PAYLOAD_INLINE, .bytes = json, .size = json.len };
    if (json.len <= COX_INLINE_PAYLOAD_LEN_MAX)
        return p;
    p.kind = COX_PAYLOAD_STORED;
    p.hash = payload_hash(json);
    if (json.len > s->cfg.logged_max) {
        store_blob(s, &p.hash, json);
        p.bytes = cox_slice(NULL, 0);
    }
    return p;
}

/* ---- images ---- */

struct compilation {
    struct work work;
    uint64_t ticket;
    enum cox_source_kind kind;
    struct cox_buf document, inputs;
};

static void compilation_drop(struct work *w)
{
    struct compilation *c = COX_CONTAINER_OF(w, struct compilation, work);
    cox_buf_fini(&c->document);
    cox_buf_fini(&c->inputs);
    cox_free(c);
}

static void compiled(struct sim *s, struct work *w)
{
    struct compilation *c = COX_CONTAINER_OF(w, struct compilation, work);
    struct cox_task_source source = { .kind = c->kind,
                                      .document = cox_buf_slice(&c->document),
                                      .inputs_json = cox_buf_slice(&c->inputs) };
    struct cox_buf image = { 0 };
    struct cox_violations v = { 0 };
    struct cox_input in = { .kind = COX_IN_COMPILED };
    in.u.compiled.ticket = c->ticket;
    in.u.compiled.ok = cox_task_compile(&source, &image, &v) == COX_OK;
    in.u.compiled.image = cox_buf_slice(&image);
    if (!in.u.compiled.ok)
        in.u.compiled.error = cox_slice_str(v.items[0].message);
    coxd_step(s, &in);
    cox_violations_fini(&v);
    cox_buf_fini(&image);
    compilation_drop(w);
}

void compile_start(struct sim *s, const struct cox_act_compile *act)
{
    struct compilation *c = COX_NEW(struct compilation);
    c->work.done = compiled;
    c->work.drop = compilation_drop;
    c->ticket = act->ticket;
    c->kind = act->kind;
    cox_buf_append_slice(&c->document, act->document.bytes);
    cox_buf_append_slice(&c->inputs, act->inputs_json);
    work_submit(s, &c->work);
    s->n.compiles++;
}

/* ---- maps ---- */

struct part {
    struct cox_entity_key key;
    uint64_t fetch; /* 0: it is here */
    struct cox_buf bytes;
};
struct composition {
    struct work work;
    uint64_t ticket;
    struct part *parts;
    size_t n_parts, n_missing;
};

static void composition_drop(struct work *w)
{
    struct composition *c = COX_CONTAINER_OF(w, struct composition, work);
    for (size_t i = 0; i < c->n_parts; i++)
        cox_buf_fini(&c->parts[i].bytes);
    cox_free(c->parts);
    cox_free(c);
}

static void join(struct sim *s, struct composition *c, struct cox_buf *outputs, struct cox_buf *failures)
{
    cox_put_u8(outputs, '[');
    cox_put_u8(failures, '[');
    for (size_t i = 0; i < c->n_parts; i++) {
        struct cox_buf outs = { 0 }, errors = { 0 };
        if (cox_map_part_outputs(c->parts[i].key, cox_buf_slice(&c->parts[i].bytes), &outs, &errors) !=
            COX_OK)
            fail(s, "a saved page of a map cannot be read");
        cox_buf_append_str(outputs, i > 0 ? "," : "");
        cox_buf_append_slice(outputs, cox_buf_slice(&outs));
        cox_buf_append_str(failures, failures->len > 1 && errors.len > 0 ? "," : "");
        cox_buf_append_slice(failures, cox_buf_slice(&errors));
        cox_buf_fini(&outs);
        cox_buf_fini(&errors);
    }
    cox_put_u8(outputs, ']');
    cox_put_u8(failures, ']');
}

static void composed(struct sim *s, struct work *w)
{
    struct composition *c = COX_CONTAINER_OF(w, struct composition, work);
    struct cox_buf outputs = { 0 }, failures = { 0 };
    struct cox_input in = { .kind = COX_IN_COMPOSED };
    join(s, c, &outputs, &failures);
    in.u.evaluated.ticket = c->ticket;
    in.u.evaluated.ok = true;
    in.u.evaluated.value = value_kept(s, cox_buf_slice(&outputs));
    if (failures.len > 2)
        in.u.evaluated.errors = value_kept(s, cox_buf_slice(&failures));
    coxd_step(s, &in);
    cox_buf_fini(&outputs);
    cox_buf_fini(&failures);
    composition_drop(w);
}

static void ask_state(struct sim *s, struct state_op *op)
{
    bool taken = store_request(s, op);
    COX_ASSERT(taken); /* reads always are */
}

void compose_start(struct sim *s, const struct cox_act_compose *act)
{
    struct composition *c = COX_NEW(struct composition);
    c->work.done = composed;
    c->work.drop = composition_drop;
    c->ticket = act->ticket;
    c->n_parts = c->n_missing = act->n_parts;
    c->parts = cox_calloc(act->n_parts + 1, sizeof c->parts[0]);
    cox_list_push_back(&s->coxd.fetching, &c->work.node);
    for (size_t i = 0; i < act->n_parts; i++) {
        struct state_op *op = COX_NEW(struct state_op);
        c->parts[i].key = act->parts[i];
        c->parts[i].fetch = ++s->coxd.next_fetch;
        *op = (struct state_op){ .op = COX_STORE_READ_ENTITY,
                                 .reader = READER_PART,
                                 .ticket = c->parts[i].fetch,
                                 .key = act->parts[i] };
        ask_state(s, op);
    }
    s->n.composes++;
}

static void part_read(struct sim *s, struct state_op *op)
{
    COX_LIST_FOR_EACH (it, &s->coxd.fetching) {
        struct composition *c = COX_CONTAINER_OF(it, struct composition, work.node);
        for (size_t i = 0; c->work.done == composed && i < c->n_parts; i++) {
            if (c->parts[i].fetch != op->ticket)
                continue;
            if (op->err != COX_OK)
                fail(s, "a page of a map is to be joined, and was never saved");
            c->parts[i].fetch = 0;
            cox_buf_append_slice(&c->parts[i].bytes, cox_buf_slice(&op->bytes));
            if (--c->n_missing == 0) {
                cox_list_remove(&c->work.node);
                work_submit(s, &c->work);
            }
            return;
        }
    }
}

/* ---- reads that are answered as they are ---- */

void fetch_start(struct sim *s, uint64_t ticket, const struct cox_hash *hash)
{
    struct state_op *op = COX_NEW(struct state_op);
    *op = (struct state_op){
        .op = COX_STORE_READ_PAYLOAD, .reader = READER_FETCH, .ticket = ticket, .key = payload_key(hash)
    };
    ask_state(s, op);
    s->n.fetches++;
}

void load_start(struct sim *s, struct cox_entity_key sleeper)
{
    struct state_op *op = COX_NEW(struct state_op);
    *op = (struct state_op){ .op = COX_STORE_READ_ENTITY, .reader = READER_LOAD, .key = sleeper };
    ask_state(s, op);
    s->n.loads++;
}

/* Rules 10 and 11. */
void answer_read(struct sim *s, struct state_op *op)
{
    struct cox_input in = { .kind = COX_IN_FETCHED };
    switch (op->reader) {
    case READER_PART:
        part_read(s, op);
        return;
    case READER_FETCH:
        if (op->err != COX_OK)
            fail(s, "a stored value of a task cannot be fetched: %s", cox_err_text(op->err));
        in.u.fetched.ticket = op->ticket;
        in.u.fetched.bytes = cox_buf_slice(&op->bytes);
        coxd_step(s, &in);
        return;
    case READER_LOAD:
        if (op->err != COX_OK)
            fail(s, "a task sleeps, and its bytes are not in the state");
        in.kind = COX_IN_LOADED;
        in.u.loaded.task = op->key.id;
        in.u.loaded.bytes = cox_buf_slice(&op->bytes);
        trace(s, "coxd: %s is loaded", ref_text((struct cox_ref){ .task = op->key.id }));
        coxd_step(s, &in);
        return;
    default:
        evaluate_fetched(s, op);
    }
}
