#include "trace_state.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "trace_kept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the compile thread's part ---- */

void compile(struct trace *t)
{
    assert_true(t->n_done_compiles < t->n_compiles);
    const struct open_compile *o = &t->compiles[t->n_done_compiles++ % COMPILES_MAX];
    struct cox_task_source source = { .kind = o->kind,
                                      .document = cox_buf_slice(&o->document),
                                      .inputs_json = cox_buf_slice(&o->inputs),
                                      .allow_json = cox_buf_slice(&o->allow) };
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

struct cox_hash upload(struct trace *t, uint8_t fill)
{
    struct cox_hash hash;
    memset(hash.b, fill, sizeof hash.b);
    keep_bytes(t, &hash, cox_slice_str("uploaded"));
    return hash;
}

/* As coxd keeps it: by size. The name is not of the kind that coxd uses; the engine does not look. */
struct cox_payload kept(struct trace *t, const struct cox_buf *b)
{
    struct cox_payload p = { .kind = COX_PAYLOAD_INLINE, .bytes = cox_buf_slice(b), .size = b->len };
    if (b->len > COX_INLINE_PAYLOAD_LEN_MAX) {
        uint64_t h = cox_hash64(b->data, b->len);
        p.kind = COX_PAYLOAD_STORED;
        memcpy(p.hash.b, &h, sizeof h);
    }
    if (b->len > COX_LOGGED_PAYLOAD_LEN_MAX) { /* a blob, before the engine hears of it */
        keep_bytes(t, &p.hash, p.bytes);
        p.bytes = cox_slice(NULL, 0);
    }
    return p;
}

const struct saved *saved_of(const struct trace *t, struct cox_entity_key key)
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

void fetch_nothing(struct trace *t)
{
    assert_true(t->n_done_fetches < t->n_fetches);
    struct cox_input in = { .kind = COX_IN_FETCHED };
    in.u.fetched.ticket = t->fetches[t->n_done_fetches++].ticket;
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
        in.u.evaluated.value.bytes = cox_buf_slice(&out);
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
