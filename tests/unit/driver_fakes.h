/* For test_driver.c: an engine and a store that do what each test tells them. */
#ifndef UNIT_DRIVER_FAKES_H
#define UNIT_DRIVER_FAKES_H

#include "driver.h"

#include "check.h"

#include "cox/base/alloc.h"

#include <string.h>

#define ACTIONS_MAX 16

/* ---- the engine: each input emits what was prepared for it ---- */

struct cox_engine {
    uint64_t seq;
};

static struct {
    struct cox_engine engine;
    uint32_t n_records;                     /* the next step emits so many */
    struct cox_action actions[ACTIONS_MAX]; /* and these; after_seq is relative to the first record */
    size_t n_actions;
    enum cox_input_kind inputs[64];
    size_t n_inputs;
    int64_t wake_ns;
} fake;

static void emit(uint32_t n, struct cox_effects *fx)
{
    if (n > 0 && fx->n_records == 0)
        fx->first_seq = fake.engine.seq + 1;
    for (uint32_t i = 0; i < n; i++)
        cox_put_u8(&fx->records, 1);
    fx->n_records += n;
    fake.engine.seq += n;
}

static void push(const struct cox_action *a, struct cox_effects *fx)
{
    if (fx->n_actions == fx->cap_actions) {
        fx->cap_actions = fx->cap_actions * 2 + 4;
        fx->actions = cox_realloc(fx->actions, fx->cap_actions, sizeof(*fx->actions));
    }
    fx->actions[fx->n_actions++] = *a;
}

struct cox_engine *cox_engine_create(const struct cox_engine_config *config)
{
    (void)config;
    return &fake.engine;
}

void cox_engine_destroy(struct cox_engine *e)
{
    (void)e;
}

struct cox_slice cox_engine_tenant(const struct cox_engine *e, cox_task_id id)
{
    (void)e, (void)id;
    return cox_slice_str("default");
}

struct cox_space cox_space_of(struct cox_slice tenant)
{
    assert_true(tenant.len == 0 || cox_slice_is(tenant, "default"));
    return (struct cox_space){ { 0 } };
}

enum cox_err cox_engine_load(struct cox_engine *e, struct cox_entity_key key, uint64_t seq,
                             struct cox_slice b)
{
    (void)e, (void)key, (void)seq, (void)b;
    return COX_OK;
}

enum cox_err cox_engine_replay(struct cox_engine *e, uint64_t first, uint32_t n, struct cox_slice b)
{
    (void)e, (void)first, (void)n, (void)b;
    return COX_OK;
}

enum cox_err cox_engine_recovered(struct cox_engine *e, struct cox_now now, uint64_t last,
                                  struct cox_effects *fx)
{
    (void)e, (void)now;
    fake.engine.seq = last;
    emit(1, fx); /* the epoch */
    fx->wake_mono_ns = fake.wake_ns;
    return COX_OK;
}

void cox_engine_step(struct cox_engine *e, const struct cox_input *in, struct cox_effects *fx)
{
    (void)e;
    fake.inputs[fake.n_inputs++] = in->kind;
    emit(fake.n_records, fx);
    for (size_t i = 0; i < fake.n_actions; i++) {
        fake.actions[i].after_seq = fake.engine.seq;
        push(&fake.actions[i], fx);
    }
    fake.n_records = 0;
    fake.n_actions = 0;
    fx->wake_mono_ns = fake.wake_ns;
}

uint64_t cox_engine_seq(const struct cox_engine *e)
{
    return e->seq;
}

void cox_effects_reset(struct cox_effects *fx)
{
    cox_buf_clear(&fx->records);
    fx->n_records = 0;
    fx->n_actions = 0;
    cox_arena_reset(&fx->arena);
}

void cox_effects_fini(struct cox_effects *fx)
{
    cox_buf_fini(&fx->records);
    cox_free(fx->actions);
    cox_arena_fini(&fx->arena);
}

void cox_evaluate_start(struct cox_driver *d, const struct cox_act_evaluate *act)
{
    (void)d, (void)act;
}

void cox_tools_start(struct cox_driver *d, const struct cox_act_tools *act)
{
    (void)d, (void)act;
}

void cox_decide_start(struct cox_driver *d, const struct cox_act_decide *act)
{
    (void)d, (void)act;
}

void cox_compose_start(struct cox_driver *d, const struct cox_act_compose *act)
{
    (void)d, (void)act;
}

/* Documents are not this test's matter. */
enum cox_err cox_task_compile(const struct cox_task_source *source, struct cox_buf *ret_image,
                              struct cox_violations *v)
{
    (void)source, (void)ret_image;
    memset(v, 0, sizeof(*v));
    return COX_ERR_INVALID;
}

void cox_violations_fini(struct cox_violations *v)
{
    (void)v;
}

void cox_engine_quarantine(struct cox_engine *e, const struct cox_quarantined *q, struct cox_slice image)
{
    (void)e, (void)q, (void)image;
}

/* ---- the store: commits when told ---- */

struct cox_store {
    uint64_t appended, durable;
    size_t room;       /* batches the log takes */
    size_t state_room; /* requests the state takes */
    enum cox_store_op requests[64];
    size_t n_requests;
    struct cox_store_event events[8];
    size_t n_events;
    uint64_t free_bytes;
    uint64_t in_use; /* what the newest sweep was told */
};
static struct cox_store store;

enum cox_err cox_store_open(const struct cox_store_config *config, struct cox_store **ret,
                            struct cox_buf *error)
{
    (void)config, (void)error;
    *ret = &store;
    return COX_OK;
}

uint64_t cox_store_uid(const struct cox_store *s)
{
    (void)s;
    return 7;
}

enum cox_err cox_store_recover(struct cox_store *s, const struct cox_store_recovery *r, uint64_t *ret_last,
                               struct cox_buf *error)
{
    (void)s, (void)r, (void)error;
    *ret_last = 0;
    return COX_OK;
}

enum cox_err cox_store_quarantine(struct cox_store *s, uint64_t root, const char *why, struct cox_buf *error)
{
    (void)s, (void)root, (void)why, (void)error;
    return COX_OK;
}

enum cox_err cox_store_start(struct cox_store *s)
{
    (void)s;
    return COX_OK;
}

bool cox_store_append(struct cox_store *s, uint64_t first, uint32_t n, struct cox_buf *records)
{
    if (s->room == 0)
        return false;
    assert_int_equal(first, s->appended + 1);
    assert_int_equal(records->len, n);
    s->room--;
    s->appended += n;
    cox_buf_fini(records);
    return true;
}

uint64_t cox_store_durable_seq(const struct cox_store *s)
{
    return s->durable;
}

size_t cox_store_append_room(const struct cox_store *s)
{
    return s->room;
}

bool cox_store_request(struct cox_store *s, struct cox_store_request *req)
{
    if (s->state_room == 0)
        return false;
    s->state_room--;
    s->requests[s->n_requests++] = req->op;
    if (req->op == COX_STORE_SWEEP) {
        struct cox_reader in = cox_reader(cox_buf_slice(&req->bytes));

        s->in_use = cox_get_u64(&in);
        assert_int_equal(cox_reader_left(&in), 0);
    }
    if (req->op == COX_STORE_READ_ARCHIVE)
        s->events[s->n_events++] = (struct cox_store_event){ req->op, req->ticket, req->id, COX_OK, { 0 } };
    cox_buf_fini(&req->bytes);
    return true;
}

bool cox_store_poll(struct cox_store *s, struct cox_store_event *ret)
{
    if (s->n_events == 0)
        return false;
    *ret = s->events[--s->n_events];
    return true;
}

void cox_index_row_encode(struct cox_buf *b, const struct cox_index_row *row)
{
    cox_put_u64(b, row->id);
}

void cox_store_keep(struct cox_store *s, int64_t retention_ms, uint64_t min_free)
{
    (void)s, (void)retention_ms, (void)min_free;
}

uint64_t cox_store_free_bytes(const struct cox_store *s)
{
    (void)s;
    return store.free_bytes;
}

void cox_store_close(struct cox_store *s)
{
    (void)s;
}

#endif
